"""What `check_lengths` promises: rows that are too long are dropped whole and counted, or stop."""

from __future__ import annotations

import pytest

from toolhone.data.render import check_lengths
from toolhone.errors import DataError
from toolhone.rows import Row


def row(length: int, group: str | None = None, trained: bool = True) -> Row:
    plain = Row.of(list(range(length)), [trained] * length)
    return Row(plain.tokens, plain.mask, group=group)


def test_rows_that_are_too_long_are_dropped_whole_and_counted() -> None:
    rows = [row(5), row(9), row(8)]
    lengths = check_lengths(rows, 8)
    assert lengths.rows == [rows[0], rows[2]]
    assert (lengths.dropped, lengths.longest) == (1, 9)


def test_length_zero_means_any_length() -> None:
    assert check_lengths([row(5000)], 0).dropped == 0


def test_rows_of_a_group_are_dropped_together() -> None:
    rows = [row(5, "a"), row(9, "a"), row(5, "b"), row(6, "b"), row(5)]
    lengths = check_lengths(rows, 8)
    assert lengths.rows == rows[2:]
    assert lengths.dropped == 2


def test_with_policy_error_a_long_row_stops() -> None:
    with pytest.raises(
        DataError,
        match="1 of 2 rows are longer than 8 tokens, the longest has 9; raise the maximum length",
    ):
        check_lengths([row(5), row(9)], 8, "error")


def test_no_row_left_is_an_error() -> None:
    with pytest.raises(
        DataError, match="no row is left: all 2 are longer than 4 tokens, the shortest has 5"
    ):
        check_lengths([row(5), row(9)], 4)


def test_a_row_with_nothing_to_learn_is_an_error() -> None:
    with pytest.raises(DataError, match="row 2 of 2 has 4 tokens and none to learn from"):
        check_lengths([row(5), row(4, trained=False)], 8)
