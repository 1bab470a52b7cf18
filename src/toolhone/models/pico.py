"""The embedded model, an untrained Qwen3 with 0.8 million parameters, made from a seed.

    folder = pico_folder(seed=0)    # config.json, model.safetensors, tokenizer.json, in the cache

Its tokenizer is trained on generated conversations (`config/presets/pico.json`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from toolhone.data.templates import Templates
from toolhone.schema import Conversation

CONTEXT = 1024
_END, _START, _STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_MERGES = 300
"""Number of BPE merges."""
_COMMON = 15
"""Conversations of 3,000 that must contain a piece for it to be one token."""
_EMBEDDING_SCALE = 0.1
"""Standard deviation of the initial embeddings; at the usual 0.02 copying is learned far later
(docs/log.md)."""


def pico_folder(seed: int = 0) -> Path:
    """Return a cached copy of pico, made at the first call.

    The folder's name holds a hash of what determines its bytes: this file, the configuration, the
    template, phrasings and fillers.
    """
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in ("pico.json", "pico_template.jinja", "phrasings.json", "fillers.json"):
        digest.update((resources.files("toolhone.config.presets") / name).read_bytes())
    name = f"pico-1-{digest.hexdigest()[:10]}-{seed}"
    return cached_folder(name, lambda draft: make_pico(draft, seed))


def cache_root() -> Path:
    """Return TOOLHONE_CACHE or ~/.cache/toolhone."""
    return Path(os.environ.get("TOOLHONE_CACHE") or Path.home() / ".cache" / "toolhone")


def cached_folder(name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder of this name in the cache; `make` fills it at the first call. Several
    processes may ask at once."""
    root = cache_root()
    folder = root / name
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=root))
    try:
        make(draft)
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def make_pico(folder: Path, seed: int = 0) -> Path:
    """Write pico for this seed into `folder` and return it. Same seed, same bytes."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    settings = json.loads(_preset("pico.json"))["config"]
    end, stop = tokenizer.convert_tokens_to_ids([_END, _STOP])
    config = Qwen3Config(**settings, vocab_size=len(tokenizer), eos_token_id=stop, pad_token_id=end)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(_EMBEDDING_SCALE / config.initializer_range)
    model.save_pretrained(folder)
    return folder


def chat_template() -> str:
    """Return pico's chat template."""
    return _preset("pico_template.jinja")


def _preset(name: str) -> str:
    return (resources.files("toolhone.config.presets") / name).read_text(encoding="utf-8")


def _tokenizer() -> Any:
    """Train a byte-level BPE on generated conversations, in which common pieces are one token.

    No token crosses the pieces of pico.json: a role, a signature, opened calls of a program, a JSON
    key, a small word with its space, a run of punctuation, one white space, two digits, a word.
    `Oslo` is the same token in a question and a call. A part of another word is never a token that
    is a word of the questions: every part occurs in many names.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = "|".join(json.loads(_preset("pico.json"))["pieces"])
    split = pre_tokenizers.Split(Regex(pieces), "isolated")
    cut = pre_tokenizers.Sequence([split, byte_level])
    counts: Counter[str] = Counter({f"{pair:02d}": _COMMON for pair in range(100)})
    words: set[str] = set()
    for row in Templates(seed=0).conversations(3000):
        counts.update({piece for text in _texts(row) for piece, _ in cut.pre_tokenize_str(text)})
        questions = [message.content or "" for message in row.messages if message.role == "user"]
        words.update(re.findall(r"[A-Za-z]+", " ".join(questions)))
    common = sorted(piece for piece, count in counts.items() if count >= _COMMON)
    draft = Tokenizer(models.BPE())
    draft.pre_tokenizer = cut
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + _MERGES, initial_alphabet=alphabet, show_progress=False
    )
    draft.train_from_iterator(sorted(words.difference(common)), trainer)
    model = json.loads(draft.to_str())["model"]
    tokens = dict.fromkeys([*model["vocab"], *common])
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(pair) for pair in model["merges"]]
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    core.pre_tokenizer, core.decoder = cut, decoders.ByteLevel()
    special = [AddedToken(mark, special=True, normalized=False) for mark in (_END, _START, _STOP)]
    core.add_special_tokens(special)
    core.add_tokens([AddedToken(mark, normalized=False) for mark in _MARKS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=_STOP,
        pad_token=_END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    wrapped.add_special_tokens({"additional_special_tokens": [_START]})
    wrapped.chat_template = chat_template()
    return wrapped


def _texts(row: Conversation) -> list[str]:
    """The parts of a conversation, much as the template writes them."""
    signatures = []
    for tool in row.tools:
        required = tool.parameters.get("required", [])
        names = [name if name in required else f"{name}?" for name in tool.properties]
        signatures.append(f"{tool.name}({','.join(names)})")
    texts = [f"system\nTools: {' '.join(signatures)}"]
    for message in row.messages:
        texts.append(f"{message.role}\n{message.content or ''}")
        for call in message.tool_calls:
            arguments = json.dumps(dict(call.arguments), separators=(",", ":"))
            texts.append(f'{{"name":"{call.name}","arguments":{arguments}}}')
    return texts
