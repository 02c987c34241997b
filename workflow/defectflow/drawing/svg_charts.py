"""Charts of a report as SVG that takes its colours and its font from the page, so that they follow its light or dark.

matplotlib draws with the stand-in colours of ``THEME``; in the SVG these become the page's CSS variables.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import numpy as np

INK, DIM, GRID, PAPER, GOOD, BAD, NEW = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606", "#070707"
THEME = {INK: "ink", DIM: "dim", GRID: "line", PAPER: "paper", GOOD: "good", BAD: "bad", NEW: "new"}
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of defect types are shown as they are
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": DIM,
    "axes.labelsize": 9,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": DIM,
    "ytick.labelcolor": DIM,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.4,
    "hatch.linewidth": 0.5,
    "hatch.color": DIM,
}
WIDTH = 4.5  # inches; a page shows it at one and a half times that on a screen and at that size on a phone
DOTS = 300  # at most, in a row of the strip chart
SVG = "http://www.w3.org/2000/svg"


def histogram(scores: dict[str, np.ndarray], threshold: float | None, folds: tuple | None, review: tuple | None) -> str:
    """Stacked histogram of raw scores with the threshold.

    Args:
        scores: raw scores by "good", "bad", "no label"; empty ones are left out.
        threshold: for new images, or None.
        folds: (smallest, largest) threshold of the folds, or None.
        review: (low, high) of the scores that go to a person, or None.
    """
    layers = {name: values for name, values in scores.items() if len(values)}
    with _chart(height=3.1, label="Histogram of the anomaly scores") as (drawn, axes):
        axes.set(xlabel="Raw anomaly score", ylabel="Photographs")
        everything = np.concatenate(list(layers.values()))
        edges = np.histogram_bin_edges(everything, bins=int(np.clip(3 * np.sqrt(len(everything)), 20, 50)))
        axes.hist(
            list(layers.values()),
            bins=edges,
            stacked=True,
            color=[{"good": GOOD, "bad": BAD}.get(name, NEW) for name in layers],
            label=[f"{name} ({len(values)})" for name, values in layers.items()],
            edgecolor=PAPER,
            linewidth=0.5,
        )
        _limits(axes, threshold, folds, review)
        axes.grid(axis="x", visible=False)
        axes.yaxis.get_major_locator().set_params(integer=True)
        _legend_above(axes)
    return drawn[0]


def strips(rows: Sequence[tuple[str, np.ndarray]], threshold: float | None, review: tuple | None) -> str:
    """Raw scores one dot each, a row for each kind: (name, scores), "good" in its colour, all others as bad."""
    with _chart(height=0.75 + 0.3 * len(rows), label="Scores by kind of defect") as (drawn, axes):
        axes.set(xlabel="Raw anomaly score", yticks=range(len(rows)), ylim=(len(rows) - 0.4, -0.6))
        axes.set_yticklabels([f"{_short(name)} ({len(scores)})" for name, scores in rows])
        for at, (name, scores) in enumerate(rows):
            ordered = np.sort(scores)
            shown = ordered[np.unique(np.linspace(0, len(ordered) - 1, DOTS).astype(int))]
            colour = GOOD if name == "good" else NEW if name == "no label" else BAD
            spread = at + 0.16 * (np.arange(len(shown)) % 3 - 1)
            axes.plot(shown, spread, "o", ms=4, color=colour, alpha=0.6, mew=0, clip_on=False)
        _limits(axes, threshold, None, review)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
    return drawn[0]


def roc(curves: Sequence[tuple[str, np.ndarray, np.ndarray]], point: tuple | None) -> str:
    """ROC curves of raw scores, the first one in front.

    Args:
        curves: (name, labels, scores) of each; both classes occur.
        point: (false positive rate, recall) of the verdicts, or None.
    """
    from sklearn.metrics import roc_curve

    with _chart(height=3.6, label="ROC curve") as (drawn, axes):
        axes.set(xlabel="Good parts called bad (false positive rate)", ylabel="Bad parts called bad (recall)")
        axes.plot([0, 1], [0, 1], color=DIM, lw=0.8, ls=":", label="chance")
        for front, (name, labels, scores) in reversed(list(enumerate(curves))):
            style = {"color": DIM, "lw": 1.2, "ls": "--"} if front else {"color": INK, "lw": 1.8}
            axes.plot(*roc_curve(labels, scores, drop_intermediate=False)[:2], label=name, **style)
        _point(axes, point)
        _legend_above(axes)
    return drawn[0]


def precision_recall(labels: np.ndarray, scores: np.ndarray, point: tuple | None, name: str) -> str:
    """Precision over recall; ``point`` is (recall, precision) of the verdicts, or None; both classes occur."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)
    with _chart(height=3.6, label="Precision over recall") as (drawn, axes):
        axes.set(xlabel="Bad parts called bad (recall)", ylabel="Called bad and bad (precision)")
        axes.axhline(np.mean(labels), color=DIM, lw=0.8, ls=":", label="everything called bad")
        axes.step(recall, precision, where="post", color=INK, lw=1.8, label=name)
        _point(axes, point)
        _legend_above(axes)
    return drawn[0]


def calibration(bins: Sequence[dict[str, Any]]) -> str:
    """Share of bad images over pred_score: bins with low, high, share_bad, interval ([low, high]) and n > 0."""
    x, y = ([(entry["low"] + entry["high"]) / 2 for entry in bins], [entry["share_bad"] for entry in bins])
    low, high = np.array([entry["interval"] for entry in bins]).T
    with _chart(height=3.6, label="Calibration curve") as (drawn, axes):
        axes.set(xlabel="Score shown (0.5 = threshold)", ylabel="Bad among these photographs")
        axes.axvline(0.5, color=DIM, lw=0.8, ls=":")
        axes.vlines(x, low, high, color=DIM, lw=1)
        axes.plot(x, y, "o-", color=INK, lw=1.4, ms=5)
        for *at, entry in zip(x, y, bins, strict=True):
            axes.annotate(str(entry["n"]), at, (5, 4), textcoords="offset points", color=DIM, fontsize=7.5)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return drawn[0]


def _limits(axes: Any, threshold: float | None, folds: tuple | None, review: tuple | None) -> None:
    if review is not None and review[1] > review[0]:
        axes.axvspan(*review, facecolor="none", edgecolor=DIM, hatch="////", lw=0, zorder=0, label="to a person")
    if folds is not None and folds[1] > folds[0]:
        axes.axvspan(*folds, color=INK, alpha=0.12, lw=0, label="thresholds of the folds")
    if threshold is not None:
        axes.axvline(threshold, color=INK, lw=1.2, ls="--", label=f"threshold {threshold:.4g}")


def _point(axes: Any, point: tuple | None) -> None:
    if point is not None:
        axes.plot(*point, "o", color=BAD, ms=8, mec=PAPER, zorder=5, label="verdicts", clip_on=False)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _legend_above(axes: Any) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.01), ncols=2, borderaxespad=0, columnspacing=1.4)


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


@contextmanager
def _chart(height: float, label: str) -> Iterator[tuple[list[str], Any]]:
    """Axes to draw on; afterwards the list holds the SVG."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn: list[str] = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {"svg.hashsalt": label})
        figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        yield drawn, figure.subplots()
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    drawn.append(_inline(stream.getvalue(), label))


def _inline(svg: str, label: str) -> str:
    """An SVG document as an element of a page: no header, ids or sizes of its own, colours as CSS variables."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(svg)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": label}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
        if parent.tag == f"{{{SVG}}}g":
            parent.attrib.pop("id", None)
    text = re.sub(r" font-family: [^;]*;", "", ElementTree.tostring(root, encoding="unicode"))
    text = re.sub(r">\s+<", "><", text)
    return re.sub("|".join(THEME), lambda found: f"var(--{THEME[found[0]]})", text)
