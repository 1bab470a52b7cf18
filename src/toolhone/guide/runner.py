"""Runs a lesson: yields what is shown, in order, while files are written, models trained and
questions asked. Nothing here prints.

    for shown in play(lessons()[0], Workspace(Path("runs/examples"))): ..."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from toolhone.api import Model, open_model
from toolhone.config.experiment import load_experiment
from toolhone.data.templates import Templates
from toolhone.episodes.chat_session import Event
from toolhone.evaluation.folder import read_folder
from toolhone.evaluation.metrics import Evaluation
from toolhone.evaluation.score import score
from toolhone.guide.lesson import Lesson, Workspace, chat, finished, laid_out, model_of, trained
from toolhone.rows import Row
from toolhone.runs.run import Run
from toolhone.schema import Conversation
from toolhone.sources.messages import read_tasks
from toolhone.tools.loading import tools_of
from toolhone.tools.registry import Registry
from toolhone.training.dataset import load_data

MISTAKES = 2
"""Mistakes that are shown below the scores of a run."""
SHOWN_TOKENS = 24
SCORED_TOOLS = ("calculator", "weather")
"""The tools on offer in the tasks that lesson 6 scores."""


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Prose:
    text: str


@dataclass(frozen=True)
class Code:
    """Commands, an experiment file or Python; `file` is where it is, if it is in a file."""

    text: str
    language: str
    file: str = ""


@dataclass(frozen=True)
class Scores:
    """An evaluation, and how many of its mistakes to show."""

    title: str
    evaluation: Evaluation
    mistakes: int


@dataclass(frozen=True)
class Cells:
    """A table of short texts."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Chat:
    """A question, and everything that happened until the answer."""

    question: str
    events: Iterable[Event]


@dataclass(frozen=True)
class ColouredRow:
    """A rendered conversation: pieces of text, each with whether it is trained."""

    title: str
    pieces: Sequence[tuple[str, bool]]


Shown = Heading | Prose | Code | Scores | Cells | Chat | ColouredRow


def play(lesson: Lesson, space: Workspace) -> Iterator[Shown]:
    """Run a lesson from its first line to what to try next."""
    player = _Player(lesson, space)
    yield Heading(f"Lesson {lesson.number}: {lesson.title} ({lesson.takes})")
    for part in lesson.parts():
        if isinstance(part, str):
            if part:
                yield Prose(part.replace("{root}", str(space.root)))
        elif part["heading"]:
            yield Heading(part["heading"])
        elif part["action"]:
            yield from player.act(part["action"], part["argument"] or "")
        elif part["file"]:
            path = space.root / lesson.name / part["file"]
            # the tasks are shown in short; every other file as it was written
            text = part["code"] if path.name == "tasks.jsonl" else path.read_text(encoding="utf-8")
            yield Code(text, part["language"], str(path))
        else:
            yield Code(part["code"].replace("{root}", str(space.root)), part["language"])
            if part["language"] == "console" and part["code"].startswith("toolhone train "):
                player.run = trained(space, lesson.name, player.values)


class _Player:
    """Writes the files of a lesson (what it builds on is trained first), and does its actions;
    every action yields what is shown."""

    def __init__(self, lesson: Lesson, space: Workspace) -> None:
        self.lesson, self.space = lesson, space
        self.values: dict[str, Any] = {}
        self.run: Run | None = None
        for name, text in lesson.files().items():
            if name == "experiment.json":
                self.values = lesson.experiment(space)
                text = laid_out(self.values) + "\n"
            elif name == "tasks.jsonl":
                text = "".join(map(_full_task, text.splitlines()))
            space.write(lesson.name, name, text)

    def act(self, action: str, argument: str) -> Iterator[Shown]:
        match action:
            case "scores":
                assert self.run is not None
                yield Scores(argument, read_folder(self.run.folder / "evaluation"), MISTAKES)
            case "score":
                lines = self.lesson.files()["answers.jsonl"].splitlines()
                tasks = read_tasks(self.space.root / self.lesson.name / "tasks.jsonl")
                answers = list(map(json.loads, lines))
                found = score(tasks, answers, "json", Registry(SCORED_TOOLS))
                yield Scores(argument, found, len(answers))
            case "chat" | "chat as written":
                assert self.run is not None
                for question, events in chat(model_of(self.run), *argument.split(" | ")):
                    yield Chat(question, events)
                    if action == "chat as written":
                        texts = [event.text for event in events if not isinstance(event, tuple)]
                        rows = [[str(number), text] for number, text in enumerate(texts, 1)]
                        yield Cells("The same, as the model wrote it", ["turn", "text"], rows)
            case "conversation":
                yield Code(laid_out(conversations()[0].to_dict()), "json")
            case "row" | "row without a call":
                pico = open_model("pico")
                yield coloured(pico, argument, row_of(pico, conversations()[action != "row"]))
            case "probabilities":
                yield from self._probabilities(argument)
            case "dialects":
                yield from _compare_dialects(argument.split())
            case "schema":
                yield Code(laid_out(tools_of(self._small_plan())[0].to_dict()), "json")
            case "rows":
                rows = []
                for row in load_data(self._small_plan()).train[:6]:
                    said, turn = row.messages[:2]
                    calls = "; ".join(laid_out(dict(call.arguments)) for call in turn.tool_calls)
                    rows.append([said.content or "", calls or str(turn.content)])
                yield Cells(argument, ["question", "the assistant's turn"], rows)
            case _:
                raise AssertionError(f"{self.lesson.name}: no such action: {action}")

    def _probabilities(self, lesson: str) -> Iterator[Shown]:
        """Compare the untrained model with that of an earlier lesson, where there is one."""
        run, pico = finished(self.space, lesson), open_model("pico")
        models = [pico] if run is None else [pico, model_of(run)]
        yield probabilities(row_of(pico, conversations()[0]), models)
        if run is None:
            command = f"toolhone examples {lesson}"
            yield Prose(
                f"After lesson 1 there is a second column: {command}, and then this lesson again."
            )

    def _small_plan(self) -> Any:
        file = self.space.root / self.lesson.name / "experiment.json"
        return load_experiment(file, (*self.space.overrides, "data.samples=100"))


def _full_task(line: str) -> str:
    """Turn a task in short, `{"id", "question", "expect"}`, into a line of a task file."""
    short = json.loads(line)
    task = {
        "id": short["id"],
        "messages": [{"role": "user", "content": short["question"]}],
        "tools": [tool.to_dict() for tool in Registry(SCORED_TOOLS).tools],
        "expect": short["expect"],
        "category": "call" if "calls" in short["expect"] else "no call",
    }
    return json.dumps(task, ensure_ascii=False) + "\n"


def conversations() -> list[Conversation]:
    """Generate a short conversation with a call, its result and an answer, and a short one without
    a call."""
    answered, plain = [], []
    for row in Templates(0, ("calculator",)).conversations(200):
        roles = [message.role for message in row.messages]
        if roles == ["user", "assistant", "tool", "assistant"]:
            answered.append(row)
        elif roles == ["user", "assistant"] and not row.messages[1].tool_calls:
            plain.append(row)
    return [min(rows, key=lambda row: len(str(row.messages))) for rows in (answered, plain)]


def row_of(model: Model, conversation: Conversation) -> Row:
    """Encode the conversation as the first row that a training of this model would see."""
    return model.tokenizer.encode_spans(model.dialect.render(conversation)[0])


def coloured(model: Model, title: str, row: Row) -> ColouredRow:
    """Decode the row in pieces that are trained or not."""
    tokens = zip(row.tokens.tolist(), row.mask.tolist(), strict=True)
    pieces = [
        (model.tokenizer.decode([token for token, _ in part]), trained)
        for trained, part in groupby(tokens, key=lambda pair: pair[1])
    ]
    return ColouredRow(f"{title}: {len(row)} tokens, {int(row.mask.sum())} of them trained", pieces)


def probabilities(row: Row, models: Sequence[Model]) -> Cells:
    """Tabulate how probable each trained token is to each model, given all tokens before it."""
    columns = [np.exp(model.sampler.logprobs([row])[0]) for model in models]
    tokens = row.tokens.tolist()
    rows = []
    for t in np.flatnonzero(row.mask)[:SHOWN_TOKENS]:
        token = repr(models[0].tokenizer.decode([tokens[t]]))
        rows.append([token, *(f"{100 * column[t]:.1f}" for column in columns)])
    headings = ["token", "untrained", "after lesson 1"][: 1 + len(models)]
    return Cells("How probable the right token is to the model, in per cent", headings, rows)


def _compare_dialects(names: Sequence[str]) -> Iterator[Shown]:
    """Render one conversation in several dialects; a long system text is shown in full only
    once."""
    rows = []
    for name in names:
        model = open_model("pico", overrides=[f"model.dialect={name}"])
        row = row_of(model, conversations()[0])
        shown = coloured(model, f"model.dialect={name}", row)
        if name not in names[:2]:
            (text, trained), *rest = shown.pieces
            text = re.sub(r".*?(?=<\|im_start\|>user)", "", text, count=1, flags=re.DOTALL)
            shown = ColouredRow(shown.title, [(f"... {text}", trained), *rest])
        yield shown
        label = f"{name} ({model.dialect.name})" if name == "auto" else name
        rows.append([label, str(len(row)), str(int(row.mask.sum()))])
    headings = ["model.dialect", "tokens", "of them trained"]
    yield Cells("The same conversation in four dialects", headings, rows)
