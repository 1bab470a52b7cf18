"""`toolhone data write`: the data of an experiment, also with a teacher behind an address."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from support.teacher_server import teacher
from toolhone.cli.main import main
from toolhone.sources.messages import read_conversations, read_tasks


def write(monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    monkeypatch.setattr(sys, "argv", ["toolhone", "data", "write", *line.split()])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def reply(_: int, text: str) -> str:
    match = re.search(r"Conversation number (\d+)", text)
    assert match is not None
    call = {"name": "calculator", "arguments": {"expression": f"{match[1]}*6"}}
    messages = [
        {"role": "user", "content": f"Six times {match[1]}?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "assistant", "content": "It is {result}."},
    ]
    return json.dumps({"messages": messages})


def test_a_teacher_writes_the_data_once_and_the_files_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {"tools": ["calculator"], "data": {"teacher": {"categories": {"single": 1}}}}
    (tmp_path / "mine.json").write_text(json.dumps(plan))
    monkeypatch.chdir(tmp_path)
    with teacher(reply) as served:
        line = f"mine.json --teacher {served.url} --out data data.max_samples=10"
        assert write(monkeypatch, line) == 0
        asked = served.paid
        first = (tmp_path / "data/train.jsonl").read_bytes()
        assert write(monkeypatch, line) == 0
    shown = capsys.readouterr()
    assert served.paid == asked == 10
    assert (tmp_path / "data/train.jsonl").read_bytes() == first
    assert "10 of 10 rows written by default: 10 requests, 0 replies recalled" in shown.err
    assert "10 replies recalled" in shown.err
    rows = [*read_conversations("data/train.jsonl"), *read_conversations("data/held_out.jsonl")]
    assert len(rows) == 10
    assert len(read_tasks("data/tasks.jsonl")) > 0
    report = json.loads((tmp_path / "data/report.json").read_text())["teacher"]
    assert (report["kept"], report["yield"], report["prompt_tokens"]) == (10, 1.0, 1000)


def test_what_is_no_address_is_wrong_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert write(monkeypatch, "teacher --teacher nowhere model.name=pico") == 2
    assert "is no address" in capsys.readouterr().err
