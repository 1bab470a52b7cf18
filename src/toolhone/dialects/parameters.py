"""The body of calls that write each argument between marks: XML-like forms, and values escaped one by one.

    <function=f><parameter=x>1</parameter></function>
    f<arg_key>x</arg_key><arg_value>1</arg_value>
    call:f{x:<escape>1<escape>,y:<escape>2<escape>}

Between the marks stands plain text; which type it is says the tool's schema (`typed`). White space that the form puts beside a
value is part of the marks and is taken off once, so that a value keeps white space of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from toolhone.dialects.base import Problem
from toolhone.dialects.framed import MAX_NAME, Found, Frame, loose, read_name
from toolhone.dialects.typed import typed_call
from toolhone.schema import Tool, ToolCall


@dataclass(frozen=True)
class Parameters:
    """`opens` key `separates` value `closes`, repeated with `joins` between."""

    opens: str
    separates: str
    closes: str
    joins: str = ""
    kind: str = field(default="parameters", init=False)

    def typed(self, call: ToolCall, tool: Tool | None) -> ToolCall:
        return typed_call(call, tool)

    @cached_property
    def _opening(self) -> re.Pattern[str]:
        return re.compile(r"\s*" + loose(self.opens.strip()) + (r"\s*" if self.opens[-1:].isspace() else ""))

    @cached_property
    def _joint(self) -> re.Pattern[str]:
        return re.compile(r"\s*" + loose(self.joins.strip()))

    @cached_property
    def _closing(self) -> re.Pattern[str]:
        """The end of a value: its mark, with the white space that the form puts before it where that is there."""
        space = self.closes[: len(self.closes) - len(self.closes.lstrip())]
        return re.compile((f"(?:{re.escape(space)})?" if space else "") + loose(self.closes.strip()))

    @cached_property
    def _separator(self) -> re.Pattern[str]:
        body = self.separates.strip()
        space = self.separates[len(self.separates.rstrip()) :] if body else ""
        return re.compile(r"\s*" + loose(body) + (f"(?:{re.escape(space)})?" if space else ""))

    def read(self, text: str, start: int, frame: Frame) -> Found:
        named = self._name(text, start, frame)
        if named is None:
            return Found(start, (), Problem.NOT_A_CALL)
        name, position = named
        arguments: dict[str, str] = {}
        while (opening := self._opening.match(text, position)) is not None:
            key = self._separator.search(text, opening.end(), opening.end() + MAX_NAME + 64)
            if key is None or not text[opening.end() : key.start()].strip():
                return Found(opening.end(), (), Problem.NOT_A_CALL if position < len(text) else Problem.UNCLOSED)
            closing = self._closing.search(text, key.end())
            if closing is None:
                return Found(len(text), (), Problem.UNCLOSED)
            word = text[opening.end() : key.start()].strip()
            if word in arguments:
                return Found(closing.end(), (), Problem.BAD_ARGUMENTS)
            arguments[word] = text[key.end() : closing.start()]
            position = closing.end()
            joint = self._joint.match(text, position) if self.joins.strip() else None
            if joint is not None and self._opening.match(text, joint.end()) is not None:
                position = joint.end()
            elif self.joins.strip():
                break
        return Found(position, (ToolCall(name, arguments),))

    def _name(self, text: str, start: int, frame: Frame) -> tuple[str, int] | None:
        """The name ends at the mark in the middle; without one, where the first argument or the end of the call begins."""
        if frame.middle.strip():
            return read_name(text, start, frame)
        ends = [self._opening.pattern, frame.closing.pattern]
        pattern = re.compile("|".join(f"(?:{end})" for end in ends if end.strip("\\s*")))
        found = pattern.search(text, start, start + MAX_NAME + 128)
        name = "" if found is None else text[start : found.start()].strip()
        return None if found is None or not name or "\n" in name else (name, found.start())
