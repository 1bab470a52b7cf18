"""Score answers made elsewhere, from a CSV file with the text and expected calls of each query.

    table = read_results_csv("test1_finetuned.csv")      # calls between <tool_call> tags
    table = read_results_csv("samples.csv", "json")      # calls as this dialect writes them
    table.count("match"), table.count("recovered"), len(table.rows), table.skipped

Columns: query, predicted_text, expected_calls (JSON), and optionally extracted_calls and match.
docs/metrics.md defines the counts. Nothing in a file is evaluated or run.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolhone.dialects.choose import open_syntax
from toolhone.dialects.interface import ParseProblem, Syntax
from toolhone.dialects.syntax.model_text import ToolCallTags
from toolhone.errors import DataError, nearest
from toolhone.evaluation.error_kinds import read_json_calls, read_leniently
from toolhone.evaluation.legacy_metrics import NOT_JSON, calls_between_tags, read_json, same_json
from toolhone.rewards.matching import match_calls
from toolhone.runs.run import write_text, writing
from toolhone.schema import Expect, ExpectedCall, Json, ToolCall
from toolhone.schema.python_text import python_literal

NEEDED = ("query", "predicted_text", "expected_calls")
SUMMARY = "summary_results.csv"
SUMMARY_COLUMNS = ("filename", "total_rows", "total_matches", "percent_correct")
COUNTED = (
    *("match", "recovered", "content_right", "tags_right", "both_right", "stray_tag"),
    *("nothing_extracted", "disagrees", "says_nothing", "extraction_disagrees"),
)
"""What `CallTable.count` can count."""
_TRUE, _FALSE = ("true", "1", "1.0", "yes", "y", "t"), ("false", "0", "0.0", "no", "n", "f")
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True)
class CallRow:
    """One row; `scores` says for each name of `COUNTED` whether it is true."""

    number: int
    query: str
    text: str
    scores: Mapping[str, bool]


@dataclass(frozen=True)
class CallTable:
    """The rows that can be scored, and the number of skipped ones by reason."""

    rows: tuple[CallRow, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def read(self) -> int:
        return len(self.rows) + sum(self.skipped.values())

    @property
    def is_written_otherwise(self) -> bool:
        """Whether no text has calls between tags although the file's own column has calls."""
        rows = len(self.rows)
        return self.count("nothing_extracted") == rows > 0 < self.count("extraction_disagrees")

    def count(self, what: str) -> int:
        """Number of rows for which a name of `COUNTED` is true."""
        assert what in COUNTED, f"wanted one of {', '.join(COUNTED)}; got {what!r}"
        return sum(row.scores[what] for row in self.rows)

    def to_dict(self) -> dict[str, Json]:
        return {
            "read": self.read,
            "rows": len(self.rows),
            "skipped": dict(self.skipped),
            **{what: self.count(what) for what in COUNTED},
            "percent_correct": _percent(len(self.rows), self.count("match")),
            "disagreeing_rows": [row.number for row in self.rows if row.scores["disagrees"]],
        }


def _percent(rows: int, matches: int) -> float | None:
    return round(100 * matches / rows, 4) if rows else None


def read_results_csv(path: str | Path, dialect_syntax: str | None = None) -> CallTable:
    """Read one file; rows are numbered from 1, without the header and blank lines.

    dialect_syntax: how its texts write calls; None for JSON between `<tool_call>` tags.
    """
    syntax = None if dialect_syntax is None else open_syntax(dialect_syntax)
    records = _read_csv(Path(path))
    header = [name.strip().lower() for name in next(records, [])]
    missing = [name for name in NEEDED if name not in header]
    if missing:
        found = ", ".join(map(repr, header[:20])) or "nothing, the file is empty"
        near = nearest(missing[0], header)
        raise DataError(f"{path}: the header lacks {', '.join(missing)}{near}; found {found}")
    for name in (*NEEDED, "extracted_calls", "match"):
        if header.count(name) > 1:
            raise DataError(f"{path}: the header has the column {name!r} twice")
    rows, skipped = list[CallRow](), Counter[str]()
    for number, record in enumerate(records, start=1):
        cells = dict(zip(header, record))
        differs = len(record) != len(header)
        scores = "another number of fields than the header" if differs else _score(cells, syntax)
        if isinstance(scores, str):
            skipped[scores] += 1
        else:
            rows.append(CallRow(number, cells["query"], cells["predicted_text"], scores))
    return CallTable(tuple(rows), dict(sorted(skipped.items())))


def is_summary(path: str | Path) -> bool:
    """Whether a file is a summary that `write_summary` wrote."""
    return tuple(next(_read_csv(Path(path)), [])) == SUMMARY_COLUMNS


def write_summary(path: str | Path, counts: Mapping[str, tuple[int, int]]) -> Path:
    """Write one line for each file's (rows, matches); its percentage is nan without rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SUMMARY_COLUMNS)
    for name, (rows, matches) in counts.items():
        assert 0 <= matches <= rows, f"{name}: {matches} matches in {rows} rows"
        percent = _percent(rows, matches)
        writer.writerow([name, rows, matches, "nan" if percent is None else percent])
    with writing(Path(path)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(path), text.getvalue())
    return Path(path)


def _read_csv(path: Path) -> Iterator[list[str]]:
    """Yield the records of a CSV file with fields of any length, without blank lines."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            yield from filter(None, reader)
    except FileNotFoundError:
        names = [other.name for other in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file{nearest(path.name, names)}") from None
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        wrong = f"not UTF-8 text after line {reader.line_num}: {error.reason}"
        raise DataError(f"{path}: {wrong}") from None
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a CSV record: {error}") from None
    finally:
        csv.field_size_limit(before)


def _score(cells: Mapping[str, str], syntax: Syntax | None) -> dict[str, bool] | str:
    """Score a row, or return the reason to skip it."""
    if not cells["expected_calls"].strip():
        return "expected_calls is blank: nothing is said about calls"
    wanted = read_json(cells["expected_calls"])
    if not isinstance(wanted, list):
        return "expected_calls is not a JSON list of calls"
    try:
        expected = [ToolCall.from_dict(call) for call in wanted]
    except DataError:
        return "expected_calls is not a JSON list of calls"
    text = cells["predicted_text"]
    reply, is_blank = (syntax or ToolCallTags()).read(text), not text.strip()
    if syntax is None:
        extraction, found = calls_between_tags(text), list(read_json_calls(text).calls)
    else:
        found = list(reply.calls)
        is_read = reply.problem is ParseProblem.NONE
        extraction = [call.to_dict() for call in found] if is_read else None
    readings = [found] if found else read_leniently([text])
    content = not is_blank and not any(readings)
    if expected:
        expect = Expect(tuple(ExpectedCall(call.name, call.arguments) for call in expected))
        content = any(match_calls(calls, expect, ()).exact for calls in readings)
    has_calls = bool(reply.calls) or not expected
    tags = reply.problem is ParseProblem.NONE and has_calls and not is_blank
    match, column = same_json(extraction, wanted), cells.get("match", "").strip().lower()
    theirs = _read_list(cells.get("extracted_calls", ""))
    return {
        "match": match,
        "recovered": _are_same_calls(found, expected),
        "content_right": content,
        "tags_right": tags,
        "both_right": content and tags,
        "stray_tag": text.lstrip().startswith(ToolCallTags.close),
        "nothing_extracted": not extraction,
        "disagrees": column in (_FALSE if match else _TRUE),
        "says_nothing": column not in (*_TRUE, *_FALSE),
        "extraction_disagrees": theirs is not None
        and not same_json(theirs, False if extraction is None else extraction),
    }


def _are_same_calls(found: Sequence[ToolCall], expected: Sequence[ToolCall]) -> bool:
    """Whether these are the same calls in any order, by Python's equality."""
    left = [call.to_dict() for call in found]
    for call in expected:
        place = next((i for i, one in enumerate(left) if same_json(one, call.to_dict())), None)
        if place is None:
            return False
        left.pop(place)
    return not left


def _read_list(cell: str) -> Json:
    """A JSON or Python list, or False; None for a blank cell, `NOT_JSON` for anything else."""
    if not cell.strip():
        return None
    value = read_json(cell)
    if value is NOT_JSON:
        try:
            value = python_literal(cell.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return NOT_JSON
    return value if isinstance(value, list) or value is False else NOT_JSON
