"""OpenAI's chat form: reads requests, writes answers whole (`completion`) or as a stream
(`chunks`).

    request = read_request({"messages": [...], "tools": [...]}, Defaults(256, 0.0, 1.0))
    completion(answer_of(turn, request), head)    # {"object": "chat.completion", ...}

Every key of a request is used, has no effect (`user`, ...), or is refused by name.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from toolhone.backends.base import StopReason
from toolhone.dialects.base import ParseProblem
from toolhone.episodes.policy import Turn
from toolhone.errors import DataError, nearest
from toolhone.schema import Json, Message, Tool

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
MAX_TOKENS = 131072
"""Most tokens that a request may ask for."""
NOT_ON_OFFER = "not_on_offer"
"""The problem of a reply that calls a tool where the request has none."""


@dataclass(frozen=True)
class Defaults:
    """Sampling settings where a request has none."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int = 0


@dataclass(frozen=True)
class ChatRequest:
    """One request. `tools` are those that the reply may call. A `seed` of None allows any."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int = 0
    seed: int | None = None
    model: str | None = None
    stream: bool = False
    with_usage: bool = False


def read_request(body: Json, defaults: Defaults) -> ChatRequest:
    """Read a request; a mistake is a `DataError`."""
    if not isinstance(body, dict):
        raise DataError(f"the request must be a JSON object, it is {type(body).__name__}")
    _check_keys(body)
    messages, tools = _messages(body), _tools(body)
    model, stream, options = body.get("model"), _flag(body, "stream"), body.get("stream_options")
    choice = body.get("tool_choice") or "auto"
    if choice not in ("auto", "none"):
        wrong = f"got {choice!r:.80}; a call cannot be required"
        raise DataError(f"tool_choice is 'auto' or 'none', {wrong}")
    if model is not None and not isinstance(model, str):
        raise DataError(f"model must be a name, got {model!r:.40}")
    options = options or {}
    known = {"include_usage", "include_obfuscation"}
    if stream and (not isinstance(options, dict) or set(options) - known):
        raise DataError(f"stream_options is an object with include_usage, got {options!r:.60}")
    keys = ("max_completion_tokens", "max_tokens")
    new, old = (_number(body, key, 1, MAX_TOKENS, whole=True) for key in keys)
    if new is not None and old is not None and new != old:
        wrong = f"max_completion_tokens is {new} and max_tokens {old}"
        raise DataError(f"{wrong}; they are one setting, give one")
    most = old if new is None else new
    top_k = _number(body, "top_k", 0, MAX_TOKENS, whole=True)
    seed = _number(body, "seed", -(2**63), 2**63 - 1, whole=True)
    temperature, top_p = _number(body, "temperature", 0, 100), _number(body, "top_p", 1e-6, 1)
    return ChatRequest(
        messages,
        () if choice == "none" else tools,
        defaults.max_tokens if most is None else int(most),
        defaults.temperature if temperature is None else float(temperature),
        defaults.top_p if top_p is None else float(top_p),
        defaults.top_k if top_k is None else int(top_k),
        None if seed is None else int(seed),
        model,
        stream,
        stream and _flag(options, "include_usage"),
    )


def _check_keys(body: Mapping[str, Json]) -> None:
    """Refuse unknown keys, and known ones with a value that is not supported."""
    known = (*USED, *WITHOUT_EFFECT, *ONLY)
    for key, value in body.items():
        if key not in known:
            raise DataError(f"{key!r} is not understood here{nearest(key, known)}; leave it out")
        if key not in ONLY or value is None:
            continue
        is_bool = isinstance(value, bool)
        if not any(value is only or (value == only and not is_bool) for only in ONLY[key]):
            right = f"only {ONLY[key][0]!r}; {INSTEAD.get(key, 'leave it out')}"
            raise DataError(f"{key}={value!r:.60} is not supported here, {right}")


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
            read.append(Message.from_dict(message))
        except DataError as error:
            raise DataError(f"messages[{index}]: {error}") from None
    if read[-1].role == "assistant":
        wrong = "there is nothing to answer (a reply cannot be given a beginning)"
        raise DataError(f"the last message is the assistant's; {wrong}")
    return tuple(read)


def _tools(body: Mapping[str, Json]) -> tuple[Tool, ...]:
    sources = body.get("tools")
    if sources is not None and not isinstance(sources, list):
        raise DataError(f"'tools' must be a list, got {sources!r:.60}")
    tools: dict[str, Tool] = {}
    for index, source in enumerate(sources or ()):
        where = f"tools[{index}]"
        kind = source.get("type", "function") if isinstance(source, dict) else None
        if kind != "function":
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
    kind = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not kind or not math.isfinite(value) or not low <= value <= high:
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
    """A turn for the client. `toolhone` holds its problems; it is empty where there are none."""

    content: str | None
    reasoning: str | None
    calls: tuple[dict[str, Json], ...]
    finish_reason: str
    usage: dict[str, Json]
    toolhone: dict[str, Json] = field(default_factory=dict)

    def message(self) -> dict[str, Json]:
        return {
            "role": "assistant",
            "content": self.content,
            **({} if self.reasoning is None else {"reasoning_content": self.reasoning}),
            **({"tool_calls": list(self.calls)} if self.calls else {}),
            **({"toolhone": self.toolhone} if self.toolhone else {}),
        }


def answer_of(turn: Turn, request: ChatRequest) -> Answer:
    """Turn a sampled turn into an answer.

    A turn that cannot be parsed, or that calls where no tool is on offer, is returned as its text;
    calls that do not fit their tool, as calls. `Answer.toolhone` describes both.
    """
    message, cut = turn.message, turn.stop_reason is StopReason.LENGTH
    prompt, sampled = len(turn.prompt) + len(turn.prefill), len(turn.tokens)
    usage = {"prompt_tokens": prompt, "completion_tokens": sampled}
    usage["total_tokens"] = prompt + sampled
    problem = turn.problem.value if turn.problem is not ParseProblem.NONE else ""
    if not problem and message.tool_calls and not request.tools:
        problem = NOT_ON_OFFER
    if problem:
        return Answer(turn.text, None, (), "length" if cut else "stop", usage, {"problem": problem})
    calls: list[dict[str, Json]] = []
    faults: list[str] = []
    offered = {tool.name: tool for tool in request.tools}
    for call in message.tool_calls:
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
    finish = "length" if cut else "tool_calls" if calls else "stop"
    content = message.content if calls else message.content or ""
    notes = {"calls": faults} if faults else {}
    return Answer(content, message.reasoning, tuple(calls), finish, usage, notes)


def completion(answer: Answer, head: Mapping[str, Json]) -> dict[str, Json]:
    """Write the reply as one object; `head` holds id, time, model and fingerprint."""
    choice = {"index": 0, "message": answer.message(), "logprobs": None}
    choice["finish_reason"] = answer.finish_reason
    return {**head, "object": "chat.completion", "choices": [choice], "usage": answer.usage}


def chunks(answer: Answer, head: Mapping[str, Json], with_usage: bool) -> Iterator[dict[str, Json]]:
    """Write the reply in pieces: role, reasoning, text, calls, finish reason, usage."""
    shared = {**head, "object": "chat.completion.chunk"}
    usage = {"usage": None} if with_usage else {}
    for delta in (*_deltas(answer), None):
        finish = answer.finish_reason if delta is None else None
        choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
        yield {**shared, "choices": [choice], **usage}
    if with_usage:
        yield {**shared, "choices": [], "usage": answer.usage}


def _deltas(answer: Answer) -> Iterator[dict[str, Json]]:
    yield {"role": "assistant", "content": None if answer.content is None else ""}
    for key, text in (("reasoning_content", answer.reasoning), ("content", answer.content)):
        for word in re.findall(r"\s+|\S+\s*", text or ""):
            yield {key: word}
    for index, call in enumerate(answer.calls):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        head = {"index": index, **call, "function": {"name": name, "arguments": ""}}
        yield {"tool_calls": [head]}
        yield {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}
    if answer.toolhone:
        yield {"toolhone": answer.toolhone}
