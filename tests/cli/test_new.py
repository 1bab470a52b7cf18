"""`toolhone new`: the project that it makes works as its README says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from toolhone.cli.main import main

TINY = [
    "data.max_samples=24",
    "training.steps=1",
    "training.batch_size=2",
    "training.validation_samples=2",
    "evaluation.max_new_tokens=8",
]
TOOLS = [
    {
        "name": "get_invoice",
        "description": "Get an invoice.",
        "inputSchema": {
            "type": "object",
            "properties": {"invoice_number": {"type": "string"}, "paid": {"type": "boolean"}},
            "required": ["invoice_number"],
        },
    }
]


def toolhone(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["toolhone", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_commands_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert toolhone(monkeypatch, "new", "desk") == 0
    monkeypatch.chdir(tmp_path / "desk")
    lines = re.findall(r"^toolhone (.+)$", Path("README.md").read_text(), re.MULTILINE)
    assert len(lines) == 9
    for line in lines:
        words = line.split()
        if words[0] == "chat":
            words += ["--prompt", "Find order ORD-12345"]
        words += {"train": TINY, "data": TINY[:1]}.get(words[0], [])
        if "grpo.json" in words:
            words += ["training.rl.group_size=2", "training.rl.max_completion_length=8"]
        code = toolhone(monkeypatch, *words)
        assert code in ((0, 1, 3) if words[0] == "compare" else (0,)), line
    assert Path("data/tasks.jsonl").stat().st_size
    assert Path("runs/grpo/metrics.jsonl").exists()
    guard = yaml.safe_load(Path(".github/workflows/guard.yml").read_text())
    assert "compare" in str(guard["jobs"]["guard"]["steps"])


def test_tools_of_a_file_take_the_place_of_the_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mcp.json").write_text(json.dumps({"result": {"tools": TOOLS}}))
    assert toolhone(monkeypatch, "new", "bills", "--tools", "mcp.json", "--model", "my/model") == 0
    assert not Path("bills/tools.py").exists()
    sft = json.loads(Path("bills/sft.json").read_text())
    assert (sft["model"], sft["tools"]) == ({"name": "my/model"}, ["tools.json"])
    assert "training" not in sft, "the recipe of the embedded model is for it alone"
    capsys.readouterr()
    shown = ["data", "preview", "bills/sft.json", "--rows", "3", "data.max_samples=30"]
    assert toolhone(monkeypatch, *shown) == 0
    assert "get_invoice(invoice_number='" in capsys.readouterr().out


def test_a_folder_with_files_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert toolhone(monkeypatch, "new", str(tmp_path / "full")) == 2
    assert "exists and is not empty; name another folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
