"""What every source gives back (`Loaded`), what may be asked of it (`Options`), and the counting in between (`ReadStats`).

A source is a module with five names:

    NAME                      what the format is called in `open_source(path, format=NAME)`
    ABOUT                     what there is to know of the published data (`About`)
    USES                      the `Options` that mean something to it
    sniff(records) -> bool    whether these first records of a file are of this format
    read(path, options) -> Loaded

Every row that a source reads is either kept or skipped for a reason, and both are counted: kept + skipped = read. A kept row gives
a conversation, tasks or both; one that gives only tasks (it says what is right, but no assistant says anything) is counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypedDict

from toolhone.schema import Conversation, Task, Tool
from toolhone.schema.preference import Preference
from toolhone.sources.files import FileLine, Record


@dataclass(frozen=True)
class About:
    """A published data set, as `toolhone data sources` lists it.

    title and link: its usual name and where it is published. licence: of the data. rows: how many there are, as published. teaches:
    what a model learns from it, or what it measures. only_tasks: made for evaluation, never to be trained on.
    """

    title: str
    link: str
    licence: str
    rows: str
    teaches: str
    only_tasks: bool = False


@dataclass(frozen=True)
class Refused:
    """A row that could not be used: where it stands, the reason that is counted, and what was seen."""

    line: FileLine
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Options:
    """What may be asked of a source; None means the source's own default. Asking for what a source does not use is refused.

    style: how GSM8K is told, `calls` or `short`. first_call: whether a GSM8K task also expects the first step as a call.
    distractors: how many wrong tools are on offer besides (Seal-Tools, MetaTool, NESTFUL). catalogue: the file that describes the
    tools, where it does not lie beside the rows. seed: of every choice made.
    skip_bad: count a row that is no conversation instead of stopping there. tools: what test cases have on offer. raw_prompt: keep
    the prompt and the answer of prompt rows as they are.
    """

    style: str | None = None
    first_call: bool | None = None
    distractors: int | None = None
    catalogue: Path | None = None
    seed: int | None = None
    skip_bad: bool | None = None
    tools: Sequence[Tool] | None = None
    raw_prompt: bool | None = None


class SourceRequest(TypedDict, total=False):
    """`Options` as keywords of `open_source`."""

    style: str | None
    first_call: bool | None
    distractors: int | None
    catalogue: str | Path | None
    seed: int | None
    skip_bad: bool | None
    tools: Sequence[Tool] | None
    raw_prompt: bool | None


@dataclass(frozen=True)
class Loaded:
    """What a source made of a file.

    conversations and `places`: the kept rows and where each stands. tasks: what the format gives for evaluation and episodes.
    only_tasks: kept rows that gave tasks and no conversation. skipped: rows by reason; `examples` has one sentence for each reason.
    repaired: kept rows that were mended, by kind of repair. noted: kept rows of which something could not be checked.
    refused: the skipped rows, one by one, in the order of the file. preferences: kept rows that are pairs (only `pairs`
    gives any). read: rows in the file; len(conversations) + only_tasks + len(preferences) + skipped.total() equals it.
    """

    conversations: Sequence[Conversation]
    places: Sequence[FileLine]
    tasks: Sequence[Task]
    skipped: Counter[str]
    read: int
    repaired: Counter[str] = field(default_factory=Counter)
    examples: Mapping[str, str] = field(default_factory=dict)
    only_tasks: int = 0
    noted: Counter[str] = field(default_factory=Counter)
    refused: Sequence[Refused] = ()
    preferences: Sequence[Preference] = ()

    def __post_init__(self) -> None:
        assert len(self.conversations) == len(self.places)
        assert self.kept + self.skipped.total() == self.read, "a row was neither kept nor counted"

    @property
    def kept(self) -> int:
        return len(self.conversations) + self.only_tasks + len(self.preferences)

    def summary(self) -> str:
        """`kept 97 of 100 rows; skipped 3: 2 a mark whose result is wrong, 1 no number after ####; mended 4: ...`."""
        parts = [f"kept {self.kept} of {self.read} rows"]
        if self.only_tasks:
            parts[0] += f", {self.only_tasks} of them only as tasks"
        for word, counts in (
            ("skipped", self.skipped),
            ("mended", self.repaired),
            ("kept unchecked", self.noted),
        ):
            if counts:
                reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
                parts.append(f"{word} {counts.total()}: {reasons}")
        return "; ".join(parts)


class Source(Protocol):
    """A published format; the modules of this folder are such objects."""

    @property
    def NAME(self) -> str: ...  # noqa: N802
    @property
    def ABOUT(self) -> About: ...  # noqa: N802
    @property
    def USES(self) -> frozenset[str]: ...  # noqa: N802

    def sniff(self, records: Sequence[Record]) -> bool: ...

    def read(self, path: Path, options: Options) -> Loaded: ...


class Skip(Exception):  # noqa: N818  (a decision about one row, never shown as an error)
    """Raised inside a source for a row that it cannot use; `reason` is counted, `detail` completes the example."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def identity_of(line: FileLine, record: Record) -> str:
    """The row's own id, or the file's name and the row's number."""
    identity = record.get("id")
    return (
        f"{line.path.name.partition('.')[0]}-{line.number}"
        if identity in (None, "")
        else str(identity)
    )


class ReadStats:
    """Collects what a source keeps and counts what it does not."""

    def __init__(self) -> None:
        self._conversations: list[Conversation] = []
        self._places: list[FileLine] = []
        self._tasks: list[Task] = []
        self._skipped: Counter[str] = Counter()
        self._repaired: Counter[str] = Counter()
        self._noted: Counter[str] = Counter()
        self._only_tasks = 0
        self._examples: dict[str, str] = {}
        self._refused: list[Refused] = []

    def keep(
        self,
        line: FileLine,
        conversation: Conversation,
        tasks: Iterable[Task],
        repairs: Iterable[str] = (),
    ) -> None:
        self._conversations.append(conversation)
        self._places.append(line)
        self._tasks.extend(tasks)
        self._repaired.update(set(repairs))

    def keep_tasks(self, tasks: Iterable[Task], repairs: Iterable[str] = ()) -> None:
        """Keep a row that has nothing to learn from, for its tasks."""
        self._only_tasks += 1
        self._tasks.extend(tasks)
        self._repaired.update(set(repairs))

    def note(self, what: str) -> None:
        """Count a kept row of which something could not be checked."""
        self._noted[what] += 1

    def skip(self, line: FileLine, skip: Skip) -> None:
        self._skipped[skip.reason] += 1
        self._refused.append(Refused(line, skip.reason, skip.detail))
        self._examples.setdefault(
            skip.reason, f"{line}: {skip.reason}" + (f": {skip.detail}" if skip.detail else "")
        )

    def loaded(self) -> Loaded:
        return Loaded(
            conversations=self._conversations,
            places=self._places,
            tasks=self._tasks,
            skipped=self._skipped,
            read=len(self._conversations) + self._only_tasks + self._skipped.total(),
            repaired=self._repaired,
            examples=self._examples,
            only_tasks=self._only_tasks,
            noted=self._noted,
            refused=self._refused,
        )
