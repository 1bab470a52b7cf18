"""Texts with `{param}` in them: the places of an address or a command where arguments of a call go.

    template = Template.of("--size={width}x{height}")
    template.names                                      # ("width", "height")
    template.filled({"width": "2", "height": "3"})      # "--size=2x3"

A name is letters, digits, `_`, `-` and `.`; braces around anything else are text, and `{{name}}` is the text `{name}`. What a value
may look like in its place (quoting, a leading dash) is the business of `http.py` and `command.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from toolhone.errors import ConfigError, nearest
from toolhone.schema import Json, Tool

_PLACE = re.compile(r"\{\{(?P<text>[\w.-]+)\}\}|\{(?P<name>[\w.-]+)\}")


@dataclass(frozen=True)
class Placeholder:
    """A `{name}`."""

    name: str


@dataclass(frozen=True)
class Template:
    """Literal texts and places, in their order."""

    parts: tuple[str | Placeholder, ...]

    @staticmethod
    def of(text: str) -> Template:
        parts: list[str | Placeholder] = []
        end = 0
        for match in _PLACE.finditer(text):
            parts += [
                text[end : match.start()],
                Placeholder(match["name"]) if match["name"] else f"{{{match['text']}}}",
            ]
            end = match.end()
        return Template(tuple(part for part in (*parts, text[end:]) if part != ""))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts if isinstance(part, Placeholder))

    @property
    def prefix(self) -> str:
        """The literal text before the first place."""
        return self.parts[0] if self.parts and isinstance(self.parts[0], str) else ""

    def filled(self, values: Mapping[str, str], literal: Callable[[str], str] = str) -> str:
        """The text with a value in each place; `literal` is applied to the texts between them."""
        return "".join(
            values[part.name] if isinstance(part, Placeholder) else literal(part)
            for part in self.parts
        )


def defaults_of(tool: Tool) -> dict[str, Json]:
    """The defaults that the tool's schema states."""
    return {
        name: schema["default"]
        for name, schema in tool.properties.items()
        if schema.get("default") is not None
    }


def check_places(tool: Tool, names: Iterable[str], where: str, may_be_absent: bool = False) -> None:
    """Stop at a place that names no parameter, or (unless `may_be_absent`) one that a call may leave empty."""
    declared, sure = (tool.properties, {*tool.parameters.get("required", ()), *defaults_of(tool)})
    for name in names:
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise ConfigError(
                f"tool {tool.name!r}: {where} has a place {{{name}}}, but no parameter is named so{nearest(name, declared)}; "
                f"parameters: {known}; the text itself is written {{{{{name}}}}}"
            )
        if name not in sure and not may_be_absent:
            raise ConfigError(
                f"tool {tool.name!r}: {where} has a place {{{name}}}, but a call may leave {name!r} out; "
                "put it under 'required', or give it a 'default'"
            )


def as_text(value: Json) -> str:
    """A value as it is put in a place: a text as it is, other values as JSON. `ValueError` for what cannot be said in UTF-8."""
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    )
    text.encode("utf-8")
    if "\0" in text:
        raise ValueError("a NUL character cannot be passed on")
    return text


def texts_of(values: Mapping[str, Json], names: Iterable[str]) -> dict[str, str]:
    """The values of these names as texts. `ValueError`, of one sentence, names the one that cannot be written."""
    texts = {}
    for name in names:
        try:
            texts[name] = as_text(values[name])
        except KeyError:
            raise ValueError(f"{name}: a value is needed") from None
        except UnicodeEncodeError:
            raise ValueError(
                f"{name}: half a character (a lone surrogate) cannot be passed on"
            ) from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}: {error}") from None
    return texts
