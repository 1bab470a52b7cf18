"""Episodes of agents against those in process, with pico and whole trainings; `slow`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.slow
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "agent_parity.py"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """The module `benchmarks/agent_parity.py`."""
    spec = importlib.util.spec_from_file_location("agents_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_recorded_ids_and_loss_are_those_of_episodes_in_process(benchmark: Any) -> None:
    """The last bits of sampled log-probabilities depend on the batch, and no loss reads them."""
    found = benchmark.compare_ids("pico", 12)
    assert found["equal ids"] == 12
    assert found["prefix breaks"] == 0
    assert found["losses"][0] == found["losses"][1]


def test_grpo_with_agents_is_step_by_step_grpo_in_process(benchmark: Any) -> None:
    assert benchmark.compare_grpo("pico", 2)["equal steps"] == 2
