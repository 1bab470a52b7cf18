"""Read calls between marks: `DelimitedSyntax`, a `DelimitedFormat` around a `Body`.

    P name M arguments (J name M arguments)* S

`before` (P) comes before the first call, `between` (J) between two calls, `after` (S) behind the
last; `probe.derive` finds them. Text outside calls is content. Reading takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

from toolhone.dialects.interface import ParsedReply, ParseProblem
from toolhone.dialects.syntax.model_text import FoundCalls, open_at_end, reply_of
from toolhone.errors import DialectError
from toolhone.schema import Tool, ToolCall

NAME_SLOT, ID_SLOT, NUMBER_SLOT, FLAG_SLOT = "\x01", "\x02", "\x03", "\x04"
"""Places in marks: the tool's name, the call's id, the number of the call, true or false."""
MAX_NAME = 256
SPACE = r"(?:(?<!\s)\s*+|)"
"""White space in front of a mark that is searched for, in linear time."""
_SLOTS = {
    NAME_SLOT: rf"[^\s<>|\"']{{1,{MAX_NAME}}}?",
    ID_SLOT: r"[\w.:-]{0,80}",
    NUMBER_SLOT: r"\d{1,6}",
    FLAG_SLOT: r"(?:true|false)",
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

_RECIPIENT = re.compile(
    r"(?: ?to=functions\.([\w.-]{1,256})<\|channel\|>\w{1,20}"
    r"|<\|channel\|>\w{1,20} to=functions\.([\w.-]{1,256}))"
    r" ?(?:<\|constrain\|>)?(?:json)?<\|message\|>"
)
"""The header of a call in Harmony: its recipient before its channel, or behind it."""


def loose(mark: str) -> str:
    """The pattern of a mark; white space in it, and between its brackets and tags, is free."""
    return r"\s*+".join(
        "".join(
            r"\s*+" if piece.isspace() else _SLOTS.get(piece) or re.escape(piece)
            for piece in _PIECE.findall(part)
        )
        for part in _SEAM.split(mark)
    )


class Body(Protocol):
    """The form of a call inside its marks."""

    @property
    def kind(self) -> str:
        """The name of the form in certificates."""

    @property
    def begins(self) -> str:
        """The pattern that all its calls begin with, or an empty string."""

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        """Read the call (or list of calls) at `start`; never raises."""


class FramePatterns(NamedTuple):
    """What the marks of a frame match."""

    opening: re.Pattern[str] | None
    """The mark before a call; without one, the mark between two calls."""
    closing: re.Pattern[str]
    next_closing: re.Pattern[str] | None
    """The same for a search; None if nothing ends a call."""
    joint: re.Pattern[str] | None
    ends: str
    """What may follow a call: its end mark, or the mark of the next call."""
    follows: str
    """The same, or the end of the text."""
    name_end: re.Pattern[str]
    """What ends a tool's name: the mark in the middle, if there is one."""


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
        """Whether plain text may hold the mark before a call (`[`, for instance) by chance.

        Its calls count only where the body's own beginning follows, or, for bodies without one, at
        the beginning of a line.
        """
        return not _telling(self.before)

    @cached_property
    def patterns(self) -> FramePatterns:
        before, after, between = (
            self.before.strip(),
            self.after.strip(),
            (self.between or "").strip(),
        )
        begin, end, line = loose(before or between), loose(after), _LINE if self.weak else ""
        ends = rf"\s*+(?:{'|'.join(map(loose, filter(None, (after, between)))) or chr(92) + 'Z'})"
        joint = None if self.between is None else re.compile(rf"\s*+{loose(between)}\s*+")
        return FramePatterns(
            opening=re.compile((line if before else "") + begin + r"\s*+") if begin else None,
            closing=re.compile(r"\s*+" + end),
            next_closing=re.compile(SPACE + end) if end else None,
            joint=joint,
            ends=ends,
            follows=rf"(?:{ends}|\s*+\Z)",
            name_end=re.compile(rf"{SPACE}{loose(self.middle.strip())}\s*+"),
        )

    def opening_of(self, begins: str) -> re.Pattern[str] | None:
        """Return the pattern of the mark before a call whose body begins so."""
        if not self.weak or not begins or not self.before.strip():
            return self.patterns.opening
        return re.compile(rf"{loose(self.before.strip())}\s*+(?={begins})")

    @cached_property
    def signs(self) -> tuple[tuple[str, ParseProblem], ...]:
        """Parts of marks that, left over in the text, show a call that could not be read."""
        last = [mark for mark in _telling(self.after)[-1:] if mark not in self.before]
        return (
            *((mark, ParseProblem.NOT_A_CALL) for mark in _telling(self.before)[:1]),
            *((mark, ParseProblem.STRAY_MARK) for mark in last),
        )

    def skip_lead(self, text: str) -> int:
        """Return where the text begins behind the lead of an answer; 0 without a lead."""
        lead = self.lead.strip()
        start = len(text) - len(text.lstrip())
        if not lead or not text.startswith(lead, start):
            return 0
        end = start + len(lead)
        return end + (self.lead.endswith("\n") and text.startswith("\n", end))


@dataclass(frozen=True)
class DelimitedSyntax:
    """A syntax that only reads; the model's own template writes."""

    frame: DelimitedFormat
    body: Body

    @property
    def name(self) -> str:
        return self.body.kind

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        """Read all calls; where the form leaves types open, the tools' schemas decide them."""
        reply = _Reading(self._in_order(text), self.frame, self.body).reply()
        typed = getattr(self.body, "typed", None)
        if typed is None or not reply.calls:
            return reply
        known = {tool.name: tool for tool in tools}
        return replace(
            reply, calls=tuple(typed(call, known.get(call.name)) for call in reply.calls)
        )

    read_body = read

    def _in_order(self, text: str) -> str:
        """Write recipient and channel of Harmony's calls in the order of the template; models and
        servers use both."""
        before, middle = self.frame.before, self.frame.middle
        if "to=functions." not in before or "<|channel|>" not in before + middle:
            return text
        return _RECIPIENT.sub(lambda found: f"{before}{found[1] or found[2]}{middle}", text)

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:  # noqa: ARG002
        raise DialectError("a derived call syntax is written by the model's own template")


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
        self.closings = _Ahead(frame.patterns.next_closing, text)

    def reply(self) -> ParsedReply:
        """Read all calls in the text, and the text around them."""
        text, frame = self.text, self.frame
        pieces: list[str] = []
        found: list[FoundCalls] = []
        begin = position = frame.skip_lead(text)
        mark = self.openings.at(position)
        if not position and not frame.before.strip():
            mark = re.match(r"\s*+(?=.)", text, re.DOTALL)
        while mark is not None:
            run, position = self._run(mark.end()), mark.end()
            unread = not run.calls and run.problem is ParseProblem.NOT_A_CALL
            if not frame.weak or frame.lead or not unread:
                pieces.append(text[begin : mark.start()])
                found.append(run)
                begin = position = max(run.end, mark.end())
            mark = self.openings.at(position)
        pieces.append(text[begin:])
        signs = [shown for sign, shown in frame.signs if any(sign in one for one in pieces)]
        found += [FoundCalls(begin, (), shown) for shown in signs]
        return reply_of(text[frame.skip_lead(text) :], pieces, found)

    def _run(self, start: int) -> FoundCalls:
        """Read calls joined by `between`, up to `after`."""
        calls: list[ToolCall] = []
        found, text, frame = FoundCalls(start), self.text, self.frame
        unjoined, joints = not (frame.between or "").strip(), frame.patterns.joint
        while True:
            before, found = found, self.body.read(text, start, frame)
            if calls and unjoined and found.problem is ParseProblem.NOT_A_CALL:
                return self._closed(before, calls)
            calls += found.calls
            if found.problem is not ParseProblem.NONE:
                return self._broken(found, calls)
            joint = joints.match(text, found.end) if joints is not None else None
            if joint is None or not found.end < joint.end() < len(text):
                return self._closed(found, calls)
            start = joint.end()

    def _closed(self, last: FoundCalls, calls: list[ToolCall]) -> FoundCalls:
        """Read the end mark behind the calls, or find the problem.

        Behind a call that no mark ends, only the next call may follow.
        """
        closing = self.frame.patterns.closing.match(self.text, last.end)
        if closing is not None:
            end = closing.end()
            stray = not self.frame.after.strip() and _SOLID.search(self.text, end) is not None
            stray = stray and self.openings.at(end) is None
            problem = ParseProblem.STRAY_TEXT if stray else ParseProblem.NONE
            return FoundCalls(end, tuple(calls), problem)
        if self._may_end(last.end):
            return FoundCalls(self._resume(last.end), tuple(calls), ParseProblem.UNCLOSED)
        broken = FoundCalls(last.end, (), ParseProblem.NOT_JSON)
        return self._broken(broken, calls[: len(calls) - len(last.calls)])

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

    def _broken(self, found: FoundCalls, calls: Sequence[ToolCall]) -> FoundCalls:
        """Resume behind a call that could not be read.

        It is `UNCLOSED` if its end mark is missing, or follows the beginning of another call; in a
        form without end marks, if the text ends in the middle of a name, or of an object.
        """
        text, end, problem = self.text, found.end, found.problem
        no_call = problem is ParseProblem.NOT_A_CALL
        closing, opening = self.closings.at(end), self.openings.at(end)
        if problem is ParseProblem.NOT_JSON or (no_call and not self.frame.weak):
            if self.frame.after.strip():
                unclosed = closing is None or (
                    opening is not None and opening.start() < closing.start()
                )
            else:
                unclosed = opening is None and bool(
                    _NAME_ONLY.match(text, end) if no_call else open_at_end(text, end)
                )
            problem = ParseProblem.UNCLOSED if unclosed else problem
        return FoundCalls(self._resume(end), tuple(calls), problem)

    def _resume(self, position: int) -> int:
        """Where reading resumes behind a broken call: its end mark, the next call, or the end."""
        closing, opening = self.closings.at(position), self.openings.at(position)
        if closing is not None and (opening is None or closing.start() <= opening.start()):
            return closing.end()
        return len(self.text) if opening is None else opening.start()


def _telling(mark: str) -> list[str]:
    """The parts of a mark (tags, for instance) that plain text does not hold by chance."""
    parts = [part for part in _TAG.findall(mark) if len(part) > 2 or not part.isascii()]
    return [part for part in parts if not _ORDINARY.fullmatch(part)]


def read_name(
    text: str, start: int, frame: DelimitedFormat, ends: re.Pattern[str] | None = None
) -> tuple[str, int] | None:
    """Read the tool's name at `start`. Return it with the position behind its end mark, or None."""
    pattern = ends or frame.patterns.name_end
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
