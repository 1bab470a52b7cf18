"""Spans of OpenTelemetry as records of a log: attributes, indexed attributes and events.

    attributes_of({"attributes": {"gen_ai.input.messages": "[...]"}}, unread)   # {"input": [...]}

Read are the conventions of OpenTelemetry (attributes and events), OpenLLMetry, OpenInference, the
Vercel AI SDK and Google's ADK.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

from toolhone.schema import Json
from toolhone.schema.json_input import check_keys, is_empty
from toolhone.sources.files import Record
from toolhone.sources.log_parts import decode, word_set, word_table

_PLACES, _SPARE = word_table("attributes"), word_table("spare_attributes")
_REPLY = {"ai.response.text": "content", "ai.response.toolCalls": "tool_calls"}
_REPLY |= {"ai.response.reasoning": "reasoning"}
_FINISH = ("gen_ai.response.finish_reasons", "ai.response.finishReason")
_PLAIN = tuple(word_set("plain_attributes"))
_INDEXED = re.compile(
    r"(gen_ai\.prompt|gen_ai\.completion|llm\.input_messages|llm\.output_messages|llm\.tools"
    r"|llm\.request\.functions)\.(\d+\..+)"
)
_EVENT = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message|gen_ai\.(choice)")
_VALUES = (
    *("stringValue", "intValue", "doubleValue", "boolValue", "bytesValue", "arrayValue"),
    "kvlistValue",
)
_CONTEXT = frozenset({"trace_id", "span_id", "trace_state", "traceId", "spanId"})
_EVENT_PLAIN = ("gen_ai.system", "gen_ai.provider", "event.", "gen_ai.event", "gen_ai.request.")
_EVENT_KEYS = word_set("event_keys")
_ONLY = ("message", "tool_call", "message_content")
_MOST = 10_000
"""Numbers of indexed attributes, at most."""


def attributes_of(record: Record, unread: set[str]) -> Record:
    """Return what the attributes and events of a span say, as a record; other records as they
    are."""
    attributes = record.get("attributes")
    if not isinstance(attributes, dict | list):
        return record
    given = _flat(attributes, unread=unread)
    request, reply = list[Json](), list[Json]()
    own = decode(given.pop("events", None) or given.pop("all_messages_events", None))
    lists = [one for one in (record.get("events"), own) if isinstance(one, list)]
    for event in chain.from_iterable(lists):
        _read_event(event, given, request, reply, unread)
    made: dict[str, Json] = {"input": request, "output": reply}
    nested: dict[str, Any] = {}
    for name, value in given.items():
        if found := _INDEXED.fullmatch(name):
            whole = nested.setdefault(found[1], {})
            path = found[2].split(".")
            for key in path[:-1]:
                whole = whole.setdefault(key, {})
            whole[path[-1]] = value
        elif name in _PLACES or name in _SPARE or name in _REPLY:
            nested.setdefault(name, value)
        elif not is_empty(value) and not name.startswith(_PLAIN):
            unread.add(f"{name!r} of the attributes of a span")
    for names in (_PLACES, _SPARE):
        for name, place in names.items():
            if not is_empty(nested.get(name)) and is_empty(made.get(place)):
                made[place] = _listed(nested[name]) if name in nested else None
    said = {key: decode(nested[name]) for name, key in _REPLY.items() if nested.get(name)}
    if said and is_empty(made["output"]):
        made["output"] = {"role": "assistant", **said}
    made["finish_reason"] = next((given[name] for name in _FINISH if given.get(name)), None)
    context = record.get("context")
    check_keys(context if isinstance(context, dict) else {}, _CONTEXT, "a span", unread)
    ours = ("attributes", "events", "resource", "context")
    others = {k: v for k, v in record.items() if k not in ours}
    return {**others, **made}


def tools_in(attributes: Mapping[str, Json]) -> list[Json]:
    """Return the lists of tools that attributes name."""
    return [one for key, one in attributes.items() if _PLACES.get(str(key)) == "tools" and one]


def _flat(attributes: Json, unread: set[str], prefix: str = "") -> dict[str, Json]:
    """Return attributes by their whole names: an object, nested ones, or OTLP's list of pairs."""
    flat: dict[str, Json] = {}
    if isinstance(attributes, list):
        for pair in attributes:
            if not isinstance(pair, dict) or not isinstance(pair.get("key"), str):
                unread.add("attributes of a span without a key")
                continue
            check_keys(pair, ("key", "value"), "an attribute of a span", unread)
            flat[pair["key"]] = _plain(pair.get("value"), unread)
        return flat
    for key, value in attributes.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and prefix.count(".") < 2 and name not in _PLACES:
            flat |= _flat(value, unread, f"{name}.")
        else:
            flat[name] = value
    return flat


def _plain(value: Json, unread: set[str]) -> Json:
    """Return the value of OTLP's `{"stringValue": ...}`."""
    if not isinstance(value, dict):
        return value
    check_keys(value, _VALUES, "the value of an attribute of a span", unread)
    kind, inner = next(((k, value[k]) for k in _VALUES if value.get(k) is not None), ("", None))
    if kind in ("arrayValue", "kvlistValue"):
        inside = inner if isinstance(inner, dict) else {kind: inner}
        check_keys(inside, ("values",), "a list of values of an attribute", unread)
        values = inner.get("values") if isinstance(inner, dict) else None
        listed = values if isinstance(values, list) else []
        if kind == "kvlistValue":
            return _flat(listed, unread)
        return [_plain(one, unread) for one in listed]
    if kind == "intValue" and isinstance(inner, str) and re.fullmatch(r"-?\d{1,19}", inner):
        return int(inner)
    return inner


def _read_event(
    event: Json, given: dict[str, Json], request: list[Json], reply: list[Json], unread: set[str]
) -> None:
    """Add the message of an event to the request or to the reply."""
    if not isinstance(event, dict):
        unread.add("events of a span that are no objects")
        return
    body, more = decode(event.get("body")), event.get("attributes")
    attributes = _flat(more, unread) if isinstance(more, dict | list) else {}
    name = str(event.get("name") or event.get("event.name") or attributes.get("event.name"))
    found = _EVENT.fullmatch(name)
    if found is None:
        given |= {k: v for k, v in attributes.items() if k in _PLACES}
        if not attributes.keys() & _PLACES.keys():
            unread.add(f"{name!r} events of a span")
        return
    plain = {k: decode(v) for k, v in attributes.items() if not k.startswith(_EVENT_PLAIN)}
    beside = {k: v for k, v in event.items() if k not in _EVENT_KEYS}
    whole = body if isinstance(body, dict) else {"content": body}
    said = {**beside, **plain, **{k: v for k, v in whole.items() if not is_empty(v)}}
    inner = said.pop("message", None)
    if isinstance(inner, dict | str):
        said |= dict(inner) if isinstance(inner, dict) else {"content": inner}
    role = "assistant" if found[2] else str(found[1])
    if role == "tool" and "id" in said:
        said["tool_call_id"] = said.pop("id")
    said = {k: v for k, v in said.items() if k != "index"} | {"role": role}
    (reply if found[2] else request).append(said)


def _listed(value: Json) -> Json:
    """Return numbered entries as lists, without OpenInference's wrappers around single things."""
    value = decode(value)
    if isinstance(value, list):
        return [_listed(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value and all(str(key).isdigit() and int(key) < _MOST for key in value):
        return [_listed(value[key]) for key in sorted(value, key=int)]
    if len(value) == 1 and (only := next(iter(value))) in _ONLY and isinstance(value[only], dict):
        return _listed(value[only])
    made: dict[str, Json] = {}
    for key, one in value.items():
        name = "content" if key == "contents" and "role" in value else key
        objects = isinstance(one, list) and all(isinstance(each, dict) for each in one)
        made[name] = _listed(one) if objects or isinstance(one, dict) else one
    return made
