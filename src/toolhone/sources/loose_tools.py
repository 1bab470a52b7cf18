"""Of the formats that are not converted yet: the old names of `tool_specs`."""

from __future__ import annotations

from enum import StrEnum

from toolhone.sources import tool_specs
from toolhone.sources.offered import OfferedTools


class Repair(StrEnum):
    ARGUMENTS = tool_specs.ARGUMENTS
    NULL_DEFAULT = tool_specs.NULL_DEFAULT
    NO_TYPE = tool_specs.NO_TYPE
    REQUIRED = tool_specs.MARKS
    CHOICES = tool_specs.CHOICES
    PATTERN = tool_specs.PATTERN


class LooseTools(OfferedTools):
    loose = True
