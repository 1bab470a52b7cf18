"""Calls between marks that nobody wrote down: reading with a `Frame`, the literal text that probing found around calls.

    P name M arguments (J name M arguments)* S

`before` (P) is what stands before the first call, `between` (J) what stands between two calls, `after` (S) what follows the last
one; what lies inside belongs to a `Body`, one small file each (`json_calls`, `named_json`, `parameters`, `python_calls`,
`name_as_key`, `loose_object`). White space in marks is read loosely; all else in them exactly. A slot stands where a mark repeats the tool's name
or the call's id. Text outside the calls is content. Nothing here knows a model; `derive` finds frame and body.

Reading is linear: marks are searched once from left to right, names and ids are bounded in length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from toolhone.dialects.base import Problem, Reply
from toolhone.dialects.json_reading import list_tools
from toolhone.errors import DialectError
from toolhone.schema import Message, Tool, ToolCall

NAME_SLOT, ID_SLOT = "\x01", "\x02"
"""Where a mark repeats the tool's name, and where it holds the call's id."""
MAX_NAME = 256
_SLOTS = {NAME_SLOT: rf"[^\s<>|\"']{{1,{MAX_NAME}}}?", ID_SLOT: r"[\w.:-]{0,80}"}
_PIECE = re.compile(rf"\s+|[{NAME_SLOT}{ID_SLOT}]|[^\s{NAME_SLOT}{ID_SLOT}]+")


def loose(mark: str) -> str:
    """The pattern for a mark: white space in it may be any, or none."""
    return "".join(r"\s*" if piece.isspace() else _SLOTS.get(piece) or re.escape(piece) for piece in _PIECE.findall(mark))


@dataclass(frozen=True)
class Found:
    """What a body read: the calls, where it ended, and what was wrong (then `end` is where the trouble was)."""

    end: int
    calls: tuple[ToolCall, ...] = ()
    problem: Problem = Problem.NONE


class Body(Protocol):
    """What stands inside a frame."""

    @property
    def kind(self) -> str:
        """What the form is called in certificates."""
        ...

    def read(self, text: str, start: int, frame: Frame) -> Found:
        """The call (or list of calls) that begins at `start`; never raises."""
        ...


@dataclass(frozen=True)
class Frame:
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
    def opening(self) -> re.Pattern[str]:
        return re.compile(loose(self.before.strip()) + (r"\s*" if self.before.strip() else ""))

    @cached_property
    def closing(self) -> re.Pattern[str]:
        return re.compile(r"\s*" + loose(self.after.strip()))

    @cached_property
    def joint(self) -> re.Pattern[str] | None:
        return None if self.between is None else re.compile(rf"\s*{loose(self.between.strip())}\s*")

    @cached_property
    def name_end(self) -> re.Pattern[str]:
        """What ends a tool's name: the mark in the middle, where there is one."""
        return re.compile(rf"\s*{loose(self.middle.strip())}\s*")

    @cached_property
    def signs(self) -> tuple[tuple[str, Problem], ...]:
        """Texts that betray a call that could not be read, where they are left over in the text."""
        firsts = [(mark, Problem.NOT_A_CALL) for mark in _telling(self.before)[:1]]
        return (*firsts, *((mark, Problem.STRAY_MARK) for mark in _telling(self.after)[-1:] if mark not in self.before))


@dataclass(frozen=True)
class Framed:
    """A derived syntax: reads; the model's own template does the writing."""

    frame: Frame
    body: Body

    @property
    def name(self) -> str:
        return self.body.kind

    def read(self, text: str, tools: Sequence[Tool] = ()) -> Reply:
        """All calls in the text, with arguments typed by the tools' schemas where the form leaves types open."""
        reply = read_framed(text, self.frame, self.body)
        typed = getattr(self.body, "typed", None)
        if typed is None or not reply.calls:
            return reply
        known = {tool.name: tool for tool in tools}
        return Reply(reply.content, tuple(typed(call, known.get(call.name)) for call in reply.calls), None, reply.problem)

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:  # noqa: ARG002
        raise DialectError("a derived call syntax is written by the model's own template")

    def instructions(self, tools: Sequence[Tool]) -> str:
        return list_tools(tools)

    def result(self, message: Message) -> str:
        return message.content or ""


def read_framed(text: str, frame: Frame, body: Body) -> Reply:
    """Read the text; never raises."""
    pieces: list[str] = []
    calls: list[ToolCall] = []
    problem = Problem.NONE
    position = _skip_lead(text, frame)
    while (start := _next_call(text, position, frame)) is not None:
        pieces.append(text[position : start[0]])
        found = _read_run(text, start[1], frame, body)
        calls += found.calls
        problem = problem if problem is not Problem.NONE else found.problem
        position = max(found.end, start[1])
    pieces.append(text[position:])
    for mark, sign in frame.signs:
        if problem is Problem.NONE and any(mark in piece for piece in pieces):
            problem = sign
    if not calls and problem is Problem.NONE:
        return Reply(text[_skip_lead(text, frame) :])
    return Reply("\n".join(filter(None, map(str.strip, pieces))) or None, tuple(calls), None, problem)


def _skip_lead(text: str, frame: Frame) -> int:
    """Where the text begins behind the lead of an answer; 0 where it does not begin with one."""
    lead = frame.lead.strip()
    start = len(text) - len(text.lstrip())
    if not lead or not text.startswith(lead, start):
        return 0
    end = start + len(lead)
    return end + (frame.lead.endswith("\n") and text.startswith("\n", end))


def _next_call(text: str, position: int, frame: Frame) -> tuple[int, int] | None:
    """Where the next call's marks begin and end at or behind `position`."""
    if frame.before.strip():
        found = frame.opening.search(text, position)
    elif position == 0:
        return (0, len(text) - len(text.lstrip())) if text.strip() else None
    else:
        found = None if frame.joint is None or not (frame.between or "").strip() else frame.joint.search(text, position)
    return None if found is None else (found.start(), found.end())


def _read_run(text: str, start: int, frame: Frame, body: Body) -> Found:
    """Calls joined by `between`, up to `after`."""
    calls: list[ToolCall] = []
    while True:
        found = body.read(text, start, frame)
        calls += found.calls
        if found.problem is not Problem.NONE:
            return Found(_resume(text, found.end, frame), tuple(calls), found.problem)
        joint = frame.joint.match(text, found.end) if frame.joint is not None else None
        if joint is not None and joint.end() > found.end and joint.end() < len(text):
            start = joint.end()
            continue
        closing = frame.closing.match(text, found.end)
        if closing is not None:
            return Found(closing.end(), tuple(calls))
        at_end = not text[found.end :].strip()
        return Found(len(text) if at_end else _resume(text, found.end, frame), tuple(calls), Problem.UNCLOSED)


def _resume(text: str, position: int, frame: Frame) -> int:
    """Where reading goes on behind a broken call: behind the next closing mark, else at the next opening one, else at the end."""
    marks = [mark for mark in (frame.after.strip(), frame.before.strip()) if mark]
    closing = frame.closing.search(text, position) if frame.after.strip() else None
    opening = frame.opening.search(text, position) if frame.before.strip() else None
    if not marks or (closing is None and opening is None):
        return len(text)
    if closing is not None and (opening is None or closing.start() <= opening.start()):
        return closing.end()
    return len(text) if opening is None else opening.start()


def _telling(mark: str) -> list[str]:
    """The parts of a mark that no plain text would hold by chance."""
    parts = [part for part in re.split(rf"[\s{NAME_SLOT}{ID_SLOT}]+", mark) if len(part) > 2]
    return [part for part in parts if not part.replace("_", "").isalnum()]


def read_name(text: str, start: int, frame: Frame, ends: re.Pattern[str] | None = None) -> tuple[str, int] | None:
    """The tool's name that begins at `start`, and where what follows its end mark begins. None when there is none."""
    pattern = ends or frame.name_end
    found = pattern.search(text, start, start + MAX_NAME + 64 + len(frame.middle))
    if found is None or found.end() == start:
        return None
    name = text[start : found.start()].strip()
    return (name, found.end()) if name and len(name) <= MAX_NAME and "\n" not in name else None
