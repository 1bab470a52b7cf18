"""Grammars that bind sampling: `Grammars` makes a `backends.base.Constraint` for each prompt from a dialect and the prompt's tools.

    grammars = Grammars(dialect, tokenizer)
    constraint = grammars(tools)            # fresh, for one sample
    constraint.allowed()                    # bool [vocabulary]: which id may come next
    constraint.advance(token)

A grammar is compiled once for each set of tools; what a sample gets is a copy at the beginning. The library is `llguidance`
(`pip install 'toolhone[grammar]'`). Where it gives up in the middle of a turn (its limits on size), only a stop mark may follow,
and the turn is read as any other that was broken off.

What it does not do: log-probabilities stay those of the policy without the grammar, so a constrained sample is no sample of the
policy; see `backends.base.check_unconstrained`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolhone.dialects.base import Dialect
from toolhone.dialects.grammar import grammar_of
from toolhone.errors import CapabilityError, DialectError
from toolhone.schema import Tool
from toolhone.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

KEPT = 512
"""Grammars that are kept compiled."""
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Grammars:
    """Constraints for the turns of one dialect with one tokenizer. `CapabilityError` where the library is missing."""

    def __init__(self, dialect: Dialect, tokenizer: TextTokenizer) -> None:
        self.dialect, self._tokenizer = dialect, tokenizer
        self._library = _open_library(tokenizer)
        self._stop = tokenizer.stop_ids(dialect.stop)
        self._compiled: dict[str, LLMatcher] = {}

    def __call__(self, tools: Sequence[Tool]) -> GrammarConstraint:
        """A fresh constraint for a turn with these tools. `DialectError` when one of them cannot be constrained."""
        key = json.dumps([tool.to_dict() for tool in tools])
        if key not in self._compiled:
            self._compiled[key] = self._compile(tools)
            for old in list(self._compiled)[:-KEPT]:
                del self._compiled[old]
        return GrammarConstraint(
            self._compiled[key].deep_copy(), self._tokenizer.vocab_size, self._stop
        )

    def _compile(self, tools: Sequence[Tool]) -> LLMatcher:
        matcher = self._matcher(tools)
        if not matcher.is_error():
            return matcher
        for tool in tools:
            alone = self._matcher([tool])
            if alone.is_error():
                raise DialectError(
                    f"tool {tool.name!r} cannot be constrained: {_reason(alone)}; evaluate without evaluation.constrained"
                )
        raise DialectError(
            f"these {len(tools)} tools cannot be constrained: {_reason(matcher)}; offer fewer at once"
        )

    def _matcher(self, tools: Sequence[Tool]) -> LLMatcher:
        from llguidance import LLMatcher

        text = grammar_of(self.dialect, tools, self._tokenizer)
        return LLMatcher(self._library, LLMatcher.grammar_from_lark(text), log_level=0)


class GrammarConstraint:
    """The grammar of one turn, as far as it has been sampled (`backends.base.Constraint`)."""

    def __init__(self, matcher: LLMatcher, vocabulary: int, stop: Sequence[int]) -> None:
        self._matcher, self._vocabulary, self._stop = matcher, vocabulary, list(stop)

    def allowed(self) -> NDArray[np.bool_]:
        """bool [vocabulary]: the ids that may come next; never none."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        mask = np.unpackbits(bits, bitorder="little", count=self._vocabulary).astype(bool)
        if self._matcher.is_error() or not mask.any():
            mask = np.zeros(self._vocabulary, dtype=bool)
            mask[self._stop] = True
        return mask

    def advance(self, token: int) -> None:
        """Note the id that was sampled."""
        self._matcher.consume_token(token)


@lru_cache(maxsize=4)
def _open_library(tokenizer: TextTokenizer) -> LLTokenizer:
    """The library's view of the tokenizer, in which control tokens stand for nothing but themselves."""
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ImportError:
        raise CapabilityError(
            "evaluation.constrained needs the library llguidance, which is not installed; install it with: "
            "pip install 'toolhone[grammar]', or leave evaluation.constrained out"
        ) from None
    body = json.loads(tokenizer.wrapped.backend_tokenizer.to_str())
    body |= {"padding": None, "truncation": None}
    control = set(tokenizer.control_texts)
    for token in body.get("added_tokens", []):
        token["special"] = token["content"] in control
    try:
        return LLTokenizer(
            json.dumps(body), n_vocab=tokenizer.vocab_size, eos_token=tokenizer.eos_id
        )
    except ValueError:
        return LLTokenizer(TokenizerWrapper(_Texts(tokenizer)))


class _Texts:
    """A tokenizer as a list of its ids' texts, for kinds that the library cannot read by itself."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        control = {tokenizer.control_id(text): text for text in tokenizer.control_texts}
        names = tokenizer.wrapped.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.pad_id if tokenizer.eos_id is None else tokenizer.eos_id
        self.bos_token_id = None
        self.special_token_ids = [index for index in control if index is not None]
        self.tokens = [self._bytes(index, str(name)) for index, name in enumerate(names)]

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def _bytes(self, index: int, name: str) -> bytes:
        byte = _BYTE.fullmatch(name)
        return (
            bytes([int(byte[1], 16)])
            if byte is not None
            else self._tokenizer.decode([index]).encode()
        )


def _reason(matcher: LLMatcher) -> str:
    """The library's own sentence, without its listing of the grammar."""
    lines = matcher.get_error().strip().split("\n")
    return lines[0].partition(": ")[2] or lines[0]
