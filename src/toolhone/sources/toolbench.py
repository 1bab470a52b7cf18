"""ToolBench: queries for thousands of web APIs, and the paths that a search found through them.

    {"win", "tree", "answer_generation": {"query", "function": [tool], "train_messages"}}
    {"query", "query_id", "api_list": [{"tool_name", ...}], "relevant APIs": [[tool, API]]}

A search gives one conversation, its longest path; the prompts of the search and the thoughts beside
calls are left out, and the call of `Finish` becomes the answer. A query gives a task that expects
one call of each right API, with any arguments. Format: Qin et al. 2023, arXiv:2307.16789.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from toolhone.errors import DataError, FindingKind, nearest
from toolhone.schema import Conversation, Expect, ExpectedCall, Json, Message, Task, Tool, ToolCall
from toolhone.schema.json_input import check_keys
from toolhone.sources.files import Record
from toolhone.sources.scenarios import path_of_row
from toolhone.sources.source import Context, Converted, Skip, Source, tasks_of
from toolhone.sources.text_calls import as_call

CATEGORY = "right_apis"
ONCE = "one call of each right API is taken to be right, since the query does not say how often"
NO_PATH = "a search without a path to an answer"
NOT_AN_API = "an API that cannot be read"
_FINISH = "Finish"
_LONGEST_NAME = 64
_RESERVED = ("from", "class", "return", "false", "true", "id", "and")
"""Names before which ToolBench puts `is_`, since they mean something in Python."""
_TYPES = ("string", "number", "boolean", "array", "object")
"""Of the types in an `api_list`, in capitals there; others (ENUM, DATE, ...) are texts."""


def looks_like(record: Record) -> bool:
    return "answer_generation" in record or {"query", "query_id"} <= record.keys()


def is_query(record: Record) -> bool:
    """Return whether a row is of an instruction file."""
    is_search = record.get("answer_generation") is not None
    own = record.keys() & {"query_id", "api_list", "relevant APIs"}
    return not is_search and "query" in record and bool(own)


def convert(record: Record, context: Context) -> Converted:
    """Convert a row; its id, the way to the file and the row's number, differs within a folder."""
    line, identity = context.line, f"{context.name}-{path_of_row(context)}"
    if line.unit != "line" or line.number != 1:
        identity = f"{identity}-{line.number}"
    if is_query(record):
        context.notes.append(ONCE)
        return Converted(tasks=[_query_task(record, identity, context.name)])
    search = record.get("answer_generation")
    if not isinstance(search, dict):
        raise Skip("not a ToolBench row", f"keys {sorted(record)[:8]}")
    if search.get("finish_type") == "give_up":
        raise Skip("a search that gave up")
    paths, functions = search.get("train_messages"), search.get("function")
    are_paths = isinstance(paths, list) and all(isinstance(path, list) for path in paths)
    if not record.get("win") or not paths or not are_paths:
        detail = f"win {record.get('win')!r}, valid_data {search.get('valid_data')!r}"
        raise Skip(NO_PATH, detail)
    if isinstance(functions, list):
        tools = [_tool(function) for function in functions]
    else:
        tools = [tool_of_api(api) for api in record.get("api_list") or []]
    offered = {tool.name: tool for tool in tools if tool.name != _FINISH}
    messages = _messages(max(paths, key=len), offered, context)
    conversation = Conversation(tuple(messages), tuple(offered.values()), identity, context.name)
    return Converted(conversation, tasks_of(conversation))


def _messages(path: Sequence[Json], tools: Mapping[str, Tool], context: Context) -> list[Message]:
    """Return the user's query, calls and results in turn, and the answer."""
    messages: list[Message] = []
    for turn in path:
        given = turn if isinstance(turn, dict) else {}
        role, content, written = (given.get(key) for key in ("role", "content", "function_call"))
        waiting = bool(messages and messages[-1].tool_calls)
        identity = f"call{len(messages) - waiting}"
        if role == "system":
            context.repairs.add("the system prompt of the search left out")
        elif role == "user" and messages:
            context.repairs.add("a prompt of the search for another action left out")
        elif role == "user":
            messages.append(Message("user", str(content).strip().removesuffix("Begin!").strip()))
        elif role == "function" and waiting:
            name = str(given.get("name"))
            messages.append(Message("tool", str(content), tool_call_id=identity, name=name))
        elif role == "assistant" and messages and not waiting and isinstance(written, dict):
            call = as_call(written, context.unread, "a call whose arguments are not a JSON object")
            if content:
                context.repairs.add("a thought beside a call left out")
            if call.name == _FINISH:
                check_keys(call.arguments, {"final_answer", "return_type"}, _FINISH, context.unread)
                answer, gives = map(call.arguments.get, ("final_answer", "return_type"))
                if gives != "give_answer" or not isinstance(answer, str) or not answer.strip():
                    raise Skip("a search that gave up", f"{call.arguments!r:.80}")
                return [*messages, Message("assistant", answer.strip())]
            if call.name not in tools:
                raise Skip(FindingKind.UNKNOWN_TOOL, f"{call.name!r}{nearest(call.name, tools)}")
            own = tools[call.name]
            problems = [f"no parameter {k!r}" for k in call.arguments if k not in own.properties]
            if problems := problems or own.problems(call.arguments):
                raise Skip(FindingKind.BAD_ARGUMENTS, f"{call.name}, {problems[0]:.120}")
            numbered = ToolCall(call.name, call.arguments, identity)
            messages.append(Message("assistant", None, tool_calls=(numbered,)))
        else:
            raise Skip(NO_PATH, f"a turn of {role!r} that does not go on from the one before")
    raise Skip(NO_PATH, "the path does not end with a call of Finish")


def _tool(function: Json) -> Tool:
    """Return a tool as the search had it, without what JSON Schema does not know."""
    try:
        tool = Tool.of(function)
    except DataError as error:
        raise Skip("not a ToolBench row", str(error)) from None
    properties = dict(tool.parameters.get("properties") or {})
    for name, schema in properties.items():
        if isinstance(schema, dict) and "example_value" in schema:
            properties[name] = {k: v for k, v in schema.items() if k != "example_value"}
            if schema["example_value"] not in ("", None) and schema.get("type") == "string":
                properties[name]["examples"] = [schema["example_value"]]
    kept = {key: value for key, value in tool.parameters.items() if key != "optional"}
    return Tool(tool.name, tool.description, {**kept, "properties": properties})


def _query_task(record: Record, identity: str, source: str) -> Task:
    """Return the task of a query: which APIs it takes."""
    query, relevant, apis = (record.get(key) for key in ("query", "relevant APIs", "api_list"))
    if not isinstance(relevant, list) or not relevant:
        reason = "a query that does not say which APIs are right"
        raise Skip(reason, f"'relevant APIs' is {relevant!r:.60}")
    if not isinstance(query, str) or not query.strip() or not isinstance(apis, list):
        reason = "a query that is no text, or without a list of APIs"
        raise Skip(reason, f"the query {query!r:.60}")
    tools: dict[str, Tool] = {}
    for api in apis:
        tool = tool_of_api(api)
        if tools.setdefault(tool.name, tool) != tool:
            raise Skip("two different APIs of one name", repr(tool.name))
    names: dict[str, None] = {}
    for named in relevant:  # such as ["suivi-colis", "Health"]
        texts = isinstance(named, list) and all(isinstance(part, str) for part in named)
        if not texts or len(named) != 2:
            detail = f"wanted a tool and its API in 'relevant APIs', got {named!r:.60}"
            raise Skip(NOT_AN_API, detail)
        names[_tool_name(*named)] = None
    for name in names:
        if name not in tools:
            raise Skip("a right API that is not on offer", f"{name!r}{nearest(name, tools)}")
    messages, offered = (Message("user", query.strip()),), tuple(tools.values())
    expect = Expect(tuple(ExpectedCall(name, any_arguments=True) for name in names))
    return Task(identity, messages, offered, expect, category=CATEGORY, source=source)


def tool_of_api(api: Json) -> Tool:
    """Return an entry of `api_list` as a tool, under ToolBench's name: `health_for_suivi_colis`."""
    if not isinstance(api, Mapping) or not api.get("api_name") or not api.get("tool_name"):
        raise Skip(NOT_AN_API, f"the API {api!r:.60}")
    required = list(api.get("required_parameters") or [])
    properties: dict[str, Record] = {}
    for entry in [*required, *(api.get("optional_parameters") or [])]:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            detail = f"a parameter without a name in the API {api['api_name']!r:.60}"
            raise Skip(NOT_AN_API, detail)
        kind, text = str(entry.get("type")).lower(), str(entry.get("description") or "").strip()
        schema: Record = {"type": kind if kind in _TYPES else "string", "description": text}
        if kind.startswith("date (yyyy-mm-dd)"):
            schema["format"] = "date"
        if schema["type"] == "string" and entry.get("default") not in ("", None):
            schema["examples"] = [str(entry["default"])]
        properties[_snake(entry["name"], reserved=True)] = schema
    needed = [_snake(entry["name"], reserved=True) for entry in required]
    parameters = {"type": "object", "properties": properties, "required": needed}
    name = _tool_name(str(api["tool_name"]), str(api["api_name"]))
    return Tool(name, str(api.get("api_description") or "").strip(), parameters)


def _tool_name(tool: str, api: str) -> str:
    return f"{_snake(api, reserved=True)}_for_{_snake(tool)}"[-_LONGEST_NAME:]


def _snake(name: str, reserved: bool = False) -> str:
    """Return a name as ToolBench writes it: small letters, digits and underscores.

    reserved: put `is_` before names that mean something in Python.
    """
    plain = re.sub(r"_+", "_", re.sub(r"[^\u4e00-\u9fa5a-zA-Z0-9_]", "_", name)).strip("_").lower()
    plain = f"get_{plain}" if plain[:1].isdigit() else plain
    return f"is_{plain}" if reserved and plain in _RESERVED else plain


PARAMETER_KEYS = {"name", "type", "description", "default"}
TOOLBENCH = Source(
    "toolbench",
    looks_like,
    convert,
    {
        "": {
            *("win", "answer_generation", "query", "query_id", "api_list", "relevant APIs"),
            *("tree", "forward_args", "compare_candidates"),
        },
        "answer_generation": {
            *("query", "function", "train_messages", "finish_type", "valid_data"),
            *("final_answer", "query_count", "total_tokens"),
        },
        "api_list": {
            *("category_name", "tool_name", "api_name", "api_description", "method"),
            *("required_parameters", "optional_parameters", "template_response"),
        },
        "api_list.required_parameters": PARAMETER_KEYS,
        "api_list.optional_parameters": PARAMETER_KEYS,
        "answer_generation.train_messages": {"role", "content", "function_call", "name"},
    },
)
