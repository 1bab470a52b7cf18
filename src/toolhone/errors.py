"""The errors a user may meet, and how they end a command.

    ToolhoneError
    └── UserError            a mistake of the user: one sentence, exit code 2
        ├── ConfigError      the experiment file, or a `key=value` override
        ├── DataError        a data, task or prediction file (names the file and the line)
        ├── ModelError       a model, tokenizer, checkpoint or adapter that cannot be used
        ├── DialectError     a chat template or dialect that cannot write or read calls
        ├── CapabilityError  a backend cannot do what was asked (says what can)
        ├── RunError         a run folder: exists, is not a run, cannot be resumed, disk full
        ├── ServiceError     a service elsewhere: no connection, a limit, a fault on its side
        └── BusyError        the machine had no time for a program; no fault of the program

A message says what was wrong, what was seen, what would be right, and where. Everything else that
escapes is a bug of ours and keeps its traceback. What a *model* does wrong is never an exception:
it is data (`tools.result.ToolStatus`, `dialects.interface.ParseProblem`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple
from unicodedata import is_normalized, normalize


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


class ServiceError(UserError):
    pass


class BusyError(UserError):
    pass


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the known name with the fewest edits from `word`, or an empty
    string when every name is more than a third of the word away, or the word is one letter.

    A name of the same letters in another Unicode form, which looks alike, is told as that."""
    known = list(known)
    same = (n for n in known if n != word and normalize("NFC", n) == normalize("NFC", word))
    if (twin := next(same, None)) is not None:
        form = "NFC" if is_normalized("NFC", twin) else "NFD"
        return f" ({twin!r} has the same letters in another Unicode form, {form})"
    distances = [(edit_distance(word.casefold(), name.casefold()), name) for name in known]
    limit = max(len(word) // 3, int(len(word) > 1))
    if not distances or (best := min(distances))[0] > limit:
        return ""
    return f" (did you mean {best[1]!r}?)"


def edit_distance(a: str, b: str) -> int:
    """Count the insertions, deletions, replacements and swaps of neighbours between two texts."""
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            least = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (x != y))
            if i > 1 and j > 1 and (x, y) == (b[j - 2], a[i - 2]):
                least = min(least, rows[-2][j - 2] + 1)
            row.append(least)
        rows.append(row)
    return rows[-1][-1]


class FindingKind(StrEnum):
    """What can be wrong with training data."""

    UNREADABLE = "a row that cannot be read"
    REFUSED = "a row that its format cannot use"
    REPAIRED = "repaired while reading"
    UNCHECKED = "kept, though something could not be checked"
    UNREAD_KEY = "a key that holds something and is not read"
    NOTHING_TO_LEARN = "nothing to learn from"

    NO_ASSISTANT = "no assistant message"
    EMPTY_TURN = "an assistant turn that says and calls nothing"
    NO_NAME = "a call without a name"
    UNKNOWN_TOOL = "a call of a tool that is not on offer"
    BAD_ARGUMENTS = "arguments that break the tool's schema"
    UNDECLARED_ARGUMENT = "an argument that the tool does not declare"
    NULL_PADDING = "nulls of a merged table"
    TOOL_TWICE = "two different tools of one name"
    RESULT_WITHOUT_CALL = "a tool result without a call"
    CALL_WITHOUT_RESULT = "a call without a result"
    OTHER_FORMAT = "an argument that is not of the format of its schema"
    REORDERED_RESULTS = "results in another order than their calls"
    UNNAMED_RESULTS = "results matched by their order, although some have ids"

    ARGUMENTS_AS_TEXT = "arguments written as JSON text"
    ENCODED_TWICE = "arguments encoded twice"
    ARGUMENTS_NOT_JSON = "arguments that are text and no JSON"

    TYPED_CALL = "a call typed by hand as text"
    STRAY_MARK = "a mark of a call that begins or ends nothing"
    TYPED_RESULT = "a tool result typed by hand as text"
    CONTROL_TEXT = "text that reads as a control token"

    DUPLICATE_ROW = "a row that occurs before"
    NEAR_DUPLICATE = "a row that occurs before in other spelling or with other tools"
    CONFLICT = "different calls for one prompt"
    LEAK = "a held-out prompt that is trained on"
    BENCHMARK = "a question of BFCL"

    CANNOT_RENDER = "a row that the model's format cannot write"
    NO_SUPERVISED = "a row without a token to learn from"
    TOO_LONG = "a row longer than the model takes"
    MAYBE_TOO_LONG = "a row that is probably longer than the limit"
    NO_LIMIT = "no limit to check lengths against"

    NOT_LEARNED = "a turn that is not learned ('weight', 'train', 'loss', ... is 0)"
    LEARNED_IN_PART = "a turn with another weight than 1 in the loss"
    NO_TURN_LEARNED = "a row of which no turn is learned"

    NO_CALLS = "no row calls a tool"
    ONLY_CALLS = "hardly a row answers without a call"
    FEW_CALLS = "hardly a row calls a tool"
    ONE_TOOL = "every row offers exactly one tool"


class Fault(NamedTuple):
    """One fault of a row: `field` is a path inside the row, `right` says what would be right."""

    kind: FindingKind
    field: str
    what: str
    right: str
