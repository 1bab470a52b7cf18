"""What a proved dialect cannot write: conversations of every kind that data may hold, tried one by one.

    trials(dialect)             ["several calls in one turn cannot be written: training stops at such rows", ...]
    parts_of_tools(dialect)     ["descriptions of tools do not reach the prompt", ...]

Each trial is rendered as training renders it, with all its checks (is every turn read back, does every text from outside stand in
the prompt, is every tool shown); one that is refused is a limit. Nothing is decided by what a template looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolhone.dialects.base import Dialect
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Message, Tool, ToolCall

_CITY = {"type": "string", "enum": ["choice7", "other7"], "description": "parameter-text7"}
TOOLS = (
    Tool("first_tool7", "tool-text7", {"type": "object", "properties": {"parameter7": _CITY}}),
    Tool(
        "second_tool7",
        "more-text7",
        {"type": "object", "properties": {"number7": {"type": "integer", "description": "n"}}},
    ),
    Tool(
        "third_tool7",
        "last-text7",
        {"type": "object", "properties": {"number7": {"type": "integer", "description": "n"}}},
    ),
)
_ASK = Message("user", "What is There?")
_CALL = ToolCall("first_tool7", {"parameter7": "choice7"})
_ONE = Message("assistant", None, None, (_CALL,))
_TWO = Message("assistant", None, None, (_CALL, ToolCall("second_tool7", {"number7": 7})))
_RESULT, _OTHER = Message("tool", "first Result"), Message("tool", '{"second": "Result"}')
_ANSWER = Message("assistant", "It is There.")
_TRIALS: Mapping[str, tuple[Message, ...]] = {
    "a system message": (Message("system", "Be Brief."), _ASK, _ANSWER),
    "a system message in a talk with calls": (
        Message("system", "Be Brief."),
        _ASK,
        _ONE,
        _RESULT,
        _ANSWER,
    ),
    "several calls in one turn": (_ASK, _TWO, _RESULT, _OTHER, _ANSWER),
    "text beside a call": (_ASK, Message("assistant", "I look.", None, (_CALL,)), _RESULT, _ANSWER),
    "two messages of the user in a row": (_ASK, Message("user", "And Here?"), _ANSWER),
    "a second question after a call": (
        _ASK,
        _ONE,
        _RESULT,
        _ANSWER,
        Message("user", "And Here?"),
        _ONE,
        _RESULT,
        _ANSWER,
    ),
    "reasoning before an answer": (_ASK, Message("assistant", "It is There.", "Let me think.")),
    "reasoning before a call": (
        _ASK,
        Message("assistant", None, "Let me think.", (_CALL,)),
        _RESULT,
        _ANSWER,
    ),
}


def capability_checks(dialect: Dialect) -> list[str]:
    """A limit for each kind of conversation that this dialect refuses to write."""
    return [
        f"{words} cannot be written: training stops at such rows"
        for words, talk in _TRIALS.items()
        if not _writes(dialect, talk)
    ]


def _writes(dialect: Dialect, talk: Sequence[Message]) -> bool:
    try:
        dialect.render(Conversation(tuple(talk), TOOLS))
        places = [
            index for index, message in enumerate(talk) if message.role == "assistant" and index
        ]
        for index in places:
            dialect.prompt(talk[:index], TOOLS)
    except DialectError:
        return False
    return True


def parts_of_tools(dialect: Dialect) -> list[str]:
    """A limit for each part of a tool's definition that never reaches the prompt."""
    try:
        text = "".join(span.text for span in dialect.prompt([_ASK], TOOLS))
    except DialectError:
        return ["tools cannot be shown without a system message"]
    parts = {
        "descriptions of tools": "tool-text7",
        "names of parameters": "parameter7",
        "descriptions of parameters": "parameter-text7",
        "choices of parameters": "choice7",
    }
    return [
        f"{words} do not reach the prompt"
        for words, sentinel in parts.items()
        if sentinel not in text
    ]
