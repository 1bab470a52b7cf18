"""What kind of error an episode ends with, one for each, and the calls in it whatever their syntax.

    error_kind(match, task.expect, episode.calls, scores)     # ErrorKind.WRONG_TYPE
    read_leniently(["I would call weather(city=0)"])          # what each call syntax finds

The first that applies in the order of `ErrorKind`; `reasons` of a judged episode has them all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum

from toolhone.dialects.choose import SYNTAXES
from toolhone.dialects.interface import ParsedReply
from toolhone.dialects.syntax.model_text import as_call, decode, read_after_reasoning
from toolhone.rewards.matching import Match, Mismatch
from toolhone.rewards.values import MISSING, number
from toolhone.schema import Expect, Json, ToolCall
from toolhone.schema.json_input import ARGUMENTS

MAX_OBJECTS = 1000
"""Opening braces tried in one text, which bounds the time."""


def read_leniently(
    texts: Sequence[str], offered: Collection[str] | None = None
) -> list[list[ToolCall]]:
    """The calls that each call syntax, and a search for JSON objects, finds in an episode's texts.

    Only calls of tools `offered` count (None: all). This separates a model that knows the call but
    writes it in a wrong format from one that does not know it; no tool runs.
    """
    readers = [*(make().read for make in SYNTAXES.values()), read_json_calls]
    calls = [[call for text in texts for call in read(text).calls] for read in readers]
    return [[call for call in one if offered is None or call.name in offered] for one in calls]


def read_json_calls(text: str) -> ParsedReply:
    """Read the calls written as JSON objects anywhere in the text."""

    def objects(body: str) -> Iterator[ToolCall]:
        start = body.find("{")
        for _ in range(MAX_OBJECTS):
            if start < 0:
                return
            found, calls = decode(body, start), tuple[ToolCall, ...]()
            if found.ok:
                calls = as_call(found.value, "name", ARGUMENTS).calls or (
                    as_call(found.value, "tool", ARGUMENTS).calls
                )
            yield from calls
            start = body.find("{", found.end if calls else start + 1)

    return read_after_reasoning(text, lambda body: ParsedReply(None, tuple(objects(body))))


class ErrorKind(StrEnum):
    NONE = ""
    """The task is solved."""
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    """A turn could not be read, or the reply is blank."""
    NEEDLESS_CALL = "needless call"
    """A call where none was wanted, or more calls than wanted."""
    NO_CALL = "no call"
    """No call where one was wanted, or fewer calls than wanted."""
    WRONG_TOOL = "wrong tool"
    MISSING_ARGUMENT = "missing argument"
    EXTRA_ARGUMENT = "extra argument"
    WRONG_TYPE = "wrong type"
    WRONG_ARGUMENT = "wrong argument"
    WRONG_ORDER = "wrong order"
    """The calls are those wanted, in another order."""
    EXECUTION_FAILED = "execution failed"
    """The calls are those wanted, and a tool raised, timed out or was unreachable."""
    WRONG_ANSWER = "wrong answer"
    WRONG_STATE = "wrong state"
    OTHER = "other"


def error_kind(
    match: Match, expect: Expect, calls: Sequence[ToolCall], scores: Mapping[str, float]
) -> ErrorKind:
    """The kind of error of an episode whose turns were all read.

    `match` compares its calls with `expect`; `scores` are ours and say what else was right.
    """
    judged = "exact_match" in scores
    if judged and not match.exact:
        missing = [pair for pair in match.pairs if pair.got is None]
        extra = [pair for pair in match.pairs if pair.wanted is None]
        if missing and extra:
            names = sorted(
                expect.wanted[pair.wanted].name for pair in missing if pair.wanted is not None
            )
            got = sorted(calls[pair.got].name for pair in extra if pair.got is not None)
            return ErrorKind.WRONG_ORDER if names == got else ErrorKind.WRONG_TOOL
        if missing:
            return ErrorKind.NO_CALL
        if extra or not match.pairs:
            return ErrorKind.NEEDLESS_CALL if calls else ErrorKind.NO_CALL
        return min(map(_argument_error, match.mismatches), key=list(ErrorKind).index)
    for name, kind in (
        ("execution_success", ErrorKind.EXECUTION_FAILED),
        ("answer_quality", ErrorKind.WRONG_ANSWER),
        ("state_match", ErrorKind.WRONG_STATE),
        ("exact_match", ErrorKind.OTHER),
    ):
        if scores.get(name, 1.0) < 1.0:
            return kind
    return ErrorKind.NONE


def _argument_error(wrong: Mismatch) -> ErrorKind:
    if wrong.problem:
        return ErrorKind.WRONG_ARGUMENT
    if wrong.got is MISSING:
        return ErrorKind.MISSING_ARGUMENT
    if wrong.wanted is MISSING:
        return ErrorKind.EXTRA_ARGUMENT
    same = _json_type(wrong.got) == _json_type(wrong.wanted)
    return ErrorKind.WRONG_ARGUMENT if same else ErrorKind.WRONG_TYPE


def _json_type(value: Json) -> str:
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, list | tuple):
        return "array"
    return "number" if number(value) is not None else type(value).__name__
