"""Tools that run a program: no shell, no options by the model, nothing unless allowed, and limits
that hold for all it starts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from toolhone.errors import ConfigError
from toolhone.schema import ToolCall
from toolhone.tools.command import Stopped, run_program
from toolhone.tools.loading import load_tools, make_registry
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands need a POSIX system")
SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"
TEXT = {"type": "string"}
NASTY = [
    "; touch owned",
    "$(touch owned)",
    "`id`",
    "a\nb",
    "a  b\tc",
    'it\'s "so"',
    "*",
    "~",
    "$HOME",
    "|",
    "&&",
    ">x",
    "\\",
    "",
    "é☃",
]


def schema(*optional: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


def spec(words: Any, parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "go",
        "description": "Go.",
        "type": "command",
        "command": words,
        "parameters": parameters,
        **more,
    }


def load(
    words: Any, parameters: dict[str, Any] | None = None, base: Path = Path("/"), **more: Any
) -> Registry:
    return Registry(load_tools(spec(words, parameters or schema(), **more), base, ["go"]))


def go(words: Any, arguments: dict[str, Any] | None = None, **properties: Any) -> ToolResult:
    return load(words, schema(**properties)).run(ToolCall("go", arguments or {}))


def shown(result: ToolResult) -> list[str]:
    assert result.outcome is ToolStatus.OK, result
    words: list[str] = json.loads(result.value["stdout"])
    return words


# No shell, and every value in its own element.


@pytest.mark.parametrize("value", NASTY)
def test_a_value_reaches_the_program_as_plain_text(value, tmp_path):
    words = [sys.executable, "-c", SHOW, "{x}", "--flag={x}", "a{x}b", "{x}"]
    registry = load(words, schema(x=TEXT), tmp_path)
    assert shown(registry.run(ToolCall("go", {"x": value}))) == [
        value,
        f"--flag={value}",
        f"a{value}b",
        value,
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", NASTY)
def test_a_text_is_split_once_before_the_values_are_filled_in(value, tmp_path):
    line = f"{sys.executable} -c '{SHOW}' {{x}} --flag={{x}} 'two words {{y}}'"
    registry = load(line, schema(x=TEXT, y=TEXT), tmp_path)
    assert shown(registry.run(ToolCall("go", {"x": value, "y": "{x}"}))) == [
        value,
        f"--flag={value}",
        "two words {x}",
    ]
    assert list(tmp_path.iterdir()) == []


def test_shell_words_of_the_command_itself_mean_nothing(tmp_path):
    registry = load("echo $HOME ; touch owned > out *", None, tmp_path)
    assert registry.run(ToolCall("go")).value["stdout"] == "$HOME ; touch owned > out *\n"
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_no_texts_are_json():
    values = {"i": 3, "f": 0.5, "b": True, "l": [1, "a b"], "o": {"k": None}}
    words = [sys.executable, "-c", SHOW, *(f"{{{name}}}" for name in values)]
    assert shown(go(words, values, **{name: {} for name in values})) == [
        "3",
        "0.5",
        "true",
        '[1,"a b"]',
        '{"k":null}',
    ]


def test_braces_around_anything_but_a_name_are_text():
    assert shown(
        go([sys.executable, "-c", SHOW, "{print $1}", "{{x}}", "{}", "{x}"], {"x": "v"}, x=TEXT)
    ) == ["{print $1}", "{x}", "{}", "v"]


# Values that would be options.


@pytest.mark.parametrize("value", ["-rf", "--output=/etc/passwd", "-"])
def test_a_value_cannot_become_an_option(value):
    for words in (
        ["{x}"],
        ["-n", "{x}"],
        ["{x}.txt"],
        ["{e}{x}"],
        ["--", "5", "{x}"],
        ["--{n}", "{x}"],
    ):
        result = load(
            [sys.executable, "-c", SHOW, *words], schema(x=TEXT, e=TEXT, n={"type": "integer"})
        ).run(ToolCall("go", {"x": value, "e": "", "n": 1}))
        assert (result.outcome, result.content) == (
            ToolStatus.INVALID_ARGUMENTS,
            "go: x: a value here cannot begin with '-'",
        ), words


def test_a_number_below_zero_is_a_value_with_a_dash():
    assert (
        go([sys.executable, "-c", SHOW, "{n}"], {"n": -5}, n={"type": "integer"}).outcome
        is ToolStatus.INVALID_ARGUMENTS
    )


def test_a_dash_is_allowed_after_two_dashes_or_where_the_schema_allows_it():
    words = [sys.executable, "-c", SHOW, "--flag={x}", "--", "{x}", "{x}"]
    assert shown(go(words, {"x": "-v"}, x=TEXT)) == ["--flag=-v", "--", "-v", "-v"]
    free = {"type": "string", "allow_dash": True}
    assert shown(go([sys.executable, "-c", SHOW, "{x}"], {"x": "-v"}, x=free)) == ["-v"]
    (made,) = load_tools(spec(["echo", "{x}"], schema(x=free)), Path("/"))
    assert made.parameters["properties"] == {"x": TEXT}


def test_a_default_is_the_users_own_word_and_may_begin_with_a_dash():
    parameters = schema("x", x={"type": "string", "default": "-l"})
    registry = load([sys.executable, "-c", SHOW, "{x}"], parameters)
    assert shown(registry.run(ToolCall("go"))) == ["-l"]
    assert registry.run(ToolCall("go", {"x": "-l"})).outcome is ToolStatus.INVALID_ARGUMENTS


def test_an_option_whose_value_is_left_out_is_left_out_whole():
    registry = load(
        [sys.executable, "-c", SHOW, "--size={n}", "--to={y}", "{x}"],
        schema("n", "y", x=TEXT, n={"type": "integer"}, y=TEXT),
    )
    assert shown(registry.run(ToolCall("go", {"x": "a", "n": 3}))) == ["--size=3", "a"]


@pytest.mark.parametrize(
    "value", ["a\0b", "\ud800", {"k": "\udc80"}, 10**5000, "x" * 3_000_000], ids=range(5)
)
def test_values_that_no_program_can_take_are_invalid_arguments(value):
    assert (
        go([sys.executable, "-c", SHOW, "{x}"], {"x": value}, x={}).outcome
        is ToolStatus.INVALID_ARGUMENTS
    )


# What the program gets and gives.


def test_parameters_without_a_place_come_on_stdin_as_json_and_else_stdin_is_empty():
    read = "import sys; print(sys.stdin.read())"
    given = {"x": "p", "y": {"a": ["é", None]}}
    assert json.loads(
        go([sys.executable, "-c", read, "{x}"], given, x=TEXT, y={}).value["stdout"]
    ) == {"y": given["y"]}
    assert go([sys.executable, "-c", read, "{x}"], {"x": "p"}, x=TEXT).value["stdout"] == "\n"
    big = {"y": "z" * 1_000_000}
    assert (
        go([sys.executable, "-c", "import sys; print(len(sys.stdin.read()))"], big, y=TEXT).value[
            "stdout"
        ]
        == "1000008\n"
    )


def test_the_exit_status_is_part_of_a_result_and_no_error():
    result = go(
        [
            sys.executable,
            "-c",
            "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)",
        ]
    )
    assert (result.outcome, result.value) == (
        ToolStatus.OK,
        {"returncode": 3, "stdout": "out\n", "stderr": "err\n"},
    )
    assert result.content.startswith('{"returncode": 3, ')


def test_the_environment_is_small_and_the_folder_is_the_chosen_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLHONE_SECRET", "s3cret-value")
    monkeypatch.setenv("LD_PRELOAD", "")
    (tmp_path / "sub").mkdir()
    code = "import json, os; print(json.dumps([os.getcwd(), sorted(os.environ)]))"
    where, names = json.loads(
        load([sys.executable, "-c", code], None, tmp_path, cwd="sub")
        .run(ToolCall("go"))
        .value["stdout"]
    )
    assert where == str(tmp_path / "sub")
    assert set(names) <= {"PATH", "HOME", "LANG", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"}
    code = "import os; print(os.environ['A'], os.environ['TOOLHONE_SECRET'][::-1])"
    more = {"env": {"A": "is ${TOOLHONE_SECRET}", "TOOLHONE_SECRET": "${TOOLHONE_SECRET}"}}
    assert (
        load([sys.executable, "-c", code], None, tmp_path, **more)
        .run(ToolCall("go"))
        .value["stdout"]
        == "is [hidden] eulav-terc3s\n"
    )
    listed = load(
        [sys.executable, "-c", "import os; print(len(os.environ['TOOLHONE_SECRET']))"],
        None,
        tmp_path,
        env=["TOOLHONE_SECRET"],
    )
    assert listed.run(ToolCall("go")).value["stdout"] == "12\n"


def test_a_program_with_a_path_is_found_from_the_folder_and_not_from_where_we_are(tmp_path):
    script = tmp_path / "hello.sh"
    script.write_text("#!/bin/sh\necho hello $1\n")
    script.chmod(0o755)
    assert (
        load("./hello.sh {x}", schema(x=TEXT), tmp_path)
        .run(ToolCall("go", {"x": "you"}))
        .value["stdout"]
        == "hello you\n"
    )
    with pytest.raises(ConfigError, match=r"tool 'go': no such program: 'hello\.sh' in PATH"):
        load("hello.sh", None, tmp_path)


# Limits.


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while _is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not _is_alive(pid)


FAMILY = ["sh", "-c", 'sleep 60 & echo $!; sleep "$1"', "sh", "{s}"]


def test_at_the_time_limit_the_program_and_what_it_started_are_killed():
    result = load(FAMILY, schema(s={}), timeout=2).run(ToolCall("go", {"s": 60}))
    assert result.outcome is ToolStatus.TIMEOUT
    told, _, pid = result.content.rpartition(" ")
    assert told == "the command did not end within 2 s and was killed; it wrote:"
    assert _gone(int(pid))


def test_what_a_program_leaves_behind_is_killed_and_not_waited_for():
    started = time.monotonic()
    result = load(FAMILY, schema(s={}), timeout=50).run(ToolCall("go", {"s": 0.1}))
    assert time.monotonic() - started < 30
    assert _gone(int(result.value["stdout"]))


def test_output_beyond_the_limit_is_counted_and_not_kept():
    code = "import sys; sys.stdout.write('é' * 1_000_000); sys.stderr.write('e' * 11)"
    result = load([sys.executable, "-c", code], None, max_bytes=11).run(ToolCall("go"))
    assert result.value == {
        "returncode": 0,
        "stdout": "ééééé\N{REPLACEMENT CHARACTER}… [cut: 2,000,000 bytes in all]",
        "stderr": "e" * 11,
    }


def test_a_flood_of_output_is_ended(monkeypatch):
    monkeypatch.setattr("toolhone.tools.command.FLOOD", 1_000_000)
    finished = run_program(
        [sys.executable, "-c", "while True: print('y' * 10000)"], None, {}, Path("/"), 50, 100
    )
    assert (finished.stopped, len(finished.stdout.kept), finished.returncode) == (
        Stopped.FLOOD,
        100,
        -9,
    )
    assert finished.stdout.size < 2_000_000


def test_a_program_that_closes_its_output_is_still_waited_for_and_still_limited():
    code = "import os, time; os.close(1); os.close(2); time.sleep({})"
    assert (
        load([sys.executable, "-c", code.format(0.2)]).run(ToolCall("go")).value["returncode"] == 0
    )
    assert (
        load([sys.executable, "-c", code.format(60)], timeout=0.3).run(ToolCall("go")).outcome
        is ToolStatus.TIMEOUT
    )


def test_the_registrys_own_time_limit_does_not_cut_a_command_short():
    registry = Registry(
        load_tools(spec(["sleep", "0.4"], schema()), Path("/"), ["go"]), timeout=0.05
    )
    assert registry.run(ToolCall("go")).outcome is ToolStatus.OK


# Permission and mistakes.


def test_a_command_that_is_not_allowed_is_shown_but_never_run(tmp_path):
    made = load_tools(
        spec(["touch", "owned", "{x}"], schema(x=TEXT), env=["TOOLHONE_NOT_SET"]),
        tmp_path,
        ["going"],
    )
    result = Registry(made).run(ToolCall("go", {"x": "a"}))
    assert (result.outcome, list(tmp_path.iterdir())) == (ToolStatus.REFUSED, [])
    assert (
        result.content
        == "tool 'go' runs a command and is not allowed; allow it by name: allowed_tools=[\"go\"]"
    )
    assert Registry(made).runnable == frozenset()
    with pytest.raises(
        ConfigError,
        match=r"allowed_tools names 'goo', but there is no such tool \(did you mean 'go'\?\); "
        r"tools: go",
    ):
        make_registry([spec("touch {x}", schema(x=TEXT))], tmp_path, ["goo"])


@pytest.mark.parametrize(
    "words",
    ["{x}", "{x} a", "sh -c {x}", "sh -c 'echo {x}'", "bash -x {x}", "bash -o pipefail {x}",
     "python3 {x}", "python3.11 -c {x}",
     "env {x}", "env -- {x}", "env A=1 {x}", "/usr/bin/env -i {x}", "timeout 5 {x}",
     "timeout -s KILL {x}", "sudo -u bob {x}",
     "sudo -u bob sh -c {x}", "xargs -n 1 {x}", "nice -n 10 {x}", "env python3 -c {x}",
     "awk {x} file", "ssh host {x}",
     "busybox sh -c {x}", "perl -e {x}", "node --eval={x}", "nohup {x}"],
)  # fmt: skip
def test_a_place_where_a_program_would_stand_is_refused(words):
    with pytest.raises(
        ConfigError, match=r"may look for a program|the model may not choose what runs"
    ):
        load_tools(spec(words, schema(x=TEXT)), Path("/"))


@pytest.mark.parametrize(
    "words",
    ["sh -c 'echo \"$1\"' sh {x}", "python3 script.py {x}", "python3 -u script.py {x}",
     "python3 -m json.tool {x}", "sed 5p {x}",
     "python3 -c 'print(1)' {x}", "timeout 5 ls {x}", "timeout -k 5 10 ls {x}", "env A=1 ls {x}",
     "env A=1 python3 -m mod {x}",
     "sudo -u bob ls {x}", "awk '{print $1}' {x}", "perl -ne 'print' {x}", "npm watch {x}",
     "sh -c date"],
)  # fmt: skip
def test_a_command_that_names_its_program_is_taken(words):
    assert (
        load_tools(spec(words, schema(x=TEXT) if "{x}" in words else schema()), Path("/"))[0].name
        == "go"
    )


@pytest.mark.parametrize(
    ("words", "more", "text"),
    [
        ("", {}, "'command' names no program"),
        (None, {}, "'command' must be a text or a list of texts, got None"),
        (["ls", 3], {}, "'command' must be a text or a list of texts"),
        ("ls 'a", {}, "cannot be split into words: no closing quotation"),
        (["ls", "a\0"], {}, "holds a NUL character"),
        ("ls {z}", {}, "command has a place {z}, but no parameter is named so"),
        ("ls {y}", {}, "a call may leave 'y' out"),
        ("ls -o {y}", {}, "a call may leave 'y' out"),
        ("ls -{x}", {},
         "'-{x}' lets the model choose the option; write the option out (--name={x}), or give"),
        ("ls --{x}=1", {}, "'--{x}=1' lets the model choose the option"),
        ("ls --{z}", {}, "command has a place {z}"),
        ("no-such-program-at-all", {}, "no such program: 'no-such-program-at-all' in PATH"),
        ("./no-such-program", {}, "no such program: '/no-such-program'"),
        ("ls", {"cwd": "/no/such"}, "no such folder: /no/such (cwd)"),
        ("ls", {"cwd": 3}, "'cwd' must be a folder"),
        ("ls", {"env": ["TOOLHONE_NOT_SET"]},
         "env 'TOOLHONE_NOT_SET', needs the environment variable TOOLHONE_NOT_SET"),
        ("ls", {"env": {"A=B": "x"}}, "'A=B' is not the name of an environment variable"),
        ("ls", {"env": 5}, "'env' must be a list of names or an object of texts"),
        ("ls", {"shell": True}, "unknown key 'shell'"),
        ("ls", {"limits": {"max_calls": 0}},
         "'limits.max_calls' must be a whole number above 0, got 0"),
        ("ls", {"limits": {"calls": 1}},
         "'limits' has an unknown key 'calls'; known: timeout, max_chars, max_calls"),
        ("ls", {"cache": "yes"}, "'cache' must be true or false"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(words, more, text):
    with pytest.raises(ConfigError) as caught:
        load_tools(spec(words, schema("y", x=TEXT, y=TEXT), **more), Path("/"), ["go"])
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
