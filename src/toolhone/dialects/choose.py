"""Which dialect or call syntax a name means.

open_dialect(tokenizer, "native")                       # a dialect of this model
open_syntax("json").read('{"tool": "f", "args": {}}')   # a call syntax alone, without a model
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from toolhone.dialects.chat_template.sanitise import TemplateMarkup
from toolhone.dialects.interface import Dialect
from toolhone.dialects.probe.prove import prove_template
from toolhone.dialects.prompted import MARKUPS, PromptedDialect
from toolhone.dialects.syntax.model_text import PromptedSyntax, Tagged, ToolCallTags
from toolhone.dialects.syntax.unmarked import BareJson, Calls, JsonObject, PythonList
from toolhone.errors import DialectError, nearest
from toolhone.schema import Json
from toolhone.tokenizer import TextTokenizer

SYNTAXES: Mapping[str, Callable[[], PromptedSyntax]] = {
    syntax.name: syntax
    for syntax in (JsonObject, Calls, PythonList, Tagged, ToolCallTags, BareJson)
}
PROMPTED = ("json", "calls", "tagged", "bfcl")
DIALECTS = ("auto", "native", *PROMPTED)
MARKUP_NAMES = ("auto", *MARKUPS)


@dataclass(frozen=True)
class FormatRequest:
    """The format that a model section asks for.

    keep_history: earlier turns stay as they were generated where the template rewrites them.
    template_kwargs: keywords for the template; None uses those that its proof finds. inline_refs:
    the template gets schemas of tools without references; None: where it loses these.
    """

    dialect: str = "auto"
    markup: str = "auto"
    keep_history: bool = False
    template_kwargs: Mapping[str, Json] | None = None
    inline_refs: bool | None = None


def open_dialect(
    tokenizer: TextTokenizer,
    dialect: str = "auto",
    markup: str = "auto",
    keep_history: bool = False,
    template_kwargs: Mapping[str, Json] | None = None,
    inline_refs: bool | None = None,
) -> Dialect:
    """Open a dialect by name: native, json, calls, tagged or bfcl. `auto` is native.

    There is no fallback: a model that is trained in another form than it is used in has learnt
    nothing. The markup `auto` is the model's template; without one, ChatML if `<|im_end|>` is a
    token, else plain text. `DialectError` when a name is unknown or the dialect cannot be used.
    """
    for what, name, names in (("dialect", dialect, DIALECTS), ("markup", markup, MARKUP_NAMES)):
        if name not in names:
            raise unknown_name(what, name, names)
    if dialect not in PROMPTED:
        if markup in ("auto", "template"):
            return prove_template(tokenizer, template_kwargs, keep_history, inline_refs)
        raise DialectError(
            f"the native dialect is the model's own template; model.markup={markup} goes with "
            "model.dialect=json, calls, tagged or bfcl"
        )
    syntax = SYNTAXES[dialect]()
    if markup == "auto" and not tokenizer.wrapped.chat_template:
        markup = "plain" if tokenizer.control_id("<|im_end|>") is None else "chatml"
    if markup in ("chatml", "plain"):
        return PromptedDialect(syntax, MARKUPS[markup](tokenizer), tokenizer, keep_history)
    tried = [{}, {"enable_thinking": False}] if template_kwargs is None else [template_kwargs]
    reasons = []
    for kwargs in tried:
        try:
            template = TemplateMarkup(tokenizer, kwargs)
            return PromptedDialect(syntax, template, tokenizer, keep_history)
        except DialectError as error:
            reasons.append(str(error))
    wrong = f"the model's own template cannot be used: {reasons[0]}"
    raise DialectError(f"{wrong}; pass model.markup=chatml or plain")


def open_syntax(name: str) -> PromptedSyntax:
    """Return the call syntax of this name, to read texts without a model."""
    if name not in SYNTAXES:
        raise unknown_name("dialect", name, tuple(SYNTAXES))
    return SYNTAXES[name]()


def unknown_name(what: str, name: str, names: Sequence[str]) -> DialectError:
    """Return the error for a name that is not known; it names the nearest one."""
    return DialectError(f"no {what} {name!r}{nearest(name, names)}; known: {', '.join(names)}")
