"""Calls in a text and their comparison, as MLX-GRPO's tool rewards read and score them."""

import ast
import sys

import pytest

import toolhone
from toolhone.rewards import legacy_rewards as python_calls
from toolhone.rewards.legacy_rewards import compare_function_calls, extract_function_calls


def call(name: str, **parameters: object) -> dict:
    return {"name": name, "parameters": parameters}


# Reading.


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("f(n=5)", [call("f", n=5)]),
        ("I will call f (n = 5) now", [call("f", n=5)]),
        ("f(5)", [call("f")]),
        ('f("x")', [call("f")]),
        ("f()", [call("f")]),
        ("f(1, b=2)", [call("f")]),
        ("f(**k)", [call("f")]),
        ("f(b=2, 1)", [call("f", b=2)]),
        ("f(a=1,)", [call("f", a=1)]),
        ('f(a="(x)")', [call("f", a="(x")]),
        ("f(a=g(b=1))", [call("f", a="g(b=1")]),
        ("f(a=(1,2))", [call("f", a="(1,2")]),
        ("f(a=true)", [call("f", a="true")]),
        ("f(a=null)", [call("f", a="null")]),
        ("f(a=Paris)", [call("f", a="Paris")]),
        ("f(a=1 b=2)", [call("f", a="1 b=2")]),
        ("f(a==1)", [call("f", a="=1")]),
        ("mod.f(a=1)", [call("f", a=1)]),
        ('{"name": "f", "arguments": {"a": 1}}', []),
    ],
)
def test_the_table_of_readings_holds_entry_by_entry(text, found):
    assert extract_function_calls(text) == found
    assert [type(v) for c in extract_function_calls(text) for v in c["parameters"].values()] == [
        type(v) for c in found for v in c["parameters"].values()
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("hello", []),
        ("if (x) then", [call("if")]),
        ("f(a=1)\ng(b=2)", [call("f", a=1), call("g", b=2)]),
        ("f\n (\n a=1,\n b=2\n)", [call("f", a=1, b=2)]),
        ('f("a": 1, "b": [1, 2])', [call("f", a=1, b=[1, 2])]),
        ("f(1: 2)", [{"name": "f", "parameters": {"1": 2}}]),
        ("f(a: 1)", [call("f")]),
        (
            "f(a=[1, 2], b={'k': 'v, w'}, c='x, y')",
            [call("f", a=[1, 2], b={"k": "v, w"}, c="x, y")],
        ),
        ("f(a=True, b=None, c=-1.5, d='it\\'s')", [call("f", a=True, b=None, c=-1.5, d="it's")]),
        ("f(a='x\", b=1)", [call("f", a='x", b=1')]),
        ("f(a=, b=2)", [call("f", a="", b=2)]),
        ("f(a=1, a=2)", [call("f", a=2)]),
        ("f(a=1, b, c=3)", [call("f", a=1)]),
        ("f(a=x], b=2)", [call("f", a="x], b=2")]),
        ("12f(a=1)", [call("f", a=1)]),
        ("ünf(a=1)", [call("nf", a=1)]),
        ("f(g(a=1)", [call("f")]),
        ("(f)(a=1)", []),
        ("f(a=1", []),
        ("f(a=1) g(b=2", [call("f", a=1)]),
    ],
)
def test_what_the_text_beside_the_table_says_holds_too(text, found):
    assert extract_function_calls(text) == found


@pytest.mark.parametrize(
    "inside",
    [
        "{[1]: 2}: 3",
        "a=\x00",
        "a='\ud800'",
        r"a='\d'",
        "a=" + "[" * 500,
        "a=" + "-" * 9000 + "1",
        "a=" + "9" * 5000,
        'a="\\N{x}"',
    ],
)
def test_what_python_cannot_read_is_a_string_or_nothing_and_never_an_error(inside):
    [found] = extract_function_calls(f"f({inside})")
    assert found["name"] == "f"
    assert all(isinstance(value, str) for value in found["parameters"].values())


def test_an_escape_that_python_only_warns_of_is_read_where_warnings_are_errors():
    assert extract_function_calls(r"f(a='\d\n')") == [call("f", a="\\d\n")]


def test_nothing_is_evaluated():
    assert extract_function_calls("f(a=__import__('os').getcwd(), b=2**999999999)")[0] == call(
        "f", a="__import__('os"
    )


# The time that reading takes.

HOSTILE = {
    "no closing bracket": "f(a=",
    "a name and spaces": "a" + " " * 50,
    "one long name": "a",
    "digits": "1",
    "quotes": "f(a='\"",
    "brackets": "f(a=[",
    "many calls": "f(a=1) ",
    "many parameters in the end": "a=1,",
    "colons": "f(:",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_megabyte_of_hostile_text_is_read(piece):
    """A reader that is quadratic here takes hours."""
    extract_function_calls(piece * (1_000_000 // len(piece)))


@pytest.mark.parametrize(
    "piece", [*HOSTILE.values(), "f(a=1, b='x, y') "], ids=[*HOSTILE.keys(), "good calls"]
)
@pytest.mark.parametrize("ending", ["", ")"])
def test_twice_the_text_takes_twice_the_steps(piece, ending):
    small, large = (
        _steps("f(" * bool(ending) + piece * (size // len(piece)) + ending)
        for size in (10_000, 20_000)
    )
    assert large <= 2.2 * small + 100


def _steps(text: str) -> int:
    """Lines of Python run by the reader."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        count += event == "line"
        return trace if frame.f_code.co_filename == python_calls.__file__ else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        extract_function_calls(text)
    finally:
        sys.settrace(before)
    return count


class Watched(str):
    """A text that notes how many of its characters `find` looks at."""

    looked_at = 0

    def find(self, *arguments):
        found = super().find(*arguments)
        self.looked_at += (found if found >= 0 else len(self)) - arguments[1]
        return found


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_search_for_closing_brackets_sees_each_character_once(piece):
    text = Watched(piece * 1000)
    extract_function_calls(text)
    assert text.looked_at <= len(text)


@pytest.mark.parametrize(
    "text", ["f(a=1, " * 3000 + ")", "f(" + "a=1," * 3000 + ")", 'f("a":1,' + "a=1," * 3000 + ")"]
)
def test_the_literal_parser_sees_each_character_at_most_twice(text, monkeypatch):
    seen = []
    monkeypatch.setattr(
        python_calls.ast,  # type: ignore[attr-defined]
        "literal_eval",
        lambda part, read=ast.literal_eval: (seen.append(len(part)), read(part))[1],
    )
    extract_function_calls(text)
    assert sum(seen) <= 2 * len(text) + 2


# Comparing.


@pytest.mark.parametrize(
    ("predicted", "expected", "exact", "function", "params", "overall"),
    [
        ("f(a=1)", "f(a=1.0)", 1, 1, 1, 1),
        ("f(a=1,b=2)", "f(a=1)", 0, 1, 1, 0.8),
        ("f(a=1)", "f(a=1,b=2)", 0, 1, 0.5, 0.6),
        ("f(a=1)", "f()", 0, 1, 0, 0.4),
        ("g(b=2) f(a=1)", "f(a=1) g(b=2)", 0, 0, 0, 0),
        ("f(a=1) f(a=1)", "f(a=1)", 0, 1, 0, 0.5),
        ("f(a=1)", "f(a=1) f(a=2)", 0, 0.5, 0, 0.25),
        ("f(a=1) f(a=9)", "f(a=1) f(a=2)", 0, 1, 0.5, 0.6),
        ("hello", "none needed", 1, 1, 1, 1),
    ],
)
def test_the_table_of_comparisons_holds_entry_by_entry(
    predicted, expected, exact, function, params, overall
):
    found = compare_function_calls(
        extract_function_calls(predicted), extract_function_calls(expected)
    )
    wanted = {
        "exact_match": exact,
        "function_match": function,
        "params_match": params,
        "overall": overall,
    }
    assert found == pytest.approx(wanted)
    assert list(found) == list(wanted)


def same(first: object, second: object) -> bool:
    return compare_function_calls([call("f", a=first)], [call("f", a=second)])["exact_match"] == 1.0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, 1.0),
        (1, True),
        (0, False),
        (None, "null"),
        (0.1 + 0.2, 0.3),
        (1.0000004, 1),
        (" New York ", "new york"),
        ("'x'", "x"),
        ("PARIS", "paris"),
        ((1, [2]), [1, (2,)]),
        ([None, "A"], ["null", "a"]),
        ({"k": " V "}, {"k": "v"}),
    ],
)
def test_values_that_are_the_same_after_normalising(first, second):
    assert same(first, second)
    assert same(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", 1),
        ("None", None),
        (None, "NULL"),
        (None, " null"),
        (None, ""),
        (1.000001, 1),
        ("new  york", "new york"),
        ({"K": 1}, {"k": 1}),
        ([1, 2], [2, 1]),
        ("true", True),
    ],
)
def test_values_that_stay_different(first, second):
    assert not same(first, second)
    assert not same(second, first)


def test_one_side_without_calls_scores_nothing():
    some = [call("f", a=1)]
    zero = {"exact_match": 0, "function_match": 0, "params_match": 0, "overall": 0}
    assert compare_function_calls(some, []) == compare_function_calls([], some) == zero
    assert compare_function_calls([], []) == dict.fromkeys(zero, 1)


def test_a_wanted_none_is_not_had_by_leaving_the_parameter_out():
    assert compare_function_calls([call("f", b=1)], [call("f", a=None, b=1)])["params_match"] == 0.5


def test_with_another_number_of_calls_any_expected_name_counts_every_time():
    predicted = extract_function_calls("f() f() g() h()")
    assert compare_function_calls(predicted, [call("f"), call("g")])["function_match"] == 0.75


def test_names_are_compared_as_they_are():
    assert compare_function_calls([call("F")], [call("f")])["overall"] == 0


def test_both_functions_are_public():
    assert toolhone.extract_function_calls is extract_function_calls
    assert toolhone.compare_function_calls is compare_function_calls
