"""Every code block of README.md and docs/ runs, shortened, or is listed with the reason why not."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.tinker_server import KEY, close_left_sockets, tinker_server
from toolhone.cli.main import main
from toolhone.config.experiment import experiment_of
from toolhone.config.presets import preset_names
from toolhone.data.templates import Templates
from toolhone.sources.files import write_jsonl
from toolhone.tools.loading import make_registry

ROOT = Path(__file__).parents[2]
NETWORK = "needs the network"
LONG = "trains for minutes; tests/guide"
SERVES = "serves until Ctrl-C; tests/serve"
OUTPUT = "shows output"
EXPERIMENTS = ("tags-by-hand", "structured-calls", "completion-only")
NOT_RUN = {
    "make demo": LONG,
    "make core": NETWORK,
    ". .venv/bin/activate": "sets the path for the commands below it",
    "make test": "runs these tests",
    "./setup.sh": NETWORK,
    "toolhone demo": LONG,
    "toolhone examples": LONG,
    "toolhone train examples/agent": "needs the package openai; tests/agents",
    "toolhone eval runs/agent": "needs the run above it; tests/agents",
    "OPENAI_BASE_URL=": SERVES,
    "toolhone serve": SERVES,
    "toolhone sweep": "trains for minutes; tests/guide/test_study_runs.py",
    "toolhone watch": "serves until Ctrl-C; tests/reports",
    "curl ": SERVES,
    "export TINKER_": "set for the commands below it",
    "LD_PRELOAD=": "loads a library that this machine may lack",
    "toolhone data write mine.json --teacher": "asks a model; tests/cli/test_data.py",
    "python -m pip install": NETWORK,
    "toolhone eval runs/mine": "replays a tool over HTTP; tests/tools/test_tool_cache.py",
    "cp .env.example": "copies a file; tests/cli/test_dotenv.py",
    "you        What is 48 * 17?": OUTPUT,
    **dict.fromkeys(("rows of a batch", "prefix cache (a radix tree)"), "a drawing"),
    "cli  >  guide": "shows an order",
    "rows of a batch": "draws a tree",
    "toolhone eval runs/sft --bfcl": NETWORK,
    "toolhone benchmark": "loads each model in a process of its own; tests/cli/test_benchmark.py",
    "toolhone compare evals/bfcl-base": "needs the command before it",
    "300 tasks in both": OUTPUT,
    "prefix cache (a radix tree)": "shows a layout",
    "Mara buys 7 boxes": OUTPUT,
    **dict.fromkeys(("shop 5:", "files 5:", "calendar 5:", "forecast(", "get_user("), OUTPUT),
    "the two were evaluated in different formats": OUTPUT,
    "def squared_distance": "tests/training/test_losses.py",
    **dict.fromkeys(
        (
            *(
                "toolhone eval Qwen/Qwen3-4B-Instruct-2507 --tasks test_",
                "toolhone eval runs/1 --ta",
            ),
            *(f"toolhone train {one} data.path=train_dataset.csv" for one in EXPERIMENTS),
            *("toolhone score --csv evals/*", "toolhone compare evals/base evals/3 --guard"),
        ),
        "needs a study's tables",
    ),
    **dict.fromkeys(
        (
            "toolhone train completion-only model.name=pico model.adapter=runs/base",
            *("toolhone eval runs/3 --tasks runs/base/", "toolhone score --csv base.csv 1.csv"),
        ),
        "needs the base of 250 steps",
    ),
}
"""Beginnings of command lines and blocks that do not run here, each with the reason."""
ELSEWHERE = {
    "docs/extending.md": "tests/contracts/test_extending.py runs its examples",
    "docs/architecture.md": "tests/contracts/test_architecture.py runs its example",
    "docs/tinker-server.md": "tests/serve/test_tinker_server.py runs its program",
    "docs/mistakes.md": "tests/contracts/test_mistakes.py runs its commands",
}
"""Pages whose commands, and named Python blocks, do not run here."""
SHORT = [
    "training.steps=1",
    "training.batch_size=2",
    "training.gradient_accumulation_steps=1",
    "training.validation_samples=1",
    "evaluation.num_samples=2",
    "evaluation.max_new_tokens=8",
]
"""What `toolhone train` gets here besides; the pages' numbers are those of a whole training."""
GENERATED = ["data.samples=12", "data.max_samples=12"]
RL = ["training.rl.group_size=2", "training.rl.max_completion_length=8"]
OTHER_MODELS = re.compile(r"(?<![\w/])(Qwen/[\w.-]+|MODEL|M|my-model|smollm2)$")
"""Models of the pages, in whose place pico is used."""
ENDS = {"compare": (0, 1, 3), "doctor": (0, 1)}
"""Exit codes of a verb that says what it found."""


class Block(NamedTuple):
    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        page, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        for match in re.finditer(r"^```([^\n]*)\n(.*?)^```", text, re.S | re.M):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match[1], match[2]))
    return found


BLOCKS = blocks()


def is_left_out(text: str) -> bool:
    return text.startswith(tuple(NOT_RUN))


def commands(block: Block) -> list[list[str]]:
    """The words of each command line; those of NOT_RUN are left out."""
    if block.page in ELSEWHERE:
        return []
    lines = block.text.replace("\\\n", " ").splitlines()
    if is_left_out(block.text) and not block.text.startswith(("make", "toolhone", "python", "./")):
        return []
    wanted = [line for line in lines if not is_left_out(line)]
    return [words for line in wanted if (words := shlex.split(line, comments=True))]


def write_files(made: Path) -> None:
    """Write what the pages name: data, tasks, answers, own code."""
    shutil.copytree(ROOT / "examples", made / "examples")
    templates = Templates(0)
    rows = [row.to_dict() for row in templates.conversations(16)]
    for name in ("rows", "train", "calc"):
        write_jsonl(made / f"{name}.jsonl", rows)
    write_jsonl(
        made / "test.jsonl", (r.to_dict() for r in templates.conversations(4, "held_out_fillers"))
    )
    tasks = [task.to_dict() for task in templates.tasks(7, "held_out_fillers")]
    write_jsonl(made / "tasks.jsonl", tasks)
    answers = [{"id": task["id"], "text": json.dumps({"final": "yes"})} for task in tasks]
    write_jsonl(made / "answers.jsonl", answers)
    (made / "results.csv").write_text(
        'query,predicted_text,expected_calls\nHi,a(),"[{""name"": ""a"", ""arguments"": {}}]"\n'
    )
    glaive = {
        "system": "SYSTEM: You are helpful.",
        "chat": "USER: Hi\n\n\nASSISTANT: Hello <|endoftext|>",
    }
    for name in ("glaive.json", "glaive-function-calling-v2.json"):
        (made / name).write_text(json.dumps([glaive]))
    shutil.copy(made / "examples" / "gsm8k" / "train.jsonl", made / "gsm8k.jsonl")
    (made / "mine.py").write_text("def polite(task, episode):\n    return 1.0\n")


def call(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command line, run in this process with nothing typed."""
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with those files, runs and evaluations."""
    folder = tmp_path_factory.mktemp("docs")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train = ["toolhone", "train", "--out", "runs/sft", *SHORT, *GENERATED]
        assert call(train, patch) == 0
        scores = ["evaluation.max_new_tokens=8", "--tasks", "tasks.jsonl", "--out", "evals/base"]
        assert call(["toolhone", "eval", "runs/sft", *scores], patch) == 0
    for name in ("gsm8k", "candidate", "short", "booking", "baked"):
        shutil.copytree(folder / "runs" / "sft", folder / "runs" / name)
    for name in ("calculator", "several-tools"):
        shutil.copytree(folder / "runs" / "sft", folder / "runs" / "examples" / name / "run")
    for name in ("tuned", "released", "maths"):
        shutil.copytree(folder / "evals" / "base", folder / "evals" / name)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    monkeypatch.chdir(copy)
    return copy


def shortened(words: list[str]) -> list[str]:
    """A command line with pico for models that are not here, and few steps."""
    result = [
        OTHER_MODELS.sub("pico", word) if before != "--out" else word
        for before, word in zip(["", *words], words, strict=False)
    ]
    match words[1:]:
        case ["train", *_]:
            files = "data.path=calc.jsonl" in words or "--data" in words
            own = "examples/gsm8k.json" in words
            result += [*SHORT, *([] if files or own else GENERATED)]
            result += ["model.name=pico"] if words[2] in preset_names() else []
            result += RL if "training.method=grpo" in words else []
            result = [w for w in result if not w.startswith("tracking.wandb")]
        case ["data", "build", "--shape", *_]:
            result += ["--rows", "20"] if "--rows" not in result else []
            result = ["20" if word == "8000" else word for word in result]
        case ["data", "build", *_]:
            result += ["--train", "8", "--held-out", "4", "--tasks", "4"]
        case ["eval", *_]:
            result += ["evaluation.max_new_tokens=8"]
    return result


SHELL = [block for block in BLOCKS if not block.kind and commands(block)]
PYTHON = [block for block in BLOCKS if block.kind == "python" and not is_left_out(block.text)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Tinker server of ours."""
    with tinker_server("pico", tmp_path_factory.mktemp("service")) as url:
        yield url
    close_left_sockets()


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_line_of_the_pages_runs(
    block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if block.page == "docs/data.md":
        shutil.copy("gsm8k.jsonl", "train.jsonl")
    if "model.backend=mlx" in block.text:
        pytest.importorskip("mlx_lm", reason="the extra mlx is not installed")
    if "model.backend=tinker" in block.text:
        pytest.importorskip("tinker", reason="needs the package tinker, the SDK")
        monkeypatch.setenv("TINKER_API_KEY", KEY)
        monkeypatch.setenv("TINKER_BASE_URL", request.getfixturevalue("service"))
    for words in commands(block):
        assert words[0] == "toolhone", f"{block}: {words} is neither run nor in NOT_RUN"
        line = shortened(words)
        if words[1] == "train":
            out = Path(line[line.index("--out") + 1]) if "--out" in line else None
            name = next((Path(w).stem for w in line[2:3] if "=" not in w and w[0] != "-"), "sft")
            shutil.rmtree(out or folder / "runs" / name, ignore_errors=True)
        for name in ("--out", "--fix", "--to"):
            if name in line and words[1] not in ("train", "export"):
                old = Path(line[line.index(name) + 1])
                shutil.rmtree(old, ignore_errors=True)
                old.unlink(missing_ok=True) if old.is_file() else None
        assert call(line, monkeypatch) in ENDS.get(words[1], (0,)), f"{block}: {line}"


@pytest.mark.parametrize("block", [one for one in PYTHON if one.page != "README.md"], ids=str)
@pytest.mark.usefixtures("folder")
def test_every_python_block_of_the_pages_runs(block: Block) -> None:
    if block.page == "docs/data.md":
        shutil.copy("gsm8k.jsonl", "train.jsonl")
        subprocess.run(["gzip", "-kf", "train.jsonl"], check=True)
        shutil.rmtree("glaive.jsonl", ignore_errors=True)
    exec(compile(block.text, str(block), "exec"), {"__name__": "page"})


def test_the_example_of_the_readme_runs_as_saved(folder: Path) -> None:
    (block,) = [each for each in PYTHON if each.page == "README.md"]
    assert 'steps": 120' in block.text
    short = '"training": recipe, "evaluation": {"max_new_tokens": 8}'
    text = block.text.replace('"steps": 120', '"steps": 2').replace('"training": recipe', short)
    (folder / "area.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "area.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Score(") == 1, "the script ran once"
    assert len((folder / "runs" / "area" / "metrics.jsonl").read_text().splitlines()) < 10


def test_json_blocks_are_json_and_experiments_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tools.json").write_text('[{"name": "area"}]')
    for block in BLOCKS:
        if not block.kind.startswith("json"):
            continue
        try:
            values = json.loads(block.text)
        except ValueError:
            values = [json.loads(line) for line in block.text.splitlines()]
        if isinstance(values, dict) and "reward" in values and block.page == "docs/rewards.md":
            values = {"training": {"method": "grpo", "rl": values}}
        if isinstance(values, dict) and values.keys() & {"training", "tracking", "data", "model"}:
            experiment_of(values, str(block))
        elif isinstance(values, dict) and block.page == "docs/tools.md" and "mcp" not in block.text:
            make_registry(values["tools"], ROOT, ())


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.json")), ids=lambda p: p.stem)
def test_the_experiments_of_examples_run_as_they_stand(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.parent.name == "agent":
        pytest.importorskip("openai", reason="the agent of this example needs the package openai")
    monkeypatch.chdir(tmp_path)
    sizes = ["data.max_samples=24"] if path.stem in ("booking", "desk") else []
    words = ["toolhone", "train", str(path), "--out", "run", *SHORT, *sizes]
    assert call(words, monkeypatch) == 0
    assert (tmp_path / "run" / "evaluation" / "metrics.json").is_file()


def test_every_block_runs_or_is_listed() -> None:
    run = {*SHELL, *PYTHON}
    for block in BLOCKS:
        named = block.page in ELSEWHERE
        listed = is_left_out(block.text)
        assert block in run or named or listed or block.kind.startswith("json"), str(block)
    for start in NOT_RUN:
        lines = [line for block in BLOCKS for line in block.text.splitlines()]
        assert any(line.startswith(start) for line in lines), f"{start!r} is in no page"
