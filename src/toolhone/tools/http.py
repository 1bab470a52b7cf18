"""A tool that asks an address: `{"name", "parameters", "type": "api", "url", "method", ...}`.

POST, PUT and PATCH send the arguments as JSON, others as a query; an argument with a place in the
url, `{param}`, goes there alone, quoted. The host is resolved once per call, and every connection,
redirects included, goes to that checked address. No proxies, cookies or compressed answers.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlencode, urljoin, urlsplit

import httpx

from toolhone.errors import ConfigError, nearest
from toolhone.schema import Json, Tool
from toolhone.tools.placeholders import (
    VARIABLE,
    FromEnvironment,
    Template,
    as_text,
    check_places,
    hide,
    hide_in_part,
    texts_of,
    values_of,
)
from toolhone.tools.result import CallError, ToolStatus, truncate

METHODS = ("POST", "GET", "PUT", "PATCH", "DELETE", "HEAD")
TIMEOUT, MAX_BYTES = 10.0, 65_536
MAX_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}
_certificates = functools.cache(ssl.create_default_context)
_WITH_BODY = ("POST", "PUT", "PATCH")
_OWN_HEADERS = (
    *("host", "content-length", "transfer-encoding", "connection", "accept-encoding", "expect"),
    *("upgrade", "te", "trailer"),
)
_SHOWN, _DECODINGS = 500, 8
"""Characters of an answer in an error; how often a server may decode a path."""
_CHARSETS = (
    *("utf-8", "ascii", "us-ascii", "iso-8859-1", "latin-1", "latin1", "iso-8859-15"),
    *("windows-1252", "cp1252", "utf-16"),
)
"""Charsets that decode in linear time; others are read as UTF-8."""


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
        """Return the IP addresses of the host; there is no time limit of ours on that.

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
    method: str
    target: str  # path and query, quoted
    headers: Mapping[str, str]
    body: bytes | None


class HttpReply(NamedTuple):
    response: httpx.Response
    body: bytes
    whole: bool  # False: there are more bytes than `body`


@dataclass(frozen=True)
class HttpTool:
    """Asks an address. `headers` hold `${NAME}`, not values."""

    tool: Tool
    method: str
    address: Address
    path: Template
    query: Template
    headers: FromEnvironment
    timeout: float = TIMEOUT
    max_bytes: int = MAX_BYTES

    @staticmethod
    def of(tool: Tool, spec: Mapping[str, Json]) -> HttpTool:
        """Read the tool's object in an experiment file; a mistake is a `ConfigError`."""
        address, path, query = _read_url(tool, spec.get("url"))
        where, method = f"tool {tool.name!r}:", str(spec.get("method", METHODS[0])).upper()
        if method not in METHODS:
            known, near = f"methods: {', '.join(METHODS)}", nearest(method, METHODS)
            raise ConfigError(f"{where} no method {method!r}{near}; {known}")
        given = spec.get("headers", {})
        if not isinstance(given, Mapping) or not all(isinstance(v, str) for v in given.values()):
            raise ConfigError(f"{where} 'headers' must be an object of texts, got {given!r:.80}")
        for name, value in given.items():
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
                raise ConfigError(f"{where} {name!r} is not the name of a header")
            if name.lower() in _OWN_HEADERS:
                wrong = f"the header {name!r} is set by the program; leave it out"
                raise ConfigError(f"{where} {wrong}")
            for place in Template.of(re.sub(r"\$\{\w+\}", "", value)).names:
                if place in tool.properties:
                    right = "arguments go into the path, the query or the body"
                    raise ConfigError(f"{where} header {name!r} holds {{{place}}}; {right}")
        if len({name.lower() for name in given}) < len(given):
            wrong = "a header is given twice, in different spelling"
            raise ConfigError(f"{where} {wrong}; headers: {', '.join(given)}")
        limits = spec.get("timeout", TIMEOUT), spec.get("max_bytes", MAX_BYTES)
        headers = FromEnvironment(given)
        return HttpTool(tool, method, address, path, query, headers, *limits)

    def check(self) -> None:
        """Raise if no call can succeed: a variable is missing or does not fit a header."""
        self._fill_headers()

    def __call__(self, /, **arguments: Json) -> Json:
        headers = self._fill_headers()
        secrets = self.headers.secrets()
        try:
            request = self._request(arguments, headers)
        except ValueError as error:
            raise CallError(ToolStatus.INVALID_ARGUMENTS, f"{self.tool.name}: {error}") from None
        try:
            reply = exchange(self.address, request, self.timeout, self.max_bytes)
            return hide(_value(reply, secrets), secrets)
        except CallError as error:
            raise CallError(error.outcome, str(hide(str(error), secrets))) from None

    def _fill_headers(self) -> dict[str, str]:
        where = f"tool {self.tool.name!r}, header"
        filled = self.headers.fill(where)
        for name, text in filled.items():
            if not re.fullmatch(r"[\t\x20-\x7e\xa0-\xff]*", text):
                source = " or ".join(VARIABLE.findall(self.headers.texts[name])) or "the text"
                wrong = "(a line break, or a character beyond Latin-1)"
                value = f"the value of {source} cannot stand in a header {wrong}"
                raise ConfigError(f"{where} {name!r}: {value}")
        return filled

    def _request(self, arguments: Mapping[str, Json], headers: Mapping[str, str]) -> HttpRequest:
        """Return what to send. `ValueError` says what is wrong with an argument."""
        texts = texts_of(values_of(self.tool, arguments), (*self.path.names, *self.query.names))
        rest = {name: value for name, value in arguments.items() if name not in texts}
        for name in self.path.names:
            if not texts[name]:
                raise ValueError(f"{name}: an empty text cannot stand in the address")
        quoted = {name: quote(text, safe="") for name, text in texts.items()}
        literal = functools.partial(quote, safe="/%:@!$&'()*+,;=~?[]")
        target, query = (part.fill(quoted, literal) for part in (self.path, self.query))
        if _climbs(target):
            wrong = "'.' and '..' cannot stand in the address as steps of a path"
            raise ValueError(f"{', '.join(self.path.names)}: {wrong}")
        own, body = {"Accept": "application/json, */*;q=0.5", "User-Agent": "toolhone"}, None
        if self.method in _WITH_BODY:
            texts_of(rest, rest)
            body, own["Content-Type"] = as_text(rest).encode("utf-8"), "application/json"
        else:
            asked = []
            for key, value in rest.items():
                several = value if isinstance(value, list | tuple) else [value]
                given = [one for one in several if one is not None]
                asked += [(key, texts_of({key: one}, [key])[key]) for one in given]
            query = "&".join(filter(None, (query, urlencode(asked, quote_via=quote))))
        ours = {name.lower() for name in headers}
        own = {name: text for name, text in own.items() if name.lower() not in ours}
        target += f"?{query}" if query else ""
        return HttpRequest(self.method, target, {**own, **headers}, body)


def _read_url(tool: Tool, url: Json) -> tuple[Address, Template, Template]:
    """Return address, path and query of a tool's url."""
    where = f"tool {tool.name!r}: url"
    if not isinstance(url, str) or not url:
        right = "an address such as 'https://example.org/search'"
        raise ConfigError(f"{where} must be {right}, got {url!r:.80}")
    if "${" in url:
        wrong = "holds '${...}', which is filled from the environment in headers only"
        raise ConfigError(f"{where} {wrong}; send the key in a header")
    match = re.fullmatch(r"(?i:(https?))://([^/?#\s]*)([^?#\s]*)(?:\?([^#\s]*))?", url)
    if match is None:
        right = "http:// or https:// with a host, without spaces and without '#'"
        raise ConfigError(f"{where} must be {right}, got {url!r:.80}")
    scheme, authority, path, query = match.groups(default="")
    if Template.of(authority).names or "{" in authority:
        wrong = "the model may not choose the host, only parts of the path"
        raise ConfigError(f"{where}: the host {authority!r} holds a place; {wrong}")
    if "@" in authority:
        right = "send them in a header, for example Authorization: 'Basic ${NAME}'"
        raise ConfigError(f"{where} holds a user or password; {right}")
    paths, queries = Template.of(path or "/"), Template.of(query)
    check_places(tool, (*paths.names, *queries.names), "url")
    if _climbs(paths.fill(dict.fromkeys(paths.names, "x"))):
        raise ConfigError(f"{where}: write the path {path!r} without '.' and '..' as steps")
    return Address.of(scheme.lower(), authority, where), paths, queries


def _climbs(path: str) -> bool:
    """Whether a server that decodes the path, even repeatedly, could find `.` or `..` in it."""
    for _ in range(_DECODINGS):
        if {".", ".."} & {*re.split(r"[/\\]", path)}:
            return True
        before, path = path, unquote(path)
        if path == before:
            return False
    return True


def _value(reply: HttpReply, secrets: Sequence[str]) -> Json:
    """Return the value of a complete, successful answer; raise `CallError` for others."""
    response = reply.response
    status = f"HTTP {response.status_code} {truncate(response.reason_phrase, 60)}".strip()
    charset = (response.charset_encoding or "utf-8").lower()
    text = reply.body.decode(charset if charset in _CHARSETS else "utf-8", "replace")
    shown = str(hide(text, secrets)) if reply.whole else hide_in_part(text, secrets)
    beginning = truncate(shown, _SHOWN)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if not response.is_success:
        raise CallError(ToolStatus.ERROR, f"{status}: {beginning}" if shown.strip() else status)
    if encoding not in ("", "identity"):
        wrong = f"the answer is compressed ({truncate(encoding, 40)}), which is not read"
        raise CallError(ToolStatus.ERROR, f"{status}, but {wrong}")
    if not reply.whole:
        wrong = f"the answer is larger than max_bytes={len(reply.body)} allows"
        raise CallError(ToolStatus.ERROR, f"{status}, but {wrong}; it begins: {beginning}")
    if not reply.body:
        return status
    media = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if re.fullmatch(r"application/json|[\w.+/-]*\+json|text/json", media):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    return text


def exchange(address: Address, request: HttpRequest, seconds: float, max_bytes: int) -> HttpReply:
    """Send a request and follow redirects within the same scheme, host and port.

    `seconds` covers connections, redirects and bodies; a body is read up to `max_bytes`.
    """
    deadline = time.monotonic() + seconds
    late = f"{address.host} did not answer in full within {seconds:g} s"
    try:
        places = address.resolve()
        with _cut_off(deadline, late) as trace:
            for _ in range(MAX_REDIRECTS + 1):
                left = max(0.001, deadline - time.monotonic())
                limits = dict.fromkeys(("connect", "read", "write", "pool"), left)
                extensions = {"timeout": limits, "trace": trace}
                reply = _send(address, places, request, extensions, max_bytes)
                location = reply.response.headers.get("Location", "")
                if reply.response.status_code not in (301, 302, 303, 307, 308) or not location:
                    return reply
                request = _redirect(address, request, reply.response.status_code, location)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        text = truncate(f"{type(error).__name__}: {' '.join(str(error).split())}", 200)
        failure = f"the request to {address.host} failed: {text.removesuffix(': ')}"
        absent = isinstance(error, httpx.ConnectError)
        raise CallError(ToolStatus.UNREACHABLE if absent else ToolStatus.ERROR, failure) from None
    raise CallError(ToolStatus.ERROR, f"{address.host} redirects more than {MAX_REDIRECTS} times")


@contextlib.contextmanager
def _cut_off(deadline: float, late: str) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Cut connections at a time, even if the other side still writes; the error is TIMEOUT.

    Yields a trace for httpx that keeps a handle of each new connection.
    """
    handles: list[socket.socket] = []
    passed = threading.Event()

    def cut() -> None:
        passed.set()
        for handle in handles:
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    def trace(event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":  # TLS replaces only the socket object
            handles.append(info["return_value"].get_extra_info("socket").dup())
            if passed.is_set():
                cut()

    timer = threading.Timer(max(0.001, deadline - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield trace
    except Exception as error:
        if passed.is_set() or isinstance(error, httpx.TimeoutException | TimeoutError):
            raise CallError(ToolStatus.TIMEOUT, late) from None
        raise
    finally:
        timer.cancel()
        for handle in handles:
            handle.close()
    if passed.is_set():
        raise CallError(ToolStatus.TIMEOUT, late)


def _send(
    address: Address,
    places: Sequence[str],
    request: HttpRequest,
    extensions: Mapping[str, Any],
    max_bytes: int,
) -> HttpReply:
    """Send a request to the first of the places that can be connected to."""
    own = {"Host": address.authority, "Connection": "close", "Accept-Encoding": "identity"}
    texts = {**own, **request.headers}
    headers = [(name.encode(), text.strip().encode("latin-1")) for name, text in texts.items()]
    target = request.target.encode("ascii")
    extensions = {**extensions, "sni_hostname": address.host, "target": target}
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
