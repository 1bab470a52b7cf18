"""`toolhone compare`: the join, better and worse, both certificates, the guard."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.test_main import run
from toolhone.dialects.probe.certificate import Certificate, CertificateVerdict
from toolhone.errors import ConfigError, DataError
from toolhone.evaluation.certificate_diff import CertificateDiff, Sameness
from toolhone.evaluation.compare import Comparison, compare
from toolhone.evaluation.display import changed_tasks, error_lines, join_lines
from toolhone.evaluation.folder import write_folder
from toolhone.evaluation.guard import GuardResult, guard
from toolhone.evaluation.metrics import Evaluation, JudgedEpisode
from toolhone.evaluation.statistics import Side, holm, mcnemar, paired_p_value, wilson
from toolhone.evaluation.verdict import Cell, Rules
from toolhone.evaluation.verdict import GuardVerdict as Found
from toolhone.schema import Expect

NO_CALL = Expect.from_dict({"no_call": True})
SAME_FORMAT = Certificate(
    verdict=CertificateVerdict.CERTIFIED,
    dialect={
        "name": "native",
        "syntax": "tool_call_tags",
        "history": "appended",
        "stop": ["<|im_end|>"],
    },
    hashes={"template": "a" * 64, "tokenizer": "b" * 64, "dialect": "c" * 64},
    versions={"toolhone": "0.1", "jinja2": "3.1"},
)
OTHER_FORMAT = Certificate(
    verdict=CertificateVerdict.LIMITED,
    limits=("a turn may have one call only",),
    dialect={"name": "json", "syntax": "json", "history": "template", "stop": ["</s>"]},
    hashes={"template": "d" * 64, "tokenizer": "b" * 64, "dialect": "e" * 64},
    versions={"toolhone": "0.1", "jinja2": "3.2"},
)


def sample(
    name: str, scores: Mapping[str, float] | float, category: str = "c", **changes: Any
) -> JudgedEpisode:
    scores = scores if isinstance(scores, Mapping) else {"exact_match": float(scores)}
    made = JudgedEpisode(
        name, category, 0, f"question {name}", f"reply to {name}", (), NO_CALL, "answered", scores
    )
    return replace(made, **changes)


def evaluation(scores: Iterable[Any], category: str = "c", start: int = 0) -> Evaluation:
    return Evaluation(
        tuple(sample(f"t{start + i}", score, category) for i, score in enumerate(scores))
    )


def both(
    gained: int, lost: int, same: int, category: str = "c", start: int = 0
) -> tuple[Evaluation, Evaluation]:
    """Base and tuned with so many tasks gained, lost and right in both."""
    base = [0] * gained + [1] * (lost + same)
    tuned = [1] * gained + [0] * lost + [1] * same
    return evaluation(base, category, start), evaluation(tuned, category, start)


def joined(*sides: tuple[Evaluation, Evaluation]) -> tuple[Evaluation, Evaluation]:
    base, tuned = zip(*sides)
    return tuple(
        Evaluation(tuple(s for part in side for s in part.samples)) for side in (base, tuned)
    )


def total(comparison: Comparison, metric: str = "exact_match") -> Cell:
    return comparison.totals[metric]


def test_gained_lost_and_same_are_counted_and_decide_the_verdict() -> None:
    cell = total(compare(*both(gained=12, lost=2, same=6)))
    assert (cell.difference.n, cell.gained, cell.lost, cell.to_dict()["same"]) == (20, 12, 2, 6)
    assert (cell.base, cell.tuned) == (wilson(8, 20), wilson(18, 20))
    assert cell.difference.value == 0.5
    assert cell.p == mcnemar(12, 2)
    assert cell.p_better == mcnemar(12, 2, Side.GAIN, mid=True)
    assert cell.verdict is Found.BETTER
    assert total(compare(*reversed(both(12, 2, 6)))).verdict is Found.WORSE


@pytest.mark.parametrize(
    ("gained", "lost", "same", "verdict"),
    [
        (4, 0, 20, Found.SAME),
        (6, 0, 20, Found.BETTER),
        (0, 3, 50, Found.UNDECIDED),
        (0, 5, 50, Found.WORSE),
        (2, 2, 200, Found.SAME),
        (0, 0, 40, Found.SAME),
        (0, 0, 20, Found.UNDECIDED),
        (0, 9, 0, Found.UNDECIDED),
    ],
)
def test_a_verdict_needs_enough_changes_or_enough_tasks(
    gained: int, lost: int, same: int, verdict: Found
) -> None:
    assert total(compare(*both(gained, lost, same))).verdict is verdict


def test_fractions_are_compared_by_their_size_and_not_as_right_or_wrong() -> None:
    base, tuned = (
        evaluation([{"tool_accuracy": 0.5}] * 12),
        evaluation([{"tool_accuracy": 0.75}] * 10 + [{"tool_accuracy": 0.25}] * 2),
    )
    cell = total(compare(base, tuned), "tool_accuracy")
    assert (cell.gained, cell.lost) == (10, 2)
    assert cell.difference.value == pytest.approx((10 * 0.25 - 2 * 0.25) / 12)
    assert cell.verdict is Found.BETTER
    assert cell.difference.low < cell.difference.value < cell.difference.high


def test_half_of_the_allowed_error_is_the_totals_and_half_the_categories() -> None:
    sides = joined(
        both(0, 7, 20, "a"),
        both(0, 0, 20, "b", 100),
        both(1, 1, 20, "c", 200),
        both(0, 1, 20, "d", 300),
    )
    comparison = compare(*sides)
    lost = [(1, 9), (0, 7), (0, 0), (1, 1), (0, 1)]
    raw = [mcnemar(gained, gone, Side.LOSS, mid=True) for gained, gone in lost]
    cells = [total(comparison), *comparison.by_category["exact_match"].values()]
    assert [cell.p_worse for cell in cells] == pytest.approx(holm(raw, [4, 1, 1, 1, 1]))
    assert cells[0].p_worse == pytest.approx(2 * raw[0])
    assert [cell.verdict for cell in cells[:2]] == [Found.WORSE, Found.WORSE]


def test_a_category_that_was_not_measured_costs_the_others_nothing() -> None:
    plain = evaluation([{"valid_format": 1.0}] * 30, "b", 100)
    alone = compare(*both(0, 6, 20, "a"))
    cells = compare(*joined(both(0, 6, 20, "a"), (plain, plain))).by_category["exact_match"]
    assert (cells["b"].difference.n, cells["b"].verdict) == (0, Found.NOT_MEASURED)
    assert cells["a"].verdict is total(alone).verdict is Found.WORSE


def test_tasks_of_one_conversation_count_as_one_witness() -> None:
    """Thirty losses in three conversations are three losses; in thirty tasks they are thirty."""
    base, tuned = both(0, 30, 100)
    assert total(compare(base, tuned)).verdict is Found.WORSE
    base, tuned = (
        Evaluation(tuple(replace(s, cluster=f"c{int(s.id[1:]) // 10}") for s in side.samples))
        for side in (base, tuned)
    )
    comparison = compare(base, tuned)
    cell, moves = total(comparison), [-1.0] * 30 + [0.0] * 100
    assert (comparison.clusters, cell.lost, cell.difference.n) == (13, 30, 130)
    assert cell.p_worse == pytest.approx(1 / 8 / 2)
    assert cell.verdict is Found.UNDECIDED
    assert paired_p_value(moves, Side.LOSS, mid=True) < 1e-8
    assert cell.difference.low < -0.4


def test_tasks_lost_and_gained_are_counted_by_kind_of_error() -> None:
    base, tuned = both(2, 3, 10)
    tuned = Evaluation(
        tuple(
            replace(s, error="needless call" if s.id == "t2" else "wrong tool")
            if not s.scores["exact_match"]
            else s
            for s in tuned.samples
        )
    )
    comparison = compare(base, tuned)
    assert comparison.errors("exact_match", gained=False) == {"wrong tool": 2, "needless call": 1}
    assert comparison.errors("exact_match", gained=True) == {"other": 2}
    assert error_lines(comparison, "exact_match") == [
        "lost, tuned's errors: 2 wrong tool, 1 needless call",
        "gained, base's errors: 2 other",
    ]


def test_every_sample_is_compared_or_counted() -> None:
    base = Evaluation((*evaluation([1, 1, 1, 1]).samples, sample("old", 1), sample("older", 0)))
    tuned = Evaluation(
        (
            *evaluation([1, 0, 1]).samples,
            sample("t3", 1, query="another question"),
            sample("new", 1),
        )
    )
    join = compare(base, tuned)
    assert ([pair.id for pair in join.pairs], join.samples) == (["t0", "t1", "t2"], 3)
    assert (join.only_base, join.only_tuned, join.different) == (
        ("old", "older"),
        ("new",),
        ("t3",),
    )
    assert join.samples + len(join.only_base) + len(join.different) == len(base.samples)
    assert join.samples + len(join.only_tuned) + len(join.different) == len(tuned.samples)
    assert join_lines(join) == [
        (
            "base: 6 samples, 3 compared, 2 only there (old, older), 1 with "
            "another task under their id (t3)"
        ),
        "tuned: 5 samples, 3 compared, 1 only there (new), 1 with another task under their id (t3)",
    ]


def test_an_id_with_another_expectation_is_another_task() -> None:
    wanted = Expect.from_dict({"calls": [{"name": "weather", "arguments": {}}]})
    base, tuned = (
        evaluation([1, 1]),
        Evaluation((sample("t0", 1), sample("t1", 1, expected=wanted))),
    )
    assert compare(base, tuned).different == ("t1",)


def test_another_category_is_the_same_task_and_is_reported() -> None:
    join = compare(evaluation([1, 1]), Evaluation((sample("t0", 1), sample("t1", 1, "moved"))))
    assert [pair.category for pair in join.pairs] == ["c", "c"]
    assert "1 samples have another category in tuned; base's counts (t1)" in join_lines(join)


@pytest.mark.parametrize(
    ("tuned", "sentence"),
    [
        (
            evaluation([1], start=7),
            "no task in common \\(base has 2, such as 't0', tuned 1, such as 't7'\\)",
        ),
        (
            Evaluation((sample("t0", 1, query="x"), sample("t1", 1, query="y"))),
            "all 2 task ids that both evaluations have name different tasks",
        ),
        (
            Evaluation((sample("t0", 1), sample("t0", 1))),
            "tuned: the task t0 \\(seed 0\\) occurs more than once",
        ),
    ],
)
def test_evaluations_that_cannot_be_joined_are_refused_in_a_sentence(
    tuned: Evaluation, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        compare(evaluation([1, 1]), tuned)


def test_a_single_seed_of_each_is_joined_on_the_id_alone() -> None:
    base, tuned = both(6, 0, 2)
    other = Evaluation(tuple(replace(s, seed=5) for s in tuned.samples))
    assert total(compare(base, other)) == total(compare(base, tuned))


def test_a_task_with_several_seeds_counts_once_with_its_mean() -> None:
    def seeds(scores: list[list[float]]) -> Evaluation:
        return Evaluation(
            tuple(
                sample(f"t{i}", s, seed=k)
                for i, row in enumerate(scores)
                for k, s in enumerate(row)
            )
        )

    comparison = compare(seeds([[0, 0, 1], [1, 1, 1]]), seeds([[1, 1, 1], [1, 1]]))
    cell = total(comparison)
    assert (cell.difference.n, cell.gained, cell.to_dict()["same"]) == (2, 1, 1)
    assert (cell.base.value, cell.tuned.value) == (pytest.approx(2 / 3), 1.0)
    assert comparison.samples == 5
    assert comparison.only_base == ("t1 (seed 2)",)
    assert (
        "each task counts once, with its mean over the seeds that both have (0, 1, 2)"
        in join_lines(comparison)
    )


def test_a_metric_of_one_side_alone_is_counted_and_not_compared() -> None:
    base, tuned = (
        evaluation([{"exact_match": 1.0, "execution_success": 1.0}] * 3),
        evaluation([1] * 3),
    )
    cell = total(compare(base, tuned), "execution_success")
    assert (cell.difference.n, cell.only_base, cell.only_tuned, cell.verdict) == (
        0,
        3,
        0,
        Found.NOT_MEASURED,
    )
    assert cell.difference.value is None


def test_metrics_are_chosen_by_name_and_unknown_ones_refused_with_the_nearest() -> None:
    scores = {"exact_match": 1.0, "brief": 0.5}
    base = Evaluation((sample("t0", scores, legacy_scores={"playground.tool_accuracy": 1.0}),))
    assert compare(base, base).metrics == ("exact_match", "brief")
    assert compare(base, base, ["playground.tool_accuracy", "brief"]).metrics == (
        "playground.tool_accuracy",
        "brief",
    )
    with pytest.raises(
        ConfigError,
        match=r"'exact_mach' \(did you mean 'exact_match'\?\); measured: exact_match, brief",
    ):
        compare(base, base, ["exact_mach"])


def test_a_loss_within_the_margin_or_not_proved_beyond_it_is_no_loss() -> None:
    sides = both(gained=0, lost=20, same=180)
    found = [total(compare(*sides, rules=Rules(margin))) for margin in (0.0, 0.05, 0.08, 0.1, 0.2)]
    assert [cell.verdict for cell in found] == [
        *[Found.WORSE, Found.WORSE, Found.UNDECIDED, Found.UNDECIDED, Found.SAME]
    ]
    assert [cell.p_worse for cell in found] == sorted(cell.p_worse or 0.0 for cell in found)


def test_a_loss_in_one_category_is_found_although_the_total_gained() -> None:
    comparison = compare(*joined(both(60, 0, 100, "large"), both(0, 9, 11, "small", 500)))
    assert total(comparison).verdict is Found.BETTER
    found = guard(comparison)
    assert [(cell.metric, cell.category) for cell in found.worse] == [("exact_match", "small")]
    assert (found.result, found.exit_code) == (GuardResult.FAILED, 1)


def test_a_call_where_none_is_wanted_fails_the_guard_though_exact_match_rose() -> None:
    def side(calls: float, silence: float) -> Evaluation:
        names = [{"exact_match": calls}] * 60
        names += [{"exact_match": silence, "no_call_accuracy": silence}] * 12
        return evaluation(names)

    found = guard(compare(side(0, 1), side(1, 0)))
    assert [cell.metric for cell in found.worse] == ["no_call_accuracy"]


def partly_measured(no_call: int) -> Comparison:
    """Sixty tasks without a change, and so few that want no call."""
    scores = [{"exact_match": 1.0}] * 60
    silent = evaluation([{"exact_match": 1.0, "no_call_accuracy": 1.0}] * no_call, "silent", 100)
    side = evaluation(scores), silent
    base, tuned = joined((side[0], side[0]), (side[1], side[1]))
    return compare(base, tuned)


def test_a_metric_without_a_verdict_blocks_a_guard_only_where_it_was_named() -> None:
    found = partly_measured(no_call=4)
    assert found.guarded == ("exact_match", "no_call_accuracy")
    assert found.totals["no_call_accuracy"].verdict is Found.UNDECIDED
    assert guard(found).result is GuardResult.PASSED
    assert guard(replace(found, named=True)).result is GuardResult.UNDECIDED


def test_a_strict_guard_wants_no_verdict_where_a_metric_does_not_apply() -> None:
    found = partly_measured(no_call=60)
    assert found.by_category["no_call_accuracy"]["c"].verdict is Found.NOT_MEASURED
    assert guard(found, strict=True).result is GuardResult.PASSED
    assert guard(found, strict=True).undecided == ()


def test_changed_tasks_are_shown_with_both_texts_the_clearest_first() -> None:
    base = [sample(f"a{i}", {"exact_match": 1, "valid_format": 1}, "a") for i in range(3)]
    base += [sample("b0", {"exact_match": 1, "valid_format": 1}, "b")]
    tuned = [
        replace(s, scores={"exact_match": 0, "valid_format": s.id != "a2"}, text=f"worse {s.id}")
        for s in base
    ]
    tuned[0] = replace(tuned[0], text="\x1b[31mred [bold]", reasons=("because it is red",))
    comparison = compare(Evaluation(tuple(base)), Evaluation(tuple(tuned)))
    assert [pair.id for pair in comparison.changed("exact_match", gained=False)] == [
        "a2",
        "b0",
        "a0",
        "a1",
    ]
    shown = changed_tasks(comparison, "exact_match", gained=False, k=3).plain
    assert shown.startswith("lost by exact_match: 4 of 4 tasks, 3 of them here")
    assert "reply to a0" in shown
    assert "[31mred [bold]" in shown
    assert "\x1b" not in shown
    assert "tuned is wrong: because it is red" in shown
    assert (
        changed_tasks(comparison, "exact_match", gained=True, k=3).plain
        == "gained by exact_match: 0 of 4 tasks"
    )


@pytest.mark.parametrize(
    ("base", "tuned", "sameness", "sentence"),
    [
        (
            SAME_FORMAT,
            SAME_FORMAT.model_copy(update={"versions": {"toolhone": "9"}}),
            Sameness.SAME,
            "evaluated in the same format",
        ),
        (
            SAME_FORMAT,
            OTHER_FORMAT,
            Sameness.DIFFERENT,
            "evaluated in different formats: template and dialect differ",
        ),
        (
            SAME_FORMAT,
            None,
            Sameness.UNKNOWN,
            "not known whether the two were evaluated in the same format: tuned has no certificate",
        ),
        (None, None, Sameness.UNKNOWN, "base and tuned have no certificate"),
    ],
)
def test_formats_are_the_same_different_or_not_known(
    base: Certificate | None, tuned: Certificate | None, sameness: Sameness, sentence: str
) -> None:
    formats = CertificateDiff(base, tuned)
    assert formats.sameness is sameness
    assert formats.sentence.endswith(sentence)


def test_both_certificates_stand_side_by_side_with_short_hashes() -> None:
    rows = {
        name: (base, tuned) for name, base, tuned in CertificateDiff(SAME_FORMAT, OTHER_FORMAT).rows
    }
    assert rows["verdict"] == ("certified", "certified with limits")
    assert rows["limits"] == ("none", "a turn may have one call only")
    assert rows["dialect"] == ("native", "json")
    assert rows["calls written as"] == ("tool_call_tags", "json")
    assert rows["history"] == ("appended", "template")
    assert rows["template hash"] == ("a" * 12, "d" * 12)
    assert rows["with jinja2"] == ("3.1", "3.2")
    assert "with toolhone" not in rows, "versions that agree say nothing"
    assert {name: tuned for name, _, tuned in CertificateDiff(SAME_FORMAT, None).rows}[
        "verdict"
    ] == "no certificate"


def folders(
    tmp_path: Path, sides: tuple[Evaluation, Evaluation], tuned: Certificate | None = SAME_FORMAT
) -> tuple[Path, Path]:
    """Base as an evaluation folder, tuned as the evaluation of a run."""
    base = write_folder(sides[0], tmp_path / "base", SAME_FORMAT.to_dict())
    run_folder = tmp_path / "run"
    write_folder(sides[1], run_folder / "evaluation", None if tuned is None else tuned.to_dict())
    (run_folder / "experiment.json").write_text("{}")
    return base, run_folder


@pytest.mark.parametrize(
    ("gained", "lost", "options", "code"),
    [
        (0, 8, [], 0),
        (0, 8, ["--guard"], 1),
        (8, 0, ["--guard"], 0),
        (0, 2, ["--guard"], 0),
        (0, 8, ["--guard", "--tolerance", "8"], 3),
        (0, 8, ["--guard", "--margin", "20"], 0),
        (0, 8, ["--guard", "--margin", "3"], 1),
        (0, 8, ["--guard", "--json"], 1),
        (0, 8, ["--guard", "--metric", "valid_format"], 0),
        (0, 8, ["--guard", "--min-tasks", "101"], 3),
    ],
)
def test_the_guard_says_by_its_exit_code_whether_anything_got_worse(
    gained: int,
    lost: int,
    options: list[str],
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, tuned = both(gained, lost, 100 - gained - lost)
    steady = [
        Evaluation(
            tuple(replace(s, scores={**s.scores, "valid_format": 1.0}) for s in side.samples)
        )
        for side in (base, tuned)
    ]
    found, out, err = run(
        capsys, monkeypatch, "compare", *folders(tmp_path, (steady[0], steady[1])), *options
    )
    assert (found, err) == (code, "")
    if "--guard" in options and "--json" not in options:
        assert ("guard: failed, 1 comparison got worse" in out) == (code == 1)
        assert ("guard: passed, nothing got worse" in out) == (code == 0)


@pytest.mark.parametrize(
    ("gained", "lost", "same", "code"),
    [(0, 0, 4, 3), (0, 4, 0, 3), (0, 0, 34, 3), (0, 0, 35, 0), (0, 3, 37, 3), (0, 20, 0, 1)],
)
def test_a_guard_that_decides_nothing_exits_with_3(
    gained: int,
    lost: int,
    same: int,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = folders(tmp_path, both(gained, lost, same))
    found, out, _ = run(capsys, monkeypatch, "compare", *paths, "--guard")
    assert found == code
    assert ("guard: undecided, too few tasks" in out) == (code == 3)
    _, out, _ = run(capsys, monkeypatch, "compare", *paths, "--guard", "--json")
    judged = json.loads(out)["guard"]
    assert judged["result"] == {0: "passed", 1: "failed", 3: "undecided"}[code]
    assert judged["passed"] == (code == 0)
    assert [cell["metric"] for cell in judged["undecided"]] == ["exact_match"] * (code == 3)


def test_a_run_alone_is_compared_with_its_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = both(0, 9, 40)
    _, run_folder = folders(tmp_path, sides)
    write_folder(sides[0], run_folder / "baseline", SAME_FORMAT.to_dict())
    code, out, _ = run(capsys, monkeypatch, "compare", run_folder, "--guard")
    assert code == 1
    assert "lost by exact_match: 9 of 49 tasks" in out


def test_a_strict_guard_wants_a_verdict_in_every_category(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = folders(tmp_path, joined(both(0, 0, 200, "large"), both(0, 0, 5, "small", 500)))
    assert run(capsys, monkeypatch, "compare", *paths, "--guard")[0] == 0
    code, out, _ = run(capsys, monkeypatch, "compare", *paths, "--guard", "--strict")
    assert code == 3
    assert "exact_match in small (undecided): +0.0 (" in out
    assert "5 tasks; no loss could be found" not in out


def test_the_guard_refuses_different_task_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaving out what got worse must not pass a build."""
    base, tuned = both(0, 9, 40)
    kept = Evaluation(tuple(s for s in tuned.samples if s.scores["exact_match"]))
    paths = folders(tmp_path, (base, kept))
    assert run(capsys, monkeypatch, "compare", *paths)[0] == 0
    code, out, err = run(capsys, monkeypatch, "compare", *paths, "--guard")
    assert (code, out) == (2, "")
    assert "the same tasks on both sides, but 9 only in BASE (such as 't0')" in err
    code, _, err = run(capsys, monkeypatch, "compare", *reversed(paths), "--guard")
    assert code == 2
    assert "the same tasks on both sides, but 9 only in TUNED (such as 't0')" in err


def test_a_summary_for_a_pull_request_is_markdown_that_text_cannot_break(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "a|b<script>"
    sides = joined(both(0, 9, 20, hostile), both(2, 0, 20, "b", 100))
    file = tmp_path / "deep" / "summary.md"
    command = ("compare", *folders(tmp_path, sides), "--guard", "--markdown", file)
    assert run(capsys, monkeypatch, *command)[0] == 1
    text = file.read_text()
    assert text.startswith("### ❌ guard: failed, 2 comparisons got worse")
    assert "a\\|b\\<script\\>" in text
    assert hostile not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {re.sub(r"\\\|", "", row).count("|") for row in rows} == {10}
    run(capsys, monkeypatch, *command)
    assert file.read_text() == text * 2, "a summary of a build is appended to"


def test_a_guard_on_a_metric_that_was_not_measured_is_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tuned = both(0, 0, 50)
    tuned = Evaluation(
        tuple(replace(s, scores={**s.scores, "valid_format": 1.0}) for s in tuned.samples)
    )
    paths = folders(tmp_path, (base, tuned))
    options = ("--guard", "--metric", "valid_format")
    assert run(capsys, monkeypatch, "compare", *paths, *options)[0] == 3
    assert run(capsys, monkeypatch, "compare", *paths, "--guard")[0] == 0


def test_a_build_fails_when_the_guard_does(tmp_path: Path) -> None:
    base, tuned = folders(tmp_path, both(0, 9, 40))
    command = [
        sys.executable,
        "-m",
        "toolhone.cli.main",
        "compare",
        str(base),
        str(tuned),
        "--guard",
    ]
    done = subprocess.run(
        ["/bin/sh", "-ec", '"$@"; echo built', "sh", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "built" not in done.stdout
    assert "Traceback" not in done.stderr


def test_the_table_the_tasks_and_both_certificates_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = joined(both(3, 12, 20, "weather"), both(0, 0, 20, "chat", 100))
    code, out, _ = run(capsys, monkeypatch, "compare", *folders(tmp_path, sides, OTHER_FORMAT))
    assert code == 0
    for line in (
        "exact_match by category",
        "weather",
        "lost by exact_match: 12 of 55 tasks",
        "reply to t3",
        "worse",
    ):
        assert line in out
    assert "the two were evaluated in different formats: template and dialect differ" in out
    assert "base: 55 samples, 55 compared" in out
    assert "guard" not in out


def test_a_folder_without_a_certificate_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = run(capsys, monkeypatch, "compare", *folders(tmp_path, both(1, 1, 5), None))
    assert "tuned has no certificate" in out


def test_json_holds_every_cell_and_is_what_out_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = joined(both(0, 9, 20, "a"), both(2, 0, 20, "b", 100))
    options = (
        "--guard",
        "--tolerance",
        "2",
        "--json",
        "--out",
        tmp_path / "deep" / "comparison.json",
    )
    code, out, _ = run(capsys, monkeypatch, "compare", *folders(tmp_path, sides), *options)
    found = json.loads(out)
    assert code == 1
    assert found == json.loads((tmp_path / "deep" / "comparison.json").read_text())
    assert found["metrics"]["exact_match"]["all"]["lost"] == 9
    assert found["metrics"]["exact_match"]["categories"]["a"]["p"] == mcnemar(0, 9)
    assert found["metrics"]["exact_match"]["lost_by_error"] == {"other": 9}
    assert found["metrics"]["exact_match"]["gained"] == ["t100", "t101"]
    assert found["guard"]["margin"] == 0.02
    assert [cell["category"] for cell in found["guard"]["worse"]] == [None, "a"]
    assert found["certificates"]["formats"] == "same"
    assert found["certificates"]["base"]["verdict"] == "certified"
    assert found["examples"]["lost"][0]["tuned"]["text"] == "reply to t0"
    assert found["paired"] == {
        "tasks": 51,
        "samples": 51,
        "clusters": 51,
        "only_base": [],
        "only_tuned": [],
        "different": [],
        "recategorised": [],
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["base", "nowhere"], "nowhere: no such folder; wanted an evaluation folder"),
        (["base", "empty"], "empty: this is no evaluation; wanted an evaluation folder"),
        (
            ["base", "bare"],
            (
                "bare is a run without an evaluation; make one with toolhone eval bare "
                "--out bare/evaluation"
            ),
        ),
        (
            ["base", "demo"],
            (
                "demo holds 2 evaluations; name one of demo/evaluation/fillers, "
                "demo/evaluation/phrasings"
            ),
        ),
        (["run"], "run holds no evaluation of its base (run/baseline); name BASE and TUNED"),
        (["base", "base"], "BASE and TUNED are the same evaluation"),
        (["run", "run/evaluation"], "BASE and TUNED are the same evaluation"),
        (["base", "run", "--strict"], "--strict says when --guard is undecided; add --guard"),
        (
            ["base", "run", "--metric", "loss"],
            "neither evaluation measured 'loss'; measured: exact_match",
        ),
        (["base", "damaged"], "certificate.json is no certificate of a format"),
        (["base", "spoilt"], "certificate.json is no certificate of a format"),
    ],
)
def test_a_wrong_use_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folders(tmp_path, both(1, 1, 5))
    for name in ("empty", "bare"):
        (tmp_path / name).mkdir()
    (tmp_path / "bare" / "experiment.json").write_text("{}")
    for split in ("phrasings", "fillers"):
        write_folder(both(1, 1, 5)[1], tmp_path / "demo" / "evaluation" / split)
    write_folder(both(1, 1, 5)[1], tmp_path / "damaged", {"verdict": "splendid"})
    spoilt = {"verdict": "certified", "hashes": {"dialect": 5}, "dialect": {"stop": 5}}
    write_folder(both(1, 1, 5)[1], tmp_path / "spoilt", spoilt)
    code, out, err = run(capsys, monkeypatch, "compare", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert sentence in err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"id": None}, "the key 'id' is missing"),
        ({"id": ""}, "'id' and 'category' must not be empty"),
        ({"category": ""}, "'id' and 'category' must not be empty"),
        ({"id": "t1"}, "the task t1 (seed 0) occurs more than once"),
        ({"scores": {"exact_match": float("nan")}}, "NaN is not JSON"),
        ({"scores": {"exact_match": 2}}, "scores must lie in [0, 1]"),
        ({"scores": None}, "the key 'scores' is missing"),
        ({"calls": 3}, "not a sample of an evaluation"),
    ],
)
def test_a_damaged_evaluation_is_one_sentence_and_exit_code_2(
    change: dict[str, Any],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = folders(tmp_path, both(1, 1, 5))
    file = paths[0] / "samples.jsonl"
    first, *others = file.read_text().splitlines()
    record = {**json.loads(first), **change}
    record = {key: value for key, value in record.items() if value is not None}
    file.write_text("\n".join([json.dumps(record), *others]) + "\n")
    code, out, err = run(capsys, monkeypatch, "compare", *paths, "--guard")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert sentence in err


def test_several_samples_of_a_task_give_pass_hat_k_and_wider_intervals() -> None:
    once = evaluation([1, 1, 0, 0] * 5)
    thrice = Evaluation(tuple(replace(s, seed=seed) for s in once.samples for seed in range(3)))
    assert once.pass_hat == {}
    assert thrice.pass_hat == {"exact_match": {1: 0.5, 2: 0.5, 3: 0.5}}
    assert thrice.to_dict()["pass_hat_k"] == thrice.pass_hat
    score, same = thrice.metrics["exact_match"], once.metrics["exact_match"]
    assert (score.value, score.n, same.n) == (same.value, 60, 20)
    assert score.high - score.low == pytest.approx(same.high - same.low, abs=0.02)
    comparison = compare(thrice, thrice)
    assert comparison.seed_spreads("exact_match")["base"] == (0.5, 0.0)
