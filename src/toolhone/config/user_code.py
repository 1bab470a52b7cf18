"""The user's own code, named in an experiment file: a Python file or an importable module, and a
name in it.

    USER_CODE.fullmatch("mine.py:politeness")     # matches, as "my_package.scores:politeness" does
    politeness = import_callable("mine.py:politeness", Path.cwd(), "a metric")

A file runs once, with all rights of the user, and again after it has changed. Nothing is registered
anywhere."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from toolhone.errors import ConfigError, nearest

USER_CODE = re.compile(
    r"(?:(?P<file>.+\.py)|(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?=:))(?::(?P<name>\w+))?",
    re.DOTALL,
)
"""A text that names code: `file.py`, `file.py:name` or `package.module:name`."""


def import_callable(spec: str, base: Path, what: str) -> Callable[..., Any]:
    """Import what `file.py:name` (relative to `base`) or `package.module:name` names; `what`: as in
    "a metric"."""
    match = USER_CODE.fullmatch(spec)
    if match is None:
        raise ConfigError(
            f"{what} is named 'file.py:function' or 'package.module:function', got {spec!r}"
        )
    if match["module"]:
        module, place = module_of_name(match["module"], what), match["module"]
    else:
        path = base / Path(match["file"]).expanduser()
        module, place = module_in_file(path, what), str(path)
    functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
    known = f"; functions: {', '.join(functions) or 'none'}"
    if match["name"] is None:
        raise ConfigError(f"{what} is named 'file.py:function'; {spec!r} names no function{known}")
    value = getattr(module, match["name"], None)
    if callable(value):
        found: Callable[..., Any] = value
        return found
    classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
    near = nearest(match["name"], [*functions, *classes])
    raise ConfigError(f"{place} has no function {match['name']!r}{near}{known}")


def module_in_file(path: Path, what: str) -> ModuleType:
    """Return the module in this file, which runs once, and again after it has changed; the script
    that is running is not run again."""
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ConfigError(f"{what}: there is no file {path}{nearest(path.name, siblings)}")
    script = sys.modules["__main__"]
    if Path(getattr(script, "__file__", None) or "").resolve() == path.resolve():
        return script
    version = f"{path.resolve()}|{path.stat().st_mtime_ns}".encode()
    name = f"toolhone_own_{path.stem}_{hashlib.blake2b(version, digest_size=8).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(_failure(str(path), error)) from None
    return module


def module_of_name(name: str, what: str) -> ModuleType:
    """Import a module."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            raise ConfigError(
                f"{what}: there is no module {name!r} on Python's path; a file is named as "
                "'file.py:name'"
            ) from None
        raise ConfigError(_failure(name, error)) from None


def _failure(place: str, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == place]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{place} cannot be imported: {type(error).__name__}: {error}{where}"
