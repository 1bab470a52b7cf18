"""Calls that are logged, cached and replayed: the same results as without, whatever models and
tools say.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from toolhone.errors import ConfigError, DataError, RunError
from toolhone.schema import Tool, ToolCall
from toolhone.tools.loading import load_tools, make_registry
from toolhone.tools.registry import Implementation, Registry
from toolhone.tools.result import ToolResult, ToolStatus
from toolhone.tools.tool_cache import Cache, CallLog, ReplayCache

FILE = '''
CALLS = []

def count(x: int) -> int:
    """Count."""
    CALLS.append(x)
    return len(CALLS)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path


def schema(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def same(first: ToolResult, second: ToolResult) -> bool:
    return (first.outcome, first.content, first.value) == (
        second.outcome,
        second.content,
        second.value,
    )


# The log.


HOSTILE: list[Any] = [
    "plain",
    "line\nbreak\u2028 \x00",
    "half \ud800 a character",
    "\udc80",
    float("nan"),
    -math.inf,
    1e-320,
    10**400,
    {"": [None, True, {"a": 0.1 + 0.2}]},
    {"\ud800": 1},
]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def say(x: Any) -> Any:
    """Say it again."""
    return x


def fails(x: Any) -> Any:
    """Fail."""
    raise ValueError(f"no {x}")


SAY = Tool("say", parameters=schema("x", x={}), function=say)
FAILS = Tool("fails", parameters=schema("x", x={}), function=fails)


@pytest.mark.parametrize(
    "value", [*HOSTILE, 10**5000, nested(60), nested(900), nested(100_000)], ids=range(14)
)
def test_a_log_survives_what_models_say_and_changes_no_result(tmp_path, value):
    path = tmp_path / "deep" / "calls.jsonl"
    logged, bare = Registry([SAY], journals=[CallLog(path)]), Registry([SAY])
    call = ToolCall("say", {"x": value})
    assert repr_of(logged.run(call)) == repr_of(bare.run(call))
    assert logged.run(ToolCall("say", {"x": "next"})).value == "next"
    first, second = path.read_bytes().decode("utf-8").strip("\n").split("\n")
    assert json.loads(first, parse_constant=pytest.fail)["tool"] == "say"
    assert json.loads(second)["arguments"] == {"x": "next"}


def repr_of(result: ToolResult) -> tuple[Any, ...]:
    try:
        value = repr(result.value)
    except (ValueError, RecursionError):
        value = "cannot be shown"
    return result.outcome, result.content, value


def test_a_line_says_when_what_and_how_it_ended(tmp_path):
    path = tmp_path / "calls.jsonl"
    registry = Registry([SAY, FAILS, Tool("none")], journals=[CallLog(path)])
    registry.run_all(
        [
            ToolCall("say", {"x": {"k": 1}}),
            ToolCall("fails", {"x": 1}),
            ToolCall("none"),
            ToolCall("new"),
            ToolCall("say"),
        ]
    )
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    by_outcome = {line["outcome"]: line for line in lines}
    assert set(by_outcome) == {"ok", "error", "refused", "unknown_tool", "invalid_arguments"}
    right = by_outcome["ok"]
    assert (right["tool"], right["arguments"], right["content"], right["value"]) == (
        "say",
        {"x": {"k": 1}},
        '{"k": 1}',
        {"k": 1},
    )
    assert set(right) == {"time", "tool", "arguments", "outcome", "content", "seconds", "value"}
    assert "value" not in by_outcome["error"]


def test_many_threads_write_whole_lines(tmp_path):
    path = tmp_path / "calls.jsonl"
    registry = Registry([SAY], journals=[CallLog(path)])
    registry.run_all([ToolCall("say", {"x": str(n) * 2000}) for n in range(200)])
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 200


def test_a_log_goes_on_after_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "calls.jsonl"
    path.write_text('{"tool": "sa')
    Registry([SAY], journals=[CallLog(path)]).run(ToolCall("say", {"x": 1}))
    replay = ReplayCache(path)
    assert (replay.account.read, replay.account.kept, dict(replay.account.skipped)) == (
        2,
        1,
        {"not JSON": 1},
    )


def test_a_log_that_cannot_be_written_is_said_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"calls\.jsonl could not be written: File exists"):
        CallLog(tmp_path / "file" / "calls.jsonl")


# Replay.


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_a_replay_gives_the_very_results_or_says_that_it_has_none(tmp_path, value):
    path = tmp_path / "calls.jsonl"
    call = ToolCall("say", {"x": value})
    first = Registry([SAY], journals=[CallLog(path)]).run(call)
    second = Registry(
        [Tool("say", parameters=SAY.parameters)],
        journals=[ReplayCache(path)] if is_exact(value) else [],
    )
    if is_exact(value):
        assert same(second.run(call), first)
        assert type(second.run(call).value) is type(first.value)
    else:
        with pytest.raises(
            DataError, match=r"no line is a tool result that can be replayed \(not exact: 1\)"
        ):
            ReplayCache(path)


def is_exact(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def test_a_replay_runs_nothing_and_needs_no_permission(folder):
    path = folder / "calls.jsonl"
    specs = [
        "mine.py:count",
        {"name": "go", "type": "command", "command": "echo hi", "env": ["TOOLHONE_NOT_SET"]},
    ]
    first = make_registry(["mine.py:count"], folder, log=path)
    assert [first.run(ToolCall("count", {"x": x})).value for x in (5, 6)] == [1, 2]
    path.write_text(
        path.read_text()
        + '{"tool": "go", "arguments": {}, "outcome": "ok", "content": "recorded"}\n'
    )
    registry = make_registry(specs, folder, ["go"], replay=path, log=folder / "second.jsonl")
    assert registry.runnable == {"count", "go"}
    assert [registry.run(ToolCall("count", {"x": x})).value for x in (6, 5, 6)] == [2, 1, 2]
    assert registry.run(ToolCall("go")).content == "recorded"
    missing = registry.run(ToolCall("count", {"x": 7}))
    assert (missing.outcome, missing.content) == (
        ToolStatus.ERROR,
        "no recorded result for this call of 'count'",
    )
    assert registry.run(ToolCall("count", {"x": "a"})).outcome is ToolStatus.INVALID_ARGUMENTS
    assert all(
        json.loads(line).get("replayed", True) is True
        for line in (folder / "second.jsonl").read_text().splitlines()
    )
    assert json.loads((folder / "second.jsonl").read_text().splitlines()[0])["replayed"] is True


def test_errors_are_replayed_and_refusals_are_counted(tmp_path):
    path = tmp_path / "calls.jsonl"
    registry = Registry([FAILS, Tool("none")], journals=[CallLog(path)])
    first = registry.run(ToolCall("fails", {"x": "b"}))
    registry.run_all([ToolCall("none"), ToolCall("fails", {"x": "b"}), ToolCall("unknown")])
    path.write_bytes(
        path.read_bytes()
        + b'[1]\n{"tool": "fails"}\n\n'
        + b'{"tool": 1, "arguments": {}, "outcome": "ok", "content": ""}\n'
    )
    replay = ReplayCache(path)
    assert same(Registry([FAILS], journals=[replay]).run(ToolCall("fails", {"x": "b"})), first)
    assert (replay.account.read, replay.account.kept) == (7, 1)
    assert replay.account.skipped == {
        "the call was refused": 1,
        "recorded again later": 1,
        "the call was unknown_tool": 1,
        "not a tool result": 3,
    }


def test_the_order_of_arguments_does_not_matter_but_their_types_do(tmp_path):
    path = tmp_path / "calls.jsonl"
    both = Tool("say", parameters=schema(x={}, y={}), function=lambda **given: sorted(given))
    Registry([both], journals=[CallLog(path)]).run(ToolCall("say", {"x": 1, "y": 2}))
    replay = Registry([both], journals=[ReplayCache(path)])
    assert replay.run(ToolCall("say", {"y": 2, "x": 1})).outcome is ToolStatus.OK
    for other in ({"x": "1", "y": 2}, {"x": True, "y": 2}, {"x": 1}):
        assert replay.run(ToolCall("say", other)).outcome is ToolStatus.ERROR


def test_a_replay_cuts_as_the_registry_says(tmp_path):
    path = tmp_path / "calls.jsonl"
    long = ToolCall("say", {"x": "y" * 5000})
    Registry([SAY], journals=[CallLog(path)], max_chars=100).run(long)
    again = Registry([SAY], journals=[ReplayCache(path)], max_chars=300).run(long)
    assert same(again, Registry([SAY], max_chars=300).run(long))


def test_a_replay_without_a_file_or_beside_a_cache_is_refused(folder):
    with pytest.raises(DataError, match="no such file to replay tool results from"):
        ReplayCache(folder / "none.jsonl")
    with pytest.raises(ConfigError, match="both 'cache' and 'replay'"):
        make_registry([], folder, replay=folder / "a", cache=folder / "b")
    with pytest.raises(ConfigError, match="are the same file"):
        make_registry([], folder, replay=folder / "a", log=folder / "a")


# Cache.

COUNT = {"name": "count", "function": "mine.py:count", "cache": True}


def test_a_cached_call_is_made_once_in_this_run_and_in_the_next(folder):
    path = folder / "cache.jsonl"
    for _ in range(2):
        registry = make_registry([COUNT], folder, cache=path)
        assert [registry.run(ToolCall("count", {"x": x})).value for x in (1, 1, 2, 1)] == [
            1,
            1,
            2,
            1,
        ]
    assert len(path.read_text().splitlines()) == 2
    assert same(
        Registry(load_tools(COUNT, folder), journals=[ReplayCache(path)]).run(
            ToolCall("count", {"x": 2})
        ),
        ToolResult(ToolStatus.OK, "2", 2),
    )


def test_a_changed_tool_is_asked_again(folder):
    path = folder / "cache.jsonl"
    registry = make_registry([COUNT], folder, cache=path)
    registry.run(ToolCall("count", {"x": 1}))
    (folder / "mine.py").write_text(
        'def count(x: int) -> str:\n    """Count."""\n    return "new"\n'
    )
    assert (
        make_registry([COUNT], folder, cache=path).run(ToolCall("count", {"x": 1})).value == "new"
    )


def test_only_results_that_are_right_and_wanted_are_cached(tmp_path):
    path = tmp_path / "cache.jsonl"
    marked = [
        Tool("say", parameters=SAY.parameters, function=Implementation(say, cache=True)),
        FAILS,
    ]
    marked.append(
        Tool("fails2", parameters=SAY.parameters, function=Implementation(fails, cache=True))
    )
    marked.append(Tool("say2", parameters=SAY.parameters, function=say))
    cache = Cache(path)
    registry = Registry(marked, journals=[cache])
    for name in ("say", "fails", "fails2", "say2"):
        for value in (1, float("nan"), nested(60)):
            registry.run(ToolCall(name, {"x": value}))
    assert [json.loads(line)["tool"] for line in path.read_text().splitlines()] == ["say"]
    everything = Registry(marked, journals=[Cache(tmp_path / "all.jsonl", all_tools=True)])
    everything.run_all([ToolCall(name, {"x": 1}) for name in ("say", "fails", "fails2", "say2")])
    assert {
        json.loads(line)["tool"] for line in (tmp_path / "all.jsonl").read_text().splitlines()
    } == {"say", "say2"}


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_results_are_the_same_with_a_cache_and_without(tmp_path, value):
    cached = Tool("say", parameters=SAY.parameters, function=Implementation(say, cache=True))
    call = ToolCall("say", {"x": value})
    bare = Registry([SAY]).run(call)
    for _ in range(2):
        registry = Registry([cached], journals=[Cache(tmp_path / "cache.jsonl")])
        assert repr_of(registry.run(call)) == repr_of(registry.run(call)) == repr_of(bare)


def test_a_value_taken_from_the_cache_is_nobody_elses(tmp_path):
    cached = Tool("say", parameters=SAY.parameters, function=Implementation(say, cache=True))
    registry = Registry([cached], journals=[Cache(tmp_path / "cache.jsonl")])
    call = ToolCall("say", {"x": {"k": [1]}})
    registry.run(call)
    registry.run(call).value["k"].append(2)
    assert registry.run(call).value == {"k": [1]}


def test_a_cached_call_counts_towards_the_limit_and_lines_of_a_log_are_not_a_cache(folder):
    path = folder / "cache.jsonl"
    CallLog(path)
    Registry([SAY], journals=[CallLog(path)]).run(ToolCall("say", {"x": 1}))
    cache = Cache(path)
    assert (cache.account.read, cache.account.kept, dict(cache.account.skipped)) == (
        1,
        0,
        {"not from a cache": 1},
    )
    registry = make_registry([{**COUNT, "limits": {"max_calls": 2}}], folder, cache=path)
    outcomes = [registry.run(ToolCall("count", {"x": 1})).outcome for _ in range(3)]
    assert outcomes == [ToolStatus.OK, ToolStatus.OK, ToolStatus.REFUSED]


def test_a_cache_that_no_tool_asks_for_is_refused(folder):
    with pytest.raises(ConfigError, match='no tool says "cache": true'):
        make_registry(["calculator"], folder, cache=folder / "cache.jsonl")


def test_seeds_are_part_of_what_a_built_in_tool_is(tmp_path):
    call = ToolCall("weather", {"city": "Oslo"})
    results = [
        Registry(["weather"], seed=seed, journals=[Cache(tmp_path / "c", all_tools=True)]).run(call)
        for seed in (1, 2, 1)
    ]
    assert same(results[0], results[2])
    assert not same(results[0], results[1])
