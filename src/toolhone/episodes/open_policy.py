"""A policy as an experiment's `evaluation` section asks for it, and what its prompts show of tools
that the model knows by heart.

    policy = open_policy(sampler, dialect, tokenizer, plan, max_context, registry.tools)
    policy.showing(KnownTools(ToolDetail.NAMES, registry.tools))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolhone.backends.base import Sampler, SamplingParams
from toolhone.backends.constraint import Grammars
from toolhone.config.sections import Experiment
from toolhone.config.teachers import ToolDetail
from toolhone.dialects.base import Dialect
from toolhone.episodes.policy import TokenPolicy
from toolhone.schema import Tool
from toolhone.tokenizer import TextTokenizer


@dataclass(frozen=True)
class KnownTools:
    """`known` are shown in this detail; a tool that differs from them in anything, in full.

    Turns are read with the whole tools either way, and grammars are written with them.
    """

    detail: ToolDetail
    known: Sequence[Tool]

    @staticmethod
    def of(plan: Experiment, tools: Sequence[Tool]) -> KnownTools:
        """As an evaluation shows the tools of the experiment: as after the baking, if it bakes."""
        bake = plan.training.bake
        usual = ToolDetail.FULL if bake is None else bake.goal
        return KnownTools(plan.evaluation.tools_in_prompt or usual, tools)

    def __call__(self, tools: Sequence[Tool]) -> tuple[Tool, ...]:
        """The tools as the prompt shows them."""
        if self.detail is ToolDetail.FULL:
            return tuple(tools)
        by_name = {tool.name: tool for tool in self.known}
        shown = []
        for tool in tools:
            if by_name.get(tool.name) != tool:
                shown.append(tool)
            elif self.detail is ToolDetail.NAMES:
                shown.append(Tool(tool.name))
        return tuple(shown)


def open_policy(
    sampler: Sampler,
    dialect: Dialect,
    tokenizer: TextTokenizer,
    plan: Experiment,
    context: int,
    tools: Sequence[Tool],
) -> TokenPolicy:
    """A policy that samples as the `evaluation` section says; `tools` are the experiment's."""
    wanted = plan.evaluation
    params = SamplingParams(
        wanted.max_new_tokens, wanted.temperature, wanted.top_p, wanted.top_k, seed=plan.seed
    )
    grammars = Grammars(dialect, tokenizer).text if wanted.constrained else None
    policy = TokenPolicy(sampler, dialect, tokenizer, params, context, grammars)
    return policy.showing(KnownTools.of(plan, tools))
