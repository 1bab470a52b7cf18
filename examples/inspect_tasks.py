"""Any Toolhone task file as a task of Inspect (https://inspect.aisi.org.uk):

    pip install inspect-ai
    inspect eval examples/inspect_tasks.py -T tasks=tasks.jsonl --model openai/gpt-4o-mini

The first reply is judged, as `toolhone score` judges it; no tool runs.
"""

from __future__ import annotations

import json
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai import model as messages
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Target, accuracy, scorer, stderr
from inspect_ai.solver import Generate, TaskState, solver
from inspect_ai.tool import ToolCall, ToolDef, ToolParams

from toolhone import schema
from toolhone.evaluation.score import score
from toolhone.sources.messages import read_tasks


@task
def toolhone_tasks(tasks: str) -> Task:
    rows = {row.id: row for row in read_tasks(Path(tasks))}
    samples = [
        Sample(
            id=row.id,
            input=[message_of(message) for message in row.messages],
            target=json.dumps(row.expect.to_dict()),
            metadata={"category": row.category},
        )
        for row in rows.values()
    ]
    return Task(dataset=samples, solver=reply_once(rows), scorer=right_calls(rows))


def message_of(message: schema.Message) -> messages.ChatMessage:
    text = message.content or ""
    calls = [
        ToolCall(call.id or f"call{n}", call.name, dict(call.arguments))
        for n, call in enumerate(message.tool_calls)
    ]
    if message.role == "assistant":
        return messages.ChatMessageAssistant(content=text, tool_calls=calls or None)
    if message.role == "tool":
        return messages.ChatMessageTool(content=text, tool_call_id=message.tool_call_id)
    kinds = {"system": messages.ChatMessageSystem, "user": messages.ChatMessageUser}
    return kinds[message.role](content=text)


def tool_of(tool: schema.Tool) -> ToolDef:
    async def execute(**arguments: object) -> str:  # noqa: ARG001 (no tool runs)
        return ""

    parameters = ToolParams.model_validate(tool.parameters)
    return ToolDef(execute, tool.name, tool.description or tool.name, parameters)


@solver
def reply_once(rows: dict[str, schema.Task]):
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state.tools = [tool_of(tool).as_tool() for tool in rows[str(state.sample_id)].tools]
        return await generate(state, tool_calls="none")

    return solve


@scorer(metrics=[accuracy(), stderr()])
def right_calls(rows: dict[str, schema.Task]):
    async def judge(state: TaskState, target: Target) -> Score:  # noqa: ARG001 (rows has it)
        calls = [
            {"name": call.function, "arguments": call.arguments}
            for call in state.output.message.tool_calls or []
        ]
        row = rows[str(state.sample_id)]
        (sample,) = score([row], [{"id": row.id, "calls": calls}]).samples
        exact = sample.scores.get("exact_match", 0.0)
        return Score(value=exact, answer=json.dumps(calls), explanation="; ".join(sample.reasons))

    return judge
