"""The keywords that a chat template listens to beside messages and tools: `template_kwargs`.

Found in the template's own text: names that it tests with `is defined` or gives a default, and that are no part of a message.
Whether one really changes anything is for `findings` to try.
"""

from __future__ import annotations

import re

_NOT_SWITCHES = {
    *(
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "bos_token",
        "eos_token",
        "pad_token",
        "unk_token",
        "namespace",
    ),
    *(
        "message",
        "tool",
        "tool_call",
        "content",
        "loop",
        "system_message",
        "role",
        "raise_exception",
        "strftime_now",
        "date_string",
    ),
    *("builtin_tools", "custom_tools", "model_identity", "continue_final_message"),
}
_TESTED = re.compile(r"(?<![\w.\]'\"])([a-z_]\w*)\s+is\s+(?:not\s+)?(?:defined|true|false)\b")
_DEFAULTED = re.compile(r"(?<![\w.\]'\"])([a-z_]\w*)\s*\|\s*default\(\s*(?:[Tt]rue|[Ff]alse)")
_NEGATED = re.compile(r"(?:if|and|or)\s+not\s+([a-z_]\w*)\s*(?:-?%\}|and\b|or\b)")
_SET_ALWAYS = re.compile(r"\{%-?\s*(?:for\s+(?:\w+\s*,\s*)?|macro\s+)([a-z_]\w*)")


def template_kwargs(template: str) -> list[tuple[str, bool]]:
    """Names with both values, `False` first; at most eight names, in the order of the template."""
    loops = set(_SET_ALWAYS.findall(template))
    found = [
        match
        for pattern in (_TESTED, _DEFAULTED, _NEGATED)
        for match in pattern.findall(template)
        if match not in _NOT_SWITCHES
    ]
    names = [name for name in dict.fromkeys(found) if name not in loops][:8]
    return [(name, value) for name in names for value in (False, True)]
