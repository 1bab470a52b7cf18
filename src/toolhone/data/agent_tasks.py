"""The tasks of `data.strategy` agent: ours, or whatever objects an agent understands.

    play, held_out = agent_tasks(plan)

An object of the user's own becomes an `AgentTask`, whose `given` the agent and rewards get.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolhone.config.sections import Experiment
from toolhone.data.splits import split_rows
from toolhone.data.task_files import distinct, is_own_form, tasks_from_any
from toolhone.schema import Json, Message, Task
from toolhone.sources.files import Record, RecordStream, read_records
from toolhone.tools.loading import tools_of

PROMPTS = ("prompt", "question", "instruction", "query", "input", "task")
"""Keys whose text is the prompt of an object of the user's own; without one, all of it as JSON."""


@dataclass(frozen=True)
class AgentTask(Task):
    """An object of the user's own. Its messages and tools are known once an agent has asked."""

    given: Mapping[str, Json] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Json]:
        return {"id": self.id, **self.given}

    @staticmethod
    def of(record: Record, where: str) -> AgentTask:
        """Make a task of an object; its `id` or its place identifies it."""
        texts = (record[key] for key in PROMPTS if isinstance(record.get(key), str))
        prompt = next(texts, None) or json.dumps(record, ensure_ascii=False)
        identity = str(record.get("id") or where)
        return AgentTask(identity, (Message("user", prompt),), given=record)


def agent_tasks(plan: Experiment) -> tuple[list[Task], list[Task]]:
    """The tasks of an agent to play, and those held out; rows with `expect` are tasks of ours."""
    data, source, tasks = plan.data, plan.agent.tasks, list[Task]()
    if isinstance(source, int):
        tasks = [AgentTask.of({"number": i}, f"task-{i}") for i in range(source)]
    elif source is not None:
        tasks = read_agent_tasks(source, plan)
    split = split_rows(distinct(tasks)[: data.max_samples], data.held_out_share, data.split_seed)
    return split.train, split.validation


def read_agent_tasks(path: str | Path, plan: Experiment) -> list[Task]:
    """The tasks of a file: ours where its rows are of our form, else objects of the user's own."""
    stream = RecordStream(path)
    if is_own_form(stream):
        return tasks_from_any(stream, tools_of(plan))
    return [AgentTask.of(row, f"row-{line.number}") for line, row in read_records(stream)]
