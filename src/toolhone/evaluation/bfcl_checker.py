"""The verdict of BFCL's checker on one single-turn entry, without the package.

    check_entry(entry, truth, [ToolCall("math.factorial", {"number": 5})])     # True

`entry` is a line of `BFCL_v4_<category>.json`, `truth` the `ground_truth` of its answer. The rules
are those of bfcl-eval 2026.3.23, quirks included (docs/bfcl.md); of parallel calls, each right
answer takes the first call that fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolhone.episodes.episode import Episode
from toolhone.evaluation.bfcl_literals import java_value, javascript_value
from toolhone.schema import Json, Task, ToolCall
from toolhone.sources.base import Context, Skip
from toolhone.sources.files import FileLine, read_records
from toolhone.sources.scenarios import Answers

Entry = Mapping[str, Json]
PYTHON_TYPES: Mapping[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
JAVA_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("byte", "short", "integer", "long"), int),
    **dict.fromkeys(("float", "double"), float),
    **dict.fromkeys(("Array", "ArrayList", "Queue", "Stack"), list),
    **dict.fromkeys(("HashMap", "Hashtable"), dict),
    **dict.fromkeys(("char", "String", "any"), str),
    "boolean": bool,
    "Set": set,
}
JAVASCRIPT_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("integer", "Bigint"), int),
    **dict.fromkeys(("String", "any"), str),
    "float": float,
    "Boolean": bool,
    "dict": dict,
    "array": list,
}
_LEFT_OUT = ""
"""A choice that says that the parameter may be left out."""
_IGNORED = re.compile(r"[ ,./\-_*^]")


def category_of(identity: str) -> str:
    """`live_simple` of `live_simple_106-63-0`."""
    return re.sub(r"_\d[\d\-]*$", "", identity)


def check_entry(entry: Entry, truth: Json, calls: Sequence[ToolCall]) -> bool:
    """Whether these calls get the entry right; of irrelevance, whether there is none.

    Calls whose arguments are no mapping must be left out before, as a decoder drops them.
    """
    category = category_of(str(entry["id"]))
    if "irrelevance" in category:
        return not calls
    if "relevance" in category:
        return bool(calls)
    if len(calls) != len(truth):
        return False
    functions = {function["name"]: function for function in reversed(entry["function"])}
    if not re.search("parallel|multiple", category):
        return _right_call(entry["function"][0], calls[0], truth[0], category)
    left = list(calls)
    for answer in truth:
        function = functions[next(iter(answer))]
        found = next((c for c in left if _right_call(function, c, answer, category)), None)
        if found is None:
            return False
        left = [call for call in left if call is not found]
    return True


def official_verdicts(path: Path) -> Callable[[Task, Episode], float | None]:
    """A metric for the tasks of a `BFCL_v4_<category>.json`: 1 where the official checker says
    right, else 0; None for tasks that are not of one turn."""
    entries = {str(entry["id"]): entry for _, entry in read_records(path)}
    answers = Answers((), Context("bfcl", path, {}, FileLine(path, 1)))

    def verdict(task: Task, episode: Episode) -> float | None:
        entry = entries.get(task.id)
        if entry is None or "function" not in entry or "multi_turn" in task.id:
            return None
        truth = None
        if "relevance" not in task.id:
            try:
                truth = answers.find(task.id)
            except Skip:
                return None
        return float(check_entry(entry, truth, episode.calls))

    return verdict


def _right_call(function: Entry, call: ToolCall, answer: Entry, category: str) -> bool:
    (choices,) = answer.values()
    schema = function["parameters"]
    if call.name != function["name"]:
        return False
    if any(name not in call.arguments for name in schema["required"]):
        return False
    for name, value in call.arguments.items():
        if name not in schema["properties"] or name not in choices:
            return False
        if not _right_value(value, schema["properties"][name], choices[name], category):
            return False
    return all(name in call.arguments or _LEFT_OUT in given for name, given in choices.items())


def _right_value(value: Json, schema: Entry, choices: Sequence[Json], category: str) -> bool:
    declared, items, types = schema["type"], "", PYTHON_TYPES
    read: Callable[[str, str, str], Json] | None = None
    if "java" in category:
        is_java = "javascript" not in category
        types, read = (JAVA_TYPES, java_value) if is_java else (JAVASCRIPT_TYPES, javascript_value)
    if declared in ("array", "tuple", "Array", "ArrayList"):
        items = schema["items"]["type"]
    if read is not None:
        if type(value) is not str:
            return False
        value = read(value, declared, items)
    elif declared == "float" and type(value) is int:
        value = float(value)
    kind, inner = types[declared], types[items] if items else None
    fits, is_variable = _has_type(value, choices, kind, inner)
    if not fits:
        return False
    if is_variable or kind not in (dict, str, list):
        return value in choices
    if kind is dict:
        return any(_same_object(value, choice) for choice in choices if choice != _LEFT_OUT)
    if kind is list and inner is dict:
        return any(_same_objects(value, choice) for choice in choices)
    if kind is str:
        return _plain(value) in [_plain(choice) for choice in choices if type(choice) is str]
    elements = [_plain(one) for one in value or ()]
    return elements in [[_plain(one) for one in choice] for choice in choices]


def _has_type(
    value: Any, choices: Sequence[Json], kind: type, inner: type | None
) -> tuple[bool, bool]:
    """Whether the type is accepted, and whether the value stands for a variable, whose text is
    compared exactly."""
    elements: Any = value
    named = next((type(choice) for choice in choices if choice != _LEFT_OUT), None)
    is_variable = named is not None and named is not kind
    if type(value) is kind:
        if inner is None:
            return True, is_variable
        for choice in choices:
            if type(choice) is not list or all(
                _has_type(v, choice, inner, None)[0] for v in elements
            ):
                return True, is_variable
        return False, False
    return (True, True) if named is not None and type(value) is named else (False, False)


def _plain(value: Json) -> Json:
    """A text without case, blanks and `,./-_*^`, and with one kind of quotes."""
    return _IGNORED.sub("", value).lower().replace("'", '"') if type(value) is str else value


def _same_object(value: Entry, choice: Entry) -> bool:
    """Whether each key has an accepted value, and every other key may be left out."""
    if not all(
        key in choice and _plain(one) in [_plain(each) for each in choice[key]]
        for key, one in value.items()
    ):
        return False
    return all(key in value or _LEFT_OUT in given for key, given in choice.items())


def _same_objects(values: Sequence[Entry], choice: Sequence[Entry]) -> bool:
    return len(values) == len(choice) and all(
        isinstance(each, Mapping) and _same_object(value, each)
        for value, each in zip(values, choice, strict=True)
    )
