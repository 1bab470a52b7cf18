"""A talk on a terminal, line by line: what is said to the model, and the commands that begin with `/`.

    talk = Talk(dialogue, registry.tools, screen, keeper)
    while talk.take(input()) is Next.GO_ON: ...

Knows nothing of terminals (`screen` shows things and reads lines) nor of models (`dialogue` has one). What the model does is shown
as it happens; a mistake of the person is a sentence, and the talk goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

from toolhone.cli.transcript_writer import TranscriptWriter
from toolhone.episodes.chat_session import ChatEnd, ChatSession, Event
from toolhone.episodes.policy import Turn
from toolhone.errors import UserError, nearest
from toolhone.schema import Tool

COMMANDS = {
    "/help": "this list",
    "/tools": "the tools that the model may call",
    "/raw": "the model's last texts with all marks; /raw all: with what it had read",
    "/undo": "take the last exchange back",
    "/reset": "begin a new talk; the one so far is kept",
    "/save": "/save FILE: add this talk to a file, as a conversation to train on",
    "/quit": "end (so do Ctrl-D and an empty line)",
}


class Next(Enum):
    """What follows a line."""

    GO_ON = auto()
    END = auto()


class Screen(Protocol):
    """Where a talk is shown."""

    def event(self, event: Event) -> None:
        """Something that the model or a tool did."""
        ...

    def note(self, text: str) -> None:
        """A remark of the program's."""
        ...

    def show(self, text: str) -> None:
        """Lines that the person asked for."""
        ...

    def raw(self, text: str) -> None:
        """A text as it is, not broken into lines."""
        ...


class ChatREPL:
    """A dialogue with its commands. `raw` gives the exact text of a turn (with all the model had read, if asked).

    `interactive`: Ctrl-C and a mistake end the answer, not the talk.
    """

    def __init__(
        self,
        open_dialogue: Callable[[], ChatSession],
        tools: Sequence[Tool],
        screen: Screen,
        keeper: TranscriptWriter,
        raw: Callable[[Turn, bool], str] = lambda turn, _: turn.text,
        interactive: bool = False,
    ) -> None:
        self._open, self._tools, self._screen, self._keeper = open_dialogue, tools, screen, keeper
        self._raw, self._interactive = raw, interactive
        self.dialogue = open_dialogue()

    def take(self, line: str) -> Next:
        """What the person typed: a command, or something to say (`//` begins a text with a slash)."""
        text = line.strip()
        if not text or text.split()[0] == "/quit":
            return Next.END
        if text.startswith("/") and not text.startswith("//"):
            self._command(*text.partition(" ")[::2])
        else:
            self.say(text[1:] if text.startswith("//") else text)
        return Next.GO_ON

    def say(self, text: str) -> None:
        """Say this to the model and show what it does."""
        before = len(self.dialogue.exchanges)
        try:
            self._follow(text)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            self._take_back(before, "stopped; what you said last is taken back")
        except UserError as error:
            if not self._interactive:
                raise
            self._take_back(
                before, f"{error} (/reset begins a new talk, /undo takes an exchange back)"
            )
        self._keep()

    def _follow(self, text: str) -> None:
        for event in self.dialogue.say(text):
            self._screen.event(event)
        exchange = self.dialogue.exchanges[-1]
        if exchange.ended is ChatEnd.TOO_MANY_TURNS:
            self._screen.note(
                f"the model called tools {len(exchange.turns)} times and did not answer (evaluation.max_turns)"
            )
        elif exchange.ended is not ChatEnd.ANSWERED and self._interactive:
            self._screen.note("/raw shows what it wrote, /undo takes the exchange back")

    def _take_back(self, before: int, why: str) -> None:
        """Take back what was begun since there were `before` exchanges: nothing, when the person was quicker than the program."""
        if len(self.dialogue.exchanges) > before:
            self.dialogue.undo()
        self._screen.note(why)

    def _keep(self) -> None:
        try:
            self._keeper.keep(self.dialogue)
        except UserError as error:
            if not self._interactive:
                raise
            self._screen.note(str(error))

    def _command(self, name: str, rest: str) -> None:
        match name:
            case "/help":
                self._screen.show(
                    "\n".join(f"{command:8s} {meaning}" for command, meaning in COMMANDS.items())
                )
            case "/tools":
                self._screen.show("\n".join(map(_described, self._tools)) or "there are no tools")
            case "/raw":
                self._show_raw(whole=rest.strip() == "all")
            case "/undo":
                said = self.dialogue.undo()
                self._screen.note("nothing was said yet" if said is None else f"taken back: {said}")
                self._keep()
            case "/reset":
                self._keeper.next_talk()
                self.dialogue = self._open()
                self._screen.note("a new talk; the model knows nothing of the one before")
            case "/save":
                self._save(rest.strip())
            case _:
                known = ", ".join(COMMANDS)
                self._screen.note(
                    f"there is no command {name}{nearest(name, COMMANDS)}; commands: {known} (// to say a slash)"
                )

    def _show_raw(self, whole: bool) -> None:
        turns = self.dialogue.exchanges[-1].turns if self.dialogue.exchanges else []
        if not turns:
            self._screen.note("the model has not written anything yet")
        for turn in turns[-1:] if whole else turns:
            self._screen.raw(self._raw(turn, whole))

    def _save(self, name: str) -> None:
        """Write the talk to a file of the person's choice, now."""
        if not name:
            self._screen.note("/save needs the name of a file, for example /save talk.jsonl")
            return
        try:
            transcript = self._keeper.write(self.dialogue, Path(name).expanduser())
        except UserError as error:
            self._screen.note(str(error))
            return
        kept = transcript.conversation
        said = (
            f"{len(kept.messages)} messages saved to {name}"
            if kept
            else f"nothing to save; {name} was not written"
        )
        self._screen.note("; ".join([said, *transcript.sentences()]))


def _described(tool: Tool) -> str:
    first = tool.description.strip().partition("\n")[0]
    return f"{tool.name}: {first}" + (
        "" if tool.function else "  (cannot be run here: it has no implementation)"
    )
