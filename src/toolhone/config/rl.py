"""The sections under `training.rl` of an experiment file: how episodes are played, rewarded and
learned from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from toolhone.config.fields import Flag, Section, UserCode


class WeightedRewards(Section):
    """Rewards and their weights."""

    functions: Annotated[list[UserCode], Flag("--reward-functions")] = Field(default_factory=list)
    """names of rewards, or 'file.py:function'"""
    weights: Annotated[list[float], Flag("--reward-weights")] = Field(default_factory=list)
    """one for each function; empty: 1 each"""

    @model_validator(mode="after")
    def _one_weight_each(self) -> WeightedRewards:
        if self.weights and len(self.weights) != len(self.functions):
            raise ValueError(
                f"{len(self.functions)} reward functions have {len(self.weights)} weights; "
                "give one weight for each"
            )
        return self


class RewardPhase(WeightedRewards):
    """Rewards of a phase: for `steps` steps, or until a score passes a threshold."""

    steps: int | None = Field(None, gt=0)
    until: dict[str, float] | None = None
    """for example {"tool_call_function": 0.9}"""


class RewardSection(WeightedRewards):
    """What an episode earns."""

    combine: Literal["sum", "average"] = "sum"
    """weighted sum, or weighted average"""
    credit: Literal["episode", "turn"] = "episode"
    """GRPO, PPO: every turn is credited with the reward of its episode, or with what the reward
    rises from its start on"""
    phases: list[RewardPhase] = Field(default_factory=list)
    """one after the other, in place of functions and weights"""
    check: bool = True
    """GRPO, PPO: stop before step 1 where the right answer, in the format of the run, earns less
    than it can, or less than an attack"""

    @model_validator(mode="after")
    def _phases_or_functions(self) -> RewardSection:
        if self.phases and self.functions:
            raise ValueError(
                "training.rl.reward has both phases and functions; phases name their own functions"
            )
        return self


class CurriculumSection(Section):
    """GRPO, PPO: a prefix of the right calls is given: first `start_ratio` of them, falling to
    `end_ratio` over `steps`."""

    enabled: Annotated[bool, Flag("--curriculum-enabled")] = False
    """give a part of the answer, less and less"""
    start_ratio: Annotated[float, Flag("--curriculum-start-ratio")] = Field(1.0, ge=0, le=1)
    """share of the answer given at the start"""
    end_ratio: Annotated[float, Flag("--curriculum-end-ratio")] = Field(0.0, ge=0, le=1)
    """share of the answer given in the end"""
    steps: Annotated[int, Flag("--curriculum-steps", "--curriculum-taper-iters")] = Field(500, gt=0)
    """steps from start to end"""


class GrpoSection(Section):
    """What GRPO has beside the other methods; docs/algorithms/grpo.md explains each loss."""

    loss: Literal["grpo", "dapo", "dr_grpo", "gspo", "cispo"] = "dapo"
    """which loss"""
    scale_rewards: Literal["deviation", "none"] = "deviation"
    """divide rewards by their group's deviation"""


class PpoSection(Section):
    """What PPO has beside the other methods; docs/algorithms/ppo.md explains each number."""

    critic: Literal["regression", "value_head", "none"] = "regression"
    """predicts the reward to come: a regression on features of the turn, a head on the model's
    hidden states (torch), or nothing: then an episode is compared with the mean of its group"""
    gamma: float = Field(1.0, gt=0, le=1)
    """discount of a reward for each turn that it lies ahead"""
    lam: float = Field(0.95, ge=0, le=1)
    """GAE's lambda: 1 trusts rewards alone, 0 the critic's next prediction"""
    target_kl: float | None = Field(0.1, gt=0)
    """end the passes of a step when the policy has moved this far (nats per token); none: never"""
    kl_penalty: Literal["fixed", "adaptive"] = "fixed"
    """training.rl.beta stays as it is, or adapts towards kl_target"""
    kl_target: float = Field(6.0, gt=0)
    """KL to the reference that an adaptive beta aims at, in nats per episode"""
    value_clip: float | None = Field(0.2, gt=0)
    """how far the critic's prediction may move in one step; none: freely"""


class DpoSection(Section):
    """Variants of DPO; its beta is `training.rl.beta`."""

    loss_type: Literal["sigmoid", "ipo"] = "sigmoid"
    """the loss of DPO, or the square of IPO"""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """the probability that a pair is the wrong way round"""
    length_normalised: bool = False
    """means over a side's tokens in place of sums; IPO always takes means"""
    rpo_alpha: float = Field(0.0, ge=0)
    """weight of the chosen side's own loss, as in SFT; it keeps that side likely"""


class PtxSection(Section):
    """GRPO, PPO: labelled conversations that are trained on beside the reward (PPO-ptx), so that
    the model keeps what SFT taught."""

    coef: float = Field(0.0, ge=0)
    """weight of their loss beside that of the reward; 0: off"""
    batch_size: int = Field(16, gt=0)
    """their rows in one optimiser step, or all where there are fewer"""


Then = Literal["feed_back", "stop", "penalise"]
Cost = Literal["stop", "penalise"]


class EpisodeSection(Section):
    """How far an episode goes. A fault's error goes back to the model (feed_back), ends the episode
    (stop), or ends it at a cost (penalise); a turn that is cut off and one turn too many always end
    it."""

    max_turns: int | None = Field(None, gt=0)
    """most assistant turns; none: evaluation.max_turns"""
    to_the_end: bool | None = None
    """run tools and play until an answer; none: where an answer is scored, else until the first
    calls"""
    malformed: Then = "feed_back"
    """a turn that cannot be parsed"""
    unknown_tool: Then = "feed_back"
    """a call of a tool that is not on offer"""
    bad_arguments: Then = "feed_back"
    """arguments that break the tool's schema"""
    truncated: Cost = "stop"
    """a turn that max_completion_length or the context cut off"""
    too_many_turns: Cost = "stop"
    """calls in the last turn that max_turns allows, with no answer after them"""
    penalty: float = Field(0.5, ge=0)
    """what a penalised turn takes from the episode's reward"""
    stop_tools: list[str] = Field(default_factory=list)
    """tools whose call is the answer, such as final_answer"""


class RlSection(Section):
    """How episodes are sampled, rewarded and learned from; DPO uses `beta` and `dpo`, and the rest
    where it draws samples.

    There is no `constrained` here: under a grammar the log-probabilities of a sample are not those
    of the policy."""

    group_size: Annotated[int, Flag("--group-size")] = Field(8, gt=0)
    """episodes of one task"""
    max_completion_length: Annotated[int, Flag("--max-completion-length")] = Field(256, gt=0)
    """tokens of one reply"""
    temperature: Annotated[float, Flag("--temperature")] = Field(1.0, gt=0)
    """of sampling"""
    beta: Annotated[float, Flag("--beta")] = Field(0.0, ge=0)
    """weight of the KL to the reference; DPO's beta, where none means 0.1"""
    track_kl: bool = False
    """GRPO, PPO: measure the KL to the reference also where beta is 0; one more forward pass over
    the rows of every step, and a copy of what is trained"""
    epsilon: Annotated[float, Flag("--epsilon")] = Field(0.2, gt=0)
    """lower clip of the ratio"""
    epsilon_high: Annotated[float | None, Flag("--epsilon-high")] = Field(None, gt=0)
    """upper clip of the ratio; none: epsilon"""
    inner_epochs: int = Field(1, gt=0)
    """passes over the episodes of a step"""
    mini_batch_size: int | None = Field(None, gt=0)
    """tasks in one optimiser step; none: all of them"""
    sampler_refresh_every: int = Field(1, gt=0)
    """steps between snapshots that sample"""
    enforce_thinking: Annotated[bool, Flag("--enforce-thinking")] = False
    """GRPO, PPO: every reply starts with the given opening of a thought"""
    two_phase_samples_per_group: Annotated[int, Flag("--two-phase-samples-per-group")] = Field(
        0, ge=0
    )
    """GRPO, PPO: replies of a group that are continued after a failed first try"""
    new_phrasings: float = Field(0.5, ge=0, le=1)
    """templates: share of tasks in phrasings that no conversation has"""
    episode: EpisodeSection = EpisodeSection()
    reward: RewardSection = RewardSection()
    curriculum: CurriculumSection = CurriculumSection()
    grpo: GrpoSection = GrpoSection()
    ppo: PpoSection = PpoSection()
    dpo: DpoSection = DpoSection()
    ptx: PtxSection = PtxSection()

    @model_validator(mode="after")
    def _fits_together(self) -> RlSection:
        if self.curriculum.enabled and self.enforce_thinking:
            raise ValueError(
                "training.rl.curriculum gives a prefix of the right calls, before which there is "
                "no thought, and "
                "training.rl.enforce_thinking gives the opening of a thought; keep one"
            )
        if self.ppo.kl_penalty == "adaptive" and not self.beta:
            raise ValueError(
                "training.rl.ppo.kl_penalty 'adaptive' starts from training.rl.beta, which is 0; "
                "give 0.05 or so"
            )
        return self
