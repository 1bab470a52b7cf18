"""The calls of a dialect as rules of a grammar: their form, and one call of one tool in it.

    form = form_of(dialect, control)              # frame and body, and an example of a JSON call
    begins, rest = call_of(form, rules, tool)     # its first text, and the term for what follows

The form is found in the dialect's own rendering of probes (`probe.derive`); a derived syntax has
one already. `grammar` puts calls into turns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from toolhone.dialects.chat_template.dialect import ChatTemplateDialect
from toolhone.dialects.chat_template.turns import without_stop
from toolhone.dialects.grammar_values import (
    JSON_STYLE,
    PYTHON_STYLE,
    WAY_OUT,
    WORDS,
    Schema,
    Style,
    Values,
)
from toolhone.dialects.interface import ParsedReply
from toolhone.dialects.lark import GrammarRules, in_turn, loosely, one_of, quoted, text_until
from toolhone.dialects.probe.derive import FIRST, PROBE_TOOLS, SECOND, TOOL, VALUE, VALUE_2, derive
from toolhone.dialects.prompted import PromptedDialect
from toolhone.dialects.syntax.bodies import (
    JsonCalls,
    LooseObject,
    NameAsKey,
    NamedJson,
    PythonCalls,
)
from toolhone.dialects.syntax.delimited import Body, DelimitedFormat, DelimitedSyntax, is_name
from toolhone.dialects.syntax.literals import read_value
from toolhone.dialects.syntax.model_text import read_after_reasoning
from toolhone.dialects.syntax.parameters import Parameters, typed_value
from toolhone.dialects.syntax.unmarked import Calls, is_keyword_name
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


def form_of(dialect: ChatTemplateDialect | PromptedDialect, control: Collection[str]) -> CallForm:
    """Find the form of calls in this dialect. `DialectError` if no grammar can describe it."""
    one, syntax = _write_turn(dialect, [_ONE]), dialect.syntax
    found = syntax if isinstance(syntax, DelimitedSyntax) else None
    if found is None and one is not None:
        derived = derive(lambda calls: _write_turn(dialect, calls), dialect.behaviour.lead)
        found = next((form for form in derived if form.read(one, _TOOLS).calls == (_ONE,)), None)
    if found is None or one is None:
        wrong = f"no grammar was found for the calls of the dialect {dialect.name!r}"
        raise DialectError(f"{wrong}; {WAY_OUT}")
    if f'\\"{FIRST}' in one:
        wrong = "calls that hold their arguments as text inside JSON have no grammar"
        raise DialectError(f"{wrong}; {WAY_OUT}")
    frame, body, example = found.frame, found.body, None
    if isinstance(body, JsonCalls | NameAsKey):
        starts = [match.start() for match in re.finditer(r"[{\[]", one)]
        values = [read_value(one, start, body.literal).value for start in starts]
        example = next((v for v in values if TOOL in str(v) and VALUE in str(v)), None)
    if isinstance(body, Parameters) and not body.joins:
        frame, body = _whole_marks(frame, body, control)
    both, beside = _write_turn(dialect, [_BOTH]) or "", _write_turn(dialect, [_ONE], VALUE_2) or ""
    ordered = 0 <= both.find(VALUE_2) < both.find(VALUE)
    text_behind = beside.find(VALUE_2) > beside.find(VALUE)
    return CallForm(frame, body, isinstance(syntax, Calls), ordered, text_behind, example)


def _whole_marks(
    frame: DelimitedFormat, body: Parameters, control: Collection[str]
) -> tuple[DelimitedFormat, Parameters]:
    """Move the cut between a value's end mark and what follows, if it splits a control token."""
    follow = [body.opens, frame.after, *([] if frame.between is None else [frame.between])]
    for text in control:
        for cut in range(1, len(text)):
            begin, end = text[:cut], text[cut:]
            if body.closes.endswith(begin) and all(mark.startswith(end) for mark in follow):
                opens, after, *between = (mark.removeprefix(end) for mark in follow)
                middle = frame.middle + end
                moved = replace(
                    frame, middle=middle, after=after, between=next(iter(between), None)
                )
                return moved, replace(body, opens=opens, closes=body.closes + end)
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


def call_of(form: CallForm, rules: GrammarRules, tool: Tool) -> tuple[str, str]:
    """The call of this tool in this form: the text that it begins with, the term for the rest."""
    body, name, middle = form.body, tool.name, form.frame.middle
    allowed = _LINE_NAME if form.lines else _PLAIN_NAME
    any_name = isinstance(body, JsonCalls | NameAsKey)
    if not any_name and not (allowed.fullmatch(name) and is_name(name, form.frame)):
        wrong = f"the form {body.kind!r} has no room for its name"
        raise DialectError(f"tool {name!r} cannot be constrained: {wrong}; {WAY_OUT}")
    if form.ordered:

        def sort_properties(schema: dict[str, Json]) -> dict[str, Json]:
            properties = schema.get("properties")
            ordered = dict(sorted(properties.items())) if isinstance(properties, dict) else None
            return schema if ordered is None else {**schema, "properties": ordered}

        text = json.dumps(dict(tool.parameters))
        tool = replace(tool, parameters=json.loads(text, object_hook=sort_properties))
    literal = getattr(body, "literal", False)
    match body:
        case PythonCalls():
            return f"{name}(", in_turn(_python_arguments(body, rules, tool), '")"')
        case LooseObject():
            style = Style(marks=(body.opening, body.closing))
            return name, Values(rules, style, tool).arguments()
        case Parameters():
            return name + middle, _parameters(body, rules, tool)
    values = Values(rules, PYTHON_STYLE if literal else JSON_STYLE, tool)
    match body:
        case JsonCalls():
            example = form.example[0] if isinstance(form.example, list) else form.example
            return "", _fill(example, (), body, values)
        case NameAsKey():
            return "", values.object_of([(name, values.arguments())])
        case NamedJson(name_first=True):
            return name + middle, values.arguments()
        case NamedJson():
            return "", in_turn(values.arguments(), rules.mark(middle + name))
    raise DialectError(f"calls of the form {body.kind!r} have no grammar; {WAY_OUT}")


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
    if isinstance(value, str) and (_ID.fullmatch(value) or value.isdigit()):
        return in_turn(r'"\""', _ANY_COUNT if value.isdigit() else _ANY_ID, r'"\""')
    if isinstance(value, int) and not isinstance(value, bool):
        return _ANY_COUNT
    return values.exactly(value)


def _python_arguments(body: PythonCalls, rules: GrammarRules, tool: Tool) -> str:
    values = Values(rules, PYTHON_STYLE, tool)

    def without_escapes(quote: str, case: Schema) -> list[str]:
        """The ways to write a value where strings are quoted without escapes."""
        if case.get("type") == "string":
            return [in_turn(quoted(quote), text_until(rules, quote, values.size(case)))]
        listed = case.get("enum", ())
        closed = re.compile(rf"{quote}\s*[,)]")
        texts = [text for text in listed if isinstance(text, str) and not closed.search(text)]
        others = [] if listed and len(texts) == len(listed) else [values.of(case)]
        return [*(quoted(f"{quote}{text}{quote}") for text in texts), *others]

    def write(name: str, schema: Json) -> str:
        value = values.of(schema)
        if body.raw:
            cases = values.cases(schema)
            value = rules.rule(one_of(w for case in cases for w in without_escapes(body.raw, case)))
        if is_keyword_name(name):
            return in_turn(quoted(f"{name}="), value)
        return in_turn('"**{"', values.key(name), values.gap, value, '"}"')

    return values.separate_arguments(rules.terminal("/, ?/"), write)


def _parameters(body: Parameters, rules: GrammarRules, tool: Tool) -> str:
    """Each argument between its marks, the end mark of its value included."""
    values = Values(rules, Style(avoid="" if body.literal else loosely(body.closes)), tool)
    closes = rules.mark(body.closes)

    def untyped(case: Schema) -> list[str]:
        """The ways to write a value and its end mark: strings as they are, all else as JSON."""
        if not case or case.get("type") == "string":
            return [text_until(rules, body.closes, values.size(case))]
        if "enum" in case:
            listed = [
                (v if isinstance(v, str) else json.dumps(v, ensure_ascii=False), v)
                for v in case["enum"]
            ]
            texts = [text for text, value in listed if typed_value(text, case) == value]
            return [in_turn(rules.mark(text), closes) for text in texts]
        if case["type"] in WORDS:
            return [in_turn(f"({one_of(map(quoted, WORDS[case['type']]))})", closes)]
        return [in_turn(values.of(case), closes)]

    def write(name: str, schema: Json) -> str:
        opens = rules.mark(f"{body.opens}{name}{body.separates}")
        if body.literal:
            ways = [in_turn(values.of(schema), closes)]
        else:
            ways = [way for case in values.cases(schema) for way in untyped(case)]
        return in_turn(opens, rules.rule(one_of(ways)))

    return values.separate_arguments(rules.mark(body.joins), write)
