"""A JSON Schema for the drawing of values: its alternatives, its leaves, and makers of values.

    schemas = Schemas(tool.parameters)
    schemas.alternatives({"type": ["string", "null"]})    # [{"type": "string"}, {"type": "null"}]
    make = SchemaSampler(tool).maker(schema, ("people",), 4)    # integers of the size of 4
    make(random.Random(0), False)                         # 7; True asks for a held-out value

Keywords such as `not`, `if` and `contains` are not read; the whole call is checked afterwards.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rstr import Rstr

from toolhone.config.phrasings import word_lists
from toolhone.schema import Json, Tool
from toolhone.schema.json_schema import find_ref
from toolhone.tools.number_maker import Undrawable, number_maker
from toolhone.tools.relations import Relation, relate, relations_of
from toolhone.tools.text_kinds import Make, kind_of, text_maker, words_of

Steps = tuple[str | int, ...]
Schema = dict[str, Any]
_MAX_REFS = 20
_TYPES: dict[str, type | tuple[type, ...]] = {
    "boolean": bool,
    "integer": (int, float),
    "number": (int, float),
    "string": str,
    "array": list,
    "object": Mapping,
    "null": type(None),
}
"""Type of JSON Schema -> types of Python; a truth value is no number, 2.5 no integer."""
Maker = Callable[[random.Random, bool], Json]
"""Draws a value; True asks for a held-out one, where there is choice enough."""
_MAX_DEPTH = 6
_TRIES = 30
_WIDEST = 10_000
_INCLUDED = 0.6
"""How often an optional property is drawn."""
_SHAPED = ("like", "id", "digits", "phone", "time", "moment")
"""Kinds of text that keep the shape of a value which the schema shows."""
_KEYWORDS = {
    **dict.fromkeys(("properties", "required"), "object"),
    **dict.fromkeys(("items", "prefixItems"), "array"),
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), "number"),
}
"""Keyword -> the type of a schema that names none."""
_QUOTED = re.compile(r"(?:e\.g\.,?|for example|such as|like|example:)\s*(['\"`])([^'\"`]{1,60})\1")
"""A value that a description shows: `e.g. "Oslo"`, `such as 'large'`."""


@dataclass(frozen=True)
class Leaf:
    """A value inside arguments: no object, and a list only if its items are plain values."""

    path: Steps
    schema: Schema
    value: Json


@dataclass(frozen=True)
class Schemas:
    """The parts of one schema, with `$ref` followed, `allOf` merged, alternatives apart."""

    root: Mapping[str, Json]

    def alternatives(self, schema: Json, followed: int = 0) -> list[Schema]:
        """Return what the schema may be, each without references, combinations and type lists."""
        if not isinstance(schema, Mapping) or followed > _MAX_REFS:
            return [{}]
        own = dict(schema)
        if "$ref" in own:
            target = find_ref(self.root, str(own.pop("$ref")))
            return self.alternatives(_merge(target, own), followed + 1)
        if "allOf" in own:
            for part in own.pop("allOf"):
                own = _merge(own, part)
            return self.alternatives(own, followed + 1)
        for key in ("anyOf", "oneOf"):
            if key in own:
                ways = [_merge(own, branch) for branch in own.pop(key)]
                return [one for way in ways for one in self.alternatives(way, followed + 1)]
        kinds = own.get("type")
        return [{**own, "type": kind} for kind in kinds] if isinstance(kinds, list) else [own]

    def fitting(self, schema: Json, value: Json) -> Schema:
        """Return the first alternative that the value belongs to, or the first of all."""
        first, *others = self.alternatives(schema)
        if not others:
            return first
        return next((one for one in (first, *others) if self._fits(one, value)), first)

    def _fits(self, schema: Schema, value: Json) -> bool:
        known = schema.get("const", value) == value and value in schema.get("enum", [value])
        if not known or not of_type(value, schema.get("type")):
            return False
        if not isinstance(value, Mapping):
            return True
        declared = schema.get("properties") or {}
        missing = set(schema.get("required") or ()) - value.keys()
        if missing or (declared and not value.keys() <= declared.keys()):
            return False
        return all(
            any(self._fits(way, item) for way in self.alternatives(declared.get(name)))
            for name, item in value.items()
        )

    def leaves(self, value: Json, schema: Json = None, path: Steps = ()) -> Iterator[Leaf]:
        """Yield the values inside objects and lists of objects, in their order."""
        plain = self.fitting(self.root if schema is None else schema, value)
        if isinstance(value, Mapping):
            for name, item in value.items():
                yield from self.leaves(item, self.property(plain, name), (*path, name))
        elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
            yield from self.items(Leaf(path, plain, value))
        else:
            yield Leaf(path, plain, value)

    def items(self, leaf: Leaf) -> Iterator[Leaf]:
        """Yield the leaves inside a list."""
        for index, item in enumerate(leaf.value):
            yield from self.leaves(item, self.item(leaf.schema, index), (*leaf.path, index))

    def property(self, schema: Schema, name: str) -> Json:
        """Return the schema of a property; an empty one where there is none."""
        declared, other = schema.get("properties") or {}, schema.get("additionalProperties")
        return declared.get(name, other if isinstance(other, Mapping) else {})

    def names_beside(self, path: Steps) -> list[str]:
        """Return the names of the properties of the object that has the one at `path`."""
        ways = self.alternatives(self.root)
        for step in path[:-1]:
            way = next((one for one in ways if one.get("type") != "null"), ways[0])
            inner = self.item(way, step) if isinstance(step, int) else self.property(way, step)
            ways = self.alternatives(inner)
        return [name for way in ways for name in way.get("properties") or ()]

    def item(self, schema: Schema, index: int) -> Json:
        """Return the schema of an item of a list."""
        first: Sequence[Json] = schema.get("prefixItems") or ()
        rest = schema.get("items")
        return first[index] if index < len(first) else rest if isinstance(rest, Mapping) else {}


class SchemaSampler:
    """Makers for one tool; `known` are the values of examples by path, without indices.

    declared: relations between parameters, besides those that names tell.
    """

    def __init__(
        self,
        tool: Tool,
        known: Mapping[Steps, Sequence[Json]] | None = None,
        declared: Sequence[Relation] = (),
    ) -> None:
        self.schemas, self._declared = Schemas(tool.parameters), declared
        self._about, self._described = words_of(tool.name), words_of(tool.description)
        self._known = known or {}

    def maker(self, schema: Json, path: Steps, value: Json = None) -> Maker:
        """Return a maker for the value at `path`; objects sometimes lack optional properties.

        value: an example's; the draws are of its alternative, its kind and its size.
        """
        if value is not None:
            return self._maker(self.schemas.fitting(schema, value), path, value)
        ways = self.schemas.alternatives(schema)
        makers, reasons = [], []
        for way in [way for way in ways if way.get("type") != "null"] or ways:
            try:
                makers.append(self._maker(way, path, None))
            except Undrawable as undrawable:
                reasons.append(str(undrawable))
        if not makers:
            raise Undrawable(reasons[0])
        return lambda rng, held: rng.choice(makers)(rng, held)

    def _maker(self, schema: Schema, path: Steps, value: Json) -> Maker:
        if "const" in schema:
            return constant(schema["const"])
        if "enum" in schema:
            fitting = [choice for choice in schema["enum"] if of_type(choice, schema.get("type"))]
            choices = [one for one in fitting if one is not None] or schema["enum"]
            if not choices:
                raise Undrawable("an empty list of choices")
            return lambda rng, _: rng.choice(choices)
        match _kind(schema, value):
            case "null":
                return constant(None)
            case "boolean":
                return lambda rng, _: rng.choice([True, False])
            case "integer" | "number" as kind:
                return number_maker(schema, _names(path), value, kind == "integer")
            case "array":
                return self._array(schema, path, value)
            case "object":
                return self._object(schema, path)
        return self._text(schema, path, value)

    def _array(self, schema: Schema, path: Steps, value: Json) -> Maker:
        low = max(int(schema.get("minItems", 0)), 1)
        high = min(int(schema.get("maxItems", max(low, 3))), max(low, 4))
        if high < 1 or len(path) > _MAX_DEPTH:
            return constant([])
        prefix = enumerate(schema.get("prefixItems") or ())
        fixed = [self.maker(part, (*path, index)) for index, part in prefix]
        shown = value[0] if value else None
        item = self.maker(self.schemas.item(schema, len(fixed)), (*path, 0), shown)

        def draw(rng: random.Random, held: bool) -> list[Json]:
            """Draw items that differ; without choice repeat some, or draw fewer if unique."""
            wanted = max(rng.randint(low, high), len(fixed))
            items = [make(rng, held) for make in fixed]
            seen = {json.dumps(one, sort_keys=True) for one in items}
            for _ in range(_TRIES):
                if len(items) >= wanted:
                    break
                one = item(rng, held)
                if (key := json.dumps(one, sort_keys=True)) not in seen:
                    seen.add(key)
                    items.append(one)
            more = 0 if schema.get("uniqueItems") else wanted - len(items)
            return items + [item(rng, held) for _ in range(more)]

        return draw

    def _object(self, schema: Schema, path: Steps) -> Maker:
        required = set(schema.get("required") or ())
        declared = schema.get("properties") or {}
        makers: dict[str, Maker] = {}
        for name in [*declared, *sorted(required - set(declared))]:
            try:
                if len(path) >= _MAX_DEPTH:
                    raise Undrawable("a schema that contains itself")
                makers[name] = self.maker(self.schemas.property(schema, name), (*path, name))
            except Undrawable:
                if name in required:
                    raise

        relations = self.relations(path, makers)

        def draw(rng: random.Random, held: bool) -> dict[str, Json]:
            chosen = [name for name in makers if name in required or rng.random() < _INCLUDED]
            if path and makers and not chosen:  # an empty object says nothing
                chosen = [rng.choice(list(makers))]
            values = {name: makers[name](rng, held) for name in chosen}
            relate(values, relations, lambda name: makers[name](rng, held), rng, held)
            return values

        return draw

    def relations(self, path: Steps, names: Iterable[str]) -> list[Relation]:
        """Return the relations between properties of the object at `path`."""
        place = tuple(step for step in path if isinstance(step, str))
        return relations_of(list(names), [one for one in self._declared if one.path == place])

    def _text(self, schema: Schema, path: Steps, value: Json) -> Maker:
        value = value if isinstance(value, str) else None
        if "pattern" in schema:
            make = pattern_maker(str(schema["pattern"]))
            if make is None and value is None:
                raise Undrawable("a pattern for which no string was found")
            return _sized(lambda rng, _: make(rng), schema) if make else constant(value)
        names = tuple(step for step in path if isinstance(step, str))
        if value is not None and not value.isascii():
            choices = sorted({value, *map(str, self._known.get(names, ()))})
            return lambda rng, _: rng.choice(choices)
        about = str(schema.get("description") or "")
        shown = [one for one in schema.get("examples") or () if isinstance(one, str)]
        shown = (shown or [match[2] for match in _QUOTED.finditer(about)])[:1]
        like = next(filter(str.isascii, shown), None) if value is None else value
        kind = word_lists("manual")["formats"].get(str(schema.get("format"))) or kind_of(
            self._about + _names(path), about, like, self._described
        )
        return _sized(text_maker(kind, like if kind in _SHAPED else value), schema)


def of_type(value: Json, kind: Json) -> bool:
    """Return whether a JSON value is of this JSON Schema type; None is any type."""
    if kind in ("integer", "number") and isinstance(value, bool):
        return False
    whole = kind != "integer" or not isinstance(value, float) or value.is_integer()
    return kind is None or (whole and isinstance(value, _TYPES.get(str(kind), object)))


def _merge(first: Json, second: Json) -> Schema:
    """Merge two schemas: the second counts, except that properties and requirements are united."""
    one, other = (dict(part) if isinstance(part, Mapping) else {} for part in (first, second))
    result = {**one, **other}
    for key in ("properties", "$defs"):
        if key in one and key in other:
            result[key] = {**one[key], **other[key]}
    if "required" in one and "required" in other:
        result["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    return result


def constant(value: Json) -> Maker:
    """Return a maker of one value, which draws nothing."""
    return lambda _rng, _held: value


def _names(path: Steps) -> list[str]:
    return [word for step in path if isinstance(step, str) for word in words_of(step)]


def _kind(schema: Schema, value: Json) -> str:
    """Return the type of a schema; where it names none, that of the example or of its keywords."""
    if "type" in schema:
        return str(schema["type"])
    if value is not None:
        return next(kind for kind in _TYPES if of_type(value, kind))
    return next((kind for keyword, kind in _KEYWORDS.items() if keyword in schema), "string")


class _ShortStrings(Rstr):
    """Strings of a pattern in plain letters; an open repetition adds at most three."""

    def __init__(self, rng: random.Random) -> None:
        letters = string.ascii_letters + string.digits
        plain = dict.fromkeys(("word", "nonwhitespace", "nondigits"), letters)
        super().__init__(rng, printable=string.ascii_lowercase, whitespace=" ", **plain)

    def _handle_repeat(self, start_range: int, end_range: int, value: Any) -> str:
        end_range = end_range if end_range < _WIDEST else start_range + 3
        return super()._handle_repeat(start_range, end_range, value)


def pattern_maker(pattern: str) -> Callable[[random.Random], str] | None:
    """Return a maker of strings that the pattern accepts; None where none are found."""
    try:
        compiled = re.compile(pattern)
    except re.error:
        return None
    if "[^" in pattern:  # rstr draws from a set here, whose order differs from run to run
        return None

    def draw(rng: random.Random) -> str:
        strings = _ShortStrings(rng)
        drawn = (strings.xeger(pattern) for _ in range(_TRIES))
        return next((text for text in drawn if compiled.search(text)), "")

    return draw if compiled.search(draw(random.Random(0))) else None


def _sized(make: Make, schema: Schema) -> Maker:
    """Draw texts of a length that the schema allows; cut or fill one up after some tries."""
    low, high = int(schema.get("minLength", 0)), int(schema.get("maxLength", 10**6))
    if high < low:
        raise Undrawable("minLength above maxLength")

    def draw(rng: random.Random, held: bool) -> str:
        for _ in range(_TRIES):
            text = make(rng, held)
            if low <= len(text) <= high:
                return text
        text = make(rng, held)
        if "pattern" in schema:
            return text
        filled = text.strip() + "".join(rng.choice("aeioulmnrst") for _ in range(low))
        return filled[: max(low, min(high, len(text)))].strip()

    return draw
