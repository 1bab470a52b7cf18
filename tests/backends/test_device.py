"""Tests of `backends/torch/device.py`: micro-batches, caches and peaks by the shape of a model."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contracts.test_backends import tiny_qwen3
from toolhone import experiment, train
from toolhone.backends.base import Lora
from toolhone.backends.open import check_memory
from toolhone.backends.torch import device
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import open_trainer
from toolhone.errors import CapabilityError
from toolhone.rows import Row
from toolhone.runs.run import Run, read_json

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def config(**changes: Any) -> Any:
    shape = {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    }
    return SimpleNamespace(**(shape | changes))


def test_a_token_of_135m_parameters_keeps_1_8_megabytes_in_float32() -> None:
    whole = device.token_bytes(config(), 4, False)
    assert whole == 30 * 4 * (13 * 576 + 5 * 1536)
    assert device.token_bytes(config(), 2, False) * 2 == whole
    kept = 30 * (4 * 576 + 4 * 576 + 9 * 4)
    assert device.token_bytes(config(), 4, True) == whole // 30 + kept
    wide = device.token_bytes(config(head_dim=128), 4, True)
    assert wide == whole // 30 + 30 * (4 * 576 + 4 * 9 * 128 + 9 * 4)
    assert device.token_bytes(config(intermediate_size=None), 4, False) == 30 * 4 * 33 * 576


def test_the_micro_batch_follows_the_model_and_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.default_micro_batch(config(), CPU, 4) == 1024
    tiny = config(hidden_size=128, intermediate_size=384, num_hidden_layers=3)
    assert device.default_micro_batch(tiny, CPU, 4) == 4096
    for gigabytes, tokens in ((2, 256), (4, 512), (8, 1024), (64, 1024)):
        monkeypatch.setattr(device, "device_bytes", lambda _, n=gigabytes: n * 10**9)
        assert device.default_micro_batch(config(), CPU, 4) == tokens, gigabytes
    for gigabytes, tokens in ((1, 1024), (16, 4096), (80, 16384)):
        monkeypatch.setattr(device, "device_bytes", lambda _, n=gigabytes: n * 10**9)
        assert device.default_micro_batch(config(), CUDA, 4) == tokens, gigabytes


def test_the_cache_of_a_sampling_batch_is_bounded_in_bytes() -> None:
    tokens = device.cache_tokens(config(), CPU, 4)
    assert tokens * 2 * 30 * 3 * 64 * 4 <= device.CPU_CACHE_BYTES
    assert device.cache_tokens(config(num_hidden_layers=1), CPU, 4) == device.MAX_CACHE_TOKENS


def test_a_step_that_cannot_fit_is_refused_with_the_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = open_trainer(tiny_qwen3(tmp_path), None, EngineOptions(device_map="cpu"))
    plan = experiment({"training": {"lora": None}})
    rows = [Row.of(range(first, first + 50), [True] * 50) for first in range(30)]
    sentence = check_memory(trainer, plan, rows)
    assert sentence is not None
    assert sentence.startswith("memory: about ")
    monkeypatch.setattr(device, "device_bytes", lambda _: 10**6)
    with pytest.raises(CapabilityError, match=r"micro_batch_tokens \(4096\).*training\.lora"):
        check_memory(trainer, plan, rows)


def test_the_peak_counts_optimizer_copies_and_hidden_states(tmp_path: Path) -> None:
    engine = open_trainer(tiny_qwen3(tmp_path), None, EngineOptions(device_map="cpu")).engine
    trained = sum(value.numel() for _, value in engine.trainable())
    few, many, copied = (
        device.peak_bytes(engine.model, CPU, engine.pass_bytes.of(tokens), copies)
        for tokens, copies in ((0, 0), (1000, 0), (0, 2))
    )
    assert many - few == pytest.approx(engine.pass_bytes.of(1000) * device.CPU_SLACK)
    assert copied - few == 8 * trained
    assert few == device.in_use(CPU) + 12 * trained


def test_hidden_states_of_checkpointed_layers_count_what_they_keep_of_their_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "device_bytes", lambda _: 16 * 10**6)
    found = []
    for lora, saves in ((None, False), (None, True), (Lora(2), True)):
        options = EngineOptions(device_map="cpu", gradient_checkpointing=saves)
        engine = open_trainer(tiny_qwen3(tmp_path), lora, options).engine
        found.append([engine.pass_bytes.of(tokens) for tokens in (10, 10_000)])
    (whole, long_whole), (saved, long_saved), (kept, long_kept) = found
    assert saved < kept == whole, "a few tokens keep everything"
    assert long_kept == long_saved + 10**6 < long_whole, "many keep what there is room for"
    for tokens in (1, 10, 500, 10_000):
        assert engine.pass_bytes.tokens(engine.pass_bytes.of(tokens)) == tokens


def test_the_tokens_of_a_forward_pass_are_counted_as_they_are_batched(tmp_path: Path) -> None:
    options = EngineOptions(device_map="cpu", micro_batch_tokens=100)
    trainer = open_trainer(tiny_qwen3(tmp_path), None, options)

    def rows(length: int, given: int, group: str | None = None) -> list[Row]:
        tails = (range(given, length), range(given + 200, length + 200))
        both = [Row.of([*range(given), *tail], [True] * length) for tail in tails]
        return [replace(row, group=group) for row in both]

    assert trainer.kept_tokens([], whole_groups=False) == 100
    assert trainer.kept_tokens(rows(70, 1), whole_groups=False) == 69, "the last one is not read"
    assert trainer.kept_tokens(rows(30, 2), whole_groups=False) == 58
    assert trainer.kept_tokens(rows(70, 50), whole_groups=False) == 50 + 2 * 19, "the prompt once"
    assert trainer.kept_tokens(rows(90, 50), whole_groups=False) == 89
    assert trainer.kept_tokens(rows(90, 50, "pair"), whole_groups=True) == 50 + 2 * 39
    equal = [replace(row, group="pair") for row in rows(90, 90)]
    assert trainer.kept_tokens(equal, whole_groups=True) == 89, "equal rows run once"


def test_a_run_keeps_the_micro_batch_that_its_backend_chose(tmp_path: Path) -> None:
    plan = experiment(
        {
            "model": {"name": "pico"},
            "data": {"max_samples": 20},
            "evaluation": {"at_end": False},
            "training": {"steps": 2, "batch_size": 2, "validate_every": 0, "save_every": 1},
        }
    )
    assert plan.model.micro_batch_tokens is None
    folder = tmp_path / "run"
    train(plan, folder)
    stored = read_json(folder / "experiment.json")
    assert stored["model"]["micro_batch_tokens"] == 4096
    assert Run.open(folder).experiment.model.micro_batch_tokens == 4096
