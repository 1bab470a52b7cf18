"""Requests of the Tinker server in their order, and the one thread that works on them.

    promises = Promises(EngineThread())
    identity = promises.add("run:1", Job(work))         # the same id again: the same promise
    promises.add_in_order("run", 2, Job(work))          # waits until numbers below 2 have come

Everything but the work itself runs in the thread of the server's event loop.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from toolhone.errors import BusyError, DataError
from toolhone.schema import Json

Result = bytes | dict[str, Json]
"""What a promise comes to: protobuf or JSON."""
GATHER_SECONDS = 0.002
"""Jobs of one group are worked on together once none has arrived for this long."""
MOST_WAITING = 100_000
MOST_RETRIEVED = 1000
"""Results kept after the client got them, in case the reply was lost on its way."""


@dataclass(eq=False)
class Job:
    """`work` gets the job and those of the same `group` that wait with it, and resolves them."""

    work: Callable[[Sequence[Job]], None]
    group: str | None = None
    request: Any = None
    future: Future[Result] = field(default_factory=Future)


def job_of(work: Callable[[], Result]) -> Job:
    """A job that is worked on alone."""

    def resolve(jobs: Sequence[Job]) -> None:
        jobs[0].future.set_result(work())

    return Job(resolve)


class EngineThread:
    """Works on jobs in the order of arrival, on those of a group at once."""

    def __init__(self) -> None:
        self._jobs = deque[Job]()
        self._arrived = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        with self._arrived:
            if len(self._jobs) >= MOST_WAITING:
                raise BusyError(f"{MOST_WAITING} requests are waiting already; try again later")
            self._jobs.append(job)
            self._arrived.notify()

    def close(self) -> None:
        """Wait for the jobs that the thread works on, and end it; the others stay undone."""
        with self._arrived:
            self._closed = True
            self._arrived.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                jobs = [self._jobs.popleft()]
            if jobs[0].group is not None:
                self._gather(jobs)
            try:
                jobs[0].work(jobs)
            except Exception as error:  # of any kind: it belongs to whoever waits for the future
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(error)

    def _gather(self, jobs: list[Job]) -> None:
        """Add the waiting jobs of the same group, until no more arrive."""
        count = 0
        while count < len(jobs):
            count = len(jobs)
            time.sleep(GATHER_SECONDS)
            with self._arrived:
                jobs += [job for job in self._jobs if job.group == jobs[0].group]
                others = [job for job in self._jobs if job.group != jobs[0].group]
                self._jobs = deque(others)


class Promises:
    """Results by request id, which the client asks for until they are there."""

    def __init__(self, thread: EngineThread) -> None:
        self.thread = thread
        self._futures: dict[str, Future[Result]] = {}
        self._retrieved = deque[str]()
        self._next: dict[str, int] = {}
        self._held: dict[str, dict[int, Job]] = {}

    def add(self, identity: str, job: Job) -> str:
        """Queue a job under an id; an id that is known already keeps its first job."""
        if identity not in self._futures:
            self.thread.put(job)
            self._futures[identity] = job.future
        return identity

    def add_in_order(self, model_id: str, number: int, job: Job) -> str:
        """Queue request `number` (from 1) of a model, once all lower numbers are queued."""
        identity = f"{model_id}:{number}"
        if identity in self._futures:
            return identity
        held, due = self._held.setdefault(model_id, {}), self._next.get(model_id, 1)
        if number < due:
            raise DataError(f"request {number} of {model_id} is over, and its result was retrieved")
        held[number], self._futures[identity] = job, job.future
        while due in held:
            self.thread.put(held.pop(due))
            due += 1
        self._next[model_id] = due
        return identity

    def find(self, identity: str) -> Future[Result]:
        if identity not in self._futures:
            raise DataError(
                f"there is no request {identity!r:.120} here: its result was retrieved long ago, "
                "or the server was started anew"
            )
        return self._futures[identity]

    def note_retrieved(self, identity: str) -> None:
        """Forget the oldest of many results that the client has got."""
        self._retrieved.append(identity)
        if len(self._retrieved) > MOST_RETRIEVED:
            self._futures.pop(self._retrieved.popleft(), None)

    def forget(self, prefix: str) -> None:
        """Drop the results of a session that has ended."""
        for table in (self._futures, self._held, self._next):
            for identity in [each for each in table if each.startswith(prefix)]:
                del table[identity]
