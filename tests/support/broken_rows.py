"""Rows of JSON Lines broken at random: what a log may hold that its format does not foresee."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 10**400, -(10**20), "", " ", "x", "null", "{", "[]", "{}"),
    *([], {}, [[]], [None], [1, "x"], {"x": None}, {"type": "text"}, {"role": "user"}, "\u2028\0"),
    *({"type": "tool_use"}, {"function": {}}, {"name": "find"}, [{"text": "x"}], "NaN", "data: x"),
    '{"a": NaN, "a": 1e999}',
]
"""Values that no place of a log expects, or only some."""
KEYS = (
    *("content", "role", "type", "parts", "tool_calls", "arguments", "input", "output", "name"),
    *("id", "text", "messages", "tools", "function", "result", "weight", "reasoning", "zzqx"),
    *("attributes", "events", "choices", "delta", "message", "thought", "thinking", "", "\u00e9"),
)
TEXT_FAULTS = ("cut", "nan", "huge", "half", "twice", "bytes")


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every container of a value with every key or index in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        found.append((value, key))
        if isinstance(inner, dict | list):
            places(inner, found)
    return found


def break_row(row: Any, rng: random.Random) -> Any:
    """A copy of a row with one place of it changed."""
    row = copy.deepcopy(row)
    where, key = rng.choice(places(row, []) or [(row, None)])
    kind = rng.choice(("odd", "odd", "odd", "rename", "delete", "add", "deep", "swap", "text"))
    if kind == "rename" and isinstance(where, dict) and key is not None:
        where[rng.choice(KEYS)] = where.pop(key)
    elif kind == "delete" and key is not None:
        del where[key]
    elif kind == "add" and isinstance(where, dict):
        where[rng.choice(KEYS)] = copy.deepcopy(rng.choice(ODD))
    elif kind == "add" and isinstance(where, list):
        where.insert(0, copy.deepcopy(rng.choice(ODD)))
    elif key is not None and kind == "deep":
        for _ in range(rng.choice((1, 3, 60, 1500))):
            where[key] = [where[key]] if rng.random() < 0.5 else {rng.choice(KEYS): where[key]}
    elif key is not None and kind == "swap":
        other, at = rng.choice(places(row, []))
        where[key] = copy.deepcopy(other[at])
    elif key is not None and kind == "text":
        try:
            where[key] = json.dumps(where[key])
        except RecursionError:
            where[key] = "{"
    elif key is not None:
        where[key] = copy.deepcopy(rng.choice(ODD))
    return row


def broken_line(row: Any, rng: random.Random) -> str:
    """A line of JSON with one to three faults; a few have one of the text itself."""
    try:
        for _ in range(rng.choice((1, 1, 2, 3))):
            row = break_row(row, rng) if isinstance(row, dict | list) else row
        text = json.dumps(row, ensure_ascii=rng.random() < 0.5)
    except RecursionError:
        text = '{"a":' * 2000
    if rng.random() < 0.85:
        return text
    kind, at = rng.choice(TEXT_FAULTS), rng.randrange(len(text) + 1)
    if kind == "cut":
        return text[:at] or "{"
    if kind == "twice":
        return text.replace('"role":', '"role": "user", "role":', 1)
    value = {"nan": "NaN", "huge": "1" * 5000, "half": '"\\ud83d"', "bytes": '"\udc80"'}[kind]
    return text.replace(rng.choice(('"x"', '"y"', '"find"', '"1"', "null")), value, 1)
