"""A dialect: how one format writes tools, calls and results as text, and reads that text back.

It renders conversations into `Span`s, which `tokenizer.py` encodes; it never sees token
ids, and never guesses from a model's name. `choose.open_dialect` opens one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from toolhone.schema import Conversation, Message, Tool, ToolCall
from toolhone.tokenizer import Spans


class ParseProblem(StrEnum):
    """How reading an assistant's text ended."""

    NONE = "none"
    """Well-formed: calls, or plain text without a sign of a call."""
    NOT_JSON = "not_json"
    """A call begins, but its body is not JSON (or not a Python call, in that syntax)."""
    NOT_A_CALL = "not_a_call"
    """The body is well-formed but not a call: no name, or another shape."""
    BAD_ARGUMENTS = "bad_arguments"
    """The arguments are not a mapping."""
    UNCLOSED = "unclosed"
    """A call begins and never ends: the text was cut off, or lacks the end mark."""
    STRAY_MARK = "stray_mark"
    """An end mark without a beginning, or marks inside each other."""
    STRAY_TEXT = "stray_text"
    """Text beside the call in a syntax that has no room for it."""


class History(StrEnum):
    """What precedes an assistant's later turn."""

    APPENDED = "appended"
    """The template only adds text: one row for a conversation."""
    TEMPLATE = "template"
    """The template rewrites earlier turns: one row for each turn, as the model sees it in use."""
    KEPT = "kept"
    """Earlier turns stay as they were generated, though the template would rewrite them."""


@dataclass(frozen=True)
class ParsedReply:
    """An assistant's text, read. `calls` holds the readable ones, also beside a problem."""

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
        """Write the assistant's text for this content and these calls."""

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        """Read any text; never raises. `tools` give the types where the form leaves them open."""

    def read_body(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        """Read text without a block of reasoning in front of it; never raises."""


class Dialect(Protocol):
    """A syntax in a chat markup: everything between conversations and text."""

    name: str
    stop: tuple[str, ...]
    """Texts that end an assistant's turn; each is one control token."""
    ends: tuple[str, ...]
    """The same, with those that a template writes at the end of earlier turns."""
    history: History

    def render(self, conversation: Conversation) -> list[Spans]:
        """Render training text: one list of spans, or one per turn where history is rewritten."""

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Spans:
        """Render everything before the assistant's next turn, generation prompt included."""

    def suffix(
        self, messages: Sequence[Message], tools: Sequence[Tool], results: Sequence[Message]
    ) -> Spans:
        """Render what follows the assistant's stop mark, up to the next generation prompt.

        `messages` ends with the assistant's turn that made the calls; `results` answer it.
        """

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        """Read an assistant's text, with or without its stop mark."""
