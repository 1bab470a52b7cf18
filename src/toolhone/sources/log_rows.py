"""Logs of production: one request with its reply, of whatever API, is one conversation.

    {"request": {"messages": [...], "tools": [...]}, "response": {"choices": [{"message": {...}}]}}
    {"contents": [{"role": "user", "parts": [{"text": "..."}]}], "tools": [...]}

`log_shapes` says what the keys of an envelope hold, `log_parts` what the parts of a message are,
`log_trails` which records belong together. What else a record says is counted.
"""

from __future__ import annotations

import marshal
import re
from collections.abc import Callable, Iterator, Mapping

from toolhone.errors import DataError
from toolhone.schema import Conversation, Json, Message, Tool
from toolhone.schema.json_input import check_keys, is_empty
from toolhone.sources.files import Record
from toolhone.sources.log_agents import (
    is_agent,
    is_autogen,
    is_harmony,
    is_llamaindex,
    is_pydantic_ai,
)
from toolhone.sources.log_failures import weigh_failures
from toolhone.sources.log_parts import (
    ROLES,
    decode,
    decode_record,
    is_cut,
    kind_of,
    role_of,
    unwrap,
)
from toolhone.sources.log_shapes import (
    PLACES,
    RECORD_KEYS,
    holds,
    is_anthropic,
    is_bedrock,
    is_claude_code,
    is_codex,
    is_cohere,
    is_langchain,
    is_langfuse,
    is_otel,
    is_request_log,
    is_responses,
    is_vercel,
)
from toolhone.sources.log_spans import attributes_of, tools_in
from toolhone.sources.log_streams import join_stream, read_events
from toolhone.sources.log_trails import claude_sessions, codex_rollouts, spans, split_traces
from toolhone.sources.log_turns import LogTurns
from toolhone.sources.messages import JOINED, WITHOUT_TOOLS, fill_tools, join_split_calls
from toolhone.sources.source import Context, Converted, Skip, Source, tasks_of
from toolhone.sources.tool_lists import tool_objects

NO_LOG = "a log record without a turn of the user and one of the assistant"
UNDECLARED = "calls of a log that declares no tools; name them with --tools FILE"
ELSEWHERE = "a request that goes on from a response that the file does not hold"
CUT = "a reply that ended before its end (its token limit, a filter): not learned"
_PRINTED = re.compile(r"(role|content)='|\w+\((role|content)=")
_ITEM = frozenset({"role", "message", "messages", "choices", "candidates", "data", "kwargs"})
"""Keys that an item of a list of messages, of replies or of generations has."""
_ORDER = {key: place for place, key in enumerate(PLACES)}
_ALTERNATIVES = ("choices", "candidates", "generations")


class _RowReader:
    """Collects what a record holds: system texts, turns of request and reply, tools."""

    def __init__(self, unread: set[str]) -> None:
        self.unread, self.system, self.tools = unread, list[str](), list[Json]()
        self.sides = {"user": LogTurns(unread), "assistant": LogTurns(unread)}

    def read(self, value: Json, side: str) -> None:
        value = decode_record(read_events(value) if isinstance(value, str) else value)
        if is_empty(value):
            return
        if isinstance(value, list):
            value = join_stream(value, self.unread)
        if isinstance(value, list):
            for one in value:
                if isinstance(one, dict) and "type" not in one and _has_role(one):
                    self.sides[side].add(one, side)
                elif not self._is_foreign(one):
                    self.read(one, side)
        elif isinstance(value, str):
            if _PRINTED.match(value):
                raise DataError(f"a message that was logged as Python text: {value!r:.60}")
            self.sides[side].say(side, value)
        elif isinstance(value, dict) and not _is_message(value):
            self._envelope(value, side)
        else:
            self.sides[side].add(value, side)

    def _is_foreign(self, item: Json) -> bool:
        """Return whether an item of a list has a type that is not known; it is counted by it."""
        kind = item.get("type") if isinstance(item, dict) else None
        if not isinstance(kind, str) or kind == "message" or not _ITEM.isdisjoint(item):
            return False
        if _is_message(item) or ROLES.get(kind) is not None:
            return False
        self.unread.add(f"{kind!r:.60} items of a log")
        return True

    def _envelope(self, value: Mapping[str, Json], side: str) -> None:
        where = "a log record" if side == "user" else "a response"
        check_keys(value, RECORD_KEYS, where, self.unread)
        if side == "assistant" and isinstance(value.get("text"), str) and "message" not in value:
            said = {key: value[key] for key in ("text", "tool_calls") if key in value}
            value = {**value, "text": None, "message": {"role": "assistant", **said}}
            value["message"]["content"] = value["message"].pop("text")
        for key in sorted(value.keys() & PLACES.keys(), key=_ORDER.__getitem__):
            place, inner = PLACES[key], value[key]
            if is_empty(inner):
                continue
            if key in _ALTERNATIVES and isinstance(inner, list):
                if len(inner) > 1 and not isinstance(inner[0], list):
                    self.unread.add(f"{key!r} of a response behind the first")
                inner = inner[:1]
            if place == "metadata":
                self._read_metadata(key, inner)
            elif place == "system":
                turns, said = LogTurns(self.unread), decode(inner)
                turns.add_all(said if isinstance(said, str | list) else [said], "system")
                text = "".join(message.content or "" for message in turns.messages())
                self.system += [] if text in self.system else [text]
            elif place == "tools":
                self.tools.append(inner)
            elif key == "message" and isinstance(inner, str) and side == "user":
                self.read(inner, "user")
            else:
                self.read(inner, "assistant" if place == "reply" else side)
        if is_cut(value):
            self.sides["assistant"].cut_off()

    def _read_metadata(self, key: str, value: Json) -> None:
        """Take the tools out of what a record says besides; settings of sampling say no more."""
        value = decode(value)
        given = dict(value) if isinstance(value, dict) else {"": value}
        attributes = given.get("attributes")
        found = tools_in(attributes if isinstance(attributes, dict) else {})
        named = [given.pop(word) for word in ("tools", "functions") if given.get(word)]
        self.tools += [*found, *named]
        if key == "metadata" and not found:
            check_keys({key: given}, (), "a log record", self.unread)

    def messages(self) -> list[Message]:
        """Return the whole conversation; a reply may repeat the request."""
        asked, said = (self.sides[side].messages() for side in ("user", "assistant"))
        turns, known = ([m for m in side if m.role != "system"] for side in (said, asked))
        if known and len(turns) > len(known) and turns[: len(known)] == known:
            asked = [m for m in asked if m.role == "system"]
            said = turns if asked else said
        whole = [*asked, *said]
        first = [whole[0].content] if whole and whole[0].role == "system" else []
        added = [Message("system", text) for text in self.system if text and text not in first]
        return [*added, *whole]


def _has_role(value: Mapping[str, Json]) -> bool:
    """Return whether an object has a role that is known, and a content."""
    return isinstance(role := value.get("role"), str) and role in ROLES and "content" in value


def _is_message(value: Mapping[str, Json]) -> bool:
    """Return whether an object is a message or an item, not a record around some."""
    if _has_role(value) or is_agent(value):
        return True
    value = unwrap(value, set())
    if not isinstance(value.get("role", ""), str):
        return False
    typed = value.get("type") is not None or "toolCallId" in value
    if typed and "role" not in value and kind_of(value)[0]:
        return True
    said = any(key in value for key in ("content", "parts", "tool_calls", "function_call"))
    if "role" not in value:
        return said and ROLES.get(str(value.get("type"))) is not None
    return said or role_of(value) == "tool"


def convert(record: Record, context: Context) -> Converted:
    reader = _RowReader(context.unread)
    try:
        reader.read(attributes_of(record, context.unread), "user")
        messages = reader.messages()
        joined = any(side.joined for side in reader.sides.values())
        given = [*reader.tools, *(one for side in reader.sides.values() for one in side.tools)]
        tools = _tools_of(given, context)
    except DataError as error:
        raise Skip("not a log record", str(error)) from None
    for level in (record, record.get("request"), record.get("body"), record.get("input")):
        asked = decode(level)
        if isinstance(asked, dict) and (before := asked.get("previous_response_id")):
            if before not in context.seen:
                raise Skip(ELSEWHERE, repr(before))
            messages = [*context.seen[before], *messages]
            break
    if not {"user", "assistant"} <= {message.role for message in messages}:
        raise Skip(NO_LOG, f"keys {', '.join(map(repr, sorted(record)[:8]))}")
    context.repairs |= {JOINED} if joined else set()
    context.repairs |= {CUT} if any(side.cut for side in reader.sides.values()) else set()
    offered = context.options.get("tools")
    if offered and not tools:
        tools = tuple(offered)
        context.repairs.add(WITHOUT_TOOLS)
    if not tools and any(message.tool_calls for message in messages):
        context.notes.append(UNDECLARED)
    failed = [one for side in reader.sides.values() for one in side.failed]
    turns = join_split_calls(messages, context.repairs)
    turns = weigh_failures(turns, tools, failed, context)
    identity = next((str(record[key]) for key in _NAMES if record.get(key)), "")
    reply = decode(record.get("response"))
    for named in (record, reply if isinstance(reply, dict) else {}):
        if str(named.get("id")).startswith("resp"):
            context.seen[str(named["id"])] = tuple(m for m in turns if m.role != "system")
    made = Conversation(turns, tools, identity or context.identity(record), context.name)
    return Converted(made, tasks_of(made))


_NAMES = ("id", "custom_id", "spanId", "request_id", "run_id")


def _tools_of(given: list[Json], context: Context) -> tuple[Tool, ...]:
    """Return each tool of a record's lists once; lists that an earlier record had are read once."""

    def read(own: Context) -> tuple[Tool, ...]:
        kept: list[Tool] = []
        for tool in fill_tools({"tools": tool_objects(given, own.unread)}, own)["tools"]:
            kept += [] if tool in kept else [tool]
        return tuple(kept)

    return context.once(("lists", marshal.dumps(given, 2)), read)


def _source(
    name: str,
    looks_like: Callable[[Record], bool],
    rows: Callable[..., Iterator[Json]] | None = None,
) -> Source:
    return Source(name, looks_like, convert, {}, None, rows, frozenset({"tools"}), True)


CODEX = _source("codex", is_codex, codex_rollouts)
CLAUDE_CODE = _source("claude_code", is_claude_code, claude_sessions)
OTEL = _source("otel", is_otel, spans)
LANGFUSE = _source("langfuse", is_langfuse, split_traces)
LANGSMITH = _source("langsmith", lambda record: "run_type" in record and "inputs" in record)
AUTOGEN = _source("autogen", holds(is_autogen))
HARMONY = _source("harmony", holds(is_harmony))
LLAMAINDEX = _source("llamaindex", holds(is_llamaindex))
PYDANTIC_AI = _source("pydantic_ai", holds(is_pydantic_ai))
LANGCHAIN = _source("langchain", is_langchain)
GEMINI = _source("gemini", lambda record: isinstance(record.get("contents"), list | str))
BEDROCK = _source("bedrock", is_bedrock)
RESPONSES = _source("responses", is_responses)
COHERE = _source("cohere", is_cohere)
REQUEST_LOG = _source("request_log", is_request_log)
ANTHROPIC = _source("anthropic", is_anthropic)
VERCEL = _source("vercel", is_vercel)
