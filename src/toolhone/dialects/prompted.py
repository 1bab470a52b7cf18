"""Our own call syntaxes inside a chat markup, for models whose template cannot write calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from toolhone.dialects.chat_template.dialect import ANOTHER, ANSWERED, MarkupDialect, find_behaviour
from toolhone.dialects.chat_template.sanitise import (
    Chat,
    ChatMessage,
    ChatWriter,
    ControlTokenGuard,
    Markup,
    TemplateMarkup,
    TemplateQuirks,
    link_calls,
)
from toolhone.dialects.interface import History
from toolhone.dialects.syntax.model_text import PromptedSyntax, split_reasoning, write_reasoning
from toolhone.errors import DialectError
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall
from toolhone.tokenizer import Spans, TextTokenizer


@dataclass(frozen=True)
class RoleMarkup:
    """A markup of role headers: for each role the text in front of a message, and behind it."""

    name: str
    begin: str
    header: str
    around: Mapping[str, tuple[str, str]]

    def write(self, messages: Chat, tools: Sequence[Json], header: bool) -> str:  # noqa: ARG002
        text = self.begin
        for message in messages:
            before, after = self.around[message["role"]]
            text += f"{before}{message['content']}{after}"
        return text + self.header * header


def chatml(tokenizer: TextTokenizer) -> RoleMarkup:
    """`<|im_start|>role`, the text, an end mark: `<|im_end|>`, or else the end-of-text token."""
    end = "<|im_end|>" if tokenizer.control_id("<|im_end|>") is not None else tokenizer.eos_text
    if end is None:
        needed = "<|im_end|> or an end-of-text token as one token; this tokenizer has neither"
        raise DialectError(f"ChatML needs {needed}")
    roles = ("system", "user", "assistant")
    around = {role: (f"<|im_start|>{role}\n", f"{end}\n") for role in roles}
    return RoleMarkup("chatml", tokenizer.bos_text, "<|im_start|>assistant\n", around)


def plain(tokenizer: TextTokenizer) -> RoleMarkup:
    """`Human: ...`, an empty line, `Assistant: ...`, the end-of-text token; system text first."""
    end = tokenizer.eos_text
    if end is None:
        needed = "an end-of-text token that is one token; this tokenizer has none"
        raise DialectError(f"the plain markup needs {needed}")
    around = {"system": ("", "\n\n"), "user": ("Human: ", "\n\n")}
    around["assistant"] = ("Assistant: ", f"{end}\n\n")
    return RoleMarkup("plain", tokenizer.bos_text, "Assistant:", around)


MARKUPS: Mapping[str, Callable[[TextTokenizer], TemplateMarkup | RoleMarkup]] = {
    "template": TemplateMarkup,
    "chatml": chatml,
    "plain": plain,
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


class PromptedDialect(MarkupDialect):
    """A call syntax in a chat markup.

    The syntax's instructions come before the conversation's system text, or in front of the first
    user message where the markup has no system role. Results go back in a user turn. Reasoning is
    written in front of the assistant's text.
    """

    syntax: PromptedSyntax

    def __init__(
        self,
        syntax: PromptedSyntax,
        markup: TemplateMarkup | RoleMarkup,
        tokenizer: TextTokenizer,
        keep_history: bool = False,
    ) -> None:
        guard = ControlTokenGuard(tokenizer.control_texts, tokenizer.folds)
        writer = ChatWriter(guard, TemplateQuirks())
        super().__init__(markup, find_behaviour(markup, tokenizer), syntax, writer)
        self.name, self._wrap = syntax.name, guard.wrap
        self._system_role = keeps_system(markup)
        if len(self.render(_PROBE)) < 2:
            self.history = History.APPENDED
        elif keep_history:
            self.history = History.KEPT
        self._turns.keep_history = keep_history

    def render(self, conversation: Conversation) -> list[Spans]:
        """Return one list of spans, or one per turn; `DialectError` for a turn that is misread."""
        for message in map(split_reasoning, conversation.messages):
            if message.role == "assistant":
                self.syntax.write(message.content, message.tool_calls)
        return super().render(conversation)

    def _chat(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> tuple[list[ChatMessage], list[Json]]:
        """The conversation as system, user and assistant messages, their texts disguised."""
        roles = [message.role in ("system", "developer") for message in messages]
        body = roles.index(False) if False in roles else len(messages)
        own = [message.content for message in messages[:body]]
        texts = [self.syntax.instructions(tools), *own]
        system = self._wrap("\n\n".join(filter(None, texts)))
        chat: list[dict[str, Json]] = []
        for message, _, call in list(link_calls(messages))[body:]:
            if message.role == "assistant":
                chat.append({"role": "assistant", "content": self._write(split_reasoning(message))})
                continue
            text, between = self._wrap(message.content or ""), "\n\n"
            if call is not None:
                result = self.syntax.result(replace(message, name=call.tool))
                text, between = self._wrap(result, tool=True), "\n"
            if chat and chat[-1]["role"] == "user":
                chat[-1]["content"] += between + text
            else:
                chat.append({"role": "user", "content": text})
        if system and self._system_role:
            chat = [{"role": "system", "content": system}, *chat]
        elif system and chat and chat[0]["role"] == "user":
            chat[0]["content"] = f"{system}\n\n{chat[0]['content']}"
        elif system:
            chat = [{"role": "user", "content": system}, *chat]
        return list(chat), []

    def _write(self, message: Message) -> str:
        """The assistant's text. Where the syntax has no room for content, it precedes the calls."""
        try:
            text = self.syntax.write(message.content, message.tool_calls)
        except DialectError:
            calls = self.syntax.write(None, message.tool_calls) if message.tool_calls else ""
            text = "\n".join(filter(None, [message.content, calls]))
        reasoning = (message.reasoning or "").strip()
        before = write_reasoning(self._wrap(reasoning)) if message.reasoning else ""
        return before + self._wrap(text)


def keeps_system(markup: Markup) -> bool:
    """Return whether the markup shows a system message, at the same place in a longer chat."""
    chat = [{"role": "system", "content": "Sentinel6"}, *ANSWERED, ANOTHER]
    try:
        first, later = markup.write(chat[:2], (), False), markup.write(chat, (), False)
    except DialectError:
        return False
    before, shown, _ = first.partition("Sentinel6")
    return bool(shown) and later.startswith(before + shown)
