"""A task on the stage of the attack suite: what is right there, what can be called there, and a reply played to its end.

    scene = Scene(task, Tagged())
    episode = scene.play(scene.gold)          # the right answer, as an episode
    episode = scene.play(Said(("[TOOL_CALL]{",), cut=True))

Replies are texts, written in a call syntax and read back with it, as a model's would be. No tool is run: a call of a tool on offer
whose arguments obey the schema came to something, any other was rejected. An episode ends where the driver would end it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from toolhone.backends.base import StopReason
from toolhone.dialects.base import ParseProblem, Syntax
from toolhone.episodes.episode import Episode, EpisodeStatus
from toolhone.episodes.policy import Turn
from toolhone.rewards.matching import judges_calls, match_calls
from toolhone.schema import ANY_CALL, ExpectedCall, Json, Task, Tool, ToolCall
from toolhone.tools.result import ToolResult, ToolStatus

PLAIN_REPLY = "I can answer that without any help: it is a pleasure to talk to you."
"""What is right where no call is wanted and no answer is expected."""
_DEPTH = 6


@dataclass(frozen=True)
class ScriptedReply:
    """What a model says, turn by turn. `cut`: the last text was cut off by the limit on new tokens."""

    texts: tuple[str, ...]
    cut: bool = False


@dataclass(frozen=True)
class AttackCase:
    """One task, played in one call syntax."""

    task: Task
    syntax: Syntax

    @cached_property
    def wanted(self) -> tuple[ToolCall, ...]:
        """The wanted calls of the first right answer; empty where none is wanted. What it leaves open is made up."""
        return tuple(map(self._instance, self.task.expect.wanted))

    def _instance(self, call: ExpectedCall) -> ToolCall:
        """A call that is as wanted."""
        if not call.any_arguments:
            return ToolCall(call.name, call.arguments)
        tools = [tool for tool in self.task.tools if call.name in (tool.name, ANY_CALL.name)]
        return sample_call(tools[0]) if tools else ToolCall(call.name)

    @property
    def is_open(self) -> bool:
        """Whether another call than the wanted one, or another value, may be right as well."""
        return any(call.any_arguments for call in self.task.expect.wanted) or bool(
            self.task.expect.alternatives
        )

    @cached_property
    def reply(self) -> str | None:
        """The right final text; None where the task asks for calls alone."""
        if self.task.expect.answer is not None:
            return self.task.expect.answer
        return None if self.wanted else PLAIN_REPLY

    @cached_property
    def gold(self) -> ScriptedReply:
        """What earns most. `DialectError` where the syntax cannot write it."""
        return (
            self.calling(self.wanted)
            if self.wanted
            else ScriptedReply((self.saying(self.reply or ""),))
        )

    def has_right_calls(self, said: ScriptedReply) -> bool:
        """Whether the calls that are made there are right."""
        return (
            judges_calls(self.task.expect)
            and match_calls(self.play(said).calls, self.task.expect, self.task.tools).exact
        )

    def calling(self, calls: Sequence[ToolCall], content: str | None = None) -> ScriptedReply:
        """A turn with these calls, and where the task expects an answer, a second one with it."""
        text = self.syntax.write(content, calls)
        return ScriptedReply(
            (text,) if self.reply is None or not self.wanted else (text, self.saying(self.reply))
        )

    def acting(self, calls: Sequence[ToolCall]) -> ScriptedReply:
        """One turn with these calls, and no answer: what the right one would be is not known after them."""
        return ScriptedReply((self.syntax.write(None, calls),))

    def saying(self, text: str) -> str:
        return self.syntax.write(text, ())

    def others(self, *names: str) -> list[ToolCall]:
        """A valid call of each tool on offer that is not named."""
        return [sample_call(tool) for tool in self.task.tools if tool.name not in names]

    def play(self, said: ScriptedReply) -> Episode:
        """The episode of these turns."""
        turns: list[Turn] = []
        results: list[tuple[ToolResult, ...]] = []
        ending = EpisodeStatus.ANSWERED
        for index, text in enumerate(said.texts):
            turn = self._turn(text, said.cut and index == len(said.texts) - 1)
            turns.append(turn)
            ending = _ending(turn)
            results.append(
                tuple(map(self._result, turn.message.tool_calls))
                if ending is EpisodeStatus.CALLED
                else ()
            )
            if ending is not EpisodeStatus.CALLED:
                break
        return Episode(self.task.id, tuple(turns), tuple(results), ending)

    def _turn(self, text: str, cut: bool) -> Turn:
        reply = self.syntax.read(text, self.task.tools)
        return Turn(
            reply.to_message(),
            text,
            reply.problem,
            stop_reason=StopReason.LENGTH if cut else StopReason.STOP,
        )

    def _result(self, call: ToolCall) -> ToolResult:
        tool = next((tool for tool in self.task.tools if tool.name == call.name), None)
        if tool is None:
            return ToolResult(ToolStatus.UNKNOWN_TOOL, "unknown tool")
        if tool.problems(call.arguments):
            return ToolResult(ToolStatus.INVALID_ARGUMENTS, "invalid arguments")
        return ToolResult(ToolStatus.OK, self.task.expect.answer or "done")


def _ending(turn: Turn) -> EpisodeStatus:
    if turn.stop_reason is StopReason.LENGTH:
        return EpisodeStatus.TRUNCATED
    if turn.problem is not ParseProblem.NONE:
        return EpisodeStatus.MALFORMED
    return EpisodeStatus.CALLED if turn.message.tool_calls else EpisodeStatus.ANSWERED


def sample_call(tool: Tool) -> ToolCall:
    """A call with values that the schema allows, as far as a simple schema says; only what is required is given."""
    value = _sample(tool.parameters, _DEPTH)
    return ToolCall(tool.name, value if isinstance(value, Mapping) else {})


def _sample(schema: Json, depth: int) -> Json:
    if not isinstance(schema, Mapping) or depth == 0:
        return "x"
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    kind = kinds[0] if isinstance(kinds, list) and kinds else kinds
    return (
        dict(_members(schema, depth))
        if kind == "object"
        else _SIMPLE[kind](schema, depth)
        if kind in _SIMPLE
        else "x"
    )


def _members(schema: Mapping[str, Json], depth: int) -> Iterator[tuple[str, Json]]:
    properties = schema.get("properties") or {}
    for name in schema.get("required") or ():
        yield name, _sample(properties.get(name), depth - 1)


def _number(schema: Mapping[str, Json], depth: int) -> Json:  # noqa: ARG001 (one shape for all kinds)
    return schema.get("minimum", schema.get("maximum", 1))


def _list(schema: Mapping[str, Json], depth: int) -> Json:
    return [_sample(schema.get("items"), depth - 1) for _ in range(schema.get("minItems", 0))]


def _text(schema: Mapping[str, Json], depth: int) -> Json:  # noqa: ARG001
    return "x" * max(1, schema.get("minLength", 1))


def _flag(schema: Mapping[str, Json], depth: int) -> Json:  # noqa: ARG001
    return True


_SIMPLE = {"integer": _number, "number": _number, "array": _list, "string": _text, "boolean": _flag}
