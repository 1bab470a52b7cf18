"""Any Toolhone task file as a taskset of verifiers (https://github.com/PrimeIntellect-ai/verifiers).

    taskset = ToolhoneTaskset(ToolhoneConfig(tasks="tasks.jsonl"))

Calls and answers are judged as in `toolhone score`. The tools named in `tools` run as an MCP server
of the taskset; tasks that need other tools are left out, and counted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import verifiers.v1 as vf

from toolhone.config.experiment import experiment_of
from toolhone.evaluation.score import score
from toolhone.schema import Message, Task
from toolhone.sources.messages import read_tasks
from toolhone.tools.loading import tools_of

BUILT_IN = ["calculator", "python", "weather", "search"]


class ToolhoneData(vf.TaskData):
    task: dict[str, Any]
    """The line of the task file."""


class ToolhoneConfig(vf.TasksetConfig):
    tasks: str = "tasks.jsonl"
    tools: list[str] = BUILT_IN


class ToolhoneTools(vf.Toolset):
    """The implementations, by the names and descriptions that Toolhone's tools have."""

    names: list[str] = BUILT_IN

    def register(self, mcp: Any) -> None:
        for tool in tools_of(experiment_of({"tools": self.names}, "the taskset")):
            mcp.add_tool(tool.function, name=tool.name, description=tool.description)


class ToolhoneTask(vf.Task[ToolhoneData]):
    @vf.reward
    async def exact_match(self, trace: vf.Trace) -> float:
        """1 if the calls of the whole episode are those expected."""
        calls = [
            {"name": call.name, "arguments": json.loads(call.arguments)}
            for message in trace.assistant_messages
            for call in message.tool_calls or []
        ]
        task = Task.from_dict(self.data.task)
        (sample,) = score([task], [{"id": task.id, "calls": calls}]).samples
        return sample.scores.get("exact_match", 0.0)


class ToolhoneTaskset(vf.Taskset[ToolhoneTask, ToolhoneConfig]):
    def load(self) -> Iterator[ToolhoneTask]:
        left_out = 0
        for task in read_tasks(Path(self.config.tasks)):
            if {tool.name for tool in task.tools} <= set(self.config.tools):
                yield ToolhoneTask(data_of(task), self.config.task)
            else:
                left_out += 1
        if left_out:
            print(f"{left_out} tasks offer tools that are not in `tools`", file=sys.stderr)

    @classmethod
    def toolsets(cls, config: ToolhoneConfig) -> list[vf.Toolset]:
        toolset = ToolhoneTools(vf.ToolsetConfig())
        toolset.names = config.tools
        return [toolset]


def data_of(task: Task) -> ToolhoneData:
    system = [message.content for message in task.messages if message.role == "system"]
    prompt = [plain(message) for message in task.messages if message.role != "system"]
    return ToolhoneData(
        id=task.id, prompt=prompt, system_prompt=system[0] if system else None, task=task.to_dict()
    )


def plain(message: Message) -> dict[str, Any]:
    """A message in the shape of verifiers: calls have their arguments as JSON text."""
    found: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": one.id or f"call{n}", "name": one.name, "arguments": json.dumps(one.arguments)}
            for n, one in enumerate(message.tool_calls)
        ]
    if message.role == "tool":
        found["tool_call_id"] = message.tool_call_id
    return found
