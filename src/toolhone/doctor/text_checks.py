"""What stands in the text of messages and should not: calls and results typed by hand, stray marks, control tokens.

    faults = text_faults(conversation)                     # typed calls and results, stray marks: they stop a training
    faults = control_faults(conversation, COMMON_MARKS)    # remarks; with a tokenizer: `pattern_of(tokenizer.control_texts)`

Marks between backticks are mentioned, not used, and pass. Reading what was typed is done in `typed`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from toolhone.dialects.syntax.reasoning import split_reasoning
from toolhone.doctor.typed_calls import MARK, is_closing, marks_in, read_typed
from toolhone.schema import Conversation, Json, Message, Tool
from toolhone.sources.rules import Fault, FindingKind

COMMON_MARKS = re.compile(
    r"<\|[A-Za-z0-9_]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
)
"""What many tokenizers hold as control tokens."""
_RESULT = re.compile(
    r"\s*<(tool_response|tool_result|function_response|function_results?|functionresponse)>(.*?)</\1>\s*",
    re.DOTALL | re.IGNORECASE,
)
_RESULT_BRACKETS = re.compile(r"\s*\[(RESULT|TOOL_RESULTS?)\](.*?)\[/\1\]\s*", re.DOTALL)
_SIGNS = ("<", "[")


def text_faults(conversation: Conversation) -> Iterator[Fault]:
    """Typed calls and stray marks in what the assistant says, typed results in what the user says."""
    tools = {tool.name: tool for tool in conversation.tools}
    for index, message in enumerate(conversation.messages):
        text = message.content
        if text and message.role == "assistant":
            yield from _assistant_faults(f"messages[{index}].content", text, tools)
        elif text and message.role == "user" and typed_results(text):
            yield Fault(
                FindingKind.TYPED_RESULT,
                f"messages[{index}].content",
                f"the user's message is a tool result between marks: {text.strip()[:60]!r}",
                "wanted a tool message",
            )


def _assistant_faults(field: str, text: str, tools: Mapping[str, Tool]) -> Iterator[Fault]:
    found = read_typed(text, tools)
    if found is not None:
        names = ", ".join(repr(call.name) for call in found.calls[:3])
        what = f"a call of {names} stands in the text, {found.form}: {text.strip()[:60]!r}"
        yield Fault(FindingKind.TYPED_CALL, field, what, "wanted it in tool_calls")
        return
    marks = marks_in(text)
    if not marks:
        return
    closing = sum(map(is_closing, marks))
    if closing and 2 * closing == len(marks) and not is_closing(marks[0]):
        what = f"a call stands in the text between {marks[0]} and {marks[1]}, and cannot be read: {text.strip()[:60]!r}"
        yield Fault(FindingKind.TYPED_CALL, field, what, "wanted it in tool_calls")
    else:
        what = f"{len(marks) - closing} marks open and {closing} close, the first is {marks[0]!r}: {text.strip()[:60]!r}"
        yield Fault(
            FindingKind.STRAY_MARK,
            field,
            what,
            "wanted no marks in text; calls belong in tool_calls",
        )


def typed_results(text: str) -> tuple[str, ...]:
    """The results of which a text consists, each between its marks; nothing when there is anything else."""
    if not text.lstrip().startswith(_SIGNS):
        return ()
    for pattern in (_RESULT, _RESULT_BRACKETS):
        results, position = list[str](), 0
        while found := pattern.match(text, position):
            results.append(found[2].strip())
            position = found.end()
        if results and position == len(text):
            return tuple(results)
    return ()


def pattern_of(control: Iterable[str]) -> re.Pattern[str] | None:
    """Finds any of a tokenizer's control texts; None when it has none."""
    longest_first = sorted(control, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def control_faults(conversation: Conversation, pattern: re.Pattern[str]) -> Iterator[Fault]:
    """One remark for each message whose text or arguments hold a control text; marks of calls are left to `text_faults`."""
    for index, message in enumerate(conversation.messages):
        for field, text in _texts(f"messages[{index}]", message):
            found = pattern.search(text)
            while (
                found
                and field.endswith("content")
                and message.role == "assistant"
                and MARK.match(found[0])
            ):
                found = pattern.search(text, found.end())
            if found:
                what = f"the {message.role}'s text holds {found[0]!r}: {text[max(found.start() - 30, 0) : found.end() + 20]!r}"
                yield Fault(
                    FindingKind.CONTROL_TEXT,
                    field,
                    what,
                    "wanted text that no tokenizer takes for a control token",
                )
                break


def _texts(field: str, message: Message) -> Iterator[tuple[str, str]]:
    """The texts of a message in which a control token may hide; reasoning in its usual place is none of them."""
    content = split_reasoning(message).content
    if content:
        yield f"{field}.content", content
    for number, call in enumerate(message.tool_calls):
        for text in _strings(call.arguments):
            yield f"{field}.tool_calls[{number}].arguments", text


def _strings(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
