"""Test cases of a tool: a prompt, the tool it wants and its parameters. No tools are in the file.

    {"prompt": "Human: What is 25 multiplied by 4?", "expected_tool": "calculator",
     "expected_params": {"expression": "25 * 4"}}

On offer are the tools of the option `tools`, else the built-in ones. A case gives a task and, where
it wants a call, a conversation of the question and the call.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolhone.schema import Conversation, Expect, Message, Task, Tool, ToolCall
from toolhone.sources.base import Context, Converted, Skip, Source, tasks_of
from toolhone.sources.files import Record
from toolhone.sources.tool_specs import decode_text, fit_calls
from toolhone.tools.builtin import BUILTIN
from toolhone.tools.registry import Registry

NOT_A_CASE = "not a test case"


def looks_like(record: Record) -> bool:
    return "prompt" in record and "expected_tool" in record


def prepare(_records: Sequence[Record], context: Context) -> tuple[Tool, ...]:
    tools = context.options.get("tools")
    return Registry(BUILTIN).tools if tools is None else tuple(tools)


def convert(record: Record, context: Context) -> Converted | Task:
    user, call, tools = Message("user", _question(record)), _call(record), context.prepared
    if call is None:
        return Task("", (user,), tools, Expect(no_call=True))
    (call,) = fit_calls([call], tools, context)
    talk = Conversation((user, Message("assistant", tool_calls=(call,))), tools)
    talk = context.complete(talk, record)
    return Converted(talk, tasks_of(talk, call.name))


def _question(record: Record) -> str:
    prompt = record.get("prompt")
    if not isinstance(prompt, str) or "expected_tool" not in record:
        raise Skip(NOT_A_CASE, f"keys {sorted(record)}")
    question = prompt.strip().removeprefix("Human:").removesuffix("Assistant:").strip()
    if not question:
        raise Skip(NOT_A_CASE, f"the prompt {prompt!r:.60} asks nothing")
    return question


def _call(record: Record) -> ToolCall | None:
    name = record["expected_tool"]
    given = decode_text(record.get("expected_params") or {}, NOT_A_CASE, "expected_params")
    if not isinstance(name, str | None) or not isinstance(given, dict):
        raise Skip(NOT_A_CASE, f"expected_tool {name!r:.40}, expected_params {given!r:.60}")
    if not name and given:
        raise Skip("expected_params without an expected_tool", f"{given!r:.60}")
    return ToolCall(name, given) if name else None


TEST_CASES = Source("test_cases", looks_like, convert, prepare, options={"tools"})
