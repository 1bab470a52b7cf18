"""The calls of a dialect as rules of a grammar: their form, and one call of one tool in it.

    form = form_of(dialect, control)     # frame and body, and an example of a JSON call
    call_of(form, rules, tool)           # its first text, and the term for what follows

The form is found in the dialect's own rendering of probes (`probe.derive`); a derived syntax has
one already. `grammar` puts calls into turns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from toolhone.dialects.base import ParsedReply
from toolhone.dialects.chat_template.dialect import ChatTemplateDialect
from toolhone.dialects.chat_template.turns import without_stop
from toolhone.dialects.grammar_values import WAY_OUT, Field, Schema, Values, join_members
from toolhone.dialects.lark import (
    JSON_STYLE,
    PYTHON_STYLE,
    GrammarRules,
    Style,
    in_turn,
    loosely,
    one_of,
    quoted,
    text_until,
)
from toolhone.dialects.probe.derive import FIRST, PROBE_TOOLS, SECOND, TOOL, VALUE, VALUE_2, derive
from toolhone.dialects.prompted import PromptedDialect
from toolhone.dialects.syntax.delimited import Body, DelimitedFormat, DelimitedSyntax, is_name
from toolhone.dialects.syntax.json_bodies import JsonCalls, NameAsKey, NamedJson
from toolhone.dialects.syntax.literals import read_value
from toolhone.dialects.syntax.loose_object import LooseObject
from toolhone.dialects.syntax.model_text import read_after_reasoning
from toolhone.dialects.syntax.parameters import Parameters
from toolhone.dialects.syntax.python_calls import Calls, PythonCalls, is_keyword_name
from toolhone.dialects.syntax.untyped_values import typed_value
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall

_ONE = ToolCall(TOOL, {FIRST: VALUE})
_BOTH = ToolCall(TOOL, {FIRST: VALUE, SECOND: VALUE_2})
_TOOLS = tuple(replace(tool, description="Does it.") for tool in PROBE_TOOLS)
_ID = re.compile(r"call\d{5}")
_ANY_ID, _ANY_COUNT = "/[A-Za-z0-9_.:-]{1,40}/", "/0|[1-9][0-9]{0,2}/"
_PLAIN_NAME = re.compile(r"[^\s(){}\[\],=\"'<>|]{1,256}")
_LINE_NAME = re.compile(r"[^\W\d][\w.:/-]*")


@dataclass(frozen=True)
class CallForm:
    """How a dialect writes calls.

    lines: each call is a line of its own, without marks. ordered: arguments are sorted by name.
    text_behind: the text of a turn comes behind its calls. example: the JSON (or Python) value that
    holds one call, a list if all calls stand in one.
    """

    frame: DelimitedFormat
    body: Body
    lines: bool
    ordered: bool
    text_behind: bool
    example: Json = None


@dataclass(frozen=True)
class CallRule:
    """A call of one tool: the text that it begins with, and the term for the rest."""

    begins: str
    rest: str


def form_of(dialect: ChatTemplateDialect | PromptedDialect, control: Collection[str]) -> CallForm:
    """Find the form of calls in this dialect. `DialectError` if no grammar can describe it."""
    one, syntax = _write_turn(dialect, [_ONE]), dialect.syntax
    found = syntax if isinstance(syntax, DelimitedSyntax) else None
    if found is None and one is not None:
        derived = derive(lambda calls: _write_turn(dialect, calls), dialect.behaviour.lead)
        found = next((form for form in derived if form.read(one, _TOOLS).calls == (_ONE,)), None)
    if found is None or one is None:
        raise DialectError(
            f"no grammar was found for the calls of the dialect {dialect.name!r}; {WAY_OUT}"
        )
    if f'\\"{FIRST}' in one:
        raise DialectError(
            f"calls that hold their arguments as text inside JSON have no grammar; {WAY_OUT}"
        )
    example = None
    if isinstance(found.body, JsonCalls | NameAsKey):
        starts = [match.start() for match in re.finditer(r"[{\[]", one)]
        values = [read_value(one, start, found.body.literal).value for start in starts]
        example = next((v for v in values if TOOL in str(v) and VALUE in str(v)), None)
    frame, body = _whole_marks(found.frame, found.body, control)
    both, beside = _write_turn(dialect, [_BOTH]) or "", _write_turn(dialect, [_ONE], VALUE_2) or ""
    ordered = 0 <= both.find(VALUE_2) < both.find(VALUE)
    text_behind = beside.find(VALUE_2) > beside.find(VALUE)
    return CallForm(frame, body, isinstance(syntax, Calls), ordered, text_behind, example)


def _whole_marks(
    frame: DelimitedFormat, body: Body, control: Collection[str]
) -> tuple[DelimitedFormat, Body]:
    """Move the cut between a value's end mark and what follows, if it splits a control token."""
    if not isinstance(body, Parameters) or body.joins:
        return frame, body
    follow = [body.opens, frame.after, *([] if frame.between is None else [frame.between])]
    for begin, end in [(text[:k], text[k:]) for text in control for k in range(1, len(text))]:
        if body.closes.endswith(begin) and all(mark.startswith(end) for mark in follow):
            k = len(end)
            between = None if frame.between is None else frame.between[k:]
            moved = replace(
                frame, middle=frame.middle + end, after=frame.after[k:], between=between
            )
            return moved, replace(body, opens=body.opens[k:], closes=body.closes + end)
    return frame, body


def _write_turn(
    dialect: ChatTemplateDialect | PromptedDialect,
    calls: Sequence[ToolCall],
    content: str | None = None,
) -> str | None:
    """The text of a turn without stop mark and reasoning; None if the dialect refuses it."""
    turn = Message("assistant", content, None, tuple(calls))
    try:
        spans = dialect.render(Conversation((Message("user", "question"), turn), _TOOLS))[-1]
    except DialectError:
        return None
    behaviour = dialect.behaviour
    text = without_stop("".join(span.text for span in spans if span.trained), behaviour.stop)
    if behaviour.opens_thought and not text.lstrip().startswith(behaviour.thought.open):
        text = behaviour.thought.open + text
    text = read_after_reasoning(text, ParsedReply, behaviour.thought).content or ""
    cut = text.rstrip().removesuffix(behaviour.trail)
    return text if isinstance(dialect.syntax, DelimitedSyntax) or cut == text.rstrip() else cut


def call_of(form: CallForm, rules: GrammarRules, tool: Tool) -> CallRule:
    """The call of this tool in this form."""
    body, name = form.body, tool.name
    _check_name(form, name)
    if form.ordered:
        tool = replace(tool, parameters=_sort_properties(tool.parameters))
    json_style = PYTHON_STYLE if getattr(body, "literal", False) else JSON_STYLE
    match body:
        case JsonCalls():
            example = form.example[0] if isinstance(form.example, list) else form.example
            return CallRule("", _fill(example, (), body, Values(rules, json_style, tool)))
        case NameAsKey():
            values = Values(rules, json_style, tool)
            return CallRule("", values.object_of([(name, values.arguments())]))
        case NamedJson():
            arguments = Values(rules, json_style, tool).arguments()
            if body.name_first:
                return CallRule(name + form.frame.middle, arguments)
            return CallRule("", in_turn(arguments, *rules.terms(form.frame.middle + name)))
        case PythonCalls():
            arguments = _python_arguments(body, Values(rules, PYTHON_STYLE, tool))
            return CallRule(f"{name}(", in_turn(arguments, '")"'))
        case LooseObject():
            style = Style(marks=(body.opening, body.closing))
            return CallRule(name, Values(rules, style, tool).arguments())
        case Parameters():
            return CallRule(name + form.frame.middle, _parameters(body, rules, tool))
    raise DialectError(f"calls of the form {body.kind!r} have no grammar; {WAY_OUT}")


def _check_name(form: CallForm, name: str) -> None:
    """Refuse a name that would not be read back; JSON has room for any."""
    allowed = _LINE_NAME if form.lines else _PLAIN_NAME
    if isinstance(form.body, JsonCalls | NameAsKey):
        return
    if not allowed.fullmatch(name) or not is_name(name, form.frame):
        raise DialectError(
            f"tool {name!r} cannot be constrained: the form {form.body.kind!r} "
            f"has no room for its name; {WAY_OUT}"
        )


def _sort_properties(schema: Json) -> Json:
    """The schema with the properties of every object sorted by name."""
    if isinstance(schema, list):
        return [_sort_properties(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    inner = {key: _sort_properties(value) for key, value in schema.items()}
    if isinstance(inner.get("properties"), dict):
        inner["properties"] = dict(sorted(inner["properties"].items()))
    return inner


def _fill(value: Json, path: tuple[str, ...], body: JsonCalls, values: Values) -> str:
    """The example of a call, with the tool's name and arguments in their places."""
    if path == body.name:
        return values.exactly(values.tool.name)
    if path == body.arguments:
        return values.arguments()
    if isinstance(value, Mapping):
        return values.object_of(
            (key, _fill(inner, (*path, key), body, values)) for key, inner in value.items()
        )
    if isinstance(value, str) and _ID.fullmatch(value):
        return in_turn(r'"\""', _ANY_ID, r'"\""')
    if isinstance(value, str) and value.isdigit():
        return in_turn(r'"\""', _ANY_COUNT, r'"\""')
    if isinstance(value, int) and not isinstance(value, bool):
        return _ANY_COUNT
    return values.exactly(value)


def _python_arguments(body: PythonCalls, values: Values) -> str:
    items: list[tuple[str, bool]] = []
    for field in values.fields():
        value = values.of(field.schema)
        if body.raw:
            cases = values.cases(field.schema)
            ways = [way for case in cases for way in _unescaped_ways(body.raw, values, case)]
            value = values.rules.rule(one_of(ways))
        if is_keyword_name(field.name):
            term = in_turn(quoted(f"{field.name}="), value)
        else:
            term = in_turn('"**{"', values.style.key(field.name), values.gap, value, '"}"')
        items.append((term, field.required))
    return join_members(values.rules, items, values.rules.terminal("/, ?/"))


def _unescaped_ways(quote: str, values: Values, case: Schema) -> list[str]:
    """The ways to write a value where strings are quoted without escapes."""
    if case.get("type") == "string":
        return [in_turn(quoted(quote), text_until(values.rules, quote, values.size(case)))]
    listed = case.get("enum", ())
    texts = [
        value
        for value in listed
        if isinstance(value, str) and not re.search(rf"{quote}\s*[,)]", value)
    ]
    others = [] if listed and len(texts) == len(listed) else [values.of(case)]
    return [*(quoted(f"{quote}{text}{quote}") for text in texts), *others]


def _parameters(body: Parameters, rules: GrammarRules, tool: Tool) -> str:
    """Each argument between its marks, the end mark of its value included."""
    avoid = "" if body.literal else loosely(body.closes)
    values = Values(rules, Style(avoid=avoid), tool)
    items: list[tuple[str, bool]] = []
    for field in values.fields():
        opens = rules.terms(f"{body.opens}{field.name}{body.separates}")
        ways = (
            [in_turn(values.of(field.schema), *rules.terms(body.closes))]
            if body.literal
            else _untyped_ways(body, values, field)
        )
        items.append((in_turn(*opens, rules.rule(one_of(ways))), field.required))
    return join_members(rules, items, in_turn(*rules.terms(body.joins)) if body.joins else "")


def _untyped_ways(body: Parameters, values: Values, field: Field) -> list[str]:
    """The ways to write a value and its end mark: strings as they are, all else as JSON."""
    rules = values.rules
    closes = rules.terms(body.closes)
    ways: list[str] = []
    for case in values.cases(field.schema):
        if not case:
            ways.append(text_until(rules, body.closes))
        elif "enum" in case:
            for value in case["enum"]:
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                if typed_value(text, case) == value:
                    ways.append(in_turn(*rules.terms(text), *closes))
        elif case["type"] == "string":
            ways.append(text_until(rules, body.closes, values.size(case)))
        elif case["type"] in ("boolean", "null"):
            words = PYTHON_STYLE.words(case["type"])
            ways.append(in_turn(f"({one_of(map(quoted, words))})", *closes))
        else:
            ways.append(in_turn(values.of(case), *closes))
    return ways
