"""The toy backend beyond the common contract: its gradient, its hashing, its Adam, its file."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from toolhone.backends.base import Adam, Loss, Muon, SamplingParams, Trainer
from toolhone.backends.toy import FILE, ToyTrainer, open_sampler, open_toy
from toolhone.backends.toy_policy import NO_TOKEN, Forward, windows_before
from toolhone.errors import CapabilityError, ModelError, RunError
from toolhone.rows import Row
from toolhone.training.losses import cross_entropy

VOCAB = 11


def some_rows(seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    rows = []
    for length in (6, 1, 9, 4):
        row = Row.of(rng.integers(0, VOCAB, length).tolist(), (rng.random(length) < 0.7).tolist())
        rows.append(row.with_arrays(weights=rng.normal(1.0, 0.5, length).astype(np.float32)))
    return rows


def a_toy(seed: int = 0) -> ToyTrainer:
    return open_toy(VOCAB, seed=seed, orders=(0, 1, 2), buckets=7, max_context=32)


def step(trainer: Trainer, rows: list[Row], optimizer: Adam) -> None:
    trainer.forward_backward(rows, cross_entropy()).result()
    trainer.optim_step(optimizer).result()


# ------------------------------------------------------------------------------------------------
# the gradient


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_gradient_by_hand_is_that_of_finite_differences(temperature: float) -> None:
    trainer, rows = a_toy(), some_rows()
    weights = np.concatenate([row.arrays["weights"][row.mask] for row in rows]).astype(np.float64)

    def loss() -> float:
        forward = Forward.of(trainer._policy, rows, temperature)
        return float(
            -(weights * forward.logp[np.arange(len(forward.targets)), forward.targets]).sum()
        )

    trainer.forward_backward(
        rows, Loss("warm", cross_entropy().fn, temperature=temperature)
    ).result()
    assert trainer._gradient is not None
    for table, slope in zip(trainer._policy.tables, trainer._gradient, strict=True):
        measured = np.zeros_like(table)
        for place in np.ndindex(*table.shape):
            before = table[place]
            table[place] = before + 1e-5
            above = loss()
            table[place] = before - 1e-5
            measured[place] = (above - loss()) / 2e-5
            table[place] = before
        assert slope == pytest.approx(measured, abs=1e-6)
        assert np.abs(slope).max() > 0.1


def test_adam_takes_the_steps_of_torch_adamw() -> None:
    trainer, rows = a_toy(), some_rows()
    twins = [torch.nn.Parameter(torch.tensor(table)) for table in trainer._policy.tables]
    peer = torch.optim.AdamW(twins, lr=0.05, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3)
    for seed in range(5):
        trainer.forward_backward(some_rows(seed), cross_entropy()).result()
        assert trainer._gradient is not None
        for twin, slope in zip(twins, trainer._gradient, strict=True):
            twin.grad = torch.tensor(slope)
        peer.step()
        trainer.optim_step(Adam(0.05, 0.8, 0.9, 1e-6, 0.3, clip_norm=0.0)).result()
    for twin, table in zip(twins, trainer._policy.tables, strict=True):
        assert table == pytest.approx(twin.detach().numpy(), abs=1e-12)
    assert trainer.snapshot().logprobs(rows)[0].any()


def test_muon_is_refused_in_a_sentence_that_names_what_can() -> None:
    trainer = a_toy()
    assert not trainer.can.muon
    assert not trainer.can.lora
    assert trainer.can.full_training
    with pytest.raises(
        CapabilityError, match="cannot train with Muon; use Adam here, or the torch backend"
    ):
        trainer.optim_step(Muon(0.1, Adam(0.1)))


# ------------------------------------------------------------------------------------------------
# contexts


def test_a_window_holds_the_tokens_before_a_position_oldest_first() -> None:
    windows = windows_before(np.array([[4, 5, 6, 7]]), reach=3)
    assert windows[0].tolist() == [[-1, -1, -1], [-1, -1, 4], [-1, 4, 5], [4, 5, 6]]


def test_each_order_looks_back_exactly_as_far_as_it_says() -> None:
    policy = open_toy(50, orders=(0, 1, 3), buckets=10_000)._policy
    plain = np.array([[0, 2, 3]])
    changed = {
        "oldest": np.array([[9, 2, 3]]),
        "newest": np.array([[0, 2, 9]]),
        "no token": np.array([[NO_TOKEN, 2, 3]]),
    }
    base = policy.buckets(plain)[0]
    differs = {
        name: (policy.buckets(window)[0] != base).tolist() for name, window in changed.items()
    }
    assert differs == {
        "oldest": [False, False, True],
        "newest": [False, True, True],
        "no token": [False, False, True],
    }
    assert base[0] == 0


def test_contexts_spread_evenly_over_the_buckets() -> None:
    policy = open_toy(4096, orders=(1,), buckets=64)._policy
    counts = np.bincount(policy.buckets(np.arange(4096)[:, None])[:, 0], minlength=64)
    assert counts.min() > 32
    assert counts.max() < 110


def test_a_toy_with_a_bias_alone_knows_no_context() -> None:
    sampler = open_toy(VOCAB, orders=(0,)).snapshot()
    first, second = sampler.logprobs(
        [Row.of([1, 2, 5], [False, False, True]), Row.of([7, 5], [False, True])]
    )
    assert first[2] == second[1]
    assert len(sampler.sample([[3]], SamplingParams(max_tokens=4))[0][0].tokens) == 4


def test_a_toy_learns_a_rule_over_two_tokens_and_follows_it_when_greedy() -> None:
    trainer = open_toy(6, orders=(0, 1, 2), buckets=256)
    song = [0, 1, 0, 2, 0, 3] * 4
    row = Row.of(song, [True] * len(song)).with_arrays(
        weights=np.full(len(song), 0.05, dtype=np.float32)
    )
    for _ in range(60):
        step(trainer, [row], Adam(0.2))
    greedy = SamplingParams(max_tokens=9, temperature=0.0)
    assert trainer.snapshot().sample([[0, 1]], greedy)[0][0].tokens == [0, 2, 0, 3, 0, 1, 0, 2, 0]


def test_the_seed_alone_makes_the_weights() -> None:
    rows = some_rows()
    one, same, other = (a_toy(seed).snapshot().logprobs(rows)[0] for seed in (4, 4, 5))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_sampled_log_probabilities_are_those_of_logprobs_to_the_bit() -> None:
    sampler = a_toy().snapshot()
    ((sample,),) = sampler.sample([[1, 2]], SamplingParams(max_tokens=20, temperature=0.7))
    row = Row.of([1, 2, *sample.tokens], [True] * 22)
    assert sampler.logprobs([row], temperature=0.7)[0][2:].tolist() == sample.logprobs


# ------------------------------------------------------------------------------------------------
# snapshots


def test_weights_are_copied_only_while_a_snapshot_is_alive() -> None:
    trainer, rows = a_toy(), some_rows()
    weights = trainer._policy
    step(trainer, rows, Adam(0.1))
    assert trainer._policy is weights

    snapshot = trainer.snapshot()
    assert snapshot._policy is weights
    step(trainer, rows, Adam(0.1))
    assert trainer._policy is not weights
    copied = trainer._policy
    step(trainer, rows, Adam(0.1))
    assert trainer._policy is copied

    dropped = trainer.snapshot()
    del dropped
    gc.collect()
    step(trainer, rows, Adam(0.1))
    assert trainer._policy is copied


def test_a_stream_keeps_its_snapshot_alive() -> None:
    trainer, rows = a_toy(), some_rows()
    expected = trainer.snapshot().sample([[1]], SamplingParams(max_tokens=9, seed=3), [5])
    stream = trainer.snapshot().stream()
    gc.collect()
    for _ in range(5):
        step(trainer, rows, Adam(0.5))
    stream.submit(5, [1], SamplingParams(max_tokens=9, seed=3))
    assert [samples for _, samples in stream.poll()] == expected


# ------------------------------------------------------------------------------------------------
# disk


def test_a_write_that_fails_leaves_the_former_save_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, rows = a_toy(), some_rows()
    trainer.save(tmp_path / "saved")
    before = open_sampler(tmp_path / "saved").logprobs(rows)
    step(trainer, rows, Adam(0.5))

    def full_disk(file: object, **_: object) -> None:
        file.write(b"half of it")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(RunError, match="No space left on device"):
        trainer.save(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == [FILE]
    after = open_sampler(tmp_path / "saved").logprobs(rows)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_saving_leaves_other_files_of_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    a_toy().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", FILE]


def test_saving_where_a_file_is_in_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunError, match="taken"):
        a_toy().save(tmp_path / "taken")


def test_weights_of_another_shape_are_refused_with_both_shapes(tmp_path: Path) -> None:
    open_toy(VOCAB + 1, orders=(0, 1)).save(tmp_path)
    with pytest.raises(ModelError, match=f"vocab_size={VOCAB + 1}.*vocab_size={VOCAB}"):
        a_toy().load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ModelError, match=FILE):
        open_sampler(tmp_path)


def test_a_file_with_missing_parts_or_pickled_objects_is_a_clear_error(tmp_path: Path) -> None:
    a_toy().save(tmp_path)
    with np.load(tmp_path / FILE) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(tmp_path / FILE, **{name: value for name, value in arrays.items() if name != "table1"})
    with pytest.raises(ModelError, match="table1"):
        open_sampler(tmp_path)
    np.savez(tmp_path / FILE, **{**arrays, "table1": np.array([{}], dtype=object)})
    with pytest.raises(ModelError, match="allow_pickle"):
        open_sampler(tmp_path)


def test_a_folder_without_a_save_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"holds no {FILE}"):
        open_sampler(tmp_path)


# ------------------------------------------------------------------------------------------------
# bad input


@pytest.mark.parametrize("token", [-1, VOCAB])
def test_a_token_outside_the_vocabulary_is_a_clear_error(token: int) -> None:
    trainer = a_toy()
    row = Row.of([1, token], [True, True]).with_arrays(weights=np.ones(2, dtype=np.float32))
    for attempt in (
        lambda: trainer.forward_backward([row], cross_entropy()),
        lambda: trainer.snapshot().logprobs([row]),
        lambda: trainer.snapshot().sample([[token]], SamplingParams()),
    ):
        with pytest.raises(ModelError, match=f"token id {token} is outside"):
            attempt()


@pytest.mark.parametrize(
    "wrong",
    [{"vocab_size": 0}, {"buckets": 0}, {"orders": ()}, {"orders": (-1,)}, {"max_context": 1}],
)
def test_a_shape_that_cannot_be_is_a_clear_error(wrong: dict[str, object]) -> None:
    size = dataclasses.asdict(a_toy()._policy.shape) | wrong
    with pytest.raises(ModelError, match=next(iter(wrong))):
        open_toy(**size)
