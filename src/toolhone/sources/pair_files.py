"""Files of preference pairs: our own form, and the two that are common elsewhere.

    loaded = read_pairs("dpo_en_demo.json")
    loaded.preferences, loaded.summary()        # kept 120 of 120 rows
    read("dpo_en_demo.json")                    # the same as every source gives it, for an import; no row stops it

    own, TRL      {"prompt": [messages], "chosen": [messages], "rejected": [messages], "tools"?}      (`data.preferences`)
    LLaMA-Factory {"conversations": [turns], "chosen": {"from", "value"}, "rejected": {"from", "value"}, "tools"?, "system"?}

Calls of the second form are read as in `sharegpt`: in a turn of their own or in the assistant's text; on the chosen side they must
fit the tools of the row, on the rejected side they may be anything that can be read. A chosen call that cannot be read is counted
and skipped, a rejected one is kept as raw text. Pairs whose sides say the same are counted and skipped, too: kept + skipped = read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path

from toolhone.errors import DataError
from toolhone.schema import Conversation, Json, Message, Tool
from toolhone.schema.preference import Preference
from toolhone.sources.base import About, Loaded, Refused, Skip, identity_of
from toolhone.sources.call_texts import Talk
from toolhone.sources.files import FileLine, Record, ToolCache, read_records
from toolhone.sources.offered import OfferedTools, refuse_faults
from toolhone.sources.sharegpt import ROLES, add_turns, turns_of

NAME = "pairs"
ABOUT = About(
    title="preference pairs: our own form, TRL's, and LLaMA-Factory's",
    link="",
    licence="as the data set; Apache-2.0 for the demonstration files",
    rows="as the data set",
    teaches="which of two replies is better (DPO)",
)
_SNIFFED = 10


class Reason(StrEnum):
    """Why a row is skipped; besides these, the reasons of `sharegpt`."""

    NO_PAIR = "not a pair of a chosen and a rejected side"
    SAME = "chosen and rejected say the same"
    NO_PROMPT = "a prompt that does not end with the user or a tool"
    NO_TOOLS = "calls although the row gives no tools"
    NOT_OURS = "a pair whose messages or tools cannot be read"


@dataclass(frozen=True)
class LoadedPairs:
    """The kept pairs with their places; how many rows were read; the skipped ones by reason, with a sentence for each reason.

    refused: the skipped rows, one by one.
    """

    preferences: Sequence[Preference]
    places: Sequence[FileLine]
    read: int
    skipped: Counter[str]
    examples: dict[str, str]
    refused: Sequence[Refused]

    def __post_init__(self) -> None:
        assert len(self.preferences) + self.skipped.total() == self.read, (
            "a row was neither kept nor counted"
        )

    @property
    def kept(self) -> int:
        return len(self.preferences)

    def summary(self) -> str:
        """`kept 117 of 120 rows; skipped 3: 3 chosen and rejected say the same`."""
        told = f"kept {self.kept} of {self.read} rows"
        if not self.skipped:
            return told
        return f"{told}; skipped {self.skipped.total()}: " + ", ".join(
            f"{n} {why}" for why, n in self.skipped.most_common()
        )


def holds_pairs(path: str | Path) -> bool:
    """Whether at least half of the first rows of a file have a chosen and a rejected side."""
    if Path(path).is_dir():
        return False
    records = [record for _, record in islice(read_records(path), _SNIFFED)]
    return 2 * sum("chosen" in record and "rejected" in record for record in records) >= len(
        records
    )


def read(path: Path) -> Loaded:
    """Every row that is a pair, and a count of all others."""
    found = read_pairs(path, skip_bad=True)
    return Loaded(
        conversations=(),
        places=(),
        tasks=(),
        skipped=found.skipped,
        read=found.read,
        examples=found.examples,
        refused=found.refused,
        preferences=found.preferences,
    )


def read_pairs(path: str | Path, skip_bad: bool = False) -> LoadedPairs:
    """Every row that is a pair. A row of our own form that breaks it stops with its place, as a damaged file does.

    skip_bad: count such a row instead.
    """
    kept: list[Preference] = []
    places: list[FileLine] = []
    refused: list[Refused] = []
    cache, offered = ToolCache(), OfferedTools()
    for line, record in read_records(path):
        try:
            pair = _pair(line, record, cache, offered)
        except Skip as skip:
            refused.append(Refused(line, skip.reason, skip.detail))
        except DataError as error:
            if not skip_bad:
                raise
            refused.append(Refused(line, Reason.NOT_OURS, str(error).removeprefix(f"{line}: ")))
        else:
            kept.append(pair)
            places.append(line)
    told = {
        each.reason: f"{each.line}: {each.reason}" + (f": {each.detail}" if each.detail else "")
        for each in reversed(refused)
    }
    return LoadedPairs(
        kept,
        places,
        len(kept) + len(refused),
        Counter(each.reason for each in refused),
        told,
        refused,
    )


def _pair(line: FileLine, record: Record, cache: ToolCache, offered: OfferedTools) -> Preference:
    if "chosen" not in record or "rejected" not in record:
        raise Skip(Reason.NO_PAIR, f"keys {sorted(record)}")
    if "conversations" in record:
        pair = _sharegpt(line, record, offered)
    else:
        try:
            pair = Preference.from_dict(cache.fill(line, record))
        except DataError as error:
            raise DataError(f"{line}: {error}") from None
        pair = replace(pair, id=pair.id or identity_of(line, record))
    if pair.prompt[-1].role not in ("user", "tool"):
        raise Skip(Reason.NO_PROMPT, f"it ends with a message of the role {pair.prompt[-1].role!r}")
    if pair.chosen == pair.rejected:
        raise Skip(Reason.SAME)
    return pair


def _sharegpt(line: FileLine, record: Record, offered: OfferedTools) -> Preference:
    tools, _ = offered.read(record.get("tools") or [])
    prompt = Talk()
    if isinstance(record.get("system"), str) and record["system"].strip():
        prompt.say("system", record["system"].strip())
    add_turns(prompt, turns_of(record), tools)
    chosen = _side(record, "chosen", tools)
    if not tools and any(message.tool_calls for message in (*prompt.messages, *chosen)):
        raise Skip(Reason.NO_TOOLS)
    identity = identity_of(line, record)
    refuse_faults(Conversation((*prompt.messages, *chosen), tools, identity))
    try:
        rejected, raw = _side(record, "rejected", tools), False
    except Skip:
        rejected, raw = [Message("assistant", _text(record, "rejected"))], True
    return Preference(
        tuple(prompt.messages),
        tuple(chosen),
        tuple(rejected),
        tools,
        identity,
        "sharegpt pairs",
        raw,
    )


def _side(record: Record, side: str, tools: Sequence[Tool]) -> list[Message]:
    """The messages of one turn: what the assistant says, or calls."""
    talk = Talk()
    add_turns(talk, _turns(record, side), tools)
    return list(talk.messages)


def _turns(record: Record, side: str) -> Iterator[tuple[str, str]]:
    turn = record[side]
    role = ROLES.get(str(turn.get("from", turn.get("role")))) if isinstance(turn, dict) else None
    if role not in ("assistant", "call"):
        raise Skip(Reason.NO_PAIR, f"{side} is {turn!r:.80}")
    yield role, _text(record, side)


def _text(record: Record, side: str) -> str:
    turn: Json = record[side]
    text = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise Skip(Reason.NO_PAIR, f"{side} has no text: {turn!r:.80}")
    return text.strip()
