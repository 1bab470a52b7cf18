"""`toolhone eval` plays tasks with a model and scores it; `toolhone score` scores answers from
anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option
from typer.core import TyperCommand

from toolhone.api import Model, open_model, tasks_of_model
from toolhone.api import evaluate as run_evaluation
from toolhone.cli import flags
from toolhone.cli.console import console, print_note, show_evaluation
from toolhone.config.experiment import load_experiment, read_tool_files
from toolhone.data.task_files import tasks_from_any
from toolhone.data.world_tasks import in_world
from toolhone.errors import ConfigError, DataError
from toolhone.evaluation.bfcl_checker import official_verdicts
from toolhone.evaluation.bfcl_official import bfcl_python
from toolhone.evaluation.bfcl_run import METRIC, BfclOptions, evaluate_bfcl
from toolhone.evaluation.csv_results import SUMMARY, is_summary, read_results_csv, write_summary
from toolhone.evaluation.display import csv_table
from toolhone.evaluation.folder import refuse_overwriting, write_folder
from toolhone.evaluation.inspect_log import write_inspect_log
from toolhone.evaluation.leaderboard import bfcl_table
from toolhone.evaluation.legacy_metrics import playground_summary
from toolhone.evaluation.metrics import Evaluation
from toolhone.evaluation.score import score as score_predictions
from toolhone.evaluation.tool_probabilities import calibration, tool_choices
from toolhone.rewards.reward_registry import load_rewards, syntax_of
from toolhone.runs.progress import open_progress
from toolhone.runs.run import plain, write_json, writing
from toolhone.schema import Task
from toolhone.sources.files import BadLine, open_records, read_lines
from toolhone.sources.formats import detect_format
from toolhone.tools.loading import load_tools
from toolhone.tools.registry import Registry
from toolhone.training.before_after import format_of_run

app = typer.Typer(rich_markup_mode=None)


class EvalCommand(TyperCommand):
    """A command whose model may also be named as `--model-path MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = []
        for word in args:
            words += word.split("=", 1) if word.startswith("--model-path=") else [word]
        if "--model-path" in words[:-1]:
            place = words.index("--model-path")
            words = [words[place + 1], *words[:place], *words[place + 2 :]]
        parsed: list[str] = super().parse_args(ctx, words)
        return parsed


Tasks = Annotated[
    Path | None,
    Option(
        "--tasks",
        "--test-cases",
        help="tasks, or rows of a known format [default: the run's held-out tasks]",
    ),
]
EvaluationOut = Annotated[
    Path | None,
    Option(
        "--out",
        *("--output", "--output-dir", "--outdir"),
        help="write the evaluation folder, or, to a name in .json, one JSON object",
    ),
]
ToolsFrom = Annotated[
    str | None, Option(help="an experiment file: its tools and evaluation, in place of the run's")
]


Bfcl = Annotated[
    str | None,
    Option(
        "--bfcl",
        metavar="CATEGORIES",
        help="the official BFCL instead: single_turn, multi_turn, live_simple, ...; --num-samples "
        "limits each category",
    ),
]
BfclPython = Annotated[
    Path | None,
    Option(
        "--bfcl-python",
        metavar="PROGRAM",
        help="a Python that has bfcl-eval [default: one in the cache, made when needed]",
    ),
]


Probabilities = Annotated[
    Path | None,
    Option(
        "--probabilities",
        metavar="FILE",
        help="also write how probable each tool or none is on each task, and the calibration",
    ),
]


class LogFormat(StrEnum):
    INSPECT = "inspect"


@app.command(
    "eval",
    cls=EvalCommand,
    epilog="Examples: toolhone eval runs/sft   |   toolhone eval runs/sft --base   |   "
    "toolhone eval runs/sft --tasks tasks.jsonl --checkpoint best_checkpoint --json",
)
def evaluate(  # noqa: PLR0913 (the options of a command)
    model: flags.ModelName,
    overrides: flags.Overrides = None,
    tasks: Tasks = None,
    checkpoint: flags.Checkpoint = None,
    num_samples: Annotated[int | None, Option(min=1, help="at most this many tasks")] = None,
    out: EvaluationOut = None,
    config: ToolsFrom = None,
    dialect: flags.DialectName = None,
    constrained: flags.Constrained = False,
    base: Annotated[
        bool, Option("--base", help="score the model that the run started from, on its tasks")
    ] = False,
    tries: Annotated[
        int, Option(min=1, help="play each task so often, with other seeds, and show pass^k")
    ] = 1,
    bfcl: Bfcl = None,
    bfcl_program: BfclPython = None,
    log: Annotated[
        LogFormat | None, Option(help="also write a log for `inspect view`, into logs/ or OUT/logs")
    ] = None,
    probabilities: Probabilities = None,
    as_json: flags.AsJson = False,
) -> None:
    """Play tasks with a model and live tools, and score the episodes.

    MODEL_OR_RUN may also be given as --model-path.
    """
    others = {"--tasks": tasks, "--log": log, "--probabilities": probabilities}
    _check_bfcl(bfcl, {"--bfcl-python": bfcl_program}, others, tries)
    keys = flags.with_options(overrides, dialect, constrained)
    settings = None if config is None else load_experiment(Path(config))
    opened = open_model(model, checkpoint, keys, settings, base)
    plan = opened.experiment
    if num_samples is None and any(key.startswith("evaluation.num_samples=") for key in keys):
        num_samples = plan.evaluation.num_samples
    if bfcl is not None:
        _evaluate_bfcl(opened, bfcl, bfcl_program, num_samples, out, as_json)
        return
    chosen = None
    if tasks is not None:
        chosen = tasks_of_model(opened, tasks)
    folder = None if out is None or out.suffix == ".json" else out
    with open_progress("off" if as_json else plan.tracking.progress) as progress:
        result = run_evaluation(opened, chosen, num_samples, folder, progress, tries)
    if out is not None and folder is None:  # one file, in the form of the playground's evaluation
        _write_object(out, {**result.to_dict(), **playground_summary(result)})
    if log is not None:
        place = Path("logs") if folder is None else folder / "logs"
        print_note(f"log: {write_inspect_log(result, opened.name, place)}")
    if probabilities is not None:
        offered = tasks_of_model(opened) if chosen is None else chosen
        _write_probabilities(opened, offered[: num_samples or len(result.samples)], probabilities)
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        metrics = plan.evaluation.metrics or ()
        show_evaluation(result, plan.tracking.samples, metrics, opened.dialect.name)


def _write_object(file: Path, value: dict[str, object]) -> None:
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, plain(value))


def _write_probabilities(model: Model, tasks: list[Task], file: Path) -> None:
    """Write the probability of each tool on each task, and report how well they are calibrated."""
    choices = tool_choices(model.policy(), in_world(tasks, model.experiment.world))
    found = calibration(choices)
    _write_object(file, {"calibration": found, "tasks": [one.to_dict() for one in choices]})
    shown = ", ".join(f"{name} {found[name]:.3f}" for name in ("accuracy", "confidence", "error"))
    print_note(f"probabilities of tools on {found['n']} tasks: {shown}, Brier {found['brier']:.3f}")


def _check_bfcl(
    bfcl: str | None, needed: Mapping[str, object], others: Mapping[str, object], tries: int
) -> None:
    """Refuse options that belong to `--bfcl` without it, and those that it has no use for."""
    for name, value in (needed if bfcl is None else others).items():
        if value is not None and bfcl is None:
            raise ConfigError(f"{name} belongs to --bfcl CATEGORIES; add it")
        if value is not None:
            raise ConfigError(f"--bfcl brings its own tasks and verdicts; leave {name} out")
    if bfcl is not None and tries > 1:
        raise ConfigError("--bfcl plays each entry once; leave --tries out")


def _evaluate_bfcl(
    model: Model,
    categories: str,
    program: Path | None,
    samples: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Generate for BFCL, have bfcl-eval judge, and print and keep what it says."""
    if out is not None:
        refuse_overwriting(out)
    root = Path(os.environ.get("BFCL_PROJECT_ROOT") or (out or Path("evals/bfcl")) / "official")
    with open_progress("off" if as_json else model.experiment.tracking.progress) as progress:
        python = bfcl_python(program, progress.report)
        options = BfclOptions(python, root, Path(model.name).name, samples)
        found = evaluate_bfcl(model.policy(), categories, options, progress)
    if out is not None:
        write_folder(found.evaluation, out, format_of_run(model.certificate, model.experiment))
        with writing(out):
            write_json(out / "bfcl.json", plain(found.report))
    if as_json:
        print(json.dumps(plain(found.report)))
        return
    console().print(bfcl_table(found.report))
    print(f"result and score files of bfcl-eval: {root}")


CsvFiles = Annotated[
    list[Path] | None,
    Option(
        metavar="FILE [FILE]...",
        help="instead: CSV files with query, predicted_text and expected_calls",
    ),
]
ToolNames = Annotated[
    str,
    Option(
        help="run the calls with these tools: built-in names, file.py:function or tools.json, "
        "comma-separated"
    ),
]
RewardNames = Annotated[
    list[str] | None,
    Option(
        help="also compute a reward: a name of `toolhone rewards list` or file.py:function; "
        "may be repeated"
    ),
]
AsJsonl = Annotated[
    bool, Option("--jsonl", help='with --reward: print {"id", "reward", "parts"} for each task')
]
Predictions = Annotated[Path | None, Option(help='JSON Lines of {"id", "text"} or {"id", "calls"}')]
Syntax = Annotated[
    str | None,
    Option(help="the call syntax of the texts, e.g. json, calls, tagged, bfcl, tool_call_tags"),
]
ScoreOut = Annotated[
    Path | None,
    Option(help="write the evaluation folder: metrics.json, samples.jsonl, samples.csv"),
]


@app.command(
    cls=flags.taking_several("--csv"),
    epilog="Examples: toolhone score --tasks tasks.jsonl --predictions answers.jsonl "
    "--dialect json   |   toolhone score --csv a.csv b.csv",
)
def score(  # noqa: PLR0913 (the options of a command)
    tasks: Annotated[Path | None, Option(help="task file")] = None,
    predictions: Predictions = None,
    csv: CsvFiles = None,
    dialect: Syntax = None,
    tools: ToolNames = "",
    reward: RewardNames = None,
    out: ScoreOut = None,
    samples: Annotated[int, Option(min=0, help="predictions and mismatches to print")] = 3,
    as_jsonl: AsJsonl = False,
    as_json: flags.AsJson = False,
) -> None:
    """Score answers from anywhere; no model is needed. With --csv, --out gets
    summary_results.csv."""
    if csv:
        names = ("--tasks", "--predictions", "--tools", "--reward", "--jsonl")
        values = (tasks, predictions, tools, reward, as_jsonl)
        if given := [name for name, value in zip(names, values, strict=True) if value]:
            raise ConfigError(
                "--csv reads tables that hold the expected calls themselves; leave out "
                f"{' and '.join(given)}"
            )
        _score_tables(csv, out, as_json, dialect)
        return
    if tasks is None or predictions is None:
        raise ConfigError(
            "score needs --tasks FILE and --predictions FILE, or --csv FILE [FILE]...; see "
            "toolhone score --help"
        )
    if as_jsonl and not reward:
        raise ConfigError(
            "--jsonl prints the reward of each task; name one: --reward NAME or --reward "
            "file.py:function"
        )
    result, dialect = _score_answers(tasks, predictions, dialect, tools, reward or [])
    if out is not None:
        write_folder(result, out)
    if as_jsonl:
        for sample in result.samples:
            parts = {name.removeprefix("reward/"): value for name, value in sample.rewards.items()}
            print(json.dumps({"id": sample.id, "reward": parts.pop("reward"), "parts": parts}))
    elif as_json:
        print(json.dumps(result.to_dict()))
    else:
        show_evaluation(result, samples, dialect=dialect)


def _score_answers(
    tasks: Path, predictions: Path, dialect: str | None, tools: str, rewards: list[str]
) -> tuple[Evaluation, str | None]:
    """Return the evaluation, and the dialect in which the texts were read."""
    names = tools.replace(",", " ").split()
    specs = read_tool_files(names, Path.cwd())
    loaded_tools = [tool for spec in specs for tool in load_tools(spec, Path.cwd())]
    registry = Registry(loaded_tools) if names else None
    rows = [record for _, record in read_lines(predictions)]
    answers = [row for row in rows if not isinstance(row, BadLine)]
    bad = [str(row.error) for row in rows if isinstance(row, BadLine)]
    if not answers:
        raise DataError(bad[0])
    loaded = load_rewards(rewards)
    if dialect is None and rewards and any("text" in answer for answer in answers):
        dialect = syntax_of(rewards)
        if dialect:
            made = f"the dialect of {' and '.join(rewards)}"
            print_note(f"the texts are read as --dialect {dialect}, {made}")
    skipped: list[str] = []
    offered = () if registry is None else registry.tools
    found = tasks_from_any(tasks, offered, print_note, skipped=skipped)
    known = {task.id for task in found}
    strays = [answer for answer in answers if str(answer.get("id")) not in known]
    if 0 < len(strays) <= len(skipped):
        answers = [answer for answer in answers if answer not in strays]
        print_note(f"predictions left out, whose tasks cannot be read: {len(strays)}")
    official = tasks.is_file() and detect_format(open_records(tasks)) == "bfcl"
    own = {METRIC: official_verdicts(tasks)} if official else None
    result = score_predictions(found, answers, dialect, registry, loaded, print_note, bad, own)
    return result, dialect


def _score_tables(files: list[Path], out: Path | None, as_json: bool, dialect: str | None) -> None:
    """Score tables of answers; a summary among the files is skipped with a note."""
    summaries = [file for file in files if is_summary(file)]
    if len(summaries) == len(files):
        wanted = "the files with query, predicted_text and expected_calls"
        raise DataError(f"{summaries[0]} is a summary of results; give {wanted}")
    for file in summaries:
        print_note(f"{file}: skipped, it is a summary of results")
    names = [file.name for file in files]
    tables = {
        file.name if names.count(file.name) == 1 else str(file): read_results_csv(file, dialect)
        for file in files
        if file not in summaries
    }
    if out is not None:
        if (out / SUMMARY).resolve() in [file.resolve() for file in summaries]:
            raise DataError(
                f"{out / SUMMARY} is one of the files given, and would be overwritten; name "
                "another folder with --out"
            )
        counts = {name: (len(found.rows), found.count("match")) for name, found in tables.items()}
        write_summary(out / SUMMARY, counts)
    if as_json:
        print(json.dumps({"files": {name: found.to_dict() for name, found in tables.items()}}))
        return
    console().print(csv_table(tables))
    if dialect is None and any(found.is_written_otherwise for found in tables.values()):
        print_note(
            "some tables have calls in extracted_calls and no <tool_call> tags in their texts; "
            "--dialect NAME reads the texts as their model writes calls (json, calls, tagged, bfcl)"
        )
    for name, found in tables.items():
        for reason, count in found.skipped.items():
            print(f"{name}: {count} of {found.read} rows skipped: {reason}")
