"""One question a row, and beside it the right calls, the right tool, the right decision or answer.

    xlam        {"id": 7, "query": "...", "tools": "[{...}]", "answers": "[{\\"name\\": ...}]"}
    when2call   {"uuid", "question", "tools": ["{...}"], "correct_answer": "tool_call",
                 "answers": {"tool_call": "{...}", "cannot_answer": "...", ...}}
    test_cases  {"prompt": "Human: What is 5 * 4?", "expected_tool": "calculator",
                 "expected_params": {"expression": "5 * 4"}}
    metatool    {"Query" or "query": "...", "Tool" or "tool": "BookFinder" or ["BookFinder", ...]}
    bamboogle   {"Question": "Which river runs through the capital of ...?", "Answer": "..."}

xLAM (Liu et al. 2024, arXiv:2406.18518): also as a CSV file. When2Call (Ross et al. 2025,
arXiv:2504.18851): the test set; its training sets are in the messages format. Test cases and
Bamboogle (Press et al. 2022, arXiv:2210.03350) offer the tools of the option `tools`. MetaTool
(Huang et al. 2023, arXiv:2310.03128) describes its tools, without parameters, in `plugin_des.json`.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolhone.errors import DataError, nearest
from toolhone.schema import Conversation, Expect, Json, Message, Task, Tool, ToolCall
from toolhone.sources.catalogue import (
    CATALOGUE_OPTIONS,
    choose_tools,
    count_distractors,
    find_beside,
)
from toolhone.sources.files import Record, read_json
from toolhone.sources.scenarios import note_misfit, read_question
from toolhone.sources.source import (
    Context,
    Converted,
    Skip,
    Source,
    expect_calls,
    has_keys,
    tasks_of,
)
from toolhone.sources.text_calls import as_call
from toolhone.sources.tool_specs import BAD_ANSWER, decode_text, fit_calls, read_tools
from toolhone.tools.builtin import BUILTIN
from toolhone.tools.registry import Registry

CALL = "tool_call"
NO_CALL = ("request_for_info", "cannot_answer")
NOT_A_CASE = "not a test case"
DISTRACTORS = 9


def convert_xlam(record: Record, context: Context) -> Conversation | Task:
    user = Message("user", read_question(record, "query", "not an xLAM row"))
    tools = read_tools(record.get("tools"), context)
    answers = decode_text(record.get("answers"), BAD_ANSWER, "answers")
    if not isinstance(answers, list):
        raise Skip(BAD_ANSWER, f"wanted a list of calls, got {answers!r:.60}")
    decoded = [decode_text(answer, BAD_ANSWER, "answers") for answer in answers]
    calls = fit_calls(
        [as_call(value, context.unread, BAD_ANSWER) for value in decoded], tools, context
    )
    if not calls:
        return Task("", (user,), tools, Expect(no_call=True))
    return Conversation((user, Message("assistant", tool_calls=calls)), tools)


def convert_when2call(record: Record, context: Context) -> Task:
    """Return a task whose category is the right decision: call, ask back, or decline."""
    user = Message("user", read_question(record, "question", "not a When2Call row"))
    decision = record.get("correct_answer")
    tools = read_tools(record.get("tools"), context, loose=True)
    if decision == CALL:
        answers = record.get("answers")
        if not isinstance(answers, dict) or not answers.get(CALL):
            raise Skip(BAD_ANSWER, f"'answers' has no {CALL!r}: {answers!r:.60}")
        given = decode_text(answers[CALL], BAD_ANSWER, CALL)
        call = as_call(given, context.unread, BAD_ANSWER)
        expect = expect_calls(fit_calls([call], tools, context))
    elif decision in NO_CALL:
        expect = Expect(no_call=True)
    else:
        detail = f"{decision!r:.40}; known: {CALL}, {', '.join(NO_CALL)}"
        raise Skip("a decision that is neither a call nor none", detail)
    note_misfit(expect.wanted, tools, context)
    return Task(context.identity(record, "uuid"), (user,), tools, expect, category=decision)


def prepare_test_cases(_records: Sequence[Record], context: Context) -> tuple[Tool, ...]:
    tools = context.options.get("tools")
    return Registry(BUILTIN).tools if tools is None else tuple(tools)


def convert_test_case(record: Record, context: Context) -> Converted | Task:
    prompt, tools = read_question(record, "prompt", NOT_A_CASE), context.prepared
    question = prompt.strip().removeprefix("Human:").removesuffix("Assistant:").strip()
    if not question or "expected_tool" not in record:
        detail = f"the prompt {prompt!r:.60} asks nothing, or no 'expected_tool'"
        raise Skip(NOT_A_CASE, detail)
    user, name = Message("user", question), record["expected_tool"]
    given = decode_text(record.get("expected_params") or {}, NOT_A_CASE, "expected_params")
    if not isinstance(name, str | None) or not isinstance(given, dict):
        raise Skip(NOT_A_CASE, f"expected_tool {name!r:.40}, expected_params {given!r:.60}")
    if not name and given:
        raise Skip("expected_params without an expected_tool", f"{given!r:.60}")
    if not name:
        return Task("", (user,), tools, Expect(no_call=True))
    calls = fit_calls([ToolCall(name, given)], tools, context)
    talk = Conversation((user, Message("assistant", tool_calls=calls)), tools)
    talk = context.complete(talk, record)
    return Converted(talk, tasks_of(talk, name))


def prepare_metatool(_records: Sequence[Record], context: Context) -> tuple[dict[str, Tool], int]:
    path = find_beside(context, ["plugin_des.json"])
    described = read_json(path)
    texts = described.values() if isinstance(described, dict) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        wanted = "wanted one object from the name of each tool to its description"
        raise DataError(f"{path}: {wanted}, got {described!r:.60}")
    known = {name: Tool(name, text) for name, text in described.items()}
    return known, count_distractors(context, DISTRACTORS, len(known))


def convert_metatool(record: Record, context: Context) -> Task:
    """Return a task that expects a call of each tool, in any order."""
    known, count = context.prepared
    query = read_question(record, "Query" if "Query" in record else "query", "not a MetaTool row")
    named = record.get("Tool", record.get("tool"))
    names: list[Json] = named if isinstance(named, list) else [named]
    for name in names or [None]:
        if not isinstance(name, str) or name not in known:
            detail = f"{name!r:.60}{nearest(str(name), known)}"
            raise Skip("a tool that is not described", detail)
    seed = f"{context.options.get('seed') or 0}/{context.line.number}"
    tools = choose_tools(names, known, count, seed)
    expect = expect_calls([ToolCall(name, {}) for name in names])
    return Task(context.identity({}), (Message("user", query.strip()),), tools, expect)


def convert_bamboogle(record: Record, context: Context) -> Task:
    reason = "a row without a question and an answer"
    user = Message("user", read_question(record, "Question", reason).strip())
    given, tools = record.get("Answer"), tuple(context.options.get("tools") or ())
    if not isinstance(given, str | int | float) or not str(given).strip():
        raise Skip(reason, f"the answer {given!r:.40}")
    expect = Expect(answer=str(given).strip())
    return Task("", (user,), tools, expect, category="two_steps")


XLAM_KEYS = ("query", "tools", "answers")
XLAM = Source("xlam", has_keys(*XLAM_KEYS), convert_xlam, {"": {*XLAM_KEYS}})
WHEN2CALL = Source(
    "when2call",
    has_keys("question", "tools", "correct_answer", "answers"),
    convert_when2call,
    {
        "": {
            *("question", "tools", "correct_answer", "answers", "source_id", "target_tool"),
            *("held_out_param", "orig_question", "orig_tools"),
        },
        "answers": {CALL, *NO_CALL, "direct"},
    },
)
TEST_CASES = Source(
    "test_cases",
    has_keys("prompt", "expected_tool"),
    convert_test_case,
    {"": {"prompt", "expected_tool", "expected_params"}},
    prepare_test_cases,
    options={"tools"},
)
METATOOL = Source(
    "metatool",
    lambda record: record.keys() in ({"Query", "Tool"}, {"query", "tool"}),
    convert_metatool,
    {"": {"Query", "Tool", "query", "tool"}},
    prepare_metatool,
    options=CATALOGUE_OPTIONS,
)
BAMBOOGLE = Source(
    "bamboogle",
    has_keys("Question", "Answer"),
    convert_bamboogle,
    {"": {"Question", "Answer"}},
    options={"tools"},
)
