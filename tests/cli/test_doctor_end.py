"""`toolhone doctor`: its last line and its exit code agree, also where rows are sound and too
little to train on."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.mistakes import row
from toolhone.cli.main import main

SAID = [row(number) for number in range(20)]
HELLO = '{"role": "assistant", "content": "Hello"}'
PLAIN = [f'{{"messages": [{{"role": "user", "content": "Hi {n}"}}, {HELLO}]}}\n' for n in range(9)]
WRONG = [row(number, key="number") for number in range(20, 40)]


@pytest.mark.parametrize(
    ("rows", "fixes", "end"),
    [
        (SAID, False, "training may start (exit code 0)"),
        (PLAIN, False, "do not train: no row calls a tool (exit code 1)"),
        (SAID[:1], False, "training may start (exit code 0)"),
        (SAID[:6] + WRONG, True, "do not train: the cleaning dropped 20 of 26 rows (exit code 1)"),
        (SAID + WRONG[:6], True, "training may start (exit code 0)"),
    ],
    ids=["sound", "no calls", "one row", "most dropped", "few dropped"],
)
def test_the_last_line_says_the_exit_code(
    rows: list[str],
    fixes: bool,
    end: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    fix = ["--fix", str(tmp_path / "clean.jsonl")] if fixes else []
    line = ["toolhone", "doctor", "--data", str(tmp_path / "rows.jsonl"), *fix]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ("one row alone can be checked; a training needs two" in printed.err) is (len(rows) == 1)
    last = printed.out.splitlines()[-1]
    assert last.startswith(end)
    assert last.endswith(f"(exit code {ended.value.code or 0})")
