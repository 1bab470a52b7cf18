"""Literals of Java and JavaScript, read as BFCL's checker reads them (after bfcl-eval, Apache-2.0).

    java_value("new int[]{1, 2}", "Array", "integer")        # [1, 2]
    javascript_value("{'a': true}", "dict")                  # {"a": True}

A text that is no literal of its type stays a text. No parser: elements are split at every comma.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from toolhone.schema import Json

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
    return _hash_map(text) if declared == "HashMap" else text


def _number(text: str, pattern: str, read: Callable[[str], Json]) -> Json:
    return read(text) if re.match(rf"^{pattern}$", text) else text


def _java_element(text: str, items: str) -> Json:
    return java_value(text, items) if items else _java_untyped(text)


def _hash_map(text: str) -> Json:
    filled = r"new\s+HashMap<.*?>\s*\(\)\s*\{\s*\{?\s*(.*?)\s*\}?\s*\}"
    if found := re.search(filled, text, re.DOTALL):
        pairs = re.findall(r"put\(\"(.*?)\",\s*(.*?)\)", found[1])
        return {key: _java_untyped(value.strip()) for key, value in pairs}
    return {} if re.search(r"new\s+HashMap<.*?>\s*\(\)", text) else text


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
