"""Read calls and results from the texts of data sets, and build conversations from them.

    read_tagged("Sure. <tool_call> {'name': 'f', 'arguments': {'n': 5}} </tool_call>")
    read_listed('{"name": "f", "arguments": {}}')         # one call, a list, or one a line
    read_bracketed("[Market Trends(kind='A'), Quotes(symbol='B')]", tools)
    read_code("hub.load('a/b', trainable=flag), other(x=1)")
    builder.add_assistant(turn, tools)         # `ConversationBuilder` numbers calls, links results

A text is read completely, or raises `Skip` (`NoCode` from `read_code`). Nothing is evaluated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader, read_literal
from toolhone.dialects.syntax.model_text import decode
from toolhone.errors import DataError, FindingKind
from toolhone.schema import Json, Message, Tool, ToolCall, read_weight
from toolhone.sources.source import Context, Skip
from toolhone.sources.tool_specs import fit_call

BAD_CALL = "a call that cannot be read"
TAKEN_APART = "several results in one message taken apart"
LITERALS = "calls in Python literals instead of JSON"
CODE = "an argument that is code, kept as text"
PLACE = "a value without a name behind named ones"
BEHIND = "text behind the call left out"
_TAG = re.compile(r"\s*<(/?)tool_call>")
_VALUE_START = re.compile(r"[^\s,]")
_KEY = re.compile(r"\s*([^\s=(),\[\]'\"]+)\s*=")
_UNKNOWN_NAME = re.compile(r"\s*([^\s()\[\]=,'\"][^()\[\]=,'\"]*?)\s*\(")
_LOOKS_LIKE_CALLS = re.compile(r"\[[^()\[\]=,'\"]+\((?:\s*\)|[^\s=(),\[\]'\"]+\s*=)")
_CODE_NAME = re.compile(r"\s*([^\W\d][\w.]*)\s*\(")
_CODE_KEY = re.compile(r"\s*([^\W\d]\w*)\s*=(?!=)")
_CODE_STEP = re.compile(r"""[^'"()\[\]{},]+|'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|.""", re.DOTALL)


@dataclass(frozen=True)
class TextTurn:
    """A turn of the assistant: the text beside the calls, the calls, the repairs, the weight.

    unread: keys of the calls that hold something and are passed over.
    """

    content: str | None
    calls: tuple[ToolCall, ...] = ()
    repairs: frozenset[str] = frozenset()
    weight: float = 1
    unread: frozenset[str] = frozenset()


def turn_weight(turn: Mapping[str, Json]) -> float:
    """Return how much a turn of the assistant counts in training (`schema.read_weight`)."""
    try:
        return read_weight(turn)
    except DataError as error:
        raise Skip("a turn whose weight in training cannot be read", str(error)) from None


def as_call(value: Json, unread: set[str], reason: str = BAD_CALL) -> ToolCall:
    """Read a decoded object as a call; `Skip` with this reason for what is none.

    unread: gets the keys that are not read; a call without arguments has none of these.
    """
    try:
        return ToolCall.from_dict(value, unread)
    except DataError as error:
        raise Skip(reason, str(error)) from None


def read_value(text: str, start: int = 0) -> tuple[Json, int, bool]:
    """Read the JSON value or Python literal at `start`, its end, and whether it is a literal."""
    for read in (decode, read_literal):
        found = read(text, start)
        if found.problem is ParseProblem.NONE:
            return found.value, found.end, read is read_literal
    raise Skip(BAD_CALL, f"neither JSON nor a literal: {text[start : start + 80]!r}")


def read_values(text: str) -> Iterator[tuple[Json, bool]]:
    """Read the values of a text, separated by white space or commas; at least one."""
    found = _VALUE_START.search(text)
    if found is None:
        raise Skip(BAD_CALL, "wanted calls, got an empty text")
    while found is not None:
        value, end, literal = read_value(text, found.start())
        yield value, literal
        found = _VALUE_START.search(text, end)


def read_listed(text: str) -> TextTurn:
    """Read calls without text: an object, a list of objects, or objects one after another."""
    turn = _read_objects([text], None)
    if not turn.calls:
        raise Skip(BAD_CALL, f"an empty list of calls: {text!r:.60}")
    return turn


def read_tagged(text: str) -> TextTurn:
    """Read text, then `<tool_call>` blocks of one or several calls."""
    first = _TAG.search(text)
    if first is None:
        return TextTurn(text.strip() or None)
    return _read_objects(_blocks(text[first.start() :]), text[: first.start()].strip() or None)


def _read_objects(blocks: Iterable[str], content: str | None) -> TextTurn:
    calls, literals, unread = list[ToolCall](), set[str](), set[str]()
    for block in blocks:
        for value, literal in read_values(block):
            listed = value if isinstance(value, list) else [value]
            calls += [as_call(one, unread) for one in listed]
            literals |= {LITERALS} if literal else set()
    return TextTurn(content, tuple(calls), frozenset(literals), unread=frozenset(unread))


def _blocks(text: str) -> Iterator[str]:
    """Yield the texts between the tags of a text that begins with one."""
    text, position = text.rstrip(), 0
    while position < len(text):
        opening = _TAG.match(text, position)
        closing = opening and not opening[1] and _TAG.search(text, opening.end())
        if not opening or not closing or not closing[1]:
            rest = text[position : position + 80]
            raise Skip(BAD_CALL, f"tags that do not enclose a call: {rest!r}")
        yield text[opening.end() : closing.start()]
        position = closing.end()


def read_bracketed(text: str, tools: Sequence[Tool]) -> TextTurn:
    """Read `[name(key=value), ...]` as calls, other text as content."""
    plain = text.strip()
    names = sorted((tool.name for tool in tools), key=len, reverse=True)
    begins = any(plain.startswith(f"[{name}(") for name in names)
    if not (begins or _LOOKS_LIKE_CALLS.match(plain)) or not plain.endswith("]"):
        return TextTurn(plain or None)
    reader, calls = LiteralReader(plain, 1), list[ToolCall]()
    try:
        while not reader.take("]"):
            name = next((name for name in names if reader.take(f"{name}(")), None)
            unknown = reader.match(_UNKNOWN_NAME) if name is None else None
            if name is None and unknown is None:
                raise LiteralError
            named, placed = reader.arguments(_KEY)
            if placed:
                raise LiteralError
            calls.append(ToolCall(unknown[1] if unknown else str(name), named))
            if not reader.take(","):
                reader.expect("]")
                break
    except LiteralError:
        around = plain[max(0, reader.position - 20) : reader.position + 60]
        raise Skip(BAD_CALL, repr(around)) from None
    if not reader.at_end() or not calls:
        raise Skip(BAD_CALL, f"text behind the calls: {plain[reader.position :]!r:.60}")
    return TextTurn(None, tuple(calls))


class NoCode(Exception):  # noqa: N818  (a decision about one row, never shown as an error)
    """The text does not begin with a call in Python."""


@dataclass
class CodeCall:
    """A call in a program: values by name, and values by place (from 1)."""

    name: str
    named: dict[str, Json] = field(default_factory=dict)
    placed: dict[int, Json] = field(default_factory=dict)

    def call(self, names: Sequence[str] = ()) -> ToolCall:
        """Return the call; a value gets the name of its place in `names`, or `value_2` etc."""
        arguments: dict[str, Json] = {}
        for place, value in self.placed.items():
            name = names[place - 1] if place <= len(names) else ""
            arguments[name if name and name not in self.named else f"value_{place}"] = value
        return ToolCall(self.name, {**arguments, **self.named})


def read_code(text: str) -> tuple[list[CodeCall], set[str]]:
    """Read the calls at the beginning of a program text, separated by commas, and the repairs.

    A value that is code (a variable, another call) becomes its text.
    """
    calls: list[CodeCall] = []
    reader = _CodeReader(text.strip())
    try:
        while found := reader.match(_CODE_NAME):
            named, placed = reader.arguments(_CODE_KEY)
            calls.append(CodeCall(found[1], named, placed))
            if named and list(placed) != list(range(1, len(placed) + 1)):
                reader.repairs.add(PLACE)
            if not reader.take(","):
                break
    except LiteralError:
        raise NoCode(text) from None
    if not calls:
        raise NoCode(text)
    return calls, reader.repairs | (set() if reader.at_end() else {BEHIND})


class _CodeReader(LiteralReader):
    """Reads arguments that may be code, and collects the repairs."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repairs: set[str] = set()

    def argument(self, name: str | None) -> Json:  # noqa: ARG002
        self.skip_space()
        start = self.position
        found = read_literal(self.text, start)
        self.position = found.end
        self.skip_space()
        ends = self.text[self.position : self.position + 1] in (",", ")")
        if found.problem is ParseProblem.NONE and ends:
            return found.value
        self.position = self._end_of_code(start)
        self.repairs.add(CODE)
        return self.text[start : self.position].strip()

    def _end_of_code(self, start: int) -> int:
        """Return the end of an expression: a comma or bracket outside of brackets and strings."""
        depth = 0
        for step in _CODE_STEP.finditer(self.text, start):
            token = step[0]
            if depth == 0 and token in (",", ")"):
                if not self.text[start : step.start()].strip():
                    break
                return step.start()
            depth += (token in ("(", "[", "{")) - (token in (")", "]", "}"))
        raise LiteralError


class ConversationBuilder:
    """Builds a conversation: numbers calls, and puts each result beside its call."""

    def __init__(self, system: Json = None) -> None:
        self.messages: list[Message] = []
        self.repairs: set[str] = set()
        self.unread: set[str] = set()
        self._open: list[ToolCall] = []
        self._calls = 0
        if isinstance(system, str) and system.strip():
            self.messages.append(Message("system", system.strip()))

    def add_text(self, role: str, text: str) -> None:
        """Add a turn of the user or the system; a second one in a row is joined to the first."""
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == role and role in ("user", "system"):
            self.messages[-1] = Message(role, f"{last.content}\n\n{text}")
            self.repairs.add(f"two turns of the {role} in a row joined")
        else:
            self.messages.append(Message(role, text))

    def add_assistant(
        self, turn: TextTurn, tools: Sequence[Tool] = (), reasoning: str | None = None
    ) -> None:
        """Add a turn of the assistant; it is joined to one before it, unless only that has calls.

        Arguments are converted to the types that the tools declare, where that is certain.
        """
        calls = []
        for call in turn.calls:
            fitted, repairs = fit_call(call, tools)
            self.repairs |= repairs
            calls.append(ToolCall(fitted.name, fitted.arguments, f"call{self._calls}"))
            self._calls += 1
        self._open += calls
        self.repairs |= turn.repairs
        self.unread |= turn.unread
        content, last = turn.content, self.messages[-1] if self.messages else None
        if last is not None and last.role == "assistant" and (calls or not last.tool_calls):
            if last.weight != turn.weight:
                detail = f"{last.weight} and {turn.weight}"
                raise Skip("two turns of the assistant in a row with different weights", detail)
            calls = [*self.messages.pop().tool_calls, *calls]
            content = "\n\n".join(filter(None, (last.content, content))) or None
            reasoning = "\n\n".join(filter(None, (last.reasoning, reasoning))) or None
            self.repairs.add("two turns of the assistant in a row joined")
        message = Message("assistant", content, reasoning, tuple(calls), weight=turn.weight)
        self.messages.append(message)

    def tell(self, context: Context) -> None:
        """Write repairs and unread keys down in the context."""
        context.repairs |= self.repairs
        context.unread |= self.unread

    def add_result(self, text: str) -> None:
        """Add a message of results; `Skip` if no call is open.

        A text that lists a result for each open call is taken apart.
        """
        if not self._open:
            raise Skip(FindingKind.RESULT_WITHOUT_CALL, f"{text!r:.80}")
        results = [text]
        found = decode(text, 0) if text.lstrip().startswith("[") else None
        if found is not None and found.ok and not text[found.end :].strip():
            objects = [value if isinstance(value, Mapping) else {} for value in found.value]
            labelled = all(value.keys() >= {"tool_call_id", "content"} for value in objects)
            if len(objects) == len(self._open) and (len(objects) > 1 or labelled):
                contents = [
                    fields["content"] if fields.keys() >= {"name", "content"} else value
                    for fields, value in zip(objects, found.value, strict=True)
                ]
                results = [
                    content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
                    for content in contents
                ]
                self.repairs.add(TAKEN_APART)
        for call, content in zip(self._open, results, strict=False):
            self.messages.append(Message("tool", content, tool_call_id=call.id, name=call.name))
        self._open = self._open[len(results) :]
