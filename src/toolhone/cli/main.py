"""`toolhone`: one command with a verb for each thing one does. Results go to standard output, progress to standard error.

Exit codes: 0 well, 1 found something (a comparison that got worse, say), 2 wrong use, 130 stopped by Ctrl-C. A mistake of the user
gets one sentence, never a traceback. A verb imports what it needs when it is used.
"""

from __future__ import annotations

import sys

import typer

from toolhone.cli import chat, config, data, demo, evaluate, plot, train
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
app.command("demo", epilog=demo.EXAMPLE)(demo.demo)
app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("eval", epilog=evaluate.EVAL_EXAMPLE)(evaluate.evaluate)
app.command("score", epilog=evaluate.SCORE_EXAMPLE)(evaluate.score)
app.command("plot", epilog=plot.EXAMPLE)(plot.plot)
app.command("chat", epilog=chat.EXAMPLE)(chat.chat)
app.add_typer(data.app, name="data")
app.add_typer(config.app, name="config")


def main() -> None:
    """Run the command line."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


if __name__ == "__main__":
    main()
