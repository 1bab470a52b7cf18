"""Dialects: which tokens are trained, prompts and suffixes, what may become a control token, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dialect_cases import CONVERSATION, ONE, TOOLS, TWO, call
from dialect_models import LLAMA_LIKE, QWEN_LIKE, THINKING, llama_tokenizer, small_tokenizer
from toolhone.dialects.base import Dialect, Problem, Reply, Span
from toolhone.dialects.choose import dialect_fingerprint, open_dialect
from toolhone.errors import DialectError
from toolhone.rows import Origin, Row
from toolhone.schema import Conversation, Message, Tool, ToolCall
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
}

TRAINED = {
    "native": [
        '<tool_call>{"name":"calculator","arguments":{"expression":"2 + 2"}}</tool_call><|im_end|>',
        "It is 4.<|im_end|>",
        "Yes, <think> so.<|im_end|>",
    ],
    "thinking": [
        '<think>\n\n</think>\n\n<tool_call>{"name":"calculator","arguments":{"expression":"2 + 2"}}</tool_call><|im_end|>',
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
    "calls": ['calculator(expression="2 + 2")<|im_end|>', "It is 4.<|im_end|>", "Yes, <think> so.<|im_end|>"],
    "tagged": [
        ' [TOOL_CALL]{"name": "calculator", "parameters": {"expression": "2 + 2"}}[/TOOL_CALL]<|endoftext|>',
        " It is 4.<|endoftext|>",
        " Yes, <think> so.<|endoftext|>",
    ],
    "chatml": ['calculator(expression="2 + 2")<|eot|>', "It is 4.<|eot|>", "Yes, <think> so.<|eot|>"],
}


def opened(kind: str) -> tuple[TextTokenizer, Dialect]:
    tokenizer, dialect, markup = KINDS[kind]
    return tokenizer, open_dialect(tokenizer, dialect, markup)


def trained_texts(tokenizer: TextTokenizer, rows: list[Row]) -> list[str]:
    """The text of each run of trained tokens."""
    texts = []
    for row in rows:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], row.mask, [False]])))
        texts += [tokenizer.decode(row.tokens[a:b].tolist()) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return texts


def encoded(kind: str, conversation: Conversation = CONVERSATION) -> tuple[TextTokenizer, Dialect, list[Row]]:
    tokenizer, dialect = opened(kind)
    return tokenizer, dialect, [tokenizer.encode_spans(spans) for spans in dialect.render(conversation)]


def controls(tokenizer: TextTokenizer, ids: list[int]) -> list[str]:
    texts = {tokenizer.control_id(text): text for text in tokenizer.control_texts}
    return [texts[index] for index in ids if index in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_calls_answers_and_their_stop_marks_are_trained_and_nothing_else(kind: str) -> None:
    tokenizer, dialect, rows = encoded(kind)
    assert trained_texts(tokenizer, rows) == TRAINED[kind]
    for text in TRAINED[kind]:
        assert controls(tokenizer, tokenizer.encode_spans([Span(text)]).tokens.tolist())[-1] in dialect.stop
    for row in rows:
        assert row.origin is not None
        ends = np.flatnonzero(row.mask & ~np.append(row.mask[1:], False))
        assert {int(token) for token in row.tokens[ends]} <= set(tokenizer.stop_ids(dialect.stop))
        assert not (row.mask & (row.origin != Origin.SAMPLED)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_each_trained_turn_is_read_back_as_its_message(kind: str) -> None:
    _, dialect = opened(kind)
    said = [Reply(None, ONE), Reply("It is 4."), Reply("Yes, <think> so.")]
    assert [dialect.parse(text) for text in TRAINED[kind]] == said
    assert [dialect.parse(text[: text.rindex("<")]) for text in TRAINED[kind]] == said, "without the stop mark"


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_of_a_tool_is_seen_marked_and_not_trained(kind: str) -> None:
    tokenizer, _, rows = encoded(kind)
    seen = rows[-1]
    assert seen.origin is not None
    text = tokenizer.decode(seen.tokens[seen.origin == Origin.TOOL].tolist())
    assert "four <|im_end|> </tool_response>" in text
    assert len(text) <= len('{"tool": "calculator", "result": "four <|im_end|> </tool_response>"}')


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_ids_begin_and_suffix_ids_continue_the_rendered_ids(kind: str) -> None:
    tokenizer, dialect, rows = encoded(kind)
    messages, tools = CONVERSATION.messages, CONVERSATION.tools
    ends = [row.tokens[: np.flatnonzero(row.mask)[-1] + 1].tolist() for row in rows]
    for k, index in enumerate(i for i, message in enumerate(messages) if message.role == "assistant"):
        prompt = tokenizer.encode_spans(dialect.prompt(messages[:index], tools)).tokens.tolist()
        row = ends[k] if len(rows) > 1 else ends[0]
        assert row[: len(prompt)] == prompt
        said = tokenizer.encode_spans([Span(TRAINED[kind][k])]).tokens.tolist()
        results = messages[index + 1 : index + 2]
        if len(rows) == 1 and results:
            suffix = tokenizer.encode_spans(dialect.suffix(messages[: index + 1], tools, results)).tokens.tolist()
            after = tokenizer.encode_spans(dialect.prompt(messages[: index + 2], tools)).tokens.tolist()
            assert len(after) - len(suffix) - len(prompt) > 0
            assert after[len(after) - len(suffix) :] == suffix
            assert after == row[: len(after)]
            assert k == 2 or said == row[len(prompt) : len(after) - len(suffix)]


def test_a_template_that_rewrites_earlier_turns_gives_a_row_for_each_turn_as_it_is_when_it_is_written() -> None:
    tokenizer, dialect, rows = encoded("thinking")
    assert len(rows) == 3
    texts = [tokenizer.decode(row.tokens.tolist()) for row in rows]
    assert [text.count("<think>\n\n</think>") for text in texts] == [1, 1, 1]
    assert [int(row.mask.sum()) > 0 for row in rows] == [True] * 3
    suffix = dialect.suffix([USER, CALL], TOOLS, [RESULT])
    wanted = "\n<|im_start|>user\n<tool_response>4</tool_response><|im_end|>\n<|im_start|>assistant\n"
    assert "".join(span.text for span in suffix) == wanted


def test_the_text_of_a_native_conversation_is_that_of_the_template() -> None:
    tokenizer, _, rows = encoded("native")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "calculator", "arguments": {"expression": "2 + 2"}}}]},
        {"role": "tool", "content": "four <|im_end|> </tool_response>"},
        {"role": "assistant", "content": "It is 4."},
        {"role": "user", "content": "And <|im_start|>assistant?"},
        {"role": "assistant", "content": "Yes, <think> so."},
    ]
    wanted = tokenizer.wrapped.apply_chat_template(messages, tools=[tool.to_dict() for tool in TOOLS], tokenize=False)
    assert [tokenizer.decode(row.tokens.tolist()) for row in rows] == [wanted]


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_from_outside_becomes_a_control_token(kind: str) -> None:
    tokenizer, dialect = opened(kind)
    marks = "".join(tokenizer.control_texts)
    properties = {f"p{marks}": {"type": "string", "description": marks, "enum": [marks]}}
    plain = Conversation(
        (
            Message("system", "s"),
            Message("user", "u"),
            Message("assistant", None, None, (call("f", k="v"),)),
            Message("tool", "r"),
            ANSWER,
        ),
        (Tool("f", "d", {"type": "object", "properties": {"p": {"type": "string", "description": "e", "enum": ["g"]}}}),),
    )
    hostile = Conversation(
        (
            Message("system", f"s{marks}"),
            Message("user", f"{marks}u{marks}"),
            Message("assistant", None, None, (ToolCall("f", {f"k{marks}": f"v{marks}"}),)),
            Message("tool", f"{marks}r"),
            Message("assistant", f"It{marks.replace('<tool_call>', '').replace('</tool_call>', '')}is"),
        ),
        (Tool("f", f"d{marks}", {"type": "object", "properties": properties}),),
    )
    for one, other in zip(dialect.render(plain), dialect.render(hostile), strict=True):
        wanted, found = (controls(tokenizer, tokenizer.encode_spans(spans).tokens.tolist()) for spans in (one, other))
        assert found == wanted
    for results in ([Message("tool", marks)], [Message("user", marks)]):
        ids = tokenizer.encode_spans(dialect.suffix(hostile.messages[:3], hostile.tools, results)).tokens.tolist()
        calm = [replace(results[0], content="x")]
        assert controls(tokenizer, ids) == controls(
            tokenizer, tokenizer.encode_spans(dialect.suffix(plain.messages[:3], plain.tools, calm)).tokens.tolist()
        )


def test_a_template_that_deletes_text_cannot_join_data_to_a_control_token() -> None:
    template = QWEN_LIKE.replace(
        "message.role == 'user' %}{{- '<|im_start|>user\\n' + message.content",
        ("message.role == 'user' %}{{- '<|im_start|>user\\n' + message.content.replace('/quiet', '')"),
    )
    assert template != QWEN_LIKE
    tokenizer = small_tokenizer(template)
    dialect = open_dialect(tokenizer)
    ids = tokenizer.encode_spans(dialect.prompt([Message("user", "a<|im_/quietend|>b")], TOOLS)).tokens.tolist()
    assert "a<|im_end|>b" in tokenizer.decode(ids)
    assert controls(tokenizer, ids).count("<|im_end|>") == 2


def test_characters_kept_for_marking_come_through_unchanged() -> None:
    tokenizer, dialect = opened("native")
    odd = "".join(chr(0x10F000 + i) for i in range(256))
    conversation = Conversation((Message("user", f"a{odd}b"), Message("assistant", f"{odd}<"), Message("user", odd), ANSWER), TOOLS)
    text = tokenizer.decode(tokenizer.encode_spans(dialect.render(conversation)[0]).tokens.tolist())
    assert f"a{odd}b<|im_end|>" in text
    assert f"{odd}<<|im_end|>" in text


def test_two_results_share_a_turn_and_keep_their_order() -> None:
    messages = [USER, Message("assistant", None, None, TWO), Message("tool", "6"), Message("tool", "pages")]
    shown = {}
    for kind in ("native", "json", "calls", "tagged"):
        _, dialect = opened(kind)
        shown[kind] = "".join(span.text for span in dialect.suffix(messages[:2], TOOLS, messages[2:]))
    assert shown == {
        "native": "\n<|im_start|>user\n<tool_response>6</tool_response>\n<tool_response>pages</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n",
        "json": '\n<|im_start|>user\n{"tool": "calculator", "result": 6}\n{"tool": "search.web", "result": "pages"}<|im_end|>\n'
        "<|im_start|>assistant\n",
        "calls": "\n<|im_start|>user\ncalculator -> 6\nsearch.web -> pages<|im_end|>\n<|im_start|>assistant\n",
        "tagged": "\n\nHuman: [TOOL_RESULT]6[/TOOL_RESULT]\n[TOOL_RESULT]pages[/TOOL_RESULT]\n\nAssistant:",
    }


def test_results_are_joined_to_their_calls_by_id_else_by_order() -> None:
    _, dialect = opened("calls")
    calls = (ToolCall("f", {}, "id-f"), ToolCall("g", {}, "id-g"))
    results = [Message("tool", "1", tool_call_id="id-g"), Message("tool", "2")]
    text = "".join(span.text for span in dialect.suffix([USER, Message("assistant", None, None, calls)], (), results))
    assert "g -> 1\nf -> 2" in text


def test_a_markup_writes_exactly_this_text() -> None:
    messages = (Message("system", "Be brief."), USER, CALL, RESULT, ANSWER)
    texts = {}
    for kind in ("chatml", "tagged"):
        _, dialect = opened(kind)
        said = "".join(span.text for span in dialect.render(Conversation(messages, ()))[0])
        texts[kind] = said
    assert texts == {
        "chatml": "<|im_start|>system\nBe brief.<|eot|>\n<|im_start|>user\nWhat is 2 + 2?<|eot|>\n<|im_start|>assistant\n"
        'calculator(expression="2 + 2")<|eot|>\n<|im_start|>user\ncalculator -> 4<|eot|>\n<|im_start|>assistant\nIt is 4.<|eot|>\n',
        "tagged": "Be brief.\n\nHuman: What is 2 + 2?\n\nAssistant: [TOOL_CALL]"
        '{"name": "calculator", "parameters": {"expression": "2 + 2"}}[/TOOL_CALL]<|endoftext|>\n\n'
        "Human: [TOOL_RESULT]4[/TOOL_RESULT]\n\nAssistant: It is 4.<|endoftext|>\n\n",
    }


def test_instructions_come_before_the_system_text_and_into_the_first_user_turn_where_there_is_no_system_role() -> None:
    without = QWEN_LIKE.replace(
        "{%- if tools %}",
        "{%- if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{%- endif %}{%- if tools %}",
    )
    for template, head in ((QWEN_LIKE, "<|im_start|>system\n"), (without, "<|im_start|>user\n")):
        dialect = open_dialect(small_tokenizer(template), "calls")
        text = "".join(span.text for span in dialect.prompt([Message("system", "Be brief."), USER], TOOLS))
        assert text.startswith(head + "You may call these tools:")
        assert text.index("search.web") < text.index("Be brief.") < text.index("What is 2 + 2?")


def test_a_single_call_template_refuses_two_calls_but_not_what_a_model_said() -> None:
    tokenizer, dialect = opened("llama")
    both = Message("assistant", None, None, TWO)
    with pytest.raises(DialectError, match="only one call at once"):
        dialect.render(Conversation((USER, both), TOOLS))
    suffix = "".join(span.text for span in dialect.suffix([USER, both], TOOLS, [Message("tool", "6"), Message("tool", "pages")]))
    assert suffix == '<|start|>ipython<|end|>\n\n"6"<|eot|><|start|>ipython<|end|>\n\n"pages"<|eot|><|start|>assistant<|end|>\n\n'
    assert (
        controls(tokenizer, tokenizer.encode_spans(dialect.suffix([USER, both], TOOLS, [RESULT])).tokens.tolist())[-1] == "<|end|>"
    )


def test_text_that_a_template_drops_beside_a_call_is_refused() -> None:
    _, dialect = opened("llama")
    with pytest.raises(DialectError, match=r"text beside a call 'Let me see\.'"):
        dialect.render(Conversation((USER, replace(CALL, content="Let me see.")), TOOLS))


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_model_said_can_be_prompted_again_and_answered(kind: str) -> None:
    tokenizer, dialect = opened(kind)
    for text in (
        'Sure! <tool_call>{"na',
        '{"tool": "f", "args": {}} and so',
        "f(a=1)\nThere.",
        "",
        "<think>\nhm",
        '{"name": "f", "parameters": []}',
    ):
        said = dialect.parse(text).to_message()
        for results in ([RESULT], [Message("user", "Go on.")]):
            assert len(tokenizer.encode_spans(dialect.suffix([USER, said], TOOLS, results))) > 3
        assert len(tokenizer.encode_spans(dialect.prompt([USER, said, Message("user", "Go on.")], TOOLS))) > 10


def test_reasoning_goes_where_the_template_has_a_place_for_it_else_before_the_text() -> None:
    said = Message("assistant", "It is 4.", "two and two", ())
    for template, field in ((THINKING, True), (QWEN_LIKE, False)):
        tokenizer = small_tokenizer(template)
        dialect = open_dialect(tokenizer)
        assert dialect_fingerprint(dialect)["reasoning_field"] is field
        for message in (said, Message("assistant", "<think>\ntwo and two\n</think>\n\nIt is 4.")):
            rows = [tokenizer.encode_spans(spans) for spans in dialect.render(Conversation((USER, message), TOOLS))]
            assert trained_texts(tokenizer, rows) == ["<think>\ntwo and two\n</think>\n\nIt is 4.<|im_end|>"]
            assert controls(tokenizer, rows[0].tokens[rows[0].mask].tolist()) == ["<think>", "</think>", "<|im_end|>"]


def test_a_thought_that_the_prompt_begins_is_read_as_reasoning() -> None:
    header = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n"
    template = THINKING.replace(header, header + "<think>\\n")
    dialect = open_dialect(small_tokenizer(template))
    assert dialect.parse("so it is\n</think>\n\n4<|im_end|>") == Reply("4", (), "so it is")
    spans = dialect.render(Conversation((USER, Message("assistant", "4", "so it is")), TOOLS))[0]
    assert "".join(span.text for span in spans if span.trained) == "so it is\n</think>\n\n4<|im_end|>"


def test_an_empty_thought_in_the_prompt_is_kept_before_turns_that_are_rendered_without_it() -> None:
    header = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n"
    tokenizer = small_tokenizer(QWEN_LIKE.replace(header, header + "<think>\\n\\n</think>\\n\\n"))
    dialect = open_dialect(tokenizer)
    rows = [tokenizer.encode_spans(spans) for spans in dialect.render(Conversation((USER, CALL, RESULT, ANSWER), TOOLS))]
    assert trained_texts(tokenizer, rows) == TRAINED["native"][:2]
    for row in rows:
        assert tokenizer.decode(row.tokens[: np.flatnonzero(row.mask)[0]].tolist()).endswith("assistant\n<think>\n\n</think>\n\n")
    with pytest.raises(DialectError, match="without reasoning"):
        dialect.render(Conversation((USER, Message("assistant", "4", "hm")), TOOLS))


def test_templates_that_want_json_text_or_no_content_are_given_it() -> None:
    text = QWEN_LIKE.replace(
        "{%- set body = {'name': call.function.name, 'arguments': call.function.arguments} %}",
        ("{%- if call.function.arguments is mapping %}{{ raise_exception('a string, please') }}{%- endif %}"),
    ).replace(
        "body | tojson(separators=(',', ':'))",
        "'{\"name\":\"' + call.function.name + '\",\"arguments\":' + call.function.arguments + '}'",
    )
    null = QWEN_LIKE.replace(
        "{%- elif message.role == 'assistant' %}",
        (
            "{%- elif message.role == 'assistant' %}"
            "{%- if message.tool_calls and message.content is defined %}{{ raise_exception('nothing, please') }}{%- endif %}"
        ),
    )
    for template, key, value in (
        (text, "arguments", "string"),
        (null, "empty_content", "absent"),
        (QWEN_LIKE, "arguments", "mapping"),
    ):
        dialect = open_dialect(small_tokenizer(template))
        assert dialect_fingerprint(dialect)[key] == value
        assert len(dialect.render(Conversation((USER, CALL, RESULT, ANSWER), TOOLS))) == 1


def test_a_template_that_changes_the_text_before_a_turn_still_gives_prompt_and_turn() -> None:
    template = QWEN_LIKE.replace("'</tool_response>' }}", "'</tool_response>' + ('\\n' if not loop.last else '') }}")
    tokenizer = small_tokenizer(template)
    dialect = open_dialect(tokenizer)
    messages = (USER, CALL, RESULT, ANSWER, USER, ANSWER)
    rows = [tokenizer.encode_spans(spans) for spans in dialect.render(Conversation(messages, TOOLS))]
    assert trained_texts(tokenizer, rows) == [*TRAINED["native"][:2], TRAINED["native"][1]]
    for row, count in zip(rows, (1, 3, 5), strict=True):
        asked = tokenizer.encode_spans(dialect.prompt(messages[:count], TOOLS)).tokens.tolist()
        assert row.tokens.tolist()[: len(asked)] == asked
        assert row.mask[len(asked)]


BROKEN = {
    "does not show the tools": QWEN_LIKE.replace("{{- '\\n' + tool.function.name", "{{- '\\n'"),
    "drops the calls": QWEN_LIKE.replace("message.tool_calls or []", "[]"),
    "writes calls that cannot be read back": QWEN_LIKE.replace("body | tojson(separators=(',', ':'))", "body | string"),
    "does not show the results": QWEN_LIKE.replace("message.content + '</tool_response>'", "'</tool_response>'"),
    "no control token of this tokenizer": QWEN_LIKE.replace("<|im_end|>", "<|other_end|>"),
    "treats text that holds brackets": QWEN_LIKE.replace(
        "+ message.content + '<|im_end|>", "+ ('?' if '<' in message.content else '!') + message.content + '<|im_end|>"
    ),
    "no chat template": None,
    "refuses calls": QWEN_LIKE.replace(
        "{%- for call in message.tool_calls or [] %}", "{%- for call in message.tool_calls or [] %}{{ raise_exception('never') }}"
    ),
    "opens the assistant's next turn": QWEN_LIKE.replace("{%- if add_generation_prompt %}", "{%- if true %}"),
    "differently from the prompt": QWEN_LIKE.replace(
        "{{- '<|im_start|>assistant\\n' + (message.content or '') }}", "{{- '<|im_start|>model\\n' + (message.content or '') }}"
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_template_that_cannot_be_used_is_refused_with_its_fault_and_the_way_out(fault: str) -> None:
    template = BROKEN[fault]
    assert template != QWEN_LIKE
    with pytest.raises(DialectError) as refusal:
        open_dialect(small_tokenizer(template))
    assert fault in str(refusal.value)
    assert "model.dialect=json" in str(refusal.value)


def test_unknown_names_get_the_nearest_known_one() -> None:
    tokenizer = small_tokenizer(QWEN_LIKE)
    with pytest.raises(DialectError, match="did you mean 'tagged'"):
        open_dialect(tokenizer, "taged")
    with pytest.raises(DialectError, match="did you mean 'chatml'"):
        open_dialect(tokenizer, "json", "chat_ml")
    with pytest.raises(DialectError, match="model's own template"):
        open_dialect(tokenizer, "native", "plain")


def test_a_markup_without_an_end_mark_is_refused() -> None:
    for markup in ("chatml", "plain"):
        with pytest.raises(DialectError, match="end-of-text token"):
            open_dialect(small_tokenizer(None, special=("<|im_start|>",), eos=None), "json", markup)


def test_the_fingerprint_changes_with_the_template() -> None:
    one, other = (dialect_fingerprint(open_dialect(small_tokenizer(template))) for template in (QWEN_LIKE, QWEN_LIKE + "{# v2 #}"))
    assert one["name"] == "native"
    assert one["syntax"] == "tool_call_tags"
    assert one != other
    assert dialect_fingerprint(open_dialect(llama_tokenizer(LLAMA_LIKE)))["syntax"] == "bare_json"


def test_a_cut_off_call_is_unclosed_in_every_dialect() -> None:
    for kind in ("native", "llama", "json", "calls", "tagged"):
        _, dialect = opened(kind)
        whole = TRAINED[kind][0]
        assert dialect.parse(whole[: whole.index("2 + 2")]).problem is Problem.UNCLOSED
