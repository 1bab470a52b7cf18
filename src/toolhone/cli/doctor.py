"""`toolhone doctor` proves the format of a model, and examines data, before any training and
without weights; `--fix` writes a cleaned copy of the data.

found = examine_data([Path("train.jsonl"), Path("held_out.jsonl")], fix=Path("clean.jsonl"))

Only the tokenizer of a model is loaded. Exit code 1: training should not start."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer import Option

from toolhone.api import FORMAT_KEYS
from toolhone.cli.console import console, print_table
from toolhone.cli.flags import AsJson, DialectName, Overrides, with_options
from toolhone.config.experiment import overridden, to_stderr
from toolhone.data.render import encode_rows
from toolhone.dialects.interface import Dialect
from toolhone.dialects.probe.certificate import Certificate, certify, check_same
from toolhone.dialects.probe.schema_words import hidden_note
from toolhone.doctor.checks import REMEDIES
from toolhone.doctor.diagnose import DataVerdict, Diagnosis, diagnose
from toolhone.doctor.fix import CleanResult, RowOutcome, check_target, clean, write_cleaned
from toolhone.doctor.lengths import LengthCheck, ModelParts
from toolhone.doctor.reading import read_file
from toolhone.errors import ConfigError, FindingKind
from toolhone.evaluation.display import clean as printable
from toolhone.models.resolve import find, resolve_model, trained_format
from toolhone.rows import Origin, Row
from toolhone.runs.progress import Progress, open_progress
from toolhone.schema import Conversation, Message, Tool, ToolCall
from toolhone.tokenizer import TextTokenizer
from toolhone.training.prefill import format_request

app = typer.Typer(rich_markup_mode=None)
STYLES = {
    "certified": "bold green",
    "certified with limits": "bold yellow",
    "refused": "bold red",
    DataVerdict.SOUND: "bold green",
    DataVerdict.REMARKS: "bold yellow",
    DataVerdict.STOP: "bold red",
}
LONGEST = 300
"""Characters of an example that are shown."""


@app.command(
    epilog="Examples: toolhone doctor --model Qwen/Qwen3-0.6B   |   "
    "toolhone doctor --model runs/sft --json   |   "
    "toolhone doctor --data train.jsonl --data test.jsonl --model pico --fix clean.jsonl"
)
def doctor(
    overrides: Overrides = None,
    model: Annotated[
        str | None, Option(help="a run, a checkpoint, a model folder, a hub name or 'pico'")
    ] = None,
    data: Annotated[
        list[Path] | None,
        Option(help="a data file; more than one: splits of one data set, checked for leakage"),
    ] = None,
    fix: Annotated[
        Path | None, Option(help="write the data, cleaned, to this file, with a report beside it")
    ] = None,
    dialect: DialectName = None,
    max_length: Annotated[
        int | None, Option(min=1, help="the longest row in tokens [default: the model's context]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove the format of a model (--model), examine data (--data), or both together."""
    if model is None and not data:
        raise ConfigError(
            "toolhone doctor needs --model MODEL, --data FILE, or both; see toolhone doctor --help"
        )
    if fix is not None and not data:
        raise ConfigError("--fix writes cleaned data; name the data with --data FILE")
    result: dict[str, Any] = {}
    faults, parts, context = list[str](), None, None
    if model is not None:
        found = open_format(model, with_options(overrides, dialect))
        result, context = dict(found.certificate.to_dict()), found.context
        if found.dialect is None:
            faults.append(f"the format of {model} is refused")
        if found.dialect is not None:
            parts = ModelParts(found.dialect, found.tokenizer)
        if not as_json:
            _show_format(model, found)
    if data:
        with open_progress() as progress:
            limit = max_length or context
            examined = examine_data(data, parts, fix, limit, not as_json, progress)
        if examined.stops:
            faults.append(f"{examined.out or data[0]} has findings that stop a training")
        else:
            faults += _too_little(examined)
        result |= {"data": examined.to_dict()} if model else examined.to_dict()
    if as_json:
        print(json.dumps(result))
    else:
        end = f"do not train: {' and '.join(faults)}" if faults else "training may start"
        verdict = DataVerdict.STOP if faults else DataVerdict.SOUND
        console().print(Text(f"{end} (exit code {int(bool(faults))})", STYLES[verdict]))
    if faults:
        raise typer.Exit(1)


def _too_little(examined: Examination) -> Iterator[str]:
    """Yield what makes sound rows too little to train on."""
    lost, before = examined.cleaned, examined.diagnosis
    after = before if lost is None else lost.after
    if lost is not None and lost.dropped > lost.read / 2:
        yield f"the cleaning dropped {lost.dropped} of {lost.read} rows"
    if next(iter(after.files.values())) == 1:
        to_stderr("one row alone can be checked; a training needs two, one of them held out")
    elif FindingKind.NO_CALLS in after.findings.counts:
        yield "no row calls a tool"


@dataclass(frozen=True)
class ModelFormat:
    """The tokenizer, dialect and certificate of a model; `context` is its longest sequence, if
    known."""

    tokenizer: TextTokenizer
    dialect: Dialect | None
    certificate: Certificate
    context: int | None


def open_format(name: str, overrides: Sequence[str]) -> ModelFormat:
    """Read the tokenizer and certify it; a run's format must be the one it was trained with, unless
    overrides change it."""
    from transformers import AutoConfig

    plan, weights = find(name, None)
    plan = overridden(plan, overrides) if overrides else plan
    whole = weights is not None and (weights / "config.json").is_file()
    base = str(weights) if whole else resolve_model(plan)
    tokenizer = TextTokenizer.load(base)
    trained = trained_format(plan, weights)
    dialect, certificate = certify(tokenizer, format_request(plan, tokenizer, trained))
    if trained is not None:
        named = {text.partition("=")[0] for text in overrides}
        check_same(trained, certificate, name, on_purpose=bool(named & FORMAT_KEYS))
    lengths = [getattr(tokenizer.wrapped, "model_max_length", 0) or 0]
    try:
        config = AutoConfig.from_pretrained(base)
        lengths.append(getattr(config.get_text_config(), "max_position_embeddings", 0) or 0)
    except (OSError, ValueError, KeyError):
        pass  # a folder with a tokenizer alone
    context = min((int(length) for length in lengths if 0 < length < 10**9), default=None)
    return ModelFormat(tokenizer, dialect, certificate, context)


def _show_format(name: str, found: ModelFormat) -> None:
    """Print the facts, the verdict with its limits, and an example with its supervised tokens."""
    out, certificate = console(), found.certificate
    rows = [
        (fact.probe, Text(fact.found, "yellow" if fact.fault else ""), Text(fact.why, "dim"))
        for fact in certificate.findings
    ]
    print_table(("probe", "found", "why"), rows, f"The format of {name}")
    _show_verdict("verdict", certificate.verdict.value)
    for limit in certificate.limits:
        out.print(Text(f"  - {limit}"))
    if found.dialect is None:
        out.print(Text(certificate.reason))
        return
    dialect: Any = certificate.dialect
    form = dialect.get("form")
    if not isinstance(form, str):
        form = (form or {}).get("body", {}).get("kind", dialect.get("syntax"))
    ends = f"a turn ends with {' or '.join(dialect['stop'])}; history {dialect['history']}"
    out.print(Text(f"dialect {dialect['name']}; calls written as {form}; {ends}", "dim"))
    for number, row in enumerate(example_rows(found.dialect, found.tokenizer), start=1):
        counts = f"{int(row.mask.sum())} of {len(row)} tokens are supervised (green)"
        out.print(Text(f"row {number}: {counts}"))
        out.print(coloured(row, found.tokenizer))


def _show_verdict(what: str, verdict: str) -> None:
    console().print(Text.assemble(f"{what}: ", (str(verdict), STYLES[verdict])))


def example_rows(dialect: Dialect, tokenizer: TextTokenizer) -> list[Row]:
    """Render a question, a call, its result and an answer as they are trained."""
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "The city."}},
        "required": ["city"],
    }
    messages = (
        Message("user", "What is the weather in Paris?"),
        Message("assistant", None, None, (ToolCall("get_weather", {"city": "Paris"}),)),
        Message("tool", '{"sky": "clear", "celsius": 21}'),
        Message("assistant", "It is clear, 21 degrees."),
    )
    conversation = Conversation(messages, (Tool("get_weather", "Tells the weather.", schema),))
    return encode_rows(dialect.render(conversation), dialect, tokenizer)


def coloured(row: Row, tokenizer: TextTokenizer) -> Text:
    """Return the row's text: supervised tokens green, tool results blue, the rest dim; control
    tokens underlined."""
    control = {tokenizer.control_id(text) for text in tokenizer.control_texts}
    origins = [0] * len(row) if row.origin is None else row.origin.tolist()
    styled = []
    for token, trained, origin in zip(row.tokens.tolist(), row.mask.tolist(), origins, strict=True):
        style = "bold green" if trained else "blue" if origin == Origin.TOOL else "dim"
        styled.append((style + (" underline" if token in control else ""), token))
    text = Text()
    for style, pairs in groupby(styled, key=lambda pair: pair[0]):
        text.append(tokenizer.decode([token for _, token in pairs]), style)
    return text


@dataclass(frozen=True)
class Examination:
    """The findings; `cleaned` where a cleaned copy was written, to `out`.

    hidden: a sentence on what the prompt does not show of the tools' schemas."""

    diagnosis: Diagnosis
    cleaned: CleanResult | None = None
    out: Path | None = None
    hidden: str | None = None

    @property
    def verdict(self) -> DataVerdict:
        """The verdict on the cleaned copy where there is one, else on the data as they are."""
        return self.diagnosis.verdict if self.cleaned is None else self.cleaned.after.verdict

    @property
    def stops(self) -> bool:
        return self.verdict is DataVerdict.STOP

    def to_dict(self) -> dict[str, object]:
        result: dict[str, object] = dict(self.diagnosis.to_dict())
        if self.hidden is not None:
            result["hidden"] = self.hidden
        if self.cleaned is not None:
            result["fix"] = {**self.cleaned.to_dict(), "out": str(self.out)}
        return result


def examine_data(
    paths: Sequence[Path],
    model: ModelParts | None = None,
    fix: Path | None = None,
    max_length: int | None = None,
    show: bool = True,
    progress: Progress | None = None,
) -> Examination:
    """Examine files, the first of them to train on, the others held out.

    fix: write a cleaned copy of the first file there. max_length: the most tokens of a row; None:
    no limit."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(
            "--data names one file twice; the first file is trained on, the others are held out"
        )
    if fix is not None:
        check_target(fix, paths)
    progress = progress or Progress()
    files = [read_file(path, progress=progress) for path in paths]
    lengths = LengthCheck(model, max_length, workers=os.cpu_count() or 1)
    diagnosis = diagnose(files, lengths, progress)
    hidden = None
    if model is not None:
        rows = (row for file in files for row in file.conversations)
        hidden = hidden_note(model.dialect, (tool for row in rows for tool in row.tools))
    if show:
        _show_diagnosis(diagnosis)
        if hidden is not None:
            console().print(Text(hidden, "yellow"))
    if fix is None:
        return Examination(diagnosis, hidden=hidden)
    cleaned = clean(files, lengths, progress)
    report = write_cleaned(cleaned, fix, paths)
    if show:
        counts = f"kept {cleaned.kept} + repaired {cleaned.repaired} + dropped {cleaned.dropped}"
        total = f"{fix}: {counts} = {cleaned.read} rows read; every change is in {report}"
        console().print(Text(total))
        for outcome in RowOutcome:
            for reason, count in cleaned.reasons(outcome).most_common():
                console().print(Text(f"  {outcome.value} {count:6d}  {reason}"))
        _show_verdict(f"verdict on {fix}", cleaned.after.verdict)
    return Examination(diagnosis, cleaned, fix, hidden)


def _show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the findings by kind, the grave ones first, each with a few examples."""
    out, rows, examples = console(), [], []
    for name, count in diagnosis.files.items():
        out.print(Text(f"{printable(name)}: {count} row{'' if count == 1 else 's'}"))
    for group in diagnosis.findings.groups:
        remedy, kind, left = REMEDIES[group.kind], group.kind.value, group.count
        stops = remedy.effect == "stop"
        word = Text("stops", "bold red") if stops else Text("remark", "yellow")
        rows.append((kind, str(group.count), word, remedy.why, remedy.fix))
        lines = []
        for finding in group.examples:
            times = f" ({finding.times} rows)" if finding.times > 1 else ""
            lines.append(f"  {printable(f'{finding}{times}')[:LONGEST]}")
            left -= finding.times
        lines += [f"  ... and {left} more"] if left else []
        heading = (kind, "bold red" if stops else "bold yellow")
        examples.append(Text.assemble(heading, "\n", "\n".join(lines)))
    if rows:
        headings = ("finding", "count", "", "why it matters", "what --fix does")
        print_table(headings, rows, right=("count",))
    for example in examples:
        out.print(example, soft_wrap=True)
    out.print(Text(str(diagnosis.balance)))
    _show_verdict("verdict", diagnosis.verdict)
