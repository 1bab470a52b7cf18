"""Exports a trained model as a folder for other programs, and replays prompts through it.

    export(open_model("runs/first"), Path("out"), ExportFormat.MERGED).replay.whole

`merged` is a plain transformers folder, `peft` an adapter folder with the tokenizer; both hold
certificate.json. Where the tokenizer as written does not fit the run's certificate, no folder
remains. Nothing is quantised.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from toolhone.api import Model, open_model
from toolhone.backends.base import WeightSampler
from toolhone.backends.open import stored_dtype
from toolhone.config.experiment import to_stderr
from toolhone.dialects.probe.certificate import FILE, check_same, open_certified
from toolhone.errors import CapabilityError, RunError, nearest
from toolhone.export.replay import Replay, replay, replay_tasks
from toolhone.models.resolve import ADAPTER, find, resolve_model
from toolhone.runs.run import read_json, whole_folder, write_json, writing
from toolhone.schema import Json
from toolhone.tokenizer import TextTokenizer
from toolhone.training.prefill import format_request

LATER = ("mlx", "gguf")
GENERATION = "generation_config.json"
WIDE = "float32"


class ExportFormat(StrEnum):
    """The form of the folder."""

    MERGED = "merged"
    """A plain transformers model."""
    PEFT = "peft"
    """An adapter beside its base model."""


@dataclass(frozen=True)
class Export:
    """The result of an export. `notes` say what other programs need to know."""

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
    """Return the format of this name."""
    known = [to.value for to in ExportFormat]
    if word in known:
        return ExportFormat(word)
    names = ", ".join(known)
    if word.lower() in LATER:
        raise CapabilityError(f"--to {word} is not available yet; available: {names}")
    raise CapabilityError(f"--to {word}: no such format{nearest(word, known)}; formats: {names}")


def export(
    model: Model,
    out: Path,
    to: ExportFormat = ExportFormat.MERGED,
    overwrite: bool = False,
    report: Callable[[str], None] = to_stderr,
) -> Export:
    """Write the model into the folder `out`, open it again, and replay prompts through both."""
    sampler = model.sampler
    if not isinstance(sampler, WeightSampler):
        wrong = f"the weights of a {type(sampler).__name__} cannot be written"
        raise CapabilityError(f"{model.name}: {wrong}; those of torch and MLX can")
    if to is ExportFormat.PEFT and not sampler.info.has_adapter:
        wrong = "has no adapter: all its weights were trained"
        raise CapabilityError(f"{model.name} {wrong}; export it with --to merged")
    check_place(out, model.name, overwrite)
    with writing(out), whole_folder(out) as partial:
        model.tokenizer.save(partial)
        tokenizer = TextTokenizer.load(partial)
        request = format_request(model.experiment, tokenizer, model.certificate)
        written = open_certified(tokenizer, request)[1]
        check_same(model.certificate, written, model.name)
        if to is ExportFormat.PEFT:
            sampler.write_adapter(partial)
        else:
            sampler.write_merged(partial)
            path = partial / GENERATION
            stop_ids = list(model.tokenizer.stop_ids(model.dialect.stop))
            ends = {"eos_token_id": stop_ids, "pad_token_id": model.tokenizer.pad_id}
            write_json(path, (read_json(path) if path.is_file() else {}) | ends)
        model.certificate.save(partial)
    report(f"{out} is written; prompts are replayed through it")
    tasks = replay_tasks(model.experiment, report)
    result = replay(model, _reopen(model, out, to), tasks)
    files, verdict = sorted(path.name for path in out.iterdir()), model.certificate.verdict.value
    return Export(out, to, tuple(files), verdict, result, _notes(model, to, out))


def precision_of_weights(ref: str, checkpoint: str | None = None) -> list[str]:
    """The overrides that open a model for `merged` in the precision that its weights are stored in.

    A run may compute in bfloat16 on a base in float32; merged in bfloat16, W + B A would lose most
    of a small change.
    """
    plan, weights = find(ref, checkpoint)
    model = plan.model
    if model.backend != "torch" or model.torch_dtype == WIDE or model.model_class is not None:
        return []
    whole = weights is not None and (weights / "config.json").is_file()
    stored = stored_dtype(str(weights) if whole else resolve_model(plan), plan.model)
    return [f"model.torch_dtype={WIDE}"] if stored == WIDE else []


def check_place(out: Path, source: str, overwrite: bool) -> None:
    """Refuse a folder that holds anything but an earlier export."""
    place = out.resolve()
    if not place.exists():
        return
    if not place.is_dir():
        raise RunError(f"--out {out} is a file; name a folder")
    holds = {path.name for path in place.iterdir()}
    if not holds:
        return
    if not overwrite:
        right = "name a new folder, or replace an export with --overwrite"
        raise RunError(f"--out {out} holds files already; {right}")
    plan, _ = find(source, None)
    used = (source, resolve_model(plan), plan.model.adapter or source)
    folders = [Path(name).resolve() for name in used]
    inside = any(one == place or place in one.parents for one in folders)
    if inside or FILE not in holds or holds & {"experiment.json", "state.json"}:
        wrong = "holds something else than an export, which --overwrite would delete"
        raise RunError(f"--out {out} {wrong}; name another folder")


def _reopen(model: Model, out: Path, to: ExportFormat) -> Model:
    """Open the folder in the precision and format of the model.

    A merged model opens in torch; an adapter in the backend of its base.
    """
    section = model.experiment.model
    same = {"torch_dtype": section.torch_dtype, "device_map": section.device_map}
    same |= {"backend": section.backend} if to is ExportFormat.PEFT else {}
    chosen = {"dialect": section.dialect, "markup": section.markup, "history": section.history}
    plain = type(section).model_fields
    same |= {key: value for key, value in chosen.items() if value != plain[key].default}
    if section.template_switches is not None:
        same["template_switches"] = section.template_switches
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in same.items()}
    return open_model(out, overrides=[f"model.{key}={word}" for key, word in words.items()])


def _notes(model: Model, to: ExportFormat, out: Path) -> tuple[str, ...]:
    notes, name = list(model.certificate.limits), model.dialect.name
    if to is ExportFormat.PEFT:
        base = read_json(out / ADAPTER)["base_model_name_or_path"]
        notes.append(f"the adapter belongs to the base model {base}")
    elif model.sampler.info.has_adapter and (kept := model.experiment.model.torch_dtype) != WIDE:
        wide = f"opened with model.torch_dtype={WIDE} the model is merged without that"
        notes.append(
            f"weights and adapters were added in {kept}, which loses small changes; {wide}"
        )
    if name != "native":
        wrong = f"calls use the dialect {name}, not the folder's chat template"
        right = f"toolhone chat {out} and toolhone serve {out} do, by its certificate"
        notes.append(f"{wrong}: other programs must write prompts so; {right}")
    return tuple(notes)
