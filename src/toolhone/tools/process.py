"""A program of its own process group, run within a time limit and with bounded memory for what it writes.

    finished = run_program(["/bin/ls", "-l"], None, {"PATH": "/usr/bin"}, Path("/"), timeout=5, max_bytes=65_536)
    finished.stopped, finished.returncode, finished.stdout.kept

When it ends, or is stopped, everything left in its group is killed: nothing goes on in the background, unless it left the group.
Nothing here looks at what is run; `command.py` does.
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
"""Seconds between two looks at whether the program has ended: while it may still write, and after it has closed its output."""


class Stopped(StrEnum):
    """Why a program ran no longer."""

    ENDED = "ended"
    LATE = "late"
    FLOOD = "flood"
    TOO_LONG = "too_long"
    """It was not started: the arguments are longer than the system takes."""
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
    """What came of a program. `returncode` is minus the signal where one ended it; None where it was never started."""

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
    """Run a program to its end. `argv[0]` is its path; stdin is empty where none is given."""
    stdout, stderr = Output(max_bytes), Output(max_bytes)
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryFile() as given:
        given.write(stdin or b"")
        given.seek(0)
        try:
            process = subprocess.Popen(
                [word.encode("utf-8") for word in argv],
                stdin=subprocess.DEVNULL if stdin is None else given,
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
    """Read what it writes until it ends or must be stopped."""
    with selectors.DefaultSelector() as selector:
        for stream, output in outputs.items():
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, output)
        while (left := deadline - time.monotonic()) > 0:
            ended = _has_ended(process)
            ready = selector.select(
                0 if ended else min(left, _TICK if selector.get_map() else _SHORT_TICK)
            )
            for key, _ in ready:
                if not _took(key):
                    selector.unregister(key.fileobj)
            if sum(output.size for output in outputs.values()) > FLOOD:
                return Stopped.FLOOD
            if ended and not ready:
                return Stopped.ENDED
    return Stopped.LATE


def _took(key: selectors.SelectorKey) -> bool:
    """Read what is there; False at the end of the stream."""
    try:
        chunk = os.read(key.fd, _CHUNK)
    except BlockingIOError:
        return True
    key.data.add(chunk)
    return bool(chunk)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the program has ended. On Linux it stays unreaped, so that its number belongs to no other process until `_kill`."""
    if sys.platform == "linux":
        try:
            return (
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            )
        except ChildProcessError:  # the calling program lets the system reap its children
            return True
    return process.poll() is not None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End everything in the program's group, and reap it."""
    with suppress(
        ProcessLookupError, PermissionError
    ):  # the group is empty, or only has the ended program (macOS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
