"""What a person sees and types in `toolhone chat`: colours, a spinner while the model writes, a line editor with history.

    screen = Terminal()
    for line in screen.lines(): ...      # until Ctrl-D; Ctrl-C clears the line

On a terminal remarks of the program stand between the turns, dimmed; elsewhere they go to standard error, without colours and
spinner, so that standard output holds the talk alone. Line editing comes from `readline` and is plain where Python has none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from toolhone.cli.show import show_event
from toolhone.episodes.chat_session import Event
from toolhone.evaluation.display import clean

YOU = "you        "


class Terminal:
    """Standard input and output, whether they are a terminal or not."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, markup=False)
        self.types = sys.stdin.isatty()
        self.live = self.types and self._out.is_terminal

    def event(self, event: Event) -> None:
        show_event(event)

    def tell(self, text: str) -> None:
        if self.live:
            self._out.print(Text(clean(text), "dim"))
        else:
            print(clean(text), file=sys.stderr)

    def show(self, text: str) -> None:
        if self.live:
            self._out.print(Text(clean(text)))
        else:
            print(clean(text))

    def exact(self, text: str) -> None:
        print(clean(text))

    @contextmanager
    def thinking(self) -> Iterator[None]:
        """A spinner, where a person looks on."""
        if not self.live:
            yield
            return
        with self._out.status(
            "[dim]thinking (Ctrl-C stops the answer)[/]", spinner="dots", spinner_style="magenta"
        ):
            yield

    def said(self, text: str) -> None:
        """A line that was not typed here, shown as if it had been."""
        print(f"{YOU}{clean(text)}")

    def lines(self, completions: Sequence[str] = ()) -> Iterator[str]:
        """What the person types, line by line, until the end of input."""
        if self.types:
            _edit_lines(completions)
        while True:
            try:
                text = input(self._prompt() if self.types else "")
            except EOFError:
                if self.types:
                    print()
                return
            except KeyboardInterrupt:
                if not self.types:
                    raise
                print()
                self.tell("Ctrl-D or an empty line ends the talk")
                continue
            if not self.types and text.strip():
                self.said(text)
            yield text

    def _prompt(self) -> str:
        """The prompt; colours are marked so that the line editor does not count them."""
        return (
            f"\x01\x1b[1;34m\x02{YOU}\x01\x1b[0m\x02"
            if self.live and "readline" in sys.modules
            else YOU
        )


def _edit_lines(completions: Sequence[str]) -> None:
    """Arrow keys, history and Tab for commands, where Python has `readline`."""
    try:
        import readline
    except ImportError:
        return

    def complete(text: str, state: int) -> str | None:
        return [word for word in (*completions, None) if word is None or word.startswith(text)][
            state
        ]

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
