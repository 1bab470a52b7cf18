"""What the keys of a log's records hold, and which log a record is of.

is_gemini({"contents": [...]})
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from toolhone.schema import Json
from toolhone.schema.json_input import HARMLESS, LABELS
from toolhone.sources.files import Record
from toolhone.sources.log_parts import decode

PLACES: Mapping[str, str] = {
    **dict.fromkeys(("system", "systemInstruction", "system_instruction", "preamble"), "system"),
    **dict.fromkeys(("instructions", "system_prompt", "base_instructions"), "system"),
    **dict.fromkeys(("tools", "toolConfig", "tool_config", "functions", "tool_defs"), "tools"),
    **dict.fromkeys(("toolDefinitions", "tool_definitions", "available_tools"), "tools"),
    **dict.fromkeys(("request", "request_body", "requestBody", "reqPayload", "body"), "request"),
    **dict.fromkeys(
        ("inputs", "kwargs", "values", "extra", "invocation_params", "config"), "request"
    ),
    **dict.fromkeys(("optional_params", "model_parameters", "modelParameters"), "metadata"),
    **dict.fromkeys(("chat_history", "history", "messages", "contents", "items"), "request"),
    **dict.fromkeys(("input", "prompt", "question", "new_message", "content"), "request"),
    "inputBodyJson": "request",
    "outputBodyJson": "reply",
    **dict.fromkeys(("response", "response_body", "responseBody", "respPayload"), "reply"),
    **dict.fromkeys(("output", "outputs", "completion", "result"), "reply"),
    "metadata": "metadata",
    **dict.fromkeys(("choices", "candidates", "generations", "message", "text"), "reply"),
}
"""What the keys of a record, a request and a response hold."""
SETTINGS = frozenset(
    {
        *("model", "temperature", "top_p", "top_k", "max_tokens", "max_output_tokens", "stream"),
        *("max_completion_tokens", "stream_options", "tool_choice", "parallel_tool_calls", "seed"),
        *("stop", "n", "presence_penalty", "frequency_penalty", "store", "user", "truncation"),
        *("generationConfig", "generation_config", "safetySettings", "inferenceConfig"),
        *("anthropic_version", "betas", "anthropic_beta", "thinking", "reasoning", "include"),
        *("response_format", "stop_sequences", "stopSequences", "keep_alive", "options", "raw"),
        *("modelId", "modelVersion", "responseId", "usageMetadata", "promptFeedback", "metrics"),
        *("finishReason", "finish_reason", "stopReason", "stop_sequence", "safetyRatings"),
        *("avgLogprobs", "citationMetadata", "additionalModelRequestFields", "toolChoice", "role"),
        *("previous_response_id", "background", "prompt_cache_key", "safety_identifier", "error"),
        *("incomplete_details", "completed_at", "verbosity", "billing", "max_tool_calls"),
        *("conversation_id", "generation_id", "response_id", "is_search_required", "lc_source"),
        *("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "done"),
        *("eval_count", "eval_duration", "done_reason", "native_finish_reason", "generation_info"),
        *("tool_choice_required", "sdk_http_response", "_type", "model_name", "ls_params"),
    }
)
"""Keys of requests and responses that set how a reply is sampled, or what it cost."""
RECORD = frozenset(
    {
        *("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_id", "parentId"),
        *("parentObservationId", "startTime", "endTime", "start_time", "end_time", "createdAt"),
        *("updatedAt", "completionStartTime", "latency", "timeToFirstToken", "duration", "status"),
        *("startTimeUnixNano", "endTimeUnixNano", "kind", "flags", "traceState", "name", "level"),
        *("custom_id", "method", "url", "status_code", "statusCode", "request_id", "requestId"),
        *("run_type", "session_id", "sessionId", "session_name", "dotted_order", "execution_order"),
        *("child_run_ids", "parent_run_id", "parent_run_ids", "app_path", "serialized", "version"),
        *("projectId", "project_id", "environment", "release", "promptId", "promptName", "costs"),
        *(
            "promptVersion",
            "usageDetails",
            "costDetails",
            "inputPrice",
            "outputPrice",
            "totalPrice",
        ),
        *(
            "total_tokens",
            "prompt_tokens",
            "completion_tokens",
            "total_cost",
            "prompt_cost",
            "cost",
        ),
        *("completion_cost", "first_token_time", "reference_example_id", "unit", "modelName"),
        *("cacheHit", "cache_hit", "provider", "requestedAt", "receivedAt", "chat_id", "thread_id"),
        *("next", "checkpoint", "parent_config", "tasks", "interrupts", "calculatedTotalCost"),
        *("promptTokens", "completionTokens", "totalTokens", "internalModelId", "duration_ms"),
        *("schemaType", "schemaVersion", "accountId", "identity", "region", "inferenceRegion"),
        *("inputContentType", "inputTokenCount", "outputContentType", "outputTokenCount"),
        *("operation", "cacheReadInputTokenCount", "cacheWriteInputTokenCount"),
        *("providedUsageDetails", "providedCostDetails", "usagePricingTierName", "api_key_hash"),
        *(
            "internalModel",
            "usagePricingTierId",
            "tokenizerId",
            "public",
            "bookmarked",
            "call_type",
        ),
    }
)
"""Keys of a record that say when, where and at what cost a request was made."""
RECORD_KEYS = frozenset({*PLACES, *SETTINGS, *RECORD, *LABELS, *HARMLESS})


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


def is_codex(record: Record) -> bool:
    return isinstance(record.get("payload"), dict) and "timestamp" in record


def is_claude_code(record: Record) -> bool:
    return "type" in record and any(
        key in record for key in ("sessionId", "leafUuid", "parentUuid", "isSidechain")
    )
