"""Figures of merit of an inspector: image level, pixel level, and how sure they are.

Labels are 1 (bad) or 0 (good); scores are raw anomaly scores, larger = more anomalous; an image is called bad when
``score >= threshold``. What cannot be computed is None, never NaN.
"""

import math
from typing import Any

import cv2
import numpy as np

BINS = 1 << 16


def auroc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve, in [0, 1]; None unless both classes occur. Ties count one half."""
    from sklearn.metrics import roc_auc_score

    if len(np.unique(labels)) < 2:
        return None
    return float(roc_auc_score(labels, scores))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Average precision (step-wise area under the precision-recall curve); None unless both classes occur."""
    from sklearn.metrics import average_precision_score

    if len(np.unique(labels)) < 2:
        return None
    return float(average_precision_score(labels, scores))


def confusion(labels: np.ndarray, predicted: np.ndarray) -> dict[str, int]:
    """Counts of true negatives, false positives, false negatives, true positives (positive = bad)."""
    labels, predicted = np.asarray(labels) == 1, np.asarray(predicted) == 1
    return {
        "true_negative": int((~labels & ~predicted).sum()),
        "false_positive": int((~labels & predicted).sum()),
        "false_negative": int((labels & ~predicted).sum()),
        "true_positive": int((labels & predicted).sum()),
    }


def rates(counts: dict[str, int]) -> dict[str, float | None]:
    """Rates in [0, 1] from :func:`confusion`; a rate whose denominator is zero is None."""
    tn, fp, fn, tp = (counts[key] for key in ("true_negative", "false_positive", "false_negative", "true_positive"))
    recall, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    return {
        "accuracy": ratio(tp + tn, tn + fp + fn + tp),
        "precision": ratio(tp, tp + fp),
        "recall": recall,
        "f1": ratio(2 * tp, 2 * tp + fp + fn) if tp + fn else None,
        "specificity": specificity,
        "false_positive_rate": ratio(fp, tn + fp),
        "false_negative_rate": ratio(fn, tp + fn),
        "balanced_accuracy": None if recall is None or specificity is None else (recall + specificity) / 2,
    }


def ratio(part: float, whole: float) -> float | None:
    """part / whole, or None when whole is 0."""
    return part / whole if whole else None


def wilson(successes: int, n: int, z: float = 1.959963984540054) -> list[float] | None:
    """Wilson score interval [low, high] of a proportion (95 % by default); None when n is 0.

    Source: E. B. Wilson, JASA 22 (1927).
    """
    if not n:
        return None
    p, z2 = successes / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return [0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half]


def bootstrap_auroc(
    labels: np.ndarray, scores: np.ndarray, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> list[float] | None:
    """Percentile interval [low, high] of the AUROC, good and bad images resampled apart (stratified bootstrap).

    None unless both classes occur. The cost is O(resamples x N).
    """
    labels = np.asarray(labels)
    _, rank = np.unique(np.asarray(scores), return_inverse=True)
    good, bad = rank[labels == 0], rank[labels == 1]
    if not len(good) or not len(bad):
        return None
    rng = np.random.default_rng(seed)
    size = int(rank.max()) + 1
    areas = np.empty(resamples)
    for i in range(resamples):
        n_good = np.bincount(good[rng.integers(len(good), size=len(good))], minlength=size)
        n_bad = np.bincount(bad[rng.integers(len(bad), size=len(bad))], minlength=size)
        # Pairs won by the bad image, and half of the tied ones, in halves to stay in integers.
        areas[i] = int((n_bad * (2 * n_good.cumsum() - n_good)).sum()) / (2 * len(good) * len(bad))
    tail = (1 - level) / 2
    return [float(v) for v in np.quantile(areas, [tail, 1 - tail])]


class PixelCurves:
    """Pixel-level curves from maps seen one at a time: memory does not grow with the number of images.

    Scores fall into ``BINS`` equal bins between ``low`` and ``high`` and count as tied within a bin. With 65,536 bins
    every area below differs from the exact one by less than the share of (good, defective) pixel pairs that share a
    bin, in practice under 1e-4.

    AU-PRO as in the MVTec evaluation code (Bergmann et al., IJCV 2021): the mean over all ground-truth components (8
    connected, each with weight one) of the component's share above the threshold, against the false positive rate over
    all defect-free pixels of all images, integrated by trapezoids to a false positive rate of ``limit``, over limit.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.step = float(low), max(float(high) - float(low), 1e-12) / BINS
        self.good = np.zeros(BINS, np.int64)  # defect-free pixels
        self.bad = np.zeros(BINS, np.int64)  # defective pixels
        self.overlap = np.zeros(BINS)  # defective pixels, each weighted by 1 / area of its component
        self.components = 0

    def add(self, heat: np.ndarray, truth: np.ndarray | None, region: np.ndarray | None = None) -> None:
        """Add one image.

        Args:
            heat: float [H, W], anomaly map.
            truth: bool [H, W], defective pixels; None for a good image.
            region: bool [H, W]; pixels outside count neither way. None: the whole frame.
        """
        index = np.clip(((heat - self.low) / self.step).astype(np.int64), 0, BINS - 1)
        inside = np.ones(heat.shape, bool) if region is None else region
        if truth is None or not truth.any():
            self.good += np.bincount(index[inside], minlength=BINS)
            return
        self.good += np.bincount(index[inside & ~truth], minlength=BINS)
        defect = truth & inside
        self.bad += np.bincount(index[defect], minlength=BINS)
        count, component = cv2.connectedComponents(defect.astype(np.uint8), connectivity=8)
        areas = np.bincount(component.ravel(), minlength=count)
        self.overlap += np.bincount(index[defect], weights=1.0 / areas[component[defect]], minlength=BINS)
        self.components += count - 1

    def figures(self, limit: float = 0.3) -> dict[str, Any]:
        """auroc, au_pro (to the false positive rate ``limit``), f1_max with its threshold, and the counts."""
        good, bad = self.good[::-1].cumsum(), self.bad[::-1].cumsum()
        n_good, n_bad = int(good[-1]), int(bad[-1])
        result = {
            "auroc": None,
            "au_pro": None,
            "au_pro_fpr_limit": limit,
            "f1_max": None,
            "f1_max_threshold": None,
            "n_components": self.components,
            "defect_pixels": n_bad,
            "good_pixels": n_good,
        }
        if not n_good or not n_bad:
            return result
        used = (self.good + self.bad)[::-1] > 0
        fpr = np.concatenate([[0.0], good[used] / n_good])
        tpr = np.concatenate([[0.0], bad[used] / n_bad])
        pro = np.concatenate([[0.0], np.minimum(self.overlap[::-1].cumsum()[used] / self.components, 1.0)])
        f1 = 2 * bad / (n_bad + bad + good)
        best = int(np.argmax(f1))
        result["auroc"] = float(np.trapezoid(tpr, fpr))
        result["au_pro"] = area_to_limit(fpr, pro, limit)
        result["f1_max"] = float(f1[best])
        result["f1_max_threshold"] = self.low + (BINS - 1 - best) * self.step
        return result


def area_to_limit(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Trapezoidal area under (x ascending, y) for x <= limit, interpolated at the limit, divided by the limit."""
    keep = x <= limit
    end = np.interp(limit, x, y)
    return float(np.trapezoid(np.append(y[keep], end), np.append(x[keep], limit)) / limit)
