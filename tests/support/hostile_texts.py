"""Texts that parsers trip over: random ones full of a syntax's own marks, and long ones that repeat
what costs most to read.

pieces_of(syntax)             what random texts are made of
random_text(rng, pieces)      a short text
adversarial(syntax, size)     (what it is, a text of about this size), many
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from toolhone.dialects.interface import Syntax
from toolhone.dialects.syntax.delimited import ID_SLOT, NAME_SLOT, NUMBER_SLOT, DelimitedSyntax

_PLAIN = (
    *"ab1.,:;=-_<>{}[]()'\"\\/|*%$#&!",
    *(
        " ",
        "  ",
        "\n",
        "\t",
        "\r\n",
        "é",
        "漢",
        "🙂",
        "\u2028",
        "\x00",
        "\x01",
        "\x02",
        "\x03",
        "\ufffd",
        "\U0010f005",
    ),
    *(
        "null",
        "true",
        "None",
        "True",
        "-2.5",
        "1e5",
        "0x",
        "9" * 30,
        "\\u00e9",
        "\\ud800",
        "\\'",
        '\\"',
        '""',
        "''",
        "{}",
        "[]",
        "()",
    ),
    *(
        '{"name": "f", "arguments": {}}',
        '{"a": 1}',
        "{'a': 1}",
        '{"f": {}}',
        "f(a=1)",
        "a=",
        "**{",
        "<think>",
        "</think>",
        "```json",
    ),
    *(
        '"name": ',
        '"arguments": ',
        "[TOOL_CALL]",
        "[/TOOL_CALL]",
        "<tool_call>",
        "</tool_call>",
        '{"tool": "f"}',
        '{"final": "x"}',
    ),
)
_NAMES = ("get_weather", "f", "")


def _filled(mark: str) -> str:
    return mark.replace(NAME_SLOT, "f").replace(ID_SLOT, "call00000").replace(NUMBER_SLOT, "1")


def marks_of(syntax: Syntax) -> list[str]:
    """The marks of a derived syntax; none for others, whose marks are among the plain pieces."""
    if not isinstance(syntax, DelimitedSyntax):
        return []
    frame, body = syntax.frame, syntax.body
    marks = [frame.before, frame.after, frame.middle, frame.between or "", frame.lead]
    marks += [
        getattr(body, side, "")
        for side in ("opens", "separates", "closes", "joins", "opening", "closing", "raw")
    ]
    return [mark for mark in dict.fromkeys(map(_filled, marks)) if mark]


def pieces_of(syntax: Syntax) -> tuple[str, ...]:
    """Plain pieces, and marks whole, joined with names, and in halves; marks are about half."""
    marks = marks_of(syntax)
    halves = [
        part for mark in marks for part in (mark[: len(mark) // 2], mark[len(mark) // 2 :]) if part
    ]
    named = [mark + name for mark in marks for name in _NAMES]
    own = [*marks, *named, *halves]
    return (*_PLAIN, *(own * max(1, len(_PLAIN) // max(len(own), 1))))


def random_text(rng: random.Random, pieces: Sequence[str], most: int = 24) -> str:
    return "".join(rng.choices(pieces, k=rng.randrange(most)))


def _starts(syntax: Syntax) -> list[str]:
    starts = ["", "text ", '{"name": "', "f(a="]
    if isinstance(syntax, DelimitedSyntax):
        frame, body = syntax.frame, syntax.body
        call = _filled(f"{frame.before}f{frame.middle}")
        value = (
            "".join(getattr(body, side, "") for side in ("opens",))
            + "a"
            + getattr(body, "separates", "")
        )
        starts += [
            _filled(frame.before),
            call,
            call + "{",
            call + '{"a": "',
            call + value,
            call + "(a=",
            f"{call}{{a:{getattr(body, 'opening', '')}",
        ]
    return list(dict.fromkeys(starts))


def _units(syntax: Syntax) -> list[str]:
    marks = marks_of(syntax)
    plain = [
        *"{[(\"'\\ax1<,=:",
        " ",
        "\n",
        "\t",
        '{"a":',
        "[{",
        "f(a=",
        "f(a='",
        'f(a="',
        "(a=[",
        "\\'",
        '\\"',
        '"\\"',
        "a=1,",
        '"a": 1, ',
    ]
    pairs = [
        a + b
        for a in marks
        for b in ("f", "{", '{"a":"', "[", " ", "f{a:", "f(a='", "f(a=", '"', "'", "1,")
    ]
    calls = [start + tail for start in _starts(syntax)[4:] for tail in ("", "1", "}", ")", *marks)]
    return list(
        dict.fromkeys([*plain, *marks, *pairs, *[a + b for a in marks for b in marks], *calls])
    )


def adversarial(syntax: Syntax, size: int, every: int = 1) -> Iterator[tuple[str, str]]:
    """Each start followed by one unit again and again, up to this size; `every`: only each
    so-many-th of them.
    """
    count = 0
    for start in _starts(syntax):
        for unit in _units(syntax):
            count += 1
            if count % every == 0:
                yield f"{start!r} + {unit!r}", start + unit * (size // len(unit))
