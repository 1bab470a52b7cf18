"""The tools that come with Toolhone: `calculator`, `python`, `weather`, `search`.

    builtin("calculator").function("2^10 ÷ 4")    # 256
    evaluate("1,200 * 3")                         # 3600; ValueError for what is not arithmetic

A calculator reads numbers (`12`, `.5`, `1e-3`), + - * / // % ** and parentheses, the functions and constants below; also × · ÷ − π,
and `^` for a power (never "exclusive or"). A comma between groups of three digits is a thousands separator (`1,234,567.89`), except
directly between the parentheses of a function, where a comma always separates arguments: `max(1,234)` is 234. `%` is the
remainder, never per cent. There is no implied multiplication (`2(3)`) and no decimal comma. Angles are in radians, `log` is
natural, `round` rounds halves to even.

`weather` and `search` answer from invented worlds (`worlds.py`) and need no network. `python` and `calculator` run in `sandbox.py`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import Annotated, TypeVar

from pydantic import Field

from toolhone.errors import ConfigError, nearest
from toolhone.schema import Json, Tool
from toolhone.tools.fake_services import MAX_RESULTS, SearchWorld, Unit, WeatherWorld
from toolhone.tools.registry import AT_ONCE_MARK, ToolStatus
from toolhone.tools.sandbox import shared_sandbox, usual_workers

F = TypeVar("F", bound=Callable[..., Json])
FUNCTIONS = (
    *(
        "abs",
        "round",
        "min",
        "max",
        "pow",
        "sqrt",
        "cbrt",
        "exp",
        "log",
        "ln",
        "log2",
        "log10",
        "floor",
        "ceil",
    ),
    *(
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "degrees",
        "radians",
        "hypot",
        "factorial",
        "gcd",
        "lcm",
        "comb",
    ),
)
CONSTANTS = ("pi", "e", "tau")
BUILTIN = ("calculator", "python", "weather", "search")
MAX_EXPRESSION = 500
"""Longest expression in characters."""
_MAX_NESTING = 40
_MAX_DIGITS = 1000
_NOT_FROM_MATH = ("abs", "round", "min", "max", "pow", "ln")
_PRELUDE = f"from math import {', '.join(name for name in (*FUNCTIONS, *CONSTANTS) if name not in _NOT_FROM_MATH)}\nln = log\n"
_SPELLINGS = str.maketrans(
    {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "π": "pi", "\u00a0": " ", "\u202f": " "}
)
_PLAIN = r"(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])"
_GROUPED = r"\d{1,3}(?:,\d{3})+(?:\.\d*)?(?![\w.,])"
_OTHER = r"[A-Za-z]\w*|\*\*|//|[-+*/%^(),]"
_TOKEN = re.compile(rf"({_PLAIN}|{_OTHER})\s*", re.ASCII)
_TOKEN_OR_GROUPED = re.compile(rf"({_GROUPED}|{_PLAIN}|{_OTHER})\s*", re.ASCII)
_NODES = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Constant,
    ast.Call,
    ast.Name,
    ast.Load,
    ast.operator,
    ast.unaryop,
)


def evaluate(expression: str) -> float | int:
    """The value of an arithmetic expression, computed in the sandbox. `ValueError` says what is wrong with it, in one sentence."""
    result = shared_sandbox().run(_PRELUDE + _checked(expression))
    shown = repr(expression[:60])
    if result.outcome is ToolStatus.TIMEOUT:
        raise ValueError(f"{shown} takes too long to compute")
    if (
        "digits" in result.error
        or "MemoryError" in result.error
        or result.text in ("inf", "-inf", "nan")
        or len(result.text) > _MAX_DIGITS
    ):
        raise ValueError(f"{shown} has no value: the numbers get too large")
    if result.outcome is not ToolStatus.OK:
        raise ValueError(f"{shown} has no value: {_reason(result.error)}")
    if isinstance(result.value, bool) or not isinstance(result.value, int | float):
        raise ValueError(f"{shown} has no value among the real numbers")
    return result.value


def _sandboxed(function: F) -> F:
    """Mark a function of which no more calls run at once than the sandbox has workers: to wait for one is no part of a call."""
    setattr(function, AT_ONCE_MARK, usual_workers())
    return function


@_sandboxed
def calculator(expression: str) -> float | int:
    """Evaluate an arithmetic expression and return the number.

    Args:
        expression: Arithmetic such as "(12.5 + 3) * 4 ** 2": + - * / // % ** and functions such as sqrt, round, min, max, log, sin.
    """
    value = evaluate(expression)
    if isinstance(value, float):
        value = float(f"{value:.12g}")
        return int(value) if value.is_integer() and abs(value) < 1e16 else value
    return value


@_sandboxed
def python(code: str) -> str:
    """Run a Python program and return what it prints, or the value of its last expression if it prints nothing.

    Args:
        code: Python source. math, re, json, datetime and the like can be imported; no files, no network, no `yield`.
    """
    result = shared_sandbox().run(code)
    before = f"; printed before: {result.stdout}" if result.stdout else ""
    if result.outcome is ToolStatus.TIMEOUT:
        raise TimeoutError(_reason(result.error) + before)
    if result.outcome is not ToolStatus.OK:
        raise ValueError(result.error + before)
    shown = result.value if isinstance(result.value, str) else result.text
    return result.stdout or shown or "The program printed nothing and does not end with a value."


def builtin(name: str, seed: int = 0) -> Tool:
    """The built-in tool of this name; `seed` chooses the world behind `weather` and `search`."""
    match name:
        case "calculator":
            return Tool.of(calculator)
        case "python":
            return Tool.of(python)
        case "weather":
            return Tool.of(_weather(WeatherWorld(seed)))
        case "search":
            return Tool.of(_search(SearchWorld(seed)))
    own = "a tool of your own is named 'file.py:function'"
    raise ConfigError(
        f"there is no built-in tool {name!r}{nearest(name, BUILTIN)}; built in: {', '.join(BUILTIN)}; {own}"
    )


def _weather(world: WeatherWorld) -> Callable[[str, Unit], dict[str, Json]]:
    def weather(city: str, unit: Unit = "celsius") -> dict[str, Json]:
        """Get the current weather in a city: temperature, condition, humidity in per cent and wind in km/h.

        Args:
            city: Name of the city, with the country if the name is not unique, e.g. "Oslo" or "Paris, France".
            unit: Unit of the temperature.
        """
        return world.report(city, unit)

    return weather


def _search(world: SearchWorld) -> Callable[[str, int], list[dict[str, Json]]]:
    def search(
        query: str, limit: Annotated[int, Field(ge=1, le=MAX_RESULTS)] = 3
    ) -> list[dict[str, Json]]:
        """Search the web and return pages as a list of title, url and snippet.

        Args:
            query: What to search for, in a few words.
            limit: How many results to return at most.
        """
        return world.results(query, limit)

    return search


def _checked(expression: str) -> str:
    """The expression as Python source that holds nothing but arithmetic, on one line."""
    if len(expression) > MAX_EXPRESSION:
        raise ValueError(
            f"the expression has {len(expression):,} characters; at most {MAX_EXPRESSION} are evaluated"
        )
    source = " ".join(_tokens(expression))
    if not source:
        raise ValueError("the expression is empty")
    try:
        tree = ast.parse(source, mode="eval")
    except (SyntaxError, RecursionError, MemoryError):
        hint = "; '%' is the remainder: write 15 per cent as 15/100" if "%" in source else ""
        raise ValueError(f"{expression!r} is not a complete arithmetic expression{hint}") from None
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        _check(node, id(node) in called)
    return source


def _check(node: ast.AST, called: bool) -> None:
    if isinstance(node, ast.Call) and not isinstance(node.func, ast.Name):
        raise ValueError("a multiplication sign is missing before '(': write 2*(3), not 2(3)")
    if isinstance(node, ast.Name) and called and node.id not in FUNCTIONS:
        raise ValueError(f"{node.id!r} is a number, not a function: write {node.id}*(...)")
    if isinstance(node, ast.Name) and not called and node.id not in CONSTANTS:
        raise ValueError(f"the function {node.id!r} needs parentheses, as in {node.id}(2)")
    if not isinstance(node, _NODES):
        raise ValueError(
            "only numbers, operators and functions can be evaluated, and a comma only separates a function's arguments"
        )


def _tokens(expression: str) -> Iterator[str]:
    text = expression.translate(_SPELLINGS).strip()
    position, previous = 0, ""
    open_calls: list[
        bool
    ] = []  # one for each open parenthesis: does it hold a function's arguments?
    while position < len(text):
        pattern = _TOKEN if open_calls and open_calls[-1] else _TOKEN_OR_GROUPED
        match = pattern.match(text, position)
        if match is None:
            raise ValueError(
                f"cannot read {text[position : position + 20]!r} at character {position + 1} as arithmetic"
            )
        token, position = match[1], match.end()
        if token == "(":
            open_calls.append(previous in FUNCTIONS)
        elif token == ")" and open_calls:
            open_calls.pop()
        elif token[0].isalpha() and token not in FUNCTIONS + CONSTANTS:
            known = ", ".join(FUNCTIONS + CONSTANTS)
            raise ValueError(
                f"unknown name {token!r}{nearest(token, FUNCTIONS + CONSTANTS)}; known: {known}"
            )
        elif token == "," and not (open_calls and open_calls[-1]):
            raise ValueError(
                "a comma is only for a function's arguments and for groups of three digits, as in 1,234,567"
            )
        if len(open_calls) > _MAX_NESTING:
            raise ValueError(f"more than {_MAX_NESTING} parentheses inside each other")
        previous = token
        yield _as_python(token)


def _as_python(token: str) -> str:
    if token == "^":
        return "**"
    return re.sub(r"^0+(?=\d)|[,_]", "", token) if token[0].isdigit() else token


def _reason(error: str) -> str:
    """An error without the name of its type and without the line."""
    return re.sub(r"^\w+: | \(line \d+\)$", "", error)
