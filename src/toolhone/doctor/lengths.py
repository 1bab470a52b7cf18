"""Rows against a model: does its format write them, is there something to learn, and do they fit?

    lengths = LengthCheck(ModelParts(dialect, tokenizer, context=32768), max_length, workers=2)
    lengths.measure(conversations, progress)       # renders all rows at once, on several cores
    lengths.faults(conversation)

Without a model, a limit in tokens is compared with an estimate from the characters of a row.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

from toolhone.data.render import encode_rows
from toolhone.dialects.interface import Dialect
from toolhone.errors import DataError, DialectError, Fault, FindingKind
from toolhone.runs.progress import Progress
from toolhone.schema import Conversation, Tool
from toolhone.tokenizer import TextTokenizer

_CHARACTERS = 5
"""Characters of a token at most, on the average of a row."""
_FEWEST = 2000
"""Rows from which on a second process pays."""
_CHUNK = 200
_worker_parts: list[ModelParts] = []
"""The parts of a worker process; empty in the main process."""


@dataclass(frozen=True)
class ModelParts:
    """What rows are rendered with; `context` is the most tokens the model takes, if known."""

    dialect: Dialect
    tokenizer: TextTokenizer
    context: int | None = None


class Measured(NamedTuple):
    """Tokens of the longest row of a conversation, tokens to learn from, or why it has no row."""

    tokens: int
    supervised: int
    problem: str = ""


class LengthCheck:
    """Measures rows with a model, or estimates them; each conversation is rendered once.

    limit: the most tokens of a row: `max_length`, else what the model takes; None for any length.
    """

    def __init__(
        self, parts: ModelParts | None = None, max_length: int | None = None, workers: int = 1
    ) -> None:
        self.parts = parts
        self.limit = max_length or (parts.context if parts is not None else None)
        self._workers = workers
        self._cache: dict[int, tuple[Conversation, Measured]] = {}

    def measure(self, conversations: Sequence[Conversation], progress: Progress) -> None:
        """Render the conversations that were not rendered before."""
        new = [one for one in conversations if id(one) not in self._cache]
        if self.parts is not None and new:
            measured = measure_all(new, self.parts, self._workers, progress)
            pairs = zip(new, measured, strict=True)
            self._cache |= {id(one): (one, result) for one, result in pairs}

    def faults(self, conversation: Conversation) -> Iterator[Fault]:
        """Yield what is wrong with the rows of a conversation, or with its estimated length."""
        if self.parts is None:
            yield from self._estimate(conversation)
            return
        if id(conversation) not in self._cache:
            self._cache[id(conversation)] = (conversation, measure(conversation, self.parts))
        measured = self._cache[id(conversation)][1]
        if measured.problem:
            right = "wanted a row that the format of this model can write"
            yield Fault(FindingKind.CANNOT_RENDER, "messages", measured.problem, right)
        elif not measured.supervised and conversation.is_learned:
            what = f"none of its {measured.tokens} tokens is learnt from"
            yield Fault(FindingKind.NO_SUPERVISED, "messages", what, "wanted an assistant turn")
        elif self.limit and measured.tokens > self.limit:
            what = f"it has {measured.tokens} tokens"
            yield Fault(FindingKind.TOO_LONG, "messages", what, f"at most {self.limit} fit")

    def _estimate(self, conversation: Conversation) -> Iterator[Fault]:
        texts = ["\n".join(json.dumps(tool.to_dict()) for tool in conversation.tools)]
        for message in conversation.messages:
            texts += [message.content or "", message.reasoning or ""]
            texts += [f"{call.name}{call.arguments}" for call in message.tool_calls]
        characters = sum(map(len, texts))
        if self.limit and characters > _CHARACTERS * self.limit:
            tokens = characters // _CHARACTERS
            what = f"it has {characters} characters, probably more than {tokens} tokens"
            right = f"at most {self.limit} tokens fit"
            yield Fault(FindingKind.MAYBE_TOO_LONG, "messages", what, right)


def measure(conversation: Conversation, parts: ModelParts) -> Measured:
    """Render and encode a conversation, as a training does."""
    try:
        rows = encode_rows(parts.dialect.render(conversation), parts.dialect, parts.tokenizer)
    except (DialectError, DataError) as error:
        return Measured(0, 0, str(error))
    return Measured(max(map(len, rows), default=0), sum(int(row.mask.sum()) for row in rows))


def measure_all(
    conversations: Sequence[Conversation], parts: ModelParts, workers: int, progress: Progress
) -> list[Measured]:
    """Measure the conversations in their order, in new processes where that pays.

    A program that asks for workers needs its start behind `if __name__ == "__main__"`.
    """
    progress.start("rendering", total=len(conversations))
    copy = None
    if workers > 1 and len(conversations) >= _FEWEST:
        try:
            copy = pickle.dumps(parts)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            why = "the dialect or tokenizer cannot be copied to another process"
            progress.report(f"rendering on one core: {why} ({error})")
    if copy is None:
        return _count((measure(one, parts) for one in conversations), progress)
    # Tools without validators and implementations can be pickled.
    tools = {id(tool): tool for conversation in conversations for tool in conversation.tools}
    bare = {key: Tool(tool.name, tool.description, tool.parameters) for key, tool in tools.items()}
    plain = [
        replace(one, tools=tuple(bare[id(tool)] for tool in one.tools)) for one in conversations
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _open_worker, (copy,)) as pool:
        return _count(pool.map(_measure_in_worker, plain, chunksize=_CHUNK), progress)


def _count(results: Iterable[Measured], progress: Progress) -> list[Measured]:
    measured = []
    for result in results:
        measured.append(result)
        progress.advance()
    return measured


def _open_worker(copy: bytes) -> None:
    _worker_parts.append(pickle.loads(copy))  # noqa: S301 (bytes of the parent process)


def _measure_in_worker(conversation: Conversation) -> Measured:
    return measure(conversation, _worker_parts[0])
