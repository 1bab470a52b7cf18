"""How values are written in a question, and where a question has them.

    spellings(1234)                                # {"exact": "1234", "grouped": "1,234"}
    spellings("2025-03-01")["month first"]         # "March 1, 2025"
    places("Two seats, 12 rows", 2)                # one place, from 0 to 3, spelled "words"

English only. Nothing is guessed: a date without its year, say, is no spelling of that date.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import NamedTuple

from toolhone.schema import Json

EXACT = "exact"
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_MONTHS = "January February March April May June July August September October November December"
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?(Z|[+-]\d\d:\d\d)?")
_UNITS = "km kg g cm mm m mi lb c f mb gb h min s ms usd eur"
_CASELESS = "\u2e80"
"""Scripts from here on (Chinese, Japanese, Korean, ...) write words without spaces."""


class SpelledPlace(NamedTuple):
    """Where a text has a value, [start, end), and how; `case` is "", "lower" or "upper"."""

    start: int
    end: int
    spelling: str
    case: str = ""


def folded(text: str) -> str:
    """Return the text in lower case, with the same length."""
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)


def is_date(value: Json) -> bool:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return False
    try:
        datetime.date.fromisoformat(value)
    except ValueError:
        return False
    return True


def is_time(value: Json) -> bool:
    return isinstance(value, str) and bool(_TIME.fullmatch(value))


def is_moment(value: Json) -> bool:
    """Return whether the value is a date and a time, as in `2025-03-01T19:00:00Z`."""
    if not isinstance(value, str) or value[10:11] not in ("T", " "):
        return False
    return is_date(value[:10]) and is_time(value[11:])


def spellings(value: Json) -> dict[str, str]:
    """Return name of the spelling -> text; nothing for null, lists and objects."""
    if isinstance(value, bool):
        return {EXACT: "true" if value else "false", "yes or no": "yes" if value else "no"}
    if isinstance(value, int | float):
        return _number_spellings(value)
    if not isinstance(value, str) or not value.strip():
        return {}
    if is_date(value):
        return {EXACT: value, **_date_spellings(value)}
    if is_time(value):
        return {EXACT: value, **_time_spellings(value)}
    if is_moment(value):
        days = {EXACT: value[:10], **_date_spellings(value[:10])}
        hours = {"24": value[11:16], **_time_spellings(value[11:])}
        joined = {
            f"{day} {word} {hour}": f"{days[day]}{' at' if word == 'at' else ','} {hours[hour]}"
            for day in days
            for hour in hours
            for word in ("at", ",")
        }
        return {EXACT: value, **joined}
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"(?<=\w)[_-](?=\w)", " ", value))
    return {EXACT: value} if spaced == value else {EXACT: value, "spaced": spaced}


def write_value(value: Json, spelling: str, case: str = "") -> str:
    """Return the value in this spelling, or as it is where it has no such spelling."""
    known = spellings(value)
    text = known.get(spelling, known[EXACT])
    return text.lower() if case == "lower" else text.upper() if case == "upper" else text


def places(text: str, value: Json) -> list[SpelledPlace]:
    """Return where the text has the value, in order; of two that overlap, the longer.

    A number inside a longer one (2 in `12`, `2.5`, `10:2`, `2025-02-01`) is not found.
    """
    small = folded(text)
    found = []
    for name, spelled in spellings(value).items():
        for start in _find(small, folded(spelled)):
            end = start + len(spelled)
            cases = {spelled.upper(): "upper", spelled.lower(): "lower", spelled: ""}
            found.append(SpelledPlace(start, end, name, cases.get(text[start:end], "")))
    result: list[SpelledPlace] = []
    for place in sorted(found, key=lambda place: place.start - place.end):
        if all(place.end <= other.start or other.end <= place.start for other in result):
            result.append(place)
    return sorted(result, key=lambda place: place.start)


def _find(small: str, wanted: str) -> Iterator[int]:
    start = small.find(wanted)
    while start >= 0:
        if _begins(small, start) and _ends(small, start + len(wanted)):
            yield start
        start = small.find(wanted, start + 1)


def _begins(text: str, start: int) -> bool:
    """Return whether a word or number can begin here."""
    before, first = text[start - 1 : start], text[start]
    if not before or not first.isalnum() or max(before, first) >= _CASELESS:
        return True
    after_digit = text[start - 2 : start - 1].isdigit()
    if first.isdigit() and (before in "-−." or (before in ",:/" and after_digit)):
        return False
    return not before.isalnum() and before != "_"


def _ends(text: str, end: int) -> bool:
    """Return whether a word or number can end here; a unit may follow a number, as in `5km`."""
    after, last = text[end : end + 1], text[end - 1]
    if not after or not last.isalnum() or max(after, last) >= _CASELESS:
        return True
    if last.isdigit() and after in ".,:/-" and text[end + 1 : end + 2].isdigit():
        return False
    if last.isdigit() and after.isalpha():
        unit = re.match(r"[^\W\d_]+", text[end:])
        return unit is not None and unit[0] in _UNITS.split()
    return not after.isalnum() and after != "_"


def _number_spellings(value: int | float) -> dict[str, str]:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        decimals = {"decimal": f"{value:.1f}", "cents": f"{value:.2f}"}
        return {**_number_spellings(int(value)), **decimals}
    result = {EXACT: str(value)}
    if abs(value) >= 1000:
        result["grouped"] = f"{value:,}"
    if value < 0:
        result["minus"] = f"minus {-value}"
    if isinstance(value, int) and 0 <= value <= 100:
        tens, ones = divmod(value, 10)
        small, tens_name = _SMALL.split(), (*[""] * 2, *_TENS.split(), "a hundred")
        after = f"-{small[ones]}" if ones else ""
        result["words"] = small[value] if value < 20 else tens_name[tens] + after
    if isinstance(value, float) and round(value, 2) == value:
        result["cents"] = f"{value:.2f}"
    if isinstance(value, float) and 0 < value < 1 and round(value, 4) == value:
        share = f"{round(value * 100, 2):g}"
        result |= {"%": f"{share}%", "percent": f"{share} percent"}
    return result


def _date_spellings(text: str) -> dict[str, str]:
    date = datetime.date.fromisoformat(text)
    month, day, year = _MONTHS.split()[date.month - 1], date.day, date.year
    ending = {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    nth = f"{day}th" if day in (11, 12, 13) else f"{day}{ending}"
    return {
        "month first": f"{month} {day}, {year}",
        "month first, no comma": f"{month} {day} {year}",
        "day first": f"{day} {month} {year}",
        "month first, nth": f"{month} {nth}, {year}",
        "day first, nth": f"{nth} {month} {year}",
        "day first, nth of": f"{nth} of {month} {year}",
        "short month first": f"{month[:3]} {day}, {year}",
        "short day first": f"{day} {month[:3]} {year}",
    }


def _time_spellings(text: str) -> dict[str, str]:
    hour, minute = int(text[:2]), text[3:5]
    half, twelve = ("am" if hour < 12 else "pm"), hour % 12 or 12
    short = str(twelve) if minute == "00" else f"{twelve}:{minute}"
    result = {
        "12": f"{short} {half}",
        "12 tight": f"{short}{half}",
        "12 full": f"{twelve}:{minute} {half}",
    }
    return {**result, "24": text[:5]} if len(text) == 8 else result
