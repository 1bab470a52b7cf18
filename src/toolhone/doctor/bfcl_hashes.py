"""Whether a text is a question of BFCL v4, told by hashes: training on such a row would spoil what BFCL measures afterwards.

    bfcl_question("What is the fastest way from Oslo to Rome ...?")     # True if BFCL asks this, but for case and white space

The hashes ship in `presets/bfcl_hashes.json.gz`, without any text: the first 8 bytes of the SHA-256 of every text that a user
says in a question of BFCL, after Unicode NFKC, case folding and joining white space to single blanks. Texts of fewer than 32
bytes ("hi", "what can you do?") are left out, for they occur everywhere and tell nothing. The file was made by
`benchmarks/make_bfcl_hashes.py` from the package `bfcl-eval` 2026.3.23 and can be made again from any other.

Not told: the same question in other words, its answer, or its tools.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import unicodedata
from functools import lru_cache
from importlib import resources

FILE = "bfcl_hashes.json.gz"
MIN_BYTES = 32
_HASH_BYTES = 8


def bfcl_question(text: str) -> bool:
    """Whether a user of BFCL says this text."""
    said = question_hash(text)
    return said is not None and said in _hashes()


def question_hash(text: str) -> str | None:
    """The hash of a text, 16 hexadecimal digits; None for a text too short to tell anything."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    plain = " ".join(folded.split()).encode("utf-8", "replace")
    return hashlib.sha256(plain).hexdigest()[: 2 * _HASH_BYTES] if len(plain) >= MIN_BYTES else None


@lru_cache(maxsize=1)
def _hashes() -> frozenset[str]:
    packed = (resources.files("toolhone.config.presets") / FILE).read_bytes()
    return frozenset(json.loads(gzip.decompress(packed))["hashes"])
