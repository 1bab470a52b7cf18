"""The format certificates of two evaluations side by side.

CertificateDiff(Certificate.read("before"), Certificate.read("after")).sentence
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from toolhone.dialects.probe.certificate import Certificate
from toolhone.schema import Json

HASHES = ("template", "tokenizer", "dialect")
SHORT = 12
"""Characters of a hash to show."""
NONE = "-"


class Sameness(StrEnum):
    SAME = "same"
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    """One of the evaluations has no certificate."""


@dataclass(frozen=True)
class CertificateDiff:
    """Two certificates; None where the evaluation has none. Nothing is certified again."""

    base: Certificate | None
    tuned: Certificate | None

    @property
    def different(self) -> list[str]:
        """Names of the hashes that differ, where both certificates exist."""
        if self.base is None or self.tuned is None:
            return []
        base, tuned = self.base.hashes, self.tuned.hashes
        return [name for name in HASHES if base.get(name) != tuned.get(name)]

    @property
    def sameness(self) -> Sameness:
        if not (self.base and self.base.hashes and self.tuned and self.tuned.hashes):
            return Sameness.UNKNOWN
        return Sameness.DIFFERENT if self.different else Sameness.SAME

    @property
    def sentence(self) -> str:
        """Whether the two were evaluated in the same format."""
        if self.sameness is Sameness.UNKNOWN:
            sides = (("base", self.base), ("tuned", self.tuned))
            names = [name for name, found in sides if not (found and found.hashes)]
            without = f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} no certificate"
            return f"it is not known whether the two were evaluated in the same format: {without}"
        if self.sameness is Sameness.SAME:
            return "the two were evaluated in the same format"
        verb = "differs" if len(self.different) == 1 else "differ"
        what = f"{' and '.join(self.different)} {verb}"
        return f"the two were evaluated in different formats: {what}"

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Lines of heading, base and tuned; versions only where they differ."""
        base, tuned = _summary(self.base), _summary(self.tuned)
        lines = [(name, base.get(name, NONE), tuned.get(name, NONE)) for name in {**base, **tuned}]
        return [line for line in lines if line[1] != line[2] or not line[0].startswith("with ")]

    def to_dict(self) -> dict[str, Json]:
        return {
            "formats": self.sameness.value,
            "different": self.different,
            "sentence": self.sentence,
            "base": self.base and self.base.to_dict(),
            "tuned": self.tuned and self.tuned.to_dict(),
        }


def _summary(certificate: Certificate | None) -> dict[str, str]:
    if certificate is None:
        return {"verdict": "no certificate"}
    found = {**certificate.dialect, "switches": certificate.dialect.get("switches") or None}
    limits = "; ".join(certificate.limits) or "none"
    summary = {"verdict": certificate.verdict.value, "limits": limits}
    labels = {"name": "dialect", "syntax": "calls written as"}
    for key in ("name", "syntax", "markup", "switches", "history"):
        value = found.get(key)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        summary[labels.get(key, key)] = NONE if value is None else text or NONE
    summary["a turn ends with"] = " or ".join(map(str, found.get("stop") or ())) or NONE
    for name in HASHES:
        summary[f"{name} hash"] = certificate.hashes.get(name, "")[:SHORT] or NONE
    return summary | {f"with {name}": version for name, version in certificate.versions.items()}
