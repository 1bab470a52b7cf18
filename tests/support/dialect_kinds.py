"""Dialects of every kind, opened on small tokenizers, with the texts that one conversation trains;
and helpers to look at rows.
"""

from __future__ import annotations

import numpy as np

from support.dialect_cases import CONVERSATION, ONE
from support.dialect_models import (
    QWEN_LIKE,
    THINKING,
    llama_tokenizer,
    metaspace_tokenizer,
    small_tokenizer,
)
from toolhone.dialects.choose import open_dialect
from toolhone.dialects.interface import Dialect
from toolhone.rows import Row
from toolhone.schema import Conversation, Message
from toolhone.tokenizer import TextTokenizer

USER = Message("user", "What is 2 + 2?")
CALL = Message("assistant", None, None, ONE)
RESULT = Message("tool", "4")
ANSWER = Message("assistant", "It is 4.")

KINDS = {
    "native": (small_tokenizer(QWEN_LIKE), "native", "auto"),
    "thinking": (small_tokenizer(THINKING), "native", "auto"),
    "llama": (llama_tokenizer(), "native", "auto"),
    "json": (small_tokenizer(QWEN_LIKE), "json", "template"),
    "calls": (small_tokenizer(), "calls", "auto"),
    "tagged": (small_tokenizer(), "tagged", "plain"),
    "chatml": (llama_tokenizer(None), "calls", "chatml"),
    "spaced": (metaspace_tokenizer("first"), "calls", "plain"),
}

TRAINED = {
    "native": [
        '<tool_call>{"name":"calculator","arguments":{"expression":"2 + 2"}}</tool_call><|im_end|>',
        "It is 4.<|im_end|>",
        "Yes, <think> so.<|im_end|>",
    ],
    "thinking": [
        (
            '<think>\n\n</think>\n\n<tool_call>{"name":"calculator","arguments":{"e'
            'xpression":"2 + 2"}}</tool_call><|im_end|>'
        ),
        "<think>\n\n</think>\n\nIt is 4.<|im_end|>",
        "<think>\n\n</think>\n\nYes, <think> so.<|im_end|>",
    ],
    "llama": [
        '{"name": "calculator", "parameters": {"expression": "2 + 2"}}<|eom|>',
        "It is 4.<|eot|>",
        "Yes, <think> so.<|eot|>",
    ],
    "json": [
        '{"tool": "calculator", "args": {"expression": "2 + 2"}}<|im_end|>',
        '{"final": "It is 4."}<|im_end|>',
        '{"final": "Yes, <think> so."}<|im_end|>',
    ],
    "calls": [
        'calculator(expression="2 + 2")<|im_end|>',
        "It is 4.<|im_end|>",
        "Yes, <think> so.<|im_end|>",
    ],
    "tagged": [
        (
            ' [TOOL_CALL]{"name": "calculator", "parameters": {"expression": "2 + '
            '2"}}[/TOOL_CALL]<|endoftext|>'
        ),
        " It is 4.<|endoftext|>",
        " Yes, <think> so.<|endoftext|>",
    ],
    "spaced": [' calculator(expression="2 + 2")</s>', " It is 4.</s>", " Yes, <think> so.</s>"],
    "chatml": [
        'calculator(expression="2 + 2")<|eot|>',
        "It is 4.<|eot|>",
        "Yes, <think> so.<|eot|>",
    ],
}


def opened(kind: str) -> tuple[TextTokenizer, Dialect]:
    tokenizer, dialect, markup = KINDS[kind]
    return tokenizer, open_dialect(tokenizer, dialect, markup)


def trained_texts(tokenizer: TextTokenizer, rows: list[Row]) -> list[str]:
    """The text of each run of trained tokens."""
    texts = []
    for row in rows:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], row.mask, [False]])))
        texts += [
            tokenizer.decode(row.tokens[a:b].tolist())
            for a, b in zip(edges[::2], edges[1::2], strict=True)
        ]
    return texts


def encoded(
    kind: str, conversation: Conversation = CONVERSATION
) -> tuple[TextTokenizer, Dialect, list[Row]]:
    tokenizer, dialect = opened(kind)
    return (
        tokenizer,
        dialect,
        [tokenizer.encode_spans(spans) for spans in dialect.render(conversation)],
    )


def controls(tokenizer: TextTokenizer, ids: list[int]) -> list[str]:
    texts = {tokenizer.control_id(text): text for text in tokenizer.control_texts}
    return [texts[index] for index in ids if index in texts]
