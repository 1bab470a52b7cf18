"""The built-in tools `weather` and `search`: invented worlds, offline, the same for the same seed.

    WeatherWorld(seed=0).weather("Oslo")            # {"city": "Oslo", "temperature": 4.1, ...}
    SearchWorld(seed=0).search("tide tables", 3)    # [{"title", "url", "snippet"}, ...]

An answer is a pure function of (seed, arguments); it has the form of a live service.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from toolhone.schema import Json
from toolhone.schema.json_input import packaged_json

Unit = Literal["celsius", "fahrenheit"]
_SKY = (("clear", 30, 60), ("partly cloudy", 40, 70), ("overcast", 55, 85))
_MIST = (("mist", 85, 100), ("fog", 92, 100))
_WET = (("drizzle", 75, 95), ("rain", 75, 98), ("thunderstorm", 70, 95))
_COLD = (("light snow", 70, 95), ("snow", 80, 98))
"""Condition, lowest and highest humidity in per cent."""

_SEARCH = packaged_json("tools/fake_services.json")
"""`fillers`: words that do not name a topic. `pages`: their kind, title and snippet."""
MAX_RESULTS = len(_SEARCH["pages"])


@dataclass(frozen=True)
class WeatherWorld:
    """The weather of all cities. Case, spacing and a country after a comma do not change a city."""

    seed: int = 0

    def weather(
        self,
        city: Annotated[
            str,
            "Name of the city, with the country if the name is not unique, "
            'e.g. "Oslo" or "Paris, France".',
        ],
        unit: Unit = "celsius",
    ) -> dict[str, Json]:
        """Get the current weather in a city: temperature, condition, humidity in per cent and wind
        in km/h.

        Args:
            unit: Unit of the temperature.
        """
        name = " ".join(city.split())
        key = name.split(",")[0].strip().casefold()
        if not any(character.isalpha() for character in key):
            right = "give its name, as in 'Oslo' or 'Paris, France'"
            raise ValueError(f"there is no city named {city!r}; {right}")
        chance = _chance(self.seed, "weather", key)
        celsius = chance.randint(-120, 360) / 10
        kinds = _SKY + (_COLD if celsius <= 2 else _WET) + (_MIST if celsius < 15 else ())
        condition, low, high = chance.choice(kinds)
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
    """A small web with pages about every topic: the words of a query without question words."""

    seed: int = 0

    def search(
        self, query: str, limit: Annotated[int, Field(ge=1, le=MAX_RESULTS)] = 3
    ) -> list[dict[str, Json]]:
        """Search the web and return pages as a list of title, url and snippet.

        Args:
            query: What to search for, in a few words.
            limit: How many results to return at most.
        """
        if limit < 1:
            raise ValueError(f"'limit' must be at least 1, got {limit}")
        words = re.findall(r"[^\W_]+(?:['’.-][^\W_]+)*", query)
        if not words:
            raise ValueError(f"the query {query!r} has no word to search for")
        named = [word for word in words if word.lower() not in _SEARCH["fillers"]]
        topic = " ".join(named or words)
        topic = topic[:80].strip()
        chance = _chance(self.seed, "search", topic.casefold())
        slug = "-".join(re.findall(r"\w+", topic.casefold()))
        pages = []
        for page in chance.sample(_SEARCH["pages"], k=MAX_RESULTS):
            n, year = chance.randint(4, 30), chance.randint(1950, 2024)
            found = {
                "title": page["title"].format(Topic=topic[:1].upper() + topic[1:], topic=topic),
                "url": f"https://example.org/{slug}/{page['kind']}",
                "snippet": page["snippet"].format(topic=topic, n=n, year=year),
            }
            pages.append(found)
        return pages[:limit]


def _chance(seed: int, world: str, key: str) -> random.Random:
    """Return a random stream that depends on these three alone, on every machine."""
    place = f"{seed}|{world}|{key}".encode("utf-8", "replace")
    digest = hashlib.blake2b(place, digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))
