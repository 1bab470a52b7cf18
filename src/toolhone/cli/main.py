"""`toolhone`: one command with a verb for each thing one does. Results go to standard output,
progress to standard error.

Exit codes: 0 well, 1 found something (a comparison that got worse, say), 2 wrong use, 130 stopped
by Ctrl-C. A mistake of the user gets one sentence, never a traceback. The module of a verb is
imported when the verb is used."""

from __future__ import annotations

import codecs
import os
import re
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option
from typer.core import TyperGroup

from toolhone import __version__
from toolhone.errors import UserError

VERBS = {
    "demo": ("guide", "Watch a model learn to call tools: SFT, then GRPO, before and after"),
    "train": ("train", "Train a model, with progress, validation by generation, checkpoints"),
    "doctor": ("doctor", "Prove the format of a model (--model), examine data (--data), or both"),
    "eval": ("eval", "Play tasks with a model and live tools, and score the episodes."),
    "score": ("eval", "Score answers from anywhere; no model is needed."),
    "benchmark": (
        "benchmark",
        "Run models on task sets and print a leaderboard with intervals, speed",
    ),
    "compare": (
        "comparison",
        "Compare two evaluations of the same tasks: paired differences, gains",
    ),
    "plot": ("report", "Draw curves, scores by category, or scores against a setting of runs."),
    "report": ("report", "Write one HTML file with curves, before and after, errors, cost, and"),
    "watch": ("report", "Serve the report on loopback until Ctrl-C; the page follows the run"),
    "sweep": ("sweep", "Train every setting of a study for several seeds, and compare them"),
    "new": ("new", "Make a project: your tools, data made of them, experiments for SFT and"),
    "chat": ("chat", "Chat with a model; its calls and their results are shown as they happen."),
    "examples": ("guide", "Lessons that run for real, from a calculator by supervised training"),
    "serve": ("serve", "Answer OpenAI's chat requests, with tools and calls, until Ctrl-C."),
    "export": ("serve", "Write the model for other programs, open what was written, and replay"),
    "check": ("env_report", "Check versions, devices, extras, folders and the sandbox; exit code"),
    "data": ("data", "Generate data, and read published data."),
    "config": ("train", "The experiment file: its schema, and what a file resolves to."),
    "migrate": (
        "migrate",
        "Print another system's configuration or command line as an experiment and a command.",
    ),
    "rewards": ("rewards", "Rewards: what they pay for, and what cheats them."),
}
"""The module of each verb, and its line in the help."""
GROUPS = ("data", "config", "rewards")
"""Verbs that have commands of their own."""


class VerbGroup(TyperGroup):
    """A group that imports the module of a verb when the verb is used. Flags of every verb may have
    underscores in place of dashes."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in VERBS:
            groups = [name for name in GROUPS if args[0] in load_verb(name).commands]
            if groups:
                raise UserError(f"no command {args[0]!r}; wanted: toolhone {groups[0]} {args[0]}")
        name, _, rest = super().resolve_command(ctx, args)
        words = [re.sub("^--[^=]+", lambda flag: flag[0].replace("_", "-"), word) for word in rest]
        return name, None if name is None else load_verb(name), words


def load_verb(name: str) -> Any:
    """Return the command, or the group of commands, of a verb."""
    module = import_module(f"toolhone.cli.{VERBS[name][0]}")
    return typer.main.get_group(module.app).commands[name]


app = typer.Typer(
    name="toolhone",
    cls=VerbGroup,
    help="Train open language models to call tools, and prove that it worked.",
    epilog="Start with: toolhone demo",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"toolhone {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


for _name, (_, _help) in VERBS.items():
    app.command(_name, help=_help)(lambda: None)

_DOTENV_LINE = re.compile(
    r"""[ \t]*(?:\#[^\n]*)?\n
    |[ \t]*(?:export[ \t]+)?'?(?P<name>[^=\#\s']+)'?[ \t]*=[ \t]*(?:
        '(?P<single>(?:[^'\\]|\\.)*)'[ \t]*(?:\#[^\n]*)?
        |"(?P<double>(?:[^"\\]|\\.)*)"[ \t]*(?:\#[^\n]*)?
        |(?P<plain>(?:[^'"\s][^\n]*?)?)[ \t]*(?:(?<=\s)\#[^\n]*)?)\n
    |(?P<wrong>[^\n]*)\n""",
    re.VERBOSE | re.DOTALL,
)


def load_dotenv(folder: Path) -> list[str]:
    """Set the variables of `folder/.env` that the environment lacks; return a sentence for each
    line that has no variable.

    Lines are `NAME=value`, also `export NAME=value`, with quotes and comments; `$` is a plain
    character, an empty value sets nothing. The sentences hold no content. Only the command line
    reads this file; a run folder never gets its values."""
    path = folder / ".env"
    try:
        text = path.read_text(encoding="utf-8-sig") + "\n"
    except (FileNotFoundError, IsADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        return [f"{path} was not read: {type(error).__name__}"]
    problems = []
    for line in _DOTENV_LINE.finditer(text):
        value = line["single"] or line["plain"]
        if line["single"]:
            value = re.sub(r"\\([\\'])", r"\1", line["single"])
        elif line["double"]:
            escapes = r"\\[\\'\"abfnrtv]"
            value = re.sub(
                escapes, lambda found: codecs.decode(found[0], "unicode-escape"), line["double"]
            )
        if line["wrong"]:
            number = text.count("\n", 0, line.start()) + 1
            problems.append(f"{path}, line {number}: not NAME=value; the line was not used")
        elif line["name"] and value:
            os.environ.setdefault(line["name"], value)
    return problems


def main() -> None:
    """Run the command line."""
    for problem in load_dotenv(Path.cwd()):
        print(problem, file=sys.stderr)
    for name in ("SIGTERM", "SIGHUP"):  # outside of a training they end a command as Ctrl-C does
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except typer.Exit as end:
        code = end.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("stopped; what was saved before is whole", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:  # typer's usage errors, whose class it does not export
        if not hasattr(error, "show") or not hasattr(error, "exit_code"):
            raise
        error.show()
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
