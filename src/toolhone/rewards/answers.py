"""Whether a final text carries an expected answer.

    carries("That makes 1,234.50 dollars.", "1234.5")      True: the number occurs, by value
    carries("It is  Paris.", "paris")                      True: the words occur
    carries("I know.", "no")                               False: not as words of their own

An expected answer that is a number (with or without a currency sign, a percent sign, commas between thousands) is looked for
among the numbers of the text; any other is looked for as text, after the normalisation of `rewards.values.normal_text`. A text
that lists every number carries every answer: this measures honest models and is no safe reward (`final_answer` is).
"""

from __future__ import annotations

import re

from toolhone.rewards.values import normal_text, same_number

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?|(?<!\.)\.\d+"
_IN_TEXT = re.compile(rf"((?<![\w.)\]])[-−])?[$€£¥]?(?<!\w)(?<!\d\.)({_DIGITS})", re.ASCII)
_ALONE = re.compile(rf"([-−+]?)\s*[$€£¥]?\s*({_DIGITS})\s*%?\.?", re.ASCII)


def carries(text: str, answer: str) -> bool:
    """Whether the text carries the answer; never for an empty answer or text."""
    wanted = number_alone(answer)
    if wanted is not None:
        return any(same_number(wanted, number) for number in numbers(text))
    words = normal_text(answer)
    return bool(words) and has_words(normal_text(text), words)


def has_words(said: str, words: str) -> bool:
    """Whether these words stand in the text as words of their own."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", said) is not None


def number_alone(answer: str) -> int | float | None:
    """The number that is the whole answer, or None."""
    found = _ALONE.fullmatch(answer.strip())
    return None if found is None else _value(found)


def numbers(text: str) -> list[int | float]:
    """The numbers that occur in a text, in their order; a minus counts where it cannot be a dash."""
    return [_value(match) for match in _IN_TEXT.finditer(text)]


def _value(match: re.Match[str]) -> int | float:
    digits = match[2].replace(",", "")
    value = int(digits) if digits.isdigit() and len(digits) < 400 else float(digits)
    return -value if match[1] in ("-", "−") else value
