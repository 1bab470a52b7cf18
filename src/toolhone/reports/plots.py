"""Curves of runs as a PNG: loss on the left, scores on the right, one colour for each run.

    plot_runs([Path("runs/a"), Path("runs/b")], Path("curves.png"))
    plot_runs([Path("a/metrics.jsonl")], Path("lr.png"), metrics=["learning_rate", "grad_norm"])

Reads `metrics.jsonl` files only; a validation's values are drawn with markers, those of training as lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from toolhone.errors import RunError, nearest
from toolhone.run import read_metrics, writing

SCORES = ("exact_match", "tool_accuracy", "argument_accuracy", "valid_format", "no_call_accuracy")
_NOT_MEASURED = ("step", "kind")
_COLOURS = ("#2a6f97", "#d1495b", "#5a8f3d", "#8d6a9f", "#c7822b", "#4d4d4d")
_DASHES = ("-", "--", ":", "-.")

Lines = list[dict[str, Any]]


def plot_runs(sources: Sequence[Path], out: Path, metrics: Sequence[str] = ()) -> Path:
    """Draw the runs (folders or metrics files) into the PNG `out`; with `metrics`, one panel for each of those names."""
    runs = [(_name(source), read_metrics(_file(source))) for source in sources]
    known = sorted(
        {key for _, lines in runs for line in lines for key in line if key not in _NOT_MEASURED and _is_number(line[key])}
    )
    for metric in metrics:
        if metric not in known:
            raise RunError(f"no metric {metric!r} in these logs{nearest(metric, known)}; they have {', '.join(known) or 'none'}")
    panels = [[metric] for metric in metrics] or [["loss"], [name for name in SCORES if name in known]]
    panels = [panel for panel in panels if panel and any(name in known for name in panel)]
    if not panels:
        raise RunError(f"nothing to draw: {', '.join(str(_file(source)) for source in sources)} holds no loss and no scores yet")
    figure = Figure(figsize=(6.2 * len(panels), 4.2), layout="constrained")
    for index, panel in enumerate(panels):
        _draw(figure.add_subplot(1, len(panels), index + 1), runs, panel)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        FigureCanvasAgg(figure).print_png(str(out))
    return out


def _file(source: Path) -> Path:
    return source / "metrics.jsonl" if source.is_dir() else source


def _name(source: Path) -> str:
    return source.name if source.is_dir() else source.parent.name or source.name


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _draw(axes: Axes, runs: Sequence[tuple[str, Lines]], names: Sequence[str]) -> None:
    """One panel. With one run the colours tell metrics apart, with several they tell runs apart and dashes the metrics."""
    for r, (run, lines) in enumerate(runs):
        for m, name in enumerate(names):
            for kind in sorted({line["kind"] for line in lines}):
                points = [(line["step"], line[name]) for line in lines if line["kind"] == kind and _is_number(line.get(name))]
                if points:
                    colour = _COLOURS[(m if len(runs) == 1 else r) % len(_COLOURS)]
                    colour = "#d1495b" if len(runs) == 1 and len(names) == 1 and kind == "validation" else colour
                    label = " · ".join(
                        part for part in (run if len(runs) > 1 else "", name, kind if len(names) == 1 else "") if part
                    )
                    style = _DASHES[(0 if len(runs) == 1 else m) % len(_DASHES)]
                    marker = "o" if kind == "validation" else None
                    axes.plot(*zip(*points, strict=True), style, color=colour, marker=marker, markersize=4, label=label)
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.set_title("scores on held-out tasks" if len(names) > 1 else names[0].replace("_", " "))
    if all(name in SCORES for name in names):
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
