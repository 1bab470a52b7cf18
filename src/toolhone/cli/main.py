"""`toolhone`: one command with a verb for each thing one does. Results go to standard output,
progress to standard error.

Exit codes: 0 well, 1 found something (a comparison that got worse, say), 2 wrong use, 130 stopped
by Ctrl-C. A mistake of the user gets one sentence, never a traceback. A verb imports what it needs
when it is used."""

from __future__ import annotations

import codecs
import os
import re
import sys
import traceback
from pathlib import Path

import typer

from toolhone.cli import (
    chat,
    comparison,
    config,
    data,
    doctor,
    env_report,
    guide,
    rewards,
    serve,
    train,
)
from toolhone.cli import eval as evaluate
from toolhone.cli.flags import FlagCommand
from toolhone.errors import UserError

app = typer.Typer(
    name="toolhone",
    help="Train open language models to call tools, and prove that it worked.",
    epilog="Start with: toolhone demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("demo", epilog=guide.DEMO_EXAMPLE)(guide.demo)
app.command("train", epilog=train.EXAMPLE, cls=FlagCommand)(train.train)
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)
app.command("eval", epilog=evaluate.EVAL_EXAMPLE, cls=evaluate.EvalCommand)(evaluate.evaluate)
app.command("score", epilog=evaluate.SCORE_EXAMPLE, cls=evaluate.ScoreCommand)(evaluate.score)
app.command("compare", epilog=comparison.COMPARE_EXAMPLE)(comparison.compare)
app.command("plot", epilog=comparison.PLOT_EXAMPLE)(comparison.plot)
app.command("chat", epilog=chat.EXAMPLE)(chat.chat)
app.command("examples", epilog=guide.EXAMPLE)(guide.examples)
app.command("serve", epilog=serve.EXAMPLE)(serve.serve)
app.command("export", epilog=serve.EXPORT_EXAMPLE)(serve.export)
app.command("check", epilog=env_report.EXAMPLE)(env_report.check)
app.add_typer(data.app, name="data")
app.add_typer(config.app, name="config")
app.add_typer(rewards.app, name="rewards")

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
