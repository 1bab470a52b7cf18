"""`toolhone new`: a project to start from: tools, examples, experiment files, a guard for CI."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from toolhone.config.experiment import is_pico
from toolhone.config.presets import PICO_TRAINED
from toolhone.errors import ConfigError
from toolhone.runs.run import write_json, write_text
from toolhone.sources.tool_lists import list_tools

app = typer.Typer(rich_markup_mode=None)
_ROWS = 3000
_EXAMPLES = "| `examples.jsonl` | a few questions with the calls that are right for them |"
PICO_SFT: dict[str, Any] = {
    "steps": 200,
    "batch_size": 16,
    "lora": None,
    "optimizer": "muon",
    "learning_rate": 0.008,
    "muon": {"learning_rate": 0.01},
    "schedule": {"warmup_steps": 20, "decay_share": 0.6},
    "validate_every": 100,
    "save_every": 100,
}
"""What trains the embedded model: 82 % of 200 held-out tasks of the project as made, since it has
learned to copy words into calls; 400 steps from random weights give 21 % (docs/log.md)."""
GRPO: dict[str, Any] = {
    "method": "grpo",
    "steps": 40,
    "batch_size": 4,
    "learning_rate": 2e-5,
    "rl": {"group_size": 8, "max_completion_length": 128},
}


@app.command(
    epilog="Examples: toolhone new desk   |   toolhone new desk --model smollm2   |   "
    "toolhone new desk --tools openapi.json"
)
def new(
    name: Annotated[str, Argument(help="the folder to make; must not exist, or be empty")],
    model: Annotated[
        str, Option(help="the model to train: pico-trained, a folder, or a name on the hub")
    ] = PICO_TRAINED,
    tools: Annotated[
        str | None,
        Option(
            help="your tools: a file with a list (OpenAI's form, an MCP server's tools/list, an "
            "OpenAPI document), or the command or address of an MCP server [default: three "
            "Python functions to replace]"
        ),
    ] = None,
) -> None:
    """Make a project: your tools, data made of them, experiments for SFT and GRPO, a workflow that
    fails a pull request whose model lost something, and a README with the commands."""
    folder = Path(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty; name another folder")
    found = None if tools is None else list_tools(tools)
    for path, text in _texts(folder.resolve().name, found is not None).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / path, text)
    if found is not None:
        write_json(folder / "tools.json", found)
    for file, values in _experiments(model, found is not None).items():
        write_json(folder / file, values)
    for written in sorted(one for one in folder.rglob("*") if one.is_file()):
        print(written)
    print(f"\nnext: cd {folder} && toolhone data preview sft.json")


def _texts(name: str, has_tools: bool) -> dict[str, str]:
    """Return path -> text of the files that are written as they are."""
    project = resources.files("toolhone.guide") / "project"
    places = {
        "README.md": "README.md",
        "gitignore": ".gitignore",
        "guard.yml": ".github/workflows/guard.yml",
    }
    if not has_tools:
        places |= {"tools.txt": "tools.py", "examples.jsonl": "examples.jsonl"}
    texts = {to: (project / file).read_text(encoding="utf-8") for file, to in places.items()}
    own = "`tools.json`" if has_tools else "`tools.py`"
    readme = texts["README.md"].replace("PROJECT", name).replace("TOOLS", own)
    examples = "" if has_tools else f"{_EXAMPLES}\n"
    texts["README.md"] = re.sub("[|] EXAMPLES\n", lambda _: examples, readme)
    return texts


def _experiments(model: str, has_tools: bool) -> dict[str, dict[str, Any]]:
    """Return the experiments; the recipe of the embedded model goes to it alone."""
    data: dict[str, Any] = {"strategy": "manual_templates", "max_samples": _ROWS}
    data |= {} if has_tools else {"examples": "examples.jsonl", "answered": 1.0}
    shared = {"tools": ["tools.json" if has_tools else "tools.py"], "data": data}
    sft = {"model": {"name": model}, **shared}
    grpo = {"model": {"name": model, "adapter": "runs/sft"}, **shared, "training": GRPO}
    if is_pico(model):
        sft["training"] = PICO_SFT
        grpo["training"] = {**GRPO, "lora": None, "learning_rate": 5e-4}
    return {"sft.json": sft, "grpo.json": grpo}
