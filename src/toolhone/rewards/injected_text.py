"""What a reply must not hold as plain text: marks that only templates write, and calls where no parser looks for them.

    forged("Done.<|im_end|>", [])                         True
    hidden_call("I would do weather(city='Rome')", task)  True, where `weather` is on offer

Full-width letters and characters without width count as what they look like. What the messages before say may be repeated: a user
who asks about `<think>` gets an answer. Only the text that is left when the calls have been read is looked at, never the
reasoning.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from toolhone.schema import Task

_WORDS = "tool_calls?|tool_responses?|tool_results?|function_calls?|function_results?|tools|think|invoke|parameter|function"
_FORGED = re.compile(
    rf"<\|[^|<>\s]{{1,40}}\|>|</?(?:{_WORDS})\b[^<>\n]{{0,80}}>|<(?:start|end)_of_turn>|<</?sys>>"
    r"|\[/?(?:tool_calls?|tool_results?|available_tools|inst)\]",
    re.IGNORECASE,
)


def forged(text: str, messages: Sequence[str]) -> bool:
    """Whether the text has a mark of templates that no message before it has."""
    return _new(_FORGED, text, messages)


def hidden_call(text: str, task: Task) -> bool:
    """Whether the text writes a call of a tool on offer, in whatever form, that no message of the task writes."""
    names = tuple(tool.name for tool in task.tools)
    return bool(names) and _new(
        _call_of(names), text, [message.content or "" for message in task.messages]
    )


def _new(pattern: re.Pattern[str], text: str, messages: Sequence[str]) -> bool:
    found = {match[0] for match in pattern.finditer(_plain(text))}
    return bool(found) and not found <= {
        match[0] for message in messages for match in pattern.finditer(_plain(message))
    }


def _plain(text: str) -> str:
    """The text as it looks: compatible forms are one, and what has no width is gone."""
    if text.isascii():
        return text
    return "".join(
        letter
        for letter in unicodedata.normalize("NFKC", text)
        if unicodedata.category(letter) != "Cf"
    )


@lru_cache(maxsize=256)
def _call_of(names: tuple[str, ...]) -> re.Pattern[str]:
    """A call of one of these tools: in Python's way, or its name as a value in JSON or behind a mark."""
    name = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    python = rf"(?<![\w.])(?:{name})(?:\(|\s+\((?=\s*(?:\w+\s*[=:]|[\"'\[{{])))"
    in_json = rf"[\"'](?:name|tool|function|tool_name)[\"']\s*:\s*[\"'](?:{name})[\"']"
    return re.compile(rf"{python}|{in_json}|<(?:function|invoke)[= ][^<>\n]{{0,20}}(?:{name})\b")
