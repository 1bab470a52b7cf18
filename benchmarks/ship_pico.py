"""Write the trained pico that ships in the package, from a run of the demo.

    toolhone demo --seed 0 --out runs/demo && python benchmarks/ship_pico.py runs/demo/grpo/run

Exports the run, stores the weights in float16 (1.5 MB), and evaluates both on the held-out tasks of
the run: the scores are printed and must agree.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import toolhone.models
from toolhone import evaluate, open_model
from toolhone.export.merged import ExportFormat, export

TRAINED = "pico-trained"
FOLDER = Path(toolhone.models.__file__).parent / "pico_trained"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", help="a GRPO run of the demo")
    parser.add_argument("--tasks", type=int, default=400, help="tasks of each evaluation")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "export"
        export(open_model(arguments.run), draft, ExportFormat.MERGED)
        weights = load_file(draft / "model.safetensors")
        halves = {name: tensor.to(torch.float16) for name, tensor in weights.items()}
        save_file(halves, draft / "model.safetensors", {"format": "pt"})
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.copytree(draft, FOLDER)
    (FOLDER / "model.safetensors").chmod(0o644)
    size = sum(each.stat().st_size for each in FOLDER.iterdir())
    print(f"{FOLDER}: {size / 1e6:.2f} MB")
    held_out = Path(arguments.run) / "tasks.jsonl"
    for name, tasks in ((arguments.run, held_out), (TRAINED, held_out), (TRAINED, None)):
        metrics = evaluate(open_model(name), tasks, arguments.tasks).metrics
        print(name, "held-out tasks of the run" if tasks else "fresh tasks", metrics["exact_match"])


if __name__ == "__main__":
    main()
