"""What a run keeps of its episodes and rows: tokens with their text, mask and advantage."""

import json
from pathlib import Path

import numpy as np

from support.one_token import env_of, plan, toy
from toolhone.rows import Origin, Row
from toolhone.runs.run import Run
from toolhone.training.grpo import grpo
from toolhone.training.kept import kept_rows, pieces_of, token_ends

TEXTS = {1: b"Ol", 2: b"\xc3", 3: b"\xa9", 4: b"!", 5: b"\xff"}


def decode(ids: list[int]) -> str:
    return b"".join(TEXTS[each] for each in ids).decode("utf-8", "replace")


def test_a_token_with_part_of_a_character_ends_where_the_character_begins() -> None:
    assert decode([1, 2, 3, 4]) == "Olé!"
    assert token_ends([1, 2, 3, 4], decode) == [2, 2, 3, 4]
    assert token_ends([1, 2], decode) == [2, 3]


def test_ends_are_left_out_where_the_texts_do_not_add_up() -> None:
    assert token_ends([1, 4], lambda ids: " " + decode(ids)) == []


def test_a_piece_has_one_origin_one_mask_and_one_advantage() -> None:
    origins = [Origin.PROMPT, Origin.SAMPLED, Origin.SAMPLED, Origin.SAMPLED, Origin.TOOL]
    row = Row.of([1, 4, 4, 1, 4], [False, True, True, True, False], origins)
    row = row.with_arrays(advantages=np.array([0, 0.5, 0.5, -1, 0], np.float32))
    pieces = pieces_of([row], decode)
    assert [(one["origin"], one["text"], one.get("advantage")) for one in pieces] == [
        ("prompt", "Ol", None),
        ("sampled", "!!", 0.5),
        ("sampled", "Ol", -1.0),
        ("tool", "!", None),
    ]
    assert [one["ids"] for one in pieces] == [[1], [4, 4], [1], [4]]


def test_the_rows_of_a_run_show_which_tokens_are_trained() -> None:
    row = Row.of([1, 4, 1], [False, False, True], [0, 0, 1])
    kept = kept_rows([row] * 20, decode)
    assert [one["id"] for one in kept] == [f"row {number}" for number in range(1, 9)]
    assert [(p["text"], p["trained"]) for p in kept[0]["pieces"]] == [("Ol!", False), ("Ol", True)]


def test_a_kept_episode_has_the_advantages_that_its_update_used(tmp_path: Path) -> None:
    experiment, trainer = plan(steps=3, log_every=1), toy()
    run = Run.create(tmp_path / "run", experiment)
    grpo(trainer, env_of(trainer, experiment), run)
    lines = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()]
    episodes = [line for line in lines if line.get("kind") == "episode"]
    assert {line["step"] for line in episodes} == {1, 2, 3}
    trained = [p for one in episodes for p in one["pieces"] if p["trained"]]
    assert {p["origin"] for p in trained} == {"sampled"}
    assert any(p["advantage"] > 0 for p in trained) or any(p["advantage"] < 0 for p in trained)
    first = episodes[0]
    assert {"calls", "expected", "reasons", "scores", "reward", "parts"} <= first.keys()
