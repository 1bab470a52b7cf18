"""Calls in a text in whatever syntax they are written: knowing the call, apart from its format.

read_leniently(["I would call weather(city='Rome')"])     # what each call syntax finds
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from toolhone.dialects.base import ParsedReply
from toolhone.dialects.choose import SYNTAXES
from toolhone.dialects.syntax.model_text import as_call, decode, read_after_reasoning
from toolhone.schema import ToolCall
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
