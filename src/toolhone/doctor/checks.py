"""The checks that every training runs on its rows, alone and beside each other, and what they find.

    findings = quick_checks(loaded.conversations, loaded.places)    # no tokenizer, no model
    findings.raise_if_any()             # the first grave finding, as one sentence
    REMEDIES[kind].why, REMEDIES[kind].fix                   # from `remedies.json`

A grave finding stops a training; the others are remarks. Rows are never changed here.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from toolhone.dialects.syntax.model_text import split_reasoning
from toolhone.doctor.typed_calls import MARK, mark_faults, typed_results
from toolhone.errors import DataError, Fault, FindingKind
from toolhone.schema import Conversation, Json, texts_in
from toolhone.schema.json_input import packaged_json
from toolhone.sources.files import FileLine
from toolhone.sources.source import conversation_faults, row_remarks

COMMON_MARKS = re.compile(
    r"<\|[A-Za-z0-9_]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|</?s>|\[/?INST\]"
    r"|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
)
"""What many tokenizers have as control tokens."""
WHOLE_FILE = -1
"""The `row` of a finding about a whole file."""
_EXAMPLES = 5
"""Examples of a kind that are shown."""
_CALL_SIGN = re.compile(r"[<\[{(]")
"""Without one of these a text holds no call and no mark of one."""
_FEWEST = 20
"""Rows from which on the balance of a file is judged."""
_LOPSIDED = 0.05
_digest = partial(blake2b, digest_size=16)


@dataclass(frozen=True)
class Remedy:
    """What a kind leads to, why it matters, and what `--fix` does about it.

    effect: `stop` ends a training, and `--fix` drops a row that it cannot repair; `drop` lets a
    training go on, but `--fix` drops the row; `keep` is a remark.
    """

    effect: Literal["stop", "drop", "keep"]
    why: str
    fix: str = "drops the row"


REMEDIES = {
    FindingKind(kind): Remedy(**remedy)
    for kind, remedy in packaged_json("doctor/remedies.json").items()
}
REMARKS = frozenset(kind for kind, remedy in REMEDIES.items() if remedy.effect != "stop")
"""Kinds that do not stop a training."""


@dataclass(frozen=True)
class DataFinding:
    """One thing that is wrong.

    row: counts from 0, or is `WHOLE_FILE`. place: file and line. field: a path inside the row.
    times: the rows that a finding about a file counts for.
    """

    kind: FindingKind
    row: int
    place: str
    id: str
    field: str
    what: str
    right: str
    times: int = 1

    def __str__(self) -> str:
        name = f" (id {self.id!r})" if self.id else ""
        field = f", {self.field}" if self.field else ""
        right = f"; {self.right}" if self.right else ""
        return f"{self.place}{name}{field}: {self.what}{right}"

    def to_dict(self) -> dict[str, Json]:
        """Return the finding for JSON; `row` is null for a finding about a file."""
        row = None if self.row == WHOLE_FILE else self.row
        return {**vars(self), "kind": self.kind.value, "row": row}


def finding_at(fault: Fault, row: int, place: str, identity: str = "") -> DataFinding:
    """Return a fault with its place."""
    return DataFinding(fault.kind, row, place, identity, fault.field, fault.what, fault.right)


@dataclass(frozen=True)
class FindingGroup:
    """The findings of one kind: how many, in how many rows, and the first few."""

    kind: FindingKind
    count: int
    rows: int
    examples: Sequence[DataFinding]

    def to_dict(self) -> dict[str, Json]:
        remedy, grave = REMEDIES[self.kind], self.kind not in REMARKS
        examples = [finding.to_dict() for finding in self.examples]
        counts = {"kind": self.kind.value, "grave": grave, "count": self.count, "rows": self.rows}
        return {**counts, "why": remedy.why, "fix": remedy.fix, "examples": examples}


@dataclass(frozen=True)
class Findings:
    """All findings, in the order of the rows; `rows` were checked."""

    rows: int
    findings: Sequence[DataFinding]

    @cached_property
    def counts(self) -> Counter[FindingKind]:
        """Findings by kind."""
        counts: Counter[FindingKind] = Counter()
        for finding in self.findings:
            counts[finding.kind] += finding.times
        return counts

    @cached_property
    def groups(self) -> list[FindingGroup]:
        """Findings by kind: the grave ones first, then by number."""
        groups = []
        for kind, count in self.counts.items():
            found = [finding for finding in self.findings if finding.kind == kind]
            rows = len({(finding.place, finding.row) for finding in found})
            groups.append(FindingGroup(kind, count, rows, found[:_EXAMPLES]))
        return sorted(groups, key=lambda one: (one.kind in REMARKS, -one.count, one.kind.value))

    def raise_if_any(self, allow: Collection[FindingKind] = REMARKS, hint: str = "") -> None:
        """Raise a `DataError` about the first finding that is not allowed, and count the others."""
        first = next((finding for finding in self.findings if finding.kind not in allow), None)
        if first is None:
            return
        same = self.counts[first.kind] - 1
        others = sum(count for kind, count in self.counts.items() if kind not in allow) - same - 1
        counted = [(same, "more of this kind"), (others, "of other kinds")]
        more = " and ".join(f"{count} {text}" for count, text in counted if count)
        raise DataError(f"{first}{more and f' (… and {more})'}{hint}")


def check(conversations: Sequence[Conversation], where: str | Sequence[FileLine]) -> Findings:
    """Check each row by the rules, and find exact duplicates.

    where: the name of the file, or the place of each row.
    """
    return _run(conversations, where, conversation_faults, only_exact=True)


def quick_checks(
    conversations: Sequence[Conversation], where: str | Sequence[FileLine]
) -> Findings:
    """Run the checks that need no model and no second file; `where` as in `check`."""
    return _run(conversations, where, row_faults, only_exact=False)


def _run(
    conversations: Sequence[Conversation],
    where: str | Sequence[FileLine],
    faults_of: Callable[[Conversation], Iterator[Fault]],
    only_exact: bool,
) -> Findings:
    places = [f"{where}, row {row}" for row, _ in enumerate(conversations, start=1)]
    places = places if isinstance(where, str) else list(map(str, where))
    cross = cross_faults(conversations, places, only_exact)
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
    yield from row_remarks(row)
    tools = {tool.name: tool for tool in row.tools}
    for index, message in enumerate(row.messages):
        text, field = message.content or "", f"messages[{index}].content"
        if message.role == "assistant" and _CALL_SIGN.search(text):
            yield from mark_faults(field, text, tools)
        elif message.role == "user" and text.lstrip()[:1] in ("<", "[") and typed_results(text):
            what = f"the user's message is a tool result between marks: {text.strip()[:60]!r}"
            yield Fault(FindingKind.TYPED_RESULT, field, what, "wanted a tool message")
    if control is not None:
        yield from _control_faults(row, control)


def _control_faults(conversation: Conversation, pattern: re.Pattern[str]) -> Iterator[Fault]:
    """Yield a remark for each message with a control text in its content or arguments.

    Marks of calls in the assistant's content have findings of their own.
    """
    right = "wanted text that no tokenizer takes for a control token"
    for index, message in enumerate(conversation.messages):
        texts = [("content", split_reasoning(message).content or "")]
        for number, call in enumerate(message.tool_calls):
            texts += [(f"tool_calls[{number}].arguments", one) for one in texts_in(call.arguments)]
        for field, text in texts:
            skip_marks = message.role == "assistant" and field == "content"
            matches = pattern.finditer(text)
            hits = (hit for hit in matches if not (skip_marks and MARK.match(hit[0])))
            if found := next(hits, None):
                around = text[max(found.start() - 30, 0) : found.end() + 20]
                what = f"the {message.role}'s text holds {found[0]!r}: {around!r}"
                yield Fault(FindingKind.CONTROL_TEXT, f"messages[{index}].{field}", what, right)
                break


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
        exact, loose = _digest(tools.encode("utf-8", "surrogatepass")), _digest()
        decisions = []
        for index, message in enumerate(conversation.messages):
            calls = [json.dumps([c.name, c.arguments], sort_keys=True) for c in message.tool_calls]
            if message.role == "assistant" and message.weight:
                answer = _digest("\n".join(sorted(calls)).encode()).digest()
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
    conversations: Sequence[Conversation], places: Sequence[str], only_exact: bool = False
) -> dict[int, list[Fault]]:
    """Return the faults of rows beside other rows of the same file, by row.

    only_exact: exact duplicates alone.
    """
    marks, found = fingerprints(conversations), defaultdict[int, list[Fault]](list)
    for row, first in _repeats(mark.exact for mark in marks):
        what, right = f"says the same as {places[first]}", "wanted each row once"
        found[row].append(Fault(FindingKind.DUPLICATE_ROW, "messages", what, right))
    if only_exact:
        return found
    for row, first in _repeats(mark.loose for mark in marks):
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


def _repeats(hashes: Iterable[bytes]) -> list[tuple[int, int]]:
    """Return each row whose hash occurs before, with the first row that has it."""
    seen: dict[bytes, int] = {}
    firsts = ((row, seen.setdefault(digest, row)) for row, digest in enumerate(hashes))
    return [(row, first) for row, first in firsts if row != first]


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
        votes, firsts = Counter(decision.calls for _, decision in group), dict[bytes, Any]()
        winner, most = votes.most_common(1)[0]
        if most == len(group):
            continue
        for row, decision in group:
            firsts.setdefault(decision.calls, (row, decision))
        for row, decision in group:
            wins = decision.calls == winner and 2 * most > len(group)
            if not wins and (row not in found or decision.message < found[row].message):
                others = (first for calls, first in firsts.items() if calls != decision.calls)
                other, its = next(others)
                found[row] = Conflict(decision.message, other, decision.shown, its.shown)
    return found


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
        calls, answers = self.decisions_to_call, self.decisions_to_answer
        judged, of_all = self.rows >= _FEWEST, f"of {calls + answers} answers to a user"
        few = _LOPSIDED * (calls + answers)
        if self.rows and not self.calls_anywhere:
            what = f"none of {self.rows} rows calls a tool"
            yield Fault(FindingKind.NO_CALLS, "", what, "wanted rows that do")
        elif judged and answers < few:
            what = f"{answers} {of_all} do without a call"
            yield Fault(FindingKind.ONLY_CALLS, "", what, "wanted some questions that need no tool")
        elif judged and calls < few:
            what = f"{calls} {of_all} call a tool"
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
