"""The section `world` of an experiment file: what answers the calls of an episode, and how often
it fails."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolhone.config.fields import Section

STATEFUL = ("shop", "files", "calendar")
"""Worlds that generate tasks, which are judged by the final state."""
Kind = Literal["timeout", "error", "rate_limit", "empty", "malformed", "slow", "broken"]


class FailureSection(Section):
    """Failures that the world makes up, for the model to handle; each goes away when the call is
    made again."""

    rate: float = Field(0.0, ge=0, le=1)
    """share of the calls that fail"""
    kinds: list[Kind] = Field(
        default_factory=lambda: list[Kind](["timeout", "error", "rate_limit", "empty", "malformed"])
    )
    """what may happen, equally likely; 'broken' ends the episode, which is then left out"""
    slow_seconds: float = Field(0.5, ge=0, le=60)
    """how long a slow answer takes"""


class WorldSection(Section):
    """What answers the calls of an episode, where a task names no world of its own."""

    name: Literal["live", "replay", "simulated", "shop", "files", "calendar"] | None = None
    """live: the experiment's tools; replay: what each conversation of the data recorded; simulated:
    invented results that fit the tools; shop, files and calendar: small worlds with tasks of their
    own; none: the tools, played to the end only where an answer is expected"""
    unrecorded: Literal["error", "nearest", "simulate"] = "simulate"
    """replay: what a call gets that was not recorded: an error, the result of the nearest recorded
    call of its tool, or an invented one"""
    levels: list[int] | None = None
    """data.strategy 'world': difficulties of the tasks, from 1; none: all"""
    seed: int = Field(0, ge=0)
    """of simulated results and injected failures"""
    failures: FailureSection | None = None
    """none: those that a task names, if any; rate 0 switches these off"""
