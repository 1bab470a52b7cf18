"""From an experiment to a trained, evaluated model: what the command line does, for programs.

    from toolhone import evaluate, experiment, open_model, train

    plan = experiment({"model": {"name": "pico"}, "training": {"steps": 200, "lora": None}})
    run, ending = train(plan, "runs/first")
    model = open_model("runs/first")
    scores = evaluate(model, "tasks.jsonl")

This is the only place that puts a backend, a dialect, tools, data and an algorithm together; none of them knows the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from toolhone.backends.base import Sampler, Trainer
from toolhone.backends.open import open_sampler
from toolhone.config.experiment import experiment_of, load_experiment, overridden, to_stderr
from toolhone.config.sections import Experiment, ToolResultsSection
from toolhone.config.trust import restrict_untrusted_run
from toolhone.config.user_code import import_callable, is_user_code
from toolhone.data.any_tasks import tasks_from_any
from toolhone.data.dataset import Dataset, asked_of, held_out_tasks, load_data
from toolhone.data.rl_tasks import gather_tasks
from toolhone.dialects.base import Dialect
from toolhone.dialects.probe.certificate import Certificate, check_same, open_certified
from toolhone.episodes.policy import TokenPolicy
from toolhone.errors import CapabilityError, ConfigError, RunError
from toolhone.evaluation.evaluate import check_ids, check_playable
from toolhone.evaluation.evaluate import evaluate as play_and_judge
from toolhone.evaluation.folder import refuse_overwriting, write_folder
from toolhone.evaluation.metrics import Evaluation
from toolhone.models.resolve import adapter_of, find, resolve_model, trained_format
from toolhone.rows import Row
from toolhone.runs.progress import Progress, SilentProgress
from toolhone.runs.run import FINAL, Run, read_json, write_json, writing
from toolhone.runs.trackers import check_trackers, open_trackers
from toolhone.schema import Json, Task
from toolhone.tokenizer import TextTokenizer
from toolhone.tools.loading import open_registry
from toolhone.tools.registry import Registry
from toolhone.training.dpo import check_plan, dpo
from toolhone.training.grpo import grpo
from toolhone.training.ppo import ppo
from toolhone.training.rl_metrics import RLEnv
from toolhone.training.setup import (
    TrainingSetup,
    UserMetrics,
    format_request,
    policy_of,
    same_vocabulary,
    scores_of,
)
from toolhone.training.sft import Hooks, TrainStatus, sft

SETTINGS = ("tools", "allowed_tools", "tool_results", "evaluation")
"""Sections of another experiment that a run is opened with when one is given."""
FORMAT_KEYS = frozenset(
    f"model.{key}" for key in ("dialect", "markup", "history", "template_switches")
)
"""Overrides that ask for another format on purpose."""
Algorithm = Callable[[Trainer, Sequence[Row], Sequence[Row], Run, Hooks, Path | None], TrainStatus]
"""What `algorithms.sft.sft` is; one of the user's own is called in the same way."""
Doing = Callable[[Trainer, RLEnv, Run, Path | None], TrainStatus]
"""What `algorithms.grpo.grpo` is."""
BY_DOING: Mapping[str, Doing] = {"grpo": grpo, "ppo": ppo}
Begun = tuple[TrainingSetup, Dataset, Callable[[Run, Hooks, Path | None], TrainStatus]]
"""Everything opened and rendered, and what starts the training."""
Begin = Callable[[Experiment, Registry, UserMetrics, Progress], Begun]


@dataclass(frozen=True)
class Model:
    """A model that can speak: a sampler with its tokenizer, its dialect, the tools that may run, and its experiment."""

    name: str
    sampler: Sampler
    tokenizer: TextTokenizer
    dialect: Dialect
    registry: Registry
    experiment: Experiment
    max_context: int
    certificate: Certificate

    def policy(self) -> TokenPolicy:
        """What evaluation and chat talk to; it samples as the experiment's `evaluation` section says."""
        return policy_of(
            self.sampler, self.dialect, self.tokenizer, self.experiment, self.max_context
        )


def experiment(
    source: Mapping[str, Any] | str | Path | None = None, overrides: Sequence[str] = ()
) -> Experiment:
    """An experiment from a mapping, a file, or all defaults, with `key=value` overrides."""
    if isinstance(source, Mapping):
        return experiment_of(source, "the experiment", overrides)
    return load_experiment(None if source is None else Path(source), overrides)


def train(
    plan: Experiment, out: str | Path, resume: bool = False, progress: Progress | None = None
) -> tuple[Run, TrainStatus]:
    """Train as planned into the run folder `out`, and evaluate at the end. With `resume`, go on from its latest checkpoint."""
    progress = progress or SilentProgress()
    begin = open_method(plan)
    folder = Path(out)
    run = _resumed(folder, plan) if resume else None
    if run is None and (folder / "experiment.json").exists():
        raise RunError(
            f"{folder} holds a run already; continue it with --resume, or give another folder with --out"
        )
    check_trackers(plan.tracking)
    measures, registry = UserMetrics.of(plan), open_registry(plan)
    bench, materials, start = begin(plan, registry, measures, progress)
    report = materials.report
    if run is not None:
        _same_data(run, report)
        if (trained := Certificate.read(folder)) is not None:
            check_same(trained, bench.certificate, str(folder))
    with open_trackers(
        plan.tracking, folder, plan.model_dump(), _resumed_at(run), progress.report
    ) as trackers:
        run = run or Run.create(folder, plan)
        run.trackers = trackers
        with writing(folder):
            write_json(folder / "data.json", report)
            bench.certificate.save(folder)
        hooks = Hooks(
            lambda sampler: bench.validate(sampler, materials.tasks), bench.save, progress
        )
        ending = start(run, hooks, run.latest() if resume else None)
        _check_ending(plan.training.method, ending, run)
        if ending is TrainStatus.FINISHED and plan.evaluation.at_end and materials.tasks:
            result = bench.evaluate(
                bench.trainer.snapshot(), materials.tasks[: plan.evaluation.num_samples], progress
            )
            write_folder(
                result,
                run.folder / "evaluation",
                format_of_run(bench.certificate, plan),
                overwrite=True,
            )
            trackers.log(_last_step(run), "evaluation", scores_of(result)[0])
        run.trackers = None
    return run, ending


def open_method(plan: Experiment) -> Begin:
    """How the method that `training.method` names begins; one that is not here is refused before anything is opened."""
    method = plan.training.method
    if method == "sft":
        return partial(_from_rows, sft)
    if method == "dpo":
        _refuse_given(plan)
        return _from_pairs
    if method in BY_DOING:
        return partial(_by_doing, BY_DOING[method])
    if is_user_code(method):
        return partial(_from_rows, import_callable(method, Path.cwd(), "training.method"))
    known = ", ".join(["sft", "dpo", *BY_DOING])
    raise CapabilityError(
        f"training.method: {method} is not here yet; what is: {known}, and an algorithm of your own ('file.py:function')"
    )


def _refuse_given(plan: Experiment) -> None:
    """Settings that say what an episode's replies begin with, for a method that plays none: better refused than ignored."""
    rl = plan.training.rl
    asked = {
        "curriculum.enabled": rl.curriculum.enabled,
        "enforce_thinking": rl.enforce_thinking,
        "two_phase_samples_per_group": rl.two_phase_samples_per_group > 0,
    }
    given = ", ".join(f"training.rl.{name}" for name, wanted in asked.items() if wanted)
    if given:
        raise ConfigError(
            f"{given}: training.method {plan.training.method} learns from pairs and plays no episodes whose replies could be given "
            "a beginning; leave it out, or use training.method grpo or ppo"
        )


def _from_rows(
    algorithm: Algorithm,
    plan: Experiment,
    registry: Registry,
    measures: UserMetrics,
    progress: Progress,
) -> Begun:
    """Methods that learn from conversations."""
    materials = load_data(plan)
    progress.report(materials.summary())
    check_playable(materials.tasks)
    bench = TrainingSetup(plan, registry, measures, progress)
    bench.check_tools(materials.tasks)
    rows, held_out, report = bench.rows(materials)

    def start(run: Run, hooks: Hooks, resume_from: Path | None) -> TrainStatus:
        return algorithm(bench.trainer, rows, held_out, run, hooks, resume_from)

    return bench, replace(materials, report=report), start


def _from_pairs(
    plan: Experiment, registry: Registry, measures: UserMetrics, progress: Progress
) -> Begun:
    """DPO. Pairs of the model's own samples are made when the run begins, and read from its folder when it goes on."""
    play, materials = (
        gather_tasks(plan) if plan.data.preferences == "own_ranked" else ([], load_data(plan))
    )
    progress.report(f"data: {len(play)} tasks to answer" if play else materials.summary())
    check_playable(materials.tasks)
    bench = TrainingSetup(plan, registry, measures, progress)
    bench.check_tools(materials.tasks)
    check_plan(plan.training, bench.trainer)
    pairing = bench.pairing()
    early = None if pairing.samples else pairing.made(materials, bench.trainer.snapshot())

    def start(run: Run, hooks: Hooks, resume_from: Path | None) -> TrainStatus:
        ready = early
        if ready is None:
            ready = (
                pairing.made(materials, bench.trainer.snapshot(), play)
                if resume_from is None
                else pairing.kept(run.folder)
            )
        progress.report(ready.summary())
        if resume_from is None:
            pairing.keep(ready, run.folder)
        return dpo(bench.trainer, ready.rows, ready.held_out, run, hooks, resume_from)

    told = [talk.to_dict() for talk in materials.train] + [
        pair.to_dict() for pair in materials.pairs
    ]
    told += [task.to_dict() for task in play]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return bench, replace(materials, report={**materials.report, "rows_sha256": digest}), start


def _by_doing(
    method: Doing, plan: Experiment, registry: Registry, measures: UserMetrics, progress: Progress
) -> Begun:
    """Methods that learn from episodes."""
    play, materials = gather_tasks(plan)
    beside = (
        f", {len(materials.train)} labelled conversations beside the reward"
        if plan.training.rl.ptx.coef
        else ""
    )
    progress.report(f"data: {len(play)} tasks to play, {len(materials.tasks)} held out{beside}")
    check_ids(play)
    check_playable(materials.tasks)
    bench = TrainingSetup(plan, registry, measures, progress)
    bench.check_tools(materials.tasks)
    bench.check_given(play)

    labelled, account = bench.labelled(materials)

    def start(run: Run, hooks: Hooks, resume_from: Path | None) -> TrainStatus:
        return method(bench.trainer, bench.stage(play, hooks, run, labelled), run, resume_from)

    told = [*(task.to_dict() for task in play), *([account] if account else [])]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return (
        bench,
        replace(materials, report={**materials.report, **account, "rows_sha256": digest}),
        start,
    )


def _check_ending(method: str, ending: object, run: Run) -> None:
    """An algorithm of the user's own must say how it ended, and leave a model when it finished."""
    if not isinstance(ending, TrainStatus):
        raise ConfigError(
            f"training.method {method}: it must return an Ending (algorithms.sft.Ending), it returned {ending!r:.60}"
        )
    if ending is TrainStatus.FINISHED and FINAL not in run.checkpoints():
        raise ConfigError(
            f"training.method {method}: it finished without a checkpoint; save one with run.save_checkpoint(FINAL, ...)"
        )


def evaluate(
    model: Model,
    tasks: str | Path | Sequence[Task] | None = None,
    num_samples: int | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Play tasks (a file, a list, or the model's own held-out ones) and score them; `out` gets the evaluation folder."""
    if out is not None:
        refuse_overwriting(Path(out))
    if tasks is None:
        tasks = held_out_tasks(model.experiment)
        num_samples = num_samples or model.experiment.evaluation.num_samples
    if isinstance(tasks, str | Path):
        tell = to_stderr if progress is None else progress.report
        tasks = tasks_from_any(tasks, model.registry.tools, tell, asked_of(model.experiment))
    chosen = list(tasks)[:num_samples]
    policy = model.policy()
    policy.check_tools(task.tools for task in chosen)
    measures, turns = UserMetrics.of(model.experiment), model.experiment.evaluation.max_turns
    result = play_and_judge(
        policy, chosen, model.registry, progress, turns, measures.metrics, measures.rewards
    )
    if out is not None:
        write_folder(result, Path(out), format_of_run(model.certificate, model.experiment))
    return result


def format_of_run(certificate: Certificate, plan: Experiment) -> dict[str, Json]:
    """The certificate as an evaluation folder keeps it: with a word on whether a grammar helped."""
    return {**certificate.to_dict(), "constrained": plan.evaluation.constrained}


def open_model(
    ref: str | Path,
    checkpoint: str | None = None,
    overrides: Sequence[str] = (),
    settings: Experiment | None = None,
) -> Model:
    """Open a run (its final checkpoint, or the one named), a checkpoint, a model or PEFT folder, a hub name, or `pico`.

    `settings`: an experiment whose tools and evaluation are used in place of the run's; a model that is no run gets all of it.
    A run or checkpoint may come from someone else; what it may not do then is in `trust`.
    """
    plan, weights = find(str(ref), checkpoint)
    named = {override.partition("=")[0] for override in overrides}
    if weights is not None and settings is not None:
        named |= {
            *SETTINGS,
            "evaluation.metrics",
            *(f"tool_results.{key}" for key in ToolResultsSection.model_fields),
        }
    if weights is not None:
        plan = restrict_untrusted_run(plan, Path(ref), named, to_stderr)
    if settings is not None:
        plan = _with_settings(plan, settings, is_run=weights is not None)
    if overrides:
        plan = overridden(plan, overrides)
    if weights is not None and (weights / "config.json").is_file():
        base, adapter = str(weights), None
    else:
        base = resolve_model(plan)
        adapter = weights or adapter_of(plan)
    sampler = open_sampler(base, plan.model, adapter, plan.seed)
    tokenizer = TextTokenizer.load(base, plan.model.trust_remote_code)
    same_vocabulary(tokenizer, sampler.info.vocab_size, base)
    dialect, certificate = open_certified(tokenizer, format_request(plan))
    trained = trained_format(plan, weights)
    if trained is not None:
        check_same(trained, certificate, str(ref), on_purpose=bool(named & FORMAT_KEYS))
    elif weights is not None:
        to_stderr(
            f"{ref} holds no certificate.json: nobody can say whether it was trained in this format"
        )
    return Model(
        str(ref),
        sampler,
        tokenizer,
        dialect,
        open_registry(plan),
        plan,
        sampler.info.max_context,
        certificate,
    )


def _with_settings(plan: Experiment, settings: Experiment, is_run: bool) -> Experiment:
    """The plan with tools and evaluation of another; a model that is no run also gets its dialect, data and everything else."""
    if is_run:
        return plan.model_copy(update={name: getattr(settings, name) for name in SETTINGS})
    own = {"name": plan.model.name, "adapter": plan.model.adapter}
    return settings.model_copy(update={"model": settings.model.model_copy(update=own)})


def _resumed(folder: Path, plan: Experiment) -> Run:
    run = Run.open(folder)
    if run.experiment != plan:
        raise ConfigError(
            f"{folder} was made with other settings; resume it with its own: toolhone train --resume --out {folder}"
        )
    if FINAL in run.checkpoints():
        raise RunError(
            f"{folder} is finished; look at it with toolhone eval {folder}, or train into another folder"
        )
    return run


def _resumed_at(run: Run | None) -> int | None:
    """The step that a run goes on from; None for a new run."""
    if run is None:
        return None
    latest = run.latest()
    return int(run.state(latest).get("step", 0)) if latest else 0


def _last_step(run: Run) -> int:
    steps = [run.state(run.checkpoint(name)).get("step", 0) for name in run.checkpoints()]
    return max(steps, default=0)


def _same_data(run: Run, report: Mapping[str, Any]) -> None:
    path = run.folder / "data.json"
    before = read_json(path).get("rows_sha256") if path.is_file() else None
    if before not in (None, report["rows_sha256"]):
        raise RunError(
            f"{run.folder}: the training data is not what it was when the run began; train into another folder"
        )
