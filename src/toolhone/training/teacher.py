"""Teacher mode: the model writes rows, the best of them are kept, it trains on these; in rounds.

    status = teacher_mode(trainer, lessons, run, checkpoint)

`lessons` writes the rows: `best_of_n.OwnSamples` from its own episodes (rejection sampling),
`text_lessons.TextLessons` by putting calls into plain text (Toolformer). docs/teacher.md explains
what is counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from toolhone.backends.base import Sampler, Trainer, train_step
from toolhone.config.sections import Experiment
from toolhone.errors import RunError
from toolhone.rows import Origin, Row
from toolhone.runs.run import Run, write_text, writing
from toolhone.training.loop import Hooks, Loop, MetricsAccumulator, TrainState, TrainStatus, resume
from toolhone.training.losses import cross_entropy
from toolhone.training.sft import report
from toolhone.training.update import optimizer_at, ptx_rows, seeded_batch, with_token_weights

Record = dict[str, Any]
"""What became of one task or text: `proposed`, `ran`, `kept` and `reasons` (counts), `rows` (each
`tokens` and `origin`), and what the writer adds."""


class Lessons(Protocol):
    """Writes the rows of a round. `size`: tasks or texts of a round. `labelled`: rows of the data
    as it is, for the warm-up and beside the rounds."""

    hooks: Hooks
    size: int
    labelled: Sequence[Row]
    held_out: Sequence[Row]

    def write(self, sampler: Sampler, number: int, first: int) -> Iterator[Record]:
        """The records of round `number` (from 1), from the record `first` on, always the same."""


def teacher_mode(
    trainer: Trainer, lessons: Lessons, run: Run, resume_from: Path | None = None
) -> TrainStatus:
    """Train for `teacher.rounds` rounds as `run.experiment.training` plans."""
    plan, seed = run.experiment.training, run.experiment.seed
    rounds = Rounds.of(run.experiment, lessons.size)
    if rounds.count < run.experiment.teacher.rounds:
        lessons.hooks.progress.report(
            f"{rounds.total - rounds.warmup} steps after the warm-up are enough for {rounds.count} "
            f"of {run.experiment.teacher.rounds} rounds"
        )
    state = resume(trainer, run, resume_from, TrainState())
    loop = Loop(trainer, run, lessons.hooks, rounds.total, state, lessons.held_out)
    journal = RoundJournal(run.folder / "teacher", rounds.number(state.step))
    sums = MetricsAccumulator(state.sums, loop.seconds)
    size = plan.batch_size * plan.gradient_accumulation_steps
    number, rows = -1, list[Row]()
    for step in loop:
        if number != rounds.number(step):  # the warm-up (0) or a round begins, or is resumed
            number = rounds.number(step)
            rows = next_rows_of(loop, lessons, journal, rounds, number)
            if loop.stopping:
                continue  # what was written is in the journal
        batches = [with_token_weights(seeded_batch(rows, size, seed, step, 17, number))]
        if number and (labelled := ptx_rows(lessons.labelled, plan.rl.ptx, seed, step, 0)):
            batches.append(labelled)
        metrics = train_step(
            trainer, batches, cross_entropy(), optimizer_at(plan, step, loop.total)
        )
        sums.add(metrics, [row for batch in batches for row in batch])
        loop.check_skipped(1, metrics.get("skipped", 0.0))
        loop.finish_step(f"round {number}  nll {metrics['nll'] / max(1, metrics['tokens']):.3f}")
        if loop.due(plan.log_every):
            report(loop, sums)
            sums.clear()
    return loop.status


@dataclass(frozen=True)
class Rounds:
    """Which steps belong to the warm-up and to each round."""

    total: int
    warmup: int
    count: int

    @staticmethod
    def of(experiment: Experiment, size: int) -> Rounds:
        """`training.steps`, or as many as see each task or text `training.epochs` times a round.

        A round has at least one step.
        """
        plan, own = experiment.training, experiment.teacher
        each = max(1, round(plan.epochs * size / plan.batch_size))
        total = plan.steps or round(each * own.rounds / (1 - own.warmup))
        warmup = int(total * own.warmup)
        return Rounds(total, warmup, min(own.rounds, total - warmup))

    def number(self, step: int) -> int:
        """The round of a step (0-based): 0 for the warm-up, then from 1."""
        return sum(step >= self.start(number) for number in range(1, self.count + 1))

    def start(self, number: int) -> int:
        """The first step of a round."""
        return self.warmup + (number - 1) * (self.total - self.warmup) // self.count


class RoundJournal:
    """The records of each round, in JSON Lines: `RUN/teacher/round_N.jsonl`.

    Rounds after `current` are removed: a run that resumes before them writes them again.
    """

    def __init__(self, folder: Path, current: int) -> None:
        self.folder = folder
        for path in folder.glob("round_*.jsonl"):
            if int(path.stem.removeprefix("round_")) > current:
                path.unlink()

    def read(self, number: int) -> list[Record]:
        """The records of a round so far; a last line that was cut off is removed."""
        path = self._path(number)
        lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else [""]
        if lines.pop():
            write_text(path, "".join(f"{line}\n" for line in lines))
        return [json.loads(line) for line in lines]

    def add(self, number: int, record: Record) -> None:
        with writing(self.folder):
            self.folder.mkdir(exist_ok=True)
            with self._path(number).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def _path(self, number: int) -> Path:
        return self.folder / f"round_{number}.jsonl"


def next_rows_of(
    loop: Loop, lessons: Lessons, journal: RoundJournal, rounds: Rounds, number: int
) -> list[Row]:
    """The rows that a round trains on: the labelled ones in the warm-up, else those it keeps."""
    progress, step = lessons.hooks.progress, loop.state.step
    if number == 0:
        if not lessons.labelled:
            raise RunError("teacher.warmup has no rows to train on; set it to 0")
        return list(lessons.labelled)
    records = journal.read(number)
    if len(records) < lessons.size:
        if step != rounds.start(number):
            raise RunError(f"{journal.folder}: the records of round {number} are not complete")
        progress.start(f"round {number}", lessons.size, len(records))
        for record in lessons.write(loop.trainer.snapshot(), number, len(records)):
            journal.add(number, record)
            records.append(record)
            progress.advance(1, f"kept {sum(one['kept'] for one in records)}")
            if loop.stopping:
                return []
        counts = counts_of(records)
        loop.run.log("round", step, {"round": number, **counts})
        progress.report(f"Round {number} | {shown(counts)}")
        progress.start("training", loop.total, step)
    rows = [row_of(row) for record in records for row in record["rows"]]
    if not rows and not lessons.labelled:
        raise RunError(
            f"round {number} kept none of {len(records)} tasks or texts "
            f"({shown(counts_of(records))}); start from a model that is right now and then, or "
            "set teacher.warmup, or a lower min_reward or min_drop"
        )
    if not rows:
        progress.report(f"Round {number} kept nothing: it trains on the rows of the data")
    return rows or list(lessons.labelled)


def row_of(stored: Record) -> Row:
    """The row of a record: trained where the origin is SAMPLED."""
    origin = np.asarray(stored["origin"], np.uint8)
    return Row.of(stored["tokens"], origin == Origin.SAMPLED, stored["origin"])


def counts_of(records: Sequence[Record]) -> dict[str, Any]:
    """Sums over a round, the mean of each of the writer's `means`, and why candidates were lost."""
    names = ("proposed", "ran", "kept")
    counts: dict[str, Any] = {name: sum(one[name] for one in records) for name in names}
    counts["rows"] = sum(len(one["rows"]) for one in records)
    for name in {name: None for one in records for name in one["means"]}:
        values = [value for one in records for value in one["means"].get(name, ())]
        counts[name] = sum(values) / max(1, len(values))
    reasons: Counter[str] = Counter()
    for one in records:
        reasons.update(one["reasons"])
    return counts | {"reasons": dict(reasons.most_common())}


def shown(counts: Record) -> str:
    """The counts of a round as one line."""
    plain = (f"{name} {value:.4g}" for name, value in counts.items() if name != "reasons")
    lost = (f"{count} {reason}" for reason, count in counts["reasons"].items())
    return " | ".join([*plain, *lost])
