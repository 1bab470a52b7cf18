"""The package that users install: built from a source archive, it checks itself and trains in an
environment of its own.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = """train --out run --iters 20 model.name=pico training.lora=null training.batch_size=4
  data.samples=64
 training.max_length=320 training.validation_samples=2 evaluation.num_samples=2
  evaluation.max_new_tokens=8"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`toolhone` of the built wheel; its packages come from the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    place = folder / "environment"
    venv.create(place, symlinks=True)
    scheme = {"base": str(place), "platbase": str(place)}
    (Path(sysconfig.get_path("purelib", vars=scheme)) / "needs.pth").write_text(
        sysconfig.get_path("purelib")
    )
    python = place / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", str(wheel))
    run(sys.executable, "-m", "pip", "--python", str(python), *install)
    return place / "bin" / "toolhone"


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    """The tests' own, with the programs of its packages (the sandbox is one) and without its
    sources.
    """
    programs = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "PATH": programs}


@pytest.mark.slow
def test_the_installed_wheel_makes_a_project_and_its_data(command: Path, tmp_path: Path) -> None:
    run(str(command), "new", "desk", cwd=tmp_path)
    project = tmp_path / "desk"
    shown = run(str(command), "data", "preview", "sft.json", "data.max_samples=30", cwd=project)
    assert "find_order(order_id='ORD-" in shown
    run(str(command), "data", "write", "sft.json", "--out", "data", cwd=project)
    assert (project / "data" / "tasks.jsonl").stat().st_size


@pytest.mark.slow
def test_the_installed_wheel_checks_itself_and_trains(command: Path, tmp_path: Path) -> None:
    where = run(str(command.parent / "python"), "-c", "import toolhone; print(toolhone.__file__)")
    assert where.startswith(str(command.parents[1]))
    assert json.loads(run(str(command), "check", "--json", cwd=tmp_path))["ok"]
    said = run(str(command), "chat", "--prompt", "What is 48 * 17?", "--no-save", cwd=tmp_path)
    assert "calculator -> 816" in said
    run(str(command), *TRAIN.split(), cwd=tmp_path)
    steps = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert max(line["step"] for line in steps) == 20
    assert (tmp_path / "run" / "evaluation" / "metrics.json").is_file()
