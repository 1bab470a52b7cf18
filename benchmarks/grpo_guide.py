"""The thirteen command lines of the GRPO guide, as typed: does `tool_call_function` rise?

    python benchmarks/grpo_guide.py [--iterations 200] [--only quick full] [--out DIR]

Each line starts from one model folder, the pico that ships after 50 steps of SFT on rows in the
guide's format, and trains on such rows. Per line: the mean of the reward (of `right_tools`, where
the line does not name it) in the first and in the last quarter, and the 95 % interval of the
difference over steps.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.grpo_guide import LINES, guide_rows

MAIN = "from toolhone.cli.main import main; main()"
START = (
    "train data.path=train.jsonl model.name=pico-trained model.dialect=calls training.lora=null "
    "training.batch_size=8 training.learning_rate=1e-3 training.validate_every=0 "
    "evaluation.at_end=false"
)


def toolhone(folder: Path, line: str) -> None:
    """Run one command line in the folder; its output goes to `log.txt` there."""
    with (folder / "log.txt").open("ab") as log:
        words = [sys.executable, "-c", MAIN, *shlex.split(line)]
        environment = {**os.environ, "WANDB_MODE": "offline"}
        code = subprocess.run(words, cwd=folder, stdout=log, stderr=log, env=environment).returncode
    if code:
        raise SystemExit(f"{line}: exit {code}, see {folder / 'log.txt'}")


def series_of(run: Path) -> tuple[str, np.ndarray]:
    """The name of the score and its value at each logged step, float64 [steps]."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().split("\n") if line]
    for name in ("reward/tool_call_function", "right_tools"):
        values = [line[name] for line in lines if name in line]
        if values:
            return name, np.array(values)
    raise SystemExit(f"{run} logged neither tool_call_function nor right_tools: {lines[-1]}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--start-steps", type=int, default=50, help="steps of SFT before")
    parser.add_argument("--only", nargs="+", default=list(LINES), choices=list(LINES))
    parser.add_argument("--out", type=Path, help="keep the runs here")
    arguments = parser.parse_args()
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="grpo-guide-"))
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(json.dumps(row) + "\n" for row in guide_rows(1600))
    (folder / "train.jsonl").write_text(rows)
    if not (folder / "model").is_dir():
        toolhone(folder, f"{START} training.steps={arguments.start_steps} --out runs/before")
        toolhone(folder, "export runs/before --out model --json")
    for name in arguments.only:
        line = LINES[name].replace("MODEL", "model").replace("DATA", "train.jsonl")
        run = f"runs/{name.replace(' ', '-')}"
        line += f" --adapter-path {run} training.steps={arguments.iterations} training.log_every=1"
        toolhone(folder, f"train {line} training.validate_every=0 evaluation.at_end=false")
        score, values = series_of(folder / run)
        quarter = len(values) // 4
        first, last = values[:quarter], values[-quarter:]
        gap = stats.ttest_ind(last, first, equal_var=False).confidence_interval()
        result = {"line": name, "score": score, "steps": len(values)}
        result |= {"first": round(float(first.mean()), 4), "last": round(float(last.mean()), 4)}
        result["interval"] = [round(float(gap.low), 4), round(float(gap.high), 4)]
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
