"""Episodes: wishes and answers, token ids kept as sampled, every ending, and that no episode
disturbs another.
"""

import json
import threading

import pytest

from support.scripted import (
    STOP,
    OneAtATime,
    ScriptedSampler,
    byte_tokenizer,
    last_user,
    scripted_policy,
    task,
)
from toolhone.backends.base import SamplingParams, StopReason
from toolhone.data.task_files import refuse_unplayable
from toolhone.dialects.interface import ParseProblem
from toolhone.episodes.driver import TO_THE_END, TURNS_PER_KEY, run_calls, run_episodes, sample_key
from toolhone.episodes.episode import (
    EpisodeRules,
    EpisodeStatus,
    OnFault,
    SampleRequest,
    ToolRequest,
    episode,
)
from toolhone.episodes.episode import TurnOutcome as Came
from toolhone.episodes.policy import TokenPolicy
from toolhone.errors import ConfigError, DataError, DialectError
from toolhone.schema import Message, Task, Tool, ToolCall
from toolhone.tools.open_world import LiveWorld
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus

NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
ADD = Tool("add", "", NUMBERS, lambda a, b: a + b)
REGISTRY = Registry([ADD])


def write(*calls: tuple[str, dict]) -> str:
    return "\n".join(
        f"[TOOL_CALL]{json.dumps({'name': n, 'parameters': a})}[/TOOL_CALL]" for n, a in calls
    )


ADD_2_3 = write(("add", {"a": 2, "b": 3}))


def adds_then_answers(prompt: str) -> str:
    said = last_user(prompt)
    return f"It is {said.split(']')[1].split('[')[0]}." if "TOOL_RESULT" in said else ADD_2_3


def a_task(name: str = "t", query: str = "2+3?", tools: tuple[Tool, ...] = (ADD,)) -> Task:
    return task(name, query, tools, {"answer": "5"})


def play_one(
    script,
    rules: EpisodeRules = TO_THE_END,
    registry: Registry = REGISTRY,
    tools: tuple[Tool, ...] = (ADD,),
    **policy,
):
    return run_episodes(scripted_policy(script, **policy), [a_task(tools=tools)], registry, rules)[
        0
    ]


def test_an_episode_yields_wishes_and_is_played_by_hand():
    policy = scripted_policy(adds_then_answers)
    game = episode(a_task(), policy, EpisodeRules())
    wish = next(game)
    assert isinstance(wish, SampleRequest)
    assert wish.prompt.tokens == policy.open(a_task().messages, (ADD,)).tokens
    wish = game.send(policy.complete(policy.open(a_task().messages, (ADD,))))
    assert wish == ToolRequest((ToolCall("add", {"a": 2, "b": 3}),))
    wish = game.send([ToolResult(ToolStatus.OK, "5")])
    assert isinstance(wish, SampleRequest)
    assert wish.turn == 1
    assert wish.prompt.messages[-1] == Message("tool", "5", tool_call_id="call00000", name="add")
    turn = policy.read(
        wish.prompt, policy.sampler.sample([wish.prompt.tokens], policy.params)[0][0]
    )
    with pytest.raises(StopIteration) as stop:
        game.send(turn)
    played = stop.value.value
    assert (played.ending, played.answer, len(played.turns)) == (
        EpisodeStatus.ANSWERED,
        "It is 5.",
        2,
    )
    assert [[result.content for result in results] for results in played.results] == [["5"], []]


def test_an_id_that_the_model_wrote_names_the_result_and_one_that_cannot_is_counted():
    """Not the right form for a template; twice the same; none at all."""

    def said(*ids):
        return "\n".join(
            "[TOOL_CALL]"
            + json.dumps(
                {"name": "add", "parameters": {"a": 1, "b": n}, **({"id": i} if i else {})}
            )
            + "[/TOOL_CALL]"
            for n, i in enumerate(ids)
        )

    turns = [said("Vvv0Dy9mT", "short", "Vvv0Dy9mT"), said("Vvv0Dy9mT", None), "It is 5."]
    played = play_one(lambda _: turns.pop(0))
    ids = [[call.id for call in turn.message.tool_calls] for turn in played.turns]
    assert ids == [["Vvv0Dy9mT", "call00001", "call00002"], ["call00003", "call00004"], []]
    turns = [said("call00001", None), said(None), "It is 5."]
    played = play_one(lambda _: turns.pop(0))
    assert [[call.id for call in turn.message.tool_calls] for turn in played.turns] == [
        ["call00001", "call00002"],
        ["call00003"],
        [],
    ]


def test_the_prompt_of_a_group_is_written_once_and_that_of_another_task_anew():
    written = []

    class Counting:
        def __init__(self, dialect):
            self.dialect = dialect

        def __getattr__(self, name):
            return getattr(self.dialect, name)

        def prompt(self, messages, tools):
            if messages[-1].role == "user":
                written.append(messages[-1].content)
            return self.dialect.prompt(messages, tools)

    plain = scripted_policy(adds_then_answers)
    policy = TokenPolicy(plain.sampler, Counting(plain.dialect), plain.tokenizer, plain.params)
    first, second = a_task("one"), a_task("two", "what is 2+3?")
    played = run_episodes(policy, [first] * 3 + [second] * 3 + [a_task("three")], REGISTRY)
    assert written == ["2+3?", "what is 2+3?", "2+3?"]
    alone = [run_episodes(plain, [task], REGISTRY)[0] for task in (first, second)]
    for one, same in zip(played, [alone[0]] * 3 + [alone[1]] * 3 + [alone[0]], strict=True):
        assert [turn.prompt for turn in one.turns] == [turn.prompt for turn in same.turns]


def test_the_next_prompt_is_the_last_one_and_the_ids_as_sampled_and_the_suffix():
    policy = scripted_policy(
        adds_then_answers, sampler=ScriptedSampler(adds_then_answers, spelled=True)
    )
    first, second = run_episodes(policy, [a_task()], REGISTRY)[0].turns
    tokenizer = byte_tokenizer()
    again = tokenizer.encode(first.text)
    assert first.tokens[:-1] != again, (
        "the sampled spelling must differ from the tokenizer's for this test to say anything"
    )
    assert tokenizer.decode(first.tokens[:-1]) == tokenizer.decode(again)
    assert list(second.prompt[: len(first.prompt)]) == list(first.prompt)
    assert list(second.prompt[len(first.prompt) :][: len(first.tokens)]) == first.tokens
    suffix = tokenizer.decode(second.prompt[len(first.prompt) + len(first.tokens) :])
    assert (
        suffix
        == "\n<|im_start|>user\n[TOOL_RESULT]5[/TOOL_RESULT]<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_prompt_put_together_equals_the_prompt_rendered_at_once():
    policy = scripted_policy(adds_then_answers)
    turns = run_episodes(policy, [a_task()], REGISTRY)[0].turns
    messages = [
        *a_task().messages,
        turns[0].message,
        Message("tool", "5", tool_call_id="call00000", name="add"),
    ]
    assert turns[1].prompt == policy.open(messages, (ADD,)).tokens


def test_the_stop_mark_is_no_part_of_the_text_and_stop_ids_come_from_the_dialect():
    policy = scripted_policy(adds_then_answers)
    assert policy.params.stop_ids == byte_tokenizer().stop_ids([STOP])
    turn = policy.complete(policy.open(a_task().messages, (ADD,)))
    assert turn.text == ADD_2_3
    assert turn.tokens[-1] == policy.params.stop_ids[0]
    assert len(turn.logprobs) == len(turn.tokens)


def test_stop_ids_that_are_given_are_kept():
    base = scripted_policy(adds_then_answers)
    params = SamplingParams(stop_ids=(7,))
    assert TokenPolicy(base.sampler, base.dialect, base.tokenizer, params).params.stop_ids == (7,)


def test_with_first_call_only_the_calls_run_once_and_nothing_is_fed_back():
    played = play_one(adds_then_answers, EpisodeRules(first_call_only=True))
    assert (played.ending, len(played.turns)) == (EpisodeStatus.CALLED, 1)
    assert [result.outcome for result in played.results[0]] == [ToolStatus.OK]
    assert played.answer is None


def test_a_malformed_call_ends_the_episode_and_is_not_run():
    ran = []
    tool = Tool("add", "", NUMBERS, lambda a, b: ran.append((a, b)))
    played = play_one(
        lambda _: ADD_2_3 + "\n[TOOL_CALL]{broken[/TOOL_CALL]", registry=Registry([tool])
    )
    assert (played.ending, played.turns[0].problem, played.results) == (
        EpisodeStatus.MALFORMED,
        ParseProblem.NOT_JSON,
        ((),),
    )
    assert [call.name for call in played.calls] == ["add"]
    assert ran == []


def test_a_truncated_turn_is_never_run_even_when_a_whole_call_was_written():
    ran = []
    tool = Tool("add", "", NUMBERS, lambda a, b: ran.append((a, b)))
    length = len(byte_tokenizer().encode(ADD_2_3))
    played = play_one(lambda _: ADD_2_3, registry=Registry([tool]), max_tokens=length)
    assert (played.ending, played.turns[0].problem) == (EpisodeStatus.TRUNCATED, ParseProblem.NONE)
    assert played.turns[0].stop_reason is StopReason.LENGTH
    assert ran == []


def test_a_policy_that_never_answers_is_stopped_after_the_allowed_turns():
    played = play_one(lambda _: ADD_2_3, EpisodeRules(max_turns=3))
    assert (played.ending, len(played.turns), len(played.results)) == (
        EpisodeStatus.TOO_MANY_TURNS,
        3,
        3,
    )
    ids = [call.id for call in played.calls]
    assert ids == ["call00000", "call00001", "call00002"]


def test_a_full_context_ends_the_episode_before_sampling():
    policy = scripted_policy(adds_then_answers)
    length = len(policy.open(a_task().messages, (ADD,)).tokens)
    unplayed = play_one(adds_then_answers, max_context=length)
    assert (unplayed.ending, unplayed.turns) == (EpisodeStatus.NO_ROOM, ())
    started = play_one(adds_then_answers, max_context=length + 1)
    assert (started.ending, len(started.turns)) == (EpisodeStatus.NO_ROOM, 1)
    assert play_one(adds_then_answers, max_context=10_000).ending is EpisodeStatus.ANSWERED


@pytest.mark.parametrize(
    ("first", "outcome"),
    [
        (write(("add", {"a": 2})), ToolStatus.INVALID_ARGUMENTS),
        (write(("ad", {"a": 2, "b": 3})), ToolStatus.UNKNOWN_TOOL),
        (write(("divide", {"a": 2, "b": 0})), ToolStatus.ERROR),
        (write(("nothing", {})), ToolStatus.REFUSED),
    ],
)
def test_error_results_are_fed_back_and_the_model_may_mend_its_call(first, outcome):
    divide = Tool("divide", "", NUMBERS, lambda a, b: a / b)
    nothing = Tool("nothing")
    heard = []

    def script(prompt: str) -> str:
        said = last_user(prompt)
        if "TOOL_RESULT" not in said:
            return first
        heard.append(said)
        return ADD_2_3 if len(heard) == 1 else "Now it is 5."

    played = play_one(
        script, registry=Registry([ADD, divide, nothing]), tools=(ADD, divide, nothing)
    )
    assert played.ending is EpisodeStatus.ANSWERED
    assert [result.outcome for results in played.results for result in results] == [
        outcome,
        ToolStatus.OK,
    ]
    assert played.results[0][0].content[:20] in heard[0]


def test_parallel_calls_of_one_turn_run_at_the_same_time_and_answer_in_their_order():
    meeting = threading.Barrier(3, timeout=60)

    def met(a: int, b: int) -> str:
        meeting.wait()
        return f"{a},{b}"

    tool = Tool("add", "", NUMBERS, met)
    calls = write(*(("add", {"a": i, "b": i}) for i in range(3)))
    played = play_one(
        lambda p: "done" if "RESULT" in last_user(p) else calls, registry=Registry([tool])
    )
    assert [result.content for result in played.results[0]] == ["0,0", "1,1", "2,2"]
    assert played.ending is EpisodeStatus.ANSWERED


def test_tools_of_different_episodes_run_at_the_same_time():
    meeting = threading.Barrier(4, timeout=60)
    tool = Tool("add", "", NUMBERS, lambda **_: str(meeting.wait()))
    tasks = [a_task(f"t{i}") for i in range(4)]
    episodes = run_episodes(scripted_policy(adds_then_answers), tasks, Registry([tool]))
    assert [played.ending for played in episodes] == [EpisodeStatus.ANSWERED] * 4


def test_a_row_whose_tool_is_slow_does_not_hold_up_the_others():
    others_are_done = threading.Event()
    tool = Tool("add", "", NUMBERS, lambda **_: others_are_done.wait(60))

    def script(prompt: str) -> str:
        return ADD_2_3 if "slow" in last_user(prompt) else "quick"

    ended = []

    def on_episode(index: int, _: object) -> None:
        ended.append(index)
        if sorted(ended) == [1, 2, 3]:
            others_are_done.set()

    tasks = [a_task(f"t{i}", "slow" if i == 0 else "fast") for i in range(4)]
    episodes = run_episodes(
        scripted_policy(script), tasks, Registry([tool]), on_episode=on_episode, at_once=2
    )
    assert [played.task_id for played in episodes] == ["t0", "t1", "t2", "t3"]
    assert ended[-1] == 0
    assert episodes[0].results[0][0].value is True


def test_an_episode_on_which_the_program_fails_keeps_its_reason_and_spares_others(monkeypatch):
    policy = scripted_policy(adds_then_answers)
    extend = policy.extend

    def fragile(prompt, turn, results):
        if "bad" in (prompt.messages[0].content or ""):
            raise RuntimeError("no suffix for this")
        return extend(prompt, turn, results)

    monkeypatch.setattr(policy, "extend", fragile)
    tasks = [a_task("a"), a_task("b", "bad"), a_task("c")]
    episodes = run_episodes(policy, tasks, REGISTRY)
    assert [played.ending for played in episodes] == [
        EpisodeStatus.ANSWERED,
        EpisodeStatus.FAILED,
        EpisodeStatus.ANSWERED,
    ]
    assert episodes[1].reason == "RuntimeError: no suffix for this"
    assert len(episodes[1].turns) == 1


def test_a_registry_that_breaks_fails_only_its_own_episode(monkeypatch):
    registry = Registry([ADD])
    run = registry.run
    monkeypatch.setattr(
        registry, "run", lambda call: run(call) if call.arguments["a"] == 2 else 1 / 0
    )
    script = {"good": ADD_2_3, "bad": write(("add", {"a": 1, "b": 1}))}
    policy = scripted_policy(lambda p: "so" if "RESULT" in last_user(p) else script[last_user(p)])
    episodes = run_episodes(policy, [a_task("a", "good"), a_task("b", "bad")], registry)
    assert [played.ending for played in episodes] == [EpisodeStatus.ANSWERED, EpisodeStatus.FAILED]
    assert "ZeroDivisionError" in episodes[1].reason


def test_a_mistake_of_the_user_inside_a_tool_stops_everything():
    def broken(**_: int) -> int:
        raise ConfigError("the sandbox cannot start")

    with pytest.raises(ConfigError, match="the sandbox cannot start"):
        play_one(adds_then_answers, registry=Registry([Tool("add", "", NUMBERS, broken)]))


def test_a_first_prompt_that_cannot_be_written_names_its_task(monkeypatch):
    policy = scripted_policy(adds_then_answers)

    def refuse(*_):
        raise DialectError("no system role here")

    monkeypatch.setattr(policy, "open", refuse)
    with pytest.raises(DialectError, match="task 't7': no system role here"):
        run_episodes(policy, [a_task("t7")], REGISTRY)


def test_a_tool_that_the_task_does_not_offer_is_unknown_even_if_the_registry_has_it():
    world, calls = LiveWorld(REGISTRY), [ToolCall("add", {"a": 1, "b": 2})]
    assert run_calls(world, a_task(tools=()), calls)[0].outcome is ToolStatus.UNKNOWN_TOOL
    assert run_calls(world, a_task(), calls)[0].value == 3


def _told(episodes):
    return [
        (e.task_id, e.ending, [(t.text, t.tokens, t.prompt) for t in e.turns]) for e in episodes
    ]


def test_what_an_episode_becomes_depends_on_neither_order_nor_company():
    tasks = [a_task(f"t{i}", f"question {i}") for i in range(9)]
    reference = run_episodes(scripted_policy(adds_then_answers), tasks, REGISTRY)
    for seed in range(3):
        for at_once in (1, 4, 100):
            policy = scripted_policy(adds_then_answers, sampler=OneAtATime(adds_then_answers, seed))
            assert _told(run_episodes(policy, tasks, REGISTRY, at_once=at_once)) == _told(reference)


def test_the_key_of_a_sample_names_the_task_and_the_turn():
    sampler = ScriptedSampler(adds_then_answers)
    run_episodes(
        scripted_policy(adds_then_answers, sampler=sampler), [a_task("a"), a_task("b")], REGISTRY
    )
    assert sorted(key for key, _ in sampler.asked) == [0, 1, TURNS_PER_KEY, TURNS_PER_KEY + 1]
    keys = [sample_key(index, turn) for index in range(50) for turn in range(20)]
    assert len(set(keys)) == len(keys)


def test_one_prompt_is_in_the_batch_for_each_living_episode():
    batches = []

    class Counting(ScriptedSampler):
        def sample(self, prompts, params, keys=None):
            batches.append(len(prompts))
            return super().sample(prompts, params, keys)

    sampler = Counting(adds_then_answers)
    run_episodes(
        scripted_policy(adds_then_answers, sampler=sampler),
        [a_task(f"t{i}") for i in range(6)],
        REGISTRY,
        at_once=6,
    )
    assert batches == [6, 6]


def test_tasks_with_several_turns_or_a_judged_state_are_refused_by_name_and_count():
    turns = Task.from_dict(
        {
            "id": "m1",
            "turns": [[{"role": "user", "content": "x"}]],
            "expect": [{"no_call": True}],
            "tools": [],
        }
    )
    state = task("s1", "x", [ADD], {"state": {"a": 1}})
    with pytest.raises(
        DataError, match=r"1 of 3 tasks cannot be played: 'm1' has several user turns"
    ):
        run_episodes(scripted_policy(adds_then_answers), [a_task(), turns, a_task("u")], REGISTRY)
    with pytest.raises(DataError, match=r"2 of 2 tasks cannot be played: 's1' has a final state"):
        refuse_unplayable([state, state])


def test_no_tasks_are_no_episodes():
    assert run_episodes(scripted_policy(adds_then_answers), [], REGISTRY) == []


def says(*texts: str):
    """A script that says these texts one after the other."""
    left = list(texts)
    return lambda _: left.pop(0)


BROKEN = '[TOOL_CALL]{"name": "add", "parameters": {"a": 2'


def test_every_turn_has_one_outcome():
    cases = {
        "It is 5.": Came.ANSWER,
        ADD_2_3: Came.VALID_CALLS,
        write(("sub", {"a": 2, "b": 3})): Came.UNKNOWN_TOOL,
        write(("add", {"a": "two", "b": 3})): Came.BAD_ARGUMENTS,
        BROKEN: Came.MALFORMED,
    }
    for text, outcome in cases.items():
        assert play_one(says(text, "done"), EpisodeRules(max_turns=2)).outcomes[0] is outcome


def test_a_malformed_turn_stops_or_its_error_goes_back_and_the_model_may_try_again():
    stopped = play_one(says(BROKEN, ADD_2_3, "It is 5."))
    assert (stopped.ending, len(stopped.turns), stopped.penalties) == (
        EpisodeStatus.MALFORMED,
        1,
        0,
    )
    again = play_one(
        says(BROKEN, ADD_2_3, "It is 5."), EpisodeRules(then={Came.MALFORMED: OnFault.FEED_BACK})
    )
    assert again.ending is EpisodeStatus.ANSWERED
    assert again.outcomes == (Came.MALFORMED, Came.VALID_CALLS, Came.ANSWER)
    told = again.turns[1].prompt
    assert list(told[: len(again.turns[0].prompt)]) == list(again.turns[0].prompt)
    assert again.turns[0].tokens == list(
        told[len(again.turns[0].prompt) :][: len(again.turns[0].tokens)]
    )


def test_faults_of_calls_can_end_an_episode_and_be_counted_against_it():
    unknown = write(("sub", {"a": 2, "b": 3}))
    rules = EpisodeRules(
        then={Came.UNKNOWN_TOOL: OnFault.PENALISE, Came.BAD_ARGUMENTS: OnFault.STOP}
    )
    fined = play_one(says(unknown), rules)
    assert (fined.ending, fined.penalties) == (EpisodeStatus.BAD_CALL, 1)
    stopped = play_one(says(write(("add", {"a": 2}))), rules)
    assert (stopped.ending, stopped.penalties) == (EpisodeStatus.BAD_CALL, 0)
    assert play_one(says(unknown, "done")).outcomes == (Came.UNKNOWN_TOOL, Came.ANSWER)


def test_being_cut_off_and_one_turn_too_many_can_cost():
    def fines(rules: EpisodeRules, *texts: str) -> tuple[EpisodeStatus, int]:
        played = play_one(says(*texts), rules)
        return played.ending, played.penalties

    long = "word " * 500
    assert fines(EpisodeRules(), long) == (EpisodeStatus.TRUNCATED, 0)
    assert fines(EpisodeRules(then={Came.TRUNCATED: OnFault.PENALISE}), long) == (
        EpisodeStatus.TRUNCATED,
        1,
    )
    assert fines(EpisodeRules(max_turns=2), ADD_2_3, ADD_2_3) == (EpisodeStatus.TOO_MANY_TURNS, 0)
    costly = EpisodeRules(max_turns=2, too_many_turns=OnFault.PENALISE)
    assert fines(costly, ADD_2_3, ADD_2_3) == (EpisodeStatus.TOO_MANY_TURNS, 1)
    assert fines(costly, ADD_2_3, "It is 5.") == (EpisodeStatus.ANSWERED, 0)


def test_a_call_of_a_stop_tool_is_the_answer():
    final = Tool(
        "final_answer", "", {"type": "object", "properties": {"answer": {"type": "string"}}}
    )
    played = play_one(
        says(write(("final_answer", {"answer": "5"}))),
        EpisodeRules(stop_tools=frozenset({"final_answer"})),
        tools=(ADD, final),
    )
    assert (played.ending, played.answer, played.outcomes) == (
        EpisodeStatus.ANSWERED,
        "5",
        (Came.FINAL_CALL,),
    )
