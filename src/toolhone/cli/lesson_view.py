"""How the things that a lesson shows look: in colours on a terminal, as plain text elsewhere."""

from __future__ import annotations

import re

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table as RichTable
from rich.text import Text as RichText

from toolhone.cli.console import console, show_event
from toolhone.evaluation.display import clean, mismatches, table
from toolhone.guide.lesson import Coloured, Scores, Shown, Table, Talk, Text, Typed

LINE = 110
"""Longest line of a paragraph."""
TRAINED, GIVEN = "bold green", "dim"


def heading(text: str) -> None:
    out = console()
    out.print()
    out.print(RichText(text, "bold" if out.is_terminal else ""))


def paragraphs(text: str) -> None:
    """A text whose line breaks mean nothing, unless a line begins with a dash."""
    out = console()
    for paragraph in re.sub(r"\n(?!- )\s*", " ", text).split("\n"):
        hanging = "  " if paragraph.startswith("- ") else ""
        lines = RichText(paragraph).wrap(out, min(LINE, out.width) - len(hanging))
        for number, line in enumerate(lines):
            out.print(RichText(hanging if number else "") + line, soft_wrap=True)


def show(shown: Shown) -> None:
    """One thing that a lesson yields."""
    out = console()
    if not isinstance(shown, Talk):
        out.print()
    match shown:
        case Text(text):
            paragraphs(text)
        case Typed():
            _typed(out, shown)
        case Scores(title, evaluation, mistakes):
            out.print(RichText(title, "bold"))
            out.print(table(evaluation))
            if mistakes:
                out.print(mismatches(evaluation, mistakes))
        case Table():
            _table(out, shown)
        case Coloured():
            _coloured(out, shown)
        case Talk(question, events):
            print(f"\nyou        {question}", flush=True)
            for event in events:
                show_event(event)


def _typed(out: Console, typed: Typed) -> None:
    """Commands behind a dollar sign, files in their colours."""
    if typed.file:
        out.print(RichText(f"{typed.file}:", "bold"), soft_wrap=True)
    if typed.language == "console":
        for line in typed.text.splitlines():
            _command(out, line)
    elif out.is_terminal and typed.language != "text":
        out.print(
            Syntax(
                typed.text.rstrip(),
                typed.language,
                theme="ansi_dark",
                background_color="default",
                word_wrap=True,
            )
        )
    else:
        for line in typed.text.rstrip().splitlines():
            out.print(RichText(f"  {line}"), soft_wrap=True)


def _command(out: Console, line: str) -> None:
    """A command, its comment on a line before it; or a line of prose between commands."""
    command, _, comment = line.partition("  #")
    if not command.startswith("toolhone "):
        out.print(RichText(f"  {line}"), soft_wrap=True)
        return
    if comment:
        out.print(RichText(f"  # {comment.strip()}", "dim"), soft_wrap=True)
    out.print(RichText.assemble(("  $ ", "dim"), (command.strip(), "bold cyan")), soft_wrap=True)


def _table(out: Console, shown: Table) -> None:
    rows = RichTable(title=shown.title, title_justify="left")
    for number, name in enumerate(shown.headings):
        numeric = number > 0 and all(re.fullmatch(r"[\d.,-]+", row[number]) for row in shown.rows)
        rows.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in shown.rows:
        rows.add_row(*(RichText(clean(cell)) for cell in row))
    out.print(rows)


def _coloured(out: Console, shown: Coloured) -> None:
    """Trained text in colour, or between » and « where there are none."""
    out.print(RichText(shown.title, "bold"))
    text = RichText()
    for piece, trained in shown.pieces:
        marked = f"»{piece}«" if trained and not out.is_terminal else piece
        text.append(clean(marked), TRAINED if trained else GIVEN)
    out.print(text, soft_wrap=True)
