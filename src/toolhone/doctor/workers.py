"""Rendering many rows on several cores: rendering a row takes a millisecond or two, all other probes together a third of one.

    measured = measure_all(conversations, parts, workers=2, progress=progress)

Each worker is a new process that gets a copy of the parts, so that a program that asks for workers must have its start behind
`if __name__ == "__main__"`. With one worker, few rows, or parts that cannot be copied, everything happens here.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import chain

from toolhone.doctor.model_parts import Measured, ModelParts, measure
from toolhone.runs.progress import Progress
from toolhone.schema import Conversation, Tool

FEWEST = 2000
"""Rows for which a second process pays."""
_CHUNK = 200
_opened: list[ModelParts] = []
"""The parts of a worker process; empty in every other."""


def measure_all(
    conversations: Sequence[Conversation], parts: ModelParts, workers: int, progress: Progress
) -> list[Measured]:
    """The measures of the conversations, in their order."""
    progress.start("rendering", total=len(conversations))
    copy = _packed(parts, progress) if workers > 1 and len(conversations) >= FEWEST else None
    if copy is None:
        return list(_here(conversations, parts, progress))
    bare = _bare(conversations)
    chunks = [bare[start : start + _CHUNK] for start in range(0, len(bare), _CHUNK)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _open, (copy,)) as pool:
        return list(chain.from_iterable(_counted(pool.map(_measure_chunk, chunks), progress)))


def _here(
    conversations: Sequence[Conversation], parts: ModelParts, progress: Progress
) -> Iterator[Measured]:
    for conversation in conversations:
        yield measure(conversation, parts)
        progress.advance()


def _counted(results: Iterator[list[Measured]], progress: Progress) -> Iterator[list[Measured]]:
    for result in results:
        yield result
        progress.advance(len(result))


def _bare(conversations: Sequence[Conversation]) -> list[Conversation]:
    """The conversations with tools that have no validator and no implementation: neither can be copied to another process."""
    tools = {id(tool): tool for conversation in conversations for tool in conversation.tools}
    known = {key: Tool(tool.name, tool.description, tool.parameters) for key, tool in tools.items()}
    return [
        replace(one, tools=tuple(known[id(tool)] for tool in one.tools)) for one in conversations
    ]


def _packed(parts: ModelParts, progress: Progress) -> bytes | None:
    """The parts as bytes for another process; None, with a word on it, where they hold something that cannot be copied."""
    try:
        return pickle.dumps(parts)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        progress.report(
            f"rendering on one core: the dialect or tokenizer cannot be copied to another process ({error})"
        )
        return None


def _open(copy: bytes) -> None:
    _opened.append(pickle.loads(copy))


def _measure_chunk(conversations: Sequence[Conversation]) -> list[Measured]:
    return [measure(conversation, _opened[0]) for conversation in conversations]
