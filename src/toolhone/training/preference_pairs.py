"""Preference pairs of an experiment as rows: from a file, against typed mistakes, or of own
samples.

    source = PairSource(plan, dialect, tokenizer, max_length, max_context, progress)
    pairs = source.make(dataset, trainer.snapshot())     # pairs.rows, pairs.held_out, pairs.report
    source.keep(pairs, run.folder)                       # RUN/pairs.jsonl and RUN/pairs.json
    pairs = source.stored(run.folder)                    # the same again, in a resumed run

Own samples are drawn once, from the policy at step 0, and judged as `exact_match` judges a turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolhone.backends.base import Metrics, Sampler, SamplingParams, StopReason
from toolhone.config.sections import Experiment
from toolhone.data.negatives import corrupt
from toolhone.data.preferences import (
    PairBatch,
    PreferencePair,
    Sampled,
    against_samples,
    among_samples,
    assistant_turns,
    pair_rows,
)
from toolhone.dialects.interface import Dialect, ParseProblem
from toolhone.episodes.policy import TokenPolicy, Turn
from toolhone.errors import DataError, RunError
from toolhone.rewards.matching import judges_calls, match_calls
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import write_json, write_text, writing
from toolhone.schema import Conversation, Task
from toolhone.sources.files import read_records
from toolhone.tokenizer import TextTokenizer
from toolhone.training.dataset import Dataset
from toolhone.training.loop import Loop, MetricsAccumulator
from toolhone.training.losses import own_means
from toolhone.training.update import step_values

PAIRS, REPORT = "pairs.jsonl", "pairs.json"
PER_PAIR = (
    "margin",
    "accuracy",
    "chosen_reward",
    "rejected_reward",
    "chosen_logp",
    "rejected_logp",
)
"""Metrics of the loss that are sums over pairs, and are logged as means."""
SAMPLED_TOGETHER = 64
"""Tasks that are sampled in one call."""


@dataclass(frozen=True)
class PreparedPairs:
    """Pairs to train on and held-out ones, and their rows, the chosen one of each pair first."""

    pairs: Sequence[PreferencePair]
    held_out_pairs: Sequence[PreferencePair]
    rows: list[Row]
    held_out: list[Row]
    report: dict[str, Any]

    def summary(self) -> str:
        """`pairs: 812 to train on (412 malformed, ...), 40 held out; 3 identical, 1 too_long`."""
        train = self.report["train"]
        kinds = ", ".join(f"{count} {kind}" for kind, count in train["kinds"].items())
        lost = [
            f"{n} {why}"
            for why in ("identical", "unwritable", "not_learned", "too_long")
            if (n := train[why])
        ]
        lost += [
            f"{n} turns without a pair: {why}" for why, n in train.get("without_pair", {}).items()
        ]
        counts = f"{len(self.rows) // 2} to train on ({kinds}), {len(self.held_out) // 2} held out"
        return f"pairs: {counts}" + (f"; {', '.join(lost)}" if lost else "")


@dataclass(frozen=True)
class PairSource:
    """Makes the pairs of one experiment."""

    plan: Experiment
    dialect: Dialect
    tokenizer: TextTokenizer
    max_length: int
    max_context: int
    progress: Progress

    @property
    def samples(self) -> bool:
        """Tell whether pairs hold samples of the model, which are drawn once, at the start."""
        return self.plan.data.preferences in ("own_samples", "own_ranked")

    def make(self, data: Dataset, sampler: Sampler) -> PreparedPairs:
        """The pairs of a dataset: ranked samples of its tasks, its own pairs, or made ones."""
        if data.play:
            parts = [
                self._ranked(part, sampler, i) for i, part in enumerate((data.play, data.tasks))
            ]
        elif data.pairs:
            read = (data.pairs, data.held_out_pairs)
            parts = [PairBatch([PreferencePair(one) for one in pairs]) for pairs in read]
        else:
            both = (data.train, data.held_out)
            parts = [self._against_gold(part, sampler, i) for i, part in enumerate(both)]
        return self._prepare([part.pairs for part in parts], [part.report for part in parts])

    def keep(self, pairs: PreparedPairs, folder: Path) -> None:
        """Write the pairs, one per line, and their report into a run folder."""
        parts = (("train", pairs.pairs), ("held_out", pairs.held_out_pairs))
        lines = (
            json.dumps({**pair.to_dict(), "part": part}, ensure_ascii=False)
            for part, members in parts
            for pair in members
        )
        with writing(folder):
            write_text(folder / PAIRS, "".join(f"{line}\n" for line in lines))
            write_json(folder / REPORT, pairs.report)

    def stored(self, folder: Path) -> PreparedPairs:
        """The pairs that `keep` wrote into a run folder."""
        path = folder / PAIRS
        if not path.is_file():
            raise RunError(f"{path}, the pairs of this run, is missing; train into another folder")
        parts: dict[str, list[PreferencePair]] = {"train": [], "held_out": []}
        for _, line in read_records(path):
            parts[line["part"]].append(PreferencePair.from_dict(line))
        return self._prepare([parts["train"], parts["held_out"]], [{}, {}])

    def _prepare(
        self, pairs: Sequence[Sequence[PreferencePair]], reports: Sequence[dict[str, Any]]
    ) -> PreparedPairs:
        train, held_out = (
            pair_rows(part, self.dialect, self.tokenizer, self.max_length, self.plan.data.too_long)
            for part in pairs
        )
        report = {
            "train": {**reports[0], **train.report},
            "held_out": {**reports[1], **held_out.report},
        }
        if not train.rows:
            counts = json.dumps(report["train"], ensure_ascii=False)
            raise DataError(f"there is no pair to train on: {counts:.300}")
        return PreparedPairs(pairs[0], pairs[1], train.rows, held_out.rows, report)

    def _against_gold(
        self, conversations: Sequence[Conversation], sampler: Sampler, part: int
    ) -> PairBatch:
        """Gold turns against typed mistakes or wrong samples; `part` separates random streams."""
        turns, each = assistant_turns(conversations), self.plan.data.pairs
        seed = self.plan.seed * 2 + part
        if not self.samples:
            return corrupt(turns, self.dialect, seed, each)
        samples = self._sample([turn.task for turn in turns], sampler, seed)
        return against_samples(turns, list(samples), each)

    def _ranked(self, tasks: Sequence[Task], sampler: Sampler, part: int) -> PairBatch:
        """Right samples of a task against wrong ones."""
        judged = [task for task in tasks if judges_calls(task.expect)]
        samples = self._sample(judged, sampler, self.plan.seed * 2 + part)
        batch = among_samples(judged, list(samples), self.plan.data.pairs)
        skipped = {"tasks_without_calls_to_judge": len(tasks) - len(judged)}
        return PairBatch(batch.pairs, {**batch.report, **skipped})

    def _sample(
        self, tasks: Sequence[Task], sampler: Sampler, seed: int
    ) -> Iterable[list[Sampled]]:
        """`group_size` samples of each task; none where its prompt leaves no room.

        The place of a task names its random stream, so that batching changes nothing.
        """
        rl = self.plan.training.rl
        params = SamplingParams(rl.max_completion_length, rl.temperature, seed=seed % 2**32)
        policy = TokenPolicy(sampler, self.dialect, self.tokenizer, params, self.max_context)
        params = replace(policy.params, num_samples=rl.group_size)
        self.progress.start("sampling", len(tasks))
        for start in range(0, len(tasks), SAMPLED_TOGETHER):
            part = tasks[start : start + SAMPLED_TOGETHER]
            prompts = [policy.open(task.messages, task.tools) for task in part]
            places = [place for place, prompt in enumerate(prompts) if policy.fits(prompt)]
            drawn = sampler.sample(
                [prompts[place].tokens for place in places],
                params,
                [start + place for place in places],
            )
            samples = dict(zip(places, drawn, strict=True))
            for place, (task, prompt) in enumerate(zip(part, prompts, strict=True)):
                turns = [policy.read(prompt, sample) for sample in samples.get(place, ())]
                yield [
                    Sampled(tuple(turn.tokens), turn.text, is_right(turn, task), turn.message)
                    for turn in turns
                ]
            self.progress.advance(len(part))


def is_right(turn: Turn, task: Task) -> bool:
    """Tell whether a turn parses, ended, and is exactly the wanted calls (or text for none)."""
    if turn.problem is not ParseProblem.NONE or turn.stop_reason is not StopReason.STOP:
        return False
    calls = turn.message.tool_calls
    if not calls and not (turn.message.content or "").strip():
        return False
    return match_calls(calls, task.expect, task.tools).exact


def report_dpo(loop: Loop, sums: MetricsAccumulator) -> None:
    """Log means since the last report: per step, per pair, and the KL per chosen token."""
    state = loop.state
    means = {
        "loss": sums.mean("loss"),
        **{name: sums.mean(name, "pairs") for name in PER_PAIR},
        "kl_reference": sums.mean("kl_reference", "chosen_tokens"),
        **sums.known_means("grad_norm"),
        **own_means(sums.sums),
    }
    rest = step_values(loop, sums)
    loop.run.log("train", state.step, {**means, **rest})
    loop.hooks.progress.report(
        f"Iteration {state.step}/{loop.total} | Loss: {means['loss']:.4f} | "
        f"Margin: {means['margin']:.3f} | Accuracy: {means['accuracy']:.3f} | "
        f"{rest['tokens_per_second']:,.0f} tokens/s"
    )
    if (
        sums.count("steps")
        and (sentence := pair_advice(means, state.step / loop.total)) is not None
    ):
        loop.hooks.progress.report(f"  note: {sentence}")


def pair_advice(means: Metrics, done: float) -> str | None:
    """What the means suggest after this share of the steps; None when nothing is unusual."""
    if means["chosen_reward"] < -1:
        return (
            f"the chosen replies become less likely too (reward {means['chosen_reward']:.1f}): "
            "raise training.rl.beta, or lower training.learning_rate"
        )
    if means["accuracy"] > 0.99 and means["loss"] < 0.01:
        return (
            "every pair is ranked correctly: further training only moves the policy away from "
            "its start; stop, or find harder pairs"
        )
    if done > 0.5 and means["accuracy"] < 0.55:
        return (
            "the pairs are hardly distinguished: raise training.learning_rate, "
            "or look at the pairs in the run folder (pairs.jsonl)"
        )
    return None
