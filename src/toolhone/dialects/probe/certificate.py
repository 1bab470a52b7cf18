"""The certificate of a format: the proof that a dialect works with this tokenizer and template.

dialect, certificate = certify(tokenizer, FormatRequest("auto"))   # None when it is refused
certificate.save(run)                                              # run/certificate.json
check_same(Certificate.read(run), certificate, "runs/first")       # `DialectError` names changes
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, field_validator

from toolhone.dialects.chat_template.dialect import REASON, REASONING_FIELDS
from toolhone.dialects.chat_template.sanitise import TemplateMarkup
from toolhone.dialects.chat_template.turns import common_start
from toolhone.dialects.choose import PROMPTED, FormatRequest, open_dialect
from toolhone.dialects.interface import Dialect
from toolhone.dialects.probe.derive import FIRST, OTHER, TOOL, VALUE
from toolhone.dialects.probe.prove import PROBES, describe, find_limits, hash_text
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


@dataclass(frozen=True)
class TemplateFact:
    """One answer. `fault`: something is lost, or needs a workaround. `why` is half a sentence.

    In `prefix`, letters say what breaks: `g` prompt + generation prompt do not begin the same turn
    rendered, `f` nor the whole conversation, `h` later turns change a turn, `t` tool results do.
    """

    probe: str
    found: str
    fault: bool = False
    why: str = ""


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


_TOOLS, _CALLS = PROBES["tools"], PROBES["calls"]
_SYSTEM, _USER, _ANSWER, _AGAIN, _RESULT = PROBES["messages"]
TEXT = _ANSWER["content"]


@dataclass(frozen=True)
class _Probe:
    """Writes chats with one template: arguments as a mapping or as text, `content` for no text."""

    markup: TemplateMarkup
    as_text: bool = False
    content: str | None = ""

    def call(self, count: int = 1, **changes: Json) -> dict[str, Any]:
        """A turn with one or two calls."""
        calls = []
        for index, (name, values) in enumerate(_CALLS[:count]):
            arguments = json.dumps(values) if self.as_text else dict(values)
            function = {"name": name, "arguments": arguments}
            calls.append({"id": f"call0000{index}", "type": "function", "function": function})
        return {"role": "assistant", "content": self.content, "tool_calls": calls, **changes}

    def write(self, *chat: dict[str, Any], header: bool = False) -> str | None:
        """The text of a chat; None where the template refuses it."""
        try:
            return self.markup.write(chat, _TOOLS, header)
        except DialectError:
            return None


def examine(markup: TemplateMarkup) -> list[TemplateFact]:
    """Return all facts on a template with its keywords as they are, found by writing sentinels."""
    probe = _Probe(markup)
    try:
        text = probe.write(_SYSTEM, _USER, header=True) or markup.write([_USER], _TOOLS, True)
    except DialectError as error:
        return [TemplateFact("tools", "error", True, str(error))]
    tools, later = TemplateFact("tools", "yes"), probe.write(_USER, _ANSWER, _AGAIN, header=True)
    if TOOL not in text or OTHER not in text:
        tools = TemplateFact("tools", "no", True, "the tools never reach the prompt")
    elif later and TEXT in later and later.find(TOOL) > later.find(TEXT):
        why = "the tools stand before the last turn of the user, and move with it"
        tools = TemplateFact("tools", "yes (last user)", False, why)
    forms, usable = _usable(markup)
    if usable is None:
        missing = TemplateFact("calls", "never shown", True, "no form of a call reaches the text")
        return [tools, *forms, missing]
    field, reasoning = _reasoning(markup)
    shown = usable.write(_USER, usable.call(), _RESULT, _ANSWER)
    lost = {_RESULT["content"]: ("dropped", "results of tools are not shown")}
    facts = [tools, *forms, *_turns(usable), reasoning, _need("results", shown, "yes", lost)]
    prefixes = {"prefix": None, **({"prefix with reasoning": field} if field else {})}
    for name, used in prefixes.items():
        letters, why = _broken_prefixes(usable, used)
        facts.append(TemplateFact(name, letters or "keeps", bool(letters), why))
    return facts


def cures(tokenizer: TextTokenizer, markup: TemplateMarkup) -> Iterator[TemplateFact]:
    """Yield what each keyword of the template changes: the letters of `prefix`."""

    def letters_of(kwargs: Mapping[str, Json]) -> tuple[str, str] | None:
        """The letters without and with reasoning; None where calls are never shown."""
        changed = TemplateMarkup(tokenizer, {**markup.template_kwargs, **kwargs})
        probe = _usable(changed)[1]
        if probe is None:
            return None
        field = _reasoning(changed)[0]
        plain = _broken_prefixes(probe, None)[0]
        return plain, _broken_prefixes(probe, field)[0] if field else ""

    usual = letters_of({})
    for name, value in markup.known_kwargs():
        letters = letters_of({name: value})
        if letters is None or letters == usual:
            continue
        found = f"prefix {letters[0] or 'keeps'}, with reasoning {letters[1] or 'keeps'}"
        changes = zip(("without", "with"), usual or ("", ""), letters, strict=True)
        cured = [f"{where} reasoning" for where, before, after in changes if before and not after]
        why = f"keeps all prefixes {' and '.join(cured)}" if cured else ""
        yield TemplateFact(f"switch {name}={json.dumps(value)}", found, False, why)


def _arguments(probe: _Probe) -> TemplateFact:
    """What is written for arguments in this form."""
    name = "arguments as JSON text" if probe.as_text else "arguments as a mapping"
    try:
        text = probe.markup.write([_USER, probe.call()], _TOOLS, False)
    except DialectError as error:
        without = probe.write(_USER, probe.call(content=None))
        if without is None:
            why = str(error).removeprefix("the chat template refuses the conversation: ")
            return TemplateFact(name, "error", True, why)
        text = without
    asked = probe.write(_USER) or ""
    turn = text[len(asked) :] if text.startswith(asked) else text[text.find("Question7") :]
    if TOOL not in turn:
        if probe.content == "":
            other = _arguments(replace(probe, content=None))
            if other.found not in ("error", "dropped"):
                return other
        return TemplateFact(name, "dropped", True, "the call is not written")
    twice = '\\\\"q' in turn or f'"{{\\"{FIRST}' in turn
    for found, fault, why in (
        ("lost", VALUE not in turn or FIRST not in turn, "are not written"),
        ("escaped twice", twice, "come out as a text inside JSON"),
        ("quoted", probe.as_text and "'{" in turn, "come out as a quoted text"),
        ("Python repr", f"{{'{FIRST}'" in turn, "come out as a Python dict"),
    ):
        if fault:
            return TemplateFact(name, found, True, f"the arguments {why}")
    words = [a for a, b in (("True", "true"), ("None", "null")) if a in turn and b not in turn]
    if words:
        why = f"{' and '.join(words)} where JSON has other words"
        return TemplateFact(name, "ok, Python literals", False, why)
    return TemplateFact(name, "ok")


def _usable(markup: TemplateMarkup) -> tuple[list[TemplateFact], _Probe | None]:
    """The facts on both forms of arguments, and the first form in which calls are written."""
    probes = [_Probe(markup), _Probe(markup, as_text=True)]
    forms = [_arguments(probe) for probe in probes]
    for probe, fact in zip(probes, forms, strict=True):
        if fact.found.startswith("ok") or fact.found == "Python repr":
            for usable in (probe, replace(probe, content=None)):
                if VALUE in (usable.write(_USER, usable.call()) or ""):
                    return forms, usable
    return forms, None


def _turns(probe: _Probe) -> Iterator[TemplateFact]:
    """What becomes of two calls, of calls without text, and of text beside a call."""
    text = probe.write(_USER, probe.call(2))
    if text is None:
        yield TemplateFact("two calls", "error", True, "a turn has one call at most")
    elif text.count(OTHER) > (probe.write(_USER) or "").count(OTHER):
        yield TemplateFact("two calls", "yes")
    else:
        yield TemplateFact("two calls", "second dropped", True, "only the first call is written")
    needs = {VALUE: ("call dropped", "")}
    for name, content in (("null content", None), ("empty content", "")):
        yield _need(name, probe.write(_USER, probe.call(content=content)), "ok", needs)
    needs = {VALUE: ("call dropped", "a turn with text loses its calls")}
    needs[TEXT] = ("text dropped", "a turn with calls loses its text")
    name, text = "text beside a call", probe.write(_USER, probe.call(content=TEXT))
    fact = _need(name, text, "kept", needs)
    before = (probe.write(_USER, _ANSWER) or "").rpartition(TEXT)[0]
    moved = text and before not in text and "analysis" in text[text.find("Question7") :]
    if moved and not fact.fault:
        fact = TemplateFact(name, "as reasoning", True, "the text is written as reasoning")
    yield fact


def _need(name: str, text: str | None, found: str, needs: Mapping[str, Any]) -> TemplateFact:
    """The fact on a text that must hold these words; each has what is found and why without it."""
    if text is None:
        return TemplateFact(name, "error", True)
    for word, (without, why) in needs.items():
        if word not in text:
            return TemplateFact(name, without, True, why)
    return TemplateFact(name, found)


def _reasoning(markup: TemplateMarkup) -> tuple[str | None, TemplateFact]:
    """The field in which the template looks for reasoning, or None, and the fact."""
    probe = _Probe(markup)
    for field in REASONING_FIELDS:
        for turn, why in ((_ANSWER, f"field {field}"), (probe.call(), "beside calls only")):
            if REASON in (probe.write(_USER, {**turn, field: REASON}) or ""):
                return field, TemplateFact("reasoning", "kept", False, why)
    why = "reasoning stands in the text, between <think> marks"
    return None, TemplateFact("reasoning", "ignored", False, why)


def _broken_prefixes(probe: _Probe, field: str | None) -> tuple[str, str]:
    """The letters of what breaks, with or without a system message, and the first cause."""
    reason = {field: REASON} if field else {}
    turns = [{**probe.call(), **reason}, _RESULT, {**_ANSWER, **reason}]
    plain = [_USER, *turns, _AGAIN, *turns]
    breaks: dict[str, tuple[str, str]] = {}
    """For each letter the first two texts of which the one should begin the other, and does not."""
    for chat in (plain, [_SYSTEM, *plain]):
        whole = probe.write(*chat)
        if whole is None and chat is not plain:
            continue
        for index in [k for k, message in enumerate(chat) if message["role"] == "assistant"]:
            asked, turn = probe.write(*chat[:index], header=True), probe.write(*chat[: index + 1])
            later = whole if index + 1 < len(chat) else None
            behind = chat[index + 1 : index + 2]
            answered = probe.write(*chat[: index + 2]) if behind == [_RESULT] else None
            pairs = (asked, turn), (asked, whole), (turn, later), (turn, answered)
            for letter, (before, after) in zip("gfht", pairs, strict=True):
                if before is not None and after is not None and not after.startswith(before):
                    breaks.setdefault(letter, (before, after))
    first = next((breaks[letter] for letter in "gfht" if letter in breaks), None)
    order = "".join(letter for letter in "fght" if letter in breaks)
    return order, "" if first is None else _cause(*first, in_header="g" in breaks)


def _cause(before: str, after: str, in_header: bool) -> str:
    """Why a text does not begin another one: one of five causes."""
    at = len(common_start(before, after))
    if any(-1 < before.find(word) != after.find(word) for word in (TOOL, "System7")):
        return "tools or system text move to the last turn of the user"
    start = max(before.rfind("<", 0, at), before.rfind("[", 0, at), at - 12, 0)
    around = (before[start : at + 40] + after[start : at + 40]).lower()
    if any(word in around for word in ("think", "thought", "analysis", REASON.lower())):
        if in_header:
            return "the header of a turn adds marks of a thought"
        return "thoughts of earlier turns are rewritten"
    words = before[at:].split()
    if words == after[at:].split()[: len(words)]:
        return "white space differs"
    return "the marks that end or open a turn differ"
