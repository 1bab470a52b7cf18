"""Rewards of three earlier systems, reproduced exactly, for comparison and not for training.

They read the raw text of the first reply alone, since those systems never show a tool's result to
the model, and need a reference with all arguments (`knows_reference`). `builtin.json` lists what
cheats them.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

from toolhone.dialects.interface import Syntax
from toolhone.dialects.syntax.model_text import Tagged
from toolhone.dialects.syntax.unmarked import Calls, JsonObject
from toolhone.episodes.episode import Episode
from toolhone.errors import DialectError
from toolhone.rewards.matching import judges_calls
from toolhone.rewards.values import same_code
from toolhone.schema import Expect, Json, Task, ToolCall
from toolhone.schema.python_text import parse_python, python_literal
from toolhone.tools.result import ToolStatus
from toolhone.tools.sandbox import shared_sandbox

KNOWN_TOOLS = ("calculator", "python")
"""The tools of llm-tool-calling; they count as offered where a task offers none."""
_FORBIDDEN = re.compile(r"</?think>|\\boxed\{", re.IGNORECASE)
_TOLERANCE = 1e-6
_FUNCTIONS = frozenset({"abs", "round", "min", "max", "pow"})
_MAX_EXPRESSION = 10_000
_HEAD = re.compile(r"(?<![A-Za-z0-9_])[0-9]*+([A-Za-z_][A-Za-z0-9_]*+)\s*+\(")
_PARAMETER = re.compile(r"\s*+([A-Za-z_][A-Za-z0-9_]*+)\s*+=\s*+")
_MARK = re.compile(r"""["'\[\](){},]""")
_QUOTES = "\"'"
_SCORES = ("exact_match", "function_match", "params_match", "overall")
_NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)

Call = Mapping[str, Any]
"""`{"name": str, "parameters": {str: value}}`."""


def knows_reference(task: Task) -> bool:
    """Whether the task wants no call, or calls that all have their arguments."""
    return judges_calls(task.expect) and not leaves_arguments_open(task)


def leaves_arguments_open(task: Task) -> bool:
    """Whether a correct answer of the task may have any call or any arguments."""
    return any(call.any_arguments for choice in task.expect.choices for call in choice.wanted)


def reply_text(episode: Episode, syntax: Syntax) -> str:
    """The raw text of the first reply; calls without a text are written in `syntax`."""
    if not episode.turns:
        return ""
    text, calls = episode.turns[0].text, episode.turns[0].message.tool_calls
    return text if text or not calls else write_calls(calls, syntax) or ""


def write_calls(calls: Sequence[ToolCall], syntax: Syntax) -> str | None:
    """Write the calls, or return None where the syntax cannot."""
    try:
        return syntax.write(None, calls)
    except DialectError:
        return None


def reference_text(expect: Expect) -> str | None:
    """The correct answer in those data sets: Python-style calls, one per line, or the answer."""
    if not expect.calls:
        return expect.answer
    return write_calls([ToolCall(call.name, call.arguments) for call in expect.calls], Calls())


def reference_calls(expect: Expect) -> list[dict[str, Json]]:
    """The calls that `extract_function_calls` finds in the reference text.

    Calls that cannot be written as text are returned as they are.
    """
    text = reference_text(expect)
    if text is not None:
        return extract_function_calls(text)
    return [{"name": call.name, "parameters": dict(call.arguments)} for call in expect.calls or ()]


# mlx-guided-grpo (MIT): examples/tool_calling_training.md, and two functions for calls in a text.
# Known holes, kept so that figures can be compared: words are calls (`if (x)`); positional
# values and qualifiers (`mod.f`) are lost; a call ends at its first `)`; `true` and `null` are
# strings; parameters that were not expected cost nothing in `params_match`. Two things differ: what
# would raise there is a string or nothing here, and time is linear. All five rewards are in [0, 1],
# and 0 for a reply with `<think>`, `</think>` or `\boxed{`.


def extract_function_calls(text: str) -> list[dict[str, Any]]:
    """Return all calls in the text as `{"name": str, "parameters": dict}`; never raises."""
    calls: list[dict[str, Any]] = []
    position = 0
    while head := _HEAD.search(text, position):
        closing = text.find(")", head.end())
        if closing < 0:
            break
        inside, parameters = text[head.end() : closing].strip(), dict[str, Json]()
        if ":" in inside:  # perhaps the inside of a dict display
            with suppress(*_NO_LITERAL):
                value = python_literal("{" + inside + "}")
                if isinstance(value, dict):
                    parameters = {str(name): inner for name, inner in value.items()}
        calls.append({"name": head[1], "parameters": parameters or _pairs(inside)})
        position = closing + 1
    return calls


def _pairs(text: str) -> dict[str, Json]:
    """Read `name = value` pairs from the left, up to the first piece that is none."""
    parameters: dict[str, Json] = {}
    position = 0
    while head := _PARAMETER.match(text, position):
        position = _value_end(text, head.end())
        value = text[head.end() : position].strip()
        try:
            parameters[head[1]] = python_literal(value)
        except _NO_LITERAL:
            parameters[head[1]] = value.strip(_QUOTES)
        position += 1
    return parameters


def _value_end(text: str, start: int) -> int:
    """Find the end of a value: a comma outside quotes and brackets, or the end of the text."""
    depth, quote = 0, ""
    for mark in _MARK.finditer(text, start):
        if mark[0] in _QUOTES:
            quote = "" if quote == mark[0] else quote or mark[0]
        elif quote:
            continue
        elif mark[0] == ",":
            if depth == 0:
                return mark.start()
        else:
            depth += 1 if mark[0] in "[({" else -1
    return len(text)


def compare_function_calls(predicted: Sequence[Call], expected: Sequence[Call]) -> dict[str, float]:
    """Compare calls of `extract_function_calls`; four scores in [0, 1].

    Values are equal after `_normalise`, with Python's equality (1 = 1.0 = True). As many calls as
    expected are compared by place: `overall` = 0.4 function_match + 0.4 params_match + 0.2
    exact_match. Else only names count, and `overall` is half their share.
    """
    if not predicted or not expected:
        return dict.fromkeys(_SCORES, float(not predicted and not expected))
    if len(predicted) != len(expected):
        names = {call["name"] for call in expected}
        longer = max(len(predicted), len(expected))
        share = sum(call["name"] in names for call in predicted) / longer
        return dict(zip(_SCORES, (0.0, share, 0.0, 0.5 * share), strict=True))
    pairs = list(zip(predicted, expected, strict=True))
    named = [
        (_normalise(got["parameters"]), _normalise(wanted["parameters"]))
        for got, wanted in pairs
        if got["name"] == wanted["name"]
    ]
    exact = float(len(named) == len(pairs) and all(got == wanted for got, wanted in named))
    function, params = len(named) / len(pairs), 0.0
    for got, wanted in named:
        if got == wanted or not wanted:
            params += got == wanted
        else:
            equal = [name in got and bool(got[name] == value) for name, value in wanted.items()]
            params += sum(equal) / len(wanted)
    params /= len(pairs)
    overall = 0.4 * function + 0.4 * params + 0.2 * exact
    return dict(zip(_SCORES, (exact, function, params, overall), strict=True))


def _normalise(value: Json) -> Json:
    if value is None or value == "null":
        return None
    if isinstance(value, str):
        return value.strip().strip(_QUOTES).lower()
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list | tuple):
        return [_normalise(inner) for inner in value]
    if isinstance(value, Mapping):
        return {name: _normalise(inner) for name, inner in value.items()}
    return value


def _guided_score(task: Task, episode: Episode, name: str) -> float:
    text = reply_text(episode, Calls())
    if _FORBIDDEN.search(text):
        return 0.0
    calls, reference = extract_function_calls(text), reference_text(task.expect)
    wanted_calls = reference_calls(task.expect)
    called, wanted = ({call["name"] for call in found} for found in (calls, wanted_calls))
    exact = not task.expect.calls and not calls
    if reference is not None:
        exact = text.lower().split() == reference.lower().split()
    compared = compare_function_calls(calls, wanted_calls)
    return {
        "exact": float(exact),
        "function": len(wanted & called) / len(wanted) if wanted else float(not called),
        "params": compared["params_match"],
        "overall": compared["overall"],
        "parseable": float(bool(calls)),
    }[name]


tool_call_exact = partial(_guided_score, name="exact")
"""1 if the reply is the reference text but for letter case and white space.

A task that wants no call and has no answer has no text: then 1 if the reply has no call.
"""
tool_call_function = partial(_guided_score, name="function")
"""Called wanted names / wanted names, as sets; where no call is wanted, 1 if there is none."""
tool_call_params = partial(_guided_score, name="params")
"""`params_match` of `compare_function_calls`."""
tool_call_overall = partial(_guided_score, name="overall")
"""`overall` of `compare_function_calls`."""
tool_call_parseable = partial(_guided_score, name="parseable")
"""1 if there is anything that looks like a call."""


# bagel-RL (MIT), the PPO reward of its playground.


def legacy_playground_format(task: Task, episode: Episode) -> dict[str, float]:  # noqa: ARG001
    """`tags`: 1 for both tags, else -0.5. `words`: 0.5 for "parameters" and "name"."""
    text = reply_text(episode, Tagged())
    if Tagged.open not in text or Tagged.close not in text:
        return {"tags": -0.5, "words": 0.0}
    return {"tags": 1.0, "words": 0.5 if "parameters" in text and "name" in text else 0.0}


# llm-tool-calling (Apache-2.0), README.md.


def json_answer(task: Task, episode: Episode) -> dict[str, float]:
    """Reward a reply such as `{"tool": "calculator", "args": {...}}` or `{"final": "..."}`.

    The JSON runs from the first `{` to the last `}`. `format`: 1 for `final`, or a known tool and
    `args`. `tool`: 0.5 for the wanted tool or a wanted `final`, -0.5 for another one.
    `arguments`: 1 if correct. `length`: -0.2 for text beside the JSON. Only the first wanted call
    counts.
    """
    text = reply_text(episode, JsonObject())
    first, last = text.find("{"), text.rfind("}")
    try:
        answer = json.loads(text[first : last + 1]) if first >= 0 else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        return {"format": 0.0, "tool": 0.0, "arguments": 0.0, "length": -0.2}
    wanted = task.expect.calls[0] if task.expect.calls else None
    known = [tool.name for tool in task.tools] or KNOWN_TOOLS
    right = (
        wanted is not None
        and answer.get("tool") == wanted.name
        and _has_right_arguments(wanted.name, answer.get("args"), wanted.arguments)
    )
    if "final" in answer or wanted is None:
        credit = 0.5 if "final" in answer and wanted is None else -0.5
    else:
        credit = 0.0 if "tool" not in answer else 0.5 if answer["tool"] == wanted.name else -0.5
    return {
        "format": float("final" in answer or (answer.get("tool") in known and "args" in answer)),
        "tool": credit,
        "arguments": float(right),
        "length": -0.2 if text[:first].strip() or text[last + 1 :].strip() else 0.0,
    }


def _has_right_arguments(tool: str, got: Json, wanted: Mapping[str, Json]) -> bool:
    if not isinstance(got, Mapping):
        return False
    if tool == "calculator":
        first, second = got.get("expression"), wanted.get("expression")
        if not isinstance(first, str) or not isinstance(second, str):
            return bool(first is not None and first == second)
        values = evaluate_expression(first.strip()), evaluate_expression(second.strip())
        if values[0] is None or values[1] is None:
            return first.strip() == second.strip()
        return abs(values[0] - values[1]) <= _TOLERANCE
    if tool == "python":
        return "code" in got and same_code(got["code"], wanted.get("code"))
    try:
        return bool(got == wanted)
    except RecursionError:
        return False


@lru_cache(maxsize=8192)
def evaluate_expression(expression: str) -> float | None:
    """Evaluate an expression of numbers, operators and five functions in the sandbox."""
    if len(expression) > _MAX_EXPRESSION:
        return None
    try:
        tree = parse_python(expression, "eval")
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
