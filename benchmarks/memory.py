"""Peak memory of one training step: 16,384 tokens with a vocabulary of 151,669 words, above what
the loaded model takes.

    python benchmarks/memory.py [--full] [--tokens 16384] [--hidden 256] [--layers 4]

Settings are the defaults (8,192 tokens in one forward pass). Prints one JSON object; sizes in GB
(10^9 bytes), peak resident set of this process (`ru_maxrss`) or, with CUDA, peak allocated. The
logits alone would take 9.9 GB in float32. No peer is measured here.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from toolhone.backends.base import Adam, Lora
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import open_trainer
from toolhone.rows import Row
from toolhone.training.losses import cross_entropy

VOCABULARY = 151_669


def peak() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def make_model(folder: Path, hidden: int, layers: int) -> Path:
    """A Qwen3 with random weights and the vocabulary of the real ones."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        head_dim=64,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="train every weight, not LoRA")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), arguments.hidden, arguments.layers)
        lora = None if arguments.full else Lora(rank=16)
        trainer = open_trainer(folder, lora, EngineOptions())
        length = 1024
        random = np.random.default_rng(0)
        rows = []
        for _ in range(arguments.tokens // length):
            row = Row.of(random.integers(0, VOCABULARY, length).tolist(), [True] * length)
            rows.append(row.with_arrays(weights=row.mask.astype(np.float32) / arguments.tokens))
        before, started = peak(), time.perf_counter()
        loss = trainer.forward_backward(rows, cross_entropy()).result()["loss"]
        trainer.optim_step(Adam(learning_rate=1e-4)).result()
    above = (peak() - before) / 1e9
    print(
        json.dumps(
            {
                "above_model_gb": round(above, 2),
                "seconds": round(time.perf_counter() - started, 1),
                "loss": round(loss, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
