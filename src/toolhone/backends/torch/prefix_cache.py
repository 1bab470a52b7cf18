"""Keys and values of token sequences that were run before, found by the longest cached prefix.

    node = cache.match(prompt)          # the deepest whose path the prompt begins with, or None
    node = cache.add(node, tokens)      # the pass that runs the tokens fills it

A tree: what sequences have in common is in it once. Nodes that nothing uses are dropped, those
unused for longest first, when the bound on tokens is passed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from toolhone.rows import Tokens

SHORTEST = 4
"""Least tokens that sequences must have in common for them to be a node of their own."""


class PrefixNode:
    """A stretch of tokens that follows its parent's.

    keys, values: by layer, [heads, tokens, width]. state: hidden state of the last token, once a
    pass has run it as the end of a prompt.
    """

    def __init__(self, parent: PrefixNode | None, tokens: Sequence[int], start: int) -> None:
        self.parent, self.tokens, self.start = parent, tuple(tokens), start
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self.state: torch.Tensor | None = None
        self.children: dict[tuple[int, ...], list[PrefixNode]] = {}
        self.used = 0

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def path(self) -> list[PrefixNode]:
        """The nodes from the root, which is no part of it, to this one."""
        above = [] if self.parent is None or self.parent.parent is None else self.parent.path
        return [*above, self]

    @property
    def beginning(self) -> tuple[int, ...]:
        """The first tokens, by which the parent finds it."""
        return self.tokens[:SHORTEST]

    def put(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys[layer], self.values[layer] = keys, values

    def common(self, tokens: Sequence[int]) -> int:
        """How many tokens both begin with."""
        length = min(len(self.tokens), len(tokens))
        if self.tokens[:length] == tuple(tokens[:length]):
            return length
        return next(i for i in range(length) if self.tokens[i] != tokens[i])


class Reader(Protocol):
    """Has rows that read nodes, with all nodes above them."""

    @property
    def nodes(self) -> set[PrefixNode]: ...


class PrefixCache:
    """`tokens`: in all nodes. `splits`: how often a node was cut, which changes paths.
    `readers`: the decoders whose rows read it.
    """

    def __init__(self) -> None:
        self.readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._root = PrefixNode(None, (), 0)
        self.tokens, self.splits, self._clock = 0, 0, 0

    def match(self, tokens: Tokens) -> PrefixNode | None:
        """The node with the longest path that `tokens` begins with; has a state if that is all.

        A node that `tokens` follows only for a part is split there.
        """
        whole, node = tuple(tokens), self._root
        self._clock += 1
        while rest := whole[node.end :]:
            starts = (rest[:n] for n in range(SHORTEST, 0, -1))
            alike = [child for start in starts for child in node.children.get(start, ())]
            best = max(alike, key=lambda child: child.common(rest), default=None)
            length = 0 if best is None else best.common(rest)
            if best is None or length < min(SHORTEST, len(best.tokens)):
                break
            if length == len(rest) and (length < len(best.tokens) or best.state is None):
                length -= 1  # the last token of a prompt is run for its state
            if length < len(best.tokens):
                if length < SHORTEST:
                    break
                best = self._split(best, length)
            best.used, node = self._clock, best
        return None if node is self._root else node

    def add(self, parent: PrefixNode | None, tokens: Sequence[int]) -> PrefixNode:
        """A new node below `parent` (None: at the root), without keys and values yet."""
        parent = self._root if parent is None else parent
        node = PrefixNode(parent, tokens, parent.end)
        node.used = self._clock
        _link(parent, node)
        self.tokens += len(node.tokens)
        return node

    def holds(self, node: PrefixNode | None) -> bool:
        """Whether a node (None: the root) was not cleared away."""
        return node is None or node.path[0].parent is self._root

    def clear(self) -> None:
        """Forget all nodes; rows that read some go on."""
        self._root, self.tokens = PrefixNode(None, (), 0), 0

    def shrink(self, limit: int) -> None:
        """Drop nodes that nothing reads once there are more than `limit` tokens; a tenth of it
        becomes free, so that this is seldom."""
        if self.tokens <= limit:
            return
        keep = {node for reader in self.readers for node in reader.nodes}
        while self.tokens > 0.9 * limit:
            leaves = [node for node in _nodes(self._root) if not node.children and node not in keep]
            if not leaves:
                return
            for node in sorted(leaves, key=lambda node: node.used):
                if self.tokens > 0.9 * limit:
                    _unlink(node)
                    self.tokens -= len(node.tokens)

    def _split(self, node: PrefixNode, length: int) -> PrefixNode:
        """Cut a node in two; returns the first, new part. The node itself becomes the second."""
        assert node.parent is not None
        self.splits += 1
        first = PrefixNode(node.parent, node.tokens[:length], node.start)
        _unlink(node)
        for layer in node.keys:
            keys, values = node.keys[layer], node.values[layer]
            first.put(layer, keys[:, :length].clone(), values[:, :length].clone())
            node.put(layer, keys[:, length:].clone(), values[:, length:].clone())
        node.tokens, node.start, node.parent = node.tokens[length:], first.end, first
        _link(node.parent, node)
        assert first.parent is not None
        _link(first.parent, first)
        return first


def _link(parent: PrefixNode, node: PrefixNode) -> None:
    parent.children.setdefault(node.beginning, []).append(node)


def _unlink(node: PrefixNode) -> None:
    assert node.parent is not None
    alike = node.parent.children[node.beginning]
    alike.remove(node)
    if not alike:
        del node.parent.children[node.beginning]


def _nodes(node: PrefixNode) -> Iterator[PrefixNode]:
    for alike in node.children.values():
        for child in alike:
            yield child
            yield from _nodes(child)
