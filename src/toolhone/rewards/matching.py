"""Compare tool calls with an expectation: which calls are correct, which nearly, and why not.

    match = match_calls(reply.calls, task.expect, task.tools)
    match.exact, match.tool_score, match.argument_score, match.reasons

Expected and predicted calls of one name are paired so that as much as possible is correct. No tool
runs, and no model output raises. docs/metrics.md has the rules.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

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
_COMPOSITIONS = ("allOf", "anyOf", "oneOf")
_SCALE = 1_000_000
"""Argument shares are compared in millionths, as whole numbers."""

Comparators = Mapping[tuple[str, str], Comparator]
Gains = Sequence[Sequence[int]]
"""Gain of pairing row i with column j, shape [rows][columns]; not negative."""


@dataclass(frozen=True)
class CallPair:
    """An expected call and its predicted call, as indices; one is None for a missing or extra call.

    `right` of `counted` arguments are correct.
    """

    wanted: int | None
    got: int | None
    right: int = 0
    counted: int = 0

    @property
    def is_matched(self) -> bool:
        return self.wanted is not None and self.got is not None

    @property
    def share(self) -> float:
        """Share of correct arguments, in [0, 1]; 0 without a partner."""
        if not self.is_matched:
            return 0.0
        return self.right / self.counted if self.counted else 1.0


@dataclass(frozen=True)
class Match:
    """How calls compare with an expectation.

    With n the larger number of calls: tool_score = matched pairs / n, argument_score = sum of the
    pairs' shares / n. `exact` holds if and only if both are 1; `reasons` is then empty.
    """

    exact: bool
    tool_score: float
    argument_score: float
    pairs: tuple[CallPair, ...] = ()
    reasons: tuple[str, ...] = ()


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


COMPARATORS: Final[Comparators] = {
    ("calculator", "expression"): same_expression,
    ("python", "code"): same_code,
}


def judges_calls(expect: Expect) -> bool:
    """Whether the expectation covers calls; `match_calls` requires it."""
    return "calls" in expect.speaks_of


def match_calls(
    calls: Sequence[ToolCall],
    expect: Expect,
    tools: Sequence[Tool],
    comparators: Comparators = COMPARATORS,
) -> Match:
    """Compare calls with the best alternative of an expectation; `tools` supply types.

    The best is an exact one, else the one with the largest sum of both scores, else the first.
    """
    assert judges_calls(expect), "the expectation does not cover calls; check judges_calls first"
    matches = [_match(calls, choice, tools, comparators) for choice in expect.choices]
    return max(matches, key=lambda match: (match.exact, match.tool_score + match.argument_score))


def _match(
    calls: Sequence[ToolCall], expect: Expect, tools: Sequence[Tool], comparators: Comparators
) -> Match:
    wanted, strict = expect.wanted, expect.order == "strict"
    if not wanted or not calls:
        score = float(not calls and not wanted)
        missing = [CallPair(index, None) for index in range(len(wanted))]
        extra = [CallPair(None, index) for index in range(len(calls))]
        reasons = [f"no call, wanted {show_call(call)}" for call in wanted]
        reasons += [f"no call was wanted, got {show_call(call)}" for call in calls]
        return Match(score == 1.0, score, score, (*missing, *extra), _limit_reasons(reasons))
    matcher = _Matcher(tuple(calls), wanted, {tool.name: tool for tool in tools}, comparators)
    pairs = matcher.pair_calls(strict)
    size = max(len(wanted), len(calls))
    matched = [pair for pair in pairs if pair.is_matched]
    return Match(
        len(matched) == size and all(pair.right == pair.counted for pair in matched),
        len(matched) / size,
        sum(pair.share for pair in matched) / size,
        tuple(pairs),
        _limit_reasons(list(matcher.reasons(pairs, strict))),
    )


def _limit_reasons(reasons: Sequence[str]) -> tuple[str, ...]:
    more = len(reasons) - MAX_REASONS
    return (*reasons[:MAX_REASONS], f"and {more} more") if more > 0 else tuple(reasons)


class _Mismatch(NamedTuple):
    """A wrong argument. `MISSING` as `got`: left out; as `wanted`: not expected at all."""

    name: str
    got: Json
    wanted: Json
    problem: str = ""
    """What the schema forbids, for a call that may have any arguments."""


@dataclass(frozen=True)
class _Matcher:
    calls: tuple[ToolCall, ...]
    wanted: tuple[ExpectedCall, ...]
    tools: Mapping[str, Tool]
    comparators: Comparators

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
        return CallPair(i, j, counted - len(mismatches), counted)

    def _mismatches(self, call: ToolCall, wanted: ExpectedCall) -> list[_Mismatch]:
        if wanted.any_arguments:
            if (tool := self.tools.get(call.name)) is None:
                return []
            undeclared = _undeclared_names(tool.parameters, call.arguments)
            problems = [f"there is no argument {name}" for name in undeclared]
            problems = tool.problems(call.arguments) + problems
            return [_Mismatch("", MISSING, MISSING, problem) for problem in problems]
        mismatches = []
        for name, value in wanted.arguments.items():
            got = call.arguments.get(name, MISSING)
            if got is MISSING:
                right = name in wanted.optional or self._is_default(call.name, name, value)
            else:
                right = self._is_accepted(call.name, name, got, [value, *_accept(wanted, name)])
            if not right:
                mismatches.append(_Mismatch(name, got, value))
        for name, got in call.arguments.items():
            if name not in wanted.arguments and not (
                self._is_default(call.name, name, got)
                or self._is_accepted(call.name, name, got, _accept(wanted, name))
            ):
                mismatches.append(_Mismatch(name, got, MISSING))
        return mismatches

    def _is_accepted(self, tool: str, name: str, got: Json, values: Sequence[Json]) -> bool:
        compare = self.comparators.get((tool, name))
        shape = self._shape(tool).property(name)
        return any(
            compare(got, value) if compare else same_value(got, value, shape) for value in values
        )

    def _is_default(self, tool: str, name: str, value: Json) -> bool:
        default = self._shape(tool).property(name).default()
        return default is not MISSING and self._is_accepted(tool, name, value, [default])

    def _shape(self, tool: str) -> ValueShape:
        return ValueShape.of(self.tools[tool].parameters) if tool in self.tools else ANYTHING

    def reasons(self, pairs: Sequence[CallPair], strict: bool) -> Iterator[str]:
        """One sentence for each missing call, extra call and wrong argument."""
        for pair in pairs:
            if pair.wanted is not None and pair.got is not None:
                call = self.calls[pair.got]
                for name, got, value, problem in self._mismatches(call, self.wanted[pair.wanted]):
                    expected = "not wanted" if value is MISSING else f"wanted {show(value)}"
                    is_or_not = "is missing" if got is MISSING else f"is {show(got)}"
                    text = (
                        truncate(problem, _LONGEST_PROBLEM) or f"{name!r} {is_or_not}, {expected}"
                    )
                    yield f"{call.name}: {text}"
            elif pair.got is not None:
                yield f"not wanted: {show_call(self.calls[pair.got])}"
            elif pair.wanted is not None:
                place = " at its place" if strict else ""
                yield f"missing{place}: {show_call(self.wanted[pair.wanted])}"


def assign(gain: Gains) -> list[tuple[int, int]]:
    """Return the pairs (row, column) with the largest total gain, each row and column at most once.

    Of equal totals, the one that leaves out the last rows or columns is chosen.
    """
    table = np.asarray(gain, dtype=np.float64)
    if not table.size:
        return []
    rows, columns = table.shape
    place = np.arange(columns) if columns >= rows else np.arange(rows)[:, None]
    chosen = linear_sum_assignment(table * max(table.shape) ** 2 - place, maximize=True)
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
    parts, queue = list[Mapping[str, Json]](), [schema]
    while queue:  # the schema and those that it is composed of
        part = queue.pop(0)
        if isinstance(part, Mapping):
            parts.append(part)
            queue[:0] = [one for key in _COMPOSITIONS for one in part.get(key) or ()]
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


def _accept(wanted: ExpectedCall, name: str) -> list[Json]:
    values = wanted.accept.get(name, [])
    return list(values) if isinstance(values, list | tuple) else [values]


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
