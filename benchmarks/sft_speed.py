"""SFT against TRL's SFTTrainer: the same rows, model, optimiser and batch size, in turns (A B A B),
tokens per second of wall time.

    python benchmarks/sft_speed.py [--model pico|small] [--steps 20] [--rounds 3] [--batch 32]

A is our torch trainer. B is TRL with its default settings but the precision (float32 on both
sides); C is TRL tuned for a CPU (no gradient checkpointing, batches of similar length). Rows are
generated conversations rendered by our dialect; TRL gets the same ids and the same completion mask.
Prints one JSON object with every round and the median ratios. Needs the `bench` extra.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

from toolhone.api import experiment
from toolhone.backends.base import Adam
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import open_trainer
from toolhone.data.render import render_rows
from toolhone.data.templates import Templates
from toolhone.dialects.choose import open_dialect
from toolhone.models.pico import pico_folder
from toolhone.rows import Row
from toolhone.tokenizer import TextTokenizer
from toolhone.training.losses import cross_entropy
from toolhone.training.update import with_token_weights


def make_model(kind: str, folder: Path) -> Path:
    """`pico` as it is, or `small`: 21 million parameters (8 layers of width 384) with pico's
    tokenizer, random weights.
    """
    if kind == "pico":
        return pico_folder()
    config = Qwen3Config.from_pretrained(pico_folder())
    config.update(
        {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 8,
            "num_attention_heads": 6,
            "head_dim": 64,
        }
    )
    config.update({"num_key_value_heads": 6, "layer_types": ["full_attention"] * 8})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(pico_folder()).save_pretrained(folder)
    return folder


def ours(model: Path, rows: Sequence[Row], batch: int) -> float:
    """Tokens per second."""
    trainer = open_trainer(model, None, EngineOptions(device_map="cpu"))
    started = time.perf_counter()
    for start in range(0, len(rows), batch):
        trainer.forward_backward(
            with_token_weights(rows[start : start + batch]), cross_entropy()
        ).result()
        trainer.optim_step(Adam(1e-3)).result()
    return sum(map(len, rows)) / (time.perf_counter() - started)


def trl(model: Path, rows: Sequence[Row], batch: int, tuned: bool) -> float:
    """Tokens per second of TRL's training loop, without its set-up."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    table = {
        "input_ids": [row.tokens.tolist() for row in rows],
        "completion_mask": [row.mask.astype(int).tolist() for row in rows],
    }
    settings: dict[str, Any] = (
        {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
        if tuned
        else {}
    )
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=batch,
            max_steps=len(rows) // batch,
            learning_rate=1e-3,
            bf16=False,
            use_cpu=True,
            completion_only_loss=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **settings,
        )
        tokenizer = AutoTokenizer.from_pretrained(model)
        trainer = SFTTrainer(
            str(model),
            args=config,
            train_dataset=Dataset.from_dict(table),
            processing_class=tokenizer,
        )
        started = time.perf_counter()
        trainer.train()
        return sum(map(len, rows)) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["pico", "small"], default="pico")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(arguments.model, Path(folder))
        tokenizer = TextTokenizer.load(model)
        conversations = Templates(0).conversations(arguments.steps * arguments.batch)
        rows = render_rows(
            conversations, open_dialect(tokenizer), tokenizer, experiment().training
        ).rows
        rounds: dict[str, list[float]] = {"toolhone": [], "trl_default": [], "trl_tuned": []}
        for _ in range(arguments.rounds):
            with contextlib.redirect_stdout(io.StringIO()):
                rounds["toolhone"].append(ours(model, rows, arguments.batch))
                rounds["trl_default"].append(trl(model, rows, arguments.batch, tuned=False))
                rounds["trl_tuned"].append(trl(model, rows, arguments.batch, tuned=True))
    ratios = {
        peer: round(
            statistics.median(a / b for a, b in zip(rounds["toolhone"], rounds[peer], strict=True)),
            2,
        )
        for peer in ("trl_default", "trl_tuned")
    }
    speeds = {name: [round(value) for value in values] for name, values in rounds.items()}
    print(json.dumps({"model": arguments.model, "tokens_per_second": speeds, "ratio_to": ratios}))


if __name__ == "__main__":
    main()
