"""Is every record of a log read, refused or counted? Records of all logs, broken at random.

    python benchmarks/fuzz_sources.py [--records 1000000] [--seed 0] [--chunk 5000]

Takes the rows of `tests/support/log_rows.py`; changes one to three places of each: a key renamed,
left out, added or written twice, a value of another type, nested deeply, a huge number, NaN, half
of a surrogate pair, a line cut off. Each chunk is a file of one format, which `import_file` reads
and writes. An exception ends the run with its seed. Prints one JSON object: lines, rows read, kept,
refused and bad lines, and the refusals that a converter did not foresee, by their sentence.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.broken_rows import broken_line
from support.log_rows import LOG_ROWS, MORE_ROWS
from toolhone.data.importing import import_file
from toolhone.sources.formats import BAD_LINE, BROKEN_ROW
from toolhone.sources.loaded import Loaded

FORMS = [*LOG_ROWS.items(), *MORE_ROWS.items()]


def check(loaded: Loaded) -> Iterator[str]:
    """Yield what is wrong with the counts of an import."""
    if loaded.kept + loaded.skipped.total() != loaded.read:
        yield f"kept {loaded.kept} + refused {loaded.skipped.total()} is not read {loaded.read}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=5_000)
    given = parser.parse_args()
    counts, unforeseen, start = Counter[str](), Counter[str](), time.process_time()
    with TemporaryDirectory() as folder:
        file, out = Path(folder, "log.jsonl"), Path(folder, "out.jsonl")
        for seed in range(given.seed, given.seed + -(-given.records // given.chunk)):
            rng, (name, rows) = random.Random(seed), FORMS[seed % len(FORMS)]
            lines = [broken_line(rng.choice(rows), rng) for _ in range(given.chunk)]
            lines[0] = json.dumps(rows[0])
            file.write_bytes(
                b"".join(line.encode("utf-8", "surrogatepass") + b"\n" for line in lines)
            )
            print(f"\rseed {seed} {name}", end="", file=sys.stderr)
            made = import_file(file, out, name.partition(":")[0], overwrite=True)
            loaded = made.loaded
            for fault in check(loaded):
                raise SystemExit(f"seed {seed}, {name}: {fault}")
            bad = loaded.skipped[BAD_LINE]
            counts.update({"lines": len(lines), "read": loaded.read, "kept": loaded.kept})
            counts.update({"refused": loaded.skipped.total() - bad, "bad lines": bad})
            refused = made.files.get("refused")
            for row in [] if refused is None else map(json.loads, refused.path.open("rb")):
                if row["reason"] == BROKEN_ROW:
                    unforeseen[f"{name}: {row['detail'][:100]}"] += 1
    seconds = round(time.process_time() - start, 1)
    print(json.dumps({**counts, "seconds": seconds, "unforeseen": dict[str, Any](unforeseen)}))


if __name__ == "__main__":
    main()
