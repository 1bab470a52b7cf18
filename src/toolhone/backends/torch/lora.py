"""LoRA (Hu et al. 2021, arXiv:2106.09685) as a PEFT folder that peft and vLLM read; whole models.

`add_lora` puts adapters beside linear layers (`nn.Linear`, GPT-2's `Conv1D`). Adapters are float32;
beside weights of lower precision their product is added before the sum is rounded.
Not covered: embeddings, fused expert tensors, DoRA, rank patterns.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from toolhone.backends.base import Lora
from toolhone.backends.torch.kernels import AdaptedLinear
from toolhone.errors import ConfigError, ModelError, nearest
from toolhone.runs.run import read_json, write_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PLAIN = (torch.float32, torch.bfloat16, torch.float16)
_PREFIX = "base_model.model."
_CHANGES_BASE = frozenset({"pissa", "olora", "corda", "loftq"})
"""Ways of PEFT to begin that take the adapter's first product off the base, or quantise it."""


class LoraLayer(nn.Module):
    """base(x) + alpha / rank * B A dropout(x); A is [rank, in], B [out, rank] and 0 at first."""

    def __init__(self, base: nn.Module, lora: Lora, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        weight = self.weight
        outputs, inputs = reversed(weight.shape) if isinstance(base, Conv1D) else weight.shape
        self.lora_A = nn.Linear(inputs, lora.rank, bias=False, dtype=torch.float32)
        self.lora_B = nn.Linear(lora.rank, outputs, bias=False, dtype=torch.float32)
        self.scale = lora.alpha / lora.rank
        self.dropout = nn.Dropout(lora.dropout)
        with torch.no_grad():
            self.lora_A.weight.copy_(initial_a(lora.rank, inputs, generator))
            self.lora_B.weight.zero_()
        self.lora_A.to(weight.device)
        self.lora_B.to(weight.device)

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight of the base layer."""
        weight = self.base.weight
        assert isinstance(weight, torch.Tensor)
        return weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dtype = self.weight.dtype
        if self.joins:
            x = x.to(dtype)
            low = nn.functional.linear(self.dropout(x), self.lora_A.weight.to(dtype))
            b = (self.lora_B.weight * self.scale).to(dtype)
            weight = self.weight.T if isinstance(self.base, Conv1D) else self.weight
            found: torch.Tensor = AdaptedLinear.apply(  # type: ignore[no-untyped-call]
                x, low, weight, b, self.base.bias
            )
            return found
        result: torch.Tensor = self.base(x)
        low = self.lora_A(self.dropout(x).to(self.lora_A.weight.dtype))
        change: torch.Tensor = self.lora_B(low) * self.scale
        return result + change.to(result.dtype)

    @property
    def joins(self) -> bool:
        """Whether the layer's product is added to the adapter's, in place of a pass of its own.

        Not in layers with a forward pass of their own, as quantised ones have, or with hooks, nor
        in float64 or where autocast rounds float32.
        """
        base = self.base
        plain = type(base).forward in (nn.Linear.forward, Conv1D.forward)
        own = (base._forward_hooks, base._forward_pre_hooks, base._backward_hooks)
        kinds = PLAIN[1:] if torch.is_autocast_enabled(self.weight.device.type) else PLAIN
        plain = plain and not any(own) and "forward" not in vars(base)
        return plain and self.weight.dtype in kinds


def initial_a(rank: int, inputs: int, generator: torch.Generator) -> torch.Tensor:
    """The first A of an adapter: float32 [rank, inputs], uniform within 1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(inputs)
    return torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)


def add_lora(model: nn.Module, lora: Lora, seed: int) -> list[str]:
    """Freeze the model and put an adapter beside each chosen layer; returns their names."""
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    names = wanted_layers(model, lora)
    for name in names:
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, child, LoraLayer(getattr(owner, child), lora, generator))
    return names


def wanted_layers(model: nn.Module, lora: Lora) -> list[str]:
    """The names of the linear layers that get an adapter. `ConfigError` where there is none."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    linear = [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear | Conv1D)
        and (part is not head or name.rpartition(".")[2] in lora.target_modules)
    ]
    kinds = sorted({name.rpartition(".")[2] for name in linear})
    for target in lora.target_modules:
        if target not in kinds:
            known = ", ".join(kinds)
            raise ConfigError(
                f"training.lora.target_modules: no linear layer is named {target!r}"
                f"{nearest(target, kinds)}; this model has {known}"
            )
    wanted = [
        name
        for name in linear
        if not lora.target_modules or name.rpartition(".")[2] in lora.target_modules
    ]
    if lora.last_layers:
        pattern, indices = last_layers(model, lora.last_layers)
        wanted = [
            name
            for name in wanted
            if (found := re.search(rf"\b{pattern}\.(\d+)\.", name)) and int(found[1]) in indices
        ]
    if not wanted:
        raise ConfigError(
            "training.lora: no layer of this model gets an adapter "
            "with these target_modules and last_layers"
        )
    return wanted


def last_layers(model: nn.Module, count: int) -> tuple[str, list[int]]:
    """The name of the list of decoder layers (`layers`, `h`), and its last `count` indices."""
    depth = int(getattr(model.config, "num_hidden_layers"))  # noqa: B009 (the config is untyped)
    lists = [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == depth
    ]
    if not lists:
        raise ModelError(
            f"training.lora.last_layers: no list of {depth} layers was found in this model; "
            "leave it at 0"
        )
    return lists[0].rpartition(".")[2], list(range(max(0, depth - count), depth))


def merge_adapters(model: nn.Module, layers: list[str]) -> None:
    """Replace each adapted layer by a plain one with W + alpha / rank * B A, rounded once.

    A head that shares its weight with the embedding has its own afterwards.
    """
    for name in layers:
        layer = model.get_submodule(name)
        assert isinstance(layer, LoraLayer)
        if layer is model.get_output_embeddings():  # type: ignore[operator]
            model.config.tie_word_embeddings = False  # type: ignore[union-attr]
        weight = layer.weight
        change = layer.lora_B.weight.data @ layer.lora_A.weight.data * layer.scale
        change = change.T if isinstance(layer.base, Conv1D) else change
        merged = (weight.data.float() + change.float()).to(weight.dtype)
        layer.base.weight = nn.Parameter(merged, requires_grad=False)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.base)


def lora_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The adapters by name: `model.layers.0.mlp.up_proj.lora_A.weight`."""
    return {
        name: value
        for name, value in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


def write_peft(model: nn.Module, lora: Lora, layers: list[str], base: str, folder: Path) -> None:
    """Write the adapters of a model into an existing folder."""
    write_adapter(folder, adapter_config(model, lora, layers, base), lora_state(model))


def adapter_config(model: nn.Module, lora: Lora, layers: list[str], base: str) -> dict[str, Any]:
    """What PEFT's adapter_config.json says of these layers of a model."""
    parts = [model.get_submodule(name) for name in layers]
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
        "bias": "none",
        "fan_in_fan_out": any(isinstance(getattr(part, "base", part), Conv1D) for part in parts),
        "inference_mode": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }
    if lora.last_layers:
        config["layers_pattern"], config["layers_to_transform"] = last_layers(
            model, lora.last_layers
        )
    return config


def write_adapter(folder: Path, config: dict[str, Any], state: Mapping[str, torch.Tensor]) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` into an existing folder.

    state: A and B by their names in the model, `model.layers.0.mlp.up_proj.lora_A.weight`.
    """
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    tensors = {_PREFIX + name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def find_adapter(
    name: str, adapter: Path | None, lora: Lora | None
) -> tuple[str, Path | None, Lora | None]:
    """The base model, PEFT folder and settings; of `lora`, a PEFT folder takes the dropout alone.

    name: a model, or a PEFT folder that names its base.
    """
    path = Path(name)
    if adapter is None and (path / CONFIG).is_file():
        adapter, name = path, read_lora_config(path)[1]
    if adapter is None:
        return name, None, lora
    if not (adapter / CONFIG).is_file():
        raise ModelError(
            f"model.adapter: {adapter} holds no {CONFIG}; "
            "give a PEFT folder (a LoRA checkpoint of a run is one)"
        )
    own = read_lora_config(adapter)[0]
    return name, adapter, replace(own, dropout=lora.dropout) if lora else own


def read_lora_config(folder: Path) -> tuple[Lora, str]:
    """The adapter's shape and base model; refuses a PEFT folder that `LoraLayer` cannot be."""
    config = read_json(folder / CONFIG)
    for key in ("peft_type", "r", "lora_alpha", "target_modules"):
        if key not in config:
            raise ModelError(f"{folder}/{CONFIG} lacks {key!r}; it is no LoRA adapter")
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"{folder}: the adapter is of type {config.get('peft_type')!r}; only LORA can be loaded"
        )
    for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.get(key):
            raise ModelError(
                f"{folder}/{CONFIG}: {key}={config[key]!r} is not supported; "
                "only plain LoRA can be loaded"
            )
    start = str(config.get("init_lora_weights", True)).partition("_")[0].lower()
    if start in _CHANGES_BASE:
        raise ModelError(
            f"{folder}/{CONFIG}: init_lora_weights={config['init_lora_weights']!r} trained beside "
            "a changed base, so it is no adapter of the model itself; save it with PEFT's "
            "path_initial_model_for_weight_conversion"
        )
    targets = config["target_modules"]
    if isinstance(targets, str):
        raise ModelError(
            f"{folder}/{CONFIG}: target_modules is a pattern ({targets!r}); "
            "a list of module names can be loaded"
        )
    layers = config.get("layers_to_transform") or []
    last = 1 if isinstance(layers, int) else len(layers)
    lora = Lora(
        config["r"], config["lora_alpha"], config.get("lora_dropout", 0.0), last, tuple(targets)
    )
    return lora, config.get("base_model_name_or_path") or ""


def read_peft(model: nn.Module, folder: Path) -> None:
    """Copy the adapters of a PEFT folder into a model that `add_lora` has prepared."""
    own = lora_state(model)
    stored = read_adapter(folder, {name: tuple(value.shape) for name, value in own.items()})
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(stored[name])


def read_adapter(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Read the A and B of a PEFT folder that must have these names in the model, and shapes."""
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} holds no {WEIGHTS}; it is no LoRA checkpoint")
    try:
        stored = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ModelError(
            f"{folder}/{WEIGHTS} is damaged ({error}); use another checkpoint"
        ) from None
    odd = sorted(stored.keys() ^ {_PREFIX + name for name in shapes})
    if odd:
        raise ModelError(
            f"{folder}/{WEIGHTS}: its layers are not those of this model; "
            f"{len(odd)} differ, first {odd[0]}"
        )
    result = {name: stored[_PREFIX + name] for name in shapes}
    for name, value in result.items():
        if tuple(value.shape) != shapes[name]:
            raise ModelError(
                f"{folder}: {_PREFIX}{name} has shape {tuple(value.shape)}, "
                f"this model needs {shapes[name]}"
            )
    return result


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' own progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def save_model(model: Any, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write a transformers model, with `weights` in place of its own, into an existing folder.

    config.json holds the base of RoPE in both places: transformers 5 reads `rope_parameters`, and
    other loaders read `rope_theta` or take their own default in silence.
    """
    with quiet():
        model.save_pretrained(folder, **({} if weights is None else {"state_dict": dict(weights)}))
    config = read_json(folder / "config.json")
    theta = (config.get("rope_parameters") or {}).get("rope_theta")
    if theta is not None and "rope_theta" not in config:
        write_json(folder / "config.json", config | {"rope_theta": theta})


def open_skeleton(name: str, trust_remote_code: bool = False) -> Any:
    """A transformers causal model without weights: its names, shapes and config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        right = "a model folder has config.json, *.safetensors and tokenizer.json"
        raise ModelError(f"model.name: the folder {name} holds no config.json; {right}")
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        for key in ("quantization", "quantization_config"):  # MLX's own, not transformers'
            if hasattr(config, key):
                delattr(config, key)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"model.name: transformers has no causal model for {name!r} ({reason}); "
            "adapters and checkpoints are named as transformers names its layers"
        ) from None
