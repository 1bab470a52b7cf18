"""A small valid row of every log: the same conversation, as each program writes it."""

from __future__ import annotations

import json
from typing import Any

from support.agent_rows import AGENT_ROWS

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
BODY = {"name": "find", "description": "Finds a thing.", "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": BODY}]
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"a": "x"}'}}
USER, DONE = {"role": "user", "content": "Find x."}, {"role": "assistant", "content": "Done."}
ASKED = [
    {"role": "system", "content": "Help."},
    USER,
    {"role": "assistant", "content": "Look.", "tool_calls": [CALL]},
    {"role": "tool", "content": "y", "tool_call_id": "1"},
]
BLOCKS = [
    USER,
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "Look."},
            {"type": "tool_use", "id": "1", "name": "find", "input": {"a": "x"}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "y"}]},
]
BLOCK_TOOL = {"name": "find", "description": "Finds a thing.", "input_schema": SCHEMA}
ITEMS = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Find x."}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Look."}]},
    {"type": "function_call", "call_id": "1", "name": "find", "arguments": '{"a": "x"}'},
    {"type": "function_call_output", "call_id": "1", "output": "y"},
]
ANSWER = [
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Done."}]}
]
SPOKEN = [
    {"role": "user", "parts": [{"type": "text", "content": "Find x."}]},
    {
        "role": "assistant",
        "parts": [
            {"type": "text", "content": "Look."},
            {"type": "tool_call", "id": "1", "name": "find", "arguments": {"a": "x"}},
        ],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "y"}]},
]
SPEAKS = [{"role": "assistant", "parts": [{"type": "text", "content": "Done."}]}]
ATTRIBUTES = {
    "gen_ai.system_instructions": [{"type": "text", "content": "Help."}],
    "gen_ai.input.messages": SPOKEN,
    "gen_ai.output.messages": SPEAKS,
    "gen_ai.tool.definitions": TOOLS,
}
LANGCHAIN = [
    {"type": "system", "data": {"content": "Help."}},
    {"type": "human", "data": {"content": "Find x."}},
    {
        "type": "ai",
        "data": {
            "content": "Look.",
            "tool_calls": [{"name": "find", "args": {"a": "x"}, "id": "1", "type": "tool_call"}],
        },
    },
    {"type": "tool", "data": {"content": "y", "tool_call_id": "1"}},
    {"type": "ai", "data": {"content": "Done."}},
]


def _built(name: str, **kwargs: Any) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "id": ["langchain", name], "kwargs": kwargs}


LOG_ROWS: dict[str, list[Any]] = {
    **AGENT_ROWS,
    "request_log": [
        {
            "request": {"messages": ASKED, "tools": TOOLS},
            "response": {"choices": [{"index": 0, "message": DONE}]},
        }
    ],
    "responses": [{"instructions": "Help.", "input": ITEMS, "output": ANSWER, "tools": TOOLS}],
    "anthropic": [{"system": "Help.", "messages": [*BLOCKS, DONE], "tools": [BLOCK_TOOL]}],
    "gemini": [
        {
            "systemInstruction": {"parts": [{"text": "Help."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Find x."}]},
                {
                    "role": "model",
                    "parts": [
                        {"text": "Look."},
                        {"functionCall": {"name": "find", "args": {"a": "x"}}},
                    ],
                },
                {
                    "role": "user",
                    "parts": [{"functionResponse": {"name": "find", "response": {"result": "y"}}}],
                },
                {"role": "model", "parts": [{"text": "Done."}]},
            ],
            "tools": [{"functionDeclarations": [BODY]}],
        }
    ],
    "bedrock": [
        {
            "system": [{"text": "Help."}],
            "messages": [
                {"role": "user", "content": [{"text": "Find x."}]},
                {
                    "role": "assistant",
                    "content": [
                        {"text": "Look."},
                        {"toolUse": {"toolUseId": "1", "name": "find", "input": {"a": "x"}}},
                    ],
                },
                {
                    "role": "user",
                    "content": [{"toolResult": {"toolUseId": "1", "content": [{"text": "y"}]}}],
                },
                {"role": "assistant", "content": [{"text": "Done."}]},
            ],
            "toolConfig": {
                "tools": [{"toolSpec": {"name": "find", "inputSchema": {"json": SCHEMA}}}]
            },
        }
    ],
    "cohere": [
        {
            "preamble": "Help.",
            "chat_history": [
                {"role": "USER", "message": "Find x."},
                {
                    "role": "CHATBOT",
                    "message": "Look.",
                    "tool_calls": [{"name": "find", "parameters": {"a": "x"}}],
                },
                {
                    "role": "TOOL",
                    "tool_results": [
                        {
                            "call": {"name": "find", "parameters": {"a": "x"}},
                            "outputs": [{"text": "y"}],
                        }
                    ],
                },
            ],
            "tools": [
                {
                    "name": "find",
                    "description": "Finds a thing.",
                    "parameter_definitions": {"a": {"type": "string", "required": True}},
                }
            ],
            "text": "Done.",
        }
    ],
    "langchain": [{"messages": LANGCHAIN, "tools": TOOLS}],
    "langsmith": [
        {
            "run_type": "llm",
            "inputs": {
                "messages": [
                    [
                        _built("SystemMessage", content="Help."),
                        _built("HumanMessage", content="Find x."),
                        _built(
                            "AIMessage",
                            content="Look.",
                            tool_calls=[{"name": "find", "args": {"a": "x"}, "id": "1"}],
                        ),
                        _built("ToolMessage", content="y", tool_call_id="1"),
                    ]
                ]
            },
            "outputs": {"generations": [[{"message": _built("AIMessage", content="Done.")}]]},
            "extra": {"invocation_params": {"tools": TOOLS}},
        }
    ],
    "vercel": [
        {
            "system": "Help.",
            "messages": [
                {"role": "user", "parts": [{"type": "text", "text": "Find x."}]},
                {
                    "role": "assistant",
                    "parts": [
                        {"type": "text", "text": "Look."},
                        {
                            "type": "tool-find",
                            "toolCallId": "1",
                            "state": "output-available",
                            "input": {"a": "x"},
                            "output": "y",
                        },
                        {"type": "step-start"},
                        {"type": "text", "text": "Done."},
                    ],
                },
            ],
            "tools": {"find": {"description": "Finds a thing.", "inputSchema": SCHEMA}},
        }
    ],
    "otel": [{"spanId": "1", "attributes": ATTRIBUTES}],
    "langfuse": [
        {
            "traceId": "1",
            "type": "GENERATION",
            "input": {"messages": ASKED, "tools": TOOLS},
            "output": DONE,
        }
    ],
    "codex": [
        {"timestamp": "1", "type": "session_meta", "payload": {"id": "s", "instructions": "Help."}},
        *({"timestamp": "1", "type": "response_item", "payload": one} for one in [*ITEMS, *ANSWER]),
    ],
    "claude_code": [
        {"type": one["role"], "sessionId": "s", "uuid": str(number), "message": one}
        for number, one in enumerate([*BLOCKS, DONE])
    ],
}
SESSIONS = ("codex", "claude_code")
"""Logs of which all lines of a file are one conversation."""


def otlp(*attributes: dict[str, Any]) -> dict[str, Any]:
    """An OTLP document of spans with these attributes."""
    spans = [
        {
            "spanId": str(number),
            "attributes": [
                {"key": key, "value": {"stringValue": json.dumps(value)}}
                for key, value in each.items()
            ],
        }
        for number, each in enumerate(attributes)
    ]
    return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


CALLS = {"role": "assistant", "content": "Look.", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "y", "tool_call_id": "1"}
MORE_ROWS: dict[str, list[Any]] = {
    "messages: own form": [{"messages": [*ASKED, DONE], "tools": TOOLS}],
    "messages: TRL": [{"prompt": ASKED[:2], "completion": [CALLS, RESULT, DONE], "tools": TOOLS}],
    "messages: verifiers": [
        {"prompt": ASKED[:2], "completion": [CALLS, RESULT, DONE], "tool_defs": [BODY]}
    ],
    "messages: ms-swift": [
        {
            "tools": json.dumps(TOOLS),
            "messages": [
                *ASKED[:2],
                {"role": "tool_call", "content": '{"name": "find", "arguments": {"a": "x"}}'},
                {"role": "tool_response", "content": "y"},
                DONE,
            ],
        }
    ],
    "messages: Llama 3.1": [
        {"messages": [*ASKED[:2], CALLS, {"role": "ipython", "content": "y"}, DONE], "tools": TOOLS}
    ],
    "messages: Ollama": [
        {
            "messages": [
                *ASKED[:2],
                {
                    "role": "assistant",
                    "content": "Look.",
                    "tool_calls": [{"function": {"name": "find", "arguments": {"a": "x"}}}],
                },
                {"role": "tool", "content": "y", "tool_name": "find"},
                DONE,
            ],
            "tools": TOOLS,
        }
    ],
    "messages: Qwen-Agent": [
        {
            "messages": [
                *ASKED[:2],
                {"role": "assistant", "content": "Look.", "function_call": CALL["function"]},
                {"role": "function", "name": "find", "content": "y"},
                DONE,
            ],
            "functions": [BODY],
        }
    ],
    "messages: Mistral": [
        {"messages": [*ASKED[:2], CALLS, {**RESULT, "name": "find"}, DONE], "tools": TOOLS}
    ],
    "cohere: v2": [
        {
            "messages": [
                *ASKED[:2],
                {"role": "assistant", "tool_plan": "Look.", "tool_calls": [CALL]},
                {
                    "role": "tool",
                    "tool_call_id": "1",
                    "content": [{"type": "document", "document": {"data": "y"}}],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "Done."}]},
            ],
            "tools": TOOLS,
        }
    ],
    "messages: Vercel v4": [
        {
            "messages": [
                *ASKED[:2],
                {
                    "role": "assistant",
                    "content": "Done.",
                    "toolInvocations": [
                        {
                            "state": "result",
                            "toolCallId": "1",
                            "toolName": "find",
                            "args": {"a": "x"},
                            "result": "y",
                        }
                    ],
                },
            ],
            "tools": TOOLS,
        }
    ],
    "vercel: model messages v5": [
        {
            "messages": [
                *ASKED[:2],
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "Look."},
                        {
                            "type": "tool-call",
                            "toolCallId": "1",
                            "toolName": "find",
                            "input": {"a": "x"},
                        },
                    ],
                },
                {
                    "role": "tool",
                    "content": [
                        {
                            "type": "tool-result",
                            "toolCallId": "1",
                            "toolName": "find",
                            "output": {"type": "text", "value": "y"},
                        }
                    ],
                },
                DONE,
            ],
            "tools": {"find": {"description": "Finds a thing.", "inputSchema": SCHEMA}},
        }
    ],
    "langchain: LangGraph state": [{"values": {"messages": LANGCHAIN}, "tools": TOOLS}],
    "bedrock: invocation log": [
        {
            "modelId": "m",
            "input": {
                "inputBodyJson": {
                    "system": [{"text": "Help."}],
                    "messages": [{"role": "user", "content": [{"text": "Find x."}]}],
                }
            },
            "output": {
                "outputBodyJson": {
                    "output": {"message": {"role": "assistant", "content": [{"text": "Done."}]}}
                }
            },
        }
    ],
    "responses: calls of a server": [
        {
            "instructions": "Help.",
            "input": "Find x.",
            "output": [
                {"type": "mcp_call", "id": "1", "name": "find", "arguments": "{}", "output": "y"},
                *ANSWER,
            ],
            "object": "response",
        }
    ],
    "otel: OpenInference": [
        {
            "context": {"trace_id": "t", "span_id": "s"},
            "attributes": {
                "llm": {
                    "input_messages": [{"message": USER}],
                    "output_messages": [
                        {
                            "message": {
                                "role": "assistant",
                                "content": "Look.",
                                "tool_calls": [
                                    {"tool_call": {"id": "1", "function": CALL["function"]}}
                                ],
                            }
                        }
                    ],
                    "tools": [{"tool": {"json_schema": json.dumps(TOOLS[0])}}],
                }
            },
        }
    ],
    "otel: events": [
        {
            "spanId": "1",
            "attributes": {"gen_ai.operation.name": "chat"},
            "events": [
                {"name": "gen_ai.system.message", "attributes": {"content": "Help."}},
                {"name": "gen_ai.user.message", "attributes": {"content": "Find x."}},
                {"name": "gen_ai.choice", "body": {"index": 0, "message": CALLS}},
            ],
        }
    ],
    "otel: OTLP": [otlp(ATTRIBUTES, ATTRIBUTES)],
    "langfuse: trace": [
        {
            "id": "t",
            "observations": [
                {"type": "GENERATION", "input": ASKED, "output": DONE},
                {"type": "GENERATION", "input": ASKED[:2], "output": CALLS},
            ],
        }
    ],
    "request_log: deltas": [
        {
            "request": {"messages": ASKED[:2], "tools": TOOLS},
            "response": [
                {"choices": [{"delta": {"role": "assistant", "content": "Lo"}}]},
                {"choices": [{"delta": {"content": "ok.", "tool_calls": [{"index": 0, **CALL}]}}]},
            ],
        },
        {
            "request": {"messages": ASKED[:2], "tools": TOOLS},
            "response": [
                {"type": "message_start", "message": {"role": "assistant", "content": []}},
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "tool_use", "id": "1", "name": "find", "input": {}},
                },
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "input_json_delta", "partial_json": '{"a": "x"}'},
                },
            ],
        },
        {
            "request": {"contents": [{"role": "user", "parts": [{"text": "Find x."}]}]},
            "response": [
                {"candidates": [{"content": {"role": "model", "parts": [{"text": "Do"}]}}]},
                {"candidates": [{"content": {"role": "model", "parts": [{"text": "ne."}]}}]},
            ],
        },
    ],
}
"""Rows of the same logs in other forms, by the name of the format and what the form is."""
