"""What a template does not show of a tool's schema is named, counted, and for `$ref` cured."""

from __future__ import annotations

from support.dialect_models import QWEN_LIKE, small_tokenizer
from toolhone.dialects.choose import FormatRequest, open_dialect
from toolhone.dialects.interface import Dialect
from toolhone.dialects.probe.certificate import certify
from toolhone.dialects.probe.schema_words import count_hidden, hidden_note, hidden_words
from toolhone.schema import Message, Tool

INNER = (
    "{% for key, one in tool.function.parameters.properties.items() %}"
    "{{ key ~ ' ' ~ one.description ~ ' ' ~ one.enum ~ (one.properties or '') }}{% endfor %}"
)
PLAIN = QWEN_LIKE.replace("{%- endfor %}\n{{- '<|im_end|>\\n' }}\n{%- elif", INNER + "%ELSE%", 1)
PLAIN = PLAIN.replace("\n    + tool.function.parameters | tojson }}", "}}", 1)
PLAIN = PLAIN.replace("%ELSE%", "{%- endfor %}\n{{- '<|im_end|>\\n' }}\n{%- elif")
"""A template that shows names, descriptions, choices and the properties of objects alone."""
ORDER = {"type": "object", "properties": {"zebra": {"type": "integer"}}}
SAVE = Tool(
    "save",
    "Saves.",
    {
        "type": "object",
        "properties": {
            "order": {"$ref": "#/$defs/Order", "description": "The order."},
            "when": {"type": "string", "pattern": "^[0-9]+$"},
        },
        "$defs": {"Order": ORDER},
    },
)


def prompt(dialect: Dialect) -> str:
    return "".join(span.text for span in dialect.prompt([Message("user", "Hi")], [SAVE]))


def test_a_template_that_shows_the_whole_schema_hides_no_word_and_keeps_references() -> None:
    dialect = open_dialect(small_tokenizer(QWEN_LIKE))
    assert not hidden_words(dialect)
    assert "#/$defs/Order" in prompt(dialect)
    assert hidden_note(dialect, [SAVE]) is None


def test_references_that_a_template_loses_are_written_out_and_the_rest_is_named() -> None:
    dialect, certificate = certify(small_tokenizer(PLAIN), FormatRequest())
    assert dialect is not None, certificate.reason
    text = prompt(dialect)
    assert "zebra" in text
    assert "The order." in text
    assert "$ref" not in text
    words = hidden_words(dialect)
    assert {"anyOf", "pattern", "const"} <= set(words)
    assert "$ref" not in words
    assert any("pattern" in limit for limit in certificate.limits)
    assert count_hidden([SAVE, SAVE], words) == {"pattern": 2}
    assert hidden_note(dialect, [SAVE, SAVE]) == (
        "the prompt does not show what the schemas of 1 tools say by: pattern of 1"
    )


def test_whether_references_are_written_out_can_be_chosen() -> None:
    kept = open_dialect(small_tokenizer(PLAIN), inline_refs=False)
    assert "zebra" not in prompt(kept)
    assert "$ref" in hidden_words(kept)
    inlined = open_dialect(small_tokenizer(QWEN_LIKE), inline_refs=True)
    assert "$ref" not in prompt(inlined)


def test_parameters_that_a_template_drops_for_their_names_are_counted() -> None:
    loop = "{% for key, one in tool.function.parameters.properties.items() "
    dropping = PLAIN.replace(loop, loop + "if key not in ('type', 'required') ")
    assert dropping != PLAIN
    name = "parameters named as words of schemas"
    assert name not in hidden_words(open_dialect(small_tokenizer(PLAIN)))
    assert name in hidden_words(open_dialect(small_tokenizer(dropping)))
    typed = Tool("f", "Does.", {"type": "object", "properties": {"type": {"type": "string"}}})
    assert count_hidden([typed, SAVE], [name]) == {name: 1}
