"""Plays many episodes at once: samples without a barrier, and runs tools while other rows sample.

    episodes = run_episodes(policy, tasks, registry, EpisodeRules(), on_episode=bar)

An episode does not depend on what else is played: the task's index and the turn name its random
streams. An episode on which the program fails ends as `FAILED`; a `UserError` of a tool is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice

from toolhone.data.task_files import refuse_unplayable
from toolhone.episodes.clock import Clock
from toolhone.episodes.episode import Episode, Play, Request, SampleRequest, episode
from toolhone.episodes.outcome import EpisodeRules
from toolhone.episodes.policy import Policy
from toolhone.errors import UserError
from toolhone.schema import Task, ToolCall
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult

TURNS_PER_KEY = 1024
AT_ONCE = 1024
"""Episodes that are alive at the same time: a bound on memory."""
TOOL_THREADS = 64
"""Calls that run at once; most only wait. A tool that computes has its own bound (`at_once`)."""
GRACE, GRACE_SHARE = 0.02, 0.1
"""How long sampling waits for calls that have just started, so that rows with quick tools share a
batch: seconds, or this share of the sampling since the last wait. Slow tools cost no more."""
TO_THE_END = EpisodeRules()
NO_TOOLS = Registry([])

OnEpisode = Callable[[int, Episode], None]


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
    at_once: int = AT_ONCE,
    first: int = 0,
    clock: Clock | None = None,
) -> list[Episode]:
    """Play each task once, under common rules or one for each; episodes in the order of the tasks.

    `on_episode(index, episode)` is called when one ends. `first`: how many this policy has played
    before, so that random streams differ. `clock` counts as `tools` when only tools were running.
    """
    assert at_once >= 1, f"at_once must be at least 1, got {at_once}"
    refuse_unplayable(tasks)
    each = [rules] * len(tasks) if isinstance(rules, EpisodeRules) else list(rules)
    assert len(each) == len(tasks), f"{len(each)} rules for {len(tasks)} tasks"
    threads = ThreadPoolExecutor(TOOL_THREADS, thread_name_prefix="tool")
    try:
        return _Driver(policy, tasks, each, registry, on_episode, first).run(
            threads, at_once, clock or Clock()
        )
    finally:
        threads.shutdown(cancel_futures=True)


def run_call(registry: Registry, task: Task, call: ToolCall) -> ToolResult:
    """Run one call; a tool that the task does not offer is unknown."""
    offered = any(tool.name == call.name for tool in task.tools)
    return (registry if offered else NO_TOOLS).run(call)


class _Driver:
    """The episodes that are alive.

    `sampling` maps keys of prompts to tasks, `working` tasks to their running calls.
    """

    def __init__(
        self,
        policy: Policy,
        tasks: Sequence[Task],
        rules: Sequence[EpisodeRules],
        registry: Registry,
        on_episode: OnEpisode | None,
        first: int,
    ) -> None:
        self.policy, self.tasks, self.rules = policy, tasks, rules
        self.registry, self.on_episode, self.first = registry, on_episode, first
        self.stream = policy.stream()
        self.fresh: list[Future[ToolResult]] = []
        self.next_wait = self.sampled = 0.0
        self.plays: dict[int, Play] = {}
        self.sampling: dict[int, int] = {}
        self.working: dict[int, list[Future[ToolResult]]] = {}
        self.done: dict[int, Episode] = {}

    def run(self, threads: ThreadPoolExecutor, at_once: int, clock: Clock) -> list[Episode]:
        self.threads = threads
        waiting = iter(range(len(self.tasks)))
        try:
            while len(self.done) < len(self.tasks):
                for index in islice(waiting, at_once - len(self.plays)):
                    self._start(index)
                with clock.on("tools"):
                    self._wait()
                self._collect()
                self._sample()
        finally:
            self.stream.close()
        return [self.done[index] for index in range(len(self.tasks))]

    def _start(self, index: int) -> None:
        self.plays[index] = episode(self.tasks[index], self.policy, self.rules[index])
        try:
            self._advance(index, partial(next, self.plays[index]))
        except UserError as error:
            raise type(error)(f"task {self.tasks[index].id!r}: {error}") from None

    def _wait(self) -> None:
        """Wait a moment for new calls; if nothing samples, until an episode can continue."""
        fresh, self.fresh = self.fresh, []
        grace = max(GRACE, GRACE_SHARE * self.sampled)
        if fresh and time.monotonic() >= self.next_wait:
            self.sampled = 0.0
            if wait(fresh, grace).not_done:
                self.next_wait = time.monotonic() + grace / GRACE_SHARE
        running = [future for futures in self.working.values() for future in futures]
        while running and not self.sampling and not self._answered():
            wait([future for future in running if not future.done()], return_when=FIRST_COMPLETED)
            wait(running, grace)

    def _answered(self) -> list[int]:
        """The episodes whose calls have all ended."""
        return [
            index
            for index, futures in self.working.items()
            if all(future.done() for future in futures)
        ]

    def _collect(self) -> None:
        """Hand finished tool results to their episodes."""
        for index in self._answered():
            futures = self.working.pop(index)
            errors = [error for future in futures if (error := future.exception())]
            if errors and isinstance(errors[0], UserError):
                raise errors[0]
            if errors:
                self._advance(index, partial(self.plays[index].throw, errors[0]))
            else:
                results = [future.result() for future in futures]
                self._advance(index, partial(self.plays[index].send, results))

    def _sample(self) -> None:
        """Sample until a turn ends, and hand it to its episode."""
        started = time.monotonic()
        turns = self.stream.poll() if self.sampling else []
        self.sampled += time.monotonic() - started
        for key, turn in turns:
            index = self.sampling.pop(key)
            self._advance(index, partial(self.plays[index].send, turn))

    def _advance(self, index: int, advance: Callable[[], Request]) -> None:
        """Take an episode to its next request or its end."""
        try:
            request = advance()
        except StopIteration as stop:
            del self.plays[index]
            self.done[index] = stop.value
            if self.on_episode:
                self.on_episode(index, stop.value)
            return
        if isinstance(request, SampleRequest):
            key = sample_key(self.first + index, request.turn)
            self.sampling[key] = index
            self.stream.submit(key, request.prompt)
        else:
            task = self.tasks[index]
            self.working[index] = [
                self.threads.submit(run_call, self.registry, task, call) for call in request.calls
            ]
            self.fresh += self.working[index]
