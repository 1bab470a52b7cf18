"""Folders of data files: which files count, and several files read as one.

    for file in data_files(folder): ...         # every JSON, JSON Lines, CSV and Parquet file in it, in the order of their names
    loaded = joined([read(file) for file in files])

Which format the files are of, and which of them belong together, is decided in `toolhone.sources`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from toolhone.sources.base import Loaded

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")


def data_files(folder: Path) -> list[Path]:
    """The files below a folder whose names say that they hold rows, gzip-compressed or not; hidden ones are passed over."""
    return sorted(
        file for file in folder.rglob("*") if _is_data(file.relative_to(folder)) and file.is_file()
    )


def _is_data(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(SUFFIXES) and not any(
        part.startswith(".") for part in path.parts
    )


def joined(parts: Sequence[Loaded]) -> Loaded:
    """Several files as one: rows one after another, counts summed."""
    examples = {reason: text for part in reversed(parts) for reason, text in part.examples.items()}
    return Loaded(
        conversations=[talk for part in parts for talk in part.conversations],
        places=[place for part in parts for place in part.places],
        tasks=[task for part in parts for task in part.tasks],
        skipped=_summed([part.skipped for part in parts]),
        read=sum(part.read for part in parts),
        repaired=_summed([part.repaired for part in parts]),
        examples=examples,
        only_tasks=sum(part.only_tasks for part in parts),
        noted=_summed([part.noted for part in parts]),
        refused=[row for part in parts for row in part.refused],
        preferences=[pair for part in parts for pair in part.preferences],
    )


def _summed(counts: Sequence[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return total
