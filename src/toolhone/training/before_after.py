"""The base on the held-out tasks of a run before training, the trained policy after, the change.

before = evaluate_base(setup, data, folder, resumed=False)      # RUN/baseline, or from the cache
evaluate_at_end(setup, data.tasks, run, before)                 # RUN/evaluation, comparison.json
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from toolhone import __version__
from toolhone.backends.base import Sampler
from toolhone.config.rl import STRATEGY
from toolhone.config.sections import Experiment
from toolhone.config.small_sections import ToolDetail
from toolhone.config.user_code import USER_CODE
from toolhone.dialects.probe.certificate import Certificate
from toolhone.episodes.policy import open_policy
from toolhone.errors import ConfigError
from toolhone.evaluation.compare import compare
from toolhone.evaluation.evaluate import evaluate as play_and_score
from toolhone.evaluation.folder import METRICS, read_folder, write_folder
from toolhone.evaluation.guard import GuardResult, guard
from toolhone.evaluation.metrics import Evaluation
from toolhone.models.pico import cache_root
from toolhone.models.resolve import adapter_of, resolve_model
from toolhone.runs.run import Run, plain, write_json
from toolhone.schema import Conversation, Json, Task
from toolhone.training.dataset import Dataset
from toolhone.training.loop import WORSE_THAN_BASE, Validation
from toolhone.training.setup import TrainingSetup, named_metrics, scores_of

BASELINE, EVALUATION, COMPARISON = "baseline", "evaluation", "comparison.json"


def format_of_run(certificate: Certificate, plan: Experiment) -> dict[str, Json]:
    """The certificate as an evaluation folder keeps it, and whether a grammar constrained calls."""
    return {**certificate.to_dict(), "constrained": plan.evaluation.constrained}


def evaluate_base(
    setup: TrainingSetup, data: Dataset, folder: Path, resumed: bool
) -> Evaluation | None:
    """Evaluate the policy that training starts from into `folder`/baseline; None where none is
    wanted. `resumed`: the trainer is past step 0, so only what was kept is read."""
    plan, target = setup.plan, folder / BASELINE
    if (target / METRICS).is_file():
        return read_folder(target)
    wanted = plan.evaluation
    if not (wanted.baseline and wanted.at_end and data.tasks):
        return None
    if resumed:
        command = f"toolhone eval {folder} --base --out FOLDER"
        setup.progress.report(f"the base was not evaluated when the run began; {command} does it")
        return None
    tasks = with_examples(data.tasks[: wanted.num_samples], data.train, wanted.baseline_examples)
    cached = _cache_folder(plan, setup.certificate, tasks)
    note = format_of_run(setup.certificate, plan)
    note["constrained"] = wanted.constrained or wanted.baseline_constrained
    if cached is not None and (cached / METRICS).is_file():
        setup.progress.report(f"the base was evaluated on these tasks before: {cached}")
        found = read_folder(cached)
        write_folder(found, target, note, overwrite=True)
        return found
    shown = wanted.tools_in_prompt or ToolDetail.FULL  # the base knows no tool by heart
    own_way = {"constrained": bool(note["constrained"]), "tools_in_prompt": shown}
    section = wanted.model_copy(update=own_way)
    context = setup.trainer.info.max_context
    policy = open_policy(
        setup.trainer.snapshot(),
        setup.dialect,
        setup.tokenizer,
        plan.model_copy(update={"evaluation": section}),
        context,
        setup.registry.tools,
    )
    policy.check_tools(task.tools for task in tasks)
    setup.progress.report("the base is evaluated first (evaluation.baseline)")
    own = setup.metrics
    how = setup.registry, setup.progress, wanted.max_turns, own.metrics, own.rewards, setup.play
    found = play_and_score(policy, tasks, *how)
    for place in (cached, target):
        if place is not None:
            write_folder(found, place, note, overwrite=True)
    return found


def with_examples(
    tasks: Sequence[Task], conversations: Sequence[Conversation], count: int
) -> list[Task]:
    """The tasks with `count` of the conversations before their first message that is no system
    message; those that call a tool of the task come first, each set of tools once."""
    if count and not conversations:
        raise ConfigError(
            "evaluation.baseline_examples needs labelled conversations to show; this experiment "
            "has none, so leave it out"
        )
    shown = []
    for task in tasks:
        offered = {tool.name for tool in task.tools}
        chosen, seen = list[Conversation](), set[frozenset[str]]()
        called = [
            (frozenset(call.name for message in one.messages for call in message.tool_calls), one)
            for one in (conversations[:1000] if count else ())
        ]
        fitting = [pair for pair in called if pair[0] <= offered]
        for names, one in [*fitting, *called]:
            if len(chosen) < count and names not in seen:
                chosen.append(one)
                seen.add(names)
        shown.append(behind_system(task, chosen))
    return shown


def behind_system(task: Task, conversations: Iterable[Conversation]) -> Task:
    """The task with conversations between its system text and its first message."""
    said = [m for one in conversations for m in one.messages if m.role != "system"]
    place = sum(message.role == "system" for message in task.messages[:1])
    return replace(task, messages=(*task.messages[:place], *said, *task.messages[place:]))


def _cache_folder(plan: Experiment, certificate: Certificate, tasks: Sequence[Task]) -> Path | None:
    """Where the evaluation of this base is kept; None where its result may change: with code of the
    user, an agent, tools that reach outside, or a model that cannot be told from another."""
    settings = plan.model_dump(include={"model", "tools", "tool_results", "world", "evaluation"})
    settings["evaluation"] = {
        name: value for name, value in settings["evaluation"].items() if name != "guard"
    }
    reward = plan.training.rl.reward.model_dump()
    text = json.dumps([settings, reward], sort_keys=True, default=str)
    weights = _identity(resolve_model(plan)), _identity(str(adapter_of(plan) or ""))
    own_code = any(USER_CODE.fullmatch(word) for word in _texts([settings, reward]))
    by_agents = plan.data.chosen_strategy == STRATEGY
    if own_code or by_agents or plan.allowed_tools or None in weights:
        return None
    known = text, plan.seed, weights, certificate.hashes, __version__  # another may score otherwise
    described = [*known, [task.to_dict() for task in tasks]]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return cache_root() / "baselines" / digest[:24]


def _texts(value: Json) -> Iterator[str]:
    """All texts in a value, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _identity(name: str) -> str | None:
    """What tells a model from others: a hash of its files, or the revision of a hub name."""
    if not name:
        return ""
    folder = Path(name)
    if not folder.is_dir():
        config = try_to_load_from_cache(name, "config.json")
        return f"{name}@{Path(config).parent.name}" if isinstance(config, str) else None
    hashed = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.is_file():
            with path.open("rb") as file:
                hashed.update(hashlib.file_digest(file, "sha256").digest() + path.name.encode())
    return hashed.hexdigest()


def validation(
    setup: TrainingSetup, tasks: Sequence[Task], base: Evaluation | None
) -> Callable[[Sampler], Validation]:
    """Score a policy on the first held-out tasks; with `evaluation.guard`, also count what is worse
    than the base there, as `WORSE_THAN_BASE`."""
    plan = setup.plan
    if base is None or plan.evaluation.guard == "off":
        return lambda sampler: setup.validate(sampler, tasks)
    chosen = tasks[: min(plan.training.validation_samples, len(base.samples))]
    known = Evaluation(base.samples[: len(chosen)])

    def validate(sampler: Sampler) -> Validation:
        found = setup.evaluate(sampler, chosen, setup.progress)
        scores, samples = scores_of(found, named_metrics(plan))
        worse = guard(compare(known, found)).worse
        for cell in worse:
            place = f" in {cell.category}" if cell.category else ""
            lost = f"{100 * (cell.difference.value or 0.0):.1f} points, p {cell.p_worse:.3f}"
            setup.progress.report(f"worse than the base: {cell.metric}{place}: {lost}")
        return {**scores, WORSE_THAN_BASE: float(len(worse))}, samples

    return validate


def evaluate_at_end(
    setup: TrainingSetup, tasks: Sequence[Task], run: Run, base: Evaluation | None
) -> None:
    """Score the trained policy on held-out tasks, into the run's folder and its trackers; report
    what changed since the base."""
    plan = setup.plan
    result = setup.evaluate(
        setup.trainer.snapshot(), tasks[: plan.evaluation.num_samples], setup.progress
    )
    format_note = format_of_run(setup.certificate, plan)
    write_folder(result, run.folder / EVALUATION, format_note, overwrite=True)
    if run.on_log is not None:
        states = [run.state(run.checkpoint(name)) for name in run.checkpoints()]
        last = max((state.get("step", 0) for state in states), default=0)
        run.on_log(last, "evaluation", scores_of(result)[0])
    if base is not None:
        comparison = compare(base, result)
        judged = guard(comparison)
        found: dict[str, Any] = {**comparison.to_dict(), "guard": judged.to_dict()}
        write_json(run.folder / COMPARISON, plain(found))
        for name in comparison.guarded:
            cell = comparison.totals[name]
            means = [100 * (score.value or 0.0) for score in (cell.base, cell.tuned)]
            change = f"{means[0]:.1f} -> {means[1]:.1f} on {cell.difference.n} tasks"
            setup.progress.report(f"{name}: {change}, {cell.verdict.value}")
        lost = {GuardResult.FAILED: "something got worse", GuardResult.UNDECIDED: "too few tasks"}
        if judged.result in lost:
            command = f"toolhone compare {run.folder / BASELINE} {run.folder}"
            setup.progress.report(f"against the base: {lost[judged.result]}; {command}")
