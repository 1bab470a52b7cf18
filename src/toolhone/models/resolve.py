"""What a model's name means: a run, a checkpoint, a model or PEFT folder, a GGUF file, a hub name,
`smollm2` (a package brings it), or `pico`.

    plan, weights = find("runs/first", None)    # its experiment and the folder of its weights
    base = resolve_model(plan)                  # the folder or hub name of the experiment's model

`pico-trained` ships as files: what the demo makes of pico (benchmarks/ship_pico.py).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from toolhone.config.experiment import make_experiment, run_folder, stored_experiment
from toolhone.config.presets import PICO, PICO_TRAINED
from toolhone.config.sections import Experiment
from toolhone.dialects.probe.certificate import Certificate
from toolhone.errors import ConfigError, ModelError, RunError
from toolhone.models.gguf_file import PACKAGED, converted, gguf_of, packaged
from toolhone.models.pico import pico_folder
from toolhone.runs.run import Run, changed_file, read_json

ADAPTER = "adapter_config.json"
_RIGHT = (
    "give a model folder, a hub name such as Qwen/Qwen3-0.6B, a .gguf file, pico, pico-trained, or "
    f"one of the packaged models ({', '.join(PACKAGED)})"
)


def adapter_of(plan: Experiment) -> Path | None:
    """Return the PEFT folder that the model starts from; None for a full model."""
    folder = _start(plan)
    if folder is None or _is_whole(folder):
        return None
    if plan.training.lora is None and (folder / ADAPTER).is_file():
        wrong = f"{folder} is a LoRA folder with its own settings, but training.lora is null"
        raise ConfigError(f"model.adapter: {wrong}; leave that out")
    return folder


def resolve_model(plan: Experiment) -> str:
    """Return the folder or hub name of the experiment's model; make `pico` if needed.

    A run or checkpoint of full training in `model.adapter` is the model itself.
    """
    start, name = _start(plan), plan.model.name
    if start is not None and _is_whole(start):
        return str(start)
    if name == PICO:
        return str(pico_folder(plan.seed))
    if name == PICO_TRAINED:
        return str(resources.files("toolhone.models") / "pico_trained")
    if name in PACKAGED:
        return str(converted(packaged(name)))
    if Path(name).is_file():
        return str(converted(gguf_of(Path(name))))
    if not Path(name).exists() and not _may_be_on_the_hub(name):
        raise ModelError(f"model.name: no model at {name!r}; {_RIGHT}")
    return name


def _start(plan: Experiment) -> Path | None:
    """Return the folder of `model.adapter`; for a run, its checkpoint."""
    if plan.model.adapter is None:
        return None
    folder = Path(plan.model.adapter)
    is_run = (folder / "experiment.json").is_file()
    return Run.open(folder).whole_checkpoint() if is_run else folder


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint holds all weights, not an adapter."""
    return (folder / "config.json").is_file() and not (folder / ADAPTER).is_file()


def _may_be_on_the_hub(name: str) -> bool:
    """Whether a name looks like `owner/model`; with a folder `runs`, `runs/mine` is a path."""
    owner, _, model = name.partition("/")
    named = owner and model and "/" not in model and not name.startswith((".", "~"))
    return bool(named) and not Path(owner).is_dir()


def find(ref: str, checkpoint: str | None) -> tuple[Experiment, Path | None]:
    """Return the experiment of a reference and the folder of its trained weights, if it has any."""
    path = Path(ref)
    state = path / "state.json"
    if state.is_file():
        if (fault := changed_file(path)) is not None:
            raise RunError(f"{ref} cannot be used: {fault}")
        return stored_experiment(read_json(state).get("experiment", {}), str(state)), path
    if (path / "experiment.json").is_file():
        run = Run.open(path)
        return run.experiment, run.whole_checkpoint(checkpoint)
    if checkpoint is not None:
        wrong = f"{ref} is no run folder (it holds no experiment.json)"
        raise RunError(f"--checkpoint names a checkpoint of a run, but {wrong}")
    shipped = ref in (PICO, PICO_TRAINED, *PACKAGED)
    if not shipped and not path.exists() and not _may_be_on_the_hub(ref):
        raise ModelError(f"no model or run at {ref!r}; {_RIGHT}, or a run or checkpoint")
    if (path / ADAPTER).is_file():
        base = read_json(path / ADAPTER).get("base_model_name_or_path") or ""
        return make_experiment({"model": {"name": base, "adapter": ref}}, str(path / ADAPTER)), None
    return make_experiment({"model": {"name": ref}}, "the command line"), None


def trained_format(plan: Experiment, weights: Path | None = None) -> Certificate | None:
    """Return the certificate of the format that the weights were trained in, if it is known.

    It is beside the weights, or else in their run.
    """
    for folder in (weights, adapter_of(plan), Path(resolve_model(plan))):
        if folder is not None and folder.is_dir():
            found = Certificate.read(folder) or Certificate.read(run_folder(folder))
            if found is not None:
                return found
    return None
