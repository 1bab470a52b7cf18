"""`toolhone data build`: make conversations and tasks from templates, or rows of the SFT array, as files.

The other verbs of the group, `sources` and `import`, are in `importing`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from toolhone.cli import data_import as importing
from toolhone.errors import DataError

TRAIN, HELD_OUT, TASKS = 4000, 200, 400
"""Sizes of the files of conversations and tasks, when nothing else is asked for."""
ROWS, SHARES = 8000, "calculator=0.25,python_exec=0.25,no_tool=0.5"
"""Of the SFT array, when nothing else is asked for."""
app = typer.Typer(
    help="Make data, and read published data.", no_args_is_help=True, rich_markup_mode=None
)
app.command("sources", epilog=importing.SOURCES_EXAMPLE)(importing.sources)
app.command("import", epilog=importing.IMPORT_EXAMPLE)(importing.import_)
BUILD_EXAMPLES = (
    "Examples: toolhone data build --out data --train 4000 --tasks 400 --seed 1   |   "
    "toolhone data build --shape sft-array --out sft.json --rows 8000 --shares calculator=0.2,python_exec=0.2,no_tool=0.6 "
    "--gsm8k train.jsonl"
)


class Shape(StrEnum):
    """What `data build` writes."""

    TEMPLATES = "templates"
    SFT_ARRAY = "sft-array"


@app.callback()
def group() -> None:
    """Make data, and read published data."""


@app.command(epilog=BUILD_EXAMPLES)
def build(  # noqa: PLR0913 (one parameter for each option)
    out: Annotated[
        Path,
        typer.Option(
            help="the folder to write into; with --shape sft-array a file may be named as well"
        ),
    ] = Path("data"),
    train: Annotated[
        int | None, typer.Option(min=1, help=f"conversations in train.jsonl [default: {TRAIN}]")
    ] = None,
    held_out: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=f"conversations in held_out.jsonl, with fillers that training never sees [default: {HELD_OUT}]",
        ),
    ] = None,
    tasks: Annotated[
        int | None, typer.Option(min=0, help=f"tasks in each of the task files [default: {TASKS}]")
    ] = None,
    seed: Annotated[int, typer.Option(help="same seed, same bytes")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the files and their row counts as JSON")
    ] = False,
    shape: Annotated[
        Shape, typer.Option(help="conversations and tasks, or one JSON list of SFT rows")
    ] = Shape.TEMPLATES,
    rows: Annotated[
        int | None, typer.Option(min=1, help=f"sft-array: how many rows [default: {ROWS}]")
    ] = None,
    shares: Annotated[
        str | None,
        typer.Option(help=f"sft-array: share of each category, adding up to 1 [default: {SHARES}]"),
    ] = None,
    gsm8k: Annotated[
        Path | None, typer.Option(help="sft-array: take the calculator rows from this GSM8K file")
    ] = None,
) -> None:
    """Write train.jsonl, held_out.jsonl, tasks_held_out_fillers.jsonl, tasks_held_out_phrasings.jsonl and tasks_rl.jsonl; or, with
    --shape sft-array, one JSON list of calculator, Python and no-tool rows."""
    if gsm8k is not None and shape is not Shape.SFT_ARRAY:
        raise DataError(
            "--gsm8k is for --shape sft-array; conversations of a GSM8K file are read by data.format=gsm8k"
        )
    if (rows is not None or shares is not None) and shape is not Shape.SFT_ARRAY:
        raise DataError(
            "--rows and --shares are for --shape sft-array; of the other files --train, --held-out and --tasks are the sizes"
        )
    if shape is Shape.SFT_ARRAY and any(size is not None for size in (train, held_out, tasks)):
        raise DataError(
            "--train, --held-out and --tasks are for the other shape; how many rows an SFT array has is said with --rows"
        )
    if shape is Shape.SFT_ARRAY:
        counts = _write_array(out, rows or ROWS, shares or SHARES, seed, gsm8k)
    else:
        size = {
            "train": train or TRAIN,
            "held_out": HELD_OUT if held_out is None else held_out,
            "tasks": TASKS if tasks is None else tasks,
        }
        counts = _write_templates(out, size, seed)
    if as_json:
        print(json.dumps(counts))
    else:
        for name, count in counts.items():
            print(f"{count:6d} rows  {name}")


def _write_templates(out: Path, size: dict[str, int], seed: int) -> dict[str, int]:
    from toolhone.data.templates import Templates
    from toolhone.schema import Conversation, Task
    from toolhone.sources.files import write_jsonl

    made = Templates(seed)
    files: dict[str, Sequence[Conversation | Task]] = {
        "train.jsonl": made.conversations(size["train"], "train"),
        "held_out.jsonl": made.conversations(size["held_out"], "held_out_fillers"),
        "tasks_held_out_fillers.jsonl": made.tasks(size["tasks"], "held_out_fillers"),
        "tasks_held_out_phrasings.jsonl": made.tasks(size["tasks"], "held_out_phrasings"),
        "tasks_rl.jsonl": made.tasks(size["tasks"], "rl"),
    }
    return {
        str(out / name): write_jsonl(out / name, (row.to_dict() for row in rows))
        for name, rows in files.items()
        if rows
    }


def _write_array(
    out: Path, rows: int, shares: str, seed: int, gsm8k: Path | None
) -> dict[str, int]:
    """One file; how many rows of each category it has, and what could not be used, is said on standard error."""
    from toolhone.data.sft_array_writer import SftRows, read_shares, write_array

    path = out if out.suffix == ".json" else out / "sft_array.json"
    made = SftRows(seed).rows(rows, read_shares(shares), gsm8k)
    write_array(path, made.rows)
    parts = [f"{count} {category}" for category, count in made.counts().items()]
    unused = [f"{count} {reason}" for reason, count in made.skipped.most_common()]
    said = f"{', '.join(parts)}" + (f"; of {gsm8k} not used: {', '.join(unused)}" if unused else "")
    typer.echo(said, err=True)
    return {str(path): len(made.rows)}
