"""Peak memory of SFT, DPO and GRPO with default settings, as a run predicts it and as it is.

    python benchmarks/memory.py [--methods sft dpo grpo] [--row 700] [--steps 2] [--full]
    python benchmarks/memory.py --vocabulary [--full]
    python benchmarks/memory.py --peers [--methods sft grpo] [--full]

A Llama of 135M parameters in the shape of SmolLM2 with random weights; each method trains it in a
process of its own, on rows of about `--row` tokens. The table has the peak resident set of that
process (`ru_maxrss`) in GB (10^9 bytes), the prediction before step 1, and CPU seconds of the run.
`--vocabulary`: one step on 16,384 tokens with 151,669 words, whose logits alone would take 9.9 GB;
GB above the loaded model. `--peers`: one step of SmolLM2 here and by TRL (its best settings for a
CPU, and its defaults), as in `engine_speed.py`; GB above the process before and the weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VOCABULARY = 151_669
REWARD = """
def odd(task, episode):
    tokens = [token for turn in episode.turns for token in turn.tokens]
    return sum(token % 2 for token in tokens) / max(1, len(tokens))
"""
ROWS = 8
MAIN = "from toolhone.cli.main import main; main()"
LIMIT = 25
"""Most per cent between the prediction and the peak."""


def resident() -> int:
    """The peak resident set of this process, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def make_smollm2(folder: Path) -> Path:
    """A Llama in the shape of SmolLM2-135M with random weights, and pico's tokenizer."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from toolhone.models.pico import pico_folder

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    shutil.copytree(pico_folder(), folder, dirs_exist_ok=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def make_vocabulary(folder: Path) -> Path:
    """A small Qwen3 with random weights and the vocabulary of the real ones."""
    from transformers import AutoModelForCausalLM, Qwen3Config

    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def write_rows(folder: Path, row: int) -> None:
    """Conversations and tasks of about `row` tokens, 200 of them the assistant's."""
    (folder / "own.py").write_text(REWARD)
    number = {"type": "object", "properties": {"expression": {"type": "string"}}}
    function = {"name": "calculator", "description": "Compute.", "parameters": number}
    tools = [{"type": "function", "function": function}]
    call = {"name": "calculator", "arguments": {"expression": "+".join("7" * 90)}}
    rows = []
    for n in range(ROWS):
        text = f"{n} " + "more of the same " * ((row - 320) // 4)
        reply = {"role": "assistant", "content": "", "tool_calls": [{"function": call}]}
        rows.append({"messages": [{"role": "user", "content": text}, reply], "tools": tools})
    (folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))


def words_of(method: str, steps: int, full: bool) -> list[str]:
    """The command line of one training; what is not named here is a default."""
    values: dict[str, Any] = {
        "training.method": method,
        "training.steps": steps,
        "training.batch_size": 2 if method == "sft" else 1,
        "model.name": "model",
        "data.path": "rows.jsonl",
        "training.validate_every": 0,
        "training.save_every": 0,
        "evaluation.at_end": "false",
    }
    if full:
        values["training.lora"] = "null"
    if method == "grpo":
        values["training.rl.max_completion_length"] = 48
        values["training.rl.reward.functions"] = '["own.py:odd"]'
    return [f"{key}={value}" for key, value in values.items()]


def measure(folder: Path, method: str, steps: int, full: bool) -> dict[str, Any]:
    """Train in a process of its own; what it predicted, its peak and its CPU time."""
    out = f"{method}-run"
    command = [sys.executable, "-c", MAIN, "train", "--out", out, *words_of(method, steps, full)]
    with (folder / "log.txt").open("w+") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        log.seek(0)
        text = log.read()
    said = re.search(r"memory: about ([\d.]+) GB", text)
    if status or said is None:
        raise SystemExit(text[-3000:])
    unit = 1 if sys.platform == "darwin" else 1024
    data = json.loads((folder / out / "data.json").read_text())
    return {
        "method": method,
        "predicted": float(said[1]),
        "peak": used.ru_maxrss * unit / 1e9,
        "cpu": used.ru_utime + used.ru_stime,
        "longest": data.get("longest_row", 0),
    }


def show(rows: list[dict[str, Any]]) -> bool:
    """Print the table; whether every prediction is within `LIMIT`."""
    print("| method | longest row | predicted GB | peak GB | off by | CPU s |")
    print("| --- | --- | --- | --- | --- | --- |")
    close = True
    for one in rows:
        off = 100 * (one["predicted"] / one["peak"] - 1)
        close = close and abs(off) <= LIMIT
        print(
            f"| {one['method']} | {one['longest'] or '-'} | {one['predicted']:.1f} | "
            f"{one['peak']:.2f} | {off:+.0f} % | {one['cpu']:.0f} |"
        )
    return close


def one_step(folder: Path, full: bool) -> dict[str, float]:
    """A step on 16,384 tokens with a large vocabulary; GB above the loaded model, seconds, loss."""
    import numpy as np
    import torch

    from toolhone.backends.base import Adam, Lora
    from toolhone.backends.torch.engine import EngineOptions
    from toolhone.backends.torch.trainer import open_trainer
    from toolhone.rows import Row
    from toolhone.training.losses import cross_entropy

    def peak() -> int:
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident()

    trainer = open_trainer(make_vocabulary(folder), None if full else Lora(16), EngineOptions())
    random, rows = np.random.default_rng(0), []
    for _ in range(16):
        row = Row.of(random.integers(0, VOCABULARY, 1024).tolist(), [True] * 1024)
        rows.append(row.with_arrays(weights=row.mask.astype(np.float32) / 16384))
    before, started = peak(), time.perf_counter()
    loss = trainer.forward_backward(rows, cross_entropy()).result()["loss"]
    trainer.optim_step(Adam(learning_rate=1e-4)).result()
    above, seconds = (peak() - before) / 1e9, time.perf_counter() - started
    return {"above_model_gb": round(above, 2), "seconds": round(seconds, 1), "loss": round(loss, 3)}


def against_peers(method: str, full: bool, arm: str) -> dict[str, float]:
    """One step by one trainer in this process; GB at its peak, and above imports and weights."""
    import peft  # noqa: F401 - code that is loaded before
    import trl  # noqa: F401
    from engine_speed import ADAPTERS, SHAPES, arms_of, make_model

    with tempfile.TemporaryDirectory() as name:
        shape, made = SHAPES["smollm2"], Path(name)
        folder = make_model(made, shape)
        weights, before = (
            sum(one.stat().st_size for one in folder.glob("*.safetensors")),
            resident(),
        )
        for one in arms_of(method, folder, shape, made, None if full else ADAPTERS, [arm]):
            one.turn(1)
    above = (resident() - before - weights) / 1e9
    return {"peak_gb": round(resident() / 1e9, 2), "above_model_gb": round(above, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=["sft", "dpo", "grpo"])
    parser.add_argument("--row", type=int, default=700, help="tokens")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="train every weight, not LoRA")
    parser.add_argument("--vocabulary", action="store_true", help="one step, 151,669 words")
    parser.add_argument("--peers", action="store_true", help="SmolLM2 here and by TRL")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        print(json.dumps(against_peers(arguments.methods[0], arguments.full, arguments.arm)))
        return
    if arguments.peers:
        for method, arm in itertools.product(
            arguments.methods, ("toolhone", "trl", "trl-defaults")
        ):
            words = ["--methods", method, "--arm", arm, *(["--full"] if arguments.full else [])]
            command = [sys.executable, __file__, *words]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            print(method, arm, done.stdout.splitlines()[-1], flush=True)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.vocabulary:
            print(json.dumps(one_step(folder, arguments.full)))
            return
        make_smollm2(folder / "model")
        write_rows(folder, arguments.row)
        rows = [
            measure(folder, method, arguments.steps, arguments.full) for method in arguments.methods
        ]
        sys.exit(not show(rows))


if __name__ == "__main__":
    main()
