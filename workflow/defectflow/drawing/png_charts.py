"""Charts of an evaluation as PNG files, one style, the same bytes for the same data."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from defectflow.core.files import atomic

GOOD, BAD, LINE, MUTED = "#0072B2", "#D55E00", "#222222", "#8A8F98"
# Okabe & Ito, Color Universal Design (2008): distinct with any colour vision.
DEFECT_COLOURS = ["#D55E00", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#56B4E9", "#7A4B9C"]
STYLE = {
    "figure.figsize": (6.0, 4.5),
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "grid.color": "#E6E8EB",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "xtick.color": LINE,
    "ytick.color": LINE,
}


def roc(path: Path, labels: np.ndarray, scores: np.ndarray, point: tuple | None, caption: str, other: dict) -> None:
    """ROC curve of raw scores.

    Args:
        labels, scores: [N].
        point: (false positive rate, recall) of the verdicts, or None.
        caption: legend entry of the curve.
        other: legend entry -> (labels, scores) of further curves.
    """
    from sklearn.metrics import roc_curve

    with _figure(path) as (_, axes):
        axes.set(title="ROC", xlabel="False positive rate (good called bad)", ylabel="Recall (bad called bad)")
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":", label="chance")
        if len(np.unique(labels)) < 2:
            _no_data(axes, "needs good and bad images")
            return
        for name, (y, s) in other.items():
            axes.plot(*roc_curve(y, s, drop_intermediate=False)[:2], color=MUTED, lw=1.5, ls="--", label=name)
        axes.plot(*roc_curve(labels, scores, drop_intermediate=False)[:2], color=GOOD, lw=2, label=caption)
        if point is not None:
            axes.plot(*point, "o", color=BAD, ms=8, mec="white", zorder=5, label="verdicts", clip_on=False)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.legend(loc="lower right")


def precision_recall(path: Path, labels: np.ndarray, scores: np.ndarray, point: tuple | None, caption: str) -> None:
    """Precision over recall; ``point`` is (recall, precision) of the verdicts, or None."""
    from sklearn.metrics import precision_recall_curve

    with _figure(path) as (_, axes):
        axes.set(title="Precision and recall", xlabel="Recall (bad called bad)", ylabel="Precision (called bad is bad)")
        if len(np.unique(labels)) < 2:
            _no_data(axes, "needs good and bad images")
            return
        precision, recall, _ = precision_recall_curve(labels, scores)
        axes.axhline(np.mean(labels), color=MUTED, lw=1, ls=":", label="everything called bad")
        axes.step(recall, precision, where="post", color=GOOD, lw=2, label=caption)
        if point is not None:
            axes.plot(*point, "o", color=BAD, ms=8, mec="white", zorder=5, label="verdicts", clip_on=False)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
        axes.legend(loc="lower left")


def score_histogram(
    path: Path,
    scores: np.ndarray,
    kinds: list[str],
    threshold: float | None,
    band: tuple | None,
    review: tuple | None = None,
) -> None:
    """Stacked histogram of raw scores by kind ("good", "unlabelled" or a defect type) with the threshold.

    Args:
        scores: float [N].
        kinds: N names.
        threshold: the threshold for new images, or None.
        band: (smallest, largest) threshold of the folds, or None.
        review: (low, high) of the scores that go to a person, or None.
    """
    with _figure(path) as (_, axes):
        axes.set(title="Anomaly scores", xlabel="Raw anomaly score", ylabel="Images")
        if not len(scores):
            _no_data(axes, "no scored image")
            return
        counts = {name: kinds.count(name) for name in dict.fromkeys(kinds)}
        types = sorted((n for n in counts if n not in ("good", "unlabelled")), key=lambda n: (-counts[n], n))
        shown = types if len(types) <= len(DEFECT_COLOURS) else types[: len(DEFECT_COLOURS) - 1]
        rest = [n for n in types if n not in shown]
        layers = [("good", ["good"], GOOD), *((n, [n], c) for n, c in zip(shown, DEFECT_COLOURS, strict=False))]
        layers += [(f"{len(rest)} other types", rest, DEFECT_COLOURS[-1]), ("unlabelled", ["unlabelled"], "#D0D4DA")]
        layers = [(n, [k in names for k in kinds], c) for n, names, c in layers if any(k in names for k in kinds)]
        edges = np.histogram_bin_edges(scores, bins=int(np.clip(3 * np.sqrt(len(scores)), 24, 60)))
        axes.hist(
            [scores[mask] for _, mask, _ in layers],
            bins=edges,
            stacked=True,
            color=[c for *_, c in layers],
            label=[f"{n} ({sum(mask)})" for n, mask, _ in layers],
            edgecolor="white",
            linewidth=0.6,
        )
        if review is not None and review[1] > review[0]:
            axes.axvspan(*review, facecolor="none", edgecolor=MUTED, hatch="///", lw=0, zorder=0, label="to a person")
        if band is not None and band[1] > band[0]:
            axes.axvspan(*band, color=LINE, alpha=0.10, lw=0, label="thresholds of the folds")
        if threshold is not None:
            axes.axvline(threshold, color=LINE, lw=1.5, ls="--", label=f"threshold {threshold:.4g}")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)


def confusion_matrix(path: Path, counts: dict[str, Any]) -> None:
    """Confusion matrix with counts and the share of each row; ``counts`` as ``metrics.confusion`` returns them."""
    matrix = np.array(
        [
            [counts["true_negative"], counts["false_positive"]],
            [counts["false_negative"], counts["true_positive"]],
        ]
    )
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    with _figure(path, figsize=(4.6, 4.2)) as (_, axes):
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1.25)
        for (row, column), count in np.ndenumerate(matrix):
            dark = share[row, column] > 0.6
            colour = "white" if dark else LINE
            axes.text(column, row - 0.06, str(count), ha="center", va="center", color=colour, fontsize=22)
            kind = "bad" if row else "good"
            text = f"{share[row, column]:.0%} of {kind}" if matrix[row].any() else f"no {kind} one"
            axes.text(column, row + 0.22, text, ha="center", va="center", color=colour, fontsize=9)
        axes.set_title("Verdicts, held out")
        axes.set_xticks([0, 1], ["called good", "called bad"])
        axes.set_yticks([0, 1], ["good", "bad"])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)


@contextmanager
def _figure(path: Path, **options: Any) -> Iterator[tuple[Any, Any]]:
    """One chart in the house style, whatever the user's matplotlibrc says, saved without date or version."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(layout="constrained", **options)
        FigureCanvasAgg(figure)
        yield figure, figure.subplots()
        with atomic(path) as temporary:
            figure.savefig(temporary, metadata={"Software": None})


def _no_data(axes: Any, why: str) -> None:
    axes.text(0.5, 0.5, f"not computable: {why}", ha="center", va="center", color=MUTED, transform=axes.transAxes)
