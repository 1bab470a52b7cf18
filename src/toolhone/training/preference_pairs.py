"""The preference pairs of an experiment, as rows: from a file, against typed mistakes, or with the model's own samples.

    pairing = Pairing(plan, dialect, tokenizer, max_length, max_context, progress)
    ready = pairing.made(materials, trainer.snapshot())     # ready.rows, ready.held_out, ready.report
    pairing.keep(ready, run.folder)                         # RUN/pairs.jsonl and RUN/pairs.json
    ready = pairing.kept(run.folder)                        # the same again, for a resumed run

`data.preferences` says which (`data.preferences` the module has the words). The model's own samples are drawn from the policy that
training starts from, `training.rl.group_size` of them for each decision, and judged as `exact_match` judges a turn; no tool is run.
With `own_ranked` both sides are samples of a task, and what the data says there is never shown.
They are drawn once: a resumed run reads them, with their ids, from its folder. Nothing is trained here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolhone.backends.base import Sampler, SamplingParams, StopReason
from toolhone.config.sections import Experiment
from toolhone.data.dataset import Dataset
from toolhone.data.negatives import corrupt
from toolhone.data.pair_rows import PairRows, pair_rows
from toolhone.data.preferences import (
    PairBatch,
    PreferencePair,
    Sampled,
    against_samples,
    among_samples,
    assistant_turns,
    pairs_of,
)
from toolhone.dialects.base import Dialect, ParseProblem
from toolhone.episodes.policy import TokenPolicy, Turn
from toolhone.errors import DataError, RunError
from toolhone.rewards.matching import judges_calls, match_calls
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import write_json, write_text, writing
from toolhone.schema import Conversation, Task
from toolhone.sources.files import read_jsonl
from toolhone.tokenizer import TextTokenizer

PAIRS, ACCOUNT = "pairs.jsonl", "pairs.json"
AT_ONCE = 64
"""Tasks that are sampled in one go."""


@dataclass(frozen=True)
class PreparedPairs:
    """Pairs to train on and held-out ones, and their rows, the chosen one of each pair first."""

    pairs: Sequence[PreferencePair]
    held_out_pairs: Sequence[PreferencePair]
    rows: list[Row]
    held_out: list[Row]
    report: dict[str, Any]

    def summary(self) -> str:
        """`pairs: 812 to train on (412 malformed, ...), 40 held out; refused 3 identical, 1 too_long`."""
        kinds = ", ".join(
            f"{count} {kind}" for kind, count in self.report["train"]["kinds"].items()
        )
        told = f"pairs: {len(self.rows) // 2} to train on ({kinds}), {len(self.held_out) // 2} held out"
        lost = [
            f"{n} {why}"
            for why in ("identical", "unwritable", "too_long")
            if (n := self.report["train"][why])
        ]
        lost += [
            f"{n} decisions without a pair: {why}"
            for why, n in self.report["train"].get("without_pair", {}).items()
        ]
        return told + (f"; {', '.join(lost)}" if lost else "")


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
        """Whether the model itself is asked, so that the pairs are made once, when the run begins."""
        return self.plan.data.preferences in ("own_samples", "own_ranked")

    def made(
        self, materials: Dataset, sampler: Sampler, play: Sequence[Task] = ()
    ) -> PreparedPairs:
        """The pairs, made or as they were read. `play`: the tasks of `own_ranked`."""
        if play:
            parts = [
                self._ranked(tasks, sampler, number)
                for number, tasks in enumerate((play, materials.tasks))
            ]
        elif materials.pairs:
            parts = [
                PairBatch(pairs_of(pairs)) for pairs in (materials.pairs, materials.held_out_pairs)
            ]
        else:
            parts = [
                self._of(talks, sampler, number)
                for number, talks in enumerate((materials.train, materials.held_out))
            ]
        return self._ready([part.pairs for part in parts], [part.report for part in parts])

    def keep(self, ready: PreparedPairs, folder: Path) -> None:
        """Write the pairs, a line each, and their account."""
        parts = (("train", ready.pairs), ("held_out", ready.held_out_pairs))
        lines = (
            json.dumps({**pair.to_dict(), "part": part}, ensure_ascii=False)
            for part, pairs in parts
            for pair in pairs
        )
        with writing(folder):
            write_text(folder / PAIRS, "".join(line + "\n" for line in lines))
            write_json(folder / ACCOUNT, ready.report)

    def kept(self, folder: Path) -> PreparedPairs:
        """The pairs that a run began with."""
        path = folder / PAIRS
        if not path.is_file():
            raise RunError(
                f"{path} is missing, and with it the pairs that this run began with; train into another folder"
            )
        parts: dict[str, list[PreferencePair]] = {"train": [], "held_out": []}
        for _, line in read_jsonl(path):
            parts[line["part"]].append(PreferencePair.from_dict(line))
        return self._ready([parts["train"], parts["held_out"]], [{}, {}])

    def _ready(
        self, pairs: Sequence[Sequence[PreferencePair]], reports: Sequence[dict[str, Any]]
    ) -> PreparedPairs:
        train, held_out = (self._rows(part) for part in pairs)
        if not train.rows:
            raise DataError(
                f"there is no pair to train on: {json.dumps({**reports[0], **train.report}, ensure_ascii=False):.300}"
            )
        account = {
            "train": {**reports[0], **train.report},
            "held_out": {**reports[1], **held_out.report},
        }
        return PreparedPairs(pairs[0], pairs[1], train.rows, held_out.rows, account)

    def _rows(self, pairs: Iterable[PreferencePair]) -> PairRows:
        return pair_rows(
            pairs, self.dialect, self.tokenizer, self.max_length, self.plan.data.too_long
        )

    def _of(self, talks: Sequence[Conversation], sampler: Sampler, number: int) -> PairBatch:
        """Pairs from conversations; `number` tells the parts apart where something is drawn."""
        decisions, each, seed = (
            assistant_turns(talks),
            self.plan.data.pairs,
            self.plan.seed * 2 + number,
        )
        if not self.samples:
            return corrupt(decisions, self.dialect, seed, each)
        return against_samples(
            decisions,
            list(self._sampled([decision.task for decision in decisions], sampler, seed)),
            each,
        )

    def _ranked(self, tasks: Sequence[Task], sampler: Sampler, number: int) -> PairBatch:
        """Pairs from tasks: what the model got right against what it got wrong."""
        judged = [task for task in tasks if judges_calls(task.expect)]
        made = among_samples(
            judged,
            list(self._sampled(judged, sampler, self.plan.seed * 2 + number)),
            self.plan.data.pairs,
        )
        return PairBatch(
            made.pairs, {**made.report, "tasks_without_calls_to_judge": len(tasks) - len(judged)}
        )

    def _sampled(
        self, tasks: Sequence[Task], sampler: Sampler, seed: int
    ) -> Iterable[list[Sampled]]:
        """Samples of each task; none where its prompt leaves no room."""
        rl = self.plan.training.rl
        policy = TokenPolicy(
            sampler,
            self.dialect,
            self.tokenizer,
            SamplingParams(rl.max_completion_length, rl.temperature, seed=seed % 2**32),
            self.max_context,
        )
        self.progress.start("sampling", len(tasks))
        for start in range(0, len(tasks), AT_ONCE):
            part = tasks[start : start + AT_ONCE]
            yield from _replies(policy, part, start, rl.group_size)
            self.progress.advance(len(part))


def _replies(
    policy: TokenPolicy, tasks: Sequence[Task], first: int, count: int
) -> Iterable[list[Sampled]]:
    """`count` replies to each task; its place names its random stream, so that the batch does not matter."""
    prompts = [policy.open(task.messages, task.tools) for task in tasks]
    fitting = [place for place, prompt in enumerate(prompts) if policy.fits(prompt)]
    params = SamplingParams(
        policy.params.max_tokens,
        policy.params.temperature,
        stop_ids=policy.params.stop_ids,
        num_samples=count,
        seed=policy.params.seed,
    )
    drawn = policy.sampler.sample(
        [prompts[place].tokens for place in fitting], params, [first + place for place in fitting]
    )
    samples = dict(zip(fitting, drawn, strict=True))
    for place, (task, prompt) in enumerate(zip(tasks, prompts, strict=True)):
        turns = [policy.read(prompt, sample) for sample in samples.get(place, ())]
        yield [
            Sampled(tuple(turn.tokens), turn.text, is_right(turn, task), turn.message)
            for turn in turns
        ]


def is_right(turn: Turn, task: Task) -> bool:
    """Whether a turn is what its task asks for: read without a problem, ended, and exactly the wanted calls, or words for none."""
    if turn.problem is not ParseProblem.NONE or turn.stop_reason is not StopReason.STOP:
        return False
    calls = turn.message.tool_calls
    if not calls and not (turn.message.content or "").strip():
        return False
    return match_calls(calls, task.expect, task.tools).exact
