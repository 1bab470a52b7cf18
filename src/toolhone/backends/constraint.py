"""Grammars that bind sampling: from a grammar's text to masks of allowed ids.

    text = Grammars(dialect, tokenizer).text(tools)            # checked; a plain string
    constraint = compile_grammar(tokenizer, text, stop_ids)    # fresh, for one sample
    constraint.allowed()                                       # bool [vocabulary]
    constraint.advance(token)

Log-probabilities stay those of the policy without the grammar: see
`backends.base.check_unconstrained`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolhone.dialects.grammar import grammar_of
from toolhone.dialects.grammar_values import WAY_OUT
from toolhone.dialects.interface import Dialect
from toolhone.errors import CapabilityError, DialectError
from toolhone.schema import Tool
from toolhone.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

KEPT = 512
"""Grammars that are kept, as text and compiled."""
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Grammars:
    """Grammars for the turns of one dialect. `CapabilityError` if the library is not installed."""

    def __init__(self, dialect: Dialect, tokenizer: TextTokenizer) -> None:
        self.dialect, self._tokenizer = dialect, tokenizer
        self._stop = tokenizer.stop_ids(dialect.stop)
        self._texts: dict[str, str] = {}
        _open_library(tokenizer)

    def __call__(self, tools: Sequence[Tool]) -> GrammarConstraint:
        """Return a fresh constraint for a turn with these tools."""
        return compile_grammar(self._tokenizer, self.text(tools), self._stop)

    def text(self, tools: Sequence[Tool]) -> str:
        """Write the grammar of a turn with these tools. `DialectError` names a tool without one."""
        key = json.dumps([tool.to_dict() for tool in tools])
        if key not in self._texts:
            self._texts[key] = self._write(tools)
            for old in list(self._texts)[:-KEPT]:
                del self._texts[old]
        return self._texts[key]

    def _write(self, tools: Sequence[Tool]) -> str:
        text = grammar_of(self.dialect, tools, self._tokenizer)
        try:
            _compile(text, self._tokenizer)
            return text
        except DialectError as error:
            fault = f"these {len(tools)} tools cannot be constrained: {error}; offer fewer at once"
        for tool in tools:
            try:
                _compile(grammar_of(self.dialect, [tool], self._tokenizer), self._tokenizer)
            except DialectError as alone:
                fault = f"tool {tool.name!r} cannot be constrained: {alone}; {WAY_OUT}"
                break
        raise DialectError(fault)


class GrammarConstraint:
    """A grammar, as far as one sample has followed it.

    Where the library gives up (its limits on size), only a stop id may follow.
    """

    def __init__(self, matcher: LLMatcher, vocabulary: int, stop_ids: Sequence[int]) -> None:
        self._matcher, self._vocabulary, self._stop = matcher, vocabulary, list(stop_ids)

    def allowed(self) -> NDArray[np.bool_]:
        """bool [vocabulary]: the ids that may come next; at least one."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        mask = np.unpackbits(bits, bitorder="little", count=self._vocabulary).astype(bool)
        if self._matcher.is_error() or not mask.any():
            mask = np.zeros(self._vocabulary, dtype=bool)
            mask[self._stop] = True
        return mask

    def advance(self, token: int) -> None:
        """Take the id that was sampled."""
        self._matcher.consume_token(token)


def compile_grammar(
    tokenizer: str | TextTokenizer,
    text: str,
    stop_ids: Sequence[int],
    trust_remote_code: bool = False,
) -> GrammarConstraint:
    """Compile the grammar, once for each text. `DialectError` if the library refuses it.

    tokenizer: a folder or hub name is loaded on first use.
    """
    if not tokenizer:
        raise CapabilityError("this model names no tokenizer, which a grammar needs")
    if isinstance(tokenizer, str):
        tokenizer = _load(tokenizer, trust_remote_code)
    matcher = _compile(text, tokenizer).deep_copy()
    return GrammarConstraint(matcher, tokenizer.vocab_size, stop_ids)


_load = lru_cache(maxsize=4)(TextTokenizer.load)


@lru_cache(maxsize=KEPT)
def _compile(text: str, tokenizer: TextTokenizer) -> LLMatcher:
    library = _open_library(tokenizer)
    from llguidance import LLMatcher

    matcher = LLMatcher(library, LLMatcher.grammar_from_lark(text), log_level=0)
    if matcher.is_error():
        reason = matcher.get_error().strip().split("\n")[0]  # a listing of the grammar follows
        raise DialectError(reason.partition(": ")[2] or reason)
    return matcher


@lru_cache(maxsize=4)
def _open_library(tokenizer: TextTokenizer) -> LLTokenizer:
    """The library's view of the tokenizer, in which a control token never matches text."""
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ImportError:
        raise CapabilityError(
            "evaluation.constrained needs the library llguidance, which is not installed; "
            "install it with: python -m pip install 'llguidance>=1.7', or leave "
            "evaluation.constrained out"
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
    """A tokenizer as a list of its ids' texts, for kinds that the library cannot read."""

    bos_token_id = None

    def __init__(self, tokenizer: TextTokenizer) -> None:
        control = {tokenizer.control_id(text) for text in tokenizer.control_texts}
        names = tokenizer.wrapped.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))
        escapes = [_BYTE.fullmatch(str(name)) for name in names]
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.pad_id if tokenizer.eos_id is None else tokenizer.eos_id
        self.special_token_ids = sorted(index for index in control if index is not None)
        self.tokens = [
            bytes([int(byte[1], 16)]) if byte else tokenizer.decode([index]).encode()
            for index, byte in enumerate(escapes)
        ]

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)
