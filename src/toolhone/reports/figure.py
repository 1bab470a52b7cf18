"""Draw points as panels of a figure, or write them as a table: one set of numbers, two outputs.

    draw_points(points, Path("curves.pdf"), {"exact_match": PanelStyle(low=0, high=1)})
    write_points(points, Path("curves.csv"))

The ending of the file chooses PNG, SVG or PDF; text stays text in SVG and PDF.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from toolhone.errors import ConfigError
from toolhone.runs.run import write_text, writing

FORMATS = ("png", "svg", "pdf")
COLOURS = ("#2a6f97", "#d1495b", "#5a8f3d", "#8d6a9f", "#c7822b", "#4d4d4d", "#3aa6a0", "#b56576")
DASHES = ("-", "--", ":", "-.")
MOST_INSIDE = 6
"""Series whose legend is inside the panel; that of more is beside it."""
_WINDOW = 0.05
"""Share of a line over which noisy values are averaged, to either side."""
_PAPER = {
    "font.size": 9,
    "axes.titlesize": 10,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "toolhone",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Point:
    """One value: `x` is a number on a line, or the name of a bar.

    low, high: its interval or range, over `n` tasks or runs; None where there is none.
    """

    panel: str
    series: str
    x: float | str
    y: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class PanelStyle:
    """Labels and limits of a panel; `noisy`: series drawn faint, with their moving average;
    `marked`: series with a marker at each point. `colours` groups series: (colour, dash)."""

    title: str = ""
    x: str = "step"
    y: str = ""
    unit: bool = False
    noisy: frozenset[str] = frozenset()
    marked: frozenset[str] = frozenset()
    log_x: bool = False


def check_format(out: Path) -> str:
    """The format that the ending of a file names."""
    ending = out.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        right = "png, svg or pdf"
        raise ConfigError(f"--out {out}: a plot is written as {right}, by the ending of the file")
    return ending


def draw_points(points: Sequence[Point], out: Path, styles: Mapping[str, PanelStyle]) -> Path:
    """Draw a panel for each name, in order of first use, into a PNG, SVG or PDF."""
    ending, panels = check_format(out), list(dict.fromkeys(point.panel for point in points))
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(_PAPER):
        figure = Figure(figsize=(4.4 * columns, 3.2 * rows), layout="constrained")
        for index, panel in enumerate(panels, start=1):
            axes = figure.add_subplot(rows, columns, index)
            own = [point for point in points if point.panel == panel]
            style = styles.get(panel, PanelStyle())
            draw = _draw_bars if isinstance(own[0].x, str) else _draw_lines
            draw(axes, own, style)
            axes.set_title(style.title or panel.replace("_", " "))
            axes.set_xlabel(style.x)
            axes.set_ylabel(style.y or panel.replace("_", " "))
            axes.spines[["top", "right"]].set_visible(False)
            series = {point.series for point in own}
            beside = len(series) > MOST_INSIDE or (isinstance(own[0].x, str) and len(series) > 1)
            if beside:
                axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
            elif series != {""}:
                axes.legend(frameon=False)
        dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)
        with writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            canvas = FigureCanvasAgg(figure)
            canvas.print_figure(str(out), format=ending, dpi=200, metadata=dateless)
    return out


def _draw_lines(axes: Axes, points: Sequence[Point], style: PanelStyle) -> None:
    for number, series in enumerate(dict.fromkeys(point.series for point in points)):
        own = sorted((p for p in points if p.series == series), key=lambda p: float(p.x))
        colour = COLOURS[number % len(COLOURS)]
        dash = DASHES[number // len(COLOURS) % len(DASHES)]
        x, y = [float(p.x) for p in own], [p.y for p in own]
        band = [
            (float(p.x), p.low, p.high) for p in own if p.low is not None and p.high is not None
        ]
        if len(band) > 1:
            places, low, high = map(list, zip(*band, strict=True))
            axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
        if series in style.noisy:
            axes.plot(x, y, dash, color=colour, alpha=0.25, linewidth=0.8)
            y = moving_average(y)
        marker = "o" if series in style.marked or len(own) < 2 else None
        axes.plot(x, y, dash, color=colour, lw=1.4, marker=marker, markersize=3.5, label=series)
    if style.log_x:
        axes.set_xscale("log")
        values = sorted({float(point.x) for point in points})
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.set_xticks([], minor=True)
    else:
        axes.set_xlim(left=0)
    if style.unit:
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25)


def _draw_bars(axes: Axes, points: Sequence[Point], style: PanelStyle) -> None:
    """Bars grouped by name, one of each series in a group, with their intervals."""
    names = list(dict.fromkeys(str(point.x) for point in points))
    series = list(dict.fromkeys(point.series for point in points))
    width = 0.8 / len(series)
    for number, one in enumerate(series):
        own = [point for point in points if point.series == one]
        places = [names.index(str(p.x)) + (number - (len(series) - 1) / 2) * width for p in own]
        lows = [p.y - (p.y if p.low is None else p.low) for p in own]
        highs = [(p.y if p.high is None else p.high) - p.y for p in own]
        axes.bar(
            places,
            [p.y for p in own],
            width * 0.92,
            color=COLOURS[number % len(COLOURS)],
            yerr=[lows, highs],
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"},
            label=one,
        )
    longest = max(map(len, names))
    rotation = 30 if longest * len(names) > 45 else 0
    axes.set_xticks(
        range(len(names)), names, rotation=rotation, ha="right" if rotation else "center"
    )
    if style.unit:
        axes.set_ylim(0, 1.02)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)


def moving_average(values: Sequence[float]) -> list[float]:
    """Each value as the mean of those around it, fewer at the ends."""
    around = round(len(values) * _WINDOW)
    windows = [values[max(0, i - around) : i + around + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def write_points(points: Sequence[Point], out: Path) -> Path:
    """The numbers of a figure as CSV: panel, series, x, y, low, high, n."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [each.name for each in fields(Point)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(point) for point in points)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text.getvalue())
    return out
