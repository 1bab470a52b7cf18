"""Rows of the shapes that earlier systems use, and what their tests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolhone.doctor.checks import check
from toolhone.schema import Conversation, ExpectedCall
from toolhone.sources.files import write_jsonl
from toolhone.sources.formats import open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.messages import read_tasks

FACTORIAL = {
    "name": "factorial",
    "description": "The factorial of n.",
    "parameters": {
        "n": {"description": "A number.", "type": "int"},
        "unit": {"type": "str, optional", "description": "Unit."},
    },
}
REVERSE = {
    "name": "reverse",
    "description": "Reverses words.",
    "parameters": {"words": {"type": "List[str]"}},
}
PROMPT: dict[str, Any] = {
    "prompt": "You may use these [few] functions.\n\n"
    f"{json.dumps([FACTORIAL, REVERSE], indent=2)}\n\nWhat are 5! and 7!?",
    "answer": "factorial(n=5)\nfactorial(n=7)",
    "type": "tool_call",
    "ground_truth": "factorial",
    "ground_truth_text": "factorial",
    "possible_boxed_answers": ["reverse", "factorial"],
    "is_multi_answer": False,
    "confidence": 1.0,
    "source": "tool_calling",
}
NEWER: dict[str, Any] = {
    "prompt": "What is 5!?",
    "answer": '<tool_call>\n{"name": "factorial", "arguments": {"n": 5}}\n</tool_call>',
    "type": "tool_call",
    "tools": [
        {
            "type": "function",
            "function": {
                **FACTORIAL,
                "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}},
            },
        }
    ],
}
XLAM: dict[str, Any] = {
    "id": 0,
    "query": "What are 5! and 7!?",
    "tools": json.dumps([FACTORIAL, REVERSE]),
    "answers": json.dumps([{"name": "factorial", "arguments": {"n": n}} for n in (5, 7)]),
}
CASE = {
    "prompt": "Human: What is 25 times 4?",
    "expected_tool": "calculator",
    "expected_params": {"expression": "25 * 4"},
}
SFT = {
    "id": "a1",
    "source": "own",
    "category": "no_tool",
    "tool_needed": False,
    "tool": None,
    "tool_args": None,
    "prompt": "Hello!",
    "expected_answer": "Hello, how can I help?",
}
OTHERS: dict[str, dict[str, Any]] = {
    "messages": {
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    },
    "gsm8k": {"question": "How many?", "answer": "It is <<3+4=7>>7.\n#### 7"},
    "seal_tools": {"query": "x", "calling": []},
}
SHAPES = {"prompt_rows": PROMPT, "xlam": XLAM, "test_cases": CASE, "sft_array": SFT, **OTHERS}
FIVE, SEVEN = ExpectedCall("factorial", {"n": 5}), ExpectedCall("factorial", {"n": 7})


def save(path: Path, *rows: Any) -> Path:
    write_jsonl(path, rows)
    return path


def only(loaded: Loaded) -> Conversation:
    assert (len(loaded.conversations), loaded.read) == (1, 1), loaded.examples
    check(loaded.conversations, loaded.places).raise_if_any()
    return loaded.conversations[0]


def same_again(tmp_path: Path, loaded: Loaded) -> None:
    """What was read comes back equal from our own form, conversations and tasks."""
    talks = save(tmp_path / "talks.jsonl", *(talk.to_dict() for talk in loaded.conversations))
    assert open_source(talks, "messages").conversations == loaded.conversations
    assert (
        read_tasks(save(tmp_path / "tasks.jsonl", *(task.to_dict() for task in loaded.tasks)))
        == loaded.tasks
    )


def counted(loaded: Loaded, reason: str, detail: str) -> None:
    """One row was kept, one was skipped for this reason."""
    assert (loaded.kept, loaded.read) == (1, 2)
    assert loaded.skipped == {reason: 1}
    assert detail in loaded.examples[reason]
    assert "2: " in loaded.examples[reason]
