"""`toolhone examples` and the tour: lessons run, are not trained twice, ask only a person, and name
only commands that exist.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toolhone.api import open_model
from toolhone.cli import guide as verb
from toolhone.cli.guide import paragraphs, show
from toolhone.cli.main import load_verb, main
from toolhone.guide import runner
from toolhone.guide.demo import tour
from toolhone.guide.lesson import (
    Lesson,
    Workspace,
    finished,
    finished_or_trained,
    laid_out,
    lesson_named,
    lessons,
    place_for,
    trained,
)
from toolhone.guide.runner import Cells, Chat, Code, ColouredRow, Prose, Scores, Shown, play
from toolhone.runs.run import Run
from toolhone.sources.messages import read_tasks
from toolhone.training import dataset

QUICK = (
    *(
        "training.steps=2",
        "training.batch_size=2",
        "data.samples=30",
        "evaluation.num_samples=2",
        "evaluation.max_new_tokens=6",
    ),
    *("training.log_every=0", "evaluation.max_turns=1"),
    *("training.rl.max_completion_length=6", "teacher.tasks=2"),
)
CALCULATOR = json.loads(lesson_named("calculator").files()["experiment.json"])


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MAX_HELD_OUT", 4)


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["toolhone", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lesson 1, trained for two steps."""
    root = tmp_path_factory.mktemp("lessons")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "MAX_HELD_OUT", 4)
        trained(Workspace(root, QUICK), "calculator", CALCULATOR)
    return root


@pytest.fixture
def space(two_steps: Path, tmp_path: Path) -> Workspace:
    """A workspace in which lesson 1 was trained for two steps."""
    shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path, QUICK)


def kinds(shown: Iterator[Shown]) -> set[type]:
    return {type(each) for each in shown}


def test_without_a_lesson_and_a_person_the_list_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in ((), ("--list",), ("--list", "--yes")):
        code, out, _ = run(capsys, monkeypatch, "examples", *arguments)
        assert code == 0
        assert [line.split()[1] for line in out.splitlines()] == [
            lesson.name for lesson in lessons()
        ]
    assert list(tmp_path.iterdir()) == []


def test_a_lesson_that_does_not_exist_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run(capsys, monkeypatch, "examples", "calculater")
    assert (code, out) == (2, "")
    assert "did you mean 'calculator'" in err
    assert run(capsys, monkeypatch, "examples", "7")[0] == 2


def test_lesson_1_runs_by_number_without_questions_and_is_not_trained_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, monkeypatch, "examples", "1", *QUICK)
    assert code == 0, err
    for part in (
        "Lesson 1",
        '"calculator"',
        "$ toolhone train runs/examples/calculator/experiment.json",
        "exact_match",
        "you  ",
        "  $ toolhone chat runs/examples/calculator/run\n",
    ):
        assert part in out
    assert out.index("What to look at") < out.index("What to try next")
    weights = (
        tmp_path / "runs/examples/calculator/run/checkpoints/final_checkpoint/model.safetensors"
    )
    before = weights.stat().st_mtime_ns
    code, _, err = run(capsys, monkeypatch, "examples", "calculator", *QUICK)
    assert code == 0
    assert "is trained already" in err
    assert weights.stat().st_mtime_ns == before
    assert "(its run is there)" in run(capsys, monkeypatch, "examples", "--list")[1].splitlines()[0]


def test_the_experiment_file_of_a_lesson_is_what_was_trained(space: Workspace) -> None:
    written = json.loads((space.root / "calculator" / "experiment.json").read_text())
    assert written == CALCULATOR
    plan = Run.open(space.root / "calculator" / "run").experiment
    assert (plan.tools, plan.training.steps) == (["calculator"], 2)


def test_other_settings_go_into_a_run_of_their_own(space: Workspace) -> None:
    other = trained(
        replace(space, overrides=(*QUICK, "training.steps=1")), "calculator", CALCULATOR
    )
    assert other.folder.name == "run-2"
    assert trained(space, "calculator", CALCULATOR).folder.name == "run"


def test_a_stopped_lesson_goes_on_and_a_run_of_another_version_is_left_alone(
    space: Workspace,
) -> None:
    folder = space.root / "calculator"
    plan = Run.open(folder / "run").experiment
    (folder / "run" / "checkpoints" / "final_checkpoint" / "state.json").unlink()
    assert finished(space, "calculator") is None
    assert place_for(folder, plan)[1] is not None
    (folder / "run" / "experiment.json").write_text('{"model": {"nmae": 1}}')
    assert place_for(folder, plan) == (folder / "run-2", None)


def test_lessons_build_on_any_finished_run_of_lesson_1(space: Workspace) -> None:
    notes: list[str] = []
    other = replace(space, overrides=(), note=notes.append)
    assert finished_or_trained(other, "calculator").folder == space.root / "calculator" / "run"
    assert notes == []


def test_trained_text_is_what_the_assistant_says_and_nothing_else() -> None:
    model = open_model("pico")
    call, talk = runner.conversations()
    row = runner.row_of(model, call)
    shown = runner.coloured(model, "x", row)
    assert "".join(text for text, _ in shown.pieces) == model.tokenizer.decode(row.tokens.tolist())
    said = [text for text, is_trained in shown.pieces if is_trained]
    assert said[0].startswith("<tool_call>")
    assert all(text.endswith("<|im_end|>") for text in said)
    assert len(said) == 2
    assert [
        is_trained
        for _, is_trained in runner.coloured(model, "x", runner.row_of(model, talk)).pieces
    ][-2:] == [True, False]
    table = runner.probabilities(row, [model])
    assert len(table.rows) == min(runner.SHOWN_TOKENS, int(row.mask.sum()))
    first = np.exp(model.sampler.logprobs([row])[0])[np.flatnonzero(row.mask)[0]]
    assert table.rows[0][1] == f"{100 * first:.1f}"


def test_lesson_2_shows_what_lesson_1_changed_once_it_was_done(space: Workspace) -> None:
    lesson = lesson_named("rows")
    hint = "After lesson 1 there is a second column"
    shown = list(play(lesson, Workspace(space.root / "elsewhere")))
    assert [each for each in shown if isinstance(each, Prose) and each.text.startswith(hint)]
    shown = list(play(lesson, space))
    assert not [each for each in shown if isinstance(each, Prose) and each.text.startswith(hint)]
    tables = [each.headings for each in shown if isinstance(each, Cells)]
    assert tables == [["token", "untrained", "after lesson 1"]]


def test_lesson_6_scores_what_its_text_says(tmp_path: Path) -> None:
    lesson = lesson_named("scoring")
    shown = list(play(lesson, Workspace(tmp_path)))
    (scores,) = [each for each in shown if isinstance(each, Scores)]
    wrong = {sample.id for sample in scores.evaluation.samples if sample.scores["exact_match"] < 1}
    assert len(scores.evaluation.samples) == 10
    cases = {json.loads(line)["id"] for line in lesson.files()["tasks.jsonl"].splitlines()}
    assert wrong == cases - {"right", "spelled-otherwise", "rightly-none"}
    unread = {
        sample.id for sample in scores.evaluation.samples if sample.scores["valid_format"] < 1
    }
    assert unread == {"broken", "no-such-tool", "only-words"}
    assert len(read_tasks(tmp_path / "scoring" / "tasks.jsonl")) == 10


def test_an_experiment_is_laid_out_in_short_lines_and_stays_the_same_json() -> None:
    for values in (
        CALCULATOR,
        {"a": [1, {"b": "x" * 90}, []], "c": {}},
        [],
        {"deep": [[["y" * 60, "z" * 60]]]},
    ):
        text = laid_out(values)
        assert json.loads(text) == values
        assert max(map(len, text.splitlines())) <= 110


def commands(lesson: Lesson) -> list[list[str]]:
    lines = (
        lesson.text.partition("## What to try next")[2]
        .replace("{root}", "runs/examples")
        .replace("COPY", "runs/examples/own-tool")
        .splitlines()
    )
    return [line.partition("#")[0].split() for line in lines if line.startswith("toolhone ")]


@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.name)
def test_a_lesson_names_only_commands_that_the_command_line_takes(lesson: Lesson) -> None:
    assert commands(lesson)
    for _, verb_name, *words in commands(lesson):
        command = load_verb(verb_name)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context("toolhone", list(words))


@pytest.mark.parametrize("verb_name", ["examples", "check", "demo", "chat"])
def test_help_has_an_example(
    verb_name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(capsys, monkeypatch, verb_name, "--help")
    assert code == 0
    assert f"toolhone {verb_name}" in out.partition("Example")[2]


def answering(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[Lesson]:
    """Let a person answer; returns the lessons that are shown, which are not played."""
    left = list(answers)
    shown: list[Lesson] = []

    def typed(_: str) -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(verb, "_play", lambda lesson, _: shown.append(lesson))
    return shown


def test_a_person_chooses_and_enter_takes_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = answering(monkeypatch, "", "", "scoring", "nine", "q", "1")
    code, _, err = run(capsys, monkeypatch, "examples")
    assert code == 0
    assert [lesson.name for lesson in shown] == ["calculator", "rows", "scoring"]
    assert "no such lesson: 'nine'" in err


def test_all_asks_a_person_in_between_and_yes_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = answering(monkeypatch, "", "q")
    run(capsys, monkeypatch, "examples", "all")
    assert len(shown) == 2
    shown = answering(monkeypatch)
    run(capsys, monkeypatch, "examples", "all", "--yes")
    assert [lesson.name for lesson in shown] == [lesson.name for lesson in lessons()]


def test_trained_text_is_marked_where_there_are_no_colours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(ColouredRow("a row", [("user\nhi\x1b", False), ("hello", True)]))
    assert capsys.readouterr().out == "\na row\nuser\nhi\N{REPLACEMENT CHARACTER}»hello«\n"


def test_paragraphs_join_lines_and_keep_dashes_apart(capsys: pytest.CaptureFixture[str]) -> None:
    paragraphs("one\ntwo\n- three\n  four\n- five")
    assert capsys.readouterr().out == "one two\n- three four\n- five\n"


@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.name)
def test_every_lesson_runs_to_its_end(lesson: Lesson, space: Workspace) -> None:
    if lesson.name == "own-tool":
        shutil.copytree(space.root / "calculator", space.root / "several-tools")
    seen = list(play(lesson, space))
    for shown in seen:
        show(shown)
    expected = (
        {Scores}
        if lesson.name == "scoring"
        else {ColouredRow}
        if lesson.name == "rows"
        else {Code, Scores, Chat}
    )
    assert expected <= kinds(iter(seen))


def test_the_tour_has_every_tool_dialect_teacher_and_a_world(tmp_path: Path) -> None:
    stages = list(tour(Workspace(tmp_path, QUICK)))
    assert [stage.name for stage in stages[-2:]] == ["shop", "shop-retry"]
    tools = {tool for stage in stages[:-2] for tool in stage.tools.split(", ")}
    methods = {stage.method.partition(",")[0] for stage in stages}
    assert methods == {"sft", "teacher_mode", "distill", "grpo"}
    assert tools == {"calculator", "python", "weather", "search", "book_room"}
    assert {stage.dialect for stage in stages} == {"the model's own", "json", "calls", "tagged"}
    assert {"every weight" in stage.method for stage in stages} == {True, False}
    assert all(stage.exact_match.n for stage in stages)
    again = list(tour(Workspace(tmp_path, QUICK)))
    assert [stage.run.folder for stage in again] == [stage.run.folder for stage in stages]
