"""What constrained calls cost: the same prompts, free and under a grammar, in turns (A B A B),
tokens per second of wall time.

    python benchmarks/constrained_speed.py [--dialect json] [--batch 32] [--tokens 96] \\
        [--rounds 4] [--tokenizer FOLDER]

The model is pico, untrained, at temperature 1 on the CPU, one thread; the tools are the calculator
and the weather. In the dialect `json` every token of a turn is inside a JSON object, which is the
dearest case; `native` samples mostly free text. Also measured: the time to compile the grammar of a
set of tools, and the mask of one token alone, with pico's tokenizer and (--tokenizer) with one of a
real vocabulary. Prints one JSON object with every round and the median ratios. Needs the `grammar`
extra.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from toolhone.api import Model, open_model
from toolhone.backends.base import SamplingParams
from toolhone.backends.constraint import Grammars
from toolhone.data.templates import Templates
from toolhone.dialects.choose import open_dialect
from toolhone.schema import Tool
from toolhone.tokenizer import TextTokenizer


def speed(
    model: Model,
    prompts: Sequence[Sequence[int]],
    tools: Sequence[Tool],
    tokens: int,
    grammars: Grammars | None,
) -> float:
    """Sampled tokens per second."""
    grammar = None if grammars is None else grammars.text(tools)
    params = SamplingParams(tokens, 1.0, stop_ids=model.tokenizer.stop_ids(model.dialect.stop))
    started, count = time.perf_counter(), 0
    stream = model.sampler.stream()
    for key, prompt in enumerate(prompts):
        stream.submit(key, prompt, params, grammar)
    while polled := stream.poll():
        count += sum(len(samples[0].tokens) for _, samples in polled)
    return count / (time.perf_counter() - started)


def alone(tokenizer: TextTokenizer, tools: Sequence[Tool]) -> dict[str, float]:
    """Milliseconds for the grammar of these tools, for a copy of it, and for one mask (median over
    a random turn).
    """
    grammars = Grammars(open_dialect(tokenizer, "json"), tokenizer)
    started = time.perf_counter()
    grammars(tools)
    compiled = time.perf_counter()
    constraint = grammars(tools)
    copied = time.perf_counter()
    masks, rng = [], np.random.default_rng(0)
    stops = set(tokenizer.stop_ids(grammars.dialect.stop))
    for _ in range(400):
        begun = time.perf_counter()
        allowed = np.flatnonzero(constraint.allowed())
        masks.append(time.perf_counter() - begun)
        token = int(rng.choice(allowed))
        constraint.advance(token)
        constraint = grammars(tools) if token in stops else constraint
    values = {
        "compile": compiled - started,
        "copy": copied - compiled,
        "mask": statistics.median(masks),
        "mask_p95": sorted(masks)[379],
    }
    return {name: round(1000 * value, 3) for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dialect", default="json")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--tokenizer", type=Path, help="a folder with a tokenizer.json, for the mask alone"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(
        "pico", overrides=[f"model.dialect={arguments.dialect}", 'tools=["calculator","weather"]']
    )
    tools = model.registry.tools
    grammars = Grammars(model.dialect, model.tokenizer)
    conversations = Templates(0).conversations(arguments.batch)
    prompts = [
        model.policy().open(conversation.messages[:1], tools).tokens
        for conversation in conversations
    ]
    rounds: dict[str, list[float]] = {"free": [], "constrained": []}
    speed(model, prompts, tools, 8, grammars)
    for _ in range(arguments.rounds):
        rounds["free"].append(speed(model, prompts, tools, arguments.tokens, None))
        rounds["constrained"].append(speed(model, prompts, tools, arguments.tokens, grammars))
    ratio = statistics.median(
        b / a for a, b in zip(rounds["free"], rounds["constrained"], strict=True)
    )
    report = {
        "dialect": model.dialect.name,
        "batch": arguments.batch,
        "tokens_per_second": {
            name: [round(value) for value in values] for name, values in rounds.items()
        },
        "constrained_to_free": round(ratio, 2),
        "milliseconds": {
            f"pico ({model.tokenizer.vocab_size} tokens)": alone(model.tokenizer, tools)
        },
    }
    if arguments.tokenizer is not None:
        other = TextTokenizer.load(arguments.tokenizer)
        report["milliseconds"][f"{arguments.tokenizer.name} ({other.vocab_size} tokens)"] = alone(
            other, tools
        )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
