"""Rows against rows: repeated ones, and prompts that are answered with different calls.

    prints = [print_of(conversation, texts) for conversation in conversations]     # texts = ToolTexts()
    duplicates(prints); near_duplicates(prints); conflicts(prints)                 # row -> fault

A print is a handful of hashes, so that a hundred thousand rows cost little memory. Ids of calls and of rows do not count: they
link and say nothing. Two answers conflict when everything before them, tools included, is the same, and the calls are not (in
any order); other words beside the same calls, or two plain replies, are no conflict.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from toolhone.schema import Conversation, Tool

_SIZE = 16


class ToolTexts:
    """The JSON text of each tool, made once: data sets repeat their tools in every row."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tool, str]] = {}

    def of(self, tools: Sequence[Tool]) -> str:
        return "\n".join(map(self._one, tools))

    def _one(self, tool: Tool) -> str:
        known = self._known.get(id(tool))
        if known is None:
            known = self._known[id(tool)] = (tool, json.dumps(tool.to_dict()))
        return known[1]


@dataclass(frozen=True, slots=True)
class Decision:
    """An assistant turn: a hash of everything before it, a hash of its calls, and how it may be told."""

    message: int
    before: bytes
    calls: bytes
    told: str


@dataclass(frozen=True, slots=True)
class Print:
    """`whole`: messages and tools; `said`: the same without capitals, white space and tools; `decisions`: its assistant turns."""

    whole: bytes
    said: bytes
    decisions: tuple[Decision, ...]


def print_of(conversation: Conversation, texts: ToolTexts) -> Print:
    """The hashes of a conversation."""
    running = blake2b(
        texts.of(conversation.tools).encode("utf-8", "surrogatepass"), digest_size=_SIZE
    )
    said = blake2b(digest_size=_SIZE)
    decisions = []
    for index, message in enumerate(conversation.messages):
        calls = [
            json.dumps([call.name, call.arguments], sort_keys=True) for call in message.tool_calls
        ]
        if message.role == "assistant":
            decisions.append(
                Decision(index, running.digest(), _hash("\n".join(sorted(calls))), _told(calls))
            )
        running.update(
            json.dumps([message.role, message.content, message.reasoning, calls]).encode()
        )
        if message.role != "system":
            plain = " ".join((message.content or "").split()).casefold()
            said.update(json.dumps([message.role, plain, calls]).encode())
    return Print(running.digest(), said.digest(), tuple(decisions))


def _hash(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=_SIZE).digest()


def _told(calls: Sequence[str]) -> str:
    return ", ".join(calls)[:100] or "no call"


def duplicates(prints: Sequence[Print]) -> dict[int, int]:
    """Row -> the first row that says the same."""
    return _repeated([one.whole for one in prints])


def near_duplicates(prints: Sequence[Print]) -> dict[int, int]:
    """Row -> the first row that says the same in other spelling or with other tools; exact duplicates are left out."""
    exact = duplicates(prints)
    return {
        row: first
        for row, first in _repeated([one.said for one in prints]).items()
        if row not in exact
    }


def _repeated(digests: Sequence[bytes]) -> dict[int, int]:
    seen: dict[bytes, int] = {}
    firsts = ((row, seen.setdefault(digest, row)) for row, digest in enumerate(digests))
    return {row: first for row, first in firsts if row != first}


@dataclass(frozen=True)
class Conflict:
    """A turn whose calls differ from those of `other`, which has the same prompt; both as they may be told."""

    message: int
    other: int
    own: str
    others: str


def conflicts(prints: Sequence[Print]) -> dict[int, Conflict]:
    """Row -> its first turn that is not answered as most rows with its prompt are; where no answer has a majority, all rows."""
    members: dict[bytes, list[tuple[int, Decision]]] = defaultdict(list)
    for row, one in enumerate(prints):
        for decision in one.decisions:
            members[decision.before].append((row, decision))
    found: dict[int, Conflict] = {}
    for group in members.values():
        for row, conflict in _divided(group) if len(group) > 1 else ():
            if row not in found or conflict.message < found[row].message:
                found[row] = conflict
    return found


def _divided(group: Sequence[tuple[int, Decision]]) -> Iterator[tuple[int, Conflict]]:
    votes = Counter(decision.calls for _, decision in group)
    if len(votes) < 2:
        return
    winner, most = votes.most_common(1)[0]
    if 2 * most <= len(group):
        winner = b""
    firsts: dict[bytes, tuple[int, Decision]] = {}
    for row, decision in group:
        firsts.setdefault(decision.calls, (row, decision))
    for row, decision in group:
        if decision.calls != winner:
            other, its = next(first for calls, first in firsts.items() if calls != decision.calls)
            yield row, Conflict(decision.message, other, decision.told, its.told)
