"""The sections under `training.rl` of an experiment file: how episodes are played, rewarded and learned from.

Part of `sections`, whose rules they keep; `RlSection` is the whole.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WeightedRewards(Section):
    """Rewards and their weights."""

    functions: list[str] = Field(
        default_factory=list, description="names of rewards, or 'file.py:function'"
    )
    weights: list[float] = Field(
        default_factory=list, description="one for each function; empty: 1 each"
    )

    @model_validator(mode="after")
    def _one_weight_each(self) -> WeightedRewards:
        if self.weights and len(self.weights) != len(self.functions):
            raise ValueError(
                f"{len(self.functions)} reward functions have {len(self.weights)} weights; give one weight for each"
            )
        return self


class RewardPhase(WeightedRewards):
    """Rewards that hold for a while: for `steps` steps, or until a score passes a threshold."""

    steps: int | None = Field(None, gt=0)
    until: dict[str, float] | None = Field(
        None, description='for example {"tool_call_function": 0.9}'
    )


class RewardSection(WeightedRewards):
    """What an episode earns."""

    combine: Literal["sum", "average"] = Field(
        "sum", description="weighted sum, or weighted average"
    )
    phases: list[RewardPhase] = Field(
        default_factory=list, description="one after the other, in place of functions and weights"
    )

    @model_validator(mode="after")
    def _phases_or_functions(self) -> RewardSection:
        if self.phases and self.functions:
            raise ValueError(
                "training.rl.reward has both phases and functions; phases name their own functions"
            )
        return self


class CurriculumSection(Section):
    """GRPO, PPO: the beginning of the wanted calls is given: first `start_ratio` of them, falling to `end_ratio` over `steps`."""

    enabled: bool = False
    start_ratio: float = Field(1.0, ge=0, le=1)
    end_ratio: float = Field(0.0, ge=0, le=1)
    steps: int = Field(500, gt=0)


class PpoSection(Section):
    """What PPO has beside the other methods; docs/algorithms/ppo.md explains each number."""

    critic: Literal["regression", "value_head", "none"] = Field(
        "regression",
        description="what guesses the reward to come: a regression on features of the turn, a head on the model's hidden states "
        "(torch), or nothing: then an episode is compared with the mean of its group",
    )
    gamma: float = Field(
        1.0, gt=0, le=1, description="discount of a reward for each turn that it lies ahead"
    )
    lam: float = Field(
        0.95,
        ge=0,
        le=1,
        description="GAE's lambda: 1 trusts rewards alone, 0 the critic's next guess",
    )
    target_kl: float | None = Field(
        0.1,
        gt=0,
        description="end the passes of a step when the policy has moved this far (nats per token); none: never",
    )
    kl_penalty: Literal["fixed", "adaptive"] = Field(
        "fixed",
        description="whether training.rl.beta stays as it is, or is steered towards kl_target",
    )
    kl_target: float = Field(
        6.0,
        gt=0,
        description="KL to the reference that an adaptive beta aims at, in nats per episode",
    )
    value_clip: float | None = Field(
        0.2, gt=0, description="how far the critic's guess may move in one step; none: freely"
    )


class DpoSection(Section):
    """Variants of DPO; its beta is `training.rl.beta`."""

    loss_type: Literal["sigmoid", "ipo"] = Field(
        "sigmoid", description="the loss of DPO, or the square of IPO"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="how likely it is that a pair stands the wrong way round"
    )
    length_normalised: bool = Field(
        False, description="means over a side's tokens in place of sums; IPO always takes means"
    )
    rpo_alpha: float = Field(
        0.0,
        ge=0,
        description="weight of the chosen side's own loss, as in SFT; it keeps that side likely",
    )


class PtxSection(Section):
    """GRPO, PPO: labelled conversations that are learned on beside the reward (PPO-ptx), so that what SFT taught stays."""

    coef: float = Field(
        0.0,
        ge=0,
        description="weight of their loss beside that of the reward; 0: none are learned on",
    )
    batch_size: int = Field(
        16, gt=0, description="their rows in one optimiser step, or all where there are fewer"
    )


Then = Literal["feed_back", "stop", "penalise"]
Cost = Literal["stop", "penalise"]


class EpisodeSection(Section):
    """How far an episode goes. A fault's error goes back to the model (feed_back), ends the episode (stop), or ends and costs
    (penalise); a turn that was cut off and one turn too many end it in any case."""

    max_turns: int | None = Field(
        None, gt=0, description="most assistant turns; none: evaluation.max_turns"
    )
    to_the_end: bool | None = Field(
        None,
        description="run tools and play until an answer; none: where an answer is judged, else until the first calls",
    )
    malformed: Then = Field("feed_back", description="a turn that cannot be read")
    unknown_tool: Then = Field("feed_back", description="a call of a tool that is not on offer")
    bad_arguments: Then = Field("feed_back", description="arguments that break the tool's schema")
    truncated: Cost = Field(
        "stop", description="a turn that max_completion_length or the context cut off"
    )
    too_many_turns: Cost = Field(
        "stop",
        description="calls in the last turn that max_turns allows, with no answer behind them",
    )
    penalty: float = Field(
        0.5, ge=0, description="what a penalised turn takes from the episode's reward"
    )
    stop_tools: list[str] = Field(
        default_factory=list, description="tools whose call is the answer, such as final_answer"
    )


class RlSection(Section):
    """How episodes are sampled, rewarded and learned from; DPO uses `beta` and `dpo`, and of the rest what draws its own samples.

    There is no `constrained` here: under a grammar the log-probabilities of a sample are not those of the policy.
    """

    group_size: int = Field(8, gt=0, description="episodes of one task")
    max_completion_length: int = Field(256, gt=0, description="tokens of one reply")
    temperature: float = Field(1.0, gt=0)
    beta: float = Field(
        0.0, ge=0, description="weight of the KL to the reference; DPO's beta, where none means 0.1"
    )
    epsilon: float = Field(0.2, gt=0, description="lower clip of the ratio")
    epsilon_high: float | None = Field(None, gt=0, description="upper clip; none: epsilon")
    loss: Literal["grpo", "dapo", "dr_grpo", "gspo", "cispo"] = Field(
        "dapo", description="GRPO: which loss"
    )
    scale_rewards: Literal["deviation", "none"] = Field(
        "deviation", description="GRPO: divide rewards by their group's deviation"
    )
    inner_epochs: int = Field(1, gt=0, description="passes over the episodes of a step")
    mini_batch_size: int | None = Field(
        None, gt=0, description="tasks in one optimiser step; none: all of them"
    )
    sampler_refresh_every: int = Field(1, gt=0, description="steps between snapshots that sample")
    enforce_thinking: bool = Field(
        False, description="GRPO, PPO: every reply is given the opening of a thought to begin with"
    )
    two_phase_samples_per_group: int = Field(
        0,
        ge=0,
        description="GRPO, PPO: replies of a group that are continued after a failed first try",
    )
    new_phrasings: float = Field(
        0.5,
        ge=0,
        le=1,
        description="templates: share of tasks in phrasings that no conversation has",
    )
    episode: EpisodeSection = EpisodeSection()
    reward: RewardSection = RewardSection()
    curriculum: CurriculumSection = CurriculumSection()
    ppo: PpoSection = PpoSection()
    dpo: DpoSection = DpoSection()
    ptx: PtxSection = PtxSection()

    @model_validator(mode="after")
    def _fits_together(self) -> RlSection:
        if self.curriculum.enabled and self.enforce_thinking:
            raise ValueError(
                "training.rl.curriculum gives the beginning of the wanted calls, before which there is no thought, and "
                "training.rl.enforce_thinking gives that of a thought; keep one"
            )
        if self.ppo.kl_penalty == "adaptive" and not self.beta:
            raise ValueError(
                "training.rl.ppo.kl_penalty 'adaptive' starts from training.rl.beta, which is 0; give 0.05 or so"
            )
        return self
