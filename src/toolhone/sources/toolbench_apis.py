"""ToolBench's APIs as tools, and its queries, which name the right APIs, as tasks.

    tool_of_api({"tool_name": "suivi-colis", "api_name": "Health", ...})      # health_for_suivi_colis
    query_task({"query", "query_id", "api_list": [...], "relevant APIs": [["suivi-colis", "Health"]]}, "toolbench-7", "toolbench")

A query does not say with which arguments its APIs are to be called, and how often: the task expects one call of each, in any order,
with any arguments that the tool's schema allows (noted as `ONCE`). A query that names no right API is skipped: nothing is right
there. Files and searches are the business of `toolbench`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from toolhone.errors import nearest
from toolhone.schema import Expect, ExpectedCall, Json, Message, Task, Tool
from toolhone.sources.base import Skip
from toolhone.sources.files import Record

ONCE = "one call of each right API is taken to be right, since the query does not say how often"
CATEGORY = "right_apis"
_LONGEST_NAME = 64
_RESERVED = ("from", "class", "return", "false", "true", "id", "and")
"""Names that ToolBench puts `is_` before, since they mean something in Python."""
_TYPES = {
    "STRING": "string",
    "NUMBER": "number",
    "BOOLEAN": "boolean",
    "ARRAY": "array",
    "OBJECT": "object",
}
"""Of the types in an `api_list`; others (ENUM, DATE, TIME, BINARY, ...) are texts."""


class Reason(StrEnum):
    """Why a row is skipped."""

    NOT_AN_API = "an API that cannot be read"
    NOT_A_QUERY = "a query that is no text, or without a list of APIs"
    NOTHING_RIGHT = "a query that does not say which APIs are right"
    NOT_OFFERED = "a right API that is not on offer"
    SAME_NAME = "two different APIs of one name"


def is_query(record: Record) -> bool:
    """Whether a row is of an instruction file."""
    is_search = record.get("answer_generation") is not None
    return (
        not is_search
        and "query" in record
        and bool(record.keys() & {"query_id", "api_list", "relevant APIs"})
    )


def query_task(record: Record, identity: str, source: str) -> Task:
    """The task of a query: which APIs it takes."""
    query, relevant = record.get("query"), record.get("relevant APIs")
    if not isinstance(relevant, list) or not relevant:
        raise Skip(Reason.NOTHING_RIGHT, f"'relevant APIs' is {relevant!r:.60}")
    if (
        not isinstance(query, str)
        or not query.strip()
        or not isinstance(record.get("api_list"), list)
    ):
        raise Skip(Reason.NOT_A_QUERY, f"the query {query!r:.60}")
    tools: dict[str, Tool] = {}
    for api in record["api_list"]:
        tool = tool_of_api(api)
        if tools.setdefault(tool.name, tool) != tool:
            raise Skip(Reason.SAME_NAME, repr(tool.name))
    names = list(dict.fromkeys(map(_relevant_name, relevant)))
    for name in names:
        if name not in tools:
            raise Skip(Reason.NOT_OFFERED, f"{name!r}{nearest(name, tools)}")
    expect = Expect(tuple(ExpectedCall(name, any_arguments=True) for name in names))
    return Task(
        identity,
        (Message("user", query.strip()),),
        tuple(tools.values()),
        expect,
        category=CATEGORY,
        source=source,
    )


def _relevant_name(named: Json) -> str:
    """The name of the tool that `["suivi-colis", "Health"]` means."""
    if (
        not isinstance(named, list)
        or len(named) != 2
        or not all(isinstance(part, str) for part in named)
    ):
        raise Skip(
            Reason.NOT_AN_API, f"wanted a tool and its API in 'relevant APIs', got {named!r:.60}"
        )
    return _tool_name(*named)


def tool_of_api(api: Mapping[str, Any]) -> Tool:
    """An entry of `api_list` as a tool, under the name that ToolBench gives it: `health_for_suivi_colis`."""
    if not isinstance(api, Mapping) or not api.get("api_name") or not api.get("tool_name"):
        raise Skip(Reason.NOT_AN_API, f"the API {api!r:.60}")
    required = list(api.get("required_parameters") or [])
    described = [*required, *(api.get("optional_parameters") or [])]
    if not all(
        isinstance(entry, Mapping) and isinstance(entry.get("name"), str) for entry in described
    ):
        raise Skip(
            Reason.NOT_AN_API, f"a parameter without a name in the API {api['api_name']!r:.60}"
        )
    properties = {parameter_name(entry["name"]): _property(entry) for entry in described}
    name = _tool_name(str(api["tool_name"]), str(api["api_name"]))
    needed = [parameter_name(entry["name"]) for entry in required]
    schema = {"type": "object", "properties": properties, "required": needed}
    return Tool(name, str(api.get("api_description") or "").strip(), schema)


def _tool_name(tool: str, api: str) -> str:
    return f"{parameter_name(api)}_for_{_snake(tool)}"[-_LONGEST_NAME:]


def _property(entry: Mapping[str, Any]) -> Record:
    kind = str(entry.get("type")).upper()
    result: Record = {
        "type": _TYPES.get(kind, "string"),
        "description": str(entry.get("description") or "").strip(),
    }
    if kind.startswith("DATE (YYYY-MM-DD)"):
        result["format"] = "date"
    if result["type"] == "string" and entry.get("default") not in ("", None):
        result["examples"] = [str(entry["default"])]
    return result


def parameter_name(name: str) -> str:
    """A name as ToolBench writes it: small letters, digits and underscores, `is_id` for `id`."""
    plain = _snake(name)
    return f"is_{plain}" if plain in _RESERVED else plain


def _snake(name: str) -> str:
    plain = re.sub(r"_+", "_", re.sub(r"[^\u4e00-\u9fa5a-zA-Z0-9_]", "_", name)).strip("_").lower()
    return f"get_{plain}" if plain[:1].isdigit() else plain
