"""The certificate of a format: the proof that a dialect works with this tokenizer and template.

dialect, certificate = certify(tokenizer, FormatRequest("auto"))   # None when it is refused
certificate.save(run)                                              # run/certificate.json
check_same(Certificate.read(run), certificate, "runs/first")       # `DialectError` names changes
"""

from __future__ import annotations

import json
from dataclasses import astuple
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, field_validator

from toolhone.dialects.chat_template.sanitise import TemplateMarkup
from toolhone.dialects.choose import PROMPTED, FormatRequest, open_dialect
from toolhone.dialects.interface import Dialect
from toolhone.dialects.probe.probing import TemplateFact
from toolhone.dialects.probe.prove import describe, find_limits, hash_text
from toolhone.dialects.probe.template_facts import cures, examine
from toolhone.errors import DialectError
from toolhone.runs.run import read_json, write_json
from toolhone.schema import Json
from toolhone.tokenizer import TextTokenizer

FILE = "certificate.json"
HASHES = ("template", "tokenizer", "dialect")
LIBRARIES = ("toolhone", "transformers", "tokenizers", "jinja2")


class CertificateVerdict(StrEnum):
    """How the examination ended."""

    CERTIFIED = "certified"
    """All that a conversation can hold is written and read back."""
    LIMITED = "certified with limits"
    """Safe to use; the limits name what it cannot write, and such rows are refused."""
    REFUSED = "refused"
    """Calls would be lost; name another dialect."""


class Certificate(BaseModel, frozen=True):
    """What was requested, found and proved; `reason` says why a format was refused.

    Two certificates describe the same format when their hashes are equal.
    """

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
            wrong = f"{path} is no certificate of a format: {place}: {first['msg']}"
            raise DialectError(wrong) from None


def certify(tokenizer: TextTokenizer, request: FormatRequest) -> tuple[Dialect | None, Certificate]:
    """Examine the template and prove the requested dialect; it is None when it is refused."""
    template, why = tokenizer.wrapped.chat_template, "the tokenizer has no chat template"
    facts = [TemplateFact("template", "none", request.dialect not in PROMPTED, why)]
    hashes = {"template": "", "tokenizer": hash_text(tokenizer.identity())}
    if template:
        markup = TemplateMarkup(tokenizer, request.template_kwargs)
        facts = [*examine(markup), *cures(tokenizer, markup)]
        whole = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
        hashes["template"] = hash_text(whole)
    found: dict[str, Any] = {"hashes": hashes, "findings": facts}
    found["versions"] = {name: metadata.version(name) for name in LIBRARIES}
    try:
        dialect = open_dialect(tokenizer, *astuple(request))
    except DialectError as error:
        refused = {"verdict": CertificateVerdict.REFUSED, "reason": str(error)}
        return None, Certificate.model_validate(found | refused)
    found["dialect"] = described = describe(dialect)
    hashes["dialect"] = hash_text(json.dumps(described, sort_keys=True))
    if described.get("markup") != "template":
        hashes["template"] = ""
    if not template:
        has = "is" if tokenizer.control_id("<|im_end|>") is not None else "is not"
        why = f"there is no template, and <|im_end|> {has} a token of this tokenizer"
        facts.append(TemplateFact("markup", str(described["markup"]), False, why))
    facts += [
        TemplateFact("calls are read back", "yes", False, f"written as {described['syntax']}"),
        TemplateFact("what ends a turn", " or ".join(dialect.stop)),
        TemplateFact("history", dialect.history.value),
    ]
    limits = tuple(find_limits(dialect))
    verdict = CertificateVerdict.LIMITED if limits else CertificateVerdict.CERTIFIED
    return dialect, Certificate.model_validate(found | {"verdict": verdict, "limits": limits})


def open_certified(tokenizer: TextTokenizer, request: FormatRequest) -> tuple[Dialect, Certificate]:
    """Return the dialect with its certificate; `DialectError` when it is refused."""
    dialect, certificate = certify(tokenizer, request)
    if dialect is None:
        raise DialectError(certificate.reason)
    return dialect, certificate


def check_same(then: Certificate, now: Certificate, where: str, on_purpose: bool = False) -> None:
    """Raise `DialectError` when a model would be used in another format than it was trained in.

    on_purpose: the user named another dialect. That excuses no other tokenizer and template.
    """
    different = [name for name in HASHES if then.hashes.get(name) != now.hashes.get(name)]
    if on_purpose:
        both = then.hashes.get("template") and now.hashes.get("template")
        excused = ("dialect",) if both else ("dialect", "template")
        different = [name for name in different if name not in excused]
    if not different:
        return
    changes = []
    for key in ("name", "syntax", "markup", "history", "switches", "stop"):
        sides = (then.dialect.get(key), now.dialect.get(key))
        old, new = (json.dumps(side, ensure_ascii=False)[:60] for side in sides)
        changes += [f"{key} {old} -> {new}"] if sides[0] != sides[1] else []
    detail = f" ({'; '.join(changes[:4])})" if changes else ""
    raise DialectError(
        f"{where} was trained in another format than it would be used in: "
        f"{' and '.join(different)} differ{detail}; use the model with the tokenizer and template "
        "it was trained with, or name a dialect to use another format on purpose (--dialect)"
    )
