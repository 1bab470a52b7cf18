"""Read and write evaluation folders.

    FOLDER/samples.jsonl     one judged task per line; reading uses this file alone
    FOLDER/samples.csv       query, predicted_text, extracted_calls, expected_calls, match
    FOLDER/certificate.json  the certificate of the format, where there is one

metrics.json is written last, so its presence means a complete folder.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from toolhone.errors import DataError, RunError
from toolhone.evaluation.metrics import Evaluation, JudgedEpisode
from toolhone.rewards.matching import judges_calls
from toolhone.runs.run import plain, write_json, write_text, writing
from toolhone.schema import Json
from toolhone.sources.files import read_records, write_jsonl

METRICS, SAMPLES, TABLE = "metrics.json", "samples.jsonl", "samples.csv"
CERTIFICATE = "certificate.json"
FILES = (METRICS, SAMPLES, TABLE, CERTIFICATE)
COLUMNS = ("query", "predicted_text", "extracted_calls", "expected_calls", "match")


def write_folder(
    evaluation: Evaluation,
    folder: str | Path,
    certificate: Mapping[str, Json] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an evaluation and return its folder.

    `RunError` where the folder holds an evaluation already, unless `overwrite` is set.
    """
    folder = Path(folder)
    if not overwrite:
        refuse_overwriting(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        write_jsonl(folder / SAMPLES, (plain(sample.to_dict()) for sample in evaluation.samples))
        write_text(folder / TABLE, _to_csv(evaluation))
        if certificate is not None:
            write_json(folder / CERTIFICATE, plain(dict(certificate)))
        write_json(folder / METRICS, plain(evaluation.to_dict()))
    return folder


def refuse_overwriting(folder: Path) -> None:
    """Raise `RunError` where the folder holds an evaluation, or is a file."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: this is a file; wanted a folder for the evaluation")
    if names := [name for name in FILES if (folder / name).exists()]:
        raise RunError(
            f"{folder}: this folder holds an evaluation already ({', '.join(names)}); "
            "name another or allow overwriting"
        )


def read_folder(folder: str | Path) -> Evaluation:
    """Read what `write_folder` wrote; metrics are computed again from the samples."""
    folder = Path(folder)
    if not (folder / METRICS).is_file() or not (folder / SAMPLES).is_file():
        raise RunError(
            f"{folder}: this is not an evaluation folder; wanted {METRICS} and {SAMPLES} in it"
        )
    samples = []
    for line, record in read_records(folder / SAMPLES):
        try:
            samples.append(JudgedEpisode.from_dict(record))
        except (KeyError, TypeError, ValueError, AttributeError, DataError) as error:
            what = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{line}: not a sample of an evaluation: {what}") from None
    return Evaluation(tuple(samples))


def _to_csv(evaluation: Evaluation) -> str:
    """Rows for a spreadsheet.

    `match` is the exact match, or whether the answer is right where calls are not judged.
    `expected_calls` is blank where calls are not judged or the column cannot hold them.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for sample in evaluation.samples:
        right = sample.scores.get("exact_match", sample.scores.get("answer_quality"))
        calls = json.dumps(plain([call.to_dict() for call in sample.calls]), ensure_ascii=False)
        wanted, expected = sample.expected.wanted, ""
        is_open = sample.expected.alternatives or any(call.any_arguments for call in wanted)
        if judges_calls(sample.expected) and not is_open:
            listed = [{"name": call.name, "arguments": dict(call.arguments)} for call in wanted]
            expected = json.dumps(plain(listed), ensure_ascii=False)
        match = "" if right is None else str(right == 1.0)
        writer.writerow([plain(sample.query), plain(sample.text), calls, expected, match])
    return text.getvalue()
