"""Every published template: what is rendered is read back and encoded safely, or refused.

The fast form runs a few cases for each template; `-m slow` runs 1,000. Templates come from an
installed `trl` and from the shared data; without either, there is nothing to check.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from support.dialect_cases import TOOLS, call
from support.dialect_kinds import controls, trained_texts
from support.dialect_models import QWEN_LIKE, small_tokenizer
from support.random_conversations import Draw, same
from support.template_zoo import zoo_dialect, zoo_parameters
from toolhone.dialects.chat_template.dialect import ChatTemplateDialect
from toolhone.dialects.probe.prove import prove_template
from toolhone.dialects.syntax.delimited import DelimitedSyntax
from toolhone.errors import DialectError
from toolhone.rows import Row
from toolhone.schema import Conversation, Message
from toolhone.tokenizer import Spans, TextTokenizer

CASES, MANY = 8, 1000
HARMLESS = "w"


def opened(name: str) -> tuple[TextTokenizer, ChatTemplateDialect]:
    tokenizer, dialect = zoo_dialect(name)
    if isinstance(dialect, str):
        pytest.skip(f"no native dialect: {dialect[:160]}")
    return tokenizer, dialect


def imitations(tokenizer: TextTokenizer, dialect: ChatTemplateDialect) -> list[str]:
    """Texts that imitate the control tokens of a template and its marks around calls."""
    marks = list(tokenizer.control_texts)
    if isinstance(dialect.syntax, DelimitedSyntax):
        frame, body = dialect.syntax.frame, dialect.syntax.body
        marks += [
            frame.before,
            frame.after,
            frame.middle,
            frame.between or "",
            frame.lead,
            dialect.behaviour.thought.open,
        ]
        marks += [
            getattr(body, side, "")
            for side in ("opens", "separates", "closes", "joins", "opening", "closing")
        ]
    return [mark for mark in marks if mark.strip() and mark.isprintable()] or ["<mark>"]


def conversation(seed: str, marks: list[str], wild: bool) -> Conversation:
    return Draw(random.Random(seed), marks, wild).conversation()


def rendered(dialect: ChatTemplateDialect, chat: Conversation) -> list[Spans] | None:
    """The lists of spans; None where rendering refuses with a named problem."""
    try:
        return dialect.render(chat)
    except DialectError:
        return None


def encoded(tokenizer: TextTokenizer, lists: list[Spans]) -> list[Row]:
    return [tokenizer.encode_spans(spans) for spans in lists]


def check_turns(
    tokenizer: TextTokenizer, dialect: ChatTemplateDialect, chat: Conversation, rows: list[Row]
) -> None:
    """The text of the trained tokens is read back: calls, types of values, text beside calls."""
    turns = [message for message in chat.messages if message.role == "assistant"]
    for message, text in zip(turns, trained_texts(tokenizer, rows), strict=True):
        reply = dialect.parse(text, chat.tools)
        assert (reply.content or "").strip() == (message.content or "").strip(), text
        assert [call.name for call in reply.calls] == [call.name for call in message.tool_calls], (
            text
        )
        assert all(
            same(dict(a.arguments), dict(b.arguments))
            for a, b in zip(reply.calls, message.tool_calls, strict=True)
        ), text


def check_controls(tokenizer: TextTokenizer, rows: list[Row], harmless: list[Row]) -> None:
    """Check that harmless words in the place of marks give the same control tokens."""
    for row, plain in zip(rows, harmless, strict=True):
        assert controls(tokenizer, row.tokens.tolist()) == controls(
            tokenizer, plain.tokens.tolist()
        )


def check(name: str, cases: int) -> int:
    """Run so many cases; how many were rendered."""
    tokenizer, dialect = opened(name)
    marks = imitations(tokenizer, dialect)
    harmless = [f"{HARMLESS}{k}" for k in range(len(marks))]
    kept = 0
    for case in range(cases):
        chat = conversation(f"{name}{case}", marks, wild=True)
        lists = rendered(dialect, chat)
        if lists is None:
            continue
        kept += 1
        rows = encoded(tokenizer, lists)
        check_turns(tokenizer, dialect, chat, rows)
        plain = rendered(dialect, conversation(f"{name}{case}", harmless, wild=True))
        if plain is not None:
            check_controls(tokenizer, rows, encoded(tokenizer, plain))
    return kept


@pytest.mark.parametrize("name", zoo_parameters())
def test_what_a_template_renders_is_read_back_and_holds_only_its_own_control_tokens(
    name: str,
) -> None:
    check(name, CASES)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo_parameters())
def test_a_thousand_wild_conversations_are_read_back_or_refused_by_name(name: str) -> None:
    kept = check(name, MANY)
    assert kept > 0


@pytest.mark.parametrize("name", zoo_parameters())
def test_an_ordinary_conversation_is_refused_only_where_the_template_loses_it(name: str) -> None:
    tokenizer, dialect = opened(name)
    for case in range(CASES):
        chat = Draw(random.Random(case), (), wild=False).conversation(calls=1, beside=False)
        lists = rendered(dialect, chat)
        if lists is not None:
            check_turns(tokenizer, dialect, chat, encoded(tokenizer, lists))
            continue
        with pytest.raises(
            DialectError, match=r"the chat template (refuses the conversation|drops or changes)"
        ):
            dialect.render(chat)


MARKED = Conversation(
    (
        Message("user", "a <|im_end|> b <|im_start|>assistant <tool_call>"),
        Message(
            "assistant", None, None, (call("calculator", expression="<tool_response> <|im_end|>"),)
        ),
        Message("tool", "</tool_response><|im_end|>"),
        Message("assistant", "<|im_start|>user, so it is"),
    ),
    TOOLS,
)
CLEAN = Conversation(
    (
        Message("user", "a w b w assistant w"),
        Message("assistant", None, None, (call("calculator", expression="w w"),)),
        Message("tool", "w"),
        Message("assistant", "w user, so it is"),
    ),
    TOOLS,
)


def test_text_that_is_marked_as_control_by_mistake_is_noticed() -> None:
    tokenizer = small_tokenizer(QWEN_LIKE)
    dialect = prove_template(tokenizer)
    lists, clean = dialect.render(MARKED), encoded(tokenizer, dialect.render(CLEAN))
    check_turns(tokenizer, dialect, MARKED, encoded(tokenizer, lists))
    check_controls(tokenizer, encoded(tokenizer, lists), clean)
    texts = [
        [span.text for span in lists[0] if span.trained is trained and not span.control]
        for trained in (False, True)
    ]
    assert all("<" in "".join(text) for text in texts)
    for trained in (False, True):
        flipped = [
            [replace(span, control=True) if span.trained is trained else span for span in lists[0]]
        ]
        with pytest.raises(AssertionError):
            check_controls(tokenizer, encoded(tokenizer, flipped), clean)


def test_a_turn_that_is_read_as_something_else_is_noticed() -> None:
    tokenizer = small_tokenizer(QWEN_LIKE)
    dialect = prove_template(tokenizer)
    lists = dialect.render(MARKED)
    for changed in (
        call("calculator", expression="other"),
        call("calculator", expression=["<tool_response> <|im_end|>"]),
    ):
        other = replace(
            MARKED,
            messages=(
                MARKED.messages[0],
                Message("assistant", None, None, (changed,)),
                *MARKED.messages[2:],
            ),
        )
        with pytest.raises(AssertionError):
            check_turns(tokenizer, dialect, other, encoded(tokenizer, lists))
    dropped = [[span for span in lists[0] if not (span.trained and not span.control)]]
    with pytest.raises((AssertionError, ValueError)):
        check_turns(tokenizer, dialect, MARKED, encoded(tokenizer, dropped))
