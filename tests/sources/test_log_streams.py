"""Replies that were logged as streams, or that ended before their end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.log_rows import BLOCK_TOOL, CALL, TOOLS, USER
from support.source_rows import write_rows
from toolhone.sources.formats import open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.log_rows import CUT

REQUEST = {"messages": [USER], "tools": TOOLS}
SAID = {"role": "assistant", "content": "It is in"}
PARTS = {"role": "model", "parts": [{"text": "It is in"}]}
BLOCK = {"type": "text", "text": "It is in"}
ITEM = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It"}]}
OTEL = {"role": "assistant", "parts": [{"type": "text", "content": "It is in"}]}


def read(folder: Path, response: Any, request: Any = REQUEST) -> Loaded:
    row = {"request": request, "response": response}
    return open_source(write_rows(folder / "log.jsonl", row))


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def piece(identity: str | None, name: str | None, arguments: str, index: int = 0) -> dict[str, Any]:
    body = {"arguments": arguments} | ({"name": name} if name else {})
    call = {"index": index, "type": "function", "function": body}
    return chunk(tool_calls=[call | ({"id": identity} if identity else {})])


ENDED_EARLY: dict[str, Any] = {
    "chat": {"choices": [{"message": SAID, "finish_reason": "length"}]},
    "filtered": {"choices": [{"message": SAID, "finish_reason": "content_filter"}]},
    "anthropic": {"role": "assistant", "content": [BLOCK], "stop_reason": "max_tokens"},
    "gemini": {"candidates": [{"content": PARTS, "finishReason": "MAX_TOKENS"}]},
    "bedrock": {"output": {"message": {**SAID, "content": [BLOCK]}}, "stopReason": "max_tokens"},
    "ollama": {"message": SAID, "done": True, "done_reason": "length"},
    "responses": {"output": [ITEM], "incomplete_details": {"reason": "max_output_tokens"}},
    "item": {"output": [{**ITEM, "status": "incomplete"}]},
    "chunks": [chunk(role="assistant", content="It is"), chunk("length", content=" in")],
    "no last chunk": [chunk(role="assistant", content="It is"), chunk(content=" in")],
    "no last event": [
        {"type": "message_start", "message": {"role": "assistant", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": BLOCK},
    ],
    "not done": [{"message": SAID, "done": False}],
}


@pytest.mark.parametrize("name", ENDED_EARLY)
def test_a_reply_that_ended_before_its_end_is_not_learned(tmp_path: Path, name: str) -> None:
    loaded = read(tmp_path, ENDED_EARLY[name])
    assert loaded.repaired == {CUT: 1}
    assert [one.weight for one in loaded.conversations[0].messages] == [1, 0]


def test_a_span_says_that_its_reply_ended_before_its_end(tmp_path: Path) -> None:
    attributes = {
        "gen_ai.input.messages": json.dumps([USER]),
        "gen_ai.output.messages": json.dumps([OTEL]),
        "gen_ai.response.finish_reasons": ["length"],
    }
    row = {"traceId": "t", "spanId": "s", "attributes": attributes}
    loaded = open_source(write_rows(tmp_path / "log.jsonl", row))
    assert loaded.conversations[0].messages[-1].weight == 0


@pytest.mark.parametrize(
    "response",
    [
        {"choices": [{"message": SAID, "finish_reason": "stop"}]},
        {"role": "assistant", "content": [BLOCK], "stop_reason": "end_turn"},
        {"choices": [{"message": {**SAID, "tool_calls": [CALL]}, "finish_reason": "tool_calls"}]},
        [chunk(role="assistant", content="It is"), chunk("stop")],
        [chunk(role="assistant", content="It is"), "[DONE]"],
    ],
)
def test_a_reply_with_an_end_of_its_own_is_learned(tmp_path: Path, response: Any) -> None:
    loaded = read(tmp_path, response)
    assert not loaded.repaired
    assert [one.weight for one in loaded.conversations[0].messages] == [1, 1]


@pytest.mark.parametrize("first", ["", '{"a": "w"}'])
def test_streamed_calls_with_one_index_and_ids_of_their_own_are_two(
    tmp_path: Path, first: str
) -> None:
    """Without arguments, the first was lost in the second, without a word."""
    events = [
        piece("1", "find", first),
        piece("2", "find", '{"a":'),
        piece(None, None, ' "x"}'),
        chunk("tool_calls"),
    ]
    calls = read(tmp_path, events).conversations[0].messages[-1].tool_calls
    assert [(call.id, call.arguments) for call in calls] == [
        ("1", json.loads(first or "{}")),
        ("2", {"a": "x"}),
    ]


def step(kind: str, index: int | None = None, finish: str | None = None, **said: Any) -> Any:
    delta = {"message": said} | ({"finish_reason": finish} if finish else {})
    return {"type": kind, "delta": delta} | ({} if index is None else {"index": index})


COHERE = [
    step("message-start", role="assistant"),
    step("tool-plan-delta", tool_plan="I "),
    step("tool-plan-delta", tool_plan="look."),
    step("content-start", 0, content={"type": "text", "text": ""}),
    step("content-delta", 0, content={"text": "Look."}),
    step(
        "tool-call-start",
        0,
        tool_calls={"id": "1", "type": "function", "function": {"name": "find", "arguments": ""}},
    ),
    step("tool-call-delta", 0, tool_calls={"function": {"arguments": '{"a":'}}),
    step("tool-call-delta", 0, tool_calls={"function": {"arguments": ' "x"}'}}),
    {"type": "tool-call-end", "index": 0},
    step("message-end", finish="TOOL_CALL"),
]


def block(index: int, **delta: Any) -> dict[str, Any]:
    return {"contentBlockDelta": {"delta": delta, "contentBlockIndex": index}}


BEDROCK = [
    {"messageStart": {"role": "assistant"}},
    block(0, reasoningContent={"text": "I "}),
    block(0, reasoningContent={"text": "look."}),
    {"contentBlockStop": {"contentBlockIndex": 0}},
    block(1, text="Lo"),
    block(1, text="ok."),
    {
        "contentBlockStart": {
            "start": {"toolUse": {"toolUseId": "1", "name": "find"}},
            "contentBlockIndex": 2,
        }
    },
    block(2, toolUse={"input": '{"a":'}),
    block(2, toolUse={"input": ' "x"}'}),
    {"messageStop": {"stopReason": "tool_use"}},
    {"metadata": {"usage": {"inputTokens": 3}}},
]
OLLAMA = "\n".join(
    json.dumps({"model": "m", "message": {"role": "assistant", **said}, "done": done})
    for said, done in (
        ({"content": "", "thinking": "I "}, False),
        ({"content": "", "thinking": "look."}, False),
        ({"content": "Look."}, False),
        ({"content": "", "tool_calls": [{"function": CALL["function"]}]}, False),
        ({"content": ""}, True),
    )
)


@pytest.mark.parametrize("stream", [COHERE, BEDROCK, OLLAMA], ids=["cohere", "bedrock", "ollama"])
def test_a_stream_of_another_service_is_put_together(tmp_path: Path, stream: Any) -> None:
    loaded = read(tmp_path, stream)
    assert (loaded.kept, loaded.unread, loaded.repaired) == (1, {}, {})
    reply = loaded.conversations[0].messages[-1]
    assert (reply.content, reply.reasoning) == ("Look.", "I look.")
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("find", {"a": "x"})]


def test_an_event_of_an_unknown_stream_is_no_call(tmp_path: Path) -> None:
    row = {"type": "tool-something", "delta": {"text": "x"}}
    loaded = read(tmp_path, [{**SAID, "type": "message"}, row])
    assert loaded.unread == {"'tool-something' items of a log": 1}
    assert not loaded.conversations[0].messages[-1].tool_calls


def test_an_item_that_a_cut_stream_of_responses_leaves_open_is_counted(tmp_path: Path) -> None:
    events = [
        {"type": "response.created", "response": {"id": "r", "output": []}},
        {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
        {"type": "response.output_text.delta", "output_index": 1, "delta": "and then"},
    ]
    loaded = read(tmp_path, events, {"input": "Find x.", "tools": [BLOCK_TOOL]})
    assert loaded.unread == {"an 'item' of a streamed reply, which is not there to its end": 1}
    assert loaded.conversations[0].messages[-1].weight == 0
