"""Recorded sessions: the same episode as played in process, prefix breaks by name, and endings."""

from __future__ import annotations

from typing import Any

import pytest

from support.scripted import last_user, scripted_policy, task
from toolhone.agents.openai import answer_of, read_request
from toolhone.agents.responses import read_responses_request, response_of
from toolhone.agents.sessions import AgentSession, SessionEndedError
from toolhone.episodes.driver import run_episodes, sample_key
from toolhone.episodes.episode import Episode, EpisodeRules, EpisodeStatus, OnFault, TurnOutcome
from toolhone.schema import Task, Tool
from toolhone.tools.registry import Registry
from toolhone.training.rollout import rows_of

NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
ADD = Tool("add", "", NUMBERS, lambda a, b: str(a + b))
CALL = '[TOOL_CALL]{"name": "add", "parameters": {"a": 2, "b": 3}}[/TOOL_CALL]'
BROKEN = '[TOOL_CALL]{"name": "add", "param[/TOOL_CALL]'
TASK: Task = task("t", "2+3?", (ADD,), {"answer": "5"})
GOES_ON = {TurnOutcome.MALFORMED: OnFault.FEED_BACK}
AGAIN = EpisodeRules(then=GOES_ON)
QUESTION = [{"role": "user", "content": "2+3?"}]


def says(prompt: str) -> str:
    """A broken call, then a good one, then the answer; a greeting to anything else."""
    said = last_user(prompt)
    if "TOOL_RESULT" in said:
        return "It is 5."
    if "2+3" in said:
        return BROKEN
    return CALL if "Write it again" in said else "Hello."


class Client:
    """What an agent does: it sends messages as JSON and appends the replies."""

    def __init__(self, rules: EpisodeRules = AGAIN, **policy: Any) -> None:
        self.session = AgentSession(scripted_policy(policy.pop("script", says), **policy), rules)
        self.messages: list[dict[str, Any]] = list(QUESTION)

    def ask(self, *more: dict[str, Any], tools: tuple[Tool, ...] = (ADD,)) -> dict[str, Any]:
        self.messages += more
        body = {"messages": self.messages, "tools": [tool.to_dict() for tool in tools]}
        chat = read_request(body, self.session.policy.params)
        request = self.session.ask(chat)
        sampled = self.session.policy.complete(request.prompt, sample_key(0, request.turn))
        message = answer_of(self.session.add(chat, request, sampled), chat).message
        self.messages.append(message)
        return message

    def play(self) -> Episode:
        """The whole loop of an agent."""
        more: list[dict[str, Any]] = []
        while True:
            message = self.ask(*more)
            if "advice" in message.get("toolhone", {}):
                more = [{"role": "user", "content": message["toolhone"]["advice"]}]
            elif message.get("tool_calls"):
                more = [result(call["id"]) for call in message["tool_calls"]]
            else:
                return self.session.episode("t")


def result(call_id: str, content: str = "5") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def facts(episode: Episode) -> Any:
    """All of an episode but what only a registry knows of its tools, such as seconds."""
    results = [[(one.outcome, one.content) for one in each] for each in episode.results]
    same = episode.turns, episode.outcomes, episode.ending, episode.penalties, episode.states
    return results, same, episode.final_call


def alone(rules: EpisodeRules = AGAIN, script: Any = says) -> Episode:
    return run_episodes(scripted_policy(script), [TASK], Registry([ADD]), rules)[0]


def test_a_recorded_session_is_the_episode_that_is_played_in_process() -> None:
    recorded, played = Client().play(), alone()
    assert facts(recorded) == facts(played)
    assert [one.value for one in recorded.outcomes] == ["malformed", "valid_calls", "answer"]
    assert [row.tokens.tolist() for row in rows_of(recorded)] == [
        row.tokens.tolist() for row in rows_of(played)
    ]
    assert len(rows_of(recorded)) == 1
    assert recorded.recording is not None
    assert recorded.recording.breaks == {}
    assert [m.role for m in recorded.recording.messages][-2:] == ["tool", "assistant"]


@pytest.mark.parametrize(
    ("rules", "ending"),
    [
        (EpisodeRules(then={TurnOutcome.MALFORMED: OnFault.STOP}), EpisodeStatus.MALFORMED),
        (EpisodeRules(then={TurnOutcome.MALFORMED: OnFault.PENALISE}), EpisodeStatus.MALFORMED),
        (EpisodeRules(2, then=GOES_ON), EpisodeStatus.TOO_MANY_TURNS),
        (
            EpisodeRules(2, then=GOES_ON, too_many_turns=OnFault.PENALISE),
            EpisodeStatus.TOO_MANY_TURNS,
        ),
        (EpisodeRules(first_call_only=True, then=GOES_ON), EpisodeStatus.CALLED),
        (EpisodeRules(then=GOES_ON, stop_tools=frozenset({"add"})), EpisodeStatus.ANSWERED),
    ],
)
def test_the_rules_end_a_session_where_they_end_an_episode(
    rules: EpisodeRules, ending: EpisodeStatus
) -> None:
    client = Client(rules)

    def play_on() -> None:
        client.play()
        client.ask({"role": "user", "content": "And now?"})

    with pytest.raises(SessionEndedError, match=f"has ended: {ending.value}"):
        play_on()
    recorded = client.session.episode("t")
    assert recorded.ending is ending
    assert facts(recorded) == facts(alone(rules))


def test_a_prompt_without_room_ends_the_session() -> None:
    client = Client(max_context=500, script=lambda _: "Hi.")
    client.ask()
    with pytest.raises(SessionEndedError, match="no_room"):
        client.ask({"role": "user", "content": "more " * 400})
    assert client.session.episode("t").ending is EpisodeStatus.NO_ROOM


def drop_history(client: Client) -> None:
    client.messages[:] = [{"role": "user", "content": "a summary"}]
    client.ask()


def change_reply(client: Client) -> None:
    client.messages[-1]["content"] = "Hello!"
    client.ask({"role": "user", "content": "Go on."})


def change_tools(client: Client) -> None:
    client.ask({"role": "user", "content": "Go on."}, tools=())


def ask_again(client: Client) -> None:
    client.messages.pop()
    client.ask()


def branch(client: Client) -> None:
    client.ask({"role": "user", "content": "Go on."})
    client.messages[-2:] = []
    client.ask({"role": "user", "content": "Go elsewhere."})


@pytest.mark.parametrize(
    ("does", "kind", "rows"),
    [
        (drop_history, "history_changed", 2),
        (change_reply, "reply_changed", 2),
        (change_tools, "tools_changed", 2),
        (ask_again, "repeated", 2),
        (branch, "branched", 2),
    ],
)
def test_a_request_that_breaks_the_prefix_is_a_row_of_its_own_counted_by_name(
    does: Any, kind: str, rows: int
) -> None:
    client = Client(script=lambda _: "Hello.")
    client.ask()
    does(client)
    episode = client.session.episode("t")
    assert episode.recording is not None
    assert episode.recording.breaks == {kind: 1}
    assert len(rows_of(episode)) == rows


def test_a_branch_continues_the_sampled_ids_of_its_own_turn() -> None:
    client = Client(script=lambda _: "Hello.")
    client.ask()
    branch(client)
    first, _, third = client.session.episode("t").turns
    sampled = (*first.prompt, *first.tokens)
    assert third.prompt[: len(sampled)] == sampled


@pytest.mark.parametrize(
    "change",
    [
        lambda m: {**m, "content": ""},
        lambda m: {k: m[k] for k in m if k != "content"},
        lambda m: {**m, "refusal": None, "annotations": []},
        lambda m: {
            **m,
            "tool_calls": [
                {**c, "function": {**c["function"], "arguments": '{"b":3,\n"a":2}'}}
                for c in m["tool_calls"]
            ],
        },
    ],
)
def test_a_reply_may_come_back_in_another_spelling(change: Any) -> None:
    client = Client(script=lambda p: "5" if "TOOL_RESULT" in last_user(p) else CALL)
    call = client.ask()["tool_calls"][0]
    client.messages[-1] = change(client.messages[-1])
    client.ask(result(call["id"]))
    episode = client.session.episode("t")
    assert episode.recording is not None
    assert not episode.recording.breaks
    assert len(rows_of(episode)) == 1


def test_a_call_without_a_result_counts_as_refused() -> None:
    client = Client(script=lambda p: "5" if "TOOL_RESULT" in last_user(p) else f"{CALL}\n{CALL}")
    first, _ = client.ask()["tool_calls"]
    client.ask(result(first["id"]))
    (answered, missing), _ = client.session.episode("t").results
    assert (answered.outcome.value, missing.outcome.value) == ("ok", "refused")


def test_settings_of_a_request_that_the_policy_does_not_follow_are_counted() -> None:
    client = Client()
    params = client.session.policy.params
    chat = read_request({"messages": QUESTION, "temperature": 0.7, "top_p": 0.9}, params)
    client.session.ask(chat)
    record = client.session.episode("t").recording
    assert record is not None
    assert record.ignored == {"temperature": 1, "top_p": 1}


def test_the_responses_form_continues_the_same_ids() -> None:
    session, items = AgentSession(scripted_policy(says), AGAIN), list[Any](QUESTION)
    function = ADD.to_dict()["function"]
    for _ in range(3):
        body = {"input": items, "tools": [{"type": "function", "strict": True, **function}]}
        chat = read_responses_request(body, session.policy.params)
        request = session.ask(chat)
        sampled = session.policy.complete(request.prompt, sample_key(0, request.turn))
        answer = response_of(answer_of(session.add(chat, request, sampled), chat), {"id": "r"})
        items += answer["output"]
        for one in answer["output"]:
            if one["type"] == "function_call":
                output = {"type": "function_call_output", "call_id": one["call_id"]}
                items.append({**output, "output": "5"})
        if "toolhone" in answer:
            items.append({"role": "user", "content": answer["toolhone"]["advice"]})
    assert facts(session.episode("t")) == facts(alone())
