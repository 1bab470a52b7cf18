"""What a template does with messages as servers and logs pass them: `message_facts`.

Parts instead of a text, thoughts typed into the text, two turns of the assistant in a row, results
without a name, tools without a description, and prompts without tools.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from toolhone.dialects.chat_template.dialect import REASON
from toolhone.dialects.chat_template.turns import common_start
from toolhone.dialects.probe.derive import TOOL, VALUE, values_in
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

PART, SECOND = "Part7", "Second7"
_NAMED = {"system": "system", "user": "user", "assistant": "assistant", "tool": "results"}
_MARK = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")
_OF_TOOLS = re.compile(r".{,30}\b(?:tools?|functions?)\b.{,20}", re.IGNORECASE)
_SHOWN_PART = re.compile(rf"[\"']text[\"']: ?[\"']{PART}")


def message_facts(probe: TemplateProbe) -> Iterator[TemplateFact]:
    """Yield the facts, found with the form of calls that works."""
    yield from _broken_json(probe)
    yield from _parts(probe)
    yield from thoughts_in_text(probe)
    yield from _two_answers(probe)
    yield from _left_out(probe)
    yield from _prompts(probe)


def _turn(text: str) -> str:
    """What follows the question of the user."""
    return text.rpartition("Question7")[2]


def _broken_json(probe: TemplateProbe) -> Iterator[TemplateFact]:
    """A call of which an object holds the name alone, and the arguments stand behind it."""
    turn = _turn(probe.write(USER, probe.call()) or "")
    for start, end, value in values_in(turn, "{", literal=False):
        closed = VALUE not in turn[start:end] and TOOL in str(value)
        if closed and re.match(r",\s*\"", turn[end:]):
            why = f"{turn[start : end + 16]!r} is no JSON: the arguments stand outside"
            yield TemplateFact("calls", "broken JSON", True, why)


def _parts(probe: TemplateProbe) -> Iterator[TemplateFact]:
    """Whether texts may come as lists of two parts, as the APIs of servers allow."""
    chat = [SYSTEM, USER, probe.call(), RESULT, ANSWER]
    if probe.write(*chat) is None:
        chat = chat[1:]
    lost = []
    for at, message in enumerate(chat):
        if not message["content"]:
            continue
        words = (message["content"], PART)
        parts = {**message, "content": [{"type": "text", "text": word} for word in words]}
        text = probe.write(*chat[:at], parts, *chat[at + 1 :]) or ""
        if not all(word in text for word in words) or _SHOWN_PART.search(text):
            lost.append(_NAMED[message["role"]])
    why = "lists of parts are refused, or not written as text" if lost else ""
    yield TemplateFact(
        "content in parts", f"lost ({', '.join(lost)})" if lost else "yes", bool(lost), why
    )


def thoughts_in_text(probe: TemplateProbe) -> Iterator[TemplateFact]:
    """What becomes of a thought that stands in the text, with both marks or the last alone."""
    if "</think>" not in probe.markup.source:
        return
    found, why = "kept", ""
    for opens in ("<think>\n", ""):
        content = f"{opens}{REASON}\n</think>\n\n{TEXT}"
        turn = _turn(probe.write(USER, {**ANSWER, "content": content}) or "")
        if turn.count(TEXT) != 1 or turn.count("</think>") > 1:
            found, why = "corrupted", f"{content!r} is written as {turn.strip()!r:.90}"
        elif REASON not in turn and found == "kept":
            found, why = "dropped", "thoughts in the text are not written"
    yield TemplateFact("thoughts in the text", found, found != "kept", why)


def _two_answers(probe: TemplateProbe) -> Iterator[TemplateFact]:
    """What stands between two turns of the assistant in a row, as logs of Responses have them."""
    name, second = "two answers in a row", {**ANSWER, "content": SECOND}
    asked, one, more = (
        probe.write(USER),
        probe.write(USER, ANSWER),
        probe.write(USER, ANSWER, AGAIN),
    )
    both = probe.write(USER, ANSWER, second)
    if asked is None or one is None or more is None:
        return
    if both is None or SECOND not in both:
        yield TemplateFact(name, "error" if both is None else "dropped", True)
        return
    gap = both.rpartition(TEXT)[2].partition(SECOND)[0]
    head, _, end = one.removeprefix(asked).strip().partition(TEXT)
    opening, closing = (_MARK.search(part) for part in (head, end))
    opens, ends = (mark is not None and mark[0] in gap for mark in (opening, closing))
    ended = closing is not None and closing[0] in more.rpartition(TEXT)[2]
    if not gap:
        yield TemplateFact(name, "glued", True, "nothing stands between their texts")
    elif one.startswith(asked) and opening and ended and ends != opens:
        yield TemplateFact(name, "unbalanced", True, f"between them stands {gap!r:.60}")
    else:
        yield TemplateFact(name, "yes" if opens or ends else "joined")


def _left_out(probe: TemplateProbe) -> Iterator[TemplateFact]:
    """Results without a name and an id, and tools without a description."""
    result = {**RESULT, "name": None, "tool_call_id": None}
    text = probe.write(USER, probe.call(), result, ANSWER)
    yield need("results without a name", text, "ok", {RESULT["content"]: ("dropped", "")})
    tools = tuple(_undescribed(tool) for tool in probe.tools)
    usual, text = (each.write(USER, header=True) for each in (probe, replace(probe, tools=tools)))
    if not usual or TOOL not in usual:
        return
    fact = need("tools without a description", text, "ok", {TOOL: ("dropped", "")})
    if text and text.count("None") > usual.count("None"):
        fact = replace(fact, found="None", fault=True, why="None is written for a description")
    yield fact


def _undescribed(tool: Any) -> Any:
    """The tool with null for its own description."""
    if "function" in tool:
        return {**tool, "function": _undescribed(tool["function"])}
    return {**tool, "description": None}


def _prompts(probe: TemplateProbe) -> Iterator[TemplateFact]:
    """What stands in prompts once too often: a system message, words on tools, a header."""
    text = probe.write(SYSTEM, USER)
    fact = need("system message", text, "yes", {SYSTEM["content"]: ("dropped", "")})
    if text and text.count(SYSTEM["content"]) > 1:
        fact = replace(fact, found="twice", fault=True, why="it is written more than once")
    yield fact
    plain = replace(probe, tools=())
    found = _OF_TOOLS.search(plain.write(USER, header=True) or "")
    why = f"it says {found[0]!r}" if found else ""
    yield TemplateFact("a prompt without tools", "speaks of tools" if found else "ok", False, why)
    chats = (USER,), (USER, probe.call(), RESULT)
    question, results = (plain.write(*chat) for chat in chats)
    again = plain.write(*chats[1], AGAIN)
    if not question or not results or not again:
        return
    header = results[len(common_start(results, again)) :].strip()
    asked = [plain.write(*chat, header=True) for chat in chats]
    if header and question.strip().endswith(header) and asked == [question, results]:
        why = "the header of an answer ends each text, wanted or not"
        yield TemplateFact("generation prompt", "always", True, why)
