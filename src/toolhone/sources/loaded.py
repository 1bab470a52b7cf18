"""What a source read: rows kept in memory, or counted and handed on; and what a user is told of it.

loaded.keep(line, Converted(conversation, tasks), context)
loaded.skip(line, Skip("a row without an answer"), record)
print(loaded.summary(), *remarks_on(report))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolhone.schema import Conversation, Json, Task
from toolhone.schema.preference import Preference
from toolhone.sources.files import FileLine
from toolhone.sources.log_trails import BRANCH, Trails
from toolhone.sources.source import SHOWN, Context, Converted, Skip, tasks_of


@dataclass(frozen=True)
class Refused:
    """A skipped row: place, reason, detail, and the row (of a bad line its text)."""

    line: FileLine
    reason: str
    detail: str = ""
    row: Json = None


@dataclass
class RowCounts:
    """How many rows a source read, and what became of them; `keep` and `skip` add a row.

    only_tasks: kept rows that gave tasks alone. skipped: rows by reason, with one sentence for each
    reason in `examples`. repaired: kept rows by kind of repair. noted: kept rows of which something
    could not be checked. unread: kept rows by key that holds something and is passed over. merged:
    kept rows that a longer one holds. read: all rows.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    read: int = 0
    repaired: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    only_tasks: int = 0
    noted: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    merged: int = 0

    @property
    def made(self) -> int:
        """Conversations and pairs."""
        raise NotImplementedError

    @property
    def kept(self) -> int:
        return self.made + self.only_tasks + self.merged

    def keep(self, line: FileLine, row: Converted, context: Context | None = None) -> None:
        raise NotImplementedError

    def skip(self, line: FileLine, skip: Skip, row: Json = None) -> None:
        raise NotImplementedError

    def count_kept(self, row: Converted, context: Context | None) -> None:
        self.read += 1
        self.only_tasks += row.conversation is None and row.preference is None
        if context is not None:
            self.repaired.update(context.repairs)
            self.noted.update(context.notes)
            self.unread.update(context.unread)

    def count_skipped(self, line: FileLine, skip: Skip) -> None:
        self.read += 1
        self.skipped[skip.reason] += 1
        detail = f": {skip.detail}" if skip.detail else ""
        self.examples.setdefault(skip.reason, f"{line}: {skip.reason}{detail}")

    def join(self) -> None:
        """Make rows whose history another row holds one conversation with it."""
        raise NotImplementedError

    def summary(self, examples: bool = False) -> str:
        """Return `kept 97 of 100 rows; skipped 3: 2 no number, 1 ...; repaired 4: ...`.

        examples: the first row of each of the first reasons as well.
        """
        parts = [f"kept {self.kept} of {self.read} {'row' if self.read == 1 else 'rows'}"]
        if self.only_tasks:
            parts[0] += f", {self.only_tasks} of them only as tasks"
        if self.merged:
            parts[0] += f", {self.merged} of them within longer ones"
        words = {
            "skipped": self.skipped,
            "repaired": self.repaired,
            "kept unchecked": self.noted,
            "keys not read": self.unread,
        }
        for word, counts in words.items():
            if counts:
                reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
                parts.append(f"{word} {counts.total()}: {reasons}")
        if examples and self.examples:
            parts.append("for example: " + "; ".join([*self.examples.values()][:SHOWN]))
        return "; ".join(parts)


@dataclass
class Loaded(RowCounts):
    """What a source read from a file, in memory. places: of each conversation or pair. alone: the
    tasks of rows that gave tasks alone, which are among `tasks` as well."""

    conversations: list[Conversation] = field(default_factory=list)
    places: list[FileLine] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    alone: list[Task] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    preferences: list[Preference] = field(default_factory=list)

    @property
    def made(self) -> int:
        return len(self.conversations) + len(self.preferences)

    def keep(self, line: FileLine, row: Converted, context: Context | None = None) -> None:
        self.count_kept(row, context)
        self.conversations += [] if row.conversation is None else [row.conversation]
        self.preferences += [] if row.preference is None else [row.preference]
        if row.conversation is not None or row.preference is not None:
            self.places.append(line)
        else:
            self.alone += row.tasks
        self.tasks += row.tasks

    def skip(self, line: FileLine, skip: Skip, row: Json = None) -> None:
        self.count_skipped(line, skip)
        self.refused.append(Refused(line, skip.reason, skip.detail, row))

    def join(self) -> None:
        trails, rows = Trails(), self.conversations
        for row in rows:
            trails.add(row.messages)
        if not (touched := trails.touched()):
            return
        changed = dict(trails.join(lambda: ((n, rows[n]) for n in touched)))
        kept = [(n, one) for n, row in enumerate(rows) if (one := changed.get(n, row)) is not None]
        self.merged += len(rows) - len(kept)
        self.repaired += Counter({BRANCH: trails.branches} if trails.branches else {})
        self.places = [self.places[n] for n, _ in kept]
        self.conversations = [row for _, row in kept]
        self.tasks = [task for row in self.conversations for task in tasks_of(row)] + self.alone


_COUNTED = {
    "skipped": "skipped",
    "repaired": "repaired",
    "unread": "keys not read",
    "not_answered": "without results",
}


def remarks_on(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield a phrase for each part of a data set's report that a user should see."""
    for key, word in _COUNTED.items():
        if lost := report.get(key):
            reasons = ", ".join(f"{count} {reason}" for reason, count in lost.items())
            yield f"{word} {sum(lost.values())}: {reasons}"
    yield from (f"for example: {one}" for one in [*report.get("examples", {}).values()][:1])
    yield from report.get("notes", [])
    if report.get("balance", {}).get("calls_anywhere", 1) == 0:
        yield "no row calls a tool, so that no call is learned"
    if leaked := report.get("leaked"):
        yield f"{leaked} rows to train on start with a held-out prompt, which inflates scores"
    if remarks := report.get("findings"):
        yield "remarks: " + ", ".join(f"{count} x {kind}" for kind, count in remarks.items())
    if "task_file" in report:
        yield report["task_file"]
