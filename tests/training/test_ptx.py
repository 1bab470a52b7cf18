"""PPO-ptx: labelled rows beside the reward: their gradient, that they hold what a reward lets
drift, and what is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.one_token import env_of, first_token, logged, plan, timeless, toy, weights, without_end
from toolhone.api import experiment, train
from toolhone.backends.base import Adam
from toolhone.backends.toy import ToyTrainer
from toolhone.config.experiment import load_experiment
from toolhone.data.templates import Templates
from toolhone.errors import DataError
from toolhone.rewards.reward_registry import RewardResult
from toolhone.rows import Row
from toolhone.runs.run import FINAL, Run, read_json
from toolhone.sources.formats import open_source
from toolhone.training.dataset import load_data
from toolhone.training.grpo import grpo
from toolhone.training.losses import cross_entropy
from toolhone.training.ppo import ppo
from toolhone.training.update import ptx_rows

ROWS = [Row.of([12, 14, first, 13, 5], [False, False, True, False, True]) for first in range(4)]
ROWS += [Row.of([12, 15, 7], [False, False, True])]
METHODS = {"grpo": grpo, "ppo": ppo}


def ran(
    method: str,
    folder: Path,
    labelled: list[Row],
    score: Callable[..., RewardResult] = first_token,
    **rl: Any,
) -> tuple[ToyTrainer, Run]:
    trainer, own = toy(), plan(rl, method=method, steps=12)
    run = Run.create(folder, own)
    METHODS[method](trainer, replace(env_of(trainer, own, score=score), labelled=labelled), run)
    return trainer, run


def test_the_gradient_is_the_coefficient_times_that_of_the_mean_loss_per_token() -> None:
    ours, wanted = toy(), toy()
    section = plan({"ptx": {"coef": 0.25, "batch_size": len(ROWS)}}).training.rl.ptx
    rows = ptx_rows(ROWS, section, 0, 0, 0)
    got = ours.forward_backward(rows, cross_entropy()).result()
    tokens = sum(int(row.mask.sum()) for row in ROWS)
    by_hand = [
        row.with_arrays(weights=row.mask.astype(np.float32) * np.float32(0.25 / tokens))
        for row in ROWS
    ]
    loss = wanted.forward_backward(by_hand, cross_entropy()).result()
    step = Adam(
        1.0, 0.9, 0.95, 1e-2, 0.0, 1e9
    )  # with so large an epsilon a step still tells the gradient's size
    assert ours.optim_step(step).result()["grad_norm"] == pytest.approx(
        wanted.optim_step(step).result()["grad_norm"], rel=1e-5
    )
    np.testing.assert_allclose(weights(ours), weights(wanted), atol=1e-6)
    assert (got["nll"], got["tokens"]) == (pytest.approx(loss["nll"]), tokens)


def test_rows_of_an_update_depend_on_seed_step_and_number_alone() -> None:
    many = [
        Row.of([12, 14, a, b], [False, False, True, True]) for a in range(16) for b in range(16)
    ]
    section = plan({"ptx": {"coef": 1.0, "batch_size": 8}}).training.rl.ptx

    def drawn(*place: int) -> list[list[int]]:
        return [row.tokens.tolist() for row in ptx_rows(many, section, *place)]

    places = [(0, 3, 1), (1, 3, 1), (0, 4, 1), (0, 3, 2)]
    first = [drawn(*place) for place in places]
    assert first == [drawn(*place) for place in places]
    assert len({json.dumps(one) for one in first}) == len(places)
    assert all(len(one) == 8 == len({tuple(row) for row in one}) for one in first)


@pytest.mark.parametrize("method", METHODS)
def test_labelled_rows_hold_what_a_reward_lets_drift(method: str, tmp_path: Path) -> None:
    def says(trainer: ToyTrainer) -> float:
        return float(trainer.snapshot().logprobs([ROWS[-1]])[0][-1])

    without, _ = ran(method, tmp_path / "without", [])
    held, run = ran(method, tmp_path / "with", ROWS[-1:], ptx={"coef": 1.0, "batch_size": 1})
    assert (
        says(held) > says(toy()) + 1 > says(without) + 1
    )  # the reward pays for high ids, the label says 7
    told = logged(run, "ptx_loss")
    assert len(told) == 12
    assert told[0] == pytest.approx(-says(toy()), rel=1e-4)
    assert told[-1] < told[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_coefficient_of_0_changes_nothing(method: str, tmp_path: Path) -> None:
    a, first = ran(method, tmp_path / "a", [])
    b, second = ran(method, tmp_path / "b", ROWS)
    assert np.array_equal(weights(a), weights(b))
    assert timeless(first) == timeless(second)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_without_signal_is_not_one_of_supervised_training(
    method: str, tmp_path: Path
) -> None:
    trainer, run = ran(
        method, tmp_path / "run", ROWS, score=lambda *_: RewardResult(1.0, {}), ptx={"coef": 1.0}
    )
    assert logged(run, "updates") == [0] * 12
    assert np.array_equal(weights(trainer), weights(toy()))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_goes_on_draws_what_it_would_have_drawn(method: str, tmp_path: Path) -> None:
    own = plan({"ptx": {"coef": 0.5, "batch_size": 2}}, method=method, save_every=5)
    trainer, run = toy(), Run.create(tmp_path / "whole", own)
    METHODS[method](trainer, replace(env_of(trainer, own, score=first_token), labelled=ROWS), run)
    again = without_end(run, "checkpoint_step_10", FINAL)
    resumed = toy(seed=2)
    stage = replace(env_of(resumed, own, score=first_token), labelled=ROWS)
    METHODS[method](resumed, stage, again, again.checkpoint("checkpoint_step_5"))
    assert np.array_equal(weights(trainer), weights(resumed))


# ------------------------------------------------------------------------------------------------
# from a file


SMALL = {
    "model": {"name": "pico"},
    "tools": ["calculator"],
    "data": {"strategy": "templates", "samples": 24},
    "training": {
        "method": "grpo",
        "steps": 1,
        "batch_size": 2,
        "validate_every": 0,
        "rl": {
            "group_size": 2,
            "max_completion_length": 4,
            "ptx": {"coef": 0.5},
            "reward": {"functions": ["earned"], "check": False},
        },
    },
    "evaluation": {"at_end": False},
}
IN_TURN = (
    "from itertools import count\n\nNUMBERS = count()\n\n\n"
    "def earned(task, episode):\n    return float(next(NUMBERS) % 2)\n"
)


def small(folder: Path) -> dict[str, Any]:
    (folder / "earned.py").write_text(IN_TURN)
    values = json.loads(json.dumps(SMALL))
    values["training"]["rl"]["reward"]["functions"] = [f"{folder / 'earned.py'}:earned"]
    return values


def test_conversations_come_from_the_data_of_the_experiment_and_their_loss_is_logged(
    tmp_path: Path,
) -> None:
    run, _ = train(experiment(small(tmp_path)), tmp_path / "run")
    assert read_json(run.folder / "data.json")["ptx_rows"] == 24
    (loss,) = logged(run, "ptx_loss")
    assert 0 < loss < 20


def test_a_file_of_tasks_alone_has_nothing_to_learn_beside_the_reward(tmp_path: Path) -> None:
    values, path = small(tmp_path), tmp_path / "tasks.jsonl"
    path.write_text(
        "".join(json.dumps(task.to_dict()) + "\n" for task in Templates(0, ["calculator"]).tasks(8))
    )
    values["data"] = {"path": str(path)}
    with pytest.raises(DataError, match=r"ptx\.coef .* labelled .*tasks\.jsonl holds only tasks"):
        train(experiment(values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("coef", [0.0, 0.5])
@pytest.mark.parametrize("order", [1, -1], ids=["tasks first", "conversations first"])
@pytest.mark.parametrize("counts", [(30, 6), (6, 30)])
def test_tasks_and_conversations_of_one_file_are_all_used_in_any_order(
    counts: tuple[int, int], order: int, coef: float, tmp_path: Path
) -> None:
    values, path = small(tmp_path), tmp_path / "mixed.jsonl"
    made = Templates(0, ["calculator"])
    played = [replace(one, id=f"alone-{one.id}") for one in made.tasks(counts[0], "rl")]
    tasks = [one.to_dict() for one in played]
    parts = [tasks, [one.to_dict() for one in made.conversations(counts[1])]][::order]
    path.write_text("".join(json.dumps(row) + "\n" for part in parts for row in part))
    values["data"] = {"path": str(path), "validation_fraction": 0.2}
    values["training"]["rl"]["ptx"]["coef"] = coef
    data = load_data(experiment(values))
    alone = [task.id for task in (*data.play, *data.tasks) if task.id.startswith("alone-")]
    assert sorted(alone) == sorted(task.id for task in played)
    assert 0 < sum(task.id in alone for task in data.tasks) < len(alone)
    assert len(data.train) + len(data.held_out) == counts[1]
    assert len(data.play) > sum(task.id in alone for task in data.play)
    values["training"]["method"] = "sft"
    values["training"].pop("rl")
    assert load_data(experiment(values)).report["only_tasks"] == counts[0]


def rows_of_both(tmp_path: Path, *rows: Any) -> dict[str, Any]:
    """An experiment on a file of 24 tasks, four conversations and these rows."""
    values, path = small(tmp_path), tmp_path / "mixed.jsonl"
    made = Templates(0, ["calculator"])
    tasks = [one.to_dict() for one in made.tasks(24, "rl")]
    lines = [*tasks, *(one.to_dict() for one in made.conversations(4)), *rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    values["data"] = {"path": str(path), "validation_fraction": 0.25}
    values["training"]["rl"]["ptx"]["coef"] = 0.0
    return values


def test_a_task_with_the_question_of_a_conversation_is_played_or_held_out_with_it(
    tmp_path: Path,
) -> None:
    made = Templates(0, ["calculator"])
    twins = [
        {"id": f"twin-{row.id}", "messages": row.to_dict()["messages"][:1], "expect": {"calls": []}}
        for row in made.conversations(4)
    ]
    twins = [{**twin, "expect": {"no_call": True}} for twin in twins]
    data = load_data(experiment(rows_of_both(tmp_path, *twins)))
    played, held = (
        {task.messages[0].content for task in part if task.id.startswith("twin-")}
        for part in (data.play, data.tasks)
    )
    assert len(played) + len(held) == 4
    assert held == {row.messages[0].content for row in data.held_out}
    assert sum(data.report["alone"].values()) == 28


def test_tasks_beyond_the_samples_are_counted(tmp_path: Path) -> None:
    values = rows_of_both(tmp_path)
    values["data"]["max_samples"] = 10
    told = load_data(experiment(values)).report["alone"]
    assert (told["beyond"], told["play"] + told["held_out"]) == (14, 10)


def test_a_row_that_is_neither_costs_no_task_of_the_file(tmp_path: Path) -> None:
    values, path = small(tmp_path), tmp_path / "tasks.jsonl"
    values["training"]["rl"]["ptx"]["coef"] = 0.0
    rows = [task.to_dict() for task in Templates(0, ["calculator"]).tasks(24)]
    for other in ({"note": "made by hand"}, {"messages": rows[0]["messages"]}):
        path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, other]))
        values["data"] = {"path": str(path)}
        data = load_data(experiment(values))
        assert len(data.play) + len(data.tasks) == 24


def test_empty_columns_of_a_joined_table_make_no_task_of_a_conversation(tmp_path: Path) -> None:
    values, path = small(tmp_path), tmp_path / "mixed.jsonl"
    made = Templates(0, ["calculator"])
    rows = [{**row.to_dict(), "expect": None} for row in made.conversations(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values["data"] = {"path": str(path)}
    data = load_data(experiment(values))
    assert len(data.train) + len(data.held_out) == 20


def test_tasks_stay_where_conversations_are_joined(tmp_path: Path) -> None:
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    turns = [{"role": role, "content": text} for role, text in said]
    task = {"messages": [{"role": "user", "content": "e"}], "expect": {"no_call": True}}
    path = tmp_path / "joined.jsonl"
    rows = [{"messages": turns[:2]}, {"messages": turns}, {"id": "alone", **task}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = open_source(path, "messages")
    loaded.join()
    assert (loaded.merged, [task.id for task in loaded.alone]) == (1, ["alone"])
    assert loaded.tasks[-1].id == "alone"


def test_a_task_that_cannot_be_read_is_counted_among_conversations(tmp_path: Path) -> None:
    values, path = small(tmp_path), tmp_path / "mixed.jsonl"
    rows = [one.to_dict() for one in Templates(0, ["calculator"]).conversations(6)]
    rows.append({**rows[0], "messages": rows[0]["messages"][:1], "expect": {"calls": 5}})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values["data"] = {"path": str(path)}
    assert load_data(experiment(values)).report["skipped"] == {"not a task": 1}


def test_too_long_rows_count_among_labelled_rows_and_not_among_held_out_ones(
    tmp_path: Path,
) -> None:
    values = small(tmp_path)
    words = {"train": ["short", "word " * 200, "brief"], "validation": ["word " * 200]}
    for name, said in words.items():
        rows = [
            {
                "messages": [
                    {"role": "user", "content": text},
                    {"role": "assistant", "content": "Yes."},
                ]
            }
            for text in said
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values["data"] = {
        "path": str(tmp_path / "train.jsonl"),
        "validation": str(tmp_path / "validation.jsonl"),
    }
    values["training"]["max_length"] = 100
    run, _ = train(experiment(values), tmp_path / "run")
    told = read_json(run.folder / "data.json")
    assert (told["ptx_rows"], told["ptx_too_long"]) == (2, 1)


def test_dpo_says_that_it_reads_no_coefficient() -> None:
    told: list[str] = []
    load_experiment(None, ["training.method=dpo", "training.rl.ptx.coef=0.5"], tell=told.append)
    assert told == ["training.rl (ptx.coef) has no effect with training.method 'dpo'"]


def test_a_number_of_rows_without_a_coefficient_is_named() -> None:
    told: list[str] = []
    load_experiment(
        None, ["training.method=grpo", "training.rl.ptx.batch_size=4"], tell=told.append
    )
    assert told == ["training.rl (ptx.batch_size) has no effect without training.rl.ptx.coef"]
