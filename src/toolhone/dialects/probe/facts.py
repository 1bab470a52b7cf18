"""Find out what a chat template does, by rendering sentinels: one `TemplateFact` per question.

    for fact in examine(markup): print(fact.probe, fact.found, fact.fault)

In `prefix`, four letters say what breaks: `g` prompt + generation prompt do not begin the same turn
rendered, `f` nor the whole conversation, `h` later turns change a turn, `t` tool results change it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolhone.dialects.chat_template.dialect import REASON, REASONING_FIELDS
from toolhone.dialects.chat_template.sanitise import TemplateMarkup
from toolhone.dialects.chat_template.turns import common_start
from toolhone.dialects.probe.derive import FIRST, OTHER, TOOL, VALUE
from toolhone.errors import DialectError
from toolhone.schema import Json, Tool
from toolhone.tokenizer import TextTokenizer

ChatTurn = dict[str, Any]

TEXT, RESULT = "Beside7", "Result70"
_ARGUMENTS: dict[str, Json] = {
    FIRST: f'{VALUE} "q"',
    "number7": 250.5,
    "flag7": True,
    "list7": ["a7", None],
}
_PARAMETER = {"type": "string", "description": "d"}
_TOOLS = [
    Tool(name, text, {"type": "object", "properties": dict.fromkeys(keys, _PARAMETER)}).to_dict()
    for name, text, keys in ((TOOL, "Looks up.", _ARGUMENTS), (OTHER, "Books.", (FIRST,)))
]
_SYSTEM = {"role": "system", "content": "System7"}
_USER, _AGAIN = {"role": "user", "content": "Question7"}, {"role": "user", "content": "Another7"}
_RESULT = {"role": "tool", "content": RESULT, "tool_call_id": "call00000", "name": TOOL}
_ANSWER = {"role": "assistant", "content": TEXT}

_NOT_KWARGS = re.compile(
    "messages?|tools?|tool_call|documents|content|role|loop|namespace|add_generation_prompt"
    "|(bos|eos|pad|unk)_token|system_message|raise_exception|strftime_now|date_string"
    "|(builtin|custom)_tools|model_identity|continue_final_message"
)
_FLAGS = (
    re.compile(r"(?<![\w.\]'\"])([a-z_]\w*)\s+is\s+(?:not\s+)?(?:defined|true|false)\b"),
    re.compile(r"(?<![\w.\]'\"])([a-z_]\w*)\s*\|\s*default\(\s*(?:[Tt]rue|[Ff]alse)"),
    re.compile(r"(?:if|and|or)\s+not\s+([a-z_]\w*)\s*(?:-?%\}|and\b|or\b)"),
)
_LOOP_NAMES = re.compile(r"\{%-?\s*(?:for\s+(?:\w+\s*,\s*)?|macro\s+)([a-z_]\w*)")


@dataclass(frozen=True)
class TemplateFact:
    """One answer. `fault`: something is lost, or needs a workaround. `why` is half a sentence."""

    probe: str
    found: str
    fault: bool = False
    why: str = ""


@dataclass(frozen=True)
class _Probe:
    """Writes chats with one template: arguments as a mapping or as text, `content` for no text."""

    markup: TemplateMarkup
    as_text: bool = False
    content: str | None = ""

    def call(self, count: int = 1) -> ChatTurn:
        """A turn with one or two calls."""
        calls = [
            {
                "id": f"call0000{index}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": json.dumps(values) if self.as_text else dict(values),
                },
            }
            for index, (name, values) in enumerate([(TOOL, _ARGUMENTS), (OTHER, {FIRST: "b7"})])
        ]
        return {"role": "assistant", "content": self.content, "tool_calls": calls[:count]}

    def write(self, *chat: ChatTurn, header: bool = False) -> str | None:
        """The text of a chat; None where the template refuses it."""
        try:
            return self.markup.write(chat, _TOOLS, header)
        except DialectError:
            return None


def template_kwargs(template: str) -> list[tuple[str, bool]]:
    """Return keywords that a template may take, found in its text, each with False and True.

    At most eight names: those that it tests or gives a default, and that are no part of a message.
    """
    loops = _LOOP_NAMES.findall(template)
    found = dict.fromkeys(name for pattern in _FLAGS for name in pattern.findall(template))
    names = [name for name in found if name not in loops and not _NOT_KWARGS.fullmatch(name)]
    return [(name, value) for name in names[:8] for value in (False, True)]


def examine(markup: TemplateMarkup) -> list[TemplateFact]:
    """Return all facts on a template with its keywords as they are."""
    tools = _tools(markup)
    if tools.found == "error":
        return [tools]
    forms = [_arguments(_Probe(markup)), _arguments(_Probe(markup, as_text=True))]
    probe = _usable(markup, forms)
    if probe is None:
        missing = TemplateFact("calls", "never shown", True, "no form of a call reaches the text")
        return [tools, *forms, missing]
    field, reasoning = find_reasoning(markup)
    results = _need(
        "results",
        probe.write(_USER, probe.call(), _RESULT, _ANSWER),
        "yes",
        {RESULT: ("dropped", "results of tools are not shown")},
    )
    facts = [tools, *forms, *_turns(probe), reasoning, results]
    for name, used in (("prefix", None), ("prefix with reasoning", field)):
        if used or name == "prefix":
            letters, why = broken_prefixes(probe, used)
            facts.append(TemplateFact(name, letters or "keeps", bool(letters), why))
    return facts


def cures(tokenizer: TextTokenizer, markup: TemplateMarkup) -> Iterator[TemplateFact]:
    """Yield what each keyword of the template changes: the letters of `prefix`."""
    usual = _letters(markup)
    for name, value in template_kwargs(markup.source):
        letters = _letters(TemplateMarkup(tokenizer, {**markup.template_kwargs, name: value}))
        if letters is None or letters == usual:
            continue
        found = f"prefix {letters[0] or 'keeps'}, with reasoning {letters[1] or 'keeps'}"
        cured = [
            where
            for where, before, after in zip(
                ("without reasoning", "with reasoning"), usual or ("", ""), letters, strict=True
            )
            if before and not after
        ]
        why = f"keeps all prefixes {' and '.join(cured)}" if cured else ""
        yield TemplateFact(f"switch {name}={json.dumps(value)}", found, False, why)


def _letters(markup: TemplateMarkup) -> tuple[str, str] | None:
    """The letters of `prefix` without and with reasoning; None where calls are never shown."""
    forms = [_arguments(_Probe(markup)), _arguments(_Probe(markup, as_text=True))]
    probe = _usable(markup, forms)
    if probe is None:
        return None
    field, _ = find_reasoning(markup)
    plain = broken_prefixes(probe, None)[0]
    return plain, broken_prefixes(probe, field)[0] if field else ""


def _tools(markup: TemplateMarkup) -> TemplateFact:
    probe = _Probe(markup)
    try:
        text = probe.write(_SYSTEM, _USER, header=True) or markup.write([_USER], _TOOLS, True)
    except DialectError as error:
        return TemplateFact("tools", "error", True, str(error))
    if TOOL not in text or OTHER not in text:
        return TemplateFact("tools", "no", True, "the tools never reach the prompt")
    later = probe.write(_USER, _ANSWER, _AGAIN, header=True) or ""
    if TEXT in later and later.find(TOOL) > later.find(TEXT):
        why = "the tools stand before the last turn of the user, and move with it"
        return TemplateFact("tools", "yes (last user)", False, why)
    return TemplateFact("tools", "yes")


def _arguments(probe: _Probe) -> TemplateFact:
    """What is written for arguments in this form."""
    name = "arguments as JSON text" if probe.as_text else "arguments as a mapping"
    try:
        text = probe.markup.write([_USER, probe.call()], _TOOLS, False)
    except DialectError as error:
        without = probe.write(_USER, {**probe.call(), "content": None})
        if without is None:
            why = str(error).removeprefix("the chat template refuses the conversation: ")
            return TemplateFact(name, "error", True, why)
        text = without
    asked = probe.write(_USER) or ""
    turn = text[len(asked) :] if text.startswith(asked) else text[text.find("Question7") :]
    if TOOL not in turn:
        if probe.content == "":
            other = _arguments(_Probe(probe.markup, probe.as_text, None))
            if other.found not in ("error", "dropped"):
                return other
        return TemplateFact(name, "dropped", True, "the call is not written")
    faults = {
        "lost": (VALUE not in turn or FIRST not in turn, "are not written"),
        "escaped twice": (
            '\\\\"q' in turn or f'"{{\\"{FIRST}' in turn,
            "come out as a text inside JSON",
        ),
        "quoted": (probe.as_text and "'{" in turn, "come out as a quoted text"),
        "Python repr": (f"{{'{FIRST}'" in turn, "come out as a Python dict"),
    }
    for found, (fault, why) in faults.items():
        if fault:
            return TemplateFact(name, found, True, f"the arguments {why}")
    words = [a for a, b in (("True", "true"), ("None", "null")) if a in turn and b not in turn]
    if words:
        why = f"{' and '.join(words)} where JSON has other words"
        return TemplateFact(name, "ok, Python literals", False, why)
    return TemplateFact(name, "ok")


def _usable(markup: TemplateMarkup, forms: list[TemplateFact]) -> _Probe | None:
    """The first form in which calls are written."""
    for as_text, fact in zip((False, True), forms, strict=True):
        if fact.found.startswith("ok") or fact.found == "Python repr":
            for content in ("", None):
                probe = _Probe(markup, as_text, content)
                if VALUE in (probe.write(_USER, probe.call()) or ""):
                    return probe
    return None


def _need(
    name: str, text: str | None, found: str, needs: dict[str, tuple[str, str]]
) -> TemplateFact:
    """The fact on a text that must hold these words; each has what is found and why without it."""
    if text is None:
        return TemplateFact(name, "error", True)
    for word, (without, why) in needs.items():
        if word not in text:
            return TemplateFact(name, without, True, why)
    return TemplateFact(name, found)


def _turns(probe: _Probe) -> Iterator[TemplateFact]:
    """What becomes of two calls, of calls without text, and of text beside a call."""
    text = probe.write(_USER, probe.call(2))
    if text is None:
        yield TemplateFact("two calls", "error", True, "a turn has one call at most")
    elif text.count(OTHER) > (probe.write(_USER) or "").count(OTHER):
        yield TemplateFact("two calls", "yes")
    else:
        yield TemplateFact("two calls", "second dropped", True, "only the first call is written")
    for name, content in (("null content", None), ("empty content", "")):
        text = probe.write(_USER, {**probe.call(), "content": content})
        yield _need(name, text, "ok", {VALUE: ("call dropped", "")})
    name = "text beside a call"
    text = probe.write(_USER, {**probe.call(), "content": TEXT})
    needs = {
        VALUE: ("call dropped", "a turn with text loses its calls"),
        TEXT: ("text dropped", "a turn with calls loses its text"),
    }
    fact = _need(name, text, "kept", needs)
    plain = probe.write(_USER, _ANSWER) or ""
    before, _, _ = plain.rpartition(TEXT)
    moved = text and before not in text and "analysis" in text[text.find("Question7") :]
    if moved and not fact.fault:
        fact = TemplateFact(name, "as reasoning", True, "the text is written as reasoning")
    yield fact


def find_reasoning(markup: TemplateMarkup) -> tuple[str | None, TemplateFact]:
    """Return the field in which the template looks for reasoning, or None, and the fact."""
    probe = _Probe(markup)
    for field in REASONING_FIELDS:
        answer, call = (
            REASON in (probe.write(_USER, {**turn, field: REASON}) or "")
            for turn in (_ANSWER, probe.call())
        )
        if answer or call:
            why = f"field {field}" if answer else "beside calls only"
            return field, TemplateFact("reasoning", "kept", False, why)
    why = "reasoning stands in the text, between <think> marks"
    return None, TemplateFact("reasoning", "ignored", False, why)


def broken_prefixes(probe: _Probe, field: str | None) -> tuple[str, str]:
    """Return the letters of what breaks, with or without a system message, and the first cause."""
    reason = {field: REASON} if field else {}
    turns = [{**probe.call(), **reason}, _RESULT, {**_ANSWER, **reason}]
    chat = [_USER, *turns, _AGAIN, *turns]
    breaks = _breaks(probe, chat)
    if probe.write(_SYSTEM, *chat) is not None:
        breaks = {**_breaks(probe, [_SYSTEM, *chat]), **breaks}
    order = "".join(letter for letter in "fght" if letter in breaks)
    first = next((letter for letter in "gfht" if letter in breaks), None)
    return order, "" if first is None else _cause(*breaks[first], in_header="g" in breaks)


def _breaks(probe: _Probe, chat: list[ChatTurn]) -> dict[str, tuple[str, str]]:
    """For each letter the first two texts of which the one should begin the other, and does not."""
    whole = probe.write(*chat)
    breaks: dict[str, tuple[str, str]] = {}
    for index in [k for k, message in enumerate(chat) if message["role"] == "assistant"]:
        asked, turn = probe.write(*chat[:index], header=True), probe.write(*chat[: index + 1])
        end = next((k for k in range(index + 1, len(chat)) if chat[k]["role"] != "tool"), len(chat))
        answered = probe.write(*chat[:end]) if end > index + 1 else None
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
