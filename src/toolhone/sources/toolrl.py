r"""ToolRL: numbered tools, the dialogue so far as tagged text, and the next turn as the target.

    {"instruction": "... **Available Tools** ... 1. Name: f\nDescription: ...\n
                     Parameters: {...} ... **Steps for Each Turn** ...",
     "input": "**Dialogue Records History**\n<user> ... </user>\n\n<tool_call>...",
     "output": "<think> ... </think>\n<tool_call>\n{\"name\": \"f\", ...}\n</tool_call>"}

and the same as prompt rows of verl: `prompt` (a system and a user message) and
`reward_model.ground_truth`. A row becomes the dialogue with the target as its last turn, and one
task for that turn. Thoughts become reasoning. Format: Qian et al. 2025, arXiv:2504.13958.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from toolhone.schema import Conversation, Json, Tool, ToolCall
from toolhone.sources.base import Context, Converted, Skip, Source, tasks_of
from toolhone.sources.files import Record
from toolhone.sources.text_calls import (
    BAD_CALL,
    ConversationBuilder,
    TextTurn,
    as_call,
    read_value,
    read_values,
)
from toolhone.sources.tool_specs import BAD_TOOLS, read_tools

NOT_TOOLRL = "not a ToolRL row"
NO_TARGET = "a target that is neither a call nor a reply"
DIALOGUE = "a dialogue that is not a sequence of tagged turns"
FORMAT = "steps and format description taken out of the instruction"
CUT_NAME = "a call name cut in two at a bracket"
_TOOLS, _STEPS = "**Available Tools**", "**Steps for Each Turn**"
_HISTORY = re.compile(r"\s*\*+Dialogue Records History\*\*\s*")
_NUMBERED = re.compile(r"^\d+\. ", re.MULTILINE)
_TOOL = re.compile(
    r"(?:Name: (?P<name>.*?)\n\s*Description:|(?P<short>[^\n:]+):)(?P<description>.*?)"
    r"\nParameters:(?P<parameters>.*)",
    re.DOTALL,
)
_BLOCK = re.compile(r"\s*<(think|user|response|tool_call|obs)>(.*?)</\1>\s*", re.DOTALL)
_PARTS = ("think", "tool_call", "response")


def looks_like(record: Record) -> bool:
    return _TOOLS in str(_fields(record)[0])


def _fields(record: Record) -> tuple[Json, Json, Json]:
    """Instruction, dialogue and target in either way to name them; None for what the row lacks."""
    prompt, judged = record.get("prompt"), record.get("reward_model")
    if isinstance(prompt, list) and len(prompt) == 2 and isinstance(judged, dict):
        system, user = (turn.get("content") if isinstance(turn, dict) else None for turn in prompt)
        return system, user, judged.get("ground_truth")
    return record.get("instruction"), record.get("input"), record.get("output")


def convert(record: Record, context: Context) -> Converted:
    fields = _fields(record)
    if not all(isinstance(field, str) for field in fields):
        raise Skip(NOT_TOOLRL, f"keys {sorted(record)}")
    instruction, dialogue, target = fields
    builder, tools = begin_conversation(instruction, context)
    add_dialogue(builder, dialogue, tools)
    before = len(builder.messages)
    add_blocks(builder, target, tools, _PARTS)
    if len(builder.messages) != before + 1 or builder.messages[-1].role != "assistant":
        raise Skip(NO_TARGET, f"{target[-80:]!r}")
    context.repairs |= builder.repairs
    conversation = context.complete(Conversation(tuple(builder.messages), tools), record)
    last = f"#{before}"
    return Converted(conversation, [t for t in tasks_of(conversation) if t.id.endswith(last)])


def begin_conversation(
    instruction: str, context: Context
) -> tuple[ConversationBuilder, tuple[Tool, ...]]:
    """Begin a conversation with the text of an instruction, and read its tools."""
    words, _, rest = instruction.partition(_TOOLS)
    tools = read_tools(list(_listed(rest.partition(_STEPS)[0])), context)
    context.repairs.add(FORMAT)
    return ConversationBuilder(words), tools


def _listed(text: str) -> Iterator[Json]:
    """Yield the numbered tools; name and description may share a line."""
    for entry in _NUMBERED.split(text)[1:]:
        found = _TOOL.match(entry)
        if found is None:
            raise Skip(BAD_TOOLS, f"{entry!r:.80}")
        try:
            parameters, _, _ = read_value(found["parameters"].strip())
        except Skip as skip:
            raise Skip(BAD_TOOLS, skip.detail) from None
        name = (found["name"] or found["short"]).strip()
        yield {"name": name, "description": found["description"].strip(), "parameters": parameters}


def add_dialogue(builder: ConversationBuilder, text: str, tools: Sequence[Tool]) -> None:
    """Add the tagged turns of a dialogue."""
    opening = _HISTORY.match(text)
    add_blocks(builder, text[opening.end() :] if opening else text, tools, (*_PARTS, "user", "obs"))


def add_blocks(
    builder: ConversationBuilder, text: str, tools: Sequence[Tool], allowed: Sequence[str]
) -> None:
    """Add turns; a thought, calls and a response in a row are one turn of the assistant."""
    parts: dict[str, str] = {}
    for name, body in _blocks(text):
        if name not in allowed:
            raise Skip(DIALOGUE, f"<{name}> where only {', '.join(allowed)} may be")
        if parts and (name not in _PARTS or name == "think" or name in parts):
            _add_assistant(builder, parts, tools)
            parts = {}
        if name in _PARTS:
            parts[name] = body
        elif name == "user":
            builder.add_text("user", body)
        else:
            builder.add_result(body)
    if parts:
        _add_assistant(builder, parts, tools)


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each tagged block."""
    position = 0
    while position < len(text):
        found = _BLOCK.match(text, position)
        if found is None:
            raise Skip(DIALOGUE, f"{text[position : position + 80]!r}")
        yield found[1], found[2].strip()
        position = found.end()


def _add_assistant(
    builder: ConversationBuilder, parts: dict[str, str], tools: Sequence[Tool]
) -> None:
    values = [value for value, _ in read_values(parts["tool_call"])] if "tool_call" in parts else []
    calls = [_whole_name(as_call(value), tools, builder.repairs) for value in values]
    turn = TextTurn(parts.get("response") or None, tuple(calls))
    if not turn.calls and not turn.content:
        raise Skip(BAD_CALL, "a turn of the assistant with a thought alone")
    builder.add_assistant(turn, tools, parts.get("think") or None)


def _whole_name(call: ToolCall, tools: Sequence[Tool], repairs: set[str]) -> ToolCall:
    """Repair a tool's name that was cut at a bracket: its rest begins an argument's name."""
    whole = [tool.name for tool in tools if tool.name.startswith(f"{call.name.rstrip()} (")]
    if len(whole) != 1 or any(tool.name == call.name for tool in tools):
        return call
    repairs.add(CUT_NAME)
    rest = whole[0].removeprefix(f"{call.name.rstrip()} (") + "("
    arguments = {name.removeprefix(rest): value for name, value in call.arguments.items()}
    return ToolCall(whole[0], arguments)


TOOLRL = Source("toolrl", looks_like, convert)
