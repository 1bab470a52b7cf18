"""The words: what they accept, what they refuse, and that the form on disk comes back equal."""

import dataclasses
import json
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel

from toolhone.errors import DataError
from toolhone.schema import (
    ANY_CALL,
    WEIGHT_KEYS,
    Conversation,
    Expect,
    Message,
    Task,
    Tool,
    ToolCall,
    read_weight,
)

NESTED = {
    "type": "object",
    "properties": {
        "order": {
            "type": "object",
            "properties": {
                "items": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"sku": {"type": "string"}}},
                }
            },
            "required": ["items"],
        }
    },
    "required": ["order"],
}


class Point(BaseModel):
    x: float
    y: float = 0.0


def book(
    city: str,
    nights: int,
    when: Annotated[str, "an ISO date"],
    room: Literal["single", "double"] = "single",
    at: Point | None = None,
) -> str:
    """Book a hotel.

    It is charged at once.

    Args:
        city: where to stay
        nights (int): how many

    Returns:
        nights: not an argument
    """
    return f"{city} {nights} {when} {room} {at}"


def test_openai_and_bare_tool_objects_are_the_same_tool() -> None:
    bare = {"name": "shop", "description": "Buy.", "parameters": NESTED}
    assert (
        Tool.of(bare)
        == Tool.of({"type": "function", "function": bare})
        == Tool("shop", "Buy.", NESTED)
    )
    assert Tool.of(Tool.of(bare).to_dict()) == Tool.of(bare)


def test_a_nested_schema_is_kept_whole() -> None:
    assert (
        Tool.of({"name": "shop", "parameters": NESTED}).to_dict()["function"]["parameters"]
        == NESTED
    )


def test_a_function_with_hints_and_docstring_becomes_a_tool() -> None:
    tool = Tool.of(book)
    properties = tool.parameters["properties"]
    assert (tool.name, tool.description) == ("book", "Book a hotel. It is charged at once.")
    assert properties["city"] == {"type": "string", "description": "where to stay"}
    assert properties["nights"] == {"type": "integer", "description": "how many"}
    assert properties["when"] == {"type": "string", "description": "an ISO date"}
    assert properties["room"] == {
        "type": "string",
        "enum": ["single", "double"],
        "default": "single",
    }
    assert tool.parameters["required"] == ["city", "nights", "when"]
    assert (
        tool.problems({"city": "Oslo", "nights": 2, "when": "2026-01-01", "at": {"x": 1.5}}) == []
    )
    assert (
        tool.problems({"city": "Oslo", "nights": 2, "when": "2026-01-01", "at": {"y": 1.5}}) != []
    )


def test_a_function_that_no_model_could_call_is_refused_by_name() -> None:
    def loose(*values: int) -> None: ...

    with pytest.raises(DataError, match="'loose': parameter 'values' has no name"):
        Tool.of(loose)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "'order' is a required property"),
        ({"order": {"items": [{"sku": 5}]}}, "order.items.0.sku: 5 is not of type 'string'"),
    ],
)
def test_problems_say_where_arguments_break_the_schema(
    arguments: dict[str, object], said: str
) -> None:
    assert any(said in problem for problem in Tool("shop", "", NESTED).problems(arguments))


@pytest.mark.parametrize(
    "source",
    [
        {"name": "f", "arguments": {"a": [1, {"b": None}]}},
        {"name": "f", "arguments": '{"a": [1, {"b": null}]}'},
        {
            "id": "c1",
            "type": "function",
            "function": {"name": "f", "arguments": '{"a": [1, {"b": null}]}'},
        },
        {"name": "f", "parameters": {"a": [1, {"b": None}]}},
    ],
)
def test_arguments_are_a_mapping_whatever_the_form_on_disk(source: dict[str, object]) -> None:
    assert ToolCall.from_dict(source).arguments == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"name": "f", "arguments": "{'a': 1}"}, "'arguments' is a string but not JSON"),
        ({"name": "f", "arguments": [1]}, "'arguments' must be an object"),
        ({"arguments": {}}, "needs a 'name'"),
    ],
)
def test_a_call_that_cannot_be_read_is_refused_in_one_sentence(
    source: dict[str, object], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        ToolCall.from_dict(source)


def test_a_conversation_on_disk_comes_back_equal() -> None:
    calls = (ToolCall("shop", {"order": {"items": [{"sku": 'ß\n"}'}]}}, "c1"), ToolCall("f"))
    messages = (
        Message("system", "Be kind."),
        Message("user", "Buy."),
        Message("assistant", None, "I should buy.", calls),
        Message("tool", "done", tool_call_id="c1", name="shop"),
        Message("assistant", "Bought."),
    )
    conversation = Conversation(
        messages, (Tool("shop", "Buy.", NESTED), Tool.of(book)), "7", "made"
    )
    back = Conversation.from_dict(json.loads(json.dumps(conversation.to_dict())))
    assert back == conversation
    assert [call.id for call in back.messages[2].tool_calls] == ["c1", None]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"messages": []}, "'messages' must be a non-empty list"),
        ({"messages": [{"role": "usr", "content": "x"}]}, "did you mean 'user'"),
        ({"messages": [{"role": "user", "content": "x"}]}, "needs an assistant message"),
        ({"tools": [{"description": "x"}]}, "a tool needs a 'name'"),
        ({"tools": [{"name": "f", "parameters": {"type": "objct"}}]}, "not a JSON Schema"),
        ({"tools": "[{"}, "'tools' is a string but not JSON"),
    ],
)
def test_a_broken_conversation_is_refused_in_one_sentence(
    change: dict[str, object], said: str
) -> None:
    good = {
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        "tools": [],
    }
    Conversation.from_dict(good)
    with pytest.raises(DataError, match=said):
        Conversation.from_dict({**good, **change})


EXPECTS: list[dict[str, object]] = [
    {
        "calls": [{"name": "f", "arguments": {"a": 1}, "accept": {"a": [2]}, "optional": ["b"]}],
        "order": "strict",
    },
    {"calls": [{"name": "f", "arguments": {}}], "order": "any", "answer": "4"},
    {"no_call": True},
    {"answer": "42"},
    {"state": {"door": "open"}},
    {"any_call": True},
    {
        "calls": [{"name": "f", "any_arguments": True}, {"name": "g", "arguments": {}}],
        "order": "any",
    },
    {"answer": "7", "alternatives": [{"answer": "seven"}, {"answer": "VII"}]},
    {
        "calls": [{"name": "f", "arguments": {}}],
        "order": "any",
        "alternatives": [{"no_call": True}, {"any_call": True}],
    },
]


@pytest.mark.parametrize("expect", EXPECTS)
def test_a_task_on_disk_comes_back_equal(expect: dict[str, object]) -> None:
    assert Expect.from_dict(expect).to_dict() == expect
    single = {
        "id": "1",
        "messages": [{"role": "user", "content": "x"}],
        "tools": [],
        "expect": expect,
        "category": "c",
        "source": "s",
    }
    assert Task.from_dict(single).to_dict() == single
    turns = {
        **single,
        "turns": [single["messages"], single["messages"]],
        "expect": [expect, expect],
        "world": {"name": "w"},
    }
    del turns["messages"]
    assert Task.from_dict(turns).to_dict() == turns


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"calls": []}, "'expect.calls' is empty"),
        ({}, "is empty; it needs"),
        ({"any_call": False}, "is empty; it needs"),
        ({"no_call": False, "alternatives": [{"no_call": False}]}, "is empty; it needs"),
        ({"any_call": "false"}, "'expect.any_call' must be true or false"),
        ({"calls": [{"name": "f"}], "no_call": True}, "both 'calls' and 'no_call'"),
        ({"cals": []}, "did you mean 'calls'"),
        ({"calls": [{"name": "f"}], "order": "some"}, "must be 'any' or 'strict'"),
        ({"calls": [{"name": "f"}], "any_call": True}, "both 'calls' and 'any_call'"),
        ({"no_call": True, "any_call": True}, "both 'no_call' and 'any_call'"),
        (
            {"calls": [{"name": "f", "any_arguments": "all"}]},
            "'any_arguments' must be true or false, got 'all'",
        ),
        (
            {"calls": [{"name": "f", "any_arguments": True, "arguments": {"a": 1}}]},
            "has both 'any_arguments' and arguments",
        ),
        (
            {"calls": [{"name": "f", "any_arguments": True, "optional": ["a"]}]},
            "has both 'any_arguments' and arguments",
        ),
        (
            {"answer": "7", "alternatives": {"answer": "seven"}},
            "'expect.alternatives' must be a list",
        ),
        ({"answer": "7", "alternatives": ["seven"]}, "must be an object"),
        (
            {"answer": "7", "alternatives": [{"answer": "8", "alternatives": [{"answer": "9"}]}]},
            "write them into one list",
        ),
        (
            {"answer": "7", "alternatives": [{"no_call": True}]},
            "judges answer, one 'alternatives' entry calls",
        ),
        (
            {"any_call": True, "alternatives": [{"any_call": True, "answer": "7"}]},
            "judges calls, one 'alternatives' entry calls and answer",
        ),
    ],
)
def test_an_expectation_that_means_nothing_is_refused(expect: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Expect.from_dict(expect)


def test_an_expectation_says_what_it_wants_and_what_it_speaks_of() -> None:
    either = Expect.from_dict(
        {"any_call": True, "answer": "7", "alternatives": [{"no_call": True, "answer": "7"}]}
    )
    assert either.choices == (Expect(any_call=True, answer="7"), Expect(no_call=True, answer="7"))
    assert [choice.wanted for choice in either.choices] == [(ANY_CALL,), ()]
    assert either.speaks_of == ("calls", "answer")
    assert Expect(state={}).speaks_of == ("state",)
    assert Expect(no_call=True).choices == (Expect(no_call=True),)


def test_a_task_with_turns_needs_as_many_expectations() -> None:
    turn = [{"role": "user", "content": "x"}]
    with pytest.raises(DataError, match="needs as many 'expect' entries as 'turns', got 2 and 1"):
        Task.from_dict({"id": "1", "turns": [turn, turn], "expect": [{"no_call": True}]})


def test_words_do_not_change_after_they_are_made() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Message("user", "x").content = "y"


@pytest.mark.parametrize("key", WEIGHT_KEYS)
@pytest.mark.parametrize(
    ("value", "weight"),
    [
        (False, 0),
        (True, 1),
        (None, 1),
        (0, 0),
        (0.0, 0),
        (1, 1),
        (0.5, 0.5),
        (2, 2),
        ("false", 0),
        (" False ", 0),
        ("TRUE", 1),
        ("0", 0),
        ("0.5", 0.5),
    ],
)
def test_a_message_says_how_much_it_counts(key: str, value: object, weight: float) -> None:
    message = Message.from_dict({"role": "assistant", "content": "x", key: value})
    assert message == Message("assistant", "x", weight=weight)
    assert Message.from_dict(json.loads(json.dumps(message.to_dict()))) == message
    assert ("weight" in message.to_dict()) == (weight != 1)


@pytest.mark.parametrize("key", WEIGHT_KEYS)
@pytest.mark.parametrize(
    "value", [-1, 11, "", "no", "[0]", [0], {}, "nan", float("nan"), float("inf"), "1e999"]
)
def test_a_weight_that_means_nothing_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(DataError, match=f"'{key}' must be true, false or a number from 0 to 10"):
        Message.from_dict({"role": "assistant", "content": "x", key: value})


@pytest.mark.parametrize(
    ("keys", "weight"),
    [
        ({"train": True, "weight": 0}, 0),
        ({"train": False, "loss_weight": 0.5}, 0),
        ({"loss": True, "loss_scale": 0.5}, 0.5),
        ({"weight": "0.5", "loss_weight": 0.5}, 0.5),
    ],
)
def test_of_two_weights_the_one_that_says_more_counts(
    keys: dict[str, object], weight: float
) -> None:
    assert read_weight(keys) == weight


def test_two_weights_that_differ_are_refused() -> None:
    with pytest.raises(DataError, match=r"'weight' 0\.5 and 'loss_scale' 2, which differ"):
        read_weight({"loss_scale": 2, "weight": 0.5})
