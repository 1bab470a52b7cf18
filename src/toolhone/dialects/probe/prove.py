"""Prove that a model's own chat template can be used: `prove_template`.

A template is accepted only when tools, calls, answers and results reach the text, when calls and
answers come back from it as they went in, and when the disguise of text from outside changes
nothing. All quirks are tried, with known syntaxes and with derived ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Literal

from toolhone.dialects.base import Dialect, History, ParsedReply, Syntax
from toolhone.dialects.chat_template.dialect import (
    REASONING_FIELDS,
    SENTINEL,
    ChatTemplateDialect,
    find_behaviour,
)
from toolhone.dialects.chat_template.sanitise import (
    ChatWriter,
    CheckedMarkup,
    ControlTokenGuard,
    Markup,
    TemplateMarkup,
    TemplateQuirks,
)
from toolhone.dialects.chat_template.turns import TemplateBehaviour, Turns, without_stop
from toolhone.dialects.probe.derive import FIRST, OTHER, PROBE_TOOLS, TOOL, derive
from toolhone.dialects.probe.facts import template_kwargs
from toolhone.dialects.syntax.delimited import DelimitedSyntax
from toolhone.dialects.syntax.json_objects import BareJson
from toolhone.dialects.syntax.model_text import read_after_reasoning
from toolhone.dialects.syntax.tagged import ToolCallTags
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.tokenizer import TextTokenizer

SYNTAXES: tuple[Syntax, ...] = (ToolCallTags(), BareJson())
"""The native call syntaxes that are known; all others are derived."""

REMEDY = (
    "pass model.dialect=json (or calls, tagged), which asks nothing of a template but plain turns"
)
_ARGUMENTS: tuple[Literal["mapping", "string"], ...] = ("mapping", "string")
_EMPTY: tuple[Literal["text", "absent"], ...] = ("text", "absent")
_TEXT = 'He said "no"\n\tand \\left, ünï, 漢字 🙂 </b> [x]'
_NESTED: Json = {
    "text": _TEXT,
    "list": [1, -2.5, True, False, None, [], {}],
    "deep": {"a": {"b": "c"}},
}
_LONG = " And Then? \u00fc" * 30


def _calling(name: str, arguments: dict[str, Json]) -> Message:
    return Message("assistant", tool_calls=(ToolCall(name, arguments),))


_ASK = Message("user", f"Question with <b>marks</b> and [brackets]?{_LONG}")
_ONE = _calling(TOOL, {FIRST: f"tea in Łódź {SENTINEL}"})
_RESULT = Message("tool", f"result-Sentinel8 <b> [1]{_LONG}")
_ANSWER = Message("assistant", "The answer is <b>4</b> [sic].")
_THOUGHT = Message("assistant", "So it is.", "thought-Sentinel9")
_WHOLE = (_ASK, _ONE, _RESULT, _ANSWER)
_LONGER = (*_WHOLE, Message("user", "And then?"), _ONE, _RESULT, _ANSWER)
_CALLED = (Message("user", "question"), _calling(TOOL, {FIRST: SENTINEL}))
_READ_BACK = (
    _ANSWER,
    _ONE,
    _calling(TOOL, {}),
    _calling(TOOL, {FIRST: _TEXT}),
    _calling(OTHER, {"options": _NESTED}),
)
_PLAIN_TOOLS = tuple(replace(tool, description="Does it.") for tool in PROBE_TOOLS)


class _FaultError(Exception):
    """Why an attempt failed, and how far it came."""

    def __init__(self, stage: int, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage


@contextmanager
def _stage(number: int, reason: str) -> Iterator[None]:
    """Turn a refusal into the fault of this stage."""
    try:
        yield
    except DialectError as error:
        raise _FaultError(number, f"{reason} ({error})") from None


@dataclass(frozen=True)
class _Proof:
    """One way to pass conversations to the template."""

    markup: Markup
    writer: ChatWriter
    tools: tuple[Tool, ...] = PROBE_TOOLS

    def write(self, messages: Sequence[Message], header: bool = False) -> str:
        """The text as the model sees it."""
        chat, tools = self.writer.chat(messages), self.writer.tools(self.tools)
        return str(self.writer.guard.reveal(self.markup.write(chat, tools, header)))

    def ignores_disguise(self) -> bool:
        """Whether the template writes disguised texts as it writes plain ones."""
        reveal = self.writer.guard.reveal
        chat, tools = self.writer.chat(_WHOLE), self.writer.tools(self.tools)
        return self.markup.write(reveal(chat), reveal(tools), False) == self.write(_WHOLE)


def prove_template(
    tokenizer: TextTokenizer, kwargs: Mapping[str, Json] | None = None, keep_history: bool = False
) -> ChatTemplateDialect:
    """Return the proved dialect of this tokenizer's template.

    `DialectError` says what the template does wrong. kwargs: keywords for the template; None tries
    those that it knows. keep_history: earlier turns stay as they were generated.
    """
    template = tokenizer.wrapped.chat_template
    if not template:
        raise DialectError(
            f"the model is without a usable template: its tokenizer has no chat template; {REMEDY}"
        )
    tried = [kwargs]
    if kwargs is None:
        off = [{name: value} for name, value in template_kwargs(str(template)) if value is False]
        tried = [{}, *off]
    faults: list[_FaultError] = []
    guard = ControlTokenGuard(tokenizer.control_texts, tokenizer.folds)
    for each, arguments, empty in product(tried, _ARGUMENTS, _EMPTY):
        writer = ChatWriter(guard, TemplateQuirks(arguments, empty))
        try:
            dialect = _try_syntaxes(
                _check_shown(TemplateMarkup(tokenizer, each), writer), tokenizer
            )
            with _stage(9, "changes a conversation that goes on"):
                return _with_history(dialect, keep_history)
        except _FaultError as fault:
            faults.append(fault)
    furthest = max(faults, key=lambda fault: fault.stage)
    raise DialectError(f"the model is without a usable template: it {furthest}; {REMEDY}")


def _check_shown(markup: TemplateMarkup, writer: ChatWriter) -> _Proof:
    """Check on texts alone that tools, calls and results are shown, and that the disguise is safe.

    A template that escapes brackets in tools is used with a check of every text.
    """
    attempt = _Proof(markup, writer)
    with _stage(1, "refuses tools"):
        prompt = attempt.write([_ASK], header=True)
    if not all(tool.name in prompt for tool in attempt.tools):
        raise _FaultError(9, "does not show the tools to the model")
    with _stage(2, "refuses calls"):
        called = attempt.write([_ASK, _ONE])
    if called.count(TOOL) <= prompt.count(TOOL) or SENTINEL not in called:
        raise _FaultError(3, "drops the calls")
    with _stage(4, "refuses results of tools"):
        answered = attempt.write(_WHOLE)
    if "Sentinel8" not in answered:
        raise _FaultError(5, "does not show the results of tools")
    if attempt.ignores_disguise():
        return attempt
    if not replace(attempt, tools=_PLAIN_TOOLS).ignores_disguise():
        raise _FaultError(6, "treats text that holds brackets in another way")
    return _Proof(CheckedMarkup(markup, writer.guard), writer, _PLAIN_TOOLS)


def _try_syntaxes(attempt: _Proof, tokenizer: TextTokenizer) -> ChatTemplateDialect:
    """The dialect with the first syntax that reads what the template writes."""
    writer = attempt.writer
    called = writer.guard.reveal(writer.chat(_CALLED))
    with _stage(7, "does not end its turns"):
        behaviour = find_behaviour(attempt.markup, tokenizer, called, writer.tools(attempt.tools))
    faults: list[_FaultError] = []
    for syntax in _syntaxes(attempt, behaviour):
        dialect = ChatTemplateDialect(attempt.markup, behaviour, syntax, writer)
        try:
            for message in _READ_BACK:
                what = "calls" if message.tool_calls else "answers"
                with _stage(8, f"writes {what} that cannot be read back"):
                    dialect.render(Conversation((_ASK, message), attempt.tools))
            with _stage(9, "cannot be taken apart into turns"):
                dialect.render(Conversation(_WHOLE, attempt.tools))
        except _FaultError as fault:
            faults.append(fault)
        else:
            return _with_reasoning(dialect, attempt.tools)
    raise max(faults, key=lambda fault: fault.stage)


def _syntaxes(attempt: _Proof, behaviour: TemplateBehaviour) -> Iterator[Syntax]:
    """The known syntaxes, then those that could have made the template's own texts."""
    yield from SYNTAXES
    yield from derive(partial(_write_calls, attempt, behaviour), behaviour.lead)


def _write_calls(
    attempt: _Proof, behaviour: TemplateBehaviour, calls: Sequence[ToolCall]
) -> str | None:
    """The text of a turn with these calls, without end mark and reasoning; None for a refusal."""
    writer = attempt.writer
    chat = writer.chat([Message("user", "question"), Message("assistant", tool_calls=tuple(calls))])
    try:
        turns = Turns(attempt.markup, writer.guard, behaviour)
        turn = turns.turn(chat, writer.tools(attempt.tools), 1)
    except DialectError:
        return None
    text = behaviour.open_thought(without_stop(writer.guard.reveal(turn.text), behaviour.stop))
    return read_after_reasoning(text, ParsedReply, behaviour.thought).content


def _with_reasoning(dialect: ChatTemplateDialect, tools: tuple[Tool, ...]) -> ChatTemplateDialect:
    """The same dialect with the template's own field for reasoning, where it has one that works."""
    call = replace(_ONE, reasoning=_THOUGHT.reasoning)
    for calls_only, field in product((False, True), REASONING_FIELDS):
        quirks = replace(dialect.writer.quirks, reasoning=field, beside_calls_only=calls_only)
        writer = replace(dialect.writer, quirks=quirks)
        other = ChatTemplateDialect(dialect.markup, dialect.behaviour, dialect.syntax, writer)
        try:
            for message in (call,) if calls_only else (call, _THOUGHT):
                other.render(Conversation((_ASK, message), tools))
        except DialectError:
            continue
        return other
    return dialect


def _with_history(dialect: ChatTemplateDialect, keep_history: bool) -> ChatTemplateDialect:
    """The same dialect, which knows whether its template rewrites earlier turns."""
    thinking = [
        replace(message, reasoning="So.") if message.role == "assistant" else message
        for message in _LONGER
    ]
    messages = tuple(thinking) if dialect.writer.quirks.reasoning else _LONGER
    try:
        lists = dialect.render(Conversation(messages, _PLAIN_TOOLS))
    except DialectError:
        lists = dialect.render(Conversation(_LONGER, _PLAIN_TOOLS))
    writer = dialect.writer
    result = ChatTemplateDialect(
        dialect.markup, dialect.behaviour, dialect.syntax, writer, keep_history
    )
    if len(lists) < 2:
        result.history = History.APPENDED
    return result


_CITY = {"type": "string", "enum": ["choice7", "other7"], "description": "parameter-text7"}
_NUMBER = {"type": "integer", "description": "n"}
_LIMIT_TOOLS = tuple(
    Tool(name, text, {"type": "object", "properties": properties})
    for name, text, properties in (
        ("first_tool7", "tool-text7", {"parameter7": _CITY}),
        ("second_tool7", "more-text7", {"number7": _NUMBER}),
        ("third_tool7", "last-text7", {"number7": _NUMBER}),
    )
)
_SYSTEM, _QUESTION = Message("system", "Be Brief."), Message("user", "What is There?")
_AGAIN, _REPLY = Message("user", "And Here?"), Message("assistant", "It is There.")
_CALL = ToolCall("first_tool7", {"parameter7": "choice7"})
_ONE_CALL = Message("assistant", None, None, (_CALL,))
_TWO = Message("assistant", None, None, (_CALL, ToolCall("second_tool7", {"number7": 7})))
_FIRST_RESULT, _SECOND_RESULT = (
    Message("tool", "first Result"),
    Message("tool", '{"second": "Result"}'),
)
_WITH_CALL = (_QUESTION, _ONE_CALL, _FIRST_RESULT, _REPLY)
_BESIDE = Message("assistant", "I look.", None, (_CALL,))
_THINKING = Message("assistant", None, "Let me think.", (_CALL,))
_CONVERSATIONS: Mapping[str, Sequence[Message]] = {
    "a system message": (_SYSTEM, _QUESTION, _REPLY),
    "a system message in a talk with calls": (_SYSTEM, *_WITH_CALL),
    "several calls in one turn": (_QUESTION, _TWO, _FIRST_RESULT, _SECOND_RESULT, _REPLY),
    "text beside a call": (_QUESTION, _BESIDE, _FIRST_RESULT, _REPLY),
    "two messages of the user in a row": (_QUESTION, _AGAIN, _REPLY),
    "a second question after a call": (*_WITH_CALL, _AGAIN, _ONE_CALL, _FIRST_RESULT, _REPLY),
    "reasoning before an answer": (
        _QUESTION,
        Message("assistant", "It is There.", "Let me think."),
    ),
    "reasoning before a call": (_QUESTION, _THINKING, _FIRST_RESULT, _REPLY),
}
_HISTORY_LIMITS = {
    History.TEMPLATE: ["the template rewrites earlier turns: each turn is a row of its own"],
    History.KEPT: [
        "the template would rewrite earlier turns and is not asked: a server that uses it shows "
        "the model other ones"
    ],
}
_TOOL_PARTS = {
    "descriptions of tools": "tool-text7",
    "names of parameters": "parameter7",
    "descriptions of parameters": "parameter-text7",
    "choices of parameters": "choice7",
}


def find_limits(dialect: Dialect) -> list[str]:
    """Return what this dialect cannot do, in words.

    Conversations of every kind that data may hold are rendered with all checks; a refusal is a
    limit. So is each part of a tool's definition that never reaches the prompt.
    """
    limits = list(_HISTORY_LIMITS.get(dialect.history, ()))
    for kind, messages in _CONVERSATIONS.items():
        try:
            dialect.render(Conversation(tuple(messages), _LIMIT_TOOLS))
            for index, message in enumerate(messages):
                if message.role == "assistant":
                    dialect.prompt(messages[:index], _LIMIT_TOOLS)
        except DialectError:
            limits.append(f"{kind} cannot be written: training stops at such rows")
    try:
        text = "".join(span.text for span in dialect.prompt([_QUESTION], _LIMIT_TOOLS))
    except DialectError:
        limits.append("tools cannot be shown without a system message")
    else:
        lost = [part for part, word in _TOOL_PARTS.items() if word not in text]
        limits += [f"{part} do not reach the prompt" for part in lost]
    if isinstance(dialect, ChatTemplateDialect):
        limits += _template_limits(dialect)
    return limits


def _template_limits(dialect: ChatTemplateDialect) -> Iterator[str]:
    """Limits of using the model's own template."""
    if borrowed := dialect.behaviour.borrowed:
        marks = " or ".join(dict.fromkeys(borrowed))
        yield f"the template ends no turn: {marks} of the next message ends it"
    if isinstance(dialect.markup, TemplateMarkup) and dialect.markup.template_kwargs:
        yield f"the template is used with {json.dumps(dialect.markup.template_kwargs)}"
    if isinstance(dialect.markup, CheckedMarkup):
        yield (
            "the template escapes <, > and & in texts of tools: training stops at rows with such "
            "texts"
        )
    if isinstance(dialect.syntax, DelimitedSyntax) and hasattr(dialect.syntax.body, "typed"):
        yield "arguments are written without their types: the tool's schema says what they are"
