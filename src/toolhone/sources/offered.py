"""Of the formats that are not converted yet: the old names of `tool_specs`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

from toolhone.schema import Json, Tool
from toolhone.sources import tool_specs
from toolhone.sources.base import Context, refuse_faults, refuse_misfits
from toolhone.sources.files import FileLine
from toolhone.sources.tool_specs import convert_type as typed
from toolhone.sources.tool_specs import decode_text as from_text
from toolhone.sources.tool_specs import fit_call as fitted
from toolhone.sources.tool_specs import without_nulls

__all__ = ["fitted", "from_text", "refuse_faults", "refuse_misfits", "typed", "without_nulls"]


class Reason(StrEnum):
    BAD_TOOLS = tool_specs.BAD_TOOLS
    BAD_ANSWER = tool_specs.BAD_ANSWER


class Repair(StrEnum):
    NULLS = tool_specs.NULLS
    DEFAULT = tool_specs.DEFAULT
    TYPES = tool_specs.TYPES
    REQUIRED = tool_specs.REQUIRED
    TWICE = tool_specs.TWICE
    TYPED = tool_specs.TYPED


class OfferedTools:
    loose = False

    def __init__(self) -> None:
        self.cache: dict[str, Any] = {}

    def read(self, value: Json) -> tuple[tuple[Tool, ...], set[Any]]:
        context = Context("", Path(), {}, FileLine(Path(), 0), tools=self.cache)
        return tool_specs.read_tools(value, context, self.loose), context.repairs
