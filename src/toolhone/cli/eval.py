"""`toolhone eval` plays tasks with a model and scores it; `toolhone score` scores answers that were produced anywhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from toolhone.errors import ConfigError, DataError

if TYPE_CHECKING:
    from toolhone.evaluation.metrics import Evaluation

EVAL_EXAMPLE = "Examples: toolhone eval runs/sft   |   toolhone eval runs/sft --tasks tasks.jsonl --checkpoint best_checkpoint --json"
SCORE_EXAMPLE = "Examples: toolhone score --tasks tasks.jsonl --predictions answers.jsonl --dialect json   |   toolhone score --csv a.csv b.csv"

Out = Annotated[
    Path | None,
    typer.Option(help="write the evaluation folder: metrics.json, samples.jsonl, samples.csv"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]


class EvalCommand(TyperCommand):
    """A command whose model may also be named as `--model-path MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [
            part
            for word in args
            for part in (word.split("=", 1) if word.startswith("--model-path=") else [word])
        ]
        if "--model-path" in words[:-1]:
            place = words.index("--model-path")
            words = [words[place + 1], *words[:place], *words[place + 2 :]]
        parsed: list[str] = super().parse_args(ctx, words)
        return parsed


def evaluate(  # noqa: PLR0913 (the options of a command)
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_OR_RUN", help="a run, a checkpoint, a model folder, a hub name or 'pico'"
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. model.dialect=json")
    ] = None,
    tasks: Annotated[
        Path | None,
        typer.Option(
            "--tasks",
            "--test-cases",
            help="tasks, or rows of a known format [default: the run's held-out tasks]",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="a checkpoint of the run, by name [default: final_checkpoint]"),
    ] = None,
    num_samples: Annotated[int | None, typer.Option(min=1, help="at most this many tasks")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            help="write the evaluation folder, or, to a name in .json, one JSON object",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="an experiment file: its tools and evaluation, in place of the run's"),
    ] = None,
    dialect: Annotated[
        str | None,
        typer.Option(
            help="use another dialect than the model was trained in, on purpose: native, json, calls, tagged"
        ),
    ] = None,
    constrained: Annotated[
        bool, typer.Option("--constrained", help="sample only calls that the tools' schemas allow")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Play tasks with a model and live tools, and score what it does.

    MODEL_OR_RUN may also be given as --model-path.
    """
    from toolhone.api import evaluate as run_evaluation
    from toolhone.api import open_model
    from toolhone.cli.console import show_evaluation
    from toolhone.config.experiment import load_experiment, to_stderr
    from toolhone.data.any_tasks import tasks_from_any
    from toolhone.data.dataset import asked_of
    from toolhone.runs.progress import open_progress

    overrides = [*(overrides or []), *([] if dialect is None else [f"model.dialect={dialect}"])]
    overrides += ["evaluation.constrained=true"] if constrained else []
    opened = open_model(
        model, checkpoint, overrides, None if config is None else load_experiment(Path(config))
    )
    if num_samples is None and any(key.startswith("evaluation.num_samples=") for key in overrides):
        num_samples = opened.experiment.evaluation.num_samples
    chosen = (
        None
        if tasks is None
        else tasks_from_any(tasks, opened.registry.tools, to_stderr, asked_of(opened.experiment))
    )
    one_file = out is not None and out.suffix == ".json"
    with open_progress("off" if as_json else opened.experiment.tracking.progress) as progress:
        result = run_evaluation(opened, chosen, num_samples, None if one_file else out, progress)
    if out is not None and one_file:
        _write_one_file(out, result)
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        plan = opened.experiment
        show_evaluation(result, plan.tracking.samples, plan.evaluation.metrics or ())
        _show_familiar(result, opened.dialect.name)


def _write_one_file(path: Path, result: Evaluation) -> None:
    """Everything measured and the account of every test case, as the playground's evaluation writes it."""
    from toolhone.evaluation.folder import plain
    from toolhone.evaluation.legacy_metrics import playground_summary
    from toolhone.runs.run import write_json, writing

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, plain({**result.to_dict(), **playground_summary(result)}))


def score(  # noqa: PLR0913 (the options of a command)
    tasks: Annotated[Path | None, typer.Option(help="task file")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help='JSON Lines of {"id", "text"} or {"id", "calls"}')
    ] = None,
    csv: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE [FILE]...",
            help="instead: CSV files with query, predicted_text and expected_calls",
        ),
    ] = None,
    dialect: Annotated[
        str | None,
        typer.Option(
            help="how calls are written in the texts, e.g. json, calls, tagged, tool_call_tags"
        ),
    ] = None,
    tools: Annotated[
        str,
        typer.Option(
            help="run the calls with these tools: built-in names or file.py:function, comma-separated"
        ),
    ] = "",
    reward: Annotated[
        list[str] | None,
        typer.Option(
            help="pay a reward: a name of `toolhone rewards list` or file.py:function; may be repeated"
        ),
    ] = None,
    out: Out = None,
    samples: Annotated[int, typer.Option(min=0, help="predictions and mismatches to print")] = 3,
    as_jsonl: Annotated[
        bool,
        typer.Option(
            "--jsonl", help='with --reward: print {"id", "reward", "parts"} for each task'
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score answers that were produced anywhere; no model is needed. With --csv, --out gets summary_results.csv."""
    if csv:
        others = {
            "--reward": " ".join(reward or []) or None,
            "--jsonl": "yes" if as_jsonl else None,
        }
        _refuse_mixing(
            {
                "--tasks": tasks,
                "--predictions": predictions,
                "--dialect": dialect,
                "--tools": tools or None,
                **others,
            }
        )
        _score_tables(csv, out, as_json)
        return
    if tasks is None or predictions is None:
        raise ConfigError(
            "score needs --tasks FILE and --predictions FILE, or --csv FILE [FILE]...; see toolhone score --help"
        )
    from toolhone.cli.console import show_evaluation
    from toolhone.data.any_tasks import tasks_from_any
    from toolhone.evaluation.folder import write_folder
    from toolhone.evaluation.score import score as judge_predictions
    from toolhone.rewards.registry import load_rewards, syntax_of
    from toolhone.sources.files import read_jsonl
    from toolhone.tools.loading import load_tools
    from toolhone.tools.registry import Registry

    names = [name for name in tools.replace(",", " ").split() if name]
    registry = (
        Registry([tool for name in names for tool in load_tools(name, Path.cwd())])
        if names
        else None
    )
    answers = [record for _, record in read_jsonl(predictions)]
    rewards = load_rewards(reward or [])
    if as_jsonl and not rewards:
        raise ConfigError(
            "--jsonl prints what each task earns; name a reward: --reward NAME or --reward file.py:function"
        )
    if (
        dialect is None
        and reward
        and any("text" in answer for answer in answers)
        and (dialect := syntax_of(reward))
    ):
        print(
            f"the texts are read as --dialect {dialect}, which {' and '.join(reward)} are made for",
            file=sys.stderr,
        )
    offered = () if registry is None else registry.tools
    wanted = tasks_from_any(tasks, offered, lambda line: print(line, file=sys.stderr))
    result = judge_predictions(wanted, answers, dialect, registry, rewards)
    if out is not None:
        write_folder(result, out)
    if as_jsonl:
        _print_rewards(result)
        return
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    show_evaluation(result, samples)
    _show_familiar(result, dialect)


def _show_familiar(result: Evaluation, dialect: str | None) -> None:
    """The metrics that another system has for this way of writing calls."""
    from toolhone.cli.console import console
    from toolhone.evaluation.display import GROUP_OF, familiar_table

    if dialect in GROUP_OF:
        console().print(familiar_table(result, [GROUP_OF[dialect]]))


def _print_rewards(result: Evaluation) -> None:
    for sample in result.samples:
        parts = {
            name.removeprefix("reward/"): value
            for name, value in sample.rewards.items()
            if name != "reward"
        }
        print(json.dumps({"id": sample.id, "reward": sample.rewards["reward"], "parts": parts}))


class ScoreCommand(TyperCommand):
    """A command that takes several files after one `--csv`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spread: list[str] = []
        for index, word in enumerate(args):
            follows = (
                not word.startswith("-")
                and spread[-2:-1] == ["--csv"]
                and args[index - 1] != "--csv"
            )
            spread += ["--csv", word] if follows else [word]
        parsed: list[str] = super().parse_args(ctx, spread)
        return parsed


def _refuse_mixing(options: dict[str, Path | str | None]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(
            f"--csv reads tables that hold the expected calls themselves; leave out {' and '.join(given)}"
        )


def _score_tables(files: list[Path], out: Path | None, as_json: bool) -> None:
    """Score tables of answers; a summary among the files is passed over with a word."""
    from toolhone.cli.console import console
    from toolhone.evaluation.csv_results import SUMMARY, is_summary, read_results_csv, write_summary
    from toolhone.evaluation.display import csv_table

    summaries = [file for file in files if is_summary(file)]
    if len(summaries) == len(files):
        raise DataError(
            f"{summaries[0]} is a summary of results; give the files with query, predicted_text and expected_calls"
        )
    for file in summaries:
        print(f"{file}: passed over, it is a summary of results", file=sys.stderr)
    names = [file.name for file in files]
    tables = {
        file.name if names.count(file.name) == 1 else str(file): read_results_csv(file)
        for file in files
        if file not in summaries
    }
    if out is not None and (out / SUMMARY).resolve() in [file.resolve() for file in summaries]:
        raise DataError(
            f"{out / SUMMARY} is one of the files given, and would be overwritten; name another folder with --out"
        )
    if out is not None:
        write_summary(
            out / SUMMARY,
            {name: (len(found.rows), found.count("match")) for name, found in tables.items()},
        )
    if as_json:
        print(json.dumps({"files": {name: found.to_dict() for name, found in tables.items()}}))
        return
    console().print(csv_table(tables))
    for name, found in tables.items():
        for reason, count in found.skipped.items():
            print(f"{name}: {count} of {found.read} rows skipped: {reason}")
