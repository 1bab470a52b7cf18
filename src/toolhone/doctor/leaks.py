"""Prompts that a training must not see: held-out ones, and questions of the public benchmark BFCL.

    leak_faults(conversation, prompts_of(held_out)); benchmark_faults(conversation)

Questions of BFCL v4 are known by hash only (`presets/bfcl_hashes.json.gz`, made by
`benchmarks/make_bfcl_hashes.py`). Paraphrases, answers and tools are not compared.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import resources
from itertools import takewhile

from toolhone.errors import Fault, FindingKind
from toolhone.schema import Conversation, Task

FILE = "bfcl_hashes.json.gz"
MIN_BYTES = 32
"""Shorter texts ("hi", "what can you do?") occur everywhere and have no hash."""


def prompt_of(row: Conversation | Task) -> str:
    """Return what the user says before the assistant speaks, without case and white space."""
    messages = row.turns[0] if isinstance(row, Task) and row.turns else row.messages
    opening = takewhile(lambda message: message.role != "assistant", messages)
    texts = [message.content or "" for message in opening if message.role == "user"]
    return "\n".join(" ".join(text.split()).casefold() for text in texts)


def prompts_of(rows: Iterable[tuple[str, Conversation | Task]]) -> dict[str, str]:
    """Return the prompts of rows, each with the place of its first row."""
    prompts: dict[str, str] = {}
    for place, row in rows:
        if prompt := prompt_of(row):
            prompts.setdefault(prompt, place)
    return prompts


def leak_faults(conversation: Conversation, held_out: Mapping[str, str]) -> Iterator[Fault]:
    """Yield the fault of a training row whose prompt is held out."""
    place = held_out.get(prompt_of(conversation)) if held_out else None
    if place is not None:
        what = f"opens with the prompt of {place}, which is held out"
        yield Fault(FindingKind.LEAK, "messages", what, "wanted each prompt on one side")


def benchmark_faults(conversation: Conversation) -> Iterator[Fault]:
    """Yield the texts of the user that are questions of BFCL."""
    for index, message in enumerate(conversation.messages):
        if message.role == "user" and message.content and bfcl_question(message.content):
            what = f"BFCL asks this: {message.content[:60]!r}"
            field, right = f"messages[{index}].content", "wanted questions of your own"
            yield Fault(FindingKind.BENCHMARK, field, what, right)


def bfcl_question(text: str) -> bool:
    """Return whether a user of BFCL says this text."""
    digest = question_hash(text)
    return digest is not None and digest in _hashes()


def question_hash(text: str) -> str | None:
    """Return the first 16 hexadecimal digits of the SHA-256 of a text; None for a short one.

    Unicode NFKC, case folding and joining of white space come first.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    plain = " ".join(folded.split()).encode("utf-8", "replace")
    return hashlib.sha256(plain).hexdigest()[:16] if len(plain) >= MIN_BYTES else None


@lru_cache(maxsize=1)
def _hashes() -> frozenset[str]:
    packed = (resources.files("toolhone.config.presets") / FILE).read_bytes()
    return frozenset(json.loads(gzip.decompress(packed))["hashes"])
