"""What `check_lengths` promises: rows that are too long are dropped whole and counted, or stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.dialect_models import QWEN_LIKE, THINKING, small_tokenizer
from toolhone.backends.base import Batch, pad_rows
from toolhone.backends.gradient import loss_gradient
from toolhone.config.sections import TrainingSection
from toolhone.data.preferences import PreferencePair, pair_rows
from toolhone.data.render import Lengths, check_lengths, render_rows
from toolhone.dialects.choose import open_dialect
from toolhone.dialects.interface import Dialect
from toolhone.errors import DataError
from toolhone.rows import Row
from toolhone.schema import Conversation, Message, Tool, ToolCall
from toolhone.schema.preference import Preference
from toolhone.tokenizer import TextTokenizer
from toolhone.training.dpo import with_pair_weights
from toolhone.training.losses import cross_entropy
from toolhone.training.update import with_token_weights


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


TOOL = Tool("track", "Tracks.", {"type": "object", "properties": {"code": {"type": "string"}}})


def talk(*weights: float) -> Conversation:
    calls = [(ToolCall("track", {"code": code}),) for code in ("WRONG", "KX12")]
    messages = (
        Message("user", "Where is KX12?"),
        Message("assistant", None, None, calls[0], weight=weights[0]),
        Message("tool", "no such parcel"),
        Message("assistant", None, None, calls[1], weight=weights[1]),
        Message("tool", "Turku"),
        Message("assistant", "In Turku.", weight=weights[2]),
    )
    return Conversation(messages, (TOOL,), "t")


def rendered(dialect: Dialect, tokenizer: TextTokenizer, *weights: float, **plan: Any) -> Lengths:
    training = TrainingSection(max_length=9999, **plan)
    return render_rows([talk(*weights)], dialect, tokenizer, training)


def slopes(rows: Sequence[Row]) -> list[np.ndarray]:
    """The gradient of the SFT loss by the log-probability of each token, row by row."""
    weighed = with_token_weights(rows)
    _, mask, arrays = pad_rows(weighed)
    logp = np.where(mask, -1.0, 0.0).astype(np.float32)
    _, slope = loss_gradient(cross_entropy(), logp, Batch(mask, arrays, [None] * len(rows)))
    return [slope[i, : len(row)] for i, row in enumerate(rows)]


@pytest.fixture(scope="module", params=["native", "json", "thinking"])
def parts(request: pytest.FixtureRequest) -> tuple[Dialect, TextTokenizer]:
    tokenizer = small_tokenizer(THINKING if request.param == "thinking" else QWEN_LIKE)
    name = "json" if request.param == "json" else "native"
    return open_dialect(tokenizer, name), tokenizer


def test_a_turn_of_weight_0_is_context_with_the_same_tokens(
    parts: tuple[Dialect, TextTokenizer],
) -> None:
    whole, part = rendered(*parts, 1, 1, 1).rows, rendered(*parts, 0, 1, 1).rows
    kept = whole[-len(part) :]
    assert [row.tokens.tolist() for row in part] == [row.tokens.tolist() for row in kept]
    lost = [a.mask & ~b.mask for a, b in zip(kept, part, strict=True)]
    texts = [parts[1].decode(row.tokens[gone].tolist()) for row, gone in zip(kept, lost)]
    shown = "".join(texts) or parts[1].decode(whole[0].tokens[whole[0].mask].tolist())
    assert "WRONG" in shown
    assert "KX12" not in shown
    for row, own, slope in zip(kept, part, slopes(part), strict=True):
        masked = slopes([replace(one, mask=b.mask) for one, b in zip(kept, part, strict=True)])
        assert any(np.array_equal(slope, other) for other in masked)
        assert not slope[row.mask & ~own.mask].any()


def test_a_turn_of_weight_one_half_has_half_the_gradient(
    parts: tuple[Dialect, TextTokenizer],
) -> None:
    whole, part = rendered(*parts, 1, 1, 1).rows, rendered(*parts, 1, 0.5, 1).rows
    ratios = [
        own[row.mask] / full[row.mask]
        for row, own, full in zip(part, slopes(part), slopes(whole), strict=True)
    ]
    values, counts = np.unique(np.concatenate(ratios), return_counts=True)
    assert values.tolist() == [0.5, 1.0]
    call = next(row for row in rendered(*parts, 0, 1, 0).rows)
    assert counts[0] == call.mask.sum()


def test_a_conversation_without_a_turn_to_learn_gives_no_row_and_is_counted(
    parts: tuple[Dialect, TextTokenizer],
) -> None:
    training = TrainingSection(max_length=9999)
    lengths = render_rows([talk(0, 0, 0), talk(1, 1, 1)], *parts, training)
    assert (len(lengths.rows), lengths.not_learned) == (len(rendered(*parts, 1, 1, 1).rows), 1)
    with pytest.raises(DataError, match="all 1 conversations have only turns of weight 0"):
        rendered(*parts, 0, 0, 0)


def test_loss_on_all_leaves_out_turns_of_weight_0(parts: tuple[Dialect, TextTokenizer]) -> None:
    for row in rendered(*parts, 0, 1, 1, loss_on="all").rows:
        assert row.mask[1]
        assert "WRONG" not in parts[1].decode(row.tokens[row.mask].tolist())


def test_loss_on_all_refuses_the_weight_of_a_user(parts: tuple[Dialect, TextTokenizer]) -> None:
    messages = (Message("user", "Hi", weight=0), Message("assistant", "Hello"))
    training = TrainingSection(max_length=9999, loss_on="all")
    with pytest.raises(DataError, match=r"messages\[0\] \(user\) has the weight 0"):
        render_rows([Conversation(messages)], *parts, training)


def test_a_pair_counts_as_much_as_its_chosen_side(parts: tuple[Dialect, TextTokenizer]) -> None:
    question, wrong = (Message("user", "?"),), (Message("assistant", "no"),)
    pairs = [
        PreferencePair(Preference(question, (Message("assistant", "yes", weight=w),), wrong))
        for w in (1, 0.5, 0)
    ]
    made = pair_rows(pairs, *parts, max_length=0)
    assert (made.report["pairs"], made.report["not_learned"]) == (2, 1)
    weights = [row.arrays["weights"].sum() for row in with_pair_weights(made.rows)[::2]]
    assert weights == pytest.approx([0.5, 0.25])
