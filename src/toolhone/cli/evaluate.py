"""`toolhone eval` plays tasks with a model and scores it; `toolhone score` scores answers that were produced anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EVAL_EXAMPLE = (
    "Examples: toolhone eval runs/sft   |   toolhone eval runs/sft --tasks tasks.jsonl --checkpoint best_checkpoint --json"
)
SCORE_EXAMPLE = "Example: toolhone score --tasks tasks.jsonl --predictions answers.jsonl --dialect json"

Out = Annotated[Path | None, typer.Option(help="write the evaluation folder: metrics.json, samples.jsonl, samples.csv")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="a run, a checkpoint, a model folder, a hub name or 'pico'")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. model.dialect=json")] = None,
    tasks: Annotated[Path | None, typer.Option(help="task file [default: the run's held-out tasks]")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="a checkpoint of the run, by name [default: final_checkpoint]")] = None,
    num_samples: Annotated[int | None, typer.Option(min=1, help="at most this many tasks")] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Play tasks with a model and live tools, and score what it does."""
    from toolhone.api import evaluate as run_evaluation
    from toolhone.api import open_model
    from toolhone.cli.show import show_evaluation
    from toolhone.progress import open_progress

    opened = open_model(model, checkpoint, overrides or [])
    with open_progress("off" if as_json else opened.experiment.tracking.progress) as progress:
        result = run_evaluation(opened, tasks, num_samples, out, progress)
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        show_evaluation(result, opened.experiment.tracking.samples)


def score(
    tasks: Annotated[Path, typer.Option(help="task file")],
    predictions: Annotated[Path, typer.Option(help='JSON Lines of {"id", "text"} or {"id", "calls"}')],
    dialect: Annotated[
        str | None, typer.Option(help="how calls are written in the texts, e.g. json, calls, tagged, tool_call_tags")
    ] = None,
    tools: Annotated[
        str, typer.Option(help="run the calls with these tools: built-in names or file.py:function, comma-separated")
    ] = "",
    out: Out = None,
    samples: Annotated[int, typer.Option(min=0, help="predictions and mismatches to print")] = 3,
    as_json: AsJson = False,
) -> None:
    """Score answers that were produced anywhere; no model is needed."""
    from toolhone.cli.show import show_evaluation
    from toolhone.data.files import read_jsonl, read_tasks
    from toolhone.evaluation.folder import write_folder
    from toolhone.evaluation.score import score as judge_predictions
    from toolhone.tools.registry import Registry, load_tools

    names = [name for name in tools.replace(",", " ").split() if name]
    registry = Registry([tool for name in names for tool in load_tools(name, Path.cwd())]) if names else None
    answers = [record for _, record in read_jsonl(predictions)]
    result = judge_predictions(read_tasks(tasks), answers, dialect, registry)
    if out is not None:
        write_folder(result, out)
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        show_evaluation(result, samples)
