"""Which dialect a model gets: `open_dialect`.

    native   the model's own template, when the proof in `probe.py` succeeds; refused in one sentence when not
    auto     the same: there is no silent falling back, since a model trained in another form than it is used in has learnt nothing
    json     {"tool": ..., "args": {...}} or {"final": ...}
    calls    name(argument=value)
    tagged   [TOOL_CALL]{...}[/TOOL_CALL]

The last three are written into a chat by the model's own template, by ChatML or as plain text. The markup `auto` is the model's
template; where there is none, ChatML if `<|im_end|>` is a token of the tokenizer, else plain text. `open_syntax` opens a call
syntax alone, to read texts that were written elsewhere; it also knows the native forms `tool_call_tags` and `bare_json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from toolhone.dialects.base import Dialect, Syntax
from toolhone.dialects.chat_template.markup import ChatML, PlainMarkup, TemplateMarkup
from toolhone.dialects.chat_template.render import ChatTemplateDialect
from toolhone.dialects.probe.prove import prove_template
from toolhone.dialects.prompted import PromptedDialect
from toolhone.dialects.syntax.bare_json import BareJson
from toolhone.dialects.syntax.json_object import JsonObject
from toolhone.dialects.syntax.python_calls import Calls
from toolhone.dialects.syntax.tagged import Tagged, ToolCallTags
from toolhone.errors import DialectError, nearest
from toolhone.schema import Json
from toolhone.tokenizer import TextTokenizer

SYNTAXES: Mapping[str, Callable[[], Syntax]] = {
    "json": JsonObject,
    "calls": Calls,
    "tagged": Tagged,
    "tool_call_tags": ToolCallTags,
    "bare_json": BareJson,
}
MARKUPS: Mapping[str, Callable[[TextTokenizer], TemplateMarkup | ChatML | PlainMarkup]] = {
    "template": TemplateMarkup,
    "chatml": ChatML,
    "plain": PlainMarkup,
}
WRITTEN = ("json", "calls", "tagged")
DIALECTS = ("auto", "native", *WRITTEN)


def open_dialect(
    tokenizer: TextTokenizer,
    dialect: str = "auto",
    markup: str = "auto",
    kept: bool = False,
    switches: Mapping[str, Json] | None = None,
) -> Dialect:
    """The dialect of this name for this tokenizer. `DialectError` when it does not exist or cannot be used.

    kept: earlier turns stay as they were said where the template would rewrite them. switches: keywords for the template; None:
    what its proof finds.
    """
    _known("dialect", dialect, DIALECTS)
    _known("markup", markup, ("auto", *MARKUPS))
    if dialect not in ("auto", "native"):
        return _written(tokenizer, SYNTAXES[dialect](), markup, kept, switches)
    if markup not in ("auto", "template"):
        raise DialectError(
            f"the native dialect is the model's own template; model.markup={markup} goes with model.dialect=json, calls or tagged"
        )
    return prove_template(tokenizer, switches, kept)


def open_syntax(name: str) -> Syntax:
    """The call syntax of this name, to read texts without a model."""
    _known("dialect", name, tuple(SYNTAXES))
    return SYNTAXES[name]()


def dialect_fingerprint(dialect: Dialect) -> dict[str, Json]:
    """What a run record says about its dialect: enough to notice that another run had another one."""
    result: dict[str, Json] = {"name": dialect.name, "stop": list(dialect.stop)}
    if isinstance(dialect, ChatTemplateDialect | PromptedDialect):
        result |= {"markup": dialect.markup.name, "syntax": dialect.syntax.name}
        if isinstance(dialect.markup, TemplateMarkup):
            result |= {"template_sha256": dialect.markup.hash, "switches": dialect.markup.switches}
    if isinstance(dialect, ChatTemplateDialect):
        manner = dialect.manner
        result |= {
            "arguments": manner.arguments,
            "empty_content": manner.empty,
            "reasoning_field": manner.reasoning is not None,
        }
    return result


def _written(
    tokenizer: TextTokenizer,
    syntax: Syntax,
    markup: str,
    kept: bool,
    switches: Mapping[str, Json] | None,
) -> Dialect:
    if markup in ("chatml", "plain"):
        return PromptedDialect(syntax, MARKUPS[markup](tokenizer), tokenizer, kept)
    if markup == "auto" and not tokenizer.wrapped.chat_template:
        own = "chatml" if tokenizer.control_id("<|im_end|>") is not None else "plain"
        return PromptedDialect(syntax, MARKUPS[own](tokenizer), tokenizer, kept)
    reasons = []
    for wanted in [switches] if switches is not None else [{}, {"enable_thinking": False}]:
        try:
            return PromptedDialect(syntax, TemplateMarkup(tokenizer, wanted), tokenizer, kept)
        except DialectError as error:
            reasons.append(str(error))
    raise DialectError(
        f"the model's own template cannot be used: {reasons[0]}; pass model.markup=chatml or plain"
    )


def _known(what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise DialectError(
            f"there is no {what} {name!r}{nearest(name, names)}; known: {', '.join(names)}"
        )
