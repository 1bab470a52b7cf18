"""Calls inside plain text, `3 boxes of 4 pens are [calculator(3*4) -> 12] 12 pens`: written, read,
and made while a model continues a text.

    row = tokenizer.encode_spans(spans_of(text, [InlineCall(22, call, "12")]))
    texts = continue_texts(sampler, tokenizer, registry, ["3 boxes of 4 pens are"], 24)

A tool with one parameter takes its argument as it is, others take a JSON object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from toolhone.backends.base import Sampler, SamplingParams
from toolhone.rows import Origin
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
