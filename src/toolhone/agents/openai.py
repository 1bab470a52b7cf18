"""OpenAI's chat form: reads requests, writes answers whole (`completion`) or in pieces (`chunks`).

    request = read_request({"messages": [...], "tools": [...]}, SamplingParams())
    completion(answer_of(turn, request), head)    # {"object": "chat.completion", ...}

Every key of a request is used, has no effect (`user`, ...), or is refused by name.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from toolhone.backends.base import SamplingParams, StopReason
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.episode import advice_on
from toolhone.episodes.policy import Turn
from toolhone.errors import DataError, nearest
from toolhone.schema import Json, Message, Tool
from toolhone.schema.json_input import is_number

USED = (
    *("model", "messages", "tools", "tool_choice", "temperature", "top_p", "top_k", "max_tokens"),
    *("max_completion_tokens", "seed", "stream", "stream_options"),
)
WITHOUT_EFFECT = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    "prompt_cache_retention",
)
"""Keys that do not change the reply."""
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
"""Keys that are supported with these values (or null) alone."""
INSTEAD = {
    "n": "send the request several times, with other seeds",
    "stop": "a turn ends where the model's format ends it",
    "functions": "use tools",
    "response_format": "leave it out; toolhone serve --constrained holds calls to their schemas",
}
STREAM_OPTIONS = {"include_usage", "include_obfuscation"}
MAX_TOKENS = 131072
"""Most tokens that a request may ask for."""
NOT_ON_OFFER = "not_on_offer"
"""The problem of a reply that calls a tool where the request has none."""


@dataclass(frozen=True)
class ChatRequest:
    """One request. `tools` are those that the reply may call; if not `seeded`, any seed will do."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    params: SamplingParams
    seeded: bool = False
    model: str | None = None
    stream: bool = False
    with_usage: bool = False


def read_request(body: Json, defaults: SamplingParams) -> ChatRequest:
    """Read a request; a mistake is a `DataError`. `defaults` holds where the request is silent."""
    if not isinstance(body, dict):
        raise DataError(f"the request must be a JSON object, it is {type(body).__name__}")
    known = (*USED, *WITHOUT_EFFECT, *ONLY)
    for key, value in body.items():
        if key not in known:
            raise DataError(f"{key!r} is not understood here{nearest(key, known)}; leave it out")
        allowed = ONLY.get(key, (value,)) if value is not None else (None,)
        same = [value is one or (value == one and not isinstance(value, bool)) for one in allowed]
        if not any(same):
            right = f"only {allowed[0]!r}; {INSTEAD.get(key, 'leave it out')}"
            raise DataError(f"{key}={value!r:.60} is not supported here, {right}")
    messages, tools = _messages(body), _tools(body)
    model, stream, options = body.get("model"), _flag(body, "stream"), body.get("stream_options")
    choice = body.get("tool_choice") or "auto"
    if choice not in ("auto", "none"):
        wrong = f"got {choice!r:.80}; a call cannot be required"
        raise DataError(f"tool_choice is 'auto' or 'none', {wrong}")
    if model is not None and not isinstance(model, str):
        raise DataError(f"model must be a name, got {model!r:.40}")
    options = options or {}
    if stream and not (isinstance(options, dict) and options.keys() <= STREAM_OPTIONS):
        raise DataError(f"stream_options is an object with include_usage, got {options!r:.60}")
    params = _params(body, defaults)
    seeded = body.get("seed") is not None and params.temperature > 0
    with_usage = stream and _flag(options, "include_usage")
    offered = () if choice == "none" else tools
    return ChatRequest(messages, offered, params, seeded, model, stream, with_usage)


def _params(body: Mapping[str, Json], defaults: SamplingParams) -> SamplingParams:
    """The settings of sampling; greedy sampling has no seed and truncates nothing."""
    keys = ("max_completion_tokens", "max_tokens")
    new, old = (_number(body, key, 1, MAX_TOKENS, whole=True) for key in keys)
    if new is not None and old is not None and new != old:
        wrong = f"max_completion_tokens is {new} and max_tokens {old}"
        raise DataError(f"{wrong}; they are one setting, give one")
    found: dict[str, Any] = {
        "max_tokens": old if new is None else new,
        "top_k": _number(body, "top_k", 0, MAX_TOKENS, whole=True),
        "seed": _number(body, "seed", -(2**63), 2**63 - 1, whole=True),
        "temperature": _number(body, "temperature", 0, 100),
        "top_p": _number(body, "top_p", 1e-6, 1),
    }
    params = replace(defaults, **{key: value for key, value in found.items() if value is not None})
    if params.temperature == 0:
        return replace(params, top_p=1.0, top_k=0, seed=defaults.seed)
    return params


def _messages(body: Mapping[str, Json]) -> tuple[Message, ...]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        right = "a list with at least one message"
        raise DataError(f"'messages' must be {right}, got {messages!r:.60}")
    read = []
    for index, message in enumerate(messages):
        try:
            if isinstance(message, dict) and message.get("function_call"):
                raise DataError("'function_call' is not read here; write calls as 'tool_calls'")
            if isinstance(message, dict):  # a reply of ours may come back as it was
                message = {key: value for key, value in message.items() if key != "toolhone"}
            read.append(Message.from_dict(message))
        except DataError as error:
            raise DataError(f"messages[{index}]: {error}") from None
    if read[-1].role == "assistant":
        wrong = "there is nothing to answer (a reply cannot be given a beginning)"
        raise DataError(f"the last message is the assistant's; {wrong}")
    return tuple(read)


def _tools(body: Mapping[str, Json]) -> tuple[Tool, ...]:
    sources = body.get("tools")
    if not isinstance(sources, list | None):
        raise DataError(f"'tools' must be a list, got {sources!r:.60}")
    tools: dict[str, Tool] = {}
    for index, source in enumerate(sources or ()):
        where = f"tools[{index}]"
        if not isinstance(source, dict) or source.get("type", "function") != "function":
            raise DataError(f"{where} must be an object of type 'function', got {source!r:.60}")
        try:
            tool = Tool.of(source)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if tool.name in tools:
            raise DataError(f"{where} is a second tool {tool.name!r}; give each its own name")
        tools[tool.name] = tool
    return tuple(tools.values())


def _number(
    body: Mapping[str, Json], key: str, low: float, high: float, whole: bool = False
) -> float | None:
    value = body.get(key)
    if value is None:
        return None
    if not is_number(value, whole) or not math.isfinite(value) or not low <= value <= high:
        span = f"whole number from {low} to {high}" if whole else f"number from {low:g} to {high:g}"
        raise DataError(f"{key} must be a {span}, got {value!r:.40}")
    return value  # type: ignore[no-any-return]


def _flag(body: Mapping[str, Json], key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise DataError(f"{key} must be true or false, got {value!r:.40}")
    return bool(value)


@dataclass(frozen=True)
class Answer:
    """A turn for the client. `message["toolhone"]` holds its problems, if it has any."""

    message: dict[str, Json]
    finish_reason: str
    usage: dict[str, Json]


def answer_of(turn: Turn, request: ChatRequest) -> Answer:
    """Turn a sampled turn into an answer.

    A turn that cannot be parsed, or that calls where no tool is on offer, is returned as its text;
    calls that do not fit their tool, as calls. `toolhone` in the message describes both, with
    what to answer as the user so that the model writes it again.
    """
    said, cut = turn.message, turn.stop_reason is StopReason.LENGTH
    prompt, sampled = len(turn.prompt) + len(turn.prefill), len(turn.tokens)
    usage = {"prompt_tokens": prompt, "completion_tokens": sampled}
    usage["total_tokens"] = prompt + sampled
    problem = turn.problem.value if turn.problem is not ParseProblem.NONE else ""
    if not problem and said.tool_calls and not request.tools:
        problem = NOT_ON_OFFER
    if problem:
        about = {"problem": problem}
        about |= {} if problem == NOT_ON_OFFER else {"advice": advice_on(turn.problem)}
        whole = {"role": "assistant", "content": turn.text, "toolhone": about}
        return Answer(whole, "length" if cut else "stop", usage)
    calls: list[dict[str, Json]] = []
    faults: list[str] = []
    offered = {tool.name: tool for tool in request.tools}
    for call in said.tool_calls:
        wrong = ["no tool of this name was on offer"]
        if tool := offered.get(call.name):
            wrong = tool.problems(call.arguments)
        faults += [f"{call.name}: {fault}" for fault in wrong]
        # The model's own ids, where they are unique.
        unique = call.id and all(other["id"] != call.id for other in calls)
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
        function = {"name": call.name, "arguments": arguments}
        identity = call.id if unique else f"call_{secrets.token_hex(12)}"
        calls.append({"id": identity, "type": "function", "function": function})
    content = said.content if calls else said.content or ""
    message: dict[str, Json] = {"role": "assistant", "content": content}
    message |= {} if said.reasoning is None else {"reasoning_content": said.reasoning}
    message |= {"tool_calls": calls} if calls else {}
    message |= {"toolhone": {"calls": faults}} if faults else {}
    finish = "tool_calls" if calls else "stop"
    return Answer(message, "length" if cut else finish, usage)


def completion(answer: Answer, head: Mapping[str, Json]) -> dict[str, Json]:
    """Write the reply as one object; `head` holds id, time, model and fingerprint."""
    choice = {"index": 0, "message": answer.message, "logprobs": None}
    choice["finish_reason"] = answer.finish_reason
    return {**head, "object": "chat.completion", "choices": [choice], "usage": answer.usage}


def chunks(answer: Answer, head: Mapping[str, Json], with_usage: bool) -> Iterator[dict[str, Json]]:
    """Write the reply in pieces: role, reasoning, text, calls, finish reason, usage."""
    message = answer.message
    opening = {"role": "assistant", "content": None if message["content"] is None else ""}
    deltas: list[dict[str, Json]] = [opening]
    for key in ("reasoning_content", "content"):
        deltas += [{key: word} for word in re.findall(r"\s+|\S+\s*", message.get(key) or "")]
    for index, call in enumerate(message.get("tool_calls", ())):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        first = {"index": index, **call, "function": {"name": name, "arguments": ""}}
        rest = {"index": index, "function": {"arguments": arguments}}
        deltas += [{"tool_calls": [first]}, {"tool_calls": [rest]}]
    deltas += [{"toolhone": message["toolhone"]}] if "toolhone" in message else []
    shared = {**head, "object": "chat.completion.chunk"}
    usage = {"usage": None} if with_usage else {}
    for delta, finish in (*((delta, None) for delta in deltas), ({}, answer.finish_reason)):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        yield {**shared, "choices": [choice], **usage}
    if with_usage:
        yield {**shared, "choices": [], "usage": answer.usage}
