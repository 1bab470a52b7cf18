"""A teacher that is here: another model with the same tokenizer, or the model at its start.

    teacher.logprobs([(task, replies)], temperature)   # of the student's tokens, as it reads them
    teacher.answers(tasks)                             # its own replies, kept in RUN/teacher

It reads the prompt that it is to pass on: all tools in full, and `training.distill.prompt`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from toolhone.backends.base import Sampler, Trainer
from toolhone.backends.open import open_sampler
from toolhone.config.sections import Experiment
from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.probe.certificate import Certificate, check_same
from toolhone.episodes.driver import run_episodes
from toolhone.episodes.episode import Episode, EpisodeRules, EpisodeStatus, messages_after
from toolhone.episodes.policy import TokenPolicy, Turn
from toolhone.errors import ModelError
from toolhone.models.resolve import adapter_of, find, resolve_model, trained_format
from toolhone.rows import Array, Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import Run
from toolhone.schema import Json, Message, Task
from toolhone.tokenizer import TextTokenizer
from toolhone.tools.registry import Registry
from toolhone.training.reference import open_reference
from toolhone.training.rollout import RLEnv, rows_of
from toolhone.training.teacher import RoundJournal

ENDED_WELL = (EpisodeStatus.ANSWERED, EpisodeStatus.CALLED)
"""Endings of episodes that are worth learning from."""


@dataclass(frozen=True)
class TurnIds:
    """One turn as it was read and as ids (`given`, then `tokens`), and the messages after it."""

    message: Message
    given: tuple[int, ...]
    tokens: tuple[int, ...]
    after: tuple[Message, ...] = ()

    def to_dict(self) -> dict[str, Json]:
        after = [message.to_dict() for message in self.after]
        ids = {"given": list(self.given), "tokens": list(self.tokens)}
        return {"message": self.message.to_dict(), **ids, "after": after}

    @staticmethod
    def from_dict(record: Mapping[str, Json]) -> TurnIds:
        after = tuple(Message.from_dict(one) for one in record["after"])
        message = Message.from_dict(record["message"])
        return TurnIds(message, tuple(record["given"]), tuple(record["tokens"]), after)


def replies_of(episode: Episode) -> list[TurnIds]:
    """The turns of an episode, and what each was answered with."""
    last = len(episode.turns) - 1
    return [
        TurnIds(
            turn.message,
            turn.prefill,
            tuple(turn.tokens),
            tuple(messages_after(turn, results)) if number < last else (),
        )
        for number, (turn, results) in enumerate(zip(episode.turns, episode.results, strict=True))
    ]


def rows_behind(policy: TokenPolicy, task: Task, replies: Sequence[TurnIds]) -> list[Row]:
    """The rows of the same replies, id for id, behind the prompts of another policy."""
    prompt, turns = policy.open(task.messages, task.tools), list[Turn]()
    for reply in replies:
        turn = Turn(reply.message, "", prompt=prompt.tokens, prefill=reply.given)
        zeros = [0.0] * len(reply.tokens)
        turns.append(replace(turn, tokens=list(reply.tokens), logprobs=zeros))
        if reply.after:
            prompt = policy.extend(prompt, turns[-1], reply.after)
    return rows_of(Episode(task.id, tuple(turns), (), EpisodeStatus.ANSWERED))


def open_teacher(
    plan: Experiment, trainer: Trainer, tokenizer: TextTokenizer, certificate: Certificate, run: Run
) -> Sampler:
    """The policy of `training.distill.teacher`, or that of the trainer at the start of the run.

    Raises `ModelError` for another tokenizer, `DialectError` for one that learned another format.
    """
    ref = plan.training.distill.teacher
    if ref is None:
        return open_reference(trainer, run)
    found, weights = find(ref, None)
    whole = weights is not None and (weights / "config.json").is_file()
    name, adapter = (str(weights), None) if whole else (resolve_model(found), weights)
    if TextTokenizer.load(name).identity() != tokenizer.identity():
        raise ModelError(
            f"training.distill.teacher: {ref} has another tokenizer than {plan.model.name} and "
            "cannot judge its tokens; use a model of the same family"
        )
    if (trained := trained_format(found, weights)) is not None:
        check_same(trained, certificate, ref)
    return open_sampler(name, plan.model, adapter or adapter_of(found), plan.seed)


@dataclass(frozen=True)
class LocalTeacher:
    """policy: the teacher, which samples as an evaluation does. prompt: what it alone reads."""

    policy: TokenPolicy
    registry: Registry
    rules: Callable[[Task], EpisodeRules]
    journal: RoundJournal
    prompt: str | None = None
    progress: Progress = field(default_factory=Progress)
    _known: dict[str, list[TurnIds]] = field(default_factory=dict)

    @staticmethod
    def of(policy: TokenPolicy, env: RLEnv, run: Run) -> LocalTeacher:
        """The teacher of a run; it reads all tools."""
        policy, journal = policy.showing(tuple), RoundJournal(run.folder / "teacher", 0)
        policy.max_context = policy.sampler.info.max_context
        prompt = run.experiment.training.distill.prompt
        return LocalTeacher(policy, env.registry, env.rules, journal, prompt, env.hooks.progress)

    def asked(self, task: Task) -> Task:
        """The task as the teacher reads it."""
        if self.prompt is None:
            return task
        first, rest = task.messages[0], task.messages[1:]
        if first.role == "system":
            text = f"{self.prompt}\n\n{first.content or ''}"
            return replace(task, messages=(replace(first, content=text), *rest))
        return replace(task, messages=(Message("system", self.prompt), *task.messages))

    def logprobs(
        self, pairs: Sequence[tuple[Task, Sequence[TurnIds]]], temperature: float
    ) -> list[Array | None]:
        """float32 [sampled tokens] for each: log q of the ids that the student sampled, in order.

        None where a row is longer than the teacher's context.
        """
        most = self.policy.max_context
        each = [rows_behind(self.policy, self.asked(task), replies) for task, replies in pairs]
        fits = [not most or all(len(row) <= most for row in rows) for rows in each]
        flat = [row for rows, ok in zip(each, fits, strict=True) for row in rows if ok]
        values = iter(self.policy.sampler.logprobs(flat, temperature) if flat else ())
        return [
            np.concatenate([next(values)[row.mask] for row in rows]) if ok else None
            for rows, ok in zip(each, fits, strict=True)
        ]

    def _play(self, tasks: Sequence[Task]) -> list[Episode]:
        asked, rules = [self.asked(task) for task in tasks], [self.rules(task) for task in tasks]
        with self.progress.inside("teacher's replies", len(tasks)):
            return run_episodes(
                self.policy, asked, self.registry, rules, lambda *_: self.progress.advance()
            )

    def answers(self, tasks: Sequence[Task]) -> dict[str, list[TurnIds]]:
        """The teacher's own replies to these tasks, without those that broke off or cannot be read.

        Each task is played once in a run; `RUN/teacher/round_0.jsonl` has what became of it.
        """
        if not self._known:
            for record in self.journal.read(0):
                self._known[record["id"]] = [TurnIds.from_dict(one) for one in record["replies"]]
        new = list({task.id: task for task in tasks if task.id not in self._known}.values())
        for task, episode in zip(new, self._play(new) if new else (), strict=True):
            readable = all(turn.problem is ParseProblem.NONE for turn in episode.turns)
            good = readable and episode.ending in ENDED_WELL
            self._known[task.id] = replies_of(episode) if good else []
            texts = [turn.text for turn in episode.turns]
            stored = [reply.to_dict() for reply in self._known[task.id]]
            self.journal.add(
                0, {"id": task.id, "ending": episode.ending, "texts": texts, "replies": stored}
            )
        return {task.id: self._known[task.id] for task in tasks if self._known[task.id]}
