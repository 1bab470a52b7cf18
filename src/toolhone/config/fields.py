"""What the sections of an experiment file share: their base class, and marks on the types of their
fields.

path: AnchoredPath | None                                # relative to the file that names it
steps: Annotated[int, Flag("--iters")]                   # a flag of `toolhone train`
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.fields import FieldInfo


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_no_truth_values(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field is not None:
                kinds = {field.annotation, *typing.get_args(field.annotation)}
                if kinds & {int, float} and bool not in kinds:
                    raise ValueError(f"{name!r} must be a number, not {str(value).lower()}")
        return values


class Mark(Enum):
    """What a text means, so that it can be anchored: made absolute, relative to the file that holds
    it."""

    PATH = auto()
    FOLDER_OR_NAME = auto()
    """A name, unless such a folder is beside the file."""
    CODE = auto()
    """May name the user's own code: `file.py:function`."""
    TOOL = auto()
    """An object with code in `implementation` and `function`, and a path in `cwd`."""


@dataclass(frozen=True)
class Flag:
    """The flag of `toolhone train` that sets the field."""

    name: str
    other: str = ""


AnchoredPath = Annotated[str, Mark.PATH]
UserCode = Annotated[str, Mark.CODE]
SHORT = {"schedule": "shape", "optimizer": "name", "recipe": "name"}
"""Sections that may be one text, by the field that it is the value of."""


def spell_out(key: str, value: Any) -> Any:
    """Return the section that a text stands for; other values unchanged."""
    return {SHORT[key]: value} if key in SHORT and isinstance(value, str) else value


def text_for(key: str) -> BeforeValidator:
    """Let a section of `SHORT` be one text."""
    return BeforeValidator(lambda value: spell_out(key, value))


@cache
def field_types(section: type[BaseModel]) -> dict[str, Any]:
    """Return the types of a section's fields, with their marks."""
    hints = typing.get_type_hints(section, include_extras=True)
    return {name: hints[name] for name in section.model_fields}


def section_in(kind: Any) -> type[BaseModel] | None:
    """Return the section that a type is or contains."""
    for candidate in (kind, *typing.get_args(kind)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
        if candidate is not kind and (found := section_in(candidate)):
            return found
    return None


def walk_fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, FieldInfo]]:
    """Yield the dotted key, the type and the field of everything below a section, except in lists
    of sections."""
    for name, kind in field_types(section).items():
        field = section.model_fields[name]
        yield prefix + name, kind, field
        below = section_in(kind)
        if below and typing.get_origin(field.annotation) is not list:
            yield from walk_fields(below, f"{prefix}{name}.")


def marks_of(kind: Any) -> tuple[Any, ...]:
    """Return the marks at the top of a type."""
    return typing.get_args(kind)[1:] if typing.get_origin(kind) is Annotated else ()


def map_marked(
    value: Any,
    kind: Any,
    change: Callable[[str, Mark, Any], Any],
    key: str = "",
    fixed: bool = False,
) -> Any:
    """Return plain values with `change(key, mark, value)` in place of everything whose type has a
    `Mark`.

    What does not fit its type stays as it is. `fixed`: the key stays; all that a list holds has the
    key of the list."""
    if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, dict):
        kinds, result = field_types(kind), {}
        for name, inner in value.items():
            below = key if fixed else f"{key}.{name}".strip(".")
            result[name] = map_marked(inner, kinds.get(name), change, below, fixed)
        return result
    for mark in marks_of(kind):
        if isinstance(mark, Mark) and isinstance(value, dict if mark is Mark.TOOL else str):
            return change(key, mark, value)
    inner_kinds = typing.get_args(kind)[: 1 if marks_of(kind) else None]
    if typing.get_origin(kind) is list:
        if not isinstance(value, list):
            return value
        return [map_marked(inner, inner_kinds[0], change, key, fixed=True) for inner in value]
    for inner_kind in inner_kinds:
        value = map_marked(value, inner_kind, change, key, fixed)
    return value
