"""Sampling against `generate`: the same model and prompts, in turns (A B A B), CPU seconds.

    python benchmarks/sampling_speed.py [--model bench-4m pico] [--pairs 5] [--json]

64 rows of 8 prompts that begin alike, 64 new tokens each, none of which stops. `toolhone`: cascade
attention; `padded`: batches padded on the left, as for models without the interface; `generate`:
transformers. A ratio is the median over pairs, with the least and most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_speed import make_model

from toolhone.backends.base import SamplingParams
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.padded_decoder import PaddedDecoder
from toolhone.backends.torch.trainer import open_sampler
from toolhone.models.pico import pico_folder

GROUP, BLOCK, NEW = 8, 60, 64


def arms(folder: Path) -> dict[str, Callable[[], Any]]:
    sampler, padded = (open_sampler(folder, EngineOptions(device_map="cpu")) for _ in range(2))
    padded.decoder = lambda: PaddedDecoder(padded._engine)  # type: ignore[method-assign]
    model, words = sampler._engine.model, sampler.info.vocab_size
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    block = rng.integers(3, words, BLOCK).tolist()
    prompts = [[*block, *rng.integers(3, words, 70 + 5 * i).tolist()] for i in range(8)]
    params = SamplingParams(max_tokens=NEW, num_samples=GROUP, seed=1)
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    inputs = ids.repeat_interleave(GROUP, 0), mask.repeat_interleave(GROUP, 0)
    lengths = {"max_new_tokens": NEW, "min_new_tokens": NEW}

    def generate() -> None:
        settings = {"do_sample": True, "eos_token_id": None, "pad_token_id": 0, **lengths}
        model.generate(inputs[0], attention_mask=inputs[1], **settings)

    def sample() -> None:
        sampler.forget()
        sampler.sample(prompts, params)

    return {
        "toolhone": sample,
        "padded": lambda: padded.sample(prompts, params),
        "generate": generate,
    }


def measure(folder: Path, pairs: int) -> dict[str, Any]:
    """Median seconds of each arm, and of the ratios to ours."""
    named = arms(folder)
    seconds: dict[str, list[float]] = {name: [] for name in named}
    for run in named.values():
        run()
    for _ in range(pairs):
        for name, run in named.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    result: dict[str, Any] = {
        name: round(statistics.median(own), 3) for name, own in seconds.items()
    }
    for name in ("padded", "generate"):
        ratios = [a / b for a, b in zip(seconds[name], seconds["toolhone"], strict=True)]
        found = statistics.median(ratios), min(ratios), max(ratios)
        result[f"{name} / toolhone"] = [round(ratio, 2) for ratio in found]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["bench-4m", "pico"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options, results = parser.parse_args(), {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.model:
            named = name == "bench-4m"
            folder = make_model(Path(temporary) / name) if named else Path(pico_folder())
            results[name] = measure(folder, options.pairs)
            if not options.json:
                print(name, json.dumps(results[name]), flush=True)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
