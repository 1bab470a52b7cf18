"""Unknown call forms: derived from what a made-up template writes, or refused with a reason."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import pytest

from support.made_up_templates import (
    ADDRESSED,
    CALLS,
    OWN_THOUGHT,
    UNREADABLE,
    WITHOUT_END,
    made_up,
)
from support.random_conversations import Draw, same
from toolhone.dialects.chat_template.dialect import ChatTemplateDialect
from toolhone.dialects.probe.derive import derive
from toolhone.dialects.probe.prove import prove_template
from toolhone.dialects.syntax.delimited import (
    ID_SLOT,
    NAME_SLOT,
    NUMBER_SLOT,
    DelimitedSyntax,
    loose,
)
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Message, Tool, ToolCall
from toolhone.tokenizer import Spans, TextTokenizer

TOOLS = (
    Tool(
        "f",
        "",
        {
            "type": "object",
            "properties": {
                "a": {"type": "string"},
                "n": {"type": "number"},
                "o": {"type": "object"},
            },
        },
    ),
)
USER = Message("user", "Well?")


def trained(lists: list[Spans]) -> list[str]:
    """The text of each turn that is trained on."""
    texts: list[str] = []
    for spans in lists:
        inside = False
        for span in spans:
            if span.trained:
                texts = [*texts[:-1], texts[-1] + span.text] if inside else [*texts, span.text]
            inside = span.trained
    return texts


def read_back(dialect: ChatTemplateDialect, conversation: Conversation) -> None:
    """Check that training text is read back, types included; `DialectError` for a refusal."""
    turns = [message for message in conversation.messages if message.role == "assistant"]
    for message, text in zip(turns, trained(dialect.render(conversation)), strict=True):
        reply = dialect.parse(text, conversation.tools)
        assert (reply.content or "").strip() == (message.content or "").strip(), text
        assert [call.name for call in reply.calls] == [call.name for call in message.tool_calls], (
            text
        )
        assert all(
            same(dict(a.arguments), dict(b.arguments))
            for a, b in zip(reply.calls, message.tool_calls, strict=True)
        ), text


def refused(
    dialect: ChatTemplateDialect,
    tokenizer: TextTokenizer,
    wild: bool,
    cases: int,
    calls: int | None = None,
) -> int:
    """How many of so many random conversations are refused; all others come back as they are."""
    count = 0
    for case in range(cases):
        draw = Draw(random.Random(case), tokenizer.control_texts, wild)
        try:
            read_back(dialect, draw.conversation(calls, False if calls else None))
        except DialectError:
            count += 1
    return count


@pytest.mark.parametrize("way", CALLS)
def test_a_made_up_form_is_derived_and_keeps_every_ordinary_conversation(way: str) -> None:
    template, kind = CALLS[way]
    tokenizer = made_up(template)
    dialect = prove_template(tokenizer)
    assert dialect.syntax.name == kind
    assert refused(dialect, tokenizer, wild=False, cases=20) == 0
    assert refused(dialect, tokenizer, wild=True, cases=20) <= 10


@pytest.mark.parametrize("way", UNREADABLE)
def test_a_form_that_nothing_can_read_back_is_refused_with_what_it_writes(way: str) -> None:
    with pytest.raises(
        DialectError,
        match=r"calls that cannot be read back \(.*written was .*⟦call⟧|it drops the calls",
    ):
        prove_template(made_up(UNREADABLE[way]))


def test_marks_of_its_own_around_reasoning_are_found() -> None:
    dialect = prove_template(made_up(CALLS["name and object"][0], OWN_THOUGHT))
    reply = Message("assistant", "So it is.", "hm, <b> or", (ToolCall("f", {"a": "x"}),))
    text = trained(dialect.render(Conversation((USER, reply), TOOLS)))[0]
    assert text == '⟦muse⟧hm, <b> or⟦/muse⟧So it is.⟦call⟧f⟦with⟧{"a": "x"}⟦done⟧⟪end⟫'
    assert dialect.parse(text, TOOLS).to_message() == reply


def test_a_template_that_ends_no_turn_borrows_the_next_role_s_mark() -> None:
    tokenizer = made_up(CALLS["name and object"][0], chat=WITHOUT_END)
    dialect = prove_template(tokenizer)
    assert dialect.stop[:2] == ("⟪user⟫", "⟪tool⟫")
    assert refused(dialect, tokenizer, wild=False, cases=20) == 0


def test_a_name_in_the_header_of_the_message_is_read_from_there() -> None:
    tokenizer = made_up("", chat=ADDRESSED)
    dialect = prove_template(tokenizer)
    reply = Message("assistant", None, None, (ToolCall("f", {"n": 1}),))
    assert trained(dialect.render(Conversation((USER, reply), TOOLS))) == [' for f⟫{"n": 1}⟪end⟫']
    assert refused(dialect, tokenizer, wild=False, cases=20, calls=1) == 0
    with pytest.raises(DialectError, match="2 calls, 1 read back"):
        dialect.render(
            Conversation((USER, Message("assistant", None, None, reply.tool_calls * 2)), TOOLS)
        )


def test_values_without_types_are_read_by_the_schema() -> None:
    dialect = prove_template(made_up(CALLS["nested tags"][0]))
    calls = (
        ToolCall("f", {"a": "1", "n": 1, "o": {"k": "true"}}),
        ToolCall("f", {"a": "null", "n": -2.5e-7, "o": {}}),
    )
    conversation = Conversation((USER, Message("assistant", None, None, calls)), TOOLS)
    assert dialect.parse(trained(dialect.render(conversation))[0], TOOLS).calls == calls
    with pytest.raises(DialectError, match="cannot be kept"):
        dialect.render(Conversation((USER, Message("assistant", None, None, calls)), (Tool("f"),)))


def test_a_quoted_value_may_hold_quotes_and_what_looks_like_the_next_argument_s_name() -> None:
    dialect = prove_template(made_up(CALLS["attributes"][0]))
    call = ToolCall("f", {"o": {"k": "  tea ", "t": 2}, "a": 'he said "no" b'})
    text = trained(
        dialect.render(Conversation((USER, Message("assistant", None, None, (call,))), TOOLS))
    )[0]
    assert text == '<act:f o="{"k": "  tea ", "t": 2}" a="he said "no" b"/>⟪end⟫'
    assert dialect.parse(text, TOOLS).calls == (call,)


def test_marks_have_slots_for_names_ids_and_numbers() -> None:
    def written(calls: Sequence[ToolCall]) -> str:
        ones = (
            f"#{k + 1}:{call.name}#call0000{k}# {call.name}!{call.arguments!r}!;"
            for k, call in enumerate(calls)
        )
        return "".join(ones).replace("'", '"')

    frame = next(iter(derive(written))).frame
    assert frame.before == f"#{NUMBER_SLOT}:{NAME_SLOT}#{ID_SLOT}# "
    assert frame.between == f"!;#{NUMBER_SLOT}:{NAME_SLOT}#{ID_SLOT}# "
    assert (frame.middle, frame.after) == ("!", "!;")


def test_white_space_in_marks_is_read_loosely_and_all_else_exactly() -> None:
    pattern = re.compile(loose("</f>\n</t>[x y"))
    assert all(
        pattern.fullmatch(text) for text in ("</f>\n</t>[x y", "</f></t> [xy", "</f> </t>\n[x  y")
    )
    assert not any(
        pattern.fullmatch(text) for text in ("</f></t>[X y", "< /f></t>[x y", "</f></t>x y")
    )


def test_a_template_that_refuses_calls_has_no_form() -> None:
    def written(calls: Sequence[ToolCall]) -> str | None:
        return None if len(calls) == 1 else "an empty turn"

    assert list(derive(written)) == []


def test_the_text_between_two_calls_is_found_where_a_form_can_write_two() -> None:
    between = {
        "lines": "@@end\n@@call ",
        "attributes": "/><act:",
        "arrows": ")!!\n!!",
        "object first, joined": " + ",
        "name as key": None,
    }
    for way, wanted in between.items():
        syntax = prove_template(made_up(CALLS[way][0])).syntax
        assert isinstance(syntax, DelimitedSyntax)
        assert syntax.frame.between == wanted
