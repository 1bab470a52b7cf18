"""Questions of BFCL are known by their hashes, and nothing else is."""

from __future__ import annotations

import gzip
import json
from importlib import resources

import pytest

from conftest import SHARED
from toolhone.doctor.leaks import FILE, MIN_BYTES, bfcl_question, question_hash
from toolhone.sources.files import read_records

BFCL = SHARED / "datasets" / "bfcl_v4"
SAID = "Please mix Two litres of Paint, ﬁne and red."


def test_case_white_space_and_forms_of_unicode_do_not_change_the_hash() -> None:
    assert question_hash(SAID) == question_hash(
        "  please\nmix two  litres of paint,\tFINE and red. "
    )
    assert question_hash(SAID) != question_hash(SAID.replace("two", "ten").replace("Two", "ten"))


def test_a_hash_is_sixteen_hexadecimal_digits() -> None:
    digest = question_hash(SAID)
    assert digest is not None
    assert len(digest) == 16
    assert int(digest, 16) >= 0


def test_texts_that_occur_everywhere_have_no_hash_and_are_no_questions() -> None:
    for text in ("", "hi", "What can you do?", "x" * (MIN_BYTES - 1)):
        assert question_hash(text) is None
        assert not bfcl_question(text)
    assert question_hash("x" * MIN_BYTES) is not None


def test_half_a_surrogate_pair_is_no_reason_to_stop() -> None:
    assert not bfcl_question("\ud800" * 40)


def test_the_file_holds_hashes_and_no_text() -> None:
    shipped = json.loads(
        gzip.decompress((resources.files("toolhone.config.presets") / FILE).read_bytes())
    )
    assert shipped.keys() == {"of", "hashes"}
    assert len(shipped["hashes"]) == len(set(shipped["hashes"])) == 4361
    assert all(len(entry) == 16 and int(entry, 16) >= 0 for entry in shipped["hashes"])


def test_what_is_not_asked_there_is_no_question_of_it() -> None:
    assert not bfcl_question(SAID)


@pytest.mark.real
def test_every_question_of_the_published_files_is_known() -> None:
    if not BFCL.is_dir():
        pytest.skip(f"{BFCL} is not here")
    seen = 0
    for path in sorted(BFCL.glob("BFCL_v4_*.json*")):
        for _, record in read_records(path):
            for message in (
                message
                for turn in record["question"]
                for message in turn
                if message["role"] == "user"
            ):
                seen += 1
                text = message["content"]
                assert question_hash(text) is None or bfcl_question(text.replace(" ", "\n "))
    assert seen == 3597
