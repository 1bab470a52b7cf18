"""`toolhone rewards`: which rewards there are, and what a reward can be cheated with.

`list` shows the library with formulas, sources and known holes. `attack` plays the attack suite (`rewards.attacks`) on a reward
of the library or of the user's own, and names what it pays too well; exit code 1 says that there is a hole. No model is needed,
no tool is run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from toolhone.rewards.attack_suite import AttackReport, Attempt
    from toolhone.rewards.registry import RewardSpec
    from toolhone.schema import Task

app = typer.Typer(
    help="Rewards: what they pay for, and what cheats them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
FALLBACK = "tagged"
"""The call syntax in which a reward is attacked that reads none by itself."""
_LONGEST = 300
"""Characters of an attack that are shown."""


@app.command("list", epilog="Examples: toolhone rewards list   |   toolhone rewards list --json")
def list_rewards(as_json: AsJson = False) -> None:
    """Show every reward that has a name, with its formula, its source and its known holes."""
    from toolhone.cli.console import console
    from toolhone.rewards.registry import BUILTIN

    if as_json:
        print(json.dumps({"rewards": [spec.to_dict() for spec in BUILTIN.values()]}))
        return
    out = console()
    out.print(_library(list(BUILTIN.values())))
    out.print(
        "Holes are attacks of `toolhone rewards attack`; --json says why each is one. A reward of your own: file.py:function.",
        markup=False,
    )


@app.command(
    epilog="Examples: toolhone rewards attack tool_call_function   |   "
    "toolhone rewards attack mine.py:paid --tasks tasks.jsonl --dialect json"
)
def attack(
    reward: Annotated[
        str,
        typer.Argument(
            metavar="REWARD", help="a name of toolhone rewards list, or file.py:function"
        ),
    ],
    tasks: Annotated[
        Path | None,
        typer.Option(help="tasks to play the attacks on [default: a few of every kind that ship]"),
    ] = None,
    dialect: Annotated[
        str | None,
        typer.Option(
            help=f"how calls are written [default: as the reward reads them, else {FALLBACK}]"
        ),
    ] = None,
    num_samples: Annotated[int, typer.Option(min=1, help="at most this many tasks")] = 200,
    as_json: AsJson = False,
) -> None:
    """Play every attack on a reward and name its holes; exit code 1 where there is one."""
    from toolhone.dialects.prompted import open_syntax
    from toolhone.rewards.attack_suite import attack_suite as play_attacks
    from toolhone.rewards.registry import BUILTIN, load_rewards, syntax_of

    (loaded,) = load_rewards([reward])
    syntax = open_syntax(dialect or syntax_of([reward]) or FALLBACK)
    judges = BUILTIN[reward].judges if reward in BUILTIN else None
    report = play_attacks(loaded, _tasks(tasks, num_samples, reward in BUILTIN), syntax, judges)
    if as_json:
        print(json.dumps(report.to_dict()))
    else:
        _show(report)
    if report.holes:
        raise typer.Exit(1)


def _tasks(path: Path | None, most: int, ours: bool) -> list[Task]:
    """The tasks of a file, or those that ship; the ones that leave something open only for rewards that are `ours`."""
    from toolhone.data.any_tasks import tasks_from_any
    from toolhone.rewards.attack_cases import OPEN_PROBES, PROBES

    if path is None:
        return [*PROBES, *(OPEN_PROBES if ours else ())][:most]
    found = tasks_from_any(path, (), lambda line: print(line, file=sys.stderr))
    if len(found) > most:
        print(
            f"{path}: the first {most} of {len(found)} tasks are used (--num-samples)",
            file=sys.stderr,
        )
    return found[:most]


def _library(rewards: list[RewardSpec]) -> Table:
    from rich.table import Table

    table = Table(title="rewards", title_justify="left", show_lines=True)
    for heading in ("reward", "pays", "from .. to", "source", "known holes"):
        table.add_column(heading, overflow="fold")
    for named in rewards:
        least, most = named.bounds
        table.add_row(
            named.name,
            named.formula,
            f"{least:g} .. {most:g}",
            named.source,
            ", ".join(named.holes) or "none",
        )
    return table


def _show(report: AttackReport) -> None:
    from rich.table import Table

    from toolhone.cli.console import console

    out = console()
    table = Table(
        title=f"{report.reward}: attacks on {report.tasks} tasks, calls written as {report.syntax}",
        title_justify="left",
    )
    for heading in (
        "attack",
        "tasks",
        "holes",
        "worst pay",
        "right answer",
        "silence",
        "share",
        "bound",
        "",
    ):
        table.add_column(heading, justify="left" if heading in ("attack", "") else "right")
    for name, worst in report.worst.items():
        numbers = [f"{value:.2f}" for value in (worst.pay, worst.gold, worst.nothing)]
        share = "-" if worst.share is None else f"{worst.share:.2f}"
        counts = [str(report.tried[name]), str(report.holed[name])]
        table.add_row(
            name,
            *counts,
            *numbers,
            share,
            f"{worst.attack.bound:.2f}",
            "HOLE" if worst.is_hole else "held",
        )
    out.print(table)
    for reason, count in report.skipped.items():
        out.print(f"{count} tasks left out: {reason}", markup=False)
    if report.unwritable:
        out.print(f"{report.unwritable} attacks cannot be written as {report.syntax}", markup=False)
    for hole in report.holes:
        out.print(_sentence(hole), markup=False, highlight=False)
    held = len(report.worst) - len(report.holes)
    out.print(
        f"{held} of {len(report.worst)} attacks held, {len(report.holes)} holes",
        markup=False,
        highlight=False,
    )


def _sentence(hole: Attempt) -> str:
    """One hole in words, with what was said."""
    from toolhone.evaluation.display import clean

    earned = f"it earned {hole.pay:.2f} on {hole.task_id}, the right answer {hole.gold:.2f}, silence {hole.nothing:.2f}"
    said = " | ".join(
        text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..." for text in hole.texts
    )
    return f"hole {hole.attack.name}: it pays {hole.attack.about}; {earned}\n  {clean(said)!r}"
