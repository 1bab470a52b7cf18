"""The sections `teacher`, `data.teacher` and `data.made` (who writes data), `training.distill` and
`training.bake` (a local teacher), `evaluation` and `tracking` of an experiment file.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from toolhone.config.fields import AnchoredPath, Flag, Mark, Section, UserCode

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
    response_format: Literal["text", "json_schema"] = "text"
    """json_schema: each request carries a JSON Schema of the conversation that is wanted, which
    servers such as llama.cpp and vLLM hold the reply to; small models need it"""
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

    teacher: Annotated[str, Mark.FOLDER_OR_NAME] | None = None
    """a run, a checkpoint, a model folder or a model's name, with the same tokenizer; none: the
    model itself as it is at the start"""
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


class TensorboardSection(Section):
    """TensorBoard event files."""

    enabled: bool = True
    log_dir: AnchoredPath | None = None
    """none: the folder `tensorboard` in the run"""


class WandbSection(Section):
    """Weights & Biases."""

    enabled: bool = True
    project: Annotated[str, Flag("--wandb-project", "--wandb")] = "toolhone"
    """log to this project of Weights & Biases"""
    run_name: str | None = None
    """none: the name of the run folder"""
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"
    """offline: a folder in the run, to be synchronised later"""


class TrackioSection(Section):
    """trackio, on this machine."""

    enabled: bool = True
    project: str = "toolhone"
    run_name: str | None = None
    """none: the name of the run folder"""


class TrackingSection(Section):
    """What is shown while training runs; the run folder always has everything."""

    progress: Literal["auto", "rich", "plain", "off"] = "auto"
    """auto: a live display on a terminal, plain lines elsewhere"""
    samples: int = Field(3, ge=0)
    """sample predictions to print after an evaluation"""
    tensorboard: TensorboardSection | None = None
    wandb: WandbSection | None = None
    trackio: TrackioSection | None = None

    @property
    def services(self) -> list[str]:
        """The names of the enabled services; cheap and local ones first."""
        parts = {name: getattr(self, name) for name in ("tensorboard", "wandb", "trackio")}
        return [name for name, part in parts.items() if part is not None and part.enabled]


class MadeSection(Section):
    """Rows of `manual_templates`."""

    turns: float | None = Field(None, ge=0, lt=1)
    """how likely each further turn is (a request, a correction, thanks, plain talk); none: 0.4, or
    0 without answers"""
    relations: dict[str, list[str]] = Field(default_factory=dict)
    """relations between parameters, by tool, besides those that names tell: ['start < end',
    'from != to']"""
