"""The body of Python calls between marks: `<|tool_call_start|>[f(a="x", n=2), g()]<|tool_call_end|>`.

Values are literals as Python or JSON write them (`literals`); names of arguments may hold anything but quotes at their start,
brackets, commas and `=`. The brackets of a list are part of the marks; calls are joined by `frame.between`.

`raw` is the quote of a form that puts texts between quotes as they are, without escaping anything: such a text ends at a quote
that is followed by the next argument or by the end of the call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.delimited import DelimitedFormat, FoundCalls, followed
from toolhone.dialects.syntax.literals import LiteralError, LiteralReader
from toolhone.schema import Json, ToolCall

_NAME = r"[^\s(){}\[\],=\"']{1,256}"
_HEAD = re.compile(rf"\s*+({_NAME})\s*+\(")
_KEY_TEXT = r"[^\s=(){}\[\],\"'][^=(){}\[\],\n]{0,255}?"
_KEY = re.compile(rf"\s*({_KEY_TEXT})\s*=(?!=)\s*")


@dataclass(frozen=True)
class PythonCalls:
    """Name, named arguments in round brackets."""

    raw: str = ""
    kind: str = field(default="python_calls", init=False)
    begins: str = field(default=rf"{_NAME}\s*+\(", init=False)

    def read(self, text: str, start: int, frame: DelimitedFormat) -> FoundCalls:
        head = _HEAD.match(text, start)
        if head is None:
            return FoundCalls(start, (), ParseProblem.NOT_A_CALL)
        reader = _Arguments(
            text, head.end(), self.raw, _behind_raw(frame), frame.opening_of(self.begins)
        )
        try:
            arguments = reader.arguments()
        except LiteralError as error:
            problem = (
                ParseProblem.BAD_ARGUMENTS
                if error.repeated
                else ParseProblem.UNCLOSED
                if error.unclosed
                else ParseProblem.NOT_JSON
            )
            return FoundCalls(reader.position, (), problem)
        if arguments is None:
            return FoundCalls(reader.position, (), ParseProblem.BAD_ARGUMENTS)
        return FoundCalls(reader.position, (ToolCall(head[1], arguments),))


class _Arguments(LiteralReader):
    """Reads the arguments of one call."""

    def __init__(
        self,
        text: str,
        position: int,
        raw: str,
        behind: re.Pattern[str],
        opening: re.Pattern[str] | None,
    ) -> None:
        super().__init__(text, position)
        self._raw = raw
        self._behind = behind
        self._opening = opening

    def arguments(self) -> dict[str, Json] | None:
        """Named arguments up to the closing bracket; None when one of them has no name."""
        arguments: dict[str, Json] = {}
        nameless = False
        while not self.take(")"):
            given = self._argument()
            nameless = nameless or given is None
            if given is not None and given.keys() & arguments.keys():
                raise LiteralError(repeated=True)
            arguments.update(given or {})
            if not self.take(","):
                self.expect(")")
                break
        return None if nameless else arguments

    def _argument(self) -> dict[str, Json] | None:
        """One argument as a mapping (several behind `**`); None for a value without a name."""
        if self.take("**"):
            value = self.value()
            if not isinstance(value, Mapping):
                raise LiteralError
            return dict(value)
        key = _KEY.match(self.text, self.position)
        if key is None:
            self.value()
            return None
        self.position = key.end()
        return {key[1]: self._named_value()}

    def _named_value(self) -> Json:
        """A literal, or a text between quotes as it is; where no quote ends one, none ends a later one of this call either."""
        if not self._raw or not self.text.startswith(self._raw, self.position):
            return self.value()
        start = self.position + len(self._raw)
        end = followed(_quote(self._raw), self._behind, self.text, start, self._opening)
        if end is None:
            self._raw = ""
            return self.value()
        self.position = end.end()
        return self.text[start : end.start()]


@lru_cache(maxsize=16)
def _quote(quote: str) -> re.Pattern[str]:
    return re.compile(re.escape(quote))


@lru_cache(maxsize=256)
def _behind_raw(frame: DelimitedFormat) -> re.Pattern[str]:
    """The next argument, or the bracket that ends the call."""
    return re.compile(rf"\s*+,\s*+{_KEY_TEXT}\s*+=|\s*+\){frame.follows}")
