"""BFCL: its entries as tasks, our replies as its result files, and the verdicts of bfcl-eval.

    python = bfcl_python(None, print)                         # its own environment, made once
    entries = read_entries(python, parse_categories("live_simple", print))
    failed = official_failures(python, root, "run-7", replies)       # id to kind of error

The package is unmodified and runs in a process of its own (`bfcl_runner.py`). docs/bfcl.md says
what its figures mean.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolhone.episodes.episode import EpisodeStatus
from toolhone.errors import ConfigError, DataError, RunError, nearest
from toolhone.evaluation import bfcl_runner
from toolhone.evaluation.bfcl_checker import category_of
from toolhone.models.pico import cache_root
from toolhone.runs.run import writing
from toolhone.schema import Expect, Json, Task, ToolCall
from toolhone.sources.bfcl import BFCL
from toolhone.sources.files import FileLine, write_jsonl
from toolhone.sources.scenarios import read_messages
from toolhone.sources.source import Context, Skip
from toolhone.sources.tool_specs import read_tools

VERSION = "2026.3.23"
PACKAGES = (
    *("filelock", "numpy", "pandas", "tqdm", "python-dotenv", "tenacity", "mpmath", "overrides"),
    *("tree_sitter==0.21.3", "tree-sitter-java==0.21.0", "tree-sitter-javascript==0.21.4"),
)
"""What the checker needs; the package's own list pulls in torch and many clients of vendors."""
NON_LIVE = (
    *("simple_python", "simple_java", "simple_javascript", "multiple", "parallel"),
    *("parallel_multiple", "irrelevance"),
)
LIVE = (
    *("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"),
    *("live_irrelevance", "live_relevance"),
)
SINGLE_TURN = (*NON_LIVE, *LIVE)
MULTI_TURN = tuple(
    f"multi_turn_{name}" for name in ("base", "miss_func", "miss_param", "long_context")
)
CATEGORIES = (*SINGLE_TURN, *MULTI_TURN)
GROUPS: Mapping[str, Sequence[str]] = {
    "single_turn": SINGLE_TURN,
    "multi_turn": MULTI_TURN,
    "non_live": NON_LIVE,
    "live": LIVE,
    "python": [name for name in SINGLE_TURN if "java" not in name],
    "non_python": ("simple_java", "simple_javascript"),
    "all": CATEGORIES,
}
OLD_NAMES: Mapping[str, str] = {
    "simple": "simple_python",
    "java": "simple_java",
    "javascript": "simple_javascript",
    "parallel_function": "parallel",
    "multiple_function": "multiple",
    "parallel_multiple_function": "parallel_multiple",
    "relevance": "live_relevance",
    **dict.fromkeys(("mutli_turn", "multiturn", "multi-turn"), "multi_turn"),
}
"""Names of earlier versions, and frequent misspellings."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class Reply:
    """What a model answered to an entry.

    turns: for each turn of the user, the calls of each step and, where it was not read as calls,
    the text. A single-turn entry has one turn with one step. outcome: the first thing that was
    wrong with a dialogue, else answered.
    """

    id: str
    turns: Sequence[Sequence[Sequence[ToolCall] | str]]
    outcome: EpisodeStatus = EpisodeStatus.ANSWERED


def parse_categories(text: str, report: Report) -> list[str]:
    """Today's categories that names, separated by commas or blanks, stand for; groups are known."""
    found: list[str] = []
    for name in text.replace(",", " ").split():
        today = OLD_NAMES.get(name, name)
        if today != name:
            report(f"bfcl: {name!r} is called {today!r} today")
        if today not in CATEGORIES and today not in GROUPS:
            known = [*GROUPS, *CATEGORIES]
            wrong = f"--bfcl: there is no category {name!r}{nearest(name, known)}"
            raise ConfigError(f"{wrong}; known: {', '.join(known)}")
        found += GROUPS.get(today, [today])
    if not found:
        raise ConfigError(f"--bfcl needs a category, such as {', '.join(GROUPS)}")
    return list(dict.fromkeys(found))


def bfcl_python(given: Path | None, report: Report) -> Path:
    """The interpreter of an environment with bfcl-eval: the one given, or one in the cache, which
    is made at the first call (212 MB, from the package index)."""
    if given is not None:
        if not given.is_file():
            raise ConfigError(f"--bfcl-python: there is no program {given}")
        return given
    root = cache_root()
    folder = root / f"bfcl-eval-{VERSION}"
    python = folder / "bin" / "python"
    if python.exists():
        return python
    by_hand = (
        f"make an environment yourself (Python 3.10 to 3.12: pip install --no-deps "
        f"bfcl-eval=={VERSION}; pip install {' '.join(PACKAGES)}) and name its Python with "
        "--bfcl-python"
    )
    if sys.version_info >= (3, 13):
        raise RunError(f"bfcl-eval {VERSION} needs Python 3.10 to 3.12; {by_hand}")
    report(f"bfcl: making an environment for bfcl-eval {VERSION} in {folder}")
    root.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="bfcl-eval-", dir=root))
    install = [str(draft / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", str(draft)],
        [*install, "--no-deps", f"bfcl-eval=={VERSION}"],
        [*install, *PACKAGES],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(draft)
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise RunError(f"bfcl-eval {VERSION} cannot be installed: {last:.200}; {by_hand}")
    draft.rename(folder)
    return python


def run_package(python: Path, root: Path, *words: str) -> str:
    """What a command of `bfcl_runner.py` prints; the process gets no other environment, so no
    secrets."""
    done = subprocess.run(
        package_command(python, *words),
        env=package_environment(root),
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RunError(f"bfcl-eval ({python}) failed at {words[0]!r}: {last:.300}")
    return done.stdout


def package_command(python: Path, *words: str) -> list[str]:
    return [str(python.absolute()), "-I", bfcl_runner.__file__, *words]


def package_environment(root: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    home = str(root.absolute())
    return {**kept, "BFCL_PROJECT_ROOT": home, "HOME": home, "PYTHONUTF8": "1"}


def read_entries(python: Path, categories: Sequence[str]) -> list[dict[str, Json]]:
    """The entries of these categories as a model gets them, each with its answer as `truth`."""
    with tempfile.TemporaryDirectory() as root:
        lines = run_package(python, Path(root), "entries", *categories).splitlines()
    return [json.loads(line) for line in lines]


def task_of(entry: Mapping[str, Json]) -> Task:
    """A single-turn entry as a task, its functions with JSON Schemas.

    Its expectation serves our own metrics; where the answer cannot be read, it is any call.
    """

    class Truth:
        @staticmethod
        def find(_: str) -> Json:
            return entry["truth"]

    name = str(entry["id"])
    place = FileLine(Path("bfcl-eval"), 1)
    context = Context("bfcl", place.path, {}, place, Truth)
    try:
        found = BFCL.convert(dict(entry), context)
        (task,) = found if isinstance(found, list) else [found]
        assert isinstance(task, Task)
    except Skip:
        messages = read_messages(entry["question"][0], "", context)
        tools = read_tools(entry["function"], context, loose=True)
        task = Task(name, messages, tools, Expect(any_call=True))
    return replace(task, category=category_of(name), source="bfcl")


def official_failures(
    python: Path, root: Path, name: str, replies: Sequence[Reply], partial: bool = False
) -> dict[str, str]:
    """Write result files for `name` below `root`, have bfcl-eval score them, and return the kind of
    error of each entry that failed. `partial`: some entries of a category have no reply."""
    model = "toolhone-" + re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
    by_category: dict[str, list[Reply]] = {}
    for reply in replies:
        by_category.setdefault(category_of(reply.id), []).append(reply)
    with tempfile.TemporaryDirectory() as made:  # the package fails on folders of other models
        results = Path(made, "result", model)
        results.mkdir(parents=True)
        for category, found in by_category.items():
            write_jsonl(results / f"BFCL_v4_{category}_result.json", map(_result, found))
        run_package(
            python, Path(made), "evaluate", model, "part" if partial else "all", *by_category
        )
        with writing(root):
            for kind in ("result", "score"):
                target = root / kind / model
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(Path(made, kind, model), target)
    scores = root / "score" / model
    failed: dict[str, str] = {}
    for category, found in by_category.items():
        (path,) = scores.rglob(f"BFCL_v4_{category}_score.json")
        total, *wrong = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        if total["total_count"] != len(found) or total["correct_count"] != len(found) - len(wrong):
            counts = f"{total['total_count']} entries and {len(wrong)} failures"
            raise DataError(f"{path}: {counts} for {len(found)} replies; the file is not whole")
        for one in wrong:
            error = one["error"] if isinstance(one["error"], dict) else one
            failed[one["id"]] = str(error.get("error_type", "unknown"))
    return failed


def _result(reply: Reply) -> dict[str, Json]:
    """A line of a result file: calls as `{name: "arguments as JSON"}`, or the text."""
    turns = [
        [
            step
            if isinstance(step, str)
            else [{call.name: json.dumps(dict(call.arguments))} for call in step]
            for step in turn
        ]
        for turn in reply.turns
    ]
    is_single = category_of(reply.id) in SINGLE_TURN
    return {"id": reply.id, "result": turns[0][0] if is_single else turns}
