"""Tools that ask an address: what is sent, what comes back, and that limits, redirects and secrets
hold. All on the loopback.
"""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from toolhone.errors import ConfigError
from toolhone.schema import ToolCall
from toolhone.tools.loading import load_tools, make_registry
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus

ANY = {"type": "object", "properties": {}, "additionalProperties": True}
BIG = 100 * 1024 * 1024


class Server(http.server.ThreadingHTTPServer):
    """Counts what it was asked and how many bytes of a body it could send."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.sent = 0
        self.closing = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side has hung up, as it should."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        what = urlsplit(self.path).path.split("/")[1]
        getattr(self, f"_{what}", self._echo)()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _answer  # noqa: N815

    def _reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content_Type": "text/plain",
            "Content_Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _echo(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        split = urlsplit(self.path)
        said = {
            "method": self.command,
            "path": split.path,
            "query": parse_qsl(split.query),
            "headers": dict(self.headers),
        }
        self._reply(
            json.dumps({**said, "body": json.loads(body) if body else None}).encode(),
            Content_Type="application/json",
        )

    def _text(self) -> None:
        self._reply("grün".encode("latin-1"), Content_Type="text/plain; charset=iso-8859-1")

    def _nothing(self) -> None:
        self._reply(b"", 204)

    def _nan(self) -> None:
        self._reply(b"{" * 5000, Content_Type="application/json")

    def _missing(self) -> None:
        self._reply(b"no such\nuser " + b"x" * 5000, 404)

    def _gzip(self) -> None:
        self._reply(b"\x1f\x8b", Content_Encoding="gzip")

    def _short(self) -> None:
        self._reply(b"ten bytes.", Content_Length="100")

    def _secret(self) -> None:
        self._reply(
            b"x" * 90 + f"You sent {self.headers['Authorization']}".encode(),
            int(self.path.rpartition("/")[2]),
        )

    def _leak(self, status: int = 200) -> None:
        body = json.dumps(
            {self.headers["X-Key"]: ["sent", self.headers["X-Key"], quote(self.headers["X-Key"])]}
        )
        self._reply(body.encode(), status, Content_Type="application/json")

    def _wrong(self) -> None:
        self._leak(500)

    def _carry(self) -> None:
        self._reply(b"", 302, Location=f"http://other.invalid/{self.headers['X-Key']}")

    def _to(self) -> None:
        _, _, status, place = self.path.split("/", 3)
        self._reply(b"", int(status), Location=place.replace("PORT", str(self.server.server_port)))

    def _loop(self) -> None:
        self._reply(b"", 302, Location="/loop")

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        self._slowly()

    def _headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self._slowly()

    def _slowly(self) -> None:
        while not self.server.closing.wait(0.02):
            self.wfile.write(b"x")
            self.wfile.flush()

    def _big(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(BIG))
        self.end_headers()
        for _ in range(BIG // 65536):
            self.server.sent += self.wfile.write(b"y" * 65536)


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(shared: Server) -> Server:
    shared.asked.clear()
    shared.sent = 0
    return shared


def spec(server: Server, path: str, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{server.server_port}{path}"
    return {
        "name": "ask",
        "description": "Ask.",
        "type": "api",
        "url": url,
        "parameters": ANY,
        **more,
    }


def ask(
    server: Server, path: str, arguments: dict[str, Any] | None = None, **more: Any
) -> ToolResult:
    made = load_tools(spec(server, path, **more), Path(), ["ask"])
    return Registry(made).run(ToolCall("ask", arguments or {}))


def schema(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


# What is sent.


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "post"])
def test_methods_with_a_body_send_the_arguments_as_json(server, method):
    arguments = {"a": 1, "b": [1, {"c": 'é " & ?'}], "d": None}
    said = ask(server, "/echo", arguments, method=method).value
    assert (said["method"], said["body"], said["query"]) == (method.upper(), arguments, [])
    assert said["headers"]["Content-Type"] == "application/json"
    assert ask(server, "/echo", arguments).value["method"] == "POST"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_other_methods_send_a_query_with_lists_repeated_and_objects_as_json(server, method):
    arguments = {
        "q": "a&b=c #1+ é",
        "n": 2.5,
        "yes": True,
        "many": ["x", 1],
        "deep": {"k": [1]},
        "none": None,
    }
    said = ask(server, "/echo?fixed=1", arguments, method=method).value
    assert said["body"] is None
    expected = [
        ("fixed", "1"),
        ("q", "a&b=c #1+ é"),
        ("n", "2.5"),
        ("yes", "true"),
        ("many", "x"),
        ("many", "1"),
        ("deep", '{"k":[1]}'),
    ]
    assert [tuple(pair) for pair in said["query"]] == expected


def test_head_gives_the_status_because_there_is_no_body(server):
    assert ask(server, "/echo", method="HEAD").content == "HTTP 200 OK"


def test_places_in_the_address_are_quoted_and_not_sent_twice(server):
    parameters = schema(
        "user",
        user={"type": "string"},
        lang={"type": "string", "default": "en"},
        x={"type": "integer"},
    )
    said = ask(
        server,
        "/echo/{user}/posts?l={lang}",
        {"user": "a/b?c=#d &é%2e", "x": 1},
        parameters=parameters,
        method="GET",
    ).value
    assert said["path"] == "/echo/a%2Fb%3Fc%3D%23d%20%26%C3%A9%252e/posts"
    assert said["query"] == [["l", "en"], ["x", "1"]]
    said = ask(server, "/echo/{user}", {"user": "u", "x": 1}, parameters=parameters).value
    assert (said["path"], said["body"]) == ("/echo/u", {"x": 1})


@pytest.mark.parametrize(
    "value",
    ["..", ".", "../admin", "a/../../b", "..\\x", "%2e%2e", "%252e%252e%2f", "", "a\0b", "\ud800"],
)
def test_a_value_cannot_climb_out_of_its_place_in_the_path(server, value):
    result = ask(
        server,
        "/echo/{user}/x",
        {"user": value},
        parameters=schema("user", user={"type": "string"}),
        method="DELETE",
    )
    assert result.outcome is ToolStatus.INVALID_ARGUMENTS
    assert server.asked == []


def test_dots_of_two_values_do_not_join_to_a_step_of_the_path(server):
    parameters = schema("a", "b", a={"type": "string"}, b={"type": "string"})
    assert (
        ask(server, "/echo/{a}{b}/x", {"a": ".", "b": "."}, parameters=parameters).outcome
        is ToolStatus.INVALID_ARGUMENTS
    )
    assert (
        ask(server, "/echo/v{a}.{b}/x", {"a": "1", "b": "2"}, parameters=parameters).value["path"]
        == "/echo/v1.2/x"
    )
    assert server.asked == ["POST /echo/v1.2/x"]


def test_arguments_that_are_not_declared_are_refused_unless_the_schema_wants_them(server):
    parameters = schema(q={"type": "string"})
    result = ask(server, "/echo", {"q": "x", "is_admin": True}, parameters=parameters)
    assert (result.outcome, result.content) == (
        ToolStatus.INVALID_ARGUMENTS,
        "ask: unknown argument 'is_admin'; arguments: q",
    )
    assert server.asked == []


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 10**5000, "\ud800", {"a": "\ud800"}], ids=range(5)
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_values_that_cannot_be_sent_are_invalid_arguments(server, method, value):
    result = ask(server, "/echo", {"x": value}, method=method)
    assert (result.outcome, server.asked) == (ToolStatus.INVALID_ARGUMENTS, [])
    assert result.content.startswith("ask: x")


def test_a_line_break_in_an_argument_cannot_add_a_header_or_a_request(server):
    evil = "x HTTP/1.1\r\nHost: evil\r\n\r\nGET /other"
    parameters = schema("a", a={"type": "string"}, b={"type": "string"})
    said = ask(
        server, "/echo/{a}", {"a": evil, "b": evil}, parameters=parameters, method="GET"
    ).value
    assert said["query"] == [["b", evil]]
    assert len(server.asked) == 1


# What comes back.


def test_json_is_a_value_and_text_is_text_in_its_own_encoding(server):
    assert isinstance(ask(server, "/echo").value, dict)
    assert ask(server, "/text").value == "grün"
    assert ask(server, "/nothing").content == "HTTP 204 No Content"
    assert ask(server, "/nan").value == "{" * 5000


def test_a_status_that_is_no_success_is_an_error_with_the_beginning_of_the_body(server):
    result = ask(server, "/missing")
    assert (result.outcome, result.value) == (ToolStatus.ERROR, None)
    assert result.content.startswith("HTTP 404 Not Found: no such\nuser xxx")
    assert len(result.content) < 600


def test_an_answer_that_breaks_off_or_is_compressed_is_an_error(server):
    broken, packed = ask(server, "/short"), ask(server, "/gzip")
    assert (broken.outcome, packed.outcome) == (ToolStatus.ERROR, ToolStatus.ERROR)
    assert "peer closed connection without sending complete message body" in broken.content
    assert "compressed (gzip)" in packed.content


def test_a_place_where_nobody_answers_is_an_error():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = {"name": "ask", "type": "api", "url": f"http://127.0.0.1:{port}/"}
    result = Registry(load_tools(url, Path(), ["ask"])).run(ToolCall("ask"))
    assert (
        result.outcome,
        "the request to 127.0.0.1 failed: ConnectError: [Errno 111]" in result.content,
    ) == (ToolStatus.UNREACHABLE, True)


# Limits.


@pytest.mark.parametrize("path", ["/drip", "/headers"])
def test_a_slow_drip_meets_the_time_limit_although_every_byte_is_in_time(server, path):
    started = time.perf_counter()
    result = ask(server, path, timeout=0.3, max_bytes=10**8)
    assert (result.outcome, result.content) == (
        ToolStatus.TIMEOUT,
        "127.0.0.1 did not answer in full within 0.3 s",
    )
    assert time.perf_counter() - started < 60


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_place_that_accepts_and_says_nothing_meets_the_time_limit(scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = {
            "name": "ask",
            "type": "api",
            "url": f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/",
            "timeout": 0.2,
        }
        assert (
            Registry(load_tools(url, Path(), ["ask"])).run(ToolCall("ask")).outcome
            is ToolStatus.TIMEOUT
        )


def test_https_does_not_fall_back_to_plain_text(server):
    url = {"name": "ask", "type": "api", "url": f"https://127.0.0.1:{server.server_port}/echo"}
    result = Registry(load_tools(url, Path(), ["ask"])).run(ToolCall("ask"))
    seen = result.outcome, "SSL" in result.content, server.asked
    assert seen == (ToolStatus.UNREACHABLE, True, [])


def test_a_large_body_is_not_read_to_its_end(server):
    result = ask(server, "/big", max_bytes=1000)
    assert result.outcome is ToolStatus.ERROR
    assert result.content.startswith(
        "HTTP 200 OK, but the answer is larger than max_bytes=1000 allows; it begins: yyy"
    )
    assert server.sent < BIG // 4


def test_a_body_of_exactly_the_limit_is_whole(server):
    assert ask(server, "/text", max_bytes=4).value == "grün"
    assert ask(server, "/text", max_bytes=3).outcome is ToolStatus.ERROR


# Addresses.


def resolve_to(monkeypatch, *places: str) -> list[str]:
    """Let names lead to these addresses, one after the other; returns the names that were looked
    up.
    """
    original, names, left = socket.getaddrinfo, list[str](), list(places)

    def getaddrinfo(host, port, *rest, **more):
        if not isinstance(host, str) or host[0].isdigit() or ":" in host:
            return original(host, port, *rest, **more)
        names.append(host)
        return original(left.pop(0) if len(left) > 1 else left[0], port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


@pytest.mark.parametrize(
    "place", ["127.0.0.1", "::1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1"]
)
def test_a_public_name_that_leads_to_this_machine_or_its_link_is_refused(
    server, monkeypatch, place
):
    resolve_to(monkeypatch, place)
    url = {"name": "ask", "type": "api", "url": f"http://api.example.org:{server.server_port}/echo"}
    result = Registry(load_tools(url, Path(), ["ask"])).run(ToolCall("ask"))
    assert result.outcome is ToolStatus.ERROR
    assert f"api.example.org leads to {place}, an address of this machine" in result.content
    assert server.asked == []


@pytest.mark.parametrize("host", ["localhost", "my.localhost", "machine"])
def test_a_url_may_name_this_machine_itself(server, monkeypatch, host):
    resolve_to(monkeypatch, "127.0.0.1")
    url = {"name": "ask", "type": "api", "url": f"http://{host}:{server.server_port}/echo"}
    result = Registry(load_tools(url, Path(), ["ask"])).run(ToolCall("ask"))
    assert result.value["headers"]["Host"] == f"{host}:{server.server_port}"


def test_a_name_is_resolved_once_for_a_call_with_its_redirects(server, monkeypatch):
    names = resolve_to(monkeypatch, "127.0.0.1", "192.0.2.1")
    url = f"http://machine:{server.server_port}/to/307//echo/there"
    tools = load_tools({"name": "ask", "type": "api", "url": url}, Path(), ["ask"])
    assert Registry(tools).run(ToolCall("ask")).value["path"] == "/echo/there"
    assert (names, len(server.asked)) == (["machine"], 2)


def test_the_next_address_of_a_name_is_used_where_the_first_refuses(server, monkeypatch):
    found = socket.getaddrinfo("127.0.0.1", server.server_port, type=socket.SOCK_STREAM)
    refuses = [(*found[0][:4], ("127.0.0.2", server.server_port))]
    original = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: (
            [*refuses, *found] if host == "machine" else original(host, *rest, **more)
        ),
    )
    url = {"name": "ask", "type": "api", "url": f"http://machine:{server.server_port}/echo"}
    assert Registry(load_tools(url, Path(), ["ask"])).run(ToolCall("ask")).outcome is ToolStatus.OK


# Redirects.


@pytest.mark.parametrize(
    ("status", "method", "body"),
    [(302, "GET", None), (303, "GET", None), (307, "POST", {"a": 1}), (308, "POST", {"a": 1})],
)
def test_a_redirect_within_the_same_place_is_followed(server, status, method, body):
    said = ask(server, f"/to/{status}//echo/there?x=1", {"a": 1}).value
    assert (said["method"], said["body"], said["path"], said["query"]) == (
        method,
        body,
        "/echo/there",
        [["x", "1"]],
    )
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "place",
    ["http://localhost:PORT/echo", "https://127.0.0.1:PORT/echo", "http://127.0.0.1:1/echo",
     "//other.invalid/echo", "file:///etc/passwd",
     "http://127.0.0.1:PORT@other.invalid/", "http://[::1]:PORT/echo", "http://127.0.0.1:99999/",
     "ftp://127.0.0.1:PORT/"],
)  # fmt: skip
def test_a_redirect_to_another_place_is_refused(server, place):
    result = ask(server, f"/to/307/{place}")
    assert result.outcome is ToolStatus.ERROR
    assert "redirects to another place" in result.content
    assert len(server.asked) == 1


def test_endless_redirects_end(server):
    assert ask(server, "/loop").content == "127.0.0.1 redirects more than 5 times"
    assert len(server.asked) == 6


def test_no_proxy_of_the_environment_is_used(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask(server, "/echo").outcome is ToolStatus.OK


# Secrets.


def test_headers_are_filled_from_the_environment_when_called(server, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "tok-123456")
    headers = {"Authorization": "Bearer ${MY_TOKEN}", "X-Plain": "{x}", "accept": "text/plain"}
    (made,) = load_tools(spec(server, "/echo", headers=headers), Path(), ["ask"])
    monkeypatch.setenv("MY_TOKEN", "tok-654321")
    sent: dict[str, str] = {}
    original = Handler._echo
    monkeypatch.setattr(
        Handler, "_echo", lambda handler: (sent.update(handler.headers), original(handler))
    )
    Registry([made]).run(ToolCall("ask"))
    assert (sent["Authorization"], sent["X-Plain"], sent["accept"]) == (
        "Bearer tok-654321",
        "{x}",
        "text/plain",
    )
    assert "Accept" not in sent
    assert "tok-" not in repr(made) + repr(made.function)


@pytest.mark.parametrize(
    "path", ["/secret/200", "/secret/500", "/leak", "/wrong", "/echo", "/carry"]
)
def test_a_secret_that_the_service_repeats_is_in_no_result_and_no_log(
    server, monkeypatch, tmp_path, path
):
    monkeypatch.setenv("MY_TOKEN", 'to"k-12345678')
    headers = {"Authorization": "Bearer ${MY_TOKEN}", "X-Key": "${MY_TOKEN}"}
    log = tmp_path / "calls.jsonl"
    registry = make_registry([spec(server, path, headers=headers)], Path(), ["ask"], log=log)
    result = registry.run(ToolCall("ask", {"a": 1}))
    seen = json.dumps(result.value) + result.content + log.read_text()
    assert "[hidden]" in seen
    assert "k-12345678" not in seen


@pytest.mark.parametrize("size", range(100, 124))
def test_a_secret_at_the_place_where_a_body_is_cut_is_hidden_too(server, monkeypatch, size):
    monkeypatch.setenv("MY_TOKEN", "tok-12345678")
    content = ask(
        server, "/secret/200", headers={"Authorization": "${MY_TOKEN}"}, max_bytes=size
    ).content
    assert "tok-" not in content


@pytest.mark.parametrize("value", ["line\nbreak-of-secret", "snow\N{SNOWMAN}-of-secret"])
def test_a_value_that_cannot_stand_in_a_header_is_refused_without_being_told(
    server, monkeypatch, value
):
    monkeypatch.setenv("MY_TOKEN", value)
    with pytest.raises(
        ConfigError, match="header 'X': the value of MY_TOKEN cannot stand in a header"
    ) as caught:
        load_tools(spec(server, "/echo", headers={"X": "${MY_TOKEN}"}), Path(), ["ask"])
    assert "secret" not in str(caught.value)


# Permission and mistakes.


def test_a_tool_that_is_not_allowed_is_shown_but_never_asks(server):
    made = load_tools(
        spec(server, "/echo", headers={"X": "${NOT_SET_ANYWHERE}"}), Path(), ["other"]
    )
    result = Registry(made).run(ToolCall("ask", {}))
    assert (result.outcome, server.asked) == (ToolStatus.REFUSED, [])
    assert (
        result.content == "tool 'ask' asks an address and is not allowed; allow it by name: "
        'allowed_tools=["ask"]'
    )
    assert made[0].to_dict()["function"]["name"] == "ask"
    assert Registry(made).runnable == frozenset()
    assert made[0].function is not None
    with pytest.raises(Exception, match="is not allowed"):
        made[0].function()


ONE = schema("x", x={"type": "string"}, y={"type": "string"})


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"url": "http://{x}/a"}, "the model may not choose the host"),
        ({"url": "{x}://h/a"}, "must be http:// or https:// with a host"),
        ({"url": "http://{x}.example.org/"}, "the model may not choose the host"),
        ({"url": "http://example.org:{x}/"}, "the model may not choose the host"),
        ({"url": "http://{x}@example.org/"}, "the model may not choose the host"),
        ({"url": "http://me:pw@example.org/"}, "holds a user or password"),
        ({"url": "file:///etc/passwd"}, "must be http:// or https://"),
        ({"url": "http:///a"}, "is not a host"),
        ({"url": "http://example.org:0/"}, "is not a host"),
        ({"url": "http://a\\b/"}, "is not a host"),
        ({"url": "http://example.org/#{x}"}, "without '#'"),
        ({"url": "http://example.org/a b"}, "without spaces"),
        ({"url": "http://example.org/a/../{x}"}, "without '.' and '..'"),
        ({"url": "http://example.org/?k=${KEY}"}, "in headers only"),
        ({"url": "http://example.org/{z}"},
         "a place {z}, but no parameter is named so; parameters: x, y; the text"),
        ({"url": "http://example.org/{y}"},
         "a call may leave 'y' out; put it under 'required', or give it a 'default'"),
        ({"url": None}, "url must be an address"),
        ({"method": "FETCH"}, "no method 'FETCH'"),
        ({"method": "PATC"}, "no method 'PATC' (did you mean 'PATCH'?)"),
        ({"headers": {"Host": "evil"}}, "'Host' is set by the program"),
        ({"headers": {"A B": "x"}}, "'A B' is not the name of a header"),
        ({"headers": {"X": "a\nb"}}, "header 'X': the value of the text cannot stand in a header"),
        ({"headers": {"X": "{x}"}}, "header 'X' holds {x}; arguments go into the path"),
        ({"headers": {"X": "1", "x": "2"}}, "a header is given twice"),
        ({"headers": {"X": "${TOOLHONE_NOT_SET}"}},
         "header 'X', needs the environment variable TOOLHONE_NOT_SET"),
        ({"headers": ["X"]}, "'headers' must be an object of texts"),
        ({"timeout": 0}, "'timeout' must be a number above 0, got 0"),
        ({"timeout": float("nan")}, "'timeout' must be a number above 0"),
        ({"max_bytes": 1.5}, "'max_bytes' must be a whole number above 0"),
        ({"header": {}}, "unknown key 'header' (did you mean 'headers'?)"),
        ({"type": "rest"}, "no type 'rest'"),
        ({"limits": {"timeout": 3}}, "is limited by 'timeout', not by limits.timeout"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(more, text):
    with pytest.raises(ConfigError) as caught:
        load_tools(
            {"name": "ask", "type": "api", "url": "http://example.org/", "parameters": ONE, **more},
            Path(),
            ["ask"],
        )
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
