"""Which kind of text a parameter wants, and makers for each kind.

    kind = kind_of(("departure", "city"), "Where the flight starts.", None)    # "city"
    make = maker(kind, None)
    make(random.Random(0), False)                                              # "Bergen"

What an example's own value looks like comes first (a date, an address, `A-1234`), then the words of the parameter's name, the
last of them first, then those of its description (`presets/manual.json`, "names"). A text of no known kind becomes words of the
same shape. Held-out values come from pools of their own; numbers and letters made at random are told apart by their checksum.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import date, timedelta
from functools import cache
from importlib import resources
from typing import Any, cast

from toolhone.data.phrasings import Fillers
from toolhone.synthetic.spelling import is_date, is_moment, is_time

Make = Callable[[random.Random, bool], str]
"""A value from a source of chance; True asks for one of the held-out values."""
_ONE_WORD = {"person": "last", "thing": "word", "title": "word"}
"""Kinds whose values have two words, and the kind that half of them are of where the example shows one word."""
_FIRST_DAY, _DAYS = date(2025, 1, 1), 1000
_TRIES = 60
_LOOKS: tuple[tuple[str, str], ...] = (
    ("uuid", r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"),
    ("email", r"[^@\s]+@[^@\s]+\.\w+"),
    ("uri", r"https?://\S+"),
    ("phone", r"\+?\d[\d ()-]{6,}\d"),
    ("expression", r"[\d\s.()]*\d\s*[-+*/^%][-\d\s.+*/^%()]*\d[\d\s.()]*"),
    ("file", r"[\w-]+\.[a-z]\w{1,3}"),
    ("query", r"[a-z]+ [a-z]+( [a-z]+)?"),
)
_MONEY = frozenset(("currency", "currencies", "money", "exchange", "price", "amount", "payment"))
_ENDS = ("from", "to", "source", "target", "base")
_FLYING = frozenset(("airport", "airports", "flight", "flights", "airline", "fly"))
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@cache
def material() -> dict[str, Any]:
    """The shipped tables of `presets/manual.json`: pools, names, frames, forms, and requests beyond any tool."""
    return cast(
        dict[str, Any],
        json.loads(
            (resources.files("toolhone.config.presets") / "manual.json").read_text(encoding="utf-8")
        ),
    )


def words_of(name: str) -> list[str]:
    """The words of a name, small: `departureCity`, `departure_city` and `departure-city` give departure, city."""
    return [word.lower() for word in re.split(r"[\W_]+", _CAMEL.sub(" ", name)) if word]


def kind_of(names: Sequence[str], about: str, value: str | None, tool: Collection[str] = ()) -> str:
    """The kind of text that a parameter holds: a key of the makers, or "like" for the shape of the example's value.

    names: the words of its path, the nearest last; about: its description; tool: words that the tool says of itself.
    """
    topics = {*names, *words_of(about), *tool}
    named = _named(names) or _named([word for word in words_of(about) if len(word) > 2])
    if value is None:
        return named or (
            (_code(topics, "") or "thing") if names and names[-1] in _ENDS else "thing"
        )
    for kind, tell in (("date", is_date), ("time", is_time), ("moment", is_moment)):
        if tell(value):
            return kind
    if re.fullmatch("[A-Z]{3}", value):
        return _code(topics, named) or "like"
    look = next((kind for kind, pattern in _LOOKS if re.fullmatch(pattern, value)), "")
    if look in ("", "query") and named:
        return named if _suits(named, value) else "like"
    return look or "like"


def _named(words: Sequence[str]) -> str:
    """The kind that the last telling word stands for. A bare `name` is a person's where a person is spoken of."""
    table: dict[str, str] = {
        word: kind for kind, known in material()["names"].items() for word in known
    }
    if "name" in words and set(words) & set(material()["people"]):
        return "person"
    return next((table[word] for word in reversed(words) if word in table), "")


def _code(words: set[str], named: str) -> str:
    """The kind of a code of three letters: of a currency or an airport where such things are spoken of, else ""."""
    for kind, telling in (("currency", _MONEY), ("airport", _FLYING)):
        if named == kind or words & telling:
            return kind
    return ""


def _suits(kind: str, value: str) -> bool:
    """Whether a value looks as values of this kind do; a kind guessed by name must not overrule what the user showed."""
    if kind in ("date", "time", "moment", "email", "uri", "uuid", "expression", "file", "phone"):
        return False
    if any(letter.isdigit() for letter in value):
        return kind in ("address", "query", "sentence", "title", "thing")
    if kind in ("id", "digits"):
        return False
    if kind in ("airport", "currency"):
        return False
    if kind in ("city", "country", "language", "person", "first", "last"):
        return value.istitle() and value.isascii() and (kind != "first" or " " not in value)
    return value.isascii()


def maker(kind: str, value: str | None) -> Make:
    """Makes texts of a kind; `value` is the example's, whose shape some kinds keep."""
    if kind == "like":
        assert value is not None
        return _like(value)
    if kind == "expression":
        return _aside(lambda rng: _renumbered(value or "12 * 7", rng))
    if kind in _MADE:
        make = _MADE[kind]
        return _aside(lambda rng: make(rng, value))
    if kind in ("id", "digits"):
        shape = value or ("ABC-1234" if kind == "id" else "12345")
        return _aside(lambda rng: _reshaped(shape, rng))
    short = _ONE_WORD.get(kind, kind) if value and len(value.split()) == 1 else kind

    def pooled(rng: random.Random, held: bool) -> str:
        return _pooled(short if short != kind and rng.random() < 0.5 else kind, rng, held)

    return _cased(pooled, value if kind in ("thing", "word", "query", "title") else None)


def _aside(make: Callable[[random.Random], str]) -> Make:
    """A maker that gives held-out values a checksum of their own; where the shape leaves too little choice, any value does."""

    def made(rng: random.Random, held: bool) -> str:
        for _ in range(_TRIES):
            text = make(rng)
            if (zlib.crc32(text.encode()) % 7 == 3) == held:
                return text
        return make(rng)

    return made


def _pooled(kind: str, rng: random.Random, held: bool) -> str:
    name = "held_out" if held else "train"
    pools: dict[str, list[str]] = material()["pools"][name]
    if kind == "sentence":
        return f"{rng.choice(pools['start'])} {rng.choice(pools['article'])} {Fillers(name, rng).draw({'x': 'thing'})['x']}"
    if kind == "title":
        return f"{Fillers(name, rng).draw({'x': 'thing'})['x']}".title()
    if kind == "file":
        return f"{rng.choice(pools['file'])}_{Fillers(name, rng).draw({'x': 'word'})['x']}.{rng.choice(pools['ending'])}"
    if kind in ("email", "uri", "address"):
        return _addressed(kind, pools, Fillers(name, rng), rng)
    if kind in pools:
        return rng.choice(pools[kind])
    return Fillers(name, rng).draw({"x": kind})["x"]


def _addressed(kind: str, pools: dict[str, list[str]], fillers: Fillers, rng: random.Random) -> str:
    if kind == "email":
        drawn = fillers.draw({"first": "first", "word": "word"})
        return f"{drawn['first'].lower()}.{drawn['word']}@{rng.choice(pools['domain'])}"
    if kind == "uri":
        return f"https://{rng.choice(pools['domain'])}/{fillers.draw({'x': 'word'})['x']}"
    return f"{rng.randint(2, 180)} {rng.choice(pools['street'])}"


def _cased(make: Make, value: str | None) -> Make:
    """The maker with its words written as the example's value is: as many (one, or some), and with capitals or without."""
    if value is None:
        return make
    change = str.title if value.istitle() else str.upper if value.isupper() else str

    def made(rng: random.Random, held: bool) -> str:
        return change(make(rng, held))

    return made


def _like(value: str) -> Make:
    """Texts of the shape of one: digits and letters one by one where there are digits, else as many words."""
    if any(letter.isdigit() for letter in value) or (value.isupper() and len(value) < 6):
        return _aside(lambda rng: _reshaped(value, rng))
    words = len(value.split())
    kind = "word" if words == 1 else "thing" if words == 2 else "sentence"
    return _cased(lambda rng, held: _pooled(kind, rng, held), value)


def _reshaped(value: str, rng: random.Random) -> str:
    """Each digit and each ASCII letter replaced by another of its sort; everything else, and a leading word, stays."""
    keep = re.match(r"[A-Za-z]{4,}(?=[\W_]|\d)", value)
    start = keep.end() if keep else 0
    letters = [_another(sign, rng, position > 0) for position, sign in enumerate(value[start:])]
    return value[:start] + "".join(letters)


def _another(sign: str, rng: random.Random, inside: bool) -> str:
    if sign.isdigit():
        return rng.choice("0123456789" if inside else "123456789")
    if not (sign.isascii() and sign.isalpha()):
        return sign
    return rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ" if sign.isupper() else "abcdefghijkmnopqrstuvwxyz")


def _renumbered(expression: str, rng: random.Random) -> str:
    return re.sub(r"\d+(\.\d+)?", lambda match: near(match[0], rng), expression)


def near(number: str, rng: random.Random) -> str:
    """Another number with as many digits before the point (one or two of them: up to two) and as many behind it; never 0 or 1."""
    whole, point, rest = number.partition(".")
    drawn = str(rng.randint(2, 10 ** max(2, len(whole)) - 1))
    return (
        f"{drawn}.{rng.randint(1, 10 ** len(rest) - 1):0{len(rest)}d}".rstrip("0")
        if point
        else drawn
    )


def _a_date(rng: random.Random, _: str | None) -> str:
    return (_FIRST_DAY + timedelta(days=rng.randrange(_DAYS))).isoformat()


def _a_time(rng: random.Random, value: str | None) -> str:
    rest = value[5:] if value else ""
    return f"{rng.randint(7, 22):02d}:{rng.choice(('00', '00', '15', '30', '45'))}{rest}"


def _a_moment(rng: random.Random, value: str | None) -> str:
    middle, rest = (value[10], value[16:]) if value else ("T", ":00Z")
    return f"{_a_date(rng, None)}{middle}{_a_time(rng, None)}{rest}"


def _a_phone(rng: random.Random, value: str | None) -> str:
    return _reshaped(value or "+47 555 01 234", rng)


def _a_uuid(rng: random.Random, _: str | None) -> str:
    return re.sub(
        "x", lambda _match: rng.choice("0123456789abcdef"), "xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx"
    )


def _an_address(rng: random.Random, _: str | None) -> str:
    return ".".join(str(rng.randint(2, 250)) for _ in range(4))


_MADE: dict[str, Callable[[random.Random, str | None], str]] = {
    "date": _a_date,
    "time": _a_time,
    "moment": _a_moment,
    "phone": _a_phone,
    "uuid": _a_uuid,
    "ipv4": _an_address,
}
FORMATS = {
    "date": "date",
    "time": "time",
    "date-time": "moment",
    "email": "email",
    "idn-email": "email",
    "uri": "uri",
    "url": "uri",
    "uuid": "uuid",
    "ipv4": "ipv4",
}
"""JSON Schema's `format` -> kind."""


def quoted_examples(about: str) -> Iterable[str]:
    """Values that a description shows: `e.g. "Oslo"`, `such as 'large'`."""
    return (
        match[2]
        for match in re.finditer(
            r"(?:e\.g\.,?|for example|such as|like|example:)\s*(['\"`])([^'\"`]{1,60})\1", about
        )
    )
