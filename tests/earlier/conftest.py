"""The command line in this process, and short trainings that many statements share."""

import io
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from toolhone.cli.main import main

CALCULATOR = {
    "name": "calculator",
    "description": "Sums.",
    "type": "function",
    "parameters": {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
    },
}
SHORT = "evaluation.max_new_tokens=8 evaluation.max_turns=1"


@dataclass(frozen=True)
class Shell:
    """A folder in which commands are typed, and what each of them answered."""

    folder: Path

    def __call__(self, line: str, code: int = 0) -> str:
        """Run `toolhone LINE` in the folder; return both streams as one text."""
        out, before, arguments = io.StringIO(), Path.cwd(), sys.argv
        found = 0
        os.chdir(self.folder)
        sys.argv = ["toolhone", *shlex.split(line)]
        try:
            with redirect_stdout(out), redirect_stderr(out):
                main()
        except SystemExit as end:
            found = end.code if isinstance(end.code, int) else 1
        finally:
            os.chdir(before)
            sys.argv = arguments
        assert found == code, out.getvalue()
        return out.getvalue()

    def lines(self, name: str) -> list[dict]:
        """The objects of a JSON Lines file."""
        return [json.loads(line) for line in (self.folder / name).read_text().split("\n") if line]


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    return Shell(tmp_path_factory.mktemp("earlier"))


@pytest.fixture(scope="session")
def json_run(shell: Shell) -> str:
    """The preset sft-json with its own intervals divided by 100: what it printed."""
    return shell(
        "train sft-json model.name=pico training.steps=4 training.batch_size=2 data.samples=40 "
        "training.log_every=1 training.validate_every=2 training.save_every=2 "
        f"training.validation_samples=4 {SHORT} evaluation.num_samples=4 --out runs/sft-json"
    )


@pytest.fixture(scope="session")
def ppo_run(shell: Shell, json_run: str) -> str:  # noqa: ARG001 (its folder)
    """The preset ppo-json from the run before, two steps past a refresh of the sampler."""
    return shell(
        "train ppo-json model.name=pico model.adapter=runs/sft-json training.steps=12 "
        "training.batch_size=2 data.samples=80 training.rl.max_completion_length=8 "
        f"training.log_every=10 training.save_every=11 evaluation.at_end=false {SHORT} "
        "--out runs/ppo-json"
    )
