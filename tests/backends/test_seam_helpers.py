"""The helpers that all backends share: padding, micro-batches, random streams."""

from __future__ import annotations

import numpy as np

from toolhone.backends.base import pad_rows, random_stream
from toolhone.rows import Row, micro_batches


def a_row(length: int, group: str | None = None) -> Row:
    return Row(np.arange(length), np.arange(length) > 0, {}, None, group)


# ------------------------------------------------------------------------------------------------
# padded


def test_padding_is_on_the_right_with_zeros_and_no_mask() -> None:
    first = Row.of([7, 8, 9], [True] * 3).with_arrays(weights=np.array([1, 2, 3], dtype=np.float32))
    second = Row.of([5], [True]).with_arrays(advantages=np.array([4], dtype=np.float32))
    tokens, mask, arrays = pad_rows([first, second])
    assert tokens.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert mask.tolist() == [[False, True, True], [False, False, False]]
    assert arrays["weights"].tolist() == [[1, 2, 3], [0, 0, 0]]
    assert arrays["advantages"].tolist() == [[0, 0, 0], [4, 0, 0]]
    assert (tokens.dtype, mask.dtype, arrays["weights"].dtype) == (np.int64, np.bool_, np.float32)


def test_padding_reaches_the_width_asked_for() -> None:
    tokens, mask, _ = pad_rows([a_row(2)], width=5)
    assert (tokens.shape, mask.shape) == ((1, 5), (1, 5))


# ------------------------------------------------------------------------------------------------
# micro_batches


def test_micro_batches_cover_every_row_once() -> None:
    rng = np.random.default_rng(0)
    rows = [
        a_row(int(length), group)
        for length, group in zip(
            rng.integers(1, 30, 50), [None, "a", "b", None, None] * 10, strict=True
        )
    ]
    for limit in (1, 40, 10_000):
        indices = [i for batch in micro_batches(rows, limit) for i in batch]
        assert sorted(indices) == list(range(50))
    assert micro_batches([], 10) == []


def test_micro_batches_stay_under_the_limit_of_padded_tokens() -> None:
    rows = [a_row(length) for length in (9, 2, 7, 3, 8, 2, 5)]
    batches = micro_batches(rows, 16)
    assert all(len(batch) * max(len(rows[i]) for i in batch) <= 16 for batch in batches)
    assert len(batches) < len(rows)


def test_a_row_longer_than_the_limit_is_a_batch_of_its_own() -> None:
    batches = micro_batches([a_row(3), a_row(50), a_row(4)], 10)
    assert [1] in batches


def test_micro_batches_never_split_a_group() -> None:
    names = ["x", None, "y", "x", None, "y", "x"]
    rows = [a_row(length, name) for length, name in zip((3, 4, 9, 20, 5, 9, 6), names, strict=True)]
    for limit in (1, 25, 60, 1000):
        batches = micro_batches(rows, limit)
        for name in ("x", "y"):
            members = {i for i, other in enumerate(names) if other == name}
            assert sum(bool(members & set(batch)) for batch in batches) == 1


def test_rows_of_similar_length_go_together() -> None:
    rows = [a_row(length) for length in (20, 2, 20, 2)]
    assert sorted(sorted(batch) for batch in micro_batches(rows, 40)) == [[0, 2], [1, 3]]


# ------------------------------------------------------------------------------------------------
# random_stream


def test_a_random_stream_is_a_function_of_its_seed_and_path() -> None:
    def first(seed: int, *path: int) -> float:
        return float(random_stream(seed, *path).random())

    assert first(1, 2, 3) == first(1, 2, 3)
    values = {
        first(1, 2, 3),
        first(1, 3, 2),
        first(2, 1, 3),
        first(1, 2),
        first(1, 2, 4),
        first(0, 1, 2, 3),
    }
    assert len(values) == 6


def test_seeds_and_keys_may_be_negative() -> None:
    assert random_stream(-1, -2).random() == random_stream(-1, -2).random()
    assert random_stream(-1, -2).random() != random_stream(-2, -1).random()


def test_a_group_above_the_limit_is_split_where_the_loss_allows_it() -> None:
    rows = [a_row(length, "x") for length in (4, 9, 4, 9, 5)]
    batches = micro_batches(rows, 18, whole_groups=False)
    assert sorted(i for batch in batches for i in batch) == [0, 1, 2, 3, 4]
    assert all(len(batch) * max(len(rows[i]) for i in batch) <= 18 for batch in batches)
    assert micro_batches(rows, 18) == [[0, 1, 2, 3, 4]]


def test_rows_of_a_large_group_are_with_no_others() -> None:
    rows = [a_row(9, name) for name in ("x", "y", "x", None, "y", "x", "small", "small")]
    for whole in (True, False):
        batches = micro_batches(rows, 100, whole_groups=whole)
        assert sorted(map(sorted, batches)) == [[0, 2, 5], [1, 3, 4, 6, 7]], whole
        assert len(micro_batches(rows, 40, whole_groups=whole)) == 4, whole
