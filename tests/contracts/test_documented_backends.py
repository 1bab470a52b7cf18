"""The table of docs/backends.md says of each backend what its trainer says of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.test_backends import BACKENDS, WHOLE_BATCH
from toolhone.backends.base import Capabilities

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
ROWS = {
    "full fine-tuning (`training.lora` null)": "full_training",
    "LoRA": "lora",
    "Muon (`training.optimizer` muon)": "muon",
    "temperatures other than 1 in PPO and GRPO": "temperature",
    "every loss (DPO, GRPO and its variants, your own)": "custom_loss",
    "constrained calls (`evaluation.constrained`)": "grammar",
    "value head of PPO (`training.rl.ppo.critic` value_head)": "value_head",
    "equal rows give equal log-probabilities, to the bit": "repeatable",
}


def documented() -> dict[str, dict[str, str]]:
    """The cells of the first table by backend and row."""
    lines = iter(PAGE.read_text().splitlines())
    head = next(line for line in lines if line.startswith("| | "))
    found: dict[str, dict[str, str]] = {name: {} for name in cells(head)[1:]}
    next(lines)
    for line in table(lines):
        row, *values = cells(line)
        for name, value in zip(found, values, strict=True):
            found[name][row] = value
    return found


def table(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield line


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_has_a_row_for_each_capability_and_a_column_for_each_backend() -> None:
    flags = {name for name, kind in Capabilities.__annotations__.items() if kind == "bool"}
    assert set(ROWS.values()) == flags
    assert set(documented()) == {name.partition("-")[0] for name in BACKENDS}
    assert all(set(column) == set(ROWS) for column in documented().values())


@pytest.mark.parametrize("backend", documented())
def test_the_page_says_what_the_trainer_of_a_backend_says(backend: str, tmp_path: Path) -> None:
    opens = next(one.open for name, one in BACKENDS.items() if re.match(rf"{backend}\b", name))
    can = opens(tmp_path, WHOLE_BATCH).can
    right = {row: "yes" if getattr(can, name) else "no" for row, name in ROWS.items()}
    assert documented()[backend] == right
