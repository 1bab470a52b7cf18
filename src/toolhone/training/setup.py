"""Builds what a training run needs from an experiment: model, format, tools, rows, environment.

setup = TrainingSetup(plan, open_registry(plan), UserMetrics.of(plan), progress)
rows, held_out, report = setup.rows(load_data(plan))        # SFT
env = setup.rl_env(dataset.play, hooks, run, labelled)      # GRPO, PPO
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from toolhone.agents.agent_player import AgentPlayer
from toolhone.backends.base import Sampler, SamplingParams, check_unconstrained
from toolhone.backends.open import (
    check_memory,
    check_plan,
    decided_elsewhere,
    open_tokenizer,
    open_trainer,
)
from toolhone.backends.usage import Metered, describe
from toolhone.config.experiment import is_pico
from toolhone.config.rl import STRATEGY
from toolhone.config.sections import Experiment, reward_section
from toolhone.config.small_sections import METHOD
from toolhone.config.user_code import USER_CODE, import_callable
from toolhone.data.render import render_rows
from toolhone.dialects.probe.certificate import Certificate, check_same, open_certified
from toolhone.dialects.probe.schema_words import hidden_note
from toolhone.episodes.driver import PlayTasks, run_episodes
from toolhone.episodes.episode import EpisodeRules
from toolhone.episodes.policy import KnownTools, TokenPolicy, open_policy
from toolhone.errors import ConfigError, DataError, ModelError
from toolhone.evaluation.evaluate import Metric
from toolhone.evaluation.evaluate import evaluate as play_and_score
from toolhone.evaluation.legacy_metrics import known_metric, known_metrics
from toolhone.evaluation.metrics import METRICS, RATES, WORLD_SCORES, Evaluation, plays_to_the_end
from toolhone.models.resolve import adapter_of, resolve_model, trained_format
from toolhone.rewards.reward_registry import PhaseSchedule, Reward, RewardSchedule, warnings_of
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import Run, read_json, write_json, writing
from toolhone.schema import Task
from toolhone.tokenizer import TextTokenizer
from toolhone.tools.registry import Registry
from toolhone.training.best_of_n import OwnSamples
from toolhone.training.dataset import Dataset, learns_labels, learns_texts
from toolhone.training.distill import DistillEnv
from toolhone.training.kept import kept_sample
from toolhone.training.local_teacher import LocalTeacher, open_teacher
from toolhone.training.loop import Hooks, Validation
from toolhone.training.preference_pairs import PairSource
from toolhone.training.prefill import (
    check_curriculum,
    check_thinking,
    format_request,
    thinking_prefix,
)
from toolhone.training.recipe import BY_DATA, fit_rows
from toolhone.training.reference import open_reference
from toolhone.training.reward_check import check_rewards
from toolhone.training.rollout import RLEnv, rows_in_prospect, rules_of
from toolhone.training.teacher import Lessons
from toolhone.training.text_lessons import TextLessons
from toolhone.training.update import expected_usage


@dataclass(frozen=True)
class UserMetrics:
    """Metrics and rewards of the user, measured next to the built-in scores."""

    metrics: Mapping[str, Metric]
    rewards: Sequence[Reward]

    @staticmethod
    def of(plan: Experiment) -> UserMetrics:
        """Those that the experiment names. Raises `ConfigError` for an unknown or repeated name."""
        own: dict[str, Metric] = {}
        for name in plan.evaluation.metrics or ():
            if not USER_CODE.fullmatch(name):
                known_metric(name)
            elif (key := name.rpartition(":")[2]) in own:
                raise ConfigError(
                    f"evaluation.metrics has two functions named {key!r}; rename one, "
                    "since scores are reported by name"
                )
            else:
                own[key] = import_callable(name, Path.cwd(), "a metric")
        by_agents = plan.data.chosen_strategy == STRATEGY
        section = reward_section(plan) if by_agents else plan.training.rl.reward
        if not section.functions and not section.phases:
            return UserMetrics(own, ())
        schedule = PhaseSchedule.of(section, validation_names(plan, own))
        return UserMetrics(own, schedule.phases[-1].rewards)


PICO_LIMITS = ("pico is shown names and parameters of tools, no descriptions, by design",)
"""What a run says of the embedded model's format; `toolhone doctor --model pico` says it all."""


class TrainingSetup:
    """Trainer, tokenizer, dialect and tools of one training, opened as the experiment says."""

    def __init__(
        self,
        plan: Experiment,
        registry: Registry,
        metrics: UserMetrics,
        progress: Progress,
        begun: Certificate | None = None,
    ) -> None:
        """`begun`: the certificate of the run that is resumed."""
        self.plan, self.registry, self.metrics, self.progress = plan, registry, metrics, progress
        name = resolve_model(plan)
        self.tokenizer = open_tokenizer(plan.model, name)
        trained = trained_format(plan)
        self.dialect, self.certificate = open_certified(
            self.tokenizer, format_request(plan, self.tokenizer, begun or trained)
        )
        for limit in PICO_LIMITS if is_pico(plan.model.name) else self.certificate.limits:
            progress.report(f"format: {limit}")
        if trained is not None:
            on_purpose = plan.model.dialect != "auto"
            check_same(trained, self.certificate, plan.model.adapter or name, on_purpose=on_purpose)
        self.trainer = open_trainer(plan.model, plan.training, name, adapter_of(plan), plan.seed)
        check_plan(plan, self.trainer.can)
        if (note := decided_elsewhere(plan, self.trainer.can)) is not None:
            progress.report(note)
        if self.trainer.info.note:
            progress.report(self.trainer.info.note)
        if tokens := self.trainer.info.micro_batch_tokens:  # a choice of the backend, kept
            model = plan.model.model_copy(update={"micro_batch_tokens": tokens})
            self.plan = plan.model_copy(update={"model": model})
        check_vocabulary(self.tokenizer, self.trainer.info.vocab_size, name)
        by_agents = plan.data.chosen_strategy == STRATEGY
        agents = AgentPlayer.of(plan, progress.report) if by_agents else None
        self.play: PlayTasks = agents.play if agents else run_episodes
        self.playing = closing(agents) if agents else nullcontext()
        if plan.model.thinking is not None:
            check_thinking(plan.model.thinking, self.policy())

    def rows(self, data: Dataset) -> tuple[list[Row], list[Row], dict[str, Any]]:
        """Rows to train on, held-out rows, and the report with every conversation accounted for."""
        plan = self.plan
        tools = (tool for row in data.train for tool in row.tools)
        note = None if is_pico(plan.model.name) else hidden_note(self.dialect, tools)
        if note is not None:
            self.progress.report(f"format: {note}")
        by_data = plan.training.recipe.chosen.get("training.max_length") == BY_DATA
        wanted = 0 if by_data else self._max_length()
        section = plan.training.model_copy(update={"max_length": wanted})
        arguments = (self.dialect, self.tokenizer, section, plan.data.too_long)
        train = render_rows(data.train, *arguments, self.progress)
        if by_data:
            self.plan, train = fit_rows(plan, train, self.trainer, self.progress.report)
            section = self.plan.training
            arguments = (self.dialect, self.tokenizer, section, plan.data.too_long)
        source = plan.data.validation or "the held-out part of the data"
        try:
            kept = render_rows(data.held_out, *arguments, may_be_empty=True)
        except DataError as error:
            raise DataError(f"{source}: {error}") from None
        counts = {
            "rows": len(train.rows),
            "too_long": train.dropped,
            "longest_row": train.longest,
            "held_out_too_long": kept.dropped,
            "not_learned": train.not_learned,
        }
        if not_learned := train.not_learned + kept.not_learned:
            what = "only turns of weight 0 ('weight', 'train', 'loss', ...) and give no row"
            self.progress.report(f"{not_learned} conversations have {what}")
        if dropped := train.dropped + kept.dropped:
            self.progress.report(
                f"{dropped} rows are longer than training.max_length={section.max_length} "
                "and were dropped whole"
            )
        if kept.dropped and not kept.rows:
            self.progress.report(
                f"{source}: all {kept.dropped} held-out rows are too long (longest "
                f"{kept.longest} tokens), so validations have no loss"
            )
        digest = hashlib.sha256(b"".join(row.tokens.tobytes() for row in train.rows)).hexdigest()
        return train.rows, kept.rows, {**data.report, **counts, "rows_sha256": digest}

    def labelled_rows(self, data: Dataset) -> tuple[list[Row], dict[str, Any]]:
        """Labelled rows of PPO-ptx and of teacher mode's warm-up, and their part of the report;
        nothing where there is neither."""
        if not learns_labels(self.plan):
            return [], {}
        rows, _, report = self.rows(replace(data, held_out=[], report={}))
        names = ("rows", "too_long", "longest_row", "not_learned", "rows_sha256")
        return rows, {f"ptx_{name}": report[name] for name in names}

    def pair_source(self) -> PairSource:
        return PairSource(
            self.plan,
            self.dialect,
            self.tokenizer,
            self._max_length(),
            self.trainer.info.max_context,
            self.progress,
        )

    def _max_length(self) -> int:
        """Most tokens of a row: `training.max_length`, or the model's context if that is less."""
        wanted, context = self.plan.training.max_length, self.trainer.info.max_context
        if not context or wanted <= context:
            return wanted
        self.progress.report(
            f"training.max_length={wanted} is more than the model's context; "
            f"rows may have {context} tokens"
        )
        return context

    def check_cost(self, rows: Sequence[Row], tasks: Sequence[Task]) -> None:
        """Report the predicted memory, or what a service will bill; refuse what cannot fit."""
        played = partial(rows_in_prospect, self.policy, tasks, self.plan)
        if (sentence := check_memory(self.trainer, self.plan, rows, played)) is not None:
            self.progress.report(sentence)
        unknown = USER_CODE.fullmatch(self.plan.training.method) or learns_texts(self.plan)
        if isinstance(self.trainer, Metered) and not unknown:
            expected = expected_usage(self.plan, rows, len(tasks))
            self.progress.report(f"cost: {expected}; validations come on top")

    def report_usage(self, run: Run) -> None:
        """Report the tokens that a service has billed, and add them to RUN/usage.json."""
        if not isinstance(self.trainer, Metered):
            return
        path, used = run.folder / "usage.json", asdict(self.trainer.usage)
        before = read_json(path) if path.is_file() else {}
        with writing(path):
            write_json(path, {name: count + before.get(name, 0) for name, count in used.items()})
        self.progress.report(f"tokens of this session: {describe(self.trainer.usage)}")

    def env(
        self, data: Dataset, hooks: Hooks, run: Run, labelled: Sequence[Row] = ()
    ) -> RLEnv | Lessons | DistillEnv:
        """What a method that writes its own rows works with."""
        if learns_texts(self.plan):
            texts = data.texts, data.held_out_texts
            return TextLessons(texts, self.tokenizer, self.registry, hooks, self.plan)
        env = self.rl_env(data.play, hooks, run, labelled)
        if self.plan.training.method == "distill":
            sampler = open_teacher(self.plan, self.trainer, self.tokenizer, self.certificate, run)
            teacher = LocalTeacher.of(self.policy(sampler), env, run)
            return DistillEnv(env, teacher, KnownTools.of(self.plan, self.registry.tools))
        return OwnSamples(env, self.plan) if self.plan.training.method == METHOD else env

    def rl_env(
        self, tasks: Sequence[Task], hooks: Hooks, run: Run, labelled: Sequence[Row] = ()
    ) -> RLEnv:
        """The environment of an RL method; saves or loads the reference policy."""
        rl, prefix = self.plan.training.rl, self._thinking_prefix()
        rewards = RewardSchedule(self._phases(), penalty=rl.episode.penalty)
        for sentence in warnings_of(reward_section(self.plan)):
            self.progress.report(f"note: {sentence}")

        def policy(sampler: Sampler, seed: int) -> TokenPolicy:
            params = SamplingParams(rl.max_completion_length, rl.temperature, seed=seed % 2**32)
            check_unconstrained(params, self.plan.training.method)
            parts = sampler, self.dialect, self.tokenizer, params, self.trainer.info.max_context
            return TokenPolicy(*parts, opening=prefix)

        def rules(task: Task) -> EpisodeRules:
            live = plays_to_the_end(task, self.registry.runnable)
            to_the_end = live if rl.episode.to_the_end is None else rl.episode.to_the_end
            return rules_of(rl.episode, self.plan.evaluation.max_turns, to_the_end)

        def validate(sampler: Sampler) -> Validation:
            rewards.validated, samples = hooks.validate(sampler)
            return rewards.validated, samples

        return RLEnv(
            tasks=tasks,
            registry=self.registry,
            policy=policy,
            score=rewards.compute_reward,
            rules=rules,
            reference=open_reference(self.trainer, run) if rl.beta or rl.track_kl else None,
            decode=lambda ids: self.tokenizer.decode(list(ids)),
            hooks=replace(hooks, validate=validate),
            rewards=rewards,
            labelled=labelled,
            by_turn=rl.reward.credit == "turn",
            play=self.play,
        )

    def _thinking_prefix(self) -> tuple[int, ...]:
        enforced = self.plan.training.rl.enforce_thinking
        return thinking_prefix(self.policy()) if enforced else ()

    def policy(self, sampler: Sampler | None = None) -> TokenPolicy:
        """A policy with the sampling of evaluation; by default of the trainer's weights now."""
        sampler = self.trainer.snapshot() if sampler is None else sampler
        context, tools = self.trainer.info.max_context, self.registry.tools
        return open_policy(sampler, self.dialect, self.tokenizer, self.plan, context, tools)

    def _phases(self) -> PhaseSchedule:
        names = validation_names(self.plan, self.metrics.metrics)
        return PhaseSchedule.of(reward_section(self.plan), names)

    def check_rewards(self, tasks: Sequence[Task]) -> None:
        """Refuse rewards that pay the right answers of this format less than they can."""
        rl = self.plan.training.rl
        if not rl.reward.check:
            self.progress.report(
                "note: training.rl.reward.check=false: the rewards are not checked"
            )
        elif note := check_rewards(self.policy(), self._phases(), tasks, rl.enforce_thinking):
            self.progress.report(f"note: {note}")

    def check_prefill(self, tasks: Sequence[Task]) -> None:
        """Report what replies are prefilled with; refuse what this format or these tasks lack."""
        rl = self.plan.training.rl
        if rl.curriculum.enabled:
            self.progress.report(check_curriculum(self.policy(), tasks))
        if rl.enforce_thinking:
            opening = self.tokenizer.decode(self._thinking_prefix())
            how = (
                f"is prefilled with {opening!r}" if opening else "starts in the template's thought"
            )
            self.progress.report(f"enforce_thinking: every reply {how}, in training only")

    def check_tools(self, tasks: Sequence[Task]) -> None:
        """Refuse tools that constrained calls cannot be limited to in this format."""
        if self.plan.evaluation.constrained:
            self.policy().check_tools(task.tools for task in tasks)

    def evaluate(
        self, sampler: Sampler, tasks: Sequence[Task], progress: Progress | None = None
    ) -> Evaluation:
        return play_and_score(
            self.policy(sampler),
            tasks,
            self.registry,
            progress,
            self.plan.evaluation.max_turns,
            self.metrics.metrics,
            self.metrics.rewards,
            self.play,
        )

    def validate(self, sampler: Sampler, tasks: Sequence[Task]) -> Validation:
        chosen = tasks[: self.plan.training.validation_samples]
        named = named_metrics(self.plan)
        if not chosen:
            return {}, []
        return scores_of(self.evaluate(sampler, chosen, self.progress), named)

    def save(self, folder: Path, optimizer: bool) -> str:
        """Write a checkpoint into `folder`; returns the trainer's reference to its weights."""
        ref = self.trainer.save(folder, optimizer)
        self.certificate.save(folder)
        if not self.trainer.info.has_adapter:
            self.tokenizer.save(folder)
        return ref


def validation_names(plan: Experiment, own: Collection[str]) -> list[str]:
    """Names of the scores of a validation, which reward phases may wait for."""
    if not plan.training.validate_every:
        return []
    return list(dict.fromkeys([*METRICS, *WORLD_SCORES, *named_metrics(plan), *own]))


def named_metrics(plan: Experiment) -> dict[str, str]:
    """The metrics that `evaluation.metrics` names, as written there, and their full names."""
    names = [one for one in plan.evaluation.metrics or () if not USER_CODE.fullmatch(one)]
    full = dict(zip(names, known_metrics(names), strict=True))
    return {one if one not in METRICS else name: name for one, name in full.items()}


def check_vocabulary(tokenizer: TextTokenizer, rows: int, name: str) -> None:
    """Raise `ModelError` when the tokenizer has more tokens than the model has embeddings."""
    if tokenizer.vocab_size > rows:
        raise ModelError(
            f"{name}: the tokenizer has {tokenizer.vocab_size} tokens, but the model only {rows}; "
            "they do not belong together"
        )


def scores_of(result: Evaluation, named: Mapping[str, str] = MappingProxyType({})) -> Validation:
    """The metrics that were measured, those that are `named` too, and the samples for a log."""
    every = {name: score.value for name, score in result.metrics.items()}
    for group, legacy in result.legacy.items():
        every |= {f"{group}.{name}": score.value for name, score in legacy.items()}
    scores = {name: every[name] for name in result.metrics if name not in RATES}
    scores |= {name: every[full] for name, full in named.items() if full in every}
    measured = {name: value for name, value in scores.items() if value is not None}
    return measured | result.rewards, [kept_sample(one) for one in result.samples]
