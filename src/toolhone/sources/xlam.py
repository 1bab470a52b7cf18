"""xLAM: a query, the tools on offer and the calls that answer it, in columns that hold JSON texts.

    {"id": 7, "query": "...", "tools": "[{\\"name\\", \\"description\\", \\"parameters\\": {...}}]",
     "answers": "[{\\"name\\": \\"f\\", \\"arguments\\": {\\"n\\": 5}}]"}

Also as a CSV file; `tools` and `answers` may be lists, too. A row with no answers gives a task that
expects no call. Format: Liu et al. 2024, arXiv:2406.18518.
"""

from __future__ import annotations

from toolhone.schema import Conversation, Expect, Message, Task
from toolhone.sources.base import Context, Skip, Source
from toolhone.sources.files import Record
from toolhone.sources.text_calls import as_call
from toolhone.sources.tool_specs import BAD_ANSWER, decode_text, fit_calls, read_tools


def looks_like(record: Record) -> bool:
    return record.keys() >= {"query", "tools", "answers"}


def convert(record: Record, context: Context) -> Conversation | Task:
    query = record.get("query")
    if not isinstance(query, str) or not query.strip():
        detail = f"wanted a text in 'query', got {query!r:.60}; keys {sorted(record)}"
        raise Skip("not an xLAM row", detail)
    tools = read_tools(record.get("tools"), context)
    answers = decode_text(record.get("answers"), BAD_ANSWER, "answers")
    if not isinstance(answers, list):
        raise Skip(BAD_ANSWER, f"wanted a list of calls, got {answers!r:.60}")
    decoded = [decode_text(answer, BAD_ANSWER, "answers") for answer in answers]
    calls = fit_calls([as_call(value, BAD_ANSWER) for value in decoded], tools, context)
    user = Message("user", query)
    if not calls:
        return Task("", (user,), tools, Expect(no_call=True))
    return Conversation((user, Message("assistant", tool_calls=calls)), tools)


XLAM = Source("xlam", looks_like, convert)
