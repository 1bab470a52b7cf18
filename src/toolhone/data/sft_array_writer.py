"""Writes the SFT array of `sources.sft_array`: rows for the calculator, for Python and for no tool.

    written = SftRows(seed=1).rows(800, {"calculator": 0.5, "no_tool": 0.5}, Path("gsm8k.jsonl"))
    write_array(Path("sft_array.json"), written.rows)

Python and no-tool rows come from phrasings, calculator rows from a GSM8K file where one is named.
Expected answers are what the tool gave. No prompt occurs twice. Same seed and file, same bytes.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path

from toolhone.config.phrasings import PhrasedRequest, Wording, intents
from toolhone.data.templates import SPLITS, run_calls
from toolhone.errors import DataError, RunError, nearest
from toolhone.runs.run import write_text
from toolhone.schema import Conversation
from toolhone.sources.files import Record
from toolhone.sources.formats import open_source
from toolhone.sources.math_problems import Calculator
from toolhone.sources.sft_array import CATEGORIES, TOLERANCE, TOOLS
from toolhone.tools.registry import Registry

_NUMBER = re.compile(
    r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w,]|\.\d)|(?<![\w.])\.\d+(?!\w)", re.ASCII
)
_STATED = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+", re.ASCII)
_FRACTION = re.compile(r"(\d+)\s*/\s*(\d+)", re.ASCII)
_WORDS = (
    "0 zero, 0.01 cent penny pennies, 0.25 quarter, 0.5 half halves, 0.75 quarter, 1.5 half, "
    "3 three third triple tripled thrice feet yard triangle, "
    "4 four fourth quarter week month quart gallon square quadruple, 5 five fifth nickel, "
    "6 six sixth, 7 seven seventh day daily week weekly, 8 eight eighth, 9 nine ninth, "
    "10 ten tenth dime, 11 eleven, "
    "12 twelve dozen month monthly year annual yearly foot feet inch, "
    "13 thirteen, 14 fourteen, 15 fifteen, 16 sixteen pound ounce, 17 seventeen, 18 eighteen, "
    "19 nineteen, 20 twenty, 24 day hour, 30 thirty month, 40 forty, 50 fifty, "
    "52 week weekly year, 60 sixty second minute hour, 70 seventy, 80 eighty, 90 ninety, "
    "100 hundred, 365 year, 1000 thousand kilogram kilometer, 1000000 million"
)
"""Each number with the words of a problem that give it."""
_ENTRIES = [entry.split() for entry in _WORDS.split(", ")]
_NUMBERS = {
    word: [Decimal(number) for number, *others in _ENTRIES if word in others]
    for _, *words in _ENTRIES
    for word in words
}


def compose(steps: Sequence[tuple[str, str]], question: str) -> str:
    """Return the last (expression, result) pair's expression, with earlier results composed in.

        compose([("48/2", "24"), ("48+24", "72")], "She sold 48 clips, ...")    # "48+(48/2)"

    A number in a step is replaced by the expression of an earlier step that gave it (perhaps before
    rounding), unless the problem states it and that result has been used already.
    """
    stated = {_value(number) for number in _STATED.findall(question)}
    composed: list[tuple[str, Decimal]] = []
    used: set[int] = set()

    def substitute(number: re.Match[str]) -> str:
        value, before = _value(number[0]), number.string[: number.start()].rstrip()
        exponent, source = value.as_tuple().exponent, None
        places = -exponent if isinstance(exponent, int) else 0
        margin = Decimal(1).scaleb(-places) if places > 0 else Decimal(0)  # rounded or cut
        for index, (_, result) in enumerate(composed):  # the last one that gave it
            if result == value or abs(result - value) < margin:
                source = index
        per_cent = number[0] == "100" and before.endswith("/") and "%" in question
        if source is None or (value in stated and source in used) or per_cent:
            return number[0]
        used.add(source)
        return f"({composed[source][0]})"

    for expression, result in steps:
        composed.append((_NUMBER.sub(substitute, expression), Decimal(result)))
    return composed[-1][0]


def unexplained(expression: str, question: str) -> list[Decimal]:
    """Return the numbers of an expression that the problem does not give: in digits, in words
    ("week" for 7), as percentages or fractions, and 1, 2 and 100."""
    stated = [_value(number) for number in _STATED.findall(question)]
    given = {*map(Decimal, (1, 2, 100)), *stated}
    for word in re.findall(r"[a-z]+", question.lower()):
        for form in (word, word.removesuffix("s")):
            given.update(_NUMBERS.get(form, ()))
    for above, below in _FRACTION.findall(question):
        if int(below):
            given |= {Decimal(above) / Decimal(below), Decimal(int(below) - int(above))}
    if "%" in question or "percent" in question:
        given.add(Decimal("0.01"))
        for value in stated:
            given |= {value / 100, 1 - value / 100, 1 + value / 100, 100 - value, 100 + value}
    return [value for value in map(_value, _NUMBER.findall(expression)) if value not in given]


def _value(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


_ANSWERS: Mapping[str, Record] = {
    "calculator": {"answer_type": "numeric", "tolerance": TOLERANCE},
    "python_exec": {"answer_type": "stdout"},
    "no_tool": {"answer_type": "text"},
}
_ATTEMPTS = 1000
_AT_ONCE = 256
NOT_COMPOSED = "a solution whose marks do not make one expression with its answer"
UNEXPLAINED = "a solution with a number that neither the question nor a mark gives"
REPEATED = "a question that occurs before"
NO_MARK = "a solution without a calculator mark"


@dataclass(frozen=True)
class WrittenArray:
    """The rows, and the rows of the GSM8K file that could not be used, by reason."""

    rows: list[Record]
    skipped: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        """Count the rows by category."""
        found = Counter(str(row["category"]) for row in self.rows)
        return {category: found[category] for category in CATEGORIES}


def read_shares(text: str) -> dict[str, float]:
    """Read `calculator=0.25,python_exec=0.25,no_tool=0.5`; the numbers must add up to 1."""
    shares: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if name not in CATEGORIES:
            known = f"{nearest(name, CATEGORIES)}; known: {', '.join(CATEGORIES)}"
            raise DataError(f"--shares has the unknown category {name!r}{known}")
        if name in shares or not 0 <= share <= 1:
            raise DataError(f"--shares needs one number between 0 and 1 for {name!r}, got {part!r}")
        shares[name] = share
    total = sum(shares.values())
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise DataError(f"--shares must add up to 1, got {text!r}, which makes {total:g}")
    return shares


def apportion(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Return whole numbers that add up to `count`; round the largest remainders up."""
    exact = {category: count * shares.get(category, 0.0) for category in CATEGORIES}
    counts = {category: math.floor(number) for category, number in exact.items()}
    by_remainder = sorted(exact, key=lambda category: counts[category] - exact[category])
    for category in by_remainder[: count - sum(counts.values())]:
        counts[category] += 1
    return counts


class SftRows:
    """Makes rows; same seed, same rows."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._prompts: set[str] = set()
        self._skipped: Counter[str] = Counter()

    def rows(
        self, count: int, shares: Mapping[str, float], gsm8k: Path | None = None
    ) -> WrittenArray:
        """Return `count` rows in these shares, shuffled."""
        counts = apportion(count, shares)
        self._prompts, self._skipped = set(), Counter()
        rows = [] if gsm8k is None else self._from_gsm8k(gsm8k, counts["calculator"])
        for category in CATEGORIES:
            if category != "calculator" or gsm8k is None:
                rows += self._from_phrasings(category, counts[category])
        random.Random(f"sft_array {self._seed} order").shuffle(rows)
        return WrittenArray(rows, self._skipped)

    def _from_phrasings(self, category: str, count: int) -> list[Record]:
        requests = [self._request(category, index) for index in range(count)]
        calls = [call for _, request in requests for call in request.calls]
        results = iter(run_calls(Registry(TOOLS), calls))
        rows = []
        for index, (prompt, request) in enumerate(requests):
            name = f"{category}-{self._seed}-{index:05d}"
            arguments, answer = None, ""
            for call in request.calls:  # one, or none where no tool is needed
                arguments, answer = dict(call.arguments), next(results).content.strip()
            answer = answer if request.calls else request.answer([])
            rows.append(row(name, "templates", category, prompt, arguments, answer))
        return rows

    def _request(self, category: str, index: int) -> tuple[str, PhrasedRequest]:
        """Draw a prompt that does not occur yet, and what it asks for."""
        rng = random.Random(f"sft_array {self._seed} {category} {index}")
        wording = Wording(*SPLITS["train"], rng)
        wanted = CATEGORIES[category][0] or category
        choices = [intent for intent in intents() if intent.category == wanted]
        for _ in range(_ATTEMPTS):
            request = wording.request(wording.pick(choices))
            prompt = wording.question([request])
            if prompt not in self._prompts:
                self._prompts.add(prompt)
                return prompt, request
        few = f"no more than about {index} different questions of the category {category!r}"
        raise DataError(f"the phrasings give {few}")

    def _from_gsm8k(self, path: Path, count: int) -> list[Record]:
        """Return the first `count` usable rows of the file in an order that the seed decides."""
        if count == 0:
            return []
        loaded = open_source(path, "gsm8k", style="short")
        self._skipped.update(loaded.skipped)
        if loaded.only_tasks:
            self._skipped[NO_MARK] += loaded.only_tasks
        rows: list[Record] = []
        tasks, candidates = iter(loaded.tasks), []
        for conversation in loaded.conversations:  # rows without a conversation give tasks as well
            key = (conversation.id, conversation.messages[:1])
            task = next(task for task in tasks if (task.id, task.messages) == key)
            candidates.append((conversation, str(task.expect.answer)))
        random.Random(f"sft_array {self._seed} gsm8k").shuffle(candidates)
        for start in range(0, len(candidates), _AT_ONCE):
            composed = self._compose(candidates[start : start + _AT_ONCE])
            rows += islice(composed, count - len(rows))
            if len(rows) == count:
                return rows
        wrong = f"{len(rows)} rows can be used as calculator rows, but {count} are wanted"
        raise DataError(f"{path}: {wrong}; ask for fewer --rows")

    def _compose(self, candidates: Sequence[tuple[Conversation, str]]) -> Iterator[Record]:
        """Yield rows whose solution is one expression, of numbers in the question."""
        calculator = Calculator()
        prompts = [str(conversation.messages[0].content) for conversation, _ in candidates]
        steps = [steps_of(conversation) for conversation, _ in candidates]
        expressions = [compose(*pair) for pair in zip(steps, prompts, strict=True)]
        calculator.learn(expressions)
        rows = zip(candidates, prompts, expressions, strict=True)
        for (conversation, answer), prompt, expression in rows:
            found = calculator.run(expression)
            if found is None or abs(Decimal(str(found[0])) - Decimal(answer)) > Decimal(TOLERANCE):
                self._skipped[NOT_COMPOSED] += 1
            elif unexplained(expression, prompt):
                self._skipped[UNEXPLAINED] += 1
            elif prompt in self._prompts:
                self._skipped[REPEATED] += 1
            else:
                self._prompts.add(prompt)
                name, arguments = f"gsm8k-{conversation.id}", {"expression": expression}
                yield row(name, "gsm8k", "calculator", prompt, arguments, answer)


def row(
    identity: str, source: str, category: str, prompt: str, arguments: Record | None, answer: str
) -> Record:
    """Return one row, with the fields that follow from its category."""
    tool, _ = CATEGORIES[category]
    return {
        "id": identity,
        "source": source,
        "category": category,
        "tool_needed": tool is not None,
        "tool": tool,
        "tool_args": arguments,
        "prompt": prompt,
        "expected_answer": answer,
        "metadata": dict(_ANSWERS[category]),
    }


def steps_of(conversation: Conversation) -> list[tuple[str, str]]:
    """Return the calculator's expressions and results, in order."""
    messages = conversation.messages
    calls = [call.arguments["expression"] for message in messages for call in message.tool_calls]
    results = [str(message.content) for message in messages if message.role == "tool"]
    return list(zip(calls, results, strict=True))


def write_array(path: Path, rows: Sequence[Record]) -> None:
    """Write one JSON list, one row on each line, whole or not at all."""
    text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise RunError(f"{path}: the file was not written: {error.strerror or error}") from None
