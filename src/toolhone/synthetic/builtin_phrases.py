"""What is known without an example: the built-in tools under whatever name, and talk that no tool is for.

    phrases_for(tool)                # "multiply {a} by {b}", calculator(expression="{a} * {b}"), for a tool that computes
    Talk(tools).draw(rng, False)     # (question, answer): small talk, or a request that is beyond the tools on offer

A tool is known by its parameters and its words: `expression` and something that computes, `city` or `location` and the weather,
`query` and a search, `code` and Python. The phrasings are those of the built-in templates, with their held-out sets.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from toolhone.data.phrasings import Fillers, Intent, Wording, intents
from toolhone.schema import Tool, ToolCall
from toolhone.synthetic.paraphrase import Form, Frames
from toolhone.synthetic.phrases import Draw
from toolhone.synthetic.slots import SlotPiece
from toolhone.synthetic.text_kinds import material, words_of

_KNOWN: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "calculator": (r"calc|arithmetic|math|comput|evaluat", ("expression",)),
    "python": (r"python", ("code",)),
    "weather": (r"weather|forecast|temperature", ("city", "location", "place")),
    "search": (r"search|look up|find", ("query", "q")),
}
"""Built-in tool -> what a tool of its kind says of itself, and how its main parameter may be called."""
_BEYOND = 0.5
"""Share of talk that asks for something, of all talk that no example shows."""


@dataclass(frozen=True)
class IntentPhrase:
    """A request of the built-in templates, made to a tool of the same kind; `renamed` maps parameters."""

    tool: Tool
    intent: Intent
    renamed: Mapping[str, str]

    @property
    def tools(self) -> tuple[str, ...]:
        return (self.tool.name,)

    def draw(self, rng: random.Random, held: bool) -> Draw:
        name = "held_out" if held else "train"
        request = Wording(name, name, rng).request(self.intent)
        given = {
            self.renamed.get(key, key): value
            for call in request.calls
            for key, value in call.arguments.items()
        }
        return Draw(
            Form(request.form), (SlotPiece(request.text),), (ToolCall(self.tool.name, given),)
        )


def phrases_for(tool: Tool) -> list[IntentPhrase]:
    """The shipped phrasings that ask for this tool; none for a tool that is not of a known kind."""
    properties = tool.parameters.get("properties") or {}
    said = f"{' '.join(words_of(tool.name))} {tool.description}"
    for kind, (pattern, names) in _KNOWN.items():
        main = next((name for name in names if name in properties), None)
        if main is None or not re.search(pattern, said, re.IGNORECASE):
            continue
        possible = [
            IntentPhrase(tool, intent, {names[0]: main})
            for intent in intents()
            if intent.category == kind
        ]
        return [phrase for phrase in possible if _has_both_sets(phrase.intent) and _suits(phrase)]
    return []


def _has_both_sets(intent: Intent) -> bool:
    return bool(intent.cores["train"]) and bool(intent.cores["held_out"])


def _suits(phrase: IntentPhrase) -> bool:
    """Whether some of its calls are right for the tool: parameters that it has, values that it takes."""
    properties = phrase.tool.parameters.get("properties") or {}
    for seed in range(5):
        arguments = phrase.draw(random.Random(seed), False).calls[0].arguments
        if not arguments.keys() <= properties.keys() or phrase.tool.problems(arguments):
            return False
    return True


class SmallTalk:
    """Questions that need no tool, and their answers."""

    def __init__(
        self, tools: Sequence[Tool], examples: Iterable[tuple[Form, str, str]] = ()
    ) -> None:
        self._examples = list(examples)
        offered = _vocabulary(tools)
        self._beyond = {
            name: [entry for entry in entries if not offered & set(entry["words"])]
            for name, entries in material()["beyond"].items()
        }

    def draw(self, rng: random.Random, held: bool) -> tuple[list[SlotPiece], str]:
        """A whole question, framed, and what the assistant answers."""
        name = "held_out" if held else "train"
        if self._examples and rng.random() < 0.5:
            form, text, answer = rng.choice(self._examples)
            return Frames(name).question([(form, [SlotPiece(text)])], rng), answer or rng.choice(
                material()["replies"]
            )
        if self._beyond[name] and rng.random() < _BEYOND:
            entry = rng.choice(self._beyond[name])
            slots = {kind: kind for kind in re.findall(r"{(\w+)}", entry["text"])}
            text = entry["text"].format_map(Fillers(name, rng).draw(slots))
            return Frames(name).question(
                [(Form(entry["form"]), [SlotPiece(text)])], rng
            ), rng.choice(material()["refusals"])
        wording = Wording(name, name, rng)
        request = wording.request(
            wording.pick(
                [intent for intent in intents() if intent.category == "no_tool" and _modest(intent)]
            )
        )
        return [SlotPiece(wording.question([request]))], request.answer([])


def _modest(intent: Intent) -> bool:
    """Whether its answers fit any model: some name the embedded one."""
    return not any("pico" in answer for answer in intent.answers)


def _vocabulary(tools: Sequence[Tool]) -> set[str]:
    """All words that the tools use of themselves, and their beginnings, so that `rental` covers `rent`."""
    words = {
        word
        for tool in tools
        for text in (tool.name, tool.description, *_parameters(tool))
        for word in words_of(text)
    }
    return {word[:end] for word in words for end in range(3, len(word) + 1)} | words


def _parameters(tool: Tool) -> Iterable[str]:
    for name, schema in (tool.parameters.get("properties") or {}).items():
        yield name
        if isinstance(schema, Mapping):
            yield from (str(schema.get("description") or ""), *map(str, schema.get("enum") or ()))
