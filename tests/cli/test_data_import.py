"""`toolhone data import` and `data sources`: what is written, counted and refused, and that the
page tells the same.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from conftest import SHARED
from toolhone.cli.main import main
from toolhone.data import importing
from toolhone.data.importing import ImportResult, import_file
from toolhone.errors import DataError, RunError
from toolhone.sources.files import read_records
from toolhone.sources.formats import BAD_LINE, COLUMNS, SOURCES, as_markdown, list_sources
from toolhone.sources.messages import read_conversations, read_preferences, read_tasks

TOOL = {"name": "moor", "description": "Moors a boat.", "parameters": {"berth": {"type": "int"}}}
ROW = {
    "id": "a",
    "query": "Berth 3, please.",
    "tools": [TOOL],
    "answers": [{"name": "moor", "arguments": {"berth": "3"}}],
}
BAD = {**ROW, "answers": [{"name": "sink", "arguments": {}}]}
NO_CALL = {**ROW, "answers": []}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_verb(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["toolhone", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run_verb


def save(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_an_import_writes_conversations_tasks_and_refused_rows(tmp_path: Path, run: Run) -> None:
    source = save(tmp_path / "published.jsonl", ROW, BAD, NO_CALL, ROW)
    code, out, err = run("data", "import", source, "--to", tmp_path / "own" / "out.jsonl")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "format   xlam",
        "read          4",
        "kept          3  (1 of them only as tasks)",
        "repaired      2  arguments of another type",
        "refused       1  a call of a tool that is not on offer",
        f"wrote         2  conversations: {tmp_path}/own/out.jsonl",
        f"wrote         3  tasks: {tmp_path}/own/out.tasks.jsonl",
        f"wrote         1  refused: {tmp_path}/own/out.refused.jsonl",
    ]
    talks = read_conversations(tmp_path / "own" / "out.jsonl")
    assert [dict(talk.messages[1].tool_calls[0].arguments) for talk in talks] == [{"berth": 3}] * 2
    assert [task.id for task in read_tasks(tmp_path / "own" / "out.tasks.jsonl")] == [
        "a#1",
        "a",
        "a#1~2",
    ]
    ((_, refused),) = read_records(tmp_path / "own" / "out.refused.jsonl")
    assert refused["row"] == BAD
    assert (refused["place"], refused["reason"]) == (
        f"{source}, line 2",
        "a call of a tool that is not on offer",
    )
    assert "sink" in refused["detail"]


def test_the_counts_are_there_as_json_and_add_up(tmp_path: Path, run: Run) -> None:
    source = save(tmp_path / "published.jsonl", ROW, BAD, NO_CALL)
    code, out, _ = run("data", "import", source, "--to", tmp_path / "out.jsonl", "--json")
    told = json.loads(out)
    assert (
        code,
        told["format"],
        told["read"],
        told["kept"],
        told["conversations"],
        told["tasks"],
    ) == (0, "xlam", 3, 2, 1, 2)
    assert told["kept"] + sum(told["refused"].values()) == told["read"]
    assert told["files"]["refused"] == {"path": str(tmp_path / "out.refused.jsonl"), "rows": 1}


def test_a_format_that_gives_tasks_only_writes_them_to_the_named_file(
    tmp_path: Path, run: Run
) -> None:
    source = save(tmp_path / "q.jsonl", {"Question": "Which sea?", "Answer": "Skagerrak"})
    code, out, _ = run("data", "import", source, "--to", tmp_path / "out.jsonl.gz")
    assert code == 0
    assert f"tasks: {tmp_path}/out.jsonl.gz" in out
    assert "conversations" not in out
    assert [task.expect.answer for task in read_tasks(tmp_path / "out.jsonl.gz")] == ["Skagerrak"]
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes())
    assert {file.name for file in tmp_path.iterdir()} == {"q.jsonl", "out.jsonl.gz"}


def test_where_no_row_can_be_used_the_exit_code_says_so(tmp_path: Path, run: Run) -> None:
    code, out, _ = run(
        "data", "import", save(tmp_path / "p.jsonl", BAD), "--to", tmp_path / "out.jsonl"
    )
    assert code == 1
    assert "refused       1  a call of a tool that is not on offer" in out
    assert not (tmp_path / "out.jsonl").exists()


def test_nothing_is_overwritten_unless_that_is_allowed(tmp_path: Path, run: Run) -> None:
    source, out = save(tmp_path / "published.jsonl", ROW, BAD), tmp_path / "out.jsonl"
    import_file(source, out)
    before = out.read_bytes()
    save(source, ROW)
    code, _, err = run("data", "import", source, "--to", out)
    assert (code, err) == (
        2,
        f"error: {out} exists already; name another file, or allow overwriting with --overwrite\n",
    )
    assert out.read_bytes() == before
    assert run("data", "import", source, "--to", out, "--overwrite")[0] == 0
    assert not (tmp_path / "out.refused.jsonl").exists(), (
        "the refused rows of the earlier import are gone"
    )
    with pytest.raises(RunError, match=r"published\.jsonl: this is the file to import"):
        import_file(source, source, overwrite=True)
    assert read_records(source).__next__()[1] == ROW


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("missing.jsonl", "--to", "out.jsonl"), "no such file"),
        (
            ("rows.jsonl", "--to", "out.csv"),
            r"out.csv: wanted the name of a file that ends in .jsonl or .jsonl.gz",
        ),
        (
            ("rows.jsonl", "--to", "out.jsonl", "--format", "xlan"),
            "unknown data format 'xlan' (did you mean 'xlam'?)",
        ),
        (
            ("strange.jsonl", "--to", "out.jsonl"),
            "the format was not recognised; its first row has the keys 'x'",
        ),
    ],
)
def test_wrong_use_is_one_sentence(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, arguments: Any, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "rows.jsonl", ROW)
    save(tmp_path / "strange.jsonl", {"x": 1})
    code, out, err = run("data", "import", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err


def test_a_row_that_is_no_conversation_is_counted_not_a_reason_to_stop(tmp_path: Path) -> None:
    good = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
    imported = import_file(
        save(tmp_path / "m.jsonl", good, {"messages": []}), tmp_path / "out.jsonl"
    )
    assert (imported.format, imported.loaded.read, imported.loaded.kept) == ("messages", 2, 1)


# --- broken lines


def imported_rows(
    tmp_path: Path, data: bytes, name: str = "published.jsonl"
) -> tuple[ImportResult, list[dict[str, Any]]]:
    """A file with these bytes, imported, and what stands in the file of refused rows."""
    (tmp_path / name).write_bytes(data)
    imported = import_file(tmp_path / name, tmp_path / "out" / "own.jsonl")
    return imported, [record for _, record in read_records(tmp_path / "out" / "own.refused.jsonl")]


@pytest.mark.parametrize(
    ("broken", "detail"),
    [
        (b'{"id": "b", "que', "not JSON: Unterminated string"),
        (b'{"id": "b", "id": "c"}', "the key 'id' occurs twice"),
        (b"7", "a row must be a JSON object, got a number"),
        (b'{"id": "caf\xe9"}', "not UTF-8: byte 0xe9 at position 12"),
        (b'{"n": NaN}', "NaN is not JSON"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_broken_line_is_refused_and_the_others_are_read(
    tmp_path: Path, broken: bytes, detail: str, place: int
) -> None:
    lines = [json.dumps(row).encode() for row in (ROW, BAD, NO_CALL)]
    lines.insert(place, broken)
    imported, refused = imported_rows(tmp_path, b"\n".join(lines) + b"\n")
    loaded = imported.loaded
    assert (imported.format, loaded.read, loaded.kept, loaded.skipped[BAD_LINE]) == (
        "xlam",
        4,
        2,
        1,
    )
    assert loaded.skipped.total() == len(refused) == 2
    (one,) = [each for each in refused if each["reason"] == BAD_LINE]
    assert one["place"] == f"{tmp_path / 'published.jsonl'}, line {place + 1}"
    assert detail in one["detail"]
    assert one["row"] == broken.decode("utf-8", "replace")
    (other,) = [each for each in refused if each["reason"] != BAD_LINE]
    assert other["row"] == BAD
    places = [each["place"] for each in refused]
    assert places == sorted(places), "the refused rows stand in the order of the file"


def test_an_entry_of_a_list_and_a_row_of_a_table_may_be_broken_as_well(tmp_path: Path) -> None:
    imported, refused = imported_rows(tmp_path, json.dumps([ROW, 7]).encode())
    assert (imported.loaded.kept, [each["row"] for each in refused]) == (1, ["7"])
    fields = [json.dumps(ROW[key]).replace('"', '""') for key in ("tools", "answers")]
    table = f'query,tools,answers\nBerth 3,"{fields[0]}","{fields[1]}"\nonly this,[]\n'
    (tmp_path / "out" / "own.jsonl").unlink()
    (tmp_path / "out" / "own.tasks.jsonl").unlink()
    (tmp_path / "out" / "own.refused.jsonl").unlink()
    imported, refused = imported_rows(tmp_path, table.encode(), "table.csv")
    assert (imported.loaded.kept, [each["row"] for each in refused]) == (1, ["only this,[]"])
    assert refused[0]["detail"] == "2 fields, but the first line names 3 columns"


def test_a_format_with_a_file_beside_it_is_read_past_a_broken_line(tmp_path: Path) -> None:
    tool = {
        "api_name": "moor",
        "parameters": {"berth": {"type": "int"}},
        "required": [],
        "responses": {},
    }
    save(
        tmp_path / "tool.jsonl",
        tool,
        {**tool, "api_name": "cast_off"},
        *({**tool, "api_name": f"t{n}"} for n in range(4)),
    )
    row = {
        "id": "s",
        "query": "Berth 3",
        "calling": [{"api": "moor", "parameters": {"berth": 3}, "responses": []}],
    }
    imported, refused = imported_rows(tmp_path, f"{json.dumps(row)}\n{{\n".encode())
    assert (imported.format, imported.loaded.kept, len(refused)) == ("seal_tools", 1, 1)


def test_broken_lines_of_the_files_of_a_folder_are_refused_by_file(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    save(tmp_path / "all" / "a.jsonl", ROW, BAD)
    (tmp_path / "all" / "b.jsonl").write_text(f"{{broken\n{json.dumps(ROW)}\n")
    (tmp_path / "all" / "c.json").write_text(json.dumps({"some": {"thing": "else"}}, indent=1))
    loaded = import_file(tmp_path / "all", tmp_path / "out.jsonl").loaded
    assert (loaded.read, loaded.kept, loaded.skipped[BAD_LINE]) == (5, 2, 1)
    refused = {
        Path(row["place"].partition(",")[0]).name: row["row"]
        for _, row in read_records(tmp_path / "out.refused.jsonl")
    }
    assert refused == {"a.jsonl": BAD, "b.jsonl": "{broken", "c.json": {"some": {"thing": "else"}}}


@pytest.mark.parametrize(
    "text", ["some words\nand more\n", '{\n "a": [\n  {}\n ]\n\n', "{\n" * 5, "[{}, 1"]
)
def test_a_file_of_other_text_stops_with_its_first_broken_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"x\.jsonl, line 1: not JSON"):
        import_file(tmp_path / "x.jsonl", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_one_object_over_many_lines_is_one_row_of_no_known_format(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{\n "a": [\n  {}\n ]\n}\n')
    with pytest.raises(DataError, match=r"x\.json: the format was not recognised; .* keys 'a';"):
        import_file(tmp_path / "x.json", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


# --- preference pairs

PAIR = {
    "conversations": [{"from": "human", "value": "Which sea?"}],
    "chosen": {"from": "gpt", "value": "The Skagerrak."},
    "rejected": {"from": "gpt", "value": "No idea."},
}


def test_preference_pairs_are_written_in_our_own_form(tmp_path: Path, run: Run) -> None:
    source = save(tmp_path / "p.jsonl", PAIR, {**PAIR, "rejected": PAIR["chosen"]}, PAIR)
    code, out, _ = run("data", "import", source, "--to", tmp_path / "out.jsonl")
    assert code == 0
    assert out.splitlines() == [
        "format   pairs",
        "read          3",
        "kept          2  (2 of them as preference pairs)",
        "refused       1  chosen and rejected say the same",
        f"wrote         2  preferences: {tmp_path}/out.jsonl",
        f"wrote         1  refused: {tmp_path}/out.refused.jsonl",
    ]
    first, second = read_preferences(tmp_path / "out.jsonl")
    assert (first.chosen[0].content, first.rejected[0].content, first.id) == (
        "The Skagerrak.",
        "No idea.",
        "p-1",
    )
    again = import_file(tmp_path / "out.jsonl", tmp_path / "again.jsonl")
    assert (again.format, read_preferences(tmp_path / "again.jsonl")) == (
        "pairs",
        [first, second],
    ), "our own form is one of pairs, too"
    told = json.loads(
        run("data", "import", source, "--to", tmp_path / "j.jsonl", "--json", "--format", "pairs")[
            1
        ]
    )
    assert (told["format"], told["kept"], told["preferences"], told["conversations"]) == (
        "pairs",
        2,
        2,
        0,
    )


def test_a_pair_that_cannot_be_read_and_a_broken_line_are_counted(tmp_path: Path) -> None:
    own = {
        "prompt": [{"role": "user", "content": "?"}],
        "chosen": [{"role": "assistant", "content": "a"}],
    }
    own["rejected"] = [{"role": "assistant", "content": "b"}]
    source = save(
        tmp_path / "p.jsonl", own, {**own, "chosen": [{"role": "boss", "content": "a"}]}, own
    )
    source.write_text(source.read_text() + "{\n")
    loaded = import_file(source, tmp_path / "out.jsonl").loaded
    assert (loaded.read, len(loaded["preferences"])) == (4, 2)
    assert loaded.skipped == {"a pair whose messages or tools cannot be read": 1, BAD_LINE: 1}


@pytest.mark.real
def test_the_pairs_of_llama_factory_are_imported() -> None:
    path = SHARED / "datasets" / "llama_factory" / "dpo_en_demo.json.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with TemporaryDirectory() as folder:
        imported = import_file(path, Path(folder) / "out.jsonl")
    assert (imported.format, imported.loaded.read, imported.loaded.kept, list(imported.files)) == (
        "pairs",
        120,
        120,
        ["preferences"],
    )


def test_a_file_that_is_one_answer_is_refused_as_a_whole(tmp_path: Path) -> None:
    answer = {"win": False, "answer_generation": {"finish_type": "give_up", "train_messages": []}}
    (tmp_path / "tree.json").write_text(json.dumps(answer, indent=1))
    imported = import_file(tmp_path / "tree.json", tmp_path / "out.jsonl")
    assert (imported.format, list(imported.files)) == ("toolbench", ["refused"])
    assert next(read_records(tmp_path / "out.refused.jsonl"))[1]["row"] == answer


def test_a_long_file_shows_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Shown:
        def start(self, what: str, total: int, done: int = 0) -> None:
            seen.append((what, total, done))

        def advance(self, count: int = 1, note: str = "") -> None:
            seen.append((count, note))

        def report(self, line: str) -> None: ...

    source = save(tmp_path / "published.jsonl", ROW, BAD, NO_CALL)
    import_file(source, tmp_path / "a.jsonl", progress=Shown())
    assert seen == []
    monkeypatch.setattr(importing, "LONG", 1)
    import_file(source, tmp_path / "b.jsonl", progress=Shown())
    assert seen == [("reading published.jsonl", 3, 0), *[(1, "")] * 3]


# --- the list of formats


def test_every_format_is_listed_with_its_licence_and_what_it_teaches(run: Run) -> None:
    code, out, _ = run("data", "sources", "--json")
    formats = {each["format"]: each for each in json.loads(out)}
    assert (code, formats.keys()) == (0, {*SOURCES, "pairs"})
    assert all(
        each["title"] and each["licence"] and each["rows"] and each["teaches"]
        for each in formats.values()
    )
    assert formats["xlam"]["licence"] == "CC-BY-4.0"
    assert formats["seal_tools"]["options"] == ["catalogue", "distractors", "seed"]
    plain = run("data", "sources")[1]
    assert len(plain.splitlines()) == 2 * len(formats)
    assert "preference pairs: which of two replies is better" in plain
    assert run("data", "sources", "--markdown")[1] == as_markdown(list_sources()) + "\n"


def test_the_page_holds_the_table_of_the_formats() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    table = page.partition("<!-- sources -->\n")[2].partition("\n<!-- /sources -->")[0]
    assert table == as_markdown(list_sources()), "run: toolhone data sources --markdown"
    assert table.splitlines()[0].count("|") == len(COLUMNS) + 1


@pytest.mark.parametrize("verb", ["sources", "import"])
def test_help_has_an_example(run: Run, verb: str) -> None:
    code, out, _ = run("data", verb, "--help")
    assert code == 0
    assert f"Examples: toolhone data {verb}" in " ".join(out.split())


# --- the published files of ToolBench, whose own tests are elsewhere

TREES = (
    "a search that gave up",
    "a search without a path to an answer",
    "a call of a tool that is not on offer",
)
QUERIES = "a query that does not say which APIs are right"


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "read", "kept", "refused"),
    [
        ("answer", 10, 5, dict(zip(TREES, (3, 1, 1), strict=True))),
        ("instruction", 12, 10, {QUERIES: 2}),
        ("solvable_test_instruction", 473, 472, {"two different APIs of one name": 1}),
    ],
)
def test_the_files_of_toolbench_are_imported_with_these_counts(
    tmp_path: Path, folder: str, read: int, kept: int, refused: dict[str, int]
) -> None:
    path = SHARED / "datasets" / "toolbench" / folder
    if not path.exists():
        pytest.skip(f"{path} is not there")
    told = import_file(path, tmp_path / "out.jsonl").to_dict()
    assert (told["format"], told["read"], told["kept"], told["refused"]) == (
        "toolbench",
        read,
        kept,
        refused,
    )
    assert all(record["row"] for _, record in read_records(tmp_path / "out.refused.jsonl"))


def test_tools_of_a_file_are_those_of_a_log_without_any(run: Run, tmp_path: Path) -> None:
    called = {"type": "tool_use", "id": "1", "name": "moor", "input": {"berth": 3}}
    turns = [{"role": "user", "content": "Berth 3."}, {"role": "assistant", "content": [called]}]
    (tmp_path / "log.jsonl").write_text(json.dumps({"messages": turns}))
    schema = {"type": "object", "properties": {"berth": {"type": "integer"}}}
    operation = {"operationId": "moor", "parameters": [{"name": "berth", "schema": {}}]}
    files: list[Any] = [
        [{"type": "function", "function": {"name": "moor", "parameters": schema}}],
        {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "moor", "inputSchema": schema}]}},
        {"openapi": "3.0.0", "paths": {"/moor": {"get": operation}}},
    ]
    for number, tools in enumerate(files):
        (tmp_path / "tools.json").write_text(json.dumps(tools))
        out = tmp_path / f"{number}.jsonl"
        code, _, err = run(
            "data",
            "import",
            tmp_path / "log.jsonl",
            "--to",
            out,
            "--tools",
            tmp_path / "tools.json",
        )
        assert code == 0, err
        (conversation,) = read_conversations(out)
        assert [tool.name for tool in conversation.tools] == ["moor"]
        assert list(conversation.tools[0].properties) == ["berth"]
    (tmp_path / "tools.json").write_text("[]")
    code, _, err = run(
        "data",
        "import",
        tmp_path / "log.jsonl",
        "--to",
        tmp_path / "x.jsonl",
        "--tools",
        tmp_path / "tools.json",
    )
    assert (code, "names no tool" in err) == (2, True)


def test_cases_of_a_log_are_frozen_before_the_rows_to_train_on(run: Run, tmp_path: Path) -> None:
    questions = ["Find the key.", "find the KEY", "Open the door.", "Where is Per?", "Sing!"]
    lines = []
    for text in questions:
        asked = {"messages": [{"role": "user", "content": f"{text} Mail a@corp.com."}]}
        reply = {"choices": [{"message": {"role": "assistant", "content": "Done."}}]}
        lines.append(json.dumps({"request": asked, "response": reply}))
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    out, cases = tmp_path / "train.jsonl", tmp_path / "cases.jsonl"
    words = ["data", "import", tmp_path / "log.jsonl", "--to", out, "--tasks", cases, "--json"]
    code, printed, _ = run(*words, "--freeze", "2")
    assert code == 0
    told = json.loads(printed)
    assert told["would_redact"] == {"e-mail addresses": told["conversations"]}
    held = {task.messages[0].content for task in read_tasks(cases)}
    trained = {row.messages[0].content for row in read_conversations(out)}
    assert len(held) == 2
    assert not held & trained
    assert len({f"{text} Mail a@corp.com." in trained for text in questions[:2]}) == 1
    code, printed, _ = run(*words, "--freeze", "2", "--redact", "--overwrite")
    assert "corp.com" not in out.read_text() + cases.read_text()
    assert json.loads(printed)["redacted"]["e-mail addresses"] >= 4
    code, _, err = run(*words, "--overwrite")
    assert (code, "go together" in err) == (2, True)
