"""The sections of episodes in an experiment file: `training.rl` (how they are played, rewarded and
learned from), `world` and `tool_results` (what answers calls) and `agent` (what plays them).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from toolhone.config.fields import AnchoredPath, Flag, Section, UserCode

STATEFUL = ("shop", "files", "calendar")
"""Worlds that generate tasks, which are judged by the final state."""
Kind = Literal["timeout", "error", "rate_limit", "empty", "malformed", "slow", "broken"]


class FailureSection(Section):
    """Failures that the world makes up, for the model to handle; each goes away when the call is
    made again."""

    rate: float = Field(0.0, ge=0, le=1)
    """share of the calls that fail"""
    kinds: list[Kind] = Field(
        default_factory=lambda: list[Kind](["timeout", "error", "rate_limit", "empty", "malformed"])
    )
    """what may happen, equally likely; 'broken' ends the episode, which is then left out"""
    slow_seconds: float = Field(0.5, ge=0, le=60)
    """how long a slow answer takes"""


class WorldSection(Section):
    """What answers the calls of an episode, where a task names no world of its own."""

    name: Literal["live", "replay", "simulated", "shop", "files", "calendar"] | None = None
    """live: the experiment's tools; replay: what each conversation of the data recorded; simulated:
    invented results that fit the tools; shop, files and calendar: small worlds with tasks of their
    own; none: the tools, played to the end only where an answer is expected"""
    unrecorded: Literal["error", "nearest", "simulate"] = "simulate"
    """replay: what a call gets that was not recorded: an error, the result of the nearest recorded
    call of its tool, or an invented one"""
    levels: list[int] | None = None
    """data.strategy 'world': difficulties of the tasks, from 1; none: all"""
    seed: int = Field(0, ge=0)
    """of simulated results and injected failures"""
    retries: float = Field(1.0, ge=0, le=1)
    """data.strategy 'world': share of failed calls that recorded conversations make again; at
    another one they give up, as agents do that were not taught better"""
    failures: FailureSection | None = None
    """none: those that a task names, if any; rate 0 switches these off"""


class ToolResultsSection(Section):
    """Where the results of tools are kept."""

    log: AnchoredPath | None = None
    """append every call and its result to this file"""
    cache: AnchoredPath | None = None
    """keep results here, and answer the same call from here"""
    replay: AnchoredPath | None = None
    """answer only from this log or cache; no tool is run"""


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


STRATEGY = "agent"
POSTED = "posted"
"""The reward that an agent posts for its session."""


class AgentSection(Section):
    """data.strategy agent: a program in any language plays the tasks against the policy.

    It is started once for each episode, with OPENAI_BASE_URL, OPENAI_API_KEY (which names the
    session) and the task as JSON on its standard input."""

    command: list[UserCode] = Field(default_factory=list)
    """program and arguments, without a shell: ["python", "agent.py"]; {prompt} in an argument is
    the text of the task"""
    tasks: AnchoredPath | int | None = None
    """a file of tasks (rows with `expect`) or of JSON objects of your own, one a line; or a number:
    the agent makes its task from {"number": N}"""
    reward: UserCode | None = None
    """posted (what the agent posts to /v1/sessions/KEY/reward), a reward by name, or
    'file.py:function'; none: training.rl.reward, else posted"""
    cwd: AnchoredPath | None = None
    """the folder that it runs in; none: the working folder"""
    timeout_s: float = Field(300.0, gt=0)
    """seconds that one episode may take"""
    parallel: int = Field(8, gt=0)
    """agents that run at once"""
    max_turns: int = Field(32, gt=0, le=1024)
    """most requests of one session that are answered"""
    patience_s: float = Field(10.0, ge=0)
    """seconds in a step that sampling waits, in all, for agents that are between two requests"""


def fault_of(
    agent: AgentSection, strategy: str, method: str, rl: RlSection, world: WorldSection
) -> str | None:
    """What in an experiment does not go with `data.strategy` agent; None where all does."""
    if strategy != STRATEGY:
        given = "agent is given, but data.strategy is"
        named = f"{given} {strategy!r}; set data.strategy=agent"
        return named if agent != AgentSection() else None
    rewards = rl.reward.functions or rl.reward.phases
    faults = {
        'data.strategy agent needs agent.command, such as ["python", "agent.py"]': not (
            agent.command and agent.command[0]
        ),
        "data.strategy agent needs agent.tasks: a file, or a number of tasks": (
            agent.tasks is None or (isinstance(agent.tasks, int) and agent.tasks < 2)
        ),
        f"data.strategy agent is for training.method grpo or ppo; it is {method!r}": (
            method not in ("grpo", "ppo")
        ),
        "agent.reward and training.rl.reward both name rewards; keep one": bool(
            agent.reward and rewards
        ),
        "training.rl.reward.credit 'turn' scores every prefix of an episode, and a session of an "
        "agent is scored as a whole; use 'episode'": rl.reward.credit == "turn",
        "training.rl.curriculum and training.rl.two_phase_samples_per_group begin replies with a "
        "part of the right answer, which an agent's tasks have not; leave them out": (
            rl.curriculum.enabled or rl.two_phase_samples_per_group > 0
        ),
        "training.rl.episode.max_turns and to_the_end do not hold for agents, which end an episode "
        "themselves; use agent.max_turns": (
            rl.episode.max_turns is not None or rl.episode.to_the_end is not None
        ),
        "world answers the calls of episodes, and an agent has tools of its own; leave it out": (
            world.name is not None or world.failures is not None
        ),
        "training.rl.ptx trains on labelled conversations, which data.strategy agent has not; "
        "leave it out": rl.ptx.coef > 0,
    }
    return next((fault for fault, found in faults.items() if found), None)
