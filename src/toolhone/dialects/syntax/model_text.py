"""Read what a model wrote: the reasoning block in front, and JSON; for all call syntaxes.

Reading never raises. What two readers could understand differently is not JSON here: a repeated
key, `NaN`, `Infinity`, a number too large for a double, half a surrogate pair, and nesting deeper
than `MAX_DEPTH`. Comments, single quotes and trailing commas are not repaired. A reasoning block
counts only at the very start of the text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.errors import DialectError
from toolhone.schema import Json, Message, Tool, ToolCall

MAX_DEPTH = 100
CALL_ID = re.compile(r"[A-Za-z0-9]{9}")
"""Call ids that every template accepts (Mistral's accept no others)."""
_WINDOW = 2048
_LONGEST_WORD = 16
"""A pair of escaped surrogates, or `-Infinity`: the end of a window may cut these."""
_SPACE = re.compile(r"[ \t\r\n]*")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]+|\\.)*+("|\\?\Z)|[{}\[\]]', re.DOTALL)
_HALF_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class ReasoningBlock:
    """The marks around reasoning, without white space."""

    open: str = "<think>"
    close: str = "</think>"


USUAL = ReasoningBlock()


def write_reasoning(reasoning: str) -> str:
    """Write the block for this reasoning, with the empty line after it."""
    return f"{USUAL.open}\n{reasoning}\n{USUAL.close}\n\n"


def read_after_reasoning(
    text: str, read: Callable[[str], ParsedReply], thought: ReasoningBlock = USUAL
) -> ParsedReply:
    """Apply `read` to the text behind the block. A block without an end is `UNCLOSED`."""
    if not text.lstrip().startswith(thought.open):
        return read(text)
    reasoning, mark, rest = text.lstrip()[len(thought.open) :].partition(thought.close)
    if not mark:
        return ParsedReply(None, (), reasoning.strip(), ParseProblem.UNCLOSED)
    return replace(read(rest.lstrip("\n")), reasoning=reasoning.strip() or None)


def split_reasoning(message: Message) -> Message:
    """Move a block at the start of an assistant's content to `reasoning`, unless that is set."""
    content = message.content or ""
    if message.role != "assistant" or message.reasoning is not None:
        return message
    if not content.lstrip().startswith(USUAL.open):
        return message
    reply = read_after_reasoning(content, ParsedReply)
    if reply.problem is not ParseProblem.NONE:
        return message
    return replace(message, content=reply.content, reasoning=reply.reasoning)


@dataclass(frozen=True)
class Decoded:
    """A JSON value in a text and where it ends, or the problem (`NOT_JSON` or `UNCLOSED`)."""

    value: Json
    end: int
    problem: ParseProblem = ParseProblem.NONE


def skip_space(text: str, start: int) -> int:
    """Return the first position at or after `start` that is not JSON white space."""
    found = _SPACE.match(text, start)
    return start if found is None else found.end()


def decode(text: str, start: int) -> Decoded:
    """Decode the JSON value at `start`, after white space, in linear time also on failure."""
    start = skip_space(text, start)
    try:
        value, end = _decode(text, start)
    except (ValueError, RecursionError):
        return Decoded(None, start, ParseProblem.NOT_JSON)
    brackets = text.count("{", start, end) + text.count("[", start, end)
    if (brackets > MAX_DEPTH and _too_deep(value)) or (
        _HALF_SURROGATE.search(text, start, end) and not _is_unicode(value)
    ):
        return Decoded(None, start, ParseProblem.NOT_JSON)
    return Decoded(value, end)


def _decode(text: str, start: int) -> tuple[Json, int]:
    """Decode in growing windows, because a `JSONDecodeError` counts all lines before it."""
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


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)


def _too_deep(value: Json) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def _is_unicode(value: Json) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def open_at_end(text: str, start: int) -> bool:
    """Whether a bracket or string that begins at `start` is still open at the end of the text."""
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text, start):
        if found[0][0] == '"':
            if found[1] != '"':
                return True
            continue
        depth += 1 if found[0] in "{[" else -1
        if depth <= 0:
            return False
    return depth > 0


def decode_sequence(text: str, start: int, separators: str) -> Iterator[Decoded]:
    """Decode JSON objects or lists one after another, with white space or `separators` between."""
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
    """A decoded value as a call, or the reason why it is none."""

    call: ToolCall | None
    problem: ParseProblem = ParseProblem.NONE


def as_call(value: Json, name_key: str, argument_keys: Sequence[str]) -> CallCheck:
    """Read a call out of a decoded object. Arguments may be absent, or a JSON string of an object.

    The id is kept only if it matches `CALL_ID`: a template may refuse others when it writes the
    result.
    """
    name = value.get(name_key) if isinstance(value, Mapping) else None
    present = [key for key in argument_keys if key in value] if name else []
    if not isinstance(name, str) or not name or len(present) > 1:
        return CallCheck(None, ParseProblem.NOT_A_CALL)
    arguments = value[present[0]] if present else {}
    if isinstance(arguments, str):
        inner = decode(arguments or "{}", 0)
        arguments = inner.value if not arguments[inner.end :].strip() else None
    if not isinstance(arguments, Mapping):
        return CallCheck(None, ParseProblem.BAD_ARGUMENTS)
    identity = value.get("id")
    kept = identity if isinstance(identity, str) and CALL_ID.fullmatch(identity) else None
    return CallCheck(ToolCall(name, dict(arguments), kept))


def write_json(value: Json) -> str:
    """Write JSON in one line, characters unescaped. `DialectError` for other values."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise DialectError(
            f"a call cannot be written as JSON: {error}; got {value!r:.80}"
        ) from None


def list_tools(tools: Sequence[Tool]) -> str:
    """List the tools as JSON objects with name, description and parameters, one per line."""
    return "\n".join(
        write_json(
            {"name": tool.name, "description": tool.description, "parameters": {**tool.parameters}}
        )
        for tool in tools
    )


def result_value(message: Message) -> str:
    """A tool's result as JSON: unchanged if it is JSON in one line already, else a JSON string."""
    content = (message.content or "").strip()
    found = decode(content, 0)
    is_json = found.problem is ParseProblem.NONE and found.end == len(content)
    return content if is_json and "\n" not in content else write_json(message.content or "")
