"""Serve the report of a run on loopback while it trains: the page, and its data as they change.

with LiveReport([Path("runs/sft")], port=0) as server:
    print(server.url)
    server.serve_forever()
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from toolhone.errors import RunError, UserError
from toolhone.reports.html import render_report
from toolhone.reports.report_data import MAX_EPISODES, report_data

LOOPBACK = "127.0.0.1"
PATTERNS = ("*.json*", "*/*.json*", "*/*/*.json*")
"""Files of a run that its report reads, checkpoints aside."""


class LiveReport(ThreadingHTTPServer):
    """A server of one page on loopback; other hosts' names for it are refused."""

    daemon_threads = True

    def __init__(
        self,
        folders: Sequence[Path],
        port: int,
        base: Path | None = None,
        max_episodes: int = MAX_EPISODES,
    ) -> None:
        self.folders, self.base, self.max_episodes = folders, base, max_episodes
        self.lock, self.answer = Lock(), ("", b"", b"")
        self.read()  # what is wrong with the folders is an error before the server starts
        try:
            super().__init__((LOOPBACK, port), _ReportHandler)
        except (OSError, OverflowError) as error:
            raise RunError(
                f"--port {port}: {error}; name another, or 0 for any that is free"
            ) from None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def fingerprint(self) -> str:
        """A hash of names, sizes and times of the files that the report reads."""
        digest = blake2b(digest_size=12)
        for folder in (*self.folders, *([] if self.base is None else [self.base])):
            for pattern in PATTERNS:
                for path in sorted(folder.glob(pattern)):
                    if "checkpoints" not in path.parts[-3:] and path.is_file():
                        stat = path.stat()
                        digest.update(f"{path}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
        return f'"{digest.hexdigest()}"'

    def read(self) -> tuple[str, bytes, bytes]:
        """The tag, the page and the data; read again when the files have changed."""
        with self.lock:
            tag = self.fingerprint()
            if tag != self.answer[0]:
                data = {**report_data(self.folders, self.base, self.max_episodes), "live": True}
                page = render_report(data, live=True).encode()
                self.answer = (tag, page, json.dumps(data, allow_nan=False).encode())
            return self.answer


class _ReportHandler(BaseHTTPRequestHandler):
    server: LiveReport

    def do_GET(self) -> None:
        own = self.server.server_address[1]
        if self.headers.get("Host", "") not in (f"{LOOPBACK}:{own}", f"localhost:{own}"):
            return self._send(403, b"this server answers on loopback alone", "text/plain")
        try:
            tag, page, data = self.server.read()
        except UserError as error:  # a file that is being written
            return self._send(503, str(error).encode(), "text/plain")
        if self.path == "/data.json" and self.headers.get("If-None-Match") == tag:
            return self._send(304, b"", "application/json", tag)
        bodies = {"/": (page, "text/html"), "/data.json": (data, "application/json")}
        if self.path not in bodies:
            return self._send(404, b"there is / and /data.json", "text/plain")
        return self._send(200, *bodies[self.path], tag)

    def _send(self, status: int, body: bytes, kind: str, tag: str = "") -> None:
        self.send_response(status)
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}
        headers |= {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        for name, value in {**headers, **({"ETag": tag} if tag else {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""
