"""What the calls of some rows cover of their tools' schemas: each parameter, value and length.

found = coverage_of(conversations, tools)
found["warnings"]                       # "refund_order.notify_customer never occurs (214 calls)"
list(table_of(found))                   # lines for a screen
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolhone.schema import Conversation, Json, Tool
from toolhone.tools.schema_sampler import Schemas

_ENOUGH = 50
"""Calls of a tool from which on something that never varies is worth a warning."""
_WIDTH = 8
"""Values of a parameter that the table names."""


@dataclass
class _Seen:
    """may: objects that could have the property; has: those that do; values: what they hold;
    lengths: of its lists."""

    may: int = 0
    has: int = 0
    required: bool = False
    values: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    choices: tuple[str, ...] = ()
    fixed: bool = False
    fixed_length: bool = False

    def to_dict(self) -> dict[str, Any]:
        few = bool(self.choices) or len(self.values) <= _WIDTH
        shown: dict[str, Any] = {"values": dict(self.values)} if few else {}
        shown |= {"lengths": dict(sorted(self.lengths.items()))} if self.lengths else {}
        return {"may": self.may, "has": self.has, "distinct": len(self.values), **shown}


def coverage_of(conversations: Sequence[Conversation], tools: Sequence[Tool]) -> dict[str, Any]:
    """Return {"tools": {name: {"calls", "parameters": {path: counts}}}, "warnings": [...]}.

    A path has dots for objects and `[]` for items of a list, whose lengths count as its values.
    """
    calls = Counter[str]()
    seen: dict[str, dict[str, _Seen]] = {tool.name: {} for tool in tools}
    schemas = {tool.name: Schemas(tool.parameters) for tool in tools}
    for tool in tools:
        _declare(schemas[tool.name], tool.parameters, "", seen[tool.name])
    for conversation in conversations:
        for message in conversation.messages:
            for call in message.tool_calls:
                if call.name in seen:
                    calls[call.name] += 1
                    own = schemas[call.name]
                    _count(own, own.root, dict(call.arguments), "", seen[call.name])
    warnings = [
        warning for name, found in seen.items() for warning in _warnings(name, calls[name], found)
    ]
    tables = {
        name: {
            "calls": calls[name],
            "parameters": {path: one.to_dict() for path, one in found.items()},
        }
        for name, found in seen.items()
    }
    return {"tools": tables, "warnings": warnings}


def table_of(coverage: Mapping[str, Any]) -> Iterator[str]:
    """Yield the coverage as lines: a tool, then how often each parameter occurs, and its values."""
    for name, tool in coverage["tools"].items():
        yield f"{name}: {tool['calls']} calls"
        for path, one in tool["parameters"].items():
            share = f"{one['has'] / one['may']:4.0%}" if one["may"] else "   -"
            values = one.get("values")
            held = f"{one['distinct']} values"
            if values:
                total = sum(values.values())
                parts = [f"{value} {count / total:.0%}" for value, count in values.items()]
                held = ", ".join(parts[:_WIDTH])
            elif not one["distinct"] and "lengths" not in one:
                held = "an object"
            if lengths := one.get("lengths"):
                held += f"; lengths {', '.join(map(str, lengths))}"
            yield f"  {path:28} {share}  {held}"
    for warning in coverage["warnings"]:
        yield f"warning: {warning}"


def _declare(
    schemas: Schemas, schema: Json, prefix: str, seen: dict[str, _Seen], depth: int = 0
) -> None:
    """Enter every property that the schema names."""
    for way in schemas.alternatives(schema):
        for name in way.get("properties") or () if depth < 6 else ():
            path, inner = f"{prefix}{name}", schemas.property(way, name)
            one = seen.setdefault(path, _Seen())
            one.required |= name in (way.get("required") or ())
            for plain in schemas.alternatives(inner):
                items = plain.get("items")
                choices = (items if isinstance(items, Mapping) else plain).get("enum") or ()
                choices = [True, False] if plain.get("type") == "boolean" else choices
                one.choices += tuple(_text(value) for value in choices if value is not None)
                one.fixed |= "const" in plain
                if plain.get("type") == "array":
                    most = plain.get("maxItems")
                    one.fixed_length |= most is not None and most == plain.get("minItems", 1)
                    _declare(schemas, items, f"{path}[].", seen, depth + 1)
            _declare(schemas, inner, f"{path}.", seen, depth + 1)


def _count(
    schemas: Schemas, schema: Json, value: Json, prefix: str, seen: dict[str, _Seen]
) -> None:
    """Count what an object holds."""
    plain = schemas.fitting(schema, value)
    for name in plain.get("properties") or ():
        path, inner = f"{prefix}{name}", schemas.property(plain, name)
        one = seen.setdefault(path, _Seen())
        one.may += 1
        if name not in value:
            continue
        one.has += 1
        held = value[name]
        if isinstance(held, Mapping):
            _count(schemas, inner, held, f"{path}.", seen)
        elif isinstance(held, list):
            items = schemas.fitting(inner, held).get("items")
            objects = [item for item in held if isinstance(item, Mapping)]
            for item in objects:
                _count(schemas, items, item, f"{path}[].", seen)
            one.lengths[len(held)] += 1
            one.values.update(_text(item) for item in held if not isinstance(item, Mapping | list))
        else:
            one.values[_text(held)] += 1


def _warnings(name: str, calls: int, seen: Mapping[str, _Seen]) -> Iterator[str]:
    if not calls:
        yield f"{name} is never called"
        return
    for path, one in seen.items():
        place = f"{name}.{path}"
        if not one.has:
            if one.may >= _ENOUGH:
                yield f"{place} never occurs ({one.may} calls could have it)"
        elif one.has >= _ENOUGH:
            missing = [choice for choice in one.choices if choice not in one.values]
            if missing:
                yield f"{place} is never {' or '.join(missing)}"
            elif len(one.values) == 1 and len(one.choices) != 1 and not one.fixed:
                yield f"{place} is always {next(iter(one.values))}"
            if len(one.lengths) == 1 and not one.fixed_length:
                yield f"{place} always has {next(iter(one.lengths))} items"
            if one.has == one.may and not one.required and one.may >= _ENOUGH:
                yield f"{place} is optional, but never left out"


def _text(value: Json) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
