"""`toolhone demo`: the whole story on the embedded model. `toolhone examples`: lessons that run for
real."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from rich.syntax import Syntax
from rich.text import Text
from typer import Argument, Option

from toolhone.cli.console import console, print_note, print_table, show_event
from toolhone.cli.flags import AsJson
from toolhone.config.experiment import load_experiment
from toolhone.episodes.chat_session import ChatSession
from toolhone.errors import ConfigError, nearest
from toolhone.evaluation.display import clean, metrics_table, mismatches
from toolhone.evaluation.statistics import Score
from toolhone.guide import demo as story
from toolhone.guide import runner
from toolhone.guide.lesson import Lesson, Workspace, chat, finished, lessons, model_of
from toolhone.runs.progress import open_progress
from toolhone.runs.run import write_json

app = typer.Typer(rich_markup_mode=None)
LONGEST = 140
"""Characters of a reply that are shown."""
SHOWN = 3
"""Questions that are shown with the replies before and after."""
LINE = 110
"""Longest line of a paragraph."""


@app.command(
    epilog="Examples: toolhone demo   |   toolhone demo --all   |   "
    "toolhone demo --seed 1 --out runs/mine --json"
)
def demo(
    seed: Annotated[
        int, Option(help="of the data, the model and the training; same seed, same result")
    ] = 0,
    out: Annotated[
        Path | None,
        Option(help="the run folder [default: the first free of runs/demo, runs/demo-2, ...]"),
    ] = None,
    everything: Annotated[
        bool,
        Option(
            "--all",
            help="the longer tour: all tools, your own, all dialects, teachers, baking, a world",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Watch a model learn to call tools: SFT, then GRPO, before and after, curves, a chat. No
    network, no GPU, about ten minutes."""
    name, options = ("demo-all", " --all") if everything else ("demo", "")
    names = (Path("runs") / (f"{name}-{n}" if n > 1 else name) for n in count(1))
    folder = out or next(path for path in names if not path.exists())
    if not as_json:
        pico = "pico (0.8 million parameters)"
        plot = f"Training {pico} from random weights to calling tools by SFT"
        plot += ", then on to phrasings that SFT never saw by GRPO"
        plot = f"Nine short trainings of {pico}" if everything else plot
        print_note(f"{plot}; everything goes to {folder}")
    kind = "plain" if as_json else "auto"
    space = open_workspace(folder, (f"seed={seed}",), kind)
    try:
        found = _tour(space, as_json) if everything else _demo(space, seed, as_json)
    except KeyboardInterrupt:
        again = f"toolhone demo{options} --seed {seed} --out {folder}"
        print_note(f"stopped; what was trained is kept. Resume with: {again}")
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(found))


def open_workspace(folder: Path, overrides: Sequence[str], progress: str = "auto") -> Workspace:
    """Open a workspace whose progress and remarks go to standard error."""
    return Workspace(folder, tuple(overrides), lambda: open_progress(progress), print_note)


def _demo(space: Workspace, seed: int, as_json: bool) -> dict[str, object]:
    """Print before and after, questions that only the tuned model gets right, live answers, and
    where the files are."""
    result = story.run_demo(seed, space)
    if as_json:
        return result.to_dict()
    rows = []
    for split, name in story.SPLITS.items():
        cell = result.change(split)
        change = f"{_cell(cell.difference)}  {cell.verdict}"
        rows.append((name, str(cell.difference.n), _cell(cell.base), _cell(cell.tuned), change))
    title = (
        "Exact match in % on tasks it never saw (95 % interval); the change is over the same tasks"
    )
    headings = ("", "n", "after SFT", "after GRPO", "change")
    print_table(headings, rows, title, right=headings[1:])
    for pair in result.learned(SHOWN):
        print(f"\n{pair.base[0].query}")
        for when, sample in (("after SFT ", pair.base[0]), ("after GRPO", pair.tuned[0])):
            first = sample.text.partition("\n")[0]
            print(f"  {when}   {first[:LONGEST]}{'…' if len(first) > LONGEST else ''}")
    session_of = result.model.policy(), result.model.registry
    for question in story.QUESTIONS:
        show(runner.Chat(question, ChatSession(*session_of).say(question)))
    loss, reward = result.plots
    curves = f"Curves: {loss} (SFT), {reward} (GRPO)"
    command = f"toolhone chat {reward.parent / 'run'}"
    print(f"\n{result.seconds:.0f} seconds. {curves}   Chat with it: {command}")
    return result.to_dict()


def _cell(score: Score) -> str:
    if score.value is None or score.low is None or score.high is None:
        return "-"
    return f"{100 * score.value:.1f}  ({100 * score.low:.1f} to {100 * score.high:.1f})"


def _tour(space: Workspace, as_json: bool) -> dict[str, object]:
    """Print each stage of the tour when it is done, and the table at the end."""
    stages, rows, started = [], [], time.monotonic()
    for stage in story.tour(space):
        stages.append(stage)
        score = stage.exact_match
        row = (stage.name, stage.method, stage.dialect, stage.tools, _cell(score), str(score.n))
        rows.append((*row, f"{stage.seconds:.0f}"))
        if as_json:
            continue
        scores = f"dialect {stage.dialect}; exact match {_cell(score)}"
        print(f"\n{stage.name}: {stage.method}; {scores}", flush=True)
        for questions in story.TOUR_QUESTIONS.get(stage.name, ()):
            for question, events in chat(model_of(stage.run), *questions):
                show(runner.Chat(question, events))
    seconds = time.monotonic() - started
    shown = [stage.to_dict() for stage in stages]
    found = {"seconds": round(seconds, 1), "stages": shown, "out": str(space.root)}
    write_json(space.root / "tour.json", found)
    if not as_json:
        headings = ("stage", "method", "dialect", "tools", "exact match", "n", "seconds")
        title = "Exact match (in the shop: solved) in % on tasks it never saw (95 % interval)"
        print_table(headings, rows, title, right=headings[4:])
        command = f"toolhone chat {stages[1].run.folder}"
        print(f"{seconds:.0f} seconds. Chat with one: {command}   Lessons: toolhone examples")
    return found


@app.command(
    epilog="Examples: toolhone examples   |   toolhone examples 1 training.steps=100   |   "
    "toolhone examples all --yes"
)
def examples(
    lesson: Annotated[
        str | None,
        Argument(metavar="[LESSON]", help="its number or name, or 'all'; none: choose from a list"),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        Argument(
            metavar="[KEY=VALUE]...",
            help="changes to the lesson's experiment, e.g. training.steps=100",
        ),
    ] = None,
    list_: Annotated[bool, Option("--list", help="print the lessons and nothing else")] = False,
    yes: Annotated[bool, Option("--yes", help="ask nothing")] = False,
    out: Annotated[Path, Option(help="the folder that lessons write into")] = Path("runs/examples"),
) -> None:
    """Lessons that run for real, from a calculator by supervised training to your own tool. No
    network, no GPU."""
    load_experiment(None, overrides or (), tell=lambda _: None)  # a mistake stops here
    space = open_workspace(out, overrides or ())
    asks = sys.stdin.isatty() and not yes
    if list_ or (lesson is None and not asks):
        _list(space)
        return
    if lesson is None:
        _choose(space)
        return
    for index, each in enumerate(_find(lesson)):
        question = f"Enter continues with lesson {each.number} ({each.title}), q ends: "
        if index and asks and _ask(question) in ("q", "quit", "n", "no", None):
            return
        _play(each, space)


def _find(name: str) -> Sequence[Lesson]:
    """Return the lessons that a number, a name or 'all' means."""
    found = [each for each in lessons() if name in (str(each.number), each.name, "all")]
    if found:
        return found
    known = [each.name for each in lessons()]
    raise ConfigError(
        f"no such lesson: {name!r}{nearest(name, known)}; lessons are 1 to {len(known)} "
        f"({', '.join(known)}) and 'all'"
    )


def _list(space: Workspace) -> None:
    for lesson in lessons():
        done = "  (its run is there)" if finished(space, lesson.name) else ""
        print(f"{lesson.number}  {lesson.name:14s} {lesson.title}, {lesson.takes}{done}")


def _choose(space: Workspace) -> None:
    """Ask for lessons, one after the other, until the reader quits; Enter takes the next."""
    following, last = 1, len(lessons())
    while True:
        print()
        _list(space)
        answer = _ask(f"Which lesson (1 to {last}, Enter for {following}, q to end)? ")
        if answer in ("q", "quit", None):
            return
        try:
            chosen = _find(answer or str(following))
        except ConfigError as error:
            print_note(str(error))
            continue
        for lesson in chosen:
            _play(lesson, space)
            following = min(lesson.number + 1, last)


def _ask(question: str) -> str | None:
    """Return the reader's answer; None at the end of input."""
    with suppress(EOFError):
        return input(question).strip()
    print()
    return None


def _play(lesson: Lesson, space: Workspace) -> None:
    for shown in runner.play(lesson, space):
        show(shown)


def show(shown: runner.Shown) -> None:
    """Print one thing that a lesson yields: in colours on a terminal, as plain text elsewhere."""
    out = console()
    print()
    match shown:
        case runner.Chat(question, events):
            print(f"you        {question}", flush=True)
            for event in events:
                show_event(event)
        case runner.Heading(text):
            out.print(Text(text, "bold" if out.is_terminal else ""))
        case runner.Prose(text):
            paragraphs(text)
        case runner.Code():
            show_code(shown)
        case runner.Scores(title, evaluation, mistakes):
            out.print(Text(title, "bold"))
            out.print(metrics_table(evaluation))
            out.print(mismatches(evaluation, mistakes))
        case runner.Cells(title, headings, rows):
            numeric = [
                name
                for column, name in enumerate(headings)
                if column and all(re.fullmatch(r"[\d.,-]+", row[column]) for row in rows)
            ]
            cells = [[clean(cell) for cell in row] for row in rows]
            print_table(headings, cells, title, right=numeric)
        case runner.ColouredRow(title, pieces):
            out.print(Text(title, "bold"))
            row = Text()
            for piece, trained in pieces:
                marked = f"»{piece}«" if trained and not out.is_terminal else piece
                row.append(clean(marked), "bold green" if trained else "dim")
            out.print(row, soft_wrap=True)


def paragraphs(text: str) -> None:
    """Print a text whose line breaks mean nothing, unless a line begins with a dash or is empty."""
    out = console()
    for paragraph in re.sub(r"(?<!\n)\n(?!- |\n)\s*", " ", text).split("\n"):
        hanging = "  " if paragraph.startswith("- ") else ""
        lines = Text(paragraph).wrap(out, min(LINE, out.width) - len(hanging))
        for number, line in enumerate(lines):
            out.print(Text(hanging if number else "") + line, soft_wrap=True)


def show_code(code: runner.Code) -> None:
    """Print commands behind a dollar sign, files in their colours."""
    out, is_source = console(), code.language in ("json", "python")
    if code.file:
        out.print(Text(f"{code.file}:", "bold"), soft_wrap=True)
    lines = code.text.rstrip().splitlines()
    if out.is_terminal and is_source:
        text, theme = "\n".join(lines), "ansi_dark"
        out.print(
            Syntax(text, code.language, theme=theme, word_wrap=True, background_color="default")
        )
        return
    for line in lines:
        command, _, comment = line.partition("  #")
        if is_source or not command.startswith("toolhone "):
            out.print(Text(f"  {line}"), soft_wrap=True)
            continue
        if comment:
            out.print(Text(f"  # {comment.strip()}", "dim"), soft_wrap=True)
        shown = Text.assemble(("  $ ", "dim"), (command.strip(), "bold cyan"))
        out.print(shown, soft_wrap=True)
