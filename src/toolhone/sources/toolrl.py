r"""ToolRL: numbered tools, the dialogue so far as tagged text, and the next turn as the target.

    {"instruction": "... **Available Tools** ... 1. Name: f\nDescription: ...\n
                     Parameters: {...} ... **Steps for Each Turn** ...",
     "input": "**Dialogue Records History**\n<user> ... </user>\n\n<tool_call>...",
     "output": "<think> ... </think>\n<tool_call>\n{\"name\": \"f\", ...}\n</tool_call>"}

and the same as prompt rows of verl: `prompt` (a system and a user message) and
`reward_model.ground_truth`. A row becomes the dialogue with the target as its last turn, and one
task for that turn. Thoughts become reasoning. Format: Qian et al. 2025, arXiv:2504.13958.

API-Bank as ToolRL evaluates it has `system`, `user` and `answer`, a list of calls; a row becomes a
task. It does not mark optional parameters: what the expected call leaves out is made optional.
"""

from __future__ import annotations

import re

from toolhone.schema import Conversation, Json, Task, Tool, ToolCall
from toolhone.sources.files import Record
from toolhone.sources.source import (
    Context,
    Converted,
    Skip,
    Source,
    expect_calls,
    refuse_misfits,
    tasks_of,
)
from toolhone.sources.text_calls import (
    BAD_CALL,
    ConversationBuilder,
    TextTurn,
    as_call,
    read_value,
    read_values,
)
from toolhone.sources.tool_specs import BAD_TOOLS, fit_calls, read_tools

DIALOGUE = "a dialogue that is not a sequence of tagged turns"
_TOOLS, _STEPS = "**Available Tools**", "**Steps for Each Turn**"
_HISTORY = re.compile(r"\s*\*+Dialogue Records History\*\*\s*")
_NUMBERED = re.compile(r"^\d+\. ", re.MULTILINE)
_TOOL = re.compile(
    r"(?:Name: (?P<name>.*?)\n\s*Description:|(?P<short>[^\n:]+):)(?P<description>.*?)"
    r"\nParameters:(?P<parameters>.*)",
    re.DOTALL,
)
_BLOCK = re.compile(r"\s*<(think|user|response|tool_call|obs)>(.*?)</\1>\s*", re.DOTALL)
_TARGET = ("think", "tool_call", "response")


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
    instruction, dialogue, target = fields = _fields(record)
    if not all(isinstance(field, str) for field in fields):
        raise Skip("not a ToolRL row", f"keys {sorted(record)}")
    builder, tools = _begin(instruction, dialogue, context)
    before = len(builder.messages)
    _add_blocks(builder, target, tools, _TARGET)
    if len(builder.messages) != before + 1 or builder.messages[-1].role != "assistant":
        raise Skip("a target that is neither a call nor a reply", f"{target[-80:]!r}")
    builder.tell(context)
    conversation = context.complete(Conversation(tuple(builder.messages), tools), record)
    tasks = [task for task in tasks_of(conversation) if task.id.endswith(f"#{before}")]
    return Converted(conversation, tasks)


def _begin(
    instruction: str, dialogue: str, context: Context
) -> tuple[ConversationBuilder, tuple[Tool, ...]]:
    """Return the conversation before the target, and the tools that the instruction lists."""
    words, _, rest = instruction.partition(_TOOLS)
    listed = []
    for entry in _NUMBERED.split(rest.partition(_STEPS)[0])[1:]:
        found = _TOOL.match(entry)  # name and description may share a line
        if found is None:
            raise Skip(BAD_TOOLS, f"{entry!r:.80}")
        try:
            parameters, _, _ = read_value(found["parameters"].strip())
        except Skip as skip:
            raise Skip(BAD_TOOLS, skip.detail) from None
        name, about = (found["name"] or found["short"]).strip(), found["description"].strip()
        listed.append({"name": name, "description": about, "parameters": parameters})
    tools = read_tools(listed, context)
    context.repairs.add("steps and format description taken out of the instruction")
    builder, opening = ConversationBuilder(words), _HISTORY.match(dialogue)
    text = dialogue[opening.end() :] if opening else dialogue
    _add_blocks(builder, text, tools, (*_TARGET, "user", "obs"))
    return builder, tools


def _add_blocks(
    builder: ConversationBuilder, text: str, tools: tuple[Tool, ...], allowed: tuple[str, ...]
) -> None:
    """Add turns; a thought, calls and a response in a row are one turn of the assistant."""
    gap, *found = _BLOCK.split(text)
    if rest := "".join((gap, *found[2::3])):
        raise Skip(DIALOGUE, f"{rest[:80]!r}")
    parts: dict[str, str] = {}
    for name, body in zip((*found[0::3], ""), (*map(str.strip, found[1::3]), ""), strict=True):
        if name and name not in allowed:
            raise Skip(DIALOGUE, f"<{name}> where only {', '.join(allowed)} may be")
        if parts and (name not in _TARGET or name == "think" or name in parts):
            listed = list(read_values(parts["tool_call"])) if "tool_call" in parts else []
            calls = (
                _whole_name(as_call(value, builder.unread), tools, builder.repairs)
                for value, _ in listed
            )
            turn = TextTurn(parts.get("response") or None, tuple(calls))
            if not turn.calls and not turn.content:
                raise Skip(BAD_CALL, "a turn of the assistant with a thought alone")
            builder.add_assistant(turn, tools, parts.get("think") or None)
            parts = {}
        if name in _TARGET:
            parts[name] = body
        elif name == "user":
            builder.add_text("user", body)
        elif name:
            builder.add_result(body)


def _whole_name(call: ToolCall, tools: tuple[Tool, ...], repairs: set[str]) -> ToolCall:
    """Repair a tool's name that was cut at a bracket: its rest begins an argument's name."""
    whole = [tool.name for tool in tools if tool.name.startswith(f"{call.name.rstrip()} (")]
    if len(whole) != 1 or any(tool.name == call.name for tool in tools):
        return call
    repairs.add("a call name cut in two at a bracket")
    rest = whole[0].removeprefix(f"{call.name.rstrip()} (") + "("
    arguments = {name.removeprefix(rest): value for name, value in call.arguments.items()}
    return ToolCall(whole[0], arguments)


def is_api_bank(record: Record) -> bool:
    return record.keys() >= {"system", "user", "answer"} and _TOOLS in str(record["system"])


def convert_api_bank(record: Record, context: Context) -> Task:
    system, user, answer = (record.get(key) for key in ("system", "user", "answer"))
    texts = isinstance(system, str) and isinstance(user, str)
    if not texts or not isinstance(answer, list | dict):
        raise Skip("not a row of ToolRL's API-Bank", f"keys {sorted(record)}")
    builder, tools = _begin(str(system), str(user), context)
    calls = [
        as_call(call, context.unread) for call in (answer if isinstance(answer, list) else [answer])
    ]
    if not calls:
        raise Skip("an answer without a call")
    expected = fit_calls(calls, tools, context)
    loose = []
    for tool in tools:
        present = [call.arguments.keys() for call in expected if call.name == tool.name]
        required = tool.parameters.get("required") or []
        kept = [name for name in required if all(name in keys for keys in present)]
        if kept != required:
            context.repairs.add("a parameter that the right call leaves out, made optional")
            tool = Tool(tool.name, tool.description, {**tool.parameters, "required": kept})
        loose.append(tool)
    refuse_misfits(expected, loose)
    builder.tell(context)
    other = record.get("other")
    file = str(other.get("file", "")) if isinstance(other, dict) else ""
    level = file.partition("-level-")[2][:1]
    category = f"level_{level}" if level.isdigit() else "next_call"
    messages = tuple(builder.messages)
    return Task("", messages, tuple(loose), expect_calls(expected), category=category)


TOOLRL = Source(
    "toolrl",
    looks_like,
    convert,
    {
        "": {
            *("instruction", "input", "output", "prompt", "reward_model"),
            *("ability", "extra_info"),
        },
        "prompt": {"role", "content"},
        "reward_model": {"ground_truth", "style"},
    },
)
TOOLRL_API_BANK = Source(
    "toolrl_api_bank",
    is_api_bank,
    convert_api_bank,
    {"": {"system", "user", "answer", "other"}, "other": {"file", "sample_id", "api_id"}},
)
