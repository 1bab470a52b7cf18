"""The body of calls that write each argument between marks: XML-like forms, lines, attributes.

    <function=f><parameter=x>1</parameter></function>
    f<arg_key>x</arg_key><arg_value>1</arg_value>
    f(x => "a", y => [1])                            (`literal`: values are JSON or Python literals)

A value is text, typed by the tool's schema (`untyped_values`); the form's own white space beside it
is removed once. It may hold the
mark that ends values: the mark counts where the next argument or the end of the call follows. A
call cut off behind a value does not count, because more arguments may have followed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.delimited import (
    MAX_NAME,
    DelimitedFormat,
    FoundCalls,
    followed,
    is_name,
    loose,
    read_name,
)
from toolhone.dialects.syntax.literals import read_value
from toolhone.dialects.syntax.untyped_values import typed_call
from toolhone.schema import Json, Tool, ToolCall


@dataclass(frozen=True)
class Parameters:
    """`opens` key `separates` value `closes`, repeated with `joins` between."""

    opens: str
    separates: str
    closes: str
    joins: str = ""
    literal: bool = False
    kind: str = field(default="parameters", init=False)
    begins: str = field(default="", init=False)

    def typed(self, call: ToolCall, tool: Tool | None) -> ToolCall:
        return call if self.literal else typed_call(call, tool)

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        named = self._name(text, start, frame)
        if named is None:
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        name, position = named
        arguments: dict[str, Json] = {}
        while (key := _key_pattern(self, frame).match(text, position)) is not None:
            value, position, problem = self._value(text, key.end(), frame)
            if problem is ParseProblem.NONE and key[1] in arguments:
                problem = ParseProblem.BAD_ARGUMENTS
            if problem is not ParseProblem.NONE:
                return FoundCalls(position, (), problem)
            arguments[key[1]] = value
            joint = self._joint.match(text, position)
            if self.joins.strip() and (
                joint is None or _key_pattern(self, frame).match(text, joint.end()) is None
            ):
                break
            position = position if joint is None else joint.end()
        if self._opening is not None and self._opening.match(text, position) is not None:
            return FoundCalls(position, (), ParseProblem.NOT_A_CALL)
        rest = text[position : position + MAX_NAME].strip()
        if frame.after.strip() and (self.joins.strip() + self.opens.strip()).startswith(rest):
            return FoundCalls(position, (), ParseProblem.UNCLOSED)
        return FoundCalls(position, (ToolCall(name, arguments),))

    def _value(
        self, text: str, start: int, frame: DelimitedFormat
    ) -> tuple[Json, int, ParseProblem]:
        """Read the value at `start`, the position behind its closing mark, and the problem."""
        if self.literal:
            found = read_value(text, start, literal=True)
            if found.problem is not ParseProblem.NONE:
                return None, found.end, found.problem
            end = self._closing.match(text, found.end)
            if end is None:
                return None, found.end, ParseProblem.NOT_JSON
            return found.value, end.end(), ParseProblem.NONE
        behind = _behind_pattern(self, frame)
        closing = followed(self._closing, behind, text, start, frame.opening)
        closing = closing or self._closing.search(text, start)
        if closing is None:
            return None, len(text), ParseProblem.UNCLOSED
        return text[start : closing.start()], closing.end(), ParseProblem.NONE

    def _name(self, text: str, start: int, frame: DelimitedFormat) -> tuple[str, int] | None:
        """Read a name up to `middle`, or up to the first argument or the end of the call."""
        if frame.middle.strip():
            return read_name(text, start, frame)
        found = _name_end_pattern(self, frame).search(text, start, start + MAX_NAME + 128)
        name = "" if found is None else text[start : found.start()].strip()
        if found is None or not is_name(name, frame):
            return None
        return name, found.end() + len(frame.middle) * text.startswith(frame.middle, found.end())

    @cached_property
    def _opening(self) -> re.Pattern[str] | None:
        """What begins an argument, if that is more than white space."""
        body = self.opens.strip()
        return re.compile(r"\s*+" + loose(body)) if body else None

    @cached_property
    def _joint(self) -> re.Pattern[str]:
        joins = self.joins.strip()
        return re.compile(r"\s*+" + loose(joins) if joins else re.escape(self.joins))

    @cached_property
    def _closing(self) -> re.Pattern[str]:
        """The end of a value: its mark, with or without the form's white space before it."""
        body = self.closes.strip()
        if not body:
            return re.compile(re.escape(self.closes))
        space = self.closes[: len(self.closes) - len(self.closes.lstrip())]
        return re.compile((f"(?:{re.escape(space)})?" if space else "") + loose(body))


def _opens(body: Parameters) -> str:
    """The pattern of what begins an argument: loose about white space, unless that is all."""
    mark = body.opens.strip()
    if not mark:
        return re.escape(body.opens)
    return r"\s*+" + loose(mark) + (r"\s*+" if body.opens[-1:].isspace() else "")


@lru_cache(maxsize=256)
def _key_pattern(body: Parameters, frame: DelimitedFormat) -> re.Pattern[str]:
    """What begins an argument, its name, and what separates it from its value.

    A name is one line without the mark that ends a value; it has no white space if only white space
    separates arguments.
    """
    mark = body.separates.strip()
    space = body.separates[len(body.separates.rstrip()) :]
    behind = re.escape(body.separates)
    if mark:
        behind = rf"\s*+{loose(mark)}" + (f"(?:{re.escape(space)})?" if space else "")
    letter = rf"(?!{re.escape(body.closes.strip())})[^\n]" if body.closes.strip() else r"[^\n]"
    letter = r"\S" if set(body.closes + body.joins + body.opens) <= {" "} else letter
    key = rf"((?:{letter}){{1,{MAX_NAME}}}?)"
    key = r"\s*+" + key if (body.joins + body.opens).strip() else key
    return re.compile(
        rf"{_opens(body)}(?!{frame.follows}){key}{behind}" + (r"\s*+" if body.literal else "")
    )


@lru_cache(maxsize=256)
def _behind_pattern(body: Parameters, frame: DelimitedFormat) -> re.Pattern[str]:
    """What may follow a value's closing mark: the next argument, or the end of the call."""
    joint = body._joint.pattern
    return re.compile(rf"{joint}(?:{_key_pattern(body, frame).pattern})|{frame.follows}")


@lru_cache(maxsize=256)
def _name_end_pattern(body: Parameters, frame: DelimitedFormat) -> re.Pattern[str]:
    """Where a name without an end mark ends: an argument, white space, the end of the call."""
    ends = [frame.follows]
    ends += [re.escape(frame.middle)] if frame.middle else []
    ends += [_opens(body)] if body.opens else []
    return re.compile(rf"(?={'|'.join(f'(?:{end})' for end in ends)})")
