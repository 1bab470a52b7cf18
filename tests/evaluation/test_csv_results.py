"""CSV files of answers: reading, scoring, the summary, and `toolhone score --csv`."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from support.scripted import task
from toolhone.cli.main import main
from toolhone.errors import DataError, RunError
from toolhone.evaluation.csv_results import (
    COUNTED,
    CallTable,
    is_summary,
    read_results_csv,
    write_summary,
)
from toolhone.evaluation.display import csv_table
from toolhone.evaluation.folder import write_folder
from toolhone.evaluation.score import score
from toolhone.tools.registry import builtin_tool

COLUMNS = ["", "query", "predicted_text", "extracted_calls", "expected_calls", "match"]
ROME = {"name": "weather", "arguments": {"city": "Rome"}}
OSLO = {"name": "weather", "arguments": {"city": "Oslo"}}
NUMBERS = {"name": "mean", "arguments": {"numbers": [1, 2.0]}}


def tags(*calls: object) -> str:
    return "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)


def row(
    text: str, expected: object = (ROME,), extracted: object = None, match: object = ""
) -> list[str]:
    cell = json.dumps(expected) if not isinstance(expected, str) else expected
    return [
        "0",
        "How is Rome?",
        text,
        "" if extracted is None else str(extracted),
        cell,
        str(match),
    ]


def write(path: Path, *rows: list[str], columns: list[str] = COLUMNS) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


@pytest.fixture
def read(tmp_path):
    return lambda *rows: read_results_csv(write(tmp_path / "a.csv", *rows))


def flags(table: CallTable) -> list[set[str]]:
    return [{name for name in COUNTED if row.scores[name]} for row in table.rows]


RIGHT = {"match", "recovered", "content_right", "tags_right", "both_right", "says_nothing"}


@pytest.mark.parametrize(
    ("text", "expected", "true"),
    [
        (tags(ROME), [ROME], RIGHT),
        ("Sure.\n" + tags(ROME) + "\n", [ROME], RIGHT),
        (tags(NUMBERS), [{"name": "mean", "arguments": {"numbers": [1.0, 2]}}], RIGHT),
        (
            "</tool_call>\n\n" + tags(ROME),
            [ROME],
            RIGHT - {"tags_right", "both_right"} | {"stray_tag"},
        ),
        (
            "</tool_call>" + json.dumps(ROME) + "</tool_call>",
            [ROME],
            {"recovered", "content_right", "stray_tag", "nothing_extracted", "says_nothing"},
        ),
        (
            "<tool_call>\n\n" + tags(ROME),
            [ROME],
            {"recovered", "content_right", "nothing_extracted", "says_nothing"},
        ),
        (
            "</tool_call>" + json.dumps(ROME) + "</tool_call>" + tags(OSLO),
            [ROME, OSLO],
            {"recovered", "content_right", "stray_tag", "says_nothing"},
        ),
        (
            tags(OSLO, ROME),
            [ROME, OSLO],
            {"recovered", "content_right", "tags_right", "both_right", "says_nothing"},
        ),
        (tags(ROME, ROME), [ROME], {"tags_right", "says_nothing"}),
        (tags(OSLO), [ROME], {"tags_right", "says_nothing"}),
        (tags({**ROME, "name": "climate"}), [ROME], {"tags_right", "says_nothing"}),
        (
            tags({"name": "weather", "arguments": {"city": "rome"}}),
            [ROME],
            {"content_right", "tags_right", "both_right", "says_nothing"},
        ),
        ("weather(city='Rome')", [ROME], {"content_right", "nothing_extracted", "says_nothing"}),
        ("</tool_call>\n\n<tool_call>", [ROME], {"stray_tag", "nothing_extracted", "says_nothing"}),
        ("", [ROME], {"nothing_extracted", "says_nothing"}),
        ("Hello!", [], RIGHT | {"nothing_extracted"}),
        ("", [], {"match", "recovered", "nothing_extracted", "says_nothing"}),
        (tags(ROME), [], {"tags_right", "says_nothing"}),
    ],
)
def test_each_row_is_measured_again_from_its_text(read, text, expected, true):
    assert flags(read(row(text, expected))) == [true]


def test_true_is_one_as_in_the_system_that_made_the_form(read):
    one, true = ({"name": "f", "arguments": {"a": value}} for value in (1, True))
    table = read(row(tags(one), [true]))
    assert table.rows[0].scores["match"]
    assert not table.rows[0].scores["content_right"], "ours tells a truth value from a number"


@pytest.mark.parametrize(
    ("reported", "disagrees", "silent"),
    [
        ("True", 0, 0),
        ("TRUE ", 0, 0),
        ("1", 0, 0),
        ("1.0", 0, 0),
        ("yes", 0, 0),
        ("False", 1, 0),
        ("0", 1, 0),
        ("", 0, 1),
        ("perhaps", 0, 1),
    ],
)
def test_the_files_own_match_column_is_compared_with_ours(read, reported, disagrees, silent):
    table = read(row(tags(ROME), match=reported))
    assert (table.count("disagrees"), table.count("says_nothing")) == (disagrees, silent)
    assert table.to_dict()["disagreeing_rows"] == [1] * disagrees


@pytest.mark.parametrize(
    ("text", "extracted", "disagrees"),
    [
        (tags(ROME), "[{'name': 'weather', 'arguments': {'city': 'Rome'}}]", 0),
        (tags(ROME), json.dumps([ROME]), 0),
        (tags(ROME), "[]", 1),
        (tags(ROME), "False", 1),
        ("<tool_call>oops</tool_call>", "False", 0),
        ("<tool_call>oops</tool_call>", "[]", 1),
        ("no tags", "[]", 0),
        ("no tags", "", 0),
        ("no tags", "__import__('os').getcwd()", 1),
        ("no tags", "[" * 5000, 1),
        ("no tags", "5", 1),
        ("<tool_call>oops</tool_call>", "0", 1),
    ],
)
def test_the_extracted_calls_are_read_without_being_evaluated_and_compared(
    read, text, extracted, disagrees
):
    table = read(row(text, extracted=extracted))
    assert len(table.rows) == 1
    assert table.count("extraction_disagrees") == disagrees


def test_rows_that_cannot_be_scored_are_counted_by_reason_and_nothing_is_lost(read):
    good = row(tags(ROME))
    table = read(
        good,
        [],
        good[:-1],
        [*good, "more"],
        row(tags(ROME), "[{'name': 'weather'}]"),
        row(tags(ROME), '{"name": "weather"}'),
        row(tags(ROME), '[{"arguments": {}}]'),
        row(tags(ROME), '[{"name": "f", "arguments": [1]}]'),
        row(tags(ROME), "[" * 100_000),
        row(tags(ROME), " "),
        good,
    )
    assert (len(table.rows), table.read) == (2, 10)
    assert table.skipped == {
        "another number of fields than the header": 2,
        "expected_calls is not a JSON list of calls": 5,
        "expected_calls is blank: nothing is said about calls": 1,
    }
    assert [row.number for row in table.rows] == [1, 10]


def test_columns_are_found_by_name_in_any_order_and_only_three_are_needed(tmp_path):
    path = write(
        tmp_path / "a.csv",
        [json.dumps([ROME]), tags(ROME), "q"],
        columns=["Expected_Calls", " predicted_text", "query"],
    )
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    table = read_results_csv(path)
    assert (table.count("match"), table.rows[0].query, table.count("says_nothing")) == (1, "q", 1)


def test_texts_of_any_length_with_any_characters_come_through(read):
    text = "x" * 300_000 + '\r\n"quoted", \x00 \u2028 \N{GRINNING FACE}' + tags(ROME)
    before = csv.field_size_limit(131072)
    table = read(row(text))
    assert table.rows[0].text == text
    assert table.count("match") == 1
    assert csv.field_size_limit(before) == 131072, "a setting of the whole process is put back"


@pytest.mark.parametrize(
    "text",
    [
        "{" * 50_000,
        "<tool_call>" * 20_000,
        '<tool_call>{"a":' * 5_000,
        "f(" * 20_000,
        "\n" * 50_000,
    ],
)
def test_hostile_texts_are_scored_as_wrong(read, text):
    assert read(row(text)).count("recovered") == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"b.csv: no such file .did you mean 'a.csv'"),
        (b"", "lacks query, predicted_text, expected_calls; found nothing, the file is empty"),
        (b"query,predicted,expected_calls\n", r"lacks predicted_text; found 'query', 'predicted'"),
        (b"query,query,predicted_text,expected_calls\n", "has the column 'query' twice"),
        (b"query,predicted_text,expected_calls\n\xff\xfe,x,[]\n", "not UTF-8 text"),
    ],
)
def test_what_is_no_such_table_is_one_sentence(tmp_path, content, sentence):
    write(tmp_path / "a.csv")
    path = tmp_path / "b.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_results_csv(path)


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(DataError, match="the file cannot be read"):
        read_results_csv(tmp_path)


# Our own samples.csv.

WEATHER = builtin_tool("weather")
TASKS = (
    task("rome", "Rome?", (WEATHER,), {"calls": [ROME]}),
    task("hi", "Hello!", (WEATHER,), {"no_call": True}),
    task("word", "How much?", (WEATHER,), {"answer": "4"}),
)


def test_the_samples_of_our_own_folder_are_such_a_table(tmp_path):
    texts = {"rome": tags(ROME), "hi": 'say "hi",\r\nplease', "word": "It is 4."}
    evaluation = score(
        TASKS, [{"id": name, "text": text} for name, text in texts.items()], "tool_call_tags"
    )
    table = read_results_csv(write_folder(evaluation, tmp_path) / "samples.csv")
    assert [row.text for row in table.rows] == [texts["rome"], texts["hi"]]
    assert table.skipped == {"expected_calls is blank: nothing is said about calls": 1}
    counts = table.to_dict()
    assert (counts["match"], counts["recovered"], counts["both_right"]) == (2, 2, 2)
    assert (counts["disagrees"], counts["extraction_disagrees"]) == (0, 0)


def test_calls_in_another_dialect_are_read_by_its_name(tmp_path):
    good = json.dumps({"tool": ROME["name"], "args": ROME["arguments"]})
    texts = {"rome": good, "hi": json.dumps({"final": "Hello!"}), "word": "It is 4."}
    answers = [{"id": name, "text": text} for name, text in texts.items()]
    path = write_folder(score(TASKS, answers, "json"), tmp_path) / "samples.csv"
    by_tags, by_name = read_results_csv(path), read_results_csv(path, "json")
    assert (by_tags.count("tags_right"), by_tags.is_written_otherwise) == (1, True)
    assert (by_name.count("match"), by_name.count("tags_right")) == (2, 2)
    assert by_name.count("disagrees") == 0


def test_what_a_dialect_cannot_read_matches_no_expectation(tmp_path):
    rows = [row("Hello!", []), row('{"tool": "weather"', [ROME])]
    table = read_results_csv(write(tmp_path / "a.csv", *rows), "json")
    assert [table.count(what) for what in ("match", "tags_right", "nothing_extracted")] == [0, 0, 2]


# The summary.


def test_the_summary_has_the_promised_columns_and_four_decimals(tmp_path):
    path = write_summary(
        tmp_path / "new" / "summary_results.csv",
        {"base.csv": (211, 190), "a,b.csv": (3, 3), "none.csv": (0, 0)},
    )
    assert path.read_text() == (
        'filename,total_rows,total_matches,percent_correct\nbase.csv,211,190,90.0474\n"a,b.csv",3,3,100.0\nnone.csv,0,0,nan\n'
    )
    assert is_summary(path)
    assert not is_summary(write(tmp_path / "a.csv"))


def test_a_summary_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="could not be written"):
        write_summary(tmp_path / "file" / "summary_results.csv", {})


# On the command line.


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["toolhone", "score", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.fixture
def files(tmp_path):
    first = write(
        tmp_path / "a.csv",
        row(tags(ROME), match=True),
        row("</tool_call>" + tags(ROME), match=False),
        row("", "oops"),
    )
    return first, write(tmp_path / "b.csv", row(tags(OSLO), match=False))


def test_score_csv_prints_one_row_for_each_file_and_writes_the_summary(
    files, tmp_path, capsys, monkeypatch
):
    code, out, err = run(capsys, monkeypatch, "--csv", *files, "--out", tmp_path / "out")
    lines = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line
    ]
    assert (code, err) == (0, "")
    assert lines == [
        ["a.csv", "2", "1", "2 (100.0 %)", "2 (100.0 %)", "1 (50.0 %)", "1", "0", "1"],
        ["b.csv", "1", "0", "0 (0.0 %)", "0 (0.0 %)", "1 (100.0 %)", "0", "0", "0"],
    ]
    assert "a.csv: 1 of 3 rows skipped: expected_calls is not a JSON list of calls" in out
    summary = (tmp_path / "out" / "summary_results.csv").read_text().splitlines()
    assert summary[1:] == ["a.csv,2,2,100.0", "b.csv,1,0,0.0"]


@pytest.mark.parametrize(
    "spelling", ["one option", "two options", "with equals", "with another option between"]
)
def test_files_may_follow_csv_in_every_usual_spelling(spelling, files, capsys, monkeypatch):
    first, second = files
    arguments = {
        "one option": ["--json", "--csv", first, second],
        "two options": ["--csv", first, "--json", "--csv", second],
        "with equals": [f"--csv={first}", "--csv", second, "--json"],
        "with another option between": ["--csv", first, second, "--samples", "2", "--json"],
    }[spelling]
    code, out, _ = run(capsys, monkeypatch, *arguments)
    found = json.loads(out)["files"]
    assert code == 0
    assert list(found) == ["a.csv", "b.csv"]
    assert (found["a.csv"]["read"], found["a.csv"]["rows"], found["a.csv"]["percent_correct"]) == (
        3,
        2,
        100.0,
    )
    assert set(COUNTED) <= set(found["a.csv"])


def test_files_of_one_name_are_distinct_and_a_summary_is_skipped_with_a_note(
    files, tmp_path, capsys, monkeypatch
):
    other = tmp_path / "other"
    other.mkdir()
    same = write(other / "a.csv", row(tags(ROME)))
    summary = write_summary(tmp_path / "summary_results.csv", {})
    _, out, err = run(capsys, monkeypatch, "--csv", files[0], same, summary, "--json")
    assert list(json.loads(out)["files"]) == [str(files[0]), str(same)]
    assert err == f"{summary}: skipped, it is a summary of results\n"
    code, _, err = run(capsys, monkeypatch, "--csv", summary)
    assert code == 2
    assert "is a summary of results; give the files" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "score needs --tasks FILE and --predictions FILE, or --csv FILE"),
        (
            ["--tasks", "tasks.jsonl"],
            "score needs --tasks FILE and --predictions FILE, or --csv FILE",
        ),
        (
            ["--predictions", "answers.jsonl"],
            "score needs --tasks FILE and --predictions FILE, or --csv FILE",
        ),
        (
            ["--csv", "a.csv", "--tasks", "t.jsonl", "--tools", "weather"],
            "leave out --tasks and --tools",
        ),
        (["--csv", "nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_wrong_use_of_score_is_one_sentence(arguments, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, monkeypatch, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_names_of_files_are_no_markup():
    console = Console(width=200, file=io.StringIO())
    console.print(csv_table({"[red]a.csv": CallTable(())}))
    assert "[red]a.csv" in console.file.getvalue()  # type: ignore[attr-defined]
