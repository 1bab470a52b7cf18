"""The tools `calculator` and `python`, which run in the sandbox; others are in `fake_services.py`.

A calculator reads numbers (`12`, `.5`, `1e-3`), + - * / // % ** and parentheses, the functions and
constants below; also × · ÷ − π, and `^` for a power. A comma in a number is a thousands separator,
except directly between the parentheses of a function: `max(1,234)` is 234. `%` is the remainder.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Annotated

from toolhone.errors import nearest
from toolhone.schema.python_text import parse_python
from toolhone.tools.result import ToolStatus
from toolhone.tools.sandbox import shared_sandbox

BUILTIN = ("calculator", "python", "weather", "search")
FUNCTIONS = (
    *("abs", "round", "min", "max", "pow", "sqrt", "cbrt", "exp", "log", "ln", "log2", "log10"),
    *("floor", "ceil", "sin", "cos", "tan", "asin", "acos", "atan", "degrees", "radians", "hypot"),
    *("factorial", "gcd", "lcm", "comb"),
)
CONSTANTS = ("pi", "e", "tau")
MAX_EXPRESSION = 500
"""Longest expression in characters."""
_MAX_NESTING = 40
_MAX_DIGITS = 1000
_NOT_FROM_MATH = ("abs", "round", "min", "max", "pow", "ln")
_IMPORTS = ", ".join(name for name in (*FUNCTIONS, *CONSTANTS) if name not in _NOT_FROM_MATH)
_PRELUDE = f"from math import {_IMPORTS}\nln = log\n"
_SPELLINGS = str.maketrans(
    {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "π": "pi", "\u00a0": " ", "\u202f": " "}
)
_PLAIN = r"(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])"
_GROUPED = r"\d{1,3}(?:,\d{3})+(?:\.\d*)?(?![\w.,])"
_OTHER = r"[A-Za-z]\w*|\*\*|//|[-+*/%^(),]"
_TOKEN = re.compile(rf"({_PLAIN}|{_OTHER})\s*", re.ASCII)
_TOKEN_OR_GROUPED = re.compile(rf"({_GROUPED}|{_PLAIN}|{_OTHER})\s*", re.ASCII)
_NODES = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Call, ast.Name, ast.Load),
    *(ast.operator, ast.unaryop),
)


def evaluate(expression: str) -> float | int:
    """Compute an arithmetic expression in the sandbox; a mistake in it is a `ValueError`."""
    if len(expression) > MAX_EXPRESSION:
        size = f"{len(expression):,} characters; at most {MAX_EXPRESSION} are evaluated"
        raise ValueError(f"the expression has {size}")
    source = " ".join(_tokens(expression))
    if not source:
        raise ValueError("the expression is empty")
    try:
        tree = parse_python(source, "eval")
    except (SyntaxError, RecursionError, MemoryError):
        hint = "; '%' is the remainder: write 15 per cent as 15/100" if "%" in source else ""
        raise ValueError(f"{expression!r} is not a complete arithmetic expression{hint}") from None
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        in_call = id(node) in called
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Name):
            raise ValueError("a multiplication sign is missing before '(': write 2*(3), not 2(3)")
        if isinstance(node, ast.Name) and in_call and node.id not in FUNCTIONS:
            raise ValueError(f"{node.id!r} is a number, not a function: write {node.id}*(...)")
        if isinstance(node, ast.Name) and not in_call and node.id not in CONSTANTS:
            raise ValueError(f"the function {node.id!r} needs parentheses, as in {node.id}(2)")
        if not isinstance(node, _NODES):
            right = "and a comma only separates a function's arguments"
            raise ValueError(f"only numbers, operators and functions can be evaluated, {right}")
    result = shared_sandbox().run(_PRELUDE + source)
    shown, text = repr(expression[:60]), result.text
    if result.outcome is ToolStatus.TIMEOUT:
        raise ValueError(f"{shown} takes too long to compute")
    too_large = "digits" in result.error or "MemoryError" in result.error
    if too_large or text in ("inf", "-inf", "nan") or len(text) > _MAX_DIGITS:
        raise ValueError(f"{shown} has no value: the numbers get too large")
    if result.outcome is not ToolStatus.OK:
        reason = re.sub(r"^\w+: | \(line \d+\)$", "", result.error)  # without its type and line
        raise ValueError(f"{shown} has no value: {reason}")
    if isinstance(result.value, bool) or not isinstance(result.value, int | float):
        raise ValueError(f"{shown} has no value among the real numbers")
    return result.value


def calculator(
    expression: Annotated[
        str,
        'Arithmetic such as "(12.5 + 3) * 4 ** 2": + - * / // % ** and functions such as sqrt, '
        "round, min, max, log, sin.",
    ],
) -> float | int:
    """Evaluate an arithmetic expression and return the number."""
    value = evaluate(expression)
    if isinstance(value, float):
        value = float(f"{value:.12g}")
        return int(value) if value.is_integer() and abs(value) < 1e16 else value
    return value


def python(
    code: Annotated[
        str,
        "Python source. math, re, json, datetime and the like can be imported; no files, no "
        "network, no `yield`.",
    ],
) -> str:
    """Run a Python program and return what it prints, or the value of its last expression if it
    prints nothing."""
    result = shared_sandbox().run(code)
    before = f"; printed before: {result.stdout}" if result.stdout else ""
    if result.outcome is not ToolStatus.OK:
        raise ValueError(result.error + before)
    shown = result.value if isinstance(result.value, str) else result.text
    return result.stdout or shown or "The program printed nothing and does not end with a value."


def _tokens(expression: str) -> Iterator[str]:
    text = expression.translate(_SPELLINGS).strip()
    position, previous = 0, ""
    open_calls: list[bool] = []
    """One entry per open parenthesis: whether it holds a function's arguments."""
    while position < len(text):
        in_call = bool(open_calls and open_calls[-1])
        match = (_TOKEN if in_call else _TOKEN_OR_GROUPED).match(text, position)
        if match is None:
            where = f"{text[position : position + 20]!r} at character {position + 1}"
            raise ValueError(f"cannot read {where} as arithmetic")
        token, position = match[1], match.end()
        if token == "(":
            open_calls.append(previous in FUNCTIONS)
        elif token == ")" and open_calls:
            open_calls.pop()
        elif token[0].isalpha() and token not in FUNCTIONS + CONSTANTS:
            near, known = nearest(token, FUNCTIONS + CONSTANTS), ", ".join(FUNCTIONS + CONSTANTS)
            raise ValueError(f"unknown name {token!r}{near}; known: {known}")
        elif token == "," and not in_call:
            right = "a function's arguments and for groups of three digits, as in 1,234,567"
            raise ValueError(f"a comma is only for {right}")
        if len(open_calls) > _MAX_NESTING:
            raise ValueError(f"more than {_MAX_NESTING} parentheses inside each other")
        previous = token
        if token[0].isdigit():
            token = re.sub(r"^0+(?=\d)|[,_]", "", token)
        yield "**" if token == "^" else token
