"""Every published file below a folder, imported: what of it is read, as a table in Markdown.

    python benchmarks/import_table.py DATASETS

A row for each file with a name of data (JSON, JSON Lines, CSV, Parquet, compressed or not); files
that their format reads as one folder (ToolBench, API-Bank) are one row for each folder. Below the
table: the files that are no rows of a known format, such as answers and catalogues, which the
others need beside them. Then, for each data set, what was refused, and why. What is written goes to
a temporary folder.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from toolhone.data.importing import import_file
from toolhone.errors import DataError
from toolhone.sources.files import data_files
from toolhone.sources.formats import FOLDERS, detect_format
from toolhone.sources.loaded import Loaded

HEADINGS = ("file", "format", "read", "kept", "only tasks", "repaired", "not read", "refused")


@dataclass
class Table:
    """The rows so far, the sums and the refused by data set (the folder on top), and the files that
    hold no rows."""

    rows: list[tuple[str, ...]] = field(default_factory=list)
    read: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    refused: dict[str, Counter[str]] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)

    def add(self, name: str, form: str, loaded: Loaded) -> None:
        counts = (loaded.read, loaded.kept, loaded.only_tasks)
        why = map(reasons, (loaded.repaired, loaded.unread, loaded.skipped))
        self.rows.append((name, form, *map(str, counts), *why))
        self.read[name.partition("/")[0]] += loaded.read
        self.kept[name.partition("/")[0]] += loaded.kept
        self.refused.setdefault(name.partition("/")[0], Counter()).update(loaded.skipped)


def main() -> None:
    root = Path(sys.argv[1])
    table = Table()
    with TemporaryDirectory() as out:
        for path in places(root):
            name = path.relative_to(root).as_posix()
            try:
                imported = import_file(path, Path(out) / "out.jsonl", overwrite=True)
            except DataError:
                table.others.append(path.relative_to(root))
            else:
                table.add(name, imported.format, imported.loaded)
    show(table)


def places(root: Path) -> Iterator[Path]:
    """What is imported by itself: files, and folders of the formats that read one."""
    folders: set[Path] = set()
    for file in data_files(root):
        try:
            whole = detect_format(file) in FOLDERS
        except DataError:
            whole = False
        if not whole:
            yield file
        elif file.parent not in folders:
            folders.add(file.parent)
            yield file.parent


def reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{count} {reason}"
        for reason, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    )


def show(table: Table) -> None:
    for row in (HEADINGS, ("---",) * len(HEADINGS), *table.rows):
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    read, kept = table.read.total(), table.kept.total()
    print(
        f"\n{len(table.rows)} files or folders, {read} rows read, "
        f"{kept} kept, {read - kept} refused."
    )
    print("\n| data set | read | kept | refused |\n| --- | --- | --- | --- |")
    for name, refused in table.refused.items():
        print(f"| {name} | {table.read[name]} | {table.kept[name]} | {reasons(refused)} |")
    print(f"\nNo rows of a known format ({len(table.others)} files):\n")
    for folder in dict.fromkeys(other.parent for other in table.others):
        names = [other.name for other in table.others if other.parent == folder]
        shown = ", ".join(names) if len(names) < 5 else f"{len(names)} files"
        print(f"- {folder.as_posix()}: {shown}")


if __name__ == "__main__":
    main()
