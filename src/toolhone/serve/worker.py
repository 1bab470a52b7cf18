"""The one thread that uses the model: requests wait in a queue and are sampled in batches.

    future = Worker(model).submit(request)    # the turn, or a `UserError`

A batch holds waiting requests with the same sampling. What else is in a batch does not change a
reply: each row has its own random stream, and a request with a seed always has the stream of that
seed.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import count

from toolhone.agents.openai import ChatRequest
from toolhone.api import Model
from toolhone.backends.base import SamplingParams
from toolhone.episodes.policy import Prompt, TokenPolicy, Turn
from toolhone.errors import CapabilityError

MOST_WAITING = 1024


@dataclass(frozen=True)
class _ChatJob:
    prompt: Prompt
    params: SamplingParams
    key: int
    future: Future[Turn]
    record: Callable[[Turn], Turn]


Opened = tuple[Prompt, int, Callable[[Turn], Turn]]
"""The prompt of a request, the key of its random stream (0: any), and what notes its turn."""
OpenPrompt = Callable[[ChatRequest, str], Opened]
_Waiting = tuple[ChatRequest, str, Future[Turn]]


class Worker:
    """Answers requests with one model. `open_prompt` is called in the thread for each request."""

    def __init__(self, model: Model, open_prompt: OpenPrompt | None = None) -> None:
        self._model, self.policy = model, model.policy()
        self.defaults = self.policy.params
        self._open = open_prompt or self._open_alone
        self._waiting = queue.SimpleQueue[_Waiting | None]()
        self._keys = count(1)
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def submit(self, request: ChatRequest, session: str = "") -> Future[Turn]:
        """Queue a request."""
        if self._waiting.qsize() >= MOST_WAITING:
            raise CapabilityError(f"{MOST_WAITING} requests are waiting already; try again later")
        future: Future[Turn] = Future()
        self._waiting.put((request, session, future))
        return future

    def close(self) -> None:
        """End the thread after the requests of its current batch; cancel those that wait."""
        self._waiting.put(None)

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _open_alone(self, request: ChatRequest, session: str) -> Opened:  # noqa: ARG002
        return self.policy.open(request.messages, request.tools), 0, lambda turn: turn

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            arrived: list[_Waiting | None] = [first]
            while arrived[-1] is not None and not self._waiting.empty():
                arrived.append(self._waiting.get())
            requests = [one for one in arrived if one is not None]
            if arrived[-1] is None:
                for *_, future in requests:
                    future.cancel()
                return
            jobs = [self._job(*one) for one in requests if one[2].set_running_or_notify_cancel()]
            for batch in batches_of([job for job in jobs if job is not None]):
                self._answer(batch)

    def _job(self, request: ChatRequest, session: str, future: Future[Turn]) -> _ChatJob | None:
        """Return the request as a job; None if it cannot be answered: the future has the error."""
        try:
            prompt, key, record = self._open(request, session)
            if not self.policy.fits(prompt):
                size = f"{len(prompt.tokens)} tokens and the model's context holds"
                right = "shorten the messages or offer fewer tools"
                raise CapabilityError(f"the prompt has {size} {self._model.max_context}; {right}")
            self.policy.check_tools([request.tools])
        except Exception as error:  # of any kind: it belongs to whoever waits for the future
            future.set_exception(error)
            return None
        most = request.params.max_tokens
        params = replace(request.params, max_tokens=min(most, self._model.max_context or most))
        key = key or (0 if request.seeded else next(self._keys))
        return _ChatJob(prompt, params, key, future, record)

    def _answer(self, batch: Sequence[_ChatJob]) -> None:
        model, params, grammar = self._model, batch[0].params, self.policy.grammar
        shared = (model.sampler, model.dialect, model.tokenizer)
        policy = TokenPolicy(*shared, params, model.max_context, grammar)
        waiting = {job.key: job for job in batch}
        try:
            stream = policy.stream()
            for job in batch:
                stream.submit(job.key, job.prompt)
            while waiting:
                for key, turn in stream.poll():
                    job = waiting.pop(key)
                    job.future.set_result(job.record(turn))
        except Exception as error:  # the next batch starts anew
            for job in waiting.values():
                job.future.set_exception(error)


def batches_of(jobs: Sequence[_ChatJob]) -> list[list[_ChatJob]]:
    """Group jobs that can be sampled together, in order; a key occurs once in a batch."""
    batches: list[list[_ChatJob]] = []
    for job in jobs:
        alike = (batch for batch in batches if batch[0].params == job.params)
        batch = next((one for one in alike if all(job.key != other.key for other in one)), None)
        if batch is None:
            batches.append(batch := [])
        batch.append(job)
    return batches
