"""Distillation: the gradient is that of the reverse KL, a teacher judges the very tokens that the
student sampled, and prompts show fewer tools while it reads all of them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.toy_talk import ADD, SHOWN, TALK, TASK, learner, opened, policy_of, talker
from toolhone.api import evaluate, experiment, open_model, train
from toolhone.backends.base import Batch
from toolhone.backends.gradient import loss_gradient
from toolhone.config.small_sections import BakeSection, ToolDetail
from toolhone.episodes.driver import run_episodes
from toolhone.episodes.episode import Episode, EpisodeRules
from toolhone.episodes.policy import KnownTools, TokenPolicy
from toolhone.errors import ConfigError
from toolhone.evaluation.compare import compare
from toolhone.rewards.reward_registry import RewardResult
from toolhone.schema import Message, Tool
from toolhone.tools.registry import Registry
from toolhone.training import distill as distill_module
from toolhone.training.distill import judged_rows, learn, parts_of
from toolhone.training.local_teacher import LocalTeacher, TurnIds, replies_of, rows_behind
from toolhone.training.losses import policy_loss
from toolhone.training.rollout import RolloutGroup, rollout, rows_of
from toolhone.training.teacher import RoundJournal

REGISTRY = Registry([ADD])


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    found: np.ndarray = e / e.sum()
    return found


def test_the_expected_gradient_of_the_samples_is_that_of_the_reverse_kl() -> None:
    rng = np.random.default_rng(0)
    z, q = rng.normal(size=6), softmax(rng.normal(size=6))
    p = softmax(z)

    def kl(logits: np.ndarray) -> float:
        own = softmax(logits)
        return float((own * (np.log(own) - np.log(q))).sum())

    wanted = [(kl(z + step) - kl(z - step)) / 2e-4 for step in 1e-4 * np.eye(6)]
    zeros = np.zeros((6, 2), np.float32)
    logp, old, advantages, weights = (zeros.copy() for _ in range(4))
    logp[:, 1] = old[:, 1] = np.log(p)
    advantages[:, 1], weights[:, 1] = np.log(q) - np.log(p), p  # every token as often as sampled
    arrays = {"old_logprobs": old, "advantages": advantages, "weights": weights}
    mask = np.array([[False, True]] * 6)
    loss = policy_loss("dapo", 0.2, 0.2, 0.0)
    slope = loss_gradient(loss, logp, Batch(mask, arrays))[1][:, 1]
    gradient = sum(slope[y] * (np.eye(6)[y] - p) for y in range(6))
    assert gradient == pytest.approx(wanted, abs=1e-5)
    assert np.abs(wanted).max() > 0.05


def test_the_samples_alone_bring_a_student_closer_to_its_teacher(tmp_path: Path) -> None:
    trainer, teacher = learner(SHOWN, steps=9), a_teacher(talker(SHOWN), tmp_path)
    tokenizer, dialect = opened(SHOWN)
    plan = experiment({"training": {**STEPS, "learning_rate": 0.1, "method": "distill"}})
    divergences = []
    for step in range(12):
        policy = policy_of(trainer.snapshot(), tokenizer, dialect)
        policy.params = replace(policy.params, temperature=1.0, seed=step)
        episodes = tuple(run_episodes(policy, [TASK] * 8, REGISTRY))
        group = RolloutGroup(TASK, episodes, (RewardResult(0.0, {}),) * 8)
        rows, metrics = judged_rows(teacher, [group], 1.0, step)
        divergences.append(metrics["reverse_kl"])
        found = learn(trainer, rows, [], plan, step, 12)
        assert found["sampler_gap"] < 1e-5
    assert sum(divergences[-3:]) < 0.5 * sum(divergences[:3])


def a_teacher(sampler: Any, tmp_path: Path, prompt: str | None = None) -> LocalTeacher:
    tokenizer, dialect = opened(SHOWN)
    policy = policy_of(sampler, tokenizer, dialect)
    tmp_path.mkdir(exist_ok=True)
    journal = RoundJournal(tmp_path / "teacher", 0)
    return LocalTeacher(policy, REGISTRY, lambda _: EpisodeRules(), journal, prompt)


def played(steps: int = 30) -> tuple[TokenPolicy, Episode]:
    tokenizer, dialect = opened(SHOWN)
    policy = policy_of(talker(SHOWN, steps=steps), tokenizer, dialect)
    return policy, run_episodes(policy, [TASK], REGISTRY)[0]


def test_replies_behind_the_same_prompts_are_the_rows_of_the_episode() -> None:
    policy, episode = played()
    replies = replies_of(episode)
    again = [TurnIds.from_dict(json.loads(json.dumps(one.to_dict()))) for one in replies]
    assert again == replies
    assert len(replies) == 2
    for row, own in zip(rows_behind(policy, TASK, again), rows_of(episode), strict=True):
        assert row.tokens.tolist() == own.tokens.tolist()
        assert row.mask.tolist() == own.mask.tolist()
        assert np.array_equal(row.origin, own.origin)


def test_a_teacher_judges_the_student_s_tokens_behind_its_own_longer_prompt(tmp_path: Path) -> None:
    policy, episode = played()
    stranger = played(3)[0].sampler
    teacher = a_teacher(stranger, tmp_path, "Think before you add.")
    group = RolloutGroup(TASK, (episode,), (RewardResult(1.0, {}),))
    (row,), metrics = judged_rows(teacher, [group], 0.7, 4)
    asked = teacher.asked(TASK)
    assert asked.messages[0] == Message("system", "Think before you add.")
    (judged,) = rows_behind(teacher.policy, asked, replies_of(episode))
    assert policy.tokenizer.decode(judged.tokens.tolist()).count("Think before you add.") == 1
    assert len(judged) > len(row)
    assert judged.tokens[judged.mask].tolist() == row.tokens[row.mask].tolist()
    (own,) = stranger.logprobs([judged], 0.7)
    gap = own[judged.mask] - row.arrays["behavior_logprobs"][row.mask]
    assert row.arrays["advantages"][row.mask] == pytest.approx(gap)
    assert not row.arrays["advantages"][~row.mask].any()
    assert metrics == {"reverse_kl": pytest.approx(-gap.mean(), rel=1e-5), "beyond": 0.0}
    teacher.policy.max_context = len(judged) - 1
    assert judged_rows(teacher, [group], 0.7, 4) == ([], {"reverse_kl": 0.0, "beyond": 1.0})
    system = replace(TASK, messages=(Message("system", "Be brief."), *TASK.messages))
    assert teacher.asked(system).messages[0].content == "Think before you add.\n\nBe brief."


def test_a_teacher_plays_each_task_once_and_what_broke_off_teaches_nothing(tmp_path: Path) -> None:
    sampler = played()[0].sampler
    teacher = a_teacher(sampler, tmp_path)
    answers = teacher.answers([TASK])
    assert [one.message.content for one in answers["sum"]] == [None, "It is 5."]
    again = a_teacher(None, tmp_path)  # as in a resumed run: nothing is played
    assert again.answers([TASK]) == answers
    short = a_teacher(sampler, tmp_path / "short")
    short.policy.params = replace(short.policy.params, max_tokens=9)
    assert short.answers([TASK]) == {}
    (line,) = (tmp_path / "short" / "teacher" / "round_0.jsonl").read_text().splitlines()
    assert (json.loads(line)["ending"], json.loads(line)["replies"]) == ("truncated", [])


def test_known_tools_are_shown_as_wanted_and_any_other_in_full() -> None:
    other = replace(ADD, description="Adds two numbers.")
    new = Tool("sub", "Subtracts.")
    offered = (ADD, new)
    shown = {d: KnownTools(d, [ADD])(offered) for d in ToolDetail}
    assert shown == {
        ToolDetail.FULL: offered,
        ToolDetail.NAMES: (Tool("add"), new),
        ToolDetail.NONE: (new,),
    }
    assert KnownTools(ToolDetail.NONE, [ADD])((other,)) == (other,)
    policy = played()[0].showing(KnownTools(ToolDetail.NONE, [ADD]))
    prompt = policy.open(TASK.messages, TASK.tools)
    assert "add" not in policy.tokenizer.decode(prompt.tokens)
    assert prompt.tools == TASK.tools
    reply = policy.encode_reply(prompt, TALK.messages[1])
    assert policy.tokenizer.decode(reply).startswith("<think>\nTwo numbers")


def test_a_schedule_names_what_each_step_shows_and_some_tasks_keep_everything() -> None:
    bake = BakeSection.model_validate({"schedule": {"full": 1, "names": 1, "none": 2}})
    assert [bake.detail(done) for done in (0.0, 0.24, 0.25, 0.5, 0.99, 1.0)] == [
        "full",
        "full",
        "names",
        "none",
        "none",
        "none",
    ]
    assert (bake.goal, BakeSection(schedule={ToolDetail.NAMES: 1.0}).goal) == ("none", "names")
    section = {"method": "distill", "bake": {"keep": 0.25}}
    plan = experiment({"training": section})
    tasks = [replace(TASK, id=str(i)) for i in range(8)]
    assert parts_of(tasks, plan, 0.9) == [("full", tasks[:2]), ("none", tasks[2:])]
    assert parts_of(tasks, experiment(), 0.9) == [("full", tasks)]


SMALL: dict[str, Any] = {
    "model": {"backend": "toy"},
    "tools": ["calculator"],
    "data": {"samples": 24},
    "evaluation": {"num_samples": 4, "max_new_tokens": 24, "at_end": False},
}
STEPS: dict[str, Any] = {
    "learning_rate": 0.3,
    "lora": None,
    "batch_size": 4,
    "log_every": 1,
    "validate_every": 0,
    "save_every": 2,
}


def a_run(folder: Path, **training: Any) -> Path:
    plan = experiment({**SMALL, "training": {**STEPS, **training}})
    return train(plan, folder)[0].folder


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = ("step", "loss", "reverse_kl", "answers_loss", "prompt_tokens", "reward")
    return [{name: line.get(name) for name in names} for line in lines if line["kind"] == "train"]


def test_a_student_comes_closer_to_another_model_and_bakes_the_tools(tmp_path: Path) -> None:
    teacher = a_run(tmp_path / "sft", method="sft", steps=25)
    options = {
        "method": "distill",
        "steps": 6,
        "rl": {"group_size": 1, "max_completion_length": 12},
        "distill": {"teacher": str(teacher), "prompt": "Use tools."},
        "bake": {"schedule": {"full": 1, "none": 2}, "keep": 0},
    }
    run = a_run(tmp_path / "distilled", **options)
    lines = lines_of(run)
    assert len(lines) == 6
    assert lines[-1]["answers_loss"] < 0.7 * lines[0]["answers_loss"]
    assert lines[-1]["prompt_tokens"] < lines[0]["prompt_tokens"]
    short, full = (evaluate(open_model(run, base=base), num_samples=4) for base in (False, True))
    tokens = compare(full, short).prompt_tokens
    assert tokens is not None
    assert tokens[1] < tokens[0]
    assert evaluate(open_model(run, overrides=["evaluation.tools_in_prompt=full"]), num_samples=4)


def test_a_student_that_learns_the_replies_alone_plays_nothing(tmp_path: Path) -> None:
    teacher = a_run(tmp_path / "sft", method="sft", steps=25)
    options = {"method": "distill", "distill": {"teacher": str(teacher), "samples": 0}}
    run = a_run(tmp_path / "distilled", steps=6, **options)
    lines = lines_of(run)
    assert lines[-1]["answers_loss"] < 0.7 * lines[0]["answers_loss"]
    assert {line["reward"] for line in lines} == {None}
    assert not (run / "samples.jsonl").exists(), "no episode is kept"


def test_a_distillation_that_is_resumed_ends_with_the_same_bits(tmp_path: Path) -> None:
    options = {"method": "distill", "rl": {"group_size": 2, "max_completion_length": 8}}
    whole = a_run(tmp_path / "whole", steps=4, **options)
    broken = tmp_path / "broken"
    plan = experiment({**SMALL, "training": {**STEPS, "steps": 4, **options}})
    train(plan, broken)
    for name in ("final_checkpoint", "checkpoint_step_4"):
        for path in sorted((broken / "checkpoints" / name).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (broken / "checkpoints" / name).rmdir()
    train(plan, broken, resume=True)
    assert lines_of(broken) == lines_of(whole)
    first, second = (
        (folder / "checkpoints" / "final_checkpoint" / "toy.npz").read_bytes()
        for folder in (whole, broken)
    )
    assert first == second


def test_noise_in_log_probabilities_of_sampling_reaches_no_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"method": "distill", "rl": {"group_size": 2, "max_completion_length": 8}}
    first = a_run(tmp_path / "plain", steps=2, **options)
    real = rollout

    def noisy(*given: Any) -> list[RolloutGroup]:
        """Log-probabilities as another batch gives them, when tools answer later."""
        return [
            replace(group, episodes=tuple(map(shaken, group.episodes))) for group in real(*given)
        ]

    def shaken(episode: Episode) -> Episode:
        turns = (replace(t, logprobs=[one + 0.1 for one in t.logprobs]) for t in episode.turns)
        return replace(episode, turns=tuple(turns))

    monkeypatch.setattr(distill_module, "rollout", noisy)
    second = a_run(tmp_path / "noisy", steps=2, **options)
    weights = {
        (folder / "checkpoints" / "final_checkpoint" / "toy.npz").read_bytes()
        for folder in (first, second)
    }
    assert len(weights) == 1


@pytest.mark.parametrize(
    ("training", "error", "sentence"),
    [
        ({"bake": {}}, ConfigError, "training.bake needs training.method distill"),
        (
            {"method": "distill", "distill": {"answers": 0, "samples": 0}},
            ConfigError,
            "answers and samples are both 0",
        ),
        (
            {"method": "distill", "bake": {"schedule": {"none": 0}}},
            ConfigError,
            "needs a share above 0",
        ),
    ],
)
def test_what_teaches_nothing_is_refused(
    training: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        experiment({"training": training})


def test_the_teacher_is_a_name_unless_such_a_folder_is_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    path.write_text('{"training": {"method": "distill", "distill": {"teacher": "big/model"}}}')
    assert experiment(path).training.distill.teacher == "big/model"
    (tmp_path / "big" / "model").mkdir(parents=True)
    assert experiment(path).training.distill.teacher == str(tmp_path / "big" / "model")
