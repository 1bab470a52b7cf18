"""Keeping apart what a chat template writes and what users, tools and data write.

A template mixes its own marks with text from outside into one string. So that text from outside can never become a control token,
it is disguised before it goes in: every character with which a control token may begin or end is replaced by a private stand-in of
the same length, and whole messages are put between private marks. What comes out is a *marked* text: a real control mark in it was
written by the template. `spans` puts the true characters back and says which parts came from outside.

    Marks.data(text)     a message's text, marked as a whole
    Marks.inner(value)   strings deep inside tools and arguments: stand-ins only, so that the template may still compare them
    Marks.spans(marked)  spans with `control=False` for all that came from outside
    Marks.plain(marked)  the text as the model sees it
    restored(text)       the marked text that a template wrote, where it spelled the stand-ins as Python or JSON escapes

Text that is adapted by the template (trimmed, escaped as JSON) survives; text that is cut in the middle is refused. Reserved are
256 characters of the private plane 16; they are escaped where data holds them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from toolhone.dialects.base import Span, Spans
from toolhone.errors import DialectError
from toolhone.rows import Origin
from toolhone.schema import Json

_BASE = 0x10F000
_BEGIN, _END, _BEGIN_TOOL, _END_TOOL, _ESCAPE = (chr(_BASE + i) for i in range(5))
_FIRST_STAND_IN = 5
_RESERVED = re.compile(f"[{chr(_BASE)}-{chr(_BASE + 255)}]")
_SPELLED = re.compile(
    rf"\\U00{_BASE >> 8:x}([0-9a-f]{{2}})|\\u{0xD800 + ((_BASE - 0x10000) >> 10):x}\\udc([0-9a-f]{{2}})"
)
"""A reserved character as Python's `repr` writes it, or JSON in ASCII."""
_HEXES = "0123456789abcdef"
_ESCAPED = re.compile(f"{_ESCAPE}([{_HEXES}])([{_HEXES}])")


class ControlTokenGuard:
    """Disguise for one set of control tokens. `folding`: the tokenizer changes characters before it looks for control tokens."""

    def __init__(self, control: Iterable[str], folding: bool = False) -> None:
        edges = {
            edge
            for text in control
            for edge in (text[0], text[-1])
            if not edge.isalnum() and not edge.isspace()
        }
        edges |= set(_look_alikes(frozenset(edges))) if folding else set()
        edges = set(sorted(edges, key=ord)[: 255 - _FIRST_STAND_IN])
        stand_ins = {
            edge: chr(_BASE + _FIRST_STAND_IN + i) for i, edge in enumerate(sorted(edges, key=ord))
        }
        escapes = {chr(_BASE + i): f"{_ESCAPE}{i:02x}" for i in range(256)}
        self._disguise = str.maketrans({**stand_ins, **escapes})
        self._true = {stand_in: edge for edge, stand_in in stand_ins.items()}
        self._reveal = str.maketrans(
            {**self._true, **dict.fromkeys((_BEGIN, _END, _BEGIN_TOOL, _END_TOOL), "")}
        )

    def data(self, text: str, tool: bool = False) -> str:
        """A message's text between marks; white space at its ends stays outside, so that a template may trim it."""
        body = text.strip()
        _check(body)
        if not body:
            return text
        start = len(text) - len(text.lstrip())
        begin, end = (_BEGIN_TOOL, _END_TOOL) if tool else (_BEGIN, _END)
        return (
            f"{text[:start]}{begin}{body.translate(self._disguise)}{end}{text[start + len(body) :]}"
        )

    def inner(self, value: Json) -> Json:
        """The value with stand-ins in all its strings and keys."""
        if isinstance(value, str):
            _check(value)
            return value.translate(self._disguise)
        if isinstance(value, Mapping):
            return {
                str(key).translate(self._disguise): self.inner(item) for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.inner(item) for item in value]
        return value

    def plain(self, marked: str) -> str:
        """The text as the model sees it."""
        if not _RESERVED.search(marked):
            return marked
        pieces = _ESCAPED.split(marked)
        for i in range(0, len(pieces), 3):
            pieces[i] = pieces[i].translate(self._reveal)
            if i + 2 < len(pieces):
                pieces[i + 1 : i + 3] = [chr(_BASE + int(pieces[i + 1] + pieces[i + 2], 16)), ""]
        return "".join(pieces)

    def plain_value(self, value: Json) -> Json:
        """The value with the true text in all its strings and keys: the inverse of `data` and `inner`."""
        if isinstance(value, str):
            return self.plain(value)
        if isinstance(value, Mapping):
            return {self.plain(key): self.plain_value(item) for key, item in value.items()}
        return [self.plain_value(item) for item in value] if isinstance(value, list) else value

    def spans(
        self,
        marked: str,
        origin: Origin = Origin.PROMPT,
        trained: bool = False,
        turn: int | None = None,
    ) -> Spans:
        """The text as spans; text of tools has `Origin.TOOL`, all else the given origin."""
        spans: Spans = []
        inside = ""
        position = 0
        for found in _RESERVED.finditer(marked):
            if found.start() < position:
                continue
            kind = origin if inside != _END_TOOL else Origin.TOOL
            _add(spans, Span(marked[position : found.start()], kind, trained, not inside, turn))
            position, mark = found.end(), found[0]
            if mark in (_BEGIN, _BEGIN_TOOL, _END, _END_TOOL):
                opens = mark in (_BEGIN, _BEGIN_TOOL)
                if opens == bool(inside) or (inside and mark != inside):
                    raise DialectError(
                        "the chat template cuts a message's text in pieces, so that text from outside cannot be told apart"
                    )
                inside = "" if inside else {_BEGIN: _END, _BEGIN_TOOL: _END_TOOL}[mark]
                continue
            if mark == _ESCAPE:
                escaped = _ESCAPED.match(marked, found.start())
                position = found.end() + 2
                true = "" if escaped is None else chr(_BASE + int(escaped[1] + escaped[2], 16))
            else:
                true = self._true.get(mark, "")
            _add(spans, Span(true, kind, trained, False, turn))
        if inside:
            raise DialectError(
                "the chat template cuts off a message's text, so that text from outside cannot be told apart"
            )
        _add(spans, Span(marked[position:], origin, trained, True, turn))
        return spans


def restored(text: str) -> str:
    """What a template wrote, with the reserved characters that it spelled as escapes (a list through `repr`, for instance)."""
    return (
        _SPELLED.sub(lambda found: chr(_BASE + int(found[1] or found[2], 16)), text)
        if "\\" in text
        else text
    )


def _check(text: str) -> None:
    if "\\" in text and _SPELLED.search(text):
        raise DialectError(f"a text spells a character that is reserved for marking: {text!r:.80}")


def _add(spans: Spans, span: Span) -> None:
    """Append, joined to the last span where they differ in text only."""
    if not span.text:
        return
    last = spans[-1] if spans else None
    if last is not None and replace(last, text="") == replace(span, text=""):
        spans[-1] = replace(span, text=last.text + span.text)
    else:
        spans.append(span)


@lru_cache(maxsize=8)
def _look_alikes(edges: frozenset[str]) -> tuple[str, ...]:
    """Characters that some Unicode normal form turns into one of `edges` (a full-width `＜`, for instance)."""
    compatible = (
        chr(code) for block in ((0xA0, 0xD800), (0xF900, 0x20000)) for code in range(*block)
    )
    return tuple(
        character
        for character in compatible
        if unicodedata.normalize("NFKD", character)[:1] in edges
    )
