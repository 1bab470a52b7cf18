"""The critic of PPO: what a turn may be expected to earn, guessed before it is spoken.

    critic = open_critic(trainer, plan.training.rl.ppo)
    values = critic.predict(moments)                     # one number for each moment
    metrics = critic.fit(moments, returns, values)       # learn what was earned after all
    state = critic.state(); critic.load_state(state)     # JSON, for resuming

A `TurnState` is where a turn begins, and holds only what is known then. Both critics are linear, and solved exactly at each fit:
`regression` on plain features of the moment, which needs no backend; `value_head` on the policy's own hidden state after the prompt
(`trainer.critic("value_head")`, where `Capabilities.value_head` is set). How far a guess moves in one fit is clipped, as in PPO's
value loss: without bound in the first, when there is no guess yet.

What is not here: advantages (`advantages.generalised`), and a critic that is a language model of its own.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
"""Places that words of the user, and names of tools, are hashed to."""
KNOWN_TURNS = 4
"""Turns that have a feature of their own; later ones share the last."""
PRIOR = 3.0
"""What the present weights count for in a fit, as a number of turns: a turn seen this often has half the say."""
LEAST_SPREAD = 1e-4
"""Variance of returns below which there is nothing to explain."""


@dataclass(frozen=True)
class TurnState:
    """Where a turn begins: the task, the turns before with the results of their calls, and the ids that sampling went on from."""

    task: Task
    turns: tuple[Turn, ...]
    results: tuple[tuple[ToolResult, ...], ...]
    prompt: tuple[int, ...]


Inputs = Callable[[Sequence[TurnState]], Values]


class Critic(Protocol):
    """Guesses what will be earned from a moment to the end of its episode."""

    def predict(self, moments: Sequence[TurnState]) -> list[float]: ...

    def fit(
        self, moments: Sequence[TurnState], returns: Sequence[float], old_values: Sequence[float]
    ) -> Metrics:
        """Learn the returns; `old_values` are what it said of these moments before. Metrics: `value_metrics`'s."""
        ...

    def state(self) -> dict[str, Any]:
        """All that it has learned, as JSON."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None: ...


def open_critic(trainer: Trainer, plan: PpoSection) -> Critic | None:
    """The critic that an experiment asks for, knowing nothing yet; None where episodes are compared within their group."""
    if plan.critic == "none":
        return None
    if plan.critic == "regression":
        return Regression("regression", features, FEATURES, plan.value_clip)
    if not trainer.can.value_head:
        raise CapabilityError(
            "training.rl.ppo.critic: this backend has no value_head for this model; use regression, which runs everywhere"
        )
    head = cast(HeadTrainer, trainer).critic("value_head")

    def states(moments: Sequence[TurnState]) -> Values:
        return head.inputs([moment.prompt for moment in moments]).astype(np.float64)

    return Regression("value_head", states, head.width, plan.value_clip)


def turn_states(task: Task, episode: Episode) -> list[TurnState]:
    """Where each turn of an episode begins."""
    return [
        TurnState(task, episode.turns[:i], episode.results[:i], (*turn.prompt, *turn.given))
        for i, turn in enumerate(episode.turns)
    ]


def clipped_targets(returns: Values, old: Values, clip: float | None) -> Values:
    """Returns, but none further than `clip` from the old value.

    PPO's clipped value loss, max((v - R)^2, (old + clamp(v - old, -clip, clip) - R)^2), stops falling where v has moved by `clip`
    towards R; so a value that fits the clipped target has the smallest loss, and has moved no further than it must.
    """
    return returns if clip is None else old + np.clip(returns - old, -clip, clip)


def clipped_value_loss(values: Values, returns: Values, old: Values, clip: float | None) -> float:
    """The mean of PPO's clipped value loss (see `clipped_targets`); the mean squared error without a clip. float64 [turns] each."""
    free = (values - returns) ** 2
    if clip is None:
        return float(free.mean())
    return float(np.maximum(free, (old + np.clip(values - old, -clip, clip) - returns) ** 2).mean())


def value_metrics(returns: Values, old: Values, new: Values, clip: float | None) -> Metrics:
    """How good the guesses were, and are.

    `explained_variance`: 1 - var(returns - old) / var(returns), of the guesses that the advantages were made with; absent where the
    returns do not vary. `value_loss`: the clipped loss after the fit. `value`, `return`: means.
    """
    spread = float(returns.var())
    explained = (
        {"explained_variance": 1 - float((returns - old).var()) / spread}
        if spread > LEAST_SPREAD
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
    """Ridge regression towards its present weights, on `inputs` of a moment, float [moments, width].

    A fit solves min |X w - targets|^2 + PRIOR |w - present|^2 exactly, so that there is no learning rate, and what was learned
    fades only where new turns speak against it. Deterministic; float64. `name` says what kind of inputs they are.
    """

    def __init__(self, name: str, inputs: Inputs, width: int, clip: float | None) -> None:
        self._name, self._inputs, self._clip, self._fits = name, inputs, clip, 0
        self._weights: Values = np.zeros(width)

    def predict(self, moments: Sequence[TurnState]) -> list[float]:
        return [float(value) for value in self._inputs(moments) @ self._weights]

    def fit(
        self, moments: Sequence[TurnState], returns: Sequence[float], old_values: Sequence[float]
    ) -> Metrics:
        wanted, old, clip = (
            np.asarray(returns, np.float64),
            np.asarray(old_values, np.float64),
            self._clip if self._fits else None,
        )
        inputs = self._inputs(moments)
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
                f"the checkpoint's critic is {kind!r} with {width} weights, this one {self._name!r} with {len(self._weights)}; "
                "resume with the settings and the model of the run"
            )
        self._fits, self._weights = int(state["fits"]), np.asarray(state["weights"], np.float64)


def _ridge(inputs: Values, missing: Values) -> Values:
    """float64 [width]: the change of the weights that brings `missing` [moments] nearest, each unit of it paid with `PRIOR`."""
    count, width = inputs.shape
    if count < width:
        return np.asarray(
            inputs.T @ np.linalg.solve(inputs @ inputs.T + PRIOR * np.eye(count), missing)
        )
    return np.asarray(
        np.linalg.solve(inputs.T @ inputs + PRIOR * np.eye(width), inputs.T @ missing)
    )


PLAIN = 6
FEATURES = PLAIN + KNOWN_TURNS + WORDS + TOOLS


def features(moments: Sequence[TurnState]) -> Values:
    """float64 [moments, FEATURES]: bias, lengths and counts so far, which turn it is, words of the user, tools on offer."""
    rows = np.zeros((len(moments), FEATURES))
    for row, moment in zip(rows, moments, strict=True):
        results = [result for turn in moment.results for result in turn]
        failed = sum(result.outcome is not ToolStatus.OK for result in results)
        row[:PLAIN] = (
            1.0,
            math.log1p(len(moment.prompt)) / 8,
            math.log1p(len(results)),
            math.log1p(failed),
            float(bool(results) and results[-1].outcome is not ToolStatus.OK),
            math.log1p(len(moment.task.tools)) / 4,
        )
        row[PLAIN + min(len(moment.turns), KNOWN_TURNS - 1)] = 1.0
        words = PLAIN + KNOWN_TURNS
        _spread(row[words : words + WORDS], _asked(moment.task))
        _spread(row[words + WORDS :], [tool.name for tool in moment.task.tools])
    return rows


def _spread(places: Values, words: Sequence[str]) -> None:
    """Count each word at the place and with the sign that its hash says (Weinberger et al. 2009, arXiv:0902.2206); length 1."""
    for word in words:
        hashed = zlib.crc32(word.encode())
        places[(hashed >> 1) % len(places)] += 1.0 if hashed & 1 else -1.0
    length = float(np.sqrt((places * places).sum()))
    if length:
        places /= length


def _asked(task: Task) -> list[str]:
    """The words of the last user message, numbers as one word, and the category of the task."""
    said = next(
        (message.content or "" for message in reversed(task.messages) if message.role == "user"), ""
    )
    return [*_words(said), *([f"category {task.category}"] if task.category else [])]


def _words(text: str) -> Iterator[str]:
    for word in re.findall(r"\w+", text.lower()):
        yield "0" if word.isdigit() else word
