"""`toolhone data preview`: rows of an experiment and what they cover, before anything trains."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from toolhone.cli.console import print_note
from toolhone.cli.flags import AsJson
from toolhone.config.experiment import load_experiment
from toolhone.evaluation.display import clean
from toolhone.rewards.matching import show
from toolhone.runs.progress import open_progress
from toolhone.schema import Conversation
from toolhone.synthetic.coverage import coverage_of, table_of
from toolhone.training.dataset import load_data

PREVIEW_EXAMPLES = (
    "Examples: toolhone data preview mine.json   |   toolhone data preview mine.json --rows 5 "
    "data.max_samples=500"
)
_WIDTH = 80
_SPEAKERS = {"user": "you", "assistant": "assistant", "tool": "result", "system": "system"}


def preview(
    experiment: Annotated[Path, Argument(help="an experiment file, or the name of a preset")],
    overrides: Annotated[
        list[str] | None, Argument(metavar="[KEY=VALUE]...", help="settings of the experiment")
    ] = None,
    rows: Annotated[int, Option(min=0, help="how many rows to show")] = 20,
    as_json: AsJson = False,
    progress: Annotated[str, Option(help="auto, rich, plain or off")] = "auto",
) -> None:
    """Show rows of an experiment, and how often each parameter of its tools and each value occurs
    in the calls. Nothing is trained and nothing is written.

    A warning names what never varies: a model cannot learn an argument that no row has."""
    plan = load_experiment(experiment, [*(overrides or []), "training.method=sft"])
    with open_progress(progress) as shown:
        data = load_data(plan, shown)
    tools = {tool.name: tool for row in data.train for tool in row.tools}
    coverage = data.report.get("coverage") or coverage_of(data.train, list(tools.values()))
    if as_json:
        some = [row.to_dict() for row in data.train[:rows]]
        print(json.dumps({"rows": some, "coverage": coverage}, ensure_ascii=False))
        return
    for number, row in enumerate(data.train[:rows], 1):
        print(f"row {number}")
        for line in _lines(row):
            print(line)
    print(f"\nin {len(data.train)} rows to train on:")
    for line in table_of(coverage):
        print(textwrap.fill(line, _WIDTH, subsequent_indent=" " * 37))
    print_note(data.summary())


def _lines(row: Conversation) -> Iterator[str]:
    """Yield the messages of a row, wrapped."""
    for message in row.messages:
        wrap = textwrap.TextWrapper(_WIDTH, subsequent_indent=" " * 13)
        wrap.initial_indent = f"  {_SPEAKERS.get(message.role, message.role):10} "
        calls = (
            f"{call.name}({', '.join(f'{k}={show(v)}' for k, v in call.arguments.items())})"
            for call in message.tool_calls
        )
        for text in (*filter(None, [message.content]), *calls):
            yield from wrap.wrap(clean(text))
