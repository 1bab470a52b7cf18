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
from toolhone.dialects.habits import SENTINEL
from toolhone.dialects.marking import Marks
from toolhone.dialects.markup import TemplateMarkup
from toolhone.dialects.native import PROBE_TOOLS, ChatWriter, Manner, NativeDialect
from toolhone.dialects.tool_call_tags import ToolCallTags
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, ToolCall
from toolhone.tokenizer import TextTokenizer

T = TypeVar("T")

SYNTAXES: tuple[Syntax, ...] = (ToolCallTags(), BareJson())
"""The native call syntaxes that can be read."""

WAY_OUT = "pass model.dialect=json (or calls, tagged), which asks nothing of a template but plain turns"

_ARGUMENTS: tuple[Literal["mapping", "string"], ...] = ("mapping", "string")
_EMPTY: tuple[Literal["text", "absent"], ...] = ("text", "absent")
_TEXT = 'He said "no"\n\tand \\left, ünï, 漢字 🙂 </b> [x]'
_NESTED: Json = {"text": _TEXT, "list": [1, -2.5, True, False, None, [], {}], "deep": {"a": {"b": "c"}}}
_ASK = Message("user", "Question with <b>marks</b> and [brackets]?")
_ONE = Message("assistant", tool_calls=(ToolCall("look_up7", {"query": f"tea in Łódź {SENTINEL}"}),))
_DEEP = Message("assistant", tool_calls=(ToolCall("book_seat7", {"options": _NESTED}),))
_NONE = Message("assistant", tool_calls=(ToolCall("look_up7", {}),))
_RESULT = Message("tool", "result-Sentinel8 <b> [1]")
_ANSWER = Message("assistant", "The answer is <b>4</b> [sic].")
_THOUGHT = Message("assistant", "So it is.", "thought-Sentinel9")
_WHOLE = (Message("system", "Be <b>brief</b> [ok]."), _ASK, _ONE, _RESULT, _ANSWER)


class _FaultError(Exception):
    """Why an attempt failed, and how far it came."""

    def __init__(self, stage: int, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason


def prove_native(tokenizer: TextTokenizer) -> NativeDialect:
    """The native dialect of this tokenizer's template, proved; else `DialectError` that says what the template does wrong."""
    if not tokenizer.wrapped.chat_template:
        raise DialectError(f"the model is without a usable template: its tokenizer has no chat template; {WAY_OUT}")
    faults: list[_FaultError] = []
    for thinking, arguments, empty in product((True, False), _ARGUMENTS, _EMPTY):
        markup = TemplateMarkup(tokenizer, thinking)
        writer = ChatWriter(Marks(tokenizer.control_texts, tokenizer.folds), Manner(arguments, empty))
        try:
            _check_shown(markup, writer)
        except _FaultError as fault:
            faults.append(fault)
            continue
        for syntax in SYNTAXES:
            try:
                return _with_reasoning(tokenizer, _prove(tokenizer, markup, syntax, writer))
            except _FaultError as fault:
                faults.append(fault)
    furthest = max(faults, key=lambda fault: fault.stage)
    raise DialectError(f"the model is without a usable template: it {furthest.reason}; {WAY_OUT}")


def _check_shown(markup: TemplateMarkup, writer: ChatWriter) -> None:
    """The first part of the proof, on texts alone: tools, calls and results are shown, and the disguise changes nothing."""
    prompt = _step(1, "refuses tools", lambda: _text(markup, writer, [_ASK], True))
    if not all(tool.name in prompt for tool in PROBE_TOOLS):
        raise _FaultError(9, "does not show the tools to the model")
    called = _step(2, "refuses calls", lambda: _text(markup, writer, [_ASK, _ONE], False))
    if called.count("look_up7") <= prompt.count("look_up7") or SENTINEL not in called:
        raise _FaultError(3, "drops the calls")
    if "Sentinel8" not in _step(4, "refuses results of tools", lambda: _text(markup, writer, _WHOLE, False)):
        raise _FaultError(5, "does not show the results of tools")
    chat = [writer.marks.plain_value(message) for message in writer.chat(_WHOLE)]
    if markup.write(chat, writer.marks.plain_value(writer.tools(PROBE_TOOLS)), False) != _text(markup, writer, _WHOLE, False):
        raise _FaultError(6, "treats text that holds brackets in another way")


def _prove(tokenizer: TextTokenizer, markup: TemplateMarkup, syntax: Syntax, writer: ChatWriter) -> NativeDialect:
    """The second part of the proof: with this syntax, what is rendered is read back, turn by turn."""
    dialect = _step(7, "does not end its turns", lambda: NativeDialect(tokenizer, markup, syntax, writer))
    for message in (_ANSWER, _ONE, _DEEP, _NONE):
        form = f"writes {'calls' if message.tool_calls else 'answers'} that cannot be read back"
        _step(8, form, partial(_render, dialect, [_ASK, message]))
    _step(9, "cannot be taken apart into turns", lambda: _render(dialect, _WHOLE))
    return dialect


def _step(stage: int, reason: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except DialectError as error:
        raise _FaultError(stage, f"{reason} ({error})") from None


def _with_reasoning(tokenizer: TextTokenizer, dialect: NativeDialect) -> NativeDialect:
    """The same dialect, with the template's own field for reasoning where it has one that works."""
    writer = ChatWriter(dialect.marks, replace(dialect.manner, reasoning=True))
    other = NativeDialect(tokenizer, dialect.markup, dialect.syntax, writer)
    try:
        _render(other, [_ASK, _THOUGHT])
    except DialectError:
        return dialect
    return other


def _text(markup: TemplateMarkup, writer: ChatWriter, messages: Sequence[Message], header: bool) -> str:
    return writer.marks.plain(markup.write(writer.chat(messages), writer.tools(PROBE_TOOLS), header))


def _render(dialect: NativeDialect, messages: Sequence[Message]) -> None:
    dialect.render(Conversation(tuple(messages), PROBE_TOOLS))
