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
from toolhone.schema import Conversation, Json, Message, Tool, dicts_of
from toolhone.schema.json_input import check_keys

SIDES = ("prompt", "chosen", "rejected")
_KEYS = frozenset({*SIDES, "tools", "source", "raw", "kind", "tokens", "part"})


@dataclass(frozen=True)
class Preference:
    """After `prompt`, `chosen` is better than `rejected`."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    id: str = ""
    source: str = ""
    raw: bool = False

    @staticmethod
    def from_dict(source: Mapping[str, Json], unread: set[str] | None = None) -> Preference:
        for side in SIDES:
            value = source.get(side)
            if not isinstance(value, list | tuple) or not value:
                raise DataError(f"'{side}' must be a non-empty list of messages; got {value!r:.60}")
        raw = source.get("raw", False)
        if not isinstance(raw, bool):
            raise DataError(f"'raw' must be true or false, got {raw!r:.60}")
        check_keys(source, _KEYS, "a row", unread)
        common = {key: source.get(key) for key in ("id", "tools", "source")}
        better, worse = (
            Conversation.from_dict(
                {**common, "messages": [*source["prompt"], *source[side]]}, unread
            )
            for side in SIDES[1:]
        )
        start = len(source["prompt"])
        prompt, chosen = better.messages[:start], better.messages[start:]
        rejected = worse.messages[start:]
        for side, messages in (("chosen", chosen), ("rejected", rejected)):
            if messages[0].role != "assistant":
                found = f"it begins with one of role {messages[0].role!r}"
                raise DataError(f"'{side}' must begin with an assistant message, {found}")
        first = rejected[0]
        extra = len(rejected) > 1 or first.tool_calls or first.reasoning
        if raw and (extra or not first.content):
            right = "one assistant message that has content and nothing else"
            raise DataError(f"with 'raw', 'rejected' must be {right}")
        return Preference(prompt, chosen, rejected, better.tools, better.id, better.source, raw)

    def to_dict(self) -> dict[str, Json]:
        sides = {side: dicts_of(getattr(self, side)) for side in SIDES}
        both = {"id": self.id, **sides, "tools": dicts_of(self.tools), "source": self.source}
        return {**both, "raw": True} if self.raw else both

    def conversation(self) -> Conversation:
        """Return prompt and chosen side as a conversation, from which validation tasks come."""
        return Conversation((*self.prompt, *self.chosen), self.tools, self.id, self.source)
