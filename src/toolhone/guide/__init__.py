"""Guided first steps: six lessons, each a training, a look or a scoring that runs for real, with what to look at and what to try.

    for shown in LESSONS[0].play(Desk(Path("runs/examples"))): ...

One file for each lesson, in the order of `LESSONS`; what they have in common is in `desk`. `toolhone examples` shows them, and the
tour of `toolhone demo --all` uses their experiments.
"""

from toolhone.guide import calculator, own_tool, scoring
from toolhone.guide import call_format as format
from toolhone.guide import row_view as rows
from toolhone.guide import several_tools as several
from toolhone.guide.lesson import Desk, Lesson

LESSONS = (
    calculator.LESSON,
    rows.LESSON,
    several.LESSON,
    format.LESSON,
    own_tool.LESSON,
    scoring.LESSON,
)

__all__ = ["LESSONS", "Desk", "Lesson"]
