"""What reinforcement learning asks of its surroundings, and what its methods share: the order of tasks, mini-batches, the watch.

Not a base trainer: `grpo`, `ppo` and `dpo` are read on their own, top to bottom; here are the pieces that are the same in each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from toolhone.backends.base import Metrics, Sampler, random_stream
from toolhone.episodes.clock import Clock
from toolhone.episodes.episode import Episode
from toolhone.episodes.outcome import EpisodeRules
from toolhone.episodes.policy import TokenPolicy
from toolhone.errors import RunError
from toolhone.rewards.registry import RewardResult
from toolhone.rewards.schedule import PREFIX, PhaseState, RewardSchedule
from toolhone.rows import Row
from toolhone.runs.run import Run
from toolhone.schema import Task
from toolhone.tools.registry import Registry
from toolhone.training.advice import Trend, call_scores
from toolhone.training.rollout import RolloutGroup, provenance, rows_of
from toolhone.training.sft import MOST_SKIPPED, Hooks, TrainState, due, optimizer_at

SHOWN_EPISODES = 2
"""Episodes of each report that are kept in samples.jsonl, piece by piece."""


@dataclass(frozen=True)
class RLEnv:
    """What a method of reinforcement learning works with.

    tasks: what it may play. policy: a policy for a sampler and a seed. score: what an episode earns, at a step. observe: told the
    mean of each reward after a step, so that phases can change. rules: how far a task is played. reference: the policy that the
    KL is measured against, None where its weight is 0. decode: ids to text, for the log. phases: which rewards hold, where they
    change while training goes on. labelled: rows that `ptx` learns on beside the reward. clock: told of where the time of a step
    goes. trend: what the rewards have done lately.
    """

    tasks: Sequence[Task]
    registry: Registry
    policy: Callable[[Sampler, int], TokenPolicy]
    score: Callable[[Task, Episode], RewardResult]
    observe: Callable[[int, Mapping[str, float]], None]
    rules: Callable[[Task], EpisodeRules]
    reference: Sampler | None
    decode: Callable[[Sequence[int]], str]
    hooks: Hooks
    phases: RewardSchedule | None = None
    labelled: Sequence[Row] = ()
    clock: Clock = field(default_factory=Clock)
    trend: Trend = field(default_factory=Trend)

    def remember(self, state: TrainState) -> None:
        """Note in the state of a run which phase of the rewards holds."""
        if self.phases is not None:
            state.phase = self.phases.state.to_dict()

    def restore(self, run: Run, resume_from: Path | None) -> None:
        """Go on in the phase that a checkpoint noted, with the scores of the last validation that the log holds."""
        if self.phases is None or resume_from is None:
            return
        if saved := run.state(resume_from).get("phase"):
            self.phases.state = PhaseState.from_dict(saved)
        validations = [line for line in run.metrics() if line["kind"] == "validation"]
        self.phases.validated = dict(validations[-1]) if validations else {}


def next_tasks(tasks: Sequence[Task], size: int, seed: int, step: int) -> list[Task]:
    """The tasks of one step: a new seeded permutation in every round, a pure function of (seed, step)."""
    places = range(step * size, (step + 1) * size)
    orders = {
        turn: random_stream(seed, 7, turn).permutation(len(tasks))
        for turn in {place // len(tasks) for place in places}
    }
    return [tasks[orders[place // len(tasks)][place % len(tasks)]] for place in places]


def mini_batches(
    groups: Sequence[Sequence[Row]], size: int | None, order: np.random.Generator
) -> Iterator[list[Row]]:
    """The rows of `size` groups at a time (None: all at once), in a drawn order; rows of one group stay together."""
    places = order.permutation(len(groups)).tolist()
    size = size or max(1, len(groups))
    for start in range(0, len(places), size):
        rows = [row for place in places[start : start + size] for row in groups[place]]
        if rows:
            yield rows


def with_ref_logprobs(
    rows: Sequence[Row], reference: Sampler | None, temperature: float
) -> list[Row]:
    """The rows with `ref_logprobs`, the reference policy's log-probabilities; as they are where there is none."""
    if reference is None:
        return list(rows)
    return [
        row.with_arrays(ref_logprobs=known)
        for row, known in zip(rows, reference.logprobs(rows, temperature), strict=True)
    ]


def sampler_gap(sampler: Sampler, rows: Sequence[Row], temperature: float) -> float:
    """The largest difference between the log-probability that a token was sampled with and what the trainer computes, in nats."""
    computed = sampler.logprobs(rows, temperature)
    gaps = [
        np.abs(np.where(row.mask, values - row.arrays["behavior_logprobs"], 0.0)).max()
        for row, values in zip(rows, computed, strict=True)
    ]
    return float(max(gaps, default=0.0))


def rollout_metrics(groups: Sequence[RolloutGroup]) -> Metrics:
    """What a step's first tries were like: rewards and their parts, spread, signal, endings, lengths and calls."""
    sampled = sum(
        len(turn.tokens) for group in groups for episode in group.episodes for turn in episode.turns
    )
    groups = [group.first_tries() for group in groups]
    paid = [one for group in groups for one in group.paid]
    episodes = [episode for group in groups for episode in group.episodes]
    totals = np.array([one.total for one in paid])
    spreads = [float(np.std(group.rewards)) for group in groups]
    lengths = [sum(int(row.mask.sum()) for row in rows_of(episode)) for episode in episodes]
    metrics = {
        "reward": float(totals.mean()),
        "reward_deviation": float(totals.std()),
        "reply_tokens": float(np.mean(lengths)),
        "longest_reply": float(max(lengths)),
        "sampled_tokens": float(sampled),
        "turns": float(np.mean([len(episode.turns) for episode in episodes])),
        "calls": float(np.mean([len(episode.calls) for episode in episodes])),
    }
    if any(len(group.episodes) > 1 for group in groups):
        metrics["group_spread"] = float(np.mean(spreads))
        metrics["groups_without_signal"] = float(np.mean([spread < 1e-6 for spread in spreads]))
    endings = Counter(episode.ending.value for episode in episodes)
    outcomes = Counter(outcome.value for episode in episodes for outcome in episode.outcomes)
    metrics |= reward_means(paid) | call_scores(groups)
    metrics |= {f"ending/{name}": count / len(episodes) for name, count in sorted(endings.items())}
    return metrics | {
        f"outcome/{name}": count / outcomes.total() for name, count in sorted(outcomes.items())
    }


def reward_means(paid: Sequence[RewardResult]) -> Metrics:
    """`reward/NAME` of each reward, unweighted, and `reward/NAME.PART` of its parts, which add up to it."""
    means = {
        name: float(np.mean([one.parts.get(name, 0.0) for one in paid]))
        for name in {key for one in paid for key in one.parts}
    }
    for name, value in list(means.items()):
        whole, dot, _ = name.partition(".")
        if dot:
            means[whole] = means.get(whole, 0.0) + value
    return {f"{PREFIX}{name}": means[name] for name in sorted(means)}


def update_means(sums: Metrics, updates: int) -> Metrics:
    """Means per token for what is counted in tokens, per update for the rest. Nothing was learned from when `updates` is 0."""
    tokens = max(1.0, sums.get("tokens", 0.0))
    per_token = {
        "clipped": "clip_share",
        "kl_sampled": "kl_sampled",
        "kl_reference": "kl_reference",
        "entropy": "entropy",
    }
    found = {new: sums[old] / tokens for old, new in per_token.items() if old in sums}
    if "ptx_tokens" in sums:
        found["ptx_loss"] = sums["ptx_nll"] / max(1.0, sums["ptx_tokens"])
    return {"loss": sums.get("loss", 0.0) / max(1, updates), "updates": float(updates), **found} | {
        "grad_norm": sums.get("grad_norm", 0.0) / max(1, updates),
        "trained_tokens": sums.get("tokens", 0.0),
        "skipped_updates": sums.get("skipped", 0.0),
    }


def timed(metrics: Metrics, clock: Clock) -> Metrics:
    """The metrics of a step with `seconds/NAME`, where its time went, and with tokens per second.

    `tokens_per_second/sample` are those sampled, by the time of sampling alone; `tokens_per_second/step` those learned from, by all
    of the step's time, counted in every pass.
    """
    seconds = clock.take()
    speeds = {"sample": (metrics["sampled_tokens"], seconds.get("sample", 0.0))}
    speeds["step"] = (metrics["trained_tokens"], sum(seconds.values()))
    found = {
        f"tokens_per_second/{name}": round(tokens / max(1e-9, taken), 1)
        for name, (tokens, taken) in speeds.items()
    }
    return {
        **metrics,
        **{f"seconds/{name}": round(taken, 3) for name, taken in seconds.items()},
        **found,
    }


def count_skipped_steps(metrics: Metrics, before: int) -> int:
    """How many steps in a row have changed nothing because no gradient was finite, this one included; too many stop the run."""
    if not metrics["updates"] or metrics["skipped_updates"] < metrics["updates"]:
        return 0 if metrics["updates"] else before
    if before + 1 >= MOST_SKIPPED:
        raise RunError(
            f"{MOST_SKIPPED} steps in a row had a loss or gradient that is not finite; lower training.learning_rate"
        )
    return before + 1


def report(
    metrics: Metrics,
    groups: Sequence[RolloutGroup],
    state: TrainState,
    total: int,
    run: Run,
    stage: RLEnv,
) -> None:
    """Log every step; tell, and keep episodes, when a report is due."""
    plan = run.experiment.training
    rate = optimizer_at(plan, state.step - 1, total).learning_rate
    run.log(
        "train", state.step, {**metrics, "learning_rate": rate, "seconds": round(state.seconds, 3)}
    )
    stage.trend.note(metrics)
    if not due(state.step, plan.log_every, total):
        return
    tell = stage.hooks.progress.report
    tell(
        f"Iteration {state.step}/{total} | Loss {metrics['loss']:.4f} | Mean Reward {metrics['reward']:.4f}"
    )
    for name in sorted(name.removeprefix(PREFIX) for name in metrics if name.startswith(PREFIX)):
        tell(f"  {name}: {metrics[PREFIX + name]:.4f}")
    if (sentence := stage.trend.advice(metrics)) is not None:
        tell(f"  note: {sentence}")
    for group in groups[:SHOWN_EPISODES]:
        pieces = provenance(group.episodes[0], stage.decode)
        run.log_samples(
            state.step,
            [
                {
                    "id": group.task.id,
                    "reward": group.rewards[0],
                    "parts": dict(group.paid[0].parts),
                    "pieces": pieces,
                }
            ],
        )
