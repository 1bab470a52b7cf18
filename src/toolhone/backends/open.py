"""Which backend runs a model: the only place that knows one by name.

trainer = open_trainer(plan.model, plan.training, "path/to/model")
check_plan(plan, trainer.can)                      # refuses what this backend cannot do
    sampler = open_sampler("path/to/model", plan.model)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolhone.backends.base import Capabilities, Lora, Sampler, Trainer
from toolhone.config.presets import processor_has_bfloat16
from toolhone.config.sections import Experiment, LoraSection, ModelSection, TrainingSection
from toolhone.config.user_code import import_callable
from toolhone.errors import CapabilityError, ConfigError
from toolhone.rows import Row
from toolhone.tokenizer import TextTokenizer

MEMORY_ERROR = 1.25
"""A step is refused when its predicted peak is above this times the memory of the device."""
MEMORY_SHARE = 0.6
"""What a rule plans to fill of the memory of a device."""

PACKAGES = {"mlx": ("mlx.core", "mlx_lm"), "tinker": ("tinker",)}
INSTALL = {
    "mlx": "'mlx[cpu]>=0.32.4,<0.33' 'mlx-lm>=0.32.2,<0.33'",
    "tinker": "'tinker>=0.30,<0.40'",
}
"""On a Mac, `cpu` adds nothing."""

if TYPE_CHECKING:
    from toolhone.backends.torch.engine import EngineOptions
    from toolhone.backends.torch.shared import SharedBase as SharedBase
    from toolhone.backends.toy import ToyTrainer


def open_trainer(
    model: ModelSection,
    training: TrainingSection,
    name: str,
    adapter: Path | None = None,
    seed: int = 0,
) -> Trainer:
    """A trainer for the model folder or hub name `name`, starting from the checkpoint `adapter`."""
    _check_backend(model.backend)
    if model.backend == "toy":
        return _open_toy(model, name, adapter, seed)
    if model.backend == "tinker":
        from toolhone.backends.tinker import open_trainer as open_tinker

        return open_tinker(model, training, name, adapter, seed)
    section = training.lora
    lora = None
    if section is not None:
        targets = tuple(section.target_modules)
        lora = Lora(section.rank, section.alpha, section.dropout, section.last_layers, targets)
    options = _engine_options(model, seed, training.gradient_checkpointing)
    if model.backend == "mlx":
        from toolhone.backends.mlx import open_trainer as open_mlx

        return open_mlx(name, lora, options, adapter)
    from toolhone.backends.torch.trainer import open_trainer as open_torch

    return open_torch(name, lora, options, adapter)


def open_sampler(
    ref: str | Path, model: ModelSection, adapter: Path | None = None, seed: int = 0
) -> Sampler:
    """A sampler for a model folder or hub name, with the weights of the checkpoint `adapter`."""
    _check_backend(model.backend)
    if model.backend == "toy":
        return _open_toy(model, str(ref), adapter, seed).snapshot()
    if model.backend == "mlx":
        from toolhone.backends.mlx import open_sampler as open_mlx

        return open_mlx(ref, _engine_options(model, seed), adapter)
    if model.backend == "tinker":
        from toolhone.backends.tinker import open_sampler as open_tinker

        return open_tinker(model, str(ref), adapter)
    from toolhone.backends.torch.trainer import open_sampler as open_torch

    return open_torch(ref, _engine_options(model, seed), adapter)


def open_shared(name: str, model: ModelSection) -> SharedBase:
    """A frozen base model that many trainers and samplers of adapters share (torch alone)."""
    from toolhone.backends.torch.shared import SharedBase as SharedBase

    return SharedBase(name, _engine_options(model, seed=0))


def open_tokenizer(model: ModelSection, name: str) -> TextTokenizer:
    """The tokenizer of the model folder or hub name `name`; a service may have one of its own."""
    if model.backend == "tinker":
        from toolhone.backends.tinker import open_tokenizer as open_tinker

        return open_tinker(model, name)
    return TextTokenizer.load(name, model.trust_remote_code)


def with_own_lora(plan: Experiment, folder: Path, report: Callable[[str], None]) -> Experiment:
    """Return the plan with the LoRA settings of `folder`, if that is a PEFT folder to start from.

    `training.lora` may change the dropout, which is reported; `ConfigError` for the others.
    """
    given, own, usual = plan.training.lora, _lora_of(folder), LoraSection().model_dump()
    if given is None or not own:
        return plan
    for name, wanted in given.model_dump().items():
        if name == "dropout" or wanted in (own.get(name, wanted), usual[name]):
            continue
        raise ConfigError(
            "model.adapter brings its own LoRA settings, of which dropout alone may be changed: "
            f"training.lora.{name} is {wanted}, in {folder} it is {own[name]}; leave it out"
        )
    if "dropout" in given.model_fields_set & own.keys() and given.dropout != own["dropout"]:
        report(f"training.lora.dropout {given.dropout} in place of the adapter's {own['dropout']}")
        own["dropout"] = given.dropout
    training = plan.training.model_copy(update={"lora": LoraSection(**given.model_dump() | own)})
    return plan.model_copy(update={"training": training})


def _lora_of(folder: Path) -> dict[str, Any]:
    """The LoRA settings that a PEFT folder, or the checkpoint of a service, brings along."""
    if (folder / "adapter_config.json").is_file():
        from toolhone.backends.torch.lora import read_lora_config

        own = asdict(read_lora_config(folder)[0])
        return own | {"target_modules": sorted(own["target_modules"])}
    if (folder / "tinker.json").is_file():
        from toolhone.backends.tinker_connection import ServiceCheckpoint

        return {"rank": ServiceCheckpoint.read(folder).rank}
    return {}


@dataclass(frozen=True)
class ModelSize:
    """weights: how many. torch_dtype: the fastest that trains well on the device, and why.
    tight: whether a step fills more than `MEMORY_SHARE` of the memory without checkpointing."""

    weights: int
    torch_dtype: str
    why: str
    tight: bool
    on_cpu: bool


def size_up(name: str, model: ModelSection, full: bool) -> ModelSize:
    """Measure the model folder or hub name on the device that would run it, without its weights.

    full: every weight is trained. `ModelError` for what transformers does not know.
    """
    import torch

    from toolhone.backends.torch import device as devices
    from toolhone.backends.torch.lora import open_skeleton

    skeleton = open_skeleton(name, model.trust_remote_code)
    weights = sum(value.numel() for value in skeleton.parameters())
    device, _ = devices.find_device(model.device_map)
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    able = device.type == "cpu" and processor_has_bfloat16()
    fast = fast or (able and not full)  # with float32 weights to learn it gains next to nothing
    dtype = "bfloat16" if fast else "float32"
    slow = "is not known to be fast in bfloat16"
    if device.type == "cpu":
        slow = "gains little by bfloat16 in full training" if able else "has no fast bfloat16"
    why = f"this {device.type.upper()} {'is fast in it' if fast else slow}"
    size = 2 if fast else 4
    tokens = devices.default_micro_batch(skeleton.config, device, size)
    kept = tokens * devices.token_bytes(skeleton.config, size, gradient_checkpointing=False)
    needed = kept + weights * ((4 + devices.TRAINED_BYTES) if full else size)
    tight = needed > MEMORY_SHARE * devices.device_bytes(device)
    return ModelSize(weights, dtype, why, tight, device.type == "cpu")


def stored_dtype(name: str, model: ModelSection) -> str | None:
    """The precision that the config of a model folder or hub name gives for its weights."""
    from toolhone.backends.torch.lora import open_skeleton

    dtype = getattr(open_skeleton(name, model.trust_remote_code).config, "dtype", None)
    return None if dtype is None else str(dtype).removeprefix("torch.")


def longest_row(trainer: Trainer) -> int | None:
    """Return the tokens of a row that fills `MEMORY_SHARE` of the device; None where unknown."""
    from toolhone.backends.torch.device import device_bytes, peak_bytes
    from toolhone.backends.torch.trainer import TorchTrainer

    if not isinstance(trainer, TorchTrainer):
        return None
    engine = trainer.engine
    empty = peak_bytes(engine.model, engine.device, 0, 0)
    free = MEMORY_SHARE * device_bytes(engine.device) - empty
    return max(64, engine.pass_bytes.tokens(free))


def check_memory(
    trainer: Trainer,
    plan: Experiment,
    rows: Sequence[Row],
    played: Callable[[], Sequence[Row]] = tuple,
) -> str | None:
    """Compare the predicted peak of a step with the memory of the device; None where unknown.

    `played` makes rows like those that RL is still to play. Raises `CapabilityError` when a step
    cannot fit.
    """
    if plan.model.backend != "torch":
        return None
    from toolhone.backends.torch.decoding_engine import decoding_bytes
    from toolhone.backends.torch.device import device_bytes, peak_bytes
    from toolhone.backends.torch.trainer import TorchTrainer

    assert isinstance(trainer, TorchTrainer), "model.backend torch opens a TorchTrainer"
    plays, rl = plan.training.method in ("ppo", "grpo", "distill"), plan.training.rl
    copies = int(plays) + int(plan.training.method == "dpo" or (plays and rl.beta > 0))
    engine = trainer.engine
    rows = [*rows, *(played() if plays else ())]
    longest = max(map(len, rows), default=0)
    tokens = trainer.kept_tokens(rows, whole_groups=plan.training.method == "dpo")
    peak = peak_bytes(engine.model, engine.device, engine.pass_bytes.of(tokens), copies)
    needed = (peak + (decoding_bytes(engine) if plays else 0)) / 1e9
    there = device_bytes(engine.device) / 1e9
    figures = f"about {needed:.1f} GB of the {there:.1f} GB of this device"
    if needed > MEMORY_ERROR * there:
        remedies = {
            f"lower model.micro_batch_tokens ({engine.micro_batch_tokens})": tokens > longest,
            f"lower training.max_length (the longest row has {longest} tokens)": tokens <= longest,
            "set training.gradient_checkpointing": not plan.training.gradient_checkpointing,
            "train adapters (training.lora)": plan.training.lora is None,
        }
        right = ", or ".join(remedy for remedy, helps in remedies.items() if helps)
        raise CapabilityError(f"a training step needs {figures}; {right}")
    return f"memory: {figures}"


def check_plan(plan: Experiment, can: Capabilities) -> None:
    """Refuse, in one sentence, the first setting of the plan that the backend cannot do."""
    training, rl, backend = plan.training, plan.training.rl, plan.model.backend
    learns_from_samples = training.method in ("ppo", "grpo", "distill")
    built_in = training.method == "sft" or (training.method == "ppo" and rl.ppo.critic == "none")
    longest = rl.max_completion_length if learns_from_samples else 0
    refusals = {
        "full fine-tuning (training.lora null); set training.lora": not can.full_training
        and training.lora is None,
        "LoRA; set training.lora to null": not can.lora and training.lora is not None,
        "training.optimizer muon; use adamw": not can.muon and training.optimizer.name == "muon",
        "a value head; use training.rl.ppo.critic 'regression'": not can.value_head
        and training.method == "ppo"
        and rl.ppo.critic == "value_head",
        f"training.rl.temperature {rl.temperature}; use 1": not can.temperature
        and learns_from_samples
        and rl.temperature != 1,
        "grammars (evaluation.constrained)": not can.grammar and plan.evaluation.constrained,
        f"a loss of your own (training.loss {training.loss}); leave it out": not can.custom_loss
        and training.loss is not None,
        f"the loss of training.method {training.method}; use sft": not can.custom_loss
        and not built_in,
        f"replies of training.rl.max_completion_length {longest} tokens, since its context holds "
        f"{can.max_context}; use fewer": 0 < can.max_context <= longest,
    }
    for key in can.absent:
        refusals[f"{key} {_value(plan, key)}; leave it out"] = _value(plan, key) not in (
            None,
            _value(Experiment(), key),
        )
    for what, refused in refusals.items():
        if refused:
            raise CapabilityError(f"model.backend {backend} cannot do {what}, or another backend")


def decided_elsewhere(plan: Experiment, can: Capabilities) -> str | None:
    """A sentence on settings that have no effect, since the backend decides them; None for none."""
    changed = [key for key in can.fixed if _value(plan, key) != _value(Experiment(), key)]
    return (
        f"note: model.backend {plan.model.backend} decides {', '.join(changed)} itself; the "
        "values of the experiment have no effect"
        if changed
        else None
    )


def _value(plan: Experiment, key: str) -> Any:
    """The value of a dotted key; None in a section that is null."""
    value: Any = plan
    for part in key.split("."):
        value = getattr(value, part, None)
    return value


def _check_backend(name: str) -> None:
    """Refuse a backend whose packages cannot be imported."""
    for package in PACKAGES.get(name, ()):
        try:
            import_module(package)
        except (ImportError, OSError) as error:
            raise CapabilityError(
                f"model.backend {name}: {package.partition('.')[0]} cannot be imported "
                f"({' '.join(str(error).split()):.80}); "
                f"install it with: python -m pip install {INSTALL[name]}, or use torch"
            ) from None


def _engine_options(
    model: ModelSection, seed: int, gradient_checkpointing: bool = False
) -> EngineOptions:
    from toolhone.backends.torch.engine import EngineOptions

    loader = model.model_class and import_callable(
        model.model_class, Path.cwd(), "model.model_class"
    )
    return EngineOptions(
        torch_dtype=model.torch_dtype,
        device_map=model.device_map,
        trust_remote_code=model.trust_remote_code,
        gradient_checkpointing=gradient_checkpointing,
        micro_batch_tokens=model.micro_batch_tokens,
        seed=seed,
        loader=loader or None,
    )


def _open_toy(model: ModelSection, name: str, checkpoint: Path | None, seed: int) -> ToyTrainer:
    """A toy with the vocabulary of the named model and about 4 million numbers in each table."""
    from toolhone.backends.toy import open_toy

    vocab_size = TextTokenizer.load(name, model.trust_remote_code).vocab_size
    buckets = max(16, min(1024, 2**22 // vocab_size))
    trainer = open_toy(vocab_size, seed, buckets=buckets, tokenizer=name)
    if checkpoint is not None:
        trainer.load(checkpoint, optimizer=False)
    return trainer
