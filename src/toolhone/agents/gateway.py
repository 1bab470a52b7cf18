"""The addresses of an OpenAI-compatible server: chat completions, Responses, sessions, models.

    app = open_app(answerer)        # Starlette; needs the extra `serve` (starlette, uvicorn)

An `Answerer` samples: `serve` has one model behind it, a training its agents' sessions. A turn is
sampled before its pieces are streamed. There is no key and no encryption.
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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from toolhone.agents import responses
from toolhone.agents.openai import Answer, ChatRequest, answer_of, chunks, completion, read_request
from toolhone.backends.base import SamplingParams
from toolhone.episodes.policy import Turn
from toolhone.errors import CapabilityError, DataError, RunError, UserError
from toolhone.rewards.matching import show
from toolhone.rewards.reward_registry import LARGEST
from toolhone.rewards.values import scalar
from toolhone.schema import Json

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
SESSION_HEADER = "x-session-id"
"""The header that names the session of a request; without it the API key does."""
Posted = float | Mapping[str, float]


class Answerer(Protocol):
    """What answers requests. `about` is what `/v1/models` says beside the name; `any_model`: a
    request may name another model, which changes nothing."""

    name: str
    any_model: bool
    fingerprint: str
    defaults: SamplingParams
    about: Mapping[str, Json]

    def submit(self, chat: ChatRequest, session: str) -> Future[Turn]:
        """Queue a request of a session; the turn, or a `UserError`."""

    def reward(self, session: str, reward: Posted) -> dict[str, Json]:
        """Take the reward of a session, which ends it; `UserError` where there is none."""

    def close(self) -> None:
        """End what is open."""


def check_installed(what: str = "toolhone serve") -> None:
    """Raise `CapabilityError` where a library is missing."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        right = "install with: python -m pip install 'starlette>=1.0' 'uvicorn>=0.40'"
        raise CapabilityError(f"{what} needs {' and '.join(missing)}; {right}")


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


def open_app(answerer: Answerer, open_to_all: bool = False) -> Starlette:
    """Make the application; unless open to all, it answers only to this machine's own names."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    endpoints = Endpoints(answerer)

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 (the library's signature)
        yield
        answerer.close()

    routes = [
        Route("/health", endpoints.health),
        Route("/v1/models", endpoints.models),
        Route("/v1/models/{name:path}", endpoints.one_model),
        Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
        Route("/v1/responses", endpoints.responses, methods=["POST"]),
        Route("/v1/sessions/{session}/reward", endpoints.reward, methods=["POST"]),
    ]
    hosts = ["*"] if open_to_all else ["127.0.0.1", "localhost", "[::1]", "["]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        lifespan=life,
        exception_handlers={HTTPException: _http_error},
    )
    app.state.answerer = answerer
    return app


class Endpoints:
    """The routes of one `Answerer`."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer, self.started = answerer, int(time.time())

    async def health(self, request: Request) -> Response:  # noqa: ARG002 (the library's signature)
        return _json({"status": "ok", "model": self.answerer.name})

    async def models(self, request: Request) -> Response:  # noqa: ARG002
        return _json({"object": "list", "data": [self._description()]})

    async def one_model(self, request: Request) -> Response:
        name = request.path_params["name"]
        known = name == self.answerer.name
        return _json(self._description()) if known else self._unknown(name)

    async def chat(self, request: Request) -> Response:
        def write(answer: Answer, chat: ChatRequest) -> Response:
            identity = f"chatcmpl-{secrets.token_hex(12)}"
            head = {"id": identity, "created": int(time.time()), "model": self.answerer.name}
            head["system_fingerprint"] = self.answerer.fingerprint
            if not chat.stream:
                return _json(completion(answer, head))
            pieces = map(json.dumps, chunks(answer, head, chat.with_usage))
            return _stream(f"data: {one}\n\n" for one in itertools.chain(pieces, ["[DONE]"]))

        return await self._answer(request, read_request, write)

    async def responses(self, request: Request) -> Response:
        def write(answer: Answer, chat: ChatRequest) -> Response:
            head = {"id": f"resp_{secrets.token_hex(12)}", "model": self.answerer.name}
            whole = responses.response_of(answer, {**head, "created_at": int(time.time())})
            if not chat.stream:
                return _json(whole)
            events = responses.events_of(whole)
            return _stream(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)

        return await self._answer(request, responses.read_responses_request, write)

    async def reward(self, request: Request) -> Response:
        try:
            body = await _body(request)
            return _json(self.answerer.reward(request.path_params["session"], read_reward(body)))
        except UserError as error:
            return error_response(str(error), 400, getattr(error, "code", None))

    async def _answer(
        self,
        request: Request,
        read: Callable[[Json, SamplingParams], ChatRequest],
        write: Callable[[Answer, ChatRequest], Response],
    ) -> Response:
        try:
            chat = read(await _body(request), self.answerer.defaults)
            named = chat.model is not None and not self.answerer.any_model
            if named and chat.model != self.answerer.name:
                return self._unknown(chat.model)
            turn = await _wait_for(request, self.answerer.submit(chat, session_of(request)))
            if turn is None:
                return error_response("the client has disconnected", GONE)
            return write(answer_of(turn, chat), chat)
        except UserError as error:
            return error_response(str(error), 400, getattr(error, "code", None))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return error_response("the server failed at this request; its log says where", 500)

    def _description(self) -> dict[str, Json]:
        same = {"object": "model", "created": self.started, "owned_by": "toolhone"}
        return {"id": self.answerer.name, **same, "toolhone": dict(self.answerer.about)}

    def _unknown(self, name: str | None) -> Response:
        message = f"there is no model {name!r} here; this server has {self.answerer.name!r}"
        return error_response(message, 404, "model_not_found")


def session_of(request: Request) -> str:
    """The name of a request's session: its header, else its API key; "" without both."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    named: str = request.headers.get(SESSION_HEADER, "")
    return named or (key.strip() if scheme.lower() == "bearer" else "")


def read_reward(body: Json) -> Posted:
    """Read `{"reward": 1}` or `{"reward": {"correct": 1, "short": -0.2}}`."""
    right = 'post {"reward": NUMBER} or {"reward": {"NAME": NUMBER, ...}}'
    if not isinstance(body, dict) or body.keys() != {"reward"}:
        raise DataError(f"{right}, got {body!r:.80}")
    value = body["reward"]
    parts = value if isinstance(value, dict) and value else {"": value}
    for part in parts.values():
        number = None if isinstance(part, bool) else scalar(part)
        if number is None or not -LARGEST <= number <= LARGEST:
            wrong = f"a reward is a finite number, at most {LARGEST:g}, got {show(part)}"
            raise DataError(f"{wrong}; {right}")
    return value  # type: ignore[no-any-return]


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
    content = await read_content(request, MAX_REQUEST, "shorten it")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CapabilityError(f"the request is not JSON: {error!s:.120}") from None


async def read_content(request: Request, most: int, remedy: str) -> bytes:
    """Read the bytes of a request, at most so many."""
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > most:
            raise CapabilityError(f"the request has more than {most // 2**20} MiB; {remedy}")
    return b"".join(parts)


def _json(value: Json, status: int = 200) -> Response:
    """Write JSON in ASCII: a text may hold half a surrogate pair, which UTF-8 cannot."""
    from starlette.responses import Response

    return Response(json.dumps(value), status, media_type="application/json")


def _stream(lines: Iterator[str]) -> Response:
    from starlette.responses import StreamingResponse

    kind, headers = "text/event-stream", {"Cache-Control": "no-cache"}
    return StreamingResponse(lines, media_type=kind, headers=headers)


def error_response(sentence: str, status: int, code: str | None = None) -> Response:
    """Write an error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": sentence, "type": kind, "param": None, "code": code}
    return _json({"error": error}, status)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer for a path or a method that does not exist."""
    status, detail = int(getattr(error, "status_code", 500)), getattr(error, "detail", error)
    known = "there are GET /v1/models, POST /v1/chat/completions, POST /v1/responses, "
    known += "POST /v1/sessions/ID/reward, GET /health"
    return error_response(f"{request.method} {request.url.path}: {detail}; {known}", status)
