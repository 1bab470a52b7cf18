"""The recipe of a pretrained model: what an experiment leaves open, by the model's size and device.

    plan = with_recipe(plan, data.train, report)           # before the model is opened
    length, why = fitting_length([310, 420, 980], 8192)    # when the rows are known

pico and other models below `SMALLEST` keep the defaults of the sections. What was chosen, and why,
is kept in `training.recipe.chosen`; a resumed run keeps it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from toolhone.backends.base import Trainer
from toolhone.backends.open import longest_row, size_up
from toolhone.config.experiment import is_pico
from toolhone.config.sections import Experiment
from toolhone.data.render import Lengths, check_lengths
from toolhone.models.resolve import resolve_model
from toolhone.schema import Conversation, Task, Tool
from toolhone.schema.preference import Preference
from toolhone.training.dataset import learns_labels

Learned = Conversation | Task | Preference
SMALLEST = 20_000_000
RATES = ((300e6, 1e-3, 1e-4), (1e9, 5e-4, 5e-5), (4e9, 3e-4, 2e-5), (float("inf"), 2e-4, 1e-5))
"""Weights up to which a rate holds; that of LoRA, and that of full training. Adapters take rates
ten times as high or more (Schulman and others, LoRA Without Regret, 2025), small models higher
ones. They follow usual practice; no sweep was run."""
GENTLER = {"dpo": 0.1, "ppo": 0.2, "grpo": 0.2}
"""Methods whose rate is a part of that of SFT."""
WARMUP = 0.05
PERCENTILE = 99
"""Of the rows' lengths, which `training.max_length` fits."""
SHARED, WIDE = 1000, 4096
"""Characters of tools from which a CPU is faster with a pass of `WIDE` tokens that recomputes its
activations than with one of 1,024 that keeps them: 37 and 58 CPU seconds for 16 rows with 2,300
characters, with 1 GB less (docs/log.md)."""
BY_DATA = "fits the data"


def with_recipe(
    plan: Experiment, data: Sequence[Learned], report: Callable[[str], None]
) -> Experiment:
    """Return the plan with settings that are left open filled in for its pretrained model.

    data: what is trained on. Unchanged: with `training.recipe` none, pico, models below `SMALLEST`,
    and backends whose model is not described here (toy, tinker).
    """
    training = plan.training
    if training.recipe.name == "none" or plan.model.backend in ("toy", "tinker"):
        return plan
    name = resolve_model(plan)
    if plan.model.model_class is not None or is_pico(plan.model.name) or is_pico(name):
        return plan
    size = size_up(name, plan.model, full=training.lora is None)
    if size.weights < SMALLEST:
        return plan
    kind = f"{'LoRA' if training.lora else 'full training'} of {size.weights / 1e6:,.0f}M weights"
    lora, full = next((a, b) for most, a, b in RATES if size.weights <= most)
    rate = (lora if training.lora else full) * GENTLER.get(training.method, 1)
    found: dict[str, tuple[Any, str]] = {}
    found["training.learning_rate"] = (rate, f"{kind}, {training.method}")
    if training.lora is not None:
        found["training.lora"] = (training.lora, "adapters on every layer but the head")
    found["training.schedule.warmup_ratio"] = (WARMUP, "of all steps")
    found["model.torch_dtype"] = (size.torch_dtype, size.why)
    shared = _shared_characters([one.tools for one in data])
    if size.tight or (size.on_cpu and shared > SHARED):
        why = "a step would fill the memory of this device"
        if not size.tight:
            why = f"rows begin with the same tools, {shared:,} characters, which run once in a pass"
            found["model.micro_batch_tokens"] = (WIDE, why)
        found["training.gradient_checkpointing"] = (True, why)
    if training.method == "sft" or learns_labels(plan):
        found["training.max_length"] = (training.max_length, BY_DATA)
    chosen = {key: value for key, value in found.items() if _is_open(plan, key)}
    for key, (value, why) in chosen.items():
        plan = with_value(plan, key, value)
        if why != BY_DATA:
            shown = f"rank {value.rank}" if key == "training.lora" else value
            report(f"recipe: {key} {shown} ({why})")
    reasons = {key: why for key, (_, why) in chosen.items()}
    return with_value(plan, "training.recipe.chosen", reasons)


def as_begun(plan: Experiment, begun: Experiment) -> Experiment:
    """Return the plan with what the recipe chose when the run began, where it is left open."""
    for key in begun.training.recipe.chosen:
        if _is_open(plan, key):
            plan = with_value(plan, key, _value(begun, key))
    return with_value(plan, "training.recipe.chosen", begun.training.recipe.chosen)


def fit_rows(
    plan: Experiment, rendered: Lengths, trainer: Trainer, report: Callable[[str], None]
) -> tuple[Experiment, Lengths]:
    """Return the plan with a `training.max_length` that fits the rows, and the rows that fit."""
    context, memory = trainer.info.max_context, longest_row(trainer)
    most = min(context or rendered.longest, memory or rendered.longest)
    length, why = fitting_length([len(row) for row in rendered.rows], most)
    report(f"recipe: training.max_length {length} ({why})")
    chosen = {**plan.training.recipe.chosen, "training.max_length": why}
    plan = with_value(plan, "training.max_length", length)
    plan = with_value(plan, "training.recipe.chosen", chosen)
    fits = check_lengths(rendered.rows, length, plan.data.too_long)
    return plan, replace(fits, not_learned=rendered.not_learned)


def fitting_length(lengths: Sequence[int], most: int) -> tuple[int, str]:
    """Return the length that fits `PERCENTILE` of the rows (all, if the longest is near), and why.

    most: tokens that model and memory allow.
    """
    usual, longest = np.percentile(lengths, PERCENTILE), max(lengths)
    wanted = -(-int(longest if longest <= 1.5 * usual else usual) // 64) * 64
    length = min(wanted, most)
    fits = sum(one <= length for one in lengths)
    bound = "" if length == wanted else ", all that model and memory allow"
    return length, f"{fits} of {len(lengths)} rows fit, the longest has {longest} tokens{bound}"


def _shared_characters(tools: Sequence[Sequence[Tool]]) -> int:
    """Return the characters of the commonest list of tools, 0 where less than half have it."""
    counts = Counter(tuple(tool.name for tool in each) for each in tools)
    if not counts or 2 * counts.most_common(1)[0][1] < len(tools):
        return 0
    names = counts.most_common(1)[0][0]
    first = next(each for each in tools if tuple(tool.name for tool in each) == names)
    return sum(len(json.dumps(tool.to_dict())) for tool in first)


def _is_open(plan: Experiment, key: str) -> bool:
    """Whether the experiment says nothing about a key; warm-up in steps is one in a share too."""
    *sections, name = key.split(".")
    place: Any = plan
    for section in sections:
        if section not in place.model_fields_set:
            return True
        place = getattr(place, section)
    names = {"warmup_ratio": {"warmup_ratio", "warmup_steps"}}.get(name, {name})
    return not names & place.model_fields_set


def _value(plan: Experiment, key: str) -> Any:
    value: Any = plan
    for part in key.split("."):
        value = getattr(value, part)
    return value


def with_value(plan: Experiment, key: str, value: Any) -> Experiment:
    """Return the plan with another value of a dotted key."""
    for part in reversed(key.split(".")):
        key = key.rpartition(".")[0]
        value = (_value(plan, key) if key else plan).model_copy(update={part: value})
    assert isinstance(value, Experiment)
    return value
