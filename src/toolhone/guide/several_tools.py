"""Lesson 3: several tools. The model of lesson 1 goes on learning, with four tools on offer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from toolhone.guide.calculator import EVALUATION, RECIPE, calculator_run
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

NAME = "several-tools"
QUESTIONS = (
    ("How is the weather in Oslo?", "and in Lisbon?"),
    ("I want the word planet in upper case",),
    ("Search the web for green volcanoes",),
)


def experiment_from(start: Run, folder: str = "..") -> dict[str, Any]:
    """The experiment: four tools, from the weights of another run. `folder` leads from this lesson's folder to all lessons'."""
    name = f"{folder}/{start.folder.parent.name}/{start.folder.name}/checkpoints/{start.checkpoint().name}"
    return {
        "model": {"name": name},
        "tools": ["calculator", "python", "weather", "search"],
        "data": {"strategy": "templates", "samples": 8000},
        "training": {"steps": 250, **RECIPE},
        "evaluation": {**EVALUATION, "num_samples": 140},
    }


def several_run(desk: Desk) -> Run:
    """A finished run of this lesson: any that is there, or the lesson's own, trained now."""
    run = finished(desk, NAME)
    if run is not None:
        return run
    start = calculator_run(desk)
    desk.tell("lesson 3 (several-tools) comes first, since this builds on its run")
    return trained(replace(desk, overrides=()), NAME, experiment_from(start))


def _play(desk: Desk) -> Iterator[Shown]:
    start = calculator_run(desk)
    values = experiment_from(start)
    file = write_experiment(desk, NAME, values)
    yield Typed(file.read_text(encoding="utf-8"), "json", str(file))
    yield Typed(f"toolhone train {file} --out {file.parent}/run")
    run = trained(desk, NAME, values)
    yield scores_of(
        run, "Questions with words, names and numbers that training never saw", mistakes=2
    )
    yield from talks(model_of(run), *QUESTIONS)


LESSON = Lesson(
    NAME,
    "Several tools",
    "about a minute and a half",
    about="""\
Now `python`, `weather` and `search` are on offer beside the calculator: the model has to choose, to copy names and programs
exactly, to make several calls at once, and to go on from what was said before. It does not begin anew: `model.name` is the
checkpoint of lesson 1, and 250 steps on 8,000 conversations are added. All four tools are real: programs run in a sandbox;
weather and search answer from an invented world, so that no network is needed.""",
    look="""\
- `tool_accuracy` (the right tool) is ahead of `argument_accuracy` (the right arguments): choosing is learned sooner than
  copying.
- The categories: `parallel` (several calls at once) is learned last. Measured with this seed: 85 % exact in all, 50 % of
  `parallel`; with the second line below 92 % and 82 %. The SFT of the demo takes 1,200 steps from random weights and reaches 98 %.
- The mistakes below the table: read what was expected and what came. Most are slips in copying a made-up word, or a long
  result.
- In the talk: "and in Lisbon?" only makes sense after the question before it.""",
    then="""\
toolhone chat {root}/several-tools/run  # /tools lists them, /raw shows what the model wrote
toolhone examples several-tools training.steps=350 data.samples=10000  # goes into a run of its own
toolhone demo  # the whole of it, and GRPO, in about ten minutes""",
    play=_play,
)
