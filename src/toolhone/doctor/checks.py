"""The checks that every training runs on its rows, alone and beside each other.

    findings = quick_checks(loaded.conversations, loaded.places)    # no tokenizer, no model
    findings.raise_if_any()
    check(conversations, "a.jsonl")                          # rules and exact duplicates only
    class_balance(conversations).faults()

Rows are never changed; `doctor.repair` does that.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import pairwise, takewhile
from typing import NamedTuple

from toolhone.dialects.syntax.model_text import split_reasoning
from toolhone.doctor.findings import Findings, finding_at
from toolhone.doctor.typed_calls import MARK, is_closing, marks_in, read_typed
from toolhone.schema import Conversation, Json, Task, Tool
from toolhone.sources.files import FileLine
from toolhone.sources.rules import Fault, FindingKind, conversation_faults, order_faults

COMMON_MARKS = re.compile(
    r"<\|[A-Za-z0-9_]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|</?s>|\[/?INST\]"
    r"|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
)
"""What many tokenizers have as control tokens."""
_RESULTS = (
    re.compile(
        r"\s*<(tool_response|tool_result|function_response|function_results?|functionresponse)>"
        r"(.*?)</\1>\s*",
        re.DOTALL | re.IGNORECASE,
    ),
    re.compile(r"\s*\[(RESULT|TOOL_RESULTS?)\](.*?)\[/\1\]\s*", re.DOTALL),
)
_CALL_SIGN = re.compile(r"[<\[{(]")
"""Without one of these a text holds no call and no mark of one."""
_FEWEST = 20
"""Rows from which on the balance of a file is judged."""
_LOPSIDED = 0.05
_HASH_BYTES = 16


def check(conversations: Sequence[Conversation], where: str | Sequence[FileLine]) -> Findings:
    """Check each row by the rules, and find exact duplicates.

    where: the name of the file, or the place of each row.
    """
    places = _places(where, len(conversations))
    repeats = _duplicate_faults([mark.exact for mark in fingerprints(conversations)], places)
    return _collect(conversations, places, conversation_faults, repeats)


def quick_checks(
    conversations: Sequence[Conversation], where: str | Sequence[FileLine]
) -> Findings:
    """Run the checks that need no model and no second file; `where` as in `check`."""
    places = _places(where, len(conversations))
    return _collect(conversations, places, row_faults, cross_faults(conversations, places))


def _places(where: str | Sequence[FileLine], count: int) -> list[str]:
    if isinstance(where, str):
        return [f"{where}, row {row + 1}" for row in range(count)]
    return list(map(str, where[:count]))


def _collect(
    conversations: Sequence[Conversation],
    places: Sequence[str],
    faults_of: Callable[[Conversation], Iterator[Fault]],
    cross: Mapping[int, Sequence[Fault]],
) -> Findings:
    findings = [
        finding_at(fault, row, places[row], conversation.id)
        for row, conversation in enumerate(conversations)
        for fault in (*faults_of(conversation), *cross.get(row, ()))
    ]
    return Findings(len(conversations), findings)


def row_faults(
    row: Conversation, control: re.Pattern[str] | None = COMMON_MARKS
) -> Iterator[Fault]:
    """Yield the faults of one row; `control` finds texts that are control tokens."""
    yield from conversation_faults(row)
    yield from order_faults(row.messages)
    yield from text_faults(row)
    if control is not None:
        yield from control_faults(row, control)


def text_faults(conversation: Conversation) -> Iterator[Fault]:
    """Yield calls and stray marks in texts of the assistant, and results in texts of the user."""
    tools = {tool.name: tool for tool in conversation.tools}
    for index, message in enumerate(conversation.messages):
        text, field = message.content, f"messages[{index}].content"
        if not text:
            continue
        if message.role == "assistant":
            if _CALL_SIGN.search(text):
                yield from _mark_faults(field, text, tools)
        elif message.role == "user" and typed_results(text):
            what = f"the user's message is a tool result between marks: {text.strip()[:60]!r}"
            yield Fault(FindingKind.TYPED_RESULT, field, what, "wanted a tool message")


def _mark_faults(field: str, text: str, tools: Mapping[str, Tool]) -> Iterator[Fault]:
    shown, right = repr(text.strip()[:60]), "wanted it in tool_calls"
    found = read_typed(text, tools)
    marks = marks_in(text) if found is None else []
    closing = sum(map(is_closing, marks))
    if found is not None:
        names = ", ".join(repr(call.name) for call in found.calls[:3])
        what = f"the text holds a call of {names}, {found.form}: {shown}"
        yield Fault(FindingKind.TYPED_CALL, field, what, right)
    elif closing and 2 * closing == len(marks) and not is_closing(marks[0]):
        what = f"the call between {marks[0]} and {marks[1]} in the text cannot be read: {shown}"
        yield Fault(FindingKind.TYPED_CALL, field, what, right)
    elif marks:
        counts = f"{len(marks) - closing} marks open and {closing} close"
        what = f"{counts}, the first is {marks[0]!r}: {shown}"
        right = "wanted no marks in text; calls belong in tool_calls"
        yield Fault(FindingKind.STRAY_MARK, field, what, right)


def typed_results(text: str) -> tuple[str, ...]:
    """Return the results between marks in a text; none if the text holds anything else."""
    for pattern in _RESULTS if text.lstrip().startswith(("<", "[")) else ():
        results, position = list[str](), 0
        while found := pattern.match(text, position):
            results.append(found[2].strip())
            position = found.end()
        if results and position == len(text):
            return tuple(results)
    return ()


def control_faults(conversation: Conversation, pattern: re.Pattern[str]) -> Iterator[Fault]:
    """Yield a remark for each message with a control text in its content or arguments.

    Marks of calls in the assistant's content are left to `text_faults`.
    """
    right = "wanted text that no tokenizer takes for a control token"
    for index, message in enumerate(conversation.messages):
        texts = [("content", split_reasoning(message).content or "")]
        for number, call in enumerate(message.tool_calls):
            texts += [(f"tool_calls[{number}].arguments", one) for one in _strings(call.arguments)]
        for field, text in texts:
            skip_marks = message.role == "assistant" and field == "content"
            matches = pattern.finditer(text)
            hits = (hit for hit in matches if not (skip_marks and MARK.match(hit[0])))
            if found := next(hits, None):
                around = text[max(found.start() - 30, 0) : found.end() + 20]
                what = f"the {message.role}'s text holds {found[0]!r}: {around!r}"
                yield Fault(FindingKind.CONTROL_TEXT, f"messages[{index}].{field}", what, right)
                break


def _strings(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def prompt_of(row: Conversation | Task) -> str:
    """Return what the user says before the assistant speaks, without case and white space."""
    messages = row.turns[0] if isinstance(row, Task) and row.turns else row.messages
    opening = takewhile(lambda message: message.role != "assistant", messages)
    texts = [message.content or "" for message in opening if message.role == "user"]
    return "\n".join(" ".join(text.split()).casefold() for text in texts)


def prompts_of(rows: Iterable[tuple[str, Conversation | Task]]) -> dict[str, str]:
    """Return the prompts of rows, each with the place of its first row."""
    prompts: dict[str, str] = {}
    for place, row in rows:
        if prompt := prompt_of(row):
            prompts.setdefault(prompt, place)
    return prompts


class Decision(NamedTuple):
    """An assistant turn: a hash of everything before it, a hash of its calls, and the calls."""

    message: int
    before: bytes
    calls: bytes
    shown: str


class Fingerprint(NamedTuple):
    """Hashes of a row. Ids of rows and calls do not count.

    exact: messages and tools. loose: messages without case, white space, and the system's.
    """

    exact: bytes
    loose: bytes
    decisions: tuple[Decision, ...]


def fingerprints(conversations: Iterable[Conversation]) -> list[Fingerprint]:
    """Return the hashes of each conversation."""
    tool_texts: dict[int, str] = {}
    marks = []
    for conversation in conversations:
        for tool in conversation.tools:
            if id(tool) not in tool_texts:
                tool_texts[id(tool)] = json.dumps(tool.to_dict())
        tools = "\n".join(tool_texts[id(tool)] for tool in conversation.tools)
        exact = blake2b(tools.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES)
        loose, decisions = blake2b(digest_size=_HASH_BYTES), []
        for index, message in enumerate(conversation.messages):
            calls = [json.dumps([c.name, c.arguments], sort_keys=True) for c in message.tool_calls]
            if message.role == "assistant":
                answer = blake2b(
                    "\n".join(sorted(calls)).encode(), digest_size=_HASH_BYTES
                ).digest()
                shown = ", ".join(calls)[:100] or "no call"
                decisions.append(Decision(index, exact.digest(), answer, shown))
            parts = [message.role, message.content, message.reasoning, calls]
            exact.update(json.dumps(parts).encode())
            if message.role != "system":
                plain = " ".join((message.content or "").split()).casefold()
                loose.update(json.dumps([message.role, plain, calls]).encode())
        marks.append(Fingerprint(exact.digest(), loose.digest(), tuple(decisions)))
    return marks


def cross_faults(
    conversations: Sequence[Conversation], places: Sequence[str]
) -> Mapping[int, Sequence[Fault]]:
    """Return the faults of rows beside other rows of the same file, by row."""
    marks = fingerprints(conversations)
    found = _duplicate_faults([mark.exact for mark in marks], places)
    for row, first in _repeats([mark.loose for mark in marks]).items():
        if row not in found:
            what = f"says the same as {places[first]}, in other spelling or with other tools"
            right = "wanted rows that add something"
            found[row].append(Fault(FindingKind.NEAR_DUPLICATE, "messages", what, right))
    for row, conflict in conflicts(marks).items():
        field, other = f"messages[{conflict.message}]", places[conflict.other]
        what = f"answers with {conflict.own} what {other} answers with {conflict.others}"
        right = "wanted one answer for one prompt"
        found[row].append(Fault(FindingKind.CONFLICT, field, what, right))
    return found


def _duplicate_faults(hashes: Sequence[bytes], places: Sequence[str]) -> dict[int, list[Fault]]:
    found: dict[int, list[Fault]] = defaultdict(list)
    for row, first in _repeats(hashes).items():
        what = f"says the same as {places[first]}"
        found[row] = [Fault(FindingKind.DUPLICATE_ROW, "messages", what, "wanted each row once")]
    return found


def _repeats(hashes: Sequence[bytes]) -> dict[int, int]:
    """Return row -> the first row with the same hash, for all but the first ones."""
    seen: dict[bytes, int] = {}
    firsts = ((row, seen.setdefault(digest, row)) for row, digest in enumerate(hashes))
    return {row: first for row, first in firsts if row != first}


class Conflict(NamedTuple):
    """A turn whose calls differ from those of the row `other`, which has the same prompt."""

    message: int
    other: int
    own: str
    others: str


def conflicts(marks: Sequence[Fingerprint]) -> dict[int, Conflict]:
    """Return row -> its first turn that differs from the majority answer to its prompt.

    Two answers differ if their calls do, in any order. Without a majority, all rows count.
    """
    members: dict[bytes, list[tuple[int, Decision]]] = defaultdict(list)
    for row, mark in enumerate(marks):
        for decision in mark.decisions:
            members[decision.before].append((row, decision))
    found: dict[int, Conflict] = {}
    for group in members.values():
        for row, conflict in _minority(group) if len(group) > 1 else ():
            if row not in found or conflict.message < found[row].message:
                found[row] = conflict
    return found


def _minority(group: Sequence[tuple[int, Decision]]) -> Iterator[tuple[int, Conflict]]:
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
            yield row, Conflict(decision.message, other, decision.shown, its.shown)


@dataclass(frozen=True)
class Balance:
    """How many conversations call a tool at the end, or anywhere, and how their turns decide.

    A decision is an assistant turn right after the user: it calls, or it answers.
    """

    rows: int = 0
    ends_in_call: int = 0
    calls_anywhere: int = 0
    decisions_to_call: int = 0
    decisions_to_answer: int = 0
    offer_one_tool: int = 0

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    def __str__(self) -> str:
        share = f"{self.calls_anywhere / self.rows:.0%}" if self.rows else "none"
        decisions = self.decisions_to_call + self.decisions_to_answer
        return (
            f"{self.calls_anywhere} of {self.rows} rows call a tool ({share}), "
            f"{self.ends_in_call} end in a call; of {decisions} answers to a user "
            f"{self.decisions_to_call} are calls, {self.decisions_to_answer} are not"
        )

    def faults(self) -> Iterator[Fault]:
        """Yield what is lopsided beyond 19 to 1."""
        decisions, judged = self.decisions_to_call + self.decisions_to_answer, self.rows >= _FEWEST
        if self.rows and not self.calls_anywhere:
            what = f"none of {self.rows} rows calls a tool"
            yield Fault(FindingKind.NO_CALLS, "", what, "wanted rows that do")
        elif judged and self.decisions_to_answer < _LOPSIDED * decisions:
            what = f"{self.decisions_to_answer} of {decisions} answers to a user do without a call"
            yield Fault(FindingKind.ONLY_CALLS, "", what, "wanted some questions that need no tool")
        elif judged and self.decisions_to_call < _LOPSIDED * decisions:
            what = f"{self.decisions_to_call} of {decisions} answers to a user call a tool"
            yield Fault(FindingKind.FEW_CALLS, "", what, "wanted more questions that need one")
        if judged and self.offer_one_tool == self.rows:
            what = f"all {self.rows} rows offer exactly one tool"
            yield Fault(FindingKind.ONE_TOOL, "", what, "wanted other tools beside the right one")


def class_balance(conversations: Iterable[Conversation]) -> Balance:
    """Count the calls and the answers of conversations."""
    counts: Counter[str] = Counter()
    for conversation in conversations:
        turns = [message for message in conversation.messages if message.role == "assistant"]
        decisions = [
            bool(message.tool_calls)
            for before, message in pairwise(conversation.messages)
            if before.role == "user" and message.role == "assistant"
        ]
        counts["rows"] += 1
        counts["ends_in_call"] += bool(turns and turns[-1].tool_calls)
        counts["calls_anywhere"] += any(message.tool_calls for message in turns)
        counts["decisions_to_call"] += sum(decisions)
        counts["decisions_to_answer"] += len(decisions) - sum(decisions)
        counts["offer_one_tool"] += len(conversation.tools) == 1
    return Balance(**counts)
