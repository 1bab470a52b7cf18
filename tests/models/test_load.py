"""Tools as experiment files name them: schemas over functions, module paths, permissions, and
limits of single tools.
"""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from toolhone.errors import ConfigError
from toolhone.schema import Tool, ToolCall
from toolhone.tools.loading import load_tools, make_registry
from toolhone.tools.registry import Implementation, Registry, ToolLimits
from toolhone.tools.result import CallError, ToolStatus

FILE = '''
from datetime import date
from pydantic import BaseModel

class Seat(BaseModel):
    row: int
    window: bool = False

def book(seat: Seat, day: date, name: str = "nobody") -> str:
    """Book a seat.

    Args:
        seat: Where.
    """
    return f"{seat.row} {seat.window} {day.year} {name}"

def many(a: int, b: int) -> int:
    """Add."""
    return a + b
'''
STRING = {"type": "string"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path


def schema(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


# Entries of an experiment file.


def test_the_playgrounds_entries_find_their_built_in_tools(folder):
    place = {
        "name": "get_weather",
        "description": "Weather.",
        "type": "function",
        "function": "weather",
    }
    parameters = schema("location", location={"type": "string", "description": "City"})
    (made,) = load_tools({**place, "parameters": parameters}, folder)
    assert (made.name, made.parameters) == ("get_weather", parameters)
    registry = Registry(
        [made, *load_tools({"name": "calc", "type": "function", "function": "calculator"}, folder)]
    )
    assert registry.run(ToolCall("get_weather", {"location": "Oslo"})).value["city"] == "Oslo"
    assert registry.run(ToolCall("calc", {"expression": "6*7"})).value == 42
    wrong = registry.run(ToolCall("get_weather", {"city": "Oslo"}))
    assert wrong.content == "get_weather: arguments: 'location' is a required property"
    assert (
        registry.run(ToolCall("get_weather", {"location": "Oslo", "unit": "kelvin"})).outcome
        is ToolStatus.INVALID_ARGUMENTS
    )


def test_a_paired_parameter_that_the_schema_makes_optional_is_still_asked_for(folder):
    (made,) = load_tools(
        {"name": "w", "function": "weather", "parameters": schema(location=STRING)}, folder
    )
    result = Registry([made]).run(ToolCall("w"))
    assert (result.outcome, result.content) == (
        ToolStatus.INVALID_ARGUMENTS,
        "w: arguments: 'location' is a required property",
    )


def test_values_of_paired_parameters_still_become_what_the_function_wants(folder):
    parameters = schema("place", "day", place={"type": "object"}, day=STRING)
    (made,) = load_tools(
        {"name": "b", "function": "mine.py:book", "parameters": parameters}, folder
    )
    registry = Registry([made])
    assert (
        registry.run(ToolCall("b", {"place": {"row": 3}, "day": "2025-01-02"})).value
        == "3 False 2025 nobody"
    )
    result = registry.run(ToolCall("b", {"place": {"row": "x"}, "day": "2025-01-02"}))
    assert (result.outcome, "b: row: " in result.content) == (ToolStatus.INVALID_ARGUMENTS, True)


@pytest.mark.parametrize(
    ("function", "parameters", "text"),
    [
        (
            "mine.py:many",
            schema(x=STRING, y=STRING),
            "declares 'x', 'y', which its function does not take and lacks 'a', 'b', which",
        ),
        (
            "mine.py:many",
            schema(a=STRING),
            "lacks 'b', which its function needs; parameters of the function: a, b",
        ),
        (
            "weather",
            schema(city=STRING, when=STRING),
            "declares 'when', which its function does not take; parameters of the function: city",
        ),
        (
            "weather",
            schema(location={"type": "array"}),
            "declares 'location', which its function does not take and lacks 'city'",
        ),
    ],
)
def test_a_schema_that_cannot_be_the_functions_is_refused(folder, function, parameters, text):
    with pytest.raises(ConfigError) as caught:
        load_tools({"name": "t", "function": function, "parameters": parameters}, folder)
    assert text in str(caught.value)


def test_what_an_entry_leaves_out_is_the_functions_own(folder):
    (made,) = load_tools({"name": "reserve", "function": "mine.py:book"}, folder)
    assert (made.name, made.description) == ("reserve", "Book a seat.")
    assert made.parameters["properties"]["seat"]["description"] == "Where."


def test_a_module_path_names_a_function_of_an_importable_module(folder):
    (made,) = load_tools("toolhone.tools.builtin:calculator", folder)
    assert (
        made.name,
        Registry([made]).run(ToolCall("calculator", {"expression": "1+1"})).value,
    ) == ("calculator", 2)
    for spec, text in [
        ("no.such.module:f", "there is no module 'no.such.module'"),
        ("toolhone.tools.builtin:calculater", "did you mean 'calculator'?"),
        (
            {"name": "t", "implementation": "toolhone.tools.builtin:nothing"},
            "has no function 'nothing'",
        ),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_tools(spec, folder)
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            {"name": "t", "type": "function", "function": "weather", "implementation": "weather"},
            "both 'implementation' and 'function'",
        ),
        (
            {"name": "t", "url": "http://h/"},
            'has \'url\', but nothing that runs; it needs "type": "api"',
        ),
        (
            {"name": "t", "command": "ls"},
            'has \'command\', but nothing that runs; it needs "type": "command"',
        ),
        (
            {"name": "t", "limits": {}},
            "has 'limits', but nothing that runs; it needs an 'implementation'",
        ),
        (
            {"name": "t", "function": "calculator", "limit": {}},
            "unknown key 'limit' (did you mean 'limits'?)",
        ),
        (
            {"name": "t", "type": "funktion"},
            "no type 'funktion' (did you mean 'function'?); types: function, api, command",
        ),
    ],
)
def test_mistakes_in_entries_are_one_sentence(folder, spec, text):
    with pytest.raises(ConfigError) as caught:
        load_tools(spec, folder)
    assert text in str(caught.value)


def test_a_name_that_is_allowed_must_be_a_tools(tmp_path):
    with pytest.raises(
        ConfigError, match=r"allowed_tools names 'b', but there is no such tool; tools: calculator"
    ):
        make_registry(["calculator"], tmp_path, ["b"])


# Limits of one tool.


def test_a_tool_may_have_its_own_time_and_length():
    release = threading.Event()
    slow = Tool("slow", function=Implementation(lambda: release.wait(20), ToolLimits(timeout=0.05)))
    long = Tool("long", function=Implementation(lambda: "x" * 1000, ToolLimits(max_chars=50)))
    registry = Registry([slow, long, Tool("other", function=lambda: "x" * 1000)], max_chars=100)
    assert registry.run(ToolCall("slow")).content == "the tool did not answer within 0.05 s"
    release.set()
    assert [len(registry.run(ToolCall(name)).content) for name in ("long", "other")] == [50, 100]


def test_the_entry_of_a_tool_may_say_its_limits(folder):
    spec = {
        "name": "calc",
        "function": "calculator",
        "limits": {"timeout": 5, "max_chars": 40, "max_calls": 2},
    }
    registry = make_registry([spec, "weather"], folder)
    results = [registry.run(ToolCall("calc", {"expression": f"{n}+1"})) for n in range(3)]
    assert [result.outcome for result in results] == [
        ToolStatus.OK,
        ToolStatus.OK,
        ToolStatus.REFUSED,
    ]
    assert results[2].content.startswith("tool 'cal")
    assert len(results[2].content) == 40
    assert registry.run(ToolCall("weather", {"city": "Oslo"})).outcome is ToolStatus.OK


def test_calls_are_counted_once_each_over_many_threads_and_wrong_ones_are_not():
    made: list[int] = []
    function = Implementation(lambda x: made.append(x), ToolLimits(max_calls=20))
    registry = Registry(
        [Tool("f", parameters=schema("x", x={"type": "integer"}), function=function)]
    )
    assert registry.run(ToolCall("f", {"x": "wrong"})).outcome is ToolStatus.INVALID_ARGUMENTS
    results = registry.run_all([ToolCall("f", {"x": n}) for n in range(50)])
    assert (sum(result.outcome is ToolStatus.OK for result in results), len(made)) == (20, 20)
    assert {result.content for result in results} == {
        "null",
        "tool 'f' has reached its limit of 20 calls",
    }


def test_a_function_may_say_how_its_call_ended():
    def picky() -> None:
        raise CallError(ToolStatus.INVALID_ARGUMENTS, "not today")

    result = Registry([picky]).run(ToolCall("picky"))
    assert (result.outcome, result.content, result.value) == (
        ToolStatus.INVALID_ARGUMENTS,
        "not today",
        None,
    )


def test_a_tool_in_the_script_that_is_running_does_not_run_it_again(folder, monkeypatch):
    script = folder / "script.py"
    script.write_text("raise AssertionError('it ran again')")
    running = types.ModuleType("__main__")
    running.__file__ = str(script)
    exec("def area(width: int) -> int: return width", running.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", running)
    (tool,) = load_tools("script.py:area", folder)
    assert tool.function is running.area
