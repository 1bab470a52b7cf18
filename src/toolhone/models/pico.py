"""pico: the embedded model, an untrained Qwen3 with 0.8 million parameters, made from a seed.

    folder = pico_folder()                 # a cached Hugging Face folder
    folder = make_pico(Path("pico"), 0)    # the same in a folder of your choice

Its tokenizer is a byte-level BPE learned from the project's generated training split.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from toolhone.data.templates import Templates
from toolhone.schema import Conversation, Tool

VERSION = 1
MERGES = 300
"""Number of BPE merges."""
COMMON = 15
"""Conversations of 3,000 that must contain a piece for it to be one token."""
CONTEXT = 1024
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
SMALL_WORDS = (
    "a about all am and are as at be by can could do does for from get give has have how i in is "
    "it like me more much my of on one or please so some tell than thanks that the there they this "
    "to up was we what when where which who with without would you your"
)
EMBEDDING_SCALE = 0.1
"""Standard deviation of the initial embeddings; at the usual 0.02 copying is learned far later
(docs/log.md)."""
PIECES = "|".join(
    (
        r"(?:system|user|assistant|tool)\n",
        r"\p{L}+\([\p{L}_?,]*\)",
        r"(?:\p{L}+\()+['\[]*",
        r"[\"{}\[\], ]*\"[\p{L}_]+\": ?[\"\[]?",
        rf" (?:{'|'.join(SMALL_WORDS.split())})(?![\p{{L}}\p{{N}}])",
        r" ?[^\s\p{L}\p{N}]+ ?",
        r"\s",
        r"\p{N}{1,2}",
        r"\p{L}+",
    )
)
"""Spans that no token crosses: a role, a signature, opened calls of a program, a JSON key, a small
word with its space, a run of punctuation, one white space, two digits, a word. `Oslo` is the same
token in a question and a call."""


def make_pico(folder: Path, seed: int = 0) -> Path:
    """Write the model for this seed into `folder` and return it. Same seed, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    _model(len(tokenizer), tokenizer, seed).save_pretrained(folder)
    return folder


def chat_template() -> str:
    """Return pico's chat template."""
    template = resources.files("toolhone.config.presets") / "pico_template.jinja"
    return template.read_text(encoding="utf-8")


def _tokenizer() -> Any:
    """Train a byte-level BPE in which common pieces are one token.

    A part of another word is never a token that is a word of the questions: every part occurs in
    many names.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    common, words = _pieces(cut)
    draft = Tokenizer(models.BPE())
    draft.pre_tokenizer = cut
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + MERGES, initial_alphabet=alphabet, show_progress=False
    )
    draft.train_from_iterator(words, trainer)
    model = json.loads(draft.to_str())["model"]
    pieces = dict.fromkeys([*model["vocab"], *common])
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [tuple(pair) for pair in model["merges"]]
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    core.pre_tokenizer, core.decoder = cut, decoders.ByteLevel()
    special = [AddedToken(mark, special=True, normalized=False) for mark in (END, START, STOP)]
    core.add_special_tokens(special)
    core.add_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=STOP,
        pad_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    wrapped.add_special_tokens({"additional_special_tokens": [START]})
    wrapped.chat_template = chat_template()
    return wrapped


def _pieces(cut: Any) -> tuple[list[str], list[str]]:
    """Return frequent pieces of the training split (in the byte alphabet), and other words of
    questions."""
    common: Counter[str] = Counter({f"{pair:02d}": COMMON for pair in range(100)})
    words: set[str] = set()
    for row in Templates(seed=0).conversations(3000):
        common.update({piece for text in _texts(row) for piece, _ in cut.pre_tokenize_str(text)})
        questions = [message.content or "" for message in row.messages if message.role == "user"]
        words.update(re.findall(r"[A-Za-z]+", " ".join(questions)))
    whole = sorted(piece for piece, count in common.items() if count >= COMMON)
    return whole, sorted(words.difference(whole))


def _texts(row: Conversation) -> Iterator[str]:
    yield f"system\nTools: {' '.join(_signature(tool) for tool in row.tools)}"
    for message in row.messages:
        yield f"{message.role}\n{message.content or ''}"
        for call in message.tool_calls:
            arguments = json.dumps(dict(call.arguments), separators=(",", ":"))
            yield f'{{"name":"{call.name}","arguments":{arguments}}}'


def _signature(tool: Tool) -> str:
    required = tool.parameters.get("required", [])
    names = [name if name in required else f"{name}?" for name in tool.properties]
    return f"{tool.name}({','.join(names)})"


def _model(size: int, tokenizer: Any, seed: int) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=size,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=384,
        max_position_embeddings=CONTEXT,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(STOP),
        pad_token_id=tokenizer.convert_tokens_to_ids(END),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
        with torch.no_grad():
            model.model.embed_tokens.weight.mul_(EMBEDDING_SCALE / config.initializer_range)
        return model


def pico_folder(seed: int = 0) -> Path:
    """Return a cached copy, made at the first call, in TOOLHONE_CACHE or ~/.cache/toolhone.

    Several processes may ask at once.
    """
    root = Path(os.environ.get("TOOLHONE_CACHE") or Path.home() / ".cache" / "toolhone")
    folder = root / f"pico-{_recipe()}-{seed}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="pico-", dir=root))
    make_pico(draft, seed)
    try:
        draft.rename(folder)
    except OSError:
        shutil.rmtree(draft)
    return folder


def _recipe() -> str:
    """Hash what determines the bytes: this file, the template, phrasings and fillers."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in ("pico_template.jinja", "phrasings.json", "fillers.json"):
        digest.update((resources.files("toolhone.config.presets") / name).read_bytes())
    return f"{VERSION}-{digest.hexdigest()[:10]}"
