"""`toolhone rewards`: which rewards there are (`list`), and what cheats a reward (`attack`).

No model is needed, and no tool runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from toolhone.cli.console import console, print_note, print_table
from toolhone.cli.flags import AsJson
from toolhone.config.experiment import to_stderr
from toolhone.data.task_files import tasks_from_any
from toolhone.dialects.choose import open_syntax
from toolhone.evaluation.display import clean
from toolhone.rewards.attack_suite import OPEN_PROBES, PROBES, AttackReport, attack_suite
from toolhone.rewards.reward_registry import BUILTIN, load_rewards, syntax_of

app = typer.Typer(rich_markup_mode=None)
group = typer.Typer(help="Rewards: what they pay for, and what cheats them.", no_args_is_help=True)
app.add_typer(group, name="rewards")
FALLBACK = "tagged"
"""The call syntax in which a reward is attacked that reads none by itself."""
LONGEST = 300
"""Characters of an attack that are shown."""


@group.command("list", epilog="Examples: toolhone rewards list   |   toolhone rewards list --json")
def list_rewards(as_json: AsJson = False) -> None:
    """List every named reward, with its formula, its source and its known exploits."""
    if as_json:
        print(json.dumps({"rewards": [spec.to_dict() for spec in BUILTIN.values()]}))
        return
    rows = []
    for spec in BUILTIN.values():
        bounds, holes = "{:g} .. {:g}".format(*spec.bounds), ", ".join(spec.holes) or "none"
        rows.append((spec.name, spec.formula, bounds, spec.source, holes))
    headings = ("reward", "pays", "from .. to", "source", "known holes")
    print_table(headings, rows, "rewards", lines=True)
    console().print(
        "Holes are attacks of `toolhone rewards attack`; --json explains each. Your own reward: "
        "file.py:function.",
        markup=False,
    )


@group.command(
    epilog="Examples: toolhone rewards attack tool_call_function   |   "
    "toolhone rewards attack mine.py:paid --tasks tasks.jsonl --dialect json"
)
def attack(
    reward: Annotated[
        str, Argument(metavar="REWARD", help="a name of toolhone rewards list, or file.py:function")
    ],
    tasks: Annotated[
        Path | None, Option(help="tasks to attack on [default: a few of every kind that ship]")
    ] = None,
    dialect: Annotated[
        str | None,
        Option(help=f"the call syntax [default: the one the reward reads, else {FALLBACK}]"),
    ] = None,
    num_samples: Annotated[int, Option(min=1, help="at most this many tasks")] = 200,
    as_json: AsJson = False,
) -> None:
    """Play every attack on a reward and name its holes; exit code 1 where there is one."""
    (loaded,) = load_rewards([reward])
    syntax = open_syntax(dialect or syntax_of([reward]) or FALLBACK)
    builtin = BUILTIN.get(reward)
    # open-ended tasks are for builtin rewards alone
    found = [*PROBES, *(OPEN_PROBES if builtin else ())]
    if tasks is not None:
        found = tasks_from_any(tasks, (), to_stderr)
        if len(found) > num_samples:
            counts = f"the first {num_samples} of {len(found)} tasks are used (--num-samples)"
            print_note(f"{tasks}: {counts}")
    judges = None if builtin is None else builtin.judges
    report = attack_suite(loaded, found[:num_samples], syntax, judges)
    if as_json:
        print(json.dumps(report.to_dict()))
    else:
        _show(report)
    if report.holes:
        raise typer.Exit(1)


def _show(report: AttackReport) -> None:
    """Print a line for each attack, and each hole with the replies that it pays for."""
    rows = []
    for name, worst in report.worst.items():
        numbers = [f"{value:.2f}" for value in (worst.pay, worst.gold, worst.nothing)]
        share = "-" if worst.share is None else f"{worst.share:.2f}"
        counts = [str(report.tried[name]), str(report.holed[name])]
        verdict = "HOLE" if worst.is_hole else "held"
        rows.append((name, *counts, *numbers, share, f"{worst.attack.bound:.2f}", verdict))
    numeric = ("tasks", "holes", "worst pay", "right answer", "silence", "share", "bound")
    title = f"{report.reward}: attacks on {report.tasks} tasks, calls written as {report.syntax}"
    print_table(("attack", *numeric, ""), rows, title, right=numeric)
    lines = [f"{count} tasks left out: {reason}" for reason, count in report.skipped.items()]
    if report.unwritable:
        lines.append(f"{report.unwritable} attacks cannot be written as {report.syntax}")
    for hole in report.holes:
        others = f"the right answer {hole.gold:.2f}, silence {hole.nothing:.2f}"
        pays = f"it earned {hole.pay:.2f} on {hole.task_id}, {others}"
        texts = [text if len(text) <= LONGEST else f"{text[:LONGEST]}..." for text in hole.texts]
        replies = repr(clean(" | ".join(texts)))
        lines.append(f"hole {hole.attack.name}: it pays {hole.attack.about}; {pays}\n  {replies}")
    held = len(report.worst) - len(report.holes)
    lines.append(f"{held} of {len(report.worst)} attacks held, {len(report.holes)} holes")
    for line in lines:
        console().print(line, markup=False, highlight=False)
