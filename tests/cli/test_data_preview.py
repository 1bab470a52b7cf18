"""`toolhone data preview`: rows and coverage on a screen of 80 columns, and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolhone.cli.main import main

DESK = Path(__file__).parents[2] / "examples" / "desk" / "desk.json"


def preview(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    line = ["toolhone", "data", "preview", str(DESK), *words, "data.max_samples=60"]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_rows_and_coverage_fit_a_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preview(monkeypatch, "--rows", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.startswith("row ")] == ["row 1", "row 2", "row 3"]
    assert any(line.startswith("refund_order: ") for line in lines)
    assert any(line.startswith("  filters.status ") for line in lines)


def test_json_has_the_rows_and_the_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preview(monkeypatch, "--rows", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["rows"]) == 2
    assert told["coverage"]["tools"]["refund_order"]["calls"] > 0
