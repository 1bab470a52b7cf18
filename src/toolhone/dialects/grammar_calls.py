"""The calls of a dialect as rules of a grammar: what form they have, and one call of one tool in that form.

    form = form_of(dialect)                 frame and body, and what the dialect writes for one call where the body is JSON
    call_of(form, rules, tool)              `Call(lead_in, rest)`: a text, and the rule for what follows it

The form is looked up in the dialect's own rendering of two probes (`derive`); of a derived syntax it is known. `grammar` puts calls
into turns.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.dialects.chat_template.render import PROBE_TOOLS, ChatTemplateDialect
from toolhone.dialects.chat_template.turns import without_stop
from toolhone.dialects.grammar_styles import JsonStyle, LooseStyle, PythonStyle, Style, text_until
from toolhone.dialects.grammar_values import Field, Values, members
from toolhone.dialects.lark import GrammarRules, in_turn, loosely, one_of, quoted
from toolhone.dialects.probe.derive import FIRST, SECOND, TOOL, VALUE, VALUE_2, derive
from toolhone.dialects.prompted import PromptedDialect
from toolhone.dialects.syntax.delimited import Body, DelimitedFormat, DelimitedSyntax, is_name
from toolhone.dialects.syntax.json_bodies import JsonCalls, NameAsKey, NamedJson
from toolhone.dialects.syntax.literals import read_value
from toolhone.dialects.syntax.loose_object import LooseObject
from toolhone.dialects.syntax.model_text import read_after_reasoning
from toolhone.dialects.syntax.parameters import Parameters
from toolhone.dialects.syntax.python_calls import Calls, PythonCalls
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
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_COMMA = "/, ?/"
WAY_OUT = "evaluate without evaluation.constrained"


@dataclass(frozen=True)
class CallForm:
    """How a dialect writes calls.

    `lines`: each stands on a line of its own, without marks. `ordered`: arguments are sorted by name. `text_behind`: the text of a
    turn stands behind its calls. `example`: the JSON (or Python) value that stands for one call; None where the form has none.
    """

    frame: DelimitedFormat
    body: Body
    lines: bool
    ordered: bool
    text_behind: bool
    example: Json = None

    @property
    def is_list(self) -> bool:
        """Whether all calls stand in one list."""
        return isinstance(self.example, list)


@dataclass(frozen=True)
class Call:
    """A call of one tool: the text that it begins with, and the term for the rest."""

    begins: str
    rest: str


def form_of(dialect: ChatTemplateDialect | PromptedDialect, control: Collection[str]) -> CallForm:
    """The form of calls in this dialect. `DialectError` where it has none that a grammar can say."""
    one = _written(dialect, [_ONE])
    if isinstance(dialect.syntax, DelimitedSyntax):
        found: DelimitedSyntax | None = dialect.syntax
    else:
        proposed = derive(lambda calls: _written(dialect, calls), dialect.behaviour.lead)
        found = next(
            (
                framed
                for framed in proposed
                if one is not None and framed.read(one, _TOOLS).calls == (_ONE,)
            ),
            None,
        )
    if found is None or one is None:
        raise DialectError(
            f"no grammar was found for the calls of the dialect {dialect.name!r}; {WAY_OUT}"
        )
    if f'\\"{FIRST}' in one:
        raise DialectError(
            f"calls that hold their arguments as text inside JSON have no grammar; {WAY_OUT}"
        )
    literal = getattr(found.body, "literal", False)
    example = None
    if isinstance(found.body, JsonCalls | NameAsKey):
        example = next(
            (
                value
                for value in _values(one, literal)
                if TOOL in str(value) and VALUE in str(value)
            ),
            None,
        )
    frame, body = _whole_marks(found.frame, found.body, control)
    both = _written(dialect, [_BOTH]) or ""
    ordered = 0 <= both.find(VALUE_2) < both.find(VALUE)
    beside = _written(dialect, [_ONE], VALUE_2) or ""
    return CallForm(
        frame,
        body,
        isinstance(dialect.syntax, Calls),
        ordered,
        beside.find(VALUE_2) > beside.find(VALUE),
        example,
    )


def _whole_marks(
    frame: DelimitedFormat, body: Body, control: Collection[str]
) -> tuple[DelimitedFormat, Body]:
    """The same marks, cut in other places: where no control token is cut in two by what ends a value and what follows it."""
    if not isinstance(body, Parameters) or body.joins:
        return frame, body
    cuts = [(text[:k], text[k:]) for text in control for k in range(1, len(text))]
    for begin, end in cuts:
        follow = [body.opens, frame.after, *([] if frame.between is None else [frame.between])]
        if body.closes.endswith(begin) and all(mark.startswith(end) for mark in follow):
            k = len(end)
            between = None if frame.between is None else frame.between[k:]
            moved = replace(
                frame, middle=frame.middle + end, after=frame.after[k:], between=between
            )
            return moved, replace(body, opens=body.opens[k:], closes=body.closes + end)
    return frame, body


def _values(text: str, literal: bool) -> Iterator[Json]:
    for start in (found.start() for found in re.finditer(r"[{\[]", text)):
        found = read_value(text, start, literal)
        if found.problem is ParseProblem.NONE:
            yield found.value


def _written(
    dialect: ChatTemplateDialect | PromptedDialect,
    calls: Sequence[ToolCall],
    content: str | None = None,
) -> str | None:
    """The text of a turn with these calls, without stop mark and reasoning; None where the dialect refuses it."""
    asked = Conversation(
        (Message("user", "question"), Message("assistant", content, None, tuple(calls))), _TOOLS
    )
    try:
        spans = dialect.render(asked)[-1]
    except DialectError:
        return None
    habits = dialect.behaviour
    text = without_stop("".join(span.text for span in spans if span.trained), habits.stop)
    if habits.opens_thought and not text.lstrip().startswith(habits.thought.open):
        text = habits.thought.open + text
    text = read_after_reasoning(text, ParsedReply, habits.thought).content or ""
    if (
        habits.trail
        and text.rstrip().endswith(habits.trail)
        and not isinstance(dialect.syntax, DelimitedSyntax)
    ):
        text = text.rstrip().removesuffix(habits.trail)
    return text


def call_of(form: CallForm, rules: GrammarRules, tool: Tool) -> Call:
    """The call of this tool in this form."""
    _check_name(form, tool)
    tool = replace(tool, parameters=_sorted(tool.parameters)) if form.ordered else tool
    body, name = form.body, tool.name
    match body:
        case JsonCalls():
            return Call("", _json_call(form, body, Values(rules, _json_style(body.literal), tool)))
        case NameAsKey():
            values = Values(rules, _json_style(body.literal), tool)
            return Call("", values.object_of([(name, values.arguments())]))
        case NamedJson():
            arguments = Values(rules, _json_style(body.literal), tool).arguments()
            if body.name_first:
                return Call(name + form.frame.middle, arguments)
            return Call("", in_turn(arguments, *rules.terms(form.frame.middle + name)))
        case PythonCalls():
            return Call(
                f"{name}(",
                in_turn(_python_arguments(body, Values(rules, PythonStyle(), tool)), '")"'),
            )
        case LooseObject():
            return Call(
                name, Values(rules, LooseStyle(body.opening, body.closing), tool).arguments()
            )
        case Parameters():
            return Call(name + form.frame.middle, _parameters(body, rules, tool))
    raise DialectError(f"calls of the form {body.kind!r} have no grammar; {WAY_OUT}")


def _check_name(form: CallForm, tool: Tool) -> None:
    """Refuse a name that would not be read back; JSON has room for any."""
    if isinstance(form.body, JsonCalls | NameAsKey):
        return
    allowed = _LINE_NAME if form.lines else _PLAIN_NAME
    if not allowed.fullmatch(tool.name) or not is_name(tool.name, form.frame):
        raise DialectError(
            f"tool {tool.name!r} cannot be constrained: the form {form.body.kind!r} has no room for its name; {WAY_OUT}"
        )


def _sorted(schema: Json) -> Json:
    """The schema with the properties of every object in the order of their names."""
    if isinstance(schema, list):
        return [_sorted(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    inner = {key: _sorted(value) for key, value in schema.items()}
    properties = inner.get("properties")
    return (
        {**inner, "properties": dict(sorted(properties.items()))}
        if isinstance(properties, dict)
        else inner
    )


def _json_style(literal: bool) -> Style:
    return PythonStyle() if literal else JsonStyle()


def _json_call(form: CallForm, body: JsonCalls, values: Values) -> str:
    """The object that the dialect writes for a call, with this tool's name and arguments in their places."""
    example = form.example[0] if isinstance(form.example, list) else form.example
    return _filled(example, (), body, values)


def _filled(value: Json, path: tuple[str, ...], body: JsonCalls, values: Values) -> str:
    if path == body.name:
        return values.exactly(values.tool.name)
    if path == body.arguments:
        return values.arguments()
    if isinstance(value, Mapping):
        return values.object_of(
            [(key, _filled(inner, (*path, key), body, values)) for key, inner in value.items()]
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
            value = values.rules.rule(
                one_of(
                    [
                        way
                        for case in values.cases(field.schema)
                        for way in _raw_ways(body.raw, values, case)
                    ]
                )
            )
        plain = _IDENTIFIER.fullmatch(field.name) and not keyword.iskeyword(field.name)
        key = f"{field.name}=" if plain else ""
        term = (
            in_turn(quoted(key), value)
            if key
            else in_turn('"**{"', values.style.key(field.name), values.gap, value, '"}"')
        )
        items.append((term, field.required))
    return members(values.rules, items, values.rules.terminal(_COMMA))


def _raw_ways(quote: str, values: Values, case: Mapping[str, Json]) -> list[str]:
    """The ways to write a value where texts stand between quotes without escapes."""
    if case.get("type") == "string":
        return [in_turn(quoted(quote), text_until(values.rules, quote, values.size(case)))]
    raw = [
        value
        for value in case.get("enum", ())
        if isinstance(value, str) and not re.search(rf"{quote}\s*[,)]", value)
    ]
    others = [] if "enum" in case and len(raw) == len(case["enum"]) else [values.of(case)]
    return [*(quoted(f"{quote}{value}{quote}") for value in raw), *others]


def _parameters(body: Parameters, rules: GrammarRules, tool: Tool) -> str:
    """Each argument between its marks, the end mark of its value included."""
    avoid = "" if body.literal else loosely(body.closes)
    values = Values(rules, JsonStyle(avoid, " {1,2}"), tool)
    closes = in_turn(*rules.terms(body.closes))
    items: list[tuple[str, bool]] = []
    for field in values.fields():
        opens = rules.terms(f"{body.opens}{field.name}{body.separates}")
        value = (
            in_turn(values.of(field.schema), closes)
            if body.literal
            else _raw_value(body, values, field)
        )
        items.append((in_turn(*opens, value), field.required))
    return members(rules, items, in_turn(*rules.terms(body.joins)) if body.joins else "")


def _raw_value(body: Parameters, values: Values, field: Field) -> str:
    """The text of a value and its end mark: strings as they are, all else as JSON."""
    rules = values.rules
    closes = in_turn(*rules.terms(body.closes))
    ways: list[str] = []
    for case in values.cases(field.schema):
        if not isinstance(case, Mapping) or not case:
            ways.append(text_until(rules, body.closes))
        elif "enum" in case:
            texts = [
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                for value in case["enum"]
            ]
            read = [
                text
                for text, value in zip(texts, case["enum"], strict=True)
                if typed_value(text, case) == value
            ]
            ways += [in_turn(*rules.terms(text), closes) for text in read]
        elif case["type"] == "string":
            ways.append(text_until(rules, body.closes, values.size(case)))
        elif case["type"] in ("boolean", "null"):
            words = (
                ("true", "True", "false", "False")
                if case["type"] == "boolean"
                else ("null", "None")
            )
            ways.append(in_turn(f"({one_of(list(map(quoted, words)))})", closes))
        else:
            ways.append(in_turn(values.of(case), closes))
    return rules.rule(one_of(ways))
