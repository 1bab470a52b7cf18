"""Chat templates that no model has: made up for tests, with marks that nobody uses. `READABLE` have
calls that can be read back.

Each is `CHAT` with its own way to write calls (`CALLS`), its control tokens being `TOKENS`.
"""

from __future__ import annotations

from support.dialect_models import small_tokenizer
from toolhone.tokenizer import TextTokenizer

CHAT = """\
{%- if tools %}{{- '⟪system⟫Tools:' }}
{%- for tool in tools %}{{- '\\n' + tool.function | tojson }}{%- endfor %}{{- '⟪end⟫\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '⟪assistant⟫' }}@THOUGHT@{{- message.content or '' }}
@CALLS@
{{- '⟪end⟫\\n' }}
{%- else %}{{- '⟪' + message.role + '⟫' + message.content + '⟪end⟫\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '⟪assistant⟫' }}{%- endif %}"""
TOKENS = (
    "⟪end⟫",
    "⟪system⟫",
    "⟪user⟫",
    "⟪assistant⟫",
    "⟪tool⟫",
    "⟦call⟧",
    "⟦with⟧",
    "⟦done⟧",
    "</s>",
)

_EACH = "{%- for call in message.tool_calls or [] %}{%- set f = call.function %}@{%- endfor %}"
_ALL = "{%- if message.tool_calls %}@{%- endif %}"
_ARGUMENTS = "{%- for key, value in f.arguments.items() %}@{%- endfor %}"
_PLAIN = "(value if value is string else value | tojson)"


def _each(one: str) -> str:
    return _EACH.replace("@", one)


def _with_arguments(before: str, argument: str, after: str) -> str:
    """Calls that write their arguments one by one."""
    return _each(
        f"{{{{- {before} }}}}{_ARGUMENTS.replace('@', '{{- ' + argument + ' }}')}{{{{- {after} }}}}"
    )


def _listed(before: str, one: str, between: str, after: str) -> str:
    """All calls of a message as one list."""
    calls = f"{{{{- {one} }}}}{{%- if not loop.last %}}{{{{- {between} }}}}{{%- endif %}}"
    return _ALL.replace("@", f"{{{{- {before} }}}}{_each(calls)}{{{{- {after} }}}}")


def _python(value: str) -> str:
    """`name(key=value, ...)` inside a list."""
    argument = (
        f"{{{{- key + '=' + {value} }}}}{{%- if not loop.last %}}{{{{- ', ' }}}}{{%- endif %}}"
    )
    call = (
        "{{- f.name + '(' }}"
        + _ARGUMENTS.replace("@", argument)
        + "{{- ')' }}{%- if not loop.last %}{{- '; ' }}{%- endif %}"
    )
    return _ALL.replace("@", "{{- '⟨⟨' }}" + _each(call) + "{{- '⟩⟩' }}")


_MARKED = """{%- macro marked(value) -%}
{%- if value is string -%}{{- '§' + value + '§' -}}
{%- elif value is mapping -%}{{- '{' -}}
{%- for key, item in value.items() -%}{{- key + ':' + marked(item)
    + (',' if not loop.last else '') -}}{%- endfor -%}{{- '}' -}}
{%- elif value is iterable -%}{{- '[' -}}
{%- for item in value -%}{{- marked(item)
    + (', ' if not loop.last else '') -}}{%- endfor -%}{{- ']' -}}
{%- else -%}{{- value | tojson -}}
{%- endif -%}
{%- endmacro -%}"""
_JSON_ARGUMENTS = "f.arguments | tojson"
CALLS: dict[str, tuple[str, str]] = {
    "name and object": (
        _each(f"{{{{- '⟦call⟧' + f.name + '⟦with⟧' + {_JSON_ARGUMENTS} + '⟦done⟧' }}}}"),
        "named_json",
    ),
    "nested tags": (
        _with_arguments(
            "'<<do>>\\n<<op n=\"' + f.name + '\">>'",
            f"'<<arg n=\"' + key + '\">>' + {_PLAIN} + '<</arg>>'",
            "'<</op>>\\n<</do>>'",
        ),
        "parameters",
    ),
    "lines": (
        _with_arguments(
            "'\\n@@call ' + f.name + '\\n'", f"'  ' + key + ' := ' + {_PLAIN} + '\\n'", "'@@end'"
        ),
        "parameters",
    ),
    "lines of json": (
        _with_arguments(
            "'\\n$$ ' + f.name + '\\n'", "'  ' + key + ' = ' + value | tojson + '\\n'", "'$$$'"
        ),
        "parameters",
    ),
    "attributes": (
        _with_arguments("'<act:' + f.name", f"' ' + key + '=\"' + {_PLAIN} + '\"'", "'/>'"),
        "parameters",
    ),
    "arrows": (
        _each(
            "{{- '\\n!!' + f.name + '(' }}{%- for key, value in "
            "f.arguments.items() %}{{- key + ' -> ' + value | tojson }}"
            "{%- if not loop.last %}{{- ' & ' }}{%- endif %}{%- endfor %}{{- ')!!' }}"
        ),
        "parameters",
    ),
    "object first": (
        _each(f"{{{{- '⟦call⟧' + {_JSON_ARGUMENTS} + ' ==> ' + f.name + '⟦done⟧' }}}}"),
        "named_json",
    ),
    "object first, joined": (
        _listed("'[!'", f"{_JSON_ARGUMENTS} + ' @ ' + f.name", "' + '", "'!]'"),
        "named_json",
    ),
    "nested function": (
        _each(
            "{{- '%%' + {'type': 'function', 'function': {'name': f.name, "
            "'arguments': f.arguments}} | tojson + '%%' }}"
        ),
        "json_calls",
    ),
    "numbered": (
        _each(
            "{{- '\\n(call ' ~ loop.index ~ ') ' + {'name': f.name, 'arguments': "
            "f.arguments} | tojson }}"
        ),
        "json_calls",
    ),
    "list with index": (
        _listed(
            "'#calls ['",
            "{'index': loop.index0, 'op': f.name, 'in': f.arguments} | tojson",
            "', '",
            "'] #'",
        ),
        "json_calls",
    ),
    "python in other brackets": (_python("value | tojson"), "python_calls"),
    "python with bare quotes": (
        _python('("\'" + value + "\'" if value is string else value | tojson)'),
        "python_calls",
    ),
    "name as key": (
        _listed("'~~['", "{f.name: f.arguments} | tojson", "', '", "']~~'"),
        "name_as_key",
    ),
    "text of json in tags": (
        _each(
            "{{- '<run><op>' + f.name + '</op><in>' + f.arguments | tojson | "
            "tojson + '</in></run>' }}"
        ),
        "named_json",
    ),
    "text of json in json": (
        _each("{{- '<run>' + {'op': f.name, 'in': f.arguments | tojson} | tojson + '</run>' }}"),
        "json_calls",
    ),
    "python's mapping": (
        _each("{{- '<run ' + f.name + '>' + dict(f.arguments) | string + '</run>' }}"),
        "named_json",
    ),
    "texts in marks": (
        _MARKED + _each("{{- '\\n->call:' + f.name + marked(f.arguments) + '<-' }}"),
        "loose_object",
    ),
    "no mark behind": (
        _each(f"{{{{- '⟦call⟧' + f.name + '⟦with⟧' + {_JSON_ARGUMENTS} }}}}"),
        "named_json",
    ),
    "values without quotes": (
        _with_arguments("'⟦call⟧' + f.name + '('", "key ~ '=' ~ value ~ ' '", "')⟦done⟧'"),
        "parameters",
    ),
    "fenced": (
        _each("{{- '\\n```op\\n' + f.name + '\\n' + f.arguments | tojson(indent=2) + '\\n```' }}"),
        "named_json",
    ),
}
"""Name of a way to write calls -> the template's lines for it, and the body that reads it."""

UNREADABLE: dict[str, str] = {
    "names of arguments left out": _each(
        "{{- '⟦call⟧' + f.name + '⟦with⟧' + f.arguments.values() | list | tojson + '⟦done⟧' }}"
    ),
    "texts cut off": _each(
        "{{- '⟦call⟧' + f.name + '⟦with⟧' + (f.arguments | tojson)[:60] + '⟦done⟧' }}"
    ),
    "names in capitals": _each(
        f"{{{{- '⟦call⟧' + f.name | upper + '⟦with⟧' + {_JSON_ARGUMENTS} + '⟦done⟧' }}}}"
    ),
    "quotes taken out": _each(
        "{{- '⟦call⟧' + f.name + '⟦with⟧' + f.arguments | tojson | replace('\"', '') + '⟦done⟧' }}"
    ),
}
"""Ways to write calls from which nothing can read them back."""

OWN_THOUGHT = (
    "{%- if message.reasoning_content %}{{- '⟦muse⟧' + "
    "message.reasoning_content + '⟦/muse⟧' }}{%- endif %}"
)


def made_up(calls: str, thought: str = "", chat: str = CHAT) -> TextTokenizer:
    """A tokenizer whose chat template writes calls in this way."""
    return small_tokenizer(
        chat.replace("@CALLS@", calls).replace("@THOUGHT@", thought), TOKENS, (), eos="</s>"
    )


WITHOUT_END = CHAT.replace("@CALLS@\n{{- '⟪end⟫\\n' }}", "@CALLS@").replace(
    "message.content + '⟪end⟫\\n'", "message.content"
)
"""As `CHAT`, but nothing ends a turn; the next role's mark does."""

ADDRESSED = (
    CHAT.replace("{{- '⟪assistant⟫' }}@THOUGHT@{{- message.content or '' }}\n@CALLS@", "@CALLS@")
    .replace("{{- '⟪assistant⟫' }}{%- endif %}", "{{- '⟪assistant' }}{%- endif %}")
    .replace(
        "@CALLS@",
        "{{- '⟪assistant' }}{%- if message.tool_calls %}{%- set f = "
        "message.tool_calls[0].function %}"
        "{{- ' for ' + f.name + '⟫' + f.arguments | tojson }}{%- else %}{{- ' "
        "for all⟫' + message.content }}{%- endif %}",
    )
)
"""The name of the tool stands in the header of the message, and only one call fits."""
