"""From the JSON Schema of a tool's arguments to rules of a grammar: `Values`.

    values = Values(rules, JsonStyle(), tool)
    values.arguments()      the object of all arguments
    values.fields()         the arguments one by one, for forms that write each between marks of its own
    values.of(schema)       a value that this schema allows

Properties come in the order of the schema; those that are not required may be left out. Nothing is invented: an object that
declares properties takes no others unless its schema says `additionalProperties`. What has no rule here (patterns, bounds, `allOf`,
...) is handed to the grammar library as JSON Schema where the form is JSON; in other forms it is refused by keyword. `format` is
kept where the library knows it, and is a remark otherwise, as in JSON Schema itself.

What it does not hold: that keys of an object without declared properties differ from each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolhone.dialects.grammar_styles import INTEGER, NUMBER, Style
from toolhone.dialects.lark import GrammarRules, in_turn, one_of, quoted
from toolhone.errors import DialectError
from toolhone.schema import Json, Tool

FORMATS = (
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
)
"""The formats of strings that the grammar library knows."""
_OF_TYPE: Mapping[str, frozenset[str]] = {
    kind: frozenset(words.split())
    for kind, words in {
        "string": "minLength maxLength pattern format",
        "number": "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf",
        "array": "items prefixItems minItems maxItems uniqueItems contains minContains maxContains unevaluatedItems",
        "object": "properties required additionalProperties patternProperties propertyNames minProperties maxProperties "
        "dependentRequired dependentSchemas unevaluatedProperties",
    }.items()
}
"""The keywords that speak of values of one type."""
_OF_ANY = frozenset(
    (
        "type",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "if",
        "then",
        "else",
        "$ref",
        "$dynamicRef",
    )
)
_ASSERTIONS = _OF_ANY.union(*_OF_TYPE.values())
_HANDLED: Mapping[str, frozenset[str]] = {
    "number": _OF_TYPE["number"],
    "array": frozenset(("items", "minItems", "maxItems")),
    "object": frozenset(("properties", "required", "additionalProperties")),
}
_TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
_COMBINED = ("allOf", "anyOf", "oneOf", "if", "then", "else", "not")
_DEFINITIONS = ("$defs", "definitions")


@dataclass(frozen=True)
class Field:
    """An argument: its schema, and whether it must be given."""

    name: str
    schema: Json
    required: bool


class Values:
    """Rules for the values of one tool in one style."""

    def __init__(self, rules: GrammarRules, style: Style, tool: Tool) -> None:
        self.rules, self.style, self.tool = rules, style, tool
        self._root: Mapping[str, Json] = dict(tool.parameters)
        self._referred: dict[str, str] = {}
        self._any: str | None = None
        space = rules.terminal(f"/{style.space}/") if style.space else ""
        self.gap = f"{space}?" if space else ""
        self.comma = rules.rule(in_turn(self.gap, '","', self.gap)) if space else '","'

    def arguments(self) -> str:
        """The object of all arguments."""
        schema = self._resolved()
        if _asserted(schema) - {"type"} - _HANDLED["object"]:
            return self._embedded(schema)
        return self._object(schema, closed=True)

    def fields(self) -> list[Field]:
        """The arguments one by one."""
        schema = self._resolved()
        self._need(schema, _HANDLED["object"] | {"type"})
        if schema.get("additionalProperties") and not schema.get("properties"):
            raise self._refusal("additionalProperties")
        return self._declared(schema, None)

    def object_of(self, members: Sequence[tuple[str, str]]) -> str:
        """An object with exactly these keys, each with the term for its value."""
        pairs = [in_turn(self.style.key(key), self.gap, term) for key, term in members]
        return in_turn('"{"', self.gap, f" {self.comma} ".join(pairs), self.gap, '"}"')

    def exactly(self, value: Json) -> str:
        """This value and no other."""
        if isinstance(value, Mapping):
            return self.rules.rule(
                self.object_of([(key, self.exactly(inner)) for key, inner in value.items()])
            )
        if isinstance(value, list):
            items = f" {self.comma} ".join(map(self.exactly, value))
            return self.rules.rule(in_turn('"["', self.gap, items, self.gap, '"]"'))
        return self.rules.rule(one_of(self.style.literal(self.rules, value)))

    def of(self, schema: Json) -> str:
        """A value that this schema allows."""
        if schema is False:
            raise self._refusal("false")
        asserted = _asserted(schema) if isinstance(schema, Mapping) else frozenset[str]()
        if not asserted:
            return self._anything()
        if asserted & {"enum", "const"}:
            return self._chosen(schema)
        if asserted == {"$ref"}:
            return self._reference(str(schema["$ref"]))
        for word in ("anyOf", "oneOf"):
            if asserted == {word} and (word == "anyOf" or _disjoint(schema[word])):
                return self.rules.rule(one_of([self.of(branch) for branch in schema[word]]))
        if asserted & (_OF_ANY - {"type"}):
            return self._embedded(schema)
        types = (
            [schema["type"]]
            if isinstance(schema.get("type"), str)
            else list(schema.get("type") or _inferred(asserted))
        )
        return self.rules.rule(
            one_of([self._of_type({**schema, "type": kind}, kind) for kind in types])
        )

    def cases(self, schema: Json) -> list[Mapping[str, Json]]:
        """The schema as alternatives that each list their values (`enum`), are of one `type`, or are open to all ({})."""
        asserted = _asserted(schema) if isinstance(schema, Mapping) else frozenset[str]()
        if not asserted:
            return [{}] if schema is not False else []
        if asserted & {"enum", "const"}:
            return [{"enum": self._listed(schema)}]
        if asserted == {"$ref"}:
            return self.cases(self._at(str(schema["$ref"])))
        for word in ("anyOf", "oneOf"):
            if asserted == {word} and (word == "anyOf" or _disjoint(schema[word])):
                return [case for branch in schema[word] for case in self.cases(branch)]
        self._need(schema, _ASSERTIONS - (_OF_ANY - {"type"}))
        types = (
            [schema["type"]]
            if isinstance(schema.get("type"), str)
            else list(schema.get("type") or _inferred(asserted))
        )
        return [{**schema, "type": kind} for kind in types]

    def size(self, schema: Mapping[str, Json]) -> tuple[int, int | None]:
        """The least and the greatest length of a string, where nothing else is said about it."""
        self._need(
            schema,
            frozenset(("type", "minLength", "maxLength", "format")).union(
                *(_OF_TYPE[k] for k in _OF_TYPE if k != "string")
            ),
        )
        return int(schema.get("minLength", 0)), schema.get("maxLength")

    def _of_type(self, schema: Mapping[str, Json], kind: str) -> str:
        """A value of this one type; keywords that speak of other types say nothing here."""
        group = "number" if kind == "integer" else kind
        about = _asserted(schema) & _OF_TYPE.get(group, frozenset())
        if kind == "string":
            return self._string(schema, about)
        if about - _HANDLED.get(group, frozenset()):
            return self._embedded(
                {
                    key: schema[key]
                    for key in schema
                    if key in about or key not in _ASSERTIONS or key == "type"
                }
            )
        match kind:
            case "integer" | "number" if about:
                return self.rules.rule(
                    f"%json {json.dumps({key: schema[key] for key in ('type', *sorted(about))})}"
                )
            case "integer" | "number":
                return self.rules.terminal(INTEGER if kind == "integer" else NUMBER)
            case "boolean":
                return self.rules.rule(
                    one_of([quoted(word) for words in self.style.words[:2] for word in words])
                )
            case "null":
                return self.rules.rule(one_of(list(map(quoted, self.style.words[2]))))
            case "array":
                return self._array(schema)
        return self._object(schema, closed=bool(schema.get("properties")))

    def _string(self, schema: Mapping[str, Json], about: frozenset[str]) -> str:
        if self.style.embeds and about & {"pattern", "format"}:
            return self._embedded({key: schema[key] for key in ("type", *sorted(about))})
        return self.style.string(self.rules, self.size(schema))

    def _array(self, schema: Mapping[str, Json]) -> str:
        low, high = int(schema.get("minItems", 0)), schema.get("maxItems")
        if high == 0:
            return self.rules.rule(in_turn('"["', self.gap, '"]"'))
        item = self.of(schema.get("items", True))
        more = f"{{{max(low - 1, 0)},{'' if high is None else int(high) - 1}}}"
        items = f"{item} ({self.comma} {item}){'*' if more == '{0,}' else more}"
        return self.rules.rule(
            in_turn('"["', self.gap, items if low else f"({items})?", self.gap, '"]"')
        )

    def _object(self, schema: Mapping[str, Json], closed: bool) -> str:
        other = schema.get("additionalProperties", not closed)
        fields = self._declared(schema, other)
        more = ""
        if other is not False:
            key = self.style.other_key(self.rules, [field.name for field in fields])
            more = in_turn(key, self.gap, self.of(other))
        pairs = [
            (in_turn(self.style.key(field.name), self.gap, self.of(field.schema)), field.required)
            for field in fields
        ]
        return self.rules.rule(
            in_turn('"{"', self.gap, members(self.rules, pairs, self.comma, more), self.gap, '"}"')
        )

    def _declared(self, schema: Mapping[str, Json], other: Json) -> list[Field]:
        """The declared properties; required ones that are not declared follow, where the schema allows others."""
        properties, required = schema.get("properties") or {}, list(schema.get("required") or ())
        unknown = [name for name in required if name not in properties]
        if unknown and other in (None, False):
            raise self._refusal(
                "required", f"it requires {unknown[0]!r}, which it does not declare"
            )
        declared = [
            Field(name, inner, name in required)
            for name, inner in properties.items()
            if inner is not False
        ]
        return [*declared, *(Field(name, other, True) for name in unknown)]

    def _chosen(self, schema: Mapping[str, Json]) -> str:
        """One of the values that the schema lists, as far as its other keywords allow them."""
        values = self._listed(schema)
        return self.rules.rule(one_of([self.exactly(value) for value in values]))

    def _listed(self, schema: Mapping[str, Json]) -> list[Json]:
        listed = schema.get("enum", [schema.get("const")])
        judge = Tool(self.tool.name, "", {**self._definitions(), "properties": {"value": schema}})
        values = [value for value in listed if not judge.problems({"value": value})]
        if not values:
            raise self._refusal("enum" if "enum" in schema else "const", "no value is left")
        return values

    def _reference(self, pointer: str) -> str:
        if pointer not in self._referred:
            self._referred[pointer] = name = self.rules.reserve()
            self.rules.define(name, self.of(self._at(pointer)))
        return self._referred[pointer]

    def _resolved(self) -> Mapping[str, Json]:
        """The schema of all arguments, behind a reference if it is one."""
        schema: Json = self._root
        for _ in range(8):
            if not isinstance(schema, Mapping) or "$ref" not in schema:
                break
            schema = self._at(str(schema["$ref"]))
        return schema if isinstance(schema, Mapping) else {}

    def _at(self, pointer: str) -> Json:
        place: Json = self._root
        for step in pointer.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            place = place.get(name) if isinstance(place, Mapping) else None
        if not pointer.startswith("#") or place is None:
            raise self._refusal("$ref", f"{pointer!r} leads nowhere in the schema")
        return place

    def _anything(self) -> str:
        """Any value."""
        if self._any is None:
            self._any = self.rules.reserve()
            key = self.style.other_key(self.rules, ())
            pair = in_turn(key, self.gap, self._any)
            words = [quoted(word) for words in self.style.words for word in words]
            body = [self.style.string(self.rules), self.rules.terminal(NUMBER), *words]
            body.append(
                in_turn(
                    '"["', self.gap, f"({self._any} ({self.comma} {self._any})*)?", self.gap, '"]"'
                )
            )
            body.append(
                in_turn('"{"', self.gap, f"({pair} ({self.comma} {pair})*)?", self.gap, '"}"')
            )
            self.rules.define(self._any, one_of(body))
        return self._any

    def _embedded(self, schema: Mapping[str, Json]) -> str:
        """The schema as the grammar library reads it; refused in forms that are not JSON."""
        if not self.style.embeds:
            raise self._refusal(
                min(
                    _asserted(schema) - {"type", *_HANDLED["object"], *_HANDLED["array"]},
                    default="type",
                )
            )
        whole = {
            "x-guidance": {"whitespace_pattern": self.style.space},
            **self._definitions(),
            **tidied(schema),
        }
        return self.rules.rule(f"%json {json.dumps(whole)}")

    def _definitions(self) -> dict[str, Json]:
        return {
            word: {k: tidied(v) for k, v in self._root[word].items()}
            for word in _DEFINITIONS
            if word in self._root
        }

    def _need(self, schema: Mapping[str, Json], handled: frozenset[str]) -> None:
        beyond = _asserted(schema) - handled
        if beyond:
            raise self._refusal(min(beyond))

    def _refusal(
        self, keyword: str, reason: str = "this form of calls has no rule for it"
    ) -> DialectError:
        return DialectError(
            f"tool {self.tool.name!r} cannot be constrained: {keyword!r} in its schema: {reason}; "
            "leave the keyword out, or evaluate without evaluation.constrained"
        )


def members(
    rules: GrammarRules, items: Sequence[tuple[str, bool]], joint: str, more: str = ""
) -> str:
    """Items in their order with `joint` between, the required ones (True) always; then any number of `more`."""
    first, after = "", ""
    if more:
        first = rules.rule(f"({in_turn(more, f'({in_turn(joint, more)})*')})?")
        after = rules.rule(f"({in_turn(joint, more)})*")
    for term, required in reversed(items):
        begun, goes_on = in_turn(term, after), in_turn(joint, term, after)
        first = rules.rule(begun if required else one_of([begun, first or '""']))
        after = rules.rule(goes_on if required else one_of([goes_on, after or '""']))
    return first


def tidied(schema: Json, closes: bool = True) -> Json:
    """The schema for the grammar library: formats that it does not know are gone, and declared objects take no other keys.

    closes: whether that may be said; not beside properties that another part of the same schema declares.
    """
    if isinstance(schema, list):
        return [tidied(item, closes) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    result: dict[str, Json] = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties", "dependentSchemas", *_DEFINITIONS):
            result[key] = {name: tidied(inner) for name, inner in value.items()}
        elif key in _COMBINED:
            result[key] = tidied(value, closes and key != "allOf" and "properties" not in schema)
        elif key in ("items", "prefixItems", "additionalProperties", "contains"):
            result[key] = tidied(value)
        elif key != "format" or value in FORMATS:
            result[key] = value
    beside = json.dumps([schema[key] for key in _COMBINED if key in schema] + [schema.get("$ref")])
    if (
        closes
        and schema.get("properties")
        and '"properties"' not in beside
        and "$ref" not in beside
        and "$ref" not in schema
    ):
        result.setdefault("additionalProperties", False)
    return result


def _asserted(schema: Mapping[str, Json]) -> frozenset[str]:
    """The keywords that say something about values."""
    return frozenset(schema) & _ASSERTIONS - (
        {"format"} if schema.get("format") not in FORMATS else set()
    )


def _inferred(asserted: frozenset[str]) -> Sequence[str]:
    """The type that keywords speak of where the schema names none; any type when they speak of several."""
    about = [kind for kind, words in _OF_TYPE.items() if asserted & words]
    return about if len(about) == 1 else _TYPES


def _disjoint(branches: Sequence[Json]) -> bool:
    """Whether no value can be of two branches, since their types differ."""
    kinds = [branch.get("type") if isinstance(branch, Mapping) else None for branch in branches]
    names = [kind.replace("integer", "number") for kind in kinds if isinstance(kind, str)]
    return len(names) == len(branches) == len(set(names))
