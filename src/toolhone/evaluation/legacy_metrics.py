"""Metrics by the definitions of four other systems, beside ours, so that figures made there and here can be compared.

    replace(judge(task, episode, known), familiar=familiar_scores(task, episode, known))
    evaluation.familiar["playground"]["tool_accuracy"]            Score(value, low, high, n)
    playground_summary(evaluation)                                {"total_cases", "tool_accuracy", ..., "details"}
    known_metric("tool_format_correctness")                       "playground.format_correctness"

Each is measured on tasks that want calls (with their arguments) or no call, where the raw text is known, and speaks of the first
reply alone: those systems never show a tool's result to the model. A definition is applied as it stands, also to a reply in
another call syntax, where 0 is what it gives. Each has holes (see docs/metrics.md); what we stand for are the scores of
`metrics`, some under the same names.

* `json_answers` (llm-tool-calling): the text from the first `{` to the last `}` is read as JSON. `valid_json`: it has `final`, or a
  `tool` on offer and `args`. `correct_format`: valid, and `final` or `tool` as wanted. `correct_tool`: valid, a tool is wanted and
  it is that one; 0 where none is wanted, since the sum is divided by all tasks.
* `playground` (bagel-RL): `tool_accuracy`: the tool named in the first `[TOOL_CALL]` block if that is JSON, else the first tool on
  offer whose name occurs in the text, else none, is the wanted one. `format_correctness`: the first block is JSON with `name` and
  `parameters`, and the tool is on offer. `execution_success`: that, and the call was run without an error (only where the tools can
  run). `response_quality`: the mean of the first two.
* `python_calls` (mlx-guided-grpo): `exact`, `function`, `params`, `overall` of `rewards.python_calls`.
* `tool_call_tags` (Tool-calling): `match`: the texts between `<tool_call>` and `</tool_call>` are all JSON, and equal the wanted
  calls as a list.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from toolhone.dialects.syntax.python_calls import Calls
from toolhone.episodes.episode import Episode
from toolhone.errors import ConfigError, DialectError, nearest
from toolhone.evaluation.metrics import (
    FAMILIAR,
    METRICS,
    RATES,
    Circumstances,
    Evaluation,
    JudgedEpisode,
    can_run,
)
from toolhone.rewards.episode_view import select_reference
from toolhone.rewards.legacy_python_calls import compare_function_calls, extract_function_calls
from toolhone.rewards.legacy_rewards import knows_reference
from toolhone.schema import Expect, ExpectedCall, Json, Task, ToolCall
from toolhone.tools.result import ToolResult, ToolStatus

NOT_JSON: Final = object()
"""Stands for a text that is not JSON."""


def read_json(text: str) -> Json:
    """The value of a JSON text as Python's own reader takes it, or `NOT_JSON`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return NOT_JSON


def between(text: str, opening: str, closing: str, start: int = 0) -> tuple[str, int] | None:
    """The text between the next two marks and where it ends, or None."""
    first = text.find(opening, start)
    last = text.find(closing, first + len(opening)) if first >= 0 else -1
    return None if last < 0 else (text[first + len(opening) : last], last + len(closing))


def calls_between_tags(text: str) -> list[Json] | None:
    """Every text between `<tool_call>` and `</tool_call>` as JSON; None when one of them is not JSON."""
    calls = []
    found = between(text, "<tool_call>", "</tool_call>")
    while found is not None:
        calls.append(read_json(found[0]))
        found = between(text, "<tool_call>", "</tool_call>", found[1])
    return None if any(call is NOT_JSON for call in calls) else calls


def same_json(first: Json, second: Json) -> bool:
    """Python's equality (so 1 = 1.0 = true); values nested too deeply for it are not equal."""
    try:
        return bool(first == second)
    except RecursionError:
        return False


def plain_calls(expect: Expect) -> list[Json]:
    """The wanted calls as `[{"name", "arguments"}]`; empty where none is wanted."""
    return [{"name": call.name, "arguments": dict(call.arguments)} for call in expect.calls or ()]


@dataclass(frozen=True)
class LegacyReply:
    """The first reply to a task. `ran` are its calls with their results; `runs` says whether the tools have implementations."""

    text: str
    offered: tuple[str, ...]
    expect: Expect
    ran: tuple[tuple[ToolCall, ToolResult], ...] = ()
    runs: bool = False

    @property
    def wanted_tool(self) -> str:
        """The name in the first wanted call; empty where none is wanted."""
        return self.expect.calls[0].name if self.expect.calls else ""

    @cached_property
    def answer(self) -> Mapping[str, Json] | None:
        """The object of `json_answers`, or None where there is none of the right shape."""
        first, last = self.text.find("{"), self.text.rfind("}")
        value = read_json(self.text[first : last + 1]) if 0 <= first < last else NOT_JSON
        if not isinstance(value, Mapping):
            return None
        return (
            value
            if "final" in value or (value.get("tool") in self.offered and "args" in value)
            else None
        )

    @cached_property
    def block(self) -> Json:
        """The JSON of the first block of `playground`, or `NOT_JSON`."""
        return tagged_block(self.text)

    @cached_property
    def compared(self) -> dict[str, float]:
        """The four scores of `python_calls`."""
        return compare_function_calls(
            extract_function_calls(self.text), _python_calls(self.expect.calls or ())
        )


def tagged_block(text: str) -> Json:
    """The JSON of the first `[TOOL_CALL]` block, or `NOT_JSON`."""
    found = between(text, "[TOOL_CALL]", "[/TOOL_CALL]")
    return NOT_JSON if found is None else read_json(found[0])


def predicted_tool(text: str, offered: tuple[str, ...]) -> Json:
    """The tool that `playground` takes a text to call; empty when it sees none."""
    block = tagged_block(text)
    if block is not NOT_JSON:
        return block.get("name", "") if isinstance(block, Mapping) else ""
    low = text.lower()
    return next((name for name in offered if name.lower() in low), "")


def _python_calls(wanted: tuple[ExpectedCall, ...] | tuple[()]) -> list[dict[str, Json]]:
    """The wanted calls as that system has them: written in Python's way and read back with its own reader."""
    calls = [ToolCall(call.name, call.arguments) for call in wanted]
    try:
        return extract_function_calls(Calls().write(None, calls))
    except DialectError:
        return [{"name": call.name, "parameters": dict(call.arguments)} for call in calls]


def _valid_json(said: LegacyReply) -> float:
    return float(said.answer is not None)


def _correct_format(said: LegacyReply) -> float:
    return float(
        said.answer is not None and ("tool" if said.expect.calls else "final") in said.answer
    )


def _correct_tool(said: LegacyReply) -> float:
    return float(
        said.answer is not None
        and bool(said.expect.calls)
        and said.answer.get("tool") == said.wanted_tool
    )


def _tool_accuracy(said: LegacyReply) -> float:
    return float(predicted_tool(said.text, said.offered) == said.wanted_tool)


def _format_correctness(said: LegacyReply) -> float:
    block = said.block
    return float(
        isinstance(block, Mapping) and "parameters" in block and block.get("name") in said.offered
    )


def _execution_success(said: LegacyReply) -> float | None:
    if not said.runs:
        return None
    if not _format_correctness(said) or not said.ran:
        return 0.0
    call, result = said.ran[0]
    is_block = call.name == said.block["name"] and same_json(
        dict(call.arguments), said.block["parameters"]
    )
    failed = result.outcome is not ToolStatus.OK or (
        isinstance(result.value, Mapping) and "error" in result.value
    )
    return float(is_block and not failed)


def _response_quality(said: LegacyReply) -> float:
    return (_tool_accuracy(said) + _format_correctness(said)) / 2


def _match(said: LegacyReply) -> float:
    return float(same_json(calls_between_tags(said.text), plain_calls(said.expect)))


DEFINITIONS: Mapping[str, Callable[[LegacyReply], float | None]] = {
    "json_answers.valid_json": _valid_json,
    "json_answers.correct_format": _correct_format,
    "json_answers.correct_tool": _correct_tool,
    "playground.tool_accuracy": _tool_accuracy,
    "playground.format_correctness": _format_correctness,
    "playground.execution_success": _execution_success,
    "playground.response_quality": _response_quality,
    "python_calls.exact": lambda said: said.compared["exact_match"],
    "python_calls.function": lambda said: said.compared["function_match"],
    "python_calls.params": lambda said: said.compared["params_match"],
    "python_calls.overall": lambda said: said.compared["overall"],
    "tool_call_tags.match": _match,
}
"""Every metric by its full name; None where it is not measured."""


def familiar_scores(task: Task, episode: Episode, known: Circumstances) -> dict[str, float]:
    """The scores of one episode by their full names; none where the raw text is not known, or where nothing is said about calls.

    Nor where the right calls or their arguments are left open (`rewards.compatible`), which those systems do not know.
    """
    if not known.raw_text or not knows_reference(task):
        return {}
    turn = episode.turns[0] if episode.turns else None
    said = LegacyReply(
        text="" if turn is None else turn.text,
        offered=tuple(tool.name for tool in task.tools),
        expect=select_reference(task, episode).expect,
        ran=() if turn is None else tuple(zip(turn.message.tool_calls, episode.results[0])),
        runs=can_run(task, known.runnable),
    )
    measured = {name: define(said) for name, define in DEFINITIONS.items()}
    return {name: value for name, value in measured.items() if value is not None}


OURS = (*METRICS, *RATES)
METRIC_ALIASES: Mapping[str, str] = {
    **{
        name: f"{group}.{name}"
        for group, names in FAMILIAR.items()
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
"""Names that people write, and the metric that each means. A name that is also one of ours means ours."""


def known_metric(name: str) -> str:
    """The full name of the metric that a name means. `ConfigError` with the nearest name where there is none."""
    names = (*OURS, *DEFINITIONS)
    found = METRIC_ALIASES.get(name, name)
    if found not in names:
        near = nearest(name, (*names, *METRIC_ALIASES))
        raise ConfigError(
            f"there is no metric {name!r}{near}; known: {', '.join(names)}, and your own as 'file.py:function'"
        )
    return found


def known_metrics(names: Sequence[str]) -> list[str]:
    """The full names of a list. Beside a metric that only the playground has, a name that both have means the playground's."""
    found = [known_metric(name) for name in names]
    theirs = any(name.startswith("playground.") for name in found)
    return [
        f"playground.{name}" if theirs and name in FAMILIAR["playground"] else name
        for name in found
    ]


def playground_summary(evaluation: Evaluation) -> dict[str, Json]:
    """The playground's account of its test cases, with the parameters compared as well; rates are null when there is no case.

    `params_accuracy` is the share of cases whose arguments are all right by `rewards.matching`. `not_measured` counts the samples
    that are no cases, because their raw text is not known or nothing is said about their calls.
    """
    details = [
        _case(sample)
        for sample in evaluation.samples
        if "playground.tool_accuracy" in sample.familiar
    ]
    return {
        "total_cases": len(details),
        "not_measured": len(evaluation.samples) - len(details),
        "tool_accuracy": _rate(details, "tool_correct"),
        "format_accuracy": _rate(details, "format_correct"),
        "execution_accuracy": _rate(details, "execution_success"),
        "params_accuracy": _rate(details, "params_correct"),
        "details": details,
    }


def _case(sample: JudgedEpisode) -> dict[str, Json]:
    scores, block = sample.familiar, tagged_block(sample.text)
    wanted = sample.expected.calls or ()
    return {
        "prompt": sample.query,
        "response": sample.text,
        "expected_tool": wanted[0].name if wanted else "",
        "predicted_tool": predicted_tool(sample.text, sample.offered),
        "tool_correct": scores["playground.tool_accuracy"] == 1.0,
        "format_correct": scores["playground.format_correctness"] == 1.0,
        "execution_success": None
        if (ran := scores.get("playground.execution_success")) is None
        else ran == 1.0,
        "expected_params": dict(wanted[0].arguments) if wanted else {},
        "predicted_params": block.get("parameters") if isinstance(block, Mapping) else None,
        "params_correct": sample.scores.get(
            "argument_accuracy", sample.scores.get("no_call_accuracy")
        )
        == 1.0,
    }


def _rate(details: list[dict[str, Json]], key: str) -> float | None:
    """The share of cases for which `key` is true, among those that say so or not."""
    said = [case[key] for case in details if case[key] is not None]
    return sum(said) / len(said) if said else None
