"""The sections of an experiment file: what may be asked for, with defaults that are right for a beginner.

Plain frozen models; every number that a training uses is named here once. Reading files, overrides, the keys of other systems and
the wording of mistakes are the business of `config`; what a section asks for is done by the room that it speaks of. `training.rl`
describes reinforcement learning (and DPO); with `training.method: sft` it has no effect.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from toolhone.config.rl import RlSection, Section
from toolhone.config.user_code import is_user_code
from toolhone.errors import nearest

METHODS = ("sft", "dpo", "ppo", "grpo", "teacher_mode")


class ModelSection(Section):
    """Which model, in which precision, writing calls in which dialect."""

    backend: Literal["torch", "toy", "mlx", "tinker"] = Field(
        "torch",
        description="what runs the model: torch, or toy (a tiny table model for trying things out)",
    )
    name: str = Field(
        "pico", description="'pico' (embedded, no network), a model folder, or a name on the hub"
    )
    adapter: str | None = Field(None, description="start from this run, checkpoint or PEFT folder")
    model_class: str | None = Field(
        None,
        description="a loader of your own, 'file.py:function': called as f(model.name, dtype), gives a transformers causal model",
    )
    torch_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="precision of arithmetic; weights that learn are float32"
    )
    device_map: str | dict[str, Any] = Field(
        "auto", description="'auto', a device such as 'cpu' or 'cuda:1', or a map for accelerate"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    dialect: str = Field(
        "auto",
        description="how calls are written: auto (the model's own way), json, calls or tagged",
    )
    markup: str = Field(
        "auto",
        description="the chat markup around json, calls, tagged: auto, template, chatml or plain",
    )
    history: Literal["template", "kept"] = Field(
        "template",
        description="where a chat template rewrites earlier turns: 'template' lets it, as when the model is served (one row for "
        "each turn); 'kept' leaves them as they were said (one row)",
    )
    template_switches: dict[str, Any] | None = Field(
        None,
        description="keywords for the chat template, such as {'enable_thinking': false}; none: what its proof finds",
    )
    micro_batch_tokens: int = Field(
        8192, gt=0, description="padded tokens in one forward pass; lower it when memory runs out"
    )


class DataSection(Section):
    """What to train on, and what to hold out."""

    strategy: (
        Literal["file", "templates", "manual_templates", "toolbench", "teacher_mode"] | None
    ) = Field(
        None,
        description="where rows come from; none: file where data.path is given, else templates (the built-in tools)",
    )
    path: str | None = Field(
        None, description="training file; none: conversations are made from templates"
    )
    format: str = Field(
        "auto",
        description="auto, the name of a format, or a reader of your own: 'file.py:function'",
    )
    samples: int = Field(
        4000, gt=0, description="how many conversations to make when there is no file"
    )
    max_samples: int | None = Field(
        None, gt=0, description="use (or make) at most this many conversations"
    )
    examples: str | list[dict[str, Any]] | None = Field(
        None,
        description="manual_templates: canonical examples, {query, calls} each: a file, or the rows themselves",
    )
    answered: float = Field(
        0.0,
        ge=0,
        le=1,
        description="manual_templates: share of calling rows whose tools are run, for a result and an answer",
    )
    generation_type: Literal["real", "synthetic"] | None = Field(
        None,
        description="toolbench: files at data.path (real), or rows made for the tools of the experiment (synthetic)",
    )
    validation: str | None = Field(
        None,
        description="validation file in the same format; none: a part of the training file is held out",
    )
    validation_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the rows that is held out; none: 0.1, and of templates a number of rows besides",
    )
    split: Literal["hash", "tools"] = Field(
        "hash", description="hold out by hash, or so that no held-out tool is ever trained on"
    )
    style: Literal["calls", "short"] | None = Field(
        None, description="gsm8k: keep the text beside a call (calls), or drop it (short)"
    )
    distractors: int | None = Field(
        None, ge=0, description="seal_tools: how many other tools to offer [4]"
    )
    raw_prompt: bool | None = Field(
        None, description="prompt_rows: use the prompt as one text, unchanged [false]"
    )
    preferences: Literal["file", "corruptions", "own_samples", "own_ranked"] | None = Field(
        None,
        description="DPO: pairs of data.path; gold against typed mistakes, or against the model's own wrong samples; or its own "
        "right samples against its wrong ones; none: file or corruptions",
    )
    pairs: int = Field(1, gt=0, description="DPO: most pairs made for one turn of the assistant")
    too_long: Literal["drop", "error"] = Field(
        "drop", description="rows longer than training.max_length: drop and count, or stop"
    )

    @property
    def held_out_share(self) -> float:
        """The share of rows that is held out, with the default filled in."""
        return self.validation_fraction or 0.1

    @property
    def chosen_strategy(self) -> str:
        """The strategy, with the default filled in."""
        return self.strategy or (
            "templates" if self.path is None and not is_user_code(self.format) else "file"
        )

    @model_validator(mode="after")
    def _agree(self) -> DataSection:
        strategy = self.chosen_strategy
        reads = strategy == "file" or (strategy == "toolbench" and self.path is not None)
        if strategy == "file" and self.path is None and not is_user_code(self.format):
            raise ValueError("data.strategy 'file' needs data.path")
        if self.path is not None and not reads:
            raise ValueError(
                f"data.path names a file, but data.strategy {strategy!r} reads none; use strategy 'file', or leave path out"
            )
        if not reads and (self.validation or self.format != "auto"):
            raise ValueError(
                "data.validation and data.format speak of a file, but there is no data.path"
            )
        asked = [
            name
            for name in ("style", "distractors", "raw_prompt")
            if getattr(self, name) is not None
        ]
        asked += ["split"] if self.split != "hash" else []
        if not reads and asked:
            raise ValueError(
                f"data.{asked[0]} speaks of a file, but data.strategy {strategy!r} makes its rows"
            )
        if reads and (self.examples is not None or self.answered):
            raise ValueError(
                "data.examples and data.answered are for rows that are made, but data.path or data.format names rows to read"
            )
        if self.examples is not None and strategy not in ("manual_templates", "toolbench"):
            raise ValueError(
                f"data.examples belong to strategy 'manual_templates', but data.strategy is {strategy!r}"
            )
        if self.answered and strategy not in ("manual_templates", "toolbench"):
            raise ValueError(
                f"data.answered belongs to strategy 'manual_templates', but data.strategy is {strategy!r}"
            )
        if self.preferences == "file" and self.path is None:
            raise ValueError(
                "data.preferences 'file' needs data.path; to make pairs: 'corruptions', 'own_samples', 'own_ranked'"
            )
        if self.generation_type == "real" and self.path is None:
            raise ValueError(
                "data.generation_type 'real' needs data.path (a file or folder); 'synthetic' makes rows"
            )
        if self.generation_type == "synthetic" and self.path is not None:
            raise ValueError(
                "data.generation_type 'synthetic' makes rows, but data.path names a file; leave one of them out"
            )
        return self


class LoraSection(Section):
    """Low-rank adapters; `training.lora: null` trains every weight."""

    rank: int = Field(16, gt=0)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    last_layers: int = Field(0, ge=0, description="only the last N decoder layers; 0 means all")
    target_modules: list[str] = Field(
        default_factory=list, description="names of linear layers; empty means all but the head"
    )


class MuonSection(Section):
    """Numbers of Muon, used on matrices when `training.optimizer` is muon."""

    learning_rate: float = Field(0.02, gt=0)
    momentum: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.05, ge=0)


class ScheduleSection(Section):
    """The course of the learning rate: warm-up, then constant until the last `decay_share` of the steps, then down to 0."""

    shape: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="form of the decay"
    )
    warmup_steps: int = Field(10, ge=0)
    decay_share: float = Field(
        1.0, ge=0, le=1, description="share of the steps after warm-up in which the rate falls"
    )


def _shape_alone(value: Any) -> Any:
    return {"shape": value} if isinstance(value, str) else value


class TrainingSection(Section):
    """How to train. Intervals are in optimiser steps; 0 switches one off."""

    method: str = Field(
        "sft", description=f"{', '.join(METHODS)}, or an algorithm of your own: 'file.py:function'"
    )
    steps: int | None = Field(
        None, gt=0, description="optimiser steps; none: as many as `epochs` need"
    )
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(8, gt=0, description="conversations in a batch")
    gradient_accumulation_steps: int = Field(1, gt=0, description="batches in an optimiser step")
    learning_rate: float | None = Field(
        None, gt=0, description="none: 2e-4 with LoRA, 2e-5 without; DPO: a tenth"
    )
    optimizer: Literal["adamw", "muon"] = "adamw"
    muon: MuonSection = MuonSection()
    weight_decay: float = Field(0.0, ge=0)
    schedule: Annotated[ScheduleSection, BeforeValidator(_shape_alone)] = ScheduleSection()
    max_grad_norm: float = Field(1.0, ge=0, description="clip the gradient to this norm; 0 is off")
    loss_on: Literal["completion", "all"] = Field(
        "completion", description="train what the assistant says, or every token"
    )
    max_length: int = Field(1024, gt=1, description="longest row in tokens")
    log_every: int = Field(10, ge=0)
    validate_every: int = Field(100, ge=0, description="generate on held-out tasks and score them")
    validation_samples: int = Field(50, ge=0)
    save_every: int = Field(100, ge=0)
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, slower"
    )
    lora: LoraSection | None = LoraSection()
    rl: RlSection = RlSection()

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        if value in METHODS or is_user_code(value):
            return value
        raise ValueError(
            f"should be one of {', '.join(METHODS)}, or 'file.py:function'{nearest(value, METHODS)}"
        )


class EvaluationSection(Section):
    """How replies are generated and scored, in validation and in `toolhone eval`."""

    tasks: str | None = Field(
        None, description="task file; none: tasks made from the held-out conversations"
    )
    metrics: list[str] | None = Field(
        None,
        description="scores to show, and metrics of your own: 'file.py:function'; everything is measured in any case",
    )
    num_samples: int = Field(
        200, gt=0, description="evaluate at most this many tasks at the end of training"
    )
    max_new_tokens: int = Field(256, gt=0)
    max_turns: int = Field(4, gt=0, description="most assistant turns until a final answer")
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="sample from the k most probable tokens; 0 is off")
    constrained: bool = Field(
        False,
        description="let no call be sampled that its tool's schema does not allow (needs the extra 'grammar')",
    )
    at_end: bool = Field(True, description="evaluate when training ends")


class TensorboardSection(Section):
    """TensorBoard event files."""

    enabled: bool = True
    log_dir: str | None = Field(None, description="none: the folder `tensorboard` in the run")


class WandbSection(Section):
    """Weights & Biases."""

    enabled: bool = True
    project: str = "toolhone"
    run_name: str | None = Field(None, description="none: the name of the run folder")
    entity: str | None = None
    mode: Literal["online", "offline"] = Field(
        "online", description="offline: a folder in the run, to be synchronised later"
    )


class TrackioSection(Section):
    """trackio, on this machine."""

    enabled: bool = True
    project: str = "toolhone"
    run_name: str | None = Field(None, description="none: the name of the run folder")


class TrackingSection(Section):
    """What is shown while training runs; everything is in the run folder whatever is chosen here."""

    progress: Literal["auto", "rich", "plain", "off"] = Field(
        "auto", description="auto: a live display on a terminal, plain lines elsewhere"
    )
    samples: int = Field(3, ge=0, description="sample predictions to print after an evaluation")
    tensorboard: TensorboardSection | None = None
    wandb: WandbSection | None = None
    trackio: TrackioSection | None = None


class ToolResultsSection(Section):
    """What becomes of the results of tools."""

    log: str | None = Field(None, description="append every call and its result to this file")
    cache: str | None = Field(
        None, description="keep results here, and answer the same call from here"
    )
    replay: str | None = Field(
        None, description="answer only from this log or cache; no tool is run"
    )


class Experiment(Section):
    """An experiment file."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Toolhone experiment")

    model: ModelSection = ModelSection()
    tools: list[str | dict[str, Any]] = Field(
        default_factory=lambda: list[str | dict[str, Any]](
            ["calculator", "python", "weather", "search"]
        ),
        description="names of built-in tools, 'file.py:function', 'package.module:function', or objects with a schema",
    )
    allowed_tools: list[str] = Field(
        default_factory=list, description="names of HTTP and command tools that may run"
    )
    tool_results: ToolResultsSection = ToolResultsSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    tracking: TrackingSection = TrackingSection()
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _fill_by_rule(self) -> Experiment:
        """Refuse settings that contradict each other, and fill in the learning rate and DPO's beta."""
        if self.model.adapter is not None and self.training.lora not in (None, LoraSection()):
            raise ValueError("model.adapter brings its own LoRA settings; leave training.lora out")
        training, filled = self.training, dict[str, Any]()
        is_dpo = training.method == "dpo"
        if is_dpo and not training.rl.beta:
            if "beta" in training.rl.model_fields_set:
                raise ValueError(
                    "training.rl.beta is 0, with which DPO learns nothing; 0.1 is usual"
                )
            filled["rl"] = training.rl.model_copy(update={"beta": 0.1})
        if training.learning_rate is None:
            usual, gentle = (2e-4, 2e-5) if training.lora else (2e-5, 2e-6)
            filled["learning_rate"] = gentle if is_dpo else usual
        if filled:
            object.__setattr__(self, "training", training.model_copy(update=filled))
        return self
