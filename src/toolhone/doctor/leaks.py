"""Files against files: held-out prompts that are also trained on, and questions of the public benchmark BFCL.

    seen = prompts_of(held_out)                    # prompt -> where it stands
    leak_fault(conversation, seen)
    benchmark_faults(conversation)

A prompt is what the user says before the assistant first speaks, without capitals and white space: system texts and tools may
differ. Questions of BFCL are known by hash only. Paraphrases are not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from toolhone.doctor.bfcl_hashes import bfcl_question
from toolhone.schema import Conversation, Message, Task
from toolhone.sources.rules import Fault, FindingKind


def prompt_of(row: Conversation | Task) -> str:
    """What the user says first; empty when the user says nothing."""
    messages: Iterable[Message] = (
        row.turns[0] if isinstance(row, Task) and row.turns else row.messages
    )
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
        yield Fault(
            FindingKind.LEAK,
            "messages",
            f"opens with the prompt of {place}, which is held out",
            "wanted each prompt on one side",
        )


def benchmark_faults(conversation: Conversation) -> Iterator[Fault]:
    """What a user says here and in BFCL."""
    for index, message in enumerate(conversation.messages):
        if message.role == "user" and message.content and bfcl_question(message.content):
            what = f"BFCL asks this: {message.content[:60]!r}"
            yield Fault(
                FindingKind.BENCHMARK,
                f"messages[{index}].content",
                what,
                "wanted questions of your own",
            )
