"""ToolACE: tools in the system text, calls as `[name(key=value), ...]`, where names may hold
spaces.

    {"system": "... functions that you can invoke:\\n[{\\"name\\": ...}]. ...",
     "conversations": [{"from": "user", "value": "..."},
                       {"from": "assistant", "value": "[Market Trends(kind=\\"A\\")]"},
                       {"from": "tool", "value": "[{\\"name\\": ..., \\"results\\": {...}}]"}, ...]}

What the system text says besides its tools is left out. Format: Liu et al. 2024, arXiv:2409.00920.
"""

from __future__ import annotations

from toolhone.schema import Conversation
from toolhone.sources.base import Context, Skip, Source
from toolhone.sources.files import Record
from toolhone.sources.hermes import FORMAT, NO_TOOLS
from toolhone.sources.prompt_rows import split_prompt
from toolhone.sources.sharegpt import add_turns, turns_of
from toolhone.sources.text_calls import ConversationBuilder
from toolhone.sources.tool_specs import read_tools


def looks_like(record: Record) -> bool:
    system = record.get("system")
    in_system = isinstance(system, str) and "[{" in system and "tools" not in record
    return in_system and isinstance(record.get("conversations"), list)


def convert(record: Record, context: Context) -> Conversation:
    system = record.get("system")
    prompt = split_prompt(system) if isinstance(system, str) else None
    if prompt is None:
        raise Skip(NO_TOOLS, f"{system!r:.80}")
    tools = read_tools(prompt.tools, context)
    builder = ConversationBuilder()
    add_turns(builder, turns_of(record), tools)
    context.repairs |= {FORMAT, *builder.repairs}
    return Conversation(tuple(builder.messages), tools)


TOOLACE = Source("toolace", looks_like, convert)
