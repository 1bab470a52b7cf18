"""Write the exact versions of the current environment, one file for each extra: `make constraints`.

`core.txt` holds what Toolhone itself needs; `EXTRA.txt` holds what an extra adds to that. pip takes
them with --constraint.
"""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
HEAD = "# Versions that the tests run with. Written by `make constraints`.\n"
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]


def main() -> None:
    core = versions_for(PROJECT["dependencies"])
    write("core", core)
    for extra, requirements in PROJECT["optional-dependencies"].items():
        found = versions_for(requirements)
        write(extra, {name: found[name] for name in found if name not in core})


def versions_for(requirements: list[str]) -> dict[str, str]:
    """Return the installed packages, name to version, that the requirements need."""
    versions: dict[str, str] = {}
    waiting = [(requirement, "") for requirement in map(Requirement, requirements)]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for part in {"", *requirement.extras} - {part for known, part in seen if known == name}:
            seen.add((name, part))
            if name == "toolhone":
                needs = PROJECT["optional-dependencies"].get(part, [])
            else:
                package = metadata.distribution(name)
                versions[name] = package.version.partition("+")[0]
                needs = package.requires or []
            waiting += [(need, part) for need in map(Requirement, needs)]
    return versions


def write(name: str, versions: dict[str, str]) -> None:
    lines = "".join(f"{package}=={versions[package]}\n" for package in sorted(versions))
    (HERE / f"{name}.txt").write_text(HEAD + lines)


if __name__ == "__main__":
    main()
