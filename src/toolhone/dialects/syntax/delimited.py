"""Calls between marks that nobody wrote down: reading with a `DelimitedFormat`, the literal text that probing found around calls.

    P name M arguments (J name M arguments)* S

`before` (P) is what stands before the first call, `between` (J) what stands between two calls, `after` (S) what follows the last
one; what lies inside belongs to a `Body`, one small file each (`json_calls`, `named_json`, `parameters`, `python_calls`,
`name_as_key`, `loose_object`). White space in marks is read loosely; all else in them exactly. A slot stands where a mark repeats
the tool's name, the call's id or its number. Text outside the calls is content; where nothing ends a call, text behind it is
`STRAY_TEXT`. Nothing here knows a model; `derive` finds frame and body.

A frame that plain text may begin with by chance (`[`, for instance) is *weak*: its calls are looked for only where the body's
own beginning follows, or, for bodies that begin in no way of their own, where a line begins; what then is no call is text.

Reading is linear: marks are searched once from left to right, names and ids are bounded in length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.dialects.syntax.model_text import list_tools, open_at_end
from toolhone.errors import DialectError
from toolhone.schema import Message, Tool, ToolCall

NAME_SLOT, ID_SLOT, NUMBER_SLOT = "\x01", "\x02", "\x03"
"""Where a mark repeats the tool's name, holds the call's id, or counts the calls."""
MAX_NAME = 256
SPACE = r"(?:(?<!\s)\s*+|)"
"""White space of any length in front of a mark that is searched for, in time in proportion to it."""
_SLOTS = {
    NAME_SLOT: rf"[^\s<>|\"']{{1,{MAX_NAME}}}?",
    ID_SLOT: r"[\w.:-]{0,80}",
    NUMBER_SLOT: r"\d{1,6}",
}
_ANY_SLOT = "".join(_SLOTS)
_LINE = r"(?:\A|(?<=\n))[ \t]*+"
_NAME_ONLY = re.compile(rf"[^\s{{}}]{{0,{MAX_NAME}}}\Z")
_TAG = re.compile(
    rf"<[^<>\s{_ANY_SLOT}]*>?|\[[^\[\]\s{_ANY_SLOT}]*\]?|[^<>\[\]\s{_ANY_SLOT}]+[>\]]?|[>\]]+"
)
_ORDINARY = re.compile(r"[\w().,:;!?'\"-]*")
_SOLID = re.compile(r"\S")
_SEAM = re.compile(r"(?<=[>\])}])(?=<)|(?<=>)(?=[\[({])")
_PIECE = re.compile(rf"\s+|[{_ANY_SLOT}]|[^\s{_ANY_SLOT}]+")


def loose(mark: str) -> str:
    """The pattern for a mark: white space in it may be any, or none, and may stand between its brackets and tags."""
    return r"\s*+".join(_loose_piece(piece) for piece in _SEAM.split(mark))


def _loose_piece(mark: str) -> str:
    return "".join(
        r"\s*+" if piece.isspace() else _SLOTS.get(piece) or re.escape(piece)
        for piece in _PIECE.findall(mark)
    )


@dataclass(frozen=True)
class FoundCalls:
    """What a body read: the calls, where it ended, and what was wrong (then `end` is where the trouble began)."""

    end: int
    calls: tuple[ToolCall, ...] = ()
    problem: ParseProblem = ParseProblem.NONE


class Body(Protocol):
    """What stands inside a frame."""

    @property
    def kind(self) -> str:
        """What the form is called in certificates."""
        ...

    @property
    def begins(self) -> str:
        """The pattern that all its calls begin with; empty where there is none."""
        ...

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        """The call (or list of calls) that begins at `start`; never raises."""
        ...


@dataclass(frozen=True)
class DelimitedFormat:
    """The marks around calls. `between` is None when the template cannot write two calls, or writes them as one list.

    `lead` is what the template writes in front of an answer. An empty `before` means that a call is looked for only where the
    assistant begins to write.
    """

    before: str
    after: str
    middle: str = ""
    between: str | None = None
    lead: str = ""

    @cached_property
    def weak(self) -> bool:
        """Whether nothing in the mark before a call tells it from plain text."""
        return not _telling(self.before)

    @cached_property
    def opening(self) -> re.Pattern[str] | None:
        """The mark before a call; behind the first call also the one between two, where a call begins without any mark."""
        if not self.before.strip():
            return (
                re.compile(loose(self.between.strip()) + r"\s*+")
                if (self.between or "").strip() and self.between
                else None
            )
        return re.compile((_LINE if self.weak else "") + loose(self.before.strip()) + r"\s*+")

    def opening_of(self, begins: str) -> re.Pattern[str] | None:
        """The same for a body that begins in this way."""
        if not self.weak or not begins or not self.before.strip():
            return self.opening
        return _opening_of(self.before.strip(), begins)

    @cached_property
    def closing(self) -> re.Pattern[str]:
        return re.compile(r"\s*+" + loose(self.after.strip()))

    @cached_property
    def next_closing(self) -> re.Pattern[str] | None:
        """The same, to be searched for; None where nothing ends a call."""
        return re.compile(SPACE + loose(self.after.strip())) if self.after.strip() else None

    @cached_property
    def joint(self) -> re.Pattern[str] | None:
        return (
            None if self.between is None else re.compile(rf"\s*+{loose(self.between.strip())}\s*+")
        )

    @cached_property
    def follows(self) -> str:
        """The pattern for what may stand behind a call: its end mark, the next call, the end of the text."""
        return rf"(?:{self.ends}|\s*+\Z)"

    @cached_property
    def ends(self) -> str:
        """The same without the end of the text, where there are marks."""
        marks = [loose(mark.strip()) for mark in (self.after, self.between or "") if mark.strip()]
        return rf"\s*+(?:{'|'.join(marks) or chr(92) + 'Z'})"

    @cached_property
    def name_end(self) -> re.Pattern[str]:
        """What ends a tool's name: the mark in the middle, where there is one."""
        return re.compile(rf"{SPACE}{loose(self.middle.strip())}\s*+")

    @cached_property
    def signs(self) -> tuple[tuple[str, ParseProblem], ...]:
        """Texts that betray a call that could not be read, where they are left over in the text."""
        firsts = [(mark, ParseProblem.NOT_A_CALL) for mark in _telling(self.before)[:1]]
        return (
            *firsts,
            *(
                (mark, ParseProblem.STRAY_MARK)
                for mark in _telling(self.after)[-1:]
                if mark not in self.before
            ),
        )


@lru_cache(maxsize=256)
def _opening_of(before: str, begins: str) -> re.Pattern[str]:
    return re.compile(rf"{loose(before)}\s*+(?={begins})")


@dataclass(frozen=True)
class DelimitedSyntax:
    """A derived syntax: reads; the model's own template does the writing."""

    frame: DelimitedFormat
    body: Body

    @property
    def name(self) -> str:
        return self.body.kind

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        """All calls in the text, with arguments typed by the tools' schemas where the form leaves types open."""
        reply = read_delimited(text, self.frame, self.body)
        typed = getattr(self.body, "typed", None)
        if typed is None or not reply.calls:
            return reply
        known = {tool.name: tool for tool in tools}
        return ParsedReply(
            reply.content,
            tuple(typed(call, known.get(call.name)) for call in reply.calls),
            None,
            reply.problem,
        )

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:  # noqa: ARG002
        raise DialectError("a derived call syntax is written by the model's own template")

    def instructions(self, tools: Sequence[Tool]) -> str:
        return list_tools(tools)

    def result(self, message: Message) -> str:
        return message.content or ""


class _Ahead:
    """The next place of a pattern at or behind positions that only grow; each part of the text is searched once."""

    def __init__(self, pattern: re.Pattern[str] | None, text: str) -> None:
        self._pattern = pattern
        self._text = text
        self._found: re.Match[str] | None = None

    def at(self, position: int) -> re.Match[str] | None:
        if self._pattern is not None and (self._found is None or self._found.start() < position):
            self._found = self._pattern.search(self._text, position)
            self._pattern = None if self._found is None else self._pattern
        return None if self._pattern is None else self._found


@dataclass(frozen=True)
class _Reading:
    """One text on its way through one frame."""

    text: str
    frame: DelimitedFormat
    body: Body
    openings: _Ahead
    closings: _Ahead

    def first_call(self, position: int) -> tuple[int, int] | None:
        """Where the first call's marks begin and end: at once, where no mark begins it and no lead stands there."""
        if position or self.frame.before.strip():
            return self.next_call(position)
        return (0, len(self.text) - len(self.text.lstrip())) if self.text.strip() else None

    def next_call(self, position: int) -> tuple[int, int] | None:
        """Where the next call's marks begin and end at or behind `position`."""
        found = self.openings.at(position)
        return None if found is None else (found.start(), found.end())

    def run(self, start: int) -> FoundCalls:
        """Calls joined by `between`, up to `after`."""
        calls: list[ToolCall] = []
        found, text, frame = FoundCalls(start), self.text, self.frame
        while True:
            before, found = found, self.body.read(text, start, frame)
            if (
                calls
                and found.problem is ParseProblem.NOT_A_CALL
                and not (frame.between or "").strip()
            ):
                return self._closed(before, calls)
            calls += found.calls
            if found.problem is not ParseProblem.NONE:
                return self._broken(found, tuple(calls))
            joint = frame.joint.match(text, found.end) if frame.joint is not None else None
            if joint is None or not found.end < joint.end() < len(text):
                return self._closed(found, calls)
            start = joint.end()

    def _closed(self, last: FoundCalls, calls: list[ToolCall]) -> FoundCalls:
        """The run of calls with its end mark, or what is wrong behind the last call."""
        closing = self.frame.closing.match(self.text, last.end)
        if closing is not None:
            return FoundCalls(closing.end(), tuple(calls), self._behind(closing.end()))
        if self._may_end(last.end):
            return FoundCalls(self._resume(last.end), tuple(calls), ParseProblem.UNCLOSED)
        return self._broken(
            FoundCalls(last.end, (), ParseProblem.NOT_JSON),
            tuple(calls[: len(calls) - len(last.calls)]),
        )

    def _may_end(self, end: int) -> bool:
        """Whether a call without its end mark is over here: at the end of the text, at the next call, at a part of the mark."""
        solid = _SOLID.search(self.text, end)
        opening = self.openings.at(end)
        if solid is None or (opening is not None and opening.start() <= solid.start()):
            return True
        rest = self.text[solid.start() : solid.start() + 2 * len(self.frame.after)]
        begun = solid.start() + len(rest) == len(self.text) and _packed(
            self.frame.after
        ).startswith(_packed(rest))
        return begun or any(rest.startswith(part) for part in _telling(self.frame.after))

    def _behind(self, end: int) -> ParseProblem:
        """Text behind a call that nothing ends is stray, unless the next call follows."""
        if (
            self.frame.after.strip()
            or _SOLID.search(self.text, end) is None
            or self.next_call(end) is not None
        ):
            return ParseProblem.NONE
        return ParseProblem.STRAY_TEXT

    def _broken(self, found: FoundCalls, calls: tuple[ToolCall, ...]) -> FoundCalls:
        """A call that could not be read; `UNCLOSED` where its end never comes, or comes behind another call's beginning."""
        closing, opening = self.closings.at(found.end), self.openings.at(found.end)
        problem = found.problem
        if problem is ParseProblem.NOT_JSON or (
            problem is ParseProblem.NOT_A_CALL and not self.frame.weak
        ):
            late = closing is None or (opening is not None and opening.start() < closing.start())
            unclosed = (
                late if self.frame.after.strip() else opening is None and self._cut_off(found)
            )
            problem = ParseProblem.UNCLOSED if unclosed else problem
        return FoundCalls(self._resume(found.end), calls, problem)

    def _cut_off(self, found: FoundCalls) -> bool:
        """Whether the text ends in the middle of a name, or of an object."""
        if found.problem is ParseProblem.NOT_A_CALL:
            return _NAME_ONLY.match(self.text, found.end) is not None
        return open_at_end(self.text, found.end)

    def _resume(self, position: int) -> int:
        """Where reading goes on behind a broken call: behind the next closing mark, at the next opening one, or at the end."""
        closing, opening = self.closings.at(position), self.openings.at(position)
        if closing is not None and (opening is None or closing.start() <= opening.start()):
            return closing.end()
        return len(self.text) if opening is None else opening.start()


def _packed(text: str) -> str:
    return "".join(text.split())


def read_delimited(text: str, frame: DelimitedFormat, body: Body) -> ParsedReply:
    """Read the text; never raises."""
    reading = _Reading(
        text,
        frame,
        body,
        _Ahead(frame.opening_of(body.begins), text),
        _Ahead(frame.next_closing, text),
    )
    pieces: list[str] = []
    calls: list[ToolCall] = []
    problem = ParseProblem.NONE
    begun = position = _skip_lead(text, frame)
    mark = reading.first_call(position)
    while mark is not None:
        found = reading.run(mark[1])
        position = mark[1]
        if (
            not frame.weak
            or frame.lead
            or found.calls
            or found.problem is not ParseProblem.NOT_A_CALL
        ):
            pieces.append(text[begun : mark[0]])
            calls += found.calls
            problem = problem if problem is not ParseProblem.NONE else found.problem
            begun = position = max(found.end, mark[1])
        mark = reading.next_call(position)
    pieces.append(text[begun:])
    for sign, betrayed in frame.signs:
        if problem is ParseProblem.NONE and any(sign in piece for piece in pieces):
            problem = betrayed
    if not calls and problem is ParseProblem.NONE:
        return ParsedReply(text[_skip_lead(text, frame) :])
    return ParsedReply(
        "\n".join(filter(None, map(str.strip, pieces))) or None, tuple(calls), None, problem
    )


def _skip_lead(text: str, frame: DelimitedFormat) -> int:
    """Where the text begins behind the lead of an answer; 0 where it does not begin with one."""
    lead = frame.lead.strip()
    start = len(text) - len(text.lstrip())
    if not lead or not text.startswith(lead, start):
        return 0
    end = start + len(lead)
    return end + (frame.lead.endswith("\n") and text.startswith("\n", end))


def _telling(mark: str) -> list[str]:
    """The parts of a mark (tags, for instance) that no plain text would hold by chance."""
    parts = [part for part in _TAG.findall(mark) if len(part) > 2 or not part.isascii()]
    return [part for part in parts if not _ORDINARY.fullmatch(part)]


def read_name(
    text: str, start: int, frame: DelimitedFormat, ends: re.Pattern[str] | None = None
) -> tuple[str, int] | None:
    """The tool's name that begins at `start`, and where what follows its end mark begins. None when there is none."""
    pattern = ends or frame.name_end
    found = pattern.search(text, start, start + MAX_NAME + 64 + len(frame.middle))
    if found is None or found.end() == start:
        return None
    name = text[start : found.start()].strip()
    return (name, found.end()) if is_name(name, frame) else None


def is_name(name: str, frame: DelimitedFormat) -> bool:
    """Whether this may be a tool's name: one line, not too long, without the mark that begins a call."""
    mark = next(iter(_telling(frame.before or frame.between or "")), "\n")
    return bool(name) and len(name) <= MAX_NAME and "\n" not in name and mark not in name


def followed(
    mark: re.Pattern[str],
    follow: re.Pattern[str],
    text: str,
    start: int,
    opening: re.Pattern[str] | None,
) -> re.Match[str] | None:
    """The first mark behind which `follow` stands. Marks that something else follows are passed over, up to the next `opening`."""
    stop: int | None = None
    for found in mark.finditer(text, start):
        if stop is not None and found.start() >= stop:
            return None
        if follow.match(text, found.end()):
            return found
        if stop is None:
            next_call = None if opening is None else opening.search(text, found.end())
            stop = len(text) if next_call is None else next_call.start()
    return None
