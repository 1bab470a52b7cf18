"""The model's own chat template as a dialect: `ChatTemplateDialect`.

`find_behaviour` finds what a markup writes around an assistant's turn, by rendering short chats.
`probe.prove` tries what the template wants in messages, and opens the dialect. Every rendered
turn is read back before it is trained on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from toolhone.dialects.base import History, ParsedReply, ParseProblem, Syntax
from toolhone.dialects.chat_template.sanitise import (
    ChatMessage,
    ChatWriter,
    ControlTokenGuard,
    Markup,
)
from toolhone.dialects.chat_template.turns import (
    TemplateBehaviour,
    Turns,
    common_start,
    without_stop,
)
from toolhone.dialects.syntax.delimited import DelimitedSyntax
from toolhone.dialects.syntax.model_text import (
    USUAL,
    ReasoningBlock,
    read_after_reasoning,
    split_reasoning,
)
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.tokenizer import Spans, TextTokenizer

SENTINEL, REASON = "Sentinel7", "Reason7"
QUESTION: ChatMessage = {"role": "user", "content": "question"}
ANSWERED: tuple[ChatMessage, ...] = (QUESTION, {"role": "assistant", "content": SENTINEL})
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""The fields of a message in which templates look for reasoning."""
ANOTHER: ChatMessage = {"role": "user", "content": "another"}


class MarkupDialect:
    """What dialects share that put a syntax into a chat markup."""

    def __init__(
        self,
        markup: Markup,
        behaviour: TemplateBehaviour,
        syntax: Syntax,
        guard: ControlTokenGuard,
        keep_history: bool = False,
    ) -> None:
        self.name = syntax.name
        self.markup = markup
        self.behaviour = behaviour
        self.syntax = syntax
        self.stop = behaviour.stop
        self.ends = behaviour.earlier_stop
        self.history = History.KEPT if keep_history else History.TEMPLATE
        self._turns = Turns(markup, guard, behaviour, keep_history)

    def _chat(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[ChatMessage]:
        """The messages as the markup takes them, disguised."""
        raise NotImplementedError

    def _offer(self, tools: Sequence[Tool]) -> list[Json]:
        """The tools as the markup takes them, disguised."""
        raise NotImplementedError

    def render(self, conversation: Conversation) -> list[Spans]:
        """Return one list of spans, or one per turn; `DialectError` for a turn that is misread."""
        tools = conversation.tools
        chat = self._chat(conversation.messages, tools)
        turns = [message for message in conversation.messages if message.role == "assistant"]

        def check(k: int, text: str) -> None:
            check_reading(split_reasoning(turns[k]), self.parse(text, tools), text)

        return self._turns.render(chat, self._offer(tools), check)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Spans:
        return self._turns.prompt(self._chat(messages, tools), self._offer(tools))

    def suffix(
        self, messages: Sequence[Message], tools: Sequence[Tool], results: Sequence[Message]
    ) -> Spans:
        last = len(self._chat(messages, tools)) - 1
        chat = self._chat([*messages, *results], tools)
        return self._turns.suffix(chat, last, self._offer(tools))

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        """Read an assistant's turn, with or without its stop mark."""
        behaviour = self.behaviour
        lead = "" if isinstance(self.syntax, DelimitedSyntax) else behaviour.lead

        def read(rest: str) -> ParsedReply:
            rest = rest.removeprefix(lead)
            if behaviour.trail and rest.rstrip().endswith(behaviour.trail):
                rest = rest.rstrip().removesuffix(behaviour.trail)
            return self.syntax.read_body(rest, tools)

        body = behaviour.open_thought(without_stop(text, self.stop)).removeprefix(lead)
        own = body.lstrip().startswith(behaviour.thought.open)
        return read_after_reasoning(body, read, behaviour.thought if own else USUAL)


class ChatTemplateDialect(MarkupDialect):
    """The model's chat template with a syntax that reads its calls. `prove_template` opens it."""

    def __init__(
        self,
        markup: Markup,
        behaviour: TemplateBehaviour,
        syntax: Syntax,
        writer: ChatWriter,
        keep_history: bool = False,
    ) -> None:
        super().__init__(markup, behaviour, syntax, writer.guard, keep_history)
        self.name = "native"
        self.writer = writer

    def _chat(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[ChatMessage]:  # noqa: ARG002
        return self.writer.chat(messages)

    def _offer(self, tools: Sequence[Tool]) -> list[Json]:
        return self.writer.tools(tools)


def check_reading(message: Message, reply: ParsedReply, text: str) -> None:
    """Raise `DialectError` when `text`, written for `message`, is read as something else.

    White space at the ends of texts does not count.
    """
    wrote, read = message.tool_calls, reply.calls
    what = ""
    if len(wrote) != len(read):
        what = f"{len(wrote)} calls, {len(read)} read back"
    elif changed := [
        (a, b) for a, b in zip(wrote, read, strict=True) if a != b or _types(a) != _types(b)
    ]:
        a, b = changed[0]
        what = f"the call {a.to_dict()!r:.100}, read back as {b.to_dict()!r:.100}"
    elif _texts(message) != _texts(reply):
        what = (
            f"the text{' beside a call' if wrote else ''} {_texts(message)!r:.100}, "
            f"read back as {_texts(reply)!r:.100}"
        )
    elif reply.problem is not ParseProblem.NONE:
        what = f"a turn, read back as {reply.problem.value}"
    if what:
        raise DialectError(
            f"a message cannot be kept in this dialect: {what}; written was {text!r:.200}"
        )


def _types(call: ToolCall) -> str:
    """The arguments as text, which separates 1, 1.0 and true; they are equal in Python."""
    return json.dumps(call.arguments, sort_keys=True, default=str)


def _texts(message: Message | ParsedReply) -> str:
    """Reasoning and content without white space at their ends."""
    reasoning = (message.reasoning or "").strip()
    return (f"({reasoning})\n" if reasoning else "") + (message.content or "").strip()


def find_behaviour(
    markup: Markup,
    tokenizer: TextTokenizer,
    called: Sequence[ChatMessage] = (),
    tools: Sequence[Json] = (),
) -> TemplateBehaviour:
    """Return the behaviour of a markup with these tools.

    `called`: a chat that ends in a call which holds `SENTINEL`, where calls are native.
    `DialectError` when no control token of this tokenizer ends an assistant's turn.
    """
    asked = markup.write([QUESTION], tools, False)
    header = markup.write([QUESTION], tools, True)
    last = markup.write(ANSWERED, tools, False)
    ending = _after_sentinel(last)
    controls = tokenizer.control_texts
    thought = find_thought(markup, tools, header, called)
    borrowed = None if ending.strip() else _borrow_marks(markup, tools, called, controls)
    eos = [] if tokenizer.eos_text is None else [tokenizer.eos_text]
    stop = list(borrowed or ())
    if not borrowed:
        user_turn = header.rpartition("question")[2]
        marks = [_first_mark(user_turn, controls), tokenizer.eos_text]
        known = [mark for mark in marks if mark and mark in ending]
        stop = known[:1] or [_end_mark(ending, controls)]
        if called:
            stop.append(_call_end_mark(markup, tools, called, stop[0], controls))
    missing = _missing(header, last, controls)
    try:
        later = markup.write([*ANSWERED, ANOTHER], tools, False)
        between = _after_sentinel(later).partition("another")[0]
        first = stop[0] if borrowed or stop[0] in between else _end_mark(between, controls)
        earlier = list(borrowed or [first])
    except DialectError:
        later, earlier = last, []
    start = header if last.startswith(header) else header.removesuffix(missing)
    lead = last[len(start) : last.rfind(SENTINEL)] if last.startswith(start) else ""
    thought_marks = rf"\s*(?:{re.escape(thought.open)})?\s*{re.escape(thought.close)}\s*"
    bare_lead = re.sub(thought_marks, "", lead)
    return TemplateBehaviour(
        stop=tuple(dict.fromkeys([*stop, *eos])),
        earlier_stop=tuple(dict.fromkeys([*earlier, *stop, *eos])),
        no_thought="" if missing.rstrip().endswith(thought.open) else missing,
        earlier_no_thought=_missing(header, later, controls),
        opens_thought=header.rstrip().endswith(thought.open),
        lead=bare_lead if bare_lead.strip() or bare_lead == lead else "",
        trail="" if borrowed else ending[: ending.find(stop[0])].strip(),
        thought=thought,
        borrowed=borrowed,
        header=header.removeprefix(asked) if header.startswith(asked) else "",
    )


def find_thought(
    markup: Markup, tools: Sequence[Json], header: str, called: Sequence[ChatMessage] = ()
) -> ReasoningBlock:
    """Return the marks around reasoning that the template is given; the usual ones without any."""
    for find, chat in ((_thought_before_answer, ANSWERED), (_thought_before_call, called)):
        plain = _write(markup, chat, tools) if chat else ""
        for field in REASONING_FIELDS if plain else ():
            full = _write(markup, [*chat[:-1], {**chat[-1], field: REASON}], tools)
            found = find(header, plain, full) if REASON in full else None
            if found is not None:
                return found
    return USUAL


def _write(markup: Markup, chat: Sequence[ChatMessage], tools: Sequence[Json]) -> str:
    """The text of a chat; empty where the markup refuses it."""
    try:
        return markup.write(chat, tools, False)
    except DialectError:
        return ""


def _thought_before_call(header: str, plain: str, full: str) -> ReasoningBlock | None:
    """For templates that write reasoning beside calls only: between the header and the call."""
    call = plain.removeprefix(header)
    thought = full.removeprefix(header).removesuffix(call)
    if header + call != plain or header + thought + call != full:
        return None
    opening, _, close = thought.rpartition(REASON)
    opening, close = opening.strip(), close.strip()
    return ReasoningBlock(opening, close) if opening and close else None


def _thought_before_answer(header: str, plain: str, full: str) -> ReasoningBlock | None:
    """The marks between which the reasoning of an answer is."""
    start, end = full.rfind(REASON), full.rfind(SENTINEL)
    if start >= end:
        return None
    close = full[start + len(REASON) : end].strip()
    if full.startswith(header) and start > len(header):
        opening = full[len(header) : start].strip()
    else:
        patterns = (r"<[^<>]*>\s*$", r"\[[^\[\]]*\]\s*$", r"\S+\s*$")
        ends = [found[0].strip() for one in patterns if (found := re.search(one, full[:start]))]
        opening = ends[0] if ends else ""
    lead = plain[len(header) : plain.rfind(SENTINEL)].strip() if plain.startswith(header) else ""
    if not lead.startswith(USUAL.open):
        close = close.removesuffix(lead).strip()
    return ReasoningBlock(opening, close) if opening and close else None


def _after_sentinel(full: str) -> str:
    if SENTINEL not in full:
        raise DialectError("the chat template drops what the assistant says")
    return full.rpartition(SENTINEL)[2]


def _first_mark(text: str, controls: Sequence[str]) -> str:
    """The first control token in a text; empty for none."""
    found = [(text.find(mark), -len(mark), mark) for mark in controls if mark in text]
    return min(found)[2] if found else ""


def _end_mark(ending: str, controls: Sequence[str]) -> str:
    """The first control token after a plain answer."""
    if mark := _first_mark(ending, controls):
        return mark
    raise DialectError(
        f"the chat template ends a turn with {ending[-20:]!r}, which holds no control token of "
        "this tokenizer"
    )


def _call_end_mark(
    markup: Markup,
    tools: Sequence[Json],
    called: Sequence[ChatMessage],
    stop: str,
    controls: Sequence[str],
) -> str:
    """The mark that ends a turn with a call: the answer's, else the last one behind the call.

    Refused where the next turn's header follows.
    """
    ending = _after_sentinel(markup.write(called, tools, False))
    if stop in ending:
        return stop
    header = markup.write(called[:-1], tools, True)
    found = [
        (ending.rfind(text) + len(text), len(text), text) for text in controls if text in ending
    ]
    end, _, mark = max(found, default=(0, 0, ""))
    if not mark or ending[end:].strip() or header.rstrip().endswith(mark):
        raise DialectError(
            f"the chat template ends a call with {ending[-20:]!r}, which is no control token of "
            "this tokenizer"
        )
    return mark


def _borrow_marks(
    markup: Markup, tools: Sequence[Json], called: Sequence[ChatMessage], controls: Sequence[str]
) -> tuple[str, str] | None:
    """For a template that ends no turn: the first mark of a user's message, and of a result."""
    later = markup.write([*ANSWERED, ANOTHER], tools, False)
    answer = _end_mark(_after_sentinel(later), controls)
    if not called:
        return answer, answer
    full = markup.write(called, tools, False).rstrip()
    result: ChatMessage = {
        "role": "tool",
        "content": "result",
        "tool_call_id": "call00000",
        "name": "look_up7",
    }
    answered = markup.write([*called, result], tools, False)
    if not answered.startswith(full):
        return None
    return answer, _end_mark(answered[len(full) :], controls)


def _missing(header: str, full: str, controls: Sequence[str]) -> str:
    """The end of a turn's header that the rendered turn lacks (a thought); empty for none."""
    start, asked = full.rfind(SENTINEL), header.rfind("question") + len("question")
    if full.startswith(header) or start < 0:
        return ""
    shared = len(common_start(header, full[:start]))
    if shared < asked:
        return ""
    if shared == start:
        return header[start:]
    places = [header.rfind(text, 0, shared + len(text)) for text in controls]
    begins = [
        place
        for place, text in zip(places, controls, strict=True)
        if place >= 0 and place + len(text) > shared
    ]
    return header[min(begins) :] if begins and full.startswith(header[: min(begins)]) else ""
