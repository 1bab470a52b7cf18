"""Conversations for the user's tools, written by a stronger model and verified in three stages.

    written = write_rows(client, tools, registry, count=200, seed=0, progress)

Format: a conversation of the wanted category whose calls fit the schemas. Execution: calls run
where a tool has an implementation, and real results replace the written ones. Answer: the last
message agrees with the results. Near-duplicates are left out; every loss is counted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

from toolhone.backends.base import random_stream
from toolhone.doctor.checks import fingerprints, row_faults
from toolhone.errors import DataError
from toolhone.runs.progress import Progress
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall, texts_in
from toolhone.schema.json_schema import map_schema
from toolhone.synthetic.teacher_client import PaidReply, TeacherClient
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus

AT_ONCE = 4
"""Requests that run at the same time."""
REQUESTS_PER_ROW = 4
"""Requests for each wanted row, where `max_requests` is none."""
PLACE = re.compile(r"\{result(\d*)(?:\.(\w+))?\}")
"""In an answer: the result of the call with this number (none: the last one), or a field of it."""
LONGEST_TEXT = 160
"""Characters of a text that a schema of replies allows."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
PROMPTS: Mapping[str, Any] = json.loads(
    (resources.files("toolhone.synthetic") / "teacher_prompts.json").read_text("utf-8")
)
"""The instruction, what is asked for in each category, and its shape in a schema of replies (u the
user, c a call, C several at once, s words, a an answer with the results); words for numbers."""


class RejectedError(Exception):
    """Why a written conversation is not used: stage and reason."""


@dataclass
class WrittenRows:
    """The verified conversations and what became of all others.

    kept_by_category: rows of each category. not_run: calls of tools without an implementation.
    """

    rows: list[Conversation] = field(default_factory=list)
    proposed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    kept_by_category: Counter[str] = field(default_factory=Counter)
    not_run: int = 0
    ended: str = ""

    def report(self, client: TeacherClient) -> dict[str, Json]:
        """Cost, yield and reasons."""
        prompts, replies = client.tokens
        return {
            "requests": client.requests,
            "failed": dict(client.failed),
            "recalled": client.recalled,
            "prompt_tokens": prompts,
            "reply_tokens": replies,
            "replies_without_usage": client.without_usage,
            "price": round(client.price, 6),
            "proposed": self.proposed,
            "kept": len(self.rows),
            "yield": round(len(self.rows) / max(1, self.proposed), 4),
            "categories": dict(self.kept_by_category),
            "reasons": dict(self.reasons.most_common()),
            "calls_not_run": self.not_run,
            "ended": self.ended,
        }


def write_rows(
    client: TeacherClient,
    tools: Sequence[Tool],
    registry: Registry,
    count: int,
    seed: int,
    progress: Progress,
) -> WrittenRows:
    """Ask until `count` rows are verified or the budget is spent."""
    written, seen = WrittenRows(), set[bytes]()
    budget = client.plan.max_requests or REQUESTS_PER_ROW * count
    progress.start(f"rows of {client.plan.model}", count)
    for category, index, reply in _replies(
        client, tools, registry, seed, lambda: count - len(written.rows), budget
    ):
        written.proposed += 1
        try:
            if reply is None:
                raise RejectedError("no reply after all tries")
            row = verified(reply.text, category, tools, registry, written)
            (mark,) = fingerprints([row])
            if mark.loose in seen:
                raise RejectedError("a near-duplicate of a kept row")
            seen.add(mark.loose)
        except RejectedError as why:
            written.reasons[str(why)] += 1
            continue
        written.rows.append(replace(row, id=f"{category}-{index}", source=client.plan.model))
        written.kept_by_category[category] += 1
        progress.advance(1, f"{client.requests} requests, {sum(client.tokens):,} tokens")
    if len(written.rows) < count:
        written.ended = f"the budget of {budget} requests is spent"
        if client.within(budget):
            written.ended = "the address gave no reply"
        elif client.requests < budget:
            written.ended = f"the budget of {client.plan.max_tokens} tokens is spent"
    return written


def _replies(
    client: TeacherClient,
    tools: Sequence[Tool],
    registry: Registry,
    seed: int,
    left: Callable[[], int],
    budget: int,
) -> Iterator[tuple[str, int, PaidReply | None]]:
    """Category, index and reply of each question, in order; a few are asked at the same time."""
    shares = client.plan.categories
    names = [name for name, share in shares.items() if share]
    weights = [shares[name] / sum(shares.values()) for name in names]
    first = silent = 0
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="teacher") as threads:
        while left() > 0 and silent < AT_ONCE:
            part = range(first, first + min(AT_ONCE, left()))
            first = part.stop
            asked: list[tuple[str, int, Future[PaidReply | None]]] = []
            for index in part:
                # Categories come in a seeded order, each as often as its share.
                category = str(random_stream(seed, 23, index).choice(names, p=weights))
                messages, name = question(tools, category, seed, index), f"{category} {index}"
                schema = None
                if client.plan.response_format == "json_schema":
                    schema = reply_schema(tools, category, registry.runnable, index)
                if client.knows(name, messages, schema) or client.within(budget - len(asked)):
                    future = threads.submit(client.ask, name, messages, schema)
                    asked.append((category, index, future))
            if not asked:
                return
            for category, index, future in asked:
                reply = future.result()
                silent = 0 if reply is not None else silent + 1
                yield category, index, reply


def question(tools: Sequence[Tool], category: str, seed: int, index: int) -> list[dict[str, Json]]:
    """What the teacher is asked; the tools that it should use change with `index`."""
    stream = random_stream(seed, 29, index)
    focus = stream.choice(len(tools), min(2, len(tools)), replace=False).tolist()
    about = stream.choice(len(PROMPTS["settings"]))
    listed = json.dumps([tool.to_dict()["function"] for tool in tools], ensure_ascii=False)
    names = " or ".join(tools[place].name for place in focus)
    wanted = PROMPTS["categories"][category].format(names=names)
    return [
        {"role": "system", "content": PROMPTS["instruction"]},
        {
            "role": "user",
            "content": f"Tools: {listed}\n\n{wanted}\nSetting: {PROMPTS['settings'][about]}. "
            f"Conversation number {index + 1}; make it unlike others.",
        },
    ]


def reply_schema(
    tools: Sequence[Tool], category: str, runnable: Collection[str], index: int
) -> dict[str, Json]:
    """JSON Schema of a conversation of a category, for addresses that hold replies to one.

    The shape is fixed (two or three calls at once by `index`), calls fit their tool, an answer has
    a place for each result, and results are written only where a tool cannot run.
    """
    calls = [
        _fields(name={"const": tool.name}, arguments=map_schema(tool.inlined.parameters, _bounded))
        for tool in tools
    ]
    text = {"type": "string", "minLength": 8, "maxLength": LONGEST_TEXT}
    messages, count = list[Json](), 0
    for sign in PROMPTS["shapes"][category]:
        role: dict[str, Json] = {"const": "user" if sign == "u" else "assistant"}
        if sign not in "cC":
            places = [""] if count == 1 else range(1, count + 1)
            pattern = r"[^{}\"\\\n]{1,80}".join(["^", *(rf"\{{result{n}\}}" for n in places), "$"])
            said = {"type": "string", "pattern": pattern} if sign == "a" else text
            messages.append(_fields(role=role, content=said))
            continue
        count = 1 if sign == "c" else 2 + index % 2
        listed = {"type": "array", "items": {"anyOf": calls}, "minItems": count, "maxItems": count}
        messages.append(_fields(role=role, tool_calls=listed))
        if not {tool.name for tool in tools} <= {*runnable}:
            messages += [_fields(role={"const": "tool"}, content=text)] * count
    size = {"minItems": len(messages), "maxItems": len(messages)}
    return _fields(messages={"type": "array", "prefixItems": messages, **size})


def _fields(**fields: Json) -> dict[str, Json]:
    """The schema of an object with exactly these fields."""
    exact = {"required": list(fields), "additionalProperties": False}
    return {"type": "object", "properties": fields, **exact}


def _bounded(level: dict[str, Json]) -> dict[str, Json]:
    """A schema whose texts end: a small model may go on for ever inside one."""
    if level.get("type") != "string" or level.keys() & {"enum", "const", "pattern", "format"}:
        return level
    return {"maxLength": LONGEST_TEXT, **level}


def verified(
    text: str, category: str, tools: Sequence[Tool], registry: Registry, written: WrittenRows
) -> Conversation:
    """The conversation of a reply after the three stages; `RejectedError` says what failed."""
    conversation = read_written(text, tools)
    if not has_shape(conversation.messages, category):
        raise RejectedError(f"format: not the shape of {category}")
    results: list[tuple[ToolCall, ToolResult]] = []
    messages = _with_results(conversation.messages, registry, results, written)
    ends = [result.outcome for _, result in results]
    failed = [end for end in ends if end is not ToolStatus.OK]
    recovers = category == "error_recovery"
    if recovers and (not failed or ends[-1] is not ToolStatus.OK):
        raise RejectedError("execution: no failed call that a later one makes good")
    if not recovers and failed:
        raise RejectedError(f"execution: a call ended as {failed[0].value}")
    last = messages[-1]
    good = [result for _, result in results if result.outcome is ToolStatus.OK]
    if good and not agrees(last.content or "", good[-1]):
        raise RejectedError("answer: the last message does not carry the result")
    for place, message in enumerate(messages):
        said = " ".join(one.content or "" for one in messages[:place])
        if not all(is_founded(call, said) for call in message.tool_calls):
            raise RejectedError("answer: arguments that nothing before says")
    row = replace(conversation, messages=tuple(messages))
    if fault := next(row_faults(row), None):
        raise RejectedError(f"format: {fault.kind.value}")
    return row


def read_written(text: str, tools: Sequence[Tool]) -> Conversation:
    """Read the JSON object of a reply; calls must fit the schemas."""
    start, end = text.find("{"), text.rfind("}")
    try:
        value = json.loads(text[start : end + 1])
        messages = Conversation.from_dict({"messages": value["messages"]}, set()).messages
    except (ValueError, TypeError, KeyError):
        raise RejectedError("format: no JSON object with messages") from None
    except DataError:
        raise RejectedError("format: messages that cannot be read") from None
    numbered, calls = [], 0
    for message in messages:
        own = []
        for call in message.tool_calls:
            calls += 1
            own.append(replace(call, id=f"call_{calls}"))
        numbered.append(replace(message, tool_calls=tuple(own), tool_call_id=None))
    by_name = {tool.name: tool for tool in tools}
    for message in numbered:
        for call in message.tool_calls:
            if call.name not in by_name:
                raise RejectedError("format: a call of a tool that is not offered")
            if by_name[call.name].problems(call.arguments):
                raise RejectedError("format: arguments that break the schema")
    return Conversation(tuple(numbered), tuple(tools))


def has_shape(messages: Sequence[Message], category: str) -> bool:
    """Whether turns and calls are those of the category; the last message is an answer."""
    roles = [message.role for message in messages]
    users = roles.count("user")
    turns = [message for message in messages if message.role == "assistant"]
    counts = [len(turn.tool_calls) for turn in turns]
    if not turns or roles[0] not in ("user", "system") or not users:
        return False
    if roles[-1] != "assistant" or counts[-1] or not (turns[-1].content or "").strip():
        return False
    shapes = {
        "single": users == 1 and counts == [1, 0],
        "parallel": users == 1 and len(counts) == 2 and counts[0] > 1,
        "multi_turn": users > 1 and sum(counts) > 1 and counts[0] > 0,
        "no_call": users == 1 and counts == [0],
        "missing_information": users == 2 and counts[0] == 0 and sum(counts) > 0,
        "error_recovery": users == 1 and sum(map(bool, counts)) > 1,
    }
    return shapes[category]


def _with_results(
    messages: Sequence[Message],
    registry: Registry,
    results: list[tuple[ToolCall, ToolResult]],
    written: WrittenRows,
) -> list[Message]:
    """The messages with real results; a tool that cannot run here keeps the written ones.

    `results` gets every call with its result, in order.
    """
    groups: list[tuple[Message, list[Message]]] = []
    for message in messages:
        if message.role == "tool":
            groups[-1][1].append(message)
        else:
            groups.append((message, []))
    played: list[Message] = []
    for message, claimed in groups:
        played.append(_filled(message, results) if message.role == "assistant" else message)
        can_run = all(call.name in registry.runnable for call in message.tool_calls)
        if message.tool_calls and can_run:
            own = registry.run_all(message.tool_calls)
        elif len(claimed) != len(message.tool_calls):
            raise RejectedError("format: results that belong to no call, or calls without one")
        else:
            written.not_run += len(claimed)
            own = [_claimed(one.content or "") for one in claimed]
        for call, result in zip(message.tool_calls, own, strict=True):
            results.append((call, result))
            played.append(Message("tool", result.content, tool_call_id=call.id, name=call.name))
    return played


def _claimed(content: str) -> ToolResult:
    """A result as the teacher wrote it; one that speaks of an error is an error."""
    try:
        value = json.loads(content)
    except ValueError:
        value = content
    failed = "error" in (value if isinstance(value, Mapping) else str(value).lower()[:40])
    return ToolResult(ToolStatus.ERROR if failed else ToolStatus.OK, content, value)


def _filled(message: Message, results: Sequence[tuple[ToolCall, ToolResult]]) -> Message:
    """A turn with earlier results in the places `{result}`, `{result2}` and `{result.name}`."""

    def fill(place: re.Match[str]) -> str:
        number = int(place[1] or len(results))
        if not 1 <= number <= len(results):
            raise RejectedError("answer: a place for a result that does not exist")
        result = results[number - 1][1]
        if place[2] is None:
            return result.content
        if not isinstance(result.value, Mapping) or place[2] not in result.value:
            raise RejectedError("answer: a place for a field that the result lacks")
        return str(result.value[place[2]])

    return replace(message, content=PLACE.sub(fill, message.content or ""))


def is_founded(call: ToolCall, said: str) -> bool:
    """Whether a call takes something from what was said: a word of its texts, or all its numbers,
    which may be said in words. A call that holds neither is."""
    plain, texts = said.casefold(), " ".join(texts_in(call.arguments)).casefold()
    words = re.findall(r"[^\W\d_]{2,}", texts)
    values = json.dumps(list(call.arguments.values()))
    numbers, known = ({abs(float(n)) for n in NUMBER.findall(text)} for text in (values, plain))
    if any(word in plain for word in words) or not (words or numbers):
        return True
    return bool(numbers) and (numbers <= known or re.search(PROMPTS["numbers"], plain) is not None)


def agrees(answer: str, result: ToolResult) -> bool:
    """Whether an answer carries a value of the result: its text, or one of its texts or numbers."""
    plain = " ".join(answer.split()).casefold()
    numbers = {float(text) for text in NUMBER.findall(answer.replace(",", ""))}
    values = [result.content, *texts_in(result.value)]
    found = (text for text in values if text.strip())
    if any(" ".join(text.split()).casefold() in plain for text in found):
        return True
    wanted = NUMBER.findall(json.dumps(result.value))
    return any(float(text) in numbers for text in wanted)
