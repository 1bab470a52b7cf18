"""From a dialect and the tools on offer to a grammar of the assistant's turn: `grammar_of`.

    text = grammar_of(dialect, tools, tokenizer)        # for llguidance; `backends.constraint` runs it

A turn is reasoning (where the dialect opens a thought, else if the model wants), then either free text that holds no mark of a
call, or free text and one or several calls, then a stop mark. Every call is written as the dialect writes it, names one of the
tools and has arguments that the tool's schema allows. Control tokens in marks are tokens, never spelt-out text; a text that would
be read as a mark stands in no free text. Which form calls have is found out in `grammar_calls`, what text may hold is in
`grammar_text`; nothing here knows a model.

What it does not do: it does not say which tool is right, and it cannot finish a turn that the token limit cuts off. A form that
has no grammar (arguments as text inside JSON) and a schema that has none are refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolhone.dialects.base import Dialect
from toolhone.dialects.chat_template.render import PROBE_TOOLS, ChatTemplateDialect
from toolhone.dialects.grammar_calls import WAY_OUT, CallForm, call_of, form_of
from toolhone.dialects.grammar_styles import JsonStyle, text_until
from toolhone.dialects.grammar_text import FreeText
from toolhone.dialects.grammar_values import Values
from toolhone.dialects.lark import GrammarRules, exactly, in_turn, one_of
from toolhone.dialects.probe.derive import common_start
from toolhone.dialects.prompted import PromptedDialect
from toolhone.dialects.syntax.delimited import NAME_SLOT
from toolhone.dialects.syntax.json_object import JsonObject
from toolhone.errors import DialectError
from toolhone.schema import Tool
from toolhone.tokenizer import TextTokenizer


def grammar_of(dialect: Dialect, tools: Sequence[Tool], tokenizer: TextTokenizer) -> str:
    """The grammar of an assistant's turn in this dialect with these tools. `DialectError` when there is none."""
    if not isinstance(dialect, ChatTemplateDialect | PromptedDialect):
        raise DialectError(f"the dialect {dialect.name!r} has no grammar; {WAY_OUT}")
    control = {
        text: index
        for text in tokenizer.control_texts
        if (index := tokenizer.control_id(text)) is not None
    }
    return _TurnGrammar(GrammarRules(control), dialect, form_of(dialect, control)).grammar(tools)


class _TurnGrammar:
    """Puts the grammar of one dialect together."""

    def __init__(
        self, rules: GrammarRules, dialect: ChatTemplateDialect | PromptedDialect, form: CallForm
    ) -> None:
        self.rules, self.form, self.syntax, self.behaviour = (
            rules,
            form,
            dialect.syntax,
            dialect.behaviour,
        )
        self.free = FreeText(rules, form, dialect.syntax, dialect.behaviour)

    def grammar(self, tools: Sequence[Tool]) -> str:
        rules, habits = self.rules, self.behaviour
        stop = rules.rule(
            one_of(
                [f"<[{index}]>" for text in habits.stop if (index := rules.token(text)) is not None]
            )
        )
        trail = f"({in_turn(*rules.terms(habits.trail))})?" if habits.trail else ""
        turns = [in_turn(self._answer(), trail, stop)]
        if tools:
            turns.append(
                in_turn(
                    self._calls(tools), self.free.text if self.form.text_behind else "", trail, stop
                )
            )
        return rules.grammar(in_turn(self._thought(), f"({one_of(turns)})"))

    def _thought(self) -> str:
        """Reasoning in front of all else."""
        thought = self.behaviour.thought
        if any(stop in thought.open + thought.close for stop in self.behaviour.stop):
            return ""
        rules, closes = self.rules, text_until(self.rules, thought.close)
        if self.behaviour.opens_thought:
            return closes
        plain = rules.parts(thought.open) == [thought.open] and rules.token(thought.open) is None
        opens = rules.terminal(rf"/[ \n]{{0,2}}{exactly(thought.open)}/") if plain else ""
        return f"({in_turn(opens, closes) if plain else in_turn(self.free.gap, *rules.terms(thought.open), closes)})?"

    def _answer(self) -> str:
        """A turn without calls; the syntax `json` has a form for it."""
        if not isinstance(self.syntax, JsonObject):
            return self.free.text
        style = JsonStyle()
        values = Values(self.rules, style, PROBE_TOOLS[0])
        return in_turn(self.free.gap, values.object_of([("final", style.string(self.rules))]))

    def _calls(self, tools: Sequence[Tool]) -> str:
        """One or several calls. A run of calls is told apart by the tool it ends in, since marks behind it may repeat the name."""
        if self.form.is_list:
            return self._list(tools)
        frame, rules = self.form.frame, self.rules
        left, right = _split(frame.after, frame.between or "")
        calls = [call_of(self.form, rules, tool) for tool in tools]
        runs = [rules.reserve() for _ in tools]
        begun = one_of(
            [
                in_turn(run, *rules.terms(_named(left, tool)))
                for run, tool in zip(runs, tools, strict=True)
            ]
        )
        goes_on = rules.rule(begun) if frame.between is not None else ""
        for run, tool, call in zip(runs, tools, calls, strict=True):
            ways = [in_turn(self._opening(tool, call.begins), call.rest)]
            if goes_on:
                ways.append(
                    in_turn(goes_on, *rules.terms(_named(right, tool) + call.begins), call.rest)
                )
            rules.define(run, one_of(ways))
        return rules.rule(
            one_of(
                [
                    in_turn(run, *rules.terms(_named(frame.after, tool)))
                    for run, tool in zip(runs, tools, strict=True)
                ]
            )
        )

    def _list(self, tools: Sequence[Tool]) -> str:
        """All calls in one list."""
        if NAME_SLOT in self.form.frame.before + self.form.frame.after:
            raise DialectError(
                f"a list of calls whose marks repeat a tool's name has no grammar; {WAY_OUT}"
            )
        rules = self.rules
        values = Values(rules, JsonStyle(), tools[0])
        item = rules.rule(one_of([call_of(self.form, rules, tool).rest for tool in tools]))
        calls = in_turn('"["', values.gap, f"{item} ({values.comma} {item})*", values.gap, '"]"')
        return in_turn(self._opening(tools[0]), calls, *rules.terms(self.form.frame.after))

    def _opening(self, tool: Tool, begins: str = "") -> str:
        """What stands in front of the first call: text where there may be some, the mark, and what the call begins with."""
        return self.free.before(_named(self.form.frame.before.lstrip(), tool), begins)


def _named(mark: str, tool: Tool) -> str:
    return mark.replace(NAME_SLOT, tool.name)


def _split(after: str, between: str) -> tuple[str, str]:
    """What stands between two calls, cut where the mark that repeats the first call's name ends."""
    end = common_start(after, between).rfind(NAME_SLOT) + 1
    return between[:end], between[end:]
