"""Canonical examples: a question and the calls that are right for it.

examples = read_examples("examples.jsonl", tools)       # or a list of such rows
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolhone.doctor.checks import check
from toolhone.errors import DataError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.files import read_records
from toolhone.tools.schema_sampler import Steps

_SHAPES = "{'query', 'calls'}, {'prompt', 'expected_tool', 'expected_params'} or {'messages'}"


@dataclass(frozen=True)
class CanonicalExample:
    """A question and its calls; without calls, the answer ("": any of the shipped replies)."""

    query: str
    calls: tuple[ToolCall, ...] = ()
    answer: str = ""


def read_examples(
    source: str | Path | Sequence[Mapping[str, Json]], tools: Sequence[Tool]
) -> list[CanonicalExample]:
    """Read examples from a file (JSON Lines or a JSON list) or a list of rows; check every call.

    A row is {"query", "calls"}, {"prompt", "expected_tool", "expected_params"} or a conversation
    with one user turn. A row without calls is small talk; its `answer`, if any, is the assistant's.
    """
    rows: Iterable[tuple[object, Mapping[str, Json]]]
    if isinstance(source, str | Path):
        rows = read_records(source)
    else:
        rows = ((f"example {number}", row) for number, row in enumerate(source, start=1))
    examples = []
    for place, row in rows:
        try:
            example = _example(row)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        assistant = Message("assistant", example.answer or "-", tool_calls=example.calls)
        conversation = Conversation((Message("user", example.query), assistant), tuple(tools))
        for finding in check([conversation], str(place)).findings:
            raise DataError(f"{place}: {finding.what}; {finding.right}")
        examples.append(example)
    return examples


def _example(row: Mapping[str, Json]) -> CanonicalExample:
    if not isinstance(row, Mapping):
        raise DataError(f"an example must be an object, got {row!r:.60}; wanted {_SHAPES}")
    if "messages" in row:  # the user's turn and the assistant's first one are needed
        messages = Conversation.from_dict({**row, "tools": []}).messages
        users = [index for index, message in enumerate(messages) if message.role == "user"]
        if len(users) != 1:
            raise DataError(f"the conversation has {len(users)} user turns; an example has one")
        query = _filled(messages[users[0]].content or "", "content")
        for message in messages[users[0] :]:
            if message.role == "assistant":
                own = tuple(replace(call, id=None) for call in message.tool_calls)
                return CanonicalExample(query, own, "" if own else (message.content or ""))
        right = "wanted the calls, or an answer"
        raise DataError(f"the conversation has no assistant turn after the user's; {right}")
    key, calls = "query", row.get("calls")
    if "expected_tool" in row:
        call = {"name": row["expected_tool"], "arguments": row.get("expected_params")}
        key, calls = "prompt", [call] if row["expected_tool"] else []
    elif "calls" not in row:
        keys = ", ".join(map(repr, row)) or "none"
        raise DataError(f"an example has the keys {keys}; wanted {_SHAPES}")
    if not isinstance(calls, list | tuple):
        raise DataError(f"'calls' must be a list of calls, got {calls!r:.60}")
    text = row.get(key)
    if not isinstance(text, str):
        raise DataError(f"'{key}' must be the user's question as text, got {text!r:.60}")
    if key == "prompt":
        text = text.removeprefix("Human:").removesuffix("Assistant:")
    made = [one if isinstance(one, ToolCall) else ToolCall.from_dict(one) for one in calls]
    return CanonicalExample(_filled(text, key), tuple(made), str(row.get("answer") or ""))


def _filled(text: str, key: str) -> str:
    if not text.strip():
        raise DataError(f"'{key}' is empty; wanted the user's question")
    return text.strip()


def argument_values(examples: Sequence[CanonicalExample]) -> dict[tuple[str, Steps], list[Json]]:
    """Return (tool, path without indices) -> the values that the examples show there."""
    values: dict[tuple[str, Steps], list[Json]] = {}
    for example in examples:
        for call in example.calls:
            for path, value in _paths(dict(call.arguments), ()):
                values.setdefault((call.name, path), []).append(value)
    return values


def _paths(value: Json, path: Steps) -> Iterator[tuple[Steps, Json]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _paths(item, (*path, name))
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item, path)
    else:
        yield path, value
