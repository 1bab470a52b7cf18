"""BFCL's questions and accepted answers: what a task can say of them, what is counted instead."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from support.source_rows import all_score, formats, is_right, write_rows
from toolhone.errors import DataError, FindingKind
from toolhone.schema import Expect, ExpectedCall, Message, Task, Tool, ToolCall
from toolhone.sources.bfcl import EMPTY_MEMORY, LONG_CONTEXT, MAX_VARIANTS, expected_call
from toolhone.sources.formats import ABOUT, detect_format, open_source
from toolhone.sources.loaded import Loaded
from toolhone.sources.scenarios import MISFIT, NO_ANSWER
from toolhone.sources.source import Skip

BFCL = SHARED / "datasets" / "bfcl_v4"
NAMED = "a tool whose types are named as JSON Schema names none"
PAINT = {
    "name": "shop.paint",
    "description": "Mixes paint.",
    "parameters": {
        "type": "dict",
        "properties": {
            "litres": {"type": "float", "description": "How much."},
            "colour": {"type": "string"},
            "coats": {"type": "integer", "default": None},
            "mix": {
                "type": "dict",
                "properties": {"red": {"type": "integer"}, "blue": {"type": "integer"}},
            },
            "rooms": {"type": "array", "items": {"type": "dict"}},
            "spot": {"type": "tuple", "items": {"type": "any"}},
        },
        "required": ["litres", "colour"],
    },
}
TOOL = Tool.of(
    {
        "name": "paint",
        "parameters": {
            "type": "object",
            "properties": {
                "litres": {"type": "number"},
                "colour": {"type": "string"},
                "coats": {"type": "integer"},
                "gloss": {"type": "string", "enum": ["matt", "silk"]},
                "mix": {"type": "object"},
                "rooms": {"type": "array"},
            },
            "required": ["litres"],
        },
    }
)


def question(identity: str, *turns: str, **fields: Any) -> dict[str, Any]:
    said = [
        [{"role": "user", "content": turn}] if turn else []
        for turn in turns or ("Mix me some paint.",)
    ]
    return {"id": identity, "question": said, "function": [PAINT], **fields}


def answer(identity: str, *calls: Any) -> dict[str, Any]:
    return {"id": identity, "ground_truth": list(calls)}


def load(
    folder: Path, rows: list[Any], answers: list[Any], name: str = "BFCL_v4_set.json"
) -> Loaded:
    path = write_rows(folder / name, *rows)
    if answers:
        write_rows(folder / "possible_answer" / name, *answers)
    assert formats(path) == {("bfcl",)}
    return open_source(path)


def accepted(parameters: dict[str, Any]) -> ExpectedCall:
    return expected_call({"paint": parameters}, [TOOL])


def test_a_question_becomes_a_task_with_its_accepted_values(tmp_path: Path) -> None:
    right = {"shop.paint": {"litres": [2.5, 2], "colour": ["red", "crimson"], "coats": ["", 2]}}
    loaded = load(tmp_path, [question("simple_python_3")], [answer("simple_python_3", right)])
    (task,) = loaded.tasks
    assert (loaded.conversations, loaded.only_tasks, loaded.read) == ([], 1, 1)
    assert (task.id, task.category, task.source) == ("simple_python_3", "simple_python", "bfcl")
    assert task.messages == (Message("user", "Mix me some paint."),)
    assert loaded.repaired == {
        "a tool whose types are named as JSON Schema names none": 1,
        "a default of null left out": 1,
    }
    assert is_right(task, ToolCall("shop.paint", {"litres": 2, "colour": "Crimson"}))
    assert is_right(task, ToolCall("shop.paint", {"litres": 2.5, "colour": "red", "coats": 2}))
    assert not is_right(task, ToolCall("shop.paint", {"litres": 2.5, "colour": "red", "coats": 3}))
    assert not is_right(task, ToolCall("shop.paint", {"litres": 2.5}))


def test_types_under_other_names_become_json_schema(tmp_path: Path) -> None:
    loaded = load(tmp_path, [question("irrelevance_1")], [])
    properties = loaded.tasks[0].tools[0].parameters["properties"]
    assert {name: schema.get("type") for name, schema in properties.items()} == {
        "litres": "number",
        "colour": "string",
        "coats": "integer",
        "mix": "object",
        "rooms": "array",
        "spot": "array",
    }
    assert properties["spot"]["items"] == {}
    assert "default" not in properties["coats"]


def test_several_calls_are_right_in_any_order_and_need_their_number(tmp_path: Path) -> None:
    calls = [{"shop.paint": {"litres": [amount], "colour": ["red"]}} for amount in (1, 2)]
    loaded = load(
        tmp_path, [question("live_parallel_1-0-1")], [answer("live_parallel_1-0-1", *calls)]
    )
    first, second = (
        ToolCall("shop.paint", {"litres": amount, "colour": "red"}) for amount in (1, 2)
    )
    assert loaded.tasks[0].category == "live_parallel"
    assert is_right(loaded.tasks[0], second, first)
    assert not is_right(loaded.tasks[0], first)


def test_irrelevance_expects_no_call_and_needs_no_answers(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, [question("irrelevance_4"), question("live_irrelevance_0-0-0", function=[])], []
    )
    assert [task.expect for task in loaded.tasks] == [Expect(no_call=True)] * 2
    assert loaded.tasks[1].tools == ()


def test_relevance_wants_one_call_no_matter_which(tmp_path: Path) -> None:
    (task,) = load(tmp_path, [question("live_relevance_0-0-0")], []).tasks
    assert (task.expect, task.category) == (Expect(any_call=True), "live_relevance")
    paint = task.tools[0].name
    assert is_right(task, ToolCall(paint, {"litres": 2, "colour": "red"}))
    assert not is_right(task, ToolCall(paint, {"litres": 2}))
    assert not is_right(task)


def test_a_question_about_a_memory_is_a_task_for_each_kind_of_memory(tmp_path: Path) -> None:
    for kind in ("kv", "rec_sum", "vector"):
        write_rows(
            tmp_path / "multi_turn_func_doc" / f"memory_{kind}.json",
            {**SEND, "name": f"look_{kind}"},
        )
    about = {"involved_classes": ["MemoryAPI"], "scenario": "customer"}
    loaded = load(
        tmp_path,
        [question("memory_1-customer-1", **about)],
        [answer("memory_1-customer-1", "35", "thirty five", "35")],
    )
    assert (loaded.read, loaded.only_tasks, loaded.noted) == (1, 1, {EMPTY_MEMORY: 1})
    assert [
        (task.id, task.category, [tool.name for tool in task.tools]) for task in loaded.tasks
    ] == [
        (f"memory_{kind}_1-customer-1", f"memory_{kind}", [f"look_{kind}"])
        for kind in ("kv", "rec_sum", "vector")
    ]
    assert {task.expect.answer for task in loaded.tasks} == {"35"}
    assert loaded.tasks[0].expect.alternatives == (Expect(answer="thirty five"),)
    assert loaded.tasks[0].world == {"scenario": "customer"}


def test_a_conversation_that_fills_a_memory_is_skipped_by_name(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, [question("memory_prereq_0-customer-0", involved_classes=["MemoryAPI"])], []
    )
    assert loaded.skipped == {
        "a conversation that fills a memory, in which nothing is right or wrong": 1
    }


def test_a_value_for_which_nothing_is_right_is_skipped(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        [question("live_simple_1-0-0")],
        [answer("live_simple_1-0-0", {"shop.paint": {"litres": []}})],
    )
    assert loaded.skipped == {"a parameter for which no value is accepted": 1}


def test_broken_rows_are_counted_by_reason(tmp_path: Path) -> None:
    rows = [
        question("nothing"),
        question("simple_python_1", question=[[{"content": "no role"}]]),
        question("simple_python_2", function="paint"),
        question("simple_python_3", "one", "two"),
        question("simple_python_4"),
        question("simple_python_5"),
        question("simple_python_6"),
    ]
    answers = [
        *(
            answer(f"simple_python_{number}", {"shop.paint": {"litres": [1]}})
            for number in (1, 2, 3)
        ),
        answer("simple_python_4", {"shop.paint": {"litres": 1}}),
        answer("simple_python_5", {"shop.glue": {"litres": [1]}}),
    ]
    loaded = load(tmp_path, rows, answers)
    assert loaded.tasks == []
    assert loaded.skipped == {
        "not a BFCL row": 1,
        "a question that is no list of messages": 2,
        "tools that cannot be read": 1,
        "an accepted answer that cannot be read": 1,
        FindingKind.UNKNOWN_TOOL: 1,
        NO_ANSWER: 1,
    }


def test_answers_that_are_missing_stop_with_the_place_where_they_should_be(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "BFCL_v4_set.json.gz", question("simple_python_1"))
    with pytest.raises(
        DataError,
        match=(
            r"the answers are not beside this file; wanted them in "
            r".*possible_answer/BFCL_v4_set.json"
        ),
    ):
        open_source(path)


def test_answers_are_found_whichever_of_the_files_is_compressed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.json", question("simple_python_1"))
    write_rows(
        tmp_path / "possible_answer" / "a.json.gz",
        answer("simple_python_1", {"shop.paint": {"litres": [1], "colour": ["red"]}}),
    )
    assert open_source(path).only_tasks == 1


def test_a_right_answer_that_its_tool_does_not_allow_is_kept_and_noted(tmp_path: Path) -> None:
    right = {"shop.paint": {"litres": [1], "colour": ["red"], "mix": ["a variable"]}}
    loaded = load(tmp_path, [question("simple_java_1")], [answer("simple_java_1", right)])
    assert (loaded.only_tasks, loaded.noted) == (1, {MISFIT: 1})


@pytest.mark.parametrize(
    ("choices", "arguments", "accept", "optional"),
    [
        ({"coats": [2, 3]}, {"coats": 2}, {"coats": [3]}, ()),
        ({"coats": ["two", 2]}, {"coats": 2}, {"coats": ["two"]}, ()),
        ({"coats": ["", 2]}, {"coats": 2}, {}, ("coats",)),
        ({"coats": [""]}, {}, {}, ()),
        ({"colour": ["", "red"]}, {"colour": "red"}, {"colour": [""]}, ("colour",)),
        ({"colour": [""]}, {}, {"colour": [""]}, ()),
        ({"coats": ["", None]}, {}, {"coats": [None]}, ()),
        ({"coats": [None]}, {"coats": None}, {}, ()),
        ({"gloss": ["", "any"]}, {}, {"gloss": ["any", ""]}, ()),
        ({"gloss": ["any"]}, {"gloss": "any"}, {}, ()),
        ({"litres": ["", 2]}, {"litres": 2}, {}, ()),
        ({"litres": [""]}, {"litres": ""}, {}, ()),
        ({"thinner": ["", "oil"]}, {}, {}, ()),
        ({"thinner": ["oil"]}, {"thinner": "oil"}, {}, ()),
        ({"mix": [{}]}, {"mix": {}}, {}, ()),
        ({"mix": [{"red": 3}]}, {"mix": {"red": 3}}, {}, ()),
        (
            {"mix": [{"red": [1, 2], "blue": ["", 5]}]},
            {"mix": {"red": 1}},
            {"mix": [{"red": 1, "blue": 5}, {"red": 2}, {"red": 2, "blue": 5}]},
            (),
        ),
        (
            {"rooms": [[{"at": ["A", "B"]}, {"at": ["C"]}]]},
            {"rooms": [{"at": "A"}, {"at": "C"}]},
            {"rooms": [[{"at": "B"}, {"at": "C"}]]},
            (),
        ),
        ({"rooms": [["A", "B"], ["B", "A"]]}, {"rooms": ["A", "B"]}, {"rooms": [["B", "A"]]}, ()),
    ],
)
def test_accepted_values_are_told_as_the_official_checker_takes_them(
    choices: dict[str, Any],
    arguments: dict[str, Any],
    accept: dict[str, Any],
    optional: tuple[str, ...],
) -> None:
    assert accepted(choices) == ExpectedCall("paint", arguments, accept, optional)


def test_a_parameter_that_multiplies_out_to_too_much_is_refused_in_time() -> None:
    many = {f"key{number}": [1, 2] for number in range(60)}
    for choice in (many, [many, many]):
        with pytest.raises(Skip, match="an accepted answer that cannot be read") as caught:
            accepted({"mix": [choice]})
        assert f"more than {MAX_VARIANTS}" in caught.value.detail


CLASSES: dict[str, Any] = {
    "involved_classes": ["MathAPI", "MessageAPI"],
    "initial_config": {"MathAPI": {}},
    "path": [],
}
ADD = {
    "name": "add",
    "parameters": {
        "type": "dict",
        "properties": {"a": {"type": "float"}, "b": {"type": "float"}},
        "required": ["a", "b"],
    },
}
SEND = {
    "name": "send",
    "parameters": {
        "type": "dict",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
    },
}


def multi_turn(
    folder: Path, identity: str, turns: list[str], right: list[list[str]], **fields: Any
) -> Loaded:
    write_rows(folder / "multi_turn_func_doc" / "math_api.json", ADD)
    write_rows(folder / "multi_turn_func_doc" / "message_api.json", SEND, {**SEND, "name": "inbox"})
    row = {**question(identity, *turns), **CLASSES, **fields}
    del row["function"]
    return load(folder, [row], [answer(identity, *right)])


def test_several_turns_expect_their_calls_in_order_and_a_turn_without_calls_none(
    tmp_path: Path,
) -> None:
    right = [["add(1, b=2)", "send('it\\'s 3')"], []]
    loaded = multi_turn(tmp_path, "multi_turn_base_3", ["Add and tell Ann.", "And then?"], right)
    (task,) = loaded.tasks
    calls = (ExpectedCall("add", {"a": 1, "b": 2}), ExpectedCall("send", {"text": "it's 3"}))
    assert task.expects == (Expect(calls, order="strict"), Expect(no_call=True))
    assert [turn[0].content for turn in task.turns] == ["Add and tell Ann.", "And then?"]
    assert [tool.name for tool in task.tools] == ["add", "send", "inbox"]
    assert (task.world, loaded.repaired) == ({"MathAPI": {}}, {NAMED: 1})
    assert all_score(loaded.tasks)


def test_excluded_functions_are_not_on_offer(tmp_path: Path) -> None:
    loaded = multi_turn(
        tmp_path, "multi_turn_base_3", ["Add."], [["add(1, 2)"]], excluded_function=["inbox"]
    )
    assert [tool.name for tool in loaded.tasks[0].tools] == ["add", "send"]


def test_a_row_is_cut_where_a_tool_is_added(tmp_path: Path) -> None:
    right = [["add(1, 2)"], [], ["send('3')"], ["add(3, 4)"]]
    turns = ["Add 1 and 2.", "Send it.", "", "Add 3 and 4."]
    loaded = multi_turn(
        tmp_path, "multi_turn_miss_func_1", turns, right, missed_function={"2": ["send"]}
    )
    (task,) = loaded.tasks
    assert [tool.name for tool in task.tools] == ["add", "inbox"]
    assert len(task.turns) == 2
    assert task.expects[1] == Expect(no_call=True)
    assert loaded.repaired["the turns from where a tool is added left out"] == 1


def test_a_long_context_is_noted_since_its_texts_are_not_in_the_file(tmp_path: Path) -> None:
    assert multi_turn(tmp_path, "multi_turn_long_context_1", ["Add."], [["add(1, 2)"]]).noted == {
        LONG_CONTEXT: 1
    }


@pytest.mark.parametrize(
    ("right", "fields", "reason"),
    [
        ([["add(1, 2)", "eval(x)"]], {}, "an accepted answer that cannot be read"),
        ([["add(1, b=__import__('os'))"]], {}, "an accepted answer that cannot be read"),
        ([["add(1, 2, 3)"]], {}, "an answer that cannot be read"),
        ([["add(1, 2)"], []], {}, "an accepted answer that cannot be read"),
        ([["walk(to='A')"]], {}, FindingKind.UNKNOWN_TOOL),
        (
            [["add(1, 2)"]],
            {"involved_classes": ["WarpDrive"]},
            "an accepted answer that cannot be read",
        ),
    ],
)
def test_turns_that_cannot_be_told_are_counted(
    tmp_path: Path, right: Any, fields: Any, reason: str
) -> None:
    assert multi_turn(tmp_path, "multi_turn_base_3", ["Add."], right, **fields).skipped == {
        reason: 1
    }


def test_documents_that_are_missing_stop_with_the_place_where_they_should_be(
    tmp_path: Path,
) -> None:
    path = write_rows(tmp_path / "q.json", {**question("multi_turn_base_3"), **CLASSES})
    write_rows(tmp_path / "possible_answer" / "q.json", answer("multi_turn_base_3", []))
    with pytest.raises(
        DataError,
        match=r"the tools of these questions are not beside them; wanted them in .*math_api.json",
    ):
        open_source(path)


def test_a_web_search_expects_the_answer_in_the_final_text(tmp_path: Path) -> None:
    write_rows(tmp_path / "multi_turn_func_doc" / "web_search.json", SEND)
    rows = [
        {**question(f"web_search_{number}"), "involved_classes": ["WebSearchAPI"]}
        for number in (1, 2)
    ]
    loaded = load(
        tmp_path, rows, [answer("web_search_1", "Oslo"), answer("web_search_2", "7", "seven")]
    )
    either = Expect(answer="7", alternatives=(Expect(answer="seven"),))
    assert [task.expect for task in loaded.tasks] == [Expect(answer="Oslo"), either]
    assert [Task.from_dict(task.to_dict()) for task in loaded.tasks] == loaded.tasks


def test_it_is_for_evaluation_only() -> None:
    assert ABOUT["bfcl"].only_tasks


KEPT = {
    "irrelevance.json": (147, {}),
    "live_irrelevance.json.gz": (289, {}),
    "live_multiple.json.gz": (324, {MISFIT: 4}),
    "live_parallel.json": (5, {}),
    "live_parallel_multiple.json": (15, {MISFIT: 1}),
    "live_simple.json": (141, {MISFIT: 1}),
    "multi_turn_base.json.gz": (118, {MISFIT: 1}),
    "multi_turn_long_context.json.gz": (118, {MISFIT: 1, LONG_CONTEXT: 118}),
    "multi_turn_miss_func.json.gz": (117, {}),
    "multi_turn_miss_param.json.gz": (117, {MISFIT: 1}),
    "multiple.json": (98, {}),
    "parallel.json": (133, {}),
    "parallel_multiple.json": (116, {}),
    "simple_java.json": (65, {MISFIT: 5}),
    "simple_javascript.json": (25, {MISFIT: 3}),
    "simple_python.json": (218, {}),
    "web_search.json": (63, {}),
    "live_relevance.json": (8, {}),
    "memory.json": (97, {EMPTY_MEMORY: 97}),
}


@pytest.mark.real
def test_the_published_questions_are_read_with_these_counts() -> None:
    if not BFCL.is_dir():
        pytest.skip(f"{BFCL} is not here")
    skipped, repaired, tasks, read = Counter[str](), Counter[str](), {}, 0
    for name, (kept, noted) in KEPT.items():
        path = BFCL / f"BFCL_v4_{name}"
        assert detect_format(path) == "bfcl"
        loaded = open_source(path)
        assert (name, loaded.only_tasks, loaded.kept, loaded.noted) == (name, kept, kept, noted)
        assert all_score(loaded.tasks), name
        tasks |= {task.id: task for task in loaded.tasks}
        skipped, repaired, read = (
            skipped + loaded.skipped,
            repaired + loaded.repaired,
            read + loaded.read,
        )
    assert read == 2217
    assert skipped == {"a parameter for which no value is accepted": 2, FindingKind.UNKNOWN_TOOL: 1}
    assert repaired["the turns from where a tool is added left out"] == 117
    factorial = tasks["simple_python_1"].expect.calls
    assert factorial == (ExpectedCall("math.factorial", {"number": 5}),)
    cut = tasks["multi_turn_miss_func_0"]
    assert "sort" not in {tool.name for tool in cut.tools}
    assert (len(cut.turns), cut.expects[-1]) == (3, Expect(no_call=True))
    order = tasks["live_parallel_multiple_0-0-0"].expect.calls
    assert order is not None
    assert order[0].accept["removeIngredients"] == ["anchovy"]
