"""What `toolhone.sources.files` promises: strict reading that names the line, writing that is all
or nothing.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import lzma
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from toolhone.errors import DataError, RunError
from toolhone.sources.files import (
    BadLine,
    Record,
    open_records,
    read_lines,
    read_records,
    write_jsonl,
)
from toolhone.sources.formats import detect_format
from toolhone.sources.messages import read_conversations, read_tasks

ROW: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
}
TASK: dict[str, Any] = {
    "id": "t1",
    "messages": [{"role": "user", "content": "hi"}],
    "expect": {"no_call": True},
}


def read_jsonl(path: Path) -> Iterator[tuple[int, Record]]:
    return ((line.number, record) for line, record in read_records(path))


def save(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def message_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_jsonl(path))
    return str(caught.value)


def test_blank_lines_are_passed_over_but_counted_as_lines(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jsonl", '\n{"a": 1}\r\n   \n{"b": 2}')
    assert list(read_jsonl(path)) == [(2, {"a": 1}), (4, {"b": 2})]


def test_a_line_separator_of_unicode_does_not_end_a_row(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jsonl", '{"a": "x\u2028y\x85z"}\n{"a": 2}\n')
    assert list(read_jsonl(path)) == [(1, {"a": "x\u2028y\x85z"}), (2, {"a": 2})]


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert list(read_jsonl(save(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}\n'))) == [
        (1, {"a": 1})
    ]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl"])
def test_gzip_data_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    assert list(read_jsonl(save(tmp_path / name, gzip.compress(b'{"a": 1}\n', mtime=0)))) == [
        (1, {"a": 1})
    ]


def test_a_json_list_gives_its_entries(tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", '\n[\n {"a": 1},\n {"a": 2}\n]\n')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (2, {"a": 2})]
    assert [str(line) for line, _ in read_records(path)] == [f"{path}, entry 1", f"{path}, entry 2"]


def test_a_pipe_can_be_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_text, args=('{"a": 1}\n',))
    writer.start()
    assert list(read_jsonl(fifo)) == [(1, {"a": 1})]
    writer.join()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"a": 1}\n{"a": 1,}\n', "line 2: not JSON: "),
        (
            '{"a": 1}\n{"a": \n"b"}\n',
            "line 2: not JSON: Expecting value at column 6; an object must be on one line",
        ),
        ('{"a": 1}\n[1]\n', "line 2: a row must be a JSON object, got a list: [1]"),
        ('{"a": 1}\ntrue\n', "line 2: a row must be a JSON object, got a truth value: true"),
        ('[{"a": 1}, 7]', "entry 2: a row must be a JSON object, got a number: 7"),
        ('[\n{"a": 1}\n{"a": 2}]', "line 3: not JSON: "),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "line 1: the key 'c' occurs twice in one object"),
        ('{"a": NaN}', "line 1: NaN is not JSON"),
        ('{"a": -Infinity}', "line 1: -Infinity is not JSON"),
        ('{"a": "\\ud83d"}', "line 1: not text: a \\u escape holds half of a surrogate pair"),
        ('{"a": ' + "[" * 100_000, "line 1: not JSON: nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "line 1: not JSON: Exceeds the limit"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "line 2: not UTF-8: byte 0xff at position 8"),
        (b'[{"a": 1},\n{"a": "\xff"}]\n', "line 2: not UTF-8: byte 0xff at position 8"),
        ("", ": the file is empty"),
        ("\n \n", ": the file is empty"),
        ("[]", ": the file is empty"),
        (b"PAR1....", ": this is a Parquet file"),
        (b"\xff\xfe{\x00", ": this is UTF-16 text"),
        (bz2.compress(b'{"a": 1}\n'), ": this is bzip2 data; wanted UTF-8 text"),
        (lzma.compress(b'{"a": 1}\n'), ": this is xz data; wanted UTF-8 text"),
        (
            gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-12],
            "line 1: the gzip data is damaged or cut off",
        ),
        (b"\x1f\x8bnot gzip", "line 1: the gzip data is damaged or cut off"),
    ],
)
def test_a_fault_is_one_sentence_that_names_file_and_line(
    tmp_path: Path, content: str | bytes, expected: str
) -> None:
    path = save(tmp_path / "data.jsonl", content)
    message = message_of(path)
    assert message.startswith(str(path))
    assert expected in message
    assert "\n" not in message


def test_a_bad_line_is_a_value_between_the_records(tmp_path: Path) -> None:
    rows = list(read_lines(save(tmp_path / "a.jsonl", '{"a": 1}\nnothing\n{"a": 2}\n')))
    assert [row for _, row in rows if not isinstance(row, BadLine)] == [{"a": 1}, {"a": 2}]
    (bad,) = [row for _, row in rows if isinstance(row, BadLine)]
    assert (bad.line.number, bad.text) == (2, "nothing")
    assert str(bad.error) == f"{bad.line}: {bad.why}"


def test_an_escaped_pair_of_surrogates_is_one_character(tmp_path: Path) -> None:
    assert list(read_jsonl(save(tmp_path / "a.jsonl", '{"a": "\\ud83d\\ude00"}'))) == [
        (1, {"a": "😀"})
    ]


def test_rows_before_a_fault_are_given_first(tmp_path: Path) -> None:
    rows = read_jsonl(save(tmp_path / "a.jsonl", '{"a": 1}\nnothing\n'))
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(DataError, match="line 2"):
        next(rows)


def test_a_missing_file_is_met_with_the_nearest_name(tmp_path: Path) -> None:
    save(tmp_path / "train.jsonl", "{}")
    assert message_of(tmp_path / "trian.jsonl").endswith(
        "no such file (did you mean 'train.jsonl'?)"
    )
    assert message_of(tmp_path / "zzz").endswith("no such file")
    assert message_of(tmp_path / "no" / "a").endswith(
        f"the folder {str(tmp_path / 'no')!r} does not exist"
    )
    assert "this is a folder" in message_of(tmp_path)


def test_a_broken_message_is_named_by_line_and_place(tmp_path: Path) -> None:
    bad = {"messages": [ROW["messages"][0], {"role": "asistant", "content": "x"}]}
    path = save(tmp_path / "a.jsonl", json.dumps(ROW) + "\n" + json.dumps(bad))
    with pytest.raises(
        DataError,
        match=(
            r"a\.jsonl, line 2: messages\[1\]: a message needs a 'role'.*did you mean "
            r"'assistant'"
        ),
    ):
        read_conversations(path)


@pytest.mark.parametrize("parameters", [5, "x", [1]])
def test_a_broken_tool_is_named_by_its_line(tmp_path: Path, parameters: object) -> None:
    path = save(
        tmp_path / "a.jsonl",
        json.dumps({**ROW, "tools": [{"name": "f", "parameters": parameters}]}),
    )
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: .*f'?: 'parameters' must be"):
        read_conversations(path)


def test_equal_tools_of_many_rows_are_one_object(tmp_path: Path) -> None:
    row = {**ROW, "tools": [{"name": "f"}]}
    first, second = read_conversations(
        save(tmp_path / "a.jsonl", json.dumps(row) + "\n" + json.dumps(row))
    )
    assert first.tools[0] is second.tools[0]
    assert first.tools[0].name == "f"


def test_two_tasks_with_one_id_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jsonl", f"{json.dumps(TASK)}\n\n{json.dumps(TASK)}\n")
    with pytest.raises(DataError, match=r"line 3: the id 't1' occurs already in line 1"):
        read_tasks(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": None}, "a task needs an 'id'"),
        (
            {"expect": 5},
            "'expect' must be an object with calls, no_call, any_call, state, "
            "alternatives, answer, order, got 5",
        ),
        ({"expect": {"calls": 5}}, "'expect.calls' must be a list, got 5"),
        ({"expect": {"calls": {"name": "f"}}}, "'expect.calls' must be a list"),
        ({"expect": {"state": "on"}}, "'expect.state' must be an object, got 'on'"),
        (
            {"expect": {"calls": [{"name": "f", "accept": 5}]}},
            "'accept' must be an object of lists, got 5",
        ),
        (
            {"expect": {"calls": [{"name": "f", "accept": {"a": "x"}}]}},
            "'accept' must hold a list for each parameter, got 'x'",
        ),
        (
            {"expect": {"calls": [{"name": "f", "optional": "a"}]}},
            "'optional' must be a list of parameters, got 'a'",
        ),
        ({"turns": 5}, "'turns' must be a list of lists of messages, got 5"),
        (
            {"turns": [TASK["messages"]]},
            "with 'turns', 'expect' must be a list with one entry per turn",
        ),
    ],
)
def test_a_malformed_task_is_one_sentence_with_its_line(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    path = save(tmp_path / "a.jsonl", json.dumps({**TASK, **changes}))
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: " + re.escape(expected)):
        read_tasks(path)


def test_an_id_that_is_null_is_no_id(tmp_path: Path) -> None:
    (conversation,) = read_conversations(
        save(tmp_path / "a.jsonl", json.dumps({**ROW, "id": None, "source": None}))
    )
    assert (conversation.id, conversation.source) == ("", "")


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_what_was_written_is_read_back(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, Any]] = [{"a": "ü 😀 \u2028\n"}, {"b": [1, 2.5, None]}]
    assert write_jsonl(tmp_path / "new" / name, iter(rows)) == 2
    assert [record for _, record in read_jsonl(tmp_path / "new" / name)] == rows


def test_conversations_and_tasks_come_back_equal(tmp_path: Path) -> None:
    save(tmp_path / "a.jsonl", json.dumps(ROW))
    save(tmp_path / "t.jsonl", json.dumps(TASK))
    conversations, tasks = (
        read_conversations(tmp_path / "a.jsonl"),
        read_tasks(tmp_path / "t.jsonl"),
    )
    write_jsonl(tmp_path / "b.jsonl", (row.to_dict() for row in conversations))
    write_jsonl(tmp_path / "u.jsonl", (task.to_dict() for task in tasks))
    assert read_conversations(tmp_path / "b.jsonl") == conversations
    assert read_tasks(tmp_path / "u.jsonl") == tasks


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_the_same_rows_give_the_same_bytes(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, now in (("a", 1e9), ("b", 2e9)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        write_jsonl(tmp_path / folder / name, [{"a": 1}])
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
@pytest.mark.parametrize("bad", [{"a": float("nan")}, {"a": {1, 2}}, {"a": "\ud83d"}])
def test_a_row_that_json_cannot_write_leaves_the_old_file(
    tmp_path: Path, name: str, bad: dict[str, Any]
) -> None:
    write_jsonl(tmp_path / name, [{"old": 1}])
    with pytest.raises(DataError, match="row 2 cannot be written as JSON"):
        write_jsonl(tmp_path / name, [{"new": 1}, bad])
    assert list(read_jsonl(tmp_path / name)) == [(1, {"old": 1})]
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        RunError, match="was not written: the disk is full; free some space and write again"
    ):
        write_jsonl(tmp_path / name, [{"a": 1}])
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_full_device_is_one_sentence(size: int) -> None:
    with pytest.raises(RunError, match="/dev/full: the file was not written: the disk is full"):
        write_jsonl("/dev/full", [{"a": "x" * size}])


def test_rows_that_fail_while_being_made_leave_no_half_file(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(tmp_path / "out.jsonl", rows())
    assert os.listdir(tmp_path) == []


def test_a_file_can_be_rewritten_from_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"a": n} for n in range(3)])
    write_jsonl(path, (record for _, record in read_jsonl(path) if record["a"] != 1))
    assert [record["a"] for _, record in read_jsonl(path)] == [0, 2]


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path: Path) -> None:
    target = save(tmp_path / "target.jsonl", "{}")
    (tmp_path / "link.jsonl").symlink_to(target)
    write_jsonl(tmp_path / "link.jsonl", [{"a": 1}])
    assert (tmp_path / "link.jsonl").is_symlink()
    assert target.read_text() == '{"a": 1}\n'


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    save(tmp_path / "file", "x")
    with pytest.raises(RunError, match="was not written"):
        write_jsonl(tmp_path / "file" / "out.jsonl", [])
    with pytest.raises(RunError, match="this is a folder"):
        write_jsonl(tmp_path, [])


def test_rows_inside_an_object_are_named(tmp_path):
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]}
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"version": 1, "data": [row, row]}), encoding="utf-8")
    with pytest.raises(DataError, match="'data' holds a list of 2 rows; wanted that list alone"):
        detect_format(open_records(path))


@pytest.mark.parametrize("indent", [1, None])
@pytest.mark.parametrize("gap", ["\n", "\n\n", " "])
def test_objects_over_several_lines_are_read_with_their_lines(indent, gap, tmp_path):
    records = [{"a": [1, {"b": "x\u2028y"}]}, {"c": {}}, {"d": "}"}]
    text = gap.join(json.dumps(one, indent=indent or 2, ensure_ascii=False) for one in records)
    path = tmp_path / "a.json"
    path.write_text(f" {{\n}}{gap}{text}\n", encoding="utf-8")
    found = list(read_lines(path))
    assert [record for _, record in found] == [{}, *records]
    assert [line.number for line, _ in found] == sorted(line.number for line, _ in found)
    assert found[1][0].number == 2 + gap.count("\n")


def test_an_object_over_several_lines_is_held_to_the_same_rules(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{\n"a": 1, "a": 2}\n{"b": 1}\n', encoding="utf-8")
    (_, bad), (line, good) = read_lines(path)
    assert isinstance(bad, BadLine)
    assert "'a'" in str(bad.error)
    assert (line.number, good) == (3, {"b": 1})


def test_lines_after_one_that_is_cut_off_are_still_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": [\n{"b": 1}\n', encoding="utf-8")
    (_, bad), (line, good) = read_lines(path)
    assert isinstance(bad, BadLine)
    assert (line.number, good) == (2, {"b": 1})


def test_objects_over_several_lines_lose_no_byte_and_no_value_without_a_count(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{\n"a": "caf\xe9"}\n{"b": 1}\n[2]\n')
    (first, bad), (_, good), (_, no_object) = read_lines(path)
    assert isinstance(bad, BadLine)
    assert isinstance(no_object, BadLine)
    assert (first.number, good) == (1, {"b": 1})
    assert "line 2: not UTF-8: byte 0xe9 at position 10" in str(bad.error)
    assert "a row must be a JSON object, got a list" in str(no_object.error)
