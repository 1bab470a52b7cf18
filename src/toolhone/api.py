"""From an experiment to a trained, evaluated model: what the command line does, for programs.

from toolhone import evaluate, experiment, open_model, train

plan = experiment({"model": {"name": "pico"}, "training": {"steps": 200, "lora": None}})
run, status = train(plan, "runs/first")
scores = evaluate(open_model("runs/first"), "tasks.jsonl")
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolhone.agents.agent_player import AgentPlayer
from toolhone.backends.base import Sampler
from toolhone.backends.open import open_sampler, open_tokenizer, with_own_lora
from toolhone.config.experiment import experiment_of, load_experiment, overridden, to_stderr
from toolhone.config.rl import STRATEGY, ToolResultsSection
from toolhone.config.sections import Experiment
from toolhone.config.trust import restrict_untrusted_run
from toolhone.config.user_code import USER_CODE, import_callable
from toolhone.data.task_files import check_ids, refuse_unplayable, tasks_from_any
from toolhone.data.world_tasks import in_world, read_agent_tasks
from toolhone.dialects.interface import Dialect
from toolhone.dialects.probe.certificate import Certificate, check_same, open_certified
from toolhone.episodes.driver import run_episodes
from toolhone.episodes.policy import TokenPolicy, open_policy
from toolhone.errors import CapabilityError, ConfigError, RunError
from toolhone.evaluation.evaluate import evaluate as play_and_score
from toolhone.evaluation.folder import refuse_overwriting, write_folder
from toolhone.evaluation.metrics import Evaluation, JudgedEpisode
from toolhone.models.resolve import adapter_of, find, resolve_model, trained_format
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import FINAL, Run, read_json, write_json, writing
from toolhone.runs.trackers import check_trackers, open_trackers
from toolhone.schema import Task
from toolhone.sources.files import write_jsonl
from toolhone.sources.messages import read_tasks
from toolhone.tokenizer import TextTokenizer
from toolhone.tools.loading import open_registry, tool_notes
from toolhone.tools.registry import Registry
from toolhone.training.before_after import evaluate_at_end, evaluate_base, format_of_run, validation
from toolhone.training.dataset import Dataset, held_out_tasks, load_data, source_request
from toolhone.training.distill import distill
from toolhone.training.dpo import dpo
from toolhone.training.grpo import grpo
from toolhone.training.kept import ROWS_FILE, kept_rows
from toolhone.training.loop import Hooks, TrainStatus
from toolhone.training.ppo import ppo
from toolhone.training.preference_pairs import PreparedPairs
from toolhone.training.prefill import format_request, refuse_prefill, with_thoughts
from toolhone.training.recipe import as_begun, with_recipe
from toolhone.training.setup import TrainingSetup, UserMetrics, check_vocabulary
from toolhone.training.sft import sft
from toolhone.training.teacher import teacher_mode

RL_METHODS = {"grpo": grpo, "ppo": ppo, "teacher_mode": teacher_mode, "distill": distill}
METHODS: dict[str, Any] = {"sft": sft, "dpo": dpo, **RL_METHODS}
TASKS_FILE = "tasks.jsonl"
"""The held-out tasks of a run, which its evaluations read."""
SETTINGS = ("tools", "allowed_tools", "tool_results", "world", "evaluation")
"""Sections of another experiment that replace those of a run when one is given."""
FORMAT_KEYS = frozenset(
    f"model.{key}"
    for key in ("dialect", "markup", "history", "template_switches", "inline_refs", "thinking")
)
"""Overrides that request another format on purpose."""


@dataclass(frozen=True)
class Model:
    """A sampler with its tokenizer, dialect, tools and experiment.

    tasks_file: the held-out tasks of the run it comes from, where they apply. agents: whether the
    user has named `agent.command`, so that evaluations start it."""

    name: str
    sampler: Sampler
    tokenizer: TextTokenizer
    dialect: Dialect
    registry: Registry
    experiment: Experiment
    max_context: int
    certificate: Certificate
    tasks_file: Path | None = None
    agents: bool = False

    def policy(self) -> TokenPolicy:
        """The policy of evaluation and chat; it samples as the `evaluation` section says."""
        parts = self.sampler, self.dialect, self.tokenizer, self.experiment, self.max_context
        return open_policy(*parts, self.registry.tools)


def experiment(
    source: Mapping[str, Any] | str | Path | None = None, overrides: Sequence[str] = ()
) -> Experiment:
    """An experiment from a mapping, a file, or all defaults, with `key=value` overrides."""
    if isinstance(source, Mapping):
        return experiment_of(source, "the experiment", overrides)
    return load_experiment(None if source is None else Path(source), overrides)


def train(
    plan: Experiment,
    out: str | Path,
    resume: bool = False,
    progress: Progress | None = None,
    resume_from: str | None = None,
) -> tuple[Run, TrainStatus]:
    """Train into the run folder `out` and evaluate at the end; `resume` continues its latest whole
    checkpoint, `resume_from` another one."""
    progress, algorithm = progress or Progress(), find_method(plan)
    plan = with_own_lora(plan, adapter_of(plan) or Path(plan.model.name), progress.report)
    folder, run, checkpoint, started_at = Path(out), None, None, None
    if resume or resume_from:
        run = _open_unfinished(folder, plan)
        plan, checkpoint = run.experiment, run.latest(resume_from, progress.report)
    elif (folder / "experiment.json").exists():
        right = "continue it with --resume, or choose another folder with --out"
        raise RunError(f"{folder} already holds a run; {right}")
    if plan.tracking.services:
        check_trackers(plan.tracking)
    metrics, registry = UserMetrics.of(plan), open_registry(plan)
    data = with_thoughts(load_data(plan, progress), plan.model.thinking)
    for line in (data.summary(), *tool_notes(plan, registry, [*data.tasks, *data.play])):
        progress.report(line)
    if data.play:
        check_ids(data.play)
    if not data.texts:
        check_ids(data.tasks)
    refuse_unplayable(data.tasks)
    if run is None:
        plan = with_recipe(plan, [*data.train, *data.play, *data.pairs], progress.report)
    begun = None if run is None else Certificate.read(run.folder)
    setup = TrainingSetup(plan, registry, metrics, progress, begun)
    setup.check_tools(data.tasks)
    rows, held_out, pairs, report = _prepare(setup, data, checkpoint and folder)
    plan = setup.plan
    setup.check_cost(rows, data.play)
    if run is not None:
        _check_unchanged(run, report, setup.certificate)
        started_at = int(run.state(checkpoint).get("step", 0)) if checkpoint else 0
    opening = (plan.tracking, folder, plan.model_dump(), started_at, progress.report)
    tracking = open_trackers(*opening) if plan.tracking.services else nullcontext()
    with tracking as trackers, setup.playing:
        run = run or Run.create(folder, plan)
        run.on_log = None if trackers is None else trackers.log
        _write_inputs(folder, report, data.tasks, setup, rows)
        before = evaluate_base(setup, data, folder, checkpoint is not None)
        hooks = Hooks(validation(setup, data.tasks, before), setup.save, progress)
        if plan.training.method in RL_METHODS:
            status = algorithm(setup.trainer, setup.env(data, hooks, run, rows), run, checkpoint)
        else:
            if pairs is not None and checkpoint is None:
                setup.pair_source().keep(pairs, folder)
            status = algorithm(setup.trainer, rows, held_out, run, hooks, checkpoint)
        _check_status(plan.training.method, status, run)
        if status is TrainStatus.FINISHED and plan.evaluation.at_end and data.tasks:
            evaluate_at_end(setup, data.tasks, run, before)
        setup.report_usage(run)
        run.on_log = None
    return run, status


def _write_inputs(
    folder: Path, report: Mapping[str, Any], tasks: Sequence[Task], setup: TrainingSetup, rows: Any
) -> None:
    """Write what a run was made from: the data report, held-out tasks, some rows, its format."""
    with writing(folder):
        write_json(folder / "data.json", report)
        write_jsonl(folder / TASKS_FILE, (task.to_dict() for task in tasks))
        write_jsonl(folder / ROWS_FILE, kept_rows(rows, setup.tokenizer.decode))
        setup.certificate.save(folder)


def find_method(plan: Experiment) -> Any:
    """The algorithm that `training.method` names: a built-in one, or the user's function."""
    method = plan.training.method
    if USER_CODE.fullmatch(method):
        return import_callable(method, Path.cwd(), "training.method")
    if method not in METHODS:
        raise CapabilityError(
            f"training.method: {method} is not available yet; use {', '.join(METHODS)}, "
            "or an algorithm of yours ('file.py:function')"
        )
    refuse_prefill(method, plan.training.rl)
    return METHODS[method]


def _prepare(
    setup: TrainingSetup, data: Dataset, resumed: Path | None
) -> tuple[list[Row], list[Row], PreparedPairs | None, dict[str, Any]]:
    """Rows to train on (RL: labelled rows; DPO: pairs), held-out rows, pairs, and the data report.

    `resumed`: the folder of a run that continues, which holds the pairs that a model sampled."""
    method = setup.plan.training.method
    if method not in (*RL_METHODS, "dpo"):
        rows, held_out, report = setup.rows(data)
        return rows, held_out, None, report
    pairs: PreparedPairs | None = None
    account: dict[str, Any] = {}
    if method in RL_METHODS:
        setup.check_prefill(data.play)
        if resumed is None and data.play and method != "distill":
            setup.check_rewards(data.play)
        (rows, account), held_out = setup.labelled_rows(data), []
        described = [one.to_dict() for part in (data.play, data.texts) for one in part]
        described += [account] if account else []
    else:
        source = setup.pair_source()
        if resumed is not None and source.samples:
            pairs = source.stored(resumed)
        else:
            pairs = source.make(data, setup.trainer.snapshot())
        setup.progress.report(pairs.summary())
        rows, held_out = pairs.rows, pairs.held_out
        described = [one.to_dict() for part in (data.train, data.pairs, data.play) for one in part]
    for one in described:  # clusters widen intervals; no training reads them
        one.pop("cluster", None)
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return rows, held_out, pairs, {**data.report, **account, "rows_sha256": digest}


def _check_status(method: str, status: object, run: Run) -> None:
    """Refuse what a user's algorithm must not do: return no status, or finish without a model."""
    if not isinstance(status, TrainStatus):
        right = "must return a TrainStatus (toolhone.training.loop)"
        raise ConfigError(f"training.method {method} {right}, it returned {status!r:.60}")
    if status is TrainStatus.FINISHED and FINAL not in run.checkpoints():
        right = "save one with run.save_checkpoint(FINAL, ...)"
        raise ConfigError(f"training.method {method} finished without a checkpoint; {right}")


def evaluate(
    model: Model,
    tasks: str | Path | Sequence[Task] | None = None,
    num_samples: int | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    tries: int = 1,
) -> Evaluation:
    """Play tasks (a file, a list, or the model's held-out ones) and score them; `out` gets the
    evaluation folder. Each task is played `tries` times, with one seed after the other."""
    if tries > 1 and not model.experiment.evaluation.temperature:
        wrong = f"{tries} samples of a task would be equal, since evaluation.temperature is 0"
        raise ConfigError(f"{wrong}; set it, to 0.7 say")
    if out is not None:
        refuse_overwriting(Path(out))
    report = to_stderr if progress is None else progress.report
    if tasks is None:
        num_samples = num_samples or model.experiment.evaluation.num_samples
    if tasks is None or isinstance(tasks, str | Path):
        tasks = tasks_of_model(model, tasks, report)
    chosen = in_world(list(tasks)[:num_samples], model.experiment.world)
    metrics, turns = UserMetrics.of(model.experiment), model.experiment.evaluation.max_turns
    own = metrics.metrics, metrics.rewards
    samples: list[JudgedEpisode] = []
    by_agents = model.agents and model.experiment.data.chosen_strategy == STRATEGY
    agents = AgentPlayer.of(model.experiment, report) if by_agents else None
    play = agents.play if agents else run_episodes
    with closing(agents) if agents else nullcontext():
        for number in range(tries):
            plan = model.experiment
            plan = plan.model_copy(update={"seed": (plan.seed + number) % 2**32})
            policy = replace(model, experiment=plan).policy()
            policy.check_tools(task.tools for task in chosen)
            how = model.registry, progress, turns, *own, play
            samples += play_and_score(policy, chosen, *how).samples
    result = Evaluation(tuple(samples))
    if out is not None:
        write_folder(result, Path(out), format_of_run(model.certificate, model.experiment))
    return result


def tasks_of_model(
    model: Model, file: str | Path | None = None, report: Callable[[str], None] = to_stderr
) -> list[Task]:
    """The tasks of a file, or those held out: by the model's run, else by its `data` section."""
    plan, kept = model.experiment, file or model.tasks_file
    if model.agents and kept is not None:
        return read_agent_tasks(kept, plan)
    if file is not None:
        return tasks_from_any(file, model.registry.tools, report, source_request(plan))
    if plan.data.chosen_strategy == STRATEGY and not model.agents:
        command = f"agent.command='{json.dumps(plan.agent.command)}'"
        right = f"name it to start it: {command}; or play tasks of a file without it: --tasks FILE"
        raise ConfigError(f"the held-out tasks of {model.name} are played by an agent; {right}")
    return held_out_tasks(plan) if kept is None else read_tasks(kept)


def open_model(
    ref: str | Path,
    checkpoint: str | None = None,
    overrides: Sequence[str] = (),
    settings: Experiment | None = None,
    base: bool = False,
) -> Model:
    """Open a run (its final checkpoint, or the one named), a checkpoint, a model or PEFT folder, a
    hub name, or `pico`.

    settings: an experiment whose tools and evaluation replace the run's; a model that is no run
    gets all of it. `config.trust` limits what a run or checkpoint of someone else may do. base: the
    model that the run started from, with the run's tools, format and held-out tasks."""
    plan, weights = find(str(ref), checkpoint)
    original = plan
    named = {override.partition("=")[0] for override in overrides}
    if weights is not None:
        if settings is not None:
            results = (f"tool_results.{key}" for key in ToolResultsSection.model_fields)
            named |= {*SETTINGS, "evaluation.metrics", *results}
        plan = restrict_untrusted_run(plan, Path(ref), named, to_stderr)
    if settings is not None:
        plan = _with_settings(plan, settings, is_run=weights is not None)
    if overrides:
        plan = overridden(plan, overrides)
    tasks_file = None  # the held-out tasks of a run, unless other data or tasks were asked for
    if weights is not None and weights.parent.name == "checkpoints":
        path = weights.parent.parent / TASKS_FILE
        then, now = ((one.data, one.evaluation.tasks, one.tools) for one in (original, plan))
        tasks_file = path if then == now and path.is_file() else None
    if base:
        if weights is None:
            raise RunError(f"--base: {ref} is no run, so it is its own base; leave --base out")
        weights = None
        if plan.evaluation.tools_in_prompt is None:  # the base knows no tool by heart
            plan = overridden(plan, ["evaluation.tools_in_prompt=full"])
    if weights is not None and (weights / "config.json").is_file():
        name, adapter = str(weights), None
    else:
        name, adapter = resolve_model(plan), weights or adapter_of(plan)
    if base:
        to_stderr(f"{ref}: its base is {adapter or plan.model.adapter or plan.model.name}")
    sampler = open_sampler(name, plan.model, adapter, plan.seed)
    tokenizer = open_tokenizer(plan.model, name)
    check_vocabulary(tokenizer, sampler.info.vocab_size, name)
    trained = trained_format(plan, weights)
    dialect, certificate = open_certified(tokenizer, format_request(plan, tokenizer, trained))
    if trained is not None:
        check_same(trained, certificate, str(ref), on_purpose=bool(named & FORMAT_KEYS))
    elif weights is not None:
        to_stderr(f"{ref} has no certificate.json: the format it was trained in is unknown")
    context, registry = sampler.info.max_context, open_registry(plan)
    return Model(
        *(str(ref), sampler, tokenizer, dialect, registry, plan, context, certificate, tasks_file),
        agents="agent.command" in named,
    )


def _with_settings(plan: Experiment, settings: Experiment, is_run: bool) -> Experiment:
    """The plan with tools and evaluation of another; a model that is no run gets all but its
    weights."""
    if is_run:
        return plan.model_copy(update={name: getattr(settings, name) for name in SETTINGS})
    own = {"name": plan.model.name, "adapter": plan.model.adapter}
    return settings.model_copy(update={"model": settings.model.model_copy(update=own)})


def began_with(run: Run, plan: Experiment) -> bool:
    """Tell whether a run has these settings, but for what was chosen by rule when it began."""
    plan = with_own_lora(plan, adapter_of(plan) or Path(plan.model.name), lambda _: None)
    plan = as_begun(plan, run.experiment)
    if plan.model.micro_batch_tokens is None:
        chosen = {"micro_batch_tokens": run.experiment.model.micro_batch_tokens}
        plan = plan.model_copy(update={"model": plan.model.model_copy(update=chosen)})
    return run.experiment == plan


def _open_unfinished(folder: Path, plan: Experiment) -> Run:
    run = Run.open(folder)
    if not began_with(run, plan):
        right = f"resume it with its own: toolhone train --resume --out {folder}"
        raise ConfigError(f"{folder} was made with other settings; {right}")
    if FINAL in run.checkpoints():
        right = f"evaluate it with toolhone eval {folder}, or train into another folder"
        raise RunError(f"{folder} is finished; {right}")
    run.sweep()
    return run


def _check_unchanged(run: Run, report: Mapping[str, Any], certificate: Certificate) -> None:
    """Refuse to resume a run with other data or in another format than it began with."""
    path = run.folder / "data.json"
    before = read_json(path).get("rows_sha256") if path.is_file() else None
    if before not in (None, report["rows_sha256"]):
        changed = "the training data differ from those at the start of the run"
        raise RunError(f"{run.folder}: {changed}; train into another folder")
    if (trained := Certificate.read(run.folder)) is not None:
        check_same(trained, certificate, str(run.folder))
