"""Write chats of sentinels with a template: `TemplateProbe`; an answer is a `TemplateFact`.

probe = TemplateProbe(TemplateMarkup(tokenizer))
probe.write(USER, probe.call(), RESULT)     # the text, or None where the template refuses the chat
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolhone.dialects.chat_template.sanitise import TemplateMarkup
from toolhone.dialects.probe.schema_words import PROBES
from toolhone.errors import DialectError
from toolhone.schema import Json

SYSTEM, USER, ANSWER, AGAIN, RESULT = PROBES["messages"]
TEXT = ANSWER["content"]


@dataclass(frozen=True)
class TemplateFact:
    """One answer. `fault`: something is lost, or needs a workaround. `why` is half a sentence.

    In `prefix`, letters say what breaks: `g` prompt + generation prompt do not begin the same turn
    rendered, `f` nor the whole conversation, `h` later turns change a turn, `t` tool results do.
    """

    probe: str
    found: str
    fault: bool = False
    why: str = ""


@dataclass(frozen=True)
class TemplateProbe:
    """Writes chats with one template and with the tools of the probes, or others.

    as_text: arguments as JSON text, not as a mapping. content: what stands for no text.
    """

    markup: TemplateMarkup
    tools: Sequence[Json] = tuple(PROBES["tools"])
    as_text: bool = False
    content: str | None = ""

    def call(self, count: int = 1, **changes: Json) -> dict[str, Any]:
        """A turn with one or two calls."""
        calls = []
        for index, (name, values) in enumerate(PROBES["calls"][:count]):
            arguments = json.dumps(values) if self.as_text else dict(values)
            function = {"name": name, "arguments": arguments}
            calls.append({"id": f"call0000{index}", "type": "function", "function": function})
        return {"role": "assistant", "content": self.content, "tool_calls": calls, **changes}

    def write(self, *chat: dict[str, Any], header: bool = False) -> str | None:
        """The text of a chat; None where the template refuses it."""
        try:
            return self.markup.write(chat, self.tools, header)
        except DialectError:
            return None


def need(name: str, text: str | None, found: str, needs: Mapping[str, Any]) -> TemplateFact:
    """The fact on a text that must hold these words; each has what is found and why without it."""
    if text is None:
        return TemplateFact(name, "error", True)
    for word, (without, why) in needs.items():
        if word not in text:
            return TemplateFact(name, without, True, why)
    return TemplateFact(name, found)
