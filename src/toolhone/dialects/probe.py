"""The proof that a model's own chat template can be used: `prove_native`.

A template is accepted only when, with this tokenizer, the tools' names reach the prompt, calls come back from the rendered text
as they went in (nested arguments, quotes, other scripts), answers come back too, results reach the text, and the disguise of text
from outside (`marking.py`) does not change what the template does. Every manner and every known syntax is tried; the reason of the
attempt that came furthest is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Literal, TypeVar

from toolhone.dialects.bare_json import BareJson
from toolhone.dialects.base import Syntax
from toolhone.dialects.markup import TemplateMarkup
from toolhone.dialects.native import PROBE_TOOLS, Manner, NativeDialect
from toolhone.dialects.tool_call_tags import ToolCallTags
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, ToolCall
from toolhone.tokenizer import TextTokenizer

T = TypeVar("T")

SYNTAXES: tuple[Syntax, ...] = (ToolCallTags(), BareJson())
"""The native call syntaxes that can be read."""

WAY_OUT = "pass model.dialect=json (or calls, tagged), which asks nothing of the template but plain turns"

_ARGUMENTS: tuple[Literal["mapping", "string"], ...] = ("mapping", "string")
_EMPTY: tuple[Literal["text", "null"], ...] = ("text", "null")
_ASK = Message("user", "Question with <b>marks</b> and [brackets]?")
_NESTED: dict[str, Json] = {
    "options": {
        "text": 'He said "no"\n\tand \\left, ünï, 漢字 🙂 </b> [x]',
        "list": [1, -2.5, True, False, None, [], {}],
        "": {"a": {"b": "c"}},
    }
}
_ONE = Message("assistant", tool_calls=(ToolCall("look_up7", {"query": "tea in Łódź"}),))
_DEEP = Message("assistant", tool_calls=(ToolCall("book_seat7", _NESTED),))
_NONE = Message("assistant", tool_calls=(ToolCall("look_up7", {}),))
_RESULT = Message("tool", "result-Sentinel8 <b> [1]")
_ANSWER = Message("assistant", "The answer is <b>4</b> [sic].")
_THOUGHT = Message("assistant", "So it is.", "thought-Sentinel9")


class _FaultError(Exception):
    """Why an attempt failed, and how far it came."""

    def __init__(self, stage: int, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason


def prove_native(tokenizer: TextTokenizer) -> NativeDialect:
    """The native dialect of this tokenizer's template, proved. `DialectError` that says what the template does wrong, else."""
    if not tokenizer.wrapped.chat_template:
        raise DialectError(f"the model is without a usable template (its tokenizer has no chat template); {WAY_OUT}")
    markup = TemplateMarkup(tokenizer)
    faults: list[_FaultError] = []
    for syntax, arguments, empty in product(SYNTAXES, _ARGUMENTS, _EMPTY):
        try:
            return _with_reasoning(tokenizer, _prove(tokenizer, markup, syntax, Manner(arguments, empty)))
        except _FaultError as fault:
            faults.append(fault)
    furthest = max(faults, key=lambda fault: fault.stage)
    raise DialectError(f"the model is without a usable template: it {furthest.reason}; {WAY_OUT}")


def _prove(tokenizer: TextTokenizer, markup: TemplateMarkup, syntax: Syntax, manner: Manner) -> NativeDialect:
    dialect = _step(1, "cannot write a call", lambda: NativeDialect(tokenizer, markup, syntax, manner))
    prompt = _step(2, "refuses tools", lambda: _text(dialect, [_ASK], True))
    if not all(tool.name in prompt for tool in PROBE_TOOLS):
        raise _FaultError(9, "does not show the tools to the model")
    bare, called = _text(dialect, [_ASK, _ANSWER], False), _text(dialect, [_ASK, _ONE], False)
    if called.count("look_up7") <= bare.count("look_up7") or "Łódź" not in called:
        raise _FaultError(3, "drops the calls")
    for message in (_ONE, _DEEP, _NONE, _ANSWER):
        _step(4, f"writes {_kind(message)} that cannot be read back", partial(_render, dialect, [_ASK, message]))
    whole = [Message("system", "Be <b>brief</b> [ok]."), _ASK, _ONE, _RESULT, _ANSWER]
    if "Sentinel8" not in _step(5, "refuses results of tools", lambda: _text(dialect, whole, False)):
        raise _FaultError(6, "does not show the results of tools")
    _step(7, "cannot be taken apart into turns", lambda: _render(dialect, whole))
    if _undisguised(dialect, whole) != _text(dialect, whole, False):
        raise _FaultError(8, "changes text that holds brackets")
    return dialect


def _kind(message: Message) -> str:
    return "calls" if message.tool_calls else "answers"


def _step(stage: int, reason: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except DialectError as error:
        raise _FaultError(stage, f"{reason} ({error})") from None


def _with_reasoning(tokenizer: TextTokenizer, dialect: NativeDialect) -> NativeDialect:
    """The same dialect, with the template's own field for reasoning where it has one that works."""
    other = NativeDialect(tokenizer, dialect.markup, dialect.syntax, replace(dialect.manner, reasoning=True))
    try:
        _render(other, [_ASK, _THOUGHT])
    except DialectError:
        return dialect
    return other


def _text(dialect: NativeDialect, messages: Sequence[Message], header: bool) -> str:
    return dialect.marks.plain(dialect.markup.write(dialect.chat(messages), dialect.tools(PROBE_TOOLS), header))


def _undisguised(dialect: NativeDialect, messages: Sequence[Message]) -> str:
    """The same text rendered from messages and tools as they are."""
    chat = [dialect.marks.plain_value(message) for message in dialect.chat(messages)]
    return dialect.markup.write(chat, dialect.marks.plain_value(dialect.tools(PROBE_TOOLS)), False)


def _render(dialect: NativeDialect, messages: Sequence[Message]) -> None:
    dialect.render(Conversation(tuple(messages), PROBE_TOOLS))
