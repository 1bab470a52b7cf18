"""`model.thinking`, the switch of thoughts before calls and answers, as a format and as data.

    dialect, certificate = open_certified(tokenizer, format_request(plan, tokenizer))
    check_thinking("off", policy)
    data = with_thoughts(load_data(plan), "off")

`enforced` is `on` here; `training.rl.enforce_thinking` begins the replies (`prefill.py`).
"""

from __future__ import annotations

from dataclasses import replace

from toolhone.config.sections import Experiment
from toolhone.dialects.base import ParseProblem
from toolhone.dialects.chat_template.sanitise import TemplateMarkup
from toolhone.dialects.choose import PROMPTED, FormatRequest
from toolhone.dialects.probe.certificate import Certificate
from toolhone.dialects.syntax.model_text import split_reasoning
from toolhone.episodes.policy import TokenPolicy
from toolhone.errors import CapabilityError
from toolhone.schema import Conversation, Message
from toolhone.tokenizer import TextTokenizer
from toolhone.training.dataset import Dataset
from toolhone.training.prefill import thinking_prefix

SWITCHES = ("enable_thinking", "thinking")
"""Keywords by which chat templates switch thoughts (Qwen3 and GLM; DeepSeek and Granite)."""


def format_request(
    plan: Experiment, tokenizer: TextTokenizer, trained: Certificate | None = None
) -> FormatRequest:
    """The format that an experiment asks for; what it leaves open is as in `trained`.

    `template_switches` come before `thinking`. A dialect `auto` is the prompted one of `trained`.
    """
    model, switches = plan.model, plan.model.template_switches
    dialect, markup, kept = model.dialect, model.markup, model.history == "kept"
    if trained is not None and dialect == "auto" and trained.dialect.get("name") in PROMPTED:
        dialect, kept = str(trained.dialect["name"]), trained.dialect.get("history") == "kept"
        markup = str(trained.dialect["markup"]) if markup == "auto" else markup
        switches = trained.dialect.get("switches") if switches is None else switches
    inline = model.inline_refs
    if inline is None and trained is not None:
        inline = bool(trained.dialect.get("inline_refs"))
    if model.thinking is not None and tokenizer.wrapped.chat_template:
        known = {name for name, _ in TemplateMarkup(tokenizer).known_kwargs()}
        own = {name: model.thinking != "off" for name in SWITCHES if name in known}
        switches = {**own, **(switches or {})} or None
    return FormatRequest(dialect, markup, kept, switches, inline)


def check_thinking(wanted: str, policy: TokenPolicy) -> None:
    """Raise `CapabilityError` where the format cannot think, or cannot but think."""
    if wanted != "off":
        thinking_prefix(policy)
    elif policy.dialect.parse("x").problem is ParseProblem.UNCLOSED:
        raise CapabilityError(
            "model.thinking is off, but this template begins every turn with a thought and has no "
            f"switch against it ({' or '.join(SWITCHES)}); leave it out, name the template's own "
            "switch (model.template_switches), or use model.markup=chatml with a model.dialect"
        )


def with_thoughts(data: Dataset, wanted: str | None) -> Dataset:
    """The data without the thoughts of its conversations and pairs where they are `off`; their
    number is `thoughts_dropped` in the report."""
    if wanted != "off":
        return data
    dropped = 0

    def bare(messages: tuple[Message, ...]) -> tuple[Message, ...]:
        nonlocal dropped
        split = [split_reasoning(message) for message in messages]
        dropped += sum(message.reasoning is not None for message in split)
        return tuple(replace(message, reasoning=None) for message in split)

    def each(rows: list[Conversation]) -> list[Conversation]:
        return [replace(row, messages=bare(row.messages)) for row in rows]

    pairs, held_out_pairs = (
        [replace(pair, chosen=bare(pair.chosen), rejected=bare(pair.rejected)) for pair in some]
        for some in (data.pairs, data.held_out_pairs)
    )
    changed = replace(
        data,
        train=each(data.train),
        held_out=each(data.held_out),
        pairs=pairs,
        held_out_pairs=held_out_pairs,
    )
    return replace(changed, report={**data.report, "thoughts_dropped": dropped})
