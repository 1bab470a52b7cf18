"""What replies are given to begin with: which ids, that they are read and never trained, and how
second tries are compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.dialect_models import llama_tokenizer, small_tokenizer
from support.one_token import logged, timeless, toy, weights, without_end
from support.scripted import STOP, ScriptedSampler, byte_tokenizer, scripted_policy, task
from support.spelling import CHAT, END, LENGTH, TASKS, WORDS, Spelling, lesson, right, taught, world
from support.template_zoo import zoo_dialect, zoo_parameters
from toolhone.api import experiment, find_method, train
from toolhone.backends.base import SamplingParams, StopReason
from toolhone.backends.toy import ToyTrainer
from toolhone.config.experiment import load_experiment
from toolhone.config.rl import CurriculumSection, PpoSection, RlSection
from toolhone.dialects.choose import open_dialect
from toolhone.dialects.interface import Dialect, History, ParseProblem
from toolhone.episodes.driver import run_episodes
from toolhone.episodes.episode import Episode, EpisodeRules, TurnOutcome
from toolhone.episodes.policy import Prompt, TokenPolicy, TurnStream
from toolhone.errors import CapabilityError, ConfigError, DialectError
from toolhone.models.pico import pico_folder
from toolhone.rewards.reward_registry import RewardResult
from toolhone.rows import Origin, Row
from toolhone.runs.run import FINAL, Run
from toolhone.schema import Conversation, Message, Task, Tool, ToolCall
from toolhone.tokenizer import TextTokenizer
from toolhone.tools.registry import Registry
from toolhone.training.advantages import group_relative_advantages, leave_one_out_corrections
from toolhone.training.critic import FEATURES, Regression, features, turn_states
from toolhone.training.grpo import grpo
from toolhone.training.kept import pieces_of
from toolhone.training.ppo import ppo
from toolhone.training.prefill import (
    Failure,
    call_prefix,
    check_curriculum,
    curriculum_ratio,
    failure_of,
    gold_prefix,
    gold_reply,
    retry_prefix,
    thinking_prefix,
)
from toolhone.training.rl_metrics import prefill_metrics, rollout_metrics
from toolhone.training.rollout import RolloutGroup, rollout, rows_of, score
from toolhone.training.trajectory import Trajectory, rows_by_task, turn_advantages
from toolhone.training.trajectory import group_advantages_of_turns as within_groups

ADD = Tool(
    "add",
    "Adds.",
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    lambda a, b: a + b,
)
ASKED = task("sum", "2+3?", [ADD], {"calls": [{"name": "add", "arguments": {"a": 2, "b": 3}}]})
TWO = task(
    "two", "?", [ADD], {"calls": [{"name": "add", "arguments": {"a": 1, "b": i}} for i in (2, 3)]}
)
ANY_SUM = task("sum", "2+3?", [ADD], {"calls": [{"name": "add", "any_arguments": True}]})
EITHER = task(
    "sum",
    "2+3?",
    [ADD],
    {
        "calls": [{"name": "add", "arguments": {"a": 2, "b": 3}}],
        "alternatives": [{"no_call": True}],
    },
)
WORDS_ONLY = task("chat", "Hello?", [ADD], {"no_call": True})
ANSWER_ONLY = task("sum", "2+3?", [ADD], {"answer": "5"})
GOLD = '[TOOL_CALL]{"name": "add", "parameters": {"a": 2, "b": 3}}[/TOOL_CALL]'
REGISTRY = Registry([ADD])
WELL = "<think>\nwell"


def tokens_of(text: str) -> tuple[int, ...]:
    return tuple(byte_tokenizer().encode(text))


def policy_for(dialect: Dialect, tokenizer: TextTokenizer, sampler: Any = None) -> TokenPolicy:
    return TokenPolicy(sampler, dialect, tokenizer, SamplingParams(max_tokens=400))


def play_given(
    script: Callable[[str], str], given: tuple[int, ...], asked: Task = ASKED, **options: Any
) -> Episode:
    policy = scripted_policy(script, **options)
    return run_episodes(
        policy, [asked], REGISTRY, EpisodeRules(first_call_only=True, prefill=given)
    )[0]


# ------------------------------------------------------------------------------------------------
# the mechanism


def test_a_turn_is_what_was_given_and_what_was_sampled_together() -> None:
    given = tokens_of('[TOOL_CALL]{"name": "add", "par')
    rest = 'ameters": {"a": 2, "b": 3}}[/TOOL_CALL]'
    episode = play_given(lambda _: rest, given)
    first = episode.turns[0]
    assert first.text == GOLD
    assert (first.message.tool_calls, first.prefill) == (
        (ToolCall("add", {"a": 2, "b": 3}),),
        given,
    )
    assert byte_tokenizer().decode(first.tokens) == rest + STOP
    assert len(first.logprobs) == len(first.tokens)
    assert episode.outcomes == (TurnOutcome.VALID_CALLS,)


def test_what_is_sampled_follows_the_prompt_and_what_was_given() -> None:
    policy, episode = two_turns()
    assert isinstance(policy.sampler, ScriptedSampler)
    asked = [prompt for _, prompt in policy.sampler.asked]
    assert asked == [[*turn.prompt, *turn.prefill] for turn in episode.turns]
    (row,) = rows_of(episode)
    assert [row.tokens[: len(prompt)].tolist() for prompt in asked] == asked


def check_trained(row: Row, episode: Episode) -> None:
    """Exactly the sampled tokens of the episode are trained, and each token says where it comes
    from.
    """
    turns = episode.turns
    assert row.tokens[row.mask].tolist() == [token for turn in turns for token in turn.tokens]
    assert row.origin is not None
    assert np.array_equal(row.mask, row.origin == Origin.SAMPLED)
    assert row.tokens[row.origin == Origin.GIVEN].tolist() == [
        token for turn in turns for token in turn.prefill
    ]


def two_turns() -> tuple[TokenPolicy, Episode]:
    """An episode in which each of two turns begins with what its policy gives."""
    script = lambda prompt: "ok " + ("It is 5." if "TOOL_RESULT" in prompt else GOLD)  # noqa: E731
    plain = scripted_policy(script)
    policy = TokenPolicy(
        plain.sampler, plain.dialect, plain.tokenizer, plain.params, opening=tokens_of("Well, ")
    )
    return policy, run_episodes(policy, [ANSWER_ONLY], REGISTRY)[0]


def test_given_tokens_are_never_trained_and_a_row_in_which_one_is_does_not_pass() -> None:
    _, episode = two_turns()
    (row,) = rows_of(episode)
    check_trained(row, episode)
    place = int(np.flatnonzero(row.origin == Origin.GIVEN)[0])
    mask = row.mask.copy()
    mask[place] = True
    with pytest.raises(AssertionError):
        check_trained(replace(row, mask=mask), episode)


def test_a_policy_s_opening_begins_every_reply_and_is_kept_as_the_ids_it_was() -> None:
    policy, episode = two_turns()
    first, second = episode.turns
    assert (first.prefill, second.prefill) == (policy.opening, policy.opening)
    assert (first.text, second.text) == ("Well, ok " + GOLD, "Well, ok It is 5.")
    assert second.prompt[: len(first.prompt) + len(first.prefill) + len(first.tokens)] == (
        *first.prompt,
        *first.prefill,
        *first.tokens,
    )
    assert [piece["origin"] for piece in pieces_of(rows_of(episode), policy.tokenizer.decode)] == [
        *("prompt", "given", "sampled", "tool", "given", "sampled")
    ]


def test_what_a_turn_was_given_stays_in_the_history_that_a_template_rewrites() -> None:
    dialect = open_dialect(byte_tokenizer(), "tagged", "chatml")
    dialect.history = History.TEMPLATE
    sampler = ScriptedSampler(
        lambda prompt: "It is 5." if "TOOL_RESULT" in prompt else GOLD[9:], True
    )
    policy = TokenPolicy(
        sampler,
        dialect,
        byte_tokenizer(),
        SamplingParams(max_tokens=400),
        opening=tokens_of("Well, "),
    )
    given = tokens_of(GOLD[:9])
    first, second = run_episodes(policy, [ANSWER_ONLY], REGISTRY, EpisodeRules(prefill=given))[
        0
    ].turns
    assert second.prompt[len(first.prompt) :][: len(given) + len(first.tokens)] == (
        *given,
        *first.tokens,
    )
    assert second.prefill == policy.opening


def test_what_is_given_needs_room_in_the_context() -> None:
    policy = scripted_policy(lambda _: GOLD, max_context=200)
    prompt = policy.open(ASKED.messages, ())
    room = 200 - len(prompt.tokens)
    assert policy.fits(replace(prompt, prefill=(5,) * (room - 1)))
    assert not policy.fits(replace(prompt, prefill=(5,) * room))


# ------------------------------------------------------------------------------------------------
# the curriculum


def test_the_share_falls_in_a_line_from_start_to_end_and_then_stays() -> None:
    plan = CurriculumSection(enabled=True, start_ratio=0.85, end_ratio=0.25, steps=500)
    assert [curriculum_ratio(plan, step) for step in (0, 125, 250, 500, 501, 9999)] == [
        0.85,
        0.7,
        0.55,
        0.25,
        0.25,
        0.25,
    ]
    assert curriculum_ratio(CurriculumSection(), 0) == 0


@pytest.mark.parametrize("asked", [ASKED, TWO], ids=["one", "two"])
def test_the_share_is_one_of_the_ids_that_the_wanted_reply_has_in_training(asked: Task) -> None:
    policy = scripted_policy(lambda _: "")
    wanted = gold_reply(asked)
    assert wanted is not None
    assert len(wanted.tool_calls) == len(asked.expect.calls or ())
    (spans,) = policy.dialect.render(Conversation((*asked.messages, wanted), asked.tools))
    row = policy.tokenizer.encode_spans(spans)
    ids = row.tokens[row.mask].tolist()
    assert policy.open(asked.messages, asked.tools).tokens == tuple(
        row.tokens[: len(row) - len(ids) - 1].tolist()
    )
    for ratio in np.linspace(0, 1, 21):
        assert list(gold_prefix(policy, asked, ratio)) == ids[: round(ratio * (len(ids) - 1))]


def test_at_ratio_one_only_the_end_mark_is_sampled_and_at_zero_everything() -> None:
    policy = scripted_policy(lambda _: "")
    given = gold_prefix(policy, ASKED, 1.0)
    assert policy.tokenizer.decode(given) == GOLD
    assert gold_prefix(policy, ASKED, 0.0) == ()
    episode = play_given(lambda _: "", given)
    assert [turn.tokens for turn in episode.turns] == [list(policy.params.stop_ids)]
    assert episode.calls == (ToolCall("add", {"a": 2, "b": 3}),)


@pytest.mark.parametrize(
    "asked", [WORDS_ONLY, ANSWER_ONLY, ANY_SUM], ids=["no_call", "answer", "any_arguments"]
)
def test_tasks_that_do_not_name_the_wanted_calls_are_given_nothing(asked: Task) -> None:
    assert gold_prefix(scripted_policy(lambda _: ""), asked, 1.0) == ()


@pytest.mark.parametrize("name", zoo_parameters())
def test_in_every_template_a_prefill_and_its_rest_are_the_wanted_calls(name: str) -> None:
    tokenizer, dialect = zoo_dialect(name)
    if isinstance(dialect, str):
        pytest.skip("its calls cannot be read back")
    policy = policy_for(dialect, tokenizer)
    wanted, prompt = gold_reply(ASKED), policy.open(ASKED.messages, ASKED.tools)
    assert wanted is not None
    ids = policy.encode_reply(prompt, wanted)
    for ratio in (0.3, 0.8, 1.0):
        given = gold_prefix(policy, ASKED, ratio)
        assert ids[: len(given)] == given
        said = tokenizer.decode([*given, *ids[len(given) :]], policy.params.stop_ids)
        assert dialect.parse(said, ASKED.tools).calls == wanted.tool_calls
    opening = call_prefix(policy, ASKED)
    assert ids[: len(opening)] == opening
    assert "add" not in tokenizer.decode(opening)


CURRICULUM = {"enabled": True, "start_ratio": 1.0, "end_ratio": 0.0, "steps": 8}


def groups_at(
    step: int, rl: dict[str, Any] | None = None, size: int = 4
) -> tuple[list[RolloutGroup], RlSection, Spelling]:
    plan = lesson({"curriculum": CURRICULUM, "group_size": size, **(rl or {})})
    trainer, section = toy(), plan.training.rl
    policy = Spelling(trainer.snapshot(), 5)
    env = replace(world(trainer, plan, [*TASKS, CHAT]), policy=lambda _sampler, _seed: policy)
    groups = score(rollout(env, trainer.snapshot(), env.tasks, plan, step), env)
    return groups, section, policy


@pytest.mark.parametrize(("step", "count"), [(0, 4), (2, 3), (4, 2), (6, 1), (8, 0), (30, 0)])
def test_all_episodes_of_a_group_are_given_the_same_part_of_the_wanted_reply(
    step: int, count: int
) -> None:
    groups, section, _ = groups_at(step)
    for group in groups:
        kind = int(group.task.messages[0].content or 0)
        given = WORDS[kind][:count] if kind in WORDS else ()
        assert [episode.turns[0].prefill for episode in group.episodes] == [given] * 4
    assert prefill_metrics(groups, section, step) == {
        "curriculum_ratio": max(0.0, 1 - step / 8),
        "given_tokens": pytest.approx(count * 2 / 3),
        "given_nothing": pytest.approx(1 / 3 if count else 1.0),
    }


def test_with_a_curriculum_a_policy_learns_answers_it_would_never_find_alone(
    tmp_path: Path,
) -> None:
    falling = {"enabled": True, "start_ratio": 1.0, "end_ratio": 0.0, "steps": 72}
    plans = [
        lesson({"group_size": 48, **rl}, steps=90, learning_rate=0.05)
        for rl in ({"curriculum": falling}, {})
    ]
    helped, alone = (
        taught(grpo, tmp_path / name, plan)[1] for name, plan in zip("ab", plans, strict=True)
    )
    assert logged(helped, "curriculum_ratio")[::18] == [1, 0.75, 0.5, 0.25, 0]
    assert np.mean(logged(helped, "reward")[-3:]) > 0.25
    assert (sum(logged(alone, "reward")), sum(logged(alone, "updates"))) == (0, 0)


@pytest.mark.parametrize("method", [grpo, ppo])
@pytest.mark.parametrize("two_phase", [0, 2])
def test_a_run_resumed_in_the_midst_of_a_curriculum_goes_on_bit_for_bit(
    tmp_path: Path, method: Callable[..., Any], two_phase: int
) -> None:
    rl = {"curriculum": {**CURRICULUM, "steps": 10}, "two_phase_samples_per_group": two_phase}
    plan = lesson(rl, method=method.__name__, steps=12, save_every=5)
    straight, whole = taught(method, tmp_path / "a", plan)
    run = without_end(taught(method, tmp_path / "b", plan)[1], "checkpoint_step_12", FINAL)
    again = toy(seed=9)
    method(again, world(again, plan), run, run.latest())
    assert np.array_equal(weights(straight), weights(again))
    assert timeless(whole) == timeless(run)


def test_a_curriculum_is_refused_without_wanted_or_writable_calls() -> None:
    policy = scripted_policy(lambda _: "")
    assert check_curriculum(policy, [ASKED, WORDS_ONLY]).startswith(
        "curriculum: 1 of 2 tasks have gold calls to prefill"
    )
    with pytest.raises(ConfigError, match=r"none of the 2 tasks has any; remove it, or use tasks"):
        check_curriculum(policy, [WORDS_ONLY, ANSWER_ONLY])
    odd = task("odd", "?", [], {"calls": [{"name": "no name", "arguments": {}}]})
    with pytest.raises(
        CapabilityError, match=r"this format cannot write the gold calls \(the syntax calls cannot"
    ):
        check_curriculum(scripted_policy(lambda _: "", "calls"), [odd])
    assert gold_prefix(scripted_policy(lambda _: "", "calls"), odd, 1.0) == ()


def test_what_cannot_be_given_is_refused_before_a_run_begins(tmp_path: Path) -> None:
    lines = [
        json.dumps(
            {
                **ANSWER_ONLY.to_dict(),
                "id": f"t{i}",
                "messages": [{"role": "user", "content": f"{i}?"}],
            }
        )
        for i in range(9)
    ]
    (tmp_path / "tasks.jsonl").write_text("\n".join(lines))
    training = {"method": "grpo", "steps": 1, "lora": None, "rl": {"curriculum": {"enabled": True}}}
    path = str(tmp_path / "tasks.jsonl")
    plan = experiment({"training": training, "data": {"path": path}, "evaluation": {"tasks": path}})
    with pytest.raises(ConfigError, match="none of the 9 tasks has any"):
        train(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def watched(monkeypatch: pytest.MonkeyPatch) -> dict[float, list[tuple[int, ...]]]:
    """What each prompt was given from now on, by the temperature it was answered at: 0 where a
    model is evaluated.
    """
    given: dict[float, list[tuple[int, ...]]] = {}
    submit = TurnStream.submit

    def noting(stream: TurnStream, key: int, prompt: Prompt) -> None:
        given.setdefault(stream.policy.params.temperature, []).append(prompt.prefill)
        submit(stream, key, prompt)

    monkeypatch.setattr(TurnStream, "submit", noting)
    return given


SHORT = {
    "steps": 2,
    "batch_size": 2,
    "lora": None,
    "validate_every": 1,
    "validation_samples": 3,
    "log_every": 1,
}
SMALL = {
    "data": {"samples": 24},
    "evaluation": {"num_samples": 3, "max_new_tokens": 8, "temperature": 0.0},
}


def test_training_gives_beginnings_and_evaluation_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = watched(monkeypatch)
    rl = {
        "group_size": 2,
        "max_completion_length": 8,
        "temperature": 0.7,
        "curriculum": {"enabled": True},
    }
    run, _ = train(
        experiment({"training": {"method": "ppo", "rl": rl, **SHORT}, **SMALL}), tmp_path / "run"
    )
    assert set(given) == {0.7, 0.0}
    assert max(map(len, given[0.7])) > 20
    assert set(given[0.0]) == {()}
    assert logged(run, "curriculum_ratio") == [1.0, 1 - 1 / 500]
    assert logged(run, "sampler_gap") == pytest.approx([0], abs=1e-4)


# ------------------------------------------------------------------------------------------------
# thoughts


@pytest.mark.parametrize("name", zoo_parameters())
def test_a_template_s_opening_of_a_thought_is_read_as_one_or_refused_in_one_sentence(
    name: str,
) -> None:
    tokenizer, dialect = zoo_dialect(name)
    if isinstance(dialect, str):
        pytest.skip("its calls cannot be read back")
    policy, sentence = policy_for(dialect, tokenizer), ""
    try:
        opening = tokenizer.decode(thinking_prefix(policy))
    except CapabilityError as error:
        sentence = str(error)
    if sentence:
        assert "this format has no thought before calls and answers" in sentence
        assert "\n" not in sentence
        return
    reply = dialect.parse(opening + "so it is")
    assert (reply.problem, reply.reasoning) == (ParseProblem.UNCLOSED, "so it is")
    for message in (gold_reply(ASKED), Message("assistant", "Five.")):
        assert message is not None
        prompt = policy.open(ASKED.messages, ASKED.tools)
        assert tokenizer.decode(
            policy.encode_reply(prompt, replace(message, reasoning="Why?"))
        ).startswith(opening + "Why?")


@pytest.mark.parametrize("name", ["auto", "json", "calls", "tagged"])
def test_our_own_forms_open_a_thought_as_they_write_it(name: str) -> None:
    tokenizer = TextTokenizer.load(str(pico_folder(0)))
    policy = policy_for(open_dialect(tokenizer, name), tokenizer)
    assert tokenizer.decode(thinking_prefix(policy)) == "<think>\n"


THINKING = """\
{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}
{%- set said = message.content or '' %}
{%- if message.role == 'assistant' %}{%- set said = @TURN@ %}{%- endif %}
{{- said + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n@HEADER@' }}{%- endif %}"""


def thinking(header: str, turn: str) -> TokenPolicy:
    """Our own calls in a template that treats thoughts in this way."""
    tokenizer = small_tokenizer(
        THINKING.replace("@HEADER@", header).replace("@TURN@", turn),
        ("<|im_start|>", "<|im_end|>"),
        (),
        "<|im_end|>",
    )
    return policy_for(open_dialect(tokenizer, "tagged", "template"), tokenizer)


def test_thinking_needs_no_prefill_where_the_header_opens_it_and_fails_where_closed() -> None:
    always = (
        "'<think>\\n' + (said.replace('<think>\\n', '') "
        "if '</think>' in said else '\\n</think>\\n\\n' + said)"
    )
    assert thinking_prefix(thinking("<think>\\n", always)) == ()
    with pytest.raises(
        CapabilityError,
        match=r"has no thought before calls and answers .*; use a model whose template writes",
    ):
        thinking_prefix(thinking("<think>\\n\\n</think>\\n\\n", "said"))


def test_every_reply_of_an_enforced_thought_is_given_its_opening_in_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = watched(monkeypatch)
    rl = {"group_size": 2, "max_completion_length": 8, "enforce_thinking": True}
    run, _ = train(
        experiment({"training": {"method": "ppo", "rl": rl, **SHORT}, **SMALL}), tmp_path / "run"
    )
    opening = tuple(TextTokenizer.load(str(pico_folder(0))).encode("<think>\n"))
    assert (set(given[1.0]), set(given[0.0])) == ({opening}, {()})
    samples = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()]
    pieces = [piece for sample in samples for piece in sample.get("pieces", ())]
    assert ("given", "<think>\n") in [(piece["origin"], piece["text"]) for piece in pieces]


# ------------------------------------------------------------------------------------------------
# second tries


def first_try(said: str, asked: Task = ASKED, **options: Any) -> tuple[TokenPolicy, Episode]:
    policy = scripted_policy(lambda _: said, **options)
    return policy, run_episodes(policy, [asked], REGISTRY, EpisodeRules(first_call_only=True))[0]


@pytest.mark.parametrize(
    ("said", "asked", "limit", "failure", "text"),
    [
        (GOLD, ASKED, 400, None, None),
        ("Hello.", WORDS_ONLY, 400, None, None),
        ("It is 5.", ANSWER_ONLY, 400, None, None),
        ("It is 5.", EITHER, 400, None, None),
        ("It is 5.", ANY_SUM, 400, Failure.OTHERWISE, '[TOOL_CALL]{"name": "'),
        (GOLD[:30], ASKED, 400, Failure.UNFINISHED, GOLD[:30]),
        (GOLD[:-12], ASKED, 400, Failure.UNFINISHED, GOLD[:-12]),
        (WELL, ASKED, 400, Failure.UNFINISHED, f'{WELL}\n</think>\n\n[TOOL_CALL]{{"name": "'),
        (WELL, ANSWER_ONLY, 400, Failure.UNFINISHED, f"{WELL}\n</think>\n\n"),
        ("I would add them.", ASKED, 400, Failure.OTHERWISE, '[TOOL_CALL]{"name": "'),
        ("[TOOL_CALL]{oh[/TOOL_CALL]", ASKED, 400, Failure.OTHERWISE, '[TOOL_CALL]{"name": "'),
        ("[TOOL_CALL]{oh[/TOOL_CALL]", ANSWER_ONLY, 400, Failure.OTHERWISE, None),
    ],
)
def test_a_failed_first_turn_continues_or_starts_with_the_opening_of_a_call(
    said: str, asked: Task, limit: int, failure: Failure | None, text: str | None
) -> None:
    policy, episode = first_try(said, asked, max_tokens=limit)
    assert failure_of(asked, episode) is failure
    given = retry_prefix(policy, asked, episode, thinking=False)
    assert (None if given is None else policy.tokenizer.decode(given)) == text


def test_a_reply_that_was_cut_off_goes_on_with_its_own_ids_however_they_were_spelled() -> None:
    sampler = ScriptedSampler(lambda _: GOLD, spelled=True)
    policy, episode = first_try(GOLD, sampler=sampler, max_tokens=24)
    turn = episode.turns[0]
    assert turn.stop_reason is StopReason.LENGTH
    assert retry_prefix(policy, ASKED, episode, thinking=False) == tuple(turn.tokens)
    assert tuple(turn.tokens) != tokens_of(turn.text)


def test_there_is_no_retry_without_room_or_rest_or_where_a_thought_comes_first() -> None:
    policy, episode = first_try("I would add them.")
    assert retry_prefix(policy, ASKED, episode, thinking=True) is None
    assert (
        retry_prefix(scripted_policy(lambda _: "", "calls"), ASKED, episode, thinking=False) is None
    )
    opening = call_prefix(policy, ASKED)
    assert (
        retry_prefix(policy, ASKED, play_given(lambda _: "", opening[:3]), thinking=False)
        == opening
    )
    assert retry_prefix(policy, ASKED, play_given(lambda _: "", opening), thinking=False) == opening
    assert (
        retry_prefix(policy, ASKED, play_given(lambda _: "oh[/TOOL_CALL]", opening), thinking=False)
        is None
    )
    policy.max_context = len(episode.turns[0].prompt) + len(opening)
    assert retry_prefix(policy, ASKED, episode, thinking=False) is None


def test_a_form_without_a_mark_for_calls_has_no_opening() -> None:
    assert call_prefix(scripted_policy(lambda _: "", "calls"), ASKED) == ()
    plain = policy_for(open_dialect(byte_tokenizer(), "calls", "plain"), byte_tokenizer())
    assert call_prefix(plain, ASKED) == (), (
        "a space in front of every reply tells no call from an answer"
    )
    assert (
        byte_tokenizer().decode(call_prefix(scripted_policy(lambda _: "", "json"), ASKED))
        == '{"tool": "'
    )
    assert call_prefix(scripted_policy(lambda _: ""), WORDS_ONLY) == ()


def second(most: int, size: int = 16) -> tuple[list[RolloutGroup], RlSection, Spelling]:
    """Groups of a world in which a third of all replies is cut off, with at most so many second
    tries.
    """
    return groups_at(0, {"curriculum": {}, "two_phase_samples_per_group": most}, size)


def test_retries_of_a_group_are_limited_and_come_after_the_first_tries() -> None:
    alone = groups_at(0, {"curriculum": {}}, 16)[0]
    groups, section, policy = second(3)
    for plain, group in zip(alone, groups, strict=True):
        assert [episode.turns for episode in group.without_retries().episodes] == [
            episode.turns for episode in plain.episodes
        ]
        assert (group.first_tries, group.retries, len(group.results)) == (16, 3, 19)
        failed = [
            episode for episode in plain.episodes if episode.outcomes[0] is TurnOutcome.TRUNCATED
        ]
        for one, again in zip(failed, group.episodes[16:], strict=False):
            assert list(again.turns[0].prefill) == one.turns[0].tokens
            (row,) = rows_of(again)
            check_trained(row, again)
    keys = [key for key, _ in policy.asked]
    assert len(keys) == len(set(keys)) == 3 * 19
    metrics = prefill_metrics(groups, section, 0)
    assert (metrics["continued"], metrics["failed_first"]) == (
        9,
        pytest.approx(
            np.mean(
                [
                    episode.outcomes[0] is not TurnOutcome.VALID_CALLS
                    for group in alone
                    for episode in group.episodes
                ]
            )
        ),
    )
    same, plain = rollout_metrics(groups), rollout_metrics(alone)
    assert same.pop("sampled_tokens") > plain.pop("sampled_tokens")  # type: ignore[attr-defined]
    assert same == plain


def test_a_group_whose_replies_did_not_fail_has_no_second_try_and_no_reward_of_one() -> None:
    groups, section, _ = groups_at(0, {"two_phase_samples_per_group": 3, "group_size": 2})
    groups = [
        replace(group, episodes=group.episodes[:2], results=group.results[:2], retries=0)
        for group in groups
    ]
    assert prefill_metrics(groups, section, 0)["continued"] == 0
    assert "continued_reward" not in prefill_metrics(groups, section, 0)


def test_retries_use_the_mean_of_first_tries_and_flip_no_first_try() -> None:
    assert group_relative_advantages([1, 0, 0, 0, 1], "none", 4) == [
        0.75,
        -0.25,
        -0.25,
        -0.25,
        0.75,
    ]
    spread = np.std([0, 0, 1], ddof=1) + 1e-4
    assert group_relative_advantages([1, 0], "deviation", 0) == [0, 0], "all first tries were lost"
    assert group_relative_advantages([0, 0, 1], "deviation", 2) == pytest.approx([0, 0, 1 / spread])
    lines = [
        Trajectory("a", [], [1], [reward], [0.0], [], again)
        for reward, again in ((1.0, False), (0.0, False), (1.0, True))
    ]
    assert within_groups(lines) == [[0.5], [-0.5], [0.5]]
    surprises = [line.rewards[0] - 0.2 for line in lines]
    assert leave_one_out_corrections(["a"] * 3, surprises, [False, False, True]) == pytest.approx(
        [-0.2 / 2, 0.8 / 2, (0.8 - 0.2) / 3]
    )


def test_a_critic_guesses_from_what_was_given_on_and_learns_from_first_tries_alone() -> None:
    groups, _, _ = second(1)
    lines = []
    for place, episode in enumerate(groups[0].episodes):
        moments = turn_states(TASKS[0], episode)
        assert moments[0].prompt == (12, *episode.turns[0].prefill)
        lines.append(
            Trajectory(
                "t12",
                rows_of(episode),
                [len(episode.turns[0].tokens)],
                [float(place)],
                [0.0],
                moments,
                place == 16,
            )
        )
    learned: list[float] = []

    class Noting(Regression):
        def fit(self, moments: Any, returns: Any, old_values: Any) -> Any:
            learned.extend(returns)
            return super().fit(moments, returns, old_values)

    critic = Noting("regression", features, FEATURES, None)
    advantages, _ = turn_advantages(lines, critic, PpoSection(lam=1.0))
    rows = rows_by_task(lines, advantages)
    assert len(learned) == 16
    firsts = [float(row.arrays["advantages"][row.mask][0]) for row in rows[0][:16]]
    assert np.mean(firsts) == pytest.approx(0, abs=1e-6)
    assert rows[0][16].arrays["advantages"][rows[0][16].mask][0] > max(firsts) * 0.9


def test_an_episode_that_was_broken_off_leaves_first_and_second_tries_apart() -> None:
    groups, _, _ = second(3)
    group = groups[0]
    nothing = replace(group.episodes[0], turns=())
    broken = replace(group, episodes=(nothing, *group.episodes[1:-1], nothing))
    assert (
        len(broken.without_failures().episodes),
        broken.without_failures().first_tries,
        broken.without_failures().retries,
    ) == (17, 15, 2)


@pytest.mark.parametrize("method", [grpo, ppo])
def test_only_what_a_second_try_said_itself_is_learned_from(
    tmp_path: Path, method: Callable[..., Any]
) -> None:
    seen: list[Row] = []

    class Watching(ToyTrainer):
        def forward_backward(self, rows: Any, loss: Any) -> Any:
            seen.extend(rows)
            return super().forward_backward(rows, loss)

    some = lambda _, episode: RewardResult(float(len(episode.turns[0].tokens)), {})  # noqa: E731
    plan = lesson(
        {"two_phase_samples_per_group": 4, "inner_epochs": 1}, method=method.__name__, steps=1
    )
    trainer, run = Watching(toy()._policy), Run.create(tmp_path / "run", plan)
    method(trainer, world(trainer, plan, score=some), run)
    again = [row for row in seen if row.origin is not None and (row.origin == Origin.GIVEN).any()]
    firsts = [
        row.arrays["advantages"][row.mask][0]
        for row in seen
        if not any(row is other for other in again)
    ]
    assert np.mean(firsts) == pytest.approx(0, abs=1e-5)
    assert np.mean([row.arrays["advantages"][row.mask][0] for row in again]) != pytest.approx(
        0, abs=1e-2
    )
    assert len(again) == logged(run, "continued")[0] > 0
    for row in again:
        given = row.origin == Origin.GIVEN
        assert given.sum() == LENGTH + 2
        assert not row.mask[given].any()
        assert not row.arrays["advantages"][given].any()
        assert row.mask[np.flatnonzero(given)[-1] + 1 :].all()


# ------------------------------------------------------------------------------------------------
# refusals


@pytest.mark.parametrize(
    "setting", ["curriculum.enabled=true", "enforce_thinking=true", "two_phase_samples_per_group=2"]
)
def test_a_method_without_episodes_refuses_each_setting_by_name(setting: str) -> None:
    plan = load_experiment(
        None, ["training.method=dpo", f"training.rl.{setting}"], tell=lambda _: None
    )
    with pytest.raises(
        ConfigError,
        match=rf"training\.rl\.{setting.partition('=')[0]}: training\.method dpo .* or use",
    ):
        find_method(plan)


@pytest.mark.parametrize(
    "setting", ["curriculum.enabled=true", "enforce_thinking=true", "two_phase_samples_per_group=2"]
)
@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_methods_with_episodes_take_each_setting(method: str, setting: str) -> None:
    assert find_method(
        load_experiment(
            None, [f"training.method={method}", f"training.rl.{setting}"], tell=lambda _: None
        )
    )


def test_a_curriculum_and_an_enforced_thought_are_refused_together() -> None:
    both = [
        "training.method=grpo",
        "training.rl.curriculum.enabled=true",
        "training.rl.enforce_thinking=true",
    ]
    with pytest.raises(
        ConfigError, match=r"before which there is no thought, and .* keep one"
    ) as caught:
        load_experiment(None, both)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (
            ["training.method=grpo", "training.rl.ppo.gamma=0.9"],
            "training.rl (ppo.gamma) has no effect with training.method 'grpo'",
        ),
        (
            ["training.method=ppo", "training.rl.dpo.rpo_alpha=1"],
            "training.rl (dpo.rpo_alpha) has no effect with training.method 'ppo'",
        ),
        (
            ["training.method=ppo", "training.rl.loss=gspo"],
            "training.rl (grpo.loss) has no effect with training.method 'ppo'",
        ),
        (
            [
                "training.method=dpo",
                "training.rl.epsilon=0.1",
                "training.rl.ppo.lam=1",
                "training.rl.beta=0.2",
            ],
            "training.rl (epsilon, ppo.lam) has no effect with training.method 'dpo'",
        ),
        (
            ["training.method=grpo", "training.rl.curriculum.steps=3"],
            "training.rl (curriculum.steps) has no effect without "
            "training.rl.curriculum.enabled=true",
        ),
        (
            [
                "training.method=grpo",
                "training.rl.curriculum.enabled=true",
                "training.rl.curriculum.steps=3",
            ],
            None,
        ),
        (["training.method=ppo", "training.rl.ppo.gamma=0.9"], None),
    ],
)
def test_a_setting_that_a_method_does_not_read_is_told(
    overrides: list[str], note: str | None
) -> None:
    notes: list[str] = []
    load_experiment(None, overrides, tell=notes.append)
    assert notes == ([] if note is None else [note])


def test_a_format_without_thoughts_refuses_them_before_training() -> None:
    tokenizer = llama_tokenizer()
    policy = policy_for(open_dialect(tokenizer), tokenizer)
    with pytest.raises((CapabilityError, DialectError), match="no thought before calls"):
        thinking_prefix(policy)


def test_the_world_s_end_mark_ends_a_word() -> None:
    groups, _, _ = groups_at(0)
    episodes = [
        episode
        for group in groups[:2]
        for episode in group.episodes
        if episode.turns[0].tokens == [END]
    ]
    assert all(
        right(TASKS[int(episode.task_id == "t13")], episode).total == 1 for episode in episodes
    )
