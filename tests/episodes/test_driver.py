"""The driver's speed, without a stopwatch: tools run side by side, sampling goes on meanwhile, and
each tool has its bound.
"""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import toolhone.tools.registry
from contracts.test_backends import tiny_qwen3
from support.hand_clock import HandClock
from support.scripted import ScriptedSampler, ScriptedStream, last_user, scripted_policy, task
from toolhone.backends.base import SamplingParams
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import open_sampler
from toolhone.episodes.driver import TOOL_THREADS, Clock, run_episodes
from toolhone.episodes.episode import EpisodeRules, EpisodeStatus
from toolhone.errors import BusyError, ConfigError
from toolhone.schema import Task, Tool, ToolCall
from toolhone.tools.registry import Implementation, Registry, ToolLimits, builtin_tool
from toolhone.tools.result import ToolStatus
from toolhone.tools.sandbox import WORKERS

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FIRST_CALL = EpisodeRules(first_call_only=True)


def tool_of(function, **limits) -> Tool:
    return Tool(
        "ask", "", NUMBER, Implementation(function, ToolLimits(**limits)) if limits else function
    )


def tasks(count: int) -> list[Task]:
    return [task(f"t{i}", str(i), [Tool("ask", "", NUMBER)], {"answer": "x"}) for i in range(count)]


def asks_twice(prompt: str) -> str:
    """Two parallel calls with the number of the task, then an answer."""
    said = last_user(prompt)
    if "RESULT" in said:
        return "done"
    call = f"[TOOL_CALL]{json.dumps({'name': 'ask', 'parameters': {'n': int(said)}})}[/TOOL_CALL]"
    return f"{call}\n{call}"


class Peak:
    """How many callers were inside at the same time, at most."""

    def __init__(self) -> None:
        self.lock, self.inside, self.most, self.all = threading.Lock(), 0, 0, 0

    def __enter__(self) -> None:
        with self.lock:
            self.inside, self.all = self.inside + 1, self.all + 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1


class FewAtOnce(ScriptedSampler):
    """Answers at most two prompts in one poll, and tells `sampled` of each."""

    def __init__(self, script, sampled) -> None:
        super().__init__(script)
        self.sampled = sampled

    def stream(self) -> ScriptedStream:
        return ScriptedStream(self, most=2)

    def _one(self, key, prompt, params):
        self.sampled(key)
        return super()._one(key, prompt, params)


def test_as_many_calls_run_at_the_same_time_as_there_are_threads_and_no_more():
    meeting, peak = threading.Barrier(TOOL_THREADS, timeout=60), Peak()

    def meet(n: int) -> str:  # noqa: ARG001
        with peak:
            meeting.wait()
        return "met"

    episodes = run_episodes(
        scripted_policy(asks_twice), tasks(TOOL_THREADS), Registry([tool_of(meet)], timeout=120)
    )
    assert [result.content for episode in episodes for result in episode.results[0]] == [
        "met"
    ] * 2 * TOOL_THREADS
    assert (peak.most, peak.all) == (TOOL_THREADS, 2 * TOOL_THREADS)
    assert TOOL_THREADS >= 64, (
        "a thousand episodes with tools of 50 ms want about 1,000 calls a second"
    )


def test_other_rows_are_sampled_while_tools_run():
    everybody_spoke = threading.Event()
    spoken: set[int] = set()

    def sampled(key: int) -> None:
        spoken.add(key)
        if len(spoken) == 20:
            everybody_spoke.set()

    def blocked(n: int) -> bool:  # noqa: ARG001
        return everybody_spoke.wait(60)

    policy = scripted_policy(asks_twice, sampler=FewAtOnce(asks_twice, sampled))
    episodes = run_episodes(
        policy, tasks(20), Registry([tool_of(blocked)], timeout=120), FIRST_CALL
    )
    assert [[result.value for result in episode.results[0]] for episode in episodes] == [
        [True, True]
    ] * 20


def test_rows_whose_tools_are_quick_share_a_batch_in_every_turn():
    batches = []

    class Counting(ScriptedSampler):
        def sample(self, prompts, params, keys=None):
            batches.append(len(prompts))
            return super().sample(prompts, params, keys)

    policy = scripted_policy(asks_twice, sampler=Counting(asks_twice))
    run_episodes(policy, tasks(40), Registry([tool_of(lambda n: n)]))
    assert batches == [40, 40]


def test_after_a_mistake_of_the_user_the_calls_that_wait_for_a_thread_are_not_made(monkeypatch):
    peak, cancelled = Peak(), threading.Event()

    class Pool(ThreadPoolExecutor):
        """Lets the calls that run end once those that wait are cancelled."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(False, cancel_futures=cancel_futures)
            cancelled.set()
            super().shutdown(wait)

    def ask(n: int) -> str:
        if n == 0:
            raise ConfigError("no key for this service")
        with peak:
            assert cancelled.wait(60)
        return "x"

    monkeypatch.setattr("toolhone.episodes.driver.ThreadPoolExecutor", Pool)
    with pytest.raises(ConfigError, match="no key for this service"):
        run_episodes(scripted_policy(asks_twice), tasks(3 * TOOL_THREADS), Registry([tool_of(ask)]))
    assert peak.all <= TOOL_THREADS


def test_an_episode_for_which_the_machine_had_no_time_fails_and_the_others_go_on():
    def ask(n: int) -> int:
        if n == 0:
            raise BusyError("the machine gave a program too little time")
        return n

    episodes = run_episodes(scripted_policy(asks_twice), tasks(3), Registry([tool_of(ask)]))
    endings = [episode.ending for episode in episodes]
    assert endings == [EpisodeStatus.FAILED, EpisodeStatus.ANSWERED, EpisodeStatus.ANSWERED]
    assert episodes[0].reason == "BusyError: the machine gave a program too little time"


def test_a_tool_may_bound_its_calls_at_once_and_waiting_is_no_part_of_its_time(monkeypatch):
    peak, timed, two = Peak(), Peak(), threading.Barrier(2, timeout=60)
    in_thread = toolhone.tools.registry._in_thread

    def with_time_running(work, timeout):
        with timed:
            return in_thread(work, timeout)

    def ask(n: int) -> int:
        with peak:
            two.wait()
        return n

    monkeypatch.setattr("toolhone.tools.registry._in_thread", with_time_running)
    registry = Registry([tool_of(ask, at_once=2, timeout=120)])
    episodes = run_episodes(scripted_policy(asks_twice), tasks(16), registry, FIRST_CALL)
    assert (peak.most, timed.most, timed.all) == (2, 2, 32)
    assert [result.outcome for episode in episodes for result in episode.results[0]] == [
        ToolStatus.OK
    ] * 32


def test_no_more_programs_are_begun_than_the_sandbox_has_workers():
    for name in ("calculator", "python"):
        implementation = builtin_tool(name).function
        assert isinstance(implementation, Implementation)
        assert implementation.limits.at_once == WORKERS
    peak, three = Peak(), threading.Barrier(3, timeout=60)

    def compute(n: int) -> int:
        with peak:
            three.wait()
        return n

    registry = Registry([tool_of(compute, at_once=3)])
    registry.run_all([ToolCall("ask", {"n": n}) for n in range(12)])
    assert (peak.most, peak.all) == (3, 12)


def test_the_torch_backend_returns_one_batch_at_a_time_with_the_same_samples(
    tmp_path: Path, monkeypatch
):
    sampler = open_sampler(tiny_qwen3(tmp_path), EngineOptions(device_map="cpu"))
    prompts, params = [[3 + i, 4, 5] for i in range(7)], SamplingParams(max_tokens=5, seed=3)
    monkeypatch.setattr(sampler._engine, "cache_tokens", 2 * 8)
    whole = sampler.sample(prompts, params)
    stream = sampler.stream()
    for key, prompt in enumerate(prompts):
        stream.submit(key, prompt, params)
    polls = [stream.poll() for _ in range(5)]
    assert [len(poll) for poll in polls] == [2, 2, 2, 1, 0]
    assert {key: samples[0].tokens for poll in polls for key, samples in poll} == {
        i: s[0].tokens for i, s in enumerate(whole)
    }


def test_time_inside_of_other_time_is_counted_once():
    ticks = iter(range(100))
    clock = Clock(lambda: float(next(ticks)))
    with clock.on("sample"), clock.on("tools"):
        pass
    with clock.on("train"):
        pass
    assert clock.take() == {"sample": 2.0, "tools": 1.0, "train": 1.0}
    with pytest.raises(ValueError, match="x"), clock.on("reward"):
        raise ValueError("x")
    assert clock.take() == {"reward": 1.0}


def test_the_clock_sees_the_time_in_which_only_tools_ran():
    clock = HandClock()

    def slow(n: int) -> int:
        clock.move_while_tools_run(1.0)
        return n

    with clock.on("sample"):
        episodes = run_episodes(
            scripted_policy(asks_twice), tasks(3), Registry([tool_of(slow)]), clock=clock
        )
    assert [episode.ending for episode in episodes] == [EpisodeStatus.ANSWERED] * 3
    assert clock.take() == {"sample": 0.0, "tools": 6.0}
