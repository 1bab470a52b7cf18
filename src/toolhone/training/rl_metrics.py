"""Metrics of an RL step: what was played and earned, what the updates did, where the time went.

Every name is explained in docs/algorithms/grpo.md and ppo.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from toolhone.backends.base import Metrics
from toolhone.config.rl import RlSection
from toolhone.episodes.clock import Clock
from toolhone.rewards.episode_view import EpisodeView, select_reference
from toolhone.rewards.matching import judges_calls
from toolhone.rewards.registry import RewardResult
from toolhone.rewards.schedule import PREFIX
from toolhone.training.prefill import curriculum_ratio, failure_of
from toolhone.training.rollout import RolloutGroup, rows_of

MEANS_PER_TOKEN = {
    "clipped": "clip_share",
    "kl_sampled": "kl_sampled",
    "kl_reference": "kl_reference",
    "entropy": "entropy",
}
"""Sums of the loss that are logged per trained token, and their names in the log."""


def rollout_metrics(groups: Sequence[RolloutGroup]) -> Metrics:
    """Rewards and their parts, spread, statuses, lengths and calls of first tries."""
    turns = [turn for group in groups for one in group.episodes for turn in one.turns]
    kept = sum(len(group.without_failures().episodes) for group in groups)
    firsts = [group.without_retries() for group in groups]
    episodes = [episode for group in firsts for episode in group.episodes]
    results = [result for group in firsts for result in group.results]
    totals = np.array([result.total for result in results])
    lengths = [sum(int(row.mask.sum()) for row in rows_of(episode)) for episode in episodes]
    metrics = {
        "reward": float(totals.mean()),
        "reward_deviation": float(totals.std()),
        "reply_tokens": float(np.mean(lengths)),
        "longest_reply": float(max(lengths)),
        "sampled_tokens": float(sum(len(turn.tokens) for turn in turns)),
        "turns": float(np.mean([len(episode.turns) for episode in episodes])),
        "calls": float(np.mean([len(episode.calls) for episode in episodes])),
        "left_out": float(sum(len(group.episodes) for group in groups) - kept),
    }
    if any(len(group.episodes) > 1 for group in firsts):
        spreads = [float(np.std(group.rewards)) for group in firsts]
        metrics["group_spread"] = float(np.mean(spreads))
        metrics["groups_without_signal"] = float(np.mean([spread < 1e-6 for spread in spreads]))
    metrics |= reward_means(results) | call_scores(firsts)
    statuses = Counter(episode.ending.value for episode in episodes)
    outcomes = Counter(outcome.value for episode in episodes for outcome in episode.outcomes)
    for kind, counts in (("ending", statuses), ("outcome", outcomes)):
        total = len(episodes) if kind == "ending" else outcomes.total()
        metrics |= {f"{kind}/{name}": n / total for name, n in sorted(counts.items())}
    return metrics


def reward_means(results: Sequence[RewardResult]) -> Metrics:
    """`reward/NAME` of each reward, unweighted; `reward/NAME.PART` of its parts, which sum to it."""
    means = {
        name: float(np.mean([result.parts.get(name, 0.0) for result in results]))
        for name in {key for result in results for key in result.parts}
    }
    for name, value in list(means.items()):
        whole, dot, _ = name.partition(".")
        if dot:
            means[whole] = means.get(whole, 0.0) + value
    return {f"{PREFIX}{name}": means[name] for name in sorted(means)}


def call_scores(groups: Sequence[RolloutGroup]) -> Metrics:
    """Accuracy of calls, whatever the rewards pay for.

    `right_tools`: wanted tools that were called, by the larger number of calls (as
    `tool_accuracy`). `right_calls`: share of episodes with exactly the wanted calls.
    `calls_wanted`: mean number of wanted calls. Empty where no task is judged by calls.
    """
    judged = [
        (select_reference(group.task, episode), episode)
        for group in groups
        if judges_calls(group.task.expect)
        for episode in group.episodes
    ]
    if not judged:
        return {}
    matches = [EpisodeView(task, episode).match for task, episode in judged]
    wanted = [
        len(group.task.expect.wanted)
        for group in groups
        if judges_calls(group.task.expect)
        for _ in group.episodes
    ]
    return {
        "right_tools": float(np.mean([match.tool_score for match in matches])),
        "right_calls": float(np.mean([match.exact for match in matches])),
        "calls_wanted": float(np.mean(wanted)),
    }


def prefill_metrics(groups: Sequence[RolloutGroup], rl: RlSection, step: int) -> Metrics:
    """The curriculum's share and prefilled tokens; how many first tries failed and were retried."""
    metrics = Metrics()
    firsts = [(g.task, episode) for g in groups for episode in g.without_retries().episodes]
    if rl.curriculum.enabled:
        given = [len(episode.turns[0].given) for _, episode in firsts if episode.turns]
        without = [
            not any(turn.given for one in g.without_retries().episodes for turn in one.turns[:1])
            for g in groups
        ]
        metrics["curriculum_ratio"] = curriculum_ratio(rl.curriculum, step)
        metrics["given_tokens"] = float(np.mean(given)) if given else 0.0
        metrics["given_nothing"] = float(np.mean(without))
    if rl.two_phase_samples_per_group:
        retried = [result.total for g in groups for result in g.results[g.first_tries :]]
        failed = [failure_of(task, episode) is not None for task, episode in firsts]
        metrics["failed_first"] = float(np.mean(failed))
        metrics["continued"] = float(len(retried))
        metrics |= {"continued_reward": float(np.mean(retried))} if retried else {}
    return metrics


def update_means(passes: Sequence[Metrics], snapshot_age: int) -> Metrics:
    """Means over the updates of a step: per trained token, or per update. All 0 without updates.

    `sampler_gap`, the mean of |log p - log p_behavior| per token of the first update, is logged where
    sampler and trainer had the same weights (`staleness` 0).
    """
    sums = Metrics()
    for one in passes:
        for name, value in one.items():
            sums[name] = sums.get(name, 0.0) + value
    tokens, updates = max(1.0, sums.get("tokens", 0.0)), sums.get("updates", 0.0)
    found = {new: sums[old] / tokens for old, new in MEANS_PER_TOKEN.items() if old in sums}
    if "ptx_tokens" in sums:
        found["ptx_loss"] = sums["ptx_nll"] / max(1.0, sums["ptx_tokens"])
    if "sampler_gap" in sums and not snapshot_age:
        found["sampler_gap"] = sums["sampler_gap"]
    return {
        "loss": sums.get("loss", 0.0) / max(1.0, updates),
        "updates": updates,
        "staleness": float(snapshot_age),
        **found,
        "grad_norm": sums.get("grad_norm", 0.0) / max(1.0, updates),
        "trained_tokens": sums.get("tokens", 0.0),
        "skipped_updates": sums.get("skipped", 0.0),
    }


def with_seconds(metrics: Metrics, clock: Clock) -> Metrics:
    """The metrics with `seconds/NAME` of each part of the step, and tokens per second.

    `tokens_per_second/sample`: sampled tokens by the time of sampling. `tokens_per_second/step`:
    trained tokens, counted in every pass, by the time of the whole step.
    """
    seconds = clock.take()
    sampled = metrics["sampled_tokens"] / max(1e-9, seconds.get("sample", 0.0))
    trained = metrics["trained_tokens"] / max(1e-9, sum(seconds.values()))
    return {
        **metrics,
        **{f"seconds/{name}": round(taken, 3) for name, taken in seconds.items()},
        "tokens_per_second/sample": round(sampled, 1),
        "tokens_per_second/step": round(trained, 1),
    }
