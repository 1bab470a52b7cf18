"""Templates of today: calls named by their id, opened thoughts, typed parameters, Harmony."""

from __future__ import annotations

import pytest

from support.dialect_models import QWEN_LIKE
from support.log_rows import TOOLS
from support.template_zoo import zoo_tokenizer
from toolhone.dialects.choose import FormatRequest
from toolhone.dialects.interface import Dialect
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


JSON_CALLS = (
    HEAD + '<tool_call>{"name": "{{ c.function.name }}", "arguments": %}</tool_call>' + TAIL
).replace("%}</", ARGUMENTS + "}</")
EACH_TOOL = """{% for t in tools %}{% for k, p in t.function.parameters.properties.items() %}\
{{ t.function.name + k + p.description }}{% endfor %}{% endfor %}"""
BARE = "{% for t in tools %}{{ t.name + (t.parameters | tojson) }}{% endfor %}"
WANTS = {
    "descriptions": (EACH_TOOL, "arguments of tools without a description get an empty one"),
    "no wrapper": (BARE, "the template wants tools without the object `function`"),
}


@pytest.mark.parametrize("wants", WANTS)
def test_tools_are_written_as_the_template_wants_them(wants: str) -> None:
    tools, limit = WANTS[wants]
    template = JSON_CALLS.replace("{{ tools | tojson }}", tools)
    if wants == "no wrapper":
        template = template.replace(ARGUMENTS, "{{ '' + c.function.arguments }}")
    dialect, certificate = open_(template)
    assert any(limit in one for one in certificate.limits)
    bare = Tool.of({"name": "find", "parameters": {"type": "object", "properties": {"a": {}}}})
    assert "find" in "".join(span.text for span in dialect.prompt([Message("user", "Hi")], [bare]))


def test_a_keyword_that_ends_the_last_turn_is_found() -> None:
    template = JSON_CALLS.replace(
        "<|im_end|>\n{% endfor",
        "{% if not loop.last or training_prompt %}<|im_end|>{% endif %}\n{% endfor",
    ).replace("{%- endfor -%}{% if", "{%- endfor -%}{%- if")
    _, certificate = open_(template)
    assert certificate.dialect["switches"] == {"training_prompt": True}


def test_a_mark_between_call_and_end_of_turn_is_no_part_of_the_call() -> None:
    dialect, _ = open_(
        PARAM.replace(
            "<|im_end|>\n{% endfor",
            "{% if m.role == 'assistant' %}<|done|>{% endif %}<|im_end|>\n{% endfor",
        )
    )
    text = "".join(span.text for span in dialect.render(talk(call("x")))[0] if span.turn == 0)
    assert "</function><|done|><|im_end|>" in text
    assert dialect.parse(text, (FIND,)).calls == (call("x"),)


def test_a_call_that_results_follow_in_the_same_turn_ends_with_its_own_mark() -> None:
    template = """\
{%- if tools -%}<|system|>{{ tools | tojson }}{%- endif -%}{%- set ns = namespace(on=false) -%}
{%- for m in messages -%}
{%- if m.role == 'tool' -%}[{{ m.content }}]
{%- elif m.role == 'assistant' -%}{%- if not ns.on -%}<|assistant|>{%- endif -%}
{%- set ns.on = true -%}{{ m.content or '' }}
{%- for c in m.tool_calls or [] -%}<|call|>{{ {c.function.name: c.function.arguments} | tojson }}\
<|/call|>{%- endfor -%}
{%- else -%}{%- if ns.on -%}<|end|>{%- endif -%}{%- set ns.on = false -%}
<|{{ m.role }}|>{{ m.content }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}<|system|>"""
    dialect, _ = open_(template.removesuffix("<|system|>"))
    text = "".join(span.text for span in dialect.render(talk(call("x")))[0] if span.trained)
    assert text.startswith('<|call|>{"find": {"a": "x"}}<|/call|>')


def test_a_thought_behind_the_empty_one_of_the_prompt_is_a_limit() -> None:
    begins = "<|im_start|>assistant\n"
    template = JSON_CALLS.replace(begins, f"{begins}<think></think>").replace(
        "{{ m.content or '' }}",
        "{{ ('<think></think>' if m.role == 'assistant' else '') + (m.content or '') }}",
    )
    _, certificate = open_(template)
    assert "reasoning before an answer cannot be written" in " ".join(certificate.limits)


def test_another_header_in_turns_than_in_prompts_is_refused() -> None:
    role = "{{ 'user' if m.role == 'tool' else m.role }}"
    template = JSON_CALLS.replace(role, f"<|{role}|>").replace(
        "<|im_start|>assistant\n", "<|assistant|>\n"
    )
    _, certificate = certify(zoo_tokenizer(template), FormatRequest())
    assert "differently from the prompt that asks for it" in certificate.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            ("{%- if tools -%}", "{%- if messages[0].role == 'system' -%}"),
            "without a system message",
        ),
        (("{{ m.content or '' }}", "{{ m.content[0].text + '' }}"), "refuses a plain question"),
    ],
)
def test_the_true_reason_of_a_refusal_is_named(changes: tuple[str, str], reason: str) -> None:
    _, certificate = certify(zoo_tokenizer(JSON_CALLS.replace(*changes)), FormatRequest())
    assert reason in certificate.reason


@pytest.mark.parametrize("closes", [True, False])
def test_a_turn_that_stays_open_when_the_user_answers_its_results_is_a_limit(closes: bool) -> None:
    ends = "<|end|>" if closes else ""
    template = f"""\
{{%- if tools -%}}<|system|>{{{{ tools | tojson }}}}<|end|>{{%- endif -%}}
{{%- for m in messages -%}}
{{%- if m.role == 'tool' -%}}{{{{ m.content }}}}<|/result|>
{{%- if not loop.last and loop.nextitem.role == 'user' -%}}{ends}{{%- endif -%}}
{{%- elif m.role == 'assistant' -%}}
{{%- if loop.first or loop.previtem.role != 'tool' -%}}<|assistant|>{{%- endif -%}}
{{{{ m.content or '' }}}}{{%- for c in m.tool_calls or [] -%}}<|call|>\
{{{{ {{c.function.name: c.function.arguments}} | tojson }}}}<|result|>{{%- endfor -%}}
{{%- if not m.tool_calls -%}}<|end|>{{%- endif -%}}
{{%- else -%}}<|{{{{ m.role }}}}|>{{{{ m.content }}}}<|end|>{{%- endif -%}}
{{%- endfor -%}}
{{%- if add_generation_prompt and messages[-1].role != 'tool' -%}}<|assistant|>{{%- endif -%}}"""
    _, certificate = open_(template)
    assert ("is never ended" in " ".join(certificate.limits)) != closes
