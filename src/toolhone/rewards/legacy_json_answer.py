"""The reward of llm-tool-calling (Apache-2.0) for replies in JSON, exactly: `format` + `tool` + `arguments` + `length`.

    {"tool": "calculator", "args": {"expression": "2+2"}}     +1 +0.5 +1      a call as wanted
    {"final": "anything"}                                     +1 +0.5         where no call is wanted
    ok {"tool": "calculator", "args": {"expression": "9"}}    +1 +0.5 -0.2    wrong value, text beside the JSON

The JSON is what stands from the first `{` to the last `}`. `format`: 1 if it has `final`, or a known tool and `args`. `tool`: +0.5
where both or neither of reply and task are final and the tool is the same, -0.5 for another tool or for final against tool, else 0.
`arguments`: 1 for the right arguments of the right tool: calculator expressions with the same value (to 1e-6), or else the same
text; Python code with the same syntax tree; of any other tool the same mapping. `length`: -0.2 where anything but white space
surrounds the JSON, or none was read. The wanted tool is that of the first wanted call; a task without wanted calls wants `final`,
whose text is never looked at. Known are the tools on offer (calculator and python where none are).

Expressions are evaluated in the sandbox, with `abs`, `round`, `min`, `max` and `pow` alone. The holes are kept: see `library`.
"""

from __future__ import annotations

import ast
import json
import math
import warnings
from collections.abc import Mapping
from functools import lru_cache

from toolhone.dialects.syntax.json_object import JsonObject
from toolhone.episodes.episode import Episode
from toolhone.rewards.legacy_texts import reply_text
from toolhone.rewards.values import same_code
from toolhone.schema import Json, Task
from toolhone.tools.result import ToolStatus
from toolhone.tools.sandbox import shared_sandbox

TOLERANCE = 1e-6
KNOWN_TOOLS = ("calculator", "python")
_FUNCTIONS = frozenset({"abs", "round", "min", "max", "pow"})
_MAX_EXPRESSION = 10_000


def json_answer(task: Task, episode: Episode) -> dict[str, float]:
    """The four parts; their sum is at most 2.5."""
    text = reply_text(episode, JsonObject())
    first, last = text.find("{"), text.rfind("}")
    answer = _object(text[first : last + 1]) if 0 <= first < last else None
    if answer is None:
        return {"format": 0.0, "tool": 0.0, "arguments": 0.0, "length": -0.2}
    calls = task.expect.calls or ()
    known = [tool.name for tool in task.tools] or KNOWN_TOOLS
    right = (
        bool(calls)
        and answer.get("tool") == calls[0].name
        and _right_arguments(calls[0].name, answer, calls[0].arguments)
    )
    return {
        "format": float("final" in answer or (answer.get("tool") in known and "args" in answer)),
        "tool": _tool(answer, calls[0].name if calls else None),
        "arguments": float(right),
        "length": -0.2 if text[:first].strip() or text[last + 1 :].strip() else 0.0,
    }


def _object(text: str) -> Mapping[str, Json] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _tool(answer: Mapping[str, Json], wanted: str | None) -> float:
    """`wanted` is None where a final answer is."""
    final = "final" in answer
    if final or wanted is None:
        return 0.5 if final and wanted is None else -0.5
    if "tool" not in answer:
        return 0.0
    return 0.5 if answer["tool"] == wanted else -0.5


def _right_arguments(tool: str, answer: Mapping[str, Json], wanted: Mapping[str, Json]) -> bool:
    given = answer.get("args")
    if not isinstance(given, Mapping):
        return False
    if tool == "calculator":
        return _same_result(given.get("expression"), wanted.get("expression"))
    if tool == "python":
        return "code" in given and same_code(given["code"], wanted.get("code"))
    try:
        return bool(given == wanted)
    except RecursionError:
        return False


def _same_result(given: Json, wanted: Json) -> bool:
    if not isinstance(given, str) or not isinstance(wanted, str):
        return bool(given is not None and given == wanted)
    first, second = value_of(given.strip()), value_of(wanted.strip())
    if first is None or second is None:
        return given.strip() == wanted.strip()
    return abs(first - second) <= TOLERANCE


@lru_cache(maxsize=8192)
def value_of(expression: str) -> float | None:
    """The number that a Python expression of numbers, operators and the five functions comes to; None when it comes to none."""
    if len(expression) > _MAX_EXPRESSION:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if any(isinstance(node, ast.Name) and node.id not in _FUNCTIONS for node in ast.walk(tree)):
        return None
    result = shared_sandbox().run(f"({expression}\n)")
    if result.outcome is not ToolStatus.OK or not isinstance(result.value, int | float):
        return None
    try:
        value = float(result.value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None
