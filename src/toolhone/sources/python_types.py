"""Names of Python types, as data sets write them, turned into JSON Schema.

    read_type("List[int]")            ReadType({"type": "array", "items": {"type": "integer"}})
    read_type("str, optional")        ReadType({"type": "string"}, optional=True)
    read_type("Union[int, float]")    ReadType({"type": "number"}, optional=False)

Read are `int`, `float`, `str`, `bool`, `list`, `dict`, `tuple`, `set`, `Any`, `None`, `Callable` (a
text) and their relatives (`np.ndarray`, `datetime`), with or without a module before the name and
in any case of letters; the names of JSON Schema's types; parameters in brackets (also round ones:
`list(str)`); `Union`, `Optional`, `Literal`, `|` and "or"; and behind a comma `optional` or
`default ...`. A value that may be None may be left out, too: that is what such descriptions mean.
Anything else is an `UnknownType`. Nothing is evaluated.

`json_types(schema)` does the same for the types inside a JSON Schema that is one but for the names
of its types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolhone.schema import Json

MAX_BRACKETS = 40
"""Brackets in one name, at most."""

_FAMILIES: Mapping[str, Mapping[str, Json]] = {
    "str string bytes char date datetime time callable function": {"type": "string"},
    "int integer long": {"type": "integer"},
    "float number double decimal": {"type": "number"},
    "bool boolean": {"type": "boolean"},
    "none null nonetype": {"type": "null"},
    "list arraylist tuple sequence iterable array ndarray": {"type": "array"},
    "set frozenset": {"type": "array", "uniqueItems": True},
    "dict mapping map hashmap object": {"type": "object"},
    "any": {},
}
_NAMES = {name: schema for family, schema in _FAMILIES.items() for name in family.split()}
_JSON_TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")
_SCHEMA = ("items", "additionalProperties", "not")
_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SUFFIX = re.compile(r"\s*[,(]\s*(?:(optional)\s*\)?\s*$|default\b.*$)", re.IGNORECASE | re.DOTALL)
_ROUND = re.compile(r"\s*([A-Za-z_][\w.]*)\s*\((.+)\)\s*", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:([A-Za-z_][\w.]*|\.\.\.|-?\d+(?:\.\d+)?)|('[^']*'|"[^"]*")|([\[\],|]))"""
)


class UnknownType(Exception):  # noqa: N818  (a decision about one row, never shown as an error)
    """The text is not the name of a type that is known here."""


@dataclass(frozen=True)
class ReadType:
    """The schema of a type, and whether a value of it may be left out."""

    schema: dict[str, Json]
    optional: bool = False


def read_type(text: str) -> ReadType:
    """The schema that the name of a type stands for."""
    if text.count("[") > MAX_BRACKETS or text.lstrip().startswith("["):
        raise UnknownType(text)
    optional = re.match(r"\s*(\w+\.)*optional\s*\[", text, re.IGNORECASE) is not None
    while found := _SUFFIX.search(text):
        optional, text = True, text[: found.start()]
    if found := _ROUND.fullmatch(text):
        text = f"{found[1]}[{found[2]}]"
    reader = _Reader(text)
    schema = reader.union()
    if reader.position < len(reader.tokens):
        raise UnknownType(text)
    return ReadType(schema, optional or (bool(schema) and may_be_null(schema)))


def may_be_null(schema: Json) -> bool:
    """Whether null is a value of this schema (only `type`, `enum` and `anyOf` are looked at)."""
    if not isinstance(schema, Mapping):
        return False
    if isinstance(schema.get("anyOf"), list):
        return any(map(may_be_null, schema["anyOf"]))
    if isinstance(schema.get("enum"), list):
        return None in schema["enum"]
    kind = schema.get("type")
    return kind is None or kind == "null" or (isinstance(kind, list) and "null" in kind)


def json_types(schema: Json) -> Json:
    """The same schema with the types, at any depth, named as JSON Schema names them; itself where
    they are already."""
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Json] = {}
    for key, value in schema.items():
        if key in _OF_SCHEMAS and isinstance(value, Mapping):
            made[key] = {name: json_types(inner) for name, inner in value.items()}
        elif key in _SCHEMA:
            made[key] = json_types(value)
        elif key in _SCHEMAS and isinstance(value, list):
            made[key] = [json_types(inner) for inner in value]
        elif key != "type" or _known_type(value):
            made[key] = value
        else:
            made = {**_named_type(value), **made}
    return schema if made == schema else made


def _known_type(value: Json) -> bool:
    return (
        value in _JSON_TYPES
        if isinstance(value, str)
        else isinstance(value, list) and all(map(_known_type, value))
    )


def _named_type(value: Json) -> dict[str, Json]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) for name in names):
        raise UnknownType(str(value))
    return _union([read_type(name).schema for name in names])


class _Reader:
    """A position among the tokens of a name, and what can be read there."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0
        self.tokens = _tokens(text)

    def union(self) -> dict[str, Json]:
        members = [self.term()]
        while self._take("|") or self._take("or"):
            members.append(self.term())
        return _union(members)

    def term(self) -> dict[str, Json]:
        if self._take("["):  # the arguments of a Callable
            self._arguments()
            return {}
        name = self._next().lower().rpartition(".")[2]
        if name == "literal":
            return {"enum": self._values()}
        given = self._arguments() if self._take("[") else None
        ends_openly = given is not None and self.tokens[self.position - 2] == "..."
        if name in ("union", "optional") and given:
            return _union([*given, {"type": "null"}] if name == "optional" else given)
        if name not in _NAMES:
            raise UnknownType(self.text)
        schema = dict(_NAMES[name])
        if name == "tuple" and given and not ends_openly:
            return _tuple(given)
        return schema if given is None else _of(schema, given, name, self.text)

    def _arguments(self) -> list[dict[str, Json]]:
        """Types up to the closing bracket; `...` is left out."""
        given = []
        while not self._take("]"):
            given += [] if self._take("...") else [self.union()]
            if not self._take(","):
                self._expect("]")
                break
        return given

    def _values(self) -> list[Json]:
        """The values of a Literal."""
        values: list[Json] = []
        self._expect("[")
        while not self._take("]"):
            values.append(_value(self._next(), self.text))
            if not self._take(","):
                self._expect("]")
                break
        return values

    def _next(self) -> str:
        if self.position >= len(self.tokens) or self.tokens[self.position] in "[],|":
            raise UnknownType(self.text)
        self.position += 1
        return self.tokens[self.position - 1]

    def _take(self, token: str) -> bool:
        if self.position < len(self.tokens) and self.tokens[self.position] == token:
            self.position += 1
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise UnknownType(self.text)


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise UnknownType(text)
        tokens.append(found[1] or found[2] or found[3])
        position = found.end()
    return tokens


def _value(token: str, text: str) -> Json:
    if token[0] in "'\"":
        return token[1:-1]
    if re.fullmatch(r"-?\d+", token):
        return int(token)
    named: Mapping[str, Json] = {"True": True, "False": False, "None": None}
    if token not in named:
        raise UnknownType(text)
    return named[token]


def _of(
    schema: dict[str, Json], given: Sequence[dict[str, Json]], name: str, text: str
) -> dict[str, Json]:
    """A container of any size with the types of what it holds."""
    if name in ("callable", "any"):
        return schema
    if schema.get("type") == "object" and len(given) == 2:
        return {**schema, "additionalProperties": given[1]} if given[1] else schema
    if schema.get("type") != "array" or not given:
        raise UnknownType(text)
    items = _union(given)
    return {**schema, "items": items} if items else schema


def _tuple(given: Sequence[dict[str, Json]]) -> dict[str, Json]:
    """A list with one type for each place."""
    alike = all(member == given[0] for member in given)
    places: dict[str, Json] = {"items": given[0]} if alike else {"prefixItems": list(given)}
    return {"type": "array", **places, "minItems": len(given), "maxItems": len(given)}


def _union(members: Sequence[dict[str, Json]]) -> dict[str, Json]:
    """One schema for several; plain types are joined in one list."""
    if any(not member for member in members):
        return {}
    distinct = [member for index, member in enumerate(members) if member not in members[:index]]
    if len(distinct) == 1:
        return distinct[0]
    if not all(
        member.keys() == {"type"} and isinstance(member["type"], str) for member in distinct
    ):
        return {"anyOf": distinct}
    kinds = [member["type"] for member in distinct]
    kinds = [kind for kind in kinds if not (kind == "integer" and "number" in kinds)]
    return {"type": kinds[0] if len(kinds) == 1 else kinds}
