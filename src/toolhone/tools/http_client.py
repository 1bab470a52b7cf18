"""One request and its answer over HTTP, within limits that hold for all of it, redirects included.

    reply = exchange(Address.of("https", "example.org", "url"), request, 10, 65_536)

Every connection goes to an address that was resolved and checked once. No proxy or cookie is used.
A name server that does not answer is waited for as long as the system does.
"""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import httpx

from toolhone.errors import ConfigError
from toolhone.tools.result import CallError, ToolStatus, truncate

MAX_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}
_certificates = functools.cache(ssl.create_default_context)


@dataclass(frozen=True)
class Address:
    scheme: str
    host: str
    port: int

    @staticmethod
    def of(scheme: str, authority: str, where: str) -> Address:
        """Read `host`, `host:port` or `[IPv6]:port`; `where` names the place in the error."""
        try:
            parts = urlsplit(f"{scheme}://{authority}")
            host, port = parts.hostname or "", parts.port
            named = re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host)
            if not named or port == 0 or authority.endswith(":"):
                raise ValueError
        except ValueError:
            right = "a host, or a host and a port, in ASCII letters"
            raise ConfigError(f"{where}: {authority!r} is not {right}") from None
        return Address(scheme, host, _PORTS[scheme] if port is None else port)

    @property
    def authority(self) -> str:
        """Host and port as in the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def resolve(self) -> list[str]:
        """Return the IP addresses of the host.

        Refuse a public name that leads to this machine or its link, so that its owner cannot aim a
        call at a local service; a url that itself names such a place is the user's choice.
        """
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        places = list(dict.fromkeys(str(place[0]) for *_, place in found))
        if self.host in places or "." not in self.host or self.host.endswith(".localhost"):
            return places
        for place in places:
            ip = ip_address(place)
            ip = getattr(ip, "ipv4_mapped", None) or ip
            if ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast:
                wrong = f"{self.host} leads to {place}, an address of this machine or its link"
                raise CallError(ToolStatus.ERROR, f"{wrong}; write that address into the url")
        return places


class HttpRequest(NamedTuple):
    """`target` is the path and the query, quoted."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None


class HttpReply(NamedTuple):
    """`whole` is False where the body has more bytes than `body`."""

    response: httpx.Response
    body: bytes
    whole: bool


def exchange(address: Address, request: HttpRequest, seconds: float, max_bytes: int) -> HttpReply:
    """Send a request and follow redirects within the same scheme, host and port.

    `seconds` covers connections, redirects and bodies; a body is read up to `max_bytes`.
    """
    deadline = time.monotonic() + seconds
    late = f"{address.host} did not answer in full within {seconds:g} s"
    try:
        places = address.resolve()
        for _ in range(MAX_REDIRECTS + 1):
            with _Deadline(deadline, late) as cut:
                reply = _send(address, places, request, cut, max_bytes)
            location = reply.response.headers.get("Location", "")
            if reply.response.status_code not in (301, 302, 303, 307, 308) or not location:
                return reply
            request = _redirect(address, request, reply.response.status_code, location)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        text = truncate(f"{type(error).__name__}: {' '.join(str(error).split())}", 200)
        failure = f"the request to {address.host} failed: {text.removesuffix(': ')}"
        raise CallError(ToolStatus.ERROR, failure) from None
    wrong = f"{address.host} redirects more than {MAX_REDIRECTS} times"
    raise CallError(ToolStatus.ERROR, wrong)


class _Deadline:
    """Cuts a connection at a time, even if the other side still writes; the error is TIMEOUT."""

    def __init__(self, deadline: float, late: str) -> None:
        self.left = max(0.001, deadline - time.monotonic())
        self._late, self._passed, self._socket = late, False, socket.socket()
        self._timer = threading.Timer(self.left, self._cut)
        self._timer.daemon = True

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep a handle of each new connection; TLS replaces only the socket object."""
        if event == "connection.connect_tcp.complete":
            self._socket.close()
            self._socket = info["return_value"].get_extra_info("socket").dup()
            if self._passed:
                self._cut()

    def _cut(self) -> None:
        self._passed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._socket.close()
        if self._passed or isinstance(error, httpx.TimeoutException | TimeoutError):
            raise CallError(ToolStatus.TIMEOUT, self._late) from None


def _send(
    address: Address, places: Sequence[str], request: HttpRequest, cut: _Deadline, max_bytes: int
) -> HttpReply:
    """Send a request to the first of the places that can be connected to."""
    own = {"Host": address.authority, "Connection": "close", "Accept-Encoding": "identity"}
    texts = {**own, **request.headers}
    headers = [(name.encode(), text.strip().encode("latin-1")) for name, text in texts.items()]
    extensions = {
        "timeout": dict.fromkeys(("connect", "read", "write", "pool"), cut.left),
        "sni_hostname": address.host,
        "target": request.target.encode("ascii"),
        "trace": cut.trace,
    }
    with httpx.Client(verify=_certificates(), trust_env=False) as client:
        for place in places:
            url = httpx.URL(scheme=address.scheme, host=place, port=address.port, path="/")
            sent = httpx.Request(
                request.method, url, headers=headers, content=request.body, extensions=extensions
            )
            try:
                response = client.send(sent, stream=True)
                break
            except httpx.ConnectError:
                if place == places[-1]:
                    raise
        body = bytearray()
        with contextlib.closing(response):
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > max_bytes:
                    break
    return HttpReply(response, bytes(body[:max_bytes]), len(body) <= max_bytes)


def _redirect(address: Address, request: HttpRequest, status: int, location: str) -> HttpRequest:
    """Return the request for the place that the answer points to, which must be the same one."""
    try:
        here = f"{address.scheme}://{address.authority}{request.target}"
        parts = urlsplit(urljoin(here, location))
        port = parts.port or _PORTS.get(parts.scheme)
        same = Address(parts.scheme, parts.hostname or "", port or 0) == address
    except ValueError:
        same = False
    if not same:
        place = f"redirects to another place ({truncate(location, 200)}), which is not followed"
        raise CallError(ToolStatus.ERROR, f"HTTP {status}: {address.host} {place}")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if status in (301, 302, 303) and request.method not in ("GET", "HEAD"):
        kept = {k: v for k, v in request.headers.items() if k.lower() != "content-type"}
        return HttpRequest("GET", target, kept, None)
    return request._replace(target=target)
