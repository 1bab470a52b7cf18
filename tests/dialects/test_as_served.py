"""Training sees what the model sees in use, for every published template; losses are named."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from support.template_zoo import zoo_dialect, zoo_parameters, zoo_tokenizer
from toolhone.backends.base import Sampler, SamplingParams
from toolhone.data.render import encode_rows
from toolhone.dialects.choose import FormatRequest
from toolhone.dialects.interface import History
from toolhone.dialects.probe.certificate import CertificateVerdict, certify
from toolhone.dialects.probe.prove import prove_template
from toolhone.episodes.policy import Prompt, TokenPolicy, Turn
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Message, Tool, ToolCall

TOOLS = (
    Tool("f", "d", {"type": "object", "properties": {"a": {"type": "string", "description": "d"}}}),
)
THINKING = (
    Message("user", "First Question?"),
    Message("assistant", None, "Think one.", (ToolCall("f", {"a": "one7"}),)),
    Message("tool", "Result one."),
    Message("assistant", "Answer one.", "Think two."),
    Message("user", "Second Question?"),
    Message("assistant", None, "Think three.", (ToolCall("f", {"a": "two7"}),)),
    Message("tool", "Result two."),
    Message("assistant", "Answer two.", "Think four."),
)
PLAIN = tuple(replace(message, reasoning=None) for message in THINKING)
ASSISTANT = [index for index, message in enumerate(PLAIN) if message.role == "assistant"]


@pytest.mark.parametrize("chat", [PLAIN, THINKING], ids=["plain", "thinking"])
@pytest.mark.parametrize("kept", [False, True], ids=["template", "kept"])
@pytest.mark.parametrize("name", zoo_parameters())
def test_every_turn_is_trained_after_the_ids_of_opening_and_extending_a_prompt(
    name: str, kept: bool, chat: tuple[Message, ...]
) -> None:
    tokenizer, found = zoo_dialect(name)
    if isinstance(found, str):
        return
    dialect = prove_template(tokenizer, None, True) if kept else found
    if kept and dialect.history is not History.KEPT:
        return
    try:
        rows = encode_rows(dialect.render(Conversation(chat, TOOLS)), dialect, tokenizer)
    except DialectError:
        assert chat is THINKING, (
            "plain calls and answers are written by every template that is certified"
        )
        return
    policy = TokenPolicy(cast(Sampler, None), dialect, tokenizer, SamplingParams(8))
    asked: Prompt | None = None
    turn: list[int] = []
    for number, index in enumerate(ASSISTANT):
        row = rows[min(number, len(rows) - 1)].tokens.tolist()
        opened = list(policy.open(chat[:index], TOOLS).tokens)
        assert row[: len(opened)] == opened, tokenizer.decode(row[: len(opened)])
        if asked is not None:
            reply = Turn(chat[ASSISTANT[number - 1]], "", tokens=turn)
            asked = policy.extend(asked, reply, chat[ASSISTANT[number - 1] + 1 : index])
        else:
            asked = policy.open(chat[:index], TOOLS)
        assert row[: len(asked.tokens)] == list(asked.tokens), tokenizer.decode(list(asked.tokens))
        mask = rows[min(number, len(rows) - 1)].mask
        end = next((place for place in range(len(opened), len(row)) if not mask[place]), len(row))
        turn = row[len(opened) : end]
        text = tokenizer.decode(opened)
        for word in (
            "First Question?",
            "Result one.",
            "Second Question?",
            "Result two.",
            "one7",
            "Answer one.",
        ):
            shown = any(word in str(message) for message in chat[:index])
            assert text.count(word) == shown or (word == "Answer one." and kept), (word, text)


BASE = """\
{%- if SHOWN %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}
{% if tools %}{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}<|im_end|>
{% endif %}{%- for m in messages %}{%- if m.role == 'user' %}<|im_start|>user
{{ m.content }}<|im_end|>
{% elif m.role == 'assistant' %}<|im_start|>assistant
{{ m.content or '' }}{% for c in m.tool_calls or [] %}<call>{"name": "{{ c.function.name }}", \
"arguments": \
{{ c.function.arguments | tojson }}}</call>{% endfor %}<|im_end|>
{% elif m.role == 'tool' %}<|im_start|>tool
{{ m.content }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}""".replace("SHOWN", "true")
LOSSES = {
    "tool names only": ("{{ tool | tojson }}", "{{ tool.function.name }}"),
    "no parameters": (
        "{{ tool | tojson }}",
        "{{ tool.function.name }}: {{ tool.function.description }}",
    ),
    "tools only without a system message": (
        "{% if tools %}",
        "{% if tools and messages[0].role != 'system' %}",
    ),
    "no system text beside tools": (
        "{% if messages[0].role == 'system' %}",
        "{% if messages[0].role == 'system' and not tools %}",
    ),
    "never a system text": ("{{ messages[0].content }}", ""),
    "the first result only": (
        "{% elif m.role == 'tool' %}",
        "{% elif m.role == 'tool' and loop.previtem.role != 'tool' %}",
    ),
    "results cut": ("tool\n{{ m.content }}", "tool\n{{ m.content[:40] }}"),
    "the last messages only": ("for m in messages", "for m in messages[-4:]"),
    "small letters": ("user\n{{ m.content }}", "user\n{{ m.content | lower }}"),
    "questions cut": ("user\n{{ m.content }}", "user\n{{ m.content | truncate(60) }}"),
    "the last of two questions": (
        "{%- if m.role == 'user' %}",
        "{%- if m.role == 'user' and not (loop.nextitem is defined and loop.nextitem.role == "
        "'user') %}",
    ),
    "two tools at most": ("for tool in tools", "for tool in tools[:2]"),
}


def test_a_template_without_losses_is_certified_without_limits() -> None:
    assert certify(zoo_tokenizer(BASE), FormatRequest())[1].verdict is CertificateVerdict.CERTIFIED


@pytest.mark.parametrize("loss", LOSSES)
def test_no_loss_at_the_prompt_is_certified_without_a_word(loss: str) -> None:
    template = BASE.replace(*LOSSES[loss])
    assert template != BASE
    dialect, certificate = certify(zoo_tokenizer(template), FormatRequest())
    assert certificate.verdict is (
        CertificateVerdict.REFUSED if dialect is None else CertificateVerdict.LIMITED
    )
    assert certificate.limits or certificate.reason
