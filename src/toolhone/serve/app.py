"""An OpenAI-compatible server for one model: `open_app` makes it, `serve` runs it until it is stopped.

    serve(open_model("runs/first"), listen("127.0.0.1", 8000))

`GET /v1/models`, `POST /v1/chat/completions` (streamed or not), `GET /health`. It needs the extra `serve` (starlette, uvicorn). A
mistake in a request is OpenAI's error object with status 400 and one sentence. A reply is sampled whole and then sent: `stream`
sends it in pieces, since what a turn says is known when it has ended. There is no key and no encryption: it listens on this
machine alone unless another address is named. Tools are not run; that is the client's part.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from importlib.util import find_spec
from typing import TYPE_CHECKING

from toolhone.api import Model
from toolhone.episodes.policy import Turn
from toolhone.errors import CapabilityError, RunError, UserError
from toolhone.schema import Json
from toolhone.serve.requests import read_request
from toolhone.serve.responses import Answer, ResponseHead, answer_of, chunks, completion
from toolhone.serve.worker import Worker

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

LARGEST = 16 * 2**20
"""Bytes of one request."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOOKS = 0.5
"""Seconds between two looks at whether a waiting client is still there."""
GONE = 499
"""The status, for the log alone, of a request whose client has gone."""
SECONDS_TO_END = 5
"""How long open connections may take when the server is stopped."""


def check_installed() -> None:
    """`CapabilityError` where the libraries are missing."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise CapabilityError(
            f"toolhone serve needs {' and '.join(missing)}, not installed here; install with: pip install 'toolhone[serve]'"
        )


def listen(host: str, port: int) -> socket.socket:
    """The socket to serve on; port 0 takes any that is free."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(
            f"cannot listen on {host} port {port}: {reason}; name another --port or --host"
        ) from None


def address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(model: Model, sock: socket.socket) -> None:
    """Serve until Ctrl-C."""
    import uvicorn

    host = sock.getsockname()[0]
    app = open_app(model, open_to_all=host not in LOOPBACK)
    config = uvicorn.Config(
        app, log_level="warning", lifespan="on", timeout_graceful_shutdown=SECONDS_TO_END
    )
    with sock:
        uvicorn.Server(config).run(sockets=[sock])


def open_app(model: Model, open_to_all: bool = False) -> Starlette:
    """The application. Unless it is open to all, it answers only where it is asked for under this machine's own name."""
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
    guard = (
        []
        if open_to_all
        else [
            Middleware(
                TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", "["]
            )
        ]
    )
    app = Starlette(
        routes=routes,
        middleware=guard,
        lifespan=life,
        exception_handlers={HTTPException: _http_error},
    )
    app.state.service = service
    return app


class ModelService:
    """What the addresses do, for one model."""

    def __init__(self, model: Model) -> None:
        self.model, self.worker, self.started = model, Worker(model), int(time.time())

    async def health(self, request: Request) -> Response:  # noqa: ARG002 (the library's signature)
        return _json({"status": "ok", "model": self.model.name})

    async def models(self, request: Request) -> Response:  # noqa: ARG002
        return _json({"object": "list", "data": [self._described()]})

    async def one_model(self, request: Request) -> Response:
        name = request.path_params["name"]
        return _json(self._described()) if name == self.model.name else self._unknown(name)

    async def chat(self, request: Request) -> Response:
        try:
            body = await _body(request)
            asked = read_request(body, self.worker.defaults)
            if asked.model is not None and asked.model != self.model.name:
                return self._unknown(asked.model)
            turn = await _waited_for(request, self.worker.submit(asked))
            if turn is None:
                return error_response("the client has gone", GONE)
            answer = answer_of(turn, asked)
        except UserError as error:
            return error_response(str(error), 400)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return error_response("the server failed at this request; its log says where", 500)
        head = ResponseHead(
            f"chatcmpl-{secrets.token_hex(12)}",
            int(time.time()),
            self.model.name,
            self._fingerprint(),
        )
        return (
            _events(answer, head, asked.with_usage)
            if asked.stream
            else _json(completion(answer, head))
        )

    def _described(self) -> dict[str, Json]:
        certificate = self.model.certificate
        about: dict[str, Json] = {
            "dialect": self.model.dialect.name,
            "verdict": certificate.verdict.value,
            "hashes": dict(certificate.hashes),
            "context": self.model.max_context,
            "constrained": self.model.experiment.evaluation.constrained,
        }
        return {
            "id": self.model.name,
            "object": "model",
            "created": self.started,
            "owned_by": "toolhone",
            "toolhone": about,
        }

    def _fingerprint(self) -> str:
        return "format_" + self.model.certificate.hashes.get("dialect", "")[:12]

    def _unknown(self, name: str) -> Response:
        return error_response(
            f"there is no model {name!r} here; this server has {self.model.name!r}",
            404,
            "model_not_found",
        )


async def _waited_for(request: Request, future: Future[Turn]) -> Turn | None:
    """The turn when it is there; None when the client goes first, whose request is dropped unless it is being sampled."""
    turn = asyncio.wrap_future(future)
    while not (await asyncio.wait({turn}, timeout=LOOKS))[0]:
        if await request.is_disconnected():
            turn.cancel()
            return None
    return await turn


async def _body(request: Request) -> Json:
    """The JSON of a request. `UserError` for anything else."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise CapabilityError(
            f"the request must be application/json, it is {kind or 'of no named type'}"
        )
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise CapabilityError(f"the request has more than {LARGEST // 2**20} MiB; shorten it")
    try:
        return json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise CapabilityError(f"the request is not JSON: {error!s:.120}") from None


def _events(answer: Answer, head: ResponseHead, with_usage: bool) -> Response:
    from starlette.responses import StreamingResponse

    def lines() -> Iterator[str]:
        for chunk in chunks(answer, head, with_usage):
            yield f"data: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(
        lines(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )


def _json(value: Json, status: int = 200) -> Response:
    """Written in ASCII: a text may hold half a surrogate pair, which UTF-8 cannot."""
    from starlette.responses import Response

    return Response(json.dumps(value), status, media_type="application/json")


def error_response(sentence: str, status: int, code: str | None = None) -> Response:
    """A mistake as OpenAI writes it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return _json(
        {"error": {"message": sentence, "type": kind, "param": None, "code": code}}, status
    )


async def _http_error(request: Request, error: Exception) -> Response:
    """Addresses that do not exist, and methods that they do not have."""
    status = int(getattr(error, "status_code", 500))
    there = "GET /v1/models, POST /v1/chat/completions, GET /health"
    return error_response(
        f"{request.method} {request.url.path}: {getattr(error, 'detail', error)}; there are {there}",
        status,
    )
