"""The evaluation folder: what was measured, on disk.

    FOLDER/metrics.json      {"n", "metrics": {name: {"value", "low", "high", "n"}}, "by_category", "familiar", "outcomes"}
    FOLDER/samples.jsonl     one object for each task: id, category, seed, query, text, calls, expected, outcome, scores, reasons,
                             offered (names of tools), familiar (scores by the definitions of other systems), rewards
    FOLDER/samples.csv       query, predicted_text, extracted_calls, expected_calls, match (`call_tables` reads it)
    FOLDER/certificate.json  the certificate of the format (`dialects.certificate`), where one was given

`samples.jsonl` is the truth: reading takes it alone and measures again. `metrics.json` is written last, so that its presence
means a whole folder. What a model wrote is kept as JSON can say it: numbers that are not finite or too long, half characters and
values nested too deeply become text.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolhone.errors import DataError, RunError
from toolhone.evaluation.metrics import Evaluation, JudgedEpisode
from toolhone.rewards.matching import judges_calls
from toolhone.schema import Expect, Json, ToolCall
from toolhone.sources.files import read_records, write_jsonl

METRICS, SAMPLES, TABLE, CERTIFICATE = (
    "metrics.json",
    "samples.jsonl",
    "samples.csv",
    "certificate.json",
)
COLUMNS = ("query", "predicted_text", "extracted_calls", "expected_calls", "match")
MAX_DEPTH = 50
"""Values nested deeper are written as text."""


def write_folder(
    evaluation: Evaluation,
    folder: str | Path,
    certificate: Mapping[str, Json] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an evaluation; a folder that holds one already is refused unless `overwrite` is set. Returns the folder."""
    folder = Path(folder)
    if not overwrite:
        refuse_overwriting(folder)
    _remove([folder / name for name in _present(folder)])
    write_jsonl(folder / SAMPLES, (plain(_to_dict(sample)) for sample in evaluation.samples))
    write_text(folder / TABLE, _csv(evaluation))
    if certificate is not None:
        write_text(folder / CERTIFICATE, _json(plain(dict(certificate))))
    write_text(folder / METRICS, _json(evaluation.to_dict()))
    return folder


def refuse_overwriting(folder: Path) -> None:
    """Stop where an evaluation lies already, or a file."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: this is a file; wanted a folder for the evaluation")
    if present := _present(folder):
        raise RunError(
            f"{folder}: this folder holds an evaluation already ({', '.join(present)}); name another or allow overwriting"
        )


def _present(folder: Path) -> list[str]:
    return [name for name in (METRICS, SAMPLES, TABLE, CERTIFICATE) if (folder / name).exists()]


def read_folder(folder: str | Path) -> Evaluation:
    """Read what `write_folder` wrote; the metrics are measured again from the samples."""
    folder = Path(folder)
    if not (folder / METRICS).is_file() or not (folder / SAMPLES).is_file():
        raise RunError(
            f"{folder}: this is not an evaluation folder; wanted {METRICS} and {SAMPLES} in it"
        )
    samples = []
    for line, record in read_records(folder / SAMPLES):
        try:
            samples.append(_from_dict(record))
        except (KeyError, TypeError, ValueError, AttributeError, DataError) as error:
            what = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{line}: not a sample of an evaluation: {what}") from None
    return Evaluation(tuple(samples))


def read_certificate(folder: str | Path) -> dict[str, Json] | None:
    """The certificate of the format, or None where none was written."""
    path = Path(folder) / CERTIFICATE
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: wanted a JSON object, got {value!r:.60}")
    return value


def _to_dict(sample: JudgedEpisode) -> dict[str, Json]:
    return {
        "id": sample.id,
        "category": sample.category,
        "seed": sample.seed,
        "query": sample.query,
        "text": sample.text,
        "calls": [call.to_dict() for call in sample.calls],
        "expected": sample.expected.to_dict(),
        "outcome": sample.outcome,
        "scores": dict(sample.scores),
        "reasons": list(sample.reasons),
        "offered": list(sample.offered),
        "familiar": dict(sample.familiar),
        **({"rewards": dict(sample.rewards)} if sample.rewards else {}),
    }


def _from_dict(record: Mapping[str, Json]) -> JudgedEpisode:
    return JudgedEpisode(
        id=str(record["id"]),
        category=str(record["category"]),
        seed=int(record["seed"]),
        query=str(record.get("query", "")),
        text=str(record["text"]),
        calls=tuple(ToolCall.from_dict(call) for call in record["calls"]),
        expected=Expect.from_dict(record["expected"]),
        outcome=str(record["outcome"]),
        scores=_scores(record["scores"]),
        reasons=tuple(map(str, record.get("reasons", ()))),
        offered=tuple(map(str, record.get("offered", ()))),
        familiar=_scores(record.get("familiar", {})),
        rewards={str(name): float(value) for name, value in record.get("rewards", {}).items()},
    )


def _scores(record: Mapping[str, Json]) -> dict[str, float]:
    scores = {str(name): float(value) for name, value in record.items()}
    if not all(0.0 <= value <= 1.0 for value in scores.values()):
        raise ValueError(f"scores must lie in [0, 1], got {scores}")
    return scores


def _csv(evaluation: Evaluation) -> str:
    """Rows for a spreadsheet. `match` is the exact match; where nothing is said about calls, whether the answer was right.

    `expected_calls` is `[]` where no call is wanted, and blank where nothing is said about calls or the column cannot say it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for sample in evaluation.samples:
        right = sample.scores.get("exact_match", sample.scores.get("answer_quality"))
        calls = json.dumps(plain([call.to_dict() for call in sample.calls]), ensure_ascii=False)
        expected = _expected_calls(sample.expected)
        match = "" if right is None else str(right == 1.0)
        writer.writerow([plain(sample.query), plain(sample.text), calls, expected, match])
    return text.getvalue()


def _expected_calls(expect: Expect) -> str:
    wanted = expect.wanted
    if (
        not judges_calls(expect)
        or expect.alternatives
        or any(call.any_arguments for call in wanted)
    ):
        return ""
    return json.dumps(
        plain([{"name": call.name, "arguments": dict(call.arguments)} for call in wanted]),
        ensure_ascii=False,
    )


def plain(value: Json, depth: int = 0) -> Json:
    """The value as strict JSON can write it, whatever a model wrote."""
    if isinstance(value, Mapping):
        if depth < MAX_DEPTH:
            return {_text(str(key)): plain(inner, depth + 1) for key, inner in value.items()}
        return "(nested too deeply)"
    if isinstance(value, list | tuple | set | frozenset):
        return (
            [plain(inner, depth + 1) for inner in value]
            if depth < MAX_DEPTH
            else "(nested too deeply)"
        )
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return value if value.bit_length() < 10_000 else f"(a number of {value.bit_length()} bits)"
    return _text(repr(value))


def _text(text: str) -> str:
    """Text without halves of surrogate pairs, which UTF-8 cannot say: they become `\\udXXX`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json(value: Json) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _remove(paths: Sequence[Path]) -> None:
    try:
        for path in paths:
            path.unlink()
    except OSError as error:
        raise RunError(
            f"{error.filename}: the file cannot be replaced: {error.strerror or error}"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a file, all or nothing; missing folders are made."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(text, encoding="utf-8", newline="")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path}: the file was not written: {error.strerror or error}") from None
