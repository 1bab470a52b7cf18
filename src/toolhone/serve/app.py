"""An OpenAI-compatible server for one model: `/v1/models`, `/v1/chat/completions`, `/health`.

    serve(open_model("runs/first"), listen("127.0.0.1", 8000))

It needs the extra `serve` (starlette, uvicorn). A turn is sampled before its pieces are streamed.
There is no key and no encryption, and tools do not run here: that is the client's part.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator
from concurrent.futures import Future
from importlib.util import find_spec
from typing import TYPE_CHECKING

from toolhone.api import Model
from toolhone.episodes.policy import Turn
from toolhone.errors import CapabilityError, RunError, UserError
from toolhone.schema import Json
from toolhone.serve.openai import answer_of, chunks, completion, read_request
from toolhone.serve.worker import Worker

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

MAX_REQUEST = 16 * 2**20
"""Largest request in bytes."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLL_SECONDS = 0.5
"""Time between two checks whether a waiting client is still connected."""
GONE = 499
"""Status, for the log alone, of a request whose client has disconnected."""
SHUTDOWN_SECONDS = 5
"""Time for open connections when the server stops."""


def check_installed() -> None:
    """Raise `CapabilityError` where a library is missing."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        right = "install with: python -m pip install 'starlette>=1.0' 'uvicorn>=0.40'"
        raise CapabilityError(f"toolhone serve needs {' and '.join(missing)}; {right}")


def listen(host: str, port: int) -> socket.socket:
    """Open the socket to serve on; port 0 takes any free port."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        right = "name another --port or --host"
        raise RunError(f"cannot listen on {host} port {port}: {reason}; {right}") from None


def address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(model: Model, sock: socket.socket) -> None:
    """Serve until Ctrl-C."""
    import uvicorn

    app = open_app(model, open_to_all=sock.getsockname()[0] not in LOOPBACK)
    config = uvicorn.Config(app, log_level="warning", lifespan="on")
    config.timeout_graceful_shutdown = SHUTDOWN_SECONDS
    with sock:
        uvicorn.Server(config).run(sockets=[sock])


def open_app(model: Model, open_to_all: bool = False) -> Starlette:
    """Make the application; unless open to all, it answers only to this machine's own names."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    service = ModelService(model)

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 (the library's signature)
        yield
        service.worker.close()

    routes = [
        Route("/health", service.health),
        Route("/v1/models", service.models),
        Route("/v1/models/{name:path}", service.one_model),
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
    ]
    hosts = ["*"] if open_to_all else ["127.0.0.1", "localhost", "[::1]", "["]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        lifespan=life,
        exception_handlers={HTTPException: _http_error},
    )
    app.state.service = service
    return app


class ModelService:
    """The routes of one model."""

    def __init__(self, model: Model) -> None:
        self.model, self.worker, self.started = model, Worker(model), int(time.time())

    async def health(self, request: Request) -> Response:  # noqa: ARG002 (the library's signature)
        return _json({"status": "ok", "model": self.model.name})

    async def models(self, request: Request) -> Response:  # noqa: ARG002
        return _json({"object": "list", "data": [self._description()]})

    async def one_model(self, request: Request) -> Response:
        name = request.path_params["name"]
        return _json(self._description()) if name == self.model.name else self._unknown(name)

    async def chat(self, request: Request) -> Response:
        from starlette.responses import StreamingResponse

        try:
            body = await _body(request)
            chat = read_request(body, self.worker.defaults)
            if chat.model is not None and chat.model != self.model.name:
                return self._unknown(chat.model)
            turn = await _wait_for(request, self.worker.submit(chat))
            if turn is None:
                return error_response("the client has disconnected", GONE)
            answer = answer_of(turn, chat)
        except UserError as error:
            return error_response(str(error), 400)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return error_response("the server failed at this request; its log says where", 500)
        identity = f"chatcmpl-{secrets.token_hex(12)}"
        head = {"id": identity, "created": int(time.time()), "model": self.model.name}
        dialect = self.model.certificate.hashes.get("dialect", "")
        head["system_fingerprint"] = f"format_{dialect[:12]}"
        if not chat.stream:
            return _json(completion(answer, head))
        pieces = map(json.dumps, chunks(answer, head, chat.with_usage))
        lines = (f"data: {piece}\n\n" for piece in itertools.chain(pieces, ["[DONE]"]))
        kind, headers = "text/event-stream", {"Cache-Control": "no-cache"}
        return StreamingResponse(lines, media_type=kind, headers=headers)

    def _description(self) -> dict[str, Json]:
        certificate, model = self.model.certificate, self.model
        about: dict[str, Json] = {
            "dialect": model.dialect.name,
            "verdict": certificate.verdict.value,
            "hashes": dict(certificate.hashes),
            "context": model.max_context,
            "constrained": model.experiment.evaluation.constrained,
        }
        same = {"object": "model", "created": self.started, "owned_by": "toolhone"}
        return {"id": model.name, **same, "toolhone": about}

    def _unknown(self, name: str) -> Response:
        message = f"there is no model {name!r} here; this server has {self.model.name!r}"
        return error_response(message, 404, "model_not_found")


async def _wait_for(request: Request, future: Future[Turn]) -> Turn | None:
    """Return the turn; None if the client disconnects, which cancels a request that still waits."""
    turn = asyncio.wrap_future(future)
    while not (await asyncio.wait({turn}, timeout=POLL_SECONDS))[0]:
        if await request.is_disconnected():
            turn.cancel()
            return None
    return await turn


async def _body(request: Request) -> Json:
    """Read the JSON of a request."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        found = kind or "of no named type"
        raise CapabilityError(f"the request must be application/json, it is {found}")
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > MAX_REQUEST:
            most = f"{MAX_REQUEST // 2**20} MiB"
            raise CapabilityError(f"the request has more than {most}; shorten it")
    try:
        return json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise CapabilityError(f"the request is not JSON: {error!s:.120}") from None


def _json(value: Json, status: int = 200) -> Response:
    """Write JSON in ASCII: a text may hold half a surrogate pair, which UTF-8 cannot."""
    from starlette.responses import Response

    return Response(json.dumps(value), status, media_type="application/json")


def error_response(sentence: str, status: int, code: str | None = None) -> Response:
    """Write an error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": sentence, "type": kind, "param": None, "code": code}
    return _json({"error": error}, status)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer for a path or a method that does not exist."""
    status, detail = int(getattr(error, "status_code", 500)), getattr(error, "detail", error)
    known = "there are GET /v1/models, POST /v1/chat/completions, GET /health"
    return error_response(f"{request.method} {request.url.path}: {detail}; {known}", status)
