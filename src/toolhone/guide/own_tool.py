"""Lesson 5: a tool of the reader's own, with a nested schema: from ten lines of Python to data, training and a talk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolhone.api import Model
from toolhone.config.experiment import load_experiment
from toolhone.data.dataset import load_data, tools_of
from toolhone.guide.calculator import RECIPE
from toolhone.guide.lesson import (
    Desk,
    Lesson,
    Shown,
    Table,
    Text,
    Typed,
    laid_out,
    model_of,
    scores_of,
    talks,
    trained,
    write_experiment,
    write_file,
)
from toolhone.guide.several_tools import several_run
from toolhone.runs.run import Run

NAME = "own-tool"
FILE = "own_tool.py"
CODE = '''\
"""A tool of one's own: a Python function with type hints."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class Stay:
    city: str
    nights: int


def book_room(kind: Literal["single", "double", "family"], guest: str, stay: Stay) -> dict:
    """Book a hotel room."""
    return {"room": kind, "city": stay.city, "price": 80 * stay.nights}
'''
LORA: dict[str, Any] = {name: value for name, value in RECIPE.items() if name != "muon"} | {
    "lora": {"rank": 32, "alpha": 32},
    "optimizer": "adamw",
    "learning_rate": 0.006,
}
"""Adapters of a low rank on the weights of lesson 3, which stay as they are."""
QUESTIONS = ("Book a double room in Lisbon for 3 nights for Anna Berg",), ("thank you very much!",)


def _example(query: str, kind: str, guest: str, city: str, nights: int) -> dict[str, Any]:
    arguments = {"kind": kind, "guest": guest, "stay": {"city": city, "nights": nights}}
    call = {"name": "book_room", "arguments": arguments}
    return {"query": query, "calls": [call], "answer": "Booked, for {price} euros."}


EXAMPLES = [
    _example(
        "Book a double room in Lisbon for 3 nights for Anna Berg",
        "double",
        "Anna Berg",
        "Lisbon",
        3,
    ),
    _example(
        "I need a single room for Omar Haddad in Oslo, 2 nights", "single", "Omar Haddad", "Oslo", 2
    ),
    _example(
        "Find Maria Costa a family room in Quebec and keep it for 5 nights",
        "family",
        "Maria Costa",
        "Quebec",
        5,
    ),
    _example(
        "Please reserve 4 nights in Kyoto for Ken Mori: a double room",
        "double",
        "Ken Mori",
        "Kyoto",
        4,
    ),
]


def write_code(desk: Desk) -> Path:
    """Write the file with the tool into the folder of this lesson."""
    return write_file(desk, NAME, FILE, CODE)


def experiment_from(start: Run, folder: str = "..") -> dict[str, Any]:
    """The experiment: rows made from the examples for the reader's own tool, from the weights of another run."""
    name = f"{folder}/{start.folder.parent.name}/{start.folder.name}/checkpoints/{start.checkpoint().name}"
    return {
        "model": {"name": name},
        "tools": [f"{FILE}:book_room"],
        "data": {
            "strategy": "manual_templates",
            "samples": 6000,
            "answered": 0.3,
            "examples": EXAMPLES,
        },
        "training": {"steps": 200, **LORA},
        "evaluation": {"max_new_tokens": 160, "num_samples": 100},
    }


def model_with_tool(run: Run) -> Model:
    """The trained model with its tool: the file is this lesson's own, so it is named, and may run wherever it lies."""
    return model_of(run, f"tools={json.dumps(run.experiment.tools)}")


def _play(desk: Desk) -> Iterator[Shown]:
    start = several_run(desk)
    code = write_code(desk)
    yield Typed(CODE, "python", str(code))
    values = experiment_from(start)
    file = write_experiment(desk, NAME, values)
    plan = load_experiment(file, (*desk.overrides, "data.samples=100"))
    yield Text("What a model is told of it: the schema comes from the type hints.")
    yield Typed(laid_out(tools_of(plan)[0].to_dict()), "json")
    yield Text(
        "The experiment holds four questions as people would ask them, with the right call for each. Rows are made from these:"
    )
    yield Typed(file.read_text(encoding="utf-8"), "json", str(file))
    rows = [
        [row.messages[0].content or "", _called(row.messages[1])]
        for row in load_data(plan).train[:6]
    ]
    yield Table("Some of the rows made from them", ["question", "the assistant's turn"], rows)
    yield Typed(f"toolhone train {file} --out {file.parent}/run")
    run = trained(desk, NAME, values)
    yield scores_of(run, "Questions with names and phrasings that training never saw", mistakes=2)
    yield from talks(model_with_tool(run), *QUESTIONS)


def _called(message: Any) -> str:
    return "; ".join(laid_out(call.to_dict()["arguments"]) for call in message.tool_calls) or str(
        message.content
    )


LESSON = Lesson(
    NAME,
    "A tool of your own",
    "about a minute and a half",
    about="""\
A tool is a Python function: name, type hints and docstring become the schema that a model sees. This one takes a choice out
of three, a name, and a nested object. From four example questions Toolhone makes thousands: values are found in the question,
drawn anew within the schema, and the words around them vary. Question and arguments always come from the same draw, and each
call is checked against the schema. The model of lesson 3 goes on from there by LoRA: its weights stay as they are, and small
matrices beside them are trained. In the talk at the end the tool runs for real.""",
    look="""\
- The schema: `stay` is an object with fields of its own, and the call has to nest it right.
- The rows: names and cities are drawn, some of them made up, so that the model learns to copy and not to remember.
- The scores. Measured with this seed: 75 % exact; no call was made where none was wanted. Read the mistakes: the form is
  right, and a rare name is copied wrong.
- The first line below trains every weight instead: compare the scores, and the sizes of the checkpoints.
- `data.answered`: for 3 of 10 rows the tool was run, and the row goes on to its result and an answer. Without such rows a
  model never learns what follows a result.
- {root}/own-tool/run/checkpoints holds the adapter alone, as a PEFT folder.""",
    then="""\
toolhone examples own-tool training.lora=null training.optimizer=muon training.muon.learning_rate=0.006 training.learning_rate=0.004
Put a function of your own and some examples into a copy of {root}/own-tool (docs/own-tools.md), and run:
toolhone train COPY/experiment.json --out runs/mine
toolhone chat runs/mine""",
    play=_play,
)
