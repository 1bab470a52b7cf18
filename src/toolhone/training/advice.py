"""What the numbers of reinforcement learning suggest, in a sentence: `train` says it beside its reports.

    trend = Trend()
    trend.note(metrics)              # after every step
    sentence = trend.advice(metrics) # None when nothing stands out

The remedies are those of docs/algorithms/grpo.md. Nothing here changes a training.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from toolhone.backends.base import Metrics
from toolhone.rewards.episode_view import EpisodeView, select_reference
from toolhone.rewards.matching import judges_calls
from toolhone.training.rollout import RolloutGroup

LONG = 100
"""Steps after which a reward that has not risen is named."""
GOOD, RISE = 0.6, 0.02
"""A reward that is good is not named, nor one that rose by so much from one half of those steps to the other."""


def call_scores(groups: Sequence[RolloutGroup]) -> Metrics:
    """How far tools were right, what share of episodes made the right calls as a whole, and how many calls were wanted.

    That does not depend on the rewards. Tools are counted as `tool_accuracy` counts them: wanted ones that were called, by the
    larger number of calls.
    """
    judged = [
        (group.task, episode)
        for group in groups
        if judges_calls(group.task.expect)
        for episode in group.episodes
    ]
    if not judged:
        return {}
    matches = [
        EpisodeView(select_reference(task, episode), episode).match for task, episode in judged
    ]
    return {
        "right_tools": float(np.mean([match.tool_score for match in matches])),
        "right_calls": float(np.mean([match.exact for match in matches])),
        "calls_wanted": float(np.mean([len(task.expect.wanted) for task, _ in judged])),
    }


@dataclass
class Trend:
    """The rewards of the last steps. A resumed run begins a new one."""

    rewards: deque[float] = field(default_factory=lambda: deque(maxlen=LONG))

    def note(self, metrics: Metrics) -> None:
        self.rewards.append(metrics["reward"])

    def advice(self, metrics: Metrics) -> str | None:
        """One sentence about what stands out most."""
        malformed, tools = metrics.get("outcome/malformed", 0.0), metrics.get("right_tools", 0.0)
        if malformed > 0.5:
            return f"{malformed:.0%} of the turns cannot be read: train the format first (SFT)"
        if metrics["calls"] < 0.05 and (
            metrics.get("calls_wanted", 0.0) > 0.5 or metrics["reward"] < 0.1
        ):
            return "almost no episode calls a tool: begin with SFT, or check the format with toolhone doctor --model"
        if metrics.get("ending/truncated", 0.0) > 0.3:
            return "many replies are cut off: raise training.rl.max_completion_length"
        if metrics.get("groups_without_signal", 0.0) > 0.9:
            return "nearly all groups earn the same: tasks are too easy or too hard, or raise temperature or group_size"
        if tools > 0.8 and metrics["right_calls"] < 0.5 * tools:
            return "right tools, wrong arguments: reward arguments in parts (tool_use, right_calls), or raise group_size"
        if self.stands_still():
            return f"the reward has not risen for {LONG} steps: change learning_rate, raise temperature, or begin with SFT"
        return None

    def stands_still(self) -> bool:
        """Whether the reward is low and was no lower in the first half of the last `LONG` steps."""
        if len(self.rewards) < LONG:
            return False
        before, after = np.split(np.array(self.rewards), 2)
        return bool(after.mean() < GOOD and after.mean() - before.mean() < RISE)
