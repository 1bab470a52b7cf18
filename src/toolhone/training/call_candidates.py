"""Proposes calls for plain text: sampled by the model after a few examples, by a rule for numbers,
or by a function of the user.

    proposed = Proposer(plan, tools, tokenizer, seed).propose(sampler, texts, 1, 0, lost)

Calls are `InlineCall`s without results, all different, in order of their places.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolhone.backends.base import Sampler, SamplingParams
from toolhone.config.small_sections import TeacherSection
from toolhone.config.user_code import USER_CODE, import_callable
from toolhone.data.plain_texts import PlainText
from toolhone.errors import ConfigError
from toolhone.rows import Row
from toolhone.schema import Tool, ToolCall
from toolhone.tokenizer import Span, TextTokenizer
from toolhone.training.inline_calls import MARK, InlineCall, read_call

NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w]|\.\d)")
OPERANDS = 3
"""Numbers before a place that the rule combines: the last ones."""
MOST_PLACES = 64
"""Places of a text whose probability of a call is measured."""
CALL_TOKENS = 32
EXAMPLES = (
    "Anna buys 3 boxes of 14 pens each, which makes [calculator(3 * 14)] 42 pens in all.",
    "Of the 850 people, 512 voted, so [calculator(850 - 512)] 338 people did not vote.",
    "The train covers 240 km in 3 hours, a speed of [calculator(240 / 3)] 80 km per hour.",
)
"""What a model is shown for the calculator."""


class Proposer:
    """Where the calls of an experiment come from (`teacher.candidates`)."""

    def __init__(
        self, plan: TeacherSection, tools: Sequence[Tool], tokenizer: TextTokenizer, seed: int
    ) -> None:
        self.plan, self.tools, self.tokenizer, self.seed = plan, tools, tokenizer, seed
        names = [tool.name for tool in tools]
        self.rule = None
        if plan.candidates == "numbers":
            if "calculator" not in names:
                raise ConfigError(
                    "teacher.candidates 'numbers' proposes calls of the calculator, and "
                    f"tools has {', '.join(names)}; add calculator"
                )
            self.rule = number_calls
        elif USER_CODE.fullmatch(plan.candidates):
            self.rule = import_callable(plan.candidates, Path.cwd(), "a source of candidates")
        elif plan.candidates != "model":
            raise ConfigError(
                f"teacher.candidates {plan.candidates!r} is none of model, numbers, "
                "'file.py:function'"
            )
        elif not plan.examples and names != ["calculator"]:
            raise ConfigError(
                "teacher.candidates 'model' shows the model texts with calls, and only "
                f"the calculator has some; give teacher.examples for {', '.join(names)}"
            )

    def propose(
        self,
        sampler: Sampler,
        texts: Sequence[PlainText],
        number: int,
        start: int,
        lost: Sequence[Counter[str]],
    ) -> list[list[InlineCall]]:
        """Calls for each text; `number` and `start` name random streams; `lost` gets counts."""
        if self.rule is not None:
            found = [
                [InlineCall(place, ToolCall(name, arguments)) for place, name, arguments in calls]
                for calls in (self.rule(text.text) for text in texts)
            ]
        else:
            found = self._sample(sampler, texts, number, start, lost)
        distinct = []
        for own, text, counts in zip(found, texts, lost, strict=True):
            unique = {(one.place, str(one.call)): one for one in own}
            kept = [one for one in unique.values() if 0 < one.place < len(text.text)]
            if len(kept) < len(own):
                counts["calls proposed twice, or at no place inside the text"] += len(own) - len(
                    kept
                )
            distinct.append(sorted(kept, key=lambda one: one.place))
        return distinct

    def _sample(
        self,
        sampler: Sampler,
        texts: Sequence[PlainText],
        number: int,
        start: int,
        lost: Sequence[Counter[str]],
    ) -> list[list[InlineCall]]:
        """Calls that the model writes at the places where it most likely begins one."""
        openings: list[tuple[int, int]] = []
        rows: list[Row] = []
        for index, text in enumerate(texts):
            for place in places_of(text.text):
                openings.append((index, place))
                rows.append(self._opening_row(text.text[:place], text.text))
        begins = [
            float(np.exp(values[row.mask].sum()))
            for values, row in zip(sampler.logprobs(rows), rows, strict=True)
        ]
        chosen: list[int] = []
        for index in range(len(texts)):
            own = [i for i, (whose, _) in enumerate(openings) if whose == index]
            likely = [i for i in own if begins[i] >= self.plan.min_probability]
            chosen += sorted(likely, key=lambda i: -begins[i])[: self.plan.positions]
        seed = (self.seed * 1_000_003 + number * 10_007 + start) % 2**32
        params = SamplingParams(CALL_TOKENS, num_samples=self.plan.calls, seed=seed)
        prompts = [rows[i].tokens.tolist() for i in chosen]
        found: list[list[InlineCall]] = [[] for _ in texts]
        for i, samples in zip(
            chosen, sampler.sample(prompts, params) if prompts else (), strict=True
        ):
            index, place = openings[i]
            for sample in samples:
                inside = self.tokenizer.decode(sample.tokens).partition("]")[0].partition(" ->")[0]
                call = read_call(f"[{inside.strip()}]", self.tools)
                if call is None:
                    lost[index]["samples that hold no call of a tool"] += 1
                else:
                    found[index].append(InlineCall(place, call))
        return found

    def _opening_row(self, before: str, text: str) -> Row:
        """The instruction, the text up to a place and ` [`, whose tokens the mask has."""
        spans = [Span(self.instruction(text) + before, control=False), Span("")]
        start = len(self.tokenizer.encode_spans(spans[:1]))
        row = self.tokenizer.encode_spans([*spans, Span(" [", control=False)])
        return row.with_mask(np.arange(len(row)) >= start)

    def instruction(self, text: str) -> str:
        """What the model reads before it annotates a text (as in appendix A.2 there)."""
        lines = [
            "Your task is to add calls of a tool to a text, where the result helps to write what "
            "follows. A call is written as [tool(argument)]. The tools:"
        ]
        lines += [
            f"{tool.name}: {tool.description.splitlines()[0]}"
            for tool in self.tools
            if tool.description
        ]
        for example in self.plan.examples or EXAMPLES:
            lines += ["", f"Input: {MARK.sub('', example)}", f"Output: {example}"]
        return "\n".join([*lines, "", f"Input: {text}", "Output: "])


def places_of(text: str) -> list[int]:
    """The places before words, at most `MOST_PLACES` of them, evenly spread."""
    places = [match.start() for match in re.finditer(r" (?=\S)", text)]
    step = max(1, -(-len(places) // MOST_PLACES))
    return places[::step]


def number_calls(text: str) -> list[tuple[int, str, dict[str, str]]]:
    """Calls of the calculator before each number: the operations on two of the last numbers.

    Whether a result is the number that follows is not looked at; the loss decides.
    """
    found, seen = [], list[str]()
    for match in NUMBER.finditer(text):
        place = match.start() - 1
        if place > 0 and text[place] == " ":
            operands = list(dict.fromkeys(seen[-OPERANDS:]))
            for first in operands:
                for second in operands:
                    signs = "+*-/" if first != second else "+*"
                    if operands.index(first) > operands.index(second):
                        signs = "-/"
                    for sign in signs:
                        found.append(
                            (place, "calculator", {"expression": f"{first}{sign}{second}"})
                        )
        seen.append(match[0])
    return found
