"""`toolhone doctor`: is the format right, and is the data? Looked at before any training, without weights.

The certificate of a model's format is made in `dialects.certificate`, the findings on data in `data.doctor`; here both are shown.
Only the tokenizer of a model is loaded. Exit code 1 says that training should not go on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.text import Text

    from toolhone.dialects.base import Dialect
    from toolhone.dialects.probe.certificate import Certificate
    from toolhone.rows import Row
    from toolhone.tokenizer import TextTokenizer

EXAMPLE = (
    "Examples: toolhone doctor --model Qwen/Qwen3-0.6B   |   toolhone doctor --model runs/sft --json   |   "
    "toolhone doctor --data train.jsonl --data test.jsonl --model pico --fix clean.jsonl"
)
STYLES = {"certified": "bold green", "certified with limits": "bold yellow", "refused": "bold red"}


def doctor(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. model.history=kept")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="a run, a checkpoint, a model folder, a hub name or 'pico'")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="a data file; more than one: splits of one data set, looked at for leakage"
        ),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(help="write the data, cleaned, to this file, with a report beside it"),
    ] = None,
    dialect: Annotated[
        str | None,
        typer.Option(help="how calls are to be written: auto, native, json, calls, tagged"),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=1, help="the longest row in tokens [default: the model's context]"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON object and nothing else")
    ] = False,
) -> None:
    """Prove the format of a model (--model), examine data (--data), or both together."""
    from toolhone.errors import ConfigError

    if model is None and not data:
        raise ConfigError(
            "toolhone doctor needs --model MODEL, --data FILE, or both; see toolhone doctor --help"
        )
    if fix is not None and not data:
        raise ConfigError("--fix writes cleaned data; name the data with --data FILE")
    wanted = [*(overrides or []), *([] if dialect is None else [f"model.dialect={dialect}"])]
    parts = None if model is None else Parts.open(model, wanted)
    if parts is not None and not as_json:
        parts.show()
    result = {} if parts is None else parts.certificate.to_dict()
    bad = parts is not None and parts.dialect is None
    if data:
        from toolhone.cli.doctor_data import examine_data

        usable = (
            None if parts is None or parts.dialect is None else (parts.dialect, parts.tokenizer)
        )
        found = examine_data(
            data,
            usable,
            fix,
            max_length if max_length or parts is None else parts.context,
            show=not as_json,
        )
        bad = bad or found.stops
        result = {**result, "data": found.to_dict()} if parts is not None else found.to_dict()
    if as_json:
        print(json.dumps(result))
    if bad:
        raise typer.Exit(1)


class Parts:
    """What of a model is looked at: tokenizer, dialect and certificate; the weights are left alone."""

    def __init__(
        self,
        name: str,
        base: str,
        tokenizer: TextTokenizer,
        found: tuple[Dialect | None, Certificate],
    ) -> None:
        self.name, self.tokenizer = name, tokenizer
        self.dialect, self.certificate = found
        self.context = _context(base, tokenizer)

    @staticmethod
    def open(name: str, overrides: Sequence[str]) -> Parts:
        """Read the tokenizer and make the certificate; a run's must be the one it was trained with, unless keys ask otherwise."""
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
        return Parts(name, base, tokenizer, (dialect, certificate))

    def show(self) -> None:
        """The findings as a table, the verdict with its limits, and the example with its supervised tokens."""
        from rich.table import Table
        from rich.text import Text

        from toolhone.cli.console import console

        table = Table(title=f"The format of {self.name}", title_justify="left", pad_edge=False)
        for heading in ("probe", "found", "why"):
            table.add_column(heading, overflow="fold")
        for finding in self.certificate.findings:
            table.add_row(
                Text(finding.probe),
                Text(finding.found, "yellow" if finding.fault else ""),
                Text(finding.why, "dim"),
            )
        screen = console()
        screen.print(table)
        verdict = self.certificate.verdict.value
        screen.print(Text.assemble("verdict: ", (verdict, STYLES[verdict])))
        for limit in self.certificate.limits:
            screen.print(Text(f"  - {limit}"))
        if self.dialect is None:
            screen.print(Text(self.certificate.reason))
            return
        screen.print(Text(_summary(self.certificate.dialect), "dim"))
        for number, row in enumerate(example_rows(self.dialect, self.tokenizer), start=1):
            screen.print(
                Text(
                    f"row {number}: {int(row.mask.sum())} of {len(row)} tokens are supervised (green)"
                )
            )
            screen.print(coloured(row, self.tokenizer))


def _context(base: str, tokenizer: TextTokenizer) -> int | None:
    """The longest sequence that the model takes, by its configuration and its tokenizer; None where neither says one."""
    from transformers import AutoConfig

    lengths = [getattr(tokenizer.wrapped, "model_max_length", 0) or 0]
    try:
        config = AutoConfig.from_pretrained(base)
        lengths.append(getattr(config.get_text_config(), "max_position_embeddings", 0) or 0)
    except (OSError, ValueError, KeyError):
        pass  # a folder with a tokenizer alone
    return min((int(length) for length in lengths if 0 < length < 10**9), default=None)


def _summary(dialect: Any) -> str:
    form = dialect.get("form")
    kind = (
        form
        if isinstance(form, str)
        else (form or {}).get("body", {}).get("kind", dialect.get("syntax"))
    )
    ends = " or ".join(dialect["stop"])
    return f"dialect {dialect['name']}; calls written as {kind}; a turn ends with {ends}; history {dialect['history']}"


def example_rows(dialect: Dialect, tokenizer: TextTokenizer) -> list[Row]:
    """A question, a call, its result and an answer, as they are trained."""
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
    talk = Conversation(messages, (Tool("get_weather", "Tells the weather.", schema),))
    return encode_rows(dialect.render(talk), dialect, tokenizer)


def coloured(row: Row, tokenizer: TextTokenizer) -> Text:
    """The row's text: supervised tokens green, results of tools blue, the rest dim; control tokens are underlined."""
    from rich.text import Text

    from toolhone.rows import Origin

    control = {tokenizer.control_id(text) for text in tokenizer.control_texts}
    text = Text()
    ids, start = row.tokens.tolist(), 0
    origin = [0] * len(row) if row.origin is None else row.origin.tolist()
    styles = [
        ("bold green" if trained else "blue" if kind == Origin.TOOL else "dim")
        + (" underline" if token in control else "")
        for token, trained, kind in zip(ids, row.mask.tolist(), origin, strict=True)
    ]
    for end in range(1, len(ids) + 1):
        if end == len(ids) or styles[end] != styles[start]:
            text.append(tokenizer.decode(ids[start:end]), styles[start])
            start = end
    return text
