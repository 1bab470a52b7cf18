"""Which dialect a model gets: `open_dialect`.

    native   the model's own template, when the proof in `probe.py` succeeds; refused in one sentence when not
    auto     the same: there is no silent falling back, since a model trained in another form than it is used in has learnt nothing
    json     {"tool": ..., "args": {...}} or {"final": ...}
    calls    name(argument=value)
    tagged   [TOOL_CALL]{...}[/TOOL_CALL]

The last three, and the native forms `tool_call_tags` and `bare_json`, are written into a chat by the model's own template, by
ChatML or as plain text; `auto` takes the first of these that the tokenizer allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from toolhone.dialects.bare_json import BareJson
from toolhone.dialects.base import Dialect, Syntax
from toolhone.dialects.calls import Calls
from toolhone.dialects.json_object import JsonObject
from toolhone.dialects.markup import ChatML, Plain, TemplateMarkup
from toolhone.dialects.native import NativeDialect
from toolhone.dialects.probe import prove_native
from toolhone.dialects.tagged import Tagged
from toolhone.dialects.tool_call_tags import ToolCallTags
from toolhone.dialects.written import WrittenDialect
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
MARKUPS: Mapping[str, Callable[[TextTokenizer], TemplateMarkup | ChatML | Plain]] = {
    "template": TemplateMarkup,
    "chatml": ChatML,
    "plain": Plain,
}
DIALECTS = ("auto", "native", *SYNTAXES)


def open_dialect(tokenizer: TextTokenizer, dialect: str = "auto", markup: str = "auto") -> Dialect:
    """The dialect of this name for this tokenizer. `DialectError` when it does not exist or cannot be used."""
    _known("dialect", dialect, DIALECTS)
    _known("markup", markup, ("auto", *MARKUPS))
    if dialect not in ("auto", "native"):
        return _written(tokenizer, SYNTAXES[dialect](), markup)
    if markup not in ("auto", "template"):
        raise DialectError(
            f"the native dialect is the model's own template; model.markup={markup} goes with model.dialect=json, calls or tagged"
        )
    return prove_native(tokenizer)


def open_syntax(name: str) -> Syntax:
    """The call syntax of this name, to read texts without a model."""
    _known("dialect", name, tuple(SYNTAXES))
    return SYNTAXES[name]()


def dialect_fingerprint(dialect: Dialect) -> dict[str, Json]:
    """What a run record says about its dialect: enough to notice that another run had another one."""
    result: dict[str, Json] = {"name": dialect.name, "stop": list(dialect.stop)}
    if isinstance(dialect, NativeDialect | WrittenDialect):
        template = dialect.markup.hash if isinstance(dialect.markup, TemplateMarkup) else None
        result |= {"markup": dialect.markup.name, "syntax": dialect.syntax.name, "template_sha256": template}
    if isinstance(dialect, NativeDialect):
        manner = dialect.manner
        result |= {"arguments": manner.arguments, "empty_content": manner.empty, "reasoning_field": manner.reasoning}
    return result


def _written(tokenizer: TextTokenizer, syntax: Syntax, markup: str) -> Dialect:
    reasons: list[str] = []
    for name in MARKUPS if markup == "auto" else (markup,):
        try:
            return WrittenDialect(syntax, MARKUPS[name](tokenizer), tokenizer)
        except DialectError as error:
            reasons.append(f"{name}: {error}")
    raise DialectError(f"no chat markup can be used with this tokenizer ({'; '.join(reasons)})")


def _known(what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise DialectError(f"there is no {what} {name!r}{nearest(name, names)}; known: {', '.join(names)}")
