"""The section `data.made` of an experiment file: how rows for own tools are made."""

from __future__ import annotations

from pydantic import Field

from toolhone.config.fields import Section


class MadeSection(Section):
    """Rows of `manual_templates`."""

    turns: float | None = Field(None, ge=0, lt=1)
    """how likely each further turn is (a request, a correction, thanks, plain talk); none: 0.4, or
    0 without answers"""
    relations: dict[str, list[str]] = Field(default_factory=dict)
    """relations between parameters, by tool, besides those that names tell: ['start < end',
    'from != to']"""
