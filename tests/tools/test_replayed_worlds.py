"""Worlds without tasks of their own: recorded results, and invented ones that fit the tools."""

import jsonschema
import pytest

from toolhone.config.rl import WorldSection
from toolhone.data.world_tasks import environments
from toolhone.errors import DataError
from toolhone.schema import Conversation, Tool, ToolCall
from toolhone.tools.open_world import SimulatedWorld, open_world
from toolhone.tools.registry import Registry
from toolhone.tools.replay_world import ReplayWorld, recorded_calls
from toolhone.tools.result import ToolStatus
from toolhone.tools.worlds import WorldError

TOOLS = [
    {
        "name": "get_user",
        "parameters": {"type": "object", "properties": {"user_id": {"type": "string"}}},
    },
    {
        "name": "update_user",
        "parameters": {
            "type": "object",
            "properties": {"user_id": {"type": "string"}, "city": {"type": "string"}},
            "required": ["user_id"],
        },
    },
]
ROW = Conversation.from_dict(
    {
        "id": "c1",
        "tools": TOOLS,
        "messages": [
            {"role": "user", "content": "Where does u7 live?"},
            {
                "role": "assistant",
                "tool_calls": [{"name": "get_user", "arguments": {"user_id": "u7"}}],
            },
            {"role": "tool", "content": "Oslo", "name": "get_user"},
            {
                "role": "assistant",
                "tool_calls": [{"name": "get_user", "arguments": {"user_id": "u7"}}],
            },
            {"role": "tool", "content": "Rome", "name": "get_user"},
            {"role": "assistant", "content": "In Rome."},
        ],
    }
)
ASK = ToolCall("get_user", {"user_id": "u7"})
OTHER = ToolCall("get_user", {"user_id": "u8"})


def test_a_replay_gives_recorded_results_in_their_order_and_starts_again_at_reset():
    world = ReplayWorld(recorded_calls(ROW.messages))
    assert [world.call(ASK).content for _ in range(3)] == ["Oslo", "Rome", "Rome"]
    world.reset(0)
    assert world.call(ASK).content == "Oslo"


def test_a_call_that_was_never_recorded_gets_what_the_policy_says():
    recorded = recorded_calls(ROW.messages)
    assert ReplayWorld(recorded).call(OTHER).outcome is ToolStatus.ERROR
    assert ReplayWorld(recorded, "nearest").call(OTHER).content == "Oslo"
    simulated = SimulatedWorld(ROW.tools)
    found = ReplayWorld(recorded, "simulate", simulated).call(OTHER)
    assert found == SimulatedWorld(ROW.tools).call(OTHER)
    unknown = ReplayWorld(recorded, "nearest").call(ToolCall("fly", {}))
    assert unknown.outcome is ToolStatus.ERROR
    with pytest.raises(DataError, match="'unrecorded' of a replay is 'invent'"):
        ReplayWorld(recorded, "invent")


def test_a_conversation_becomes_an_episode_of_several_turns_in_a_replay_of_it():
    (task,) = environments([], [ROW], WorldSection(name="replay"))
    assert [call.name for call in task.expect.wanted] == ["get_user", "get_user"]
    assert len(task.messages) == 1
    world = open_world(task, Registry([]))
    assert [world.call(ASK).content for _ in range(2)] == ["Oslo", "Rome"]
    assert world.call(OTHER).outcome is ToolStatus.OK
    (simulated,) = environments([], [ROW], WorldSection(name="simulated"))
    assert simulated.world == {"name": "simulated"}


def test_a_bad_recording_in_a_task_is_named_by_its_number():
    (task,) = environments([], [ROW], WorldSection(name="replay"))
    task.world["recorded"].append({"tool": "get_user"})
    with pytest.raises(DataError, match="recorded call 3: 'content'; a recorded call has"):
        open_world(task, Registry([]))


def test_simulated_results_are_equal_for_equal_seeds_and_follow_what_was_written():
    world, other = SimulatedWorld(ROW.tools), SimulatedWorld(ROW.tools)
    assert world.call(ASK) == world.call(ASK) == other.call(ASK)
    world.call(ToolCall("update_user", {"user_id": "u7", "city": "Lima"}))
    assert world.call(ASK).value["city"] == "Lima"
    assert world.state() == {"u7": {"user_id": "u7", "city": "Lima"}}
    assert "city" not in other.call(ASK).value
    world.reset(0)
    assert world.call(ASK) == other.call(ASK)


def test_a_result_schema_that_cannot_be_simulated_breaks_the_episode_by_name():
    tool = Tool("find", "", {"type": "object", "properties": {}})
    cases = {
        "find .* a pattern for which no string was found": {
            "type": "string",
            "pattern": "^(?!x)$y",
        },
        "find .* 'not', which drawn values do not obey": {"type": "null", "not": {"type": "null"}},
    }
    for said, code in cases.items():
        schema = {"type": "object", "properties": {"code": code}, "required": ["code"]}
        with pytest.raises(WorldError, match=said):
            SimulatedWorld([tool], {"find": schema}).call(ToolCall("find"))


def test_a_simulated_call_that_breaks_its_schema_gets_no_result():
    world = SimulatedWorld([Tool.of(one) for one in TOOLS])
    bad = world.call(ToolCall("update_user", {"city": "Lima"}))
    assert bad.outcome is ToolStatus.INVALID_ARGUMENTS
    assert world.state() == {}


SCHEMAS = {
    "flat": {
        "type": "object",
        "properties": {"user_id": {"type": "string"}, "age": {"type": "integer"}},
    },
    "bounds": {"type": "integer", "minimum": 3, "maximum": 4},
    "only a bound above": {"type": "number", "maximum": -5},
    "list": {"type": "array", "items": {"type": "string", "format": "date"}, "minItems": 3},
    "choice": {"anyOf": [{"enum": ["on", "off"]}, {"type": "null"}]},
    "lengths": {"type": "string", "minLength": 30, "maxLength": 31},
    "nothing or text": {"type": ["null", "string"]},
    "nested": {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {"b": {"type": "boolean"}}}},
        "required": ["a"],
    },
    "anything": {},
    "pattern": {"type": "string", "pattern": "^[0-9]{9}$"},
    "reference": {
        "$defs": {"user": {"type": "object", "properties": {"user_id": {"type": "string"}}}},
        "allOf": [{"$ref": "#/$defs/user"}, {"required": ["user_id"]}],
    },
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_simulated_results_obey_the_result_schema(name):
    for seed in range(20):
        world = SimulatedWorld(ROW.tools, {"get_user": SCHEMAS[name]})
        world.reset(seed)
        value = world.call(ASK).value
        jsonschema.validate(value, SCHEMAS[name])
        assert name not in ("flat", "reference") or value["user_id"] == "u7"
