"""`toolhone train`: trains what an experiment file, a preset or flags describe."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from toolhone.cli.flags import experiment_and_keys
from toolhone.cli.options import ExperimentName, Overrides
from toolhone.errors import RunError

if TYPE_CHECKING:
    from toolhone.config.sections import Experiment

EXAMPLE = (
    "Examples: toolhone train sft.json --out runs/sft training.steps=200   |   toolhone train "
    "calculator model.name=pico   |   "
    "toolhone train --model pico --data rows.jsonl --iters 100   |   toolhone train --resume "
    "--out runs/sft"
)


def train(
    context: typer.Context,
    experiment: ExperimentName = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        Option(
            "--out",
            "--output-dir",
            "--outdir",
            "--adapter-path",
            help="the run folder [default: runs/ and the experiment's name]",
        ),
    ] = None,
    resume: Annotated[
        bool, Option("--resume", help="resume from the run's latest checkpoint")
    ] = False,
    config: Annotated[
        str | None, Option(help="the experiment file, for those used to this spelling")
    ] = None,
    debug: Annotated[bool, Option("--debug", help="show the traceback of an error")] = False,  # noqa: ARG001 (read in main)
) -> None:
    """Train a model, with progress, validation by generation, checkpoints, and an evaluation at the
    end."""
    from toolhone.config.experiment import load_experiment
    from toolhone.config.trust import refuse_to_resume_unnamed
    from toolhone.runs.run import Run

    path, keys = experiment_and_keys(context, experiment, overrides, config)
    folder = out or Path("runs") / (path.stem if path else "sft")
    if resume and path is None and not keys:
        plan = Run.open(folder).experiment
        refuse_to_resume_unnamed(plan, folder)
    else:
        plan = load_experiment(path, keys)
    _train(plan, folder, resume)


def _train(plan: Experiment, folder: Path, resume: bool) -> None:
    from toolhone.api import train as run_training
    from toolhone.cli.console import show_evaluation
    from toolhone.evaluation.folder import read_folder
    from toolhone.runs.progress import open_progress
    from toolhone.training.loop import TrainStatus

    with open_progress(plan.tracking.progress) as progress:
        run, status = run_training(plan, folder, resume, progress)
    if status is TrainStatus.INTERRUPTED:
        command = _command_to_resume(plan, folder)
        print(f"stopped; the state is saved. Resume with: {command}", file=sys.stderr)
        raise typer.Exit(130)
    if (run.folder / "evaluation" / "metrics.json").is_file():
        evaluation = read_folder(run.folder / "evaluation")
        show_evaluation(evaluation, plan.tracking.samples, plan.evaluation.metrics or ())
    verbs = f"curves: toolhone plot {folder}   chat with it: toolhone chat {folder}"
    print(f"run: {folder}   {verbs}", file=sys.stderr)


def _command_to_resume(plan: Experiment, folder: Path) -> str:
    """Return the command that resumes; where a run folder alone is not trusted, the one that was
    given, with --resume."""
    from toolhone.config.trust import refuse_to_resume_unnamed

    try:
        refuse_to_resume_unnamed(plan, folder)
    except RunError:
        words = [word for word in sys.argv[1:] if word != "--resume"]
        if not any(word.startswith(("--out", "--adapter")) for word in words):
            words += ["--out", str(folder)]
        return f"toolhone {shlex.join([*words, '--resume'])}"
    return f"toolhone train --resume --out {folder}"
