"""Calls written as text: Glaive, Hermes tags, sharegpt, ToolACE's brackets, parts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from toolhone.doctor.checks import check
from toolhone.errors import FindingKind
from toolhone.schema import Conversation, Expect, ExpectedCall, ToolCall
from toolhone.sources.formats import detect, detect_format, open_source
from toolhone.sources.loaded import Loaded

DATASETS = SHARED / "datasets"
PARAMETERS = {
    "type": "object",
    "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["place"],
}
TIDES = {"name": "get_tides", "description": "High and low water.", "parameters": PARAMETERS}
BOATS = {
    "name": "list_boats",
    "description": "Boats in a harbour.",
    "parameters": {"type": "object", "properties": {}},
}
OSLO = {"name": "get_tides", "arguments": {"place": "Oslo"}}


def save(path: Path, *rows: Any) -> Path:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def read(tmp_path: Path, *rows: Any, name: str) -> Loaded:
    path = save(tmp_path / "rows.jsonl", *rows)
    assert detect_format(path) == name
    assert detect(rows[0]) == name
    loaded = open_source(path)
    check(loaded.conversations, "rows.jsonl").raise_if_any()
    return loaded


def only(loaded: Loaded) -> Conversation:
    assert loaded.read == 1, loaded.summary()
    assert len(loaded.conversations) == 1, loaded.examples
    return loaded.conversations[0]


def told(conversation: Conversation) -> list[tuple[str, str | None]]:
    """Who says what; calls as `name(arguments)`."""
    return [
        (
            message.role,
            " + ".join(
                filter(
                    None,
                    [
                        message.content,
                        *(f"{c.name}{dict(c.arguments)}" for c in message.tool_calls),
                    ],
                )
            ),
        )
        for message in conversation.messages
    ]


# --- Glaive, flat text


def glaive(*turns: str, tools: Any = (TIDES, BOATS)) -> dict[str, str]:
    listed = "\n".join(
        tool if isinstance(tool, str) else json.dumps(tool, indent=4) for tool in tools
    )
    words = (
        "SYSTEM: You are a harbour master with access to the following functions. Use them "
        "if required -\n"
    )
    return {"system": words + listed, "chat": "\n\n\n".join(turns) + "\n\n\n\n"}


def calling(body: str, before: str = "") -> list[str]:
    """A whole chat with this call in it."""
    return [
        "USER: How are the tides?",
        f"ASSISTANT: {before}<functioncall> {body} <|endoftext|>",
        'FUNCTION RESPONSE: {"high": "6:10"}',
        "ASSISTANT: High water is at 6:10. <|endoftext|>",
    ]


GOOD = '{"name": "get_tides", "arguments": \'{"place": "Oslo"}\'}'


def test_flat_text_becomes_turns_with_calls_linked_to_their_results(tmp_path: Path) -> None:
    loaded = read(tmp_path, glaive(*calling(GOOD, "Let me look. ")), name="glaive")
    talk = only(loaded)
    assert told(talk) == [
        (
            "system",
            "You are a harbour master with access to the following functions. Use them if required",
        ),
        ("user", "How are the tides?"),
        ("assistant", "Let me look. + get_tides{'place': 'Oslo'}"),
        ("tool", '{"high": "6:10"}'),
        ("assistant", "High water is at 6:10."),
    ]
    assert [tool.name for tool in talk.tools] == ["get_tides", "list_boats"]
    assert talk.messages[3].tool_call_id == talk.messages[2].tool_calls[0].id == "call0"
    assert [task.expect for task in loaded.tasks] == [
        Expect((ExpectedCall("get_tides", {"place": "Oslo"}),))
    ]
    assert not loaded.repaired


@pytest.mark.parametrize(
    ("body", "arguments", "repairs"),
    [
        (
            '{"name": "get_tides", "arguments": \'{"place": "Land\'s End, at O\'Hara\'s"}\'}',
            {"place": "Land's End, at O'Hara's"},
            [],
        ),
        (
            r"""{"name": "get_tides", "arguments": '{"place": "Land\'s End"}'}""",
            {"place": "Land's End"},
            ["escaped apostrophes inside the arguments"],
        ),
        (
            '{"name": "get_tides", "arguments": {"place": "Oslo"}}',
            {"place": "Oslo"},
            ["arguments as an object instead of a text"],
        ),
        (
            '{"name": "get_tides", "parameters": \'{"place": "Oslo"}\'}',
            {"place": "Oslo"},
            ["arguments under the key 'parameters'"],
        ),
        (
            '{"name": "get_tides", "arguments": \'{"place": "Oslo"}}\'}',
            {"place": "Oslo"},
            ["a brace too many or too few behind the arguments"],
        ),
        (
            '{"name": "get_tides", "arguments": \'{"place": "Oslo"}\'}}',
            {"place": "Oslo"},
            ["a brace too many or too few behind the arguments"],
        ),
        (
            '{"name": "get_tides", "arguments": \'{"place": "Oslo"}\'',
            {"place": "Oslo"},
            ["a brace too many or too few behind the arguments"],
        ),
        ('{"arguments": "{\\"place\\": \\"Oslo\\"}", "name": "get_tides"}', {"place": "Oslo"}, []),
        (
            '{"name": "get_tides", "arguments": \'{"place": "Oslo", "days": "3"}\'}',
            {"place": "Oslo", "days": 3},
            ["arguments of another type"],
        ),
        (
            '{"name": "getTides", "arguments": \'{"place": "Oslo"}\'}',
            {"place": "Oslo"},
            ["a call name spelled otherwise than the declared one"],
        ),
        (GOOD + " I wait for it.", {"place": "Oslo"}, ["words behind a call left out"]),
        ('{"name": "list_boats", "arguments": null}', {}, ["arguments of null instead of none"]),
        ('{"name": "list_boats", "arguments": \'\'}', {}, []),
        ('{"name": "list_boats"}', {}, []),
    ],
)
def test_each_irregular_call_is_read_and_its_mending_counted(
    tmp_path: Path, body: str, arguments: Any, repairs: list[str]
) -> None:
    loaded = read(tmp_path, glaive(*calling(body)), name="glaive")
    (call,) = only(loaded).messages[2].tool_calls
    assert (call.name in ("get_tides", "list_boats"), dict(call.arguments)) == (True, arguments)
    assert loaded.repaired == Counter(repairs)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"name": "get_tides", "arguments": \'{"place": "Os', "a call that is cut off"),
        ('{"name": "get_tides", "arguments": \'{"place": "Oslo"}', "a call that is cut off"),
        ("", "a call that is cut off"),
        ('{"name": "get_tides", "arguments": \'["Oslo"]\'}', "arguments that are no object"),
        ('{"name": "get_tides", "arguments": ["Oslo"]}', "arguments that are no object"),
        (
            '{"name": "get_tides", "arguments": \'{"place": "Oslo", "days": Infinity}\'}',
            "arguments with a value that JSON has no word for",
        ),
        (
            '{"name": "get_tides", "arguments": \'{"place": "Oslo", "days": NaN}\'}',
            "arguments with a value that JSON has no word for",
        ),
        ('{"name": "get_tides", "arguments": \'{"place": Oslo}\'}', "a call that cannot be read"),
        ('{"name": "get_tides", "name": "b", "arguments": \'{}\'}', "a call that cannot be read"),
        ('{"arguments": \'{"place": "Oslo"}\'}', "a call that cannot be read"),
        ('get_tides(place="Oslo")', "a call that cannot be read"),
        ('{"name": "get_waves", "arguments": \'{}\'}', FindingKind.UNKNOWN_TOOL),
        ('{"name": "get_tides", "arguments": \'{"place": 7.5}\'}', FindingKind.BAD_ARGUMENTS),
        (
            '{"name": "get_tides", "arguments": \'{"place": "Oslo", "unit": "m"}\'}',
            FindingKind.UNDECLARED_ARGUMENT,
        ),
    ],
)
def test_a_call_that_cannot_be_meant_one_way_refuses_its_row_by_name(
    tmp_path: Path, body: str, reason: str
) -> None:
    loaded = read(tmp_path, glaive(*calling(body)), glaive(*calling(GOOD)), name="glaive")
    assert (loaded.read, len(loaded.conversations), loaded.skipped) == (2, 1, Counter({reason: 1}))
    assert [(each.line.number, each.reason) for each in loaded.refused] == [(1, reason)]


def test_a_response_behind_another_call_syntax_follows_no_call(tmp_path: Path) -> None:
    turns = calling(GOOD)
    turns[1] = 'ASSISTANT: AI calls get_tides: {"place": "Oslo"} <|endoftext|>'
    loaded = read(tmp_path, glaive(*turns), name="glaive")
    assert loaded.skipped == Counter({FindingKind.RESULT_WITHOUT_CALL: 1})


def test_markers_inside_a_turn_are_text_and_noted(tmp_path: Path) -> None:
    user = "USER: Write a talk.\nASSISTANT: and USER: take turns"
    inner = "ASSISTANT: Here it is:\n\nUSER: Ahoy!\n\nASSISTANT: Ahoy! <|endoftext|>"
    loaded = read(tmp_path, glaive(user, inner, tools=()), name="glaive")
    assert told(only(loaded))[1:] == [
        ("user", "Write a talk.\nASSISTANT: and USER: take turns"),
        ("assistant", "Here it is:\n\nUSER: Ahoy!\n\nASSISTANT: Ahoy!"),
    ]
    assert loaded.noted == Counter({"a turn marker inside a turn, kept as text": 1})


def test_a_turn_of_the_assistant_goes_on_to_its_end_mark(tmp_path: Path) -> None:
    loaded = read(
        tmp_path,
        glaive("USER: Hi.", "ASSISTANT: One.", "ASSISTANT: Two. <|endoftext|>", tools=()),
        name="glaive",
    )
    assert told(only(loaded))[1:] == [("user", "Hi."), ("assistant", "One.\n\nASSISTANT: Two.")]
    loaded = read(
        tmp_path,
        glaive("USER: Hi.", "ASSISTANT: One.", "USER: And?", "ASSISTANT: Two.", tools=()),
        name="glaive",
    )
    assert [role for role, _ in told(only(loaded))] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert loaded.repaired == Counter({"a turn without its end mark": 1})


def test_stray_end_marks_and_turns_in_a_row(tmp_path: Path) -> None:
    loaded = read(
        tmp_path,
        glaive("USER: Hi. <|endoftext|>", "USER: You?", "ASSISTANT: Me. <|endoftext|>", tools=()),
        name="glaive",
    )
    assert told(only(loaded))[1:] == [("user", "Hi.\n\nYou?"), ("assistant", "Me.")]
    assert loaded.repaired == Counter(
        {
            "an end mark behind a turn of the user or of a function": 1,
            "two turns of the user in a row joined": 1,
        }
    )
    behind = glaive("USER: Hi.", "ASSISTANT: One. <|endoftext|> And more.", tools=())
    assert read(tmp_path, behind, name="glaive").skipped == Counter(
        {"text behind the end mark of a turn": 1}
    )


def test_of_a_function_declared_twice_the_definition_stays_that_the_calls_fit(
    tmp_path: Path,
) -> None:
    other = {
        **TIDES,
        "parameters": {
            "type": "object",
            "properties": {"harbour": {"type": "string"}},
            "required": ["harbour"],
        },
    }
    open_to_all = {
        **TIDES,
        "parameters": {"type": "object", "properties": {"harbour": {"type": "string"}}},
    }
    for tools in ((TIDES, other), (other, TIDES), (open_to_all, TIDES)):
        loaded = read(tmp_path, glaive(*calling(GOOD), tools=tools), name="glaive")
        assert [dict(tool.parameters) for tool in only(loaded).tools] == [PARAMETERS]
        assert (
            loaded.repaired["a function declared twice: the definition that the calls fit was kept"]
            == 1
        )
    neither = glaive(
        *calling('{"name": "get_tides", "arguments": \'{"sea": "North"}\'}'), tools=(TIDES, other)
    )
    assert read(tmp_path, neither, name="glaive").skipped == Counter({FindingKind.BAD_ARGUMENTS: 1})


def test_other_rows_of_the_file_are_counted(tmp_path: Path) -> None:
    rows = [
        glaive(*calling(GOOD)),
        glaive("Ahoy!", "ASSISTANT: Ahoy! <|endoftext|>"),
        glaive(*calling(GOOD), tools=("{oops",)),
        {"system": "SYSTEM: none", "chat": 7},
        glaive("USER: Hi.", "ASSISTANT:  <|endoftext|>"),
    ]
    loaded = read(tmp_path, *rows, name="glaive")
    assert loaded.skipped == Counter(
        {"not a Glaive row": 2, "tools that cannot be read": 1, FindingKind.EMPTY_TURN: 1}
    )


# --- Hermes


def hermes(
    *turns: tuple[str, str], tools: str = repr([{"type": "function", "function": TIDES}])
) -> dict[str, Any]:
    system = (
        f"You watch the sea. Signatures are within <tools> </tools> tags. <tools> {tools} "
        "</tools> Answer in <tool_call> tags."
    )
    return {
        "conversations": [
            {"from": who, "value": text} for who, text in (("system", system), *turns)
        ]
    }


def test_tools_and_calls_of_the_system_text_may_be_python_literals_or_json(tmp_path: Path) -> None:
    ask, reply = ("human", "Tides in Oslo?"), ("gpt", "Seen. ")
    literal = ("gpt", f"<tool_call> {OSLO!r} </tool_call> <tool_call>\n{OSLO!r}\n</tool_call> ")
    results = (
        "tool",
        "<tool_response>\n6:10\n</tool_response>\n<tool_response>\n18:40\n</tool_response>",
    )
    loaded = read(tmp_path, hermes(ask, literal, results, reply), name="hermes")
    talk = only(loaded)
    assert told(talk) == [
        ("system", "You watch the sea."),
        ("user", "Tides in Oslo?"),
        ("assistant", "get_tides{'place': 'Oslo'} + get_tides{'place': 'Oslo'}"),
        ("tool", "6:10"),
        ("tool", "18:40"),
        ("assistant", "Seen."),
    ]
    assert [message.tool_call_id for message in talk.messages[3:5]] == ["call0", "call1"]
    assert loaded.repaired == Counter(
        {
            "tools and format description taken out of the system text": 1,
            "calls in Python literals instead of JSON": 1,
        }
    )
    as_json = hermes(
        ask,
        ("gpt", f"<tool_call>{json.dumps(OSLO)}</tool_call>"),
        tools=f"{json.dumps(TIDES)}\n{json.dumps(BOATS)}",
    )
    loaded = read(tmp_path, as_json, name="hermes")
    assert [tool.name for tool in only(loaded).tools] == ["get_tides", "list_boats"]
    assert loaded.repaired == Counter(
        {"tools and format description taken out of the system text": 1}
    )


def test_few_shot_texts_are_read(tmp_path: Path) -> None:
    text = (
        "```\nSYSTEM: You watch the sea. Use "
        f"tools\n<tools>[{json.dumps(TIDES)}]</tools>\nUSER: Oslo?\nASSISTANT:\n"
    )
    loaded = read(
        tmp_path,
        {"example": f"{text}<tool_call>\n{json.dumps(OSLO)}\n</tool_call>\n```\n"},
        name="hermes",
    )
    assert told(only(loaded)) == [
        ("system", "You watch the sea. Use tools"),
        ("user", "Oslo?"),
        ("assistant", "get_tides{'place': 'Oslo'}"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            hermes(("human", "?"), ("gpt", "<tool_call> {'name': 'get_tides', </tool_call>")),
            "a call that cannot be read",
        ),
        (
            hermes(("human", "?"), ("gpt", "<tool_call> {'name': 'get_tides'}")),
            "a call that cannot be read",
        ),
        (hermes(("human", "?"), ("gpt", "<tool_call> </tool_call>")), "a call that cannot be read"),
        (
            hermes(("human", "?"), ("gpt", "<tool_call> {'arguments': {}} </tool_call>")),
            "a call that cannot be read",
        ),
        (
            hermes(
                ("human", "?"),
                ("gpt", "<tool_call> {'name': 'get_tides', 'arguments': {}} </tool_call>"),
            ),
            FindingKind.BAD_ARGUMENTS,
        ),
        (
            hermes(("human", "?"), ("tool", "<tool_response> 1 </tool_response>")),
            FindingKind.RESULT_WITHOUT_CALL,
        ),
        (hermes(("human", "?"), ("gpt", "No."), tools="[{'name':"), "tools that cannot be read"),
        (hermes(("human", "?"), ("gpt", "No."), tools=""), "a system text without a list of tools"),
        (hermes(("narrator", "?"), ("gpt", "No.")), "not a Hermes row"),
    ],
)
def test_a_tagged_text_that_cannot_be_read_refuses_its_row_by_name(
    tmp_path: Path, row: Any, reason: str
) -> None:
    assert read(tmp_path, row, name="hermes").skipped == Counter({reason: 1})


# --- sharegpt forms


def share(
    *turns: tuple[str, str], keys: tuple[str, str] = ("from", "value"), **others: Any
) -> dict[str, Any]:
    return {"conversations": [{keys[0]: who, keys[1]: text} for who, text in turns], **others}


LISTED = json.dumps([TIDES, BOATS])
ASK = ("human", "Tides?")


@pytest.mark.parametrize(
    "row",
    [
        share(
            ASK,
            ("function_call", json.dumps(OSLO)),
            ("observation", "6:10"),
            ("gpt", "At 6:10."),
            tools=LISTED,
        ),
        share(
            ASK,
            ("function_call", json.dumps([OSLO])),
            ("observation", "6:10"),
            ("gpt", "At 6:10."),
            tools=[TIDES, BOATS],
        ),
        share(
            ASK,
            ("gpt", f"<tool_call>{json.dumps(OSLO)}</tool_call>"),
            ("tool", "6:10"),
            ("gpt", "At 6:10."),
            tools=LISTED,
        ),
        share(
            ASK,
            ("gpt", "[get_tides(place='Oslo')]"),
            ("tool", "6:10"),
            ("gpt", "At 6:10."),
            tools=LISTED,
        ),
        share(
            ("user", "Tides?"),
            ("function_call", json.dumps({**OSLO, "arguments": json.dumps(OSLO["arguments"])})),
            ("function_response", "6:10"),
            ("assistant", "At 6:10."),
            keys=("role", "content"),
            tools=LISTED,
        ),
    ],
)
def test_all_sharegpt_spellings_mean_the_same(tmp_path: Path, row: Any) -> None:
    assert told(only(read(tmp_path, row, name="sharegpt"))) == [
        ("user", "Tides?"),
        ("assistant", "get_tides{'place': 'Oslo'}"),
        ("tool", "6:10"),
        ("assistant", "At 6:10."),
    ]


def test_an_observation_for_several_calls_is_taken_apart(tmp_path: Path) -> None:
    calls = json.dumps(OSLO) + "\n" + json.dumps({"name": "list_boats", "arguments": {}})
    row = share(
        ASK,
        ("function_call", calls),
        ("observation", '[{"high": "6:10"}, "none"]'),
        ("gpt", "Fine."),
        tools=LISTED,
    )
    loaded = read(tmp_path, row, name="sharegpt")
    assert [message.content for message in only(loaded).messages if message.role == "tool"] == [
        '{"high": "6:10"}',
        "none",
    ]
    assert loaded.repaired == Counter({"several results in one message taken apart": 1})


def test_plain_talk_and_a_system_column_are_kept(tmp_path: Path) -> None:
    loaded = read(
        tmp_path,
        share(ASK, ("gpt", "[See the table (page 3)]"), system="Be brief.", tools=""),
        name="sharegpt",
    )
    assert told(only(loaded)) == [
        ("system", "Be brief."),
        ("user", "Tides?"),
        ("assistant", "[See the table (page 3)]"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            share(
                ASK, chosen={"from": "gpt", "value": "a"}, rejected={"from": "gpt", "value": "b"}
            ),
            "preference pairs",
        ),
        (
            share(ASK, ("function_call", json.dumps(OSLO)), tools="[]"),
            "calls although the row gives no tools",
        ),
        (
            share(ASK, ("gpt", "[Market Tides(place='Oslo')]"), tools=LISTED),
            FindingKind.UNKNOWN_TOOL,
        ),
        (
            share(ASK, ("gpt", "[get_tides(place=Oslo)]"), tools=LISTED),
            "a call that cannot be read",
        ),
        (
            share(ASK, ("function_call", '{"name": "get_tides"'), tools=LISTED),
            "a call that cannot be read",
        ),
        (share(ASK, ("function_call", "[]"), tools=LISTED), "a call that cannot be read"),
        (
            share(ASK, ("function_call", json.dumps(OSLO)), ("gpt", "At 6:10."), tools=LISTED),
            FindingKind.CALL_WITHOUT_RESULT,
        ),
        (
            share(ASK, ("observation", "6:10"), ("gpt", "At 6:10."), tools=LISTED),
            FindingKind.RESULT_WITHOUT_CALL,
        ),
        (share(ASK, ("gpt", "Yes."), tools="[{"), "tools that cannot be read"),
        (share(ASK, tools=LISTED), FindingKind.NO_ASSISTANT),
    ],
)
def test_a_sharegpt_row_that_teaches_something_wrong_is_refused_by_name(
    tmp_path: Path, row: Any, reason: str
) -> None:
    assert read(tmp_path, row, name="sharegpt").skipped == Counter({reason: 1})


# --- Seal-Tools' training rows

SCORES = {
    "api_name": "getScore",
    "api_description": "A score.",
    "parameters": {"game": {"type": "int"}},
    "required": ["game"],
}


def seal(
    calling: Any, tools: Any = (SCORES,), query: str = '"Who\'s ahead in game "7"?"'
) -> dict[str, Any]:
    prompt = (
        "Choose apis.\nOutput format: [...]\n\nInput:\napi_list = "
        f"{list(tools)!r}\ntask_instruction = {query}\nOutput:\n"
    )
    return {
        "id": "s1",
        **share(("human", prompt), ("gpt", calling if isinstance(calling, str) else repr(calling))),
    }


def test_a_training_row_of_seal_tools_is_taken_apart(tmp_path: Path) -> None:
    call = {"api": "getScore", "parameters": {"game": "7"}, "responses": ["API_call_0"]}
    loaded = read(tmp_path, seal([call]), name="seal_tools_sft")
    assert told(only(loaded)) == [
        ("user", 'Who\'s ahead in game "7"?'),
        ("assistant", "getScore{'game': 7}"),
    ]
    assert [task.expect for task in loaded.tasks] == [
        Expect((ExpectedCall("getScore", {"game": 7}),))
    ]
    assert loaded.repaired == Counter(
        {"tools and format description taken out of the prompt": 1, "arguments of another type": 1}
    )


def test_training_rows_of_seal_tools_that_use_results_are_tasks(tmp_path: Path) -> None:
    tool = {**SCORES, "responses": {"score": {"type": "str", "description": ""}, "place": None}}
    first = {
        "api": "getScore",
        "parameters": {"game": 7},
        "responses": ["API_call_0", "API_call_1"],
    }
    second = {
        "api": "getScore",
        "parameters": {"game": "API_call_1"},
        "responses": ["API_call_2", "API_call_3"],
    }
    loaded = read(tmp_path, seal([first, second], tools=[tool]), name="seal_tools_sft")
    assert (loaded.read, loaded.only_tasks, loaded.repaired) == (
        1,
        1,
        Counter({"tools and format description taken out of the prompt": 1}),
    )
    (task,) = loaded.tasks
    called = [ExpectedCall("getScore", {"game": value}) for value in (7, "API_call_1")]
    assert (task.expect, task.source) == (Expect(tuple(called), order="strict"), "seal_tools_sft")
    assert task.tools[0].description == "A score.\nIt gives, in this order: score; place"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            seal([{"api": "getScore", "parameters": {"game": "API_call_0"}}]),
            "a reference that is not to a result of an earlier call",
        ),
        (seal([], tools=[SCORES, SCORES]), "not a training row of Seal-Tools"),
        (
            seal([{"api": "getGoals", "parameters": {}}]),
            "a call of a tool that the catalogue lacks",
        ),
        (
            seal([{"api": "getScore", "parameters": {"game": "seven"}}]),
            "arguments that break the tool's schema",
        ),
        (seal("[{'api': "), "a call that cannot be read"),
        (seal("[] and so on"), "not a training row of Seal-Tools"),
        (seal([], tools=[7]), "not a training row of Seal-Tools"),
        (seal([], tools=[{"api_name": "x"}]), "not a training row of Seal-Tools"),
    ],
)
def test_a_training_row_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, row: Any, reason: str
) -> None:
    assert read(tmp_path, row, name="seal_tools_sft").skipped == Counter({reason: 1})


# --- ToolACE


def ace(*turns: tuple[str, str], tools: Any = None) -> dict[str, Any]:
    trends = {
        "name": "Sea Trends (new)",
        "description": "d",
        "parameters": {"type": "dict", "properties": {"kind": {"type": "float"}}},
    }
    listed = json.dumps([trends, TIDES]) if tools is None else tools
    system = (
        f"You compose functions. Here is a list of functions in JSON format:\n{listed}\nPut "
        "calls as [func(name=value)]."
    )
    return {**share(*turns), "system": system}


def test_bracketed_calls_keep_names_with_spaces_and_brackets(tmp_path: Path) -> None:
    call = "[Sea Trends (new)(kind=1.5), get_tides(place=\"Oslo, 'N'\", days=2)]"
    result = json.dumps(
        [
            {"name": "Sea Trends (new)", "results": {"up": True}},
            {"name": "get_tides", "results": []},
        ]
    )
    loaded = read(
        tmp_path,
        ace(("user", "Trends?"), ("assistant", call), ("tool", result), ("assistant", "Up.")),
        name="toolace",
    )
    talk = only(loaded)
    assert talk.messages[1].tool_calls == (
        ToolCall("Sea Trends (new)", {"kind": 1.5}),
        ToolCall("get_tides", {"place": "Oslo, 'N'", "days": 2}),
    )
    assert [message.role for message in talk.messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    assert talk.tools[0].parameters["properties"] == {"kind": {"type": "number"}}
    assert loaded.repaired["a tool whose types are named as JSON Schema names none"] == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ace(("user", "?"), ("assistant", "[Sea Trend(kind=1.5)]")), FindingKind.UNKNOWN_TOOL),
        (
            ace(("user", "?"), ("assistant", "[get_tides(place='Oslo', place='Rome')]")),
            "a call that cannot be read",
        ),
        (
            ace(("user", "?"), ("assistant", "No."), tools="[{}]"),
            "a system text without a list of tools",
        ),
    ],
)
def test_a_bracketed_text_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, row: Any, reason: str
) -> None:
    assert read(tmp_path, row, name="toolace").skipped == Counter({reason: 1})


# --- messages in parts


def part(kind: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "value": value}


def says(role: str, *parts: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"role": role, "content": list(parts), **others}


USER = says("user", part("text", "Tides?"), loss_weight=0.0)
THOUGHT = says(
    "assistant", part("reasoning", "I look."), *[part("tool_call", json.dumps(OSLO))] * 2
)
ENVELOPES = [
    {"tool_call_id": f"c{number}", "name": "get_tides", "content": f"6:1{number}"}
    for number in (0, 1)
]


def test_parts_become_reasoning_calls_and_text(tmp_path: Path) -> None:
    row = {
        "messages": [
            USER,
            THOUGHT,
            says("tool", part("text", json.dumps(ENVELOPES))),
            says("assistant", part("text", "At 6:10.")),
        ],
        "tools": json.dumps(
            [
                {
                    "type": "function",
                    "function": {
                        **TIDES,
                        "parameters": {
                            "type": "dict",
                            **{"properties": {"place": {"type": "str"}}},
                        },
                        "required": ["place"],
                    },
                }
            ]
        ),
    }
    loaded = read(tmp_path, row, name="parts")
    talk = only(loaded)
    assert talk.messages[1].reasoning == "I look."
    assert [message.content for message in talk.messages[2:4]] == ["6:10", "6:11"]
    assert dict(talk.tools[0].parameters) == {
        "type": "object",
        "properties": {"place": {"type": "string"}},
        "required": ["place"],
    }
    assert loaded.repaired == Counter(
        {
            "a tool whose types are named as JSON Schema names none": 1,
            "required names that stood beside the parameters": 1,
            "several results in one message taken apart": 1,
        }
    )


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (
            [USER, says("assistant", part("text", "a"), loss_weight="some")],
            "a turn whose weight in training cannot be read",
        ),
        (
            [USER, says("assistant", part("image", "a.png"))],
            "a part that is neither text, reasoning nor a call",
        ),
        (
            [says("user", part("tool_call", "{}"))],
            "a part that is neither text, reasoning nor a call",
        ),
        ([says("bot", part("text", "a"))], "not a row of messages in parts"),
        ([USER, says("assistant", part("tool_call", "{"))], "a call that cannot be read"),
    ],
)
def test_parts_that_cannot_be_learned_as_they_are_refuse_their_row(
    tmp_path: Path, messages: Any, reason: str
) -> None:
    assert read(tmp_path, {"messages": messages, "tools": "[]"}, name="parts").skipped == Counter(
        {reason: 1}
    )


# --- the published files

REAL: dict[str, tuple[str, int, int, dict[str, int], dict[str, int]]] = {
    "glaive/glaive_v2_raw_rows.jsonl": ("glaive", 2, 2, {}, {}),
    "glaive/glaive_toolcall_en_demo.json.gz": (
        "sharegpt",
        172,
        171,
        {},
        {FindingKind.BAD_ARGUMENTS: 1},
    ),
    "glaive/glaive_toolcall_zh_demo.json.gz": (
        "sharegpt",
        100,
        97,
        {},
        {FindingKind.BAD_ARGUMENTS: 2, FindingKind.RESULT_WITHOUT_CALL: 1},
    ),
    "hermes/hermes_v1_row.json": (
        "hermes",
        1,
        1,
        {
            "tools and format description taken out of the system text": 1,
            "calls in Python literals instead of JSON": 1,
        },
        {},
    ),
    "hermes/few_shot.json": (
        "hermes",
        2,
        2,
        {"tools and format description taken out of the system text": 2},
        {},
    ),
    "seal_tools/dataset_for_finetune_dev.json.gz": (
        "seal_tools_sft",
        200,
        198,
        {
            "tools and format description taken out of the prompt": 198,
            "arguments of another type": 17,
        },
        {
            "a call of a tool that the catalogue lacks": 1,
            "arguments that break the tool's schema": 1,
        },
    ),
    "llama_factory/dpo_en_demo.json.gz": ("sharegpt", 120, 0, {}, {"preference pairs": 120}),
    "llama_factory/v1_sft_demo.jsonl": ("parts", 60, 60, {}, {}),
    "llama_factory/reason_tool_use_demo_50.jsonl": (
        "parts",
        32,
        31,
        {
            "a tool whose types are named as JSON Schema names none": 15,
            "several results in one message taken apart": 8,
            "required names that stood beside the parameters": 8,
            "a default of another type left out": 4,
        },
        {FindingKind.UNDECLARED_ARGUMENT: 1},
    ),
}


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_published_files_are_read_with_these_counts(name: str) -> None:
    path = DATASETS / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    form, rows, kept, repaired, refused = REAL[name]
    assert detect_format(path) == form
    loaded = open_source(path)
    assert (loaded.read, loaded.kept, loaded.repaired, loaded.skipped) == (
        rows,
        kept,
        Counter(repaired),
        Counter(refused),
    )
    assert len(loaded.refused) == sum(refused.values())
    check(loaded.conversations, name).raise_if_any()


@pytest.mark.real
def test_published_rows_mean_what_they_say() -> None:
    path = DATASETS / "glaive/glaive_v2_raw_rows.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    first, second = open_source(path).conversations
    assert first.messages[4].tool_calls == (
        ToolCall("detect_language", {"text": "Je suis un étudiant"}),
    )
    assert (first.messages[5].content, first.messages[5].name) == (
        '{"language": "French"}',
        "detect_language",
    )
    assert (second.tools, second.messages[-1].content) == ((), "Skilled Trades")
    (hermes_row,) = open_source(DATASETS / "hermes/hermes_v1_row.json").conversations
    assert [call.name for call in hermes_row.messages[2].tool_calls] == [
        "get_camera_live_feed",
        "record_camera_feed",
        "get_recorded_feed",
    ]
