"""Python-style calls found anywhere in a text, and how two lists of them compare: the reading that MLX-GRPO's tool rewards use.

    extract_function_calls("I will call f (n = 5)")                   [{"name": "f", "parameters": {"n": 5}}]
    compare_function_calls(predicted, expected)                       {"exact_match", "function_match", "params_match", "overall"}

The semantics are those of two functions of the same names in mlx-guided-grpo (MIT), so that figures made there and here can be
compared; only the semantics were taken. Its results say `params` and `param_match` where ours say `parameters` and `params_match`.

Reading. An identifier, white space or none, `(`, and everything up to the first `)` is a call, wherever it stands. The parameters
are read as the inside of a dict display, else as `name = value` pairs up to the first piece that is none; a value ends at a comma
outside quotes and brackets, is a Python literal, or else a string without its outer quotes.

Comparing. None and "null" are None, strings are trimmed, freed of outer quotes and lower-cased, floats are rounded to 6 places,
tuples are lists; then Python's equality decides (1 = 1.0 = True, "1" is not 1). Nothing against nothing scores 1, something against
nothing 0. As many calls as expected are compared place by place: `function_match` is the share of right names, `params_match` the
mean share of expected parameters that are there and equal, `exact_match` 1 if all are the same, `overall` 0.4 function + 0.4 params
+ 0.2 exact. With another number of calls only names count: those that are expected at all, divided by the larger number; `overall`
is half of that.

Known holes, kept on purpose. Words are calls: "if (x)" calls `if`. Positional values are lost, and so is a qualifier (`mod.f`). A
nested call, a tuple or a string with `)` in it is cut. `true` and `null` are strings. Order matters, one call too many costs all
parameters, parameters that nobody asked for cost nothing in `params_match`. Reward a model with this and it will find them; the
sane comparison is `toolhone.rewards.matching`, and the strict reader `toolhone.dialects.syntax.python_calls`.

Two things differ: what would raise there (an unhashable key, text too deep for Python's parser) is a string or nothing here, and
time grows with the length of the text, not with its square. Nothing is evaluated.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from toolhone.schema import Json

Call = Mapping[str, Any]
"""`{"name": str, "parameters": {str: value}}`."""

_HEAD = re.compile(r"(?<![A-Za-z0-9_])[0-9]*+([A-Za-z_][A-Za-z0-9_]*+)\s*+\(")
_PARAMETER = re.compile(r"\s*+([A-Za-z_][A-Za-z0-9_]*+)\s*+=\s*+")
_MARK = re.compile(r"""["'\[\](){},]""")
_QUOTES = "\"'"
_NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def extract_function_calls(text: str) -> list[dict[str, Any]]:
    """All calls in the text, in their order, each as `{"name": str, "parameters": dict}`; never raises."""
    calls: list[dict[str, Any]] = []
    position = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while head := _HEAD.search(text, position):
            closing = text.find(")", head.end())
            if closing < 0:
                break
            calls.append(
                {"name": head[1], "parameters": _parameters(text[head.end() : closing].strip())}
            )
            position = closing + 1
    return calls


def _parameters(text: str) -> dict[str, Json]:
    return _dict_body(text) or _pairs(text)


def _dict_body(text: str) -> dict[str, Json]:
    """The text as the inside of a dict display; empty where it is none."""
    if ":" not in text:
        return {}
    try:
        value = ast.literal_eval("{" + text + "}")
    except _NO_LITERAL:
        return {}
    return {str(name): inner for name, inner in value.items()} if isinstance(value, dict) else {}


def _pairs(text: str) -> dict[str, Json]:
    """The `name = value` pairs from the left, up to the first piece that is none."""
    parameters: dict[str, Json] = {}
    position = 0
    while head := _PARAMETER.match(text, position):
        end = _value_end(text, head.end())
        parameters[head[1]] = _value(text[head.end() : end].strip())
        position = end + 1
    return parameters


def _value_end(text: str, start: int) -> int:
    """Where the value ends that begins at `start`: at a comma outside quotes and brackets, or with the text."""
    depth, quote = 0, ""
    for mark in _MARK.finditer(text, start):
        if mark[0] in _QUOTES:
            quote = "" if quote == mark[0] else quote or mark[0]
        elif quote:
            continue
        elif mark[0] == ",":
            if depth == 0:
                return mark.start()
        else:
            depth += 1 if mark[0] in "[({" else -1
    return len(text)


def _value(text: str) -> Json:
    try:
        return ast.literal_eval(text)
    except _NO_LITERAL:
        return text.strip(_QUOTES)


def compare_function_calls(predicted: Sequence[Call], expected: Sequence[Call]) -> dict[str, float]:
    """How right the predicted calls are: four scores in [0, 1]. Calls are those of `extract_function_calls`."""
    if not predicted or not expected:
        both = float(not predicted and not expected)
        return _scores(both, both, both, both)
    if len(predicted) != len(expected):
        names = {call["name"] for call in expected}
        share = sum(call["name"] in names for call in predicted) / max(
            len(predicted), len(expected)
        )
        return _scores(0.0, share, 0.0, 0.5 * share)
    pairs = list(zip(predicted, expected, strict=True))
    named = [
        (_normal(got["parameters"]), _normal(wanted["parameters"]))
        for got, wanted in pairs
        if got["name"] == wanted["name"]
    ]
    exact = float(len(named) == len(pairs) and all(got == wanted for got, wanted in named))
    function = len(named) / len(pairs)
    params = sum(_share(got, wanted) for got, wanted in named) / len(pairs)
    return _scores(exact, function, params, 0.4 * function + 0.4 * params + 0.2 * exact)


def _scores(exact: float, function: float, params: float, overall: float) -> dict[str, float]:
    return {
        "exact_match": exact,
        "function_match": function,
        "params_match": params,
        "overall": overall,
    }


def _share(got: dict[str, Json], wanted: dict[str, Json]) -> float:
    """The share of wanted parameters that are there and equal; with none wanted, 1 only if none was given."""
    if got == wanted:
        return 1.0
    return (
        sum(name in got and got[name] == value for name, value in wanted.items()) / len(wanted)
        if wanted
        else 0.0
    )


def _normal(value: Json) -> Json:
    if value is None or value == "null":
        return None
    if isinstance(value, str):
        return value.strip().strip(_QUOTES).lower()
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list | tuple):
        return [_normal(inner) for inner in value]
    return (
        {name: _normal(inner) for name, inner in value.items()}
        if isinstance(value, Mapping)
        else value
    )
