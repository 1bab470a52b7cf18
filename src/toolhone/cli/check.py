"""`toolhone check`: what is installed, what this machine offers, and what to do about what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from toolhone.cli.env_report import EnvFinding

EXAMPLE = "Examples: toolhone check   |   toolhone check --json"
STYLES = {"ok": "green", "note": "yellow", "broken": "bold red"}


def check(
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON object and nothing else")
    ] = False,
) -> None:
    """Look at versions, devices, extras, folders and the sandbox; exit code 1 when something that is needed is broken."""
    from toolhone.cli.env_report import CheckState, look

    findings = list(look())
    broken = [finding.what for finding in findings if finding.state is CheckState.BROKEN]
    if as_json:
        print(
            json.dumps({"ok": not broken, "findings": [finding.to_dict() for finding in findings]})
        )
    else:
        _show(findings)
        print(_verdict(broken))
    if broken:
        raise typer.Exit(1)


def _verdict(broken: Sequence[str]) -> str:
    if broken:
        return f"broken: {', '.join(broken)}; the last column says what to do"
    return "Everything that is needed is there. Go on with: toolhone demo   or   toolhone examples"


def _show(findings: Sequence[EnvFinding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from toolhone.cli.show import console

    table = Table(show_header=True, pad_edge=False)
    for heading in ("what", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        state = finding.state.value
        table.add_row(
            Text(finding.what),
            Text(state, STYLES[state]),
            Text(finding.found),
            Text(finding.advice),
        )
    console().print(table)
