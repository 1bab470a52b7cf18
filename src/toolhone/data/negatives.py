"""Typed mistakes put into gold replies, for preference pairs: each differs from gold in one thing that has a name.

    made = corrupted(decisions_of(conversations), dialect, seed=0, each=1)
    made.report["kinds"]                   # {"wrong_argument": 212, "missing_call": 187, ...}

    wrong_tool         another tool on offer, with the same values where they fit
    wrong_argument     one value replaced: by what another row has there, else by a value of the same type
    missing_argument   one argument left out, a required one where there is one
    malformed          the text of the calls, broken so that the dialect cannot read it
    needless_call      a call where none is wanted, or one more than is wanted
    missing_call       one of several calls left out, or words in place of the only one

Which mistakes a reply gets is drawn from those that are possible for it, a pure function of the seed and the place in the list.
Values are compared as JSON, so a "wrong" expression may by chance have gold's result. No model and no tokenizer is asked.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolhone.data.preferences import AssistantTurn, PairBatch, PairKind, PreferencePair
from toolhone.dialects.base import Dialect, ParseProblem
from toolhone.dialects.chat_template.turns import without_stop
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall

CORRUPTIONS = (
    PairKind.WRONG_TOOL,
    PairKind.WRONG_ARGUMENT,
    PairKind.MISSING_ARGUMENT,
    PairKind.MALFORMED,
    PairKind.NEEDLESS_CALL,
    PairKind.MISSING_CALL,
)
WORDS = (
    "I can tell you that without looking it up.",
    "Sorry, I cannot help with that.",
    "Sure, here is what I know about that.",
)
"""What is said in place of a call where no reply of the data says anything without one."""
_WORDS = ("first", "other", "north", "seven", "green", "later")
_MOST_DEPTH = 4


def corrupt(
    decisions: Sequence[AssistantTurn],
    dialect: Dialect,
    seed: int = 0,
    each: int = 1,
    kinds: Sequence[PairKind] = CORRUPTIONS,
) -> PairBatch:
    """At most `each` pairs of every decision, of different kinds."""
    pools = _Pools.of(decisions)
    pairs: list[PreferencePair] = []
    without: Counter[str] = Counter()
    for place, decision in enumerate(decisions):
        rng = random.Random(f"corruption {seed} {place}")
        found = list(_of_one(decision, dialect, pools, rng, kinds, each))
        pairs += found
        if not found:
            without[f"none of {', '.join(kinds)} is possible"] += 1
    counts = Counter(pair.kind.value for pair in pairs)
    return PairBatch(
        pairs,
        {
            "decisions": len(decisions),
            "kinds": dict(sorted(counts.items())),
            "without_pair": dict(without),
        },
    )


def _of_one(
    decision: AssistantTurn,
    dialect: Dialect,
    pools: _Pools,
    rng: random.Random,
    kinds: Sequence[PairKind],
    each: int,
) -> Iterator[PreferencePair]:
    made = 0
    for kind in rng.sample(list(kinds), len(kinds)):
        if made == each:
            return
        if kind is PairKind.MALFORMED:
            text = _malformed(decision, dialect, rng)
            pair = (
                None
                if text is None
                else decision.against(kind, [Message("assistant", text)], raw=True)
            )
        else:
            wrong = _MISTAKES[kind](decision, pools, rng)
            pair = None if wrong is None else decision.against(kind, [wrong])
        if pair is not None:
            made += 1
            yield pair


@dataclass(frozen=True)
class _Pools:
    """What the data says elsewhere: values by (tool, argument), and replies without a call."""

    values: Mapping[tuple[str, str], Sequence[Json]]
    replies: Sequence[Message]

    @staticmethod
    def of(decisions: Sequence[AssistantTurn]) -> _Pools:
        values: dict[tuple[str, str], list[Json]] = {}
        for decision in decisions:
            for call in decision.gold.tool_calls:
                for name, value in call.arguments.items():
                    values.setdefault((call.name, name), []).append(value)
        return _Pools(values, [one.gold for one in decisions if not one.gold.tool_calls])

    def other(self, call: ToolCall, name: str, rng: random.Random) -> Json:
        """A value that another row has for this argument; None when all have the same."""
        known, value = self.values.get((call.name, name), ()), call.arguments[name]
        for _ in range(4):
            drawn = rng.choice(known) if known else None
            if drawn is not None and type(drawn) is type(value) and drawn != value:
                return drawn
        return None


Mistake = Callable[[AssistantTurn, _Pools, random.Random], Message | None]


def _wrong_tool(decision: AssistantTurn, pools: _Pools, rng: random.Random) -> Message | None:
    calls, others = decision.gold.tool_calls, _others(decision)
    if not calls or not others:
        return None
    place, tool = rng.randrange(len(calls)), rng.choice(others)
    call = ToolCall(
        tool.name, _arguments(tool, calls[place].arguments, pools, rng), calls[place].id
    )
    return _with_call(decision.gold, place, call)


def _wrong_argument(decision: AssistantTurn, pools: _Pools, rng: random.Random) -> Message | None:
    chosen = _argument(decision.gold, rng)
    if chosen is None:
        return None
    place, name = chosen
    call = decision.gold.tool_calls[place]
    value = _enumerated(_parameter(decision.task.tools, call.name, name), call.arguments[name], rng)
    value = pools.other(call, name, rng) if value is None else value
    value = _altered(call.arguments[name], rng) if value is None else value
    if value is None or value == call.arguments[name]:
        return None
    return _with_call(
        decision.gold, place, replace(call, arguments={**call.arguments, name: value})
    )


def _missing_argument(decision: AssistantTurn, pools: _Pools, rng: random.Random) -> Message | None:  # noqa: ARG001 (a mistake's form)
    calls = decision.gold.tool_calls
    given = [(place, name) for place, call in enumerate(calls) for name in call.arguments]
    required = [
        (place, name)
        for place, name in given
        if name in _required(decision.task.tools, calls[place].name)
    ]
    if not given:
        return None
    place, name = rng.choice(required or given)
    kept = {key: value for key, value in calls[place].arguments.items() if key != name}
    return _with_call(decision.gold, place, replace(calls[place], arguments=kept))


def _needless_call(decision: AssistantTurn, pools: _Pools, rng: random.Random) -> Message | None:
    others = _others(decision)
    if not others:
        return None
    tool = rng.choice(others)
    call = ToolCall(tool.name, _arguments(tool, {}, pools, rng))
    if not decision.gold.tool_calls:
        return replace(decision.gold, content=None, tool_calls=(call,))
    return replace(decision.gold, tool_calls=(*decision.gold.tool_calls, call))


def _missing_call(decision: AssistantTurn, pools: _Pools, rng: random.Random) -> Message | None:
    calls = decision.gold.tool_calls
    if not calls:
        return None
    if len(calls) > 1:
        left_out = rng.randrange(len(calls))
        return replace(
            decision.gold,
            tool_calls=tuple(call for place, call in enumerate(calls) if place != left_out),
        )
    said = rng.choice(pools.replies).content if pools.replies else rng.choice(WORDS)
    return Message("assistant", said, decision.gold.reasoning)


_MISTAKES: Mapping[PairKind, Mistake] = {
    PairKind.WRONG_TOOL: _wrong_tool,
    PairKind.WRONG_ARGUMENT: _wrong_argument,
    PairKind.MISSING_ARGUMENT: _missing_argument,
    PairKind.NEEDLESS_CALL: _needless_call,
    PairKind.MISSING_CALL: _missing_call,
}


def _malformed(decision: AssistantTurn, dialect: Dialect, rng: random.Random) -> str | None:
    """The gold turn's text, broken so that it is not read as anything well-formed; None where there is nothing to break."""
    if not decision.gold.tool_calls:
        return None
    text = written(decision, dialect)
    ways = list(_broken(text, rng))
    for broken in rng.sample(ways, len(ways)):
        if (
            broken.strip()
            and broken != text
            and dialect.parse(broken, decision.task.tools).problem is not ParseProblem.NONE
        ):
            return broken
    return None


def written(decision: AssistantTurn, dialect: Dialect) -> str:
    """The gold turn as the dialect writes it, without its stop mark. `DialectError` names the decision when it cannot."""
    task = decision.task
    try:
        spans = dialect.render(Conversation((*task.messages, decision.gold), task.tools))[-1]
    except DialectError as error:
        raise DialectError(f"{task.id}: {error}") from None
    while spans and not spans[-1].trained:
        spans = spans[:-1]
    turn: list[str] = []
    for span in reversed(spans):
        if not span.trained:
            break
        turn.insert(0, span.text)
    return without_stop("".join(turn), dialect.stop)


def _broken(text: str, rng: random.Random) -> Iterator[str]:
    """Texts that lack something of this one: its end, a bracket, a quotation mark, a colon; or that have one too many."""
    yield text[: rng.randint(max(1, 2 * len(text) // 5), max(1, len(text) - 1))]
    for mark in ("}", "]", ")", '"', "'", ":", "{", "[", "("):
        places = [place for place, character in enumerate(text) if character == mark]
        if places:
            place = rng.choice(places)
            yield text[:place] + text[place + 1 :]
    last = max((text.rfind(mark) for mark in "}])"), default=-1)
    if last >= 0:
        yield text[: last + 1] + text[last] + text[last + 1 :]
        yield text[:last]


def _others(decision: AssistantTurn) -> list[Tool]:
    """Tools on offer that gold does not call."""
    called = {call.name for call in decision.gold.tool_calls}
    return [tool for tool in decision.task.tools if tool.name not in called]


def _with_call(gold: Message, place: int, call: ToolCall) -> Message:
    return replace(gold, tool_calls=(*gold.tool_calls[:place], call, *gold.tool_calls[place + 1 :]))


def _argument(gold: Message, rng: random.Random) -> tuple[int, str] | None:
    """A call and one of its arguments."""
    given = [(place, name) for place, call in enumerate(gold.tool_calls) for name in call.arguments]
    return rng.choice(given) if given else None


def _parameter(tools: Sequence[Tool], name: str, argument: str) -> Mapping[str, Json]:
    found: Any = next(
        (
            tool.parameters.get("properties", {}).get(argument)
            for tool in tools
            if tool.name == name
        ),
        None,
    )
    return found if isinstance(found, Mapping) else {}


def _required(tools: Sequence[Tool], name: str) -> Sequence[str]:
    return next((tool.parameters.get("required", ()) for tool in tools if tool.name == name), ())


def _arguments(
    tool: Tool, given: Mapping[str, Json], pools: _Pools, rng: random.Random
) -> dict[str, Json]:
    """Arguments for a tool: its required ones (else its first), with the given values where name or type are the same."""
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    names = [*tool.parameters.get("required", ())] or list(properties)[:1]
    left = [value for name, value in given.items() if name not in names]
    arguments: dict[str, Json] = {}
    for name in names:
        schema = properties.get(name, {})
        fitting = [value for value in left if _is_of(value, schema)]
        known = pools.values.get((tool.name, name))
        if name in given:
            arguments[name] = given[name]
        elif fitting:
            arguments[name] = fitting[0]
            left.remove(fitting[0])
        else:
            arguments[name] = rng.choice(known) if known else _invented(schema, rng)
    return arguments


def _is_of(value: Json, schema: Json) -> bool:
    kinds: dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "array": list,
        "object": dict,
    }
    wanted = schema.get("type") if isinstance(schema, Mapping) else None
    if (
        not isinstance(wanted, str)
        or "enum" in schema
        or isinstance(value, bool) != (wanted == "boolean")
    ):
        return False
    return isinstance(value, kinds.get(wanted, ()))


def _enumerated(schema: Mapping[str, Json], value: Json, rng: random.Random) -> Json:
    """Another value of an enumeration; None where there is none."""
    others = [other for other in schema.get("enum", ()) if other != value]
    return rng.choice(others) if others else None


def _invented(schema: Json, rng: random.Random, depth: int = 0) -> Json:
    """A value of the schema's type."""
    schema = schema if isinstance(schema, Mapping) else {}
    if schema.get("enum"):
        return rng.choice(list(schema["enum"]))
    kind = schema.get("type", "string")
    if kind in ("integer", "number"):
        return rng.randint(2, 60)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "array":
        return [_invented(schema.get("items"), rng, depth + 1)] if depth < _MOST_DEPTH else []
    if kind == "object":
        inner = schema.get("properties", {}) if depth < _MOST_DEPTH else {}
        return {
            name: _invented(inner[name], rng, depth + 1)
            for name in schema.get("required", ())
            if name in inner
        }
    return " ".join(rng.sample(_WORDS, 2))


def _altered(value: Json, rng: random.Random) -> Json:
    """Another value of the same type, near this one; None where nothing can be changed."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + rng.choice((-3, -2, -1, 1, 2, 3, 10))
    if isinstance(value, str):
        return _altered_text(value, rng)
    if isinstance(value, list):
        return value[:-1] if value else None
    if isinstance(value, dict) and value:
        name = rng.choice(list(value))
        inner = _altered(value[name], rng)
        return None if inner is None else {**value, name: inner}
    return None


def _altered_text(text: str, rng: random.Random) -> str:
    """The text without one of its words, with two different neighbours swapped, or with a word put behind it."""
    words = text.split(" ")
    if len(words) > 1:
        place = rng.randrange(len(words))
        return " ".join(words[:place] + words[place + 1 :])
    places = [place for place in range(len(text) - 1) if text[place] != text[place + 1]]
    if not places:
        return f"{text} {rng.choice(_WORDS)}".strip()
    place = rng.choice(places)
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]
