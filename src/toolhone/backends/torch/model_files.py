"""Model folders: transformers models written so that other loaders read them rightly too.

save_model(model, folder)                  # config.json, *.safetensors
skeleton = open_skeleton("path/to/model")  # names and shapes, no weights
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from toolhone.errors import ModelError
from toolhone.runs.run import read_json, write_json


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' own progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def save_model(model: Any, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write a transformers model, with `weights` in place of its own, into an existing folder.

    config.json holds the base of RoPE in both places: transformers 5 reads `rope_parameters`, and
    other loaders read `rope_theta` or take their own default in silence.
    """
    with quiet():
        model.save_pretrained(folder, **({} if weights is None else {"state_dict": dict(weights)}))
    config = read_json(folder / "config.json")
    theta = (config.get("rope_parameters") or {}).get("rope_theta")
    if theta is not None and "rope_theta" not in config:
        write_json(folder / "config.json", config | {"rope_theta": theta})


def open_skeleton(name: str, trust_remote_code: bool = False) -> Any:
    """A transformers causal model without weights: its names, shapes and config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        right = "a model folder has config.json, *.safetensors and tokenizer.json"
        raise ModelError(f"model.name: the folder {name} holds no config.json; {right}")
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        for key in ("quantization", "quantization_config"):  # MLX's own, not transformers'
            if hasattr(config, key):
                delattr(config, key)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"model.name: transformers has no causal model for {name!r} ({reason}); "
            "adapters and checkpoints are named as transformers names its layers"
        ) from None
