"""Teacher mode from a model's own episodes: which are kept, what is trained on, and rounds that
are interrupted and resume.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.one_token import (
    TASKS,
    Lines,
    OneToken,
    env_of,
    plan,
    timeless,
    toy,
    weights,
    without_end,
)
from toolhone.backends.toy import ToyTrainer
from toolhone.config.sections import Experiment
from toolhone.config.small_sections import TeacherSection
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.episodes.policy import Turn
from toolhone.errors import RunError
from toolhone.rewards.reward_registry import RewardResult
from toolhone.rows import Row
from toolhone.runs.run import Run
from toolhone.schema import Message, ToolCall
from toolhone.training.best_of_n import OwnSamples, best_episodes, record_of
from toolhone.training.loop import TrainStatus
from toolhone.training.rollout import RLEnv, RolloutGroup
from toolhone.training.teacher import RoundJournal, Rounds, teacher_mode


def teacher_plan(rl: dict[str, Any] | None = None, **training: Any) -> Experiment:
    teacher = TeacherSection(**{"rounds": 3, **training.pop("teacher", {})})
    experiment = plan({"group_size": 16, **(rl or {})}, method="teacher_mode", **training)
    return experiment.model_copy(update={"teacher": teacher})


def train(
    folder: Path,
    experiment: Experiment,
    trainer: ToyTrainer | None = None,
    change: Callable[[RLEnv], RLEnv] = lambda env: env,
    **options: Any,
) -> tuple[ToyTrainer, Run, TrainStatus]:
    trainer, run = trainer or toy(), Run.create(folder, experiment)
    lessons = OwnSamples(change(env_of(trainer, experiment, **options)), experiment)
    return trainer, run, teacher_mode(trainer, lessons, run)


def resumed(run: Run, experiment: Experiment, seed: int = 9) -> ToyTrainer:
    trainer = toy(seed)
    lessons = OwnSamples(env_of(trainer, experiment), experiment)
    assert teacher_mode(trainer, lessons, run, run.latest()) is TrainStatus.FINISHED
    return trainer


def records(run: Run, number: int) -> list[dict[str, Any]]:
    lines = (run.folder / f"teacher/round_{number}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_steps_are_shared_among_the_warm_up_and_the_rounds() -> None:
    rounds = Rounds.of(teacher_plan(steps=10, teacher={"warmup": 0.3}), 2)
    assert [rounds.number(step) for step in range(10)] == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    unset = teacher_plan(steps=None, epochs=2, batch_size=4, teacher={"warmup": 0.5})
    assert Rounds.of(unset, 20) == Rounds(total=60, warmup=30, count=3)
    assert Rounds.of(teacher_plan(steps=2), 2) == Rounds(total=2, warmup=0, count=2)


def test_a_policy_learns_from_its_own_best_episodes(tmp_path: Path) -> None:
    experiment = teacher_plan({"group_size": 64}, steps=60, teacher={"rounds": 4})
    _, run, status = train(tmp_path / "run", experiment)
    solved = [line["reward"] for line in run.metrics() if line["kind"] == "round"]
    assert status is TrainStatus.FINISHED
    assert solved[0] < 0.2
    assert solved[-1] > 0.7


def test_kept_episodes_are_trained_on_with_their_ids_as_sampled(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(ToyTrainer):
        def forward_backward(self, rows: Any, loss: Any) -> Any:
            seen.extend(tuple(row.tokens[row.mask].tolist()) for row in rows)
            return super().forward_backward(rows, loss)

    experiment = teacher_plan(steps=2, teacher={"rounds": 1})
    _, run, _ = train(tmp_path / "run", experiment, Watching(toy()._policy))
    kept = [row for record in records(run, 1) for row in record["rows"]]
    sampled = [
        tuple(token for token, origin in zip(row["tokens"], row["origin"]) if origin == 1)
        for row in kept
    ]
    assert sampled
    assert set(seen) == set(sampled)
    assert all(len(ids) == 2 and ids[0] < 4 <= ids[1] for ids in sampled)


def test_every_episode_of_a_round_is_counted_as_kept_or_with_a_reason(tmp_path: Path) -> None:
    _, run, _ = train(tmp_path / "run", teacher_plan(steps=3))
    rounds = [line for line in run.metrics() if line["kind"] == "round"]
    assert [line["round"] for line in rounds] == [1, 2, 3]
    for line in rounds:
        assert line["proposed"] == 32 == line["kept"] + sum(line["reasons"].values())


def group_of(*answers: tuple[str, float]) -> RolloutGroup:
    def spoken(text: str) -> Episode:
        calls = (ToolCall("look"),) if text == "call" else ()
        turn = Turn(Message("assistant", text, tool_calls=calls), text)
        return Episode("t", (turn,), ((),), EpisodeStatus.ANSWERED)

    episodes = tuple(spoken(text) for text, _ in answers)
    return RolloutGroup(TASKS[0], episodes, tuple(RewardResult(r, {}) for _, r in answers))


def test_the_best_episodes_above_the_threshold_are_kept_one_for_each_answer() -> None:
    group = group_of(("a", 0.5), ("b", 1.0), ("b", 1.0), ("call", 0.9), ("c", 0.7), ("d", 0.6))
    kept, reasons = best_episodes(group, TeacherSection(min_reward=0.6, keep=3))
    assert [episode.turns[0].text for episode in kept] == ["b", "call", "c"]
    assert dict(reasons) == {
        "episodes with the answer of a kept one": 1,
        "episodes beyond keep": 1,
        "episodes below min_reward": 1,
    }


def test_a_failed_episode_is_never_kept_and_counted() -> None:
    group = group_of(("a", 1.0), ("b", 1.0))
    failed = replace(group.episodes[0], ending=EpisodeStatus.FAILED)
    group = replace(group, episodes=(failed, group.episodes[1]))
    kept, reasons = best_episodes(group, TeacherSection())
    assert [episode.turns[0].text for episode in kept] == ["b"]
    assert dict(reasons) == {"episodes that failed or timed out": 1}
    assert record_of(group, TeacherSection())["means"]["reward"] == [1.0]
    nothing = record_of(replace(group, episodes=(failed, failed)), TeacherSection())
    assert nothing["means"] == {"reward": [], "best_reward": [], "solved": [0]}


def test_a_round_that_keeps_nothing_stops_with_its_counts(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"round 1 kept none of 2 tasks.*32 episodes below"):
        train(tmp_path / "run", teacher_plan(steps=3), score=lambda *_: RewardResult(0.0, {}))


def test_a_round_that_keeps_nothing_goes_on_with_labelled_rows(tmp_path: Path) -> None:
    row = Row.of([12, 14, 0, 13, 6], [False, False, True, False, True])
    lines: list[str] = []

    def labelled(env: RLEnv) -> RLEnv:
        assert isinstance(env.hooks.progress, Lines)
        env.hooks.progress.lines = lines
        return replace(env, labelled=[row])

    experiment = teacher_plan(steps=4, teacher={"warmup": 0.25})
    before = toy()
    trainer, *_ = train(
        tmp_path / "run", experiment, score=lambda *_: RewardResult(0.0, {}), change=labelled
    )
    assert any("kept nothing" in line for line in lines)
    assert trainer.snapshot().logprobs([row])[0].sum() > before.snapshot().logprobs([row])[0].sum()


@pytest.mark.parametrize("last", [1, 2, 3, 4, 5])
def test_a_run_resumes_in_any_round_with_the_same_bits(tmp_path: Path, last: int) -> None:
    experiment = teacher_plan(steps=6, save_every=1)
    straight, whole, _ = train(tmp_path / "whole", experiment)
    _, run, _ = train(tmp_path / "run", experiment)
    later = [f"checkpoint_step_{step}" for step in range(last + 1, 7)]
    run = without_end(run, "final_checkpoint", *later)
    assert np.array_equal(weights(resumed(run, experiment)), weights(straight))
    assert timeless(run) == timeless(whole)
    assert [records(run, n) for n in (1, 2, 3)] == [records(whole, n) for n in (1, 2, 3)]


def test_ctrl_c_while_a_round_is_written_loses_no_record(tmp_path: Path) -> None:
    experiment = teacher_plan(steps=6, batch_size=1)
    straight, whole, _ = train(tmp_path / "whole", experiment)
    opened = iter([True])

    class Stopping(OneToken):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            if next(opened, False):
                os.kill(os.getpid(), signal.SIGINT)

    def stopping(env: RLEnv) -> RLEnv:
        return replace(env, policy=lambda sampler, seed: Stopping(sampler, seed))

    _, run, status = train(tmp_path / "run", experiment, change=stopping)
    assert status is TrainStatus.INTERRUPTED
    assert records(run, 1) == records(whole, 1)[:1]
    assert np.array_equal(weights(resumed(run, experiment, seed=1)), weights(straight))
    assert records(run, 1) == records(whole, 1)


def test_a_record_that_was_cut_off_is_removed_and_later_rounds_too(tmp_path: Path) -> None:
    journal = RoundJournal(tmp_path / "teacher", 2)
    for number in (1, 2):
        journal.add(number, {"id": "a"})
    path = tmp_path / "teacher/round_1.jsonl"
    path.write_text(path.read_text() + '{"id": "b')
    again = RoundJournal(tmp_path / "teacher", 1)
    assert again.read(1) == [{"id": "a"}]
    assert path.read_text() == '{"id": "a"}\n'
    assert again.read(2) == []
