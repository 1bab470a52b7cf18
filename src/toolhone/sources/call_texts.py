"""Calls and results as the texts of a data set write them, for the sources whose calls stand in what the assistant says.

    read_tagged("Sure. <tool_call> {'name': 'f', 'arguments': {'n': 5}} </tool_call>")    # JSON or Python literals
    read_bracketed("[Market Trends(kind=\"A\"), Quotes(symbol='B')]", tools)              # names may hold spaces
    read_listed("{\"name\": \"f\", \"arguments\": {}}")                                   # one call, a list, or one a line
    talk = Talk(); talk.assistant(said); talk.result("12")                                # numbers calls, links their results

A text is read whole: what is neither a call nor may stand beside one is a `Skip` that names it. Python literals are read without
being evaluated. The forms of one data set alone are in its own source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader
from toolhone.dialects.syntax.model_text import decode
from toolhone.errors import DataError
from toolhone.schema import Json, Message, Tool, ToolCall
from toolhone.sources.base import Skip
from toolhone.sources.rules import FindingKind
from toolhone.sources.tool_specs import fit_call as fitted

_TAG = re.compile(r"\s*<(/?)tool_call>")
_BETWEEN = re.compile(r"[\s,]*")
_KEY = re.compile(r"\s*([^\s=(),\[\]'\"]+)\s*=")
_UNKNOWN_NAME = re.compile(r"\s*([^\s()\[\]=,'\"][^()\[\]=,'\"]*?)\s*\(")
_LOOKS_LIKE_CALLS = re.compile(r"\[[^()\[\]=,'\"]+\((?:\s*\)|[^\s=(),\[\]'\"]+\s*=)")


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered` and the kinds of `data.check`."""

    BAD_CALL = "a call that cannot be read"


class Repair(StrEnum):
    """How a row was mended."""

    TAKEN_APART = "several results in one message taken apart"
    LITERALS = "calls in Python literals instead of JSON"


@dataclass(frozen=True)
class Said:
    """What an assistant's text holds: the words beside the calls (None: no words), the calls, and how they were mended."""

    words: str | None
    calls: tuple[ToolCall, ...] = ()
    repairs: frozenset[str] = frozenset()


def read_value(text: str, start: int = 0) -> tuple[Json, int, bool]:
    """The JSON value or Python literal at `start`, where it ends, and whether it was a literal; `Skip` for anything else."""
    found = decode(text, start)
    if found.problem is ParseProblem.NONE:
        return found.value, found.end, False
    reader = LiteralReader(text, start)
    try:
        return reader.value(), reader.position, True
    except LiteralError:
        raise Skip(
            Reason.BAD_CALL, f"neither JSON nor a literal: {text[start : start + 80]!r}"
        ) from None


def as_call(value: Json) -> ToolCall:
    """A decoded object as a call; `Skip` where it is none."""
    try:
        return ToolCall.from_dict(value)
    except DataError as error:
        raise Skip(Reason.BAD_CALL, str(error)) from None


def fitting(said: Said, tools: Sequence[Tool]) -> Said:
    """The same with arguments as the tools want them, where that is certain."""
    pairs = [fitted(call, tools) for call in said.calls]
    repairs = {repair for _, mended in pairs for repair in mended}
    return Said(said.words, tuple(call for call, _ in pairs), said.repairs | repairs)


def read_tagged(text: str) -> Said:
    """Words, then `<tool_call>` blocks; a block holds one call, a list of calls, or several one after another."""
    first = _TAG.search(text)
    if first is None:
        return Said(text.strip() or None)
    words, calls, literal = text[: first.start()].strip(), list[ToolCall](), False
    for block in _blocks(text[first.start() :]):
        for value, was_literal in read_values(block):
            calls += [as_call(each) for each in (value if isinstance(value, list) else [value])]
            literal = literal or was_literal
    return Said(words or None, tuple(calls), frozenset({Repair.LITERALS} if literal else ()))


def _blocks(text: str) -> Iterator[str]:
    """What stands between the tags of a text that begins with one."""
    text, position = text.rstrip(), 0
    while position < len(text):
        opening = _TAG.match(text, position)
        closing = opening and not opening[1] and _TAG.search(text, opening.end())
        if not opening or not closing or not closing[1]:
            raise Skip(
                Reason.BAD_CALL,
                f"tags that do not enclose a call: {text[position : position + 80]!r}",
            )
        yield text[opening.end() : closing.start()]
        position = closing.end()


def read_values(text: str) -> Iterator[tuple[Json, bool]]:
    """The values of which a text consists, white space or commas between; at least one."""
    position = _behind_space(text, 0)
    if position == len(text):
        raise Skip(Reason.BAD_CALL, "nothing where calls should stand")
    while position < len(text):
        value, end, literal = read_value(text, position)
        yield value, literal
        position = _behind_space(text, end)


def _behind_space(text: str, start: int) -> int:
    found = _BETWEEN.match(text, start)
    return start if found is None else found.end()


def read_listed(text: str) -> Said:
    """Calls alone: an object, a list of objects, or objects one after another."""
    calls, literal = list[ToolCall](), False
    for value, was_literal in read_values(text):
        calls += [as_call(each) for each in (value if isinstance(value, list) else [value])]
        literal = literal or was_literal
    if not calls:
        raise Skip(Reason.BAD_CALL, f"an empty list of calls: {text!r:.60}")
    return Said(None, tuple(calls), frozenset({Repair.LITERALS} if literal else ()))


def read_bracketed(text: str, tools: Sequence[Tool]) -> Said:
    """`[name(key=value), ...]` as calls; any other text as words. Only names of `tools` may hold brackets or quotes."""
    plain = text.strip()
    names = sorted((tool.name for tool in tools), key=len, reverse=True)
    looks_like_calls = any(
        plain.startswith(f"[{name}(") for name in names
    ) or _LOOKS_LIKE_CALLS.match(plain)
    if not looks_like_calls or not plain.endswith("]"):
        return Said(plain or None)
    reader, calls = LiteralReader(plain, 1), list[ToolCall]()
    try:
        while not reader.take("]"):
            calls.append(_bracketed_call(reader, names))
            if not reader.take(","):
                reader.expect("]")
                break
    except LiteralError:
        raise Skip(
            Reason.BAD_CALL, f"{plain[max(0, reader.position - 20) : reader.position + 60]!r}"
        ) from None
    if not reader.at_end() or not calls:
        raise Skip(Reason.BAD_CALL, f"text behind the calls: {plain[reader.position :]!r:.60}")
    return Said(None, tuple(calls))


def _bracketed_call(reader: LiteralReader, names: Sequence[str]) -> ToolCall:
    reader.skip_space()
    name = next(
        (name for name in names if reader.text.startswith(f"{name}(", reader.position)), None
    )
    if name is None:
        found = _UNKNOWN_NAME.match(reader.text, reader.position)
        if found is None:
            raise LiteralError
        name, reader.position = found[1], found.end()
    else:
        reader.position += len(name) + 1
    arguments: dict[str, Json] = {}
    while not reader.take(")"):
        key = _KEY.match(reader.text, reader.position)
        if key is None or key[1] in arguments:
            raise LiteralError
        reader.position = key.end()
        arguments[key[1]] = reader.value()
        if not reader.take(","):
            reader.expect(")")
            break
    return ToolCall(name, arguments)


def numbered(calls: Sequence[ToolCall], before: int) -> tuple[ToolCall, ...]:
    """The calls with ids, `before` being the number of calls that came earlier."""
    return tuple(
        ToolCall(call.name, call.arguments, f"call{before + index}")
        for index, call in enumerate(calls)
    )


def answered(calls: Sequence[ToolCall], text: str) -> tuple[list[Message], set[str]]:
    """The results of open calls that one text holds: taken apart where it lists as many as there are calls, else of the first."""
    found = decode(text, 0) if text.lstrip().startswith("[") else None
    if found is not None and found.problem is ParseProblem.NONE and not text[found.end :].strip():
        values = found.value
        labelled = all(
            isinstance(value, Mapping) and value.keys() >= {"tool_call_id", "content"}
            for value in values
        )
        if len(values) == len(calls) and (len(calls) > 1 or labelled):
            return [
                _result(call, _content(value)) for call, value in zip(calls, values, strict=True)
            ], {Repair.TAKEN_APART}
    return [_result(calls[0], text)], set()


def _content(value: Json) -> str:
    inner = (
        value["content"]
        if isinstance(value, Mapping) and value.keys() >= {"name", "content"}
        else value
    )
    return inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)


def _result(call: ToolCall, content: str) -> Message:
    return Message("tool", content, tool_call_id=call.id, name=call.name)


class Talk:
    """A conversation in the making: turns in their order, calls numbered, each result beside the call it answers."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.repairs: set[str] = set()
        self._open: list[ToolCall] = []
        self._calls = 0

    def say(self, role: str, text: str) -> None:
        """A turn of the user or the system. A second one in a row is joined to the first."""
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == role and role in ("user", "system"):
            self.messages[-1] = Message(role, f"{last.content}\n\n{text}")
            self.repairs.add(f"two turns of the {role} in a row joined")
            return
        self.messages.append(Message(role, text))

    def assistant(self, said: Said, reasoning: str | None = None) -> None:
        """A turn of the assistant. What it says behind words alone is joined to them."""
        calls = numbered(said.calls, self._calls)
        self._calls += len(calls)
        self._open += calls
        self.repairs |= said.repairs
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == "assistant" and not last.tool_calls:
            self.messages.pop()
            said = Said("\n\n".join(filter(None, (last.content, said.words))) or None)
            reasoning = "\n\n".join(filter(None, (last.reasoning, reasoning))) or None
            self.repairs.add("two turns of the assistant in a row joined")
        self.messages.append(Message("assistant", said.words, reasoning, calls))

    def result(self, text: str) -> None:
        """What one message of results says; `Skip` where no call is open."""
        if not self._open:
            raise Skip(FindingKind.RESULT_WITHOUT_CALL, f"{text!r:.80}")
        results, repairs = answered(self._open, text)
        self.messages += results
        self.repairs |= repairs
        self._open = self._open[len(results) :]
