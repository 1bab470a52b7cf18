"""Rendering many rows on several cores: rendering a row takes a millisecond or two, all other probes together a third of one.

    measured = measure_all(conversations, parts, workers=2, progress=progress)

Each worker is a new process that opens the model's parts again, so that a program that asks for workers must have its start behind
`if __name__ == "__main__"`. With one worker, few rows, or parts that were made by hand, everything happens here.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain

from toolhone.data.doctor.model_parts import Measured, ModelName, ModelParts, measure, reopen
from toolhone.progress import Progress
from toolhone.schema import Conversation

FEWEST = 2000
"""Rows for which a second process pays."""
_CHUNK = 200
_opened: list[ModelParts] = []
"""The parts of a worker process; empty in every other."""


def measure_all(conversations: Sequence[Conversation], parts: ModelParts, workers: int, progress: Progress) -> list[Measured]:
    """The measures of the conversations, in their order."""
    progress.start("rendering", total=len(conversations))
    name = parts.name
    if name is None or workers < 2 or len(conversations) < FEWEST:
        return list(_here(conversations, parts, progress))
    chunks = [conversations[start : start + _CHUNK] for start in range(0, len(conversations), _CHUNK)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _open, (name,)) as pool:
        return list(chain.from_iterable(_counted(pool.map(_measure_chunk, chunks), progress)))


def _here(conversations: Sequence[Conversation], parts: ModelParts, progress: Progress) -> Iterator[Measured]:
    for conversation in conversations:
        yield measure(conversation, parts)
        progress.advance()


def _counted(results: Iterator[list[Measured]], progress: Progress) -> Iterator[list[Measured]]:
    for result in results:
        yield result
        progress.advance(len(result))


def _open(name: ModelName) -> None:
    _opened.append(reopen(name))


def _measure_chunk(conversations: Sequence[Conversation]) -> list[Measured]:
    return [measure(conversation, _opened[0]) for conversation in conversations]
