"""A small valid row of the log of each agent framework: the conversation of `log_rows`."""

from __future__ import annotations

from typing import Any

BODY = {
    "name": "find",
    "description": "Finds a thing.",
    "parameters": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
}
TOOLS = [{"type": "function", "function": BODY}]
ARGUMENTS = '{"a": "x"}'
SYSTEM = {"role": "system", "content": "Help."}
USER = {"role": "user", "content": "Find x."}


def block(text: str) -> dict[str, Any]:
    return {"block_type": "text", "text": text}


AGENT_ROWS: dict[str, list[Any]] = {
    "autogen": [
        {
            "llm_context": {
                "messages": [
                    {"type": "SystemMessage", "content": "Help."},
                    {"type": "UserMessage", "source": "user", "content": "Find x."},
                    {"type": "TextMessage", "source": "helper", "content": "Look."},
                    {
                        "type": "ToolCallRequestEvent",
                        "source": "helper",
                        "content": [{"id": "1", "name": "find", "arguments": ARGUMENTS}],
                    },
                    {
                        "type": "ToolCallExecutionEvent",
                        "content": [{"call_id": "1", "name": "find", "content": "y"}],
                    },
                    {"type": "TextMessage", "source": "helper", "content": "Done."},
                ]
            },
            "tools": TOOLS,
        }
    ],
    "harmony": [
        {
            "messages": [
                {
                    "role": "developer",
                    "content": [
                        {
                            "type": "developer_content",
                            "instructions": "Help.",
                            "tools": {"functions": {"name": "functions", "tools": [BODY]}},
                        }
                    ],
                },
                USER,
                {"role": "assistant", "channel": "commentary", "content": "Look."},
                {
                    "role": "assistant",
                    "channel": "commentary",
                    "recipient": "functions.find",
                    "content": [{"type": "text", "text": ARGUMENTS}],
                },
                {"role": "tool", "channel": "commentary", "name": "functions.find", "content": "y"},
                {"role": "assistant", "channel": "final", "content": "Done."},
            ]
        }
    ],
    "llamaindex": [
        {
            "messages": [
                {"role": "system", "additional_kwargs": {}, "blocks": [block("Help.")]},
                {"role": "user", "blocks": [block("Find x.")]},
                {
                    "role": "assistant",
                    "blocks": [
                        block("Look."),
                        {
                            "block_type": "tool_call",
                            "tool_call_id": "1",
                            "tool_name": "find",
                            "tool_kwargs": {"a": "x"},
                        },
                    ],
                },
                {
                    "role": "tool",
                    "additional_kwargs": {"tool_call_id": "1"},
                    "blocks": [block("y")],
                },
                {"role": "assistant", "blocks": [block("Done.")]},
            ],
            "tools": TOOLS,
        }
    ],
    "pydantic_ai": [
        {
            "messages": [
                {
                    "kind": "request",
                    "parts": [
                        {"part_kind": "system-prompt", "content": "Help."},
                        {"part_kind": "user-prompt", "content": "Find x."},
                    ],
                },
                {
                    "kind": "response",
                    "parts": [
                        {"part_kind": "text", "content": "Look."},
                        {
                            "part_kind": "tool-call",
                            "tool_name": "find",
                            "args": ARGUMENTS,
                            "tool_call_id": "1",
                        },
                    ],
                },
                {
                    "kind": "request",
                    "parts": [
                        {
                            "part_kind": "tool-return",
                            "tool_name": "find",
                            "content": "y",
                            "tool_call_id": "1",
                        }
                    ],
                },
                {"kind": "response", "parts": [{"part_kind": "text", "content": "Done."}]},
            ],
            "tools": TOOLS,
        }
    ],
}
