"""The model's own chat template as a dialect: `ChatTemplateDialect`.

`find_behaviour` finds what a markup writes around an assistant's turn, by rendering short chats.
`probe.prove` tries what the template wants in messages, and opens the dialect. Every rendered
turn is read back before it is trained on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from toolhone.dialects.chat_template.sanitise import Chat, ChatMessage, ChatWriter, Markup
from toolhone.dialects.chat_template.turns import (
    TemplateBehaviour,
    Turns,
    common_start,
    without_stop,
)
from toolhone.dialects.interface import History, ParsedReply, ParseProblem, Syntax
from toolhone.dialects.syntax.delimited import DelimitedSyntax
from toolhone.dialects.syntax.model_text import (
    USUAL,
    ReasoningBlock,
    read_after_reasoning,
    split_reasoning,
)
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.schema.message import open_calls
from toolhone.tokenizer import Spans, TextTokenizer

SENTINEL, REASON = "Sentinel7", "Reason7"
QUESTION: ChatMessage = {"role": "user", "content": "question"}
ANSWERED: tuple[ChatMessage, ...] = (QUESTION, {"role": "assistant", "content": SENTINEL})
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""The fields of a message in which templates look for reasoning."""
ANOTHER: ChatMessage = {"role": "user", "content": "another"}


class MarkupDialect:
    """What dialects share that put a syntax into a chat markup."""

    name: str

    def __init__(
        self,
        markup: Markup,
        behaviour: TemplateBehaviour,
        syntax: Syntax,
        writer: ChatWriter,
        keep_history: bool = False,
    ) -> None:
        self.markup, self.behaviour = markup, behaviour
        self.syntax, self.writer = syntax, writer
        self.stop, self.ends = behaviour.stop, behaviour.earlier_stop
        self.history = History.KEPT if keep_history else History.TEMPLATE
        self._turns = Turns(markup, writer.guard, behaviour, keep_history)

    def _chat(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> tuple[list[ChatMessage], list[Json]]:
        """The messages and the tools as the markup takes them, disguised."""
        return self.writer.chat(messages), self.writer.tools(tools)

    def render(self, conversation: Conversation) -> list[Spans]:
        """Return one list of spans, or one per turn; `DialectError` for a turn that is misread."""
        tools = conversation.tools
        turns = [message for message in conversation.messages if message.role == "assistant"]

        def check(k: int, text: str) -> None:
            check_reading(split_reasoning(turns[k]), self.parse(text, tools), text)

        lists = self._turns.render(*self._chat(conversation.messages, tools), check)
        changed = [(k, turn.weight) for k, turn in enumerate(turns) if turn.weight != 1]
        weights = dict[int | None, float](changed)
        return [
            [replace(one, weight=weights.get(one.turn, 1)) for one in spans] if weights else spans
            for spans in lists
        ]

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Spans:
        for index, number, due in open_calls(messages):
            if any(message.role == "tool" for message in messages[index:due]):
                what = f"the call of {messages[index].tool_calls[number].name!r} has no result"
                where = f"messages[{index}].tool_calls[{number}]"
                raise DialectError(f"{where}: {what}, though others have; wanted a tool message")
        return self._turns.prompt(*self._chat(messages, tools))

    def suffix(
        self, messages: Sequence[Message], tools: Sequence[Tool], results: Sequence[Message]
    ) -> Spans:
        last = len(self._chat(messages, tools)[0]) - 1
        chat, offer = self._chat([*messages, *results], tools)
        return self._turns.suffix(chat, last, offer)

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

    name = "native"


def leaves_open(dialect: MarkupDialect, tools: Sequence[Tool]) -> bool:
    """Return whether a turn with a call, where the user speaks right behind the result, never ends.

    So it is where results are part of the turn, and only an answer behind them ends it.
    """
    call = Message("assistant", tool_calls=(ToolCall(tools[0].name, {}),))
    talk = [Message("user", "Ask7"), call, Message("tool", "Done7"), Message("user", "Again7")]
    try:
        asked, text = (
            "".join(span.text for span in dialect.prompt(part, tools)) for part in (talk[:1], talk)
        )
    except DialectError:
        return False
    behind = text[len(common_start(asked, text)) :].partition("Again7")[0]
    return dialect.behaviour.earlier_stop[0] not in behind


def check_reading(message: Message, reply: ParsedReply, text: str) -> None:
    """Raise `DialectError` when `text`, written for `message`, is read as something else.

    White space at the ends of texts does not count.
    """
    wrote, read = message.tool_calls, reply.calls
    pairs = zip(wrote, read, strict=False)
    changed = next(((a, b) for a, b in pairs if a != b or _spelled(a) != _spelled(b)), None)
    before, after = _texts(message), _texts(reply)
    what = ""
    if len(wrote) != len(read):
        what = f"{len(wrote)} calls, {len(read)} read back"
    elif changed is not None:
        first, second = changed
        what = f"the call {first.to_dict()!r:.100}, read back as {second.to_dict()!r:.100}"
    elif before != after:
        beside = " beside a call" if wrote else ""
        what = f"the text{beside} {before!r:.100}, read back as {after!r:.100}"
    elif reply.problem is not ParseProblem.NONE:
        what = f"a turn, read back as {reply.problem.value}"
    if what:
        raise DialectError(
            f"a message cannot be kept in this dialect: {what}; written was {text!r:.200}"
        )


def _spelled(call: ToolCall) -> str:
    """The arguments as text, which separates 1, 1.0 and true; they are equal in Python."""
    return json.dumps(call.arguments, sort_keys=True, default=str)


def _texts(message: Message | ParsedReply) -> str:
    """Reasoning and content without white space at their ends."""
    reasoning = (message.reasoning or "").strip()
    return (f"({reasoning})\n" if reasoning else "") + (message.content or "").strip()


def find_behaviour(
    markup: Markup,
    tokenizer: TextTokenizer,
    called: Chat = (),
    tools: Sequence[Json] = (),
    opened: bool = False,
) -> TemplateBehaviour:
    """Return the behaviour of a markup with these tools.

    `called`: a chat that ends in a call which holds `SENTINEL`, where calls are native. opened: a
    thought that the header opens may be written into turns of the template that lack it.
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
        marks = [*_marks_in(header.rpartition("question")[2], controls)[:1], *eos]
        stop = [mark for mark in marks if mark in ending][:1] or [_end_mark(ending, controls)]
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
    opens = missing.rstrip().endswith(thought.open)
    if missing.strip() and missing.strip() in lead and not opens:  # the turn has another header
        missing = lead = ""
    thought_marks = rf"\s*(?:{re.escape(thought.open)})?\s*{re.escape(thought.close)}\s*"
    bare_lead = re.sub(thought_marks, "", lead)
    return TemplateBehaviour(
        stop=tuple(dict.fromkeys([*stop, *eos])),
        earlier_stop=tuple(dict.fromkeys([*earlier, *stop, *eos])),
        no_thought="" if opens else missing,
        earlier_no_thought=_missing(header, later, controls),
        opened=missing if opened and opens else "",
        opens_thought=header.rstrip().endswith(thought.open),
        lead=bare_lead if bare_lead.strip() or bare_lead == lead else "",
        trail="" if borrowed else ending[: ending.find(stop[0])].strip(),
        thought=thought,
        borrowed=borrowed,
        header=header.removeprefix(asked) if header.startswith(asked) else "",
    )


def find_thought(
    markup: Markup, tools: Sequence[Json], header: str, called: Chat = ()
) -> ReasoningBlock:
    """Return the marks around reasoning that the template is given; the usual ones without any."""

    def write(chat: Chat) -> str:
        try:
            return markup.write(chat, tools, False)
        except DialectError:
            return ""

    for find, chat in ((_thought_before_answer, ANSWERED), (_thought_before_call, called)):
        plain = write(chat) if chat else ""
        for field in REASONING_FIELDS if plain else ():
            full = write([*chat[:-1], {**chat[-1], field: REASON}])
            opening, close = find(header, plain, full) if REASON in full else ("", "")
            if opening and close:
                return ReasoningBlock(opening, close)
    return USUAL


def _thought_before_call(header: str, plain: str, full: str) -> tuple[str, str]:
    """For templates that write reasoning beside calls only: between the header and the call."""
    call = plain.removeprefix(header)
    thought = full.removeprefix(header).removesuffix(call)
    opening, _, close = thought.rpartition(REASON)
    exact = header + call == plain and header + thought + call == full
    return (opening.strip(), close.strip()) if exact else ("", "")


def _thought_before_answer(header: str, plain: str, full: str) -> tuple[str, str]:
    """The marks between which the reasoning of an answer is."""
    start, end = full.rfind(REASON), full.rfind(SENTINEL)
    if start >= end:
        return "", ""
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
    return opening, close


def _after_sentinel(full: str) -> str:
    if SENTINEL not in full:
        raise DialectError("the chat template drops what the assistant says")
    return full.rpartition(SENTINEL)[2]


def _marks_in(text: str, controls: Sequence[str]) -> list[str]:
    """The control tokens in a text in the order in which they begin, longer ones first."""
    found = [mark for mark in controls if mark in text]
    return sorted(found, key=lambda mark: (text.find(mark), -len(mark), mark))


def _end_mark(ending: str, controls: Sequence[str]) -> str:
    """The first control token after a plain answer."""
    if marks := _marks_in(ending, controls):
        return marks[0]
    raise DialectError(
        f"the chat template ends a turn with {ending[-20:]!r}, which holds no control token of "
        "this tokenizer"
    )


def _call_end_mark(
    markup: Markup, tools: Sequence[Json], called: Chat, stop: str, controls: Sequence[str]
) -> str:
    """The mark that ends a turn with a call: the answer's, else the last one behind the call.

    Refused where the next turn's header follows.
    """
    ending = _after_sentinel(markup.write(called, tools, False))
    if stop in ending:
        return stop
    header = markup.write(called[:-1], tools, True)
    found = [(ending.rfind(mark) + len(mark), len(mark), mark) for mark in controls]
    end, _, mark = max((one for one in found if one[2] in ending), default=(0, 0, ""))
    if not mark or ending[end:].strip() or header.rstrip().endswith(mark):
        raise DialectError(
            f"the chat template ends a call with {ending[-20:]!r}, which is no control token of "
            "this tokenizer"
        )
    return mark


def _borrow_marks(
    markup: Markup, tools: Sequence[Json], called: Chat, controls: Sequence[str]
) -> tuple[str, str] | None:
    """For a template that ends no turn: the first mark of a user's message, and of a result."""
    later = markup.write([*ANSWERED, ANOTHER], tools, False)
    answer = _end_mark(_after_sentinel(later), controls)
    if not called:
        return answer, answer
    call = _after_sentinel(markup.write(called, tools, False)).rstrip()
    result = {"role": "tool", "content": "result", "tool_call_id": "call00000", "name": "look_up7"}
    answered = _after_sentinel(markup.write([*called, result], tools, False))
    if not answered.startswith(call):
        return None
    own = max((mark for mark in controls if call.endswith(mark)), key=len, default="")
    behind = answered[len(call) :].partition("result")[0]
    return answer, own if own and not _marks_in(behind, controls) else _end_mark(behind, controls)


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
    places = [(header.rfind(text, 0, shared + len(text)), len(text)) for text in controls]
    begin = min((at for at, size in places if at >= 0 and at + size > shared), default=None)
    return header[begin:] if begin is not None and full.startswith(header[:begin]) else ""
