"""What a chat template does with tools, calls, results and thoughts: `examine`, `cures`.

facts = examine(TemplateMarkup(tokenizer))      # found by writing sentinels (`probing.py`)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from toolhone.dialects.chat_template.dialect import REASON, REASONING_FIELDS
from toolhone.dialects.chat_template.sanitise import TemplateMarkup
from toolhone.dialects.chat_template.turns import common_start
from toolhone.dialects.probe.derive import FIRST, OTHER, TOOL, VALUE
from toolhone.dialects.probe.message_facts import message_facts, thoughts_in_text
from toolhone.dialects.probe.probing import (
    AGAIN,
    ANSWER,
    RESULT,
    SYSTEM,
    TEXT,
    USER,
    TemplateFact,
    TemplateProbe,
    need,
)
from toolhone.errors import DialectError
from toolhone.schema import Json
from toolhone.tokenizer import TextTokenizer

_ALTERED = re.compile(r"250\.5[A-Za-z]")
"""The number of the probes with letters behind it."""


def examine(markup: TemplateMarkup) -> list[TemplateFact]:
    """Return all facts on a template with its keywords as they are, found by writing sentinels.

    Where it refuses tools in the object `function`, the other facts are of tools without it.
    """
    probe, tools = _tools(markup)
    if probe is None:
        return [tools]
    forms, usable = _usable(probe)
    field, reasoning = _reasoning(probe)
    if usable is None:
        missing = TemplateFact("calls", "never shown", True, "no form of a call reaches the text")
        return [tools, *forms, missing, *reasoning, *thoughts_in_text(probe)]
    shown = usable.write(USER, usable.call(), RESULT, ANSWER)
    lost = {RESULT["content"]: ("dropped", "results of tools are not shown")}
    facts = [tools, *forms, *_turns(usable), *reasoning, need("results", shown, "yes", lost)]
    prefixes = {"prefix": None, **({"prefix with reasoning": field} if field else {})}
    for name, used in prefixes.items():
        letters, why = _broken_prefixes(usable, used)
        facts.append(TemplateFact(name, letters or "keeps", bool(letters), why))
    return [*facts, *message_facts(usable)]


def _tools(markup: TemplateMarkup) -> tuple[TemplateProbe | None, TemplateFact]:
    """Whether the tools are shown, and the probe with the form of tools that is not refused."""
    probe = TemplateProbe(markup)
    try:
        text = probe.write(SYSTEM, USER, header=True) or markup.write([USER], probe.tools, True)
    except DialectError as error:
        bare = replace(probe, tools=tuple(tool["function"] for tool in probe.tools))
        usable = bare if bare.write(USER, header=True) else None
        return usable, TemplateFact("tools", "error", True, str(error))
    later = probe.write(USER, ANSWER, AGAIN, header=True)
    if TOOL not in text or OTHER not in text:
        return probe, TemplateFact("tools", "no", True, "the tools never reach the prompt")
    if later and TEXT in later and later.find(TOOL) > later.find(TEXT):
        why = "the tools stand before the last turn of the user, and move with it"
        return probe, TemplateFact("tools", "yes (last user)", False, why)
    return probe, TemplateFact("tools", "yes")


def cures(tokenizer: TextTokenizer, markup: TemplateMarkup) -> Iterator[TemplateFact]:
    """Yield what each keyword of the template changes: the letters of `prefix`."""

    def letters_of(kwargs: Mapping[str, Json]) -> tuple[str, str] | None:
        """The letters without and with reasoning; None where calls are never shown."""
        changed = TemplateMarkup(tokenizer, {**markup.template_kwargs, **kwargs})
        opened = _tools(changed)[0]
        probe = _usable(opened)[1] if opened else None
        if probe is None:
            return None
        field = _reasoning(probe)[0]
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


def _arguments(probe: TemplateProbe) -> TemplateFact:
    """What is written for arguments in this form."""
    name = "arguments as JSON text" if probe.as_text else "arguments as a mapping"
    try:
        text = probe.markup.write([USER, probe.call()], probe.tools, False)
    except DialectError as error:
        without = probe.write(USER, probe.call(content=None))
        if without is None:
            why = str(error).removeprefix("the chat template refuses the conversation: ")
            return TemplateFact(name, "error", True, why)
        text = without
    asked = probe.write(USER) or ""
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
        ("altered", _ALTERED.search(turn) is not None, "are written with letters behind them"),
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


def _usable(probe: TemplateProbe) -> tuple[list[TemplateFact], TemplateProbe | None]:
    """The facts on both forms of arguments, and the first form in which calls are written."""
    probes = [probe, replace(probe, as_text=True)]
    forms = [_arguments(probe) for probe in probes]
    for probe, fact in zip(probes, forms, strict=True):
        if fact.found.startswith("ok") or fact.found in ("Python repr", "altered"):
            for usable in (probe, replace(probe, content=None)):
                if VALUE in (usable.write(USER, usable.call()) or ""):
                    return forms, usable
    return forms, None


def _turns(probe: TemplateProbe) -> Iterator[TemplateFact]:
    """What becomes of two calls, of calls without text, and of text beside a call."""
    text = probe.write(USER, probe.call(2))
    if text is None:
        yield TemplateFact("two calls", "error", True, "a turn has one call at most")
    elif text.count(OTHER) > (probe.write(USER) or "").count(OTHER):
        yield TemplateFact("two calls", "yes")
    else:
        yield TemplateFact("two calls", "second dropped", True, "only the first call is written")
    needs = {VALUE: ("call dropped", "")}
    for name, content in (("null content", None), ("empty content", "")):
        yield need(name, probe.write(USER, probe.call(content=content)), "ok", needs)
    needs = {VALUE: ("call dropped", "a turn with text loses its calls")}
    needs[TEXT] = ("text dropped", "a turn with calls loses its text")
    name, text = "text beside a call", probe.write(USER, probe.call(content=TEXT))
    fact = need(name, text, "kept", needs)
    before = (probe.write(USER, ANSWER) or "").rpartition(TEXT)[0]
    moved = text and before not in text and "analysis" in text[text.find("Question7") :]
    if moved and not fact.fault:
        fact = TemplateFact(name, "as reasoning", True, "the text is written as reasoning")
    yield fact


def _reasoning(probe: TemplateProbe) -> tuple[str | None, Iterator[TemplateFact]]:
    """The first field in which the template looks for reasoning, or None, and the facts."""
    turns = (ANSWER, probe.call())
    read = {
        field: [REASON in (probe.write(USER, {**turn, field: REASON}) or "") for turn in turns]
        for field in REASONING_FIELDS
    }
    fields = [field for field, found in read.items() if any(found)]

    def facts() -> Iterator[TemplateFact]:
        if not fields:
            why = "reasoning stands in the text, between <think> marks"
            yield TemplateFact("reasoning", "ignored", False, why)
            return
        why = f"field {fields[0]}" if read[fields[0]][0] else "beside calls only"
        yield TemplateFact("reasoning", "kept", False, why)
        yield TemplateFact("fields of reasoning", ", ".join(fields))

    return next(iter(fields), None), facts()


def _broken_prefixes(probe: TemplateProbe, field: str | None) -> tuple[str, str]:
    """The letters of what breaks, with or without a system message, and the first cause."""
    reason = {field: REASON} if field else {}
    turns = [{**probe.call(), **reason}, RESULT, {**ANSWER, **reason}]
    plain = [USER, *turns, AGAIN, *turns]
    breaks: dict[str, tuple[str, str]] = {}
    """For each letter the first two texts of which the one should begin the other, and does not."""
    for chat in (plain, [SYSTEM, *plain]):
        whole = probe.write(*chat)
        if whole is None and chat is not plain:
            continue
        for index in [k for k, message in enumerate(chat) if message["role"] == "assistant"]:
            asked, turn = probe.write(*chat[:index], header=True), probe.write(*chat[: index + 1])
            later = whole if index + 1 < len(chat) else None
            behind = chat[index + 1 : index + 2]
            answered = probe.write(*chat[: index + 2]) if behind == [RESULT] else None
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
