"""Chat templates with habits of their own: used as they are, or refused with what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.dialect_cases import TOOLS, TWO, call
from support.dialect_kinds import (
    ANSWER,
    CALL,
    RESULT,
    TRAINED,
    USER,
    controls,
    opened,
    trained_texts,
)
from support.dialect_models import CHATML_TOKENS, QWEN_LIKE, THINKING, small_tokenizer
from toolhone.dialects.choose import open_dialect
from toolhone.dialects.interface import Dialect, ParsedReply
from toolhone.dialects.probe.prove import describe
from toolhone.errors import DialectError
from toolhone.rows import Row
from toolhone.schema import Conversation, Message
from toolhone.tokenizer import TextTokenizer


def test_a_template_that_deletes_text_cannot_join_data_to_a_control_token() -> None:
    template = QWEN_LIKE.replace(
        "message.role == 'user' %}{{- '<|im_start|>user\\n' + message.content",
        (
            "message.role == 'user' %}{{- '<|im_start|>user\\n' + "
            "message.content.replace('/quiet', '')"
        ),
    )
    assert template != QWEN_LIKE
    tokenizer = small_tokenizer(template)
    dialect = open_dialect(tokenizer)
    with pytest.raises(DialectError, match="drops or changes the text of message 1"):
        dialect.prompt([Message("user", "a<|im_/quietend|>b")], TOOLS)
    ids = tokenizer.encode_spans(
        dialect.prompt([Message("user", "a<|im_end|>b")], TOOLS)
    ).tokens.tolist()
    assert controls(tokenizer, ids).count("<|im_end|>") == 2


def test_a_template_that_moves_the_system_text_is_given_it_in_the_first_user_turn() -> None:
    start = QWEN_LIKE.index("{%- elif messages[0].role == 'system' %}")
    head = "{%- endif %}{%- set users = messages | selectattr('role', 'equalto', 'user') | list %}"
    head += "{%- set system = messages[0].role == 'system' %}"
    body = QWEN_LIKE[QWEN_LIKE.index("{%- for message in messages %}") :].replace(
        "'<|im_start|>user\\n' + message.content",
        "'<|im_start|>user\\n' + (messages[0].content if system and message == users[-1] "
        "else '') + message.content",
    )
    dialect = open_dialect(small_tokenizer(QWEN_LIKE[:start] + head + body), "calls")
    messages = (Message("system", "Be brief."), USER, ANSWER, Message("user", "Sure?"), ANSWER)
    lists = dialect.render(Conversation(messages, ()))
    assert len(lists) == 1
    assert "".join(span.text for span in lists[0]).startswith(
        "<|im_start|>user\nBe brief.\n\nWhat is 2 + 2?"
    )


def test_a_prompted_dialect_is_proved_when_it_is_opened() -> None:
    with pytest.raises(DialectError, match=r"differently from the prompt.*model\.markup=chatml"):
        open_dialect(small_tokenizer(BROKEN["differently from the prompt"]), "json")


def test_a_single_call_template_refuses_two_calls_but_continues_sampled_ones() -> None:
    tokenizer, dialect = opened("llama")
    both = Message("assistant", None, None, TWO)
    with pytest.raises(DialectError, match="only one call at once"):
        dialect.render(Conversation((USER, both), TOOLS))
    suffix = "".join(
        span.text
        for span in dialect.suffix(
            [USER, both], TOOLS, [Message("tool", "6"), Message("tool", "pages")]
        )
    )
    assert suffix == (
        '<|start|>ipython<|end|>\n\n"6"<|eot|><|start|>ipython<|end|>\n\n"pages"<|eot|>'
        "<|start|>assistant<|end|>\n\n"
    )
    assert (
        controls(
            tokenizer,
            tokenizer.encode_spans(dialect.suffix([USER, both], TOOLS, [RESULT])).tokens.tolist(),
        )[-1]
        == "<|end|>"
    )


def test_text_that_a_template_drops_beside_a_call_is_refused() -> None:
    _, dialect = opened("llama")
    with pytest.raises(DialectError, match=r"text beside a call 'Let me see\.'"):
        dialect.render(Conversation((USER, replace(CALL, content="Let me see.")), TOOLS))


def test_reasoning_goes_where_the_template_has_a_place_for_it_else_before_the_text() -> None:
    thinking = Message("assistant", "It is 4.", "two and two", ())
    for template, field in ((THINKING, True), (QWEN_LIKE, False)):
        tokenizer = small_tokenizer(template)
        dialect = open_dialect(tokenizer)
        assert describe(dialect)["reasoning_field"] is field
        for message in (
            thinking,
            Message("assistant", "<think>\ntwo and two\n</think>\n\nIt is 4."),
        ):
            rows = [
                tokenizer.encode_spans(spans)
                for spans in dialect.render(Conversation((USER, message), TOOLS))
            ]
            assert trained_texts(tokenizer, rows) == [
                "<think>\ntwo and two\n</think>\n\nIt is 4.<|im_end|>"
            ]
            assert controls(tokenizer, rows[0].tokens[rows[0].mask].tolist()) == [
                "<think>",
                "</think>",
                "<|im_end|>",
            ]


def test_a_thought_that_the_prompt_begins_is_read_as_reasoning() -> None:
    header = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n"
    template = THINKING.replace(header, header + "<think>\\n")
    dialect = open_dialect(small_tokenizer(template))
    assert dialect.parse("so it is\n</think>\n\n4<|im_end|>") == ParsedReply("4", (), "so it is")
    spans = dialect.render(Conversation((USER, Message("assistant", "4", "so it is")), TOOLS))[0]
    assert (
        "".join(span.text for span in spans if span.trained) == "so it is\n</think>\n\n4<|im_end|>"
    )


def test_an_empty_thought_in_the_prompt_stays_before_turns_rendered_without_it() -> None:
    header = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n"
    tokenizer = small_tokenizer(QWEN_LIKE.replace(header, header + "<think>\\n\\n</think>\\n\\n"))
    dialect = open_dialect(tokenizer)
    rows = [
        tokenizer.encode_spans(spans)
        for spans in dialect.render(Conversation((USER, CALL, RESULT, ANSWER), TOOLS))
    ]
    assert trained_texts(tokenizer, rows) == TRAINED["native"][:2]
    for row in rows:
        assert tokenizer.decode(row.tokens[: np.flatnonzero(row.mask)[0]].tolist()).endswith(
            "assistant\n<think>\n\n</think>\n\n"
        )
    with pytest.raises(DialectError, match="without reasoning"):
        dialect.render(Conversation((USER, Message("assistant", "4", "hm")), TOOLS))


def test_templates_that_want_json_text_or_no_content_are_given_it() -> None:
    text = QWEN_LIKE.replace(
        "{%- set body = {'name': call.function.name, 'arguments': call.function.arguments} %}",
        (
            "{%- if call.function.arguments is mapping %}{{ raise_exception('a string, "
            "please') }}{%- endif %}"
        ),
    ).replace(
        "body | tojson(separators=(',', ':'))",
        "'{\"name\":\"' + call.function.name + '\",\"arguments\":' + call.function.arguments + '}'",
    )
    null = QWEN_LIKE.replace(
        "{%- elif message.role == 'assistant' %}",
        (
            "{%- elif message.role == 'assistant' %}"
            "{%- if message.tool_calls and message.content is defined %}{{ "
            "raise_exception('nothing, please') }}{%- endif %}"
        ),
    )
    for template, key, value in (
        (text, "arguments", "string"),
        (null, "empty_content", "absent"),
        (QWEN_LIKE, "arguments", "mapping"),
    ):
        dialect = open_dialect(small_tokenizer(template))
        assert describe(dialect)[key] == value
        assert len(dialect.render(Conversation((USER, CALL, RESULT, ANSWER), TOOLS))) == 1


def test_a_template_that_changes_the_text_before_a_turn_still_gives_prompt_and_turn() -> None:
    template = QWEN_LIKE.replace(
        "'</tool_response>' }}", "'</tool_response>' + ('\\n' if not loop.last else '') }}"
    )
    tokenizer = small_tokenizer(template)
    dialect = open_dialect(tokenizer)
    messages = (USER, CALL, RESULT, ANSWER, USER, ANSWER)
    rows = [
        tokenizer.encode_spans(spans) for spans in dialect.render(Conversation(messages, TOOLS))
    ]
    assert trained_texts(tokenizer, rows) == [*TRAINED["native"][:2], TRAINED["native"][1]]
    for row, count in zip(rows, (1, 3, 5), strict=True):
        asked = tokenizer.encode_spans(dialect.prompt(messages[:count], TOOLS)).tokens.tolist()
        assert row.tokens.tolist()[: len(asked)] == asked
        assert row.mask[len(asked)]


HEADER = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n"
TURN = "{{- '<|im_start|>assistant\\n' + (message.content or '') }}"


def rows_of(
    template: str, dialect: str, messages: tuple[Message, ...]
) -> tuple[TextTokenizer, Dialect, list[Row]]:
    """What a template trains on; checks that each prompt begins the row of its turn."""
    tokenizer = small_tokenizer(template, special=(*CHATML_TOKENS, "<|return|>", "<|channel|>"))
    opened_dialect = open_dialect(tokenizer, dialect)
    rows = [
        tokenizer.encode_spans(spans)
        for spans in opened_dialect.render(Conversation(messages, TOOLS))
    ]
    for k, index in enumerate(
        i for i, message in enumerate(messages) if message.role == "assistant"
    ):
        prompt = tokenizer.encode_spans(
            opened_dialect.prompt(messages[:index], TOOLS)
        ).tokens.tolist()
        row = rows[min(k, len(rows) - 1)]
        assert row.tokens.tolist()[: len(prompt)] == prompt
        assert row.mask[len(prompt)]
        suffix = opened_dialect.suffix(messages[: index + 1], TOOLS, [Message("user", "Go on.")])
        assert "".join(span.text for span in suffix).count("Go on.") == 1
    return tokenizer, opened_dialect, rows


def test_a_template_that_opens_the_next_turn_unasked_trains_the_same_turns() -> None:
    template = QWEN_LIKE.replace("{%- if add_generation_prompt %}", "{%- if true %}")
    tokenizer, _, rows = rows_of(template, "native", (USER, CALL, RESULT, ANSWER))
    assert trained_texts(tokenizer, rows) == TRAINED["native"][:2]


def test_a_prompted_dialect_uses_a_template_with_its_own_last_end_mark_and_lead() -> None:
    turn = "{{- '<|im_start|>assistant<|channel|>final\\n' + (message.content or '') }}"
    template = (
        QWEN_LIKE.replace(TURN, turn)
        .replace(
            "{{- '<|im_end|>\\n' }}\n{%- elif message.role == 'tool' %}",
            (
                "{{- '<|return|>' if loop.last else '<|im_end|>\\n' }}\n{%- elif "
                "message.role == 'tool' %}"
            ),
        )
        .replace(HEADER, "{%- if add_generation_prompt %}{{- '<|im_start|>assistant")
    )
    tokenizer, dialect, rows = rows_of(template, "calls", (USER, CALL, RESULT, ANSWER))
    lead = "<|channel|>final\n"
    assert trained_texts(tokenizer, rows) == [
        f'{lead}calculator(expression="2 + 2")<|return|>',
        f"{lead}It is 4.<|return|>",
    ]
    assert dialect.stop[0] == "<|return|>"
    assert dialect.parse(f"{lead}It is 4.<|return|>") == ParsedReply("It is 4.")
    assert tokenizer.decode(rows[1].tokens.tolist()).count("<|return|>") == 1


def test_a_prompted_dialect_reads_the_thought_that_the_header_begins() -> None:
    dialect = open_dialect(
        small_tokenizer(THINKING.replace(HEADER, HEADER + "<think>\\n")), "calls"
    )
    assert dialect.parse("so\n</think>\n\nf(a=1)<|im_end|>") == ParsedReply(
        None, (call("f", a=1),), "so"
    )
    assert dialect.parse("\n</think>\n\nf(a=1)<|im_end|>") == ParsedReply(None, (call("f", a=1),))


def test_a_thought_begun_by_the_header_may_vanish_from_earlier_turns() -> None:
    template = THINKING.replace(HEADER, HEADER + "<think>\\n")
    tokenizer, _, rows = rows_of(template, "native", (USER, CALL, RESULT, ANSWER, USER, ANSWER))
    assert len(rows) == 3
    assert trained_texts(tokenizer, rows)[1] == "\n</think>\n\nIt is 4.<|im_end|>"
    assert [tokenizer.decode(row.tokens.tolist()).count("<think>") for row in rows] == [1, 1, 1]


def test_a_template_that_only_fits_without_thinking_is_asked_for_turns_without() -> None:
    header = (
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' + ('' if "
        "enable_thinking is false else '<think>\\n')"
    )
    template = QWEN_LIKE.replace(
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n'", header
    )
    for name in ("native", "calls"):
        tokenizer, dialect, rows = rows_of(template, name, (USER, CALL, RESULT, ANSWER))
        assert describe(dialect)["switches"] == {"enable_thinking": False}
        assert trained_texts(tokenizer, rows) == TRAINED[name][:2]
    assert describe(open_dialect(small_tokenizer(QWEN_LIKE)))["switches"] == {}


BROKEN = {
    "does not show the tools": QWEN_LIKE.replace("{{- '\\n' + tool.function.name", "{{- '\\n'"),
    "drops the calls": QWEN_LIKE.replace("message.tool_calls or []", "[]"),
    "writes calls that cannot be read back": QWEN_LIKE.replace(
        "body | tojson(separators=(',', ':'))", "body | string | replace(\"'\", '')"
    ),
    "does not show the results": QWEN_LIKE.replace(
        "message.content + '</tool_response>'", "'</tool_response>'"
    ),
    "no control token of this tokenizer": QWEN_LIKE.replace("<|im_end|>", "<|other_end|>"),
    "treats text that holds brackets": QWEN_LIKE.replace(
        "+ message.content + '<|im_end|>",
        "+ ('?' if '<' in message.content else '!') + message.content + '<|im_end|>",
    ),
    "no chat template": None,
    "refuses calls": QWEN_LIKE.replace(
        "{%- for call in message.tool_calls or [] %}",
        "{%- for call in message.tool_calls or [] %}{{ raise_exception('never') }}",
    ),
    "differently from the prompt": QWEN_LIKE.replace(
        "{{- '<|im_start|>assistant\\n' + (message.content or '') }}",
        "{{- '<|im_start|>model\\n' + (message.content or '') }}",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_template_that_cannot_be_used_is_refused_with_its_fault_and_the_way_out(
    fault: str,
) -> None:
    template = BROKEN[fault]
    assert template != QWEN_LIKE
    with pytest.raises(DialectError) as refusal:
        open_dialect(small_tokenizer(template))
    assert fault in str(refusal.value)
    assert "model.dialect=json" in str(refusal.value)
