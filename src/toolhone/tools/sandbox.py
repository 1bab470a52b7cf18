"""A place where Python written by a model may run: time, memory and recursion are limited, and nothing outside can be reached.

    with Sandbox() as sandbox:
        sandbox.run("x = 6\\nx * 7")    # SandboxResult(outcome=OK, value=42, text="42", ...)

The interpreter is Monty (`pydantic-monty`), written in Rust, in worker processes. Each run has a fresh session; a worker that does
not answer `GRACE` seconds after its limit is killed and replaced. Workers start at the first run, are used again, and end with
`close()`, with the object or with the process.

Covered: endless loops, memory and output floods, deep recursion, sources and patterns made to be slow, huge integers; files,
network, environment, other processes (the interpreter has no code for them; sleeping takes no time). The calling process reads
nothing of a program but text that is already cut to size: it neither parses the source nor builds the values. (A Python set of
100,000 integers of equal hash, returned as an object, would stop it for a minute.)

Not covered: the worker is an ordinary process of the same user with the same environment variables, so a bug in Monty that lets a
program write into the worker's memory is not contained. This is made for the mistakes and tricks of a model in training, not for an
attacker who studies the interpreter. When the calling process ends while a program runs, the worker ends at its own time limit or,
in the middle of one long step (a huge division), after that step; on Linux a limit on its processor time ends it within minutes. A
worker that dies for memory writes one line on stderr. The language is a subset of Python: no `yield`, no `del`, no inheritance, no
third-party modules. The clock is the machine's; `random` is seeded with 0. A process forked after the first run is refused, because
the threads that serve the workers do not survive a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from functools import cache

import pydantic_monty as monty

from toolhone.errors import CapabilityError, ConfigError
from toolhone.schema import Json
from toolhone.tools.result import ToolStatus, truncate

if sys.platform == "linux":
    import resource

GRACE = 0.25
"""Seconds between a worker's own time limit and its end by force."""
WORKERS = max(4, os.cpu_count() or 1)
"""Default number of workers."""
MAX_SOURCE = 20_000
"""Longest program in characters."""
_SPLIT_SECONDS = 0.25
_CHECKOUTS_PER_WORKER = 100

_SPLIT = """
def parses(text):
    try:
        exec("raise KeyError\\n" + text)
    except KeyError:
        return True
    except Exception:
        return False

def last_simple(text):
    if parses("if 0: " + text):
        for j in range(len(text) - 1, -1, -1):
            if text[j] == ";" and not parses(text[:j] + ")") and parses(text[:j]) and parses("if 0: " + text[j + 1:].lstrip()):
                return j + 1
    return 0

def last_expression(source):
    lines = source.split("\\n")
    for k in range(len(lines) - 1, -1, -1):
        if not lines[k].strip() or lines[k][0] in " \\t#)]}" or (k and lines[k - 1].endswith("\\\\")):
            continue
        head, tail = "\\n".join(lines[:k]), "\\n".join(lines[k:])
        if parses(tail) and parses(head):
            start = last_simple(tail)
            return (len(head) + (k > 0) + start) if parses("(" + tail[start:] + "\\n)") else -1
    return -1

last_expression(source)
"""
"""Runs in the sandbox: where the expression begins with which `source` ends, or -1. `exec` compiles before it raises."""

_SHOW = """
if NAME is not None:
    import json as NAME_json
    try:
        NAME_text = f"{NAME_json.dumps(NAME, allow_nan=False)}"[:LIMIT]
    except (TypeError, ValueError, RecursionError):
        NAME_text = ""
    NAME_send(NAME_text, f"{NAME!r}"[:LIMIT])
"""
"""Follows the program in the sandbox. What is sent is short text: f-strings and slices cannot be redefined by the program."""


@dataclass(frozen=True)
class Limits:
    """What one run may use: wall-clock seconds, MiB of memory, depth of calls, characters kept of its output and of its value."""

    seconds: float = 1.0
    memory_mb: int = 64
    recursion: int = 200
    output_chars: int = 4000

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_mb", "recursion", "output_chars"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"a sandbox needs a {name!r} above 0, got {getattr(self, name)!r}"
                )


@dataclass(frozen=True)
class SandboxResult:
    """How a program ended (OK, ERROR or TIMEOUT), and what it left.

    `value` is the value of the expression with which the program ends: as JSON where that has at most `Limits.output_chars`
    characters, otherwise its `repr`, cut; None when there is none. `text` is its `repr`, cut. `stdout` is what was printed to
    either stream, cut with a visible mark. `error` is one line. `seconds` is wall-clock time, waiting for a free worker included.
    """

    outcome: ToolStatus
    value: Json = None
    text: str = ""
    stdout: str = ""
    error: str = ""
    seconds: float = 0.0


class Sandbox:
    """Runs programs; any thread may call `run`. At most `workers` processes live at once, one program in each; further runs wait.

    workers: 0 is one per core and at least four (a program that hangs holds its worker until its time limit).
    """

    def __init__(self, limits: Limits | None = None, workers: int = 0) -> None:
        self.limits = limits or Limits()
        self._workers = workers
        self._lock = threading.Lock()
        self._pool: monty.Monty | None = None
        self._close: weakref.finalize[[monty.Monty], Sandbox] | None = None

    def run(self, code: str) -> SandboxResult:
        """Run a program. Whatever it does is told by the result; `CapabilityError` means that no program can run here."""
        started = time.perf_counter()
        if len(code) > MAX_SOURCE:
            error = f"SyntaxError: the program has {len(code):,} characters; at most {MAX_SOURCE:,} are run"
            return SandboxResult(ToolStatus.ERROR, error=error)
        pool = self._started()
        code = code.rstrip().rstrip(";")
        return self._run(pool, code, self._last_expression(pool, code), started)

    def close(self) -> None:
        """End the workers. A later `run` starts new ones."""
        with self._lock:
            if self._close is not None:
                self._close()
            self._pool = self._close = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> monty.Monty:
        if _home() != os.getpid():
            raise CapabilityError(
                "the sandbox does not work in a process forked after its first use: start processes with the method 'spawn'"
            )
        with self._lock:
            if self._pool is None:
                self._pool = _open_pool(self.limits.seconds + GRACE, self._workers)
                self._close = weakref.finalize(self, _end_pool, self._pool)
            return self._pool

    def _last_expression(self, pool: monty.Monty, code: str) -> int:
        try:
            with pool.checkout(limits=self._resources(_SPLIT_SECONDS)) as session:
                return int(
                    session.feed_run(_SPLIT, inputs={"source": code}, print_callback=_Printed(0))
                )
        except monty.MontyError:
            return -1

    def _run(self, pool: monty.Monty, code: str, split: int, started: float) -> SandboxResult:
        printed, sent, name = (
            _Printed(self.limits.output_chars),
            _Sent(),
            f"_{secrets.token_hex(8)}",
        )
        outcome, error = ToolStatus.OK, ""
        try:
            with pool.checkout(
                limits=self._resources(self.limits.seconds), os_policy=_POLICY
            ) as session:
                _bound_cpu(session.worker_pid, self.limits.seconds)
                program = _with_value_sent(code, split, name, self.limits.output_chars + 1)
                session.feed_run(
                    program, external_lookup={f"{name}_send": sent}, print_callback=printed
                )
        except monty.MontyError as caught:
            outcome, error = _how_it_ended(caught, code.count("\n") + 1, self.limits)
        value, text = (
            sent.value(self.limits.output_chars) if outcome is ToolStatus.OK else (None, "")
        )
        return SandboxResult(
            outcome, value, text, printed.text(), error, time.perf_counter() - started
        )

    def _resources(self, seconds: float) -> dict[str, float]:
        return {
            "max_feed_duration_secs": seconds,
            "max_memory": self.limits.memory_mb * 2**20,
            "max_recursion_depth": self.limits.recursion,
        }


@cache
def shared_sandbox() -> Sandbox:
    """The sandbox with the default limits that the built-in tools share; its workers start at the first run."""
    return Sandbox()


_POLICY = {"sleep": "zero", "random_start": {"seed": 0}}


@cache
def _home() -> int:
    """The process in which a sandbox was used first."""
    return os.getpid()


def _open_pool(deadline: float, workers: int) -> monty.Monty:
    pool = monty.Monty(
        max_processes=workers or WORKERS,
        request_timeout=deadline,
        max_checkouts_per_worker=_CHECKOUTS_PER_WORKER,
        feed_duration_limit_grace=GRACE,
    )
    try:
        return pool.__enter__()
    except (RuntimeError, OSError, monty.MontyError) as error:
        raise CapabilityError(
            f"the sandbox's worker cannot be started: {error}; install `pydantic-monty` again"
        ) from None


def _end_pool(pool: monty.Monty) -> None:
    if _home() == os.getpid():
        pool.__exit__(None, None, None)
    else:  # a forked copy: it must never be freed, for that would kill the workers of the process it was copied from
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(pool))


def _bound_cpu(worker: int | None, seconds: float) -> None:
    """Bound the processor time of a worker by what all its runs may take together, so that none outlives its parent for long."""
    if sys.platform == "linux" and worker is not None:
        total = int(_CHECKOUTS_PER_WORKER * (seconds + GRACE)) + 1
        with contextlib.suppress(OSError):
            resource.prlimit(worker, resource.RLIMIT_CPU, (total, total))


class _Printed:
    """Keeps the first `keep` characters printed and counts the others."""

    def __init__(self, keep: int) -> None:
        self._keep, self._total = keep, 0
        self._parts: list[str] = []

    def __call__(self, _stream: str, text: str) -> None:
        if self._total < self._keep:
            self._parts.append(text[: self._keep - self._total])
        self._total += len(text)

    def text(self) -> str:
        return truncate("".join(self._parts), self._keep, self._total)


class _Sent:
    """Receives the texts of the program's value: JSON ("" where it has none) and `repr`."""

    def __init__(self) -> None:
        self._json = self._repr = ""

    def __call__(self, as_json: str, as_repr: str) -> None:
        self._json, self._repr = as_json, as_repr

    def value(self, limit: int) -> tuple[Json, str]:
        text = self._repr if len(self._repr) <= limit else self._repr[: limit - 1] + "…"
        if not self._json:
            return text or None, text
        try:
            return (json.loads(self._json) if len(self._json) <= limit else text), text
        except (ValueError, RecursionError):
            return text, text


def _with_value_sent(code: str, split: int, name: str, limit: int) -> str:
    if split < 0:
        return f"{code}\nNone"
    show = _SHOW.replace("NAME", name).replace("LIMIT", str(limit))
    return f"{code[:split]}{name} = ({code[split:].lstrip()}\n)\n{show}"


def _how_it_ended(error: monty.MontyError, lines: int, limits: Limits) -> tuple[ToolStatus, str]:
    if isinstance(error, monty.MontyCrashedError):
        if error.timed_out:
            return (
                ToolStatus.TIMEOUT,
                f"TimeoutError: the program ran longer than {limits.seconds:g} s",
            )
        return ToolStatus.ERROR, f"RuntimeError: the program broke the interpreter ({error})"
    text = " ".join(error.display("type-msg").split())
    if text.startswith("TimeoutError: feed time limit exceeded"):
        return ToolStatus.TIMEOUT, f"TimeoutError: the program ran longer than {limits.seconds:g} s"
    if text.startswith("MemoryError: "):
        text = f"MemoryError: the program needed more than {limits.memory_mb} MB"
    frames = [
        frame.line for frame in error.traceback() if frame.filename.startswith("<python-input")
    ]
    where = f" (line {frames[-1]})" if frames and frames[-1] <= lines else ""
    return ToolStatus.ERROR, truncate(text, 500) + where
