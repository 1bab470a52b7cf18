"""`toolhone examples`: guided first steps. The lessons are in `lessons`; here is how they are chosen and shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from toolhone.guide import Desk, Lesson

EXAMPLE = "Examples: toolhone examples   |   toolhone examples 1 training.steps=100   |   toolhone examples all --yes"


def examples(
    lesson: Annotated[
        str | None,
        typer.Argument(
            metavar="[LESSON]", help="its number or name, or 'all'; none: choose from a list"
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="changes to the lesson's experiment, e.g. training.steps=100",
        ),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="print the lessons and nothing else")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="ask nothing")] = False,
    out: Annotated[Path, typer.Option(help="the folder that lessons write into")] = Path(
        "runs/examples"
    ),
) -> None:
    """Lessons that run for real, from a calculator by supervised training to a tool of your own. No network, no GPU."""
    from toolhone.config.experiment import load_experiment
    from toolhone.guide import LESSONS, Desk
    from toolhone.runs.progress import open_progress

    load_experiment(
        None, overrides or (), tell=lambda _: None
    )  # a mistake in an override stops here
    desk = Desk(out, tuple(overrides or ()), open_progress, _tell)
    asks = sys.stdin.isatty() and not yes
    if list_ or (lesson is None and not asks):
        _list(desk)
    elif lesson is None:
        _choose_and_show(desk)
    else:
        chosen = _chosen(lesson)
        for number, each in enumerate(chosen):
            if (
                number
                and asks
                and not _goes_on(
                    f"Enter goes on with lesson {LESSONS.index(each) + 1} ({each.title}), q ends: "
                )
            ):
                return
            _show(each, desk)


def _chosen(name: str) -> Sequence[Lesson]:
    """The lessons that a number, a name or 'all' means."""
    from toolhone.errors import ConfigError, nearest
    from toolhone.guide import LESSONS

    if name == "all":
        return LESSONS
    for number, lesson in enumerate(LESSONS, 1):
        if name in (str(number), lesson.name):
            return [lesson]
    known = [lesson.name for lesson in LESSONS]
    raise ConfigError(
        f"there is no lesson {name!r}{nearest(name, known)}; there are 1 to {len(known)} ({', '.join(known)}) and 'all'"
    )


def _list(desk: Desk) -> None:
    from toolhone.guide import LESSONS
    from toolhone.guide.lesson import finished

    for number, lesson in enumerate(LESSONS, 1):
        done = "  (its run is there)" if finished(desk, lesson.name) else ""
        print(f"{number}  {lesson.name:14s} {lesson.title}, {lesson.takes}{done}")


def _choose_and_show(desk: Desk) -> None:
    """Ask for lessons, one after the other, until the reader has enough; Enter takes the next."""
    from toolhone.errors import ConfigError
    from toolhone.guide import LESSONS

    following = 1
    while True:
        print()
        _list(desk)
        answer = _asked(f"Which lesson (1 to {len(LESSONS)}, Enter for {following}, q to end)? ")
        if answer in ("q", "quit", None):
            return
        try:
            chosen = _chosen(answer or str(following))
        except ConfigError as error:
            _tell(str(error))
            continue
        for lesson in chosen:
            _show(lesson, desk)
            following = min(LESSONS.index(lesson) + 2, len(LESSONS))


def _asked(question: str) -> str | None:
    """What the reader answers; None at the end of input."""
    try:
        return input(question).strip()
    except EOFError:
        print()
        return None


def _goes_on(question: str) -> bool:
    return _asked(question) not in ("q", "quit", "n", "no", None)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _show(lesson: Lesson, desk: Desk) -> None:
    """A lesson from its first line to what to try next."""
    from toolhone.cli.lesson_view import heading, paragraphs, show
    from toolhone.guide import LESSONS
    from toolhone.guide.lesson import Typed

    heading(f"Lesson {LESSONS.index(lesson) + 1}: {lesson.title} ({lesson.takes})")
    paragraphs(lesson.about)
    for shown in lesson.play(desk):
        show(shown)
    heading("What to look at")
    paragraphs(lesson.look.replace("{root}", str(desk.root)))
    heading("What to try next")
    show(Typed(lesson.then.replace("{root}", str(desk.root))))
