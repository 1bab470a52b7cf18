"""From calls to results and answers, for rows made for the user's own tools.

    runner = CallRunner(registry, invented)
    more, left = with_answers(conversations, runner, answers_of(examples), share=1.0, seed=0)

In an answer, `{result}` is the whole result and `{name}` a field of it.
"""

from __future__ import annotations

import json
import random
import string
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from toolhone.errors import DataError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.synthetic.clauses import wordings
from toolhone.synthetic.examples import CanonicalExample
from toolhone.synthetic.later_turns import marks, numbered, with_results
from toolhone.tools.open_world import WRITES, SimulatedWorld
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus
from toolhone.tools.text_kinds import words_of

_SHOWN = 3
"""Items of a list that an answer names."""


@dataclass
class CallRunner:
    """Runs calls; those of `invented` tools get results that fit, and nothing runs for them."""

    registry: Registry
    invented: Collection[str] = ()
    ran: int = 0
    made_up: Counter[str] = field(default_factory=Counter)

    def run_all(self, calls: Sequence[ToolCall], tools: Sequence[Tool]) -> list[ToolResult]:
        """Return the results, in the order of the calls."""
        made_up = [call.name for call in calls if call.name in self.invented]
        self.made_up.update(made_up)
        self.ran += len(calls) - len(made_up)
        if not made_up:
            return self.registry.run_all(calls)
        world = SimulatedWorld(tools)
        return [
            world.call(call) if call.name in self.invented else self.registry.run(call)
            for call in calls
        ]


def answers_of(examples: Sequence[CanonicalExample]) -> dict[str, list[str]]:
    """Return the answers of the examples with one call, by tool."""
    wordings: dict[str, list[str]] = {}
    for example in examples:
        if len(example.calls) == 1 and example.answer:
            wordings.setdefault(example.calls[0].name, []).append(example.answer)
    return wordings


def with_answers(
    conversations: Sequence[Conversation],
    runner: CallRunner,
    answers: Mapping[str, Sequence[str]],
    share: float,
    seed: int,
) -> tuple[list[Conversation], Counter[str]]:
    """Put results and answers behind the calls of a share of the rows; seed and id decide which.

    answers: wordings by tool. Other rows, and those with a call that does not succeed, end with
    their last call that has no result; the latter are counted.
    """
    left: Counter[str] = Counter()
    result = []
    for conversation in conversations:
        rng = random.Random(f"answered {seed} {conversation.id}")
        goes_on = rng.random() < share
        messages = _answered(conversation, runner if goes_on else None, answers, rng, left)
        result.append(replace(conversation, messages=numbered(messages)))
    return result, left


def _answered(
    conversation: Conversation,
    runner: CallRunner | None,
    answers: Mapping[str, Sequence[str]],
    rng: random.Random,
    left: Counter[str],
) -> list[Message]:
    """Return the messages with results and answers, as far as the calls succeed."""
    source, messages, value = numbered(conversation.messages), list[Message](), None
    for index, message in enumerate(source):
        if any(map(marks, message.tool_calls)):
            filled = with_results(message.tool_calls[0], value)
            offered = {tool.name: tool for tool in conversation.tools}
            if filled is None or offered[filled.name].problems(filled.arguments):
                left["a result without what the next call needs"] += 1
                return messages[:-1]  # without that result the row ends with the call
            message = replace(message, tool_calls=(filled,))
        messages.append(message)
        if not message.tool_calls:
            continue
        if runner is None:
            return messages
        results = runner.run_all(message.tool_calls, conversation.tools)
        if failed := next((one for one in results if one.outcome is not ToolStatus.OK), None):
            left[f"a call ended as {failed.outcome}: {failed.content:.80}"] += 1
            return messages
        for call, one in zip(message.tool_calls, results, strict=True):
            messages.append(Message("tool", one.content, tool_call_id=call.id, name=call.name))
        value = results[-1].value
        if index + 1 == len(source) or source[index + 1].role == "user":
            pairs = zip(message.tool_calls, results, strict=True)
            parts = [_answer(call, one, runner, answers, rng) for call, one in pairs]
            messages.append(Message("assistant", " ".join(parts)))
    return messages


def _answer(
    call: ToolCall,
    result: ToolResult,
    runner: CallRunner,
    answers: Mapping[str, Sequence[str]],
    rng: random.Random,
) -> str:
    """Return the answer in the words of an example, or the result in plain words."""
    wording = rng.choice(answers.get(call.name) or [""])
    if wording and call.name not in runner.invented:
        return fill_answer(wording, result.value, result.content)
    changes = bool(WRITES.search(call.name))
    if changes and call.name in runner.invented:
        return str(rng.choice(wordings()["done"]))
    opening: str = rng.choice(wordings()["changes" if changes else "results"])
    text = opening + fill_answer("", result.value, result.content)
    return text[:1].upper() + text[1:] + ("" if text[-1:] in (".", "!", "?", "}", "]") else ".")


def fill_answer(wording: str, value: Json, content: str) -> str:
    """Return the answer to one result; without a wording the text, or "name: value" pairs.

    A field that the result lacks is a `DataError`.
    """
    values = value if isinstance(value, Mapping) else {}
    fields = {
        name: one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)
        for name, one in values.items()
    }
    if not wording:
        return _in_words(value) or content
    where = f"the answer {wording!r} of an example"
    try:
        places = list(string.Formatter().parse(wording))
    except ValueError as error:
        right = "write a brace that is no place as {{ or }}"
        raise DataError(f"{where}: {error}; {right}") from None
    for _, name, form, conversion in places:
        if form or conversion:
            raise DataError(f"{where} has a format in {{{name}}}; a place holds a name alone")
        if name not in (None, "result") and name not in fields:
            has = ", ".join(fields) or "no fields"
            raise DataError(f"{where} asks for {{{name}}}, but the tool's result has {has}")
    return wording.format_map({**fields, "result": content})


def _in_words(value: Json) -> str:
    """Return "customer id: C-1, name: Ada" of an object, such texts of a list of objects, or ""."""
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        more = f"; and {len(value) - _SHOWN} more" if len(value) > _SHOWN else ""
        return "; ".join(map(_in_words, value[:_SHOWN])) + more
    if not isinstance(value, Mapping):
        return ""
    texts = {
        " ".join(words_of(name)): one
        if isinstance(one, str)
        else json.dumps(one, ensure_ascii=False)
        for name, one in value.items()
    }
    return ", ".join(f"{name}: {text}" for name, text in texts.items())
