"""`toolhone train` trains what an experiment file, a preset or flags describe; `toolhone config`
prints the schema of experiment files, the resolved experiment, and the presets."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from toolhone.api import train as run_training
from toolhone.cli.console import print_note, show_evaluation
from toolhone.cli.flags import (
    FLAGS,
    AsJson,
    ExperimentName,
    FlagCommand,
    Overrides,
    experiment_and_keys,
)
from toolhone.config.experiment import json_schema, load_experiment, overridden, to_stderr
from toolhone.config.presets import preset_comment, preset_names
from toolhone.config.sections import Experiment
from toolhone.config.trust import refuse_to_resume_unnamed
from toolhone.config.user_code import USER_CODE
from toolhone.errors import RunError, ServiceError
from toolhone.evaluation.folder import METRICS, read_folder
from toolhone.evaluation.legacy_metrics import known_metrics
from toolhone.rewards.reward_registry import syntax_of
from toolhone.runs.progress import open_progress
from toolhone.runs.run import FINAL, Run
from toolhone.training.loop import TrainStatus

GRPO_REWARDS = ["tool_call_exact", "tool_call_function"]
"""The rewards of MLX-GRPO where its flags name none."""

app = typer.Typer(rich_markup_mode=None)
group = typer.Typer(
    help="The experiment file: its schema, and what a file resolves to.", no_args_is_help=True
)
app.add_typer(group, name="config")


@app.command(
    cls=FlagCommand,
    epilog="Examples: toolhone train sft.json --out runs/sft training.steps=200   |   "
    "toolhone train calculator model.name=pico   |   "
    "toolhone train --model pico --data rows.jsonl --iters 100   |   "
    "toolhone train --resume --out runs/sft",
)
def train(
    context: typer.Context,
    experiment: ExperimentName = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        Option(
            *("--out", "--output-dir", "--outdir", "--adapter-path"),
            help="the run folder [default: runs/ and the experiment's name]",
        ),
    ] = None,
    resume: Annotated[
        bool, Option("--resume", help="resume from the run's latest checkpoint")
    ] = False,
    resume_from: Annotated[
        str | None,
        Option(metavar="CHECKPOINT", help="resume from this one, such as checkpoint_step_200"),
    ] = None,
    config: Annotated[
        str | None, Option(help="the experiment file, for those used to this spelling")
    ] = None,
    debug: Annotated[bool, Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    """Train a model, with progress, validation by generation, checkpoints, and an evaluation at the
    end."""
    path, keys = experiment_and_keys(context, experiment, overrides, config)
    folder = out or Path("runs") / (path.stem if path else "sft")
    resume = resume or resume_from is not None
    if resume and path is None and not keys:
        plan = Run.open(folder).experiment
        refuse_to_resume_unnamed(plan, folder)
    else:
        plan = load_command(context, path, keys)
    try:
        with open_progress(plan.tracking.progress) as progress:
            run, status = run_training(plan, folder, resume, progress, resume_from)
    except ServiceError as error:
        if not (folder / "experiment.json").is_file():
            raise
        command = resume_command(plan, folder)
        right = f"what was saved before is whole. Resume with: {command}"
        raise ServiceError(f"{error}; {right}") from error
    except KeyboardInterrupt:  # before the first step, in the evaluation at the end, or twice
        if not (folder / "experiment.json").is_file():
            raise
        how = f"what was saved before is whole. Resume with: {resume_command(plan, folder)}"
        if (folder / "checkpoints" / FINAL).is_dir():
            how = f"the training is complete. Evaluate it with: toolhone eval {folder}"
        print_note(f"stopped; {how}")
        raise typer.Exit(130) from None
    if status is TrainStatus.INTERRUPTED:
        command = resume_command(plan, folder)
        print_note(f"stopped; the state is saved. Resume with: {command}")
        raise typer.Exit(130)
    if (run.folder / "evaluation" / METRICS).is_file():
        evaluation = read_folder(run.folder / "evaluation")
        show_evaluation(evaluation, plan.tracking.samples, plan.evaluation.metrics or ())
    verbs = f"curves: toolhone plot {folder}   chat with it: toolhone chat {folder}"
    print_note(f"run: {folder}   {verbs}")


def load_command(context: Any, path: Path | None, keys: Sequence[str]) -> Experiment:
    """Return the experiment of a file or preset with its keys and with `grpo_choices`."""
    plan = load_experiment(path, keys)
    choices = grpo_choices(plan, context.meta.get("flags", {}), keys, has_file=path is not None)
    for choice, reason in choices.items():
        to_stderr(f"{choice} is chosen: {reason}")
    return overridden(plan, list(choices)) if choices else plan


def grpo_choices(
    plan: Experiment, given: dict[str, str], keys: Sequence[str], has_file: bool
) -> dict[str, str]:
    """Return what the flags of MLX-GRPO leave to choose, as overrides with their reasons: its
    rewards, the dialect that they read, one completion for each sample, a constant rate, the scale
    of its adapters. `keys` are the settings of the command, flags included."""
    is_rl = any(flag.key.startswith("training.rl.") for flag in FLAGS if flag.slot in given)
    if plan.training.method != "grpo" or not (is_rl or "train_mode" in given):
        return {}
    reward, choices = plan.training.rl.reward, dict[str, str]()
    names = reward.functions if "reward_functions" in given else []
    if not has_file and not reward.functions and not reward.phases:
        names = GRPO_REWARDS
        key = f"training.rl.reward.functions={json.dumps(names)}"
        choices[key] = "those of MLX-GRPO, since --reward-functions names none"
    free = "dialect" not in plan.model.model_fields_set and not plan.data.raw_prompt
    if free and names and (syntax := syntax_of(names)) is not None:
        choices[f"model.dialect={syntax}"] = f"the way of calling that {', '.join(names)} read"
    its_own = any(name.startswith("tool_call_") for name in names)
    free = "tools" not in plan.model_fields_set and plan.training.rl.episode.max_turns is None
    if its_own and not has_file and free:
        choices["training.rl.episode.max_turns=1"] = "a sample of MLX-GRPO is one completion"
    if its_own and not has_file and "schedule" not in plan.training.model_fields_set:
        choices["training.schedule.shape=constant"] = "the rate of MLX-GRPO does not fall"
    if its_own and not has_file and (lora := plan.training.lora) is not None:
        rank = lora.rank if "rank" in lora.model_fields_set else 8
        scale = lora.alpha if "alpha" in lora.model_fields_set else 16
        choices[f"training.lora.rank={rank}"] = "the rank of MLX-GRPO's adapters"
        reason = f"MLX-GRPO's adapters are multiplied by --lora-alpha itself ({scale:g})"
        choices[f"training.lora.alpha={scale * rank:g}"] = reason
        for key, value in (("learning_rate", "1e-5"), ("rl.temperature", "0.8")):
            if not any(each.startswith(f"training.{key}=") for each in keys):
                choices[f"training.{key}={value}"] = "MLX-GRPO's own default"
    return choices


def resume_command(plan: Experiment, folder: Path) -> str:
    """Return the command that resumes; where a run folder alone is not trusted, the one that was
    given, with --resume."""
    try:
        refuse_to_resume_unnamed(plan, folder)
    except RunError:
        words = [word for word in sys.argv[1:] if word != "--resume"]
        if not any(word.startswith(("--out", "--adapter")) for word in words):
            words += ["--out", str(folder)]
        return f"toolhone {shlex.join([*words, '--resume'])}"
    return f"toolhone train --resume --out {folder}"


@group.command(
    epilog="Example: toolhone config schema > experiment.schema.json   and in a file: "
    '{"$schema": "./experiment.schema.json"}'
)
def schema() -> None:
    """Print the JSON Schema of an experiment file; editors complete and check from it."""
    print(json.dumps(json_schema(), indent=2))


@group.command(epilog="Example: toolhone config show sft.json training.steps=100", cls=FlagCommand)
def show(
    context: typer.Context, experiment: ExperimentName = None, overrides: Overrides = None
) -> None:
    """Print the resolved experiment: the file with defaults filled in and overrides applied."""
    plan = load_command(context, *experiment_and_keys(context, experiment, overrides))
    known_metrics([name for name in plan.evaluation.metrics or () if not USER_CODE.fullmatch(name)])
    print(json.dumps(plan.model_dump(), indent=2))


@group.command(
    epilog="Example: toolhone config presets   and then: toolhone train calculator model.name=pico"
)
def presets(as_json: AsJson = False) -> None:
    """List the presets: experiments that ship, to be used by name."""
    comments = {name: preset_comment(name) for name in preset_names()}
    if as_json:
        print(json.dumps(comments))
        return
    width = max(map(len, comments))
    for name, comment in comments.items():
        print(f"{name:{width}}  {comment}")
