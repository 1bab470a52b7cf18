"""OpenAI's Responses form, read into a chat request and written from its answer.

    chat = read_responses_request({"input": "What is 6 * 7?", "tools": [...]}, SamplingParams())
    response_of(answer_of(turn, chat), head)     # {"object": "response", "output": [...], ...}

Nothing is stored here: a request holds its whole input, and `previous_response_id` is refused.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from toolhone.agents.openai import Answer, ChatRequest, read_request
from toolhone.backends.base import SamplingParams
from toolhone.errors import DataError, nearest
from toolhone.schema import Json

SAME = (
    *("model", "temperature", "top_p", "stream", "tool_choice", "parallel_tool_calls", "user"),
    *("metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    *("prompt_cache_retention", "top_logprobs"),
)
"""Keys that chat completions have too."""
OTHERS = ("input", "instructions", "tools", "max_output_tokens", "stream_options")
ONLY: Mapping[str, tuple[Json, ...]] = {
    "include": ([], ["reasoning.encrypted_content"]),
    "reasoning": ({},),
    "text": ({}, {"format": {"type": "text"}}),
    "truncation": ("disabled",),
    "background": (False,),
    "previous_response_id": (),
    "conversation": (),
    "prompt": (),
    "max_tool_calls": (),
}
"""Keys that are supported with these values (or null) alone."""
TEXT_PARTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text", "refusal")


def read_responses_request(body: Json, defaults: SamplingParams) -> ChatRequest:
    """Read a request of the Responses form; a mistake is a `DataError`."""
    if not isinstance(body, dict):
        raise DataError(f"the request must be a JSON object, it is {type(body).__name__}")
    known = (*SAME, *OTHERS, *ONLY)
    for key, value in body.items():
        if key not in known:
            raise DataError(f"{key!r} is not understood here{nearest(key, known)}; leave it out")
        if key in ONLY and value is not None and value not in ONLY[key]:
            right = (
                "send the whole input" if "id" in key or key == "conversation" else "leave it out"
            )
            raise DataError(f"{key}={value!r:.60} is not supported here; {right}")
    chat = {key: body[key] for key in SAME if key in body}
    if body.get("max_output_tokens") is not None:
        chat["max_tokens"] = body["max_output_tokens"]
    if (tools := body.get("tools")) is not None:
        if not isinstance(tools, list):
            raise DataError(f"'tools' must be a list, got {tools!r:.60}")
        chat["tools"] = []
        for index, tool in enumerate(tools):
            kind = tool.get("type") if isinstance(tool, dict) else tool
            if kind != "function":
                raise DataError(f"tools[{index}] must be of type 'function', got {kind!r:.60}")
            function = {key: tool[key] for key in tool if key != "type"}
            chat["tools"].append({"type": "function", "function": function})
    return read_request({**chat, "messages": _messages(body)}, defaults)


def _messages(body: Mapping[str, Json]) -> list[dict[str, Json]]:
    """The messages of instructions and input; neighbouring items of the assistant are one."""
    items, messages = body.get("input"), list[dict[str, Json]]()
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    items = [{"role": "user", "content": items}] if isinstance(items, str) else items
    if not isinstance(items, list) or not items:
        raise DataError(f"'input' must be a text or a list of items, got {items!r:.60}")
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise DataError(f"input[{index}] must be an object, got {item!r:.60}")
        where, kind = f"input[{index}]", item.get("type") or "message"
        if kind == "function_call_output":
            content = _text(item.get("output"), where)
            messages.append({"role": "tool", "tool_call_id": item.get("call_id")})
            messages[-1]["content"] = content
            continue
        part = _part_of_turn(item, kind, where)
        last = messages[-1] if messages else {}
        # Text follows reasoning, then calls; a turn has each of the first two once.
        taken = {key for key in ("content", "reasoning_content") if key in last}
        taken |= {"content", "reasoning_content"} if "tool_calls" in last else set()
        if part["role"] == last.get("role") == "assistant" and not part.keys() & taken:
            calls = [*last.get("tool_calls", ()), *part.get("tool_calls", ())]
            last |= part | ({"tool_calls": calls} if calls else {})
        else:
            messages.append(part)
    return messages


def _part_of_turn(item: Mapping[str, Json], kind: str, where: str) -> dict[str, Json]:
    """A message, or a part of one of the assistant."""
    if kind == "message":
        return {"role": item.get("role"), "content": _text(item.get("content"), where)}
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "tool_calls": [call]}
    if kind == "reasoning":
        text = _text(item.get("content") or item.get("summary") or "", where)
        return {"role": "assistant", **({"reasoning_content": text} if text else {})}
    right = "message, function_call, function_call_output or reasoning"
    raise DataError(f"{where} must be of type {right}, got {kind!r:.60}")


def _text(content: Json, where: str) -> str:
    """The text of a content: itself, or its parts joined."""
    if isinstance(content, str):
        return content
    texts = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind not in TEXT_PARTS:
            raise DataError(f"{where} must hold text, it holds {kind!r:.60}")
        texts.append(part.get("text", part.get("refusal")) or "")
    return "".join(texts)


def response_of(answer: Answer, head: Mapping[str, Json]) -> dict[str, Json]:
    """Write an answer as a response; `head` holds its id, time and model."""
    message, output = answer.message, list[dict[str, Json]]()
    done = "incomplete" if answer.finish_reason == "length" else "completed"

    def add(kind: str, prefix: str, **fields: Json) -> None:
        output.append({"type": kind, "id": f"{prefix}_{secrets.token_hex(12)}", **fields})

    if thought := message.get("reasoning_content"):
        add("reasoning", "rs", summary=[], content=[{"type": "reasoning_text", "text": thought}])
    calls = message.get("tool_calls", ())
    if message.get("content") or not calls:
        part: Json = {"type": "output_text", "text": message.get("content") or ""}
        part["annotations"] = []
        add("message", "msg", role="assistant", status=done, content=[part])
    for call in calls:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        fields = {"call_id": call["id"], "name": name, "arguments": arguments}
        add("function_call", "fc", status="completed", **fields)
    usage = {
        "input_tokens": answer.usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answer.usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.usage["total_tokens"],
    }
    cut = {"reason": "max_output_tokens"} if done == "incomplete" else None
    fixed = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "error": None}
    about = {"toolhone": message["toolhone"]} if "toolhone" in message else {}
    return {
        **head,
        **fixed,
        "object": "response",
        "status": done,
        "incomplete_details": cut,
        "instructions": None,
        "metadata": {},
        "output": output,
        "usage": usage,
        **about,
    }


def events_of(response: Mapping[str, Json]) -> Iterator[dict[str, Any]]:
    """Write a response in events: created, each item with its pieces, completed."""
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(response["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        empty: Json = {"message": {"content": []}, "function_call": {"arguments": ""}}
        opened = {**item, **empty.get(item["type"], {})}
        opened |= {"status": "in_progress"} if "status" in item else {}
        events.append({"type": "response.output_item.added", "output_index": index, "item": opened})
        events += [{**place, **event} for event in _events_of_item(item)]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    last = "incomplete" if response["status"] == "incomplete" else "completed"
    events.append({"type": f"response.{last}", "response": dict(response)})
    return ({**event, "sequence_number": number} for number, event in enumerate(events))


def _events_of_item(item: Mapping[str, Json]) -> Iterator[dict[str, Any]]:
    if item["type"] == "function_call":
        kind = "response.function_call_arguments"
        yield {"type": f"{kind}.delta", "delta": item["arguments"]}
        yield {"type": f"{kind}.done", "arguments": item["arguments"], "name": item["name"]}
    if item["type"] == "message":
        (part,) = item["content"]
        place, kind = {"content_index": 0}, "response.output_text"
        yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
        for word in re.findall(r"\s+|\S+\s*", part["text"]):
            yield {"type": f"{kind}.delta", **place, "delta": word, "logprobs": []}
        yield {"type": f"{kind}.done", **place, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **place, "part": part}
