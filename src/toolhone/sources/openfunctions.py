"""Gorilla OpenFunctions v1, its test set: a question, a function, and the call as Python code.

    {"question": "...", "function": {"name": "Weather", "api_call": "weather.now", ...},
     "model_answer": "weather.now(city='Oslo')"}

`api_call` is the name under which the function is called. A row gives a task that expects the call.
Format: Patil et al. 2023, arXiv:2305.15334.
"""

from __future__ import annotations

from toolhone.schema import Json, Message, Task
from toolhone.sources.base import Context, Skip, Source, expect_calls, refuse_misfits
from toolhone.sources.catalogue import repair_call
from toolhone.sources.files import Record
from toolhone.sources.text_calls import NoCode, read_code
from toolhone.sources.tool_specs import BAD_ANSWER, read_tools


def looks_like(record: Record) -> bool:
    texts = isinstance(record.get("model_answer"), str)
    return "question" in record and "function" in record and texts


def convert(record: Record, context: Context) -> Task:
    question, functions, answer = map(record.get, ("question", "function", "model_answer"))
    if not isinstance(question, str) or not question.strip():
        raise Skip("not an OpenFunctions row", f"keys {sorted(record)}")
    listed = functions if isinstance(functions, list) else [functions]
    tools = read_tools([_named(function) for function in listed], context)
    try:
        written, repairs = read_code(answer if isinstance(answer, str) else "")
    except NoCode:
        raise Skip(BAD_ANSWER, f"{answer!r:.80}") from None
    context.repairs |= repairs
    calls = []
    for each in written:
        tool = next((tool for tool in tools if tool.name == each.name), None)
        names = list(tool.parameters.get("properties") or {}) if tool else ()
        call, found = repair_call(each.call(names), tools)
        context.repairs |= found
        calls.append(call)
    refuse_misfits(calls, tools)
    return Task("", (Message("user", question),), tools, expect_calls(calls))


def _named(function: Json) -> Json:
    """Return the function under the name by which it is called."""
    if not isinstance(function, dict) or not function.get("api_call"):
        return function
    title, text = function.get("name"), str(function.get("description") or "")
    described = f"{title}: {text}" if title and text else title or text
    return {**function, "name": function["api_call"], "description": described}


OPENFUNCTIONS = Source("openfunctions", looks_like, convert)
