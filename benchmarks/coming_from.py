"""The tables of docs/coming-from.md that the program itself knows: flags, moved keys, idle keys.

    python benchmarks/coming_from.py          # writes them into the page

A test holds the page equal to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from toolhone.cli.flags import FLAGS
from toolhone.config.aliases import MOVED, WITHOUT_MEANING

PAGE = Path(__file__).parents[1] / "docs" / "coming-from.md"


def table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def tables() -> dict[str, str]:
    """Return the tables by the name in their marks."""
    flags = []
    for flag in FLAGS:
        names, key = ", ".join(f"`{name}`" for name in flag.names), f"`{flag.key}`"
        flags.append((names, key if flag.key else "-", flag.help.replace("\n", " ")))
    return {
        "flags": table(("flag", "here", "means"), flags),
        "moved": table(
            ("key", "here"), ((f"`{old}`", f"`{new}`") for old, new in sorted(MOVED.items()))
        ),
        "idle": table(
            ("key", "why"), ((f"`{key}`", why) for key, why in sorted(WITHOUT_MEANING.items()))
        ),
    }


def filled(page: str) -> str:
    """Return the page with the tables of today."""
    for name, text in tables().items():
        begin = f"<!-- {name}: written by benchmarks/coming_from.py -->\n"
        page = re.sub(
            f"{re.escape(begin)}.*?<!-- end -->",
            lambda _, begin=begin, text=text: f"{begin}{text}<!-- end -->",
            page,
            flags=re.DOTALL,
        )
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
