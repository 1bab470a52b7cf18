"""What this machine offers to Toolhone: versions, devices, extras, folders, the sandbox; and what to do about what is missing.

    for finding in look():
        print(finding.what, finding.state, finding.found, finding.advice)

Takes a few seconds, most of them torch's. Which packages are needed, and in which version, is read from the installed package. The
network is not touched: whether the hub can be reached is not tried, only what the environment says of it. Of keys is said whether
they are set, never what they are.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from toolhone.errors import UserError
from toolhone.tools.sandbox import Sandbox

GIB = 2**30
LITTLE_SPACE, NO_SPACE = 5 * GIB, GIB // 10
"""Free bytes below which a checkpoint of a small open model may not fit, and below which not even one of pico."""
FOR_DEVELOPERS = ("dev", "bench")
OLDEST_PYTHON = (3, 11)


class CheckState(StrEnum):
    """How it stands."""

    OK = "ok"
    NOTE = "note"
    """Not there, or worth knowing; `advice` says what for."""
    BROKEN = "broken"
    """Needed, and not usable."""


@dataclass(frozen=True)
class EnvFinding:
    """One thing that was looked at; `advice` says what to do where it is not OK."""

    what: str
    state: CheckState
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        return {
            "what": self.what,
            "state": self.state.value,
            "found": self.found,
            "advice": self.advice,
        }


def look() -> Iterator[EnvFinding]:
    """Look at everything, one after the other."""
    yield _python()
    requirements = _requirements()
    if requirements is None:
        yield EnvFinding(
            "toolhone",
            CheckState.BROKEN,
            "not installed as a package",
            "python -m pip install --editable . in its folder",
        )
    else:
        yield EnvFinding("toolhone", CheckState.OK, metadata.version("toolhone"))
        yield from (
            _package(requirement) for requirement in requirements if requirement.marker is None
        )
    yield _processor()
    yield from _accelerators()
    yield from _extras(requirements or [])
    yield from _folders()
    yield _hub()
    yield _sandbox()


def _python() -> EnvFinding:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info >= OLDEST_PYTHON:
        return EnvFinding("python", CheckState.OK, found)
    return EnvFinding(
        "python",
        CheckState.BROKEN,
        found,
        f"Toolhone needs Python {'.'.join(map(str, OLDEST_PYTHON))} or newer",
    )


def _requirements() -> list[Requirement] | None:
    """What the installed package says that it needs; None when it is not installed."""
    try:
        return [Requirement(text) for text in metadata.requires("toolhone") or []]
    except metadata.PackageNotFoundError:
        return None


def _package(requirement: Requirement) -> EnvFinding:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return EnvFinding(
            requirement.name,
            CheckState.BROKEN,
            "not installed",
            f"python -m pip install '{requirement.name}{requirement.specifier}'",
        )
    if requirement.specifier.contains(version, prereleases=True):
        return EnvFinding(requirement.name, CheckState.OK, version)
    advice = f"python -m pip install '{requirement.name}{requirement.specifier}'"
    return EnvFinding(
        requirement.name, CheckState.BROKEN, f"{version}, wanted {requirement.specifier}", advice
    )


def _processor() -> EnvFinding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = _memory()
    threads = os.environ.get("OMP_NUM_THREADS")
    parts = [
        platform.machine(),
        f"{cores} cores",
        f"{memory / GIB:.0f} GiB of memory" if memory else "memory unknown",
    ]
    return EnvFinding(
        "processor",
        CheckState.OK,
        ", ".join([*parts, *([f"OMP_NUM_THREADS={threads}"] if threads else [])]),
    )


def _memory() -> int:
    """Bytes of memory; 0 where the system does not say."""
    if not hasattr(os, "sysconf"):
        return 0
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _accelerators() -> Iterator[EnvFinding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield EnvFinding(
            "torch",
            CheckState.BROKEN,
            f"cannot be imported: {error}",
            "install torch anew: python -m pip install --force-reinstall torch",
        )
        return
    yield from _cuda(torch)
    if platform.system() == "Darwin":
        there = torch.backends.mps.is_available()
        advice = (
            ""
            if there
            else "needs Apple silicon and macOS 12.3 or newer; training runs on the processor"
        )
        yield EnvFinding(
            "Apple GPU (MPS)",
            CheckState.OK if there else CheckState.NOTE,
            "usable" if there else "not usable",
            advice,
        )


def _cuda(torch: Any) -> Iterator[EnvFinding]:
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(index)
        yield EnvFinding(
            f"cuda:{index}",
            CheckState.OK,
            f"{card.name}, {card.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}",
        )
    if torch.cuda.is_available():
        return
    if torch.version.cuda is None and shutil.which("nvidia-smi"):
        found, advice = (
            "a driver is there, but torch is a build without CUDA",
            "install torch's CUDA build for larger models",
        )
    elif torch.version.cuda is None:
        found, advice = (
            "no card (torch is a build without CUDA)",
            "pico and small models train on the processor; larger ones want a card",
        )
    else:
        found, advice = (
            "no usable card",
            "look at nvidia-smi: driver and card; pico and small models train on the processor",
        )
    yield EnvFinding("CUDA", CheckState.NOTE, found, advice)


def _extras(requirements: Sequence[Requirement]) -> Iterator[EnvFinding]:
    """Each extra of the package: what of it is installed, and how to get the rest."""
    names = metadata.metadata("toolhone").get_all("Provides-Extra") or [] if requirements else []
    for name in (name for name in names if name not in FOR_DEVELOPERS):
        wanted = [r.name for r in requirements if r.marker and r.marker.evaluate({"extra": name})]
        missing = [package for package in wanted if not _is_installed(package)]
        there = [
            f"{package} {metadata.version(package)}" for package in wanted if package not in missing
        ]
        found = "; ".join(
            [
                *([", ".join(there)] if there else []),
                *([f"not installed: {', '.join(missing)}"] if missing else []),
            ]
        )
        advice = f"if wanted: python -m pip install 'toolhone[{name}]'" if missing else ""
        yield EnvFinding(
            f"extra {name}", CheckState.NOTE if missing else CheckState.OK, found, advice
        )


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _folders() -> Iterator[EnvFinding]:
    """Where things are written: runs, and the cache of the embedded model."""
    cache = Path(os.environ.get("TOOLHONE_CACHE") or Path.home() / ".cache" / "toolhone")
    made = len(list(cache.glob("pico-*"))) if cache.is_dir() else 0
    yield _folder(
        "folder for runs",
        Path.cwd() / "runs",
        "",
        "go to a folder of your own, or name one with --out",
    )
    note = ", pico is there" if made else ", pico is made at its first use (seconds)"
    yield _folder("cache", cache, note, "name a folder in TOOLHONE_CACHE")


def _folder(what: str, folder: Path, note: str, advice: str) -> EnvFinding:
    """Whether a folder (which need not exist yet) can be written to, and how much room there is."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        return EnvFinding(what, CheckState.BROKEN, f"{folder} cannot be written", advice)
    free = shutil.disk_usage(place).free
    found = f"{folder}, {free / GIB:.1f} GiB free{note}"
    if free < NO_SPACE:
        return EnvFinding(what, CheckState.BROKEN, found, f"make room, or {advice}")
    if free < LITTLE_SPACE:
        return EnvFinding(
            what,
            CheckState.NOTE,
            found,
            "enough for pico; a checkpoint of a small open model takes some GiB",
        )
    return EnvFinding(what, CheckState.OK, found)


def _hub() -> EnvFinding:
    """What the environment says about the model hub; nothing is asked of it."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    models = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "no HF_TOKEN"
    found = f"{'offline (HF_HUB_OFFLINE)' if offline else 'allowed, not tried'}; {token}; {models} models in {cache}"
    advice = (
        "only models in that cache and in folders can be opened; unset HF_HUB_OFFLINE to fetch others"
        if offline
        else ""
    )
    return EnvFinding("model hub", CheckState.NOTE if offline else CheckState.OK, found, advice)


def _sandbox() -> EnvFinding:
    try:
        with Sandbox(workers=1) as sandbox:
            result = sandbox.run("6 * 7")
    except UserError as error:
        return EnvFinding(
            "sandbox", CheckState.BROKEN, f"does not start: {error}", "install pydantic-monty anew"
        )
    if result.value == 42:
        return EnvFinding(
            "sandbox", CheckState.OK, f"runs programs ({1000 * result.seconds:.0f} ms)"
        )
    return EnvFinding(
        "sandbox",
        CheckState.BROKEN,
        f"6 * 7 ended as {result.outcome}: {result.error}",
        "install pydantic-monty anew",
    )
