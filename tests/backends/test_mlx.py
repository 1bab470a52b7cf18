"""The MLX backend beyond the contracts of the seam: whole runs, 4-bit bases, checkpointing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolhone.api import evaluate, open_model, train
from toolhone.backends.base import Adam, Lora, Muon, SamplingParams, Trainer
from toolhone.backends.torch.engine import EngineOptions
from toolhone.config.experiment import experiment_of, overridden
from toolhone.config.sections import Experiment
from toolhone.errors import CapabilityError, ModelError
from toolhone.export.merged import ExportFormat, export
from toolhone.models.pico import pico_folder
from toolhone.rows import Row
from toolhone.training.loop import TrainStatus
from toolhone.training.losses import cross_entropy

pytest.importorskip("mlx_lm", reason="the extra mlx is not installed")

import mlx.core as mx
from mlx import nn

from toolhone.backends.mlx import open_sampler, open_trainer
from toolhone.backends.mlx_engine import MlxLora
from toolhone.backends.mlx_stream import MlxSampler

RUN: dict[str, Any] = {
    "model": {"backend": "mlx"},
    "data": {"samples": 12},
    "training": {"steps": 2, "batch_size": 2, "learning_rate": 0.01, "validate_every": 0},
    "evaluation": {"at_end": False, "max_new_tokens": 8, "num_samples": 2, "max_turns": 1},
}
LORA = Lora(4, 8.0)


def some_rows(count: int = 4) -> list[Row]:
    rng = np.random.default_rng(1)
    lengths = rng.integers(6, 24, count)
    return [
        Row.of(rng.integers(3, 900, n).tolist(), [True] * n).with_arrays(weights=1 / (20 * count))
        for n in lengths.tolist()
    ]


def logprobs(trainer: Trainer) -> np.ndarray:
    return np.concatenate(trainer.logprobs(some_rows()).result())


def plan_of(*overrides: str) -> Experiment:
    return overridden(experiment_of(RUN, "the test"), overrides)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlx")
    train(plan_of(), folder / "lora")
    train(plan_of("training.lora=null"), folder / "full")
    return folder


@pytest.fixture(scope="module")
def four_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlx_lm import convert

    folder = tmp_path_factory.mktemp("bits") / "pico-4bit"
    convert(str(pico_folder(0)), mlx_path=str(folder), quantize=True, q_group_size=32, q_bits=4)
    return folder


# ------------------------------------------------------------------------------------------------
# whole runs


@pytest.mark.parametrize("lora", ["lora", "full"])
def test_a_run_of_mlx_is_evaluated_and_opened_by_torch_as_well(runs: Path, lora: str) -> None:
    model = open_model(runs / lora)
    assert isinstance(model.sampler, MlxSampler)
    assert len(evaluate(model, num_samples=2).samples) == 2
    torchs = open_model(runs / lora, overrides=["model.backend=torch"])
    left, right = (one.sampler.logprobs(some_rows()) for one in (model, torchs))
    np.testing.assert_allclose(np.concatenate(left), np.concatenate(right), atol=2e-5)


@pytest.mark.parametrize(
    ("name", "to"),
    [("lora", ExportFormat.MERGED), ("lora", ExportFormat.PEFT), ("full", ExportFormat.MERGED)],
)
def test_an_export_of_mlx_says_what_its_run_says(
    runs: Path, name: str, to: ExportFormat, tmp_path: Path
) -> None:
    done = export(open_model(runs / name), tmp_path / "out", to)
    assert done.replay.whole, done.replay.sentence()
    config = tmp_path / "out" / "config.json"
    assert to is ExportFormat.PEFT or json.loads(config.read_text())["rope_theta"] == 10_000.0


RL = (
    "training.rl.temperature=5 training.rl.group_size=3 training.rl.max_completion_length=6 "
    "training.batch_size=2"
)
METHODS = {
    "grpo": f"training.method=grpo {RL}",
    "ppo": f"training.method=ppo {RL}",
    "dpo": "training.method=dpo training.rl.beta=0.1",
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_from_a_run_of_mlx(runs: Path, method: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def spread(task, episode):\n    return sum(episode.turns[0].tokens) % 7"
    )
    own = f'training.rl.reward.functions=["{tmp_path}/own.py:spread"]'
    plan = plan_of(f"model.adapter={runs / 'lora'}", *METHODS[method].split(), own)
    run, status = train(plan, tmp_path / "run")
    lines = [line for line in run.metrics() if line["kind"] == "train"]
    assert status is TrainStatus.FINISHED
    assert all(np.isfinite(line["loss"]) for line in lines)
    if method != "dpo":
        assert all(line["grad_norm"] > 0 and line["sampler_gap"] < 1e-5 for line in lines)


def test_a_value_head_is_refused_by_name(tmp_path: Path) -> None:
    plan = plan_of(*METHODS["ppo"].split(), "training.rl.ppo.critic=value_head")
    with pytest.raises(CapabilityError, match="backend mlx cannot do a value head"):
        train(plan, tmp_path / "run")


# ------------------------------------------------------------------------------------------------
# the trainer


@pytest.mark.parametrize("optimizer", [Adam(0.01), Muon(0.01, Adam(0.01))], ids=["adam", "muon"])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(
    optimizer: Adam | Muon, tmp_path: Path
) -> None:
    lora, options = replace(LORA, dropout=0.3), EngineOptions()
    straight = open_trainer(pico_folder(0), lora, options)
    resumed = open_trainer(pico_folder(0), lora, options)
    for step in range(4):
        if step == 2:
            straight.save(tmp_path / "half")
            resumed.load(tmp_path / "half")
        for trainer in (straight, resumed) if step >= 2 else (straight,):
            trainer.forward_backward(some_rows(), cross_entropy())
            trainer.optim_step(optimizer)
    assert np.array_equal(logprobs(resumed), logprobs(straight))


def test_dropout_is_that_of_its_seed_and_pass_and_of_losses_that_allow_it() -> None:
    def metrics(dropout: float, seed: int, loss: Any, passes: int = 1) -> list[float]:
        options = EngineOptions(seed=seed)
        trainer = open_trainer(pico_folder(0), replace(LORA, dropout=dropout), options)
        trainer.weights = {
            name: value + 0.05 if "lora_B" in name else value
            for name, value in trainer.weights.items()
        }
        return [trainer.forward_backward(some_rows(), loss).result()["nll"] for _ in range(passes)]

    loss, strict = cross_entropy(), replace(cross_entropy(), dropout=False)
    (plain,), drawn = metrics(0.0, 1, loss), metrics(0.5, 1, loss, 2)
    assert metrics(0.5, 1, strict) == [plain]
    assert len({plain, *drawn}) == 3
    assert metrics(0.5, 1, loss, 2) == drawn


@pytest.mark.parametrize("lora", [LORA, replace(LORA, dropout=0.4), None])
def test_checkpointing_layers_and_logits_changes_no_gradient(lora: Lora | None) -> None:
    results = []
    for checkpoints in (False, True):
        trainer = open_trainer(
            pico_folder(0), lora, EngineOptions(gradient_checkpointing=checkpoints)
        )
        if checkpoints:
            trainer.engine.logit_bytes = 4 * 996 * 10  # ten positions at a time
        trainer.forward_backward(some_rows(), cross_entropy())
        step = trainer.optim_step(Adam(0.01)).result()
        results.append((step["grad_norm"], logprobs(trainer)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=2e-3)


def test_bfloat16_keeps_trained_weights_in_float32() -> None:
    for lora in (LORA, None):
        trainer = open_trainer(pico_folder(0), lora, EngineOptions(torch_dtype="bfloat16"))
        losses = []
        for _ in range(4):
            losses.append(trainer.forward_backward(some_rows(), cross_entropy()).result()["loss"])
            trainer.optim_step(Adam(0.003))
        assert losses[-1] < losses[0]
        assert {str(value.dtype) for value in trainer.weights.values()} == {"mlx.core.float32"}


REFUSED = {
    "training in float16": EngineOptions(torch_dtype="float16"),
    "model.model_class": EngineOptions(loader=lambda name, dtype: (name, dtype)),
    "model.device_map 'cuda:1'": EngineOptions(device_map="cuda:1"),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_a_change_below_half_a_step_of_the_precision_is_kept_on_average(
    dtype: Any, bias: bool
) -> None:
    mx.random.seed(0)
    base, step = nn.Linear(64, 512, bias=bias), 2.0 ** (-8 if dtype is mx.bfloat16 else -11)
    part = MlxLora(base, mx.full((4, 64), 1e-3), 512, Lora(rank=4, alpha=4))
    base.set_dtype(dtype)
    x = mx.random.uniform(shape=(256, 64)).astype(dtype)
    plain = part(x).astype(mx.float32)
    part.lora_B = mx.full((512, 4), step / 20)
    wanted = 4 * 1e-3 * step / 20 * x.astype(mx.float32).sum(1).mean()
    kept = (part(x).astype(mx.float32) - plain).mean() / wanted
    assert float(kept) == pytest.approx(1, rel=0.15)
    assert float(wanted) < 0.2 * step * float(mx.abs(plain).mean())
    assert mx.allclose(plain, base(x).astype(mx.float32), atol=8 * step)


@pytest.mark.parametrize("what", REFUSED)
def test_what_mlx_cannot_do_is_refused_by_name(what: str) -> None:
    with pytest.raises(CapabilityError, match=f"backend mlx cannot do {what}.* or the torch"):
        open_trainer(pico_folder(0), LORA, REFUSED[what])


def test_a_model_that_mlx_does_not_know_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "unheard_of"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"mlx-lm cannot load .* use the torch backend"):
        open_trainer(tmp_path, LORA)
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        open_trainer(tmp_path / ".." / tmp_path.name / "..", LORA)


def test_rows_with_targets_predict_those_as_with_torch() -> None:
    from toolhone.backends.torch.trainer import open_sampler as open_torch_sampler

    rows = [replace(row, targets=row.tokens[::-1].copy()) for row in some_rows()]
    own, torchs = (
        np.concatenate(sampler.logprobs([*rows, *some_rows()]))
        for sampler in (
            open_sampler(pico_folder(0)),
            open_torch_sampler(pico_folder(0), EngineOptions(device_map="cpu")),
        )
    )
    np.testing.assert_allclose(own, torchs, atol=2e-5)
    assert not np.allclose(own[: len(own) // 2], own[len(own) // 2 :], atol=0.1)


def test_a_checkpoint_of_torch_gives_its_weights_but_no_optimizer(tmp_path: Path) -> None:
    from toolhone.backends.torch.trainer import open_trainer as open_torch

    torchs = open_torch(pico_folder(0), LORA, EngineOptions(device_map="cpu"))
    torchs.forward_backward(some_rows(), cross_entropy())
    torchs.optim_step(Adam(0.01))
    torchs.save(tmp_path / "torch")
    own = open_trainer(pico_folder(0), LORA)
    with pytest.raises(ModelError, match=r"holds no optimizer\.safetensors"):
        own.load(tmp_path / "torch")
    own.load(tmp_path / "torch", optimizer=False)
    np.testing.assert_allclose(logprobs(own), logprobs(torchs), atol=2e-5)


# ------------------------------------------------------------------------------------------------
# 4-bit bases


def test_a_4_bit_base_trains_adapters_that_are_saved_and_merged(
    four_bits: Path, tmp_path: Path
) -> None:
    from toolhone.backends.torch.trainer import open_sampler as open_torch_sampler

    trainer = open_trainer(four_bits, LORA)
    losses = []
    for _ in range(4):
        losses.append(trainer.forward_backward(some_rows(), cross_entropy()).result()["loss"])
        trainer.optim_step(Adam(0.01))
    assert losses[-1] < 0.8 * losses[0]
    trainer.save(tmp_path / "adapter", optimizer=False)
    again = open_sampler(tmp_path / "adapter")
    assert np.array_equal(np.concatenate(again.logprobs(some_rows())), logprobs(trainer))
    (tmp_path / "merged").mkdir()
    again.write_merged(tmp_path / "merged")
    merged = open_torch_sampler(tmp_path / "merged", EngineOptions(device_map="cpu"))
    np.testing.assert_allclose(
        np.concatenate(merged.logprobs(some_rows())), logprobs(trainer), atol=2e-5
    )


def test_full_training_of_a_4_bit_base_is_refused_by_name(four_bits: Path) -> None:
    with pytest.raises(CapabilityError, match=r"pico-4bit is quantised.*set training\.lora"):
        open_trainer(four_bits)


def test_torch_says_that_a_4_bit_base_is_one_of_mlx(four_bits: Path) -> None:
    with pytest.raises(ModelError, match=r"quantised by MLX.*model\.backend=mlx"):
        open_model(four_bits)


# ------------------------------------------------------------------------------------------------
# the stream


def test_samples_are_those_of_torch_token_for_token() -> None:
    from toolhone.backends.torch.trainer import open_sampler as open_torch_sampler

    samplers = (
        open_sampler(pico_folder(0)),
        open_torch_sampler(pico_folder(0), EngineOptions(device_map="cpu")),
    )
    prompts = [[5, 6, 7], [11], list(range(20, 60))]
    for params in (
        SamplingParams(8, 1.0, num_samples=3, seed=4),
        SamplingParams(8, 0.5, top_p=0.9, top_k=20, num_samples=3, seed=4),
        SamplingParams(8, 0.0),
    ):
        left, right = (
            [[sample.tokens for sample in samples] for samples in one.sample(prompts, params)]
            for one in samplers
        )
        assert left == right


def test_equal_prompts_that_start_together_are_prefilled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import toolhone.backends.mlx_stream as module

    seen: list[int] = []
    prefill = module._prefill

    def counted(engine: Any, prefix: Sequence[int]) -> Any:
        seen.append(len(prefix))
        return prefill(engine, prefix)

    monkeypatch.setattr(module, "_prefill", counted)
    prompts = [[5, 6, 7], [5, 6, 7], [8, 9], [5, 6, 7]]
    open_sampler(pico_folder(0)).sample(prompts, SamplingParams(2, num_samples=3))
    assert seen == [2, 1]


def test_prompts_wait_until_their_rows_fit_the_cache() -> None:
    sampler = open_sampler(pico_folder(0))
    sampler._shared.cache_tokens = 20
    prompts, params = [[5, 6, 7]] * 5, SamplingParams(6, num_samples=2, seed=1)
    narrow = sampler.sample(prompts, params)
    stream = sampler.stream()
    for key, prompt in enumerate(prompts):
        stream.submit(key, prompt, params)
    assert len(stream.poll()) == 1
    assert len(stream._waiting) == 4
    wide = open_sampler(pico_folder(0)).sample(prompts, params)
    assert [[s.tokens for s in one] for one in narrow] == [[s.tokens for s in one] for one in wide]


def test_many_rare_ids_are_drawn_as_often_as_their_mass_says() -> None:
    """Sums of float32 would lose ids below 6e-8 at the end of a long vocabulary."""
    import mlx.core as mx

    from toolhone.backends.mlx_stream import _inverse

    weights = np.full((1, 300_000), 1e-8, dtype=np.float32)
    weights[0, 0] = 1 - 0.003
    uniforms = np.array([0.9985], dtype=np.float32)
    chosen = int(_inverse(mx.array(weights), uniforms)[0])
    expected = int((0.9985 - 0.997) / 1e-8)
    assert abs(chosen - expected) < 0.02 * expected
