"""The prefix forest: tries of rows, micro-batches by distinct tokens, and the log-probabilities and
gradients of rows that run alone, on many families.
"""

import ctypes
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BloomConfig,
    DiffLlamaConfig,
    Gemma2Config,
    Gemma3TextConfig,
    Lfm2Config,
    LlamaConfig,
    OlmoConfig,
    PreTrainedConfig,
    Qwen3MoeConfig,
)

from backends.test_torch_models import CONFIGS, CPU, SIZES, save_model
from toolhone.backends.base import Lora
from toolhone.backends.torch import attention, kernels, recompute
from toolhone.backends.torch import engine as engines
from toolhone.backends.torch.attention import ForestAttention
from toolhone.backends.torch.attention_plan import AttentionPlan
from toolhone.backends.torch.engine import Engine, EngineOptions
from toolhone.backends.torch.forest import SHORTEST, Forest, inputs_of, split
from toolhone.backends.torch.lora import LoraLayer
from toolhone.backends.torch.shared import SharedBase
from toolhone.backends.torch.trainer import open_trainer
from toolhone.rows import Row
from toolhone.training.losses import cross_entropy

GEMMA: dict[str, Any] = {**SIZES, "head_dim": 8, "sliding_window": 12, "query_pre_attn_scalar": 8}
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES: dict[str, PreTrainedConfig] = {
    **CONFIGS,
    "llama3 rope": LlamaConfig(**SIZES, rope_parameters=ROPE),
    "gemma2": Gemma2Config(**GEMMA, attn_logit_softcapping=2.0, final_logit_softcapping=5.0),
    "gemma3": Gemma3TextConfig(
        **GEMMA, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
    ),
    "mixture": Qwen3MoeConfig(
        **SIZES, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    ),
}


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def groups_of_rows() -> list[Row]:
    """Three prompts with a common beginning, four replies each; a row alone; a row again."""
    random = np.random.default_rng(0)
    stem, rows = random.integers(3, 64, 20), []
    for more in (12, 17, 22):
        prompt = np.concatenate([stem, random.integers(3, 64, more)])
        for length in (6, 9, 12, 15):
            row = [*prompt.tolist(), *random.integers(3, 64, length).tolist()]
            rows.append(Row.of(row, [place >= len(prompt) for place in range(len(row))]))
    alone = Row.of(random.integers(3, 64, 30).tolist(), [place >= 5 for place in range(30)])
    rows += [alone, rows[0]]
    total = sum(int(row.mask.sum()) for row in rows)
    return [
        row.with_arrays(weights=row.mask * np.float32((place + 1) / total))
        for place, row in enumerate(rows)
    ]


def random_rows(random: np.random.Generator) -> list[np.ndarray]:
    stems = [random.integers(0, 3, random.integers(0, 40)) for _ in range(4)]
    return [
        np.concatenate(
            [
                stems[random.integers(4)][: random.integers(0, 40)],
                random.integers(0, 3, random.integers(0, 20)),
            ]
        )
        for _ in range(random.integers(1, 12))
    ]


def test_a_forest_holds_every_row_along_its_nodes_and_nobody_elses_tokens() -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        rows = random_rows(random)
        forest = Forest.of(rows)
        owner = np.zeros(len(forest.tokens), int)
        for number, node in enumerate(forest.nodes):
            owner[node.start : node.end] = number
        for row, places in zip(rows, forest.places, strict=True):
            assert np.array_equal(forest.tokens[places], row)
            assert np.array_equal(forest.positions[places], np.arange(len(row)))
            if len(row):
                above = [
                    n for n, node in enumerate(forest.nodes) if node.start <= places[-1] < node.stop
                ]
                assert above == sorted(set(owner[places].tolist()))


def test_a_block_prompts_and_replies_become_three_levels() -> None:
    forest = Forest.of([row.tokens for row in groups_of_rows()])
    sizes = [node.end - node.start for node in forest.nodes]
    assert sorted(sizes)[-4:] == [17, 20, 22, 30]
    assert len(forest.nodes) == 1 + 3 + 12 + 1
    assert len(forest.tokens) == 20 + 51 + 3 * 42 + 30, "every token once"


def test_rows_of_a_forest_without_sharing_are_trees_of_their_own() -> None:
    row = np.arange(30)
    forest = Forest.of([row, row], share=False)
    assert [node.end - node.start for node in forest.nodes] == [30, 30]


def test_a_few_common_tokens_are_no_node() -> None:
    few, many = np.arange(SHORTEST - 1), np.arange(SHORTEST)
    for stem, nodes in ((few, 2), (many, 3)):
        forest = Forest.of([np.append(stem, [90, 91]), np.append(stem, [92, 93])])
        assert len(forest.nodes) == nodes


def test_micro_batches_hold_distinct_tokens_within_the_limit_and_whole_groups() -> None:
    random = np.random.default_rng(1)
    for turn in range(200):
        rows, limit = random_rows(random), int(random.integers(1, 80))
        groups = [(None, "a", "b")[random.integers(3)] if turn % 2 else None for _ in rows]
        batches = split(rows, limit, groups)
        assert sorted(index for batch in batches for index in batch) == list(range(len(rows)))
        for batch in batches:
            size = len(Forest.of([rows[index] for index in batch]).tokens)
            assert size <= limit or len({groups[index] or index for index in batch}) == 1
        for name in "ab":
            members = [i for i, group in enumerate(groups) if group == name]
            runs = [[i for i in batch if groups[i] == name] for batch in batches]
            assert not members or members in runs, "a group is whole and in its order"


def test_micro_batches_are_cut_between_prompts() -> None:
    random = np.random.default_rng(0)
    rows = []
    for _ in range(3):
        prompt = random.integers(0, 99, 50)
        rows += [np.append(prompt, random.integers(0, 99, 10)) for _ in range(4)]
    order = random.permutation(12).tolist()
    batches = split([rows[place] for place in order], 150, [None] * 12)
    assert sorted(sorted(order[i] for i in batch) for batch in batches) == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forest_has_the_logprobs_and_gradients_of_rows_alone(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_trainer(save_model(FAMILIES[family], tmp_path), None, CPU).engine
    assert engine.shares_prefixes
    assert engine.info.note == ""
    rows = groups_of_rows()

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        found = engine.logprobs(rows, 0.7)
        weights = torch.linspace(-1, 1, found.numel()).view_as(found)
        slopes = torch.autograd.grad((found * weights).sum(), list(engine.model.parameters()))
        return found.detach(), torch.cat([slope.flatten() for slope in slopes])

    ours, slopes = run()
    monkeypatch.setattr(engine, "shares_prefixes", False)
    theirs, wanted = run()
    assert torch.allclose(ours, theirs, atol=2e-5)
    assert (slopes - wanted).norm() <= 5e-6 * wanted.norm()


@pytest.mark.parametrize(
    ("window", "cap", "plain"),
    [(None, None, False), (7, None, False), (None, None, True), (7, None, True), (7, 1.5, True)],
)
def test_attention_of_a_forest_is_exact_in_float64(
    window: int | None, cap: float | None, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plain:
        monkeypatch.setattr(
            attention, "kernel_of", lambda _, __, scale, cap: kernels.PlainKernel(scale, cap or 0)
        )
        monkeypatch.setattr(kernels, "SCORE_BYTES", 4 * 4 * 20 * 3)
    forest = Forest.of([row.tokens for row in groups_of_rows()])
    count, heads, kv_heads, width = len(forest.tokens), 4, 2, 8
    made = torch.Generator().manual_seed(0)
    query, key, value, slope = (
        torch.randn(1, count, each, width, generator=made, dtype=torch.float64).transpose(1, 2)
        for each in (heads, kv_heads, kv_heads, heads)
    )
    inputs = [each.requires_grad_() for each in (query, key, value)]
    plan = AttentionPlan.of(forest, torch.device("cpu"))
    ours = ForestAttention.apply(*inputs, plan, (0.3, cap), window)
    found = torch.autograd.grad(ours, inputs, slope.transpose(1, 2))

    sees = torch.zeros(count, count, dtype=torch.bool)
    for places in forest.places:
        near = np.arange(len(places))[:, None] - np.arange(len(places))
        seen = (near >= 0) & (near < (window or 999))
        sees[np.ix_(places, places)] |= torch.from_numpy(seen)
    scores = query[0] @ key[0].repeat_interleave(2, 0).mT * 0.3
    scores = torch.tanh(scores / cap) * cap if cap else scores
    shares = scores.masked_fill(~sees, -math.inf).softmax(-1)
    theirs = (shares @ value[0].repeat_interleave(2, 0)).transpose(0, 1)[None]
    wanted = torch.autograd.grad(theirs, inputs, slope.transpose(1, 2))
    assert torch.allclose(ours, theirs, atol=1e-12)
    for own, other in zip(found, wanted, strict=True):
        assert torch.allclose(own, other, atol=1e-12)


def test_checkpointed_layers_give_the_same_gradients_on_a_forest(tmp_path: Path) -> None:
    folder = save_model(CONFIGS["qwen3"], tmp_path)
    plain, saving = (
        open_trainer(folder, None, replace(CPU, gradient_checkpointing=on)) for on in (False, True)
    )
    assert saving.engine.shares_prefixes
    for trainer in (plain, saving):
        trainer.forward_backward(groups_of_rows(), cross_entropy())
    for (name, one), (_, other) in zip(
        plain.engine.trainable(), saving.engine.trainable(), strict=True
    ):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-6), name


@pytest.mark.parametrize("shared", [False, True], ids=["own layers", "one layer in two places"])
def test_attention_of_checkpointed_layers_is_computed_once(
    shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runs = save_model(CONFIGS["qwen3"], tmp_path), list[int]()
    real = kernels.CpuKernel.forward

    def counted(*inputs: Any) -> Any:
        runs.append(1)
        return real(*inputs)

    monkeypatch.setattr(kernels.CpuKernel, "forward", counted)
    slopes, counts = [], []
    for on in (False, True):
        trainer = open_trainer(folder, None, replace(CPU, gradient_checkpointing=on))
        layers = trainer.engine.model.base_model.layers
        if shared:
            layers[1] = layers[0]
        runs.clear()
        trainer.forward_backward(groups_of_rows(), cross_entropy())
        counts.append(len(runs))
        slopes.append(layers[0].self_attn.q_proj.weight.grad.clone())
    assert torch.allclose(*slopes, atol=1e-6)
    assert counts[0] == counts[1] > 0


def test_a_layer_that_attends_twice_has_the_same_gradients_where_it_is_checkpointed(
    tmp_path: Path,
) -> None:
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3}
    folder, slopes = save_model(DiffLlamaConfig(**sizes, **heads), tmp_path), []
    for on in (False, True):
        trainer = open_trainer(folder, None, replace(CPU, gradient_checkpointing=on))
        assert trainer.engine.shares_prefixes
        trainer.forward_backward(groups_of_rows(), cross_entropy())
        slopes.append([value.grad for _, value in trainer.engine.trainable()])
    for one, other in zip(*slopes, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_checkpointed_layers_keep_the_products_of_adapters_that_have_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rooms, runs, slopes = save_model(CONFIGS["qwen3"], tmp_path), [], [0], []
    product, make = torch.Tensor.addmm_, recompute.Room
    monkeypatch.setattr(recompute, "Room", lambda free: rooms.append(make(free)) or rooms[-1])

    def counted(*inputs: Any) -> Any:  # the products by frozen weights
        runs[-1] += 1
        return product(*inputs)

    monkeypatch.setattr(torch.Tensor, "addmm_", counted)
    for room in (None, 10**9, 20_000, 0):
        monkeypatch.setattr(recompute, "kept_bytes", lambda _, room=room: room)
        options = replace(CPU, gradient_checkpointing=room is not None)
        runs.append(0)
        trainer = open_trainer(folder, Lora(4), options)
        runs[-1] = 0
        trainer.forward_backward(groups_of_rows(), cross_entropy())
        slopes.append([value.grad for _, value in trainer.engine.trainable()])
        assert room is None or rooms[-1].free == room
    plain, every, some, none = runs[1:]
    assert 0 < plain == every < some < none
    for found, exact in zip(slopes[1:], (False, True, True), strict=True):
        for one, other in zip(found, slopes[1 if exact else 0], strict=True):
            assert torch.equal(one, other) if exact else torch.allclose(one, other, atol=1e-6)


def test_where_memory_runs_out_layers_keep_no_products_before_batches_are_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = replace(CPU, gradient_checkpointing=True)
    trainer = open_trainer(save_model(CONFIGS["qwen3"], tmp_path), Lora(4), options)
    engine, real, fails = trainer.engine, Engine.logprobs, [1]

    def full(*inputs: Any) -> Any:
        if fails and fails.pop():
            raise MemoryError("out of memory")
        return real(*inputs)

    monkeypatch.setattr(Engine, "logprobs", full)
    assert engine.room is not None
    limit, size = engine.micro_batch_tokens, engine.room.size
    trainer.forward_backward(groups_of_rows(), cross_entropy())
    assert (engine.micro_batch_tokens, engine.room.size) == (limit, 0)
    assert engine.room.free == size > 0
    assert "layers recompute the products of adapters" in capsys.readouterr().err
    fails.append(1)
    trainer.forward_backward(groups_of_rows(), cross_entropy())
    assert engine.micro_batch_tokens < limit


@pytest.mark.parametrize("saves", [False, True])
def test_queries_that_their_model_clips_in_place_have_adapters(saves: bool, tmp_path: Path) -> None:
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "clip_qkv": 0.02}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    folder = save_model(OlmoConfig(**sizes, **heads), tmp_path)
    trainer = open_trainer(folder, Lora(4), replace(CPU, gradient_checkpointing=saves))
    slopes = []
    for joins in (True, False):
        for part in trainer.engine.model.modules():
            if isinstance(part, LoraLayer) and not joins:
                part.base.register_forward_hook(lambda *_: None)
        trainer.forward_backward(groups_of_rows(), cross_entropy())
        slopes.append([value.grad.clone() for _, value in trainer.engine.trainable()])
        for _, value in trainer.engine.trainable():
            value.grad = None
    for one, other in zip(*slopes, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_kept_result_that_was_changed_in_place_is_computed_again() -> None:
    calls = list[int]()

    def run(change: bool) -> torch.Tensor:
        (made,) = recompute.kept_result(lambda: (calls.append(1), (torch.ones(3),))[1])
        return made.mul_(2) if change else made

    for change, times in ((False, 1), (True, 2)):
        calls.clear()
        layer = recompute.LayerPass(recompute.Room(10**6))
        assert layer(run, change).tolist() == layer(run, change).tolist()
        assert len(calls) == times


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is what keeps the holes")
def test_checkpointed_layers_give_their_holes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trims: list[int] = []
    library = SimpleNamespace(malloc_trim=trims.append)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(recompute, "TRIMMED", 2)
    options = replace(CPU, gradient_checkpointing=True)
    engine = open_trainer(save_model(CONFIGS["llama"], tmp_path), Lora(2), options).engine
    engine.set_learning(True)
    engine.logprobs(groups_of_rows(), 1.0).sum().backward()
    assert len(trims) == engine.model.config.num_hidden_layers  # two passes, at every second layer


def test_rows_share_nothing_where_adapters_drop_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(CONFIGS["qwen3"], tmp_path)
    engine = open_trainer(folder, Lora(rank=2, dropout=0.5), CPU).engine
    read: list[int] = []
    states = engine.forest_states
    monkeypatch.setattr(
        engine, "forest_states", lambda one, at: (read.append(len(one.tokens)), states(one, at))[1]
    )
    rows = groups_of_rows()
    for dropout in (False, True):
        engine.set_learning(True, dropout)
        engine.logprobs(rows, 1.0)
    assert read[0] < read[1] == sum(len(row) - 1 for row in rows)


LFM = {**SIZES, "layer_types": ["conv", "full_attention", "conv"]}
LONG = {**SIZES, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Lfm2Config(**LFM), "it has layers of the kind conv"),
        (LlamaConfig(**LONG), "its positions (dynamic) depend on the longest row of a batch"),
        (
            BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4),
            "its class lacks transformers' attention interface",
        ),
    ],
    ids=["convolutions", "dynamic rope", "bloom"],
)
def test_a_model_that_cannot_run_a_forest_runs_padded_and_says_why(
    config: PreTrainedConfig, said: str, tmp_path: Path
) -> None:
    trainer = open_trainer(save_model(config, tmp_path), None, CPU)
    assert not trainer.engine.shares_prefixes
    assert trainer.info.note.endswith(f"run padded, not as a prefix forest: {said}")
    together = trainer.snapshot().logprobs(groups_of_rows())
    (alone,) = trainer.snapshot().logprobs(groups_of_rows()[3:4])
    assert np.allclose(together[3], alone, atol=1e-4)


def test_a_forest_that_differs_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        AttentionPlan, "masked", lambda self, *_: ((p, None) for p in self.parts[:4])
    )
    engine = open_trainer(save_model(CONFIGS["qwen3"], tmp_path), None, CPU).engine
    assert not engine.shares_prefixes
    assert "its states differ by" in engine.info.note
    assert engine.model.config._attn_implementation == "sdpa"


def test_a_sliding_window_that_a_layer_does_not_name_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = attention.forest_attention

    def without(module: Any, q: Any, k: Any, v: Any, plan: Any, options: dict[str, Any]) -> Any:
        return real(module, q, k, v, plan, {**options, "sliding_window": None})

    monkeypatch.setattr(attention, "forest_attention", without)
    config = CONFIGS["mistral"].__class__(**SIZES, sliding_window=4096)
    engine = open_trainer(save_model(config, tmp_path), None, CPU).engine
    assert "layer 0 does not name its sliding window" in engine.info.note


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_forests(dtype: str, tmp_path: Path) -> None:
    options = EngineOptions(device_map="cpu", torch_dtype=dtype)
    trainer = open_trainer(save_model(CONFIGS["qwen3"], tmp_path), Lora(rank=2), options)
    assert trainer.engine.shares_prefixes, trainer.info.note
    first = trainer.forward_backward(groups_of_rows(), cross_entropy()).result()["loss"]
    trainer.engine.shares_prefixes = False
    second = trainer.forward_backward(groups_of_rows(), cross_entropy()).result()["loss"]
    assert first == pytest.approx(second, rel=0.03)


def test_half_precision_is_proven_on_widened_layers_whatever_it_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, masked = attention.forest_attention, AttentionPlan.masked

    def rounding(*inputs: Any) -> torch.Tensor:
        found = real(*inputs)
        return found * (1 + 0.3 * torch.randn(found.shape)) if found.element_size() < 4 else found

    monkeypatch.setattr(attention, "forest_attention", rounding)
    options = EngineOptions(device_map="cpu", torch_dtype="bfloat16")
    folder = save_model(FAMILIES["gemma3"], tmp_path)
    assert open_trainer(folder, Lora(rank=2), options).engine.shares_prefixes
    monkeypatch.setattr(
        AttentionPlan, "masked", lambda self, *_: ((p, None) for p, _ in masked(self, None, None))
    )
    engine = open_trainer(folder, Lora(rank=2), options).engine
    assert "its states differ by" in engine.info.note


def test_a_frozen_head_has_the_gradients_of_whole_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(FAMILIES["gemma2"], tmp_path)
    engine = open_trainer(folder, Lora(rank=2), CPU).engine
    weights = [value for _, value in engine.trainable()]
    monkeypatch.setitem(engines.LOGIT_BYTES, "cpu", 7 * 64 * 4)

    def run() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        found = engine.logprobs(groups_of_rows(), 0.7)
        return found, torch.autograd.grad((found * found).sum(), weights)

    ours, slopes = run()
    monkeypatch.setattr(
        engine, "_project_targets", lambda *inputs: engine._target_logprobs(*inputs)
    )
    theirs, wanted = run()
    assert torch.allclose(ours, theirs, atol=1e-6)
    for own, other in zip(slopes, wanted, strict=True):
        assert (own - other).norm() <= 1e-5 * other.norm() + 1e-6


def test_a_copy_of_a_model_runs_forests_as_well(tmp_path: Path) -> None:
    base = SharedBase(str(save_model(CONFIGS["qwen3"], tmp_path)), CPU)
    trainer = base.trainer(Lora(rank=2), 0)
    assert trainer.info.note == ""
    assert trainer.engine.shares_prefixes


def test_micro_batches_that_run_at_once_repeat_a_common_block_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "CPU_THREADS", 2)
    trainer = open_trainer(save_model(CONFIGS["qwen3"], tmp_path), None, CPU)
    random = np.random.default_rng(0)
    block = random.integers(3, 64, 60).tolist()
    tails = [random.integers(3, 64, 21).tolist() for _ in range(8)]
    rows = [Row.of([*block, *tail], [place >= 60 for place in range(81)]) for tail in tails]
    batches = trainer._batches(rows, False, 2)
    assert [len(batch) for batch in batches] == [4, 4]
    assert [trainer.engine.count(batch) for batch in batches] == [60 + 4 * 20] * 2


@pytest.mark.parametrize("family", ["qwen3", "llama", "gemma3", "gpt2"])
def test_the_last_layer_runs_at_the_wanted_places_alone(family: str, tmp_path: Path) -> None:
    engine = open_trainer(save_model(FAMILIES[family], tmp_path), None, CPU).engine
    forest = Forest.of([inputs_of(row) for row in groups_of_rows()])
    seen: list[int] = []
    parts = [part for part in engine.model.modules() if "MLP" in type(part).__name__]
    parts[-1].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    asked = np.array([5, 3, 5, 11])
    few = engine.forest_states(forest, asked)
    every = engine.forest_states(forest, np.arange(len(forest.tokens)))
    whole = len(forest.tokens)  # gpt2 gives its states the shape of its input
    assert seen == [whole if family == "gpt2" else 3, whole]
    assert torch.allclose(few, every[asked], atol=1e-5)
