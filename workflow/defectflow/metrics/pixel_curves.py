"""Curves of pixel scores against ground truth, from maps seen one at a time: memory does not grow with their number.

Scores fall into ``BINS`` equal bins between the smallest and the largest and count as tied within a bin. With 65,536
bins every area differs from the exact one by less than the share of (good, defective) pixel pairs that share a bin, in
practice under 1e-4. What cannot be computed is None, never NaN.
"""

from typing import TypedDict

import cv2
import numpy as np

from defectflow.metrics.metrics import rates

BINS = 1 << 16
AU_PRO_LIMIT = 0.3
AUPIMO_RATES = (1e-5, 1e-4)


class PixelHistogram:
    """Histograms of defect-free and defective pixels by score, from which a pixel threshold is chosen."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.step = float(low), max(float(high) - float(low), 1e-12) / BINS
        self.good = np.zeros(BINS, np.int64)  # defect-free pixels
        self.bad = np.zeros(BINS, np.int64)  # defective pixels

    def add(self, heat: np.ndarray, truth: np.ndarray | None, region: np.ndarray | None = None) -> None:
        """Add one image.

        Args:
            heat: float [H, W], anomaly map.
            truth: bool [H, W], defective pixels; None for a good image.
            region: bool [H, W]; pixels outside are ignored. None: the whole frame.
        """
        if truth is None or not truth.any():
            self.good += self._count(heat if region is None else heat[region])
            return
        self.good += self._count(heat[~truth if region is None else region & ~truth])
        self.bad += self._count(heat[truth if region is None else region & truth])

    def _count(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(_bins(values, self.low, self.step).ravel(), minlength=BINS)

    def best_threshold(self) -> float | None:
        """The threshold with the largest F1, the highest of them on ties; None unless both kinds of pixels occur."""
        good, bad = self.good[::-1].cumsum(), self.bad[::-1].cumsum()
        if not good[-1] or not bad[-1]:
            return None
        best = int(np.argmax(2 * bad / (bad[-1] + bad + good)))
        return self.low + (BINS - 1 - best) * self.step

    def counts_at(self, threshold: float) -> dict[str, int]:
        """Counts of pixels, as of :func:`metrics.confusion`, when those from ``threshold`` on are called defective."""
        first = int(np.clip(round((threshold - self.low) / self.step), 0, BINS))
        fp, tp = int(self.good[first:].sum()), int(self.bad[first:].sum())
        fn, tn = int(self.bad.sum()) - tp, int(self.good.sum()) - fp
        return {"true_negative": tn, "false_positive": fp, "false_negative": fn, "true_positive": tp}


class PixelFigures(TypedDict):
    """Figures of pixels in metrics.json, of a set or of one frame, see `PixelCurves.figures`; None: no such pixels."""

    auroc: float | None
    au_pro: float | None
    au_pro_fpr_limit: float
    au_pro_0_05: float | None
    f1_max: float | None
    f1_max_threshold: float | None
    n_components: int
    defect_pixels: int
    good_pixels: int


class PixelCurves(PixelHistogram):
    """Pixel-level ROC, AU-PRO and F1 of the images added. Curves with the same ``low`` and ``high`` add and subtract.

    AU-PRO as in the MVTec evaluation code (Bergmann et al., IJCV 2021): the mean over all ground-truth components (8
    connected, each with weight one) of the component's share above the threshold, against the false positive rate over
    all defect-free pixels of all images, integrated by trapezoids to a false positive rate of ``limit``, over limit.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__(low, high)
        self.overlap = np.zeros(BINS)  # defective pixels, each weighted by 1 / area of its component
        self.components = 0

    def add(self, heat: np.ndarray, truth: np.ndarray | None, region: np.ndarray | None = None) -> None:
        """Add one image; arguments as of :meth:`PixelHistogram.add`."""
        super().add(heat, truth, region)
        if truth is None or not truth.any():
            return
        defect = truth if region is None else truth & region
        count, component = cv2.connectedComponents(defect.astype(np.uint8), connectivity=8)
        areas = np.bincount(component.ravel(), minlength=count)
        shares = 1.0 / areas[component[defect]]
        self.overlap += np.bincount(_bins(heat[defect], self.low, self.step), weights=shares, minlength=BINS)
        self.components += count - 1

    def __add__(self, other: "PixelCurves") -> "PixelCurves":
        """Curves of the images of both, which must share ``low`` and ``high``."""
        return self._combined(other, 1)

    def __sub__(self, other: "PixelCurves") -> "PixelCurves":
        """Curves without the images of ``other``, all of which must be among those of this one."""
        return self._combined(other, -1)

    def figures(self) -> PixelFigures:
        """auroc, au_pro to a false positive rate of 0.3 and of 0.05, f1_max with its threshold, and the counts."""
        good, bad = self.good[::-1].cumsum(), self.bad[::-1].cumsum()
        n_good, n_bad = int(good[-1]), int(bad[-1])
        best = self.best_threshold()
        result: PixelFigures = {
            "auroc": None,
            "au_pro": None,
            "au_pro_fpr_limit": AU_PRO_LIMIT,
            "au_pro_0_05": None,
            "f1_max": None if best is None else rates(self.counts_at(best))["f1"],
            "f1_max_threshold": best,
            "n_components": self.components,
            "defect_pixels": n_bad,
            "good_pixels": n_good,
        }
        if best is None:
            return result
        result["auroc"] = float(np.trapezoid(np.r_[0.0, bad / n_bad], np.r_[0.0, good / n_good]))
        result["au_pro"], result["au_pro_0_05"] = self.au_pro(AU_PRO_LIMIT), self.au_pro(0.05)
        return result

    def au_pro(self, limit: float) -> float:
        """AU-PRO to the false positive rate ``limit``; there must be pixels of both kinds."""
        fpr = self.good[::-1].cumsum() / self.good.sum()
        overlap = np.minimum(self.overlap[::-1].cumsum() / self.components, 1.0)
        return mean_between(np.r_[0.0, fpr], np.r_[0.0, overlap], 0.0, limit)

    def _combined(self, other: "PixelCurves", sign: int) -> "PixelCurves":
        result = PixelCurves.__new__(PixelCurves)
        result.low, result.step = self.low, self.step
        for name in ("good", "bad", "overlap", "components"):
            setattr(result, name, getattr(self, name) + sign * getattr(other, name))
        return result


class ImageOverlap:
    """AUPIMO: per-image overlap at false positive rates that are acceptable in production; add good images first.

    For each defective image the mean share of its defective pixels that is found, over thresholds whose false positive
    rate is between 1e-5 and 1e-4, evenly in its logarithm. That rate is the mean over good images of the share of
    pixels called defective. Source: J. P. C. Bertoldo et al., AUPIMO, BMVC 2024. In ``BINS`` bins as PixelCurves.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.step = float(low), max(float(high) - float(low), 1e-12) / BINS
        self.good = np.zeros(BINS)  # mean share of the pixels of a good image, times their number
        self.images = 0

    def add_good(self, heat: np.ndarray, region: np.ndarray | None = None) -> None:
        """Add a good image; arguments as of :meth:`PixelHistogram.add`."""
        counts = self._histogram(heat, np.ones(heat.shape, bool) if region is None else region)
        if counts.any():
            self.good += counts / counts.sum()
            self.images += 1

    def score(self, heat: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float | None:
        """AUPIMO of one defective image in [0, 1].

        None without a defective pixel, or if there are too few good pixels to measure a rate of 1e-5.
        """
        found = self._histogram(heat, truth if region is None else truth & region)
        fpr = self.good[::-1].cumsum() / max(self.images, 1)
        seen = fpr > 0
        if not found.any() or not seen.any() or fpr[seen][0] > AUPIMO_RATES[0]:
            return None
        share = (found[::-1].cumsum() / found.sum())[seen]
        return mean_between(np.log(fpr[seen]), share, *np.log(AUPIMO_RATES))

    def _histogram(self, heat: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.bincount(_bins(heat[where], self.low, self.step), minlength=BINS)


def mean_between(x: np.ndarray, y: np.ndarray, low: float, high: float) -> float:
    """Mean of a curve through (x ascending, y) over [low, high]: area by trapezoids, interpolated at the ends."""
    inside = (x > low) & (x < high)
    ends = np.interp([low, high], x, y)
    area = np.trapezoid(np.r_[ends[0], y[inside], ends[1]], np.r_[low, x[inside], high])
    return float(area / (high - low))


def _bins(values: np.ndarray, low: float, step: float) -> np.ndarray:
    return np.clip(((values - low) / step).astype(np.int64), 0, BINS - 1)
