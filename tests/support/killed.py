"""A training of the toy policy that can be killed: `python killed.py METHOD FOLDER SIGNAL SEED`
sends itself the signal at a moment drawn from the seed, in a step, a save or a validation.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.one_token import PROBES, TASKS, env_of, toy
from toolhone.backends.base import Sampler
from toolhone.backends.toy import ToyTrainer
from toolhone.config.experiment import make_experiment
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import Run
from toolhone.training.dpo import dpo
from toolhone.training.grpo import grpo
from toolhone.training.loop import Hooks, TrainStatus, Validation
from toolhone.training.ppo import ppo
from toolhone.training.reference import open_reference
from toolhone.training.sft import sft

STEPS = 14
PAUSE = 0.01
"""Seconds that a step and a validation take longer, so that a moment may lie in them."""
PAIRS = [
    replace(
        Row.of([12, 14 + n % 2, n % 4, *end], [False, False, True, *(True for _ in end)]),
        group=f"{n}",
    )
    for n in range(8)
    for end in ((13,), (5, 6))
]


class Steps(Progress):
    """Counts steps, and sends the signal some time after one of them."""

    def __init__(self, at: int, number: int, seconds: float) -> None:
        self.left, self.due = at, threading.Event()
        threading.Thread(target=self.send, args=(number, seconds), daemon=True).start()

    def send(self, number: int, seconds: float) -> None:
        self.due.wait()
        time.sleep(seconds)
        os.kill(os.getpid(), number)

    def advance(self, count: int = 1, note: str = "") -> None:
        if not note:  # no step of the training
            return
        time.sleep(PAUSE)
        self.left -= count
        if self.left == 0:
            self.due.set()


def play(
    method: str, folder: Path, progress: Progress | None = None
) -> tuple[ToyTrainer, Run, TrainStatus]:
    """Train into the folder, or go on from its latest checkpoint."""
    rl = {
        "beta": 0.1,
        **({"group_size": 4, "inner_epochs": 2} if method in ("ppo", "grpo") else {}),
    }
    numbers: dict[str, Any] = {"steps": STEPS, "batch_size": 4, "learning_rate": 0.05}
    every = {"log_every": 3, "validate_every": 4, "save_every": 5}
    section = {"method": method, **numbers, **every, "rl": rl}
    experiment = make_experiment({"training": section}, "the test")
    begun = (folder / "experiment.json").exists()
    run = Run.open(folder) if begun else Run.create(folder, experiment)
    run.sweep()
    latest, trainer = run.latest(), toy()

    def validate(sampler: Sampler) -> Validation:
        time.sleep(PAUSE if progress else 0)
        score = float(np.mean([one.sum() for one in sampler.logprobs(PROBES)]))
        return {"exact_match": score}, [{"id": "a", "scores": {"x": score}}] * 2

    hooks = Hooks(validate, lambda place, whole: trainer.save(place, whole), progress or Progress())
    if method in ("sft", "dpo"):
        learn = sft if method == "sft" else dpo
        return trainer, run, learn(trainer, PAIRS, PAIRS[:4], run, hooks, latest)
    env = replace(env_of(trainer, experiment), hooks=hooks, tasks=TASKS)
    env = replace(env, reference=open_reference(trainer, run))
    return trainer, run, (ppo if method == "ppo" else grpo)(trainer, env, run, latest)


if __name__ == "__main__":
    draw = random.Random(sys.argv[4])
    steps = Steps(draw.randrange(1, STEPS - 2), int(sys.argv[3]), 6 * PAUSE * draw.random())
    _, _, status = play(sys.argv[1], Path(sys.argv[2]), steps)
    sys.exit(130 if status is TrainStatus.INTERRUPTED else 0)
