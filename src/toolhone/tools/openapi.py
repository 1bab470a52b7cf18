"""Tools of an OpenAPI 3 document: a flat schema for each operation, and how it is asked over HTTP.

openapi_tools(document)                    # as the model sees them
openapi_specs(document, "https://...")     # entries of `tools` with "type": "api"
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from toolhone.errors import DataError
from toolhone.schema import Json, Tool
from toolhone.schema.json_schema import resolve_refs

METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
_WITH_BODY = ("put", "post", "patch")


@dataclass(frozen=True)
class Operation:
    """An operation as a tool, and where each parameter goes ("path", "query", "body", ...)."""

    tool: Tool
    method: str
    path: str
    places: Mapping[str, str]

    def to_spec(self, server: str) -> dict[str, Json]:
        """Return the entry of `tools` that asks it.

        Optional parameters of the query of a request with a body, headers and cookies are left out:
        the model cannot set them.
        """
        body = self.method in _WITH_BODY
        required = self.tool.parameters["required"]
        kept, query = {}, list[str]()
        for name, schema in self.tool.parameters["properties"].items():
            place = self.places[name]
            if place in ("header", "cookie") or (
                place == "query" and body and name not in required
            ):
                continue
            kept[name] = schema
            query += [f"{name}={{{name}}}"] if place == "query" and body else []
        url = server.rstrip("/") + self.path + (f"?{'&'.join(query)}" if query else "")
        parameters = {"type": "object", "properties": kept}
        parameters["required"] = [name for name in required if name in kept]
        spec = {"name": self.tool.name, "description": self.tool.description}
        return {**spec, "type": "api", "method": self.method.upper(), "url": url} | {
            "parameters": parameters
        }


def openapi_tools(document: Json) -> list[Tool]:
    """Return a tool for each operation; `DataError` for a bad schema.

    A tool is named by its `operationId`, or by method and path (`get_/users/{id}`). Its parameters,
    of path, query or header, and the fields of a JSON request body become one flat schema with
    local references resolved. Responses, servers and security are left out.
    """
    return [operation.tool for operation in read_operations(document)]


def openapi_specs(document: Json, server: str = "") -> list[dict[str, Json]]:
    """Return the entries of `tools` for all operations; they run where they are allowed by name.

    server: the address; without it the first of the document's `servers`.
    """
    listed = _object(document).get("servers")
    first = _object(listed[0] if isinstance(listed, list) and listed else None).get("url")
    address = server or str(first or "")
    if not re.match(r"https?://", address):
        right = "its address, as https://api.example.org/v1"
        raise DataError(f"the document names no server with an address, got {address!r}; {right}")
    return [operation.to_spec(address) for operation in read_operations(document)]


def read_operations(document: Json) -> Iterator[Operation]:
    """Yield the operations of a document."""
    for path, item in _object(_object(document).get("paths")).items():
        for method, operation in _object(item).items():
            if method in METHODS and isinstance(operation, Mapping):
                yield _operation(document, method, path, operation, item.get("parameters"))


def _operation(
    document: Json, method: str, path: str, operation: Mapping[str, Json], shared: Json
) -> Operation:
    properties: dict[str, Json] = {}
    required, places = list[str](), dict[str, str]()
    for entry in [*(shared or []), *(operation.get("parameters") or [])]:
        parameter = _object(resolve_refs(entry, document))
        key, text = parameter.get("name"), parameter.get("description")
        if isinstance(key, str):
            properties[key] = dict(_object(parameter.get("schema")))
            places[key] = str(parameter.get("in", "query"))
            if isinstance(text, str) and text:
                properties[key].setdefault("description", text)
            required += [key] if parameter.get("required") is True else []
    body = resolve_refs(operation.get("requestBody"), document)
    for key in ("content", "application/json", "schema"):
        body = _object(body).get(key)
    fields = _object(body).get("properties") or {}
    properties |= fields
    places |= dict.fromkeys(fields, "body")
    in_body = _object(body).get("required") or []
    required += [key for key in in_body if key in properties and key not in required]
    parameters = {"type": "object", "properties": properties, "required": required}
    text = operation.get("description") or operation.get("summary")
    named = operation.get("operationId") or f"{method}_{path}"
    tool = Tool.of({"name": named, "description": text, "parameters": parameters})
    return Operation(tool, method, path, places)


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}
