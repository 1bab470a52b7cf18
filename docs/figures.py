"""Draw the figures of the pages on worlds and teachers, from the numbers of docs/log.md.

python docs/figures.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

DOCS = Path(__file__).parent
START, AFTER, THIRD = "#9aa5b1", "#00796b", "#ef6c00"


def bars(
    axes: Any, names: list[str], series: dict[str, list[tuple[float, float, float]]], unit: str
) -> None:
    """Grouped bars of (value, low, high) with whiskers, and each value above its bar."""
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        places = [at + width * (number - (len(series) - 1) / 2) for at in range(len(names))]
        color = (START, AFTER, THIRD)[number]
        axes.bar(places, [value for value, _, _ in values], width * 0.92, label=name, color=color)
        for place, (value, low, high) in zip(places, values, strict=True):
            if low < high:
                axes.plot([place, place], [low, high], color="#333333", linewidth=1.2)
            shown = f"{value:,.5g}"
            axes.annotate(shown, (place, high), (0, 3), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel(unit)
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    legend(axes)


def legend(axes: Any) -> None:
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def plain(*values: float) -> list[tuple[float, float, float]]:
    return [(value, value, value) for value in values]


def simulated(axes: Any) -> None:
    before, now = plain(4502, 4876, 8819), plain(18669, 17983, 28704)
    names = ["Seal-Tools", "API-Bank", "ToolBench"]
    bars(axes, names, {"before": before, "now": now}, "calls a second and core")


def failures(axes: Any) -> None:
    series = {
        "start": [(46.0, 44.5, 48.5), (3.3, 0.0, 9.9)],
        "credit by episode": [(98.0, 97.0, 99.5), (99.0, 98.3, 99.7)],
        "credit by turn": [(98.2, 97.0, 99.0), (98.9, 98.4, 99.7)],
    }
    bars(axes, ["tasks solved", "failed calls made again"], series, "% (least to most of 3 seeds)")


def best_episodes(axes: Any) -> None:
    rewards = [0.421, 0.521, 0.514, 0.594, 0.609, 0.606, 0.583, 0.573]
    axes.plot(range(1, 9), rewards, "o-", color=START, label="mean reward of the episodes")
    axes.plot(
        [2, 4, 6, 8], [0.44, 0.54, 0.55, 0.57], "s-", color=AFTER, label="exact match (n 100)"
    )
    axes.set_xlabel("round")
    axes.set_ylim(0, 0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylabel("from 0 to 1")
    legend(axes)


def plain_text(axes: Any) -> None:
    series = {
        "before": plain(14.3),
        "same steps, no calls": [(13.3, 12.0, 15.0)],
        "same steps, kept calls": [(69.2, 68.7, 70.0)],
    }
    bars(axes, ["right continuations"], series, "% (least to most of 3 seeds)")


def stronger_model(axes: Any) -> None:
    series = {"replies": plain(14, 8, 8), "rows": plain(0, 3, 2)}
    names = ["SmolLM2-135M", "SmolLM2-135M,\nwith the schema", "gemma-3-270m,\nwith the schema"]
    bars(axes, names, series, "number")


def baking(axes: Any) -> None:
    series = {
        "before, full prompt": [(40.3, 37.3, 43.4), (97.0, 93.6, 98.6)],
        "baked, short prompt": [(39.9, 36.9, 43.0), (87.5, 82.2, 91.4)],
    }
    names = ["the 64 tools\n505 and 16 prompt tokens", "a new tool\n513 and 29 prompt tokens"]
    bars(axes, names, series, "exact match in % (95 %)")


FIGURES: dict[str, Callable[[Any], None]] = {
    "worlds/simulated.png": simulated,
    "worlds/failures.png": failures,
    "teachers/best-episodes.png": best_episodes,
    "teachers/plain-text.png": plain_text,
    "teachers/stronger-model.png": stronger_model,
    "baking.png": baking,
}


def main() -> None:
    for name, draw in FIGURES.items():
        figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
        draw(axes)
        figure.savefig(DOCS / name, dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    main()
