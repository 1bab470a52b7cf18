"""Templates of today: calls named by their id, opened thoughts, typed parameters, Harmony."""

from __future__ import annotations

import pytest

from support.dialect_models import QWEN_LIKE
from support.log_rows import TOOLS
from support.template_zoo import zoo_tokenizer
from toolhone.dialects.base import Dialect
from toolhone.dialects.choose import FormatRequest
from toolhone.dialects.probe.certificate import Certificate, certify
from toolhone.schema import Conversation, Message, Tool, ToolCall

FIND = Tool.of(TOOLS[0])
HEAD = """\
{%- if tools -%}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif -%}
{%- for m in messages -%}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}
{% if m.role == 'tool' %}<tool_response>{{ m.content }}</tool_response>
{%- else %}{{ m.content or '' }}{% endif %}
{%- for c in m.tool_calls or [] -%}"""
TAIL = """{%- endfor -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
ITEMS = "{% for k, v in c.function.arguments.items() %}"
VALUE = "{{ v if v is string else v | tojson }}"
ARGUMENTS = "{{ c.function.arguments | tojson }}"
BY_ID = HEAD + "<|call_begin|>{{ c.id }}<|call_argument|>" + ARGUMENTS + "<|call_end|>" + TAIL
PARAM = f"""{HEAD}<function name="{{{{ c.function.name }}}}">{ITEMS}<param name="{{{{ k }}}}">\
{VALUE}</param>{{% endfor %}}</function>{TAIL}"""
DSML = f"""{HEAD}<|DSML|invoke name="{{{{ c.function.name }}}}">
{ITEMS}<|DSML|parameter name="{{{{ k }}}}" \
string="{{{{ 'true' if v is string else 'false' }}}}">{VALUE}</|DSML|parameter>
{{% endfor %}}</|DSML|invoke>{TAIL}"""
THINKING = QWEN_LIKE.replace(
    "(message.content or '') }}", "(message.content or '').split('</think>')[-1].lstrip() }}"
).replace("assistant\\n' }}{%- endif %}", "assistant\\n<think>\\n' }}{%- endif %}")
HARMONY = """\
{%- if tools -%}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{%- endif -%}
{%- for m in messages -%}
{%- set call = (m.tool_calls or [none])[0] -%}
{%- if call -%}%CALL%{{ call.function.arguments | tojson }}<|call|>
{%- elif m.role == 'assistant' -%}
<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>
{%- elif m.role == 'tool' -%}<|start|>functions.{{ m.name }}<|message|>{{ m.content }}<|end|>
{%- else -%}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}"""
NAME = "{{ call.function.name }}"
ORDERS = {
    "channel first": "<|channel|>commentary to=functions.%s <|constrain|>json<|message|>",
    "recipient first": " to=functions.%s<|channel|>commentary json<|message|>",
}


def open_(template: str) -> tuple[Dialect, Certificate]:
    dialect, certificate = certify(zoo_tokenizer(template), FormatRequest())
    assert dialect is not None, certificate.reason
    return dialect, certificate


def talk(*calls: ToolCall, reasoning: str | None = None) -> Conversation:
    turns = [Message("user", "Hi"), Message("assistant", None, reasoning, calls)]
    turns += [Message("tool", f"result {call.arguments['a']}", name="find") for call in calls]
    return Conversation((*turns, Message("assistant", "Done.")), (FIND,))


def call(text: str) -> ToolCall:
    return ToolCall("find", {"a": text})


@pytest.mark.parametrize("template", [BY_ID, PARAM, DSML], ids=["id", "param", "dsml"])
def test_calls_are_written_and_read_back(template: str) -> None:
    dialect, _ = open_(template)
    calls = (call("x"), call("12"))
    for spans in dialect.render(talk(*calls)):
        text = "".join(span.text for span in spans if span.turn == 0)
        if text:
            assert dialect.parse(text, [FIND]).calls == calls


def test_a_call_that_is_named_by_its_id_is_read_with_any_number() -> None:
    dialect, certificate = open_(BY_ID)
    assert certificate.dialect["ids"] == "named"
    said = '<|call_begin|>functions.find:7<|call_argument|>{"a": "x"}<|call_end|><|im_end|>'
    assert dialect.parse(said, [FIND]).calls == (call("x"),)


@pytest.mark.parametrize("thought", [None, "I look."])
def test_a_thought_that_the_prompt_opens_is_written_into_the_turn(thought: str | None) -> None:
    dialect, certificate = open_(THINKING)
    assert any("opens a thought" in limit for limit in certificate.limits)
    first = dialect.render(talk(call("x"), reasoning=thought))[0]
    text = "".join(span.text for span in first)
    assert f"<think>\n{thought or ''}\n</think>\n\n<tool_call>" in text
    trained = "".join(span.text for span in first if span.turn == 0)
    read = dialect.parse(trained, [FIND])
    assert (read.calls, read.reasoning or None) == ((call("x"),), thought)


@pytest.mark.parametrize("written", ORDERS)
@pytest.mark.parametrize("said", ORDERS)
def test_both_orders_of_recipient_and_channel_are_read(written: str, said: str) -> None:
    header = "<|start|>assistant" + ORDERS[written] % NAME
    dialect, _ = open_(HARMONY.replace("%CALL%", header))
    text = ORDERS[said] % "find" + '{"a": "x"}<|call|>'
    assert dialect.parse(text, [FIND]).calls == (call("x"),)
