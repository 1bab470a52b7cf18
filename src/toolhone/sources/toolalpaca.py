"""ToolAlpaca, its evaluation set: one API in a record, instructions for it, and their calls.

    {"Name": "...", "Documentation": "<OpenAPI as JSON>", "Instructions": ["Show a picture."],
     "Golden_Answers": [[{"Action": "getPicture", "Action_Input": "{\\"page\\": 1}"}]]}

A record is one row; every usable instruction gives a task, others are notes. Expected are the calls
before the first that needs a result (`${id from search}`); `getDetails` asks the user and is no
tool. Format: Tang et al. 2023, arXiv:2306.05301.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

from toolhone.errors import DataError
from toolhone.schema import Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.files import Record
from toolhone.sources.source import Context, Skip, Source, has_keys, refuse_misfits
from toolhone.sources.tool_specs import BAD_TOOLS, decode_text, fit_call
from toolhone.tools.openapi import openapi_tools

UNREADABLE = "an answer that cannot be read"
LATER = "calls that need another call's result, or the user's answer, left out"
_ASKS = "getDetails"
_HOLE = re.compile(r'"?\$\{([^{}",]*)\}?"?|"\{([^{}",]*)\}"')
"""`${id from search}`, with or without quotes or its closing bracket; `"{start date}"`."""


def convert(record: Record, context: Context) -> list[Task]:
    wishes, answers = record.get("Instructions"), record.get("Golden_Answers")
    if not isinstance(wishes, list) or not isinstance(answers, list) or len(wishes) != len(answers):
        detail = f"wanted as many Instructions as Golden_Answers; keys {sorted(record)[:8]}"
        raise Skip("not a ToolAlpaca record", detail)
    document = decode_text(record.get("Documentation"), BAD_TOOLS, "Documentation")
    try:
        tools = tuple(openapi_tools(document))
    except DataError as error:
        raise Skip(BAD_TOOLS, str(error)) from None
    if not tools:
        raise Skip(BAD_TOOLS, "the Documentation describes no operation")
    tasks: list[Task] = []
    left_out: list[str] = []
    stem = record.get("Name") or context.line.path.name.partition(".")[0]
    for number, (wish, answer) in enumerate(zip(wishes, answers, strict=True), start=1):
        repairs = set[str]()
        try:
            expect = _expectation(wish, answer, tools, repairs)
        except Skip as skip:
            left_out.append(skip.reason)
            continue
        context.repairs |= repairs
        identity = f"{stem}-{context.line.number}-{number}"
        tasks.append(Task(identity, (Message("user", str(wish).strip()),), tools, expect))
    if not tasks:
        raise Skip("a record without a usable instruction", "; ".join(left_out))
    context.notes += [f"an instruction left out: {reason}" for reason in left_out]
    return tasks


def _expectation(wish: Json, answer: Json, tools: Sequence[Tool], repairs: set[str]) -> Expect:
    """Return what is right at once for an instruction."""
    if not isinstance(wish, str) or not wish.strip() or not isinstance(answer, list) or not answer:
        raise Skip(UNREADABLE)
    expected: list[ExpectedCall] = []
    for entry in answer:
        step = entry if isinstance(entry, dict) else {}
        name, given = step.get("Action"), step.get("Action_Input")
        if not isinstance(name, str) or not isinstance(given, str):
            raise Skip(UNREADABLE)
        if name.startswith("[Optional]"):
            repairs.add("a call marked as optional left out")
            continue
        holes = find_holes(given)
        if name == _ASKS or any(" from " in hole for hole in holes):
            repairs.add(LATER)
            if not expected and name != _ASKS:
                raise Skip("nothing that can be called before a result is there")
            break
        if holes:
            raise Skip("a value that is only described")
        expected.append(_call(name, decode_text(given, UNREADABLE, "Action_Input"), tools, repairs))
    return Expect(tuple(expected)) if expected else Expect(no_call=True)


def find_holes(text: str) -> list[str]:
    """Return what is written in the places that a text leaves open."""
    return [found[1] or found[2] or "" for found in _HOLE.finditer(text)]


def _call(name: str, given: Json, tools: Sequence[Tool], repairs: set[str]) -> ExpectedCall:
    """Return one expected call; an empty text for what may be left out is accepted as well."""
    if not isinstance(given, dict):
        raise Skip(UNREADABLE)
    required = [tool.parameters.get("required", ()) for tool in tools if tool.name == name]
    kept = {key: value for key, value in given.items() if value != "" or key in chain(*required)}
    empty = given.keys() - kept.keys()
    call, fitted = fit_call(ToolCall(name, kept), tools)
    refuse_misfits([call], tools)
    repairs |= fitted | ({"an empty text for what may be left out"} if empty else set())
    accept = {key: [""] for key in given if key in empty}
    return ExpectedCall(call.name, call.arguments, accept)


TOOLALPACA = Source(
    "toolalpaca",
    has_keys("Instructions", "Golden_Answers", "Documentation"),
    convert,
    {
        "": {
            *("Name", "Documentation", "Instructions", "Golden_Answers", "Category", "Link"),
            *("Description", "Introduction", "Functions", "NLDocumentation"),
            *("Function_Description", "Function_Projection"),
        },
        "Golden_Answers": {"Action", "Action_Input"},
    },
)
