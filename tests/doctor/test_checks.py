"""What `toolhone.doctor.checks` promises: each fault is found, named with its place, and counted;
good data pass.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolhone.doctor.checks import Findings, check
from toolhone.errors import DataError, FindingKind
from toolhone.schema import Conversation, Message, Tool, ToolCall
from toolhone.sources.files import FileLine

WEATHER = Tool.of(
    {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "description": "how many"},
            },
            "required": ["city"],
        },
    }
)
OPEN = Tool("anything", "", {"type": "object", "properties": {}, "additionalProperties": True})
USER = Message("user", "weather?")
FINAL = Message("assistant", "22 degrees")


def calling(*calls: ToolCall) -> Message:
    return Message("assistant", None, tool_calls=calls)


def call(name: str = "get_weather", identity: str | None = None, **arguments: Any) -> ToolCall:
    return ToolCall(name, arguments or {"city": "Paris"}, identity)


def result(identity: str | None = None, name: str | None = None) -> Message:
    return Message("tool", "22", tool_call_id=identity, name=name)


def conversation(*messages: Message, tools: tuple[Tool, ...] = (WEATHER, OPEN)) -> Conversation:
    return Conversation(messages, tools, "r1")


def kinds(*messages: Message, tools: tuple[Tool, ...] = (WEATHER, OPEN)) -> list[FindingKind]:
    return [
        finding.kind
        for finding in check([conversation(*messages, tools=tools)], "a.jsonl").findings
    ]


@pytest.mark.parametrize(
    "messages",
    [
        (USER, FINAL),
        (USER, calling(call())),
        (USER, calling(call()), result(), FINAL),
        (USER, calling(call(identity="1"), call(identity="2")), result("2"), result("1"), FINAL),
        (
            USER,
            calling(call(identity="1")),
            calling(call(identity="2")),
            result("1"),
            result("2"),
            FINAL,
        ),
        (
            USER,
            calling(call()),
            result(name="get_weather"),
            calling(call()),
            result("x"),
            FINAL,
            USER,
            FINAL,
        ),
        (USER, calling(call("anything", whatever=1)), result(), FINAL),
        (USER, calling(call(city="Rome", days=3))),
    ],
)
def test_good_conversations_pass(messages: tuple[Message, ...]) -> None:
    assert kinds(*messages) == []


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((USER,), FindingKind.NO_ASSISTANT),
        ((USER, Message("assistant", " \n")), FindingKind.EMPTY_TURN),
        ((USER, Message("assistant", None)), FindingKind.EMPTY_TURN),
        ((USER, calling(call(""))), FindingKind.UNKNOWN_TOOL),
        ((USER, calling(call("get_wether"))), FindingKind.UNKNOWN_TOOL),
        ((USER, calling(call(city=5))), FindingKind.BAD_ARGUMENTS),
        ((USER, calling(call(days=2))), FindingKind.BAD_ARGUMENTS),
        ((USER, calling(call(city="Rome", dais=2))), FindingKind.UNDECLARED_ARGUMENT),
        ((USER, result(), FINAL), FindingKind.RESULT_WITHOUT_CALL),
        ((USER, calling(call()), result(), result(), FINAL), FindingKind.RESULT_WITHOUT_CALL),
        ((USER, calling(call()), result(), FINAL, result()), FindingKind.RESULT_WITHOUT_CALL),
        ((USER, calling(call()), USER, FINAL), FindingKind.CALL_WITHOUT_RESULT),
        ((USER, calling(call()), FINAL), FindingKind.CALL_WITHOUT_RESULT),
        ((USER, calling(call(), call()), result(), FINAL), FindingKind.CALL_WITHOUT_RESULT),
    ],
)
def test_each_fault_is_found(messages: tuple[Message, ...], expected: FindingKind) -> None:
    assert kinds(*messages) == [expected]


def test_a_result_for_another_id_or_tool_answers_nothing() -> None:
    wrong = [FindingKind.RESULT_WITHOUT_CALL, FindingKind.CALL_WITHOUT_RESULT]
    assert kinds(USER, calling(call(identity="1")), result("2"), FINAL) == wrong
    assert kinds(USER, calling(call()), result(name="anything"), FINAL) == wrong


def test_two_tools_of_one_name_are_a_fault_only_when_they_differ() -> None:
    assert kinds(USER, FINAL, tools=(WEATHER, replace(WEATHER))) == []
    assert kinds(USER, FINAL, tools=(WEATHER, Tool("get_weather"))) == [FindingKind.TOOL_TWICE]


def test_a_schema_that_says_nothing_about_properties_leaves_arguments_free() -> None:
    assert kinds(USER, calling(call("f", a=1)), tools=(Tool("f", "", {"type": "object"}),)) == []
    assert kinds(USER, calling(call("f", a=1)), tools=(Tool("f"),)) == [
        FindingKind.UNDECLARED_ARGUMENT
    ]


@pytest.mark.parametrize(
    "reference",
    ["#/$defs/nowhere", "http://127.0.0.1:9/schema.json", "http://json-schema.org/draft-07/schema"],
)
def test_a_schema_that_points_out_of_itself_is_a_fault_and_fetches_nothing(reference: str) -> None:
    tool = Tool.of(
        {"name": "f", "parameters": {"type": "object", "properties": {"a": {"$ref": reference}}}}
    )
    assert kinds(USER, calling(call("f", a=1)), tools=(tool,)) == [FindingKind.BAD_ARGUMENTS]


def sentence(*messages: Message) -> str:
    with pytest.raises(DataError) as caught:
        check([conversation(*messages)], [FileLine(Path("a.jsonl"), 17)]).raise_if_any()
    return str(caught.value)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            (USER, calling(call("get_wether"))),
            "a.jsonl, line 17 (id 'r1'), messages[1].tool_calls[0].name: calls the "
            "unknown tool 'get_wether' "
            "(did you mean 'get_weather'?); wanted one of 'get_weather', 'anything'",
        ),
        (
            (USER, calling(call(), call(city="Rome", days="two"))),
            "a.jsonl, line 17 (id 'r1'), messages[1].tool_calls[1].arguments: "
            "get_weather, days: 'two' is not of type 'integer'; "
            'wanted {"type": "integer"}',
        ),
        (
            (USER, calling(call(days=2))),
            "a.jsonl, line 17 (id 'r1'), messages[1].tool_calls[0].arguments: "
            "get_weather, arguments: 'city' is a required "
            "property; required are 'city'",
        ),
        (
            (USER, calling(call(city="Rome", dais=2))),
            "a.jsonl, line 17 (id 'r1'), messages[1].tool_calls[0].arguments: "
            "get_weather declares no argument 'dais' "
            "(did you mean 'days'?); wanted one of 'city', 'days', or "
            "'additionalProperties': true in its schema",
        ),
        (
            (USER, calling(call(identity="1")), result("2")),
            "a.jsonl, line 17 (id 'r1'), messages[2]: the tool result with id '2' "
            "answers no open call; "
            "open calls: get_weather (id '1')",
        ),
        (
            (USER, calling(call()), FINAL),
            "a.jsonl, line 17 (id 'r1'), messages[1].tool_calls[0]: the call of "
            "'get_weather' has no result before messages[2] "
            "(assistant); wanted a tool message for it",
        ),
    ],
)
def test_a_finding_is_one_sentence_with_place_fault_and_what_would_be_right(
    messages: tuple[Message, ...], expected: str
) -> None:
    assert sentence(*messages) == expected


def many() -> Findings:
    unknown, silent, good = (
        conversation(USER, calling(call("f"), call("g"))),
        conversation(USER, Message("assistant", "")),
        conversation(USER, FINAL),
    )
    return check([good, unknown, good, silent], "a.jsonl")


def test_findings_are_counted_by_kind() -> None:
    assert many().counts == {
        FindingKind.UNKNOWN_TOOL: 2,
        FindingKind.DUPLICATE_ROW: 1,
        FindingKind.EMPTY_TURN: 1,
    }
    assert many().rows == 4
    assert [finding.row for finding in many().findings] == [1, 1, 2, 3]


def test_the_first_finding_speaks_for_the_others() -> None:
    more = r"\(… and 1 more of this kind and 1 of other kinds\)$"
    with pytest.raises(DataError, match=rf"^a\.jsonl, row 2 .* {more}"):
        many().raise_if_any()
    with pytest.raises(
        DataError,
        match=r"^a\.jsonl, row 3 .* says the same as a\.jsonl, row 1; wanted each row once",
    ):
        many().raise_if_any(allow=(FindingKind.UNKNOWN_TOOL,))


def test_a_repeated_row_is_a_finding_that_does_not_stop_training() -> None:
    data = [
        conversation(USER, calling(call(identity=str(number))), result(str(number)))
        for number in range(3)
    ]
    findings = check(data, "a.jsonl")
    assert findings.counts == {FindingKind.DUPLICATE_ROW: 2}
    findings.raise_if_any()


def test_rows_that_differ_in_tools_or_arguments_are_no_duplicates() -> None:
    rome, paris = (USER, calling(call(city="Rome"))), (USER, calling(call(city="Paris")))
    data = [conversation(*rome), conversation(*paris), conversation(*rome, tools=(WEATHER,))]
    assert check(data, "a.jsonl").findings == []
