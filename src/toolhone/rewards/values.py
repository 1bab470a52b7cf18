"""Whether two argument values mean the same: numbers by value, text by its words.

    same_value(1, 1.0)                                               # True
    same_value("5", 5, ValueShape.of({"type": "number"}))            # True: the schema says number
    same_value("USD", "usd", ValueShape.of({"enum": ["USD"]}))       # False: spelling is fixed

docs/metrics.md has the rules. Nothing here raises on model output.
"""

from __future__ import annotations

import ast
import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from toolhone.schema import Json
from toolhone.schema.tool import find_ref

MAX_DEPTH = 100
"""Values nested deeper never equal anything."""
MAX_CODE = 20_000
"""Longer Python code (in characters) is compared as text."""

Comparator = Callable[[Json, Json], bool]
"""Whether a predicted value means the same as the expected one; never raises."""

MISSING: Final = object()
"""An argument that was left out."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_EXACT_BELOW = 2.0**53
_MAX_BRANCHES = 32
_SPELLING_KEYS = ("enum", "const", "pattern", "format")


@dataclass(frozen=True)
class ValueShape:
    """What a JSON Schema says about one value. `root` resolves local `$ref`s."""

    schema: Json
    root: Json

    @staticmethod
    def of(schema: Json) -> ValueShape:
        return ValueShape(schema, schema)

    def keyword(self, *names: str) -> list[Json]:
        """The values of these keywords in the schema and its parts."""
        return [branch[name] for branch in self._branches() for name in names if name in branch]

    def property(self, name: str) -> ValueShape:
        for properties in self.keyword("properties"):
            if isinstance(properties, Mapping) and name in properties:
                return ValueShape(properties[name], self.root)
        return ANYTHING

    def items(self) -> ValueShape:
        found = (items for items in self.keyword("items") if isinstance(items, Mapping))
        return ValueShape(next(found, {}), self.root)

    def default(self) -> Json:
        """The schema's default, or `MISSING`."""
        return next(iter(self.keyword("default")), MISSING)

    def _branches(self) -> Iterator[Mapping[str, Json]]:
        """Yield the schema and the parts that it refers to or is composed of."""
        queue = [self.schema]
        for index in range(_MAX_BRANCHES):  # a `$ref` may be circular
            if index >= len(queue):
                return
            branch = queue[index]
            if not isinstance(branch, Mapping):
                continue
            yield branch
            if isinstance(branch.get("$ref"), str):
                queue.append(find_ref(self.root, branch["$ref"]))
            for key in ("anyOf", "oneOf", "allOf"):
                queue.extend(_as_list(branch.get(key)))


ANYTHING: Final = ValueShape.of({})


def _as_list(value: Json) -> list[Json]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return [] if value is None else [value]


def same_value(got: Json, wanted: Json, shape: ValueShape = ANYTHING, depth: int = 0) -> bool:
    """Whether two values mean the same; symmetric."""
    if depth > MAX_DEPTH:
        return False
    if isinstance(got, Mapping) and isinstance(wanted, Mapping):
        for key in {**wanted, **got}:
            inner = shape.property(key)
            a, b = (side[key] if key in side else inner.default() for side in (got, wanted))
            if a is MISSING or b is MISSING or not same_value(a, b, inner, depth + 1):
                return False
        return True
    if isinstance(got, list | tuple) and isinstance(wanted, list | tuple):
        inner = shape.items()
        return len(got) == len(wanted) and all(
            same_value(a, b, inner, depth + 1) for a, b in zip(got, wanted, strict=True)
        )
    if isinstance(got, bool) or isinstance(wanted, bool):
        return isinstance(got, bool) and isinstance(wanted, bool) and got == wanted
    if isinstance(got, str) and isinstance(wanted, str):
        if same_text(got, wanted, bool(shape.keyword(*_SPELLING_KEYS))):
            return True
    elif got is None or wanted is None:
        return got is None and wanted is None
    kinds = [kind for found in shape.keyword("type") for kind in _as_list(found)]
    read = spelled_number if "number" in kinds or "integer" in kinds else number
    first, second = read(got), read(wanted)
    return first is not None and second is not None and same_number(first, second)


def number(value: Json) -> int | float | None:
    """The value if it is a number and no truth value, else None."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def spelled_number(value: Json) -> int | float | None:
    """The number, or the number that a text spells in decimal digits, else None."""
    text = value.strip() if isinstance(value, str) else ""
    return float(text) if _NUMBER.fullmatch(text) else number(value)


def same_number(first: int | float, second: int | float) -> bool:
    """Whole numbers below 2^53 exactly, others to 1e-9 of the larger or 1e-6; NaN equals NaN."""
    if isinstance(first, int) and isinstance(second, int):
        return first == second
    try:
        a, b = float(first), float(second)
    except OverflowError:
        return first == second
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    if a.is_integer() and b.is_integer() and max(abs(a), abs(b)) < _EXACT_BELOW:
        return a == b
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-6)


def same_text(first: str, second: str, exact_spelling: bool = False) -> bool:
    if exact_spelling:
        return unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second)
    return first == second or normal_text(first) == normal_text(second)


def normal_text(text: str) -> str:
    """Text in NFC, white space trimmed and collapsed, letter case folded."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def same_code(got: Json, wanted: Json) -> bool:
    """Whether two Python programs have the same syntax tree; nothing runs."""
    if not isinstance(got, str) or not isinstance(wanted, str):
        return same_value(got, wanted)
    first, second = _syntax_tree(got), _syntax_tree(wanted)
    if first is None or second is None:
        return got.strip() == wanted.strip()
    return first == second


def _syntax_tree(code: str) -> str | None:
    """The syntax tree as text without positions, or None where Python cannot parse the code."""
    if len(code) > MAX_CODE:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.dump(ast.parse(code.strip()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
