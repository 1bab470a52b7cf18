"""Lesson 5: a tool of the reader's own, with a nested schema: from ten lines of Python to data, training and a talk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolhone.config import load_experiment
from toolhone.data.gather import gather, tools_of
from toolhone.lessons.calculator import RECIPE
from toolhone.lessons.desk import (
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
from toolhone.lessons.several import several_run
from toolhone.run import Run

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


def book_room(kind: Literal["single", "double", "family"], guest: str, stay: Stay) -> str:
    """Book a hotel room."""
    return f"booked: a {kind} room in {stay.city} for {guest}, nights: {stay.nights}"
'''
QUESTIONS = ("Book a double room in Lisbon for 3 nights for Anna Berg", "Thanks, and how are you?")


def _example(query: str, kind: str, guest: str, city: str, nights: int) -> dict[str, Any]:
    arguments = {"kind": kind, "guest": guest, "stay": {"city": city, "nights": nights}}
    return {"query": query, "calls": [{"name": "book_room", "arguments": arguments}]}


EXAMPLES = [
    _example("Book a double room in Lisbon for 3 nights for Anna Berg", "double", "Anna Berg", "Lisbon", 3),
    _example("I need a single room for Omar Haddad in Oslo, 2 nights", "single", "Omar Haddad", "Oslo", 2),
    _example("Find Maria Costa a family room in Quebec and keep it for 5 nights", "family", "Maria Costa", "Quebec", 5),
    _example("Please reserve 4 nights in Kyoto for Ken Mori: a double room", "double", "Ken Mori", "Kyoto", 4),
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
        "data": {"strategy": "manual_templates", "samples": 6000, "examples": EXAMPLES},
        "training": {"steps": 200, **RECIPE},
        "evaluation": {"max_new_tokens": 160, "num_samples": 100},
    }


def _play(desk: Desk) -> Iterator[Shown]:
    start = several_run(desk)
    code = write_code(desk)
    yield Typed(CODE, "python", str(code))
    values = experiment_from(start)
    file = write_experiment(desk, NAME, values)
    plan = load_experiment(file, desk.overrides)
    yield Text("What a model is told of it: the schema comes from the type hints.")
    yield Typed(laid_out(tools_of(plan)[0].to_dict()), "json")
    yield Text(
        "The experiment holds four questions as people would ask them, with the right call for each. Rows are made from these:"
    )
    yield Typed(file.read_text(encoding="utf-8"), "json", str(file))
    rows = [[row.messages[0].content or "", _called(row.messages[1])] for row in gather(plan).train[:6]]
    yield Table("Some of the rows made from them", ["question", "the assistant's turn"], rows)
    yield Typed(f"toolhone train {file} --out {file.parent}/run")
    run = trained(desk, NAME, values)
    yield scores_of(run, "Questions with names and phrasings that training never saw", mistakes=2)
    yield from talks(model_of(run), QUESTIONS)


def _called(message: Any) -> str:
    return "; ".join(laid_out(call.to_dict()["arguments"]) for call in message.tool_calls) or str(message.content)


LESSON = Lesson(
    NAME,
    "A tool of your own",
    "a minute or two",
    about="""\
A tool is a Python function: name, type hints and docstring become the schema that a model sees. This one takes a choice out
of three, a name, and a nested object. From four example questions Toolhone makes thousands: values are found in the question,
drawn anew within the schema, and the words around them vary. Question and arguments always come from the same draw, and each
call is checked against the schema. The model of lesson 3 then trains on them; the tool runs for real in the talk at the end.""",
    look="""\
- The schema: `stay` is an object with fields of its own, and the call has to nest it right.
- The rows: names and cities are drawn, some of them made up, so that the model learns to copy and not to remember.
- The scores. Measured here with this seed: @MEASURED@
- Nothing calls the function while it trains; in the talk the result is what `book_room` returned.""",
    then="""\
Put a function of your own and four examples into a copy of {root}/own-tool, and run:
toolhone train COPY/experiment.json --out runs/mine
toolhone chat runs/mine
python examples/own_tool.py                                # the same from Python, with data made by hand""",
    play=_play,
)
