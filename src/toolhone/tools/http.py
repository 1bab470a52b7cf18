"""A tool that asks an address over HTTP: `{"name", "parameters", "type": "api", "url", "method", "headers", ...}`.

    service = HttpTool.of(tool, {"url": "https://example.org/users/{id}", "method": "GET"})
    service(id="7", fields=["name"])    # GET https://example.org/users/7?fields=name: the JSON value, or the text

POST, PUT and PATCH send the arguments as a JSON object, the others as a query; those with a place `{param}` in the address go there
alone. How a call ends otherwise is told by a `CallError`: a status that is no success, an answer larger than `max_bytes`, no whole
answer within `timeout` seconds (names, connection, redirects and body together). What the model says ends up quoted inside the path
or the query, never in scheme, host, port or a header, and cannot climb out of the path with dots.

Only http and https; certificates are checked. Redirects are followed within the same scheme, host and port: this module never
connects to another place than the one in the tool's `url`. No proxy is used, no cookie kept, no compressed answer read. It is not
judged which addresses may be asked (a `url` may name this machine); a name server that does not answer is not waited for, but the
thread that asked it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode

from toolhone.errors import ConfigError, nearest
from toolhone.schema import Json, Tool
from toolhone.tools.environment import FromEnvironment, hidden, hidden_when_cut
from toolhone.tools.http_client import Address, HttpReply, HttpRequest, Together, exchange
from toolhone.tools.placeholders import Template, as_text, check_places, defaults_of, texts_of
from toolhone.tools.result import CallError, ToolStatus, truncate

METHODS = ("POST", "GET", "PUT", "PATCH", "DELETE", "HEAD")
TIMEOUT, MAX_BYTES = 10.0, 65_536
_WITH_BODY = ("POST", "PUT", "PATCH")
_OURS = (
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "accept-encoding",
    "expect",
    "upgrade",
    "te",
    "trailer",
)
_SHOWN = 500
_DECODINGS = 8
_CHARSETS = (
    "utf-8",
    "ascii",
    "us-ascii",
    "iso-8859-1",
    "latin-1",
    "latin1",
    "iso-8859-15",
    "windows-1252",
    "cp1252",
    "utf-16",
)
"""Those with which a text cannot be made to take long to decode; others are read as UTF-8."""


@dataclass(frozen=True)
class HttpTool:
    """Asks an address. `headers` hold `${NAME}`, not values."""

    tool: Tool
    method: str
    address: Address
    path: Template
    query: Template
    headers: tuple[tuple[str, FromEnvironment], ...] = ()
    timeout: float = TIMEOUT
    max_bytes: int = MAX_BYTES

    @staticmethod
    def of(tool: Tool, spec: Mapping[str, Json]) -> HttpTool:
        """From the tool and its object in an experiment file; a mistake is a `ConfigError`."""
        address, path, query = _address(tool, spec.get("url"))
        method = str(spec.get("method", METHODS[0])).upper()
        if method not in METHODS:
            raise ConfigError(
                f"tool {tool.name!r}: no method {method!r}{nearest(method, METHODS)}; methods: {', '.join(METHODS)}"
            )
        headers = _headers(tool, spec.get("headers", {}))
        return HttpTool(
            tool,
            method,
            address,
            path,
            query,
            headers,
            spec.get("timeout", TIMEOUT),
            spec.get("max_bytes", MAX_BYTES),
        )

    def check(self) -> None:
        """Stop where a call could never succeed: a variable of the environment is missing or cannot stand in a header."""
        self._filled_headers()

    def __call__(self, /, **arguments: Json) -> Json:
        headers = self._filled_headers()
        secrets = [secret for _, text in self.headers for secret in text.secrets()]
        try:
            request = self._request(arguments, headers)
        except ValueError as error:
            raise CallError(ToolStatus.INVALID_ARGUMENTS, f"{self.tool.name}: {error}") from None
        try:
            return hidden(
                _value(
                    exchange(self.address, request, Together(self.timeout, self.max_bytes)), secrets
                ),
                secrets,
            )
        except CallError as error:
            raise CallError(error.outcome, str(hidden(str(error), secrets))) from None

    def _filled_headers(self) -> dict[str, str]:
        filled = {}
        for name, text in self.headers:
            text.check(f"tool {self.tool.name!r}, header {name!r},")
            filled[name] = text.filled()
            if not re.fullmatch(r"[\t\x20-\x7e\xa0-\xff]*", filled[name]):
                raise ConfigError(
                    f"tool {self.tool.name!r}, header {name!r}: the value of {' or '.join(text.names) or 'the text'} "
                    "cannot stand in a header (a line break, or a character beyond Latin-1)"
                )
        return filled

    def _request(self, arguments: Mapping[str, Json], headers: Mapping[str, str]) -> HttpRequest:
        """What to send. `ValueError` says what is wrong with an argument."""
        given = {name: value for name, value in arguments.items() if value is not None}
        placed = texts_of(
            {**defaults_of(self.tool), **given}, (*self.path.names, *self.query.names)
        )
        rest = {name: value for name, value in arguments.items() if name not in placed}
        for name in self.path.names:
            if not placed[name]:
                raise ValueError(f"{name}: an empty text cannot stand in the address")
        quoted = {name: quote(text, safe="") for name, text in placed.items()}
        path = self.path.filled(quoted, _quoted_literal)
        if _climbs(path):
            raise ValueError(
                f"{', '.join(self.path.names)}: '.' and '..' cannot stand in the address as steps of a path"
            )
        query, body = self.query.filled(quoted, _quoted_literal), None
        sent = {"Accept": "application/json, */*;q=0.5", "User-Agent": "toolhone"}
        if self.method in _WITH_BODY:
            body, sent["Content-Type"] = _json_body(rest), "application/json"
        else:
            query = "&".join(filter(None, (query, urlencode(list(_pairs(rest)), quote_via=quote))))
        ours = {name.lower() for name, _ in self.headers}
        sent = {name: value for name, value in sent.items() if name.lower() not in ours}
        return HttpRequest(
            self.method, path + (f"?{query}" if query else ""), {**sent, **headers}, body
        )


def _address(tool: Tool, url: Json) -> tuple[Address, Template, Template]:
    where = f"tool {tool.name!r}: url"
    if not isinstance(url, str) or not url:
        raise ConfigError(
            f"{where} must be an address such as 'https://example.org/search', got {url!r:.80}"
        )
    if "${" in url:
        raise ConfigError(
            f"{where} holds '${{...}}', which is filled from the environment in headers only; send the key in a header"
        )
    match = re.fullmatch(r"(?i:(https?))://([^/?#\s]*)([^?#\s]*)(?:\?([^#\s]*))?", url)
    if match is None:
        raise ConfigError(
            f"{where} must be http:// or https:// with a host, without spaces and without '#', got {url!r:.80}"
        )
    scheme, authority, path, query = match.groups(default="")
    if Template.of(authority).names or "{" in authority:
        raise ConfigError(
            f"{where}: a place stands in the host {authority!r}; the model may not choose the host, only parts of the path"
        )
    if "@" in authority:
        raise ConfigError(
            f"{where} holds a user or password; send them in a header, for example Authorization: 'Basic ${{NAME}}'"
        )
    paths, queries = Template.of(path or "/"), Template.of(query)
    check_places(tool, (*paths.names, *queries.names), "url")
    if _climbs(paths.filled(dict.fromkeys(paths.names, "x"))):
        raise ConfigError(f"{where}: write the path {path!r} without '.' and '..' as steps")
    return Address.of(scheme.lower(), authority, where), paths, queries


def _headers(tool: Tool, headers: Json) -> tuple[tuple[str, FromEnvironment], ...]:
    where = f"tool {tool.name!r}"
    if not isinstance(headers, Mapping) or not all(
        isinstance(value, str) for value in headers.values()
    ):
        raise ConfigError(f"{where}: 'headers' must be an object of texts, got {headers!r:.80}")
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ConfigError(f"{where}: {name!r} is not the name of a header")
        if name.lower() in _OURS:
            raise ConfigError(f"{where}: the header {name!r} is set by the program; leave it out")
        chosen = [
            place
            for place in Template.of(re.sub(r"\$\{\w+\}", "", value)).names
            if place in tool.properties
        ]
        if chosen:
            raise ConfigError(
                f"{where}: header {name!r} holds {{{chosen[0]}}}; arguments go into the path, the query or the body"
            )
    if len({name.lower() for name in headers}) < len(headers):
        raise ConfigError(
            f"{where}: a header is given twice, in different spelling; headers: {', '.join(headers)}"
        )
    return tuple((name, FromEnvironment(value)) for name, value in headers.items())


def _quoted_literal(text: str) -> str:
    return quote(text, safe="/%:@!$&'()*+,;=~?[]")


def _climbs(path: str) -> bool:
    """Whether a server that decodes the path, even several times, would find `.` or `..` as a step of it. In doubt it would."""
    for _ in range(_DECODINGS):
        if any(step in (".", "..") for step in re.split(r"[/\\]", path)):
            return True
        before, path = path, unquote(path)
        if path == before:
            return False
    return True


def _pairs(arguments: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """The arguments as a query says them: lists repeated, objects as JSON, null left out."""
    for name, value in arguments.items():
        values: Sequence[Json] = value if isinstance(value, list | tuple) else [value]
        for each in values:
            if each is not None:
                yield name, texts_of({name: each}, [name])[name]


def _json_body(arguments: Mapping[str, Json]) -> bytes:
    texts_of(arguments, arguments)
    return as_text(dict(arguments)).encode("utf-8")


def _value(reply: HttpReply, secrets: Sequence[str]) -> Json:
    """The value of a whole, successful answer; what it is otherwise is raised."""
    status = f"HTTP {reply.status} {truncate(reply.reason, 60)}".strip()
    text = _text(reply)
    shown = str(hidden(text, secrets)) if reply.whole else hidden_when_cut(text, secrets)
    if not 200 <= reply.status < 300:
        raise CallError(
            ToolStatus.ERROR, f"{status}: {truncate(shown, _SHOWN)}" if shown.strip() else status
        )
    if reply.encoding not in ("", "identity"):
        raise CallError(
            ToolStatus.ERROR,
            f"{status}, but the answer is compressed ({truncate(reply.encoding, 40)}), which is not read",
        )
    if not reply.whole:
        raise CallError(
            ToolStatus.ERROR,
            f"{status}, but the answer is larger than max_bytes={len(reply.body)} allows; it begins: {truncate(shown, _SHOWN)}",
        )
    if not reply.body:
        return status
    if re.fullmatch(r"application/json|[\w.+/-]*\+json|text/json", reply.media):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def _text(reply: HttpReply) -> str:
    charset = reply.charset if reply.charset in _CHARSETS else "utf-8"
    return reply.body.decode(charset, "replace")
