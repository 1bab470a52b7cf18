"""The section `agent` of an experiment file: a program of the user that plays the tasks."""

from __future__ import annotations

from pydantic import Field

from toolhone.config.fields import AnchoredPath, Section, UserCode
from toolhone.config.rl import RlSection
from toolhone.config.world import WorldSection

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
