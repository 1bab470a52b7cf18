"""Lesson 1: a calculator, by supervised training from random weights. Other lessons build on its run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from toolhone.guide.lesson import (
    Desk,
    Lesson,
    Shown,
    Typed,
    finished,
    model_of,
    scores_of,
    talks,
    trained,
    write_experiment,
)
from toolhone.runs.run import Run

NAME = "calculator"
RECIPE: dict[str, Any] = {
    "batch_size": 32,
    "lora": None,
    "max_length": 320,
    "optimizer": "muon",
    "learning_rate": 0.008,
    "muon": {"learning_rate": 0.01},
    "schedule": {"warmup_steps": 30, "decay_share": 0.6},
    "log_every": 50,
    "validate_every": 0,
    "save_every": 0,
}
"""What pico learns well with (docs/log.md): every weight trained, Muon on the matrices."""
EVALUATION: dict[str, Any] = {"max_new_tokens": 96, "num_samples": 120}
EXPERIMENT: dict[str, Any] = {
    "tools": ["calculator"],
    "data": {"strategy": "templates", "samples": 6000},
    "training": {"steps": 300, **RECIPE},
    "evaluation": EVALUATION,
}
QUESTIONS = ("What is 48 * 17?", "and times 3?"), ("Thanks! How are you?",)


def calculator_run(desk: Desk) -> Run:
    """A finished run of this lesson: any that is there, or the lesson's own, trained now."""
    run = finished(desk, NAME)
    if run is not None:
        return run
    desk.tell("lesson 1 (calculator) comes first, since this builds on its run")
    return trained(replace(desk, overrides=()), NAME, EXPERIMENT)


def _play(desk: Desk) -> Iterator[Shown]:
    file = write_experiment(desk, NAME, EXPERIMENT)
    yield Typed(file.read_text(encoding="utf-8"), "json", str(file))
    yield Typed(f"toolhone train {file} --out {file.parent}/run")
    run = trained(desk, NAME, EXPERIMENT)
    yield scores_of(run, "Questions with numbers that training never saw", mistakes=2)
    yield from talks(model_of(run), *QUESTIONS)


LESSON = Lesson(
    NAME,
    "A calculator, by supervised training",
    "about a minute",
    about="""\
pico is a language model of 0.8 million parameters with random weights: it knows no word. It is shown 6,000 short
conversations made from templates: some ask for a sum, and the assistant calls the tool `calculator`; some ask for two sums,
or for one that goes on from the last result; some are plain talk, and the assistant just answers. 300 steps of 32
conversations each. The line of the progress shows the loss: how surprised the model is by what it should have said. It falls
from above 6 to about 0.1.""",
    look="""\
- `exact_match`: tool, arguments and number of calls are all right. Measured with this seed: 97 %; other seeds differ by some
  points.
- `no_call_accuracy`: it leaves the tool alone when nobody asked for a sum. A model that always calls would fail here.
- The categories: one call is easy; two at once (`parallel`), or a number from the last result (`multi_turn`), are harder.
- `answer_quality` and the mistakes: repeating a long result in the answer is learned last.
- In the talk: the model writes the call, the program runs it, and the model reads the result and answers.
- {root}/calculator/run: metrics.jsonl, the evaluation with every sample, and checkpoints any transformers program can load.""",
    then="""\
toolhone chat {root}/calculator/run
toolhone plot {root}/calculator/run
toolhone examples calculator training.steps=100  # what is learned first, and what last?""",
    play=_play,
)
