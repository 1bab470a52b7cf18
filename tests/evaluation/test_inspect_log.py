"""Logs of Inspect, and a task file as a task of Inspect and of verifiers, with their packages."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from support.report_run import judged
from toolhone.data.templates import Templates
from toolhone.evaluation.inspect_log import write_inspect_log
from toolhone.evaluation.metrics import Evaluation
from toolhone.schema import Task
from toolhone.sources.files import write_jsonl

EXAMPLES = Path(__file__).parents[2] / "examples"
SAMPLES = tuple(judged(number, right=number % 3 > 0) for number in range(6))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks names up there
    spec.loader.exec_module(module)
    return module


def tasks_in(folder: Path) -> list[Task]:
    tasks = Templates(0).tasks(6, "held_out_fillers")
    write_jsonl(folder / "tasks.jsonl", (task.to_dict() for task in tasks))
    return tasks


def test_a_log_has_messages_calls_results_and_every_score(tmp_path: Path) -> None:
    again = replace(SAMPLES[0], seed=7)
    path = write_inspect_log(Evaluation((*SAMPLES, again)), "runs/sft", tmp_path)
    log = json.loads(path.read_text())
    sample = log["samples"][0]
    assert [message["role"] for message in sample["messages"]] == ["user", "assistant", "tool"]
    (call,) = sample["messages"][1]["tool_calls"]
    assert (call["function"], call["id"]) == ("weather", sample["messages"][2]["tool_call_id"])
    assert sample["scores"]["exact_match"]["value"] == 0.0
    assert [one["epoch"] for one in log["samples"]] == [1] * 6 + [2]
    assert log["results"]["scores"][0]["metrics"].keys() == {"mean", "low", "high"}


@pytest.mark.filterwarnings("ignore")
def test_inspect_reads_the_log(tmp_path: Path) -> None:
    inspect: Any = pytest.importorskip("inspect_ai.log", reason="needs the package inspect-ai")
    path = write_inspect_log(Evaluation(SAMPLES), "runs/sft", tmp_path)
    log = inspect.read_eval_log(str(path))
    assert log.status == "success"
    assert [sample.scores["exact_match"].value for sample in log.samples] == [0, 1, 1, 0, 1, 1]
    assert log.samples[0].messages[1].tool_calls[0].function == "weather"
    assert [info.task for info in inspect.list_eval_logs(str(tmp_path))] == ["toolhone"]


@pytest.mark.filterwarnings("ignore")
def test_a_task_file_is_a_task_of_inspect(tmp_path: Path) -> None:
    inspect: Any = pytest.importorskip("inspect_ai", reason="needs the package inspect-ai")
    models: Any = importlib.import_module("inspect_ai.model")
    tasks = tasks_in(tmp_path)
    outputs = []
    for number, task in enumerate(tasks):
        wanted = task.expect.wanted if number % 2 == 0 else ()
        output = models.ModelOutput.from_content("mock", "Hi.")
        for call in wanted[:1]:
            output = models.ModelOutput.for_tool_call("mock", call.name, dict(call.arguments))
        output.usage = models.ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        outputs.append(output)  # without a usage the mock fetches a tokenizer to count with
    made = example("inspect_tasks").toolhone_tasks(str(tmp_path / "tasks.jsonl"))
    (log,) = inspect.eval(
        made,
        model=models.get_model("mockllm/model", custom_outputs=outputs),
        log_dir=str(tmp_path / "logs"),
        display="none",
        max_samples=1,
    )
    assert log.status == "success", log.error
    scores = {one.id: one.scores["right_calls"].value for one in log.samples}
    expected = {}
    for number, task in enumerate(tasks):
        called = number % 2 == 0 and bool(task.expect.wanted)
        right = task.expect.no_call if not called else len(task.expect.wanted) == 1
        expected[task.id] = float(right)
    assert scores == expected
    assert 0 < sum(scores.values()) < len(scores)


@pytest.mark.filterwarnings("ignore")
def test_a_task_file_is_a_taskset_of_verifiers(tmp_path: Path) -> None:
    pytest.importorskip("verifiers.v1", reason="needs the package verifiers")
    types: Any = importlib.import_module("verifiers.v1.types")
    module, tasks = example("verifiers_tasks"), tasks_in(tmp_path)
    config = module.ToolhoneConfig(tasks=str(tmp_path / "tasks.jsonl"))
    loaded = list(module.ToolhoneTaskset(config))
    assert [task.data.id for task in loaded] == [task.id for task in tasks]
    for own, task in zip(loaded, tasks, strict=True):
        calls = [
            types.ToolCall(id=str(n), name=call.name, arguments=json.dumps(dict(call.arguments)))
            for n, call in enumerate(task.expect.wanted)
        ]
        rewards = []
        extra = types.ToolCall(id="x", name="python", arguments="{}")
        for made in (calls, [*calls, extra]):
            message = types.AssistantMessage(content="", tool_calls=made or None)
            trace = SimpleNamespace(assistant_messages=[message])
            rewards.append(asyncio.run(own.exact_match(trace)))
        assert rewards == [1.0, 0.0]
    few = module.ToolhoneConfig(tasks=config.tasks, tools=["calculator"])
    assert len(list(module.ToolhoneTaskset(few))) < len(tasks)
