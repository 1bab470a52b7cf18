"""Call syntaxes: exact text, round trip, malformed texts, and any text at all."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from support.dialect_cases import (
    MALFORMED,
    MESSAGES,
    ONE,
    REFUSED,
    SYNTAX_NAMES,
    TEXTS,
    TOOLS,
    TWO,
    call,
)
from support.dialect_models import random_calls, random_text, random_value
from support.framed_cases import FORMS, Calls
from support.hostile_texts import adversarial, pieces_of
from support.hostile_texts import random_text as hostile_text
from toolhone.dialects.chat_template.dialect import check_reading
from toolhone.dialects.choose import open_syntax
from toolhone.dialects.interface import ParsedReply, ParseProblem, Syntax
from toolhone.dialects.syntax import model_text
from toolhone.dialects.syntax.bodies import JsonCalls
from toolhone.dialects.syntax.delimited import DelimitedFormat, DelimitedSyntax
from toolhone.dialects.syntax.parameters import typed_call, typed_value
from toolhone.errors import DialectError
from toolhone.schema import Message, Tool, ToolCall
from toolhone.schema.json_input import ARGUMENTS

EVERY_MESSAGE = [
    pytest.param(name, *message, id=f"{name}-{message[0]}")
    for name in SYNTAX_NAMES
    for message in MESSAGES
]
SHAPE = ParseProblem.NOT_A_CALL
EVERY_MALFORMED = [(name, *case) for name in SYNTAX_NAMES for case in MALFORMED[name]]


def write_and_check(syntax: Syntax, message: Message) -> None:
    text = syntax.write(message.content, message.tool_calls)
    check_reading(message, syntax.read(text), text)


@pytest.mark.parametrize(("name", "case", "content", "calls"), EVERY_MESSAGE)
def test_each_message_has_one_exact_text_and_is_read_back_from_it(
    name: str, case: str, content: str | None, calls: tuple[ToolCall, ...]
) -> None:
    syntax = open_syntax(name)
    wanted = TEXTS[name][case]
    if wanted == REFUSED:
        with pytest.raises(DialectError):
            write_and_check(syntax, Message("assistant", content, None, calls))
        return
    assert syntax.write(content, calls) == wanted
    assert syntax.read(wanted) == ParsedReply(content, calls)


@pytest.mark.parametrize(("name", "text", "problem", "names", "content"), EVERY_MALFORMED)
def test_a_malformed_text_has_its_problem_and_keeps_what_can_be_read(
    name: str, text: str, problem: ParseProblem, names: tuple[str, ...], content: str | None
) -> None:
    reply = open_syntax(name).read(text)
    assert (reply.problem, tuple(one.name for one in reply.calls), reply.content) == (
        problem,
        names,
        content,
    )


@pytest.mark.parametrize("name", SYNTAX_NAMES)
def test_any_calls_are_read_back_from_what_is_written(name: str) -> None:
    syntax = open_syntax(name)
    rng = random.Random(7)
    for _ in range(300):
        calls = random_calls(rng)
        assert syntax.read(syntax.write(None, calls)) == ParsedReply(None, calls)


@pytest.mark.parametrize("name", SYNTAX_NAMES)
def test_text_beside_calls_is_read_back_or_refused(name: str) -> None:
    syntax = open_syntax(name)
    rng = random.Random(8)
    kept = 0
    for _ in range(300):
        message = Message("assistant", random_text(rng, rng.randrange(8)), None, random_calls(rng))
        try:
            write_and_check(syntax, message)
        except DialectError:
            continue
        kept += 1
    assert kept >= (1 if name in ("json", "bare_json", "bfcl") else 150)


@pytest.mark.parametrize("name", SYNTAX_NAMES)
def test_reading_never_raises_and_takes_time_in_proportion(name: str) -> None:
    syntax = open_syntax(name)
    rng = random.Random(9)
    began = time.process_time()
    for _ in range(20_000):
        syntax.read(random_text(rng, rng.randrange(25)))
    for unit in (
        "[TOOL_CALL]",
        "<tool_call>",
        "{",
        "[",
        "(",
        '"',
        "\\",
        "f(a=",
        "f(a=[",
        "f(**{",
        '[TOOL_CALL]{"a":"\\"',
        "\n",
        " ",
        "-",
    ):
        for start in (
            "",
            "f(a=",
            "<tool_call>",
            '{"name": ',
            '[TOOL_CALL]{"name":"f","parameters":',
        ):
            syntax.read(start + unit * (100_000 // len(unit)))
    assert time.process_time() - began < 10


@pytest.mark.parametrize("name", SYNTAX_NAMES)
def test_reasoning_in_front_is_kept_apart_from_what_follows(name: str) -> None:
    syntax = open_syntax(name)
    text = syntax.write(None, ONE)
    assert syntax.read(f"<think>\nf(a=1) {{\n</think>\n\n{text}") == ParsedReply(
        None, ONE, "f(a=1) {"
    )
    assert syntax.read(f"<think>\n\n</think>\n\n{text}") == ParsedReply(None, ONE)
    assert syntax.read(f"<think>\n{text}") == ParsedReply(None, (), text, ParseProblem.UNCLOSED)


@pytest.mark.parametrize("name", SYNTAX_NAMES)
def test_instructions_name_every_tool_and_show_the_form(name: str) -> None:
    text = open_syntax(name).instructions(TOOLS)
    assert all(tool.name in text and tool.description in text for tool in TOOLS)
    assert "calculator" not in open_syntax(name).instructions(())


def test_results_show_the_tool_and_json_as_json() -> None:
    message = Message("tool", '{"a": 1}', name="f")
    shown = {name: open_syntax(name).result(message) for name in ("json", "calls", "tagged")}
    assert shown == {
        "json": '{"tool": "f", "result": {"a": 1}}',
        "calls": 'f -> {"a": 1}',
        "tagged": '[TOOL_RESULT]{"a": 1}[/TOOL_RESULT]',
    }
    assert open_syntax("json").result(Message("tool", "two\nlines")) == '{"result": "two\\nlines"}'


@pytest.mark.parametrize(
    ("name", "said"),
    [("calls", call("two words")), ("calls", call("f(x)")), ("json", call("f", x=float("nan")))],
)
def test_a_call_that_the_syntax_cannot_say_is_refused(name: str, said: ToolCall) -> None:
    with pytest.raises(DialectError):
        open_syntax(name).write(None, (said,))


def test_argument_names_that_python_cannot_write_are_given_as_a_mapping() -> None:
    said = (ToolCall("f", {"a": 1, "class": 2, "my-arg": "x"}),)
    text = open_syntax("calls").write(None, said)
    assert text == 'f(a=1, **{"class": 2, "my-arg": "x"})'
    assert open_syntax("calls").read(text).calls == said


SAID = {name: (content, calls) for name, content, calls in MESSAGES}
EVERY_TEXT = [
    pytest.param(name, case, id=f"{name}-{case}")
    for name, form in FORMS.items()
    for case in form.texts
]
EVERY_WRONG = [(name, *case) for name, form in FORMS.items() for case in form.malformed]


@pytest.mark.parametrize(("form", "case"), EVERY_TEXT)
def test_each_published_form_is_read_from_its_exact_text(form: str, case: str) -> None:
    content, calls = SAID[case]
    assert FORMS[form].syntax.read(FORMS[form].texts[case], TOOLS) == ParsedReply(content, calls)


@pytest.mark.parametrize("form", FORMS)
def test_each_published_form_leaves_a_plain_answer_alone(form: str) -> None:
    syntax = FORMS[form].syntax
    for content in (
        "It is 4.",
        "First.\n\n  I will call f (n = 5), or O(n).\n"
        "- done [1] {x: 2} (see <b>) > 3 < 4; x['y'] = \"z\"",
        "",
    ):
        assert syntax.read(syntax.frame.lead + content, TOOLS) == ParsedReply(content)


@pytest.mark.parametrize(("form", "text", "problem", "calls", "content"), EVERY_WRONG)
def test_a_malformed_derived_text_has_its_problem_and_keeps_what_can_be_read(
    form: str, text: str, problem: ParseProblem, calls: Calls, content: str | None
) -> None:
    reply = FORMS[form].syntax.read(text, TOOLS)
    assert (reply.problem, reply.calls, reply.content) == (
        problem,
        tuple(ToolCall(*one) for one in calls),
        content,
    )


RAW = {
    "xml": "\n</parameter>",
    "keys and values": "</arg_value>",
    "escaped one by one": "<escape>",
    "texts in marks": '<|"|>',
    "python, bare quotes": "'",
}
"""Forms that write texts as they are, and the mark that ends one."""


@pytest.mark.parametrize("form", [name for name in FORMS if name not in RAW])
def test_an_argument_that_holds_a_whole_call_of_the_form_is_one_text(form: str) -> None:
    one = FORMS[form]
    for said in (
        one.texts["one"],
        f"a {one.texts['two']} b",
        f" {one.syntax.frame.after} ",
        f"{one.syntax.frame.between}{{",
    ):
        escaped = said.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        literal = escaped if form == "python" else json.dumps(said, ensure_ascii=False)[1:-1]
        text = one.texts["one"].replace("2 + 2", literal)
        assert one.syntax.read(text, TOOLS) == ParsedReply(
            None, (call("calculator", expression=said),)
        ), text


@pytest.mark.parametrize("form", RAW)
def test_a_text_written_as_it_is_may_hold_the_marks_that_begin_calls_and_end_values(
    form: str,
) -> None:
    one = FORMS[form]
    for said in (
        f"a{RAW[form]} b",
        f"{RAW[form]}{RAW[form]}a",
        f"{one.syntax.frame.before} a",
        f"a {one.syntax.frame.after}b",
    ):
        text = one.texts["one"].replace("2 + 2", said)
        assert one.syntax.read(text, TOOLS) == ParsedReply(
            None, (call("calculator", expression=said),)
        ), text


@pytest.mark.parametrize("form", FORMS)
def test_two_blocks_of_calls_are_both_read(form: str) -> None:
    text = FORMS[form].texts["one"]
    joint = FORMS[form].syntax.frame.between if not FORMS[form].syntax.frame.before else "\n"
    assert FORMS[form].syntax.read(f"{text}{joint}{text}", TOOLS).calls == ONE * 2


@pytest.mark.parametrize("form", FORMS)
def test_every_beginning_of_a_derived_text_is_read_without_inventing_a_call(form: str) -> None:
    one = FORMS[form]
    text = one.texts["two"]
    for length in range(len(text)):
        reply = one.syntax.read(text[:length], TOOLS)
        assert reply.calls in ((), TWO[:1], TWO), text[:length]


def test_a_derived_syntax_writes_nothing_itself() -> None:
    with pytest.raises(DialectError, match="the model's own template"):
        FORMS["xml"].syntax.write(None, ONE)


@pytest.mark.parametrize("form", FORMS)
def test_reading_a_derived_form_never_raises_and_takes_time_in_proportion(form: str) -> None:
    syntax = FORMS[form].syntax
    rng, pieces = random.Random(form), pieces_of(syntax)
    began = time.process_time()
    for _ in range(1500):
        syntax.read(hostile_text(rng, pieces), TOOLS)
    for _, text in adversarial(syntax, 20_000, every=97):
        syntax.read(text, TOOLS)
    assert time.process_time() - began < 10


def test_values_are_read_alike_from_texts_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    for _ in range(400):
        value = (
            [random_value(rng) for _ in range(rng.randrange(4))]
            if rng.random() < 0.8
            else rng.randrange(10**40)
        )
        text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
        cut = rng.randrange(len(text) + 1)
        before, broken = (
            "z" * rng.randrange(100),
            text[:cut] + rng.choice(("", "}", '"', "\\", "NaN")) + text[cut + rng.randrange(2) :],
        )
        for whole in (before + text + " tail", before + broken):
            read = []
            for window in (10**9, rng.choice((17, 64, 300))):
                monkeypatch.setattr(model_text, "_WINDOW", window)
                read.append(model_text.decode(whole, len(before)))
            assert read[0] == read[1], whole


TYPED: tuple[tuple[str, Any, Any], ...] = (
    ("12", {"type": "string"}, "12"),
    ("12", {"type": "integer"}, 12),
    ("12.0", {"type": "integer"}, 12.0),
    ("12.5", {"type": "integer"}, 12.5),
    ("twelve", {"type": "integer"}, "twelve"),
    ("True", {"type": "boolean"}, True),
    ("true", {"type": "boolean"}, True),
    ("true", {"type": "string"}, "true"),
    ("1", {"type": "boolean"}, 1),
    ("None", {"type": "null"}, None),
    ("null", {"type": ["string", "null"]}, None),
    ("nil", {"type": ["string", "null"]}, "nil"),
    (" 7 ", {"type": "number"}, 7),
    ("1e999", {"type": "number"}, "1e999"),
    ("1_000", {"type": "integer"}, 1000),
    ("1.", {"type": "number"}, 1.0),
    ('["a", 1]', {"type": "array"}, ["a", 1]),
    ("['a', None]", {"type": "array"}, ["a", None]),
    ("{'a': (1, 2)}", {"type": "object"}, {"a": [1, 2]}),
    ('{"a": 1', {"type": "object"}, '{"a": 1'),
    ('"x"', {"type": "string"}, '"x"'),
    ('"x"', {}, '"x"'),
    ("x", {"description": "Anything."}, "x"),
    ("[1]", {"description": "Anything."}, [1]),
    ("5", {"anyOf": [{"type": "string"}, {"type": "integer"}]}, 5),
    ("5", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "5"),
    ("5", {"enum": ["5", "6"]}, "5"),
    ("5", {"enum": [5, 6]}, 5),
    ("7", {"enum": [5, 6]}, 7),
    ("7", {"enum": ["a"]}, "7"),
    ("7", {"const": 7}, 7),
    ("7", {"type": ["integer", "string"], "minimum": 8}, "7"),
    ('{"k": "v"}', {"$ref": "#/$defs/place"}, {"k": "v"}),
    ("[2]", {"$ref": "#/$defs/place"}, [2]),
    ("[2]", {"$ref": "#/$defs/word"}, "[2]"),
    ("2", {"$ref": "http://elsewhere/x"}, 2),
    ("2", {"pattern": "["}, 2),
)


@pytest.mark.parametrize(("text", "schema", "value"), TYPED)
def test_a_value_written_as_text_has_the_type_that_its_schema_asks_for(
    text: str, schema: dict[str, Any], value: Any
) -> None:
    definitions = {"place": {"type": "object"}, "word": {"type": "string"}}
    tool = Tool("f", "", {"type": "object", "properties": {"x": schema}, "$defs": definitions})
    read = typed_call(ToolCall("f", {"x": text}), tool).arguments["x"]
    assert (read, type(read)) == (value, type(value))


def test_a_value_that_no_tool_speaks_of_has_its_first_reading() -> None:
    said = ToolCall("f", {"x": "1", "y": "one", "z": [1]})
    assert typed_call(said, None).arguments == {"x": 1, "y": "one", "z": [1]}


ALIASES = [key for key in ARGUMENTS if key not in ("arguments", "parameters")]


@pytest.mark.parametrize("key", [*ALIASES, "argument", "body", "payload"])
@pytest.mark.parametrize("name", ["tool_call_tags", "tagged", "bare_json", "json"])
def test_arguments_under_another_key_are_never_a_call_without_arguments(
    name: str, key: str
) -> None:
    written = open_syntax(name).write(None, [ToolCall("edit", {"path": "a"})])
    own = next(one for one in ("args", "parameters", "arguments") if f'"{one}"' in written)
    if key == own:
        return
    reply = open_syntax(name).read(written.replace(f'"{own}"', json.dumps(key)))
    is_answer = name == "bare_json" and key not in ALIASES
    assert reply.calls == ()
    assert (reply.problem is ParseProblem.NONE) == is_answer


@pytest.mark.parametrize("key", ["notes", "tool_input", "arguments_json"])
def test_a_call_with_a_key_that_is_not_read_is_a_problem(key: str) -> None:
    frame = DelimitedFormat("<call>", "</call>")
    body = {"name": "edit", "arguments": {"path": "a"}, key: {"count": 3}}
    text = json.dumps(body)
    assert open_syntax("tool_call_tags").read(f"<tool_call>{text}</tool_call>").problem is SHAPE
    assert open_syntax("tagged").read(f"[TOOL_CALL]{text}[/TOOL_CALL]").problem is SHAPE
    assert open_syntax("bare_json").read(text).problem is SHAPE
    assert DelimitedSyntax(frame, JsonCalls()).read(f"<call>{text}</call>").problem is SHAPE
    nested = JsonCalls(("function", "name"), ("function", "arguments"))
    outer = json.dumps({"function": {"name": "edit"}, key: {"count": 3}})
    reply = DelimitedSyntax(frame, nested).read(f"<call>{outer}</call>")
    assert (reply.calls, reply.problem) == ((), SHAPE)


def test_keys_that_say_nothing_are_no_problem() -> None:
    harmless = {"id": "c1", "type": "function", "index": 0, "comment": None, "notes": ""}
    body = json.dumps({"name": "edit", "arguments": {"path": "a"}} | harmless)
    reply = open_syntax("tool_call_tags").read(f"<tool_call>{body}</tool_call>")
    assert (reply.calls, reply.problem) == ((ToolCall("edit", {"path": "a"}),), ParseProblem.NONE)


@pytest.mark.parametrize(
    "digits", ["\uff11\uff12", "\u0661\u0662", "1\uff12", "\u0967.5", "1e\uff12"]
)
def test_digits_of_other_scripts_are_text_and_no_number(digits: str) -> None:
    assert typed_value(digits, {"type": "integer"}) == digits
    assert typed_value(digits, None) == digits
    assert typed_value("12", {"type": "integer"}) == 12
    assert open_syntax("calls").read(f"edit(count={digits})").calls == ()


@pytest.mark.parametrize(
    ("syntax", "text"),
    [
        ("calls", 'edit(path="a") edit(path="b")'),
        ("calls", "edit()edit()"),
        ("calls", "edit(n=1), edit(n=2)"),
        ("bare_json", '{"function": {"name": "edit", "arguments": {}}}'),
        ("bare_json", '{"tool_calls": [{"name": "edit"}]}'),
        ("bare_json", '{"content": null, "function_call": {"name": "edit"}}'),
    ],
)
def test_calls_in_another_form_are_broken_and_no_plain_answer(syntax: str, text: str) -> None:
    assert open_syntax(syntax).read(text).problem is not ParseProblem.NONE


@pytest.mark.parametrize(
    ("syntax", "text"),
    [
        ("calls", "sin(1) cos(2)"),
        ("calls", "f(n=5) is next"),
        ("bare_json", '{"function": "sin"}'),
        ("bare_json", '{"tool_calls": []}'),
    ],
)
def test_an_answer_that_speaks_of_calls_stays_an_answer(syntax: str, text: str) -> None:
    assert open_syntax(syntax).read(text) == ParsedReply(text)
