"""Recorded sessions of agents against the same episodes in process, with the same seed.

    python benchmarks/agent_parity.py ids RUN --tasks 200     # ids, log-probabilities and loss
    python benchmarks/agent_parity.py grpo RUN --steps 20     # rewards and losses of each step

RUN is a run of SFT on the built-in tools; `agent_frameworks.py` runs frameworks.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from toolhone.agents.agent_player import AgentPlayer
from toolhone.api import experiment, open_model
from toolhone.backends.base import SamplingParams
from toolhone.backends.open import open_trainer
from toolhone.config.rl import AgentSection
from toolhone.data.templates import Templates
from toolhone.episodes.driver import run_episodes
from toolhone.episodes.episode import Episode, EpisodeRules, OnFault, TurnOutcome
from toolhone.episodes.policy import TokenPolicy
from toolhone.models.resolve import adapter_of, resolve_model
from toolhone.runs.progress import Progress
from toolhone.runs.run import Run
from toolhone.schema import Task
from toolhone.tools.registry import Registry
from toolhone.training.grpo import grpo
from toolhone.training.loop import Hooks
from toolhone.training.losses import policy_loss
from toolhone.training.rollout import rows_of
from toolhone.training.setup import TrainingSetup, UserMetrics

AGENT = Path(__file__).parents[1] / "tests" / "support" / "plain_agent.py"
MAX_TURNS = 4
CURVES = ("reward", "loss", "grad_norm")
RULES = EpisodeRules(MAX_TURNS, then={TurnOutcome.MALFORMED: OnFault.FEED_BACK})


def look_up(**arguments: Any) -> str:
    """The tool of `plain_agent.py`, in process: a result that depends on the arguments alone."""
    return f"result {sum(map(ord, json.dumps(arguments, sort_keys=True))) % 1000}"


def registry_of(tasks: Sequence[Task]) -> Registry:
    """The tools of the tasks, each of which runs `look_up`."""
    tools = {tool.name: replace(tool, function=look_up) for task in tasks for tool in task.tools}
    return Registry(list(tools.values()))


def agent_section(count: int) -> dict[str, Any]:
    """A process for each episode; sampling waits for all of them, as it does for quick tools."""
    command, most = [sys.executable, str(AGENT)], {"parallel": count, "patience_s": 1000}
    return {"command": command, "tasks": count, "max_turns": MAX_TURNS, **most}


def compare_ids(name: str, count: int) -> dict[str, Any]:
    """Play tasks in process and by processes under one seed; compare ids, rows and the loss."""
    tasks, model = Templates(0).tasks(count, "train"), open_model(name)
    params = SamplingParams(64, 1.0, seed=7)
    shared = model.sampler, model.dialect, model.tokenizer, params, model.max_context
    played = run_episodes(TokenPolicy(*shared), tasks, registry_of(tasks), RULES)
    player = AgentPlayer(AgentSection(**agent_section(count)), print)
    recorded = player.play(TokenPolicy(*shared), tasks, Registry([]), RULES)
    player.close()
    pairs = list(zip(played, recorded, strict=True))
    return {
        "tasks": count,
        "turns": sum(len(one.turns) for one in played),
        "sampled": sum(len(turn.tokens) for one in played for turn in one.turns),
        "outcomes": Counter(outcome.value for one in played for outcome in one.outcomes),
        "equal ids": sum(ids_of(one) == ids_of(other) for one, other in pairs),
        "equal turns, log-probabilities included": sum(a.turns == b.turns for a, b in pairs),
        "equal endings": sum(one.ending is other.ending for one, other in pairs),
        "prefix breaks": sum(sum(e.recording.breaks.values()) for e in recorded if e.recording),
        "losses": [
            loss_of(name, [row for e in each for row in rows_of(e)]) for each in (played, recorded)
        ],
    }


def ids_of(episode: Episode) -> list[Any]:
    return [(turn.prompt, turn.tokens) for turn in episode.turns]


def model_of(name: str) -> dict[str, Any]:
    return {"name": "pico"} | ({} if name == "pico" else {"adapter": name})


def loss_of(name: str, rows: list[Any]) -> float:
    """The GRPO loss of the rows by the model, with fixed advantages."""
    plan = experiment({"model": model_of(name), "training": {"method": "grpo"}})
    trainer = open_trainer(plan.model, plan.training, resolve_model(plan), adapter_of(plan), 0)
    weighted = []
    for index, row in enumerate(rows):
        weights = np.full(len(row), 0.001, np.float32)
        advantages = np.full(len(row), (-1.0) ** index, np.float32)
        weighted.append(row.with_arrays(weights=weights, advantages=advantages))
    loss = policy_loss("dapo", 0.2, 0.2, 0.0, 1.0)
    return float(trainer.forward_backward(weighted, loss).result()["loss"])


def compare_grpo(name: str, steps: int) -> dict[str, Any]:
    """Train twice with one seed, by tools in process and by agents; compare each step."""
    tasks = Templates(0).tasks(40, "train")
    curves = []
    for by_agents in (False, True):
        rl: dict[str, Any] = {"group_size": 4, "max_completion_length": 64}
        chosen: dict[str, Any] = {"data": {"strategy": "agent"}, "agent": agent_section(16)}
        chosen["agent"]["reward"] = "tool_use"
        if not by_agents:
            rl |= {"episode": {"max_turns": MAX_TURNS, "to_the_end": True}}
            chosen = {}
        training = {"method": "grpo", "steps": steps, "batch_size": 4, "rl": rl}
        training |= {"learning_rate": 1e-4, "save_every": 0, "validate_every": 0}
        plan = experiment({"model": model_of(name), "training": training, **chosen})
        setup = TrainingSetup(plan, registry_of(tasks), UserMetrics.of(plan), Progress())
        with tempfile.TemporaryDirectory() as folder, setup.playing:
            run = Run.create(Path(folder) / "run", plan)
            hooks = Hooks(lambda _: ({}, []), setup.save, Progress())
            grpo(setup.trainer, setup.rl_env(tasks, hooks, run), run)
            curves.append([[line.get(key) for key in CURVES] for line in run.metrics()])
    same = sum(one == other for one, other in zip(*curves, strict=True))
    return {"steps": steps, "equal steps": same, "of": CURVES, "curves": curves}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("ids", "grpo"))
    parser.add_argument("model", help="a run of SFT, or pico")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    by_ids = asked.what == "ids"
    compared = compare_ids if by_ids else compare_grpo
    print(json.dumps(compared(asked.model, asked.tasks if by_ids else asked.steps)))


if __name__ == "__main__":
    main()
