"""The server over HTTP: OpenAI's forms, nothing lost, batches, text never a control token. The
model is a script or pico.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from support.dialect_models import THINKING, small_tokenizer
from support.scripted import ScriptedStream
from toolhone.agents.gateway import address_of, check_installed, listen, open_app
from toolhone.agents.openai import read_request
from toolhone.api import Model
from toolhone.api import open_model as open_any
from toolhone.backends.base import Sample, SamplingParams, StopReason
from toolhone.cli.main import app as command
from toolhone.config.experiment import experiment_of
from toolhone.dialects.choose import FormatRequest
from toolhone.dialects.probe.certificate import open_certified
from toolhone.errors import CapabilityError, RunError, UserError
from toolhone.serve.app import ModelService
from toolhone.serve.worker import Worker
from toolhone.tools.registry import Registry

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CALL = '<tool_call>{"name":"weather","arguments":{"city":"Oslo \\u00e9"}}</tool_call>'
TWO = CALL + '\n<tool_call>{"name":"weather","arguments":{"city":"Rome"}}</tool_call>'
REPLIES = {
    "call": CALL,
    "two": TWO,
    "text": "It rains  in\nOslo.",
    "both": "Let me see.\n" + CALL,
    "think": "<think>\nHm, well.\n</think>\n\nIt rains.",
    "broken": 'Let me: <tool_call>{"name":"weather","argum</tool_call> there',
    "wrong": '<tool_call>{"name":"weather","arguments":{"city":3}}</tool_call>',
    "unknown": '<tool_call>{"name":"climate","arguments":{}}</tool_call>',
    "long": "word " * 60,
    "spaced": "\n  It  rains. \n",
}
TOKENIZER = small_tokenizer(THINKING)


class Script:
    """Says what the last word of the prompt's last user turn names. `asked` notes prompts,
    `batches` how many came at once.
    """

    max_context = 4000

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.params: list[SamplingParams] = []
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def sample(
        self, prompts: Sequence[Any], params: SamplingParams, keys: Sequence[int] | None = None
    ) -> list[list[Sample]]:
        self.batches.append(len(prompts))
        assert self.gate.wait(60)
        return [
            [self._one(list(prompt), params, key)]
            for prompt, key in zip(prompts, keys or (), strict=True)
        ]

    def _one(self, prompt: list[int], params: SamplingParams, key: int) -> Sample:
        self.asked.append(prompt)
        self.params.append(params)
        text = TOKENIZER.decode(prompt).rsplit("<|im_start|>user\n", 1)[1].split("<|im_end|>")[0]
        word = text.split()[-1] if text.split() else ""
        if word == "fail":
            raise RuntimeError("a bug")
        said = f"{params.seed} {key}" if word == "seed" else REPLIES.get(word, "Hello.")
        ids = [*TOKENIZER.encode(said, control=True), *TOKENIZER.stop_ids(["<|im_end|>"])]
        cut = ids[: params.max_tokens]
        return Sample(
            cut, [-0.5] * len(cut), StopReason.STOP if len(cut) == len(ids) else StopReason.LENGTH
        )

    def stream(self) -> ScriptedStream:
        return ScriptedStream(self)

    def logprobs(self, rows: Any, temperature: float = 1.0) -> Any:
        raise NotImplementedError


class Live:
    """A server on a free port of this machine, for as long as a test takes."""

    def __init__(self, model: Model, service: ModelService | None = None) -> None:
        self.sock = listen("127.0.0.1", 0)
        self.url, self.port = address_of(self.sock), self.sock.getsockname()[1]
        self.app = open_app(service or ModelService(model))
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_level="error", lifespan="on"))
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.sock]}, daemon=True
        )
        self.thread.start()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(60)
        self.sock.close()

    def send(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ask(self, body: Any) -> tuple[int, dict[str, Any]]:
        status, text = self.send(
            "POST",
            "/v1/chat/completions",
            json.dumps(body).encode(),
            **{"Content-Type": "application/json"},
        )
        return status, json.loads(text)

    def say(self, word: str, **more: Any) -> dict[str, Any]:
        """The reply to one message, a good one."""
        tools = more.pop("tools", [WEATHER])
        status, reply = self.ask(
            {"messages": [{"role": "user", "content": word}], "tools": tools, **more}
        )
        assert status == 200, reply
        return reply

    def streamed(self, word: str, **more: Any) -> list[dict[str, Any]]:
        body = {
            "messages": [{"role": "user", "content": word}],
            "tools": [WEATHER],
            "stream": True,
            **more,
        }
        headers = {"Content-Type": "application/json"}
        status, text = self.send(
            "POST", "/v1/chat/completions", json.dumps(body).encode(), **headers
        )
        events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        assert status == 200
        assert events[-1] == "[DONE]"
        return [json.loads(event) for event in events[:-1]]


def scripted_model(script: Script, **evaluation: Any) -> Model:
    dialect, certificate = open_certified(TOKENIZER, FormatRequest())
    plan = experiment_of({"evaluation": {"max_new_tokens": 200, **evaluation}}, "the test")
    return Model("runs/mine", script, TOKENIZER, dialect, Registry([]), plan, 4000, certificate)


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def live(script: Script) -> Iterator[Live]:
    server = Live(scripted_model(script))
    yield server
    server.close()


def joined(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The message that the pieces of a stream make, put together as clients do."""
    message: dict[str, Any] = {"content": None}
    for event in events:
        for choice in event["choices"]:
            delta = choice["delta"]
            for key in ("content", "reasoning_content"):
                if delta.get(key) is not None:
                    message[key] = (message.get(key) or "") + delta[key]
            for call in delta.get("tool_calls", []):
                calls = message.setdefault("tool_calls", [])
                if call["index"] == len(calls):
                    calls.append(
                        {"id": call["id"], "type": call["type"], "function": dict(call["function"])}
                    )
                else:
                    calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
            message |= {key: delta[key] for key in ("role", "toolhone") if key in delta}
    return message


# ------------------------------------------------------------------------------------------------
# replies


def test_a_call_comes_back_in_openai_s_form_with_an_id_and_counted_tokens(
    live: Live, script: Script
) -> None:
    reply = live.say("call")
    choice = reply["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "runs/mine"
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Oslo é"}
    prompt, said = len(script.asked[-1]), len(TOKENIZER.encode(CALL, control=True)) + 1
    assert reply["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
    }


def test_parallel_calls_have_different_ids_and_text_beside_calls_is_kept(live: Live) -> None:
    calls = live.say("two")["choices"][0]["message"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"])["city"] for call in calls] == [
        "Oslo é",
        "Rome",
    ]
    assert len({call["id"] for call in calls}) == 2
    both = live.say("both")["choices"][0]["message"]
    assert both["content"].strip() == "Let me see."
    assert len(both["tool_calls"]) == 1


def test_thoughts_have_their_own_field_and_text_ends_with_stop(live: Live) -> None:
    choice = live.say("think")["choices"][0]
    assert choice["message"]["reasoning_content"].strip() == "Hm, well."
    assert choice["message"]["content"].strip() == "It rains."
    assert choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]


def test_a_malformed_call_comes_back_whole_as_text_with_its_problem(live: Live) -> None:
    choice = live.say("broken")["choices"][0]
    assert choice["message"]["content"] == REPLIES["broken"]
    assert choice["message"]["toolhone"]["problem"] == "not_json"
    assert choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]


def test_calls_that_do_not_fit_their_tool_are_given_with_a_sentence(live: Live) -> None:
    wrong, unknown = (
        live.say("wrong")["choices"][0]["message"],
        live.say("unknown")["choices"][0]["message"],
    )
    assert wrong["toolhone"]["calls"] == ["weather: city: 3 is not of type 'string'"]
    assert unknown["toolhone"]["calls"] == ["climate: no tool of this name was on offer"]
    assert len(wrong["tool_calls"]) == len(unknown["tool_calls"]) == 1


def test_with_tool_choice_none_no_tool_is_shown_and_a_call_is_text(
    live: Live, script: Script
) -> None:
    choice = live.say("call", tool_choice="none")["choices"][0]
    assert "weather: The weather." not in TOKENIZER.decode(script.asked[-1])
    assert choice["message"]["content"] == CALL
    assert choice["message"]["toolhone"] == {"problem": "not_on_offer"}
    assert choice["finish_reason"] == "stop"


def test_a_reply_at_its_limit_ends_with_length(live: Live) -> None:
    for key in ("max_tokens", "max_completion_tokens"):
        reply = live.say("long", **{key: 7})
        assert reply["choices"][0]["finish_reason"] == "length"
        assert reply["usage"]["completion_tokens"] == 7


@pytest.mark.parametrize("word", sorted(REPLIES))
def test_the_pieces_of_a_stream_make_the_reply_that_comes_whole(live: Live, word: str) -> None:
    whole = live.say(word)
    events = live.streamed(word, stream_options={"include_usage": True})
    message, expected = joined(events), whole["choices"][0]["message"]
    for calls in (message.get("tool_calls", []), expected.get("tool_calls", [])):
        for call in calls:
            assert call.pop("id").startswith("call_")
    assert message == expected
    assert [c["finish_reason"] for e in events for c in e["choices"]][-1] == whole["choices"][0][
        "finish_reason"
    ]
    assert events[-1]["usage"] == whole["usage"]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1


def test_a_stream_has_no_token_counts_unless_asked(live: Live) -> None:
    assert all("usage" not in event for event in live.streamed("text"))


def test_a_whole_exchange_with_results_is_shown_to_the_model(live: Live, script: Script) -> None:
    call = live.say("call")["choices"][0]["message"]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "call"},
        call,
        {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "rain 7 degrees"},
        {"role": "user", "content": "and now text"},
    ]
    status, reply = live.ask({"messages": messages, "tools": [WEATHER]})
    shown = TOKENIZER.decode(script.asked[-1])
    assert status == 200
    assert reply["choices"][0]["message"]["content"] == REPLIES["text"]
    assert "<tool_response>rain 7 degrees</tool_response>" in shown
    assert "Be brief." in shown
    assert '"city":"Oslo' in shown


def test_text_of_messages_and_tools_never_becomes_a_control_token(
    live: Live, script: Script
) -> None:
    marks = {
        index: text
        for text in TOKENIZER.control_texts
        if (index := TOKENIZER.control_id(text)) is not None
    }

    def control(text: str) -> list[int]:
        tool = {**WEATHER, "function": {**WEATHER["function"], "description": f"d {text}"}}
        live.say(f"{text} text", tools=[tool])
        return [token for token in script.asked[-1] if token in marks]

    plain = control("harmless")
    for text in marks.values():
        assert control(text) == plain, text
        assert TOKENIZER.decode(script.asked[-1]).count(text) > [
            marks[index] for index in plain
        ].count(text)


# ------------------------------------------------------------------------------------------------
# sampling


def test_sampling_settings_come_from_the_request_and_otherwise_from_the_run(
    live: Live, script: Script
) -> None:
    live.say("text", temperature=0.7, top_p=0.9, seed=5, max_tokens=11)
    asked = script.params[-1]
    assert (asked.temperature, asked.top_p, asked.seed, asked.max_tokens) == (0.7, 0.9, 5, 11)
    live.say("text")
    assert (script.params[-1].temperature, script.params[-1].max_tokens) == (0.0, 200)


def test_the_same_seed_gives_the_same_reply_and_no_seed_gives_another(live: Live) -> None:
    def said(**more: Any) -> str:
        return str(live.say("seed", temperature=1.0, **more)["choices"][0]["message"]["content"])

    assert said(seed=9) == said(seed=9) == "9 0"
    assert said(seed=8) == "8 0"
    assert said() != said()


def test_requests_that_wait_are_answered_in_one_batch_and_each_gets_its_own() -> None:
    server = Live(scripted_model(mine := Script()))
    try:
        mine.gate.clear()
        with ThreadPoolExecutor(9) as pool:
            first = pool.submit(server.say, "text")
            while not mine.batches:
                time.sleep(0.01)
            words = ["call", "two", "text", "think"] * 2
            rest = [pool.submit(server.say, word) for word in words]
            worker = server.app.state.answerer.worker
            while worker._waiting.qsize() < len(words):
                time.sleep(0.01)
            mine.gate.set()
            assert first.result()["choices"][0]["message"]["content"] == REPLIES["text"]
            replies = [one.result()["choices"][0]["message"] for one in rest]
        assert mine.batches == [1, 8]
        assert [len(reply.get("tool_calls", [])) for reply in replies] == [1, 2, 0, 0] * 2
    finally:
        server.close()


def test_requests_with_one_seed_are_not_in_one_batch_and_other_settings_make_another() -> None:
    worker = Worker(scripted_model(mine := Script()))
    mine.gate.clear()
    body = {"messages": [{"role": "user", "content": "seed"}]}
    more = (
        {},
        {"temperature": 1, "seed": 3},
        {"temperature": 1, "seed": 3},
        {"temperature": 1},
        {"temperature": 1},
        {},
    )
    futures = [worker.submit(read_request({**body, "max_tokens": 5}, worker.defaults))]
    while not mine.batches:
        time.sleep(0.01)
    futures += [worker.submit(read_request({**body, **one}, worker.defaults)) for one in more]
    mine.gate.set()
    turns = [future.result(10) for future in futures]
    worker.close()
    assert turns[2].text == turns[3].text == "3 0"
    assert turns[4].text != turns[5].text
    assert mine.batches == [1, 2, 1, 1, 2]


def noted_requests(worker) -> list[Future]:
    """The futures of all requests from now on."""
    submit, asked = worker.submit, []

    def noted(*request):
        asked.append(submit(*request))
        return asked[-1]

    worker.submit = noted
    return asked


def test_a_request_whose_client_has_gone_is_not_sampled() -> None:
    server = Live(scripted_model(mine := Script()))
    try:
        mine.gate.clear()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(server.say, "text")
            while not mine.batches:
                time.sleep(0.01)
            asked = noted_requests(server.app.state.answerer.worker)
            leaving = HTTPConnection("127.0.0.1", server.port, timeout=60)
            leaving.request(
                "POST",
                "/v1/chat/completions",
                json.dumps(GOOD),
                {"Content-Type": "application/json"},
            )
            while not asked:
                time.sleep(0.01)
            leaving.close()
            while not asked[0].cancelled():
                time.sleep(0.01)
            mine.gate.set()
            assert first.result()
        assert server.say("text")
        assert mine.batches == [1, 1]
    finally:
        server.close()


def test_a_bug_in_one_batch_is_told_to_its_client_and_the_server_goes_on(
    live: Live, capfd: pytest.CaptureFixture[str]
) -> None:
    status, reply = live.ask({"messages": [{"role": "user", "content": "fail"}]})
    assert (status, reply["error"]["type"]) == (500, "server_error")
    assert "RuntimeError: a bug" in capfd.readouterr().err
    assert live.say("text")["choices"][0]["message"]["content"] == REPLIES["text"]


# ------------------------------------------------------------------------------------------------
# bad requests

GOOD: dict[str, Any] = {"messages": [{"role": "user", "content": "text"}]}


def answered(*ids: str) -> list[dict[str, Any]]:
    """Two calls, `a` and `b`, and results with these ids."""
    call = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    calls = [{"id": name, "type": "function", "function": call} for name in ("a", "b")]
    return [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": name, "content": "rain"} for name in ids),
    ]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"stop": ["x"]}, "stop"),
    ({"stop": "x"}, "a turn ends where the model's format ends it"),
    ({"n": 2}, "n=2 is not supported"),
    ({"logprobs": True}, "logprobs"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"parallel_tool_calls": False}, "parallel_tool_calls"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"tool_choice": "required"}, "tool_choice is 'auto' or 'none'"),
    ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, "tool_choice"),
    ({"temprature": 1}, "did you mean 'temperature'"),
    ({"temperature": "hot"}, "temperature must be a number"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**12}, "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "one setting"),
    ({"max_tokens": True}, "max_tokens"),
    ({"seed": 1.5}, "seed"),
    ({"stream": "yes"}, "stream must be true or false"),
    ({"messages": []}, "'messages'"),
    ({"messages": [{"role": "usr", "content": "x"}]}, r"messages\[0\].*did you mean 'user'"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content"),
    (
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        "nothing to answer",
    ),
    ({"messages": [{"role": "user", "content": "half \ud800"}]}, "surrogate"),
    (
        {
            "messages": [
                {"role": "assistant", "function_call": {"name": "f"}},
                {"role": "user", "content": "x"},
            ]
        },
        "tool_calls",
    ),
    ({"tools": {"name": "x"}}, "'tools' must be a list"),
    ({"tools": [{"type": "web_search"}]}, r"tools\[0\]"),
    ({"tools": [WEATHER, WEATHER]}, "second tool 'weather'"),
    (
        {
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"type": "strange"}}}
            ]
        },
        "not a JSON Schema",
    ),
    ({"functions": [{"name": "f"}]}, "use tools"),
    ({"model": 3}, "model must be a name"),
    ({"messages": [{"role": "user", "content": "word " * 5000}]}, "context holds 4000"),
    ({"messages": answered("a")}, "call of 'weather' has no result, though others have"),
    ({"messages": answered("b")}, "call of 'weather' has no result, though others have"),
    ({"messages": answered("a", "c")}, "call of 'weather' has no result, though others have"),
    ({"messages": answered("a", "b", "b")}, "one is missing, doubled or of another call"),
]


@pytest.mark.parametrize(
    ("change", "sentence"),
    BAD,
    ids=[f"{n}-{next(iter(change))}" for n, (change, _) in enumerate(BAD)],
)
def test_a_bad_request_is_one_sentence_in_openai_s_error_form(
    live: Live, change: dict[str, Any], sentence: str
) -> None:
    import re

    status, reply = live.ask({**GOOD, **change})
    assert status == 400
    assert reply["error"]["type"] == "invalid_request_error"
    assert re.search(sentence, reply["error"]["message"]), reply
    assert "\n" not in reply["error"]["message"]


def test_settings_that_change_nothing_are_taken_and_null_is_as_good_as_absent(live: Live) -> None:
    harmless = {
        "n": 1,
        "stop": None,
        "logprobs": False,
        "user": "me",
        "metadata": {},
        "frequency_penalty": 0.0,
        "seed": None,
    }
    assert live.say(
        "text",
        **harmless,
        response_format={"type": "text"},
        parallel_tool_calls=True,
        model="runs/mine",
    )


def test_what_is_no_request_is_refused_in_the_same_form(live: Live) -> None:
    path, kind = "/v1/chat/completions", {"Content-Type": "application/json"}
    tries: list[tuple[tuple[int, str], int, str]] = [
        (live.send("POST", path, b"{", **kind), 400, "not JSON"),
        (live.send("POST", path, b"[" * 100_000, **kind), 400, "not JSON"),
        (live.send("POST", path, b"[]", **kind), 400, "must be a JSON object"),
        (
            live.send("POST", path, json.dumps(GOOD).encode(), **{"Content-Type": "text/plain"}),
            400,
            "application/json",
        ),
        (live.send("POST", path, b" " * (17 * 2**20), **kind), 400, "MiB"),
        (live.send("GET", path), 405, "Method Not Allowed"),
        (live.send("GET", "/v2"), 404, "there are GET /v1/models"),
        (live.send("GET", "/v1/models/other"), 404, "there is no model 'other' here"),
    ]
    for (status, text), wanted, sentence in tries:
        assert status == wanted, text
        assert sentence in json.loads(text)["error"]["message"]
    status, reply = live.ask({**GOOD, "model": "gpt-4"})
    assert (status, reply["error"]["code"]) == (404, "model_not_found")


def test_a_page_under_another_name_cannot_talk_to_a_server_on_loopback(live: Live) -> None:
    assert live.send("GET", "/health", Host="evil.example")[0] == 400
    assert live.send("GET", "/health", Host="localhost:9")[0] == 200


def test_health_and_models_say_what_is_served_in_which_format(live: Live) -> None:
    assert json.loads(live.send("GET", "/health")[1]) == {"status": "ok", "model": "runs/mine"}
    (model,) = json.loads(live.send("GET", "/v1/models")[1])["data"]
    assert model["id"] == "runs/mine"
    assert model["toolhone"]["dialect"] == "native"
    assert set(model["toolhone"]["hashes"]) == {"template", "tokenizer", "dialect"}
    assert json.loads(live.send("GET", "/v1/models/runs/mine")[1]) == model


# ------------------------------------------------------------------------------------------------
# clients and the verb


def test_the_openai_client_talks_to_a_live_server(live: Live) -> None:
    if importlib.util.find_spec("openai") is None:
        pytest.skip("the openai package is not installed")
    import openai

    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["runs/mine"]
        messages: list[Any] = [{"role": "user", "content": "two"}]
        reply = client.chat.completions.create(
            model="runs/mine", messages=messages, tools=[WEATHER], seed=1
        )
        calls = reply.choices[0].message.tool_calls or []
        assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Oslo é", "Rome"]
        messages += [
            reply.choices[0].message,
            *({"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in calls),
        ]
        messages.append({"role": "user", "content": "so, text"})
        again = client.chat.completions.create(
            model="runs/mine", messages=messages, tools=[WEATHER]
        )
        assert again.choices[0].message.content == REPLIES["text"]
        pieces = client.chat.completions.create(
            model="runs/mine",
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
        )
        found = list(pieces)
        assert (
            "".join(piece.choices[0].delta.content or "" for piece in found if piece.choices)
            == REPLIES["text"]
        )
        assert found[-1].usage is not None
        with pytest.raises(openai.BadRequestError, match="n=2 is not supported"):
            client.chat.completions.create(model="runs/mine", messages=messages, n=2)
        with pytest.raises(openai.NotFoundError, match="there is no model"):
            client.chat.completions.create(model="gpt", messages=messages)


def test_constrained_replies_of_an_untrained_model_never_break_a_call() -> None:
    pytest.importorskip("llguidance")
    server = Live(
        open_any("pico", overrides=["evaluation.constrained=true", "evaluation.max_new_tokens=60"])
    )
    try:
        for seed in range(3):
            message = server.say("weather in Oslo?", temperature=1.0, seed=seed)["choices"][0][
                "message"
            ]
            assert set(message.get("toolhone", {})) <= {"problem"}
            assert message.get("toolhone", {}).get("problem", "unclosed") == "unclosed"
        strange = {
            "type": "function",
            "function": {
                "name": "f",
                "parameters": {"type": "object", "properties": {"a": {"not": {}}}},
            },
        }
        status, reply = server.ask({**GOOD, "tools": [strange]})
        assert (status, "\n" in reply["error"]["message"]) == (400, False)
    finally:
        server.close()


def test_a_real_model_gives_the_same_ids_over_http_as_in_the_program() -> None:
    from toolhone.schema import Message, Tool

    model = open_any("pico", overrides=["evaluation.max_new_tokens=20"])
    policy = model.policy()
    messages = [Message("user", "What is 2 + 2?")]
    here = policy.complete(policy.open(messages, [Tool.of(WEATHER)]))
    server = Live(model)
    try:
        there = server.say("What is 2 + 2?")
        assert there["usage"]["prompt_tokens"] == len(here.prompt)
        assert there["usage"]["completion_tokens"] == len(here.tokens)
        assert there["choices"][0]["message"]["content"] in (here.text, here.message.content)
    finally:
        server.close()


def test_without_the_libraries_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "toolhone.agents.gateway.find_spec", lambda name: None if name == "uvicorn" else object()
    )
    with pytest.raises(CapabilityError, match=r"needs uvicorn.*pip install .*'uvicorn>=0\.40'"):
        check_installed()
    result = CliRunner().invoke(command, ["serve", "pico"])
    assert isinstance(result.exception, UserError)


def test_an_address_that_is_taken_is_a_sentence() -> None:
    with (
        listen("127.0.0.1", 0) as taken,
        pytest.raises(RunError, match=r"cannot listen on 127\.0\.0\.1 port"),
    ):
        listen("127.0.0.1", taken.getsockname()[1])


def test_the_verb_serves_until_it_is_interrupted_and_ends_without_a_traceback(
    tmp_path: Path,
) -> None:
    words = [
        sys.executable,
        "-m",
        "toolhone.cli.main",
        "serve",
        "pico",
        "--port",
        "0",
        "--max-new-tokens",
        "5",
    ]
    running = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=dict(os.environ)
    )
    assert running.stderr is not None
    try:
        line = next(line for line in running.stderr if " at http://" in line)
        host = line.split("http://")[1].split("/")[0]
        connection = HTTPConnection(host, timeout=60)
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}]})
        connection.request(
            "POST", "/v1/chat/completions", body, {"Content-Type": "application/json"}
        )
        assert json.loads(connection.getresponse().read())["usage"]["completion_tokens"] <= 5
        connection.close()
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
        assert running.wait(60) == 130
    finally:
        running.kill()
        running.stderr.close()
    assert "Traceback" not in rest
    assert "certified" in line


def test_help_has_an_example() -> None:
    assert "Examples: toolhone serve" in CliRunner().invoke(command, ["serve", "--help"]).stdout
