"""What the Tinker SDK and our server cost: per call, and a GRPO-like step against torch directly.

python benchmarks/tinker_overhead.py [--model pico] [--rounds 5]

A step samples `--group` replies to each of `--prompts` prompts, trains on all of them once by
importance sampling, and takes a new snapshot. The two sides alternate (A B A B); prints medians of
wall time and, for a machine with other work, of CPU time (client and server together; Linux).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from toolhone.backends.base import Adam, Lora, SamplingParams
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import open_trainer
from toolhone.models.pico import pico_folder
from toolhone.rows import Row
from toolhone.serve.tinker_losses import ROW, wire_loss

CALLS = 100
RANK = 16


class Direct:
    """The step on a torch trainer."""

    def __init__(self, folder, given, prompts):
        self.trainer = open_trainer(folder, Lora(RANK, 32.0), EngineOptions())
        self.given, self.prompts = given, prompts
        self.params = SamplingParams(given.tokens, num_samples=given.group)

    def step(self):
        groups = self.trainer.snapshot().sample(self.prompts, self.params)
        rows = []
        for number, (prompt, samples) in enumerate(zip(self.prompts, groups, strict=True)):
            for place, sample in enumerate(samples):
                start = len(prompt)
                row = Row.of(
                    [*prompt, *sample.tokens], [False] * start + [True] * len(sample.tokens)
                )
                logprobs = np.pad(np.array(sample.logprobs, np.float32), (start, 0))
                advantage = row.mask * np.float32(place % 2 * 2 - 1)
                arrays = {"logprobs": logprobs, "advantages": advantage, ROW: len(rows)}
                row = Row(row.tokens, row.mask, group=str(number)).with_arrays(**arrays)
                rows.append(row)
        self.trainer.forward_backward(rows, wire_loss("importance_sampling", {}, []))
        self.trainer.optim_step(Adam(1e-4, clip_norm=0.0))


class OverWire:
    """The step through the SDK."""

    def __init__(self, url, name, given, prompts):
        import tinker

        self.tinker, self.given, self.prompts = tinker, given, prompts
        self.client = tinker.ServiceClient(base_url=url, api_key="tml-local")
        model = self.client.create_lora_training_client(
            name, rank=RANK, seed=0, train_unembed=False
        )
        self.model = model.result()
        self.params = tinker.SamplingParams(max_tokens=given.tokens, stop=[])

    def step(self):
        tinker = self.tinker
        sampler = self.model.save_weights_and_get_sampling_client().result()
        inputs = [tinker.ModelInput.from_ints(prompt) for prompt in self.prompts]
        futures = [sampler.sample(one, self.given.group, self.params) for one in inputs]
        data = []
        for prompt, future in zip(self.prompts, futures, strict=True):
            for place, sequence in enumerate(future.result().sequences):
                before = len(prompt) - 1
                arrays = {
                    "target_tokens": np.array([*prompt[1:], *sequence.tokens]),
                    "logprobs": np.pad(np.array(sequence.logprobs, np.float32), (before, 0)),
                    "advantages": np.pad(
                        np.full(len(sequence.tokens), place % 2 * 2 - 1, np.float32), (before, 0)
                    ),
                }
                whole = tinker.ModelInput.from_ints([*prompt, *list(sequence.tokens)[:-1]])
                data.append(tinker.Datum(model_input=whole, loss_fn_inputs=arrays))
        passed = self.model.forward_backward(data, "importance_sampling")
        stepped = self.model.optim_step(tinker.AdamParams(learning_rate=1e-4))
        passed.result()
        stepped.result()

    def call_ms(self):
        """Median time of a call that has nothing to do: a step without a gradient."""
        times = []
        for _ in range(CALLS):
            start = time.perf_counter()
            self.model.optim_step(self.tinker.AdamParams(learning_rate=0.0)).result()
            times.append(1000 * (time.perf_counter() - start))
        return statistics.median(times)


def cpu_seconds(pid):
    """CPU time of this process and of the server."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def measure(given):
    folder = pico_folder(0) if given.model == "pico" else Path(given.model)
    draw = np.random.default_rng(0)
    prompts = [draw.integers(10, 500, given.length).tolist() for _ in range(given.prompts)]
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-c", "from toolhone.cli.main import main; main()", "serve"]
        command += ["--tinker", str(folder), "--port", "0", "--out", scratch]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                url = server.stdout.readline().strip().partition("=")[2]
                sides = {
                    "wire": OverWire(url, str(folder), given, prompts),
                    "torch": Direct(folder, given, prompts),
                }
                times, cpu = ({name: [] for name in sides} for _ in range(2))
                for round_ in range(given.rounds + 1):
                    for name, side in sides.items():
                        start, before = time.perf_counter(), cpu_seconds(server.pid)
                        side.step()
                        if round_ > 0:  # the first one warms up
                            times[name].append(time.perf_counter() - start)
                            cpu[name].append(cpu_seconds(server.pid) - before)
                call_ms = sides["wire"].call_ms()
            finally:
                server.terminate()
    wire, torch = (statistics.median(times[name]) for name in ("wire", "torch"))
    pairs, cpu_pairs = (
        [a / b for a, b in zip(each["wire"], each["torch"], strict=True)] for each in (times, cpu)
    )
    return {
        "call_ms": round(call_ms, 2),
        "step_wire_s": round(wire, 3),
        "step_torch_s": round(torch, 3),
        "ratio": round(statistics.median(pairs), 3),
        "ratios": [round(each, 2) for each in pairs],
        "cpu_wire_s": round(statistics.median(cpu["wire"]), 3),
        "cpu_torch_s": round(statistics.median(cpu["torch"]), 3),
        "cpu_ratio": round(statistics.median(cpu_pairs), 3),
        "cpu_ratios": [round(each, 2) for each in cpu_pairs],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pico")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=48)
    os.environ["TINKER_TELEMETRY"] = "0"
    warnings.simplefilter("ignore")
    print(json.dumps(measure(parser.parse_args())))
