"""`toolhone data`: generate conversations and tasks (`build`, `write`), and read published data
(`sources`, `import`, `tools`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from toolhone.cli.console import print_note
from toolhone.cli.data_import import IMPORT_EXAMPLES, TOOLS_EXAMPLES, import_, tools
from toolhone.cli.data_preview import PREVIEW_EXAMPLES, preview
from toolhone.cli.flags import AsJson
from toolhone.config.experiment import load_experiment
from toolhone.data.sft_array_writer import SftRows, read_shares, write_array
from toolhone.data.templates import Templates
from toolhone.data.world_tasks import WorldTasks, solve
from toolhone.errors import DataError
from toolhone.runs.progress import open_progress
from toolhone.runs.run import write_json
from toolhone.schema import Conversation, Task
from toolhone.sources.files import write_jsonl
from toolhone.sources.formats import as_markdown, list_sources
from toolhone.tools.open_world import STATE_WORLDS
from toolhone.tools.worlds import flat
from toolhone.training.dataset import load_data

TRAIN, HELD_OUT, TASKS = 4000, 200, 400
"""Default sizes of the files of conversations and tasks."""
ROWS, SHARES = 8000, "calculator=0.25,python_exec=0.25,no_tool=0.5"
"""Defaults of the SFT array."""
Rows = Mapping[str, Sequence[Conversation | Task]]
app = typer.Typer(rich_markup_mode=None)
group = typer.Typer(help="Generate data, and read published data.", no_args_is_help=True)
app.add_typer(group, name="data")
group.command("import", epilog=IMPORT_EXAMPLES)(import_)
group.command(epilog=TOOLS_EXAMPLES)(tools)
group.command(epilog=PREVIEW_EXAMPLES)(preview)


class Shape(StrEnum):
    """What `data build` writes."""

    TEMPLATES = "templates"
    SFT_ARRAY = "sft-array"


@group.command(epilog="Examples: toolhone data sources   |   toolhone data sources --json")
def sources(
    as_json: AsJson = False,
    markdown: Annotated[
        bool, Option("--markdown", help="print the list as the table of the documentation")
    ] = False,
) -> None:
    """List the published formats that can be read, with licence, size and what they teach."""
    formats = list_sources()
    if as_json:
        print(json.dumps([each.to_dict() for each in formats], ensure_ascii=False))
        return
    if markdown:
        print(as_markdown(formats))
        return
    width = max(len(each.name) for each in formats)
    for each in formats:
        about = each.about
        size = "" if about.rows == "any" else f"; rows: {about.rows}"
        options = f"; options: {', '.join(each.options)}" if each.options else ""
        print(f"{each.name:{width}}  {about.title}; licence: {about.licence}{size}")
        print(f"{'':{width}}  {each.gives}: {about.teaches}{options}")


@group.command(epilog="Examples: toolhone data worlds   |   toolhone data worlds files")
def worlds(
    name: Annotated[
        str | None, Argument(help="draw a task of each level of this world, as its solver does it")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the worlds that generate tasks, with their tools and the number of levels."""
    drawn = {} if name is None else {name: WorldTasks(name)}
    found: list[dict[str, Any]] = [
        {"name": world.name, "about": world.about, "levels": len(world.levels)}
        | {"tools": list(world.tool_names)}
        for world in STATE_WORLDS.values()
        if world.name in (drawn or STATE_WORLDS)
    ]
    if as_json:
        print(json.dumps(found))
        return
    for one in found:
        print(f"{one['name']}  {one['about']}; levels 1 to {one['levels']}")
        print(f"      tools: {', '.join(one['tools'])}")
        if one["name"] in drawn:
            for task in drawn[one["name"]].tasks(one["levels"]):
                print(draw_solution(task))


def draw_solution(task: Task) -> str:
    """A task as its solver does it: the request, calls and results, and what changes in the state.

    `+` marks a value that is new, `-` one that is gone.
    """
    done, start = solve(task), flat((task.world or {})["state"])
    end = flat(done.state or {})
    lines = [f"\n{task.category}: {task.messages[0].content}"]
    for message in done.messages:
        for call in message.tool_calls:
            given = ", ".join(f"{key}={value!r}" for key, value in call.arguments.items())
            lines.append(f"  {call.name}({given})")
        if message.role == "tool":
            lines[-1] += f"  ->  {message.content}"
    lines.append(f"  {done.answer}")
    for mark, one, other in (("-", start, end), ("+", end, start)):
        places = [place for place in one if place not in other or one[place] != other[place]]
        lines += [f"    {mark} {': '.join(place)}: {one[place]!r}" for place in places]
    return "\n".join(lines)


HeldOut = Annotated[
    int | None,
    Option(
        min=0,
        help="conversations in held_out.jsonl, with fillers that training never sees "
        f"[default: {HELD_OUT}]",
    ),
]
Shares = Annotated[
    str | None,
    Option(help=f"sft-array: share of each category, adding up to 1 [default: {SHARES}]"),
]
DataOut = Annotated[
    Path, Option(help="the folder to write into; with --shape sft-array also a file")
]


@group.command(
    epilog="Examples: toolhone data build --out data --train 4000 --tasks 400 --seed 1   |   "
    "toolhone data build --shape sft-array --out sft.json --rows 8000 "
    "--shares calculator=0.2,python_exec=0.2,no_tool=0.6 --gsm8k train.jsonl"
)
def build(  # noqa: PLR0913 (the options of a command)
    out: DataOut = Path("data"),
    train: Annotated[
        int | None, Option(min=1, help=f"conversations in train.jsonl [default: {TRAIN}]")
    ] = None,
    held_out: HeldOut = None,
    tasks: Annotated[
        int | None, Option(min=0, help=f"tasks in each of the task files [default: {TASKS}]")
    ] = None,
    seed: Annotated[int, Option(help="same seed, same bytes")] = 0,
    as_json: AsJson = False,
    shape: Annotated[
        Shape, Option(help="conversations and tasks, or one JSON list of SFT rows")
    ] = Shape.TEMPLATES,
    rows: Annotated[
        int | None, Option(min=1, help=f"sft-array: how many rows [default: {ROWS}]")
    ] = None,
    shares: Shares = None,
    gsm8k: Annotated[
        Path | None, Option(help="sft-array: take the calculator rows from this GSM8K file")
    ] = None,
    world: Annotated[
        str | None, Option(help="rows of this world in place of templates (toolhone data worlds)")
    ] = None,
) -> None:
    """Write train.jsonl, held_out.jsonl, tasks_held_out_fillers.jsonl,
    tasks_held_out_phrasings.jsonl and tasks_rl.jsonl; or, with --shape sft-array, one JSON list of
    calculator, Python and no-tool rows; or, with --world, train.jsonl, held_out.jsonl,
    tasks_held_out.jsonl and tasks_rl.jsonl of a world."""
    if shape is Shape.SFT_ARRAY:
        if any(size is not None for size in (train, held_out, tasks)):
            raise DataError(
                "--train, --held-out and --tasks are for the other shape; --rows is the size of "
                "an SFT array"
            )
        counts = _write_array(out, rows or ROWS, shares or SHARES, seed, gsm8k)
    elif gsm8k is not None:
        raise DataError(
            "--gsm8k is for --shape sft-array; conversations of a GSM8K file are read by "
            "data.format=gsm8k"
        )
    elif rows is not None or shares is not None:
        raise DataError(
            "--rows and --shares are for --shape sft-array; --train, --held-out and --tasks "
            "are the sizes of the other files"
        )
    else:
        sizes = zip((train, held_out, tasks), (TRAIN, HELD_OUT, TASKS), strict=True)
        chosen = [default if size is None else size for size, default in sizes]
        made = _rows_of_world(world, seed, *chosen) if world else _rows_of_templates(seed, *chosen)
        counts = _write_rows(out, {name: found for name, found in made.items() if found})
    print_counts(counts, as_json)


@group.command(
    epilog="Examples: toolhone data write mine.json --out data   |   toolhone data write mine.json "
    "--teacher http://127.0.0.1:8000/v1 --out data data.max_samples=200 data.teacher.model=NAME"
)
def write(
    experiment: Annotated[Path, Argument(help="an experiment file, or the name of a preset")],
    overrides: Annotated[
        list[str] | None, Argument(metavar="[KEY=VALUE]...", help="settings of the experiment")
    ] = None,
    out: Annotated[Path, Option(help="the folder to write into")] = Path("data"),
    teacher: Annotated[
        str | None,
        Option(
            help="URL of a stronger model (OpenAI-compatible) that writes the data for the tools "
            "of the experiment; its key comes from the variable that data.teacher.key_env names"
        ),
    ] = None,
    as_json: AsJson = False,
    progress: Annotated[str, Option(help="auto, rich, plain or off")] = "auto",
) -> None:
    """Write the data of an experiment: train.jsonl, held_out.jsonl, tasks.jsonl, and report.json
    with every count. With --teacher, replies that are paid for are kept in OUT and never asked for
    again."""
    settings = overrides or []
    if teacher is not None:
        kept = json.dumps(str(out / "teacher_replies.jsonl"))
        named = [f"data.teacher.base_url={json.dumps(teacher)}", f"data.teacher.replies={kept}"]
        settings = [*named, "data.strategy=teacher_mode", *settings]
    plan = load_experiment(experiment, [*settings, "training.method=sft"])
    with open_progress(progress) as shown:
        data = load_data(plan, shown)
    print_note(data.summary())
    parts: Rows = {"train": data.train, "held_out": data.held_out, "tasks": data.tasks}
    counts = _write_rows(out, parts)
    write_json(out / "report.json", data.report)
    print_counts(counts, as_json)


def print_counts(counts: Mapping[str, int], as_json: bool) -> None:
    if as_json:
        print(json.dumps(counts))
        return
    for name, count in counts.items():
        print(f"{count:6d} rows  {name}")


def _rows_of_templates(seed: int, train: int, held_out: int, tasks: int) -> Rows:
    templates = Templates(seed)
    splits = ("held_out_fillers", "held_out_phrasings", "rl")
    return {
        "train": templates.conversations(train, "train"),
        "held_out": templates.conversations(held_out, "held_out_fillers"),
        **{f"tasks_{split}": templates.tasks(tasks, split) for split in splits},
    }


def _rows_of_world(world: str, seed: int, train: int, held_out: int, tasks: int) -> Rows:
    """What the solver of a world does, and tasks."""
    made = WorldTasks(world, seed)
    return {
        "train": made.conversations(train),
        "held_out": made.conversations(held_out, "held_out"),
        "tasks_held_out": made.tasks(tasks, "held_out"),
        "tasks_rl": made.tasks(tasks, "rl"),
    }


def _write_rows(out: Path, files: Rows) -> dict[str, int]:
    """Write `NAME.jsonl` for each name; returns their sizes."""
    return {
        str(path := out / f"{name}.jsonl"): write_jsonl(path, (row.to_dict() for row in found))
        for name, found in files.items()
    }


def _write_array(
    out: Path, rows: int, shares: str, seed: int, gsm8k: Path | None
) -> dict[str, int]:
    """Write one file; the rows of each category, and unused rows by reason, go to standard
    error."""
    path = out if out.suffix == ".json" else out / "sft_array.json"
    written = SftRows(seed).rows(rows, read_shares(shares), gsm8k)
    write_array(path, written.rows)
    note = ", ".join(f"{count} {category}" for category, count in written.counts().items())
    if unused := ", ".join(f"{count} {reason}" for reason, count in written.skipped.most_common()):
        note += f"; of {gsm8k} not used: {unused}"
    print_note(note)
    return {str(path): len(written.rows)}
