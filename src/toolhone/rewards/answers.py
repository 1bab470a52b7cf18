"""Whether a final text carries an expected answer: a lenient measure and a strict one.

    carries_answer("That makes 1,234.50 dollars.", "1234.5")              # True: by value
    answer_credit("48 * 17 = 816.", "816", ["What is 48 * 17?"])         # 1.0
    answer_credit("815, 816 or 817", "816", [])                           # 0.33: three candidates

Neither understands negation ("not Paris").
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolhone.rewards.values import normal_text, same_number

FREE_WORDS, FREE_WORDS_IF_ECHOED = 60, 10
"""Words beside the answer that cost nothing; fewer where the question contains the answer."""
SHORTEST_ECHO = 20
"""Characters of a message above which a repetition of it is removed."""
_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?|(?<!\.)\.\d+"
_IN_TEXT = re.compile(rf"((?<![\w.)\]])[-−])?[$€£¥]?(?<!\w)(?<!\d\.)({_DIGITS})", re.ASCII)
_ALONE = re.compile(rf"([-−+]?)\s*[$€£¥]?\s*({_DIGITS})\s*%?\.?", re.ASCII)


def carries_answer(text: str, answer: str) -> bool:
    """Whether the text contains the answer: a number by value, else its words.

    A text that lists every number carries every answer; `answer_credit` does not allow that.
    """
    number = _number_alone(answer)
    if number is not None:
        return any(same_number(number, found) for found in find_numbers(text))
    words = normal_text(answer)
    return bool(words) and _has_words(normal_text(text), words)


def answer_credit(
    text: str, answer: str, messages: Sequence[str], descriptions: Sequence[str] = ()
) -> float:
    """How much of the text's claim is the answer, in [0, 1].

    A number counts in the last sentence with a number, 1/k among k candidates; numbers of the
    question are no candidates unless it contains the answer. Other answers count as words. Credit
    falls in proportion beyond `FREE_WORDS`. Repetitions of `messages` (the conversation so far) and
    of `descriptions` (of tools) are removed first.
    """
    number, echoes = _number_alone(answer), [*messages, *descriptions]
    if number is not None:
        claim = remove_echoes(_end_lines(text), list(map(_end_lines, echoes)), len(answer))
        sentences = reversed(_SENTENCE_END.split(claim))
        last = next((sentence for sentence in sentences if find_numbers(sentence)), "")
        found = find_numbers(last)
        if not any(same_number(number, one) for one in found):
            return 0.0
        asked = {one for message in messages for one in find_numbers(message)}
        if any(same_number(number, one) for one in asked):
            asked = set()
        others = {one for one in found if one not in asked and not same_number(number, one)}
        return min(1.0, FREE_WORDS / len(last.split())) / (1 + len(others))
    words = normal_text(answer)
    claim = remove_echoes(text, echoes, len(words))
    if not words or not _has_words(claim, words):
        return 0.0
    if words in _OPPOSITE and _has_words(claim, _OPPOSITE[words]):
        return 0.0
    free = FREE_WORDS
    if any(_has_words(normal_text(message), words) for message in messages):
        free = FREE_WORDS_IF_ECHOED
        exact = answer.strip()  # "shout it: ...": the letter case is what the question lacks
        if not any(_has_words(given, exact) for given in messages) and not _has_words(text, exact):
            return 0.0
    return min(1.0, (free + len(words.split())) / max(1, len(claim.split())))


def remove_echoes(text: str, messages: Sequence[str], longer_than: int = 0) -> str:
    """The normalised text without repeated messages.

    A message of at most `SHORTEST_ECHO` characters counts only where nothing else is left.
    """
    claim = normal_text(text)
    echoes = {echo for message in messages if len(echo := normal_text(message)) > longer_than}
    longest_first = sorted(echoes, key=len, reverse=True)
    for echo in longest_first:
        if len(echo) > SHORTEST_ECHO:
            claim = claim.replace(echo, " ").strip()
    rest = claim
    for echo in longest_first:
        rest = rest.replace(echo, " ")
    return claim if rest.strip() else ""


def _end_lines(text: str) -> str:
    """The text with its lines as sentences, without the backslashes of JSON strings."""
    return re.sub(r"\s*\n\s*", ". ", text.strip().replace("\\", ""))


def _has_words(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _number_alone(answer: str) -> int | float | None:
    """The number that is the whole answer, or None."""
    found = _ALONE.fullmatch(answer.strip())
    return None if found is None else _parse_number(found)


def find_numbers(text: str) -> list[int | float]:
    """The numbers in a text; a minus sign counts where it cannot be a dash."""
    return [_parse_number(match) for match in _IN_TEXT.finditer(text)]


def _parse_number(match: re.Match[str]) -> int | float:
    digits = match[2].replace(",", "")
    value = int(digits) if digits.isdigit() and len(digits) < 400 else float(digits)
    return -value if match[1] in ("-", "−") else value
