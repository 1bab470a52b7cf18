"""docs/architecture.md: the files it names exist, and its example of a data format reads a file."""

import re
import types
from pathlib import Path
from typing import Any, cast

import pytest

from toolhone.sources import formats
from toolhone.sources.files import write_jsonl

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_files_that_the_page_names_exist() -> None:
    names = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py|tests/[a-z_/]+\.py)(?::[^`]*)?`", PAGE))
    assert len(names) > 25
    for name in names - {"file.py"}:
        assert (
            (ROOT / name).is_file()
            or (ROOT / "src" / "toolhone" / name).is_file()
            or any((ROOT / "src" / "toolhone").rglob(name))
        ), name


def test_the_format_of_the_page_is_detected_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.search(r"```python question_answer.py\n(.*?)```", PAGE, re.S)
    assert code is not None
    module = cast(Any, types.ModuleType("question_answer"))
    exec(code[1], module.__dict__)
    source = module.QUESTION_ANSWER
    monkeypatch.setitem(cast(dict[str, Any], formats.SOURCES), source.name, source)
    write_jsonl(tmp_path / "rows.jsonl", [{"q": "Why?", "a": "So."}, {"q": "Who?", "a": ""}])
    assert formats.detect_format(tmp_path / "rows.jsonl") == "question_answer"
    loaded = formats.open_source(tmp_path / "rows.jsonl")
    assert [one.messages[1].content for one in loaded.conversations] == ["So."]
    assert dict(loaded.skipped) == {"a row without an answer": 1}
