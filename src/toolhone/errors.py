"""The errors a user may meet, and how they end a command.

    ToolhoneError
    └── UserError            a mistake of the user: one sentence, exit code 2
        ├── ConfigError      the experiment file, or a `key=value` override
        ├── DataError        a data, task or prediction file (names the file and the line)
        ├── ModelError       a model, tokenizer, checkpoint or adapter that cannot be used
        ├── DialectError     a chat template or dialect that cannot write or read calls
        ├── CapabilityError  a backend cannot do what was asked (says what can)
        └── RunError         a run folder: exists, is not a run, cannot be resumed, disk full

A message says what was wrong, what was seen, what would be right, and where. Everything else that
escapes is a bug of ours and keeps its traceback. What a *model* does wrong is never an exception:
it is data (`tools.result.ToolStatus`, `dialects.base.ParseProblem`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ToolhoneError(Exception):
    """Root of all errors raised on purpose."""


class UserError(ToolhoneError):
    """A mistake of the user; the command line prints its sentence and exits with code 2."""


class ConfigError(UserError):
    pass


class DataError(UserError):
    pass


class ModelError(UserError):
    pass


class DialectError(UserError):
    pass


class CapabilityError(UserError):
    pass


class RunError(UserError):
    pass


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the known name closest to `word`, or an empty string when none is
    close.
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
