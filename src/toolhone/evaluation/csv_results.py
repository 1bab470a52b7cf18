"""Tables of answers made elsewhere: one CSV row for each query, with the raw text and the calls that were expected.

    table = read_results_csv("test1_finetuned.csv")
    table.count("match"), table.count("recovered"), len(table.rows), table.skipped
    write_summary("summary_results.csv", {"test1_finetuned.csv": (len(table.rows), table.count("match"))})

Columns: query, predicted_text, expected_calls (JSON), and where they exist extracted_calls (a Python or JSON list, or False) and
match (True or False); others, such as an unnamed index, are passed over. `samples.csv` of an evaluation folder is such a table. Of
each row is measured again, from the text:

* `match`, by the definition of the system that made the form: every text between `<tool_call>` and `</tool_call>` is JSON, and
  their list equals the expected one, order included, by Python's equality (so 1 = 1.0 = true).
* `recovered`: the JSON objects that are calls, wherever the tags are, are the expected calls in any order, by the same equality.
* `content_right`: those calls (where there are none, those of any other call syntax) are right as `rewards.matching` compares
  them; `tags_right`: the text is well-formed `<tool_call>` syntax with a call where one is expected; `both_right`: both.

`disagrees` is where the file's own match column says otherwise. A row that cannot be scored is skipped and counted by its reason:
`read` = rows + skipped. Blank lines are no rows. Nothing in a table is evaluated or run.
"""

from __future__ import annotations

import ast
import csv
import io
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TextIO

from toolhone.dialects.base import ParseProblem
from toolhone.dialects.syntax.tagged import ToolCallTags
from toolhone.errors import DataError, nearest
from toolhone.evaluation.folder import write_text
from toolhone.evaluation.legacy_metrics import NOT_JSON, calls_between_tags, read_json, same_json
from toolhone.evaluation.lenient_reader import calls_anywhere, readings
from toolhone.rewards.matching import match_calls
from toolhone.schema import Expect, ExpectedCall, Json, ToolCall

NEEDED = ("query", "predicted_text", "expected_calls")
SUMMARY = "summary_results.csv"
SUMMARY_COLUMNS = ("filename", "total_rows", "total_matches", "percent_correct")
COUNTED = (
    "match",
    "recovered",
    "content_right",
    "tags_right",
    "both_right",
    "stray_tag",
    "nothing_extracted",
    "disagrees",
    "says_nothing",
    "extraction_disagrees",
)
"""What `CallTable.count` can count."""
_TRUE, _FALSE = ("true", "1", "1.0", "yes", "y", "t"), ("false", "0", "0.0", "no", "n", "f")
_LONGEST_FIELD = 2**31 - 1


class Skipped(StrEnum):
    """Why a row cannot be scored."""

    FIELDS = "another number of fields than the header"
    UNSAID = "expected_calls is blank: nothing is said about calls"
    EXPECTED = "expected_calls is not a JSON list of calls"


@dataclass(frozen=True)
class CallRow:
    """One row. `wanted` is its expected list as it stands, `said` what its match column says, None when it says nothing.

    `extracted` is its extracted_calls: a list, False, None where the column is missing or blank, `NOT_JSON` when unreadable.
    """

    number: int
    query: str
    text: str
    wanted: Sequence[Json]
    expected: tuple[ToolCall, ...]
    extracted: Json = None
    said: bool | None = None

    @cached_property
    def extraction(self) -> list[Json] | None:
        """What stands between the tags; None when one of the texts is not JSON."""
        return calls_between_tags(self.text)

    @cached_property
    def found(self) -> tuple[ToolCall, ...]:
        """The JSON objects that are calls, wherever the tags are."""
        return tuple(calls_anywhere(self.text))

    @cached_property
    def match(self) -> bool:
        return same_json(self.extraction, list(self.wanted))

    @cached_property
    def recovered(self) -> bool:
        left = list(self.found)
        for call in self.expected:
            place = next((i for i, other in enumerate(left) if _same_call(other, call)), None)
            if place is None:
                return False
            left.pop(place)
        return not left

    @cached_property
    def content_right(self) -> bool:
        found = [self.found] if self.found else [tuple(calls) for calls in readings([self.text])]
        if not self.expected:
            return bool(self.text.strip()) and not any(found)
        wanted = Expect(tuple(ExpectedCall(call.name, call.arguments) for call in self.expected))
        return any(match_calls(calls, wanted, ()).exact for calls in found)

    @cached_property
    def tags_right(self) -> bool:
        reply = ToolCallTags().read(self.text)
        return (
            reply.problem is ParseProblem.NONE
            and (bool(reply.calls) or not self.expected)
            and bool(self.text.strip())
        )

    @property
    def both_right(self) -> bool:
        return self.content_right and self.tags_right

    @property
    def stray_tag(self) -> bool:
        """Whether the text starts with a closing tag."""
        return self.text.lstrip().startswith(ToolCallTags.close)

    @property
    def nothing_extracted(self) -> bool:
        return not self.extraction

    @property
    def disagrees(self) -> bool:
        return self.said is not None and self.said != self.match

    @property
    def says_nothing(self) -> bool:
        """Whether the match column is missing, blank or neither True nor False."""
        return self.said is None

    @property
    def extraction_disagrees(self) -> bool:
        """Whether the file's extracted_calls is another list than the text gives, or cannot be read."""
        ours = False if self.extraction is None else self.extraction
        return self.extracted is not None and not same_json(self.extracted, ours)


def _same_call(first: ToolCall, second: ToolCall) -> bool:
    return first.name == second.name and same_json(dict(first.arguments), dict(second.arguments))


@dataclass(frozen=True)
class CallTable:
    """The rows of a file that can be scored, and how many could not be, by reason."""

    rows: tuple[CallRow, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def read(self) -> int:
        return len(self.rows) + sum(self.skipped.values())

    def count(self, what: str) -> int:
        """In how many rows something is so; `what` is one of `COUNTED`."""
        assert what in COUNTED, f"wanted one of {', '.join(COUNTED)}; got {what!r}"
        return sum(bool(getattr(row, what)) for row in self.rows)

    def to_dict(self) -> dict[str, Json]:
        """`{"read", "rows", "skipped": {reason: count}, ...the counts of COUNTED..., "percent_correct", "disagreeing_rows"}`."""
        return {
            "read": self.read,
            "rows": len(self.rows),
            "skipped": dict(self.skipped),
            **{what: self.count(what) for what in COUNTED},
            "percent_correct": _percent(len(self.rows), self.count("match")),
            "disagreeing_rows": [row.number for row in self.rows if row.disagrees],
        }


def _percent(rows: int, matches: int) -> float | None:
    return round(100 * matches / rows, 4) if rows else None


def read_results_csv(path: str | Path) -> CallTable:
    """Read one file; rows are numbered from 1, without the header."""
    path = Path(path)
    rows: list[CallRow] = []
    skipped: Counter[str] = Counter()
    with _opened(path) as stream:
        records = _records(path, stream)
        header = [name.strip().lower() for name in next(records, [])]
        _check_header(path, header)
        for number, record in enumerate(records, start=1):
            row = (
                _row(number, dict(zip(header, record, strict=True)))
                if len(record) == len(header)
                else Skipped.FIELDS
            )
            if isinstance(row, Skipped):
                skipped[row.value] += 1
            else:
                rows.append(row)
    return CallTable(tuple(rows), dict(sorted(skipped.items())))


def is_summary(path: str | Path) -> bool:
    """Whether a file is a summary such as `write_summary` writes."""
    with _opened(Path(path)) as stream:
        return tuple(next(_records(Path(path), stream), [])) == SUMMARY_COLUMNS


def write_summary(path: str | Path, counts: Mapping[str, tuple[int, int]]) -> Path:
    """Write `filename,total_rows,total_matches,percent_correct`, one line for each (rows, matches); nan where there is no row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SUMMARY_COLUMNS)
    for name, (rows, matches) in counts.items():
        assert 0 <= matches <= rows, f"{name}: {matches} matches in {rows} rows"
        percent = _percent(rows, matches)
        writer.writerow([name, rows, matches, "nan" if percent is None else percent])
    write_text(Path(path), text.getvalue())
    return Path(path)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        stream = path.open(encoding="utf-8-sig", newline="")
    except FileNotFoundError:
        names = [other.name for other in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file{nearest(path.name, names)}") from None
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read: {error.strerror or error}") from None
    with stream:
        yield stream


def _records(path: Path, stream: TextIO) -> Iterator[list[str]]:
    """The records of a CSV file with fields of any length; blank lines are passed over."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(stream)
    try:
        yield from filter(None, reader)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text after line {reader.line_num}: {error.reason}"
        ) from None
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a CSV record: {error}") from None
    finally:
        csv.field_size_limit(before)


def _check_header(path: Path, header: Sequence[str]) -> None:
    missing = [name for name in NEEDED if name not in header]
    if missing:
        found = ", ".join(map(repr, header[:20])) or "nothing, the file is empty"
        raise DataError(
            f"{path}: the header lacks {', '.join(missing)}{nearest(missing[0], header)}; found {found}"
        )
    twice = [name for name in (*NEEDED, "extracted_calls", "match") if header.count(name) > 1]
    if twice:
        raise DataError(f"{path}: the header has the column {twice[0]!r} twice")


def _row(number: int, cells: Mapping[str, str]) -> CallRow | Skipped:
    if not cells["expected_calls"].strip():
        return Skipped.UNSAID
    wanted = read_json(cells["expected_calls"])
    if not isinstance(wanted, list):
        return Skipped.EXPECTED
    try:
        expected = tuple(ToolCall.from_dict(call) for call in wanted)
    except DataError:
        return Skipped.EXPECTED
    extracted, said = (
        _extracted(cells.get("extracted_calls", "")),
        cells.get("match", "").strip().lower(),
    )
    verdict = True if said in _TRUE else False if said in _FALSE else None
    return CallRow(
        number, cells["query"], cells["predicted_text"], wanted, expected, extracted, verdict
    )


def _extracted(cell: str) -> Json:
    """A JSON list, or a Python list, or False; None for a blank cell, `NOT_JSON` for anything else."""
    if not cell.strip():
        return None
    value = read_json(cell)
    if value is NOT_JSON:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = ast.literal_eval(cell.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return NOT_JSON
    return value if isinstance(value, list) or value is False else NOT_JSON
