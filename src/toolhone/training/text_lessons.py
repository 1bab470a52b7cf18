"""Self-taught calls in plain text, after Toolformer (Schick et al. 2023, arXiv:2302.04761).

    for record in TextLessons(dataset, tokenizer, registry, hooks, plan).write(sampler, 1, 0): ...

Calls are proposed at likely places of a text and run. One is kept when its result lowers the
weighted loss of the tokens that follow by `min_drop` against the better of: no call, and the call
without its result. In round 1 the call is put before the text, since the model has never seen one
inside (section 2 there), later at its place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toolhone.backends.base import Sampler
from toolhone.config.sections import Experiment
from toolhone.data.plain_texts import PlainText
from toolhone.errors import ConfigError
from toolhone.rows import Row, different_rows
from toolhone.schema import Tool
from toolhone.tokenizer import Span, TextTokenizer
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus
from toolhone.training.inline_calls import MARK, InlineCall, Proposer, continue_texts, spans_of
from toolhone.training.loop import Hooks, Validation
from toolhone.training.update import TASK_ORDER, seeded_batch

WEIGHTS = np.maximum(0.0, 1 - 0.2 * np.arange(5)) / 3
"""Weights of the five tokens after a call: 1 - 0.2 t, normalised (section 4.1 there)."""
ANSWER_TOKENS = 32


@dataclass(frozen=True)
class JudgedCall:
    """A call that ran, with the weighted losses, in nats, of what follows."""

    inline: InlineCall
    none: float
    without_result: float
    with_result: float

    @property
    def drop(self) -> float:
        return min(self.none, self.without_result) - self.with_result


class TextLessons:
    """The lessons (`teacher.Lessons`) that a model makes of plain texts."""

    def __init__(
        self,
        texts: tuple[Sequence[PlainText], Sequence[PlainText]],
        tokenizer: TextTokenizer,
        registry: Registry,
        hooks: Hooks,
        experiment: Experiment,
    ) -> None:
        self.tokenizer, self.registry, self.experiment = tokenizer, registry, experiment
        self.plan, self.longest = experiment.teacher, experiment.training.max_length
        train, held_out = (self._that_fit(part) for part in texts)
        if lost := sum(map(len, texts)) - len(train) - len(held_out):
            hooks.progress.report(
                f"{lost} texts have fewer than 2 or more than training.max_length={self.longest} "
                "tokens and are left out"
            )
        if not train:
            raise ConfigError(
                f"no text has 2 to {self.longest} tokens; give a larger training.max_length"
            )
        self.texts = [text for text, _ in train]
        self.labelled: Sequence[Row] = [row for _, row in train]
        self.held_out: Sequence[Row] = [row for _, row in held_out]
        self.questions = [text for text, _ in held_out if text.prompt]
        self.hooks = replace(hooks, validate=self.validate)
        self.size = min(self.plan.tasks or len(train), len(train))
        self.proposer = Proposer(self.plan, registry.tools, tokenizer, experiment.seed)

    def write(self, sampler: Sampler, number: int, first: int) -> Iterator[dict[str, Any]]:
        """A record for each text; texts are worked on `training.batch_size` at a time."""
        size, seed = self.experiment.training.batch_size, self.experiment.seed
        chosen = seeded_batch(self.texts, self.size, seed, number - 1, TASK_ORDER)
        for start in range(first - first % size, self.size, size):
            part = chosen[start : start + size]
            lost = [Counter[str]() for _ in part]
            proposed = self.proposer.propose(sampler, part, number, start, lost)
            ran = [self._run(*one) for one in zip(proposed, lost, strict=True)]
            judged = judge_calls(
                sampler, self.tokenizer, part, ran, self.registry.tools, number == 1
            )
            for place, text in enumerate(part):
                if start + place >= first:
                    yield self._record(text, len(proposed[place]), judged[place], lost[place])

    def _that_fit(self, texts: Sequence[PlainText]) -> list[tuple[PlainText, Row]]:
        rows = [(text, self.tokenizer.encode_spans(spans_of(text.text, [], ()))) for text in texts]
        return [(text, row) for text, row in rows if 2 <= len(row) <= self.longest]

    def _run(self, proposed: Sequence[InlineCall], lost: Counter[str]) -> list[InlineCall]:
        """The calls with their results; those that fail are counted."""
        results: list[ToolResult] = self.registry.run_all(one.call for one in proposed)
        ran = []
        for one, result in zip(proposed, results, strict=True):
            if result.outcome is not ToolStatus.OK:
                lost[f"calls that ended as {result.outcome.value}"] += 1
            elif re.search(r"[\[\]\n]", result.content) or not result.content.strip():
                lost["results that no text can hold (empty, or with brackets or lines)"] += 1
            else:
                ran.append(replace(one, result=result.content))
        return ran

    def _record(
        self, text: PlainText, proposed: int, judged: Sequence[JudgedCall], lost: Counter[str]
    ) -> dict[str, Any]:
        """What became of the calls of a text, and its row with the kept ones (or without any)."""
        best: dict[int, JudgedCall] = {}
        for one in sorted(judged, key=lambda each: -each.drop):
            if one.drop < self.plan.min_drop:
                lost["results that lower the loss by less than min_drop"] += 1
            elif one.inline.place in best:
                lost["calls at the place of a better one"] += 1
            else:
                best[one.inline.place] = one
        kept = [best[place] for place in sorted(best)]
        tools = self.registry.tools
        row = self.tokenizer.encode_spans(spans_of(text.text, [one.inline for one in kept], tools))
        if len(row) > self.longest:
            lost["calls of rows that would be longer than training.max_length"] += len(kept)
            kept, row = [], self.tokenizer.encode_spans(spans_of(text.text, [], tools))
        assert row.origin is not None, "rendered rows have an origin"
        losses = ("none", "without_result", "with_result", "drop")
        return {
            "id": text.id,
            "proposed": proposed,
            "ran": len(judged),
            "kept": len(kept),
            "means": {f"kept_{name}": [getattr(one, name) for one in kept] for name in losses},
            "reasons": dict(lost),
            "calls": [_described(one, tools) for one in kept],
            "rows": [{"tokens": row.tokens.tolist(), "origin": row.origin.tolist()}],
        }

    def validate(self, sampler: Sampler) -> Validation:
        """Continue held-out texts before their answer, with live tools; the share that is right."""
        asked = self.questions[: self.experiment.training.validation_samples]
        if not asked:
            return {}, []
        prompts = [text.prompt for text in asked]
        written = continue_texts(sampler, self.tokenizer, self.registry, prompts, ANSWER_TOKENS)
        samples, right = [], list[float]()
        called = [float(MARK.search(reply) is not None) for reply in written]
        for text, reply, calls in zip(asked, written, called, strict=True):
            right.append(float(begins_with(MARK.sub("", reply), text.answer)))
            scores = {"answer_accuracy": right[-1], "called": calls}
            samples.append({"id": text.id, "category": "text", "text": reply, "scores": scores})
        means = {"answer_accuracy": float(np.mean(right)), "called": float(np.mean(called))}
        return means, samples


def begins_with(reply: str, answer: str) -> bool:
    """Whether a reply begins with the answer, as a whole word or number."""
    return re.match(rf"\W*{re.escape(answer)}(?!\w|[.,]\d)", reply) is not None


def judge_calls(
    sampler: Sampler,
    tokenizer: TextTokenizer,
    texts: Sequence[PlainText],
    calls: Sequence[Sequence[InlineCall]],
    tools: Sequence[Tool],
    before: bool,
) -> list[list[JudgedCall]]:
    """The losses of each call of each text. `before`: the call is put before the text."""
    rows: list[Row] = []
    for text, own in zip(texts, calls, strict=True):
        for one in own:
            opening = one.opening(tools)
            head, tail = text.text[: one.place], text.text[one.place :]
            bare = f"{opening.removesuffix(' ->')}]"
            for inserted in ([], [opening, f" {one.result}]"], [bare]):
                pieces = [head, *inserted]
                if before and inserted:
                    pieces = [inserted[0].lstrip(), *inserted[1:], f" {head}"]
                rows.append(_row_of([*pieces, tail], tokenizer))
    distinct, lines = different_rows(rows)  # calls at one place share the loss without a call
    losses = [
        float(-values[row.mask] @ WEIGHTS[: row.mask.sum()])
        for values, row in zip(sampler.logprobs(distinct), distinct, strict=True)
    ]
    each = iter([losses[line] for line in lines])
    return [
        [
            JudgedCall(one, none=next(each), with_result=next(each), without_result=next(each))
            for one in own
        ]
        for own in calls
    ]


def _row_of(pieces: Sequence[str], tokenizer: TextTokenizer) -> Row:
    """The pieces as one row; the mask has the first five tokens of the last one."""
    spans = [span for piece in pieces for span in (Span(piece, control=False), Span(""))]
    start = len(tokenizer.encode_spans(spans[:-2]))
    row = tokenizer.encode_spans(spans)
    mask = np.zeros(len(row), bool)
    mask[start : start + len(WEIGHTS)] = True
    return row.with_mask(mask)


def _described(one: JudgedCall, tools: Sequence[Tool]) -> dict[str, Any]:
    numbers = {name: round(getattr(one, name), 4) for name in ("none", "without_result")}
    numbers |= {"with_result": round(one.with_result, 4), "drop": round(one.drop, 4)}
    text = f"{one.inline.opening(tools)} {one.inline.result}]"
    return {"place": one.inline.place, "text": text.strip(), **numbers}
