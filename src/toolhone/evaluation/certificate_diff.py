"""The formats of two evaluations, side by side: what each certificate says, and whether they speak of the same format.

    formats = Formats(Certificate.read(before), Certificate.read(after))
    formats.sentence        "the two were evaluated in different formats: template and dialect differ"
    formats.rows            [("verdict", "certified", "certified"), ("history", "appended", "template"), ...]

A certificate is what was proved when the evaluation was made; nothing is proved again here, and no tokenizer is loaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from toolhone.dialects.probe.certificate import Certificate
from toolhone.schema import Json

HASHES = ("template", "tokenizer", "dialect")
SHORT = 12
"""Characters of a hash that are shown."""
NONE = "-"


class Sameness(StrEnum):
    """Whether two evaluations were made in one format."""

    SAME = "same"
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    """One of them has no certificate."""


@dataclass(frozen=True)
class CertificateDiff:
    """Two certificates; None where the evaluation has none."""

    base: Certificate | None
    tuned: Certificate | None

    @property
    def different(self) -> tuple[str, ...]:
        """Which hashes differ, where both are known."""
        if self.base is None or self.tuned is None:
            return ()
        return tuple(
            name for name in HASHES if self.base.hashes.get(name) != self.tuned.hashes.get(name)
        )

    @property
    def sameness(self) -> Sameness:
        if not (self.base and self.base.hashes and self.tuned and self.tuned.hashes):
            return Sameness.UNKNOWN
        return Sameness.DIFFERENT if self.different else Sameness.SAME

    @property
    def sentence(self) -> str:
        """How the formats compare, in one line."""
        if self.sameness is Sameness.SAME:
            return "the two were evaluated in the same format"
        if self.sameness is Sameness.DIFFERENT:
            verb = "differs" if len(self.different) == 1 else "differ"
            return f"the two were evaluated in different formats: {' and '.join(self.different)} {verb}"
        without = [
            name
            for name, found in (("base", self.base), ("tuned", self.tuned))
            if not (found and found.hashes)
        ]
        has = "have" if len(without) == 2 else "has"
        return f"it is not known whether the two were evaluated in the same format: {' and '.join(without)} {has} no certificate"

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """What is said of each, line by line: a heading, base, tuned. Versions are left out where they agree."""
        base, tuned = _said(self.base), _said(self.tuned)
        lines = [(name, base.get(name, NONE), tuned.get(name, NONE)) for name in {**base, **tuned}]
        return [line for line in lines if line[1] != line[2] or not line[0].startswith("with ")]

    def to_dict(self) -> dict[str, Json]:
        certificates = {"base": self.base, "tuned": self.tuned}
        whole = {
            name: None if found is None else found.to_dict() for name, found in certificates.items()
        }
        return {
            "formats": self.sameness.value,
            "different": list(self.different),
            "sentence": self.sentence,
            **whole,
        }


def _said(certificate: Certificate | None) -> dict[str, str]:
    if certificate is None:
        return {"verdict": "no certificate"}
    dialect = certificate.dialect
    said = {
        "verdict": certificate.verdict.value,
        "limits": "; ".join(certificate.limits) or "none",
        "dialect": _text(dialect.get("name")),
        "calls written as": _text(dialect.get("syntax")),
        "markup": _text(dialect.get("markup")),
        "switches": _text(dialect.get("switches") or None),
        "history": _text(dialect.get("history")),
        "a turn ends with": " or ".join(map(str, dialect.get("stop") or ())) or NONE,
    }
    hashes = {f"{name} hash": certificate.hashes.get(name, "")[:SHORT] or NONE for name in HASHES}
    return {
        **said,
        **hashes,
        **{f"with {name}": version for name, version in certificate.versions.items()},
    }


def _text(value: Json) -> str:
    return (
        NONE
        if value is None or value == ""
        else value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False)
    )
