"""`toolhone benchmark`: models and addresses on task sets, resumable."""

import csv
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cli.test_main import run
from toolhone.episodes import chat_policy
from toolhone.episodes.chat_policy import ChatPolicy
from toolhone.errors import ConfigError, ServiceError
from toolhone.evaluation.evaluate import evaluate
from toolhone.evaluation.leaderboard import Leaderboard, entry_of
from toolhone.evaluation.metrics import Evaluation, JudgedEpisode
from toolhone.schema import Expect, Task
from toolhone.tools.loading import load_tools
from toolhone.tools.registry import Registry

WEATHER = {
    "name": "weather",
    "description": "",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def task(name: str, expect: dict[str, Any], said: str = "Rome?") -> dict[str, Any]:
    messages = [{"role": "user", "content": said}]
    return {"id": name, "messages": messages, "tools": [WEATHER], "expect": expect}


TASKS = [
    task("a", {"calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}),
    task("b", {"no_call": True}, "hello"),
]


class Server(BaseHTTPRequestHandler):
    """Calls the weather for Rome, greets otherwise; the third request in a row fails once."""

    seen: ClassVar[list[dict[str, Any]]] = []
    failures: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Server.seen.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
        status = Server.failures.pop() if Server.failures else 200
        said: dict[str, Any] = {"role": "assistant", "content": "Hello."}
        if body["messages"][-1]["content"] == "Rome?":
            call = {"name": "weather", "arguments": '{"city": "Rome"}'}
            said = {"role": "assistant", "content": None}
            said["tool_calls"] = [{"id": "c1", "type": "function", "function": call}]
        choice = {"message": said, "finish_reason": "stop"}
        reply = json.dumps({"choices": [choice], "usage": {"completion_tokens": 7}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Server.seen, Server.failures = [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_behind_an_address_is_evaluated_like_any_other(address, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    policy = ChatPolicy.of(f"{address}#m")
    result = evaluate(policy, [Task.from_dict(one) for one in TASKS])
    assert result.metrics["exact_match"].value == 1.0
    assert policy.reply_tokens == 14
    sent = Server.seen[0]
    assert (sent["model"], sent["path"], sent["key"]) == (
        "m",
        "/v1/chat/completions",
        "Bearer secret",
    )
    assert sent["tools"][0]["function"]["name"] == "weather"
    assert sent["messages"] == [{"role": "user", "content": "Rome?"}] or "hello" in str(sent)


def test_results_of_tools_go_back_with_the_id_of_their_call(address):
    found = Task.from_dict(task("a", {"answer": "hello"}))
    tools = load_tools("weather", Path.cwd())
    found = Task(found.id, found.messages, tuple(tools), found.expect)
    result = evaluate(ChatPolicy.of(address), [found], Registry(tools))
    assert result.metrics["answer_quality"].value == 1.0
    asked = Server.seen[1]["messages"]
    assert [message["role"] for message in asked] == ["user", "assistant", "tool"]
    assert asked[1]["tool_calls"][0]["id"] == asked[2]["tool_call_id"] == "c1"


def test_a_failure_that_may_pass_is_tried_again_and_others_are_one_sentence(address, monkeypatch):
    monkeypatch.setattr(chat_policy, "PAUSE", 0.001)
    tasks = [Task.from_dict(TASKS[1])]
    Server.failures = [503, 429]
    assert evaluate(ChatPolicy.of(address), tasks).metrics["exact_match"].value == 1.0
    assert len(Server.seen) == 3
    Server.failures = [404]
    with pytest.raises(ServiceError, match="gives no reply: HTTP 404"):
        evaluate(ChatPolicy.of(address), tasks)
    with pytest.raises(ConfigError, match="is no address such as"):
        ChatPolicy.of("ftp://x")


def test_arguments_that_are_no_json_make_a_malformed_reply(address):
    policy = ChatPolicy.of(address)
    call = {"function": {"name": "weather", "arguments": "{city"}}
    body = json.dumps({"choices": [{"message": {"tool_calls": [call]}}]}).encode()
    turn = policy._read(body)
    assert (turn.problem.value, turn.message.tool_calls) == ("not_json", ())
    assert turn.text == "weather({city)"


def test_a_benchmark_is_resumed_and_writes_tables_of_every_sample(
    address, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name, rows in (("one", TASKS), ("two", TASKS[1:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("benchmark", f"{address}#m", "--tasks", "one.jsonl", "--out", "board", "--json")
    code, out, err = run(capsys, monkeypatch, *words)
    assert code == 0, err
    (entry,) = json.loads(out)["entries"]
    assert (entry["metric"], entry["score"]["value"], entry["correct"]) == ("exact_match", 1.0, 2)
    assert entry["peak_mb"] is None
    asked = len(Server.seen)
    code, out, err = run(capsys, monkeypatch, *words[:4], "two.jsonl", *words[4:])
    assert (code, len(json.loads(out)["entries"])) == (0, 2)
    assert "2 sets, 1 of them done before" in err
    assert len(Server.seen) == asked + 1
    summary = (tmp_path / "board" / "summary_results.csv").read_text()
    rows = list(csv.DictReader(summary.splitlines()))
    assert [(row["total_rows"], row["total_matches"]) for row in rows] == [("2", "2"), ("1", "1")]
    assert all((tmp_path / "board" / row["filename"]).is_file() for row in rows)


def test_wrong_use_of_benchmark_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.jsonl").write_text(json.dumps(TASKS[0]) + "\n")
    for words, sentence in (
        (("pico", "--tasks", "nowhere.jsonl"), "--tasks nowhere.jsonl: no such file"),
        (("pico", "pico", "--tasks", "t.jsonl"), "is named twice"),
        (("pico", "--tasks", "bfcl:paralel"), "there is no category 'paralel'"),
        (("http://", "--tasks", "t.jsonl"), "is no address such as"),
    ):
        code, out, err = run(capsys, monkeypatch, "benchmark", *words)
        assert (code, out) == (2, "")
        assert sentence in err.splitlines()[-1]


def test_models_are_ranked_by_their_mean_over_the_sets():
    def result(*scores: float) -> Evaluation:
        return Evaluation(
            tuple(
                JudgedEpisode(str(i), "c", 0, "", "", (), Expect(no_call=True), "answered",
                              {"exact_match": score, "bfcl_accuracy": 1 - score})
                for i, score in enumerate(scores)
            )
        )  # fmt: skip

    entries = [
        entry_of("low", "a", result(1, 1), 1.0, 5.0),
        entry_of("high", "a", result(1, 0, 0), 2.0, None),
    ]
    board = Leaderboard(entries)
    assert entries[0].metric == "bfcl_accuracy", "the official verdict goes first"
    assert board.models == ["high", "low"]
    assert (entries[1].speed, entries[1].correct) == (1.5, 2)
