"""The file as a whole: how many rows call a tool and how many answer without one.

    balance = balance_of(conversations)
    balance.ends_in_call, balance.calls_anywhere, balance.rows
    for fault in balance.faults(): ...

A decision is an assistant turn right after the user: it calls, or it answers. A model learns both only where it sees both. What
the shares should be depends on the use; remarked is only what is lopsided beyond 19 to 1, in files of at least 20 rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise

from toolhone.schema import Conversation
from toolhone.sources.rules import Fault, FindingKind

_FEWEST = 20
_LOPSIDED = 0.05


@dataclass(frozen=True)
class Balance:
    """Counts over conversations: those whose last assistant turn calls, those in which any does; and decisions of either kind."""

    rows: int = 0
    ends_in_call: int = 0
    calls_anywhere: int = 0
    decisions_to_call: int = 0
    decisions_to_answer: int = 0
    offer_one_tool: int = 0

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    def __str__(self) -> str:
        share = f"{self.calls_anywhere / self.rows:.0%}" if self.rows else "none"
        return (
            f"{self.calls_anywhere} of {self.rows} rows call a tool ({share}), {self.ends_in_call} end in a call; "
            f"of {self.decisions_to_call + self.decisions_to_answer} answers to a user {self.decisions_to_call} are calls, "
            f"{self.decisions_to_answer} are not"
        )

    def faults(self) -> Iterator[Fault]:
        """What is lopsided."""
        if not self.rows:
            return
        decisions = self.decisions_to_call + self.decisions_to_answer
        if not self.calls_anywhere:
            yield Fault(
                FindingKind.NO_CALLS,
                "",
                f"none of {self.rows} rows calls a tool",
                "wanted rows that do",
            )
        elif self.rows >= _FEWEST and self.decisions_to_answer < _LOPSIDED * decisions:
            what = f"{self.decisions_to_answer} of {decisions} answers to a user do without a call"
            yield Fault(FindingKind.ONLY_CALLS, "", what, "wanted some questions that need no tool")
        elif self.rows >= _FEWEST and self.decisions_to_call < _LOPSIDED * decisions:
            what = f"{self.decisions_to_call} of {decisions} answers to a user call a tool"
            yield Fault(FindingKind.FEW_CALLS, "", what, "wanted more questions that need one")
        if self.rows >= _FEWEST and self.offer_one_tool == self.rows:
            yield Fault(
                FindingKind.ONE_TOOL,
                "",
                f"all {self.rows} rows offer exactly one tool",
                "wanted other tools beside the right one",
            )


def class_balance(conversations: Iterable[Conversation]) -> Balance:
    """Count."""
    rows = ends = anywhere = calling = answering = single = 0
    for conversation in conversations:
        messages = conversation.messages
        turns = [message for message in messages if message.role == "assistant"]
        decisions = [
            message
            for before, message in pairwise(messages)
            if before.role == "user" and message.role == "assistant"
        ]
        called = sum(bool(message.tool_calls) for message in decisions)
        rows += 1
        ends += bool(turns and turns[-1].tool_calls)
        anywhere += any(message.tool_calls for message in turns)
        calling += called
        answering += len(decisions) - called
        single += len(conversation.tools) == 1
    return Balance(rows, ends, anywhere, calling, answering, single)
