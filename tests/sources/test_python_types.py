"""Names of Python types become JSON Schema, and what is no type is refused; flat tools are read
with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolhone.schema import Tool, ToolCall
from toolhone.schema.tool import allows_null
from toolhone.sources.files import FileLine
from toolhone.sources.python_types import MAX_BRACKETS, UnknownType, read_type
from toolhone.sources.source import Context, Skip
from toolhone.sources.tool_specs import fit_call, read_tools

STR, INT, NUM = {"type": "string"}, {"type": "integer"}, {"type": "number"}
INTS = {"type": "array", "items": INT}


def read_with_repairs(value: Any) -> tuple[tuple[Tool, ...], set[str]]:
    context = Context("", Path(), {}, FileLine(Path(), 0))
    return read_tools(value, context), context.repairs


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("int", INT),
        (" str ", STR),
        ("String", STR),
        ("float", NUM),
        ("bool", {"type": "boolean"}),
        ("dict", {"type": "object"}),
        ("List", {"type": "array"}),
        ("Any", {}),
        ("np.ndarray", {"type": "array"}),
        ("datetime.date", STR),
        ("integer", INT),
        ("List[int]", INTS),
        ("typing.List[typing.List[int]]", {"type": "array", "items": INTS}),
        ("List[Union[int, float]]", {"type": "array", "items": NUM}),
        ("list[Any]", {"type": "array"}),
        ("Set[str]", {"type": "array", "uniqueItems": True, "items": STR}),
        ("Dict[str, List[int]]", {"type": "object", "additionalProperties": INTS}),
        ("Dict[str, Any]", {"type": "object"}),
        ("Tuple[float, float]", {"type": "array", "items": NUM, "minItems": 2, "maxItems": 2}),
        (
            "Tuple[int, str]",
            {"type": "array", "prefixItems": [INT, STR], "minItems": 2, "maxItems": 2},
        ),
        ("Tuple[int, ...]", INTS),
        (
            "Tuple[Tuple[int, ...], str]",
            {"type": "array", "prefixItems": [INTS, STR], "minItems": 2, "maxItems": 2},
        ),
        ("Union[int, str]", {"type": ["integer", "string"]}),
        ("int or str", {"type": ["integer", "string"]}),
        ("Union[str, List[int]]", {"anyOf": [STR, INTS]}),
        ("Literal['a', \"b\", 1]", {"enum": ["a", "b", 1]}),
        ("Callable[[float], float]", STR),
    ],
)
def test_a_type_that_must_be_given_becomes_its_schema(text: str, schema: dict[str, Any]) -> None:
    read = read_type(text)
    assert (read.schema, read.optional) == (schema, False)


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("str, optional", STR),
        ("str (optional)", STR),
        ("Int, Optional", INT),
        ("int, default is 5", INT),
        ("int, optional, default=5", INT),
        ("List[int], default [1, 2]", INTS),
        ("Optional[int]", {"type": ["integer", "null"]}),
        ("None", {"type": "null"}),
        ("typing.Optional[Any]", {}),
        ("int | None", {"type": ["integer", "null"]}),
        ("Optional[List[int]]", {"anyOf": [INTS, {"type": "null"}]}),
        ("Literal['a', None]", {"enum": ["a", None]}),
    ],
)
def test_what_is_marked_optional_or_may_be_none_may_be_left_out(
    text: str, schema: dict[str, Any]
) -> None:
    read = read_type(text)
    assert (read.schema, read.optional) == (schema, True)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "foo",
            "List[int",
            "List[int]]",
            "int,str",
            "List[]",
            "dict[int]",
            "[int]",
            "Optional",
            "int[str]",
            "Literal[x]",
            "]",
        ),
        *(
            "__import__('os')",
            "List[" * (MAX_BRACKETS + 1) + "int" + "]" * (MAX_BRACKETS + 1),
            "a" * 10_000,
        ),
    ],
)
def test_what_is_no_type_is_refused(text: str) -> None:
    with pytest.raises(UnknownType):
        read_type(text)


def test_null_is_a_value_where_the_schema_says_so() -> None:
    assert [
        allows_null(read_type(text).schema)
        for text in ("Optional[int]", "Literal[1, None]", "Any", "int", "Union[int, str]")
    ] == [*(True, True, True), *(False, False)]


# --- flat tools


def flat(**parameters: Any) -> dict[str, Any]:
    return {"name": "f", "description": "Does f.", "parameters": parameters}


def only(source: Any) -> Tool:
    ((tool,), _) = read_with_repairs([source])
    return tool


def test_flat_parameters_are_required_without_a_default_or_an_optional_mark() -> None:
    tool = only(
        flat(
            a={"type": "int", "description": "A."},
            b={"type": "str", "default": "x"},
            c={"type": "float, optional"},
            d={"type": "Optional[int]"},
            e={"type": "bool", "required": False},
            f="List[int]",
            g={"type": "str", "enum": ["u", "v"]},
            h={"description": "Anything."},
        )
    )
    assert tool.parameters["required"] == ["a", "f", "g", "h"]
    assert tool.parameters["properties"]["a"] == {"type": "integer", "description": "A."}
    assert tool.parameters["properties"]["b"] == {"type": "string", "default": "x"}
    assert tool.parameters["properties"]["f"] == INTS
    assert tool.parameters["properties"]["g"] == {"type": "string", "enum": ["u", "v"]}
    assert tool.description == "Does f."


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {"a": INT}, "required": ["a"]},
        {"properties": {"a": INT}},
        {"type": "object"},
    ],
)
def test_a_json_schema_is_kept_as_it_stands_in_both_forms_of_a_tool(
    parameters: dict[str, Any],
) -> None:
    assert only({"name": "f", "parameters": parameters}).parameters == parameters
    assert (
        only({"type": "function", "function": {"name": "f", "parameters": parameters}}).parameters
        == parameters
    )


def test_flat_parameters_may_be_named_like_words_of_json_schema() -> None:
    tool = only(
        flat(
            type={"type": "str", "description": "The kind."},
            properties={"type": "dict"},
            required={"type": "bool"},
        )
    )
    assert tool.parameters["required"] == ["type", "properties", "required"]
    assert tool.parameters["properties"]["properties"] == {"type": "object"}


def test_nulls_of_other_tools_are_taken_out_of_a_tool() -> None:
    (tool,), repairs = read_with_repairs(
        [flat(a={"type": "int", "default": None, "enum": None}, other=None)]
    )
    assert tool.parameters == {"type": "object", "properties": {"a": INT}, "required": ["a"]}
    assert repairs == {"null columns of other tools taken out"}


def test_a_default_of_another_type_is_left_out_and_its_parameter_optional() -> None:
    (tool,), repairs = read_with_repairs([flat(table={"type": "List[int]", "default": 0.05})])
    assert tool.parameters == {"type": "object", "properties": {"table": INTS}, "required": []}
    assert repairs == {"a default of another type left out"}


def test_tools_may_be_json_strings_and_one_that_is_listed_twice_is_offered_once() -> None:
    text = '[{"name": "f"}, "{\\"name\\": \\"f\\"}", {"name": "g"}]'
    tools, repairs = read_with_repairs(text)
    assert [tool.name for tool in tools] == ["f", "g"]
    assert repairs == {"a tool that was listed twice"}


@pytest.mark.parametrize(
    ("tools", "detail"),
    [
        (None, "wanted a list, got None"),
        ("[{", "'tools' is a string but not JSON"),
        ([{"description": "x"}], "a tool needs a 'name'"),
        ([7], "a tool needs a 'name'"),
        ([flat(a={"type": "quux"})], "f: the parameter 'a' has the unknown type 'quux'"),
        ([flat(a=7)], "f: the parameter 'a' must be an object, got 7"),
        ([{"name": "f", "parameters": [1]}], "f: 'parameters' must be an object"),
        (
            [
                {
                    "name": "f",
                    "parameters": {"type": "object", "properties": {"a": {"type": "quux"}}},
                }
            ],
            "not a JSON Schema",
        ),
    ],
)
def test_tools_that_cannot_be_read_skip_the_row_with_what_is_wrong(tools: Any, detail: str) -> None:
    with pytest.raises(Skip) as caught:
        read_with_repairs(tools)
    assert caught.value.reason == "tools that cannot be read"
    assert detail in caught.value.detail


# --- calls that fit


NESTED = Tool(
    "f",
    "",
    {
        "type": "object",
        "properties": {
            "n": INT,
            "x": NUM,
            "s": STR,
            "b": {"type": "boolean"},
            "maybe": {"type": ["string", "null"]},
            "inner": {"type": "object", "properties": {"n": INT}},
            "many": INTS,
        },
        "required": ["n"],
    },
)


@pytest.mark.parametrize(
    ("given", "kept", "repair"),
    [
        ({"n": 1}, {"n": 1}, None),
        ({"n": 1, "other": None}, {"n": 1}, "null columns of other tools taken out"),
        ({"n": 1, "s": None}, {"n": 1}, "null columns of other tools taken out"),
        ({"n": 1, "maybe": None}, {"n": 1, "maybe": None}, None),
        ({"n": None}, {"n": None}, None),
        (
            {"n": 1, "inner": {"n": 1, "zip": None}},
            {"n": 1, "inner": {"n": 1}},
            "null columns of other tools taken out",
        ),
        (
            {"n": "10", "x": "-2.5", "b": "True", "s": 7},
            {"n": 10, "x": -2.5, "b": True, "s": "7"},
            "arguments of another type",
        ),
        ({"n": 1, "many": ["1", "2"]}, {"n": 1, "many": [1, 2]}, "arguments of another type"),
        ({"n": "1.5", "b": "yes", "s": True}, {"n": "1.5", "b": "yes", "s": True}, None),
        ({"n": "007"}, {"n": "007"}, None),
        ({"n": 1, "unknown": 2}, {"n": 1, "unknown": 2}, None),
    ],
)
def test_padding_is_taken_out_and_types_are_mended_only_where_that_is_certain(
    given: Any, kept: Any, repair: str | None
) -> None:
    call, repairs = fit_call(ToolCall("f", given), [NESTED])
    assert call.arguments == kept
    assert [type(value) for value in call.arguments.values()] == [
        type(value) for value in kept.values()
    ]
    assert repairs == ({repair} if repair else set())


def test_a_call_of_an_unknown_tool_stays_as_it_is() -> None:
    call = ToolCall("g", {"a": None})
    assert fit_call(call, [NESTED]) == (call, set())
