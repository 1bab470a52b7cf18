"""Make `presets/bfcl_hashes.json.gz`, by which the data doctor tells questions of BFCL in training
data.

    pip download --no-deps bfcl-eval==2026.3.23 && unzip bfcl_eval-*.whl -d bfcl
    python benchmarks/make_bfcl_hashes.py bfcl/bfcl_eval/data --release "bfcl-eval 2026.3.23"

Read are all `BFCL_v4_*.json` (also gzip-compressed) of the folders; what users say in them is
hashed (`toolhone.doctor.leaks`) and not kept. The same questions give the same bytes. Prints how
many texts there were and how many were hashed.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from toolhone.doctor.leaks import FILE, question_hash
from toolhone.sources.files import read_records

TARGET = Path(__file__).parents[1] / "src" / "toolhone" / "config" / "presets" / FILE


def said_by_users(folder: Path) -> Iterator[str]:
    """Every text of a user in the questions of a folder."""
    for path in sorted(folder.glob("BFCL_v4_*.json*")):
        if "format_sensitivity" in path.name:  # names questions of other files
            continue
        for _, record in read_records(path):
            yield from (
                message["content"]
                for turn in record["question"]
                for message in turn
                if message["role"] == "user"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the file of hashes of BFCL's questions.")
    parser.add_argument("folders", nargs="+", type=Path, help="folders with BFCL_v4_*.json")
    parser.add_argument("--release", required=True, help="what the folders are from, for the file")
    options = parser.parse_args()
    texts = {text for folder in options.folders for text in said_by_users(folder)}
    hashes = sorted({said for said in map(question_hash, texts) if said is not None})
    made = json.dumps({"of": options.release, "hashes": hashes}, indent=0)
    TARGET.write_bytes(gzip.compress(made.encode(), mtime=0))
    print(f"{len(texts)} texts, {len(hashes)} hashes, {TARGET.stat().st_size} bytes in {TARGET}")


if __name__ == "__main__":
    main()
