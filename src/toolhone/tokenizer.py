"""Text to token ids and back. Text of users, tools and data never becomes a control token.

Spans are encoded in one piece, except where an assistant's turn begins or ends, so that prompt,
sampled and suffix ids make up a whole conversation, and inside text that is not `control` and
would become a control token. Control tokens are the tokenizer's added tokens, special or not,
except plain words and white space. Only tokenizers with a `tokenizer.json` are supported.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from toolhone.errors import DataError, ModelError
from toolhone.rows import Origin, Row, Tokens


@dataclass(frozen=True)
class Span:
    """A piece of a rendered conversation.

    trained: what the assistant writes, its stop mark included. control: only such text may become
    control tokens; text of users, tools and data never does. turn: the assistant's turn (from 0)
    that a span belongs to. weight: that of its turn in the loss.
    """

    text: str
    origin: Origin = Origin.PROMPT
    trained: bool = False
    control: bool = True
    turn: int | None = None
    weight: float = 1


Spans = list[Span]


class TextTokenizer:
    """A transformers tokenizer, wrapped for whole conversations.

    A tokenizer that puts something in front of each text (a space, say) gets an anchor in front of
    every piece but the first; the anchor's ids are dropped. No BOS token is added.
    """

    def __init__(self, wrapped: Any) -> None:
        backend = getattr(wrapped, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(
                f"the tokenizer {type(wrapped).__name__} has no fast form; toolhone needs a model "
                "with a tokenizer.json"
            )
        self.wrapped = wrapped
        self._backend: Any = backend
        self._control: dict[int, str] = {}
        for index, token in self._backend.get_added_tokens_decoder().items():
            # Added words and white space are none, nor a character that data cannot avoid.
            text = token.content
            is_word = text.replace("_", "").replace(" ", "").isalnum()
            if len(text) > 1 and not text.isspace() and (token.special or not is_word):
                self._control[index] = text
        self.control_texts = tuple(self._control.values())
        self.folds = backend.normalizer is not None
        """Whether characters are normalised before control tokens are looked for."""
        self._anchor = self._find_anchor()
        self._anchor_ids = self._ids(self._anchor) if self._anchor else []

    @staticmethod
    def load(path: str | Path, trust_remote_code: bool = False) -> TextTokenizer:
        """Load the tokenizer of a model folder or hub name; `ModelError` where there is none.

        The tokenizers library raises plain `Exception` for a damaged file.
        """
        from transformers import AutoTokenizer

        try:
            wrapped = AutoTokenizer.from_pretrained(str(path), trust_remote_code=trust_remote_code)
            tokenizer = TextTokenizer(wrapped)
            usable = bool(tokenizer.encode("a b"))
        except ModelError:
            raise
        except Exception as error:
            reason = _why_not_loaded(Path(path), error)
            raise ModelError(f"no tokenizer can be loaded from {str(path)!r}: {reason}") from None
        if not usable:
            raise ModelError(
                f"{path} holds no tokenizer (no tokenizer.json); save the model together with its "
                "tokenizer"
            )
        return tokenizer

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files, chat template included."""
        self.wrapped.save_pretrained(str(folder))

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included (a model's embedding may have more rows)."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def eos_text(self) -> str | None:
        """The end-of-text token where it is a control token."""
        text = self.wrapped.eos_token
        return str(text) if text is not None and self.control_id(str(text)) is not None else None

    @cached_property
    def bos_text(self) -> str:
        """The token that this tokenizer puts in front of every text by itself; empty for none."""
        special = self._backend.encode("a", add_special_tokens=True).ids
        plain = self._backend.encode("a", add_special_tokens=False).ids
        single = special[-len(plain) :] == plain and len(special) == len(plain) + 1
        return self._control.get(special[0], "") if single else ""

    @property
    def eos_id(self) -> int | None:
        return None if self.wrapped.eos_token_id is None else int(self.wrapped.eos_token_id)

    @property
    def pad_id(self) -> int:
        """The pad token, else the end-of-text token, else 0 (padding is masked everywhere)."""
        pad = self.wrapped.pad_token_id
        return int(pad) if pad is not None else self.eos_id or 0

    def identity(self) -> str:
        """Return vocabulary, merges, added tokens, normalisation and end-of-text token as text."""
        whole = json.loads(self._backend.to_str())
        for name in ("truncation", "padding", "version"):
            whole.pop(name, None)
        return json.dumps([whole, self.wrapped.eos_token], sort_keys=True)

    def control_id(self, text: str) -> int | None:
        """Return the id of a control token's text; None for other texts."""
        index = self._backend.token_to_id(text)
        return int(index) if index is not None and index in self._control else None

    def stop_ids(self, stop: Iterable[str]) -> tuple[int, ...]:
        """Return the ids of a dialect's stop texts. `ModelError` for one that is no token here."""
        ids = {text: self.control_id(text) for text in stop}
        for text, index in ids.items():
            if index is None:
                raise ModelError(f"the stop mark {text!r} is no control token of this tokenizer")
        return tuple(index for index in ids.values() if index is not None)

    def encode(self, text: str, control: bool = False) -> list[int]:
        """Return the ids of a text. control: whether marks in it become control tokens."""
        return self._encode_piece([Span(text, control=control)], True)[0]

    def encode_spans(
        self, spans: Sequence[Span], kept: Mapping[int, Tokens] | None = None, ends: Tokens = ()
    ) -> Row:
        """Return the ids of rendered spans with mask (trained) and origin.

        `turn_weights` are among the arrays where a turn has another weight than 1; the mask does
        not depend on them (see `Row.with_mask`).

        A list that begins with an empty span continues an earlier text; an empty span is a cut.
        kept: sampled ids by turn. They are never encoded again: of a turn those ids are kept whose
        text the template keeps, all or all after the place where the template changes it. ends:
        the ids that end a turn.
        """
        kept = kept or {}
        tokens: list[int] = []
        mask: list[bool] = []
        origins: list[int] = []
        weights: list[float] = []
        starts_text = not spans or bool(spans[0].text)

        def key(span: Span) -> tuple[int | None, bool, bool, bool, float]:
            if span.turn in kept:
                return span.turn, False, False, True, span.weight
            sampled = span.origin == Origin.SAMPLED
            return None, span.trained, sampled, bool(span.text), span.weight

        for (turn, trained, _, has_text, weight), group in groupby(spans, key):
            if not has_text:
                continue
            if turn is None:
                ids, kinds = self._encode_piece(list(group), starts_text)
            else:
                ids = self._keep("".join(span.text for span in group), kept[turn], ends)
                kinds = [int(Origin.SAMPLED)] * len(ids)
            tokens += ids
            origins += kinds
            mask += [trained] * len(ids)
            weights += [weight] * len(ids)
            starts_text = False
        row = Row.of(tokens, mask, origins)
        return row if set(weights) <= {1} else row.with_arrays(turn_weights=np.array(weights))

    def _keep(self, written: str, sampled: Tokens, ends: Tokens) -> list[int]:
        """The ids of a sampled turn, as far as the template's text for it keeps them."""
        body, ending = list(sampled), list[int]()
        if body and body[-1] in ends:
            body, ending = body[:-1], body[-1:]
        marks = {self.decode([index]): index for index in ends}
        fitting = [mark for mark in marks if written.endswith(mark)]
        if fitting:
            mark = max(fitting, key=len)
            written, ending = written.removesuffix(mark), [marks[mark]]
        text = self.decode(body)
        if text == written:
            return [*body, *ending]
        pairs = enumerate(zip(reversed(text), reversed(written), strict=False))
        shared = next((k for k, (a, b) in pairs if a != b), min(len(text), len(written)))

        def length(start: int) -> int:
            return -len(self.decode(body[start:]))

        kept = body[bisect_left(range(len(body)), -shared, key=length) :]
        missing = len(written) - len(self.decode(kept))
        return [*self.encode(written[:missing], control=True), *kept, *ending]

    def decode(self, ids: Tokens, skip_stop: Sequence[int] = ()) -> str:
        """Return the exact text of ids, without a last id that is in `skip_stop`."""
        kept = list(ids[:-1] if len(ids) and ids[-1] in skip_stop else ids)
        if not self._anchor:
            return self._text(kept)
        return self._text(self._anchor_ids + kept)[len(self._text(self._anchor_ids)) :]

    def _encode_piece(
        self, spans: Sequence[Span], starts_text: bool
    ) -> tuple[list[int], list[int]]:
        """Ids and origins of a text without cuts, cut until no control token covers other text."""
        text = "".join(span.text for span in spans)
        control = b"".join(bytes([span.control]) * len(span.text) for span in spans)
        origin_at = b"".join(bytes([span.origin]) * len(span.text) for span in spans)
        ids: list[int] = []
        origins: list[int] = []
        waiting = [(0, len(text))]
        while waiting:
            start, end = waiting.pop()
            anchored = not (starts_text and start == 0)
            found, offsets = self._encode_text(text[start:end], anchored)
            places = [(start + a, start + b) for a, b in offsets] if start else offsets
            if 0 in control and (cuts := self._forbidden(text, control, found, places)):
                waiting += reversed([(a, b) for a, b in pairwise([start, *cuts, end]) if a < b])
                continue
            ids += found
            if len(set(origin_at)) < 2:
                origins += [*origin_at[:1]] * len(found)
            else:
                origins += [origin_at[min(start, len(text) - 1)] for start, _ in places]
        return ids, origins

    def _forbidden(
        self, text: str, control: bytes, ids: Sequence[int], places: Sequence[tuple[int, int]]
    ) -> list[int]:
        """Where to cut: after the first character of each control token over other text."""
        cuts = []
        for index, (start, end) in zip(ids, places, strict=True):
            covered = text[start:end]
            start += len(covered) - len(covered.lstrip())
            end -= len(covered) - len(covered.rstrip())
            if index not in self._control or 0 not in control[start:end]:
                continue
            if end - start < 2:
                raise DataError(
                    f"the character {covered!r} in the data is a control token of this tokenizer; "
                    "remove it from the data"
                )
            cuts.append(start + 1)
        return cuts

    def _encode_text(self, text: str, anchored: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and character offsets of a text in one piece; the anchor's are dropped."""
        if not text:
            return [], []
        anchor = self._anchor if anchored else ""
        try:
            encoding = self._backend.encode(anchor + text, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError):
            raise DataError(
                f"a text holds half a surrogate pair and is no Unicode text: {text!r:.60}"
            ) from None
        if not anchor:
            return encoding.ids, encoding.offsets
        skip, shift = len(self._anchor_ids), len(anchor)
        offsets = encoding.offsets[skip:]
        return encoding.ids[skip:], [(max(a - shift, 0), max(b - shift, 0)) for a, b in offsets]

    def _find_anchor(self) -> str:
        """A text that keeps the tokenizer from putting anything in front of what follows.

        Empty when it puts nothing there.
        """
        probes = ("a", "hello", " hello", "{", "<", "1")
        line = self._ids("\n")
        if all(self._ids("\n" + text) == line + self._ids(text) for text in probes):
            return ""
        for anchor in ("\n", "\x00", "|", "=", *self.control_texts):
            before = self._ids(anchor)
            shown = self._text(before)
            if before and all(
                (ids := self._ids(anchor + text))[: len(before)] == before
                and self._text(ids) == shown + text
                for text in probes
            ):
                return anchor
        return ""

    def _ids(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._backend.decode(ids, skip_special_tokens=False))


_NO_MODEL = "no such model here, and the hub"
_UNREACHED = f"{_NO_MODEL} was not reached; give a folder, or download it first"
_UNKNOWN = f"{_NO_MODEL} has none of this name that may be read; give a folder or another name"
_NOT_LOADED = {
    "LocalEntryNotFoundError": _UNREACHED,
    "OfflineModeIsEnabled": _UNREACHED,
    "RepositoryNotFoundError": _UNKNOWN,
    "HFValidationError": "no such folder, and not a name of the hub; give a folder",
}
"""What errors of `huggingface_hub.errors` mean for a user."""


def _why_not_loaded(path: Path, error: Exception) -> str:
    """What a user can do about it where that is known, else what the library reports."""
    if path.is_dir() and not (path / "tokenizer.json").is_file():
        return "the folder holds no tokenizer.json; save the model together with its tokenizer"
    causes = (error, error.__cause__, error.__context__)
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    for name, reason in _NOT_LOADED.items() if not path.exists() else ():
        if name in kinds:
            return reason
    return str(error).strip().split("\n")[0][:200]
