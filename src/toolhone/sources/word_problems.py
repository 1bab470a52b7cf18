"""One expression out of the steps of a solved word problem, and whether each of its numbers comes
from the problem.

    compose([("48/2", "24"), ("48+24", "72")], "She sold 48 clips, ...")    # "48+(48/2)"
    unexplained("(12-3)*10", "12 eggs of 10 ounces in 4 boxes")    # [Decimal("3")]

A number in a step is replaced by the expression of an earlier step that gave it (perhaps before
rounding), unless the problem states it and that result has been used already. The problem explains
a number that it states in digits, words ("week" for 7), percentages or fractions, and 1, 2 and 100.
Nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

_NUMBER = re.compile(
    r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w,]|\.\d)|(?<![\w.])\.\d+(?!\w)", re.ASCII
)
_STATED = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+", re.ASCII)
_FRACTION = re.compile(r"(\d+)\s*/\s*(\d+)", re.ASCII)
_WORDS = (
    "0 zero, 0.01 cent penny pennies, 0.25 quarter, 0.5 half halves, 0.75 quarter, 1.5 half, "
    "3 three third triple tripled thrice feet yard triangle, "
    "4 four fourth quarter week month quart gallon square quadruple, 5 five fifth nickel, "
    "6 six sixth, 7 seven seventh day daily week weekly, 8 eight eighth, 9 nine ninth, "
    "10 ten tenth dime, 11 eleven, "
    "12 twelve dozen month monthly year annual yearly foot feet inch, "
    "13 thirteen, 14 fourteen, 15 fifteen, 16 sixteen pound ounce, 17 seventeen, 18 eighteen, "
    "19 nineteen, 20 twenty, 24 day hour, 30 thirty month, 40 forty, 50 fifty, "
    "52 week weekly year, 60 sixty second minute hour, 70 seventy, 80 eighty, 90 ninety, "
    "100 hundred, 365 year, 1000 thousand kilogram kilometer, 1000000 million"
)
"""Each number with the words of a problem that give it."""
_ENTRIES = [entry.split() for entry in _WORDS.split(", ")]
_NUMBERS = {
    word: [Decimal(number) for number, *others in _ENTRIES if word in others]
    for _, *words in _ENTRIES
    for word in words
}
_ALWAYS = tuple(map(Decimal, (1, 2, 100)))


def compose(steps: Sequence[tuple[str, str]], question: str) -> str:
    """Return the last (expression, result) pair's expression, with earlier results composed in."""
    stated = {_value(number) for number in _STATED.findall(question)}
    composed: list[tuple[str, Decimal]] = []
    used: set[int] = set()

    def substitute(number: re.Match[str]) -> str:
        value, before = _value(number[0]), number.string[: number.start()].rstrip()
        sources = (i for i in reversed(range(len(composed))) if _gives(composed[i][1], value))
        source = next(sources, None)
        per_cent = number[0] == "100" and before.endswith("/") and "%" in question
        if source is None or (value in stated and source in used) or per_cent:
            return number[0]
        used.add(source)
        return f"({composed[source][0]})"

    for expression, result in steps:
        composed.append((_NUMBER.sub(substitute, expression), Decimal(result)))
    return composed[-1][0]


def unexplained(expression: str, question: str) -> list[Decimal]:
    """Return the numbers of an expression that the problem does not give."""
    given = set(_given(question))
    return [value for value in map(_value, _NUMBER.findall(expression)) if value not in given]


def _given(question: str) -> Iterator[Decimal]:
    """Yield every number that the problem gives."""
    stated = [_value(number) for number in _STATED.findall(question)]
    yield from (*_ALWAYS, *stated)
    for word in re.findall(r"[a-z]+", question.lower()):
        for form in {word, word.removesuffix("s")}:
            yield from _NUMBERS.get(form, ())
    for above, below in _FRACTION.findall(question):
        if int(below):
            yield from (Decimal(above) / Decimal(below), Decimal(int(below) - int(above)))
    if "%" in question or "percent" in question:
        yield Decimal("0.01")
        for value in stated:
            yield from (value / 100, 1 - value / 100, 1 + value / 100, 100 - value, 100 + value)


def _value(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def _gives(result: Decimal, value: Decimal) -> bool:
    """Return whether a result is this value, or was rounded or cut to its decimals."""
    exponent = value.as_tuple().exponent
    places = -exponent if isinstance(exponent, int) else 0
    return result == value or (places > 0 and abs(result - value) < Decimal(1).scaleb(-places))
