"""Hints: the known name with the fewest edits, and none where every name is far away."""

import pytest

from toolhone.errors import edit_distance, nearest


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [("", "", 0), ("lr", "", 2), ("iters", "itres", 1), ("kitten", "sitting", 3), ("ab", "ab", 0)],
)
def test_edits_are_counted_and_a_swap_is_one(a: str, b: str, edits: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == edits


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("grop", ["grpo", "ppo"], " (did you mean 'grpo'?)"),
        ("Weather", ["weather", "search"], " (did you mean 'weather'?)"),
        ("lr", ["iters", "lora-rank", "beta"], ""),
        ("--max-steps", ["--max-seq-length", "--steps-per-eval", "--iters"], ""),
        ("epochs", ["steps", "epsilon", "beta"], ""),
        ("x", [], ""),
    ],
)
def test_a_hint_names_what_is_near_and_nothing_that_only_looks_alike(
    word: str, known: list[str], hint: str
) -> None:
    assert nearest(word, known) == hint
