"""From the JSON Schema of a tool's arguments to rules of a grammar: `Values`, in a `Style`.

Properties come in the order of the schema; optional ones may be absent; undeclared ones appear only
if the schema declares `additionalProperties`. A keyword without a rule here (`pattern`, `allOf`,
...) goes to the grammar library as JSON Schema if the form is JSON, else it is refused by name.
Not enforced: that keys of an object without declared properties differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from toolhone.dialects.lark import (
    ANY_SIZE,
    GrammarRules,
    Size,
    exactly,
    found_in,
    in_turn,
    one_of,
    quoted,
    text_until,
    times,
    without,
)
from toolhone.dialects.syntax.literals import write_literal
from toolhone.errors import DialectError
from toolhone.schema import Json, Tool
from toolhone.schema.json_schema import find_ref

WAY_OUT = "evaluate without evaluation.constrained"
FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
"""The formats of strings that the grammar library knows; any other is an annotation."""
WORDS = {"boolean": ("True", "False", "true", "false"), "null": ("None", "null")}
_INTEGER = "/-?(0|[1-9][0-9]{0,18})/"
_NUMBER = r"/-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?/"
"""Numbers that every reader takes as finite."""
_CHARACTER = {mark: rf"([^{mark}\\\x00-\x1F\x7F]|\\[{mark}\\bfnrt])" for mark in "\"'"}
_KEYWORDS = {
    kind: frozenset(words.split())
    for kind, words in {
        "string": "minLength maxLength pattern format",
        "number": "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf",
        "array": "items prefixItems minItems maxItems uniqueItems contains minContains maxContains "
        "unevaluatedItems",
        "object": "properties required additionalProperties patternProperties propertyNames "
        "minProperties maxProperties dependentRequired dependentSchemas unevaluatedProperties",
    }.items()
}
"""The keywords about values of one type."""
_LISTED = frozenset(("enum", "const"))
_COMBINED = frozenset(("anyOf", "oneOf", "allOf", "not", "if", "then", "else"))
_ANY_TYPE = _LISTED | _COMBINED | {"$ref", "$dynamicRef"}
_ASSERTIONS = _ANY_TYPE.union(("type",), *_KEYWORDS.values())
_ARRAY = frozenset(("items", "minItems", "maxItems"))
_OBJECT = frozenset(("properties", "required", "additionalProperties"))
_TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
_DEFINITIONS = ("$defs", "definitions")
Schema = Mapping[str, Json]
Write = Callable[[str, Json], str]
"""Writes the term for a property from its name and schema."""


@dataclass(frozen=True)
class Style:
    """How a form writes values.

    space: the pattern of white space between the parts of a value. marks: what stands around
    strings of a form with bare keys. avoid: a pattern that no string may hold, because the form
    around it would end there.
    """

    space: str = " {1,2}"
    python: bool = False
    marks: tuple[str, str] | None = None
    avoid: str = ""


JSON_STYLE = Style(r"[ \t]{1,2}|\r?\n[ \t]{0,40}")
"""White space as templates and models indent JSON, but never without end."""
PYTHON_STYLE = Style(python=True)


class Values:
    """Rules for the values of one tool in one style."""

    def __init__(self, rules: GrammarRules, style: Style, tool: Tool) -> None:
        self.rules, self.style, self.tool = rules, style, tool
        self._named: dict[str, str] = {}
        """The rules of references, and of any value (`""`)."""
        self.gap = f"{rules.terminal(f'/{style.space}/')}?"
        self.comma = rules.rule(in_turn(self.gap, '","', self.gap))
        self._any_json = style.marks is None and not style.avoid
        """Whether any JSON text is a correct value in this form."""
        self._all_words = style.python or style.marks is not None
        self._arguments: Json = tool.parameters
        for _ in range(8):
            if isinstance(self._arguments, Mapping) and "$ref" in self._arguments:
                self._arguments = self._at(self._arguments)
        if not isinstance(self._arguments, Mapping):
            self._arguments = {}
        self._definitions = {
            word: tool.parameters[word] for word in _DEFINITIONS if word in tool.parameters
        }

    def arguments(self) -> str:
        """The object of all arguments."""
        if _asserted(self._arguments) - {"type"} - _OBJECT:
            return self._embedded(self._arguments)
        return self._object(self._arguments, closed=True)

    def separate_arguments(self, joint: str, write: Write) -> str:
        """The arguments one by one, for forms that `write` each between marks of its own."""
        schema = self._arguments
        if beyond := _asserted(schema) - _OBJECT - {"type"}:
            raise self.refusal(min(beyond))
        if schema.get("additionalProperties") and not schema.get("properties"):
            raise self.refusal("additionalProperties")
        return self._members(self._declared(schema, None), write, joint)

    def object_of(self, members: Iterable[tuple[str, str]]) -> str:
        """An object with exactly these keys, each with the term for its value."""
        pairs = [in_turn(self.key(key), self.gap, term) for key, term in members]
        return self.between("{", f" {self.comma} ".join(pairs), "}")

    def exactly(self, value: Json) -> str:
        """Match one value and no other."""
        if isinstance(value, Mapping):
            pairs = ((key, self.exactly(inner)) for key, inner in value.items())
            return self.rules.rule(self.object_of(pairs))
        if isinstance(value, list):
            items = f" {self.comma} ".join(map(self.exactly, value))
            return self.rules.rule(self.between("[", items, "]"))
        write = self.rules.mark if self.style.marks else quoted
        return self.rules.rule(one_of(write(text) or '""' for text in self._texts(value)))

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
        if asserted & _LISTED:
            return [{"enum": self._listed(schema)}]
        if asserted == {"$ref"}:
            return self.cases(self._at(schema)) if raw else [schema]
        for word in ("anyOf", "oneOf"):
            if asserted == {word}:
                kinds = [
                    one.get("type") if isinstance(one, Mapping) else None for one in schema[word]
                ]
                names = {
                    str(kind).replace("integer", "number")
                    for kind in kinds
                    if isinstance(kind, str)
                }
                # branches of different types, of which no value can match two
                if word == "anyOf" or len(names) == len(kinds):
                    return [case for branch in schema[word] for case in self.cases(branch, raw)]
        if asserted & _ANY_TYPE:
            if raw:
                raise self.refusal(min(asserted & _ANY_TYPE))
            return [{"allOf": [schema]}]
        about = [kind for kind, words in _KEYWORDS.items() if asserted & words]
        types = schema.get("type") or (about if len(about) == 1 else _TYPES)
        return [{**schema, "type": kind} for kind in ([types] if isinstance(types, str) else types)]

    def size(self, schema: Schema) -> Size:
        """The least and the greatest length of a string; refuse a pattern."""
        if "pattern" in schema:
            raise self.refusal("pattern")
        return int(schema.get("minLength", 0)), schema.get("maxLength")

    def string(self, size: Size = ANY_SIZE) -> str:
        """Any string of this size."""
        if self.style.marks is not None:
            opening, closing = self.style.marks
            text = text_until(self.rules, closing, size)
            return self.rules.rule(in_turn(self.rules.mark(opening), text))
        forbidden = [found_in(self.style.avoid)] if self.style.avoid else []
        return self.rules.terminal(without(self._quotes(size), forbidden))

    def key(self, name: str) -> str:
        """A declared key and its colon."""
        return f"({one_of(quoted(f'{text}:') for text in self._key_texts(name))})"

    def _other_key(self, declared: Iterable[str]) -> str:
        """Any key but the declared ones, and its colon."""
        keys = "[A-Za-z_][A-Za-z0-9_.-]{0,80}" if self.style.marks else self._quotes(ANY_SIZE)
        texts = "|".join(exactly(text) for name in declared for text in self._key_texts(name))
        return in_turn(self.rules.terminal(without(keys, [texts] if texts else [])), '":"')

    def _quotes(self, size: Size) -> str:
        """The pattern of a string in quotes."""
        marks = "\"'" if self.style.python else '"'
        return "|".join(f"{mark}{_CHARACTER[mark]}{times(size)}{mark}" for mark in marks)

    def _key_texts(self, name: str) -> list[str]:
        return [name] if self.style.marks else self._texts(name)

    def _texts(self, value: Json) -> list[str]:
        """The ways to write a value that is no list and no object."""
        if self.style.marks and isinstance(value, str):
            return [value.join(self.style.marks)]
        if not self.style.python:
            return [json.dumps(value, ensure_ascii=False)]
        written = write_literal(value)
        if not isinstance(value, str):
            return [written]
        inner = written[1:-1].replace('\\"', '"').replace("'", "\\'")
        return [written, f"'{inner}'"]

    def _words(self, *kinds: str) -> list[str]:
        """The terms for all booleans, or for null."""
        words = [word for kind in kinds for word in WORDS[kind]]
        return [quoted(word) for word in words if self._all_words or word.islower()]

    def between(self, opening: str, inner: str, closing: str) -> str:
        return in_turn(quoted(opening), self.gap, inner, self.gap, quoted(closing))

    def _case(self, schema: Schema) -> str:
        """A value of one case of a schema."""
        if not schema:
            return self._anything()
        if "allOf" in schema:
            return self._embedded(schema["allOf"][0])
        if "enum" in schema:
            return self.rules.rule(one_of(map(self.exactly, schema["enum"])))
        if "$ref" in schema:
            pointer = str(schema["$ref"])
            if pointer not in self._named:
                self._named[pointer] = name = self.rules.reserve()
                self.rules.bodies[name] = self.of(self._at(schema))
            return self._named[pointer]
        kind = schema["type"]
        about = _asserted(schema) & _KEYWORDS.get(kind.replace("integer", "number"), frozenset())
        own = {key: schema[key] for key in schema if key in about or key not in _ASSERTIONS}
        own["type"] = kind
        bounds = {key: own[key] for key in ("type", *sorted(about))}
        match kind:
            case "string" if self._any_json and about & {"pattern", "format"}:
                return self._embedded(bounds)
            case "string":
                return self.string(self.size(own))
            case "integer" | "number" if about:
                return self.rules.rule(f"%json {json.dumps(bounds)}")
            case "integer" | "number":
                return self.rules.terminal(_INTEGER if kind == "integer" else _NUMBER)
            case "boolean" | "null":
                return self.rules.rule(one_of(self._words(kind)))
            case "array" if about <= _ARRAY:
                return self._array(own)
            case "object" if about <= _OBJECT:
                return self._object(own, closed=bool(own.get("properties")))
        return self._embedded(own)

    def _array(self, schema: Schema) -> str:
        low, high = int(schema.get("minItems", 0)), schema.get("maxItems")
        if high == 0:
            return self.rules.rule(in_turn('"["', self.gap, '"]"'))
        item = self.of(schema.get("items", True))
        more = times((max(low - 1, 0), None if high is None else int(high) - 1))
        items = f"{item} ({self.comma} {item}){more}"
        return self.rules.rule(self.between("[", items if low else f"({items})?", "]"))

    def _object(self, schema: Schema, closed: bool) -> str:
        """An object; with `closed`, undeclared properties need `additionalProperties`."""
        other = schema.get("additionalProperties", not closed)
        declared = self._declared(schema, other)
        more = ""
        if other is not False:
            more = in_turn(self._other_key(name for name, *_ in declared), self.gap, self.of(other))

        def pair(name: str, value: Json) -> str:
            return in_turn(self.key(name), self.gap, self.of(value))

        members = self._members(declared, pair, self.comma, more)
        return self.rules.rule(self.between("{", members, "}"))

    def _members(
        self, declared: Sequence[tuple[str, Json, bool]], write: Write, joint: str, more: str = ""
    ) -> str:
        """The declared properties in order with `joint` between; then any `more`."""
        rule, first, after = self.rules.rule, "", ""
        terms = [(write(name, schema), required) for name, schema, required in declared]
        if more:
            first = rule(f"({in_turn(more, f'({in_turn(joint, more)})*')})?")
            after = rule(f"({in_turn(joint, more)})*")
        for term, required in reversed(terms):
            start, follow = in_turn(term, after), in_turn(joint, term, after)
            first = rule(start if required else one_of([start, first or '""']))
            after = rule(follow if required else one_of([follow, after or '""']))
        return first

    def _declared(self, schema: Schema, other: Json) -> list[tuple[str, Json, bool]]:
        """Name, schema and "is required" of declared properties, then of other required ones."""
        properties, required = schema.get("properties") or {}, list(schema.get("required") or ())
        unknown = [name for name in required if name not in properties]
        if unknown and other in (None, False):
            raise self.refusal("required", f"it requires {unknown[0]!r}, which it does not declare")
        allowed = {name: inner for name, inner in properties.items() if inner is not False}
        allowed |= dict.fromkeys(unknown, other)
        return [(name, inner, name in required) for name, inner in allowed.items()]

    def _listed(self, schema: Schema) -> list[Json]:
        """The values of an `enum` or `const` that the other keywords of the schema allow."""
        checker = Tool(self.tool.name, "", {**self._definitions, "properties": {"value": schema}})
        listed = schema.get("enum", [schema.get("const")])
        values = [value for value in listed if not checker.problems({"value": value})]
        if not values:
            raise self.refusal("enum" if "enum" in schema else "const", "no value is left")
        return values

    def _at(self, schema: Schema) -> Json:
        """The schema that a `$ref` names."""
        pointer = str(schema["$ref"])
        target = find_ref(dict(self.tool.parameters), pointer)
        if target is None:
            raise self.refusal("$ref", f"{pointer!r} leads nowhere in the schema")
        return target

    def _anything(self) -> str:
        if "" not in self._named:
            self._named[""] = value = self.rules.reserve()
            pair = in_turn(self._other_key(()), self.gap, value)
            body = [self.string(), self.rules.terminal(_NUMBER), *self._words("boolean", "null")]
            for (opening, closing), item in (("[]", value), ("{}", pair)):
                body.append(self.between(opening, f"({item} ({self.comma} {item})*)?", closing))
            self.rules.bodies[value] = one_of(body)
        return self._named[""]

    def _embedded(self, schema: Schema) -> str:
        """The schema as the grammar library compiles it; refused in forms that are not JSON."""
        if not self._any_json:
            raise self.refusal(min(_asserted(schema) - {"type"} - _OBJECT - _ARRAY, default="type"))
        own = _for_library({**self._definitions, **schema})
        space = {"x-guidance": {"whitespace_pattern": self.style.space}}
        return self.rules.rule(f"%json {json.dumps({**space, **own})}")

    def refusal(
        self, keyword: str, reason: str = "this form of calls has no rule for it"
    ) -> DialectError:
        return DialectError(
            f"tool {self.tool.name!r} cannot be constrained: {keyword!r} in its schema: {reason}; "
            f"leave the keyword out, or {WAY_OUT}"
        )


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
    for key, value in schema.items():
        if key in ("properties", "patternProperties", "dependentSchemas", *_DEFINITIONS):
            result[key] = {name: _for_library(inner) for name, inner in value.items()}
        elif key in _COMBINED:
            open_ = key == "allOf" or "properties" in schema
            result[key] = _for_library(value, closes and not open_)
        elif key in ("items", "prefixItems", "additionalProperties", "contains"):
            result[key] = _for_library(value)
        elif key != "format" or value in FORMATS:
            result[key] = value
    beside = [value for key, value in schema.items() if key in _COMBINED or key == "$ref"]
    elsewhere = "$ref" in schema or re.search(r'"properties"|\$ref', json.dumps(beside))
    if closes and schema.get("properties") and not elsewhere:
        result.setdefault("additionalProperties", False)
    return result


def _asserted(schema: Schema) -> frozenset[str]:
    """The keywords of a schema that constrain values."""
    unknown_format = {"format"} if schema.get("format") not in FORMATS else set()
    return frozenset(schema) & _ASSERTIONS - unknown_format
