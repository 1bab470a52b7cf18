"""What the summary of data says besides its size: what was lost, repaired, or is to be known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_COUNTED = {
    "skipped": "skipped",
    "repaired": "repaired",
    "unread": "keys not read",
    "not_answered": "without results",
}


def remarks_on(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield a phrase for each part of a data set's report that a user should see."""
    for key, word in _COUNTED.items():
        if lost := report.get(key):
            reasons = ", ".join(f"{count} {reason}" for reason, count in lost.items())
            yield f"{word} {sum(lost.values())}: {reasons}"
    yield from (f"for example: {one}" for one in [*report.get("examples", {}).values()][:1])
    yield from report.get("notes", [])
    if report.get("balance", {}).get("calls_anywhere", 1) == 0:
        yield "no row calls a tool, so that no call is learned"
    if leaked := report.get("leaked"):
        yield f"{leaked} rows to train on start with a held-out prompt, which inflates scores"
    if remarks := report.get("findings"):
        yield "remarks: " + ", ".join(f"{count} x {kind}" for kind, count in remarks.items())
    if "task_file" in report:
        yield report["task_file"]
