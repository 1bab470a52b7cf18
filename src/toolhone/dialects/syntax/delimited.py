"""Read calls between marks: `DelimitedSyntax`, a `DelimitedFormat` around a `Body`.

    P name M arguments (J name M arguments)* S

`before` (P) comes before the first call, `between` (J) between two calls, `after` (S) behind the
last. `probe.derive` finds them. A frame whose `before` plain text may hold by chance (`[`, for
instance) is weak: its calls count only where the body's own beginning follows, or, for bodies
without one, at the beginning of a line. Text outside calls is content. Reading takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.dialects.syntax.model_text import list_tools, open_at_end
from toolhone.errors import DialectError
from toolhone.schema import Message, Tool, ToolCall

NAME_SLOT, ID_SLOT, NUMBER_SLOT = "\x01", "\x02", "\x03"
"""Places in marks: the tool's name, the call's id, the number of the call."""
MAX_NAME = 256
SPACE = r"(?:(?<!\s)\s*+|)"
"""White space in front of a mark that is searched for, in linear time."""
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
    """The pattern of a mark; white space in it, and between its brackets and tags, is free."""
    return r"\s*+".join(
        "".join(
            r"\s*+" if piece.isspace() else _SLOTS.get(piece) or re.escape(piece)
            for piece in _PIECE.findall(part)
        )
        for part in _SEAM.split(mark)
    )


@dataclass(frozen=True)
class FoundCalls:
    """What a body read: the calls and where they end, or a problem and where it begins."""

    end: int
    calls: tuple[ToolCall, ...] = ()
    problem: ParseProblem = ParseProblem.NONE


class Body(Protocol):
    """The form of a call inside its marks."""

    @property
    def kind(self) -> str:
        """The name of the form in certificates."""
        ...

    @property
    def begins(self) -> str:
        """The pattern that all its calls begin with, or an empty string."""
        ...

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        """Read the call (or list of calls) at `start`; never raises."""
        ...


@dataclass(frozen=True)
class DelimitedFormat:
    """The marks around calls.

    between: None if the template cannot write two calls, or writes them as one list. lead: what the
    template writes in front of an answer. With an empty `before`, a call counts only where the
    assistant begins to write.
    """

    before: str
    after: str
    middle: str = ""
    between: str | None = None
    lead: str = ""

    @cached_property
    def weak(self) -> bool:
        """Whether plain text may hold the mark before a call."""
        return not _telling(self.before)

    @cached_property
    def opening(self) -> re.Pattern[str] | None:
        """The mark before a call; without one, the mark between two calls."""
        if self.before.strip():
            return re.compile((_LINE if self.weak else "") + loose(self.before.strip()) + r"\s*+")
        between = (self.between or "").strip()
        return re.compile(loose(between) + r"\s*+") if between else None

    def opening_of(self, begins: str) -> re.Pattern[str] | None:
        """The same for a body with this beginning."""
        if not self.weak or not begins or not self.before.strip():
            return self.opening
        return re.compile(rf"{loose(self.before.strip())}\s*+(?={begins})")

    @cached_property
    def closing(self) -> re.Pattern[str]:
        return re.compile(r"\s*+" + loose(self.after.strip()))

    @cached_property
    def next_closing(self) -> re.Pattern[str] | None:
        """The same for a search; None if nothing ends a call."""
        return re.compile(SPACE + loose(self.after.strip())) if self.after.strip() else None

    @cached_property
    def joint(self) -> re.Pattern[str] | None:
        if self.between is None:
            return None
        return re.compile(rf"\s*+{loose(self.between.strip())}\s*+")

    @cached_property
    def follows(self) -> str:
        """The pattern of what may follow a call: end mark, next call, or the end of the text."""
        return rf"(?:{self.ends}|\s*+\Z)"

    @cached_property
    def ends(self) -> str:
        """The same without the end of the text, if there are marks."""
        marks = [loose(mark.strip()) for mark in (self.after, self.between or "") if mark.strip()]
        return rf"\s*+(?:{'|'.join(marks) or chr(92) + 'Z'})"

    @cached_property
    def name_end(self) -> re.Pattern[str]:
        """What ends a tool's name: the mark in the middle, if there is one."""
        return re.compile(rf"{SPACE}{loose(self.middle.strip())}\s*+")

    @cached_property
    def signs(self) -> tuple[tuple[str, ParseProblem], ...]:
        """Parts of marks that, left over in the text, show a call that could not be read."""
        last = _telling(self.after)[-1:]
        return (
            *((mark, ParseProblem.NOT_A_CALL) for mark in _telling(self.before)[:1]),
            *((mark, ParseProblem.STRAY_MARK) for mark in last if mark not in self.before),
        )


@dataclass(frozen=True)
class DelimitedSyntax:
    """A syntax that only reads; the model's own template writes."""

    frame: DelimitedFormat
    body: Body

    @property
    def name(self) -> str:
        return self.body.kind

    def read_body(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        return self.read(text, tools)

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        """Read all calls; where the form leaves types open, the tools' schemas decide them."""
        reply = read_delimited(text, self.frame, self.body)
        typed = getattr(self.body, "typed", None)
        if typed is None or not reply.calls:
            return reply
        known = {tool.name: tool for tool in tools}
        return replace(
            reply, calls=tuple(typed(call, known.get(call.name)) for call in reply.calls)
        )

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:  # noqa: ARG002
        raise DialectError("a derived call syntax is written by the model's own template")

    def instructions(self, tools: Sequence[Tool]) -> str:
        return list_tools(tools)

    def result(self, message: Message) -> str:
        return message.content or ""


class _Ahead:
    """Finds matches at or behind growing positions; each part of the text is searched once."""

    def __init__(self, pattern: re.Pattern[str] | None, text: str) -> None:
        self._pattern, self._text = pattern, text
        self._found: re.Match[str] | None = None

    def at(self, position: int) -> re.Match[str] | None:
        if self._pattern is not None and (self._found is None or self._found.start() < position):
            self._found = self._pattern.search(self._text, position)
            self._pattern = None if self._found is None else self._pattern
        return None if self._pattern is None else self._found


class _Reading:
    """The reading of one text."""

    def __init__(self, text: str, frame: DelimitedFormat, body: Body) -> None:
        self.text, self.frame, self.body = text, frame, body
        self.openings = _Ahead(frame.opening_of(body.begins), text)
        self.closings = _Ahead(frame.next_closing, text)

    def first_call(self, position: int) -> tuple[int, int] | None:
        """Where the first call's mark begins and ends: at 0 without a mark and a lead."""
        if position or self.frame.before.strip():
            return self.next_call(position)
        return (0, len(self.text) - len(self.text.lstrip())) if self.text.strip() else None

    def next_call(self, position: int) -> tuple[int, int] | None:
        """Where the next call's mark begins and ends at or behind `position`."""
        found = self.openings.at(position)
        return None if found is None else found.span()

    def run(self, start: int) -> FoundCalls:
        """Read calls joined by `between`, up to `after`."""
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
        """Read the end mark behind the calls, or find the problem."""
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
        """Whether a call without its end mark ends here: at the end, a call, a part of the mark."""
        solid = _SOLID.search(self.text, end)
        opening = self.openings.at(end)
        if solid is None or (opening is not None and opening.start() <= solid.start()):
            return True
        after = self.frame.after
        rest = self.text[solid.start() : solid.start() + 2 * len(after)]
        at_end = solid.start() + len(rest) == len(self.text)
        cut_off = at_end and "".join(after.split()).startswith("".join(rest.split()))
        return cut_off or any(rest.startswith(part) for part in _telling(after))

    def _behind(self, end: int) -> ParseProblem:
        """Find text behind a call that no mark ends; the next call may follow."""
        if (
            self.frame.after.strip()
            or _SOLID.search(self.text, end) is None
            or self.next_call(end) is not None
        ):
            return ParseProblem.NONE
        return ParseProblem.STRAY_TEXT

    def _broken(self, found: FoundCalls, calls: tuple[ToolCall, ...]) -> FoundCalls:
        """Resume behind a call that could not be read.

        It is `UNCLOSED` if its end mark is missing, or follows the beginning of another call.
        """
        closing, opening = self.closings.at(found.end), self.openings.at(found.end)
        problem = found.problem
        if problem is ParseProblem.NOT_JSON or (
            problem is ParseProblem.NOT_A_CALL and not self.frame.weak
        ):
            if self.frame.after.strip():
                unclosed = closing is None or (
                    opening is not None and opening.start() < closing.start()
                )
            else:
                unclosed = opening is None and self._cut_off(found)
            problem = ParseProblem.UNCLOSED if unclosed else problem
        return FoundCalls(self._resume(found.end), calls, problem)

    def _cut_off(self, found: FoundCalls) -> bool:
        """Whether the text ends in the middle of a name, or of an object."""
        if found.problem is ParseProblem.NOT_A_CALL:
            return _NAME_ONLY.match(self.text, found.end) is not None
        return open_at_end(self.text, found.end)

    def _resume(self, position: int) -> int:
        """Where reading resumes behind a broken call: its end mark, the next call, or the end."""
        closing, opening = self.closings.at(position), self.openings.at(position)
        if closing is not None and (opening is None or closing.start() <= opening.start()):
            return closing.end()
        return len(self.text) if opening is None else opening.start()


def read_delimited(text: str, frame: DelimitedFormat, body: Body) -> ParsedReply:
    """Read all calls in the text; never raises."""
    reading = _Reading(text, frame, body)
    pieces: list[str] = []
    calls: list[ToolCall] = []
    problem = ParseProblem.NONE
    text_start = position = _skip_lead(text, frame)
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
            pieces.append(text[text_start : mark[0]])
            calls += found.calls
            problem = problem if problem is not ParseProblem.NONE else found.problem
            text_start = position = max(found.end, mark[1])
        mark = reading.next_call(position)
    pieces.append(text[text_start:])
    for sign, shown in frame.signs:
        if problem is ParseProblem.NONE and any(sign in piece for piece in pieces):
            problem = shown
    if not calls and problem is ParseProblem.NONE:
        return ParsedReply(text[_skip_lead(text, frame) :])
    return ParsedReply(
        "\n".join(filter(None, map(str.strip, pieces))) or None, tuple(calls), None, problem
    )


def _skip_lead(text: str, frame: DelimitedFormat) -> int:
    """Where the text begins behind the lead of an answer; 0 without a lead."""
    lead = frame.lead.strip()
    start = len(text) - len(text.lstrip())
    if not lead or not text.startswith(lead, start):
        return 0
    end = start + len(lead)
    return end + (frame.lead.endswith("\n") and text.startswith("\n", end))


def _telling(mark: str) -> list[str]:
    """The parts of a mark (tags, for instance) that plain text does not hold by chance."""
    parts = [part for part in _TAG.findall(mark) if len(part) > 2 or not part.isascii()]
    return [part for part in parts if not _ORDINARY.fullmatch(part)]


def read_name(
    text: str, start: int, frame: DelimitedFormat, ends: re.Pattern[str] | None = None
) -> tuple[str, int] | None:
    """Read the tool's name at `start`. Return it with the position behind its end mark, or None."""
    pattern = ends or frame.name_end
    found = pattern.search(text, start, start + MAX_NAME + 64 + len(frame.middle))
    if found is None or found.end() == start:
        return None
    name = text[start : found.start()].strip()
    return (name, found.end()) if is_name(name, frame) else None


def is_name(name: str, frame: DelimitedFormat) -> bool:
    """Whether this may be a tool's name: one line, not too long, no mark of a call."""
    mark = next(iter(_telling(frame.before or frame.between or "")), "\n")
    return bool(name) and len(name) <= MAX_NAME and "\n" not in name and mark not in name


def followed(
    mark: re.Pattern[str],
    follow: re.Pattern[str],
    text: str,
    start: int,
    opening: re.Pattern[str] | None,
) -> re.Match[str] | None:
    """Find the first mark that `follow` follows; from the second on, only before an `opening`."""
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
