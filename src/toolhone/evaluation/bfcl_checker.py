"""The verdict of BFCL's checker on one single-turn entry, without the package.

    check_entry(entry, truth, [ToolCall("math.factorial", {"number": 5})])     # True
    java_value("new int[]{1, 2}", "Array", "integer")                          # [1, 2]

`entry` is a line of `BFCL_v4_<category>.json`, `truth` the `ground_truth` of its answer. The rules
are those of bfcl-eval 2026.3.23 (Apache-2.0), quirks included (docs/bfcl.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolhone.episodes.episode import Episode
from toolhone.schema import Json, Task, ToolCall
from toolhone.sources.files import FileLine, read_records
from toolhone.sources.scenarios import Answers
from toolhone.sources.source import Context, Skip

_WHOLE, _DECIMAL = r"-?\d+", r"-?\d+(\.\d+)?([eE][+-]?\d+)?"
_JAVA_NUMBERS: dict[str, tuple[str, Callable[[str], Json]]] = {
    **dict.fromkeys(("byte", "short", "integer"), (_WHOLE, int)),
    "long": (rf"{_WHOLE}[lL]", lambda text: int(text.rstrip("lL\n"))),
    "float": (rf"{_DECIMAL}[fF]", lambda text: float(text.rstrip("fF\n"))),
    "double": (_DECIMAL, float),
}
_JAVASCRIPT_NUMBERS: dict[str, tuple[str, Callable[[str], Json]]] = {
    "integer": (_WHOLE, int),
    "float": (r"-?\d+(\.\d+)?", float),
    "Bigint": (rf"{_WHOLE}n", lambda text: int(text.rstrip("n\n"))),
}
_ROW = r"\[\s*\[.*?\]\s*(,\s*\[.*?\]\s*)*\]|\bnew\s+Array\(\s*\[.*?\]\s*(,\s*\[.*?\]\s*)*\)"
_QUOTES = ("'", '"')


def java_value(text: str, declared: str, items: str = "") -> Json:
    """A literal of a Java type; `items` is the type of a collection's elements."""
    if declared in _JAVA_NUMBERS:
        return _number(text, *_JAVA_NUMBERS[declared])
    if declared == "boolean" and text in ("true", "false"):
        return text == "true"
    if declared == "ArrayList":
        listed = re.search(r"new\s+ArrayList<\w*>\(Arrays\.asList\((.+?)\)\)", text)
        added = re.search(r"new\s+ArrayList<\w*>\(\)\s*\{\{\s*(.+?)\s*\}\}", text, re.DOTALL)
        if listed:
            parts = listed[1].split(",")
        elif added:
            parts = re.findall(r"add\((.+?)\)", added[1])
        else:
            return [] if re.search(r"new\s+ArrayList<\w*>\(\)", text) else text
        quoted = items in ("char", "String")
        parts = [part.strip() for part in parts]
        return [part[1:-1] if quoted else _java_element(part, items) for part in parts]
    if declared == "Array":
        found = re.search(r"new\s+\w+\[\]\s*\{(.*?)\}", text)
        parts = found[1].split(",") if found else []
        elements = [_java_element(part.strip(), items) for part in parts if part.strip()]
        return elements if found else text
    filled = r"new\s+HashMap<.*?>\s*\(\)\s*\{\s*\{?\s*(.*?)\s*\}?\s*\}"
    if declared == "HashMap" and (found := re.search(filled, text, re.DOTALL)):
        pairs = re.findall(r"put\(\"(.*?)\",\s*(.*?)\)", found[1])
        return {key: _java_untyped(value.strip()) for key, value in pairs}
    is_empty = declared == "HashMap" and re.search(r"new\s+HashMap<.*?>\s*\(\)", text)
    return {} if is_empty else text


def _number(text: str, pattern: str, read: Callable[[str], Json]) -> Json:
    return read(text) if re.match(rf"^{pattern}$", text) else text


def _java_element(text: str, items: str) -> Json:
    return java_value(text, items) if items else _java_untyped(text)


def _java_untyped(text: str) -> Json:
    if text in ("true", "false"):
        return text == "true"
    if text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    for declared in ("long", "float"):
        if (found := java_value(text, declared)) is not text:
            return found
    return _python_number(text)


def _python_number(text: str) -> Json:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            pass
    return text


def javascript_value(text: str, declared: str, items: str = "") -> Json:
    """A literal of a JavaScript type; `items` is the type of an array's elements."""
    if declared in _JAVASCRIPT_NUMBERS:
        return _number(text, *_JAVASCRIPT_NUMBERS[declared])
    if declared == "String":
        return text[1:-1] if _is_quoted(text) else text
    if declared == "Boolean" and text in ("true", "false"):
        return text == "true"
    if declared == "array":
        return _javascript_array(text.strip(), items)
    return _javascript_object(text.strip()) if declared == "dict" else text


def _is_quoted(text: str) -> bool:
    return any(text.startswith(mark) and text.endswith(mark) for mark in _QUOTES)


def _javascript_array(text: str, items: str) -> Json:
    if rows := re.match(_ROW, text):
        inner = [row.strip() for row in re.findall(r"\[(.*?)\]", rows[0])]
        inner[0] = inner[0].removeprefix("[")
        return [[_javascript_untyped(part) for part in row.split(",")] for row in inner]
    found = re.match(r"\[(.*?)\]|\bnew\s+Array\((.*?)\)", text)
    if not found:
        return text
    content = (found[2] if found[1] is None else found[1]).strip()
    parts = [part.strip() for part in content.split(",")] if content else []
    try:
        return [javascript_value(p, items) if items else _javascript_untyped(p) for p in parts]
    except ValueError:
        return text


def _javascript_object(text: str) -> Json:
    found = re.match(r"\{(.*?)\}", text)
    if not found:
        return text
    result: dict[str, Json] = {}
    for key, value in re.findall(r"([^:]+):\s*(.*?)(?:,\s*(?=[^,]+:)|$)", found[1]):
        value = value.strip()
        name = key.strip().strip("'\"")
        if value.startswith("[") and value.endswith("]"):
            result[name] = _javascript_array(value, "")
        elif value.startswith("{") and value.endswith("}"):
            result[name] = _javascript_object(value)
        else:
            result[name] = _javascript_untyped(value.strip("'\""))
    return result


def _javascript_untyped(text: str) -> Json:
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    return text[1:-1] if _is_quoted(text) else _python_number(text)


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
        return any(
            len(value) == len(choice)
            and all(isinstance(e, Mapping) and _same_object(v, e) for v, e in zip(value, choice))
            for choice in choices
        )
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
