"""JSON, read strictly: no NaN, no endless number, no key twice in an object, no half character;
YAML without a key twice.

parse_json('{"a": 1, "a": 2}')        # ValueError: the key 'a' occurs twice in one object; ...
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import yaml  # type: ignore[import-untyped]


class StrictError(ValueError):
    """A text that `json` would read, and two readers differently."""


def parse_json(text: str) -> Any:
    """Return the value of a text; a `ValueError` says what is wrong with it."""
    try:
        value = DECODER.decode(text)
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    except ValueError as error:
        strict = isinstance(error, json.JSONDecodeError | StrictError)
        raise error if strict else ValueError(f"not JSON: {error}") from None
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("not text: a \\u escape holds half of a surrogate pair") from None
    return value


def plain_json(text: str) -> str:
    """Return JSON without `//` and `/* */` comments and trailing commas, in the same lines and
    columns; strings are unchanged."""
    for extra in (r"//[^\n]*|/\*.*?\*/", r",(?=\s*[]}])"):
        text = re.sub(
            rf'("(?:[^"\\]|\\.)*")|{extra}',
            lambda found: found[1] or re.sub(r"[^\n]", " ", found[0]),
            text,
            flags=re.DOTALL,
        )
    return text


class _UniqueKeys(yaml.SafeLoader):  # type: ignore[misc]
    """Reads YAML as `yaml.safe_load` does, but a key twice in a mapping is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if twice := next((str(name) for name in names if names.count(name) > 1), None):
            raise yaml.YAMLError(f"the key {twice!r} occurs twice in one mapping")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text, read strictly: no key twice in a mapping."""
    return yaml.load(text, _UniqueKeys)  # noqa: S506 (as safe as the loader that it extends)


def entry_texts(text: str) -> list[str]:
    """Return the texts of the entries of a JSON list, whatever they hold; none of a broken list."""
    texts, position = list[str](), text.index("[")
    try:
        while text[position] != "]":
            start = _skip_space(text, position + 1)
            _, end = _LOOSE.raw_decode(text, start)
            texts.append(text[start:end])
            position = _skip_space(text, end)
            if text[position] not in ",]":
                return []
        return [] if text[position + 1 :].strip() else texts
    except (ValueError, IndexError, RecursionError):
        return []


def _skip_space(text: str, position: int) -> int:
    while text[position] in " \t\r\n":
        position += 1
    return position


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise StrictError(f"the key {twice!r} occurs twice in one object; each key may occur once")
    return record


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise StrictError(f"{text} is not JSON; wanted a finite number or null")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
"""Reads strictly; half characters pass."""
_LOOSE = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)
