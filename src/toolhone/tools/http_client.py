"""One question and one answer over HTTP, within limits that hold for the whole of it.

    address = Address.of("https", "example.org", "url")
    reply = exchange(address, Request("GET", "/page", {}, None), Together(seconds=10, bytes=65_536))

`Together.seconds` is the time for connecting, sending, waiting, redirects and reading; when it is over the connection is cut,
however slowly or busily the other side still writes: TIMEOUT. The body is read up to `Together.bytes`; the rest stays on the wire.
Whatever else goes wrong is a `CallError` of one sentence. Every connection goes to `address`; a redirect changes the path at most.
No proxy is used. Not covered: a name server that does not answer, which is waited for as long as the system does.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

from toolhone.errors import ConfigError
from toolhone.tools.result import CallError, ToolStatus, truncate

MAX_REDIRECTS = 5
_CHUNK = 65_536
_REDIRECTS = (301, 302, 303, 307, 308)
_AS_GET = (301, 302, 303)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """Where to connect to."""

    scheme: str
    host: str
    port: int

    @staticmethod
    def of(scheme: str, authority: str, where: str) -> Address:
        """From `host`, `host:port` or `[IPv6]:port`; `where` names the place in the sentence that tells what is wrong."""
        try:
            parts = urlsplit(f"{scheme}://{authority}")
            host, port = parts.hostname, parts.port
            if (
                not host
                or not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host)
                or port == 0
                or authority.endswith(":")
            ):
                raise ValueError
        except ValueError:
            raise ConfigError(
                f"{where}: {authority!r} is not a host, or a host and a port, in ASCII letters"
            ) from None
        return Address(scheme, host, _PORTS[scheme] if port is None else port)

    @property
    def authority(self) -> str:
        """As the header Host says it: the port where it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True)
class HttpRequest:
    """`target` is the path and the query, quoted."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True)
class HttpReply:
    """`whole` is False where the body has more bytes than were read."""

    status: int
    reason: str
    media: str
    charset: str
    encoding: str
    location: str
    body: bytes
    whole: bool


@dataclass(frozen=True)
class Together:
    """What one exchange, redirects included, may take."""

    seconds: float
    bytes: int


def exchange(address: Address, request: HttpRequest, limits: Together) -> HttpReply:
    """Ask, and follow redirects within the same place."""
    deadline = time.monotonic() + limits.seconds
    late = CallError(
        ToolStatus.TIMEOUT, f"{address.host} did not answer in full within {limits.seconds:g} s"
    )
    for _ in range(MAX_REDIRECTS + 1):
        reply = _once(address, request, deadline, limits.bytes, late)
        if reply.status not in _REDIRECTS or not reply.location:
            return reply
        request = _redirected(address, request, reply)
    raise CallError(ToolStatus.ERROR, f"{address.host} redirects more than {MAX_REDIRECTS} times")


def _redirected(address: Address, request: HttpRequest, reply: HttpReply) -> HttpRequest:
    """The request for where the answer points to, which must be the same place."""
    try:
        parts = urlsplit(
            urljoin(f"{address.scheme}://{address.authority}{request.target}", reply.location)
        )
        same = (parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)) == (
            address.scheme,
            address.host,
            address.port,
        )
    except ValueError:
        same = False
    if not same:
        told = (
            f"redirects to another place ({truncate(reply.location, 200)}), which is not followed"
        )
        raise CallError(ToolStatus.ERROR, f"HTTP {reply.status}: {address.host} {told}")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if reply.status in _AS_GET and request.method not in ("GET", "HEAD"):
        headers = {
            name: value for name, value in request.headers.items() if name.lower() != "content-type"
        }
        return HttpRequest("GET", target, headers, None)
    return replace(request, target=target)


def _once(
    address: Address, request: HttpRequest, deadline: float, limit: int, late: CallError
) -> HttpReply:
    passed = threading.Event()
    try:
        with _connected(address, deadline, passed) as connection:
            connection.putrequest(
                request.method, request.target, skip_host=True, skip_accept_encoding=True
            )
            body = {} if request.body is None else {"Content-Length": str(len(request.body))}
            own = {"Host": address.authority, "Connection": "close", "Accept-Encoding": "identity"}
            for name, value in {**own, **request.headers, **body}.items():
                connection.putheader(name, value)
            connection.endheaders(request.body)
            with connection.getresponse() as response:
                reply = _read(response, limit)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if passed.is_set() or isinstance(error, TimeoutError):
            raise late from None
        raise CallError(
            ToolStatus.ERROR, f"{address.host} could not be asked: {_told(error)}"
        ) from None
    if passed.is_set():
        raise late
    return reply


def _told(error: Exception) -> str:
    text = " ".join(
        (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).split()
    )
    return truncate(f"{type(error).__name__}: {text}" if text else type(error).__name__, 200)


@contextlib.contextmanager
def _connected(
    address: Address, deadline: float, passed: threading.Event
) -> Iterator[http.client.HTTPConnection]:
    """A connection that is cut at the deadline; `passed` is set then."""
    with contextlib.ExitStack() as stack:
        line = stack.enter_context(contextlib.closing(_reached(address, deadline)))
        secured = None
        if address.scheme == "https":
            secured = _certificates().wrap_socket(
                line, server_hostname=address.host, do_handshake_on_connect=False
            )
            line = stack.enter_context(contextlib.closing(secured))
        timer = threading.Timer(_left(deadline), _cut, (line, passed))
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
        if secured is not None:
            secured.do_handshake()
        connection = http.client.HTTPConnection(address.host, address.port)
        connection.sock, connection.auto_open = line, 0
        stack.callback(connection.close)
        yield connection


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _reached(address: Address, deadline: float) -> socket.socket:
    """A socket connected to one of the host's addresses; they share the time that is left."""
    problem: OSError = OSError(f"no address for {address.host}")
    for family, kind, protocol, _, place in socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM
    ):
        line = socket.socket(family, kind, protocol)
        try:
            line.settimeout(_left(deadline))
            line.connect(place)
            return line
        except OSError as error:
            line.close()
            problem = error
    raise problem


def _cut(line: socket.socket, passed: threading.Event) -> None:
    """End the connection below any encryption, so that whoever waits for it wakes up."""
    passed.set()
    with contextlib.suppress(OSError):
        socket.socket.shutdown(line, socket.SHUT_RDWR)


@functools.cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


def _read(response: http.client.HTTPResponse, limit: int) -> HttpReply:
    """Read one byte more than the limit at most."""
    chunks, size = [], 0
    while size <= limit and (chunk := response.read(min(_CHUNK, limit + 1 - size))):
        chunks.append(chunk)
        size += len(chunk)
    whole = size <= limit
    if whole and response.length:
        raise http.client.IncompleteRead(b"".join(chunks), response.length)
    return HttpReply(
        status=response.status,
        reason=response.reason or "",
        media=response.headers.get_content_type(),
        charset=response.headers.get_content_charset("utf-8"),
        encoding=response.headers.get("Content-Encoding", "").strip().lower(),
        location=response.headers.get("Location", ""),
        body=b"".join(chunks)[:limit],
        whole=whole,
    )
