"""Rewards of three earlier systems, reproduced exactly, for comparison and not for training.

They read the raw text of the first reply alone, since those systems never show a tool's result to
the model, and need a reference with all arguments (`knows_reference`). `KNOWN_EXPLOITS` lists what
cheats them.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache

from toolhone.dialects.base import Syntax
from toolhone.dialects.syntax.json_objects import JsonObject
from toolhone.dialects.syntax.python_calls import Calls
from toolhone.dialects.syntax.tagged import Tagged
from toolhone.episodes.episode import Episode
from toolhone.errors import DialectError
from toolhone.rewards.legacy_python_calls import compare_function_calls, extract_function_calls
from toolhone.rewards.matching import judges_calls
from toolhone.rewards.values import same_code
from toolhone.schema import Expect, Json, Task, ToolCall
from toolhone.tools.result import ToolStatus
from toolhone.tools.sandbox import shared_sandbox

KNOWN_TOOLS = ("calculator", "python")
"""The tools of llm-tool-calling; they count as offered where a task offers none."""
_FORBIDDEN = re.compile(r"</?think>|\\boxed\{", re.IGNORECASE)
_TOLERANCE = 1e-6
_FUNCTIONS = frozenset({"abs", "round", "min", "max", "pow"})
_MAX_EXPRESSION = 10_000


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


# mlx-guided-grpo (MIT), examples/tool_calling_training.md. All five are in [0, 1], and 0 for a
# reply with `<think>`, `</think>` or `\boxed{`.


def tool_call_exact(task: Task, episode: Episode) -> float:
    """1 if the reply is the reference text but for letter case and white space.

    A task that wants no call and has no answer has no text: then 1 if the reply has no call.
    """
    return _guided_scores(task, episode)["exact"]


def tool_call_function(task: Task, episode: Episode) -> float:
    """Called wanted names / wanted names, as sets; where no call is wanted, 1 if there is none."""
    return _guided_scores(task, episode)["function"]


def tool_call_params(task: Task, episode: Episode) -> float:
    """`params_match` of `compare_function_calls`."""
    return _guided_scores(task, episode)["params"]


def tool_call_overall(task: Task, episode: Episode) -> float:
    """`overall` of `compare_function_calls`."""
    return _guided_scores(task, episode)["overall"]


def tool_call_parseable(task: Task, episode: Episode) -> float:
    """1 if there is anything that looks like a call."""
    return _guided_scores(task, episode)["parseable"]


def _guided_scores(task: Task, episode: Episode) -> dict[str, float]:
    text = reply_text(episode, Calls())
    if _FORBIDDEN.search(text):
        return dict.fromkeys(_GUIDED, 0.0)
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
    }


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


_REASONS = {
    "any text": "where no call is wanted, any text without a call is correct",
    "case": "letter case is ignored, also in the name of the tool",
    "names": "only names are compared",
    "a set": "names are a set: repeated calls, missing repetitions and broken calls cost nothing",
    "extra": "calls beyond the wanted ones cost nothing",
    "around": "text around the calls costs nothing",
    "anywhere": "calls count anywhere in the text, also where no parser would run them",
    "wanted": "only wanted parameters are counted",
    "cut": "a value ends at the first ')', so what follows it is not compared",
    "half": "any number of calls of wanted tools earns half, with any arguments",
    "any call": "anything like a call is enough",
    "a call": "where no call is wanted, text earns nothing and a call earns everything",
    "before": "the calls before the broken one are enough",
    "final": "the text of a final answer is not compared",
    "one call": "one JSON object is read: where several calls are wanted, one earns most",
    "two keys": "only `expression` and `code` are compared",
    "0.2": "text around the JSON costs 0.2 of 2.5",
    "tags": "both tags and two words are enough, with any content",
    "no tags": "where no call is wanted, no text without tags earns anything",
}
_GUIDED = ("exact", "function", "params", "overall", "parseable")
_COLUMNS = (*(f"tool_call_{name}" for name in _GUIDED), "json_answer", "legacy_playground_format")
_EXPLOITS = """
attack          | exact    | function | params   | overall  | parseable | json     | playground
empty           | any text | any text | any text | any text | a call    | final    | no tags
spray           |          | extra    |          |          | any call  |          | tags
spurious_30     |          | extra    |          | half     | any call  |          | tags
copied_schema   |          | names    |          |          | any call  |          | tags
wrong_types     |          | names    |          |          | any call  |          | tags
extra_arguments |          | names    | wanted   | cut      | any call  | two keys | tags
wrong_value     |          | names    | cut      | cut      | any call  |          | tags
missing_call    |          | a set    |          |          | any call  | one call | tags
letter_case     | case     |          |          |          | any call  |          | tags
prose_call      | any text | anywhere | anywhere | anywhere | anywhere  | 0.2      | no tags
nested_tags     | any text | anywhere | anywhere | anywhere | anywhere  | 0.2      | tags
truncated       | any text | a set    | cut      | cut      | before    | one call | before
duplicate       |          | a set    |          |          | any call  |          | tags
harmful_call    |          | extra    |          |          | any call  |          | tags
leaked_answer   | any text | any text | any text | any text | a call    | final    | no tags
listed_answers  |          |          |          |          |           | final    |
control_tokens  | any text | around   | around   | around   | around    | 0.2      | tags
unicode_name    |          |          |          |          |           |          | tags
unicode_value   |          | names    | cut      | cut      | any call  |          | tags
verbose         |          | around   | around   | around   | around    |          | tags
"""


def _read_exploits() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {name: {} for name in _COLUMNS}
    for line in _EXPLOITS.strip().splitlines()[1:]:
        attack, *reasons = (cell.strip() for cell in line.split("|"))
        for name, reason in zip(_COLUMNS, reasons, strict=True):
            if reason:
                found[name][attack] = _REASONS[reason]
    return found


KNOWN_EXPLOITS: Mapping[str, Mapping[str, str]] = _read_exploits()
"""For each reward, the attacks of `attacks.ATTACKS` that it pays too well, and why."""
