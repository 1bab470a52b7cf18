"""What reinforcement learning plays: tasks to learn from, and held-out ones, from whatever the `data` section names.

    play, materials = gather_tasks(experiment)     # materials.tasks are the held-out tasks, materials.report the account

A file of tasks (our own form, or a format that gives only tasks) is split by a hash of what is asked; conversations give the tasks
of their assistant's turns (`tasks.tasks_of`). Templates give new phrasings, which none of their conversations has, beside the usual
ones (`training.rl.new_phrasings`). Tasks that an episode cannot play are left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from toolhone.config.sections import Experiment
from toolhone.data.any_tasks import distinct, gives_only_tasks, tasks_from_any
from toolhone.data.dataset import HELD_OUT, Dataset, asked_of, load_data, tools_of
from toolhone.data.splits import split_rows
from toolhone.data.templates import Templates
from toolhone.errors import DataError
from toolhone.schema import Task
from toolhone.sources.tasks import tasks_of


def gather_tasks(experiment: Experiment) -> tuple[list[Task], Dataset]:
    """Tasks to play, and held-out tasks with the account of where everything went."""
    data = experiment.data
    if data.chosen_strategy == "templates":
        play, materials = _from_templates(experiment)
    elif data.path is not None and gives_only_tasks(data.path):
        play, materials = _from_tasks(experiment)
    else:
        materials = load_data(experiment)
        play = distinct(
            [task for conversation in materials.train for task in tasks_of(conversation)]
        )
    kept, lost = _playable(play)
    held_out, more = _playable(materials.tasks)
    if _learns_labels(experiment) and not materials.train:
        raise DataError(
            f"training.rl.ptx.coef learns on labelled conversations beside the reward, and {data.path} holds tasks alone; "
            "name a file of conversations in data.path, or leave it 0"
        )
    if not kept:
        reasons = (
            ", ".join(f"{count} {reason}" for reason, count in lost.items())
            or "the data gives none"
        )
        raise DataError(
            f"there is no task to play: {reasons}; wanted tasks whose right answer is calls, no call, or a text"
        )
    report = {**materials.report, "play": len(kept), "not_playable": dict(lost + more)}
    return kept, Dataset(materials.train, materials.held_out, held_out, report)


def _from_templates(experiment: Experiment) -> tuple[list[Task], Dataset]:
    """New phrasings beside usual ones, and held-out tasks of both kinds."""
    materials = load_data(experiment)
    names = [spec for spec in experiment.tools if isinstance(spec, str)]
    made = Templates(experiment.seed, names)
    count = experiment.data.max_samples or experiment.data.samples
    new = round(count * experiment.training.rl.new_phrasings)
    play = [
        *(made.tasks(new, "rl") if new else []),
        *(made.tasks(count - new, "train") if count > new else []),
    ]
    fresh = made.tasks(min(HELD_OUT, count), "rl_held_out") if new else []
    tasks = (
        materials.tasks
        if experiment.evaluation.tasks is not None
        else _in_turn(fresh, materials.tasks)
    )
    return play, Dataset(
        materials.train if _learns_labels(experiment) else [],
        [],
        tasks,
        {**materials.report, "new_phrasings": new},
    )


def _learns_labels(experiment: Experiment) -> bool:
    """Whether conversations are learned on beside the reward. DPO, which plays no episodes, does not."""
    return experiment.training.method != "dpo" and experiment.training.rl.ptx.coef > 0


def _in_turn(first: Sequence[Task], second: Sequence[Task]) -> list[Task]:
    """Both lists, one from each in turn, so that the first tasks speak for both."""
    longest = max(len(first), len(second))
    return [
        task
        for index in range(longest)
        for tasks in (first, second)
        for task in tasks[index : index + 1]
    ]


def _from_tasks(experiment: Experiment) -> tuple[list[Task], Dataset]:
    """A file of tasks, split; a file named for evaluation takes the place of the held-out part."""
    data, said = experiment.data, list[str]()
    path = Path(str(data.path))
    tasks = tasks_from_any(path, tools_of(experiment), said.append, asked_of(experiment))[
        : data.max_samples
    ]
    report = {"source": str(path), **({"task_file": said[0]} if said else {})}
    if experiment.evaluation.tasks is not None:
        named = tasks_from_any(
            experiment.evaluation.tasks, tools_of(experiment), said.append, asked_of(experiment)
        )
        return tasks, Dataset([], [], named, report)
    split = split_rows(tasks, data.held_out_share, experiment.seed)
    return split.train, Dataset([], [], split.validation, report)


def _playable(tasks: Sequence[Task]) -> tuple[list[Task], Counter[str]]:
    """The tasks that an episode can play, and how many others there are by reason."""
    kept, lost = [], Counter[str]()
    for task in tasks:
        if task.turns:
            lost["tasks with several user turns"] += 1
        elif task.expect.state is not None:
            lost["tasks whose right answer is a state"] += 1
        else:
            kept.append(task)
    return kept, lost
