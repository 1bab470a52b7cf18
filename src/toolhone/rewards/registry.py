"""Every reward that has a name: what it pays for, where it comes from, and the holes it is known to have.

    LIBRARY["tool_use"].function(task, episode)      {"tools": 0.3, "arguments": 0.4, "exact": 0.3, ...}
    describe("tool_call_function")                   all about it, as JSON
    warnings_for(["tool_call_function"])             what to say before training on it alone

A hole is an attack of `attacks` that earns as much as a right answer, or far more than it is worth; the suite finds them, and a
test holds that those listed here are those found. Our own rewards have none. Rewards of the user's own are not here: see `own`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from toolhone.config.user_code import is_user_code
from toolhone.errors import ConfigError, nearest
from toolhone.rewards import known_exploits as holes
from toolhone.rewards import legacy_guided as guided
from toolhone.rewards import tool_use
from toolhone.rewards.legacy_json_answer import json_answer
from toolhone.rewards.legacy_playground import legacy_playground_format
from toolhone.rewards.legacy_texts import as_known, is_known
from toolhone.rewards.reward_spec import Function, RewardOrigin, RewardSpec
from toolhone.schema import Json, Task

_LEAST = -2.85
"""All fines together, and a call where none is wanted."""


def _own(
    name: str,
    function: Function,
    formula: str,
    judges: Callable[[Task], bool] = tool_use.wants_calls_or_none,
) -> RewardSpec:
    return RewardSpec(
        name,
        function,
        RewardOrigin.OWN,
        f"{formula}; less fines",
        "Toolhone",
        (_LEAST, 1.0),
        judges,
    )


def _guided(name: str, function: Function, formula: str, holes: Mapping[str, str]) -> RewardSpec:
    source = "mlx-guided-grpo (MIT), examples/tool_calling_training.md"
    return RewardSpec(
        name,
        as_known(function),
        RewardOrigin.COMPATIBLE,
        formula,
        source,
        (0.0, 1.0),
        is_known,
        "calls",
        holes,
    )


OWN = (
    _own(
        "tool_use",
        tool_use.tool_use,
        "right_calls and right_answer, each half where a task asks for both",
        tool_use.judges,
    ),
    _own(
        "right_calls",
        tool_use.right_calls,
        "0.3 tools + 0.4 arguments + 0.3 exact, or 1 for no call where none is wanted",
    ),
    _own(
        "right_tools",
        tool_use.right_tools,
        "0.5 tools + 0.25 arguments + 0.25 exact, or 1 for no call where none is wanted",
    ),
    _own(
        "exact_calls",
        tool_use.exact_calls,
        "1 for exactly the wanted calls, or for no call where none is wanted",
    ),
    _own(
        "working_calls",
        tool_use.working_calls,
        "0.3 wanted calls that ran + 0.4 those of them that are right + 0.3 if all are",
    ),
    _own(
        "right_answer",
        tool_use.right_answer,
        "1 for the expected answer in the final text, 1/k among k candidates",
        tool_use.judges_answers,
    ),
)
COMPATIBLE = (
    _guided(
        "tool_call_exact",
        guided.tool_call_exact,
        "1 if the reply is the wanted text but for case and white space",
        holes.TOOL_CALL_EXACT,
    ),
    _guided(
        "tool_call_function",
        guided.tool_call_function,
        "wanted names that occur among the called / wanted names",
        holes.TOOL_CALL_FUNCTION,
    ),
    _guided(
        "tool_call_params",
        guided.tool_call_params,
        "share of wanted parameters, place by place",
        holes.TOOL_CALL_PARAMS,
    ),
    _guided(
        "tool_call_overall",
        guided.tool_call_overall,
        "0.4 names + 0.4 parameters + 0.2 all the same, place by place",
        holes.TOOL_CALL_OVERALL,
    ),
    _guided(
        "tool_call_parseable",
        guided.tool_call_parseable,
        "1 if there is anything like a call",
        holes.TOOL_CALL_PARSEABLE,
    ),
    RewardSpec(
        "json_answer",
        as_known(json_answer),
        RewardOrigin.COMPATIBLE,
        "format 1 + tool 0.5 or -0.5 + arguments 1 + length -0.2",
        "llm-tool-calling (Apache-2.0), README.md",
        (-0.7, 2.5),
        is_known,
        "json",
        holes.JSON_ANSWER,
    ),
    RewardSpec(
        "legacy_playground_format",
        as_known(legacy_playground_format),
        RewardOrigin.COMPATIBLE,
        "1 for both tags + 0.5 for the words 'parameters' and 'name', else -0.5",
        "bagel-RL (MIT), the PPO reward of June 2025",
        (-0.5, 1.5),
        is_known,
        "tagged",
        holes.PLAYGROUND,
    ),
)

LIBRARY: Mapping[str, RewardSpec] = {named.name: named for named in (*OWN, *COMPATIBLE)}


def describe(name: str) -> dict[str, Json]:
    """All about a reward of the library."""
    if name not in LIBRARY:
        raise ConfigError(
            f"there is no reward {name!r} in the library{nearest(name, LIBRARY)}; known: {', '.join(LIBRARY)}"
        )
    return LIBRARY[name].to_dict()


def warnings_for(names: Sequence[str]) -> list[str]:
    """What to say before training on these rewards: the holes of compatible ones, unless another reward stands beside them.

    Another reward is one of ours or of the user's own.
    """
    found = [LIBRARY[name] for name in names if name in LIBRARY]
    if any(is_user_code(name) for name in names) or any(
        named.kind is RewardOrigin.OWN for named in found
    ):
        return []
    beside = "used alone" if len(found) == 1 else "used without a reward that has none"
    return [
        f"the reward {named.name} has known holes and is {beside}: {', '.join(named.holes)} (toolhone rewards list); "
        "put tool_use beside it, or in its place"
        for named in found
        if named.holes
    ]


def syntax_of(names: Sequence[str]) -> str | None:
    """The call syntax that all these rewards read by themselves; None where they read none, or not the same."""
    found = {LIBRARY[name].syntax if name in LIBRARY else None for name in names}
    return found.pop() if len(found) == 1 else None
