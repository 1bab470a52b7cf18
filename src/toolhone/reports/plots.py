"""Curves of runs as a PNG, one colour for each run: loss and scores; of reinforcement learning reward, scores and what to watch.

    plot_runs([Path("runs/a"), Path("runs/b")], Path("curves.png"))
    plot_runs([Path("a/metrics.jsonl")], Path("lr.png"), metrics=["learning_rate", "grad_norm"])

Reads `metrics.jsonl` files only; a validation's values are drawn with markers, those of training as lines. What is measured on the
few tasks of a step is drawn faint, with its mean over the steps around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from toolhone.errors import RunError, nearest
from toolhone.runs.run import read_metrics, writing

SCORES = ("exact_match", "tool_accuracy", "argument_accuracy", "valid_format", "no_call_accuracy")
WATCHED = ("groups_without_signal", "clip_share", "entropy", "kl_reference")
"""What tells whether reinforcement learning is healthy (docs/algorithms/grpo.md)."""
_TITLES = {SCORES: "scores on held-out tasks", WATCHED: "shares, and nats per token"}
_AROUND = 0.05
"""Share of a run over which noisy values are averaged, to either side."""
_NOT_MEASURED = ("step", "kind")
_COLOURS = ("#2a6f97", "#d1495b", "#5a8f3d", "#8d6a9f", "#c7822b", "#4d4d4d")
_DASHES = ("-", "--", ":", "-.")

Lines = list[dict[str, Any]]


def plot_runs(sources: Sequence[Path], out: Path, metrics: Sequence[str] = ()) -> Path:
    """Draw the runs (folders or metrics files) into the PNG `out`; with `metrics`, one panel for each of those names."""
    runs = [(_name(source), read_metrics(_file(source))) for source in sources]
    known = sorted(
        {
            key
            for _, lines in runs
            for line in lines
            for key in line
            if key not in _NOT_MEASURED and _is_number(line[key])
        }
    )
    for metric in metrics:
        if metric not in known:
            raise RunError(
                f"no metric {metric!r} in these logs{nearest(metric, known)}; they have {', '.join(known) or 'none'}"
            )
    usual: list[tuple[str, ...]] = (
        [("reward",), SCORES, WATCHED] if "reward" in known else [("loss",), SCORES]
    )
    panels: list[tuple[str, ...]] = [(metric,) for metric in metrics] or [
        panel for panel in usual if any(name in known for name in panel)
    ]
    if not panels:
        raise RunError(
            f"nothing to draw: {', '.join(str(_file(source)) for source in sources)} holds no loss and no scores yet"
        )
    figure = Figure(figsize=(6.2 * len(panels), 4.2), layout="constrained")
    for index, panel in enumerate(panels):
        shown = [name for name in panel if name in known]
        _draw(
            figure.add_subplot(1, len(panels), index + 1),
            runs,
            shown,
            _TITLES.get(panel, panel[0].replace("_", " ")),
        )
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


def _draw(axes: Axes, runs: Sequence[tuple[str, Lines]], names: Sequence[str], title: str) -> None:
    """One panel. With one run the colours tell metrics apart, with several they tell runs apart and dashes the metrics."""
    for r, (run, lines) in enumerate(runs):
        for m, name in enumerate(names):
            for kind in sorted({line["kind"] for line in lines}):
                points = [
                    (line["step"], line[name])
                    for line in lines
                    if line["kind"] == kind and _is_number(line.get(name))
                ]
                if points:
                    colour = _COLOURS[(m if len(runs) == 1 else r) % len(_COLOURS)]
                    colour = (
                        "#d1495b"
                        if len(runs) == 1 and len(names) == 1 and kind == "validation"
                        else colour
                    )
                    label = " · ".join(
                        part
                        for part in (
                            run if len(runs) > 1 else "",
                            name,
                            kind if len(names) == 1 else "",
                        )
                        if part
                    )
                    style = _DASHES[(0 if len(runs) == 1 else m) % len(_DASHES)]
                    marker = "o" if kind == "validation" else None
                    if kind == "train" and (name == "reward" or name in WATCHED):
                        axes.plot(
                            *zip(*points, strict=True),
                            style,
                            color=colour,
                            alpha=0.25,
                            linewidth=0.8,
                        )
                        points = _smooth(points)
                    axes.plot(
                        *zip(*points, strict=True),
                        style,
                        color=colour,
                        marker=marker,
                        markersize=4,
                        label=label,
                    )
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    axes.set_title(title)
    if all(name in SCORES for name in names):
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each value as the mean of those around it, fewer at the ends."""
    around = round(len(points) * _AROUND)
    windows = [points[max(0, i - around) : i + around + 1] for i in range(len(points))]
    return [
        (step, sum(value for _, value in window) / len(window))
        for (step, _), window in zip(points, windows, strict=True)
    ]
