"""Charts of a card: the Lorenz curve of the classes, and strips of a measurement by class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from defectflow.dataset_card.balance import gini, lorenz
from defectflow.dataset_card.photographs import GOOD, NO_LABEL
from defectflow.drawing.histograms_and_curves import Chart, Colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOTS = 300  # at most, of a class
ROWS = 12  # classes


def lorenz_chart(counts: Sequence[int]) -> Chart:
    """The Lorenz curve of the classes, with the line of equal numbers."""
    x, y = lorenz(counts)

    def draw(axes: "Axes", colours: Colours) -> None:
        axes.set(xlabel="Share of the classes, the smallest first", ylabel="Share of the photographs")
        axes.plot([0, 1], [0, 1], color=colours.dim, lw=0.8, ls=":", label="all classes alike")
        axes.fill_between(x, y, x, color=colours.ink, alpha=0.08, lw=0)
        axes.plot(x, y, "o-", color=colours.ink, lw=1.8, ms=4, label=f"Gini {gini(counts):.2f}", clip_on=False)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.01), ncols=2, borderaxespad=0, columnspacing=1.4)

    return Chart("Lorenz curve of the classes", 3.2, draw)


def strips(title: str, label: str, rows: Sequence[tuple[str, np.ndarray]]) -> Chart:
    """A measurement, one dot a photograph, in a row for each class with a line at its median.

    Args:
        title: of the chart.
        label: of the axis.
        rows: class and float values of each; none is empty.
    """
    shown = rows[:ROWS]

    def draw(axes: "Axes", colours: Colours) -> None:
        axes.set(xlabel=label, yticks=range(len(shown)), ylim=(len(shown) - 0.4, -0.6))
        names = [name if len(name) <= 18 else f"{name[:17]}…" for name, _ in shown]
        axes.set_yticklabels([f"{name} ({len(values)})" for name, (_, values) in zip(names, shown, strict=True)])
        for at, (name, values) in enumerate(shown):
            kind = {GOOD: "good", NO_LABEL: "no label"}.get(name, "bad")
            ordered = np.sort(values)
            some = ordered[np.unique(np.linspace(0, len(ordered) - 1, DOTS).astype(int))]
            spread = at + 0.16 * (np.arange(len(some)) % 3 - 1)
            axes.plot(some, spread, "o", ms=4, color=colours.of(kind), alpha=0.5, mew=0, clip_on=False)
            axes.vlines(np.median(values), at - 0.32, at + 0.32, color=colours.ink, lw=1.6)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)

    return Chart(title, 0.75 + 0.34 * len(shown), draw)
