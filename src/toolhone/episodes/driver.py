"""Plays many episodes at once: samples without a barrier, runs tools in parallel, lets a row join again when its tool answers.

    episodes = play(policy, tasks, registry, Rules())
    episodes = play(policy, tasks, registry, rules=[Rules(first_call_only=True), Rules()], on_episode=bar)

The result of an episode does not depend on what else is played: the random stream of a sample is named by the task's index and
the turn. An episode on which the program fails after it has begun ends as `FAILED` with the reason; it never stops the others.
Raised are a first prompt that cannot be written (a mistake in the task), what stops the sampler, and a `UserError` of a tool (no
other call would do better). What is played is said in `episode`; nothing is scored here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice

from toolhone.episodes.episode import Episode, Play, Say, Wish, episode, refuse_unplayable
from toolhone.episodes.outcome import Rules
from toolhone.episodes.policy import Policy
from toolhone.errors import UserError
from toolhone.schema import Task, ToolCall
from toolhone.tools.registry import Registry, ToolResult

TURNS_PER_KEY = 1024
AT_ONCE = 256
"""Episodes that are alive at the same time: a bound on memory."""
TOOL_THREADS = 8
GRACE = 0.05
"""Seconds to wait for running tools before sampling goes on, so that rows whose tools are quick share a batch."""
TO_THE_END = Rules()
NO_TOOLS = Registry([])

OnEpisode = Callable[[int, Episode], None]


def sample_key(index: int, turn: int) -> int:
    """The key of the sample for a turn of the task at this index; distinct for indices below 2^22."""
    assert turn < TURNS_PER_KEY, f"turn {turn} is beyond {TURNS_PER_KEY}"
    return index * TURNS_PER_KEY + turn


def play(
    policy: Policy,
    tasks: Sequence[Task],
    registry: Registry,
    rules: Rules | Sequence[Rules] = TO_THE_END,
    on_episode: OnEpisode | None = None,
    at_once: int = AT_ONCE,
) -> list[Episode]:
    """Play each task once, under common rules or those at its index; episodes come in the order of the tasks.

    `on_episode(index, episode)` is called as soon as each ends. The same task may stand in `tasks` several times.
    """
    assert at_once >= 1, f"at_once must be at least 1, got {at_once}"
    refuse_unplayable(tasks)
    each = [rules] * len(tasks) if isinstance(rules, Rules) else list(rules)
    assert len(each) == len(tasks), f"{len(each)} rules for {len(tasks)} tasks"
    with ThreadPoolExecutor(TOOL_THREADS, thread_name_prefix="tool") as threads:
        return _Stage(policy, tasks, each, registry, on_episode).run(threads, at_once)


def run_call(registry: Registry, task: Task, call: ToolCall) -> ToolResult:
    """Run one call; a tool that the task does not offer is unknown, even where the registry has it."""
    offered = any(tool.name == call.name for tool in task.tools)
    return (registry if offered else NO_TOOLS).run(call)


class _Stage:
    """The episodes that are alive. `speaking` maps the keys of queued prompts to tasks, `working` tasks to their running calls."""

    def __init__(
        self, policy: Policy, tasks: Sequence[Task], rules: Sequence[Rules], registry: Registry, on_episode: OnEpisode | None
    ) -> None:
        self.policy, self.tasks, self.rules, self.registry, self.on_episode = policy, tasks, rules, registry, on_episode
        self.stream = policy.stream()
        self.plays: dict[int, Play] = {}
        self.speaking: dict[int, int] = {}
        self.working: dict[int, list[Future[ToolResult]]] = {}
        self.done: dict[int, Episode] = {}

    def run(self, threads: ThreadPoolExecutor, at_once: int) -> list[Episode]:
        self.threads = threads
        waiting = iter(range(len(self.tasks)))
        while len(self.done) < len(self.tasks):
            for index in islice(waiting, at_once - len(self.plays)):
                self._start(index)
            self._collect()
            for key, turn in self.stream.poll() if self.speaking else []:
                index = self.speaking.pop(key)
                self._go_on(index, partial(self.plays[index].send, turn))
        return [self.done[index] for index in range(len(self.tasks))]

    def _start(self, index: int) -> None:
        self.plays[index] = episode(self.tasks[index], self.policy, self.rules[index])
        try:
            self._go_on(index, partial(next, self.plays[index]))
        except UserError as error:
            raise type(error)(f"task {self.tasks[index].id!r}: {error}") from None

    def _collect(self) -> None:
        """Hand finished tool results to their episodes; wait for one only when there is nothing to sample."""
        running = [future for futures in self.working.values() for future in futures]
        if running and not wait(running, GRACE).done and not self.speaking:
            wait(running, return_when=FIRST_COMPLETED)
        for index in [index for index, futures in self.working.items() if all(future.done() for future in futures)]:
            futures = self.working.pop(index)
            errors = [error for future in futures if (error := future.exception())]
            if errors and isinstance(errors[0], UserError):
                raise errors[0]
            play = self.plays[index]
            answer = partial(play.throw, errors[0]) if errors else partial(play.send, [future.result() for future in futures])
            self._go_on(index, answer)

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
        if isinstance(wish, Say):
            key = sample_key(index, wish.turn)
            self.speaking[key] = index
            self.stream.submit(key, wish.prompt)
        else:
            task = self.tasks[index]
            self.working[index] = [self.threads.submit(run_call, self.registry, task, call) for call in wish.calls]
