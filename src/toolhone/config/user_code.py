"""Code of the user's own, named in an experiment file: a Python file or an importable module, and a name in it.

    is_own_code("mine.py:politeness")                 # True; so is "my_package.scores:politeness"
    politeness = load_named("mine.py:politeness", Path.cwd(), "a metric")

The file is executed with all rights of the user, once, and again after it has changed. A mistake is a `ConfigError` of one
sentence. What the object must be able to do is up to the caller; nothing is registered anywhere.
"""

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

_FILE = re.compile(r"(?P<file>.+\.py)(?::(?P<name>\w+))?", re.DOTALL)
_MODULE = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>\w+)")


def is_user_code(spec: str) -> bool:
    """Whether a text names code: `file.py`, `file.py:name` or `package.module:name`."""
    return bool(_FILE.fullmatch(spec) or _MODULE.fullmatch(spec))


def file_of(spec: str) -> Path | None:
    """The Python file that a text names, or None for a module."""
    match = _FILE.fullmatch(spec)
    return Path(match["file"]) if match else None


def anchored(spec: str, base: Path) -> str:
    """The text with its file made absolute, relative to `base`; other texts as they are."""
    match = _FILE.fullmatch(spec)
    if match is None:
        return spec
    file = (base / Path(match["file"]).expanduser()).resolve()
    return f"{file}:{match['name']}" if match["name"] else str(file)


def import_callable(spec: str, base: Path, what: str) -> Callable[..., Any]:
    """The callable that `file.py:name` (relative to `base`) or `package.module:name` names; `what` it is for, as in "a metric"."""
    if match := _FILE.fullmatch(spec):
        path = base / Path(match["file"]).expanduser()
        module, place = module_in_file(path, what), str(path)
        if match["name"] is None:
            raise ConfigError(
                f"{what} is named 'file.py:function'; {spec!r} names no function{_functions(module)}"
            )
        return _callable_in(module, match["name"], place)
    if match := _MODULE.fullmatch(spec):
        return _callable_in(module_of_name(match["module"], what), match["name"], match["module"])
    raise ConfigError(
        f"{what} is named 'file.py:function' or 'package.module:function', got {spec!r}"
    )


def module_in_file(path: Path, what: str) -> ModuleType:
    """The module in this file. A file is executed once, and again after it has changed."""
    if not path.is_file():
        siblings = (
            [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        )
        raise ConfigError(f"{what}: there is no file {path}{nearest(path.name, siblings)}")
    version = hashlib.blake2b(
        f"{path.resolve()}|{path.stat().st_mtime_ns}".encode(), digest_size=8
    ).hexdigest()
    name = f"toolhone_own_{path.stem}_{version}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None, path
    assert found.loader is not None, path
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(_failed(str(path), error)) from None
    return module


def module_of_name(name: str, what: str) -> ModuleType:
    """An importable module."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"{what}: there is no module {name!r} on Python's path; a file is named as 'file.py:name'"
            ) from None
        raise ConfigError(_failed(name, error)) from None
    except (Exception, SystemExit) as error:
        raise ConfigError(_failed(name, error)) from None


def _failed(place: str, error: BaseException) -> str:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == place
    ]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{place} cannot be imported: {type(error).__name__}: {error}{where}"


def _callable_in(module: ModuleType, name: str, place: str) -> Callable[..., Any]:
    value = getattr(module, name, None)
    if callable(value):
        found: Callable[..., Any] = value
        return found
    names = [
        key
        for key, other in vars(module).items()
        if inspect.isfunction(other) or inspect.isclass(other)
    ]
    raise ConfigError(f"{place} has no function {name!r}{nearest(name, names)}{_functions(module)}")


def _functions(module: ModuleType) -> str:
    names = [key for key, other in vars(module).items() if inspect.isfunction(other)]
    return f"; functions: {', '.join(names) or 'none'}"
