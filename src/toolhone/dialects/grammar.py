"""From a dialect and the tools on offer to a grammar of the assistant's turn: `grammar_of`.

    text = grammar_of(dialect, tools, tokenizer)        # for llguidance; `backends.constraint` runs it

A turn is reasoning (where the dialect opens a thought, else if the model wants), then either free text that holds no mark of a
call, or free text and one or several calls, then a stop mark. Every call is written as the dialect writes it, names one of the
tools and has arguments that the tool's schema allows. How the dialect writes calls is looked up in its own rendering of two probes
(`derive` finds frame and body), so that nothing here knows a model. Control tokens in marks are tokens, never spelt-out text.

What it does not do: it does not say which tool is right, and it cannot finish a turn that the token limit cuts off. A form that
has no grammar (arguments as text inside JSON) and a schema that has none are refused in one sentence.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolhone.dialects.bare_json import BareJson
from toolhone.dialects.base import Dialect, Problem, Reply, Syntax
from toolhone.dialects.calls import Calls
from toolhone.dialects.derive import FIRST, OTHER, TOOL, VALUE, common_start, derive
from toolhone.dialects.framed import ID_SLOT, NAME_SLOT, Body, Frame, Framed
from toolhone.dialects.grammar_styles import JsonStyle, LooseStyle, PythonStyle, text_until
from toolhone.dialects.grammar_values import Field, Values, members
from toolhone.dialects.json_calls import JsonCalls
from toolhone.dialects.json_object import JsonObject
from toolhone.dialects.json_reading import decode
from toolhone.dialects.lark import ANY, Rules, exactly, in_turn, loosely, one_of, quoted, up_to, without
from toolhone.dialects.loose_object import LooseObject
from toolhone.dialects.name_as_key import NameAsKey
from toolhone.dialects.named_json import NamedJson
from toolhone.dialects.native import PROBE_TOOLS, NativeDialect
from toolhone.dialects.parameters import Parameters
from toolhone.dialects.python_calls import PythonCalls
from toolhone.dialects.roundtrip import without_stop
from toolhone.dialects.thinking import USUAL, read_after_reasoning
from toolhone.dialects.turns import Habits
from toolhone.dialects.written import WrittenDialect
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.tokenizer import TextTokenizer

_ONE = ToolCall(TOOL, {FIRST: VALUE})
_NEXT = ToolCall(OTHER, {FIRST: VALUE})
_ID = re.compile(r"call\d{5}")
_PLAIN_NAME = re.compile(r"[^\s(){}\[\],=\"'<>|]{1,256}")
_LINE_NAME = re.compile(r"[^\W\d][\w.:/-]*")
_LINE_CALL = r"(?s:(.*\n)?[ \t]*[\w.:\x2F-]+\(.*)"
"""The pattern of texts with a line that begins as a call of the syntax `calls` does."""
_BARE_JSON = (r"\s*(\[\s*)?\{\s*([\"'](?s:.*))?", r'(?s:(.*\n)?[ \t]*(\[[ \t]*)?\{\s*"(name|type|parameters|arguments)"\s*:.*)')
"""The patterns of texts that the syntax `bare_json` takes for calls."""
_GAP = r"/[ \n]{1,2}/"


@dataclass(frozen=True)
class Form:
    """How a dialect writes calls: its frame and body, and what it writes for one call where the body is JSON."""

    frame: Frame
    body: Body
    example: Json = None


def grammar_of(dialect: Dialect, tools: Sequence[Tool], tokenizer: TextTokenizer) -> str:
    """The grammar of an assistant's turn in this dialect with these tools. `DialectError` when there is none."""
    if not isinstance(dialect, NativeDialect | WrittenDialect):
        raise DialectError(f"the dialect {dialect.name!r} has no grammar; evaluate without evaluation.constrained")
    control = {text: index for text in tokenizer.control_texts if (index := tokenizer.control_id(text)) is not None}
    turn = _Turn(Rules(control), dialect, form_of(dialect))
    return turn.grammar(tools)


def form_of(dialect: NativeDialect | WrittenDialect) -> Form:
    """The form of calls in this dialect, found in what it writes itself."""
    one = _written(dialect, [_ONE])
    if isinstance(dialect.syntax, Framed):
        found: Framed | None = dialect.syntax
    else:
        texts = derive(lambda calls: _written(dialect, calls), dialect.habits.lead)
        found = next((framed for framed in texts if one is not None and framed.read(one, PROBE_TOOLS).calls == (_ONE,)), None)
    if found is None or one is None:
        raise DialectError(f"no grammar was found for the calls of dialect {dialect.name!r}; evaluate without evaluation.constrained")
    start = one.find("{") if "{" in one and not isinstance(found.body, JsonCalls | NameAsKey) else len(found.frame.before)
    example = decode(one, start)
    return Form(found.frame, found.body, example.value if example.problem is Problem.NONE else None)


def _written(dialect: NativeDialect | WrittenDialect, calls: Sequence[ToolCall]) -> str | None:
    """The text of a turn with these calls, without stop mark and reasoning; None where the dialect refuses it."""
    asked = Conversation((Message("user", "question"), Message("assistant", tool_calls=tuple(calls))), PROBE_TOOLS)
    try:
        spans = dialect.render(asked)[-1]
    except DialectError:
        return None
    habits = dialect.habits
    text = without_stop("".join(span.text for span in spans if span.trained), habits.stop)
    if habits.opens_thought and not text.lstrip().startswith(habits.thought.open):
        text = habits.thought.open + text
    text = read_after_reasoning(text, Reply, habits.thought).content or ""
    if habits.trail and text.rstrip().endswith(habits.trail) and not isinstance(dialect.syntax, Framed):
        text = text.rstrip().removesuffix(habits.trail)
    return text


class _Turn:
    """Puts the grammar of one dialect together."""

    def __init__(self, rules: Rules, dialect: NativeDialect | WrittenDialect, form: Form) -> None:
        self.rules, self.form = rules, form
        self.syntax: Syntax = dialect.syntax
        self.habits: Habits = dialect.habits
        self.gap = f"{rules.terminal(_GAP)}?"
        self.sign = loosely(form.frame.before.strip().split(NAME_SLOT)[0].split(ID_SLOT)[0].split()[0]) if self._marked else ""

    @property
    def _marked(self) -> bool:
        """Whether a mark stands in front of calls, with something in it that is always the same."""
        return bool(self.form.frame.before.strip().split(NAME_SLOT)[0].split(ID_SLOT)[0].strip())

    def grammar(self, tools: Sequence[Tool]) -> str:
        rules, habits = self.rules, self.habits
        stop = rules.rule(one_of([f"<[{index}]>" for text in habits.stop if (index := rules.token(text)) is not None]))
        trail = f"({in_turn(*rules.terms(habits.trail))})?" if habits.trail else ""
        turns = [in_turn(self._text(), trail, stop)]
        if tools:
            turns.append(in_turn(self._calls(tools), trail, stop))
        return rules.grammar(in_turn(self._thought(), f"({one_of(turns)})"))

    def _thought(self) -> str:
        """Reasoning in front of all else."""
        thought, rules = self.habits.thought, self.rules
        if any(stop in thought.open + thought.close for stop in self.habits.stop):
            return ""
        closes = text_until(rules, thought.close)
        if self.habits.opens_thought:
            return closes
        return f"({in_turn(self.gap, *rules.terms(thought.open), closes)})?"

    def _text(self) -> str:
        """Free text that is read as text; the syntax `json` has a form for it."""
        if isinstance(self.syntax, JsonObject):
            style = JsonStyle()
            return in_turn(self.gap, Values(self.rules, style, PROBE_TOOLS[0]).object_of([("final", style.string(self.rules))]))
        lead = self.form.frame.lead if isinstance(self.syntax, Framed) else self.habits.lead
        text = f"{self.rules.terminal(' & '.join([without(self._signs()), *self._forbidden()]))}?"
        return in_turn(self.gap, *self.rules.terms(lead.strip()), text) if lead.strip() else text

    def _signs(self) -> list[str]:
        """Patterns that free text may not hold, since they would be read as part of a call."""
        frame = self.form.frame
        marks = [mark for part in (frame.before, frame.after) for mark in re.split(rf"[\s{NAME_SLOT}{ID_SLOT}]+", part)]
        telling = [exactly(mark) for mark in marks if len(mark) > 2 and not mark.replace("_", "").isalnum()]
        joint = [loosely(frame.between.strip())] if not self._marked and (frame.between or "").strip() and frame.between else []
        return list(dict.fromkeys([*([self.sign] if self.sign else []), *telling, *joint]))

    def _forbidden(self) -> list[str]:
        """Further limits of free text, as parts of a terminal: it may not begin a thought, nor look like a call without marks."""
        opens = [thought.open for thought in (self.habits.thought, USUAL)]
        whole = [rf"\s*({'|'.join(map(exactly, dict.fromkeys(opens)))}){ANY}"]
        whole += [_LINE_CALL] if isinstance(self.syntax, Calls) else []
        whole += _BARE_JSON if isinstance(self.syntax, BareJson) else ()
        return [f"~/{pattern}/" for pattern in whole]

    def _calls(self, tools: Sequence[Tool]) -> str:
        """One or several calls. A run of calls ends in some tool's call, since marks behind it may repeat its name."""
        frame, rules = self.form.frame, self.rules
        left, right = _split(frame)
        cores = [self._core(tool) for tool in tools]
        runs = [rules.reserve() for _ in tools]
        open_runs = one_of([in_turn(run, *self._terms(left, tool)) for run, tool in zip(runs, tools, strict=True)])
        goes_on = rules.rule(open_runs) if frame.between is not None else None
        opening = self._opening()
        for run, tool, core in zip(runs, tools, cores, strict=True):
            ways = [in_turn(opening, self._begin(tool, opening), core)]
            if goes_on is not None:
                ways.append(in_turn(goes_on, *self._terms(right + self._name(tool)[0], tool), core))
            rules.define(run, one_of(ways))
        ends = [in_turn(run, *self._terms(frame.after, tool)) for run, tool in zip(runs, tools, strict=True)]
        return rules.rule(one_of(ends))

    def _opening(self) -> str:
        """Free text and the first part of the mark in front of calls; where there is none, white space."""
        if not self._marked:
            return self.gap
        rules, mark = self.rules, self.form.frame.before.lstrip()
        first = rules.parts(mark.split(NAME_SLOT)[0])[0]
        others = [sign for sign in self._signs() if sign != self.sign]
        limits = self._forbidden()
        if rules.token(first) is not None:
            text = rules.terminal(" & ".join([without([self.sign, *others]), *limits]))
            return rules.rule(in_turn(self.gap if self.form.frame.lead.strip() else f"{text}?", *rules.terms(first)))
        if self.form.frame.lead.strip():
            return rules.rule(in_turn(self.gap, quoted(first)))
        return rules.terminal(" & ".join([up_to(exactly(first), self.sign, others), *limits]))

    def _begin(self, tool: Tool, opening: str) -> str:
        """What follows the opening of the first call, up to the tool's name."""
        mark = self.form.frame.before.lstrip()
        name = self._name(tool)[0]
        if not self._marked:
            return in_turn(*self._terms(mark + name, tool))
        first = self.rules.parts(mark.split(NAME_SLOT)[0])[0]
        return in_turn(*self._terms(mark[len(first) :] + name, tool))
