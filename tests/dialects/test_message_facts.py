"""Faults that published templates had are found in a sound one that gets them; it has none."""

from __future__ import annotations

import pytest

from support.dialect_models import QWEN_LIKE, small_tokenizer
from toolhone.dialects.chat_template.sanitise import TemplateMarkup
from toolhone.dialects.choose import FormatRequest
from toolhone.dialects.probe.certificate import certify
from toolhone.dialects.probe.probing import TemplateFact
from toolhone.dialects.probe.template_facts import examine

ANSWER = "{{- '<|im_start|>assistant\\n' + (message.content or '') }}"
TURN = "{{- '<|im_start|>assistant\\n<think>' + thought.split('<think>')[-1] + '</think>' + text }}"
THOUGHTS = (
    "{%- set text = message.content or '' %}{%- set thought = message.reasoning_content or '' %}"
    "{%- if '</think>' in text %}{%- set thought = text.split('</think>')[0] %}"
    "{%- set text = text.split('</think>')[-1] %}{%- endif %}" + TURN
)
THINKING = QWEN_LIKE.replace(ANSWER, THOUGHTS)
"""A template that takes thoughts out of the text, with both marks or the last one."""
SOUND = {
    "content in parts": "yes",
    "thoughts in the text": "kept",
    "two answers in a row": "yes",
    "results without a name": "ok",
    "tools without a description": "ok",
    "system message": "yes",
    "a prompt without tools": "ok",
}
FAULTS = {
    ("two answers in a row", "unbalanced"): (
        "{{- '<|im_start|>assistant\\n<think>'",
        "{{- ('<|im_start|>assistant\\n' if messages[loop.index0 - 1].role != 'assistant' else '')"
        " + '<think>'",
    ),
    ("thoughts in the text", "corrupted"): (
        "{%- if '</think>' in text %}",
        "{%- if '</think>' in text and '<think>' in text %}",
    ),
    ("thoughts in the text", "dropped"): (
        "{%- set thought = text.split('</think>')[0] %}",
        "{%- set thought = '' %}",
    ),
    ("results without a name", "error"): (
        "'\\n<tool_response>' + message.content",
        "'\\n<tool_response>' + message.name + message.content",
    ),
    ("tools without a description", "None"): (
        "+ tool.function.description + ' '",
        "+ tool.function.description | string + ' '",
    ),
    ("system message", "twice"): (
        "{%- for message in messages %}",
        "{%- for message in messages %}{%- if message.role == 'system' %}{{- message.content }}"
        "{%- endif %}",
    ),
    ("generation prompt", "always"): (
        "{%- if add_generation_prompt %}",
        "{%- if messages[-1].role != 'assistant' %}",
    ),
    ("calls", "broken JSON"): (
        "{{- '<tool_call>' + body | tojson(separators=(',', ':')) + '</tool_call>' }}",
        '{{- \'<tool_call>{"name": "\' + body.name + \'"}, "arguments": \''
        " + body.arguments | tojson + '</tool_call>' }}",
    ),
}


def facts(template: str) -> dict[str, TemplateFact]:
    return {one.probe: one for one in examine(TemplateMarkup(small_tokenizer(template)))}


def _in_parts(text: str) -> str:
    """The template with messages whose parts are joined before anything else."""
    join = (
        "{%- set ns = namespace(all=[]) %}{%- for m in messages %}"
        "{%- set content = m.content if m.content is string or not m.content"
        " else m.content | map(attribute='text') | join %}"
        "{%- set ns.all = ns.all + [dict(m, content=content)] %}{%- endfor %}"
        "{%- set messages = ns.all %}"
    )
    described = "(tool.function.description or '')"
    return join + text.replace("tool.function.description", described)


def test_a_template_that_takes_what_servers_pass_has_no_fault() -> None:
    found = facts(_in_parts(THINKING))
    assert {probe: found[probe].found for probe in SOUND} == SOUND
    assert not any(found[probe].fault for probe in SOUND)
    assert not {"generation prompt", "calls"} & found.keys()


@pytest.mark.parametrize(("probe", "wanted"), FAULTS)
def test_each_fault_is_found_with_its_name(probe: str, wanted: str) -> None:
    before, after = FAULTS[probe, wanted]
    broken = THINKING.replace(before, after)
    assert broken != THINKING
    fact = facts(broken)[probe]
    assert (fact.found, fact.fault) == (wanted, True)
    assert fact.why or wanted == "error"


def test_parts_that_are_refused_or_shown_as_code_are_lost_by_role() -> None:
    assert facts(QWEN_LIKE)["content in parts"].found == "lost (system, user, results, assistant)"
    shown = QWEN_LIKE.replace("'<|im_start|>user\\n' + message.content", "message.content | string")
    assert "user" in facts(shown)["content in parts"].found
    only = _in_parts(QWEN_LIKE).replace("m.content is string", "m.role == 'tool'")
    assert facts(only)["content in parts"].found == "lost (results)"


def test_answers_with_nothing_between_them_are_glued() -> None:
    end = "{{- '<|im_end|>\\n' }}\n{%- elif message.role == 'tool' %}"
    glued = THINKING.replace(
        end,
        "{%- if loop.last or messages[loop.index0 + 1].role != 'assistant' %}"
        "{{- '<|im_end|>\\n' }}{%- endif %}\n{%- elif message.role == 'tool' %}",
    ).replace(
        TURN,
        "{%- if messages[loop.index0 - 1].role != 'assistant' %}{{- '<|im_start|>assistant\\n' }}"
        "{%- endif %}{{- text }}",
    )
    assert facts(glued)["two answers in a row"].found == "glued"


def test_a_prompt_without_tools_that_speaks_of_them_is_quoted_and_no_fault() -> None:
    fact = facts("{{- 'You can use tools. ' }}" + QWEN_LIKE)["a prompt without tools"]
    assert (fact.found, fact.fault) == ("speaks of tools", False)
    assert "You can use tools" in fact.why


def test_arguments_with_letters_behind_them_are_altered() -> None:
    broken = QWEN_LIKE.replace(
        "body | tojson(separators=(',', ':'))",
        "body.name + '(number7=' + '%sr' | format(body.arguments.number7)"
        " + body.arguments | tojson + ')'",
    )
    assert facts(broken)["arguments as a mapping"].found == "altered"


def test_a_template_that_takes_bare_tools_is_examined_with_these() -> None:
    bare = QWEN_LIKE.replace("tool.function.", "tool.")
    found = facts(bare)
    assert found["tools"].found == "error"
    assert found["arguments as a mapping"].found == "ok"
    assert found["two calls"].found == "yes"


def test_reasoning_is_a_fact_of_templates_that_show_no_call() -> None:
    found = facts(THINKING.replace("message.tool_calls or []", "[]"))
    assert found["calls"].found == "never shown"
    assert found["reasoning"].found == "kept"
    assert "reasoning_content" in found["fields of reasoning"].found


def test_a_turn_left_open_is_found_where_prompts_add_an_empty_thought() -> None:
    open_turn = QWEN_LIKE.replace(
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}",
        "{%- if add_generation_prompt %}"
        "{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}",
    )
    left = "a turn whose results the user answers, not the assistant, is never ended"
    assert left not in certify(small_tokenizer(open_turn), FormatRequest())[1].limits
    ended = "{%- if not message.tool_calls %}{{- '<|im_end|>\\n' }}{%- endif %}"
    open_turn = open_turn.replace(
        "{{- '<|im_end|>\\n' }}\n{%- elif message.role == 'tool' %}",
        ended + "\n{%- elif message.role == 'tool' %}",
    )
    open_turn = open_turn.replace(
        "{%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}",
        "",
    ).replace(
        "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}"
        "{%- endif %}",
        "",
    )
    _, certificate = certify(small_tokenizer(open_turn), FormatRequest())
    assert left in certificate.limits, certificate
