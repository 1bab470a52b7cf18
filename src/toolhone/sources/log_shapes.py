"""What the keys of a log's records hold, and which log a record is of.

is_codex({"timestamp": "...", "payload": {...}})
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from toolhone.schema import Json
from toolhone.schema.json_input import HARMLESS, LABELS
from toolhone.sources.files import Record
from toolhone.sources.log_parts import decode, word_set, word_table

PLACES = word_table("places")
RECORD_KEYS = LABELS | HARMLESS | word_set("settings") | word_set("record") | frozenset(PLACES)


def _words(record: Mapping[str, Json]) -> Iterator[str]:
    """Yield the types of the messages and parts of a row, and the keys of parts without a type."""
    turns = record.get("messages", record.get("contents"))
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, list):
            yield from _words({"messages": turn})
        if not isinstance(turn, dict):
            continue
        if "role" not in turn and "type" in turn:
            yield f"message {turn['type']}"
        parts = turn.get("parts")
        yield from ("parts",) if isinstance(parts, list) else ()
        for part in [*(parts if isinstance(parts, list) else []), *_listed(turn.get("content"))]:
            if isinstance(part, dict):
                yield from (str(part["type"]),) if "type" in part else map(str, part)


def _listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _has(*words: str) -> Callable[[Record], bool]:
    wanted = frozenset(words)
    return lambda record: not wanted.isdisjoint(_words(record))


def is_bedrock(record: Record) -> bool:
    logged = record.get("input")
    return (isinstance(logged, dict) and "inputBodyJson" in logged) or (
        "messages" in record
        and ("toolConfig" in record or "modelId" in record or _has("toolUse", "toolResult")(record))
    )


def is_anthropic(record: Record) -> bool:
    own = _has("tool_use", "tool_result", "thinking", "server_tool_use")(record)
    return own or ("messages" in record and isinstance(record.get("system"), str | list))


def is_cohere(record: Record) -> bool:
    plans = [one for one in _listed(record.get("messages")) if isinstance(one, dict)]
    tools = [one for one in _listed(record.get("tools")) if isinstance(one, dict)]
    return (
        isinstance(record.get("chat_history"), list)
        or any("parameter_definitions" in tool for tool in tools)
        or (bool(plans) and _has("document")(record))
        or ("message" in record and "text" in record)
        or (
            "messages" in record
            and any("tool_plan" in one for one in plans)
            and "message" in record
        )
    )


def is_responses(record: Record) -> bool:
    items = _listed(record.get("input")) + _listed(record.get("output"))
    types = {one.get("type") for one in items if isinstance(one, dict)}
    own = {"message", "function_call", "function_call_output", "reasoning", "custom_tool_call"}
    return bool(types & own) or record.get("object") == "response"


def is_request_log(record: Record) -> bool:
    requests = [key for key, place in PLACES.items() if place == "request" and key in record]
    replies = [key for key in ("response", "response_body", "respPayload") if key in record]
    wrapped = any(
        isinstance(body := decode(record.get(key)), dict)
        and not body.keys().isdisjoint(("messages", "contents", "input", "prompt"))
        for key in ("request", "request_body", "requestBody", "reqPayload", "body", "kwargs")
    )
    whole = [key for key in ("choices", "response", "output") if key in record]
    return (
        wrapped
        or bool(requests and replies and isinstance(decode(record[replies[0]]), dict))
        or ("messages" in record and bool(whole))
    )


def is_langchain(record: Record) -> bool:
    kinds = ("human", "ai", "system", "tool", "constructor", "function")
    inner = record.get("values")
    named = _has(*(f"message {kind}" for kind in kinds))
    return named(record) or (isinstance(inner, dict) and named(dict(inner)))


def is_vercel(record: Record) -> bool:
    own = _has("parts", "tool-call", "tool-result")
    return ("messages" in record and own(record)) or (
        isinstance(record.get("parts"), list) and "role" in record
    )


def is_langfuse(record: Record) -> bool:
    observed = isinstance(record.get("observations"), list)
    typed = isinstance(record.get("type"), str) and ("traceId" in record or "trace_id" in record)
    return observed or (typed and "input" in record and "run_type" not in record)


def is_otel(record: Record) -> bool:
    spans_of = ("resourceSpans", "resource_spans")
    return any(key in record for key in spans_of) or (
        isinstance(record.get("attributes"), dict | list)
        and any(key in record for key in ("spanId", "span_id", "traceId", "trace_id", "context"))
    )


def holds(of_kind: Callable[[Json], bool]) -> Callable[[Record], bool]:
    """Return a test whether a message of a record, or of the context in it, is of a kind."""

    def found(record: Record) -> bool:
        inner = record.get("llm_context")
        around = inner if isinstance(inner, dict) else record
        return any(map(of_kind, _listed(around.get("messages"))))

    return found


def is_codex(record: Record) -> bool:
    return isinstance(record.get("payload"), dict) and "timestamp" in record


def is_claude_code(record: Record) -> bool:
    return "type" in record and any(
        key in record for key in ("sessionId", "leafUuid", "parentUuid", "isSidechain")
    )
