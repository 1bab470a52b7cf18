"""Plain chat of a model: its own answers to learn from, and what a training did to it.

python plain_chat.py answer MODEL OUT.json [KEY=VALUE ...]     # answers without tools
python plain_chat.py measure MODEL OUT.json [KEY=VALUE ...]    # answers, lengths, perplexity
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from make_data import CHAT

from toolhone import evaluate, open_model
from toolhone.rows import Row
from toolhone.schema import Expect, Message, Task

SAMPLED = ("evaluation.temperature=1", "evaluation.max_new_tokens=64")
"""Answers to learn from are drawn from the model as it is: where it still has its own distribution
their gradient is zero on average. With its greedy answers more text was forgotten (docs/log.md)."""
TRIES = 2


def answers(model: Any, questions: list[str], tries: int = 1) -> list[str]:
    """What the model answers, without tools: to every question once, then once more, and so on."""
    tasks = [
        Task(f"q{number:03d}", (Message("user", text),), (), Expect(no_call=True))
        for number, text in enumerate(questions)
    ]
    return [sample.text for sample in evaluate(model, tasks, tries=tries).samples]


def whole_sentences(text: str) -> str:
    """The text up to its last full sentence: answers that were cut off teach to stop anywhere."""
    return text[: max(text.rfind(mark) for mark in ".!?") + 1]


def perplexity(model: Any, texts: list[str]) -> float:
    """exp of the mean negative log-probability per token, over plain texts."""
    rows = []
    for text in texts:
        ids = model.tokenizer.encode(text)
        rows.append(Row.of(ids, [False] + [True] * (len(ids) - 1)))
    found = model.sampler.logprobs(rows)
    total = sum(float(np.asarray(one).sum()) for one in found)
    return math.exp(-total / sum(len(row) - 1 for row in rows))


def main() -> None:
    verb, ref, out, *keys = sys.argv[1:]
    keys = [*keys, "evaluation.max_new_tokens=48", "tools=[]"]
    model = open_model(ref, overrides=[*keys, *(SAMPLED if verb == "answer" else ())])
    if verb == "answer":
        said = answers(model, CHAT["trained"], TRIES)
        pairs = zip(CHAT["trained"] * TRIES, map(whole_sentences, said), strict=True)
        found: Any = [pair for pair in pairs if pair[1] and not {"{", "[", "<"} & set(pair[1])]
    else:
        said = answers(model, CHAT["asked"])
        found = {
            "perplexity": perplexity(model, CHAT["texts"]),
            "words": sum(len(text.split()) for text in said) / len(said),
            "answers": dict(zip(CHAT["asked"], said, strict=True)),
        }
    Path(out).write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
