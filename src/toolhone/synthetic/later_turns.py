"""Turns besides a question with all its arguments: something is missing, wrong, or follows from a
result.

    unsaid_request(phrase, rng, held)      # "refund order ORD-1" -> "What is the amount?"
    correction(phrase, call, rng, held)    # "sorry, I meant priority high" and the call again
    linked(first, link, phrase, rng, held) # "find Ada Smith, then create a ticket with ..."
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from toolhone.schema import Json, Message, Tool, ToolCall
from toolhone.synthetic.clauses import (
    Pieces,
    clauses_of,
    fill,
    is_bound,
    short_name,
    speak,
    wordings,
)
from toolhone.synthetic.described import DescribedPhrase
from toolhone.synthetic.phrases import Draw
from toolhone.synthetic.slots import SlotPiece
from toolhone.tools.schema_sampler import Leaf, Schemas

_MARK = "\0result of the call before"
_TRIES = 20
_ALL_UNSAID, _TWO_UNSAID, _GOES_ON, _IN_A_CLAUSE = 0.25, 0.25, 0.7, 0.4
_MOST_CHOICES = 6
_IDENTITY = re.compile(r"(?i)(?:^|_)(?:id|key|code|number|reference)$|Id$")


class Link(NamedTuple):
    """A parameter of `second` whose value is in the result of `first`, at `path`."""

    first: str
    second: str
    parameter: str
    path: tuple[str | int, ...]


class UnsaidRequest(NamedTuple):
    """A question that lacks something, and what follows: a question back, the answer, the call."""

    draw: Draw
    later: tuple[Message, ...]


def askable(tool: Tool) -> list[str]:
    """Return the required parameters of plain values, which a question can ask for."""
    schemas = Schemas(tool.parameters)
    (root, *_) = schemas.alternatives(tool.parameters)
    plain = []
    for name in root.get("required") or ():
        (first, *_) = schemas.alternatives(schemas.property(root, name))
        is_plain = first.get("type", "string" if "enum" in first else "") in (
            "string",
            "integer",
            "number",
        )
        plain += [name] if is_plain and "const" not in first else []
    return plain


def unsaid_request(phrase: DescribedPhrase, rng: random.Random, held: bool) -> UnsaidRequest:
    """Draw a request that does not say one, two or all of the arguments that it needs."""
    split = "held_out" if held else "train"
    (call,) = phrase.draw(rng, held).calls
    names = askable(phrase.tool)
    chance = rng.random()
    count = len(names) if chance < _ALL_UNSAID else 2 if chance < _ALL_UNSAID + _TWO_UNSAID else 1
    unsaid = sorted(rng.sample(names, min(count, len(names))), key=names.index)
    arguments = dict(call.arguments)
    if len(unsaid) == len(names):  # a bare command
        arguments = {name: value for name, value in arguments.items() if name in names}
    by_name = {leaf.path[0]: leaf for leaf in phrase.leaves(arguments)}
    asked = [by_name[name] for name in unsaid if name in by_name]
    draw = phrase.ask(arguments, unsaid, rng, held)
    if len(asked) == 1 and len(asked[0].schema.get("enum") or ()) in range(2, _MOST_CHOICES + 1):
        *first, last = (_text(speak(one, True, rng)) for one in asked[0].schema["enum"])
        parts = {"name": short_name(asked[0].path), "values": f"{', '.join(first)} or {last}"}
        question = str(rng.choice(wordings()["choices"][split])).format_map(parts)
    else:
        *first, last = (short_name(leaf.path) for leaf in asked)
        unknown = f"{', '.join(first)} and {last}" if first else last
        question = str(rng.choice(wordings()["asks"][split])).format(names=unknown)
        if first:
            question = question.replace("What is the", "What are the")
    later = [Message("assistant", question)]
    if rng.random() < _GOES_ON:
        listed: Pieces = []
        for index, leaf in enumerate(asked):
            name = f"{short_name(leaf.path)} " if len(asked) > 1 else ""
            comma = "" if not index else " and " if index == len(asked) - 1 else ", "
            listed += [SlotPiece(comma + name), *speak(leaf.value, "enum" in leaf.schema, rng)]
        given = fill(rng.choice(wordings()["given"][split]), {"listed": listed})
        later.append(Message("user", _text(given)))
        later.append(Message("assistant", None, tool_calls=(ToolCall(call.name, arguments),)))
    return UnsaidRequest(draw, tuple(later))


def correction(
    phrase: DescribedPhrase, call: ToolCall, rng: random.Random, held: bool
) -> tuple[Message, Message] | None:
    """Return a correction of one argument and the call that follows from it, if one is found."""
    split = "held_out" if held else "train"
    plain = (str, int, float)
    leaves = [
        leaf
        for leaf in phrase.leaves(call.arguments)
        if isinstance(leaf.value, plain) and not isinstance(leaf.value, bool)
    ]
    for _ in range(_TRIES if leaves else 0):
        leaf = rng.choice(leaves)
        value = phrase.another(leaf, rng, held)
        arguments = _with(dict(call.arguments), leaf.path, value)
        if value == leaf.value or phrase.tool.problems(arguments) or not phrase.agrees(arguments):
            continue
        said = _corrected(replace(leaf, value=value), phrase.has_partner(leaf.path), split, rng)
        again = Message("assistant", None, tool_calls=(ToolCall(call.name, arguments),))
        return Message("user", _text(said)), again
    return None


def _corrected(leaf: Leaf, in_span: bool, split: str, rng: random.Random) -> Pieces:
    """Return the new value in words; ends of spans in a clause, other values half of the time."""
    if in_span or is_bound(leaf) or rng.random() < _IN_A_CLAUSE:
        (clause,) = clauses_of([leaf], {}, split, rng, [leaf.path] if in_span else ())
        pieces = [SlotPiece("with "), *clause.pieces] if clause.place == 1 else clause.pieces
        return fill(rng.choice(wordings()["corrected_clauses"][split]), {"clause": pieces})
    value = speak(leaf.value, "enum" in leaf.schema, rng)
    parts: dict[str, str | Pieces] = {"name": short_name(leaf.path), "value": value}
    return fill(rng.choice(wordings()["corrections"][split]), parts)


def thanks(rng: random.Random, held: bool) -> tuple[Message, Message]:
    """Return thanks and a reply to them."""
    split = "held_out" if held else "train"
    said, reply = (rng.choice(wordings()[name][split]) for name in ("thanks", "welcome"))
    return Message("user", said), Message("assistant", reply)


def ends(message: Message) -> bool:
    """Return whether nothing but an answer or silence can follow: a reply to thanks, or a question
    for what is missing."""
    welcome = [text for said in wordings()["welcome"].values() for text in said]
    if message.content in (*welcome, "Good bye."):
        return True
    asked = [*wordings()["asks"].values(), *wordings()["choices"].values()]
    forms = [re.sub(r"\\{\w+\\}", ".+", re.escape(one)) for group in asked for one in group]
    forms.append("What are the .+")
    return not message.tool_calls and any(re.fullmatch(f, message.content or "") for f in forms)


def linked(
    first: Draw, link: Link, phrase: DescribedPhrase, rng: random.Random, held: bool
) -> Draw:
    """Return one draw of two calls, of which the second needs the result of the first."""
    (call,) = phrase.draw(rng, held).calls
    second = phrase.ask(dict(call.arguments), {link.parameter}, rng, held)
    marked = {**call.arguments, link.parameter: [_MARK, *link.path]}
    kind = "links" if len(link.path) == 1 else "links_of_lists"
    words = SlotPiece(rng.choice(wordings()[kind]["held_out" if held else "train"]))
    pieces = (*first.pieces, words, *second.pieces)
    core = f"{first.phrasing}{words.text}{second.phrasing}"
    return Draw(first.form, pieces, (*first.calls, ToolCall(call.name, marked)), core)


def marks(call: ToolCall) -> dict[str, tuple[str | int, ...]]:
    """Return parameter -> the place in the result before that holds its value."""
    return {
        name: tuple(value[1:])
        for name, value in call.arguments.items()
        if isinstance(value, list) and value[:1] == [_MARK]
    }


def with_results(call: ToolCall, result: Json) -> ToolCall | None:
    """Return the call with values of the result before; None where the result lacks one."""
    found = {name: look_up(result, path) for name, path in marks(call).items()}
    if None in found.values():
        return None
    return replace(call, arguments={**call.arguments, **found})


def look_up(value: Json, path: Sequence[str | int]) -> Json:
    """Return what is at a path of objects and lists, or None."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def find_links(tools: Sequence[Tool], results: Mapping[str, Json]) -> Iterator[Link]:
    """Yield the links from results of tools to required ids of others, by equal names."""
    for first in tools:
        result = results.get(first.name)
        path: tuple[int, ...] = (0,) if isinstance(result, list) and result else ()
        fields = look_up(result, path)
        if not isinstance(fields, Mapping):
            continue
        for second in tools:
            for name in filter(_IDENTITY.search, askable(second)):
                known = fields.get(name)
                own = name in first.properties or first.name == second.name
                if isinstance(known, str | int) and not own:
                    yield Link(first.name, second.name, name, (*path, name))


def numbered(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages with an id for each call."""
    count, result = 0, []
    for message in messages:
        calls = []
        for call in message.tool_calls:
            calls.append(replace(call, id=f"call{count}"))
            count += 1
        result.append(replace(message, tool_calls=tuple(calls)) if calls else message)
    return tuple(result)


def _with(root: Any, path: Sequence[str | int], value: Json) -> Any:
    if not path:
        return value
    copy: Any = list(root) if isinstance(root, list) else dict(root)
    copy[path[0]] = _with(copy[path[0]], path[1:], value)
    return copy


def _text(pieces: Sequence[SlotPiece]) -> str:
    return "".join(piece.text for piece in pieces)
