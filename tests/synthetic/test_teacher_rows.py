"""A stronger model behind an address: what of its replies becomes a row, what every loss is counted
as, and that no paid reply is lost or paid for again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from support.one_token import Lines
from support.teacher_server import Reply, Served, teacher
from toolhone.config.experiment import load_experiment, make_experiment
from toolhone.config.small_sections import CATEGORIES, TeacherModelSection
from toolhone.errors import ConfigError, DataError
from toolhone.runs.progress import Progress
from toolhone.schema import Tool, ToolCall
from toolhone.synthetic import teacher_client
from toolhone.synthetic.own_tools import make_rows
from toolhone.synthetic.teacher_client import TeacherClient
from toolhone.synthetic.teacher_rows import (
    RejectedError,
    WrittenRows,
    has_shape,
    is_founded,
    question,
    read_written,
    reply_schema,
    verified,
    write_rows,
)
from toolhone.tools.registry import Registry
from toolhone.training.dataset import held_out_tasks

BOOK = Tool.of({"name": "book", "parameters": {"properties": {"city": {"type": "string"}}}})
TOOLS = [*Registry(["calculator"]).tools, BOOK]
REGISTRY = Registry(["calculator", BOOK])
PREFIX = "prefixItems"


def call(expression: str, name: str = "calculator") -> dict[str, Any]:
    key = "expression" if name == "calculator" else "city"
    return {"name": name, "arguments": {key: expression}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str | None, *calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "tool_calls": list(calls)}


def result(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text}


def written(*messages: dict[str, Any]) -> str:
    return json.dumps({"messages": messages})


SINGLE = (user("Seven times six?"), says(None, call("7*6")), result("?"), says("It is {result}."))
ASK = says("Which numbers do you mean?")
GOOD = {
    "single": written(*SINGLE),
    "parallel": written(
        user("7*6 and 2+2?"),
        says(None, call("7*6"), call("2+2")),
        result("?"),
        result("?"),
        says("{result1} and {result2}."),
    ),
    "multi_turn": written(*SINGLE, user("Plus one?"), says(None, call("42+1")), says("{result}!")),
    "no_call": written(user("Sing a song"), says("La la la.")),
    "missing_information": written(
        user("Multiply it"), ASK, user("7 and 6"), says(None, call("7*6")), says("42 it is")
    ),
    "error_recovery": written(
        user("7 by 0, or by 2?"),
        says(None, call("7/0")),
        result("?"),
        says(None, call("7/2")),
        result("?"),
        says("By 2 it is {result}."),
    ),
}


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_good_reply_of_each_category_becomes_a_row_with_real_results(category: str) -> None:
    row = verified(GOOD[category], category, TOOLS, REGISTRY, WrittenRows())
    results = [message.content for message in row.messages if message.role == "tool"]
    assert "?" not in results
    wanted = {"single": ["42"], "parallel": ["42", "4"], "multi_turn": ["42", "43"]}
    assert results == wanted.get(category, results)
    assert "{result" not in (row.messages[-1].content or "")
    others = [other for other in CATEGORIES if other != category]
    shapes = [other for other in others if has_shape(row.messages, other)]
    assert not shapes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I cannot do that.", "format: no JSON object with messages"),
        ('{"messages": [{"role": "nobody"}]}', "format: messages that cannot be read"),
        (GOOD["no_call"], "format: not the shape of single"),
        (written(user("a"), says(None, call("1", "x")), says("b")), "format: a call of a tool"),
        (
            written(user("a"), says(None, {"name": "calculator", "arguments": {}}), says("b")),
            "format: arguments that break the schema",
        ),
        (
            written(user("a"), says(None, call("Oslo", "book")), says("b")),
            "format: results that belong to no call",
        ),
        (
            written(user("a"), says(None, call("1/0")), says("b")),
            "execution: a call ended as error",
        ),
        (
            written(user("a"), says(None, call("7*6")), says("It is 41.")),
            "answer: the last message",
        ),
        (
            written(user("a"), says(None, call("7*6")), says("{result.total}")),
            "answer: a place for a field",
        ),
        (written(user("a"), says(None, call("7*6")), says("{result3}")), "answer: a place for a"),
    ],
)
def test_each_stage_rejects_what_it_is_for_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(RejectedError, match=re.escape(reason)):
        verified(text, "single", TOOLS, REGISTRY, WrittenRows())


@pytest.mark.parametrize(
    ("arguments", "said", "is_one"),
    [
        ({"city": "Oslo"}, "How warm is it in Oslo?", True),
        ({"city": "Oslo"}, "How does a calculator know the weather?", False),
        ({"expression": "7*6"}, "What is 6 times 7?", True),
        ({"expression": "7*6"}, "Seven times six?", True),
        ({"expression": "7*6"}, "What is 6 times 8?", False),
        ({"expression": "sqrt(144)"}, "The root of 144?", True),
        ({"query": "北京"}, "北京天气怎么样?", True),
        ({"count": 3, "day": "2025-03-09"}, "3 tables on 9 March 2025", True),
        ({"wet": True}, "anything", True),
        ({}, "anything", True),
    ],
)
def test_a_call_is_founded_on_a_word_or_on_all_numbers_that_were_said(
    arguments: dict[str, Any], said: str, is_one: bool
) -> None:
    assert is_founded(ToolCall("any", arguments), said) is is_one


def test_an_error_that_is_not_made_good_is_no_recovery() -> None:
    calls = [says(None, call("1+1")), says(None, call("1/0")), says("2")]
    with pytest.raises(RejectedError, match="execution: no failed call"):
        verified(written(user("a"), *calls), "error_recovery", TOOLS, REGISTRY, WrittenRows())


def test_a_tool_that_cannot_run_keeps_the_written_result_and_is_counted() -> None:
    counts = WrittenRows()
    text = written(
        user("A room in Oslo"),
        says(None, call("Oslo", "book")),
        result('{"room": 12}'),
        says("Room {result.room} is yours."),
    )
    row = verified(text, "single", TOOLS, REGISTRY, counts)
    assert row.messages[-1].content == "Room 12 is yours."
    assert counts.not_run == 1


def test_text_around_the_object_is_left_out() -> None:
    row = read_written(f"Here it is:\n```json\n{GOOD['single']}\n```", TOOLS)
    assert len(row.messages) == 4


def test_questions_are_seeded_and_differ() -> None:
    first, again = (question(TOOLS, "single", 0, 3) for _ in range(2))
    assert first == again
    assert first != question(TOOLS, "single", 0, 4)


ASKED, CALL, SAID = user("Seven times six?"), says(None, call("7*6")), says("It is {result}.")
SHAPED = {
    "single": [ASKED, CALL, SAID],
    "parallel": [
        ASKED,
        says(None, call("7*6"), call("2+2")),
        says("First {result1}, then {result2}."),
    ],
    "multi_turn": [ASKED, CALL, SAID, user("Plus one?"), says(None, call("42+1")), SAID],
    "no_call": [user("Sing a song"), says("La la la la.")],
    "missing_information": [user("Multiply it"), ASK, user("7 and 6, please"), CALL, SAID],
    "error_recovery": [ASKED, says(None, call("7/0")), says(None, call("7/2")), SAID],
}


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_reply_held_to_its_schema_becomes_a_row_and_no_other_shape_fits(category: str) -> None:
    tools, found = Registry(["calculator"]).tools, WrittenRows()
    validators = {
        name: Draft202012Validator(reply_schema(tools, name, ["calculator"], 0)) for name in SHAPED
    }
    messages = [{k: v for k, v in one.items() if v or k == "role"} for one in SHAPED[category]]
    fitting = [name for name, one in validators.items() if one.is_valid({"messages": messages})]
    assert fitting == [category]
    row = verified(json.dumps({"messages": messages}), category, tools, REGISTRY, found)
    assert not any("{result" in (one.content or "") for one in row.messages)
    assert validators[category].is_valid({"messages": [*messages, ASKED]}) is False


def test_a_schema_asks_for_results_only_of_tools_that_cannot_run() -> None:
    roles = [
        [one["properties"]["role"]["const"] for one in schema["properties"]["messages"][PREFIX]]
        for schema in (reply_schema(TOOLS, "parallel", names, 1) for names in ([], ["calculator"]))
    ]
    assert roles == [["user", "assistant", "tool", "tool", "tool", "assistant"]] * 2
    own = reply_schema(TOOLS[:1], "parallel", ["calculator"], 1)["properties"]["messages"][PREFIX]
    assert len(own) == 3


def test_a_request_carries_its_schema_only_where_that_is_asked_for(tmp_path: Path) -> None:
    with teacher(lambda _, text: product(number_of(text))) as served:
        plan = section(served, tmp_path)
        write_rows(TeacherClient.open(plan), TOOLS, REGISTRY, 1, 0, Progress())
        plan = section(served, tmp_path, response_format="json_schema")
        write_rows(TeacherClient.open(plan), TOOLS, REGISTRY, 1, 0, Progress())
    plain, held = served.bodies
    assert "response_format" not in plain
    schema = held["response_format"]["json_schema"]["schema"]
    assert schema == reply_schema(TOOLS, "single", REGISTRY.runnable, 0)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_client, "PAUSE", 0.0)


def product(number: int) -> str:
    """A good reply with numbers of its own."""
    text = f"What is {number} times 6?"
    return written(user(text), says(None, call(f"{number}*6")), says("It is {result}."))


def section(served: Served, folder: Path, **changes: Any) -> TeacherModelSection:
    values = {"timeout": 3.0, "retries": 1, "categories": {"single": 1}, **changes}
    return TeacherModelSection(base_url=served.url, replies=str(folder / "replies.jsonl"), **values)


def number_of(text: str) -> int:
    match = re.search(r"Conversation number (\d+)", text)
    assert match is not None
    return int(match[1])


def test_every_kind_of_reply_is_counted_and_nothing_is_paid_for_twice(tmp_path: Path) -> None:
    odd: dict[int, Reply] = {
        1: "no object",  # malformed
        2: product(3),  # repeats the third
        4: written(user("x"), says(None, call("7*6")), says("It is 41.")),  # wrong
        5: 4.0,  # slow
        6: None,  # dropped
        7: 503,
    }
    tried: set[int] = set()

    def script(_: int, text: str) -> Reply:
        number = number_of(text)
        first, _ = number not in tried, tried.add(number)
        if isinstance(odd.get(number), str) or (number in odd and first):
            return odd[number]
        return product(number)

    with teacher(script) as served:
        plan = section(served, tmp_path)
        made = write_rows(TeacherClient.open(plan), TOOLS, REGISTRY, 8, 0, Lines())
        report = made.report(client := TeacherClient.open(plan))
        assert len(made.rows) == 8
        assert made.reasons == {
            "format: no JSON object with messages": 1,
            "a near-duplicate of a kept row": 1,
            "answer: the last message does not carry the result": 1,
        }
        assert made.proposed == 11
        journal = (tmp_path / "replies.jsonl").read_text().splitlines()
        failures = [json.loads(line)["failed"] for line in journal if "failed" in line]
        assert sorted(failures) == ["HTTP 503", "no reply in time", "the connection failed"]
        assert served.paid == len(client.paid) == report["requests"] - 3
        paid = served.paid
        again = write_rows(client, TOOLS, REGISTRY, 8, 0, Progress())
    assert again.rows == made.rows
    assert served.paid == paid
    assert client.recalled == 11
    assert client.tokens == (100 * paid, 10 * paid)


def test_a_run_that_breaks_off_loses_no_paid_reply(tmp_path: Path) -> None:
    class Stopping(Progress):
        def advance(self, count: int = 1, note: str = "") -> None:  # noqa: ARG002
            raise KeyboardInterrupt

    with teacher(lambda _, text: product(number_of(text))) as served:
        plan = section(served, tmp_path)
        with pytest.raises(KeyboardInterrupt):
            write_rows(TeacherClient.open(plan), TOOLS, REGISTRY, 6, 0, Stopping())
        before = served.paid
        path = tmp_path / "replies.jsonl"
        path.write_text(path.read_text() + '{"id": "cut o')
        client = TeacherClient.open(plan)
        assert len(client.paid) == before > 0
        made = write_rows(client, TOOLS, REGISTRY, 6, 0, Progress())
    assert len(made.rows) == 6
    assert client.recalled == before
    assert served.paid == 6


@pytest.mark.parametrize(
    ("budget", "ended"), [({"max_requests": 5}, "5 requests"), ({"max_tokens": 440}, "440 tokens")]
)
def test_the_budget_ends_the_work_with_what_there_is(
    tmp_path: Path, budget: dict[str, int], ended: str
) -> None:
    with teacher(lambda _, text: product(number_of(text))) as served:
        plan = section(served, tmp_path, price_in=1.0, price_out=10.0, **budget)
        client = TeacherClient.open(plan)
        made = write_rows(client, TOOLS, REGISTRY, 20, 0, Progress())
        assert len(made.rows) == served.paid <= 8
        assert ended in made.ended
        assert client.price == pytest.approx(served.paid * 200 / 1e6)
        later = write_rows(TeacherClient.open(plan), TOOLS, REGISTRY, 20, 0, Progress())
    assert later.rows == made.rows
    assert served.paid == len(made.rows), "a later run has the same budget"


def test_a_token_budget_is_refused_where_the_address_tells_no_usage(tmp_path: Path) -> None:
    with teacher(lambda _, text: product(number_of(text)), tells_usage=False) as served:
        free = section(served, tmp_path)
        made = write_rows(client := TeacherClient.open(free), TOOLS, REGISTRY, 3, 0, Progress())
        assert made.report(client)["replies_without_usage"] == len(made.rows) == 3
        limited = section(served, tmp_path, max_tokens=440)
        with pytest.raises(DataError, match=r"max_tokens=440 cannot be held.*max_requests"):
            write_rows(TeacherClient.open(limited), TOOLS, REGISTRY, 20, 0, Progress())


def test_the_key_is_sent_and_never_written_or_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-123")
    with teacher(lambda *_: 401) as served:
        client = TeacherClient.open(section(served, tmp_path, key_env="MY_KEY"))
        with pytest.raises(DataError, match="HTTP 401") as caught:
            client.ask("a", [user("b")])
    assert served.headers[0]["Authorization"] == "Bearer secret-123"
    assert "secret-123" not in str(caught.value)
    with teacher(lambda _, text: product(number_of(text))) as served:
        plan = section(served, tmp_path, key_env="MY_KEY")
        write_rows(TeacherClient.open(plan), TOOLS, REGISTRY, 2, 0, Progress())
    written_files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written_files
    assert not [path for path in written_files if "secret-123" in path.read_text()]


@pytest.mark.parametrize("address", ["host/v1", "ftp://host", "http://me:secret@host/v1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.teacher\.base_url"):
        TeacherClient.open(TeacherModelSection(base_url=address))


def test_an_experiment_gets_rows_held_out_rows_tasks_and_the_cost(tmp_path: Path) -> None:
    with teacher(lambda _, text: product(number_of(text))) as served:
        own = {**section(served, tmp_path).model_dump(), "base_url": served.url}
        data = {"strategy": "teacher", "max_samples": 12, "teacher": own}
        plan = make_experiment({"data": data, "tools": ["calculator"]}, "the test")
        made = make_rows(plan)
    assert len(made.train) + len(made.held_out) == 12
    assert len(made.tasks) == len(made.held_out) > 0
    assert "12 of 12 rows written by default: 12 requests" in made.report["source"]
    assert "1,320 tokens" in made.report["source"]


def test_tasks_of_a_run_that_kept_none_are_not_asked_for_again() -> None:
    data = {"strategy": "teacher_mode", "teacher": {"base_url": "http://127.0.0.1:1/v1"}}
    assert held_out_tasks(make_experiment({"data": data}, "the test")) == []


def test_a_teacher_that_writes_no_row_is_an_error_with_reasons(tmp_path: Path) -> None:
    with teacher(lambda *_: "nothing") as served:
        own = {**section(served, tmp_path).model_dump(), "base_url": served.url}
        data = {"strategy": "teacher_mode", "max_samples": 2, "teacher": own}
        plan = make_experiment({"data": data, "tools": ["calculator"]}, "the test")
        with pytest.raises(DataError, match=r"0 of 2 rows.*8 format: no JSON object"):
            make_rows(plan)


def test_the_preset_gets_its_rows_from_the_address_that_is_named(tmp_path: Path) -> None:
    with teacher(lambda _, text: product(number_of(text))) as served:
        own = [f"data.teacher.base_url={served.url}", f"data.teacher.replies={tmp_path / 'paid'}"]
        few = ["data.max_samples=6", 'data.teacher.categories={"single":1}']
        made = make_rows(load_experiment(Path("teacher-model"), [*own, *few], tell=lambda _: None))
    assert len(made.train) + len(made.held_out) == 6
    assert all("json_schema" in body["response_format"]["type"] for body in served.bodies)
