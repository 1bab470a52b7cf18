"""One experiment file for SFT and one for GRPO on torch, MLX and Tinker: do the results differ?

    python benchmarks/same_recipe.py --start runs/demo/sft/run [--seeds 0 1 2] [--tasks 1000]

`--start` is a run of pico; LoRA and Adam go on from it, on phrasings that it never saw. Tinker is
the unmodified SDK against `toolhone serve --tinker` on this machine. Each run is evaluated by its
own backend on the same held-out tasks. Per method and backend: exact match by seed, and the paired
difference from torch over all seeds with its 95 % interval (tasks are the units).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from toolhone.data.templates import Templates
from toolhone.sources.files import write_jsonl

MAIN = "from toolhone.cli.main import main; main()"
BLAS = (
    "import ctypes, pathlib, torch; ctypes.CDLL(str(next(pathlib.Path(torch.__file__).parent"
    ".glob('lib/libtorch_cpu.*'))), ctypes.RTLD_GLOBAL); "
)
"""The wheel of MLX for Linux brings a slow BLAS; torch's, loaded first, takes its place."""
ADAPTER = {"rank": 8, "alpha": 32}
"""A Tinker client cannot choose alpha; 32 is the value of the local server."""
TRAINING: dict[str, dict[str, Any]] = {
    "sft": {"steps": 60, "batch_size": 16, "learning_rate": 3e-3, "lora": ADAPTER},
    "grpo": {
        "steps": 40,
        "batch_size": 8,
        "learning_rate": 2e-3,
        "lora": ADAPTER,
        "rl": {
            "group_size": 8,
            "max_completion_length": 64,
            "temperature": 1.0,
            "episode": {"to_the_end": False},
            "reward": {"functions": ["right_calls"]},
        },
    },
}
DATA = {"sft": "rows.jsonl", "grpo": "tasks.jsonl"}


def toolhone(folder: Path, words: list[str], backend: str = "", **environment: str) -> None:
    """Run one command in the folder; its output goes to `log.txt` there."""
    code = (BLAS if backend == "mlx" else "") + MAIN
    with (folder / "log.txt").open("ab") as log:
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}, see {folder / 'log.txt'}")


@contextmanager
def service(folder: Path) -> Iterator[dict[str, str]]:
    """The local Tinker server for the model; yields the environment of its clients."""
    words = [sys.executable, "-c", MAIN, "serve", "--tinker", "model", "--port", "0"]
    with (folder / "server.txt").open("w") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
    try:
        url = None
        while url is None and server.poll() is None:
            url = re.search(r"http://[\d.:]+", (folder / "server.txt").read_text())
        if url is None:
            raise SystemExit((folder / "server.txt").read_text())
        yield {"TINKER_BASE_URL": url[0], "TINKER_API_KEY": "tml-local"}
    finally:
        server.terminate()
        server.wait()


def write_inputs(folder: Path, start: str, tasks: int) -> None:
    """The model, rows and tasks in new phrasings, held-out tasks, and two experiment files."""
    templates = Templates(0)
    rows = [one.to_dict() for one in templates.conversations(1200, "rl")]
    write_jsonl(folder / "rows.jsonl", rows)
    for name, split, count in (("tasks", "rl", 400), ("held_out", "rl_held_out", tasks)):
        write_jsonl(folder / f"{name}.jsonl", [t.to_dict() for t in templates.tasks(count, split)])
    if not (folder / "model").is_dir():
        toolhone(folder, ["export", start, "--out", "model", "--json"])
    for method, training in TRAINING.items():
        plan = {
            "model": {"name": "model"},
            "data": {"path": DATA[method]},
            "training": {"method": method, "validate_every": 0, "log_every": 5, **training},
            "evaluation": {"tasks": "held_out.jsonl", "num_samples": tasks, "max_new_tokens": 64},
        }
        (folder / f"{method}.json").write_text(json.dumps(plan, indent=2))


def exact_of(run: Path) -> np.ndarray:
    """Exact match of each task, float64 [tasks], in the order of the task file."""
    lines = (run / "evaluation" / "samples.jsonl").read_text().split("\n")
    samples = {
        one["id"]: one["scores"]["exact_match"] for one in map(json.loads, filter(None, lines))
    }
    return np.array([samples[name] for name in sorted(samples)], dtype=float)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--start", required=True, help="a run of pico, or a model folder")
    parser.add_argument("--backends", nargs="+", default=["torch", "mlx", "tinker"])
    parser.add_argument("--methods", nargs="+", default=list(TRAINING), choices=list(TRAINING))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="keep the runs here")
    arguments = parser.parse_args()
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="same-recipe-"))
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(folder, str(Path(arguments.start).resolve()), arguments.tasks)
    remote = "tinker" in arguments.backends
    with service(folder) if remote else nullcontext({}) as environment:
        for method in arguments.methods:
            scores: dict[str, np.ndarray] = {}
            for backend in arguments.backends:
                runs = []
                for seed in arguments.seeds:
                    run = f"runs/{method}-{backend}-{seed}"
                    if not (folder / run / "evaluation" / "samples.jsonl").is_file():
                        words = ["train", f"{method}.json", "--out", run, f"seed={seed}"]
                        words.append(f"model.backend={backend}")
                        toolhone(folder, words, backend, **environment)
                    runs.append(exact_of(folder / run))
                scores[backend] = np.stack(runs)
                each = [round(float(one), 4) for one in scores[backend].mean(axis=1)]
                result: dict[str, Any] = {"method": method, "backend": backend, "exact": each}
                if backend != arguments.backends[0]:
                    gaps = (scores[backend] - scores[arguments.backends[0]]).mean(axis=0)
                    half = 1.96 * gaps.std(ddof=1) / len(gaps) ** 0.5
                    result["difference"] = round(float(gaps.mean()), 4)
                    result["interval"] = [round(float(gaps.mean() + s * half), 4) for s in (-1, 1)]
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
