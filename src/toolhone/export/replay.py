"""Compares two openings of one model on the same prompts.

    result = replay(model, other, replay_tasks(model.experiment, print))
    result.whole, result.sentence()          # True, "replayed 16 of 16 equal; ..."

Both answer greedily, without running tools. In float32 log-probabilities may differ by 1e-3, since
merged weights are rounded once; in a lower precision the ids alone decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from toolhone.api import Model
from toolhone.config.experiment import make_experiment
from toolhone.config.sections import Experiment
from toolhone.episodes.policy import Prompt, TokenPolicy, Turn
from toolhone.errors import DataError, UserError
from toolhone.schema import Json, Task
from toolhone.training.dataset import held_out_tasks

REPLAYED = 16
"""Number of prompts."""
LEAST = 8
"""Fewer prompts prove nothing."""
TOLERANCE = 1e-3
"""Difference of log-probabilities in float32."""


@dataclass(frozen=True)
class Replay:
    """`equal` of `read` prompts gave the same ids; `too_long` do not fit the context.

    first_difference: id of the first task that differed. largest_gap: largest difference of
    log-probabilities. tolerance: its limit; None if the ids alone decide.
    """

    read: int
    equal: int
    largest_gap: float
    tolerance: float | None
    too_long: int = 0
    first_difference: str = ""

    @property
    def whole(self) -> bool:
        close = self.tolerance is None or self.largest_gap <= self.tolerance
        return LEAST <= self.read == self.equal and close

    def sentence(self) -> str:
        parts = [
            f"replayed {self.equal} of {self.read} equal",
            f"log-probabilities differ by at most {self.largest_gap:.1e}",
        ]
        if self.too_long:
            parts.append(f"{self.too_long} prompts did not fit the context")
        if self.first_difference:
            parts.append(f"first difference at {self.first_difference}")
        if self.read < LEAST:
            parts.append(f"fewer than {LEAST} prompts prove nothing")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Json]:
        return {**asdict(self), "whole": self.whole}


def replay_tasks(plan: Experiment, report: Callable[[str], None]) -> list[Task]:
    """Return held-out tasks of the experiment, filled up from the built-in templates."""
    try:
        tasks = held_out_tasks(plan)
    except UserError as error:
        wrong = f"the run's own held-out prompts cannot be read ({error})"
        report(f"{wrong}; prompts from templates are used")
        tasks = []
    if len(tasks) < LEAST:
        templates = make_experiment({"data": {"samples": 200}}, "the built-in templates")
        tasks = [*tasks, *held_out_tasks(templates)[: REPLAYED - len(tasks)]]
    return tasks[:REPLAYED]


def replay(model: Model, other: Model, tasks: Sequence[Task]) -> Replay:
    """Answer the first turn of each task through both; compare ids and log-probabilities.

    A prompt that does not fit the context is tried with fewer tools.
    """
    most = model.experiment.evaluation.max_new_tokens
    policies = [_greedy(model, most), _greedy(other, most)]
    ready: dict[str, tuple[Prompt, Prompt]] = {}
    for task in tasks:
        messages = task.turns[0] if task.turns else task.messages
        if not messages:
            raise DataError(f"task {task.id}: it has no messages to replay")
        for tools in (task.tools, task.tools[:1], ()):
            first, second = (policy.open(messages, tools) for policy in policies)
            if policies[0].fits(first):
                ready[task.id] = (first, second)
                break
    sides = [[pair[side] for pair in ready.values()] for side in (0, 1)]
    turns: list[list[Turn]] = []
    for policy, prompts in zip(policies, sides, strict=True):
        stream, found = policy.stream(), dict[int, Turn]()
        for key, prompt in enumerate(prompts):
            stream.submit(key, prompt)
        while len(found) < len(prompts):
            found.update(stream.poll())
        turns.append([found[key] for key in range(len(prompts))])
    different, gaps = [], [0.0]
    for (name, pair), one, two in zip(ready.items(), *turns, strict=True):
        if pair[0].tokens != pair[1].tokens or one.tokens != two.tokens:
            different.append(name)
        else:
            gaps += [abs(a - b) for a, b in zip(one.logprobs, two.logprobs, strict=True)]
    exact = model.experiment.model.torch_dtype == "float32"
    equal, tolerance = len(ready) - len(different), TOLERANCE if exact else None
    difference, too_long = different[0] if different else "", len(tasks) - len(ready)
    return Replay(len(ready), equal, max(gaps), tolerance, too_long, difference)


def _greedy(model: Model, most: int) -> TokenPolicy:
    policy = model.policy()
    params = replace(policy.params, max_tokens=most, temperature=0.0, top_p=1.0, top_k=0)
    return TokenPolicy(policy.sampler, policy.dialect, policy.tokenizer, params, policy.max_context)
