"""`MlxEngine`: an mlx-lm model as a function from rows to log-probabilities.

    engine = open_mlx("path/to/model", EngineOptions(), lora=Lora(rank=8))
    logp = engine.logprobs(rows, temperature=1.0, weights=engine.start)   # float32 [rows, tokens]

Trained weights are float32; `torch_dtype` is the precision of frozen weights and of arithmetic.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from toolhone.backends.base import Lora, ModelInfo, pad_rows
from toolhone.backends.torch.device import CPU_MICRO_BATCHES, cache_tokens
from toolhone.backends.torch.engine import LOGIT_BYTES, EngineOptions
from toolhone.backends.torch.lora import (
    adapter_config,
    find_adapter,
    initial_a,
    open_skeleton,
    read_adapter,
    save_model,
    wanted_layers,
    write_adapter,
)
from toolhone.errors import CapabilityError, ModelError
from toolhone.rows import Row, different_rows, padded_targets
from toolhone.runs.run import read_json

Weights = dict[str, Any]
"""Arrays of MLX by their names in the model. Arrays are never changed, so a copy shares them."""
DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


class MlxLora(nn.Module):  # type: ignore[misc]
    """base(x) + alpha / rank * B A dropout(x); A is [rank, in], B [out, rank], as PEFT has them.

    A plain layer's product is added to the adapter's before it is rounded; the other way round
    half precision loses small changes (`kernels.AdaptedLinear`).

    `key`: the random key of dropout; None is off. It is fixed for a pass, since gradient
    checkpointing runs the layer twice.
    """

    def __init__(self, base: Any, a: Any, outputs: int, lora: Lora) -> None:
        super().__init__()
        self.base = base
        self.lora_A, self.lora_B = a, mx.zeros((outputs, lora.rank))
        self._scale, self._keep = lora.alpha / lora.rank, 1 - lora.dropout
        self._key: Any = None
        self.freeze()
        self.unfreeze(recurse=False, keys=["lora_A", "lora_B"])

    def __call__(self, x: Any) -> Any:
        inputs = x.astype(self.lora_A.dtype)
        if self._key is not None:
            kept = mx.random.bernoulli(self._keep, inputs.shape, key=self._key)
            inputs = mx.where(kept, inputs / self._keep, 0.0)
        change = inputs @ self.lora_A.T @ self.lora_B.T * self._scale
        if type(self.base) is not nn.Linear or self.base.weight.dtype != x.dtype:
            result = self.base(x)
            return result + change.astype(result.dtype)
        result = mx.addmm(change.astype(x.dtype), x, self.base.weight.T)
        return result + self.base.bias if "bias" in self.base else result


class MlxEngine:
    """The model and its precision. `start`: the trained weights at first.

    `split`: whether the model gives hidden states and its head projects them, if that is exact.
    """

    def __init__(
        self, model: Any, config: dict[str, Any], name: str, options: EngineOptions
    ) -> None:
        self.model, self.name, self.options = model, name, options
        self.lora: Lora | None = None
        self.start: Weights = {}
        self.quantised = "quantization" in config
        self.dtype = DTYPES[options.torch_dtype]
        self.max_context = int(config.get("max_position_embeddings") or 0)
        self.micro_batch_tokens = options.micro_batch_tokens or CPU_MICRO_BATCHES[0]
        device = torch.device("cpu" if mx.default_device() == mx.cpu else "mps")
        self.logit_bytes = LOGIT_BYTES[device.type]
        size = 4 if self.dtype == mx.float32 else 2
        self.cache_tokens = cache_tokens(SimpleNamespace(**config), device, size)
        self.split, self.vocabulary = self._find_split()

    @property
    def info(self) -> ModelInfo:
        has_adapter, tokens = self.lora is not None, self.micro_batch_tokens
        return ModelInfo(self.vocabulary, self.max_context, has_adapter, self.name, tokens)

    @cached_property
    def skeleton(self) -> Any:
        """The same model of transformers without weights, which names layers on disk."""
        return open_skeleton(self.name, self.options.trust_remote_code)

    @cached_property
    def lora_layers(self) -> list[str]:
        return [] if self.lora is None else wanted_layers(self.skeleton, self.lora)

    def add_lora(self, lora: Lora, adapter: Path | None) -> None:
        """Freeze the model and put adapters beside its layers: fresh ones, or those of a folder."""
        self.lora = lora
        self.model.freeze()
        parts, generator = dict(self.model.named_modules()), torch.Generator()
        generator.manual_seed(self.options.seed)
        for name in self.lora_layers:
            if not isinstance(parts.get(name), nn.Linear | nn.QuantizedLinear):
                raise ModelError(
                    f"training.lora: {name} is no linear layer of mlx-lm's model; "
                    "name others in target_modules, or use the torch backend"
                )
            outputs, inputs = self.skeleton.get_submodule(name).weight.shape
            a = mx.array(initial_a(lora.rank, inputs, generator).numpy())
            layer = MlxLora(parts[name], a, outputs, lora)
            self.model.update_modules(tree_unflatten([(name, layer)]))
        self.start = dict(tree_flatten(self.model.trainable_parameters()))
        if adapter is not None:
            self.start = self.read(adapter)

    def train_all(self) -> None:
        """Make every weight float32 and trained."""
        if self.quantised:
            raise CapabilityError(
                f"{self.name} is quantised, and quantised weights cannot be trained; "
                "set training.lora, or use the model as it was before"
            )
        self.model.set_dtype(mx.float32)
        self.start = dict(tree_flatten(self.model.trainable_parameters()))
        own = {name: tuple(value.shape) for name, value in self.start.items()}
        stored = {name: tuple(value.shape) for name, value in self.skeleton.state_dict().items()}
        if odd := sorted(own.items() - stored.items()):
            raise CapabilityError(
                f"{self.name}: mlx-lm keeps {len(odd)} weights in another form than transformers, "
                f"first {odd[0][0]}; set training.lora, or use the torch backend"
            )

    def twin(self) -> MlxEngine:
        """Another model of the same arrays, for another thread or other trained weights."""
        owned = [value for part in self.model.modules() for value in part.values()]
        shared = {id(value): value for value in owned if isinstance(value, mx.array)}
        twin = copy.copy(self)
        twin.model = copy.deepcopy(self.model, shared)
        return twin

    def put(self, weights: Weights) -> None:
        """Give the model these trained weights, in the precision of arithmetic if all learn."""
        dtype = mx.float32 if self.lora else self.dtype
        if weights:
            self.model.update(tree_unflatten([(n, v.astype(dtype)) for n, v in weights.items()]))

    def set_dropout(self, key: Any) -> None:
        """Draw the dropout of every adapter from this key; None switches it off."""
        layers = [part for part in self.model.modules() if isinstance(part, MlxLora)]
        keys = [None] * len(layers) if key is None else mx.random.split(key, len(layers))
        for layer, own in zip(layers, keys, strict=True):
            layer._key = own

    def check_length(self, longest: int) -> None:
        if self.max_context and longest > self.max_context:
            raise CapabilityError(
                f"a sequence of {longest} tokens does not fit the model's context of "
                f"{self.max_context}"
            )

    def logprobs(
        self, rows: Sequence[Row], temperature: float, weights: Weights, drops: bool = False
    ) -> Any:
        """float32 [rows, longest row]: log p(token t | tokens < t) where masked, 0 elsewhere.

        Of target t in place of token t where a row has targets. Equal rows run once, except under
        dropout.
        """
        self.put(weights)
        different, lines = different_rows(rows)
        if len(different) == len(rows) or drops:
            return self._logprobs(rows, temperature)
        return self._logprobs(different, temperature)[mx.array(lines)]

    def _logprobs(self, rows: Sequence[Row], temperature: float) -> Any:
        tokens, mask, _ = pad_rows(rows)
        self.check_length(tokens.shape[1])
        lines, places = mask[:, 1:].nonzero()
        if len(lines) == 0:
            return mx.zeros(mask.shape)
        states = self._trunk(mx.array(tokens[:, :-1]))
        hidden = states[mx.array(lines), mx.array(places)]
        targets = mx.array(padded_targets(rows, tokens)[lines, places + 1])
        size, parts = max(1, self.logit_bytes // (4 * self.vocabulary)), []
        for start in range(0, len(lines), size):
            part = hidden[start : start + size], targets[start : start + size], temperature
            whole = len(lines) <= size or not self.split
            parts.append(self._chosen(*part) if whole else self._recomputed(*part))
        flat = mx.array(lines * mask.shape[1] + places + 1)
        result = mx.zeros(mask.size).at[flat].add(mx.concatenate(parts))
        return result.reshape(mask.shape)

    def _recomputed(self, hidden: Any, targets: Any, temperature: float) -> Any:
        """`_chosen`, whose logits are computed again in the backward pass."""
        chosen = nn.utils.checkpoint(self._head(), lambda h: self._chosen(h, targets, temperature))
        return chosen(hidden)

    def _chosen(self, hidden: Any, targets: Any, temperature: float) -> Any:
        logits = self.logits(hidden)
        logits = logits if temperature == 1.0 else logits / temperature
        chosen = mx.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
        return chosen - mx.logsumexp(logits, axis=1)

    def _trunk(self, ids: Any) -> Any:
        """Hidden states [rows, tokens, width]; logits where the model is not split."""
        return self.model.model(ids) if self.split else self.model(ids)

    def logits(self, hidden: Any) -> Any:
        """float32 logits [n, vocabulary] of what `_trunk` gives at n positions."""
        if self.split:
            head = self._head()
            hidden = head(hidden) if head is self.model.get("lm_head") else head.as_linear(hidden)
        return hidden.astype(mx.float32)

    def _head(self) -> Any:
        return self.model.get("lm_head") or self.model.model.embed_tokens

    def _find_split(self) -> tuple[bool, int]:
        """Whether the model split before its head gives its own logits, and how many logits."""
        probe = mx.array([[1, 2, 3, 4]])
        self.split = False
        expected = self._trunk(probe).astype(mx.float32)
        try:
            self.split = True
            same = bool(mx.allclose(self.logits(self._trunk(probe)), expected, 1e-3, 1e-3))
        except (AttributeError, TypeError, ValueError, KeyError):
            same = False
        return same, expected.shape[-1]

    def checkpoint_layers(self) -> None:
        """Compute the hidden states inside each layer again in the backward pass."""
        for layer in self.model.layers:
            layer.__class__ = _recomputing(type(layer))

    def read(self, folder: Path) -> Weights:
        """The trained weights of a checkpoint, a PEFT folder or a model folder."""
        shapes = {name: tuple(value.shape) for name, value in self.start.items()}
        if self.lora:
            stored = read_adapter(folder, {f"{name}.weight": s for name, s in shapes.items()})
            return {name: mx.array(stored[f"{name}.weight"].float().numpy()) for name in shapes}
        model, _ = load_model_folder(str(folder), self.options.trust_remote_code)
        model.set_dtype(mx.float32)
        weights = dict(tree_flatten(model.parameters()))
        if shapes != {name: tuple(value.shape) for name, value in weights.items()}:
            raise ModelError(f"{folder}: its weights are not those of this model")
        mx.eval(weights)
        return weights

    def write_adapter(self, folder: Path, weights: Weights) -> None:
        """Write a PEFT folder, as the torch backend does."""
        assert self.lora is not None, "a model without adapters is written whole"
        config = adapter_config(self.skeleton, self.lora, self.lora_layers, self.name)
        state = {f"{name}.weight": _to_torch(value) for name, value in weights.items()}
        write_adapter(folder, config, state)

    def write_model(self, folder: Path, weights: Weights) -> None:
        """Write a plain transformers model: adapters merged, quantised weights expanded."""
        twin = self.twin()
        twin.model.update(tree_unflatten(list(weights.items())))
        layers = [(n, p) for n, p in twin.model.named_modules() if isinstance(p, MlxLora)]
        merged = {}
        for name, layer in layers:
            change = (layer.lora_B @ layer.lora_A * layer._scale).astype(mx.float32)
            merged[f"{name}.weight"] = change
            twin.model.update_modules(tree_unflatten([(name, layer.base)]))
        if self.quantised:
            from mlx_lm.utils import dequantize_model

            twin.model = dequantize_model(twin.model)
        state = dict(tree_flatten(twin.model.parameters()))
        for name, change in merged.items():
            state[name] = (state[name].astype(mx.float32) + change).astype(state[name].dtype)
        tensors = {name: _to_torch(value) for name, value in state.items()}
        self.skeleton.config.dtype = next(iter(tensors.values())).dtype
        save_model(self.skeleton, folder, tensors)


def _recomputing(kind: type) -> type:
    """A kind of layer that is recomputed, unless it fills a cache."""

    class Recomputing(kind):  # type: ignore[misc]
        def __call__(self, x: Any, mask: Any = None, cache: Any = None) -> Any:
            if cache is not None:
                return super().__call__(x, mask, cache)
            return nn.utils.checkpoint(self, super().__call__)(x, mask)

    return Recomputing


def _to_torch(value: Any) -> torch.Tensor:
    if value.dtype == mx.bfloat16:
        return torch.from_numpy(np.array(value.astype(mx.float32))).bfloat16()
    return torch.from_numpy(np.array(value))


def rope_at_top(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of RoPE where mlx-lm's models look for them.

    transformers 5 nests them in `rope_parameters`, which most models of mlx-lm do not read: they
    take their own default in silence.
    """
    nested = config.get("rope_parameters") or {}
    if any(isinstance(value, dict) for value in nested.values()):
        raise CapabilityError(
            "model.backend mlx: the RoPE settings of this model differ between its layers, "
            "which was not checked against transformers; use the torch backend"
        )
    names = ("rope_theta", "partial_rotary_factor")
    lifted: dict[str, Any] = {name: nested[name] for name in names if name in nested}
    if nested.get("rope_type", "default") != "default":
        scaling = {name: value for name, value in nested.items() if name not in names}
        lifted["rope_scaling"] = scaling
    return lifted


def load_model_folder(name: str, trust_remote_code: bool = False) -> tuple[Any, dict[str, Any]]:
    """mlx-lm's model of a folder or hub name, and its config."""
    from mlx_lm.utils import load_model

    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.py"]))
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model.name: the folder {name} holds no config.json; "
            "a model folder has config.json and *.safetensors"
        )
    top = rope_at_top(read_json(folder / "config.json"))
    try:
        model, config = load_model(
            folder, lazy=True, model_config=top, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"model.name: mlx-lm cannot load {name!r} ({reason}); use the torch backend"
        ) from None
    return model, config


def open_mlx(
    name: str | Path,
    options: EngineOptions,
    lora: Lora | None = None,
    adapter: Path | None = None,
    learns: bool = True,
) -> MlxEngine:
    """Load a model with fresh adapters, those of a PEFT folder, or none (full training)."""
    _check_options(options, learns)
    name, adapter, lora = find_adapter(str(name), adapter, lora)
    model, config = load_model_folder(name, options.trust_remote_code)
    model.set_dtype(DTYPES[options.torch_dtype])
    engine = MlxEngine(model, config, name, options)
    if lora:
        engine.add_lora(lora, adapter)
    elif learns:
        engine.train_all()
    if learns and options.gradient_checkpointing:
        engine.checkpoint_layers()
    mx.eval(engine.model.parameters(), engine.start)
    return engine


def _check_options(options: EngineOptions, learns: bool) -> None:
    if options.device_map == "cpu" and platform.system() == "Darwin":
        mx.set_default_device(mx.cpu)
    refusals = {
        f"model.device_map {options.device_map!r}; use 'auto' or 'cpu'": options.device_map
        not in ("auto", "cpu", "mps"),
        "model.model_class; leave it out": options.loader is not None,
        "training in float16, which needs a scaled loss; use bfloat16": learns
        and options.torch_dtype == "float16",
    }
    for what, refused in refusals.items():
        if refused:
            raise CapabilityError(f"model.backend mlx cannot do {what}, or the torch backend")
