"""The torch backend on model families written by others: training, adapters that `peft` reads,
precision, large vocabularies.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from toolhone.backends.base import Adam, Lora, Muon, SamplingParams
from toolhone.backends.torch import engine as engines
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import TorchTrainer, open_sampler, open_trainer
from toolhone.errors import CapabilityError, ConfigError, ModelError
from toolhone.rows import Row
from toolhone.training.losses import Variant, cross_entropy, policy_loss, preference_loss

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True),
    "llama": LlamaConfig(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=16),
    "gpt2": GPT2Config(
        vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=128, initializer_range=0.2
    ),
}
CPU = EngineOptions(device_map="cpu")


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(CONFIGS[request.param], tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(CONFIGS["qwen3"], tmp_path_factory.mktemp("qwen3"))


def save_model(config: PreTrainedConfig, folder: Path) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def some_rows(lengths: tuple[int, ...] = (5, 9, 30, 17), vocabulary: int = 64) -> list[Row]:
    random = np.random.default_rng(0)
    rows = [Row.of(random.integers(3, vocabulary, n).tolist(), [True] * n) for n in lengths]
    total = sum(int(row.mask.sum()) for row in rows)
    return [row.with_arrays(weights=row.mask.astype(np.float32) / total) for row in rows]


def learn(trainer: TorchTrainer, steps: int, rate: float = 0.01) -> list[float]:
    losses = []
    for _ in range(steps):
        losses.append(trainer.forward_backward(some_rows(), cross_entropy()).result()["loss"])
        trainer.optim_step(Adam(rate)).result()
    return losses


def test_logprobs_are_those_of_the_model_itself(folder: Path) -> None:
    rows = some_rows()
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    for row, ours in zip(rows, open_sampler(folder, CPU).logprobs(rows), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor(row.tokens)[None]).logits[0, :-1]
        theirs = logits.log_softmax(-1).gather(1, torch.tensor(row.tokens)[1:, None])[:, 0]
        assert np.allclose(ours[1:], theirs.numpy(), atol=1e-5)


def test_greedy_samples_are_those_of_transformers_generate(folder: Path) -> None:
    prompts = [[3, 4, 5], [6, 7, 8, 9, 10, 11, 12]]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = None
    ours = open_sampler(folder, CPU).sample(prompts, SamplingParams(max_tokens=25, temperature=0.0))
    for prompt, samples in zip(prompts, ours, strict=True):
        theirs = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=25,
            do_sample=False,
            pad_token_id=0,
        )
        assert samples[0].tokens == theirs[0, len(prompt) :].tolist()


def test_full_training_lowers_the_loss_and_the_saved_folder_is_a_transformers_model(
    folder: Path, tmp_path: Path
) -> None:
    trainer = open_trainer(folder, None, CPU)
    losses = learn(trainer, 8)
    assert losses[-1] < 0.8 * losses[0]
    trainer.save(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").state_dict()
    for name, value in trainer.engine.model.state_dict().items():
        assert torch.equal(again[name], value), name


@pytest.mark.parametrize("last_layers", [0, 2])
def test_an_adapter_loads_in_peft_with_the_same_logits(
    folder: Path, tmp_path: Path, last_layers: int
) -> None:
    from peft import PeftModel

    trainer = open_trainer(folder, Lora(rank=4, alpha=8, last_layers=last_layers), CPU)
    losses = learn(trainer, 8, 0.05)
    assert losses[-1] < losses[0] - 0.05
    trainer.save(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(folder)
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    ids = torch.arange(3, 40)[None]
    trainer.engine.model.eval()
    with torch.no_grad():
        ours = trainer.engine.model(ids).logits
        assert torch.allclose(ours, theirs(ids).logits, atol=1e-5)
        assert not torch.allclose(
            ours, AutoModelForCausalLM.from_pretrained(folder)(ids).logits, atol=1e-2
        )
    adapted = {
        name.split(".lora_A")[0] for name, _ in theirs.named_parameters() if ".lora_A" in name
    }
    assert len(adapted) == len(trainer.engine.lora_layers)


def test_an_adapter_made_by_peft_continues_here(qwen: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    theirs = get_peft_model(
        AutoModelForCausalLM.from_pretrained(qwen),
        LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "up_proj"]),
    )
    for name, value in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    theirs.save_pretrained(tmp_path)
    rows = some_rows()
    with torch.no_grad():
        logits = theirs.eval()(torch.tensor(rows[1].tokens)[None]).logits[0, :-1].log_softmax(-1)
    expected = logits.gather(1, torch.tensor(rows[1].tokens)[1:, None])[:, 0].numpy()
    trainer = open_trainer(qwen, None, CPU, adapter=tmp_path)
    assert np.allclose(trainer.snapshot().logprobs(rows)[1][1:], expected, atol=1e-5)
    assert len(trainer.engine.trainable()) == 2 * len(trainer.engine.lora_layers) == 12
    assert np.allclose(open_sampler(tmp_path, CPU).logprobs(rows)[1][1:], expected, atol=1e-5), (
        "a PEFT folder names its base"
    )


def test_target_modules_and_last_layers_choose_the_adapted_layers(qwen: Path) -> None:
    trainer = open_trainer(
        qwen, Lora(rank=2, last_layers=1, target_modules=("q_proj", "down_proj")), CPU
    )
    assert trainer.engine.lora_layers == [
        "model.layers.2.self_attn.q_proj",
        "model.layers.2.mlp.down_proj",
    ]


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        (
            Lora(target_modules=("q_prj",)),
            "no linear layer is named 'q_prj' .did you mean 'q_proj'.*this model has",
        )
    ],
)
def test_an_unknown_target_module_is_named_with_the_known_ones(
    qwen: Path, lora: Lora, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        open_trainer(qwen, lora, CPU)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("lora", [None, Lora(rank=4)], ids=["full", "lora"])
def test_half_precision_learns_with_float32_weights(
    qwen: Path, dtype: str, lora: Lora | None
) -> None:
    trainer = open_trainer(qwen, lora, EngineOptions(device_map="cpu", torch_dtype=dtype))
    assert {value.dtype for _, value in trainer.engine.trainable()} == {torch.float32}
    losses = learn(trainer, 20, 0.01)
    assert losses[-1] < losses[0] - 0.05


def test_a_float16_overflow_skips_the_step_and_halves_the_scale(qwen: Path) -> None:
    trainer = open_trainer(qwen, None, EngineOptions(device_map="cpu", torch_dtype="float16"))
    scale = trainer._optimizer.loss_scale
    trainer.forward_backward(some_rows(), cross_entropy())
    next(value for _, value in trainer.engine.trainable() if value.grad is not None).grad.fill_(
        float("inf")
    )
    before = {name: value.detach().clone() for name, value in trainer.engine.trainable()}
    assert trainer.optim_step(Adam(0.1)).result()["skipped"] == 1.0
    assert trainer._optimizer.loss_scale == scale / 2
    assert all(torch.equal(before[name], value) for name, value in trainer.engine.trainable())


def gradients(trainer: TorchTrainer, rows: list[Row]) -> dict[str, torch.Tensor]:
    trainer.forward_backward(rows, cross_entropy())
    found = {
        name: value.grad.clone()
        for name, value in trainer.engine.trainable()
        if value.grad is not None
    }
    for _, value in trainer.engine.trainable():
        value.grad = None
    return found


def test_chunks_of_the_vocabulary_and_checkpointing_do_not_change_gradients(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = some_rows((40, 60, 90))
    plain = gradients(open_trainer(qwen, None, CPU), rows)
    checkpointed = gradients(
        open_trainer(qwen, None, EngineOptions(device_map="cpu", gradient_checkpointing=True)), rows
    )
    monkeypatch.setitem(engines.LOGIT_BYTES, "cpu", 7 * 64 * 4)
    chunked = gradients(open_trainer(qwen, None, CPU), rows)
    for name, value in plain.items():
        assert torch.allclose(value, chunked[name], atol=1e-6), name
        assert torch.allclose(value, checkpointed[name], atol=1e-6), name


@pytest.fixture
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "CPU_THREADS", 2)


@pytest.mark.usefixtures("_two_threads")
def test_side_by_side_micro_batches_give_the_same_gradients_and_bits(qwen: Path) -> None:
    rows = some_rows((40, 60, 90, 20, 33, 71))
    first, second = (gradients(open_trainer(qwen, None, CPU), rows) for _ in range(2))
    alone = open_trainer(qwen, None, CPU)
    alone._threads = None
    for name, value in gradients(alone, rows).items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], value, atol=1e-6), name


@pytest.mark.usefixtures("_two_threads")
def test_threads_are_set_when_a_model_opens_and_never_later(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = open_trainer(qwen, None, CPU)
    assert torch.get_num_threads() == 1
    monkeypatch.setattr(torch, "set_num_threads", lambda _: pytest.fail("threads were set again"))
    learn(trainer, 1, 0.05)
    trainer.snapshot().sample([[1, 2]], SamplingParams(max_tokens=2))


@pytest.mark.usefixtures("_two_threads")
def test_a_failure_in_one_of_several_micro_batches_is_raised(qwen: Path) -> None:
    trainer = open_trainer(qwen, None, CPU)
    with pytest.raises(CapabilityError, match="does not fit the model's context of 128"):
        trainer.forward_backward(some_rows((10, 20, 200)), cross_entropy())


def test_a_prefix_that_rows_share_runs_once_and_changes_no_gradient(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = list(range(3, 23))
    random = np.random.default_rng(1)
    rows = []
    for n in (5, 9, 30):
        row = Row.of(
            [*shared, *random.integers(3, 64, n).tolist()], [False] * 22 + [True] * (n - 2)
        )
        rows.append(row.with_arrays(weights=row.mask.astype(np.float32)))
    widths: list[int] = []
    trainer = open_trainer(qwen, None, CPU)
    trunk = trainer.engine.model.base_model.layers[0].register_forward_hook(
        lambda _, inputs, __: widths.append(inputs[0].shape[0] * inputs[0].shape[1])
    )
    once = gradients(trainer, rows)
    trunk.remove()
    assert widths == [20 + 4 + 8 + 29], "every token once, but the last ones"
    monkeypatch.setattr(trainer.engine, "shares_prefixes", False)
    for name, value in gradients(trainer, rows).items():
        assert (once[name] - value).norm() <= 1e-5 * value.norm(), name


def test_full_logits_of_a_large_vocabulary_are_never_made(tmp_path: Path) -> None:
    vocabulary, tokens = 50_000, 2048
    folder = save_model(
        Qwen3Config(**{**SIZES, "vocab_size": vocabulary}, head_dim=8, tie_word_embeddings=True),
        tmp_path,
    )
    trainer = open_trainer(folder, Lora(rank=2), CPU)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.nelement() * result.element_size())
            return result

    rows = some_rows((tokens // 16,) * 16, vocabulary)
    with Watch():
        trainer.forward_backward(rows, cross_entropy())
    assert 4 * vocabulary < largest <= engines.LOGIT_BYTES["cpu"] < tokens * vocabulary * 4 / 4


def test_dropout_of_the_model_is_off_but_its_config_keeps_it(tmp_path: Path) -> None:
    folder = save_model(
        GPT2Config(
            vocab_size=64,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=64,
            attn_pdrop=0.5,
            resid_pdrop=0.5,
        ),
        tmp_path,
    )
    trainer = open_trainer(folder, None, CPU)
    first, second = (
        trainer.forward_backward(some_rows(), cross_entropy()).result()["loss"] for _ in range(2)
    )
    assert first == second
    trainer.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["resid_pdrop"] == 0.5


def test_a_step_that_is_not_finite_changes_nothing_in_any_precision(qwen: Path) -> None:
    trainer = open_trainer(qwen, None, CPU)
    before = {name: value.detach().clone() for name, value in trainer.engine.trainable()}
    rows = [
        row.with_arrays(weights=np.where(row.mask, np.inf, 0).astype(np.float32))
        for row in some_rows()
    ]
    trainer.forward_backward(rows, cross_entropy())
    assert trainer.optim_step(Adam(0.1)).result()["skipped"] == 1.0
    assert all(torch.equal(before[name], value) for name, value in trainer.engine.trainable())


def test_a_mixture_of_experts_comes_back_from_its_checkpoint(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(
        **SIZES, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    )
    folder = save_model(config, tmp_path / "moe")
    trainer = open_trainer(folder, None, CPU)
    learn(trainer, 2)
    trainer.save(tmp_path / "saved")
    again = open_trainer(folder, None, CPU)
    again.load(tmp_path / "saved")
    for left, right in zip(
        trainer.snapshot().logprobs(some_rows()),
        again.snapshot().logprobs(some_rows()),
        strict=True,
    ):
        assert np.array_equal(left, right)


def test_a_prompt_that_fills_the_context_ends_while_its_neighbours_go_on(tmp_path: Path) -> None:
    folder = save_model(
        GPT2Config(
            vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32, initializer_range=0.2
        ),
        tmp_path,
    )
    prompts = [list(range(3, 34)), *([3 + i, 4] for i in range(9))]
    long, *short = open_sampler(folder, CPU).sample(
        prompts, SamplingParams(max_tokens=20, temperature=0.0)
    )
    assert len(long[0].tokens) == 1
    alone = open_sampler(folder, CPU).sample(
        prompts[1:], SamplingParams(max_tokens=20, temperature=0.0)
    )
    assert [s[0].tokens for s in short] == [s[0].tokens for s in alone]


def test_lora_dropout_is_on_in_training_only(qwen: Path) -> None:
    trainer = open_trainer(qwen, Lora(rank=4, dropout=0.5), CPU)
    learn(trainer, 3, 0.05)
    first, second = (
        trainer.forward_backward(some_rows(), cross_entropy()).result()["loss"] for _ in range(2)
    )
    assert first != second
    sampler = trainer.snapshot()
    assert np.array_equal(sampler.logprobs(some_rows())[0], sampler.logprobs(some_rows())[0])


def test_lora_dropout_is_off_where_log_probabilities_are_compared(qwen: Path) -> None:
    trainer = open_trainer(qwen, Lora(rank=4, dropout=0.5), CPU)
    learn(trainer, 3, 0.05)
    known = trainer.snapshot().logprobs(some_rows())
    rows = [
        row.with_arrays(
            advantages=1.0, weights=1.0, share=1.0, old_logprobs=now, behavior_logprobs=now
        )
        for row, now in zip(some_rows(), known, strict=True)
    ]
    losses = [policy_loss(variant, 0.2, 0.2, 0.0) for variant in get_args(Variant)]
    for loss in losses:
        metrics = trainer.forward_backward(rows, loss).result()
        assert metrics["behavior_gap"] / metrics["tokens"] < 1e-6, loss.name
        assert abs(metrics["kl_sampled"]) / metrics["tokens"] < 1e-6, loss.name
    pairs = [
        replace(row, group=f"pair {place // 2}").with_arrays(ref_logprobs=now, share=1.0)
        for place, (row, now) in enumerate(zip(rows[:2], known, strict=False))
    ]
    assert trainer.forward_backward(pairs, preference_loss("dpo", 0.1)).result()["margin"] == (
        pytest.approx(0.0, abs=1e-5)
    )


def test_rows_that_are_the_same_run_once_and_count_each(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = open_trainer(qwen, None, CPU)
    a, b = some_rows()[:2]
    heights: list[int] = []
    trunk = trainer.engine.trunk
    monkeypatch.setattr(trainer.engine, "shares_prefixes", False)
    monkeypatch.setattr(
        trainer.engine, "trunk", lambda ids: (heights.append(len(ids)), trunk(ids))[1]
    )

    def gradient(*batches: list[Row]) -> tuple[float, torch.Tensor]:
        loss = sum(
            trainer.forward_backward(batch, cross_entropy()).result()["loss"] for batch in batches
        )
        found = torch.cat(
            [
                value.grad.flatten()
                for _, value in trainer.engine.trainable()
                if value.grad is not None
            ]
        )
        for _, value in trainer.engine.trainable():
            value.grad = None
        return loss, found

    loss, together = gradient([a, b, a, a])
    assert sum(heights) == 2
    each_loss, each = gradient([a], [b], [a], [a])
    assert loss == pytest.approx(each_loss, rel=1e-6)
    assert torch.allclose(together, each, atol=1e-6)
    other = replace(a, mask=a.mask & (np.arange(len(a)) != np.flatnonzero(a.mask)[-1]))
    assert len(trainer.engine.logprobs([a, other], 1.0).unique(dim=0)) == 2


def test_rows_that_are_the_same_each_have_their_own_dropout(qwen: Path) -> None:
    trainer = open_trainer(qwen, Lora(rank=4, dropout=0.5), CPU)
    learn(trainer, 3, 0.05)
    row = some_rows()[0]
    trainer.engine.set_learning(True, dropout=True)
    first, second = trainer.engine.logprobs([row, row], 1.0)
    assert not torch.equal(first, second)
    trainer.engine.set_learning(False)
    first, second = trainer.engine.logprobs([row, row], 1.0)
    assert torch.equal(first, second)


def test_muon_moves_matrices_and_adam_the_rest(qwen: Path) -> None:
    trainer = open_trainer(qwen, None, CPU)
    before = {name: value.detach().clone() for name, value in trainer.engine.trainable()}
    trainer.forward_backward(some_rows(), cross_entropy())
    trainer.optim_step(Muon(0.0, Adam(0.01)))
    moved = {
        name for name, value in trainer.engine.trainable() if not torch.equal(before[name], value)
    }
    assert "model.embed_tokens.weight" in moved
    assert "model.norm.weight" in moved
    assert not any("proj" in name for name in moved)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere/model", "no causal model could be loaded from 'nowhere/model'"),
        (".", "holds no config.json"),
    ],
)
def test_a_model_that_is_not_there_is_one_sentence(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=said) as caught:
        open_trainer(name, None, CPU)
    assert "\n" not in str(caught.value)


def test_a_step_out_of_memory_runs_again_in_halves(
    qwen: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = some_rows((30, 31, 32, 33))
    whole = open_trainer(qwen, None, CPU)
    halved = open_trainer(qwen, None, CPU)
    for trainer in (whole, halved):
        trainer.forward_backward(rows[:2], cross_entropy())
    logprobs, most = halved.engine.logprobs, 70

    def bounded(rows: Any, temperature: float) -> Any:
        found = logprobs(rows, temperature)
        if halved.engine.count(rows) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return found

    monkeypatch.setattr(halved.engine, "logprobs", bounded)
    expected = whole.forward_backward(rows, cross_entropy()).result()
    assert halved.forward_backward(rows, cross_entropy()).result() == pytest.approx(expected)
    pairs = zip(whole.engine.trainable(), halved.engine.trainable(), strict=True)
    for (_, one), (_, other) in pairs:
        assert torch.allclose(one.grad, other.grad, atol=1e-6)
    assert "the step runs again with at most 61" in capsys.readouterr().err
    most = 0
    with pytest.raises(CapabilityError, match="no memory left for rows of 33 tokens"):
        halved.forward_backward(rows, cross_entropy())
