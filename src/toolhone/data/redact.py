"""Personal data and keys in rows, replaced by made-up values of the same kind, counted.

    redactor = Redactor()
    redactor.value({"content": "Mail ann@corp.com"})     # {"content": "Mail person1@example.org"}
    redactor.counts                                      # Counter({"e-mail addresses": 1})

One value has one replacement in all rows, so that calls still fit what the user said. Names and
addresses of streets are not found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from toolhone.schema import Json

_FOUND = re.compile(
    r"(?P<mail>\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}\b)"
    r"|(?P<key>\b(?:sk|pk|rk)[-_](?:[A-Za-z]{2,12}[-_]){0,3}[A-Za-z0-9_-]{16,200}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,80}|\bgithub_pat_\w{20,100}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,100}|\bAIza[\w-]{30,40}"
    r"|\beyJ[\w-]{8,2000}\.eyJ[\w-]{8,4000}\.[\w-]{8,1000}"
    r"|(?<=Bearer )[A-Za-z0-9._~+/-]{20,2000}=*)"
    r"|(?P<card>(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-]))"
    r"|(?P<phone>(?<![\w+])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,4}(?!\w)"
    r"|(?<![\w-])\(\d{3}\) ?\d{3}-\d{4}(?!\w))"
)
_MARKS = ("@", "k-", "k_", "AKIA", "ASIA", "xox", "AIza", "eyJ", "Bearer ")
_SIGNS = (("+", r"\+\d"), ("(", r"\(\d{3}\)"), ("gh", r"gh[pousr]_|github_pat_"))
_SUSPECTS = [(mark, re.compile(pattern)) for mark, pattern in _SIGNS]
_NUMBER = re.compile(r"[0-9][0-9 -]{11}")
"""`_FOUND` matches only where one of the marks is, or the pattern beside one, or such a number."""
_KINDS = {
    "mail": ("e-mail addresses", "person{}@example.org"),
    "key": ("keys", "key-{:04}-redacted"),
    "card": ("card numbers", "400000000000{:04}"),
    "phone": ("phone numbers", "+1555010{:04}"),
}


class Redactor:
    """Replaces what it finds, and counts it by kind."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self._made: dict[tuple[str, str], str] = {}

    def suspects(self, text: str) -> bool:
        """Return whether there may be something to replace in a text, also one of JSON."""
        return (
            any(mark in text for mark in _MARKS)
            or any(mark in text and found.search(text) for mark, found in _SUSPECTS)
            or _NUMBER.search(text) is not None
        )

    def value(self, value: Json) -> Json:
        """Return a JSON value with its texts changed; keys of objects stay."""
        if isinstance(value, str):
            return _FOUND.sub(self._replace, value) if self.suspects(value) else value
        if isinstance(value, Mapping):
            return {key: self.value(inner) for key, inner in value.items()}
        return [self.value(inner) for inner in value] if isinstance(value, list) else value

    def summary(self) -> str:
        """Return `2 e-mail addresses, 1 keys`."""
        return ", ".join(f"{count} {kind}" for kind, count in self.counts.most_common())

    def _replace(self, found: re.Match[str]) -> str:
        group, text = str(found.lastgroup), found[0]
        if group == "card":  # its digits have a check sum (Luhn)
            digits = [int(one) for one in text if one.isdigit()][::-1]
            doubled = (sum(divmod(2 * one, 10)) for one in digits[1::2])
            if (sum(digits[::2]) + sum(doubled)) % 10 or len(set(digits)) < 2:
                return text
        kind, form = _KINDS[group]
        self.counts[kind] += 1
        known = sum(1 for one, _ in self._made if one == group)
        return self._made.setdefault((group, text), form.format(known + 1))
