"""Toolhone trains open language models to call tools, and proves that it worked.

    from toolhone import evaluate, experiment, open_model, tool, train

The command line is `toolhone` (`cli/`); the same from Python is in `api.py`. Names below are loaded
when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "toolhone.api": ("experiment", "train", "evaluate", "open_model"),
    "toolhone.rewards.legacy_rewards": ("extract_function_calls", "compare_function_calls"),
    "toolhone.tools.registry": ("tool", "Registry"),
    "toolhone.episodes.chat_session": ("ChatSession",),
    "toolhone.schema": ("Tool", "ToolCall", "Message", "Conversation", "Task"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
_OLD_NAMES = {"Dialogue": "ChatSession"}
"""Names of earlier versions, and what they are called now."""
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    name = _OLD_NAMES.get(name, name)
    if name not in _HOME:
        raise AttributeError(
            f"module 'toolhone' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(importlib.import_module(_HOME[name]), name)
