"""The same prompts through two openings of one model: do they say the same?

    result = replay(model, other, replay_tasks(model.experiment, print))
    result.whole, result.sentence()          # True, "replayed 16 of 16 equal"

Held-out prompts of the run, else of the built-in templates, are answered greedily through both. Prompt ids and sampled ids must be
equal; log-probabilities are compared where they are. In float32 they may differ by 1e-3, since merged weights are rounded once; in
a lower precision the difference is told and the ids decide. A prompt that does not fit the context is tried with fewer tools. Tools
are not run: a reply is one turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from toolhone.api import Model
from toolhone.config.experiment import make_experiment
from toolhone.config.sections import Experiment
from toolhone.episodes.policy import Prompt, TokenPolicy, Turn
from toolhone.errors import DataError, UserError
from toolhone.schema import Json, Message, Task
from toolhone.training.dataset import held_out_tasks

REPLAYED = 16
"""Prompts that are replayed."""
LEAST = 8
"""Fewer than these prove nothing."""
TOLERANCE = 1e-3
"""Between log-probabilities in float32."""


@dataclass(frozen=True)
class Replay:
    """`equal` of `read` prompts gave the same ids; `too_long` were left out because they do not fit the context.

    `first_difference` is the prompt (the task's id) that differed first, empty where none did; `largest_gap` the largest difference
    of log-probabilities; `tolerance` what it may be, None where the ids alone decide.
    """

    read: int
    equal: int
    largest_gap: float
    tolerance: float | None
    too_long: int = 0
    first_difference: str = ""

    @property
    def whole(self) -> bool:
        return LEAST <= self.read == self.equal and (
            self.tolerance is None or self.largest_gap <= self.tolerance
        )

    def sentence(self) -> str:
        words = f"replayed {self.equal} of {self.read} equal; log-probabilities differ by at most {self.largest_gap:.1e}"
        words += f"; {self.too_long} prompts did not fit the context" if self.too_long else ""
        words += f"; first difference at {self.first_difference}" if self.first_difference else ""
        return words + (f"; fewer than {LEAST} prompts prove nothing" if self.read < LEAST else "")

    def to_dict(self) -> dict[str, Json]:
        return {
            "read": self.read,
            "equal": self.equal,
            "whole": self.whole,
            "too_long": self.too_long,
            "largest_gap": self.largest_gap,
            "tolerance": self.tolerance,
            "first_difference": self.first_difference,
        }


def replay_tasks(plan: Experiment, tell: Callable[[str], None]) -> list[Task]:
    """Held-out tasks of the experiment; from the built-in templates where it has too few, or its data cannot be read any more."""
    try:
        tasks = held_out_tasks(plan)
    except UserError as error:
        tell(
            f"the run's own held-out prompts cannot be read ({error}); prompts from templates are used"
        )
        tasks = []
    if len(tasks) < LEAST:
        built_in = held_out_tasks(
            make_experiment({"data": {"samples": 200}}, "the built-in templates")
        )
        tasks = [*tasks, *built_in[: REPLAYED - len(tasks)]]
    return tasks[:REPLAYED]


def replay(model: Model, other: Model, tasks: Sequence[Task]) -> Replay:
    """Answer the first turn of these tasks greedily through both and compare ids and log-probabilities."""
    most = model.experiment.evaluation.max_new_tokens
    policies = [_greedy(model, most), _greedy(other, most)]
    ready: dict[str, tuple[Prompt, Prompt]] = {}
    for task in tasks:
        for tools in (task.tools, task.tools[:1], ()):
            first, second = (policy.open(_opening(task), tools) for policy in policies)
            if policies[0].fits(first):
                ready[task.id] = (first, second)
                break
    turns = [
        _turns(policy, [pair[side] for pair in ready.values()])
        for side, policy in enumerate(policies)
    ]
    different, gaps = [], [0.0]
    for (name, pair), one, two in zip(ready.items(), *turns, strict=True):
        if pair[0].tokens != pair[1].tokens or one.tokens != two.tokens:
            different.append(name)
        else:
            gaps += [abs(a - b) for a, b in zip(one.logprobs, two.logprobs, strict=True)]
    exact = model.experiment.model.torch_dtype == "float32"
    equal, tolerance = len(ready) - len(different), TOLERANCE if exact else None
    return Replay(
        len(ready),
        equal,
        max(gaps),
        tolerance,
        len(tasks) - len(ready),
        different[0] if different else "",
    )


def _greedy(model: Model, most: int) -> TokenPolicy:
    policy = model.policy()
    params = replace(policy.params, max_tokens=most, temperature=0.0, top_p=1.0, top_k=0)
    return TokenPolicy(policy.sampler, policy.dialect, policy.tokenizer, params, policy.max_context)


def _opening(task: Task) -> tuple[Message, ...]:
    messages = task.turns[0] if task.turns else task.messages
    if not messages:
        raise DataError(f"task {task.id}: it has no messages to replay")
    return messages


def _turns(policy: TokenPolicy, prompts: Sequence[Prompt]) -> list[Turn]:
    stream, found = policy.stream(), dict[int, Turn]()
    for key, prompt in enumerate(prompts):
        stream.submit(key, prompt)
    while len(found) < len(prompts):
        found.update(stream.poll())
    return [found[key] for key in range(len(prompts))]
