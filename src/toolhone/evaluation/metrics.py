"""What is measured, precisely.

Each score is a number in [0, 1] for one task and one episode. A metric is the mean of a score over the tasks on which it is
measured, with the number of those tasks and a 95 % interval (`statistics`), in total and for each category; a metric that was
measured nowhere has the value null and `n` 0. "The calls" are all calls that the dialect's parser read, over all turns of the
episode.

* `valid_format`, on all tasks: 1 if every turn was read without a problem and every call names a tool on offer with arguments that
  obey its schema. Where calls are wanted, there must be one; where none is, no call at all is valid, and so is any well-formed one.
* `tool_accuracy`, on tasks that want calls: calls paired with a wanted call of the same name, divided by the larger of the two
  numbers of calls.
* `argument_accuracy`, on tasks that want calls: the share of right arguments of each pair, summed, divided by the larger of the two
  numbers of calls (`rewards.matching`).
* `exact_match`, on tasks that want calls or no call: 1 if the calls are exactly those wanted and every turn was read without a
  problem; where no call is wanted, the same as `no_call_accuracy`.
* `no_call_accuracy`, on tasks that want no call: 1 if the reply has no call, no broken attempt at one, is not blank and was not cut
  off. So a model that is broken, says nothing or never ends does not come out right.
* `execution_success`, on tasks that want calls of tools that all have an implementation: 1 if there was a call and every call ran
  without an error.
* `answer_quality`, on tasks with an expected answer that were played to their end with live tools (`can_run`): 1 if the final text
  carries the expected answer (`rewards.answers.carries`).

Three more rates keep apart what is often mixed up, on tasks that want calls or no call, where the raw text is known:

* `content_right`: 1 if a lenient reader (`lenient`), which tries every call syntax on the raw text, finds exactly the wanted calls;
  or, where none is wanted, finds none in a text that is not blank.
* `format_right`: 1 if the dialect's parser read every turn without a problem, and found a call where calls are wanted.
* `both_right`: 1 if both are.

Where a task has several right answers, an episode is judged by the one that it comes closest to (`rewards.choosing`); the three
metrics on tasks that want calls are measured where each of them wants calls, `no_call_accuracy` where each wants none. Calls that
may be any, or have any arguments, are right when they obey their schemas.

A truncated or failed episode is scored by what had been said. Scores of other names (metrics of the user's own, see `evaluate`) are
averaged in the same way. The definitions of other systems are kept apart in `familiar`, also where a name is the same.

This module scores and averages; it plays nothing and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from toolhone.dialects.base import ParseProblem
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.evaluation.lenient_reader import readings
from toolhone.evaluation.statistics import Score, interval
from toolhone.rewards.answers import carries_answer
from toolhone.rewards.episode_view import select_reference
from toolhone.rewards.matching import Match, judges_calls, match_calls, show, show_call
from toolhone.schema import Expect, Task, Tool, ToolCall
from toolhone.tools.result import ToolStatus, truncate

METRICS = (
    "valid_format",
    "tool_accuracy",
    "argument_accuracy",
    "exact_match",
    "no_call_accuracy",
    "execution_success",
    "answer_quality",
)
RATES = ("content_right", "format_right", "both_right")
FAMILIAR: Mapping[str, tuple[str, ...]] = {
    "json_answers": ("valid_json", "correct_format", "correct_tool"),
    "playground": ("tool_accuracy", "format_correctness", "execution_success", "response_quality"),
    "python_calls": ("exact", "function", "params", "overall"),
    "tool_call_tags": ("match",),
}
"""Metrics of other systems by their groups; `familiar` defines them."""
NO_CATEGORY = "uncategorised"


@dataclass(frozen=True)
class Circumstances:
    """What is known about how an episode came about.

    `runnable` names the tools that have an implementation. `live` says whether the task was played to its end, so that its final
    text means something. `raw_text` is False when only the calls are known.
    """

    seed: int = 0
    runnable: Collection[str] = ()
    live: bool = True
    raw_text: bool = True


@dataclass(frozen=True)
class JudgedEpisode:
    """One task with what was said to it.

    `scores` holds the scores that were measured, `familiar` those of `FAMILIAR` (as "group.name"); `reasons` say what was not
    right; `offered` names the tools on offer; `rewards` has the parts of the user's own rewards and their total, `reward`.
    """

    id: str
    category: str
    seed: int
    query: str
    text: str
    calls: tuple[ToolCall, ...]
    expected: Expect
    outcome: str
    scores: Mapping[str, float]
    reasons: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    familiar: Mapping[str, float] = field(default_factory=dict)
    rewards: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """All judged tasks, and what they come to."""

    samples: tuple[JudgedEpisode, ...]

    @cached_property
    def metrics(self) -> dict[str, Score]:
        return aggregate(self.samples)

    @cached_property
    def by_category(self) -> dict[str, dict[str, Score]]:
        names = dict.fromkeys(sample.category for sample in self.samples)
        return {
            name: aggregate([sample for sample in self.samples if sample.category == name])
            for name in sorted(names)
        }

    @cached_property
    def familiar(self) -> dict[str, dict[str, Score]]:
        """The metrics of other systems, by their groups."""
        return {
            group: {name: self._familiar(f"{group}.{name}") for name in names}
            for group, names in FAMILIAR.items()
        }

    @cached_property
    def rewards(self) -> dict[str, float]:
        """The mean of the total reward and of each part over the tasks that have it; empty where no reward was asked for."""
        names = dict.fromkeys(name for sample in self.samples for name in sample.rewards)
        paid = {
            name: [sample.rewards[name] for sample in self.samples if name in sample.rewards]
            for name in names
        }
        return {name: sum(values) / len(values) for name, values in paid.items()}

    def _familiar(self, name: str) -> Score:
        return interval(
            [sample.familiar[name] for sample in self.samples if name in sample.familiar]
        )

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """How many episodes ended in which way."""
        return dict(sorted(Counter(sample.outcome for sample in self.samples).items()))

    def to_dict(self) -> dict[str, object]:
        """`{"n", "metrics": {name: {"value", "low", "high", "n"}}, "by_category": {category: metrics}, "familiar", "outcomes"}`."""
        return {
            "n": len(self.samples),
            "metrics": _plain(self.metrics),
            "by_category": {
                category: _plain(metrics) for category, metrics in self.by_category.items()
            },
            "familiar": {group: _plain(metrics) for group, metrics in self.familiar.items()},
            "outcomes": self.outcomes,
            **({"rewards": self.rewards} if self.rewards else {}),
        }


def _plain(metrics: Mapping[str, Score]) -> dict[str, object]:
    return {name: score.to_dict() for name, score in metrics.items()}


def can_run(task: Task, runnable: Collection[str]) -> bool:
    """Whether a task can be played to its end: the tools of all calls that may be right (where none are named, all) can run."""
    choices = task.expect.choices
    if any(choice.calls is None for choice in choices):
        return all(tool.name in runnable for tool in task.tools)
    return all(call.name in runnable for choice in choices for call in choice.wanted)


def aggregate(samples: Sequence[JudgedEpisode]) -> dict[str, Score]:
    """Mean and interval of every score over the samples on which it was measured: `METRICS`, `RATES`, then any others by name."""
    others = sorted({name for sample in samples for name in sample.scores} - {*METRICS, *RATES})
    names = (*METRICS, *RATES, *others)
    return {
        name: interval([sample.scores[name] for sample in samples if name in sample.scores])
        for name in names
    }


def judge(task: Task, episode: Episode, known: Circumstances = Circumstances()) -> JudgedEpisode:
    """Score one episode of a task."""
    judging = _Judging(task, episode, known)
    query = next(
        (message.content for message in reversed(task.messages) if message.role == "user"), None
    )
    return JudgedEpisode(
        id=task.id,
        category=task.category or NO_CATEGORY,
        seed=known.seed,
        query=query or "",
        text="\n".join(turn.text for turn in episode.turns),
        calls=episode.calls,
        expected=task.expect,
        outcome=episode.ending.value,
        scores=judging.scores,
        reasons=tuple(judging.reasons()),
        offered=tuple(tool.name for tool in task.tools),
    )


@dataclass(frozen=True)
class _Judging:
    task: Task
    episode: Episode
    known: Circumstances
    tools: dict[str, Tool] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tools", {tool.name: tool for tool in self.task.tools})

    @cached_property
    def scores(self) -> dict[str, float]:
        expect, choices = self.expect, self.task.expect.choices
        form = (
            self._readable and not self.invalid and (bool(self.episode.calls) or not expect.wanted)
        )
        scores = {"valid_format": float(form)}
        if all(choice.wanted for choice in choices):
            scores |= {
                "tool_accuracy": self.match.tool_score,
                "argument_accuracy": self.match.argument_score,
            }
            if can_run(self.task, self.known.runnable):
                scores["execution_success"] = float(self._executed())
        if all(choice.no_call for choice in choices):
            scores["no_call_accuracy"] = float(self._exact)
        if judges_calls(expect):
            scores["exact_match"] = float(self._exact)
            scores |= self._rates() if self.known.raw_text else {}
        if expect.answer is not None and self.known.live:
            scores["answer_quality"] = float(
                carries_answer(self.episode.answer or "", expect.answer)
            )
        return scores

    @cached_property
    def expect(self) -> Expect:
        """The right answer that the episode is judged by."""
        return select_reference(self.task, self.episode).expect

    @cached_property
    def match(self) -> Match:
        return match_calls(self.episode.calls, self.expect, self.task.tools)

    @cached_property
    def _readable(self) -> bool:
        """Whether something was said, and all of it was read without a problem."""
        turns = self.episode.turns
        return bool(turns) and all(turn.problem is ParseProblem.NONE for turn in turns)

    @cached_property
    def _exact(self) -> bool:
        return self.match.exact and self._readable and not self._blank and not self._cut_off

    @property
    def _cut_off(self) -> bool:
        """Whether a reply without a call was cut off: nobody knows what it would have come to."""
        return self.expect.no_call and self.episode.ending is EpisodeStatus.TRUNCATED

    @property
    def _blank(self) -> bool:
        """Whether the reply says nothing at all (which is known only with the raw text)."""
        message = self.episode.turns[-1].message if self.episode.turns else None
        return self.known.raw_text and (
            message is None or not (message.tool_calls or (message.content or "").strip())
        )

    @cached_property
    def invalid(self) -> list[str]:
        """What is wrong with the calls, whatever was wanted: names that are not on offer, arguments that break the schema."""
        faults = []
        for call in self.episode.calls:
            if call.name not in self.tools:
                faults.append(f"{show(call.name)} is not a tool on offer")
            else:
                faults += [
                    f"{call.name}: {truncate(fault, 300)}"
                    for fault in self.tools[call.name].problems(call.arguments)
                ]
        return faults

    def _executed(self) -> bool:
        results = [result for turn in self.episode.results for result in turn]
        return (
            bool(results)
            and len(results) == len(self.episode.calls)
            and all(r.outcome is ToolStatus.OK for r in results)
        )

    def _rates(self) -> dict[str, float]:
        form = self._readable and (self.expect.no_call or bool(self.episode.calls))
        content = self._content_right()
        return {
            "content_right": float(content),
            "format_right": float(form),
            "both_right": float(content and form),
        }

    def _content_right(self) -> bool:
        found = readings([turn.text for turn in self.episode.turns], self.tools)
        return any(
            self._is_right(choice, [self.episode.calls, *found])
            for choice in self.task.expect.choices
        )

    def _is_right(self, choice: Expect, found: Sequence[Sequence[ToolCall]]) -> bool:
        """Whether one of several readings is this right answer; where no call is right, whether none of them has a call."""
        if choice.no_call:
            return (
                not self._blank
                and self.episode.ending is not EpisodeStatus.TRUNCATED
                and not any(found)
            )
        return any(match_calls(calls, choice, self.task.tools).exact for calls in found)

    def reasons(self) -> list[str]:
        """What was not right, in words: the form, the calls, their execution, the answer."""
        turns, expect = self.episode.turns, self.expect
        reasons = [
            f"a turn cannot be read: {turn.problem}"
            for turn in turns
            if turn.problem is not ParseProblem.NONE
        ]
        reasons += self.match.reasons if judges_calls(expect) else ()
        reasons += self.invalid
        ran = [
            pair
            for turn, given in zip(turns, self.episode.results)
            for pair in zip(turn.message.tool_calls, given)
        ]
        failed = [
            (call, result)
            for call, result in ran
            if call.name in self.known.runnable and result.outcome is not ToolStatus.OK
        ]
        reasons += [f"{show_call(call)} gave {result.outcome}" for call, result in failed]
        reasons += ["the reply is blank"] if self._blank and self._readable else []
        reasons += ["the reply was cut off"] if self._cut_off else []
        if self.scores.get("answer_quality") == 0.0:
            reasons.append(f"the final text does not carry {expect.answer!r}")
        return [*reasons, self.episode.reason] if self.episode.reason else reasons
