"""Operations of an OpenAPI document become tools that a request over HTTP runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolhone.errors import DataError
from toolhone.tools.loading import load_tools
from toolhone.tools.openapi import openapi_specs
from toolhone.tools.registry import Implementation

DOCUMENT = {
    "servers": [{"url": "https://api.example.org/v1/"}],
    "paths": {
        "/users/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {}}],
            "get": {
                "operationId": "user",
                "summary": "Finds a user.",
                "parameters": [
                    {"name": "fields", "in": "query", "schema": {"type": "string"}},
                    {"name": "trace", "in": "header", "schema": {"type": "string"}},
                ],
            },
            "post": {
                "operationId": "rename",
                "parameters": [
                    {"name": "reason", "in": "query", "required": True, "schema": {}},
                    {"name": "loud", "in": "query", "schema": {}},
                ],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/c/Name"}}}},
            },
        }
    },
    "c": {
        "Name": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    },
}


def test_an_operation_is_a_tool_of_type_api() -> None:
    user, rename = openapi_specs(DOCUMENT)
    assert (user["method"], user["url"]) == ("GET", "https://api.example.org/v1/users/{id}")
    assert list(user["parameters"]["properties"]) == ["id", "fields"]
    assert rename["url"].endswith("/users/{id}?reason={reason}")
    assert rename["parameters"]["required"] == ["id", "reason", "name"]
    assert "loud" not in rename["parameters"]["properties"]


def test_its_entries_are_tools_of_an_experiment_and_off_until_allowed(tmp_path: Path) -> None:
    tools = [load_tools(spec, tmp_path)[0] for spec in openapi_specs(DOCUMENT)]
    assert [tool.name for tool in tools] == ["user", "rename"]
    for tool in tools:
        assert isinstance(tool.function, Implementation)
        assert "not allowed" in tool.function.refusal


def test_an_address_may_be_named_and_is_needed() -> None:
    assert openapi_specs(DOCUMENT, "http://localhost:1/x")[0]["url"].startswith(
        "http://localhost:1/x"
    )
    with pytest.raises(DataError, match="names no server"):
        openapi_specs({**DOCUMENT, "servers": [{"url": "/v1"}]})
