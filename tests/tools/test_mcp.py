"""Tools of an MCP server: its schemas, its answers, its errors and its death are outcomes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from toolhone.errors import ConfigError
from toolhone.schema import ToolCall
from toolhone.sources.tool_lists import list_tools
from toolhone.tools.loading import make_registry
from toolhone.tools.mcp_server import read_server
from toolhone.tools.result import ToolStatus

SERVER = '''
import os, time
from mcp.server.mcpserver import MCPServer

server = MCPServer("shop")

@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b

@server.tool()
def say(text: str) -> str:
    """Says it often."""
    return text * 1000

@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("no such thing")

@server.tool()
def wait() -> str:
    """Waits."""
    time.sleep(30)
    return "late"

@server.tool()
def number() -> int:
    """The number of the process."""
    return os.getpid()

server.run()
'''


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    pytest.importorskip("mcp", reason="the extra mcp is not installed")
    pytest.importorskip("mcp.server.mcpserver")
    (tmp_path / "server.py").write_text(SERVER)
    command = [sys.executable, str(tmp_path / "server.py")]
    named = {"command": command, "env": ["PYTHONPATH"], "timeout": 2.0, "max_bytes": 100}
    return {"name": "shop", "mcp": named}


def test_a_server_lists_its_tools_and_answers_calls(spec: dict[str, Any], tmp_path: Path) -> None:
    registry = make_registry([spec], tmp_path, ["shop"])
    assert [tool.name for tool in registry.tools] == ["add", "say", "fail", "wait", "number"]
    assert registry.tools[0].parameters["required"] == ["a", "b"]
    added = registry.run(ToolCall("add", {"a": 2, "b": 3}))
    assert (added.outcome, added.value) == (ToolStatus.OK, {"result": 5})
    assert registry.run(ToolCall("add", {"a": 2})).outcome is ToolStatus.INVALID_ARGUMENTS
    failed = registry.run(ToolCall("fail", {}))
    assert failed.outcome is ToolStatus.ERROR
    assert "fail" in failed.content
    assert "[cut:" in registry.run(ToolCall("say", {"text": "x"})).content


def test_a_late_or_dead_server_is_an_outcome_and_is_started_again(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    registry = make_registry([spec], tmp_path, ["shop"])
    assert registry.run(ToolCall("wait", {})).outcome is ToolStatus.TIMEOUT
    first = registry.run(ToolCall("number", {})).value["result"]
    os.kill(first, signal.SIGKILL)
    time.sleep(0.2)
    assert registry.run(ToolCall("number", {})).outcome is ToolStatus.UNREACHABLE
    again = registry.run(ToolCall("number", {}))
    assert again.outcome is ToolStatus.OK
    assert again.value["result"] != first


def test_the_tools_of_a_server_can_be_frozen(spec: dict[str, Any]) -> None:
    frozen = list_tools(" ".join(spec["mcp"]["command"]))
    assert [tool["function"]["name"] for tool in frozen][:2] == ["add", "say"]


def test_a_server_that_is_not_allowed_is_not_started(tmp_path: Path) -> None:
    spec = {"mcp": {"command": ["touch", str(tmp_path / "ran")]}}
    with pytest.raises(ConfigError, match=r'allowed_tools=\["touch"\]'):
        make_registry([spec], tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({}, "'command'"),
        ({"command": "time"}, "'command'"),
        ({"command": ["a"], "url": "http://a"}, "one of them"),
        ({"url": "ftp://a"}, "http://"),
        ({"command": ["a"], "timeout": 0}, "above 0"),
        ({"command": ["a"], "envs": []}, "unknown key"),
        ([], "an object"),
    ],
)
def test_a_mistake_in_the_entry_of_a_server_is_named(spec: Any, wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=wrong):
        read_server(spec, tmp_path)
