"""What replies begin with: a part of the gold call (curriculum), a thought, a failed try (retry).

Prefilled ids follow the prompt, are parsed as part of the reply, and are never trained. All
episodes of a group get the same prefill, so that their rewards compare. A retry is measured against
first tries alone. Evaluation never prefills. `model.thinking` is here as a format and as data; its
`enforced` is `on`, and `training.rl.enforce_thinking` begins the replies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from toolhone.config.rl import CurriculumSection, RlSection
from toolhone.config.sections import Experiment
from toolhone.dialects.chat_template.sanitise import TemplateMarkup
from toolhone.dialects.chat_template.turns import common_start
from toolhone.dialects.choose import PROMPTED, FormatRequest
from toolhone.dialects.interface import ParseProblem
from toolhone.dialects.probe.certificate import Certificate
from toolhone.dialects.syntax.model_text import split_reasoning
from toolhone.episodes.episode import Episode, EpisodeStatus, TurnOutcome
from toolhone.episodes.policy import Prompt, TokenPolicy
from toolhone.errors import CapabilityError, ConfigError, DialectError
from toolhone.schema import Conversation, Message, Task, Tool, ToolCall
from toolhone.tokenizer import TextTokenizer
from toolhone.training.dataset import Dataset

Ids = tuple[int, ...]

CHECKED_TASKS = 16
"""Tasks whose gold reply is rendered before training, to see whether the format can."""
_TOOL = Tool(
    "look_up",
    "Looks up.",
    {"type": "object", "properties": {"what": {"type": "string", "description": "What."}}},
)
_QUESTION = (Message("user", "question"),)
_ANSWER = Message("assistant", "answer")
_CALL, _OTHER_CALL = (
    Message("assistant", tool_calls=(ToolCall(name, {"what": "tea"}),))
    for name in ("look_up", "get")
)
_THOUGHT = "Because"
NEVER_PREFILLED = {
    "dpo": "trains on pairs and has no episodes to prefill",
    "distill": "judges what the model says by itself",
}


def refuse_prefill(method: str, rl: RlSection) -> None:
    """Raise `ConfigError` where a method that never prefills is asked to."""
    prefills = {
        "curriculum.enabled": rl.curriculum.enabled,
        "enforce_thinking": rl.enforce_thinking and method == "dpo",
        "two_phase_samples_per_group": rl.two_phase_samples_per_group > 0,
    }
    named = ", ".join(f"training.rl.{name}" for name, wanted in prefills.items() if wanted)
    if method in NEVER_PREFILLED and named:
        raise ConfigError(
            f"{named}: training.method {method} {NEVER_PREFILLED[method]}; remove it, or use "
            "training.method grpo or ppo"
        )


class Failure(StrEnum):
    """How the first turn of a first try failed."""

    UNFINISHED = "unfinished"
    """Truncated, or a call or thought without an end: a retry continues it, after the thought."""
    OTHERWISE = "otherwise"
    """Malformed in another way, or text where calls are wanted: a retry starts a call."""


def curriculum_ratio(plan: CurriculumSection, step: int) -> float:
    """The prefilled share at a step (0-based): linear from `start_ratio` to `end_ratio`."""
    done = min(1.0, step / plan.steps)
    return (1 - done) * plan.start_ratio + done * plan.end_ratio if plan.enabled else 0.0


def gold_reply(task: Task) -> Message | None:
    """The first turn with all wanted calls; None where none is wanted or arguments are open."""
    calls = task.expect.calls
    if not calls or any(call.any_arguments for call in calls):
        return None
    return Message(
        "assistant", tool_calls=tuple(ToolCall(call.name, call.arguments) for call in calls)
    )


def gold_prefix(policy: TokenPolicy, task: Task, ratio: float) -> Ids:
    """Return this share of the gold reply's ids without its end mark; empty where the format has
    none.
    """
    gold = gold_reply(task)
    if not ratio or gold is None:
        return ()
    try:
        ids = policy.encode_reply(policy.open(task.messages, task.tools), gold)
    except DialectError:
        return ()
    return ids[: round(ratio * (len(ids) - 1))]


def check_curriculum(policy: TokenPolicy, tasks: Sequence[Task]) -> str:
    """How many tasks have a gold prefix, as a sentence.

    Raises `ConfigError` where none has, `CapabilityError` where the format cannot write them.
    """
    gold = [(task, reply) for task in tasks if (reply := gold_reply(task)) is not None]
    if not gold:
        raise ConfigError(
            "training.rl.curriculum prefills part of the gold calls, and none of the "
            f"{len(tasks)} tasks has any; remove it, or use tasks whose answer is calls"
        )
    reasons = []
    for task, reply in gold[:CHECKED_TASKS]:
        try:
            policy.encode_reply(policy.open(task.messages, task.tools), reply)
        except DialectError as error:
            reasons.append(str(error))
    if len(reasons) == len(gold[:CHECKED_TASKS]):
        raise CapabilityError(
            f"training.rl.curriculum: this format cannot write the gold calls ({reasons[0]:.300})"
        )
    return f"curriculum: {len(gold)} of {len(tasks)} tasks have gold calls to prefill"


def thinking_prefix(policy: TokenPolicy) -> Ids:
    """The ids that open a thought in this format; empty where the template's header opens one.

    Found by rendering turns that differ in their thought alone. Raises `CapabilityError` where the
    format has no thought before calls and answers.
    """
    if policy.dialect.parse("x").problem is ParseProblem.UNCLOSED:
        return ()
    reason = "its calls and its answers open a thought in different ways"
    try:
        prompt = policy.open(_QUESTION, (_TOOL,))
        before_call, before_answer = (
            _common_prefix(
                policy.encode_reply(prompt, replace(message, reasoning=_THOUGHT)),
                policy.encode_reply(prompt, replace(message, reasoning="no")),
            )
            for message in (_CALL, _ANSWER)
        )
        text = policy.tokenizer.decode(before_call) + "x"
        opened = policy.dialect.parse(text).problem is ParseProblem.UNCLOSED
        if before_call == before_answer and before_call and opened:
            return before_call
    except DialectError as error:
        reason = f"{error!s:.200}"
    raise CapabilityError(
        "model.thinking or training.rl.enforce_thinking: this format has no thought before calls "
        f"and answers ({reason}); use a model whose template writes thoughts, a template switch "
        "that enables them (model.template_switches), model.dialect=tagged, or remove it"
    )


def thought_end(policy: TokenPolicy, text: str, calls: bool) -> Ids:
    """The ids that close the thought in which a reply's `text` breaks off; empty where in none.

    calls: they also open a call, as far as all calls of the format begin alike.
    """
    prompt, decode = policy.open(_QUESTION, (_TOOL,)), policy.tokenizer.decode
    try:
        answer, call, other = (
            decode(policy.encode_reply(prompt, replace(message, reasoning=_THOUGHT)))
            for message in (_ANSWER, _CALL, _OTHER_CALL)
        )
    except DialectError:
        return ()
    close = answer.partition(_THOUGHT)[2].partition(_ANSWER.content or "")[0]
    read = policy.dialect.parse(f"{text}{close}x")
    if not close or read.problem is not ParseProblem.NONE or read.reasoning is None:
        return ()
    opening = common_start(call, other).partition(_THOUGHT)[2]
    return tuple(policy.tokenizer.encode(opening if calls else close, control=True))


def call_prefix(policy: TokenPolicy, task: Task) -> Ids:
    """The ids that open any call in this format; empty where only a name tells call from answer."""
    names = [call.name or tool.name for call in task.expect.wanted for tool in task.tools]
    if not names:
        return ()
    other = ("b" if names[0].startswith("a") else "a") + names[0]
    calls = [Message("assistant", tool_calls=(ToolCall(name),)) for name in (names[0], other)]
    prompt = policy.open(task.messages, task.tools)
    try:
        first, second, answer = (
            policy.encode_reply(prompt, message) for message in (*calls, _ANSWER)
        )
    except DialectError:
        return ()
    opening, decode = _common_prefix(first, second), policy.tokenizer.decode
    return () if decode(answer).startswith(decode(opening)) else opening


def _common_prefix(first: Ids, second: Ids) -> Ids:
    differs = (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return first[: next(differs, min(len(first), len(second)))]


def failure_of(task: Task, episode: Episode) -> Failure | None:
    """How the first turn failed; None where it did not, or the environment broke the episode."""
    if not episode.turns or episode.ending is EpisodeStatus.FAILED:
        return None
    outcome = episode.outcomes[0]
    if outcome is TurnOutcome.TRUNCATED or episode.turns[0].problem is ParseProblem.UNCLOSED:
        return Failure.UNFINISHED
    text = outcome is TurnOutcome.ANSWER and all(choice.wanted for choice in task.expect.choices)
    return Failure.OTHERWISE if text or outcome is TurnOutcome.MALFORMED else None


def retry_prefix(policy: TokenPolicy, task: Task, episode: Episode, thinking: bool) -> Ids | None:
    """The prefill of a retry; None where there is none.

    An unfinished reply continues without its end mark; if it was a thought, after its end and the
    opening of a call, where calls are wanted. Any other failure starts with the opening of a call,
    where that is more than the first try had and no thought has to come first.
    """
    failure = failure_of(task, episode)
    if failure is None:
        return None
    turn = episode.turns[0]
    if failure is Failure.UNFINISHED:
        ended = turn.tokens[-1:] and turn.tokens[-1] in policy.params.stop_ids
        prefix = (*turn.prefill, *(turn.tokens[:-1] if ended else turn.tokens))
        if turn.message.reasoning is not None:
            prefix += thought_end(policy, turn.text, all(one.wanted for one in task.expect.choices))
    else:
        prefix = () if thinking else call_prefix(policy, task)
        if len(prefix) <= len(turn.prefill) or prefix[: len(turn.prefill)] != turn.prefill:
            return None
    return prefix if policy.fits(Prompt((), (), turn.prompt, prefill=prefix)) else None


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
