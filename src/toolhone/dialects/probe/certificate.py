"""The certificate of a format: the proof that a dialect works with this tokenizer and this template, as a file.

    dialect, certificate = certify(tokenizer, Wanted("auto"))       # dialect is None when the verdict is `refused`
    certificate.save(run)                                           # run/certificate.json
    check_same(Certificate.read(run), certificate, "runs/first")    # `DialectError` that says what differs

A certificate names every probe with its finding, the dialect that was derived (marks, end marks, switches), hashes of template,
tokenizer and dialect, and the versions it was made with. Two certificates speak of the same format when their hashes are equal;
other versions of a library alone do not matter, since the proof is made anew each time a dialect is opened. Nothing here trains,
samples or names a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from toolhone.dialects.base import Dialect, History, Syntax
from toolhone.dialects.chat_template.markup import CheckedMarkup, TemplateMarkup
from toolhone.dialects.chat_template.render import ChatTemplateDialect
from toolhone.dialects.probe.capability_checks import capability_checks, parts_of_tools
from toolhone.dialects.probe.facts import TemplateFact, cures, examine
from toolhone.dialects.probe.prove import prove_template
from toolhone.dialects.prompted import MARKUPS, SYNTAXES, PromptedDialect, check_name
from toolhone.dialects.syntax.delimited import DelimitedSyntax
from toolhone.errors import DialectError
from toolhone.runs.run import read_json, write_json
from toolhone.schema import Json
from toolhone.tokenizer import TextTokenizer

FILE = "certificate.json"
WRITTEN = ("json", "calls", "tagged")
DIALECTS = ("auto", "native", *WRITTEN)
LIBRARIES = ("toolhone", "transformers", "tokenizers", "jinja2")


class CertificateVerdict(StrEnum):
    """How the examination ended."""

    CERTIFIED = "certified"
    """Everything that a conversation can say is written and read back."""
    LIMITED = "certified with limits"
    """Safe to use; what it cannot say is named, and such rows are refused."""
    REFUSED = "refused"
    """Calls would be lost; another dialect has to be named."""


@dataclass(frozen=True)
class FormatRequest:
    """Which format is asked for: the keys of the same names in `model`."""

    dialect: str = "auto"
    markup: str = "auto"
    kept: bool = False
    switches: Mapping[str, Json] | None = None


@dataclass(frozen=True)
class Certificate:
    """What was asked, found and proved. `reason` says why a format was refused."""

    verdict: CertificateVerdict
    limits: tuple[str, ...] = ()
    reason: str = ""
    dialect: Mapping[str, Json] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[TemplateFact, ...] = ()

    def to_dict(self) -> dict[str, Json]:
        return {
            "verdict": self.verdict.value,
            "limits": list(self.limits),
            **({"reason": self.reason} if self.reason else {}),
            "dialect": dict(self.dialect),
            "hashes": dict(self.hashes),
            "versions": dict(self.versions),
            "findings": [finding.to_dict() for finding in self.findings],
        }

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> Certificate:
        """The certificate that `to_dict` wrote; `KeyError` or `ValueError` for anything else."""
        found = tuple(
            TemplateFact(
                str(one["probe"]),
                str(one["found"]),
                bool(one.get("fault")),
                str(one.get("why", "")),
            )
            for one in _entries(source, "findings", dict)
        )
        dialect = _object(source, "dialect")
        _entries(dialect, "stop", str)
        return Certificate(
            CertificateVerdict(source["verdict"]),
            _entries(source, "limits", str),
            str(source.get("reason", "")),
            dialect,
            _object(source, "hashes", str),
            _object(source, "versions", str),
            found,
        )

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, self.to_dict())

    @staticmethod
    def read(folder: Path) -> Certificate | None:
        """The certificate in a folder; None where there is none. `DialectError` for one that is damaged."""
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            return Certificate.from_dict(read_json(path))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise DialectError(f"{path} is no certificate of a format: {error!r:.120}") from None


def _entries(source: Mapping[str, Json], key: str, kind: type) -> tuple[Any, ...]:
    """The list under a key, nothing where there is none; all its entries are of this kind."""
    value = source.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, kind) for one in value):
        raise ValueError(
            f"{key!r} is {value!r:.60}, wanted a list with entries of type {kind.__name__}"
        )
    return tuple(value)


def _object(source: Mapping[str, Json], key: str, kind: type = object) -> dict[str, Any]:
    """The object under a key, empty where there is none; all its values are of this kind."""
    value = source.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(one, kind) for one in value.values()):
        raise ValueError(
            f"{key!r} is {value!r:.60}, wanted an object"
            + (f" with values of type {kind.__name__}" if kind is not object else "")
        )
    return dict(value)


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
    check_name("dialect", dialect, DIALECTS)
    check_name("markup", markup, ("auto", *MARKUPS))
    if dialect not in ("auto", "native"):
        return _written(tokenizer, SYNTAXES[dialect](), markup, kept, switches)
    if markup not in ("auto", "template"):
        raise DialectError(
            f"the native dialect is the model's own template; model.markup={markup} goes with model.dialect=json, calls or tagged"
        )
    return prove_template(tokenizer, switches, kept)


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


def certify(tokenizer: TextTokenizer, wanted: FormatRequest) -> tuple[Dialect | None, Certificate]:
    """Examine the template and prove the dialect that is wanted; the dialect is None when the verdict is `refused`."""
    findings, versions = tuple(_examined(tokenizer, wanted)), _versions()
    hashes = {"template": _template_hash(tokenizer), "tokenizer": tokenizer_hash(tokenizer)}
    try:
        dialect = open_dialect(
            tokenizer, wanted.dialect, wanted.markup, wanted.kept, wanted.switches
        )
    except DialectError as error:
        return None, Certificate(
            CertificateVerdict.REFUSED, (), str(error), {}, hashes, versions, findings
        )
    described = describe(dialect)
    findings = (*findings, *_proved(dialect))
    hashes["dialect"] = _hash(json.dumps(described, sort_keys=True))
    if described.get("markup") != "template":
        hashes["template"] = ""
    limits = tuple(_limits(dialect))
    verdict = CertificateVerdict.LIMITED if limits else CertificateVerdict.CERTIFIED
    return dialect, Certificate(verdict, limits, "", described, hashes, versions, findings)


def open_certified(tokenizer: TextTokenizer, wanted: FormatRequest) -> tuple[Dialect, Certificate]:
    """The dialect with its certificate; `DialectError` when it is refused."""
    dialect, certificate = certify(tokenizer, wanted)
    if dialect is None:
        raise DialectError(certificate.reason)
    return dialect, certificate


def check_same(
    trained: Certificate, now: Certificate, where: str, on_purpose: bool = False
) -> None:
    """`DialectError` when a model that was trained in one format would be used in another; it says what differs.

    on_purpose: another dialect was asked for by name. That excuses the dialect, but no other tokenizer, and no other template.
    """
    different = [
        name
        for name in ("template", "tokenizer", "dialect")
        if trained.hashes.get(name) != now.hashes.get(name)
    ]
    if on_purpose:
        both = all(certificate.hashes.get("template") for certificate in (trained, now))
        different = [
            name for name in different if name == "tokenizer" or (name == "template" and both)
        ]
    if not different:
        return
    keys = [
        f"{key} {_short(trained.dialect.get(key))} -> {_short(now.dialect.get(key))}"
        for key in _changed(trained, now)
    ]
    detail = f" ({'; '.join(keys[:4])})" if keys else ""
    raise DialectError(
        f"{where} was trained in another format than it would be used in: {' and '.join(different)} differ{detail}; use the model "
        "with the tokenizer and template it was trained with, or name a dialect to use another format on purpose (--dialect)"
    )


def describe(dialect: Dialect) -> dict[str, Json]:
    """All that decides how this dialect writes and reads, as JSON."""
    result = dialect_fingerprint(dialect)
    result["history"] = dialect.history.value
    if isinstance(dialect, ChatTemplateDialect | PromptedDialect):
        result["habits"] = _plain(asdict(dialect.behaviour))
    if isinstance(dialect, ChatTemplateDialect):
        result["form"] = (
            _plain(asdict(dialect.syntax))
            if isinstance(dialect.syntax, DelimitedSyntax)
            else dialect.syntax.name
        )
    return result


def tokenizer_hash(tokenizer: TextTokenizer) -> str:
    """A hash of vocabulary, merges, added tokens and the end-of-text token."""
    return _hash(tokenizer.identity())


def _examined(tokenizer: TextTokenizer, wanted: FormatRequest) -> Sequence[TemplateFact]:
    if not tokenizer.wrapped.chat_template:
        return [
            TemplateFact(
                "template",
                "none",
                wanted.dialect in ("auto", "native"),
                "the tokenizer has no chat template",
            )
        ]
    markup = TemplateMarkup(tokenizer, wanted.switches)
    return [*examine(markup), *cures(tokenizer, markup)]


def _proved(dialect: Dialect) -> list[TemplateFact]:
    """What the proof of the dialect has shown."""
    form = (
        dialect.syntax.name
        if isinstance(dialect, ChatTemplateDialect | PromptedDialect)
        else dialect.name
    )
    return [
        TemplateFact("calls are read back", "yes", False, f"written as {form}"),
        TemplateFact("what ends a turn", " or ".join(dialect.stop)),
        TemplateFact("history", dialect.history.value),
    ]


def _limits(dialect: Dialect) -> list[str]:
    """What this dialect cannot do, in words."""
    limits = [*capability_checks(dialect), *parts_of_tools(dialect)]
    if dialect.history is History.TEMPLATE:
        limits.insert(0, "the template rewrites earlier turns: each turn is a row of its own")
    elif dialect.history is History.KEPT:
        limits.insert(
            0,
            "the template would rewrite earlier turns and is not asked: a server that uses it shows the model other ones",
        )
    if not isinstance(dialect, ChatTemplateDialect):
        return limits
    habits = dialect.behaviour
    if habits.borrowed:
        limits.append(
            f"the template ends no turn: {' or '.join(dict.fromkeys(habits.borrowed))} of the next message ends it"
        )
    if getattr(dialect.markup, "switches", None):
        limits.append(f"the template is used with {json.dumps(dialect.markup.switches)}")  # type: ignore[attr-defined]
    if isinstance(dialect.markup, CheckedMarkup):
        limits.append(
            "the template escapes <, > and & in texts of tools: training stops at rows with such texts"
        )
    if isinstance(dialect.syntax, DelimitedSyntax) and hasattr(dialect.syntax.body, "typed"):
        limits.append(
            "arguments are written without their types: the tool's schema says what they are"
        )
    return limits


def _changed(trained: Certificate, now: Certificate) -> list[str]:
    keys = ("name", "syntax", "markup", "history", "switches", "stop")
    return [key for key in keys if trained.dialect.get(key) != now.dialect.get(key)]


def _short(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)[:60]


def _plain(value: Any) -> Json:
    return json.loads(
        json.dumps(asdict(value) if is_dataclass(value) and not isinstance(value, type) else value)
    )


def _template_hash(tokenizer: TextTokenizer) -> str:
    template = tokenizer.wrapped.chat_template
    return (
        _hash(template if isinstance(template, str) else json.dumps(template, sort_keys=True))
        if template
        else ""
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in LIBRARIES}
