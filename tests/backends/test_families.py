"""From a model folder to an evaluated run for families written by others, and with real tokenizers
where they are present.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from backends.test_torch_models import CONFIGS
from conftest import SHARED
from toolhone.api import evaluate, experiment, open_model, train
from toolhone.data.templates import Templates
from toolhone.evaluation.folder import read_folder
from toolhone.models.pico import pico_folder
from toolhone.sources.files import write_jsonl
from toolhone.training.loop import TrainStatus


def save_model(
    config: PreTrainedConfig, tokenizer_folder: Path, folder: Path, template: bool = True
) -> Path:
    """Random weights with a tokenizer of its own."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    if not template:
        tokenizer.chat_template = None
    sizes = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 4096,
        "n_positions": 4096,
        "sliding_window": None,
    }
    known = {key: value for key, value in sizes.items() if hasattr(config, key)}
    config = type(config).from_dict({**config.to_dict(), **known})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trained_and_evaluated(model: Path, tmp_path: Path, **section: object) -> Path:
    """Three steps and an evaluation, from files; returns the run folder."""
    data = tmp_path / "data.jsonl"
    write_jsonl(data, (row.to_dict() for row in Templates(0).conversations(24)))
    plan = experiment(
        {
            "model": {"name": str(model), **section},
            "data": {"path": str(data), "validation_fraction": 0.3},
            "training": {
                "steps": 3,
                "batch_size": 4,
                "validate_every": 3,
                "validation_samples": 2,
                "max_length": 4096,
            },
            "evaluation": {"num_samples": 2, "max_new_tokens": 8},
        }
    )
    run, ending = train(plan, tmp_path / "run")
    assert ending is TrainStatus.FINISHED
    return run.folder


@pytest.mark.parametrize("family", CONFIGS)
def test_a_model_folder_trains_and_evaluates_and_opens_again(family: str, tmp_path: Path) -> None:
    dialect = {"dialect": "calls", "markup": "plain"} if family == "gpt2" else {}
    model = save_model(
        CONFIGS[family], pico_folder(), tmp_path / "model", template=family != "gpt2"
    )
    folder = trained_and_evaluated(model, tmp_path, **dialect)
    assert len(read_folder(folder / "evaluation").samples) == 2
    written = json.loads((folder / "evaluation/certificate.json").read_text())
    assert written["dialect"]["name"] == ("calls" if family == "gpt2" else "native")
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "exact_match", "valid_format"} <= set(metrics[-1])
    opened = open_model(folder)
    again = evaluate(opened, num_samples=2)
    assert [sample.text for sample in again.samples] == [
        sample.text for sample in read_folder(folder / "evaluation").samples
    ]


@pytest.mark.real
@pytest.mark.parametrize(
    ("tokenizer", "family"), [("qwen3-16k", "qwen3"), ("qwen3", "qwen2"), ("mistral-v3", "mistral")]
)
def test_real_tokenizers_train_and_evaluate(tokenizer: str, family: str, tmp_path: Path) -> None:
    source = SHARED / "tokenizers" / tokenizer
    if not source.is_dir():
        pytest.skip(f"{source} is not here")
    dialect = {"dialect": "json"} if tokenizer == "mistral-v3" else {}
    folder = trained_and_evaluated(
        save_model(CONFIGS[family], source, tmp_path / "model"), tmp_path, **dialect
    )
    assert len(read_folder(folder / "evaluation").samples) == 2
