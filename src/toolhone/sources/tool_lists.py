"""Lists of tools as APIs, servers and files write them, as tool objects.

tool_objects([{"functionDeclarations": [...]}], unread)
read_tool_file("tools.json")               # an OpenAI list, an MCP `tools/list`, OpenAPI
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Json, Tool
from toolhone.schema.json_input import SCHEMAS, check_keys
from toolhone.sources.files import FileLine, read_json
from toolhone.sources.log_parts import decode
from toolhone.sources.messages import fill_tools
from toolhone.sources.source import Context
from toolhone.tools.mcp_server import open_server
from toolhone.tools.openapi import openapi_specs, openapi_tools

_LISTS = ("functionDeclarations", "function_declarations", "tools", "functions", "result")
"""Keys of objects that hold a list of tools."""
_INNER = ("toolSpec", "tool_spec", "tool", "json_schema", "definition", "toolDefinition")
"""Keys of objects that hold one tool."""
_OF_TOOLS = frozenset({*SCHEMAS, "description", "execute"})
_BESIDE = frozenset({"toolChoice", "tool_choice", "jsonrpc", "nextCursor", "_meta", "any_of"})
"""Keys beside a list of tools that say nothing of them."""


def tool_objects(value: Json, unread: set[str]) -> list[Json]:
    """Return tool objects with `parameters`, of whatever list; what no tool is goes to `unread`."""
    value = decode(value)
    if isinstance(value, list):
        return [found for one in value for found in tool_objects(one, unread)]
    if not isinstance(value, Mapping):
        if value is not None:
            unread.add(f"{value!r:.40} among the tools")
        return []
    for key in _LISTS:
        if isinstance(decode(value.get(key)), list | Mapping) and "name" not in value:
            check_keys(value, {key, *_BESIDE}, "a list of tools", unread)
            return tool_objects(value[key], unread)
    for key in _INNER:
        inner = decode(value.get(key))
        if isinstance(inner, Mapping) and inner.keys() & {"name", "function", *_INNER}:
            check_keys(value, {key}, "a tool", unread)
            return tool_objects(inner, unread)
    body = value.get("function", value)
    if isinstance(body, Mapping) and isinstance(body.get("name"), str):
        others = {k: v for k, v in value.items() if k not in ("type", "function")}
        outer = {} if body is value else others
        return [{**outer, "type": "function", "function": _with_parameters(body, unread)}]
    tools = {k: v for k, v in value.items() if isinstance(v, Mapping) and v.keys() & _OF_TOOLS}
    if tools and len(tools) == len(value):
        named = [{**tool, "name": name} for name, tool in tools.items()]
        return [{"type": "function", "function": _with_parameters(one, unread)} for one in named]
    kinds = [value["type"]] if value.keys() == {"type"} else list(value)
    unread |= {f"{kind!r} among the tools" for kind in kinds}
    return []


def _with_parameters(body: Mapping[str, Json], unread: set[str]) -> dict[str, Json]:
    """Return a tool with its schema taken out of Bedrock's `json`, Vercel's `jsonSchema`, Cohere's
    `parameter_definitions`."""
    body = {key: decode(one) if key in SCHEMAS else one for key, one in body.items()}
    for key in SCHEMAS:
        inner = body.get(key)
        for wrapper in ("json", "jsonSchema"):
            if isinstance(inner, Mapping) and isinstance(decode(inner.get(wrapper)), Mapping):
                check_keys(inner, {wrapper}, "the schema of a tool", unread)
                body[key] = decode(inner[wrapper])
    flat = body.pop("parameter_definitions", None)
    if isinstance(flat, Mapping):
        if not all(isinstance(one, Mapping) for one in flat.values()):
            raise DataError(f"a tool's 'parameter_definitions' must be objects, got {flat!r:.60}")
        fields = {name: dict(one) for name, one in flat.items()}
        needed = [name for name, one in fields.items() if one.pop("required", False)]
        body["parameters"] = {"type": "object", "properties": fields, "required": needed}
    return body


def read_tool_file(path: str | Path) -> list[Tool]:
    """Return the tools of a file: a list, an MCP server's `tools/list`, or an OpenAPI document."""
    path, unread = Path(path), set[str]()
    document = read_json(path)
    if isinstance(document, Mapping) and "paths" in document:
        tools = openapi_tools(document)
    else:
        context = Context("", path, {}, FileLine(path, 1))
        try:
            tools = fill_tools({"tools": tool_objects(document, unread)}, context)["tools"]
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    if not tools:
        right = "wanted a list of tools, an MCP server's tools/list, or an OpenAPI document"
        raise DataError(f"{path}: the file names no tool; {right}")
    return tools


def list_tools(source: str, url: str = "") -> list[dict[str, Json]]:
    """Return the tools of a file, or of the MCP server at an address or behind a command.

    Operations of an OpenAPI document are entries of type `api`; url: their address, where the
    document names none.
    """
    if Path(source).is_file() and not os.access(source, os.X_OK):
        document = read_json(Path(source))
        if isinstance(document, Mapping) and "paths" in document:
            return openapi_specs(document, url)
        return [tool.to_dict() for tool in read_tool_file(source)]
    spec: dict[str, Json] = {"command": shlex.split(source), "env": [*os.environ]}
    spec = {"url": source} if source.startswith(("http://", "https://")) else spec
    with open_server(spec, Path.cwd()) as server:
        return [Tool.of(tool, set()).to_dict() for tool in server.tools()]
