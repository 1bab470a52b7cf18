"""Whether two values mean the same, a text carries an expected answer, a state is the wanted one.

    same_value("5", 5, ValueShape.of({"type": "number"}))     # True: the schema says number
    answer_credit("815, 816 or 817", "816", [])               # 0.33: three candidates
    compare_states(task, episode).share                       # value by value (`worlds.flat`)

Nothing raises on model output; negation ("not Paris") is not read. Rules: docs/metrics.md.
"""

from __future__ import annotations

import ast
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import islice
from numbers import Real
from typing import Any, Final, cast

from toolhone.episodes.episode import Episode
from toolhone.schema import Json, Task
from toolhone.schema.json_input import is_number
from toolhone.schema.json_schema import find_ref
from toolhone.schema.python_text import parse_python
from toolhone.tools.worlds import flat

MAX_DEPTH = 100
"""Values nested deeper never equal anything."""
MAX_CODE = 20_000
"""Longer Python code (in characters) is compared as text."""
FREE_WORDS, FREE_WORDS_IF_ECHOED = 60, 10
"""Words beside the answer that cost nothing; fewer where the question contains the answer."""
RELATIVE = 1e-9
"""Two numbers that differ by at most this share of the larger are equal."""
SHORTEST_ECHO = 20
"""Characters of a message above which a repetition of it is removed."""

Comparator = Callable[[Json, Json], bool]
"""Whether a predicted value means the same as the expected one; never raises."""

MISSING: Final = object()
"""An argument that was left out."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_EXACT_BELOW = 2.0**53
_MAX_DIGITS = 400
_MAX_BRANCHES = 32
_SPELLING_KEYS = ("enum", "const", "pattern", "format")
_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?|(?<!\.)\.\d+"
_IN_TEXT = re.compile(rf"((?<![\w.)\]])[-−])?[$€£¥]?(?<!\w)(?<!\d\.)({_DIGITS})", re.ASCII)
_ALONE = re.compile(rf"([-−+]?)\s*[$€£¥]?\s*({_DIGITS})\s*%?\.?", re.ASCII)


def _as_list(value: Json) -> list[Json]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return [] if value is None else [value]


@dataclass(frozen=True)
class ValueShape:
    """What a JSON Schema says about one value.

    `branches`: the schema and the parts that it refers to or is composed of. `root` resolves local
    `$ref`s. `default`: the schema's default, or `MISSING`.
    """

    branches: tuple[Mapping[str, Json], ...]
    root: Json
    default: Json

    @staticmethod
    def of(schema: Json, root: Json = None) -> ValueShape:
        """The shape of a schema; `root` is the document that it is a part of, if it is a part."""
        root = schema if root is None else root
        queue, branches = [schema], list[Mapping[str, Json]]()
        for branch in islice(queue, _MAX_BRANCHES):  # the queue grows; a `$ref` may be circular
            if isinstance(branch, Mapping):
                branches.append(branch)
                if isinstance(branch.get("$ref"), str):
                    queue.append(find_ref(root, branch["$ref"]))
                for key in ("anyOf", "oneOf", "allOf"):
                    queue.extend(_as_list(branch.get(key)))
        defaults = (branch["default"] for branch in branches if "default" in branch)
        return ValueShape(tuple(branches), root, next(defaults, MISSING))

    def keyword(self, *names: str) -> list[Json]:
        """The values of these keywords in the schema and its parts."""
        return [branch[name] for branch in self.branches for name in names if name in branch]

    def property(self, name: str) -> ValueShape:
        for properties in self.keyword("properties"):
            if isinstance(properties, Mapping) and name in properties:
                return ValueShape.of(properties[name], self.root)
        return ANYTHING


ANYTHING: Final = ValueShape.of({})


def same_value(got: Json, wanted: Json, shape: ValueShape = ANYTHING, depth: int = 0) -> bool:
    """Whether two values mean the same; symmetric."""
    if depth > MAX_DEPTH:
        return False
    if isinstance(got, Mapping) and isinstance(wanted, Mapping):
        for key in {**wanted, **got}:
            inner = shape.property(key)
            a, b = (side.get(key, inner.default) for side in (got, wanted))
            if a is MISSING or b is MISSING or not same_value(a, b, inner, depth + 1):
                return False
        return True
    if isinstance(got, list | tuple) and isinstance(wanted, list | tuple):
        items = (items for items in shape.keyword("items") if isinstance(items, Mapping))
        inner = ValueShape.of(next(items, {}), shape.root)
        return len(got) == len(wanted) and all(
            same_value(a, b, inner, depth + 1) for a, b in zip(got, wanted, strict=True)
        )
    if isinstance(got, bool) or isinstance(wanted, bool):
        return isinstance(got, bool) and isinstance(wanted, bool) and got == wanted
    if isinstance(got, str) and isinstance(wanted, str):
        as_spelled = partial(unicodedata.normalize, "NFC")
        normal = as_spelled if shape.keyword(*_SPELLING_KEYS) else normal_text
        if normal(got) == normal(wanted):
            return True
    elif got is None or wanted is None:
        return got is None and wanted is None
    kinds = [kind for found in shape.keyword("type") for kind in _as_list(found)]
    read = spelled_number if "number" in kinds or "integer" in kinds else number
    first, second = read(got), read(wanted)
    return first is not None and second is not None and same_number(first, second)


def number(value: Json) -> int | float | None:
    """The value if it is a number and no truth value, else None."""
    return value if is_number(value) else None


def scalar(value: object) -> float | None:
    """The number or truth value that a user's function gave: of Python, NumPy, or a `Decimal`."""
    plain: Any = value
    if getattr(value, "shape", None) == ():
        plain = plain.item()
    if isinstance(plain, Decimal):
        return math.nan if plain.is_nan() else float(plain)
    return cast(float, plain) if isinstance(plain, Real) else None


def spelled_number(value: Json) -> int | float | None:
    """The number, or the number that a text spells in decimal digits, else None."""
    text = value.strip() if isinstance(value, str) else ""
    if not _NUMBER.fullmatch(text):
        return number(value)
    spelled = _decimal(text)
    return None if spelled in (math.inf, -math.inf) else spelled


def _decimal(digits: str) -> int | float:
    whole = digits.lstrip("+-").isdigit() and len(digits) < _MAX_DIGITS
    return int(digits) if whole else float(digits)


def same_number(first: int | float, second: int | float) -> bool:
    """Whether two numbers are equal to `RELATIVE` of the larger; NaN equals NaN.

    Whole numbers must be equal exactly; a float beyond 2^53 is the decimal number that it is
    written as, so 1e16 is not 10^16 + 1.
    """
    both = (first, second)
    missing = [isinstance(one, float) and math.isnan(one) for one in both]
    if any(missing):
        return all(missing)
    if max(map(abs, both)) >= _EXACT_BELOW:
        is_relative = all(isinstance(one, float) for one in both)
    else:
        is_relative = not all(float(one).is_integer() for one in both)
    if is_relative:
        return math.isclose(first, second, rel_tol=RELATIVE)
    exact = [one if isinstance(one, int) else Decimal(repr(one)) for one in both]
    return exact[0] == exact[1]


def same_json(first: Json, second: Json) -> bool:
    """Whether two values are the same, key by key: numbers as `same_number`, and 1 is not true."""
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same_json, first, second))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        same = first.keys() == second.keys()
        return same and all(same_json(first[name], second[name]) for name in first)
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, int | float) and isinstance(second, int | float):
        return same_number(first, second)
    return bool(first == second)


def normal_text(text: str) -> str:
    """Text in NFC, white space trimmed and collapsed, letter case folded."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def same_code(got: Json, wanted: Json) -> bool:
    """Whether two Python programs have the same syntax tree; nothing runs."""
    if not isinstance(got, str) or not isinstance(wanted, str):
        return same_value(got, wanted)
    if got == wanted:
        return True
    first, second = _syntax_tree(got), _syntax_tree(wanted)
    if first is None or second is None:
        return got.strip() == wanted.strip()
    return first == second


def _syntax_tree(code: str) -> str | None:
    """The syntax tree as text without positions, or None where Python cannot parse the code."""
    if len(code) > MAX_CODE:
        return None
    try:
        return ast.dump(parse_python(code.strip()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def carries_answer(text: str, answer: str) -> bool:
    """Whether the text contains the answer: a number by value, else its words.

    A text that lists every number carries every answer; `answer_credit` does not allow that.
    """
    if alone := _ALONE.fullmatch(answer.strip()):
        return any(same_number(_parse_number(alone), found) for found in find_numbers(text))
    words = normal_text(answer)
    return bool(words) and _has_words(normal_text(text), words)


def answer_credit(
    text: str, answer: str, messages: Sequence[str], descriptions: Sequence[str] = ()
) -> float:
    """How much of the text's claim is the answer, in [0, 1].

    A number counts in the last sentence with a number, 1/k among k candidates; numbers of the
    question are no candidates unless it contains the answer. Other answers count as words. Credit
    falls in proportion beyond `FREE_WORDS`. Repetitions of `messages` (the conversation so far) and
    of `descriptions` (of tools) are removed first.
    """
    echoes = [*messages, *descriptions]
    if alone := _ALONE.fullmatch(answer.strip()):
        number = _parse_number(alone)
        # Lines become sentences, without the backslashes of JSON strings.
        plain = (one.strip().replace("\\", "") for one in (text, *echoes))
        said, *others = (re.sub(r"\s*\n\s*", ". ", one) for one in plain)
        claim = remove_echoes(said, others, len(answer))
        sentences = reversed(_SENTENCE_END.split(claim))
        last = next((sentence for sentence in sentences if find_numbers(sentence)), "")
        found = find_numbers(last)
        if not any(same_number(number, one) for one in found):
            return 0.0
        asked = {one for message in messages for one in find_numbers(message)}
        if any(same_number(number, one) for one in asked):
            asked = set()
        wrong = {one for one in found if one not in asked and not same_number(number, one)}
        return min(1.0, FREE_WORDS / len(last.split())) / (1 + len(wrong))
    words = normal_text(answer)
    claim = remove_echoes(text, echoes, len(words))
    if not words or not _has_words(claim, words):
        return 0.0
    if words in _OPPOSITE and _has_words(claim, _OPPOSITE[words]):
        return 0.0
    free = FREE_WORDS
    if any(_has_words(normal_text(message), words) for message in messages):
        free = FREE_WORDS_IF_ECHOED
        exact = answer.strip()  # "shout it: ...": the letter case is what the question lacks
        if not any(_has_words(given, exact) for given in messages) and not _has_words(text, exact):
            return 0.0
    return min(1.0, (free + len(words.split())) / max(1, len(claim.split())))


def remove_echoes(text: str, messages: Sequence[str], longer_than: int = 0) -> str:
    """The normalised text without repeated messages.

    A message of at most `SHORTEST_ECHO` characters counts only where nothing else is left.
    """
    claim = normal_text(text)
    echoes = {echo for message in messages if len(echo := normal_text(message)) > longer_than}
    longest_first = sorted(echoes, key=len, reverse=True)
    for echo in longest_first:
        if len(echo) > SHORTEST_ECHO:
            claim = claim.replace(echo, " ").strip()
    rest = claim
    for echo in longest_first:
        rest = rest.replace(echo, " ")
    return claim if rest.strip() else ""


def _has_words(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def find_numbers(text: str) -> list[int | float]:
    """The numbers in a text; a minus sign counts where it cannot be a dash."""
    return [_parse_number(match) for match in _IN_TEXT.finditer(text)]


def _parse_number(match: re.Match[str]) -> int | float:
    value = _decimal(match[2].replace(",", ""))
    return -value if match[1] in ("-", "−") else value


Place = tuple[str, ...]


@dataclass(frozen=True)
class StateComparison:
    """Places whose value should change, those of them that have the wanted value, and places whose
    value is neither that of the start nor wanted, or was wanted as it was."""

    wanted: frozenset[Place]
    done: frozenset[Place]
    unwanted: frozenset[Place]

    @property
    def share(self) -> float:
        """Wanted changes made / (wanted changes + unwanted ones): the Jaccard index."""
        both = len(self.wanted | self.unwanted)
        return len(self.done) / both if both else 1.0

    @property
    def exact(self) -> bool:
        return self.done == self.wanted and not self.unwanted


def compare_states(task: Task, episode: Episode) -> StateComparison:
    """Compare the state at the end of an episode; without any it is that of the start."""
    start = _start(task)
    first, wanted = flat(start), flat({**start, **(task.expect.state or {})})
    last = flat(start if episode.state is None else episode.state)

    def differing(one: Mapping[Place, Json], other: Mapping[Place, Json]) -> frozenset[Place]:
        both = one.keys() & other.keys()
        return frozenset(
            place
            for place in one.keys() | other.keys()
            if place not in both or not same_json(one[place], other[place])
        )

    changes, missed = differing(first, wanted), differing(last, wanted)
    return StateComparison(changes, changes - missed, missed & differing(first, last))


def wants_change(task: Task) -> bool:
    """Whether the expected state differs from the start."""
    expected, start = task.expect.state, _start(task)
    return expected is not None and flat({**start, **expected}) != flat(start)


def _start(task: Task) -> Mapping[str, Json]:
    return (task.world or {}).get("state") or {}
