"""The PPO reward of bagel-RL's playground (MIT), exactly, under a legacy name: it looks at the form alone, and hardly at that.

    [TOOL_CALL]{"name": "f", "parameters": {}}[/TOOL_CALL]      1 + 0.5
    [TOOL_CALL] [/TOOL_CALL]                                    1
    anything else                                               -0.5

`tags`: 1 if both marks occur anywhere, else -0.5. `words`: 0.5 more if the words "parameters" and "name" both occur anywhere. No
tool is run and nothing is compared with the task, so that one fixed text earns everything. It is here for comparison, not for
training.
"""

from __future__ import annotations

from toolhone.dialects.syntax.tagged import Tagged
from toolhone.episodes.episode import Episode
from toolhone.rewards.legacy_texts import reply_text
from toolhone.schema import Task


def legacy_playground_format(task: Task, episode: Episode) -> dict[str, float]:  # noqa: ARG001 (a reward gets the task)
    """The two parts; their sum is -0.5, 1 or 1.5."""
    text = reply_text(episode, Tagged())
    if Tagged.open not in text or Tagged.close not in text:
        return {"tags": -0.5, "words": 0.0}
    return {"tags": 1.0, "words": 0.5 if "parameters" in text and "name" in text else 0.0}
