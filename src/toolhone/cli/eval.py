"""`toolhone eval` plays tasks with a model and scores it; `toolhone score` scores answers from
anywhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option
from typer.core import TyperCommand

from toolhone.cli.options import (
    AsJson,
    Checkpoint,
    Constrained,
    DialectName,
    ModelName,
    Overrides,
    with_options,
)
from toolhone.errors import ConfigError, DataError

if TYPE_CHECKING:
    from toolhone.evaluation.metrics import Evaluation

EVAL_EXAMPLE = (
    "Examples: toolhone eval runs/sft   |   "
    "toolhone eval runs/sft --tasks tasks.jsonl --checkpoint best_checkpoint --json"
)
SCORE_EXAMPLE = (
    "Examples: toolhone score --tasks tasks.jsonl --predictions answers.jsonl --dialect json   |   "
    "toolhone score --csv a.csv b.csv"
)


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


class ScoreCommand(TyperCommand):
    """A command that takes several files after one `--csv`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spread: list[str] = []
        for previous, word in zip(["", *args], args, strict=False):
            follows = (
                spread[-2:-1] == ["--csv"] and previous != "--csv" and not word.startswith("-")
            )
            spread += ["--csv", word] if follows else [word]
        parsed: list[str] = super().parse_args(ctx, spread)
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
        "--output",
        help="write the evaluation folder, or, to a name in .json, one JSON object",
    ),
]
ToolsFrom = Annotated[
    str | None, Option(help="an experiment file: its tools and evaluation, in place of the run's")
]


def evaluate(  # noqa: PLR0913 (the options of a command)
    model: ModelName,
    overrides: Overrides = None,
    tasks: Tasks = None,
    checkpoint: Checkpoint = None,
    num_samples: Annotated[int | None, Option(min=1, help="at most this many tasks")] = None,
    out: EvaluationOut = None,
    config: ToolsFrom = None,
    dialect: DialectName = None,
    constrained: Constrained = False,
    as_json: AsJson = False,
) -> None:
    """Play tasks with a model and live tools, and score the episodes.

    MODEL_OR_RUN may also be given as --model-path.
    """
    from toolhone.api import evaluate as run_evaluation
    from toolhone.api import open_model
    from toolhone.cli.console import show_evaluation
    from toolhone.config.experiment import load_experiment, to_stderr
    from toolhone.data.task_files import tasks_from_any
    from toolhone.runs.progress import open_progress
    from toolhone.training.dataset import source_request

    keys = with_options(overrides, dialect, constrained)
    opened = open_model(
        model, checkpoint, keys, None if config is None else load_experiment(Path(config))
    )
    plan = opened.experiment
    if num_samples is None and any(key.startswith("evaluation.num_samples=") for key in keys):
        num_samples = plan.evaluation.num_samples
    chosen = None
    if tasks is not None:
        chosen = tasks_from_any(tasks, opened.registry.tools, to_stderr, source_request(plan))
    folder = None if out is None or out.suffix == ".json" else out
    with open_progress("off" if as_json else plan.tracking.progress) as progress:
        result = run_evaluation(opened, chosen, num_samples, folder, progress)
    if out is not None and folder is None:
        _write_one_file(out, result)
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        show_evaluation(result, plan.tracking.samples, plan.evaluation.metrics or ())
        _show_legacy_metrics(result, opened.dialect.name)


def _write_one_file(path: Path, result: Evaluation) -> None:
    """Write all metrics and every test case in the form of the playground's evaluation."""
    from toolhone.evaluation.folder import plain
    from toolhone.evaluation.legacy_metrics import playground_summary
    from toolhone.runs.run import write_json, writing

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, plain({**result.to_dict(), **playground_summary(result)}))


def _show_legacy_metrics(result: Evaluation, dialect: str | None) -> None:
    """Print the metrics that another system has for this call syntax."""
    from toolhone.cli.console import console
    from toolhone.evaluation.display import GROUP_OF, legacy_table

    if dialect in GROUP_OF:
        console().print(legacy_table(result, [GROUP_OF[dialect]]))


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
        help="run the calls with these tools: built-in names or file.py:function, comma-separated"
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
    Option(help="the call syntax of the texts, e.g. json, calls, tagged, tool_call_tags"),
]
ScoreOut = Annotated[
    Path | None,
    Option(help="write the evaluation folder: metrics.json, samples.jsonl, samples.csv"),
]


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
    as_json: AsJson = False,
) -> None:
    """Score answers from anywhere; no model is needed. With --csv, --out gets
    summary_results.csv."""
    if csv:
        given: dict[str, object] = {
            "--tasks": tasks,
            "--predictions": predictions,
            "--dialect": dialect,
        }
        given |= {"--tools": tools, "--reward": " ".join(reward or []), "--jsonl": as_jsonl}
        if names := [name for name, value in given.items() if value]:
            raise ConfigError(
                "--csv reads tables that hold the expected calls themselves; leave out "
                f"{' and '.join(names)}"
            )
        _score_tables(csv, out, as_json)
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
    from toolhone.cli.console import show_evaluation
    from toolhone.evaluation.folder import write_folder

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
        show_evaluation(result, samples)
        _show_legacy_metrics(result, dialect)


def _score_answers(
    tasks: Path, predictions: Path, dialect: str | None, tools: str, rewards: list[str]
) -> tuple[Evaluation, str | None]:
    """Return the evaluation, and the dialect in which the texts were read."""
    from toolhone.data.task_files import tasks_from_any
    from toolhone.evaluation.score import score as score_predictions
    from toolhone.rewards.reward_registry import load_rewards, syntax_of
    from toolhone.sources.files import read_records
    from toolhone.tools.loading import load_tools
    from toolhone.tools.registry import Registry

    names = tools.replace(",", " ").split()
    registry = (
        Registry([tool for name in names for tool in load_tools(name, Path.cwd())])
        if names
        else None
    )
    answers = [record for _, record in read_records(predictions)]
    loaded = load_rewards(rewards)
    if dialect is None and rewards and any("text" in answer for answer in answers):
        dialect = syntax_of(rewards)
        if dialect:
            made = f"the dialect of {' and '.join(rewards)}"
            print(f"the texts are read as --dialect {dialect}, {made}", file=sys.stderr)
    found = tasks_from_any(tasks, () if registry is None else registry.tools, _note)
    return score_predictions(found, answers, dialect, registry, loaded), dialect


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _score_tables(files: list[Path], out: Path | None, as_json: bool) -> None:
    """Score tables of answers; a summary among the files is skipped with a note."""
    from toolhone.cli.console import console
    from toolhone.evaluation.csv_results import SUMMARY, is_summary, read_results_csv, write_summary
    from toolhone.evaluation.display import csv_table

    summaries = [file for file in files if is_summary(file)]
    if len(summaries) == len(files):
        raise DataError(
            f"{summaries[0]} is a summary of results; give the files with query, predicted_text "
            "and expected_calls"
        )
    for file in summaries:
        _note(f"{file}: skipped, it is a summary of results")
    names = [file.name for file in files]
    tables = {
        file.name if names.count(file.name) == 1 else str(file): read_results_csv(file)
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
    for name, found in tables.items():
        for reason, count in found.skipped.items():
            print(f"{name}: {count} of {found.read} rows skipped: {reason}")
