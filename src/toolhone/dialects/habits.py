"""What a chat markup does around an assistant's turn, found out by rendering short chats: `find_habits`.

No model is known by name; what is looked for is where a sentinel text comes out, and what stands around it.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolhone.dialects.thinking import OPEN
from toolhone.dialects.turns import ChatMessage, Habits, Markup
from toolhone.errors import DialectError
from toolhone.schema import Json
from toolhone.tokenizer import TextTokenizer

SENTINEL = "Sentinel7"
QUESTION: ChatMessage = {"role": "user", "content": "question"}
ANSWERED: tuple[ChatMessage, ...] = (QUESTION, {"role": "assistant", "content": SENTINEL})
_ANOTHER: ChatMessage = {"role": "user", "content": "another"}


def find_habits(markup: Markup, tokenizer: TextTokenizer, called: Sequence[ChatMessage] = (), tools: Sequence[Json] = ()) -> Habits:
    """The habits of a markup with these tools. `called`: a chat that ends in a call which holds `SENTINEL`, where calls are native.

    `DialectError` when an assistant's turn does not end in a control token of this tokenizer.
    """
    header = markup.write([QUESTION], tools, True)
    last = markup.write(ANSWERED, tools, False)
    stop = [_first_mark(last, tokenizer)]
    if called:
        full = markup.write(called, tools, False)
        stop.append(stop[0] if stop[0] in _tail(full) else _last_mark(full, markup.write(called[:-1], tools, True), tokenizer))
    eos = [] if tokenizer.eos_text is None else [tokenizer.eos_text]
    missing = _missing(header, last)
    try:
        later = markup.write([*ANSWERED, _ANOTHER], tools, False)
        earlier = [_first_mark(later, tokenizer)]
    except DialectError:
        later, earlier = last, []
    return Habits(
        stop=tuple(dict.fromkeys([*stop, *eos])),
        earlier_stop=tuple(dict.fromkeys([*earlier, *stop, *eos])),
        no_thought="" if missing.rstrip().endswith(OPEN) else missing,
        earlier_no_thought=_missing(header, later),
        opens_thought=header.rstrip().endswith(OPEN),
        lead=last[len(header) : last.rfind(SENTINEL)] if last.startswith(header) else "",
    )


def keeps_system(markup: Markup) -> bool:
    """Whether the markup shows a system message, and leaves it where it is when the conversation goes on."""
    chat = [{"role": "system", "content": "Sentinel6"}, *ANSWERED, _ANOTHER]
    try:
        first, later = markup.write(chat[:2], (), False), markup.write(chat, (), False)
    except DialectError:
        return False
    end = first.find("Sentinel6") + len("Sentinel6")
    return "Sentinel6" in first and later.startswith(first[:end])


def _tail(full: str) -> str:
    """What stands behind the sentinel."""
    if SENTINEL not in full:
        raise DialectError("the chat template drops what the assistant says")
    return full[full.rfind(SENTINEL) + len(SENTINEL) :]


def _first_mark(full: str, tokenizer: TextTokenizer) -> str:
    """The first control token behind a plain answer: it ends the turn."""
    tail = _tail(full)
    found = [(tail.find(text), -len(text), text) for text in tokenizer.control_texts if text in tail]
    if not found:
        raise DialectError(f"the chat template ends a turn with {tail[-20:]!r}, which holds no control token of this tokenizer")
    return min(found)[2]


def _last_mark(full: str, header: str, tokenizer: TextTokenizer) -> str:
    """The last control token behind a call, which may have marks of its own; refused where the next turn's header follows."""
    tail = _tail(full)
    found = [(tail.rfind(text) + len(text), len(text), text) for text in tokenizer.control_texts if text in tail]
    if not found or tail[max(found)[0] :].strip() or header.rstrip().endswith(max(found)[2]):
        raise DialectError(f"the chat template ends a call with {tail[-20:]!r}, which is no control token of this tokenizer")
    return max(found)[2]


def _missing(header: str, full: str) -> str:
    """The end of a turn's header that is missing from the rendered turn (a thought); empty where the turn has all of it."""
    start = full.rfind(SENTINEL)
    return header[start:] if 0 <= start < len(header) and full.startswith(header[:start]) else ""
