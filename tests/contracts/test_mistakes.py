"""docs/mistakes.md: each command ends with exit code 2 and the sentence of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.mistakes import run, write_files

PAGE = Path(__file__).parents[2] / "docs" / "mistakes.md"
MISTAKES = re.findall(
    r"^## \d+\. (.+)\n\n```\n(.+)\n```\n\n> (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.mark.parametrize(
    ("line", "sentence"), [one[1:] for one in MISTAKES], ids=[one[0] for one in MISTAKES]
)
def test_a_mistake_gets_its_sentence_and_exit_code_2(
    line: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, said = run(line)
    said = " ".join(said.replace(f"{tmp_path}/", "").replace(str(tmp_path), "").split())
    wanted = ".*".join(re.escape(" ".join(part.split())) for part in sentence.split("…"))
    assert code == 2, said
    assert re.search(wanted, said), said
    assert "Traceback" not in said


def test_the_page_has_thirty_mistakes_and_more() -> None:
    assert len(MISTAKES) >= 30
    assert len(re.findall("^## ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)) == len(MISTAKES)
