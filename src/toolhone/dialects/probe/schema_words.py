"""Which words of a tool's JSON Schema reach the prompt, and how many tools use the others.

hidden_words(dialect)                       # ["anyOf", "pattern"]
count_hidden(tools, ["anyOf", "pattern"])   # Counter({"anyOf": 2})
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolhone.dialects.interface import Dialect
from toolhone.errors import DialectError
from toolhone.schema import Json, Message, Tool
from toolhone.schema.json_input import packaged_json
from toolhone.schema.json_schema import map_schema

PROBES = packaged_json("dialects/probe/probes.json")


@dataclass(frozen=True)
class SchemaWord:
    """A word, the schema of a parameter that uses it, and the text that must reach the prompt.

    keys: the keywords that a schema has which uses the word; inside: only below a parameter.
    names: instead of keywords, names of parameters that must be shown as any other is.
    """

    name: str
    schema: Mapping[str, Json]
    mark: str
    keys: frozenset[str]
    inside: bool = False
    names: tuple[str, ...] = ()

    def is_shown(self, dialect: Dialect) -> bool:
        """Return whether a prompt with a tool that uses the word shows what it says."""
        definitions = PROBES["schema"]["definitions"]
        named = {name: {"type": "string", "description": f"{name}7"} for name in self.names}
        properties = {"value7": dict(self.schema), **named}
        parameters: dict[str, Json] = {"type": "object", "properties": properties}
        parameters |= {"$defs": definitions} if "$ref" in self.schema else {}
        tool = Tool("schema_tool7", "Uses words of schemas.", parameters)
        try:
            spans = dialect.prompt([Message("user", "What is There?")], [tool])
        except DialectError:
            return False
        text = "".join(span.text for span in spans)
        if self.names:
            return self.mark not in text or all(f"{name}7" in text for name in self.names)
        return self.mark in text

    def is_used(self, tool: Tool) -> bool:
        """Return whether the schema of a tool uses the word."""
        below = [one for each in tool.properties.values() for one in _levels(each)]
        levels = [*below, *_levels({"$defs": tool.parameters.get("$defs") or {}})]
        if self.names:
            tables = [tool.properties, *(level.get("properties") or {} for level in levels)]
            return any(name in table for table in tables for name in self.names)
        parameters = list(tool.properties.values())
        return any(
            not self.keys.isdisjoint(level) and not (self.inside and level in parameters)
            for level in levels
        )


def _levels(schema: Json) -> list[dict[str, Json]]:
    found: list[dict[str, Json]] = []

    def add(level: dict[str, Json]) -> dict[str, Json]:
        found.append(level)
        return level

    map_schema(schema, add)
    return found


def schema_words() -> Iterator[SchemaWord]:
    """Yield the words that are probed."""
    for name, entry in PROBES["schema"]["words"].items():
        keys, names = frozenset(entry.get("keys", ())), tuple(entry.get("names", ()))
        inside = entry.get("inside", False)
        yield SchemaWord(name, entry["schema"], entry["mark"], keys, inside, names)


def hidden_words(dialect: Dialect) -> list[str]:
    """Return the words that do not reach the prompt."""
    return [word.name for word in schema_words() if not word.is_shown(dialect)]


def count_hidden(tools: Iterable[Tool], hidden: Sequence[str]) -> Counter[str]:
    """Return how many tools use each of the hidden words."""
    words = [word for word in schema_words() if word.name in hidden]
    return Counter(word.name for tool in tools for word in words if word.is_used(tool))


def hidden_note(dialect: Dialect, tools: Iterable[Tool]) -> str | None:
    """Return a sentence on the tools that use what the prompt does not show; None where none do."""
    distinct = {json.dumps(tool.to_dict(), sort_keys=True, default=str): tool for tool in tools}
    used = count_hidden(distinct.values(), hidden_words(dialect))
    if not used:
        return None
    listed = ", ".join(f"{name} of {count}" for name, count in used.most_common())
    return f"the prompt does not show what the schemas of {len(distinct)} tools say by: {listed}"
