"""The model's own way to write tools, calls and results: its chat template, given tools and calls.

`ChatTemplateDialect` hands the template what all templates can take: tools and calls in the OpenAI form with `type: "function"`, ids of
nine letters and digits (numbered through the conversation), the tool's name on its result. What differs between templates is its
`TemplateQuirks`, which `probe.py` finds by trying; whether a template writes calls that can be read back is proved there too. Nothing here
knows a model's name.

Every rendered turn is read back before it is trained on; a conversation that the template would change (a second call or the text
beside a call dropped, for instance) is refused with a sentence that says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from toolhone.dialects.base import History, ParsedReply, Spans, Syntax
from toolhone.dialects.chat_template.behaviour import SENTINEL
from toolhone.dialects.chat_template.sanitise import ControlTokenGuard
from toolhone.dialects.chat_template.turns import (
    ChatMessage,
    Link,
    Markup,
    TemplateBehaviour,
    Turns,
    call_ids,
    check_reading,
    link_results,
    without_stop,
)
from toolhone.dialects.probe.derive import FIRST, OTHER, SECOND, TOOL
from toolhone.dialects.syntax.delimited import DelimitedSyntax
from toolhone.dialects.syntax.model_text import (
    read_after_reasoning,
    split_reasoning,
    write_reasoning,
)
from toolhone.schema import Conversation, Json, Message, Tool, ToolCall

_TEXT: Json = {"type": "string", "description": "What."}
PROBE_TOOLS = (
    Tool(
        TOOL,
        "Looks <b>up</b> [x].",
        {"type": "object", "properties": {FIRST: {"type": "string"}, SECOND: _TEXT}},
    ),
    Tool(
        OTHER,
        "Books a seat.",
        {
            "type": "object",
            "properties": {FIRST: _TEXT, "options": {"type": "object", "description": "How."}},
        },
    ),
    Tool("zip_up7", "Zips.", {"type": "object", "properties": {FIRST: _TEXT}}),
)
"""What probes have on offer. Values of `options` may be of any form."""
CALLED = (
    Message("user", "question"),
    Message("assistant", tool_calls=(ToolCall(TOOL, {FIRST: SENTINEL}),)),
)


@dataclass(frozen=True)
class TemplateQuirks:
    """What a template wants: arguments as a mapping or as JSON text; empty text beside calls or none; the field for
    reasoning, None where reasoning has no field and stands in the text (or, for some templates, has one beside calls only)."""

    arguments: Literal["mapping", "string"] = "mapping"
    empty: Literal["text", "absent"] = "text"
    reasoning: str | None = None
    beside_calls_only: bool = False


class ChatWriter:
    """Messages and tools in the form that chat templates take, marked."""

    def __init__(self, marks: ControlTokenGuard, manner: TemplateQuirks) -> None:
        self.marks = marks
        self.manner = manner

    def tools(self, tools: Sequence[Tool]) -> list[Json]:
        """The tools as templates take them, marked."""
        return [
            {"type": "function", "function": self.marks.inner(tool.to_dict()["function"])}
            for tool in tools
        ]

    def chat(self, messages: Sequence[Message]) -> list[ChatMessage]:
        """The messages as templates take them, marked."""
        rows = zip(messages, call_ids(messages), link_results(messages), strict=True)
        return [self._message(split_reasoning(message), ids, link) for message, ids, link in rows]

    def _message(self, message: Message, ids: Sequence[str], link: Link | None) -> ChatMessage:
        if message.role == "assistant":
            return self._assistant(message, ids)
        if link is not None:
            content = self.marks.data(message.content or "", tool=True)
            return {
                "role": "tool",
                "content": content,
                "tool_call_id": link.id,
                "name": self.marks.inner(link.name or "tool"),
            }
        role = "system" if message.role == "developer" else message.role
        return {"role": role, "content": self.marks.data(message.content or "")}

    def _assistant(self, message: Message, ids: Sequence[str]) -> ChatMessage:
        content: str | None = self.marks.data(message.content or "")
        result: dict[str, Json] = {"role": "assistant"}
        if (
            message.reasoning
            and self.manner.reasoning
            and (message.tool_calls or not self.manner.beside_calls_only)
        ):
            result[self.manner.reasoning] = self.marks.data(message.reasoning.strip())
        elif message.reasoning:
            content = write_reasoning(self.marks.data(message.reasoning.strip())) + (content or "")
        if message.tool_calls and not content and self.manner.empty == "absent":
            content = None
        calls = [self._call(call, new) for call, new in zip(message.tool_calls, ids, strict=True)]
        return {**result, "content": content, **({"tool_calls": calls} if calls else {})}

    def _call(self, call: ToolCall, new: str) -> dict[str, Json]:
        arguments: Json = self.marks.inner(dict(call.arguments))
        if self.manner.arguments == "string":
            arguments = json.dumps(arguments, ensure_ascii=False)
        return {
            "id": new,
            "type": "function",
            "function": {"name": self.marks.inner(call.name), "arguments": arguments},
        }


class ChatTemplateDialect:
    """The model's chat template with a syntax that reads its calls. Made by `probe.prove_native`."""

    name = "native"

    def __init__(
        self,
        markup: Markup,
        habits: TemplateBehaviour,
        syntax: Syntax,
        writer: ChatWriter,
        kept: bool = False,
    ) -> None:
        self.syntax = syntax
        self.markup = markup
        self.marks = writer.marks
        self.manner = writer.manner
        self._writer = writer
        self._turns = Turns(markup, self.marks, habits, kept)
        self.behaviour = habits
        self.stop = habits.stop
        self.ends = habits.earlier_stop
        self.history = History.KEPT if kept else History.TEMPLATE

    def with_history(self, kept: bool, talk: Conversation) -> ChatTemplateDialect:
        """The same dialect with this policy, once `talk` has shown whether the template rewrites history at all."""
        other = ChatTemplateDialect(self.markup, self.behaviour, self.syntax, self._writer, kept)
        rewrites = (
            len(
                ChatTemplateDialect(self.markup, self.behaviour, self.syntax, self._writer).render(
                    talk
                )
            )
            > 1
        )
        other.history = other.history if rewrites else History.APPENDED
        return other

    def render(self, conversation: Conversation) -> list[Spans]:
        """One list of spans, or one per turn. `DialectError` for a turn that would not be read back as it is."""
        said = [
            split_reasoning(message)
            for message in conversation.messages
            if message.role == "assistant"
        ]
        chat, tools = (
            self._writer.chat(conversation.messages),
            self._writer.tools(conversation.tools),
        )

        def check(k: int, text: str) -> None:
            check_reading(said[k], self.parse(text, conversation.tools), text)

        return self._turns.render(chat, tools, check)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Spans:
        return self._turns.prompt(self._writer.chat(messages), self._writer.tools(tools))

    def suffix(
        self, messages: Sequence[Message], tools: Sequence[Tool], results: Sequence[Message]
    ) -> Spans:
        chat = self._writer.chat([*messages, *results])
        return self._turns.suffix(chat, len(messages) - 1, self._writer.tools(tools))

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> ParsedReply:
        habits = self.behaviour
        body = without_stop(text, self.stop)
        if habits.opens_thought and not body.lstrip().startswith(habits.thought.open):
            body = habits.thought.open + body
        return read_after_reasoning(body, lambda rest: self._read(rest, tools), habits.thought)

    def _read(self, text: str, tools: Sequence[Tool]) -> ParsedReply:
        """Text behind the reasoning. A derived syntax knows the lead itself: it tells an answer from a call."""
        habits = self.behaviour
        body = text if isinstance(self.syntax, DelimitedSyntax) else text.removeprefix(habits.lead)
        if habits.trail and body.rstrip().endswith(habits.trail):
            body = body.rstrip().removesuffix(habits.trail)
        return read_after_reasoning(body, lambda rest: self.syntax.read(rest, tools))
