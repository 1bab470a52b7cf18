"""Generated data: the sets are disjoint, the labels are right, and the same seed gives the same
bytes.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from toolhone.config.phrasings import PHRASING_SETS, Fillers, intents, word_lists
from toolhone.data.templates import CATEGORIES, SHARES, SPLITS, Templates
from toolhone.errors import CapabilityError, DataError
from toolhone.schema import Conversation, Json, Task
from toolhone.tools.builtin import BUILTIN
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus

MADE = Templates(seed=3)


@pytest.fixture(scope="module")
def rows() -> list[Conversation]:
    return MADE.conversations(600)


@pytest.fixture(scope="module")
def tasks() -> dict[str, list[Task]]:
    return {split: MADE.tasks(140, split) for split in SPLITS}


def _text(task: Task) -> str:
    return json.dumps([message.to_dict() for message in task.messages])


def _values(value: Json) -> list[str]:
    return (
        [text for part in value.values() for text in _values(part)]
        if isinstance(value, dict)
        else [str(value)]
    )


def test_there_are_hundreds_of_cores_in_three_disjoint_sets() -> None:
    sets = {
        name: {core for intent in intents() for core in intent.cores[name]}
        for name in PHRASING_SETS
    }
    assert len(sets["train"]) >= 120
    assert min(len(cores) for cores in sets.values()) >= 60


def skeletons(phrasing_set: str) -> Iterator[str]:
    """Every question of a set with its slots unfilled, without joined ones."""
    for intent in intents():
        for form, core in intent.cores[phrasing_set]:
            frame = word_lists("phrasings")["frames"][phrasing_set][form]
            for opening in frame["openings"]:
                yield from (opening + core + ending for ending in frame["endings"])


def test_no_composed_question_is_in_two_sets_of_phrasings() -> None:
    group = {name: set(skeletons(name)) for name in PHRASING_SETS}
    assert len(group["train"]) > 10_000
    assert not group["train"] & group["held_out"]
    assert not group["train"] & group["rl"]
    assert not group["held_out"] & group["rl"]


def test_every_intent_can_be_asked_in_training() -> None:
    assert [intent.name for intent in intents() if not intent.cores["train"]] == []


def test_no_real_filler_is_in_both_sets() -> None:
    pools = word_lists("fillers")
    assert pools["train"].keys() == pools["held_out"].keys()
    train, held_out = (
        {word.lower() for pool in pools[name].values() for word in pool}
        for name in ("train", "held_out")
    )
    assert len(train) > 1000
    assert len(held_out) > 200
    assert not train & held_out


def test_no_made_up_filler_or_number_is_in_both_sets() -> None:
    def drawn(filler_set: str) -> set[str]:
        fill = Fillers(filler_set, random.Random(0))
        return {
            value
            for _ in range(1500)
            for value in fill.draw({"w": "word", "c": "city", "n": "number"}).values()
        }

    train, held_out = drawn("train"), drawn("held_out")
    assert len(train) > 2000
    assert not train & held_out


def test_no_held_out_argument_was_seen_in_training(
    rows: list[Conversation], tasks: dict[str, list[Task]]
) -> None:
    names = ("city", "query")
    seen = {
        call.arguments[name]
        for row in rows
        for m in row.messages
        for call in m.tool_calls
        for name in names
        if name in call.arguments
    }
    asked = [
        call.arguments for task in tasks["held_out_fillers"] for call in task.expect.calls or ()
    ]
    held_out = {arguments[name] for arguments in asked for name in names if name in arguments}
    assert len(seen) > 100
    assert len(held_out) > 50
    assert not seen & held_out


def test_same_seed_same_bytes_and_another_seed_other_rows() -> None:
    def written(seed: int) -> str:
        group = Templates(seed)
        return json.dumps([x.to_dict() for x in (*group.conversations(60), *group.tasks(28, "rl"))])  # type: ignore[attr-defined]

    assert written(0) == written(0)
    assert written(0) != written(1)


def test_a_shorter_list_is_the_beginning_of_a_longer_one() -> None:
    assert MADE.conversations(40)[:15] == MADE.conversations(15)
    assert MADE.tasks(40, "rl")[:15] == MADE.tasks(15, "rl")


def test_tasks_take_the_categories_in_turn_and_conversations_by_their_shares(
    tasks: dict[str, list[Task]],
) -> None:
    for group in tasks.values():
        assert Counter(task.category for task in group) == dict.fromkeys(CATEGORIES, 20)
    assert SHARES.keys() == set(CATEGORIES)


def test_ids_are_unique(rows: list[Conversation], tasks: dict[str, list[Task]]) -> None:
    ids = [row.id for row in rows] + [task.id for group in tasks.values() for task in group]
    assert len(ids) == len(set(ids))


def test_every_call_fits_its_schema_and_runs(
    rows: list[Conversation], tasks: dict[str, list[Task]]
) -> None:
    registry = Registry(BUILTIN)
    calls = [call for row in rows[:200] for message in row.messages for call in message.tool_calls]
    expected = [
        call for group in tasks.values() for task in group[:70] for call in task.expect.calls or ()
    ]
    by_name = {tool.name: tool for tool in MADE.tools}
    for call in (*calls, *expected):
        assert by_name[call.name].problems(call.arguments) == []  # type: ignore[attr-defined]
        if call.name in ("weather", "search"):  # type: ignore[attr-defined]
            assert registry.run(call).outcome is ToolStatus.OK


def test_every_calculation_and_program_runs(tasks: dict[str, list[Task]]) -> None:
    registry = Registry(BUILTIN)
    wanted = [
        call
        for group in tasks.values()
        for task in group
        for call in task.expect.calls or ()
        if call.name in ("calculator", "python")
    ]
    assert len(wanted) > 100
    for call in wanted:
        result = registry.run(call)
        assert result.outcome is ToolStatus.OK, result
        assert result.content.strip()


def test_the_same_words_never_ask_for_different_calls() -> None:
    wanted: dict[str, set[str]] = defaultdict(set)
    for split in SPLITS:
        for task in Templates(0).tasks(700, split):
            wanted[_text(task)].add(json.dumps(task.expect.to_dict(), sort_keys=True))
    assert [text for text, calls in wanted.items() if len(calls) > 1] == []


def test_arguments_can_be_copied_from_the_conversation(tasks: dict[str, list[Task]]) -> None:
    for group in tasks.values():
        for task in group:
            text = _text(task)
            for call in task.expect.calls or ():
                if call.name in ("weather", "search"):
                    assert all(value in text for value in _values(call.arguments)), (text, call)


def test_an_answered_conversation_carries_the_result(rows: list[Conversation]) -> None:
    answered = [
        row
        for row in rows
        if row.messages[-1].content
        and len(row.messages) == 4
        and row.messages[2].name == "calculator"
    ]
    assert len(answered) > 20
    for row in answered:
        assert str(row.messages[2].content) in str(row.messages[3].content)


def test_multi_turn_tasks_hold_a_call_its_result_and_an_answer(
    tasks: dict[str, list[Task]],
) -> None:
    for task in tasks["held_out_phrasings"]:
        if task.category == "multi_turn":
            assert [m.role for m in task.messages] == [
                "user",
                "assistant",
                "tool",
                "assistant",
                "user",
            ]


def test_an_unknown_split_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match="did you mean 'held_out_fillers'"):
        Templates(0).tasks(1, "held_out_filler")


def test_a_builtin_tool_that_does_not_work_here_is_named_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crashed = ToolResult(ToolStatus.ERROR, "the worker `monty` was not found")
    monkeypatch.setattr(Registry, "run", lambda _self, _call: crashed)
    with pytest.raises(CapabilityError) as caught:
        Templates(0, tools=("python",)).tasks(1)
    assert str(caught.value).startswith("the built-in tool 'python' does not work here: the call ")
    assert "ended as error: the worker `monty` was not found" in str(caught.value)
    assert "`toolhone check` tests the sandbox" in str(caught.value)


def test_shares_choose_categories_and_answered_0_leaves_single_replies() -> None:
    shares = {"calculator": 1, "python": 1, "no_tool": 3}
    made = Templates(0, ("calculator", "python"), shares=shares, answered=0.0)
    tasks, rows = made.tasks(300), made.conversations(300)
    counts = Counter(task.category for task in tasks)
    assert counts.keys() == shares.keys()
    assert abs(counts["no_tool"] / 300 - 0.6) < 0.1
    assert all(len(task.messages) == 1 and task.expect.answer is None for task in tasks)
    assert {len(task.expect.wanted) for task in tasks} == {0, 1}
    assert all(len(row.messages) == 2 and len(row.messages[1].tool_calls) < 2 for row in rows)


def test_a_category_that_these_tools_do_not_have_is_refused() -> None:
    with pytest.raises(DataError, match=r"no category 'weather'.*for these tools: calculator, "):
        Templates(0, ("calculator",), shares={"weather": 1.0})


def test_tasks_of_one_phrasing_are_a_cluster() -> None:
    tasks = Templates(0).tasks(200, "rl_held_out")
    assert all(task.cluster for task in tasks)
    weather = [task for task in tasks if task.cluster == "the outlook for {city} using {unit}"]
    assert len(weather) == 9
    assert all("the outlook for" in str(task.messages[-1].content) for task in weather)
