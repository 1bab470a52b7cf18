"""The tokenizer: what is cut, what may become a control token, and what comes back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from tokenizers import AddedToken, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from support.dialect_models import (
    CHATML_ADDED,
    CHATML_TOKENS,
    metaspace_tokenizer,
    random_text,
    small_tokenizer,
)
from toolhone.errors import DataError, ModelError
from toolhone.rows import Origin
from toolhone.tokenizer import Span, TextTokenizer

CONTROL = (*CHATML_TOKENS, *CHATML_ADDED)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return small_tokenizer()


def control_ids(tokenizer: TextTokenizer, ids: list[int]) -> list[str]:
    texts = {tokenizer.control_id(text): text for text in tokenizer.control_texts}
    return [texts[index] for index in ids if index in texts]


def test_control_text_becomes_control_tokens_and_other_text_does_not(
    tokenizer: TextTokenizer,
) -> None:
    text = "a<|im_end|>b <tool_call></tool_call>"
    assert control_ids(tokenizer, tokenizer.encode(text, control=True)) == [
        "<|im_end|>",
        "<tool_call>",
        "</tool_call>",
    ]
    assert control_ids(tokenizer, tokenizer.encode(text, control=False)) == []


def test_any_text_comes_back_exactly_and_never_holds_a_control_token_by_itself(
    tokenizer: TextTokenizer,
) -> None:
    rng = random.Random(0)
    for _ in range(500):
        text = random_text(rng, rng.randrange(40))
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert control_ids(tokenizer, ids) == []


def test_data_cannot_complete_a_control_token_begun_by_the_template_nor_begin_one(
    tokenizer: TextTokenizer,
) -> None:
    for pieces in (("<|im", "_end|>"), ("<|im_end", "|>"), ("<", "|im_end|>")):
        for control in ((True, False), (False, True)):
            row = tokenizer.encode_spans(
                [Span(text, control=flag) for text, flag in zip(pieces, control, strict=True)]
            )
            assert control_ids(tokenizer, row.tokens.tolist()) == []
            assert tokenizer.decode(row.tokens.tolist()) == "<|im_end|>"


def test_control_marks_beside_data_stay_control_tokens(tokenizer: TextTokenizer) -> None:
    row = tokenizer.encode_spans(
        [Span("<|im_start|>"), Span("<|im_end|>", control=False), Span("<|im_end|>")]
    )
    assert control_ids(tokenizer, row.tokens.tolist()) == ["<|im_start|>", "<|im_end|>"]
    assert row.tokens[-1] == tokenizer.control_id("<|im_end|>")


def test_text_without_a_forbidden_mark_is_encoded_in_one_piece(tokenizer: TextTokenizer) -> None:
    spans = [Span("user"), Span("s and ", control=False), Span("tools")]
    assert tokenizer.encode_spans(spans).tokens.tolist() == tokenizer.encode("users and tools")


@pytest.mark.parametrize(
    "trick", ["＜|im_end|＞", "<｜im_end｜>", "\uff1c|\uff49m_end|>", "<|ⅰm_end|>"]
)
def test_look_alikes_that_a_normaliser_folds_are_no_control_tokens(trick: str) -> None:
    backend = small_tokenizer(normalizer=normalizers.NFKC()).wrapped.backend_tokenizer
    backend.add_special_tokens([AddedToken("<|im_end|>", special=True, normalized=True)])
    folding = TextTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    )
    assert control_ids(folding, folding.encode(trick, control=True)) == ["<|im_end|>"], (
        "the trick must be one"
    )
    assert control_ids(folding, folding.encode(f"x {trick} y", control=False)) == []


def test_a_token_that_swallows_white_space_of_the_data_stays_a_control_token() -> None:
    backend = small_tokenizer().wrapped.backend_tokenizer
    backend.add_special_tokens([AddedToken("<|turn|>", special=True, lstrip=True, rstrip=True)])
    greedy = TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    row = greedy.encode_spans(
        [Span("a  ", control=False), Span("<|turn|>"), Span("  b", control=False)]
    )
    assert control_ids(greedy, row.tokens.tolist()) == ["<|turn|>"]
    assert control_ids(greedy, greedy.encode("a  <|turn|>  b")) == []


def test_added_words_and_white_space_are_no_control_tokens() -> None:
    words = small_tokenizer(added=("covid", "    ", "<tool_call>", "two words"))
    assert set(words.control_texts) == {*CHATML_TOKENS, "<tool_call>"}


def test_the_mask_is_that_of_the_trained_spans_and_entry_0_is_never_trained(
    tokenizer: TextTokenizer,
) -> None:
    spans = [
        Span("abc", Origin.PROMPT),
        Span("hello<|im_end|>", Origin.SAMPLED, trained=True),
        Span("\nx", Origin.TOOL),
    ]
    row = tokenizer.encode_spans(spans)
    turn_ids = tokenizer.encode("hello<|im_end|>", control=True)
    assert row.tokens[row.mask].tolist() == turn_ids
    assert row.origin is not None
    assert row.tokens[row.origin == Origin.SAMPLED].tolist() == turn_ids
    assert tokenizer.decode(row.tokens[row.origin == Origin.TOOL].tolist()) == "\nx"
    assert not tokenizer.encode_spans(spans[1:]).mask[0]


def test_a_turn_is_cut_off_from_its_surroundings(tokenizer: TextTokenizer) -> None:
    together = tokenizer.encode_spans(
        [Span("calcul"), Span("ator", Origin.SAMPLED, trained=True), Span("s")]
    )
    assert together.tokens.tolist() == [
        *tokenizer.encode("calcul"),
        *tokenizer.encode("ator"),
        *tokenizer.encode("s"),
    ]
    assert tokenizer.encode("calculators") != together.tokens.tolist()


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_a_tokenizer_that_puts_a_space_in_front_does_so_only_at_the_start(scheme: str) -> None:
    spaced = metaspace_tokenizer(scheme)
    assert spaced.decode(spaced.encode("hello")) != "hello", (
        "this tokenizer must be one that puts something in front"
    )
    spans = [
        Span("system"),
        Span("user", Origin.SAMPLED, trained=True),
        Span("tool"),
        Span("four</s>", control=False),
    ]
    row = spaced.encode_spans(spans)
    assert spaced.decode(row.tokens.tolist()).strip() == "systemusertoolfour</s>"
    assert spaced.decode(row.tokens[row.mask].tolist()) == "user"
    suffix = spaced.encode_spans([Span("", Origin.SAMPLED), *spans[2:]])
    assert row.tokens.tolist()[-len(suffix) :] == suffix.tokens.tolist()
    assert control_ids(spaced, row.tokens.tolist()) == []


def test_nothing_is_put_in_front_and_the_text_of_the_own_bos_token_is_known() -> None:
    spaced = metaspace_tokenizer("first")
    assert spaced.bos_text == "<s>"
    assert control_ids(spaced, spaced.encode("<s>user", control=True)) == ["<s>"]
    assert control_ids(spaced, spaced.encode("user", control=True)) == []
    assert small_tokenizer().bos_text == ""


def test_decode_leaves_out_a_stop_id_only_at_the_end(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode("<|im_end|>a<|im_end|>", control=True)
    stop = tokenizer.stop_ids(["<|im_end|>"])
    assert tokenizer.decode(ids, stop) == "<|im_end|>a"
    assert tokenizer.decode(ids) == "<|im_end|>a<|im_end|>"
    assert tokenizer.decode([], stop) == ""


def test_a_stop_mark_that_is_no_token_is_refused_by_name(tokenizer: TextTokenizer) -> None:
    with pytest.raises(ModelError, match=r"'</s>' is no control token"):
        tokenizer.stop_ids(["</s>"])


def test_half_a_surrogate_pair_is_a_data_error(tokenizer: TextTokenizer) -> None:
    with pytest.raises(DataError, match="surrogate"):
        tokenizer.encode("x\ud800")


def test_a_folder_without_a_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError,
        match=r"no tokenizer can be loaded from .*: the folder holds no tokenizer\.json; save "
        r"the model",
    ):
        TextTokenizer.load(tmp_path)
    with pytest.raises(
        ModelError, match=r"no tokenizer can be loaded from .*missing': no such folder"
    ):
        TextTokenizer.load(tmp_path / "missing")
    small_tokenizer().save(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(ModelError, match="no tokenizer can be loaded from"):
        TextTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (
            LocalEntryNotFoundError("no"),
            "no such model here, and the hub was not reached; give a folder, or download it first",
        ),
        (
            OfflineModeIsEnabled("no"),
            "no such model here, and the hub was not reached; give a folder, or download it first",
        ),
        (HFValidationError("no"), "no such folder, and not a name of the hub; give a folder"),
    ],
)
def test_a_missing_model_is_reported_in_one_plain_sentence(
    monkeypatch: pytest.MonkeyPatch, cause: Exception, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect\nCheck your connection") from cause

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(
        ModelError, match=f"^no tokenizer can be loaded from 'nosuch/xx': {reason}$"
    ):
        TextTokenizer.load("nosuch/xx")


def test_a_saved_tokenizer_is_loaded_with_its_template_and_the_same_ids(tmp_path: Path) -> None:
    before = small_tokenizer(template="{{ messages[0].content }}")
    before.save(tmp_path)
    after = TextTokenizer.load(tmp_path)
    text = "calculator <tool_call> é"
    assert after.encode(text, control=True) == before.encode(text, control=True)
    assert after.wrapped.chat_template == "{{ messages[0].content }}"
    assert (after.vocab_size, after.eos_id, after.pad_id) == (
        before.vocab_size,
        before.eos_id,
        before.pad_id,
    )
