"""Which kind of text a parameter wants, and makers for each kind.

    kind = kind_of(("departure", "city"), "Where the flight starts.", None)    # "city"
    make = text_maker(kind, None)
    make(random.Random(0), False)                                              # "Bergen"

The form of an example's value counts first, then the parameter's name, then its description.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Collection, Sequence
from datetime import date, timedelta
from itertools import pairwise

from toolhone.config.phrasings import Fillers, word_lists
from toolhone.schema import Json

Make = Callable[[random.Random, bool], str]
"""Draws a text; True asks for one of the held-out values."""
_ONE_WORD = {"person": "last", "thing": "word", "title": "word"}
"""Kinds of two words -> the kind of half of them where the example shows one word."""
_TRIES = 60
_REAL = 0.9
"""Share of words from a pool; the others are made up, so that words are copied, not recalled."""
_BY_FORM_ONLY = (
    "date",
    "birthday",
    "time",
    "moment",
    "email",
    "uri",
    "uuid",
    "expression",
    "file",
    "phone",
)
_WITH_DIGITS = ("address", "query", "sentence", "title", "thing")
_NAMES = ("city", "country", "language", "person", "first", "last")
_CODE_NAMES = ("from", "to", "source", "target", "base")
_SHAPES = {"id": "ABC-1234", "digits": "12345", "phone": "+47 555 01 234"}
_GENERATED = (*_SHAPES, "date", "birthday", "time", "moment", "uuid", "ipv4", "expression")
_DATE, _TIME = r"\d{4}-\d\d-\d\d", r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?:Z|[+-]\d\d:\d\d)?"
_CLOCK = re.compile(rf"(?P<date>{_DATE})|(?P<time>{_TIME})|(?P<moment>{_DATE}[T ]{_TIME})")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def words_of(name: str) -> list[str]:
    """`departureCity`, `departure_city` and `departure-city` -> ["departure", "city"]."""
    return [word.lower() for word in re.split(r"[\W_]+", _CAMEL.sub(" ", name)) if word]


def clock_kind(value: Json) -> str:
    """Return "date", "time", "moment" (`2025-03-01T19:00:00Z`), or "" for any other value."""
    match = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return ""
    try:
        date.fromisoformat(value[:10] if match["time"] is None else "2025-01-01")
    except ValueError:
        return ""
    return str(match.lastgroup)


def kind_of(names: Sequence[str], about: str, value: str | None, tool: Collection[str] = ()) -> str:
    """Return the kind of text that a parameter holds, "like" for the shape of the example's value.

    names: the words of its path, the nearest last. about: its description. tool: the words of the
    tool's description.
    """
    topics = {*names, *words_of(about), *tool}
    codes = [kind for kind, topic in word_lists("manual")["codes"].items() if topics & {*topic}]
    named = _named(names) or _named([word for word in words_of(about) if len(word) > 2])
    if value is None:
        code = next(iter(codes), "") if names and names[-1] in _CODE_NAMES else ""
        return named or code or "thing"
    if clock := clock_kind(value):
        return clock
    if re.fullmatch("[A-Z]{3}", value):
        known = (kind for kind in word_lists("manual")["codes"] if kind in (named, *codes))
        return next(known, "like")
    forms = word_lists("manual")["forms"].items()
    form = next((kind for kind, pattern in forms if re.fullmatch(pattern, value)), "")
    if form not in ("", "query") or not named:
        return form or "like"
    # A name must not overrule the form of an example.
    if named in _BY_FORM_ONLY:
        suits = False
    elif any(letter.isdigit() for letter in value):
        suits = named in _WITH_DIGITS
    elif named in _NAMES:
        suits = value.istitle() and value.isascii() and (named != "first" or " " not in value)
    else:
        suits = value.isascii() and named not in ("id", "digits", "airport", "currency")
    return named if suits else "like"


def _named(words: Sequence[str]) -> str:
    """Return the kind of the last word that has one; a `name` may be a person's."""
    if "name" in words and set(words) & set(word_lists("manual")["people"]):
        return "person"
    kinds = word_lists("manual")["names"].items()
    table = {word: kind for kind, known in kinds for word in known}
    pairs = [f"{one} {other}" for one, other in pairwise(["", *words])]
    found = (table.get(pair) or table.get(pair.split(" ")[1]) for pair in reversed(pairs))
    return next(filter(None, found), "")


def text_maker(kind: str, value: str | None) -> Make:
    """Return a maker of texts of a kind; `value` is the example's, whose shape some kinds keep.

    Generated held-out texts have a checksum of their own, where the shape leaves choice enough.
    """
    keeps_case = kind in ("like", "thing", "word", "query", "title")
    if kind == "like":
        # The shape of the example: sign by sign where there are digits, else as many words.
        assert value is not None
        kind = {1: "word", 2: "thing"}.get(len(value.split()), "sentence")
        if any(letter.isdigit() for letter in value) or (value.isupper() and len(value) < 6):
            kind = "id"
    short = _ONE_WORD.get(kind, kind) if value and len(value.split()) == 1 else kind
    change: Callable[[str], str] = str
    if keeps_case and value:
        change = str.title if value.istitle() else str.upper if value.isupper() else str

    def draw(rng: random.Random, held: bool) -> str:
        wanted = short if short != kind and rng.random() < 0.5 else kind
        fillers = Fillers("held_out" if held else "train", rng, _REAL)
        return change(fillers.draw({"x": wanted})["x"])

    def generate(rng: random.Random, held: bool) -> str:
        for _ in range(_TRIES):
            text = _generate(kind, rng, value)
            if is_held_out(text) == held:
                return text
        return _generate(kind, rng, value)

    return generate if kind in _GENERATED else draw


def is_held_out(text: str) -> bool:
    """Return whether a generated text belongs to the held-out values."""
    return zlib.crc32(text.encode()) % 7 == 3


def _generate(kind: str, rng: random.Random, value: str | None) -> str:
    match kind:
        case "birthday":
            return (date(1940, 1, 1) + timedelta(days=rng.randrange(25_000))).isoformat()
        case "date":
            return (date(2025, 1, 1) + timedelta(days=rng.randrange(1000))).isoformat()
        case "time":
            hour, minute = rng.randint(7, 22), rng.choice(("00", "00", "15", "30", "45"))
            return f"{hour:02d}:{minute}{value[5:] if value else ''}"
        case "moment":
            middle, rest = (value[10], value[16:]) if value else ("T", ":00Z")
            return f"{_generate('date', rng, None)}{middle}{_generate('time', rng, None)}{rest}"
        case "uuid":
            signs = (rng.choice("0123456789abcdef") for _ in range(30))
            form = "xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx"
            return "".join(next(signs) if sign == "x" else sign for sign in form)
        case "ipv4":
            return ".".join(str(rng.randint(2, 250)) for _ in range(4))
        case "expression":
            return re.sub(r"\d+(\.\d+)?", lambda one: near(one[0], rng), value or "12 * 7")
    value = value or _SHAPES[kind]
    keep = re.match(r"[A-Za-z]{4,}(?=[\W_]|\d)", value)
    start = keep.end() if keep else 0

    def another(sign: re.Match[str]) -> str:
        if sign[0].isdigit():
            return rng.choice("0123456789" if sign.start() else "123456789")
        upper = sign[0].isupper()
        return rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ" if upper else "abcdefghijkmnopqrstuvwxyz")

    return value[:start] + re.sub(r"[A-Za-z\d]", another, value[start:])


def near(number: str, rng: random.Random) -> str:
    """Draw another number of as many digits, at least up to two; never 0 or 1."""
    whole, point, rest = number.partition(".")
    drawn = str(rng.randint(2, 10 ** max(2, len(whole)) - 1))
    if not point:
        return drawn
    return f"{drawn}.{rng.randint(1, 10 ** len(rest) - 1):0{len(rest)}d}".rstrip("0")
