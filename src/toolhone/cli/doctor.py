"""`toolhone doctor`: proves the format of a model, and examines data, before any training and
without weights.

Only the tokenizer of a model is loaded. Exit code 1: training should not start.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from toolhone.cli.options import AsJson, DialectName, Overrides, with_options
from toolhone.errors import ConfigError

if TYPE_CHECKING:
    from rich.text import Text

    from toolhone.dialects.base import Dialect
    from toolhone.dialects.probe.certificate import Certificate
    from toolhone.rows import Row
    from toolhone.tokenizer import TextTokenizer

EXAMPLE = (
    "Examples: toolhone doctor --model Qwen/Qwen3-0.6B   |   toolhone doctor --model runs/sft "
    "--json   |   "
    "toolhone doctor --data train.jsonl --data test.jsonl --model pico --fix clean.jsonl"
)
STYLES = {"certified": "bold green", "certified with limits": "bold yellow", "refused": "bold red"}


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
    stops, parts, context = False, None, None
    if model is not None:
        found = open_format(model, with_options(overrides, dialect))
        result, context = dict(found.certificate.to_dict()), found.context
        if found.dialect is None:
            stops = True
        else:
            parts = (found.dialect, found.tokenizer)
        if not as_json:
            _show_format(found)
    if data:
        from toolhone.cli.doctor_data import examine_data

        examined = examine_data(data, parts, fix, max_length or context, show=not as_json)
        stops = stops or examined.stops
        result = {**result, "data": examined.to_dict()} if model else dict(examined.to_dict())
    if as_json:
        print(json.dumps(result))
    if stops:
        raise typer.Exit(1)


@dataclass(frozen=True)
class ModelFormat:
    """The tokenizer, dialect and certificate of a model; `context` is its longest sequence, if
    known."""

    name: str
    tokenizer: TextTokenizer
    dialect: Dialect | None
    certificate: Certificate
    context: int | None


def open_format(name: str, overrides: Sequence[str]) -> ModelFormat:
    """Read the tokenizer and certify it; a run's format must be the one it was trained with, unless
    overrides change it."""
    from toolhone.api import FORMAT_KEYS
    from toolhone.config.experiment import overridden
    from toolhone.dialects.probe.certificate import certify, check_same
    from toolhone.models.resolve import find, resolve_model, trained_format
    from toolhone.tokenizer import TextTokenizer
    from toolhone.training.setup import format_request

    plan, weights = find(name, None)
    plan = overridden(plan, overrides) if overrides else plan
    whole = weights is not None and (weights / "config.json").is_file()
    base = str(weights) if whole else resolve_model(plan)
    tokenizer = TextTokenizer.load(base)
    dialect, certificate = certify(tokenizer, format_request(plan))
    trained = trained_format(plan, weights)
    if trained is not None:
        named = {text.partition("=")[0] for text in overrides}
        check_same(trained, certificate, name, on_purpose=bool(named & FORMAT_KEYS))
    return ModelFormat(name, tokenizer, dialect, certificate, _context(base, tokenizer))


def _context(base: str, tokenizer: TextTokenizer) -> int | None:
    """Return the longest sequence by the model's configuration and tokenizer; None where neither
    has a limit."""
    from transformers import AutoConfig

    lengths = [getattr(tokenizer.wrapped, "model_max_length", 0) or 0]
    try:
        config = AutoConfig.from_pretrained(base)
        lengths.append(getattr(config.get_text_config(), "max_position_embeddings", 0) or 0)
    except (OSError, ValueError, KeyError):
        pass  # a folder with a tokenizer alone
    return min((int(length) for length in lengths if 0 < length < 10**9), default=None)


def _show_format(found: ModelFormat) -> None:
    """Print the facts, the verdict with its limits, and an example with its supervised tokens."""
    from rich.text import Text

    from toolhone.cli.console import console, print_table

    out, certificate = console(), found.certificate
    rows = [
        (fact.probe, Text(fact.found, "yellow" if fact.fault else ""), Text(fact.why, "dim"))
        for fact in certificate.findings
    ]
    print_table(("probe", "found", "why"), rows, f"The format of {found.name}")
    verdict = certificate.verdict.value
    out.print(Text.assemble("verdict: ", (verdict, STYLES[verdict])))
    for limit in certificate.limits:
        out.print(Text(f"  - {limit}"))
    if found.dialect is None:
        out.print(Text(certificate.reason))
        return
    out.print(Text(_summary(certificate.dialect), "dim"))
    for number, row in enumerate(example_rows(found.dialect, found.tokenizer), start=1):
        counts = f"{int(row.mask.sum())} of {len(row)} tokens are supervised (green)"
        out.print(Text(f"row {number}: {counts}"))
        out.print(coloured(row, found.tokenizer))


def _summary(dialect: Any) -> str:
    form = dialect.get("form")
    if not isinstance(form, str):
        form = (form or {}).get("body", {}).get("kind", dialect.get("syntax"))
    ends = f"a turn ends with {' or '.join(dialect['stop'])}; history {dialect['history']}"
    return f"dialect {dialect['name']}; calls written as {form}; {ends}"


def example_rows(dialect: Dialect, tokenizer: TextTokenizer) -> list[Row]:
    """Render a question, a call, its result and an answer as they are trained."""
    from toolhone.data.render import encode_rows
    from toolhone.schema import Conversation, Message, Tool, ToolCall

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
    from itertools import groupby

    from rich.text import Text

    from toolhone.rows import Origin

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
