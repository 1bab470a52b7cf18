"""Every backend computes what the torch backend computes, on one model with one adapter.

A new backend adds one `Partner` to `PARTNERS`; tolerances are those measured between torch and MLX
on random models in float32.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from toolhone.backends.base import (
    Adam,
    Batch,
    Lora,
    Loss,
    Muon,
    Optimizer,
    SamplingParams,
    Trainer,
    WeightSampler,
    pad_rows,
)
from toolhone.backends.gradient import loss_gradient
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import open_trainer as open_torch_trainer
from toolhone.errors import CapabilityError
from toolhone.rows import Row
from toolhone.training.losses import (
    VARIANTS,
    cross_entropy,
    policy_loss,
    preference_loss,
    reply_shares,
    token_weights,
)

VOCAB, CONTEXT = 96, 64
LORA = Lora(rank=4, alpha=8.0)
LOGPROBS, GRADIENTS = 5e-6, 1e-5
"""Largest absolute difference of a log-probability, and relative L2 difference of a gradient."""
WEIGHTS = "adapter_model.safetensors"

Adapter = dict[str, Any]


@dataclass(frozen=True)
class Partner:
    """`open(model, adapter)` gives a trainer of the model folder that starts from the PEFT folder,
    or from fresh adapters `LORA` of seed 0."""

    open: Callable[[Path, Path | None], Trainer]


def open_torch(model: Path, adapter: Path | None) -> Trainer:
    options = EngineOptions(device_map="cpu", micro_batch_tokens=64)
    return open_torch_trainer(model, LORA, options, adapter)


def open_mlx(model: Path, adapter: Path | None) -> Trainer:
    pytest.importorskip("mlx_lm", reason="the extra mlx is not installed")
    from toolhone.backends.mlx import open_trainer

    return open_trainer(model, LORA, EngineOptions(micro_batch_tokens=100), adapter)


PARTNERS = {"mlx": Partner(open_mlx)}


# ------------------------------------------------------------------------------------------------
# one model, one adapter, rows


def save_random(folder: Path, kind: str = "Qwen3", theta: float = 10_000.0) -> Path:
    """A random model of a family, as transformers saves it. Its last norm is large: the logits of
    a stock random model are too flat to tell two policies apart."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        sliding_window=None,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    torch.manual_seed(1)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    with torch.no_grad():
        model.model.norm.weight.mul_(8)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random(tmp_path_factory.mktemp("parity") / "model")


@pytest.fixture(scope="module")
def adapter(model: Path) -> Path:
    """A PEFT folder by torch whose B is not zero."""
    folder = model.parent / "adapter"
    open_torch(model, None).save(folder, optimizer=False)
    rng = np.random.default_rng(5)
    state = load_file(folder / WEIGHTS)
    for name, value in state.items():
        if "lora_B" in name:
            state[name] = rng.normal(0, 0.05, value.shape).astype(np.float32)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


@pytest.fixture(params=list(PARTNERS))
def partner(request: pytest.FixtureRequest) -> Partner:
    return PARTNERS[request.param]


def some_rows(trainer: Trainer | None = None) -> list[Row]:
    """Ragged rows in pairs, with every array a loss may want; old log-probabilities lie around
    those of the trainer, so that ratios are clipped on both sides."""
    rng = np.random.default_rng(3)
    rows = []
    for index, length in enumerate((9, 21, 14, 14, 30, 6, 11, 25)):
        mask = (np.arange(length) > 2) & (np.arange(length) % 5 != 4)
        row = Row.of(rng.integers(3, VOCAB, length).tolist(), mask)
        rows.append(Row(row.tokens, row.mask, {}, None, str(index // 2)))
    now = [np.full(len(row), -4.0) for row in rows]
    if trainer is not None:
        now = trainer.logprobs(rows).result()
    weights, shares = token_weights("grpo", rows, 30), reply_shares(rows)
    arrays = zip(rows, now, weights, shares, strict=True)
    return [
        row.with_arrays(
            old_logprobs=own + rng.normal(0, 0.3, len(row)),
            ref_logprobs=own + rng.normal(0, 0.2, len(row)),
            behavior_logprobs=own + rng.normal(0, 0.01, len(row)),
            advantages=float(rng.normal()),
            weights=weight,
            share=share,
        )
        for row, own, weight, share in arrays
    ]


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy(),
    "warm": Loss("warm", cross_entropy().fn, temperature=0.7),
    **{name: policy_loss(name, 0.2, 0.28, 0.0) for name in VARIANTS},
    **{f"{name} with a KL": policy_loss(name, 0.2, 0.2, 0.05) for name in VARIANTS},
    "dpo": preference_loss("dpo", 0.1),
    "dpo, smoothed, with a likelihood": preference_loss("dpo", 0.1, 0.1, True, 0.5),
    "ipo": preference_loss("ipo", 0.1),
}


def adapter_of(trainer: Trainer, folder: Path) -> Adapter:
    folder.mkdir(parents=True)
    sampler = trainer.snapshot()
    assert isinstance(sampler, WeightSampler)
    sampler.write_adapter(folder)
    return load_file(folder / WEIGHTS)


def distance(left: Adapter, right: Adapter) -> float:
    """The relative L2 difference of two adapters."""
    assert left.keys() == right.keys()
    apart = sum(float(np.square(left[name] - right[name]).sum()) for name in left)
    return float(np.sqrt(apart / sum(float(np.square(one).sum()) for one in left.values())))


def gradient(trainer: Trainer, loss: Loss, folder: Path) -> tuple[dict[str, float], Adapter]:
    """The metrics of a loss and its gradient by the adapter: with a huge eps Adam is plain descent,
    here at a rate that hides the weights."""
    before = adapter_of(trainer, folder / "before")
    metrics = trainer.forward_backward(some_rows(trainer), loss).result()
    trainer.optim_step(Adam(1e3 * 1e12, eps=1e12, clip_norm=0.0)).result()
    after = adapter_of(trainer, folder / "after")
    return metrics, {name: (before[name] - after[name]) / 1e3 for name in before}


# ------------------------------------------------------------------------------------------------
# the same numbers


def test_log_probabilities_and_masks_are_those_of_torch(
    model: Path, adapter: Path, partner: Partner
) -> None:
    own, torchs = partner.open(model, adapter), open_torch(model, adapter)
    rows = some_rows()
    for temperature in (1.0, 0.7) if own.can.temperature else (1.0,):
        pairs = zip(
            own.logprobs(rows, temperature).result(),
            torchs.logprobs(rows, temperature).result(),
            rows,
            strict=True,
        )
        for left, right, row in pairs:
            np.testing.assert_allclose(left, right, rtol=0, atol=LOGPROBS)
            assert (left[~row.mask] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_metrics_and_gradients_are_those_of_torch(
    model: Path, adapter: Path, partner: Partner, name: str, tmp_path: Path
) -> None:
    own, torchs = partner.open(model, adapter), open_torch(model, adapter)
    loss = LOSSES[name]
    if loss.temperature != 1 and not own.can.temperature:
        pytest.skip("this backend's trainer knows temperature 1 alone")
    metrics, slope = gradient(own, loss, tmp_path / "own")
    expected, torch_slope = gradient(torchs, loss, tmp_path / "torch")
    assert metrics == pytest.approx(expected, rel=2e-5, abs=2e-5)
    assert distance(torch_slope, slope) < GRADIENTS


@pytest.mark.parametrize("name", LOSSES)
def test_equal_log_probabilities_give_equal_losses_in_torch_toy_and_mlx(name: str) -> None:
    """torch's autograd on log-probabilities is what the toy and a remote service use."""
    mx = pytest.importorskip("mlx.core", reason="the extra mlx is not installed")
    from toolhone.backends.mlx import MLX_OPS

    rows, loss = some_rows(), LOSSES[name]
    _, mask, arrays = pad_rows(rows)
    logp = np.where(mask, np.random.default_rng(2).normal(-4, 0.5, mask.shape), 0.0)
    logp, groups = logp.astype(np.float32), [row.group for row in rows]
    expected, slope = loss_gradient(loss, logp, Batch(mask, arrays, groups))
    batch = Batch(mx.array(mask), {key: mx.array(value) for key, value in arrays.items()}, groups)
    (total, metrics), own = mx.value_and_grad(lambda leaf: loss.fn(MLX_OPS, leaf, batch))(
        mx.array(logp)
    )
    found = {"loss": float(total), **{key: float(value) for key, value in metrics.items()}}
    assert found == pytest.approx(expected, rel=2e-6, abs=2e-6)
    np.testing.assert_allclose(np.array(own), slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "optimizer",
    [
        Adam(0.01, weight_decay=0.1, clip_norm=0.05),
        Adam(0.003, beta1=0.8, beta2=0.99, eps=1e-6, clip_norm=0.0),
        Muon(0.02, Adam(0.01), weight_decay=0.1),
    ],
    ids=["clipped", "free", "muon"],
)
def test_six_optimizer_steps_end_where_torch_ends(
    model: Path, adapter: Path, partner: Partner, optimizer: Optimizer, tmp_path: Path
) -> None:
    own, torchs = partner.open(model, adapter), open_torch(model, adapter)
    if isinstance(optimizer, Muon) and not own.can.muon:
        pytest.skip("this backend has no Muon")
    for _ in range(6):
        for trainer in (own, torchs):
            trainer.forward_backward(some_rows(), cross_entropy()).result()
        left, right = own.optim_step(optimizer).result(), torchs.optim_step(optimizer).result()
        assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-4)
    ours, theirs = adapter_of(own, tmp_path / "own"), adapter_of(torchs, tmp_path / "torch")
    start = load_file(adapter / WEIGHTS)
    assert distance(theirs, ours) < 1e-3 * distance(theirs, start)


def test_a_gradient_that_is_not_finite_is_skipped(
    model: Path, adapter: Path, partner: Partner, tmp_path: Path
) -> None:
    own, before = partner.open(model, adapter), load_file(adapter / WEIGHTS)
    rows = [row.with_arrays(weights=float("inf")) for row in some_rows()]
    own.forward_backward(rows, cross_entropy()).result()
    assert own.optim_step(Adam(0.1, weight_decay=0.5)).result()["skipped"] == 1.0
    after = adapter_of(own, tmp_path / "own")
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_fresh_adapters_of_one_seed_are_equal(
    model: Path, partner: Partner, tmp_path: Path
) -> None:
    own = adapter_of(partner.open(model, None), tmp_path / "own")
    theirs = adapter_of(open_torch(model, None), tmp_path / "torch")
    assert own.keys() == theirs.keys()
    assert all(np.array_equal(own[name], theirs[name]) for name in own)


def test_adapters_go_from_torch_and_back_without_a_change(
    model: Path, adapter: Path, partner: Partner, tmp_path: Path
) -> None:
    partner.open(model, adapter).save(tmp_path / "there", optimizer=False)
    open_torch(model, tmp_path / "there").save(tmp_path / "back", optimizer=False)
    for folder in ("there", "back"):
        for name in (WEIGHTS, "adapter_config.json"):
            assert (tmp_path / folder / name).read_bytes() == (adapter / name).read_bytes()


def test_samples_and_their_log_probabilities_are_those_of_torch(
    model: Path, adapter: Path, partner: Partner
) -> None:
    own, torchs = partner.open(model, adapter), open_torch(model, adapter)
    temperature = 0.8 if own.can.temperature else 1.0
    params = SamplingParams(12, temperature, num_samples=4, stop_ids=(7, 8), seed=3)
    prompts = [[5, 6, 7, 9], [11], list(range(20, 40))]
    drawn = own.snapshot().sample(prompts, params)
    for prompt, samples in zip(prompts, drawn, strict=True):
        for sample in samples:
            ids = [*prompt, *sample.tokens]
            row = Row.of(ids, [t >= len(prompt) for t in range(len(ids))])
            for trainer in (own, torchs):
                again = trainer.logprobs([row], temperature).result()[0][len(prompt) :]
                np.testing.assert_allclose(sample.logprobs, again, rtol=0, atol=LOGPROBS)


# ------------------------------------------------------------------------------------------------
# the Tinker SDK over our server: fresh adapters of one seed, since a service takes no local folder

SERVICE_LORA = Lora(rank=16, alpha=32.0)
"""The alpha of our server."""


@dataclass(frozen=True)
class ServedModel:
    """A model folder behind our server, and the folder of the server's checkpoints."""

    model: Path
    connection: Any
    checkpoints: Path

    def trainer(self) -> Trainer:
        from toolhone.backends.base import ModelInfo
        from toolhone.backends.tinker import TinkerTrainer

        info = ModelInfo(VOCAB, CONTEXT, has_adapter=True)
        return TinkerTrainer(self.connection, str(self.model), SERVICE_LORA.rank, seed=0, info=info)

    def torch(self) -> Trainer:
        options = EngineOptions(device_map="cpu", micro_batch_tokens=1024)
        return open_torch_trainer(self.model, SERVICE_LORA, options)

    def adapter(self, trainer: Trainer, folder: Path) -> Adapter:
        """The adapter on the server's disk, after a save under the name of `folder`."""
        run, kind, name = trainer.save(folder).removeprefix("tinker://").split("/")
        return load_file(self.checkpoints / run.replace(":", "_") / kind / name / WEIGHTS)


@pytest.fixture(scope="module")
def served(model: Path) -> Iterator[ServedModel]:
    tinker = pytest.importorskip("tinker", reason="needs the package tinker, the SDK")
    pytest.importorskip("starlette")
    from support.tinker_server import KEY, close_left_sockets, tinker_server
    from toolhone.backends.tinker_connection import TinkerConnection

    root = model.parent / "service"
    with pytest.MonkeyPatch.context() as patch, tinker_server(model, root) as url:
        patch.setenv("TINKER_TELEMETRY", "0")
        connection = TinkerConnection(tinker, url, KEY)
        yield ServedModel(model, connection, root)
        connection.client.close("success").result(10)
    close_left_sockets()


def taught(trainer: Trainer) -> Trainer:
    """After one step, so that B is not zero."""
    trainer.forward_backward(some_rows(), cross_entropy()).result()
    trainer.optim_step(Adam(0.01)).result()
    return trainer


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.temperature == 1])
def test_losses_and_steps_through_sdk_and_server_are_those_of_torch(
    served: ServedModel, name: str, tmp_path: Path
) -> None:
    own, torchs, loss = taught(served.trainer()), taught(served.torch()), LOSSES[name]
    rows = some_rows(torchs)
    for left, right in zip(
        own.logprobs(rows).result(), torchs.logprobs(rows).result(), strict=True
    ):
        np.testing.assert_allclose(left, right, rtol=0, atol=LOGPROBS)
    metrics, expected = (one.forward_backward(rows, loss).result() for one in (own, torchs))
    assert metrics == pytest.approx(expected, rel=2e-5, abs=2e-5)
    step, wanted = (one.optim_step(Adam(0.003, eps=1e-4)).result() for one in (own, torchs))
    assert step["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4)
    ours = served.adapter(own, tmp_path / "ours")
    torchs.save(tmp_path / "torch", optimizer=False)
    assert distance(load_file(tmp_path / "torch" / WEIGHTS), ours) < GRADIENTS


def test_samples_through_sdk_and_server_are_those_of_torch(served: ServedModel) -> None:
    params = SamplingParams(12, num_samples=4, stop_ids=(7, 8), seed=1_000_003)
    prompts, keys = [[5, 6, 7, 9], [11], list(range(20, 40))], [3, 70, 2**21]
    pair = [taught(one).snapshot() for one in (served.trainer(), served.torch())]
    ours, theirs = (one.sample(prompts, params, keys) for one in pair)
    for left, right in zip(ours, theirs, strict=True):
        assert [one.tokens for one in left] == [one.tokens for one in right]
        assert [one.stop_reason for one in left] == [one.stop_reason for one in right]
        for one, other in zip(left, right, strict=True):
            np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=0, atol=LOGPROBS)


# ------------------------------------------------------------------------------------------------
# MLX alone: what transformers saves opens rightly


@pytest.mark.parametrize("kind", ["Qwen2", "Qwen3", "Llama", "Mistral", "SmolLM3"])
def test_mlx_reads_the_base_of_rope_wherever_it_is(kind: str, tmp_path: Path) -> None:
    """mlx-lm alone opens what transformers 5 saved with a base of its own, in silence."""
    pytest.importorskip("mlx_lm", reason="the extra mlx is not installed")
    nested = save_random(tmp_path / "nested", kind, theta=12_345.0)
    torchs = open_torch_trainer(nested, None, EngineOptions(device_map="cpu"))
    both = tmp_path / "both"
    torchs.save(both, optimizer=False)
    rows = some_rows()
    expected = np.concatenate(torchs.logprobs(rows).result())
    for folder in (nested, both):
        found = np.concatenate(open_mlx(folder, None).logprobs(rows).result())
        np.testing.assert_allclose(found, expected, rtol=0, atol=4 * LOGPROBS)
    for folder, right in ((both, True), (nested, kind == "Qwen3")):
        assert mlx_lm_agrees(folder, rows[4], expected_of(torchs, rows[4])) is right
    shutil.rmtree(tmp_path)


def expected_of(trainer: Trainer, row: Row) -> Any:
    return trainer.logprobs([row]).result()[0]


def mlx_lm_agrees(folder: Path, row: Row, expected: Any) -> bool:
    """Whether mlx-lm by itself computes these log-probabilities."""
    import mlx.core as mx
    from mlx_lm.utils import load_model

    logits = load_model(folder)[0](mx.array([row.tokens[:-1].tolist()]))[0].astype(mx.float32)
    logp = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    found = np.zeros(len(row), dtype=np.float32)
    found[1:] = logp[np.arange(len(row) - 1), row.tokens[1:]]
    return bool(np.abs(np.where(row.mask, found - expected, 0.0)).max() < 4 * LOGPROBS)


def test_mlx_refuses_rope_that_differs_between_layers() -> None:
    pytest.importorskip("mlx_lm", reason="the extra mlx is not installed")
    from toolhone.backends.mlx_engine import rope_at_top

    nested = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    with pytest.raises(CapabilityError, match="differ between its layers"):
        rope_at_top({"rope_parameters": nested})
    stretched = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
    assert rope_at_top({"rope_parameters": stretched}) == {
        "rope_theta": 5e5,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    }
