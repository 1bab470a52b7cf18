"""Random conversations with typed tools, for properties that must hold for every one of them.

    Draw(rng, marks, wild)   texts, values, tools and conversations

The same `rng` with other `marks` gives the same structure, so that a conversation full of marks can
be compared with one full of harmless words.

An ordinary conversation holds plain values that fit their tools' schemas; a wild one holds marks,
quotes, odd keys and white space, numbers at the edges, and texts that look like values of another
type.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from toolhone.schema import Conversation, Message, Tool, ToolCall

_WORDS = (
    "tea",
    "in",
    "Łódź",
    "the river",
    "two",
    "漢字",
    "rain",
    "New York",
    "a-b",
    "ok.",
    "fish & chips",
    "5 o'clock",
    "🙂",
)
_ODD = (
    *(
        '"',
        "'",
        "\\",
        "\n",
        "\t",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        ",",
        ":",
        "=",
        "</b>",
        "<b>",
        "&lt;",
        "\\n",
        '"}',
        "'}",
        "]}",
    ),
    *(
        "{{ x }}",
        "{% if %}",
        "```",
        "\\u003c",
        "\\'",
        '\\"',
        "<",
        ">",
        "|",
        "\r\n",
        "\u2028",
        "x=1",
        "f(a=1)",
    ),
    '{"name": "f", "arguments": {}}',
)
_LOOKS_TYPED = (
    *(
        "true",
        "True",
        "1",
        "-2.5",
        "1e5",
        "null",
        "None",
        "[1]",
        "{}",
        '{"a": 1}',
        '"quoted"',
        "'single'",
        "",
        " ",
        "0x1",
        "nan",
    ),
)
_NUMBERS = (0, 1, -1, 7, 250.5, 1e5, 1e-7, -0.0, 0.1, 1e22, 2**53 + 1, -(10**20), 1.0, 1.5e300)
_KEYS = (
    "a",
    "b_c",
    "città",
    "two words",
    "odd-name",
    "class",
    'q"uote',
    "it's",
    "a.b",
    "x:y",
    "1",
    "a=b",
    "<k>",
    "é",
)

SCHEMAS: tuple[dict[str, Any], ...] = (
    {"type": "string"},
    {"type": "string", "description": "A text."},
    {"type": "integer"},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "array", "items": {"type": "string"}},
    {"type": "array", "items": {"type": "number"}},
    {"type": "object"},
    {"type": ["string", "null"]},
    {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    {"enum": ["celsius", "fahrenheit"]},
    {"$ref": "#/$defs/place"},
    {"anyOf": [{"type": "object"}, {"type": "array"}, {"type": "boolean"}]},
)
"""What parameters of random tools look like; each says the type of a text."""
_EITHER = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
_OPEN_SCHEMAS: tuple[dict[str, Any], ...] = (*SCHEMAS, {}, {"description": "Anything."}, _EITHER)
_PLACE = {"type": "object", "properties": {"city": {"type": "string"}, "top": {"type": "integer"}}}
NAMES = ("get_weather", "f", "search.web", "look-up", "Größe2", "book_a_seat")
_PARAMETERS = ("city", "days", "options", "q", "unit_of", "x1", "with_all")


class Draw:
    """One source of random texts, values, tools and conversations."""

    def __init__(self, rng: random.Random, marks: Sequence[str] = (), wild: bool = True) -> None:
        self.rng = rng
        self.marks = tuple(marks) if wild else ()
        self.wild = wild

    def text(self, most: int = 5) -> str:
        """A text; a wild one holds marks and odd characters, may look like another type, and may
        have white space at its ends.
        """
        pieces = [self._piece() for _ in range(self.rng.randint(1, most))]
        if not self.wild:
            return " ".join(pieces)
        ends = (
            self.rng.choice(("", "", "", " ", "\n", "  ")),
            self.rng.choice(("", "", "", " ", "\n")),
        )
        between = self.rng.choice((" ", ""))
        return (
            self.rng.choice(_LOOKS_TYPED)
            if self.rng.random() < 0.15
            else ends[0] + between.join(pieces) + ends[1]
        )

    def _piece(self) -> str:
        kind = self.rng.random() if self.wild else 0.0
        word, odd, mark = (
            self.rng.choice(_WORDS),
            self.rng.choice(_ODD),
            self.rng.randrange(max(len(self.marks), 1)),
        )
        if kind < 0.5:
            return word
        return odd if kind < 0.8 or not self.marks else self.marks[mark]

    def said(self) -> str:
        """What a user or an assistant says: begins and ends with a word."""
        middle = (
            self.text()
            if self.rng.random() < 0.8 or not self.wild
            else "\n\n".join((self.text(), self.text()))
        )
        return f"{self.rng.choice(_WORDS)} {middle} {self.rng.choice(_WORDS)}"

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        """A value that fits the schema."""
        several = schema.get("type") if isinstance(schema.get("type"), list) else []
        options = schema.get("anyOf") or [{"type": kind} for kind in several]
        if options:
            return self.value(self.rng.choice(options), depth)
        if "enum" in schema:
            return self.rng.choice(schema["enum"])
        if "$ref" in schema:
            return {"city": self.text(), "top": self.rng.randint(0, 9)}
        kind = schema.get("type") or self.rng.choice(
            ("string", "number", "boolean", "null", "array", "object")
        )
        if kind == "array":
            items = schema.get("items") or {}
            return [
                self.value(items, depth + 1)
                for _ in range(self.rng.randrange(4 if depth < 3 else 1))
            ]
        if kind == "object":
            size = self.rng.randrange(4 if depth < 3 else 1)
            return {self.key(): self.value({}, depth + 1) for _ in range(size)}
        return self._plain(kind)

    def _plain(self, kind: str) -> Any:
        if kind == "string":
            return self.text()
        number = self.rng.choice(_NUMBERS) if self.wild else self.rng.choice((3, 250.5, -7, 0.25))
        if kind == "integer":
            return int(number) if abs(number) < 1e21 else 4
        return {"number": number, "boolean": self.rng.random() < 0.5, "null": None}[kind]

    def key(self) -> str:
        key = self.rng.choice(_KEYS if self.wild else _KEYS[:3])
        mark = self.rng.randrange(max(len(self.marks), 1))
        return self.marks[mark] if self.marks and self.rng.random() < 0.1 else key

    def tools(self) -> tuple[Tool, ...]:
        """Two tools with two to four parameters each."""
        return tuple(self._tool(name) for name in self.rng.sample(NAMES, 2))

    def _tool(self, name: str) -> Tool:
        schemas = _OPEN_SCHEMAS if self.wild else SCHEMAS
        names = self.rng.sample(_PARAMETERS, self.rng.randint(2, 4))
        properties = {
            name: {"description": self._piece(), **self.rng.choice(schemas)} for name in names
        }
        parameters = {
            "type": "object",
            "properties": properties,
            "required": names[:1],
            "$defs": {"place": _PLACE},
        }
        return Tool(name, self.text(), parameters)

    def call(self, tools: Sequence[Tool]) -> ToolCall:
        """A call of one of the tools; a wild one may have arguments that no schema speaks of, or
        none at all.
        """
        tool = self.rng.choice(tools)
        properties = tool.parameters["properties"]
        arguments = {
            name: self.value(schema)
            for name, schema in properties.items()
            if self.rng.random() < 0.8
        }
        if self.wild and self.rng.random() < 0.1:
            arguments[self.key()] = self.value({})
        return ToolCall(tool.name, {} if self.rng.random() < 0.08 else arguments)

    def conversation(self, calls: int | None = None, beside: bool | None = None) -> Conversation:
        """Question, calls, results, answer; sometimes twice, sometimes with system text. `calls`,
        `beside`: what a turn holds.
        """
        tools = self.tools()
        messages = [Message("system", self.said())] if self.rng.random() < 0.4 else []
        for _ in range(self.rng.randint(1, 2)):
            count = self.rng.choice((1, 1, 1, 2, 3)) if calls is None else calls
            text = self.rng.random() < 0.25 if beside is None else beside
            said = tuple(self.call(tools) for _ in range(count))
            messages += [
                Message("user", self.said()),
                Message("assistant", self.said() if text else None, None, said),
            ]
            messages += [Message("tool", self.said()) for _ in said]
            messages.append(Message("assistant", self.said()))
        return Conversation(tuple(messages), tools)


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are the same, types included: 1 is neither 1.0 nor true, and -0.0 is
    not 0.0.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and repr(a) == repr(b)
