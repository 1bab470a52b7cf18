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


def test_names_that_differ_in_their_unicode_form_alone_are_told_apart_in_words() -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    assert "another Unicode form, NFC" in nearest(apart, [composed])
    assert "another Unicode form, NFD" in nearest(composed, [apart])
