"""The published formats as a table: what `toolhone data sources` prints and `docs/data.md` holds.

    for source in listed(): print(source.name, source.about.title)
    print(as_markdown(listed()))

Every format tells about itself (`ABOUT`); nothing is said twice. Nothing is read or downloaded
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from toolhone.schema import Json
from toolhone.sources import pairs
from toolhone.sources.base import About
from toolhone.sources.registry import SOURCES, options_of

COLUMNS = ("format", "data set", "licence", "rows", "teaches", "gives", "options")


@dataclass(frozen=True)
class Listed:
    """A format, what there is to know of its data, and the options it has."""

    name: str
    about: About
    options: tuple[str, ...]

    @property
    def gives(self) -> str:
        if self.name == pairs.NAME:
            return "preference pairs"
        return "tasks only" if self.about.only_tasks else "conversations, tasks"

    def cells(self) -> tuple[str, ...]:
        """One text for each of `COLUMNS`."""
        about = self.about
        return (
            self.name,
            about.title,
            about.licence,
            about.rows,
            about.teaches,
            self.gives,
            ", ".join(self.options),
        )

    def to_dict(self) -> dict[str, Json]:
        return {"format": self.name, **asdict(self.about), "options": list(self.options)}


def listed() -> list[Listed]:
    """All formats, by name."""
    found = [
        Listed(name, source.ABOUT, tuple(sorted(options_of(source))))
        for name, source in SOURCES.items()
    ]
    return sorted([*found, Listed(pairs.NAME, pairs.ABOUT, ())], key=lambda each: each.name)


def as_markdown(formats: Sequence[Listed]) -> str:
    """The table of the documentation; a title leads to where the data are published."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for each in formats:
        name, title, *others = (cell.replace("|", "\\|") for cell in each.cells())
        rows.append(
            (f"`{name}`", f"[{title}]({each.about.link})" if each.about.link else title, *others)
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
