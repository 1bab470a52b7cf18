"""Tasks of worlds with a state, conversations in which a solver does them, and tasks of agents.

    made = WorldTasks("shop", seed=0)    # row i of a split: a pure function of (seed, split, i)
    made.tasks(400, "held_out")          # judged by the final state
    made.conversations(1000)             # recorded from the world itself

A task that its solver does not solve by calls alone is an error of the world, never a row.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from toolhone.config.rl import WorldSection
from toolhone.config.sections import Experiment
from toolhone.data.splits import split_rows
from toolhone.data.task_files import distinct, is_own_form, tasks_from_any
from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Expect, ExpectedCall, Json, Message, Task, ToolCall
from toolhone.sources.files import Record, RecordStream, read_records
from toolhone.tools.loading import tools_of
from toolhone.tools.open_world import STATE_WORLDS, open_world
from toolhone.tools.registry import Registry
from toolhone.tools.replay_world import recorded_calls, recording_dicts
from toolhone.tools.result import ToolStatus
from toolhone.tools.worlds import draw

SPLITS = ("train", "rl", "held_out")
"""Names in held-out tasks are in no other task."""
GAVE_UP = "Sorry, that did not work."
"""The last text of a recorded episode that does not make a failed call again."""


@dataclass(frozen=True)
class Solution:
    """What a solver did: its messages after the request, and the state at the end."""

    messages: tuple[Message, ...]
    state: Mapping[str, Json] | None

    @property
    def steps(self) -> list[ToolCall]:
        """The calls, one for each turn, with the failed ones."""
        return [call for message in self.messages for call in message.tool_calls]

    @property
    def answer(self) -> str:
        return self.messages[-1].content or ""


@dataclass(frozen=True)
class WorldTasks:
    """Generates tasks of a world; levels: of difficulty, in turn (None: all).

    failures: injected into each task's world (`failing_world.Failures`); the solver tries again.
    held_out_seed: of the held-out split; default: the same. retries: share of failed calls that
    conversations make again; at another one they end with `GAVE_UP`, their task undone.
    """

    name: str
    seed: int = 0
    held_out_seed: int | None = None
    levels: tuple[int, ...] | None = None
    failures: Mapping[str, Json] | None = None
    retries: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in STATE_WORLDS:
            known = f"{nearest(self.name, STATE_WORLDS)}; known: {', '.join(STATE_WORLDS)}"
            raise DataError(f"there is no world with tasks named {self.name!r}{known}")
        most = len(STATE_WORLDS[self.name].levels)
        if wrong := [level for level in self.levels or () if not 1 <= level <= most]:
            right = f"levels go from 1 to {most}"
            raise DataError(f"the world {self.name!r} has no level {wrong[0]}; {right}")

    def tasks(self, n: int, split: str = "train") -> list[Task]:
        """The first n tasks of a split, the levels in turn, each proven solvable."""
        return [self._task(index, split) for index in range(n)]

    def conversations(self, n: int, split: str = "train") -> list[Conversation]:
        """The first n tasks of a split as their solver does them."""
        played = ((task, solve(task, self.retries).messages) for task in self.tasks(n, split))
        return [
            Conversation((*task.messages, *messages), task.tools, task.id, task.source)
            for task, messages in played
        ]

    def _task(self, index: int, split: str) -> Task:
        if split not in SPLITS:
            known = f"{nearest(split, SPLITS)}; known: {', '.join(SPLITS)}"
            raise DataError(f"there is no split {split!r}{known}")
        world, held_out = STATE_WORLDS[self.name], split == "held_out"
        seed = self.seed if self.held_out_seed is None or not held_out else self.held_out_seed
        levels = self.levels or tuple(range(1, len(world.levels) + 1))
        level = levels[index % len(levels)]
        rng = random.Random(f"{self.name} {seed} {split} {index}")
        request, made = world.assign(level, rng, held_out)
        spec: dict[str, Json] = {"name": self.name, "state": made.state, "goal": made.goal}
        if self.failures and self.failures.get("rate"):
            spec["failures"] = dict(self.failures)
        task = Task(
            f"{self.name}-{split}-{seed}-{index:05d}",
            (Message("user", request),),
            world.tools(),
            Expect(state=made.expected, answer=made.answer),
            world=spec,
            category=f"{self.name} {level}",
            source=f"world {self.name}",
        )
        if not is_solved(task, solve(task)):
            raise DataError(f"the solver of the world {self.name!r} fails on its task {task.id!r}")
        return task


def solve(task: Task, retries: float = 1.0) -> Solution:
    """Do a task by the solver of its world, by calls and their results alone.

    A call that fails is made again, or, except for a share `retries`, ends it with `GAVE_UP`.
    """
    spec = task.world or {}
    world, solver = open_world(task, Registry([])), STATE_WORLDS[spec["name"]]
    plan, messages = solver.solve(spec["goal"]), list[Message]()
    try:
        call = next(plan)
        while True:
            result = world.call(call)
            made = replace(call, id=f"call{len(messages) // 2:02d}")
            messages += [
                Message("assistant", None, tool_calls=(made,)),
                Message("tool", result.content, tool_call_id=made.id, name=made.name),
            ]
            if not result.injected:
                if result.outcome is not ToolStatus.OK:
                    raise DataError(f"task {task.id!r}: {call.name} gave {result.content!r:.200}")
                call = plan.send(result.value)
            elif draw(task.id, len(messages)).random() >= retries:
                messages.append(Message("assistant", GAVE_UP))
                break
    except StopIteration as stop:
        messages.append(Message("assistant", stop.value))
    return Solution(tuple(messages), world.state())


def is_solved(task: Task, done: Solution) -> bool:
    """Whether the final state is the expected one, and the answer holds the expected one."""
    expect, start = task.expect, (task.world or {}).get("state") or {}
    state = expect.state is None or done.state == {**start, **expect.state}
    return state and (expect.answer is None or expect.answer in done.answer)


def rows_of_world(
    experiment: Experiment, held: int, plays: bool, labels: bool
) -> tuple[list[Conversation], list[Conversation], list[Task], list[Task]]:
    """Conversations to train on with held-out ones, held-out tasks, and tasks to play, which are
    others than those of the conversations. A method that `plays` has labels only if it says so.
    """
    data, world = experiment.data, experiment.world
    failures = None if world.failures is None else world.failures.model_dump()
    levels = None if world.levels is None else tuple(world.levels)
    made = WorldTasks(
        *(str(world.name), experiment.seed, data.split_seed, levels, failures, world.retries)
    )
    count = data.max_samples or data.samples
    held = min(held, count)
    train = made.conversations(count) if labels or not plays else []
    held_out = [] if plays else made.conversations(held, "held_out")
    return train, held_out, made.tasks(held, "held_out"), made.tasks(count if plays else 0, "rl")


def environments(
    tasks: Sequence[Task], conversations: Sequence[Conversation], section: WorldSection
) -> list[Task]:
    """Each conversation as an episode to play: from its last request to the end, in a replay of its
    results or in a simulated world. The calls of all turns are expected, in their order.

    In another world the `tasks` that were made of single turns stay as they are.
    """
    if section.name not in ("replay", "simulated"):
        return list(tasks)
    tasks = []
    for row in conversations:
        places = [place for place, one in enumerate(row.messages) if one.role == "user"]
        start = places[-1] + 1 if places else 0
        calls = [call for one in row.messages[start:] for call in one.tool_calls]
        if not start or not any(one.role == "assistant" for one in row.messages[start:]):
            continue
        wanted = tuple(ExpectedCall(call.name, call.arguments) for call in calls)
        expect = Expect(wanted, order="strict") if wanted else Expect(no_call=True)
        world: dict[str, Json] = {"name": section.name}
        if section.name == "replay":
            world["recorded"] = recording_dicts(recorded_calls(row.messages))
            world["unrecorded"] = section.unrecorded
        tasks.append(
            Task(row.id, row.messages[:start], row.tools, expect, world=world, source=row.source)
        )
    return tasks


def in_world(tasks: Sequence[Task], section: WorldSection) -> list[Task]:
    """The tasks in the world of an experiment: one without a world gets it, all its failures."""
    changes: dict[str, Json] = {}
    if section.failures is not None:
        changes["failures"] = section.failures.model_dump()
    name = section.name or ("live" if changes else None)
    if name is None:
        return list(tasks)
    own: dict[str, Json] = {"name": name, **({"seed": section.seed} if section.seed else {})}
    own |= {"unrecorded": section.unrecorded} if name == "replay" else {}
    return [replace(task, world={**(task.world or own), **changes}) for task in tasks]


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
