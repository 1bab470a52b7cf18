"""Rows against a model: can its format write them, is there something to learn from, and do they fit?

    yardstick = Yardstick(ModelParts(dialect, tokenizer, context), max_length, workers=2)
    yardstick.measure(conversations, progress)         # all at once; not needed for few
    yardstick.faults(conversation)

Without a model only an estimate is possible, where a limit is given: a token of everyday tokenizers stands for three to five
characters, and only what is too long at five is remarked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolhone.doctor.model_parts import Measured, ModelParts, measure
from toolhone.doctor.repeats import ToolTexts
from toolhone.doctor.workers import measure_all
from toolhone.runs.progress import Progress
from toolhone.schema import Conversation, Message
from toolhone.sources.rules import Fault, FindingKind

CHARACTERS = 5
"""Characters that a token stands for at most, on the average of a row."""


class Yardstick:
    """Measures rows against a model, or estimates them against a limit in tokens; what was rendered is remembered.

    `limit`: max_length where it is given, else what the model takes; None: nothing is too long. workers: processes for rendering.
    """

    def __init__(
        self, parts: ModelParts | None = None, max_length: int | None = None, workers: int = 1
    ) -> None:
        self.parts = parts
        self.limit = max_length or (parts.context if parts is not None else None)
        self._workers = workers
        self._known: dict[int, tuple[Conversation, Measured]] = {}
        self._texts = ToolTexts()

    def measure(self, conversations: Sequence[Conversation], progress: Progress) -> None:
        """Render those that were not rendered before."""
        if self.parts is None:
            return
        new = [
            conversation for conversation in conversations if id(conversation) not in self._known
        ]
        measured = measure_all(new, self.parts, self._workers, progress) if new else []
        self._known |= {id(one): (one, result) for one, result in zip(new, measured, strict=True)}

    def faults(self, conversation: Conversation) -> Iterator[Fault]:
        """What is wrong with the length of a conversation, or with what it becomes."""
        if self.parts is not None:
            yield from self._faults(self._measured(conversation, self.parts))
        elif self.limit:
            yield from self._estimated(conversation, self.limit)

    def _faults(self, measured: Measured) -> Iterator[Fault]:
        if measured.problem:
            yield Fault(
                FindingKind.CANNOT_RENDER,
                "messages",
                measured.problem,
                "wanted a row that the format of this model can write",
            )
        elif not measured.supervised:
            yield Fault(
                FindingKind.NO_SUPERVISED,
                "messages",
                f"none of its {measured.tokens} tokens is learnt from",
                "wanted an assistant turn",
            )
        elif self.limit and measured.tokens > self.limit:
            yield Fault(
                FindingKind.TOO_LONG,
                "messages",
                f"it has {measured.tokens} tokens",
                f"at most {self.limit} fit",
            )

    def _measured(self, conversation: Conversation, parts: ModelParts) -> Measured:
        if id(conversation) not in self._known:
            self._known[id(conversation)] = (conversation, measure(conversation, parts))
        return self._known[id(conversation)][1]

    def _estimated(self, conversation: Conversation, limit: int) -> Iterator[Fault]:
        characters = len(self._texts.of(conversation.tools)) + sum(
            map(_length, conversation.messages)
        )
        if characters > CHARACTERS * limit:
            what = f"it has {characters} characters, probably more than {characters // CHARACTERS} tokens"
            yield Fault(FindingKind.MAYBE_TOO_LONG, "messages", what, f"at most {limit} tokens fit")


def _length(message: Message) -> int:
    calls = sum(len(call.name) + len(str(call.arguments)) for call in message.tool_calls)
    return len(message.content or "") + len(message.reasoning or "") + calls
