"""A toy that has learned one conversation with thoughts, a call and a result, in small templates
that strip thoughts, keep them, or switch them off.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from support.dialect_models import THINKING, small_tokenizer
from toolhone.api import experiment
from toolhone.backends.base import Adam, SamplingParams, train_step
from toolhone.backends.toy import ToySampler, ToyTrainer, open_toy
from toolhone.data.render import encode_rows
from toolhone.dialects.interface import Dialect
from toolhone.dialects.probe.certificate import open_certified
from toolhone.episodes.policy import TokenPolicy
from toolhone.schema import Conversation, Expect, ExpectedCall, Message, Task, Tool, ToolCall
from toolhone.tokenizer import TextTokenizer
from toolhone.training.losses import cross_entropy
from toolhone.training.prefill import format_request
from toolhone.training.update import with_token_weights

ADD = Tool(
    "add",
    "Adds.",
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    lambda a, b: a + b,
)
CALL = ToolCall("add", {"a": 2, "b": 3})
TALK = Conversation(
    (
        Message("user", "2+3?"),
        Message("assistant", None, "Two numbers, so I add them.", (CALL,)),
        Message("tool", "5", name="add"),
        Message("assistant", "It is 5.", "Now I know."),
    ),
    (ADD,),
)
TASK = Task("sum", TALK.messages[:1], TALK.tools, Expect((ExpectedCall("add", CALL.arguments),)))
SHOWN = THINKING.replace("{%- if loop.last %}", "{%- if true %}")
"""As `THINKING`, but earlier turns show their thoughts too."""
SWITCHED = (
    SHOWN.replace("{%- if true %}", "{%- if enable_thinking is not false %}")
    .replace(
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
        "{%- if enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
        "{%- endif %}",
    )
    .replace(
        "{{- message.content or '' }}",
        "{%- if enable_thinking is false %}"
        "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{{- message.content or '' }}",
    )
)
"""As `SHOWN`, with the switch of Qwen3: without thoughts, turns begin with an empty one."""


def opened(template: str, **model: Any) -> tuple[TextTokenizer, Dialect]:
    tokenizer = small_tokenizer(template)
    request = format_request(experiment({"model": model}), tokenizer)
    return tokenizer, open_certified(tokenizer, request)[0]


def policy_of(
    sampler: Any,
    tokenizer: TextTokenizer,
    dialect: Dialect,
    length: int = 100,
    opening: tuple[int, ...] = (),
) -> TokenPolicy:
    return TokenPolicy(sampler, dialect, tokenizer, SamplingParams(length, 0.0), opening=opening)


@cache
def talker(template: str, history: str = "template", steps: int = 30) -> ToySampler:
    """A toy that says what `TALK` says in a template, after at most ten tokens of context."""
    return learner(template, history, steps).snapshot()


def learner(template: str, history: str = "template", steps: int = 30) -> ToyTrainer:
    """The trainer of a `talker`, which goes on learning."""
    tokenizer, dialect = opened(template, history=history)
    rows = with_token_weights(encode_rows(dialect.render(TALK), dialect, tokenizer))
    trainer = open_toy(tokenizer.vocab_size, 0, (2, 5, 10), 512)
    for _ in range(steps):
        train_step(trainer, [rows], cross_entropy(), Adam(0.5))
    return trainer
