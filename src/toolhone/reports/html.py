"""Write a report as one HTML file that loads nothing from elsewhere.

    write_report(report_data([Path("runs/sft")]), Path("report.html"))

The data are JSON in a block that no browser runs; the page's policy names its script and its style
by their hashes, so that no other script runs and nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from toolhone.runs.run import write_text, writing

_FOLDER = resources.files("toolhone.reports") / "page"
SCRIPTS = ("charts.js", "episodes.js", "main.js")


def render_report(data: Mapping[str, Any], live: bool = False) -> str:
    """The page with its data; `live`: it asks its server for newer data."""
    script = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'(() => {{"use strict";\n{script}}})();'
    style = (_FOLDER / "report.css").read_text(encoding="utf-8")
    policy = {
        "default-src": "'none'",
        "script-src": f"'sha256-{_digest(script)}'",
        "style-src": f"'sha256-{_digest(style)}'",
        "connect-src": "'self'" if live else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    parts = {
        "@policy@": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "@style@": style,
        "@data@": encode_data({**data, "live": live}),
        "@script@": script,
    }
    page = (_FOLDER / "report.html").read_text(encoding="utf-8")
    for name, text in parts.items():  # the data may hold any of the names: each occurs once
        before, after = page.split(name, 1) if name != "@script@" else page.rsplit(name, 1)
        page = before + text + after
    return page


def encode_data(data: Mapping[str, Any]) -> str:
    """JSON without any character that could end a block of HTML or begin a tag."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def write_report(data: Mapping[str, Any], out: Path) -> Path:
    """Write the report, whole or not at all."""
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, render_report(data))
    return out


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
