"""Worlds: their tools, their state, injected failures, and the names that a task may give."""

import json
import re

import pytest

from toolhone.config.rl import FailureSection, WorldSection
from toolhone.data.world_tasks import GAVE_UP, WorldTasks, in_world, is_solved, solve
from toolhone.errors import ConfigError, DataError
from toolhone.rewards.values import wants_change
from toolhone.schema import Task, ToolCall
from toolhone.tools.calendar_world import CalendarWorld
from toolhone.tools.failing_world import MOST_IN_A_ROW, FailingWorld, FailureKind, Failures
from toolhone.tools.files_world import FilesWorld
from toolhone.tools.open_world import STATE_WORLDS, LiveWorld, open_world
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolStatus
from toolhone.tools.shop_world import ShopWorld
from toolhone.tools.worlds import WorldError

NO_TOOLS = Registry([])
SHOP = {
    "products": {"p17": {"name": "red mug", "price": 12}, "p40": {"name": "blue mug", "price": 9}},
    "cart": {},
    "orders": {"o20": {"items": {"p40": 1}, "status": "open"}},
}


def a_task(world: dict, **changes) -> Task:
    tools = [tool.to_dict() for tool in ShopWorld.tools()]
    messages = [{"role": "user", "content": "x"}]
    fields = {"id": "t1", "messages": messages, "tools": tools, "expect": {"state": {}}}
    return Task.from_dict({**fields, "world": world, **changes})


def test_a_later_call_of_the_shop_needs_what_an_earlier_one_found():
    shop = ShopWorld(SHOP)
    (found,) = shop.call(ToolCall("search", {"name": "Red mug"})).value
    assert shop.call(ToolCall("add", {"id": found["id"], "count": 2})).value == {"p17": 2}
    assert shop.call(ToolCall("order")).value == {"id": "o21", "status": "open"}
    assert shop.state()["orders"]["o21"] == {"items": {"p17": 2}, "status": "open"}
    shop.reset(0)
    assert shop.state() == SHOP


FILES = {"files": {"inbox/rent.txt": "falcon 48", "work/link.txt": "inbox/rent.txt"}}
EVENT = {"title": "belan review", "day": "Monday", "start": 9, "hours": 2, "guests": []}
CALENDAR = {"events": {"e12": EVENT, "e13": {**EVENT, "start": 13, "title": "tovur demo"}}}


def test_a_later_call_of_the_files_needs_what_an_earlier_one_found():
    files = FilesWorld(FILES)
    (found,) = files.call(ToolCall("find", {"word": "falcon"})).value
    moved = files.call(ToolCall("move", {"path": found, "folder": "archive"})).value
    text = files.call(ToolCall("read", moved)).value
    assert files.call(ToolCall("list_files", {"folder": "archive"})).value == [moved["path"]]
    files.call(ToolCall("write", {"path": "home/copy.txt", "text": text}))
    files.call(ToolCall("delete", {"path": "work/link.txt"}))
    assert files.state() == {
        "files": {"archive/rent.txt": "falcon 48", "home/copy.txt": "falcon 48"}
    }


def test_a_later_call_of_the_calendar_needs_what_an_earlier_one_found():
    calendar = CalendarWorld(CALENDAR)
    free = calendar.call(ToolCall("find_free", {"day": "Monday", "hours": 2})).value
    assert free == [11, 15]
    event = {"title": "new", "day": "Monday", "start": free[0], "hours": 2}
    made = calendar.call(ToolCall("create", event)).value
    for guest in ("Tovur", "Belan", "Tovur"):
        guests = calendar.call(ToolCall("invite", {**made, "guest": guest})).value
    assert guests == ["Belan", "Tovur"]
    calendar.call(ToolCall("cancel", {"id": "e12"}))
    calendar.call(ToolCall("move", {**made, "day": "Monday", "start": 10}))
    listed = calendar.call(ToolCall("list_events", {"day": "Monday"})).value
    assert [(one["id"], one["start"]) for one in listed] == [("e14", 10), ("e13", 13)]


REFUSED = {
    (ShopWorld, "there is no 'p99' in products"): ("add", {"id": "p99", "count": 1}),
    (ShopWorld, "there is no 'p17' in cart"): ("remove", {"id": "p17"}),
    (ShopWorld, "the cart is empty"): ("order", {}),
    (ShopWorld, "there is no 'o1' in orders"): ("cancel", {"id": "o1"}),
    (FilesWorld, "there is no folder 'inb'"): ("list_files", {"folder": "inb"}),
    (FilesWorld, "there is no 'inbox' in files"): ("read", {"path": "inbox"}),
    (FilesWorld, "there is no 'x.txt' in files"): ("delete", {"path": "x.txt"}),
    (FilesWorld, "there is a file 'inbox/rent.txt' already"): (
        "move",
        {"path": "inbox/rent.txt", "folder": "inbox"},
    ),
    (FilesWorld, "'inbox' is the folder of 'inbox/rent.txt'"): (
        "write",
        {"path": "inbox", "text": "x"},
    ),
    (FilesWorld, "'inbox/rent.txt' is a file and no folder"): (
        "write",
        {"path": "inbox/rent.txt/x", "text": "x"},
    ),
    (FilesWorld, "'a//b' is no path such as 'folder/name.txt'"): (
        "write",
        {"path": "a//b", "text": "x"},
    ),
    (CalendarWorld, "Monday from 10 to 11 is not free"): ("create", {**EVENT, "start": 10}),
    (CalendarWorld, "Monday from 12 to 14 is not free"): (
        "move",
        {"id": "e12", "day": "Monday", "start": 12},
    ),
    (CalendarWorld, "there is no 'e1' in events"): ("invite", {"id": "e1", "guest": "Belan"}),
}
STARTS = {ShopWorld: SHOP, FilesWorld: FILES, CalendarWorld: CALENDAR}


@pytest.mark.parametrize(("kind", "said"), REFUSED)
def test_a_call_that_a_world_refuses_changes_nothing_and_says_why(kind, said):
    world, (name, arguments) = kind(STARTS[kind]), REFUSED[kind, said]
    given = {key: arguments[key] for key in kind.tools()[kind.tool_names.index(name)].properties}
    result = world.call(ToolCall(name, given | ({"hours": 1} if "hours" in given else {})))
    assert (result.outcome, result.content) == (ToolStatus.ERROR, said)
    assert world.state() == STARTS[kind]


def test_arguments_that_break_the_schema_change_nothing():
    shop = ShopWorld(SHOP)
    bad = shop.call(ToolCall("add", {"id": "p17", "count": 0}))
    assert bad.outcome is ToolStatus.INVALID_ARGUMENTS
    assert shop.state() == SHOP


LEVELS = [
    (name, level + 1) for name, one in STATE_WORLDS.items() for level in range(len(one.levels))
]


@pytest.mark.parametrize("count", [20, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_the_solver_solves_every_generated_task_by_calls_alone(name, level, count):
    for split in ("train", "rl", "held_out"):
        for task in WorldTasks(name, seed=3, levels=(level,)).tasks(count, split):
            assert is_solved(task, solve(task))
            assert wants_change(task) is (task.expect.answer is None)
            assert not any(tool.function for tool in task.tools)
            assert Task.from_dict(task.to_dict()) == task


@pytest.mark.parametrize("name", STATE_WORLDS)
def test_tasks_of_a_world_are_the_same_for_the_same_seed_and_harder_by_level(name):
    made = WorldTasks(name, seed=1)
    assert made.tasks(30) == WorldTasks(name, seed=1).tasks(40)[:30]
    assert made.tasks(30) != WorldTasks(name, seed=2).tasks(30)
    steps = [
        sum(len(solve(task).steps) for task in WorldTasks(name, levels=(level,)).tasks(20))
        for level in range(1, len(STATE_WORLDS[name].levels) + 1)
    ]
    assert steps == sorted(steps)
    assert steps[-1] > 2 * steps[0]


@pytest.mark.parametrize("name", STATE_WORLDS)
def test_names_in_held_out_tasks_are_in_no_other_task(name):
    made, names = WorldTasks(name), re.compile(r"\b(?:[b-z][aeiou]){2}[lnrstx]\b", re.IGNORECASE)
    found = {
        split: {
            one.lower()
            for task in made.tasks(60, split)
            for one in names.findall(json.dumps([task.world["state"], task.messages[0].content]))
        }
        for split in ("train", "rl", "held_out")
    }
    assert min(map(len, found.values())) > 100
    assert found["held_out"] & (found["train"] | found["rl"]) <= {"names", "files"}


def test_a_solver_meets_the_injected_failures_and_makes_each_call_again():
    failing = WorldTasks("shop", failures={"rate": 0.3})
    rows = failing.conversations(50)
    assert [one.messages[0] for one in rows] == [
        one.messages[0] for one in WorldTasks("shop").conversations(50)
    ]
    calls = sum(len(message.tool_calls) for one in rows for message in one.messages)
    plain = [solve(task) for task in WorldTasks("shop").tasks(50)]
    assert 1.2 < calls / sum(len(done.steps) for done in plain) < 1.7


def test_recorded_conversations_make_a_share_of_failed_calls_again_and_give_up_else():
    def rows(retries: float) -> list:
        failing = {"rate": 0.5, "kinds": ["timeout"]}
        return WorldTasks("shop", failures=failing, retries=retries).conversations(60)

    assert rows(0.4) == rows(0.4)
    assert not [one for one in rows(1.0) if one.messages[-1].content == GAVE_UP]
    ends = [one.messages[-1].content == GAVE_UP for one in rows(0.0)]
    failed = ["did not answer" in str(one.messages) for one in rows(0.0)]
    assert ends == failed
    assert 0 < sum(one.messages[-1].content == GAVE_UP for one in rows(0.4)) < sum(ends)


def test_failures_depend_on_seed_task_call_and_attempt_alone_and_end():
    call, other = ToolCall("list_orders"), ToolCall("search", {"name": "mug"})

    def outcomes(key: str, seed: int = 0, first: tuple = ()) -> list[str]:
        world = FailingWorld(ShopWorld(SHOP), Failures(0.5), key)
        world.reset(seed)
        for one in first:
            world.call(one)
        return [world.call(call).injected for _ in range(6)]

    assert outcomes("a") == outcomes("a") == outcomes("a", first=(other, other))
    assert len({tuple(outcomes(str(key))) for key in range(30)}) > 3
    assert len({tuple(outcomes("a", seed)) for seed in range(30)}) > 3
    always = FailingWorld(ShopWorld(SHOP), Failures(1.0))
    kinds = [always.call(call).injected for _ in range(MOST_IN_A_ROW + 1)]
    assert all(kinds[:-1])
    assert kinds[-1] == ""


@pytest.mark.parametrize("kind", FailureKind)
def test_each_kind_of_failure_has_no_effect_but_slowness(kind):
    shop = ShopWorld(SHOP)
    world = FailingWorld(shop, Failures(1.0, (kind.value,), slow_seconds=0.0))
    call = ToolCall("add", {"id": "p17", "count": 1})
    if kind is FailureKind.BROKEN:
        with pytest.raises(WorldError, match="the world broke at a call of 'add'"):
            world.call(call)
        return
    result = world.call(call)
    assert (shop.state() == SHOP) is (kind is not FailureKind.SLOW)
    assert result.injected == ("" if kind is FailureKind.SLOW else kind.value)


def test_a_task_without_a_world_has_the_live_tools():
    def double(number: int) -> int:
        """Double a number."""
        return 2 * number

    world = open_world(a_task(None), Registry([double]))
    assert isinstance(world, LiveWorld)
    assert world.call(ToolCall("double", {"number": 4})).value == 8
    assert world.state() is None


def test_a_world_that_does_not_exist_or_lacks_a_tool_is_refused_by_name():
    cases = {
        "is 'shopp', and there is none of that name .did you mean 'shop'": {"name": "shopp"},
        "has an unknown key 'stat' .did you mean 'state'": {"name": "shop", "stat": {}},
    }
    for said, world in cases.items():
        with pytest.raises(DataError, match=said):
            open_world(a_task(world), NO_TOOLS)
    with pytest.raises(DataError, match="offers 'fly', which the world 'shop' does not have"):
        open_world(a_task({"name": "shop"}, tools=[{"name": "fly"}]), NO_TOOLS)
    bad = {"name": "shop", "failures": {"rate": 2}}
    with pytest.raises(ConfigError, match="'rate' must be from 0 to 1, got 2"):
        open_world(a_task(bad), NO_TOOLS)


def test_an_experiments_world_is_for_tasks_without_one_and_its_failures_for_all():
    own, none = a_task({"name": "shop", "state": SHOP}), a_task(None)
    assert in_world([own, none], WorldSection()) == [own, none]
    section = WorldSection(failures=FailureSection(rate=0.2, kinds=["error"]))
    first, second = in_world([own, none], section)
    assert first.world["name"] == "shop"
    assert second.world["name"] == "live"
    assert first.world["failures"] == second.world["failures"] == section.failures.model_dump()


@pytest.mark.parametrize("wrong", [{"seed": "x"}, {"state": 5}, {"state": ["x"]}])
def test_a_world_whose_seed_or_state_is_none_is_one_sentence(wrong):
    task = Task("t", world={"name": "shop", **wrong})
    with pytest.raises(DataError, match=rf"'{next(iter(wrong))}' must be"):
        open_world(task, Registry([]))
