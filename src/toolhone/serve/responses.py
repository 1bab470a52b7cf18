"""A model's turn in OpenAI's form: whole (`completion`) or in the pieces of a stream (`chunks`). One holds what the other holds.

    answer = answer_of(turn, asked)
    completion(answer, head)            # {"id", "object": "chat.completion", "choices": [...], "usage": {...}}

A turn that could not be read whole is given back as text, as it was sampled, and the message's `toolhone` field names the problem;
so is a call where none was on offer. Calls that are well written but do not fit their tool are given as calls, with a sentence each
in the same field. Ids that the model wrote for its calls are kept; others are made here. Nothing here samples or knows HTTP.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from toolhone.backends.base import StopReason
from toolhone.dialects.base import ParseProblem
from toolhone.episodes.policy import Turn
from toolhone.schema import Json, Tool, ToolCall
from toolhone.serve.requests import ChatRequest

NOT_ON_OFFER = "not_on_offer"
"""The problem of a reply that calls where no tool was on offer."""


@dataclass(frozen=True)
class Answer:
    """What a turn says to the client. `toolhone` is empty where all is well."""

    content: str | None
    reasoning: str | None
    calls: tuple[dict[str, Json], ...]
    finish_reason: str
    usage: dict[str, Json]
    toolhone: dict[str, Json] = field(default_factory=dict)

    def message(self) -> dict[str, Json]:
        return {
            "role": "assistant",
            "content": self.content,
            **({} if self.reasoning is None else {"reasoning_content": self.reasoning}),
            **({"tool_calls": list(self.calls)} if self.calls else {}),
            **({"toolhone": self.toolhone} if self.toolhone else {}),
        }


@dataclass(frozen=True)
class ResponseHead:
    """What all parts of one reply share."""

    id: str
    created: int
    model: str
    fingerprint: str

    def to_dict(self, kind: str) -> dict[str, Json]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def answer_of(turn: Turn, asked: ChatRequest) -> Answer:
    """The turn that answers a request, nothing lost."""
    read, cut = turn.message, turn.stop_reason is StopReason.LENGTH
    prompt, said = len(turn.prompt) + len(turn.given), len(turn.tokens)
    usage = {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}
    problem = turn.problem.value if turn.problem is not ParseProblem.NONE else ""
    if not problem and read.tool_calls and not asked.offered:
        problem = NOT_ON_OFFER
    if problem:
        return Answer(turn.text, None, (), "length" if cut else "stop", usage, {"problem": problem})
    calls = tuple(_written(read.tool_calls))
    findings = [sentence for call in read.tool_calls for sentence in _findings(call, asked.offered)]
    finish = "length" if cut else "tool_calls" if calls else "stop"
    content = read.content if calls else read.content or ""
    return Answer(
        content, read.reasoning, calls, finish, usage, {"calls": findings} if findings else {}
    )


def completion(answer: Answer, head: ResponseHead) -> dict[str, Json]:
    """The whole reply as one object."""
    choice = {
        "index": 0,
        "message": answer.message(),
        "logprobs": None,
        "finish_reason": answer.finish_reason,
    }
    return {**head.to_dict("chat.completion"), "choices": [choice], "usage": answer.usage}


def chunks(answer: Answer, head: ResponseHead, with_usage: bool) -> Iterator[dict[str, Json]]:
    """The same reply in pieces: role, reasoning, text, calls, how it ended, and the token counts where they are asked for."""
    for delta in _deltas(answer):
        yield _chunk(head, delta, None, with_usage)
    yield _chunk(head, {}, answer.finish_reason, with_usage)
    if with_usage:
        yield {**head.to_dict("chat.completion.chunk"), "choices": [], "usage": answer.usage}


def _deltas(answer: Answer) -> Iterator[dict[str, Json]]:
    yield {"role": "assistant", "content": None if answer.content is None else ""}
    for piece in _pieces(answer.reasoning):
        yield {"reasoning_content": piece}
    for piece in _pieces(answer.content):
        yield {"content": piece}
    for index, call in enumerate(answer.calls):
        function = call["function"]
        yield {
            "tool_calls": [
                {"index": index, **call, "function": {"name": function["name"], "arguments": ""}}
            ]
        }
        yield {"tool_calls": [{"index": index, "function": {"arguments": function["arguments"]}}]}
    if answer.toolhone:
        yield {"toolhone": answer.toolhone}


def _pieces(text: str | None) -> list[str]:
    """A text in words, each with the white space behind it."""
    return re.findall(r"\s+|\S+\s*", text or "")


def _chunk(
    head: ResponseHead, delta: dict[str, Json], finish: str | None, with_usage: bool
) -> dict[str, Json]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {
        **head.to_dict("chat.completion.chunk"),
        "choices": [choice],
        **({"usage": None} if with_usage else {}),
    }


def _written(calls: Sequence[ToolCall]) -> Iterator[dict[str, Json]]:
    used: set[str] = set()
    for call in calls:
        name = call.id if call.id and call.id not in used else f"call_{secrets.token_hex(12)}"
        used.add(name)
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
        yield {
            "id": name,
            "type": "function",
            "function": {"name": call.name, "arguments": arguments},
        }


def _findings(call: ToolCall, offered: Sequence[Tool]) -> list[str]:
    """What is wrong with a well-written call, in sentences."""
    tool = next((tool for tool in offered if tool.name == call.name), None)
    if tool is None:
        return [f"{call.name}: no tool of this name was on offer"]
    return [f"{call.name}: {problem}" for problem in tool.problems(call.arguments)]
