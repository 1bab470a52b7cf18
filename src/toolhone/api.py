"""From an experiment to a trained, evaluated model: what the command line does, for programs.

    from toolhone import evaluate, experiment, open_model, train

    plan = experiment({"model": {"name": "pico"}, "training": {"steps": 200, "lora": None}})
    run, ending = train(plan, "runs/first")
    model = open_model("runs/first")
    scores = evaluate(model, "tasks.jsonl")

This is the only place that puts a backend, a dialect, tools, data and an algorithm together; none of them knows the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolhone.algorithms.sft import Ending, Hooks, Validation, sft
from toolhone.backends.base import Lora, Sampler, SamplingParams
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import TorchTrainer, open_sampler, open_trainer
from toolhone.config import Experiment, load_experiment, make_experiment
from toolhone.data.files import read_tasks
from toolhone.data.gather import gather
from toolhone.data.pico import pico_folder
from toolhone.data.render import render_rows
from toolhone.dialects.base import Dialect
from toolhone.dialects.choose import dialect_fingerprint, open_dialect
from toolhone.episodes.policy import TokenPolicy
from toolhone.errors import ConfigError, ModelError, RunError
from toolhone.evaluation.evaluate import evaluate as play_and_judge
from toolhone.evaluation.folder import write_folder
from toolhone.evaluation.metrics import METRICS, Evaluation
from toolhone.progress import Progress, Silent
from toolhone.run import Run, write_json, writing
from toolhone.schema import Task
from toolhone.tokenizer import TextTokenizer
from toolhone.tools.registry import Registry, load_tools

PICO = "pico"


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

    def policy(self, **changes: Any) -> TokenPolicy:
        """What evaluation and chat talk to; `changes` replace fields of `SamplingParams`."""
        return _policy(self.sampler, self.dialect, self.tokenizer, self.experiment, self.max_context, changes)


def experiment(source: Mapping[str, Any] | str | Path | None = None, overrides: Sequence[str] = ()) -> Experiment:
    """An experiment from a mapping, a file, or all defaults."""
    if isinstance(source, Mapping):
        return make_experiment(source, "the experiment")
    return load_experiment(None if source is None else Path(source), overrides)


def train(plan: Experiment, out: str | Path, resume: bool = False, progress: Progress | None = None) -> tuple[Run, Ending]:
    """Train as planned into the run folder `out`, and evaluate at the end. With `resume`, go on from its latest checkpoint."""
    progress = progress or Silent()
    folder = Path(out)
    run = _resumed(folder, plan) if resume else None
    if run is None and (folder / "experiment.json").exists():
        raise RunError(f"{folder} holds a run already; continue it with --resume, or give another folder with --out")
    materials = gather(plan)
    trainer, tokenizer, dialect = _open_for_training(plan)
    rows = render_rows(materials.train, dialect, tokenizer, plan.training, plan.data.too_long, progress)
    held_out = render_rows(materials.held_out, dialect, tokenizer, plan.training, "drop").rows if materials.held_out else []
    registry = open_registry(plan)
    run = run or Run.create(folder, plan)
    with writing(folder):
        counts = {"rows": len(rows.rows), "too_long": rows.dropped, "longest_row": rows.longest}
        write_json(folder / "data.json", {**materials.report, **counts})
    if rows.dropped:
        progress.report(
            f"{rows.dropped} rows are longer than training.max_length={plan.training.max_length} and were dropped whole"
        )
    context = trainer.engine.max_context

    def validate(sampler: Sampler) -> Validation:
        policy = _policy(sampler, dialect, tokenizer, plan, context, {})
        tasks = materials.tasks[: plan.training.validation_samples]
        return _scores(play_and_judge(policy, tasks, registry, max_turns=plan.evaluation.max_turns))

    def save(place: Path, optimizer: bool) -> None:
        trainer.save(place, optimizer)
        if trainer.engine.lora is None:
            tokenizer.save(place)

    ending = sft(trainer, rows.rows, held_out, run, Hooks(validate, save, progress), run.latest() if resume else None)
    if ending is Ending.FINISHED and plan.evaluation.at_end and materials.tasks:
        policy = _policy(trainer.snapshot(), dialect, tokenizer, plan, context, {})
        tasks = materials.tasks[: plan.evaluation.num_samples]
        result = play_and_judge(policy, tasks, registry, progress, plan.evaluation.max_turns)
        write_folder(result, run.folder / "evaluation", dialect_fingerprint(dialect), overwrite=True)
    return run, ending


def evaluate(
    model: Model,
    tasks: str | Path | Sequence[Task] | None = None,
    num_samples: int | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Play tasks (a file, a list, or the model's own held-out ones) and score them; `out` gets the evaluation folder."""
    if tasks is None:
        tasks = gather(model.experiment).tasks
        num_samples = num_samples or model.experiment.evaluation.num_samples
    chosen = list(read_tasks(tasks) if isinstance(tasks, str | Path) else tasks)[:num_samples]
    result = play_and_judge(model.policy(), chosen, model.registry, progress, model.experiment.evaluation.max_turns)
    if out is not None:
        write_folder(result, Path(out), dialect_fingerprint(model.dialect))
    return result


def open_model(ref: str | Path, checkpoint: str | None = None, overrides: Sequence[str] = ()) -> Model:
    """Open a run (its final checkpoint, or the one named), a checkpoint folder, a model folder, a hub name, or `pico`."""
    plan, weights = _find(Path(ref), str(ref), checkpoint)
    if overrides:
        plan = _overridden(plan, overrides)
    base = resolve_model(plan)
    full = weights is not None and (weights / "config.json").is_file()
    folder = weights if weights is not None and full else None
    adapter = weights if weights is not None and not full else Path(plan.model.adapter) if plan.model.adapter else None
    sampler = open_sampler(folder or base, _options(plan), None if full else adapter)
    tokenizer = TextTokenizer.load(folder or base)
    dialect = open_dialect(tokenizer, plan.model.dialect, plan.model.markup)
    return Model(str(ref), sampler, tokenizer, dialect, open_registry(plan), plan, sampler.max_context)


def resolve_model(plan: Experiment) -> str:
    """The folder or hub name of the experiment's model; `pico` is made when it is not there yet."""
    name = plan.model.name
    if name == PICO:
        return str(pico_folder(plan.seed))
    if not Path(name).exists() and ("/" not in name or name.startswith((".", "/", "~"))):
        raise ModelError(f"model.name: no model at {name!r}; give a model folder, a hub name such as Qwen/Qwen3-0.6B, or 'pico'")
    return name


def open_registry(plan: Experiment) -> Registry:
    """The tools that may run, by the experiment's `tools`."""
    return Registry([tool for spec in plan.tools for tool in load_tools(spec, Path.cwd())])


def _find(path: Path, ref: str, checkpoint: str | None) -> tuple[Experiment, Path | None]:
    """The experiment that a reference belongs to, and the folder of its trained weights (None: the model as it is)."""
    if (path / "state.json").is_file():
        return make_experiment(json.loads((path / "state.json").read_text())["experiment"], str(path / "state.json")), path
    if (path / "experiment.json").is_file():
        run = Run.open(path)
        return run.experiment, run.checkpoint(checkpoint)
    if checkpoint is not None:
        raise RunError(f"--checkpoint names a checkpoint of a run, but {ref} is no run folder (it holds no experiment.json)")
    if ref != PICO and not path.exists() and ("/" not in ref or ref.startswith((".", "/"))):
        raise ModelError(f"no model or run at {ref!r}; give a run folder, a checkpoint, a model folder, a hub name or 'pico'")
    return make_experiment({"model": {"name": ref}}, "the command line"), None


def _overridden(plan: Experiment, overrides: Sequence[str]) -> Experiment:
    changes = load_experiment(None, overrides).model_dump(exclude_unset=True)
    merged = plan.model_dump()
    for section, values in changes.items():
        merged[section] = {**merged[section], **values} if isinstance(values, dict) else values
    return make_experiment(merged, "the command line")


def _resumed(folder: Path, plan: Experiment) -> Run:
    run = Run.open(folder)
    if run.experiment != plan:
        raise ConfigError(f"{folder} was made with other settings; resume it with its own: toolhone train --resume --out {folder}")
    if run.latest() is None:
        raise RunError(f"{folder} has no checkpoint to resume from; start again into another folder")
    return run


def _open_for_training(plan: Experiment) -> tuple[TorchTrainer, TextTokenizer, Dialect]:
    name = resolve_model(plan)
    tokenizer = TextTokenizer.load(name)
    dialect = open_dialect(tokenizer, plan.model.dialect, plan.model.markup)
    section = plan.training.lora
    lora = None
    if section is not None:
        lora = Lora(section.rank, section.alpha, section.dropout, section.last_layers, tuple(section.target_modules))
    adapter = Path(plan.model.adapter) if plan.model.adapter else None
    return open_trainer(name, lora, _options(plan), adapter), tokenizer, dialect


def _options(plan: Experiment) -> EngineOptions:
    model = plan.model
    return EngineOptions(
        torch_dtype=model.torch_dtype,
        device_map=model.device_map,
        trust_remote_code=model.trust_remote_code,
        gradient_checkpointing=plan.training.gradient_checkpointing,
        micro_batch_tokens=model.micro_batch_tokens,
        seed=plan.seed,
    )


def _policy(
    sampler: Sampler, dialect: Dialect, tokenizer: TextTokenizer, plan: Experiment, context: int, changes: Mapping[str, Any]
) -> TokenPolicy:
    wanted = plan.evaluation
    params = SamplingParams(wanted.max_new_tokens, wanted.temperature, wanted.top_p, wanted.top_k, seed=plan.seed)
    return TokenPolicy(sampler, dialect, tokenizer, replace(params, **changes), context)


def _scores(result: Evaluation) -> Validation:
    """The metrics that were measured, and the samples as they go into a log."""
    scores = {name: result.metrics[name].value for name in METRICS}
    measured = {name: value for name, value in scores.items() if value is not None}
    return measured, [{"id": s.id, "category": s.category, "text": s.text, "scores": dict(s.scores)} for s in result.samples]
