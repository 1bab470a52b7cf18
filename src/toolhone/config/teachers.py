"""The sections of teachers: `teacher`, rounds in which a model teaches itself; `data.teacher`, a
stronger model that writes the data; `training.distill` and `training.bake`, a local teacher."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field, field_validator, model_validator

from toolhone.config.fields import AnchoredPath, Section, UserCode

METHOD = "teacher_mode"
SHORT_NAME = "teacher"
"""What `teacher_mode` is also called, as a method and as a strategy of the data."""
CATEGORIES = (
    *("single", "parallel", "multi_turn", "no_call", "missing_information", "error_recovery"),
)
"""What a stronger model is asked to write."""


class ToolDetail(StrEnum):
    """How much of a tool the prompt shows."""

    FULL = "full"
    NAMES = "names"
    NONE = "none"


def full_name(value: object) -> object:
    """Return `teacher_mode` for its short name; other values unchanged."""
    return METHOD if value == SHORT_NAME else value


class TeacherSection(Section):
    """training.method teacher_mode: rounds in which the model writes what it learns next."""

    source: Literal["self", "text"] = "self"
    """self: its own best episodes of the tasks (best of n by reward); text: calls that it puts into
    the plain texts of data.path, after Toolformer"""
    rounds: int = Field(3, gt=0)
    """how often new rows are written, each time by the policy of that moment"""
    warmup: float = Field(0.0, ge=0, lt=1)
    """share of the steps, before the first round, on the data as it is: labelled conversations, or
    texts without calls"""
    tasks: int | None = Field(None, gt=0)
    """tasks (or texts) of a round; none: all"""
    min_reward: float = 1.0
    """self: least reward of an episode that is kept"""
    keep: int = Field(4, gt=0)
    """self: most episodes of one task that are kept, each with another answer"""
    candidates: UserCode = "model"
    """text: where calls come from: model (samples them after a few examples), numbers (calculator:
    two numbers of the text before each number), or 'file.py:function'"""
    examples: list[str] = Field(default_factory=list)
    """text: texts with calls, such as '3 boxes of 4 pens are [calculator(3*4)] 12 pens', that a
    model is shown; none: examples of the calculator"""
    positions: int = Field(5, gt=0)
    """text: most places of a text where calls are sampled"""
    calls: int = Field(5, gt=0)
    """text: calls sampled at a place"""
    min_probability: float = Field(0.05, ge=0, le=1)
    """text: least probability that the model begins a call at a place"""
    min_drop: float = 1.0
    """text: how much the result of a call must lower the weighted loss of what follows, in nats"""


class TeacherModelSection(Section):
    """data.strategy teacher_mode: a model behind an OpenAI-compatible address writes the rows."""

    base_url: str | None = None
    """such as https://api.openai.com/v1; none: rows from the tools' schemas, whose calls are run"""
    model: str = "default"
    """name of the model in requests"""
    key_env: str = "OPENAI_API_KEY"
    """name of the environment variable with the key; the key itself is never written"""
    categories: dict[str, float] = Field(default_factory=lambda: dict.fromkeys(CATEGORIES, 1.0))
    """shares of what is written: single, parallel, multi_turn, no_call, missing_information,
    error_recovery"""
    replies: AnchoredPath = "teacher_replies.jsonl"
    """file of every paid reply; a later run reads it and asks only for the rest"""
    temperature: float = Field(0.9, ge=0)
    max_reply_tokens: int = Field(1024, gt=0)
    """tokens of one reply"""
    max_requests: int | None = Field(None, gt=0)
    """budget in requests, those of earlier runs included; none: four for each row"""
    max_tokens: int | None = Field(None, gt=0)
    """budget in tokens of prompts and replies, those of earlier runs included"""
    price_in: float = Field(0.0, ge=0)
    """price of a million prompt tokens"""
    price_out: float = Field(0.0, ge=0)
    """price of a million reply tokens"""
    timeout: float = Field(60.0, gt=0)
    """seconds that one request may take"""
    retries: int = Field(3, ge=0)
    """more tries of a request that failed on the way"""

    @field_validator("categories")
    @classmethod
    def _known_categories(cls, value: dict[str, float]) -> dict[str, float]:
        if unknown := [name for name in value if name not in CATEGORIES]:
            raise ValueError(f"has {unknown[0]!r}; known: {', '.join(CATEGORIES)}")
        if min(value.values(), default=0) < 0 or not any(value.values()):
            raise ValueError("needs a share above 0, and none below")
        return value


class DistillSection(Section):
    """training.method distill: a teacher that is here judges every token of the model's own
    replies, and shows its own."""

    teacher: AnchoredPath | None = None
    """a run, a checkpoint or a model folder with the same tokenizer; none: the model itself as it
    is at the start"""
    prompt: str | None = None
    """system text that the teacher alone reads, before that of the task"""
    answers: float = Field(1.0, ge=0)
    """weight of the loss on the teacher's own replies to the tasks, beside that on the model's
    samples; 0: the samples alone"""
    samples: float = Field(1.0, ge=0)
    """weight of the loss on the model's samples; 0: the teacher's replies alone"""

    @model_validator(mode="after")
    def _learns(self) -> DistillSection:
        if not self.answers and not self.samples:
            raise ValueError("answers and samples are both 0, so that nothing is learned")
        return self


class BakeSection(Section):
    """training.method distill: the prompt shows less and less of the experiment's tools, while the
    teacher reads all of them."""

    schedule: dict[ToolDetail, float] = Field(
        default_factory=lambda: {ToolDetail.FULL: 0.1, ToolDetail.NAMES: 0.3, ToolDetail.NONE: 0.6}
    )
    """what the prompt shows, in this order, and for which share of the steps"""
    keep: float = Field(0.2, ge=0, lt=1)
    """share of the tasks of each step whose prompt shows everything to the end"""

    @field_validator("schedule")
    @classmethod
    def _has_shares(cls, value: dict[ToolDetail, float]) -> dict[ToolDetail, float]:
        if min(value.values(), default=0) < 0 or not any(value.values()):
            raise ValueError("needs a share above 0, and none below")
        return value

    @property
    def goal(self) -> ToolDetail:
        """What the prompt shows in the end."""
        return [detail for detail, share in self.schedule.items() if share][-1]

    def detail(self, done: float) -> ToolDetail:
        """What the prompt shows when this share of the steps is done."""
        end, total = 0.0, sum(self.schedule.values())
        for detail, share in self.schedule.items():
            end += share / total
            if done < end:
                return detail
        return self.goal
