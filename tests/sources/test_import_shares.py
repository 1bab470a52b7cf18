"""How much of each published file is read: all that is well-formed. What else is refused is named
here, by data set and count.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import pytest

from conftest import SHARED
from support.source_rows import all_score
from toolhone.data.importing import import_file
from toolhone.errors import DataError, FindingKind
from toolhone.schema import Expect, Task
from toolhone.sources.files import data_files
from toolhone.sources.formats import FOLDERS, detect_format, open_source

DATASETS = SHARED / "datasets"
WELL_FORMED = 0.99
"""The share of the well-formed rows of each file that must be read."""
LONG = ("acebench", "bfcl_v4", "gsm8k")
NOT_WELL_FORMED: Mapping[str, Mapping[str, int]] = {
    "acebench": {FindingKind.TOOL_TWICE: 1},
    "api_bank": {},
    "apibench": {FindingKind.BAD_ARGUMENTS: 1, "a target that is no Python call": 2},
    "bfcl_v4": {FindingKind.UNKNOWN_TOOL: 1, "a parameter for which no value is accepted": 2},
    "glaive": {FindingKind.BAD_ARGUMENTS: 3, "a tool result without a call": 1},
    "gsm8k": {},
    "hammer": {
        FindingKind.BAD_ARGUMENTS: 1,
        FindingKind.TOOL_TWICE: 1,
        FindingKind.UNKNOWN_TOOL: 2,
        "a label and a prediction without a question": 7,
    },
    "hermes": {},
    "llama_factory": {FindingKind.UNDECLARED_ARGUMENT: 1},
    "metatool": {},
    "nestful": {
        FindingKind.BAD_ARGUMENTS: 27,
        FindingKind.UNDECLARED_ARGUMENT: 8,
        FindingKind.UNKNOWN_TOOL: 7,
        "a reference that is not to one earlier call": 2,
    },
    "rotbench": {FindingKind.BAD_ARGUMENTS: 1, FindingKind.UNDECLARED_ARGUMENT: 1},
    "seal_tools": {FindingKind.BAD_ARGUMENTS: 10, "a call of a tool that the catalogue lacks": 1},
    "svamp": {"an equation whose value is not the answer": 1},
    "tau2_bench": {
        "a task that expects nothing but that all stays as it is, or words that a model judges": 6
    },
    "tau_bench": {
        "a flat text that does not say what was called": 87,
        "a failed dialogue about a task that expects nothing but that all stays as it is": 2,
    },
    "toolalpaca": {},
    "toolbench": {
        FindingKind.UNKNOWN_TOOL: 1,
        "a search that gave up": 3,
        "a search without a path to an answer": 1,
        "a query that does not say which APIs are right": 2,
        "two different APIs of one name": 1,
    },
    "toolrl": {
        FindingKind.BAD_ARGUMENTS: 23,
        FindingKind.UNDECLARED_ARGUMENT: 2,
        FindingKind.UNKNOWN_TOOL: 4,
        FindingKind.TOOL_TWICE: 1,
    },
    "when2call": {},
    "xlam": {},
}
"""Rows whose gold breaks its own tools, and rows that hold nothing to learn or to judge by, by the
reason of their refusal.
"""


def places(folder: Path) -> Iterator[Path]:
    """What is read by itself: files of rows, and folders of the formats that read one."""
    whole = set[Path]()
    for file in data_files(folder):
        try:
            name = detect_format(file)
        except DataError:
            continue  # answers, catalogues, documents: read beside the rows
        if name not in FOLDERS:
            yield file
        elif file.parent not in whole:
            whole.add(file.parent)
            yield file.parent


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in NOT_WELL_FORMED],
)
def test_of_each_published_file_all_well_formed_rows_are_read(name: str, tmp_path: Path) -> None:
    if not (DATASETS / name).is_dir():
        pytest.skip(f"{DATASETS / name} is not here")
    named, refused, files = NOT_WELL_FORMED[name], Counter[str](), 0
    for place in places(DATASETS / name):
        for old in tmp_path.iterdir():
            old.unlink()
        loaded = import_file(place, tmp_path / "out.jsonl", overwrite=True).loaded
        well_formed = loaded.read - sum(
            count for reason, count in loaded.skipped.items() if reason in named
        )
        assert loaded.kept >= WELL_FORMED * well_formed, f"{place}: {loaded.summary()}"
        files_made = sorted(tmp_path.glob("*.jsonl"))
        lines = chain.from_iterable(path.read_bytes().split(b"\n")[:-1] for path in files_made)
        for one in islice((one for one in map(json.loads, lines) if "expect" in one), 5):
            assert one == Task.from_dict(one).to_dict()
        refused += loaded.skipped
        files += 1
    assert files
    assert refused == named


@pytest.mark.real
def test_every_published_data_set_has_its_line_here() -> None:
    if not DATASETS.is_dir():
        pytest.skip(f"{DATASETS} is not here")
    assert {folder.name for folder in DATASETS.iterdir() if folder.is_dir()} == set(NOT_WELL_FORMED)


@pytest.mark.real
@pytest.mark.parametrize(
    ("file", "count", "says"),
    [
        ("bfcl_v4/BFCL_v4_live_relevance.json", 8, lambda expect: expect.any_call),
        ("bfcl_v4/BFCL_v4_memory.json", 3 * 97, lambda expect: expect.answer is not None),
        ("bfcl_v4/BFCL_v4_web_search.json", 21, lambda expect: bool(expect.alternatives)),
        ("rotbench/First_Turn/clean.json.gz", 13, lambda expect: bool(expect.alternatives)),
        (
            "toolbench/solvable_test_instruction",
            472,
            lambda expect: all(call.any_arguments for call in expect.wanted),
        ),
        (
            "tau2_bench/retail/tasks.json",
            3,
            lambda expect: any(call.any_arguments for call in expect.wanted),
        ),
    ],
)
def test_what_only_an_open_expectation_can_say_is_read_and_its_right_answers_score(
    file: str, count: int, says: Callable[[Expect], bool]
) -> None:
    path = DATASETS / file
    if not path.exists():
        pytest.skip(f"{path} is not here")
    tasks = open_source(path).tasks
    assert sum(says(task.expect) for task in tasks) == count
    assert all_score(tasks)
