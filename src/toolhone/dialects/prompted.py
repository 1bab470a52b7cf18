"""Our own call syntaxes inside a chat markup: `PromptedDialect`, for models whose template cannot write calls, or has none.

The syntax's instructions come before the conversation's own system text. Tool results go back in a user turn, several in one, and
user messages in a row share one turn. Where a template refuses a system role or moves its text about, that text goes in front of
the first user message; system messages later in a conversation are read as the user's. Reasoning stands in front of the assistant's
text (`thinking.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from toolhone.dialects.base import History, ParsedReply, Spans, Syntax
from toolhone.dialects.chat_template.behaviour import find_behaviour, keeps_system
from toolhone.dialects.chat_template.markup import TemplateMarkup
from toolhone.dialects.chat_template.sanitise import ControlTokenGuard
from toolhone.dialects.chat_template.turns import (
    ChatMessage,
    Turns,
    check_reading,
    link_results,
    without_stop,
)
from toolhone.dialects.syntax.bare_json import BareJson
from toolhone.dialects.syntax.json_object import JsonObject
from toolhone.dialects.syntax.model_text import (
    read_after_reasoning,
    split_reasoning,
    write_reasoning,
)
from toolhone.dialects.syntax.python_calls import Calls
from toolhone.dialects.syntax.tagged import Tagged, ToolCallTags
from toolhone.errors import DialectError, nearest
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.tokenizer import TextTokenizer


class ChatML:
    """`<|im_start|>role`, the text, an end mark: `<|im_end|>` where that is one token, else the end-of-text token."""

    name = "chatml"

    def __init__(self, tokenizer: TextTokenizer) -> None:
        end = "<|im_end|>" if tokenizer.control_id("<|im_end|>") is not None else tokenizer.eos_text
        if end is None:
            raise DialectError(
                "ChatML needs <|im_end|> or an end-of-text token as one token; this tokenizer has neither"
            )
        self.end = end
        self._begin = tokenizer.bos_text

    def write(self, messages: Sequence[ChatMessage], tools: Sequence[Json], header: bool) -> str:  # noqa: ARG002
        turns = [
            f"<|im_start|>{message['role']}\n{message['content']}{self.end}\n"
            for message in messages
        ]
        return self._begin + "".join(turns) + ("<|im_start|>assistant\n" if header else "")


class PlainMarkup:
    """`Human: ...`, an empty line, `Assistant: ...`, the end-of-text token, an empty line. System text stands in front."""

    name = "plain"

    def __init__(self, tokenizer: TextTokenizer) -> None:
        if tokenizer.eos_text is None:
            raise DialectError(
                "the plain markup needs an end-of-text token that is one token; this tokenizer has none"
            )
        self.end = tokenizer.eos_text
        self._begin = tokenizer.bos_text

    def write(self, messages: Sequence[ChatMessage], tools: Sequence[Json], header: bool) -> str:  # noqa: ARG002
        return self._begin + "".join(map(self._turn, messages)) + ("Assistant:" if header else "")

    def _turn(self, message: ChatMessage) -> str:
        if message["role"] == "assistant":
            return f"Assistant: {message['content']}{self.end}\n\n"
        return (
            f"{message['content']}\n\n"
            if message["role"] == "system"
            else f"Human: {message['content']}\n\n"
        )


SYNTAXES: Mapping[str, Callable[[], Syntax]] = {
    "json": JsonObject,
    "calls": Calls,
    "tagged": Tagged,
    "tool_call_tags": ToolCallTags,
    "bare_json": BareJson,
}
MARKUPS: Mapping[str, Callable[[TextTokenizer], TemplateMarkup | ChatML | PlainMarkup]] = {
    "template": TemplateMarkup,
    "chatml": ChatML,
    "plain": PlainMarkup,
}
_PROBE = Conversation(
    (
        Message("system", "brief"),
        Message("user", "question"),
        Message("assistant", None, None, (ToolCall("f", {"x": 1}),)),
        Message("tool", "result"),
        Message("assistant", "answer"),
        Message("user", "thanks"),
        Message("assistant", "welcome"),
    ),
    (Tool("f"),),
)
_SYSTEM = ("system", "developer")


class PromptedDialect:
    """A call syntax in a chat markup. `DialectError` when the markup cannot be taken apart into turns with this tokenizer."""

    def __init__(
        self,
        syntax: Syntax,
        markup: TemplateMarkup | ChatML | PlainMarkup,
        tokenizer: TextTokenizer,
        kept: bool = False,
    ) -> None:
        self.name = syntax.name
        self.syntax = syntax
        self.markup = markup
        self.marks = ControlTokenGuard(tokenizer.control_texts, tokenizer.folds)
        self._turns = Turns(markup, self.marks, find_behaviour(markup, tokenizer))
        self.behaviour = self._turns.behaviour
        self.stop = self.behaviour.stop
        self.ends = self.behaviour.earlier_stop
        self._system_role = keeps_system(markup)
        rewrites = len(self.render(_PROBE)) > 1
        self.history = (
            History.APPENDED if not rewrites else History.KEPT if kept else History.TEMPLATE
        )
        self._turns.kept = kept

    def render(self, conversation: Conversation) -> list[Spans]:
        """One list of spans, or one per turn. `DialectError` for a turn that would not be read back as it is."""
        said = [
            split_reasoning(message)
            for message in conversation.messages
            if message.role == "assistant"
        ]
        for message in said:
            self.syntax.write(message.content, message.tool_calls)
        chat = self._chat(conversation.messages, conversation.tools)
        return self._turns.render(
            chat,
            (),
            lambda k, text: check_reading(said[k], self.parse(text, conversation.tools), text),
        )

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Spans:
        return self._turns.prompt(self._chat(messages, tools), ())

    def suffix(
        self, messages: Sequence[Message], tools: Sequence[Tool], results: Sequence[Message]
    ) -> Spans:
        last = len(self._chat(messages, tools)) - 1
        return self._turns.suffix(self._chat([*messages, *results], tools), last, ())

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        habits = self._turns.behaviour
        body = without_stop(text, self.stop)
        if habits.opens_thought:
            body = (
                body
                if body.lstrip().startswith(habits.thought.open)
                else habits.thought.open + body
            )
        return read_after_reasoning(body, lambda rest: self._read(rest, tools), habits.thought)

    def _read(self, text: str, tools: Sequence[Tool]) -> ParsedReply:
        """Text behind the reasoning, without what the markup writes around it."""
        habits = self._turns.behaviour
        bare = text.removeprefix(habits.lead)
        return self.syntax.read(
            bare.rstrip().removesuffix(habits.trail) if habits.trail else bare, tools
        )

    def _chat(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[ChatMessage]:
        """The conversation as system, user and assistant messages, their texts marked."""
        body = next(
            (index for index, message in enumerate(messages) if message.role not in _SYSTEM),
            len(messages),
        )
        texts = [self.syntax.instructions(tools), *(message.content for message in messages[:body])]
        system = self.marks.data("\n\n".join(text for text in texts if text))
        chat: list[dict[str, Json]] = []
        for index, link in enumerate(link_results(messages)):
            message = messages[index]
            if index < body:
                continue
            if message.role == "assistant":
                chat.append({"role": "assistant", "content": self._said(split_reasoning(message))})
            elif link is None:
                _add_user(chat, self.marks.data(message.content or ""), "\n\n")
            else:
                result = self.syntax.result(replace(message, name=link.name))
                _add_user(chat, self.marks.data(result, tool=True), "\n")
        return self._with_system(chat, system)

    def _with_system(self, chat: list[dict[str, Json]], system: str) -> list[ChatMessage]:
        if not system:
            return list(chat)
        if self._system_role:
            return [{"role": "system", "content": system}, *chat]
        if not chat or chat[0]["role"] != "user":
            return [{"role": "user", "content": system}, *chat]
        return [{"role": "user", "content": f"{system}\n\n{chat[0]['content']}"}, *chat[1:]]

    def _said(self, message: Message) -> str:
        text = self.marks.data(self._written(message))
        return (
            write_reasoning(self.marks.data(message.reasoning.strip())) + text
            if message.reasoning
            else text
        )

    def _written(self, message: Message) -> str:
        """The assistant's text. A model may have said what the syntax has no room for; then its text stands before its calls."""
        try:
            return self.syntax.write(message.content, message.tool_calls)
        except DialectError:
            calls = self.syntax.write(None, message.tool_calls) if message.tool_calls else ""
            return "\n".join(filter(None, [message.content, calls]))


def _add_user(chat: list[dict[str, Json]], text: str, between: str) -> None:
    """Add to the user turn that ends the chat, or begin one."""
    if chat and chat[-1]["role"] == "user":
        chat[-1]["content"] += between + text
    else:
        chat.append({"role": "user", "content": text})


def open_syntax(name: str) -> Syntax:
    """The call syntax of this name, to read texts without a model."""
    check_name("dialect", name, tuple(SYNTAXES))
    return SYNTAXES[name]()


def check_name(what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise DialectError(
            f"there is no {what} {name!r}{nearest(name, names)}; known: {', '.join(names)}"
        )
