"""The section `evaluation` of an experiment file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from toolhone.config.fields import AnchoredPath, Section, UserCode
from toolhone.config.teachers import ToolDetail


class EvaluationSection(Section):
    """How replies are generated and scored, in validation and in `toolhone eval`."""

    tasks: AnchoredPath | None = None
    """task file; none: tasks from the held-out conversations"""
    metrics: list[UserCode] | None = None
    """scores to show, and your own metrics: 'file.py:function'; everything is measured in any
    case"""
    num_samples: int = Field(200, gt=0)
    """evaluate at most this many tasks at the end of training"""
    max_new_tokens: int = Field(256, gt=0)
    max_turns: int = Field(4, gt=0)
    """most assistant turns until a final answer"""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy"""
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    """sample from the k most probable tokens; 0 is off"""
    tools_in_prompt: ToolDetail | None = None
    """of the tools of the experiment (others are shown in full): full, names, none; none given: the
    last of training.bake, else full"""
    constrained: bool = False
    """sample only calls that the tool's schema allows (needs the extra 'grammar')"""
    at_end: bool = True
    """evaluate when training ends"""
    baseline: bool = True
    """with at_end: evaluate the base on the same tasks before training (cached by model, format and
    tasks), and say at the end what changed"""
    baseline_examples: int = Field(0, ge=0)
    """few-shot: show the base so many training conversations before each task"""
    baseline_constrained: bool = False
    """let the base sample only calls that the schema allows (needs the extra 'grammar')"""
    guard: Literal["off", "best", "stop"] = "off"
    """best: only a checkpoint whose validation lost nothing against the base can be the best one,
    and it is the final one where the last validation did; stop: also end training there"""

    @model_validator(mode="after")
    def _needs_the_baseline(self) -> EvaluationSection:
        named = {
            "guard": self.guard != "off",
            "baseline_examples": self.baseline_examples > 0,
            "baseline_constrained": self.baseline_constrained,
        }
        without = not (self.baseline and self.at_end)
        if without and (wanted := [name for name, given in named.items() if given]):
            raise ValueError(
                f"evaluation.{wanted[0]} needs the evaluation of the base; leave "
                "evaluation.baseline and evaluation.at_end on"
            )
        return self
