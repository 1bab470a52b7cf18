"""Attention of a prefix forest, as an implementation of transformers' `AttentionInterface`.

    install(model)
    model.base_model(input_ids=ids, position_ids=positions, attention_mask=NO_MASK, forest=plan)

Without `forest` the model attends as before. Each node attends to itself and to its ancestors, one
part after the other; parts are joined by their log-sum-exp, so no key is copied and none is padded.
"""

from __future__ import annotations

import copy
import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from toolhone.backends.torch.attention_plan import AttentionPlan
from toolhone.backends.torch.forest import Forest
from toolhone.backends.torch.kernels import kernel_of
from toolhone.backends.torch.recompute import kept_result

ERROR = 1e-4
"""How far hidden states of a forest may be from those of padded rows, relative to their norm."""
REFUSALS = (AttributeError, TypeError, RuntimeError, ValueError, IndexError)
"""What a model raises that cannot run a forest."""
PROBED = 16
"""Words that the rows of this comparison have."""
PREFIX = "toolhone_"
"""Before the name of the attention that a model has without a forest, in transformers' registry."""


def install(model: Any) -> bool:
    """Let a model take `forest=`; whether its class has transformers' attention interface."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

    before = (getattr(model.config, "_attn_implementation", "") or "").removeprefix(PREFIX)
    settable = getattr(type(model), "_can_set_attn_implementation", None)
    if settable is None or not settable():
        return False
    usual: Callable[[Any], Callable[..., Any]]
    if before == "sdpa":
        usual, mask = lambda _: sdpa_attention_forward, sdpa_mask
    elif before == "eager":
        usual, mask = _own_attention, eager_mask
    else:
        return False

    def attend(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any
    ) -> tuple[torch.Tensor, Any]:
        plan = options.pop("forest", None)
        if plan is None:
            found = usual(module)(module, query, key, value, attention_mask, **options)
            return found[0], found[1]
        return forest_attention(module, query, key, value, plan, options), None

    AttentionInterface.register(PREFIX + before, attend)
    AttentionMaskInterface.register(PREFIX + before, mask)
    model.set_attn_implementation(PREFIX + before)
    return True


def _own_attention(module: Any) -> Callable[..., Any]:
    """The attention that the module's own source file has, where torch's has no soft caps."""
    found: Callable[..., Any] = sys.modules[type(module).__module__].eager_attention_forward
    return found


def forest_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    plan: AttentionPlan,
    options: dict[str, Any],
) -> torch.Tensor:
    """[1, tokens, heads, width] of queries, keys and values [1, (kv) heads, tokens, width].

    `options` are what the model gives to its attention: scaling, sliding_window, softcap.
    """
    odd = [name for name in ("s_aux", "position_bias") if options.get(name) is not None]
    if odd or options.get("dropout"):
        raise TypeError(f"attention with {', '.join(odd) or 'dropout'} is not that of a forest")
    scale = options.get("scaling")
    window = options.get("sliding_window")
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    layer = getattr(module, "layer_idx", 0)
    plan.windows[layer] = window
    result: torch.Tensor = ForestAttention.apply(  # type: ignore[no-untyped-call]
        query, key, value, plan, (scale, options.get("softcap")), window
    )
    return result


def run_forest(model: Any, forest: Forest, plan: AttentionPlan) -> torch.Tensor:
    """Hidden states [places, width] of a forest, by a model that `prepare` has prepared."""
    device = plan.positions.device
    states: torch.Tensor = model.base_model(
        input_ids=torch.from_numpy(forest.tokens).to(device)[None],
        position_ids=plan.positions[None],
        attention_mask=torch.ones((1, 1, 1, 1), device=device),  # a mask, so that none is made
        use_cache=False,
        forest=plan,
    ).last_hidden_state[0]
    if plan.wanted is None or len(states) == len(plan.wanted):
        return states
    return states.index_select(0, plan.wanted)


class LastLayer(threading.local):
    """What the last layer of a forest is asked for, in the thread that runs it.

    Behind its attention only the wanted places run. Its input is cut to them for the residual, its
    norm gets the whole input back for the keys, and the output of its attention is cut again.
    """

    wanted: torch.Tensor | None = None
    states: torch.Tensor | None = None

    @staticmethod
    def install(model: Any) -> list[Any]:
        """Hooks of the last layer; none where its parts have other names."""
        lists = [part for part in model.base_model.modules() if isinstance(part, nn.ModuleList)]
        layer = max(lists, key=len)[-1] if lists else nn.Module()
        norms = [part for part in layer.children() if "Norm" in type(part).__name__]
        attentions = [part for part in layer.children() if hasattr(part, "layer_idx")]
        if not norms or not attentions:
            return []
        return [
            layer.register_forward_pre_hook(LastLayer.enter, with_kwargs=True),
            norms[0].register_forward_pre_hook(LastLayer.restore),
            attentions[0].register_forward_hook(LastLayer.cut),
            layer.register_forward_hook(LastLayer.leave),
        ]

    @staticmethod
    def enter(_: Any, inputs: Any, options: Any) -> Any:
        plan = options.get("forest")
        LAST.wanted, LAST.states = getattr(plan, "wanted", None), inputs[0]
        if LAST.wanted is None:
            return None
        return (inputs[0].index_select(1, LAST.wanted), *inputs[1:]), options

    @staticmethod
    def restore(_: Any, inputs: Any) -> Any:
        return None if LAST.wanted is None else (LAST.states, *inputs[1:])

    @staticmethod
    def cut(_: Any, __: Any, output: Any) -> Any:
        if LAST.wanted is None:
            return None
        return (output[0].index_select(1, LAST.wanted), *output[1:])

    @staticmethod
    def leave(*_: Any) -> None:
        LAST.wanted = LAST.states = None


LAST = LastLayer()


def prepare(model: Any, device: torch.device, checkpointed: bool = False) -> str | None:
    """Let a model run forests; None, or why it cannot.

    Compares the hidden states of four rows with those of padded ids, in float32. Under autocast the
    model itself has to give finite states, and its first layers, widened, have to give the same.
    Hooks are not run again with a checkpointed layer, so there the last layer runs whole.
    """
    config = model.config.get_text_config()
    if len(set(getattr(model, "hf_device_map", {}).values())) > 1:
        return "it is spread over several devices"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope in ("dynamic", "longrope"):
        return f"its positions ({rope}) depend on the longest row of a batch"
    odd = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if odd:
        return f"it has layers of the kind {', '.join(sorted(odd))}"
    if not install(model):
        return "its class lacks transformers' attention interface"
    wide = not torch.is_autocast_enabled(device.type)
    cuts = False
    try:
        reason = _difference(model, device, ERROR if wide else math.inf)
        probe = model if wide or reason is not None else widened(model)
        with torch.autocast(device.type, enabled=False):
            if probe is not model:
                reason = _difference(probe, device, ERROR)
            cuts = reason is None and not checkpointed and _cuts_alike(probe, device)
    except REFUSALS as problem:
        reason = f"it refuses one ({' '.join(str(problem).split()):.80})"
    if reason is not None:
        model.set_attn_implementation(model.config._attn_implementation.removeprefix(PREFIX))
    elif cuts:
        LastLayer.install(model)
    return reason


def _cuts_alike(model: Any, device: torch.device) -> bool:
    """Whether the last layer gives the same states where only the wanted places run."""
    hooks = LastLayer.install(model)
    try:
        return _difference(model, device, ERROR, every=3) is None
    except REFUSALS:
        return False
    finally:
        for hook in hooks:
            hook.remove()


def widened(model: Any) -> Any:
    """A float32 twin with the first `PROBED` words and layers, as many as show each of its kinds.

    In half precision rounding alone can move the state of a rare token by more than its size
    (SmolLM2; docs/log.md), so that no bound would tell it from a fault.
    """
    base = model.base_model
    lists = [(name, part) for name, part in base.named_modules() if isinstance(part, nn.ModuleList)]
    name, layers = max(lists, key=lambda one: len(one[1]))
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or [""]
    count = max(2, *(1 + kinds.index(kind) for kind in kinds))
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    words = [value for end in ends if end is not None for value in end.parameters(recurse=False)]
    few = {id(value): nn.Parameter(value[:PROBED].float(), False) for value in words}
    base.set_submodule(name, nn.ModuleList(layers[:count]))
    try:
        twin = copy.deepcopy(model, few).float()
    finally:
        base.set_submodule(name, layers)
    twin.get_input_embeddings().padding_idx = None  # a word beyond the first
    return twin


def _difference(model: Any, device: torch.device, error: float, every: int = 1) -> str | None:
    """How the states of four short rows (at every n-th place) differ from padded ones, or None.

    `error`: the largest norm of the difference, relative to the norm of the states.
    """
    config = model.config.get_text_config()
    stem, branch = [*range(1, 11)], [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    rows = [[*stem, *branch, 7, 7], [*stem, *branch, 2], [*stem, 8, 4, 8], [5, 1, 6]]
    context = getattr(config, "max_position_embeddings", None) or 32
    ids = [np.array(row[:context], np.int64) % min(config.vocab_size, PROBED) for row in rows]
    forest = Forest.of(ids)
    asked = np.arange(every - 1, len(forest.tokens), every)
    wanted = torch.from_numpy(asked).to(device) if every > 1 else None
    plan = AttentionPlan.of(forest, device, wanted)
    padded = torch.tensor([np.pad(row, (0, len(ids[0]) - len(row))).tolist() for row in ids])
    with torch.no_grad():
        ours = run_forest(model, forest, plan).float()
        theirs = model.base_model(input_ids=padded.to(device), use_cache=False)
        theirs = theirs.last_hidden_state.float()
    for row, places in enumerate(forest.places):
        at = np.flatnonzero(np.isin(places, asked))
        expected = theirs[row, torch.from_numpy(at).to(device)]
        gap = ours[torch.from_numpy(np.searchsorted(asked, places[at])).to(device)] - expected
        if not gap.norm() <= error * expected.norm():
            return f"its states differ by {float(gap.norm() / expected.norm()):.1g} of their size"
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    for layer, found in plan.windows.items():
        slides = kinds[layer] == "sliding_attention" if kinds else window is not None
        if found != (window if slides else None):
            return f"layer {layer} does not name its sliding window"
    return None


class ForestAttention(torch.autograd.Function):
    """Softmax attention of every part, joined by log-sum-exp (as ring attention does,
    arXiv:2310.01889): with the joint log-sum-exp, the gradients of the parts add up to the whole.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        plan: AttentionPlan,
        scores: tuple[float, float | None],
        window: int | None,
    ) -> torch.Tensor:
        """`scores`: their scale and their soft cap."""
        ctx.plan, ctx.window, ctx.kernel = plan, window, kernel_of(query, value, *scores)
        joint, total = kept_result(lambda: _attend(query, key, value, ctx), always=True)
        ctx.save_for_backward(query, key, value, joint, total)
        return joint[None]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        query, key, value, joint, total = ctx.saved_tensors
        q, k, v = _by_kv_head(query, key, value)
        shape = (q.shape[2], q.shape[0], q.shape[1], -1)
        slope, out = (each.reshape(shape).permute(1, 2, 0, 3) for each in (grad[0], joint))
        dq, dk, dv = (torch.zeros_like(each) for each in (query, key, value))
        q_sum, k_sum, v_sum = dq[0].view(q.shape), dk[0], dv[0]
        for part, mask in ctx.plan.masked(ctx.window, q.dtype):
            at, of = part.queries, part.keys
            own = ctx.kernel.backward(
                (slope[:, :, at], out[:, :, at], total[:, :, at]),
                (q[:, :, at], k[:, :, of], v[:, :, of]),
                part.causal,
                mask,
            )
            q_sum[:, :, at] += own[0]
            k_sum[:, of] += own[1].sum(1)
            v_sum[:, of] += own[2].sum(1)
        return dq, dk, dv, None, None, None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ctx: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [tokens, heads, width] and log-sum-exp [kv heads, repeats, tokens] of all parts."""
    q, k, v = _by_kv_head(query, key, value)
    heads, repeats, count, _ = q.shape
    joint = q.new_empty(count, heads * repeats, v.shape[-1])
    out = joint.view(count, heads, repeats, -1).permute(1, 2, 0, 3)
    total = q.new_empty((heads, repeats, count), dtype=torch.promote_types(q.dtype, torch.float32))
    for part, mask in ctx.plan.masked(ctx.window, q.dtype):
        at, of = part.queries, part.keys
        own, norm = ctx.kernel.forward(q[:, :, at], k[:, :, of], v[:, :, of], part.causal, mask)
        if part.causal:
            out[:, :, at], total[:, :, at] = own, norm
            continue
        both = torch.logaddexp(total[:, :, at], norm)
        before, now = (each.sub(both).exp_()[..., None] for each in (total[:, :, at], norm))
        out[:, :, at] = out[:, :, at] * before + own * now
        total[:, :, at] = both
    return joint, total


def _by_kv_head(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views [kv heads, repeats, tokens, width]; keys and values are not copied."""
    heads = key.shape[1]
    repeats = query.shape[1] // heads
    q = query[0].view(heads, repeats, *query.shape[2:])
    k, v = (each[0][:, None].expand(-1, repeats, -1, -1) for each in (key, value))
    return q, k, v
