"""From a log to evaluation cases: some conversations are frozen as tasks and never trained on.

    frozen = freeze_tasks(conversations, count=200)
    frozen.tasks, frozen.train                   # no prompt, and none like it, is on both sides
    corrections(conversation)                    # tasks and pairs from calls that were made again

Conversations that open alike, or nearly so, are one group; a group is frozen whole.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from toolhone.data.splits import opening
from toolhone.errors import DataError
from toolhone.schema import Conversation, Task
from toolhone.schema.message import answered_calls
from toolhone.schema.preference import Preference
from toolhone.sources.log_failures import repaired_call
from toolhone.sources.source import expect_calls, tasks_of

_BANDS, _ROWS, _WORDS = 8, 3, 3
"""Of the MinHash of a text: texts that share about half of their word triples become neighbours."""


@dataclass(frozen=True)
class Frozen:
    """Tasks that are kept for evaluation, the conversations to train on, and how many are neither:
    their groups are frozen, and tasks enough."""

    tasks: list[Task]
    train: list[Conversation]
    left_out: int


def freeze_tasks(rows: Sequence[Conversation], count: int, seed: int = 0) -> Frozen:
    """Freeze `count` tasks, in a seeded order of the groups; fewer where there are not as many.

    `DataError` where nothing would be left to train on, or a prompt would be on both sides.
    """
    groups = _groups(rows)
    order = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}/{key}".encode()).digest())
    tasks: list[Task] = []
    held = set[int]()
    for key in order:
        if len(tasks) >= count:
            break
        found = [task for index in groups[key] for task in tasks_of(rows[index])]
        tasks += found
        held |= set(groups[key]) if found else set()
    train = [row for index, row in enumerate(rows) if index not in held]
    if not train:
        what = f"--freeze {count} leaves no conversation to train on"
        raise DataError(f"{what}: {len(rows)} conversations give {len(tasks)} tasks")
    tasks = tasks[:count]
    both = {opening(task) for task in tasks} & {opening(row) for row in train}
    if both:
        raise DataError(f"{len(both)} prompts of frozen tasks are also in training rows")
    left_out = len(held) - len({task.id.rpartition("#")[0] for task in tasks})
    return Frozen(tasks, train, left_out)


def _groups(rows: Sequence[Conversation]) -> dict[str, list[int]]:
    """Return the rows by their group; the name of a group is that of its first prompt."""
    leader = list(range(len(rows)))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    seen: dict[tuple[object, ...], int] = {}
    for index, row in enumerate(rows):
        for label in (("opening", opening(row)), *_labels(row)):
            leader[find(index)] = find(seen.setdefault(label, index))
    groups: dict[str, list[int]] = defaultdict(list)
    names = [opening(row) for row in rows]
    for index in range(len(rows)):
        groups[names[find(index)]].append(index)
    return groups


def _labels(row: Conversation) -> Iterator[tuple[object, ...]]:
    """Yield labels that rows share in which the user says nearly the same before the assistant
    speaks (MinHash in bands); a number is a number."""
    first = takewhile(lambda message: message.role != "assistant", row.messages)
    text = " ".join(message.content or "" for message in first if message.role == "user")
    words = [re.sub(r"\d+", "0", word) for word in re.findall(r"\w+", text.casefold())]
    yield ("words", *words)
    last = max(1, len(words) - _WORDS + 1)
    shingles = {" ".join(words[start : start + _WORDS]) for start in range(last)}
    for band in range(_BANDS):
        least = tuple(
            min(
                hashlib.blake2b(f"{band}/{row}/{one}".encode(), digest_size=8).digest()
                for one in shingles
            )
            for row in range(_ROWS)
        )
        yield (band, *least)


def corrections(row: Conversation) -> Iterator[tuple[Task, Preference]]:
    """Yield a task and a pair for each call that failed and that the next turn made again.

    The task expects the repaired call; the pair prefers it. `source` names the evidence.
    """
    if all(message.weight for message in row.messages):
        return
    evidence = {place[0]: result.content or "" for place, result in answered_calls(row.messages)}
    tools = {tool.name: tool for tool in row.tools}
    for index, message in enumerate(row.messages):
        if message.weight or len(message.tool_calls) != 1:
            continue
        fixed = repaired_call(row.messages, index, 0)
        tool = None if fixed is None else tools.get(fixed.name)
        if fixed is None or (tools and (tool is None or tool.problems(fixed.arguments))):
            continue
        why = " ".join((evidence.get(index) or "its arguments").split())[:120]
        source, history = f"{row.source}; evidence: {why}", row.messages[:index]
        identity = f"{row.id}#{index}-repaired"
        expect = expect_calls([fixed])
        task = Task(identity, history, row.tools, expect, category="repaired_call", source=source)
        better = replace(message, tool_calls=(fixed,), weight=1)
        worse = replace(message, weight=1)
        yield task, Preference(history, (better,), (worse,), row.tools, identity, source)
