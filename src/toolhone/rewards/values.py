"""When two argument values mean the same: numbers by value, text by its words, lists in order, mappings by key.

    same_value(1, 1.0)                                          True
    same_value("5", 5, Shape.of({"type": "number"}))            True: the schema says number
    same_value(" new  york", "New York")                        True
    same_value("USD", "usd", Shape.of({"enum": ["USD"]}))       False: the schema fixes the spelling

The rules, in the order in which they are tried:

* A mapping equals a mapping key by key. A key that one side leaves out equals the schema's `default` on the other side.
* A list equals a list of the same length, entry by entry.
* A truth value equals only the same truth value: it is not a number.
* Whole numbers below 2^53 are equal when they are the same number; other numbers when they differ by at most 1e-9 of the larger,
  or by at most 1e-6. NaN equals NaN.
* Text equals text after Unicode NFC, with white space trimmed and collapsed and letter case ignored. Where the schema restricts
  the text (`enum`, `const`, `pattern`, `format`) its spelling is its meaning: then only NFC is applied.
* Text that spells a number equals that number only where the schema's type says `number` or `integer`.
* null equals null.

Values nested deeper than `MAX_DEPTH` never equal anything. Nothing here raises, whatever a model wrote. What calls and
expectations are is the business of `matching`; nothing here knows of tools.
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

MAX_DEPTH = 100
MAX_CODE = 20_000
"""Longer Python code (in characters) is compared as text."""

Comparator = Callable[[Json, Json], bool]
"""Says whether a given value means the same as a wanted one; never raises."""

MISSING: Final = object()
"""Stands for an argument that was left out."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_EXACT_BELOW = 2.0**53
_MAX_BRANCHES = 32


@dataclass(frozen=True)
class ValueShape:
    """A place inside a JSON Schema: what it says about one value. `root` is where local `$ref`s start."""

    schema: Json
    root: Json

    @staticmethod
    def of(schema: Json) -> ValueShape:
        return ValueShape(schema, schema)

    def says_number(self) -> bool:
        return any(
            {"number", "integer"} & set(_listed(branch.get("type"))) for branch in self._branches()
        )

    def fixes_spelling(self) -> bool:
        return any(
            key in branch
            for branch in self._branches()
            for key in ("enum", "const", "pattern", "format")
        )

    def property(self, name: str) -> ValueShape:
        for branch in self._branches():
            properties = branch.get("properties")
            if isinstance(properties, Mapping) and name in properties:
                return ValueShape(properties[name], self.root)
        return ANYTHING

    def items(self) -> ValueShape:
        for branch in self._branches():
            if isinstance(branch.get("items"), Mapping):
                return ValueShape(branch["items"], self.root)
        return ANYTHING

    def default(self) -> Json:
        """The schema's default, or `MISSING`."""
        return next(
            (branch["default"] for branch in self._branches() if "default" in branch), MISSING
        )

    def _branches(self) -> Iterator[Mapping[str, Json]]:
        """This schema and what it refers to or is composed of, at most `_MAX_BRANCHES` (a `$ref` may go in a circle)."""
        queue = [self.schema]
        for index in range(_MAX_BRANCHES):
            if index >= len(queue):
                return
            branch = queue[index]
            if not isinstance(branch, Mapping):
                continue
            yield branch
            queue.append(self._follow(branch.get("$ref")))
            queue.extend(
                part for key in ("anyOf", "oneOf", "allOf") for part in _listed(branch.get(key))
            )

    def _follow(self, reference: Json) -> Json:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        place = self.root
        for step in reference[2:].split("/"):
            place = place.get(step) if isinstance(place, Mapping) else None
        return place


ANYTHING: Final = ValueShape.of({})


def _listed(value: Json) -> list[Json]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return [] if value is None else [value]


def same_value(got: Json, wanted: Json, shape: ValueShape = ANYTHING, depth: int = 0) -> bool:
    """Whether two values mean the same (the rules are in the module's docstring); symmetric."""
    if depth > MAX_DEPTH:
        return False
    if isinstance(got, Mapping) and isinstance(wanted, Mapping):
        return _same_mapping(got, wanted, shape, depth + 1)
    if isinstance(got, list | tuple) and isinstance(wanted, list | tuple):
        inner = shape.items()
        return len(got) == len(wanted) and all(
            same_value(a, b, inner, depth + 1) for a, b in zip(got, wanted, strict=True)
        )
    if isinstance(got, bool) or isinstance(wanted, bool):
        return isinstance(got, bool) and isinstance(wanted, bool) and got == wanted
    if (
        isinstance(got, str)
        and isinstance(wanted, str)
        and same_text(got, wanted, shape.fixes_spelling())
    ):
        return True
    read = spelled_number if shape.says_number() else number
    first, second = read(got), read(wanted)
    if first is None or second is None:
        return got is None and wanted is None
    return same_number(first, second)


def _same_mapping(
    got: Mapping[str, Json], wanted: Mapping[str, Json], shape: ValueShape, depth: int
) -> bool:
    for key in {**wanted, **got}:
        inner = shape.property(key)
        first, second = got.get(key, MISSING), wanted.get(key, MISSING)
        first = inner.default() if first is MISSING else first
        second = inner.default() if second is MISSING else second
        if first is MISSING or second is MISSING or not same_value(first, second, inner, depth):
            return False
    return True


def number(value: Json) -> int | float | None:
    """The value when it is a number (a truth value is none), else None."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def spelled_number(value: Json) -> int | float | None:
    """The value when it is a number, the number that a text spells in decimal digits, else None."""
    text = value.strip() if isinstance(value, str) else ""
    return float(text) if _NUMBER.fullmatch(text) else number(value)


def same_number(first: int | float, second: int | float) -> bool:
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
    """Text without what does not change its meaning: NFC, white space trimmed and collapsed, letter case folded."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def same_code(got: Json, wanted: Json) -> bool:
    """Whether two Python programs have the same syntax tree: formatting and comments do not count. Nothing is run."""
    if not isinstance(got, str) or not isinstance(wanted, str):
        return same_value(got, wanted)
    first, second = _tree(got), _tree(wanted)
    if first is None or second is None:
        return got.strip() == wanted.strip()
    return first == second


def _tree(code: str) -> str | None:
    """The syntax tree as text without positions, or None for what is not Python (or too long, or nested too deeply)."""
    if len(code) > MAX_CODE:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.dump(ast.parse(code.strip()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
