"""A request in OpenAI's chat form, read: `read_request` gives an `ChatRequest`, or a `DataError` whose sentence says what is wrong.

    asked = read_request({"messages": [{"role": "user", "content": "2 + 2?"}], "tools": [...]}, Defaults(256, 0.0, 1.0))

Every key is used, known to change nothing (`user`, `metadata`, ...), or refused by name: nothing that was asked for is left out in
silence. What a request leaves out is as the model's experiment says. Nothing here renders, samples or knows HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolhone.errors import DataError, nearest
from toolhone.schema import Json, Message, Tool

USED = (
    *(
        "model",
        "messages",
        "tools",
        "tool_choice",
        "temperature",
        "top_p",
        "top_k",
        "max_tokens",
        "max_completion_tokens",
        "seed",
    ),
    *("stream", "stream_options"),
)
WITHOUT_EFFECT = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
)
"""Keys that say nothing about the reply."""
ONLY: Mapping[str, tuple[Json, ...]] = {
    "n": (1,),
    "stop": ([],),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "parallel_tool_calls": (True,),
    "response_format": ({"type": "text"},),
    "functions": ([],),
    "modalities": (["text"],),
}
"""Keys that are understood with these values alone (or null)."""
INSTEAD = {
    "n": "send the request several times, with other seeds",
    "stop": "a turn ends where the model's format ends it",
    "functions": "use tools",
    "response_format": "leave it out; toolhone serve --constrained holds calls to their schemas",
}
MOST = 131072
"""Tokens that may be asked for at once."""


@dataclass(frozen=True)
class Defaults:
    """What holds where a request says nothing."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int = 0


@dataclass(frozen=True)
class ChatRequest:
    """One request. `offered` are the tools that the reply may call: none with tool_choice "none". `seed` None: any."""

    messages: tuple[Message, ...]
    offered: tuple[Tool, ...]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int = 0
    seed: int | None = None
    model: str | None = None
    stream: bool = False
    with_usage: bool = False


def read_request(body: Json, defaults: Defaults) -> ChatRequest:
    """The request in this JSON value."""
    if not isinstance(body, dict):
        raise DataError(f"the request must be a JSON object, it is {type(body).__name__}")
    _refuse(body)
    messages, tools = _messages(body), _tools(body)
    stream = _truth(body, "stream")
    return ChatRequest(
        messages,
        () if _choice(body) == "none" else tools,
        _max_tokens(body, defaults.max_tokens),
        _number(body, "temperature", defaults.temperature, 0.0, 100.0),
        _number(body, "top_p", defaults.top_p, 1e-6, 1.0),
        _whole(body, "top_k", 0, MOST) or 0 if body.get("top_k") is not None else defaults.top_k,
        _whole(body, "seed", -(2**63), 2**63 - 1),
        _name(body),
        stream,
        stream and _with_usage(body),
    )


def _refuse(body: Mapping[str, Json]) -> None:
    """Keys that are not known, and known ones with a value that is not heeded here."""
    known = (*USED, *WITHOUT_EFFECT, *ONLY)
    for key, value in body.items():
        if key not in known:
            raise DataError(f"{key!r} is not understood here{nearest(key, known)}; leave it out")
        if (
            key in ONLY
            and value is not None
            and not any(
                (value == only and type(value) is not bool) or value is only for only in ONLY[key]
            )
        ):
            way = INSTEAD.get(key, "leave it out")
            raise DataError(
                f"{key}={value!r:.60} is not supported here, only {ONLY[key][0]!r}; {way}"
            )


def _messages(body: Mapping[str, Json]) -> tuple[Message, ...]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"'messages' must be a list with at least one message, got {messages!r:.60}"
        )
    read = []
    for index, message in enumerate(messages):
        try:
            if isinstance(message, dict) and message.get("function_call"):
                raise DataError("'function_call' is not read here; write calls as 'tool_calls'")
            read.append(Message.from_dict(message))
        except DataError as error:
            raise DataError(f"messages[{index}]: {error}") from None
    if read[-1].role == "assistant":
        raise DataError(
            "the last message is the assistant's; there is nothing to answer (a reply cannot be given a beginning)"
        )
    return tuple(read)


def _tools(body: Mapping[str, Json]) -> tuple[Tool, ...]:
    sources = body.get("tools")
    if sources is None:
        return ()
    if not isinstance(sources, list):
        raise DataError(f"'tools' must be a list, got {sources!r:.60}")
    tools: list[Tool] = []
    for index, source in enumerate(sources):
        kind = source.get("type", "function") if isinstance(source, dict) else None
        if kind != "function":
            raise DataError(
                f"tools[{index}] must be an object of type 'function', got {source!r:.60}"
            )
        try:
            tools.append(Tool.of(source))
        except DataError as error:
            raise DataError(f"tools[{index}]: {error}") from None
    names = [tool.name for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"'tools' holds {name!r} {names.count(name)} times; a name stands for one tool"
            )
    return tuple(tools)


def _choice(body: Mapping[str, Json]) -> str:
    choice = body.get("tool_choice") or "auto"
    if choice not in ("auto", "none"):
        raise DataError(
            f"tool_choice is 'auto' or 'none', got {choice!r:.80}; that a call must be made cannot be asked for"
        )
    return str(choice)


def _max_tokens(body: Mapping[str, Json], default: int) -> int:
    given = [
        found
        for key in ("max_completion_tokens", "max_tokens")
        if (found := _whole(body, key, 1, MOST)) is not None
    ]
    if len(set(given)) > 1:
        raise DataError(
            f"max_completion_tokens is {given[0]} and max_tokens {given[1]}; they are one setting, give one"
        )
    return given[0] if given else default


def _whole(body: Mapping[str, Json], key: str, low: int, high: int) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise DataError(f"{key} must be a whole number from {low} to {high}, got {value!r:.40}")
    return value


def _number(body: Mapping[str, Json], key: str, default: float, low: float, high: float) -> float:
    value = body.get(key)
    if value is None:
        return default
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or not low <= value <= high
    ):
        raise DataError(f"{key} must be a number from {low:g} to {high:g}, got {value!r:.40}")
    return float(value)


def _truth(body: Mapping[str, Json], key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise DataError(f"{key} must be true or false, got {value!r:.40}")
    return bool(value)


def _name(body: Mapping[str, Json]) -> str | None:
    value = body.get("model")
    if value is not None and not isinstance(value, str):
        raise DataError(f"model must be a name, got {value!r:.40}")
    return value


def _with_usage(body: Mapping[str, Json]) -> bool:
    options: Any = body.get("stream_options") or {}
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise DataError(f"stream_options is an object with include_usage, got {options!r:.60}")
    return _truth(options, "include_usage")
