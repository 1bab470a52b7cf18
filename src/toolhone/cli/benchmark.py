"""`toolhone benchmark` runs several models on several task sets and prints a leaderboard."""

from __future__ import annotations

import json
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from toolhone.api import Model, evaluate, open_model
from toolhone.cli import flags
from toolhone.cli.console import console
from toolhone.config.experiment import to_stderr
from toolhone.data.task_files import tasks_from_any
from toolhone.episodes.chat_policy import ChatPolicy
from toolhone.errors import ConfigError, DataError
from toolhone.evaluation.bfcl_official import bfcl_python, parse_categories
from toolhone.evaluation.bfcl_run import BfclOptions, evaluate_bfcl
from toolhone.evaluation.evaluate import evaluate as play_and_score
from toolhone.evaluation.folder import read_folder, write_folder
from toolhone.evaluation.leaderboard import BoardEntry, Leaderboard, entry_of, leaderboard_table
from toolhone.evaluation.metrics import Evaluation
from toolhone.runs.progress import open_progress
from toolhone.runs.run import read_json, write_json, writing
from toolhone.training.before_after import format_of_run

app = typer.Typer(rich_markup_mode=None)
COST = "cost.json"
"""Seconds and memory of an evaluation, beside it."""
BFCL = "bfcl:"


@dataclass(frozen=True)
class BenchmarkJob:
    """A model and the sets that it has not been run on yet, each with the folder of its results."""

    model: str
    sets: tuple[tuple[str, Path], ...]
    overrides: tuple[str, ...]
    samples: int | None
    bfcl_python: Path | None


@app.command(
    cls=flags.taking_several("--tasks"),
    epilog="Examples: toolhone benchmark pico runs/sft --tasks tasks.jsonl --out boards/a   |   "
    "toolhone benchmark runs/sft http://127.0.0.1:8000/v1#qwen3 --tasks a.jsonl bfcl:live_simple",
)
def benchmark(
    models: Annotated[
        list[str],
        Argument(
            metavar="MODELS...",
            help="runs, model folders, hub names, 'pico', or addresses http://host/v1#model",
        ),
    ],
    tasks: Annotated[
        list[str],
        Option(help="a task file of any known format, or bfcl:CATEGORIES; several may follow"),
    ],
    out: Annotated[Path, Option(help="the folder of all results")] = Path("benchmark"),
    num_samples: Annotated[
        int | None, Option(min=1, help="at most this many tasks of a set (BFCL: of a category)")
    ] = None,
    set_key: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="such as evaluation.max_new_tokens=128"),
    ] = None,
    bfcl_program: Annotated[
        Path | None, Option("--bfcl-python", help="a Python that has bfcl-eval")
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """Run models on task sets and print a leaderboard with intervals, speed and memory.

    Every result is kept, so a benchmark that was stopped goes on where it was. Each local model
    runs in a process of its own.
    """
    folders = [(m, t, out / _slug(m) / _slug(t)) for m in models for t in tasks]
    places = [place for *_, place in folders]
    if twice := [str(place) for place in places if places.count(place) > 1]:
        wrong = f"two results would share the folder {twice[0]}: a model or a set is named twice"
        raise ConfigError(f"{wrong}, or two have one name; rename one")
    for name in tasks:
        if name.startswith(BFCL):
            parse_categories(name.removeprefix(BFCL), to_stderr)
        elif not Path(name).exists():
            raise DataError(f"--tasks {name}: no such file; give a task file or bfcl:CATEGORIES")
    for model in models:
        if _is_address(model):
            ChatPolicy.of(model)
    for model in models:
        missing = [(n, p) for m, n, p in folders if m == model and not (p / COST).is_file()]
        done = len(tasks) - len(missing)
        to_stderr(f"{model}: {len(tasks)} sets, {done} of them done before")
        if missing:
            job = BenchmarkJob(
                model, tuple(missing), tuple(set_key or ()), num_samples, bfcl_program
            )
            if _is_address(model):
                run_job(job)
                continue
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                pool.submit(run_job, job).result()
    board = Leaderboard([_entry(*one) for one in folders])
    board.write(out)
    print(json.dumps(board.to_dict())) if as_json else console().print(leaderboard_table(board))


def _is_address(model: str) -> bool:
    return model.startswith(("http://", "https://"))


def _slug(name: str) -> str:
    """A folder name for a model or a set: a file by its stem, anything else by its letters."""
    stem = Path(name).name.partition(".")[0] if Path(name).exists() else name
    return re.sub(r"[^A-Za-z0-9.-]+", "-", stem).strip("-") or "model"


def _entry(model: str, tasks: str, place: Path) -> BoardEntry:
    cost = read_json(place / COST)
    names = _slug(model), _slug(tasks)
    return entry_of(*names, read_folder(place), cost["seconds"], cost["peak_mb"])


def run_job(job: BenchmarkJob) -> None:
    """Play the sets of a job in this process."""
    opened = None if _is_address(job.model) else open_model(job.model, overrides=job.overrides)
    for name, place in job.sets:
        began = time.monotonic()
        result, note = _play(job, opened, name, place)
        cost = {"seconds": time.monotonic() - began, "peak_mb": None}
        cost["peak_mb"] = None if opened is None else _peak_mb()
        write_folder(result, place, note, overwrite=True)
        with writing(place):
            write_json(place / COST, cost)  # last: it says that the folder is whole


def _play(
    job: BenchmarkJob, opened: Model | None, name: str, place: Path
) -> tuple[Evaluation, dict[str, object] | None]:
    note = None if opened is None else format_of_run(opened.certificate, opened.experiment)
    with open_progress("auto") as progress:
        policy = _policy(job) if opened is None else opened.policy()
        if name.startswith(BFCL):
            python = bfcl_python(job.bfcl_python, progress.report)
            options = BfclOptions(python, place / "official", _slug(job.model), job.samples)
            found = evaluate_bfcl(policy, name.removeprefix(BFCL), options, progress)
            return found.evaluation, note
        tools = () if opened is None else opened.registry.tools
        tasks = tasks_from_any(name, tools, progress.report)[: job.samples]
        if opened is not None:
            return evaluate(opened, tasks, job.samples, progress=progress), note
        return play_and_score(policy, tasks, progress=progress), note


def _policy(job: BenchmarkJob) -> ChatPolicy:
    """The policy behind an address, with the sampling that --set names."""
    known = {"evaluation.max_new_tokens": "max_tokens", "evaluation.temperature": "temperature"}
    given: dict[str, float] = {}
    for override in job.overrides:
        key, _, value = override.partition("=")
        if key not in known:
            wrong = f"{job.model}: --set {override} has no effect behind an address"
            raise ConfigError(f"{wrong}; there: {', '.join(known)}")
        given[known[key]] = float(value)
    tokens, temperature = int(given.get("max_tokens", 256)), given.get("temperature", 0.0)
    return ChatPolicy.of(job.model, tokens, temperature)


def _peak_mb() -> float | None:
    """The largest memory of this process in 10^6 bytes; with a GPU, that of the GPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e6
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
