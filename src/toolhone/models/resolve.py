"""What a model's name means: a run, a checkpoint, a model or PEFT folder, a hub name, or `pico`.

    plan, weights = find("runs/first", None)    # its experiment and the folder of its weights
    base = resolve_model(plan)                  # the folder or hub name of the experiment's model

`pico` is the embedded model, an untrained Qwen3 with 0.8 million parameters, made from a seed;
`pico-trained` ships as files: what the demo makes of it (benchmarks/ship_pico.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

from toolhone.config.experiment import make_experiment, run_folder, stored_experiment
from toolhone.config.presets import PICO, PICO_TRAINED
from toolhone.config.sections import Experiment
from toolhone.data.templates import Templates
from toolhone.dialects.probe.certificate import Certificate
from toolhone.errors import ConfigError, ModelError, RunError
from toolhone.runs.run import Run, read_json
from toolhone.schema import Conversation

ADAPTER = "adapter_config.json"


def adapter_of(plan: Experiment) -> Path | None:
    """Return the PEFT folder that the model starts from; None for a full model."""
    folder = _start(plan)
    if folder is None or _is_whole(folder):
        return None
    if plan.training.lora is None and (folder / ADAPTER).is_file():
        wrong = f"{folder} is a LoRA folder with its own settings, but training.lora is null"
        raise ConfigError(f"model.adapter: {wrong}; leave that out")
    return folder


def resolve_model(plan: Experiment) -> str:
    """Return the folder or hub name of the experiment's model; make `pico` if needed.

    A run or checkpoint of full training in `model.adapter` is the model itself.
    """
    start, name = _start(plan), plan.model.name
    if start is not None and _is_whole(start):
        return str(start)
    if name == PICO:
        return str(pico_folder(plan.seed))
    if name == PICO_TRAINED:
        return str(resources.files("toolhone.models") / "pico_trained")
    if not Path(name).exists() and not _may_be_on_the_hub(name):
        right = "give a model folder, a hub name such as Qwen/Qwen3-0.6B, pico or pico-trained"
        raise ModelError(f"model.name: no model at {name!r}; {right}")
    return name


def _start(plan: Experiment) -> Path | None:
    """Return the folder of `model.adapter`; for a run, its checkpoint."""
    if plan.model.adapter is None:
        return None
    folder = Path(plan.model.adapter)
    return Run.open(folder).checkpoint() if (folder / "experiment.json").is_file() else folder


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint holds all weights, not an adapter."""
    return (folder / "config.json").is_file() and not (folder / ADAPTER).is_file()


def _may_be_on_the_hub(name: str) -> bool:
    """Whether a name looks like `owner/model`; with a folder `runs`, `runs/mine` is a path."""
    owner, _, model = name.partition("/")
    named = owner and model and "/" not in model and not name.startswith((".", "~"))
    return bool(named) and not Path(owner).is_dir()


def find(ref: str, checkpoint: str | None) -> tuple[Experiment, Path | None]:
    """Return the experiment of a reference and the folder of its trained weights, if it has any."""
    path = Path(ref)
    state = path / "state.json"
    if state.is_file():
        return stored_experiment(read_json(state).get("experiment", {}), str(state)), path
    if (path / "experiment.json").is_file():
        run = Run.open(path)
        return run.experiment, run.checkpoint(checkpoint)
    if checkpoint is not None:
        wrong = f"{ref} is no run folder (it holds no experiment.json)"
        raise RunError(f"--checkpoint names a checkpoint of a run, but {wrong}")
    shipped = ref in (PICO, PICO_TRAINED)
    if not shipped and not path.exists() and not _may_be_on_the_hub(ref):
        right = "give a run folder, a checkpoint, a model folder, a hub name, pico or pico-trained"
        raise ModelError(f"no model or run at {ref!r}; {right}")
    if (path / ADAPTER).is_file():
        base = read_json(path / ADAPTER).get("base_model_name_or_path") or ""
        return make_experiment({"model": {"name": base, "adapter": ref}}, str(path / ADAPTER)), None
    return make_experiment({"model": {"name": ref}}, "the command line"), None


def trained_format(plan: Experiment, weights: Path | None = None) -> Certificate | None:
    """Return the certificate of the format that the weights were trained in, if it is known.

    It is beside the weights, or else in their run.
    """
    for folder in (weights, adapter_of(plan), Path(resolve_model(plan))):
        if folder is not None and folder.is_dir():
            found = Certificate.read(folder) or Certificate.read(run_folder(folder))
            if found is not None:
                return found
    return None


# ------------------------------------------------------------------------------------------ pico

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
    """Return a cached copy of pico, made at the first call, in TOOLHONE_CACHE or ~/.cache/toolhone.

    Several processes may ask at once. The folder's name holds a hash of what determines its bytes:
    this file, the configuration, the template, phrasings and fillers.
    """
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in ("pico.json", "pico_template.jinja", "phrasings.json", "fillers.json"):
        digest.update((resources.files("toolhone.config.presets") / name).read_bytes())
    root = Path(os.environ.get("TOOLHONE_CACHE") or Path.home() / ".cache" / "toolhone")
    folder = root / f"pico-1-{digest.hexdigest()[:10]}-{seed}"
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
