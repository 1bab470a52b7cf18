"""Canonical examples: a question and the calls that are right for it; and answers after calls.

    examples = read_examples("examples.jsonl", tools)       # or a list of such rows
    answers = answers_of(examples)                          # {"book_table": ["Done: {booked}."]}
    more, left = with_answers(conversations, registry, answers, share=0.3, seed=0)

In an answer, `{result}` is the whole result and `{name}` a field of it. Tools run for real.
"""

from __future__ import annotations

import json
import random
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolhone.doctor.checks import check
from toolhone.errors import DataError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.sources.files import read_records
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolStatus
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
    if "messages" in row:
        return _from_conversation(row)
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


def _from_conversation(row: Mapping[str, Json]) -> CanonicalExample:
    """Read the user's turn and the assistant's first one; results and answers are not needed."""
    messages = Conversation.from_dict({**row, "tools": []}).messages
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    if len(users) != 1:
        raise DataError(f"the conversation has {len(users)} user turns; an example has one")
    query = _filled(messages[users[0]].content or "", "content")
    for message in messages[users[0] :]:
        if message.role == "assistant":
            calls = tuple(replace(call, id=None) for call in message.tool_calls)
            return CanonicalExample(query, calls, "" if calls else (message.content or ""))
    right = "wanted the calls, or an answer"
    raise DataError(f"the conversation has no assistant turn after the user's; {right}")


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


def answers_of(examples: Sequence[CanonicalExample]) -> dict[str, list[str]]:
    """Return the answers of the examples with one call, by tool."""
    wordings: dict[str, list[str]] = {}
    for example in examples:
        if len(example.calls) == 1 and example.answer:
            wordings.setdefault(example.calls[0].name, []).append(example.answer)
    return wordings


def with_answers(
    conversations: Sequence[Conversation],
    registry: Registry,
    answers: Mapping[str, Sequence[str]],
    share: float,
    seed: int,
) -> tuple[list[Conversation], Counter[str]]:
    """Continue a share of the conversations that end with calls; seed and id decide which.

    answers: wordings by tool. A conversation whose call does not succeed stays as it is and is
    counted.
    """
    left: Counter[str] = Counter()
    result = list(conversations)
    for index, conversation in enumerate(conversations):
        rng = random.Random(f"answered {seed} {conversation.id}")
        calls = conversation.messages[-1].tool_calls
        if not calls or rng.random() >= share:
            continue
        results = registry.run_all(calls)
        if failed := next((one for one in results if one.outcome is not ToolStatus.OK), None):
            left[f"a call ended as {failed.outcome}: {failed.content:.80}"] += 1
            continue
        parts, messages = [], list(conversation.messages)
        for call, one in zip(calls, results, strict=True):
            wording = rng.choice(answers.get(call.name) or [""])
            parts.append(fill_answer(wording, one.value, one.content))
            messages.append(Message("tool", one.content, tool_call_id=call.id, name=call.name))
        messages.append(Message("assistant", " ".join(parts)))
        result[index] = replace(conversation, messages=tuple(messages))
    return result, left


def fill_answer(wording: str, value: Json, content: str) -> str:
    """Return the answer to one result; without a wording the text, or "name: value" pairs.

    A field that the result lacks is a `DataError`.
    """
    values = value if isinstance(value, Mapping) else {}
    fields = {
        name: field if isinstance(field, str) else json.dumps(field, ensure_ascii=False)
        for name, field in values.items()
    }
    if not wording:
        return ", ".join(f"{name}: {field}" for name, field in fields.items()) or content
    where = f"the answer {wording!r} of an example"
    try:
        places = list(string.Formatter().parse(wording))
    except ValueError as error:
        right = "write a brace that is no place as {{ or }}"
        raise DataError(f"{where}: {error}; {right}") from None
    for _, name, form, conversion in places:
        if form or conversion:
            raise DataError(f"{where} has a format in {{{name}}}; a place holds a name alone")
        if name not in (None, "result") and name not in fields:
            has = ", ".join(fields) or "no fields"
            raise DataError(f"{where} asks for {{{name}}}, but the tool's result has {has}")
    return wording.format_map({**fields, "result": content})
