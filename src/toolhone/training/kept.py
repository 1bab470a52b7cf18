"""What a run keeps of episodes (samples.jsonl) and of rows (rows.jsonl) for the report.

    run.log_samples(step, [kept_episode(task, episode, result, env.decode, advantages)])
    write_jsonl(folder / ROWS_FILE, kept_rows(rows, tokenizer.decode))

Evaluations keep what `JudgedEpisode.to_dict` has; here tokens are kept as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from toolhone.episodes.episode import Episode
from toolhone.evaluation.metrics import JudgedEpisode, judge
from toolhone.rewards.reward_registry import RewardResult
from toolhone.rows import Origin, Row
from toolhone.runs.run import plain
from toolhone.schema import Task
from toolhone.training.rollout import rows_of, with_turn_advantages

Decode = Callable[[Sequence[int]], str]
ROWS_FILE = "rows.jsonl"
KEPT_ROWS = 8
"""Training rows that a run keeps, to show which tokens are trained."""


def token_ends(ids: Sequence[int], decode: Decode) -> list[int]:
    """Where the text of each token ends, in characters of `decode(ids)`.

    A token that holds part of a character ends where it begins. Empty where the texts of the tokens
    do not add up to that of all.
    """
    ends, first, at = list[int](), 0, 0
    for place in range(len(ids)):
        text = decode(ids[first : place + 1])
        if not text.endswith("\N{REPLACEMENT CHARACTER}") or place + 1 == len(ids):
            first, at = place + 1, at + len(text)
        ends.append(at)
    return ends if at == len(decode(ids)) else []


def pieces_of(rows: Sequence[Row], decode: Decode) -> list[dict[str, Any]]:
    """Rows as pieces whose tokens have one origin, one mask and one advantage.

    `ids` and `ends` (`token_ends`) are those of the tokens. `trained`: whether the loss sees them.
    `advantage` is there where the row has advantages and the piece is trained.
    """
    pieces: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        origin = np.zeros(len(row), np.uint8) if row.origin is None else row.origin
        advantages = row.arrays.get("advantages", np.zeros(len(row), np.float32))
        table = np.stack([origin, row.mask, advantages])
        changes = np.flatnonzero(np.any(np.diff(table), axis=0)) + 1
        for start, end in pairwise([0, *changes.tolist(), len(row)]):
            ids, trained = row.tokens[start:end].tolist(), bool(row.mask[start])
            piece = {
                "origin": Origin(int(origin[start])).name.lower(),
                "tokens": end - start,
                "text": decode(ids),
                "ids": ids,
                "ends": token_ends(ids, decode),
                "trained": trained,
            }
            if trained and "advantages" in row.arrays:
                piece["advantage"] = round(float(advantages[start]), 4)
            pieces.append({**piece, "row": number} if number else piece)
    return pieces


def kept_episode(
    task: Task,
    episode: Episode,
    result: RewardResult,
    decode: Decode,
    advantages: Sequence[float] | None = None,
) -> dict[str, Any]:
    """An episode of training, judged as in an evaluation, with its reward and its tokens.

    advantages: those of its turns; None for an episode that is not trained on.
    """
    rows = rows_of(episode)
    if advantages is None:
        rows = [row.with_mask(np.zeros(len(row), bool)) for row in rows]
    else:
        rows = with_turn_advantages(rows, [len(turn.tokens) for turn in episode.turns], advantages)
    return {
        "kind": "episode",
        **kept_sample(judge(task, episode)),
        "reward": result.total,
        "parts": dict(result.parts),
        "pieces": pieces_of(rows, decode),
    }


def kept_sample(sample: JudgedEpisode) -> dict[str, Any]:
    """A judged task for samples.jsonl of a run: without the scores of earlier systems."""
    record: dict[str, Any] = plain(sample.to_dict())
    del record["familiar"]
    return record


def kept_rows(rows: Sequence[Row], decode: Decode) -> list[dict[str, Any]]:
    """The first rows that a run trains on, as its rows.jsonl keeps them."""
    return [
        {"id": f"row {number}", "pieces": pieces_of([row], decode)}
        for number, row in enumerate(rows[:KEPT_ROWS], 1)
    ]
