"""Score single episodes, and average the scores into metrics with intervals.

    sample = judge(task, episode)
    Evaluation((sample,)).metrics["exact_match"]      # Score(value, low, high, n)

docs/metrics.md defines every score. A truncated or failed episode is scored by what it contains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.evaluation.error_kinds import ErrorKind, error_kind, read_leniently
from toolhone.evaluation.statistics import Score, interval, pass_hat_k
from toolhone.rewards.matching import Match, judges_calls, match_calls, show, show_call
from toolhone.rewards.tool_use import select_reference
from toolhone.rewards.values import carries_answer, compare_states
from toolhone.schema import Expect, Json, Task, ToolCall
from toolhone.tools.failing_world import FailureKind
from toolhone.tools.result import ToolStatus, truncate

METRICS = (
    *("valid_format", "tool_accuracy", "argument_accuracy", "exact_match", "no_call_accuracy"),
    *("execution_success", "answer_quality"),
)
WORLD_SCORES = ("solved", "state_match", "recovered")
"""Scores of tasks in a world: the state and the answer are right; the state is; the share of failed
calls that were made again."""
SOLVING = frozenset(("exact_match", "answer_quality", "solved", "bfcl_accuracy"))
"""Scores that say whether a task is solved, for pass^k."""
RATES = ("content_right", "format_right", "both_right")
LEGACY_METRICS: Mapping[str, tuple[str, ...]] = {
    "json_answers": ("valid_json", "correct_format", "correct_tool"),
    "playground": ("tool_accuracy", "format_correctness", "execution_success", "response_quality"),
    "python_calls": ("exact", "function", "params", "overall"),
    "tool_call_tags": ("match",),
}
"""Metrics of earlier systems by group; `legacy_metrics` computes them."""
NO_CATEGORY = "uncategorised"
NO_MATCH = Match(False, 0.0, 0.0)


@dataclass(frozen=True)
class EpisodeContext:
    """How an episode came about.

    `runnable`: the tools with an implementation. `live`: the task was played to its end.
    `raw_text`: the model's text is known, not only its calls.
    """

    seed: int = 0
    runnable: Collection[str] = ()
    live: bool = True
    raw_text: bool = True


@dataclass(frozen=True)
class JudgedEpisode:
    """One task with its reply and its scores.

    `reasons`: what is not correct; `error`: its kind. `offered`: names of the tools on offer.
    `legacy_scores`: those of `LEGACY_METRICS`, as "group.name". `rewards`: the parts, and the total
    as `reward`. `cluster`: what the task shares with others, such as its conversation. `turns`: the
    text, calls and results of each turn; none for one turn of text. `prompt_tokens`: 0 if unknown.
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
    legacy_scores: Mapping[str, float] = field(default_factory=dict)
    rewards: Mapping[str, float] = field(default_factory=dict)
    error: str = ErrorKind.NONE
    cluster: str = ""
    turns: tuple[Mapping[str, Json], ...] = ()
    prompt_tokens: int = 0

    @property
    def all_scores(self) -> dict[str, float]:
        return {**self.legacy_scores, **self.scores}

    @property
    def group(self) -> str:
        """Samples of one group are no independent witnesses: of a cluster, or of one task."""
        return self.cluster or self.id

    def to_dict(self) -> dict[str, Json]:
        """A line of samples.jsonl."""
        record: dict[str, Json] = dict(vars(self))
        record["calls"] = [call.to_dict() for call in self.calls]
        record["expected"] = self.expected.to_dict()
        record["familiar"] = record.pop("legacy_scores")
        optional = {name: record.pop(name) for name in ("rewards", "turns", "prompt_tokens")}
        return record | {name: value for name, value in optional.items() if value}

    @staticmethod
    def from_dict(record: Mapping[str, Json]) -> JudgedEpisode:
        """Read a line of samples.jsonl; what is missing or wrong raises as Python does."""
        found = JudgedEpisode(
            **{name: str(record[name]) for name in ("id", "category", "text", "outcome")},
            seed=int(record["seed"]),
            query=str(record.get("query", "")),
            calls=tuple(ToolCall.from_dict(call) for call in record["calls"]),
            expected=Expect.from_dict(record["expected"]) if record["expected"] else Expect(),
            scores={str(name): float(value) for name, value in record["scores"].items()},
            reasons=tuple(map(str, record.get("reasons", ()))),
            offered=tuple(map(str, record.get("offered", ()))),
            legacy_scores={str(k): float(v) for k, v in record.get("familiar", {}).items()},
            rewards={str(name): float(value) for name, value in record.get("rewards", {}).items()},
            error=str(record.get("error", "")),
            cluster=str(record.get("cluster", "")),
            turns=tuple(map(dict, record.get("turns", ()))),
            prompt_tokens=int(record.get("prompt_tokens", 0)),
        )
        if not found.id or not found.category:
            raise ValueError("'id' and 'category' must not be empty")
        for scores in (found.scores, found.legacy_scores):
            if not all(0.0 <= value <= 1.0 for value in scores.values()):
                raise ValueError(f"scores must lie in [0, 1], got {scores}")
        return found


@dataclass(frozen=True)
class Evaluation:
    """All judged tasks, and their averages."""

    samples: tuple[JudgedEpisode, ...]

    @cached_property
    def metrics(self) -> dict[str, Score]:
        """Mean and interval of every score over the samples that have it: ours, then by name."""
        return _aggregate([(sample.group, sample.scores) for sample in self.samples])

    @cached_property
    def by_category(self) -> dict[str, dict[str, Score]]:
        groups: dict[str, list[tuple[str, Mapping[str, float]]]] = {}
        for sample in sorted(self.samples, key=lambda sample: sample.category):
            groups.setdefault(sample.category, []).append((sample.group, sample.scores))
        return {name: _aggregate(scores) for name, scores in groups.items()}

    @cached_property
    def legacy(self) -> dict[str, dict[str, Score]]:
        """The metrics of earlier systems, by group."""
        scores = [(sample.group, sample.legacy_scores) for sample in self.samples]
        return {
            group: {name: _average(scores, f"{group}.{name}") for name in names}
            for group, names in LEGACY_METRICS.items()
        }

    @cached_property
    def pass_hat(self) -> dict[str, dict[int, float]]:
        """By metric and k, the chance that k tries of a task all succeed; nothing where each task
        was tried once."""
        tries: dict[tuple[str, str], list[float]] = {}
        for sample in self.samples:
            for name in SOLVING & sample.scores.keys():
                tries.setdefault((name, sample.id), []).append(sample.scores[name])
        most = max(map(len, tries.values()), default=1)
        found: dict[str, dict[int, float]] = {}
        for metric in sorted({name for name, _ in tries} if most > 1 else ()):
            counts = [(v.count(1.0), len(v)) for (name, _), v in tries.items() if name == metric]
            values = {k: pass_hat_k(counts, k) for k in range(1, most + 1)}
            found[metric] = {k: value for k, value in values.items() if value is not None}
        return found

    @cached_property
    def rewards(self) -> dict[str, float]:
        """The mean of the total reward and of each part over the tasks that have it."""
        values: dict[str, list[float]] = {}
        for sample in self.samples:
            for name, value in sample.rewards.items():
                values.setdefault(name, []).append(value)
        return {name: sum(found) / len(found) for name, found in values.items()}

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """Number of episodes by how they ended."""
        return dict(sorted(Counter(sample.outcome for sample in self.samples).items()))

    def to_dict(self) -> dict[str, object]:
        """The content of metrics.json."""

        def plain(metrics: Mapping[str, Score]) -> dict[str, object]:
            return {name: score.to_dict() for name, score in metrics.items()}

        return {
            "n": len(self.samples),
            "metrics": plain(self.metrics),
            "by_category": {name: plain(found) for name, found in self.by_category.items()},
            "familiar": {group: plain(found) for group, found in self.legacy.items()},
            "outcomes": self.outcomes,
            **({"rewards": self.rewards} if self.rewards else {}),
            **({"pass_hat_k": self.pass_hat} if self.pass_hat else {}),
        }


Grouped = Sequence[tuple[str, Mapping[str, float]]]
"""Scores of samples, each with its `group`."""


def _aggregate(scores: Grouped) -> dict[str, Score]:
    others = sorted({name for _, found in scores for name in found} - {*METRICS, *RATES})
    return {name: _average(scores, name) for name in (*METRICS, *RATES, *others)}


def _average(scores: Grouped, name: str) -> Score:
    measured = [(group, found[name]) for group, found in scores if name in found]
    groups = [group for group, _ in measured]
    shared = len({*groups}) < len(groups)
    return interval([score for _, score in measured], groups if shared else None)


def plays_to_the_end(task: Task, runnable: Collection[str]) -> bool:
    """Whether an evaluation plays a task until an answer: in a world, or if one is expected."""
    return task.world is not None or (task.expect.answer is not None and can_run(task, runnable))


def retries(episode: Episode) -> tuple[int, int]:
    """How many calls met an injected failure, and how many of them a later turn made again."""
    turns = [turn.message.tool_calls for turn in episode.turns]
    failed = [
        (index, call)
        for index, (calls, results) in enumerate(zip(turns, episode.results, strict=True))
        for call, result in zip(calls, results, strict=False)
        if result.injected not in ("", FailureKind.SLOW)
    ]
    again = sum(any(call in calls for calls in turns[index + 1 :]) for index, call in failed)
    return len(failed), again


def can_run(task: Task, runnable: Collection[str]) -> bool:
    """Whether all calls that may be correct can run; where none are named, all tools on offer."""
    if task.world is not None and task.world.get("name") != "live":
        return True
    choices = task.expect.choices
    if any(choice.calls is None for choice in choices):
        return all(tool.name in runnable for tool in task.tools)
    return all(call.name in runnable for choice in choices for call in choice.wanted)


def judge(
    task: Task, episode: Episode, context: EpisodeContext = EpisodeContext()
) -> JudgedEpisode:
    """Score one episode of a task."""
    judging = _Judging(task, episode, context)
    queries = (message.content for message in reversed(task.messages) if message.role == "user")
    turns: list[Mapping[str, Json]] = []  # of a single turn without results, `text` says all
    if len(episode.turns) > 1 or any(episode.results):
        for turn, results in zip(episode.turns, episode.results, strict=True):
            kept = [{"outcome": one.outcome.value, "content": one.content} for one in results]
            count = len(turn.message.tool_calls)
            turns.append({"text": turn.text, "calls": count, "results": kept})
    return JudgedEpisode(
        id=task.id,
        category=task.category or NO_CATEGORY,
        seed=context.seed,
        query=next(queries, None) or "",
        text="\n".join(turn.text for turn in episode.turns),
        calls=episode.calls,
        expected=task.expect,
        outcome=episode.ending.value,
        scores=judging.scores,
        reasons=tuple(judging.reasons()),
        offered=tuple(tool.name for tool in task.tools),
        error=judging.error,
        cluster=task.cluster,
        prompt_tokens=sum(len(turn.prompt) for turn in episode.turns),
        turns=tuple(turns),
    )


class _Judging:
    """An episode beside the correct answer that it comes closest to."""

    def __init__(self, task: Task, episode: Episode, context: EpisodeContext) -> None:
        self.task, self.episode, self.context = task, episode, context
        self.expect = expect = select_reference(task, episode).expect
        judged = judges_calls(expect)
        self.match = match_calls(episode.calls, expect, task.tools) if judged else NO_MATCH
        turns = episode.turns
        self.is_readable = bool(turns) and all(turn.problem is ParseProblem.NONE for turn in turns)
        self.is_truncated = episode.ending is EpisodeStatus.TRUNCATED
        # A reply that should have no call was truncated before a call could follow.
        self.is_cut_off = expect.no_call and self.is_truncated
        last = turns[-1].message if turns else None
        holds = last is not None and bool(last.tool_calls or (last.content or "").strip())
        self.is_blank = context.raw_text and not holds
        whole = self.is_readable and not self.is_blank and not self.is_cut_off
        self.is_exact = self.match.exact and whole
        self.invalid_calls = list(self._invalid_calls())
        self.scores = self._scores()

    def _scores(self) -> dict[str, float]:
        expect, choices, has_calls = self.expect, self.task.expect.choices, bool(self.episode.calls)
        valid = self.is_readable and not self.invalid_calls and (has_calls or not expect.wanted)
        scores = {"valid_format": float(valid)}
        if all(choice.wanted for choice in choices):
            scores["tool_accuracy"] = self.match.tool_score
            scores["argument_accuracy"] = self.match.argument_score
            if can_run(self.task, self.context.runnable):
                results = [result for turn in self.episode.results for result in turn]
                ran = bool(results) and len(results) == len(self.episode.calls)
                fine = all(one.outcome is ToolStatus.OK for one in results)
                scores["execution_success"] = float(ran and fine)
        if all(choice.no_call for choice in choices):
            scores["no_call_accuracy"] = float(self.is_exact)
        if judges_calls(expect):
            scores["exact_match"] = float(self.is_exact)
            if self.context.raw_text:
                formed = self.is_readable and (expect.no_call or has_calls)
                content = self._has_right_content()
                rates = (float(content), float(formed), float(content and formed))
                scores |= dict(zip(RATES, rates, strict=True))
        if expect.answer is not None and self.context.live:
            answer = self.episode.answer or ""
            scores["answer_quality"] = float(carries_answer(answer, expect.answer))
        if expect.state is not None:
            scores["state_match"] = float(compare_states(self.task, self.episode).exact)
            scores["solved"] = min(scores["state_match"], scores.get("answer_quality", 1.0))
        failed, again = retries(self.episode)
        return {**scores, "recovered": again / failed} if failed else scores

    @property
    def error(self) -> ErrorKind:
        kind = error_kind(self.match, self.expect, self.episode.calls, self.scores)
        if kind is not ErrorKind.NONE and self.is_truncated:
            return ErrorKind.TRUNCATED
        unread = not self.is_readable or self.is_blank
        return ErrorKind.MALFORMED if kind is not ErrorKind.NONE and unread else kind

    def _invalid_calls(self) -> Iterator[str]:
        """Names that are not on offer and arguments that break the schema."""
        tools = {tool.name: tool for tool in self.task.tools}
        for call in self.episode.calls:
            if call.name not in tools:
                yield f"{show(call.name)} is not a tool on offer"
                continue
            for problem in tools[call.name].problems(call.arguments):
                yield f"{call.name}: {truncate(problem, 300)}"

    def _has_right_content(self) -> bool:
        """Whether any reading of the raw text is a correct answer; for no call, whether all are."""
        texts, offered = [turn.text for turn in self.episode.turns], self.task.tools
        found = read_leniently(texts, [tool.name for tool in offered])
        found.append(list(self.episode.calls))
        no_call = not self.is_blank and not self.is_truncated and not any(found)
        return any(
            no_call
            if choice.no_call
            else any(match_calls(one, choice, offered).exact for one in found)
            for choice in self.task.expect.choices
        )

    def reasons(self) -> Iterator[str]:
        """What is not correct: the format, the calls, their execution, the answer."""
        for turn in self.episode.turns:
            if turn.problem is not ParseProblem.NONE:
                yield f"a turn cannot be read: {turn.problem}"
        yield from self.match.reasons
        yield from self.invalid_calls
        for turn, results in zip(self.episode.turns, self.episode.results):
            for call, result in zip(turn.message.tool_calls, results):
                if call.name in self.context.runnable and result.outcome is not ToolStatus.OK:
                    yield f"{show_call(call)} gave {result.outcome}"
        if self.is_blank and self.is_readable:
            yield "the reply is blank"
        if self.is_cut_off:
            yield "the reply was cut off"
        if self.scores.get("state_match") == 0.0:
            yield "the final state is not the expected one"
        if self.scores.get("answer_quality") == 0.0:
            yield f"the final text does not carry {self.expect.answer!r}"
        if self.episode.reason:
            yield self.episode.reason
