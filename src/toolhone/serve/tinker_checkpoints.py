"""Checkpoints of the Tinker server on disk, and the names they have on the wire.

    tinker://RUN/weights/NAME            trains on; holds the optimizer
    tinker://RUN/sampler_weights/NAME    a snapshot to sample from

Each is a PEFT folder with a `tinker.json`; a folder without one does not count. No name leaves the
root, and nothing that a client sends is unpickled.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from toolhone.errors import DataError, ModelError
from toolhone.runs.run import read_json, write_json, writing
from toolhone.schema import Json

RECORD = "tinker.json"
TYPES = {"weights": "training", "sampler_weights": "sampler"}
_RUN = re.compile(r"[0-9a-f-]{36}:train:\d{1,9}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class TinkerPath:
    """`run` is the id of a model, `kind` weights or sampler_weights."""

    run: str
    kind: str
    name: str

    def __post_init__(self) -> None:
        if not _RUN.fullmatch(self.run) or self.kind not in TYPES:
            raise DataError(f"{self} is no path of this server: tinker://RUN/weights/NAME is one")
        if not _NAME.fullmatch(self.name):
            right = "letters, digits, '.', '_' and '-', at most 128, a letter or digit first"
            raise DataError(f"a checkpoint's name has {right}; got {self.name!r:.140}")

    def __str__(self) -> str:
        return f"tinker://{self.run}/{self.kind}/{self.name}"

    @staticmethod
    def read(text: str) -> TinkerPath:
        parts = text.removeprefix("tinker://").split("/")
        if not text.startswith("tinker://") or len(parts) != 3:
            raise DataError(f"a path is tinker://RUN/weights/NAME, got {text!r:.200}")
        return TinkerPath(*parts)


@dataclass(frozen=True)
class RunRecord:
    """What a model was created with. `seed` draws the adapters."""

    base_model: str
    rank: int
    seed: int = 0
    train_mlp: bool = True
    train_attn: bool = True
    train_unembed: bool = True
    user_metadata: Mapping[str, Json] = field(default_factory=dict)


class Checkpoints:
    """The folder of all checkpoints: ROOT/RUN/KIND/NAME, and ROOT/RUN/tinker.json for each run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with writing(root):
            root.mkdir(parents=True, exist_ok=True)

    def folder(self, path: TinkerPath) -> Path:
        return self.run_folder(path.run) / path.kind / path.name

    def run_folder(self, run: str) -> Path:
        if not _RUN.fullmatch(run):
            raise DataError(f"{run!r:.80} is no id of a training run")
        return self.root / run.replace(":", "_")

    def add_run(self, run: str, record: RunRecord) -> None:
        folder = self.run_folder(run)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / RECORD, {"run": run, "time": _now(), **asdict(record)})

    def run(self, run: str) -> tuple[RunRecord, str]:
        """Return the record of a run, and the time of its creation."""
        file = self.run_folder(run) / RECORD
        if not file.is_file():
            raise ModelError(f"there is no training run {run} here")
        values = read_json(file)
        time = values.pop("time")
        del values["run"]
        return RunRecord(**values), time

    def runs(self) -> list[str]:
        """Return the ids of all runs, newest first."""
        files = [read_json(file) for file in self.root.glob(f"*/{RECORD}")]
        return [each["run"] for each in sorted(files, key=lambda one: str(one["time"]))[::-1]]

    def free(self, path: TinkerPath, overwrite: bool) -> Path:
        """Return the folder for a new checkpoint; `DataError` where there is one already."""
        folder = self.folder(path)
        if (folder / RECORD).is_file() and not overwrite:
            raise DataError(f"{path} exists already; name another, or save with overwrite=True")
        return folder

    def add(self, path: TinkerPath, ttl: int | None, metadata: Mapping[str, Json] | None) -> None:
        """Make a written folder count. `ttl`: seconds until it expires."""
        self._write(path, {"time": _now(), "user_metadata": dict(metadata or {})}, ttl)

    def set_ttl(self, path: TinkerPath, ttl: int | None) -> None:
        record = read_json(self.find(path) / RECORD)
        self._write(path, record, ttl)

    def _write(self, path: TinkerPath, record: dict[str, Json], ttl: int | None) -> None:
        end = None if ttl is None else (datetime.now(UTC) + timedelta(seconds=ttl)).isoformat()
        with writing(self.folder(path)):
            write_json(self.folder(path) / RECORD, {**record, "expires_at": end})

    def find(self, path: TinkerPath) -> Path:
        """Return the folder of a checkpoint; `ModelError` where there is none."""
        folder = self.folder(path)
        if not (folder / RECORD).is_file():
            raise ModelError(f"there is no checkpoint {path} here")
        if (read_json(folder / RECORD)["expires_at"] or "9") < _now():
            self.delete(path)
            raise ModelError(f"the checkpoint {path} has expired")
        return folder

    def delete(self, path: TinkerPath) -> None:
        with writing(self.folder(path)):
            shutil.rmtree(self.folder(path))

    def listed(self, run: str | None = None) -> list[dict[str, Json]]:
        """Return the checkpoints of a run, or of all, as the wire has them, newest first."""
        runs = self.runs() if run is None else [run]
        rows = []
        for each in runs:
            for file in self.run_folder(each).glob(f"*/*/{RECORD}"):
                folder = file.parent
                path, record = TinkerPath(each, folder.parent.name, folder.name), read_json(file)
                row: dict[str, Json] = {
                    "checkpoint_id": f"{path.kind}/{path.name}",
                    "checkpoint_type": TYPES[path.kind],
                    "tinker_path": str(path),
                    "size_bytes": sum(one.stat().st_size for one in folder.iterdir()),
                    "public": False,
                    **record,
                }
                if (record["expires_at"] or "9") >= _now():
                    rows.append(row)
        return sorted(rows, key=lambda row: str(row["time"]))[::-1]


def _now() -> str:
    return datetime.now(UTC).isoformat()
