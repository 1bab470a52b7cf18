"""Which kind of text a parameter wants, and makers for each kind.

    kind = kind_of(("departure", "city"), "Where the flight starts.", None)    # "city"
    make = text_maker(kind, None)
    make(random.Random(0), False)                                              # "Bergen"

The form of an example's value counts first, then the parameter's name, then its description.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import date, timedelta
from functools import cache
from importlib import resources
from typing import Any, cast

from toolhone.data.phrasings import Fillers
from toolhone.synthetic.spelling import is_date, is_moment, is_time

Make = Callable[[random.Random, bool], str]
"""Draws a text; True asks for one of the held-out values."""
FORMATS = {
    **{name: name for name in ("date", "time", "email", "uri", "uuid", "ipv4")},
    **{"date-time": "moment", "idn-email": "email", "url": "uri"},
}
"""JSON Schema's `format` -> kind."""
_ONE_WORD = {"person": "last", "thing": "word", "title": "word"}
"""Kinds of two words -> the kind of half of them where the example shows one word."""
_TRIES = 60
_FORMS: tuple[tuple[str, str], ...] = (
    ("uuid", r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"),
    ("email", r"[^@\s]+@[^@\s]+\.\w+"),
    ("uri", r"https?://\S+"),
    ("phone", r"\+?\d[\d ()-]{6,}\d"),
    ("expression", r"[\d\s.()]*\d\s*[-+*/^%][-\d\s.+*/^%()]*\d[\d\s.()]*"),
    ("file", r"[\w-]+\.[a-z]\w{1,3}"),
    ("query", r"[a-z]+ [a-z]+( [a-z]+)?"),
)
_BY_FORM_ONLY = "date time moment email uri uuid expression file phone"
_WITH_DIGITS = "address query sentence title thing"
_NAMES = "city country language person first last"
_CODES = {
    "currency": "currency currencies money exchange price amount payment",
    "airport": "airport airports flight flights airline fly",
}
"""Kinds of three capital letters, and the words that speak of them."""
_CODE_NAMES = ("from", "to", "source", "target", "base")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@cache
def material() -> dict[str, Any]:
    """Return the tables of `presets/manual.json`: pools, names, frames, forms, requests."""
    preset = resources.files("toolhone.config.presets") / "manual.json"
    return cast(dict[str, Any], json.loads(preset.read_text(encoding="utf-8")))


def words_of(name: str) -> list[str]:
    """`departureCity`, `departure_city` and `departure-city` -> ["departure", "city"]."""
    return [word.lower() for word in re.split(r"[\W_]+", _CAMEL.sub(" ", name)) if word]


def quoted_examples(about: str) -> Iterator[str]:
    """Yield the values that a description shows: `e.g. "Oslo"`, `such as 'large'`."""
    shown = r"(?:e\.g\.,?|for example|such as|like|example:)\s*(['\"`])([^'\"`]{1,60})\1"
    return (match[2] for match in re.finditer(shown, about))


def kind_of(names: Sequence[str], about: str, value: str | None, tool: Collection[str] = ()) -> str:
    """Return the kind of text that a parameter holds, "like" for the shape of the example's value.

    names: the words of its path, the nearest last. about: its description. tool: the words of the
    tool's description.
    """
    topics = {*names, *words_of(about), *tool}
    named = _named(names) or _named([word for word in words_of(about) if len(word) > 2])
    if value is None:
        code = _code(topics, "") if names and names[-1] in _CODE_NAMES else ""
        return named or code or "thing"
    for kind, is_kind in (("date", is_date), ("time", is_time), ("moment", is_moment)):
        if is_kind(value):
            return kind
    if re.fullmatch("[A-Z]{3}", value):
        return _code(topics, named) or "like"
    form = next((kind for kind, pattern in _FORMS if re.fullmatch(pattern, value)), "")
    if form not in ("", "query") or not named:
        return form or "like"
    # A name must not overrule the form of an example.
    if named in _BY_FORM_ONLY.split():
        suits = False
    elif any(letter.isdigit() for letter in value):
        suits = named in _WITH_DIGITS.split()
    elif named in _NAMES.split():
        suits = value.istitle() and value.isascii() and (named != "first" or " " not in value)
    else:
        suits = value.isascii() and named not in ("id", "digits", "airport", "currency")
    return named if suits else "like"


def _named(words: Sequence[str]) -> str:
    """Return the kind of the last word that has one; a `name` may be a person's."""
    if "name" in words and set(words) & set(material()["people"]):
        return "person"
    table = {word: kind for kind, known in material()["names"].items() for word in known}
    return next((table[word] for word in reversed(words) if word in table), "")


def _code(words: set[str], named: str) -> str:
    return next(
        (kind for kind, topic in _CODES.items() if named == kind or words & {*topic.split()}), ""
    )


def text_maker(kind: str, value: str | None) -> Make:
    """Return a maker of texts of a kind; `value` is the example's, whose shape some kinds keep."""
    if kind == "like":
        # The shape of the example: sign by sign where there are digits, else as many words.
        assert value is not None
        if any(letter.isdigit() for letter in value) or (value.isupper() and len(value) < 6):
            return _split_by_checksum(lambda rng: _reshape(value, rng))
        pool = {1: "word", 2: "thing"}.get(len(value.split()), "sentence")
        return _with_case(lambda rng, held: _from_pool(pool, rng, held), value)
    if kind == "expression":
        number, shown = re.compile(r"\d+(\.\d+)?"), value or "12 * 7"
        return _split_by_checksum(lambda rng: number.sub(lambda match: near(match[0], rng), shown))
    if kind in _GENERATED:
        generate = _GENERATED[kind]
        return _split_by_checksum(lambda rng: generate(rng, value))
    if kind in ("id", "digits"):
        shape = value or ("ABC-1234" if kind == "id" else "12345")
        return _split_by_checksum(lambda rng: _reshape(shape, rng))
    short = _ONE_WORD.get(kind, kind) if value and len(value.split()) == 1 else kind

    def draw(rng: random.Random, held: bool) -> str:
        return _from_pool(short if short != kind and rng.random() < 0.5 else kind, rng, held)

    return _with_case(draw, value if kind in ("thing", "word", "query", "title") else None)


def _split_by_checksum(make: Callable[[random.Random], str]) -> Make:
    """Give held-out values a checksum of their own, where the shape leaves choice enough."""

    def draw(rng: random.Random, held: bool) -> str:
        for _ in range(_TRIES):
            text = make(rng)
            if (zlib.crc32(text.encode()) % 7 == 3) == held:
                return text
        return make(rng)

    return draw


def _from_pool(kind: str, rng: random.Random, held: bool) -> str:
    name = "held_out" if held else "train"
    pools: dict[str, list[str]] = material()["pools"][name]

    def fill(filler: str) -> str:
        return Fillers(name, rng).draw({"x": filler})["x"]

    match kind:
        case "sentence":
            return f"{rng.choice(pools['start'])} {rng.choice(pools['article'])} {fill('thing')}"
        case "title":
            return fill("thing").title()
        case "file":
            return f"{rng.choice(pools['file'])}_{fill('word')}.{rng.choice(pools['ending'])}"
        case "email":
            return f"{fill('first').lower()}.{fill('word')}@{rng.choice(pools['domain'])}"
        case "uri":
            return f"https://{rng.choice(pools['domain'])}/{fill('word')}"
        case "address":
            return f"{rng.randint(2, 180)} {rng.choice(pools['street'])}"
    return rng.choice(pools[kind]) if kind in pools else fill(kind)


def _with_case(make: Make, value: str | None) -> Make:
    if value is None:
        return make
    change = str.title if value.istitle() else str.upper if value.isupper() else str
    return lambda rng, held: change(make(rng, held))


def _reshape(value: str, rng: random.Random) -> str:
    """Replace each digit and ASCII letter by another of its sort, but for a word in front."""
    keep = re.match(r"[A-Za-z]{4,}(?=[\W_]|\d)", value)
    start = keep.end() if keep else 0
    signs = []
    for position, sign in enumerate(value[start:]):
        if sign.isdigit():
            sign = rng.choice("0123456789" if position else "123456789")
        elif sign.isascii() and sign.isalpha():
            upper = sign.isupper()
            sign = rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ" if upper else "abcdefghijkmnopqrstuvwxyz")
        signs.append(sign)
    return value[:start] + "".join(signs)


def near(number: str, rng: random.Random) -> str:
    """Draw another number of as many digits, at least up to two; never 0 or 1."""
    whole, point, rest = number.partition(".")
    drawn = str(rng.randint(2, 10 ** max(2, len(whole)) - 1))
    if not point:
        return drawn
    return f"{drawn}.{rng.randint(1, 10 ** len(rest) - 1):0{len(rest)}d}".rstrip("0")


def _date(rng: random.Random, _: str | None) -> str:
    return (date(2025, 1, 1) + timedelta(days=rng.randrange(1000))).isoformat()


def _time(rng: random.Random, value: str | None) -> str:
    rest = value[5:] if value else ""
    return f"{rng.randint(7, 22):02d}:{rng.choice(('00', '00', '15', '30', '45'))}{rest}"


def _moment(rng: random.Random, value: str | None) -> str:
    middle, rest = (value[10], value[16:]) if value else ("T", ":00Z")
    return f"{_date(rng, None)}{middle}{_time(rng, None)}{rest}"


_GENERATED: dict[str, Callable[[random.Random, str | None], str]] = {
    "date": _date,
    "time": _time,
    "moment": _moment,
    "uuid": lambda rng, _: re.sub(
        "x", lambda _: rng.choice("0123456789abcdef"), "xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx"
    ),
    "phone": lambda rng, value: _reshape(value or "+47 555 01 234", rng),
    "ipv4": lambda rng, _: ".".join(str(rng.randint(2, 250)) for _ in range(4)),
}
