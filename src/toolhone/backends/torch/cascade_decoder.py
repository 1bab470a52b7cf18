"""`CascadeDecoder`: rows that decode side by side; each joins and leaves between two steps.

    logits = decoder.join(rows)     # float32 [rows, vocabulary]: after their prompts
    logits = decoder.step()         # after the last token of each of `decoder.rows`
    decoder.leave(ended)

What prompts have in common runs once and is read once; a prompt that goes on where a former row
ended runs its new tokens only. The tokens that are kept are bounded by `Engine.cache_tokens`.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from toolhone.backends.base import SamplingParams
from toolhone.backends.torch.cascade import (
    Array,
    DecodePass,
    Level,
    Pass,
    PrefillPass,
    Segment,
    Slots,
)
from toolhone.backends.torch.decoding_engine import decoding_engine
from toolhone.backends.torch.device import trim_heap
from toolhone.backends.torch.draw import SampleRow
from toolhone.backends.torch.engine import Engine
from toolhone.backends.torch.prefix_cache import SHORTEST, PrefixCache, PrefixNode
from toolhone.config.experiment import to_stderr

LONG = 128
"""Tokens from which on a stretch that one row has for itself is a node, not part of its slot:
slots are as long as the longest."""
COPIED = 2**16
"""Numbers per layer up to which the rows of a node get copies of its keys: a product of their own
for so few costs more than reading them once for each row."""
PREFILL_TOKENS = 4096
"""Tokens of one pass over prompts, unless one prompt alone has more."""
_TRIED: weakref.WeakKeyDictionary[Engine, bool] = weakref.WeakKeyDictionary()


def is_exact(engine: Engine) -> bool:
    """Whether cascade attention gives this model's own logits; tried once, on a few tokens."""
    if engine not in _TRIED:
        narrow = engine.compute_dtype is not torch.float32
        exact = _agrees(engine, math.inf if narrow else 1e-3)
        _TRIED[engine] = exact and (not narrow or _agrees(engine.widened(), 1e-3))
        if not _TRIED[engine]:
            why = "its attention cannot be split into what rows share and what is their own"
            to_stderr(f"{engine.name} is sampled from in padded batches, which is slower: {why}")
    return _TRIED[engine]


def _agrees(engine: Engine, error: float) -> bool:
    """Whether prompts that share tokens, and tokens after them, have the logits of whole rows, but
    for a share `error` of the largest."""
    config = engine.model.config.get_text_config()
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    devices = {value.device for value in engine.model.parameters()}
    if not engine.shares_prefixes or rope in ("dynamic", "longrope") or len(devices) > 1:
        return False
    ids = [token % engine.info.vocab_size for token in range(1, 8)]
    prompts = [(*ids, *ids[:2]), (*ids, *ids[:2]), (*ids, *ids[::-1], ids[0])]
    rows = [SampleRow(prompt, SamplingParams(), 2, None) for prompt in prompts]
    engine.set_learning(False)
    try:
        decoder = CascadeDecoder(decoding_engine(engine, False), PrefixCache(), copied=0)
        steps = [decoder.join(rows)]
        for row, token in zip(rows, ids, strict=False):
            row.take(token, 0.0)
        steps.append(decoder.step())
        for step, logits in enumerate(steps):
            for row, ours in zip(rows, logits, strict=True):
                whole = torch.tensor([[*row.prompt, *row.tokens[:step]]], device=engine.device)
                with torch.no_grad(), engine.autocast():
                    expected = engine.logits(engine.trunk(whole)[:, -1])[0]
                size = float(expected.abs().max().clamp(min=1.0))
                if not torch.allclose(ours, expected, rtol=0.0, atol=error * size):
                    return False
    except (AttributeError, TypeError, RuntimeError, ValueError, LookupError):
        return False
    return True


@dataclass(eq=False)
class _RowSlot:
    """A row in its slot. leaf: the last node of its path; tokens: those after it, in the slot or
    about to run; filled: how many of them are in the slot."""

    row: SampleRow
    leaf: PrefixNode | None
    tokens: list[int]
    filled: int = 0

    @property
    def start(self) -> int:
        return 0 if self.leaf is None else self.leaf.end

    @property
    def path(self) -> list[PrefixNode]:
        return [] if self.leaf is None else self.leaf.path


def _own_nodes(slot: _RowSlot, readers: Mapping[PrefixNode, int]) -> list[PrefixNode]:
    """The short nodes at the end of a path that no other row reads: they go into the slot."""
    nodes = list[PrefixNode]()
    while (
        slot.leaf is not None
        and slot.tokens
        and readers[slot.leaf] == 1
        and len(slot.leaf.tokens) + len(slot.tokens) < LONG
        and slot.leaf.keys
    ):
        nodes.insert(0, slot.leaf)
        slot.tokens = [*slot.leaf.tokens, *slot.tokens]
        slot.leaf = slot.leaf.path[-2] if len(slot.leaf.path) > 1 else None
    return nodes


def _small_nodes(slot: _RowSlot, readers: Mapping[PrefixNode, int], most: int) -> list[PrefixNode]:
    """Take the nodes off the end of a path whose copies have at most so many numbers."""
    nodes, size = list[PrefixNode](), len(slot.tokens)
    while slot.leaf is not None and (size := size + len(slot.leaf.tokens)) < LONG:
        numbers = next(iter(slot.leaf.keys.values()))[:, 0].numel() * len(slot.leaf.tokens)
        if readers[slot.leaf] * numbers > most:
            break
        nodes.insert(0, slot.leaf)
        slot.leaf = slot.leaf.path[-2] if len(slot.leaf.path) > 1 else None
    return nodes


class CascadeDecoder:
    """`copied`: numbers per layer up to which the rows of a node get copies; None: `COPIED`."""

    def __init__(self, engine: Engine, cache: PrefixCache, copied: int | None = None) -> None:
        self._copied = COPIED if copied is None else copied
        self._engine, self._cache = engine, cache
        self._storage, self._slots = Slots(), list[_RowSlot]()
        self._levels, self._splits = list[Level](), -1
        cache.readers.add(self)

    @property
    def rows(self) -> list[SampleRow]:
        """Those that run, in the order of the logits of `step`."""
        return [slot.row for slot in self._slots]

    @property
    def nodes(self) -> set[PrefixNode]:
        """The nodes that running rows read."""
        return {node for slot in self._slots for node in slot.path}

    def admit(self, waiting: Sequence[Sequence[SampleRow]], limit: int) -> int:
        """How many of the waiting requests, from the first on, may start within `limit` tokens.

        One may where nothing runs. Counted are nodes, and slots as long as the longest can become.
        """
        nodes, count = sum(len(node.tokens) for node in self.nodes), len(self._slots)
        room = max((_room(slot.row) for slot in self._slots), default=0)
        before: tuple[int, ...] = ()
        for number, rows in enumerate(waiting):
            count, room, prompt = count + len(rows), max(room, _room(rows[0])), rows[0].prompt
            if len(rows) > 1 or len(prompt) >= LONG:
                nodes += len(prompt) - _common((before, prompt))
            before = prompt
            if count > len(rows) and nodes + count * room > limit:
                return number
        return len(waiting)

    @torch.inference_mode()
    def join(self, rows: Sequence[SampleRow]) -> torch.Tensor:
        """Start rows; returns the logits of their first tokens."""
        prompts: dict[tuple[int, ...], list[SampleRow]] = {}
        for row in rows:
            prompts.setdefault(row.prompt, []).append(row)
        leaves = {prompt: self._cache.match(prompt) for prompt in prompts}
        segments = list(self._grow(prompts, leaves))
        first = len(self._slots)
        for prompt, own in prompts.items():
            start = 0 if (leaf := leaves[prompt]) is None else leaf.end
            self._slots += [_RowSlot(row, leaf, list(prompt[start:])) for row in own]
        self._levels, self._splits = [], -1
        joined = self._slots[first:]
        readers = Counter(node for slot in self._slots for node in slot.path)
        alone = [(place, _own_nodes(slot, readers)) for place, slot in enumerate(joined, first)]
        self._storage.reserve(len(self._slots), max(len(slot.tokens) for slot in self._slots) + 1)
        for place, nodes in alone:
            for node in nodes:
                self._storage.load(place, self._slots[place].filled, node)
                self._slots[place].filled += len(node.tokens)
        segments += [
            Segment(
                slot.tokens[slot.filled :], slot.start + slot.filled, slot.path, place, slot.filled
            )
            for place, slot in enumerate(joined, first)
            if slot.tokens
        ]
        ends = dict[int, torch.Tensor]()
        try:
            for chunk in _chunks(segments):
                ends |= self._prefill(chunk)
        except BaseException:
            self._cache.clear()  # new nodes have no keys
            raise
        states = list[torch.Tensor]()
        for place, slot in enumerate(joined, first):
            state = ends.get(place, None if slot.leaf is None else slot.leaf.state)
            assert state is not None
            states.append(state)
            slot.filled = len(slot.tokens)
        self._copy_small_nodes(first, readers)
        order = {id(slot.row): line for line, slot in enumerate(joined)}
        logits = self._engine.logits(torch.stack(states))
        return logits[[order[id(row)] for row in rows]]

    @torch.inference_mode()
    def step(self) -> torch.Tensor:
        """Run the last token of every row; returns the logits of the next ones."""
        filled = np.array([slot.filled for slot in self._slots])
        starts = np.array([slot.start for slot in self._slots])
        self._storage.reserve(len(self._slots), int(filled.max()) + 1)
        if self._splits != self._cache.splits:
            self._levels, self._splits = self._group(), self._cache.splits
        last = [slot.row.tokens[-1] for slot in self._slots]
        one = DecodePass(self._storage, self._levels, starts + filled, filled)
        states = self._run(one, last, starts + filled)
        for slot, token in zip(self._slots, last, strict=True):
            slot.tokens.append(token)
            slot.filled += 1
        return self._engine.logits(states)

    @torch.inference_mode()
    def leave(self, rows: Sequence[SampleRow]) -> None:
        """Stop rows; what they have run is kept for prompts that go on with it."""
        gone = set(map(id, rows))
        for place in range(len(self._slots) - 1, -1, -1):
            slot = self._slots[place]
            if id(slot.row) not in gone:
                continue
            if slot.filled >= SHORTEST and self._cache.holds(slot.leaf):
                node = self._cache.add(slot.leaf, slot.tokens[: slot.filled])
                self._storage.store(place, node)
            last = self._slots.pop()
            if last is not slot:
                self._slots[place] = last
                self._storage.copy(len(self._slots), place, last.filled)
        self._levels, self._splits = [], -1

    def shrink(self, limit: int) -> None:
        """Forget what no row reads, as far as all that is kept has more than `limit` tokens."""
        before = self._cache.tokens
        self._cache.shrink(limit - self._storage.count * self._storage.room)
        if self._cache.tokens < before:
            trim_heap(self._engine.device)

    def _grow(
        self,
        prompts: dict[tuple[int, ...], list[SampleRow]],
        leaves: dict[tuple[int, ...], PrefixNode | None],
    ) -> Iterator[Segment]:
        """Add a node for whatever several rows have in common, and for long stretches of one.

        Moves `leaves` down to them; yields what has to run, parents first.
        """
        todo = list[tuple[PrefixNode | None, list[tuple[int, ...]]]]()
        for leaf in dict.fromkeys(leaves.values()):
            todo.append((leaf, [prompt for prompt in prompts if leaves[prompt] is leaf]))
        while todo:
            leaf, members = todo.pop()
            start = 0 if leaf is None else leaf.end
            parts: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
            for prompt in members:
                if len(prompt) > start:
                    parts.setdefault(prompt[start : start + SHORTEST], []).append(prompt)
            for alike in parts.values():
                end = start + _common([prompt[start:] for prompt in alike])
                if len(alike) == 1 and len(prompts[alike[0]]) == 1 and end - start < LONG:
                    continue
                node = self._cache.add(leaf, alike[0][start:end])
                yield Segment(node.tokens, start, node.path)
                leaves |= dict.fromkeys(alike, node)
                if len(alike) > 1:
                    todo.append((node, alike))

    def _copy_small_nodes(self, first: int, readers: Mapping[PrefixNode, int]) -> None:
        """Move small nodes at the end of a path into the slots from `first` on."""
        moved = {
            place: _small_nodes(self._slots[place], readers, self._copied)
            for place in range(first, len(self._slots))
        }
        sizes = {place: sum(len(node.tokens) for node in nodes) for place, nodes in moved.items()}
        longest = max(self._slots[place].filled + size for place, size in sizes.items())
        self._storage.reserve(len(self._slots), longest + 1)
        for place, nodes in moved.items():
            slot, start = self._slots[place], 0
            self._storage.shift(place, sizes[place], slot.filled)
            for node in nodes:
                self._storage.load(place, start, node)
                start += len(node.tokens)
            slot.tokens = [*(token for node in nodes for token in node.tokens), *slot.tokens]
            slot.filled += start

    def _prefill(self, segments: Sequence[Segment]) -> dict[int, torch.Tensor]:
        """Run segments; returns the state of the last token by slot, and keeps those of nodes."""
        one, ends, end = PrefillPass(segments, self._storage), dict[int, torch.Tensor](), 0
        states = self._run(one, one.tokens, np.array(one.positions))
        for segment in segments:
            end += len(segment.tokens)
            state = states[end - 1].clone()
            if segment.slot is None:
                segment.path[-1].state = state
            else:
                ends[segment.slot] = state
        return ends

    def _run(self, one: Pass, tokens: Sequence[int], positions: Array) -> torch.Tensor:
        """Hidden states [tokens, width] of a pass."""
        device = self._engine.device
        ids = torch.tensor([tokens], device=device)
        places = torch.from_numpy(positions)[None].to(device)
        with self._engine.autocast():
            states: torch.Tensor = self._engine.model.base_model(
                input_ids=ids, position_ids=places, use_cache=False, cascade=one
            ).last_hidden_state[0]
        return states

    def _group(self) -> list[Level]:
        """The nodes of all paths, by depth, each with its rows."""
        paths, levels = [slot.path for slot in self._slots], list[Level]()
        for depth in range(max(map(len, paths), default=0)):
            rows: dict[PrefixNode, list[int]] = {}
            for place, path in enumerate(paths):
                if len(path) > depth:
                    rows.setdefault(path[depth], []).append(place)
            spans, end = list[tuple[PrefixNode, int, int]](), 0
            for node, own in rows.items():
                spans.append((node, end, end := end + len(own)))
            order = np.array([place for own in rows.values() for place in own])
            same = len(order) == len(paths) and bool((order[1:] > order[:-1]).all())
            device = self._engine.device
            levels.append(Level(None if same else torch.from_numpy(order).to(device), order, spans))
        return levels


def _room(row: SampleRow) -> int:
    """Most tokens that a row may have in its slot."""
    return row.limit + min(len(row.prompt), LONG)


def _common(sequences: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all begin with."""
    shortest, longest = min(sequences), max(sequences)
    for place, token in enumerate(shortest):
        if place >= len(longest) or longest[place] != token:
            return place
    return len(shortest)


def _chunks(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Neighbouring segments of at most `PREFILL_TOKENS` tokens together."""
    chunk, tokens = list[Segment](), 0
    for segment in segments:
        if chunk and tokens + len(segment.tokens) > PREFILL_TOKENS:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(segment)
        tokens += len(segment.tokens)
    if chunk:
        yield chunk
