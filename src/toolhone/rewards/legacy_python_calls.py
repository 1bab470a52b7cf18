"""Calls found anywhere in a text, with the semantics of two functions of mlx-guided-grpo (MIT).

    extract_function_calls("I will call f (n = 5)")       [{"name": "f", "parameters": {"n": 5}}]
    compare_function_calls(predicted, expected)           {"exact_match", "function_match", ...}

Known holes, kept so that figures can be compared: words are calls (`if (x)`); positional values and
qualifiers (`mod.f`) are lost; a call ends at its first `)`; `true` and `null` are strings;
parameters that were not expected cost nothing in `params_match`. Two things
differ: what would raise there is a string or nothing here, and time is linear. Sane comparison:
`toolhone.rewards.matching`.
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
_SCORES = ("exact_match", "function_match", "params_match", "overall")
_NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def extract_function_calls(text: str) -> list[dict[str, Any]]:
    """Return all calls in the text as `{"name": str, "parameters": dict}`; never raises."""
    calls: list[dict[str, Any]] = []
    position = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while head := _HEAD.search(text, position):
            closing = text.find(")", head.end())
            if closing < 0:
                break
            inside = text[head.end() : closing].strip()
            calls.append({"name": head[1], "parameters": _dict_body(inside) or _pairs(inside)})
            position = closing + 1
    return calls


def _dict_body(text: str) -> dict[str, Json]:
    """Read the text as the inside of a dict display; empty if it is none."""
    if ":" not in text:
        return {}
    try:
        value = ast.literal_eval("{" + text + "}")
    except _NO_LITERAL:
        return {}
    return {str(name): inner for name, inner in value.items()} if isinstance(value, dict) else {}


def _pairs(text: str) -> dict[str, Json]:
    """Read `name = value` pairs from the left, up to the first piece that is none."""
    parameters: dict[str, Json] = {}
    position = 0
    while head := _PARAMETER.match(text, position):
        position = _value_end(text, head.end())
        value = text[head.end() : position].strip()
        try:
            parameters[head[1]] = ast.literal_eval(value)
        except _NO_LITERAL:
            parameters[head[1]] = value.strip(_QUOTES)
        position += 1
    return parameters


def _value_end(text: str, start: int) -> int:
    """Find the end of a value: a comma outside quotes and brackets, or the end of the text."""
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


def compare_function_calls(predicted: Sequence[Call], expected: Sequence[Call]) -> dict[str, float]:
    """Compare calls of `extract_function_calls`; four scores in [0, 1].

    Values are equal after `_normalise`, with Python's equality (1 = 1.0 = True). As many calls as
    expected are compared by place: `overall` = 0.4 function_match + 0.4 params_match + 0.2
    exact_match. Else only names count, and `overall` is half their share.
    """
    if not predicted or not expected:
        return dict.fromkeys(_SCORES, float(not predicted and not expected))
    if len(predicted) != len(expected):
        names = {call["name"] for call in expected}
        longer = max(len(predicted), len(expected))
        share = sum(call["name"] in names for call in predicted) / longer
        return dict(zip(_SCORES, (0.0, share, 0.0, 0.5 * share), strict=True))
    pairs = list(zip(predicted, expected, strict=True))
    named = [
        (_normalise(got["parameters"]), _normalise(wanted["parameters"]))
        for got, wanted in pairs
        if got["name"] == wanted["name"]
    ]
    exact = float(len(named) == len(pairs) and all(got == wanted for got, wanted in named))
    function, params = len(named) / len(pairs), 0.0
    for got, wanted in named:
        if got == wanted or not wanted:
            params += got == wanted
        else:
            equal = [name in got and bool(got[name] == value) for name, value in wanted.items()]
            params += sum(equal) / len(wanted)
    params /= len(pairs)
    overall = 0.4 * function + 0.4 * params + 0.2 * exact
    return dict(zip(_SCORES, (exact, function, params, overall), strict=True))


def _normalise(value: Json) -> Json:
    if value is None or value == "null":
        return None
    if isinstance(value, str):
        return value.strip().strip(_QUOTES).lower()
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list | tuple):
        return [_normalise(inner) for inner in value]
    if isinstance(value, Mapping):
        return {name: _normalise(inner) for name, inner in value.items()}
    return value
