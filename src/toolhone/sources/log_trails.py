"""Records of a log that belong together: sessions, traces, and requests with one history.

codex_rollouts(stream)             # the lines of a file become one record for each session
Trails().join(rows)                # of requests that repeat each other, the longest stays
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from toolhone.schema import Conversation, Json, Message
from toolhone.schema.json_input import is_empty
from toolhone.sources.files import BadLine, FileLine, Record, RecordStream
from toolhone.sources.log_parts import word_set
from toolhone.sources.log_shapes import RECORD_KEYS

BRANCH = "a branch of a history that another request continues, whose shared turns are learned once"
_CODEX_META, _CLAUDE_LINE = word_set("codex_meta"), word_set("claude_line")
_SPAN_LISTS = frozenset(
    {
        *("resourceSpans", "resource_spans", "scopeSpans", "scope_spans"),
        "instrumentationLibrarySpans",
    }
)
Rows = Iterator[tuple[FileLine, Record | BadLine]]


def codex_rollouts(stream: RecordStream) -> Rows:
    """Yield one record for each session: its instructions and items; bad lines as they come."""
    session, place = dict[str, Json](), None
    for line, row in stream:
        if isinstance(row, BadLine):
            yield line, row
            continue
        kind, payload = row.get("type"), row.get("payload")
        meta = kind == "session_meta" or ("payload" not in row and "type" not in row)
        if meta and session.get("items") and place is not None:
            yield place, session
            session = {}
        place = place if session else line
        own = {"timestamp", "type", "payload"} if "payload" in row else set(row)
        session |= {key: value for key, value in row.items() if key not in own}
        if meta:
            given = payload if isinstance(payload, dict) else row
            base = given.get("base_instructions") or given.get("instructions")
            text = base.get("text") if isinstance(base, dict) else base
            session |= {key: one for key, one in given.items() if key not in _CODEX_META}
            session |= {"id": given.get("id"), "instructions": text, "items": []}
        elif kind == "response_item" or "payload" not in row:
            session.setdefault("items", []).append(row if "payload" not in row else payload)
        elif kind not in ("event_msg", "turn_context"):
            session[f"{kind} lines"] = True
    if session and place is not None:
        yield place, session


def claude_sessions(stream: RecordStream) -> Rows:
    """Yield a record for each session, and for each branch that a later prompt starts in it."""
    talks: dict[str, tuple[FileLine, dict[str, Json], list[tuple[Json, Json]]]] = {}
    for line, row in stream:
        if isinstance(row, BadLine):
            yield line, row
            continue
        side = row.get("agentId") or bool(row.get("isSidechain"))
        key = json.dumps([row.get("sessionId") or row.get("session_id"), side])
        message = row.get("message")
        if not isinstance(message, dict) or row.get("type") not in ("user", "assistant"):
            if row.get("type") in ("user", "assistant") or "sessionId" in row:
                others = {k: v for k, v in row.items() if k not in _CLAUDE_LINE}
                talks.setdefault(key, (line, {}, []))[1].update(
                    {f"{name} of {row.get('type')} lines": value for name, value in others.items()}
                )
            continue
        place, others, path = talks.setdefault(key, (line, {}, []))
        others |= {name: value for name, value in row.items() if name not in _CLAUDE_LINE}
        uuids = [uuid for uuid, _ in path]
        parent = row.get("parentUuid")
        content = message.get("content")
        parts = (
            [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []
        )
        is_result = any(part.get("type") == "tool_result" for part in parts)
        if row["type"] == "user" and not is_result and parent in uuids:
            later = [one for _, one in path[uuids.index(parent) + 1 :]]
            if any(isinstance(one, dict) and one.get("role") == "assistant" for one in later):
                yield place, {**others, "messages": [one for _, one in path]}
                del path[uuids.index(parent) + 1 :]
        path.append((row.get("uuid"), message))
    for key, (place, others, path) in talks.items():
        if path:
            yield place, {**others, "session_id": key, "messages": [one for _, one in path]}
        else:
            yield place, {"lines without a message": True, **others}


def split_traces(stream: RecordStream) -> Rows:
    """Yield the observations of each trace, or the trace where it has none; other rows as they
    are. What else a trace says comes with the first of them."""
    for line, row in stream:
        observed = row.get("observations") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(observed, list):
            yield line, row
            continue
        trace = row["trace"] if isinstance(row.get("trace"), dict) else row
        whole = {key: one for key, one in trace.items() if key != "observations"}
        made = [one for one in observed if isinstance(one, dict)]
        generated = [one for one in made if one.get("type") == "GENERATION"]
        around = {key: one for key, one in row.items() if key not in ("trace", "observations")}
        others = {k: v for k, v in {**whole, **around}.items() if k not in RECORD_KEYS}
        for one in observed:
            if one not in generated and not is_empty(one):
                kind = one.get("type") if isinstance(one, dict) else one
                others[f"{kind!s:.40} observations"] = True
        first, *more = generated or [whole]
        yield line, {**others, **first}
        for one in more:
            yield line, one


def spans(stream: RecordStream) -> Rows:
    """Yield the spans of OTLP documents; other rows as they are. What a document says around its
    spans comes with the first of them."""
    for line, row in stream:
        if isinstance(row, BadLine) or not row.keys() & _SPAN_LISTS:
            yield line, row
            continue
        others: dict[str, Json] = {}
        for span in [*_spans_in(row, others)] or [row]:
            yield line, {**others, **span}
            others = {}


def _spans_in(value: Json, others: dict[str, Json]) -> Iterator[Record]:
    """Yield the spans below a document; others: gets the keys that are not known."""
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict):
            others["entries that are no objects"] = one
            continue
        for key, inner in one.items():
            if key in _SPAN_LISTS and not is_empty(inner):
                yield from _spans_in(inner, others)
            elif key == "spans" and isinstance(inner, list):
                yield from (span for span in inner if isinstance(span, dict))
                lost = [span for span in inner if not isinstance(span, dict)]
                others |= {"spans that are no objects": lost} if lost else {}
            elif key not in ("resource", "scope", "schemaUrl", "instrumentationLibrary"):
                others[key] = inner


class Trails:
    """Of requests whose history another one holds, the longest stays; thoughts of replies that the
    longer ones leave out are put back. Turns that two branches share are learned in the first.

    trails.add(messages)               # of each conversation, in order
    trails.touched()                   # the conversations that share turns with others
    trails.join(lambda: rows)          # what becomes of these; `rows` may be read from a file
    """

    def __init__(self) -> None:
        self._hashes, self._ends = array("q"), array("q")
        self.branches = 0

    def add(self, messages: Sequence[Message]) -> None:
        first = next((n for n, one in enumerate(messages) if one.role == "assistant"), 0)
        self._hashes.extend(_chain(messages)[first:])
        self._ends.append(len(self._hashes))

    def touched(self) -> list[int]:
        """Return the numbers of the conversations of which a part is in another, too."""
        hashes = np.array(self._hashes, dtype=np.int64)
        whole = np.sort(hashes)
        several = np.unique(whole[1:][whole[1:] == whole[:-1]])
        places = np.flatnonzero(np.isin(hashes, several))
        ends = np.array(self._ends, dtype=np.int64)
        return [int(n) for n in np.unique(np.searchsorted(ends, places, side="right"))]

    def join(
        self, rows: Callable[[], Iterator[tuple[int, Conversation]]]
    ) -> Iterator[tuple[int, Conversation | None]]:
        """Yield what becomes of each touched conversation, with its number; None of one that a
        longer one holds. rows: yields them with their numbers, twice the same."""
        inner, last, thoughts = set[int](), dict[int, int](), dict[int, str]()
        for number, row in rows():
            chain = _chain(row.messages)
            inner.update(chain[:-1])
            last.setdefault(chain[-1], number)
            pairs = zip(chain, row.messages, strict=True)
            thoughts |= {key: one.reasoning for key, one in pairs if one.reasoning}
        learned = set[int]()
        for number, row in rows():
            chain, made, shared = _chain(row.messages), list[Message](), False
            if chain[-1] in inner or last[chain[-1]] != number:
                yield number, None
                continue
            for message, key in zip(row.messages, chain, strict=True):
                if message.role == "assistant":
                    known = key in learned
                    shared = shared or known
                    learned.add(key)
                    weight = 0 if known else message.weight
                    thought = message.reasoning or thoughts.get(key)
                    if (weight, thought) != (message.weight, message.reasoning):
                        message = replace(message, weight=weight, reasoning=thought)
                made.append(message)
            self.branches += shared
            yield number, replace(row, messages=tuple(made))


_SORTED = json.JSONEncoder(sort_keys=True).encode


def _chain(messages: Sequence[Message]) -> list[int]:
    """Return for each message a hash of it and of all before it; thoughts and ids do not count."""
    chain, before = list[int](), 0
    for one in messages:
        calls = [[call.name, call.arguments] for call in one.tool_calls]
        said = _SORTED(calls) if calls else ""
        before = hash((before, one.role, one.content or "", said))
        chain.append(before)
    return chain
