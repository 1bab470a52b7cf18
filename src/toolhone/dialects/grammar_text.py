"""Free text in a grammar: what an assistant may say without its being read as a call, and text in front of a call.

    free = FreeText(rules, form, syntax, habits)
    free.text                    the term for free text, the empty one included
    free.before(mark)            the term for free text and, behind it, the mark of a call

What is forbidden follows the readers: the marks that betray a call (`Frame.signs`), what begins a call of a form without marks, and
what begins a thought. A mark that plain text may hold (`[`, for instance) counts as the reader counts it: where a call's beginning
follows, or where a line begins. Where text in front of such a mark cannot be told from the call, calls stand alone.
"""

from __future__ import annotations

from functools import cached_property

from toolhone.dialects.base import Syntax
from toolhone.dialects.chat_template.turns import TemplateBehaviour
from toolhone.dialects.grammar_calls import CallForm
from toolhone.dialects.lark import (
    ANY,
    GrammarRules,
    exactly,
    found_in,
    in_turn,
    loosely,
    plain,
    up_to,
    up_to_line,
)
from toolhone.dialects.syntax.bare_json import BareJson
from toolhone.dialects.syntax.delimited import ID_SLOT, NAME_SLOT, NUMBER_SLOT, DelimitedSyntax
from toolhone.dialects.syntax.json_bodies import NamedJson
from toolhone.dialects.syntax.loose_object import LooseObject
from toolhone.dialects.syntax.model_text import USUAL
from toolhone.dialects.syntax.parameters import Parameters
from toolhone.dialects.syntax.python_calls import PythonCalls
from toolhone.dialects.syntax.tagged import Tagged

_GAP = r"/[ \n]{1,2}/"
_WORD = r"A-Za-z0-9_.:\x2F\x{80}-\x{10FFFF}-"
_LINE = rf"[ \t]*([{_WORD}]+([^{_WORD}(\n][^\n]*)?|([^{_WORD} \t\n][^\n]*)?)"
"""The pattern of a line that the syntax `calls` cannot take for a call: it does not begin with a name and an opening bracket."""
_BARE_JSON = (
    r"\s*(\[\s*)?\{\s*([\"'](?s:.*))?",
    r'((?s:.*)\n)?[ \t]*(\[[ \t]*)?\{\s*"(name|type|parameters|arguments)"\s*:(?s:.*)',
)
"""The patterns of texts that the syntax `bare_json` takes for calls."""
_NAME_AND_BRACKET = r"[^\s()\[\]{},=\"']+\s*\("


class FreeText:
    """What may stand beside the calls of one form."""

    def __init__(
        self, rules: GrammarRules, form: CallForm, syntax: Syntax, habits: TemplateBehaviour
    ) -> None:
        self._rules, self._form, self._syntax, self._habits = rules, form, syntax, habits
        self.gap = f"{rules.terminal(_GAP)}?"
        self.lead = (
            form.frame.lead if isinstance(syntax, DelimitedSyntax) else habits.lead
        ).lstrip()
        fixed = form.frame.before.lstrip()
        for slot in (NAME_SLOT, ID_SLOT, NUMBER_SLOT):
            fixed = fixed.partition(slot)[0]
        self._fixed = fixed.rstrip()
        """What the mark in front of a call always begins with; empty where there is none."""

    @cached_property
    def text(self) -> str:
        """Free text, with what the markup writes in front of it."""
        lines = f"/{_LINE}(\\n{_LINE})*/ & " if self._form.lines else ""
        text = f"{self._rules.terminal(lines + plain([*self._forbidden, *self._signs]))}?"
        return in_turn(self.gap, *self._rules.terms(self.lead), text) if self.lead else text

    def before(self, mark: str, begins: str) -> str:
        """Free text and behind it the mark with what the call begins with."""
        rules, whole = self._rules, mark + begins
        if self._form.lines:
            limits = " & ".join(f"~/{pattern}/" for pattern in self._forbidden)
            return rules.terminal(rf"/({_LINE}\n)*[ \t]*{exactly(whole)}/ & {limits}")
        alone = in_turn(self.gap, *rules.terms(whole))
        if self.lead or not self._fixed:
            return f"({alone} | {behind})" if (behind := self._behind_answer(begins)) else alone
        first = rules.parts(self._fixed)[0]
        rest = rules.terms(whole[len(first) :])
        if self._weak:
            return self._before_weak(whole, first, rest)
        betraying = next(iter(self._betraying), "")
        if rules.token(first) is not None and self._fixed.startswith(betraying or "\n"):
            return in_turn(
                f"{rules.terminal(plain([*self._forbidden, *self._signs]))}?",
                *rules.terms(first),
                *rest,
            )
        sign = betraying if betraying in first else first if betraying.startswith(first) else ""
        if not sign or rules.token(first) is not None:
            return alone
        others = [found_in(exactly(other)) for other in self._betraying[1:]]
        space = len(first) - first.find(sign) - len(sign)
        return in_turn(
            rules.terminal(
                up_to(exactly(first), exactly(sign), [*self._forbidden, *others], behind=space)
            ),
            *rest,
        )

    def _before_weak(self, whole: str, first: str, rest: list[str]) -> str:
        """The same for a mark that plain text may hold; without text where text and call cannot be told apart.

        The mark is one terminal, since free text goes on until a call's beginning shows behind it.
        """
        rules = self._rules
        if any(rules.token(part) is not None for part in rules.parts(whole)):
            return in_turn(self.gap, *rules.terms(whole))
        others = [found_in(exactly(other)) for other in self._betraying]
        if not self._form.body.begins:
            return in_turn(
                rules.terminal(up_to_line(exactly(first), [*self._forbidden, *others])), *rest
            )
        if isinstance(self._form.body, PythonCalls) and rules.parts(whole) == [whole]:
            overlap = f"{ANY}{exactly(whole[0])}{exactly(whole)}"
            return rules.terminal(
                up_to(exactly(whole), self._weak_sign, [*self._forbidden, *others, overlap])
            )
        return rules.terminal(rf"/[ \n]{{0,2}}{exactly(whole)}/")

    def _behind_answer(self, begins: str) -> str:
        """A first call behind an answer with its lead, where the mark between two calls can also stand behind an answer."""
        between = (self._form.frame.between or "").strip()
        if self._fixed or not self.lead or not between or NAME_SLOT in between:
            return ""
        rules, first = self._rules, self._rules.parts(between)[0]
        rest = rules.terms(between[len(first) :] + begins)
        if rules.token(first) is not None:
            text = in_turn(
                f"{rules.terminal(plain([*self._forbidden, found_in(loosely(first))]))}?",
                *rules.terms(first),
            )
        else:
            text = rules.terminal(up_to(exactly(first), loosely(first), self._forbidden))
        return in_turn(self.gap, *rules.terms(self.lead), text, *rest)

    @property
    def _weak(self) -> bool:
        return isinstance(self._syntax, DelimitedSyntax) and self._form.frame.weak

    @cached_property
    def _betraying(self) -> tuple[str, ...]:
        """Marks that are read as a sign of a call wherever they stand, the one that begins a call first."""
        if isinstance(self._syntax, DelimitedSyntax):
            return tuple(mark for mark, _ in self._form.frame.signs)
        return (self._syntax.open, self._syntax.close) if isinstance(self._syntax, Tagged) else ()

    @property
    def _weak_sign(self) -> str:
        """The pattern for a mark that plain text may hold, with the beginning of a call behind it."""
        begins = (
            _NAME_AND_BRACKET
            if isinstance(self._form.body, PythonCalls)
            else self._form.body.begins
        )
        return loosely(self._form.frame.before.strip()) + (rf"\s*{begins}" if begins else "")

    @cached_property
    def _signs(self) -> list[str]:
        """The patterns of texts that hold a call, or a sign of one."""
        signs = [found_in("|".join(map(exactly, self._betraying)))] if self._betraying else []
        if self._weak and self._fixed:
            signs.append(found_in(self._weak_sign, at_line=not self._form.body.begins))
        if isinstance(self._syntax, DelimitedSyntax) and not self._fixed:
            between = self._form.frame.between or ""
            signs += [found_in(loosely(between))] if between.strip() else []
            signs += [] if self.lead else [self._beginning]
        return signs

    @cached_property
    def _forbidden(self) -> list[str]:
        """The patterns of texts that begin a thought, or that a syntax without marks takes for calls."""
        opens = dict.fromkeys(thought.open for thought in (self._habits.thought, USUAL))
        whole = [rf"\s*({'|'.join(map(exactly, opens))}){ANY}"]
        return [*whole, *(_BARE_JSON if isinstance(self._syntax, BareJson) else ())]

    @property
    def _beginning(self) -> str:
        """The pattern of the texts that begin as a call without any mark does."""
        match self._form.body:
            case NamedJson(name_first=True) | LooseObject():
                return rf"\s*[^\n{{]*\s*\"?\{{{ANY}"
            case PythonCalls():
                return rf"\s*{_NAME_AND_BRACKET}{ANY}"
            case Parameters() as body:
                return found_in(loosely(body.separates))
        return rf"\s*[{{\[\"]{ANY}"
