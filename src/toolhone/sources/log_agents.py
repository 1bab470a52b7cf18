"""Messages as agent frameworks write them, in the words that `log_turns` reads.

    plain_messages({"kind": "response", "parts": [{"part_kind": "text", "content": "Hi"}]})

Read are AutoGen, LlamaIndex, Pydantic AI and Harmony (gpt-oss); others come back as they are.
"""

from __future__ import annotations

from toolhone.schema import Json
from toolhone.schema.json_input import is_empty
from toolhone.sources.files import Record
from toolhone.sources.log_parts import decode

_AUTOGEN = {
    "UserMessage": "user",
    "TextMessage": "assistant",
    "AssistantMessage": "assistant",
    "ThoughtEvent": "thought",
    "ToolCallRequestEvent": "assistant",
    "ToolCallSummaryMessage": "summary",
    "ToolCallExecutionEvent": "tool",
    "FunctionExecutionResultMessage": "tool",
}
"""Types of AutoGen's messages and events, and whose they are."""
_CHANNELS = ("analysis", "commentary", "final")
_PROMPTS = {"system-prompt": "system", "user-prompt": "user"}


def is_autogen(message: Json) -> bool:
    return isinstance(message, dict) and _AUTOGEN.get(str(message.get("type"))) is not None


def is_llamaindex(message: Json) -> bool:
    return isinstance(message, dict) and isinstance(message.get("blocks"), list)


def is_pydantic_ai(message: Json) -> bool:
    parts = message.get("parts") if isinstance(message, dict) else None
    return isinstance(parts, list) and any(isinstance(p, dict) and "part_kind" in p for p in parts)


def is_harmony(message: Json) -> bool:
    return isinstance(message, dict) and message.get("channel") in _CHANNELS


def is_agent(message: Json) -> bool:
    """Return whether a message is of one of the frameworks."""
    kinds = (is_autogen, is_llamaindex, is_pydantic_ai, is_harmony)
    return any(is_kind(message) for is_kind in kinds)


def plain_messages(message: Record) -> list[Record]:
    """Return the messages that one is in the words of `log_turns`; keys that are not known stay."""
    if is_pydantic_ai(message):
        return _of_pydantic_ai(message)
    if is_autogen(message):
        return _of_autogen(message)
    if is_llamaindex(message):
        others = {key: value for key, value in message.items() if key != "blocks"}
        return [{**others, "content": [_typed(one, "block_type") for one in message["blocks"]]}]
    if is_harmony(message):
        return [_of_harmony(message)]
    return [_developer(message)]


def _typed(part: Json, key: str) -> Json:
    """Return a part with its kind under `type`, and the arguments of a call under `args`."""
    if not isinstance(part, dict):
        return part
    names = {key: "type", "tool_kwargs": "args"}
    return {names.get(name, name): value for name, value in part.items()}


def _of_pydantic_ai(message: Record) -> list[Record]:
    others = {k: v for k, v in message.items() if k not in ("kind", "parts", "instructions")}
    parts = [_typed(part, "part_kind") for part in message["parts"]]
    made: list[Record] = []
    if not is_empty(message.get("instructions")):
        made.append({"role": "system", "content": message["instructions"]})
    if message.get("kind") == "response":
        return [*made, {**others, "role": "assistant", "content": parts}]
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _PROMPTS:
            made.append({**part, "type": "message", "role": _PROMPTS[kind]})
        elif kind in ("tool-return", "retry-prompt") and part.get("tool_name"):
            named = {("name" if k == "tool_name" else k): v for k, v in part.items() if k != "type"}
            made.append({**named, "role": "tool", "is_error": kind == "retry-prompt"})
        elif kind == "retry-prompt":
            made.append({**part, "type": "message", "role": "user"})
        else:
            made.append({"role": "user", "content": [part]})
    first, *more = made or [{"role": "user"}]
    return [{**others, **first}, *more]


def _of_autogen(message: Record) -> list[Record]:
    role, content = _AUTOGEN[str(message["type"])], message.get("content")
    plain = ("type", "source", "models_usage", "content", "thought")
    others = {key: value for key, value in message.items() if key not in plain}
    if message["type"] == "TextMessage" and message.get("source") == "user":
        role = "user"
    if role == "tool" and isinstance(content, list) and all(isinstance(o, dict) for o in content):
        ids = {"call_id": "tool_call_id"}
        results = [{ids.get(k, k): v for k, v in one.items()} for one in content or [{}]]
        first, *more = ({**one, "role": "tool"} for one in results)
        return [{**others, **first}, *more]
    if role == "thought":
        return [{**others, "role": "assistant", "reasoning": content}]
    if role == "summary":
        kept = {key: value for key, value in others.items() if key not in ("tool_calls", "results")}
        return [{**kept, "role": "assistant", "content": content}]
    thought = {"reasoning": message["thought"]} if message.get("thought") else {}
    if role == "assistant" and isinstance(content, list):
        return [{**others, **thought, "role": role, "tool_calls": content}]
    return [{**others, **thought, "role": role, "content": content}]


def _of_harmony(message: Record) -> Record:
    """Return a message of a channel: a thought, a call of its recipient, a result or a text."""
    plain = ("channel", "recipient", "content_type", "content")
    others = {key: value for key, value in message.items() if key not in plain}
    content, to = message.get("content"), str(message.get("recipient") or "")
    if message.get("role") == "tool":
        return {**others, "content": content}
    parts = content if isinstance(content, list) else [content]
    texts = [one.get("text") if isinstance(one, dict) else one for one in parts]
    if not all(isinstance(text, str) for text in texts):
        return {**others, "content": content}
    text = "".join(map(str, texts))
    for part in parts:
        known = ("type", "text")
        others |= (
            {k: v for k, v in part.items() if k not in known} if isinstance(part, dict) else {}
        )
    if to and to not in ("all", "assistant"):
        given = decode(text) if text.strip() else {}
        given = given if isinstance(given, dict) or to.startswith("functions.") else {"input": text}
        call = {"name": to.removeprefix("functions."), "arguments": given}
        return {**others, "tool_calls": [call]}
    return {**others, ("reasoning" if message["channel"] == "analysis" else "content"): text}


def _developer(message: Record) -> Record:
    """Return Harmony's message of the developer as its instructions and tools; others as is."""
    content = message.get("content")
    part = content[0] if isinstance(content, list) and len(content) == 1 else None
    if not isinstance(part, dict) or part.get("type") != "developer_content":
        return message
    spaces = part.get("tools")
    spaces = dict(spaces) if isinstance(spaces, dict) else {"tools": spaces}
    own = spaces.pop("functions", None)
    own = own if isinstance(own, dict) else {"functions": own}
    plain = ("type", "name", "description", "instructions", "tools")
    rest = {k: v for k, v in {**spaces, **own, **part}.items() if k not in plain}
    return {**message, **rest, "content": part.get("instructions"), "tools": own.get("tools")}
