"""Agents as programs: the episodes of processes over HTTP, how agents fail, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support.scripted import last_user, scripted_policy, task
from toolhone.agents.agent_player import AgentPlayer
from toolhone.api import evaluate, open_model, train
from toolhone.config.experiment import experiment_of, load_experiment
from toolhone.config.rl import AgentSection
from toolhone.data.world_tasks import AgentTask, agent_tasks
from toolhone.episodes.driver import TO_THE_END, run_episodes
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.errors import ConfigError, RunError
from toolhone.rewards.reward_registry import RewardResult, posted_reward
from toolhone.runs.progress import Progress
from toolhone.schema import Task, Tool
from toolhone.tools.registry import Registry
from toolhone.training.loop import TrainStatus
from toolhone.training.rl_metrics import rollout_metrics
from toolhone.training.rollout import RolloutGroup, as_played, rows_of

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

AGENT = Path(__file__).parents[1] / "support" / "plain_agent.py"
COMMAND = [sys.executable, str(AGENT)]
NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}


def look_up(**arguments: Any) -> str:
    """The tool of the agent, in process."""
    return f"result {sum(map(ord, json.dumps(arguments, sort_keys=True))) % 1000}"


ADD = Tool("add", "", NUMBERS, look_up)
CALL = '[TOOL_CALL]{"name": "add", "parameters": {"a": 2, "b": 3}}[/TOOL_CALL]'


def says(prompt: str) -> str:
    said = last_user(prompt)
    return f"It is {said.split(']')[1][:10]}." if "TOOL_RESULT" in said else CALL


def player(needs_reward: bool = False, notes: list[str] | None = None, **more: Any) -> AgentPlayer:
    section = AgentSection(command=COMMAND, tasks=8, **{"parallel": 8, **more})
    noted: list[str] = [] if notes is None else notes
    return AgentPlayer(section, noted.append, needs_reward)


def play(tasks: list[Task], one: AgentPlayer) -> list[Episode]:
    try:
        return one.play(scripted_policy(says), tasks, Registry([]), TO_THE_END)
    finally:
        one.close()


def own_task(**given: Any) -> Task:
    return AgentTask.of(given, f"{given['do']}")


def test_processes_play_the_episodes_that_are_played_in_process() -> None:
    tasks = [task(f"t{i}", f"{i}+3?", (ADD,), {"answer": "5"}) for i in range(3)]
    recorded = play(tasks, player(parallel=2))
    played = run_episodes(scripted_policy(says), tasks, Registry([ADD]), TO_THE_END)
    assert [e.turns for e in recorded] == [e.turns for e in played]
    assert [e.ending for e in recorded] == [e.ending for e in played]
    texts = [[[one.content for one in each] for each in e.results] for e in recorded]
    assert texts == [[[one.content for one in each] for each in e.results] for e in played]
    for one, other in zip(recorded, played, strict=True):
        (row,), (same,) = rows_of(one), rows_of(other)
        assert row.tokens.tolist() == same.tokens.tolist()
        assert row.arrays["behavior_logprobs"].tolist() == same.arrays["behavior_logprobs"].tolist()


def test_an_agent_that_fails_is_left_out_with_its_reason_and_the_others_go_on() -> None:
    notes: list[str] = []
    one = player(needs_reward=True, notes=notes, timeout_s=6, patience_s=0)
    kinds = ["asks", "crash", "idle", "sleep", "forget"]
    tools = [ADD.to_dict()]
    good, *bad = play([own_task(do=kind, tools=tools) for kind in kinds], one)
    assert good.ending is EpisodeStatus.ANSWERED
    assert posted_reward(own_task(do="asks"), good) == {"asked": 1, "long": -0.5}
    records = [episode.recording for episode in bad]
    failures = [record.failure for record in records if record is not None]
    assert failures == ["exit_code", "no_request", "timeout", "no_reward"]
    assert all(episode.ending is EpisodeStatus.FAILED for episode in bad)
    assert bad[0].reason == "the agent ended with code 1; it wrote: no such file: notes.txt"
    assert len(notes) == 4
    assert "1 of 5: the agent did not end within 6 s" in " ".join(notes)
    group = RolloutGroup(own_task(do="asks"), (good, *bad), (RewardResult(0.0, {}),) * 5)
    assert group.without_failures().episodes == (good,)
    metrics = rollout_metrics([group])
    assert metrics["left_out"] == 4
    failed = {name: metrics[f"agent/failed/{name}"] for name in failures}
    assert failed == dict.fromkeys(failures, 1)
    assert metrics["agent/prefix_breaks"] == 0


def test_a_round_in_which_all_agents_fail_stops_with_what_they_wrote() -> None:
    with pytest.raises(RunError, match=r"all 2 agents .*\(2 exit_code\).*no such file: notes.txt"):
        play([own_task(do="crash")] * 2, player())


def test_a_task_gets_the_messages_and_tools_that_its_agent_sent() -> None:
    asked = own_task(do="asks", tools=[ADD.to_dict()])
    seen = as_played(asked, play([asked], player()))
    assert [one.content for one in seen.messages] == ["2+3?"]
    assert [tool.name for tool in seen.tools] == ["add"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"agent": {"tasks": 9}}, "needs agent.command"),
        ({"agent": {"command": ["python"]}}, "needs agent.tasks"),
        ({"training": {"method": "sft"}}, "for training.method grpo or ppo; it is 'sft'"),
        ({"world": {"name": "simulated"}}, "an agent has tools of its own"),
        (
            {"training": {"method": "grpo", "rl": {"reward": {"credit": "turn"}}}},
            "is scored as a whole; use 'episode'",
        ),
        (
            {"training": {"method": "grpo", "rl": {"curriculum": {"enabled": True}}}},
            "which an agent's tasks have not",
        ),
        (
            {"training": {"method": "grpo", "rl": {"episode": {"max_turns": 3}}}},
            "use agent.max_turns",
        ),
        ({"data": {"strategy": None, "path": "x"}}, "set data.strategy=agent"),
    ],
)
def test_what_does_not_go_with_agents_is_refused_by_name(
    changes: dict[str, Any], sentence: str
) -> None:
    agent = {"command": ["python", "a.py"], "tasks": 4}
    data = {"strategy": "agent", **changes.get("data", {})}
    values = {"agent": agent, "training": {"method": "grpo"}, **changes, "data": data}
    with pytest.raises(ConfigError, match=sentence):
        experiment_of(values, "here")


def test_a_program_that_is_not_there_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match="there is no program 'no-such-agent'"):
        AgentPlayer(AgentSection(command=["no-such-agent"], tasks=2), print)


def test_objects_of_the_user_are_tasks_with_the_prompt_of_a_usual_key(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "answer": i} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    agent = {"command": ["a"], "tasks": str(tmp_path / "rows.jsonl")}
    values = {"training": {"method": "grpo"}, "data": {"strategy": "agent", "agent": agent}}
    plan = experiment_of(values, "here")  # under data it is the same section
    played, held_out = agent_tasks(plan)
    assert len(played) + len(held_out) == 20
    assert held_out
    first = played[0]
    assert first.to_dict() == {"id": first.id, **rows[int(first.id.removeprefix("row-")) - 1]}
    assert first.messages[0].content == f"{first.to_dict()['answer']}?"


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_an_experiment_file_trains_on_its_agent(method: str, tmp_path: Path) -> None:
    rows = [{"do": "asks", "say": f"{i}?", "tools": [ADD.to_dict()]} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    agent = {"command": COMMAND, "tasks": "rows.jsonl", "parallel": 4}
    rl = {"group_size": 2, "max_completion_length": 8}
    training = {"method": method, "steps": 2, "batch_size": 2, "validate_every": 0, "rl": rl}
    values = {
        "model": {"backend": "toy"},
        "data": {"strategy": "agent"},
        "agent": agent,
        "training": {**training, "lora": None, "log_every": 1},
        "evaluation": {"num_samples": 1, "max_new_tokens": 8},
    }
    (tmp_path / "mine.json").write_text(json.dumps(values))
    plan = load_experiment(tmp_path / "mine.json")
    run, status = train(plan, tmp_path / "run", progress=Progress())
    assert status is TrainStatus.FINISHED
    one, two = (line for line in run.metrics() if line["kind"] == "train")
    for line in (one, two):
        assert line["reward/posted.asked"] == 1
        assert line["reward"] == 0.5
        assert line["agent/failed"] == 0
    assert json.loads((run.folder / "data.json").read_text())["source"] == "agent"
    for place in ("baseline", "evaluation"):  # the base is played by the agent too
        scores = json.loads((run.folder / place / "metrics.json").read_text())
        assert scores["rewards"]["reward"] == 0.5
    with pytest.raises(ConfigError, match=r"name it to start it: agent.command='\["):
        evaluate(open_model(run.folder))
    named = open_model(run.folder, overrides=[f"agent.command={json.dumps(COMMAND)}"])
    held_out = json.loads((run.folder / "tasks.jsonl").read_text().splitlines()[0])["id"]
    for tasks, first in ((None, held_out), (tmp_path / "rows.jsonl", "row-1")):
        (sample,) = evaluate(named, tasks, num_samples=1).samples
        assert (sample.id, sample.rewards["reward"]) == (first, 0.5)
