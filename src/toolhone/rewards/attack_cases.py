"""Tasks for the attack suite, their gold replies, and scripted replies as episodes.

    case = AttackCase(task, Tagged())
    episode = case.play(case.gold)          # the correct answer
    episode = case.play(ScriptedReply(("[TOOL_CALL]{",), cut=True))

No tool runs: a call that obeys its schema returns a fixed result, any other is rejected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Final

from toolhone.backends.base import StopReason
from toolhone.dialects.base import ParseProblem, Syntax
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.episodes.policy import Turn
from toolhone.rewards.matching import judges_calls, match_calls
from toolhone.schema import ANY_CALL, Json, Task, Tool, ToolCall
from toolhone.tools.result import ToolResult, ToolStatus

PLAIN_REPLY = "I can answer that without any help: it is a pleasure to talk to you."
"""The gold reply where no call and no answer is expected."""
_DEPTH = 6


@dataclass(frozen=True)
class ScriptedReply:
    """The texts of the turns. `cut`: the token limit cuts the last one off."""

    texts: tuple[str, ...]
    cut: bool = False


@dataclass(frozen=True)
class AttackCase:
    """One task, played in one call syntax."""

    task: Task
    syntax: Syntax

    @cached_property
    def wanted(self) -> tuple[ToolCall, ...]:
        """The wanted calls of the first correct answer; open arguments are sampled."""
        calls = []
        for call in self.task.expect.wanted:
            tools = [tool for tool in self.task.tools if call.name in (tool.name, ANY_CALL.name)]
            if call.any_arguments and tools:
                calls.append(sample_call(tools[0]))
            else:
                arguments = {} if call.any_arguments else call.arguments
                calls.append(ToolCall(call.name, arguments))
        return tuple(calls)

    @property
    def is_open(self) -> bool:
        """Whether other calls or values than the wanted ones may be correct too."""
        expect = self.task.expect
        return any(call.any_arguments for call in expect.wanted) or bool(expect.alternatives)

    @cached_property
    def answer(self) -> str | None:
        """The correct final text; None where the task asks for calls alone."""
        if self.task.expect.answer is not None:
            return self.task.expect.answer
        return None if self.wanted else PLAIN_REPLY

    @cached_property
    def gold(self) -> ScriptedReply:
        """The reply that earns most. `DialectError` where the syntax cannot write it."""
        if self.wanted:
            return self.call_and_answer(self.wanted)
        return ScriptedReply((self.write_text(self.answer or ""),))

    def has_right_calls(self, reply: ScriptedReply) -> bool:
        if not judges_calls(self.task.expect):
            return False
        return match_calls(self.play(reply).calls, self.task.expect, self.task.tools).exact

    def call_and_answer(
        self, calls: Sequence[ToolCall], content: str | None = None
    ) -> ScriptedReply:
        """A turn with these calls, and a second one where the task expects an answer."""
        text = self.syntax.write(content, calls)
        has_answer = self.answer is not None and self.wanted
        return ScriptedReply((text, self.write_text(self.answer or "")) if has_answer else (text,))

    def call_only(self, calls: Sequence[ToolCall]) -> ScriptedReply:
        return ScriptedReply((self.syntax.write(None, calls),))

    def write_text(self, text: str) -> str:
        return self.syntax.write(text, ())

    def other_calls(self, *names: str) -> list[ToolCall]:
        """A valid call of each tool on offer, except those named."""
        return [sample_call(tool) for tool in self.task.tools if tool.name not in names]

    def play(self, reply: ScriptedReply) -> Episode:
        """Return the episode; it ends where the driver would end it."""
        turns: list[Turn] = []
        results: list[tuple[ToolResult, ...]] = []
        status = EpisodeStatus.ANSWERED
        for index, text in enumerate(reply.texts):
            parsed = self.syntax.read(text, self.task.tools)
            is_cut = reply.cut and index == len(reply.texts) - 1
            stop = StopReason.LENGTH if is_cut else StopReason.STOP
            turns.append(Turn(parsed.to_message(), text, parsed.problem, stop_reason=stop))
            calls = turns[-1].message.tool_calls
            if is_cut:
                status = EpisodeStatus.TRUNCATED
            elif parsed.problem is not ParseProblem.NONE:
                status = EpisodeStatus.MALFORMED
            else:
                status = EpisodeStatus.CALLED if calls else EpisodeStatus.ANSWERED
            called = status is EpisodeStatus.CALLED
            results.append(tuple(map(self._result, calls)) if called else ())
            if not called:
                break
        return Episode(self.task.id, tuple(turns), tuple(results), status)

    def _result(self, call: ToolCall) -> ToolResult:
        tool = next((tool for tool in self.task.tools if tool.name == call.name), None)
        if tool is None:
            return ToolResult(ToolStatus.UNKNOWN_TOOL, "unknown tool")
        if tool.problems(call.arguments):
            return ToolResult(ToolStatus.INVALID_ARGUMENTS, "invalid arguments")
        return ToolResult(ToolStatus.OK, self.task.expect.answer or "done")


def sample_call(tool: Tool) -> ToolCall:
    """A call with the required arguments, valid for simple schemas; always the same."""
    value = _sample_value(tool.parameters, _DEPTH)
    return ToolCall(tool.name, value if isinstance(value, Mapping) else {})


def _sample_value(schema: Json, depth: int) -> Json:
    if not isinstance(schema, Mapping) or depth == 0:
        return "x"
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    match kinds[0] if isinstance(kinds, list) and kinds else kinds:
        case "object":
            properties = schema.get("properties") or {}
            required = schema.get("required") or ()
            return {name: _sample_value(properties.get(name), depth - 1) for name in required}
        case "array":
            inner = schema.get("items")
            return [_sample_value(inner, depth - 1) for _ in range(schema.get("minItems", 0))]
        case "integer" | "number":
            return schema.get("minimum", schema.get("maximum", 1))
        case "boolean":
            return True
        case "string":
            return "x" * max(1, schema.get("minLength", 1))
    return "x"


def _read_probes() -> dict[str, tuple[Task, ...]]:
    source = json.loads(files("toolhone").joinpath("rewards/probes.json").read_text("utf-8"))
    tools = {tool["name"]: tool for tool in source.pop("tools")}
    for probe in (probe for probes in source.values() for probe in probes):
        probe["messages"] = [{"role": "user", "content": probe.pop("question")}]
        probe["tools"] = [tools[name] for name in probe["tools"]]
    return {name: tuple(map(Task.from_dict, probes)) for name, probes in source.items()}


_PROBES: Final = _read_probes()
PROBES: Final = _PROBES["probes"]
"""Tasks of every kind, so that each attack applies to some; nothing else uses them."""
OPEN_PROBES: Final = _PROBES["open_probes"]
"""Tasks with several correct answers, or with open arguments."""
