"""The contract of `toolhone.backends.base`, held against every backend.

A new backend adds one `Backend` to `BACKENDS`: how to open a trainer on a tiny model (vocabulary
`VOCAB`, context `CONTEXT`), how to open a sampler on what it saved, and a learning rate at which
the loss on a few rows falls to about 1 in `LESSONS` steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from toolhone.backends.base import (
    Adam,
    Batch,
    Loss,
    Metrics,
    Muon,
    Ops,
    Sample,
    Sampler,
    SamplingParams,
    StopReason,
    Trainer,
    train_step,
)
from toolhone.episodes.driver import run_episodes
from toolhone.episodes.episode import EpisodeRules, EpisodeStatus
from toolhone.episodes.policy import Prompt, Turn
from toolhone.errors import CapabilityError, UserError
from toolhone.rows import Array, Row, Tokens
from toolhone.schema import Expect, Message, Task, Tool, ToolCall
from toolhone.tools.registry import Registry
from toolhone.training.losses import cross_entropy

VOCAB, CONTEXT = 64, 48
LESSONS = 12
WHOLE_BATCH = 100_000


@dataclass(frozen=True)
class Backend:
    """`open(folder, micro_batch_tokens)` gives a fresh trainer, always the same; `folder` is
    scratch space kept for the module.
    """

    open: Callable[[Path, int], Trainer]
    reopen: Callable[[Path], Sampler]
    learning_rate: float
    splits: bool = True
    tolerance: float = 2e-5
    remote: bool = False
    """A service: it saves under a URI, decides which request ends first, and has limits."""

    def skip_where_remote(self, why: str) -> None:
        if self.remote:
            pytest.skip(f"a service {why}")


def open_toy_trainer(_: Path, __: int) -> Trainer:
    from toolhone.backends.toy import open_toy

    return open_toy(VOCAB, seed=3, buckets=128, max_context=CONTEXT)


def open_toy_sampler(folder: Path) -> Sampler:
    from toolhone.backends.toy import open_sampler

    return open_sampler(folder)


def tiny_qwen3(folder: Path) -> Path:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = folder / "tiny-qwen3"
    if not model.exists():
        config = Qwen3Config(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            initializer_range=0.2,
        )
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(model)
    return model


def open_torch_trainer(lora: bool) -> Callable[[Path, int], Trainer]:
    def opened(folder: Path, micro_batch_tokens: int) -> Trainer:
        from toolhone.backends.base import Lora
        from toolhone.backends.torch.engine import EngineOptions
        from toolhone.backends.torch.trainer import open_trainer

        options = EngineOptions(device_map="cpu", micro_batch_tokens=micro_batch_tokens, seed=3)
        return open_trainer(tiny_qwen3(folder), Lora(rank=4, alpha=8.0) if lora else None, options)

    return opened


def open_torch_sampler(folder: Path) -> Sampler:
    from toolhone.backends.torch.engine import EngineOptions
    from toolhone.backends.torch.trainer import open_sampler

    return open_sampler(folder, EngineOptions(device_map="cpu"))


def open_mlx_trainer(lora: bool) -> Callable[[Path, int], Trainer]:
    def opened(folder: Path, micro_batch_tokens: int) -> Trainer:
        pytest.importorskip("mlx_lm", reason="the extra mlx is not installed")
        from toolhone.backends.base import Lora
        from toolhone.backends.mlx import open_trainer
        from toolhone.backends.torch.engine import EngineOptions

        options = EngineOptions(micro_batch_tokens=micro_batch_tokens, seed=3)
        return open_trainer(tiny_qwen3(folder), Lora(rank=4, alpha=8.0) if lora else None, options)

    return opened


def open_mlx_sampler(folder: Path) -> Sampler:
    from toolhone.backends.mlx import open_sampler

    return open_sampler(folder)


class LocalService:
    """A server of ours in a thread, and a connection to it through the Tinker SDK."""

    def __init__(self) -> None:
        self._stack, self._connection = contextlib.ExitStack(), None

    def connection(self, model: Path) -> Any:
        tinker = pytest.importorskip("tinker", reason="needs the package tinker, the SDK")
        pytest.importorskip("starlette")
        from support.tinker_server import KEY, tinker_server
        from toolhone.backends.tinker_connection import TinkerConnection

        if self._connection is None:
            self._stack.enter_context(pytest.MonkeyPatch.context()).setenv("TINKER_TELEMETRY", "0")
            server = tinker_server(model, model.parent / "checkpoints")
            url = self._stack.enter_context(server)
            self._connection = TinkerConnection(tinker, url, KEY)
        return self._connection

    def trainer(self, folder: Path, _: int) -> Trainer:
        from toolhone.backends.base import ModelInfo
        from toolhone.backends.tinker import TinkerTrainer

        model = tiny_qwen3(folder)
        info = ModelInfo(VOCAB, CONTEXT, has_adapter=True)
        return TinkerTrainer(self.connection(model), str(model), rank=16, seed=3, info=info)

    def sampler(self, folder: Path) -> Sampler:
        from toolhone.backends.base import ModelInfo
        from toolhone.backends.tinker_connection import ServiceCheckpoint
        from toolhone.backends.tinker_sampler import TinkerSampler

        uri, service = ServiceCheckpoint.read(folder).sampler, self._connection
        assert service is not None
        client = service.call(lambda: service.client.create_sampling_client(model_path=uri))
        return TinkerSampler(service, client, ModelInfo(VOCAB, CONTEXT, has_adapter=True))

    def close(self) -> None:
        from support.tinker_server import close_left_sockets

        if self._connection is not None:
            self._connection.client.close("success").result(10)
            self._connection = None
            self._stack.close()
            close_left_sockets()


SERVICE = LocalService()

BACKENDS = {
    "toy": Backend(open_toy_trainer, open_toy_sampler, learning_rate=0.05, splits=False),
    "torch-full": Backend(open_torch_trainer(lora=False), open_torch_sampler, learning_rate=0.0025),
    "torch-lora": Backend(open_torch_trainer(lora=True), open_torch_sampler, learning_rate=0.015),
    "mlx-full": Backend(open_mlx_trainer(lora=False), open_mlx_sampler, learning_rate=0.0025),
    "mlx-lora": Backend(open_mlx_trainer(lora=True), open_mlx_sampler, learning_rate=0.015),
    "tinker-lora": Backend(
        SERVICE.trainer, SERVICE.sampler, learning_rate=0.01, splits=False, remote=True
    ),
}


# ------------------------------------------------------------------------------------------------
# rows and fixtures


def some_rows(lengths: Sequence[int] = (5, 9, 12, 7, 10, 3), seed: int = 0) -> list[Row]:
    """Random rows, two of three positions trained, `weights` that make the loss a mean over all of
    them.
    """
    rng = np.random.default_rng(seed)
    rows = [
        Row.of(rng.integers(0, VOCAB, length).tolist(), (np.arange(length) % 3 != 2).tolist())
        for length in lengths
    ]
    total = sum(int(row.mask.sum()) for row in rows)
    return [row.with_arrays(weights=np.full(len(row), 1 / total, dtype=np.float32)) for row in rows]


ROWS = some_rows()
PROMPTS = [[5, 6, 7], [1], list(range(20, 31)), [9, 9, 9, 9]]


def all_trained(tokens: Tokens, prompt: int = 0) -> Row:
    return Row.of(tokens, [t >= prompt for t in range(len(tokens))])


@dataclass(frozen=True)
class Bench:
    """A backend with its scratch folder and, saved in `lessons`, a trainer that knows `ROWS` fairly
    well.
    """

    backend: Backend
    folder: Path
    lessons: Path

    def trainer(self, micro_batch_tokens: int = WHOLE_BATCH) -> Trainer:
        """A fresh trainer with the taught weights and no history."""
        trainer = self.backend.open(self.folder, micro_batch_tokens)
        trainer.load(self.lessons, optimizer=False)
        return trainer

    def step(self, trainer: Trainer, rows: Sequence[Row] = ROWS) -> Metrics:
        metrics = trainer.forward_backward(rows, cross_entropy()).result()
        return {**metrics, **trainer.optim_step(Adam(self.backend.learning_rate)).result()}

    def same(self, left: Sequence[Array], right: Sequence[Array]) -> bool:
        return all(
            np.allclose(a, b, rtol=0, atol=self.backend.tolerance)
            for a, b in zip(left, right, strict=True)
        )


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on many threads, and on one the sums keep their order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    SERVICE.close()
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=list(BACKENDS))
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    backend = BACKENDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    made = Bench(backend, folder, folder / "lessons")
    trainer = backend.open(folder, WHOLE_BATCH)
    for _ in range(LESSONS):
        made.step(trainer)
    trainer.save(made.lessons)
    return made


@pytest.fixture(scope="module")
def sampler(bench: Bench) -> Sampler:
    return bench.trainer().snapshot()


def logprobs(trainer: Trainer, rows: Sequence[Row] = ROWS) -> list[Array]:
    return trainer.snapshot().logprobs(rows)


def nudge(scale: float, clip_norm: float = 0.0) -> Adam:
    """An Adam that is plain gradient descent with rate `scale`: with a huge eps the second moment
    does not matter.
    """
    return Adam(learning_rate=scale * 1e6, eps=1e6, clip_norm=clip_norm)


def refuse_or_skip(bench: Bench, loss: Loss) -> None:
    """A trainer without temperatures refuses another than 1; there is no more to be seen there."""
    trainer = bench.trainer()
    if loss.temperature != 1 and not trainer.can.temperature:
        for refused in (
            lambda: trainer.forward_backward(ROWS, loss),
            lambda: trainer.logprobs(ROWS, loss.temperature),
            lambda: trainer.snapshot().logprobs(ROWS, loss.temperature),
        ):
            with pytest.raises(CapabilityError, match=r"temperature 1, not 0\.7"):
                refused()
        pytest.skip("this backend's trainer knows temperature 1 alone, and says so")


# ------------------------------------------------------------------------------------------------
# the trainer


def test_training_lowers_the_loss_on_a_fixed_batch(bench: Bench) -> None:
    trainer = bench.backend.open(bench.folder, WHOLE_BATCH)
    losses = [bench.step(trainer)["loss"] for _ in range(LESSONS)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_snapshot_does_not_move_when_training_goes_on(bench: Bench) -> None:
    trainer = bench.trainer()
    first, twin = trainer.snapshot(), trainer.snapshot()
    before = first.logprobs(ROWS)
    bench.step(trainer)
    second = trainer.snapshot()
    between = second.logprobs(ROWS)
    bench.step(trainer)
    assert bench.same(first.logprobs(ROWS), before)
    assert bench.same(twin.logprobs(ROWS), before)
    assert bench.same(second.logprobs(ROWS), between)
    assert not bench.same(between, before)
    assert not bench.same(logprobs(trainer), between)


def test_a_snapshot_does_not_move_when_weights_are_loaded(bench: Bench) -> None:
    trainer = bench.trainer()
    bench.step(trainer)
    snapshot = trainer.snapshot()
    before = snapshot.logprobs(ROWS)
    trainer.load(bench.lessons)
    assert bench.same(snapshot.logprobs(ROWS), before)
    assert not bench.same(logprobs(trainer), before)


def test_two_half_batches_equal_one(bench: Bench) -> None:
    whole, halves = bench.trainer(), bench.trainer()
    at_once = whole.forward_backward(ROWS, cross_entropy()).result()
    parts = [
        halves.forward_backward(part, cross_entropy()).result() for part in (ROWS[:2], ROWS[2:])
    ]
    for name, value in at_once.items():
        assert sum(part[name] for part in parts) == pytest.approx(value, rel=1e-4), name
    rate = nudge(0.1)
    assert whole.optim_step(rate).result()["grad_norm"] == pytest.approx(
        halves.optim_step(rate).result()["grad_norm"], rel=1e-4
    )
    assert bench.same(logprobs(whole), logprobs(halves))


def test_a_train_step_equals_its_half_steps_one_by_one(bench: Bench) -> None:
    whole, halves = bench.trainer(), bench.trainer()
    parts, rate = (ROWS[:2], ROWS[2:]), Adam(bench.backend.learning_rate)
    metrics = train_step(whole, parts, cross_entropy(), rate)
    alone = [halves.forward_backward(part, cross_entropy()).result() for part in parts]
    step = halves.optim_step(rate).result()
    assert metrics == {**{name: alone[0][name] + alone[1][name] for name in alone[0]}, **step}
    assert bench.same(logprobs(whole), logprobs(halves))


def test_a_train_step_submits_everything_before_it_waits() -> None:
    events: list[str] = []

    class Handle:
        def __init__(self, name: str) -> None:
            events.append(f"submit {name}")
            self.name = name

        def result(self) -> Metrics:
            events.append(f"wait {self.name}")
            return {"loss": 1.0} if self.name == "pass" else {"grad_norm": 2.0}

    class Remote:
        def forward_backward(self, rows: Sequence[Row], loss: Loss) -> Handle:  # noqa: ARG002
            return Handle("pass")

        def optim_step(self, optimizer: Adam) -> Handle:  # noqa: ARG002
            return Handle("step")

    metrics = train_step(Remote(), [ROWS, ROWS], cross_entropy(), Adam(0.1))
    assert metrics == {"loss": 2.0, "grad_norm": 2.0}
    assert events == [
        *["submit pass", "submit pass", "submit step"],
        *["wait pass", "wait pass", "wait step"],
    ]


def test_a_trainer_describes_its_model_and_gives_log_probabilities_of_now(bench: Bench) -> None:
    trainer = bench.trainer()
    assert (trainer.info.vocab_size, trainer.info.max_context) == (VOCAB, CONTEXT)
    assert trainer.info.has_adapter == ("lora" in bench.folder.name)
    assert trainer.snapshot().info == trainer.info
    warm = 0.7 if trainer.can.temperature else 1.0
    before = trainer.logprobs(ROWS, warm).result()
    assert bench.same(before, trainer.snapshot().logprobs(ROWS, warm))
    bench.step(trainer)
    assert bench.same(trainer.logprobs(ROWS).result(), logprobs(trainer))
    assert not bench.same(trainer.logprobs(ROWS, warm).result(), before)


def test_a_scalar_of_a_row_is_broadcast_over_its_tokens(bench: Bench) -> None:
    weights = [float(row.arrays["weights"][0]) for row in ROWS]
    scalars = [row.with_arrays(weights=w) for row, w in zip(ROWS, weights, strict=True)]
    left, right = bench.trainer(), bench.trainer()
    assert bench.step(left, scalars) == bench.step(right, ROWS)
    assert bench.same(logprobs(left), logprobs(right))


def test_save_returns_the_reference_that_load_takes(bench: Bench, tmp_path: Path) -> None:
    trainer, other = bench.trainer(), bench.trainer()
    bench.step(trainer)
    ref = trainer.save(tmp_path / "saved")
    assert ref.startswith("tinker://") if bench.backend.remote else ref == str(tmp_path / "saved")
    other.load(ref)
    assert bench.same(logprobs(other), logprobs(trainer))


def test_the_micro_batch_size_does_not_change_gradients(bench: Bench) -> None:
    if not bench.backend.splits:
        pytest.skip("this backend runs every batch whole")
    results = []
    for micro_batch_tokens in (1, 24, WHOLE_BATCH):
        trainer = bench.trainer(micro_batch_tokens)
        metrics = trainer.forward_backward(ROWS, cross_entropy()).result()
        norm = trainer.optim_step(nudge(0.1)).result()["grad_norm"]
        results.append(([metrics["loss"], metrics["tokens"], norm], logprobs(trainer)))
    for numbers, values in results[:-1]:
        assert numbers == pytest.approx(results[-1][0], rel=1e-4)
        assert bench.same(values, results[-1][1])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_gradient_is_the_slope_of_the_loss(bench: Bench, temperature: float) -> None:
    """A small step down the gradient g must lower the loss by rate * |g|^2, and one up must raise
    it as much.
    """
    loss = Loss("warm", cross_entropy().fn, temperature=temperature)
    refuse_or_skip(bench, loss)

    def loss_after(sign: float, rate: float) -> tuple[float, float]:
        trainer = bench.trainer()
        trainer.forward_backward(
            [row.with_arrays(weights=sign * row.arrays["weights"]) for row in ROWS], loss
        ).result()
        norm = trainer.optim_step(nudge(rate)).result()["grad_norm"]
        return trainer.forward_backward(ROWS, loss).result()["loss"], norm

    _, norm = loss_after(1.0, 0.0)
    rate = 0.002 / norm**2
    rise = loss_after(-1.0, rate)[0] - loss_after(1.0, rate)[0]
    assert rise / (2 * rate) == pytest.approx(norm**2, rel=0.01)


def test_clipping_scales_the_step_and_grad_norm_is_taken_before_it(bench: Bench) -> None:
    start = logprobs(bench.trainer())
    moves, norms = [], []
    for clip_norm in (0.0, 1e-3):
        trainer = bench.trainer()
        trainer.forward_backward(ROWS, cross_entropy()).result()
        norms.append(
            trainer.optim_step(nudge(1e-2 if clip_norm == 0 else 1.0, clip_norm)).result()[
                "grad_norm"
            ]
        )
        moves.append(np.concatenate(logprobs(trainer)) - np.concatenate(start))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    shrunk = 100 * 1e-3 / norms[0]
    assert np.linalg.norm(moves[1]) == pytest.approx(shrunk * np.linalg.norm(moves[0]), rel=0.1)


def test_an_optim_step_without_gradients_changes_nothing(bench: Bench) -> None:
    trainer = bench.trainer()
    bench.step(trainer)
    before = logprobs(trainer)
    metrics = trainer.optim_step(Adam(bench.backend.learning_rate, weight_decay=0.5)).result()
    assert metrics["grad_norm"] == 0.0
    assert bench.same(logprobs(trainer), before)


def test_the_numbers_of_the_optimizer_are_those_of_this_step(bench: Bench) -> None:
    trainer = bench.trainer()
    bench.step(trainer)
    before = logprobs(trainer)
    trainer.forward_backward(ROWS, cross_entropy()).result()
    trainer.optim_step(Adam(learning_rate=0.0, weight_decay=0.5)).result()
    assert bench.same(logprobs(trainer), before)


def test_a_row_with_an_empty_mask_contributes_nothing(bench: Bench) -> None:
    silent = Row.of([4, 8, 15, 16], [False] * 4).with_arrays(weights=np.ones(4, dtype=np.float32))
    plain, mixed = bench.trainer(), bench.trainer()
    left = plain.forward_backward(ROWS, cross_entropy()).result()
    right = mixed.forward_backward([silent, *ROWS, silent], cross_entropy()).result()
    assert right == pytest.approx(left, rel=1e-5)
    plain.optim_step(nudge(0.1)).result()
    mixed.optim_step(nudge(0.1)).result()
    assert bench.same(logprobs(plain), logprobs(mixed))


def test_a_batch_without_trained_positions_has_no_gradient(bench: Bench) -> None:
    trainer = bench.trainer()
    silent = Row.of([4, 8, 15], [False] * 3).with_arrays(weights=np.ones(3, dtype=np.float32))
    assert trainer.forward_backward([silent], cross_entropy()).result() == {
        "loss": 0.0,
        "nll": 0.0,
        "tokens": 0.0,
    }
    assert trainer.forward_backward([], cross_entropy()).result()["loss"] == 0.0
    assert trainer.optim_step(nudge(0.1)).result()["grad_norm"] == 0.0


def test_entry_0_and_unmasked_positions_are_zero_and_never_trained(bench: Bench) -> None:
    def greedy_for_everything(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        outside = ops.where(batch.mask, 0.0, ops.maximum(logp, -logp))
        at_start = ops.sum(ops.where(batch.mask, 1.0, 0.0)[:, 0])
        return -ops.sum(logp * batch["ones"]), {
            "outside": ops.sum(ops.stop_gradient(outside)),
            "at_start": at_start,
        }

    def only_the_mask(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        return -ops.sum(ops.where(batch.mask, logp, 0.0)), {}

    rows = [row.with_arrays(ones=np.ones(len(row), dtype=np.float32)) for row in ROWS]
    careless, careful = bench.trainer(), bench.trainer()
    metrics = careless.forward_backward(rows, Loss("careless", greedy_for_everything)).result()
    careful.forward_backward(rows, Loss("careful", only_the_mask)).result()
    assert (metrics["outside"], metrics["at_start"]) == (0.0, 0.0)
    careless.optim_step(nudge(0.01)).result()
    careful.optim_step(nudge(0.01)).result()
    assert bench.same(logprobs(careless), logprobs(careful))


def test_a_loss_sees_all_rows_of_a_group_in_one_batch(bench: Bench) -> None:
    def pairs(ops: Ops, logp: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
        names = [name for name in batch.groups if name is not None]
        assert len(batch.groups) == logp.shape[0]
        whole = sum(names.count(name) == 2 for name in set(names))
        broken = sum(names.count(name) != 2 for name in set(names))
        return ops.sum(logp), {"whole": float(whole), "broken": float(broken)}

    names = ["a", "b", None, "a", "b", None]
    rows = [
        Row(row.tokens, row.mask, row.arrays, None, name)
        for row, name in zip(ROWS, names, strict=True)
    ]
    for micro_batch_tokens in (1, 30, WHOLE_BATCH):
        metrics = (
            bench.trainer(micro_batch_tokens)
            .forward_backward(rows, Loss("pairs", pairs, whole_groups=True))
            .result()
        )
        assert (metrics["whole"], metrics["broken"]) == (2.0, 0.0)


def test_a_loss_sees_the_log_probabilities_of_its_temperature(bench: Bench) -> None:
    trainer, warm = bench.trainer(), Loss("warm", cross_entropy().fn, temperature=0.7)
    refuse_or_skip(bench, warm)
    seen = trainer.forward_backward(ROWS, warm).result()["nll"]
    at_07 = -sum(
        float(values.sum()) for values in trainer.snapshot().logprobs(ROWS, temperature=0.7)
    )
    at_1 = -sum(float(values.sum()) for values in logprobs(trainer))
    assert seen == pytest.approx(at_07, rel=1e-4)
    assert seen != pytest.approx(at_1, rel=1e-2)


def test_muon_trains_or_is_refused_by_name(bench: Bench) -> None:
    trainer = bench.trainer()
    muon = Muon(0.01, Adam(bench.backend.learning_rate))
    trainer.forward_backward(ROWS, cross_entropy()).result()
    if not trainer.can.muon:
        with pytest.raises(CapabilityError, match=r"Muon.*Adam"):
            trainer.optim_step(muon)
        return
    before = logprobs(trainer)
    trainer.optim_step(muon).result()
    assert not bench.same(logprobs(trainer), before)


# ------------------------------------------------------------------------------------------------
# saved weights


def test_saving_and_loading_changes_no_log_probability(bench: Bench, tmp_path: Path) -> None:
    trainer, other = bench.trainer(), bench.trainer()
    bench.step(trainer)
    trainer.save(tmp_path / "saved")
    saved = logprobs(trainer)
    bench.step(other, some_rows(seed=5))
    assert not bench.same(logprobs(other), saved)
    other.load(tmp_path / "saved")
    assert bench.same(logprobs(other), saved)
    assert bench.same(bench.backend.reopen(tmp_path / "saved").logprobs(ROWS), saved)


def test_a_resumed_run_takes_the_same_next_steps(bench: Bench, tmp_path: Path) -> None:
    trainer, resumed, restarted = bench.trainer(), bench.trainer(), bench.trainer()
    for seed in (1, 2):
        bench.step(trainer, some_rows(seed=seed))
    trainer.save(tmp_path / "saved", optimizer=True)
    resumed.load(tmp_path / "saved", optimizer=True)
    restarted.load(tmp_path / "saved", optimizer=False)
    for one in (trainer, resumed, restarted):
        bench.step(one, some_rows(seed=3))
    assert bench.same(logprobs(resumed), logprobs(trainer))
    assert not bench.same(logprobs(restarted), logprobs(trainer))


def test_saving_again_replaces_the_former_save(bench: Bench, tmp_path: Path) -> None:
    trainer, other = bench.trainer(), bench.trainer()
    trainer.save(tmp_path / "saved")
    bench.step(trainer)
    trainer.save(tmp_path / "saved")
    other.load(tmp_path / "saved")
    assert bench.same(logprobs(other), logprobs(trainer))
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_loading_forgets_gradients_that_were_accumulated_before(bench: Bench) -> None:
    trainer = bench.trainer()
    trainer.forward_backward(ROWS, cross_entropy()).result()
    trainer.load(bench.lessons)
    assert trainer.optim_step(nudge(0.1)).result()["grad_norm"] == 0.0


def test_loading_what_is_not_there_is_a_clear_error(bench: Bench, tmp_path: Path) -> None:
    trainer = bench.trainer()
    before = logprobs(trainer)
    with pytest.raises(UserError, match="nowhere"):
        trainer.load(tmp_path / "nowhere")
    trainer.save(tmp_path / "light", optimizer=False)
    with pytest.raises(UserError, match="light"):
        trainer.load(tmp_path / "light", optimizer=True)
    assert bench.same(logprobs(trainer), before)


# ------------------------------------------------------------------------------------------------
# the sampler


def all_next(sampler: Sampler, prompt: Tokens, temperature: float = 1.0) -> Array:
    """float32 [VOCAB]: log-probability of each token after the prompt."""
    rows = [all_trained([*prompt, token], len(prompt)) for token in range(VOCAB)]
    return np.array([values[-1] for values in sampler.logprobs(rows, temperature)])


def flat(batches: Sequence[Sequence[Sample]]) -> list[Sample]:
    return list(itertools.chain.from_iterable(batches))


def tokens_of(batches: Sequence[Sequence[Sample]]) -> list[list[list[int]]]:
    return [[sample.tokens for sample in samples] for samples in batches]


def test_log_probabilities_are_as_long_as_the_row_and_zero_outside_the_mask(
    sampler: Sampler,
) -> None:
    for row, values in zip(ROWS, sampler.logprobs(ROWS), strict=True):
        assert values.shape == (len(row),)
        assert values.dtype == np.float32
        assert (values[~row.mask] == 0).all()
        assert (values[row.mask] < 0).all()


def test_log_probabilities_do_not_depend_on_the_rest_of_the_batch(
    bench: Bench, sampler: Sampler
) -> None:
    assert bench.same([sampler.logprobs([row])[0] for row in ROWS], sampler.logprobs(ROWS))


def test_log_probabilities_of_all_tokens_sum_to_one(bench: Bench, sampler: Sampler) -> None:
    for temperature in (1.0, 0.7) if bench.trainer().can.temperature else (1.0,):
        assert np.exp(all_next(sampler, PROMPTS[0], temperature)).sum() == pytest.approx(
            1.0, abs=1e-4
        )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_log_probabilities_are_those_of_the_trainer(
    bench: Bench, sampler: Sampler, temperature: float
) -> None:
    if temperature != 1 and not bench.trainer().can.temperature:
        pytest.skip("this backend's trainer knows temperature 1 alone")
    batches = sampler.sample(
        PROMPTS, SamplingParams(max_tokens=8, temperature=temperature, num_samples=2)
    )
    for prompt, samples in zip(PROMPTS, batches, strict=True):
        for sample in samples:
            row = all_trained([*prompt, *sample.tokens], len(prompt))
            expected = sampler.logprobs([row], temperature)[0][len(prompt) if len(prompt) else 1 :]
            assert bench.same([np.array(sample.logprobs)], [expected])


def test_sampled_log_probabilities_are_taken_before_truncation(
    bench: Bench, sampler: Sampler
) -> None:
    params = SamplingParams(max_tokens=1, top_k=3, top_p=0.8, num_samples=4)
    for prompt, samples in zip(PROMPTS, sampler.sample(PROMPTS, params), strict=True):
        whole = all_next(sampler, prompt)
        assert bench.same(
            [np.array([s.logprobs[0] for s in samples])], [whole[[s.tokens[0] for s in samples]]]
        )


def test_greedy_takes_the_most_likely_token_at_its_log_probability_at_temperature_1(
    bench: Bench, sampler: Sampler
) -> None:
    params = SamplingParams(max_tokens=3, temperature=0.0)
    batches = sampler.sample(PROMPTS, params)
    for prompt, (sample,) in zip(PROMPTS, batches, strict=True):
        for t, token in enumerate(sample.tokens):
            whole = all_next(sampler, [*prompt, *sample.tokens[:t]])
            assert token == int(whole.argmax())
            assert sample.logprobs[t] == pytest.approx(
                float(whole[token]), abs=bench.backend.tolerance
            )
    assert tokens_of(sampler.sample(PROMPTS, params)) == tokens_of(batches)


@pytest.mark.parametrize(
    "narrow",
    [SamplingParams(max_tokens=6, top_k=1), SamplingParams(max_tokens=6, top_p=1e-6)],
    ids=["top_k", "top_p"],
)
def test_the_narrowest_truncation_is_greedy(sampler: Sampler, narrow: SamplingParams) -> None:
    greedy = SamplingParams(max_tokens=6, temperature=0.0)
    assert tokens_of(sampler.sample(PROMPTS, narrow)) == tokens_of(sampler.sample(PROMPTS, greedy))


def test_top_k_and_top_p_keep_the_smallest_set_that_qualifies(sampler: Sampler) -> None:
    prompt = PROMPTS[1]
    chances = np.exp(all_next(sampler, prompt))
    order = np.argsort(-chances)
    nucleus = order[: int((np.cumsum(chances[order]) < 0.5).sum()) + 1]
    for params, allowed in (
        (SamplingParams(max_tokens=1, top_k=3, num_samples=500), order[:3]),
        (SamplingParams(max_tokens=1, top_p=0.5, num_samples=500), nucleus),
    ):
        seen = {sample.tokens[0] for sample in sampler.sample([prompt], params)[0]}
        assert seen == set(allowed.tolist())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampling_frequencies_match_the_probabilities(
    bench: Bench, sampler: Sampler, temperature: float
) -> None:
    draws = 1000 if bench.backend.remote else 8000
    if temperature != 1 and not bench.trainer().can.temperature:
        pytest.skip("this backend's trainer knows temperature 1 alone")
    params = SamplingParams(max_tokens=1, temperature=temperature, num_samples=draws, seed=11)
    expected = draws * np.exp(all_next(sampler, PROMPTS[0], temperature).astype(np.float64))
    seen = np.bincount(
        [sample.tokens[0] for sample in sampler.sample(PROMPTS[:1], params)[0]], minlength=VOCAB
    )
    common = expected >= 5
    rare = ~common
    squares = [*(seen[common] - expected[common]) ** 2 / expected[common]]
    if rare.any():
        squares.append(
            (seen[rare].sum() - expected[rare].sum()) ** 2 / max(expected[rare].sum(), 1.0)
        )
    freedom = len(squares) - 1
    assert sum(squares) < freedom + 4 * np.sqrt(2 * freedom)


def test_a_sample_depends_on_seed_key_and_number_alone(sampler: Sampler) -> None:
    params = SamplingParams(max_tokens=8, num_samples=3, seed=4)
    keys = [7, 2, 40, 13]
    together = tokens_of(sampler.sample(PROMPTS, params, keys))
    alone = [
        tokens_of(sampler.sample([prompt], params, [key]))[0]
        for prompt, key in zip(PROMPTS, keys, strict=True)
    ]
    backwards = tokens_of(sampler.sample(PROMPTS[::-1], params, keys[::-1]))[::-1]
    fewer = tokens_of(
        sampler.sample(PROMPTS, SamplingParams(max_tokens=8, num_samples=2, seed=4), keys)
    )
    assert together == alone == backwards
    assert [samples[:2] for samples in together] == fewer
    assert together[0][0] != together[0][1]
    by_key = tokens_of(sampler.sample([PROMPTS[0]] * 2, params, [7, 2]))
    assert by_key[0] == together[0] != by_key[1]
    again = tokens_of(sampler.sample([PROMPTS[0], PROMPTS[1], PROMPTS[0]], params, [7, 2, 9]))
    assert (again[:2], again[2]) == (
        together[:2],
        tokens_of(sampler.sample([PROMPTS[0]], params, [9]))[0],
    )
    assert (
        tokens_of(
            sampler.sample(PROMPTS, SamplingParams(max_tokens=8, num_samples=3, seed=5), keys)
        )
        != together
    )


def test_prompts_without_keys_are_numbered_from_0(sampler: Sampler) -> None:
    params = SamplingParams(max_tokens=5)
    assert tokens_of(sampler.sample(PROMPTS, params)) == tokens_of(
        sampler.sample(PROMPTS, params, range(len(PROMPTS)))
    )


def test_each_prompt_gets_as_many_samples_as_asked_for(sampler: Sampler) -> None:
    batches = sampler.sample(PROMPTS, SamplingParams(max_tokens=2, num_samples=5))
    assert [len(samples) for samples in batches] == [5] * len(PROMPTS)


def test_a_stop_id_ends_a_sample_and_is_its_last_token(sampler: Sampler) -> None:
    stops = tuple(range(0, VOCAB, 4))
    samples = flat(
        sampler.sample(PROMPTS, SamplingParams(max_tokens=6, num_samples=20, stop_ids=stops))
    )
    for sample in samples:
        assert not set(sample.tokens[:-1]) & set(stops)
        stopped = sample.tokens[-1] in stops
        assert sample.stop_reason is (StopReason.STOP if stopped else StopReason.LENGTH)
        assert stopped or len(sample.tokens) == 6
        assert len(sample.logprobs) == len(sample.tokens)
    assert {sample.stop_reason for sample in samples} == set(StopReason)


def test_stop_ids_change_nothing_before_they_come(sampler: Sampler) -> None:
    free = flat(sampler.sample(PROMPTS, SamplingParams(max_tokens=6, num_samples=8)))
    bound = flat(
        sampler.sample(
            PROMPTS, SamplingParams(max_tokens=6, num_samples=8, stop_ids=tuple(range(0, VOCAB, 4)))
        )
    )
    assert all(
        sample.tokens == whole.tokens[: len(sample.tokens)]
        for sample, whole in zip(bound, free, strict=True)
    )


def test_an_empty_list_of_prompts_or_rows_gives_an_empty_result(sampler: Sampler) -> None:
    assert sampler.sample([], SamplingParams()) == []
    assert sampler.logprobs([]) == []


def test_a_sample_ends_where_the_context_is_full(bench: Bench, sampler: Sampler) -> None:
    assert bench.trainer().can.max_context == CONTEXT
    ((sample,), (short,)) = sampler.sample([[1] * (CONTEXT - 2), [1]], SamplingParams(max_tokens=5))
    assert (len(sample.tokens), sample.stop_reason) == (2, StopReason.LENGTH)
    assert len(short.tokens) == 5


def test_what_does_not_fit_the_context_is_a_clear_error(bench: Bench, sampler: Sampler) -> None:
    long = all_trained([1] * (CONTEXT + 1)).with_arrays(
        weights=np.ones(CONTEXT + 1, dtype=np.float32)
    )
    for length in (CONTEXT, CONTEXT + 1):
        with pytest.raises(UserError, match=str(CONTEXT)):
            sampler.sample([[1], [1] * length], SamplingParams(max_tokens=1))
    with pytest.raises(UserError, match=str(CONTEXT)):
        sampler.logprobs([long])
    with pytest.raises(UserError, match=str(CONTEXT)):
        bench.trainer().forward_backward([long], cross_entropy())


def test_an_empty_prompt_is_a_clear_error(sampler: Sampler) -> None:
    with pytest.raises(UserError, match="empty prompt"):
        sampler.sample([[]], SamplingParams(max_tokens=1))


def test_a_stream_gives_what_sample_gives_and_lets_prompts_join(sampler: Sampler) -> None:
    params, other = (
        SamplingParams(max_tokens=4, seed=2),
        SamplingParams(max_tokens=3, num_samples=2),
    )
    stream = sampler.stream()
    assert stream.poll() == []
    stream.submit(3, PROMPTS[0], params)
    stream.submit(8, PROMPTS[1], params)
    stream.submit(9, PROMPTS[2], other)
    stream.cancel(8)
    finished = dict(stream.poll())
    stream.submit(1, PROMPTS[3], params)
    for _ in range(3):
        finished.update(stream.poll())
    assert stream.poll() == []
    assert sorted(finished) == [1, 3, 9]
    for key, prompt, wanted in (
        (3, PROMPTS[0], params),
        (9, PROMPTS[2], other),
        (1, PROMPTS[3], params),
    ):
        assert tokens_of([finished[key]]) == tokens_of(sampler.sample([prompt], wanted, [key]))


SHORT, LONG = [1] * (CONTEXT - 2), [1]
"""Prompts whose samples have 2 and 40 tokens: the context holds no more after the first."""
UNTIL_FULL = SamplingParams(max_tokens=40, seed=6)


def test_a_stream_returns_a_finished_row_while_a_long_one_runs(
    bench: Bench, sampler: Sampler
) -> None:
    bench.backend.skip_where_remote("decides which request ends first")
    stream = sampler.stream()
    stream.submit(1, LONG, UNTIL_FULL)
    stream.submit(2, SHORT, UNTIL_FULL)
    first = stream.poll()
    assert [(key, len(samples[0].tokens)) for key, samples in first] == [(2, 2)]
    stream.submit(3, SHORT, UNTIL_FULL)
    rest = {}
    while polled := stream.poll():
        rest.update(polled)
    assert sorted(rest) == [1, 3]
    for key, prompt in ((1, LONG), (2, SHORT), (3, SHORT)):
        expected = sampler.sample([prompt], UNTIL_FULL, [key])
        assert tokens_of([(dict(first) | rest)[key]]) == tokens_of(expected)


def test_a_running_row_can_be_cancelled_and_its_key_used_again(
    bench: Bench, sampler: Sampler
) -> None:
    bench.backend.skip_where_remote("decides which request ends first")
    stream = sampler.stream()
    stream.submit(1, LONG, UNTIL_FULL)
    stream.submit(2, SHORT, UNTIL_FULL)
    assert [key for key, _ in stream.poll()] == [2]
    stream.cancel(1)
    stream.cancel(99)
    assert stream.poll() == []
    stream.submit(1, SHORT, UNTIL_FULL)
    assert [key for key, _ in stream.poll()] == [1]


def test_a_cancelled_row_changes_no_other(bench: Bench, sampler: Sampler) -> None:
    bench.backend.skip_where_remote("decides which request ends first")
    stream = sampler.stream()
    for key, prompt in ((1, LONG), (2, SHORT), (3, LONG)):
        stream.submit(key, prompt, UNTIL_FULL)
    stream.poll()
    stream.cancel(1)
    ((key, samples),) = stream.poll()
    assert key == 3
    assert tokens_of([samples]) == tokens_of(sampler.sample([LONG], UNTIL_FULL, [3]))


def test_a_closed_stream_holds_nothing(bench: Bench, sampler: Sampler) -> None:
    bench.backend.skip_where_remote("decides which request ends first")
    stream = sampler.stream()
    stream.submit(1, LONG, UNTIL_FULL)
    stream.submit(2, SHORT, UNTIL_FULL)
    stream.poll()
    stream.close()
    assert stream.poll() == []
    stream.submit(1, SHORT, UNTIL_FULL)
    assert [key for key, _ in stream.poll()] == [1]


def test_a_key_may_not_be_queued_twice(bench: Bench, sampler: Sampler) -> None:
    bench.backend.skip_where_remote("decides which request ends first")
    stream = sampler.stream()
    stream.submit(1, LONG, UNTIL_FULL)
    with pytest.raises(AssertionError, match="key 1"):
        stream.submit(1, SHORT, UNTIL_FULL)
    stream.submit(2, SHORT, UNTIL_FULL)
    stream.poll()
    with pytest.raises(AssertionError, match="key 1"):
        stream.submit(1, SHORT, UNTIL_FULL)


class ShortAndLong:
    """A policy whose first task has a short turn that calls a tool; the turn of the second is long.
    `continued`: set when sampling continues after the short turn.
    """

    seed = 0

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.continued = sampler, threading.Event()

    def open(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Prompt:
        tokens = SHORT if messages[0].content == "short" else LONG
        return Prompt(tuple(messages), tuple(tools), tuple(tokens))

    def fits(self, prompt: Prompt) -> bool:  # noqa: ARG002
        return True

    def stream(self) -> ShortAndLong:
        self._stream, self._left = self.sampler.stream(), 0
        return self

    def submit(self, key: int, prompt: Prompt) -> None:
        self._left += 1
        self._stream.submit(key, prompt.tokens, UNTIL_FULL)

    def poll(self) -> list[tuple[int, Turn]]:
        if self._left == 1:
            self.continued.set()
        polled = self._stream.poll()
        self._left -= len(polled)
        calls = {2: (ToolCall("look"),), 40: ()}
        return [
            (key, Turn(Message("assistant", "x", None, calls[len(sample.tokens)]), "x"))
            for key, (sample,) in polled
        ]

    def close(self) -> None:
        self._stream.close()


def test_the_tool_of_a_finished_row_runs_while_a_long_row_samples(
    bench: Bench, sampler: Sampler
) -> None:
    bench.backend.skip_where_remote("decides which request ends first")
    policy = ShortAndLong(sampler)
    look = Tool("look", "", {"type": "object"}, lambda: policy.continued.wait(60))
    tasks = [
        Task(name, (Message("user", name),), (look,), Expect(answer="x"))
        for name in ("short", "long")
    ]
    rules = EpisodeRules(first_call_only=True)
    short, long = run_episodes(policy, tasks, Registry([look], timeout=30), rules)
    assert [result.value for result in short.results[0]] == [True]
    assert long.ending is EpisodeStatus.ANSWERED


def test_a_snapshot_that_samples_in_a_thread_never_touches_the_trainer(bench: Bench) -> None:
    plain, watched = bench.trainer(), bench.trainer()
    for trainer in (plain, watched):
        bench.step(trainer)
    old = watched.snapshot()
    expected = tokens_of(old.sample([LONG] * 4, UNTIL_FULL))
    bench.step(plain)
    bench.step(watched)
    with ThreadPoolExecutor(1) as threads:
        sampled = threads.submit(old.sample, [LONG] * 4, UNTIL_FULL)
        for _ in range(4):
            assert bench.step(watched) == bench.step(plain)
    assert tokens_of(sampled.result()) == expected
    assert all(
        np.array_equal(left, right)
        for left, right in zip(logprobs(plain), logprobs(watched), strict=True)
    )


class OnlyEvery:
    """Allows the ids of one residue, which the token before chooses."""

    def __init__(self, first: int) -> None:
        self._next = first % 3

    def allowed(self) -> NDArray[np.bool_]:
        return np.arange(VOCAB - 1) % 3 == self._next

    def advance(self, token: int) -> None:
        self._next = (token + 1) % 3


class Anything:
    def allowed(self) -> NDArray[np.bool_]:
        return np.ones(VOCAB, dtype=bool)

    def advance(self, token: int) -> None:
        assert 0 <= token < VOCAB


@pytest.fixture
def bound(bench: Bench) -> Any:
    """A sampler whose grammars are the number of the first residue, or `anything`; `compiled`
    counts them.
    """
    trainer = bench.trainer()
    sampler: Any = trainer.snapshot()
    if not trainer.can.grammar:
        with pytest.raises(CapabilityError, match="without grammars"):
            sampler.stream().submit(1, [1], SamplingParams(), "start: /a/")
        pytest.skip("this backend has no grammars, and says so")
    sampler.compiled = Counter()

    def compile_grammar(text: str, stop_ids: Sequence[int]) -> Any:  # noqa: ARG001
        sampler.compiled[text] += 1
        return Anything() if text == "anything" else OnlyEvery(int(text))

    sampler.compile_grammar = compile_grammar
    return sampler


def bound_samples(
    sampler: Sampler, params: SamplingParams, grammars: Sequence[str | None]
) -> list[list[Sample]]:
    stream = sampler.stream()
    for key, (prompt, grammar) in enumerate(zip(PROMPTS, grammars, strict=True)):
        stream.submit(key, prompt, params, grammar)
    answered: dict[int, list[Sample]] = {}
    while polled := stream.poll():
        answered.update(polled)
    return [answered[key] for key in range(len(PROMPTS))]


@pytest.mark.parametrize(
    "change", [{}, {"temperature": 0.7}, {"temperature": 0.0}, {"top_k": 5}, {"top_p": 0.4}]
)
def test_grammars_bind_samples_and_keep_the_policys_log_probabilities(
    bound: Any, change: dict[str, Any]
) -> None:
    params = SamplingParams(max_tokens=6, num_samples=3, seed=4, stop_ids=(6, 7, 8))
    params = dataclasses.replace(params, **change)
    answered = bound_samples(bound, params, ["0", "1", "2", "7"])
    assert bound.compiled == dict.fromkeys("0127", 3), "one constraint for each sample"
    for first, prompt, samples in zip((0, 1, 2, 7), PROMPTS, answered, strict=True):
        for sample in samples:
            before = [first % 3, *((token + 1) % 3 for token in sample.tokens)]
            assert all(
                token % 3 == residue and token < VOCAB - 1
                for token, residue in zip(sample.tokens, before, strict=False)
            )
            row = all_trained([*prompt, *sample.tokens], len(prompt))
            again = bound.logprobs([row], params.temperature or 1.0)[0][len(prompt) :]
            np.testing.assert_allclose(sample.logprobs, again, atol=1e-4)


def test_a_grammar_that_allows_everything_changes_no_sample(bound: Any) -> None:
    params = SamplingParams(max_tokens=5, num_samples=4, seed=1)
    free = tokens_of(bound.sample(PROMPTS, params))
    assert tokens_of(bound_samples(bound, params, ["anything"] * 4)) == free
    assert tokens_of(bound_samples(bound, params, ["anything", None, "anything", None])) == free


def test_each_prompt_of_a_stream_has_a_grammar_of_its_own(bound: Any) -> None:
    answered = bound_samples(bound, SamplingParams(max_tokens=1, seed=4), ["0", "1", "2", "1"])
    assert [samples[0].tokens[0] % 3 for samples in answered] == [0, 1, 2, 1]


def test_a_grammar_needs_a_tokenizer(sampler: Sampler) -> None:
    with pytest.raises(UserError):
        sampler.stream().submit(0, PROMPTS[0], SamplingParams(), "start: /a/")
