"""A reward and a format that cannot meet are found before step 1, and named with the remedy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from support.dialect_models import QWEN_LIKE, THINKING, llama_tokenizer, small_tokenizer
from support.scripted import task
from toolhone.api import experiment, train
from toolhone.backends.base import SamplingParams
from toolhone.config.rl import RewardSection
from toolhone.dialects.choose import open_dialect
from toolhone.episodes.policy import TokenPolicy
from toolhone.errors import CapabilityError, ConfigError, DialectError
from toolhone.models.pico import pico_folder
from toolhone.rewards.attacks import AttackCase
from toolhone.rewards.reward_registry import BUILTIN, PhaseSchedule, compute_reward, load_rewards
from toolhone.schema import Task, Tool
from toolhone.tokenizer import TextTokenizer
from toolhone.training.prefill import thinking_prefix
from toolhone.training.reward_check import ReplySyntax, check_rewards, sample_tasks

PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
TOOLS = [Tool("weather", "Weather of a place.", PLACE), Tool("search", "Searches.", PLACE)]
CALLS = [{"name": "weather", "arguments": {"place": place}} for place in ("Oslo", "Rome")]
ONE = task("one", "Weather in Oslo?", TOOLS, {"calls": CALLS[:1], "answer": "rainy"})
TWO = task("two", "Weather in Oslo and Rome?", TOOLS, {"calls": CALLS})
WORDS = task("words", "Hello!", TOOLS, {"no_call": True})
TAGS = {"name": "weather", "arguments": {"place": 'a "<think>" in\n</tool_call>(Oslo)'}}
ODD = task("odd", "Weather there?", TOOLS, {"calls": [TAGS]})
TASKS = {"one": ONE, "two": TWO, "words": WORDS, "odd": ODD}
FULL = {("json_answer", "words"): 1.5}
"""Full marks, where they are not the upper bound of the reward."""
TEMPLATES = {
    "pico": lambda: TextTokenizer.load(str(pico_folder(0))),
    "plain": lambda: small_tokenizer(QWEN_LIKE),
    "hybrid": lambda: small_tokenizer(THINKING),
    "one_call": llama_tokenizer,
}
FORMATS = [
    (template, dialect, markup)
    for template in TEMPLATES
    for dialect in ("auto", "json", "calls", "tagged")
    for markup in ("auto", "chatml")
    if markup == "auto" or (template == "hybrid" and dialect != "auto")
]


@cache
def policy_of(template: str, dialect: str, markup: str = "auto") -> TokenPolicy:
    tokenizer = TEMPLATES[template]()
    params = SamplingParams(max_tokens=8)
    return TokenPolicy(None, open_dialect(tokenizer, dialect, markup), tokenizer, params)


def refusal(
    policy: TokenPolicy, names: Sequence[str], tasks: Sequence[Task], thinks: bool = False
) -> str:
    """The sentence that refuses the rewards; empty where they are accepted."""
    schedule = PhaseSchedule.of(RewardSection(functions=list(names)))
    try:
        note = check_rewards(policy, schedule, tasks, thinks)
    except ConfigError as error:
        return str(error)
    assert note is None
    return ""


@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize(("template", "dialect", "markup"), FORMATS)
def test_gold_earns_full_marks_in_every_combination_that_is_accepted(
    template: str, dialect: str, markup: str, thinks: bool
) -> None:
    policy, accepted = policy_of(template, dialect, markup), []
    try:
        assert not thinks or thinking_prefix(policy)
    except CapabilityError:
        return
    for name, spec in BUILTIN.items():
        (reward,) = load_rewards([name])
        for kind, asked in TASKS.items():
            case = AttackCase(asked, ReplySyntax(policy, asked, thinks))
            try:
                gold = case.play(case.gold)
            except DialectError:
                continue
            if not spec.judges(asked):
                continue
            if sentence := refusal(policy, [name], [asked], thinks):
                assert sentence.startswith("training.rl.reward: ")
                assert sentence.endswith("training.rl.reward.check=false")
                assert name in sentence
                assert repr(policy.dialect.name) in sentence
                assert "\n" not in sentence
                assert spec.kind == "compatible"
            else:
                accepted.append((name, kind))
                full = FULL.get((name, kind), spec.bounds[1])
                assert compute_reward([reward], asked, gold).total == pytest.approx(full)
    assert ("tool_use", "one") in accepted
    assert (("tool_call_exact", "one") in accepted) is (
        dialect == "calls" and not thinks and (template, markup) != ("hybrid", "auto")
    )
    assert ("json_answer", "two") not in accepted


@pytest.mark.parametrize(
    ("names", "form", "asked", "thinks", "said"),
    [
        (["tool_call_params"], ("pico", "auto"), ONE, False, "use model.dialect=calls;"),
        (["json_answer"], ("pico", "auto"), ONE, False, "use model.dialect=json;"),
        (["tool_call_exact"], ("hybrid", "calls"), ONE, False, "use model.markup=chatml, "),
        (["json_answer"], ("hybrid", "json"), WORDS, False, "earns 1.3 of 1.5; use model.markup="),
        (["tool_call_exact"], ("pico", "calls"), ONE, True, "use training.rl.enforce_thinking="),
        (["json_answer"], ("pico", "json"), TWO, False, "pays leaving out a wanted call more"),
        (["json_answer"], ("pico", "json"), TWO, False, "use tasks that want one call each; or"),
        (["tool_call_parseable"], ("pico", "calls"), WORDS, False, "pays calling every tool on"),
    ],
)
def test_a_refusal_names_the_remedy(
    names: list[str], form: tuple[str, str], asked: Task, thinks: bool, said: str
) -> None:
    assert said in refusal(policy_of(*form), names, [asked], thinks)


def test_a_weak_reward_beside_one_that_pays_for_gold_is_accepted() -> None:
    policy = policy_of("pico", "calls")
    assert refusal(policy, ["tool_call_function", "tool_call_parseable"], [ONE, WORDS]) == ""


def test_every_phase_is_checked() -> None:
    phases: list[Any] = [
        {"functions": ["tool_use"], "steps": 5},
        {"functions": ["tool_call_exact"]},
    ]
    schedule = PhaseSchedule.of(RewardSection(phases=phases))
    with pytest.raises(ConfigError, match=r"reward\.phases, phase 2: the reward tool_call_exact"):
        check_rewards(policy_of("pico", "auto"), schedule, [ONE])


def test_a_format_that_cannot_write_gold_is_a_note() -> None:
    schedule = PhaseSchedule.of(RewardSection(functions=["tool_use"]))
    note = check_rewards(policy_of("one_call", "auto"), schedule, [TWO])
    assert note is not None
    assert note.startswith("the rewards are not checked: no right answer can be written (")


def test_a_sample_has_every_kind_of_task() -> None:
    many = [ONE] * 100 + [TWO, WORDS]
    assert [one.id for one in sample_tasks(many, 5)] == ["one", "two", "words", "one", "one"]


def rl_run(folder: Path, **reward: Any) -> Any:
    path = folder / "tasks.jsonl"
    rows = [{**one.to_dict(), "id": str(i)} for i, one in enumerate((ONE, TWO, WORDS) * 4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = {"method": "grpo", "steps": 1, "batch_size": 1, "lora": None, "validate_every": 0}
    rl = {"group_size": 2, "max_completion_length": 4, "reward": reward}
    plan = {"data": {"path": str(path)}, "training": {**training, "rl": rl}}
    return experiment({**plan, "evaluation": {"at_end": False}})


def test_a_run_stops_before_its_folder_is_made_unless_asked_on_purpose(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"use model\.dialect=calls; or another reward"):
        train(rl_run(tmp_path, functions=["tool_call_exact"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    plan = rl_run(tmp_path, functions=["tool_call_exact"], check=False)
    assert train(plan, tmp_path / "run")[1] == "finished"


def test_a_reward_of_the_user_that_pays_for_silence_is_refused(tmp_path: Path) -> None:
    code = tmp_path / "brief.py"
    code.write_text("def brief(task, episode):\n    return -len(episode.turns[0].text)\n")
    with pytest.raises(
        ConfigError, match="the reward brief pays saying nothing more than the right"
    ):
        train(rl_run(tmp_path, functions=[f"{code}:brief"]), tmp_path / "run")
