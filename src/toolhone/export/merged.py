"""A trained model as a folder for other programs: `export`, and the proof that the folder says what the run says.

    done = export(open_model("runs/first"), Path("out"), To.MERGED)
    done.replay.whole        # every prompt gave the same ids through the run and through the folder

`merged` is a plain transformers folder (weights, tokenizer with chat template, generation config with the dialect's end marks),
`peft` an adapter folder with the tokenizer. Both hold certificate.json. The certificate is made anew from the tokenizer as it was
written; where it does not fit the run's, nothing is left on disk. Nothing is quantised or sent anywhere; MLX and GGUF are not here
yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from toolhone.api import Model, open_model
from toolhone.backends.base import WeightSampler
from toolhone.config.experiment import to_stderr
from toolhone.dialects.probe.certificate import FILE, check_same, open_certified
from toolhone.errors import CapabilityError, RunError, nearest
from toolhone.export.replay import Replay, replay, replay_tasks
from toolhone.models.resolve import ADAPTER, find, resolve_model
from toolhone.runs.run import read_json, whole_folder, write_json, writing
from toolhone.schema import Json
from toolhone.tokenizer import TextTokenizer
from toolhone.training.setup import format_request

LATER = ("mlx", "gguf")
GENERATION = "generation_config.json"


class ExportFormat(StrEnum):
    """What is written."""

    MERGED = "merged"
    """A plain transformers model."""
    PEFT = "peft"
    """An adapter beside its base model."""


@dataclass(frozen=True)
class Export:
    """What was written where, and how the replay ended. `notes` say what other programs have to know."""

    folder: Path
    to: ExportFormat
    files: tuple[str, ...]
    verdict: str
    replay: Replay
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Json]:
        return {
            "folder": str(self.folder),
            "to": self.to.value,
            "files": list(self.files),
            "verdict": self.verdict,
            "replay": self.replay.to_dict(),
            "notes": list(self.notes),
        }


def to_of(word: str) -> ExportFormat:
    """The form of this name; one that is not here is refused in a sentence."""
    known = [to.value for to in ExportFormat]
    if word in known:
        return ExportFormat(word)
    if word.lower() in LATER:
        raise CapabilityError(f"--to {word} is not here yet; what is: {', '.join(known)}")
    raise CapabilityError(
        f"--to {word}: there is no such form{nearest(word, known)}; there are {', '.join(known)}"
    )


def export(
    model: Model,
    out: Path,
    to: ExportFormat = ExportFormat.MERGED,
    overwrite: bool = False,
    tell: Callable[[str], None] = to_stderr,
) -> Export:
    """Write the model into the folder `out`, open that anew, and replay prompts through both."""
    sampler = model.sampler
    if not isinstance(sampler, WeightSampler):
        raise CapabilityError(
            f"{model.name}: the weights of a {type(sampler).__name__} cannot be written; the torch backend's can"
        )
    if to is ExportFormat.PEFT and not sampler.info.has_adapter:
        raise CapabilityError(
            f"{model.name} has no adapter: all its weights were trained; export it with --to merged"
        )
    check_place(out, model.name, overwrite)
    with writing(out), whole_folder(out) as partial:
        model.tokenizer.save(partial)
        _check_written_format(model, partial)
        if to is ExportFormat.PEFT:
            sampler.write_adapter(partial)
        else:
            sampler.write_merged(partial)
            write_json(partial / GENERATION, _generation(partial, model))
        model.certificate.save(partial)
    tell(f"{out} is written; prompts are replayed through it")
    tasks = replay_tasks(model.experiment, tell)
    result = replay(model, _reopened(model, out), tasks)
    files = tuple(sorted(path.name for path in out.iterdir()))
    return Export(
        out, to, files, model.certificate.verdict.value, result, tuple(_notes(model, to, out))
    )


def check_place(out: Path, source: str, overwrite: bool) -> None:
    """Refuse a folder whose contents would be lost, whatever was meant."""
    place = out.resolve()
    if not place.exists():
        return
    if not place.is_dir():
        raise RunError(f"--out {out} is a file; name a folder")
    holds = {path.name for path in place.iterdir()}
    if not holds:
        return
    if not overwrite:
        raise RunError(
            f"--out {out} holds files already; name a new folder, or replace an export with --overwrite"
        )
    plan, _ = find(source, None)
    used = [
        Path(name).resolve() for name in (source, resolve_model(plan), plan.model.adapter or source)
    ]
    inside = any(one == place or place in one.parents for one in used)
    if inside or FILE not in holds or holds & {"experiment.json", "state.json"}:
        raise RunError(
            f"--out {out} holds something else than an export, which --overwrite would delete; name another folder"
        )


def _check_written_format(model: Model, folder: Path) -> None:
    """`DialectError` where the tokenizer and template as written are not those of the model's certificate."""
    written = TextTokenizer.load(folder)
    check_same(
        model.certificate, open_certified(written, format_request(model.experiment))[1], model.name
    )


def _generation(folder: Path, model: Model) -> dict[str, Any]:
    """The generation config as written with the model, ending where the dialect ends a turn."""
    path = folder / GENERATION
    config = read_json(path) if path.is_file() else {}
    return {
        **config,
        "eos_token_id": list(model.tokenizer.stop_ids(model.dialect.stop)),
        "pad_token_id": model.tokenizer.pad_id,
    }


def _reopened(model: Model, out: Path) -> Model:
    """The folder as anybody would open it, in the precision and format of the model."""
    section = model.experiment.model
    same = {"torch_dtype": section.torch_dtype, "device_map": section.device_map}
    asked = {"dialect": section.dialect, "markup": section.markup, "history": section.history}
    plain = type(section).model_fields
    same |= {key: value for key, value in asked.items() if value != plain[key].default}
    if section.template_switches is not None:
        same["template_switches"] = section.template_switches
    return open_model(out, overrides=[f"model.{key}={_word(value)}" for key, value in same.items()])


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _notes(model: Model, to: ExportFormat, out: Path) -> Sequence[str]:
    notes = list(model.certificate.limits)
    if to is ExportFormat.PEFT:
        notes.append(
            f"the adapter belongs to the base model {read_json(out / ADAPTER)['base_model_name_or_path']}"
        )
    if model.dialect.name != "native":
        notes.append(
            f"calls are written in the dialect {model.dialect.name}, not as the folder's chat template writes them: other programs "
            f"have to write prompts so; toolhone serve {out} --dialect {model.dialect.name} does"
        )
    return notes
