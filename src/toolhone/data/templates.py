"""Conversations and tasks made from phrasings and fillers, with the built-in tools.

    templates = Templates(seed=0, tools=("calculator", "python"))
    templates.conversations(1000)                       # supervised data
    templates.tasks(400, split="held_out_fillers")      # for an evaluation, or for episodes

Row i of a split is a pure function of (seed, split, i). Every argument can be copied from the
conversation before it. Results come from running the real tools.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from toolhone.config.phrasings import PhrasedRequest, Wording, intents
from toolhone.errors import CapabilityError, DataError, nearest
from toolhone.schema import Conversation, Expect, ExpectedCall, Message, Task, ToolCall
from toolhone.tools.builtin import BUILTIN
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus

CATEGORIES = ("calculator", "python", "weather", "search", "parallel", "multi_turn", "no_tool")
SPLITS = {
    "train": ("train", "train"),
    "held_out_fillers": ("train", "held_out"),
    "held_out_phrasings": ("held_out", "train"),
    "rl": ("rl", "train"),
    "rl_held_out": ("rl", "held_out"),
}
"""Split -> (set of phrasings, set of fillers)."""
SHARES = dict(zip(CATEGORIES, (2.5, 3, 1.5, 2.5, 4, 3, 1.5), strict=True))
"""How often a category occurs among conversations. Tasks take the categories in turn."""
ANSWERED = {"calculator": 0.5, "python": 0.5, "weather": 0.25, "search": 0.06}
"""Share of conversations that continue to the final answer, by tool: some results are long."""


def run_calls(registry: Registry, calls: Iterable[ToolCall]) -> list[ToolResult]:
    """Run generated calls, which never fail unless a tool does not work on this machine."""
    calls = list(calls)
    results = registry.run_all(calls)
    for call, result in zip(calls, results, strict=True):
        if result.outcome is not ToolStatus.OK:
            raise CapabilityError(
                f"the built-in tool {call.name!r} does not work here: the call {call.arguments} "
                f"ended as {result.outcome}: {result.content:.200}; `toolhone check` tests the "
                "sandbox, and `python -m pip install --force-reinstall pydantic-monty` repairs it"
            )
    return results


@dataclass(frozen=True)
class TemplateTurn:
    """A user's question and its requests; `results` is empty until the calls were made."""

    question: str
    requests: tuple[PhrasedRequest, ...]
    results: tuple[ToolResult, ...] = ()

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        calls = [call for request in self.requests for call in request.calls]
        return tuple(replace(call, id=f"call{index}") for index, call in enumerate(calls))

    def messages(self) -> list[Message]:
        """Return the question, the calls, and, if there are results or no calls, the answer."""
        messages = [Message("user", self.question)]
        if self.calls:
            messages.append(Message("assistant", None, tool_calls=self.calls))
            if not self.results:
                return messages
            messages += [
                Message("tool", result.content, tool_call_id=call.id, name=call.name)
                for call, result in zip(self.calls, self.results, strict=True)
            ]
        values = iter([result.value for result in self.results])
        parts = [one.answer([*islice(values, len(one.calls))]) for one in self.requests]
        return [*messages, Message("assistant", " ".join(parts))]


class Templates:
    """Makes conversations and tasks for some built-in tools; same arguments, same rows.

    held_out_seed: of the held-out splits; default: the same. shares: of categories, for
    conversations and tasks. answered: share of conversations with calls that go on to the final
    answer; with 0, tasks expect calls alone.
    """

    def __init__(
        self,
        seed: int = 0,
        tools: Sequence[str] = BUILTIN,
        held_out_seed: int | None = None,
        shares: Mapping[str, float] | None = None,
        answered: float | None = None,
    ) -> None:
        held_out, self._answered = seed if held_out_seed is None else held_out_seed, answered
        self._seeds = {name: held_out if "held_out" in name else seed for name in SPLITS}
        self._registry = Registry([name for name in BUILTIN if name in tools])
        self.tools = self._registry.tools
        if not self.tools:
            raise DataError(
                "templates ask for built-in tools, and none of them is offered; they are "
                f"{', '.join(BUILTIN)}"
            )
        names = [tool.name for tool in self.tools]
        possible = [one for one in intents() if all(call["name"] in names for call in one.calls)]
        known = {intent.name for intent in possible}
        # A follow-up needs something that it can follow.
        self._intents = [one for one in possible if not one.after or known & set(one.after)]
        self._singles = [intent for intent in self._intents if intent.category in BUILTIN]
        self._categories = [name for name in CATEGORIES if name in tools or name not in BUILTIN]
        if unknown := [name for name in shares or () if name not in self._categories]:
            right = f"known for these tools: {', '.join(self._categories)}"
            near = nearest(unknown[0], self._categories)
            raise DataError(f"templates have no category {unknown[0]!r}{near}; {right}")
        self._in_turn = shares is None
        self._shares = {name: (shares or SHARES).get(name, 0.0) for name in self._categories}

    def conversations(self, n: int, split: str = "train") -> list[Conversation]:
        """Return the first n rows of a split."""
        return [self._conversation(index, split) for index in range(n)]

    def tasks(self, n: int, split: str = "train") -> list[Task]:
        """Return the first n tasks of a split, all different, the categories in turn.

        Tasks whose question has the same phrasing are a cluster.
        """
        rows: list[Task] = []
        seen: set[str] = set()
        for index in range(n):
            rng = self._rng("task", split, index)
            category = self._categories[index % len(self._categories)]
            category = category if self._in_turn else self._draw_category(rng)
            turns = self._turns(category, split, rng)
            while (key := repr([turn.question for turn in turns])) in seen:
                turns = self._turns(category, split, rng)
            seen.add(key)
            rows.append(self._task(turns, f"{split}-{self._seeds[split]}-{index:05d}", category))
        return rows

    def _conversation(self, index: int, split: str) -> Conversation:
        rng = self._rng("conversation", split, index)
        *history, last = self._turns(self._draw_category(rng), split, rng)
        answered = self._answered
        if answered is None and last.calls:
            answered = min(ANSWERED[call.name] for call in last.calls)
        if last.calls and rng.random() < (answered or 0.0):
            last = self._run(last)
        messages = tuple(message for turn in (*history, last) for message in turn.messages())
        return Conversation(
            messages, self.tools, f"{split}-{self._seeds[split]}-{index:06d}", "templates"
        )

    def _draw_category(self, rng: random.Random) -> str:
        return rng.choices(list(self._shares), list(self._shares.values()))[0]

    def _task(self, turns: Sequence[TemplateTurn], name: str, category: str) -> Task:
        *history, last = turns
        messages = [message for turn in history for message in turn.messages()]
        messages.append(Message("user", last.question))
        answer = None
        if len(last.calls) == 1 and self._answered != 0:
            (result,) = run_calls(self._registry, last.calls)
            answer = result.content.strip()
            # A final answer must hold the temperature, or the first title.
            if last.calls[0].name == "weather":
                answer = str(json.loads(answer)["temperature"])
            elif last.calls[0].name == "search":
                answer = str(json.loads(answer)[0]["title"])
        calls = tuple(ExpectedCall(call.name, call.arguments) for call in last.calls)
        expect = Expect(calls, answer=answer) if calls else Expect(no_call=True)
        task = Task(name, tuple(messages), self.tools, expect, category=category)
        cluster = " + ".join(request.core for request in last.requests)
        return replace(task, source="templates", cluster=cluster)

    def _rng(self, kind: str, split: str, index: int) -> random.Random:
        if split not in SPLITS:
            known = f"known: {', '.join(SPLITS)}"
            raise DataError(f"there is no split {split!r}{nearest(split, SPLITS)}; {known}")
        return random.Random(f"{kind} {self._seeds[split]} {split} {index}")

    def _turns(self, category: str, split: str, rng: random.Random) -> list[TemplateTurn]:
        """Return the turns of a row; all but the last have their results."""
        wording = Wording(*SPLITS[split], rng)
        if category == "multi_turn":
            return self._two_turns(wording, rng)
        if category == "parallel" and rng.random() < 0.5:
            first = wording.request(wording.pick(self._singles))
            second = wording.request(wording.pick(self._singles, first.form), form=first.form)
            return [_turn(wording, first, second)]
        fitting = [intent for intent in self._intents if intent.category == category]
        return [_turn(wording, wording.request(wording.pick(fitting or self._singles)))]

    def _two_turns(self, wording: Wording, rng: random.Random) -> list[TemplateTurn]:
        if rng.random() < 0.2:
            brief = [intent for intent in self._singles if intent.category != "search"]
            request = wording.request(wording.pick(brief or self._singles))
            first = self._run(_turn(wording, request))
            return [first, _turn(wording, wording.request(wording.pick(self._singles)))]
        follow_ups = [intent for intent in self._intents if intent.category == "multi_turn"]
        follow_up = wording.pick(follow_ups)
        possible = [intent for intent in self._intents if intent.name in follow_up.after]
        first = self._run(_turn(wording, wording.request(wording.pick(possible))))
        known = {**first.requests[0].slots, "before": first.results[0].content.strip()}
        return [first, _turn(wording, wording.request(follow_up, known))]

    def _run(self, turn: TemplateTurn) -> TemplateTurn:
        return replace(turn, results=tuple(run_calls(self._registry, turn.calls)))


def _turn(wording: Wording, *requests: PhrasedRequest) -> TemplateTurn:
    return TemplateTurn(wording.question(requests), requests)
