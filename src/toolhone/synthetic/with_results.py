"""Conversations that go on from the calls: the tools run, their results come in, and the assistant answers.

    answers = answers_of(examples)                             # {"book_table": ["Done: {booked}."]}
    more, left = with_answers(conversations, registry, answers, share=0.3, seed=0)
    left                                                       # Counter of reasons why a chosen row was left as it was

An example with calls may say how its answer is worded; `{result}` is the whole result, `{name}` a field of it. Without such a
wording a text is repeated as it is, and an object as "name: value" pairs. Tools are run for real here, once for each call, so this
is done only where it was asked for (`data.answered`). A row whose call does not succeed stays as it was, and is counted.
"""

from __future__ import annotations

import json
import random
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from toolhone.errors import DataError
from toolhone.schema import Conversation, Json, Message
from toolhone.synthetic.examples import CanonicalExample
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolStatus

Wordings = Mapping[str, Sequence[str]]
"""How an answer after a call may be worded, by tool."""


def answers_of(examples: Sequence[CanonicalExample]) -> dict[str, list[str]]:
    """The wordings that examples give: each with one call and an answer gives one for its tool."""
    wordings: dict[str, list[str]] = {}
    for example in examples:
        if len(example.calls) == 1 and example.answer:
            wordings.setdefault(example.calls[0].name, []).append(example.answer)
    return wordings


def with_answers(
    conversations: Sequence[Conversation],
    registry: Registry,
    answers: Wordings,
    share: float,
    seed: int,
) -> tuple[list[Conversation], Counter[str]]:
    """The conversations, a share of those that end with calls carried on to the answer; which ones depends on seed and id alone."""
    left: Counter[str] = Counter()
    result = []
    for conversation in conversations:
        rng = random.Random(f"answered {seed} {conversation.id}")
        chosen = conversation.messages[-1].tool_calls and rng.random() < share
        result.append(
            _carried_on(conversation, registry, answers, rng, left) if chosen else conversation
        )
    return result, left


def _carried_on(
    conversation: Conversation,
    registry: Registry,
    answers: Wordings,
    rng: random.Random,
    left: Counter[str],
) -> Conversation:
    calls = conversation.messages[-1].tool_calls
    results = registry.run_all(calls)
    failed = next((result for result in results if result.outcome is not ToolStatus.OK), None)
    if failed is not None:
        left[f"a call ended as {failed.outcome}: {failed.content:.80}"] += 1
        return conversation
    said = [
        Message("tool", result.content, tool_call_id=call.id, name=call.name)
        for call, result in zip(calls, results)
    ]
    wordings = [rng.choice(answers.get(call.name) or [""]) for call in calls]
    parts = [
        worded(wording, result.value, result.content) for wording, result in zip(wordings, results)
    ]
    return replace(
        conversation,
        messages=(*conversation.messages, *said, Message("assistant", " ".join(parts))),
    )


def worded(wording: str, value: Json, content: str) -> str:
    """The answer to one result. A field that the result lacks is a `DataError`."""
    if not wording:
        return _pairs(value) if isinstance(value, Mapping) and value else content
    fields = (
        {name: _plain(field) for name, field in value.items()} if isinstance(value, Mapping) else {}
    )
    try:
        places = list(string.Formatter().parse(wording))
    except ValueError as error:
        raise DataError(
            f"the answer {wording!r} of an example: {error}; write a brace that is no place as {{{{ or }}}}"
        ) from None
    for _, name, form, conversion in places:
        if form or conversion:
            raise DataError(
                f"the answer {wording!r} of an example has a format in {{{name}}}; a place holds a name alone"
            )
        if name not in (None, "result") and name not in fields:
            has = ", ".join(fields) or "no fields"
            raise DataError(
                f"the answer {wording!r} of an example asks for {{{name}}}, but the tool's result has {has}"
            )
    return wording.format_map({**fields, "result": content})


def _pairs(value: Mapping[str, Json]) -> str:
    return ", ".join(f"{name}: {_plain(field)}" for name, field in value.items())


def _plain(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
