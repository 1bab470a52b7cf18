"""Play BFCL's multi-turn entries: a model, the given messages of a user, and simulated services.

    with Simulation(python, categories) as simulation:
        replies = play_dialogues(policy, entries, simulation, progress)

The services run inside bfcl-eval's process. A turn of the user ends with a reply without calls; an
entry ends after `MAX_STEPS` replies with calls, or when the context is full, and then fails.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType

from toolhone.backends.base import StopReason
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.driver import sample_key
from toolhone.episodes.episode import EpisodeStatus
from toolhone.episodes.policy import Policy, Prompt, Turn
from toolhone.errors import DialectError, RunError
from toolhone.evaluation.bfcl_official import Reply, package_command, package_environment
from toolhone.evaluation.bfcl_runner import IDENTIFIER
from toolhone.runs.progress import Progress
from toolhone.schema import Json, Message, Tool, ToolCall
from toolhone.sources.files import FileLine
from toolhone.sources.source import Context
from toolhone.sources.tool_specs import read_tools

MAX_STEPS = 20
MORE_FUNCTIONS = "I have updated some more functions you can choose from. What about now?"
"""What the user says in a turn that only adds functions, as bfcl-eval writes it."""
AT_ONCE = 64
"""Dialogues that are alive at the same time."""


class Simulation:
    """The simulated services of these categories, in a process of their own."""

    def __init__(self, python: Path, categories: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name, "log")
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                package_command(python, "simulate", *categories),
                env=package_environment(Path(self._folder.name)),
                cwd=self._folder.name,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def run(self, identity: str, calls: Sequence[ToolCall]) -> list[str]:
        """The results of these calls of an entry, in order."""
        written = [{call.name: json.dumps(dict(call.arguments))} for call in calls]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"id": identity, "calls": written}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            last = (self._log.read_text("utf-8").strip().splitlines() or ["no reason given"])[-1]
            raise RunError(f"bfcl-eval's simulation ended at {identity}: {last:.300}")
        results: list[str] = json.loads(line)["results"]
        return results

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._folder.cleanup()


@dataclass
class _Dialogue:
    """An entry that is played: `turns` are as in `Reply`; `steps` counts all replies.

    `known` are the functions that run: also those that are offered later, as in bfcl-eval.
    """

    entry: Mapping[str, Json]
    tools: tuple[Tool, ...]
    prompt: Prompt | None = None
    turns: list[list[list[ToolCall] | str]] = field(default_factory=list)
    steps: int = 0
    outcome: EpisodeStatus = EpisodeStatus.ANSWERED

    def note(self, outcome: EpisodeStatus) -> None:
        """Keep what was wrong first."""
        if self.outcome is EpisodeStatus.ANSWERED:
            self.outcome = outcome

    @cached_property
    def known(self) -> set[str]:
        later = self.entry.get("missed_function", {}).values()
        docs = [*self.entry["function"], *(one for docs in later for one in docs)]
        return {doc["name"] for doc in docs}

    def next_prompt(self, policy: Policy, last: Turn | None) -> Prompt | None:
        """The prompt of the next turn of the user; None after the last one."""
        number = len(self.turns)
        questions = self.entry["question"]
        if number == len(questions):
            return None
        self.turns.append([])
        added = self.entry.get("missed_function", {}).get(str(number))
        said = [Message.from_dict(one) for one in questions[number]]
        if added:
            self.tools += tools_of(added)
            said = [Message("user", MORE_FUNCTIONS)]
        if self.prompt is None or last is None:
            return policy.open(tuple(said), self.tools)
        if added or last.stop_reason is StopReason.LENGTH:
            return policy.open((*self.prompt.messages, last.message, *said), self.tools)
        return policy.extend(self.prompt, last, said)


def tools_of(functions: Json) -> tuple[Tool, ...]:
    """Functions as bfcl-eval describes them, as tools in JSON Schema."""
    place = FileLine(Path("bfcl-eval"), 1)
    return read_tools(functions, Context("bfcl", place.path, {}, place), loose=True)


def play_dialogues(
    policy: Policy,
    entries: Sequence[Mapping[str, Json]],
    simulation: Simulation,
    progress: Progress | None = None,
) -> list[Reply]:
    """Play each entry once; replies in the order of the entries."""
    progress = progress or Progress()
    dialogues = [_Dialogue(entry, tools_of(entry["function"])) for entry in entries]
    waiting, alive, stream = list(range(len(dialogues))), dict[int, int](), policy.stream()

    def submit(index: int, prompt: Prompt | None) -> None:
        dialogue = dialogues[index]
        if prompt is not None and not policy.fits(prompt):
            dialogue.note(EpisodeStatus.NO_ROOM)
        if prompt is None or not policy.fits(prompt):
            progress.advance()
            return
        dialogue.prompt = prompt
        key = sample_key(index, dialogue.steps)
        alive[key], dialogue.steps = index, dialogue.steps + 1
        stream.submit(key, prompt)

    with progress.inside("playing dialogues", len(dialogues)):
        while waiting or alive:
            while waiting and len(alive) < AT_ONCE:
                index = waiting.pop(0)
                submit(index, dialogues[index].next_prompt(policy, None))
            for key, turn in stream.poll():
                index = alive.pop(key)
                submit(index, _after(dialogues[index], turn, policy, simulation))
    stream.close()
    return [
        Reply(str(one.entry["id"]), one.turns if one.turns[-1] else one.turns[:-1], one.outcome)
        for one in dialogues
    ]


def _after(
    dialogue: _Dialogue, turn: Turn, policy: Policy, simulation: Simulation
) -> Prompt | None:
    """The prompt after a reply; None where the dialogue is over."""
    is_cut = turn.stop_reason is StopReason.LENGTH
    is_read = turn.problem is ParseProblem.NONE and not is_cut
    calls = turn.message.tool_calls if is_read else ()
    if not is_read:
        dialogue.note(EpisodeStatus.TRUNCATED if is_cut else EpisodeStatus.MALFORMED)
    kept = [
        call
        for call in calls
        if call.name in dialogue.known and all(re.fullmatch(IDENTIFIER, k) for k in call.arguments)
    ]
    dialogue.turns[-1].append(kept if calls else turn.text)
    try:
        if not calls:
            return dialogue.next_prompt(policy, turn)
        if len(dialogue.turns[-1]) > MAX_STEPS:
            dialogue.note(EpisodeStatus.TOO_MANY_TURNS)
            return None
        results = iter(simulation.run(str(dialogue.entry["id"]), kept) if kept else [])
        answers = [
            Message(
                "tool",
                next(results) if call in kept else f"Error: there is no function {call.name!r}",
                tool_call_id=call.id,
                name=call.name,
            )
            for call in calls
        ]
        assert dialogue.prompt is not None
        return policy.extend(dialogue.prompt, turn, answers)
    except DialectError:  # a reply that the template cannot write as history
        dialogue.note(EpisodeStatus.FAILED)
        return None
