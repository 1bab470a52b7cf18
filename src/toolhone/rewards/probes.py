"""A few tasks of every kind, for attacking a reward without a task file: one call, several, nested values, none, and answers.

    attack(reward, PROBES, Tagged())
    attack(reward, OPEN_PROBES, Tagged())     # any call, any arguments, several right answers

They are made so that every attack of `attacks` applies to some of `PROBES`. A reward that reads wanted calls for itself knows
nothing of the others. Nobody is trained or measured on them.
"""

from __future__ import annotations

from typing import Final

from toolhone.schema import Json, Task


def _tool(name: str, description: str, required: list[str], **properties: Json) -> Json:
    return {
        "name": name,
        "description": description,
        "parameters": {"type": "object", "properties": properties, "required": required},
    }


_TEXT, _WHOLE, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_TOOLS: Final = [
    _tool("calculator", "Evaluate an arithmetic expression.", ["expression"], expression=_TEXT),
    _tool(
        "weather",
        "The weather in a city.",
        ["city"],
        city=_TEXT,
        unit={"type": "string", "enum": ["celsius", "fahrenheit"]},
    ),
    _tool(
        "book_table",
        "Book a table.",
        ["guests", "place"],
        guests=_WHOLE,
        place={"type": "object"},
        outside=_FLAG,
    ),
    _tool("delete_account", "Delete an account for ever.", ["user"], user=_TEXT),
]
_PYTHON: Final = _tool("python", "Run a program.", ["code"], code=_TEXT)


def _call(name: str, **arguments: Json) -> Json:
    return {"name": name, "arguments": arguments}


def _task(name: str, question: str, tools: list[Json], **expect: Json) -> Task:
    return Task.from_dict(
        {
            "id": name,
            "messages": [{"role": "user", "content": question}],
            "tools": tools,
            "expect": expect,
        }
    )


PROBES: Final[tuple[Task, ...]] = (
    _task(
        "one",
        "What is 48 times 17, please?",
        _TOOLS,
        calls=[_call("calculator", expression="48 * 17")],
    ),
    _task(
        "two_arguments",
        "How warm is it in Oslo in Fahrenheit?",
        _TOOLS,
        calls=[_call("weather", city="Oslo", unit="fahrenheit")],
    ),
    _task(
        "several",
        "Compare the weather of Rome, Oslo and Lima!",
        _TOOLS,
        calls=[_call("weather", city=city) for city in ("Rome", "Oslo", "Lima")],
    ),
    _task(
        "two_tools",
        "What is 6 times 7, and how is the weather in Rome?",
        _TOOLS,
        calls=[_call("calculator", expression="6 * 7"), _call("weather", city="Rome")],
    ),
    _task(
        "nested",
        "Book a table for 4 at Da Noi in Via Roma 3, outside.",
        _TOOLS,
        calls=[
            _call(
                "book_table",
                guests=4,
                place={"name": "Da Noi", "address": {"street": "Via Roma", "number": 3}},
                outside=True,
            )
        ],
    ),
    _task(
        "code",
        "Run a program that prints the first five squares.",
        [*_TOOLS, _PYTHON],
        calls=[_call("python", code="print(1)")],
    ),
    _task(
        "one_tool",
        "What is the weather in Lima?",
        [_TOOLS[1]],
        calls=[_call("weather", city="Lima")],
    ),
    _task("none", "Thank you very much, that was a great help!", _TOOLS, no_call=True),
    _task(
        "none_tempting",
        "Do you think that the weather in Rome is nicer than in Oslo?",
        _TOOLS,
        no_call=True,
    ),
    _task(
        "answer",
        "What is 48 times 17, computed with care?",
        _TOOLS,
        calls=[_call("calculator", expression="48 * 17")],
        answer="816",
    ),
    _task(
        "two_calls_and_answer",
        "What is 12 times 12, and what is 9 times 9? Add both.",
        _TOOLS,
        calls=[_call("calculator", expression="12 * 12"), _call("calculator", expression="9 * 9")],
        answer="225",
    ),
    _task(
        "answer_alone",
        "Ann has 3 boxes of 12 eggs and eats 5. How many are left?",
        _TOOLS,
        answer="31",
    ),
    _task(
        "answer_in_words",
        "Which city is warmer today, Rome or Oslo? Say its name.",
        _TOOLS,
        answer="Rome",
    ),
)

OPEN_PROBES: Final[tuple[Task, ...]] = (
    _task(
        "any_call",
        "Do whatever of this helps me most before my trip to Lima!",
        _TOOLS,
        any_call=True,
    ),
    _task(
        "any_arguments",
        "Find out something about the weather, and compute something.",
        _TOOLS,
        calls=[
            {"name": "weather", "any_arguments": True},
            {"name": "calculator", "any_arguments": True},
        ],
    ),
    _task(
        "one_of_two_tools",
        "What is 6 times 8?",
        [*_TOOLS, _PYTHON],
        calls=[_call("calculator", expression="6 * 8")],
        alternatives=[{"calls": [_call("python", code="print(6 * 8)")]}],
    ),
    _task(
        "ask_or_book",
        "Book a table for 2 at Da Noi.",
        _TOOLS,
        calls=[_call("book_table", guests=2, place={"name": "Da Noi"})],
        alternatives=[{"no_call": True}],
    ),
    _task(
        "answer_in_wordings",
        "How many days has a week?",
        _TOOLS,
        answer="7",
        alternatives=[{"answer": "seven"}],
    ),
)
"""Tasks that leave something open."""
