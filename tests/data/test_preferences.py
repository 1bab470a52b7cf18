"""Preference pairs: typed mistakes, own wrong samples, files; and their rows, of which only the
assistant's tokens are trained.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from conftest import SHARED
from support.dialect_models import LLAMA_LIKE, QWEN_LIKE, THINKING, llama_tokenizer, small_tokenizer
from toolhone.backends.base import Sample, Sampler, SamplingParams, StopReason
from toolhone.config.experiment import experiment_of
from toolhone.config.sections import Experiment
from toolhone.data.negatives import CORRUPTIONS, corrupt, written
from toolhone.data.preferences import (
    AssistantTurn,
    PairKind,
    PreferencePair,
    Sampled,
    against_samples,
    among_samples,
    assistant_turns,
    pair_rows,
)
from toolhone.data.templates import Templates
from toolhone.dialects.choose import open_dialect
from toolhone.dialects.interface import Dialect, ParseProblem
from toolhone.episodes.policy import TokenPolicy, Turn
from toolhone.errors import DataError, DialectError, RunError
from toolhone.rows import Origin, Row
from toolhone.runs.progress import Progress
from toolhone.schema import Conversation, Message, Tool, ToolCall
from toolhone.schema.preference import Preference
from toolhone.sources.files import write_jsonl
from toolhone.sources.formats import PAIRS, holds_pairs, open_source
from toolhone.sources.messages import read_preferences
from toolhone.tokenizer import TextTokenizer
from toolhone.training.dataset import Dataset, load_data
from toolhone.training.preference_pairs import PairSource, is_right

TOOLS = (
    Tool(
        "book",
        "Books.",
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "nights": {"type": "integer"}},
            "required": ["city"],
        },
    ),
    Tool(
        "rate",
        "Rates.",
        {
            "type": "object",
            "properties": {"scale": {"type": "string", "enum": ["low", "high"]}},
            "required": ["scale"],
        },
    ),
)
CALL = Message("assistant", None, tool_calls=(ToolCall("book", {"city": "Oslo", "nights": 2}),))
TALKS = [
    Conversation((Message("user", "Two nights in Oslo"), CALL), TOOLS, "one"),
    Conversation(
        (
            Message("user", "Rate it high"),
            Message("assistant", None, tool_calls=(ToolCall("rate", {"scale": "high"}),)),
        ),
        TOOLS,
        "two",
    ),
    Conversation(
        (Message("user", "Hello"), Message("assistant", "Hello, what shall I do?")), TOOLS, "three"
    ),
    Conversation(
        (
            Message("user", "One night in Bergen and a low rate"),
            Message(
                "assistant",
                None,
                tool_calls=(
                    ToolCall("book", {"city": "Bergen", "nights": 1}),
                    ToolCall("rate", {"scale": "low"}),
                ),
            ),
            Message("tool", "booked"),
            Message("tool", "rated"),
            Message("assistant", "Done."),
        ),
        TOOLS,
        "four",
    ),
]
QWEN = small_tokenizer(QWEN_LIKE)
DIALECT = open_dialect(QWEN)
PREFERENCE = Preference(
    TALKS[0].messages[:1], (CALL,), (Message("assistant", "No."),), TOOLS, "p", "mine"
)


def only(kind: PairKind, talk: Conversation = TALKS[0], seed: int = 0) -> Message:
    """The rejected reply of the first decision of a talk, with one mistake of this kind."""
    (decision, *_) = assistant_turns([talk])
    (pair,) = corrupt([decision], DIALECT, seed, kinds=[kind]).pairs
    assert pair.kind is kind
    assert pair.preference.chosen == (decision.gold,)
    return pair.preference.rejected[0]


def rows_of(
    preference: Preference, dialect: Dialect = DIALECT, tokenizer: TextTokenizer = QWEN
) -> tuple[Row, Row]:
    chosen, rejected = pair_rows([PreferencePair(preference)], dialect, tokenizer, 0).rows
    return chosen, rejected


def trained(row: Row, tokenizer: TextTokenizer = QWEN) -> str:
    return tokenizer.decode(row.tokens[row.mask].tolist())


def test_a_preference_is_read_and_written_in_one_form() -> None:
    again = Preference.from_dict(json.loads(json.dumps(PREFERENCE.to_dict())))
    assert again == PREFERENCE
    raw = replace(PREFERENCE, rejected=(Message("assistant", '<tool_call>{"name"'),), raw=True)
    assert Preference.from_dict(raw.to_dict()) == raw
    assert "raw" not in PREFERENCE.to_dict()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"chosen": []}, "'chosen' must be a non-empty list of messages"),
        (
            {"rejected": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            "'rejected' must begin with an assis",
        ),
        ({"raw": "yes"}, "'raw' must be true or false, got 'yes'"),
        (
            {"raw": True, "rejected": [{"role": "assistant", "content": None}]},
            "with 'raw', 'rejected' must be one assistant message",
        ),
    ],
)
def test_a_preference_that_is_none_is_refused_with_its_place(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, [PREFERENCE.to_dict(), {**PREFERENCE.to_dict(), **change}])
    with pytest.raises(DataError, match=rf"line 2: .*{sentence}"):
        read_preferences(path)
    assert len(read_preferences_of(path, 1)) == 1


def read_preferences_of(path: Path, count: int) -> list[Preference]:
    part = path.with_name("part.jsonl")
    part.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:count]))
    return read_preferences(part)


def test_decisions_are_the_calls_and_the_replies_right_after_a_user() -> None:
    found = assistant_turns(TALKS)
    assert [decision.task.id for decision in found] == ["one#1", "two#1", "three#1", "four#1"]
    assert found[3].gold == TALKS[3].messages[1]


def test_a_wrong_tool_is_another_one_on_offer() -> None:
    (call,) = only(PairKind.WRONG_TOOL).tool_calls
    assert call.name == "rate"
    assert not TOOLS[1].problems(call.arguments)


def test_a_wrong_argument_is_one_value_of_the_same_type() -> None:
    for seed in range(8):
        (call,) = only(PairKind.WRONG_ARGUMENT, seed=seed).tool_calls
        gold = {"city": "Oslo", "nights": 2}
        assert set(call.arguments) == set(gold)
        assert sum(call.arguments[name] != gold[name] for name in gold) == 1
        assert not TOOLS[0].problems(call.arguments)
    assert only(PairKind.WRONG_ARGUMENT, TALKS[1]).tool_calls == (
        ToolCall("rate", {"scale": "low"}),
    )


def test_a_wrong_argument_is_what_other_rows_have_there_where_they_have_something() -> None:
    talks = [TALKS[0], replace(TALKS[0], messages=(TALKS[0].messages[0], _booking("Bergen", 5)))]
    pairs = corrupt(assistant_turns(talks), DIALECT, 0, kinds=[PairKind.WRONG_ARGUMENT]).pairs
    values = [dict(pair.preference.rejected[0].tool_calls[0].arguments) for pair in pairs]
    assert values[0] in ({"city": "Bergen", "nights": 2}, {"city": "Oslo", "nights": 5})


def test_an_argument_that_cannot_be_made_wrong_gives_no_pair() -> None:
    far = replace(
        TALKS[0],
        messages=(
            TALKS[0].messages[0],
            Message("assistant", None, tool_calls=(ToolCall("book", {"city": 1e300}),)),
        ),
    )
    assert not corrupt(assistant_turns([far]), DIALECT, 0, kinds=[PairKind.WRONG_ARGUMENT]).pairs


def _booking(city: str, nights: int) -> Message:
    return Message(
        "assistant", None, tool_calls=(ToolCall("book", {"city": city, "nights": nights}),)
    )


def test_a_missing_argument_is_a_required_one_where_there_is_one() -> None:
    for seed in range(8):
        assert only(PairKind.MISSING_ARGUMENT, seed=seed).tool_calls == (
            ToolCall("book", {"nights": 2}),
        )


def test_a_missing_call_is_one_of_several_or_words_in_place_of_the_only_one() -> None:
    assert len(only(PairKind.MISSING_CALL, TALKS[3]).tool_calls) == 1
    words = only(PairKind.MISSING_CALL)
    assert words.content
    assert not words.tool_calls


def test_a_needless_call_replaces_words_or_joins_the_wanted_calls() -> None:
    (call,) = only(PairKind.NEEDLESS_CALL, TALKS[2]).tool_calls
    assert call.name in ("book", "rate")
    assert [call.name for call in only(PairKind.NEEDLESS_CALL).tool_calls] == ["book", "rate"]


@pytest.mark.parametrize("seed", range(12))
def test_a_malformed_reply_is_raw_text_that_the_dialect_cannot_read(seed: int) -> None:
    (decision, *_) = assistant_turns(TALKS)
    (pair,) = corrupt([decision], DIALECT, seed, kinds=[PairKind.MALFORMED]).pairs
    assert pair.preference.raw
    text = pair.preference.rejected[0].content or ""
    assert DIALECT.parse(text, TOOLS).problem is not ParseProblem.NONE
    assert text != written(decision, DIALECT)


def test_a_broken_text_that_still_parses_is_not_used_as_malformed() -> None:
    talk = replace(TALKS[0], messages=(TALKS[0].messages[0], _booking("(a) [b] {c} 'd' : e", 2)))
    for seed in range(40):
        for pair in corrupt(
            assistant_turns([talk]), DIALECT, seed, kinds=[PairKind.MALFORMED]
        ).pairs:
            assert (
                DIALECT.parse(pair.preference.rejected[0].content or "", TOOLS).problem
                is not ParseProblem.NONE
            )


def test_mistakes_are_counted_by_kind_and_what_has_none_is_counted_too() -> None:
    decisions = assistant_turns(TALKS)
    batch = corrupt(decisions, DIALECT, 3, each=2)
    assert Counter(pair.kind.value for pair in batch.pairs) == batch.report["kinds"]
    per_decision = Counter(pair.preference.id.partition("/")[0] for pair in batch.pairs)
    assert per_decision == {"one#1": 2, "two#1": 2, "three#1": 1, "four#1": 2}
    none = corrupt(decisions, DIALECT, 3, kinds=[PairKind.MISSING_CALL])
    assert sum(none.report["without_pair"].values()) == 1
    assert len(none.pairs) + 1 == none.report["decisions"] == 4


def test_the_same_seed_makes_the_same_mistakes_and_another_one_others() -> None:
    decisions = assistant_turns(Templates(0).conversations(30))
    first, again, other = (corrupt(decisions, DIALECT, seed).pairs for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert {pair.kind for pair in first} == set(CORRUPTIONS)


def test_no_mistake_says_what_gold_says() -> None:
    for pair in corrupt(assistant_turns(Templates(0).conversations(150)), DIALECT, 0, each=6).pairs:
        assert pair.preference.rejected != pair.preference.chosen, pair
    assert pair_rows([], DIALECT, QWEN, 0).report["pairs"] == 0


def sampled(tokens: tuple[int, ...], text: str, right: bool) -> Sampled:
    return Sampled(tokens, text, right, Message("assistant", text))


def test_own_wrong_samples_stand_against_gold_the_most_frequent_first() -> None:
    decisions = assistant_turns(TALKS)
    right, wrong, rare = (
        sampled((5, 2), "a", True),
        sampled((6, 2), "b", False),
        sampled((7, 2), "c", False),
    )
    batch = against_samples(
        decisions, [[right, rare, wrong, wrong], [right], [rare, wrong, rare], []], each=1
    )
    assert [(pair.preference.id, pair.tokens) for pair in batch.pairs] == [
        ("one#1/own_sample", (6, 2)),
        ("three#1/own_sample", (7, 2)),
    ]
    assert all(
        pair.preference.raw and pair.preference.rejected[0].content in ("b", "c")
        for pair in batch.pairs
    )
    assert batch.report == {
        "decisions": 4,
        "samples": 8,
        "wrong_samples": 6,
        "without_pair": {"every sample is right": 1, "no sample has any text": 1},
    }
    assert len(against_samples(decisions, [[rare, wrong], [], [], []], each=2).pairs) == 2


def test_ranked_samples_need_a_right_and_a_wrong_one_and_never_show_gold() -> None:
    tasks = [decision.task for decision in assistant_turns(TALKS)]
    right, other = sampled((5, 2), "a", True), sampled((8, 2), "d", True)
    wrong, rare = sampled((6, 2), "b", False), sampled((7, 2), "c", False)
    batch = among_samples(tasks, [[wrong, other, right, rare, right, wrong], [right], [wrong], []])
    assert [(pair.preference.chosen, pair.tokens) for pair in batch.pairs] == [
        ((right.message,), (6, 2))
    ]
    assert batch.pairs[0].preference.prompt == tasks[0].messages
    assert batch.report["without_pair"] == {
        "every sample is right": 1,
        "no sample is right": 1,
        "the prompt leaves no room": 1,
    }
    blank = among_samples(tasks[:1], [[right, sampled((9, 2), "", False)]])
    assert blank.report["without_pair"] == {"no wrong sample has any text": 1}
    assert [
        pair.tokens
        for pair in among_samples(tasks[:1], [[wrong, wrong, rare, right]], each=2).pairs
    ] == [(6, 2), (7, 2)]


@pytest.mark.parametrize(
    ("text", "stop", "right"),
    [
        (
            '<tool_call>{"name":"book","arguments":{"city":"Oslo","nights":2}}</tool_call>',
            StopReason.STOP,
            True,
        ),
        (
            '<tool_call>{"name":"book","arguments":{"city":"Oslo","nights":2}}</tool_call>',
            StopReason.LENGTH,
            False,
        ),
        (
            '<tool_call>{"name":"book","arguments":{"city":"Oslo","nights":3}}</tool_call>',
            StopReason.STOP,
            False,
        ),
        (
            '<tool_call>{"name":"book","arguments":{"city":"Oslo","nights":2}</tool_call>',
            StopReason.STOP,
            False,
        ),
        ("Fine.", StopReason.STOP, False),
    ],
)
def test_a_turn_is_right_when_it_is_exactly_what_is_wanted(
    text: str, stop: StopReason, right: bool
) -> None:
    (decision, *_) = assistant_turns(TALKS)
    read = DIALECT.parse(text, TOOLS)
    assert (
        is_right(Turn(read.to_message(), text, read.problem, stop_reason=stop), decision.task)
        is right
    )


def test_words_are_right_where_no_call_is_wanted_unless_they_are_blank() -> None:
    task = assistant_turns([TALKS[2]])[0].task
    assert is_right(Turn(Message("assistant", "Hm."), "Hm."), task)
    assert not is_right(Turn(Message("assistant", " "), " "), task)
    assert not is_right(Turn(CALL, ""), task)


def test_both_rows_of_a_pair_have_one_group_and_the_same_prompt_with_the_tools() -> None:
    chosen, rejected = rows_of(PREFERENCE)
    begin = int(np.flatnonzero(chosen.mask)[0])
    assert chosen.group == rejected.group == "pair-0"
    assert begin == int(np.flatnonzero(rejected.mask)[0])
    assert chosen.tokens[:begin].tolist() == rejected.tokens[:begin].tolist()
    prompt = QWEN.decode(chosen.tokens[:begin].tolist())
    assert prompt == QWEN.decode(policy(DIALECT, QWEN).open(PREFERENCE.prompt, TOOLS).tokens)
    assert '"nights"' in prompt
    assert trained(rejected) == "No.<|im_end|>"
    assert trained(chosen).endswith("</tool_call><|im_end|>")


def policy(dialect: Dialect, tokenizer: TextTokenizer) -> TokenPolicy:
    return TokenPolicy(cast(Sampler, None), dialect, tokenizer, SamplingParams(8))


TURNS = Preference(
    (
        Message("user", "Two nights in Oslo"),
        CALL,
        Message("tool", "full"),
        Message("assistant", "It is full."),
        Message("user", "Then Rome"),
    ),
    (_booking("Rome", 2), Message("tool", "booked, <tool_call>"), Message("assistant", "Booked.")),
    (
        _booking("Rome", 2),
        Message("tool", "booked, <tool_call>"),
        Message("assistant", "It did not work."),
    ),
    TOOLS,
    "turns",
)


def only_the_assistant_is_trained(row: Row) -> None:
    assert row.origin is not None
    assert not row.mask[row.origin != Origin.SAMPLED].any()
    assert (row.origin == Origin.TOOL).any()


def test_tokens_of_tools_and_of_earlier_turns_are_never_trained() -> None:
    for row, last in zip(rows_of(TURNS), ("Booked.", "It did not work."), strict=True):
        only_the_assistant_is_trained(row)
        place = int(np.flatnonzero(row.origin == Origin.TOOL)[0])
        flipped = row.mask.copy()
        flipped[place] = True
        with pytest.raises(AssertionError):
            only_the_assistant_is_trained(replace(row, mask=flipped))
        call = '<tool_call>{"name":"book","arguments":{"city":"Rome","nights":2}}</tool_call>'
        assert trained(row) == f"{call}<|im_end|>{last}<|im_end|>"
        assert "booked" in QWEN.decode(row.tokens.tolist())
        assert row.mask[-1]


@pytest.mark.parametrize(
    ("template", "kept"), [(QWEN_LIKE, False), (THINKING, False), (THINKING, True)]
)
def test_a_pair_of_one_turn_follows_the_prompt_ids_of_a_policy(template: str, kept: bool) -> None:
    tokenizer = small_tokenizer(template)
    dialect = open_dialect(tokenizer, keep_history=kept)
    pair = replace(TURNS, chosen=TURNS.chosen[:1], rejected=(Message("assistant", "No."),))
    chosen, rejected = rows_of(pair, dialect, tokenizer)
    begin = int(np.flatnonzero(chosen.mask)[0])
    assert rejected.tokens[:begin].tolist() == chosen.tokens[:begin].tolist()
    if not kept:
        assert (
            tuple(chosen.tokens[:begin].tolist())
            == policy(dialect, tokenizer).open(pair.prompt, TOOLS).tokens
        )
    assert "No." in trained(rejected, tokenizer)
    assert "It is full." not in trained(chosen, tokenizer)


def test_several_turns_need_a_template_that_keeps_them_or_the_history_kept() -> None:
    tokenizer = small_tokenizer(THINKING)
    with pytest.raises(
        DialectError,
        match=(
            r"pair 'turns', chosen: it has 2 turns .* use model.history=kept, or pairs of "
            r"one turn"
        ),
    ):
        rows_of(TURNS, open_dialect(tokenizer), tokenizer)
    chosen, rejected = rows_of(TURNS, open_dialect(tokenizer, keep_history=True), tokenizer)
    assert (
        trained(chosen, tokenizer).count("<|im_end|>")
        == trained(rejected, tokenizer).count("<|im_end|>")
        == 2
    )
    for row in (chosen, rejected):
        only_the_assistant_is_trained(row)


def test_a_raw_reply_keeps_its_marks_and_gets_the_stop_mark_of_the_chosen_side() -> None:
    text = '<tool_call>{"name":"book"'
    raw = replace(PREFERENCE, rejected=(Message("assistant", text),), raw=True)
    chosen, rejected = rows_of(raw)
    assert trained(rejected) == text + "<|im_end|>"
    assert int(rejected.tokens[rejected.mask][0]) == QWEN.control_id("<tool_call>")
    tokenizer = llama_tokenizer(LLAMA_LIKE)
    chosen, rejected = rows_of(
        replace(raw, rejected=(Message("assistant", '{"name": '),)),
        open_dialect(tokenizer),
        tokenizer,
    )
    assert trained(chosen, tokenizer).endswith("<|eom|>")
    assert trained(rejected, tokenizer) == '{"name": <|eom|>'
    with pytest.raises(DialectError, match=r"pair 'p', rejected: its raw text holds the stop mark"):
        rows_of(replace(raw, rejected=(Message("assistant", "a<|im_end|>b"),)))


def test_a_sampled_reply_keeps_its_ids() -> None:
    ids = (*QWEN.encode("N"), *QWEN.encode("o"), *QWEN.encode("."), *QWEN.stop_ids(DIALECT.stop))
    raw = replace(PREFERENCE, raw=True)
    _, rejected = pair_rows([PreferencePair(raw, PairKind.OWN_SAMPLE, ids)], DIALECT, QWEN, 0).rows
    assert tuple(rejected.tokens[rejected.mask].tolist()) == ids


def test_pairs_that_are_identical_once_written_are_refused_with_a_count() -> None:
    written_alike = replace(
        PREFERENCE,
        rejected=(replace(CALL, content="", tool_calls=(replace(CALL.tool_calls[0], id="x"),)),),
    )
    assert written_alike != PREFERENCE
    batch = pair_rows(
        map(PreferencePair, [PREFERENCE, written_alike, PREFERENCE]), DIALECT, QWEN, 0
    )
    assert (batch.report["pairs"], batch.report["identical"], len(batch.rows)) == (2, 1, 4)
    assert [row.group for row in batch.rows] == ["pair-0", "pair-0", "pair-2", "pair-2"]
    with pytest.raises(DataError, match="in all 2 pairs chosen and rejected are the same"):
        pair_rows(map(PreferencePair, [written_alike, written_alike]), DIALECT, QWEN, 0)


def test_a_pair_with_one_side_too_long_is_dropped_whole_and_counted() -> None:
    long = replace(PREFERENCE, rejected=(Message("assistant", "word " * 400),))
    batch = pair_rows(map(PreferencePair, [long, PREFERENCE]), DIALECT, QWEN, 300)
    assert (batch.report["pairs"], batch.report["too_long"]) == (1, 1)
    assert {row.group for row in batch.rows} == {"pair-1"}
    assert batch.report["kinds"] == {"file": 1}


def test_a_side_that_cannot_be_written_is_counted_if_made_and_refused_if_read() -> None:
    tokenizer = llama_tokenizer(LLAMA_LIKE)  # only one call at once
    dialect = open_dialect(tokenizer)
    two = replace(
        PREFERENCE,
        rejected=(
            replace(CALL, tool_calls=(*CALL.tool_calls, ToolCall("rate", {"scale": "low"}))),
        ),
    )
    batch = pair_rows(
        [PreferencePair(two, PairKind.NEEDLESS_CALL), PreferencePair(PREFERENCE)],
        dialect,
        tokenizer,
        0,
    )
    assert (batch.report["pairs"], batch.report["unwritable"]) == (1, 1)
    with pytest.raises(DialectError, match=r"pair 'p', rejected: .*only one call at once"):
        pair_rows([PreferencePair(two)], dialect, tokenizer, 0)


def share(**change: Any) -> dict[str, Any]:
    tools = json.dumps([tool.to_dict()["function"] for tool in TOOLS])
    row = {
        "conversations": [{"from": "human", "value": "Two nights in Oslo"}],
        "chosen": {
            "from": "function_call",
            "value": '{"name": "book", "arguments": {"city": "Oslo", "nights": 2}}',
        },
        "rejected": {"from": "gpt", "value": "No."},
        "tools": tools,
        "system": "Brief.",
    }
    return {**row, **change}


def test_pairs_of_llama_factory_are_read_with_their_calls(tmp_path: Path) -> None:
    rows = [
        share(),
        share(
            rejected={"from": "function_call", "value": '{"name": "book", "arguments": {"city": '}
        ),
        share(rejected=share()["chosen"]),
        share(chosen={"from": "gpt", "value": ""}),
        share(chosen={"from": "function_call", "value": '{"name": "cook", "arguments": {}}'}),
        share(tools="[]"),
        {"conversations": share()["conversations"]},
        share(conversations=[{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]),
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    loaded = open_source(tmp_path / "pairs.jsonl", PAIRS)
    assert holds_pairs(tmp_path / "pairs.jsonl")
    first, second = loaded.preferences
    assert [message.role for message in first.prompt] == ["system", "user"]
    assert first.chosen[0].tool_calls == CALL.tool_calls
    assert (first.rejected, first.raw) == ((Message("assistant", "No."),), False)
    assert second.raw
    assert loaded.read == len(rows) == len(loaded.preferences) + loaded.skipped.total()
    assert (
        loaded.skipped["chosen and rejected say the same"]
        == loaded.skipped["calls although the row gives no tools"]
        == loaded.skipped["a prompt that does not end with the user or a tool"]
        == 1
    )
    assert loaded.skipped["not a pair of a chosen and a rejected side"] == 2
    assert "line 3" in loaded.examples["chosen and rejected say the same"]
    assert loaded.summary().startswith("kept 2 of 8 rows; skipped 6: 2 not a pair")


def test_pairs_of_our_own_form_need_no_id_and_no_tools(tmp_path: Path) -> None:
    bare = {key: PREFERENCE.to_dict()[key] for key in ("prompt", "chosen", "rejected")}
    bare["chosen"] = [{"role": "assistant", "content": "Yes."}]
    write_jsonl(tmp_path / "mine.jsonl", [bare])
    (pair,) = open_source(tmp_path / "mine.jsonl", PAIRS).preferences
    assert (pair.id, pair.tools) == ("mine-1", ())


@pytest.mark.real
def test_the_demonstration_file_of_llama_factory_gives_a_pair_for_every_row() -> None:
    path = SHARED / "datasets" / "llama_factory" / "dpo_en_demo.json.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    loaded = open_source(path, PAIRS)
    assert loaded.read == len(json.loads(gzip.decompress(path.read_bytes())))
    assert loaded.read == len(loaded.preferences) + loaded.skipped.total()
    assert len(loaded.preferences) == 120


def plan(**data: Any) -> Experiment:
    return experiment_of(
        {"data": data, "training": {"method": "dpo"}}, "the test", tell=lambda _: None
    )


def test_a_file_of_pairs_is_split_by_its_prompts_and_gives_tasks(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    pairs = corrupt(assistant_turns(Templates(0).conversations(40)), DIALECT, 0, each=2).pairs
    write_jsonl(path, [pair.to_dict() for pair in pairs])
    materials = load_data(plan(path=str(path)))
    assert (
        len(materials.pairs) + len(materials.held_out_pairs)
        == materials.report["kept"]
        == len(pairs)
    )
    assert [talk.id for talk in materials.held_out] == [
        pair.id for pair in materials.held_out_pairs
    ]
    prompts = [
        {json.dumps([m.to_dict() for m in pair.prompt]) for pair in part}
        for part in (materials.pairs, materials.held_out_pairs)
    ]
    assert not prompts[0] & prompts[1]
    assert materials.tasks
    assert "pairs of" in materials.summary()
    other = load_data(plan(path=str(path), validation=str(path), max_samples=5))
    assert (len(other.pairs), len(other.held_out_pairs)) == (5, len(pairs))


def test_preferences_file_without_pairs_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "talks.jsonl", [talk.to_dict() for talk in TALKS])
    with pytest.raises(DataError, match="no row gives a pair to train on; kept 0 of 4 rows"):
        load_data(plan(path=str(tmp_path / "talks.jsonl"), preferences="file"))
    assert not load_data(plan(path=str(tmp_path / "talks.jsonl"))).pairs


class Says:
    """A sampler that says texts in turn."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.keys: list[int] = []

    def sample(self, prompts: Any, params: SamplingParams, keys: Any = None) -> list[list[Sample]]:
        self.keys += keys
        stop = [QWEN.stop_ids(DIALECT.stop)[0]]
        reply = [
            Sample([*QWEN.encode(text, control=True), *stop], [], StopReason.STOP)
            for text in self.texts
        ]
        return [reply[: params.num_samples] for _ in prompts]


@pytest.mark.parametrize("at_once", [1, 64])
def test_own_samples_become_pairs_with_their_ids_and_are_the_same_when_read_again(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolhone.training.preference_pairs.SAMPLED_TOGETHER", at_once)
    experiment = experiment_of(
        {
            "data": {"preferences": "own_samples"},
            "training": {"method": "dpo", "rl": {"group_size": 3}},
        },
        "the test",
    )
    pairing = PairSource(experiment, DIALECT, QWEN, 1000, 0, Progress())
    gold = '<tool_call>{"name":"book","arguments":{"city":"Oslo","nights":2}}</tool_call>'
    sampler = Says("Hm.", gold, gold)
    ready = pairing.make(Dataset(TALKS[:2], TALKS[2:3], []), cast(Sampler, sampler))
    assert sampler.keys == [0, 1, 0]
    assert [pair.preference.rejected[0].content for pair in ready.pairs] == ["Hm.", gold]
    assert ready.report["train"]["samples"] == 6
    assert ready.report["train"]["wrong_samples"] == 4
    assert [pair.preference.rejected[0].content for pair in ready.held_out_pairs] == [gold]
    pairing.keep(ready, tmp_path)
    again = pairing.stored(tmp_path)
    assert [row.tokens.tolist() for row in again.rows] == [
        row.tokens.tolist() for row in ready.rows
    ]
    assert again.pairs == ready.pairs
    assert len(read_preferences(tmp_path / "pairs.jsonl")) == 3
    (tmp_path / "pairs.jsonl").unlink()
    with pytest.raises(RunError, match="the pairs of this run, is missing"):
        pairing.stored(tmp_path)


def test_ranked_pairs_come_from_tasks_and_the_right_side_is_a_sample() -> None:
    experiment = experiment_of(
        {
            "data": {"preferences": "own_ranked"},
            "training": {"method": "dpo", "rl": {"group_size": 2}},
        },
        "the test",
    )
    pairing = PairSource(experiment, DIALECT, QWEN, 1000, 0, Progress())
    tasks = [decision.task for decision in assistant_turns(TALKS)]
    reply = '<tool_call>{"name":"book","arguments":{"city":"Oslo","nights":2}}</tool_call>'
    ready = pairing.make(Dataset([], [], tasks[:1], play=tasks), cast(Sampler, Says(reply, "Hm.")))
    assert [
        (pair.preference.chosen[0].tool_calls, pair.preference.rejected[0].content)
        for pair in ready.pairs
    ] == [(CALL.tool_calls, "Hm."), ((), reply)]
    assert trained(ready.rows[0]) == f"{reply}<|im_end|>"
    assert len(ready.held_out_pairs) == 1
    assert ready.report["train"]["tasks_without_calls_to_judge"] == 0


def test_a_summary_says_what_there_is_and_what_was_lost() -> None:
    pairing = PairSource(plan(), DIALECT, QWEN, 1000, 0, Progress())
    ready = pairing.make(Dataset(TALKS, TALKS[2:3], []), cast(Sampler, None))
    assert ready.summary().startswith(
        "pairs: 4 to train on (2 malformed, 1 needless_call, 1 wrong_argument), 1 held out"
    )
    with pytest.raises(DataError, match="there is no pair to train on"):
        pairing.make(Dataset([replace(TALKS[2], tools=())], [], []), cast(Sampler, None))


def test_a_decision_is_against_something_after_the_same_prompt() -> None:
    decision = AssistantTurn(assistant_turns(TALKS)[0].task, CALL)
    pair = decision.against(PairKind.WRONG_TOOL, Message("assistant", "x"))
    assert (pair.preference.prompt, pair.preference.tools) == (TALKS[0].messages[:1], TOOLS)
    assert PreferencePair.from_dict(json.loads(json.dumps(pair.to_dict()))) == pair
