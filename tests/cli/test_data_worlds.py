"""`toolhone data worlds` and `toolhone data build --world`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from toolhone.cli.data import app
from toolhone.config.rl import STATEFUL
from toolhone.schema import Conversation, Task, Tool, ToolCall
from toolhone.tools.open_world import SimulatedWorld
from toolhone.tools.replay_world import ReplayWorld, recordings_of

ROOT = Path(__file__).parents[2]


def test_build_writes_the_rows_of_a_world_and_worlds_lists_it(tmp_path):
    run = CliRunner()
    sizes = ["--train", "3", "--held-out", "2", "--tasks", "4"]
    built = run.invoke(app, ["data", "build", "--world", "shop", "--out", str(tmp_path), *sizes])
    assert built.exit_code == 0, built.output
    rows = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in tmp_path.iterdir()
    }
    counts = {"train": 3, "held_out": 2, "tasks_held_out": 4, "tasks_rl": 4}
    assert {name: len(found) for name, found in rows.items()} == counts
    assert all(Conversation.from_dict(row).messages for row in rows["train"])
    assert all(Task.from_dict(row).world["name"] == "shop" for row in rows["tasks_rl"])
    listed = json.loads(run.invoke(app, ["data", "worlds", "--json"]).output)
    assert [one["name"] for one in listed] == list(STATEFUL)
    assert all(one["levels"] == 5 and one["tools"] for one in listed)


@pytest.mark.parametrize("name", STATEFUL)
def test_the_drawing_of_a_level_is_the_figure_of_the_documentation(name):
    drawn = CliRunner().invoke(app, ["data", "worlds", name])
    assert drawn.exit_code == 0, drawn.output
    figure = drawn.output[drawn.output.index(f"{name} 5: ") :]
    assert f"```\n{figure}```\n" in (ROOT / "docs" / "worlds" / f"{name}.md").read_text()


FORECAST = {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]}
USER = {
    "type": "object",
    "properties": {"id": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["id"],
}


def page(name: str) -> str:
    """The first figure of a page, white space collapsed."""
    text = (ROOT / "docs" / "worlds" / name).read_text(encoding="utf-8")
    return " ".join(text.split("```")[1].split())


def test_the_replay_of_the_documentation_is_what_a_model_reads():
    days = {"Monday": ["rain", "sun"], "Tuesday": ["wind"]}
    recorded = [
        {"tool": "forecast", "arguments": {"day": day}, "content": content}
        for day, contents in days.items()
        for content in contents
    ]
    others = SimulatedWorld([Tool("forecast", "The weather of a day.", FORECAST)])
    for policy in ("error", "nearest", "simulate"):
        world = ReplayWorld(recordings_of(recorded, "here"), policy, others)
        for day in ("Monday", "Monday", "Monday", "Tuesday"):
            said = world.call(ToolCall("forecast", {"day": day})).content
            assert f"forecast(day='{day}') -> {said}" in page("replay.md")
        said = world.call(ToolCall("forecast", {"day": "Friday"})).content
        assert f"forecast(day='Friday') -> {said} ({policy})" in page("replay.md")


def test_the_simulated_calls_of_the_documentation_answer_so():
    world = SimulatedWorld([Tool(name, "", USER) for name in ("get_user", "update_user")])
    calls = [
        ToolCall("get_user", {"id": 7}),
        ToolCall("update_user", {"id": 7, "city": "Rome"}),
        ToolCall("get_user", {"id": 7}),
        ToolCall("get_user", {"id": "seven"}),
    ]
    lines = [
        f"{call.name}({', '.join(f'{k}={v!r}' for k, v in call.arguments.items())}) -> "
        f"{world.call(call).content}"
        for call in calls
    ]
    assert page("simulated.md") == " ".join(lines)
