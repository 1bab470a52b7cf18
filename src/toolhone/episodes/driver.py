"""Plays many episodes at once: samples without a barrier, runs tools in parallel, lets a row join again when its tool answers.

    episodes = play(policy, tasks, registry, Rules())
    episodes = play(policy, tasks, registry, rules=[Rules(first_call_only=True), Rules()], on_episode=bar)

While tools run, other rows are sampled; the driver waits for tools where there is nothing to sample, and before each sampling for a
moment, so that rows whose tools are quick share a batch whatever the clock says. What this waiting takes is counted as `tools`.

The result of an episode does not depend on what else is played: the random stream of a sample is named by the task's index and
the turn. An episode on which the program fails after it has begun ends as `FAILED` with the reason; it never stops the others.
Raised are a first prompt that cannot be written (a mistake in the task), what stops the sampler, and a `UserError` of a tool (no
other call would do better). What is played is said in `episode`; nothing is scored here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice

from toolhone.data.task_files import refuse_unplayable
from toolhone.episodes.clock import Clock
from toolhone.episodes.episode import Episode, Play, SampleRequest, Wish, episode
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
"""Calls that are made at the same time. Most of them only wait; a tool that computes has a bound of its own (`limits.at_once`)."""
GRACE, GRACE_SHARE = 0.02, 0.1
"""How long sampling waits for calls that have just started, so that rows with quick tools share a batch whatever the clock says:
seconds, or this share of the sampling since the last wait. Slow tools are waited for at most this share of the time."""
TO_THE_END = EpisodeRules()
NO_TOOLS = Registry([])

OnEpisode = Callable[[int, Episode], None]


def sample_key(index: int, turn: int) -> int:
    """The key of the sample for a turn of the task at this index; distinct for indices below 2^22."""
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
    """Play each task once, under common rules or those at its index; episodes come in the order of the tasks.

    `on_episode(index, episode)` is called as soon as each ends. The same task may stand in `tasks` several times. `first`: how many
    were played by this policy before, so that these have random streams of their own. `clock` is told of the time in which nothing
    was sampled because tools were running.
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
    """Run one call; a tool that the task does not offer is unknown, even where the registry has it."""
    offered = any(tool.name == call.name for tool in task.tools)
    return (registry if offered else NO_TOOLS).run(call)


class _Driver:
    """The episodes that are alive. `speaking` maps the keys of queued prompts to tasks, `working` tasks to their running calls."""

    def __init__(
        self,
        policy: Policy,
        tasks: Sequence[Task],
        rules: Sequence[EpisodeRules],
        registry: Registry,
        on_episode: OnEpisode | None,
        first: int,
    ) -> None:
        self.policy, self.tasks, self.rules, self.registry, self.on_episode = (
            policy,
            tasks,
            rules,
            registry,
            on_episode,
        )
        self.first = first
        self.stream = policy.stream()
        self.fresh: list[Future[ToolResult]] = []
        self.next_wait = self.sampled = 0.0
        self.plays: dict[int, Play] = {}
        self.speaking: dict[int, int] = {}
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
            self._go_on(index, partial(next, self.plays[index]))
        except UserError as error:
            raise type(error)(f"task {self.tasks[index].id!r}: {error}") from None

    def _wait(self) -> None:
        """Wait for running tools: for new calls a moment, and where nothing is sampled until an episode can continue."""
        fresh, self.fresh = self.fresh, []
        grace = max(GRACE, GRACE_SHARE * self.sampled)
        if fresh and time.monotonic() >= self.next_wait:
            self.sampled = 0.0
            if wait(fresh, grace).not_done:
                self.next_wait = time.monotonic() + grace / GRACE_SHARE
        running = [future for futures in self.working.values() for future in futures]
        while running and not self.speaking and not self._answered():
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
            run_episodes = self.plays[index]
            answer = (
                partial(run_episodes.throw, errors[0])
                if errors
                else partial(run_episodes.send, [future.result() for future in futures])
            )
            self._go_on(index, answer)

    def _sample(self) -> None:
        """Sample until a turn ends, and hand it to its episode."""
        started = time.monotonic()
        turns = self.stream.poll() if self.speaking else []
        self.sampled += time.monotonic() - started
        for key, turn in turns:
            index = self.speaking.pop(key)
            self._go_on(index, partial(self.plays[index].send, turn))

    def _go_on(self, index: int, advance: Callable[[], Wish]) -> None:
        """Take an episode to its next wish, or to its end."""
        try:
            wish = advance()
        except StopIteration as stop:
            del self.plays[index]
            self.done[index] = stop.value
            if self.on_episode:
                self.on_episode(index, stop.value)
            return
        if isinstance(wish, SampleRequest):
            key = sample_key(self.first + index, wish.turn)
            self.speaking[key] = index
            self.stream.submit(key, wish.prompt)
        else:
            task = self.tasks[index]
            self.working[index] = [
                self.threads.submit(run_call, self.registry, task, call) for call in wish.calls
            ]
            self.fresh += self.working[index]
