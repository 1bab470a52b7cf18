"""A preference pair: after one prompt, one way to go on is better than another.

    {"id", "prompt": [messages], "tools", "chosen": [messages], "rejected": [messages], "source",
     "raw"?: true}

With `raw`, `rejected` is one assistant message that holds the reply as a model wrote it, marks
included: no other form can hold a malformed call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolhone.errors import DataError
from toolhone.schema import Conversation, Json, Message, Tool

SIDES = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Preference:
    """After `prompt`, `chosen` is better than `rejected`. `raw`: the module describes it."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    id: str = ""
    source: str = ""
    raw: bool = False

    @staticmethod
    def from_dict(source: Mapping[str, Json]) -> Preference:
        for side in SIDES:
            value = source.get(side)
            if not isinstance(value, list | tuple) or not value:
                raise DataError(f"'{side}' must be a non-empty list of messages; got {value!r:.60}")
        raw = source.get("raw", False)
        if not isinstance(raw, bool):
            raise DataError(f"'raw' must be true or false, got {raw!r:.60}")
        better, worse = (
            Conversation.from_dict({**source, "messages": [*source["prompt"], *source[side]]})
            for side in SIDES[1:]
        )
        start = len(source["prompt"])
        pair = Preference(
            better.messages[:start],
            better.messages[start:],
            worse.messages[start:],
            better.tools,
            better.id,
            better.source,
            raw,
        )
        pair._check()
        return pair

    def _check(self) -> None:
        for side, messages in (("chosen", self.chosen), ("rejected", self.rejected)):
            if messages[0].role != "assistant":
                found = f"it begins with one of role {messages[0].role!r}"
                raise DataError(f"'{side}' must begin with an assistant message, {found}")
        first = self.rejected[0]
        if self.raw and (
            len(self.rejected) > 1 or first.tool_calls or first.reasoning or not first.content
        ):
            right = "one assistant message that has content and nothing else"
            raise DataError(f"with 'raw', 'rejected' must be {right}")

    def to_dict(self) -> dict[str, Json]:
        sides = {side: [message.to_dict() for message in getattr(self, side)] for side in SIDES}
        tools = [tool.to_dict() for tool in self.tools]
        return {
            "id": self.id,
            **sides,
            "tools": tools,
            "source": self.source,
            **({"raw": True} if self.raw else {}),
        }

    def conversation(self) -> Conversation:
        """Return prompt and chosen side as a conversation, from which validation tasks come."""
        return Conversation((*self.prompt, *self.chosen), self.tools, self.id, self.source)
