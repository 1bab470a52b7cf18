"""What BFCL counts as right for one call, as an `ExpectedCall`.

    expected_call({"area": {"radius": [5, 5.0], "unit": ["", "m"]}}, tools)
    # ExpectedCall("area", {"radius": 5, "unit": "m"}, accept={"radius": [5.0]}, optional=("unit",))

Each parameter has a list of accepted values; `""` says that it may be left out. Inside an accepted
object every key has such a list again: these are multiplied out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from toolhone.schema import ExpectedCall, Json, Tool
from toolhone.sources.base import Skip

MAX_VARIANTS = 1000
"""Values that one parameter may be multiplied out to."""
BAD_ANSWER = "an accepted answer that cannot be read"
_MAY_BE_LEFT_OUT: Final = ""
_LEAVE_OUT: Final = object()


def expected_call(answer: Json, tools: Sequence[Tool]) -> ExpectedCall:
    """Return the one call that `{name: {parameter: [values]}}` describes."""
    described = answer if isinstance(answer, dict) else {}
    if len(described) != 1 or not all(isinstance(inner, dict) for inner in described.values()):
        raise Skip(BAD_ANSWER, f"wanted one call with its parameters, got {answer!r:.80}")
    ((name, parameters),) = described.items()
    schema = next((tool.parameters for tool in tools if tool.name == name), {})
    properties, required = schema.get("properties") or {}, schema.get("required") or ()
    arguments: dict[str, Json] = {}
    accept: dict[str, Sequence[Json]] = {}
    optional = []
    for key, listed in parameters.items():
        where, wanted = f"{name}: {key}", key in required
        values, free = _choices(where, listed, properties.get(key), wanted)
        if free and key not in properties:
            continue
        chosen = _best(values, free, properties.get(key))
        others = [value for value in values if value is not chosen]
        accept |= {key: others} if others else {}
        if chosen is not _LEAVE_OUT:
            arguments[key] = chosen
            optional += [key] if free else []
    return ExpectedCall(name, arguments, accept, tuple(optional))


def _choices(where: str, listed: Json, schema: Json, required: bool) -> tuple[list[Json], bool]:
    """Return the accepted values of a parameter, and whether it may be left out."""
    if not isinstance(listed, list):
        raise Skip(BAD_ANSWER, f"{where}: wanted a list of accepted values, got {listed!r:.60}")
    if not listed:
        raise Skip("a parameter for which no value is accepted", where)
    values: list[Json] = []
    for choice in listed:
        values += [] if choice == _MAY_BE_LEFT_OUT else _variants(where, choice)
    marked = _MAY_BE_LEFT_OUT in listed
    is_text = isinstance(schema, Mapping) and schema.get("type") == "string"
    if marked and (is_text or (required and not values)):
        values.append("")
    return values, marked and not required


def _variants(where: str, choice: Json) -> list[Json]:
    """Return the values that an accepted value stands for."""
    if _is_described(choice):
        found = _some(_objects(choice))
    elif isinstance(choice, list) and choice and all(map(_is_described, choice)):
        every = itertools.product(*(_some(_objects(entry)) for entry in choice))
        found = _some(list(values) for values in every)
    else:
        return [choice]
    if len(found) > MAX_VARIANTS:
        raise Skip(BAD_ANSWER, f"{where}: more than {MAX_VARIANTS} combinations are accepted")
    return found


def _some(values: Iterator[Json]) -> list[Json]:
    """Return at most one more value than are allowed."""
    return list(itertools.islice(values, MAX_VARIANTS + 1))


def _is_described(value: Json) -> bool:
    """Return whether this is an object with a list of accepted values for each key."""
    lists = value.values() if isinstance(value, dict) else (None,)
    return all(isinstance(inner, list) and inner for inner in lists)


def _objects(described: Mapping[str, Sequence[Json]]) -> Iterator[Json]:
    for combination in itertools.product(*described.values()):
        pairs = zip(described, combination, strict=True)
        yield {key: value for key, value in pairs if value != _MAY_BE_LEFT_OUT}


def _best(values: Sequence[Json], free: bool, schema: Json) -> Json:
    """Return the first value that the schema allows; `_LEAVE_OUT` where it is better left out.

    Null and the empty text are taken only for a parameter that must be given and has no other
    value.
    """
    real = [value for value in values if value is not None and value != ""]
    if not real:
        return _LEAVE_OUT if free else values[0]
    if not isinstance(schema, Mapping) or (len(real) == 1 and not free):
        return real[0]
    judge = Tool("", "", {"type": "object", "properties": {"value": dict(schema)}})
    fitting = (value for value in real if not judge.problems({"value": value}))
    return next(fitting, _LEAVE_OUT if free else real[0])
