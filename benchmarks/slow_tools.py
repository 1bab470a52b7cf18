"""What slow tools cost: the same 1,000 episodes at once, with instant tools and with tools that
wait 50 ms, in turns (A B A B).

    python benchmarks/slow_tools.py [--model RUN] [--episodes 1000] [--delay 0.05] [--rounds 3] \\
        [--limit 1.25]

Every token is sampled by the torch backend, on one thread. With --model (a run, or a checkpoint of
one) the model calls tools by itself, in tasks of the templates that are played to the end. Without
it pico is untrained and speaks noise: then each reply of 24 tokens is taken as two parallel calls
in the first two turns and as the answer in the third, so that no model needs to be trained. Results
are fixed texts, in both cases the same. Prints one JSON object: seconds of every round, for how
much of it nothing was sampled because tools were running, the ratio of each pair, their median, the
ratio of the fastest rounds (the least disturbed ones on a busy machine), what was played, and how
many episodes came out the same to the token. Exit code 1 where the median is above --limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from toolhone.api import open_model
from toolhone.backends.base import Sample, SamplingParams, StopReason
from toolhone.data.templates import Templates
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.driver import Clock, run_episodes
from toolhone.episodes.episode import Episode, EpisodeRules
from toolhone.episodes.policy import Prompt, TokenPolicy, Turn
from toolhone.schema import Json, Message, Task, ToolCall
from toolhone.tools.registry import Implementation, Registry

PARALLEL = (ToolCall("weather", {"city": "Oslo"}), ToolCall("calculator", {"expression": "2 + 3"}))
CALLING_TURNS = 2


class Forced(TokenPolicy):
    """Reads two calls into whatever was sampled in the first turns, and an answer into what came
    after.
    """

    def read(self, prompt: Prompt, sample: Sample) -> Turn:
        turn = super().read(prompt, sample)
        message = (
            Message("assistant", None, None, PARALLEL)
            if len(prompt.turn_ids) < CALLING_TURNS
            else Message("assistant", "It is.")
        )
        return replace(
            turn, message=message, problem=ParseProblem.NONE, stop_reason=StopReason.STOP
        )


def tools_that_wait(templates: Templates, seconds: float) -> Registry:
    """The tools on offer; each answers every call with the same text, after so many seconds."""

    def answered(**_: Json) -> Json:
        if seconds:
            time.sleep(seconds)
        return '{"temperature": 21.5, "unit": "celsius"}'

    takes = {tool.name: tuple(tool.parameters["properties"]) for tool in templates.tools}
    return Registry(
        [
            replace(tool, function=Implementation(answered, accepts=takes[tool.name]))
            for tool in templates.tools
        ]
    )


@dataclass(frozen=True)
class Round:
    """All tasks, played at once: wall time, how much of it nothing was sampled because tools were
    running, and the episodes.
    """

    seconds: float
    waited: float
    episodes: list[Episode]

    @staticmethod
    def of(policy: TokenPolicy, tasks: Sequence[Task], registry: Registry) -> Round:
        clock, started = Clock(), time.perf_counter()
        episodes = run_episodes(
            policy, tasks, registry, EpisodeRules(max_turns=8), at_once=len(tasks), clock=clock
        )
        return Round(time.perf_counter() - started, clock.take().get("tools", 0.0), episodes)


def told(episodes: Sequence[Episode]) -> list[list[list[int]]]:
    """What was sampled in every turn."""
    return [[list(turn.tokens) for turn in episode.turns] for episode in episodes]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        help="a run or checkpoint whose model calls tools; else pico, untrained, with forced calls",
    )
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1.25)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, templates = open_model(arguments.model or "pico"), Templates(0)
    params = SamplingParams(max_tokens=96 if arguments.model else 24, temperature=1.0, seed=5)
    kind = TokenPolicy if arguments.model else Forced
    policy = kind(model.sampler, model.dialect, model.tokenizer, params, model.max_context)
    tasks = templates.tasks(arguments.episodes, "train")
    instant, slow = tools_that_wait(templates, 0.0), tools_that_wait(templates, arguments.delay)
    Round.of(policy, tasks[:50], instant)
    pairs = [
        (Round.of(policy, tasks, instant), Round.of(policy, tasks, slow))
        for _ in range(arguments.rounds)
    ]
    ratios = [b.seconds / a.seconds for a, b in pairs]
    episodes = pairs[-1][1].episodes
    report = {
        "model": arguments.model or "pico, untrained, forced calls",
        "instant": [round(a.seconds, 2) for a, _ in pairs],
        "slow": [round(b.seconds, 2) for _, b in pairs],
        "of_which_waited": [round(b.waited, 2) for _, b in pairs],
        "ratios": [round(ratio, 3) for ratio in ratios],
        "median_ratio": round(statistics.median(ratios), 3),
        "ratio_of_fastest": round(
            min(b.seconds for _, b in pairs) / min(a.seconds for a, _ in pairs), 3
        ),
        "episodes": len(episodes),
        "with_calls": sum(bool(episode.calls) for episode in episodes),
        "calls": sum(len(results) for episode in episodes for results in episode.results),
        "turns": sum(len(episode.turns) for episode in episodes),
        "sampled_tokens": sum(len(turn.tokens) for episode in episodes for turn in episode.turns),
        "same_tokens": sum(
            x == y for x, y in zip(told(pairs[-1][0].episodes), told(episodes), strict=True)
        ),
    }
    print(json.dumps(report))
    sys.exit(int(report["median_ratio"] > arguments.limit))


if __name__ == "__main__":
    main()
