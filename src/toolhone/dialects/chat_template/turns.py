"""Assistant turns inside a rendered chat: which text is the prompt, which the turn, and what comes between two turns.

A `Markup` writes a list of chat messages as one marked text (`marking.py`), with or without the header of the next assistant turn.
Everything else follows by comparing texts, so nothing here knows a model, a role header or an end mark:

* the turn of message i is what rendering messages[:i+1] adds to rendering messages[:i] with the header, up to and including
  the stop mark; what follows the mark is not part of it. A template that changes what stands before the turn is helped by
  a short stand-in chat, as long as both end in the same turn;
* a chat is *append-only* when each prompt begins with the prompt and turn before it; then it is one list of spans. Otherwise
  (the markup rewrites earlier turns) each turn gets a list of its own, with the history as it stands when that turn is written.

An assistant's turns always have `Origin.SAMPLED`, also in prompts, so that a prompt's ids begin a rendered chat's ids. Messages
behind the last assistant turn are not rendered: there is nothing in them to train on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol

from toolhone.dialects.base import ParsedReply, ParseProblem, Span, Spans
from toolhone.dialects.chat_template.sanitise import ControlTokenGuard
from toolhone.dialects.syntax.model_text import USUAL, ReasoningBlock
from toolhone.errors import DialectError
from toolhone.rows import Origin
from toolhone.schema import Json, Message, ToolCall

ChatMessage = Mapping[str, Json]
"""A message as chat templates take it, its texts marked."""

STAND_IN: ChatMessage = {"role": "user", "content": "question"}


class Markup(Protocol):
    """Writes chat messages as one marked text."""

    name: str

    def write(self, messages: Sequence[ChatMessage], tools: Sequence[Json], header: bool) -> str:
        """The text of these messages; with `header`, up to where the assistant starts to write. `DialectError` when it cannot."""
        ...


@dataclass(frozen=True)
class RenderedTurn:
    """One assistant turn, all texts marked: what stands before it, what the assistant writes, what follows its stop mark."""

    prompt: str
    text: str
    rest: str


@dataclass(frozen=True)
class TemplateBehaviour:
    """What a markup does around an assistant's turn (found by `habits.find_habits`).

    `stop` are the texts that end the last turn, `earlier_stop` those that end earlier ones. `no_thought` is what a turn's header
    ends in though the rendered last turn lacks it (an empty thought, in some templates), `earlier_no_thought` the same for earlier
    turns. `opens_thought`: the header begins a thought. `lead` is what the markup writes in front of the assistant's text, `trail`
    what it writes between the text and the stop mark, both without thoughts. `borrowed`: the template ends no turn; what ends an
    answer and a turn with calls is the first mark of the message that follows (the user's, the tool's), and is written here.
    `header` is what asking for a turn adds; some templates ask without it behind a tool's result, and write it in the turn.
    """

    stop: tuple[str, ...]
    earlier_stop: tuple[str, ...]
    no_thought: str = ""
    earlier_no_thought: str = ""
    opens_thought: bool = False
    lead: str = ""
    trail: str = ""
    thought: ReasoningBlock = USUAL
    borrowed: tuple[str, str] | None = None
    header: str = ""


class Turns:
    """Takes rendered chats apart."""

    def __init__(
        self,
        markup: Markup,
        marks: ControlTokenGuard,
        habits: TemplateBehaviour,
        kept: bool = False,
    ) -> None:
        """kept: earlier turns stay as they were said, also where the markup would rewrite them."""
        self.markup = markup
        self.marks = marks
        self.behaviour = habits
        self.kept = kept

    def turn(
        self, messages: Sequence[ChatMessage], tools: Sequence[Json], index: int
    ) -> RenderedTurn:
        """The turn of the assistant message at `index`, as it is when it is the last message."""
        prompt = self.markup.write(messages[:index], tools, True)
        full = self.markup.write(messages[: index + 1], tools, False)
        start = _start(prompt, full, self.behaviour.no_thought)
        if start is None:
            start = self._start_by_stand_in(messages[index], tools, full)
        if start is None:
            raise DialectError(_parting(self.marks.plain(prompt), self.marks.plain(full)))
        start = self._behind_header(full, start)
        if self.behaviour.no_thought and full.startswith(self.behaviour.thought.open, start):
            raise DialectError(
                "the chat template asks for a turn without reasoning, and the message has some"
            )
        end = _end(full, self._behind_thought(full, start), self.behaviour.stop)
        if end is None and self.behaviour.borrowed is not None:
            mark = self.behaviour.borrowed[bool(messages[index].get("tool_calls"))]
            return RenderedTurn(prompt, full[start:].rstrip() + mark, "")
        if end is None:
            raise DialectError(
                f"the chat template writes a turn without its end mark {' or '.join(self.behaviour.stop)}"
            )
        return RenderedTurn(prompt, full[start:end], full[end:])

    def _start_by_stand_in(
        self, message: ChatMessage, tools: Sequence[Json], full: str
    ) -> int | None:
        """Where `full` ends in the same turn as a short chat with this message does; None when it does not.

        For templates that change something before the turn (white space behind a tool's result, for instance) once it is there.
        """
        prompt = self.markup.write([STAND_IN], tools, True)
        short = self.markup.write([STAND_IN, message], tools, False)
        start = _start(prompt, short, self.behaviour.no_thought)
        return (
            len(full) - len(short) + start
            if start is not None and full.endswith(short[start:])
            else None
        )

    def render(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Json],
        check: Callable[[int, str], None],
    ) -> list[Spans]:
        """All assistant turns as training text. `check(k, text)` may refuse the k-th turn as the model would write it."""
        turns = [self.turn(messages, tools, index) for index in _assistants(messages)]
        for k, turn in enumerate(turns):
            check(k, self.marks.plain(turn.text))
        if not turns:
            return []
        need_shown(messages[: _assistants(messages)[-1]], tools, turns[-1].prompt)
        if all(
            after.prompt.startswith(before.prompt + before.text)
            for before, after in pairwise(turns)
        ):
            return [self._one_list(turns)]
        if self.kept:
            return [self._kept_list(turns, messages, tools)]
        said = [(turn.prompt, partial(str, turn.text)) for turn in turns]
        return [
            [*self._history(turn.prompt, said[:k]), *self._trained(turn)]
            for k, turn in enumerate(turns)
        ]

    def prompt(self, messages: Sequence[ChatMessage], tools: Sequence[Json]) -> Spans:
        """Everything up to where the assistant starts to write."""
        text = self.markup.write(messages, tools, True)
        need_shown(messages, tools, text)
        places = _assistants(messages)
        if self.kept and places:
            return self._kept_prompt(messages, tools, places)
        earlier = [
            (
                self.markup.write(messages[:index], tools, True),
                partial(self._said, messages, tools, index),
            )
            for index in places
        ]
        return self._history(text, earlier)

    def _kept_prompt(
        self, messages: Sequence[ChatMessage], tools: Sequence[Json], places: Sequence[int]
    ) -> Spans:
        """The first prompt, then every turn as it was said with what follows it, up to where the assistant starts to write."""
        spans = self.marks.spans(self.markup.write(messages[: places[0]], tools, True))
        for turn, (index, following) in enumerate(
            zip(places, [*places[1:], len(messages)], strict=True)
        ):
            spans += self.marks.spans(self._said(messages, tools, index), Origin.SAMPLED, turn=turn)
            spans += [span for span in self.suffix(messages[:following], index, tools) if span.text]
        return spans

    def _said(self, messages: Sequence[ChatMessage], tools: Sequence[Json], index: int) -> str:
        """The text of a turn as it was when it was the last one; empty where the template refuses what the model said."""
        try:
            return self.turn(messages, tools, index).text
        except DialectError:
            return ""

    def suffix(self, messages: Sequence[ChatMessage], last: int, tools: Sequence[Json]) -> Spans:
        """What follows the stop mark of the assistant message at `last`: the later messages and the next header.

        Where the later messages change what stands before them, it is taken from a short chat that ends in the same way; where
        the template refuses what the assistant said (two calls at once, nothing at all), from one with a plainer turn.
        """
        said, later = messages[last], messages[last + 1 :]
        reason = "the chat template changes earlier turns when a result is added"
        chats = [
            (messages, last),
            *(([STAND_IN, turn, *later], 1) for turn in (said, *_plainer(said))),
        ]
        for rewritten, (chat, index) in [*((False, one) for one in chats), (True, chats[0])]:
            try:
                spans = self._suffix(chat, index, tools, rewritten)
            except DialectError as error:
                reason = str(error)
                continue
            if spans is not None:
                return spans
        raise DialectError(f"nothing can be put behind what the assistant said: {reason}")

    def _suffix(
        self, messages: Sequence[ChatMessage], last: int, tools: Sequence[Json], rewritten: bool
    ) -> Spans | None:
        """What follows the turn at `last`. `rewritten`: the turn is looked for where what stands before it was changed."""
        full = self.markup.write(messages, tools, True)
        if rewritten:
            said = self._said(messages, tools, last)
            place = self._find(full, full.rfind(self._body(said)), said) if said else None
        else:
            place = self._earlier(self.markup.write(messages[:last], tools, True), full)
        return (
            None
            if place is None
            else [Span("", Origin.SAMPLED), *self.marks.spans(full[place[1] :])]
        )

    def _earlier(self, prompt: str, full: str) -> tuple[int, int] | None:
        """Where the turn that `prompt` asks for stands in a chat that goes on after it; None when the chat begins differently."""
        start = _start(prompt, full, self.behaviour.earlier_no_thought)
        start = None if start is None else self._behind_header(full, start)
        end = (
            None
            if start is None
            else _end(full, self._behind_thought(full, start), self.behaviour.earlier_stop)
        )
        return None if start is None or end is None else (start, end)

    def _behind_header(self, full: str, start: int) -> int:
        """Where the turn begins for a model that is asked without the header."""
        header = self.behaviour.header
        return start + len(header) if header and full.startswith(header, start) else start

    def _behind_thought(self, full: str, start: int) -> int:
        """Where a turn goes on behind its thought, whose end mark may be one that ends turns, too."""
        thought = self.behaviour.thought
        begin = start + len(full[start:]) - len(full[start:].lstrip())
        opens = full.startswith(thought.open, begin)
        end = full.find(thought.close, begin) if opens else -1
        return end + len(thought.close) if end >= 0 else start

    def _one_list(self, turns: Sequence[RenderedTurn]) -> Spans:
        spans: Spans = []
        done = 0
        for turn in turns:
            spans += [
                *self.marks.spans(turn.prompt[done:]),
                *self.marks.spans(turn.text, Origin.SAMPLED, trained=True),
            ]
            done = len(turn.prompt) + len(turn.text)
        return [*spans, *self.marks.spans(turns[-1].rest)]

    def _kept_list(
        self, turns: Sequence[RenderedTurn], messages: Sequence[ChatMessage], tools: Sequence[Json]
    ) -> Spans:
        """The first prompt, and then every turn as it was said with what follows it until the next one."""
        spans = self.marks.spans(turns[0].prompt)
        places = _assistants(messages)
        for turn, index, following in zip(turns, places, [*places[1:], None], strict=True):
            spans += self.marks.spans(turn.text, Origin.SAMPLED, trained=True)
            if following is not None:
                spans += [
                    span for span in self.suffix(messages[:following], index, tools) if span.text
                ]
        return [*spans, *self.marks.spans(turns[-1].rest)]

    def _trained(self, turn: RenderedTurn) -> Spans:
        return [
            *self.marks.spans(turn.text, Origin.SAMPLED, trained=True),
            *self.marks.spans(turn.rest),
        ]

    def _history(self, text: str, earlier: Sequence[tuple[str, Callable[[], str]]]) -> Spans:
        """A prompt's spans. `earlier`: of each assistant turn the prompt and the text; one that is not found stays unmarked."""
        spans: Spans = []
        done = 0
        for turn, (prompt, said) in enumerate(earlier):
            place = self._earlier(prompt, text)
            if place is None or place[0] < done:
                place = self._find(text, done, said())
            if place is not None and place[0] >= done:
                start, end = place
                spans += [
                    *self.marks.spans(text[done:start]),
                    *self.marks.spans(text[start:end], Origin.SAMPLED, turn=turn),
                ]
                done = end
        return [*spans, *self.marks.spans(text[done:])]

    def _body(self, said: str) -> str:
        """A turn's text without its end mark."""
        return next(
            (said[: -len(mark)] for mark in self.behaviour.stop if mark and said.endswith(mark)),
            said,
        )

    def _find(self, text: str, done: int, said: str) -> tuple[int, int] | None:
        """Where a turn stands whose prompt was rewritten: as it was said, else without its thought. A turn ends in its mark."""
        body, thought = self._body(said), self.behaviour.thought
        for wanted in (body, body.partition(thought.close)[2].lstrip("\n")):
            start = text.find(wanted, max(done, 0)) if wanted.strip() else -1
            end = -1 if start < 0 else start + len(wanted)
            mark = next(
                (
                    mark
                    for mark in self.behaviour.earlier_stop
                    if start >= 0 and text.startswith(mark, end)
                ),
                None,
            )
            if mark is not None:
                return start, end + len(mark)
        return None


def need_shown(messages: Sequence[ChatMessage], tools: Sequence[Json], text: str) -> None:
    """`DialectError` when a text from outside, or a tool on offer, does not stand in the rendered text as it was given.

    A text may stand there trimmed, or escaped as JSON writes it.
    """
    for index, message in enumerate(messages):
        content = (message.get("content") or "").strip() if message["role"] != "assistant" else ""
        if (
            content
            and content not in text
            and json.dumps(content, ensure_ascii=False)[1:-1] not in text
        ):
            raise DialectError(
                f"the chat template drops or changes the text of message {index + 1} ({message['role']})"
            )
    for tool in tools:
        if tool["function"]["name"] not in text:
            raise DialectError("the chat template does not show every tool that is on offer")


def _plainer(message: ChatMessage) -> list[ChatMessage]:
    """The assistant message with one call only, and with a plain text."""
    calls = message.get("tool_calls") or []
    return [
        *([{**message, "tool_calls": calls[:1]}] if len(calls) > 1 else []),
        {"role": "assistant", "content": "answer"},
    ]


def _assistants(messages: Sequence[ChatMessage]) -> list[int]:
    return [index for index, message in enumerate(messages) if message["role"] == "assistant"]


def _start(prompt: str, full: str, no_thought: str) -> int | None:
    """Where `full` goes on behind `prompt`, or behind all but the thought at its end; None when it begins differently."""
    if full.startswith(prompt):
        return len(prompt)
    bare = prompt.removesuffix(no_thought)
    return len(bare) if full.startswith(bare) else None


def _end(text: str, start: int, stops: Sequence[str]) -> int | None:
    """Where the first stop mark at or behind `start` ends. Marks in text from outside are disguised and not found."""
    found = [(place, place + len(stop)) for stop in stops if (place := text.find(stop, start)) >= 0]
    return min(found)[1] if found else None


def _parting(prompt: str, full: str) -> str:
    """A sentence that names the place where a prompt and the same chat with its answer differ."""
    at = next(
        (i for i, (a, b) in enumerate(zip(prompt, full, strict=False)) if a != b),
        min(len(prompt), len(full)),
    )
    was, then = prompt[at : at + 40], full[at : at + 40]
    return (
        "the chat template writes a turn differently from the prompt that asks for it, so that training and use would differ: "
        f"after {prompt[max(at - 30, 0) : at]!r} the prompt goes on with {was!r}, the turn with {then!r}"
    )


def check_reading(message: Message, reply: ParsedReply, text: str) -> None:
    """`DialectError` when `reply`, read from the `text` written for `message`, says something else."""
    wrote, read = message.tool_calls, reply.calls
    same = wrote == read and _spelled(wrote) == _spelled(read)
    if same and _said(message) == _said(reply) and reply.problem is ParseProblem.NONE:
        return
    if len(wrote) != len(read):
        what = f"{len(wrote)} calls, {len(read)} read back"
    elif not same:
        pair = next(
            (a, b)
            for a, b in zip(wrote, read, strict=True)
            if a != b or _spelled([a]) != _spelled([b])
        )
        what = f"the call {pair[0].to_dict()!r:.100}, read back as {pair[1].to_dict()!r:.100}"
    elif _said(message) != _said(reply):
        what = f"the text{' beside a call' if wrote else ''} {_said(message)!r:.100}, read back as {_said(reply)!r:.100}"
    else:
        what = f"a turn, read back as {reply.problem.value}"
    raise DialectError(
        f"a message cannot be kept in this dialect: {what}; written was {text!r:.200}"
    )


def _spelled(calls: Sequence[ToolCall]) -> str:
    """The arguments as text, so that 1, 1.0 and true, which are equal in Python, are told apart."""
    return json.dumps([call.arguments for call in calls], sort_keys=True, default=str)


def _said(message: Message | ParsedReply) -> str:
    """Reasoning and content without white space at their ends."""
    reasoning = (message.reasoning or "").strip()
    return "\n".join([*([f"({reasoning})"] if reasoning else []), (message.content or "").strip()])


def without_stop(text: str, stop: Sequence[str]) -> str:
    """The text without a stop mark at its end."""
    return next((text[: -len(mark)] for mark in stop if text.endswith(mark)), text)


@dataclass(frozen=True)
class Link:
    """A tool's result: the id of the call it answers, and the tool's name (None when nothing tells)."""

    id: str
    name: str | None


def call_ids(messages: Sequence[Message]) -> list[list[str]]:
    """For each message the ids of its calls, numbered through the conversation: nine letters and digits each."""
    ids: list[list[str]] = []
    count = 0
    for message in messages:
        ids.append([f"call{count + k:05d}" for k in range(len(message.tool_calls))])
        count += len(message.tool_calls)
    return ids


def link_results(messages: Sequence[Message]) -> list[Link | None]:
    """For each tool message the call it answers: by its id among the last calls, else the first that is still unanswered."""
    links: list[Link | None] = []
    waiting: list[tuple[str | None, Link]] = []
    for message, ids in zip(messages, call_ids(messages), strict=True):
        if message.role == "assistant":
            waiting = [
                (call.id, Link(new, call.name))
                for call, new in zip(message.tool_calls, ids, strict=True)
            ]
        if message.role != "tool":
            links.append(None)
            continue
        by_id = [
            k
            for k, (old, _) in enumerate(waiting)
            if old is not None and old == message.tool_call_id
        ]
        found = waiting.pop(by_id[0] if by_id else 0)[1] if waiting else Link("call00000", None)
        links.append(Link(found.id, message.name or found.name))
    return links
