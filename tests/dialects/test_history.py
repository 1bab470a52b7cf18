"""Earlier turns: sampled text is never encoded again, whether or not the template rewrites it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from support.dialect_cases import ONE, TOOLS
from support.dialect_models import QWEN_LIKE, THINKING, small_tokenizer
from toolhone.backends.base import Sampler, SamplingParams
from toolhone.data.render import encode_rows
from toolhone.dialects.choose import open_dialect
from toolhone.dialects.interface import Dialect, History
from toolhone.episodes.policy import Prompt, TokenPolicy, Turn
from toolhone.schema import Conversation, Message
from toolhone.tokenizer import Span, TextTokenizer

USER, MORE = Message("user", "What is 2 + 2?"), Message("user", "Sure?")
CALL = Message("assistant", None, "I compute.", ONE)
RESULT = Message("tool", "4")
ANSWER = Message("assistant", "It is 4.", "So it is.")
CHAT = Conversation((USER, CALL, RESULT, ANSWER, MORE, CALL, RESULT, ANSWER), TOOLS)
MOVING = QWEN_LIKE.replace("{%- if tools %}", "{%- if tools and false %}", 1).replace(
    "{%- if message.role == 'user' %}{{- '<|im_start|>user\\n' + message.content + "
    "'<|im_end|>\\n' }}",
    "{%- if message.role == 'user' %}{{- '<|im_start|>user\\n' }}"
    "{%- if tools and message == (messages | selectattr('role', 'equalto', 'user') | list)[-1] %}"
    "{{- 'Tools: ' + tools | tojson + '\\n' }}{%- endif %}{{- message.content + '<|im_end|>\\n' }}",
)
"""Tools stand before the last turn of the user and move with it."""


def opened(template: str, kept: bool) -> tuple[TextTokenizer, Dialect]:
    tokenizer = small_tokenizer(template)
    return tokenizer, open_dialect(tokenizer, keep_history=kept)


def policy_of(tokenizer: TextTokenizer, dialect: Dialect) -> TokenPolicy:
    return TokenPolicy(cast(Sampler, None), dialect, tokenizer, SamplingParams(8))


def prompts(policy: TokenPolicy, chat: Conversation, sampled: list[list[int]]) -> list[Prompt]:
    """The prompts of all assistant turns when the model samples exactly these ids."""
    found: list[Prompt] = []
    waiting: list[Message] = []
    last: Turn | None = None
    for message in chat.messages:
        if message.role != "assistant":
            waiting.append(message)
            continue
        found.append(
            policy.open(waiting, chat.tools)
            if last is None
            else policy.extend(found[-1], last, waiting)
        )
        last, waiting = Turn(message, "", tokens=sampled[len(found) - 1]), []
    return found


@pytest.mark.parametrize("template", [THINKING, MOVING], ids=["thoughts", "tools"])
def test_each_turn_is_trained_after_exactly_the_ids_it_follows_in_use(template: str) -> None:
    tokenizer, dialect = opened(template, kept=False)
    assert dialect.history is History.TEMPLATE
    rows = encode_rows(dialect.render(CHAT), dialect, tokenizer)
    turns = [row.tokens[row.mask].tolist() for row in rows]
    assert len(rows) == 4
    for row, prompt in zip(rows, prompts(policy_of(tokenizer, dialect), CHAT, turns), strict=True):
        assert row.tokens.tolist()[: len(prompt.tokens)] == list(prompt.tokens)
        assert row.mask[len(prompt.tokens)]
        assert not row.mask[: len(prompt.tokens)].any()


@pytest.mark.parametrize("template", [THINKING, MOVING], ids=["thoughts", "tools"])
def test_a_kept_history_is_one_row_with_every_turn_trained_as_generated(template: str) -> None:
    tokenizer, dialect = opened(template, kept=True)
    assert dialect.history is History.KEPT
    (row,) = encode_rows(dialect.render(CHAT), dialect, tokenizer)
    apart = opened(template, kept=False)[1]
    turns = [
        one.tokens[one.mask].tolist() for one in encode_rows(apart.render(CHAT), apart, tokenizer)
    ]
    assert row.tokens[row.mask].tolist() == [token for turn in turns for token in turn]
    for prompt in prompts(policy_of(tokenizer, dialect), CHAT, turns):
        assert row.tokens.tolist()[: len(prompt.tokens)] == list(prompt.tokens)


def test_a_template_that_only_adds_has_one_row_under_every_policy() -> None:
    for kept in (False, True):
        tokenizer, dialect = opened(QWEN_LIKE, kept)
        assert dialect.history is History.APPENDED
        assert len(dialect.render(CHAT)) == 1
        assert tokenizer.encode_spans(dialect.render(CHAT)[0]).mask.any()


def test_sampled_turns_keep_ids_that_no_encoding_gives() -> None:
    tokenizer, dialect = opened(MOVING, kept=False)
    policy = policy_of(tokenizer, dialect)
    prompt = policy.open([USER], TOOLS)
    spelt = [token for letter in "It is 4." for token in tokenizer.encode(letter)]
    assert spelt != tokenizer.encode("It is 4.")
    stop = tokenizer.stop_ids(dialect.stop)[0]
    following = policy.extend(
        prompt, Turn(Message("assistant", "It is 4."), "It is 4.", tokens=[*spelt, stop]), [MORE]
    )
    text = " ".join(map(str, following.tokens))
    assert " ".join(map(str, [*spelt, stop])) in text
    assert " ".join(map(str, tokenizer.encode("It is 4."))) not in text


def _kept_ids(
    text: str, sampled: list[int], tokenizer: TextTokenizer, stop: tuple[int, ...]
) -> list[int]:
    row = tokenizer.encode_spans([Span(text, turn=0)], {0: sampled}, stop)
    return [int(token) for token in row.tokens]


def test_a_kept_turn_loses_only_its_beginning_and_only_where_a_token_ends() -> None:
    tokenizer = small_tokenizer(THINKING)
    stop = tokenizer.stop_ids(("<|im_end|>",))
    whole = (
        tokenizer.encode("<think>\nSo.\n</think>\n\n", control=True)
        + tokenizer.encode("It is 4.")
        + list(stop)
    )
    assert _kept_ids("It is 4.<|im_end|>", whole, tokenizer, stop) == tokenizer.encode(
        "It is 4."
    ) + list(stop)
    changed = _kept_ids("It was 4.<|im_end|>", whole, tokenizer, stop)
    assert tokenizer.decode(changed) == "It was 4.<|im_end|>", (
        "what the template changes is its own"
    )
    assert _kept_ids("<|im_end|>", whole, tokenizer, stop) == list(stop)
    glued: list[int] = tokenizer.encode("answer is") + list(stop)
    inside = "answer is"[2:]
    cut = _kept_ids(inside + "<|im_end|>", glued, tokenizer, stop)
    assert tokenizer.decode(cut) == inside + "<|im_end|>"
    assert cut[-3:] == glued[-3:], "tokens that begin behind the cut are kept as they were sampled"


def test_an_end_mark_of_an_earlier_turn_is_the_templates() -> None:
    tokenizer = small_tokenizer(
        QWEN_LIKE, special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|return|>")
    )
    sampled: Any = [*tokenizer.encode("It is 4."), tokenizer.control_id("<|return|>")]
    stops = tokenizer.stop_ids(("<|return|>", "<|im_end|>"))
    assert _kept_ids("It is 4.<|im_end|>", sampled, tokenizer, stops)[-1] == tokenizer.control_id(
        "<|im_end|>"
    )
