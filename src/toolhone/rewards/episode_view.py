"""What a reward sees in an episode: the calls that count, how they compare, and what else happened.

    view = EpisodeView.closest(task, episode)     # judged by the right answer it comes closest to
    view.match, view.excess, view.failed, view.is_broken

A rejected or unreadable call that a later turn replaces is retracted: it costs, but is not
compared.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from toolhone.backends.base import StopReason
from toolhone.dialects.base import ParseProblem
from toolhone.episodes.episode import Episode
from toolhone.rewards.answers import answer_credit, carries_answer, remove_echoes
from toolhone.rewards.matching import Match, judges_calls, match_calls
from toolhone.schema import Json, Task, ToolCall
from toolhone.tools.result import ToolStatus

REJECTED = (ToolStatus.UNKNOWN_TOOL, ToolStatus.INVALID_ARGUMENTS)
LONG_TEXT = 200
"""Characters of a final text above which it may repeat a tool's description."""
FREE_CHARACTERS = 400
"""Characters of text beside calls that cost nothing."""
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
    task wants. ran_ok: that, and it did not fail. not_retracted: no later turn replaces it.
    """

    call: ToolCall
    schema_valid: bool
    ran_ok: bool
    not_retracted: bool


@dataclass(frozen=True)
class EpisodeView:
    """One episode of a task, in plain counts; rewards give them prices."""

    task: Task
    episode: Episode

    @classmethod
    def closest(cls, task: Task, episode: Episode) -> EpisodeView:
        return cls(select_reference(task, episode), episode)

    @cached_property
    def records(self) -> list[CallRecord]:
        """All readable calls in order, except a last turn that answers by a call."""
        tools, last = {tool.name: tool for tool in self.task.tools}, len(self.episode.turns) - 1
        wanted = self.task.expect.wanted
        exact = [(one.name, one.arguments) for one in wanted if not one.any_arguments]
        records = []
        for index, turn in enumerate(self.episode.turns):
            results = self.episode.results[index] if index < len(self.episode.results) else ()
            is_answer = index == last and self.episode.final_call is not None
            for place, call in enumerate(turn.message.tool_calls):
                if is_answer and all(call.name != one.name for one in wanted):
                    continue
                status = results[place].outcome if place < len(results) else ToolStatus.REFUSED
                if (call.name, call.arguments) in exact:
                    valid = True
                elif status is ToolStatus.REFUSED:
                    tool = tools.get(call.name)
                    valid = tool is not None and not tool.problems(call.arguments)
                else:
                    valid = status not in REJECTED
                ran_ok = valid and status not in (ToolStatus.ERROR, ToolStatus.TIMEOUT)
                kept = index == last or (valid and turn.problem is ParseProblem.NONE)
                records.append(CallRecord(call, valid, ran_ok, kept))
        return records

    @cached_property
    def compared(self) -> list[CallRecord]:
        """The calls to compare with the wanted ones: those not retracted, else all."""
        return [record for record in self.records if record.not_retracted] or self.records

    @cached_property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(record.call for record in self.compared)

    @cached_property
    def match(self) -> Match:
        """How `calls` compare with the wanted ones; its pairs are indices into both."""
        return match_calls(self.calls, self.task.expect, self.task.tools)

    @cached_property
    def excess(self) -> int:
        """Calls beyond the number wanted; for a task that does not cover calls, repeated calls."""
        if not judges_calls(self.task.expect):
            return sum(call in self.calls[:index] for index, call in enumerate(self.calls))
        return max(0, len(self.calls) - len(self.task.expect.wanted))

    @property
    def failed(self) -> int:
        """Calls that did not run without an error, retracted ones included."""
        return sum(not record.ran_ok for record in self.records)

    @property
    def is_broken(self) -> bool:
        """Whether the last turn is unreadable, or cut off before its calls were certain."""
        last = self.episode.turns[-1] if self.episode.turns else None
        if last is None or last.problem is not ParseProblem.NONE:
            return last is not None
        cut_off = last.stop_reason is StopReason.LENGTH
        return cut_off and (bool(last.message.tool_calls) or not self.records)

    @property
    def unreadable(self) -> int:
        """Number of unreadable turns."""
        return sum(turn.problem is not ParseProblem.NONE for turn in self.episode.turns)

    @property
    def final_text(self) -> str:
        """The final text, or the answer of a call that answers."""
        text = self.episode.turns[-1].message.content if self.episode.turns else None
        return self.episode.final_call or text or ""

    @property
    def is_blank(self) -> bool:
        """Whether the final text only repeats the conversation."""
        return not remove_echoes(self.final_text, self._prompt_texts)

    @cached_property
    def has_control_text(self) -> bool:
        texts = [turn.message.content for turn in self.episode.turns if turn.message.content]
        return any(injected_control_text(text, self._prompt_texts) for text in texts)

    @property
    def excess_characters(self) -> int:
        """Characters beyond `FREE_CHARACTERS` of each text beside calls or around an answer."""
        texts = [
            turn.message.content or ""
            for turn in self.episode.turns
            if turn.message.tool_calls or self.task.expect.answer is not None
        ]
        return sum(max(0, len(text) - FREE_CHARACTERS) for text in texts)

    @property
    def answer_credit(self) -> float:
        tools = self.task.tools if len(self.final_text) > LONG_TEXT else ()
        texts = [
            text for tool in tools for text in (tool.description, *_descriptions(tool.parameters))
        ]
        answer, expected = self.episode.answer or "", self.task.expect.answer or ""
        return answer_credit(answer, expected, self._prompt_texts, list(filter(None, texts)))

    @cached_property
    def _prompt_texts(self) -> list[str]:
        return [message.content for message in self.task.messages if message.content]


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
            right = not view.records and not view.unreadable and not view.is_blank
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
