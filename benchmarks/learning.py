"""What GRPO, PPO and DPO teach pico in phrasings that SFT never saw, and what they cost in those
that it knew.

    python benchmarks/learning.py --out runs/learning --seeds 0 1 2
    python benchmarks/learning.py --out runs/learning --seeds 0 --methods dpo

For each seed: the SFT of `toolhone demo`, then every method from its weights, on one thread each.
Old phrasings are those of SFT, new ones are played by the methods and were never a label; the
words, names and numbers of both are ones that no training has seen. Prints a line of JSON for each
training (also in OUT/learning.jsonl); what is there already is not trained again. CPU seconds are
those of the training, without the evaluations and without worker processes of tools that are still
alive at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METHODS: Mapping[str, Mapping[str, Any]] = {
    "grpo": {"training.steps": 130},
    "ppo": {"training.steps": 115},
    "dpo": {
        "data.preferences": "own_ranked",
        "data.pairs": 2,
        "training.steps": 150,
        "training.batch_size": 16,
        "training.learning_rate": 2e-4,
        "training.rl.beta": 0.2,
        "training.rl.dpo.rpo_alpha": 2,
        "training.schedule.decay_share": 0.5,
        "training.rl.temperature": 1.2,
        "training.rl.new_phrasings": 0.5,
        "training.rl.ptx.coef": 0,
    },
}
"""What differs from the preset `demo-grpo`."""
SPLITS = {"new": "rl_held_out", "old": "held_out_fillers"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--tasks", type=int, default=2100, help="of each kind of phrasings")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    for seed in asked.seeds:
        start = asked.out / f"sft-{seed}"
        before = measured("sft", seed, start, {}, asked.tasks, {})
        for method in asked.methods:
            found = measured(
                method,
                seed,
                asked.out / f"{method}-{seed}",
                {"model.adapter": str(start)},
                asked.tasks,
                before,
            )
            with (asked.out / "learning.jsonl").open("a") as file:
                print(json.dumps(found), file=file)
            print(json.dumps(found), flush=True)


def measured(
    method: str,
    seed: int,
    out: Path,
    start: Mapping[str, str],
    tasks: int,
    before: Mapping[str, Any],
) -> dict[str, Any]:
    """Train, unless that was done, and evaluate."""
    import torch

    from toolhone import evaluate, experiment, open_model, train
    from toolhone.config.presets import read_preset
    from toolhone.data.templates import Templates
    from toolhone.runs.progress import Progress

    torch.set_num_threads(1)
    known = out / "learning.json"
    if known.exists():
        return dict(json.loads(known.read_text()))
    plan = read_preset("demo" if method == "sft" else "demo-grpo")
    changes = {
        "seed": seed,
        "training.method": method,
        "training.save_every": 0,
        "training.validate_every": 0,
    }
    changes |= {**METHODS.get(method, {}), **start}
    began = cpu_seconds()
    train(
        experiment(plan, [f"{key}={value}" for key, value in changes.items()]),
        out,
        progress=Progress(plain=True),
    )
    spent = cpu_seconds() - began
    model, made = open_model(out), Templates(seed)
    scores = {
        name: evaluate(model, made.tasks(tasks, split)).metrics["exact_match"].to_dict()
        for name, split in SPLITS.items()
    }
    found = {"method": method, "seed": seed, "cpu_seconds": round(spent), **scores}
    if before:
        found |= {f"{name}_before": before[name]["value"] for name in SPLITS}
    known.write_text(json.dumps(found))
    return found


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    kinds = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(kind.ru_utime + kind.ru_stime for kind in kinds)


if __name__ == "__main__":
    main()
