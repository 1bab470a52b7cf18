"""Plot the curves of runs as a PNG: loss or reward, scores, and what to watch in RL.

    plot_runs([Path("runs/a"), Path("runs/b")], Path("curves.png"))
    plot_runs([Path("a/metrics.jsonl")], Path("lr.png"), metrics=["learning_rate", "grad_norm"])

Validation values have markers. Noisy values are drawn faint, with their moving average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from toolhone.errors import RunError, nearest
from toolhone.runs.run import read_metrics, writing

SCORES = ("exact_match", "tool_accuracy", "argument_accuracy", "valid_format", "no_call_accuracy")
WATCHED = ("groups_without_signal", "clip_share", "entropy", "kl_reference")
"""What shows whether reinforcement learning is healthy (docs/algorithms/grpo.md)."""
_TITLES = {SCORES: "scores on held-out tasks", WATCHED: "shares, and nats per token"}
_NOISY = ("reward", *WATCHED)
_WINDOW = 0.05
"""Share of a run over which noisy values are averaged, to either side."""
_COLOURS = ("#2a6f97", "#d1495b", "#5a8f3d", "#8d6a9f", "#c7822b", "#4d4d4d")
_DASHES = ("-", "--", ":", "-.")

Lines = list[dict[str, Any]]


def plot_runs(
    sources: Sequence[Path],
    out: Path,
    metrics: Sequence[str] = (),
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Draw the runs (folders or metrics files) into the PNG `out`, one panel per metric.

    `report` receives a sentence about each log whose last line was cut off.
    """
    files = {path: path / "metrics.jsonl" if path.is_dir() else path for path in sources}
    runs = [
        (path.name if path.is_dir() else path.parent.name or path.name, read_metrics(file, report))
        for path, file in files.items()
    ]
    lines = [line for _, found in runs for line in found]
    known = sorted({key for line in lines for key in line if _is_number(line[key])} - {"step"})
    for metric in metrics:
        if metric not in known:
            raise RunError(
                f"no metric {metric!r} in these logs{nearest(metric, known)}; "
                f"they have {', '.join(known) or 'none'}"
            )
    defaults = [("reward",), SCORES, WATCHED] if "reward" in known else [("loss",), SCORES]
    panels: list[tuple[str, ...]] = [(metric,) for metric in metrics]
    if not metrics:
        panels = [panel for panel in defaults if any(name in known for name in panel)]
    if not panels:
        names = ", ".join(map(str, files.values()))
        raise RunError(f"nothing to draw: {names} holds no loss and no scores yet")
    figure = Figure(figsize=(6.2 * len(panels), 4.2), layout="constrained")
    for index, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), index)
        title = _TITLES.get(panel, panel[0].replace("_", " "))
        _draw_panel(axes, runs, [name for name in panel if name in known], title)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        FigureCanvasAgg(figure).print_png(str(out))
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _draw_panel(
    axes: Axes, runs: Sequence[tuple[str, Lines]], names: Sequence[str], title: str
) -> None:
    """Draw one panel: with one run colours mean metrics, with several they mean runs."""
    alone = len(runs) == 1
    for r, (run, lines) in enumerate(runs):
        for m, name in enumerate(names):
            for kind in sorted({line["kind"] for line in lines}):
                points = [
                    (line["step"], line[name])
                    for line in lines
                    if line["kind"] == kind and _is_number(line.get(name))
                ]
                if not points:
                    continue
                colour = _COLOURS[(m if alone else r) % len(_COLOURS)]
                if alone and len(names) == 1 and kind == "validation":
                    colour = "#d1495b"
                parts = ("" if alone else run, name, kind if len(names) == 1 else "")
                style: dict[str, Any] = {
                    "color": colour,
                    "linestyle": _DASHES[(0 if alone else m) % len(_DASHES)],
                }
                if kind == "train" and name in _NOISY:
                    axes.plot(*zip(*points, strict=True), **style, alpha=0.25, linewidth=0.8)
                    points = _moving_average(points)
                axes.plot(
                    *zip(*points, strict=True),
                    **style,
                    marker="o" if kind == "validation" else None,
                    markersize=4,
                    label=" · ".join(filter(None, parts)),
                )
    axes.set_xlabel("step")
    axes.set_title(title)
    axes.set_xlim(left=0)
    if all(name in SCORES for name in names):
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def _moving_average(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each value as the mean of those around it, fewer at the ends."""
    around = round(len(points) * _WINDOW)
    windows = [points[max(0, i - around) : i + around + 1] for i in range(len(points))]
    return [
        (step, sum(value for _, value in window) / len(window))
        for (step, _), window in zip(points, windows, strict=True)
    ]
