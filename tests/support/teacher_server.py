"""A chat-completions server in a thread that answers from a script, for tests of a teacher."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | int | None | float
"""A text; an HTTP status; None drops the connection; a float waits so many seconds."""
Script = Callable[[int, str], Reply]
"""What to answer to request number N (from 0) with this question."""


class Served:
    """The address, and every request's headers and body."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.paid = 0


@contextmanager
def teacher(script: Script, tells_usage: bool = True) -> Iterator[Served]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(served.bodies)
                served.bodies.append(body)
                served.headers.append(dict(self.headers))
            reply = script(number, body["messages"][-1]["content"])
            if isinstance(reply, float):
                time.sleep(reply)
                reply = None
            if reply is None:
                self.close_connection = True
                self.connection.close()
                return
            status = reply if isinstance(reply, int) else 200
            message = {"role": "assistant", "content": reply}
            usage = {"prompt_tokens": 100, "completion_tokens": 10}
            value = {"choices": [{"message": message}], "usage": usage if tells_usage else None}
            if status != 200:
                value = {"error": {"message": f"refused {self.headers.get('Authorization')}"}}
            with lock:
                served.paid += status == 200
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Served(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
