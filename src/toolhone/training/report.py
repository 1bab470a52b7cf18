"""What RL and DPO report while they train, and the advice that their metrics suggest.

The remedies are those of docs/algorithms/grpo.md and dpo.md. Nothing here changes a training.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from toolhone.backends.base import Metrics
from toolhone.rewards.schedule import PREFIX
from toolhone.training.loop import Loop, MetricsAccumulator
from toolhone.training.rl_metrics import with_seconds
from toolhone.training.rollout import RLEnv, RolloutGroup, provenance
from toolhone.training.update import optimizer_at

SHOWN_EPISODES = 2
"""Episodes of each report that are kept in samples.jsonl, piece by piece."""
TREND_STEPS = 100
"""Steps after which a reward that has not risen is mentioned."""
PER_PAIR = (
    "margin",
    "accuracy",
    "chosen_reward",
    "rejected_reward",
    "chosen_logp",
    "rejected_logp",
)
"""Metrics of the loss that are sums over pairs, and are logged as means."""
GOOD_REWARD, MIN_RISE = 0.6, 0.02
"""Rewards above the first, and rises above the second between both halves, are not mentioned."""


def report_rl(
    loop: Loop, env: RLEnv, trend: Trend, metrics: Metrics, groups: Sequence[RolloutGroup]
) -> None:
    """Log every step; show a report and keep some episodes when that is due."""
    plan, state = loop.run.experiment.training, loop.state
    loop.check_skipped(metrics["updates"], metrics["skipped_updates"])
    values = with_seconds(metrics, env.clock) | {
        "learning_rate": optimizer_at(plan, state.step - 1, loop.total).learning_rate,
        "seconds": round(state.seconds, 3),
    }
    loop.run.log("train", state.step, values)
    trend.add(metrics)
    if not loop.due(plan.log_every):
        return
    show = loop.hooks.progress.report
    show(
        f"Iteration {state.step}/{loop.total} | Loss {metrics['loss']:.4f} | "
        f"Mean Reward {metrics['reward']:.4f}"
    )
    for name in sorted(name.removeprefix(PREFIX) for name in metrics if name.startswith(PREFIX)):
        show(f"  {name}: {metrics[PREFIX + name]:.4f}")
    if (sentence := trend.advice(metrics)) is not None:
        show(f"  note: {sentence}")
    for group in groups[:SHOWN_EPISODES]:
        sample = {
            "id": group.task.id,
            "reward": group.rewards[0],
            "parts": dict(group.results[0].parts),
            "pieces": provenance(group.episodes[0], env.decode),
        }
        loop.run.log_samples(state.step, [sample])


class Trend:
    """The rewards of the last steps. A resumed run starts a new one."""

    def __init__(self) -> None:
        self.rewards: deque[float] = deque(maxlen=TREND_STEPS)

    def add(self, metrics: Metrics) -> None:
        self.rewards.append(metrics["reward"])

    def advice(self, metrics: Metrics) -> str | None:
        """One sentence about the most unusual metric; None where all are usual."""
        malformed, tools = metrics.get("outcome/malformed", 0.0), metrics.get("right_tools", 0.0)
        if malformed > 0.5:
            return f"{malformed:.0%} of the turns cannot be parsed: train the format first (SFT)"
        wanted = metrics.get("calls_wanted", 0.0) > 0.5
        if metrics["calls"] < 0.05 and (wanted or metrics["reward"] < 0.1):
            return (
                "almost no episode calls a tool: start with SFT, "
                "or check the format with toolhone doctor --model"
            )
        if metrics.get("ending/truncated", 0.0) > 0.3:
            return "many replies are truncated: raise training.rl.max_completion_length"
        if metrics.get("groups_without_signal", 0.0) > 0.9:
            return (
                "nearly all groups have equal rewards: the tasks are too easy or too hard; "
                "raise temperature or group_size"
            )
        if tools > 0.8 and metrics["right_calls"] < 0.5 * tools:
            return (
                "right tools, wrong arguments: reward arguments in parts (tool_use, right_calls), "
                "or raise group_size"
            )
        if self.is_flat():
            return (
                f"the reward has not risen for {TREND_STEPS} steps: change learning_rate, "
                "raise temperature, or start with SFT"
            )
        return None

    def is_flat(self) -> bool:
        """Tell whether the reward is low and no higher than in the first half of the window."""
        if len(self.rewards) < TREND_STEPS:
            return False
        before, after = np.split(np.array(self.rewards), 2)
        return bool(after.mean() < GOOD_REWARD and after.mean() - before.mean() < MIN_RISE)


def report_dpo(loop: Loop, sums: MetricsAccumulator) -> None:
    """Log means since the last report: per step, per pair, and the KL per chosen token."""
    state, plan = loop.state, loop.run.experiment.training
    means = {
        "loss": sums.mean("loss"),
        **{name: sums.mean(name, "pairs") for name in PER_PAIR},
        "kl_reference": sums.mean("kl_reference", "chosen_tokens"),
        "grad_norm": sums.mean("grad_norm"),
    }
    rest = {
        "learning_rate": optimizer_at(plan, state.step - 1, loop.total).learning_rate,
        "tokens_per_second": sums.tokens_per_second(),
        "trained_tokens": int(sums.sums.get("tokens", 0.0)),
        "skipped_steps": sums.skipped,
        "seconds": round(state.seconds, 3),
    }
    loop.run.log("train", state.step, {**means, **rest})
    loop.hooks.progress.report(
        f"Iteration {state.step}/{loop.total} | Loss {means['loss']:.4f} | "
        f"Margin {means['margin']:.3f} | Accuracy {means['accuracy']:.3f} | "
        f"{rest['tokens_per_second']:,.0f} tokens/s"
    )
    if sums.steps and (sentence := pair_advice(means, state.step / loop.total)) is not None:
        loop.hooks.progress.report(f"  note: {sentence}")


def pair_advice(means: Metrics, done: float) -> str | None:
    """What the means suggest after this share of the steps; None when nothing is unusual."""
    if means["chosen_reward"] < -1:
        return (
            f"the chosen replies become less likely too (reward {means['chosen_reward']:.1f}): "
            "raise training.rl.beta, or lower training.learning_rate"
        )
    if means["accuracy"] > 0.99 and means["loss"] < 0.01:
        return (
            "every pair is ranked correctly: further training only moves the policy away from "
            "its start; stop, or find harder pairs"
        )
    if done > 0.5 and means["accuracy"] < 0.55:
        return (
            "the pairs are hardly distinguished: raise training.learning_rate, "
            "or look at the pairs in the run folder (pairs.jsonl)"
        )
    return None
