"""The attack suite: our rewards have no hole, and the others exactly those that are listed."""

import re
from pathlib import Path

import pytest

from conftest import SHARED
from toolhone.config.experiment import load_experiment
from toolhone.data.task_files import tasks_from_any
from toolhone.data.world_tasks import solve
from toolhone.dialects.choose import SYNTAXES, open_syntax
from toolhone.dialects.syntax.model_text import Tagged
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.errors import DataError
from toolhone.rewards.attack_calls import sample_call
from toolhone.rewards.attack_suite import OPEN_PROBES, PROBES, AttackReport, attack_suite
from toolhone.rewards.attacks import ATTACKS, AttackCase, CallDraft, ScriptedReply
from toolhone.rewards.matching import match_calls
from toolhone.rewards.reward_registry import LEGACY, OWN, Reward, RewardOrigin, RewardSpec
from toolhone.schema import Task, Tool
from toolhone.tools.result import ToolStatus
from toolhone.training.dataset import load_data

ASKED_FOR = {
    *(
        "empty",
        "spray",
        "spurious_30",
        "copied_schema",
        "wrong_types",
        "prose_call",
        "nested_tags",
        "truncated",
        "duplicate",
    ),
    *("harmful_call", "leaked_answer", "control_tokens", "unicode_name", "unicode_value"),
}


def run_attacks(spec: RewardSpec, tasks=PROBES, syntax: str = "tagged") -> AttackReport:
    return attack_suite(Reward(spec.name, spec.function), tasks, open_syntax(syntax), spec.judges)


def holes(report: AttackReport) -> list[str]:
    return [found.attack.name for found in report.holes]


@pytest.mark.parametrize("syntax", sorted(SYNTAXES))
@pytest.mark.parametrize("spec", OWN, ids=lambda spec: spec.name)
def test_our_own_rewards_hold_against_every_attack_in_every_syntax(spec, syntax):
    report = run_attacks(spec, syntax=syntax)
    assert holes(report) == []
    assert all(found.gold == pytest.approx(1.0) for found in report.worst.values())


@pytest.mark.parametrize("spec", LEGACY, ids=lambda spec: spec.name)
def test_the_known_holes_of_other_rewards_are_those_that_are_found(spec):
    assert spec.kind is RewardOrigin.COMPATIBLE
    assert set(holes(run_attacks(spec, syntax=spec.syntax))) == set(spec.holes)


def test_the_docs_list_every_attack_with_its_bound_and_every_hole():
    page = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text()
    rows = dict(
        re.findall(
            r"^\| `(\w+)` \| ([\w,;: .-]+) \|", page.split("## The attack suite")[1], re.MULTILINE
        )
    )
    assert {name: float(rows[name]) for name in ATTACKS} == {
        name: one.bound for name, one in ATTACKS.items()
    }
    found: dict[str, set[str]] = {}
    for spec in LEGACY:
        words = set(re.findall(r"\w+", rows[spec.name])) & set(ATTACKS)
        if "the four on a state" in rows[spec.name]:
            words |= {"idle", "undone", "unfinished", "brute_writes"}
        same = found["tool_call_params"] if "the same" in rows[spec.name] else set()
        found[spec.name] = set(ATTACKS) - words if "all but" in rows[spec.name] else words | same
        assert found[spec.name] == set(spec.holes), spec.name
    assert all(f"`{spec.name}`" in page for spec in OWN)


def test_every_attack_is_played_on_the_shipped_tasks():
    assert set(ATTACKS) >= ASKED_FOR
    assert all(0 <= one.bound < 1 for one in ATTACKS.values())
    report = run_attacks(OWN[0])
    assert set(report.worst) == set(ATTACKS)
    assert report.tasks == len(PROBES)
    assert report.tried["spray"] >= 8
    assert not report.skipped


@pytest.mark.parametrize("syntax", sorted(SYNTAXES))
def test_our_own_rewards_hold_where_a_task_leaves_something_open(syntax):
    for spec in OWN:
        if not any(map(spec.judges, OPEN_PROBES)):
            continue
        report = run_attacks(spec, OPEN_PROBES, syntax)
        assert holes(report) == []
        assert report.worst["empty"].share == 0.0
    calls = run_attacks(OWN[0], OPEN_PROBES, syntax)
    assert {
        "spray",
        "spurious_30",
        "duplicate",
        "harmful_call",
        "wrong_types",
        "listed_answers",
    } <= set(calls.worst)


def test_legacy_rewards_have_no_further_holes_on_open_tasks():
    for spec in LEGACY:
        report = run_attacks(spec, OPEN_PROBES, spec.syntax or "tagged")
        assert set(holes(report)) <= set(spec.holes), spec.name
        assert (report.tasks, sum(report.skipped.values())) == (2, 3)


def test_a_reply_that_is_right_as_well_is_no_attack():
    by_name = {task.id: task for task in OPEN_PROBES}
    free = AttackCase(by_name["any_arguments"], Tagged())
    assert free.is_right_too(free.gold)
    assert list(ATTACKS["wrong_value"].replies(free)) == []
    assert len(list(ATTACKS["extra_arguments"].replies(free))) == 1
    closed = AttackCase(PROBES[0], Tagged())
    assert not closed.is_right_too(closed.gold)


def test_our_own_rewards_hold_on_made_tasks():
    tasks = load_data(load_experiment(None, ["data.samples=160"], tell=lambda _: None)).tasks[:16]
    assert len({task.category for task in tasks}) >= 5
    for spec in OWN:
        if any(map(spec.judges, tasks)):
            assert holes(run_attacks(spec, tasks)) == []


@pytest.mark.real
@pytest.mark.parametrize(
    "file",
    ["BFCL_v4_live_parallel_multiple.json", "AddReminder-level-1-1.jsonl", "apibank_l1.json"],
)
def test_our_own_rewards_hold_on_published_tasks(file):
    path = next(iter((SHARED / "datasets").rglob(file)), None) if SHARED.is_dir() else None
    if path is None:
        pytest.skip(f"{file} is not here")
    tasks = [task for task in tasks_from_any(path, (), lambda _: None) if not task.turns][:15]
    for spec in OWN:
        if any(map(spec.judges, tasks)):
            assert holes(run_attacks(spec, tasks, "tool_call_tags")) == []


# The suite on rewards as users write them.


def by_share(task: Task, episode: Episode) -> float:
    """A reward of which 30 superfluous calls leave most: extra calls cost hardly anything."""
    wanted = [call.name for call in task.expect.calls or ()]
    called = [call.name for call in episode.calls]
    names = len(set(wanted) & set(called)) / max(1, len(set(wanted) | set(called)))
    right = (
        match_calls(episode.calls, task.expect, task.tools)
        if task.expect.calls or task.expect.no_call
        else None
    )
    found = sum(pair.share for pair in right.pairs) / max(1, len(wanted)) if right else 0.0
    return names + 2 * found


def careless(task: Task, episode: Episode) -> float:
    """Pays 2 for the wanted names, 3 for a word of thanks, and never asks for more."""
    return 2.0 * (
        {call.name for call in episode.calls} >= {call.name for call in task.expect.calls or ()}
    )


def constant(task: Task, episode: Episode) -> float:  # noqa: ARG001
    return 7.0


def tidy(task: Task, episode: Episode) -> float:
    """Shifted and stretched, and sound: 20 points off for anything that is not exactly right."""
    form = episode.ending in (EpisodeStatus.ANSWERED, EpisodeStatus.CALLED) and all(
        r.outcome is ToolStatus.OK for row in episode.results for r in row
    )
    match = match_calls(episode.calls, task.expect, task.tools)
    plain = all(
        turn.text == Tagged().write(None, turn.message.tool_calls) for turn in episode.turns
    )
    return -100.0 if form and plain and match.exact else -120.0


def test_a_reward_that_pays_for_superfluous_calls_is_found_out():
    report = attack_suite(Reward("by_share", by_share), PROBES, Tagged())
    assert {"spurious_30", "duplicate", "harmful_call"} <= set(holes(report))
    assert report.worst["spurious_30"].share > 0.6


def test_a_careless_reward_has_the_holes_one_would_expect():
    found = set(holes(attack_suite(Reward("careless", careless), PROBES[:7], Tagged())))
    assert {
        "spray",
        "wrong_value",
        "copied_schema",
        "duplicate",
        "harmful_call",
        "verbose",
        "control_tokens",
    } <= found
    assert "letter_case" not in found


def test_a_constant_reward_fails_everything():
    report = attack_suite(Reward("constant", constant), PROBES, Tagged())
    assert set(holes(report)) == set(ATTACKS)


def test_a_sound_reward_passes_on_every_scale():
    calls = [task for task in PROBES if task.expect.calls and task.expect.answer is None]
    assert holes(attack_suite(Reward("tidy", tidy), calls, Tagged())) == []


def test_shares_are_the_way_from_silence_to_the_right_answer():
    worst = attack_suite(Reward("tidy", tidy), PROBES[:1], Tagged()).worst["duplicate"]
    assert (worst.pay, worst.gold, worst.nothing, worst.share) == (-120.0, -100.0, -120.0, 0.0)


def test_what_cannot_be_attacked_is_counted_by_reason():
    turns = Task("two", turns=((),), expects=(PROBES[0].expect,))
    odd = Task.from_dict(
        {
            "id": "odd",
            "messages": [{"role": "user", "content": "?"}],
            "tools": [],
            "expect": {"calls": [{"name": "odd name", "arguments": {}}]},
        }
    )
    report = attack_suite(Reward("constant", constant), [turns, odd, *PROBES], open_syntax("calls"))
    assert report.tasks == len(PROBES)
    assert sum(report.skipped.values()) == 2
    assert any("several user turns" in reason for reason in report.skipped)
    assert any("cannot write the right answer" in reason for reason in report.skipped)
    assert report.unwritable > 0
    with pytest.raises(
        DataError,
        match=r"none of 1 tasks can be used to attack the reward 'constant' "
        r"\(1: a task with several",
    ):
        attack_suite(Reward("constant", constant), [turns], Tagged())


def test_a_report_can_be_written_as_json():
    written = run_attacks(LEGACY[1], syntax="calls").to_dict()
    assert set(written) == {
        "reward",
        "syntax",
        "tasks",
        "skipped",
        "unwritable",
        "attacks",
        "holes",
    }
    assert [one["attack"] for one in written["attacks"] if not one["held"]] == [
        one["attack"] for one in written["holes"]
    ]
    assert all(one["texts"] for one in written["holes"])


# How replies are played.


@pytest.mark.parametrize("task", [*PROBES, *OPEN_PROBES], ids=lambda task: task.id)
@pytest.mark.parametrize("syntax", sorted(SYNTAXES))
def test_the_right_answer_is_played_to_its_end(task, syntax):
    case = AttackCase(task, open_syntax(syntax))
    episode = case.play(case.gold)
    assert episode.calls == (tuple(solve(task).steps) if task.world else case.wanted)
    assert episode.ending is (
        EpisodeStatus.CALLED
        if case.wanted and task.expect.answer is None
        else EpisodeStatus.ANSWERED
    )
    answer = solve(task).answer if task.world else case.answer
    assert episode.answer == (answer if episode.ending is EpisodeStatus.ANSWERED else None)


def test_a_case_ends_where_the_driver_would_end_it():
    case = AttackCase(PROBES[0], Tagged())
    call = case.gold.texts[0]
    assert case.play(ScriptedReply((call, call, "done", call))).ending is EpisodeStatus.ANSWERED
    assert len(case.play(ScriptedReply((call, call, "done", call))).turns) == 3
    assert case.play(ScriptedReply(("[TOOL_CALL]{", call))).ending is EpisodeStatus.MALFORMED
    cut = case.play(ScriptedReply((call,), cut=True))
    assert (cut.ending, cut.results) == (EpisodeStatus.TRUNCATED, ((),))
    outcomes = [
        result.outcome
        for result in case.play(
            case.write(CallDraft([*case.wanted, *case.others[1:2]], True))
        ).results[0]
    ]
    assert outcomes == [ToolStatus.OK, ToolStatus.OK]


def test_sample_calls_obey_the_schema():
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 3},
            "b": {"enum": ["x", "y"]},
            "c": {"type": "array", "items": {"type": "number"}, "minItems": 2},
            "d": {"type": "object", "properties": {"e": {"type": "boolean"}}, "required": ["e"]},
            "f": {"type": ["string", "null"], "minLength": 4},
            "g": {"const": 5},
            "h": {"type": "null"},
        },
        "required": ["a", "b", "c", "d", "f", "g"],
    }
    tool = Tool("t", "", schema)
    assert not tool.problems(sample_call(tool).arguments)
    assert set(sample_call(tool).arguments) == {"a", "b", "c", "d", "f", "g"}
    assert sample_call(Tool("bare")).arguments == {}
