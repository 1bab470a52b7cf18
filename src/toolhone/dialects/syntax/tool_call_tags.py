"""The native form of many chat models: `<tool_call>`, a JSON object with `name` and `arguments`, `</tool_call>`.

Reading takes any white space, `parameters` for `arguments`, and arguments given as a JSON string (see `tagged.read_tags` for the
rules on broken calls). Reasoning in front of the text is read by `thinking`. The model's own template does the writing; `write`
gives the same form for tests and for texts without a template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolhone.dialects.base import ParsedReply
from toolhone.dialects.syntax.json_reading import list_tools, write_json
from toolhone.dialects.syntax.reasoning import read_after_reasoning
from toolhone.dialects.syntax.tagged import read_tags
from toolhone.schema import Message, Tool, ToolCall

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
_MARKS = re.compile(r"</?tool_call>")

_INSTRUCTIONS = """\
You may call these tools:
<tools>
{tools}
</tools>

To call a tool, write
<tool_call>
{{"name": "<tool name>", "arguments": {{"<argument>": <value>}}}}
</tool_call>
Several calls follow one another. After a call, stop and wait for its result. When no tool is needed, answer in plain text."""


class ToolCallTags:
    """The syntax `tool_call_tags`."""

    name = "tool_call_tags"

    def write(self, content: str | None, calls: Sequence[ToolCall]) -> str:
        """Content, then the calls. Marks inside strings are written with an escaped bracket."""
        parts = [content] if content else []
        return "\n".join([*parts, *(f"{OPEN}\n{self._body(call)}\n{CLOSE}" for call in calls)])

    def _body(self, call: ToolCall) -> str:
        text = write_json({"name": call.name, "arguments": dict(call.arguments)})
        return _MARKS.sub(lambda found: "\\u003c" + found[0][1:], text)

    def read(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:  # noqa: ARG002
        return read_after_reasoning(text, lambda body: read_tags(body, OPEN, CLOSE))

    def instructions(self, tools: Sequence[Tool]) -> str:
        return _INSTRUCTIONS.format(tools=list_tools(tools)) if tools else ""

    def result(self, message: Message) -> str:
        return f"<tool_response>\n{message.content or ''}\n</tool_response>"
