"""Parts and items of messages in logs: what each is, of whatever API, in one table.

    kind_of({"type": "tool_use", "name": "f", "input": {}})      # "call", and the object of it

A part is known by its `type` or, where it has none, by its key (`functionCall`, `toolUse`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from toolhone.errors import DataError
from toolhone.schema import Json
from toolhone.schema.json_input import (
    ARGUMENTS,
    HARMLESS,
    IDS,
    MESSAGE_KEYS,
    check_keys,
    first_value,
    is_empty,
    parse_json,
)

TEXTS = ("text", "content", "value", "refusal", "output_text")
OUTPUTS = ("output", "result", "response", "content", "outputs", "errorText")
NAMES = ("name", "toolName", "tool_name", "recipient_name")
PART_KEYS = frozenset(
    {
        *("type", "id", "status", "state", "signature", "thoughtSignature", "thought_signature"),
        *("providerMetadata", "callProviderMetadata", "providerOptions", "providerExecuted"),
        *("encrypted_content", "data", "caller", "phase", "role", "step", "dynamic", "index"),
        *("resultProviderMetadata", "preliminary", "cachePoint", "server_label"),
    }
)
KINDS: Mapping[str, str] = {
    **dict.fromkeys(("text", "input_text", "output_text", "summary_text", "refusal"), "text"),
    **dict.fromkeys(("thinking", "reasoning", "reasoning_text", "thought"), "thought"),
    **dict.fromkeys(("redacted_thinking", "redacted-reasoning", "step-start"), "step"),
    **dict.fromkeys(("compaction", "item_reference", "cachePoint"), "step"),
    **dict.fromkeys(("tool_use", "server_tool_use", "mcp_tool_use", "toolUse"), "call"),
    **dict.fromkeys(("tool_call", "function_call", "functionCall", "tool-call"), "call"),
    **dict.fromkeys(("custom_tool_call", "local_shell_call", "dynamic-tool", "function"), "call"),
    **dict.fromkeys(("tool-invocation", "toolInvocation", "mcp_call"), "call"),
    **dict.fromkeys(("tool_result", "tool_call_response", "function_call_output"), "result"),
    **dict.fromkeys(("custom_tool_call_output", "local_shell_call_output"), "result"),
    **dict.fromkeys(("functionResponse", "function_response", "toolResult"), "result"),
    **dict.fromkeys(("tool-result", "mcp_tool_result", "function_result"), "result"),
    **dict.fromkeys(("reasoningContent", "reasoningText"), "thought"),
}
"""What a part of a type is; of a part without a type, what its only key says."""
ROLES: Mapping[str, str] = {
    **dict.fromkeys(("user", "human", "HumanMessage", "HumanMessageChunk", "customer"), "user"),
    **dict.fromkeys(("assistant", "ai", "model", "chatbot", "bot", "gpt"), "assistant"),
    **dict.fromkeys(("AIMessage", "AIMessageChunk"), "assistant"),
    **dict.fromkeys(("system", "SystemMessage", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "ipython", "observation", "tool_response"), "tool"),
    **dict.fromkeys(("ToolMessage", "ToolMessageChunk", "FunctionMessage", "toolresult"), "tool"),
}
LOG_KEYS = (
    MESSAGE_KEYS
    | HARMLESS
    | {
        *("parts", "message", "tool_results", "function_call", "additional_kwargs", "example"),
        *("response_metadata", "usage_metadata", "status", "lc_attributes", "is_error", "isError"),
        *("stop_sequence", "stopReason", "finishReason", "finish_details", "createdAt", "phase"),
        *("container", "context_management", "stop_details", "diagnostics", "done", "revisionId"),
        *(
            "gen_ai.system",
            "gen_ai.message.index",
            "event.name",
            "lc",
            "lc_namespace",
            "tools",
            "toolInvocations",
        ),
    }
)
CALL_PART_KEYS = frozenset({*ARGUMENTS, *NAMES, *IDS, *OUTPUTS, *PART_KEYS, "action", "title"})
RESULT_KEYS = frozenset(
    {*LOG_KEYS, *NAMES, *IDS, *OUTPUTS, *PART_KEYS, *ARGUMENTS, "is_error", "isError", "error"}
)
MEDIA = frozenset(
    {
        *("image", "image_url", "input_image", "audio", "input_audio", "video", "file"),
        *("input_file", "image-data", "file-data", "media", "resource", "resource_link"),
    }
)
"""What parts of a result are that are counted and not read: their types, or their only keys."""
FAILED = frozenset({"error", "output-error", "incomplete", "failed", "error-text", "error-json"})
"""Words by which a log marks a result as a failure."""


_RECORD = re.compile(
    r'\s*\[?\s*\{\s*"(role|content|messages?|choices|candidates|contents|parts|object|model)"\s*:'
)


def decode(value: Json, depth: int = 3) -> Json:
    """Return what a text holds as JSON, also where it was encoded twice; other texts as they are.

    Only objects and lists are taken out of texts.
    """
    if not isinstance(value, str):
        return value
    for _ in range(depth):
        if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "[", '"'):
            break
        try:
            value = parse_json(value)
        except ValueError:
            break
    return value


def decode_record(value: Json) -> Json:
    """As `decode`, but a text that begins as a record of a log and cannot be read is an error."""
    value = decode(value)
    if isinstance(value, str) and _RECORD.match(value):
        right = "wanted whole JSON, each key once"
        raise DataError(f"a record as text that is cut off or no JSON: {value!r:.60}; {right}")
    return value


def text_of(value: Json, unread: set[str]) -> str:
    """Return a result as text: parts of text joined, other values as JSON."""
    if isinstance(value, str):
        return value
    typed = isinstance(value, dict) and value.get("type") in ("json", "text", *FAILED)
    if typed and "value" in value:
        check_keys(value, {"value", *PART_KEYS}, "a result", unread)
        return text_of(value["value"], unread)
    if isinstance(value, list) and value:
        parts = [_result_part(part, unread) for part in value]
        if all(part is not None for part in parts):
            return "".join(part or "" for part in parts)
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _result_part(part: Json, unread: set[str]) -> str | None:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"]) if part.keys() <= {"type", "text"} | PART_KEYS else None
    if isinstance(part, dict) and len(part) == 1 and "json" in part:
        return text_of(part["json"], unread)
    if isinstance(part, dict) and part.get("type") == "document":
        check_keys(part, {"document", *PART_KEYS}, "a result", unread)
        inner = part.get("document")
        if isinstance(inner, dict) and inner.keys() <= {"data", "id"}:
            inner = inner.get("data")
        return text_of(inner, unread)
    return None


def unwrap(message: Mapping[str, Json], unread: set[str]) -> Mapping[str, Json]:
    """Return the message inside LangChain's `{"type", "data"}` or `{"lc", "id", "kwargs"}`, with
    what `additional_kwargs` say besides."""
    inner = message.get("data", message.get("kwargs"))
    if isinstance(inner, dict) and isinstance(message.get("type"), str):
        path = message.get("id")
        kind = path[-1] if isinstance(path, list) and path else message["type"]
        check_keys(message, {"data", "kwargs", "lc", "name", "graph"}, "a message", unread)
        message = {**inner, "type": kind}
    more = message.get("additional_kwargs")
    if isinstance(more, dict):
        message = {**message, **{k: one for k, one in more.items() if is_empty(message.get(k))}}
    return message


def role_of(
    message: Mapping[str, Json], tools: Callable[[], Collection[str]] = tuple
) -> str | None:
    """Return the role of a message in our words; None where it names none.

    tools: gives the names of called tools, which some logs take for the role of a result.
    """
    given = message.get("role")
    if (given is None and "content" in message) or "parts" in message or "message" in message:
        given = given or message.get("type")
    role = None if given is None else ROLES.get(str(given), ROLES.get(str(given).lower()))
    role = "tool" if role is None and given is not None and given in tools() else role
    if role is None and message.get("role") is not None:
        raise DataError(f"a message has the role {message['role']!r:.40}, which is not known")
    return role


def kind_of(part: Json) -> tuple[str, Json]:
    """Return what a part is ("" where that is not known) and the object that holds it."""
    if isinstance(part, str):
        return "text", part
    if not isinstance(part, dict):
        return "", part
    kind = part.get("type")
    if isinstance(kind, str):
        if isinstance(inner := part.get("toolInvocation"), dict):
            return "call", {**inner, **{k: v for k, v in part.items() if k != "toolInvocation"}}
        found = KINDS.get(kind, "call" if kind.startswith("tool-") else "")
        return found, part
    if part.get("thought") is True:
        return "thought", part
    if "toolCallId" in part:
        return "call" if "input" in part or "args" in part else "result", part
    keys = [key for key, value in part.items() if key in KINDS and not is_empty(value)]
    if len(keys) != 1:
        return ("step", part) if all(map(is_empty, part.values())) else ("", part)
    kind, inner = KINDS[keys[0]], part[keys[0]]
    if kind == "text" and isinstance(inner, str):
        return kind, part
    others = {key: value for key, value in part.items() if key != keys[0]}
    return kind, {**inner, **others} if isinstance(inner, dict) else part


def parts_of(message: Mapping[str, Json], unread: set[str]) -> Sequence[Json]:
    """Return the parts of a message; a text is one part."""
    parts, said = message.get("parts"), first_value(message, ("content", "message"), "a message")
    if is_empty(said) and not is_empty(message.get("refusal")):
        said = message["refusal"]
    if is_empty(parts):
        parts = said
    elif not is_empty(said):
        listed = parts if isinstance(parts, list) else []
        texts = [str(part.get("text") or "") for part in listed if isinstance(part, dict)]
        same = isinstance(said, str) and said.strip() in "".join(texts)
        check_keys({} if same else {"content": said}, (), "a message beside its parts", unread)
    if parts is None:
        return []
    return parts if isinstance(parts, list) else [parts]


def holds_results(message: Mapping[str, Json]) -> bool:
    parts = message.get("parts") or message.get("content")
    listed = parts if isinstance(parts, list) else []
    return any(kind_of(part)[0] == "result" for part in listed) or bool(message.get("tool_results"))


def output_of(part: Json) -> Json:
    return first_value(part, OUTPUTS, "a result") if isinstance(part, dict) else part


def thought_of(part: Json, unread: set[str]) -> str:
    """Return the text of a thought: of its own, or of its summary."""
    if not isinstance(part, dict):
        return str(part)
    known = {*TEXTS, *PART_KEYS, "thinking", "reasoning", "summary", "thought", "details"}
    check_keys(part, known | {"reasoningText"}, "a thought", unread)
    inner = part.get("reasoningText")
    if isinstance(inner, dict):
        return thought_of(inner, unread)
    for key in ("content", "thinking", "reasoning", "text", "summary"):
        value = part.get(key)
        if isinstance(value, list) and value:
            return "\n".join(thought_of(one, unread) for one in value)
        if isinstance(value, str) and value:
            return value
    return ""


def without_media(output: Json, unread: set[str]) -> Json:
    """Return a result without the pictures and files that stand beside its texts."""
    if not isinstance(output, list):
        return output
    kept = []
    for part in output:
        kind = part.get("type", next(iter(part), "")) if isinstance(part, dict) else ""
        if isinstance(kind, str) and kind in MEDIA:
            unread.add(f"{kind!r} parts of a result")
        else:
            kept.append(part)
    return kept
