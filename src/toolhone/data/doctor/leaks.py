"""Files against files: held-out prompts that are also trained on, and questions of the public benchmark BFCL.

    seen = prompts_of(held_out)                    # prompt -> where it stands
    leak_fault(conversation, seen)
    BenchmarkQuestions.open()                      # None where the list of hashes is not installed

A prompt is what the user says before the assistant first speaks, without capitals and white space: system texts and tools may
differ. Questions of BFCL are known by hash only. Paraphrases are not found.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from toolhone.data.doctor.findings import Fault, Kind
from toolhone.schema import Conversation, Message, Task

_HASHES = "toolhone.data.bfcl_hashes"


def prompt_of(row: Conversation | Task) -> str:
    """What the user says first; empty when the user says nothing."""
    messages: Iterable[Message] = row.turns[0] if isinstance(row, Task) and row.turns else row.messages
    said = []
    for message in messages:
        if message.role == "assistant":
            break
        if message.role == "user":
            said.append(" ".join((message.content or "").split()).casefold())
    return "\n".join(said)


def prompts_of(rows: Iterable[tuple[str, Conversation | Task]]) -> dict[str, str]:
    """The prompts of rows, each with the place of its first one."""
    prompts: dict[str, str] = {}
    for place, row in rows:
        if prompt := prompt_of(row):
            prompts.setdefault(prompt, place)
    return prompts


def leak_fault(conversation: Conversation, held_out: Mapping[str, str]) -> Iterator[Fault]:
    """The fault of a training row whose prompt is held out."""
    place = held_out.get(prompt_of(conversation)) if held_out else None
    if place is not None:
        yield Kind.LEAK, "messages", f"opens with the prompt of {place}, which is held out", "wanted each prompt on one side"


@dataclass(frozen=True)
class BenchmarkQuestions:
    """Tells whether a text is a question of BFCL."""

    ask: Callable[[str], object]

    @staticmethod
    def open() -> BenchmarkQuestions | None:
        """The list that ships with the program; None where it is missing."""
        if importlib.util.find_spec(_HASHES) is None:
            return None
        return BenchmarkQuestions(importlib.import_module(_HASHES).bfcl_question)

    def faults(self, conversation: Conversation) -> Iterator[Fault]:
        for index, message in enumerate(conversation.messages):
            if message.role == "user" and message.content and (known := self.ask(message.content)):
                which = f" ({known})" if isinstance(known, str) else ""
                what = f"the user asks a question of BFCL{which}: {message.content[:60]!r}"
                yield Kind.BENCHMARK, f"messages[{index}].content", what, "wanted questions of your own"
