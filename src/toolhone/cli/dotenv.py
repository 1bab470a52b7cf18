"""Keys from `.env` in the working folder, for those who keep them there.

    for line in load_dotenv(Path.cwd()): print(line, file=sys.stderr)

Lines are `NAME=value`, also `export NAME=value`, with quotes and `#` comments; `$` in a value is a plain character. A variable that
is set already keeps its value, and an empty value sets nothing. Only the working folder is looked at, not those above it. The
command line reads it; the library does not. Values are never shown, logged or put into a run folder, and settings of an experiment
do not belong here.
"""

from __future__ import annotations

import os
from pathlib import Path

from dotenv.parser import parse_stream

NAME = ".env"


def load_dotenv(folder: Path) -> list[str]:
    """Set what `folder/.env` holds and the environment lacks; gives a sentence, without content, for each line it cannot use."""
    path = folder / NAME
    try:
        with path.open(encoding="utf-8-sig") as file:
            bindings = list(parse_stream(file))
    except (FileNotFoundError, IsADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        return [f"{path} was not read: {type(error).__name__}"]
    problems = []
    for binding in bindings:
        if binding.error or (binding.key is not None and binding.value is None):
            text = binding.original.string
            line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            problems.append(f"{path}, line {line}: not NAME=value; the line was not used")
        elif binding.key and binding.value:
            os.environ.setdefault(binding.key, binding.value)
    return problems
