"""Episodes in worlds: each has its own, its state is kept, and a broken one is not the model's."""

import json
from dataclasses import replace

from support.scripted import scripted_policy
from toolhone.config.rl import FailureSection, WorldSection
from toolhone.data.world_tasks import WorldTasks, in_world, solve
from toolhone.dialects.choose import open_syntax
from toolhone.episodes.driver import run_episodes
from toolhone.episodes.episode import EpisodeStatus
from toolhone.evaluation.evaluate import evaluate
from toolhone.evaluation.metrics import retries
from toolhone.rewards.reward_registry import RewardResult
from toolhone.schema import Task, ToolCall
from toolhone.tools.registry import Registry
from toolhone.tools.result import ToolResult, ToolStatus
from toolhone.training.rollout import RolloutGroup

NO_TOOLS = Registry([])
TAGGED = open_syntax("tagged")


def solver(tasks: list[Task]):
    """A script that does what the solver of the task did, turn by turn, failed calls included."""
    known = {task.messages[0].content: solve(task) for task in tasks}

    def script(prompt: str) -> str:
        request = next(text for text in known if text in prompt)
        done, results = known[request], prompt.count("[/TOOL_RESULT]")
        steps = done.steps
        if results < len(steps):
            return TAGGED.write(None, [steps[results]])
        return TAGGED.write(done.answer, ())

    return scripted_policy(script)


def distinct(tasks: list[Task]) -> list[Task]:
    return list({task.messages[0].content: task for task in tasks}.values())


def test_episodes_of_one_task_never_share_a_state():
    tasks = distinct(WorldTasks("shop").tasks(12))
    episodes = run_episodes(solver(tasks), [task for task in tasks for _ in range(4)], NO_TOOLS)
    for task, group in zip(tasks, zip(*[iter(episodes)] * 4, strict=True), strict=True):
        assert all(one.state == solve(task).state for one in group), task.id
        assert all(one.ending is EpisodeStatus.ANSWERED for one in group)


def test_calls_of_one_turn_run_in_their_order_where_a_world_has_a_state():
    task = WorldTasks("shop", levels=(1,)).tasks(1)[0]
    product = next(iter(task.world["state"]["products"]))
    calls = [ToolCall("add", {"id": product, "count": 1}), ToolCall("order"), ToolCall("order")]
    policy = scripted_policy(
        lambda prompt: "ok" if "RESULT" in prompt else TAGGED.write(None, calls)
    )
    (episode,) = run_episodes(policy, [task], NO_TOOLS)
    outcomes = [result.outcome for result in episode.results[0]]
    assert outcomes == [ToolStatus.OK, ToolStatus.OK, ToolStatus.ERROR]


def test_an_evaluation_scores_the_final_state_and_counts_the_retries():
    tasks = distinct(WorldTasks("shop", levels=(1, 2)).tasks(10))
    scores = evaluate(solver(tasks), tasks).metrics
    assert scores["solved"].value == scores["state_match"].value == 1.0
    assert "recovered" not in scores
    idle = evaluate(scripted_policy(lambda _: "Done."), tasks).metrics
    assert idle["solved"].value == 0.0
    failures = WorldSection(failures=FailureSection(rate=1.0, kinds=["error"]))
    failing = in_world(tasks, failures)
    assert evaluate(solver(failing), failing).metrics["recovered"].value == 1.0
    assert evaluate(solver(tasks), failing).metrics["recovered"].value < 1.0


def test_an_episode_whose_world_broke_is_left_out_but_not_one_of_injected_failures():
    task = WorldTasks("shop", levels=(1,)).tasks(1)[0]
    broken = in_world([task], WorldSection(failures=FailureSection(rate=1.0, kinds=["broken"])))
    late = in_world([task], WorldSection(failures=FailureSection(rate=1.0, kinds=["timeout"])))
    episodes = [
        *run_episodes(solver([task]), broken, NO_TOOLS),
        *run_episodes(solver(late), late, NO_TOOLS),
    ]
    assert episodes[0].ending is EpisodeStatus.FAILED
    assert "WorldError: the world broke" in episodes[0].reason
    assert retries(episodes[1]) == (2, 2)
    dead = replace(
        episodes[1], results=((ToolResult(ToolStatus.UNREACHABLE, "no connection"),),) * 3
    )
    group = RolloutGroup(task, (*episodes, dead), (RewardResult(0.0, {}),) * 3)
    assert group.without_failures().episodes == (episodes[1],)


def test_a_task_file_keeps_the_world_of_a_task(tmp_path):
    task = WorldTasks("shop", failures={"rate": 0.1}).tasks(1)[0]
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(task.to_dict()))
    assert Task.from_dict(json.loads(path.read_text())) == task
