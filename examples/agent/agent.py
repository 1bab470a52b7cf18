"""An agent of thirty lines: it asks the model, runs its calls, and posts what the answer is worth.

It knows nothing of Toolhone: OPENAI_BASE_URL and OPENAI_API_KEY point the client at the training.
"""

import json
import os
import sys

import httpx
from openai import OpenAI

CALCULATOR = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Evaluate an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "e.g. 2 * (3 + 4)"}},
            "required": ["expression"],
        },
    },
}


def calculate(expression: str) -> str:
    if not set(expression) <= set("0123456789+-*/(). "):
        return "error: only numbers and + - * / ( )"
    try:
        return str(eval(expression, {"__builtins__": {}}))
    except (ArithmeticError, SyntaxError, TypeError) as error:
        return f"error: {error}"


def main() -> None:
    task, client = json.load(sys.stdin), OpenAI()  # address and session come from the environment
    messages = [{"role": "user", "content": task["question"]}]
    results = []
    for _ in range(4):
        reply = (
            client.chat.completions.create(model="policy", messages=messages, tools=[CALCULATOR])
            .choices[0]
            .message
        )
        messages.append(reply.model_dump(exclude_none=True))
        if not reply.tool_calls:
            break
        for call in reply.tool_calls:
            expression = str(json.loads(call.function.arguments).get("expression", ""))
            results.append(calculate(expression))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": results[-1]})
    reward = {"called": 0.2 * bool(results), "right": 0.8 * (str(task["answer"]) in results)}
    address = f"{os.environ['OPENAI_BASE_URL']}/sessions/{os.environ['OPENAI_API_KEY']}/reward"
    httpx.post(address, json={"reward": reward}).raise_for_status()


main()
