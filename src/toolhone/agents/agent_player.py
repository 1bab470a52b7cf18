"""Plays tasks by starting a program of the user, an agent, for each; the policy answers it.

    player = AgentPlayer(plan.agent, report)
    episodes = player.play(policy, tasks, registry, rules)    # as `run_episodes`
    player.close()

Each agent gets OPENAI_BASE_URL, OPENAI_API_KEY (its session) and its task on standard input. An
agent that fails ends its episode as `FAILED`; if all of a round fail, that is a `RunError`.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from toolhone.agents.gateway import (
    SHUTDOWN_SECONDS,
    Posted,
    address_of,
    check_installed,
    listen,
    open_app,
)
from toolhone.agents.openai import ChatRequest
from toolhone.agents.sessions import AgentSession, SessionEndedError
from toolhone.backends.base import SamplingParams
from toolhone.config.rl import POSTED, AgentSection
from toolhone.config.sections import Experiment, reward_phases
from toolhone.episodes.driver import Clock, Driver, OnEpisode
from toolhone.episodes.episode import Awaited, Episode, EpisodeRules, Play
from toolhone.episodes.policy import Policy, TokenPolicy, Turn
from toolhone.errors import ConfigError, RunError, UserError
from toolhone.schema import Json, Task
from toolhone.tools.command import FLOOD, Finished, Stopped, run_program
from toolhone.tools.registry import Registry
from toolhone.tools.result import truncate

if TYPE_CHECKING:
    import uvicorn

MODEL = "policy"
"""The name of the model that agents talk to; any other name is answered as well."""
SHOWN = 400
"""Characters of an agent's standard error in a message."""
MAX_OUTPUT = 65_536


class AgentFailure(StrEnum):
    """How an agent failed, and not the model."""

    EXIT_CODE = "exit_code"
    """It ended with another exit code than 0."""
    NO_REQUEST = "no_request"
    """It ended without a request."""
    TIMEOUT = "timeout"
    """It did not end within `agent.timeout_s`."""
    NO_REWARD = "no_reward"
    """It posted no reward, and nothing else gives one."""
    NOT_RUN = "not_run"
    """It could not be started, or wrote without end."""


@dataclass(frozen=True)
class _Arrival:
    chat: ChatRequest
    answer: Future[Turn]


@dataclass
class Inbox:
    """The requests of one agent on their way from the server to the episode."""

    task: Task
    reward: Posted | None = None
    finished: Finished | None = None
    _arrived: queue.SimpleQueue[_Arrival | None] = field(default_factory=queue.SimpleQueue)
    _waiting: Future[list[_Arrival]] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, arrival: _Arrival | None) -> None:
        """Add a request; None is the end of the agent."""
        with self._lock:
            if self._waiting is None:
                self._arrived.put(arrival)
            else:
                self._waiting.set_result([] if arrival is None else [arrival])
                self._waiting = None

    def next(self) -> Future[list[_Arrival]]:
        """The next request, in a list that is empty at the end of the agent."""
        found = Future[list[_Arrival]]()
        with self._lock:
            if self._arrived.empty():
                self._waiting = found
                return found
            arrival = self._arrived.get()
        found.set_result([] if arrival is None else [arrival])
        return found

    def refuse_rest(self) -> None:
        """Answer what nobody will ask for any more."""
        while not self._arrived.empty():
            arrival = self._arrived.get()
            if arrival and arrival.answer.set_running_or_notify_cancel():
                arrival.answer.set_exception(SessionEndedError("this session has ended"))


class AgentPlayer:
    """Starts agents and answers them; also the `Answerer` of their server, which runs from the
    first round to `close`. `needs_reward`: an episode without a posted reward has failed."""

    name, fingerprint, any_model = MODEL, "", True
    defaults = SamplingParams()
    about: Mapping[str, Json] = MappingProxyType({})

    def __init__(
        self, section: AgentSection, report: Callable[[str], None], needs_reward: bool = False
    ) -> None:
        check_installed("data.strategy agent")
        self.section, self.report, self.needs_reward = section, report, needs_reward
        self._folder = Path(section.cwd or ".").resolve()
        self._program = self._find_program()
        self._inboxes: dict[str, Inbox] = {}
        self._seen = set[str]()
        self._stopping = threading.Event()
        self._server: uvicorn.Server | None = None
        self._url = ""

    @staticmethod
    def of(plan: Experiment, report: Callable[[str], None]) -> AgentPlayer:
        """The player of an experiment with `data.strategy` agent."""
        posts = all(one.functions == [POSTED] for one in reward_phases(plan))
        return AgentPlayer(plan.agent, report, posts)

    def _find_program(self) -> str:
        program = self.section.command[0]
        if not self._folder.is_dir():
            raise ConfigError(f"agent.cwd: there is no folder {self._folder}")
        place = str(self._folder / program) if os.sep in program else program
        if (found := shutil.which(place)) is None:
            raise ConfigError(f"agent.command: there is no program {program!r}; name one")
        return os.path.abspath(found)

    def play(
        self,
        policy: Policy,
        tasks: Sequence[Task],
        registry: Registry,  # noqa: ARG002 (agents have tools of their own)
        rules: EpisodeRules | Sequence[EpisodeRules],
        on_episode: OnEpisode | None = None,
        clock: Clock | None = None,
    ) -> list[Episode]:
        """Play each task once; episodes in the order of the tasks. Random streams are those of
        `run_episodes`."""
        assert isinstance(policy, TokenPolicy), "agents are answered by one of our models"
        each = [rules] * len(tasks) if isinstance(rules, EpisodeRules) else list(rules)
        turns, parallel = self.section.max_turns, self.section.parallel
        each = [replace(own, max_turns=turns, first_call_only=False) for own in each]
        self._open_server()
        self.defaults, self._stopping = policy.params, threading.Event()
        stream = policy.stream()
        threads = ThreadPoolExecutor(parallel, thread_name_prefix="agent")

        def play(index: int) -> Play:
            key, inbox = f"session-{index}-{secrets.token_hex(8)}", Inbox(tasks[index])
            self._inboxes[key] = inbox
            threads.submit(self._run, key, inbox)
            return self._episode(key, inbox, AgentSession(policy, each[index]))

        driver = Driver(tasks, play, stream, threads, {}, on_episode)
        driver.patience = self.section.patience_s
        try:
            driver.run(parallel, clock or Clock())
        finally:
            self._stopping.set()  # ends the agents that are left, where a round is broken off
            stream.close()
            threads.shutdown(cancel_futures=True)
            self._inboxes.clear()
        episodes = [driver.done[index] for index in range(len(tasks))]
        self._check(episodes)
        return episodes

    def submit(self, chat: ChatRequest, session: str) -> Future[Turn]:
        """Queue a request of an agent; called by the server."""
        answer: Future[Turn] = Future()
        self._inbox(session).put(_Arrival(chat, answer))
        return answer

    def reward(self, session: str, reward: Posted) -> dict[str, Json]:
        """Keep the reward that an agent posts; called by the server."""
        inbox = self._inbox(session)
        if inbox.reward is not None:
            raise SessionEndedError(f"the session {session!r} has its reward already")
        inbox.reward = reward
        return {"session": session, "reward": reward}

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.should_exit = True

    def _inbox(self, session: str) -> Inbox:
        if session not in self._inboxes:
            right = "send OPENAI_API_KEY as it was given, as the key or as x-session-id"
            raise SessionEndedError(f"no episode of session {session!r:.80} is played; {right}")
        return self._inboxes[session]

    def _open_server(self) -> None:
        """Start the server in a thread, on this machine alone."""
        if self._server is not None:
            return
        import uvicorn

        sock = listen("127.0.0.1", 0)
        self._url = f"{address_of(sock)}/v1"
        config = uvicorn.Config(open_app(self), log_level="warning", lifespan="on")
        config.timeout_graceful_shutdown = SHUTDOWN_SECONDS
        self._server = uvicorn.Server(config)
        run = threading.Thread(target=self._server.run, args=([sock],), daemon=True)
        run.start()

    def _run(self, key: str, inbox: Inbox) -> None:
        """Run one agent to its end."""
        prompt = next((m.content for m in reversed(inbox.task.messages) if m.role == "user"), None)
        words = [word.replace("{prompt}", prompt or "") for word in self.section.command[1:]]
        environment = {**os.environ, "OPENAI_BASE_URL": self._url, "OPENAI_API_KEY": key}
        task = json.dumps(inbox.task.to_dict(), ensure_ascii=False).encode()
        limits = self.section.timeout_s, MAX_OUTPUT
        try:
            inbox.finished = run_program(
                [self._program, *words],
                task,
                environment,
                self._folder,
                *limits,
                self._stopping.is_set,
            )
        finally:
            inbox.put(None)

    def _episode(self, key: str, inbox: Inbox, session: AgentSession) -> Play:
        """The episode of one agent, as a generator for the driver."""
        while arrived := (yield Awaited(inbox.next())):
            assert not isinstance(arrived, Turn), "what is awaited is a list"
            arrival: _Arrival = arrived[0]
            if not arrival.answer.set_running_or_notify_cancel():  # the agent has given up
                continue
            try:
                request = session.ask(arrival.chat)
            except Exception as error:  # of any kind: it belongs to the agent that asked
                arrival.answer.set_exception(error)
                if not isinstance(error, UserError):
                    raise
                continue
            turn = yield request
            assert isinstance(turn, Turn), "a sample request needs a Turn"
            arrival.answer.set_result(session.add(arrival.chat, request, turn))
        self._inboxes.pop(key, None)
        inbox.refuse_rest()
        failure, reason = self._failure(inbox, session)
        return session.episode(inbox.task.id, inbox.reward, failure, reason)

    def _failure(self, inbox: Inbox, session: AgentSession) -> tuple[str, str]:
        """How an agent failed and a sentence on it; "" twice where it did not."""
        end, limit = inbox.finished, self.section.timeout_s
        if end is None or end.stopped not in (Stopped.ENDED, Stopped.LATE):
            why = "it failed" if end is None else end.reason
            why = why or f"it wrote more than {FLOOD // 2**20} MiB"
            return AgentFailure.NOT_RUN, f"the agent could not be run: {why}"
        said = truncate(end.stderr.show(())[-SHOWN:].strip(), SHOWN)
        wrote = f"; it wrote: {said}" if said else ""
        if end.stopped is Stopped.LATE:
            return AgentFailure.TIMEOUT, f"the agent did not end within {limit:g} s{wrote}"
        if end.returncode and session.ended is None:
            return AgentFailure.EXIT_CODE, f"the agent ended with code {end.returncode}{wrote}"
        if not session.params:
            return AgentFailure.NO_REQUEST, f"the agent ended without a request{wrote}"
        if self.needs_reward and inbox.reward is None and session.ended is None:
            return AgentFailure.NO_REWARD, "the agent ended without a posted reward"
        return "", ""

    def _check(self, episodes: Sequence[Episode]) -> None:
        """Report each kind of failure once; raise `RunError` if there is nothing else."""
        failures = [(e.recording.failure, e.reason) for e in episodes if e.recording]
        counts = Counter(kind for kind, _ in failures if kind)
        reasons = dict(failures)
        if counts and counts.total() == len(episodes):
            kind = counts.most_common(1)[0][0]
            number = f"all {len(episodes)} agents of this round failed"
            named = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise RunError(f"{number} ({named}): {reasons[kind]}")
        for kind in counts.keys() - self._seen:
            left_out = "such episodes are left out and counted in the metrics"
            self.report(f"note: {counts[kind]} of {len(episodes)}: {reasons[kind]}; {left_out}")
        self._seen |= counts.keys()
