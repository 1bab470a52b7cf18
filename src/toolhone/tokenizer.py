"""Text to token ids and back, with one promise: text of users, tools and data never becomes a control token.

`TextTokenizer` wraps a transformers tokenizer. A conversation becomes ids span by span (`dialects.base.Span`), and is cut in two
kinds of places only:

* where an assistant's turn begins and ends, so that prompt ids + sampled ids + suffix ids are the ids of the whole conversation;
* inside text that is not `control` and would become a control token: behind its first character, until no token does.

Everything between two cuts is encoded in one piece. A tokenizer that puts a space (or anything else) in front of each text is found
out by trying, and gets an anchor in front of every piece but the first; the anchor's ids are dropped. Nothing is added: a BOS token
stands in the ids when the dialect wrote it.

*Control tokens* are the tokenizer's added tokens, special or not (`<tool_call>` is one in some models), except plain words and
white space. Only tokenizers with a `tokenizer.json` ("fast" ones) are supported.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from toolhone.errors import DataError, ModelError
from toolhone.rows import Origin, Row, Tokens

_ANCHORS = ("\n", "\x00", "|", "=")


class TextSpan(Protocol):
    """What the tokenizer needs to know of a `dialects.base.Span`."""

    @property
    def text(self) -> str: ...
    @property
    def origin(self) -> Origin: ...
    @property
    def trained(self) -> bool: ...
    @property
    def control(self) -> bool: ...


@dataclass(frozen=True)
class _Piece:
    """Text without a cut: where its spans begin, and each span's control flag and origin."""

    text: str
    starts: list[int]
    control: list[bool]
    origins: list[int]

    def is_control(self, start: int, end: int) -> bool:
        """Whether all characters in [start, end) may be control text."""
        first = bisect.bisect_right(self.starts, start) - 1
        last = bisect.bisect_left(self.starts, end)
        return all(self.control[first:last])

    def origins_at(self, places: Sequence[tuple[int, int]]) -> list[int]:
        """The origin of the span in which each of these places begins."""
        if min(self.origins) == max(self.origins):
            return self.origins[:1] * len(places)
        return [
            self.origins[max(bisect.bisect_right(self.starts, start) - 1, 0)] for start, _ in places
        ]


class TextTokenizer:
    """A tokenizer for whole conversations; see the module's text for its rules."""

    def __init__(self, wrapped: Any) -> None:
        backend = getattr(wrapped, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(
                f"the tokenizer {type(wrapped).__name__} has no fast form; toolhone needs a model with a tokenizer.json"
            )
        self.wrapped = wrapped
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        self._control = {
            index: token.content
            for index, token in added.items()
            if _is_control(token.content, token.special)
        }
        self._anchor = self._find_anchor()
        self._anchor_ids: list[int] = self._raw(self._anchor)[0]

    @staticmethod
    def load(path: str | Path, trust_remote_code: bool = False) -> TextTokenizer:
        """The tokenizer of a model folder or hub name. `ModelError` when there is none that can be used.

        The tokenizers library raises plain `Exception` for a damaged file, so that all are caught here.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = TextTokenizer(
                AutoTokenizer.from_pretrained(str(path), trust_remote_code=trust_remote_code)
            )
            if not tokenizer.encode("a b"):
                raise ModelError(
                    f"{path} holds no tokenizer (no tokenizer.json); save the model together with its tokenizer"
                )
            return tokenizer
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"no tokenizer can be loaded from {str(path)!r}: {_why_not_loaded(Path(path), error)}"
            ) from None

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files, chat template included."""
        self.wrapped.save_pretrained(str(folder))

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included (a model's embedding may have more rows)."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def control_texts(self) -> tuple[str, ...]:
        """The texts of all control tokens."""
        return tuple(self._control.values())

    @property
    def folds(self) -> bool:
        """Whether characters are changed (normalised) before control tokens are looked for."""
        return self._backend.normalizer is not None

    @property
    def eos_text(self) -> str | None:
        """The end-of-text token where it is a control token."""
        text = self.wrapped.eos_token
        return str(text) if text is not None and self.control_id(str(text)) is not None else None

    @cached_property
    def bos_text(self) -> str:
        """The text of the token that this tokenizer puts in front of every text by itself; empty when it puts none."""
        with_special = self._backend.encode("a", add_special_tokens=True).ids
        without = self._backend.encode("a", add_special_tokens=False).ids
        added = (
            with_special[: len(with_special) - len(without)]
            if with_special[-len(without) :] == without
            else []
        )
        return self._control.get(added[0], "") if len(added) == 1 else ""

    @property
    def eos_id(self) -> int | None:
        return None if self.wrapped.eos_token_id is None else int(self.wrapped.eos_token_id)

    @property
    def pad_id(self) -> int:
        """The id to pad with: the pad token, else the end-of-text token, else 0 (padding is masked everywhere)."""
        known = [
            index
            for index in (self.wrapped.pad_token_id, self.wrapped.eos_token_id)
            if index is not None
        ]
        return int(known[0]) if known else 0

    def identity(self) -> str:
        """Vocabulary, merges, added tokens, normalisation and end-of-text token as one text: equal for equal tokenizers."""
        whole = json.loads(self._backend.to_str())
        for name in ("truncation", "padding", "version"):
            whole.pop(name, None)
        return json.dumps([whole, self.wrapped.eos_token], sort_keys=True)

    def control_id(self, text: str) -> int | None:
        """The id of a control token's text; None when it is none."""
        index = self._backend.token_to_id(text)
        return int(index) if index is not None and index in self._control else None

    def stop_ids(self, stop: Iterable[str]) -> tuple[int, ...]:
        """The ids of a dialect's stop texts. `ModelError` for one that is no control token here."""
        ids = {text: self.control_id(text) for text in stop}
        for text, index in ids.items():
            if index is None:
                raise ModelError(f"the stop mark {text!r} is no control token of this tokenizer")
        return tuple(index for index in ids.values() if index is not None)

    def encode(self, text: str, control: bool = False) -> list[int]:
        """Ids of a text on its own; `control` says whether marks in it become control tokens."""
        return self._encode_piece(_Piece(text, [0], [control], [0]), starts_text=True)[0]

    def encode_spans(self, spans: Sequence[TextSpan]) -> Row:
        """Ids of rendered spans with mask (trained) and origin. A list that begins with an empty span continues an earlier text."""
        tokens: list[int] = []
        mask: list[bool] = []
        origins: list[int] = []
        starts_text = not spans or bool(spans[0].text)
        for group in _groups(spans):
            ids, kinds = self._encode_piece(_piece(group), starts_text)
            tokens += ids
            origins += kinds
            mask += [group[0].trained] * len(ids)
            starts_text = False
        return Row.of(tokens, mask, origins)

    def decode(self, ids: Tokens, skip_stop: Sequence[int] = ()) -> str:
        """The exact text of ids, control tokens as their text; a last id that is in `skip_stop` is left out."""
        kept = list(ids[:-1] if len(ids) and ids[-1] in skip_stop else ids)
        if not self._anchor:
            return str(self._backend.decode(kept, skip_special_tokens=False))
        before = str(self._backend.decode(self._anchor_ids, skip_special_tokens=False))
        return str(self._backend.decode(self._anchor_ids + kept, skip_special_tokens=False))[
            len(before) :
        ]

    def _encode_piece(self, piece: _Piece, starts_text: bool) -> tuple[list[int], list[int]]:
        """Ids and origins of a piece, cut further until no control token covers text that may not be one."""
        ids: list[int] = []
        origins: list[int] = []
        waiting = [(0, len(piece.text))]
        while waiting:
            start, end = waiting.pop()
            found, offsets = self._raw(
                piece.text[start:end], anchored=not (starts_text and start == 0)
            )
            places = [(start + a, start + b) for a, b in offsets] if start else offsets
            cuts = self._forbidden(piece, found, places)
            if cuts:
                edges = [start, *cuts, end]
                waiting += reversed([(a, b) for a, b in pairwise(edges) if a < b])
                continue
            ids += found
            origins += piece.origins_at(places)
        return ids, origins

    def _forbidden(self, piece: _Piece, ids: list[int], places: list[tuple[int, int]]) -> list[int]:
        """Where to cut: behind the first character of each control token that covers text which is not control text."""
        if all(piece.control):
            return []
        cuts = []
        for place in [place for place, index in enumerate(ids) if index in self._control]:
            start, end = places[place]
            covered = piece.text[start:end]
            start, end = (
                start + len(covered) - len(covered.lstrip()),
                end - len(covered) + len(covered.rstrip()),
            )
            if piece.is_control(start, end):
                continue
            if end - start < 2:
                raise DataError(
                    f"the character {covered!r} in the data is a control token of this tokenizer; remove it from the data"
                )
            cuts.append(start + 1)
        return cuts

    def _raw(self, text: str, anchored: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and character offsets of a text in one piece, behind the anchor where that is asked for."""
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
        skip = len(self._anchor_ids)
        shift = len(anchor)
        return encoding.ids[skip:], [
            (max(a - shift, 0), max(b - shift, 0)) for a, b in encoding.offsets[skip:]
        ]

    def _find_anchor(self) -> str:
        """A text that keeps the tokenizer from putting anything in front of what follows; empty when it puts nothing."""
        probes = ("a", "hello", " hello", "{", "<", "1")
        if all(self._follows("\n", text, self._ids(text)) for text in probes):
            return ""
        anchor: str
        for anchor in (*_ANCHORS, *self._control.values()):
            before = self._ids(anchor)
            shown = self._backend.decode(before, skip_special_tokens=False)
            if before and all(self._continues(anchor, before, shown, text) for text in probes):
                return anchor
        return ""

    def _continues(self, anchor: str, before: list[int], shown: str, text: str) -> bool:
        ids = self._ids(anchor + text)
        return (
            ids[: len(before)] == before
            and self._backend.decode(ids, skip_special_tokens=False) == shown + text
        )

    def _follows(self, before: str, text: str, ids: list[int]) -> bool:
        return self._ids(before + text) == [*self._ids(before), *ids]

    def _ids(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)


def _why_not_loaded(path: Path, error: Exception) -> str:
    """What a user can do about it where that is known, else what the library says."""
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    causes = (error, error.__cause__, error.__context__)
    if path.is_dir() and not (path / "tokenizer.json").is_file():
        return "the folder holds no tokenizer.json; save the model together with its tokenizer"
    if not path.exists() and any(
        isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled) for cause in causes
    ):
        return (
            "no such model here, and the hub was not reached; give a folder, or download it first"
        )
    if not path.exists() and any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return "no such model here, and the hub has none of this name that may be read; give a folder or another name"
    if not path.exists() and any(isinstance(cause, HFValidationError) for cause in causes):
        return "there is no such folder, and it is no name of the hub; give a folder"
    return str(error).strip().split("\n")[0][:200]


def _is_control(text: str, special: bool) -> bool:
    """Added words and white space are not control tokens; nor is a single character, which data could not avoid."""
    return (
        len(text) > 1
        and not text.isspace()
        and (special or not text.replace("_", "").replace(" ", "").isalnum())
    )


def _groups(spans: Sequence[TextSpan]) -> list[list[TextSpan]]:
    """Spans between two places where an assistant's turn begins or ends."""
    groups: list[list[TextSpan]] = []
    key: tuple[bool, bool] | None = None
    for span in spans:
        if not span.text:
            key = None
            continue
        this = (span.trained, span.origin == Origin.SAMPLED)
        if this != key:
            groups.append([])
        groups[-1].append(span)
        key = this
    return groups


def _piece(group: Sequence[TextSpan]) -> _Piece:
    starts: list[int] = []
    length = 0
    for span in group:
        starts.append(length)
        length += len(span.text)
    return _Piece(
        "".join(span.text for span in group),
        starts,
        [span.control for span in group],
        [int(span.origin) for span in group],
    )
