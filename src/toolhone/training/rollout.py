"""Rollouts: play a group of episodes per task, score them, turn sampled tokens into rows.

    groups = rollout(env, sampler, tasks, experiment, step)
    groups = score(groups, env)
    rows = [group.rows(advantages, step) for group in groups]

Token ids and log-probabilities go from the sampler into rows unchanged. An episode is one row where
its history only grows; where a template rewrites history each turn is a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, pairwise

import numpy as np

from toolhone.backends.base import Sampler
from toolhone.config.rl import EpisodeSection, RlSection
from toolhone.config.sections import Experiment
from toolhone.data.world_tasks import AgentTask
from toolhone.episodes.driver import Clock, PlayTasks, run_episodes
from toolhone.episodes.episode import Episode, EpisodeRules, EpisodeStatus, OnFault, TurnOutcome
from toolhone.episodes.policy import TokenPolicy
from toolhone.errors import BusyError
from toolhone.rewards.reward_registry import PhaseState, RewardResult, RewardSchedule
from toolhone.rows import Origin, Row
from toolhone.runs.run import Run
from toolhone.schema import Task
from toolhone.tools.registry import Registry
from toolhone.tools.result import BROKEN
from toolhone.training.advantages import Scale, group_relative_advantages, leave_one_out_by_turn
from toolhone.training.loop import Hooks, TrainState
from toolhone.training.prefill import curriculum_ratio, gold_prefix, retry_prefix

PROSPECTS = 32
"""Tasks whose prompts are looked at before step 1, to predict the memory of a step."""


@dataclass(frozen=True)
class RLEnv:
    """What an RL method works with.

    policy: makes a policy of a sampler and a seed. score: reward of an episode. rules: limits of an
    episode of a task. reference: policy of the KL term, None where its weight is 0. decode: ids to
    text, for logs. rewards: the schedule behind `score`, where rewards change during training.
    labelled: rows of PPO-ptx. by_turn: whether turns are credited with what they add to the reward.
    play: plays tasks: with the tools of the registry, or by agents. clock: where the time of a step
    goes.
    """

    tasks: Sequence[Task]
    registry: Registry
    policy: Callable[[Sampler, int], TokenPolicy]
    score: Callable[[Task, Episode], RewardResult]
    rules: Callable[[Task], EpisodeRules]
    reference: Sampler | None
    decode: Callable[[Sequence[int]], str]
    hooks: Hooks
    rewards: RewardSchedule | None = None
    labelled: Sequence[Row] = ()
    by_turn: bool = False
    play: PlayTasks = run_episodes
    clock: Clock = field(default_factory=Clock)

    def advance_rewards(self, state: TrainState, metrics: Mapping[str, float]) -> None:
        """Move the reward schedule to its next phase when that is due; keep its state."""
        if self.rewards is None:
            return
        if sentence := self.rewards.observe(state.step, metrics):
            self.hooks.progress.report(sentence)
        state.phase = asdict(self.rewards.state)

    def restore_rewards(self, run: Run, state: TrainState) -> None:
        """Resume in the phase of the checkpoint, with the scores of the last logged validation."""
        if self.rewards is None or not state.step:
            return
        if state.phase:
            self.rewards.state = PhaseState.from_dict(state.phase)
        validations = [line for line in run.metrics() if line["kind"] == "validation"]
        self.rewards.validated = dict(validations[-1]) if validations else {}


@dataclass(frozen=True)
class RolloutGroup:
    """The episodes of one task and their rewards. The last `retries` of them are second tries."""

    task: Task
    episodes: tuple[Episode, ...]
    results: tuple[RewardResult, ...] = ()
    retries: int = 0

    @property
    def rewards(self) -> list[float]:
        return [result.total for result in self.results]

    @property
    def first_tries(self) -> int:
        """How many episodes, from the front, are first tries: the baseline of the group."""
        return len(self.episodes) - self.retries

    def without_retries(self) -> RolloutGroup:
        count = self.first_tries
        return RolloutGroup(self.task, self.episodes[:count], self.results[:count])

    def without_failures(self) -> RolloutGroup:
        """Drop episodes that are not the policy's doing.

        They failed, hold no turn, or met a tool that did not answer, if no world injected that.
        """
        kept = [
            i
            for i, episode in enumerate(self.episodes)
            if episode.turns
            and episode.ending is not EpisodeStatus.FAILED
            and not any(
                one.outcome in BROKEN and not one.injected
                for each in episode.results
                for one in each
            )
        ]
        return RolloutGroup(
            self.task,
            tuple(self.episodes[i] for i in kept),
            tuple(self.results[i] for i in kept),
            sum(i >= self.first_tries for i in kept),
        )

    def advantages(self, scale: Scale, by_turn: bool) -> list[list[float]]:
        """The advantage of each turn of each episode: its own, or that of its episode."""
        if by_turn:
            turns = [result.turns for result in self.results]
            return leave_one_out_by_turn(turns, scale, self.first_tries)
        own = group_relative_advantages(self.rewards, scale, self.first_tries)
        return [[one] * len(e.turns) for one, e in zip(own, self.episodes, strict=True)]

    def rows(self, advantages: Sequence[Sequence[float]], step: int) -> list[Row]:
        """The rows of all episodes, with the advantage of each turn at its sampled tokens."""
        return [
            row
            for episode, own in zip(self.episodes, advantages, strict=True)
            for row in with_turn_advantages(
                rows_of(episode, f"{self.task.id}#{step}"),
                [len(turn.tokens) for turn in episode.turns],
                own,
            )
        ]


def with_turn_advantages(
    rows: Sequence[Row], lengths: Sequence[int], advantages: Sequence[float]
) -> list[Row]:
    """The rows of an episode with each turn's advantage at every token sampled in it.

    lengths: sampled tokens of each turn.
    """
    each, start, found = np.repeat(np.asarray(advantages, np.float32), lengths), 0, []
    for row in rows:
        values, count = np.zeros(len(row), np.float32), int(row.mask.sum())
        values[row.mask] = each[start : start + count]
        start += count
        found.append(row.with_arrays(advantages=values))
    return found


def rollout(
    env: RLEnv, sampler: Sampler, tasks: Sequence[Task], plan: Experiment, step: int
) -> list[RolloutGroup]:
    """Play each task `group_size` times with one prefill per group, then the retries."""
    rl = plan.training.rl
    policy = env.policy(sampler, plan.seed * 1_000_003 + step)
    rules = [env.rules(task) for task in tasks]
    if rl.curriculum.enabled:
        ratio = curriculum_ratio(rl.curriculum, step)
        prefills = [gold_prefix(policy, task, ratio) for task in tasks]
        rules = [replace(own, prefill=ids) for own, ids in zip(rules, prefills, strict=True)]
    episodes = env.play(
        policy,
        [task for task in tasks for _ in range(rl.group_size)],
        env.registry,
        [own for own in rules for _ in range(rl.group_size)],
        clock=env.clock,
    )
    starts = range(0, len(episodes), rl.group_size)
    played = [tuple(episodes[start : start + rl.group_size]) for start in starts]
    groups = [
        RolloutGroup(as_played(task, group), group)
        for task, group in zip(tasks, played, strict=True)
    ]
    return with_retries(groups, env, policy, rl) if rl.two_phase_samples_per_group else groups


def as_played(task: Task, episodes: Sequence[Episode]) -> Task:
    """The task with the messages and tools that its agents sent, where only they know them."""
    first = next((one.recording for one in episodes if one.turns and one.recording), None)
    if first is None or not isinstance(task, AgentTask):
        return task
    until = next((i for i, m in enumerate(first.messages) if m.role == "assistant"), None)
    return replace(task, messages=first.messages[:until], tools=first.tools)


def with_retries(
    groups: Sequence[RolloutGroup], env: RLEnv, policy: TokenPolicy, rl: RlSection
) -> list[RolloutGroup]:
    """Add at most `two_phase_samples_per_group` retries of failed episodes to each group."""
    chosen: list[tuple[int, Task, tuple[int, ...]]] = []
    for number, group in enumerate(groups):
        prefixes = (
            retry_prefix(policy, group.task, episode, rl.enforce_thinking)
            for episode in group.episodes
        )
        possible = (prefix for prefix in prefixes if prefix is not None)
        for prefix in islice(possible, rl.two_phase_samples_per_group):
            chosen.append((number, group.task, prefix))
    rules = [replace(env.rules(task), prefill=prefix) for _, task, prefix in chosen]
    first, tasks = sum(len(group.episodes) for group in groups), [task for _, task, _ in chosen]
    episodes = run_episodes(policy, tasks, env.registry, rules, first=first, clock=env.clock)
    retries: dict[int, list[Episode]] = {}
    for (number, _, _), episode in zip(chosen, episodes, strict=True):
        retries.setdefault(number, []).append(episode)
    return [
        RolloutGroup(group.task, (*group.episodes, *again), retries=len(again))
        for group, again in ((group, retries.get(i, [])) for i, group in enumerate(groups))
    ]


def score(groups: Sequence[RolloutGroup], env: RLEnv) -> list[RolloutGroup]:
    """The groups with the reward of every episode; one that cannot be computed is left out."""
    scored = []
    with env.clock.on("reward"):
        for group in groups:
            episodes, results = [], []
            for episode in group.episodes:
                try:
                    if episode.recording is not None and episode.recording.failure:
                        raise BusyError(episode.reason)
                    result = env.score(group.task, episode)
                    if env.by_turn:
                        turns = turn_rewards(env.score, group.task, episode, result.total)
                        result = replace(result, turns=turns)
                    results.append(result)
                except BusyError as error:
                    episode = replace(episode, ending=EpisodeStatus.FAILED, reason=str(error))
                    results.append(RewardResult(0.0, {}))
                episodes.append(episode)
            scored.append(replace(group, episodes=tuple(episodes), results=tuple(results)))
    return scored


def turn_rewards(
    score: Callable[[Task, Episode], RewardResult], task: Task, episode: Episode, total: float
) -> tuple[float, ...]:
    """What each turn adds: the reward of the episode up to it, minus that up to the turn before.

    They add up to the total.
    """
    count = len(episode.turns)
    so_far = [score(task, episode.prefix(turns)).total for turns in range(1, count)]
    each = pairwise([0.0, *so_far, total][: count + 1])
    return tuple(after - before for before, after in each)


def rows_of(episode: Episode, group: str | None = None) -> list[Row]:
    """The rows of one episode: trained where the model sampled, with `behavior_logprobs` there.

    `old_logprobs`, the policy that a ratio is taken against, starts out as the same. A turn extends
    the row before it when its prompt begins with that row; else it starts a row of its own.
    """
    rows: list[tuple[list[int], list[int], list[float]]] = []
    for turn in episode.turns:
        if not turn.tokens:
            continue
        extends = bool(rows) and list(turn.prompt[: len(rows[-1][0])]) == rows[-1][0]
        if not extends:
            rows.append(([], [], []))
        tokens, origins, logprobs = rows[-1]
        start = len(tokens)
        parts: tuple[tuple[Sequence[int], Origin, Sequence[float] | None], ...] = (
            (turn.prompt[start:], Origin.TOOL if extends else Origin.PROMPT, None),
            (turn.prefill, Origin.GIVEN, None),
            (turn.tokens, Origin.SAMPLED, turn.logprobs),
        )
        for ids, origin, sampled in parts:
            tokens += ids
            origins += [int(origin)] * len(ids)
            logprobs += [0.0] * len(ids) if sampled is None else sampled
    found = []
    for tokens, origins, logprobs in rows:
        behavior = np.asarray(logprobs, dtype=np.float32)
        row = Row.of(tokens, [origin == Origin.SAMPLED for origin in origins], origins)
        row = row.with_arrays(behavior_logprobs=behavior, old_logprobs=behavior)
        found.append(replace(row, group=group))
    return found


def rules_of(section: EpisodeSection, max_turns: int, to_the_end: bool) -> EpisodeRules:
    """The rules of an episode that an experiment asks for."""
    on_fault = {
        TurnOutcome.MALFORMED: OnFault(section.malformed),
        TurnOutcome.UNKNOWN_TOOL: OnFault(section.unknown_tool),
        TurnOutcome.BAD_ARGUMENTS: OnFault(section.bad_arguments),
        TurnOutcome.TRUNCATED: OnFault(section.truncated),
    }
    stop_tools, too_many = frozenset(section.stop_tools), OnFault(section.too_many_turns)
    turns = section.max_turns or max_turns
    return EpisodeRules(turns, not to_the_end, on_fault, stop_tools, too_many)


def rows_in_prospect(
    open_policy: Callable[[], TokenPolicy], tasks: Sequence[Task], plan: Experiment
) -> list[Row]:
    """The rows that groups of some tasks may become: a prompt and the longest reply."""
    rows, rl, policy = list[Row](), plan.training.rl, open_policy()
    for task in tasks[:PROSPECTS]:
        prompt = policy.open(task.messages, task.tools).tokens
        end = policy.max_context or len(prompt) + rl.max_completion_length
        reply = max(0, min(rl.max_completion_length, end - len(prompt)))
        mask = [False] * len(prompt) + [True] * reply
        for number in range(rl.group_size):  # no two alike, since equal rows run once
            row = Row.of([*prompt, *[number] * reply], mask)
            rows.append(replace(row, group=task.id))
    return rows
