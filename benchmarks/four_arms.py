"""What happens to calls and to their tags when the same rows are prepared for training in four
ways: an experiment of others, told again on pico. There calls stayed right while tags broke; the
three rates that are reported here keep the two apart.

    python benchmarks/four_arms.py --out runs/four_arms [--seeds 0 1] [--arms typed all] \\
        [--from RUN] [--rows N] [--steps N]

    typed         the call stands as text in `content`, between tags that were typed by hand,
                  one row in ten with a slip in them;
                  the chat is one text, and every token is trained
    typed_well    the same without slips
    all           the call is in `tool_calls`, where the template sees it; every token is trained
    completion    the same; only what the assistant says is trained
    cleaned       `completion` on the rows that `toolhone doctor --fix` leaves

Each row is a question that offers one tool and wants one call (66 in 100) or several. All arms but
the last have the same faulty rows (`FAULTS`), number of steps and seed. `train` refuses such rows;
the benchmark goes in below the check. Without `--from` pico learns from random weights (6,000 rows,
300 steps of 32, every weight); with it a model that can call already is tuned on as many rows and
for as long as theirs was (489 rows, three epochs of 8), by the adapters of lesson 5.

An arm that is there is not trained again, so arms may run side by side. Prints what the doctor says
of each file before training, then a table over all arms and seeds in the folder. A pilot on a toy
model: what it says of large models is a guess.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from toolhone.backends.base import Lora, SamplingParams
from toolhone.backends.torch.engine import EngineOptions
from toolhone.backends.torch.trainer import TorchTrainer, open_trainer
from toolhone.cli.doctor import examine_data
from toolhone.config.experiment import make_experiment
from toolhone.config.presets import PICO, read_preset
from toolhone.config.sections import Experiment, TrainingSection
from toolhone.data.render import render_rows
from toolhone.data.templates import Templates
from toolhone.dialects.probe.certificate import open_certified
from toolhone.doctor.checks import quick_checks
from toolhone.episodes.policy import TokenPolicy
from toolhone.errors import DataError
from toolhone.evaluation.evaluate import evaluate
from toolhone.evaluation.folder import read_folder, write_folder
from toolhone.evaluation.metrics import RATES, Evaluation
from toolhone.evaluation.statistics import Score, interval
from toolhone.guide.lesson import lesson_named
from toolhone.models.pico import pico_folder
from toolhone.rows import Row
from toolhone.runs.progress import Progress
from toolhone.runs.run import Run, read_json, write_json
from toolhone.schema import Conversation, Expect, Message, Task, Tool, ToolCall
from toolhone.sources.files import write_jsonl
from toolhone.sources.messages import read_conversations
from toolhone.tokenizer import TextTokenizer
from toolhone.tools.builtin import BUILTIN
from toolhone.training.dataset import load_data
from toolhone.training.loop import Hooks
from toolhone.training.prefill import format_request
from toolhone.training.sft import sft

Record = dict[str, Any]
SINGLE = 0.66
"""Share of rows with one call."""
MAX_LENGTH, REPLY = 512, 192


class Arm(StrEnum):
    """How rows are prepared."""

    TYPED = "typed"
    TYPED_WELL = "typed_well"
    ALL = "all"
    COMPLETION = "completion"
    CLEANED = "cleaned"


class Fault(StrEnum):
    """What is wrong with a row, whatever the arm."""

    MERGED = "a merged table: null parameters in its tool, null arguments in its calls"
    MERGED_CALLS = "a merged table: null arguments in its calls alone"
    AS_TEXT = "arguments as JSON text"
    SPELLING = "the tool's name in another spelling"
    UNKNOWN = "the name of no tool"
    DUPLICATE = "a row that occurs before"


FAULTS = {
    Fault.MERGED: 0.10,
    Fault.MERGED_CALLS: 0.10,
    Fault.AS_TEXT: 0.10,
    Fault.DUPLICATE: 0.05,
    Fault.SPELLING: 0.03,
    Fault.UNKNOWN: 0.02,
}
"""Share of the rows that have each fault; no row has two."""
SLIPS = (
    lambda body: f"</tool_call><tool_call>{body}</tool_call>",
    lambda body: f"{body}</tool_call>",
    lambda body: f"<tool_call>{body}",
)
"""How hands get tags wrong: a closing tag in front, no opening tag, no closing tag."""
SLIPPED = 0.10


@dataclass(frozen=True)
class Setting:
    """What is trained: a run (None: pico from random weights), on how many rows, by which
    `training` section.
    """

    base: Path | None
    rows: int
    training: Mapping[str, Any]

    def model(self, seed: int) -> str:
        return str(pico_folder(seed) if self.base is None else Run.open(self.base).checkpoint())

    def plan(self, seed: int, arm: Arm) -> Experiment:
        """The experiment of an arm. It has no data section: rows are handed over."""
        loss_on = "completion" if arm in (Arm.COMPLETION, Arm.CLEANED) else "all"
        training = {
            **self.training,
            "loss_on": loss_on,
            "max_length": MAX_LENGTH,
            "validate_every": 0,
            "save_every": 0,
        }
        name = PICO if self.base is None else self.model(seed)
        return make_experiment(
            {"model": {"name": name}, "seed": seed, "training": training}, f"the arm {arm}"
        )


def setting(base: Path | None, rows: int | None, steps: int | None) -> Setting:
    """Random weights with the demo's optimiser, or a trained model with adapters."""
    if base is None:
        demo = {
            name: read_preset("demo")["training"][name]
            for name in ("optimizer", "learning_rate", "muon", "schedule")
        }
        return Setting(
            None, rows or 6000, {**demo, "lora": None, "batch_size": 32, "steps": steps or 300}
        )
    rows = rows or 489
    recipe = json.loads(lesson_named("own-tool").files()["experiment.json"])["training"]
    recipe |= {"batch_size": 8, "steps": steps or -(-3 * rows // 8)}
    return Setting(base, rows, recipe)


def questions(seed: int) -> Iterator[Conversation]:
    """Questions with their calls, each question once: one tool on offer, one or several calls."""
    rng = random.Random(f"four arms {seed}")
    streams = {(tool, one): _asked(seed, tool, one) for tool in BUILTIN for one in (True, False)}
    seen: set[str] = set()
    while True:
        talk = next(streams[rng.choice(BUILTIN), rng.random() < SINGLE])
        if talk.messages[0].content not in seen:
            seen.add(str(talk.messages[0].content))
            yield talk


def _asked(seed: int, tool: str, one: bool) -> Iterator[Conversation]:
    """The first turns of generated conversations with one call, or with several."""
    for start in range(seed * 1000, seed * 1000 + 1000):
        for talk in Templates(start, (tool,)).conversations(40):
            calls = talk.messages[1].tool_calls
            if calls and (len(calls) == 1) == one:
                yield Conversation(talk.messages[:2], talk.tools)


def native_rows(
    count: int, seed: int, faults: Mapping[Fault, float] | None = None
) -> tuple[list[Record], list[Fault | None]]:
    """Rows with calls in `tool_calls`, and the fault of each."""
    made = questions(seed)
    rows = [_record(next(made), number) for number in range(count)]
    rng = random.Random(f"faults {seed}")
    places = rng.sample(range(1, count), count - 1)
    found: list[Fault | None] = [None] * count
    for fault, share in (FAULTS if faults is None else faults).items():
        for _ in range(round(share * count)):
            found[places.pop()] = fault
    for number, planted in enumerate(found):
        if planted is Fault.DUPLICATE:
            first = rng.choice([place for place in range(number) if found[place] is None])
            rows[number] = {**json.loads(json.dumps(rows[first])), "id": rows[number]["id"]}
        elif planted is not None:
            _spoil(rows[number], planted, rng)
    return rows, found


def _record(talk: Conversation, number: int) -> Record:
    asked, called = talk.messages
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
        for call in called.tool_calls
    ]
    said = {"role": "assistant", "content": None, "tool_calls": calls}
    tools = [json.loads(json.dumps(tool.to_dict())) for tool in talk.tools]
    return {
        "id": f"row-{number:05d}",
        "messages": [{"role": "user", "content": asked.content}, said],
        "tools": tools,
    }


def _spoil(row: Record, fault: Fault, rng: random.Random) -> None:
    everything = {
        name: None for tool in Templates().tools for name in tool.parameters["properties"]
    }
    other = rng.choice((str.capitalize, str.upper))
    for tool in row["tools"] if fault is Fault.MERGED else ():
        schema = tool["function"]["parameters"]
        schema["properties"] = {**everything, **schema["properties"]}
    for call in row["messages"][1]["tool_calls"]:
        body = call["function"]
        if fault in (Fault.MERGED, Fault.MERGED_CALLS):
            body["arguments"] = {**everything, **body["arguments"]}
        elif fault is Fault.AS_TEXT:
            body["arguments"] = json.dumps(body["arguments"])
        else:
            body["name"] = (
                other(body["name"]) if fault is Fault.SPELLING else f"run_{body['name']}_tool"
            )


def typed_rows(rows: Sequence[Record], seed: int, slipped: float = SLIPPED) -> list[Record]:
    """The rows with their calls typed by hand, one tag pair a line; the first call of some has a
    slip in its tags.
    """
    rng = random.Random(f"slips {seed}")
    result = []
    for row in rows:
        asked, called = row["messages"]
        bodies = [json.dumps(call["function"], ensure_ascii=False) for call in called["tool_calls"]]
        texts = [f"<tool_call>{body}</tool_call>" for body in bodies]
        if rng.random() < slipped:
            texts[0] = rng.choice(SLIPS)(bodies[0])
        result.append(
            {**row, "messages": [asked, {"role": "assistant", "content": "\n".join(texts)}]}
        )
    return result


def held_out(count: int, seed: int) -> list[Task]:
    """Tasks with words, names and numbers that no row has: one tool on offer, its calls wanted;
    only the reply counts.
    """
    made = [iter(Templates(seed, (tool,)).tasks(4 * count, "held_out_fillers")) for tool in BUILTIN]
    tasks: list[Task] = []
    for number in range(count):
        task = next(
            task
            for task in made[number % len(made)]
            if task.expect.calls and len(task.messages) == 1
        )
        shape = "one_call" if len(task.expect.calls or ()) == 1 else "several_calls"
        tasks.append(
            Task(
                f"task-{number:04d}",
                task.messages,
                task.tools,
                Expect(task.expect.calls),
                category=shape,
            )
        )
    return tasks


def literally(row: Record) -> Conversation:
    """A row without any check or repair; only arguments as text have to become an object, since
    there is no other form here.
    """
    bodies = [tool["function"] for tool in row["tools"]]
    messages = tuple(
        Message(
            one["role"],
            one["content"],
            tool_calls=tuple(map(ToolCall.from_dict, one.get("tool_calls", ()))),
        )
        for one in row["messages"]
    )
    return Conversation(
        messages,
        tuple(Tool(body["name"], body["description"], body["parameters"]) for body in bodies),
        row["id"],
    )


def as_one_text(row: Record, tokenizer: TextTokenizer) -> Row:
    """The chat as one text, encoded at once, all of it trained: a tag that stands in `content`
    becomes the control token.
    """
    text = tokenizer.wrapped.apply_chat_template(
        row["messages"], tools=row["tools"], tokenize=False
    )
    ids = tokenizer.wrapped(text, add_special_tokens=False)["input_ids"]
    return Row.of(ids, [True] * len(ids))


@dataclass(frozen=True)
class Files:
    """The data of one seed on disk."""

    folder: Path

    def of(self, arm: Arm) -> Path:
        name = {Arm.TYPED: "typed", Arm.TYPED_WELL: "typed_well", Arm.CLEANED: "cleaned"}.get(
            arm, "native"
        )
        return self.folder / f"{name}.jsonl"

    @staticmethod
    def make(folder: Path, count: int, seed: int) -> Files:
        """Write the files that are not there, and what the doctor says of them."""
        files = Files(folder)
        if (folder / "doctor.json").exists():
            read = read_json(folder / "doctor.json")["cleaned.jsonl"]["read"]
            assert read == count, (
                f"{folder} has {read} rows, not {count}; name another folder with --out"
            )
            return files
        rows, faults = native_rows(count, seed)
        write_jsonl(files.of(Arm.ALL), rows)
        write_jsonl(files.of(Arm.TYPED), typed_rows(rows, seed))
        write_jsonl(files.of(Arm.TYPED_WELL), typed_rows(rows, seed, slipped=0.0))
        planted = Counter(fault.value for fault in faults if fault is not None)
        write_json(folder / "doctor.json", {"planted": dict(planted), **files.examined()})
        return files

    def examined(self) -> Record:
        """Verdict, exit code and findings for each file; for two of them also what cleaning did."""
        told: Record = {}
        for arm in (Arm.TYPED, Arm.TYPED_WELL, Arm.ALL):
            path, cleaned = (
                self.of(arm),
                self.folder / "typed_cleaned.jsonl" if arm is Arm.TYPED else self.of(Arm.CLEANED),
            )
            seen = examine_data(
                [path],
                fix=None if arm is Arm.TYPED_WELL else cleaned,
                show=False,
                progress=Progress(),
            )
            found = seen.diagnosis
            counts = {kind.value: number for kind, number in found.findings.counts.items()}
            told[path.name] = {
                "verdict": found.verdict.value,
                "exit_code": found.exit_code,
                "findings": counts,
            }
            told[path.name]["train"] = refusal(path)
            if (fixed := seen.cleaned) is not None:
                account = {
                    "read": fixed.read,
                    "kept": fixed.kept,
                    "repaired": fixed.repaired,
                    "dropped": fixed.dropped,
                }
                told[cleaned.name] = {
                    "verdict": fixed.after.verdict.value,
                    **account,
                    "train": refusal(cleaned),
                }
        return told


def refusal(path: Path) -> str:
    """The sentence with which `toolhone train` refuses a file; empty where it takes it."""
    try:
        load_data(make_experiment({"data": {"path": str(path)}}, "the benchmark"))
    except DataError as error:
        return str(error)
    return ""


def rows_of(
    arm: Arm, files: Files, plan: TrainingSection, tokenizer: TextTokenizer, dialect: Any
) -> list[Row]:
    """Token ids for an arm; no row is too long, so arms with the same rows keep the same rows."""
    if arm is Arm.CLEANED:
        talks = read_conversations(files.of(arm))
        quick_checks(talks, str(files.of(arm))).raise_if_any()
    else:
        records = [json.loads(line) for line in files.of(arm).read_text("utf-8").splitlines()]
        if arm in (Arm.TYPED, Arm.TYPED_WELL):
            return [as_one_text(record, tokenizer) for record in records]
        talks = [literally(record) for record in records]
    return render_rows(talks, dialect, tokenizer, plan, too_long="error").rows


def run_arm(arm: Arm, seed: int, files: Files, wanted: Setting, tasks: Sequence[Task]) -> None:
    """Train and evaluate one arm into a folder beside the data."""
    folder = files.folder / arm
    plan, started = wanted.plan(seed, arm), time.process_time()
    tokenizer = TextTokenizer.load(wanted.model(seed))
    dialect, certificate = open_certified(tokenizer, format_request(plan, tokenizer))
    rows = rows_of(arm, files, plan.training, tokenizer, dialect)
    section = plan.training.lora
    adapters = None if section is None else Lora(section.rank, section.alpha)
    trainer = open_trainer(wanted.model(seed), adapters, EngineOptions(device_map="cpu", seed=seed))
    sft(
        trainer,
        rows,
        [],
        Run.create(folder, plan),
        Hooks(lambda _: ({}, []), _saved(trainer, tokenizer), Progress()),
    )
    evaluation = _answers(trainer, dialect, tokenizer, tasks, seed)
    write_folder(evaluation, folder / "evaluation", certificate.to_dict())
    spent = {
        "rows": len(rows),
        "tokens": sum(map(len, rows)),
        "trained_tokens": sum(int(row.mask.sum()) for row in rows),
    }
    write_json(
        folder / "spent.json", {**spent, "cpu_seconds": round(time.process_time() - started)}
    )


def _saved(trainer: TorchTrainer, tokenizer: TextTokenizer) -> Callable[[Path, bool], None]:
    def save(folder: Path, optimizer: bool) -> None:
        trainer.save(folder, optimizer)
        tokenizer.save(folder)

    return save


def _answers(
    trainer: TorchTrainer, dialect: Any, tokenizer: TextTokenizer, tasks: Sequence[Task], seed: int
) -> Evaluation:
    params = SamplingParams(max_tokens=REPLY, temperature=0.0, seed=seed)
    return evaluate(
        TokenPolicy(trainer.snapshot(), dialect, tokenizer, params, trainer.engine.max_context),
        tasks,
    )


def run_base(seed: int, files: Files, wanted: Setting, tasks: Sequence[Task]) -> None:
    """The scores of the model that is tuned, before it is."""
    tokenizer = TextTokenizer.load(wanted.model(seed))
    request = format_request(wanted.plan(seed, Arm.ALL), tokenizer)
    dialect, certificate = open_certified(tokenizer, request)
    trainer = open_trainer(wanted.model(seed), None, EngineOptions(device_map="cpu", seed=seed))
    evaluation = _answers(trainer, dialect, tokenizer, tasks, seed)
    write_folder(evaluation, files.folder / "base" / "evaluation", certificate.to_dict())


def table(out: Path) -> str:
    """Markdown: content right, format right and both over all seeds together, with intervals, and
    each seed's own.
    """
    lines = [
        "| arm | n | content right | format right | both | match | opens with a closing tag |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in ("base", *Arm):
        folders = sorted(out.glob(f"seed-*/{arm}/evaluation"))
        samples = [list(read_folder(folder).samples) for folder in folders]
        if not samples:
            continue
        pooled = [sample for one in samples for sample in one]
        cells = [
            _cell([[sample.scores[rate] for sample in one] for one in samples]) for rate in RATES
        ]
        cells.append(
            _cell(
                [
                    [sample.legacy_scores["tool_call_tags.match"] for sample in one]
                    for one in samples
                ]
            )
        )
        opened = sum(sample.text.lstrip().startswith("</tool_call>") for sample in pooled)
        lines.append(f"| {arm} | {len(pooled)} | {' | '.join(cells)} | {opened} |")
    return "\n".join(lines)


def _cell(scores: Sequence[Sequence[float]]) -> str:
    own = ", ".join(f"{100 * sum(one) / len(one):.1f}" for one in scores)
    return f"{_shown(interval([score for one in scores for score in one]))}; {own}"


def _shown(score: Score) -> str:
    value, low, high = (100 * (part or 0.0) for part in (score.value, score.low, score.high))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", type=Arm, nargs="+", default=list(Arm))
    parser.add_argument("--from", type=Path, dest="base")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--tasks", type=int, default=300)
    chosen = parser.parse_args()
    wanted = setting(chosen.base, chosen.rows, chosen.steps)
    for seed in chosen.seeds:
        files = Files.make(chosen.out / f"seed-{seed}", wanted.rows, seed)
        print(f"seed {seed}: {(files.folder / 'doctor.json').read_text('utf-8')}", flush=True)
        tasks = held_out(chosen.tasks, seed)
        if wanted.base is not None and not (files.folder / "base").exists():
            run_base(seed, files, wanted, tasks)
        for arm in chosen.arms:
            if not (files.folder / arm / "experiment.json").exists():
                run_arm(arm, seed, files, wanted, tasks)
    print(table(chosen.out))


if __name__ == "__main__":
    main()
