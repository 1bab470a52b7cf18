"""What every source gives back (`Loaded`), what may be asked of it (`Options`), and the counting in between (`Tally`).

A source is a module with four names:

    NAME                      what the format is called in `open_source(path, format=NAME)`
    USES                      the `Options` that mean something to it
    sniff(records) -> bool    whether these first records of a file are of this format
    read(path, options) -> Loaded

Every row that a source reads is either kept or skipped for a reason, and both are counted: kept + skipped = read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from toolhone.data.files import Line, Record
from toolhone.schema import Conversation, Task


@dataclass(frozen=True)
class Options:
    """What may be asked of a source; None means the source's own default. Asking for what a source does not use is refused.

    style: how GSM8K is told, `calls` or `short`. first_call: whether a GSM8K task also expects the first step as a call.
    distractors: how many wrong tools Seal-Tools adds. catalogue: Seal-Tools' `tool.jsonl`. seed: of every choice made.
    skip_bad: count a row that is no conversation instead of stopping there.
    """

    style: str | None = None
    first_call: bool | None = None
    distractors: int | None = None
    catalogue: Path | None = None
    seed: int | None = None
    skip_bad: bool | None = None


@dataclass(frozen=True)
class Loaded:
    """What a source made of a file.

    conversations and `places`: the kept rows and where each stands. tasks: what the format gives for evaluation and episodes.
    skipped: rows by reason; `examples` has one sentence for each reason. repaired: kept rows that were mended, by kind of repair.
    read: rows in the file; len(conversations) + skipped.total() equals it.
    """

    conversations: Sequence[Conversation]
    places: Sequence[Line]
    tasks: Sequence[Task]
    skipped: Counter[str]
    read: int
    repaired: Counter[str] = field(default_factory=Counter)
    examples: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert len(self.conversations) == len(self.places)
        assert len(self.conversations) + self.skipped.total() == self.read, "a row was neither kept nor counted"

    def summary(self) -> str:
        """`kept 97 of 100 rows; skipped 3: 2 no calculator mark, 1 no final answer; mended 4: ...`."""
        parts = [f"kept {len(self.conversations)} of {self.read} rows"]
        for word, counts in (("skipped", self.skipped), ("mended", self.repaired)):
            if counts:
                reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
                parts.append(f"{word} {counts.total()}: {reasons}")
        return "; ".join(parts)


class Source(Protocol):
    """A published format; the modules of this folder are such objects."""

    NAME: str
    USES: frozenset[str]

    def sniff(self, records: Sequence[Record]) -> bool: ...

    def read(self, path: Path, options: Options) -> Loaded: ...


class Skip(Exception):  # noqa: N818  (a decision about one row, never shown as an error)
    """Raised inside a source for a row that it cannot use; `reason` is counted, `detail` completes the example."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class Tally:
    """Collects what a source keeps and counts what it does not."""

    def __init__(self) -> None:
        self._conversations: list[Conversation] = []
        self._places: list[Line] = []
        self._tasks: list[Task] = []
        self._skipped: Counter[str] = Counter()
        self._repaired: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def keep(self, line: Line, conversation: Conversation, tasks: Iterable[Task], repairs: Iterable[str] = ()) -> None:
        self._conversations.append(conversation)
        self._places.append(line)
        self._tasks.extend(tasks)
        self._repaired.update(set(repairs))

    def skip(self, line: Line, skip: Skip) -> None:
        self._skipped[skip.reason] += 1
        self._examples.setdefault(skip.reason, f"{line}: {skip.reason}" + (f": {skip.detail}" if skip.detail else ""))

    def loaded(self) -> Loaded:
        read = len(self._conversations) + self._skipped.total()
        return Loaded(self._conversations, self._places, self._tasks, self._skipped, read, self._repaired, self._examples)
