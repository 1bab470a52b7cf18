"""The body of Python calls between marks: `<|tool_call_start|>[f(a="x", n=2), g()]<|tool_call_end|>`.

Values are literals as Python or JSON write them (`literals`). The brackets of the list are part of the marks; calls are joined by
`frame.between`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from toolhone.dialects.base import Problem
from toolhone.dialects.calls import read_arguments
from toolhone.dialects.framed import Found, Frame
from toolhone.dialects.literals import LiteralError, LiteralReader
from toolhone.schema import ToolCall

_HEAD = re.compile(r"\s*([^\s(){}\[\],=\"']{1,256})\s*\(")


@dataclass(frozen=True)
class PythonCalls:
    """Name, named arguments in round brackets."""

    kind: str = field(default="python_calls", init=False)

    def read(self, text: str, start: int, frame: Frame) -> Found:  # noqa: ARG002
        head = _HEAD.match(text, start)
        if head is None:
            return Found(start, (), Problem.NOT_A_CALL)
        reader = LiteralReader(text, head.end())
        try:
            arguments = read_arguments(reader)
        except LiteralError as error:
            problem = Problem.BAD_ARGUMENTS if error.repeated else Problem.UNCLOSED if error.unclosed else Problem.NOT_JSON
            return Found(reader.position, (), problem)
        if arguments is None:
            return Found(reader.position, (), Problem.BAD_ARGUMENTS)
        return Found(reader.position, (ToolCall(head[1], arguments),))
