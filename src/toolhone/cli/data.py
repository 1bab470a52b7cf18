"""`toolhone data build`: make conversations and tasks from templates, as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make data.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Make data."""


@app.command(epilog="Example: toolhone data build --out data --train 4000 --tasks 400 --seed 1")
def build(
    out: Annotated[Path, typer.Option(help="the folder to write into")] = Path("data"),
    train: Annotated[int, typer.Option(min=1, help="conversations in train.jsonl")] = 4000,
    held_out: Annotated[
        int, typer.Option(min=0, help="conversations in held_out.jsonl, with fillers that training never sees")
    ] = 200,
    tasks: Annotated[int, typer.Option(min=0, help="tasks in each of the task files")] = 400,
    seed: Annotated[int, typer.Option(help="same seed, same bytes")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print the files and their row counts as JSON")] = False,
) -> None:
    """Write train.jsonl, held_out.jsonl, tasks_held_out_fillers.jsonl, tasks_held_out_phrasings.jsonl and tasks_rl.jsonl."""
    from toolhone.data.files import write_jsonl
    from toolhone.data.templates import Templates
    from toolhone.schema import Conversation, Task

    made = Templates(seed)
    files: dict[str, Sequence[Conversation | Task]] = {
        "train.jsonl": made.conversations(train, "train"),
        "held_out.jsonl": made.conversations(held_out, "held_out_fillers"),
        "tasks_held_out_fillers.jsonl": made.tasks(tasks, "held_out_fillers"),
        "tasks_held_out_phrasings.jsonl": made.tasks(tasks, "held_out_phrasings"),
        "tasks_rl.jsonl": made.tasks(tasks, "rl"),
    }
    counts = {str(out / name): write_jsonl(out / name, (row.to_dict() for row in rows)) for name, rows in files.items() if rows}
    if as_json:
        print(json.dumps(counts))
    else:
        for name, count in counts.items():
            print(f"{count:6d} rows  {name}")
