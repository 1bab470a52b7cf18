"""Thoughts off, on and enforced; kept or stripped between tool turns; a thought that breaks off is
closed and the call follows: token by token, played by a toy that has learned one conversation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.dialect_models import QWEN_LIKE, THINKING, llama_tokenizer
from support.one_token import Lines, plan
from support.toy_talk import ADD, CALL, SHOWN, SWITCHED, TALK, TASK, opened, policy_of, talker
from toolhone.api import experiment
from toolhone.data.render import encode_rows
from toolhone.dialects.choose import open_dialect
from toolhone.dialects.probe.prove import describe
from toolhone.episodes.driver import run_episodes
from toolhone.episodes.episode import EpisodeRules, EpisodeStatus
from toolhone.errors import CapabilityError, ConfigError
from toolhone.rewards.reward_registry import RewardResult
from toolhone.rows import Origin
from toolhone.schema import Message
from toolhone.schema.preference import Preference
from toolhone.tokenizer import TextTokenizer
from toolhone.tools.registry import Registry
from toolhone.training.dataset import Dataset
from toolhone.training.loop import Hooks
from toolhone.training.prefill import (
    check_thinking,
    retry_prefix,
    thinking_prefix,
    thought_end,
    with_thoughts,
)
from toolhone.training.rollout import RLEnv, RolloutGroup, rollout, rows_of, score


@pytest.mark.parametrize(
    ("template", "history", "count"),
    [(THINKING, "template", 2), (THINKING, "kept", 1), (SHOWN, "template", 1)],
    ids=["stripped", "kept_by_us", "kept_by_the_template"],
)
def test_played_thoughts_give_the_rows_of_sft_token_by_token(
    template: str, history: str, count: int
) -> None:
    tokenizer, dialect = opened(template, history=history)
    wanted = encode_rows(dialect.render(TALK), dialect, tokenizer)
    policy = policy_of(talker(template, history), tokenizer, dialect)
    (episode,) = run_episodes(policy, [TASK], Registry([ADD]))
    assert [turn.message.reasoning for turn in episode.turns] == [
        "Two numbers, so I add them.",
        "Now I know.",
    ]
    assert (episode.calls[0].arguments, episode.answer) == ({"a": 2, "b": 3}, "It is 5.")
    rows = rows_of(episode)
    assert len(rows) == len(wanted) == count
    for row, own in zip(rows, wanted, strict=True):
        length = len(row)  # SFT renders the line break behind the last turn, too
        assert row.tokens.tolist() == own.tokens[:length].tolist()
        assert row.mask.tolist() == own.mask[:length].tolist()
        assert not own.mask[length:].any()
    texts = [tokenizer.decode(row.tokens.tolist()) for row in rows]
    assert [text.count("Two numbers") for text in texts] == [1, 0][: len(texts)]


def two_phases(length: int) -> tuple[TextTokenizer, RolloutGroup]:
    """A group of two replies of at most `length` tokens, with at most one second try."""
    tokenizer, dialect = opened(SHOWN)
    section = plan({"group_size": 2, "two_phase_samples_per_group": 1}, method="grpo")
    env = RLEnv(
        [TASK],
        Registry([ADD]),
        lambda sampler, _: policy_of(sampler, tokenizer, dialect, length),
        lambda _, episode: RewardResult(float(episode.calls[:1] == (CALL,)), {}),
        lambda _: EpisodeRules(first_call_only=True),
        None,
        str,
        Hooks(lambda _: ({}, []), lambda *_: "", Lines()),
    )
    (group,) = score(rollout(env, talker(SHOWN), [TASK], section, 0), env)
    return tokenizer, group


def test_a_thought_that_breaks_off_is_closed_and_only_the_call_behind_it_is_trained() -> None:
    tokenizer, group = two_phases(9)
    first, again = group.episodes[0], group.episodes[-1]
    assert (group.retries, first.ending, again.ending) == (
        1,
        EpisodeStatus.TRUNCATED,
        EpisodeStatus.TRUNCATED,
    )
    broken = first.turns[0]
    assert len(broken.tokens) == 9
    said = tokenizer.decode(broken.tokens)
    assert "Two numbers, so I add them.".startswith(said.removeprefix("<think>\n"))
    closing = '\n</think>\n\n<tool_call>{"name":"'
    turn = again.turns[0]
    assert turn.prefill == (*broken.tokens, *tokenizer.encode(closing, control=True))
    (row,) = rows_of(again)
    assert row.origin is not None
    start = len(turn.prompt)
    assert row.origin.tolist() == [
        *[Origin.PROMPT] * start,
        *[Origin.GIVEN] * len(turn.prefill),
        *[Origin.SAMPLED] * len(turn.tokens),
    ]
    assert np.array_equal(row.mask, row.origin == Origin.SAMPLED)
    assert row.tokens[start:].tolist() == [*turn.prefill, *turn.tokens]
    assert tokenizer.decode(turn.tokens) in 'add","arguments":{"a":2,"b":3}}</tool_call>'
    rows = group.rows(group.advantages("none", by_turn=False), 0)
    assert [row.arrays["advantages"][~row.mask].any() for row in rows] == [False] * 3


def test_with_room_for_the_call_the_second_phase_earns_what_the_first_could_not() -> None:
    tokenizer, dialect = opened(SHOWN)
    short, long = (policy_of(talker(SHOWN), tokenizer, dialect, length) for length in (9, 100))
    rules = EpisodeRules(first_call_only=True)
    (episode,) = run_episodes(short, [TASK], Registry([ADD]), rules)
    given = retry_prefix(long, TASK, episode, thinking=True)
    assert given is not None
    (again,) = run_episodes(long, [TASK], Registry([ADD]), replace(rules, prefill=given))
    assert (again.calls[0].name, again.calls[0].arguments) == ("add", {"a": 2, "b": 3})
    assert (again.turns[0].message.reasoning or "").startswith("Two")
    assert two_phases(100)[1].retries == 0


@pytest.mark.parametrize(
    ("text", "calls", "close"),
    [
        ("<think>\nwell", True, '\n</think>\n\n<tool_call>{"name":"'),
        ("<think>\nwell", False, "\n</think>\n\n"),
        ('<think>\nwell\n</think>\n\n<tool_call>{"na', True, ""),
        ('<tool_call>{"na', True, ""),
        ("It is", True, ""),
    ],
)
def test_only_where_a_reply_breaks_off_in_a_thought_it_is_closed(
    text: str, calls: bool, close: str
) -> None:
    tokenizer, dialect = opened(SHOWN)
    ids = thought_end(policy_of(None, tokenizer, dialect), text, calls)
    assert tokenizer.decode(ids) == close
    assert list(ids) == tokenizer.encode(close, control=True)


def test_off_on_and_enforced_switch_the_template_and_the_thoughts_of_rows() -> None:
    data = Dataset([TALK], [TALK], [], {"source": "here"})
    texts = {}
    for thinking in ("off", "on", "enforced"):
        tokenizer, dialect = opened(SWITCHED, thinking=thinking)
        assert describe(dialect)["switches"] == {"enable_thinking": thinking != "off"}
        check_thinking(thinking, policy_of(None, tokenizer, dialect))
        kept = with_thoughts(data, thinking)
        assert kept.report.get("thoughts_dropped", 0) == 4 * (thinking == "off")
        (row,) = encode_rows(dialect.render(kept.train[0]), dialect, tokenizer)
        texts[thinking] = tokenizer.decode(row.tokens[row.mask].tolist())
    call = '<tool_call>{"name":"add","arguments":{"a":2,"b":3}}</tool_call><|im_end|>'
    thoughts = [f"<think>\n{turn.reasoning}\n</think>\n\n" for turn in TALK.messages[1::2]]
    assert texts["off"] == f"{call}It is 5.<|im_end|>"
    assert texts["on"] == texts["enforced"] == f"{thoughts[0]}{call}{thoughts[1]}It is 5.<|im_end|>"
    tokenizer, dialect = opened(SWITCHED, thinking="enforced")
    opening = thinking_prefix(policy_of(None, tokenizer, dialect))
    assert tokenizer.decode(opening) == "<think>\n"
    policy = policy_of(None, tokenizer, dialect, 100, opening)
    assert policy.open(TASK.messages, TASK.tools).prefill == opening


def test_thoughts_of_pairs_and_in_the_content_are_dropped_and_counted() -> None:
    said = Message("assistant", "<think>\nwell\n</think>\n\nNo.")
    pair = Preference(TALK.messages[:1], TALK.messages[1:2], (said,))
    dropped = with_thoughts(Dataset([], [], [], pairs=[pair], held_out_pairs=[pair]), "off")
    assert dropped.report == {"thoughts_dropped": 4}
    assert dropped.pairs[0].chosen == (replace(TALK.messages[1], reasoning=None),)
    assert dropped.held_out_pairs[0].rejected == (Message("assistant", "No."),)
    data = Dataset([TALK], [], [])
    assert with_thoughts(data, None) is with_thoughts(data, "on") is data


def test_a_switch_that_a_format_lacks_is_refused_and_switches_of_one_s_own_win() -> None:
    with pytest.raises(CapabilityError, match="no thought before calls and answers"):
        check_thinking("on", policy_of(None, llama_tokenizer(), open_dialect(llama_tokenizer())))
    always = SHOWN.replace(
        "{{- '<|im_start|>assistant\\n' }}{%- endif %}",
        "{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}",
    )
    with pytest.raises(CapabilityError, match="begins every turn with a thought and has no"):
        check_thinking("off", policy_of(None, *opened(always)))
    check_thinking("off", policy_of(None, *opened(QWEN_LIKE)))
    own = {"thinking": "off", "template_switches": {"enable_thinking": True}}
    assert describe(opened(SWITCHED, **own)[1])["switches"] == {"enable_thinking": True}
    assert describe(opened(QWEN_LIKE, thinking="off")[1])["switches"] == {}


def test_enforced_begins_the_replies_of_methods_with_episodes_and_off_refuses_it() -> None:
    def enforced(method: str, thinking: str | None, **rl: Any) -> bool:
        training = {"method": method, "rl": rl}
        plan = experiment({"model": {"thinking": thinking}, "training": training})
        return plan.training.rl.enforce_thinking

    assert [enforced(method, "enforced") for method in ("grpo", "ppo", "sft", "dpo")] == [
        True,
        True,
        False,
        False,
    ]
    assert not enforced("grpo", "on")
    with pytest.raises(ConfigError, match=r"model.thinking is off, but .*; keep one"):
        enforced("grpo", "off", enforce_thinking=True)
    with pytest.raises(ConfigError, match="before which there is no thought"):
        enforced("grpo", "enforced", curriculum={"enabled": True})
