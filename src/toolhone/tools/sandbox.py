"""Runs Python written by a model, with limits on CPU time, memory and recursion; no files.

    with Sandbox() as sandbox:
        sandbox.run("x = 6\\nx * 7")    # SandboxResult(outcome=OK, value=42, text="42", ...)

Monty runs it, a subset of Python in Rust, in worker processes; its own bugs are not contained.
Only the program's own CPU time counts (on Linux; elsewhere the time that passes).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import secrets
import signal
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from functools import cache
from typing import Any

import pydantic_monty as monty

from toolhone.errors import BusyError, CapabilityError, ConfigError
from toolhone.schema import Json
from toolhone.tools.result import ToolStatus, truncate

if sys.platform == "linux":
    import resource

GRACE = 0.25
"""Seconds between a worker's own limit of time and its end by force."""
PATIENCE = 100
"""How long a program may take in all, as a multiple of its limit of CPU time."""
WORKERS = max(4, os.cpu_count() or 1)
"""Default number of workers."""
MAX_SOURCE = 20_000
"""Longest program in characters."""
_SPLIT_SECONDS = 0.25
_TICK = 0.005
_CHECKOUTS_PER_WORKER = 100
_POLICY = {"sleep": "zero", "random_start": {"seed": 0}}

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
"""Finds where the last expression of `source` begins, or -1; `exec` compiles first."""

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
    """Limits of one run; `output_chars` also cuts the value.

    seconds: of CPU time. recursion: depth of calls.
    """

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
    one line. seconds: that passed, with the wait for a worker.
    """

    outcome: ToolStatus
    value: Json = None
    text: str = ""
    stdout: str = ""
    error: str = ""
    seconds: float = 0.0


class Sandbox(contextlib.AbstractContextManager["Sandbox"]):
    """Runs programs, at most one in each of `workers` processes; further runs wait.

    Threads may share it. A worker whose program has used up its time is killed and replaced. A
    `BusyError` means that the machine gave a program too little time to tell how it ends. A process
    forked after the first run is refused: the serving threads do not survive a fork.
    """

    def __init__(self, limits: Limits | None = None, workers: int = 0) -> None:
        self.limits, self._workers, self._lock = limits or Limits(), workers, threading.Lock()
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
        split, name = self._last_expression(pool, code), f"_{secrets.token_hex(8)}"
        limit = self.limits.output_chars
        show = _SHOW.replace("NAME", name).replace("LIMIT", str(limit + 1))
        program = f"{code[:split]}{name} = ({code[split:].lstrip()}\n)\n{show}"
        program = f"{code}\nNone" if split < 0 else program
        printed, sent = _Printed(limit), [("", "")]
        outcome, error = ToolStatus.OK, ""
        try:
            lookup = {f"{name}_send": lambda *texts: sent.append(texts)}
            options = {"external_lookup": lookup, "print_callback": printed}
            self._feed(pool, program, self.limits.seconds, options)
        except TimeoutError:
            late = f"the program ran longer than {self.limits.seconds:g} s"
            outcome, error = ToolStatus.TIMEOUT, f"TimeoutError: {late}"
        except monty.MontyError as caught:
            outcome = ToolStatus.ERROR
            error = _show_error(caught, code.count("\n") + 1, self.limits)
        failed = outcome is not ToolStatus.OK
        value, text = (None, "") if failed else _read_value(*sent[-1], limit)
        seconds = time.perf_counter() - started
        return SandboxResult(
            outcome, value, text, truncate(printed.text, limit, printed.total), error, seconds
        )

    def close(self) -> None:
        """End the workers. A later `run` starts new ones."""
        with self._lock:
            if self._close is not None:
                self._close()
            self._pool = self._close = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> monty.Monty:
        if _home() != os.getpid():
            wrong = "the sandbox does not work in a process forked after its first use"
            raise CapabilityError(f"{wrong}: start processes with the method 'spawn'")
        with self._lock:
            if self._pool is None:
                pool = monty.Monty(
                    max_processes=self._workers or WORKERS,
                    request_timeout=max(self.limits.seconds, _SPLIT_SECONDS) * PATIENCE + GRACE,
                    max_checkouts_per_worker=_CHECKOUTS_PER_WORKER,
                    feed_duration_limit_grace=GRACE,
                )
                try:
                    self._pool = pool.__enter__()
                except (RuntimeError, OSError, monty.MontyError) as error:
                    wrong = f"the sandbox's worker cannot be started: {error}"
                    raise CapabilityError(f"{wrong}; install `pydantic-monty` again") from None
                self._close = weakref.finalize(self, _end_pool, self._pool)
            return self._pool

    def _last_expression(self, pool: monty.Monty, code: str) -> int:
        options = {"inputs": {"source": code}, "print_callback": _Printed(0)}
        try:
            return int(self._feed(pool, _SPLIT, _SPLIT_SECONDS, options))
        except (TimeoutError, monty.MontyError):
            return -1

    def _feed(
        self, pool: monty.Monty, program: str, seconds: float, options: dict[str, Any]
    ) -> Any:
        """Run a program and return its value; `TimeoutError` where it has used its CPU time."""
        watch = None
        try:
            limits = {
                "max_feed_duration_secs": seconds * PATIENCE,
                "max_memory": self.limits.memory_mb * 2**20,
                "max_recursion_depth": self.limits.recursion,
            }
            with pool.checkout(limits=limits, os_policy=_POLICY) as session:
                watch = _CpuWatch(session.worker_pid, seconds)
                try:
                    return session.feed_run(program, **options)
                finally:
                    watch.stop()
        except monty.MontyError as error:
            if watch is not None and watch.is_late:
                raise TimeoutError from None
            if isinstance(error, monty.MontyCrashedError):
                busy = error.timed_out
            else:
                shown = str(error.display("type-msg"))
                busy = shown.startswith("TimeoutError: feed time limit exceeded")
            if not busy:  # the time that an attempt may take did not end it
                raise
            raise BusyError(
                f"the machine gave a program less than {seconds:g} s of CPU time within "
                f"{seconds * PATIENCE:g} s; run fewer programs beside this one"
            ) from None


@cache
def shared_sandbox() -> Sandbox:
    """Return the sandbox of the built-in tools, which starts its workers at the first run."""
    return Sandbox()


@cache
def _home() -> int:
    """The process in which a sandbox was used first."""
    return os.getpid()


def _end_pool(pool: monty.Monty) -> None:
    if _home() == os.getpid():
        pool.__exit__(None, None, None)
    else:  # a forked copy: freeing it would kill the workers of the first process
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(pool))


class _CpuWatch(threading.Thread):
    """Kills a worker when it has used `seconds` of CPU time from now on."""

    def __init__(self, pid: int, seconds: float) -> None:
        super().__init__(daemon=True, name="sandbox")
        self._pid, self._lock, self._ended = pid, threading.Lock(), threading.Event()
        self._clock, self.is_late = time.CLOCK_MONOTONIC, False
        if sys.platform == "linux":
            self._clock = (~pid << 3) | 2  # the CPU clock of a process: clock_getcpuclockid(3)
            # Bounds how long a worker outlives its parent.
            cpu = int(_CHECKOUTS_PER_WORKER * (seconds + GRACE)) + 1
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_CPU, (cpu, cpu))
        self._end = 0.0
        self._end = seconds - self._left()
        self.start()

    def _left(self) -> float:
        """Return how many seconds are left; after the end of the worker, all."""
        try:
            return self._end - time.clock_gettime(self._clock)
        except OSError:
            return math.inf

    def run(self) -> None:
        while not self._ended.wait(max(_TICK, self._left())):
            with self._lock:
                self.is_late = self._left() <= 0 and not self._ended.is_set()
                if self.is_late:
                    os.kill(self._pid, signal.SIGKILL)
                    return

    def stop(self) -> None:
        with self._lock:
            self._ended.set()


@dataclass
class _Printed:
    """Keeps the first `keep` characters of the output and counts all."""

    keep: int
    total: int = 0
    text: str = ""

    def __call__(self, _stream: str, text: str) -> None:
        self.text += text[: max(0, self.keep - self.total)]
        self.total += len(text)


def _read_value(as_json: str, as_repr: str, limit: int) -> tuple[Json, str]:
    """Return the value of a program, from its JSON ("" where it has none), and its `repr`."""
    text = as_repr if len(as_repr) <= limit else as_repr[: limit - 1] + "…"
    if not as_json or len(as_json) > limit:
        return text or None, text
    try:
        return json.loads(as_json), text
    except (ValueError, RecursionError):
        return text, text


def _show_error(error: monty.MontyError, lines: int, limits: Limits) -> str:
    """Return an error in one line."""
    if isinstance(error, monty.MontyCrashedError):
        return f"RuntimeError: the program broke the interpreter ({error})"
    text = " ".join(error.display("type-msg").split())
    if text.startswith("MemoryError: "):
        text = f"MemoryError: the program needed more than {limits.memory_mb} MB"
    own = "<python-input"
    frames = [frame.line for frame in error.traceback() if frame.filename.startswith(own)]
    where = f" (line {frames[-1]})" if frames and frames[-1] <= lines else ""
    return truncate(text, 500) + where
