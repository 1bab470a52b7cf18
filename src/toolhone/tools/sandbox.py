"""Runs Python written by a model, with limits on time, memory and recursion and no access to files
or network.

    with Sandbox() as sandbox:
        sandbox.run("x = 6\\nx * 7")    # SandboxResult(outcome=OK, value=42, text="42", ...)

The interpreter is Monty (`pydantic-monty`), a subset of Python in Rust, in worker processes. A bug
in Monty that lets a program write into the worker's memory is not contained.
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
            head, tail = text[:j], "if 0: " + text[j + 1:].lstrip()
            if text[j] == ";" and not parses(head + ")") and parses(head) and parses(tail):
                return j + 1
    return 0

def last_expression(source):
    lines = source.split("\\n")
    for k in range(len(lines) - 1, -1, -1):
        continued = k and lines[k - 1].endswith("\\\\")
        if not lines[k].strip() or lines[k][0] in " \\t#)]}" or continued:
            continue
        head, tail = "\\n".join(lines[:k]), "\\n".join(lines[k:])
        if parses(tail) and parses(head):
            start = last_simple(tail)
            return (len(head) + (k > 0) + start) if parses("(" + tail[start:] + "\\n)") else -1
    return -1

last_expression(source)
"""
"""Finds in the sandbox where the last expression of `source` begins, or -1.

`exec` compiles first.
"""

_SHOW = """
if NAME is not None:
    import json as NAME_json
    try:
        NAME_text = f"{NAME_json.dumps(NAME, allow_nan=False)}"[:LIMIT]
    except (TypeError, ValueError, RecursionError):
        NAME_text = ""
    NAME_send(NAME_text, f"{NAME!r}"[:LIMIT])
"""
"""Runs after the program. It sends short text: programs cannot redefine f-strings and slices."""


@dataclass(frozen=True)
class Limits:
    """Limits of one run: wall-clock seconds, memory in MiB, depth of calls, characters of output
    and of value."""

    seconds: float = 1.0
    memory_mb: int = 64
    recursion: int = 200
    output_chars: int = 4000

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_mb", "recursion", "output_chars"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"a sandbox needs a {name!r} above 0, got {value!r}")


@dataclass(frozen=True)
class SandboxResult:
    """How a program ended (OK, ERROR or TIMEOUT), and its output.

    value: of its last expression; as JSON up to `Limits.output_chars` characters, else its `repr`,
    cut. text: its `repr`, cut. stdout: the text of both streams, cut with a visible mark. error:
    one line. seconds: includes the wait for a worker.
    """

    outcome: ToolStatus
    value: Json = None
    text: str = ""
    stdout: str = ""
    error: str = ""
    seconds: float = 0.0


class Sandbox:
    """Runs programs, at most one in each of `workers` processes; further runs wait. Threads may
    share it.

    A worker that does not answer `GRACE` seconds after its limit is killed and replaced. A process
    forked after the first run is refused, because the threads that serve the workers do not survive
    a fork.
    """

    def __init__(self, limits: Limits | None = None, workers: int = 0) -> None:
        self.limits = limits or Limits()
        self._workers = workers
        self._lock = threading.Lock()
        self._pool: monty.Monty | None = None
        self._close: weakref.finalize[[monty.Monty], Sandbox] | None = None

    def run(self, code: str) -> SandboxResult:
        """Run a program. A `CapabilityError` means that no program can run here."""
        started = time.perf_counter()
        if len(code) > MAX_SOURCE:
            size = f"{len(code):,} characters; at most {MAX_SOURCE:,} are run"
            return SandboxResult(ToolStatus.ERROR, error=f"SyntaxError: the program has {size}")
        pool = self._open()
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

    def _open(self) -> monty.Monty:
        if _home() != os.getpid():
            wrong = "the sandbox does not work in a process forked after its first use"
            raise CapabilityError(f"{wrong}: start processes with the method 'spawn'")
        with self._lock:
            if self._pool is None:
                self._pool = _open_pool(self.limits.seconds + GRACE, self._workers)
                self._close = weakref.finalize(self, _end_pool, self._pool)
            return self._pool

    def _last_expression(self, pool: monty.Monty, code: str) -> int:
        try:
            with pool.checkout(limits=self._resources(_SPLIT_SECONDS)) as session:
                inputs = {"source": code}
                return int(session.feed_run(_SPLIT, inputs=inputs, print_callback=_Printed(0)))
        except monty.MontyError:
            return -1

    def _run(self, pool: monty.Monty, code: str, split: int, started: float) -> SandboxResult:
        limit, name = self.limits.output_chars, f"_{secrets.token_hex(8)}"
        printed, sent = _Printed(limit), _Sent()
        program = _with_value_sent(code, split, name, limit + 1)
        outcome, error, resources = ToolStatus.OK, "", self._resources(self.limits.seconds)
        try:
            with pool.checkout(limits=resources, os_policy=_POLICY) as session:
                _bound_cpu(session.worker_pid, self.limits.seconds)
                lookup = {f"{name}_send": sent}
                session.feed_run(program, external_lookup=lookup, print_callback=printed)
        except monty.MontyError as caught:
            outcome, error = _how_it_ended(caught, code.count("\n") + 1, self.limits)
        value, text = sent.value(limit) if outcome is ToolStatus.OK else (None, "")
        seconds = time.perf_counter() - started
        return SandboxResult(outcome, value, text, printed.text(), error, seconds)

    def _resources(self, seconds: float) -> dict[str, float]:
        return {
            "max_feed_duration_secs": seconds,
            "max_memory": self.limits.memory_mb * 2**20,
            "max_recursion_depth": self.limits.recursion,
        }


@cache
def shared_sandbox() -> Sandbox:
    """Return the sandbox of the built-in tools, which starts its workers at the first run."""
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
        wrong = f"the sandbox's worker cannot be started: {error}"
        raise CapabilityError(f"{wrong}; install `pydantic-monty` again") from None


def _end_pool(pool: monty.Monty) -> None:
    if _home() == os.getpid():
        pool.__exit__(None, None, None)
    else:  # a forked copy: freeing it would kill the workers of the first process
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(pool))


def _bound_cpu(worker: int | None, seconds: float) -> None:
    """Bound the processor time of a worker, so that it does not outlive its parent for long."""
    if sys.platform == "linux" and worker is not None:
        total = int(_CHECKOUTS_PER_WORKER * (seconds + GRACE)) + 1
        with contextlib.suppress(OSError):
            resource.prlimit(worker, resource.RLIMIT_CPU, (total, total))


class _Printed:
    """Keeps the first `keep` characters of the output and counts the others."""

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
    late = ToolStatus.TIMEOUT, f"TimeoutError: the program ran longer than {limits.seconds:g} s"
    if isinstance(error, monty.MontyCrashedError):
        wrong = f"RuntimeError: the program broke the interpreter ({error})"
        return late if error.timed_out else (ToolStatus.ERROR, wrong)
    text = " ".join(error.display("type-msg").split())
    if text.startswith("TimeoutError: feed time limit exceeded"):
        return late
    if text.startswith("MemoryError: "):
        text = f"MemoryError: the program needed more than {limits.memory_mb} MB"
    own = "<python-input"
    frames = [frame.line for frame in error.traceback() if frame.filename.startswith(own)]
    where = f" (line {frames[-1]})" if frames and frames[-1] <= lines else ""
    return ToolStatus.ERROR, truncate(text, 500) + where
