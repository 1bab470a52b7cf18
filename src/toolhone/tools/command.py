"""A tool that runs a program: `{"name", "parameters", "type": "command", "command": "prog {x}"}`.

There is no shell: a place `{param}` is filled inside its own element; parameters without one are a
JSON object on stdin. A value that begins with `-` needs `--` before it or `"allow_dash": true`. At
the end its process group is killed. Not covered: what it does, its memory, children that leave.
"""

from __future__ import annotations

import errno
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import IO

from toolhone.errors import CapabilityError, ConfigError
from toolhone.schema import Json, Tool
from toolhone.tools.placeholders import (
    FromEnvironment,
    Placeholder,
    Template,
    as_text,
    check_places,
    hide,
    hide_in_part,
    texts_of,
    values_of,
)
from toolhone.tools.result import CallError, ToolStatus, truncate

TIMEOUT, MAX_BYTES = 30.0, 65_536
FLOOD = 64 * 1024 * 1024
"""Bytes of output after which a program is killed."""
_CHUNK = 65_536
_TICK, _SHORT_TICK = 0.05, 0.002
"""Seconds between two checks for the end: while a program may write, after it closed its output."""
KEPT = ("PATH", "HOME", "LANG")
"""Variables of the environment that a program gets; `env` adds others."""
_INTERPRETERS = re.compile(
    r"(ba|da|z|k|c|tc|fi|a|pw)?sh|(python|pypy|perl|php|lua)[\d.]*|ruby|node|deno|bun|Rscript"
    r"|osascript|powershell|[gmn]?awk|g?sed"
)
"""Programs that take a script from their arguments."""
_WRAPPERS = re.compile(
    r"env|xargs|sudo|doas|su|nohup|nice|ionice|setsid|timeout|stdbuf|time|chroot|unshare|busybox"
    r"|parallel|watch|script|ssh|eval"
)
"""Programs that take another program from their arguments."""
_SHELL_WRAPPERS = ("ssh", "eval", "watch", "parallel", "su")
"""Wrappers that give all of their arguments to a shell."""
_NO_SCRIPT = re.compile(r"-.*|[\d.]+[smhd]?|\w+=.*|", re.DOTALL)
"""Words after a wrapper or an interpreter that are not yet its program or script."""


class Stopped(StrEnum):
    """Why a program stopped. TOO_LONG: the system refused its arguments."""

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

    def show(self, secrets: Sequence[str]) -> str:
        """Return the text without secrets; a cut is visible."""
        text = self.kept.decode("utf-8", "replace")
        if self.size == len(self.kept):
            return str(hide(text, secrets))
        return f"{hide_in_part(text, secrets)}… [cut: {self.size:,} bytes in all]"


@dataclass(frozen=True)
class Finished:
    """How a program ended. `returncode` is minus the signal that ended it; None: never started."""

    stopped: Stopped
    returncode: int | None
    stdout: Output
    stderr: Output
    reason: str = ""


_STATUSES = {Stopped.LATE: ToolStatus.TIMEOUT, Stopped.TOO_LONG: ToolStatus.INVALID_ARGUMENTS}


@dataclass(frozen=True)
class CommandTool:
    """Runs `program` with `elements`; values of the parameters in `dashes` may begin with `-`."""

    tool: Tool
    program: str
    elements: tuple[Template, ...]
    folder: Path
    dashes: frozenset[str] = frozenset()
    environment: FromEnvironment = field(default_factory=FromEnvironment)
    timeout: float = TIMEOUT
    max_bytes: int = MAX_BYTES

    @staticmethod
    def of(
        tool: Tool, spec: Mapping[str, Json], base: Path, dashes: frozenset[str] = frozenset()
    ) -> CommandTool:
        """Read the tool's object in an experiment file; a mistake is a `ConfigError`."""
        words, cwd = _read_words(tool, spec.get("command")), spec.get("cwd", ".")
        program, *elements = [Template.of(word) for word in words]
        where = f"tool {tool.name!r}:"
        if program.names:
            wrong = "is a place; the model may not choose what runs"
            raise ConfigError(f"{where} the program {words[0]!r} {wrong}")
        for word, element in zip(words[1:], elements, strict=True):
            check_places(tool, element.names, "command", element.prefix.startswith("-"))
            if element.prefix not in ("-", "--") or not element.names:
                continue
            name = element.names[0]
            schema = tool.properties[name]
            number = schema.get("type") in ("integer", "number")
            if "enum" not in schema and not number and name not in dashes:
                right = f"write the option out (--name={{{name}}}), or give the parameter an 'enum'"
                raise ConfigError(f"{where} {word!r} lets the model choose the option; {right}")
        first = next((index for index, part in enumerate(elements, 1) if part.names), None)
        if first is not None and not _fixes_program(words[:first]):
            right = 'an argument of its own: ["sh", "-c", "echo \\"$1\\"", "sh", "{x}"]'
            raise ConfigError(
                f"{where} {words[first]!r} is where {words[0]!r} may look for a program; write "
                f"the program or script into the command, and give it the value as {right}"
            )
        if not isinstance(cwd, str):
            raise ConfigError(f"{where} 'cwd' must be a folder, got {cwd!r:.80}")
        env = spec.get("env", {})
        if isinstance(env, list | tuple) and all(isinstance(name, str) for name in env):
            env = {name: f"${{{name}}}" for name in env}
        if not isinstance(env, Mapping) or not all(isinstance(one, str) for one in env.values()):
            right = "a list of names or an object of texts"
            raise ConfigError(f"{where} 'env' must be {right}, got {env!r:.80}")
        for name in env:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ConfigError(f"{where} {name!r} is not the name of an environment variable")
        folder, parts = base / Path(cwd).expanduser(), tuple(elements)
        limits = spec.get("timeout", TIMEOUT), spec.get("max_bytes", MAX_BYTES)
        return CommandTool(
            tool, program.fill({}), parts, folder, dashes, FromEnvironment(env), *limits
        )

    def check(self) -> None:
        """Raise where no call can succeed: a program, a folder or a variable is missing."""
        where = f"tool {self.tool.name!r}"
        if sys.platform == "win32":
            needs = "which needs Linux, macOS or another POSIX system"
            raise CapabilityError(f"{where} runs a command, {needs}")
        environment = self._fill_environment()
        if not self.folder.is_dir():
            raise ConfigError(f"{where}: no such folder: {self.folder} (cwd)")
        self._find_program(environment)

    def __call__(self, /, **arguments: Json) -> Json:
        environment = self._fill_environment()
        try:
            argv = [self._find_program(environment), *self._arguments(arguments)]
            stdin = self._stdin(arguments)
        except ValueError as error:
            raise CallError(ToolStatus.INVALID_ARGUMENTS, f"{self.tool.name}: {error}") from None
        end = run_program(argv, stdin, environment, self.folder, self.timeout, self.max_bytes)
        secrets = self.environment.secrets()
        stdout, stderr = end.stdout.show(secrets), end.stderr.show(secrets)
        if end.stopped is Stopped.ENDED:
            return {"returncode": end.returncode, "stdout": stdout, "stderr": stderr}
        output = truncate((stdout + stderr).strip(), 300)
        killed = "and was killed" + (f"; it wrote: {output}" if output else "")
        failure = {
            Stopped.LATE: f"the command did not end within {self.timeout:g} s {killed}",
            Stopped.FLOOD: f"the command wrote more than {FLOOD:,} bytes {killed}",
            Stopped.TOO_LONG: "the arguments are too long for a command",
            Stopped.NOT_STARTED: f"the command could not be started: {end.reason}",
        }[end.stopped]
        raise CallError(_STATUSES.get(end.stopped, ToolStatus.ERROR), failure)

    def _arguments(self, arguments: Mapping[str, Json]) -> list[str]:
        """Fill the places of the elements; `ValueError` names a value that does not fit."""
        given = {name for name, value in arguments.items() if value is not None}
        values = values_of(self.tool, arguments)
        filled, protected = [], False
        for element in self.elements:
            if element.prefix.startswith("-") and any(name not in values for name in element.names):
                continue
            texts = texts_of(values, element.names)
            filled.append(element.fill(texts))
            if not protected and filled[-1].startswith("-"):
                # The first part that is not empty begins the element: it may not be the model's.
                parts = (one for one in element.parts if isinstance(one, str) or texts[one.name])
                first = next(parts)
                if isinstance(first, Placeholder) and first.name in given - self.dashes:
                    raise ValueError(f"{first.name}: a value here cannot begin with '-'")
            continues = protected and bool(element.names) and not element.prefix
            protected = element.parts == ("--",) or continues
        return filled

    def _stdin(self, arguments: Mapping[str, Json]) -> bytes | None:
        placed = {name for element in self.elements for name in element.names}
        if all(name in placed for name in self.tool.properties):
            return None
        rest = {name: value for name, value in arguments.items() if name not in placed}
        texts_of(rest, rest)
        return as_text(rest).encode("utf-8")

    def _fill_environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        return kept | self.environment.fill(f"tool {self.tool.name!r}, env")

    def _find_program(self, environment: Mapping[str, str]) -> str:
        """Return the program's path: as named where it has a slash, else from PATH."""
        path = environment.get("PATH", os.defpath)
        program, where = self.program, f" in PATH ({path})"
        if os.sep in program:
            program, where = str((self.folder / Path(program).expanduser()).absolute()), ""
        found = shutil.which(program, path=path)
        if found is None:
            raise ConfigError(f"tool {self.tool.name!r}: no such program: {program!r}{where}")
        return os.path.abspath(found)


def _read_words(tool: Tool, command: Json) -> list[str]:
    where = f"tool {tool.name!r}: 'command'"
    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError as error:
            wrong = f"cannot be split into words: {str(error).lower()}"
            raise ConfigError(f"{where} {wrong} in {command!r:.80}") from None
    elif isinstance(command, list | tuple) and all(isinstance(word, str) for word in command):
        words = list(command)
    else:
        raise ConfigError(f"{where} must be a text or a list of texts, got {command!r:.80}")
    if not words or not words[0]:
        raise ConfigError(f"{where} names no program")
    if any("\0" in word for word in words):
        raise ConfigError(f"{where} holds a NUL character")
    return words


def _fixes_program(words: Sequence[str]) -> bool:
    """Whether these words fix the program and the script; False in doubt."""
    name, rest = os.path.basename(words[0]), words[1:]
    if name in _SHELL_WRAPPERS:
        return False
    interpreter = bool(_INTERPRETERS.fullmatch(name))
    if not interpreter and not _WRAPPERS.fullmatch(name):
        return True
    for index, word in enumerate([] if interpreter else rest):
        base = os.path.basename(word)
        if _WRAPPERS.fullmatch(base) or _INTERPRETERS.fullmatch(base):
            return _fixes_program(rest[index:])
    for before, word in pairwise(words):
        if not _NO_SCRIPT.fullmatch(word):
            # A program or a script, and not the value of an option before it.
            fixed = not before.startswith("-") or before == "--" or "/" in word or "." in word
            if fixed or (interpreter and re.search(r"^-\w*[cemE]$", before)):
                return True
    return False


def run_program(
    argv: Sequence[str],
    stdin: bytes | None,
    environment: Mapping[str, str],
    folder: Path,
    timeout: float,
    max_bytes: int,
    unwanted: Callable[[], bool] = lambda: False,
) -> Finished:
    """Run a program to its end, or until it is `unwanted`. `argv[0]` is its path."""
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
    assert process.stdout is not None and process.stderr is not None  # noqa: PT018
    with process.stdout, process.stderr:
        try:
            outputs = {process.stdout: stdout, process.stderr: stderr}
            stopped = _watch(process, outputs, deadline, unwanted)
        finally:
            # The group is empty, or holds only the ended program (macOS).
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Finished(stopped, process.returncode, stdout, stderr)


def _watch(
    process: subprocess.Popen[bytes],
    outputs: Mapping[IO[bytes], Output],
    deadline: float,
    unwanted: Callable[[], bool],
) -> Stopped:
    """Read the output until the program ends or must be stopped."""
    with selectors.DefaultSelector() as selector:
        for stream, output in outputs.items():
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, output)
        while (left := deadline - time.monotonic()) > 0 and not unwanted():
            ended = _has_ended(process)
            tick = _TICK if selector.get_map() else _SHORT_TICK
            ready = selector.select(0 if ended else min(left, tick))
            for key, _ in ready:
                with suppress(BlockingIOError):
                    if chunk := os.read(key.fd, _CHUNK):
                        key.data.add(chunk)
                    else:
                        selector.unregister(key.fileobj)
            if sum(output.size for output in outputs.values()) > FLOOD:
                return Stopped.FLOOD
            if ended and not ready:
                return Stopped.ENDED
    return Stopped.LATE


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the program has ended; on Linux it stays unreaped, which keeps its number."""
    if sys.platform == "linux":
        try:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, process.pid, options) is not None
        except ChildProcessError:  # the calling program lets the system reap its children
            return True
    return process.poll() is not None
