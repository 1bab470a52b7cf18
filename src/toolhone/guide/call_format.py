"""Lesson 4: calls in another format. The same conversation in four dialects, and a training in one of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolhone.api import open_model
from toolhone.guide.calculator import EVALUATION, EXPERIMENT, RECIPE, calculator_run
from toolhone.guide.lesson import (
    Coloured,
    Desk,
    Lesson,
    Shown,
    Table,
    Typed,
    model_of,
    scores_of,
    talks,
    trained,
    write_experiment,
)
from toolhone.guide.row_view import coloured, conversations, row_of
from toolhone.runs.run import Run

NAME = "format"
DIALECTS = ("json", "calls", "tagged")


def experiment_in(dialect: str, start: Run, folder: str = "..") -> dict[str, Any]:
    """The experiment: the calculator again, from the weights of another run, with calls written in a dialect."""
    name = f"{folder}/{start.folder.parent.name}/{start.folder.name}/checkpoints/{start.checkpoint().name}"
    return {
        "model": {"name": name, "dialect": dialect},
        "tools": EXPERIMENT["tools"],
        "data": {"strategy": "templates", "samples": 3200},
        "training": {"steps": 200, **RECIPE, "batch_size": 16, "max_length": 700},
        "evaluation": {**EVALUATION, "num_samples": 60},
    }


def _play(desk: Desk) -> Iterator[Shown]:
    start = calculator_run(desk)
    yield from _four_ways()
    values = experiment_in("json", start)
    file = write_experiment(desk, NAME, values)
    yield Typed(file.read_text(encoding="utf-8"), "json", str(file))
    yield Typed(f"toolhone train {file} --out {file.parent}/run")
    run = trained(desk, NAME, values)
    yield scores_of(
        run,
        "Questions with numbers that training never saw, calls written as JSON objects",
        mistakes=2,
    )
    model = model_of(run)
    for talk in talks(model, ("What is 48 * 17?",)):
        yield talk
        said = [event.text for event in talk.events if not isinstance(event, tuple)]
        yield Table(
            "The same, as the model wrote it",
            ["turn", "text"],
            [[str(n), text] for n, text in enumerate(said, 1)],
        )


def _four_ways() -> Iterator[Shown]:
    """One conversation in the model's own dialect and in the three that any model can learn; system texts only once in full."""
    call = conversations()[0]
    rows = []
    for dialect in ("auto", *DIALECTS):
        model = open_model("pico", overrides=[f"model.dialect={dialect}"])
        row = row_of(model, call)
        shown = coloured(model, f"model.dialect={dialect}", row)
        rows.append(
            [
                f"{dialect} ({model.dialect.name})" if dialect == "auto" else dialect,
                str(len(row)),
                str(int(row.mask.sum())),
            ]
        )
        yield shown if dialect in ("auto", "json") else _without_system(shown)
    yield Table(
        "The same conversation in four dialects",
        ["model.dialect", "tokens", "of them trained"],
        rows,
    )


def _without_system(shown: Coloured) -> Coloured:
    """The row from the user's turn on."""
    first, *rest = shown.pieces
    text, _ = first
    start = text.find("<|im_start|>user")
    return Coloured(shown.title, [("... " + text[max(start, 0) :], False), *rest])


LESSON = Lesson(
    NAME,
    "Calls in another format",
    "about a minute and a half",
    about="""\
Each model family writes calls in its own way; so does pico: `<tool_call>{"name": ..., "arguments": ...}</tool_call>`.
Toolhone takes the model's own way by default (`model.dialect=auto`), after a proof that calls survive it. Three written
dialects can be had with any model: `json`, `calls` and `tagged`; they tell the model in the system text which tools there are
and how to write calls. Here the model of lesson 1 learns to write JSON objects instead. The data is the same file of
conversations: no row is rewritten.""",
    look="""\
- The four renderings: the same messages, other marks. Only the coloured part is trained, in each of them.
- The table: a written dialect costs tokens, since the tools and the rules stand in the system text in full. Rows get longer,
  steps slower.
- The scores. Measured with this seed: 87 % exact on 60 questions. It could calculate already; what it learns is another way
  to write.
- What the model wrote: the answer is an object as well, {"final": ...}. `valid_format` counts every turn that could be read,
  and an answer that runs on until it is cut off leaves its object open.""",
    then="""\
toolhone train {root}/format/experiment.json --out {root}/format/calls model.dialect=calls
toolhone chat {root}/format/run  # ask something, then /raw
toolhone eval {root}/calculator/run model.dialect=json  # a model that never saw this dialect: what does it write?""",
    play=_play,
)
