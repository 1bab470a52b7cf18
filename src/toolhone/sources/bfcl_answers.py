"""What BFCL counts as right for one call, as an `ExpectedCall`.

    expected_call({"area": {"radius": [5, 5.0], "unit": ["", "m"]}}, tools)
    # ExpectedCall("area", {"radius": 5, "unit": "m"}, accept={"radius": [5.0]}, optional=("unit",))

Each parameter has a list of accepted values, and `""` in it says that the parameter may be left out (not so where its tool
requires it); a text may then be empty, too. Inside an accepted object, and inside the objects of an accepted list, every key has
such a list again: these are multiplied out. The first value that the schema allows stands for all (null never does), the others
go into `accept`. A parameter that may be left out and has no value that the schema allows stands in `accept` alone; one that the
tool does not declare at all is left out for good.

BFCL's checker passes over more than ours (`rewards.matching`): spaces and `, . / - _ * ^` in any text. It also wants numbers in
lists to have the very type of the key. What it calls right and what counts here is the same but for that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from toolhone.schema import ExpectedCall, Json, Tool
from toolhone.sources.base import Skip

MAX_VARIANTS = 1000
"""Values that one parameter may be multiplied out to."""
MAY_BE_LEFT_OUT: Final = ""
_LEAVE_OUT: Final = object()


class Reason(StrEnum):
    """Why a row is skipped."""

    BAD_QUESTION = "a question that is no list of messages"
    BAD_ANSWER = "an accepted answer that cannot be read"
    NOTHING_RIGHT = "a parameter for which no value is accepted"


@dataclass(frozen=True)
class Choices:
    """The accepted values of one parameter; `free`: it may be left out."""

    values: Sequence[Json]
    free: bool


def expected_call(answer: Json, tools: Sequence[Tool]) -> ExpectedCall:
    """The one call that `answer` describes, `{name: {parameter: [values]}}`."""
    if (
        not isinstance(answer, dict)
        or len(answer) != 1
        or not all(isinstance(inner, dict) for inner in answer.values())
    ):
        raise Skip(Reason.BAD_ANSWER, f"wanted one call with its parameters, got {answer!r:.80}")
    ((name, parameters),) = answer.items()
    schema = next((tool.parameters for tool in tools if tool.name == name), {})
    properties, required = schema.get("properties") or {}, schema.get("required") or ()
    arguments: dict[str, Json] = {}
    accept: dict[str, Sequence[Json]] = {}
    optional = []
    for key, listed in parameters.items():
        choices = _choices(f"{name}: {key}", listed, properties.get(key), key in required)
        if choices.free and key not in properties:
            continue
        chosen = _best(choices, properties.get(key))
        others = [value for value in choices.values if value is not chosen]
        accept |= {key: others} if others else {}
        if chosen is not _LEAVE_OUT:
            arguments[key] = chosen
            optional += [key] if choices.free else []
    return ExpectedCall(name, arguments, accept, tuple(optional))


def _choices(where: str, listed: Json, schema: Json, required: bool) -> Choices:
    if not isinstance(listed, list):
        raise Skip(
            Reason.BAD_ANSWER, f"{where}: wanted a list of accepted values, got {listed!r:.60}"
        )
    if not listed:
        raise Skip(Reason.NOTHING_RIGHT, where)
    values: list[Json] = []
    for choice in listed:
        values += [] if choice == MAY_BE_LEFT_OUT else _variants(where, choice)
    marked = MAY_BE_LEFT_OUT in listed
    is_text = isinstance(schema, Mapping) and schema.get("type") == "string"
    empty = marked and (is_text or (required and not values))
    return Choices([*values, ""] if empty else values, marked and not required)


def _variants(where: str, choice: Json) -> list[Json]:
    """The values that an accepted value stands for."""
    found = _some(_multiplied(choice))
    if len(found) > MAX_VARIANTS:
        raise Skip(
            Reason.BAD_ANSWER, f"{where}: more than {MAX_VARIANTS} combinations are accepted"
        )
    return found


def _multiplied(choice: Json) -> Iterator[Json]:
    if _is_described(choice):
        yield from _objects(choice)
    elif isinstance(choice, list) and choice and all(map(_is_described, choice)):
        yield from (
            list(values)
            for values in itertools.product(*(_some(_objects(entry)) for entry in choice))
        )
    else:
        yield choice


def _some(values: Iterator[Json]) -> list[Json]:
    """At most one more than are allowed."""
    return list(itertools.islice(values, MAX_VARIANTS + 1))


def _is_described(value: Json) -> bool:
    """Whether this is an object with a list of accepted values for each key."""
    return isinstance(value, dict) and all(
        isinstance(inner, list) and inner for inner in value.values()
    )


def _objects(described: Mapping[str, Sequence[Json]]) -> Iterator[Json]:
    for combination in itertools.product(*described.values()):
        yield {
            key: value
            for key, value in zip(described, combination, strict=True)
            if value != MAY_BE_LEFT_OUT
        }


def _best(choices: Choices, schema: Json) -> Json:
    """The value that stands for the parameter: the first that the schema allows; `_LEAVE_OUT` where it is better left out.

    Null and the empty text stand only for a parameter that must be given and has no other value.
    """
    real = [value for value in choices.values if value is not None and value != ""]
    if not real:
        return _LEAVE_OUT if choices.free else choices.values[0]
    if not isinstance(schema, Mapping) or (len(real) == 1 and not choices.free):
        return real[0]
    judge = Tool("", "", {"type": "object", "properties": {"value": dict(schema)}})
    fitting = (value for value in real if not judge.problems({"value": value}))
    return next(fitting, _LEAVE_OUT if choices.free else real[0])
