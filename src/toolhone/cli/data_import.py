"""`toolhone data import` and `data tools`: published files, logs and lists of tools, as ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from toolhone.cli.flags import AsJson
from toolhone.data.importing import ImportOptions, ImportResult, import_file
from toolhone.errors import RunError
from toolhone.runs.progress import open_progress
from toolhone.runs.run import write_json
from toolhone.sources.messages import MESSAGES
from toolhone.sources.tool_lists import list_tools, read_tool_file

IMPORT_EXAMPLES = (
    "Examples: toolhone data import glaive-function-calling-v2.json --to glaive.jsonl   |   "
    "toolhone data import log.jsonl --to train.jsonl --tasks cases.jsonl --freeze 200 --redact"
)
TOOLS_EXAMPLES = (
    "Examples: toolhone data tools 'mcp-server-time' --to tools.json   |   "
    "toolhone data tools openapi.json --url https://api.example.org/v1 --to tools.json"
)


def import_(  # noqa: PLR0913 (the options of a command)
    file: Annotated[
        Path,
        Argument(
            help="the published file, plain or gzip-compressed, JSON, JSON Lines, CSV or Parquet; "
            "or a folder"
        ),
    ],
    to: Annotated[
        Path,
        Option(help="the file to write, .jsonl or .jsonl.gz; tasks and refused rows go beside it"),
    ],
    format_: Annotated[
        str, Option("--format", help="the format's name, where its rows do not show it")
    ] = "auto",
    as_json: AsJson = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="replace the files of an earlier import")
    ] = False,
    progress: Annotated[str, Option(help="auto, rich, plain or off")] = "auto",
    tools: Annotated[
        Path | None,
        Option(
            help="the tools of rows that name none: a list of tools, an MCP server's tools/list, "
            "or an OpenAPI document"
        ),
    ] = None,
    redact: Annotated[
        bool, Option("--redact", help="replace e-mail addresses, phone and card numbers, and keys")
    ] = False,
    tasks: Annotated[
        Path | None, Option(help="with --freeze: the file for the frozen evaluation cases")
    ] = None,
    freeze: Annotated[
        int,
        Option(
            min=0, help="freeze this many evaluation cases first; training rows hold none of them"
        ),
    ] = 0,
) -> None:
    """Turn a published file or a log into conversations and tasks. Tasks and refused rows go beside
    OUT.jsonl, into OUT.tasks.jsonl and OUT.refused.jsonl.

    Exit code 1: no row could be used; the file of refused rows has the reason for each."""
    with open_progress(progress) as shown:
        offered = None if tools is None else read_tool_file(tools)
        options = ImportOptions(offered, redact, tasks, freeze)
        imported = import_file(file, to, format_, overwrite, shown, options)
    loaded = imported.loaded
    if as_json:
        print(json.dumps(imported.to_dict(), ensure_ascii=False))
    else:
        _show(imported)
        if imported.format == MESSAGES.name and loaded.skipped:
            print(f"to repair refused rows: toolhone doctor --data {file} --fix clean.jsonl")
    if not loaded.kept:
        raise typer.Exit(1)


def _show(imported: ImportResult) -> None:
    """Print the counts and the files, one a line."""
    loaded = imported.loaded
    kept = f"kept     {loaded.kept:6d}"
    if loaded.only_tasks:
        kept += f"  ({loaded.only_tasks} of them only as tasks)"
    if loaded.merged:
        kept += f"  ({loaded.merged} of them within longer ones)"
    if pairs := len(loaded["preferences"]):
        kept += f"  ({pairs} of them as preference pairs)"
    print(f"format   {imported.format}\nread     {loaded.read:6d}\n{kept}")
    counts = {
        "repaired": loaded.repaired,
        "unchecked": loaded.noted,
        "not read": loaded.unread,
        "refused": loaded.skipped,
    }
    for word, reasons in counts.items():
        for reason, count in reasons.most_common():
            print(f"{word:9s}{count:6d}  {reason}")
    for kind, count in imported.redacted.items():
        print(f"redacted {count:6d}  {kind}")
    if found := ", ".join(f"{count} {kind}" for kind, count in imported.would_redact.items()):
        print(f"--redact would replace {found}")
    for kind, written in imported.files.items():
        print(f"wrote    {written.rows:6d}  {kind}: {written.path}")


def tools(
    source: Annotated[
        str,
        Argument(
            help="the command or the address of an MCP server, an OpenAPI document, or a file with "
            "a list of tools; a command is run"
        ),
    ],
    to: Annotated[Path, Option(help="the file to write; `tools` of an experiment may name it")],
    url: Annotated[
        str, Option(help="OpenAPI: the address of the service [default: that of the document]")
    ] = "",
    overwrite: Annotated[bool, Option("--overwrite", help="replace an earlier file")] = False,
) -> None:
    """Write the tools of an MCP server, of an OpenAPI document or of a list to a file.

    Operations of OpenAPI are entries of type `api`, which run where they are allowed by name."""
    if to.exists() and not overwrite:
        raise RunError(f"{to} exists already; name another file, or allow it with --overwrite")
    found = list_tools(source, url)
    write_json(to, found)
    print(f"{len(found):6d} tools  {to}")
