"""Compare tool calls with an expectation: which calls are correct, which nearly, and why not.

    match = match_calls(reply.calls, task.expect, task.tools)
    match.exact, match.tool_score, match.argument_score, match.reasons

Calls of one name are paired for the best score; no model output raises. Rules: docs/metrics.md.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
import scipy  # its parts are loaded when they are used

from toolhone.rewards.values import (
    ANYTHING,
    MISSING,
    Comparator,
    ValueShape,
    number,
    same_code,
    same_number,
    same_value,
)
from toolhone.schema import ANY_CALL, Expect, ExpectedCall, Json, Tool, ToolCall
from toolhone.tools.builtin import evaluate
from toolhone.tools.result import truncate

MAX_REASONS = 20
_LONGEST_PROBLEM = 300
_SCALE = 1_000_000
"""Argument shares are compared in millionths, as whole numbers."""

Gains = Sequence[Sequence[int]]
"""Gain of pairing row i with column j, shape [rows][columns]; not negative."""


@dataclass(frozen=True)
class CallPair:
    """An expected call and its predicted call, as indices; one is None for a missing or extra call.

    `right` of `counted` arguments are correct; `wrong` names the others.
    """

    wanted: int | None
    got: int | None
    right: int = 0
    counted: int = 0
    wrong: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Share of correct arguments, in [0, 1]; 0 without a partner."""
        if self.wanted is None or self.got is None:
            return 0.0
        return self.right / self.counted if self.counted else 1.0


class Mismatch(NamedTuple):
    """A wrong argument. `MISSING` as `got`: left out; as `wanted`: not expected at all."""

    name: str
    got: Json
    wanted: Json
    problem: str = ""
    """What the schema forbids, for a call that may have any arguments."""


@dataclass(frozen=True)
class Match:
    """How calls compare with an expectation.

    With n the larger number of calls: tool_score = matched pairs / n, argument_score = sum of the
    pairs' shares / n. `exact` holds if and only if both are 1; `reasons` and the wrong arguments,
    `mismatches`, are then empty.
    """

    exact: bool
    tool_score: float
    argument_score: float
    pairs: tuple[CallPair, ...] = ()
    reasons: tuple[str, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()


def same_expression(got: Json, wanted: Json) -> bool:
    """Whether two arithmetic expressions are the same text or have the same result."""
    if same_value(got, wanted):
        return True
    first, second = (
        _result(value) if isinstance(value, str) else number(value) for value in (got, wanted)
    )
    return first is not None and second is not None and same_number(first, second)


@lru_cache(maxsize=8192)  # the episodes of a group repeat expressions; each costs a sandbox call
def _result(expression: str) -> int | float | None:
    try:
        return evaluate(expression)
    except ValueError:
        return None


COMPARATORS: Final[Mapping[tuple[str, str], Comparator]] = {
    ("calculator", "expression"): same_expression,
    ("python", "code"): same_code,
}


def judges_calls(expect: Expect) -> bool:
    """Whether the expectation covers calls; `match_calls` requires it."""
    return "calls" in expect.speaks_of


def match_calls(calls: Sequence[ToolCall], expect: Expect, tools: Sequence[Tool]) -> Match:
    """Compare calls with the best alternative of an expectation; `tools` supply types.

    The best is an exact one, else the one with the largest sum of both scores, else the first.
    """
    assert judges_calls(expect), "the expectation does not cover calls; check judges_calls first"
    matches = [_match(calls, choice, tools) for choice in expect.choices]
    return max(matches, key=lambda match: (match.exact, match.tool_score + match.argument_score))


def _match(calls: Sequence[ToolCall], expect: Expect, tools: Sequence[Tool]) -> Match:
    wanted, strict = expect.wanted, expect.order == "strict"
    if not wanted and not calls:
        return Match(True, 1.0, 1.0)
    matcher = _Matcher(calls, wanted, {tool.name: tool for tool in tools})
    pairs = matcher.pair_calls(strict)
    size = max(len(wanted), len(calls))
    matched = [pair for pair in pairs if None not in (pair.wanted, pair.got)]
    wrong = {pair: matcher.mismatches_of(pair) if pair.wrong else [] for pair in matched}
    reasons = list(matcher.reasons(pairs, wrong, strict))
    if len(reasons) > MAX_REASONS:
        reasons[MAX_REASONS:] = [f"and {len(reasons) - MAX_REASONS} more"]
    return Match(
        len(matched) == size and all(pair.right == pair.counted for pair in matched),
        len(matched) / size,
        sum(pair.share for pair in matched) / size,
        tuple(pairs),
        tuple(reasons),
        tuple(chain.from_iterable(wrong.values())),
    )


@dataclass(frozen=True)
class _Matcher:
    calls: Sequence[ToolCall]
    wanted: Sequence[ExpectedCall]
    tools: Mapping[str, Tool]

    def pair_calls(self, strict: bool) -> list[CallPair]:
        """Pair the calls: matched pairs in the order expected, then missing, then extra calls."""
        if strict:
            everything = range(len(self.wanted)), range(len(self.calls))
            pairs = self._best_pairs(*everything, assign_in_order)
        else:
            pairs = []
            for name in dict.fromkeys(call.name for call in self.wanted):
                rows = [i for i, call in enumerate(self.wanted) if call.name == name]
                columns = [j for j, call in enumerate(self.calls) if self._has_name(call, name)]
                pairs += self._best_pairs(rows, columns, assign)
        wanted, got = {pair.wanted for pair in pairs}, {pair.got for pair in pairs}
        return [
            *sorted(pairs, key=lambda pair: pair.wanted or 0),
            *(CallPair(i, None) for i in range(len(self.wanted)) if i not in wanted),
            *(CallPair(None, j) for j in range(len(self.calls)) if j not in got),
        ]

    def _best_pairs(
        self,
        rows: Sequence[int],
        columns: Sequence[int],
        choose: Callable[[Gains], list[tuple[int, int]]],
    ) -> list[CallPair]:
        """The best pairs: as many as possible, then as correct as possible."""
        table = [[self._pair(i, j) for j in columns] for i in rows]
        gain = [
            [_SCALE * len(rows) + round(pair.share * _SCALE) if pair else 0 for pair in line]
            for line in table
        ]
        chosen = [table[row][column] for row, column in choose(gain)]
        return [pair for pair in chosen if pair is not None]

    def _has_name(self, call: ToolCall, name: str) -> bool:
        """Whether a call has this tool name; `ANY_CALL` is the name of every tool on offer."""
        return call.name in self.tools if name == ANY_CALL.name else call.name == name

    def _pair(self, i: int, j: int) -> CallPair | None:
        """Expected call i with predicted call j, or None where their names differ."""
        call, wanted = self.calls[j], self.wanted[i]
        if not self._has_name(call, wanted.name):
            return None
        mismatches = self._mismatches(call, wanted)
        counted = len(wanted.arguments) + sum(wrong.wanted is MISSING for wrong in mismatches)
        wrong = tuple(one.name for one in mismatches)
        return CallPair(i, j, counted - len(wrong), counted, wrong)

    def _mismatches(self, call: ToolCall, wanted: ExpectedCall) -> list[Mismatch]:
        if wanted.any_arguments:
            if (tool := self.tools.get(call.name)) is None:
                return []
            undeclared = _undeclared_names(tool.parameters, call.arguments)
            problems = [f"there is no argument {name}" for name in undeclared]
            problems = tool.problems(call.arguments) + problems
            return [Mismatch("", MISSING, MISSING, problem) for problem in problems]
        shape, mismatches = ANYTHING, []
        if call.name in self.tools:
            shape = ValueShape.of(self.tools[call.name].parameters)
        for name in {**wanted.arguments, **call.arguments}:
            got, value = (side.get(name, MISSING) for side in (call.arguments, wanted.arguments))
            if type(got) is type(value) in (str, int) and got == value:
                continue
            compare = COMPARATORS.get((call.name, name))
            inner = shape.property(name)
            given, accepted = value, [inner.default]  # where the call leaves the argument out
            if got is not MISSING:
                given = got
                accepted = [inner.default if value is MISSING else value]
                accepted += wanted.accept.get(name, ())
            may_be_absent = got is MISSING and name in wanted.optional
            if not may_be_absent and not any(
                compare(given, one) if compare else same_value(given, one, inner)
                for one in accepted
                if one is not MISSING
            ):
                mismatches.append(Mismatch(name, got, value))
        return mismatches

    def mismatches_of(self, pair: CallPair) -> list[Mismatch]:
        assert pair.wanted is not None
        assert pair.got is not None
        return self._mismatches(self.calls[pair.got], self.wanted[pair.wanted])

    def reasons(
        self, pairs: Sequence[CallPair], wrong: Mapping[CallPair, list[Mismatch]], strict: bool
    ) -> Iterator[str]:
        """One sentence for each missing call, extra call and wrong argument."""
        for pair in pairs:
            if pair.wanted is not None and pair.got is not None:
                call = self.calls[pair.got]
                for name, got, value, problem in wrong[pair]:
                    expected = "not wanted" if value is MISSING else f"wanted {show(value)}"
                    is_or_not = "is missing" if got is MISSING else f"is {show(got)}"
                    short = truncate(problem, _LONGEST_PROBLEM)
                    yield f"{call.name}: {short or f'{name!r} {is_or_not}, {expected}'}"
            elif pair.got is not None:
                what = "not wanted:" if self.wanted else "no call was wanted, got"
                yield f"{what} {show_call(self.calls[pair.got])}"
            elif pair.wanted is not None:
                what = "missing at its place:" if strict else "missing:"
                what = what if self.calls else "no call, wanted"
                yield f"{what} {show_call(self.wanted[pair.wanted])}"


def assign(gain: Gains) -> list[tuple[int, int]]:
    """Return the pairs (row, column) with the largest total gain, each row and column at most once.

    Of equal totals, the one that leaves out the last rows or columns is chosen.
    """
    table = np.asarray(gain, dtype=np.float64)
    if table.size <= 1:
        return [(0, 0)][: table.size]
    rows, columns = table.shape
    place = np.arange(columns) if columns >= rows else np.arange(rows)[:, None]
    chosen = scipy.optimize.linear_sum_assignment(
        table * max(table.shape) ** 2 - place, maximize=True
    )
    return [(int(row), int(column)) for row, column in zip(*chosen, strict=True)]


def assign_in_order(gain: Gains) -> list[tuple[int, int]]:
    """Return the pairs that do not cross with the largest gain (a longest common sequence)."""
    rows, columns = len(gain), len(gain[0]) if gain else 0
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            best[i][j] = max(best[i + 1][j], best[i][j + 1], best[i + 1][j + 1] + gain[i][j])
    pairs, i, j = [], 0, 0
    while i < rows and j < columns:
        if gain[i][j] and best[i][j] == best[i + 1][j + 1] + gain[i][j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _undeclared_names(schema: Json, value: Json, path: str = "") -> Iterator[str]:
    """Yield names in an object that its schema does not declare, nested objects included."""
    parts = ValueShape.of(schema, {}).branches  # references are not followed
    if isinstance(value, list | tuple):
        for part in parts:
            for inner in value:
                yield from _undeclared_names(part.get("items"), inner, path)
    if not isinstance(value, Mapping) or not parts:
        return
    declared = {
        name: inner for part in parts for name, inner in (part.get("properties") or {}).items()
    }
    patterns = [pattern for part in parts for pattern in part.get("patternProperties") or ()]
    is_open = any(part.get("additionalProperties") or "$ref" in part for part in parts)
    if is_open or (path and not declared and not patterns):
        return
    for name, inner in value.items():
        if name in declared:
            yield from _undeclared_names(declared[name], inner, f"{path}{name}.")
        elif not any(re.search(pattern, str(name)) for pattern in patterns):
            yield show(f"{path}{name}")


def show_call(call: ToolCall | ExpectedCall) -> str:
    """A call on one line, long values shortened: `weather(city='Paris')`."""
    if isinstance(call, ExpectedCall) and call.any_arguments:
        return f"{call.name[:80]}(...)" if call.name else "a call of any tool"
    arguments = (f"{str(name)[:80]}={show(value)}" for name, value in call.arguments.items())
    return f"{call.name[:80]}({', '.join(arguments)})"


def show(value: Json) -> str:
    """Any value on one line, shortened."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number with thousands of digits"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80
_SHORT.maxlevel = 4
