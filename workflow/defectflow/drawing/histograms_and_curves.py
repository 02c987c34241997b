"""What the charts of a run show. `chart_files` makes PNG files of them, and SVG for pages.

Each function returns a `Chart`, which draws itself on matplotlib's axes in the colours it is given: a page's own, or
those of a PNG file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOTS = 300  # at most, in a row of the strip chart


class Colours(NamedTuple):
    """Colours by use: text, secondary text, grid lines, background, and three kinds of photographs."""

    ink: str
    dim: str
    line: str
    paper: str
    good: str
    bad: str
    new: str

    def of(self, kind: str) -> str:
        """Colour of photographs: "good", "no label", or any name of bad ones."""
        return {"good": self.good, "no label": self.new}.get(kind, self.bad)


@dataclass(frozen=True)
class Chart:
    """A chart that can be drawn.

    Attributes:
        title: printed above a PNG, and read by screen readers on a page.
        height, width: inches; a page shows it 1.5 times as large on a screen, and at that size on a phone.
        draw: draws on a matplotlib Axes.
    """

    title: str
    height: float
    draw: Callable[["Axes", Colours], None]
    width: float = 4.5


def score_histogram(
    scores: Mapping[str, np.ndarray],
    threshold: float | None,
    folds: tuple[float, float] | None,
    review: tuple[float, float] | None,
) -> Chart:
    """Stacked histogram of raw scores with the threshold.

    Args:
        scores: raw scores by "good", "bad", "no label"; empty arrays are skipped, at least one is not empty.
        threshold: for new images, or None.
        folds: (smallest, largest) threshold of the folds, or None.
        review: (low, high) of the scores that go to a person, or None.
    """
    layers = {name: values for name, values in scores.items() if len(values)}
    everything = np.concatenate(list(layers.values()))
    edges = np.histogram_bin_edges(everything, bins=int(np.clip(3 * np.sqrt(len(everything)), 20, 50))).tolist()

    def draw(axes: "Axes", colours: Colours) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.set(xlabel="Raw anomaly score", ylabel="Photographs")
        axes.hist(
            list(layers.values()),
            bins=edges,
            stacked=True,
            color=[colours.of(name) for name in layers],
            label=[f"{name} ({len(values)})" for name, values in layers.items()],
            edgecolor=colours.paper,
            linewidth=0.5,
        )
        _limits(axes, colours, threshold, folds, review)
        axes.grid(axis="x", visible=False)
        locator = axes.yaxis.get_major_locator()
        assert isinstance(locator, MaxNLocator), "matplotlib's default"
        locator.set_params(integer=True)
        _legend_above(axes)

    return Chart("Histogram of the anomaly scores", 3.1, draw)


def scores_by_kind(
    rows: Sequence[tuple[str, np.ndarray]], threshold: float | None, review: tuple[float, float] | None
) -> Chart:
    """Strip chart of raw scores, one dot each, with a row (name, scores) for each kind, see `Colours.of`."""

    def draw(axes: "Axes", colours: Colours) -> None:
        axes.set(xlabel="Raw anomaly score", yticks=range(len(rows)), ylim=(len(rows) - 0.4, -0.6))
        axes.set_yticklabels([f"{_short(name)} ({len(scores)})" for name, scores in rows])
        for at, (name, scores) in enumerate(rows):
            ordered = np.sort(scores)
            shown = ordered[np.unique(np.linspace(0, len(ordered) - 1, DOTS).astype(int))]
            spread = at + 0.16 * (np.arange(len(shown)) % 3 - 1)
            axes.plot(shown, spread, "o", ms=4, color=colours.of(name), alpha=0.6, mew=0, clip_on=False)
        _limits(axes, colours, threshold, None, review)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)

    return Chart("Scores by kind of defect", 0.75 + 0.3 * len(rows), draw)


def roc(curves: Sequence[tuple[str, np.ndarray, np.ndarray]], point: tuple[float, float] | None) -> Chart:
    """ROC curves of raw scores, the first one in front.

    Args:
        curves: (name, labels, scores) of each; both classes occur.
        point: (false positive rate, recall) of the verdicts, or None.
    """
    from sklearn.metrics import roc_curve

    lines = [(name, *roc_curve(labels, scores, drop_intermediate=False)[:2]) for name, labels, scores in curves]

    def draw(axes: "Axes", colours: Colours) -> None:
        axes.set(xlabel="Good parts called bad (false positive rate)", ylabel="Bad parts called bad (recall)")
        axes.plot([0, 1], [0, 1], color=colours.dim, lw=0.8, ls=":", label="chance")
        for front, (name, x, y) in reversed(list(enumerate(lines))):
            style: dict[str, Any] = (
                {"color": colours.dim, "lw": 1.2, "ls": "--"} if front else {"color": colours.ink, "lw": 1.8}
            )
            axes.plot(x, y, label=name, **style)
        _point(axes, colours, point)
        _legend_above(axes)

    return Chart("ROC curve", 3.6, draw)


def precision_recall(labels: np.ndarray, scores: np.ndarray, point: tuple[float, float] | None, name: str) -> Chart:
    """Precision over recall; ``point`` is (recall, precision) of the verdicts, or None; both classes occur."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)

    def draw(axes: "Axes", colours: Colours) -> None:
        axes.set(xlabel="Bad parts called bad (recall)", ylabel="Called bad and bad (precision)")
        axes.axhline(np.mean(labels), color=colours.dim, lw=0.8, ls=":", label="everything called bad")
        axes.step(recall, precision, where="post", color=colours.ink, lw=1.8, label=name)
        _point(axes, colours, point)
        _legend_above(axes)

    return Chart("Precision over recall", 3.6, draw)


def calibration_curve(bins: Sequence[Mapping[str, Any]]) -> Chart:
    """Share of bad images over pred_score: bins with low, high, share_bad, interval ([low, high]) and n > 0."""
    x, y = ([(entry["low"] + entry["high"]) / 2 for entry in bins], [entry["share_bad"] for entry in bins])
    low, high = np.array([entry["interval"] for entry in bins]).T

    def draw(axes: "Axes", colours: Colours) -> None:
        axes.set(xlabel="Score shown (0.5 = threshold)", ylabel="Bad among these photographs")
        axes.axvline(0.5, color=colours.dim, lw=0.8, ls=":")
        axes.vlines(x, low, high, color=colours.dim, lw=1)
        axes.plot(x, y, "o-", color=colours.ink, lw=1.4, ms=5)
        for score, share, entry in zip(x, y, bins, strict=True):
            at = (score, share)
            axes.annotate(str(entry["n"]), at, (5, 4), textcoords="offset points", color=colours.dim, fontsize=7.5)
        _unit_square(axes)

    return Chart("Calibration curve", 3.6, draw)


def confusion_matrix(counts: Mapping[str, int]) -> Chart:
    """Counts and the share of each row; ``counts`` as ``metrics.confusion`` returns them."""
    matrix = np.array(
        [
            [counts["true_negative"], counts["false_positive"]],
            [counts["false_negative"], counts["true_positive"]],
        ]
    )
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)

    def draw(axes: "Axes", colours: Colours) -> None:
        from matplotlib.patches import Rectangle

        for (row, column), count in np.ndenumerate(matrix):
            shade = colours.good if row == column else colours.bad
            corner = (column - 0.49, row - 0.49)
            axes.add_patch(Rectangle(corner, 0.98, 0.98, color=shade, alpha=0.06 + 0.86 * share[row, column], lw=0))
            ink = colours.paper if share[row, column] > 0.5 else colours.ink
            axes.text(column, row - 0.06, str(count), ha="center", va="center", color=ink, fontsize=20)
            kind = "bad" if row else "good"
            text = f"{share[row, column]:.0%} of {kind}" if matrix[row].any() else f"no {kind} one"
            axes.text(column, row + 0.22, text, ha="center", va="center", color=ink, fontsize=8.5)
        axes.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5))
        axes.set_xticks([0, 1], ["called good", "called bad"])
        axes.set_yticks([0, 1], ["good", "bad"])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)

    return Chart("Verdicts, held out", 3.4, draw, width=3.6)


def notice(title: str, why: str) -> Chart:
    """An empty chart that says why it cannot be computed."""

    def draw(axes: "Axes", colours: Colours) -> None:
        text = f"not computable: {why}"
        axes.text(0.5, 0.5, text, ha="center", va="center", color=colours.dim, transform=axes.transAxes)
        axes.set_axis_off()

    return Chart(title, 2.0, draw)


def _limits(
    axes: "Axes",
    colours: Colours,
    threshold: float | None,
    folds: tuple[float, float] | None,
    review: tuple[float, float] | None,
) -> None:
    if review is not None and review[1] > review[0]:
        axes.axvspan(
            *review, facecolor="none", edgecolor=colours.dim, hatch="////", lw=0, zorder=0, label="to a person"
        )
    if folds is not None and folds[1] > folds[0]:
        axes.axvspan(*folds, color=colours.ink, alpha=0.12, lw=0, label="thresholds of the folds")
    if threshold is not None:
        axes.axvline(threshold, color=colours.ink, lw=1.2, ls="--", label=f"threshold {threshold:.4g}")


def _point(axes: "Axes", colours: Colours, point: tuple[float, float] | None) -> None:
    if point is not None:
        axes.plot(*point, "o", color=colours.bad, ms=8, mec=colours.paper, zorder=5, label="verdicts", clip_on=False)
    _unit_square(axes)


def _unit_square(axes: "Axes") -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _legend_above(axes: "Axes") -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.01), ncols=2, borderaxespad=0, columnspacing=1.4)


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def width_profile(title: str, widths: np.ndarray, mean: np.ndarray, tolerance: np.ndarray) -> Chart:
    """Outline of a part in the tolerance band of good parts, and where it leaves that.

    Args:
        title: of the chart.
        widths: float (stations, 2), how far the part reaches to either side of its axis, in pixels.
        mean: of good parts, likewise.
        tolerance: half of the band's width, likewise.
    """
    shown = np.flatnonzero((widths.max(axis=1) > 0.5) | (mean.max(axis=1) > 0.5))
    rows = slice(shown[0], shown[-1] + 1) if len(shown) else slice(0, len(mean))
    along = np.arange(len(mean))[rows] - (len(mean) - 1) / 2

    def draw(axes: "Axes", colours: Colours) -> None:
        axes.set(xlabel="Across the axis, pixels", ylabel="Along the axis, pixels")
        axes.invert_yaxis()
        for side, sign in enumerate((-1, 1)):
            own, usual, half = (values[rows, side] for values in (widths, mean, tolerance))
            band = sign * np.maximum(usual - half, 0), sign * (usual + half)
            axes.fill_betweenx(
                along, *band, color=colours.good, alpha=0.3, linewidth=0, label="_" * side + "good parts"
            )
            axes.plot(sign * own, along, color=colours.ink, linewidth=0.8, label="_" * side + "this part")
            outside = np.where(np.abs(own - usual) > half, sign * own, np.nan)
            axes.plot(outside, along, color=colours.bad, linewidth=2.2, label="_" * side + "outside the band")
        axes.legend(loc="center", frameon=False)

    return Chart(title, 4.5, draw)
