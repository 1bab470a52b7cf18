"""`Engine`: a transformers causal model as a function from rows to log-probabilities.

    engine = open_engine("path/to/model", lora=Lora(rank=8), options=EngineOptions())
    logp = engine.logprobs(rows, temperature=1.0)    # float32 [rows, tokens], 0 outside the mask

Trained weights are float32; `torch_dtype` is the precision of frozen weights and of arithmetic.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from toolhone.backends.base import Lora, ModelInfo, pad_rows
from toolhone.backends.torch.attention import prepare, run_forest, widened
from toolhone.backends.torch.attention_plan import AttentionPlan
from toolhone.backends.torch.device import (
    PassBytes,
    cache_tokens,
    default_micro_batch,
    find_device,
    token_bytes,
)
from toolhone.backends.torch.forest import Forest, Ids, inputs_of, split
from toolhone.backends.torch.kernels import LOGIT_BYTES as LOGIT_BYTES
from toolhone.backends.torch.kernels import FrozenHead
from toolhone.backends.torch.kernels import chunked as chunked
from toolhone.backends.torch.lora import (
    LoraLayer,
    add_lora,
    find_adapter,
    merge_adapters,
    quiet,
    read_peft,
    save_model,
)
from toolhone.backends.torch.recompute import Room, checkpoint_layers
from toolhone.errors import CapabilityError, ModelError
from toolhone.rows import Row, different_rows, micro_batches, padded_targets
from toolhone.runs.run import read_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SMALL = 512
"""Models up to this width run on one thread; several of their micro-batches train at once."""
CPU_THREADS = torch.get_num_threads()
"""Threads of this process before a small model lowers them."""


@dataclass(frozen=True)
class EngineOptions:
    """How to run a model. `device_map`: "auto" (the best single device), a device, or a map.

    `micro_batch_tokens`: tokens in one forward pass; None: `device.default_micro_batch`.
    `loader(name, dtype)` replaces transformers' Auto class.
    """

    torch_dtype: str = "float32"
    device_map: str | dict[str, Any] = "auto"
    trust_remote_code: bool = False
    gradient_checkpointing: bool = False
    micro_batch_tokens: int | None = None
    seed: int = 0
    loader: Callable[[str, torch.dtype], Any] | None = None


class Engine:
    """The model, its device and precision.

    `split`: whether `trunk` gives hidden states and `logits` projects them, if that is exact.
    `shares_prefixes`: whether rows run as a prefix forest, if that is exact.
    `workers`: micro-batches that run at once on the CPU. `room`: what checkpointed layers share.
    """

    def __init__(
        self,
        model: Any,
        name: str,
        options: EngineOptions,
        lora: Lora | None,
        layers: list[str],
        room: Room | None = None,
    ) -> None:
        self.model, self.name, self.options = model, name, options
        self.lora, self.lora_layers, self.room = lora, layers, room
        config = model.config.get_text_config()
        embedding = model.get_input_embeddings().weight
        self.device: torch.device = embedding.device
        self.compute_dtype = DTYPES[options.torch_dtype]
        self.max_context = int(getattr(config, "max_position_embeddings", 0) or 0)
        size = 4 if self.compute_dtype is torch.float32 else 2
        rule = default_micro_batch(config, self.device, size)
        least, most = (token_bytes(config, size, one) for one in (room is not None, False))
        self.pass_bytes = PassBytes(least, most, room.size if room and lora else 0)
        self.cache_tokens = cache_tokens(config, self.device, size)
        self.micro_batch_tokens = options.micro_batch_tokens or rule
        vocabulary, tokens = int(embedding.shape[0]), self.micro_batch_tokens
        width = int(getattr(config, "hidden_size", SMALL + 1))
        small = self.device.type == "cpu" and width <= SMALL
        self.workers, threads = (CPU_THREADS, 1) if small else (1, CPU_THREADS)
        torch.set_num_threads(threads)
        self._drops, self._learning = False, False
        self.split, self.head_width = self._find_split()
        reason: str | None = "its class cannot be split before its head"
        if self.split:
            with self.autocast():
                reason = prepare(model, self.device, options.gradient_checkpointing)
        self.shares_prefixes = reason is None
        note = f"note: rows of this model run padded, not as a prefix forest: {reason}"
        note = "" if self.shares_prefixes else note
        self.info = ModelInfo(vocabulary, self.max_context, lora is not None, name, tokens, note)

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Name and value of each weight that learns."""
        return [
            (name, value) for name, value in self.model.named_parameters() if value.requires_grad
        ]

    def with_weights(self, weights: Mapping[str, torch.Tensor]) -> Engine:
        """A twin with other trained weights that shares all others; this engine stays as it is."""
        shared = {id(value): value for value in (*self.model.parameters(), *self.model.buffers())}
        for name, value in self.trainable():
            shared[id(value)] = nn.Parameter(weights[name], requires_grad=False)
        twin = copy.copy(self)
        twin.model = copy.deepcopy(self.model, shared)
        return twin

    def widened(self) -> Engine:
        """A float32 twin of the first layers, whose numbers tell a fault from rounding."""
        twin = copy.copy(self)
        twin.model, twin.compute_dtype = widened(self.model), torch.float32
        return twin

    def write_merged(self, folder: Path) -> None:
        """Write a plain transformers model, adapters merged into a copy of their layers."""
        model = self.with_weights(dict(self.trainable())).model if self.lora else self.model
        merge_adapters(model, self.lora_layers)
        save_model(model, folder)

    def set_learning(self, on: bool, dropout: bool = False) -> bool:
        """Switch training mode, where activation checkpointing requires it, and LoRA's dropout.

        Returns whether dropout is on; it is off where the adapters have none.
        """
        drops = on and dropout and self.lora is not None and self.lora.dropout > 0
        if (on, drops) != (self._learning, self._drops):
            self._learning, self._drops = on, drops
            self.model.train(on and self.options.gradient_checkpointing)
            for part in self.model.modules():
                if isinstance(part, LoraLayer):
                    part.dropout.train(drops)
        return drops

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.compute_dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_dtype)

    def check_length(self, longest: int) -> None:
        if self.max_context and longest > self.max_context:
            raise CapabilityError(
                f"a sequence of {longest} tokens does not fit the model's context of "
                f"{self.max_context}"
            )

    def logprobs(self, rows: Sequence[Row], temperature: float) -> torch.Tensor:
        """float32 [rows, longest row]: log p(token t | tokens < t) where masked, 0 elsewhere.

        Of target t in place of token t where a row has targets.

        Equal rows run once, since the episodes of a group often are equal; not under dropout.
        """
        self.check_length(max(map(len, rows)))
        run = self._forest_logprobs if self.shares_prefixes else self._padded_logprobs
        different, lines = different_rows(rows)
        random = self._drops or (self.model.training and not self.shares_prefixes)
        if len(different) == len(rows) or random:
            return run(rows, temperature)
        return run(different, temperature)[torch.tensor(lines, device=self.device)]

    def _forest_logprobs(self, rows: Sequence[Row], temperature: float) -> torch.Tensor:
        """`logprobs` on a prefix forest."""
        forest = Forest.of([inputs_of(row) for row in rows], share=not self._drops)
        at = [np.flatnonzero(row.mask) for row in rows]
        source = np.concatenate([own[to - 1] for own, to in zip(forest.places, at, strict=True)])
        asked = [row.tokens if row.targets is None else row.targets for row in rows]
        wanted = np.concatenate([ids[to] for ids, to in zip(asked, at, strict=True)])
        line = np.repeat(np.arange(len(rows)), [len(to) for to in at])
        result = torch.zeros((len(rows), max(map(len, rows))), device=self.device)
        if len(source) == 0:
            return result
        targets, lines, columns = (
            torch.from_numpy(each).to(self.device) for each in (wanted, line, np.concatenate(at))
        )
        hidden = self.forest_states(forest, source)
        return result.index_put(
            (lines, columns), self._project_targets(hidden, targets, temperature)
        )

    def forest_states(self, forest: Forest, places: Ids) -> torch.Tensor:
        """Hidden states [places, width] of a forest; a place may be asked for several times."""
        wanted, at = (
            torch.from_numpy(found).to(self.device)
            for found in np.unique(places, return_inverse=True)
        )
        plan = AttentionPlan.of(forest, self.device, wanted)
        with self.autocast():
            states = run_forest(self.model, forest, plan)
        return states.index_select(0, at)

    def _padded_logprobs(self, rows: Sequence[Row], temperature: float) -> torch.Tensor:
        tokens, mask, _ = pad_rows(rows)
        ids = torch.from_numpy(tokens).to(self.device)
        targets = torch.from_numpy(padded_targets(rows, tokens)).to(self.device)
        masked = torch.from_numpy(mask).to(self.device)
        result = torch.zeros(ids.shape, dtype=torch.float32, device=self.device)
        row, place = masked[:, 1:].nonzero(as_tuple=True)
        if len(row) == 0:
            return result
        with self.autocast():
            hidden = self.trunk(ids[:, :-1])[row, place]
        values = self._project_targets(hidden, targets[row, place + 1], temperature)
        return result.index_put((row, place + 1), values)

    def batches(self, rows: Sequence[Row], limit: float, whole_groups: bool) -> list[list[int]]:
        """Indices of rows that run together: at most `limit` tokens, of a group in one batch.

        Distinct tokens in a forest, padded ones without.
        """
        if not self.shares_prefixes:
            return micro_batches(rows, int(limit), whole_groups)
        groups = [row.group if whole_groups else None for row in rows]
        return split([inputs_of(row) for row in rows], limit, groups, share=not self._drops)

    def count(self, rows: Sequence[Row]) -> int:
        """Tokens of a forward pass on these rows: distinct in a forest, padded without."""
        if not self.shares_prefixes:
            return len(rows) * max(map(len, rows), default=0)
        return len(Forest.of([inputs_of(row) for row in rows], share=not self._drops).tokens)

    def _project_targets(
        self, hidden: torch.Tensor, targets: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        size = max(1, LOGIT_BYTES.get(self.device.type, 64 * 2**20) // (4 * self.head_width))
        head = self.model.get_output_embeddings() if self.split else None
        learns = head is None or any(value.requires_grad for value in head.parameters())
        if learns or not (torch.is_grad_enabled() and hidden.requires_grad):
            return chunked(self._target_logprobs, hidden, targets, temperature, size)
        found: torch.Tensor = FrozenHead.apply(  # type: ignore[no-untyped-call]
            hidden, partial(self._target_logprobs, temperature=temperature), targets, size
        )
        return found

    def _target_logprobs(
        self, hidden: torch.Tensor, targets: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        logits = self.logits(hidden) if temperature == 1.0 else self.logits(hidden) / temperature
        return -nn.functional.cross_entropy(logits, targets, reduction="none")

    def trunk(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states [rows, tokens, width]; logits where the model is not split."""
        if self.split:
            states: torch.Tensor = self.model.base_model(
                input_ids=ids, use_cache=False
            ).last_hidden_state
        else:
            states = self.model(input_ids=ids, use_cache=False).logits
        return states

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 logits [n, vocabulary] of what `trunk` gives at n positions."""
        with self.autocast():
            return (self._project(hidden) if self.split else hidden).float()

    def _project(self, hidden: torch.Tensor) -> torch.Tensor:
        config, head = self.model.config.get_text_config(), self.model.get_output_embeddings()
        cap, scale = (
            getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale")
        )
        divisor = getattr(config, "logits_scaling", None)
        if not torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(head.weight.dtype)
        logits: torch.Tensor = head(hidden)
        logits = logits * scale if scale else logits / divisor if divisor else logits
        return torch.tanh(logits / cap) * cap if cap else logits

    def _find_split(self) -> tuple[bool, int]:
        """Whether the model split before its head gives its own logits, and how many logits.

        A model of a user's class is not split: its `forward` may add what only learns later.
        """
        model = self.model
        known = type(model).__module__.startswith("transformers.")
        probe = torch.arange(1, 5, device=self.device)[None]
        probe = probe % model.config.get_text_config().vocab_size
        with torch.no_grad(), self.autocast():
            self.split = False
            expected = self.trunk(probe).float()
            try:
                self.split = known and model.get_output_embeddings() is not None
                ours = self._project(self.trunk(probe)).float() if self.split else expected
                same = torch.allclose(ours.to(expected.device), expected, rtol=1e-3, atol=1e-3)
            except (AttributeError, TypeError, RuntimeError):
                same = False
        return self.split and same, expected.shape[-1]


def open_engine(
    name: str | Path,
    options: EngineOptions,
    lora: Lora | None = None,
    adapter: Path | None = None,
    learns: bool = True,
) -> Engine:
    """Load a causal model with fresh adapters, those of a PEFT folder, or none (full training).

    Weights that learn are float32; with `learns` False all are of `torch_dtype`.
    """
    name, adapter, lora = find_adapter(str(name), adapter, lora)
    dtype = DTYPES[options.torch_dtype] if lora or not learns else torch.float32
    model = load_causal_model(name, options, dtype)
    _disable_dropout(model)
    layers = add_lora(model, lora, options.seed) if lora else []
    if adapter is not None:
        read_peft(model, adapter)
    room = checkpoint_layers(model) if options.gradient_checkpointing else None
    model.eval()
    return Engine(model, name, options, lora, layers, room)


def load_causal_model(name: str, options: EngineOptions, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    config = Path(name) / "config.json"
    if Path(name).is_dir() and not config.is_file():
        raise ModelError(
            f"model.name: the folder {name} holds no config.json; "
            "a model folder has config.json and *.safetensors"
        )
    if config.is_file() and "quantization" in read_json(config):
        raise ModelError(
            f"model.name: {name} is quantised by MLX; open it with model.backend=mlx, "
            "or use the model as it was before"
        )
    device, mapped = find_device(options.device_map)
    if options.loader is not None:
        return _user_model(options.loader, name, dtype).to(device)
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=dtype,
                trust_remote_code=options.trust_remote_code,
                device_map=options.device_map if mapped else None,
            )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        if "couldn't connect" in reason or "not a valid model identifier" in reason:
            reason = "no such folder here, and not found on the hub"
        raise ModelError(
            f"model.name: no causal model could be loaded from {name!r} ({reason}); "
            "give a model folder, a hub name or 'pico'"
        ) from None
    return model if mapped else model.to(device)


def _user_model(loader: Callable[[str, torch.dtype], Any], name: str, dtype: torch.dtype) -> Any:
    """The model of a user's loader, whose own errors keep their traceback."""
    model = loader(name, dtype)
    required = ("get_input_embeddings", "get_output_embeddings", "config", "save_pretrained")
    missing = [part for part in required if not hasattr(model, part)]
    if not isinstance(model, nn.Module) or missing:
        lacks = f" without {', '.join(missing)}" if isinstance(model, nn.Module) else ""
        raise ModelError(
            "model.model_class must give a transformers causal model, "
            f"it gave a {type(model).__name__}{lacks}"
        )
    return model.to(dtype)


def _disable_dropout(model: nn.Module) -> None:
    """Set every dropout of the model to 0; its config stays as it is."""
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        for key, value in list(vars(part).items()):
            is_rate = "dropout" in key or key.endswith("_pdrop") or key == "jitter_noise"
            if isinstance(value, float) and is_rate:
                setattr(part, key, 0.0)
