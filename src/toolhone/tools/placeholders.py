"""Texts with places: `{param}` for an argument of a call, `${NAME}` for an environment variable.

    Template.of("--size={width}x{height}").fill({"width": "2", "height": "3"})      # "--size=2x3"
    FromEnvironment({"Authorization": "Bearer ${TOKEN}"}).fill("tool 'x', header")

A name is letters, digits, `_`, `-` and `.`; `{{name}}` is the text `{name}`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

from toolhone.errors import ConfigError, nearest
from toolhone.schema import Json, Tool

SHORTEST_SECRET = 4
"""Shorter values are not hidden, since every text contains them."""
_PLACE = re.compile(r"\{\{(?P<text>[\w.-]+)\}\}|\{(?P<name>[\w.-]+)\}")
VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class Placeholder:
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
            place = Placeholder(match["name"]) if match["name"] else f"{{{match['text']}}}"
            parts += [text[end : match.start()], place]
            end = match.end()
        return Template(tuple(part for part in (*parts, text[end:]) if part != ""))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts if isinstance(part, Placeholder))

    @property
    def prefix(self) -> str:
        """The literal text before the first place."""
        return self.parts[0] if self.parts and isinstance(self.parts[0], str) else ""

    def fill(self, values: Mapping[str, str], literal: Callable[[str], str] = str) -> str:
        """Put a value in each place; apply `literal` to the texts between them."""
        return "".join(
            values[part.name] if isinstance(part, Placeholder) else literal(part)
            for part in self.parts
        )


def values_of(tool: Tool, arguments: Mapping[str, Json]) -> dict[str, Json]:
    """Return the arguments over the defaults in the tool's schema, without nulls."""
    values = {name: schema.get("default") for name, schema in tool.properties.items()}
    values |= {name: value for name, value in arguments.items() if value is not None}
    return {name: value for name, value in values.items() if value is not None}


def check_places(tool: Tool, names: Iterable[str], where: str, may_be_absent: bool = False) -> None:
    """Refuse a place without a parameter, or one that a call may leave empty."""
    declared, sure = tool.properties, {*tool.parameters.get("required", ()), *values_of(tool, {})}
    for name in names:
        place = f"tool {tool.name!r}: {where} has a place {{{name}}}, but"
        if name not in declared:
            known = f"{nearest(name, declared)}; parameters: {', '.join(declared) or 'none'}"
            text = f"the text itself is written {{{{{name}}}}}"
            raise ConfigError(f"{place} no parameter is named so{known}; {text}")
        if name not in sure and not may_be_absent:
            right = "put it under 'required', or give it a 'default'"
            raise ConfigError(f"{place} a call may leave {name!r} out; {right}")


def texts_of(values: Mapping[str, Json], names: Iterable[str]) -> dict[str, str]:
    """Write the values of these names as texts; `ValueError` names one that cannot be."""
    texts = {}
    for name in names:
        try:
            texts[name] = as_text(values[name])
        except KeyError:
            raise ValueError(f"{name}: a value is needed") from None
        except (ValueError, RecursionError) as error:
            lone = "half a character (a lone surrogate) cannot be passed on"
            wrong = lone if isinstance(error, UnicodeEncodeError) else error
            raise ValueError(f"{name}: {wrong}") from None
    return texts


def as_text(value: Json) -> str:
    """Write a text as it is, other values as JSON; `ValueError` if UTF-8 cannot hold it."""
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    value.encode("utf-8")
    if "\0" in value:
        raise ValueError("a NUL character cannot be passed on")
    return str(value)


@dataclass(frozen=True)
class FromEnvironment:
    """Texts by name with `${NAME}` in them; values of variables are read when used, never kept."""

    texts: Mapping[str, str] = field(default_factory=dict)

    def fill(self, where: str) -> dict[str, str]:
        """Put the values in. `ConfigError` at `where` if a variable is not set."""
        for name, text in self.texts.items():
            for variable in VARIABLE.findall(text):
                if not os.environ.get(variable):
                    wrong = f"the environment variable {variable}, which is not set (or is empty)"
                    raise ConfigError(f"{where} {name!r}, needs {wrong}")
        texts = self.texts.items()
        return {name: VARIABLE.sub(lambda one: os.environ[one[1]], text) for name, text in texts}

    def secrets(self) -> list[str]:
        """The values of the variables."""
        names = [name for text in self.texts.values() for name in VARIABLE.findall(text)]
        return [os.environ.get(name, "") for name in names]


def hide(value: Json, secrets: Iterable[str]) -> Json:
    """Replace every secret in the texts of a value."""
    if isinstance(value, str):
        for secret in sorted(_spellings(secrets), key=len, reverse=True):
            value = value.replace(secret, "[hidden]")
        return value
    if isinstance(value, Mapping):
        return {hide(key, secrets): hide(inner, secrets) for key, inner in value.items()}
    return [hide(inner, secrets) for inner in value] if isinstance(value, list) else value


def hide_in_part(text: str, secrets: Sequence[str]) -> str:
    """Replace secrets in a text that is cut at its end, where the beginning of a secret may be."""
    text = str(hide(text, secrets))
    for secret in _spellings(secrets):
        for length in range(len(secret) - 1, SHORTEST_SECRET - 1, -1):
            if text.endswith(secret[:length]):
                return text[:-length] + "[hidden]"
    return text


def _spellings(secrets: Iterable[str]) -> set[str]:
    """Return the secrets as they are, in JSON, and quoted as in an address."""
    found = set()
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            found |= {secret, quote(secret), quote_plus(secret), quote(secret, safe="")}
            found |= {json.dumps(secret, ensure_ascii=ascii)[1:-1] for ascii in (True, False)}
    return found
