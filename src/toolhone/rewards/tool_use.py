"""Toolhone's own rewards: a correct answer earns 1 and everything else less.

    tool_use(task, episode)       # {"tools": 0.3, "arguments": 0.4, "exact": 0.3, ...}

A reward returns no parts for a task that it does not judge. docs/rewards.md explains each reward
and each penalty. They cannot judge the quality of a text where no call is wanted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial

from toolhone.backends.base import StopReason
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.episode import Episode
from toolhone.rewards.matching import Match, judges_calls, match_calls
from toolhone.rewards.values import (
    answer_credit,
    carries_answer,
    compare_states,
    remove_echoes,
    same_json,
    wants_change,
)
from toolhone.schema import Json, Task, ToolCall
from toolhone.tools.result import ToolStatus

Parts = dict[str, float]

PENALTIES: Mapping[str, tuple[float, float]] = {
    "silence": (0.25, 1),
    "spurious": (0.5, 2),
    "failed": (0.1, 10),
    "form": (0.1, 5),
    "forged": (0.5, 1),
    "chatter": (0.1, 1),
}
"""Points off for each occurrence, and the largest number of occurrences that count."""
CHATTER_UNIT = 1000
"""Excess characters at which the full `chatter` penalty is due."""
MILD = {"tools": 0.5, "arguments": 0.25, "exact": 0.25}
GRADED = {"tools": 0.3, "arguments": 0.4, "exact": 0.3}
STRICT = {"exact": 1.0}
"""How a correct call's credit is split."""
HARM, MOST_HARM = 0.2, 3
"""Points off for each change of a state that should stay as it is, and how many count."""
LONG_TEXT = 200
"""Characters of a final text above which it may repeat a tool's description."""
FREE_CHARACTERS = 400
"""Characters of text beside calls that cost nothing."""
_REJECTED = (ToolStatus.UNKNOWN_TOOL, ToolStatus.INVALID_ARGUMENTS)
_TAGS = (
    "tool_calls?|tool_responses?|tool_results?|function_calls?|function_results?|tools|think"
    "|invoke|parameter|function"
)
_CONTROL_TEXT = re.compile(
    rf"<\|[^|<>\s]{{1,40}}\|>|</?(?:{_TAGS})\b[^<>\n]{{0,80}}>|<(?:start|end)_of_turn>|<</?sys>>"
    r"|\[/?(?:tool_calls?|tool_results?|available_tools|inst)\]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class CallRecord:
    """A call of an episode.

    schema_valid: its tool is on offer and its arguments obey the schema, or it is exactly what the
    task wants. ran_ok: that, and it raised no error. not_retracted: no later turn replaces it.
    """

    call: ToolCall
    schema_valid: bool
    ran_ok: bool
    not_retracted: bool


class EpisodeView:
    """What a reward sees in an episode: the calls that count, how they compare, and the texts.

    `records`: all readable calls in order, except a last turn that answers by a call. `compared`:
    those to compare with the wanted ones. A rejected or unreadable call that a later turn replaces
    is retracted: it costs, but is not compared. A call whose failure the world injected is neither
    compared nor a cost. `unreadable`: number of unreadable turns.
    `final_text`: the text of the last turn, or the answer of a call that answers.
    """

    def __init__(self, task: Task, episode: Episode) -> None:
        self.task, self.episode = task, episode
        turns, problems = episode.turns, [turn.problem for turn in episode.turns]
        self.unreadable = sum(problem is not ParseProblem.NONE for problem in problems)
        self.final_text = episode.final_call or (turns[-1].message.content if turns else "") or ""
        self.prompt_texts = [message.content for message in task.messages if message.content]
        self.records = self._read_records()
        kept = [record for record in self.records if record.not_retracted]
        self.compared = kept or self.records

    def _read_records(self) -> list[CallRecord]:
        tools, last = {tool.name: tool for tool in self.task.tools}, len(self.episode.turns) - 1
        wanted = self.task.expect.wanted
        exact = [one for one in wanted if not one.any_arguments]
        records = []
        for index, turn in enumerate(self.episode.turns):
            results = self.episode.results[index] if index < len(self.episode.results) else ()
            is_answer = index == last and self.episode.final_call is not None
            for place, call in enumerate(turn.message.tool_calls):
                if is_answer and all(call.name != one.name for one in wanted):
                    continue
                status = results[place].outcome if place < len(results) else ToolStatus.REFUSED
                if any(
                    call.name == one.name and same_json(call.arguments, one.arguments)
                    for one in exact
                ):
                    valid = True
                elif status is ToolStatus.REFUSED:
                    tool = tools.get(call.name)
                    valid = tool is not None and not tool.problems(call.arguments)
                else:
                    valid = status not in _REJECTED
                injected = place < len(results) and bool(results[place].injected)
                ran_ok = injected or (valid and status is not ToolStatus.ERROR)
                kept = index == last or (valid and turn.problem is ParseProblem.NONE)
                kept = kept and not injected
                records.append(CallRecord(call, valid, ran_ok, kept))
        return records

    @cached_property
    def match(self) -> Match:
        """How `compared` compares with the wanted calls; its pairs are indices into both."""
        calls = [record.call for record in self.compared]
        return match_calls(calls, self.task.expect, self.task.tools)

    @property
    def is_broken(self) -> bool:
        """Whether the last turn is unreadable, or cut off before its calls were certain."""
        last = self.episode.turns[-1] if self.episode.turns else None
        if last is None or last.problem is not ParseProblem.NONE:
            return last is not None
        cut_off = last.stop_reason is StopReason.LENGTH
        return cut_off and (bool(last.message.tool_calls) or not self.records)

    @property
    def answer_credit(self) -> float:
        tools = self.task.tools if len(self.final_text) > LONG_TEXT else ()
        texts = [
            text for tool in tools for text in (tool.description, *_descriptions(tool.parameters))
        ]
        answer, expected = self.episode.answer or "", self.task.expect.answer or ""
        return answer_credit(answer, expected, self.prompt_texts, list(filter(None, texts)))

    @property
    def no_call_credit(self) -> float:
        """1 for plain text, -1 for a call, -0.5 for a broken attempt, 0 for no real reply.

        A text that only repeats the conversation, or that writes a call, is no real reply.
        """
        if self.records or self.unreadable:
            return -1.0 if self.records else -0.5
        is_new = bool(remove_echoes(self.final_text, self.prompt_texts))
        in_prose = calls_in_prose(self.final_text, self.task)
        return float(is_new and not self.is_broken and not in_prose)

    def penalties(self) -> Parts:
        """Points off, by the names of `PENALTIES`."""
        turns, expect, calls = self.episode.turns, self.task.expect, self.compared
        texts = [turn.message.content for turn in turns if turn.message.content]
        beside = [
            turn.message.content or ""
            for turn in turns
            if turn.message.tool_calls or expect.answer is not None
        ]
        excess = max(0, len(calls) - len(expect.wanted))
        if not judges_calls(expect):  # then only repeated calls are too many; a state shows harm
            made = [record.call for record in calls if expect.state is None]
            excess = sum(call in made[:index] for index, call in enumerate(made))
        counts = {
            "silence": float(bool(expect.wanted) and not self.records and not self.unreadable),
            "spurious": 0 if expect.no_call else excess,
            "failed": sum(not record.ran_ok for record in self.records),
            "form": self.unreadable,
            "forged": float(any(injected_control_text(text, self.prompt_texts) for text in texts)),
            "chatter": sum(max(0, len(text) - FREE_CHARACTERS) for text in beside) / CHATTER_UNIT,
        }
        return {
            name: -each * min(counts[name], most) if counts[name] else 0.0
            for name, (each, most) in PENALTIES.items()
        }


def judges(task: Task, aspects: Collection[str] = ("calls", "answer", "state")) -> bool:
    """Whether the task covers one of these aspects; a state, where it is to change."""
    covered = set(task.expect.speaks_of) - (set() if wants_change(task) else {"state"})
    return not covered.isdisjoint(aspects)


def _reward(
    task: Task,
    episode: Episode,
    shares: Mapping[str, float] | None = None,
    aspects: Collection[str] = ("answer",),
) -> Parts:
    """Credit for the calls, split by `shares`, for the answer and for the final state, in equal
    parts where a task asks for several. Penalties come off.
    """
    paid = [name for name in aspects if judges(task, (name,))]
    if not paid:
        return {}
    view = EpisodeView(select_reference(task, episode), episode)
    parts: Parts = {}
    for name in paid:
        if name == "calls":
            credit = _call_parts(view, shares or {})
        elif name == "answer":
            credit = {"answer": view.answer_credit}
        else:  # a broken last turn halves it
            found, half = compare_states(view.task, episode), 0.25 if view.is_broken else 0.5
            credit = {"changes": half * found.share, "state": half * found.exact}
        parts |= {key: value / len(paid) for key, value in credit.items()}
    if "state" in aspects and task.expect.state is not None and not wants_change(task):
        changed = len(compare_states(view.task, episode).unwanted)
        parts["harm"] = -HARM * min(changed, MOST_HARM)
    return {**parts, **view.penalties()}


tool_use = partial(_reward, shares=GRADED, aspects=("calls", "answer", "state"))
"""Reward calls, answer and final state, in equal parts where a task asks for several."""
right_calls = partial(_reward, shares=GRADED, aspects=("calls",))
"""Reward the calls, graded."""
right_tools = partial(_reward, shares=MILD, aspects=("calls",))
"""Reward the calls, with most of the credit on the correct tools."""
exact_calls = partial(_reward, shares=STRICT, aspects=("calls",))
"""Reward the calls, all or nothing."""
right_answer = partial(_reward)
"""Reward the final answer."""
right_state = partial(_reward, aspects=("state",))
"""Reward the final state of the world: half for each change that was wanted, half for all of it."""


def working_calls(task: Task, episode: Episode) -> Parts:
    """Reward the wanted calls that ran without an error, and those of them that are correct."""
    if not judges_calls(task.expect):
        return {}
    view = EpisodeView(select_reference(task, episode), episode)
    if view.task.expect.no_call:
        return {"no_call": view.no_call_credit, **view.penalties()}
    size = max(len(view.compared), len(view.task.expect.wanted))
    working = [
        pair
        for pair in view.match.pairs
        if pair.wanted is not None and pair.got is not None and view.compared[pair.got].ran_ok
    ]
    whole = 0.5 if view.is_broken else 1.0
    ran, right = len(working) / size, sum(pair.share == 1.0 for pair in working) / size
    return {
        "ran": 0.3 * whole * ran,
        "right": 0.4 * whole * right,
        "exact": 0.3 * (right == whole == 1.0),
        **view.penalties(),
    }


def _call_parts(view: EpisodeView, shares: Mapping[str, float]) -> Parts:
    """Credit for the calls, without penalties; where none is wanted, for making none.

    Arguments that break the schema count half. A broken last turn halves the credit.
    """
    if view.task.expect.no_call:
        return {"no_call": view.no_call_credit}
    match, whole = view.match, 0.5 if view.is_broken else 1.0
    size = max(len(view.compared), len(view.task.expect.wanted))
    arguments = sum(
        pair.share * (1.0 if view.compared[pair.got].schema_valid else 0.5)
        for pair in match.pairs
        if pair.got is not None
    )
    exact = match.exact and not view.is_broken and all(one.schema_valid for one in view.compared)
    earned = {
        "tools": shares.get("tools", 0.0) * match.tool_score * whole,
        "arguments": shares.get("arguments", 0.0) * arguments / size * whole,
        "exact": shares["exact"] * exact,
    }
    return {name: earned[name] for name in shares}


def select_reference(task: Task, episode: Episode) -> Task:
    """Return the task with the right answer that the episode comes closest to as its only one.

    Closest has the most parts (calls, answer) fully correct, then the largest sum of their scores.
    """
    if not task.expect.alternatives:
        return task
    tasks = (replace(task, expect=choice) for choice in task.expect.choices)

    def closeness(one: Task) -> tuple[int, float]:
        view, parts = EpisodeView(one, episode), list[tuple[bool, float]]()
        if one.expect.no_call:
            said = remove_echoes(view.final_text, view.prompt_texts)
            right = bool(said) and not view.records and not view.unreadable
            parts.append((right, float(right)))
        elif judges_calls(one.expect):
            match = view.match
            parts.append((match.exact, (match.tool_score + match.argument_score) / 2))
        if one.expect.answer is not None:
            carried = carries_answer(episode.answer or "", one.expect.answer)
            parts.append((carried, view.answer_credit))
        return sum(right for right, _ in parts), sum(score for _, score in parts)

    return max(tasks, key=closeness)


def injected_control_text(text: str, messages: Sequence[str]) -> bool:
    """Whether the text contains a chat template's markup that no message before it contains.

    Full-width letters and invisible characters count as what they look like.
    """
    return _occurs_newly(_CONTROL_TEXT, text, messages)


def calls_in_prose(text: str, task: Task) -> bool:
    """Whether the text writes a call of a tool on offer, in any form, that no message writes."""
    names = tuple(tool.name for tool in task.tools)
    messages = [message.content or "" for message in task.messages]
    return bool(names) and _occurs_newly(_call_pattern(names), text, messages)


def _occurs_newly(pattern: re.Pattern[str], text: str, messages: Sequence[str]) -> bool:
    found = set(_matches(pattern, text))
    return bool(found) and not found <= {
        match for message in messages for match in _matches(pattern, message)
    }


def _matches(pattern: re.Pattern[str], text: str) -> list[str]:
    """Matches in the text as it looks, without invisible characters."""
    if not text.isascii():
        letters = unicodedata.normalize("NFKC", text)
        text = "".join(letter for letter in letters if unicodedata.category(letter) != "Cf")
    return [match[0] for match in pattern.finditer(text)]


@lru_cache(maxsize=256)
def _call_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """A call of one of these tools: in Python syntax, as a JSON value or after a tag."""
    name = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    python = rf"(?<![\w.])(?:{name})(?:\(|\s+\((?=\s*(?:\w+\s*[=:]|[\"'\[{{])))"
    in_json = rf"[\"'](?:name|tool|function|tool_name)[\"']\s*:\s*[\"'](?:{name})[\"']"
    return re.compile(rf"{python}|{in_json}|<(?:function|invoke)[= ][^<>\n]{{0,20}}(?:{name})\b")


def _descriptions(schema: Json) -> Iterator[str]:
    """The texts under `description`, at any depth."""
    for key, value in schema.items() if isinstance(schema, Mapping) else ():
        if key == "description" and isinstance(value, str):
            yield value
        for inner in value if isinstance(value, list) else [value]:
            yield from _descriptions(inner)
