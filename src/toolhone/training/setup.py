"""What a training works with: trainer, tokenizer, dialect, tools, rewards and measures, opened as an experiment says.

    bench = Bench(plan, open_registry(plan), Measures.of(plan), progress)
    rows, held_out, report = bench.rows(gather(plan))      # for what learns from conversations
    stage = bench.stage(tasks, hooks, run)                 # for what learns by doing

`api.train` puts a bench and an algorithm together. This is the only place beside it that knows a concrete backend.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolhone.backends.base import Sampler, SamplingParams, check_unconstrained
from toolhone.backends.constraint import Grammars
from toolhone.backends.open import check_plan, open_trainer
from toolhone.config.rl import EpisodeSection, RewardSection
from toolhone.config.sections import Experiment
from toolhone.config.user_code import import_callable, is_user_code
from toolhone.data.dataset import Dataset
from toolhone.data.render import render_rows
from toolhone.dialects.base import Dialect
from toolhone.dialects.probe.certificate import FormatRequest, check_same, open_certified
from toolhone.episodes.outcome import EpisodeRules, OnFault, TurnOutcome
from toolhone.episodes.policy import TokenPolicy
from toolhone.errors import ConfigError, ModelError
from toolhone.evaluation.evaluate import Metric
from toolhone.evaluation.evaluate import evaluate as play_and_judge
from toolhone.evaluation.legacy_metrics import known_metric
from toolhone.evaluation.metrics import METRICS, RATES, Evaluation, can_run
from toolhone.models.resolve import adapter_of, resolve_model, trained_format
from toolhone.rewards.registry import Reward
from toolhone.rewards.schedule import PhaseSchedule, RewardSchedule, warnings_of
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import Run
from toolhone.schema import Task
from toolhone.tokenizer import TextTokenizer
from toolhone.tools.registry import Registry
from toolhone.training.preference_pairs import PairSource
from toolhone.training.prefill import check_curriculum, thinking_prefix
from toolhone.training.rl_metrics import RLEnv
from toolhone.training.sft import Hooks, Validation


@dataclass(frozen=True)
class UserMetrics:
    """What is measured beside our own scores: metrics and rewards of the user's own."""

    metrics: Mapping[str, Metric]
    rewards: Sequence[Reward]

    @staticmethod
    def of(plan: Experiment) -> UserMetrics:
        """Those that the experiment names; a name of a metric that nobody knows is refused."""
        own: dict[str, Metric] = {}
        for name in plan.evaluation.metrics or ():
            if not is_user_code(name):
                known_metric(name)
            elif (key := name.rpartition(":")[2]) in own:
                raise ConfigError(
                    f"evaluation.metrics has two functions named {key!r}; scores are told apart by name, so rename one"
                )
            else:
                own[key] = import_callable(name, Path.cwd(), "a metric")
        schedule = PhaseSchedule.of(plan.training.rl.reward, validation_names(plan, own))
        return UserMetrics(own, schedule.rewards(schedule.last))


class TrainingSetup:
    """What one training works with: trainer, tokenizer, dialect and tools, opened as the experiment says."""

    def __init__(
        self, plan: Experiment, registry: Registry, measures: UserMetrics, progress: Progress
    ) -> None:
        self.plan, self.registry, self.measures, self.progress = plan, registry, measures, progress
        name = resolve_model(plan)
        self.tokenizer = TextTokenizer.load(name, plan.model.trust_remote_code)
        self.dialect, self.certificate = open_certified(self.tokenizer, format_request(plan))
        for limit in self.certificate.limits:
            progress.report(f"format: {limit}")
        if (trained := trained_format(plan)) is not None:
            check_same(
                trained,
                self.certificate,
                plan.model.adapter or name,
                on_purpose=plan.model.dialect != "auto",
            )
        self.trainer = open_trainer(plan.model, plan.training, name, adapter_of(plan), plan.seed)
        check_plan(plan, self.trainer.can)
        same_vocabulary(self.tokenizer, self.trainer.info.vocab_size, name)

    def rows(self, materials: Dataset) -> tuple[list[Row], list[Row], dict[str, Any]]:
        """Rows to train on, held-out rows, and the account of where every conversation went."""
        plan = self.plan
        section = plan.training.model_copy(update={"max_length": self._longest_row()})
        train = render_rows(
            materials.train,
            self.dialect,
            self.tokenizer,
            section,
            plan.data.too_long,
            self.progress,
        )
        held_out = []
        counts = {
            "rows": len(train.rows),
            "too_long": train.dropped,
            "longest_row": train.longest,
            "held_out_too_long": 0,
        }
        if materials.held_out:
            kept = render_rows(
                materials.held_out, self.dialect, self.tokenizer, section, plan.data.too_long
            )
            held_out, counts["held_out_too_long"] = kept.rows, kept.dropped
        dropped = counts["too_long"] + counts["held_out_too_long"]
        if dropped:
            self.progress.report(
                f"{dropped} rows are longer than training.max_length={section.max_length} and were dropped whole"
            )
        digest = hashlib.sha256(b"".join(row.tokens.tobytes() for row in train.rows)).hexdigest()
        return train.rows, held_out, {**materials.report, **counts, "rows_sha256": digest}

    def labelled(self, materials: Dataset) -> tuple[list[Row], dict[str, Any]]:
        """Rows that `training.rl.ptx.coef` learns on beside the reward, and their account; none where it is 0."""
        if not self.plan.training.rl.ptx.coef:
            return [], {}
        rows, _, account = self.rows(replace(materials, held_out=[], report={}))
        return rows, {
            f"ptx_{name}": account[name]
            for name in ("rows", "too_long", "longest_row", "rows_sha256")
        }

    def pairing(self) -> PairSource:
        """What makes preference pairs and their rows."""
        context = self.trainer.info.max_context
        return PairSource(
            self.plan, self.dialect, self.tokenizer, self._longest_row(), context, self.progress
        )

    def _longest_row(self) -> int:
        """Tokens that a row may have: what is asked for, or what the model takes."""
        asked, context = self.plan.training.max_length, self.trainer.info.max_context
        if not context or asked <= context:
            return asked
        self.progress.report(
            f"training.max_length={asked} is more than the model's context; rows may have {context} tokens"
        )
        return context

    def stage(
        self, tasks: Sequence[Task], hooks: Hooks, run: Run, labelled: Sequence[Row] = ()
    ) -> RLEnv:
        """What a method of reinforcement learning works with."""
        rl, turns, opening = self.plan.training.rl, self.plan.evaluation.max_turns, self._opening()

        def policy(sampler: Sampler, seed: int) -> TokenPolicy:
            params = SamplingParams(rl.max_completion_length, rl.temperature, seed=seed % 2**32)
            check_unconstrained(params, self.plan.training.method)
            context = self.trainer.info.max_context
            return TokenPolicy(
                sampler, self.dialect, self.tokenizer, params, context, opening=opening
            )

        def rules(task: Task) -> EpisodeRules:
            live = task.expect.answer is not None and can_run(task, self.registry.runnable)
            return _rules(
                rl.episode, turns, live if rl.episode.to_the_end is None else rl.episode.to_the_end
            )

        payroll = RewardSchedule(
            PhaseSchedule.of(
                reward_section(rl.reward), validation_names(self.plan, self.measures.metrics)
            ),
            penalty=rl.episode.penalty,
        )

        def observe(step: int, metrics: Mapping[str, float]) -> None:
            if (sentence := payroll.observe(step, metrics)) is not None:
                self.progress.report(sentence)

        def validate(sampler: Sampler) -> Validation:
            payroll.validated, samples = hooks.validate(sampler)
            return payroll.validated, samples

        for sentence in warnings_of(reward_section(rl.reward)):
            self.progress.report(f"note: {sentence}")
        told = lambda ids: self.tokenizer.decode(list(ids))  # noqa: E731
        own, reference = replace(hooks, validate=validate), self._reference(run)
        return RLEnv(
            tasks,
            self.registry,
            policy,
            payroll.compute_reward,
            observe,
            rules,
            reference,
            told,
            own,
            payroll,
            labelled,
        )

    def _opening(self) -> tuple[int, ...]:
        """What every reply is given to begin with, where the experiment enforces a thought."""
        return (
            thinking_prefix(self._plain_policy()) if self.plan.training.rl.enforce_thinking else ()
        )

    def _plain_policy(self) -> TokenPolicy:
        """The policy as it is now, to write with."""
        return policy_of(
            self.trainer.snapshot(),
            self.dialect,
            self.tokenizer,
            self.plan,
            self.trainer.info.max_context,
        )

    def check_given(self, tasks: Sequence[Task]) -> None:
        """Say what replies are given to begin with; refuse, before any training, what this format or these tasks do not have."""
        rl = self.plan.training.rl
        if rl.curriculum.enabled:
            self.progress.report(check_curriculum(self._plain_policy(), tasks))
        if rl.enforce_thinking:
            opening = self.tokenizer.decode(self._opening())
            given = (
                f"is given {opening!r} to begin with"
                if opening
                else "begins in a thought that the template opens"
            )
            self.progress.report(f"enforce_thinking: every reply {given}, in training only")

    def _reference(self, run: Run) -> Sampler | None:
        """The policy as the run began with it, where the KL to it counts; kept in the run, so that a resumed one has it."""
        if not self.plan.training.rl.beta:
            return None
        folder = run.folder / "reference"
        if folder.is_dir():
            self.trainer.load(folder, optimizer=False)
        else:
            self.trainer.save(folder, optimizer=False)
        return self.trainer.snapshot()

    def evaluate(
        self, sampler: Sampler, tasks: Sequence[Task], progress: Progress | None = None
    ) -> Evaluation:
        policy = policy_of(
            sampler, self.dialect, self.tokenizer, self.plan, self.trainer.info.max_context
        )
        measures, turns = self.measures, self.plan.evaluation.max_turns
        return play_and_judge(
            policy, tasks, self.registry, progress, turns, measures.metrics, measures.rewards
        )

    def check_tools(self, tasks: Sequence[Task]) -> None:
        """Refuse, before any training, tools that evaluation could not play as it is asked to."""
        self._plain_policy().check_tools(task.tools for task in tasks)

    def validate(self, sampler: Sampler, tasks: Sequence[Task]) -> Validation:
        chosen = tasks[: self.plan.training.validation_samples]
        return scores_of(self.evaluate(sampler, chosen)) if chosen else ({}, [])

    def save(self, folder: Path, optimizer: bool) -> str:
        """Write a checkpoint into `folder`; returns the trainer's reference to its weights."""
        ref = self.trainer.save(folder, optimizer)
        self.certificate.save(folder)
        if not self.trainer.info.has_adapter:
            self.tokenizer.save(folder)
        return ref


def validation_names(plan: Experiment, own: Collection[str]) -> list[str]:
    """Names of scores that a validation gives, those of `own` metrics too: what phases of the rewards may wait for."""
    return (
        [*(name for name in METRICS if name not in RATES), *own]
        if plan.training.validate_every
        else []
    )


def reward_section(section: RewardSection) -> RewardSection:
    """The rewards of an experiment; our own `tool_use` where it names none."""
    return (
        section
        if section.functions or section.phases
        else section.model_copy(update={"functions": ["tool_use"]})
    )


def _rules(section: EpisodeSection, max_turns: int, to_the_end: bool) -> EpisodeRules:
    """The rules of an episode, as the experiment says."""
    then = {
        TurnOutcome.MALFORMED: OnFault(section.malformed),
        TurnOutcome.UNKNOWN_TOOL: OnFault(section.unknown_tool),
        TurnOutcome.BAD_ARGUMENTS: OnFault(section.bad_arguments),
        TurnOutcome.TRUNCATED: OnFault(section.truncated),
    }
    stop_tools, too_many = frozenset(section.stop_tools), OnFault(section.too_many_turns)
    return EpisodeRules(section.max_turns or max_turns, not to_the_end, then, stop_tools, too_many)


def format_request(plan: Experiment) -> FormatRequest:
    """The format that an experiment asks for."""
    model = plan.model
    return FormatRequest(
        model.dialect, model.markup, model.history == "kept", model.template_switches
    )


def same_vocabulary(tokenizer: TextTokenizer, rows: int, name: str) -> None:
    if tokenizer.vocab_size > rows:
        raise ModelError(
            f"{name}: the tokenizer has {tokenizer.vocab_size} tokens but the model only {rows}; they do not belong together"
        )


def policy_of(
    sampler: Sampler, dialect: Dialect, tokenizer: TextTokenizer, plan: Experiment, context: int
) -> TokenPolicy:
    wanted = plan.evaluation
    params = SamplingParams(
        wanted.max_new_tokens, wanted.temperature, wanted.top_p, wanted.top_k, seed=plan.seed
    )
    return TokenPolicy(
        sampler,
        dialect,
        tokenizer,
        params,
        context,
        Grammars(dialect, tokenizer).text if wanted.constrained else None,
    )


def scores_of(result: Evaluation) -> Validation:
    """The metrics that were measured, and the samples as they go into a log."""
    scores = {name: score.value for name, score in result.metrics.items() if name not in RATES}
    measured = {name: value for name, value in scores.items() if value is not None} | result.rewards
    return measured, [
        {"id": s.id, "category": s.category, "text": s.text, "scores": dict(s.scores)}
        for s in result.samples
    ]
