"""Small tokenizers and chat templates for tests, made here; and random texts and calls to try
parsers with.

The templates are written for these tests after the ways of well-known ones: ChatML with tagged
calls, the same with thoughts that vanish from earlier turns, and bare JSON calls with an end mark
of their own.
"""

from __future__ import annotations

import random
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from toolhone.schema import ToolCall
from toolhone.tokenizer import TextTokenizer

QWEN_LIKE = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- 'Tools:' }}
{%- for tool in tools %}
{{- '\\n' + tool.function.name + ': ' + tool.function.description + ' '
    + tool.function.parameters | tojson }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content
    + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '\\n' if message.content or not loop.first }}
{%- set body = {'name': call.function.name, 'arguments': call.function.arguments} %}
{{- '<tool_call>' + body | tojson(separators=(',', ':')) + '</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>' + message.content + '</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

THINKING = QWEN_LIKE.replace(
    "{{- '<|im_start|>assistant\\n' + (message.content or '') }}",
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- if loop.last %}{{- '<think>\\n' + (message.reasoning_content or '')"
    " + '\\n</think>\\n\\n' }}{%- endif %}"
    "{{- message.content or '' }}",
)
"""As `QWEN_LIKE`, but the last turn shows a thought and earlier ones do not."""

LLAMA_LIKE = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'tool' %}{{- '<|start|>ipython<|end|>\\n\\n' + message.content | tojson
    + '<|eot|>' }}
{%- elif message.tool_calls %}
{%- if message.tool_calls | length != 1 %}
{{- raise_exception('only one call at once') }}{%- endif %}
{%- set call = message.tool_calls[0].function %}
{{- '<|start|>assistant<|end|>\\n\\n{"name": "' + call.name + '", "parameters": '
    + call.arguments | tojson + '}<|eom|>' }}
{%- else %}
{{- '<|start|>' + message.role + '<|end|>\\n\\n' }}
{%- if message.role == 'user' and tools
    and messages | selectattr('role', 'equalto', 'user') | list | first == message %}
{{- 'Tools:\\n' }}{%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
{%- endif %}
{{- message.content + '<|eot|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\\n\\n' }}{%- endif %}"""

CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML_ADDED = (
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
_TRAINING = [
    (
        "system user assistant tool calculator expression search.web query top "
        "name arguments parameters Tools: "
    )
    * 3,
    (
        '{"name":"calculator","arguments":{"expression":"2 + 2"}} final args '
        "the answer is It Let me see compute result of"
    ),
]


def small_tokenizer(
    template: str | None = None,
    special: tuple[str, ...] = CHATML_TOKENS,
    added: tuple[str, ...] = CHATML_ADDED,
    eos: str | None = "<|endoftext|>",
    normalizer: normalizers.Normalizer | None = None,
) -> TextTokenizer:
    """A byte-level BPE tokenizer, trained here on a few lines."""
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(
        Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"),
        "isolated",
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(_TRAINING, trainer)
    backend.add_special_tokens(list(special))
    backend.add_tokens([AddedToken(text, normalized=False) for text in added])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=eos, bos_token=None, pad_token=eos
    )
    wrapped.chat_template = template
    return TextTokenizer(wrapped)


def llama_tokenizer(template: str | None = LLAMA_LIKE) -> TextTokenizer:
    special = ("<|begin|>", "<|start|>", "<|end|>", "<|eot|>", "<|eom|>")
    tokenizer = small_tokenizer(None, special, (), eos="<|eot|>")
    tokenizer.wrapped.bos_token = "<|begin|>"
    tokenizer.wrapped.chat_template = template
    return tokenizer


_PIECES = (
    *"abc \"\\\n\t{}[](),:='",
    *(
        "é",
        "漢",
        "🙂",
        "null",
        "true",
        "1",
        "-2.5",
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALL]",
        "[/TOOL_CALL]",
    ),
    *(
        "<|im_end|>",
        "<think>",
        "</think>",
        '{"name": "f", "arguments": {}}',
        '{"tool": "f"}',
        "f(a=1)",
        "**",
        "\u2028",
        "\x00",
        "\r\n",
    ),
)


def random_text(rng: random.Random, length: int) -> str:
    """Text made of what parsers trip over."""
    return "".join(rng.choice(_PIECES) for _ in range(length))


def random_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(8 if depth < 3 else 6)
    if kind == 6:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {random_text(rng, 3): random_value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return [
        None,
        True,
        rng.randint(-(10**20), 10**20),
        rng.uniform(-1e9, 1e-9),
        random_text(rng, rng.randrange(12)),
        "",
    ][kind]


def random_calls(rng: random.Random) -> tuple[ToolCall, ...]:
    names = ("f", "get_weather", "a.b.c", "get-weather", "Größe", "x:y/z2")
    return tuple(
        ToolCall(
            rng.choice(names),
            {
                random_text(rng, rng.randrange(1, 4)): random_value(rng)
                for _ in range(rng.randrange(4))
            },
        )
        for _ in range(rng.randrange(1, 4))
    )


def metaspace_tokenizer(scheme: str) -> TextTokenizer:
    """A tokenizer that marks words with `▁` and puts one in front of every text (`first`) or every
    piece (`always`).
    """
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    alphabet = [chr(code) for code in range(32, 127)] + ["\n", "▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=200,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(_TRAINING, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return TextTokenizer(
        PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        )
    )
