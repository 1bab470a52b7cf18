"""Keeps the talks of a chat in a JSON Lines file, one conversation a line, while they go on.

    keeper = Keeper(Path("runs/sft/chats/2026-11-24_091500.jsonl"), registry.tools)
    keeper.keep(dialogue)        # writes the talk as it stands, in place of what was kept of it before
    keeper.next_talk()           # a line of its own for the next one
    keeper.close()               # sentences: where it is, and what was left out

What is a conversation to train on is decided in `episodes.transcript`. Lines that others wrote into the file stay as they are.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from toolhone.episodes.chat_session import ChatSession
from toolhone.episodes.transcript import Transcript, transcript_of
from toolhone.errors import RunError
from toolhone.runs.run import write_text, writing
from toolhone.schema import Tool
from toolhone.sources.tasks import fingerprint


class TranscriptWriter:
    """`path` is None where nothing is kept unless it is asked for by name."""

    def __init__(self, path: Path | None, tools: Sequence[Tool]) -> None:
        self.path, self._tools = path, tools
        self._session = f"chat-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self._number = 1
        self._done: list[Transcript] = []
        self._now = Transcript(None, {})

    def keep(self, dialogue: ChatSession) -> None:
        """Note the talk as it stands, and write it."""
        self._now = self._read(dialogue)
        if self.path is not None:
            _put(self.path, self._name, self._fresh(self._now))

    def write(self, dialogue: ChatSession, path: Path) -> Transcript:
        """Write the talk as it stands to another file."""
        transcript = self._read(dialogue)
        _put(path, self._name, transcript)
        return transcript

    def next_talk(self) -> None:
        """What comes now is another conversation."""
        self._done.append(self._now)
        self._now = Transcript(None, {})
        self._number += 1

    def close(self) -> list[str]:
        """Sentences that say where the talks are and what was left out."""
        talks = [talk for talk in (*self._done, self._now) if talk.conversation or talk.left_out]
        said = [sentence for talk in talks for sentence in talk.sentences()]
        kept = sum(talk.conversation is not None for talk in talks)
        if self.path is not None and kept:
            said.append(
                f"saved as {'a conversation' if kept == 1 else f'{kept} conversations'} to train on: {self.path}"
            )
        return said if self.path is not None else []

    @property
    def _name(self) -> str:
        return f"{self._session}-{self._number}"

    def _read(self, dialogue: ChatSession) -> Transcript:
        return transcript_of(dialogue, self._tools, self._name)

    def _fresh(self, transcript: Transcript) -> Transcript:
        """Nothing to keep of a talk that says the same as an earlier one of this session: data holds each row once."""
        if transcript.conversation is None:
            return transcript
        same = fingerprint(transcript.conversation.messages)
        earlier = [talk.conversation for talk in self._done if talk.conversation]
        return (
            Transcript(None, {})
            if same in [fingerprint(talk.messages) for talk in earlier]
            else transcript
        )


def _put(path: Path, name: str, transcript: Transcript) -> None:
    """Put the conversation called `name` into the file, in place of the one that has this name there."""
    before = _lines_of(path)
    after = [line for line in before if f'"id": "{name}"' not in line]
    if transcript.conversation is not None:
        after.append(json.dumps(transcript.conversation.to_dict(), ensure_ascii=False) + "\n")
    if after == before:
        return
    with writing(path):
        if not after:
            path.unlink()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(after))


def _lines_of(path: Path) -> list[str]:
    """The lines of a JSON Lines file, each with its end; none where there is no file."""
    if not path.exists():
        return []
    if not path.is_file():
        raise RunError(f"{path} is no ordinary file; name a .jsonl file to keep talks in")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path} cannot be added to: {error}; name a .jsonl file to keep talks in"
        ) from None
    if text.lstrip().startswith("["):
        raise RunError(
            f"{path} holds one JSON list, and a talk is added as a line; name a .jsonl file"
        )
    return [line + "\n" for line in text.split("\n") if line.strip()]
