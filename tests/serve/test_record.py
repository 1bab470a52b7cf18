"""`serve --record`: sessions by key or header become episodes with exact ids and a reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve.test_serve import WEATHER, Live, Script, scripted_model
from toolhone.api import Model
from toolhone.errors import RunError
from toolhone.rewards.reward_registry import Reward
from toolhone.serve.record import RecordingService, read_episodes
from toolhone.training.rollout import rows_of


class Recorder:
    """A recording server and what its clients send."""

    def __init__(self, model: Model, folder: Path, rewards: list[Reward]) -> None:
        self.live = Live(model, RecordingService(model, folder, rewards))

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        headers |= {"Content-Type": "application/json"}
        status, text = self.live.send("POST", path, json.dumps(body).encode(), **headers)
        return status, json.loads(text)

    def say(self, messages: list[Any], **headers: str) -> dict[str, Any]:
        body = {"messages": messages, "tools": [WEATHER], "model": "gpt-whatever"}
        status, reply = self.post("/v1/chat/completions", body, **headers)
        assert status == 200, reply
        message: dict[str, Any] = reply["choices"][0]["message"]
        messages.append(message)
        return message


def test_sessions_become_episodes_with_the_ids_that_were_sampled(tmp_path: Path) -> None:
    script, folder = Script(), tmp_path / "recorded"
    rewards = [Reward("turns", lambda _, episode: float(len(episode.turns)))]
    server = Recorder(scripted_model(script), folder, rewards)
    try:
        first: list[Any] = [{"role": "user", "content": "call"}]
        second: list[Any] = [{"role": "user", "content": "text"}]
        key = {"Authorization": "Bearer one"}
        call = server.say(first, **key)["tool_calls"][0]
        server.say(second, Authorization="Bearer one", **{"x-session-id": "two"})
        first.append({"role": "tool", "tool_call_id": call["id"], "content": "4 degrees"})
        server.say(first, **key)
        status, noted = server.post("/v1/sessions/one/reward", {"reward": {"right": 1}})
        assert (status, noted["turns"], noted["scores"]["turns"]) == (200, 2, 2.0)
        again = server.post("/v1/sessions/one/reward", {"reward": 1})
        late = server.post("/v1/chat/completions", {"messages": second[:1]}, **key)
        for status, reply in (again, late):
            assert (status, reply["error"]["code"]) == (400, "episode_ended")
        for wrong in ("good", float("nan"), 1e30):
            status, reply = server.post("/v1/sessions/two/reward", {"reward": wrong})
            assert status == 400
            sentence = f"a reward is a finite number, at most 1e+18, got {wrong!r}"
            assert sentence in reply["error"]["message"]
        status, reply = server.post("/v1/chat/completions", {"messages": second[:1]})
        assert "belongs to a session; send its name as the API key" in reply["error"]["message"]
    finally:
        server.live.close()
    one, two = read_episodes(folder)
    assert (one.task_id, one.ending.value, two.task_id) == ("one", "answered", "two")
    assert one.recording is not None
    assert one.recording.reward == {"right": 1}
    assert one.recording.breaks == {}
    assert [script.asked[0], script.asked[2]] == [list(turn.prompt) for turn in one.turns]
    rows = rows_of(one)  # this template rewrites history: a row for each turn
    whole = [[*turn.prompt, *turn.tokens] for turn in one.turns]
    assert [row.tokens.tolist() for row in rows] == whole
    for row in rows:
        assert np.count_nonzero(row.arrays["behavior_logprobs"]) == row.mask.sum()
    lines = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    assert lines[0]["scores"] == {"reward": 2.0, "turns": 2.0}
    notes = list[str]()
    with (folder / "episodes.jsonl").open("a") as file:
        file.write('{"id": "three", "mess')  # the server was killed
    assert [each.task_id for each in read_episodes(folder, notes.append)] == ["one", "two"]
    assert notes == [f"{folder}/episodes.jsonl, line 3: cut off, left out"]
    assert [one["role"] for one in lines[0]["messages"]] == [
        *("user", "assistant", "tool", "assistant")
    ]
    with pytest.raises(RunError, match="holds recorded sessions; name another folder"):
        RecordingService(scripted_model(script), folder)


def test_the_responses_form_answers_and_streams(tmp_path: Path) -> None:
    server = Recorder(scripted_model(Script()), tmp_path / "recorded", [])
    body = {"input": "both", "tools": [{"type": "function", **WEATHER["function"]}]}
    try:
        status, whole = server.post("/v1/responses", body, Authorization="Bearer a")
        assert status == 200
        assert [item["type"] for item in whole["output"]] == ["message", "function_call"]
        assert whole["output"][0]["content"][0]["text"].strip() == "Let me see."
        assert json.loads(whole["output"][1]["arguments"]) == {"city": "Oslo é"}
        headers = {"Content-Type": "application/json", "Authorization": "Bearer b"}
        text = json.dumps({**body, "stream": True}).encode()
        _, stream = server.live.send("POST", "/v1/responses", text, **headers)
        events = [json.loads(block.split("data: ")[1]) for block in stream.split("\n\n") if block]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        said = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
        assert said == whole["output"][0]["content"][0]["text"]
        kinds = [item["type"] for item in events[-1]["response"]["output"]]
        assert (events[-1]["type"], kinds[-1]) == ("response.completed", "function_call")
        for wrong, sentence in (
            ({"previous_response_id": "r"}, "send the whole input"),
            ({"tools": [{"type": "web_search"}]}, "must be of type 'function', got 'web_search'"),
            ({"input": [{"type": "item_reference"}]}, "got 'item_reference'"),
            ({"inptu": "x"}, "did you mean 'input'"),
        ):
            status, reply = server.post("/v1/responses", body | wrong, Authorization="Bearer c")
            assert status == 400
            assert sentence in reply["error"]["message"]
    finally:
        server.live.close()
