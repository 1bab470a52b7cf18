"""However a single row is damaged, an importer of benchmark files reads on and counts the row."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sources import test_acebench as acebench
from sources import test_bfcl as bfcl
from sources import test_hammer as hammer
from sources import test_tau as tau
from sources import test_when2call as when2call
from support.source_rows import write_rows
from toolhone.schema import Task
from toolhone.sources.formats import open_source

JUNK: list[Any] = [None, 1, "x", [], {}, [1], {"x": 1}, True, [[]], [{}], {"x": "y"}]
TURNS = {
    **bfcl.question("multi_turn_miss_func_1", "Add.", ""),
    **bfcl.CLASSES,
    "missed_function": {"1": ["send"]},
    "excluded_function": [],
}
ROWS: list[tuple[str, Any, Any]] = [
    (
        "bfcl",
        bfcl.question("simple_python_1"),
        [{"shop.paint": {"litres": [1], "mix": [{"red": [1]}], "rooms": [[{"at": ["A"]}]]}}],
    ),
    ("bfcl", TURNS, [["add(1, 2)"], []]),
    ("bfcl", {**bfcl.question("web_search_1"), "involved_classes": ["WebSearchAPI"]}, ["Oslo"]),
    (
        "acebench",
        acebench.row("normal_atom_list_1"),
        {"tide_at_1": {"port": "A"}, "tide_at_2": {"port": "B"}},
    ),
    (
        "acebench",
        acebench.row("normal_atom_list_1"),
        [{"tide_at": {"port": "A"}}, {"tide_at": {"port": "B"}}],
    ),
    ("acebench", acebench.row("agent_multi_step_1", initial_config={"a": {}}), [{"a": {}}]),
    ("when2call", when2call.row("tool_call"), None),
    ("hammer", hammer.prompt(hammer.CALLS), None),
    (
        "hammer",
        {"query": [hammer.turn("user", "x")], "tools": [hammer.LAMP], "answers": hammer.CALLS},
        None,
    ),
    ("tau_bench", tau.trajectory(), None),
    ("tau_bench", tau.trajectory(0.0, outputs=["1"]), None),
    ("tau2_bench", tau.wish(), None),
]


def damaged(value: Any) -> Iterator[Any]:
    """The value with one part of it, at any depth, replaced or taken away."""
    yield from JUNK
    for key in (
        list(value)
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else []
    ):
        for inner in damaged(value[key]):
            made = copy.copy(value)
            made[key] = inner
            yield made
        less = copy.copy(value)
        del less[key]
        yield less


@pytest.mark.parametrize(
    ("name", "row", "truth"),
    ROWS,
    ids=[f"{name}-{index}" for index, (name, _, _) in enumerate(ROWS)],
)
def test_a_damaged_row_is_kept_or_counted(tmp_path: Path, name: str, row: Any, truth: Any) -> None:
    for file in ("math_api", "message_api", "web_search"):
        write_rows(
            tmp_path / "multi_turn_func_doc" / f"{file}.json",
            bfcl.ADD if file == "math_api" else bfcl.SEND,
        )
    rows = [made for made in damaged(row) if isinstance(made, dict)]
    answers = [{"id": row.get("id"), "ground_truth": truth}]
    path = write_rows(tmp_path / "rows.json", row, *rows)
    write_rows(tmp_path / "possible_answer" / "rows.json", *answers)
    loaded = open_source(path, name)
    assert loaded.read == len(rows) + 1
    assert loaded.kept > 0
    assert all(
        Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task for task in loaded.tasks
    )


@pytest.mark.parametrize(
    ("name", "row", "truth"), [entry for entry in ROWS if entry[2] is not None]
)
def test_a_damaged_answer_is_kept_or_counted(
    tmp_path: Path, name: str, row: Any, truth: Any
) -> None:
    for file in ("math_api", "message_api", "web_search"):
        write_rows(
            tmp_path / "multi_turn_func_doc" / f"{file}.json",
            bfcl.ADD if file == "math_api" else bfcl.SEND,
        )
    identity = row["id"]
    truths = [truth, *damaged(truth)]
    path = write_rows(
        tmp_path / "rows.json",
        *({**row, "id": f"{identity}{number}"} for number in range(len(truths))),
    )
    answers = [
        {"id": f"{identity}{number}", "ground_truth": made} for number, made in enumerate(truths)
    ]
    write_rows(tmp_path / "possible_answer" / "rows.json", *answers)
    assert open_source(path, name).read == len(truths)


@pytest.mark.parametrize("name", ["bfcl", "acebench", "when2call"])
def test_a_tool_nested_beyond_measure_is_counted(tmp_path: Path, name: str) -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(400):
        schema = {"type": "dict", "properties": {"a": schema}}
    tools = [{"name": "deep", "parameters": schema}]
    fields = {
        "bfcl": bfcl.question("irrelevance_1", function=tools),
        "acebench": acebench.row("special_irrelevant_1", function=tools),
    }
    path = write_rows(
        tmp_path / "rows.json", fields.get(name) or when2call.row("cannot_answer", tools=tools)
    )
    assert open_source(path, name).read == 1
