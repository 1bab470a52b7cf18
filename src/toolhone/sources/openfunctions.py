"""Gorilla OpenFunctions v1, its test set: a question, one function and the call that answers it, as Python code.

    {"question": "...", "function": {"name": "Weather", "api_call": "weather.now", "parameters": {JSON Schema}},
     "model_answer": "weather.now(city='Oslo')"}

`api_call` is the name under which the function is called; `name` is a title and goes into the tool's description. Made for
evaluation: a row gives a task that expects the call, and no conversation. A word without quotes is taken as text, a single value
where a list is declared as a list of one; both are counted. A row whose call does not fit its function is counted and skipped.
Not read is the training set of the same name, which has another shape. Format: Patil et al. 2023, arXiv:2305.15334.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from toolhone.schema import Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.sources.base import About, Loaded, Options, ReadStats, Skip, identity_of
from toolhone.sources.call_repair import mended
from toolhone.sources.code_calls import NoCode, read_code
from toolhone.sources.files import Record, read_records
from toolhone.sources.offered import OfferedTools, refuse_misfits
from toolhone.sources.offered import Reason as ToolReason

NAME = "openfunctions"
ABOUT = About(
    title="Gorilla OpenFunctions v1 (test)",
    link="https://github.com/ShishirPatil/gorilla/tree/main/openfunctions",
    licence="Apache-2.0",
    rows="about 110",
    teaches="measures a single call of a single function",
    only_tasks=True,
)
USES: frozenset[str] = frozenset()


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `offered` and the kinds of `data.check`."""

    NOT_THIS_FORMAT = "not an OpenFunctions row"


def sniff(records: Sequence[Record]) -> bool:
    return all(
        {"question", "function"} <= record.keys() and isinstance(record.get("model_answer"), str)
        for record in records
    )


def read(path: Path, options: Options) -> Loaded:  # noqa: ARG001 (it has no options)
    """Every row whose call fits its function, as a task."""
    tally, offered = ReadStats(), OfferedTools()
    for line, record in read_records(path):
        try:
            tools, repairs = _tools(record, offered)
            calls, how = _calls(record, tools)
            refuse_misfits(calls, tools)
        except Skip as skip:
            tally.skip(line, skip)
            continue
        user, category = (
            Message("user", record["question"]),
            "one_call" if len(calls) == 1 else "several_calls",
        )
        expect = Expect(tuple(ExpectedCall(call.name, call.arguments) for call in calls))
        task = Task(
            identity_of(line, record), (user,), tools, expect, category=category, source=NAME
        )
        tally.keep_tasks([task], repairs | how)
    return tally.loaded()


def _tools(record: Record, offered: OfferedTools) -> tuple[tuple[Tool, ...], set[str]]:
    question, functions = record.get("question"), record.get("function")
    listed = functions if isinstance(functions, list) else [functions]
    if not isinstance(question, str) or not question.strip():
        raise Skip(Reason.NOT_THIS_FORMAT, f"keys {sorted(record)}")
    tools, repairs = offered.read([_described(function) for function in listed])
    return tools, set(repairs)


def _described(function: Json) -> Json:
    """The function under the name by which it is called."""
    if not isinstance(function, dict) or not function.get("api_call"):
        return function
    title, told = function.get("name"), str(function.get("description") or "")
    return {
        **function,
        "name": function["api_call"],
        "description": f"{title}: {told}" if title and told else title or told,
    }


def _calls(record: Record, tools: Sequence[Tool]) -> tuple[tuple[ToolCall, ...], set[str]]:
    """The calls of an answer, and how they were mended."""
    answer = record.get("model_answer")
    try:
        written, found = read_code(answer if isinstance(answer, str) else "")
    except NoCode:
        raise Skip(ToolReason.BAD_ANSWER, f"{answer!r:.80}") from None
    calls: list[ToolCall] = []
    repairs: set[str] = set(found)
    for one in written:
        tool = next((tool for tool in tools if tool.name == one.name), None)
        call, how = mended(
            one.call(list(tool.parameters.get("properties") or {}) if tool else ()), tools
        )
        calls.append(call)
        repairs |= how
    return tuple(calls), repairs
