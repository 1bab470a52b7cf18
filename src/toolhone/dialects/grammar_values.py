"""From the JSON Schema of a tool's arguments to rules of a grammar: `Values`, in a `Style`.

    values = Values(rules, JSON_STYLE, tool)
    values.arguments()      the object of all arguments
    values.of(schema)       a value that this schema allows

Properties come in the order of the schema; optional ones may be absent; undeclared ones appear only
if the schema declares `additionalProperties`. A keyword without a rule here (`pattern`, `allOf`,
...) is passed to the grammar library as JSON Schema if the form is JSON, else it is refused by
name. Not enforced: that keys of an object without declared properties differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from toolhone.dialects.lark import GrammarRules, Size, Style, in_turn, one_of, quoted
from toolhone.errors import DialectError
from toolhone.schema import Json, Tool
from toolhone.schema.tool import find_ref

WAY_OUT = "evaluate without evaluation.constrained"
FORMATS = [
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
]
"""The formats of strings that the grammar library knows; any other is an annotation."""
_INTEGER = "/-?(0|[1-9][0-9]{0,18})/"
_NUMBER = r"/-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?/"
"""Numbers that every reader takes as finite."""
_KEYWORDS: Mapping[str, frozenset[str]] = {
    "string": frozenset(["minLength", "maxLength", "pattern", "format"]),
    "number": frozenset(
        ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]
    ),
    "array": frozenset(
        [
            "items",
            "prefixItems",
            "minItems",
            "maxItems",
            "uniqueItems",
            "contains",
            "minContains",
            "maxContains",
            "unevaluatedItems",
        ]
    ),
    "object": frozenset(
        [
            "properties",
            "required",
            "additionalProperties",
            "patternProperties",
            "propertyNames",
            "minProperties",
            "maxProperties",
            "dependentRequired",
            "dependentSchemas",
            "unevaluatedProperties",
        ]
    ),
}
"""The keywords about values of one type."""
_ANY_TYPE = frozenset(
    ["enum", "const", "anyOf", "oneOf", "allOf", "not", "if", "then", "else", "$ref", "$dynamicRef"]
)
_ASSERTIONS = _ANY_TYPE.union(("type",), *_KEYWORDS.values())
_ARRAY = frozenset(["items", "minItems", "maxItems"])
_OBJECT = frozenset(["properties", "required", "additionalProperties"])
_TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
_DEFINITIONS = ("$defs", "definitions")
Schema = Mapping[str, Json]


@dataclass(frozen=True)
class Field:
    """An argument: its schema, and whether it is required."""

    name: str
    schema: Json
    required: bool


class Values:
    """Rules for the values of one tool in one style."""

    def __init__(self, rules: GrammarRules, style: Style, tool: Tool) -> None:
        self.rules, self.style, self.tool = rules, style, tool
        self._named: dict[str, str] = {}
        """The rules of references, and of any value (`""`)."""
        self.gap = f"{rules.terminal(f'/{style.space}/')}?"
        self.comma = rules.rule(in_turn(self.gap, '","', self.gap))
        root: Json = tool.parameters
        for _ in range(8):
            if isinstance(root, Mapping) and "$ref" in root:
                root = self._at(str(root["$ref"]))
        self._arguments: Schema = root if isinstance(root, Mapping) else {}
        self._definitions = {
            word: tool.parameters[word] for word in _DEFINITIONS if word in tool.parameters
        }

    def arguments(self) -> str:
        """The object of all arguments."""
        if _asserted(self._arguments) - {"type"} - _OBJECT:
            return self._embedded(self._arguments)
        return self._object(self._arguments, closed=True)

    def fields(self) -> list[Field]:
        """The arguments one by one, for forms that write each between marks of its own."""
        schema = self._arguments
        if beyond := _asserted(schema) - _OBJECT - {"type"}:
            raise self.refusal(min(beyond))
        if schema.get("additionalProperties") and not schema.get("properties"):
            raise self.refusal("additionalProperties")
        return self._declared(schema, None)

    def object_of(self, members: Iterable[tuple[str, str]]) -> str:
        """An object with exactly these keys, each with the term for its value."""
        pairs = [in_turn(self.style.key(key), self.gap, term) for key, term in members]
        return in_turn('"{"', self.gap, f" {self.comma} ".join(pairs), self.gap, '"}"')

    def exactly(self, value: Json) -> str:
        """Match one value and no other."""
        if isinstance(value, Mapping):
            return self.rules.rule(
                self.object_of((key, self.exactly(inner)) for key, inner in value.items())
            )
        if isinstance(value, list):
            items = f" {self.comma} ".join(map(self.exactly, value))
            return self.rules.rule(in_turn('"["', self.gap, items, self.gap, '"]"'))
        return self.rules.rule(self.style.literal(self.rules, value))

    def of(self, schema: Json) -> str:
        """A value that this schema allows."""
        cases = self.cases(schema, raw=False)
        if not cases:
            raise self.refusal("false")
        return self.rules.rule(one_of(map(self._case, cases)))

    def cases(self, schema: Json, raw: bool = True) -> list[Schema]:
        """Split the schema into cases: any value (`{}`), `enum`, or one `type`.

        raw: for texts without quotes. Else there are also `$ref`, and `allOf` of what only the
        library compiles.
        """
        if schema is False:
            return []
        asserted = _asserted(schema) if isinstance(schema, Mapping) else frozenset[str]()
        if not asserted:
            return [{}]
        if asserted & {"enum", "const"}:
            return [{"enum": self._listed(schema)}]
        if asserted == {"$ref"}:
            return self.cases(self._at(str(schema["$ref"]))) if raw else [schema]
        for word in ("anyOf", "oneOf"):
            if asserted == {word} and (word == "anyOf" or _disjoint(schema[word])):
                return [case for branch in schema[word] for case in self.cases(branch, raw)]
        if asserted & _ANY_TYPE:
            if raw:
                raise self.refusal(min(asserted & _ANY_TYPE))
            return [{"allOf": [schema]}]
        types = schema.get("type") or _types_of(asserted)
        return [{**schema, "type": kind} for kind in ([types] if isinstance(types, str) else types)]

    def size(self, schema: Schema) -> Size:
        """The least and the greatest length of a string; refuse a pattern."""
        if "pattern" in schema:
            raise self.refusal("pattern")
        return int(schema.get("minLength", 0)), schema.get("maxLength")

    def _case(self, schema: Schema) -> str:
        """A value of one case of a schema."""
        if not schema:
            return self._anything()
        if "allOf" in schema:
            return self._embedded(schema["allOf"][0])
        if "enum" in schema:
            return self.rules.rule(one_of(map(self.exactly, schema["enum"])))
        if "$ref" in schema:
            return self._reference(str(schema["$ref"]))
        kind = schema["type"]
        about = _asserted(schema) & _KEYWORDS.get(kind.replace("integer", "number"), frozenset())
        own = {key: schema[key] for key in schema if key in about or key not in _ASSERTIONS}
        own["type"] = kind
        match kind:
            case "string" if self.style.embeds and about & {"pattern", "format"}:
                return self._embedded({key: own[key] for key in ("type", *sorted(about))})
            case "string":
                return self.style.string(self.rules, self.size(own))
            case "integer" | "number" if about:
                bounds = {key: own[key] for key in ("type", *sorted(about))}
                return self.rules.rule(f"%json {json.dumps(bounds)}")
            case "integer" | "number":
                return self.rules.terminal(_INTEGER if kind == "integer" else _NUMBER)
            case "boolean" | "null":
                return self.rules.rule(one_of(map(quoted, self.style.words(kind))))
            case "array":
                return self._array(own) if about <= _ARRAY else self._embedded(own)
        if about <= _OBJECT:
            return self._object(own, closed=bool(own.get("properties")))
        return self._embedded(own)

    def _array(self, schema: Schema) -> str:
        low, high = int(schema.get("minItems", 0)), schema.get("maxItems")
        if high == 0:
            return self.rules.rule(in_turn('"["', self.gap, '"]"'))
        item = self.of(schema.get("items", True))
        times = f"{{{max(low - 1, 0)},{'' if high is None else int(high) - 1}}}"
        items = f"{item} ({self.comma} {item}){times}"
        return self.rules.rule(
            in_turn('"["', self.gap, items if low else f"({items})?", self.gap, '"]"')
        )

    def _object(self, schema: Schema, closed: bool) -> str:
        """An object; with `closed`, undeclared properties need `additionalProperties`."""
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
        members = join_members(self.rules, pairs, self.comma, more)
        return self.rules.rule(in_turn('"{"', self.gap, members, self.gap, '"}"'))

    def _declared(self, schema: Schema, other: Json) -> list[Field]:
        """The declared properties, then undeclared required ones, if the schema allows others."""
        properties, required = schema.get("properties") or {}, list(schema.get("required") or ())
        unknown = [name for name in required if name not in properties]
        if unknown and other in (None, False):
            raise self.refusal("required", f"it requires {unknown[0]!r}, which it does not declare")
        declared = [
            Field(name, inner, name in required)
            for name, inner in properties.items()
            if inner is not False
        ]
        return [*declared, *(Field(name, other, True) for name in unknown)]

    def _listed(self, schema: Schema) -> list[Json]:
        """The values of an `enum` or `const` that the other keywords of the schema allow."""
        checker = Tool(self.tool.name, "", {**self._definitions, "properties": {"value": schema}})
        listed = schema.get("enum", [schema.get("const")])
        values = [value for value in listed if not checker.problems({"value": value})]
        if not values:
            raise self.refusal("enum" if "enum" in schema else "const", "no value is left")
        return values

    def _reference(self, pointer: str) -> str:
        if pointer not in self._named:
            self._named[pointer] = name = self.rules.reserve()
            self.rules.define(name, self.of(self._at(pointer)))
        return self._named[pointer]

    def _at(self, pointer: str) -> Json:
        target = find_ref(dict(self.tool.parameters), pointer)
        if target is None:
            raise self.refusal("$ref", f"{pointer!r} leads nowhere in the schema")
        return target

    def _anything(self) -> str:
        if "" not in self._named:
            self._named[""] = value = self.rules.reserve()
            pair = in_turn(self.style.other_key(self.rules, ()), self.gap, value)
            words = [
                quoted(word) for kind in ("boolean", "null") for word in self.style.words(kind)
            ]
            body = [self.style.string(self.rules), self.rules.terminal(_NUMBER), *words]
            for (opening, closing), item in (("[]", value), ("{}", pair)):
                items = f"({item} ({self.comma} {item})*)?"
                body.append(in_turn(f'"{opening}"', self.gap, items, self.gap, f'"{closing}"'))
            self.rules.define(value, one_of(body))
        return self._named[""]

    def _embedded(self, schema: Schema) -> str:
        """The schema as the grammar library compiles it; refused in forms that are not JSON."""
        if not self.style.embeds:
            raise self.refusal(min(_asserted(schema) - {"type"} - _OBJECT - _ARRAY, default="type"))
        whole = {
            "x-guidance": {"whitespace_pattern": self.style.space},
            **_for_library({**self._definitions, **schema}),
        }
        return self.rules.rule(f"%json {json.dumps(whole)}")

    def refusal(
        self, keyword: str, reason: str = "this form of calls has no rule for it"
    ) -> DialectError:
        return DialectError(
            f"tool {self.tool.name!r} cannot be constrained: {keyword!r} in its schema: {reason}; "
            f"leave the keyword out, or {WAY_OUT}"
        )


def join_members(
    rules: GrammarRules, items: Sequence[tuple[str, bool]], joint: str, more: str = ""
) -> str:
    """Items in order with `joint` between; those with False are optional; then any `more`."""
    first, after = "", ""
    if more:
        first = rules.rule(f"({in_turn(more, f'({in_turn(joint, more)})*')})?")
        after = rules.rule(f"({in_turn(joint, more)})*")
    for term, required in reversed(items):
        start, follow = in_turn(term, after), in_turn(joint, term, after)
        first = rules.rule(start if required else one_of([start, first or '""']))
        after = rules.rule(follow if required else one_of([follow, after or '""']))
    return first


def _for_library(schema: Json, closes: bool = True) -> Json:
    """Remove formats that the library does not know, and forbid undeclared properties.

    closes: whether they may be forbidden; not where another part of the same schema declares
    properties.
    """
    if isinstance(schema, list):
        return [_for_library(item, closes) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    result: dict[str, Json] = {}
    beside = []
    for key, value in schema.items():
        if key in ("properties", "patternProperties", "dependentSchemas", *_DEFINITIONS):
            result[key] = {name: _for_library(inner) for name, inner in value.items()}
        elif key in _ANY_TYPE - {"enum", "const", "$ref", "$dynamicRef"}:
            beside.append(value)
            open_ = key == "allOf" or "properties" in schema
            result[key] = _for_library(value, closes and not open_)
        elif key in ("items", "prefixItems", "additionalProperties", "contains"):
            result[key] = _for_library(value)
        elif key != "format" or value in FORMATS:
            result[key] = value
    elsewhere = re.search(r'"properties"|\$ref', json.dumps([beside, "$ref" in schema and "$ref"]))
    if closes and schema.get("properties") and not elsewhere:
        result.setdefault("additionalProperties", False)
    return result


def _asserted(schema: Schema) -> frozenset[str]:
    """The keywords of a schema that constrain values."""
    unknown_format = {"format"} if schema.get("format") not in FORMATS else set()
    return frozenset(schema) & _ASSERTIONS - unknown_format


def _types_of(asserted: frozenset[str]) -> Sequence[str]:
    """The type that keywords are about; any type if they are about several."""
    about = [kind for kind, words in _KEYWORDS.items() if asserted & words]
    return about if len(about) == 1 else _TYPES


def _disjoint(branches: Sequence[Json]) -> bool:
    """Whether no value can match two branches, because their types differ."""
    kinds = [branch.get("type") if isinstance(branch, Mapping) else None for branch in branches]
    names = [kind.replace("integer", "number") for kind in kinds if isinstance(kind, str)]
    return len(names) == len(branches) == len(set(names))
