"""What goes into a chat template and what comes out, with text from outside kept apart from marks.

writer = ChatWriter(ControlTokenGuard(tokenizer.control_texts), TemplateQuirks())
marked = TemplateMarkup(tokenizer).write(writer.chat(messages), writer.tools(tools), True)
writer.guard.to_spans(marked)        # `control=False` for text of users, tools and data
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count, product
from typing import Any, Literal, NamedTuple, Protocol

import jinja2

from toolhone.dialects.syntax.model_text import split_reasoning, write_reasoning
from toolhone.errors import DialectError
from toolhone.rows import Origin
from toolhone.schema import Json, Message, Tool
from toolhone.schema.json_schema import map_schema
from toolhone.schema.message import result_runs
from toolhone.tokenizer import Span, Spans, TextTokenizer

ChatMessage = Mapping[str, Json]
"""A message as chat templates take it, its texts disguised."""
Chat = Sequence[ChatMessage]

_BASE = 0x10F000
_BEGIN, _END, _BEGIN_TOOL, _END_TOOL, _ESCAPE = (chr(_BASE + i) for i in range(5))
_CLOSING = {_BEGIN: _END, _BEGIN_TOOL: _END_TOOL}
_FIRST_STAND_IN = 5
_RESERVED = re.compile(f"{_ESCAPE}([0-9a-f]{{2}})|[{chr(_BASE)}-{chr(_BASE + 255)}]")
_SPELLED = re.compile(
    rf"\\U00{_BASE >> 8:x}([0-9a-f]{{2}})"
    rf"|\\u{0xD800 + ((_BASE - 0x10000) >> 10):x}\\udc([0-9a-f]{{2}})"
)
"""A reserved character as Python's `repr` writes it, or JSON in ASCII: some templates do."""
_UNSAFE = "so that text from outside cannot be told apart"


class ControlTokenGuard:
    """Disguises text from outside, so that it cannot become one of these control tokens.

    Every character with which a control token may begin or end is replaced by a private stand-in
    of the same length, and whole messages are put between private marks. A template may trim or
    escape such text; text that it cuts in the middle is refused. 256 characters of Unicode's
    private plane 16 are reserved, and escaped where data holds them.
    folding: the tokenizer normalises characters before it looks for control tokens.
    """

    def __init__(self, control: Iterable[str], folding: bool = False) -> None:
        ends = {end for text in control for end in (text[0], text[-1])}
        edges = {end for end in ends if not end.isalnum() and not end.isspace()}
        if folding:
            edges |= set(_look_alikes(frozenset(edges)))
        kept = sorted(edges)[: 255 - _FIRST_STAND_IN]
        stand_ins = {edge: chr(_BASE + _FIRST_STAND_IN + i) for i, edge in enumerate(kept)}
        escapes = {chr(_BASE + i): f"{_ESCAPE}{i:02x}" for i in range(256)}
        self._disguise = str.maketrans({**stand_ins, **escapes})
        self._edges = {stand_in: edge for edge, stand_in in stand_ins.items()}

    def wrap(self, text: str, tool: bool = False) -> str:
        """Disguise a message's text and put it between marks, white space at its ends excepted."""
        body = text.strip()
        if not body:
            return text
        before, _, after = text.partition(body)
        begin = _BEGIN_TOOL if tool else _BEGIN
        return f"{before}{begin}{self.disguise(body)}{_CLOSING[begin]}{after}"

    def disguise(self, value: Json) -> Json:
        """Disguise all strings and keys of a value, without marks, so that they can be compared."""
        if isinstance(value, str):
            if "\\" in value and _SPELLED.search(value):
                raise DialectError(f"a text spells a reserved private character: {value!r:.80}")
            return value.translate(self._disguise)
        if isinstance(value, Mapping):
            keys = [str(key).translate(self._disguise) for key in value]
            return dict(zip(keys, map(self.disguise, value.values()), strict=True))
        return [self.disguise(item) for item in value] if isinstance(value, list | tuple) else value

    def reveal(self, value: Json) -> Json:
        """Return the value with the true text in all its strings and keys, as the model sees it."""
        if isinstance(value, str):
            return _RESERVED.sub(self._true_text, value)
        if isinstance(value, Mapping):
            return {self.reveal(key): self.reveal(item) for key, item in value.items()}
        return [self.reveal(item) for item in value] if isinstance(value, list) else value

    def _true_text(self, found: re.Match[str]) -> str:
        """The character behind an escape or a stand-in; empty for a mark."""
        return chr(_BASE + int(found[1], 16)) if found[1] else self._edges.get(found[0], "")

    def to_spans(
        self,
        marked: str,
        origin: Origin = Origin.PROMPT,
        trained: bool = False,
        turn: int | None = None,
    ) -> Spans:
        """Split a marked text into spans; text of tools has `Origin.TOOL`."""
        spans: Spans = []
        closing = ""
        position = 0
        for found in _RESERVED.finditer(marked):
            kind = Origin.TOOL if closing == _END_TOOL else origin
            _add(spans, Span(marked[position : found.start()], kind, trained, not closing, turn))
            position, mark = found.end(), found[0]
            if mark in _CLOSING and not closing:
                closing = _CLOSING[mark]
            elif mark == closing:
                closing = ""
            elif mark in (_BEGIN, _END, _BEGIN_TOOL, _END_TOOL):
                raise DialectError(f"the chat template cuts a message's text in pieces, {_UNSAFE}")
            else:
                _add(spans, Span(self._true_text(found), kind, trained, False, turn))
        if closing:
            raise DialectError(f"the chat template cuts off a message's text, {_UNSAFE}")
        _add(spans, Span(marked[position:], origin, trained, True, turn))
        return spans


def _add(spans: Spans, span: Span) -> None:
    """Append a span, joined to the last one where they differ in text only."""
    if not span.text:
        return
    if spans and replace(spans[-1], text="") == replace(span, text=""):
        spans[-1] = replace(span, text=spans[-1].text + span.text)
    else:
        spans.append(span)


@lru_cache(maxsize=8)
def _look_alikes(edges: frozenset[str]) -> tuple[str, ...]:
    """Characters that a Unicode normal form turns into one of `edges`: full-width `<`, say."""
    blocks = (range(0xA0, 0xD800), range(0xF900, 0x20000))
    return tuple(
        character
        for block in blocks
        for character in map(chr, block)
        if unicodedata.normalize("NFKD", character)[:1] in edges
    )


TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What a chat template may raise for input that it was not written for."""


_NOT_KWARGS = re.compile(
    "messages?|tools?|tool_call|documents|content|role|loop|namespace|add_generation_prompt"
    "|(bos|eos|pad|unk)_token|system_message|raise_exception|strftime_now|date_string"
    "|(builtin|custom)_tools|model_identity|continue_final_message"
)
_FLAGS = (
    re.compile(r"(?<![\w.\]'\"])([a-z_]\w*)\s+is\s+(?:not\s+)?(?:defined|true|false)\b"),
    re.compile(r"(?<![\w.\]'\"])([a-z_]\w*)\s*\|\s*default\(\s*(?:[Tt]rue|[Ff]alse)"),
    re.compile(r"(?:if|and|or)\s+not\s+([a-z_]\w*)\s*(?:-?%\}|and\b|or\b)"),
    re.compile(r"\bor\s+([a-z_]*training[a-z_]*)\b"),
)
_LOOP_NAMES = re.compile(r"\{%-?\s*(?:for\s+(?:\w+\s*,\s*)?|macro\s+)([a-z_]\w*)")


class Markup(Protocol):
    """Writes chat messages as one marked text."""

    @property
    def name(self) -> str: ...

    def write(self, messages: Chat, tools: Sequence[Json], header: bool) -> str:
        """Write the messages; with `header`, up to where the assistant starts to write.

        `DialectError` when it cannot.
        """


class TemplateMarkup:
    """The model's own chat template. It gets `template_kwargs` beside messages and tools."""

    name = "template"

    def __init__(
        self, tokenizer: TextTokenizer, template_kwargs: Mapping[str, Json] | None = None
    ) -> None:
        if not tokenizer.wrapped.chat_template:
            raise DialectError("the model's tokenizer has no chat template")
        self._apply: Any = tokenizer.wrapped.apply_chat_template
        self.template_kwargs = dict(template_kwargs or {})
        self.source = str(tokenizer.wrapped.chat_template)
        self.hash = hashlib.sha256(self.source.encode()).hexdigest()

    def write(self, messages: Chat, tools: Sequence[Json], header: bool) -> str:
        reason = ""
        tries: list[list[Json] | None] = [list(tools)] if tools else [None, []]
        for offered in tries:
            try:
                options = {"add_generation_prompt": header, "tokenize": False}
                text = str(self._apply(list(messages), offered, **options, **self.template_kwargs))
                return _SPELLED.sub(lambda code: chr(_BASE + int(code[1] or code[2], 16)), text)
            except TEMPLATE_ERRORS as error:
                reason = reason or (str(error) or type(error).__name__).split("\n")[0]
        raise DialectError(f"the chat template refuses the conversation: {reason:.200}")

    def known_kwargs(self) -> list[tuple[str, bool]]:
        """Return keywords that the template may take, found in its text, with False and with True.

        At most eight names: those that it tests or gives a default, and that are no part of a
        message.
        """
        loops = _LOOP_NAMES.findall(self.source)
        found = dict.fromkeys(name for pattern in _FLAGS for name in pattern.findall(self.source))
        names = [name for name in found if name not in loops and not _NOT_KWARGS.fullmatch(name)]
        return list(product(names[:8], (False, True)))


@dataclass(frozen=True)
class CheckedMarkup:
    """A template that escapes some characters (as `&lt;`): a text that holds one is refused.

    The disguise hides these characters from the template, so that every text is written twice.
    """

    template: TemplateMarkup
    guard: ControlTokenGuard
    name: str = "template"

    def write(self, messages: Chat, tools: Sequence[Json], header: bool) -> str:
        text = self.template.write(messages, tools, header)
        reveal = self.guard.reveal
        if self.template.write(reveal(list(messages)), reveal(list(tools)), header) != reveal(text):
            raise DialectError(
                "the chat template writes <, > or & in this text in another way (it escapes them)"
            )
        return text


@dataclass(frozen=True)
class TemplateQuirks:
    """What a template wants in messages.

    arguments: a mapping, or JSON text. empty: empty text beside calls, or none. reasoning: the
    field for reasoning; None where it is part of the text. beside_calls_only: the field works in
    turns with calls only. inline_refs: schemas of tools are written without references. ids: short,
    or named, as `functions.NAME:NUMBER`, for templates that show of a call its id and no name.
    described: arguments without a description get an empty one. bare_tools: tools are not wrapped
    as functions.
    """

    arguments: Literal["mapping", "string"] = "mapping"
    empty: Literal["text", "absent"] = "text"
    reasoning: str | None = None
    beside_calls_only: bool = False
    inline_refs: bool = False
    ids: Literal["short", "named"] = "short"
    described: bool = False
    bare_tools: bool = False


KNOWN_TOOLS = 1024
"""Tools whose written form is kept; conversations of one set share their tools."""


@dataclass(frozen=True)
class ChatWriter:
    """Converts messages and tools into the form that chat templates take, disguised."""

    guard: ControlTokenGuard
    quirks: TemplateQuirks
    known: dict[int, tuple[Tool, Json]] = field(default_factory=dict, compare=False, repr=False)
    """Tools that were written before, by the id of the object, and what was written."""

    def tools(self, tools: Sequence[Tool]) -> list[Json]:
        written: list[Json] = []
        for tool in tools:
            if self.known.get(id(tool), (None,))[0] is not tool:
                if len(self.known) >= KNOWN_TOOLS:
                    self.known.clear()
                plain = (tool.inlined if self.quirks.inline_refs else tool).to_dict()["function"]
                if self.quirks.described:
                    plain["parameters"] = map_schema(plain["parameters"], _with_descriptions)
                made: Json = self.guard.disguise(plain)
                if not self.quirks.bare_tools:
                    made = {"type": "function", "function": made}
                self.known[id(tool)] = tool, made
            written.append(self.known[id(tool)][1])
        return written

    def chat(self, messages: Sequence[Message]) -> list[ChatMessage]:
        chat: list[ChatMessage] = []
        for message, ids, answers in link_calls(messages, self.quirks.ids == "named"):
            if message.role == "assistant":
                chat.append(self._assistant(split_reasoning(message), ids))
                continue
            content = self.guard.wrap(message.content or "", tool=answers is not None)
            role = "system" if message.role == "developer" else message.role
            other: dict[str, Json] = {"role": role, "content": content}
            if answers is not None:
                other["tool_call_id"] = self.guard.disguise(answers.id)
                other["name"] = self.guard.disguise(answers.tool or "tool")
            chat.append(other)
        return chat

    def _assistant(self, message: Message, ids: Sequence[str]) -> ChatMessage:
        quirks, wrap = self.quirks, self.guard.wrap
        content: str | None = wrap(message.content or "")
        result: dict[str, Json] = {"role": "assistant"}
        if message.reasoning:
            reasoning = wrap(message.reasoning.strip())
            if quirks.reasoning and (message.tool_calls or not quirks.beside_calls_only):
                result[quirks.reasoning] = reasoning
            else:
                content = write_reasoning(reasoning) + (content or "")
        if message.tool_calls and not content and quirks.empty == "absent":
            content = None
        result["content"] = content
        calls: list[Json] = []
        for call, new in zip(message.tool_calls, ids, strict=True):
            arguments: Json = self.guard.disguise(dict(call.arguments))
            if quirks.arguments == "string":
                arguments = json.dumps(arguments, ensure_ascii=False)
            function = {"name": self.guard.disguise(call.name), "arguments": arguments}
            calls.append({"id": self.guard.disguise(new), "type": "function", "function": function})
        return {**result, "tool_calls": calls} if calls else result


def _with_descriptions(level: dict[str, Json]) -> dict[str, Json]:
    """A level of a schema whose properties all have a description."""
    if isinstance(properties := level.get("properties"), dict):
        described = {
            name: {"description": "", **one} if isinstance(one, dict) else one
            for name, one in properties.items()
        }
        return {**level, "properties": described}
    return level


class AnsweredCall(NamedTuple):
    """The call that a tool message answers: its new id, and its tool where that is known."""

    id: str
    tool: str | None


def link_calls(
    messages: Sequence[Message], named: bool = False
) -> Iterator[tuple[Message, list[str], AnsweredCall | None]]:
    """Yield each message with new ids for its calls, and the call that a tool message answers.

    Ids are nine letters and digits, numbered throughout; named: `functions.NAME:NUMBER`. Results
    that stand in a row are yielded in
    the order of their calls. `DialectError` where several calls are open and a result is missing in
    front of others, or answers none of them.
    """
    counter = count()
    ids = [
        [
            f"functions.{call.name}:{next(counter)}" if named else f"call{next(counter):05d}"
            for call in message.tool_calls
        ]
        for message in messages
    ]
    order, answered = list(range(len(messages))), dict[int, AnsweredCall]()
    for start, end, calls, answers in result_runs(messages):
        numbers = [len(calls) if number is None else number for number in answers]
        gap = None in answers or sorted(numbers) != list(range(len(numbers)))
        if len(calls) > 1 and gap:
            what = f"messages[{start}:{end}] are not the results of the {len(calls)} open calls"
            raise DialectError(f"{what}: one is missing, doubled or of another call")
        if len(calls) == 1 and 0 not in numbers:
            numbers[0] = 0
        order[start:end] = [
            place for _, place in sorted(zip(numbers, order[start:end], strict=True))
        ]
        for place, number in enumerate(numbers, start=start):
            if number < len(calls):
                at, own = calls[number]
                answered[place] = AnsweredCall(ids[at][own], messages[at].tool_calls[own].name)
    for place in order:
        message, found = messages[place], answered.get(place, AnsweredCall("call00000", None))
        is_result = message.role == "tool"
        yield (
            message,
            ids[place],
            found._replace(tool=message.name or found.tool) if is_result else None,
        )
