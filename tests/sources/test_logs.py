"""Every log: it is told by its shape and gives the conversation; nothing that a record says is lost
without a count, however its keys are renamed."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.broken_rows import broken_line
from support.log_rows import (
    ASKED,
    ATTRIBUTES,
    BLOCKS,
    CALL,
    DONE,
    ITEMS,
    LOG_ROWS,
    MORE_ROWS,
    SESSIONS,
    TOOLS,
    USER,
    otlp,
)
from support.source_rows import write_rows
from toolhone.data.importing import import_file
from toolhone.schema import Message, Tool
from toolhone.schema.json_input import is_empty
from toolhone.sources.formats import BROKEN_ROW, detect_format, open_source
from toolhone.sources.loaded import Loaded

KEY = "zzqx"
NAMES = sorted(LOG_ROWS)


def read(folder: Path, *rows: Any, name: str = "auto", **options: Any) -> Loaded:
    return open_source(write_rows(folder / "log.jsonl", *rows), name, **options)


def told(messages: tuple[Message, ...]) -> list[Any]:
    return [
        (one.role, one.content, [(call.name, call.arguments) for call in one.tool_calls])
        for one in messages
    ]


WHOLE = [
    ("system", "Help.", []),
    ("user", "Find x.", []),
    ("assistant", "Look.", [("find", {"a": "x"})]),
    ("tool", "y", []),
    ("assistant", "Done.", []),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_log_is_told_by_its_shape_and_gives_the_conversation(tmp_path: Path, name: str) -> None:
    file = write_rows(tmp_path / "log.jsonl", *LOG_ROWS[name])
    assert detect_format(file) == name
    loaded = open_source(file)
    assert (loaded.kept, len(loaded.conversations)) == (1, 1), loaded.summary(examples=True)
    assert not loaded.unread
    conversation = loaded.conversations[0]
    wanted = WHOLE[1:] if name == "claude_code" else WHOLE
    got = [
        (role, text if role != "tool" else "y", calls)
        for role, text, calls in told(conversation.messages)
    ]
    assert got == wanted
    if name not in SESSIONS:
        assert [tool.parameters["properties"] for tool in conversation.tools] == [
            {"a": {"type": "string"}}
        ]


@pytest.mark.parametrize("name", MORE_ROWS)
def test_another_form_of_a_log_is_told_by_its_shape_and_gives_calls_and_words(
    tmp_path: Path, name: str
) -> None:
    for row in MORE_ROWS[name]:
        file = write_rows(tmp_path / "log.jsonl", row)
        assert detect_format(file) == name.partition(":")[0]
        loaded = open_source(file)
        assert (loaded.kept, loaded.unread) == (loaded.read, Counter())
        messages = loaded.conversations[0].messages
        words = {one.content for one in messages} | {one.reasoning for one in messages}
        assert "Find x." in words
        assert words & {"Done.", "Look."} or messages[-1].tool_calls
        assert all(call.name == "find" for one in messages for call in one.tool_calls)
        results = [one.content for one in messages if one.role == "tool"]
        assert set(results) <= {"y"}


def changed(value: Any, rename: bool) -> Iterator[Any]:
    """The value with one key renamed, or one added, at every place of it."""
    if isinstance(value, dict):
        for key in [k for k in value if not is_empty(value[k])] if rename else [None]:
            yield {(KEY if k == key else k): v for k, v in value.items()} | (
                {} if rename else {KEY: "says something"}
            )
    for key in (
        value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    ):
        for inner in changed(value[key], rename):
            made = copy.copy(value)
            made[key] = inner
            yield made


@pytest.mark.parametrize("rename", [True, False], ids=["renamed", "added"])
@pytest.mark.parametrize("name", [*NAMES, *MORE_ROWS])
def test_a_key_that_is_not_known_is_kept_counted_or_refused(
    tmp_path: Path, name: str, rename: bool
) -> None:
    rows = {**LOG_ROWS, **MORE_ROWS}[name]
    name = name.partition(":")[0]
    files = [
        [*rows[:n], new, *rows[n + 1 :]]
        for n, row in enumerate(rows)
        for new in changed(row, rename)
    ]
    for number, lines in enumerate(files):
        loaded = read(tmp_path, *lines, name=name)
        assert loaded.kept + loaded.skipped.total() == loaded.read
        said = json.dumps([row.to_dict() for row in loaded.conversations])
        assert KEY in said or loaded.unread or loaded.refused, (number, json.dumps(lines))
        if not rename and loaded.kept:
            assert KEY in said or any(KEY in text for text in loaded.unread), (number, lines)


@pytest.mark.parametrize("name", [*NAMES, *MORE_ROWS])
def test_rows_broken_at_random_are_kept_refused_or_bad_lines(tmp_path: Path, name: str) -> None:
    rng, rows, file = random.Random(name), {**LOG_ROWS, **MORE_ROWS}[name], tmp_path / "log.jsonl"
    lines = [json.dumps(rows[0]), *(broken_line(rng.choice(rows), rng) for _ in range(40))]
    file.write_text("\n".join(lines), "utf-8", "surrogatepass")
    rows_read = import_file(file, tmp_path / "out.jsonl", name.partition(":")[0]).loaded
    assert rows_read.kept + rows_read.skipped.total() == rows_read.read > 0
    examples = rows_read.examples.get(BROKEN_ROW, "nested too deeply")
    assert "nested too deeply" in examples or "surrogate" in examples


def test_of_requests_with_one_history_the_longest_stays_with_the_thoughts_of_all(
    tmp_path: Path,
) -> None:
    thinks = {"role": "assistant", "content": None, "reasoning": "I look.", "tool_calls": [CALL]}
    called = {**thinks, "reasoning": None}
    result = {"role": "tool", "content": "y", "tool_call_id": "1"}

    def log(asked: list[Any], reply: Any) -> Any:
        return {
            "request": {"messages": asked, "tools": TOOLS},
            "response": {"choices": [{"message": reply}]},
        }

    other = {"role": "assistant", "content": "It is y."}
    loaded = read(
        tmp_path,
        log([USER], thinks),
        log([USER, called, result], DONE),
        log([USER, called, result], other),
        log([USER, called, result], DONE),
    )
    assert (loaded.read, loaded.kept, loaded.merged, len(loaded.conversations)) == (4, 4, 2, 2)
    first, second = loaded.conversations
    assert [one.reasoning for one in first.messages if one.role == "assistant"] == ["I look.", None]
    assert [one.weight for one in second.messages if one.role == "assistant"] == [0, 1]
    assert [task.id.split("#")[0] for task in loaded.tasks] == [first.id]
    assert any("branch" in repair for repair in loaded.repaired)


DELTAS = [
    {"choices": [{"delta": {"role": "assistant", "content": "Lo"}}]},
    {"choices": [{"delta": {"content": "ok."}}]},
    {
        "choices": [
            {
                "delta": {
                    "tool_calls": [
                        {"index": 0, **CALL, "function": {"name": "find", "arguments": ""}}
                    ]
                }
            }
        ]
    },
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": ' "x"}'}}]}}]},
]
EVENTS = [
    {"type": "message_start", "message": {"role": "assistant", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Look."}},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "1", "name": "find", "input": {}},
    },
    *(
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": text},
        }
        for text in ('{"a":', ' "x"}')
    ),
]
FINISHED = [
    {"type": "response.created", "response": {"output": []}},
    {"type": "response.completed", "response": {"output": ITEMS[1:3]}},
]


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("stream", [DELTAS, EVENTS, FINISHED], ids=["deltas", "blocks", "items"])
def test_a_streamed_reply_is_put_together(tmp_path: Path, stream: Any, lines: bool) -> None:
    text = "".join(f"data: {json.dumps(one)}\n\n" for one in stream) + "data: [DONE]\n"
    row = {"request": {"messages": [USER], "tools": TOOLS}, "response": text if lines else stream}
    loaded = read(tmp_path, row, name="request_log")
    assert told(loaded.conversations[0].messages) == WHOLE[1:3]


def test_spans_of_an_otlp_document_are_records_each(tmp_path: Path) -> None:
    indexed = {
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": "Find x.",
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": "Done.",
    }
    plain = {"llm.input_messages.0.message.role": "user"}
    plain |= {"llm.input_messages.0.message.content": "Find x.", "http.route": "/"}
    calls = "llm.output_messages.0.message"
    plain |= {f"{calls}.role": "assistant", f"{calls}.tool_calls.0.tool_call.id": "1"}
    plain |= {f"{calls}.tool_calls.0.tool_call.function.name": "find"}
    plain |= {f"{calls}.tool_calls.0.tool_call.function.arguments": '{"a": "x"}'}
    document = otlp(ATTRIBUTES, {}, {})
    found = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    for span, each in zip(found[1:], (indexed, plain), strict=True):
        span["attributes"] = [{"key": k, "value": {"stringValue": v}} for k, v in each.items()]
    loaded = read(tmp_path, document)
    first, second, third = (told(row.messages) for row in loaded.conversations)
    assert first == WHOLE
    assert second == [("user", "Find x.", []), ("assistant", "Done.", [])]
    assert third[1] == ("assistant", None, [("find", {"a": "x"})])
    assert list(loaded.unread) == ["'http.route' of the attributes of a span"]


def test_events_of_a_span_are_its_messages(tmp_path: Path) -> None:
    events = [
        {"name": "gen_ai.user.message", "attributes": {"content": "Find x."}},
        {"name": "gen_ai.choice", "body": {"index": 0, "message": {"tool_calls": [CALL]}}},
    ]
    loaded = read(tmp_path, {"spanId": "1", "attributes": {}, "events": events})
    assert told(loaded.conversations[0].messages)[1] == ("assistant", None, [("find", {"a": "x"})])


def test_a_rewound_prompt_of_a_session_is_a_branch(tmp_path: Path) -> None:
    rows = [*LOG_ROWS["claude_code"]]
    rows = [{**row, "parentUuid": str(number - 1)} for number, row in enumerate(rows)]
    again = {"role": "user", "content": "Find z."}
    rows.append(
        {"type": "user", "sessionId": "s", "uuid": "9", "parentUuid": "2", "message": again}
    )
    rows.append({"type": "assistant", "sessionId": "s", "uuid": "10", "message": DONE})
    loaded = read(tmp_path, *rows)
    assert [len(row.messages) for row in loaded.conversations] == [4, 5]
    assert told(loaded.conversations[1].messages)[-2:] == [
        ("user", "Find z.", []),
        ("assistant", "Done.", []),
    ]


def test_a_request_that_goes_on_from_a_response_takes_its_history_from_the_file(
    tmp_path: Path,
) -> None:
    first = {"id": "resp_1", "object": "response", "input": ITEMS[:1], "output": ITEMS[1:3]}
    second = {"id": "resp_2", "object": "response", "previous_response_id": "resp_1"}
    second |= {"input": ITEMS[3:], "output": DONE}
    lost = {**second, "id": "resp_3", "previous_response_id": "resp_0"}
    loaded = read(tmp_path, first, second, lost)
    assert (loaded.merged, loaded.skipped.total()) == (1, 1)
    assert told(loaded.conversations[0].messages) == WHOLE[1:]


def test_calls_of_a_log_without_tools_take_those_of_the_option_or_are_told(tmp_path: Path) -> None:
    row = {"messages": [*BLOCKS, DONE]}
    assert any("--tools" in note for note in read(tmp_path, row).noted)
    given = read(tmp_path, row, tools=[Tool.of(TOOLS[0])])
    assert [tool.name for tool in given.conversations[0].tools] == ["find"]
    assert not given.noted


FAILURES = {
    "unknown tool": ({"name": "fnd", "arguments": {"a": "x"}}, "y", 0),
    "schema": ({"name": "find", "arguments": {"a": 1}}, "y", 0),
    "timeout": ({"name": "find", "arguments": {"a": "x"}}, "Error: request timed out", 1),
    "limit": ({"name": "find", "arguments": {"a": "x"}}, '{"error": "429 too many requests"}', 1),
    "corrected": ({"name": "find", "arguments": {"a": "q"}}, "Error: no such thing", 0),
}


@pytest.mark.parametrize("cause", FAILURES)
def test_a_call_that_the_model_got_wrong_is_not_learned(tmp_path: Path, cause: str) -> None:
    call, result, weight = FAILURES[cause]
    wrong = {"role": "assistant", "content": None, "tool_calls": [{"id": "0", "function": call}]}
    turns = [USER, wrong, {"role": "tool", "content": result, "tool_call_id": "0"}, *ASKED[2:]]
    row = {
        "request": {"messages": turns, "tools": TOOLS},
        "response": {"choices": [{"message": DONE}]},
    }
    loaded = read(tmp_path, row)
    weights = [one.weight for one in loaded.conversations[0].messages if one.role == "assistant"]
    assert weights == [weight, 1, 1]
    assert any("a turn with a call" in word for word in [*loaded.repaired, *loaded.noted])
