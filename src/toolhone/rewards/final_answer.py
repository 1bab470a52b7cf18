"""How far a final text states an expected answer, made so that listing candidates or repeating the question does not pay.

    stated("48 * 17 = 816.", "816", ["What is 48 * 17?"])     1.0: the numbers of the question are free
    stated("815, 816 or 817", "816", [])                      0.33: three candidates
    stated("It is  Paris.", "paris", [])                      1.0
    stated("yes and no", "yes", [])                           0.0

An answer that is a number is looked for among the numbers of the text, by value. Every other number of the text is a candidate too,
unless the question has it (and does not have the answer): with k candidates the right one is worth 1/k. Any other answer is looked
for as words, after `values.normal_text`; beyond `FREE_WORDS` words the worth falls in proportion. Whole messages that the text
repeats are taken out first, so that an answer that stands in the prompt must be said, not echoed. A negation ("not Paris") is not
understood. `evaluation.answers.carries` is the honest measure of the same thing; this is the careful one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolhone.rewards.values import normal_text, same_number

FREE_WORDS = 60
SHORTEST_MESSAGE = 20
"""Characters of a message that counts as repeated."""
_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?|(?<!\.)\.\d+"
_IN_TEXT = re.compile(rf"((?<![\w.)\]])[-−])?[$€£¥]?(?<!\w)(?<!\d\.)({_DIGITS})", re.ASCII)
_ALONE = re.compile(rf"([-−+]?)\s*[$€£¥]?\s*({_DIGITS})\s*%?\.?", re.ASCII)


def stated(text: str, answer: str, messages: Sequence[str]) -> float:
    """How much of the text's claim is the answer, in [0, 1]. `messages` are the texts that came before."""
    said = without_echoes(text, messages, len(normal_text(answer)))
    wanted = _ALONE.fullmatch(answer.strip())
    if wanted:
        return _among_numbers(said, _value(wanted), messages)
    words = normal_text(answer)
    if not words or not _has_words(said, words) or (words in _OPPOSITE and _has_words(said, _OPPOSITE[words])):
        return 0.0
    return min(1.0, (FREE_WORDS + len(words.split())) / max(1, len(said.split())))


def without_echoes(text: str, messages: Sequence[str], longer_than: int = 0) -> str:
    """The normalised text without whole messages that it repeats (those too short to tell are left)."""
    said = normal_text(text)
    for message in messages:
        echo = normal_text(message)
        if len(echo) > max(SHORTEST_MESSAGE, longer_than):
            said = said.replace(echo, " ")
    return said.strip()


def _among_numbers(said: str, wanted: int | float, messages: Sequence[str]) -> float:
    found = _numbers(said)
    if not any(same_number(wanted, number) for number in found):
        return 0.0
    asked = [number for message in messages for number in _numbers(message)]
    free = set() if any(same_number(wanted, number) for number in asked) else set(asked)
    return 1 / (1 + len({number for number in found if number not in free and not same_number(wanted, number)}))


def _numbers(text: str) -> list[int | float]:
    """The numbers of a text, in their order; a minus counts where it cannot be a dash."""
    return [_value(match) for match in _IN_TEXT.finditer(text)]


def _value(match: re.Match[str]) -> int | float:
    digits = match[2].replace(",", "")
    value = int(digits) if digits.isdigit() and len(digits) < 400 else float(digits)
    return -value if match[1] in ("-", "−") else value


def _has_words(said: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", said) is not None
