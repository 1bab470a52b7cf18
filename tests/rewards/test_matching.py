"""Calls against expectations: equality, pairing, and no error on hostile input."""

import itertools
import json
import math
import random
from pathlib import Path

import pytest

from toolhone.rewards.matching import (
    MAX_REASONS,
    assign,
    assign_in_order,
    judges_calls,
    match_calls,
    same_expression,
    show,
    show_call,
)
from toolhone.rewards.values import ValueShape, same_code, same_value
from toolhone.schema import Expect, Tool, ToolCall

WEATHER = Tool(
    "weather",
    "",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "default": 1},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            "where": {
                "type": "object",
                "properties": {
                    "lat": {"type": "number"},
                    "zoom": {"type": "integer", "default": 3},
                },
            },
            "tags": {"type": "array", "items": {"type": "number"}},
        },
    },
)
SEARCH = Tool("search", "", {"type": "object", "properties": {"query": {"type": "string"}}})
TOOLS = (WEATHER, SEARCH)


def wants(*calls: dict, order: str = "any") -> Expect:
    return Expect.from_dict({"calls": list(calls), "order": order})


def call(name: str, **arguments: object) -> ToolCall:
    return ToolCall(name, arguments)


def exact(given: dict, wanted: dict, **more: object) -> bool:
    expect = wants({"name": "weather", "arguments": wanted, **more})
    return match_calls([ToolCall("weather", given)], expect, TOOLS).exact


NUMBER = ValueShape.of({"type": "number"})
SAME = [
    (1, 1.0, {}),
    (0.1 + 0.2, 0.3, {}),
    (10**20, 1e20, {}),
    (10**23, 1e23, {}),
    (0, -0.0, {}),
    (3, 3.0000000000000004, {}),
    (1e-9, 1.0000000000000002e-9, {}),
    (6.02214076e23, 6.022140760000001e23, {}),
    (10**4000, 10**4000, {}),
    ("10000000000000001", 10**16 + 1, {"type": "integer"}),
    (math.nan, math.nan, {}),
    ("5", 5, {"type": "number"}),
    (5, " 5.0 ", {"type": ["integer", "null"]}),
    ("1e3", 1000, {"anyOf": [{"type": "number"}, {"type": "null"}]}),
    ("5", "5.0", {"type": "number"}),
    (" new\n york ", "New York", {}),
    ("Cafe\u0301", "café", {}),
    ("STRASSE", "straße", {}),
    ([1, 2], [1.0, 2.0], {}),
    (["1"], [1], {"items": {"type": "integer"}}),
    ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, {}),
    ({}, {"zoom": 3}, {"properties": {"zoom": {"default": 3}}}),
    ({"zoom": 3.0}, {}, {"properties": {"zoom": {"default": 3}}}),
    (
        {"n": "3"},
        {"n": 3},
        {"$ref": "#/$defs/N", "$defs": {"N": {"properties": {"n": {"type": "integer"}}}}},
    ),
    (None, None, {}),
    (True, True, {}),
    ("", "  ", {}),
]
DIFFERENT = [
    (1, True, {}),
    (0, False, {"type": "number"}),
    (1, 2, {}),
    (12345678901, 12345678902, {}),
    (12345678901.0, 12345678902, {}),
    (1.0, 1.00001, {}),
    (1e-9, 2e-9, {}),
    (0, 1e-12, {}),
    (10**16 + 1, 1e16, {}),
    (10**4000, 1.5, {}),
    ("10000000000000001", 1e16, {"type": "number"}),
    ("1e400", "1e500", {"type": "number"}),
    (10**400, 1.0, {}),
    (math.nan, 1.0, {}),
    (math.inf, -math.inf, {}),
    ("5", 5, {}),
    ("5", 5, {"type": "string"}),
    ("5 apples", 5, {"type": "number"}),
    ("0x10", 16, {"type": "number"}),
    ("1_000", 1000, {"type": "number"}),
    ("\u0665", 5, {"type": "number"}),
    ("c", "C", {"enum": ["C", "F"]}),
    ("ab", "AB", {"pattern": "^[A-Z]+$"}),
    ("new york", "newyork", {}),
    ("true", True, {}),
    ("null", None, {}),
    ("", None, {}),
    ([1, 2], [2, 1], {}),
    ([1], [1, 1], {}),
    ([1], 1, {}),
    ({"a": 1}, {"A": 1}, {}),
    ({"a": 1}, {}, {}),
    ({"zoom": 4}, {}, {"properties": {"zoom": {"default": 3}}}),
    ({}, [], {}),
]


@pytest.mark.parametrize(("got", "wanted", "schema"), SAME)
def test_values_that_mean_the_same_are_the_same_both_ways(got, wanted, schema):
    assert same_value(got, wanted, ValueShape.of(schema))
    assert same_value(wanted, got, ValueShape.of(schema))


@pytest.mark.parametrize(("got", "wanted", "schema"), DIFFERENT)
def test_values_that_mean_something_else_differ_both_ways(got, wanted, schema):
    assert not same_value(got, wanted, ValueShape.of(schema))
    assert not same_value(wanted, got, ValueShape.of(schema))


def test_numbers_compare_the_same_at_every_scale():
    """What differs in the last bits is equal, what differs in the eighth digit is not."""
    rng = random.Random(0)
    for _ in range(2000):
        scale = rng.choice((rng.randint(-300, 6), rng.randint(16, 300)))
        value = rng.uniform(1, 10) * 10.0**scale * rng.choice((1, -1))
        near = value * (1 + rng.choice((1, -1)) * 2.0**-51)
        far = value * (1 + rng.choice((1, -1)) * 10.0 ** rng.uniform(-8, 8))
        assert same_value(value, near), (value, near)
        assert not same_value(value, far), (value, far)
        assert same_value(near, value)
        assert not same_value(far, value)
        whole = rng.getrandbits(rng.randint(1, 200))
        assert not same_value(whole, whole + 1)
        assert same_value(whole, str(whole), NUMBER)


def test_an_argument_left_out_equals_the_schemas_default_given_explicitly():
    assert exact({"city": "Rome", "days": 1, "unit": "C"}, {"city": "Rome"})
    assert exact({"city": "Rome"}, {"city": "Rome", "days": 1.0, "unit": "C"})
    assert not exact({"city": "Rome", "days": 2}, {"city": "Rome"})
    assert not exact({"city": "Rome"}, {"city": "Rome", "days": 2})
    assert not exact({"city": "Rome", "unit": "c"}, {"city": "Rome"})


def test_accepted_values_are_right_and_optional_arguments_may_be_left_out():
    more = {"accept": {"city": ["Roma", "Rom"], "days": [2, 3]}, "optional": ["where"]}
    wanted = {"city": "Rome", "where": {"lat": 1}}
    assert exact({"city": "roma", "where": {"lat": "1"}}, wanted, **more)
    assert exact({"city": "Rom"}, wanted, **more)
    assert exact({"city": "Rome", "days": 3}, wanted, **more)
    assert not exact({"city": "Paris"}, wanted, **more)
    assert not exact({"city": "Rome", "where": {"lat": 2}}, wanted, **more)
    assert not exact({"city": "Rome", "days": 4}, wanted, **more)
    assert not exact({"where": {"lat": 1}}, wanted, **more)


def test_an_unexpected_argument_is_wrong():
    assert not exact({"city": "Rome", "colour": "red"}, {"city": "Rome"})
    assert not exact({"city": "Rome", "colour": None}, {"city": "Rome"})


def test_spelling_out_defaults_earns_nothing():
    expect = wants({"name": "weather", "arguments": {"city": "Rome"}})
    bare = match_calls([call("weather", city="Paris")], expect, TOOLS)
    padded = match_calls([call("weather", city="Paris", days=1, unit="C")], expect, TOOLS)
    assert bare.argument_score == padded.argument_score == 0


def test_a_mapping_inside_an_argument_knows_its_own_defaults():
    assert exact({"where": {"lat": 1, "zoom": 3}}, {"where": {"lat": 1.0}})
    assert not exact({"where": {"lat": 1, "zoom": 4}}, {"where": {"lat": 1.0}})


def test_expressions_are_compared_by_their_result():
    calculator = Tool(
        "calculator", "", {"type": "object", "properties": {"expression": {"type": "string"}}}
    )

    def same(got: object, wanted: object) -> bool:
        expect = wants({"name": "calculator", "arguments": {"expression": wanted}})
        return match_calls(
            [ToolCall("calculator", {"expression": got})], expect, [calculator]
        ).exact

    assert same("15*24", "24 * 15")
    assert same("360", "15 * 24")
    assert same(360, "15 * 24")
    assert not same("15*25", "15*24")
    assert same("fifteen  Times two", "fifteen times two")
    assert not same("fifteen", "15")
    assert not same(None, "15")
    assert not same(True, "1")
    other = wants({"name": "weather", "arguments": {"expression": "2+2"}})
    assert not match_calls([call("weather", expression="4")], other, TOOLS).exact


def test_code_is_compared_by_its_syntax_tree():
    assert same_code("x = 1  # one\nprint( x )", "x=1\n\nprint(x)\n")
    assert same_code("print('a')", 'print("a")')
    assert not same_code("print(1)", "print(2)")
    assert not same_code("x = 'A'", "x = 'a'")
    assert not same_code("print(x)", "if True:\n    print(x)")
    assert same_code("not python ", "not python")
    assert same_code("x = '\\d'  # a warning", "x='\\d'")
    assert not same_code("print(1", "print(1)")


@pytest.mark.parametrize(
    "code",
    [
        "'\\d'",
        "\x00",
        "\ud800",
        "(" * 5000,
        "-" * 19_000 + "1",
        "not " * 4000 + "x",
        "[" * 90 + "]" * 90,
        "a" + ".b" * 9000,
        "x" * 30_000,
        "1 is 1",
    ],
)
def test_hostile_code_is_compared_without_raising(code):
    assert same_code(code, code)
    assert not same_code(code, "print(1)")


def test_parallel_calls_match_in_any_order_unless_strict():
    calls = [{"name": "weather", "arguments": {"city": city}} for city in ("Rome", "Paris")] + [
        {"name": "search", "arguments": {"query": "x"}}
    ]
    given = [ToolCall.from_dict(c) for c in calls]
    for permuted in itertools.permutations(given):
        assert match_calls(permuted, wants(*calls), TOOLS).exact
        assert match_calls(permuted, wants(*calls, order="strict"), TOOLS).exact == (
            list(permuted) == given
        )


def test_a_wide_choice_does_not_steal_the_match_of_a_narrow_one():
    expect = wants(
        {"name": "search", "arguments": {"query": "a"}, "accept": {"query": ["b"]}},
        {"name": "search", "arguments": {"query": "a"}},
    )
    assert match_calls([call("search", query="a"), call("search", query="b")], expect, TOOLS).exact
    assert match_calls([call("search", query="b"), call("search", query="a")], expect, TOOLS).exact
    assert not match_calls(
        [call("search", query="b"), call("search", query="b")], expect, TOOLS
    ).exact


def test_missing_and_superfluous_calls_cost_both_scores():
    expect = wants(
        {"name": "search", "arguments": {"query": "a"}},
        {"name": "search", "arguments": {"query": "b"}},
    )
    half = match_calls([call("search", query="a")], expect, TOOLS)
    assert (half.exact, half.tool_score, half.argument_score) == (False, 0.5, 0.5)
    twice = match_calls([call("search", query="a"), call("search", query="b")] * 2, expect, TOOLS)
    assert (twice.exact, twice.tool_score, twice.argument_score) == (False, 0.5, 0.5)
    spray = match_calls(
        [call("search", query=q) for q in "ab"] + [call(f"t{i}") for i in range(38)], expect, TOOLS
    )
    assert (spray.tool_score, spray.argument_score) == (0.05, 0.05)


def test_partial_credit_counts_right_arguments_of_the_best_pairing():
    expect = wants(
        {"name": "weather", "arguments": {"city": "Rome", "days": 2}},
        {"name": "weather", "arguments": {"city": "Paris", "days": 3}},
    )
    match = match_calls(
        [call("weather", city="Paris", days=4), call("weather", city="Rome", days=2)], expect, TOOLS
    )
    assert (match.tool_score, match.argument_score, match.exact) == (1.0, 0.75, False)
    assert [(pair.wanted, pair.got, pair.right, pair.counted) for pair in match.pairs] == [
        (0, 1, 2, 2),
        (1, 0, 1, 2),
    ]
    assert match.reasons == ("weather: 'days' is 4, wanted 3",)


def test_strict_order_gives_partial_credit_without_crossing():
    expect = wants(*({"name": name, "arguments": {}} for name in "abc"), order="strict")
    match = match_calls([call("b"), call("c"), call("a")], expect, TOOLS)
    assert (match.exact, match.tool_score) == (False, pytest.approx(2 / 3))
    assert [(pair.wanted, pair.got) for pair in match.pairs] == [
        (1, 0),
        (2, 1),
        (0, None),
        (None, 2),
    ]


def test_no_call_wanted_is_right_only_without_calls():
    expect = Expect.from_dict({"no_call": True})
    assert match_calls([], expect, TOOLS).exact
    match = match_calls([call("search", query="x")], expect, TOOLS)
    assert (match.exact, match.tool_score, match.argument_score) == (False, 0, 0)
    assert match.reasons == ("no call was wanted, got search(query='x')",)


def test_no_call_given_is_wrong_where_calls_are_wanted():
    match = match_calls([], wants({"name": "search", "arguments": {"query": "x"}}), TOOLS)
    assert (match.exact, match.tool_score, match.argument_score) == (False, 0, 0)
    assert match.reasons == ("no call, wanted search(query='x')",)


def test_only_expectations_about_calls_are_judged():
    assert judges_calls(Expect.from_dict({"no_call": True}))
    assert judges_calls(wants({"name": "f"}))
    assert not judges_calls(Expect.from_dict({"answer": "4"}))


def test_reasons_are_bounded_in_number_and_length():
    match = match_calls(
        [call("f" * 500, a="x" * 10_000) for _ in range(100)],
        Expect.from_dict({"no_call": True}),
        (),
    )
    assert len(match.reasons) == MAX_REASONS + 1
    assert match.reasons[-1] == "and 80 more"
    assert max(map(len, match.reasons)) < 400


# Property tests: random gold calls in random disguises.


def _value(rng: random.Random, depth: int = 0) -> object:
    kinds = [
        lambda: rng.randint(-1000, 1000),
        lambda: rng.uniform(-5, 5),
        lambda: rng.choice("abc") * 3,
        lambda: rng.random() < 0.5,
    ]
    kinds += [lambda: None, lambda: rng.choice(["New York", "Zürich", "x y  z", ""])]
    if depth < 3:
        kinds.append(lambda: [_value(rng, depth + 1) for _ in range(rng.randint(0, 3))])
        kinds.append(
            lambda: {key: _value(rng, depth + 1) for key in rng.sample("pqrs", rng.randint(0, 3))}
        )
    return rng.choice(kinds)()


def _disguised(rng: random.Random, value: object) -> object:
    """The same meaning, written differently."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int) and rng.random() < 0.5:
        return float(value)
    if isinstance(value, float):
        return value * (1 + rng.choice([0, 1e-12]))
    if isinstance(value, str):
        return rng.choice([value, value.upper(), f" {value} ", value.replace(" ", "  ")])
    if isinstance(value, list):
        return [_disguised(rng, item) for item in value]
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {key: _disguised(rng, item) for key, item in items}
    return value


def _gold(rng: random.Random) -> list[dict]:
    def one() -> dict:
        return {
            "name": rng.choice(["f", "g", "weather"]),
            "arguments": {key: _value(rng) for key in rng.sample("abcd", rng.randint(0, 4))},
        }

    return [one() for _ in range(rng.randint(1, 6))]


@pytest.mark.parametrize("seed", range(100))
def test_gold_calls_score_one_in_every_disguise_and_order(seed):
    rng = random.Random(seed)
    gold = _gold(rng)
    given = [ToolCall(c["name"], _disguised(rng, c["arguments"])) for c in gold]
    strict = match_calls(given, wants(*gold, order="strict"), TOOLS)
    rng.shuffle(given)
    match = match_calls(given, wants(*gold), TOOLS)
    for found in (strict, match):
        assert (found.exact, found.tool_score, found.argument_score, found.reasons) == (
            True,
            1.0,
            1.0,
            (),
        )


def _wrong(rng: random.Random, gold: list[dict]) -> list[dict]:
    """The gold calls with one thing made wrong."""
    calls = json.loads(json.dumps(gold))
    target = rng.choice(calls)
    named = [c for c in calls if c["arguments"]]
    spoil = rng.choice(["rename", "drop", "add", "extra", *(["value", "remove"] if named else [])])
    if spoil == "rename":
        target["name"] += "_"
    elif spoil == "drop":
        calls.remove(target)
    elif spoil == "add":
        calls.append({"name": "h", "arguments": {}})
    elif spoil == "extra":
        target["arguments"]["unasked"] = 1
    elif spoil == "value":
        arguments = rng.choice(named)["arguments"]
        key = rng.choice(list(arguments))
        arguments[key] = {"other": arguments[key]}
    else:
        arguments = rng.choice(named)["arguments"]
        del arguments[rng.choice(list(arguments))]
    return calls


@pytest.mark.parametrize("seed", range(100))
def test_wrong_calls_are_never_exact_and_exact_means_both_scores_are_one(seed):
    rng = random.Random(1000 + seed)
    gold = _gold(rng)
    given = [ToolCall.from_dict(c) for c in _wrong(rng, gold)]
    rng.shuffle(given)
    match = match_calls(given, wants(*gold), TOOLS)
    assert not match.exact
    assert match.reasons
    assert match.tool_score < 1 or match.argument_score < 1
    assert 0 <= match.argument_score <= match.tool_score <= 1


def _deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


HOSTILE = [
    math.nan,
    math.inf,
    10**4000,
    -(10**400),
    "\ud800",
    "\x00",
    _deep(99),
    _deep(5000),
    {"a": _deep(5000)},
    "9" * 100_000,
    {1: 2},
    {(1, 2): 3},
    {1, 2},
    b"x",
    1j,
    ...,
    [[]] * 1000,
]


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_nothing_a_model_writes_makes_matching_raise(index):
    value = HOSTILE[index]
    for name, parameter in (
        ("weather", "days"),
        ("weather", "city"),
        ("calculator", "expression"),
        ("python", "code"),
        ("x", "y"),
    ):
        for wanted in (1, "a", [1], {"a": 1}, None, 2.5):
            expect = wants({"name": name, "arguments": {parameter: wanted}})
            match = match_calls([ToolCall(name, {parameter: value})], expect, TOOLS)
            assert not match.exact
            assert match.reasons
    assert isinstance(show(value), str)
    assert isinstance(show_call(ToolCall("f", {"a": value})), str)
    assert isinstance(same_expression(value, "1"), bool)


def test_values_nested_as_deep_as_a_parser_reads_are_compared():
    assert same_value(_deep(99), _deep(99))
    assert not same_value(_deep(99), _deep(98))
    assert not same_value(_deep(5000), _deep(5000))


def test_a_schema_that_refers_to_itself_is_read_without_end():
    schema = {
        "$ref": "#/$defs/T",
        "$defs": {"T": {"$ref": "#/$defs/T", "anyOf": [{"$ref": "#/$defs/T"}, {"type": "number"}]}},
    }
    assert same_value("5", 5, ValueShape.of(schema))


BFCL = Path(__file__).parents[3] / "shared/data/datasets/bfcl_v4/possible_answer"


@pytest.mark.real
@pytest.mark.parametrize(
    "category",
    ["parallel", "parallel_multiple", "live_parallel", "live_parallel_multiple", "multiple"],
)
def test_published_answers_match_in_any_order_and_not_when_spoiled(category):
    path = BFCL / f"BFCL_v4_{category}.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    for line in path.read_text(encoding="utf-8").splitlines():
        wanted = [
            _published(name, choices)
            for call in json.loads(line)["ground_truth"]
            for name, choices in call.items()
        ]
        for number in (0, 1, -1):
            given = [ToolCall(call["name"], _chosen(call, number)) for call in reversed(wanted)]
            assert match_calls(given, wants(*wanted), ()).exact, line
        spoiled = [*given[1:], ToolCall(given[0].name, {**given[0].arguments, "unasked": 1})]
        assert not match_calls(spoiled, wants(*wanted), ()).exact, line


def _published(name: str, choices: dict[str, list]) -> dict:
    """An expected call from lists of right values; an empty text means optional."""
    values = {key: [value for value in listed if value != ""] for key, listed in choices.items()}
    return {
        "name": name,
        "arguments": {key: listed[0] for key, listed in values.items() if listed},
        "accept": {key: listed[1:] for key, listed in values.items() if listed},
        "optional": [key for key, listed in choices.items() if "" in listed],
    }


def _chosen(call: dict, number: int) -> dict:
    """The first, second or last right value of each argument; the second omits optional ones."""
    options = {key: [value, *call["accept"][key]] for key, value in call["arguments"].items()}
    return {
        key: listed[number % len(listed)]
        for key, listed in options.items()
        if not (number == 1 and key in call["optional"])
    }


# Who goes with whom.


@pytest.mark.parametrize("seed", range(60))
def test_assignment_is_as_good_as_trying_everything(seed):
    rng = random.Random(seed)
    rows, columns = rng.randint(1, 5), rng.randint(1, 5)
    gain = [[rng.randint(0, 6) for _ in range(columns)] for _ in range(rows)]
    pairs = assign(gain)
    assert (
        len(pairs) == min(rows, columns) == len({r for r, _ in pairs}) == len({c for _, c in pairs})
    )
    small, big = min(rows, columns), max(rows, columns)
    tries = itertools.permutations(range(big), small)
    best = max(
        sum(gain[i][j] if rows <= columns else gain[j][i] for i, j in enumerate(chosen))
        for chosen in tries
    )
    assert sum(gain[r][c] for r, c in pairs) == best


@pytest.mark.parametrize(
    ("gain", "pairs"),
    [
        ([[1, 1], [1, 1]], [(0, 0), (1, 1)]),
        ([[1, 1, 1]], [(0, 0)]),
        ([[1], [1], [1]], [(0, 0)]),
        ([[2, 2, 2], [3, 2, 3]], [(0, 1), (1, 0)]),
        ([[2, 1], [2, 1]], [(0, 0), (1, 1)]),
        ([[4, 4], [4, 3], [3, 4]], [(0, 1), (1, 0)]),
        ([[0, 0], [0, 0], [1, 3]], [(0, 0), (2, 1)]),
    ],
)
def test_of_equal_totals_the_first_rows_and_columns_are_used(gain, pairs):
    assert assign(gain) == pairs


def test_of_two_equal_calls_the_first_is_paired():
    wanted = wants({"name": "search", "arguments": {"query": "a"}})
    calls = [call("search", query="b"), call("search", query="a"), call("search", query="a")]
    match = match_calls(calls, wanted, TOOLS)
    assert [(pair.wanted, pair.got) for pair in match.pairs] == [(0, 1), (None, 0), (None, 2)]


@pytest.mark.parametrize("seed", range(60))
def test_pairs_in_order_never_cross_and_are_as_good_as_trying_everything(seed):
    rng = random.Random(seed)
    rows, columns = rng.randint(1, 5), rng.randint(1, 5)
    gain = [[rng.choice([0, 0, 1, 2, 5]) for _ in range(columns)] for _ in range(rows)]
    pairs = assign_in_order(gain)
    assert all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(pairs))
    best = max(
        sum(gain[r][c] for r, c in zip(some, others))
        for size in range(min(rows, columns) + 1)
        for some in itertools.combinations(range(rows), size)
        for others in itertools.combinations(range(columns), size)
    )
    assert sum(gain[r][c] for r, c in pairs) == best


def test_hundreds_of_calls_are_paired_in_bounded_time():
    count = 200
    gold = [{"name": "search", "arguments": {"query": f"q{i}"}} for i in range(count)]
    given = [ToolCall.from_dict(c) for c in reversed(gold)]
    assert match_calls(given, wants(*gold), TOOLS).exact
    assert match_calls(given[:-1], wants(*gold), TOOLS).tool_score == (count - 1) / count
