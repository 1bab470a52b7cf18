"""Metrics by the definitions of four earlier systems, beside ours, so that figures can be compared.

    evaluation.legacy["playground"]["tool_accuracy"]        # Score(value, low, high, n)
    playground_summary(evaluation)                          # {"total_cases", "tool_accuracy", ...}
    known_metric("tool_format_correctness")                  # "playground.format_correctness"

docs/metrics.md has the definitions. They judge the first reply alone, where its raw text is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from toolhone.episodes.episode import Episode
from toolhone.errors import ConfigError, nearest
from toolhone.evaluation.metrics import (
    LEGACY_METRICS,
    METRICS,
    RATES,
    EpisodeContext,
    Evaluation,
    can_run,
)
from toolhone.rewards.legacy_rewards import (
    compare_function_calls,
    extract_function_calls,
    knows_reference,
    reference_calls,
)
from toolhone.rewards.tool_use import select_reference
from toolhone.schema import Expect, Json, Task, ToolCall
from toolhone.tools.result import ToolResult, ToolStatus

OURS = (*METRICS, *RATES)
NAMES = tuple(f"{group}.{name}" for group, names in LEGACY_METRICS.items() for name in names)
"""The full names, in the order of `score_reply`."""
NOT_JSON: Final = object()
"""The value of a text that is not JSON."""


def read_json(text: str) -> Json:
    """The value of a JSON text as Python's own reader takes it, or `NOT_JSON`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return NOT_JSON


def calls_between_tags(text: str) -> list[Json] | None:
    """Every text between `<tool_call>` and `</tool_call>` as JSON; None where one is not JSON."""
    opening, closing = "<tool_call>", "</tool_call>"
    calls, start = [], text.find(opening)
    while start >= 0 and (end := text.find(closing, start)) >= 0:
        calls.append(read_json(text[start + len(opening) : end]))
        start = text.find(opening, end)
    return None if any(call is NOT_JSON for call in calls) else calls


def same_json(first: Json, second: Json) -> bool:
    """Python's equality (so 1 = 1.0 = true); False where values are nested too deeply for it."""
    try:
        return bool(first == second)
    except RecursionError:
        return False


def tagged_block(text: str) -> Json:
    """The JSON of the first `[TOOL_CALL]` block, or `NOT_JSON`."""
    _, _, rest = text.partition("[TOOL_CALL]")
    body, closing, _ = rest.partition("[/TOOL_CALL]")
    return read_json(body) if closing else NOT_JSON


def predicted_tool(text: str, offered: tuple[str, ...]) -> Json:
    """The tool that the playground's evaluation takes a text to call, or an empty string."""
    block, low = tagged_block(text), text.lower()
    if block is not NOT_JSON:
        return block.get("name", "") if isinstance(block, Mapping) else ""
    return next((name for name in offered if name.lower() in low), "")


def legacy_scores(task: Task, episode: Episode, context: EpisodeContext) -> dict[str, float]:
    """The scores of one episode by their full names.

    Empty where the raw text is unknown, or where the task has no reference calls with arguments.
    """
    if not context.raw_text or not knows_reference(task):
        return {}
    text, ran = "", list[tuple[ToolCall, ToolResult]]()
    if episode.turns:
        turn = episode.turns[0]
        text, ran = turn.text, list(zip(turn.message.tool_calls, episode.results[0]))
    offered, expect = (
        tuple(tool.name for tool in task.tools),
        select_reference(task, episode).expect,
    )
    return score_reply(text, offered, expect, ran if can_run(task, context.runnable) else None)


def score_reply(
    text: str,
    offered: tuple[str, ...],
    expect: Expect,
    ran: Sequence[tuple[ToolCall, ToolResult]] | None = None,
) -> dict[str, float]:
    """Score a first reply. `ran`: its calls with results, or None where the tools cannot run."""
    calls, block = expect.calls or (), tagged_block(text)
    first, last = text.find("{"), text.rfind("}")
    answer = read_json(text[first : last + 1]) if 0 <= first < last else NOT_JSON
    if not isinstance(answer, Mapping) or not (
        "final" in answer or (answer.get("tool") in offered and "args" in answer)
    ):
        answer = {}
    wanted = calls[0].name if calls else ""
    predicted = predicted_tool(text, offered) == wanted
    formatted = (
        isinstance(block, Mapping) and "parameters" in block and block.get("name") in offered
    )
    has_run = None if ran is None else False
    if formatted and ran:
        call, result = ran[0]
        has_run = (
            call.name == block["name"]
            and same_json(dict(call.arguments), block["parameters"])
            and result.outcome is ToolStatus.OK
            and not (isinstance(result.value, Mapping) and "error" in result.value)
        )
    found, expected = extract_function_calls(text), reference_calls(expect) if calls else []
    python = compare_function_calls(found, expected)
    listed = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
    values = (
        bool(answer),
        ("tool" if calls else "final") in answer,
        bool(calls) and answer.get("tool") == wanted,
        predicted,
        formatted,
        has_run,
        (predicted + formatted) / 2,
        *(python[name] for name in ("exact_match", "function_match", "params_match", "overall")),
        same_json(calls_between_tags(text), listed),
    )
    scores = zip(NAMES, values, strict=True)
    return {name: float(value) for name, value in scores if value is not None}


METRIC_ALIASES: Mapping[str, str] = {
    **{
        name: f"{group}.{name}"
        for group, names in LEGACY_METRICS.items()
        for name in names
        if name not in OURS
    },
    "valid_json_rate": "json_answers.valid_json",
    "correct_format_rate": "json_answers.correct_format",
    "correct_tool_rate": "json_answers.correct_tool",
    "tool_format_correctness": "playground.format_correctness",
    "format_accuracy": "playground.format_correctness",
    "execution_accuracy": "playground.execution_success",
    "params_accuracy": "argument_accuracy",
    "function_match": "python_calls.function",
    "param_match": "python_calls.params",
    "params_match": "python_calls.params",
    "percent_correct": "tool_call_tags.match",
}
"""Other names of metrics. A name that is also one of ours means ours."""


def known_metric(name: str) -> str:
    """The full name of a metric. `ConfigError` with the nearest name where there is none."""
    names = (*OURS, *NAMES)
    found = METRIC_ALIASES.get(name, name)
    if found not in names:
        near = nearest(name, (*names, *METRIC_ALIASES))
        raise ConfigError(
            f"there is no metric {name!r}{near}; known: {', '.join(names)}, "
            "and your own as 'file.py:function'"
        )
    return found


def known_metrics(names: Sequence[str]) -> list[str]:
    """The full names of a list of metrics.

    Beside a metric that only the playground has, a name that both have means the playground's.
    """
    found = [known_metric(name) for name in names]
    theirs = any(name.startswith("playground.") for name in found)
    return [
        f"playground.{name}" if theirs and name in LEGACY_METRICS["playground"] else name
        for name in found
    ]


def playground_summary(evaluation: Evaluation) -> dict[str, Json]:
    """The playground's report of its test cases; rates are None where there is no case.

    `params_accuracy` is ours: the share of cases whose arguments are all correct. `not_measured`
    counts samples without raw text or without expected calls.
    """
    details: list[dict[str, Json]] = []
    for sample in evaluation.samples:
        scores, block = sample.legacy_scores, tagged_block(sample.text)
        if "playground.tool_accuracy" not in scores:
            continue
        wanted = sample.expected.calls[0] if sample.expected.calls else None
        ran = scores.get("playground.execution_success")
        arguments = sample.scores.get("argument_accuracy", sample.scores.get("no_call_accuracy"))
        details.append(
            {
                "prompt": sample.query,
                "response": sample.text,
                "expected_tool": "" if wanted is None else wanted.name,
                "predicted_tool": predicted_tool(sample.text, sample.offered),
                "tool_correct": scores["playground.tool_accuracy"] == 1.0,
                "format_correct": scores["playground.format_correctness"] == 1.0,
                "execution_success": None if ran is None else ran == 1.0,
                "expected_params": {} if wanted is None else dict(wanted.arguments),
                "predicted_params": block.get("parameters") if isinstance(block, Mapping) else None,
                "params_correct": arguments == 1.0,
            }
        )
    rates: dict[str, float | None] = {}
    for name, key in (
        ("tool_accuracy", "tool_correct"),
        ("format_accuracy", "format_correct"),
        ("execution_accuracy", "execution_success"),
        ("params_accuracy", "params_correct"),
    ):
        values = [case[key] for case in details if case[key] is not None]
        rates[name] = sum(values) / len(values) if values else None
    missing = len(evaluation.samples) - len(details)
    return {"total_cases": len(details), "not_measured": missing, **rates, "details": details}
