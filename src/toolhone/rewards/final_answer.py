"""How far a final text states an expected answer, made so that listing candidates or repeating the question does not pay.

    stated("48 * 17 = 816.", "816", ["What is 48 * 17?"])     1.0: the numbers of the question are free
    stated("12 * 3 = 36. So 31 are left.", "31", [])          1.0: the last sentence with a number counts
    stated("815, 816 or 817", "816", [])                      0.33: three candidates
    stated("It is  Paris.", "paris", [])                      1.0
    stated("yes and no", "yes", [])                           0.0

An answer that is a number is looked for, by value, in the last sentence (or line) that has a number. Every other number there is a
candidate too, unless the question has it (and does not have the answer): with k candidates the right one is worth 1/k. Any other
answer is looked for as words, after `values.normal_text`. Beyond `FREE_WORDS` words the worth falls in proportion. Whole messages
that the text repeats are taken out first, so that an answer that stands in the prompt must be said, not echoed; one that stands
there but for letter case ("shout it: ...") must be said in its own. A negation ("not Paris") is not understood.
`answers.carries` is the honest measure of the same thing; this is the careful one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolhone.rewards.answers import has_words, number_alone, numbers
from toolhone.rewards.values import normal_text, same_number

FREE_WORDS, FREE_WHERE_ASKED = 60, 10
"""Words beside the answer in a text (for a number: in its sentence); fewer where the question holds the answer."""
SHORTEST_MESSAGE = 20
"""Characters of a message that counts as repeated."""
_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def stated(text: str, answer: str, messages: Sequence[str], around: Sequence[str] = ()) -> float:
    """How much of the text's claim is the answer, in [0, 1].

    `messages` are the texts that came before, `around` others of the prompt (descriptions of tools) that are no answers either.
    """
    wanted, echoes = number_alone(answer), [*messages, *around]
    if wanted is not None:
        said = without_echoes(_lines_ended(text), list(map(_lines_ended, echoes)), len(answer))
        return _among_numbers(said, wanted, messages)
    words = normal_text(answer)
    said = without_echoes(text, echoes, len(words))
    if (
        not words
        or not has_words(said, words)
        or (words in _OPPOSITE and has_words(said, _OPPOSITE[words]))
    ):
        return 0.0
    free = FREE_WORDS
    if any(has_words(normal_text(message), words) for message in messages):
        free = FREE_WHERE_ASKED
        if not any(has_words(message, answer.strip()) for message in messages) and not has_words(
            text, answer.strip()
        ):
            return 0.0
    return min(1.0, (free + len(words.split())) / max(1, len(said.split())))


def without_echoes(text: str, messages: Sequence[str], longer_than: int = 0) -> str:
    """The normalised text without whole messages that it repeats; short ones count only where nothing else is left."""
    said = normal_text(text)
    echoes = sorted(
        {echo for message in messages if len(echo := normal_text(message)) > longer_than},
        key=len,
        reverse=True,
    )
    for echo in echoes:
        if len(echo) > SHORTEST_MESSAGE:
            said = said.replace(echo, " ").strip()
    rest = said
    for echo in echoes:
        rest = rest.replace(echo, " ")
    return said if rest.strip() else ""


def _among_numbers(said: str, wanted: int | float, messages: Sequence[str]) -> float:
    claim = next(
        (sentence for sentence in reversed(_SENTENCE_END.split(said)) if numbers(sentence)), ""
    )
    found = numbers(claim)
    if not any(same_number(wanted, number) for number in found):
        return 0.0
    asked = [number for message in messages for number in numbers(message)]
    free = set() if any(same_number(wanted, number) for number in asked) else set(asked)
    candidates = 1 + len(
        {number for number in found if number not in free and not same_number(wanted, number)}
    )
    return min(1.0, FREE_WORDS / len(claim.split())) / candidates


def _lines_ended(text: str) -> str:
    """The text with its lines as sentences, and without the strokes that JSON puts before quotes."""
    return re.sub(r"\s*\n\s*", ". ", text.strip().replace("\\", ""))
