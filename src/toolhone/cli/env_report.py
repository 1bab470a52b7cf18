"""`toolhone check`: what is installed, what this machine offers, and what to do about what is
missing.

Takes a few seconds, most of them torch's. It never opens a network connection, and never shows the
value of a key."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from toolhone.cli.flags import AsJson

app = typer.Typer(rich_markup_mode=None)
GIB = 2**30
LITTLE_SPACE, NO_SPACE = 5 * GIB, GIB // 10
"""Free bytes below which a checkpoint of a small open model may not fit, and below which not even
one of pico."""
FOR_DEVELOPERS = ("dev", "peers")
OLDEST_PYTHON = (3, 11)
_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+(?:\[.*?\])?)(?:[^;]*?>=(?P<least>[\d.]+))?"
    r"(?:.*sys_platform == .(?P<system>\w+))?(?:.*extra == .(?P<extra>[\w-]+))?"
)


class CheckState(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Missing, or worth knowing; `advice` says what for."""
    BROKEN = "broken"
    """Needed, and not usable."""


OK, NOTE, BROKEN = CheckState
STYLES = {OK: "green", NOTE: "yellow", BROKEN: "bold red"}


@dataclass(frozen=True)
class EnvFinding:
    """One finding; `advice` says what to do where the state is not OK."""

    what: str
    state: CheckState
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


@app.command(epilog="Examples: toolhone check   |   toolhone check --json")
def check(as_json: AsJson = False) -> None:
    """Check versions, devices, extras, folders and the sandbox; exit code 1 when something that is
    needed is broken."""
    findings = list(look())
    broken = [finding.what for finding in findings if finding.state is BROKEN]
    if as_json:
        found = [finding.to_dict() for finding in findings]
        print(json.dumps({"ok": not broken, "findings": found}))
    else:
        from rich.text import Text

        from toolhone.cli.console import print_table

        rows = [
            (each.what, Text(each.state.value, STYLES[each.state]), each.found, each.advice)
            for each in findings
        ]
        print_table(("what", "", "found", "what to do"), rows)
        print(
            f"broken: {', '.join(broken)}; the last column says what to do"
            if broken
            else "Everything that is needed is there. Next: toolhone demo   or   toolhone examples"
        )
    if broken:
        raise typer.Exit(1)


def look() -> Iterator[EnvFinding]:
    """Check everything, one thing after the other."""
    for find in (python, packages, processor, accelerators, extras, folders, model_hub, sandbox):
        for finding in find():
            yield replace(finding, advice="") if finding.state is OK else finding


def python() -> Iterator[EnvFinding]:
    state = OK if sys.version_info >= OLDEST_PYTHON else BROKEN
    advice = f"Toolhone needs Python {'.'.join(map(str, OLDEST_PYTHON))} or newer"
    yield EnvFinding("python", state, f"{platform.python_version()} ({sys.executable})", advice)


def _requirements() -> list[re.Match[str]]:
    """Read the requirements of the installed package on this system; raise PackageNotFoundError
    without one."""
    return [
        found
        for text in metadata.requires("toolhone") or []
        if (found := _REQUIREMENT.match(text)) and found["system"] in (None, sys.platform)
    ]


def packages() -> Iterator[EnvFinding]:
    """Check Toolhone itself, and every package that it needs."""
    try:
        needed = [requirement for requirement in _requirements() if not requirement["extra"]]
    except metadata.PackageNotFoundError:
        clone = Path(__file__).resolve().parents[3]
        advice = f"python -m pip install --editable {clone}"
        yield EnvFinding("toolhone", BROKEN, "not installed as a package", advice)
        return
    yield EnvFinding("toolhone", OK, metadata.version("toolhone"))
    for name, least in (requirement.group("name", "least") for requirement in needed):
        version = _version(name)
        advice = _install({name: least})
        old = least and _numbers(version or "") < _numbers(least)
        state = BROKEN if version is None or old else OK
        found = "not installed" if version is None else f"{version}, wanted >={least}"
        yield EnvFinding(name, state, found if state is BROKEN else str(version), advice)


def _install(packages: Mapping[str, str | None]) -> str:
    """Return the command that installs packages, from a clone and from a wheel alike."""
    texts = [f"'{name}>={least}'" if least else name for name, least in packages.items()]
    return f"python -m pip install {' '.join(texts)}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package.partition("[")[0])
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> list[int]:
    """Return the numbers of a release: [2, 13, 0] of "2.13.0+cpu"."""
    found = re.match(r"\d+(\.\d+)*", version)
    return [int(number) for number in found[0].split(".")] if found else []


def processor() -> Iterator[EnvFinding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = 0
    size = f"{memory / GIB:.0f} GiB of memory" if memory else "memory unknown"
    threads = os.environ.get("OMP_NUM_THREADS")
    parts = [platform.machine(), f"{cores} cores", size]
    parts += [f"OMP_NUM_THREADS={threads}"] if threads else []
    yield EnvFinding("processor", OK, ", ".join(parts))


def accelerators() -> Iterator[EnvFinding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        advice = "install torch again: python -m pip install --force-reinstall torch"
        yield EnvFinding("torch", BROKEN, f"cannot be imported: {error}", advice)
        return
    yield from cuda(torch)
    if platform.system() == "Darwin":
        usable = torch.backends.mps.is_available()
        advice = "needs Apple silicon and macOS 12.3 or newer; training runs on the processor"
        state, found = (OK, "usable") if usable else (NOTE, "not usable")
        yield EnvFinding("Apple GPU (MPS)", state, found, advice)


def cuda(torch: Any) -> Iterator[EnvFinding]:
    """Check the cards that torch can use."""
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(index)
        found = f"{card.name}, {card.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}"
        yield EnvFinding(f"cuda:{index}", OK, found)
    if torch.cuda.is_available():
        return
    if torch.version.cuda is not None:
        found = "no usable card"
        advice = "look at nvidia-smi: driver and card; pico and small models train on the processor"
    elif shutil.which("nvidia-smi"):
        found = "a driver is there, but torch is a build without CUDA"
        advice = "install torch's CUDA build for larger models"
    else:
        found = "no card (torch is a build without CUDA)"
        advice = "pico and small models train on the processor; larger ones need a card"
    yield EnvFinding("CUDA", NOTE, found, advice)


def extras() -> Iterator[EnvFinding]:
    """Check for each extra which of its packages are installed."""
    try:
        requirements = _requirements()
    except metadata.PackageNotFoundError:
        return
    for extra in metadata.metadata("toolhone").get_all("Provides-Extra") or []:
        if extra in FOR_DEVELOPERS:
            continue
        wanted = {each["name"]: each["least"] for each in requirements if each["extra"] == extra}
        missing = [name for name in wanted if _version(name) is None]
        there = ", ".join(f"{name} {_version(name)}" for name in wanted if name not in missing)
        absent = f"not installed: {', '.join(missing)}" if missing else ""
        advice = f"if wanted: {_install({name: wanted[name] for name in missing})}"
        found = "; ".join(filter(None, (there, absent)))
        yield EnvFinding(f"extra {extra}", NOTE if missing else OK, found, advice)


def folders() -> Iterator[EnvFinding]:
    """Check the folders that are written to: runs, and the cache of the embedded model."""
    advice = "go to a folder of your own, or name one with --out"
    yield _folder("folder for runs", Path.cwd() / "runs", "", advice)
    cache = Path(os.environ.get("TOOLHONE_CACHE") or Path.home() / ".cache" / "toolhone")
    has_pico = cache.is_dir() and any(cache.glob("pico-*"))
    note = ", pico is there" if has_pico else ", pico is created at its first use (seconds)"
    yield _folder("cache", cache, note, "name a folder in TOOLHONE_CACHE")


def _folder(what: str, folder: Path, note: str, advice: str) -> EnvFinding:
    """Check that a folder (which need not exist yet) is writable and has free space."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        return EnvFinding(what, BROKEN, f"{folder} cannot be written", advice)
    free = shutil.disk_usage(place).free
    found = f"{folder}, {free / GIB:.1f} GiB free{note}"
    if free < NO_SPACE:
        return EnvFinding(what, BROKEN, found, f"free some space, or {advice}")
    state = NOTE if free < LITTLE_SPACE else OK
    advice = "enough for pico; a checkpoint of a small open model takes some GiB"
    return EnvFinding(what, state, found, advice)


def model_hub() -> Iterator[EnvFinding]:
    """Report what the environment says about the model hub, without a request to it."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    models = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "no HF_TOKEN"
    found = f"{'offline (HF_HUB_OFFLINE)' if offline else 'allowed, not tried'}; {token}"
    found += f"; {models} model{'' if models == 1 else 's'} in {cache}"
    advice = (
        "only models in that cache and in folders open; unset HF_HUB_OFFLINE to download others"
    )
    yield EnvFinding("model hub", NOTE if offline else OK, found, advice)


def sandbox() -> Iterator[EnvFinding]:
    """Run a program in the sandbox."""
    from toolhone.errors import UserError
    from toolhone.tools.sandbox import Sandbox

    state = BROKEN
    try:
        with Sandbox(workers=1) as opened:
            result = opened.run("6 * 7")
        found = f"6 * 7 ended as {result.outcome}: {result.error}"
        if result.value == 42:
            state, found = OK, f"runs programs ({1000 * result.seconds:.0f} ms)"
    except (UserError, OSError) as error:
        found = f"does not start: {error}"
    yield EnvFinding("sandbox", state, found, "install pydantic-monty again")
