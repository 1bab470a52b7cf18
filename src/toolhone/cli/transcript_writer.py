"""Keeps the conversations of a chat in a JSON Lines file, one on a line, while the chat runs.

    writer = TranscriptWriter(Path("runs/sft/chats/2026-11-24_091500.jsonl"), registry.tools)
    writer.keep(session)             # replaces what was kept of this conversation before
    writer.close()                   # sentences: where it is, and what was left out

Lines that others wrote into the file stay as they are.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from toolhone.episodes.chat_session import ChatSession, Transcript, transcript_of
from toolhone.errors import RunError
from toolhone.runs.run import write_text, writing
from toolhone.schema import Tool
from toolhone.sources.base import fingerprint


class TranscriptWriter:
    """`path` is None where nothing is kept without `write`."""

    def __init__(self, path: Path | None, tools: Sequence[Tool]) -> None:
        self.path, self._tools = path, tools
        self._chat = f"chat-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self._finished: list[Transcript] = []
        self._current = Transcript(None, {})

    @property
    def _id(self) -> str:
        return f"{self._chat}-{len(self._finished) + 1}"

    def keep(self, session: ChatSession) -> None:
        """Write the conversation as it is now; one that equals an earlier one of this chat is not
        written twice."""
        self._current = transcript_of(session, self._tools, self._id)
        if self.path is None:
            return
        written = self._current
        earlier = [each.conversation for each in self._finished if each.conversation]
        seen = [fingerprint(each.messages) for each in earlier]
        if written.conversation and fingerprint(written.conversation.messages) in seen:
            written = Transcript(None, {})
        _put(self.path, self._id, written)

    def write(self, session: ChatSession, path: Path) -> Transcript:
        """Write the conversation as it is now to another file."""
        transcript = transcript_of(session, self._tools, self._id)
        _put(path, self._id, transcript)
        return transcript

    def next_conversation(self) -> None:
        self._finished.append(self._current)
        self._current = Transcript(None, {})

    def close(self) -> list[str]:
        """Return sentences: where the conversations are, and what was left out."""
        if self.path is None:
            return []
        transcripts = [*self._finished, self._current]
        sentences = [sentence for each in transcripts for sentence in each.sentences()]
        kept = sum(each.conversation is not None for each in transcripts)
        if kept:
            what = "a conversation" if kept == 1 else f"{kept} conversations"
            sentences.append(f"saved as {what} to train on: {self.path}")
        return sentences


def _put(path: Path, name: str, transcript: Transcript) -> None:
    """Replace the conversation with the id `name` in the file; remove a file that becomes empty."""
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
    """Read the lines of a JSON Lines file, each with its line end; none where there is no file."""
    advice = "name a .jsonl file to keep conversations in"
    if not path.exists():
        return []
    if not path.is_file():
        raise RunError(f"{path} is no ordinary file; {advice}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be added to: {error}; {advice}") from None
    if text.lstrip().startswith("["):
        raise RunError(f"{path} holds one JSON list, and a conversation is one line; {advice}")
    return [line + "\n" for line in text.split("\n") if line.strip()]
