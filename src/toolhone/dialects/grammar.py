"""From a dialect and the tools on offer to a grammar of the assistant's turn: `grammar_of`.

    text = grammar_of(dialect, tools, tokenizer)     # `backends.constraint` compiles it

A turn is reasoning, then free text without a mark of a call, or free text and calls, then a stop
mark. Each call names one of the tools and has arguments that its schema allows. A grammar does not
choose the right tool, and cannot finish a turn that the token limit cuts off. A form or a schema
without a grammar is refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from toolhone.dialects.base import Dialect
from toolhone.dialects.chat_template.dialect import ChatTemplateDialect
from toolhone.dialects.chat_template.turns import common_start
from toolhone.dialects.grammar_calls import CallForm, call_of, form_of
from toolhone.dialects.grammar_values import WAY_OUT, Values
from toolhone.dialects.lark import (
    ANY,
    JSON_STYLE,
    GrammarRules,
    exactly,
    found_in,
    in_turn,
    loosely,
    one_of,
    plain,
    text_until,
    up_to,
    without,
)
from toolhone.dialects.probe.derive import PROBE_TOOLS
from toolhone.dialects.prompted import PromptedDialect
from toolhone.dialects.syntax.delimited import ID_SLOT, NAME_SLOT, NUMBER_SLOT, DelimitedSyntax
from toolhone.dialects.syntax.json_bodies import NamedJson
from toolhone.dialects.syntax.json_objects import BareJson, JsonObject
from toolhone.dialects.syntax.loose_object import LooseObject
from toolhone.dialects.syntax.model_text import USUAL
from toolhone.dialects.syntax.parameters import Parameters
from toolhone.dialects.syntax.python_calls import PythonCalls
from toolhone.dialects.syntax.tagged import Tagged
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
    return _TurnGrammar(GrammarRules(control), form_of(dialect, control), dialect).grammar(tools)


class _FreeText:
    """What an assistant may write beside the calls of one form.

    Forbidden is what the readers take for a call or a thought. A mark that plain text may hold
    (`[`, for instance) counts only where
    the reader counts it: in front of a call's beginning, or at the beginning of a line. Where text
    in front of such a mark could not be separated from the call, calls have no text in front.
    """

    def __init__(
        self, rules: GrammarRules, form: CallForm, dialect: ChatTemplateDialect | PromptedDialect
    ) -> None:
        self.rules, self.form = rules, form
        self.syntax, self.behaviour = dialect.syntax, dialect.behaviour
        self.gap = rules.terminal("/[ \\n]{1,2}/") + "?"
        self._delimited = isinstance(dialect.syntax, DelimitedSyntax)
        self._lead = (form.frame.lead if self._delimited else dialect.behaviour.lead).lstrip()
        fixed = form.frame.before.lstrip()
        for slot in (NAME_SLOT, ID_SLOT, NUMBER_SLOT):
            fixed = fixed.partition(slot)[0]
        self._fixed = fixed.rstrip()
        """What the mark in front of a call always begins with."""
        self._weak = self._delimited and form.frame.weak

    @cached_property
    def text(self) -> str:
        """Free text, or none, behind what the markup writes in front of it."""
        lines = f"/{_LINE}(\\n{_LINE})*/ & " if self.form.lines else ""
        text = f"{self.rules.terminal(lines + plain(self._no_call))}?"
        return in_turn(self.gap, *self.rules.terms(self._lead), text) if self._lead else text

    def before(self, mark: str, begins: str = "") -> str:
        """Free text, then the mark with what the call begins with."""
        rules, whole = self.rules, mark + begins
        if self.form.lines:
            return rules.terminal(without(rf"({_LINE}\n)*[ \t]*{exactly(whole)}", self._forbidden))
        alone = in_turn(self.gap, *rules.terms(whole))
        if self._lead or not self._fixed:
            answer = self._behind_answer(begins)
            return f"({alone} | {answer})" if answer else alone
        first = rules.parts(self._fixed)[0]
        rest = rules.terms(whole[len(first) :])
        if self._weak:
            return self._before_weak(whole, first, rest)
        sure = next(iter(self._sure_marks), "")
        if rules.token(first) is not None:
            if not self._fixed.startswith(sure or "\n"):
                return alone
            text = f"{rules.terminal(plain(self._no_call))}?"
            return in_turn(text, *rules.terms(first), *rest)
        sign = sure if sure in first else first if sure.startswith(first) else ""
        if not sign:
            return alone
        others = [found_in(exactly(other)) for other in self._sure_marks[1:]]
        behind = len(first) - first.find(sign) - len(sign)
        body = up_to(exactly(first), exactly(sign), [*self._forbidden, *others], behind=behind)
        return in_turn(rules.terminal(body), *rest)

    def _before_weak(self, whole: str, first: str, rest: list[str]) -> str:
        """The same for a mark that plain text may hold: one terminal, which ends at a call."""
        rules, parts = self.rules, self.rules.parts(whole)
        if any(rules.token(part) is not None for part in parts):
            return in_turn(self.gap, *rules.terms(whole))
        others = [*self._forbidden, *(found_in(exactly(other)) for other in self._sure_marks)]
        if not self.form.body.begins:
            mark = exactly(first)
            twice = rf"({ANY}\n)?[ \t]*({mark}){ANY}\n[ \t]*({mark}){ANY}"
            line = without(rf"({ANY}\n)?[ \t]*{mark}", (twice, *others))
            return in_turn(rules.terminal(line), *rest)
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
        if rules.token(first) is not None:
            text = plain([*self._forbidden, found_in(loosely(first))])
            answer = in_turn(f"{rules.terminal(text)}?", *rules.terms(first))
        else:
            answer = rules.terminal(up_to(exactly(first), loosely(first), self._forbidden))
        rest = rules.terms(between[len(first) :] + begins)
        return in_turn(self.gap, *rules.terms(self._lead), answer, *rest)

    @cached_property
    def _sure_marks(self) -> tuple[str, ...]:
        """Marks that are a sign of a call anywhere, the one that begins a call first."""
        if self._delimited:
            return tuple(mark for mark, _ in self.form.frame.signs)
        return (self.syntax.open, self.syntax.close) if isinstance(self.syntax, Tagged) else ()

    @property
    def _weak_sign(self) -> str:
        """The pattern of a mark that plain text may hold, and a call's beginning behind it."""
        body = self.form.body
        begins = _NAME_AND_BRACKET if isinstance(body, PythonCalls) else body.begins
        return loosely(self.form.frame.before.strip()) + (rf"\s*{begins}" if begins else "")

    @cached_property
    def _no_call(self) -> list[str]:
        """The patterns of texts that hold a call, or a sign of one."""
        signs = [found_in("|".join(map(exactly, self._sure_marks)))] if self._sure_marks else []
        if self._weak and self._fixed:
            signs.append(found_in(self._weak_sign, at_line=not self.form.body.begins))
        if self._delimited and not self._fixed:
            between = self.form.frame.between or ""
            signs += [found_in(loosely(between))] if between.strip() else []
            signs += [] if self._lead else [self._beginning]
        return [*self._forbidden, *signs]

    @cached_property
    def _forbidden(self) -> list[str]:
        """The patterns of texts that are read as a thought, or as a call without marks."""
        opens = dict.fromkeys(thought.open for thought in (self.behaviour.thought, USUAL))
        thoughts = rf"\s*({'|'.join(map(exactly, opens))}){ANY}"
        return [thoughts, *(_BARE_JSON if isinstance(self.syntax, BareJson) else ())]

    @property
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


class _TurnGrammar(_FreeText):
    """Puts the grammar of one dialect together."""

    def grammar(self, tools: Sequence[Tool]) -> str:
        rules, behaviour = self.rules, self.behaviour
        ids = [index for text in behaviour.stop if (index := rules.token(text)) is not None]
        stop = rules.rule(one_of(f"<[{index}]>" for index in ids))
        trail = f"({in_turn(*rules.terms(behaviour.trail))})?" if behaviour.trail else ""
        turns = [in_turn(self._answer(), trail, stop)]
        if tools:
            behind = self.text if self.form.text_behind else ""
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
        if rules.parts(thought.open) == [thought.open] and rules.token(thought.open) is None:
            opens = rules.terminal(rf"/[ \n]{{0,2}}{exactly(thought.open)}/")
            return f"({opens} {closes})?"
        return f"({in_turn(self.gap, *rules.terms(thought.open), closes)})?"

    def _answer(self) -> str:
        """A turn without calls; the syntax `json` has a form for it."""
        if not isinstance(self.syntax, JsonObject):
            return self.text
        values = Values(self.rules, JSON_STYLE, PROBE_TOOLS[0])
        return in_turn(self.gap, values.object_of([("final", JSON_STYLE.string(self.rules))]))

    def _calls(self, tools: Sequence[Tool]) -> str:
        """One or several calls: a rule per last tool, because marks behind may repeat its name."""
        if isinstance(self.form.example, list):
            return self._list(tools)
        frame, rules = self.form.frame, self.rules
        between = frame.between or ""
        cut = common_start(frame.after, between).rfind(NAME_SLOT) + 1
        runs = [(rules.reserve(), tool, call_of(self.form, rules, tool)) for tool in tools]
        previous = ""
        if frame.between is not None:
            previous = rules.rule(
                one_of(
                    in_turn(run, *rules.terms(_name(between[:cut], tool))) for run, tool, _ in runs
                )
            )
        for run, tool, call in runs:
            ways = [
                in_turn(self.before(_name(frame.before.lstrip(), tool), call.begins), call.rest)
            ]
            if previous:
                mark = _name(between[cut:], tool) + call.begins
                ways.append(in_turn(previous, *rules.terms(mark), call.rest))
            rules.define(run, one_of(ways))
        return rules.rule(
            one_of(in_turn(run, *rules.terms(_name(frame.after, tool))) for run, tool, _ in runs)
        )

    def _list(self, tools: Sequence[Tool]) -> str:
        """All calls in one list."""
        frame, rules = self.form.frame, self.rules
        if NAME_SLOT in frame.before + frame.after:
            raise DialectError(
                f"a list of calls whose marks repeat a tool's name has no grammar; {WAY_OUT}"
            )
        values = Values(rules, JSON_STYLE, tools[0])
        item = rules.rule(one_of(call_of(self.form, rules, tool).rest for tool in tools))
        calls = in_turn('"["', values.gap, f"{item} ({values.comma} {item})*", values.gap, '"]"')
        return in_turn(self.before(frame.before.lstrip()), calls, *rules.terms(frame.after))


def _name(mark: str, tool: Tool) -> str:
    return mark.replace(NAME_SLOT, tool.name)
