"""`toolhone data sources` and `toolhone data import`: published data sets, listed and turned into files of our own form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from toolhone.data.importing import ImportResult
    from toolhone.sources.listing import Listed

SOURCES_EXAMPLE = "Examples: toolhone data sources   |   toolhone data sources --json"
IMPORT_EXAMPLE = (
    "Examples: toolhone data import glaive-function-calling-v2.json --to glaive.jsonl   |   "
    "toolhone data import xlam.parquet --to xlam.jsonl --format xlam --json"
)


def sources(
    as_json: Annotated[bool, typer.Option("--json", help="print the list as JSON")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="print the list as the table of the documentation")
    ] = False,
) -> None:
    """List the published formats that are read, with licence, size and what they teach."""
    from toolhone.sources.listing import as_markdown, listed

    formats = listed()
    if as_json:
        print(json.dumps([each.to_dict() for each in formats], ensure_ascii=False))
    elif markdown:
        print(as_markdown(formats))
    else:
        _print(formats)


def _print(formats: Sequence[Listed]) -> None:
    """Two lines for each format: what it is, and what it teaches."""
    width = max(len(each.name) for each in formats)
    for each in formats:
        about = each.about
        size = "" if about.rows == "any" else f"; rows: {about.rows}"
        print(f"{each.name:{width}}  {about.title}; licence: {about.licence}{size}")
        options = f"; options: {', '.join(each.options)}" if each.options else ""
        print(f"{'':{width}}  {each.gives}: {about.teaches}{options}")


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="the published file, plain or gzip-compressed, JSON, JSON Lines, CSV or Parquet; or a folder"
        ),
    ],
    to: Annotated[
        Path,
        typer.Option(
            "--to",
            help="the file to write, .jsonl or .jsonl.gz; tasks and refused rows go beside it",
        ),
    ],
    format_: Annotated[
        str, typer.Option("--format", help="the format's name, where its rows do not tell it")
    ] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="print the counts and files as JSON")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="write over files of an earlier import")
    ] = False,
    progress: Annotated[str, typer.Option(help="auto, rich, plain or off")] = "auto",
) -> None:
    """Turn a published file into conversations and tasks. Tasks and refused rows go beside OUT.jsonl, into
    OUT.tasks.jsonl and OUT.refused.jsonl.

    Exit code 1 means that no row could be used; the reasons are counted and, row by row, in the file of refused rows."""
    from toolhone.data.importing import import_file
    from toolhone.runs.progress import open_progress

    with open_progress(progress) as shown:
        imported = import_file(file, to, format_, overwrite, shown)
    if as_json:
        print(json.dumps(imported.to_dict(), ensure_ascii=False))
    else:
        for line in said(imported):
            print(line)
    if not imported.loaded.kept:
        raise typer.Exit(1)


def said(imported: ImportResult) -> list[str]:
    """What was read and written, a line for each count."""
    loaded = imported.loaded
    lines = [
        f"format   {imported.format}",
        f"read     {loaded.read:6d}",
        f"kept     {loaded.kept:6d}",
    ]
    if loaded.only_tasks:
        lines[-1] += f"  ({loaded.only_tasks} of them only as tasks)"
    if loaded.preferences:
        lines[-1] += f"  ({len(loaded.preferences)} of them as preference pairs)"
    for word, counts in (
        ("repaired", loaded.repaired),
        ("unchecked", loaded.noted),
        ("refused", loaded.skipped),
    ):
        lines += [f"{word:9s}{count:6d}  {reason}" for reason, count in counts.most_common()]
    return lines + [
        f"wrote    {file.rows:6d}  {kind}: {file.path}" for kind, file in imported.files.items()
    ]
