"""What `--fix` promises: nothing is lost uncounted, nothing is guessed, nothing that stops is left,
the data stay as they are.
"""

from __future__ import annotations

import json
import random
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
    numbered,
    pico,
    row,
    save,
    say,
)
from toolhone.cli.doctor import examine_data
from toolhone.data.templates import Templates
from toolhone.doctor.diagnose import DataVerdict
from toolhone.doctor.fix import CleanResult, RowOutcome, clean
from toolhone.doctor.lengths import LengthCheck
from toolhone.doctor.reading import read_file
from toolhone.errors import ConfigError, DataError, FindingKind, RunError
from toolhone.schema import Conversation, ToolCall
from toolhone.schema.json_schema import without_schema_nulls
from toolhone.sources.messages import read_conversations

CALLS = (ToolCall("get_weather", {"city": "Oslo"}),)


def cleaned(tmp_path: Path, *rows: Row | str, held: Row | None = None) -> CleanResult:
    files = [read_file(save(tmp_path / "rows.jsonl", *rows))]
    files += [] if held is None else [read_file(save(tmp_path / "held.jsonl", held))]
    return clean(files)


def only(tmp_path: Path, one: Row) -> Conversation:
    """The one row, which was repaired."""
    result = cleaned(tmp_path, one)
    assert (result.read, result.repaired) == (1, 1)
    (conversation,) = result.conversations
    return conversation


@pytest.mark.parametrize("spelling", [name for name in TYPED if name not in ("unreadable",)])
def test_a_typed_call_becomes_a_call_and_the_text_beside_it_stays(
    tmp_path: Path, spelling: str
) -> None:
    message = only(tmp_path, row(say(TYPED[spelling]))).messages[-1]
    assert message.tool_calls == CALLS
    left = {"tags": "Sure.", "a code fence": "Here:", "action": "Thought: look"}
    assert message.content == left.get(spelling)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (json.dumps('{"city": "Oslo"}'), {"city": "Oslo"}),
        ("{'city': 'Oslo'}", {"city": "Oslo"}),
        ({"city": "Oslo", "days": None, "ip": None}, {"city": "Oslo"}),
        ({"city": "Oslo", "days": "3"}, {"city": "Oslo", "days": 3}),
        ({"city": "Oslo", "options": '{"unit": "C"}'}, {"city": "Oslo", "options": {"unit": "C"}}),
    ],
)
def test_arguments_are_repaired_where_only_one_value_can_be_meant(
    tmp_path: Path, arguments: object, expected: Row
) -> None:
    assert (
        dict(only(tmp_path, row(calling(arguments=arguments))).messages[-1].tool_calls[0].arguments)
        == expected
    )


def test_names_tools_results_and_their_order_are_repaired(tmp_path: Path) -> None:
    assert only(tmp_path, row(calling("getWeather"))).messages[-1].tool_calls == CALLS
    merged = {**PARAMETERS, "properties": {**PARAMETERS["properties"], "ip": None}}
    tool = {"type": "function", "function": {**WEATHER["function"], "parameters": merged}}
    assert only(tmp_path, row(calling(), tools=[tool])).tools[0].parameters == PARAMETERS
    typed = {
        "role": "user",
        "content": "<tool_response>rain</tool_response>\n<tool_response>snow</tool_response>",
    }
    two = say(f"<tool_call>{json.dumps(OSLO)}</tool_call>" * 2)
    talk = only(tmp_path, row(two, typed, say("Both.")))
    assert [message.role for message in talk.messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    calls = [{"id": name, "function": {**OSLO, "arguments": {"city": name}}} for name in ("a", "b")]
    swapped = row(
        {"role": "assistant", "tool_calls": calls},
        answer("2", tool_call_id="b"),
        answer("1", tool_call_id="a"),
        say("So."),
    )
    assert [message.content for message in only(tmp_path, swapped).messages[2:4]] == ["1", "2"]


@pytest.mark.parametrize(
    "turn",
    [
        calling("weatherly"),
        calling(arguments={"city": "Oslo", "days": "three"}),
        calling(arguments={"city": "Oslo", "wind": 1}),
        calling(arguments="city: Oslo"),
        {
            **say(f"<tool_call>{json.dumps(OSLO)}</tool_call>"),
            "tool_calls": calling(arguments={"city": "Rome"})["tool_calls"],
        },
        say(TYPED["unreadable"]),
        say("</tool_call>"),
        say(""),
    ],
)
def test_a_row_without_a_certain_reading_is_dropped_with_its_reason(
    tmp_path: Path, turn: Row
) -> None:
    result = cleaned(tmp_path, row(turn), row(calling(), question="Sound"))
    assert (result.kept, result.repaired, result.dropped) == (1, 0, 1)
    (change,) = result.changes
    assert change.row == 0
    assert change.outcome is RowOutcome.DROPPED
    assert change.reasons


def test_a_call_that_is_typed_beside_itself_is_taken_out_of_the_text(tmp_path: Path) -> None:
    both = {**calling(), "content": f"Look: <tool_call>{json.dumps(OSLO)}</tool_call>"}
    message = only(tmp_path, row(both)).messages[-1]
    assert (message.content, message.tool_calls) == ("Look:", CALLS)


def test_marks_of_two_systems_in_one_file_all_become_calls_or_are_dropped(tmp_path: Path) -> None:
    body = json.dumps({"name": "get_weather", "arguments": {"city": "Oslo"}})
    hides = json.dumps({"name": "get_weather", "arguments": {"city": "a </tool_call> b"}})
    texts = (
        f"<tool_call>{body}</tool_call>",
        f"[TOOL_CALL]{body.replace('arguments', 'parameters')}[/TOOL_CALL]",
        f"<tool_call>{hides}</tool_call>",
        *("<tool_call/>", "So.</tool_call>", "<tool_call></tool_call>", "[TOOL_CALL][/TOOL_CALL]"),
    )
    rows = [row(say(text), question=f"Rain {n}?") for n, text in enumerate(texts)]
    both = f"<tool_call>{body}</tool_call> [TOOL_CALL]{body}[/TOOL_CALL]"
    result = cleaned(tmp_path, *rows, row(say(both), question="Both?"))
    calls = [one.messages[-1].tool_calls for one in result.conversations]
    hidden = (ToolCall("get_weather", {"city": "a </tool_call> b"}),)
    assert calls == [CALLS, CALLS, hidden, (*CALLS, *CALLS)]
    assert (result.read, result.repaired, len(result.changes)) == (8, 4, 8)


def test_repeated_contradicting_and_leaking_rows_are_dropped(tmp_path: Path) -> None:
    rome = calling(arguments={"city": "Rome"})
    rows = (
        row(calling()),
        row(calling()),
        row(calling(), answer(), say("Rain.")),
        row(rome),
        row(calling(), question="Held"),
    )
    result = cleaned(tmp_path, *rows, held=row(say("No."), question="held"))
    assert [(change.row, change.reasons) for change in result.changes] == [
        (1, (FindingKind.DUPLICATE_ROW.value,)),
        (3, (FindingKind.CONFLICT.value,)),
        (4, (FindingKind.LEAK.value,)),
    ]
    assert result.kept == 2


def test_with_a_model_rows_that_do_not_fit_are_dropped_whole(tmp_path: Path) -> None:
    rows = numbered([row(calling()), row(calling(), answer(), say("rain " * 200))])
    result = clean([read_file(save(tmp_path / "rows.jsonl", *rows))], LengthCheck(pico(), 300))
    assert result.reasons(RowOutcome.DROPPED) == {FindingKind.TOO_LONG.value: 1}
    assert len(result.conversations) == 1


def spoilt(rng: random.Random, number: int) -> Row | str:
    """A row with one of many faults, or none."""
    turns: list[Row | str] = [
        calling(),
        say("No tool needed."),
        *(say(text) for text in TYPED.values()),
        *(
            calling(arguments=arguments)
            for arguments in (
                {},
                {"city": None},
                {"city": "x", "ip": None},
                "{'city': 'a'}",
                '"{}"',
            )
        ),
        calling("Get-Weather"),
        calling("weatherly"),
        say("</tool_call>"),
        say(""),
        "{broken",
    ]
    turn = rng.choice(turns)
    tail = rng.choice([(), (answer(), say("Rain.")), (answer(), answer()), (say("Hm."),)])
    return (
        turn
        if isinstance(turn, str)
        else row(
            turn,
            *tail,
            question=f"q{rng.randrange(number)}",
            tools=rng.choice([(WEATHER,), (OTHER, WEATHER)]),
        )
    )


@pytest.mark.parametrize("seed", range(12))
def test_the_copy_is_sound_counts_add_up_and_cleaning_again_changes_nothing(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    rows = [row(calling(), question="Sound"), *(spoilt(rng, 60) for _ in range(80))]
    source = save(tmp_path / "rows.jsonl", *rows)
    before = source.read_bytes()
    examine_data([source], fix=tmp_path / "clean.jsonl", show=False)
    report = json.loads((tmp_path / "clean.report.json").read_text())
    assert report["read"] == len(rows)
    assert report["kept"] + report["repaired"] + report["dropped"] == report["read"]
    named = [(change["row"], change["outcome"]) for change in report["rows"]]
    assert len(set(named)) == len(named) == report["repaired"] + report["dropped"]
    assert all(change["reasons"] for change in report["rows"])
    assert len(read_conversations(tmp_path / "clean.jsonl")) == report["kept"] + report["repaired"]
    again = examine_data([tmp_path / "clean.jsonl"], fix=tmp_path / "again.jsonl", show=False)
    assert again.diagnosis.verdict is not DataVerdict.STOP
    assert again.cleaned is not None
    assert (again.cleaned.repaired, again.cleaned.dropped) == (0, 0)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "clean.jsonl").read_bytes()
    assert source.read_bytes() == before


def test_sound_rows_come_through_unchanged(tmp_path: Path) -> None:
    conversations = Templates(0).conversations(50)
    unique = {conversation.messages[0].content: conversation for conversation in conversations}
    result = cleaned(tmp_path, *(conversation.to_dict() for conversation in unique.values()))
    assert list(result.conversations) == list(unique.values())
    assert result.kept == len(unique)


def test_the_data_itself_and_files_of_others_are_never_written_over(tmp_path: Path) -> None:
    source = save(tmp_path / "rows.jsonl", *SOUND)
    other = save(tmp_path / "other.jsonl", row(calling()))
    with pytest.raises(RunError, match="this is the data itself"):
        examine_data([source], fix=tmp_path / "." / "rows.jsonl")
    with pytest.raises(RunError, match=r"no other\.report\.json says that the doctor wrote it"):
        examine_data([source], fix=other)
    examine_data([source], fix=tmp_path / "clean.jsonl", show=False)
    examine_data([source], fix=tmp_path / "clean.jsonl", show=False)


def test_a_file_of_which_nothing_is_left_is_not_written(tmp_path: Path) -> None:
    source = save(tmp_path / "rows.jsonl", row(say("</tool_call>")))
    with pytest.raises(DataError, match="no row is left after cleaning"):
        examine_data([source], fix=tmp_path / "clean.jsonl", show=False)
    assert not (tmp_path / "clean.jsonl").exists()


def test_the_screen_groups_findings_shows_five_of_a_kind_and_a_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save(
        tmp_path / "rows.jsonl",
        *(row(say(TYPED["tags"]), question=f"q{number}") for number in range(8)),
    )
    found = examine_data([source], fix=tmp_path / "clean.jsonl")
    shown = capsys.readouterr().out
    assert shown.count("the text holds a call of") == 5
    assert "... and 3 more" in shown
    assert "verdict: do not train" in shown
    assert "kept 0 + repaired 8 + dropped 0 = 8 rows read" in shown
    assert not found.stops, "the copy can be trained on"
    assert examine_data([source], show=False).stops
    assert capsys.readouterr().out == ""


def test_the_answer_for_programs_has_every_finding_with_its_remedy(tmp_path: Path) -> None:
    source = save(
        tmp_path / "rows.jsonl",
        *(row(say(TYPED["tags"]), question=f"q{number}") for number in range(8)),
    )
    answer_dict = json.loads(
        json.dumps(examine_data([source], fix=tmp_path / "clean.jsonl", show=False).to_dict())
    )
    assert answer_dict["verdict"] == "do not train"
    assert answer_dict["counts"] == {FindingKind.TYPED_CALL.value: 8, FindingKind.NO_CALLS.value: 1}
    assert len(answer_dict["findings"]) == 9
    first = answer_dict["findings"][0]
    assert (first["row"], first["field"]) == (0, "messages[1].content")
    assert {"why", "fix", "examples", "grave"} <= answer_dict["kinds"][0].keys()
    assert answer_dict["fix"]["repaired"] == 8


def test_one_file_named_twice_is_refused(tmp_path: Path) -> None:
    source = save(tmp_path / "rows.jsonl", *SOUND)
    with pytest.raises(ConfigError, match="names one file twice"):
        examine_data([source, tmp_path / "." / "rows.jsonl"])


@pytest.mark.parametrize("other", [{"city": "Oslo", "wind": 1}, "city: Oslo"])
def test_dropped_rows_do_not_outvote_a_sound_one(tmp_path: Path, other: object) -> None:
    bad = row(calling(arguments=other))
    result = cleaned(
        tmp_path, bad, row(calling(arguments=other), answer(), say("Rain.")), row(calling())
    )
    assert [
        message.tool_calls for talk in result.conversations for message in talk.messages[1:]
    ] == [CALLS]
    assert [change.row for change in result.changes] == [0, 1]
    assert (
        result.reasons(RowOutcome.DROPPED)
        .keys()
        .isdisjoint({FindingKind.CONFLICT.value, FindingKind.DUPLICATE_ROW.value})
    )


def test_a_row_that_repeats_a_dropped_one_is_judged_by_itself(tmp_path: Path) -> None:
    held = row(say("No."), question="held")
    result = cleaned(
        tmp_path,
        row(calling(), question="Held"),
        row(calling(), question="Held"),
        row(calling()),
        held=held,
    )
    assert [(change.row, change.reasons) for change in result.changes] == [
        (0, (FindingKind.LEAK.value,)),
        (1, (FindingKind.LEAK.value,)),
    ]


def test_a_null_list_of_choices_is_padding_too() -> None:
    schema = {
        "type": "object",
        "properties": {"unit": {"type": "string", "enum": None}, "size": {"enum": [1, None]}},
    }
    plain = without_schema_nulls(schema)
    assert plain["properties"] == {"unit": {"type": "string"}, "size": {"enum": [1, None]}}
