"""Find the assistant's turns in a rendered chat: the prompt, the turn, and what follows it.

Everything follows from comparing rendered texts, so that no model, role header or end mark is
known here: a turn is what rendering messages[:i+1] adds to messages[:i] with the header, up to
its stop mark. A chat is append-only when each prompt begins with the one before it and its turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from toolhone.dialects.chat_template.sanitise import Chat, ChatMessage, ControlTokenGuard, Markup
from toolhone.dialects.syntax.model_text import USUAL, ReasoningBlock
from toolhone.errors import DialectError
from toolhone.rows import Origin
from toolhone.schema import Json
from toolhone.tokenizer import Span, Spans

STAND_IN: ChatMessage = {"role": "user", "content": "question"}


class RenderedTurn(NamedTuple):
    """One assistant turn, marked: what precedes it, what the assistant writes, what follows."""

    prompt: str
    text: str
    rest: str


@dataclass(frozen=True)
class TemplateBehaviour:
    """What a markup writes around an assistant's turn. Certificates hold these fields by name.

    stop, earlier_stop: marks that end the last turn, and earlier ones. no_thought: the end of the
    header that the rendered last turn lacks (an empty thought); earlier_no_thought: the same for
    earlier turns. opens_thought: the header begins a thought. lead, trail: text in front of the
    assistant's text and behind it, without thoughts. borrowed: where the template ends no turn,
    the first mark of the message after an answer and after a call. header: what asking for a turn
    adds; some templates write it in the turn behind a tool's result. opened: the thought that the
    header begins and the turns of the template never have, so that it is written into the last one.
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
    opened: str = ""

    def open_thought(self, text: str) -> str:
        """Put the mark in front of a sampled text whose thought the header has opened."""
        opened = not self.opens_thought or text.lstrip().startswith(self.thought.open)
        return text if opened else self.thought.open + text


class Turns:
    """Splits rendered chats into turns.

    keep_history: earlier turns stay as they were generated where the markup would rewrite them.
    """

    def __init__(
        self,
        markup: Markup,
        guard: ControlTokenGuard,
        behaviour: TemplateBehaviour,
        keep_history: bool = False,
    ) -> None:
        self.markup, self.guard, self.behaviour = markup, guard, behaviour
        self.keep_history = keep_history

    def turn(self, messages: Chat, tools: Sequence[Json], index: int) -> RenderedTurn:
        """Return the turn of the assistant message at `index`, rendered as the last message."""
        behaviour = self.behaviour
        prompt = self.markup.write(messages[:index], tools, True)
        full = self.markup.write(messages[: index + 1], tools, False)
        start, thought = _start(prompt, full, behaviour.no_thought), ""
        if start is None and behaviour.opened and prompt.endswith(behaviour.opened):
            thought, plain = self._opened_thought(messages[index])
            full = self.markup.write([*messages[:index], plain], tools, False)
            start = _start(prompt.removesuffix(behaviour.opened), full, "")
        if start is None:
            start = self._start_by_stand_in(messages[index], tools, full)
        if start is None:
            asked, turn = self.guard.reveal(prompt), self.guard.reveal(full)
            at = len(common_start(asked, turn))
            raise DialectError(
                "the chat template writes a turn differently from the prompt that asks for it, so "
                f"that training and use would differ: after {asked[max(at - 30, 0) : at]!r} the "
                f"prompt goes on with {asked[at : at + 40]!r}, the turn with {turn[at : at + 40]!r}"
            )
        start = self._after_header(full, start)
        self._check_thought(prompt, full[start:], bool(thought))
        end = self._end(full, start, behaviour.stop)
        if end is not None:
            return RenderedTurn(prompt, thought + full[start:end], full[end:])
        if behaviour.borrowed is None:
            marks = " or ".join(behaviour.stop)
            raise DialectError(f"the chat template writes a turn without its end mark {marks}")
        mark = behaviour.borrowed[bool(messages[index].get("tool_calls"))]
        return RenderedTurn(prompt, full[start:].rstrip() + mark, "")

    def _check_thought(self, prompt: str, text: str, opened: bool) -> None:
        """Raise `DialectError` for a turn that begins with a thought where the prompt has one."""
        blocks, asked = (self.behaviour.thought, USUAL), prompt.rstrip()
        if not text.lstrip().startswith(tuple(block.open for block in blocks)):
            return
        if opened or any(asked.endswith(block.open) for block in blocks):
            raise DialectError("the chat template opens a thought in the prompt and in the turn")
        emptied = any(
            asked.endswith(block.close)
            and asked.removesuffix(block.close).rstrip().endswith(block.open)
            for block in blocks
        )
        if self.behaviour.no_thought or emptied or asked.endswith(USUAL.close):
            what = "asks for a turn without reasoning, and the message has some"
            raise DialectError(f"the chat template {what}")

    def _opened_thought(self, message: ChatMessage) -> tuple[str, ChatMessage]:
        """The thought of a message behind the mark that the header opened, with its end mark, and
        the message without it."""
        block = self.behaviour.thought
        said = str(message.get("content") or "").lstrip()
        own = said.removeprefix(block.open).partition(block.close)
        if not said.startswith(block.open) or not own[1]:
            return f"\n{block.close}\n\n", message
        plain = {**message, "content": own[2].lstrip("\n")}
        return f"{own[0].strip()}\n{block.close}\n\n", plain

    def _start_by_stand_in(
        self, message: ChatMessage, tools: Sequence[Json], full: str
    ) -> int | None:
        """Find the turn by a short chat that ends in the same turn; None when `full` does not.

        For templates that change what precedes a turn (white space behind a result) with it.
        """
        prompt = self.markup.write([STAND_IN], tools, True)
        short = self.markup.write([STAND_IN, message], tools, False)
        start = _start(prompt, short, self.behaviour.no_thought)
        ends = start is not None and full.endswith(short[start:])
        return len(full) - len(short) + start if start is not None and ends else None

    def render(
        self, messages: Chat, tools: Sequence[Json], check: Callable[[int, str], None]
    ) -> list[Spans]:
        """Render all assistant turns as training text: one list of spans, or one for each turn.

        `check(k, text)` may refuse the k-th turn. Messages after the last turn are left out.
        """
        places = _assistants(messages)
        turns = [self.turn(messages, tools, index) for index in places]
        for k, turn in enumerate(turns):
            check(k, self.guard.reveal(turn.text))
        if not turns:
            return []
        check_shown(messages[: places[-1]], tools, turns[-1].prompt)
        spans_of, rest = self.guard.to_spans, self.guard.to_spans(turns[-1].rest)
        following = list(
            zip(turns, ["", *(turn.prompt + turn.text for turn in turns)], strict=False)
        )
        if all(turn.prompt.startswith(before) for turn, before in following):
            spans: Spans = []
            for k, (turn, before) in enumerate(following):
                spans += spans_of(turn.prompt[len(before) :])
                spans += spans_of(turn.text, Origin.SAMPLED, trained=True, turn=k)
            return [[*spans, *rest]]
        if self.keep_history:
            texts = [turn.text for turn in turns]
            return [[*self._keep(messages[: places[-1] + 1], tools, texts, trained=True), *rest]]
        earlier = [(turn.prompt, partial(str, turn.text)) for turn in turns]
        return [
            [
                *self._mark_earlier(turn.prompt, earlier[:k]),
                *spans_of(turn.text, Origin.SAMPLED, trained=True, turn=k),
                *spans_of(turn.rest),
            ]
            for k, turn in enumerate(turns)
        ]

    def prompt(self, messages: Chat, tools: Sequence[Json]) -> Spans:
        """Render everything up to where the assistant starts to write."""
        text = self.markup.write(messages, tools, True)
        check_shown(messages, tools, text)
        places = _assistants(messages)
        if self.keep_history and places:
            texts = [self._text(messages, tools, index) for index in places]
            return self._keep(messages, tools, texts, trained=False)
        prompts = [self.markup.write(messages[:index], tools, True) for index in places]
        texts_of = [partial(self._text, messages, tools, index) for index in places]
        return self._mark_earlier(text, list(zip(prompts, texts_of, strict=True)))

    def suffix(self, messages: Chat, last: int, tools: Sequence[Json]) -> Spans:
        """Render what follows the stop mark of the assistant message at `last`.

        Where the later messages change what precedes them, it is taken from a short chat that
        ends in the same way; where the template refuses the assistant's message (two calls at
        once, nothing at all), from one with a plainer turn. At last the turn's text is looked for.
        """
        turn, later = messages[last], messages[last + 1 :]
        calls = turn.get("tool_calls") or []
        one_call = [{**turn, "tool_calls": calls[:1]}] if len(calls) > 1 else []
        plainer = (turn, *one_call, {"role": "assistant", "content": "answer"})
        short = [[STAND_IN, message, *later] for message in plainer]
        chats = [(messages, last, False), *((chat, 1, False) for chat in short)]
        reason = "the chat template changes earlier turns when a result is added"
        for chat, index, by_text in (*chats, (messages, last, True)):
            try:
                full = self.markup.write(chat, tools, True)
                if by_text:
                    text = self._text(chat, tools, index)
                    begin = full.rfind(without_stop(text, self.behaviour.stop))
                    place = self._find(full, begin, text) if text else None
                else:
                    place = self._earlier(self.markup.write(chat[:index], tools, True), full)
            except DialectError as error:
                reason = str(error)
                continue
            if place is not None:
                return [Span("", Origin.SAMPLED), *self.guard.to_spans(full[place[1] :])]
        raise DialectError(f"nothing can follow the assistant's message: {reason}")

    def _text(self, messages: Chat, tools: Sequence[Json], index: int) -> str:
        """The text of a turn when it was the last one; empty where the template refuses it."""
        try:
            return self.turn(messages, tools, index).text
        except DialectError:
            return ""

    def _keep(
        self, messages: Chat, tools: Sequence[Json], texts: Sequence[str], trained: bool
    ) -> Spans:
        """The first prompt, then every turn's text as it is given, with what follows it."""
        places = _assistants(messages)
        spans = self.guard.to_spans(self.markup.write(messages[: places[0]], tools, True))
        ends = [*places[1:], len(messages)]
        for number, (text, index, end) in enumerate(zip(texts, places, ends, strict=True)):
            spans += self.guard.to_spans(text, Origin.SAMPLED, trained, number)
            if not trained or end < len(messages):
                spans += [span for span in self.suffix(messages[:end], index, tools) if span.text]
        return spans

    def _mark_earlier(self, text: str, earlier: Sequence[tuple[str, Callable[[], str]]]) -> Spans:
        """A prompt's spans, with the turns that can be found in it.

        `earlier`: of each assistant turn its prompt, and a function that returns its text.
        """
        spans: Spans = []
        done = 0
        for turn, (prompt, read_text) in enumerate(earlier):
            place = self._earlier(prompt, text)
            if place is None or place[0] < done:
                place = self._find(text, done, read_text())
            if place is not None and place[0] >= done:
                start, end = place
                spans += self.guard.to_spans(text[done:start])
                spans += self.guard.to_spans(text[start:end], Origin.SAMPLED, turn=turn)
                done = end
        return [*spans, *self.guard.to_spans(text[done:])]

    def _earlier(self, prompt: str, full: str) -> tuple[int, int] | None:
        """Where the turn that `prompt` asks for is in a longer chat; None when it is not there."""
        start = _start(prompt, full, self.behaviour.earlier_no_thought)
        if start is None:
            return None
        start = self._after_header(full, start)
        end = self._end(full, start, self.behaviour.earlier_stop)
        return None if end is None else (start, end)

    def _find(self, text: str, done: int, turn: str) -> tuple[int, int] | None:
        """Where a turn is whose prompt was rewritten: as it is, or without its thought."""
        body = without_stop(turn, self.behaviour.stop)
        without_thought = body.partition(self.behaviour.thought.close)[2].lstrip("\n")
        for wanted in filter(str.strip, (body, without_thought)):
            start = text.find(wanted, max(done, 0))
            end = start + len(wanted)
            for mark in self.behaviour.earlier_stop if start >= 0 else ():
                if text.startswith(mark, end):
                    return start, end + len(mark)
        return None

    def _after_header(self, full: str, start: int) -> int:
        """Where the turn begins for a model that is asked without the header."""
        header = self.behaviour.header
        return start + len(header) * full.startswith(header, start)

    def _end(self, full: str, start: int, stops: Sequence[str]) -> int | None:
        """Where the first stop mark ends behind a turn's thought, whose end mark may be one.

        Marks from outside are disguised, not found.
        """
        thought = self.behaviour.thought
        begin = len(full) - len(full[start:].lstrip())
        close = full.find(thought.close, begin) if full.startswith(thought.open, begin) else -1
        start = close + len(thought.close) if close >= 0 else start
        found = [(at, at + len(stop)) for stop in stops if (at := full.find(stop, start)) >= 0]
        return min(found)[1] if found else None


def check_shown(messages: Chat, tools: Sequence[Json], text: str) -> None:
    """Raise `DialectError` when a text from outside or a tool's name is missing in a rendered text.

    A text may be trimmed, or escaped as JSON.
    """
    for index, message in enumerate(messages):
        content = (message.get("content") or "").strip() if message["role"] != "assistant" else ""
        if content not in text and json.dumps(content, ensure_ascii=False)[1:-1] not in text:
            where = f"message {index + 1} ({message['role']})"
            raise DialectError(f"the chat template drops or changes the text of {where}")
    if not all(tool.get("function", tool)["name"] in text for tool in tools):
        raise DialectError("the chat template does not show every tool that is on offer")


def without_stop(text: str, stop: Sequence[str]) -> str:
    """Return the text without a stop mark at its end."""
    return next((text[: -len(mark)] for mark in stop if mark and text.endswith(mark)), text)


def _assistants(messages: Chat) -> list[int]:
    return [index for index, message in enumerate(messages) if message["role"] == "assistant"]


def _start(prompt: str, full: str, no_thought: str) -> int | None:
    """Where `full` continues after `prompt`, or after all of it but the thought at its end."""
    start = prompt if full.startswith(prompt) else prompt.removesuffix(no_thought)
    return len(start) if full.startswith(start) else None


def common_start(a: str, b: str) -> str:
    """Return the longest text that both begin with."""
    pairs = enumerate(zip(a, b, strict=False))
    return a[: next((k for k, (x, y) in pairs if x != y), min(len(a), len(b)))]
