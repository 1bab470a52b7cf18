"""What `toolhone.sources` promise: each format is told from its rows, and every row is kept or
counted.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from toolhone.doctor.checks import check
from toolhone.errors import DataError
from toolhone.schema import Conversation, Expect, ExpectedCall
from toolhone.sources.files import read_records
from toolhone.sources.formats import ABOUT, PAIRS, SOURCES, open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.math_problems import Calculator, check_mark
from toolhone.sources.source import Skip

DATASETS = Path(__file__).parents[3] / "shared" / "data" / "datasets"

USER = {"role": "user", "content": "weather in Paris?"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": '{"city": "Paris"}'}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "22"}
FINAL = {"role": "assistant", "content": "22 degrees"}
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ROW: dict[str, Any] = {"messages": [USER, CALL, RESULT, FINAL], "tools": [TOOL]}


def save(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def only(loaded: Loaded) -> Conversation:
    assert (len(loaded.conversations), loaded.read) == (1, 1)
    return loaded.conversations[0]


def real(*parts: str) -> Path:
    path = DATASETS.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


# --- choosing a format


def test_a_format_is_detected_by_the_first_rows(tmp_path: Path) -> None:
    save(tmp_path / "tool.jsonl", *CATALOGUE)
    assert open_source(save(tmp_path / "m.jsonl", ROW)).conversations[0].source == "m.jsonl"
    assert open_source(save(tmp_path / "g.jsonl", GSM)).conversations[0].source == "gsm8k"
    assert (
        open_source(save(tmp_path / "s.jsonl", SEAL), distractors=1).conversations[0].source
        == "seal_tools"
    )


def test_an_unknown_format_is_one_sentence_with_the_known_ones(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jsonl", {"prompt": 1, "label": 2})
    with pytest.raises(
        DataError,
        match=(
            r"a\.jsonl: the format was not recognised; its first row has the keys 'label', "
            r"'prompt'"
        ),
    ):
        open_source(path)
    with pytest.raises(
        DataError,
        match=r"unknown data format 'gsm8' \(did you mean 'gsm8k'\?\); known: auto, gsm8k, hammer",
    ):
        open_source(path, "gsm8")


def test_an_option_that_a_format_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"the format 'messages' has no option 'style'; it has: tools"
    ):
        open_source(save(tmp_path / "a.jsonl", ROW), style="short")


def test_the_registry_names_and_describes_each_format() -> None:
    assert {*SOURCES, PAIRS} == ABOUT.keys()
    for name, source in SOURCES.items():
        assert name == source.name
        assert ABOUT[name].title
        assert ABOUT[name].teaches


# --- messages


def test_openai_messages_become_a_conversation_and_its_tasks(tmp_path: Path) -> None:
    loaded = open_source(save(tmp_path / "a.jsonl", ROW))
    conversation = only(loaded)
    assert [message.role for message in conversation.messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert conversation.messages[1].tool_calls[0].arguments == {"city": "Paris"}
    assert [task.expect for task in loaded.tasks] == [
        Expect((ExpectedCall("f", {"city": "Paris"}),))
    ]
    assert str(loaded.places[0]) == f"{tmp_path / 'a.jsonl'}, line 1"


OLD_CALL = {
    "role": "assistant",
    "content": None,
    "function_call": {"name": "f", "arguments": '{"city": "Paris"}'},
}
OLD_RESULT = {"role": "function", "name": "f", "content": "22"}


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": json.dumps([TOOL])},
        {"tools": [json.dumps(TOOL)]},
        {"tools": [TOOL["function"]]},
        {"tools": None, "functions": [TOOL["function"]]},
        {"messages": json.dumps([USER, CALL, RESULT, FINAL])},
        {"messages": [USER, {**CALL, "tool_calls": json.dumps(CALL["tool_calls"])}, RESULT, FINAL]},
        {
            "messages": [
                USER,
                {**CALL, "tool_calls": [{"name": "f", "arguments": {"city": "Paris"}}]},
                RESULT,
                FINAL,
            ]
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "weather in Paris?"}]},
                CALL,
                RESULT,
                FINAL,
            ]
        },
        {"messages": [USER, OLD_CALL, OLD_RESULT, FINAL]},
    ],
)
def test_older_spellings_mean_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    plain = only(open_source(save(tmp_path / "a.jsonl", ROW)))
    other = only(open_source(save(tmp_path / "a.jsonl", {**ROW, **changes})))
    assert other.tools == plain.tools
    told = [
        [(m.role, m.content, m.tool_calls) for m in conversation.messages]
        for conversation in (plain, other)
    ]
    assert told[0] == told[1]
    check([other], "a").raise_if_any()


def test_our_own_form_comes_back_equal(tmp_path: Path) -> None:
    first = open_source(save(tmp_path / "a.jsonl", {**ROW, "id": "x", "source": "y"}))
    again = open_source(save(tmp_path / "b.jsonl", *(row.to_dict() for row in first.conversations)))
    assert again.conversations == first.conversations


def test_of_our_own_form_no_foreign_format_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(record: Any) -> bool:
        raise AssertionError(f"asked about {record}")

    for name, source in list(SOURCES.items()):
        asked = replace(source, looks_like=refuse)
        monkeypatch.setitem(cast(dict[str, Any], SOURCES), name, asked)
    plain = {"messages": [USER, FINAL], "tools": [TOOL], "id": "x", "source": "y"}
    assert open_source(save(tmp_path / "a.jsonl", plain)).kept == 1


BROKEN = [
    ({"messages": [USER]}, "a conversation needs an assistant message"),
    ({"messages": []}, "'messages' must be a non-empty list"),
    ({"messages": "no"}, "'messages' is a string but not JSON"),
    (
        {"messages": [USER, {"role": "bot", "content": "x"}]},
        r"messages\[1\]: a message needs a 'role'",
    ),
    ({"messages": [USER, 7]}, r"messages\[1\]: a message needs a 'role'"),
    ({"messages": [USER, {**FINAL, "weight": -1}]}, r"messages\[1\]: 'weight' must be true, fal"),
    (
        {"messages": [USER, {**CALL, **OLD_CALL}]},
        r"messages\[1\]: both 'tool_calls' and 'function_call'",
    ),
    (
        {
            "messages": [
                USER,
                {**CALL, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
            ]
        },
        r"messages\[1\]: call of 'f'",
    ),
    ({"messages": [USER, FINAL], "tools": "["}, "'tools' is a string but not JSON"),
    ({"messages": [USER, FINAL], "tools": [{"description": "x"}]}, "a tool needs a 'name'"),
]


@pytest.mark.parametrize(("row", "expected"), BROKEN)
def test_a_row_that_is_no_conversation_is_counted_with_its_line(
    tmp_path: Path, row: Any, expected: str
) -> None:
    loaded = open_source(save(tmp_path / "a.jsonl", ROW, row, ROW))
    assert loaded.kept == 2
    (refused,) = loaded.refused
    assert str(refused.line).endswith("a.jsonl, line 2")
    assert re.match(expected, refused.detail)


def test_rows_that_are_no_conversations_are_counted_by_reason(tmp_path: Path) -> None:
    loaded = open_source(save(tmp_path / "a.jsonl", *(row for row, _ in BROKEN), ROW))
    assert len(loaded.conversations) == 1
    assert loaded.read == len(BROKEN) + 1
    assert loaded.skipped == {"not a conversation": len(BROKEN)}
    assert (
        "line 1: not a conversation: a conversation needs an assistant message"
        in loaded.examples["not a conversation"]
    )
    assert loaded.summary() == (
        f"kept 1 of {len(BROKEN) + 1} rows; skipped {len(BROKEN)}: {len(BROKEN)} not a conversation"
    )


# --- gsm8k

GSM = {
    "question": "How many?",
    "answer": (
        "He ran 48/2 = <<48/2=24>>24 miles.\nIn all 24+1,000 = "
        "$<<24+1000=1024>>1,024.\nDone.\n#### 1,024"
    ),
}


def gsm(tmp_path: Path, answer: str, **options: Any) -> Loaded:
    return open_source(save(tmp_path / "g.jsonl", {**GSM, "answer": answer}), "gsm8k", **options)


def test_each_mark_becomes_a_call_with_its_text_beside_it(tmp_path: Path) -> None:
    conversation = only(gsm(tmp_path, GSM["answer"]))
    user, first, one, second, two, last = conversation.messages
    assert user.content == "How many?"
    assert (first.content, first.tool_calls[0].arguments) == (
        "He ran 48/2 =",
        {"expression": "48/2"},
    )
    assert (second.content, second.tool_calls[0].arguments) == (
        "24 miles.\nIn all 24+1,000 = $",
        {"expression": "24+1000"},
    )
    assert [one.content, two.content] == ["24", "1024"]
    assert last.content == "1,024.\nDone.\nThe answer is 1024."
    assert (
        [tool.name for tool in conversation.tools] == ["calculator"] == [first.tool_calls[0].name]
    )
    check([conversation], "g").raise_if_any()


def test_in_the_short_style_calls_stand_alone(tmp_path: Path) -> None:
    conversation = only(gsm(tmp_path, GSM["answer"], style="short"))
    said = [message.content for message in conversation.messages if message.role == "assistant"]
    assert said == [None, None, "The answer is 1024."]


def test_an_unknown_style_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"unknown style 'shrt' \(did you mean 'short'\?\); known: calls, short"
    ):
        gsm(tmp_path, GSM["answer"], style="shrt")


def test_the_task_asks_for_the_final_answer_and_on_request_for_the_first_step(
    tmp_path: Path,
) -> None:
    (task,) = gsm(tmp_path, GSM["answer"]).tasks
    assert (task.id, task.category, [message.role for message in task.messages]) == (
        "g-1",
        "arithmetic",
        ["user"],
    )
    assert task.expect == Expect(answer="1024")
    (task,) = gsm(tmp_path, GSM["answer"], first_call=True).tasks
    assert task.expect == Expect(
        (ExpectedCall("calculator", {"expression": "48/2"}),), answer="1024"
    )


@pytest.fixture(scope="module")
def calculator() -> Calculator:
    return Calculator()


@pytest.mark.parametrize(
    ("mark", "expression", "result"),
    [
        ("48/2=24", "48/2", "24"),
        ("+30+46=76", "+30+46", "76"),
        ("2*73=146.00", "2*73", "146"),
        ("10/3=3.33", "10/3", "3.33333333333"),
        ("20/3=6.66", "20/3", "6.66666666667"),
        ("5*.01=0.05", "5*.01", "0.05"),
        ("1-3.126=-2.12", "1-3.126", "-2.126"),
        ("30-(30*(10/100))=27", "30-(30*(10/100))", "27"),
        ("4*5=20=20", "4*5", "20"),
        ("2*3=$6", "2*3", "6"),
        ("05*2=10", "05*2", "10"),
        ("1,000*2=2,000", "1,000*2", "2000"),
    ],
)
def test_a_mark_that_holds_is_kept_as_it_stands(
    calculator: Calculator, mark: str, expression: str, result: str
) -> None:
    step, repair = check_mark(mark, calculator)
    assert step is not None
    assert (step.expression, step.result, repair) == (expression, result, None)


@pytest.mark.parametrize(
    ("mark", "expression"),
    [
        ("$5*2=10", "5*2"),
        ("$1,000*2=$2,000", "1000*2"),
        ("20%*50=10", "(20/100)*50"),
        ("[2+1]*2=6", "(2+1)*2"),
        ("3x4=12", "3*4"),
        ("5 apples*2=10 apples", "5 *2"),
    ],
)
def test_a_mark_is_mended_where_the_stated_result_proves_it(
    calculator: Calculator, mark: str, expression: str
) -> None:
    step, repair = check_mark(mark, calculator)
    assert step is not None
    assert (step.expression, repair) == (expression, "a mark rewritten for the calculator")


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        ("48/2=25", "a mark whose result is wrong"),
        ("10/4=3", "a mark whose result is wrong"),
        ("10/3=3.4", "a mark whose result is wrong"),
        ("2+2=x", "a mark whose result is wrong"),
        ("20%*50=11", "a mark that the calculator cannot read"),
        ("2x=12", "a mark that the calculator cannot read"),
        ("2/0=0", "a mark that the calculator cannot read"),
        ("(2+3=5", "a mark that the calculator cannot read"),
        ("48/2", "a mark without its end, its beginning or its equals sign"),
        ("=24", "a mark without its end, its beginning or its equals sign"),
        ("48/2=", "a mark without its end, its beginning or its equals sign"),
    ],
)
def test_a_mark_that_does_not_hold_is_skipped_for_a_reason(
    calculator: Calculator, mark: str, reason: str
) -> None:
    with pytest.raises(Skip) as caught:
        check_mark(mark, calculator)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("It is <<3+4=7>>7.", "no number after ####"),
        ("It is <<3+4=7>>7.\n#### seven", "no number after ####"),
        ("It is <<3+4=8>>8.\n#### 8", "a mark whose result is wrong"),
        (
            "It is <<3+4=7>>7, <<3+4.\n#### 7",
            "a mark without its end, its beginning or its equals sign",
        ),
        (
            "It is <<3+4=7>>7, 3+4=7>>.\n#### 7",
            "a mark without its end, its beginning or its equals sign",
        ),
        (None, "not a GSM8K row"),
    ],
)
def test_a_row_that_cannot_be_told_is_counted_by_reason(
    tmp_path: Path, answer: Any, reason: str
) -> None:
    loaded = open_source(save(tmp_path / "g.jsonl", GSM, {**GSM, "answer": answer}), "gsm8k")
    assert (len(loaded.conversations), loaded.read) == (1, 2)
    assert loaded.skipped == {reason: 1}
    assert loaded.examples[reason].startswith(f"{tmp_path / 'g.jsonl'}, line 2: {reason}")


@pytest.mark.parametrize("answer", ["It is 7.\n#### 7", "It is <<7=7>>7.\n#### 7"])
def test_a_row_without_a_mark_is_kept_for_its_question_and_answer(
    tmp_path: Path, answer: str
) -> None:
    loaded = open_source(
        save(tmp_path / "g.jsonl", {**GSM, "answer": answer}, GSM), "gsm8k", first_call=True
    )
    assert (loaded.read, loaded.only_tasks, len(loaded.conversations), loaded.skipped) == (
        2,
        1,
        1,
        {},
    )
    assert (loaded.tasks[0].id, loaded.tasks[0].expect, loaded.tasks[0].messages[0].content) == (
        "g-1",
        Expect(answer="7"),
        "How many?",
    )
    assert [tool.name for tool in loaded.tasks[0].tools] == ["calculator"]


def test_a_mark_that_computes_nothing_is_text_and_counted_as_mended(tmp_path: Path) -> None:
    loaded = gsm(tmp_path, "Toys: <<26=26>>26\nTwice: <<26*2=52>>52\n#### 52")
    assert only(loaded).messages[1].content == "Toys: 26\nTwice:"
    assert loaded.repaired == {"a mark that computes nothing, taken as text": 1}


@pytest.mark.real
@pytest.mark.parametrize("name", [pytest.param("train", marks=pytest.mark.slow), "test"])
def test_gsm8k_as_published_is_kept_whole_and_every_call_gives_what_its_mark_states(
    name: str,
) -> None:
    path = real("gsm8k", f"{name}.jsonl.gz")
    loaded = open_source(path)
    assert (loaded.read, loaded.only_tasks, loaded.skipped) == {
        "train": (3000, 77, {}),
        "test": (668, 16, {}),
    }[name]
    assert (
        len(loaded.tasks) == loaded.kept == loaded.read == len({task.id for task in loaded.tasks})
    )
    answers = [record["answer"] for _, record in read_records(path)]
    calls = 0
    for conversation, place in zip(loaded.conversations, loaded.places):
        marks = [mark.split("=") for mark in re.findall("<<(.*?)>>", answers[place.number - 1])]
        marks = [(left, right) for left, right in marks if not re.fullmatch(r"[+]?[\d.]+", left)]
        made = [call for message in conversation.messages for call in message.tool_calls]
        results = [message.content for message in conversation.messages if message.role == "tool"]
        assert [call.arguments["expression"] for call in made] == [left for left, _ in marks]
        assert len(results) == len(marks)
        for result, (_, stated) in zip(results, marks):
            assert math.isclose(float(result or ""), float(stated), rel_tol=1e-9)
        calls += len(made)
    assert calls > 3 * len(loaded.conversations)
    check(loaded.conversations, loaded.places).raise_if_any(allow=())


# --- seal_tools


def seal_tool(name: str, field: str = "Sports/Golf", **types: str) -> dict[str, Any]:
    parameters = {
        parameter: {"type": kind, "description": "x"} for parameter, kind in types.items()
    }
    tool = {
        "api_name": name,
        "api_description": name,
        "field": field,
        "parameters": parameters,
        "required": list(types)[:1],
    }
    return {**tool, "responses": {"found": {"type": "str", "description": "What was found"}}}


CATALOGUE = [
    seal_tool("score", team="str", period="int", odds="float", live="bool"),
    seal_tool("players", team="str"),
    seal_tool("holes", count="int"),
    seal_tool("caddies", "Sports/Tennis", person="str"),
    *(seal_tool(f"other{n}", "Fashion/Design", person="str") for n in range(5)),
]


def seal(*calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    calling = [
        {"api": name, "parameters": arguments, "responses": [f"API_call_{n}"]}
        for n, (name, arguments) in enumerate(calls)
    ]
    return {"id": "dev-easy-1", "query": "Who won?", "calling": calling}


def relabelled(label: str, *calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A row whose first call gives another result than is counted."""
    row = seal(*calls)
    row["calling"][0]["responses"] = [label]
    return row


SEAL = seal(("score", {"team": "Lions", "period": 2}))


def read_seal(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> Loaded:
    save(tmp_path / "tool.jsonl", *CATALOGUE)
    return open_source(save(tmp_path / "s.jsonl", *rows), "seal_tools", **options)


def test_all_calls_of_a_row_are_one_turn_and_one_task(tmp_path: Path) -> None:
    loaded = read_seal(tmp_path, seal(("score", {"team": "Lions"}), ("holes", {"count": 9})))
    user, assistant = only(loaded).messages
    assert user.content == "Who won?"
    assert [call.to_dict() for call in assistant.tool_calls] == [
        {"name": "score", "arguments": {"team": "Lions"}},
        {"name": "holes", "arguments": {"count": 9}},
    ]
    (task,) = loaded.tasks
    assert (task.id, task.messages, task.category) == ("dev-easy-1", (user,), "several_calls")
    assert task.expect == Expect(
        (ExpectedCall("score", {"team": "Lions"}), ExpectedCall("holes", {"count": 9}))
    )
    check(loaded.conversations, loaded.places).raise_if_any()


def test_calls_that_use_results_are_a_task_with_references_in_their_order(tmp_path: Path) -> None:
    calls = (
        ("players", {"team": "Lions"}),
        ("holes", {"count": "API_call_0"}),
        ("score", {"team": "a", "period": "10"}),
    )
    loaded = read_seal(tmp_path, seal(*calls), distractors=1)
    assert (loaded.read, loaded.only_tasks, len(loaded.conversations), loaded.repaired.total()) == (
        1,
        1,
        0,
        1,
    )
    (task,) = loaded.tasks
    expected = [ExpectedCall(name, arguments) for name, arguments in calls[:2]]
    assert task.expect == Expect(
        (*expected, ExpectedCall("score", {"team": "a", "period": 10})), order="strict"
    )
    assert [message.role for message in task.messages] == ["system", "user"]
    assert "API_call_0" in str(task.messages[0].content)
    assert (task.id, task.category, task.source, len(task.tools)) == (
        "dev-easy-1",
        "nested",
        "seal_tools",
        4,
    )
    assert all(
        tool.description.endswith("\nIt gives, in this order: found (What was found)")
        for tool in task.tools
    )
    holes = next(tool for tool in task.tools if tool.name == "holes")
    assert not holes.problems({"count": "API_call_0"})
    assert not holes.problems({"count": 9})
    assert holes.problems({"count": "nine"})


def test_types_become_json_schema(tmp_path: Path) -> None:
    tool = next(tool for tool in only(read_seal(tmp_path, SEAL)).tools if tool.name == "score")
    properties = tool.parameters["properties"]
    assert {name: schema["type"] for name, schema in properties.items()} == {
        "team": "string",
        "period": "integer",
        "odds": "number",
        "live": "boolean",
    }
    assert tool.parameters["required"] == ["team"]


def test_distractors_come_from_the_same_field_then_the_same_branch_then_any(tmp_path: Path) -> None:
    def offered(count: int) -> set[str]:
        return {tool.name for tool in only(read_seal(tmp_path, SEAL, distractors=count)).tools}

    assert offered(0) == {"score"}
    assert offered(2) == {"score", "players", "holes"}
    assert offered(3) == {"score", "players", "holes", "caddies"}
    assert len(offered(5)) == 6
    assert offered(5) > offered(3)
    assert len(only(read_seal(tmp_path, SEAL)).tools) == 5


def test_distractors_and_their_order_are_fixed_by_the_seed(tmp_path: Path) -> None:
    def order(seed: int) -> list[str]:
        return [
            tool.name for tool in only(read_seal(tmp_path, SEAL, distractors=6, seed=seed)).tools
        ]

    assert order(0) == order(0)
    assert len({tuple(order(seed)) for seed in range(8)}) > 4
    assert {order(seed).index("score") for seed in range(40)} == set(range(7))


@pytest.mark.parametrize("count", [-1, 9])
def test_an_impossible_number_of_distractors_is_one_sentence(tmp_path: Path, count: int) -> None:
    with pytest.raises(
        DataError, match=f"'distractors' must be between 0 and 8 for this catalogue, got {count}"
    ):
        read_seal(tmp_path, SEAL, distractors=count)


@pytest.mark.parametrize(
    ("given", "mended"),
    [
        ({"period": "10"}, {"period": 10}),
        ({"odds": "2.5"}, {"odds": 2.5}),
        ({"odds": "3"}, {"odds": 3}),
        ({"live": "True"}, {"live": True}),
        ({"team": 7}, {"team": "7"}),
    ],
)
def test_a_value_of_the_wrong_type_is_mended_where_one_value_can_be_meant(
    tmp_path: Path, given: Any, mended: Any
) -> None:
    loaded = read_seal(tmp_path, seal(("score", {"team": "a", **given})))
    arguments = only(loaded).messages[1].tool_calls[0].arguments
    assert arguments == {"team": "a", **mended}
    assert {type(value) for value in arguments.values()} == {
        type(value) for value in {"team": "a", **mended}.values()
    }
    assert loaded.repaired.total() == 1


def test_values_of_the_right_type_are_left_alone(tmp_path: Path) -> None:
    given = {"team": "10", "period": 3, "odds": 2, "live": False}
    loaded = read_seal(tmp_path, seal(("score", given)))
    assert only(loaded).messages[1].tool_calls[0].arguments == given
    assert loaded.repaired.total() == 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            seal(("score", {"team": "see API_call_0"})),
            "a reference that is not to a result of an earlier call",
        ),
        (
            seal(("score", {"team": "a"}), ("players", {"team": "API_call_1"})),
            "a reference that is not to a result of an earlier call",
        ),
        (
            seal(("players", {"team": "API_call_1"}), ("score", {"team": "a"})),
            "a reference that is not to a result of an earlier call",
        ),
        (
            relabelled("API_call_1", ("score", {"team": "a"}), ("players", {"team": "API_call_1"})),
            "a reference that is not to a result of an earlier call",
        ),
        (
            seal(("score", {"team": "a"}), ("holes", {"count": "see API_call_9"})),
            "a reference that is not to a result of an earlier call",
        ),
        (
            seal(("score", {"team": "a"}), ("holes", {"count": "nine"})),
            "arguments that break the tool's schema",
        ),
        (seal(("skore", {"team": "a"})), "a call of a tool that the catalogue lacks"),
        (seal(("score", {"team": "a", "period": "007"})), "arguments that break the tool's schema"),
        (seal(("score", {"team": "a", "period": "2.0"})), "arguments that break the tool's schema"),
        (
            seal(("score", {"team": "a", "odds": "per month"})),
            "arguments that break the tool's schema",
        ),
        (seal(("score", {"team": "a", "odds": [1, 2]})), "arguments that break the tool's schema"),
        (seal(("score", {"team": "a", "teem": "b"})), "arguments that break the tool's schema"),
        (seal(("score", {"period": 1})), "arguments that break the tool's schema"),
        (seal(), "not a Seal-Tools row"),
        ({**SEAL, "query": ""}, "not a Seal-Tools row"),
        ({**SEAL, "calling": ["score"]}, "not a Seal-Tools row"),
    ],
)
def test_a_row_that_cannot_be_used_is_counted_by_reason(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    loaded = read_seal(tmp_path, row, SEAL)
    assert (len(loaded.conversations), loaded.read) == (1, 2)
    assert loaded.skipped == {reason: 1}


def test_a_missing_or_foreign_catalogue_is_one_sentence(tmp_path: Path) -> None:
    path = save(tmp_path / "s.jsonl", SEAL)
    with pytest.raises(
        DataError,
        match=r"s\.jsonl: the tools are described in 'tool\.jsonl', which is not beside this file; "
        "name it with 'catalogue'",
    ):
        open_source(path)
    with pytest.raises(DataError, match=r"s\.jsonl, line 1: not a tool of Seal-Tools"):
        open_source(path, catalogue=path)
    bad = save(tmp_path / "c.jsonl", seal_tool("score", team="list"))
    with pytest.raises(
        DataError,
        match=(
            r"c\.jsonl, line 1: parameter 'team' has the unknown type 'list'; known: str, "
            r"int, float, bool"
        ),
    ):
        open_source(path, catalogue=bad)
    save(tmp_path / "c.jsonl", *CATALOGUE[:2], CATALOGUE[0])
    with pytest.raises(DataError, match=r"c\.jsonl, line 3: the tool 'score' occurs already"):
        open_source(path, catalogue=bad)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "rows", "nested", "bad"), [("dev", 465, 18, 4), ("test_in_domain", 421, 17, 5)]
)
def test_all_of_seal_tools_that_fits_its_schemas_is_kept_and_passes_the_check(
    name: str, rows: int, nested: int, bad: int
) -> None:
    loaded = open_source(real("seal_tools", f"{name}.jsonl.gz"))
    assert (loaded.read, loaded.only_tasks, loaded.skipped) == (
        rows,
        nested,
        {"arguments that break the tool's schema": bad},
    )
    assert len(loaded.conversations) + nested + bad == rows
    assert all(5 <= len(conversation.tools) <= 10 for conversation in loaded.conversations)
    check(loaded.conversations, loaded.places).raise_if_any(allow=())
