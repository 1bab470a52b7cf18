"""The run folder: experiment, environment, metrics, samples and checkpoints.

    RUN/experiment.json, environment.json, data.json, {metrics,samples,tasks,rows}.jsonl
    RUN/checkpoints/    checkpoint_step_N, final_checkpoint, best_checkpoint; each with state.json
    RUN/evaluation/     the evaluation at the end (see `evaluation.folder`)
A checkpoint appears complete or not at all, with sizes and hashes in its manifest.json.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from toolhone.config.experiment import stored_experiment, to_stderr
from toolhone.config.sections import Experiment
from toolhone.errors import RunError, UserError, nearest
from toolhone.schema import Json

FINAL, BEST = "final_checkpoint", "best_checkpoint"
STEP = re.compile(r"checkpoint_step_(\d+)")
KEPT = ("model", "data", "tools", "seed")
"""Sections that a run and its checkpoints have in common; steps and rates may be edited."""
MANIFEST = "manifest.json"
"""Size and SHA-256 of each file of a checkpoint; the `state.json` of one that has it names it."""
WEIGHTS = (".safetensors", ".npz", ".pt", ".bin")
"""Ends of the names of files that hold weights."""
PACKAGES = (
    *("toolhone", "torch", "transformers", "tokenizers", "numpy", "safetensors", "pydantic"),
    *("pydantic-monty", "jsonschema"),
)


@dataclass(eq=False)
class Run:
    """A run folder, made by `Run.create` and found by `Run.open`.

    on_log: called with the step, kind and values of every line of `metrics.jsonl`.
    """

    folder: Path
    experiment: Experiment
    on_log: Callable[[int, str, Mapping[str, Any]], None] | None = None

    @staticmethod
    def create(folder: Path, experiment: Experiment) -> Run:
        """Make a new run folder; refuse one that holds a run."""
        if (folder / "experiment.json").exists():
            right = "continue it with --resume, or give another folder with --out"
            raise RunError(f"{folder} holds a run already; {right}")
        with writing(folder):
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            write_json(folder / "environment.json", environment())
            write_json(folder / "experiment.json", experiment.model_dump())  # last: makes it a run
        return Run(folder, experiment)

    @staticmethod
    def open(folder: Path) -> Run:
        """Open an existing run folder."""
        if not (path := folder / "experiment.json").is_file():
            raise RunError(f"{folder} is no run folder: it holds no experiment.json")
        return Run(folder, stored_experiment(read_json(path), str(path)))

    def sweep(self) -> None:
        """Remove what a killed process left half written; call it when no other one writes here."""
        for path in [*self.folder.glob(".*"), *self.folder.glob("checkpoints/.*")]:
            if not (match := re.fullmatch(r"\.(.+)\.(partial|old)-\d+", path.name)):
                continue
            whole = path.with_name(match[1])
            if match[2] == "old" and not whole.exists():  # killed between two renames
                path.rename(whole)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a line to `metrics.jsonl`, and call `on_log`."""
        self._append("metrics.jsonl", {"step": step, "kind": kind, **values})
        if self.on_log is not None:
            self.on_log(step, kind, values)

    def log_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        for sample in samples:
            self._append("samples.jsonl", {"step": step, **sample})

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with writing(self.folder), (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return all lines of `metrics.jsonl`, oldest first."""
        return read_metrics(self.folder / "metrics.jsonl")

    def save_checkpoint(
        self, name: str, state: Mapping[str, Any], save: Callable[[Path], str | None]
    ) -> Path:
        """Let `save(folder)` write a checkpoint, add `state` to it, and return the folder.

        The state keeps a reference that is not the folder (a service's URI) as `weights`.
        """
        folder = self.folder / "checkpoints" / name
        with writing(folder), whole_folder(folder) as partial:
            ref = save(partial)
            elsewhere = {} if ref in (None, str(partial)) else {"weights": ref}
            noted = {**state, **elsewhere, "experiment": self.experiment.model_dump()}
            noted["manifest"] = MANIFEST
            write_json(partial / "state.json", noted)
            write_json(partial / MANIFEST, checkpoint_files(partial))
        return folder

    def checkpoints(self) -> list[str]:
        """Return the names of the complete checkpoints, by step."""
        found = [path.parent.name for path in self.folder.glob("checkpoints/[!.]*/state.json")]
        steps = {name: int(match[1]) for name in found if (match := STEP.fullmatch(name))}
        return sorted(found, key=lambda name: (name not in steps, steps.get(name, 0), name))

    def checkpoint(self, name: str | None = None) -> Path:
        """Return a checkpoint folder; by default the final, else the best, else the latest one."""
        names = self.checkpoints()
        if name is None:
            name = next((each for each in (FINAL, BEST, *reversed(names)) if each in names), "")
        if name not in names:
            known = f"it has {', '.join(names) or 'none: it was never saved'}"
            near = nearest(name, names)
            raise RunError(f"{self.folder} has no checkpoint {name!r}{near}; {known}")
        return self.folder / "checkpoints" / name

    def whole_checkpoint(self, name: str | None = None, resumes: bool = False) -> Path:
        """Return a checkpoint folder as `checkpoint` does; a damaged one is a `RunError`, and where
        the run resumes one of another run."""
        folder = self.checkpoint(name)
        if (fault := self.fault(folder) if resumes else changed_file(folder)) is not None:
            known = ", ".join(self.checkpoints())
            raise RunError(f"{folder} cannot be used: {fault}; name another one of {known}")
        return folder

    def latest(
        self, name: str | None = None, report: Callable[[str], None] = lambda _: None
    ) -> Path | None:
        """Return the checkpoint to resume from: `name`, or the highest step that is whole.

        Reports each damaged one. Raises `RunError` when none is whole; None where none exists.
        """
        if name is not None:
            return self.whole_checkpoint(name, resumes=True)
        steps = list(filter(STEP.fullmatch, self.checkpoints()))
        for folder in (self.folder / "checkpoints" / each for each in reversed(steps)):
            if (fault := self.fault(folder)) is None:
                return folder
            report(f"{folder} is not used: {fault}")
        if steps:
            right = "put its files back, or train into another folder"
            raise RunError(f"{self.folder} has no checkpoint that is whole; {right}")
        return None

    def fault(self, checkpoint: Path) -> str | None:
        """Tell what is wrong with a checkpoint: damaged, mixed from two, or of another run."""
        try:
            return changed_file(checkpoint) or self._foreign_section(checkpoint)
        except UserError as error:  # its state.json or its manifest cannot be read
            return str(error)

    def _foreign_section(self, checkpoint: Path) -> str | None:
        plan = self.state(checkpoint).get("experiment")
        if plan is not None:
            other = stored_experiment(plan, str(self.folder / "experiment.json"))
            differ = [
                name for name in KEPT if getattr(other, name) != getattr(self.experiment, name)
            ]
            if differ:
                return f"it belongs to another run ({', '.join(differ)} of its experiment differ)"
        return None

    def state(self, checkpoint: Path) -> dict[str, Any]:
        """Return the step of a checkpoint, and what the algorithm keeps."""
        return read_json(checkpoint / "state.json")

    def weights(self, checkpoint: Path) -> str:
        """The trainer's reference to the weights of a checkpoint."""
        return str(self.state(checkpoint).get("weights", checkpoint))

    def cut_back(self, step: int) -> None:
        """Remove what was logged after `step`, a last line that was cut off, and the samples of a
        validation that did not end. Checkpoints of later steps, from which the run would be
        resumed the next time, move to `RUN/abandoned`."""
        for name in filter(STEP.fullmatch, self.checkpoints()):
            if int(name.rpartition("_")[2]) > step:
                aside, number = self.folder / "abandoned" / name, 1
                while aside.exists():
                    aside, number = aside.with_name(f"{name}.{number + 1}"), number + 1
                aside.parent.mkdir(exist_ok=True)
                (self.folder / "checkpoints" / name).rename(aside)
                to_stderr(f"the run resumes at step {step}: {name} is moved to {aside}")
        validated: set[int] = set()
        names = ("metrics.jsonl", "samples.jsonl")
        for path in (self.folder / name for name in names if (self.folder / name).exists()):
            kept, odd = [], []
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            for number, line in enumerate(lines, 1):
                try:
                    value = json.loads(line or "null")
                    at, kind = value["step"], value.get("kind")
                    validated |= {at} if kind == "validation" else set()
                    whole = kind or "scores" not in value or at in validated
                    kept += [f"{line}\n"] if at <= step and whole else []
                except (ValueError, KeyError, TypeError):
                    odd += [number] if line else []
            if odd:
                to_stderr(f"{path}: {len(odd)} unreadable lines left out, the first is {odd[0]}")
            with writing(path):
                write_text(path, "".join(kept))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a run wrote."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} must hold a JSON object, it holds {type(value).__name__}")
    return value


def changed_file(checkpoint: Path) -> str | None:
    """Tell which file of a checkpoint is missing, damaged, or of another one."""
    path = checkpoint / MANIFEST
    if not path.is_file():
        named = "manifest" in read_json(checkpoint / "state.json")
        return f"{MANIFEST} is missing" if named else None
    listed, found = read_json(path), checkpoint_files(checkpoint)
    for name, saved in listed.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != saved:
            return f"{name} is not the file of {MANIFEST}: it was {saved}, it is {found[name]}"
    added = next((name for name in found if name not in listed and name.endswith(WEIGHTS)), None)
    return None if added is None else f"{added} is not in {MANIFEST}"


def checkpoint_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file of a checkpoint but its manifest, by name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            name = path.relative_to(folder).as_posix()
            found[name] = {"bytes": path.stat().st_size, "sha256": digest}
    return found


def read_metrics(
    path: Path, report: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Read the lines of a metrics file; report and leave out a last line that was cut off."""
    if not path.is_file():
        raise RunError(f"no such file: {path}; give a run folder or a metrics.jsonl file")
    lines, text = [], path.read_text(encoding="utf-8", errors="replace")
    *whole, torn = text.split("\n")
    for number, line in enumerate([*whole, torn] if torn else whole, 1):
        where = f"{path}, line {number}:"
        try:
            value = json.loads(line)
        except ValueError as error:
            if number > len(whole):
                report(f"{where} cut off, left out")
                break
            raise RunError(f"{where} not JSON: {error}") from None
        known = isinstance(value, dict) and isinstance(value.get("step"), int)
        if not known or "kind" not in value:
            raise RunError(f"{where} expected an object with 'step' and 'kind', got {line:.60}")
        lines.append(value)
    return lines


MAX_DEPTH = 50
"""Values nested deeper are written as text."""


def plain(value: Json, depth: int = 0) -> Json:
    """The value as strict JSON can hold it; what it cannot hold becomes text."""
    if isinstance(value, str):
        return _plain_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return value if value.bit_length() < 10_000 else f"(a number of {value.bit_length()} bits)"
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return _plain_text(repr(value))
    if depth >= MAX_DEPTH:
        return "(nested too deeply)"
    if isinstance(value, Mapping):
        return {_plain_text(str(key)): plain(inner, depth + 1) for key, inner in value.items()}
    return [plain(inner, depth + 1) for inner in value]


def _plain_text(text: str) -> str:
    """Text with lone surrogates, which UTF-8 cannot encode, as `\\udXXX`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, with the line ends of the text."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `folder` on success; otherwise `folder` does not change."""
    kinds = ("partial", "old")
    partial, old = (folder.with_name(f".{folder.name}.{kind}-{os.getpid()}") for kind in kinds)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn the errors of a full or read-only disk into a `RunError`; others pass."""
    try:
        yield
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error)
        # torch and safetensors have error types of their own for a failed write
        known = r"No space left|File too large|I/O error|failed writing|unexpected pos"
        if not isinstance(error, OSError) and not re.search(known, reason):
            raise
        wrong = f"{place} could not be written: {reason.splitlines()[0]:.120}"
        raise RunError(f"{wrong}; earlier files are complete") from None


def environment() -> dict[str, Any]:
    """Return versions, machine and git state, which is None outside a repository."""
    versions: dict[str, str] = {}
    git: dict[str, Any] | None = None
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit, changes = (
            subprocess.run(
                ["git", *words], capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
        git = {"commit": commit, "dirty": bool(changes)}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "packages": versions,
        "git": git,
        "command": sys.argv,
    }
