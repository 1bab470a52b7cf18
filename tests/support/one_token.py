"""A world for tests of reinforcement learning in which every turn is one token, so that a toy
policy masters it in a second.

The alphabet has 16 ids. A task is one id; a turn of an id below 4 calls `look`, any other is an
answer. What earns 1: to look first, and then to answer with an even id (task 14) or an odd one
(task 15). A random policy earns about .09.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from toolhone.backends.base import Sampler, SamplingParams, StopReason, Trainer
from toolhone.backends.toy import ToyTrainer, open_toy
from toolhone.config.experiment import make_experiment
from toolhone.config.sections import Experiment
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.episode import Episode, EpisodeRules
from toolhone.episodes.policy import Prompt, Turn
from toolhone.rewards.reward_registry import RewardResult
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import Run
from toolhone.schema import Expect, Message, Task, Tool, ToolCall
from toolhone.tools.registry import Registry
from toolhone.training.loop import Hooks, Validation
from toolhone.training.rollout import RLEnv

VOCAB, LOOK, RESULT = 16, 4, 13
SEE = Tool("look", "", {"type": "object"}, lambda: "seen")
TASKS = [
    Task(f"t{kind}", (Message("user", name),), (SEE,), Expect(answer="x"))
    for name, kind in (("even", 14), ("odd", 15))
]


class OneToken:
    """A policy (`episodes.policy.Policy`) whose turns are single tokens."""

    def __init__(
        self, sampler: Sampler, seed: int, temperature: float = 1.0, rewrites: bool = False
    ) -> None:
        self.sampler, self.seed, self.rewrites = sampler, seed, rewrites
        self.params = SamplingParams(
            1, temperature, stop_ids=tuple(range(VOCAB)), seed=seed % 2**32
        )

    def open(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Prompt:
        return Prompt(
            tuple(messages), tuple(tools), (12, 14 if messages[0].content == "even" else 15)
        )

    def extend(self, prompt: Prompt, turn: Turn, results: Sequence[Message]) -> Prompt:
        before = prompt.tokens[1:] if self.rewrites else prompt.tokens
        return Prompt(
            (*prompt.messages, turn.message, *results),
            prompt.tools,
            (*before, *turn.tokens, RESULT),
        )

    def fits(self, prompt: Prompt) -> bool:  # noqa: ARG002
        return True

    def stream(self) -> OneToken:
        self._stream, self._prompts = self.sampler.stream(), dict[int, Prompt]()
        return self

    def submit(self, key: int, prompt: Prompt) -> None:
        self._prompts[key] = prompt
        self._stream.submit(key, prompt.tokens, self.params)

    def poll(self) -> list[tuple[int, Turn]]:
        return [
            (key, read(self._prompts.pop(key), *samples)) for key, samples in self._stream.poll()
        ]

    def close(self) -> None:
        self._stream.close()


class Breaking(OneToken):
    """A policy whose second prompt cannot be written, so that the program breaks off every episode
    that looks.
    """

    def extend(self, prompt: Prompt, turn: Turn, results: Sequence[Message]) -> Prompt:  # noqa: ARG002
        raise ValueError("the second prompt cannot be written")


class Noisy(OneToken):
    """A policy whose sampler gives log-probabilities with noise, as other batches give."""

    def poll(self) -> list[tuple[int, Turn]]:
        return [
            (key, replace(turn, logprobs=[turn.logprobs[0] + 0.1 * (key % 3)]))
            for key, turn in super().poll()
        ]


def read(prompt: Prompt, sample: Any) -> Turn:
    token = sample.tokens[0]
    message = Message("assistant", str(token), None, (ToolCall("look"),) if token < LOOK else ())
    return Turn(
        message,
        str(token),
        ParseProblem.NONE,
        sample.tokens,
        sample.logprobs,
        StopReason.STOP,
        prompt.tokens,
    )


def earned(task: Task, episode: Episode) -> RewardResult:
    """1 for looking once and then answering with the right parity."""
    said = [turn.tokens[0] for turn in episode.turns]
    right = len(said) == 2 and said[0] < LOOK <= said[1] and said[1] % 2 == int(task.id == "t15")
    return RewardResult(float(right), {"right": float(right)})


def plan(rl: dict[str, Any] | None = None, **training: Any) -> Experiment:
    numbers = {
        "steps": 10,
        "batch_size": 8,
        "learning_rate": 0.05,
        "log_every": 5,
        "validate_every": 0,
        "save_every": 0,
    }
    schedule = {"shape": "constant", "warmup_steps": 0}
    section = {
        "method": "ppo",
        "schedule": schedule,
        **numbers,
        **training,
        "rl": {"group_size": 4, **(rl or {})},
    }
    return make_experiment({"training": section}, "the test")


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def report(self, line: str) -> None:
        self.lines.append(line)


def env_of(
    trainer: Trainer,
    experiment: Experiment,
    score: Callable[[Task, Episode], RewardResult] = earned,
    rewrites: bool = False,
    at_save: Callable[[], None] = lambda: None,
) -> RLEnv:
    """The world as an RL environment; its reference is the policy now, where it is wanted."""
    rl = experiment.training.rl

    def save(folder: Path, optimizer: bool) -> None:
        trainer.save(folder, optimizer)
        at_save()

    def validate(_: Sampler) -> Validation:
        return {}, []

    return RLEnv(
        TASKS,
        Registry([SEE]),
        lambda sampler, seed: OneToken(sampler, seed, rl.temperature, rewrites),
        score,
        lambda _task: EpisodeRules(max_turns=2),
        trainer.snapshot() if rl.beta or rl.track_kl else None,
        lambda ids: " ".join(map(str, ids)),
        Hooks(validate, save, Lines()),
    )


def toy(seed: int = 1) -> ToyTrainer:
    return open_toy(VOCAB, seed=seed, buckets=256)


PROBES = [
    Row.of([12, task, a, 13, b], [False, False, True, False, True])
    for task in (14, 15)
    for a in range(4)
    for b in range(4, 16)
]


def weights(trainer: Trainer) -> np.ndarray:
    """What the policy says at all places of the world: equal bits where the weights are equal."""
    return np.concatenate(trainer.snapshot().logprobs(PROBES))


def timeless(run: Run) -> list[dict[str, Any]]:
    """The log of a run without what the clock wrote."""
    return [
        {
            key: value
            for key, value in line.items()
            if not key.startswith(("seconds", "tokens_per_second"))
        }
        for line in run.metrics()
    ]


def without_end(run: Run, *names: str) -> Run:
    """The run as it stood before its last checkpoints, those named."""
    for name in names:
        shutil.rmtree(run.folder / "checkpoints" / name)
    return Run.open(run.folder)


def first_token(_: Task, episode: Episode) -> RewardResult:
    """A reward in which nearly all episodes differ."""
    return RewardResult(float(episode.turns[0].tokens[0]), {})


def logged(run: Run, name: str) -> list[float]:
    return [line[name] for line in run.metrics() if line["kind"] == "train" and name in line]
