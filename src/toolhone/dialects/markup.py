"""Three ways to write a chat as text, and the probes that find out what a chat template does.

    TemplateMarkup  the model's own chat template
    ChatML          <|im_start|>role, a newline, the text, <|im_end|>, a newline
    Plain           Human: ... Assistant: ...   for models without a template; a turn ends with the end-of-text token

`stop_marks` finds which control tokens end an assistant's turn. Nothing here knows a call syntax or a model's name.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from typing import Any

import jinja2

from toolhone.dialects.thinking import OPEN
from toolhone.dialects.turns import ChatMessage, Markup
from toolhone.errors import DialectError
from toolhone.schema import Json
from toolhone.tokenizer import TextTokenizer

TEMPLATE_ERRORS = (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError, ZeroDivisionError)
"""What a chat template may raise when it is given something it was not written for."""

SENTINEL = "Sentinel7"


class TemplateMarkup:
    """The model's own chat template, whatever messages it is given."""

    name = "template"

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._wrapped: Any = tokenizer.wrapped
        template = self._wrapped.chat_template
        if not template:
            raise DialectError("the model's tokenizer has no chat template")
        self.hash = hashlib.sha256(str(template).encode()).hexdigest()

    def write(self, messages: Sequence[ChatMessage], tools: Sequence[Json], header: bool) -> str:
        try:
            return self._apply(messages, list(tools) or None, header)
        except TEMPLATE_ERRORS as error:
            reason = (str(error) or type(error).__name__).split("\n")[0]
        if not tools:
            with contextlib.suppress(*TEMPLATE_ERRORS):
                return self._apply(messages, [], header)
        raise DialectError(f"the chat template refuses the conversation: {reason:.200}")

    def _apply(self, messages: Sequence[ChatMessage], tools: list[Json] | None, header: bool) -> str:
        return str(self._wrapped.apply_chat_template(list(messages), tools, add_generation_prompt=header, tokenize=False))


class ChatML:
    """`<|im_start|>role`, the text, an end mark: `<|im_end|>` where that is one token, else the end-of-text token."""

    name = "chatml"

    def __init__(self, tokenizer: TextTokenizer) -> None:
        end = "<|im_end|>" if tokenizer.control_id("<|im_end|>") is not None else tokenizer.eos_text
        if end is None:
            raise DialectError("ChatML needs <|im_end|> or an end-of-text token as one token; this tokenizer has neither")
        self.end = end
        self._begin = tokenizer.bos_text

    def write(self, messages: Sequence[ChatMessage], tools: Sequence[Json], header: bool) -> str:  # noqa: ARG002
        turns = [f"<|im_start|>{message['role']}\n{message['content']}{self.end}\n" for message in messages]
        return self._begin + "".join(turns) + ("<|im_start|>assistant\n" if header else "")


class Plain:
    """`Human: ...`, an empty line, `Assistant: ...`, the end-of-text token, an empty line. System text stands in front."""

    name = "plain"

    def __init__(self, tokenizer: TextTokenizer) -> None:
        if tokenizer.eos_text is None:
            raise DialectError("the plain markup needs an end-of-text token that is one token; this tokenizer has none")
        self.end = tokenizer.eos_text
        self._begin = tokenizer.bos_text

    def write(self, messages: Sequence[ChatMessage], tools: Sequence[Json], header: bool) -> str:  # noqa: ARG002
        return self._begin + "".join(map(self._turn, messages)) + ("Assistant:" if header else "")

    def _turn(self, message: ChatMessage) -> str:
        if message["role"] == "assistant":
            return f"Assistant: {message['content']}{self.end}\n\n"
        return f"{message['content']}\n\n" if message["role"] == "system" else f"Human: {message['content']}\n\n"


def stop_marks(
    markup: Markup, tokenizer: TextTokenizer, chats: Sequence[Sequence[ChatMessage]], tools: Sequence[Json] = ()
) -> tuple[str, ...]:
    """The control tokens that end the last (assistant) message of each of these chats, then the end-of-text token.

    Each chat's last message must hold `SENTINEL`; the last control token behind it ends the turn.
    """
    stops: list[str] = []
    for chat in chats:
        full = markup.write(chat, tools, False)
        if SENTINEL not in full:
            raise DialectError("the chat template drops what the assistant says")
        tail = full[full.rfind(SENTINEL) + len(SENTINEL) :]
        ends = [(tail.rfind(text) + len(text), len(text), text) for text in tokenizer.control_texts if text in tail]
        if not ends:
            raise DialectError(
                f"the chat template ends an assistant's turn with {tail[-20:]!r}, which holds no control token of this tokenizer"
            )
        end, _, stop = max(ends)
        if tail[end:].strip() or markup.write(chat[:-1], tools, True).rstrip().endswith(stop):
            raise DialectError("the chat template opens the assistant's next turn even where it is not asked to")
        stops.append(stop)
    eos = [] if tokenizer.eos_text is None else [tokenizer.eos_text]
    return tuple(dict.fromkeys([*stops, *eos]))


def no_thought(markup: Markup, tools: Sequence[Json] = ()) -> str:
    """What the header of a turn ends in though a rendered turn lacks it: an empty thought. Empty where there is no such thing."""
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": SENTINEL}]
    prompt, full = markup.write(chat[:1], tools, True), markup.write(chat, tools, False)
    start = full.rfind(SENTINEL)
    closed = prompt[start:] if start >= 0 and full.startswith(prompt[:start]) else ""
    return "" if closed.rstrip().endswith(OPEN) else closed


def keeps_system(markup: Markup) -> bool:
    """Whether the markup shows a system message, and leaves it where it is when the conversation goes on."""
    user = {"role": "user", "content": "question"}
    chat = [
        {"role": "system", "content": SENTINEL},
        user,
        {"role": "assistant", "content": "answer"},
        {**user, "content": "another"},
    ]
    try:
        first, later = markup.write(chat[:2], (), False), markup.write(chat, (), False)
    except DialectError:
        return False
    end = first.find(SENTINEL) + len(SENTINEL)
    return SENTINEL in first and later.startswith(first[:end])
