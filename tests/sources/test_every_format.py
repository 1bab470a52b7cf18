"""Every format: a valid row is read, and a row that was changed anywhere is read, with each key
that says something kept or counted by name, or is one counted row with its line.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.format_rows import ROWS, write_beside
from toolhone.sources import formats
from toolhone.sources.files import FileLine
from toolhone.sources.formats import PAIRS, SOURCES, open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.source import Context, Converted, Skip

KEY = "zzqx"
JUNK: list[Any] = [None, 7, 10**30, -0.5, "x", "", [], {}, [1], {"x": 1}, True, [[]], [{}]]
NAMES = [name for name in (*SOURCES, PAIRS) if name in ROWS]
"""All but the logs of which a file is one conversation (`test_logs`)."""


class Outcomes(Loaded):
    """What became of each row, by its line."""

    def __init__(self) -> None:
        super().__init__()
        self.by_line: dict[int, tuple[Converted | Skip, Context | None]] = {}

    def keep(self, line: FileLine, row: Converted, context: Context | None = None) -> None:
        super().keep(line, row, context)
        self.by_line[line.number] = row, context

    def skip(self, line: FileLine, skip: Skip, row: Any = None) -> None:
        super().skip(line, skip, row)
        self.by_line[line.number] = skip, None


def read(
    folder: Path, name: str, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Converted | Skip, Context | None]]:
    """What became of each line; API-Bank has one file for each row."""
    write_beside(folder)
    made: list[Outcomes] = []
    monkeypatch.setattr(formats, "Loaded", lambda: made.append(Outcomes()) or made[-1])
    if name != "api_bank":
        path = folder / "rows.json"
        path.write_text("\n".join(lines))
        assert open_source(path, name).read == len(lines)
        assert sorted(made[0].by_line) == list(range(1, len(lines) + 1))
        return [outcome for _, outcome in sorted(made[0].by_line.items())]
    for number, line in enumerate(lines):
        (folder / "talks").mkdir(exist_ok=True)
        (folder / "talks" / f"{number:04}.jsonl").write_text(line)
    (folder / "talks" / "all_apis.csv").write_bytes((folder / "all_apis.csv").read_bytes())
    outcomes = []

    def each(line: FileLine, _row: Any) -> None:
        outcomes.append(made[0].by_line[line.number])

    assert open_source(folder / "talks", name, on_row=each).read == len(lines)
    return outcomes


def changes(value: Any) -> Iterator[Any]:
    """The value with an object that has one more key."""
    if isinstance(value, dict):
        yield {**value, KEY: "says something"}
    yield from inside(value, changes)


def damages(value: Any) -> Iterator[Any]:
    """The value with a part of it replaced or taken away."""
    yield from JUNK
    for key in keys_of(value):
        less = copy.copy(value)
        del less[key]
        yield less
    yield from inside(value, damages)


def keys_of(value: Any) -> list[Any]:
    return list(
        range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
    )


def inside(value: Any, change: Any) -> Iterator[Any]:
    for key in keys_of(value):
        for inner in change(value[key]):
            made = copy.copy(value)
            made[key] = inner
            yield made


def lines_of(name: str, change: Any = None) -> list[str]:
    """The lines of the rows of a format, each unchanged or changed in every way."""
    if name == "api_bank":
        rows: list[Any] = [ROWS[name]]
    else:
        rows = list(ROWS[name])
    made = rows if change is None else [new for row in rows for new in change(row)]
    right = list if name == "api_bank" else dict
    made = [row for row in made if isinstance(row, right) and row]
    if name != "api_bank":
        return [json.dumps(row) for row in made]
    made = [row for row in made if all(isinstance(turn, dict) for turn in row)]
    return ["\n".join(map(json.dumps, row)) for row in made]


def said(row: Converted) -> str:
    whole = row.conversation or row.preference
    return json.dumps([each.to_dict() for each in (*([whole] if whole else []), *row.tasks)])


def calls_of(row: Converted) -> list[str]:
    """All calls that a row says or expects, as JSON."""
    found = []
    whole = [row.conversation] if row.conversation else []
    if row.preference is not None:
        whole = [row.preference.conversation()]
    for talk in whole:
        found += [call.to_dict() for turn in talk.messages for call in turn.tool_calls]
    for task in row.tasks:
        found += [call.to_dict() for call in task.expect.wanted]
    return [json.dumps(call, sort_keys=True) for call in found]


def test_there_is_a_row_of_every_format() -> None:
    assert ROWS.keys() == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_no_reader_knows_is_kept_counted_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = lines_of(name)
    lines = [*whole, *lines_of(name, changes)]
    outcomes = read(tmp_path, name, lines, monkeypatch)
    right = []
    for row, context in outcomes[: len(whole)]:
        assert isinstance(row, Converted), (row.reason, row.detail)
        assert context is not None
        assert not context.unread
        right.append(calls_of(row))
    for line, (row, context) in list(zip(lines, outcomes, strict=True))[len(whole) :]:
        if isinstance(row, Skip):
            assert row.reason != formats.BROKEN_ROW, (line, row.detail)
            continue
        counted = any(repr(KEY) in text for text in context.unread)
        assert counted or KEY in said(row), line
        assert KEY in said(row) or calls_of(row) in right, line


@pytest.mark.parametrize("name", NAMES)
def test_a_row_damaged_anywhere_is_kept_or_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = lines_of(name)
    bad = [line.replace('"', '"\\ud83d', 1) for line in whole]
    bad += [f'{{"zzqx": NaN, {line[1:]}' for line in whole]
    bad += [f'{{"zzqx": 1e999, {line[1:]}' for line in whole]
    lines = [*whole, *lines_of(name, damages), *bad, *whole]
    outcomes = read(tmp_path, name, lines, monkeypatch)
    kept = [row for row, _ in outcomes if isinstance(row, Converted)]
    assert all(isinstance(row, Converted) for row, _ in outcomes[-len(whole) :])
    assert all(isinstance(row, Skip) for row, _ in outcomes[-4 * len(whole) : -len(whole)])
    assert all(json.loads(said(row)) is not None for row in kept)


@pytest.mark.parametrize("name", NAMES)
def test_a_format_is_detected_or_not_however_its_rows_are_damaged(name: str) -> None:
    for line in lines_of(name, damages):
        for row in map(json.loads, line.split("\n")):
            found = formats.detect(row)
            assert found is None or found in SOURCES
