"""Ways to write a chat as text.

    TemplateMarkup  the model's own chat template
    CheckedMarkup   the same, for templates that escape characters
    ChatML          <|im_start|>role, a newline, the text, <|im_end|>, a newline
    Plain           Human: ... Assistant: ...   for models without a template; a turn ends with the end-of-text token

Nothing here knows a call syntax or a model's name; what a template does is found out in `habits.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from toolhone.dialects.chat_template.sanitise import ControlTokenGuard, restored
from toolhone.dialects.chat_template.turns import ChatMessage
from toolhone.errors import DialectError
from toolhone.schema import Json
from toolhone.tokenizer import TextTokenizer

TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What a chat template may raise when it is given something it was not written for."""


class TemplateMarkup:
    """The model's own chat template, whatever messages it is given. `switches` are keywords that it is given beside them."""

    name = "template"

    def __init__(
        self, tokenizer: TextTokenizer, switches: Mapping[str, Json] | None = None
    ) -> None:
        self._wrapped: Any = tokenizer.wrapped
        self.switches = dict(switches or {})
        template = self._wrapped.chat_template
        if not template:
            raise DialectError("the model's tokenizer has no chat template")
        self.source = str(template)
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

    def _apply(
        self, messages: Sequence[ChatMessage], tools: list[Json] | None, header: bool
    ) -> str:
        apply = self._wrapped.apply_chat_template
        return restored(
            str(
                apply(
                    list(messages),
                    tools,
                    add_generation_prompt=header,
                    tokenize=False,
                    **self.switches,
                )
            )
        )


class CheckedMarkup:
    """A template that writes some characters in another way (as `&lt;`, for instance): every text is written twice and compared.

    The disguise of text from outside keeps such a template from seeing those characters; a text that holds one is refused.
    """

    name = "template"

    def __init__(self, markup: TemplateMarkup, marks: ControlTokenGuard) -> None:
        self.template = markup
        self._marks = marks

    def write(self, messages: Sequence[ChatMessage], tools: Sequence[Json], header: bool) -> str:
        text = self.template.write(messages, tools, header)
        plain = self._marks.plain_value
        if self.template.write(
            [plain(message) for message in messages], plain(list(tools)), header
        ) != self._marks.plain(text):
            raise DialectError(
                "the chat template writes <, > or & in this text in another way (it escapes them)"
            )
        return text
