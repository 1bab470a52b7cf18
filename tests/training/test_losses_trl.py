"""Our losses against the trainers of the installed `trl`: the same tokens and weights give the same
loss and the same gradient.

TRL's own `compute_loss` runs on a tiny Llama with random weights; its trainers are made without
their set-up, with just the attributes that the computation reads. Ours runs through `TorchTrainer`.
Compared are the value and the gradient of every weight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from toolhone.backends.base import Loss
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import TorchTrainer, open_sampler, open_trainer
from toolhone.rows import Row
from toolhone.training.dpo import with_pair_weights
from toolhone.training.losses import (
    Variant,
    cross_entropy,
    policy_loss,
    preference_loss,
    reply_shares,
    token_weights,
)
from toolhone.training.update import with_token_weights

trl = pytest.importorskip("trl", reason="trl is not installed (extra 'bench')")
pytestmark = pytest.mark.filterwarnings("ignore")

VOCAB = 50
LONGEST = 9
"""Most tokens of a reply, the constant that dr_grpo divides by."""
Gradient = dict[str, torch.Tensor]


def tiny_llama(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The policy, and another that serves as reference."""
    folder = tmp_path_factory.mktemp("llama")
    return tiny_llama(folder / "policy", 0), tiny_llama(folder / "reference", 1)


def replies(
    prompts: Sequence[int], lengths: Sequence[int], holes: bool = False, seed: int = 0
) -> list[Row]:
    """Rows of random tokens: a prompt, and a reply that is trained; with `holes`, some tokens
    inside it come from a tool.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for prompt, length in zip(prompts, lengths, strict=True):
        mask = [False] * prompt + [True] * length
        if holes and length > 4:
            mask[prompt + 2 : prompt + 4] = [False, False]
        rows.append(Row.of(rng.integers(1, VOCAB, prompt + length).tolist(), mask))
    return rows


def ours(folder: Path, rows: Sequence[Row], loss: Loss) -> tuple[float, Gradient]:
    trainer: TorchTrainer = open_trainer(
        folder, None, EngineOptions(device_map="cpu", micro_batch_tokens=40)
    )
    value = trainer.forward_backward(rows, loss).result()["loss"]
    return value, {
        name: weight.grad.clone()
        for name, weight in trainer.engine.trainable()
        if weight.grad is not None
    }


def bare(kind: type, folder: Path, head: dict[str, Any], **attributes: Any) -> Any:
    """One of TRL's trainers around a model, with what its loss reads."""
    from trl.trainer.utils import add_fused_lm_head

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    add_fused_lm_head(model, **head)
    accelerator = SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=1,
        is_main_process=True,
        sync_gradients=True,
        parallelism_config=None,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,  # noqa: ARG005
        autocast=lambda: torch.autocast("cpu", enabled=False),
    )
    trainer = object.__new__(kind)
    metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    common = {
        "model": model,
        "accelerator": accelerator,
        "aux_loss_enabled": False,
        "_metrics": metrics,
        "_tp_size": 1,
    }
    for name, value in {
        **common,
        "_total_train_tokens": 0,
        "current_gradient_accumulation_steps": 1,
        **attributes,
    }.items():
        object.__setattr__(trainer, name, value)
    return trainer


def theirs(trainer: Any, inputs: dict[str, Any], **options: Any) -> tuple[float, Gradient]:
    loss = trainer.compute_loss(trainer.model, inputs, **options)
    loss.backward()
    return float(loss.detach()), {
        n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None
    }


def agree(one: tuple[float, Gradient], two: tuple[float, Gradient]) -> None:
    assert one[0] == pytest.approx(two[0], rel=1e-5, abs=1e-6)
    assert set(one[1]) == set(two[1])
    size = max(float(value.abs().max()) for value in two[1].values())
    assert size > 1e-4
    for name, value in two[1].items():
        torch.testing.assert_close(
            one[1][name],
            value,
            rtol=1e-4,
            atol=2e-6 * max(1.0, size),
            msg=lambda text, n=name: f"{n}: {text}",
        )


def right_padded(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, attention mask and trained mask, [rows, longest]."""
    width = max(map(len, rows))
    ids, seen, mask = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
    for line, row in enumerate(rows):
        ids[line, : len(row)] = torch.from_numpy(row.tokens)
        seen[line, : len(row)] = 1
        mask[line, : len(row)] = torch.from_numpy(row.mask.astype(np.int64))
    return ids, seen, mask


def test_cross_entropy_is_the_loss_of_sft_trainer(models: tuple[Path, Path]) -> None:
    rows = replies([4, 3, 6, 2], [5, 8, 3, 7], holes=True)
    ids, seen, mask = right_padded(rows)
    head = {"outputs": ("log_probs", "entropy", "is_top1")}
    options = SimpleNamespace(loss_type="nll", average_tokens_across_devices=False, max_length=None)
    trainer = bare(
        trl.SFTTrainer, models[0], head, args=options, compute_loss_func=None, label_smoother=None
    )
    inputs = {"input_ids": ids, "attention_mask": seen, "labels": ids.masked_fill(mask == 0, -100)}
    agree(ours(models[0], with_token_weights(rows), cross_entropy()), theirs(trainer, inputs))


def pairs_of(models: tuple[Path, Path], lengths: Sequence[int] = (5, 8, 3)) -> list[Row]:
    """Three pairs of one prompt each, with the reference's log-probabilities; the chosen sides have
    these lengths.
    """
    chosen, rejected = (
        replies([4, 3, 6], lengths, seed=1),
        replies([4, 3, 6], [7, 2, 6], holes=True, seed=2),
    )
    rows = []
    for number, (better, worse) in enumerate(zip(chosen, rejected, strict=True)):
        begin = int(np.flatnonzero(better.mask)[0])
        worse = replace(worse, tokens=np.concatenate([better.tokens[:begin], worse.tokens[begin:]]))
        rows += [replace(row, group=f"pair-{number}") for row in (better, worse)]
    known = open_sampler(models[1], EngineOptions(device_map="cpu")).logprobs(rows)
    return [row.with_arrays(ref_logprobs=values) for row, values in zip(rows, known, strict=True)]


@pytest.mark.parametrize(
    ("theirs_type", "loss"),
    [
        ("sigmoid", preference_loss("dpo", 0.3)),
        ("sigmoid_norm", preference_loss("dpo", 0.3, length_normalised=True)),
        ("ipo", preference_loss("ipo", 0.3)),
        ("robust", preference_loss("dpo", 0.3, label_smoothing=0.1)),
        (("sigmoid", "sft"), preference_loss("dpo", 0.3, rpo_alpha=0.5)),
        (("ipo", "sft"), preference_loss("ipo", 0.3, rpo_alpha=0.5)),
    ],
    ids=["sigmoid", "sigmoid_norm", "ipo", "label_smoothing", "rpo", "rpo_ipo"],
)
@pytest.mark.parametrize(
    "precomputed", [False, True], ids=["reference_in_the_step", "reference_precomputed"]
)
def test_the_preference_loss_is_that_of_dpo_trainer(
    theirs_type: str | tuple[str, str], loss: Loss, precomputed: bool, models: tuple[Path, Path]
) -> None:
    # TRL adds the mean over the tokens of all chosen sides, ours is a mean of each side's; they
    # agree where lengths are equal
    rows = pairs_of(models, (5, 5, 5)) if loss.config["rpo_alpha"] else pairs_of(models)
    ids, seen, mask = right_padded([*rows[0::2], *rows[1::2]])
    head = {"outputs": ("log_probs", "entropy", "mean_logits", "is_top1")}
    reference = bare(trl.DPOTrainer, models[1], {}).model.eval()
    trainer = bare(
        trl.DPOTrainer,
        models[0],
        head,
        ref_model=reference,
        beta=0.3,
        loss_types=[theirs_type] if isinstance(theirs_type, str) else list(theirs_type),
        loss_weights=[1.0] if isinstance(theirs_type, str) else [1.0, loss.config["rpo_alpha"]],
        ld_alpha=None,
        label_smoothing=loss.config["label_smoothing"],
        f_divergence_type="reverse_kl",
        use_weighting=False,
        precompute_ref_logps=precomputed,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
    )
    inputs = {"input_ids": ids, "attention_mask": seen, "completion_mask": mask}
    if precomputed:
        known = torch.tensor([float(row.arrays["ref_logprobs"].sum()) for row in rows])
        inputs |= {"ref_chosen_logps": known[0::2], "ref_rejected_logps": known[1::2]}
    value, gradient = theirs(trainer, inputs)
    if (
        theirs_type == "robust"
    ):  # its variant is unbiased; ours is the conservative one, made here of its plain loss
        value, gradient = conservative(trainer, inputs)
    mine = ours(models[0], with_pair_weights(rows), loss)
    agree(mine, (value, gradient))
    metrics = {name: values[0] for name, values in trainer._metrics["train"].items()}
    told = (
        open_trainer(models[0], None, EngineOptions(device_map="cpu"))
        .forward_backward(with_pair_weights(rows), loss)
        .result()
    )
    if theirs_type in ("sigmoid", "robust"):
        named = {
            "margin": "rewards/margins",
            "chosen_reward": "rewards/chosen",
            "rejected_reward": "rewards/rejected",
        }
        for name, other in {**named, "accuracy": "rewards/accuracies"}.items():
            assert told[name] / told["pairs"] == pytest.approx(metrics[other], rel=1e-4, abs=1e-5)
    assert told["chosen_logp"] / told["pairs"] == pytest.approx(metrics["logps/chosen"], rel=1e-5)
    assert told["rejected_logp"] / told["pairs"] == pytest.approx(
        metrics["logps/rejected"], rel=1e-5
    )


def conservative(trainer: Any, inputs: dict[str, Any]) -> tuple[float, Gradient]:
    """(1 - e) times TRL's sigmoid loss, plus e times the same with the sides exchanged:
    conservative DPO.
    """
    halves = {}
    for side in ("right", "wrong"):
        trainer.model.zero_grad()
        trainer.loss_types = ["sigmoid"]
        given = (
            inputs
            if side == "right"
            else {name: torch.cat(value.chunk(2)[::-1]) for name, value in inputs.items()}
        )
        if side == "wrong" and "ref_chosen_logps" in inputs:
            given |= {
                "ref_chosen_logps": inputs["ref_rejected_logps"],
                "ref_rejected_logps": inputs["ref_chosen_logps"],
            }
        value, gradient = theirs(trainer, given)
        halves[side] = (value, {name: slope.clone() for name, slope in gradient.items()})
    share = trainer.label_smoothing
    (right, up), (wrong, down) = halves["right"], halves["wrong"]
    return (1 - share) * right + share * wrong, {
        name: (1 - share) * up[name] + share * down[name] for name in up
    }


def grpo_rows(models: tuple[Path, Path], temperature: float) -> list[Row]:
    """Five replies with advantages, sampled by a policy that has moved since, some tokens of them a
    tool's.
    """
    rows = replies([4, 3, 6, 2, 3], [5, 8, 3, 7, 9], holes=True, seed=3)
    known = open_sampler(models[1], EngineOptions(device_map="cpu")).logprobs(rows)
    now = open_sampler(models[0], EngineOptions(device_map="cpu")).logprobs(rows, temperature)
    rng = np.random.default_rng(5)
    made = []
    for row, reference, own, worth in zip(
        rows, known, now, (1.2, -0.7, 0.4, -1.5, 0.6), strict=True
    ):
        drift = rng.normal(0, 0.5, len(row)).astype(np.float32)
        sampled, near = (
            np.where(row.mask, own + drift, 0),
            np.where(row.mask, own + 0.3 * (reference - own), 0),
        )
        advantages = row.mask.astype(np.float32) * np.float32(worth)
        made.append(
            row.with_arrays(
                old_logprobs=sampled.astype(np.float32),
                ref_logprobs=near.astype(np.float32),
                advantages=advantages,
            )
        )
    return made


def grpo_inputs(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """As TRL stacks them: prompts padded on the left, replies on the right, tools told apart in
    `tool_mask`.
    """
    begins = [int(np.flatnonzero(row.mask)[0]) for row in rows]
    left, right = (
        max(begins),
        max(len(row) - begin for row, begin in zip(rows, begins, strict=True)),
    )
    shapes = {
        "prompt_ids": left,
        "prompt_mask": left,
        "completion_ids": right,
        "completion_mask": right,
        "tool_mask": right,
    }
    inputs = {
        name: torch.zeros(len(rows), width, dtype=torch.long) for name, width in shapes.items()
    }
    arrays = {
        name: torch.zeros(len(rows), right)
        for name in ("old_per_token_logps", "ref_per_token_logps")
    }
    for line, (row, begin) in enumerate(zip(rows, begins, strict=True)):
        length = len(row) - begin
        inputs["prompt_ids"][line, left - begin :] = torch.from_numpy(row.tokens[:begin])
        inputs["prompt_mask"][line, left - begin :] = 1
        inputs["completion_ids"][line, :length] = torch.from_numpy(row.tokens[begin:])
        inputs["completion_mask"][line, :length] = 1
        inputs["tool_mask"][line, :length] = torch.from_numpy(row.mask[begin:].astype(np.int64))
        for name, own in (
            ("old_per_token_logps", "old_logprobs"),
            ("ref_per_token_logps", "ref_logprobs"),
        ):
            arrays[name][line, :length] = torch.from_numpy(row.arrays[own][begin:])
    worth = torch.tensor([float(row.arrays["advantages"][row.mask][0]) for row in rows])
    count = torch.tensor(sum(int(row.mask.sum()) for row in rows))
    return {**inputs, **arrays, "advantages": worth, "num_items_in_batch": count}


@pytest.mark.parametrize("beta", [0.0, 0.2], ids=["without_kl", "with_kl"])
@pytest.mark.parametrize("variant", ["grpo", "dapo", "dr_grpo", "gspo", "cispo"])
def test_the_policy_loss_is_that_of_grpo_trainer(
    variant: Variant, beta: float, models: tuple[Path, Path]
) -> None:
    temperature = 0.8
    rows = grpo_rows(models, temperature)
    # TRL's cispo bounds the ratio itself, from above alone; ours by 1 + epsilon_high, and from
    # below
    low, high = (1.0, 0.28) if variant == "cispo" else (0.2, 0.28)
    trainer = bare(
        trl.GRPOTrainer,
        models[0],
        {"temperature": temperature, "outputs": ("log_probs", "entropy")},
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="sequence" if variant == "gspo" else "token",
        beta=beta,
        loss_type="grpo" if variant == "gspo" else variant,
        epsilon_low=low,
        epsilon_high=1 + high if variant == "cispo" else high,
        use_vllm=False,
        max_completion_length=LONGEST,
        _entropy_bonus_enabled=False,
    )
    their = theirs(trainer, grpo_inputs(rows))
    weights, shares = token_weights(variant, rows, LONGEST), reply_shares(rows)
    full = [
        row.with_arrays(weights=w, share=s) for row, w, s in zip(rows, weights, shares, strict=True)
    ]
    agree(ours(models[0], full, policy_loss(variant, low, high, beta, temperature)), their)
    assert beyond(models[0], rows, temperature, 1 + high) > 1, (
        "some tokens must lie beyond the clip, or the test shows little"
    )


def beyond(folder: Path, rows: Sequence[Row], temperature: float, most: float) -> int:
    """Tokens of good replies whose ratio lies above `most`."""
    now = open_sampler(folder, EngineOptions(device_map="cpu")).logprobs(rows, temperature)
    far = [
        row.mask & (np.exp(own - row.arrays["old_logprobs"]) > most)
        for row, own in zip(rows, now, strict=True)
    ]
    return sum(
        int((line & (row.arrays["advantages"] > 0)).sum())
        for line, row in zip(far, rows, strict=True)
    )
