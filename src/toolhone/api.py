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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolhone.algorithms.sft import Ending, Hooks, Validation, sft
from toolhone.backends.base import Lora, Sampler, SamplingParams, Trainer
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import open_sampler, open_trainer
from toolhone.config import experiment_of, load_experiment, overridden, to_stderr
from toolhone.data.any_tasks import tasks_from_any
from toolhone.data.gather import Materials, asked_of, gather, held_out_tasks
from toolhone.data.render import render_rows
from toolhone.dialects.base import Dialect
from toolhone.dialects.certificate import Certificate, Wanted, check_same, open_certified
from toolhone.episodes.policy import TokenPolicy
from toolhone.errors import CapabilityError, ConfigError, ModelError, RunError
from toolhone.evaluation.evaluate import Metric, check_playable
from toolhone.evaluation.evaluate import evaluate as play_and_judge
from toolhone.evaluation.familiar import known_metric
from toolhone.evaluation.folder import refuse_overwriting, write_folder
from toolhone.evaluation.metrics import RATES, Evaluation
from toolhone.model_ref import adapter_of, find, resolve_model, trained_format
from toolhone.owncode import is_own_code, load_named
from toolhone.progress import Progress, Silent
from toolhone.rewards.own import Reward, load_rewards
from toolhone.rows import Row
from toolhone.run import FINAL, Run, read_json, write_json, writing
from toolhone.schema import Task
from toolhone.sections import Experiment, ToolResultsSection
from toolhone.tokenizer import TextTokenizer
from toolhone.tools.loading import open_registry
from toolhone.tools.registry import Registry
from toolhone.tracking.trackers import check_trackers, open_trackers
from toolhone.trust import as_opened

SETTINGS = ("tools", "allowed_tools", "tool_results", "evaluation")
"""Sections of another experiment that a run is opened with when one is given."""
FORMAT_KEYS = frozenset(f"model.{key}" for key in ("dialect", "markup", "history", "template_switches"))
"""Overrides that ask for another format on purpose."""
Algorithm = Callable[[Trainer, Sequence[Row], Sequence[Row], Run, Hooks, Path | None], Ending]
"""What `algorithms.sft.sft` is; one of the user's own is called in the same way."""


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
        return _policy(self.sampler, self.dialect, self.tokenizer, self.experiment, self.max_context)


def experiment(source: Mapping[str, Any] | str | Path | None = None, overrides: Sequence[str] = ()) -> Experiment:
    """An experiment from a mapping, a file, or all defaults, with `key=value` overrides."""
    if isinstance(source, Mapping):
        return experiment_of(source, "the experiment", overrides)
    return load_experiment(None if source is None else Path(source), overrides)


def train(plan: Experiment, out: str | Path, resume: bool = False, progress: Progress | None = None) -> tuple[Run, Ending]:
    """Train as planned into the run folder `out`, and evaluate at the end. With `resume`, go on from its latest checkpoint."""
    progress = progress or Silent()
    algorithm = open_algorithm(plan)
    folder = Path(out)
    run = _resumed(folder, plan) if resume else None
    if run is None and (folder / "experiment.json").exists():
        raise RunError(f"{folder} holds a run already; continue it with --resume, or give another folder with --out")
    check_trackers(plan.tracking)
    measures, registry = Measures.of(plan), open_registry(plan)
    materials = gather(plan)
    progress.report(materials.summary())
    check_playable(materials.tasks)
    bench = _Bench(plan, registry, measures, progress)
    rows, held_out, report = bench.rows(materials)
    if run is not None:
        _same_data(run, report)
        if (trained := Certificate.read(folder)) is not None:
            check_same(trained, bench.certificate, str(folder))
    with open_trackers(plan.tracking, folder, plan.model_dump(), _resumed_at(run), progress.report) as trackers:
        run = run or Run.create(folder, plan)
        run.trackers = trackers
        with writing(folder):
            write_json(folder / "data.json", report)
            bench.certificate.save(folder)
        hooks = Hooks(lambda sampler: bench.validate(sampler, materials.tasks), bench.save, progress)
        ending = algorithm(bench.trainer, rows, held_out, run, hooks, run.latest() if resume else None)
        _check_ending(plan.training.method, ending, run)
        if ending is Ending.FINISHED and plan.evaluation.at_end and materials.tasks:
            result = bench.evaluate(bench.trainer.snapshot(), materials.tasks[: plan.evaluation.num_samples], progress)
            write_folder(result, run.folder / "evaluation", bench.certificate.to_dict(), overwrite=True)
            trackers.log(_last_step(run), "evaluation", _scores(result)[0])
        run.trackers = None
    return run, ending


def open_algorithm(plan: Experiment) -> Algorithm:
    """The algorithm that `training.method` names; one that is not here is refused before anything is opened."""
    method = plan.training.method
    if method == "sft":
        return sft
    if is_own_code(method):
        return load_named(method, Path.cwd(), "training.method")
    raise CapabilityError(
        f"training.method: {method} is not here yet; what is: sft, and an algorithm of your own ('file.py:function')"
    )


def _check_ending(method: str, ending: object, run: Run) -> None:
    """An algorithm of the user's own must say how it ended, and leave a model when it finished."""
    if not isinstance(ending, Ending):
        raise ConfigError(f"training.method {method}: it must return an Ending (algorithms.sft.Ending), it returned {ending!r:.60}")
    if ending is Ending.FINISHED and FINAL not in run.checkpoints():
        raise ConfigError(
            f"training.method {method}: it finished without a checkpoint; save one with run.save_checkpoint(FINAL, ...)"
        )


@dataclass(frozen=True)
class Measures:
    """What is measured beside our own scores: metrics and rewards of the user's own."""

    metrics: Mapping[str, Metric]
    rewards: Sequence[Reward]

    @staticmethod
    def of(plan: Experiment) -> Measures:
        """Those that the experiment names; a name of a metric that nobody knows is refused."""
        own: dict[str, Metric] = {}
        for name in plan.evaluation.metrics or ():
            if not is_own_code(name):
                known_metric(name)
            elif (key := name.rpartition(":")[2]) in own:
                raise ConfigError(
                    f"evaluation.metrics has two functions named {key!r}; scores are told apart by name, so rename one"
                )
            else:
                own[key] = load_named(name, Path.cwd(), "a metric")
        reward, method = plan.training.rl.reward, plan.training.method
        measured = method == "sft" or is_own_code(method)
        return Measures(own, load_rewards(reward.functions, reward.weights) if measured else [])


class _Bench:
    """What one training works with: trainer, tokenizer, dialect and tools, opened as the experiment says."""

    def __init__(self, plan: Experiment, registry: Registry, measures: Measures, progress: Progress) -> None:
        self.plan, self.registry, self.measures, self.progress = plan, registry, measures, progress
        name, section = resolve_model(plan), plan.training.lora
        self.tokenizer = TextTokenizer.load(name, plan.model.trust_remote_code)
        self.dialect, self.certificate = open_certified(self.tokenizer, wanted_format(plan))
        for limit in self.certificate.limits:
            progress.report(f"format: {limit}")
        adapter = adapter_of(plan)
        lora = (
            Lora(section.rank, section.alpha, section.dropout, section.last_layers, tuple(section.target_modules))
            if section
            else None
        )
        self.trainer = open_trainer(name, lora, _options(plan), adapter)
        _same_vocabulary(self.tokenizer, self.trainer.engine.vocabulary, name)

    def rows(self, materials: Materials) -> tuple[list[Row], list[Row], dict[str, Any]]:
        """Rows to train on, held-out rows, and the account of where every conversation went."""
        plan, context = self.plan, self.trainer.engine.max_context
        section = plan.training
        if context and section.max_length > context:
            self.progress.report(
                f"training.max_length={section.max_length} is more than the model's context; rows may have {context} tokens"
            )
            section = section.model_copy(update={"max_length": context})
        train = render_rows(materials.train, self.dialect, self.tokenizer, section, plan.data.too_long, self.progress)
        held_out = []
        counts = {"rows": len(train.rows), "too_long": train.dropped, "longest_row": train.longest, "held_out_too_long": 0}
        if materials.held_out:
            kept = render_rows(materials.held_out, self.dialect, self.tokenizer, section, plan.data.too_long)
            held_out, counts["held_out_too_long"] = kept.rows, kept.dropped
        dropped = counts["too_long"] + counts["held_out_too_long"]
        if dropped:
            self.progress.report(f"{dropped} rows are longer than training.max_length={section.max_length} and were dropped whole")
        digest = hashlib.sha256(b"".join(row.tokens.tobytes() for row in train.rows)).hexdigest()
        return train.rows, held_out, {**materials.report, **counts, "rows_sha256": digest}

    def evaluate(self, sampler: Sampler, tasks: Sequence[Task], progress: Progress | None = None) -> Evaluation:
        policy = _policy(sampler, self.dialect, self.tokenizer, self.plan, self.trainer.engine.max_context)
        measures, turns = self.measures, self.plan.evaluation.max_turns
        return play_and_judge(policy, tasks, self.registry, progress, turns, measures.metrics, measures.rewards)

    def validate(self, sampler: Sampler, tasks: Sequence[Task]) -> Validation:
        chosen = tasks[: self.plan.training.validation_samples]
        return _scores(self.evaluate(sampler, chosen)) if chosen else ({}, [])

    def save(self, folder: Path, optimizer: bool) -> None:
        self.trainer.save(folder, optimizer)
        self.certificate.save(folder)
        if self.trainer.engine.lora is None:
            self.tokenizer.save(folder)


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
    measures, turns = Measures.of(model.experiment), model.experiment.evaluation.max_turns
    result = play_and_judge(model.policy(), chosen, model.registry, progress, turns, measures.metrics, measures.rewards)
    if out is not None:
        write_folder(result, Path(out), model.certificate.to_dict())
    return result


def open_model(
    ref: str | Path, checkpoint: str | None = None, overrides: Sequence[str] = (), settings: Experiment | None = None
) -> Model:
    """Open a run (its final checkpoint, or the one named), a checkpoint, a model or PEFT folder, a hub name, or `pico`.

    `settings`: an experiment whose tools and evaluation are used in place of the run's; a model that is no run gets all of it.
    A run or checkpoint may come from someone else; what it may not do then is in `trust`.
    """
    plan, weights = find(str(ref), checkpoint)
    named = {override.partition("=")[0] for override in overrides}
    if weights is not None and settings is not None:
        named |= {*SETTINGS, "evaluation.metrics", *(f"tool_results.{key}" for key in ToolResultsSection.model_fields)}
    if weights is not None:
        plan = as_opened(plan, Path(ref), named, to_stderr)
    if settings is not None:
        plan = _with_settings(plan, settings, is_run=weights is not None)
    if overrides:
        plan = overridden(plan, overrides)
    if weights is not None and (weights / "config.json").is_file():
        base, adapter = str(weights), None
    else:
        base = resolve_model(plan)
        adapter = weights or adapter_of(plan)
    sampler = open_sampler(base, _options(plan), adapter)
    tokenizer = TextTokenizer.load(base, plan.model.trust_remote_code)
    _same_vocabulary(tokenizer, sampler.vocabulary, base)
    dialect, certificate = open_certified(tokenizer, wanted_format(plan))
    trained = None if weights is None else trained_format(weights)
    if trained is not None and not named & FORMAT_KEYS:
        check_same(trained, certificate, str(ref))
    return Model(str(ref), sampler, tokenizer, dialect, open_registry(plan), plan, sampler.max_context, certificate)


def _with_settings(plan: Experiment, settings: Experiment, is_run: bool) -> Experiment:
    """The plan with tools and evaluation of another; a model that is no run also gets its dialect, data and everything else."""
    if is_run:
        return plan.model_copy(update={name: getattr(settings, name) for name in SETTINGS})
    own = {"name": plan.model.name, "adapter": plan.model.adapter}
    return settings.model_copy(update={"model": settings.model.model_copy(update=own)})


def wanted_format(plan: Experiment) -> Wanted:
    """The format that an experiment asks for."""
    model = plan.model
    return Wanted(model.dialect, model.markup, model.history == "kept", model.template_switches)


def _same_vocabulary(tokenizer: TextTokenizer, rows: int, name: str) -> None:
    if tokenizer.vocab_size > rows:
        raise ModelError(
            f"{name}: the tokenizer has {tokenizer.vocab_size} tokens but the model only {rows}; they do not belong together"
        )


def _resumed(folder: Path, plan: Experiment) -> Run:
    run = Run.open(folder)
    if run.experiment != plan:
        raise ConfigError(f"{folder} was made with other settings; resume it with its own: toolhone train --resume --out {folder}")
    if FINAL in run.checkpoints():
        raise RunError(f"{folder} is finished; look at it with toolhone eval {folder}, or train into another folder")
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
        raise RunError(f"{run.folder}: the training data is not what it was when the run began; train into another folder")


def _options(plan: Experiment) -> EngineOptions:
    model = plan.model
    return EngineOptions(
        torch_dtype=model.torch_dtype,
        device_map=model.device_map,
        trust_remote_code=model.trust_remote_code,
        gradient_checkpointing=plan.training.gradient_checkpointing,
        micro_batch_tokens=model.micro_batch_tokens,
        seed=plan.seed,
        loader=load_named(model.model_class, Path.cwd(), "model.model_class") if model.model_class else None,
    )


def _policy(sampler: Sampler, dialect: Dialect, tokenizer: TextTokenizer, plan: Experiment, context: int) -> TokenPolicy:
    wanted = plan.evaluation
    params = SamplingParams(wanted.max_new_tokens, wanted.temperature, wanted.top_p, wanted.top_k, seed=plan.seed)
    return TokenPolicy(sampler, dialect, tokenizer, params, context)


def _scores(result: Evaluation) -> Validation:
    """The metrics that were measured, and the samples as they go into a log."""
    scores = {name: score.value for name, score in result.metrics.items() if name not in RATES}
    measured = {name: value for name, value in scores.items() if value is not None} | result.rewards
    return measured, [{"id": s.id, "category": s.category, "text": s.text, "scores": dict(s.scores)} for s in result.samples]
