"""What a chat markup does around an assistant's turn, found out by rendering short chats: `find_behaviour`.

No model is known by name; what is looked for is where a sentinel text comes out, and what stands around it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolhone.dialects.chat_template.turns import ChatMessage, Markup, TemplateBehaviour
from toolhone.dialects.syntax.model_text import USUAL, ReasoningBlock
from toolhone.errors import DialectError
from toolhone.schema import Json
from toolhone.tokenizer import TextTokenizer

SENTINEL = "Sentinel7"
REASON = "Reason7"
QUESTION: ChatMessage = {"role": "user", "content": "question"}
ANSWERED: tuple[ChatMessage, ...] = (QUESTION, {"role": "assistant", "content": SENTINEL})
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""The fields of a message in which templates look for reasoning."""
_ANOTHER: ChatMessage = {"role": "user", "content": "another"}


def find_behaviour(
    markup: Markup,
    tokenizer: TextTokenizer,
    called: Sequence[ChatMessage] = (),
    tools: Sequence[Json] = (),
) -> TemplateBehaviour:
    """The habits of a markup with these tools. `called`: a chat that ends in a call which holds `SENTINEL`, where calls are native.

    `DialectError` when nothing that is a control token of this tokenizer ends an assistant's turn.
    """
    header = markup.write([QUESTION], tools, True)
    last = markup.write(ANSWERED, tools, False)
    thought = find_thought(markup, tools, header, called)
    controls = tokenizer.control_texts
    borrowed = None if _tail(last).strip() else _borrowed(markup, tools, called, controls)
    stop = (
        list(borrowed)
        if borrowed
        else [_end_mark(_tail(last), header, controls, tokenizer.eos_text)]
    )
    if called and not borrowed:
        full = markup.write(called, tools, False)
        tail = _tail(full)
        stop.append(
            stop[0]
            if stop[0] in tail
            else _last_mark(full, markup.write(called[:-1], tools, True), controls)
        )
    eos = [] if tokenizer.eos_text is None else [tokenizer.eos_text]
    missing = _missing(header, last, controls)
    try:
        later = markup.write([*ANSWERED, _ANOTHER], tools, False)
        between = _tail(later).partition("another")[0]
        earlier = list(
            borrowed or [stop[0] if stop[0] in between else _first_mark(between, controls)]
        )
    except DialectError:
        later, earlier = last, []
    start = header if last.startswith(header) else header.removesuffix(missing)
    lead = last[len(start) : last.rfind(SENTINEL)] if last.startswith(start) else ""
    ending = _tail(last)
    return TemplateBehaviour(
        stop=tuple(dict.fromkeys([*stop, *eos])),
        earlier_stop=tuple(dict.fromkeys([*earlier, *stop, *eos])),
        no_thought="" if missing.rstrip().endswith(thought.open) else missing,
        earlier_no_thought=_missing(header, later, controls),
        opens_thought=header.rstrip().endswith(thought.open),
        lead=_without_thought(lead, thought),
        trail="" if borrowed else ending[: ending.find(stop[0])].strip(),
        thought=thought,
        borrowed=borrowed,
        header=header[len(asked) :]
        if (asked := markup.write([QUESTION], tools, False)) and header.startswith(asked)
        else "",
    )


def find_thought(
    markup: Markup, tools: Sequence[Json], header: str, called: Sequence[ChatMessage] = ()
) -> ReasoningBlock:
    """The marks around reasoning, where the template writes reasoning that it is given; else the usual ones."""
    return (
        _thought_before_answer(markup, tools, header)
        or _thought_before_call(markup, tools, header, called)
        or USUAL
    )


def _thought_before_call(
    markup: Markup, tools: Sequence[Json], header: str, called: Sequence[ChatMessage]
) -> ReasoningBlock | None:
    """For templates that write reasoning beside calls only: it stands between the header and the call."""
    for field in REASONING_FIELDS if called else ():
        try:
            plain = markup.write(called, tools, False)
            full = markup.write([*called[:-1], {**called[-1], field: REASON}], tools, False)
        except DialectError:
            continue
        start = full.rfind(REASON)
        if start < len(header) or not (
            plain.startswith(header)
            and full.startswith(header)
            and full.endswith(plain[len(header) :])
        ):
            continue
        end = len(full) - len(plain) + len(header)
        opening, close = full[len(header) : start].strip(), full[start + len(REASON) : end].strip()
        if opening and close:
            return ReasoningBlock(opening, close)
    return None


def _thought_before_answer(
    markup: Markup, tools: Sequence[Json], header: str
) -> ReasoningBlock | None:
    """The marks between which the reasoning of an answer stands."""
    for field in REASONING_FIELDS:
        try:
            full = markup.write([QUESTION, {**ANSWERED[1], field: REASON}], tools, False)
        except DialectError:
            continue
        start, end = full.rfind(REASON), full.rfind(SENTINEL)
        if not 0 <= start < end:
            continue
        close = full[start + len(REASON) : end].strip()
        if full.startswith(header) and start > len(header):
            opening = full[len(header) : start].strip()
        else:
            ends = (
                re.search(pattern, full[:start])
                for pattern in (r"<[^<>]*>\s*$", r"\[[^\[\]]*\]\s*$", r"\S+\s*$")
            )
            opening = next((found[0].strip() for found in ends if found is not None), "")
        lead = _lead(markup, tools, header)
        close = close.removesuffix(lead).strip() if lead else close
        if opening and close:
            return ReasoningBlock(opening, close)
    return None


def keeps_system(markup: Markup) -> bool:
    """Whether the markup shows a system message, and leaves it where it is when the conversation goes on."""
    chat = [{"role": "system", "content": "Sentinel6"}, *ANSWERED, _ANOTHER]
    try:
        first, later = markup.write(chat[:2], (), False), markup.write(chat, (), False)
    except DialectError:
        return False
    end = first.find("Sentinel6") + len("Sentinel6")
    return "Sentinel6" in first and later.startswith(first[:end])


def _lead(markup: Markup, tools: Sequence[Json], header: str) -> str:
    """What stands between the header and a plain answer; thoughts without text are no lead."""
    last = markup.write(ANSWERED, tools, False)
    lead = last[len(header) : last.rfind(SENTINEL)].strip() if last.startswith(header) else ""
    return "" if lead.startswith(USUAL.open) else lead


def _without_thought(lead: str, thought: ReasoningBlock) -> str:
    """The lead without a thought that has no text, and without the white space that stood beside it."""
    bare = re.sub(rf"\s*(?:{re.escape(thought.open)})?\s*{re.escape(thought.close)}\s*", "", lead)
    return bare if bare.strip() or bare == lead else ""


def _tail(full: str) -> str:
    """What stands behind the sentinel."""
    if SENTINEL not in full:
        raise DialectError("the chat template drops what the assistant says")
    return full[full.rfind(SENTINEL) + len(SENTINEL) :]


def _marks_in(tail: str, controls: Sequence[str]) -> bool:
    return any(text in tail for text in controls)


def _end_mark(tail: str, header: str, controls: Sequence[str], eos: str | None) -> str:
    """What ends an answer: the mark that ends the user's turn, or the end-of-text token, where one stands there; else the first."""
    asked = header[header.rfind("question") + len("question") :]
    same = _first_mark(asked, controls) if _marks_in(asked, controls) else None
    return next(
        (mark for mark in (same, eos) if mark is not None and mark in tail), ""
    ) or _first_mark(tail, controls)


def _first_mark(tail: str, controls: Sequence[str]) -> str:
    """The first control token behind a plain answer."""
    found = [(tail.find(text), -len(text), text) for text in controls if text in tail]
    if not found:
        raise DialectError(
            f"the chat template ends a turn with {tail[-20:]!r}, which holds no control token of this tokenizer"
        )
    return min(found)[2]


def _last_mark(full: str, header: str, controls: Sequence[str]) -> str:
    """The last control token behind a call, which may have marks of its own; refused where the next turn's header follows."""
    tail = _tail(full)
    found = [(tail.rfind(text) + len(text), len(text), text) for text in controls if text in tail]
    if not found or tail[max(found)[0] :].strip() or header.rstrip().endswith(max(found)[2]):
        raise DialectError(
            f"the chat template ends a call with {tail[-20:]!r}, which is no control token of this tokenizer"
        )
    return max(found)[2]


def _borrowed(
    markup: Markup, tools: Sequence[Json], called: Sequence[ChatMessage], controls: Sequence[str]
) -> tuple[str, str] | None:
    """For a template that ends no turn: the first mark of the user's message after an answer, and of a result after a call."""
    later = markup.write([*ANSWERED, _ANOTHER], tools, False)
    answer = _first_mark(_tail(later), controls)
    if not called:
        return answer, answer
    full = markup.write(called, tools, False)
    answered = [
        *called,
        {"role": "tool", "content": "result", "tool_call_id": "call00000", "name": "look_up7"},
    ]
    result = markup.write(answered, tools, False)
    if not result.startswith(full.rstrip()):
        return None
    return answer, _first_mark(result[len(full.rstrip()) :], controls)


def _missing(header: str, full: str, controls: Sequence[str]) -> str:
    """The end of a turn's header that is missing from the rendered turn (a thought); empty where the turn has all of it."""
    start, asked = full.rfind(SENTINEL), header.rfind("question") + len("question")
    if full.startswith(header) or start < 0:
        return ""
    shared = next(
        (k for k, (x, y) in enumerate(zip(header, full[:start], strict=False)) if x != y),
        min(len(header), start),
    )
    if shared < asked:
        return ""
    if shared == start:
        return header[start:]
    begins = [
        place
        for text in controls
        if (place := header.rfind(text, 0, shared + len(text))) >= 0 and place + len(text) > shared
    ]
    return header[min(begins) :] if begins and full.startswith(header[: min(begins)]) else ""
