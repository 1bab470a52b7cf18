"""The certificate of a format: the proof that a dialect works with this tokenizer and template.

dialect, certificate = certify(tokenizer, FormatRequest("auto"))   # None when it is refused
certificate.save(run)                                              # run/certificate.json
check_same(Certificate.read(run), certificate, "runs/first")       # `DialectError` names changes
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from toolhone.dialects.base import Dialect
from toolhone.dialects.chat_template.dialect import ChatTemplateDialect, MarkupDialect
from toolhone.dialects.chat_template.sanitise import TemplateMarkup
from toolhone.dialects.probe.facts import TemplateFact, cures, examine
from toolhone.dialects.probe.prove import find_limits, prove_template
from toolhone.dialects.prompted import MARKUPS, SYNTAXES, PromptedDialect, unknown_name
from toolhone.dialects.syntax.delimited import DelimitedSyntax
from toolhone.errors import DialectError
from toolhone.runs.run import read_json, write_json
from toolhone.schema import Json
from toolhone.tokenizer import TextTokenizer

FILE = "certificate.json"
PROMPTED = ("json", "calls", "tagged")
DIALECTS = ("auto", "native", *PROMPTED)
MARKUP_NAMES = ("auto", *MARKUPS)
LIBRARIES = ("toolhone", "transformers", "tokenizers", "jinja2")


class CertificateVerdict(StrEnum):
    """How the examination ended."""

    CERTIFIED = "certified"
    """All that a conversation can hold is written and read back."""
    LIMITED = "certified with limits"
    """Safe to use; the limits name what it cannot write, and such rows are refused."""
    REFUSED = "refused"
    """Calls would be lost; name another dialect."""


@dataclass(frozen=True)
class FormatRequest:
    """The format that a model section asks for.

    keep_history: earlier turns stay as they were generated where the template rewrites them.
    template_kwargs: keywords for the template; None uses those that its proof finds.
    """

    dialect: str = "auto"
    markup: str = "auto"
    keep_history: bool = False
    template_kwargs: Mapping[str, Json] | None = None


class Certificate(BaseModel):
    """What was requested, found and proved; `reason` says why a format was refused.

    Two certificates describe the same format when their hashes are equal.
    """

    model_config = ConfigDict(frozen=True)

    verdict: CertificateVerdict
    limits: tuple[str, ...] = ()
    reason: str = ""
    dialect: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    versions: dict[str, str] = {}
    findings: tuple[TemplateFact, ...] = ()

    @field_validator("dialect")
    @classmethod
    def _check_stop(cls, dialect: dict[str, Any]) -> dict[str, Any]:
        stop = dialect.get("stop", [])
        if not isinstance(stop, list) or not all(isinstance(mark, str) for mark in stop):
            raise ValueError(f"'stop' is {stop!r:.60}, wanted a list of texts")
        return dialect

    def to_dict(self) -> dict[str, Json]:
        """Return the certificate as its file holds it: without an empty reason or `why`."""
        result = self.model_dump(mode="json")
        for entry, key in ((result, "reason"), *((fact, "why") for fact in result["findings"])):
            if not entry[key]:
                del entry[key]
        return result

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, self.to_dict())

    @staticmethod
    def read(folder: Path) -> Certificate | None:
        """Read the certificate in a folder; None without one, `DialectError` for a damaged one."""
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            return Certificate.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise DialectError(
                f"{path} is no certificate of a format: {place}: {first['msg']}"
            ) from None


def open_dialect(
    tokenizer: TextTokenizer,
    dialect: str = "auto",
    markup: str = "auto",
    keep_history: bool = False,
    template_kwargs: Mapping[str, Json] | None = None,
) -> Dialect:
    """Open a dialect by name: native, json, calls or tagged. `auto` is native.

    There is no fallback: a model that is trained in another form than it is used in has learnt
    nothing. The markup `auto` is the model's template; without one, ChatML if `<|im_end|>` is a
    token, else plain text. `DialectError` when a name is unknown or the dialect cannot be used.
    """
    for what, name, names in (("dialect", dialect, DIALECTS), ("markup", markup, MARKUP_NAMES)):
        if name not in names:
            raise unknown_name(what, name, names)
    if dialect not in PROMPTED:
        if markup in ("auto", "template"):
            return prove_template(tokenizer, template_kwargs, keep_history)
        raise DialectError(
            f"the native dialect is the model's own template; model.markup={markup} goes with "
            "model.dialect=json, calls or tagged"
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
    raise DialectError(
        f"the model's own template cannot be used: {reasons[0]}; pass model.markup=chatml or plain"
    )


def certify(tokenizer: TextTokenizer, request: FormatRequest) -> tuple[Dialect | None, Certificate]:
    """Examine the template and prove the requested dialect; it is None when it is refused."""
    template = tokenizer.wrapped.chat_template
    facts = _examine(tokenizer, request)
    hashes = {
        "template": _hash(
            template if isinstance(template, str) else json.dumps(template, sort_keys=True)
        )
        if template
        else "",
        "tokenizer": tokenizer_hash(tokenizer),
    }
    versions = {name: metadata.version(name) for name in LIBRARIES}
    try:
        dialect = open_dialect(
            tokenizer,
            request.dialect,
            request.markup,
            request.keep_history,
            request.template_kwargs,
        )
    except DialectError as error:
        return None, Certificate(
            verdict=CertificateVerdict.REFUSED,
            reason=str(error),
            hashes=hashes,
            versions=versions,
            findings=tuple(facts),
        )
    described = describe(dialect)
    hashes["dialect"] = _hash(json.dumps(described, sort_keys=True))
    if described.get("markup") != "template":
        hashes["template"] = ""
    limits = find_limits(dialect)
    return dialect, Certificate(
        verdict=CertificateVerdict.LIMITED if limits else CertificateVerdict.CERTIFIED,
        limits=tuple(limits),
        dialect=described,
        hashes=hashes,
        versions=versions,
        findings=(
            *facts,
            TemplateFact("calls are read back", "yes", False, f"written as {described['syntax']}"),
            TemplateFact("what ends a turn", " or ".join(dialect.stop)),
            TemplateFact("history", dialect.history.value),
        ),
    )


def open_certified(tokenizer: TextTokenizer, request: FormatRequest) -> tuple[Dialect, Certificate]:
    """Return the dialect with its certificate; `DialectError` when it is refused."""
    dialect, certificate = certify(tokenizer, request)
    if dialect is None:
        raise DialectError(certificate.reason)
    return dialect, certificate


def check_same(
    trained: Certificate, now: Certificate, where: str, on_purpose: bool = False
) -> None:
    """Raise `DialectError` when a model would be used in another format than it was trained in.

    on_purpose: the user named another dialect. That excuses the dialect, but no other tokenizer,
    and no other template.
    """
    different = [
        name
        for name in ("template", "tokenizer", "dialect")
        if trained.hashes.get(name) != now.hashes.get(name)
    ]
    if on_purpose:
        both = trained.hashes.get("template") and now.hashes.get("template")
        excused = ("dialect",) if both else ("dialect", "template")
        different = [name for name in different if name not in excused]
    if not different:
        return
    keys = ("name", "syntax", "markup", "history", "switches", "stop")
    pairs = [(key, trained.dialect.get(key), now.dialect.get(key)) for key in keys]
    changes = [
        f"{key} {json.dumps(old, ensure_ascii=False)[:60]} -> "
        f"{json.dumps(new, ensure_ascii=False)[:60]}"
        for key, old, new in pairs
        if old != new
    ]
    detail = f" ({'; '.join(changes[:4])})" if changes else ""
    raise DialectError(
        f"{where} was trained in another format than it would be used in: "
        f"{' and '.join(different)} differ{detail}; use the model with the tokenizer and template "
        "it was trained with, or name a dialect to use another format on purpose (--dialect)"
    )


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
        "habits": asdict(dialect.behaviour),
    }
    if isinstance(markup, TemplateMarkup):
        result |= {"template_sha256": markup.hash, "switches": markup.template_kwargs}
    if isinstance(dialect, ChatTemplateDialect):
        quirks = dialect.writer.quirks
        result |= {
            "arguments": quirks.arguments,
            "empty_content": quirks.empty,
            "reasoning_field": quirks.reasoning is not None,
            "form": asdict(syntax) if isinstance(syntax, DelimitedSyntax) else syntax.name,
        }
    return dict(json.loads(json.dumps(result)))


def tokenizer_hash(tokenizer: TextTokenizer) -> str:
    """Hash vocabulary, merges, added tokens and the end-of-text token."""
    return _hash(tokenizer.identity())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _examine(tokenizer: TextTokenizer, request: FormatRequest) -> list[TemplateFact]:
    if not tokenizer.wrapped.chat_template:
        needed = request.dialect not in PROMPTED
        why = "the tokenizer has no chat template"
        return [TemplateFact("template", "none", needed, why)]
    markup = TemplateMarkup(tokenizer, request.template_kwargs)
    return [*examine(markup), *cures(tokenizer, markup)]
