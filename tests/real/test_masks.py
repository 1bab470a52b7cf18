"""Masks of published Qwen templates: equal to a second derivation and to generation marks."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from conftest import SHARED
from support.template_zoo import TEMPLATES
from toolhone.data.render import encode_rows
from toolhone.dialects.chat_template.dialect import ChatTemplateDialect
from toolhone.dialects.choose import open_dialect
from toolhone.dialects.interface import Dialect
from toolhone.schema import Conversation, Message, Tool, ToolCall
from toolhone.tokenizer import TextTokenizer

FOLDER = SHARED / "tokenizers" / "qwen3"
END = "<|im_end|>"
WITHOUT_TOOLS = {"trl/qwen2_5_vl", "trl/qwen2_5_vl_training"}
NAMES = sorted(
    name for name in TEMPLATES if name.startswith("trl/qwen") and name not in WITHOUT_TOOLS
)
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not FOLDER.is_dir() or not NAMES,
        reason=f"wants {FOLDER} and the templates of an installed trl",
    ),
]
TOOLS = (
    Tool(
        "get_weather",
        "Tells.",
        {"type": "object", "properties": {"city": {"type": "string", "description": "c"}}},
    ),
)
MESSAGES = (
    Message("system", "Be brief."),
    Message("user", "Weather in Paris and Łódź?"),
    Message(
        "assistant",
        None,
        None,
        (ToolCall("get_weather", {"city": "Paris"}), ToolCall("get_weather", {"city": "Łódź"})),
    ),
    Message("tool", "21"),
    Message("tool", '{"celsius": 12}'),
    Message("assistant", "21 and 12 degrees."),
    Message("user", "Thanks!"),
    Message("assistant", "You are welcome."),
)
TURNS = [index for index, message in enumerate(MESSAGES) if message.role == "assistant"]


@lru_cache(maxsize=1)
def published() -> Any:
    return TextTokenizer.load(FOLDER).wrapped


def with_template(name: str) -> tuple[Any, TextTokenizer, Dialect, list[dict[str, Any]]]:
    """The published tokenizer with this template, its dialect, and the chat for transformers."""
    wrapped = copy.copy(published())
    wrapped.chat_template = TEMPLATES[name].read_text()
    tokenizer = TextTokenizer(wrapped)
    chat = []
    for message in MESSAGES:
        calls = [{"type": "function", "function": call.to_dict()} for call in message.tool_calls]
        chat.append(
            {
                "role": message.role,
                "content": message.content or "",
                **({"tool_calls": calls} if calls else {}),
            }
        )
    return wrapped, tokenizer, open_dialect(tokenizer), chat


def second_derivation(
    wrapped: Any, chat: list[dict[str, Any]], switches: dict[str, Any]
) -> list[tuple[list[int], list[bool]]]:
    """Ids and mask of every turn, from transformers' texts alone: prompt, then turn."""
    rows = []
    for index in TURNS:
        options = {"tools": [tool.to_dict() for tool in TOOLS], "tokenize": False, **switches}
        prompt = wrapped.apply_chat_template(chat[:index], add_generation_prompt=True, **options)
        whole = wrapped.apply_chat_template(chat[: index + 1], **options)
        assert whole.startswith(prompt)
        turn = whole[len(prompt) : whole.rindex(END) + len(END)]
        before, turn_ids = (
            wrapped.encode(text, add_special_tokens=False) for text in (prompt, turn)
        )
        rows.append((before + turn_ids, [False] * len(before) + [True] * len(turn_ids)))
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_of_every_turn_equals_a_second_derivation_from_transformers_texts(
    name: str,
) -> None:
    wrapped, tokenizer, dialect, chat = with_template(name)
    assert isinstance(dialect, ChatTemplateDialect)
    apart = [dialect.render(Conversation(MESSAGES[: index + 1], TOOLS)) for index in TURNS]
    switches = getattr(dialect.markup, "switches", {})
    for lists, (ids, mask) in zip(apart, second_derivation(wrapped, chat, switches), strict=True):
        row = encode_rows(lists, dialect, tokenizer)[-1]
        turn = np.flatnonzero(mask)
        text = wrapped.decode(ids[: turn[0]]), wrapped.decode(ids[turn[0] :])
        last = np.flatnonzero(row.mask)[-1] + 1
        start = last - len(turn)
        assert row.tokens[start:last].tolist() == ids[turn[0] :]
        assert row.mask[start:last].all()
        assert not row.mask[start - 1]
        assert (
            wrapped.decode(row.tokens[:start].tolist()),
            wrapped.decode(row.tokens[start:last].tolist()),
        ) == text
        if len(lists) > 1 or lists is apart[0]:
            assert row.tokens[:start].tolist() == ids[: turn[0]]


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_training")])
def test_masks_agree_with_generation_marks_except_on_what_is_never_generated(name: str) -> None:
    """Their masks also cover the header's own text, and the line's end behind the end mark."""
    wrapped, tokenizer, dialect, chat = with_template(name)
    (row,) = encode_rows(dialect.render(Conversation(MESSAGES, TOOLS)), dialect, tokenizer)
    tools = [tool.to_dict() for tool in TOOLS]
    marked = wrapped.apply_chat_template(
        chat, tools=tools, return_dict=True, return_assistant_tokens_mask=True
    )
    ours = "".join(wrapped.decode([token]) for token in row.tokens[row.mask])
    theirs = "".join(
        wrapped.decode([t])
        for t, on in zip(marked["input_ids"], marked["assistant_masks"], strict=True)
        if on
    )
    header = wrapped.apply_chat_template(
        chat[:2], tools=tools, tokenize=False, add_generation_prompt=True
    )
    begun = header[header.rindex("<|im_start|>assistant\n") + len("<|im_start|>assistant\n") :]
    turns = theirs.replace(f"{END}\n", END).split(END)[:-1]
    mine = ours.split(END)[:-1]
    assert [turn.removeprefix(begun).lstrip("\n") for turn in turns] == [
        turn.lstrip("\n") for turn in mine
    ]
