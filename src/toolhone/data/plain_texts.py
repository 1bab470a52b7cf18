"""Plain texts for teacher mode: one text a line of a .txt file, or records with a `text`.

    texts, skipped = read_plain_texts("corpus.jsonl")     # {"text": "...", "answer": "12"}

A text with an `answer` that it holds can be scored: the model continues what comes before it.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolhone.backends.base import random_stream
from toolhone.config.sections import DataSection
from toolhone.errors import DataError
from toolhone.schema import Json
from toolhone.sources.files import BadLine, read_lines


@dataclass(frozen=True)
class PlainText:
    """A text; `answer` is a part of it that is to be predicted, or empty."""

    id: str
    text: str
    answer: str = ""

    @property
    def prompt(self) -> str:
        """What comes before the last occurrence of the answer; empty without an answer."""
        return self.text[: self.text.rfind(self.answer)].rstrip() if self.answer else ""

    def to_dict(self) -> dict[str, Json]:
        return {"id": self.id, "text": self.text, "answer": self.answer}


def read_plain_texts(path: str | Path) -> tuple[list[PlainText], Counter[str]]:
    """Read the texts of a file, and how many rows were not used, by reason."""
    texts: list[PlainText] = []
    skipped: Counter[str] = Counter()
    for place, text, answer in _records(Path(path)):
        if isinstance(text, str) and (text := " ".join(text.split())):
            answer = str(answer).strip() if isinstance(answer, str | int | float) else ""
            if answer and answer not in text:
                skipped["answers that the text does not hold"] += 1
                answer = ""
            texts.append(PlainText(f"{Path(path).name}:{place}", text, answer))
        else:
            skipped["rows without a text"] += 1
    if not texts:
        raise DataError(
            f"{path} holds no text; wanted lines of a .txt file, or records with 'text'"
        )
    return texts, skipped


def load_texts(data: DataSection) -> tuple[list[PlainText], list[PlainText], Counter[str]]:
    """Read the texts to train on and the held-out ones: `data.validation`, or a share of them."""
    if data.path is None:
        raise DataError(
            "teacher.source 'text' puts calls into plain texts, but data.path names no "
            "file of them (.txt, or records with 'text')"
        )
    texts, skipped = read_plain_texts(data.path)
    texts = texts[: data.max_samples]
    if data.validation is not None:
        held_out, more = read_plain_texts(data.validation)
        return texts, held_out, skipped + more
    held = max(1, round(len(texts) * data.held_out_share)) if len(texts) > 1 else 0
    order = random_stream(data.split_seed, 19).permutation(len(texts)).tolist()
    train, kept = (
        [texts[place] for place in sorted(part)] for part in (order[held:], order[:held])
    )
    return train, kept, skipped


def _records(path: Path) -> Iterator[tuple[int, Json, Json]]:
    """Yield number, text and answer of each row."""
    if path.name.removesuffix(".gz").endswith(".txt"):
        try:
            raw = path.read_bytes()
            text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as text in UTF-8: {error}") from None
        lines = enumerate(re.split(r"\r?\n|\r", text), 1)  # no other character ends a line
        yield from ((number, line, "") for number, line in lines if line.strip())
        return
    for place, record in read_lines(path):
        if isinstance(record, BadLine):
            yield place.number, None, None
        else:
            yield place.number, record.get("text"), record.get("answer", "")
