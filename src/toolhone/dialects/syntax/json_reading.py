"""Reading JSON that a model wrote, and JSON text for prompts. Shared by the syntaxes that write calls as JSON.

Reading never raises. Deliberate choices, each because two readers could otherwise understand different calls: a name that occurs
twice in one object, `NaN`, `Infinity`, numbers too large for a double, half a surrogate pair and nesting deeper than `MAX_DEPTH`
are not JSON here. Comments, single quotes and trailing commas are not repaired.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolhone.dialects.base import ParseProblem
from toolhone.errors import DialectError
from toolhone.schema import Json, Message, Tool, ToolCall

MAX_DEPTH = 100
"""Brackets inside each other, at most."""

CALL_ID = re.compile(r"[A-Za-z0-9]{9}")
"""The form of ids of calls that templates ask for (Mistral's take no other), and that the ids have which an episode counts."""
_WINDOW = 2048
_LONGEST_WORD = 16
"""A pair of escaped surrogates, or `-Infinity`: what a cut may fall into."""
_SPACE = re.compile(r"[ \t\r\n]*")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]+|\\.)*+(?:"|\\?\Z)|[{}\[\]]', re.DOTALL)
_HALF_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Decoded:
    """One JSON value found in a text: the value, where it ended, and `NOT_JSON` or `UNCLOSED` when there was none."""

    value: Json
    end: int
    problem: ParseProblem = ParseProblem.NONE


def skip_space(text: str, start: int) -> int:
    """The first position at or after `start` that is not JSON white space."""
    found = _SPACE.match(text, start)
    return start if found is None else found.end()


def decode(text: str, start: int) -> Decoded:
    """The JSON value that begins at `start`, after white space. Failing takes time in proportion to what was read of the value."""
    start = skip_space(text, start)
    try:
        value, end = _decode(text, start)
    except (ValueError, RecursionError):
        return Decoded(None, start, ParseProblem.NOT_JSON)
    if _too_deep(value, text.count("{", start, end) + text.count("[", start, end)):
        return Decoded(None, start, ParseProblem.NOT_JSON)
    if _HALF_SURROGATE.search(text, start, end) and not _is_unicode(value):
        return Decoded(None, start, ParseProblem.NOT_JSON)
    return Decoded(value, end)


def _decode(text: str, start: int) -> tuple[Json, int]:
    """The value at `start` and its end. Read from pieces that grow, for an error of the library counts all lines before it."""
    size = _WINDOW
    while len(text) > size:
        piece = text[start : start + size]
        whole = len(piece) < size
        try:
            value, end = _DECODER.raw_decode(piece)
            if whole or end < size:
                return value, start + end
        except json.JSONDecodeError as error:
            if whole or (
                error.pos < size - _LONGEST_WORD and not error.msg.startswith("Unterminated")
            ):
                raise
        size *= 4
    return _DECODER.raw_decode(text, start)


def open_at_end(text: str, start: int) -> bool:
    """Whether a bracket or string that begins at `start` is still open where the text ends. For texts that `decode` refused."""
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text, start):
        token = found[0]
        if token[0] == '"':
            if len(token) < 2 or not _closed(token):
                return True
            continue
        depth += 1 if token in "{[" else -1
        if depth <= 0:
            return False
    return depth > 0


def decode_sequence(text: str, start: int, separators: str) -> Iterator[Decoded]:
    """JSON objects or lists one after another, with white space and any of `separators` between; stops at anything else."""
    between = re.compile(rf"[\s{re.escape(separators)}]*")
    while start < len(text) and text[start] in "{[":
        found = decode(text, start)
        yield found
        if found.problem is not ParseProblem.NONE:
            return
        gap = between.match(text, found.end)
        start = found.end if gap is None else gap.end()


@dataclass(frozen=True)
class CallCheck:
    """A decoded value as a call, or why it is none."""

    call: ToolCall | None
    problem: ParseProblem = ParseProblem.NONE


def as_call(value: Json, name_key: str, argument_keys: Sequence[str]) -> CallCheck:
    """Read a call out of a decoded object. Arguments may be left out (none), or be a JSON string that holds an object.

    An id that stands beside them is kept where it has the form that templates ask for (`CALL_ID`); any other would be refused
    by the template that writes the result.
    """
    if (
        not isinstance(value, Mapping)
        or not isinstance(value.get(name_key), str)
        or not value[name_key]
    ):
        return CallCheck(None, ParseProblem.NOT_A_CALL)
    present = [key for key in argument_keys if key in value]
    if len(present) > 1:
        return CallCheck(None, ParseProblem.NOT_A_CALL)
    arguments = value[present[0]] if present else {}
    if isinstance(arguments, str):
        inner = decode(arguments or "{}", 0)
        arguments = inner.value if not arguments[inner.end :].strip() else None
    if not isinstance(arguments, Mapping):
        return CallCheck(None, ParseProblem.BAD_ARGUMENTS)
    identity = value.get("id")
    kept = identity if isinstance(identity, str) and CALL_ID.fullmatch(identity) else None
    return CallCheck(ToolCall(value[name_key], dict(arguments), kept))


def write_json(value: Json) -> str:
    """JSON text in one line, characters as they are. `DialectError` for what JSON cannot say."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise DialectError(
            f"a call cannot be written as JSON: {error}; got {value!r:.80}"
        ) from None


def list_tools(tools: Sequence[Tool]) -> str:
    """The tools as JSON objects with name, description and parameters, one per line."""
    bodies = [
        {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
        for tool in tools
    ]
    return "\n".join(write_json(body) for body in bodies)


def result_value(message: Message) -> str:
    """A tool's result as JSON text: as it is when it is JSON in one line already, else as a JSON string."""
    content = message.content or ""
    found = decode(content, 0)
    is_json = (
        found.problem is ParseProblem.NONE
        and not content[found.end :].strip()
        and "\n" not in content.strip()
    )
    return content.strip() if is_json else write_json(content)


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number too large")
    return value


def _refuse(text: str) -> Json:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse)


def _too_deep(value: Json, brackets: int) -> bool:
    if brackets <= MAX_DEPTH:
        return False
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner for outer in level if isinstance(outer, dict | list) for inner in _children(outer)
        ]
        if not level:
            return False
    return True


def _children(value: dict[str, Json] | list[Json]) -> list[Json]:
    return list(value.values()) if isinstance(value, dict) else value


def _is_unicode(value: Json) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _closed(token: str) -> bool:
    if not token.endswith('"'):
        return False
    slashes = len(token) - 1 - len(token[:-1].rstrip("\\"))
    return slashes % 2 == 0
