"""The proof that a model's own chat template can be used: `prove_template`.

A template is accepted only when, with this tokenizer, the tools' names reach the prompt, calls come back from the rendered text
as they went in (nested arguments, quotes, other scripts), answers come back too, results reach the text, and the disguise of text
from outside (`marking.py`) does not change what the template does. Every manner is tried, with the syntaxes that are known and then
with those that `derive` finds in the template's own writing; the reason of the attempt that came furthest is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Literal, TypeVar

from toolhone.dialects.base import ParsedReply, Syntax
from toolhone.dialects.chat_template.behaviour import REASONING_FIELDS, SENTINEL, find_behaviour
from toolhone.dialects.chat_template.markup import CheckedMarkup, TemplateMarkup
from toolhone.dialects.chat_template.render import (
    CALLED,
    PROBE_TOOLS,
    ChatTemplateDialect,
    ChatWriter,
    TemplateQuirks,
)
from toolhone.dialects.chat_template.sanitise import ControlTokenGuard
from toolhone.dialects.chat_template.template_kwargs import template_kwargs
from toolhone.dialects.chat_template.turns import Markup, TemplateBehaviour, Turns, without_stop
from toolhone.dialects.probe.derive import FIRST, OTHER, TOOL, derive
from toolhone.dialects.syntax.bare_json import BareJson
from toolhone.dialects.syntax.model_text import read_after_reasoning
from toolhone.dialects.syntax.tagged import ToolCallTags
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.tokenizer import TextTokenizer

T = TypeVar("T")

SYNTAXES: tuple[Syntax, ...] = (ToolCallTags(), BareJson())
"""The native call syntaxes that are known; all others are derived."""

WAY_OUT = (
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
_ASK = Message("user", f"Question with <b>marks</b> and [brackets]?{_LONG}")
_ONE = Message("assistant", tool_calls=(ToolCall(TOOL, {FIRST: f"tea in Łódź {SENTINEL}"}),))
_TEXTS = Message("assistant", tool_calls=(ToolCall(TOOL, {FIRST: _TEXT}),))
_DEEP = Message("assistant", tool_calls=(ToolCall(OTHER, {"options": _NESTED}),))
_NONE = Message("assistant", tool_calls=(ToolCall(TOOL, {}),))
_RESULT = Message("tool", f"result-Sentinel8 <b> [1]{_LONG}")
_ANSWER = Message("assistant", "The answer is <b>4</b> [sic].")
_THOUGHT = Message("assistant", "So it is.", "thought-Sentinel9")
_TALK = (_ASK, _ONE, _RESULT, _ANSWER, Message("user", "And then?"), _ONE, _RESULT, _ANSWER)
_WHOLE = (_ASK, _ONE, _RESULT, _ANSWER)


class _FaultError(Exception):
    """Why an attempt failed, and how far it came."""

    def __init__(self, stage: int, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason


@dataclass(frozen=True)
class _Attempt:
    """One way to hand things to the template."""

    tokenizer: TextTokenizer
    markup: Markup
    writer: ChatWriter
    tools: tuple[Tool, ...]

    @property
    def template(self) -> TemplateMarkup:
        assert isinstance(self.markup, TemplateMarkup)
        return self.markup


def prove_template(
    tokenizer: TextTokenizer, switches: Mapping[str, Json] | None = None, kept: bool = False
) -> ChatTemplateDialect:
    """The native dialect of this tokenizer's template, proved; else `DialectError` that says what the template does wrong.

    switches: keywords for the template, when they are not to be found out by trying. kept: whether earlier turns stay as they were
    said where the template would rewrite them.
    """
    if not tokenizer.wrapped.chat_template:
        raise DialectError(
            f"the model is without a usable template: its tokenizer has no chat template; {WAY_OUT}"
        )
    faults: list[_FaultError] = []
    marks = ControlTokenGuard(tokenizer.control_texts, tokenizer.folds)
    for wanted, arguments, empty in product(_settings(tokenizer, switches), _ARGUMENTS, _EMPTY):
        markup = TemplateMarkup(tokenizer, wanted)
        try:
            dialect = _try(
                _Attempt(
                    tokenizer,
                    markup,
                    ChatWriter(marks, TemplateQuirks(arguments, empty)),
                    PROBE_TOOLS,
                )
            )
            return _step(
                9, "changes a conversation that goes on", partial(_with_history, dialect, kept)
            )
        except _FaultError as fault:
            faults.append(fault)
    furthest = max(faults, key=lambda fault: fault.stage)
    raise DialectError(f"the model is without a usable template: it {furthest.reason}; {WAY_OUT}")


def _settings(
    tokenizer: TextTokenizer, switches: Mapping[str, Json] | None
) -> list[Mapping[str, Json]]:
    """The keywords to try, the template's own defaults first."""
    if switches is not None:
        return [switches]
    return [
        {},
        *(
            {name: value}
            for name, value in template_kwargs(str(tokenizer.wrapped.chat_template))
            if value is False
        ),
    ]


def _try(attempt: _Attempt) -> ChatTemplateDialect:
    """The dialect of one way to hand things to the template. `_FaultError` when it does not work."""
    attempt = _check_shown(attempt)
    tools = attempt.writer.tools(attempt.tools)
    called = [attempt.writer.marks.plain_value(message) for message in attempt.writer.chat(CALLED)]
    habits = _step(
        7,
        "does not end its turns",
        lambda: find_behaviour(attempt.markup, attempt.tokenizer, called, tools),
    )
    faults: list[_FaultError] = []
    for syntax in _syntaxes(attempt, habits):
        try:
            return _with_reasoning(attempt, _prove(attempt, habits, syntax))
        except _FaultError as fault:
            faults.append(fault)
    raise max(faults, key=lambda fault: fault.stage)


def _check_shown(attempt: _Attempt) -> _Attempt:
    """The first part of the proof, on texts alone: tools, calls and results are shown, and the disguise changes nothing.

    A template that writes brackets in tools in another way (escaped, for instance) is used with a check of every text.
    """
    prompt = _step(1, "refuses tools", lambda: _text(attempt, [_ASK], True))
    if not all(tool.name in prompt for tool in attempt.tools):
        raise _FaultError(9, "does not show the tools to the model")
    called = _step(2, "refuses calls", lambda: _text(attempt, [_ASK, _ONE], False))
    if called.count(TOOL) <= prompt.count(TOOL) or SENTINEL not in called:
        raise _FaultError(3, "drops the calls")
    if "Sentinel8" not in _step(
        4, "refuses results of tools", lambda: _text(attempt, _WHOLE, False)
    ):
        raise _FaultError(5, "does not show the results of tools")
    if _same_when_plain(attempt):
        return attempt
    plain = replace(
        attempt, tools=tuple(replace(tool, description="Does it.") for tool in PROBE_TOOLS)
    )
    if not _same_when_plain(plain):
        raise _FaultError(6, "treats text that holds brackets in another way")
    return replace(plain, markup=CheckedMarkup(plain.template, plain.writer.marks))


def _same_when_plain(attempt: _Attempt) -> bool:
    """Whether the template writes disguised texts as it writes plain ones."""
    marks = attempt.writer.marks
    chat, tools = attempt.writer.chat(_WHOLE), attempt.writer.tools(attempt.tools)
    plain = attempt.markup.write(
        [marks.plain_value(message) for message in chat], marks.plain_value(tools), False
    )
    return plain == marks.plain(attempt.markup.write(chat, tools, False))


def _syntaxes(attempt: _Attempt, habits: TemplateBehaviour) -> Iterator[Syntax]:
    """The known syntaxes, then those that could have made the template's own texts."""
    yield from SYNTAXES
    yield from derive(
        lambda calls: written_calls(attempt.markup, habits, attempt.writer, attempt.tools, calls),
        habits.lead,
    )


def written_calls(
    markup: Markup,
    habits: TemplateBehaviour,
    writer: ChatWriter,
    tools: Sequence[Tool],
    calls: Sequence[ToolCall],
) -> str | None:
    """The text of a turn with these calls, without end mark and reasoning; None where the template refuses it."""
    chat = writer.chat([Message("user", "question"), Message("assistant", tool_calls=tuple(calls))])
    try:
        turn = Turns(markup, writer.marks, habits).turn(chat, writer.tools(tools), 1)
    except DialectError:
        return None
    text = without_stop(writer.marks.plain(turn.text), habits.stop)
    if habits.opens_thought and not text.lstrip().startswith(habits.thought.open):
        text = habits.thought.open + text
    return read_after_reasoning(text, ParsedReply, habits.thought).content


def _prove(attempt: _Attempt, habits: TemplateBehaviour, syntax: Syntax) -> ChatTemplateDialect:
    """The second part of the proof: with this syntax, what is rendered is read back, turn by turn."""
    dialect = ChatTemplateDialect(attempt.markup, habits, syntax, attempt.writer)
    for message in (_ANSWER, _ONE, _NONE, _TEXTS, _DEEP):
        form = f"writes {'calls' if message.tool_calls else 'answers'} that cannot be read back"
        _step(8, form, partial(_render, dialect, [_ASK, message], attempt.tools))
    _step(9, "cannot be taken apart into turns", lambda: _render(dialect, _WHOLE, attempt.tools))
    return dialect


def _step(stage: int, reason: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except DialectError as error:
        raise _FaultError(stage, f"{reason} ({error})") from None


def _with_reasoning(attempt: _Attempt, dialect: ChatTemplateDialect) -> ChatTemplateDialect:
    """The same dialect, with the template's own field for reasoning where it has one that works."""
    for only, field in product((False, True), REASONING_FIELDS):
        writer = ChatWriter(
            dialect.marks, replace(dialect.manner, reasoning=field, beside_calls_only=only)
        )
        other = ChatTemplateDialect(dialect.markup, dialect.behaviour, dialect.syntax, writer)
        try:
            _render(other, [_ASK, replace(_ONE, reasoning=_THOUGHT.reasoning)], attempt.tools)
            if not only:
                _render(other, [_ASK, _THOUGHT], attempt.tools)
        except DialectError:
            continue
        return other
    return dialect


def _with_history(dialect: ChatTemplateDialect, kept: bool) -> ChatTemplateDialect:
    """The dialect, knowing whether its template rewrites earlier turns, with reasoning where it has a field for that."""
    said = [
        replace(message, reasoning="So.") if message.role == "assistant" else message
        for message in _TALK
    ]
    talk = said if dialect.manner.reasoning else _TALK
    tools = tuple(replace(tool, description="Does it.") for tool in PROBE_TOOLS)
    try:
        return dialect.with_history(kept, Conversation(tuple(talk), tools))
    except DialectError:
        return dialect.with_history(kept, Conversation(_TALK, tools))


def _text(attempt: _Attempt, messages: Sequence[Message], header: bool) -> str:
    writer = attempt.writer
    return writer.marks.plain(
        attempt.markup.write(writer.chat(messages), writer.tools(attempt.tools), header)
    )


def _render(
    dialect: ChatTemplateDialect, messages: Sequence[Message], tools: Sequence[Tool]
) -> None:
    dialect.render(Conversation(tuple(messages), tuple(tools)))
