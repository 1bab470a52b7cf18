"""Values drawn from a JSON Schema.

    drawer = Drawer(tool)
    make = drawer.maker(schema, ("book_table", "people"), 4)
    make(random.Random(0), False)        # 7: an int as the schema wants it, of the size of the example's 4; True: a held-out value

Respected are type, enum, const, minimum, maximum and their exclusive forms, multipleOf, minLength, maxLength, pattern (simple
ones, see `regex`), format, items, prefixItems, minItems, maxItems, uniqueItems, properties, required, allOf, anyOf, oneOf,
$ref. Other keywords (`not`, `if`, `contains`, ...) are not read: every call that is made is checked against the whole schema
afterwards, and drawn again.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from toolhone.schema import Json, Tool
from toolhone.synthetic.patterns import matching
from toolhone.synthetic.schemas import Schema, Schemas, Steps, of_type
from toolhone.synthetic.text_kinds import (
    FORMATS,
    Make,
    kind_of,
    material,
    quoted_examples,
    words_of,
)
from toolhone.synthetic.text_kinds import maker as text_maker

Maker = Callable[[random.Random, bool], Json]
"""A value from a source of chance; True asks for a held-out one where there is choice enough."""
_MAX_DEPTH = 6
_TRIES = 30
_WIDEST = 10_000
_ENOUGH = 30
"""Held-out numbers are set apart where a range has at least so many."""
_INCLUDED = 0.6
"""How often an optional property is drawn."""


class Undrawable(Exception):  # noqa: N818  (a decision about one schema, never shown as an error)
    """No value can be drawn from a schema; the text says why."""


class Drawer:
    """Makes the makers for one tool. `known` are the values that examples show, by path (indices left out)."""

    def __init__(self, tool: Tool, known: Mapping[Steps, Sequence[Json]] | None = None) -> None:
        self.schemas = Schemas(tool.parameters)
        self.root = tool.parameters
        self._about = words_of(tool.name)
        self._described = words_of(tool.description)
        self._known = known or {}

    def arguments(self) -> Maker:
        """Whole arguments; optional ones are sometimes left out."""
        return self.maker(self.root, (), None)

    def maker(self, schema: Json, path: Steps, value: Json = None) -> Maker:
        """A maker for the value at `path`; `value` is an example's: the draws are of its alternative, its kind and its size."""
        if value is not None:
            return self._maker(self.schemas.fitting(schema, value), path, value)
        ways = [
            way for way in self.schemas.alternatives(schema) if way.get("type") != "null"
        ] or self.schemas.alternatives(schema)
        makers, reasons = [], []
        for way in ways:
            try:
                makers.append(self._maker(way, path, None))
            except Undrawable as undrawable:
                reasons.append(str(undrawable))
        if not makers:
            raise Undrawable(reasons[0])
        return lambda rng, held: rng.choice(makers)(rng, held)

    def _maker(self, schema: Schema, path: Steps, value: Json) -> Maker:
        if "const" in schema:
            return _constant(schema["const"])
        if "enum" in schema:
            choices = [
                choice
                for choice in schema["enum"]
                if choice is not None and of_type(choice, schema.get("type"))
            ]
            return _one_of(choices or schema["enum"])
        match _kind(schema, value):
            case "null":
                return _constant(None)
            case "boolean":
                return _one_of([True, False])
            case "integer" | "number" as kind:
                return _number(schema, _names(path), value, kind == "integer")
            case "array":
                return self._array(schema, path, value)
            case "object":
                return self._object(schema, path)
        return self._text(schema, path, value)

    def _array(self, schema: Schema, path: Steps, value: Json) -> Maker:
        low = max(int(schema.get("minItems", 0)), 1)
        high = min(int(schema.get("maxItems", max(low, 3))), max(low, 4))
        if high < 1 or len(path) > _MAX_DEPTH:
            return _constant([])
        fixed = [
            self.maker(part, (*path, index))
            for index, part in enumerate(schema.get("prefixItems") or ())
        ]
        item = self.maker(
            self.schemas.item(schema, len(fixed)), (*path, 0), value[0] if value else None
        )
        apart = bool(schema.get("uniqueItems"))

        def made(rng: random.Random, held: bool) -> list[Json]:
            wanted = max(rng.randint(low, high), len(fixed))
            return distinct(
                (make(rng, held) for make in fixed), lambda: item(rng, held), wanted, apart
            )

        return made

    def _object(self, schema: Schema, path: Steps) -> Maker:
        declared: Mapping[str, Json] = schema.get("properties") or {}
        required = set(schema.get("required") or ())
        makers: dict[str, Maker] = {}
        for name in [*declared, *sorted(required - set(declared))]:
            if len(path) >= _MAX_DEPTH:
                if name in required:
                    raise Undrawable("a schema that contains itself")
                continue
            try:
                makers[name] = self.maker(self.schemas.property(schema, name), (*path, name))
            except Undrawable:
                if name in required:
                    raise

        def made(rng: random.Random, held: bool) -> dict[str, Json]:
            chosen = [name for name in makers if name in required or rng.random() < _INCLUDED]
            return {name: makers[name](rng, held) for name in chosen}

        return made

    def _text(self, schema: Schema, path: Steps, value: Json) -> Maker:
        if "pattern" in schema:
            make = matching(str(schema["pattern"]))
            if make is None and not isinstance(value, str):
                raise Undrawable("a pattern that is not simple")
            return _sized(lambda rng, _: make(rng), schema) if make else _constant(value)
        known = [str(other) for other in self._known.get(_without_indices(path), ())]
        if isinstance(value, str) and not value.isascii():
            return _one_of(sorted({value, *known}))
        about = str(schema.get("description") or "")
        shown = [
            example for example in schema.get("examples") or () if isinstance(example, str)
        ] or list(quoted_examples(about))
        like = (
            value if isinstance(value, str) else shown[0] if shown and shown[0].isascii() else None
        )
        kind = FORMATS.get(str(schema.get("format")), "") or kind_of(
            self._about + _names(path), about, like, self._described
        )
        return _sized(
            text_maker(
                kind, like if kind in ("like", "id", "digits", "phone", "time", "moment") else value
            ),
            schema,
        )


def _names(path: Steps) -> list[str]:
    return [word for step in path if isinstance(step, str) for word in words_of(step)]


def _without_indices(path: Steps) -> Steps:
    return tuple(step for step in path if isinstance(step, str))


def _kind(schema: Schema, value: Json) -> str:
    """The type of a schema; where it names none, that of the example or what its keywords speak of."""
    if "type" in schema:
        return str(schema["type"])
    if value is not None:
        kinds = ("boolean", "integer", "number", "string", "array", "object")
        return next(kind for kind in kinds if of_type(value, kind))
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "number" if schema.keys() & {"minimum", "maximum", "multipleOf"} else "string"


def _constant(value: Json) -> Maker:
    return lambda _rng, _held: value


def _one_of(choices: Sequence[Json]) -> Maker:
    if not choices:
        raise Undrawable("an empty list of choices")
    return lambda rng, _: rng.choice(choices)


def distinct(
    first: Iterable[Json], more: Callable[[], Json], wanted: int, apart: bool
) -> list[Json]:
    """`wanted` items that differ from each other as far as there is choice; `apart` rather leaves items out than repeats one."""
    items = list(first)
    seen = {json.dumps(item, sort_keys=True) for item in items}
    for _ in range(_TRIES):
        if len(items) >= wanted:
            break
        item = more()
        if (key := json.dumps(item, sort_keys=True)) not in seen:
            seen.add(key)
            items.append(item)
    while len(items) < wanted and not apart:
        items.append(more())
    return items


def _sized(make: Make, schema: Schema) -> Maker:
    """Texts whose length the schema allows; after some tries one is cut or filled up, unless a pattern forbids that."""
    low, high = int(schema.get("minLength", 0)), int(schema.get("maxLength", 10**6))
    if high < low:
        raise Undrawable("minLength above maxLength")

    def made(rng: random.Random, held: bool) -> str:
        text = make(rng, held)
        for _ in range(_TRIES):
            if low <= len(text) <= high:
                return text
            text = make(rng, held)
        if "pattern" in schema:
            return text
        return (text.strip() + "".join(rng.choice("aeioulmnrst") for _ in range(low)))[
            : max(low, min(high, len(text)))
        ].strip()

    return made


def _number(schema: Schema, names: Sequence[str], value: Json, whole: bool) -> Maker:
    """Multiples of a step within bounds; the bounds are the schema's, else those of the name, else of the example's size."""
    step = _step(schema, value, whole)
    low, high = _bounds(schema, names, value)
    first, last = math.ceil(Decimal(str(low)) / step), math.floor(Decimal(str(high)) / step)
    if "exclusiveMinimum" in schema and first * step <= Decimal(str(schema["exclusiveMinimum"])):
        first += 1
    if "exclusiveMaximum" in schema and last * step >= Decimal(str(schema["exclusiveMaximum"])):
        last -= 1
    if first > last:
        raise Undrawable("a range without a number in it")
    large = last - first + 1 >= _ENOUGH

    def made(rng: random.Random, held: bool) -> int | float:
        count = rng.randint(first, last)
        while large and (count % 7 == 3) != held:
            count = rng.randint(first, last)
        number = count * step
        return int(number) if number == number.to_integral_value() else float(number)

    return made


def _step(schema: Schema, value: Json, whole: bool) -> Decimal:
    if schema.get("multipleOf"):
        step = Decimal(str(schema["multipleOf"]))
        return step * step.as_integer_ratio()[1] if whole else step
    shown = str(value)
    decimals = len(shown.partition(".")[2]) if isinstance(value, float) and "e" not in shown else 0
    return Decimal(1) if whole else Decimal(1).scaleb(-min(decimals, 6))


def _bounds(schema: Schema, names: Sequence[str], value: Json) -> tuple[float, float]:
    low, high = _usual(names, value)
    asked_low: Any = schema.get("minimum", schema.get("exclusiveMinimum"))
    asked_high: Any = schema.get("maximum", schema.get("exclusiveMaximum"))
    if asked_low is not None and asked_high is not None and asked_high - asked_low <= _WIDEST:
        return asked_low, asked_high
    if asked_low is not None and not (low <= asked_low <= high):
        low, high = asked_low, asked_low + (high - low)
    if asked_high is not None and not (low <= asked_high <= high):
        low, high = min(asked_high, max(low, asked_high - (high - low))), asked_high
    return max(low, low if asked_low is None else asked_low), min(
        high, high if asked_high is None else asked_high
    )


def _usual(names: Sequence[str], value: Json) -> tuple[float, float]:
    """The range that the name suggests, if the example lies in it; else one of the example's size."""
    ranges: Mapping[str, list[int]] = material()["ranges"]
    low, high = next((ranges[word] for word in reversed(names) if word in ranges), (2, 999))
    if value is None or (low <= value <= high and (low, high) != (2, 999)):
        return low, high
    size = max(20.0, 5.0 * abs(value)) if isinstance(value, int) or abs(value) >= 1 else 1.0
    return (-size if value < 0 else 0 if value == 0 else min(1, abs(value)), size)
