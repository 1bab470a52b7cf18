"""Tools of an MCP server (extra `mcp`): `{"mcp": {"command": [...]}}` or `{"mcp": {"url": ...}}`.

    with open_server({"command": ["mcp-server-time"]}, Path.cwd()) as server:
        server.tools()                         # what the server answers to `tools/list`

A command is started once for all its tools, and again when it has died. Prompts, resources and
sampling are not used.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shlex
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from operator import methodcaller
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

from toolhone.errors import CapabilityError, ConfigError, DataError, ServiceError, nearest
from toolhone.schema import Json, Tool
from toolhone.tools.result import CallError, ToolStatus, to_text, truncate

TIMEOUT, MAX_BYTES = 30.0, 65_536
START = 60.0
"""Seconds in which a server must answer for the first time."""
_KEPT = ("PATH", "HOME", "LANG", "USER", "TERM")
"""Variables of the environment that a command gets; `env` names others."""
_KEYS = ("command", "url", "env", "cwd", "timeout", "max_bytes")


@dataclass
class McpServer:
    """A connection to one server, in a thread of its own."""

    command: tuple[str, ...] = ()
    url: str = ""
    env: tuple[str, ...] = ()
    cwd: Path = Path()
    timeout: float = TIMEOUT
    max_bytes: int = MAX_BYTES
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)
    _session: _ServerConnection | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The program, or the host of the address."""
        return Path(self.command[0]).name if self.command else str(urlsplit(self.url).hostname)

    def tools(self) -> list[dict[str, Json]]:
        """Return the objects of the tools; `ServiceError` where the server does not answer."""
        found: list[dict[str, Json]] = []
        cursor: str | None = None
        while True:
            try:
                page = self._ask(methodcaller("list_tools", cursor=cursor), START)
            except CallError as error:
                raise ServiceError(f"the MCP server {self.name!r}: {error}") from None
            found += page["tools"]
            cursor = page.get("nextCursor")
            if not cursor:
                return found

    def call(self, name: str, arguments: Mapping[str, Json]) -> Json:
        """Return what a tool answers: its structured result, else its text; else a `CallError`."""
        reply = self._ask(lambda client: client.call_tool(name, dict(arguments)), self.timeout)
        parts = reply.get("content") or []
        texts = [
            part["text"]
            if part.get("type") == "text"
            else f"[{part.get('type')} of {len(json.dumps(part)):,} characters, which is not shown]"
            for part in parts
        ]
        if reply.get("isError"):
            raise CallError(ToolStatus.ERROR, truncate("\n".join(texts), self.max_bytes))
        structured = reply.get("structuredContent")
        if structured is None:
            return truncate("\n".join(texts), self.max_bytes)
        if len(to_text(structured)) > self.max_bytes:
            return truncate(to_text(structured), self.max_bytes)
        return structured

    def close(self) -> None:
        """Stop the server; the next request starts it again."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def __enter__(self) -> McpServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, request: Callable[[Any], Awaitable[Any]], seconds: float) -> dict[str, Any]:
        with self._lock:
            if self._session is None or not self._session.is_open:
                self._session = _ServerConnection(self._target)
                try:
                    self._session.open()
                except Exception as error:
                    self.close()
                    why = f"it does not start ({_reason(error)}); run its command to see why"
                    raise CallError(ToolStatus.UNREACHABLE, why) from None
        session = self._session
        future = asyncio.run_coroutine_threadsafe(_dumped(session.client, request), session.loop)
        try:
            return future.result(seconds)
        except Late:
            future.cancel()
            raise CallError(ToolStatus.TIMEOUT, f"no answer within {seconds:g} s") from None
        except CallError:
            raise
        except Exception as error:
            # An answer of the server, such as of a tool that it does not know, has a code of its
            # own; others mean that there is no server any more.
            code = getattr(getattr(error, "error", None), "code", None)
            if not isinstance(code, int) or code in (-32000, -32001):
                self.close()
                what = f"the server {self.name!r} stopped: {_reason(error)}"
                raise CallError(ToolStatus.UNREACHABLE, what) from None
            raise CallError(ToolStatus.ERROR, _reason(error)) from None

    def _target(self, quiet: TextIO) -> Any:
        """Return what the client of the package connects to; a command writes errors to `quiet`."""
        if self.url:
            return self.url
        from mcp.client.stdio import StdioServerParameters, stdio_client

        names = [name for name in (*_KEPT, *self.env) if name in os.environ]
        parameters = StdioServerParameters(
            command=self.command[0],
            args=list(self.command[1:]),
            env={name: os.environ[name] for name in names},
            cwd=str(self.cwd),
        )
        return stdio_client(parameters, errlog=quiet)


class _ServerConnection:
    """One run of a client in the event loop of a thread."""

    def __init__(self, target: Callable[[TextIO], Any]) -> None:
        self.loop, self.client = asyncio.new_event_loop(), None
        self._target, self._ready = target, threading.Event()
        self._error: BaseException | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="mcp")

    @property
    def is_open(self) -> bool:
        return self.client is not None and self._thread.is_alive()

    def open(self) -> None:
        self._thread.start()
        if not self._ready.wait(START):
            raise TimeoutError(f"no answer within {START:g} s")
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        if self._end is not None and self._thread.is_alive():
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._end.set)
            self._thread.join(10)

    def _run(self) -> None:
        with suppress(BaseException):
            self.loop.run_until_complete(self._serve())
        self.client = None
        self._ready.set()
        self.loop.close()

    async def _serve(self) -> None:
        from mcp import Client

        self._end = asyncio.Event()
        try:
            with open(os.devnull, "w") as quiet:
                async with Client(self._target(quiet)) as client:
                    self.client = client
                    self._ready.set()
                    await self._end.wait()
        except BaseException as error:
            self._error = error
            raise


async def _dumped(client: Any, request: Callable[[Any], Awaitable[Any]]) -> dict[str, Any]:
    found = await request(client)
    return dict(found.model_dump(by_alias=True, mode="json", exclude_none=True))


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def read_server(spec: Json, base: Path) -> McpServer:
    """Read `{"command": [...]}` or `{"url": ...}`; a mistake is a `ConfigError`."""
    if not isinstance(spec, Mapping):
        raise ConfigError(f"mcp must be an object with 'command' or 'url', got {spec!r:.60}")
    for key in spec:
        if key not in _KEYS:
            raise ConfigError(f"mcp has an unknown key {key!r}{nearest(key, _KEYS)}")
    command, url, env = spec.get("command", []), spec.get("url", ""), spec.get("env", [])
    words = isinstance(command, list) and all(isinstance(word, str) for word in command)
    if not words or not isinstance(url, str) or bool(command) == bool(url):
        right = "'command' (a list of words) or 'url' (a text), one of them"
        raise ConfigError(f"mcp needs {right}, got {dict(spec)!r:.80}")
    if url and urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"mcp: 'url' must begin with http:// or https://, got {url!r:.60}")
    if not isinstance(env, list) or not all(isinstance(name, str) for name in env):
        raise ConfigError(f"mcp: 'env' must be a list of names of variables, got {env!r:.60}")
    timeout, most = spec.get("timeout", TIMEOUT), spec.get("max_bytes", MAX_BYTES)
    for key, value in (("timeout", timeout), ("max_bytes", most)):
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ConfigError(f"mcp: {key!r} must be a number above 0, got {value!r:.40}")
    folder = base / str(spec.get("cwd", "."))
    return McpServer(tuple(command), url, tuple(env), folder, float(timeout), int(most))


@cache
def _opened(definition: str, base: Path) -> McpServer:
    server = read_server(json.loads(definition), base)
    atexit.register(server.close)
    return server


def open_server(spec: Mapping[str, Json], base: Path) -> McpServer:
    """Return the server of an entry, one for each entry of a process; nothing is started yet."""
    try:
        import mcp  # noqa: F401
    except ImportError:
        install = "python -m pip install 'toolhone[mcp]'"
        raise CapabilityError(f"tools of an MCP server need the package mcp: {install}") from None
    return _opened(json.dumps(dict(spec), sort_keys=True), base)


def mcp_tools(
    spec: Mapping[str, Json], base: Path, allowed: Collection[str]
) -> list[tuple[Tool, McpServer]]:
    """Return the tools of an entry `{"name"?, "mcp": {...}}` with their server.

    Its server runs a program or is elsewhere: it is asked only where `allowed` has its name.
    """
    server = read_server(spec["mcp"], base)
    name = str(spec.get("name") or server.name)
    if name not in allowed:
        what = "runs a command" if server.command else "asks an address"
        right = f'allow it by name: allowed_tools=["{name}"], or freeze its tools with'
        asked = shlex.quote(shlex.join(server.command) or server.url)
        freeze = f"`toolhone data tools {asked} --to tools.json`"
        raise ConfigError(f"the MCP server {name!r} {what} and is not allowed; {right} {freeze}")
    server = open_server(spec["mcp"], base)
    made = []
    for source in server.tools():
        try:
            made.append((Tool.of(source, set()), server))
        except DataError as error:
            raise ConfigError(f"the MCP server {name!r}: {error}") from None
    return made
