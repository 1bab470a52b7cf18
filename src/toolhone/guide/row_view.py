"""Lesson 2: what a model is trained on. A conversation as token ids, and which of them count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from toolhone.api import Model, open_model
from toolhone.data.templates import Templates
from toolhone.guide.calculator import NAME as CALCULATOR
from toolhone.guide.lesson import (
    Coloured,
    Desk,
    Lesson,
    Shown,
    Table,
    Text,
    Typed,
    finished,
    laid_out,
    model_of,
)
from toolhone.rows import Row
from toolhone.schema import Conversation

NAME = "rows"
SHOWN_TOKENS = 24


def conversations() -> list[Conversation]:
    """A short call with its result and answer, and a short talk without a call."""
    made = Templates(0, ("calculator",)).conversations(200)
    answered = [
        row
        for row in made
        if [message.role for message in row.messages] == ["user", "assistant", "tool", "assistant"]
    ]
    talks = [
        row
        for row in made
        if [message.role for message in row.messages] == ["user", "assistant"]
        and not row.messages[1].tool_calls
    ]
    return [min(rows, key=lambda row: len(str(row.messages))) for rows in (answered, talks)]


def row_of(model: Model, conversation: Conversation) -> Row:
    """The conversation as the first row that a training of this model would see."""
    return model.tokenizer.encode_spans(model.dialect.render(conversation)[0])


def coloured(model: Model, title: str, row: Row) -> Coloured:
    """The row as text again, in pieces that are trained or not."""
    parts = groupby(
        zip(row.tokens.tolist(), row.mask.tolist(), strict=True), key=lambda pair: pair[1]
    )
    pieces = [
        (model.tokenizer.decode([token for token, _ in part]), trained) for trained, part in parts
    ]
    return Coloured(f"{title}: {len(row)} tokens, {int(row.mask.sum())} of them trained", pieces)


def surprise(row: Row, models: Sequence[Model]) -> Table:
    """How probable each trained token is to each model, given all that stands before it."""
    places = np.flatnonzero(row.mask)[:SHOWN_TOKENS]
    columns = [np.exp(model.sampler.logprobs([row])[0]) for model in models]
    rows = [
        [
            repr(models[0].tokenizer.decode([int(row.tokens[t])])),
            *(f"{100 * column[t]:.1f}" for column in columns),
        ]
        for t in places
    ]
    names = ["untrained", "after lesson 1"][: len(models)]
    return Table(
        "How probable the right token is to the model, in per cent", ["token", *names], rows
    )


def _play(desk: Desk) -> Iterator[Shown]:
    base = open_model("pico")
    call, talk = conversations()
    yield Typed(laid_out(call.to_dict()), "json")
    row = row_of(base, call)
    yield coloured(base, "The same as the model reads it", row)
    yield coloured(base, "A talk without a call", row_of(base, talk))
    run = finished(desk, CALCULATOR)
    yield surprise(row, [base, *([] if run is None else [model_of(run)])])
    if run is None:
        yield Text(
            "With lesson 1 done there is a second column: toolhone examples calculator, and then this lesson again."
        )


LESSON = Lesson(
    NAME,
    "What a model is trained on",
    "seconds",
    about="""\
A training file holds conversations as JSON, one a line. The model reads none of that: a *dialect* writes the conversation as
one text, with marks where a turn begins and ends, and a tokenizer cuts the text into numbered pieces. From all pieces before
it the model guesses the next one; training makes the right one more probable. But not every piece is to be learned: what the
user asks and what the tool answers is given. Only what the assistant says counts, and the mark that ends its turn.""",
    look="""\
- Coloured (or between » and «) is what is trained: the call, the answer, and `<|im_end|>`, without which a model never stops.
- The tool's result is not trained: a model that learned to write results would make them up.
- The table: with random weights the right token has next to no chance. After lesson 1 the marks and the JSON around a call
  are near 100 %; what stays lower are the wordings, which a template chose at random.""",
    then="""\
toolhone config schema  # training.loss_on: completion (this) or all (every token counts)
toolhone data build --out data --train 20 --tasks 0  # conversations as they lie on disk, to read
toolhone examples format  # the same conversation in other dialects""",
    play=_play,
)
