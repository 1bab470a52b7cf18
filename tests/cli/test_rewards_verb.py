"""`toolhone rewards list` and `attack`, and `toolhone score --reward` with names of the library."""

import json
from pathlib import Path

import pytest

from toolhone.cli.main import main
from toolhone.rewards.attack_suite import PROBES
from toolhone.rewards.attacks import ATTACKS
from toolhone.rewards.reward_registry import BUILTIN

MINE = """
def paid(task, episode):
    wanted = {call.name for call in task.expect.calls or ()}
    return float(wanted <= {call.name for call in episode.calls})

def broken(task, episode):
    return 1 / 0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "tasks.jsonl").write_text(
        "".join(json.dumps(task.to_dict()) + "\n" for task in PROBES[:4])
    )
    return tmp_path


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["toolhone", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_list_names_every_reward_with_its_holes(monkeypatch, capsys):
    assert run_cli(monkeypatch, "rewards", "list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in BUILTIN)
    assert run_cli(monkeypatch, "rewards", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["rewards"]
    assert [one["name"] for one in listed] == list(BUILTIN)
    assert all(set(one["holes"]) <= set(ATTACKS) for one in listed)


@pytest.mark.parametrize("name", [name for name, named in BUILTIN.items() if named.kind == "own"])
def test_attacking_a_reward_of_ours_ends_well(monkeypatch, capsys, name):
    assert run_cli(monkeypatch, "rewards", "attack", name, "--json") == 0
    assert json.loads(capsys.readouterr().out)["holes"] == []


def test_attacking_a_compatible_reward_names_its_holes_and_exits_with_one(
    folder,  # noqa: ARG001
    monkeypatch,
    capsys,
):
    assert (
        run_cli(monkeypatch, "rewards", "attack", "tool_call_function", "--tasks", "tasks.jsonl")
        == 1
    )
    shown = capsys.readouterr().out
    assert "tool_call_function: attacks on 4 tasks, calls written as calls" in shown
    assert (
        "hole spray: it pays calling every tool on offer; it earned 1.00 on one, "
        "the right answer 1.00, silence 0.00" in shown
    )
    assert "attacks held" in shown


def test_a_reward_of_the_users_own_is_attacked_in_the_dialect_asked_for(
    folder,  # noqa: ARG001
    monkeypatch,
    capsys,
):
    assert (
        run_cli(
            monkeypatch,
            "rewards",
            "attack",
            "mine.py:paid",
            "--tasks",
            "tasks.jsonl",
            "--dialect",
            "json",
            "--json",
        )
        == 1
    )
    report = json.loads(capsys.readouterr().out)
    assert (report["reward"], report["syntax"], report["tasks"]) == ("paid", "json", 4)
    spray = next(hole for hole in report["holes"] if hole["attack"] == "spray")
    assert spray["pay"] == spray["gold"] == 1.0
    assert '"tool": "delete_account"' in spray["texts"][0]


def test_fewer_tasks_are_said(folder, monkeypatch, capsys):  # noqa: ARG001
    arguments = (
        "rewards",
        "attack",
        "tool_use",
        "--tasks",
        "tasks.jsonl",
        "--num-samples",
        "2",
        "--json",
    )
    assert run_cli(monkeypatch, *arguments) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["tasks"] == 2
    assert "the first 2 of 4 tasks are used" in shown.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["tool_cal_exact"],
            "there is no reward 'tool_cal_exact' (did you mean 'tool_call_exact'?)",
        ),
        (["mine.py:nosuch"], "has no function 'nosuch'"),
        (["mine.py:broken"], "the reward 'broken' failed on the task 'one': ZeroDivisionError"),
        (["tool_use", "--dialect", "jso"], "no dialect 'jso'"),
        (
            ["right_answer", "--tasks", "tasks.jsonl"],
            "none of 4 tasks can be used to attack the reward 'right_answer'",
        ),
        (["tool_use", "--tasks", "nosuch.jsonl"], "nosuch.jsonl"),
    ],
)
def test_a_mistake_is_one_sentence_with_exit_code_two(folder, monkeypatch, capsys, arguments, said):  # noqa: ARG001
    assert run_cli(monkeypatch, "rewards", "attack", *arguments) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


# Scoring answers made anywhere.


def scored(monkeypatch, capsys, answers: list[dict], *arguments: str) -> tuple[list[dict], str]:
    Path("answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    code = run_cli(
        monkeypatch,
        "score",
        "--tasks",
        "tasks.jsonl",
        "--predictions",
        "answers.jsonl",
        "--jsonl",
        *arguments,
    )
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return [json.loads(line) for line in shown.out.splitlines()], shown.err


def calls_of(index: int) -> list[dict]:
    return [
        {"name": call.name, "arguments": dict(call.arguments)}
        for call in PROBES[index].expect.calls or ()
    ]


def test_texts_are_read_in_the_syntax_of_a_legacy_reward_with_a_note(
    folder,  # noqa: ARG001
    monkeypatch,
    capsys,
):
    texts = [
        'calculator(expression="48 * 17")',
        'Sure: weather(city="Oslo", unit="celsius")',
        "weather()",
        "no",
    ]
    answers = [{"id": task.id, "text": text} for task, text in zip(PROBES, texts, strict=False)]
    lines, notes = scored(monkeypatch, capsys, answers, "--reward", "tool_call_overall")
    assert "the texts are read as --dialect calls, the dialect of tool_call_overall" in notes
    assert [(line["id"], round(line["reward"], 6)) for line in lines] == [
        ("one", 1.0),
        ("two_arguments", 0.6),
        ("several", round(0.5 / 3, 6)),
        ("two_tools", 0.0),
    ]
    assert lines[0]["parts"] == {"tool_call_overall": 1.0}


def test_our_own_reward_prints_its_parts_for_calls_made_anywhere(folder, monkeypatch, capsys):  # noqa: ARG001
    answers = [{"id": task.id, "calls": calls_of(index)} for index, task in enumerate(PROBES[:4])]
    answers[3]["calls"] = answers[3]["calls"] * 2
    lines, _ = scored(monkeypatch, capsys, answers, "--reward", "tool_use")
    assert [line["reward"] for line in lines[:3]] == pytest.approx([1.0] * 3)
    assert lines[0]["parts"]["tool_use.exact"] == 0.3
    assert lines[3]["reward"] == pytest.approx(0.35 - 1.0)
    assert sum(lines[3]["parts"].values()) == pytest.approx(lines[3]["reward"])


def test_several_rewards_add_up_and_keep_their_parts_apart(folder, monkeypatch, capsys):  # noqa: ARG001
    answers = [{"id": task.id, "calls": calls_of(index)} for index, task in enumerate(PROBES[:4])]
    lines, _ = scored(
        monkeypatch, capsys, answers, "--reward", "exact_calls", "--reward", "mine.py:paid"
    )
    assert [line["reward"] for line in lines] == [2.0] * 4
    assert {name.partition(".")[0] for name in lines[0]["parts"]} == {"exact_calls", "paid"}


def test_texts_for_our_own_reward_need_their_dialect(folder, monkeypatch, capsys):  # noqa: ARG001
    Path("answers.jsonl").write_text(
        "".join(json.dumps({"id": task.id, "text": "x"}) + "\n" for task in PROBES[:4])
    )
    arguments = (
        "--tasks",
        "tasks.jsonl",
        "--predictions",
        "answers.jsonl",
        "--reward",
        "tool_use",
        "--jsonl",
    )
    assert run_cli(monkeypatch, "score", *arguments) == 2
    assert "name the call syntax it is written in (--dialect)" in capsys.readouterr().err
