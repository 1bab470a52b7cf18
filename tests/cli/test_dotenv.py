"""`.env` in the working folder: what is read, what wins, and that no value gets anywhere else."""

import os
import sys
from pathlib import Path

import pytest

from toolhone.api import experiment
from toolhone.cli.main import load_dotenv, main
from toolhone.runs.run import Run

NAMES = ("TH_PLAIN", "TH_QUOTED", "TH_EXPORTED", "TH_DOLLAR", "TH_EMPTY", "TH_SET", "TH_KEY")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "to be removed again afterwards")
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_names_are_set_as_written(tmp_path: Path) -> None:
    text = (
        "\ufeffTH_PLAIN=a b # why\n# keys\nTH_QUOTED='x # y'\n\n"
        'export TH_EXPORTED="z"\nTH_DOLLAR=pa$HOME${HOME}\nTH_EMPTY=\n'
    )
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    assert load_dotenv(tmp_path) == []
    assert {name: os.environ.get(name) for name in NAMES[:5]} == {
        "TH_PLAIN": "a b",
        "TH_QUOTED": "x # y",
        "TH_EXPORTED": "z",
        "TH_DOLLAR": "pa$HOME${HOME}",
        "TH_EMPTY": None,
    }


def test_what_is_set_already_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TH_SET", "from the shell")
    (tmp_path / ".env").write_text("TH_SET=from the file\n")
    load_dotenv(tmp_path)
    assert os.environ["TH_SET"] == "from the shell"


def test_only_the_folder_itself_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TH_KEY=above\n")
    (tmp_path / "below").mkdir()
    assert load_dotenv(tmp_path / "below") == []
    assert "TH_KEY" not in os.environ


def test_lines_that_cannot_be_used_are_named_by_number_without_their_content(
    tmp_path: Path,
) -> None:
    (tmp_path / ".env").write_text(
        "TH_KEY=good\n\nsecret-without-a-name\n\n\nTH_PLAIN='never closed\n"
    )
    problems = load_dotenv(tmp_path)
    assert [problem.partition(".env, ")[2] for problem in problems] == [
        "line 3: not NAME=value; the line was not used",
        "line 6: not NAME=value; the line was not used",
    ]
    assert "secret" not in "".join(problems)
    assert os.environ["TH_KEY"] == "good"


def test_a_file_that_is_no_text_is_said_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"TH_KEY=\xff\xfe\n")
    assert load_dotenv(tmp_path) == [f"{tmp_path / '.env'} was not read: UnicodeDecodeError"]


def test_the_command_line_reads_it_and_a_run_does_not_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("TH_KEY=topsecret\nnonsense\n")
    monkeypatch.setattr(sys, "argv", ["toolhone", "config", "schema"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    shown = capsys.readouterr()
    assert "line 2: not NAME=value" in shown.err
    assert os.environ["TH_KEY"] == "topsecret"
    Run.create(tmp_path / "run", experiment({}))
    kept = "".join(path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert "topsecret" not in kept + shown.out + shown.err


def test_the_example_file_sets_nothing_as_it_is(tmp_path: Path) -> None:
    example = (Path(__file__).parents[2] / ".env.example").read_text()
    (tmp_path / ".env").write_text(example)
    before = dict(os.environ)
    assert load_dotenv(tmp_path) == []
    assert dict(os.environ) == before
    for name in (
        "HF_TOKEN",
        "WANDB_API_KEY",
        "TINKER_API_KEY",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "TOOLHONE_CACHE",
    ):
        assert f"\n{name}=\n" in example
