"""Every number that a training logs has a row in its method's page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from toolhone.api import experiment, train

PAGES = Path(__file__).parents[2] / "docs" / "algorithms"
IN_TURN = (
    "from itertools import count\n\nNUMBERS = count()\n\n\n"
    "def earned(task, episode):\n    n = next(NUMBERS) % 2\n"
)
IN_TURN += "    return {'a': float(n), 'b': 0.0}\n"
PLAN: dict[str, Any] = {
    "model": {"name": "pico"},
    "tools": ["calculator"],
    "data": {"strategy": "templates", "samples": 16},
    "training": {
        "steps": 2,
        "batch_size": 2,
        "log_every": 1,
        "validate_every": 0,
        "validation_samples": 1,
    },
    "evaluation": {"at_end": False, "max_new_tokens": 4},
}
DOING = [
    "rl.group_size=2",
    "rl.reward.check=false",
    "rl.max_completion_length=4",
    "rl.beta=0.1",
    "rl.ptx.coef=1",
    "rl.two_phase_samples_per_group=1",
]
DOING += ["rl.curriculum.enabled=true", "rl.inner_epochs=2"]
ASKED = {
    "sft": [],
    "dpo": [],
    "grpo": DOING,
    "distill": ["rl.group_size=2", "rl.max_completion_length=4"],
    "ppo": [*DOING, "rl.ppo.target_kl=0.5", "rl.ppo.kl_penalty=adaptive"],
}


def named(page: Path) -> set[str]:
    """Names in the first column of tables; `/NAME` after another name stands in the same place."""
    found = set[str]()
    for cell in re.findall(r"^\| (`.*?) \|", page.read_text(), re.MULTILINE):
        names = re.findall(r"`([^`]+)`", cell)
        found |= {
            names[0].rpartition("/")[0] + name if name.startswith("/") else name for name in names
        }
    return found


def is_named(key: str, names: set[str]) -> bool:
    group, slash, rest = key.partition("/")
    return key in names or (
        bool(slash) and f"{group}/NAME{'.PART' if '.' in rest else ''}" in names
    )


@pytest.mark.parametrize("method", ASKED)
def test_each_logged_number_is_in_the_page_of_its_method(method: str, tmp_path: Path) -> None:
    (tmp_path / "earned.py").write_text(IN_TURN)
    own = (
        [f'rl.reward.functions=["{tmp_path / "earned.py"}:earned"]']
        if method in ("grpo", "ppo", "distill")
        else []
    )
    plan = experiment(
        PLAN, [f"training.{one}" for one in (f"method={method}", *ASKED[method], *own)]
    )
    run, _ = train(plan, tmp_path / "run")
    keys = {key for line in run.metrics() if line["kind"] == "train" for key in line} - {
        "step",
        "kind",
    }
    assert {"loss", "grad_norm", "trained_tokens"} <= keys
    names = named(PAGES / f"{method}.md")
    assert sorted(key for key in keys if not is_named(key, names)) == []
