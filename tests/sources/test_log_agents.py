"""Messages of agent frameworks whose forms a whole conversation does not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.agent_rows import ARGUMENTS, TOOLS, USER
from support.source_rows import write_rows
from toolhone.sources.formats import open_source
from toolhone.sources.loaded import Loaded

PROMPT = {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "Find x."}]}


def read(folder: Path, *messages: Any) -> Loaded:
    return open_source(write_rows(folder / "log.jsonl", {"messages": messages, "tools": TOOLS}))


def test_a_channel_of_harmony_is_a_thought_or_a_call_and_not_an_answer(tmp_path: Path) -> None:
    """They were kept as three answers, one of them the JSON of the arguments."""
    thought = {"role": "assistant", "channel": "analysis", "content": "I look."}
    call = {"role": "assistant", "channel": "commentary", "recipient": "functions.find"}
    answer = {"role": "assistant", "channel": "final", "content": "Done."}
    result = {"role": "tool", "name": "functions.find", "content": "y"}
    loaded = read(tmp_path, USER, thought, {**call, "content": ARGUMENTS}, result, answer)
    assert not loaded.unread
    _, turn, told, last = loaded.conversations[0].messages
    assert (turn.reasoning, turn.content, told.name) == ("I look.", None, "find")
    assert [(each.name, each.arguments) for each in turn.tool_calls] == [("find", {"a": "x"})]
    assert last.content == "Done."


def test_a_retry_of_pydantic_ai_is_a_failed_result_or_a_word_of_the_user(tmp_path: Path) -> None:
    def call(identity: str, given: str) -> dict[str, Any]:
        part = {"part_kind": "tool-call", "tool_name": "find", "args": given}
        return {"kind": "response", "parts": [{**part, "tool_call_id": identity}]}

    retry = {"part_kind": "retry-prompt", "content": "no such a"}
    failed = {"kind": "request", "parts": [{**retry, "tool_name": "find", "tool_call_id": "1"}]}
    plain = {"kind": "request", "parts": [retry], "instructions": "Help."}
    loaded = read(tmp_path, PROMPT, call("1", '{"a": "w"}'), failed, call("2", ARGUMENTS), plain)
    messages = loaded.conversations[0].messages
    roles = ["user", "assistant", "tool", "assistant", "system", "user"]
    assert [one.role for one in messages] == roles
    assert [messages[1].weight, messages[3].weight] == [0, 1]


def test_a_thought_and_a_summary_of_autogen_are_turns_of_the_assistant(tmp_path: Path) -> None:
    said = {"type": "TextMessage", "source": "user", "content": "Find x."}
    thought = {"type": "ThoughtEvent", "source": "helper", "content": "I look."}
    summary = {"type": "ToolCallSummaryMessage", "source": "helper", "content": "y"}
    loaded = read(tmp_path, said, thought, {**summary, "results": [{"content": "y"}]})
    assert not loaded.unread
    assert [(one.content, one.reasoning) for one in loaded.conversations[0].messages] == [
        ("Find x.", None),
        ("y", "I look."),
    ]


def test_parts_of_a_result_are_its_text_and_pictures_are_counted(tmp_path: Path) -> None:
    """The text was kept inside its wrapper; a picture beside a result was lost without a count."""
    call = {"type": "tool-call", "toolCallId": "1", "toolName": "find", "input": {"a": "x"}}
    value = [{"type": "text", "text": "y"}, {"type": "media", "data": "aa"}]
    result = {"type": "tool-result", "toolCallId": "1", "toolName": "find"}
    result |= {"output": {"type": "content", "value": value}}
    loaded = read(
        tmp_path,
        USER,
        {"role": "assistant", "content": [call]},
        {"role": "tool", "content": [result]},
        {"role": "assistant", "content": "Done."},
    )
    assert loaded.unread == {"'media' parts of a result": 1}
    assert loaded.conversations[0].messages[2].content == "y"
    answer = {
        "name": "find",
        "response": {"result": "y"},
        "parts": [{"inlineData": {"data": "aa"}}],
    }
    row = {
        "contents": [
            {"role": "user", "parts": [{"text": "Find x."}]},
            {"role": "model", "parts": [{"functionCall": {"name": "find", "args": {"a": "x"}}}]},
            {"role": "user", "parts": [{"functionResponse": answer}]},
            {"role": "model", "parts": [{"text": "Done."}]},
        ]
    }
    loaded = open_source(write_rows(tmp_path / "gemini.jsonl", row))
    assert loaded.unread == {"'parts' of a result": 1}
