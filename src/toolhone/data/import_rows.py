"""The rows of an import, on disk as JSON lines: memory does not grow with the file that is read.

rows = ImportRows(Path(temporary_folder), joins=True)
read_source(stream, "request_log", rows)
rows["tasks"].lines()                            # number of the row it comes from, and its JSON
"""

from __future__ import annotations

import heapq
import json
import os
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from toolhone.data.freezing import corrections
from toolhone.schema import ENCODE, Conversation, Json, ListTexts
from toolhone.sources.files import FileLine
from toolhone.sources.formats import with_texts
from toolhone.sources.loaded import RowCounts
from toolhone.sources.log_trails import BRANCH, Trails
from toolhone.sources.messages import fill_tools
from toolhone.sources.source import Context, Converted, Skip, tasks_of

KINDS = ("conversations", "preferences", "tasks", "repaired", "pairs", "refused")
Line = tuple[int, bytes]


class RowFile:
    """Lines in a file, each with the number of the row that it comes from."""

    def __init__(self, path: Path) -> None:
        self._path, self._numbers = path, array("q")
        self._file = path.open("wb")

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int, line: bytes) -> None:
        self._numbers.append(number)
        self._file.write(line)

    def lines(self) -> Iterator[Line]:
        self._file.flush()
        with open(self._path, "rb") as file:
            yield from zip(self._numbers, file, strict=True)

    def change(self, left_out: Collection[int], more: Iterable[Line] = ()) -> None:
        """Leave out the lines of some rows, and put in others, in the order of the rows."""
        new = RowFile(self._path.with_suffix(".new"))
        kept = (line for line in self.lines() if line[0] not in left_out)
        for number, line in heapq.merge(kept, more, key=lambda one: one[0]):
            new.add(number, line)
        self.close()
        os.replace(new._path, self._path)
        self._file, self._numbers = new._file, new._numbers

    def close(self) -> None:
        self._file.close()


class ImportRows(RowCounts):
    """Counts of rows in memory; the rows themselves in files, by kind (`KINDS`).

    joins: whether rows with one history are one conversation. `repaired` are tasks, and `pairs`
    pairs, of calls that failed and were made again.
    """

    def __init__(self, folder: Path, joins: bool) -> None:
        super().__init__()
        self._files = {kind: RowFile(folder / kind) for kind in KINDS}
        self._trails = Trails() if joins else None
        self._folder, self._number = folder, 0

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def __getitem__(self, kind: str) -> RowFile:
        return self._files[kind]

    @property
    def made(self) -> int:
        return len(self["conversations"]) + len(self["preferences"])

    def keep(self, line: FileLine, row: Converted, context: Context | None = None) -> None:
        self.count_kept(row, context)
        if row.conversation is not None and self._trails is not None:
            self._trails.add(row.conversation.messages)
        for kind, text in _lines_of(row):
            self[kind].add(self._number, text)
        self._number += 1

    def skip(self, line: FileLine, skip: Skip, row: Json = None) -> None:
        self.count_skipped(line, skip)
        told = {"place": str(line), "reason": skip.reason, "detail": skip.detail, "row": row}
        self["refused"].add(self.read, _line(ENCODE(told)))

    def conversations(
        self, numbers: Collection[int] | None = None
    ) -> Iterator[tuple[int, Conversation]]:
        """Yield conversations with their numbers: all, or those of some numbers."""
        context = Context("", Path(), {}, FileLine(Path(), 0))
        for number, line in self["conversations"].lines():
            if numbers is None or number in numbers:
                plain = fill_tools(json.loads(line), context)
                yield number, Conversation.from_dict(plain, set())

    def join(self) -> None:
        trails = self._trails or Trails()
        if not (touched := set(trails.touched())):
            return
        with TemporaryDirectory(dir=self._folder) as folder:
            made, texts = ImportRows(Path(folder), joins=False), ListTexts()
            for number, row in trails.join(lambda: self.conversations(touched)):
                if row is None:
                    self.merged += 1
                    continue
                for kind, text in _lines_of(with_texts(Converted(row, tasks_of(row)), texts)):
                    made[kind].add(number, text)
            for kind in KINDS:
                if kind != "refused":
                    self[kind].change(touched, made[kind].lines())
            made.close()
        self.repaired += Counter({BRANCH: trails.branches} if trails.branches else {})

    def leave_out(self, numbers: Collection[int]) -> None:
        """Leave out all that comes from some rows."""
        for kind in KINDS:
            if kind != "refused":
                self[kind].change(numbers)


def _line(text: str) -> bytes:
    return text.encode() + b"\n"


def _lines_of(row: Converted) -> Iterator[tuple[str, bytes]]:
    """Yield the lines that a row gives, by kind."""
    texts = map(_line, row.texts)
    if row.conversation is not None:
        yield "conversations", next(texts)
        for task, pair in corrections(row.conversation):
            yield "repaired", _line(ENCODE(task.to_dict()))
            yield "pairs", _line(ENCODE(pair.to_dict()))
    elif row.preference is not None:
        yield "preferences", next(texts)
    for text in texts:
        yield "tasks", text
