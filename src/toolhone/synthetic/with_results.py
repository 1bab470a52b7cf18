"""Conversations continued from the calls: the tools run, and the assistant answers.

    answers = answers_of(examples)                             # {"book_table": ["Done: {booked}."]}
    more, left = with_answers(conversations, registry, answers, share=0.3, seed=0)
    left                                                       # why rows stayed as they were

In an answer, `{result}` is the whole result and `{name}` a field of it. Tools run for real.
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
"""Answers after a call, by tool."""


def answers_of(examples: Sequence[CanonicalExample]) -> dict[str, list[str]]:
    """Return the answers of the examples with one call, by tool."""
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
    """Continue a share of the conversations that end with calls; seed and id decide which.

    A conversation whose call does not succeed stays as it is and is counted.
    """
    left: Counter[str] = Counter()
    result = []
    for conversation in conversations:
        rng = random.Random(f"answered {seed} {conversation.id}")
        if conversation.messages[-1].tool_calls and rng.random() < share:
            calls = conversation.messages[-1].tool_calls
            results = registry.run_all(calls)
            failed = next((one for one in results if one.outcome is not ToolStatus.OK), None)
            if failed is None:
                parts = []
                messages = list(conversation.messages)
                for call, one in zip(calls, results, strict=True):
                    wording = rng.choice(answers.get(call.name) or [""])
                    parts.append(fill_answer(wording, one.value, one.content))
                    messages.append(
                        Message("tool", one.content, tool_call_id=call.id, name=call.name)
                    )
                messages.append(Message("assistant", " ".join(parts)))
                conversation = replace(conversation, messages=tuple(messages))
            else:
                left[f"a call ended as {failed.outcome}: {failed.content:.80}"] += 1
        result.append(conversation)
    return result, left


def fill_answer(wording: str, value: Json, content: str) -> str:
    """Return the answer to one result; without a wording the text, or "name: value" pairs.

    A field that the result lacks is a `DataError`.
    """
    values = value if isinstance(value, Mapping) else {}
    fields = {
        name: field if isinstance(field, str) else json.dumps(field, ensure_ascii=False)
        for name, field in values.items()
    }
    if not wording:
        return ", ".join(f"{name}: {field}" for name, field in fields.items()) or content
    where = f"the answer {wording!r} of an example"
    try:
        places = list(string.Formatter().parse(wording))
    except ValueError as error:
        raise DataError(
            f"{where}: {error}; write a brace that is no place as {{{{ or }}}}"
        ) from None
    for _, name, form, conversion in places:
        if form or conversion:
            raise DataError(f"{where} has a format in {{{name}}}; a place holds a name alone")
        if name not in (None, "result") and name not in fields:
            has = ", ".join(fields) or "no fields"
            raise DataError(f"{where} asks for {{{name}}}, but the tool's result has {has}")
    return wording.format_map({**fields, "result": content})
