"""An OpenAI-compatible server for one model.

    serve(ModelService(open_model("runs/first")), listen("127.0.0.1", 8000))

`agents/gateway.py` has its addresses. Tools do not run here: that is the client's part.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from concurrent.futures import Future

from toolhone.agents.gateway import LOOPBACK, SHUTDOWN_SECONDS, Answerer, Posted, open_app
from toolhone.agents.openai import ChatRequest
from toolhone.api import Model
from toolhone.episodes.policy import Turn
from toolhone.errors import CapabilityError
from toolhone.schema import Json
from toolhone.serve.worker import OpenPrompt, Worker


def serve(service: Answerer, sock: socket.socket) -> None:
    """Serve until Ctrl-C."""
    import uvicorn

    app = open_app(service, open_to_all=sock.getsockname()[0] not in LOOPBACK)
    config = uvicorn.Config(app, log_level="warning", lifespan="on")
    config.timeout_graceful_shutdown = SHUTDOWN_SECONDS
    with sock:
        uvicorn.Server(config).run(sockets=[sock])


class ModelService:
    """Answers requests with one model; sessions are not kept."""

    any_model = False

    def __init__(self, model: Model, open_prompt: OpenPrompt | None = None) -> None:
        self.worker, self.name = Worker(model, open_prompt), model.name
        certificate = model.certificate
        self.defaults = self.worker.defaults
        self.fingerprint = f"format_{certificate.hashes.get('dialect', '')[:12]}"
        self.about: Mapping[str, Json] = {
            "dialect": model.dialect.name,
            "verdict": certificate.verdict.value,
            "hashes": dict(certificate.hashes),
            "context": model.max_context,
            "constrained": model.experiment.evaluation.constrained,
        }

    def submit(self, chat: ChatRequest, session: str) -> Future[Turn]:  # noqa: ARG002
        return self.worker.submit(chat)

    def reward(self, session: str, reward: Posted) -> dict[str, Json]:  # noqa: ARG002
        right = "start it with: toolhone serve MODEL --record FOLDER"
        raise CapabilityError(f"this server records no sessions; {right}")

    def close(self) -> None:
        self.worker.close()
