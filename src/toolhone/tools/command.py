"""A tool that runs a program: `{"name", "parameters", "type": "command", "command": "prog {arg} --flag={x}", ...}`.

    count = CommandTool.of(tool, {"command": ["wc", "-c", "--", "{file}"]}, Path.cwd())
    count(file="notes.txt")    # {"returncode": 0, "stdout": "120 notes.txt\\n", "stderr": ""}

There is no shell. A text is split once, when it is read; then each place `{param}` is filled inside its own element, so that no
value of a model becomes two arguments, a pipe or another program. Parameters without a place are sent as a JSON object on stdin;
without such parameters stdin is empty. The environment is PATH, HOME and LANG, and what `env` names; the folder is `cwd`, else that
of the experiment. After `timeout` seconds the program and all that it started are killed. `max_bytes` of each stream are kept, the
rest is counted and thrown away; a program that writes more than `FLOOD` bytes is killed.

A value must not turn into an option. Where an element begins with a place, a value that begins with `-` is refused, unless `--`
stands before it (other places may stand between) or its parameter says `"allow_dash": true`. `-{x}` is refused when the tool is
read, except for numbers and enums. So is a place from which a shell, an interpreter or a wrapper such as `env` would take its
program: write the script down and give it the value as an argument, `["sh", "-c", "echo \\"$1\\"", "sh", "{x}"]`.

Not covered: what the program itself makes of a value (a path that leads elsewhere, `@file`, `-c` of git, `-exec` of find), and its
memory. A child that leaves its process group (a daemon) outlives the time limit; so does a command whose caller is killed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from toolhone.errors import CapabilityError, ConfigError
from toolhone.schema import Json, Tool
from toolhone.tools.placeholders import (
    FromEnvironment,
    Placeholder,
    Template,
    as_text,
    check_places,
    defaults_of,
    hide,
    hide_in_part,
    texts_of,
)
from toolhone.tools.process import FLOOD, Finished, Output, Stopped, run_program
from toolhone.tools.result import CallError, ToolStatus, truncate

TIMEOUT, MAX_BYTES = 30.0, 65_536
KEPT = ("PATH", "HOME", "LANG")
_INTERPRETERS = re.compile(
    r"(ba|da|z|k|c|tc|fi|a|pw)?sh|(python|pypy|perl|php|lua)[\d.]*|ruby|node|deno|bun|Rscript|osascript|powershell|[gmn]?awk|g?sed"
)
"""Programs that take a script from their arguments."""
_WRAPPERS = re.compile(
    r"env|xargs|sudo|doas|su|nohup|nice|ionice|setsid|timeout|stdbuf|time|chroot|unshare|busybox|parallel|watch|script|ssh|eval"
)
"""Programs that take another program from their arguments."""
_ALWAYS = ("ssh", "eval", "watch", "parallel", "su")
"""Those that give all of their arguments to a shell."""
_NO_SCRIPT = re.compile(r"-.*|[\d.]+[smhd]?|\w+=.*|", re.DOTALL)
"""Words after a wrapper or an interpreter that are not yet its program or script."""


@dataclass(frozen=True)
class CommandTool:
    """Runs a program. `elements` are the arguments after its name; `dashes` the parameters whose values may begin with `-`."""

    tool: Tool
    program: str
    elements: tuple[Template, ...]
    base: Path
    dashes: frozenset[str] = frozenset()
    environment: tuple[tuple[str, FromEnvironment], ...] = ()
    timeout: float = TIMEOUT
    max_bytes: int = MAX_BYTES

    @staticmethod
    def of(
        tool: Tool, spec: Mapping[str, Json], base: Path, dashes: frozenset[str] = frozenset()
    ) -> CommandTool:
        """From the tool and its object in an experiment file; a mistake is a `ConfigError`."""
        words = _words(tool, spec.get("command"))
        templates = [Template.of(word) for word in words]
        if templates[0].names:
            raise ConfigError(
                f"tool {tool.name!r}: the program {words[0]!r} is a place; the model may not choose what runs"
            )
        for template in templates[1:]:
            check_places(
                tool, template.names, "command", may_be_absent=template.prefix.startswith("-")
            )
        _check_options(tool, words, templates, dashes)
        _check_programs(tool, words, templates)
        cwd = spec.get("cwd", ".")
        if not isinstance(cwd, str):
            raise ConfigError(f"tool {tool.name!r}: 'cwd' must be a folder, got {cwd!r:.80}")
        return CommandTool(
            tool=tool,
            program=templates[0].fill({}),
            elements=tuple(templates[1:]),
            base=base / Path(cwd).expanduser(),
            dashes=dashes,
            environment=_environment(tool, spec.get("env", {})),
            timeout=spec.get("timeout", TIMEOUT),
            max_bytes=spec.get("max_bytes", MAX_BYTES),
        )

    def check(self) -> None:
        """Stop where a call could never succeed: no such program or folder, or a variable of the environment is missing."""
        if sys.platform == "win32":
            raise CapabilityError(
                f"tool {self.tool.name!r} runs a command, which needs Linux, macOS or another POSIX system"
            )
        self._filled_environment()
        if not self.base.is_dir():
            raise ConfigError(f"tool {self.tool.name!r}: there is no folder {self.base} (cwd)")
        self._found()

    def __call__(self, /, **arguments: Json) -> Json:
        environment = self._filled_environment()
        secrets = [secret for _, text in self.environment for secret in text.secrets()]
        try:
            argv, stdin = [self._found(), *self._arguments(arguments)], self._stdin(arguments)
        except ValueError as error:
            raise CallError(ToolStatus.INVALID_ARGUMENTS, f"{self.tool.name}: {error}") from None
        finished = run_program(argv, stdin, environment, self.base, self.timeout, self.max_bytes)
        return _value(finished, self.timeout, secrets)

    def _arguments(self, arguments: Mapping[str, Json]) -> list[str]:
        """The elements with their places filled. `ValueError` says which value cannot stand in its place."""
        given = {name: value for name, value in arguments.items() if value is not None}
        values = {**defaults_of(self.tool), **given}
        filled = []
        protected = False
        for element in self.elements:
            if element.prefix.startswith("-") and any(name not in values for name in element.names):
                continue
            texts = texts_of(values, element.names)
            if not protected:
                self._refuse_option(element, texts, given)
            filled.append(element.fill(texts))
            protected = element.parts == ("--",) or (
                protected and bool(element.names) and not element.prefix
            )
        return filled

    def _refuse_option(
        self, element: Template, texts: Mapping[str, str], given: Mapping[str, Json]
    ) -> None:
        """Stop where the model, and not the command, says the `-` with which an element begins."""
        for part in element.parts:
            if not isinstance(part, Placeholder):
                return
            if texts[part.name]:
                if (
                    texts[part.name].startswith("-")
                    and part.name in given
                    and part.name not in self.dashes
                ):
                    raise ValueError(f"{part.name}: a value here cannot begin with '-'")
                return

    def _stdin(self, arguments: Mapping[str, Json]) -> bytes | None:
        placed = {name for element in self.elements for name in element.names}
        if all(name in placed for name in self.tool.properties):
            return None
        rest = {name: value for name, value in arguments.items() if name not in placed}
        texts_of(rest, rest)
        return as_text(rest).encode("utf-8")

    def _filled_environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        for name, text in self.environment:
            kept[name] = text.fill(f"tool {self.tool.name!r}, env {name!r},")
        return kept

    def _found(self) -> str:
        """The path of the program: as given, where it has a slash, else looked up in PATH."""
        path = self._filled_environment().get("PATH", os.defpath)
        program = (
            str((self.base / Path(self.program).expanduser()).absolute())
            if os.sep in self.program
            else self.program
        )
        found = shutil.which(program, path=path)
        if found is None:
            where = "" if os.sep in self.program else f" in PATH ({path})"
            raise ConfigError(f"tool {self.tool.name!r}: there is no program {program!r}{where}")
        return os.path.abspath(found)


def _words(tool: Tool, command: Json) -> list[str]:
    where = f"tool {tool.name!r}: 'command'"
    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise ConfigError(
                f"{where} cannot be split into words: {str(error).lower()} in {command!r:.80}"
            ) from None
    elif isinstance(command, list | tuple) and all(isinstance(word, str) for word in command):
        words = list(command)
    else:
        raise ConfigError(f"{where} must be a text or a list of texts, got {command!r:.80}")
    if not words or not words[0]:
        raise ConfigError(f"{where} names no program")
    if any("\0" in word for word in words):
        raise ConfigError(f"{where} holds a NUL character")
    return words


def _check_options(
    tool: Tool, words: Sequence[str], templates: Sequence[Template], dashes: frozenset[str]
) -> None:
    """Stop at `-{x}` and `--{x}`, where a value would be the name of an option."""
    for word, template in zip(words, templates, strict=True):
        if template.prefix not in ("-", "--") or not template.names:
            continue
        schema = tool.properties[template.names[0]]
        if (
            "enum" not in schema
            and schema.get("type") not in ("integer", "number")
            and template.names[0] not in dashes
        ):
            raise ConfigError(
                f"tool {tool.name!r}: {word!r} lets the model choose the option; "
                f"write the option out (--name={{{template.names[0]}}}), or give the parameter an 'enum'"
            )


def _check_programs(tool: Tool, words: Sequence[str], templates: Sequence[Template]) -> None:
    """Stop where a shell, an interpreter or a wrapper would take its program from a place."""
    first = next((index for index, template in enumerate(templates) if template.names), None)
    if first is None or _is_settled(words[:first]):
        return
    raise ConfigError(
        f"tool {tool.name!r}: {words[first]!r} stands where {words[0]!r} may look for a program; write the program or script into "
        'the command, and give it the value as an argument of its own: ["sh", "-c", "echo \\"$1\\"", "sh", "{x}"]'
    )


def _is_settled(words: Sequence[str]) -> bool:
    """Whether these words say which program and which script runs, whatever follows. In doubt they do not."""
    name, rest = os.path.basename(words[0]), words[1:]
    if name in _ALWAYS:
        return False
    if _WRAPPERS.fullmatch(name):
        for index, word in enumerate(rest):
            base = os.path.basename(word)
            if _WRAPPERS.fullmatch(base) or _INTERPRETERS.fullmatch(base):
                return _is_settled(rest[index:])
        return any(_stands_alone(before, word) for before, word in pairwise(words))
    if _INTERPRETERS.fullmatch(name):
        return any(
            _stands_alone(before, word)
            or (not _NO_SCRIPT.fullmatch(word) and re.search(r"^-\w*[cemE]$", before))
            for before, word in pairwise(words)
        )
    return True


def _stands_alone(before: str, word: str) -> bool:
    """Whether a word is a program or a script, and not the value of an option before it."""
    if _NO_SCRIPT.fullmatch(word):
        return False
    return not before.startswith("-") or before == "--" or "/" in word or "." in word


def _environment(tool: Tool, env: Json) -> tuple[tuple[str, FromEnvironment], ...]:
    if isinstance(env, list | tuple) and all(isinstance(name, str) for name in env):
        env = {name: f"${{{name}}}" for name in env}
    if not isinstance(env, Mapping) or not all(isinstance(value, str) for value in env.values()):
        raise ConfigError(
            f"tool {tool.name!r}: 'env' must be a list of names or an object of texts, got {env!r:.80}"
        )
    for name in env:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(
                f"tool {tool.name!r}: {name!r} is not the name of an environment variable"
            )
    return tuple((name, FromEnvironment(value)) for name, value in env.items())


def _value(finished: Finished, timeout: float, secrets: Sequence[str]) -> Json:
    stdout, stderr = (_shown(output, secrets) for output in (finished.stdout, finished.stderr))
    wrote = truncate((stdout + stderr).strip(), 300)
    told = f"; it wrote: {wrote}" if wrote else ""
    match finished.stopped:
        case Stopped.LATE:
            raise CallError(
                ToolStatus.TIMEOUT,
                f"the command did not end within {timeout:g} s and was killed{told}",
            )
        case Stopped.FLOOD:
            raise CallError(
                ToolStatus.ERROR,
                f"the command wrote more than {FLOOD:,} bytes and was killed{told}",
            )
        case Stopped.TOO_LONG:
            raise CallError(
                ToolStatus.INVALID_ARGUMENTS, "the arguments are too long for a command"
            )
        case Stopped.NOT_STARTED:
            raise CallError(
                ToolStatus.ERROR, f"the command could not be started: {finished.reason}"
            )
    return {"returncode": finished.returncode, "stdout": stdout, "stderr": stderr}


def _shown(output: Output, secrets: Sequence[str]) -> str:
    text = output.kept.decode("utf-8", "replace")
    if output.size == len(output.kept):
        return str(hide(text, secrets))
    return f"{hide_in_part(text, secrets)}… [cut: {output.size:,} bytes in all]"
