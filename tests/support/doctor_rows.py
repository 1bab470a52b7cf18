"""Rows for the tests of the data doctor: one tool, short turns, and what is wrong with them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from toolhone.dialects.choose import open_dialect
from toolhone.doctor.diagnose import Diagnosis, diagnose
from toolhone.doctor.lengths import ModelParts
from toolhone.doctor.reading import read_file
from toolhone.errors import FindingKind
from toolhone.models.pico import pico_folder
from toolhone.tokenizer import TextTokenizer

Row = dict[str, Any]
PARAMETERS: Row = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "options": {"type": "object"},
    },
    "required": ["city"],
}
WEATHER: Row = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather.", "parameters": PARAMETERS},
}
OTHER: Row = {
    "type": "function",
    "function": {"name": "search", "description": "Finds.", "parameters": {"type": "object"}},
}
OSLO = {"name": "get_weather", "arguments": {"city": "Oslo"}}


def say(text: str | None, **more: Any) -> Row:
    return {"role": "assistant", "content": text, **more}


def calling(name: str = "get_weather", arguments: Any = None, **more: Any) -> Row:
    body = {"name": name, "arguments": {"city": "Oslo"} if arguments is None else arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"function": body, **more}]}


def answer(text: str = "rain", **more: Any) -> Row:
    return {"role": "tool", "content": text, **more}


def row(
    *turns: Row, question: str = "Rain in Oslo?", tools: Any = (WEATHER, OTHER), **more: Any
) -> Row:
    return {
        "messages": [{"role": "user", "content": question}, *turns],
        "tools": list(tools),
        **more,
    }


def numbered(rows: list[Row]) -> list[Row]:
    """The rows with questions of their own, so that none repeats another."""
    for number, one in enumerate(rows):
        one["messages"][0]["content"] += f" ({number})"
    return rows


def save(path: Path, *rows: Row | str) -> Path:
    path.write_text(
        "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows),
        encoding="utf-8",
    )
    return path


def examine(path: Path, *rows: Row | str) -> Diagnosis:
    return diagnose([read_file(save(path / "rows.jsonl", *rows))])


def kinds(path: Path, *rows: Row | str) -> Counter[FindingKind]:
    return examine(path, *rows).findings.counts


def pico() -> ModelParts:
    tokenizer = TextTokenizer.load(pico_folder())
    return ModelParts(open_dialect(tokenizer), tokenizer)


CALL = json.dumps(OSLO)
XML = "<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>"
TYPED = {
    "tags": f"Sure.\n<tool_call>\n{CALL}\n</tool_call>",
    "brackets": '[TOOL_CALL]{"name": "get_weather", "parameters": {"city": "Oslo"}}[/TOOL_CALL]',
    "single quotes": '<functioncall> {"name": "get_weather", "arguments": \'{"city": "Oslo"}\'}',
    "Python literals": (
        "<tool_call>{'name': 'get_weather', 'arguments': {'city': 'Oslo'}}</tool_call>"
    ),
    "a list": f"[TOOL_CALLS] [{CALL}]",
    "name and object": '[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}',
    "a function mark": '<function=get_weather>{"city": "Oslo"}</function>',
    "parameters": XML,
    "parameters in tags": f"<tool_call>\n{XML}\n</tool_call>",
    "keys and values": (
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>"
    ),
    "invoke": '<invoke name="get_weather">\n<parameter name="city">Oslo</parameter>\n</invoke>',
    "Python in marks": '<|tool_call_start|>[get_weather(city="Oslo")]<|tool_call_end|>',
    "a code fence": f"Here:\n```json\n{CALL}\n```",
    "bare JSON": CALL,
    "bare Python": 'get_weather(city="Oslo")',
    "tool and args": '{"tool": "get_weather", "args": {"city": "Oslo"}}',
    "action": 'Thought: look\nAction: get_weather\nAction Input: {"city": "Oslo"}',
    "without its end": f"<tool_call>{CALL}",
    "unreadable": '<tool_call>{"name": "get_weather", </tool_call>',
}
SOUND: tuple[Row, ...] = (
    row(calling()),
    row(calling(), answer(), say("It rains."), question="And Rome?"),
    row(say("Hello!"), question="Hi"),
    row(
        say("Write `<tool_call>` in front of a call, and `</tool_call>` behind it."),
        question="How do I call?",
    ),
    row(say("<think>\nNo tool is needed.\n</think>\n\nHello!"), question="Good day"),
    row(say('As JSON: {"name": "Oslo", "people": 700000}'), question="Describe Oslo"),
    row(say('{"name": "unknown", "arguments": {"about": "get_weather"}}'), question="Give me JSON"),
    row(say("```python\nget_weather\n```"), question="The name?"),
    row(say("Use f(x) = 2x; O(n log n) is fine, and 1 < 2 > 0."), question="Functions?"),
)
