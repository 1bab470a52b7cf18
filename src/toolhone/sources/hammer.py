"""Hammer: prompts in marked sections with the calls in a code fence, and dialogues as tests.

    {"instruction": "[BEGIN OF AVAILABLE TOOLS] [tools] [END OF AVAILABLE TOOLS] ...",
     "input": "", "output": "```\\n[{\\"name\\": \\"f\\", \\"arguments\\": {}}]\\n```"}
    {"query": [{"role": "user" | "agent" | "assistant" | "tool", "content"}], "tools", "answers"}

`agent` is the assistant that speaks, `assistant` the one that calls. A test of one query with
`name` and `arguments` has xLAM's shape. Format: Lin et al. 2024, arXiv:2410.04587.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolhone.schema import Conversation, Message, Task
from toolhone.sources.files import Record
from toolhone.sources.scenarios import note_misfit
from toolhone.sources.source import Context, Skip, Source, expect_calls
from toolhone.sources.text_calls import ConversationBuilder, TextTurn, as_call, read_listed
from toolhone.sources.tool_specs import BAD_ANSWER, decode_text, fit_calls, read_tools

NOT_HAMMER = "not a Hammer row"
BAD_TURN = "a turn of a dialogue that cannot be read"
_BEGIN = "[BEGIN OF AVAILABLE TOOLS]"
_TOOLS = re.compile(r"\[BEGIN OF AVAILABLE TOOLS\](.*?)\[END OF AVAILABLE TOOLS\]", re.DOTALL)
_QUERY = re.compile(r"\[BEGIN OF QUERY\](.*)\[END OF QUERY\]", re.DOTALL)
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
_FENCED = re.compile(r"\s*```(?:json)?(.*?)```\s*", re.DOTALL)
_REQUEST = "Generate API Request:"


def looks_like(record: Record) -> bool:
    """Return whether this is a prompt, a prediction, or a test with turns or with answers that say
    `tool`."""
    query, answers = record.get("query"), record.get("answers")
    if "query" in record and "tools" in record and isinstance(answers, list):
        says_tool = any(isinstance(answer, dict) and "tool" in answer for answer in answers)
        if says_tool or isinstance(query, list):
            return True
    return _is_prompt(record) or record.keys() == {"label", "predict"}


def _is_prompt(record: Record) -> bool:
    texts = all(isinstance(record.get(key), str) for key in ("instruction", "output"))
    return texts and _BEGIN in record["instruction"]


def convert(record: Record, context: Context) -> Conversation | Task:
    """Return a training row with calls as a conversation, any other row as a task."""
    if record.keys() == {"label", "predict"}:
        raise Skip("a label and a prediction without a question")
    trained = False
    if _is_prompt(record):
        text, output = record["instruction"], _FENCED.fullmatch(record["output"])
        listed, asked = _TOOLS.search(text), _QUERY.search(text)
        if listed is None or output is None:
            detail = "no tools between their marks, or no code fence in the output"
            raise Skip(NOT_HAMMER, f"{detail} {record['output']!r:.60}")
        given, answers, trained = listed[1].strip(), output[1].strip(), asked is not None
        if asked is not None:
            turns = [("user", asked[1])]
        else:
            turns = [(found[1], found[2]) for found in _TURN.finditer(text, listed.end())]
    elif {"query", "tools", "answers"} <= record.keys():
        given, answers, query = record["tools"], record["answers"], record["query"]
        turns = []
        for entry in (
            query if isinstance(query, list) else [{"role": "user", "content": str(query)}]
        ):
            if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
                raise Skip(BAD_TURN, f"{entry!r:.80}")
            turns.append((str(entry.get("role")), entry["content"]))
    else:
        raise Skip(NOT_HAMMER, f"keys {sorted(record)}")
    tools = read_tools(given, context, loose=True)
    messages, listed = _dialogue(turns, context), decode_text(answers, BAD_ANSWER, "answers")
    if not isinstance(listed, list):
        raise Skip(BAD_ANSWER, f"wanted a list of calls, got {listed!r:.60}")
    written = []
    for answer in listed:
        if isinstance(answer, dict) and "tool" in answer:  # and "parameters"
            answer = {"name": answer["tool"], **answer}
            del answer["tool"]
        written.append(as_call(answer, context.unread))
    calls = fit_calls(written, tools, context)
    if trained and calls:
        return Conversation((*messages, Message("assistant", tool_calls=calls)), tools)
    expect = expect_calls(calls)
    note_misfit(expect.wanted, tools, context)
    return Task("", messages, tools, expect)


def _dialogue(turns: Sequence[tuple[str, str]], context: Context) -> tuple[Message, ...]:
    """Return the messages up to the wanted calls."""
    talk = ConversationBuilder()
    for role, text in turns:
        said = text.strip()
        if said.endswith(_REQUEST):
            said = said.removesuffix(_REQUEST).strip()
            context.repairs.add("the line that asks for a request left out")
        if role == "user":
            talk.add_text("user", said)
        elif role == "agent":
            talk.add_assistant(TextTurn(said))
        elif role == "assistant":
            fenced = _FENCED.fullmatch(said)
            talk.add_assistant(read_listed(fenced[1] if fenced else said))
        elif role == "tool":
            talk.add_result(said)
        else:
            raise Skip(BAD_TURN, f"the role {role!r:.40}")
    messages = talk.messages
    talk.tell(context)
    while messages and messages[-1].role == "assistant":
        if messages.pop().tool_calls:
            raise Skip(BAD_TURN, "the dialogue ends with calls, before their results")
        context.repairs.add("words of the assistant right before the wanted calls left out")
    if not messages:
        raise Skip(BAD_TURN, "nobody asks for anything")
    return tuple(messages)


HAMMER = Source(
    "hammer",
    looks_like,
    convert,
    {"": {"instruction", "output", "query", "tools", "answers"}, "query": {"role", "content"}},
)
