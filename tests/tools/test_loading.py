"""Tools that an experiment names: schemas alone, and what a training says of them."""

from pathlib import Path
from typing import Any

import pytest

from toolhone.config.experiment import experiment_of
from toolhone.schema import Task, ToolCall
from toolhone.tools.loading import open_registry, tool_notes
from toolhone.tools.result import ToolStatus

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}


def schema(name: str, **properties: Any) -> dict[str, Any]:
    """A tool as the playground's files write it."""
    parameters = {"type": "object", "properties": properties, "required": [*properties][:1]}
    return {"name": name, "description": "x", "type": "function", "parameters": parameters}


@pytest.mark.parametrize(
    ("tool", "call", "runs"),
    [
        (schema("calculator", expression=TEXT), {"expression": "6*7"}, True),
        (schema("calculator", formula=TEXT), {"formula": "6*7"}, True),
        (schema("calculator", a=WHOLE, b=WHOLE), {"a": 1}, False),
        (schema("calculator", expression=WHOLE), {"expression": 1}, False),
        (schema("weather", location=TEXT), {"location": "Oslo"}, True),
        (schema("weather", city=TEXT, unit={"enum": ["celsius"]}), {"city": "Oslo"}, True),
        (schema("weather", city=TEXT, unit={"enum": ["C", "F"]}), {"city": "Oslo"}, False),
        (schema("weather", city=TEXT, unit=TEXT), {"city": "Oslo"}, False),
        (schema("search", query=TEXT), {"query": "tides"}, True),
        (schema("search", query=TEXT, num_results=WHOLE), {"query": "tides"}, False),
        (schema("python", code=TEXT), {"code": "1 + 1"}, True),
        ({"type": "function", "function": schema("python", code=TEXT)}, {"code": "2"}, True),
        (schema("area", side=TEXT), {"side": "2"}, False),
    ],
)
def test_a_schema_named_like_a_built_in_tool_runs_where_its_parameters_fit(
    tool: dict[str, Any], call: dict[str, Any], runs: bool
) -> None:
    plan = experiment_of({"tools": [tool]}, "the test")
    registry = open_registry(plan)
    name = registry.tools[0].name
    result = registry.run(ToolCall(name, call))
    assert result.outcome is (ToolStatus.OK if runs else ToolStatus.REFUSED)
    notes = list(tool_notes(plan, registry, []))
    assert notes == [
        f"note: tool {name!r} is a schema alone: the built-in {name} runs its calls"
        if runs
        else f"note: tool {name!r} cannot be run here: it has no implementation: calls get no "
        "result, and execution_success leaves tasks that want them out"
    ]


def test_tools_of_the_tasks_that_nothing_runs_are_named_and_counted(tmp_path: Path) -> None:
    offered = [schema(f"tool{n}", x=TEXT) for n in range(5)]
    for one in offered:
        del one["type"]
    task = Task.from_dict(
        {
            "id": "t",
            "messages": [{"role": "user", "content": "?"}],
            "tools": offered,
            "expect": {"no_call": True},
        }
    )
    plan = experiment_of({}, "the test")
    (note,) = tool_notes(plan, open_registry(plan), [task])
    assert note.startswith("note: tool 'tool0' is not in tools; tool 'tool1' is not in tools; ")
    assert "; and 2 more: calls get no result" in note
    log = tmp_path / "log.jsonl"
    log.write_text("")
    replayed = experiment_of({"tool_results": {"replay": str(log)}}, "the test")
    assert list(tool_notes(replayed, open_registry(replayed), [task])) == []


@pytest.mark.parametrize("key", ["parameters", "inputSchema", "input_schema"])
def test_the_schema_of_a_tool_is_read_under_each_of_its_names(key: str) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    entry = {"name": "near", "description": "What is near.", key: schema}
    wrapped = {"type": "function", "function": entry}
    for tool in ([entry], [wrapped]):
        (read,) = open_registry(experiment_of({"tools": tool}, "the test")).tools
        assert read.parameters == schema
