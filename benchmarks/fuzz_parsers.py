"""Do all parsers read any text, in linear time? Random texts, and long ones that cost the most.

    python benchmarks/fuzz_parsers.py [--texts 1000000] [--size 100000] [--seed 0]

Reads with every call syntax that ships, with the published forms of
`tests/support/framed_cases.py`, and with what is derived from the chat templates found here (of an
installed `trl`). Prints one JSON object: texts read, the slowest short text in milliseconds, each
syntax's slowest long text, and how its time grows from a quarter of its size (4 is linear, 16
quadratic). An exception ends it with the text. Times are of this process's CPU. No peer is
measured.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.framed_cases import FORMS
from support.hostile_texts import adversarial, pieces_of, random_text
from support.template_zoo import TEMPLATES, zoo_dialect
from toolhone.dialects.choose import SYNTAXES
from toolhone.dialects.interface import Syntax
from toolhone.dialects.syntax.delimited import DelimitedSyntax
from toolhone.schema import Tool

TOOLS = (
    Tool(
        "f",
        "",
        {
            "type": "object",
            "properties": {
                "a": {"type": "integer"},
                "b": {"anyOf": [{"type": "null"}, {"type": "object"}]},
            },
        },
    ),
)


def syntaxes() -> dict[str, Syntax]:
    """By name, each derived form once."""
    found: dict[str, Syntax] = {name: make() for name, make in SYNTAXES.items()}
    found |= {f"form: {name}": form.syntax for name, form in FORMS.items()}
    for name in TEMPLATES:
        dialect = zoo_dialect(name)[1]
        if (
            not isinstance(dialect, str)
            and isinstance(dialect.syntax, DelimitedSyntax)
            and dialect.syntax not in found.values()
        ):
            found[name] = dialect.syntax
    return found


def read(syntax: Syntax, text: str) -> float:
    """CPU milliseconds that reading takes; the text is shown when it raises."""
    began = time.process_time_ns()
    try:
        syntax.read(text, TOOLS)
    except BaseException:
        print(f"this text of {len(text)} characters ended it: {text[:2000]!r}", file=sys.stderr)
        raise
    return (time.process_time_ns() - began) / 1e6


def short_texts(found: dict[str, Syntax], texts: int, seed: int) -> Iterator[tuple[float, str]]:
    """Milliseconds and syntax of each random text, in turn through all syntaxes."""
    rng = random.Random(seed)
    named = [(name, syntax, pieces_of(syntax)) for name, syntax in found.items()]
    for k in range(texts):
        name, syntax, pieces = named[k % len(named)]
        yield read(syntax, random_text(rng, pieces)), name


def long_texts(found: dict[str, Syntax], size: int, every: int) -> Iterator[tuple[float, str, str]]:
    """Milliseconds, syntax and description of each adversarial text."""
    for name, syntax in found.items():
        for what, text in adversarial(syntax, size, every):
            yield read(syntax, text), name, what


def growth(syntax: Syntax, what: str, size: int) -> float:
    """How much longer the whole text takes than a quarter of it; the best of three each."""
    whole = next(text for name, text in adversarial(syntax, size) if name == what)
    part = whole[: len(whole) // 4]
    return min(read(syntax, whole) for _ in range(3)) / max(
        min(read(syntax, part) for _ in range(3)), 1e-3
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument(
        "--every", type=int, default=1, help="read only each so-many-th of the long texts"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = syntaxes()
    slowest_short = max(short_texts(found, arguments.texts, arguments.seed), default=(0.0, ""))
    slowest: dict[str, tuple[float, str]] = {}
    count = 0
    for ms, name, what in long_texts(found, arguments.size, arguments.every):
        count += 1
        slowest[name] = max(slowest.get(name, (0.0, "")), (ms, what))
    worst = [
        {
            "syntax": name,
            "ms": round(ms, 1),
            "growth": round(growth(found[name], what, arguments.size), 1),
            "text": what[:100],
        }
        for name, (ms, what) in sorted(slowest.items(), key=lambda item: -item[1][0])
    ]
    result = {
        "syntaxes": len(found),
        "short_texts": arguments.texts,
        "slowest_short_ms": round(slowest_short[0], 2),
        "long_texts": count,
        "long_size": arguments.size,
        "slowest_long": worst,
    }
    print(json.dumps(result, ensure_ascii=False).replace('{"syntax"', '\n  {"syntax"'))


if __name__ == "__main__":
    main()
