"""The registry, the loading of tools, the built-in tools and their worlds."""

import asyncio
import enum
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel

from toolhone.errors import ConfigError, DataError
from toolhone.schema import Tool, ToolCall
from toolhone.tools.builtin import BUILTIN, calculator, evaluate
from toolhone.tools.fake_services import MAX_RESULTS, SearchWorld, WeatherWorld
from toolhone.tools.loading import load_tools
from toolhone.tools.registry import Registry, builtin_tool, tool
from toolhone.tools.result import ToolStatus, truncate


class Person(BaseModel):
    name: str
    age: int


@dataclass
class Point:
    x: float
    y: float


class Colour(enum.StrEnum):
    RED = "red"


def add(a: int, b: int = 1) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


def run(source: Any, arguments: dict[str, Any], **options: Any) -> Any:
    registry = Registry([source], **options)
    return registry.run(ToolCall(registry.tools[0].name, arguments))


# Outcomes.


def test_a_right_call_gives_text_for_the_model_and_the_value():
    result = run(add, {"a": 2, "b": 3})
    assert (result.outcome, result.content, result.value) == (ToolStatus.OK, "5", 5)
    assert 0 <= result.seconds < 5


def test_defaults_are_those_of_the_function():
    assert run(add, {"a": 2}).value == 3


def test_an_unknown_tool_names_the_nearest_and_all():
    result = Registry([add, "calculator"]).run(ToolCall("ad", {}))
    assert result.outcome is ToolStatus.UNKNOWN_TOOL
    assert result.content == "there is no tool 'ad' (did you mean 'add'?); tools: add, calculator"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "add: arguments: 'a' is a required property"),
        ({"a": "two"}, "add: a: 'two' is not of type 'integer'"),
        ({"a": True}, "add: a: True is not of type 'integer'"),
        ({"a": 1, "c": 2}, "add: unknown argument 'c'; arguments: a, b"),
        ({"a": None}, "add: a: None is not of type 'integer'"),
    ],
)
def test_wrong_arguments_are_told_and_the_function_is_not_called(arguments, text):
    called = []

    def add(a: int, b: int = 1) -> None:
        called.append((a, b))

    result = run(add, arguments)
    assert (result.outcome, result.content, called) == (ToolStatus.INVALID_ARGUMENTS, text, [])


def test_an_exception_is_its_text_in_one_line_without_a_traceback():
    def broken() -> None:
        raise KeyError("first\nsecond")

    result = run(broken, {})
    assert (result.outcome, result.content, result.value) == (
        ToolStatus.ERROR,
        "KeyError: 'first\\nsecond'",
        None,
    )

    def wrong_value() -> None:
        raise ValueError("there is no\ncity 'x'")

    assert run(wrong_value, {}).content == "there is no city 'x'"


def test_an_exception_that_cannot_be_written_is_still_an_error():
    class BadError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def broken() -> None:
        raise BadError

    assert run(broken, {}).content == "BadError"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_tool_cannot_end_the_process(kind):
    def leaves() -> None:
        raise kind

    assert run(leaves, {}).outcome is ToolStatus.ERROR


def test_a_late_tool_times_out_and_the_caller_goes_on():
    release = threading.Event()

    def slow() -> str:
        release.wait(120)
        return "late"

    started = time.perf_counter()
    result = run(slow, {}, timeout=0.05)
    release.set()
    assert (result.outcome, result.content) == (
        ToolStatus.TIMEOUT,
        "the tool did not answer within 0.05 s",
    )
    assert time.perf_counter() - started < 60


def test_a_timeout_error_of_the_tool_is_a_timeout():
    def slow() -> None:
        raise TimeoutError("no answer from the service")

    result = run(slow, {})
    assert (result.outcome, result.content) == (ToolStatus.TIMEOUT, "no answer from the service")


def test_a_tool_without_implementation_refuses():
    result = run({"name": "book_flight", "parameters": {"type": "object", "properties": {}}}, {})
    assert (result.outcome, result.content) == (
        ToolStatus.REFUSED,
        "tool 'book_flight' cannot be run here: it has no implementation",
    )


def test_a_mistake_of_the_user_goes_through():
    def broken() -> None:
        raise ConfigError("no key")

    with pytest.raises(ConfigError, match="no key"):
        run(broken, {})


def test_a_broken_validator_is_an_error_and_a_refusing_one_invalid_arguments():
    def even(value: int) -> int:
        if value == 0:
            raise KeyError("zero")
        if value % 2:
            raise ValueError("odd")
        return value

    def f(a: Annotated[int, AfterValidator(even)]) -> int:
        return a

    assert [run(f, {"a": a}).outcome for a in (2, 1, 0)] == [
        ToolStatus.OK,
        ToolStatus.INVALID_ARGUMENTS,
        ToolStatus.ERROR,
    ]
    assert run(f, {"a": 1}).content == "f: arguments: Value error, odd"


# Values and texts.


@pytest.mark.parametrize(
    ("given", "content"),
    [
        ("plain", "plain"),
        ({"a": [1, "é"]}, '{"a": [1, "é"]}'),
        (None, "null"),
        ((1, 2), "[1, 2]"),
        (Person(name="Ada", age=36), '{"name": "Ada", "age": 36}'),
        (Point(1, 2.5), '{"x": 1, "y": 2.5}'),
        (Colour.RED, "red"),
    ],
)
def test_values_are_written_as_json_and_texts_as_they_are(given, content):
    assert run(Tool("f", function=lambda: given), {}).content == content


def test_sets_are_written_in_the_same_order_in_every_process():
    names = [f"name {number}" for number in range(40)]
    given = {"all": set(names), "pairs": [frozenset({2, 1, 3})]}
    value = run(Tool("f", "", function=lambda: given), {}).value
    assert value == {"all": sorted(names), "pairs": [[1, 2, 3]]}


def test_arrays_are_lists():
    import numpy as np

    assert run(Tool("f", "", function=lambda: np.arange(3)), {}).value == [0, 1, 2]


def test_a_value_that_json_cannot_write_is_an_error():
    result = run(Tool("f", "", function=object), {})
    assert (result.outcome, result.content) == (
        ToolStatus.ERROR,
        "TypeError: the tool returned a object, which JSON cannot write",
    )
    endless: list[Any] = []
    endless.append(endless)
    assert run(Tool("f", "", function=lambda: endless), {}).outcome is ToolStatus.ERROR


def test_long_content_is_cut_with_a_visible_mark_and_the_value_is_whole():
    result = run(Tool("f", "", function=lambda: "x" * 10_000), {}, max_chars=100)
    assert len(result.content) == 100
    assert result.content.endswith("… [cut: 10,000 characters in all]")
    assert len(result.value) == 10_000


def test_text_at_the_limit_is_not_cut():
    assert truncate("x" * 50, 50) == "x" * 50
    assert truncate("x" * 51, 50) == "x" * 21 + "… [cut: 51 characters in all]"


def test_lone_surrogates_never_reach_a_tokenizer():
    run(Tool("f", "", function=lambda: "a\ud800b"), {}).content.encode("utf-8")


def test_a_tool_that_changes_its_arguments_changes_no_call():
    def smallest(numbers, order):
        """Say the smallest number."""
        numbers.sort()
        return [numbers[0], order["items"].pop()]

    call = ToolCall("smallest", {"numbers": [3, 1, 2], "order": {"items": [4]}})
    assert Registry([smallest]).run(call).value == [1, 4]
    assert call.arguments == {"numbers": [3, 1, 2], "order": {"items": [4]}}


def test_nested_arguments_are_checked_and_become_what_the_function_wants():
    def greet(
        people: list[Person], at: Point, colour: Colour, how: Literal["short", "long"] = "short"
    ) -> str:
        return f"{people[0].name} {people[1].age} {at.x} {colour is Colour.RED} {how}"

    right = {
        "people": [{"name": "Ada", "age": 36}, {"name": "Bob", "age": 5}],
        "at": {"x": 1, "y": 2},
        "colour": "red",
    }
    assert run(greet, right).content == "Ada 5 1.0 True short"
    wrong = run(greet, {**right, "people": [{"name": "Ada", "age": "old"}]})
    assert (wrong.outcome, wrong.content) == (
        ToolStatus.INVALID_ARGUMENTS,
        "greet: people.0.age: 'old' is not of type 'integer'",
    )
    assert run(greet, {**right, "how": "medium"}).outcome is ToolStatus.INVALID_ARGUMENTS


def test_coroutine_functions_are_run():
    async def later() -> int:
        await asyncio.sleep(0)
        return 7

    assert run(later, {}).value == 7


# Many calls.


def test_calls_run_at_the_same_time_and_keep_their_order():
    together = threading.Barrier(4, timeout=60)

    def wait(i: int) -> int:
        together.wait()
        time.sleep(0.01 * (4 - i))
        return i

    results = Registry([wait]).run_all([ToolCall("wait", {"i": i}) for i in range(4)])
    assert [result.value for result in results] == [0, 1, 2, 3]


def test_one_bad_call_does_not_disturb_the_others():
    results = Registry([add]).run_all(
        [
            ToolCall("add", {"a": 1}),
            ToolCall("none"),
            ToolCall("add", {}),
            ToolCall("add", {"a": 2}),
        ]
    )
    ok, unknown, invalid = ToolStatus.OK, ToolStatus.UNKNOWN_TOOL, ToolStatus.INVALID_ARGUMENTS
    assert [result.outcome for result in results] == [ok, unknown, invalid, ok]
    assert Registry([add]).run_all([]) == []


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(
        ConfigError, match="two tools are named 'add'; give one of them another name"
    ):
        Registry([add, Tool("add")])


def test_tools_keep_their_order():
    assert [made.name for made in Registry([*BUILTIN, add]).tools] == [
        "calculator",
        "python",
        "weather",
        "search",
        "add",
    ]


# The decorator.


def test_a_decorated_function_is_a_tool_and_is_still_called_as_before():
    bare = tool(add)
    named = tool(name="plus", description="Sum.")(add)
    assert (bare(1, 2), named(1, b=2)) == (3, 3)
    assert Tool.of(bare) == Tool.of(add)
    made = Tool.of(named)
    assert (made.name, made.description) == ("plus", "Sum.")
    assert made.parameters == Tool.of(add).parameters
    assert made.parameters["properties"]["a"]["description"] == "The first."
    assert run(named, {"a": 1}).value == 2


def test_decorating_changes_neither_the_function_nor_anything_else():
    tool(name="plus")(add)
    assert add.__name__ == "add"
    assert Registry([]).run(ToolCall("plus")).outcome is ToolStatus.UNKNOWN_TOOL


# Loading.

FILE = '''
from __future__ import annotations
from dataclasses import dataclass
from toolhone.tools.registry import tool

@dataclass
class Size:
    width: float
    height: float

@tool
def area(size: Size) -> float:
    """The area."""
    return size.width * size.height

@tool(name="double", description="Twice.")
def twice(x: int) -> int:
    return 2 * x

def helper(x: int) -> int:
    return x
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_tools.py").write_text(FILE)
    return tmp_path


def test_a_file_gives_its_decorated_tools(folder):
    registry = Registry(load_tools("my_tools.py", folder))
    assert [made.name for made in registry.tools] == ["area", "double"]
    assert registry.run(ToolCall("area", {"size": {"width": 2, "height": 3}})).value == 6.0


def test_a_function_of_a_file_needs_no_decorator(folder):
    (made,) = load_tools("my_tools.py:helper", folder)
    assert (made.name, run(made, {"x": 4}).value) == ("helper", 4)


def test_a_file_is_executed_once_until_it_changes(folder):
    first, again = (
        load_tools("my_tools.py:helper", folder),
        load_tools("my_tools.py:helper", folder),
    )
    assert first[0].function is again[0].function
    (folder / "my_tools.py").write_text("def helper(x: int) -> int:\n    return -x\n")
    assert run(load_tools("my_tools.py:helper", folder)[0], {"x": 4}).value == -4


def test_a_tool_object_may_name_its_implementation(folder):
    schema = {
        "type": "object",
        "properties": {"x": {"type": "integer", "minimum": 5}},
        "required": ["x"],
    }
    spec = {
        "name": "helper2",
        "description": "d",
        "parameters": schema,
        "implementation": "my_tools.py:helper",
    }
    (made,) = load_tools(spec, folder)
    assert (made.name, made.parameters, run(made, {"x": 6}).value) == ("helper2", schema, 6)
    assert run(made, {"x": 4}).outcome is ToolStatus.INVALID_ARGUMENTS
    assert load_tools({"name": "only_schema"}, folder)[0].function is None


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("calculater", r"no built-in tool 'calculater' \(did you mean 'calculator'\?\)"),
        ("my_tool.py", r"a tool: there is no file .*my_tool.py \(did you mean 'my_tools.py'\?\)"),
        (
            "my_tools.py:helpr",
            r"my_tools.py has no function 'helpr' \(did you mean 'helper'\?\); functions: ",
        ),
        ("plain.py", "plain.py has no function marked with @tool"),
        (
            "broken.py",
            r"broken.py cannot be imported: ZeroDivisionError: division by zero \(line 2\)",
        ),
        ("leaves.py", "leaves.py cannot be imported: SystemExit"),
        ("syntax.py", "syntax.py cannot be imported: SyntaxError"),
        (
            {"name": "x", "implementation": "my_tools.py"},
            "tool 'x' needs one 'implementation', but 'my_tools.py' holds 2: area, double",
        ),
    ],
)
def test_mistakes_in_loading_are_one_sentence(folder, spec, text):
    (folder / "plain.py").write_text("def f(x: int) -> int: return x\n")
    (folder / "broken.py").write_text("x = 1\nx / 0\n")
    (folder / "leaves.py").write_text("raise SystemExit(1)\n")
    (folder / "syntax.py").write_text("def f(:\n")
    with pytest.raises(ConfigError, match=text) as caught:
        load_tools(spec, folder)
    assert "\n" not in str(caught.value)


def test_a_function_without_usable_types_is_refused(folder):
    (folder / "my_tools.py").write_text("def f(*args): return args\n")
    with pytest.raises(DataError, match="parameter 'args' has no name a model could use"):
        load_tools("my_tools.py:f", folder)


# The calculator.


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("2 + 2", "4"),
        ("8 / 2", "4"),
        ("10 / 4", "2.5"),
        ("0.1 + 0.2", "0.3"),
        ("1 / 3", "0.333333333333"),
        ("2 ** 10", "1024"),
        ("2 ^ 10", "1024"),
        ("2 × 3 ÷ 4 − 1", "0.5"),
        ("17 % 5", "2"),
        ("-7 // 2", "-4"),
        ("-(3 + 4) * -2", "14"),
        ("1,234 * 2", "2468"),
        ("1,234,567.89 + 1", "1234568.89"),
        ("(1,000 + 1) / 7", "143"),
        ("max(1,234)", "234"),
        ("max((1,234), 5)", "1234"),
        ("round(2.567, 2)", "2.57"),
        ("abs(-3) + min(4, 2, 8)", "5"),
        ("pow(2, 3)", "8"),
        ("sqrt(16) + cbrt(27)", "7"),
        ("ln(e) + log10(1000) + log(8, 2)", "7"),
        ("2 * π", "6.28318530718"),
        ("factorial(20)", "2432902008176640000"),
        ("2 ** 100", "1267650600228229401496703205376"),
        ("1e-7 * 1", "1e-07"),
        ("1e20", "1e+20"),
        ("007 + .5 + 5.", "12.5"),
        ("1\n+ 2", "3"),
        ("0 * -1.0", "0"),
    ],
)
def test_the_calculator_answers_as_a_person_expects(expression, shown):
    assert run("calculator", {"expression": expression}).content == shown


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("", "is empty"),
        ("1 / 0", "division by zero"),
        ("2 +", "not a complete arithmetic expression"),
        ("((2)", "not a complete arithmetic expression"),
        ("50%", "write 15 per cent as 15/100"),
        ("2(3)", "write 2*(3), not 2(3)"),
        ("pi(2)", "'pi' is a number"),
        ("sqrt", "needs parentheses"),
        ("sqr(4)", "unknown name 'sqr' (did you mean 'sqrt'?)"),
        ("x + 1", "unknown name 'x'"),
        ("1,23", "groups of three digits"),
        ("1,2345", "groups of three digits"),
        ("2.5.1", "cannot read '2.5.1' at character 1"),
        ("().__class__", "cannot read '.__class__' at character 3"),
        ("__import__('os')", "cannot read"),
        ("max(*3)", "only numbers, operators and functions"),
        ("()", "only numbers, operators and functions"),
        ("1 if 1 else 2", "unknown name 'if'"),
        ("sqrt(-1)", "nonnegative"),
        ("(-8) ** (1/3)", "among the real numbers"),
        ("10 ** 10 ** 8", "too large"),
        ("10 ** 5000", "too large"),
        ("1e308 * 10", "too large"),
        ("(" * 41 + "1" + ")" * 41, "more than 40 parentheses"),
        ("1+" * 300 + "1", "601 characters; at most 500"),
    ],
)
def test_what_is_not_arithmetic_is_an_error_that_says_why(expression, text):
    result = run("calculator", {"expression": expression})
    assert result.outcome is ToolStatus.ERROR
    assert text in result.content
    with pytest.raises(ValueError):
        evaluate(expression)


def test_evaluate_does_not_round():
    assert evaluate("0.1 + 0.2") == 0.1 + 0.2
    assert calculator("0.1 + 0.2") == 0.3
    assert isinstance(evaluate("8 / 2"), float)


# The other built-in tools.


def test_python_returns_what_was_printed_or_else_the_last_value():
    assert run("python", {"code": "print('a')\n3"}).content == "a\n"
    assert run("python", {"code": "x = (1, 2)\nx"}).content == "(1, 2)"
    assert run("python", {"code": "'text'"}).content == "text"
    assert "printed nothing" in run("python", {"code": "x = 1"}).content


def test_errors_of_a_python_program_are_told_with_what_it_printed():
    result = run("python", {"code": "print('so far')\nx"})
    assert result.outcome is ToolStatus.ERROR
    assert result.content == "NameError: name 'x' is not defined (line 2); printed before: so far"
    late = run("python", {"code": "while True: pass"})
    assert late.outcome is ToolStatus.ERROR, "the program's fault, not a service that is late"
    assert late.content == "TimeoutError: the program ran longer than 1 s"


def test_every_built_in_tool_describes_itself_and_its_arguments():
    for name in BUILTIN:
        made = builtin_tool(name)
        assert made.name == name
        assert len(made.description) > 20
        assert made.function is not None
        for schema in made.parameters["properties"].values():
            assert len(schema["description"]) > 10
        json.dumps(made.to_dict())


def test_an_unknown_built_in_tool_is_refused_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"no built-in tool 'wether' \(did you mean 'weather'\?\)"
    ):
        builtin_tool("wether")


def test_weather_is_the_same_for_a_seed_and_in_both_units():
    world = WeatherWorld(3)
    report = world.weather("Oslo")
    assert report == WeatherWorld(3).weather("Oslo")
    assert {**world.weather(" oslo , Norway"), "city": "Oslo"} == report
    assert len({WeatherWorld(seed).weather("Oslo")["temperature"] for seed in range(20)}) > 5
    fahrenheit = world.weather("Oslo", "fahrenheit")
    assert fahrenheit["temperature"] == round(report["temperature"] * 9 / 5 + 32, 1)
    assert {**fahrenheit, "unit": "celsius", "temperature": report["temperature"]} == report


def test_weather_agrees_with_itself():
    for seed in range(300):
        report = WeatherWorld(seed).weather("Quito")
        assert 0 <= report["humidity"] <= 100
        assert "snow" not in report["condition"] or report["temperature"] <= 2
        assert (
            report["condition"] not in ("drizzle", "rain", "thunderstorm")
            or report["temperature"] > 2
        )


def test_search_is_the_same_for_a_seed_and_a_longer_list_begins_with_a_shorter_one():
    world = SearchWorld(1)
    ten = world.search("tide tables", MAX_RESULTS)
    assert ten[:2] == world.search("Find me the tide tables, please", 2)
    assert len({page["url"] for page in ten}) == MAX_RESULTS
    assert ten != SearchWorld(2).search("tide tables", MAX_RESULTS)
    for page in ten:
        assert set(page) == {"title", "url", "snippet"}
        assert page["url"].startswith("https://example.org/tide-tables/")
        assert "tide tables" in page["title"].lower() + page["snippet"].lower()


def test_seeds_reach_the_worlds_through_the_registry():
    call = ToolCall("weather", {"city": "Oslo", "unit": "celsius"})
    assert Registry(["weather"], seed=5).run(call).value == WeatherWorld(5).weather("Oslo")
    assert len(Registry(["search"]).run(ToolCall("search", {"query": "x"})).value) == 3


@pytest.mark.parametrize(
    ("name", "arguments", "outcome"),
    [
        ("weather", {"city": "Oslo", "unit": "kelvin"}, ToolStatus.INVALID_ARGUMENTS),
        ("weather", {"city": " "}, ToolStatus.ERROR),
        ("search", {"query": "x", "limit": 0}, ToolStatus.INVALID_ARGUMENTS),
        ("search", {"query": "x", "limit": 11}, ToolStatus.INVALID_ARGUMENTS),
        ("search", {"query": "?!"}, ToolStatus.ERROR),
    ],
)
def test_worlds_refuse_what_a_service_would_refuse(name, arguments, outcome):
    assert run(name, arguments).outcome is outcome
