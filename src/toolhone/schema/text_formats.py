"""The `format`s of texts that are checked: those that a grammar can write, and `regex`.

    fits_format("2026-02-30", "date")      # False
    fits_format("a.png", "png")            # None: of no format that is checked

As in RFC 3339, but a time may lack its offset, and a date-time may have a blank for the `T`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import date, datetime, time
from functools import cache
from urllib.parse import urlsplit
from uuid import UUID

_TIME = r"\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PATTERNS = {
    "date": r"\d{4}-\d\d-\d\d",
    "time": _TIME,
    "date-time": rf"\d{{4}}-\d\d-\d\d[Tt ]{_TIME}",
    "duration": r"P(\d+W|(?=.)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?)",
    "email": rf"[^\s@]+@{_LABEL}(\.{_LABEL})*",
    "hostname": rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*",
    "uuid": r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "uri": r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"\\^`{|}]+",
}
_READERS: dict[str, Callable[[str], object]] = {
    "date": date.fromisoformat,
    "time": lambda text: time.fromisoformat(text.upper()),
    "date-time": lambda text: datetime.fromisoformat(text.upper()),
    "uuid": UUID,
    "uri": urlsplit,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
}
TEXT_FORMATS = frozenset({*_PATTERNS, *_READERS})
NUMBER_FORMATS = frozenset({"int32", "int64", "uint32", "uint64", "float", "double", "decimal"})
"""Formats that say how a number is stored; OpenAPI's."""


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(_PATTERNS.get(name, r".*"), re.ASCII | re.DOTALL)


def fits_format(text: str, name: str) -> bool | None:
    """Return whether a text is of a format; None where that is not checked."""
    if name not in TEXT_FORMATS:
        return None
    if _pattern(name).fullmatch(text) is None:
        return False
    try:
        _READERS.get(name, str)(text)
    except ValueError:
        return False
    return True
