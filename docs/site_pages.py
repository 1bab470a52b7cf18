"""Pages of the site that are made of other things: the README, and a page for each command.

A hook of mkdocs (`mkdocs.yml`); `command_pages()` needs the package alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolhone.cli.main import VERBS, load_verb

ROOT = Path(__file__).parents[1]


def command_pages() -> Iterator[tuple[str, str]]:
    """Yield name and Markdown of each command, groups with their own commands below."""
    for verb in VERBS:
        command = load_verb(verb)
        parts = [_described(command, f"toolhone {verb}")]
        for name, inner in getattr(command, "commands", {}).items():
            parts.append(_described(inner, f"toolhone {verb} {name}").replace("# ", "## ", 1))
        yield verb, "\n".join(parts)


def _described(command: Any, name: str) -> str:
    """The help of a command, its arguments and options as a table, and its examples."""
    text = re.sub(r"\s*\n(?!\n)\s*", " ", (command.help or "").strip())
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    rows = [_row(one) for one in shown if one.name not in ("help", "version")]
    table = ["| argument or option | what |", "|---|---|", *rows] if rows else []
    examples = re.split(r"\s+\|\s+", re.sub(r"^Examples?: ", "", command.epilog or ""))
    block = ["```", *examples, "```"] if command.epilog else []
    return "\n".join([f"# {name}", "", text, "", *table, "", *block, ""])


def _row(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [parameter.metavar or parameter.name.upper()]
    about = " ".join((getattr(parameter, "help", None) or "").split())
    cells = (", ".join(f"`{one}`" for one in names), about)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def on_config(config: Any) -> Any:
    """Fill in the lists of pages that the configuration names by a folder."""
    decisions = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))
    pages = {
        "Commands": [f"commands/{verb}.md" for verb in VERBS],
        "Decisions": [f"decisions/{name}" for name in decisions],
    }
    for section in config["nav"]:
        for title, entries in section.items():
            if title in pages:
                section[title] = pages[title]
            for entry in entries if isinstance(entries, list) else ():
                if isinstance(entry, dict) and next(iter(entry)) in pages:
                    entry[next(iter(entry))] = pages[next(iter(entry))]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the README as the first page, and a page for each command."""
    from mkdocs.structure.files import File

    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=readme))
    for verb, text in command_pages():
        files.append(File.generated(config, f"commands/{verb}.md", content=text))
    return files
