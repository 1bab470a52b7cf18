"""Metrics and reports of an RL step: rewards, updates, time, and the advice they suggest.

Every name is explained in docs/algorithms/grpo.md and ppo.md.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence

import numpy as np

from toolhone.backends.base import Metrics
from toolhone.config.rl import RlSection
from toolhone.config.sections import Experiment
from toolhone.episodes.driver import Clock
from toolhone.episodes.episode import Episode
from toolhone.rewards.matching import judges_calls
from toolhone.rewards.reward_registry import PREFIX, RewardResult
from toolhone.rewards.tool_use import EpisodeView, select_reference
from toolhone.training.kept import kept_episode
from toolhone.training.loop import Loop
from toolhone.training.losses import own_means
from toolhone.training.prefill import curriculum_ratio, failure_of
from toolhone.training.rollout import RLEnv, RolloutGroup, rows_of
from toolhone.training.update import optimizer_at

SHOWN_EPISODES = 2
"""Episodes of each report that are kept in samples.jsonl, piece by piece."""
TREND_STEPS = 100
"""Steps after which a reward that has not risen is mentioned."""
MIN_HALF = 10
"""Fewest steps in each half of the window before a report compares them."""
GOOD_REWARD, MIN_RISE = 0.6, 0.02
"""Rewards above the first, and rises above the second between both halves, are not mentioned."""
MEANS_PER_TOKEN = {
    "clipped": "clip_share",
    "kl_sampled": "kl_sampled",
    "kl_reference": "kl_reference",
    "entropy": "entropy",
}
"""Sums of the loss that are logged per trained token, and their names in the log."""


def rollout_metrics(groups: Sequence[RolloutGroup]) -> Metrics:
    """Rewards and their parts, spread, statuses, lengths and calls of first tries.

    Rewards are of the episodes that are learned from; 0 where all are left out.
    """
    turns = [turn for group in groups for one in group.episodes for turn in one.turns]
    played = [group.without_failures() for group in groups]
    left_out = sum(len(group.episodes) for group in groups)
    left_out -= sum(len(group.episodes) for group in played)
    firsts = [group.without_retries() for group in groups]
    episodes = [episode for group in firsts for episode in group.episodes]
    played = [group.without_retries() for group in played]
    results = [result for group in played for result in group.results]
    totals = np.array([result.total for result in results] or [0.0])
    lengths = [sum(int(row.mask.sum()) for row in rows_of(episode)) for episode in episodes]
    metrics = {
        "reward": float(totals.mean()),
        "reward_deviation": float(totals.std()),
        "reply_tokens": float(np.mean(lengths)),
        "longest_reply": float(max(lengths)),
        "sampled_tokens": float(sum(len(turn.tokens) for turn in turns)),
        "turns": float(np.mean([len(episode.turns) for episode in episodes])),
        "calls": float(np.mean([len(episode.calls) for episode in episodes])),
        "left_out": float(left_out),
    }
    if any(len(group.episodes) > 1 for group in firsts):
        spreads = [float(np.std(group.rewards or [0.0])) for group in played]
        metrics["group_spread"] = float(np.mean(spreads))
        metrics["groups_without_signal"] = float(np.mean([spread < 1e-6 for spread in spreads]))
    metrics |= reward_means(results) | call_scores(played)
    statuses = Counter(episode.ending.value for episode in episodes)
    outcomes = Counter(outcome.value for episode in episodes for outcome in episode.outcomes)
    for kind, counts in (("ending", statuses), ("outcome", outcomes)):
        total = len(episodes) if kind == "ending" else outcomes.total()
        metrics |= {f"{kind}/{name}": n / total for name, n in sorted(counts.items())}
    return metrics | agent_counts(episodes)


def agent_counts(episodes: Sequence[Episode]) -> Metrics:
    """Of episodes that agents played: prefix breaks, ignored settings and failures, by name."""
    records = [episode.recording for episode in episodes if episode.recording is not None]
    if not records:
        return {}
    breaks, ignored = Counter[str](), Counter[str]()
    for record in records:
        breaks.update(record.breaks)
        ignored.update(record.ignored)
    failed = Counter(record.failure for record in records if record.failure)
    counts = {"prefix_breaks": breaks, "ignored": ignored, "failed": failed}
    metrics = {f"agent/{kind}": float(named.total()) for kind, named in counts.items()}
    for kind, named in counts.items():
        metrics |= {f"agent/{kind}/{name}": float(n) for name, n in sorted(named.items())}
    return metrics


def reward_means(results: Sequence[RewardResult]) -> Metrics:
    """`reward/NAME` of each reward, unweighted; `reward/NAME.PART` of its parts, which add up."""
    means = {
        name: float(np.mean([result.parts.get(name, 0.0) for result in results]))
        for name in sorted({key for result in results for key in result.parts})
    }
    for name, value in list(means.items()):
        whole, dot, _ = name.partition(".")
        if dot:
            means[whole] = means.get(whole, 0.0) + value
    return {f"{PREFIX}{name}": means[name] for name in sorted(means)}


def call_scores(groups: Sequence[RolloutGroup]) -> Metrics:
    """Accuracy of calls, whatever the rewards pay for.

    `right_tools`: wanted tools that were called, by the larger number of calls (as
    `tool_accuracy`). `right_calls`: share of episodes with exactly the wanted calls. A last turn
    that is unreadable or cut off counts as wrong for both. `calls_wanted`: mean number of wanted
    calls. Empty where no task is judged by calls.
    """
    judged = [
        (select_reference(group.task, episode), episode)
        for group in groups
        if judges_calls(group.task.expect)
        for episode in group.episodes
    ]
    if not judged:
        return {}
    views = [EpisodeView(task, episode) for task, episode in judged]
    wanted = [
        len(group.task.expect.wanted)
        for group in groups
        if judges_calls(group.task.expect)
        for _ in group.episodes
    ]
    return {
        "right_tools": float(
            np.mean([0.0 if view.is_broken else view.match.tool_score for view in views])
        ),
        "right_calls": float(np.mean([view.match.exact and not view.is_broken for view in views])),
        "calls_wanted": float(np.mean(wanted)),
    }


def prefill_metrics(groups: Sequence[RolloutGroup], rl: RlSection, step: int) -> Metrics:
    """The curriculum's share and prefilled tokens; how many first tries failed and were retried."""
    metrics = Metrics()
    firsts = [(g.task, episode) for g in groups for episode in g.without_retries().episodes]
    if rl.curriculum.enabled:
        given = [len(episode.turns[0].prefill) for _, episode in firsts if episode.turns]
        without = [
            not any(turn.prefill for one in g.without_retries().episodes for turn in one.turns[:1])
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

    `sampler_gap`, the mean of |log p - log p_behavior| per token of the first update, is logged
    where sampler and trainer had the same weights (`staleness` 0).
    """
    sums = Metrics()
    for one in passes:
        for name, value in one.items():
            sums[name] = sums.get(name, 0.0) + value
    tokens, updates = max(1.0, sums.get("tokens", 0.0)), sums.get("updates", 0.0)
    found = {new: sums[old] / tokens for old, new in MEANS_PER_TOKEN.items() if old in sums}
    found |= own_means(sums)
    if "ptx_tokens" in sums:
        found["ptx_loss"] = sums["ptx_nll"] / max(1.0, sums["ptx_tokens"])
    if "sampler_gap" in sums and not snapshot_age:
        found["sampler_gap"] = sums["sampler_gap"]
    if "grad_norm" in sums:
        found["grad_norm"] = sums["grad_norm"] / max(1.0, updates)
    return {
        "loss": sums.get("loss", 0.0) / max(1.0, updates),
        "updates": updates,
        "staleness": float(snapshot_age),
        **found,
        "trained_tokens": sums.get("tokens", 0.0),
        "skipped_updates": sums.get("skipped", 0.0),
    }


def with_seconds(metrics: Metrics, clock: Clock) -> Metrics:
    """The metrics with `seconds/NAME` of each part of the step, and tokens per second.

    `tokens_per_second/sample`: sampled tokens by the time of sampling. `tokens_per_second/step`:
    trained tokens, counted in every pass, by the time of the whole step.
    """
    seconds = clock.take()
    sampled = metrics.get("sampled_tokens", 0.0) / max(1e-9, seconds.get("sample", 0.0))
    trained = metrics["trained_tokens"] / max(1e-9, sum(seconds.values()))
    return {
        **metrics,
        **{f"seconds/{name}": round(taken, 3) for name, taken in seconds.items()},
        "tokens_per_second/sample": round(sampled, 1),
        "tokens_per_second/step": round(trained, 1),
    }


def report_rl(
    loop: Loop,
    env: RLEnv,
    trend: Trend,
    metrics: Metrics,
    groups: Sequence[RolloutGroup],
    advantages: Iterable[Sequence[float]] = (),
) -> None:
    """Log every step; show a report and keep some episodes when that is due.

    groups: none where nothing was played, and so no reward was measured. advantages: those of the
    turns of each episode that did not fail, in order of the groups.
    """
    plan, state = loop.run.experiment.training, loop.state
    loop.check_skipped(metrics["updates"], metrics["skipped_updates"])
    values = with_seconds(metrics, env.clock) | {
        "learning_rate": optimizer_at(plan, state.step - 1, loop.total).learning_rate,
        "seconds": round(state.seconds, 3),
    }
    loop.run.log("train", state.step, values)
    if groups:
        trend.add(metrics)
    if not loop.due(plan.log_every):
        return
    show = loop.hooks.progress.report
    reward = f" | Mean Reward: {metrics['reward']:z.3f}" if groups else ""
    show(f"Iteration {state.step}/{loop.total} | Loss: {metrics['loss']:z.3f}{reward}")
    for name in sorted(name.removeprefix(PREFIX) for name in metrics if name.startswith(PREFIX)):
        show(f"  {name}: {metrics[PREFIX + name]:z.3f}")
    if "kl_reference" in metrics:
        show(f"  kl_reference: {metrics['kl_reference']:.4f}")
    if (comparison := trend.comparison()) is not None:
        show(f"  {comparison}")
    if groups and (sentence := trend.advice(metrics)) is not None:
        show(f"  note: {sentence}")
    played = [one for group in groups for one in group.without_failures().episodes]
    credit = {id(one): own for one, own in zip(played, advantages)}
    kept = [
        kept_episode(each.task, episode, each.results[0], env.decode, credit.get(id(episode)))
        for each in groups[:SHOWN_EPISODES]
        for episode in each.episodes[:1]
    ]
    loop.run.log_samples(state.step, kept)


class Trend:
    """The rewards and losses of the last steps. A resumed run starts a new one."""

    def __init__(self, plan: Experiment | None = None) -> None:
        self.plan = plan or Experiment()
        self.rewards: deque[float] = deque(maxlen=TREND_STEPS)
        self.losses: deque[float] = deque(maxlen=TREND_STEPS)

    def add(self, metrics: Metrics) -> None:
        self.rewards.append(metrics["reward"])
        self.losses.append(metrics["loss"])

    def comparison(self) -> str | None:
        """The means of the later and of the earlier half of the last steps; None below 20 steps."""
        half = len(self.rewards) // 2
        if half < MIN_HALF:
            return None
        means = [
            np.array(values)[-2 * half :].reshape(2, half).mean(axis=1)
            for values in (self.rewards, self.losses)
        ]
        (reward, new_reward), (loss, new_loss) = means
        return (
            f"last {half} steps: mean reward {new_reward:z.3f} (the {half} before: {reward:z.3f}), "
            f"mean loss {new_loss:z.3f} ({loss:z.3f})"
        )

    def advice(self, metrics: Metrics) -> str | None:
        """One sentence about the most unusual metric; None where all are usual.

        It never advises what the experiment does already.
        """
        started, rl = self.plan.model.adapter is not None, self.plan.training.rl
        sft = "longer SFT" if started else "start with SFT"
        malformed, tools = metrics.get("outcome/malformed", 0.0), metrics.get("right_tools", 0.0)
        if malformed > 0.5:
            learn = (
                "train the format for longer (SFT)" if started else "train the format first (SFT)"
            )
            return f"{malformed:.0%} of the turns cannot be parsed: {learn}"
        wanted = metrics.get("calls_wanted", 0.0) > 0.5
        cut_off = metrics.get("ending/truncated", 0.0) > 0.3
        silent = metrics["calls"] < 0.05 and (wanted or metrics["reward"] < 0.1)
        if silent and not (started and cut_off):
            check = "or check the format with toolhone doctor --model"
            return f"almost no episode calls a tool: {sft}, {check}"
        if cut_off:
            return "many replies are truncated: raise training.rl.max_completion_length"
        if metrics.get("groups_without_signal", 0.0) > 0.9:
            return (
                "nearly all groups have equal rewards: the tasks are too easy or too hard; "
                "raise temperature or group_size"
            )
        if tools > 0.8 and metrics["right_calls"] < 0.5 * tools:
            functions = [*rl.reward.functions, *(f for p in rl.reward.phases for f in p.functions)]
            in_parts = not functions or {"tool_use", "right_calls"} & set(functions)
            parts = "" if in_parts else "reward arguments in parts (tool_use, right_calls), or "
            return f"right tools, wrong arguments: {parts}raise group_size"
        if self.is_flat():
            return (
                f"the reward has not risen for {TREND_STEPS} steps: change learning_rate, "
                f"raise temperature, or {sft}"
            )
        return None

    def is_flat(self) -> bool:
        """Tell whether the reward is low and no higher than in the first half of the window."""
        if len(self.rewards) < TREND_STEPS:
            return False
        before, after = np.split(np.array(self.rewards), 2)
        return bool(after.mean() < GOOD_REWARD and after.mean() - before.mean() < MIN_RISE)
