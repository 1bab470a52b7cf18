"""A tool with a nested schema, from ten lines of Python to a talk; and a configuration of the
playground, trained on as it is.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from config.test_aliases import SCHEMA
from toolhone import Dialogue, evaluate, open_model, train
from toolhone.config.experiment import load_experiment
from toolhone.data.task_files import tasks_from_any
from toolhone.episodes.policy import Turn
from toolhone.schema import ToolCall
from toolhone.training.dataset import load_data

EXAMPLE = Path(__file__).parents[2] / "examples" / "booking" / "booking.json"
QUICK = [
    "training.steps=3",
    "training.batch_size=4",
    "training.validation_samples=2",
    "evaluation.max_new_tokens=8",
]


def parameter(kind: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {kind: {"type": "string", "description": kind}},
        "required": [kind],
    }


PLAYGROUND: dict[str, Any] = {
    "model": {
        "name": "pico",
        "trust_remote_code": False,
        "torch_dtype": "float16",
        "device_map": "auto",
    },
    "training": {
        **{
            "method": "sft",
            "num_epochs": 3,
            "learning_rate": 5e-5,
            "batch_size": 4,
            "gradient_accumulation_steps": 1,
        },
        **{
            "warmup_steps": 100,
            "max_length": 512,
            "use_lora": True,
            "lora_r": 16,
            "lora_alpha": 32,
            "lora_dropout": 0.1,
        },
    },
    "data": {"strategy": "manual_templates", "max_samples": 200, "train_split": 0.8},
    "tools": [
        {
            "name": "calculator",
            "description": "Do sums",
            "type": "function",
            "function": "calculator",
            "parameters": SCHEMA,
        },
        {
            "name": "weather",
            "description": "Weather",
            "type": "function",
            "function": "weather",
            "parameters": parameter("location"),
        },
        {
            "name": "search",
            "description": "Search",
            "type": "function",
            "function": "search",
            "parameters": parameter("query"),
        },
    ],
    "evaluation": {
        "metrics": ["tool_accuracy", "response_quality", "tool_format_correctness"],
        "eval_steps": 100,
    },
    "wandb": {"enabled": False, "project": "tools", "run_name": "calculator"},
    "seed": 42,
}
CASES = [
    {
        "prompt": "Human: What is 25 multiplied by 4?",
        "expected_tool": "calculator",
        "expected_params": {"expression": "25 * 4"},
    },
    {
        "prompt": "Human: How is the weather in Lyon?",
        "expected_tool": "weather",
        "expected_params": {"location": "Lyon"},
    },
]


def test_the_tool_of_the_example_is_ten_lines_and_nested() -> None:
    lines = [
        line
        for line in (EXAMPLE.parent / "booking.py").read_text().splitlines()
        if line.strip() and line[:2] not in ('"""', "fr")
    ]
    assert len(lines) <= 10
    (tool,) = load_data(load_experiment(EXAMPLE, ["data.max_samples=8"])).train[0].tools
    assert tool.parameters["properties"]["contact"]["required"] == ["name", "phone"]


def test_every_row_for_the_tool_asks_for_exactly_its_arguments() -> None:
    materials = load_data(load_experiment(EXAMPLE, ["data.max_samples=300"]))
    (tool,) = materials.train[0].tools
    calls = 0
    for row in (*materials.train, *materials.held_out):
        for call in row.messages[1].tool_calls:
            question, arguments = row.messages[0].content or "", dict(call.arguments)
            contact = arguments["contact"]
            assert tool.problems(arguments) == []
            assert all(
                str(value) in question
                for value in (arguments["restaurant"], arguments["people"], *contact.values())
            )
            calls += 1
    assert calls > 200
    assert len(materials.train) + len(materials.held_out) == 300


def test_it_is_trained_on_evaluated_and_talked_to(tmp_path: Path) -> None:
    plan = load_experiment(EXAMPLE, ["data.max_samples=40", *QUICK])
    run, ending = train(plan, tmp_path / "run")
    assert ending == "finished"
    report = json.loads((run.folder / "data.json").read_text())
    assert (report["source"], report["train"], report["held_out"]) == ("manual templates", 38, 2)
    model = open_model(run.folder, overrides=[f"tools={json.dumps(list(plan.tools))}"])
    assert evaluate(model).metrics["valid_format"].n == 2
    events = list(Dialogue(model.policy(), model.registry).say("Book a table for 4 at Luigi"))
    assert isinstance(events[0], Turn)
    contact = {"name": "Rossi", "phone": "5550123"}
    result = model.registry.run(
        ToolCall(
            "book_table", {"restaurant": "Luigi", "people": 4, "contact": contact, "seat": "bar"}
        )
    )
    assert (result.outcome, result.value) == (
        "ok",
        {"booked": "4 at Luigi for Rossi", "seat": "bar"},
    )


@pytest.mark.parametrize(
    "size",
    [[*QUICK, "data.max_samples=24"], pytest.param([], marks=pytest.mark.slow)],
    ids=["small", "unchanged"],
)
def test_the_playgrounds_configuration_trains_on_pico_and_its_test_cases_score(
    tmp_path: Path, size: list[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PLAYGROUND))
    (tmp_path / "cases.json").write_text(json.dumps(CASES))
    plan = load_experiment(tmp_path / "config.json", size)
    run, ending = train(plan, tmp_path / "run")
    assert ending == "finished"
    report = json.loads((run.folder / "data.json").read_text())
    rows = plan.data.max_samples
    assert rows is not None
    assert (report["train"], report["held_out"]) == (round(0.8 * rows), rows - round(0.8 * rows))
    model = open_model(run.folder, overrides=["evaluation.max_new_tokens=8"])
    scores = evaluate(model, tmp_path / "cases.json", out=tmp_path / "scores")
    assert scores.metrics["exact_match"].n == 2
    assert scores.legacy["playground"]["tool_accuracy"].n == 2
    tasks = tasks_from_any(tmp_path / "cases.json", model.registry.tools)
    assert tasks[1].messages[-1].content == "How is the weather in Lyon?"
    right = model.registry.run(ToolCall("weather", {"location": "Lyon"}))
    assert right.outcome == "ok"


def test_toolbench_without_files_makes_its_rows_and_says_how_many() -> None:
    materials = load_data(
        load_experiment(
            None, ["data.strategy=toolbench", "data.max_samples=30", 'tools=["weather","search"]']
        )
    )
    assert materials.report["source"] == "30 synthetic rows: no ToolBench file was named"
    assert len(materials.train) + len(materials.held_out) == 30
    assert "30 synthetic rows" in materials.summary()
