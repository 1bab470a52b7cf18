"""How probable each tool is to a model as the first call of its reply, and how far to trust that.

    choices = tool_choices(policy, tasks)     # a ToolChoice for each task that judges calls
    calibration(choices)                      # accuracy, confidence, error, Brier score, bins

The probability of a tool is that of the tokens of a call up to its arguments, at temperature 1;
what is left is "none": every reply that begins otherwise, thoughts and broken calls included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from toolhone.episodes.policy import Prompt, TokenPolicy
from toolhone.errors import DataError
from toolhone.rewards.matching import judges_calls
from toolhone.rows import Row
from toolhone.schema import ANY_CALL, Json, Message, Task, Tool, ToolCall

NONE = ""
"""Stands for no tool."""
BINS = 10


@dataclass(frozen=True)
class ToolChoice:
    """The probability of each tool on offer, and of `NONE`; `right`: the names that are right."""

    id: str
    probabilities: Mapping[str, float]
    right: frozenset[str]

    @property
    def best(self) -> str:
        return max(self.probabilities, key=lambda name: self.probabilities[name])

    @property
    def confidence(self) -> float:
        return self.probabilities[self.best]

    def to_dict(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "probabilities": dict(self.probabilities),
            "best": self.best,
            "right": sorted(self.right),
        }


def tool_choices(policy: TokenPolicy, tasks: Sequence[Task]) -> list[ToolChoice]:
    """The choices of a model on the tasks that say which calls are right."""
    found = []
    for task in tasks:
        if not judges_calls(task.expect):
            continue
        prompt = policy.open(task.messages, task.tools)
        rows = [_row(policy, prompt, tool) for tool in task.tools]
        logprobs = policy.sampler.logprobs(rows) if rows else []
        chances = [math.exp(float(each.sum())) for each in logprobs]
        named = dict(zip([tool.name for tool in task.tools], chances, strict=True))
        named[NONE] = max(0.0, 1.0 - math.fsum(named.values()))
        right = set[str]()  # what a right reply may begin with
        for choice in task.expect.choices:
            wanted = choice.wanted[:1] if choice.order == "strict" else choice.wanted
            right |= {call.name for call in wanted} or {NONE}
        if ANY_CALL.name in right and task.expect.any_call:
            right = {tool.name for tool in task.tools}
        found.append(ToolChoice(task.id, named, frozenset(right)))
    if not found:
        raise DataError("no task says which calls are right, so there is no choice of a tool")
    return found


def _row(policy: TokenPolicy, prompt: Prompt, tool: Tool) -> Row:
    """The prompt and a call of the tool up to its arguments, which are trained positions.

    What follows decides how a tokenizer cuts what stands before it, so only tokens count that calls
    with none, any and each of the tool's own arguments have in common.
    """
    arguments: list[dict[str, Json]] = [{}, {"a": 1}, {"b": 1}]
    arguments += [{name: value} for name in tool.properties for value in (1, "a")]
    calls = [ToolCall(tool.name, one, "call0") for one in arguments]
    replies = [policy.encode_reply(prompt, Message("assistant", tool_calls=(c,))) for c in calls]
    columns = takewhile(lambda ids: len(set(ids)) == 1, zip(*replies, strict=False))
    same = [ids[0] for ids in columns]
    mask = [False] * len(prompt.tokens) + [True] * len(same)
    return Row.of([*prompt.tokens, *same], mask)


def calibration(choices: Sequence[ToolChoice]) -> dict[str, Json]:
    """How often the most probable choice is right, and how sure the model was of it.

    error: the mean gap between the two over `BINS` bins of confidence (expected calibration error,
    Naeini et al. 2015). brier: the mean squared distance of the probabilities from the right choice
    (Brier 1950), where several are right from the most probable of them.
    """
    bins: list[list[ToolChoice]] = [[] for _ in range(BINS)]
    squares = []
    for choice in choices:
        bins[min(BINS - 1, int(choice.confidence * BINS))].append(choice)
        chances = choice.probabilities
        right = [name for name in chances if name in choice.right]
        truth = max(right, key=chances.__getitem__, default=None)
        squares.append(math.fsum((chances[name] - (name == truth)) ** 2 for name in chances))
    shown = []
    for number, members in enumerate(bins):
        if members:
            accuracy = sum(one.best in one.right for one in members) / len(members)
            sure = math.fsum(one.confidence for one in members) / len(members)
            place = {"from": number / BINS, "to": (number + 1) / BINS, "n": len(members)}
            shown.append({**place, "accuracy": accuracy, "confidence": sure})
    n = len(choices)
    gaps = [one["n"] * abs(one["accuracy"] - one["confidence"]) for one in shown]
    return {
        "n": n,
        "accuracy": sum(one.best in one.right for one in choices) / n,
        "confidence": math.fsum(one.confidence for one in choices) / n,
        "error": math.fsum(gaps) / n,
        "brier": math.fsum(squares) / n,
        "bins": shown,
    }
