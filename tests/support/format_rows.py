"""A small valid row of every format, and the files that must be beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.log_rows import LOG_ROWS, SESSIONS
from support.source_rows import write_rows

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
FIND = {"name": "find", "description": "Finds a thing.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FIND}
CALL = {"name": "find", "arguments": {"a": "x"}}
ASK, DONE = {"role": "user", "content": "Find x."}, {"role": "assistant", "content": "Done."}
CHAT = [
    ASK,
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": CALL}]},
    {"role": "tool", "content": "y", "tool_call_id": "1", "name": "find"},
    DONE,
]


def _says(who: str, text: str) -> dict[str, str]:
    return {"from": who, "value": text}


def _part(kind: str, text: str) -> dict[str, str]:
    return {"type": kind, "value": text}


CALLED = f"<tool_call>{json.dumps(CALL)}</tool_call>"
QUERY = {"name": "a", "in": "query", "required": True, "schema": {"type": "string"}}
OPENAPI = {"paths": {"/find": {"get": {"operationId": "find", "parameters": [QUERY]}}}}
SEARCH = [
    {"role": "system", "content": "Search."},
    ASK,
    {"role": "assistant", "content": "", "function_call": CALL},
    {"role": "function", "name": "find", "content": "y"},
    {
        "role": "assistant",
        "function_call": {
            "name": "Finish",
            "arguments": {"return_type": "give_answer", "final_answer": "Done."},
        },
    },
]
API = {
    "category_name": "Things",
    "tool_name": "Shop",
    "api_name": "find",
    "api_description": "Finds.",
    "required_parameters": [{"name": "a", "type": "STRING", "description": "", "default": ""}],
    "optional_parameters": [],
    "method": "GET",
}
LISTED = '1. Name: find\nDescription: Finds.\nParameters: {"a": {"type": "str"}}'
TOLD = f"Help.\n**Available Tools**\n{LISTED}\n**Steps for Each Turn**\n1. Think."
SAID = "**Dialogue Records History**\n<user> Find x. </user>"
WANTED = json.dumps({"name": "find", "parameters": {"a": "x"}})
TARGET = f"<think> Find it. </think>\n<tool_call>\n{WANTED}\n</tool_call>"
REACT = f"You have tools:\n{json.dumps([FIND])}\nWrite Action and Action Input."
STEP = 'Thought: Find.\nAction: find\nAction Input: {"a": "x"}'
SEAL_TOOL = {
    "api_name": "find",
    "api_description": "Finds.",
    "parameters": {"a": {"type": "str", "description": "What."}},
    "required": ["a"],
    "responses": {},
    "field": "Shop/Things",
}
SEAL_LIST = f"Help.\napi_list = {json.dumps([SEAL_TOOL])}"
SEAL_PROMPT = f'{SEAL_LIST}\ntask_instruction = "Find x."\nOutput:'
SEAL_CALL = {"api": "find", "parameters": {"a": "x"}, "responses": []}
EXPECT = {"actions": [{**CALL, "action_id": "0", "compare_args": None}], "communicate_info": []}
ROWS: dict[str, list[dict[str, Any]]] = {
    "gsm8k": [{"question": "How many?", "answer": "48/2 = <<48/2=24>>24.\n#### 24"}],
    "hammer": [
        {"query": [ASK], "tools": [FIND], "answers": [{"tool": "find", "parameters": {"a": "x"}}]},
        {
            "instruction": f"[BEGIN OF AVAILABLE TOOLS]{json.dumps([FIND])}"
            "[END OF AVAILABLE TOOLS][BEGIN OF QUERY]Find x.[END OF QUERY]",
            "output": f"```\n{json.dumps([CALL])}\n```",
        },
    ],
    "xlam": [{"id": 1, "query": "Find x.", "tools": [FIND], "answers": [CALL]}],
    "parts": [
        {
            "tools": [FIND],
            "messages": [
                {"role": "user", "content": [_part("text", "Find x.")]},
                {
                    "role": "assistant",
                    "content": [_part("reasoning", "Look."), _part("tool_call", json.dumps(CALL))],
                },
                {"role": "tool", "content": [_part("text", "y")]},
                {"role": "assistant", "content": [_part("text", "Done.")], "loss_weight": 1},
            ],
        }
    ],
    "messages": [{"messages": CHAT, "tools": [TOOL]}],
    "pairs": [
        {"prompt": [ASK], "chosen": CHAT[1:2], "rejected": [DONE], "tools": [TOOL]},
        {
            "conversations": [_says("human", "Find x.")],
            "chosen": _says("function_call", json.dumps(CALL)),
            "rejected": _says("gpt", "No."),
            "tools": [FIND],
        },
    ],
    "seal_tools": [{"id": "s", "query": "Find x.", "calling": [SEAL_CALL]}],
    "sft_array": [
        {
            "id": "a1",
            "category": "calculator",
            "tool_needed": True,
            "tool": "calculator",
            "tool_args": {"expression": "2*3"},
            "prompt": "What is 2*3?",
            "expected_answer": "6",
            "metadata": {"tolerance": 0.1},
        }
    ],
    "prompt_rows": [
        {
            "prompt": f"Use these.\n{json.dumps([FIND])}\nFind x.",
            "answer": "find(a='x')",
            "type": "tool_call",
            "ground_truth": "find",
        }
    ],
    "test_cases": [
        {
            "prompt": "Human: 2*3?",
            "expected_tool": "calculator",
            "expected_params": {"expression": "2*3"},
        }
    ],
    "toolbench": [
        {
            "win": True,
            "answer_generation": {
                "query": "Find x.",
                "function": [FIND],
                "train_messages": [SEARCH],
                "finish_type": "give_answer",
            },
        },
        {"query": "Find x.", "query_id": 1, "api_list": [API], "relevant APIs": [["Shop", "find"]]},
    ],
    "api_bank": [
        {"role": "User", "text": "Find x."},
        {
            "role": "API",
            "api_name": "find",
            "param_dict": {"a": "x"},
            "result": {"api_name": "find", "input": {"a": "x"}, "output": "y", "exception": None},
        },
        {"role": "AI", "text": "Done."},
    ],
    "apibench": [
        {
            "code": "###Instruction: Find x.\n###Output: it",
            "api_call": "find(a='x')",
            "provider": "Shop",
            "api_data": "It finds things.",
        }
    ],
    "metatool": [{"query": "Find x.", "tool": "find"}],
    "nestful": [{"input": "Find x.", "output": [{**CALL, "label": "var1"}]}],
    "openfunctions": [
        {
            "question": "Find x.",
            "function": {"name": "Shop", "api_call": "find", "parameters": SCHEMA},
            "model_answer": "find(a='x')",
        }
    ],
    "rotbench": [
        {
            "id": "r",
            "scenario": "RS",
            "conversations": [
                _says("system", REACT),
                _says("user", "Find x.\nBegin!"),
                _says("assistant", STEP),
                _says("function", "y"),
                {"from": "assistant", "value": [STEP]},
            ],
        }
    ],
    "svamp": [
        {
            "ID": "1",
            "Body": "Ann has 7.",
            "Question": "She eats 2. How many?",
            "Equation": "( 7 - 2 )",
            "Answer": 5.0,
            "Type": "Subtraction",
        }
    ],
    "bamboogle": [{"Question": "Which river?", "Answer": "The Rhine"}],
    "toolalpaca": [
        {
            "Name": "Shop",
            "Documentation": json.dumps(OPENAPI),
            "Instructions": ["Find x."],
            "Golden_Answers": [[{"Action": "find", "Action_Input": '{"a": "x"}'}]],
        }
    ],
    "glaive": [
        {
            "system": f"SYSTEM: Help with these functions. -\n{json.dumps(FIND)}",
            "chat": "USER: Find x.\n\n\nASSISTANT: <functioncall> "
            '{"name": "find", "arguments": \'{"a": "x"}\'} <|endoftext|>\n\n\n'
            "FUNCTION RESPONSE: y\n\n\nASSISTANT: Done. <|endoftext|>",
        }
    ],
    "hermes": [
        {
            "conversations": [
                _says("system", f"Help. Here are <tools> {json.dumps([FIND])} </tools>"),
                _says("human", "Find x."),
                _says("gpt", CALLED),
                _says("tool", "<tool_response>y</tool_response>"),
                _says("gpt", "Done."),
            ]
        }
    ],
    "toolace": [
        {
            "system": f"You have functions:\n{json.dumps([FIND])}",
            "conversations": [
                _says("user", "Find x."),
                _says("assistant", "[find(a='x')]"),
                _says("tool", '[{"name": "find", "results": "y"}]'),
                _says("assistant", "Done."),
            ],
        }
    ],
    "seal_tools_sft": [
        {
            "id": "s",
            "conversations": [_says("human", SEAL_PROMPT), _says("gpt", json.dumps([SEAL_CALL]))],
        }
    ],
    "sharegpt": [
        {
            "tools": [FIND],
            "system": "Help.",
            "conversations": [
                _says("human", "Find x."),
                _says("function_call", json.dumps(CALL)),
                _says("observation", "y"),
                _says("gpt", "Done."),
            ],
        }
    ],
    "toolrl": [
        {"instruction": TOLD, "input": SAID, "output": TARGET},
        {
            "prompt": [{"role": "system", "content": TOLD}, {"role": "user", "content": SAID}],
            "reward_model": {"ground_truth": TARGET, "style": "rule"},
        },
    ],
    "toolrl_api_bank": [
        {
            "system": TOLD,
            "user": SAID,
            "answer": [{"name": "find", "parameters": {"a": "x"}}],
            "other": {"file": "x-level-1-y"},
        }
    ],
    "acebench": [
        {"id": "normal_1", "question": "user: Find x.", "function": [FIND], "time": "Noon."}
    ],
    "bfcl": [{"id": "simple_1", "question": [[ASK]], "function": [FIND]}],
    "tau2_bench": [
        {
            "id": "7",
            "description": {"purpose": "A wish."},
            "user_scenario": {"instructions": {"reason_for_call": "Find x."}},
            "initial_state": {"message_history": [ASK, DONE]},
            "evaluation_criteria": EXPECT,
        }
    ],
    "tau_bench": [
        {
            "task_id": 3,
            "trial": 0,
            "reward": 1.0,
            "traj": CHAT,
            "info": {
                "task": {
                    "instruction": "Find x.",
                    "user_id": "u",
                    "actions": [{"name": "find", "kwargs": {"a": "x"}}],
                    "outputs": [],
                }
            },
        }
    ],
    "when2call": [
        {
            "uuid": "w",
            "question": "Find x.",
            "correct_answer": "tool_call",
            "answers": {"tool_call": json.dumps(CALL), "cannot_answer": "No."},
            "tools": [json.dumps(FIND)],
        }
    ],
}

ROWS |= {name: rows for name, rows in LOG_ROWS.items() if name not in SESSIONS}


def write_beside(folder: Path) -> None:
    """Write the catalogues and answers that some formats need beside `rows.json`."""
    tools = [SEAL_TOOL, *({**SEAL_TOOL, "api_name": f"find{n}"} for n in range(5))]
    write_rows(folder / "tool.jsonl", *tools)
    spec = {"name": "find", "description": "Finds.", "query_parameters": {"a": {"type": "string"}}}
    write_rows(folder / "spec.json", spec, *({**spec, "name": f"find{n}"} for n in range(5)))
    described = {"find": "Finds.", **{f"find{n}": "Others." for n in range(10)}}
    (folder / "plugin_des.json").write_text(json.dumps(described))
    (folder / "all_apis.csv").write_text(
        '类名,input_parameters,api_info\nfind,(a: str),"description = ""Finds."""\n', "utf-8"
    )
    answers = [
        {"id": "normal_1", "ground_truth": {"find": {"a": "x"}}},
        {"id": "simple_1", "ground_truth": [{"find": {"a": ["x"]}}]},
    ]
    write_rows(folder / "possible_answer" / "rows.json", *answers)
