"""From a dialect and the tools on offer to a grammar of the assistant's turn: `grammar_of`.

A turn is reasoning, then free text without a mark of a call, or free text and calls, then a stop
mark. Each call names one of the tools and has arguments that its schema allows. A grammar does not
choose the right tool, and cannot finish a turn that the token limit cuts off. A form or a schema
without a grammar is refused in one sentence. `backends.constraint` compiles grammars.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from toolhone.dialects.chat_template.dialect import ChatTemplateDialect
from toolhone.dialects.chat_template.turns import common_start
from toolhone.dialects.grammar_calls import CallForm, call_of, form_of
from toolhone.dialects.grammar_values import JSON_STYLE, WAY_OUT, Values
from toolhone.dialects.interface import Dialect
from toolhone.dialects.lark import (
    ANY,
    SOME,
    GrammarRules,
    exactly,
    found_in,
    in_turn,
    loosely,
    one_of,
    text_until,
    up_to,
    without,
)
from toolhone.dialects.probe.derive import PROBE_TOOLS
from toolhone.dialects.prompted import PromptedDialect
from toolhone.dialects.syntax.bodies import LooseObject, NamedJson, PythonCalls
from toolhone.dialects.syntax.delimited import ID_SLOT, NAME_SLOT, NUMBER_SLOT, DelimitedSyntax
from toolhone.dialects.syntax.model_text import USUAL, Tagged
from toolhone.dialects.syntax.parameters import Parameters
from toolhone.dialects.syntax.unmarked import BareJson, JsonObject
from toolhone.errors import DialectError
from toolhone.schema import Tool
from toolhone.tokenizer import TextTokenizer

_WORD = r"A-Za-z0-9_.:\x2F\x{80}-\x{10FFFF}-"
_LINE = rf"[ \t]*([{_WORD}]+([^{_WORD}(\n][^\n]*)?|([^{_WORD} \t\n][^\n]*)?)"
"""A line that is no call in the syntax `calls`: it does not begin with a name and a bracket."""
_BARE_JSON = (
    r"\s*(\[\s*)?\{\s*([\"'](?s:.*))?",
    r'((?s:.*)\n)?[ \t]*(\[[ \t]*)?\{\s*"(name|type|parameters|arguments)"\s*:(?s:.*)',
)
"""Texts that the syntax `bare_json` takes for calls."""
_NAME_AND_BRACKET = r"[^\s()\[\]{},=\"']+\s*\("


def grammar_of(dialect: Dialect, tools: Sequence[Tool], tokenizer: TextTokenizer) -> str:
    """Write the grammar of an assistant's turn. `DialectError` if there is none."""
    if not isinstance(dialect, ChatTemplateDialect | PromptedDialect):
        raise DialectError(f"the dialect {dialect.name!r} has no grammar; {WAY_OUT}")
    ids = {text: tokenizer.control_id(text) for text in tokenizer.control_texts}
    control = {text: index for text, index in ids.items() if index is not None}
    return _TurnGrammar(GrammarRules(control), form_of(dialect, control), dialect).write(tools)


class _TurnGrammar:
    """Puts the grammar of one dialect together.

    Forbidden in free text is what the readers take for a call or a thought. A mark that plain text
    may hold (`[`, for instance) counts only where the reader counts it: in front of a call's
    beginning, or at the beginning of a line. Where text in front of such a mark could not be
    separated from the call, calls have no text in front.
    """

    def __init__(
        self, rules: GrammarRules, form: CallForm, dialect: ChatTemplateDialect | PromptedDialect
    ) -> None:
        self.rules, self.form = rules, form
        self.syntax, self.behaviour = dialect.syntax, dialect.behaviour
        self.gap = rules.terminal("/[ \\n]{1,2}/") + "?"
        frame, body = form.frame, form.body
        delimited = isinstance(dialect.syntax, DelimitedSyntax)
        self._lead = (frame.lead if delimited else dialect.behaviour.lead).lstrip()
        before = re.split(f"[{NAME_SLOT}{ID_SLOT}{NUMBER_SLOT}]", frame.before.lstrip())[0]
        self._fixed = before.rstrip()
        """What the mark in front of a call always begins with."""
        self._weak = delimited and frame.weak
        begins = _NAME_AND_BRACKET if isinstance(body, PythonCalls) else body.begins
        self._weak_sign = loosely(frame.before.strip()) + (rf"\s*{begins}" if begins else "")
        """The pattern of a mark that plain text may hold, and a call's beginning behind it."""
        tags = (self.syntax.open, self.syntax.close) if isinstance(self.syntax, Tagged) else ()
        self._sure_marks = tuple(mark for mark, _ in frame.signs) if delimited else tags
        """Marks that are a sign of a call anywhere, the one that begins a call first."""
        opens = dict.fromkeys(thought.open for thought in (self.behaviour.thought, USUAL))
        thoughts = rf"\s*({'|'.join(map(exactly, opens))}){ANY}"
        bare = _BARE_JSON if isinstance(self.syntax, BareJson) else ()
        self._forbidden = [thoughts, *bare]
        """The patterns of texts that are read as a thought, or as a call without marks."""
        self._no_call = self._forbidden.copy()
        """The patterns of texts that hold a call, or a sign of one."""
        if self._sure_marks:
            self._no_call.append(found_in("|".join(map(exactly, self._sure_marks))))
        if self._weak and self._fixed:
            self._no_call.append(found_in(self._weak_sign, at_line=not body.begins))
        if delimited and not self._fixed:
            between = frame.between or ""
            self._no_call += [found_in(loosely(between))] if between.strip() else []
            self._no_call += [] if self._lead else [self._beginning()]

    def write(self, tools: Sequence[Tool]) -> str:
        rules, behaviour = self.rules, self.behaviour
        ids = [rules.control[text] for text in behaviour.stop if text in rules.control]
        stop = rules.rule(one_of(f"<[{index}]>" for index in ids))
        trail = f"({rules.mark(behaviour.trail)})?" if behaviour.trail else ""
        turns = [in_turn(self._answer(), trail, stop)]
        if tools:
            behind = self._text if self.form.text_behind else ""
            turns.append(in_turn(self._calls(tools), behind, trail, stop))
        return rules.grammar(in_turn(self._thought(), f"({one_of(turns)})"))

    def _thought(self) -> str:
        """Reasoning in front of everything else."""
        rules, thought = self.rules, self.behaviour.thought
        if any(stop in thought.open + thought.close for stop in self.behaviour.stop):
            return ""
        closes = text_until(rules, thought.close)
        if self.behaviour.opens_thought:
            return closes
        if rules.parts(thought.open) == [thought.open] and thought.open not in rules.control:
            opens = rules.terminal(rf"/[ \n]{{0,2}}{exactly(thought.open)}/")
            return f"({opens} {closes})?"
        return f"({in_turn(self.gap, rules.mark(thought.open), closes)})?"

    def _answer(self) -> str:
        """A turn without calls; the syntax `json` has a form for it."""
        if not isinstance(self.syntax, JsonObject):
            return self._text
        values = Values(self.rules, JSON_STYLE, PROBE_TOOLS[0])
        return in_turn(self.gap, values.object_of([("final", values.string())]))

    @cached_property
    def _text(self) -> str:
        """Free text, or none, behind what the markup writes in front of it."""
        lines = f"/{_LINE}(\\n{_LINE})*/ & " if self.form.lines else ""
        text = f"{self.rules.terminal(lines + without(SOME, self._no_call))}?"
        return in_turn(self.gap, self.rules.mark(self._lead), text) if self._lead else text

    def _beginning(self) -> str:
        """The pattern of texts that begin as a call without any mark does."""
        match self.form.body:
            case NamedJson(name_first=True) | LooseObject():
                return rf"\s*[^\n{{]*\s*\"?\{{{ANY}"
            case PythonCalls():
                return rf"\s*{_NAME_AND_BRACKET}{ANY}"
            case Parameters() as body:
                return found_in(loosely(body.separates))
        return rf"\s*[{{\[\"]{ANY}"

    def _calls(self, tools: Sequence[Tool]) -> str:
        """One or several calls: a rule per last tool, because marks behind may repeat its name."""
        if isinstance(self.form.example, list):
            return self._list(tools)
        frame, rules = self.form.frame, self.rules
        between = frame.between or ""
        cut = common_start(frame.after, between).rfind(NAME_SLOT) + 1
        runs = [(rules.reserve(), tool.name, call_of(self.form, rules, tool)) for tool in tools]

        def behind(mark: str) -> str:
            """All runs of calls, each with this mark behind it."""
            ends = (
                in_turn(run, rules.mark(mark.replace(NAME_SLOT, name))) for run, name, _ in runs
            )
            return rules.rule(one_of(ends))

        previous = "" if frame.between is None else behind(between[:cut])
        for run, name, (begins, rest) in runs:
            first = self._before(frame.before.lstrip().replace(NAME_SLOT, name), begins)
            ways = [in_turn(first, rest)]
            if previous:
                mark = between[cut:].replace(NAME_SLOT, name) + begins
                ways.append(in_turn(previous, rules.mark(mark), rest))
            rules.bodies[run] = one_of(ways)
        return behind(frame.after)

    def _list(self, tools: Sequence[Tool]) -> str:
        """All calls in one list."""
        frame, rules = self.form.frame, self.rules
        if NAME_SLOT in frame.before + frame.after:
            wrong = "a list of calls whose marks repeat a tool's name has no grammar"
            raise DialectError(f"{wrong}; {WAY_OUT}")
        values = Values(rules, JSON_STYLE, tools[0])
        item = rules.rule(one_of(call_of(self.form, rules, tool)[1] for tool in tools))
        calls = values.between("[", f"{item} ({values.comma} {item})*", "]")
        return in_turn(self._before(frame.before.lstrip()), calls, rules.mark(frame.after))

    def _before(self, mark: str, begins: str = "") -> str:
        """Free text, then the mark with what the call begins with."""
        rules, whole = self.rules, mark + begins
        if self.form.lines:
            return rules.terminal(without(rf"({_LINE}\n)*[ \t]*{exactly(whole)}", self._forbidden))
        alone = in_turn(self.gap, rules.mark(whole))
        if self._lead or not self._fixed:
            answer = self._behind_answer(begins)
            return f"({alone} | {answer})" if answer else alone
        first = rules.parts(self._fixed)[0]
        rest = rules.mark(whole[len(first) :])
        if self._weak:
            return self._before_weak(whole, first, rest)
        sure = next(iter(self._sure_marks), "")
        if first in rules.control:
            if not self._fixed.startswith(sure or "\n"):
                return alone
            text = f"{rules.terminal(without(SOME, self._no_call))}?"
            return in_turn(text, rules.mark(first), rest)
        sign = sure if sure in first else first if sure.startswith(first) else ""
        if not sign:
            return alone
        others = [found_in(exactly(other)) for other in self._sure_marks[1:]]
        behind = len(first) - first.find(sign) - len(sign)
        body = up_to(exactly(first), exactly(sign), [*self._forbidden, *others], behind=behind)
        return in_turn(rules.terminal(body), rest)

    def _before_weak(self, whole: str, first: str, rest: str) -> str:
        """The same for a mark that plain text may hold: one terminal, which ends at a call."""
        rules, parts, mark = self.rules, self.rules.parts(whole), exactly(first)
        if not rules.control.keys().isdisjoint(parts):
            return in_turn(self.gap, rules.mark(whole))
        others = [*self._forbidden, *(found_in(exactly(other)) for other in self._sure_marks)]
        if not self.form.body.begins:
            twice = rf"({ANY}\n)?[ \t]*({mark}){ANY}\n[ \t]*({mark}){ANY}"
            line = without(rf"({ANY}\n)?[ \t]*{mark}", (twice, *others))
            return in_turn(rules.terminal(line), rest)
        if isinstance(self.form.body, PythonCalls) and parts == [whole]:
            overlap = f"{ANY}{exactly(whole[0])}{exactly(whole)}"
            return rules.terminal(up_to(exactly(whole), self._weak_sign, [*others, overlap]))
        return rules.terminal(rf"/[ \n]{{0,2}}{exactly(whole)}/")

    def _behind_answer(self, begins: str) -> str:
        """A first call behind an answer, if the mark between two calls may follow an answer too."""
        between = (self.form.frame.between or "").strip()
        if self._fixed or not self._lead or not between or NAME_SLOT in between:
            return ""
        rules, first = self.rules, self.rules.parts(between)[0]
        if first in rules.control:
            text = without(SOME, [*self._forbidden, found_in(loosely(first))])
            answer = in_turn(f"{rules.terminal(text)}?", rules.mark(first))
        else:
            answer = rules.terminal(up_to(exactly(first), loosely(first), self._forbidden))
        rest = rules.mark(between[len(first) :] + begins)
        return in_turn(self.gap, rules.mark(self._lead), answer, rest)
