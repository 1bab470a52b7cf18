"""A lenient reader: which calls a text holds, whatever syntax they are written in and whatever stands around them.

    readings(["Sure: {\"name\": \"weather\", \"arguments\": {}}"], {"weather"})

It tries every call syntax, and a search for JSON objects anywhere in the text, and gives one list of calls for each. So it tells
a model that knows the right call but writes it in a wrong form from one that does not know it. It is a measuring device: no tool
is ever run by it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from toolhone.dialects.base import ParsedReply, ParseProblem
from toolhone.dialects.prompted import SYNTAXES
from toolhone.dialects.syntax.model_text import as_call, decode, read_after_reasoning
from toolhone.schema import Json, ToolCall

MAX_OBJECTS = 1000
"""Opening braces tried in one text: a bound on time."""


def readings(texts: Sequence[str], offered: Collection[str] | None = None) -> list[list[ToolCall]]:
    """The calls of these texts (the turns of one episode) as each reader finds them; only calls of tools on offer count.

    Where it is not known what was on offer (None), every call counts.
    """
    readers = [*(make().read for make in SYNTAXES.values()), _read_anywhere]
    found = [[call for text in texts for call in read(text).calls] for read in readers]
    return (
        found
        if offered is None
        else [[call for call in calls if call.name in offered] for calls in found]
    )


def calls_anywhere(text: str) -> list[ToolCall]:
    """The calls written as JSON objects, wherever they stand and whatever stands around them."""
    return list(_read_anywhere(text).calls)


def _read_anywhere(text: str) -> ParsedReply:
    return read_after_reasoning(text, lambda body: ParsedReply(None, tuple(_objects(body))))


def _objects(text: str) -> Iterator[ToolCall]:
    """Calls written as JSON objects, wherever they begin."""
    start = text.find("{")
    for _ in range(MAX_OBJECTS):
        if start < 0:
            return
        found = decode(text, start)
        call = _call(found.value) if found.problem is ParseProblem.NONE else None
        if call is not None:
            yield call
        start = text.find("{", found.end if call is not None else start + 1)


def _call(value: Json) -> ToolCall | None:
    forms = (("name", ("arguments", "parameters")), ("tool", ("args", "arguments", "parameters")))
    return next(
        (
            judged.call
            for key, inner in forms
            if (judged := as_call(value, key, inner)).call is not None
        ),
        None,
    )
