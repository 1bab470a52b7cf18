"""Names of Python types, as data sets write them, turned into JSON Schema.

    read_type("str, optional")        ReadType({"type": "string"}, optional=True)
    read_type("List[Union[int, float]]")    ReadType({"type": "array", "items": {"type": "number"}})

Names may have a module in front and any case; `list(str)`, `|`, "or" and, behind a comma,
`optional` or `default ...` are read as well. The text is parsed and never evaluated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolhone.schema import Json
from toolhone.schema.json_schema import map_schema
from toolhone.schema.python_text import parse_python
from toolhone.schema.tool import allows_null

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
_SUFFIX = re.compile(r"\s*[,(]\s*(?:(optional)\s*\)?\s*$|default\b.*$)", re.IGNORECASE | re.DOTALL)
_ROUND = re.compile(r"\s*([A-Za-z_][\w.]*)\s*\((.+)\)\s*", re.DOTALL)


class UnknownType(Exception):  # noqa: N818  (a decision about one row, never shown as an error)
    """The text is not the name of a type that is known here."""


@dataclass(frozen=True)
class ReadType:
    """The schema of a type, and whether a value of it may be left out."""

    schema: dict[str, Json]
    optional: bool = False


def read_type(text: str) -> ReadType:
    """Return the schema of a type; raise `UnknownType` for any other text.

    A value that may be None may be left out as well.
    """
    if text.count("[") > MAX_BRACKETS or text.lstrip().startswith("["):
        raise UnknownType(text)
    optional = re.match(r"\s*(\w+\.)*optional\s*\[", text, re.IGNORECASE) is not None
    while found := _SUFFIX.search(text):
        optional, text = True, text[: found.start()]
    if found := _ROUND.fullmatch(text):
        text = f"{found[1]}[{found[2]}]"
    try:
        schema = _schema(parse_python(text.strip(), "eval").body)
    except (SyntaxError, ValueError, KeyError, RecursionError, MemoryError):
        raise UnknownType(text) from None
    return ReadType(schema, optional or (bool(schema) and allows_null(schema)))


def json_types(schema: Json) -> Json:
    """Return a JSON Schema with the types, at any depth, named as JSON Schema names them."""
    return map_schema(schema, _with_json_type)


def _with_json_type(schema: dict[str, Json]) -> dict[str, Json]:
    given = schema.get("type")
    names: list[Json] = given if isinstance(given, list) else [given]
    if "type" not in schema or all(name in _JSON_TYPES for name in names):
        return schema
    if not all(isinstance(name, str) for name in names):
        raise UnknownType(str(given))
    others = {key: value for key, value in schema.items() if key != "type"}
    return {**_union([read_type(name).schema for name in names]), **others}


def _schema(node: ast.expr) -> dict[str, Json]:
    """Return the schema of a type; raise `ValueError` or `KeyError` for any other expression."""
    match node:
        case ast.BoolOp(op=ast.Or()) | ast.BinOp(op=ast.BitOr()):
            return _union([_schema(member) for member in _alternatives(node)])
        case ast.List(elts=arguments):  # of a Callable
            for argument in arguments:
                _schema(argument)
            return {}
        case ast.Constant(value=None):
            return {"type": "null"}
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            members = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _container(name.lower(), members)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return dict(_NAMES[name.lower()])
    raise ValueError(ast.dump(node))


def _alternatives(node: ast.expr) -> list[ast.expr]:
    """Return the members of `a | b` and `a or b`, in order."""
    match node:
        case ast.BoolOp(op=ast.Or(), values=values):
            return [member for value in values for member in _alternatives(value)]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return [*_alternatives(left), *_alternatives(right)]
    return [node]


def _container(name: str, inner: Sequence[ast.expr]) -> dict[str, Json]:
    """Return the schema of `name[inner]`."""
    if name == "literal":
        values = [ast.literal_eval(node) for node in inner]
        if not all(isinstance(value, str | int | None) for value in values):
            raise ValueError(name)
        return {"enum": values}
    dots = [isinstance(node, ast.Constant) and node.value is ... for node in inner]
    members = [_schema(node) for node, dot in zip(inner, dots, strict=True) if not dot]
    if name in ("union", "optional") and members:
        return _union([*members, {"type": "null"}] if name == "optional" else members)
    schema = dict(_NAMES[name])
    if name in ("callable", "any"):
        return schema
    if name == "tuple" and members and not dots[-1]:
        alike = all(member == members[0] for member in members)
        places: dict[str, Json] = {"items": members[0]} if alike else {"prefixItems": members}
        return {**schema, **places, "minItems": len(members), "maxItems": len(members)}
    if schema.get("type") == "object" and len(members) == 2:
        return {**schema, "additionalProperties": members[1]} if members[1] else schema
    if schema.get("type") != "array" or not members:
        raise ValueError(name)
    items = _union(members)
    return {**schema, "items": items} if items else schema


def _union(members: Sequence[dict[str, Json]]) -> dict[str, Json]:
    """Return one schema for several; join plain types in one list."""
    if any(not member for member in members):
        return {}
    distinct = [member for index, member in enumerate(members) if member not in members[:index]]
    if len(distinct) == 1:
        return distinct[0]
    kinds = [member["type"] if member.keys() == {"type"} else None for member in distinct]
    if not all(isinstance(kind, str) for kind in kinds):
        return {"anyOf": distinct}
    kinds = [kind for kind in kinds if not (kind == "integer" and "number" in kinds)]
    return {"type": kinds[0] if len(kinds) == 1 else kinds}
