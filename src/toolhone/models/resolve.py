"""What a model's name stands for: a run, a checkpoint, a model or PEFT folder, a name on the hub, or `pico`.

    plan, weights = find("runs/first", None)      # its experiment, and the folder of its trained weights
    base = resolve_model(plan)                    # the folder or hub name of the model that the experiment names
    trained = trained_format(weights)             # the certificate of the format it was trained in

Nothing is loaded here but small JSON files.
"""

from __future__ import annotations

from pathlib import Path

from toolhone.config.experiment import make_experiment
from toolhone.config.presets import PICO
from toolhone.config.sections import Experiment
from toolhone.config.trust import run_folder
from toolhone.dialects.probe.certificate import Certificate
from toolhone.errors import ConfigError, ModelError, RunError
from toolhone.models.pico import pico_folder
from toolhone.runs.run import Run, read_json

ADAPTER = "adapter_config.json"


def adapter_of(plan: Experiment) -> Path | None:
    """The PEFT folder that the model starts from; of a run, its checkpoint. None where it starts from a whole model."""
    folder = _start(plan)
    if folder is None or _is_whole(folder):
        return None
    if plan.training.lora is None and (folder / ADAPTER).is_file():
        raise ConfigError(
            f"model.adapter: {folder} is a LoRA folder, which brings its own settings, but training.lora is null; leave that out"
        )
    return folder


def _start(plan: Experiment) -> Path | None:
    """The folder that `model.adapter` names; of a run, its checkpoint."""
    if plan.model.adapter is None:
        return None
    folder = Path(plan.model.adapter)
    return Run.open(folder).checkpoint() if (folder / "experiment.json").is_file() else folder


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint holds every weight, and not an adapter."""
    return (folder / "config.json").is_file() and not (folder / ADAPTER).is_file()


def resolve_model(plan: Experiment) -> str:
    """The folder or hub name of the experiment's model; `pico` is made when it is not there yet.

    Where `model.adapter` names a run or checkpoint of full training, that is the model.
    """
    start = _start(plan)
    if start is not None and _is_whole(start):
        return str(start)
    name = plan.model.name
    if name == PICO:
        return str(pico_folder(plan.seed))
    if not Path(name).exists() and not _may_be_on_the_hub(name):
        raise ModelError(
            f"model.name: no model at {name!r}; give a model folder, a hub name such as Qwen/Qwen3-0.6B, or 'pico'"
        )
    return name


def _may_be_on_the_hub(name: str) -> bool:
    """Whether a name that is no path here looks like `owner/model`; `runs/mine` beside a folder `runs` is a path with a mistake."""
    parts = name.split("/")
    return (
        len(parts) == 2
        and all(parts)
        and not name.startswith((".", "~"))
        and not Path(parts[0]).is_dir()
    )


def find(ref: str, checkpoint: str | None) -> tuple[Experiment, Path | None]:
    """The experiment that a reference belongs to, and the folder of its trained weights (None: the model as it is)."""
    path = Path(ref)
    if (path / "state.json").is_file():
        return make_experiment(
            read_json(path / "state.json").get("experiment", {}), str(path / "state.json")
        ), path
    if (path / "experiment.json").is_file():
        run = Run.open(path)
        return run.experiment, run.checkpoint(checkpoint)
    if checkpoint is not None:
        raise RunError(
            f"--checkpoint names a checkpoint of a run, but {ref} is no run folder (it holds no experiment.json)"
        )
    if ref != PICO and not path.exists() and not _may_be_on_the_hub(ref):
        raise ModelError(
            f"no model or run at {ref!r}; give a run folder, a checkpoint, a model folder, a hub name or 'pico'"
        )
    if (path / ADAPTER).is_file():
        base = read_json(path / ADAPTER).get("base_model_name_or_path") or ""
        return make_experiment({"model": {"name": base, "adapter": ref}}, str(path / ADAPTER)), None
    return make_experiment({"model": {"name": ref}}, "the command line"), None


def trained_format(plan: Experiment, weights: Path | None = None) -> Certificate | None:
    """The certificate of the format that the weights were trained in; None where nobody noted it (a published model, say).

    It lies beside the weights that are used (of a checkpoint, an adapter or a model folder), else in their run.
    """
    for folder in (weights, adapter_of(plan), Path(resolve_model(plan))):
        if folder is not None and folder.is_dir():
            found = Certificate.read(folder) or Certificate.read(run_folder(folder))
            if found is not None:
                return found
    return None
