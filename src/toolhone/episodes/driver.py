"""Plays many episodes at once: samples without a barrier, and runs tools while other rows sample.

    episodes = run_episodes(policy, tasks, registry, EpisodeRules(), on_episode=bar)

An episode does not depend on what else is played: the task's index and the turn name its random
streams. Each has a world of its own. An episode on which the program or its world fails, or for
which the machine has no time (`BusyError`), ends as `FAILED`; another `UserError` is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol

from toolhone.data.task_files import refuse_unplayable
from toolhone.episodes.episode import (
    Awaited,
    Episode,
    EpisodeRules,
    Play,
    Request,
    SampleRequest,
    episode,
)
from toolhone.episodes.policy import Policy, PolicyStream
from toolhone.errors import BusyError, UserError
from toolhone.schema import Json, Task, ToolCall
from toolhone.tools.open_world import open_world
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult
from toolhone.tools.worlds import World

TURNS_PER_KEY = 1024
AT_ONCE = 1024
"""Episodes that are alive at the same time: a bound on memory."""
TOOL_THREADS = 64
"""Calls that run at once; most only wait. A tool that computes has its own bound (`at_once`)."""
PATIENCE, PATIENCE_SHARE = 2.0, 0.1
"""How long sampling waits for running calls, in all: seconds, and this share of its own time.

Rows with quick tools so join together, in one pass over their prompts, and mostly share the same
batches each time, on a busy machine too; slow tools cost no more."""
GRACE = 0.02
"""Seconds that a call which has ended waits for others when nothing else can be sampled."""
TO_THE_END = EpisodeRules()
NO_TOOLS = Registry([])

OnEpisode = Callable[[int, Episode], None]


class PlayTasks(Protocol):
    """`run_episodes`, or another that plays tasks."""

    def __call__(
        self,
        policy: Policy,
        tasks: Sequence[Task],
        registry: Registry,
        rules: EpisodeRules | Sequence[EpisodeRules],
        on_episode: OnEpisode | None = None,
        clock: Clock | None = None,
    ) -> list[Episode]: ...


@dataclass
class Clock:
    """Where wall time goes: `with clock.on("sample"): ...`, then `clock.take()`.

    Time inside a nested activity counts there alone, so all times together are the time that
    passed. One thread only. `now` is a clock in seconds.
    """

    now: Callable[[], float] = time.monotonic
    _since: float = 0.0
    _seconds: dict[str, float] = field(default_factory=dict)
    _active: list[str] = field(default_factory=list)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Count the time inside, except that of nested activities."""
        self._count()
        self._active.append(name)
        try:
            yield
        finally:
            self._count()
            self._active.pop()

    def take(self) -> dict[str, float]:
        """Seconds by activity since the last call."""
        self._count()
        taken, self._seconds = self._seconds, {}
        return taken

    def _count(self) -> None:
        """Count the time since the last change for the innermost activity."""
        now = self.now()
        if self._active:
            name = self._active[-1]
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


def sample_key(index: int, turn: int) -> int:
    """The key of the sample for a turn of a task; distinct for indices below 2^22."""
    assert turn < TURNS_PER_KEY, f"turn {turn} is beyond {TURNS_PER_KEY}"
    return index * TURNS_PER_KEY + turn


def run_episodes(
    policy: Policy,
    tasks: Sequence[Task],
    registry: Registry,
    rules: EpisodeRules | Sequence[EpisodeRules] = TO_THE_END,
    on_episode: OnEpisode | None = None,
    clock: Clock | None = None,
    at_once: int = AT_ONCE,
    first: int = 0,
) -> list[Episode]:
    """Play each task once, under common rules or one for each; episodes in the order of the tasks.

    `on_episode(index, episode)` is called when one ends. `first`: how many this policy has played
    before, so that random streams differ. `clock` counts as `tools` when only tools were running.
    """
    assert at_once >= 1, f"at_once must be at least 1, got {at_once}"
    refuse_unplayable(tasks)
    each = [rules] * len(tasks) if isinstance(rules, EpisodeRules) else list(rules)
    assert len(each) == len(tasks), f"{len(each)} rules for {len(tasks)} tasks"
    stream = policy.stream()
    threads = ThreadPoolExecutor(TOOL_THREADS, thread_name_prefix="tool")
    worlds: dict[int, World] = {}

    def play(index: int) -> Play:
        worlds[index] = open_world(tasks[index], registry)
        return episode(tasks[index], policy, each[index])

    driver = Driver(tasks, play, stream, threads, worlds, on_episode, first)
    try:
        driver.run(at_once, clock or Clock())
    finally:
        stream.close()
        threads.shutdown(cancel_futures=True)
    return [driver.done[index] for index in range(len(tasks))]


def run_calls(world: World, task: Task, calls: Sequence[ToolCall]) -> list[ToolResult]:
    """Make calls in their order; a tool that the task does not offer is unknown."""
    offered = {tool.name for tool in task.tools}
    return [world.call(one) if one.name in offered else NO_TOOLS.run(one) for one in calls]


@dataclass
class Driver:
    """The episodes that are alive; `play(index)` starts that of a task.

    `sampling` maps keys of prompts to tasks, `working` tasks to their running calls, `worlds` tasks
    to the worlds of their episodes, where they have any.
    """

    tasks: Sequence[Task]
    play: Callable[[int], Play]
    stream: PolicyStream
    threads: ThreadPoolExecutor
    worlds: dict[int, World] = field(default_factory=dict)
    on_episode: OnEpisode | None = None
    first: int = 0
    patience: float = PATIENCE
    plays: dict[int, Play] = field(default_factory=dict)
    sampling: dict[int, int] = field(default_factory=dict)
    working: dict[int, list[Future[list[Any]]]] = field(default_factory=dict)
    states: dict[int, list[Mapping[str, Json] | None]] = field(default_factory=dict)
    done: dict[int, Episode] = field(default_factory=dict)

    def run(self, at_once: int, clock: Clock) -> None:
        waiting = iter(range(len(self.tasks)))
        while len(self.done) < len(self.tasks):
            for index in islice(waiting, at_once - len(self.plays)):
                self.plays[index] = self.play(index)
                try:
                    self._advance(index, partial(next, self.plays[index]))
                except UserError as error:
                    raise type(error)(f"task {self.tasks[index].id!r}: {error}") from None
            with clock.on("tools"):
                answered = self._wait()
            self._collect(answered)
            started = time.monotonic()
            turns = self.stream.poll() if self.sampling else []
            self.patience += PATIENCE_SHARE * (time.monotonic() - started)
            for key, turn in turns:
                index = self.sampling.pop(key)
                self._advance(index, partial(self.plays[index].send, turn))

    def _wait(self) -> list[int]:
        """Wait for calls with what patience is left; if nothing samples, until an episode can
        continue.

        Returns the episodes whose calls have all ended.
        """
        running = [one for futures in self.working.values() for one in futures]
        if running and self.patience > 0:
            started = time.monotonic()
            wait(running, self.patience, FIRST_EXCEPTION)
            self.patience -= time.monotonic() - started
        while True:
            calls = self.working.items()
            answered = [index for index, futures in calls if all(one.done() for one in futures)]
            if answered or self.sampling or not self.working:
                return answered
            wait([one for one in running if not one.done()], return_when=FIRST_COMPLETED)
            wait(running, GRACE)

    def _collect(self, answered: Sequence[int]) -> None:
        """Hand finished tool results to their episodes."""
        for index in answered:
            futures = self.working.pop(index)
            errors = [error for future in futures if (error := future.exception())]
            mistakes = (error for error in errors if isinstance(error, UserError))
            if mistake := next((one for one in mistakes if not isinstance(one, BusyError)), None):
                raise mistake
            if errors:
                self._advance(index, partial(self.plays[index].throw, errors[0]))
            else:
                results = [result for future in futures for result in future.result()]
                if index in self.worlds:
                    self.states.setdefault(index, []).append(self.worlds[index].state())
                self._advance(index, partial(self.plays[index].send, results))

    def _advance(self, index: int, advance: Callable[[], Request]) -> None:
        """Take an episode to its next request or its end."""
        try:
            request = advance()
        except StopIteration as stop:
            del self.plays[index]
            ended: Episode = stop.value
            if world := self.worlds.pop(index, None):
                states = tuple(self.states.pop(index, ()))
                ended = replace(ended, state=world.state(), states=states)
            self.done[index] = ended
            if self.on_episode:
                self.on_episode(index, ended)
            return
        if isinstance(request, SampleRequest):
            key = sample_key(self.first + index, request.turn)
            self.sampling[key] = index
            self.stream.submit(key, request.prompt)
        elif isinstance(request, Awaited):
            self.working[index] = [request.future]
        else:
            world, calls = self.worlds[index], request.calls
            batches = [calls] if world.in_order else [(call,) for call in calls]
            self.working[index] = [
                self.threads.submit(run_calls, world, self.tasks[index], batch) for batch in batches
            ]
