"""A world for tests of what replies are given: a task is to spell a word of four letters, and only
the whole word earns anything.

The alphabet has 16 ids: letters, an end mark, and one for each task. A random policy is right once
in a million times, so that nothing is learned without help; a toy policy learns a letter in a few
steps once the letters before it are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.one_token import OneToken, env_of, plan, toy
from toolhone.backends.base import Sample, Sampler
from toolhone.backends.toy import ToyTrainer
from toolhone.config.sections import Experiment
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.episode import Episode, EpisodeRules
from toolhone.episodes.policy import Prompt, Turn
from toolhone.errors import DialectError
from toolhone.rewards.reward_registry import RewardResult
from toolhone.runs.run import Run
from toolhone.schema import Expect, ExpectedCall, Message, Task, Tool, ToolCall
from toolhone.training.rollout import RLEnv

END, LENGTH = 15, 4
WORDS = {12: (0, 3, 1, 4), 13: (6, 9, 7, 10)}
SPELL = Tool("spell", "", {"type": "object"}, lambda **_: "ok")


def spelled(word: Sequence[int]) -> ToolCall:
    return ToolCall("spell", {"word": list(word)})


TASKS = [
    Task(
        f"t{kind}",
        (Message("user", str(kind)),),
        (SPELL,),
        Expect((ExpectedCall("spell", {"word": list(word)}),)),
    )
    for kind, word in WORDS.items()
]
CHAT = Task("chat", (Message("user", "14"),), (SPELL,), Expect(no_call=True))


class Spelling(OneToken):
    """A policy whose turns are letters and an end mark; a turn that ends is a call."""

    def __init__(self, sampler: Sampler, seed: int) -> None:
        super().__init__(sampler, seed)
        self.params = replace(self.params, max_tokens=LENGTH + 2, stop_ids=(END,))
        self.asked: list[tuple[int, tuple[int, ...]]] = []

    def open(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Prompt:
        return Prompt(tuple(messages), tuple(tools), (int(messages[0].content or 0),))

    def encode_reply(self, prompt: Prompt, message: Message) -> tuple[int, ...]:  # noqa: ARG002
        if not message.tool_calls or "word" not in message.tool_calls[0].arguments:
            raise DialectError("there is no word for it")
        return (*message.tool_calls[0].arguments["word"], END)

    def submit(self, key: int, prompt: Prompt) -> None:
        self._prompts[key] = prompt
        self.asked.append((key, (*prompt.tokens, *prompt.prefill)))
        self._stream.submit(key, (*prompt.tokens, *prompt.prefill), self.params)

    def poll(self) -> list[tuple[int, Turn]]:
        return [
            (key, _read(self._prompts.pop(key), *samples)) for key, samples in self._stream.poll()
        ]

    def close(self) -> None:
        self._stream.close()


def _read(prompt: Prompt, sample: Sample) -> Turn:
    said = [*prompt.prefill, *sample.tokens]
    calls = (spelled(said[:-1]),) if said[-1] == END else ()
    ids = sample.tokens, sample.logprobs, sample.stop_reason, prompt.tokens, prompt.prefill
    return Turn(Message("assistant", None, None, calls), str(said), ParseProblem.NONE, *ids)


def right(task: Task, episode: Episode) -> RewardResult:
    """1 for the whole word, spelled in one turn."""
    wanted = (*WORDS.get(int(task.messages[0].content or 0), ()), END)
    return RewardResult(float((*episode.turns[0].prefill, *episode.turns[0].tokens) == wanted), {})


def world(
    trainer: ToyTrainer, experiment: Experiment, tasks: Sequence[Task] = TASKS, **more: Any
) -> RLEnv:
    stage = env_of(trainer, experiment, **{"score": right, **more})
    policy: Callable[[Sampler, int], Any] = Spelling
    return replace(
        stage, tasks=tasks, policy=policy, rules=lambda _: EpisodeRules(first_call_only=True)
    )


def lesson(rl: dict[str, Any], **training: Any) -> Experiment:
    """A plan for this world."""
    numbers = {"method": "grpo", "batch_size": 2, "learning_rate": 0.2, **training}
    return plan({"group_size": 16, **rl}, **numbers)


def taught(
    method: Callable[..., Any],
    folder: Path,
    experiment: Experiment,
    trainer: ToyTrainer | None = None,
) -> tuple[ToyTrainer, Run]:
    """The trainer and the run of one training in this world."""
    trainer, run = trainer or toy(), Run.create(folder, experiment)
    method(trainer, world(trainer, experiment), run)
    return trainer, run
