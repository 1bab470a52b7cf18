"""Calls inside plain text, `3 boxes of 4 pens are [calculator(3*4) -> 12] 12 pens`.

    row = tokenizer.encode_spans(spans_of(text, [InlineCall(22, call, "12")]))
    texts = continue_texts(sampler, tokenizer, registry, ["3 boxes of 4 pens are"], 24)
    proposed = Proposer(plan, tools, tokenizer, seed).propose(sampler, texts, 1, 0, lost)

A tool with one parameter takes its argument as it is, others take a JSON object.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolhone.backends.base import Sampler, SamplingParams
from toolhone.config.small_sections import TeacherSection
from toolhone.config.user_code import USER_CODE, import_callable
from toolhone.data.plain_texts import PlainText
from toolhone.errors import ConfigError
from toolhone.rows import Origin, Row
from toolhone.schema import Tool, ToolCall
from toolhone.tokenizer import Span, TextTokenizer
from toolhone.tools.registry import Registry

MARK = re.compile(r" ?\[(\w+)\(([^\[\]]*)\)(?: ->[^\[\]]*)?\]")
"""A call in a text, with its result or without."""
MOST_CALLS = 4
"""Calls that one continuation may make."""


@dataclass(frozen=True)
class InlineCall:
    """A call at a place of a text: the index of the character that it comes before."""

    place: int
    call: ToolCall
    result: str = ""

    def opening(self, tools: Sequence[Tool]) -> str:
        """The text up to the result, which the model writes: ` [calculator(3*4) ->`."""
        return f" [{write_call(self.call, tools)} ->"


def write_call(call: ToolCall, tools: Sequence[Tool]) -> str:
    """Write a call as in a text: `calculator(3*4)`."""
    values = list(call.arguments.values())
    if _parameter_of(call.name, tools) is not None and len(values) == 1:
        return f"{call.name}({values[0] if isinstance(values[0], str) else json.dumps(values[0])})"
    return f"{call.name}({json.dumps(dict(call.arguments), ensure_ascii=False)})"


def read_call(text: str, tools: Sequence[Tool]) -> ToolCall | None:
    """Read the first call of a text; None where there is none of these tools."""
    match = MARK.search(text)
    if match is None or all(tool.name != match[1] for tool in tools):
        return None
    name, inside = match[1], match[2].strip()
    parameter, arguments = _parameter_of(name, tools), dict[str, object]()
    if parameter is not None and not inside.startswith("{"):
        return ToolCall(name, {parameter: inside}) if inside else None
    try:
        arguments = json.loads(inside or "{}")
    except ValueError:
        return None
    return ToolCall(name, arguments) if isinstance(arguments, dict) else None


def _parameter_of(name: str, tools: Sequence[Tool]) -> str | None:
    """The only parameter of a tool that takes a text."""
    (properties,) = (tool.properties for tool in tools if tool.name == name)
    names = list(properties)
    is_text = len(names) == 1 and properties[names[0]].get("type") == "string"
    return names[0] if is_text else None


def spans_of(text: str, calls: Sequence[InlineCall], tools: Sequence[Tool]) -> list[Span]:
    """The text with these calls, in order of their places; results are not trained on."""
    spans, start = list[Span](), 0
    for one in calls:
        spans += [_written(text[start : one.place]), _CUT]
        spans += [_written(one.opening(tools)), _CUT]
        spans += [Span(f" {one.result}]", Origin.TOOL, control=False), _CUT]
        start = one.place
    return [*spans, _written(text[start:])]


def _written(text: str) -> Span:
    return Span(text, Origin.SAMPLED, trained=True, control=False)


_CUT = Span("")


def continue_texts(
    sampler: Sampler,
    tokenizer: TextTokenizer,
    registry: Registry,
    texts: Sequence[str],
    max_tokens: int,
) -> list[str]:
    """Continue each text greedily, and make the calls that the model writes.

    A call runs when its arrow is written; its result and `]` follow as ids of their own, sampled
    ids are never encoded again. Each stretch between calls has at most `max_tokens` tokens.
    """
    arrow = len(texts) * [""]
    prompts = [tokenizer.encode(text) for text in texts]
    active = [index for index, ids in enumerate(prompts) if ids]
    for _ in range(MOST_CALLS + 1):
        params = SamplingParams(max_tokens, temperature=0.0)
        context = sampler.info.max_context
        fits = [i for i in active if not context or len(prompts[i]) < context - 1]
        samples = sampler.sample([prompts[index] for index in fits], params) if fits else []
        active = []
        for index, (sample,) in zip(fits, samples, strict=True):
            ids, written = _to_arrow(tokenizer, sample.tokens)
            call = read_call(written.removesuffix("->").rstrip() + "]", registry.tools)
            if not written.endswith("->") or call is None:
                arrow[index] += tokenizer.decode(sample.tokens)
                continue
            result = f" {registry.run(call).content}]"
            piece = tokenizer.encode_spans([_CUT, Span(result, control=False)]).tokens.tolist()
            prompts[index] = [*prompts[index], *ids, *piece]
            arrow[index] += written + result
            active.append(index)
    return arrow


def _to_arrow(tokenizer: TextTokenizer, ids: list[int]) -> tuple[list[int], str]:
    """The ids up to the first arrow, and their text; all of them without one."""
    if "->" in tokenizer.decode(ids):
        for end in range(1, len(ids) + 1):
            if "->" in (text := tokenizer.decode(ids[:end])):
                return ids[:end], text.rstrip()
    return ids, tokenizer.decode(ids)


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
