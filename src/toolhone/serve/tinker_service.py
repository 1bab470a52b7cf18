"""What the Tinker server answers to each call of the protocol (SDK 0.25 to 0.38).

    service = TinkerService(models)
    service.optim_step({"model_id": ..., "seq_id": 2, "adam_params": {...}})    # a request_id

Requests are read with the SDK's own types. Long calls return a promise; `retrieve` waits for it.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from toolhone.backends.base import Adam, SamplingParams
from toolhone.errors import BusyError, CapabilityError, DataError, ModelError, RunError, UserError
from toolhone.schema import Json
from toolhone.serve.tinker_checkpoints import RunRecord, TinkerPath
from toolhone.serve.tinker_losses import find_loss
from toolhone.serve.tinker_models import SamplerSource, ServedBase, TinkerModels, WireSample
from toolhone.serve.tinker_queue import EngineThread, Job, Promises, job_of
from toolhone.serve.tinker_wire import read_pass

POLL_SECONDS = 30
"""How long a request for a result is held open; the SDK gives up after 45."""
SILENT_SECONDS = 300
"""A session without a heartbeat for this long is over; the SDK sends one every 10 seconds."""
MAX_SAMPLES = 1024
NOT_HERE = (
    *("topk_prompt_logprobs", "topk_sample_logprobs", "prompt_alt_tokens_k"),
    *("target_prompt_logprobs", "record_stability_info"),
)
"""Wishes of a sample request that are refused."""


class EndedSessionError(UserError):
    """A session that is over, or that another server had."""


@dataclass
class Session:
    metadata: dict[str, Json]
    seen: float = field(default_factory=time.monotonic)
    models: list[str] = field(default_factory=list)
    samplers: dict[str, SamplerSource | None] = field(default_factory=dict)


class TinkerService:
    """The routes. All state here belongs to the event loop; the engine's thread has the models."""

    def __init__(self, models: TinkerModels) -> None:
        self.models = models
        self.thread = EngineThread()
        self.promises = Promises(self.thread)
        self.sessions: dict[str, Session] = {}
        self._keys, self._seed = count(1), secrets.randbits(31)
        self.closing = asyncio.Event()
        """Set when the server stops: whoever waits for a result is sent away."""

    # ----------------------------------------------------------------------------- sessions

    def client_config(self, body: Json) -> Json:  # noqa: ARG002
        """What the SDK may do; it uploads its custom losses only to a server that runs them."""
        return {"pjwt_auth_enabled": False, "custom_loss_server_side": self.models.custom_losses}

    def create_session(self, body: Json) -> Json:
        for identity, session in [*self.sessions.items()]:
            if time.monotonic() - session.seen > SILENT_SECONDS:
                self._end(identity)
        identity = str(uuid.uuid4())
        self.sessions[identity] = Session(dict(body.get("user_metadata") or {}))
        return {"session_id": identity, "type": "create_session"}

    def heartbeat(self, body: Json) -> Json:
        self._session(body.get("session_id")).seen = time.monotonic()
        return {"type": "session_heartbeat"}

    def finish(self, body: Json, identity: str) -> Json:  # noqa: ARG002
        if identity in self.sessions:
            self._end(identity)
        return {}

    def _end(self, identity: str) -> None:
        del self.sessions[identity]
        self.promises.forget(f"{identity}:")
        self.thread.put(job_of(partial(self.models.release, identity)))

    def _session(self, identity: str) -> Session:
        if identity not in self.sessions:
            raise EndedSessionError(
                f"there is no session {identity!r:.80} here: it has ended, or the server "
                "was started anew; make a new ServiceClient"
            )
        return self.sessions[identity]

    # ------------------------------------------------------------------------------- models

    def create_model(self, body: Json) -> Json:
        request = _read("CreateModelRequest", body)
        _check_optimizer(request.optimizer_config)
        lora = request.lora_config
        if lora is None:
            raise CapabilityError("full fine-tuning is not available here; give a lora_config")
        record = RunRecord(
            *(request.base_model, lora.rank, lora.seed or 0),
            *(lora.train_mlp, lora.train_attn, lora.train_unembed),
            user_metadata=request.user_metadata or {},
        )
        model_id = self._new_model(request)
        return self._promise(f"{model_id}:create", partial(self.models.create, model_id, record))

    def load_weights(self, body: Json) -> Json:
        request = _read("LoadWeightsRequest", body)
        _check_optimizer(request.optimizer_config)
        if request.model_id is not None:
            work = partial(self.models.load, request.model_id, request.path, request.optimizer)
            return self._in_order(request, work)
        model_id, metadata = self._new_model(request), request.user_metadata or {}
        given = (model_id, request.path, request.optimizer, metadata)
        return self._promise(f"{model_id}:create", partial(self.models.create_from, *given))

    def _new_model(self, request: Any) -> str:
        session = self._session(request.session_id)
        model_id = f"{request.session_id}:train:{request.model_seq_id}"
        if model_id not in session.models:
            session.models.append(model_id)
        return model_id

    def get_info(self, body: Json) -> Json:
        identity = _read("GetInfoRequest", body).model_id
        model = self.models.model(identity)
        name = model.record.base_model
        data = {
            "arch": model.base.shared.arch,
            "model_name": name,
            "tokenizer_id": model.base.tokenizer_id,
        }
        about = {"model_id": identity, "is_lora": True, "lora_rank": model.record.rank}
        return {"type": "get_info", "model_data": data, "model_name": name, **about}

    def forward_backward(self, body: bytes) -> Json:
        request = read_pass(body)
        return self._in_order(request, partial(self.models.run_pass, request))

    def create_custom_loss(self, body: Json) -> Json:
        if not self.models.custom_losses:
            find_loss("custom")
        request = _read("CreateCustomLossRequest", body)
        self._session(request.session_id)
        loss_id = f"{request.session_id}:loss:{request.custom_loss_seq_id}"
        return self._promise(loss_id, partial(self.models.add_loss, loss_id, request))

    def optim_step(self, body: Json) -> Json:
        request = _read("OptimStepRequest", body)
        return self._in_order(request, partial(self._step, request))

    def _step(self, request: Any) -> dict[str, Json]:
        given = request.optim_params
        if getattr(given, "type", "adamw") != "adamw":
            raise CapabilityError(f"the optimizer {given.type!r} is not available here; use AdamW")
        adam = Adam(
            *(given.learning_rate, given.beta1, given.beta2, given.eps),
            *(given.weight_decay, max(0.0, given.grad_clip_norm)),
        )
        numbers = (adam.learning_rate, adam.eps, adam.weight_decay, adam.clip_norm)
        small = 0 <= adam.beta1 < 1 and 0 <= adam.beta2 < 1
        if not (small and all(math.isfinite(each) and each >= 0 for each in numbers)):
            raise DataError(f"AdamParams has finite numbers of 0 and above, betas below 1: {given}")
        return self.models.step(request.model_id, adam)

    def save_weights(self, body: Json) -> Json:
        request = _read("SaveWeightsRequest", body)
        return self._save(request, "weights", request.overwrite)

    def save_weights_for_sampler(self, body: Json) -> Json:
        request = _read("SaveWeightsForSamplerRequest", body)
        if request.path is not None:
            return self._save(request, "sampler_weights", overwrite=True)
        if getattr(request, "kind", "snapshot") != "snapshot":  # SDKs below 0.38 have none
            raise CapabilityError(
                f"a sampler of kind {request.kind!r} is not available here; use a snapshot"
            )
        session_id = request.model_id.partition(":")[0]
        sampler_id = f"{session_id}:sample:{request.sampling_session_seq_id}"
        self._session(session_id).samplers[sampler_id] = None
        return self._in_order(request, partial(self.models.snapshot, request.model_id, sampler_id))

    def _save(self, request: Any, kind: str, overwrite: bool) -> Json:
        def work() -> dict[str, Json]:
            path = TinkerPath(request.model_id, kind, request.path or f"{request.seq_id:06d}")
            given = (path, request.ttl_seconds, overwrite, request.user_metadata or {})
            return {**self.models.save(*given), "type": request.type}

        return self._in_order(request, work)

    # ----------------------------------------------------------------------------- sampling

    def create_sampling_session(self, body: Json) -> Json:
        request = _read("CreateSamplingSessionRequest", body)
        session = self._session(request.session_id)
        if request.model_path is None and request.base_model is None:
            raise DataError("a sampler needs a base_model or a model_path")
        path = None
        if request.model_path is not None:
            path = TinkerPath.read(request.model_path)
            self.models.checkpoints.find(path)
        name = self.models.checkpoints.run(path.run)[0].base_model if path else request.base_model
        sampler_id = f"{request.session_id}:sample:{request.sampling_session_seq_id}"
        session.samplers[sampler_id] = SamplerSource(self.models.base(name), path)
        return {"type": "create_sampling_session", "sampling_session_id": sampler_id}

    def sampler_info(self, body: Json, identity: str) -> Json:  # noqa: ARG002
        session_id = identity.partition(":")[0]
        samplers = self._session(session_id).samplers
        if identity not in samplers:
            raise ModelError(f"there is no sampler {identity!r:.120} here")
        source = samplers[identity]
        base = source.base if source else next(iter(self.models.bases.values()))
        path = source and source.path and str(source.path)
        return {"sampler_id": identity, "base_model": base.name, "model_path": path}

    def asample(self, body: Json) -> Json:
        request = _read("SampleRequest", body)
        for name in NOT_HERE:
            if getattr(request, name, None):
                raise CapabilityError(f"{name} is not available here; leave it out")
        sampler_id, number = request.sampling_session_id, request.seq_id
        if sampler_id is None or number is None:
            raise DataError("a sample request needs a sampling_session_id and a seq_id")
        samplers = self._session(sampler_id.partition(":")[0]).samplers
        if sampler_id not in samplers:
            raise ModelError(f"there is no sampler {sampler_id!r:.120} here; create it again")
        if any(chunk.type != "encoded_text" for chunk in request.prompt.chunks):
            raise CapabilityError(
                "the prompt holds an image or audio; this server takes text alone"
            )
        source = samplers[sampler_id]
        base = source.base if source else next(iter(self.models.bases.values()))
        params, key, texts = self._sampling(request, base)
        prompt = tuple(request.prompt.to_ints())
        wanted = (sampler_id, source, prompt, params, key, texts, bool(request.prompt_logprobs))
        identity = f"{sampler_id}:{number}"
        job = Job(self.models.sample, sampler_id, WireSample(*wanted))
        self.promises.add(identity, job)
        ids = [f"{identity}:{place}" for place in range(params.num_samples)]
        return {"request_id": identity, "sample_sequence_ids": ids}

    def _sampling(
        self, request: Any, base: ServedBase
    ) -> tuple[SamplingParams, int, tuple[str, ...]]:
        """The parameters, the key of the random stream, and the texts that end a sample.

        A seed's lower 32 bits are the key and its upper ones the seed, so that requests with
        different small seeds are sampled together. Without a seed each request has its own key.
        """
        given, context = request.sampling_params, base.shared.info.max_context or 2**16
        if not 1 <= request.num_samples <= MAX_SAMPLES:
            raise DataError(f"num_samples is from 1 to {MAX_SAMPLES}, got {request.num_samples}")
        seed, key = self._seed, next(self._keys)
        if given.seed is not None:
            seed, key = (given.seed >> 32) & 0xFFFFFFFF, given.seed & 0xFFFFFFFF
        stop = [given.stop] if isinstance(given.stop, str) else given.stop
        texts = tuple(each for each in stop or () if isinstance(each, str))
        ids = [base.tokenizer.control_id(text) for text in texts]
        texts = tuple(text for text, each in zip(texts, ids, strict=True) if each is None)
        ends = (*(each for each in stop or () if isinstance(each, int)), *filter(None, ids))
        params = SamplingParams(
            max_tokens=min(context if given.max_tokens is None else given.max_tokens, context),
            temperature=given.temperature,
            top_p=given.top_p,
            top_k=max(0, given.top_k),
            stop_ids=base.shared.stop_ids if stop is None else ends,
            num_samples=request.num_samples,
            seed=seed,
        )
        return params, key, texts

    # ------------------------------------------------------------------------------ futures

    def _promise(self, identity: str, work: Callable[[], Any]) -> Json:
        return {"request_id": self.promises.add(identity, job_of(work))}

    def _in_order(self, request: Any, work: Callable[[], Any]) -> Json:
        """Promise the result of a request to a model, which runs in the order of `seq_id`."""
        self.models.model(request.model_id)
        job = job_of(work)
        identity = self.promises.add_in_order(request.model_id, request.seq_id, job)
        return {"request_id": identity, "model_id": request.model_id}

    async def retrieve(self, body: Json) -> Json | bytes:
        """Wait for a result, up to `POLL_SECONDS`; an error becomes a sentence with a category."""
        identity = body.get("request_id")
        waiter = asyncio.wrap_future(self.promises.find(identity))
        end = asyncio.ensure_future(self.closing.wait())
        either: set[asyncio.Future[Any]] = {waiter, end}
        await asyncio.wait(either, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")
        end.cancel()
        if not waiter.done():
            return {"type": "try_again", "request_id": identity, "queue_state": "active"}
        self.promises.note_retrieved(identity)
        error = waiter.exception()
        return waiter.result() if error is None else failure(error)


def _read(name: str, body: Json) -> Any:
    """Read a request with the SDK's own type."""
    from pydantic import ValidationError
    from tinker import types

    try:
        return getattr(types, name).model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{name}: {where}: {first['msg']}") from None


def _check_optimizer(config: Any) -> None:
    if config is not None and config.type != "adamw":
        raise CapabilityError(f"the optimizer {config.type!r} is not available here; use adamw")


def failure(error: BaseException) -> dict[str, Json]:
    """The service's form of an error; the category says whose mistake it is."""
    if isinstance(error, UserError):
        ours = isinstance(error, RunError | BusyError)
        return {"error": str(error), "category": "server" if ours else "user"}
    traceback.print_exception(error, file=sys.stderr)
    what = f"{type(error).__name__}: {error!s:.200}"
    return {
        "error": f"the server failed at this request ({what}); its log says where",
        "category": "server",
    }
