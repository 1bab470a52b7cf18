"""`toolhone check` and `setup.sh`: what is missing is found and said with its remedy; only what is
needed makes the exit code 1.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from toolhone.cli import env_report as machine
from toolhone.cli.env_report import CheckState, EnvFinding, look
from toolhone.cli.main import main
from toolhone.errors import CapabilityError
from toolhone.tools.sandbox import Sandbox

SETUP = Path(__file__).parents[2] / "setup.sh"


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["toolhone", "check", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), capsys.readouterr().out


def found(name: str) -> EnvFinding:
    return next(finding for finding in look() if finding.what == name)


def versions(monkeypatch: pytest.MonkeyPatch, **changed: str | None) -> None:
    """Let packages have another version, or none."""
    real = metadata.version

    def version(name: str) -> str:
        said = changed[name] if name in changed else real(name)
        if said is None:
            raise metadata.PackageNotFoundError(name)
        return said

    monkeypatch.setattr(metadata, "version", version)


def test_a_sound_machine_passes_and_nothing_touches_the_network(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    code, out = run(capsys, monkeypatch, "--json")
    said = json.loads(out)
    assert code == 0
    assert said["ok"] is True
    assert {
        "python",
        "toolhone",
        "torch",
        "transformers",
        "processor",
        "cache",
        "model hub",
        "sandbox",
    } <= {finding["what"] for finding in said["findings"]}
    assert set(said["findings"][0]) == {"what", "state", "found", "advice"}


def test_the_table_ends_with_what_to_do_next(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out = run(capsys, monkeypatch)
    assert code == 0
    assert out.splitlines()[-1].startswith("Everything that is needed is there.")
    assert "toolhone demo" in out


def test_every_package_that_the_project_needs_is_looked_at() -> None:
    needed = {
        line.split(";")[0].split(">")[0].strip()
        for line in metadata.requires("toolhone") or []
        if "extra ==" not in line
    }
    assert needed
    assert needed <= {finding.what for finding in look()}


@pytest.mark.parametrize("version", [None, "0.0.1"])
def test_a_package_that_is_missing_or_too_old_is_broken_and_named(
    version: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(monkeypatch, safetensors=version)
    code, out = run(capsys, monkeypatch)
    assert code == 1
    assert "broken: safetensors" in out
    assert "python -m pip install 'safetensors>=" in out


def test_toolhone_itself_may_not_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    finding = found("toolhone")
    assert finding.state is CheckState.BROKEN
    assert "pip install" in finding.advice


def test_an_extra_that_is_missing_is_a_note_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extra = "serve"
    monkeypatch.setattr(
        metadata, "requires", lambda _: ["numpy>=2", f'no-such-package>=1; extra == "{extra}"']
    )
    fields = SimpleNamespace(get_all=lambda _: [extra, "dev"])
    monkeypatch.setattr(metadata, "metadata", lambda _: fields)
    finding = found("extra serve")
    assert finding.state is CheckState.NOTE
    assert finding.found == "not installed: no-such-package"
    assert finding.advice == "if wanted: python -m pip install 'no-such-package>=1'"
    assert "extra dev" not in [finding.what for finding in look()]


def test_the_advice_for_an_extra_is_that_of_this_system(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        f"no-such[part]<2,>=1.5; sys_platform == '{sys.platform}' and extra == 'mlx'",
        "no-such<2,>=1.5; sys_platform == 'elsewhere' and extra == 'mlx'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    monkeypatch.setattr(metadata, "metadata", lambda _: SimpleNamespace(get_all=lambda _: ["mlx"]))
    finding = found("extra mlx")
    assert finding.found == "not installed: no-such[part]"
    assert finding.advice == "if wanted: python -m pip install 'no-such[part]>=1.5'"


def test_a_torch_that_cannot_be_imported_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    states = [finding.state for finding in look() if finding.what == "torch"]
    assert CheckState.BROKEN in states


Card = namedtuple("Card", ["name", "total_memory"])


def fake_torch(cards: list[Card], cuda: str | None) -> SimpleNamespace:
    devices = SimpleNamespace(
        is_available=lambda: bool(cards),
        device_count=lambda: len(cards),
        get_device_properties=lambda index: cards[index],
    )
    return SimpleNamespace(cuda=devices, version=SimpleNamespace(cuda=cuda))


def test_each_card_is_named_with_its_memory() -> None:
    findings = list(
        machine.cuda(fake_torch([Card("A", 80 * 2**30), Card("B", 24 * 2**30)], "13.0"))
    )
    assert [(finding.what, finding.found) for finding in findings] == [
        ("cuda:0", "A, 80 GiB, CUDA 13.0"),
        ("cuda:1", "B, 24 GiB, CUDA 13.0"),
    ]


def test_a_driver_without_a_cuda_build_of_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    (finding,) = machine.cuda(fake_torch([], None))
    assert finding.state is CheckState.NOTE
    assert "build without CUDA" in finding.found
    (finding,) = machine.cuda(fake_torch([], "13.0"))
    assert "nvidia-smi" in finding.advice


def test_a_sandbox_that_does_not_start_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise CapabilityError("the sandbox cannot start")

    monkeypatch.setattr(Sandbox, "run", fail)
    assert found("sandbox").state is CheckState.BROKEN


def test_a_cache_that_cannot_be_written_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOOLHONE_CACHE", str(tmp_path / "file" / "cache"))
    finding = found("cache")
    assert finding.state is CheckState.BROKEN
    assert "TOOLHONE_CACHE" in finding.advice


@pytest.mark.parametrize(
    ("free", "state"),
    [(10**12, CheckState.OK), (10**9, CheckState.NOTE), (10**6, CheckState.BROKEN)],
)
def test_little_room_is_a_note_and_none_is_broken(
    free: int, state: CheckState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert found("folder for runs").state is state


def test_of_the_hub_is_said_what_the_environment_says_and_never_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    finding = found("model hub")
    assert finding.state is CheckState.NOTE
    assert "offline" in finding.found
    assert "HF_TOKEN is set" in finding.found
    assert "secret" not in json.dumps([finding.to_dict() for finding in look()])
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert found("model hub").state is CheckState.OK


def setup(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """setup.sh in a folder of its own, with nothing but a few chosen programs on its path."""
    shutil.copy(SETUP, folder / "setup.sh")
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("dirname", "sed", "rm", "find", "touch", "mkdir"):
        if not (programs / name).exists():
            (programs / name).symlink_to(str(shutil.which(name)))
    command = [str(shutil.which("sh")), str(folder / "setup.sh"), *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={"PATH": str(programs), **environment},
        cwd="/",
        check=False,
    )


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!{shutil.which('sh')}\n{text}\n")
    path.chmod(0o755)
    return path


def test_setup_says_when_there_is_no_python(tmp_path: Path) -> None:
    done = setup(tmp_path)
    assert done.returncode == 2
    assert "needs Python 3.11 or newer, and none was found" in done.stderr


def test_setup_refuses_a_python_that_is_too_old_by_name(tmp_path: Path) -> None:
    old = script(tmp_path / "python3", "exit 1")
    done = setup(tmp_path, PYTHON=str(old))
    assert done.returncode == 2
    assert f"PYTHON={old} is no Python 3.11" in done.stderr


def test_setup_says_when_the_module_venv_is_missing_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    python = script(tmp_path / "python3", 'case "$1" in -m) mkdir -p .venv/bin; exit 1;; esac')
    done = setup(tmp_path, PYTHON=str(python))
    assert done.returncode == 2
    assert "module venv is missing" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_setup_does_not_touch_a_venv_that_is_no_python(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    done = setup(tmp_path)
    assert done.returncode == 2
    assert "remove that folder" in done.stderr
    assert (tmp_path / ".venv").exists()


def fake_venv(folder: Path, check: str = "exit 0") -> None:
    """A `.venv` whose Python and pip note how they are called."""
    (folder / "constraints").mkdir()
    for name in ("pyproject.toml", "constraints/core.txt", "constraints/dev.txt"):
        (folder / name).write_text("")
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    script(programs / "python", 'case "$1" in -m) echo "$@" >> calls;; esac')
    script(programs / "toolhone", check)


def test_setup_installs_once_and_again_after_the_project_changed(tmp_path: Path) -> None:
    fake_venv(tmp_path)
    calls = tmp_path / "calls"
    assert setup(tmp_path).returncode == 0
    assert (
        calls.read_text()
        .splitlines()[0]
        .endswith("--constraint constraints/core.txt --constraint constraints/dev.txt --editable .")
    )
    assert "Already installed" in setup(tmp_path).stdout
    assert len(calls.read_text().splitlines()) == 1
    setup(tmp_path, "--dev")
    assert calls.read_text().splitlines()[1].endswith("--editable .[dev,mlx,tinker]")
    later = (tmp_path / ".venv" / ".installed-core").stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    setup(tmp_path)
    assert len(calls.read_text().splitlines()) == 3


def test_setup_goes_on_without_backends_that_cannot_be_installed(tmp_path: Path) -> None:
    fake_venv(tmp_path)
    note = 'case "$1" in -m) echo "$@" >> calls;; esac; case "$*" in *mlx*) exit 1;; esac'
    script(tmp_path / ".venv" / "bin" / "python", note)
    done = setup(tmp_path, "--dev")
    assert done.returncode == 0
    assert "without the backends MLX and Tinker" in done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in calls] == [".[dev,mlx,tinker]", ".[dev]"]


def test_setup_tells_what_check_found_and_names_the_next_command(tmp_path: Path) -> None:
    fake_venv(tmp_path)
    done = setup(tmp_path)
    assert done.returncode == 0
    assert "toolhone demo" in done.stdout.splitlines()[-1]
    script(tmp_path / ".venv" / "bin" / "toolhone", "exit 1")
    assert setup(tmp_path).returncode == 1


def test_setup_refuses_an_unknown_option_and_explains_itself(tmp_path: Path) -> None:
    done = setup(tmp_path, "--develop")
    assert done.returncode == 2
    assert "'--develop'" in done.stderr
    assert "./setup.sh --dev" in setup(tmp_path, "--help").stdout
