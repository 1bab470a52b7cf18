"""A Tinker server of ours in a thread of this process, on a free port of the loopback.

with tinker_server(model_folder, tmp_path) as url:
    client = tinker.ServiceClient(base_url=url, api_key="tml-local")
"""

from __future__ import annotations

import contextlib
import gc
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolhone.agents.gateway import address_of, listen
from toolhone.serve.tinker_server import TinkerOptions, open_service, open_tinker_app

KEY = "tml-local"


@contextmanager
def tinker_server(
    model: str | Path, checkpoints: Path, memory: int | None = 10**9, custom_losses: bool = False
) -> Iterator[str]:
    """Serve a model folder or 'pico'; yields the address for `TINKER_BASE_URL`."""
    import uvicorn

    options = TinkerOptions(checkpoints, memory, custom_losses=custom_losses)
    service = open_service(str(model), options)
    config = uvicorn.Config(open_tinker_app(service), log_level="error", lifespan="on")
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    sock = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield address_of(sock)
    finally:
        server.should_exit = True
        thread.join(60)
        sock.close()


@contextmanager
def sdk_client(url: str, key: str = KEY) -> Iterator[Any]:
    """A `tinker.ServiceClient`, closed at the end."""
    import tinker

    client = tinker.ServiceClient(base_url=url, api_key=key)
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.close("success").result(10)


def close_left_sockets() -> None:
    """Collect clients that are out of use: the SDK leaves a socket of each open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            gc.collect()
