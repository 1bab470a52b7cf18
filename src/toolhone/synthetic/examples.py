"""Canonical examples: a question and the calls that are right for it.

    examples = read_examples("examples.jsonl", tools)
    examples = read_examples([{"query": "Book a table for 4", "calls": [{"name": "book", "arguments": {"people": 4}}]}], tools)

A row is {"query", "calls"}, {"prompt", "expected_tool", "expected_params"} or a conversation with one user turn; a row without
calls is an example of talk, and its `answer` (if any) is what the assistant says. Every call is checked against the tools, and
a wrong one stops with a sentence. What is made of examples is said in `phrases`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolhone.doctor.checks import check
from toolhone.errors import DataError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.files import read_records
from toolhone.synthetic.schemas import Steps

_SHAPES = "{'query', 'calls'}, {'prompt', 'expected_tool', 'expected_params'} or {'messages'}"


@dataclass(frozen=True)
class CanonicalExample:
    """A question and its calls; without calls, what the assistant answers ("": any of the shipped replies)."""

    query: str
    calls: tuple[ToolCall, ...] = ()
    answer: str = ""


def read_examples(
    source: str | Path | Sequence[Mapping[str, Json]], tools: Sequence[Tool]
) -> list[CanonicalExample]:
    """Read examples from a file (JSON Lines or a JSON list) or a list of rows, and check every call."""
    return [_checked(place, row, tools) for place, row in _rows(source)]


def _rows(
    source: str | Path | Sequence[Mapping[str, Json]],
) -> Iterable[tuple[str, Mapping[str, Json]]]:
    if isinstance(source, str | Path):
        return ((str(line), record) for line, record in read_records(source))
    return ((f"example {number}", row) for number, row in enumerate(source, start=1))


def _checked(place: str, row: Mapping[str, Json], tools: Sequence[Tool]) -> CanonicalExample:
    try:
        example = _example(row)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    assistant = Message("assistant", example.answer or "-", tool_calls=example.calls)
    found = check(
        [Conversation((Message("user", example.query), assistant), tuple(tools))], place
    ).findings
    if found:
        raise DataError(f"{place}: {found[0].what}; {found[0].right}")
    return example


def _example(row: Mapping[str, Json]) -> CanonicalExample:
    if not isinstance(row, Mapping):
        raise DataError(f"an example must be an object, got {row!r:.60}; wanted {_SHAPES}")
    if "messages" in row:
        return _from_conversation(row)
    if "expected_tool" in row:
        name = row["expected_tool"]
        expected = (
            (ToolCall.from_dict({"name": name, "arguments": row.get("expected_params")}),)
            if name
            else ()
        )
        prompt = _text(row, "prompt").removeprefix("Human:").removesuffix("Assistant:")
        return CanonicalExample(_said(prompt, "prompt"), expected)
    if "calls" not in row:
        raise DataError(
            f"an example has the keys {', '.join(map(repr, row)) or 'none'}; wanted {_SHAPES}"
        )
    if not isinstance(row["calls"], list | tuple):
        raise DataError(f"'calls' must be a list of calls, got {row['calls']!r:.60}")
    calls = tuple(
        call if isinstance(call, ToolCall) else ToolCall.from_dict(call) for call in row["calls"]
    )
    return CanonicalExample(
        _said(_text(row, "query"), "query"), calls, str(row.get("answer") or "")
    )


def _text(row: Mapping[str, Json], key: str) -> str:
    if not isinstance(row.get(key), str):
        raise DataError(f"'{key}' must be the user's question as text, got {row.get(key)!r:.60}")
    return str(row[key])


def _said(text: str, key: str) -> str:
    if not text.strip():
        raise DataError(f"'{key}' is empty; wanted the user's question")
    return text.strip()


def _from_conversation(row: Mapping[str, Json]) -> CanonicalExample:
    """The user's turn and the assistant's first one; what follows its calls (results, an answer) is not needed."""
    messages = Conversation.from_dict({**row, "tools": []}).messages
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    if len(users) != 1:
        raise DataError(f"the conversation has {len(users)} user turns; an example has one")
    first = next((message for message in messages[users[0] :] if message.role == "assistant"), None)
    if first is None:
        raise DataError(
            "the conversation has no assistant turn after the user's; wanted the calls, or an answer"
        )
    calls = tuple(replace(call, id=None) for call in first.tool_calls)
    return CanonicalExample(
        _said(messages[users[0]].content or "", "content"),
        calls,
        "" if calls else (first.content or ""),
    )


def _arguments_at(examples: Sequence[CanonicalExample]) -> Iterator[tuple[str, Steps, Json]]:
    for example in examples:
        for call in example.calls:
            for path, value in _paths(dict(call.arguments), ()):
                yield call.name, path, value


def _paths(value: Json, path: Steps) -> Iterator[tuple[Steps, Json]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _paths(item, (*path, name))
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item, path)
    else:
        yield path, value


def agreed(examples: Sequence[CanonicalExample]) -> set[tuple[str, Steps]]:
    """Arguments that have the same value in all examples that give them, of which there are at least two."""
    seen: dict[tuple[str, Steps], list[Json]] = {}
    for name, path, value in _arguments_at(examples):
        seen.setdefault((name, path), []).append(value)
    return {
        key
        for key, values in seen.items()
        if len(values) > 1 and all(value == values[0] for value in values)
    }


def shown(tool: str, examples: Sequence[CanonicalExample]) -> dict[Steps, list[Json]]:
    """The values that examples show for a tool, by path."""
    shown: dict[Steps, list[Json]] = {}
    for name, path, value in _arguments_at(examples):
        if name == tool:
            shown.setdefault(path, []).append(value)
    return shown
