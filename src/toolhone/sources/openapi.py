"""The operations of an OpenAPI 3 description as tools.

    tools = tools_of(json.loads(text))

An operation is named by its `operationId`, or by its method and path (`get_/users/{id}`). Its
parameters, wherever they go (path, query, header), and the fields of a JSON request body become one
flat schema; local references are put in place. What is answered, servers and security are not told.
A reference that leads nowhere or in circles stands for any value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from toolhone.schema import Json, Tool
from toolhone.schema.tool import resolve_refs

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


def tools_of(document: Json) -> list[Tool]:
    """One tool for each operation; `DataError` for one whose schema is none."""
    return [
        Tool.of(_tool(document, path, method, operation))
        for path, method, operation in _operations(document)
    ]


def _operations(document: Json) -> Iterator[tuple[str, str, Mapping[str, Json]]]:
    paths = document.get("paths") if isinstance(document, Mapping) else None
    for path, item in (paths if isinstance(paths, Mapping) else {}).items():
        for method, operation in (item if isinstance(item, Mapping) else {}).items():
            if method in _METHODS and isinstance(operation, Mapping):
                shared = item.get("parameters") or []
                yield (
                    path,
                    method,
                    {**operation, "parameters": [*shared, *(operation.get("parameters") or [])]},
                )


def _tool(document: Json, path: str, method: str, operation: Mapping[str, Json]) -> dict[str, Json]:
    properties: dict[str, Json] = {}
    required: list[str] = []
    for entry in operation["parameters"]:
        parameter = resolve_refs(entry, document)
        if not isinstance(parameter, Mapping) or not isinstance(parameter.get("name"), str):
            continue
        properties[parameter["name"]] = _described(
            parameter.get("schema"), parameter.get("description")
        )
        required += [parameter["name"]] if parameter.get("required") is True else []
    body = _body(resolve_refs(operation.get("requestBody"), document))
    properties |= body.get("properties") or {}
    required += [
        name for name in body.get("required") or [] if name in properties and name not in required
    ]
    return {
        "name": operation.get("operationId") or f"{method}_{path}",
        "description": operation.get("description") or operation.get("summary"),
        "parameters": {"type": "object", "properties": properties, "required": required},
    }


def _described(schema: Json, told: Json) -> dict[str, Json]:
    plain = dict(schema) if isinstance(schema, Mapping) else {}
    return (
        {**plain, "description": told}
        if isinstance(told, str) and told and "description" not in plain
        else plain
    )


def _body(body: Json) -> Mapping[str, Json]:
    """The schema of a JSON request body, or an empty one."""
    content = body.get("content") if isinstance(body, Mapping) else None
    media = content.get("application/json") if isinstance(content, Mapping) else None
    schema = media.get("schema") if isinstance(media, Mapping) else None
    return schema if isinstance(schema, Mapping) else {}
