"""The body of calls that write each argument between marks: XML-like forms, lines, attributes.

<function=f><parameter=x>1</parameter></function>
f<arg_key>x</arg_key><arg_value>1</arg_value>
f(x => "a", y => [1])                            (`literal`: values are JSON or Python literals)
<param name="x"><![CDATA[a < b]]></param>        (`cdata`: such a value is what is inside)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable

from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.syntax.delimited import (
    MAX_NAME,
    DelimitedFormat,
    followed,
    is_name,
    loose,
    read_name,
)
from toolhone.dialects.syntax.literals import read_literal, read_value
from toolhone.dialects.syntax.model_text import FoundCalls, decode
from toolhone.schema import Json, Tool, ToolCall
from toolhone.schema.json_schema import find_ref

_CDATA = "<![CDATA["
_ANNOTATIONS = frozenset(["description", "title", "default", "examples"]) | frozenset(
    ["deprecated", "readOnly", "writeOnly", "$comment"]
)
_DECIDES = frozenset(
    ["anyOf", "oneOf", "allOf", "not", "if", "enum", "const", "$ref", "$dynamicRef"]
)
_UNCHECKED = (
    ArithmeticError,
    ValueError,
    TypeError,
    RecursionError,
    re.error,
    Unresolvable,
    jsonschema.exceptions.UnknownType,
)


@dataclass(frozen=True)
class Parameters:
    """`opens` key `separates` value `closes`, repeated with `joins` between.

    A value is text, typed by the tool's schema (`typed_value`); the form's own white space beside
    it is removed once. It may hold the mark that ends values: the mark counts where the next
    argument or the end of the call follows. A call cut off behind a value does not count, because
    more arguments may have followed.
    """

    opens: str
    separates: str
    closes: str
    joins: str = ""
    literal: bool = False
    cdata: bool = False
    kind: str = field(default="parameters", init=False)
    begins: str = field(default="", init=False)

    def typed(self, call: ToolCall, tool: Tool | None) -> ToolCall:
        return call if self.literal else typed_call(call, tool)

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        patterns = _patterns(self, frame)
        named = self._name(text, start, frame, patterns)
        if named is None:
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        name, position = named
        joins = self.joins.strip()
        arguments: dict[str, Json] = {}
        while (key := patterns.key.match(text, position)) is not None:
            value, position, problem = self._value(text, key.end(), frame, patterns)
            if problem is ParseProblem.NONE and key[1] in arguments:
                problem = ParseProblem.BAD_ARGUMENTS
            if problem is not ParseProblem.NONE:
                return FoundCalls(position, (), problem)
            arguments[key[1]] = value
            joint = patterns.joint.match(text, position)
            if joins and (joint is None or patterns.key.match(text, joint.end()) is None):
                break
            position = position if joint is None else joint.end()
        if patterns.opening is not None and patterns.opening.match(text, position) is not None:
            return FoundCalls(position, (), ParseProblem.NOT_A_CALL)
        rest = text[position : position + MAX_NAME].strip()
        if frame.after.strip() and (joins + self.opens.strip()).startswith(rest):
            return FoundCalls(position, (), ParseProblem.UNCLOSED)
        return FoundCalls(position, (ToolCall(name, arguments),))

    def _value(
        self, text: str, start: int, frame: DelimitedFormat, patterns: _Patterns
    ) -> tuple[Json, int, ParseProblem]:
        """Read the value at `start`, the position behind its closing mark, and the problem."""
        if self.literal:
            found = read_value(text, start, literal=True)
            end = patterns.closing.match(text, found.end) if found.ok else None
            if end is None:
                return None, found.end, ParseProblem.NOT_JSON if found.ok else found.problem
            return found.value, end.end(), ParseProblem.NONE
        if self.cdata and text.startswith(_CDATA, start):
            start += len(_CDATA)
            patterns = patterns._replace(closing=patterns.cdata_closing)
        closing = followed(patterns.closing, patterns.behind, text, start, frame.patterns.opening)
        closing = closing or patterns.closing.search(text, start)
        if closing is None:
            return None, len(text), ParseProblem.UNCLOSED
        return text[start : closing.start()], closing.end(), ParseProblem.NONE

    def _name(
        self, text: str, start: int, frame: DelimitedFormat, patterns: _Patterns
    ) -> tuple[str, int] | None:
        """Read a name up to `middle`, or up to the first argument or the end of the call."""
        if frame.middle.strip():
            return read_name(text, start, frame)
        found = patterns.name_end.search(text, start, start + MAX_NAME + 128)
        name = "" if found is None else text[start : found.start()].strip()
        if found is None or not is_name(name, frame):
            return None
        return name, found.end() + len(frame.middle) * text.startswith(frame.middle, found.end())


class _Patterns(NamedTuple):
    """What the marks of a body match in a frame."""

    opening: re.Pattern[str] | None
    """What begins an argument, if that is more than white space."""
    key: re.Pattern[str]
    """What begins an argument, its name, and what separates it from its value."""
    closing: re.Pattern[str]
    """The end of a value: its mark, with or without the form's white space before it."""
    cdata_closing: re.Pattern[str]
    """The same behind the end of a CDATA section."""
    joint: re.Pattern[str]
    behind: re.Pattern[str]
    """What may follow a value's closing mark: the next argument, or the end of the call."""
    name_end: re.Pattern[str]
    """Where a name without an end mark ends: an argument, white space, the end of the call."""


@lru_cache(maxsize=256)
def _patterns(body: Parameters, frame: DelimitedFormat) -> _Patterns:
    """Marks are loose about white space, unless that is all. A key is one line without the mark
    that ends a value; it has no white space if only white space separates arguments.
    """
    opens, separates, closes = body.opens.strip(), body.separates.strip(), body.closes.strip()
    joins = body.joins.strip()
    begin = re.escape(body.opens)
    if opens:
        begin = r"\s*+" + loose(opens) + (r"\s*+" if body.opens[-1:].isspace() else "")
    end = re.escape(body.closes)
    if closes:
        space = re.escape(body.closes[: -len(body.closes.lstrip())])
        end = f"(?:{space})?{loose(closes)}"
    equals = re.escape(body.separates)
    if separates:
        space = re.escape(body.separates[len(body.separates.rstrip()) :])
        equals = rf"\s*+{loose(separates)}(?:{space})?"
    letter = rf"(?!{re.escape(closes)})[^\n]" if closes else r"[^\n]"
    letter = r"\S" if set(body.closes + body.joins + body.opens) <= {" "} else letter
    name = rf"((?:{letter}){{1,{MAX_NAME}}}?)"
    name = r"\s*+" + name if (body.joins + body.opens).strip() else name
    key = rf"{begin}(?!{frame.patterns.follows}){name}{equals}" + (r"\s*+" if body.literal else "")
    joint = r"\s*+" + loose(joins) if joins else re.escape(body.joins)
    ends = [frame.patterns.follows, *filter(None, [re.escape(frame.middle), begin])]
    return _Patterns(
        opening=re.compile(r"\s*+" + loose(opens)) if opens else None,
        key=re.compile(key),
        closing=re.compile(end),
        cdata_closing=re.compile(r"\]\]>\s*+" + end),
        joint=re.compile(joint),
        behind=re.compile(rf"{joint}(?:{key})|{frame.patterns.follows}"),
        name_end=re.compile(rf"(?={'|'.join(f'(?:{mark})' for mark in ends)})"),
    )


def typed_call(call: ToolCall, tool: Tool | None) -> ToolCall:
    """The call with its text arguments read as the tool's schema wants them."""
    parameters: Mapping[str, Json] = {} if tool is None else tool.parameters
    properties = parameters.get("properties")
    schemas = properties if isinstance(properties, Mapping) else {}
    shared = {name: parameters[name] for name in ("$defs", "definitions") if name in parameters}
    arguments = {}
    for key, value in call.arguments.items():
        own = schemas.get(key)
        own = own if isinstance(own, Mapping) else {}
        schema = {**shared, **own} if own.keys() - _ANNOTATIONS else None
        arguments[key] = typed_value(value, schema)
    return ToolCall(call.name, arguments, call.id)


def typed_value(text: Json, schema: Mapping[str, Json] | None) -> Json:
    """Read a text without a type as the schema wants it; return other values unchanged.

    Readings are tried in the order JSON, Python literal, text; the first that the schema allows is
    taken. A JSON or Python string never counts, because these forms write strings as they are:
    `"x"` is a text of three characters. Without a schema, or if no reading fits and the schema
    allows no text, the first reading is taken, so that a wrong value shows its type.
    """
    if not isinstance(text, str):
        return text
    kind = None if schema is None or not _DECIDES.isdisjoint(schema) else schema.get("type")
    if kind == "string":
        return text
    stripped = text.strip()
    found = decode(stripped, 0)
    if not found.ok or found.end < len(stripped):
        found = read_literal(stripped)
    if not found.ok or stripped[found.end :].strip() or isinstance(found.value, str):
        return text
    if schema is None or isinstance(kind, str):
        return found.value
    fits = _validity(json.dumps(schema, sort_keys=True, default=str))
    if fits(found.value) or not (fits(text) or may_be_text(schema, schema)):
        return found.value
    return text


def may_be_text(schema: Json, whole: Mapping[str, Json], depth: int = 0) -> bool:
    """Whether a schema allows some text. `whole` holds its definitions."""
    if not isinstance(schema, Mapping) or depth > 8:
        return bool(schema)
    if "enum" in schema or "const" in schema:
        listed = schema.get("enum", [schema.get("const")])
        return isinstance(listed, list) and any(isinstance(value, str) for value in listed)
    if isinstance(schema.get("$ref"), str):
        return may_be_text(find_ref(dict(whole), schema["$ref"]), whole, depth + 1)
    kinds = schema.get("type")
    if kinds is not None and "string" not in (kinds if isinstance(kinds, list) else [kinds]):
        return False
    choices = [schema[word] for word in ("anyOf", "oneOf") if isinstance(schema.get(word), list)]
    return all(
        any(may_be_text(choice, whole, depth + 1) for choice in several) for several in choices
    )


@lru_cache(maxsize=4096)
def _validity(schema: str) -> Callable[[Json], bool]:
    """A check of values against this schema; what cannot be checked is invalid."""
    validator = jsonschema.Draft202012Validator(json.loads(schema), registry=Registry())

    def valid(value: Json) -> bool:
        try:
            return bool(validator.is_valid(value))
        except _UNCHECKED:
            return False

    return valid
