"""From a dialect and the tools on offer to a grammar of the assistant's turn: `grammar_of`.

    text = grammar_of(dialect, tools, tokenizer)        # for llguidance; `backends.constraint` runs it

A turn is reasoning (where the dialect opens a thought, else if the model wants), then either free text that holds no mark of a
call, or free text and one or several calls, then a stop mark. Every call is written as the dialect writes it, names one of the
tools and has arguments that the tool's schema allows. Control tokens in marks are tokens, never spelt-out text; a text that would
be read as a mark stands in no free text. Which form calls have is found out in `grammar_calls`; nothing here knows a model.

What it does not do: it does not say which tool is right, and it cannot finish a turn that the token limit cuts off. A form that
has no grammar (arguments as text inside JSON) and a schema that has none are refused in one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolhone.dialects.bare_json import BareJson
from toolhone.dialects.base import Dialect
from toolhone.dialects.derive import common_start
from toolhone.dialects.framed import ID_SLOT, NAME_SLOT, NUMBER_SLOT, Body, Framed
from toolhone.dialects.grammar_calls import WAY_OUT, Call, Form, call_of, form_of
from toolhone.dialects.grammar_styles import JsonStyle, text_until
from toolhone.dialects.grammar_values import Values
from toolhone.dialects.json_object import JsonObject
from toolhone.dialects.lark import ANY, Rules, exactly, found_in, in_turn, loosely, one_of, plain, up_to
from toolhone.dialects.loose_object import LooseObject
from toolhone.dialects.named_json import NamedJson
from toolhone.dialects.native import PROBE_TOOLS, NativeDialect
from toolhone.dialects.parameters import Parameters
from toolhone.dialects.python_calls import PythonCalls
from toolhone.dialects.thinking import USUAL
from toolhone.dialects.written import WrittenDialect
from toolhone.errors import DialectError
from toolhone.schema import Tool
from toolhone.tokenizer import TextTokenizer

_SLOT = re.compile(f"[{NAME_SLOT}{ID_SLOT}{NUMBER_SLOT}]")
_GAP = r"/[ \n]{1,2}/"
_WORD = r"A-Za-z0-9_.:\x2F\x{80}-\x{10FFFF}-"
_LINE = rf"[ \t]*([{_WORD}]+([^{_WORD}(\n][^\n]*)?|([^{_WORD} \t\n][^\n]*)?)"
"""The pattern of a line that the syntax `calls` cannot take for a call: it does not begin with a name and an opening bracket."""
_BARE_JSON = (
    r"\s*(\[\s*)?\{\s*([\"'](?s:.*))?",
    r'((?s:.*)\n)?[ \t]*(\[[ \t]*)?\{\s*"(name|type|parameters|arguments)"\s*:(?s:.*)',
)
"""The patterns of texts that the syntax `bare_json` takes for calls."""


def grammar_of(dialect: Dialect, tools: Sequence[Tool], tokenizer: TextTokenizer) -> str:
    """The grammar of an assistant's turn in this dialect with these tools. `DialectError` when there is none."""
    if not isinstance(dialect, NativeDialect | WrittenDialect):
        raise DialectError(f"the dialect {dialect.name!r} has no grammar; {WAY_OUT}")
    control = {text: index for text in tokenizer.control_texts if (index := tokenizer.control_id(text)) is not None}
    return _Turn(Rules(control), dialect, form_of(dialect, control)).grammar(tools)


class _Turn:
    """Puts the grammar of one dialect together."""

    def __init__(self, rules: Rules, dialect: NativeDialect | WrittenDialect, form: Form) -> None:
        self.rules, self.form, self.syntax, self.habits = rules, form, dialect.syntax, dialect.habits
        self.gap = f"{rules.terminal(_GAP)}?"
        self.mark = form.frame.before.lstrip()
        self.fixed = _SLOT.split(self.mark)[0].rstrip()
        """What the mark in front of a call always begins with; empty where there is none."""
        self.lead = (form.frame.lead if isinstance(dialect.syntax, Framed) else dialect.habits.lead).lstrip()

    def grammar(self, tools: Sequence[Tool]) -> str:
        rules, habits = self.rules, self.habits
        stop = rules.rule(one_of([f"<[{index}]>" for text in habits.stop if (index := rules.token(text)) is not None]))
        trail = f"({in_turn(*rules.terms(habits.trail))})?" if habits.trail else ""
        turns = [in_turn(self._text(), trail, stop)]
        if tools:
            turns.append(in_turn(self._calls(tools), self._text() if self.form.text_behind else "", trail, stop))
        return rules.grammar(in_turn(self._thought(), f"({one_of(turns)})"))

    def _thought(self) -> str:
        """Reasoning in front of all else."""
        thought = self.habits.thought
        if any(stop in thought.open + thought.close for stop in self.habits.stop):
            return ""
        closes = text_until(self.rules, thought.close)
        return closes if self.habits.opens_thought else f"({in_turn(self.gap, *self.rules.terms(thought.open), closes)})?"

    def _text(self) -> str:
        """Free text that is read as text; the syntax `json` has a form for it."""
        if isinstance(self.syntax, JsonObject):
            style = JsonStyle()
            return in_turn(self.gap, Values(self.rules, style, PROBE_TOOLS[0]).object_of([("final", style.string(self.rules))]))
        limits = [*self._limits(), *([self._sign()] if self.fixed else [])]
        lines = f"/{_LINE}(\\n{_LINE})*/ & " if self.form.lines else ""
        text = f"{self.rules.terminal(lines + plain(limits))}?"
        return in_turn(self.gap, *self.rules.terms(self.lead), text) if self.lead else text

    @property
    def _weak(self) -> bool:
        """Whether the mark in front of calls counts only where a line begins."""
        return isinstance(self.syntax, Framed) and self.form.frame.weak

    def _sign(self) -> str:
        """The pattern of the texts that hold what calls begin with."""
        return found_in(loosely(self.fixed), at_line=self._weak)

    def _limits(self) -> list[str]:
        """Patterns of the other texts that would be read as something else than plain text."""
        frame = self.form.frame
        parts = [part for mark in (frame.before, frame.after) for part in re.split(rf"[\s{_SLOT.pattern[1:-1]}]+", mark)]
        telling = [part for part in parts if len(part) > 2 and not part.replace("_", "").isalnum() and part not in self.fixed]
        opens = [thought.open for thought in (self.habits.thought, USUAL)]
        limits = [rf"\s*({'|'.join(map(exactly, dict.fromkeys(opens)))}){ANY}"]
        limits += [found_in("|".join(map(exactly, dict.fromkeys(telling))))] if telling else []
        limits += _BARE_JSON if isinstance(self.syntax, BareJson) else ()
        if isinstance(self.syntax, Framed) and not self.fixed:
            limits += [found_in(loosely(frame.between))] if frame.between and frame.between.strip() else []
            limits += [] if self.lead else [_begins(self.form.body)]
        return limits

    def _calls(self, tools: Sequence[Tool]) -> str:
        """One or several calls. A run of calls is told apart by the tool it ends in, since marks behind it may repeat the name."""
        if self.form.is_list:
            return self._list(tools)
        frame, rules = self.form.frame, self.rules
        left, right = _split(frame.after, frame.between or "")
        calls = [call_of(self.form, rules, tool) for tool in tools]
        runs = [rules.reserve() for _ in tools]
        begun = one_of([in_turn(run, *rules.terms(_named(left, tool))) for run, tool in zip(runs, tools, strict=True)])
        goes_on = rules.rule(begun) if frame.between is not None else ""
        for run, tool, call in zip(runs, tools, calls, strict=True):
            ways = [in_turn(self._opening(tool, call), call.rest)]
            if goes_on:
                ways.append(in_turn(goes_on, *rules.terms(_named(right, tool) + call.begins), call.rest))
            rules.define(run, one_of(ways))
        return rules.rule(
            one_of([in_turn(run, *rules.terms(_named(frame.after, tool))) for run, tool in zip(runs, tools, strict=True)])
        )

    def _list(self, tools: Sequence[Tool]) -> str:
        """All calls in one list."""
        if NAME_SLOT in self.mark + self.form.frame.after:
            raise DialectError(f"a list of calls whose marks repeat a tool's name has no grammar; {WAY_OUT}")
        rules = self.rules
        values = Values(rules, JsonStyle(), tools[0])
        item = rules.rule(one_of([call_of(self.form, rules, tool).rest for tool in tools]))
        calls = in_turn('"["', values.gap, f"{item} ({values.comma} {item})*", values.gap, '"]"')
        return in_turn(self._opening(tools[0], Call("", "")), calls, *rules.terms(self.form.frame.after))

    def _opening(self, tool: Tool, call: Call) -> str:
        """What stands in front of the first call: text where there may be some, the mark, and what the call begins with."""
        rules, begins = self.rules, _named(self.mark, tool) + call.begins
        if self.form.lines:
            limits = " & ".join(f"~/{pattern}/" for pattern in self._limits())
            return rules.terminal(rf"/({_LINE}\n)*[ \t]*{exactly(begins)}/ & {limits}")
        if not self.fixed or self.lead:
            return f"({one_of([in_turn(self.gap, *rules.terms(begins)), *self._behind_answer(call)])})"
        first = rules.parts(self.fixed)[0]
        rest = rules.terms(begins[len(first) :])
        if rules.token(first) is not None:
            text = rules.terminal(plain([*self._limits(), self._sign()]))
            return in_turn(f"{text}?", *rules.terms(first), *rest)
        return in_turn(rules.terminal(up_to(exactly(first), loosely(first), self._limits(), at_line=self._weak)), *rest)

    def _behind_answer(self, call: Call) -> list[str]:
        """A first call behind an answer with its lead, where the mark between two calls can also stand behind an answer."""
        between = (self.form.frame.between or "").strip()
        if self.fixed or not self.lead or not between or _SLOT.search(between):
            return []
        rules, first = self.rules, self.rules.parts(between)[0]
        rest = rules.terms(between[len(first) :] + call.begins)
        sign = found_in(loosely(first))
        limits = [limit for limit in self._limits() if limit != found_in(loosely(between))]
        if rules.token(first) is not None:
            return [
                in_turn(self.gap, *rules.terms(self.lead), f"{rules.terminal(plain([*limits, sign]))}?", *rules.terms(first), *rest)
            ]
        return [in_turn(self.gap, *rules.terms(self.lead), rules.terminal(up_to(exactly(first), loosely(first), limits)), *rest)]


def _named(mark: str, tool: Tool) -> str:
    return mark.replace(NAME_SLOT, tool.name)


def _split(after: str, between: str) -> tuple[str, str]:
    """What stands between two calls, cut where the mark that repeats the first call's name ends."""
    end = common_start(after, between).rfind(NAME_SLOT) + 1
    return between[:end], between[end:]


def _begins(body: Body) -> str:
    """The pattern of the texts that begin as a call without any mark does."""
    match body:
        case NamedJson(name_first=True) | LooseObject():
            return rf"\s*[^\n{{]*\s*\"?\{{{ANY}"
        case PythonCalls():
            return rf"\s*[^\s()\[\]{{}},=\"']+\s*\({ANY}"
        case Parameters():
            return found_in(loosely(body.separates))
    return rf"\s*[{{\[\"]{ANY}"
