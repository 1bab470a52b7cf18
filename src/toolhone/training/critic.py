"""The critic of PPO: the return of a turn, predicted before it is sampled.

    critic = open_critic(trainer, plan.training.rl.ppo)
    values = critic.predict(states)                      # one number per turn
    metrics = critic.fit(states, returns, values)
    state = critic.state(); critic.load_state(state)     # JSON, for resuming

Both critics are linear and solved exactly at each fit: `regression` on plain features of a turn,
for every backend; `value_head` on the policy's hidden state after the prompt (torch).
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from toolhone.backends.base import HeadTrainer, Metrics, Trainer
from toolhone.config.rl import PpoSection
from toolhone.episodes.episode import Episode
from toolhone.episodes.policy import Turn
from toolhone.errors import CapabilityError, RunError
from toolhone.schema import Task
from toolhone.tools.result import ToolResult, ToolStatus

Values = NDArray[np.float64]

WORDS, TOOLS = 96, 32
"""Hash buckets of user words and of tool names."""
KNOWN_TURNS = 4
"""Turns with a feature of their own; later ones share the last."""
PRIOR = 3.0
"""Weight of the present solution in a fit, as a number of turns."""
MIN_VARIANCE = 1e-4
"""Variance of returns below which there is nothing to explain."""


@dataclass(frozen=True)
class TurnState:
    """The start of a turn: its task, earlier turns with their results, and the prompt ids."""

    task: Task
    turns: tuple[Turn, ...]
    results: tuple[tuple[ToolResult, ...], ...]
    prompt: tuple[int, ...]


Inputs = Callable[[Sequence[TurnState]], Values]


class Critic(Protocol):
    """Predicts the reward from a turn to the end of its episode."""

    def predict(self, states: Sequence[TurnState]) -> list[float]: ...

    def fit(
        self, states: Sequence[TurnState], returns: Sequence[float], old_values: Sequence[float]
    ) -> Metrics:
        """Fit the returns; `old_values` are the predictions before. Returns `value_metrics`."""
        ...

    def state(self) -> dict[str, Any]:
        """The fitted weights, as JSON."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None: ...


def open_critic(trainer: Trainer, plan: PpoSection) -> Critic | None:
    """The critic of an experiment, not fitted yet; None for `critic: none`."""
    if plan.critic == "none":
        return None
    if plan.critic == "regression":
        return Regression("regression", features, FEATURES, plan.value_clip)
    if not trainer.can.value_head:
        raise CapabilityError(
            "training.rl.ppo.critic: this backend has no value_head for this model; "
            "use regression, which every backend has"
        )
    head = cast(HeadTrainer, trainer).critic("value_head")

    def states(states: Sequence[TurnState]) -> Values:
        return head.inputs([state.prompt for state in states]).astype(np.float64)

    return Regression("value_head", states, head.width, plan.value_clip)


def turn_states(task: Task, episode: Episode) -> list[TurnState]:
    """The start of each turn of an episode."""
    return [
        TurnState(task, episode.turns[:i], episode.results[:i], (*turn.prompt, *turn.prefill))
        for i, turn in enumerate(episode.turns)
    ]


def clipped_targets(returns: Values, old: Values, clip: float | None) -> Values:
    """Returns, moved to at most `clip` from the old value.

    PPO's clipped value loss, max((v - R)^2, (old + clamp(v - old, -clip, clip) - R)^2), is smallest
    where v has moved by `clip` towards R, which is the clipped target.
    """
    return returns if clip is None else old + np.clip(returns - old, -clip, clip)


def clipped_value_loss(values: Values, returns: Values, old: Values, clip: float | None) -> float:
    """The mean of PPO's clipped value loss; the mean squared error without a clip."""
    free = (values - returns) ** 2
    if clip is None:
        return float(free.mean())
    return float(np.maximum(free, (old + np.clip(values - old, -clip, clip) - returns) ** 2).mean())


def value_metrics(returns: Values, old: Values, new: Values, clip: float | None) -> Metrics:
    """Quality of the predictions.

    `explained_variance`: 1 - var(returns - old) / var(returns), of the predictions that advantages
    used; absent where returns do not vary. `value_loss`: clipped loss after the fit. `value`,
    `return`: means.
    """
    spread = float(returns.var())
    explained = (
        {"explained_variance": 1 - float((returns - old).var()) / spread}
        if spread > MIN_VARIANCE
        else {}
    )
    loss = clipped_value_loss(new, returns, old, clip)
    return {
        "value": float(old.mean()),
        "return": float(returns.mean()),
        "value_loss": loss,
        **explained,
    }


class Regression:
    """Ridge regression towards its present weights, on inputs float64 [turns, width].

    A fit solves min |X w - targets|^2 + PRIOR |w - present|^2 exactly: no learning rate, and old
    knowledge fades only where new turns contradict it. `name` is the kind of inputs.
    """

    def __init__(self, name: str, inputs: Inputs, width: int, clip: float | None) -> None:
        self._name, self._inputs, self._clip, self._fits = name, inputs, clip, 0
        self._weights: Values = np.zeros(width)

    def predict(self, states: Sequence[TurnState]) -> list[float]:
        return [float(value) for value in self._inputs(states) @ self._weights]

    def fit(
        self, states: Sequence[TurnState], returns: Sequence[float], old_values: Sequence[float]
    ) -> Metrics:
        wanted, old, clip = (
            np.asarray(returns, np.float64),
            np.asarray(old_values, np.float64),
            self._clip if self._fits else None,
        )
        inputs = self._inputs(states)
        self._weights = self._weights + _ridge(
            inputs, clipped_targets(wanted, old, clip) - inputs @ self._weights
        )
        self._fits += 1
        return value_metrics(wanted, old, inputs @ self._weights, clip)

    def state(self) -> dict[str, Any]:
        return {"kind": self._name, "fits": self._fits, "weights": self._weights.tolist()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        kind, width = state.get("kind"), len(state.get("weights", ()))
        if (kind, width) != (self._name, len(self._weights)):
            raise RunError(
                f"the checkpoint's critic is {kind!r} with {width} weights, this one "
                f"{self._name!r} with {len(self._weights)}; "
                "resume with the settings and the model of the run"
            )
        self._fits, self._weights = int(state["fits"]), np.asarray(state["weights"], np.float64)


def _ridge(inputs: Values, residuals: Values) -> Values:
    """The change of weights, float64 [width], that fits the residuals [turns]."""
    count, width = inputs.shape
    if count < width:
        return np.asarray(
            inputs.T @ np.linalg.solve(inputs @ inputs.T + PRIOR * np.eye(count), residuals)
        )
    return np.asarray(
        np.linalg.solve(inputs.T @ inputs + PRIOR * np.eye(width), inputs.T @ residuals)
    )


PLAIN = 6
FEATURES = PLAIN + KNOWN_TURNS + WORDS + TOOLS


def features(states: Sequence[TurnState]) -> Values:
    """float64 [turns, FEATURES]: bias, lengths and counts, turn number, user words, tool names."""
    rows = np.zeros((len(states), FEATURES))
    for row, state in zip(rows, states, strict=True):
        results = [result for turn in state.results for result in turn]
        failed = sum(result.outcome is not ToolStatus.OK for result in results)
        row[:PLAIN] = (
            1.0,
            math.log1p(len(state.prompt)) / 8,
            math.log1p(len(results)),
            math.log1p(failed),
            float(bool(results) and results[-1].outcome is not ToolStatus.OK),
            math.log1p(len(state.task.tools)) / 4,
        )
        row[PLAIN + min(len(state.turns), KNOWN_TURNS - 1)] = 1.0
        words = PLAIN + KNOWN_TURNS
        _spread(row[words : words + WORDS], _asked(state.task))
        _spread(row[words + WORDS :], [tool.name for tool in state.task.tools])
    return rows


def _spread(places: Values, words: Sequence[str]) -> None:
    """Feature hashing with signs, scaled to length 1 (Weinberger et al. 2009, arXiv:0902.2206)."""
    for word in words:
        hashed = zlib.crc32(word.encode())
        places[(hashed >> 1) % len(places)] += 1.0 if hashed & 1 else -1.0
    length = float(np.sqrt((places * places).sum()))
    if length:
        places /= length


def _asked(task: Task) -> list[str]:
    """Words of the last user message, numbers as one word, and the category of the task."""
    text = next(
        (message.content or "" for message in reversed(task.messages) if message.role == "user"), ""
    )
    words = ["0" if word.isdigit() else word for word in re.findall(r"\w+", text.lower())]
    return words + ([f"category {task.category}"] if task.category else [])
