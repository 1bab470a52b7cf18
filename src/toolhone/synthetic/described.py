"""Questions for one tool, made of its name, its description and its schema.

phrase = DescribedPhrase(tool, sampler)
draw = phrase.draw(random.Random(0), False)            # "refund order ORD-12345 with ..."
phrase.ask(arguments, {"order_id"}, rng, False)        # the same, without saying which order
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from toolhone.config.phrasings import word_lists
from toolhone.schema import Json, Tool, ToolCall
from toolhone.synthetic.clauses import Pieces, clauses_of, fill, join_clauses, speak, wordings
from toolhone.synthetic.paraphrase import Form, command_of
from toolhone.synthetic.phrases import Draw
from toolhone.synthetic.slots import SlotPiece
from toolhone.tools.relations import Relation
from toolhone.tools.schema_sampler import Leaf, SchemaSampler, Steps
from toolhone.tools.text_kinds import words_of

_MAKING = ("create", "add", "open", "book", "schedule", "make", "register", "start", "place")
_IDENTITY: tuple[list[str], ...] = (["id"], ["number"], ["code"], ["name"], ["reference"], [])
"""What a parameter is called besides the thing itself, as `order_id`."""


class DescribedPhrase:
    """Questions that say every argument of a call in a clause of its own."""

    def __init__(self, tool: Tool, sampler: SchemaSampler) -> None:
        self.tool, self._schemas, self._sampler = tool, sampler.schemas, sampler
        self._arguments = sampler.maker(tool.parameters, ())
        words = words_of(tool.name)
        self._name = " ".join(words) or tool.name
        verbs = word_lists("manual")["verbs"]
        self._verb, self._thing = (words[0], words[1:]) if words and words[0] in verbs else ("", [])
        self._commands = [command_of(tool.description, verbs)]
        if self._verb:
            article = self._verb in _MAKING and not words[-1].endswith("s")
            an = f"{'an' if self._thing[:1] and self._thing[0][0] in 'aeiou' else 'a'} "
            rest = f"{an if article else ''}{' '.join(self._thing)}"
            self._commands.append(f"{self._verb} {rest}".strip())
        self._commands = [one for one in self._commands if one] or [f"use {self._name}"]

    def draw(self, rng: random.Random, held: bool) -> Draw:
        """Draw arguments, and a question that says them."""
        arguments = self._arguments(rng, held)
        return self.ask(arguments, (), rng, held)

    def ask(
        self, arguments: dict[str, Json], unsaid: Collection[str], rng: random.Random, held: bool
    ) -> Draw:
        """Return a question for these arguments that says nothing of the `unsaid` ones."""
        split = "held_out" if held else "train"
        leaves = [leaf for leaf in self.leaves(arguments) if leaf.path[0] not in unsaid]
        related = self.related(arguments)
        frame = rng.choice(wordings()["frames"][split])
        what = [SlotPiece(rng.choice(self._commands))]
        direct, rest = self._direct_object(leaves, related, split, rng)
        if direct and "{what}" in frame:
            what = [SlotPiece(f"{self._verb} "), *direct]
        else:
            rest = leaves
        bounded = [leaf.path for leaf in rest if self.has_partner(leaf.path)]
        clauses = clauses_of(rest, related, split, rng, bounded)
        said = join_clauses(clauses, rng)
        pieces = fill(frame, {"what": what, "tool": self._name, "args": said})
        return Draw(Form.DO, tuple(pieces), (ToolCall(self.tool.name, arguments),))

    def leaves(self, arguments: Mapping[str, Json]) -> list[Leaf]:
        """Return the values that a question says."""
        leaves = self._schemas.leaves(dict(arguments))
        return [leaf for leaf in leaves if leaf.value not in (None, [], {}, "")]

    def related(self, arguments: Json, path: Steps = ()) -> dict[Steps, Relation]:
        """Return the relations between values of the arguments, by the path of the first one."""
        found: dict[Steps, Relation] = {}
        if isinstance(arguments, Mapping):
            for one in self._sampler.relations(path, arguments):
                found[(*path, one.first)] = one
        items: Any = arguments.items() if isinstance(arguments, Mapping) else enumerate(arguments)
        for step, value in items:
            if isinstance(value, Mapping | list):
                found |= self.related(value, (*path, step))
        return found

    def agrees(self, arguments: Json) -> bool:
        """Return whether values obey the relations between them."""
        for path, one in self.related(arguments).items():
            holder = arguments
            for step in path[:-1]:
                holder = holder[step]
            both = holder.get(one.first), holder.get(one.second)
            if None not in both and not one.holds(*both):
                return False
        return True

    def has_partner(self, path: Steps) -> bool:
        """Return whether the schema has a partner of this property, as an end to a start."""
        relations = self._sampler.relations(path[:-1], self._schemas.names_beside(path))
        return any(path[-1] in (one.first, one.second) for one in relations)

    def another(self, leaf: Leaf, rng: random.Random, held: bool) -> Json:
        """Draw another value for a leaf."""
        return self._sampler.maker(leaf.schema, leaf.path)(rng, held)

    def _direct_object(
        self,
        leaves: Sequence[Leaf],
        related: Mapping[Steps, Relation],
        split: str,
        rng: random.Random,
    ) -> tuple[Pieces, list[Leaf]]:
        """Return what follows the verb, as `order ORD-12345` or `20 EUR to SEK`, and what is left.

        Nothing where the tool's name begins with no verb, or no argument is its object.
        """
        named = {leaf.path: (leaf, words_of(str(leaf.path[-1]))) for leaf in leaves}
        for path, relation in related.items():
            second = named.get((*path[:-1], relation.second))
            amount = next(
                (leaf for leaf, words in named.values() if words[-1:] == ["amount"]), None
            )
            if self._verb in ("convert", "exchange") and path in named and second and amount:
                pair = [amount, named[path][0], second[0]]
                if not all(isinstance(leaf.value, str) for leaf in pair[1:]):
                    continue
                parts = {name: speak(one.value, True, rng) for name, one in zip("aft", pair)}
                template = rng.choice(wordings()["objects"][split])
                return fill(template, parts), [leaf for leaf in leaves if leaf not in pair]
        for leaf, words in named.values():
            is_object = any(words == [*self._thing, *one] for one in _IDENTITY)
            is_object |= words in (["name"], ["id"])
            if (
                self._thing
                and len(leaf.path) == 1
                and is_object
                and isinstance(leaf.value, str | int)
            ):
                thing = SlotPiece(" ".join(self._thing) + " ")
                value = speak(leaf.value, False, rng)
                return [thing, *value], [one for one in leaves if one is not leaf]
        return [], list(leaves)
