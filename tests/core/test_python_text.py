"""Python source is parsed by one thread at a time, with the results of `ast`."""

from __future__ import annotations

import ast
import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from toolhone.schema.python_text import parse_python, python_literal

SOURCES = ["+".join(f"({n} ** 2 - f(x, {n}))" for n in range(size)) for size in (5, 20, 60)]


class Litter:
    """Garbage whose end runs Python, at which threads take turns."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        sum(range(50))


@pytest.fixture
def fast_switches() -> Iterator[None]:
    """Threads take turns, and garbage is collected, as often as possible."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(1, 1, 1)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)


def parse_amid_litter(number: int) -> int:
    Litter()
    return len(list(ast.walk(parse_python(SOURCES[number % 3], "eval"))))


@pytest.mark.usefixtures("fast_switches")
def test_threads_that_parse_at_once_all_get_their_tree() -> None:
    """With `ast.parse`, about one in ten fails on Python 3.11."""
    wanted = [len(list(ast.walk(ast.parse(source, mode="eval")))) for source in SOURCES]
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(parse_amid_litter, range(300)))
    assert sizes == [wanted[number % 3] for number in range(300)]


@pytest.mark.parametrize("text", ["1", " \t{'a': [1, None]}", "'x'", "-2.5"])
def test_literals_are_those_of_ast(text: str) -> None:
    assert python_literal(text) == ast.literal_eval(text)


@pytest.mark.parametrize("text", ["f(1)", "", "{", "\0"])
def test_what_is_no_literal_raises_as_ast_does(text: str) -> None:
    with pytest.raises((ValueError, SyntaxError)) as ours:
        python_literal(text)
    with pytest.raises(type(ours.value)):
        ast.literal_eval(text)
