"""Sampling with the torch backend: what is run once, kept and read together changes no sample."""

from __future__ import annotations

import gc
import math
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    PreTrainedConfig,
)

from backends.test_torch_models import CONFIGS, CPU, SIZES, save_model
from toolhone.backends.base import Adam, Lora, Sample, SamplingParams, train_step
from toolhone.backends.torch import cascade_decoder
from toolhone.backends.torch import trainer as torch_trainer
from toolhone.backends.torch.cascade import DecodePass
from toolhone.backends.torch.cascade_decoder import CascadeDecoder
from toolhone.backends.torch.decoding_engine import decoding_bytes, decoding_engine
from toolhone.backends.torch.draw import BLOCK, SampleRow, _inverse
from toolhone.backends.torch.padded_decoder import PaddedDecoder
from toolhone.backends.torch.prefix_cache import PrefixCache, PrefixNode
from toolhone.backends.torch.sampler import TorchSampler
from toolhone.backends.torch.shared import SharedBase
from toolhone.backends.torch.trainer import open_sampler, open_trainer
from toolhone.rows import Row
from toolhone.training.losses import cross_entropy

GEMMA: dict[str, Any] = {**SIZES, "head_dim": 8, "sliding_window": 16}
FAMILIES: dict[str, PreTrainedConfig] = {
    **CONFIGS,
    "gemma3": Gemma3TextConfig(
        **GEMMA, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
    ),
    "gemma2": Gemma2Config(**GEMMA, attn_logit_softcapping=5.0, query_pre_attn_scalar=8),
}
NEAR = 1e-5
"""A gap between the best two logits below which rounding may choose."""


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(FAMILIES[request.param], tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(CONFIGS["qwen3"], tmp_path_factory.mktemp("qwen3"))


def some_prompts(groups: int, size: int, seed: int = 0) -> list[list[int]]:
    """Groups of equal prompts; some begin alike, and one begins like nothing else."""
    rng = np.random.default_rng(seed)
    block, prompts = rng.integers(3, 64, 23).tolist(), list[list[int]]()
    for number in range(groups):
        shared = block[: len(block) - 9 * (number % 3 == 1)] if number % 4 < 3 else []
        prompts += [[*shared, *rng.integers(3, 64, 1 + number % 13).tolist()]] * size
    return prompts


def differences_from_generate(folder: Path, prompts: list[list[int]], length: int) -> list[int]:
    """Rows whose greedy tokens are not those of `generate`, without near-ties at the first."""
    sampler = open_sampler(folder, CPU)
    assert isinstance(sampler.decoder(), CascadeDecoder)
    model, odd = AutoModelForCausalLM.from_pretrained(folder), []
    settings = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    params = SamplingParams(max_tokens=length, temperature=0.0)
    wanted = dict[tuple[int, ...], list[int]]()
    for row, (prompt, (sample,)) in enumerate(
        zip(prompts, sampler.sample(prompts, params), strict=True)
    ):
        if tuple(prompt) not in wanted:
            ids = model.generate(torch.tensor([prompt]), max_new_tokens=length, **settings)
            wanted[tuple(prompt)] = ids[0, len(prompt) :].tolist()
        right = wanted[tuple(prompt)]
        if right != sample.tokens:
            same = next(i for i in range(length) if right[i] != sample.tokens[i])
            best = model(torch.tensor([[*prompt, *right[:same]]])).logits[0, -1].topk(2).values
            print(f"row {row} differs at a gap of {float(best[0] - best[1]):.1e}")
            odd += [row] if best[0] - best[1] >= NEAR else []
    return odd


@pytest.mark.parametrize("copied", [0, cascade_decoder.COPIED], ids=["shared", "copied"])
def test_greedy_tokens_of_groups_are_those_of_generate(
    folder: Path, copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade_decoder, "COPIED", copied)
    assert differences_from_generate(folder, some_prompts(5, 2), 20) == []


@pytest.mark.slow
def test_greedy_tokens_of_many_rows_are_those_of_generate(folder: Path) -> None:
    assert differences_from_generate(folder, some_prompts(28, 3, seed=1), 40) == []


def test_frequencies_of_20000_draws_agree_with_the_softmax(qwen: Path) -> None:
    sampler, prompt, draws = open_sampler(qwen, CPU), [5, 9, 7], 20_000
    params = SamplingParams(max_tokens=2, num_samples=draws, temperature=0.7, seed=3)
    ((*samples,),) = sampler.sample([prompt], params)
    model = AutoModelForCausalLM.from_pretrained(qwen)
    with torch.no_grad():
        firsts = (model(torch.tensor([prompt])).logits[0, -1] / 0.7).softmax(-1).double()
        rows = torch.tensor([[*prompt, token] for token in range(64)])
        seconds = firsts @ (model(rows).logits[:, -1] / 0.7).softmax(-1).double()
    for place, expected in enumerate((firsts.numpy(), seconds.numpy())):
        counts = np.bincount([sample.tokens[place] for sample in samples], minlength=64)
        common = expected * draws >= 5
        wanted, found = expected[common] * draws, counts[common]
        freedom = int(common.sum()) - 1
        chi = float(((found - wanted) ** 2 / wanted).sum())
        assert chi < freedom + 4 * math.sqrt(2 * freedom), place
        rest = draws - found.sum()
        assert abs(rest - (draws - wanted.sum())) < 5 * math.sqrt(draws - wanted.sum() + 1)


def test_a_sample_and_its_log_probabilities_do_not_depend_on_its_neighbours(folder: Path) -> None:
    sampler = open_sampler(folder, CPU)
    prompts, params = some_prompts(4, 2), SamplingParams(max_tokens=16, seed=9)
    together = sampler.sample(prompts, params)
    for key, (prompt, (sample,)) in enumerate(zip(prompts, together, strict=True)):
        sampler.forget()
        ((alone,),) = sampler.sample([prompt], params, [key])
        assert alone.tokens == sample.tokens
        np.testing.assert_allclose(alone.logprobs, sample.logprobs, rtol=0, atol=5e-6)


def test_log_probabilities_of_sampling_are_those_of_whole_rows(folder: Path) -> None:
    sampler, prompts = open_sampler(folder, CPU), some_prompts(4, 2)
    samples = sampler.sample(prompts, SamplingParams(max_tokens=16, temperature=0.8))
    rows = [
        Row.of([*prompt, *one.tokens], [False] * len(prompt) + [True] * len(one.tokens))
        for prompt, (one,) in zip(prompts, samples, strict=True)
    ]
    for row, values, (one,) in zip(rows, sampler.logprobs(rows, 0.8), samples, strict=True):
        np.testing.assert_allclose(values[row.mask], one.logprobs, rtol=0, atol=1e-5)


class Counting:
    """Counts the tokens of every pass of decoders."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes, run = list[int](), CascadeDecoder._run
        passes = self.passes

        def counted(self: CascadeDecoder, one: Any, tokens: Any, positions: Any) -> torch.Tensor:
            passes.append(len(tokens))
            return run(self, one, tokens, positions)

        monkeypatch.setattr(CascadeDecoder, "_run", counted)

    def take(self) -> list[int]:
        taken, self.passes[:] = list(self.passes), []
        return taken


def test_what_prompts_have_in_common_runs_once(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = open_sampler(qwen, CPU)
    sampler.decoder()
    counting, block = Counting(monkeypatch), list(range(10, 40))
    prompts = [[*block, 3, 4, 5]] * 4 + [[*block, 6, 7]] * 4 + [[*block, 8]]
    sampler.sample(prompts, SamplingParams(max_tokens=3))
    assert counting.take() == [30 + 3 + 2 + 1, 9, 9]


def test_keys_that_few_rows_share_are_copied_and_those_of_many_are_read_once(qwen: Path) -> None:
    engine, block = open_sampler(qwen, CPU)._engine, list(range(10, 40))
    rows = [SampleRow((*block, 3, 4, 5 + n % 2), SamplingParams(), 9, None) for n in range(8)]
    layers = []  # rows x tokens x heads x width of the second and of the first node
    for copied in (0, 4 * 1 * 2 * 8, 8 * 32 * 2 * 8):
        decoder = CascadeDecoder(decoding_engine(engine, False), PrefixCache(), copied)
        decoder.join(rows)
        layers.append([len(slot.path) for slot in decoder._slots])
    assert layers == [[2] * 8, [1] * 8, [0] * 8]


def test_the_next_turn_runs_its_new_tokens_only(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, params = open_sampler(qwen, CPU), SamplingParams(max_tokens=6, seed=4)
    stream = sampler.stream()
    sampler.decoder()  # tries the model on some tokens
    prompts = dict(enumerate([[*range(10, 30), 3 + number // 2] for number in range(4)]))
    for turn in range(3):
        counting = Counting(monkeypatch)
        for key, prompt in prompts.items():
            stream.submit(key, prompt, replace(params, seed=turn))
        finished: dict[int, list[Sample]] = {}
        while polled := stream.poll():
            finished.update(polled)
        first, *steps = counting.take()
        assert first == (22 if turn == 0 else 4 * (1 + 5)), "the last sampled token and the result"
        assert steps == [4] * 5
        fresh = open_sampler(qwen, CPU)
        for key, (sample,) in finished.items():
            ((alone,),) = fresh.sample([prompts[key]], replace(params, seed=turn), [key])
            assert alone.tokens == sample.tokens
            prompts[key] = [*prompts[key], *sample.tokens, *range(40, 45)]


def test_kept_tokens_are_bounded_and_those_in_use_are_not_dropped(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = open_sampler(qwen, CPU)
    monkeypatch.setattr(sampler._live, "cache_tokens", 400)
    rng, stream, params = np.random.default_rng(0), sampler.stream(), SamplingParams(max_tokens=8)
    prompts = {key: rng.integers(3, 64, 30).tolist() for key in range(40)}
    for key, prompt in prompts.items():
        stream.submit(key, prompt, params)
    finished: dict[int, list[Sample]] = {}
    while polled := stream.poll():
        finished.update(polled)
        decoder = stream._decoder
        assert isinstance(decoder, CascadeDecoder)
        storage, kept = decoder._storage, sampler._cache.tokens
        read = sum(len(node.tokens) for node in decoder.nodes)
        assert kept == read or kept + storage.count * storage.room <= 400
        assert len(decoder.rows) <= 400 // 38
    assert len(finished) == 40
    fresh = open_sampler(qwen, CPU)
    for key, (sample,) in finished.items():
        assert fresh.sample([prompts[key]], params, [key])[0][0].tokens == sample.tokens


def test_two_streams_of_one_sampler_share_what_is_kept_and_do_not_disturb_each_other(
    qwen: Path,
) -> None:
    sampler, params = open_sampler(qwen, CPU), SamplingParams(max_tokens=30, seed=2)
    whole, part = list(range(10, 50)), [*range(10, 30), 5]
    one, other = sampler.stream(), sampler.stream()
    one.submit(1, whole, params)
    one.submit(2, whole, params)
    one.submit(3, whole, replace(params, max_tokens=2))
    assert [key for key, _ in one.poll()] == [3]
    other.submit(9, part, params)  # cuts the node that the first stream reads
    assert [key for key, _ in other.poll()] == [9]
    rest = dict(one.poll())
    for key, (sample,) in rest.items():
        fresh = open_sampler(qwen, CPU)
        assert fresh.sample([whole], params, [key])[0][0].tokens == sample.tokens


def test_a_pass_that_fails_leaves_nothing_behind_that_is_not_filled(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, params, run = (
        open_sampler(qwen, CPU),
        SamplingParams(max_tokens=4),
        CascadeDecoder._run,
    )
    prompts = [[*range(10, 30), number] for number in (3, 4)]
    wanted = sampler.sample(prompts, params)
    sampler.forget()
    monkeypatch.setattr(CascadeDecoder, "_run", lambda *_: torch.empty(0)[1])
    with pytest.raises(IndexError):
        sampler.sample(prompts, params)
    monkeypatch.setattr(CascadeDecoder, "_run", run)
    assert [one.tokens for (one,) in sampler.sample(prompts, params)] == [
        one.tokens for (one,) in wanted
    ]


@pytest.mark.parametrize("merges", [True, False])
def test_adapters_are_merged_to_decode_in_float32(qwen: Path, merges: bool) -> None:
    trainer = open_trainer(qwen, Lora(rank=2), CPU)
    rows = [Row.of([3, 4, 5, 6, 7], [True] * 5).with_arrays(weights=1.0)]
    train_step(trainer, [rows], cross_entropy(), Adam(0.05))
    sampler, params = TorchSampler(trainer.engine, merges), SamplingParams(max_tokens=12)
    decoder = sampler.decoder()
    assert isinstance(decoder, CascadeDecoder)
    names = [name for name, _ in decoder._engine.model.named_parameters()]
    assert any("lora_A" in name for name in names) is not merges
    adapted = [
        trainer.engine.model.get_submodule(name).weight for name in trainer.engine.lora_layers
    ]
    assert decoding_bytes(trainer.engine) == 4 * sum(map(torch.numel, adapted))
    ((sample,),) = sampler.sample([[3, 4]], params)
    row = Row.of([3, 4, *sample.tokens], [False] * 2 + [True] * 12)
    np.testing.assert_allclose(trainer.logprobs([row]).value[0][2:], sample.logprobs, atol=1e-5)


@pytest.mark.parametrize("fault", [False, True])
def test_half_precision_is_sampled_from_side_by_side_whatever_it_rounds(
    fault: bool, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cascade_decoder.CascadeDecoder._run

    def rounding(*inputs: Any) -> torch.Tensor:
        found = real(*inputs)
        own = inputs[0]._engine.compute_dtype
        return found * 2 if own is torch.bfloat16 or fault else found

    monkeypatch.setattr(cascade_decoder.CascadeDecoder, "_run", rounding)
    engine = open_trainer(qwen, Lora(rank=2), replace(CPU, torch_dtype="bfloat16")).engine
    assert cascade_decoder.is_exact(engine) is not fault
    layers = engine.model.base_model.layers
    assert len(layers) == engine.model.config.num_hidden_layers
    assert all(layer.mlp.up_proj.base.weight.dtype is torch.bfloat16 for layer in layers)


def test_a_sampler_keeps_nothing_while_gradients_are_made(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[torch.device] = []
    monkeypatch.setattr(torch_trainer, "trim_heap", given_back.append)
    trainer = open_trainer(qwen, Lora(rank=2), CPU)
    rows = [Row.of([3, 4, 5, 6, 7], [True] * 5).with_arrays(weights=1.0)]
    sampler, params = trainer.snapshot(), SamplingParams(max_tokens=12)
    before = sampler.sample([[3, 4]], params, [1])[0][0]
    assert sampler._decoding is not None
    merged = weakref.ref(sampler._decoding[1].model)
    assert sampler._cache.tokens > 0
    for _ in range(2):
        trainer.forward_backward(rows, cross_entropy())
    gc.collect()
    assert merged() is None
    assert sampler._cache.tokens == 0
    assert given_back == [trainer.engine.device]
    again = sampler.sample([[3, 4]], params, [1])[0][0]
    assert again.tokens == before.tokens
    assert np.array_equal(again.logprobs, before.logprobs)


def test_what_running_rows_read_is_kept_while_gradients_are_made(qwen: Path) -> None:
    sampler = open_sampler(qwen, CPU)
    twin, prompt = decoding_engine(sampler._engine, False), (3, 4, 5, 6, 7)
    decoder = CascadeDecoder(twin, sampler._cache, copied=0)
    row = SampleRow(prompt, SamplingParams(), 2, None)
    decoder.join([row, SampleRow(prompt, SamplingParams(), 2, None)])
    kept = sampler._cache.tokens
    sampler.rest()
    assert sampler._cache.tokens == kept > 0


def test_adapters_of_a_base_that_many_share_are_not_merged(qwen: Path, tmp_path: Path) -> None:
    base = SharedBase(str(qwen), CPU)
    base.trainer(Lora(rank=2), 0).save(tmp_path / "adapter", optimizer=False)
    decoder = base.sampler(tmp_path / "adapter").decoder()
    assert isinstance(decoder, CascadeDecoder)
    own = {value.data_ptr() for value in base._engine.model.parameters()}
    apart = [
        name
        for name, value in decoder._engine.model.named_parameters()
        if value.data_ptr() not in own
    ]
    assert all("lora_" in name for name in apart)


def test_a_model_without_the_interface_is_sampled_in_padded_batches_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4)
    folder = save_model(config, tmp_path)
    sampler, prompts = open_sampler(folder, CPU), some_prompts(5, 2)
    assert isinstance(sampler.decoder(), PaddedDecoder)
    assert isinstance(sampler.decoder(), PaddedDecoder)
    said = capsys.readouterr().err
    assert said.count("padded batches") == 1
    assert str(folder) in said
    stops = tuple(range(0, 64, 7))
    params = SamplingParams(max_tokens=12, stop_ids=stops, seed=3)
    together = sampler.sample(prompts, params)
    assert len({len(one.tokens) for (one,) in together}) > 2
    for key, (prompt, (sample,)) in enumerate(zip(prompts, together, strict=True)):
        assert sampler.sample([prompt], params, [key])[0][0].tokens == sample.tokens


def test_what_disagrees_with_the_model_is_not_used(
    qwen: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DecodePass, "_own_mask", lambda *_: torch.full((1, 1, 1, 1), -1e30))
    assert isinstance(open_sampler(qwen, CPU).decoder(), PaddedDecoder)
    assert "padded batches" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------
# the cache of prefixes


def grown(cache: PrefixCache, parent: PrefixNode | None, tokens: list[int]) -> PrefixNode:
    node = cache.add(parent, tokens)
    keys = torch.tensor(tokens, dtype=torch.float32)[None, :, None]
    node.put(0, keys, -keys)
    return node


def keys_of(node: PrefixNode | None) -> list[float]:
    return (
        [] if node is None else torch.cat([one.keys[0] for one in node.path], 1).flatten().tolist()
    )


def test_the_longest_cached_prefix_is_found_and_cut_where_sequences_part() -> None:
    cache = PrefixCache()
    first = grown(cache, None, list(range(10)))
    grown(cache, first, [20, 21, 22, 23, 24])
    long = grown(cache, first, [20, 21, 22, 23, 24, 25, 26, 27])
    assert keys_of(cache.match([*range(10), 20, 21, 22, 23, 24, 25, 99])) == [
        *range(10),
        *range(20, 26),
    ]
    assert keys_of(long) == [*range(10), *range(20, 28)]
    assert keys_of(cache.match([*range(7), 99])) == list(range(7))
    assert keys_of(long) == [*range(10), *range(20, 28)]
    assert cache.match([99, 98, 97, 96]) is None
    assert cache.match([0, 1, 2, 99]) is None, "too short to be shared"
    assert cache.tokens == 10 + 5 + 8


def test_the_last_token_of_a_prompt_runs_again_unless_its_state_is_kept() -> None:
    cache = PrefixCache()
    node = grown(cache, None, list(range(10)))
    node.state = torch.zeros(1)
    assert cache.match(list(range(10))) is node
    assert keys_of(cache.match(list(range(8)))) == list(range(7))


def test_what_was_not_used_for_longest_is_dropped_first_and_what_is_read_never() -> None:
    class Reading:
        def __init__(self, nodes: set[PrefixNode]) -> None:
            self.nodes = nodes

    cache = PrefixCache()
    parts = [grown(cache, None, [10 * i, *range(100, 109)]) for i in range(4)]
    below = grown(cache, parts[3], list(range(50, 60)))
    reading = Reading(set(parts[0].path))
    cache.readers.add(reading)
    cache.match([*parts[1].tokens, 1])
    cache.shrink(34)
    assert cache.tokens == 30
    assert cache.match([*parts[0].tokens, 1]) is parts[0]
    assert cache.match([*parts[1].tokens, 1]) is parts[1]
    cache.shrink(0)
    assert cache.tokens == 10, f"{below.tokens} went before {parts[3].tokens}"


# ------------------------------------------------------------------------------------------------
# drawing


@pytest.mark.parametrize("vocabulary", [7, BLOCK, BLOCK + 3, 5 * BLOCK + 77])
def test_drawing_by_blocks_finds_the_id_that_a_search_of_all_finds(vocabulary: int) -> None:
    rng = np.random.default_rng(vocabulary)
    weights = torch.from_numpy(rng.exponential(1.0, (2000, vocabulary))).float()
    weights[torch.from_numpy(rng.random((2000, vocabulary)) < 0.7)] = 0.0
    weights[:, vocabulary // 2] += 0.1
    uniform = torch.from_numpy(rng.random(2000)).float()
    uniform[:3] = torch.tensor([0.0, 1.0, 0.5])
    sums = weights.double().cumsum(1)
    targets = uniform.double()[:, None] * sums[:, -1:] * (1 - 1e-7)
    wanted = torch.searchsorted(sums, targets, right=True)[:, 0].clamp(max=vocabulary - 1)
    found = _inverse(weights, uniform)
    assert (weights.gather(1, found[:, None]) > 0).all()
    assert (found != wanted).sum() == 0
