"""GRPO in a shop whose calls fail: tasks solved and calls retried before and after, over seeds.

    python benchmarks/shop_learning.py --out runs/shop --seeds 0 1 2 [--set training.steps=2 ...]

For each seed: the preset `shop-logs` (recorded episodes, in which most failed calls end the
episode), then `shop-retry` twice on the same tasks, with credit by episode and by turn. Prints for
each run the held-out tasks solved before and after with the 95 % interval of the difference
(paired), and the share of failed calls that were made again; then mean and lowest over the seeds.
A run that is finished is read. `--set` goes to every training.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from toolhone.evaluation.compare import compare
from toolhone.evaluation.folder import read_folder

CREDITS = ("episode", "turn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    gains: dict[str, list[float]] = {credit: [] for credit in CREDITS}
    for seed in asked.seeds:
        own = [f"seed={seed}", *asked.set]
        start = trained("shop-logs", asked.out / f"sft-{seed}", own)
        for credit in CREDITS:
            words = [*own, f"model.adapter={start}", f"training.rl.reward.credit={credit}"]
            run = trained("shop-retry", asked.out / f"{credit}-{seed}", words)
            gains[credit].append(show(run))
    for credit, each in gains.items():
        print(f"{credit}: mean {np.mean(each):+.1f}, lowest {min(each):+.1f} points")


def trained(preset: str, folder: Path, settings: list[str]) -> Path:
    """The folder of a finished run of a preset; its output goes to a file beside it."""
    if not (folder / "checkpoints" / "final_checkpoint").is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "toolhone", "train", preset, "--out", str(folder)]
        with folder.with_suffix(".log").open("w") as log:
            subprocess.run([*command, *settings], stdout=log, stderr=log, check=True)
    return folder


def show(run: Path) -> float:
    """Print what a run of GRPO changed; points of `solved`."""
    before, after = read_folder(run / "baseline"), read_folder(run / "evaluation")
    cell = compare(before, after, ("solved",)).totals["solved"]
    solved = [100 * (score.value or 0.0) for score in (cell.base, cell.tuned)]
    change = [100 * (end or 0.0) for end in (cell.difference.low, cell.difference.high)]
    retried = [one.metrics["recovered"] for one in (before, after)]
    again = ", ".join("none failed" if s.value is None else f"{100 * s.value:.1f}" for s in retried)
    print(
        f"{run.name}: solved {solved[0]:.1f} -> {solved[1]:.1f} of {cell.difference.n} "
        f"({change[0]:+.1f} to {change[1]:+.1f}); failed calls made again {again} %",
        flush=True,
    )
    return solved[1] - solved[0]


if __name__ == "__main__":
    main()
