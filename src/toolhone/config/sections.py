"""The sections of an experiment file, with defaults that are right for a beginner: plain frozen
models.

`experiment.py` reads files and overrides; `aliases.py` the keys of other systems; `rl.py` has the
sections of `training.rl`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from toolhone.config.fields import AnchoredPath, Flag, Mark, Section, UserCode, text_for
from toolhone.config.rl import (
    POSTED,
    STATEFUL,
    STRATEGY,
    AgentSection,
    RewardSection,
    RlSection,
    ToolResultsSection,
    WeightedRewards,
    WorldSection,
    fault_of,
)
from toolhone.config.small_sections import (
    BakeSection,
    DistillSection,
    EvaluationSection,
    MadeSection,
    TeacherModelSection,
    TeacherSection,
    TrackingSection,
    full_name,
)
from toolhone.config.user_code import USER_CODE
from toolhone.errors import nearest

EPISODIC = ("ppo", "grpo", "teacher_mode", "distill")
"""Methods that play episodes."""
METHODS = ("sft", "dpo", *EPISODIC)


class ModelSection(Section):
    """Which model, in which precision, writing calls in which dialect."""

    backend: Literal["torch", "toy", "mlx", "tinker"] = "torch"
    """what runs the model: torch, mlx (Apple silicon), tinker (a service), or toy (a tiny table
    model for trying things out)"""
    name: Annotated[str, Mark.FOLDER_OR_NAME, Flag("--model")] = "pico"
    """'pico' (embedded, no network), 'smollm2' (in a package), a model folder, a .gguf
    file, or a name on the hub"""
    adapter: AnchoredPath | None = None
    """start from this run, checkpoint or PEFT folder"""
    model_class: UserCode | None = None
    """your own loader, 'file.py:function': called as f(model.name, dtype), returns a transformers
    causal model"""
    torch_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """precision of arithmetic; trained weights are float32"""
    device_map: str | dict[str, Any] = "auto"
    """'auto', a device such as 'cpu' or 'cuda:1', or a map for accelerate"""
    trust_remote_code: bool = False
    """run code that comes with the model"""
    dialect: Annotated[str, Flag("--dialect")] = "auto"
    """how calls are written: auto (the model's own way), json, calls, tagged or bfcl"""
    markup: str = "auto"
    """the chat markup around json, calls, tagged, bfcl: auto, template, chatml or plain"""
    history: Literal["template", "kept"] = "template"
    """where a chat template rewrites earlier turns: 'template' lets it, as when the model is served
    (one row for each turn); 'kept' leaves them unchanged (one row)"""
    template_switches: dict[str, Any] | None = None
    """keywords for the chat template, such as {'enable_thinking': false}; none: what its
    certificate finds"""
    inline_refs: bool | None = None
    """write schemas of tools without $ref into the prompt; none: where the template loses $ref"""
    thinking: Literal["off", "on", "enforced"] | None = None
    """thoughts before calls and answers: off (rows lose theirs) or on, by the template's switch
    where it has one; enforced: on, and every reply of a method with episodes begins with one"""
    micro_batch_tokens: int | None = Field(None, gt=0)
    """tokens in one forward pass, each counted once; none: 1024 on a CPU, by its memory on a GPU"""


class DataSection(Section):
    """What to train on, and what to hold out."""

    strategy: Annotated[
        Literal[
            "file", "templates", "manual_templates", "toolbench", "teacher_mode", "world", "agent"
        ]
        | None,
        BeforeValidator(full_name),
    ] = None
    """where rows come from; none: file where data.path is given, else templates (the built-in
    tools); teacher_mode: `data.teacher`; world: tasks of `world.name`, done by its solver; agent:
    a program of yours plays (`agent`)"""
    path: Annotated[AnchoredPath | None, Flag("--data")] = None
    """training file; none: conversations come from templates"""
    format: UserCode = "auto"
    """auto, the name of a format, or your own reader: 'file.py:function'"""
    samples: int = Field(4000, gt=0)
    """how many conversations to generate when there is no file"""
    max_samples: int | None = Field(None, gt=0)
    """use (or generate) at most this many conversations"""
    examples: AnchoredPath | list[dict[str, Any]] | None = None
    """manual_templates: canonical examples, {query, calls} each: a file, or the rows themselves"""
    categories: dict[str, float] | None = None
    """templates: shares of the categories, such as {'calculator': 1, 'no_tool': 3}; none: all"""
    answered: float | None = Field(None, ge=0, le=1)
    """generated rows: share of those with calls that go on to a result and an answer; none: by
    tool (templates; with 0 the tasks expect calls alone), or all, with invented results of tools
    whose names do not say that they only read (manual_templates)"""
    made: MadeSection = MadeSection()
    generation_type: Literal["real", "synthetic"] | None = None
    """toolbench: files at data.path (real), or rows generated for the tools of the experiment
    (synthetic)"""
    validation: AnchoredPath | None = None
    """validation file in the same format; none: a part of the training file is held out"""
    validation_fraction: float | None = Field(None, gt=0, lt=1)
    """share of the rows that is held out; none: 0.1, and of templates a number of rows besides"""
    split: Literal["hash", "tools"] = "hash"
    """hold out by hash, or so that no held-out tool is ever trained on"""
    split_seed: int = Field(0, ge=0, lt=2**32)
    """of what is held out; another `seed` keeps the held-out rows"""
    style: Literal["calls", "short"] | None = None
    """gsm8k: keep the text beside a call (calls), or drop it (short)"""
    distractors: int | None = Field(None, ge=0)
    """seal_tools: how many other tools to offer [4]"""
    raw_prompt: bool | None = None
    """prompt_rows: use the prompt as one text, unchanged [false]"""
    preferences: Literal["file", "corruptions", "own_samples", "own_ranked"] | None = None
    """DPO: pairs of data.path; gold against typed mistakes, or against the model's own wrong
    samples; or its own right samples against its wrong ones; none: file or corruptions"""
    pairs: int = Field(1, gt=0)
    """DPO: most pairs for one turn of the assistant"""
    too_long: Literal["drop", "error"] = "drop"
    """rows longer than training.max_length: drop and count, or stop"""
    teacher: TeacherModelSection = TeacherModelSection()

    @property
    def held_out_share(self) -> float:
        """The share of rows that is held out, with the default filled in."""
        return self.validation_fraction or 0.1

    @property
    def chosen_strategy(self) -> str:
        """The strategy, with the default filled in."""
        reads = self.path is not None or USER_CODE.fullmatch(self.format)
        return self.strategy or ("file" if reads else "templates")

    @model_validator(mode="after")
    def _agree(self) -> DataSection:
        strategy, path = self.chosen_strategy, self.path is not None
        reads = strategy == "file" or (strategy == "toolbench" and path)
        generates = strategy in ("manual_templates", "toolbench", "teacher_mode")
        options = [
            n for n in ("style", "distractors", "raw_prompt") if getattr(self, n) is not None
        ]
        options += ["split"] if self.split != "hash" else []
        makes_rows = f"but data.strategy {strategy!r} generates its rows"
        is_other = f"belongs to strategy 'manual_templates', but data.strategy is {strategy!r}"
        problems = {
            "data.strategy 'file' needs data.path": strategy == "file"
            and not path
            and not USER_CODE.fullmatch(self.format),
            f"data.path names a file, but data.strategy {strategy!r} reads none; use strategy "
            "'file', or leave path out": path and not reads,
            "data.validation and data.format describe a file, but there is no data.path": not reads
            and (self.validation or self.format != "auto"),
            f"data.{''.join(options[:1])} describes a file, {makes_rows}": options and not reads,
            "data.examples and data.answered are for generated rows, but data.path or data.format "
            "names rows to read": reads and (self.examples is not None or self.answered),
            f"data.examples {is_other}": self.examples is not None and not generates,
            "data.categories belongs to strategy 'templates', but data.strategy is "
            f"{strategy!r}": self.categories is not None and strategy != "templates",
            "data.categories needs a share above 0, and none below": self.categories is not None
            and (min(self.categories.values(), default=0) < 0 or not any(self.categories.values())),
            "data.preferences 'file' needs data.path; to make pairs: 'corruptions', 'own_samples', "
            "'own_ranked'": self.preferences == "file" and not path,
            "data.generation_type 'real' needs data.path (a file or folder); 'synthetic' generates "
            "rows": self.generation_type == "real" and not path and strategy != "toolbench",
            "data.generation_type 'synthetic' generates rows, but data.path names a file; leave "
            "one of them out": self.generation_type == "synthetic" and path,
        }
        for problem, found in problems.items():
            if found:
                raise ValueError(problem)
        return self


class LoraSection(Section):
    """Low-rank adapters; `training.lora: null` trains every weight."""

    rank: Annotated[int, Flag("--lora-rank")] = Field(16, gt=0)
    """rank of the adapters"""
    alpha: Annotated[float, Flag("--lora-alpha")] = Field(32.0, gt=0)
    """scale of the adapters is alpha / rank"""
    dropout: Annotated[float, Flag("--lora-dropout")] = Field(0.0, ge=0, lt=1)
    """dropout of the adapters while training"""
    last_layers: Annotated[int, Flag("--lora-layers", "--num-layers")] = Field(0, ge=0)
    """only the last N decoder layers; 0 means all"""
    target_modules: list[str] = Field(default_factory=list)
    """names of linear layers; empty means all but the head"""


class OptimizerSection(Section):
    """AdamW; or Muon on matrices (`training.muon`) and AdamW on the rest."""

    name: Literal["adamw", "muon"] = "adamw"
    """a text alone is the name"""
    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW: decay of the mean of gradients"""
    beta2: float = Field(0.95, ge=0, lt=1)
    """AdamW: decay of the mean of squared gradients"""
    epsilon: float = Field(1e-8, gt=0)
    """AdamW: added to the divisor"""


class MuonSection(Section):
    """Numbers of Muon, used on matrices when `training.optimizer` is muon."""

    learning_rate: float = Field(0.02, gt=0)
    momentum: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.05, ge=0)


class ScheduleSection(Section):
    """The learning rate: warm-up, then constant until the last `decay_share` of the steps, then
    down to 0."""

    shape: Literal["linear", "cosine", "constant"] = "linear"
    """form of the decay"""
    warmup_steps: int = Field(10, ge=0)
    warmup_ratio: float | None = Field(None, ge=0, lt=1)
    """warm-up as a share of all steps, in place of `warmup_steps`"""
    decay_share: float = Field(1.0, ge=0, le=1)
    """share of the steps after warm-up in which the rate falls"""


class RecipeSection(Section):
    """How settings that an experiment leaves out are chosen; a text alone is the name."""

    name: Literal["auto", "none"] = "auto"
    """auto: to suit the size of a pretrained model and the device (docs/models.md); none: the
    defaults"""
    chosen: dict[str, str] = Field(default_factory=dict)
    """written by a run: what was chosen, and why"""


class TrainingSection(Section):
    """How to train. Intervals are in optimiser steps; 0 switches one off."""

    method: Annotated[UserCode, Flag("--train-mode", "--method"), BeforeValidator(full_name)] = (
        "sft"
    )
    """sft, dpo, ppo, grpo, teacher_mode, distill, or your own algorithm: 'file.py:function'"""
    recipe: Annotated[RecipeSection, text_for("recipe")] = RecipeSection()
    """how settings that are left out are chosen for a pretrained model"""
    steps: Annotated[int | None, Flag("--iters", "--max-steps")] = Field(None, gt=0)
    """optimiser steps; none: as many as `epochs` need"""
    epochs: Annotated[float, Flag("--epochs", "--num-train-epochs")] = Field(1.0, gt=0)
    """passes over the rows, where `steps` is none"""
    batch_size: Annotated[int, Flag("--batch-size")] = Field(8, gt=0)
    """conversations (in RL: tasks) in a batch"""
    gradient_accumulation_steps: int = Field(1, gt=0)
    """batches in an optimiser step"""
    learning_rate: Annotated[float | None, Flag("--learning-rate", "--lr")] = Field(None, gt=0)
    """none: 2e-4 with LoRA, 2e-5 without; DPO: a tenth"""
    optimizer: Annotated[OptimizerSection, text_for("optimizer")] = OptimizerSection()
    muon: MuonSection = MuonSection()
    weight_decay: float = Field(0.0, ge=0)
    schedule: Annotated[ScheduleSection, text_for("schedule")] = ScheduleSection()
    max_grad_norm: float = Field(1.0, ge=0)
    """clip the gradient to this norm; 0 is off"""
    loss: UserCode | None = None
    """none: that of the method; or your own: 'file.py:function'"""
    loss_on: Literal["completion", "all"] = "completion"
    """train the assistant's text, or every token"""
    max_length: Annotated[int, Flag("--max-seq-length")] = Field(1024, gt=1)
    """longest row in tokens"""
    log_every: Annotated[int, Flag("--steps-per-report")] = Field(10, ge=0)
    """steps between reports"""
    validate_every: Annotated[int, Flag("--steps-per-eval")] = Field(100, ge=0)
    """steps between validations: generate on held-out tasks and score them"""
    validation_samples: int = Field(50, ge=0)
    save_every: Annotated[int, Flag("--save-every")] = Field(100, ge=0)
    """steps between checkpoints"""
    gradient_checkpointing: Annotated[bool, Flag("--grad-checkpoint")] = False
    """recompute activations in the backward pass: less memory, slower"""
    lora: Annotated[LoraSection | None, Flag("--train-type")] = LoraSection()
    rl: RlSection = RlSection()
    distill: DistillSection = DistillSection()
    bake: BakeSection | None = None
    """tools that need no prompt in the end (method distill)"""

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        if value in METHODS or USER_CODE.fullmatch(value):
            return value
        raise ValueError(
            f"should be one of {', '.join(METHODS)}, or 'file.py:function'{nearest(value, METHODS)}"
        )

    @model_validator(mode="after")
    def _own_loss(self) -> TrainingSection:
        if self.loss is not None and not USER_CODE.fullmatch(self.loss):
            raise ValueError(f"loss should be 'file.py:function', it is {self.loss!r}")
        if self.loss is not None and self.method in ("teacher_mode", "distill"):
            raise ValueError(f"loss is not read by {self.method}; use sft, dpo, ppo or grpo")
        return self


class Experiment(Section):
    """An experiment file."""

    model_config = ConfigDict(title="Toolhone experiment")

    model: ModelSection = ModelSection()
    tools: Annotated[list[UserCode | Annotated[dict[str, Any], Mark.TOOL]], Flag("--tools")] = (
        Field(
            default_factory=lambda: list[str | dict[str, Any]](
                ["calculator", "python", "weather", "search"]
            )
        )
    )
    """names of built-in tools, 'file.py:function', 'package.module:function', objects with a
    schema, or a file of such objects ('tools.json')"""
    allowed_tools: list[str] = Field(default_factory=list)
    """names of HTTP and command tools that may run"""
    tool_results: ToolResultsSection = ToolResultsSection()
    world: WorldSection = WorldSection()
    data: DataSection = DataSection()
    agent: AgentSection = AgentSection()
    training: TrainingSection = TrainingSection()
    teacher: TeacherSection = TeacherSection()
    evaluation: EvaluationSection = EvaluationSection()
    tracking: TrackingSection = TrackingSection()
    seed: Annotated[int, Flag("--seed")] = Field(0, ge=0, lt=2**32)
    """of data order, weights and sampling; `data.split_seed` is that of what is held out"""

    @model_validator(mode="after")
    def _fill_by_rule(self) -> Experiment:
        """Refuse a beta with which DPO learns nothing, and tasks of no world; fill in the learning
        rate and DPO's beta."""
        if self.data.chosen_strategy == "world" and self.world.name not in STATEFUL:
            raise ValueError(
                f"data.strategy 'world' needs world.name, one of {', '.join(STATEFUL)}; "
                f"it is {self.world.name!r}"
            )
        training, filled = self.training, dict[str, Any]()
        strategy = self.data.chosen_strategy
        if fault := fault_of(self.agent, strategy, training.method, training.rl, self.world):
            raise ValueError(fault)
        is_dpo = training.method == "dpo"
        if is_dpo and not training.rl.beta:
            if "beta" in training.rl.model_fields_set:
                raise ValueError(
                    "training.rl.beta is 0, with which DPO learns nothing; 0.1 is usual"
                )
            filled["rl"] = training.rl.model_copy(update={"beta": 0.1})
        if training.bake is not None and training.method != "distill":
            raise ValueError(
                f"training.bake needs training.method distill; it is {training.method!r}"
            )
        thinking, enforced = self.model.thinking, training.rl.enforce_thinking
        if thinking == "off" and enforced:
            raise ValueError(
                "model.thinking is off, but training.rl.enforce_thinking begins every reply with a "
                "thought; keep one"
            )
        if thinking == "enforced" and training.method in EPISODIC and not enforced:
            rl = {**training.rl.model_dump(exclude_unset=True), "enforce_thinking": True}
            filled["rl"] = RlSection.model_validate(rl)
        if training.learning_rate is None:
            usual, gentle = (2e-4, 2e-5) if training.lora else (2e-5, 2e-6)
            filled["learning_rate"] = gentle if is_dpo else usual
        if filled:
            filled_in = training.model_copy(update=filled)
            filled_in.model_fields_set.intersection_update(training.model_fields_set)
            object.__setattr__(self, "training", filled_in)
        return self


def reward_section(plan: Experiment) -> RewardSection:
    """The rewards of the experiment; where it names none `tool_use`, or what an agent posts."""
    section = plan.training.rl.reward
    if section.functions or section.phases:
        return section
    usual = POSTED if plan.data.chosen_strategy == STRATEGY else "tool_use"
    return section.model_copy(update={"functions": [plan.agent.reward or usual]})


def reward_phases(plan: Experiment) -> Sequence[WeightedRewards]:
    """The phases of the rewards, or the one set of them."""
    section = reward_section(plan)
    return section.phases or [section]
