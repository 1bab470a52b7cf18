"""Prove that a chat template can be used (`prove_template`).

A template is accepted only when tools, calls, answers and results reach the text, when calls and
answers come back from it as they went in, and when the disguise of text from outside changes
nothing. All quirks are tried, with known syntaxes and with derived ones. `find_limits` then finds
what a dialect cannot write.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, product

from toolhone.dialects.chat_template.dialect import (
    REASONING_FIELDS,
    SENTINEL,
    ChatTemplateDialect,
    MarkupDialect,
    find_behaviour,
    leaves_open,
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
from toolhone.dialects.interface import Dialect, History, ParsedReply, Syntax
from toolhone.dialects.probe.derive import FIRST, OTHER, PROBE_TOOLS, TOOL, derive
from toolhone.dialects.probe.schema_words import PROBES, hidden_words, schema_words
from toolhone.dialects.syntax.delimited import DelimitedSyntax
from toolhone.dialects.syntax.model_text import ToolCallTags, read_after_reasoning
from toolhone.dialects.syntax.unmarked import BareJson
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.tokenizer import TextTokenizer


def describe(dialect: Dialect) -> dict[str, Json]:
    """Return all that decides how this dialect writes and reads, with the keys of the file."""
    assert isinstance(dialect, MarkupDialect)
    syntax, markup = dialect.syntax, dialect.markup
    result: dict[str, Json] = {
        "name": dialect.name,
        "stop": list(dialect.stop),
        "markup": markup.name,
        "syntax": syntax.name,
        "history": dialect.history.value,
        "habits": {k: v for k, v in asdict(dialect.behaviour).items() if k != "opened" or v},
    }
    if isinstance(markup, TemplateMarkup):
        result |= {"template_sha256": markup.hash, "switches": markup.template_kwargs}
    if isinstance(dialect, ChatTemplateDialect):
        quirks = dialect.writer.quirks
        result |= {
            "arguments": quirks.arguments,
            "empty_content": quirks.empty,
            "reasoning_field": quirks.reasoning is not None,
            **({"inline_refs": True} if quirks.inline_refs else {}),
            **({"ids": quirks.ids} if quirks.ids != "short" else {}),
            **({"described": True} if quirks.described else {}),
            **({"bare_tools": True} if quirks.bare_tools else {}),
            "form": asdict(syntax) if isinstance(syntax, DelimitedSyntax) else syntax.name,
        }
    return dict(json.loads(json.dumps(result)))


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _calling(name: str, arguments: dict[str, Json]) -> Message:
    return Message("assistant", tool_calls=(ToolCall(name, arguments),))


_HARD = 'He said "no"\n\tand \\left, ünï, 漢字 🙂 </b> [x]'
_DEEP: Json = {
    "text": _HARD,
    "list": [1, -2.5, True, False, None, [], {}],
    "deep": {"a": {"b": "c"}},
}
_LONG = " And Then? \u00fc" * 30
_ASK = Message("user", f"Question with <b>marks</b> and [brackets]?{_LONG}")
_CALL = _calling(TOOL, {FIRST: f"tea in Łódź {SENTINEL}"})
_ANSWERED = Message("tool", f"result-Sentinel8 <b> [1]{_LONG}")
_REPLY = Message("assistant", "The answer is <b>4</b> [sic].")
_THOUGHT = Message("assistant", "So it is.", "thought-Sentinel9")
_WHOLE = (_ASK, _CALL, _ANSWERED, _REPLY)
_MARKED = (_ASK, _calling(TOOL, {FIRST: f"a <b> {SENTINEL}"}))
_LONGER = (*_WHOLE, Message("user", "And then?"), _CALL, _ANSWERED, _REPLY)
_CALLED = (Message("user", "question"), _calling(TOOL, {FIRST: SENTINEL}))
_READ_BACK = (
    *(_REPLY, _CALL, _calling(TOOL, {})),
    *(_calling(TOOL, {FIRST: _HARD}), _calling(OTHER, {"options": _DEEP})),
)
_PLAIN_TOOLS = tuple(replace(tool, description="Does it.") for tool in PROBE_TOOLS)
_SYNTAXES: tuple[Syntax, ...] = (ToolCallTags(), BareJson())
"""The native call syntaxes that are known; all others are derived."""
_QUIRKS = (
    *(TemplateQuirks("mapping", "text"), TemplateQuirks("mapping", "absent")),
    *(TemplateQuirks("string", "text"), TemplateQuirks("string", "absent")),
    *(TemplateQuirks("mapping", "text", ids="named"), TemplateQuirks("string", ids="named")),
    *(TemplateQuirks(described=True), TemplateQuirks("string", bare_tools=True)),
)
_READING = 8
"""The stage of a proof in which turns are read back."""
_REMEDY = (
    "pass model.dialect=json (or calls, tagged), which asks nothing of a template but plain turns"
)


class _FaultError(Exception):
    """Why an attempt failed, and how far it came."""

    def __init__(self, stage: float, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage


@contextmanager
def _stage(number: float, reason: str) -> Iterator[None]:
    """Turn a refusal into the fault of this stage."""
    try:
        yield
    except DialectError as error:
        raise _FaultError(number, f"{reason} ({error})") from None


def prove_template(
    tokenizer: TextTokenizer,
    kwargs: Mapping[str, Json] | None = None,
    keep_history: bool = False,
    inline_refs: bool | None = None,
) -> ChatTemplateDialect:
    """Return the proved dialect of this tokenizer's template.

    `DialectError` says what the template does wrong. kwargs: keywords for the template; None tries
    those that it knows. keep_history: earlier turns stay as they were generated. inline_refs:
    schemas of tools are written without references; None: where the template loses these.
    """
    if not tokenizer.wrapped.chat_template:
        wrong = "the model is without a usable template: its tokenizer has no chat template"
        raise DialectError(f"{wrong}; {_REMEDY}")
    tried, cures = [kwargs], list[Mapping[str, Json]]()
    if kwargs is None:
        known = TemplateMarkup(tokenizer).known_kwargs()
        tried = [{}, *({name: value} for name, value in known if value is False)]
        cures = [{name: value} for name, value in known if value is True]
    faults: list[_FaultError] = []
    guard = ControlTokenGuard(tokenizer.control_texts, tokenizer.folds)
    attempts = chain(product((False, True), tried, _QUIRKS), product((False,), cures, _QUIRKS))
    for opened, each, quirks in attempts:
        if opened and all(fault.stage < _READING for fault in faults):
            continue
        try:
            proof = _Proof.of(TemplateMarkup(tokenizer, each), ChatWriter(guard, quirks))
            dialect = proof.find_dialect(tokenizer, opened)
            reference = next(word for word in schema_words() if word.name == "$ref")
            if inline_refs or (inline_refs is None and not reference.is_shown(dialect)):
                own = replace(dialect.writer.quirks, inline_refs=True)
                writer = replace(dialect.writer, quirks=own)
                syntax, behaviour = dialect.syntax, dialect.behaviour
                dialect = ChatTemplateDialect(dialect.markup, behaviour, syntax, writer)
            with _stage(9, "changes a conversation that goes on"):
                return _with_history(dialect, keep_history)
        except _FaultError as fault:
            faults.append(fault)
    furthest = max(faults, key=lambda fault: fault.stage)
    raise DialectError(f"the model is without a usable template: it {furthest}; {_REMEDY}")


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

    def ignores_disguise(self, messages: Sequence[Message]) -> bool:
        """Whether the template writes disguised texts as it writes plain ones."""
        reveal = self.writer.guard.reveal
        chat, tools = self.writer.chat(messages), self.writer.tools(self.tools)
        return self.markup.write(reveal(chat), reveal(tools), False) == self.write(messages)

    def write_calls(self, behaviour: TemplateBehaviour, calls: Sequence[ToolCall]) -> str | None:
        """A turn with these calls, without end mark and reasoning; None if it is refused."""
        turns = Turns(self.markup, self.writer.guard, behaviour)
        messages = [Message("user", "question"), Message("assistant", tool_calls=tuple(calls))]
        try:
            turn = turns.turn(self.writer.chat(messages), self.writer.tools(self.tools), 1)
        except DialectError:
            return None
        shown = without_stop(self.writer.guard.reveal(turn.text), behaviour.stop)
        if behaviour.trail:
            shown = shown.rstrip().removesuffix(behaviour.trail)
        text = behaviour.open_thought(shown)
        return read_after_reasoning(text, ParsedReply, behaviour.thought).content

    @staticmethod
    def of(markup: TemplateMarkup, writer: ChatWriter) -> _Proof:
        """Check on texts that tools, calls and results are shown, and that the disguise is safe.

        A template that escapes brackets in tools or arguments is used with a check of every text.
        """
        proof = _Proof(markup, writer)
        try:
            prompt = proof.write([_ASK], header=True)
        except DialectError as error:
            with _stage(1, "refuses a plain question"):
                replace(proof, tools=()).write([_ASK], header=True)
            raise _FaultError(1, f"refuses tools ({error})") from None
        if not all(tool.name in prompt for tool in proof.tools):
            with suppress(DialectError):
                prompt = proof.write([Message("system", "Be brief."), _ASK], header=True)
            shown = all(tool.name in prompt for tool in proof.tools)
            where = " without a system message" if shown else ""
            raise _FaultError(1.5, f"does not show the tools to the model{where}")
        with _stage(2, "refuses calls"):
            called = proof.write([_ASK, _CALL])
        if called.count(TOOL) <= prompt.count(TOOL) or SENTINEL not in called:
            with _stage(3, "drops the calls"):
                kept = SENTINEL in proof.write(_WHOLE[:3], header=True)
            what = "a turn of the assistant that nothing follows" if kept else "the calls"
            if SENTINEL in called:
                what = "the calls' names, or writes them in other letters"
            raise _FaultError(3, f"drops {what}")
        with _stage(4, "refuses results of tools"):
            answered = proof.write(_WHOLE)
        if "Sentinel8" not in answered:
            raise _FaultError(5, "does not show the results of tools")
        if proof.ignores_disguise(_WHOLE) and proof.ignores_disguise(_MARKED):
            return proof
        if not replace(proof, tools=_PLAIN_TOOLS).ignores_disguise(_WHOLE):
            raise _FaultError(6, "treats text that holds brackets in another way")
        return _Proof(CheckedMarkup(markup, writer.guard), writer, _PLAIN_TOOLS)

    def find_dialect(self, tokenizer: TextTokenizer, opened: bool) -> ChatTemplateDialect:
        """The dialect with the first syntax, known or derived, that reads the template's texts.

        opened: a thought that the header opens is written into turns which lack it.
        """
        writer = self.writer
        called = writer.guard.reveal(writer.chat(_CALLED))
        with _stage(7, "does not end its turns"):
            tools = writer.tools(self.tools)
            behaviour = find_behaviour(self.markup, tokenizer, called, tools, opened)
        faults: list[_FaultError] = []

        def syntaxes() -> Iterator[Syntax]:
            yield from _SYNTAXES
            yield from derive(partial(self.write_calls, behaviour), behaviour.lead)

        for syntax in syntaxes():
            dialect = ChatTemplateDialect(self.markup, behaviour, syntax, writer)
            try:
                for number, message in enumerate(_READ_BACK):
                    what = "calls" if message.tool_calls else "answers"
                    with _stage(_READING + number / 10, f"writes {what} that cannot be read back"):
                        dialect.render(Conversation((_ASK, message), self.tools))
                with _stage(9, "cannot be taken apart into turns"):
                    dialect.render(Conversation(_WHOLE, self.tools))
                return _with_reasoning(dialect, self.tools)
            except _FaultError as fault:
                faults.append(fault)
        raise max(faults, key=lambda fault: fault.stage)


def _with_reasoning(dialect: ChatTemplateDialect, tools: tuple[Tool, ...]) -> ChatTemplateDialect:
    """The same dialect with the template's own field for reasoning, where it has one that works."""
    call = replace(_CALL, reasoning=_THOUGHT.reasoning)
    for calls_only, field in product((False, True), REASONING_FIELDS):
        quirks = replace(dialect.writer.quirks, reasoning=field, beside_calls_only=calls_only)
        writer = replace(dialect.writer, quirks=quirks)
        other = ChatTemplateDialect(dialect.markup, dialect.behaviour, dialect.syntax, writer)
        try:
            for message in (call,) if calls_only else (call, _THOUGHT):
                other.render(Conversation((_ASK, message), tools))
            return other
        except DialectError:
            continue
    return dialect


def _with_history(dialect: ChatTemplateDialect, keep_history: bool) -> ChatTemplateDialect:
    """The same dialect, which knows whether its template rewrites earlier turns."""
    thinking = tuple(
        replace(message, reasoning="So.") if message.role == "assistant" else message
        for message in _LONGER
    )
    messages = thinking if dialect.writer.quirks.reasoning else _LONGER
    try:
        lists = dialect.render(Conversation(messages, _PLAIN_TOOLS))
    except DialectError:
        lists = dialect.render(Conversation(_LONGER, _PLAIN_TOOLS))
    syntax, writer = dialect.syntax, dialect.writer
    result = ChatTemplateDialect(dialect.markup, dialect.behaviour, syntax, writer, keep_history)
    if len(lists) < 2:
        result.history = History.APPENDED
    return result


_HISTORY_LIMITS = {
    History.TEMPLATE: "the template rewrites earlier turns: each turn is a row of its own",
    History.KEPT: "the template would rewrite earlier turns and is not asked: a server that uses "
    "it shows the model other ones",
}


def find_limits(dialect: Dialect) -> Iterator[str]:
    """Yield what this dialect cannot do, in words.

    Conversations of every kind that data may hold (probes.json) are rendered with all checks; a
    refusal is a limit. So is each part of a tool's definition that never reaches the prompt.
    """
    probes = PROBES["limits"]
    tools = tuple(map(Tool.of, probes["tools"]))
    if dialect.history in _HISTORY_LIMITS:
        yield _HISTORY_LIMITS[dialect.history]
    for kind, sources in probes["conversations"].items():
        messages = tuple(map(Message.from_dict, sources))
        try:
            dialect.render(Conversation(messages, tools))
            for index, message in enumerate(messages):
                if message.role == "assistant":
                    dialect.prompt(messages[:index], tools)
        except DialectError:
            yield f"{kind} cannot be written: training stops at such rows"
    try:
        text = "".join(
            span.text for span in dialect.prompt([Message("user", "What is There?")], tools)
        )
    except DialectError:
        yield "tools cannot be shown without a system message"
    else:
        lost = [part for part, word in probes["parts"].items() if word not in text]
        yield from (f"{part} do not reach the prompt" for part in lost)
        if words := hidden_words(dialect):
            yield f"the prompt does not show of a tool's schema: {', '.join(words)}"
    if not isinstance(dialect, ChatTemplateDialect):
        return
    if leaves_open(dialect, tools):
        yield "a turn whose results the user answers, not the assistant, is never ended"
    if dialect.behaviour.opened:
        opens = "the prompt opens a thought, and the template's turns have none"
        yield f"{opens}: it is written into the last turn, empty where a row has no reasoning"
    if added := dialect.behaviour.no_thought:
        learned = "which turns of the template lack: they are learned behind it"
        yield f"prompts end in {added!r}, {learned}"
    if borrowed := dialect.behaviour.borrowed:
        marks = " or ".join(dict.fromkeys(borrowed))
        yield f"the template ends no turn: {marks} of the next message ends it"
    if isinstance(dialect.markup, TemplateMarkup) and dialect.markup.template_kwargs:
        yield f"the template is used with {json.dumps(dialect.markup.template_kwargs)}"
    if dialect.writer.quirks.inline_refs:
        yield "schemas of tools are written without $ref, which the template does not show"
    if dialect.writer.quirks.described:
        yield "arguments of tools without a description get an empty one: the template needs one"
    if dialect.writer.quirks.bare_tools:
        wants = "the template wants tools without the object `function` around them"
        yield f"{wants}: a server that passes them as OpenAI's API has them cannot use it"
    if isinstance(dialect.markup, CheckedMarkup):
        escapes = "the template escapes <, > or & in texts of tools or arguments"
        yield f"{escapes}: training stops at rows with such texts"
    if isinstance(dialect.syntax, DelimitedSyntax) and hasattr(dialect.syntax.body, "typed"):
        yield "arguments are written without their types: the tool's schema says what they are"
