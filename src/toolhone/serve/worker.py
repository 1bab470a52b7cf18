"""The one thread that works with the model: requests wait in a queue, and those that can be sampled together are.

    worker = Worker(model)
    future = worker.submit(asked)        # a concurrent Future of the turn; `UserError` where the request cannot be answered
    worker.close()

Requests are taken in the order they came: all that wait and want the same sampling make one batch. What else is in a batch does not
change a reply, since each row has a random stream of its own; a request that names a seed gets the stream of that seed alone, so
that the same request gives the same reply. Two requests with one seed are never in one batch. A request whose client has gone is
dropped if it has not begun.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import count

from toolhone.api import Model
from toolhone.backends.base import SamplingParams
from toolhone.episodes.policy import Prompt, TokenPolicy, Turn
from toolhone.errors import CapabilityError
from toolhone.serve.requests import ChatRequest, Defaults

MOST_WAITING = 1024


@dataclass(frozen=True)
class _Job:
    prompt: Prompt
    params: SamplingParams
    key: int
    future: Future[Turn]


class Worker:
    """Answers requests with one model."""

    def __init__(self, model: Model) -> None:
        policy = model.policy()
        self._base = policy
        self._model, self._params, self._constrain = model, policy.params, policy.constrain
        self.defaults = Defaults(
            policy.params.max_tokens,
            policy.params.temperature,
            policy.params.top_p,
            policy.params.top_k,
        )
        self._waiting: queue.SimpleQueue[tuple[ChatRequest, Future[Turn]] | None] = (
            queue.SimpleQueue()
        )
        self._keys = count(1)
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def submit(self, asked: ChatRequest) -> Future[Turn]:
        """Queue a request."""
        if self._waiting.qsize() >= MOST_WAITING:
            raise CapabilityError(f"{MOST_WAITING} requests are waiting already; try again later")
        future: Future[Turn] = Future()
        self._waiting.put((asked, future))
        return future

    def close(self) -> None:
        """Let the thread end behind the request that it is at; what still waits is cancelled."""
        self._waiting.put(None)

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            arrived, ends = [first], False
            while not self._waiting.empty():
                one = self._waiting.get()
                if one is None:
                    ends = True
                    break
                arrived.append(one)
            if ends:
                for _, future in arrived:
                    future.cancel()
                return
            jobs = [
                job
                for asked, future in arrived
                if future.set_running_or_notify_cancel()
                for job in self._made(asked, future)
            ]
            for batch in batches_of(jobs):
                self._answer(batch)

    def _made(self, asked: ChatRequest, future: Future[Turn]) -> list[_Job]:
        """The request as a job; none when it cannot be answered, which its future is told."""
        try:
            prompt = self._base.open(asked.messages, asked.offered)
            if not self._base.fits(prompt):
                raise CapabilityError(
                    f"the prompt has {len(prompt.tokens)} tokens and the model's context holds {self._model.max_context}; "
                    "shorten the messages or offer fewer tools"
                )
            self._base.check_tools([asked.offered])
        except Exception as error:  # told to the one who waits for it, whatever it is
            future.set_exception(error)
            return []
        greedy = asked.temperature == 0
        seeded = asked.seed is not None and not greedy
        params = replace(
            self._params,
            max_tokens=min(asked.max_tokens, self._model.max_context or asked.max_tokens),
            temperature=asked.temperature,
            top_p=1.0 if greedy else asked.top_p,
            top_k=0 if greedy else asked.top_k,
            seed=asked.seed if seeded and asked.seed is not None else self._params.seed,
        )
        return [_Job(prompt, params, 0 if seeded else next(self._keys), future)]

    def _answer(self, batch: Sequence[_Job]) -> None:
        model = self._model
        policy = TokenPolicy(
            model.sampler,
            model.dialect,
            model.tokenizer,
            batch[0].params,
            model.max_context,
            self._constrain,
        )
        waiting = {job.key: job.future for job in batch}
        try:
            stream = policy.stream()
            for job in batch:
                stream.submit(job.key, job.prompt)
            while waiting:
                for key, turn in stream.poll():
                    waiting.pop(key).set_result(turn)
        except Exception as error:  # told to those who wait for it; the next batch is begun anew
            for future in waiting.values():
                future.set_exception(error)


def batches_of(jobs: Sequence[_Job]) -> list[list[_Job]]:
    """Jobs that may be sampled together, in the order they came; no two with one key in one batch."""
    batches: list[list[_Job]] = []
    for job in jobs:
        fitting = (
            batch
            for batch in batches
            if batch[0].params == job.params and all(job.key != other.key for other in batch)
        )
        batch = next(fitting, None)
        if batch is None:
            batches.append([job])
        else:
            batch.append(job)
    return batches
