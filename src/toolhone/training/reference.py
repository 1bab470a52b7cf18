"""The reference policy: the policy at step 0, kept in the run so that a resumed run has the same
one.

rows = with_pair_references(trainer, rows, run, fresh, progress)    # DPO: RUN/reference.npz
reference = open_reference(trainer, run)                        # GRPO, PPO: RUN/reference/
rows = with_ref_logprobs(rows, reference, temperature)
rows = with_old_logprobs(rows, sampler, trainer, temperature)   # GRPO, PPO: of whole rows
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from toolhone.backends.base import Sampler, Trainer
from toolhone.errors import RunError
from toolhone.rows import Array, Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import Run, writing
from toolhone.training.loop import in_parts

REFERENCE = "reference.npz"


def open_reference(trainer: Trainer, run: Run) -> Sampler:
    """The policy at the start of the run; the trainer's weights are saved as such in a new run.

    Call it before a checkpoint is loaded: in a resumed run the trainer gets the reference weights.
    """
    folder = run.folder / "reference"
    if folder.is_dir():
        trainer.load(folder, optimizer=False)
    else:
        trainer.save(folder, optimizer=False)
    return trainer.snapshot()


def with_ref_logprobs(
    rows: Sequence[Row], reference: Sampler | None, temperature: float
) -> list[Row]:
    """Add `ref_logprobs` float32 [T], the reference's log-probabilities; nothing without one."""
    if reference is None:
        return list(rows)
    return [
        row.with_arrays(ref_logprobs=values)
        for row, values in zip(rows, reference.logprobs(rows, temperature), strict=True)
    ]


def with_group_references(
    groups: Sequence[Sequence[Row]], reference: Sampler | None, temperature: float
) -> list[list[Row]]:
    """`with_ref_logprobs` of groups, in one call, since groups may have tokens in common."""
    flat = iter(with_ref_logprobs([row for own in groups for row in own], reference, temperature))
    return [[next(flat) for _ in own] for own in groups]


def with_old_logprobs(
    groups: Sequence[Sequence[Row]],
    sampler: Sampler,
    trainer: Trainer,
    temperature: float,
    moves: bool = True,
) -> list[list[Row]]:
    """Set `old_logprobs`, which ratios are taken against, to the sampler's for whole rows.

    Those of sampling differ in their last bits with the rows that were sampled at the same time,
    hence with how long tools took; these depend on the rows alone. moves: whether the policy leaves
    the sampler's before the last update on the rows; if not, the array is left out and the loss
    takes its own value. A backend that is not `repeatable` keeps those of sampling.
    """
    rows = [row for own in groups for row in own]
    if moves and trainer.can.repeatable:
        values = sampler.logprobs(rows, temperature)
        rows = [row.with_arrays(old_logprobs=own) for row, own in zip(rows, values, strict=True)]
    elif trainer.can.repeatable:
        names = [row.arrays.keys() - {"old_logprobs"} for row in rows]
        kept = [
            {name: row.arrays[name] for name in own} for row, own in zip(rows, names, strict=True)
        ]
        rows = [replace(row, arrays=own) for row, own in zip(rows, kept, strict=True)]
    flat = iter(rows)
    return [[next(flat) for _ in own] for own in groups]


def with_pair_references(
    trainer: Trainer, rows: Sequence[Row], run: Run, fresh: bool, progress: Progress
) -> list[Row]:
    """Add `ref_logprobs` float32 [T]: those of the policy now in a fresh run, else those stored."""
    path, digest = run.folder / REFERENCE, _digest(rows)
    if fresh:

        def now(part: Sequence[Row]) -> list[Array]:
            return trainer.logprobs(part).result()

        values = in_parts(now, rows, progress, "reference of the pairs")
        joined = np.concatenate(values) if values else np.zeros(0, np.float32)
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        with writing(path):
            with partial.open("wb") as file:
                np.savez(file, reference=joined, rows_sha256=np.array(digest))
            partial.replace(path)
    else:
        values = _read(path, rows, digest)
    return [row.with_arrays(ref_logprobs=one) for row, one in zip(rows, values, strict=True)]


def _digest(rows: Sequence[Row]) -> str:
    """SHA-256 of all ids and masks, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(len(row).to_bytes(8, "little") + row.tokens.tobytes() + row.mask.tobytes())
    return digest.hexdigest()


def _read(path: Path, rows: Sequence[Row], digest: str) -> list[Array]:
    another = "train into another folder"
    try:
        with np.load(path, allow_pickle=False) as stored:
            joined, found = stored["reference"], str(stored["rows_sha256"])
    except FileNotFoundError:
        raise RunError(f"{path}, the reference policy of this run, is missing; {another}") from None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} is damaged ({error}); {another}") from None
    if found != digest:
        raise RunError(f"{path} belongs to other pairs than those of this training; {another}")
    return np.split(joined, np.cumsum([len(row) for row in rows])[:-1])
