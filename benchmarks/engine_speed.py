"""Training steps against TRL: the same random weights, rows, precision and optimiser, in turns
(A B A B), CPU seconds of this process.

    python benchmarks/engine_speed.py [--work sft sft-block dpo grpo train] [--pairs 5] [--json]

`--model`: a Qwen3 of 3.9 million parameters (bench-4m: 4 layers of width 256, 2,048 words), of 32
million (bench-32m) or with 151,936 words (bench-151k); or SmolLM2 itself (smollm2), by LoRA of rank
16 with `--lora`. `toolhone`: rows as a prefix forest;
`padded`: the same trainer without; `trl`: TRL at its best on a CPU (float32, no checkpointing,
batches of similar length), the first loss compared with ours; `trl-untuned`: rows of any length in
a batch; `trl-defaults`: its defaults. `train` is GRPO's update without sampling. A ratio is the
median over pairs, with the least and most. Needs `peers`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, TrainerCallback

from toolhone.api import experiment
from toolhone.backends.base import Adam, Lora, SamplingParams
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import TorchTrainer, open_trainer
from toolhone.data.render import render_rows
from toolhone.data.templates import Templates
from toolhone.dialects.choose import open_dialect
from toolhone.models.pico import pico_folder
from toolhone.models.resolve import resolve_model
from toolhone.rows import Row
from toolhone.tokenizer import TextTokenizer
from toolhone.training.advantages import group_relative_advantages
from toolhone.training.dpo import with_pair_weights
from toolhone.training.losses import cross_entropy, policy_loss, preference_loss
from toolhone.training.update import with_loss_weights, with_token_weights

RATE = 1e-4
SFT_STEPS, BLOCK, PAIRS, PROMPT = 4, 300, 4, 150
ADAPTERS = Lora(16, 32.0)


GROUPING = "train_sampling_strategy"
_PLAIN: dict[str, Any] = {"bf16": False, "gradient_checkpointing": False}
PEERS: dict[str, dict[str, Any]] = {
    "trl": {**_PLAIN, GROUPING: "group_by_length"},
    "trl-untuned": _PLAIN,
    "trl-defaults": {},
}
"""TRL's settings: the best for a processor without fast bfloat16; the same with rows of any length
in a batch; its own defaults (bfloat16 autocast, activation checkpointing)."""


@dataclass(frozen=True)
class Shape:
    """Width, layers, MLP width, heads, those of keys, words; GRPO's prompts and new tokens, the
    members of its groups, the rows of a step of SFT and the longest of them.
    """

    width: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    words: int
    prompts: int
    new: int
    group: int = 8
    rows: int = 32
    longest: int = 160


SHAPES = {
    "bench-4m": Shape(256, 4, 768, 4, 4, 2048, 8, 64),
    "bench-32m": Shape(512, 10, 1536, 8, 4, 2048, 2, 32),
    "bench-151k": Shape(256, 6, 768, 4, 4, 151_936, 2, 32),
    "smollm2": Shape(576, 30, 1536, 9, 3, 49_152, 4, 48, group=4, rows=8, longest=700),
}


def make_model(folder: Path, shape: Shape) -> Path:
    if shape is SHAPES["smollm2"]:
        return Path(resolve_model(experiment(overrides=["model.name=smollm2"])))
    config = Qwen3Config(
        vocab_size=shape.words,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(pico_folder()).save_pretrained(folder)
    return folder


def sft_rows(folder: Path, shape: Shape, count: int, block: int = 0) -> list[Row]:
    """Rendered conversations, behind `block` tokens that all have in common.

    Of at most `shape.longest` tokens: a single long row would pad a whole batch of TRL's.
    """
    tokenizer = TextTokenizer.load(folder)
    dialect = open_dialect(tokenizer, "tagged" if shape is SHAPES["smollm2"] else "auto")
    plan = experiment(overrides=[f"training.max_length={shape.longest}"]).training
    rows = render_rows(Templates(0).conversations(2 * count), dialect, tokenizer, plan).rows
    rows = [row for row in rows if len(row) <= shape.longest][:count]
    common = np.random.default_rng(0).integers(5, 900, block).tolist()
    return [
        Row.of([*common, *row.tokens.tolist()], [*[False] * block, *row.mask.tolist()])
        for row in rows
    ]


def pair_rows(folder: Path, shape: Shape, count: int) -> list[Row]:
    """Chosen and rejected replies, of which the second half differs."""
    random, found = np.random.default_rng(1), []
    for number, row in enumerate(sft_rows(folder, shape, count)):
        at = np.flatnonzero(row.mask)
        mask = np.arange(len(row)) >= at[0]
        worse = row.tokens.copy()
        worse[at[len(at) // 2] :] = random.integers(5, 900, len(row) - at[len(at) // 2])
        row = replace(row, mask=mask, group=str(number))
        found += [row, replace(row, tokens=worse)]
    return found


def prompts(folder: Path, count: int) -> list[str]:
    """Texts of about `PROMPT` tokens."""
    tokenizer, random = AutoTokenizer.from_pretrained(folder), np.random.default_rng(2)
    return [tokenizer.decode(random.integers(300, 900, PROMPT).tolist()) for _ in range(count)]


def score(tokens: Sequence[int]) -> float:
    return sum(token % 2 for token in tokens) / max(1, len(tokens))


@dataclass
class Arm:
    """`turn(steps)` takes CPU seconds and gives the first loss."""

    name: str
    turn: Callable[[int], tuple[float, float]]


def ours(
    name: str,
    folder: Path,
    step: Callable[[TorchTrainer, int], float],
    lora: Lora | None,
    forest: bool = True,
) -> Arm:
    trainer = open_trainer(folder, lora, EngineOptions(device_map="cpu"))
    trainer.engine.shares_prefixes &= forest
    done = 0

    def turn(steps: int) -> tuple[float, float]:
        nonlocal done
        began, losses = time.process_time(), []
        for _ in range(steps):
            losses.append(step(trainer, done))
            trainer.optim_step(Adam(RATE)).result()
            done += 1
        return time.process_time() - began, losses[0]

    return Arm(name, turn)


def part(items: Sequence[Any], size: int, step: int) -> list[Any]:
    start = step * size % len(items)
    return list(items[start : start + size])


def sft_step(rows: Sequence[Row], size: int) -> Callable[[TorchTrainer, int], float]:
    def step(trainer: TorchTrainer, done: int) -> float:
        batch = with_token_weights(part(rows, size, done))
        return trainer.forward_backward(batch, cross_entropy()).result()["loss"]

    return step


def dpo_step(rows: Sequence[Row]) -> Callable[[TorchTrainer, int], float]:
    """With the reference's log-probabilities, as TRL computes them in every step."""

    def step(trainer: TorchTrainer, done: int) -> float:
        batch = part(rows, 2 * PAIRS, done)
        known = trainer.snapshot().logprobs(batch)
        batch = [row.with_arrays(ref_logprobs=own) for row, own in zip(batch, known, strict=True)]
        loss = preference_loss("dpo", 0.1)
        return trainer.forward_backward(with_pair_weights(batch), loss).result()["loss"]

    return step


def played(
    trainer: TorchTrainer, ids: Sequence[list[int]], shape: Shape, stop: int, step: int
) -> list[Row]:
    params = SamplingParams(shape.new, num_samples=shape.group, seed=step, stop_ids=(stop,))
    rows = []
    for number, (prompt, samples) in enumerate(
        zip(ids, trainer.snapshot().sample(ids, params), strict=True)
    ):
        advantages = group_relative_advantages([score(sample.tokens) for sample in samples])
        for sample, advantage in zip(samples, advantages, strict=True):
            known = np.array([*[0.0] * len(prompt), *sample.logprobs], np.float32)
            row = Row.of([*prompt, *sample.tokens], known != 0)
            row = row.with_arrays(advantages=advantage, old_logprobs=known, behavior_logprobs=known)
            rows.append(replace(row, group=str(number)))
    return with_loss_weights("dapo", shape.new, rows)


def grpo_step(folder: Path, shape: Shape, fixed: bool) -> Callable[[TorchTrainer, int], float]:
    """With `fixed` the rows are sampled once, and a step is the update alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in prompts(folder, shape.prompts)
    ]
    kept: list[Row] = []

    def step(trainer: TorchTrainer, done: int) -> float:
        rows = kept or played(trainer, ids, shape, tokenizer.eos_token_id, done)
        if fixed:
            kept[:] = rows
        loss = policy_loss("dapo", 0.2, 0.2, 0.0)
        return trainer.forward_backward(rows, loss).result()["loss"]

    return step


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.seconds, self.began = 0.0, 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds += time.process_time() - self.began


def table_of(work: str, folder: Path, count: int, rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The columns that TRL's trainer reads."""
    if work == "grpo":
        return {"prompt": prompts(folder, count)}
    if work == "sft":
        return {
            "input_ids": [row.tokens.tolist() for row in rows],
            "completion_mask": [row.mask.astype(int).tolist() for row in rows],
        }
    sides = (("prompt_ids", False, 0), ("chosen_ids", True, 0), ("rejected_ids", True, 1))
    return {
        name: [row.tokens[row.mask == on].tolist() for row in rows[first::2]]
        for name, on, first in sides
    }


def trl(
    name: str,
    folder: Path,
    shape: Shape,
    work: str,
    rows: Sequence[Row],
    made: Path,
    lora: Lora | None,
) -> Arm:
    """TRL's loop, without its set-up; a new trainer for each turn. `name`: one of `PEERS`."""
    import trl
    from datasets import Dataset

    tokenizer = AutoTokenizer.from_pretrained(folder)
    kinds = {
        "sft": (trl.SFTConfig, trl.SFTTrainer, shape.rows),
        "dpo": (trl.DPOConfig, trl.DPOTrainer, PAIRS),
        "grpo": (trl.GRPOConfig, trl.GRPOTrainer, shape.prompts * shape.group),
    }
    config_of, trainer_of, size = kinds[work]
    own: dict[str, Any] = {
        "sft": {"completion_only_loss": True},
        "dpo": {"beta": 0.1, "max_length": None},
        "grpo": {"num_generations": shape.group, "max_completion_length": shape.new, "beta": 0.0},
    }[work]
    more: dict[str, Any] = {}
    if lora is not None:
        from peft import LoraConfig

        more["peft_config"] = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    settings = PEERS[name]
    if work != "sft":
        settings = {key: value for key, value in settings.items() if key != GROUPING}
    if work == "grpo":
        more["reward_funcs"] = lambda completion_ids, **_: [score(one) for one in completion_ids]
    elif work == "dpo":
        trainer_of = type("Tokenised", (trainer_of,), {"_prepare_dataset": lambda _, it, *__: it})
    now = rows[: size * 2 if work == "dpo" else size]  # those of our first step

    def turn(steps: int) -> tuple[float, float]:
        nonlocal now
        config = config_of(
            output_dir=str(made),
            per_device_train_batch_size=size,
            max_steps=steps,
            learning_rate=RATE,
            weight_decay=0.0,
            adam_beta2=0.95,
            use_cpu=True,
            save_strategy="no",
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
            **own,
            **settings,
        )
        clock = Clock()
        with contextlib.redirect_stdout(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(folder)
            trainer = trainer_of(
                model,
                args=config,
                train_dataset=Dataset.from_dict(table_of(work, folder, shape.prompts, now)),
                processing_class=tokenizer,
                callbacks=[clock],
                **more,
            )
            trainer.train()
        now = rows
        return clock.seconds, float(trainer.state.log_history[0]["loss"])

    return Arm(name, turn)


def measure(arms: Sequence[Arm], pairs: int, steps: int) -> dict[str, Any]:
    """CPU seconds of a step for each arm, ratios to the first, and the losses of step 1.

    The first turns warm up and are not counted.
    """
    first = {arm.name: arm.turn(1)[1] for arm in arms}
    seconds: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for _ in range(pairs):
        for arm in arms:
            seconds[arm.name].append(arm.turn(steps)[0] / steps)
    base, *others = seconds
    ratios = {}
    for name in others:
        each = sorted(b / a for a, b in zip(seconds[base], seconds[name], strict=True))
        ratios[name] = [round(x, 2) for x in (statistics.median(each), each[0], each[-1])]
    medians = {name: round(statistics.median(own), 3) for name, own in seconds.items()}
    return {"cpu_seconds": medians, "ratio_median_least_most": ratios, "first_loss": first}


def arms_of(
    work: str, folder: Path, shape: Shape, made: Path, lora: Lora | None, names: Sequence[str]
) -> list[Arm]:
    """The arms of these names, which are opened as they are made."""
    peer, rows = {"train": "grpo", "sft-block": "sft"}.get(work, work), list[Row]()
    if peer == "grpo":
        steps = [grpo_step(folder, shape, fixed=work == "train") for _ in range(2)]
    elif work == "dpo":
        rows = pair_rows(folder, shape, PAIRS * 8)
        steps = [dpo_step(rows)] * 2
    else:
        block = BLOCK if work == "sft-block" else 0
        rows = sft_rows(folder, shape, shape.rows * SFT_STEPS, block)
        steps = [sft_step(rows, shape.rows)] * 2
    arms = []
    for name, step, forest in (("toolhone", steps[0], True), ("padded", steps[1], False)):
        if name in names:
            arms.append(ours(name, folder, step, lora, forest))
    peers = [name for name in PEERS if name in names and work != "train"]
    peers = [name for name in peers if name != "trl-untuned" or peer == "sft"]
    return [*arms, *(trl(name, folder, shape, peer, rows, made, lora) for name in peers)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    works = ("sft", "sft-block", "dpo", "grpo", "train")
    parser.add_argument("--work", nargs="+", choices=works, default=list(works))
    parser.add_argument("--model", choices=list(SHAPES), default="bench-4m")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="of one turn, except SFT")
    parser.add_argument("--arms", nargs="+", default=["toolhone", "padded", *PEERS])
    parser.add_argument("--lora", action="store_true", help="train adapters, not every weight")
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as place:
        shape = SHAPES[arguments.model]
        folder = make_model(Path(place) / "model", shape)
        for work in arguments.work:
            # A length-grouped epoch starts with its longest rows, so SFT is measured by epochs.
            steps = SFT_STEPS if work.startswith("sft") else arguments.steps
            lora = ADAPTERS if arguments.lora else None
            arms = arms_of(work, folder, shape, Path(place) / "trl", lora, arguments.arms)
            found[work] = measure(arms, arguments.pairs, steps)
            if not arguments.json:
                print(work, json.dumps(found[work]), flush=True)
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
