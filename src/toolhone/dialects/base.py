"""What a dialect is: how one format writes tools, calls and results as text, and how that text is read back.

A dialect renders a conversation into `Span`s (text, where it comes from, whether it is trained) and parses an assistant's
text into a `ParsedReply`. `tokenizer.py` turns spans into ids. A dialect never sees token ids, and never guesses from a model's name.

    render(conversation)       the whole conversation, as the lists of spans to train on
    prompt(messages, tools)    everything up to where the assistant starts to write
    suffix(...)                what a tool result adds between two assistant turns
    parse(text)                an assistant's text -> Reply(content, reasoning, calls, problem)

The call syntaxes live in one file each (`json_object.py`, `calls.py`, `tagged.py`, `tool_call_tags.py`, `bare_json.py`); the chat
markup around them in `markup.py` and `native.py`; `choose.py` picks or refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from toolhone.rows import Origin
from toolhone.schema import Conversation, Message, Tool, ToolCall


class ParseProblem(StrEnum):
    """How reading an assistant's text ended."""

    NONE = "none"
    """Well-formed: calls, or plain text and no sign of a call."""
    NOT_JSON = "not_json"
    """A call was begun but its body is not JSON (or not a Python call, in that syntax)."""
    NOT_A_CALL = "not_a_call"
    """The body is well-formed but not a call: no name, or another shape."""
    BAD_ARGUMENTS = "bad_arguments"
    """The arguments are not a mapping."""
    UNCLOSED = "unclosed"
    """A call was begun and never closed: cut off, or the end mark was forgotten."""
    STRAY_MARK = "stray_mark"
    """An end mark without a beginning, or marks inside each other."""
    STRAY_TEXT = "stray_text"
    """Text beside the call in a syntax that leaves no room for it."""


@dataclass(frozen=True)
class Span:
    """A piece of a rendered conversation.

    `trained` spans are what the assistant says, its stop mark included. Only `control` text may become control tokens; text of
    users, tools and data never does. `turn` says which of the assistant's turns a span of an earlier turn belongs to (from 0).
    """

    text: str
    origin: Origin = Origin.PROMPT
    trained: bool = False
    control: bool = True
    turn: int | None = None


Spans = list[Span]


class History(StrEnum):
    """What stands before an assistant's later turn."""

    APPENDED = "appended"
    """The template only ever adds to what is there: one row, whatever the policy."""
    TEMPLATE = "template"
    """The template rewrites earlier turns, and it may: each turn is a row of its own, as the model sees it when it is served."""
    KEPT = "kept"
    """The template rewrites earlier turns, and is not asked: what was said stays as it was said, in one row."""


@dataclass(frozen=True)
class ParsedReply:
    """An assistant's text, read. `calls` holds those that could be read, also when there was a problem with another."""

    content: str | None
    calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    problem: ParseProblem = ParseProblem.NONE

    def to_message(self) -> Message:
        return Message("assistant", self.content, self.reasoning, self.calls)


class Syntax(Protocol):
    """One way to write calls inside an assistant's text."""

    @property
    def name(self) -> str: ...

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """The assistant's text for this content and these calls."""
        ...

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        """The inverse of `write`; never raises, whatever the text. `tools` say the types where the form leaves them open."""
        ...

    def instructions(self, tools: Sequence[Tool]) -> str:
        """System text that tells a model which tools there are and how to call them."""
        ...

    def result(self, message: Message) -> str:
        """The text that shows a tool's result to the model."""
        ...


class Dialect(Protocol):
    """A syntax in a chat markup: everything between conversations and text."""

    name: str
    stop: tuple[str, ...]
    """Texts that end an assistant's turn; each is one control token."""
    ends: tuple[str, ...]
    """The same, with those that a template writes at the end of earlier turns."""
    history: History

    def render(self, conversation: Conversation) -> list[Spans]:
        """The conversation as training text: one list of spans, or one for each assistant turn where history is rewritten."""
        ...

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Spans:
        """Everything before the assistant's next turn, the generation prompt included."""
        ...

    def suffix(
        self, messages: Sequence[Message], tools: Sequence[Tool], results: Sequence[Message]
    ) -> Spans:
        """What follows the assistant's last stop mark: the rest of its turn, the results, the next generation prompt.

        `messages` ends with the assistant's turn that made the calls; `results` are the tool (or user) messages that answer it.
        """
        ...

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        """Read an assistant's text (with or without its stop mark). `tools` say the types where the form leaves them open."""
        ...
