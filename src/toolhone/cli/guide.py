"""`toolhone demo`: the whole story on the embedded model. `toolhone examples`: lessons that run for
real."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from toolhone.cli.options import AsJson

if TYPE_CHECKING:
    from rich.console import Console

    from toolhone.evaluation.statistics import Score
    from toolhone.guide.demo import DemoResult, TourStage
    from toolhone.guide.lesson import Lesson, Workspace
    from toolhone.guide.runner import Code, Shown

DEMO_EXAMPLE = (
    "Examples: toolhone demo   |   toolhone demo --all   |   "
    "toolhone demo --seed 1 --out runs/mine --json"
)
EXAMPLE = (
    "Examples: toolhone examples   |   toolhone examples 1 training.steps=100   |   "
    "toolhone examples all --yes"
)
LONGEST = 140
"""Characters of a reply that are shown."""
SHOWN = 3
"""Questions that are shown with the replies before and after."""
LINE = 110
"""Longest line of a paragraph."""


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
            help="the longer tour: all tools, your own tool, all dialects, full training and LoRA",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Watch a model learn to call tools: SFT, then GRPO, before and after, curves, a chat. No
    network, no GPU, about ten minutes."""
    from toolhone.guide import demo as story

    name, options = ("demo-all", " --all") if everything else ("demo", "")
    names = (Path("runs") / (f"{name}-{n}" if n > 1 else name) for n in count(1))
    folder = out or next(path for path in names if not path.exists())
    if not as_json:
        pico = "pico (0.8 million parameters)"
        story_line = f"Six short trainings of {pico}"
        if not everything:
            story_line = f"Training {pico} from random weights to calling tools by SFT"
            story_line += ", then on to phrasings that SFT never saw by GRPO"
        _note(f"{story_line}; everything goes to {folder}")
    space = _workspace(seed, folder, as_json)
    try:
        if everything:
            _tour(space, as_json)
            return
        result = story.run_demo(seed, space)
    except KeyboardInterrupt:
        again = f"toolhone demo{options} --seed {seed} --out {folder}"
        _note(f"stopped; what was trained is kept. Resume with: {again}")
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        _show_demo(result)


def _workspace(seed: int, folder: Path, as_json: bool) -> Workspace:
    """Open the workspace of the demo; progress and remarks go to standard error."""
    from toolhone.guide.lesson import Workspace
    from toolhone.runs.progress import open_progress

    kind = "plain" if as_json else "auto"
    return Workspace(folder, (f"seed={seed}",), lambda: open_progress(kind), _note)


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _show_demo(result: DemoResult) -> None:
    """Print before and after, questions that only the tuned model gets right, live answers, and
    where the files are."""
    from toolhone.cli.console import print_table, show_event
    from toolhone.episodes.chat_session import ChatSession
    from toolhone.guide.demo import QUESTIONS, SPLITS

    rows = []
    for split, name in SPLITS.items():
        cell = result.change(split)
        change = f"{_cell(cell.difference)}  {cell.verdict}"
        rows.append((name, str(cell.difference.n), _cell(cell.base), _cell(cell.tuned), change))
    title = (
        "Exact match in % on tasks it never saw (95 % interval); the change is over the same tasks"
    )
    headings = ("", "n", "after SFT", "after GRPO", "change")
    print_table(headings, rows, title, right=headings[1:])
    for pair in result.learned(SHOWN):
        before, after = _brief(pair.base[0].text), _brief(pair.tuned[0].text)
        print(f"\n{pair.base[0].query}\n  after SFT    {before}\n  after GRPO   {after}")
    model = result.model
    for question in QUESTIONS:
        print(f"\nyou        {question}")
        for event in ChatSession(model.policy(), model.registry).say(question):
            show_event(event)
    loss, reward = result.plots
    curves = f"Curves: {loss} (SFT), {reward} (GRPO)"
    chat = f"toolhone chat {reward.parent / 'run'}"
    print(f"\n{result.seconds:.0f} seconds. {curves}   Chat with it: {chat}")


def _brief(text: str) -> str:
    """Cut a reply to its first line and `LONGEST` characters; the evaluation folder holds it in
    full."""
    first = text.partition("\n")[0]
    return first[:LONGEST] + ("…" if len(first) > LONGEST else "")


def _cell(score: Score) -> str:
    if score.value is None or score.low is None or score.high is None:
        return "-"
    return f"{100 * score.value:.1f}  ({100 * score.low:.1f} to {100 * score.high:.1f})"


def _tour(space: Workspace, as_json: bool) -> None:
    """Print each stage of the tour when it is done, and the table at the end."""
    from toolhone.guide.demo import TOUR_QUESTIONS, tour
    from toolhone.guide.lesson import chat, model_of
    from toolhone.guide.runner import Chat
    from toolhone.runs.run import write_json

    stages, started = [], time.monotonic()
    for stage in tour(space):
        stages.append(stage)
        if as_json:
            continue
        scores = f"dialect {stage.dialect}; exact match {_cell(stage.exact_match)}"
        print(f"\n{stage.name}: {stage.method}; {scores}", flush=True)
        for questions in TOUR_QUESTIONS.get(stage.name, ()):
            for question, events in chat(model_of(stage.run), *questions):
                show(Chat(question, events))
    seconds = time.monotonic() - started
    shown = [stage.to_dict() for stage in stages]
    found = {"seconds": round(seconds, 1), "stages": shown, "out": str(space.root)}
    write_json(space.root / "tour.json", found)
    if as_json:
        print(json.dumps(found))
    else:
        _show_tour(stages, seconds)


def _show_tour(stages: Sequence[TourStage], seconds: float) -> None:
    from toolhone.cli.console import print_table

    rows = [
        (
            *(stage.name, stage.method, stage.dialect, stage.tools, _cell(stage.exact_match)),
            *(str(stage.exact_match.n), f"{stage.seconds:.0f}"),
        )
        for stage in stages
    ]
    headings = ("stage", "method", "dialect", "tools", "exact match", "n", "seconds")
    title = "Exact match in % on tasks it never saw (95 % interval)"
    print_table(headings, rows, title, right=headings[4:])
    chat = f"toolhone chat {stages[1].run.folder}"
    print(f"{seconds:.0f} seconds. Chat with one: {chat}   Lessons: toolhone examples")


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
    from toolhone.config.experiment import load_experiment
    from toolhone.guide.lesson import Workspace
    from toolhone.runs.progress import open_progress

    load_experiment(
        None, overrides or (), tell=lambda _: None
    )  # a mistake in an override stops here
    space = Workspace(out, tuple(overrides or ()), open_progress, _note)
    asks = sys.stdin.isatty() and not yes
    if list_ or (lesson is None and not asks):
        _list(space)
    elif lesson is None:
        _choose(space)
    else:
        for index, each in enumerate(_find(lesson)):
            question = f"Enter continues with lesson {each.number} ({each.title}), q ends: "
            if index and asks and _ask(question) in ("q", "quit", "n", "no", None):
                return
            _play(each, space)


def _find(name: str) -> Sequence[Lesson]:
    """Return the lessons that a number, a name or 'all' means."""
    from toolhone.errors import ConfigError, nearest
    from toolhone.guide.lesson import lessons

    found = [each for each in lessons() if name in (str(each.number), each.name, "all")]
    if name == "all" or found:
        return found if name != "all" else lessons()
    known = [each.name for each in lessons()]
    raise ConfigError(
        f"no such lesson: {name!r}{nearest(name, known)}; lessons are 1 to {len(known)} "
        f"({', '.join(known)}) and 'all'"
    )


def _list(space: Workspace) -> None:
    from toolhone.guide.lesson import finished, lessons

    for lesson in lessons():
        done = "  (its run is there)" if finished(space, lesson.name) else ""
        print(f"{lesson.number}  {lesson.name:14s} {lesson.title}, {lesson.takes}{done}")


def _choose(space: Workspace) -> None:
    """Ask for lessons, one after the other, until the reader quits; Enter takes the next."""
    from toolhone.errors import ConfigError
    from toolhone.guide.lesson import lessons

    following = 1
    while True:
        print()
        _list(space)
        last = len(lessons())
        answer = _ask(f"Which lesson (1 to {last}, Enter for {following}, q to end)? ")
        if answer in ("q", "quit", None):
            return
        try:
            chosen = _find(answer or str(following))
        except ConfigError as error:
            _note(str(error))
            continue
        for lesson in chosen:
            _play(lesson, space)
            following = min(lesson.number + 1, last)


def _ask(question: str) -> str | None:
    """Return the reader's answer; None at the end of input."""
    try:
        return input(question).strip()
    except EOFError:
        print()
        return None


def _play(lesson: Lesson, space: Workspace) -> None:
    from toolhone.guide.runner import play

    for shown in play(lesson, space):
        show(shown)


def show(shown: Shown) -> None:
    """Print one thing that a lesson yields: in colours on a terminal, as plain text elsewhere."""
    from rich.text import Text

    from toolhone.cli.console import console, show_event
    from toolhone.evaluation.display import clean, metrics_table, mismatches
    from toolhone.guide.runner import Cells, Chat, Code, ColouredRow, Heading, Prose, Scores

    out = console()
    if isinstance(shown, Chat):
        print(f"\nyou        {shown.question}", flush=True)
        for event in shown.events:
            show_event(event)
        return
    out.print()
    match shown:
        case Heading(text):
            out.print(Text(text, "bold" if out.is_terminal else ""))
        case Prose(text):
            paragraphs(text)
        case Code():
            _show_code(out, shown)
        case Scores(title, evaluation, mistakes):
            out.print(Text(title, "bold"))
            out.print(metrics_table(evaluation))
            out.print(mismatches(evaluation, mistakes))
        case Cells(title, headings, rows):
            _show_cells(title, headings, rows, clean)
        case ColouredRow(title, pieces):
            out.print(Text(title, "bold"))
            row = Text()
            for piece, trained in pieces:
                marked = f"»{piece}«" if trained and not out.is_terminal else piece
                row.append(clean(marked), "bold green" if trained else "dim")
            out.print(row, soft_wrap=True)


def paragraphs(text: str) -> None:
    """Print a text whose line breaks mean nothing, unless a line begins with a dash or is empty."""
    from rich.text import Text

    from toolhone.cli.console import console

    out = console()
    for paragraph in re.sub(r"(?<!\n)\n(?!- |\n)\s*", " ", text).split("\n"):
        hanging = "  " if paragraph.startswith("- ") else ""
        lines = Text(paragraph).wrap(out, min(LINE, out.width) - len(hanging))
        for number, line in enumerate(lines):
            out.print(Text(hanging if number else "") + line, soft_wrap=True)


def _show_code(out: Console, code: Code) -> None:
    """Print commands behind a dollar sign, files in their colours."""
    from rich.syntax import Syntax
    from rich.text import Text

    if code.file:
        out.print(Text(f"{code.file}:", "bold"), soft_wrap=True)
    lines = code.text.rstrip().splitlines()
    if out.is_terminal and code.language in ("json", "python"):
        colours: dict[str, Any] = {"theme": "ansi_dark", "background_color": "default"}
        out.print(Syntax("\n".join(lines), code.language, word_wrap=True, **colours))
        return
    for line in lines:
        command, _, comment = line.partition("  #")
        if code.language in ("json", "python") or not command.startswith("toolhone "):
            out.print(Text(f"  {line}"), soft_wrap=True)
            continue
        if comment:
            out.print(Text(f"  # {comment.strip()}", "dim"), soft_wrap=True)
        shown = Text.assemble(("  $ ", "dim"), (command.strip(), "bold cyan"))
        out.print(shown, soft_wrap=True)


def _show_cells(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], clean: Callable[[str], str]
) -> None:
    from toolhone.cli.console import print_table

    numeric = [
        name
        for column, name in enumerate(headings)
        if column and all(re.fullmatch(r"[\d.,-]+", row[column]) for row in rows)
    ]
    print_table(headings, [[clean(cell) for cell in row] for row in rows], title, right=numeric)
