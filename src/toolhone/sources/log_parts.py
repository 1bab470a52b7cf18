"""Parts and items of messages in logs: what each is, of whatever API, by the words of a table.

    kind_of({"type": "tool_use", "name": "f", "input": {}})      # "call", and the object of it

A part is known by its `type` or, where it has none, by its key (`functionCall`, `toolUse`).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import resources

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

_WORDS = tomllib.loads((resources.files("toolhone.sources") / "log_words.toml").read_text("utf-8"))


def word_set(name: str) -> frozenset[str]:
    """Return a list of `log_words.toml`, which says what it is for."""
    return frozenset(_WORDS[name].split())


def word_table(name: str) -> Mapping[str, str]:
    """Return what each word of a table of `log_words.toml` means, in its order."""
    return {word: meaning for meaning, words in _WORDS[name] for word in words.split()}


TEXTS = ("text", "content", "value", "refusal", "output_text")
OUTPUTS = ("output", "result", "response", "content", "outputs", "errorText")
NAMES = ("name", "toolName", "tool_name", "recipient_name")
PART_KEYS, MEDIA, FAILED = word_set("part_keys"), word_set("media"), word_set("failed")
_CUT = word_set("cut")
_ENDS = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason")
KINDS, ROLES = word_table("kinds"), word_table("roles")
LOG_KEYS = MESSAGE_KEYS | HARMLESS | word_set("message_keys")
CALL_PART_KEYS = frozenset({*ARGUMENTS, *NAMES, *IDS, *OUTPUTS, *PART_KEYS, "action", "title"})
RESULT_KEYS = frozenset(
    {*LOG_KEYS, *NAMES, *IDS, *OUTPUTS, *PART_KEYS, *ARGUMENTS, "is_error", "isError", "error"}
)


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
    typed = isinstance(value, dict) and value.get("type") in ("json", "text", "content", *FAILED)
    if typed and "value" in value:
        check_keys(value, {"value", *PART_KEYS}, "a result", unread)
        return text_of(without_media(value["value"], unread), unread)
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


def is_cut(reply: Mapping[str, Json]) -> bool:
    """Return whether a reply, or what stands around it, says that it ended before its end."""
    inner = (reply.get(key) for key in ("response_metadata", "generation_info"))
    levels = [reply, *(one for one in inner if isinstance(one, dict))]
    said = [level.get(key) for level in levels for key in _ENDS]
    said += [reply.get("status")] if reply.get("type") == "message" else []
    details = reply.get("incomplete_details")
    said += [details.get("reason")] if isinstance(details, dict) else []
    listed = [each for one in said for each in (one if isinstance(one, list) else [one])]
    return any(str(one).lower() in _CUT for one in listed)


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
        own = kind.startswith("tool-") and "toolCallId" in part
        found = KINDS.get(kind, "call" if own else "")
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
