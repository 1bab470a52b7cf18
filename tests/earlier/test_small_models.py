"""Small models compared: answers as CSV tables, their summary, and the three experiments."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest

from earlier.conftest import SHORT, Shell

EXPERIMENTS = {
    "tags-by-hand": ("tagged", "all"),
    "structured-calls": ("auto", "all"),
    "completion-only": ("auto", "completion"),
}
TOOL = {
    "name": "circle_area",
    "description": "The area of a circle.",
    "parameters": {"radius": {"description": "Its radius.", "type": "float"}},
}


def table(count: int) -> list[dict[str, str]]:
    """Rows as its tables have them, each column a text of JSON."""
    return [
        {
            "tools": json.dumps([TOOL]),
            "answers": json.dumps([{"name": "circle_area", "arguments": {"radius": number}}]),
            "query": f"How large is a circle of radius {number}?",
            "id": str(number),
        }
        for number in range(1, count + 1)
    ]


@pytest.fixture(scope="session")
def tables(shell: Shell) -> Shell:
    """A folder with `train.csv`, `test.csv` and two models, one trained on the first for a bit."""
    for name, rows in (("train.csv", table(20)), ("test.csv", table(4))):
        with (shell.folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    shell(
        "train completion-only model.name=pico data.path=train.csv training.steps=1 "
        f"training.validate_every=0 evaluation.at_end=false {SHORT} --out runs/small"
    )
    return shell


def shown(shell: Shell, name: str) -> dict[str, Any]:
    """The preset, behind a note on processors without fast bfloat16."""
    text = shell(f"config show {name}")
    found: dict[str, Any] = json.loads(text[text.index("{") :])
    return found


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_of_its_three_experiments_is_a_preset_with_its_numbers(
    shell: Shell, name: str
) -> None:
    plan = shown(shell, name)
    training = plan["training"]
    assert (plan["model"]["dialect"], training["loss_on"]) == EXPERIMENTS[name]
    assert (training["lora"]["rank"], training["lora"]["alpha"]) == (8, 32)
    assert (training["batch_size"], training["gradient_accumulation_steps"]) == (2, 4)
    assert (training["epochs"], training["gradient_checkpointing"]) == (3, True)


def test_the_presets_differ_in_nothing_but_what_they_try(shell: Shell) -> None:
    plans = [shown(shell, name) for name in EXPERIMENTS]
    for plan in plans:
        plan["model"].pop("dialect")
        plan["training"].pop("loss_on")
    assert plans[0] == plans[1] == plans[2]


def test_several_models_are_compared_by_csv_tables_and_a_summary(tables: Shell) -> None:
    for name, model in (("base", "pico"), ("test3_finetuned", "runs/small")):
        tables(f"eval {model} --tasks test.csv {SHORT} --out evals/{name}")
        (tables.folder / f"{name}.csv").write_bytes(
            (tables.folder / f"evals/{name}/samples.csv").read_bytes()
        )
    tables("score --csv base.csv test3_finetuned.csv --out results")
    with (tables.folder / "results/summary_results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["filename"], row["total_rows"]) for row in rows] == [
        ("base.csv", "4"),
        ("test3_finetuned.csv", "4"),
    ]
    assert rows[0].keys() == {"filename", "total_rows", "total_matches", "percent_correct"}
    with (tables.folder / "base.csv").open() as file:
        columns = csv.DictReader(file).fieldnames
    assert columns == ["query", "predicted_text", "extracted_calls", "expected_calls", "match"]
    said = tables("compare evals/base evals/test3_finetuned")
    assert "exact_match" in said


def test_calls_typed_by_hand_stop_a_training_with_line_and_remedy(shell: Shell) -> None:
    typed = '<tool_call>{"name": "circle_area", "arguments": {"radius": 3}}</tool_call>'
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Circle {number}?"},
                {"role": "assistant", "content": typed},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        **TOOL,
                        "parameters": {
                            "type": "object",
                            "properties": {"radius": {"type": "number"}},
                        },
                    },
                }
            ],
        }
        for number in range(4)
    ]
    (shell.folder / "typed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = shell("train data.path=typed.jsonl model.name=pico", code=2)
    assert "typed.jsonl" in said
    shell("doctor --data typed.jsonl --fix clean.jsonl")
    clean = shell.lines("clean.jsonl")
    assert len(clean) == 4
    assert all(row["messages"][-1]["tool_calls"] for row in clean)
