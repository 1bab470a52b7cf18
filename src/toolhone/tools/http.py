"""A tool that asks an address: `{"name", "parameters", "type": "api", "url", "method", "headers",
...}`.

POST, PUT and PATCH send the arguments as a JSON object, other methods as a query; an argument with
a place `{param}` in the url goes there alone, quoted. The host of the url is resolved once per
call, and every connection, redirects included, goes to that checked address. Proxies, cookies and
compressed answers are not used.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode

from toolhone.errors import ConfigError, nearest
from toolhone.schema import Json, Tool
from toolhone.tools.http_client import Address, HttpReply, HttpRequest, exchange
from toolhone.tools.placeholders import (
    FromEnvironment,
    Template,
    as_text,
    check_places,
    defaults_of,
    hide,
    hide_in_part,
    texts_of,
)
from toolhone.tools.result import CallError, ToolStatus, truncate

METHODS = ("POST", "GET", "PUT", "PATCH", "DELETE", "HEAD")
TIMEOUT, MAX_BYTES = 10.0, 65_536
_WITH_BODY = ("POST", "PUT", "PATCH")
_OWN_HEADERS = (
    *("host", "content-length", "transfer-encoding", "connection", "accept-encoding", "expect"),
    *("upgrade", "te", "trailer"),
)
_SHOWN = 500
"""Characters of an answer in an error."""
_DECODINGS = 8
_CHARSETS = (
    *("utf-8", "ascii", "us-ascii", "iso-8859-1", "latin-1", "latin1", "iso-8859-15"),
    *("windows-1252", "cp1252", "utf-16"),
)
"""Charsets that decode in linear time; others are read as UTF-8."""


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
        """Read the tool's object in an experiment file; a mistake is a `ConfigError`."""
        address, path, query = _read_url(tool, spec.get("url"))
        method = str(spec.get("method", METHODS[0])).upper()
        if method not in METHODS:
            known, near = f"methods: {', '.join(METHODS)}", nearest(method, METHODS)
            raise ConfigError(f"tool {tool.name!r}: no method {method!r}{near}; {known}")
        headers = _read_headers(tool, spec.get("headers", {}))
        limits = spec.get("timeout", TIMEOUT), spec.get("max_bytes", MAX_BYTES)
        return HttpTool(tool, method, address, path, query, headers, *limits)

    def check(self) -> None:
        """Raise if no call can succeed: a variable is missing or does not fit a header."""
        self._fill_headers()

    def __call__(self, /, **arguments: Json) -> Json:
        headers = self._fill_headers()
        secrets = [secret for _, text in self.headers for secret in text.secrets()]
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
        filled = {}
        for name, text in self.headers:
            where = f"tool {self.tool.name!r}, header {name!r}"
            filled[name] = text.fill(f"{where},")
            if not re.fullmatch(r"[\t\x20-\x7e\xa0-\xff]*", filled[name]):
                source = " or ".join(text.names) or "the text"
                wrong = "(a line break, or a character beyond Latin-1)"
                raise ConfigError(
                    f"{where}: the value of {source} cannot stand in a header {wrong}"
                )
        return filled

    def _request(self, arguments: Mapping[str, Json], headers: Mapping[str, str]) -> HttpRequest:
        """Return what to send. `ValueError` says what is wrong with an argument."""
        present = {name: value for name, value in arguments.items() if value is not None}
        values = {**defaults_of(self.tool), **present}
        texts = texts_of(values, (*self.path.names, *self.query.names))
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
            several = {k: v if isinstance(v, list | tuple) else [v] for k, v in rest.items()}
            each = [(k, v) for k, values in several.items() for v in values if v is not None]
            asked = [(key, texts_of({key: value}, [key])[key]) for key, value in each]
            pairs = urlencode(asked, quote_via=quote)
            query = "&".join(part for part in (query, pairs) if part)
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
        right = "which is filled from the environment in headers only; send the key in a header"
        raise ConfigError(f"{where} holds '${{...}}', {right}")
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


def _read_headers(tool: Tool, headers: Json) -> tuple[tuple[str, FromEnvironment], ...]:
    where = f"tool {tool.name!r}:"
    if not isinstance(headers, Mapping) or not all(isinstance(v, str) for v in headers.values()):
        raise ConfigError(f"{where} 'headers' must be an object of texts, got {headers!r:.80}")
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ConfigError(f"{where} {name!r} is not the name of a header")
        if name.lower() in _OWN_HEADERS:
            raise ConfigError(f"{where} the header {name!r} is set by the program; leave it out")
        for place in Template.of(re.sub(r"\$\{\w+\}", "", value)).names:
            if place in tool.properties:
                right = "arguments go into the path, the query or the body"
                raise ConfigError(f"{where} header {name!r} holds {{{place}}}; {right}")
    if len({name.lower() for name in headers}) < len(headers):
        wrong = f"a header is given twice, in different spelling; headers: {', '.join(headers)}"
        raise ConfigError(f"{where} {wrong}")
    return tuple((name, FromEnvironment(value)) for name, value in headers.items())


def _climbs(path: str) -> bool:
    """Whether a server that decodes the path, even repeatedly, could find `.` or `..` in it."""
    for _ in range(_DECODINGS):
        if any(step in (".", "..") for step in re.split(r"[/\\]", path)):
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
