"""The confusion matrix of any number of classes as a chart."""

from typing import TYPE_CHECKING

import numpy as np

from defectflow.drawing.histograms_and_curves import Chart, Colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 14  # characters of a name on the x axis


def confusion_chart(names: list[str], counts: np.ndarray) -> Chart:
    """Confusion matrix of any number of classes.

    Args:
        names: the classes.
        counts: int (k, k), row: true class, column: predicted class.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(axes: "Axes", colours: Colours) -> None:
        from matplotlib.patches import Rectangle

        for (row, column), count in np.ndenumerate(counts):
            shade, part = colours.good if row == column else colours.bad, float(share[row, column])
            corner = (column - 0.48, row - 0.48)
            axes.add_patch(Rectangle(corner, 0.96, 0.96, color=shade, alpha=0.05 + 0.86 * part, lw=0))
            if count:
                ink = colours.paper if part > 0.5 else colours.ink
                axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=9)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), xlabel="called", ylabel="is")
        short = [name if len(name) <= MOST else name[: MOST - 1] + "…" for name in names]
        axes.set_xticks(range(len(names)), short, rotation=40, ha="right")
        axes.set_yticks(range(len(names)), [f"{name} ({n})" for name, n in zip(short, counts.sum(axis=1), strict=True)])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)

    size = 1.6 + 0.42 * len(names)
    return Chart("Kinds, held out", size, draw, width=size + 0.6)
