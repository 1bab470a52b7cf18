"""What a chat template does, found by rendering sentinels: one `TemplateFact` for each question that matters.

    for finding in examine(markup): print(finding.probe, finding.found, finding.fault)

Asked is: do the tools reach the prompt, and where; which form of arguments is written right; are two calls, missing text and text
beside a call, reasoning and results written; does each rendering begin with what stood there before (`prefix`), and if not, why;
and which keyword switches change that. Nothing is trained or parsed here, and no model is known by name; whether calls can be read
back is proved in `probe`.

`prefix` uses four letters: `g` prompt + generation prompt is no beginning of the same turn rendered, `f` nor of the whole
conversation, `h` a rendered turn is changed by later turns, `t` by the tool results that follow it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolhone.dialects.chat_template.behaviour import REASON, REASONING_FIELDS
from toolhone.dialects.chat_template.markup import TemplateMarkup
from toolhone.dialects.chat_template.template_kwargs import template_kwargs
from toolhone.dialects.probe.derive import FIRST, OTHER, TOOL, VALUE
from toolhone.errors import DialectError
from toolhone.schema import Json, Tool
from toolhone.tokenizer import TextTokenizer

Chat = list[dict[str, Any]]

TEXT, RESULT = "Beside7", "Result7"
_QUOTED = f'{VALUE} "q"'
_ARGUMENTS: dict[str, Json] = {
    FIRST: _QUOTED,
    "number7": 250.5,
    "flag7": True,
    "list7": ["a7", None],
}
_SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string", "description": "d"} for name in _ARGUMENTS},
}
_TOOLS = [
    Tool(TOOL, "Looks up.", _SCHEMA).to_dict(),
    Tool(
        OTHER,
        "Books.",
        {"type": "object", "properties": {FIRST: {"type": "string", "description": "d"}}},
    ).to_dict(),
]
_USER, _AGAIN = {"role": "user", "content": "Question7"}, {"role": "user", "content": "Another7"}
_SYSTEM = {"role": "system", "content": "System7"}


@dataclass(frozen=True)
class TemplateFact:
    """One answer. `fault` says that something is lost or has to be worked around; `why` is a half sentence."""

    probe: str
    found: str
    fault: bool = False
    why: str = ""

    def to_dict(self) -> dict[str, Json]:
        return {
            "probe": self.probe,
            "found": self.found,
            "fault": self.fault,
            **({"why": self.why} if self.why else {}),
        }


@dataclass(frozen=True)
class _CallKind:
    """How calls are handed to this template: arguments as a mapping or a JSON text, and what stands for missing text."""

    as_text: bool = False
    content: str | None = ""

    def call(
        self, calls: int = 1, content: str | None = None, reason: tuple[str, str] | None = None
    ) -> dict[str, Any]:
        names = [(TOOL, _ARGUMENTS), (OTHER, {FIRST: "b7"})][:calls]
        listed = [
            {
                "id": f"call0000{index}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": json.dumps(values) if self.as_text else dict(values),
                },
            }
            for index, (name, values) in enumerate(names)
        ]
        message = {
            "role": "assistant",
            "content": self.content if content is None else content,
            "tool_calls": listed,
        }
        return {**message, **({reason[0]: reason[1]} if reason else {})}

    def results(self, calls: int = 1) -> Chat:
        return [
            {
                "role": "tool",
                "content": f"{RESULT}{index}",
                "tool_call_id": f"call0000{index}",
                "name": (TOOL, OTHER)[index],
            }
            for index in range(calls)
        ]


def examine(markup: TemplateMarkup) -> list[TemplateFact]:
    """All findings on a template with its switches as they are."""
    tools = _tools(markup)
    if tools.found.startswith("error"):
        return [tools]
    mapping, text = _arguments(markup, _CallKind()), _arguments(markup, _CallKind(as_text=True))
    kind = _usable_kind(markup, mapping, text)
    found = [
        tools,
        TemplateFact("arguments as a mapping", *mapping),
        TemplateFact("arguments as JSON text", *text),
    ]
    if kind is None:
        return [
            *found,
            TemplateFact("calls", "never shown", True, "no form of a call reaches the text"),
        ]
    found += [_two(markup, kind), *_missing_text(markup, kind), _beside(markup, kind)]
    field, reasoning = find_reasoning(markup)
    found += [reasoning, _results(markup, kind), _prefix(markup, kind, None)]
    return [*found, _prefix(markup, kind, field)] if field else found


def cures(tokenizer: TextTokenizer, markup: TemplateMarkup) -> list[TemplateFact]:
    """What each keyword switch of the template changes: the letters of `prefix` without and with reasoning."""
    usual = _letters(markup)
    found = []
    for name, value in template_kwargs(markup.source):
        other = TemplateMarkup(tokenizer, {**markup.switches, name: value})
        letters = _letters(other)
        if letters is None or letters == usual:
            continue
        text = f"prefix {letters[0] or 'keeps'}, with reasoning {letters[1] or 'keeps'}"
        found.append(
            TemplateFact(
                f"switch {name}={json.dumps(value)}",
                text,
                False,
                "" if usual is None else _better(usual, letters),
            )
        )
    return found


def _better(before: tuple[str, str], after: tuple[str, str]) -> str:
    mended = [
        name
        for name, a, b in zip(("without reasoning", "with reasoning"), before, after, strict=True)
        if a and not b
    ]
    return f"keeps all prefixes {' and '.join(mended)}" if mended else ""


def _letters(markup: TemplateMarkup) -> tuple[str, str] | None:
    kind = _usable_kind(
        markup, _arguments(markup, _CallKind()), _arguments(markup, _CallKind(as_text=True))
    )
    if kind is None:
        return None
    field, _ = find_reasoning(markup)
    return broken_prefixes(markup, kind, None)[0], broken_prefixes(markup, kind, field)[
        0
    ] if field else ""


def _write(markup: TemplateMarkup, chat: Chat, header: bool = False) -> str | None:
    """The text, or None where the template refuses."""
    try:
        return markup.write(chat, _TOOLS, header)
    except DialectError:
        return None


def _tools(markup: TemplateMarkup) -> TemplateFact:
    try:
        one = markup.write([_SYSTEM, _USER], _TOOLS, True)
    except DialectError:
        try:
            one = markup.write([_USER], _TOOLS, True)
        except DialectError as error:
            return TemplateFact("tools", "error", True, str(error))
    if TOOL not in one or OTHER not in one:
        return TemplateFact("tools", "no", True, "the tools never reach the prompt")
    later = _write(markup, [_USER, {"role": "assistant", "content": TEXT}, _AGAIN], True) or ""
    if TEXT in later and later.find(TOOL) > later.find(TEXT):
        return TemplateFact(
            "tools",
            "yes (last user)",
            False,
            "the tools stand before the last turn of the user, and move with it",
        )
    return TemplateFact("tools", "yes")


def _arguments(markup: TemplateMarkup, kind: _CallKind) -> tuple[str, bool, str]:
    """What is written for arguments in this form: found, fault, why."""
    try:
        text = markup.write([_USER, kind.call()], _TOOLS, False)
    except DialectError as error:
        try:
            text = markup.write([_USER, {**kind.call(), "content": None}], _TOOLS, False)
        except DialectError:
            return (
                "error",
                True,
                str(error).removeprefix("the chat template refuses the conversation: "),
            )
    asked = _write(markup, [_USER], False) or ""
    turn = text[len(asked) :] if text.startswith(asked) else text[text.find("Question7") :]
    if TOOL not in turn:
        other = _arguments(markup, _CallKind(kind.as_text, None)) if kind.content == "" else None
        return (
            other
            if other and other[0] not in ("error", "dropped")
            else ("dropped", True, "the call is not written")
        )
    if VALUE not in turn or FIRST not in turn:
        return "lost", True, "the arguments are not written"
    if '\\\\"q' in turn or f'"{{\\"{FIRST}' in turn:
        return "escaped twice", True, "the arguments come out as a text inside JSON"
    if kind.as_text and "'{" in turn:
        return "quoted", True, "the arguments come out as a quoted text"
    if f"{{'{FIRST}'" in turn:
        return "Python repr", True, "the arguments come out as a Python dict"
    python = [
        word
        for word, other in (("True", "true"), ("None", "null"))
        if word in turn and other not in turn
    ]
    return (
        ("ok, Python literals", False, f"{' and '.join(python)} where JSON has other words")
        if python
        else ("ok", False, "")
    )


def _usable_kind(
    markup: TemplateMarkup, mapping: tuple[str, bool, str], text: tuple[str, bool, str]
) -> _CallKind | None:
    for as_text, (found, _, _) in ((False, mapping), (True, text)):
        if found.startswith("ok") or found == "Python repr":
            for content in ("", None):
                if VALUE in (_write(markup, [_USER, _CallKind(as_text, content).call()]) or ""):
                    return _CallKind(as_text, content)
    return None


def _two(markup: TemplateMarkup, kind: _CallKind) -> TemplateFact:
    name = "two calls"
    text = _write(markup, [_USER, kind.call(2)])
    if text is None:
        return TemplateFact(name, "error", True, "a turn has one call at most")
    asked = (_write(markup, [_USER]) or "").count(OTHER)
    return (
        TemplateFact(name, "yes")
        if text.count(OTHER) > asked
        else TemplateFact(name, "second dropped", True, "only the first call is written")
    )


def _missing_text(markup: TemplateMarkup, kind: _CallKind) -> Iterator[TemplateFact]:
    """Calls without text: null (which transformers leaves out before the template sees it), and an empty text."""
    ok = _CallKind(kind.as_text)
    forms = {
        "null content": {**ok.call(), "content": None},
        "empty content": {**ok.call(), "content": ""},
    }
    texts = {name: _write(markup, [_USER, message]) for name, message in forms.items()}
    for name, text in texts.items():
        shown = text is not None and VALUE in text
        yield TemplateFact(
            name, "ok" if shown else "error" if text is None else "call dropped", not shown
        )


def _beside(markup: TemplateMarkup, kind: _CallKind) -> TemplateFact:
    name = "text beside a call"
    text = _write(markup, [_USER, kind.call(content=TEXT)])
    if text is None:
        return TemplateFact(name, "error", True)
    if VALUE not in text:
        return TemplateFact(name, "call dropped", True, "a turn with text loses its calls")
    if TEXT not in text:
        return TemplateFact(name, "text dropped", True, "a turn with calls loses its text")
    plain = _write(markup, [_USER, {"role": "assistant", "content": TEXT}]) or ""
    before = plain[: plain.rfind(TEXT)]
    moved = before not in text and "analysis" in text[text.find("Question7") :]
    return (
        TemplateFact(name, "as reasoning", True, "the text is written as reasoning")
        if moved
        else TemplateFact(name, "kept")
    )


def find_reasoning(markup: TemplateMarkup) -> tuple[str | None, TemplateFact]:
    """The field in which the template looks for reasoning (None when it has none), and the finding."""
    for field in REASONING_FIELDS:
        text = _write(markup, [_USER, {"role": "assistant", "content": TEXT, field: REASON}])
        called = _write(markup, [_USER, _CallKind().call(reason=(field, REASON))])
        if (text and REASON in text) or (called and REASON in called):
            only = "" if text and REASON in text else "beside calls only"
            return field, TemplateFact("reasoning", "kept", False, only or f"field {field}")
    return None, TemplateFact(
        "reasoning", "ignored", False, "reasoning stands in the text, between <think> marks"
    )


def _results(markup: TemplateMarkup, kind: _CallKind) -> TemplateFact:
    text = _write(
        markup, [_USER, kind.call(), *kind.results(), {"role": "assistant", "content": TEXT}]
    )
    if text is None:
        return TemplateFact("results", "error", True)
    return (
        TemplateFact("results", "yes")
        if f"{RESULT}0" in text
        else TemplateFact("results", "dropped", True, "results of tools are not shown")
    )


def _prefix(markup: TemplateMarkup, kind: _CallKind, field: str | None) -> TemplateFact:
    letters, why = broken_prefixes(markup, kind, field)
    return TemplateFact(
        "prefix with reasoning" if field else "prefix", letters or "keeps", bool(letters), why
    )


def broken_prefixes(markup: TemplateMarkup, kind: _CallKind, field: str | None) -> tuple[str, str]:
    """The letters of what breaks, in the order fght, and the cause of the first break; with and without a system message."""
    reason = (field, REASON) if field else None
    answer = {"role": "assistant", "content": TEXT, **({field: REASON} if field else {})}
    chat: Chat = [
        _USER,
        kind.call(reason=reason),
        *kind.results(),
        answer,
        _AGAIN,
        kind.call(reason=reason),
        *kind.results(),
        answer,
    ]
    breaks = _breaks(markup, chat)
    if _write(markup, [_SYSTEM, *chat]) is not None:
        breaks = {**_breaks(markup, [_SYSTEM, *chat]), **breaks}
    order = "".join(letter for letter in "fght" if letter in breaks)
    first = next((letter for letter in "gfht" if letter in breaks), None)
    return order, "" if first is None else _cause(*breaks[first], in_header="g" in breaks)


def _breaks(markup: TemplateMarkup, chat: Chat) -> dict[str, tuple[str, str]]:
    """For each letter the first two texts of which the one should begin the other and does not."""
    whole = _write(markup, chat)
    breaks: dict[str, tuple[str, str]] = {}
    for index in [k for k, message in enumerate(chat) if message["role"] == "assistant"]:
        asked, turn = _write(markup, chat[:index], True), _write(markup, chat[: index + 1])
        end = next((k for k in range(index + 1, len(chat)) if chat[k]["role"] != "tool"), len(chat))
        answered = _write(markup, chat[:end]) if end > index + 1 else None
        later = whole if index + 1 < len(chat) else None
        for letter, before, after in (
            ("g", asked, turn),
            ("f", asked, whole),
            ("h", turn, later),
            ("t", turn, answered),
        ):
            if before is not None and after is not None and not after.startswith(before):
                breaks.setdefault(letter, (before, after))
    return breaks


def _cause(before: str, after: str, in_header: bool) -> str:
    """Why a text is no beginning of another one: one of five causes."""
    at = next(
        (k for k, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
        min(len(before), len(after)),
    )
    if any(-1 < before.find(word) != after.find(word) for word in (TOOL, "System7")):
        return "tools or system text move to the last turn of the user"
    start = max(before.rfind("<", 0, at), before.rfind("[", 0, at), at - 12, 0)
    around = (before[start : at + 40] + after[start : at + 40]).lower()
    if any(word in around for word in ("think", "thought", "analysis", REASON.lower())):
        return (
            "the header of a turn adds marks of a thought"
            if in_header
            else "thoughts of earlier turns are rewritten"
        )
    words = before[at:].split()
    if words == after[at:].split()[: len(words)]:
        return "white space differs"
    return "the marks that end or open a turn differ"
