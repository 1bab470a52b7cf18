"""What the data doctor promises: each fault is found under its kind, with its place; sound rows
pass; a verdict says what to do.
"""

from __future__ import annotations

import gzip
import json
import random
import time
from pathlib import Path

import pytest

from support.doctor_rows import (
    OSLO,
    OTHER,
    PARAMETERS,
    SOUND,
    TYPED,
    WEATHER,
    Row,
    answer,
    calling,
    examine,
    kinds,
    numbered,
    pico,
    row,
    save,
    say,
)
from toolhone.config.experiment import make_experiment
from toolhone.data.templates import Templates
from toolhone.doctor import leaks
from toolhone.doctor.checks import REMEDIES, Decision, Fingerprint, conflicts
from toolhone.doctor.diagnose import DataVerdict, diagnose
from toolhone.doctor.lengths import LengthCheck, measure_all
from toolhone.doctor.reading import read_file
from toolhone.doctor.typed_calls import read_typed
from toolhone.errors import DataError, FindingKind
from toolhone.runs.progress import Progress
from toolhone.schema import Tool
from toolhone.training.dataset import load_data


@pytest.mark.parametrize("text", TYPED.values(), ids=TYPED.keys())
def test_a_call_typed_by_hand_is_found_in_every_spelling(tmp_path: Path, text: str) -> None:
    assert kinds(tmp_path, row(say(text))) == {FindingKind.TYPED_CALL: 1, FindingKind.NO_CALLS: 1}


@pytest.mark.parametrize(
    "text",
    [
        "</tool_call>\nhm\n<tool_call>",
        "It rains.</tool_call>",
        "<|tool_call_begin|>",
        "[/TOOL_CALL]",
        "<tool_call/>",
        "Well. <tool_call />",
        "[TOOL_CALL/]",
        f"{TYPED['tags']}<tool_call/>",
        f"{TYPED['tags']}</tool_call>",
    ],
)
def test_marks_that_begin_or_end_nothing_are_found(tmp_path: Path, text: str) -> None:
    assert kinds(tmp_path, row(say(text)))[FindingKind.STRAY_MARK] == 1


@pytest.mark.parametrize("inside", ["", "\n", "{}", "null"])
@pytest.mark.parametrize(
    "marks", [("<tool_call>", "</tool_call>"), ("[TOOL_CALL]", "[/TOOL_CALL]")]
)
def test_an_empty_block_is_found_alone_and_behind_a_call(
    tmp_path: Path, marks: tuple[str, str], inside: str
) -> None:
    block = inside.join(marks)
    for text in (block, f"Well. {block}", f"{TYPED['tags']}{block}"):
        found = kinds(tmp_path, row(say(text)))
        assert FindingKind.TYPED_CALL in found or FindingKind.STRAY_MARK in found, text


@pytest.mark.parametrize("mark", ["<tool_call>", "</tool_call>", "<tool_call/>", "[TOOL_CALL]"])
def test_a_mark_inside_a_string_is_no_fault(tmp_path: Path, mark: str) -> None:
    argument = calling(arguments={"city": f"Oslo {mark} Bergen"})
    quoted = say(f"The mark \"{mark}\" begins a call, '{mark}' too.")
    found = kinds(tmp_path, row(argument, answer(mark), quoted))
    assert not {FindingKind.STRAY_MARK, FindingKind.TYPED_CALL} & found.keys()


def test_sound_rows_pass_and_marks_that_are_only_mentioned_count_as_text(tmp_path: Path) -> None:
    diagnosis = examine(tmp_path, *SOUND)
    assert diagnosis.findings.findings == []
    assert (diagnosis.verdict, diagnosis.exit_code) == (DataVerdict.SOUND, 0)


@pytest.mark.parametrize(
    ("turns", "kind"),
    [
        ((calling(arguments={"days": 2}),), FindingKind.BAD_ARGUMENTS),
        ((calling(arguments={"city": 5}),), FindingKind.BAD_ARGUMENTS),
        ((calling(arguments={"city": "Oslo", "wind": 1}),), FindingKind.UNDECLARED_ARGUMENT),
        ((calling(arguments={"city": "Oslo", "days": None}),), FindingKind.NULL_PADDING),
        ((calling(arguments={"city": "Oslo", "ip": None}),), FindingKind.NULL_PADDING),
        ((calling(arguments={"city": None}),), FindingKind.BAD_ARGUMENTS),
        ((calling("get_wether"),), FindingKind.UNKNOWN_TOOL),
        ((calling(arguments='{"city": "Oslo"}'),), FindingKind.ARGUMENTS_AS_TEXT),
        ((calling(arguments=json.dumps('{"city": "Oslo"}')),), FindingKind.ENCODED_TWICE),
        ((calling(arguments="{'city': 'Oslo'}"),), FindingKind.ARGUMENTS_NOT_JSON),
        ((calling(arguments="city: Oslo"),), FindingKind.ARGUMENTS_NOT_JSON),
        (({"role": "assistant", "tool_calls": [{}]},), FindingKind.NO_NAME),
        ((say(" "),), FindingKind.EMPTY_TURN),
        ((calling(), say("It rains.")), FindingKind.CALL_WITHOUT_RESULT),
        ((say("Hm."), answer(), say("It rains.")), FindingKind.RESULT_WITHOUT_CALL),
        (({"role": "boss", "content": "x"},), FindingKind.UNREADABLE),
        ((say("done<|im_end|>"),), FindingKind.CONTROL_TEXT),
        ((calling(arguments={"city": "Oslo</s>"}),), FindingKind.CONTROL_TEXT),
    ],
)
def test_each_fault_has_its_kind(tmp_path: Path, turns: tuple[Row, ...], kind: FindingKind) -> None:
    found = examine(tmp_path, row(calling(), question="Sound"), row(*turns)).findings
    assert found.counts == {kind: 1}
    assert found.findings[0].row == 1
    assert found.findings[0].place.endswith("rows.jsonl, line 2")


def test_results_typed_as_user_messages_and_results_out_of_order_are_found(tmp_path: Path) -> None:
    typed = {"role": "user", "content": "<tool_response>\nrain\n</tool_response>"}
    assert kinds(tmp_path, row(calling(), typed, say("It rains.")))[FindingKind.TYPED_RESULT] == 1
    two = {
        **calling(id="a"),
        "tool_calls": [
            *calling(id="a")["tool_calls"],
            *calling(arguments={"city": "Rome"}, id="b")["tool_calls"],
        ],
    }
    swapped = row(two, answer("r", tool_call_id="b"), answer("o", tool_call_id="a"), say("Both."))
    assert kinds(tmp_path, swapped) == {FindingKind.REORDERED_RESULTS: 1}
    assert (
        kinds(
            tmp_path,
            row(two, answer("o", tool_call_id="a"), answer("r", tool_call_id="b"), say("Both.")),
        )
        == {}
    )


def test_nulls_of_a_merged_table_in_tools_are_found_though_the_schema_is_invalid(
    tmp_path: Path,
) -> None:
    properties = {**PARAMETERS["properties"], "ip": None}
    tool = {
        "type": "function",
        "function": {"name": "get_weather", "parameters": {**PARAMETERS, "properties": properties}},
    }
    fault, nothing = examine(tmp_path, row(calling(), tools=[tool, OTHER])).findings.findings
    assert nothing.kind is FindingKind.NOTHING_TO_LEARN
    assert fault.kind is FindingKind.UNREADABLE
    assert "null parameters" in fault.what
    default = {
        **PARAMETERS,
        "properties": {
            **PARAMETERS["properties"],
            "days": {"type": ["integer", "null"], "default": None},
        },
    }
    fine = {"type": "function", "function": {"name": "get_weather", "parameters": default}}
    assert (
        kinds(tmp_path, row(calling(arguments={"city": "Oslo", "days": None}), tools=[fine, OTHER]))
        == {}
    )


def test_lines_that_are_no_json_do_not_hide_the_other_rows(tmp_path: Path) -> None:
    diagnosis = examine(
        tmp_path,
        row(calling()),
        "{broken",
        '{"messages": [], "messages": []}',
        row(say("</tool_call>"), question="Why?"),
    )
    found = diagnosis.findings
    assert [(one.kind, one.place[-6:]) for one in found.findings] == [
        (FindingKind.UNREADABLE, "line 2"),
        (FindingKind.UNREADABLE, "line 3"),
        (FindingKind.STRAY_MARK, "line 4"),
    ]
    assert diagnosis.files[str(tmp_path / "rows.jsonl")] == 4


def test_gzip_a_byte_order_mark_and_a_json_list_are_read_alike(tmp_path: Path) -> None:
    rows = numbered([row(calling()), row(say("</tool_call>"))])
    text = "".join(json.dumps(one) + "\n" for one in rows).encode()
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(text))
    (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + text)
    (tmp_path / "list.json").write_text(json.dumps(rows))
    for name in ("packed.jsonl.gz", "marked.jsonl", "list.json"):
        assert diagnose([read_file(tmp_path / name)]).findings.counts == {FindingKind.STRAY_MARK: 1}


def test_repeated_rows_and_conflicting_labels_are_found(tmp_path: Path) -> None:
    rome = calling(arguments={"city": "Rome"})
    assert kinds(tmp_path, row(calling()), row(calling(id="x"))) == {FindingKind.DUPLICATE_ROW: 1}
    assert kinds(tmp_path, row(calling()), row(calling(), question="rain  in OSLO?")) == {
        FindingKind.NEAR_DUPLICATE: 1
    }
    assert kinds(tmp_path, row(calling()), row(calling(), tools=(OTHER, WEATHER))) == {
        FindingKind.NEAR_DUPLICATE: 1
    }
    assert kinds(tmp_path, row(calling()), row(rome)) == {FindingKind.CONFLICT: 2}, (
        "nobody knows which is right"
    )
    assert kinds(tmp_path, row(calling()), row(say("No idea."))) == {FindingKind.CONFLICT: 2}
    assert kinds(tmp_path, row(say("Hello")), row(say("Hi there"))) == {FindingKind.NO_CALLS: 1}, (
        "two plain replies are no conflict"
    )
    assert kinds(tmp_path, row(calling()), row(rome, tools=(WEATHER,))) == {}, (
        "other tools make another prompt"
    )
    several = examine(
        tmp_path, row(calling()), row(calling(), answer(), say("Rain.")), row(rome)
    ).findings.findings
    assert [(one.kind, one.row) for one in several] == [(FindingKind.CONFLICT, 2)], (
        "the minority is wrong"
    )


def test_the_balance_of_calls_and_answers_is_checked(tmp_path: Path) -> None:
    calls, answers = [row(calling()) for _ in range(20)], [row(say("No.")) for _ in range(20)]
    assert kinds(tmp_path, *numbered([*calls, *answers])) == {}
    assert kinds(tmp_path, *numbered(calls[:])) == {FindingKind.ONLY_CALLS: 1}
    assert kinds(tmp_path, *numbered(answers[:])) == {FindingKind.NO_CALLS: 1}
    assert kinds(tmp_path, *numbered([row(calling()), *(row(say("No.")) for _ in range(30))])) == {
        FindingKind.FEW_CALLS: 1
    }
    single = numbered(
        [row(turn, tools=(WEATHER,)) for _ in range(10) for turn in (calling(), say("No."))]
    )
    diagnosis = examine(tmp_path, *single)
    assert diagnosis.findings.counts == {FindingKind.ONE_TOOL: 1}
    assert (
        diagnosis.balance.rows,
        diagnosis.balance.ends_in_call,
        diagnosis.balance.decisions_to_answer,
    ) == (20, 10, 10)


def test_a_held_out_prompt_in_training_stops_in_any_spelling(tmp_path: Path) -> None:
    train = save(tmp_path / "train.jsonl", row(calling()), row(calling(), question="Snow?"))
    held = save(tmp_path / "held.jsonl", row(say("No."), question="rain in  oslo?"))
    diagnosis = diagnose([read_file(train), read_file(held)])
    assert [(one.kind, one.row) for one in diagnosis.findings.findings] == [(FindingKind.LEAK, 0)]
    assert diagnosis.exit_code == 1
    task = {
        "id": "t1",
        "messages": [{"role": "user", "content": "Snow?"}],
        "tools": [],
        "expect": {"no_call": True},
    }
    tasks = read_file(save(tmp_path / "tasks.jsonl", task))
    assert [
        (one.kind, one.row) for one in diagnose([read_file(train), tasks]).findings.findings
    ] == [(FindingKind.LEAK, 1)]


def test_a_question_of_bfcl_is_a_remark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = "Which of these towns has the most rain in a year?"
    monkeypatch.setattr(leaks, "_hashes", lambda: frozenset([leaks.question_hash(question)]))
    diagnosis = examine(tmp_path, row(calling(), question=question.upper()), row(calling()))
    assert diagnosis.findings.counts == {FindingKind.BENCHMARK: 1}
    assert diagnosis.verdict is DataVerdict.REMARKS


def test_repairs_and_refusals_of_another_format_are_shown(tmp_path: Path) -> None:
    tool = {"name": "area", "parameters": {"radius": {"type": "float"}, "ip": None}}
    rows = [
        {
            "query": f"q{n}",
            "tools": [tool],
            "answers": [{"name": name, "arguments": {"radius": 1.5}}],
        }
        for n, name in enumerate(("area", "era"))
    ]
    diagnosis = examine(tmp_path, *rows)
    assert diagnosis.findings.counts == {FindingKind.REFUSED: 1, FindingKind.REPAIRED: 1}
    assert diagnosis.exit_code == 0, "training reads the one and skips the other"


def test_a_file_without_a_conversation_stops(tmp_path: Path) -> None:
    tool = {"name": "area", "parameters": {"radius": {"type": "float"}}}
    diagnosis = examine(tmp_path, {"query": "Hello", "tools": [tool], "answers": []})
    assert diagnosis.findings.counts == {FindingKind.NOTHING_TO_LEARN: 1}
    assert diagnosis.exit_code == 1


def test_with_a_model_lengths_are_counted_and_its_control_tokens_are_known(tmp_path: Path) -> None:
    parts = pico()
    mark = parts.tokenizer.control_texts[0]
    rows = numbered(
        [
            row(calling()),
            row(calling(), answer(), say("rain " * 200)),
            row(say(f"It is {mark} here.")),
        ]
    )
    file = read_file(save(tmp_path / "rows.jsonl", *rows))
    diagnosis = diagnose([file], LengthCheck(parts, 300))
    assert diagnosis.findings.counts == {FindingKind.TOO_LONG: 1, FindingKind.CONTROL_TEXT: 1}
    assert diagnosis.findings.findings[0].row == 1
    assert diagnose([file], LengthCheck(parts)).findings.counts == {
        FindingKind.CONTROL_TEXT: 1,
        FindingKind.NO_LIMIT: 1,
    }
    all_long = diagnose([file], LengthCheck(parts, 5))
    assert all_long.findings.counts[FindingKind.NOTHING_TO_LEARN] == 1
    assert all_long.exit_code == 1


def test_without_a_model_only_rows_that_are_longer_by_any_estimate_get_a_remark(
    tmp_path: Path,
) -> None:
    file = read_file(save(tmp_path / "rows.jsonl", row(calling(), answer(), say("rain " * 2000))))
    assert diagnose([file], LengthCheck(None, 1000)).findings.counts == {
        FindingKind.MAYBE_TOO_LONG: 1
    }
    assert diagnose([file], LengthCheck(None, 3000)).findings.counts == {}


@pytest.mark.slow
def test_workers_measure_what_one_process_measures() -> None:
    rows, parts = Templates(0).conversations(2100), pico()
    assert measure_all(rows, parts, 2, Progress()) == measure_all(rows, parts, 1, Progress())


def test_every_kind_says_why_it_matters_and_what_is_done() -> None:
    assert set(REMEDIES) == set(FindingKind)
    assert all(remedy.why and remedy.fix for remedy in REMEDIES.values())
    assert {remedy.effect for remedy in REMEDIES.values()} == {"stop", "drop", "keep"}


def trained(tmp_path: Path, *rows: Row, **data: object) -> dict[str, object]:
    path = save(tmp_path / "train.jsonl", *rows)
    plan = make_experiment(
        {"model": {"name": "pico"}, "data": {"path": str(path), **data}}, "the test"
    )
    return load_data(plan).report


def test_training_stops_at_typed_calls_and_at_nulls_before_any_model_is_opened(
    tmp_path: Path,
) -> None:
    sound = numbered([row(calling()), row(say("No.")), row(calling())])
    with pytest.raises(
        DataError,
        match=r"line 4, messages\[1\]\.content: the text holds a call of 'get_weather', between",
    ):
        trained(tmp_path, *sound, row(say(TYPED["tags"])))
    with pytest.raises(DataError, match="get_weather has null for 'days'"):
        trained(tmp_path, *sound, row(calling(arguments={"city": "Oslo", "days": None})))


def test_training_counts_remarks_with_examples_and_what_they_mean(tmp_path: Path) -> None:
    rows = [
        *numbered([row(calling()), row(say("No.")), row(say("done<|im_end|>"))]),
        row(calling()),
        row(say("Hm.")),
    ]
    report = trained(tmp_path, *rows)
    assert report["findings"] == {
        "text that reads as a control token": 1,
        "different calls for one prompt": 2,
    }
    groups = report["doctor"]
    assert isinstance(groups, list)
    assert {group["kind"]: (group["count"], len(group["examples"])) for group in groups} == {
        FindingKind.CONFLICT.value: (2, 2),
        FindingKind.CONTROL_TEXT.value: (1, 1),
    }
    assert all(group["why"] and group["fix"] for group in groups)
    assert report["balance"]["calls_anywhere"] == 2


def test_training_counts_held_out_prompts_that_are_trained_on(tmp_path: Path) -> None:
    held = save(tmp_path / "held.jsonl", row(say("No.")), row(say("No."), question="Else?"))
    report = trained(
        tmp_path, row(calling()), row(calling(), question="Snow?"), validation=str(held)
    )
    assert report["leaked"] == 1


PIECES = (
    *(
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[TOOL_CALL]",
        "[/TOOL_CALL]",
        "<function=get_weather>",
        "</function>",
    ),
    *(
        "<parameter=city>",
        "</parameter>",
        "```json\n",
        "```",
        "`",
        '{"name": "get_weather", "arguments": ',
        "{}",
        "}",
        "{",
        '"',
        "'",
    ),
    *(
        "get_weather(",
        'city="a"',
        ")",
        "Action: get_weather\n",
        "Action Input: ",
        "\n",
        " ",
        "[",
        "<|tool_call_start|>",
        "\\",
        "x",
    ),
)


def test_reading_typed_calls_of_any_text_ends_and_never_raises() -> None:
    rng, tools = random.Random(0), {"get_weather": Tool.of(WEATHER)}
    found = [
        read_typed("".join(rng.choices(PIECES, k=rng.randint(1, 14))), tools) for _ in range(4000)
    ]
    assert any(found)
    assert all(one is None or one.calls for one in found)
    fence_in_front = "```json\n{} {{<function=get_weather></tool_call>"
    assert read_typed(fence_in_front, tools) is None


def test_a_broken_line_hides_no_file_that_lies_beside(tmp_path: Path) -> None:
    tool = {
        "api_name": "moor",
        "parameters": {"berth": {"type": "int"}},
        "required": [],
        "responses": {},
    }
    save(tmp_path / "tool.jsonl", tool, *({**tool, "api_name": f"t{n}"} for n in range(5)))
    one = {
        "id": "s",
        "query": "Berth 3",
        "calling": [{"api": "moor", "parameters": {"berth": 3}, "responses": []}],
    }
    found = read_file(save(tmp_path / "rows.jsonl", one, "{broken"))
    assert (found.format, found.read, len(found.conversations)) == ("seal_tools", 2, 1)
    (fault,) = found.cases[1].faults
    assert (fault[0], str(found.cases[1].place)) == (
        FindingKind.UNREADABLE,
        f"{tmp_path / 'rows.jsonl'}, line 2",
    )


@pytest.mark.parametrize(
    "text",
    [
        "```\n" + " " * 60_000 + "x",
        "Action:" + " " * 60_000 + "x",
        "```\n" * 20_000,
        "Action: a\n" * 6_000 + "x",
    ],
)
def test_long_texts_are_read_in_linear_time(text: str) -> None:
    start = time.process_time()
    assert read_typed(text, {"get_weather": Tool.of(WEATHER)}) is None
    assert time.process_time() - start < 1


def test_fences_are_found_as_a_reader_finds_them() -> None:
    tools = {"get_weather": Tool.of(WEATHER)}
    fenced = f"a ```json\n{json.dumps(OSLO)}\n  ``` b ```\ntext\n``` c\n```\n{json.dumps(OSLO)}```d"
    found = read_typed(fenced, tools)
    assert found is not None
    assert [call.name for call in found.calls] == ["get_weather"] * 2
    assert found.content == "a\nb ```\ntext\n``` c\nd"


def test_many_rows_with_one_prompt_are_compared_in_linear_time() -> None:
    rows = [
        Fingerprint(b"", b"", (Decision(1, b"same", b"A" if n < 15_000 else b"B", "a call"),))
        for n in range(30_000)
    ]
    start = time.process_time()
    found = conflicts(rows)
    assert time.process_time() - start < 2
    assert len(found) == 30_000
    assert (found[0].other, found[14_999].other, found[15_000].other, found[29_999].other) == (
        15_000,
        15_000,
        0,
        0,
    )
