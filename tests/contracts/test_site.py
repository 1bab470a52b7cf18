"""The documentation as a site: every page has its place, every command its page, and it builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from toolhone.cli.main import VERBS

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "mkdocs.yml"


def pages_of(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    inner = entry.values() if isinstance(entry, dict) else entry
    return [page for one in inner for page in pages_of(one)]  # type: ignore[attr-defined]


def test_every_page_of_the_documentation_is_in_the_navigation() -> None:
    named = {*pages_of(yaml.safe_load(CONFIG.read_text())["nav"])}
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    made = {"index.md", "commands", "decisions"}
    assert {page for page in pages if not page.startswith("decisions/")} == named - made


def test_every_command_has_a_page_with_its_options_and_examples() -> None:
    spec = spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    pages = dict(module.command_pages())
    assert pages.keys() == VERBS.keys()
    assert "| `--fix` | write the data, cleaned, to this file" in pages["doctor"]
    assert re.search(r"^## toolhone data preview$", pages["data"], re.MULTILINE)
    assert "toolhone new desk --tools openapi.json" in pages["new"]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None or find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed (extra docs)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environ)
    assert built.returncode == 0, built.stderr[-2000:]
    assert (tmp_path / "commands" / "train.html").is_file()
