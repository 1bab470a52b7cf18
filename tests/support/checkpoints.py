"""Checkpoints whose files are changed on purpose, with a manifest that knows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolhone.runs.run import MANIFEST, checkpoint_files


def write_certificate(checkpoint: Path, certificate: dict[str, Any] | str) -> None:
    """Replace the certificate of a checkpoint, as a run of another format would have it."""
    text = certificate if isinstance(certificate, str) else json.dumps(certificate)
    (checkpoint / "certificate.json").write_text(text)
    if (checkpoint / MANIFEST).is_file():
        (checkpoint / MANIFEST).write_text(json.dumps(checkpoint_files(checkpoint)))
