"""The invented worlds behind the tools `weather` and `search`: offline, and the same for the same seed.

    WeatherWorld(seed=0).report("Oslo", "celsius")    # {"city": "Oslo", "temperature": 4.1, "unit": "celsius", ...}
    SearchWorld(seed=0).results("tide tables", 3)     # [{"title": ..., "url": "https://example.org/...", "snippet": ...}, ...]

Every answer is a pure function of (seed, arguments): no state, no clock, no network. The answers have the form of those of a live
service and agree with each other (both units name the same temperature, a shorter list is the beginning of a longer one), but
they say nothing about the real world: cities have no real climate, and no page exists.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from typing import Literal

from toolhone.schema import Json

Unit = Literal["celsius", "fahrenheit"]

_SKY = (("clear", 30, 60), ("partly cloudy", 40, 70), ("overcast", 55, 85))
_MIST = (("mist", 85, 100), ("fog", 92, 100))
_WET = (("drizzle", 75, 95), ("rain", 75, 98), ("thunderstorm", 70, 95))
_COLD = (("light snow", 70, 95), ("snow", 80, 98))
"""Condition, lowest and highest humidity in per cent."""

_FILLERS = re.compile(
    r"a|an|and|are|about|at|by|can|did|do|does|find|for|from|give|how|i|in|is|it|latest|look|me|my|of|on|or|please|search|show|tell|that"
    r"|the|this|to|up|was|web|were|what|when|where|which|who|why|with|you",
    re.IGNORECASE,
)
"""Words that do not name a topic."""

_PAGES = (
    (
        "{Topic}: an overview",
        "overview",
        "An overview of {topic}: the main terms, how the parts fit together, and where to read on.",
    ),
    (
        "A beginner's guide to {topic}",
        "guide",
        "New to {topic}? This guide takes about {n} minutes and starts with the basics.",
    ),
    (
        "{Topic} - questions and answers",
        "faq",
        "{n} common questions about {topic}, each with a short answer and a source.",
    ),
    (
        "A short history of {topic}",
        "history",
        "How {topic} changed over time, with a timeline from {year} until now.",
    ),
    (
        "{Topic} in numbers",
        "numbers",
        "Figures on {topic}, compiled in {year}: {n} tables, with notes on how they were collected.",
    ),
    (
        "What experts disagree on: {topic}",
        "debate",
        "{n} open questions about {topic}, with the arguments on each side.",
    ),
    (
        "{Topic}: a practical checklist",
        "checklist",
        "{n} steps to take before you decide anything about {topic}. Updated in {year}.",
    ),
    (
        "News about {topic}",
        "news",
        "The latest on {topic}: {n} articles since {year}, newest first.",
    ),
    (
        "Common mistakes with {topic}",
        "mistakes",
        "{n} mistakes that people make with {topic}, and how to avoid each of them.",
    ),
    (
        "Further reading on {topic}",
        "reading",
        "{n} books and articles on {topic}, from introductions to specialist works.",
    ),
)
MAX_RESULTS = len(_PAGES)


@dataclass(frozen=True)
class WeatherWorld:
    """The weather in any city."""

    seed: int = 0

    def report(self, city: str, unit: Unit = "celsius") -> dict[str, Json]:
        """The weather now: temperature in `unit`, wind in km/h, humidity in per cent.

        Case, spacing and a country after a comma do not change the weather of a city. `ValueError` for a name without a letter.
        """
        name = " ".join(city.split())
        key = name.split(",")[0].strip().casefold()
        if not any(character.isalpha() for character in key):
            raise ValueError(
                f"there is no city named {city!r}; give its name, as in 'Oslo' or 'Paris, France'"
            )
        chance = _chance(self.seed, "weather", key)
        celsius = chance.randint(-120, 360) / 10
        condition, low, high = chance.choice(
            _SKY + (_COLD if celsius <= 2 else _WET) + (_MIST if celsius < 15 else ())
        )
        return {
            "city": name,
            "temperature": celsius if unit == "celsius" else round(celsius * 9 / 5 + 32, 1),
            "unit": unit,
            "condition": condition,
            "humidity": chance.randint(low, high),
            "wind_kmh": chance.randint(0, 45),
        }


@dataclass(frozen=True)
class SearchWorld:
    """A small web about whatever is searched for."""

    seed: int = 0

    def results(self, query: str, limit: int = 3) -> list[dict[str, Json]]:
        """The first `limit` pages (of `MAX_RESULTS`) about the topic of the query: its words without question words and the like.

        Queries on the same topic find the same pages. `ValueError` for a query without a word or a limit below 1.
        """
        if limit < 1:
            raise ValueError(f"'limit' must be at least 1, got {limit}")
        words = re.findall(r"[^\W_]+(?:['’.-][^\W_]+)*", query)
        if not words:
            raise ValueError(f"the query {query!r} has no word to search for")
        topic = " ".join([word for word in words if not _FILLERS.fullmatch(word)] or words)[
            :80
        ].strip()
        chance = _chance(self.seed, "search", topic.casefold())
        pages = chance.sample(_PAGES, k=len(_PAGES))
        return [
            _page(*page, topic, chance.randint(4, 30), chance.randint(1950, 2024)) for page in pages
        ][:limit]


def _page(title: str, kind: str, snippet: str, topic: str, n: int, year: int) -> dict[str, Json]:
    heading = topic[:1].upper() + topic[1:]
    slug = "-".join(re.findall(r"\w+", topic.casefold()))
    return {
        "title": title.format(Topic=heading, topic=topic),
        "url": f"https://example.org/{slug}/{kind}",
        "snippet": snippet.format(topic=topic, n=n, year=year),
    }


def _chance(seed: int, world: str, key: str) -> random.Random:
    """A random stream that depends on these three alone, in every process and on every machine."""
    digest = hashlib.blake2b(
        f"{seed}|{world}|{key}".encode("utf-8", "replace"), digest_size=8
    ).digest()
    return random.Random(int.from_bytes(digest, "big"))
