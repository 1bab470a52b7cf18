"""A program in its own process group, with a time limit and bounded memory for its output.

At its end everything left in the group is killed, so nothing runs on unless it left the group.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO

FLOOD = 64 * 1024 * 1024
"""Bytes of output after which a program is killed."""
_CHUNK = 65_536
_TICK, _SHORT_TICK = 0.05, 0.002
"""Seconds between two checks for the program's end: while it may write, and after it closed its
output."""


class Stopped(StrEnum):
    """Why a program stopped. TOO_LONG: the system refused its arguments, so it did not start."""

    ENDED = "ended"
    LATE = "late"
    FLOOD = "flood"
    TOO_LONG = "too_long"
    NOT_STARTED = "not_started"


@dataclass
class Output:
    """The first bytes of a stream, and how many there were in all."""

    limit: int
    kept: bytearray = field(default_factory=bytearray)
    size: int = 0

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.kept += chunk[: max(0, self.limit - len(self.kept))]


@dataclass(frozen=True)
class Finished:
    """How a program ended.

    `returncode` is minus the signal that ended it; None if it never started.
    """

    stopped: Stopped
    returncode: int | None
    stdout: Output
    stderr: Output
    reason: str = ""


def run_program(
    argv: Sequence[str],
    stdin: bytes | None,
    environment: Mapping[str, str],
    folder: Path,
    timeout: float,
    max_bytes: int,
) -> Finished:
    """Run a program to its end. `argv[0]` is its path."""
    stdout, stderr = Output(max_bytes), Output(max_bytes)
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryFile() as file:
        file.write(stdin or b"")
        file.seek(0)
        try:
            process = subprocess.Popen(
                [word.encode("utf-8") for word in argv],
                stdin=subprocess.DEVNULL if stdin is None else file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            stopped = Stopped.TOO_LONG if error.errno == errno.E2BIG else Stopped.NOT_STARTED
            return Finished(stopped, None, stdout, stderr, error.strerror or type(error).__name__)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        try:
            stopped = _watch(process, {process.stdout: stdout, process.stderr: stderr}, deadline)
        finally:
            _kill(process)
    return Finished(stopped, process.returncode, stdout, stderr)


def _watch(
    process: subprocess.Popen[bytes], outputs: Mapping[IO[bytes], Output], deadline: float
) -> Stopped:
    """Read the output until the program ends or must be stopped."""
    with selectors.DefaultSelector() as selector:
        for stream, output in outputs.items():
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, output)
        while (left := deadline - time.monotonic()) > 0:
            ended = _has_ended(process)
            tick = _TICK if selector.get_map() else _SHORT_TICK
            ready = selector.select(0 if ended else min(left, tick))
            for key, _ in ready:
                chunk = _read(key.fd)
                if chunk == b"":
                    selector.unregister(key.fileobj)
                elif chunk is not None:
                    key.data.add(chunk)
            if sum(output.size for output in outputs.values()) > FLOOD:
                return Stopped.FLOOD
            if ended and not ready:
                return Stopped.ENDED
    return Stopped.LATE


def _read(descriptor: int) -> bytes | None:
    """Read what is there: empty at the end of the stream, None where nothing is there yet."""
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return None


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the program has ended.

    On Linux it stays unreaped, which keeps its number until `_kill`.
    """
    if sys.platform == "linux":
        try:
            state = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return state is not None
        except ChildProcessError:  # the calling program lets the system reap its children
            return True
    return process.poll() is not None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End all processes of the program's group, and reap it."""
    # The group is empty, or holds only the ended program (macOS).
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
