"""Agent frameworks, unmodified, against `toolhone serve RUN --record DIR`.

    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 python benchmarks/agent_frameworks.py

Those that are installed run, each in sessions of its own, whole and streamed: openai-agents (chat
completions and Responses), langchain (langgraph), pydantic-ai, smolagents. Prints a line of JSON
for each: how often the calculator ran, the end of the answer, or the error.
"""

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from typing import Any

QUESTION = "What is 48 * 17?"
RAN: list[str] = []


def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression.

    Args:
        expression: such as 2 * (3 + 4)
    """
    RAN.append(expression)
    allowed = set(expression) <= set("0123456789+-*/(). ")
    return str(eval(expression)) if allowed else "error: not an expression"


def openai_agents(session: str, streamed: bool, responses: bool) -> str:
    from openai import AsyncOpenAI

    from agents import (
        Agent,
        OpenAIChatCompletionsModel,
        OpenAIResponsesModel,
        Runner,
        function_tool,
        set_tracing_disabled,
    )

    set_tracing_disabled(True)
    kind = OpenAIResponsesModel if responses else OpenAIChatCompletionsModel
    model = kind(model="policy", openai_client=AsyncOpenAI(api_key=session))
    agent = Agent(name="maths", model=model, tools=[function_tool(calculator)])

    async def stream() -> str:
        result = Runner.run_streamed(agent, QUESTION, max_turns=4)
        async for _ in result.stream_events():
            pass
        return str(result.final_output)

    if streamed:
        return asyncio.run(stream())
    return str(Runner.run_sync(agent, QUESTION, max_turns=4).final_output)


def langchain(session: str, streamed: bool, responses: bool) -> str:
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="policy", api_key=session, use_responses_api=responses)
    agent = create_agent(model, [calculator])
    asked: Any = {"messages": [{"role": "user", "content": QUESTION}]}
    config: Any = {"recursion_limit": 10}
    if not streamed:
        return str(agent.invoke(asked, config)["messages"][-1].content)
    pieces = [piece.content for piece, _ in agent.stream(asked, config, stream_mode="messages")]
    return "".join(map(str, pieces))


def pydantic_ai(session: str, streamed: bool, responses: bool) -> str:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    kind = OpenAIResponsesModel if responses else OpenAIChatModel
    agent = Agent(kind("policy", provider=OpenAIProvider(api_key=session)), tools=[calculator])

    async def stream() -> str:
        async with agent.run_stream(QUESTION) as result:
            return str(await result.get_output())

    return asyncio.run(stream()) if streamed else str(agent.run_sync(QUESTION).output)


def smolagents(session: str, streamed: bool, responses: bool) -> str:  # noqa: ARG001
    from smolagents import OpenAIModel, ToolCallingAgent, tool

    # its default, "required", cannot be asked of a model that is sampled freely
    base = os.environ["OPENAI_BASE_URL"]
    model = OpenAIModel("policy", api_base=base, api_key=session, tool_choice="auto")

    @tool
    def calculator_tool(expression: str) -> str:
        """Evaluate an arithmetic expression.

        Args:
            expression: such as 2 * (3 + 4)
        """
        return calculator(expression)

    agent = ToolCallingAgent([calculator_tool], model, max_steps=3, verbosity_level=0)
    return str(agent.run(QUESTION))


Forms = tuple[tuple[bool, bool], ...]
ALL: Forms = ((False, False), (True, False), (False, True), (True, True))
"""Whole or streamed, chat completions or Responses."""
FRAMEWORKS: dict[str, tuple[Callable[[str, bool, bool], str], str, Forms]] = {
    "openai-agents": (openai_agents, "agents", ALL),
    "langchain": (langchain, "langchain_openai", ALL),
    "pydantic-ai": (pydantic_ai, "pydantic_ai", ALL),
    "smolagents": (smolagents, "smolagents", ALL[:1]),
}


def main() -> None:
    for name, (run, module, forms) in FRAMEWORKS.items():
        if importlib.util.find_spec(module) is None:
            print(json.dumps({"framework": name, "skipped": f"{module} is not installed"}))
            continue
        for streamed, responses in forms:
            form = ("responses" if responses else "chat") + ("-streamed" if streamed else "")
            RAN.clear()
            found: dict[str, Any] = {"framework": name, "form": form}
            try:
                found["answer"] = run(f"{name}-{form}", streamed, responses)[-80:]
            except Exception as error:
                found["error"] = f"{type(error).__name__}: {error}"[:300]
            print(json.dumps({**found, "calls": len(RAN)}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
