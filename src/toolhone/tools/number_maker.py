"""Makers of numbers: multiples of a step within the bounds of a schema, a name or an example.

make = number_maker({"minimum": 1, "maximum": 12}, ["people"], None, whole=True)
make(random.Random(0), False)                 # 7; True asks for a held-out number
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from toolhone.config.phrasings import word_lists
from toolhone.schema import Json

_WIDEST = 10_000
_ENOUGH = 30
"""Held-out numbers are set apart where a range has at least so many."""


_WITH_CENTS, _CENTS = 0.4, (25, 50, 75, 90, 99)
"""Share of numbers, of which no example shows the size, that get two decimals."""


class Undrawable(Exception):  # noqa: N818  (a decision about one schema, never shown as an error)
    """No value can be drawn from a schema; the text says why."""


def number_maker(
    schema: Mapping[str, Any], names: Sequence[str], value: Json, whole: bool
) -> Callable[[random.Random, bool], int | float]:
    """Draw multiples of a step within the bounds of the schema, the name or the example."""
    shown = str(value)
    decimals = len(shown.partition(".")[2]) if isinstance(value, float) and "e" not in shown else 0
    step = Decimal(1) if whole else Decimal(1).scaleb(-min(decimals, 6))
    if schema.get("multipleOf"):
        step = Decimal(str(schema["multipleOf"]))
        step *= step.as_integer_ratio()[1] if whole else 1
    low, high = _bounds(schema, names, value)
    first, last = math.ceil(Decimal(str(low)) / step), math.floor(Decimal(str(high)) / step)
    if "exclusiveMinimum" in schema and first * step <= Decimal(str(schema["exclusiveMinimum"])):
        first += 1
    if "exclusiveMaximum" in schema and last * step >= Decimal(str(schema["exclusiveMaximum"])):
        last -= 1
    if first > last:
        raise Undrawable("a range without a number in it")

    priced = not whole and value is None and not schema.get("multipleOf") and high - low > 1

    def draw(rng: random.Random, held: bool) -> int | float:
        count = rng.randint(first, last)
        while last - first + 1 >= _ENOUGH and (count % 7 == 3) != held:
            count = rng.randint(first, last)
        number = count * step
        if priced and count < last and rng.random() < _WITH_CENTS:
            number += Decimal(rng.choice(_CENTS)) / 100
        return int(number) if number == number.to_integral_value() else float(number)

    return draw


def _bounds(schema: Mapping[str, Any], names: Sequence[str], value: Json) -> tuple[float, float]:
    """Return the bounds of the schema, or those of the name or the example moved inside them."""
    ranges: Mapping[str, list[float]] = word_lists("manual")["ranges"]
    low, high = next((ranges[word] for word in reversed(names) if word in ranges), (2, 999))
    # An example outside the range of the name, or of any number, decides the size.
    if value is not None and (not low <= value <= high or (low, high) == (2, 999)):
        size = max(20.0, 5.0 * abs(value)) if isinstance(value, int) or abs(value) >= 1 else 1.0
        low, high = -size if value < 0 else 0 if value == 0 else min(1, abs(value)), size
    least: Any = schema.get("minimum", schema.get("exclusiveMinimum"))
    most: Any = schema.get("maximum", schema.get("exclusiveMaximum"))
    if least is not None and most is not None and most - least <= _WIDEST:
        return least, most
    if least is not None and not low <= least <= high:
        low, high = least, least + (high - low)
    if most is not None and not low <= most <= high:
        low, high = min(most, max(low, most - (high - low))), most
    return max(low, low if least is None else least), min(high, high if most is None else most)
