"""Calls against an expectation: which are right, which nearly, and why not.

    match = match_calls(reply.calls, task.expect, task.tools)
    match.exact, match.tool_score, match.argument_score, match.reasons

Wanted and given calls are paired so that as much as possible is right: in any order (an optimal assignment), or, where the
expectation says `strict`, without crossing. Only calls of the same name are paired. With `n` the larger of the two numbers of
calls:

    tool_score      = pairs / n
    argument_score  = sum over pairs of (right arguments / counted arguments) / n

so that a missing call and a superfluous one cost both. Counted are the wanted arguments and those given that nobody asked for; a
pair with nothing to count is wholly right. `exact` holds if and only if both scores are 1.

An argument is right when it means the same as the wanted value or as one of `accept` (`values` says when two values mean
the same; `COMPARATORS` has other rules for single parameters: an expression by its result, code by its syntax tree). One
that is left out is right when it is `optional` or the wanted value is the schema's default; one given without being asked for is
passed over when it is the schema's default or listed in `accept`. A wanted call that says `any_arguments` has nothing to compare:
there the arguments are right when they obey the schema and it declares them all, and else wholly wrong. Of any other call that is
not asked here: see `schema.Tool.problems`. Where `any_call` is right, one such call of any tool on offer is wanted.

Of several alternatives the one that fits best is taken: an exact one, or else the largest sum of both scores, the first of equals.
Nothing here raises on anything that a model wrote, and no tool is run.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from toolhone.rewards.assignment import Gains, assign, in_order
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
"""Shares of right arguments are compared in millionths, as whole numbers."""


@dataclass(frozen=True)
class CallPair:
    """A wanted call and the given call that stands for it, as indices; one is None for a missing or superfluous call."""

    wanted: int | None
    got: int | None
    right: int = 0
    counted: int = 0

    @property
    def share(self) -> float:
        """Share of right arguments, in [0, 1]; 0 without a partner."""
        if self.wanted is None or self.got is None:
            return 0.0
        return self.right / self.counted if self.counted else 1.0


@dataclass(frozen=True)
class Match:
    """How calls compare with an expectation. Both scores are in [0, 1]; `reasons` are short sentences, empty when exact."""

    exact: bool
    tool_score: float
    argument_score: float
    pairs: tuple[CallPair, ...] = ()
    reasons: tuple[str, ...] = ()


Comparators = Mapping[tuple[str, str], Comparator]
Choose = Callable[[Gains], list[tuple[int, int]]]


def same_expression(got: Json, wanted: Json) -> bool:
    """Whether two arithmetic expressions are the same text or have the same result. A number stands for itself."""
    if same_value(got, wanted):
        return True
    first, second = _result(got), _result(wanted)
    return first is not None and second is not None and same_number(first, second)


def _result(expression: Json) -> int | float | None:
    return _value_of(expression) if isinstance(expression, str) else number(expression)


@lru_cache(maxsize=8192)
def _value_of(expression: str) -> int | float | None:
    """Kept, since the episodes of a group say the same expressions again and again and each takes a trip to the sandbox."""
    try:
        return evaluate(expression)
    except ValueError:
        return None


COMPARATORS: Final[Comparators] = {
    ("calculator", "expression"): same_expression,
    ("python", "code"): same_code,
}


def judges_calls(expect: Expect) -> bool:
    """Whether the expectation says anything about calls (that is, `match_calls` may be asked)."""
    return "calls" in expect.speaks_of


def match_calls(
    calls: Sequence[ToolCall],
    expect: Expect,
    tools: Sequence[Tool],
    comparators: Comparators = COMPARATORS,
) -> Match:
    """Compare calls with what a task expects. `tools` supply the schemas (types and defaults); an unknown tool has none.

    The indices in `pairs` are those of the alternative that fits best.
    """
    assert judges_calls(expect), "the expectation says nothing about calls; ask judges_calls first"
    matches = [_match(calls, choice, tools, comparators) for choice in expect.choices]
    return max(matches, key=lambda match: (match.exact, match.tool_score + match.argument_score))


def _match(
    calls: Sequence[ToolCall], expect: Expect, tools: Sequence[Tool], comparators: Comparators
) -> Match:
    """Compare calls with one right answer."""
    wanted = expect.wanted
    if not wanted or not calls:
        return _one_sided(calls, wanted)
    strict = expect.order == "strict"
    judge = _Judge(tuple(calls), wanted, {tool.name: tool for tool in tools}, comparators)
    pairs = judge.pairs(strict)
    size = max(len(wanted), len(calls))
    named = [pair for pair in pairs if pair.wanted is not None and pair.got is not None]
    exact = len(named) == size and all(pair.right == pair.counted for pair in named)
    reasons = _shortened(list(judge.reasons(pairs, strict)))
    return Match(
        exact, len(named) / size, sum(pair.share for pair in named) / size, tuple(pairs), reasons
    )


def _one_sided(calls: Sequence[ToolCall], wanted: Sequence[ExpectedCall]) -> Match:
    """No call wanted, or none given."""
    right = not calls and not wanted
    pairs = [CallPair(index, None) for index in range(len(wanted))] + [
        CallPair(None, index) for index in range(len(calls))
    ]
    reasons = [f"no call, wanted {show_call(call)}" for call in wanted] + [
        f"no call was wanted, got {show_call(c)}" for c in calls
    ]
    return Match(right, float(right), float(right), tuple(pairs), _shortened(reasons))


def _shortened(reasons: Sequence[str]) -> tuple[str, ...]:
    more = len(reasons) - MAX_REASONS
    return (*reasons[:MAX_REASONS], f"and {more} more") if more > 0 else tuple(reasons)


class _Fault(NamedTuple):
    """An argument that is not right; `MISSING` stands for "left out" and for "not wanted". `problem`: what the schema says."""

    name: str
    got: Json
    wanted: Json
    problem: str = ""


@dataclass(frozen=True)
class _Judge:
    calls: tuple[ToolCall, ...]
    wanted: tuple[ExpectedCall, ...]
    tools: Mapping[str, Tool]
    comparators: Comparators

    def pairs(self, strict: bool) -> list[CallPair]:
        """All calls in pairs: those that stand for each other in the order of the wanted ones, then the missing, then the rest."""
        if strict:
            pairs = self._best(range(len(self.wanted)), range(len(self.calls)), in_order)
        else:
            pairs = []
            for name in dict.fromkeys(call.name for call in self.wanted):
                rows = [i for i, call in enumerate(self.wanted) if call.name == name]
                pairs += self._best(
                    rows,
                    [j for j, call in enumerate(self.calls) if self._is_of(call, name)],
                    assign,
                )
        wanted, got = {pair.wanted for pair in pairs}, {pair.got for pair in pairs}
        missing = [CallPair(i, None) for i in range(len(self.wanted)) if i not in wanted]
        return [
            *sorted(pairs, key=lambda p: p.wanted or 0),
            *missing,
            *(CallPair(None, j) for j in range(len(self.calls)) if j not in got),
        ]

    def _best(self, rows: Sequence[int], columns: Sequence[int], choose: Choose) -> list[CallPair]:
        """The best pairs among these wanted and given calls: first as many as possible, then as right as possible."""
        table = [[self._pair(i, j) for j in columns] for i in rows]
        gain = [
            [
                0 if pair is None else _SCALE * len(rows) + round(pair.share * _SCALE)
                for pair in line
            ]
            for line in table
        ]
        chosen = [table[row][column] for row, column in choose(gain)]
        return [pair for pair in chosen if pair is not None]

    def _is_of(self, call: ToolCall, name: str) -> bool:
        """Whether a call is of the tool of this name; that of `ANY_CALL` is the name of every tool on offer."""
        return call.name in self.tools if name == ANY_CALL.name else call.name == name

    def _pair(self, i: int, j: int) -> CallPair | None:
        """Wanted call i with given call j, or None where their names differ."""
        call, wanted = self.calls[j], self.wanted[i]
        if not self._is_of(call, wanted.name):
            return None
        faults = self._faults(call, wanted)
        counted = len(wanted.arguments) + sum(fault.wanted is MISSING for fault in faults)
        return CallPair(i, j, counted - len(faults), counted)

    def _faults(self, call: ToolCall, wanted: ExpectedCall) -> list[_Fault]:
        if wanted.any_arguments:
            return [_Fault("", MISSING, MISSING, problem) for problem in self._problems(call)]
        faults = []
        for name, value in wanted.arguments.items():
            got = call.arguments.get(name, MISSING)
            if got is MISSING:
                right = name in wanted.optional or self._is_default(call.name, name, value)
            else:
                right = self._accepted(call.name, name, got, [value, *_accept(wanted, name)])
            faults += [] if right else [_Fault(name, got, value)]
        for name, got in call.arguments.items():
            if name not in wanted.arguments and not self._is_default(call.name, name, got):
                right = self._accepted(call.name, name, got, _accept(wanted, name))
                faults += [] if right else [_Fault(name, got, MISSING)]
        return faults

    def _problems(self, call: ToolCall) -> list[str]:
        """What the schema of its tool has against a call; an unknown tool has none."""
        tool = self.tools.get(call.name)
        if tool is None:
            return []
        return [
            *tool.problems(call.arguments),
            *(
                f"there is no argument {name}"
                for name in _undeclared(tool.parameters, call.arguments)
            ),
        ]

    def _accepted(self, tool: str, name: str, got: Json, values: Sequence[Json]) -> bool:
        compare = self.comparators.get((tool, name))
        shape = self._shape(tool).property(name)
        return any(
            compare(got, value) if compare else same_value(got, value, shape) for value in values
        )

    def _is_default(self, tool: str, name: str, value: Json) -> bool:
        default = self._shape(tool).property(name).default()
        return default is not MISSING and self._accepted(tool, name, value, [default])

    def _shape(self, tool: str) -> ValueShape:
        return ValueShape.of(self.tools[tool].parameters) if tool in self.tools else ANYTHING

    def reasons(self, pairs: Sequence[CallPair], strict: bool) -> Iterator[str]:
        for pair in pairs:
            if pair.wanted is None and pair.got is not None:
                yield f"not wanted: {show_call(self.calls[pair.got])}"
            elif pair.got is None and pair.wanted is not None:
                yield f"missing{' at its place' if strict else ''}: {show_call(self.wanted[pair.wanted])}"
            elif pair.got is not None and pair.wanted is not None:
                yield from (
                    _sentence(pair, fault, self.calls)
                    for fault in self._faults(self.calls[pair.got], self.wanted[pair.wanted])
                )


def _undeclared(schema: Json, value: Json, within: str = "") -> Iterator[str]:
    """The names in an object that its schema does not declare, also in objects inside it that declare theirs."""
    parts = _parts(schema)
    if isinstance(value, list | tuple):
        for part in parts:
            for one in value:
                yield from _undeclared(part.get("items"), one, within)
    if not isinstance(value, Mapping) or not parts:
        return
    declared = {
        name: inner for part in parts for name, inner in (part.get("properties") or {}).items()
    }
    patterns = [pattern for part in parts for pattern in part.get("patternProperties") or ()]
    if any(part.get("additionalProperties") or "$ref" in part for part in parts) or (
        within and not declared and not patterns
    ):
        return
    for name, inner in value.items():
        if name in declared:
            yield from _undeclared(declared[name], inner, f"{within}{name}.")
        elif not any(re.search(pattern, str(name)) for pattern in patterns):
            yield show(f"{within}{name}")


def _parts(schema: Json) -> list[Mapping[str, Json]]:
    """A schema and those that it is put together from."""
    if not isinstance(schema, Mapping):
        return []
    return [
        schema,
        *(
            part
            for key in ("allOf", "anyOf", "oneOf")
            for inner in schema.get(key) or ()
            for part in _parts(inner)
        ),
    ]


def _sentence(pair: CallPair, fault: _Fault, calls: Sequence[ToolCall]) -> str:
    name = calls[pair.got or 0].name
    if fault.problem:
        return f"{name}: {truncate(fault.problem, _LONGEST_PROBLEM)}"
    if fault.got is MISSING:
        return f"{name}: {fault.name!r} is missing, wanted {show(fault.wanted)}"
    wanted = "not wanted" if fault.wanted is MISSING else f"wanted {show(fault.wanted)}"
    return f"{name}: {fault.name!r} is {show(fault.got)}, {wanted}"


def _accept(wanted: ExpectedCall, name: str) -> list[Json]:
    values = wanted.accept.get(name, [])
    return list(values) if isinstance(values, list | tuple) else [values]


def show_call(call: ToolCall | ExpectedCall) -> str:
    """A call on one line, long values shortened: `weather(city='Paris')`; `weather(...)` for any arguments."""
    if isinstance(call, ExpectedCall) and call.any_arguments:
        return f"{call.name[:80]}(...)" if call.name else "a call of any tool"
    return f"{call.name[:80]}({', '.join(f'{str(name)[:80]}={show(value)}' for name, value in call.arguments.items())})"


def show(value: Json) -> str:
    """A value on one line, shortened, whatever it is."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number with thousands of digits"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80
_SHORT.maxlevel = 4
