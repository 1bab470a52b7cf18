"""Mistakes put into gold replies, for preference pairs: each has a name and differs in one thing.

    batch = corrupt(assistant_turns(conversations), dialect, seed=0, each=1)
    batch.report["kinds"]                   # {"wrong_argument": 212, "missing_call": 187, ...}

Same seed and turns, same pairs. Values are compared as JSON.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from toolhone.data.preferences import AssistantTurn, PairBatch, PairKind, PreferencePair
from toolhone.dialects.chat_template.turns import without_stop
from toolhone.dialects.interface import Dialect, ParseProblem
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall

REPLIES = (
    "I can tell you that without looking it up.",
    "Sorry, I cannot help with that.",
    "Sure, here is what I know about that.",
)
"""Replies in place of a call where the data have none."""
_WORDS = ("first", "other", "north", "seven", "green", "later")
_MAX_DEPTH = 4
_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def corrupt(
    turns: Sequence[AssistantTurn],
    dialect: Dialect,
    seed: int = 0,
    each: int = 1,
    kinds: Sequence[PairKind] = (),
) -> PairBatch:
    """Make at most `each` pairs of every turn, of different kinds (default: all)."""
    kinds = kinds or CORRUPTIONS
    pools = _Pools(turns, dialect)
    pairs: list[PreferencePair] = []
    without: Counter[str] = Counter()
    for place, turn in enumerate(turns):
        rng = random.Random(f"corruption {seed} {place}")
        own: list[PreferencePair] = []
        for kind in rng.sample(list(kinds), len(kinds)):
            if len(own) < each and (wrong := _MISTAKES[kind](turn, pools, rng)) is not None:
                own.append(turn.against(kind, wrong, raw=kind is PairKind.MALFORMED))
        pairs += own
        if not own:
            without[f"none of {', '.join(kinds)} is possible"] += 1
    counts = Counter(pair.kind.value for pair in pairs)
    report = {"decisions": len(turns), "kinds": dict(sorted(counts.items()))}
    return PairBatch(pairs, {**report, "without_pair": dict(without)})


class _Pools:
    """The values of all turns by (tool, argument), their plain replies, and the dialect."""

    def __init__(self, turns: Sequence[AssistantTurn], dialect: Dialect) -> None:
        self.values: dict[tuple[str, str], list[Json]] = defaultdict(list)
        for call in (call for turn in turns for call in turn.gold.tool_calls):
            for name, value in call.arguments.items():
                self.values[call.name, name].append(value)
        self.replies = [turn.gold.content for turn in turns if not turn.gold.tool_calls]
        self.dialect = dialect

    def other(self, call: ToolCall, name: str, rng: random.Random) -> Json:
        """Return a value that another row has for this argument; None where all have the same."""
        value = call.arguments[name]
        for _ in range(4):
            drawn = rng.choice(self.values[call.name, name])
            if drawn is not None and type(drawn) is type(value) and drawn != value:
                return drawn
        return None

    def arguments(self, tool: Tool, source: Json, rng: random.Random) -> dict[str, Json]:
        """Return the required arguments of a tool, else its first; values of `source` first."""
        names = [*tool.parameters.get("required", ())] or list(tool.properties)[:1]
        left = [value for name, value in source.items() if name not in names]
        arguments: dict[str, Json] = {}
        for name in names:
            schema = tool.properties.get(name, {})
            kind = schema.get("type")
            types = _TYPES.get(kind, ()) if isinstance(kind, str) and "enum" not in schema else ()
            fitting = [
                value
                for value in left
                if isinstance(value, types) and isinstance(value, bool) == (kind == "boolean")
            ]
            known = self.values.get((tool.name, name))
            if name in source:
                arguments[name] = source[name]
            elif fitting:
                arguments[name] = fitting[0]
                left.remove(fitting[0])
            else:
                arguments[name] = rng.choice(known) if known else _invent(schema, rng)
        return arguments


Mistake = Callable[[AssistantTurn, _Pools, random.Random], Message | None]


def wrong_tool(turn: AssistantTurn, pools: _Pools, rng: random.Random) -> Message | None:
    """Call another tool on offer, with the same values where they fit."""
    calls, others = turn.gold.tool_calls, turn.uncalled_tools
    if not calls or not others:
        return None
    place, tool = rng.randrange(len(calls)), rng.choice(others)
    arguments = pools.arguments(tool, calls[place].arguments, rng)
    return _with_call(turn.gold, place, ToolCall(tool.name, arguments, calls[place].id))


def wrong_argument(turn: AssistantTurn, pools: _Pools, rng: random.Random) -> Message | None:
    """Replace one value: by one that another row has there, else by one of the same type."""
    if not turn.argument_places:
        return None
    place, name = rng.choice(turn.argument_places)
    call = turn.gold.tool_calls[place]
    old = call.arguments[name]
    schema = _parameters(turn, call.name).get("properties", {}).get(name)
    enum = schema.get("enum", ()) if isinstance(schema, Mapping) else ()
    others = [choice for choice in enum if choice != old]
    value = rng.choice(others) if others else None
    value = pools.other(call, name, rng) if value is None else value
    value = _alter(old, rng) if value is None else value
    if value is None or value == old:
        return None
    wrong = replace(call, arguments={**call.arguments, name: value})
    return _with_call(turn.gold, place, wrong)


def missing_argument(turn: AssistantTurn, _: _Pools, rng: random.Random) -> Message | None:
    """Leave one argument out, a required one where there is one."""
    calls, present = turn.gold.tool_calls, turn.argument_places
    if not present:
        return None
    demanded = [_parameters(turn, call.name).get("required", ()) for call in calls]
    required = [(place, name) for place, name in present if name in demanded[place]]
    place, name = rng.choice(required or present)
    kept = {key: value for key, value in calls[place].arguments.items() if key != name}
    return _with_call(turn.gold, place, replace(calls[place], arguments=kept))


def needless_call(turn: AssistantTurn, pools: _Pools, rng: random.Random) -> Message | None:
    """Call a tool where none is wanted, or one more than is wanted."""
    if not turn.uncalled_tools:
        return None
    tool = rng.choice(turn.uncalled_tools)
    call = ToolCall(tool.name, pools.arguments(tool, {}, rng))
    content = turn.gold.content if turn.gold.tool_calls else None
    return replace(turn.gold, content=content, tool_calls=(*turn.gold.tool_calls, call))


def missing_call(turn: AssistantTurn, pools: _Pools, rng: random.Random) -> Message | None:
    """Leave one of several calls out, or reply in place of the only one."""
    calls = turn.gold.tool_calls
    if not calls:
        return None
    if len(calls) > 1:
        place = rng.randrange(len(calls))
        return replace(turn.gold, tool_calls=(*calls[:place], *calls[place + 1 :]))
    return Message("assistant", rng.choice(pools.replies or REPLIES), turn.gold.reasoning)


def _parameters(turn: AssistantTurn, name: str) -> Mapping[str, Any]:
    return next((tool.parameters for tool in turn.task.tools if tool.name == name), {})


def _with_call(gold: Message, place: int, call: ToolCall) -> Message:
    return replace(gold, tool_calls=(*gold.tool_calls[:place], call, *gold.tool_calls[place + 1 :]))


def malformed(turn: AssistantTurn, pools: _Pools, rng: random.Random) -> Message | None:
    """Break the text of gold's calls so that the dialect cannot read it."""
    if not turn.gold.tool_calls:
        return None
    text, tools = written(turn, pools.dialect), turn.task.tools
    broken = [text[: rng.randint(max(1, 2 * len(text) // 5), max(1, len(text) - 1))]]
    for mark in "}])\"':{[(":
        if places := [place for place, character in enumerate(text) if character == mark]:
            place = rng.choice(places)
            broken.append(text[:place] + text[place + 1 :])
    last = max(text.rfind(mark) for mark in "}])")
    if last >= 0:
        broken += [text[: last + 1] + text[last] + text[last + 1 :], text[:last]]
    for wrong in rng.sample(broken, len(broken)):
        unreadable = pools.dialect.parse(wrong, tools).problem is not ParseProblem.NONE
        if wrong.strip() and wrong != text and unreadable:
            return Message("assistant", wrong)
    return None


def written(turn: AssistantTurn, dialect: Dialect) -> str:
    """Return gold as the dialect writes it, without its stop mark.

    A `DialectError` names the turn that the dialect cannot write.
    """
    task = turn.task
    try:
        spans = dialect.render(Conversation((*task.messages, turn.gold), task.tools))[-1]
    except DialectError as error:
        raise DialectError(f"{task.id}: {error}") from None
    runs = groupby(spans, lambda span: span.trained)
    texts = ["".join(span.text for span in run) for trained, run in runs if trained]
    return without_stop(texts[-1] if texts else "", dialect.stop)


def _invent(schema: Json, rng: random.Random, depth: int = 0) -> Json:
    """Return a value of the schema's type."""
    schema = schema if isinstance(schema, Mapping) else {}
    if schema.get("enum"):
        return rng.choice(list(schema["enum"]))
    match schema.get("type", "string"):
        case "integer" | "number":
            return rng.randint(2, 60)
        case "boolean":
            return rng.random() < 0.5
        case "array":
            return [_invent(schema.get("items"), rng, depth + 1)] if depth < _MAX_DEPTH else []
        case "object":
            inner = schema.get("properties", {}) if depth < _MAX_DEPTH else {}
            names = [name for name in schema.get("required", ()) if name in inner]
            return {name: _invent(inner[name], rng, depth + 1) for name in names}
    return " ".join(rng.sample(_WORDS, 2))


def _alter(value: Json, rng: random.Random) -> Json:
    """Return another value of the same type, near this one; None where nothing can change.

    Texts lose a word, get one more, or have two different neighbours swapped.
    """
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + rng.choice((-3, -2, -1, 1, 2, 3, 10))
    if isinstance(value, str):
        words = value.split(" ")
        if len(words) > 1:
            place = rng.randrange(len(words))
            return " ".join(words[:place] + words[place + 1 :])
        places = [place for place in range(len(value) - 1) if value[place] != value[place + 1]]
        if not places:
            return f"{value} {rng.choice(_WORDS)}".strip()
        place = rng.choice(places)
        return value[:place] + value[place + 1] + value[place] + value[place + 2 :]
    if not value or not isinstance(value, list | dict):
        return None
    if isinstance(value, list):
        return value[:-1]
    name = rng.choice(list(value))
    inner = _alter(value[name], rng)
    return None if inner is None else {**value, name: inner}


_MISTAKES: Mapping[PairKind, Mistake] = {
    PairKind.WRONG_TOOL: wrong_tool,
    PairKind.WRONG_ARGUMENT: wrong_argument,
    PairKind.MISSING_ARGUMENT: missing_argument,
    PairKind.MALFORMED: malformed,
    PairKind.NEEDLESS_CALL: needless_call,
    PairKind.MISSING_CALL: missing_call,
}
CORRUPTIONS = tuple(_MISTAKES)
