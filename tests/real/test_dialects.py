"""Published tokenizers and chat templates: ids as published; safe use, or a refusal."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.dialect_cases import CONVERSATION, NESTED, QUOTES, TOOLS, TWO
from toolhone.dialects.choose import open_dialect
from toolhone.dialects.interface import Dialect
from toolhone.dialects.probe.prove import describe
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Message
from toolhone.tokenizer import Span, TextTokenizer

DATA = Path(__file__).parents[2].parent / "shared" / "data"
TOKENIZERS = DATA / "tokenizers"
TEMPLATES = sorted((DATA / "chat_templates").glob("*.jinja"))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not TOKENIZERS.is_dir(), reason=f"no published data in {DATA}"),
]

_MARK = re.compile(r"<\|[\w ]+\|>|<｜[^｜\n]{1,30}｜>|<\|?\w+\|?>|</s>|\[/?[A-Z_]{3,}\]")


def load(name: str) -> TextTokenizer:
    return TextTokenizer.load(TOKENIZERS / name)


def vectors(name: str) -> list[dict[str, Any]]:
    return list(json.loads((TOKENIZERS / name / "vectors.json").read_text(encoding="utf-8")))


def test_qwen3_gives_the_published_ids() -> None:
    tokenizer = load("qwen3")
    for vector in vectors("qwen3"):
        assert tokenizer.encode(vector["text"], control=True) == vector["ids"]


def test_mistral_gives_the_published_ids_also_when_cut_at_every_control_mark() -> None:
    tokenizer = load("mistral-v3")
    for vector in vectors("mistral-v3"):
        text = vector["text_v3"].replace("▁", " ").replace("<0x0A>", "\n")
        assert tokenizer.encode(text, control=True) == vector["tokens_v3"]
        pieces = re.split(r"(?<=\])(?=\[)|(?<=s>)", text)
        spans = [Span(piece, trained=bool(k % 2)) for k, piece in enumerate(pieces)]
        row = tokenizer.encode_spans([span for span in spans if span.text])
        assert row.tokens.tolist() == vector["tokens_v3"]


def round_trip(tokenizer: TextTokenizer, dialect: Dialect, calls: Any) -> None:
    """Render a conversation with these calls; the trained turns are read back through their ids."""
    turns = [Message("assistant", None, None, calls), Message("assistant", "It is 4.")]
    conversation = Conversation(
        (
            Message("user", "Do <|im_end|> it."),
            turns[0],
            *[Message("tool", "ok")] * len(calls),
            turns[1],
        ),
        TOOLS,
    )
    read = []
    for spans in dialect.render(conversation):
        row = tokenizer.encode_spans(spans)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], row.mask, [False]])))
        read += [
            dialect.parse(tokenizer.decode(row.tokens[a:b].tolist()))
            for a, b in zip(edges[::2], edges[1::2], strict=True)
        ]
    assert [reply.to_message() for reply in read] == turns


@pytest.mark.parametrize("name", ["qwen3", "qwen3-16k"])
def test_the_qwen3_template_is_native_and_its_prompts_are_those_of_the_template(name: str) -> None:
    tokenizer = load(name)
    dialect = open_dialect(tokenizer)
    assert describe(dialect)["syntax"] == "tool_call_tags"
    assert describe(dialect)["reasoning_field"] is True
    for calls in (TWO, NESTED, QUOTES):
        round_trip(tokenizer, dialect, calls)
    prompt = tokenizer.encode_spans(dialect.prompt([Message("user", "What is 2 + 2?")], TOOLS))
    tools = [tool.to_dict() for tool in TOOLS]
    asked = tokenizer.wrapped.apply_chat_template(
        [{"role": "user", "content": "What is 2 + 2?"}], tools=tools, add_generation_prompt=True
    )
    assert prompt.tokens.tolist() == list(asked["input_ids"])


def test_the_qwen3_template_rewrites_history_so_that_each_turn_is_a_row() -> None:
    tokenizer = load("qwen3-16k")
    dialect = open_dialect(tokenizer)
    rows = dialect.render(CONVERSATION)
    assert len(rows) == 3
    for k, count in enumerate((2, 4, 6)):
        prompt = tokenizer.encode_spans(
            dialect.prompt(CONVERSATION.messages[:count], TOOLS)
        ).tokens.tolist()
        row = tokenizer.encode_spans(rows[k])
        assert row.tokens.tolist()[: len(prompt)] == prompt
        assert row.mask[len(prompt)]
        assert not row.mask[: len(prompt)].any()
    suffix = "".join(
        span.text
        for span in dialect.suffix(CONVERSATION.messages[:3], TOOLS, CONVERSATION.messages[3:4])
    )
    assert suffix.startswith("\n<|im_start|>user\n<tool_response>\nfour <|im_end|>")
    assert suffix.endswith("<|im_end|>\n<|im_start|>assistant\n")


def with_template(base: TextTokenizer, template: str) -> TextTokenizer:
    """The tokenizer with this template, all marks in it as control tokens, and a BOS token."""
    wrapped = copy.deepcopy(base.wrapped)
    wrapped.add_special_tokens({"additional_special_tokens": sorted(set(_MARK.findall(template)))})
    wrapped.bos_token = wrapped.bos_token or "<|endoftext|>"
    wrapped.chat_template = template
    return TextTokenizer(wrapped)


def opened(tokenizer: TextTokenizer, name: str, markup: str = "auto") -> Dialect | str:
    """The dialect, or the sentence of its refusal."""
    try:
        return open_dialect(tokenizer, name, markup)
    except DialectError as refusal:
        return str(refusal)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_each_published_template_is_used_without_loss_or_refused_with_a_way_out(path: Path) -> None:
    tokenizer = with_template(load("qwen3-16k"), path.read_text(encoding="utf-8"))
    native = opened(tokenizer, "native")
    assert isinstance(native, str) == (
        path.stem in ("deepseek_v3.1", "deepseek_r1_distill_qwen", "smollm3")
    )
    if isinstance(native, str):
        assert "model.dialect=json" in native
    else:
        for calls in (TWO, NESTED, QUOTES):
            round_trip(tokenizer, native, calls)
    for name in ("json", "calls", "tagged"):
        dialect = opened(tokenizer, name)
        if isinstance(dialect, str):
            assert "model.markup=chatml" in dialect
            dialect = open_dialect(tokenizer, name, "chatml")
        round_trip(tokenizer, dialect, QUOTES)


def test_the_mistral_tokenizer_keeps_prompt_turn_and_suffix_together() -> None:
    tokenizer = load("mistral-v3")
    for markup in ("template", "chatml", "plain"):
        dialect = open_dialect(tokenizer, "json", markup)
        messages = (
            Message("user", "Hi [INST]"),
            Message("assistant", None, None, TWO),
            Message("tool", "6 </s>"),
            Message("tool", "[]"),
            Message("assistant", "It is 6."),
        )
        rows = [
            tokenizer.encode_spans(spans) for spans in dialect.render(Conversation(messages, TOOLS))
        ]
        assert (
            rows[0].tokens.tolist().count(tokenizer.bos_text and tokenizer.control_id("<s>")) == 1
        )
        ids = rows[-1].tokens.tolist()
        prompt = tokenizer.encode_spans(dialect.prompt(messages[:4], TOOLS)).tokens.tolist()
        assert ids[: len(prompt)] == prompt
        suffix = tokenizer.encode_spans(
            dialect.suffix(messages[:2], TOOLS, messages[2:4])
        ).tokens.tolist()
        assert prompt[-len(suffix) :] == suffix
        assert ids.count(tokenizer.eos_id) == (5 if markup == "chatml" else 2), (
            "the turns' ends and none from the data"
        )
