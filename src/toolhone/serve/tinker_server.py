"""A server that speaks the protocol of the Tinker SDK, on this machine.

    serve_tinker(open_service("pico", TinkerOptions()), listen("127.0.0.1", 8000))

It needs the extras `serve` and `tinker`. The body of a pass and the results of passes and samples
are protobuf, all else is JSON.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolhone.agents.gateway import LOOPBACK, SHUTDOWN_SECONDS, read_content
from toolhone.config.experiment import make_experiment, overridden
from toolhone.errors import (
    BusyError,
    CapabilityError,
    ConfigError,
    DataError,
    ModelError,
    UserError,
)
from toolhone.models.resolve import ADAPTER, adapter_of, find, resolve_model
from toolhone.schema import Json
from toolhone.serve.tinker_checkpoints import Checkpoints, TinkerPath
from toolhone.serve.tinker_models import ServedBase, TinkerModels
from toolhone.serve.tinker_service import EndedSessionError, TinkerService, failure

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

KEY = "tml-local"
MAX_BODY = 64 * 2**20
"""Largest request in bytes; the SDK splits a batch above 5 MB."""
PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class TinkerOptions:
    """`folder`: where checkpoints are. `memory`: bytes for models and samplers beside the base;
    None: half of what is free after the base is loaded. `key`: what clients must send.
    `custom_losses`: run the losses that clients upload, out of a list of operations."""

    folder: Path = Path("runs/tinker")
    memory: int | None = None
    key: str = KEY
    custom_losses: bool = False


def check_tinker_installed() -> None:
    """Raise `CapabilityError` where the SDK is missing."""
    if find_spec("tinker") is None:
        right = "install with: python -m pip install 'tinker>=0.30,<0.40'"
        raise CapabilityError(f"toolhone serve --tinker needs the package tinker; {right}")


def open_service(
    ref: str, options: TinkerOptions, checkpoint: str | None = None, keys: list[str] | None = None
) -> TinkerService:
    """Load a model folder, hub name, `pico`, or the fully trained checkpoint of a run.

    keys: overrides of the section `model`, such as model.torch_dtype=bfloat16.
    """
    if not options.key.startswith("tml-"):
        raise ConfigError(f"--key must start with tml-, which the SDK wants; got {options.key!r}")
    for key in keys or ():
        if not key.startswith("model."):
            raise ConfigError(f"serve --tinker takes overrides of model.* alone, got {key}")
    plan, weights = find(ref, checkpoint)
    start = weights or adapter_of(plan)
    if start is not None and (start / ADAPTER).is_file():
        right = f"merge it first: toolhone export {ref} --out FOLDER"
        raise CapabilityError(f"{ref} is an adapter, and the base must be a whole model; {right}")
    base, folder = resolve_model(plan), str(weights or resolve_model(plan))
    section = overridden(make_experiment({}, "the command line"), keys or ()).model
    has_tokenizer = (Path(folder) / "tokenizer.json").is_file() or not Path(folder).is_dir()
    paths = [str(Path(one).resolve()) if Path(one).exists() else one for one in (folder, base)]
    served = ServedBase(ref, paths[0], paths[0] if has_tokenizer else paths[1], section)
    used, there = served.shared.memory()
    memory = (there - used) // 2 if options.memory is None else options.memory
    names = dict.fromkeys((ref, os.path.normpath(ref), paths[0]), served)
    given = (Checkpoints(options.folder), memory, options.custom_losses)
    return TinkerService(TinkerModels(names, *given))


def serve_tinker(service: TinkerService, sock: socket.socket, key: str = KEY) -> None:
    """Serve until Ctrl-C."""
    import uvicorn

    class Server(uvicorn.Server):
        """A server that sends away whoever waits for a result when it stops."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.closing.set()
            await super().shutdown(sockets)

    app = open_tinker_app(service, key, open_to_all=sock.getsockname()[0] not in LOOPBACK)
    config = uvicorn.Config(app, log_level="warning", lifespan="on")
    config.timeout_graceful_shutdown = SHUTDOWN_SECONDS
    with sock:
        Server(config).run(sockets=[sock])


def open_tinker_app(service: TinkerService, key: str = KEY, open_to_all: bool = False) -> Starlette:
    """Make the application; unless open to all, it answers only to this machine's own names."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 (the library's signature)
        yield
        service.thread.close()

    views = TinkerViews(service)
    routes = []
    for method, path, handler in (*_calls(service), *views.routes()):
        routes.append(Route(f"/api/v1/{path}", _endpoint(handler, key), methods=[method]))
    unknown = _endpoint(_unknown, key)
    routes.append(Route("/{path:path}", unknown, methods=["GET", "POST", "PUT", "DELETE"]))
    hosts = ["*"] if open_to_all else ["127.0.0.1", "localhost", "[::1]", "["]
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts)]
    return Starlette(routes=routes, middleware=guards, lifespan=life)


Handler = Callable[..., Any]


def _calls(service: TinkerService) -> list[tuple[str, str, Handler]]:
    """The calls that train and sample."""
    posts: Mapping[str, Handler] = {
        "client/config": service.client_config,
        "client/dynamic_config": lambda body: {},  # noqa: ARG005
        "telemetry": lambda body: {"status": "accepted"},  # noqa: ARG005
        "cancel_future": lambda body: {},  # noqa: ARG005
        "create_custom_loss": service.create_custom_loss,
        "create_session": service.create_session,
        "session_heartbeat": service.heartbeat,
        "sessions/{identity}/finish": service.finish,
        "create_model": service.create_model,
        "load_weights": service.load_weights,
        "get_info": service.get_info,
        "forward_backward": service.forward_backward,
        "optim_step": service.optim_step,
        "save_weights": service.save_weights,
        "save_weights_for_sampler": service.save_weights_for_sampler,
        "create_sampling_session": service.create_sampling_session,
        "asample": service.asample,
        "retrieve_future": service.retrieve,
    }
    return [("POST", path, handler) for path, handler in posts.items()]


def _unknown(body: Json, path: str) -> Json:  # noqa: ARG001
    raise CapabilityError(f"/{path} is no call of this server, or not with this method")


class TinkerViews:
    """The calls that list and delete."""

    def __init__(self, service: TinkerService) -> None:
        self.service = service
        self.checkpoints = service.models.checkpoints

    def routes(self) -> list[tuple[str, str, Handler]]:
        run = "training_runs/{run}"
        return [
            ("GET", "healthz", lambda body: {"status": "ok"}),  # noqa: ARG005
            ("GET", "get_server_capabilities", self.capabilities),
            ("GET", "samplers/{identity}", self.service.sampler_info),
            ("GET", "sessions", self.sessions),
            ("GET", "sessions/{identity}", self.session),
            ("GET", "training_runs", self.runs),
            ("GET", run, self.run),
            ("GET", f"{run}/checkpoints", self.of_run),
            ("DELETE", f"{run}/checkpoints/{{kind}}/{{name}}", self.delete),
            ("PUT", f"{run}/checkpoints/{{kind}}/{{name}}/ttl", self.ttl),
            ("GET", "checkpoints", self.all),
            ("POST", "weights_info", self.weights_info),
        ]

    def capabilities(self, body: Json) -> Json:  # noqa: ARG002
        can = {"trainable": True, "sampleable": True}
        models = [
            {"model_name": name, "max_context_length": base.shared.info.max_context or None, **can}
            for name, base in self.service.models.bases.items()
        ]
        return {"supported_models": models}

    def sessions(self, body: Json) -> Json:
        found = [*self.service.sessions][::-1]
        return {"sessions": found[int(body.get("offset", 0)) :][: int(body.get("limit", 20))]}

    def session(self, body: Json, identity: str) -> Json:  # noqa: ARG002
        if identity not in self.service.sessions:
            raise ModelError(f"there is no session {identity!r:.80} here")
        session = self.service.sessions[identity]
        return {"training_run_ids": session.models, "sampler_ids": [*session.samplers]}

    def runs(self, body: Json) -> Json:
        found = self.checkpoints.runs()
        start, limit = int(body.get("offset", 0)), int(body.get("limit", 20))
        rows = [self.run(body, each) for each in found[start : start + limit]]
        cursor = {"offset": start, "limit": limit, "total_count": len(found)}
        return {"training_runs": rows, "cursor": cursor}

    def run(self, body: Json, run: str) -> Json:  # noqa: ARG002
        (record, time), listed = self.checkpoints.run(run), self.checkpoints.listed(run)
        newest = {
            kind: next((one for one in listed if one["checkpoint_type"] == kind), None)
            for kind in ("training", "sampler")
        }
        return {
            "training_run_id": run,
            "base_model": record.base_model,
            "model_owner": "local",
            "is_lora": True,
            "lora_rank": record.rank,
            "last_request_time": listed[0]["time"] if listed else time,
            "last_checkpoint": newest["training"],
            "last_sampler_checkpoint": newest["sampler"],
            "user_metadata": dict(record.user_metadata),
        }

    def of_run(self, body: Json, run: str) -> Json:  # noqa: ARG002
        self.checkpoints.run(run)
        return {"checkpoints": self.checkpoints.listed(run)}

    def all(self, body: Json) -> Json:
        found = self.checkpoints.listed()
        start, limit = int(body.get("offset", 0)), int(body.get("limit", 100))
        cursor = {"offset": start, "limit": limit, "total_count": len(found)}
        return {"checkpoints": found[start : start + limit], "cursor": cursor}

    def delete(self, body: Json, run: str, kind: str, name: str) -> Json:  # noqa: ARG002
        path = TinkerPath(run, kind, name)
        self.checkpoints.find(path)
        self.checkpoints.delete(path)
        return {}

    def ttl(self, body: Json, run: str, kind: str, name: str) -> Json:
        self.checkpoints.set_ttl(TinkerPath(run, kind, name), body.get("ttl_seconds"))
        return {}

    def weights_info(self, body: Json) -> Json:
        path = TinkerPath.read(str(body.get("tinker_path")))
        self.checkpoints.find(path)
        record = asdict(self.checkpoints.run(path.run)[0])
        parts = ("base_model", "train_unembed", "train_mlp", "train_attn")
        return {"is_lora": True, "lora_rank": record["rank"], **{key: record[key] for key in parts}}


def _endpoint(handler: Handler, key: str) -> Callable[[Request], Any]:
    """Answer with what `handler(body, **path)` returns; every error becomes a sentence.

    Never with a status of 500 and above: the SDK would send such a request again for 5 minutes.
    """

    async def answer(request: Request) -> Response:
        try:
            if request.headers.get("x-api-key") != key and "healthz" not in request.url.path:
                wrong = (
                    f"the API key is wrong; export TINKER_API_KEY={key if key == KEY else '...'}"
                )
                return _write({"error": wrong, "category": "user"}, 401)
            value = handler(await _read_body(request), **request.path_params)
            return _write(await value if inspect.isawaitable(value) else value)
        except UserError as error:
            kinds = {EndedSessionError: 410, ModelError: 404, BusyError: 429}
            return _write(failure(error), kinds.get(type(error), 400))
        except Exception as error:
            return _write(failure(error), 422)

    return answer


async def _read_body(request: Request) -> Json | bytes:
    """Read the body: bytes of protobuf, or JSON; the query where there is none."""
    body = await read_content(request, MAX_BODY, "split it")
    if request.headers.get("content-type", "").startswith(PROTOBUF):
        return body
    if not body:
        return dict(request.query_params)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the request is not JSON: {error!s:.120}") from None
    if not isinstance(value, dict):
        raise DataError(f"the request must be a JSON object, it is {type(value).__name__}")
    return value


def _write(value: Json | bytes, status: int = 200) -> Response:
    from starlette.responses import Response

    if isinstance(value, bytes):
        return Response(value, status, media_type=PROTOBUF)
    return Response(json.dumps(value), status, media_type="application/json")
