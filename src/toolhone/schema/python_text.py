"""Python source as a tree, safe in threads.

    parse_python("1 + 2", "eval").body        # an ast.BinOp; SyntaxError and the like as ast.parse
    python_literal("{'a': [1]}")              # as ast.literal_eval of a text

CPython 3.11 counts the depth of trees that it makes for all threads together: two that parse at
once can end with `SystemError: AST constructor recursion depth mismatch`. So one parses at a time.
"""

from __future__ import annotations

import ast
import threading
import warnings
from typing import Any

_LOCK = threading.Lock()


def parse_python(source: str, mode: str = "exec") -> Any:
    """Return the tree of a program (`exec`) or an expression (`eval`); nothing is warned of."""
    with _LOCK, warnings.catch_warnings(action="ignore"):
        return ast.parse(source, mode=mode)


def python_literal(source: str) -> Any:
    """Return the value of a literal, white space before it allowed."""
    return ast.literal_eval(parse_python(source.lstrip(" \t"), "eval"))
