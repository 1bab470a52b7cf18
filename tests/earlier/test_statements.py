"""The table of what the four earlier systems promise: it is whole, each check is a test that
exists, and the page for their users names everything.
"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import SHARED
from earlier.conftest import Shell
from toolhone.config.experiment import load_experiment
from toolhone.dialects.choose import open_dialect
from toolhone.models.pico import pico_folder
from toolhone.tokenizer import TextTokenizer
from toolhone.training.dataset import load_data

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/coming-from.md"
FACTS = SHARED.parent / "facts" / "statements.md"
SYSTEMS = {"000": "A", "001": "B", "002": "B2", "003": "C", "004": "D"}
SUBJECTS = (
    "The same recipe everywhere",
    "Worlds, teachers",
    "Proof: official scores",
    "A real model",
)
CONSTANTS = {
    "sft-json": {
        "BASE_MODEL": ("model.name", "Qwen/Qwen3-4B-Instruct-2507"),
        "LORA_RANK": ("training.lora.rank", 32),
        "BATCH_SIZE": ("training.batch_size", 8),
        "LEARNING_RATE": ("training.learning_rate", 5e-5),
        "NUM_STEPS": ("training.steps", 800),
        "MAX_LENGTH": ("training.max_length", 512),
        "GRADIENT_ACCUMULATION_STEPS": ("training.gradient_accumulation_steps", 1),
        "CHECKPOINT_INTERVAL": ("training.save_every", 200),
        "LOG_INTERVAL": ("training.log_every", 50),
        "VALIDATION_INTERVAL": ("training.validate_every", 200),
        "VALIDATION_SAMPLES": ("training.validation_samples", 50),
    },
    "ppo-json": {
        "BASE_MODEL": ("model.name", "Qwen/Qwen3-4B-Instruct-2507"),
        "RL_LEARNING_RATE": ("training.learning_rate", 1e-5),
        "BATCH_SIZE": ("training.batch_size", 8),
        "NUM_STEPS": ("training.steps", 500),
        "MAX_TOKENS": ("training.rl.max_completion_length", 128),
        "TEMPERATURE": ("training.rl.temperature", 1.0),
        "SAMPLER_REFRESH_INTERVAL": ("training.rl.sampler_refresh_every", 10),
        "LOG_INTERVAL": ("training.log_every", 10),
        "CHECKPOINT_INTERVAL": ("training.save_every", 100),
    },
}


@dataclass(frozen=True)
class Statement:
    """A line of the table."""

    id: str
    promise: str
    state: str
    here: str
    check: str


def statements() -> list[Statement]:
    lines = (ROOT / "tests/earlier/statements.md").read_text(encoding="utf-8").splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("| ")]
    return [Statement(*(cell.strip().strip("`") for cell in row)) for row in cells[1:]]


STATEMENTS = statements()


def test_every_statement_has_one_id_and_a_state_with_what_belongs_to_it() -> None:
    assert len({each.id for each in STATEMENTS}) == len(STATEMENTS) > 340
    for each in STATEMENTS:
        kind, _, why = each.state.partition(": ")
        assert kind in ("works", "differs", "open"), each
        assert (kind == "works") == (not why), each
        assert (kind == "open") == (each.check == "-"), each
        assert kind != "open" or any(subject in why for subject in SUBJECTS), each


def test_every_check_is_a_test_that_exists() -> None:
    named = {each.check for each in STATEMENTS if each.check != "-"}
    missing = []
    for check in sorted(named):
        file, _, name = check.partition("::")
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        missing += [check] if f"\ndef {name}(" not in text else []
    assert not missing


def test_the_table_has_every_statement_of_the_facts() -> None:
    if not FACTS.is_file():
        pytest.skip("shared/facts/statements.md is not here")
    theirs = re.findall(r"^\| (00\d)\.(\d+) \|", FACTS.read_text(encoding="utf-8"), re.M)
    ids = [each.id for each in STATEMENTS if "." in each.id and ":" not in each.id]
    assert ids == [f"{SYSTEMS[system]}.{number}" for system, number in theirs]


def test_the_page_names_everything_of_the_four_systems() -> None:
    page = PAGE.read_text(encoding="utf-8")
    names = [each.id.partition(":")[2] for each in STATEMENTS if ":" in each.id]
    groups = r"^(row|case|summary|comparison|column|result|training|data|wandb|tensorboard)\."
    words = [re.sub(groups, "", name).removeprefix("tools[]").split()[-1] for name in names]
    assert not [word for word in words if word not in page]


def test_the_tables_of_the_page_are_those_of_the_program() -> None:
    path = ROOT / "benchmarks/coming_from.py"
    spec = importlib.util.spec_from_file_location("coming_from", path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    page = PAGE.read_text(encoding="utf-8")
    assert page == program.filled(page), "write them anew: python benchmarks/coming_from.py"


@pytest.mark.parametrize("preset", CONSTANTS)
def test_every_default_of_the_json_system_is_that_of_its_preset(preset: str) -> None:
    plan = load_experiment(Path(preset), [], tell=lambda _: None).model_dump()
    for name, (key, wanted) in CONSTANTS[preset].items():
        found = plan
        for part in key.split("."):
            found = found[part]
        assert found == wanted, name


@pytest.mark.parametrize("preset", CONSTANTS)
def test_no_task_of_the_json_presets_wants_two_calls(preset: str) -> None:
    plan = load_experiment(Path(preset), ["data.samples=200"], tell=lambda _: None)
    data = load_data(plan)
    assert len(data.tasks) >= 20
    assert all(len(task.expect.wanted) <= 1 for task in data.tasks)


def test_a_row_of_the_json_presets_trains_one_json_object() -> None:
    plan = load_experiment(
        Path("sft-json"), ["model.name=pico", "data.samples=60"], tell=lambda _: None
    )
    tokenizer = TextTokenizer.load(str(pico_folder(0)))
    dialect = open_dialect(tokenizer, plan.model.dialect, plan.model.markup)
    conversations = load_data(plan).train
    kinds = set()
    for conversation in conversations:
        for spans in dialect.render(conversation):
            trained = "".join(span.text for span in spans if span.trained)
            kinds.add(next(iter(json.loads(trained.removesuffix("<|im_end|>")))))
    assert kinds == {"tool", "final"}


def test_thoughts_with_the_five_rewards_are_refused(shell: Shell) -> None:
    said = shell(
        "train grpo-quick model.name=pico training.rl.enforce_thinking=true data.samples=20 "
        "training.steps=1 --out runs/thinking",
        code=2,
    )
    assert "think" in said


def test_a_mark_that_closes_itself_is_found_and_dropped(shell: Shell) -> None:
    tool = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Do {text}"},
                {"role": "assistant", "content": text},
            ],
            "tools": [{"type": "function", "function": tool}],
        }
        for text in ("<tool_call/>", "</tool_call>", "<tool_call></tool_call>", "It is done.")
    ]
    path = shell.folder / "marks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shell("doctor --data marks.jsonl --fix sound.jsonl", 1)  # most rows are dropped
    assert [row["messages"][-1]["content"] for row in shell.lines("sound.jsonl")] == ["It is done."]


def test_the_licence_is_apache() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
