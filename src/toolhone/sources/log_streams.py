"""Replies that a log holds as a stream: the events or deltas of a reply become the reply.

    join_stream(chunks, unread)        # a list that is no stream comes back as it is
    read_events("data: {...}")         # the list of events that such lines (or lines of JSON) are

Read are the streams of OpenAI (chat and Responses), Anthropic, Bedrock, Cohere, Gemini, Ollama.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from toolhone.errors import DataError
from toolhone.schema import Json
from toolhone.schema.json_input import check_keys, is_empty
from toolhone.sources.log_parts import decode, word_set

Event = Mapping[str, Json]
_DONE = "[DONE]"
_ONCE = frozenset({"name", "type", "id", "role"})
"""Keys of deltas whose texts are repeated, not continued."""
_FINAL = ("response.completed", "response.incomplete", "response.failed", "response.done")
_ITEM_EVENT = word_set("item_event")
_BLOCK_EVENT = frozenset({"message", "content_block", "delta", "context_management"})
_CHOICE = frozenset({"delta", "content_filter_results", "native_finish_reason", "matched_stop"})
_STOP = frozenset({"stop_sequence", "stop_details", "container"})
_STREAMED = frozenset({"done", "choices", "candidates", "response"})
"""Keys of which a line of a stream has one."""
_STEP = frozenset({"delta", "index", "id", "type", "response"})
_EVENTS_OF_BEDROCK = frozenset(
    {
        *("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop"),
        *("messageStop", "metadata"),
    }
)
_NO_END = {"finish_reason": "incomplete"}
"""Of a reply whose last event is not there; a call in it is whole, or is no JSON."""


def join_stream(chunks: Sequence[Json], unread: set[str]) -> Json:
    """Return the reply that a list of deltas or events makes; another list as it is."""
    if chunks and isinstance(chunks[0], dict) and "role" in chunks[0]:
        return list(chunks)
    ended = list(chunks[-1:]) == [_DONE]
    chunks = [chunk for chunk in chunks if chunk != _DONE]
    events = [decode(chunk) for chunk in chunks]
    if not events or not all(isinstance(event, dict) for event in events):
        return list(chunks)
    kinds = {str(event.get("type")) for event in events}
    if any(kind.startswith("response.") for kind in kinds):
        return _join_items(events, unread)
    if kinds & {"message_start", "content_block_start"}:
        return _join_blocks(events, unread)
    if kinds & {"message-start", "tool-call-start", "content-start"}:
        return _join_steps(events, unread)
    if any(event.keys() & {"contentBlockStart", "contentBlockDelta"} for event in events):
        return _join_content_blocks(events, unread)
    if all("candidates" in event for event in events):
        return _join_candidates(events, unread)
    listed = [one for event in events if isinstance(one := event.get("choices"), list)]
    if any(isinstance(one, dict) and "delta" in one for choices in listed for one in choices):
        return _join_deltas(events, unread, ended)
    if all("done" in event and isinstance(event.get("message"), dict) for event in events):
        message: dict[str, Json] = {}
        for event in events:
            _extend(message, event["message"])
        end = {} if events[-1].get("done") else _NO_END
        return {**_last(events), **end, "message": message}
    return list(chunks)


def read_events(text: str) -> Json:
    """Return the events of a streamed text (`data: {...}` lines); another text as it is."""
    if not text.startswith(("data:", "event:", "id:", ":", "{")):
        return text
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    if text.startswith("{"):
        events = [decode(line) for line in lines] if len(lines) > 1 else []
        whole = all(isinstance(one, dict) and not _STREAMED.isdisjoint(one) for one in events)
        return events if events and whole else text
    if not all(line.startswith(("data:", "event:", "id:", ":")) for line in lines):
        return text
    data = [line[5:].strip() for line in lines if line.startswith("data:")]
    return [one if one == _DONE else decode(one) for one in data]


def _last(events: Sequence[Event]) -> dict[str, Json]:
    """Return what events say besides their deltas; of each key the last that holds something."""
    return {key: one for event in events for key, one in event.items() if not is_empty(one)}


def _objects(value: Json, what: str) -> list[dict[str, Any]]:
    """Return a list of objects; null is none."""
    listed = [] if is_empty(value) else value
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise DataError(f"{what} of a streamed reply must be a list of objects, got {value!r:.60}")
    return listed


def _object(value: Json, what: str) -> dict[str, Any]:
    """Return an object; null is an empty one."""
    if not isinstance(value, dict | None):
        raise DataError(f"{what} of a streamed reply must be an object, got {value!r:.60}")
    return value or {}


def _extend(whole: dict[str, Any], delta: Mapping[str, Json]) -> None:
    """Add a delta: texts and lists go on, objects are added key by key."""
    for key, value in delta.items():
        known = whole.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            _extend(known, value)
        elif isinstance(known, str) and isinstance(value, str):
            whole[key] = value if key in _ONCE and value else known + value
        elif isinstance(known, list) and isinstance(value, list):
            whole[key] = known + value
        elif value is not None or key not in whole:
            whole[key] = dict(value) if isinstance(value, dict) else value


def _join_deltas(events: Sequence[Event], unread: set[str], ended: bool) -> Json:
    """Return the response of a stream of OpenAI's chat chunks; ended: by a last `[DONE]`."""
    message: dict[str, Any] = {"role": "assistant"}
    calls: dict[str, dict[str, Any]] = {}
    end: Mapping[str, Json] = {} if ended else _NO_END
    for event in events:
        for choice in _objects(event.get("choices"), "'choices'"):
            check_keys(choice, _CHOICE, "a streamed choice", unread)
            if choice.get("index"):
                unread.add("'choices' of a response behind the first")
                continue
            if choice.get("finish_reason"):
                end = {"finish_reason": choice["finish_reason"]}
            delta = dict(_object(choice.get("delta"), "a delta"))
            for call in _objects(delta.pop("tool_calls", None), "'tool_calls'"):
                _extend(_place_of(call, calls), call)
            _extend(message, delta)
    whole = {key: value for key, value in _last(events).items() if key != "choices"}
    end = {} if end is _NO_END and calls else end
    choice = {**end, "message": {**message, "tool_calls": [*calls.values()]}}
    return {**whole, "choices": [choice]}


def _place_of(call: Event, calls: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the call that a delta goes on with; one with an id of its own begins another, also
    where all have the same index."""
    place, given = str(call.get("index", len(calls))), call.get("id")
    named = _object(call.get("function"), "'function'").get("name")
    if given and named and calls.get(place, {}).get("id", given) != given:
        place = f"{place} {given}"
    elif not named:
        place = next((one for one in reversed(calls) if one.split()[0] == place), place)
    return calls.setdefault(place, {})


def _join_blocks(events: Sequence[Event], unread: set[str]) -> Json:
    """Return the message of a stream of Anthropic's events."""
    message: dict[str, Any] = {"role": "assistant"}
    blocks: dict[str, dict[str, Any]] = {}
    for event in events:
        check_keys(event, _BLOCK_EVENT, "an event of a stream", unread)
        message |= _object(event.get("message"), "'message'")
        block, place = _object(event.get("content_block"), "a block"), str(event.get("index"))
        delta = dict(_object(event.get("delta"), "a delta"))
        if block:
            blocks[place] = dict(block)
        if event.get("type") != "content_block_delta":
            check_keys(delta, _STOP, "an event of a stream", unread)
            message |= {"stop_reason": delta.get("stop_reason") or message.get("stop_reason")}
            continue
        delta.pop("type", None)
        known = blocks.setdefault(place, {})
        if "partial_json" in delta:
            delta["input"] = delta.pop("partial_json")
            begun = known.get("input")
            if isinstance(begun, dict):
                check_keys(begun, (), "the input of a block that its deltas write again", unread)
        _extend(known, delta)
    begun = message.get("content")
    called = any(block.get("type") == "tool_use" for block in blocks.values())
    if not called and not message.get("stop_reason") and events[-1].get("type") != "message_stop":
        message |= _NO_END
    return {**message, "content": [*(begun if isinstance(begun, list) else []), *blocks.values()]}


def _join_items(events: Sequence[Event], unread: set[str]) -> Json:
    """Return the response of a stream of OpenAI's Responses; of a cut one the finished items."""
    begun = set[str]()
    for event in events:
        check_keys(event, _ITEM_EVENT, "an event of a stream", unread)
        begun |= {str(event["output_index"])} if "output_index" in event else set()
    ends = [event["response"] for event in events if event.get("type") in _FINAL]
    if ends and isinstance(ends[-1], dict):
        return ends[-1]
    done = [event for event in events if event.get("type") == "response.output_item.done"]
    items = [_object(event.get("item"), "an item") for event in done]
    if begun - {str(event.get("output_index")) for event in done}:
        unread.add("an 'item' of a streamed reply, which is not there to its end")
        return {"output": items, **_NO_END}
    return {"output": items}


def _join_candidates(events: Sequence[Event], unread: set[str]) -> Json:
    """Return the response of a stream of Gemini's."""
    candidate: dict[str, Any] = {}
    parts: list[Json] = []
    for event in events:
        for place, one in enumerate(_objects(event["candidates"], "'candidates'")):
            if place:
                unread.add("'candidates' of a response behind the first")
                continue
            content = _object(one.get("content"), "'content'")
            parts += _objects(content.get("parts"), "'parts'")
            candidate |= {key: value for key, value in one.items() if key != "content"}
            check_keys(content, {"parts", "role"}, "the content of a streamed reply", unread)
    content = {"role": "model", "parts": parts}
    return {**_last(events), "candidates": [{**candidate, "content": content}]}


def _join_steps(events: Sequence[Event], unread: set[str]) -> Json:
    """Return the message of a stream of Cohere's."""
    message: dict[str, Any] = {"role": "assistant"}
    parts: dict[str, dict[str, dict[str, Any]]] = {"content": {}, "tool_calls": {}}
    end: Mapping[str, Json] = _NO_END
    for event in events:
        check_keys(event, _STEP, "an event of a stream", unread)
        delta = dict(_object(event.get("delta"), "a delta"))
        end = {"finish_reason": delta["finish_reason"]} if delta.get("finish_reason") else end
        said = dict(_object(delta.pop("message", None), "'message'"))
        check_keys(delta, {"finish_reason"}, "an event of a stream", unread)
        for key, listed in parts.items():
            if isinstance(said.get(key), dict):
                _extend(listed.setdefault(str(event.get("index")), {}), said.pop(key))
        _extend(message, said)
    lists = {key: [*listed.values()] for key, listed in parts.items() if listed}
    return {**end, "message": {**message, **lists}}


def _join_content_blocks(events: Sequence[Event], unread: set[str]) -> Json:
    """Return the response of a stream of Bedrock's Converse."""
    blocks: dict[str, dict[str, Any]] = {}
    end: Mapping[str, Json] = _NO_END
    for event in events:
        check_keys(event, _EVENTS_OF_BEDROCK, "a stream", unread)
        if isinstance(event.get("messageStop"), dict):
            end = event["messageStop"]
        for name, key in (("contentBlockStart", "start"), ("contentBlockDelta", "delta")):
            block = _object(event.get(name), name)
            check_keys(block, {key, "contentBlockIndex"}, "an event of a stream", unread)
            if inner := _object(block.get(key), key):
                _extend(blocks.setdefault(str(block.get("contentBlockIndex")), {}), inner)
    content: list[Json] = [*blocks.values()]
    return {**end, "output": {"message": {"role": "assistant", "content": content}}}
