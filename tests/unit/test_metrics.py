import cv2
import numpy as np
import pytest
from defectflow import metrics
from defectflow.metrics import PixelCurves, bootstrap_auroc, confusion, rates, wilson
from sklearn.metrics import f1_score, precision_recall_curve, roc_auc_score


def literal_au_pro(heats, truths, limit=0.3, regions=None):
    """AU-PRO by its definition: one threshold after another, one component after another. Slow."""
    regions = regions or [np.ones(h.shape, bool) for h in heats]
    components = []
    for heat, truth, region in zip(heats, truths, regions, strict=True):
        count, labels = cv2.connectedComponents((truth & region).astype(np.uint8), connectivity=8)
        components += [heat[labels == i] for i in range(1, count)]
    good = np.concatenate([h[~t & r] for h, t, r in zip(heats, truths, regions, strict=True)])
    levels = np.unique(np.concatenate([h.ravel() for h in heats]))[::-1]
    x = np.array([0.0] + [(good >= level).mean() for level in levels])
    y = np.array([0.0] + [np.mean([(c >= level).mean() for c in components]) for level in levels])
    area = 0.0
    for x0, x1, y0, y1 in zip(x, x[1:], y, y[1:], strict=False):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def pictures(seed=0, n=5, size=24, levels=None):
    """Maps that see defects in part, and their ground truth; the last picture is good."""
    rng = np.random.default_rng(seed)
    heats, truths = [], []
    for i in range(n):
        truth = np.zeros((size, size), np.uint8)
        if i < n - 1:
            for _ in range(1 + i % 3):
                centre = tuple(int(v) for v in rng.integers(3, size - 3, 2))
                cv2.circle(truth, centre, int(rng.integers(1, 4)), 1, -1)
        heat = rng.normal(0, 1, truth.shape) + 1.2 * truth
        heats.append((np.round(heat * levels) / levels if levels else heat).astype(np.float32))
        truths.append(truth > 0)
    return heats, truths


def curves(heats, truths, regions=None):
    result = PixelCurves(min(h.min() for h in heats), max(h.max() for h in heats))
    for i, (heat, truth) in enumerate(zip(heats, truths, strict=True)):
        result.add(heat, truth if truth.any() else None, regions[i] if regions else None)
    return result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_au_pro_equals_the_literal_definition(seed, levels, limit):
    heats, truths = pictures(seed, levels=levels)
    found = curves(heats, truths).figures(limit)
    assert found["au_pro"] == pytest.approx(literal_au_pro(heats, truths, limit), abs=3e-5 / limit)


def test_au_pro_equals_anomalibs():
    import torch
    from anomalib.metrics.aupro import _AUPRO

    heats, truths = pictures(7, n=6, size=48)
    theirs = _AUPRO(fpr_limit=0.3)
    theirs.update(torch.tensor(np.stack(heats)), torch.tensor(np.stack(truths)).int())
    assert curves(heats, truths).figures()["au_pro"] == pytest.approx(float(theirs.compute()), abs=2e-4)


def test_pixel_auroc_and_f1_max_equal_sklearn():
    heats, truths = pictures(2)
    pixels, labels = np.concatenate([h.ravel() for h in heats]), np.concatenate([t.ravel() for t in truths])
    found = curves(heats, truths).figures()
    precision, recall, _ = precision_recall_curve(labels, pixels)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, pixels), abs=1e-4)
    assert found["f1_max"] == pytest.approx((2 * precision * recall / (precision + recall + 1e-12)).max(), abs=1e-3)
    assert f1_score(labels, pixels >= found["f1_max_threshold"]) == pytest.approx(found["f1_max"], abs=1e-3)
    assert found["defect_pixels"] == labels.sum() and found["good_pixels"] == (~labels).sum()


def test_pixels_outside_the_region_count_neither_way():
    heats, truths = pictures(4)
    region = np.zeros(heats[0].shape, bool)
    region[4:20, 2:18] = True
    inside = curves(heats, truths, [region] * len(heats)).figures()
    cut = [np.where(region, h, -9.0).astype(np.float32) for h in heats]
    labels = np.concatenate([t[region] for t in truths])
    assert inside["auroc"] == pytest.approx(roc_auc_score(labels, np.concatenate([h[region] for h in heats])), abs=1e-4)
    assert inside["au_pro"] == pytest.approx(literal_au_pro(heats, truths, 0.3, [region] * len(heats)), abs=1e-4)
    # A background of easy zeros flatters the full frame: why both are reported.
    assert curves(cut, [t & region for t in truths]).figures()["auroc"] > inside["auroc"]


def test_perfect_and_useless_maps():
    truth = np.zeros((30, 30), bool)
    truth[10:15, 10:15] = True
    perfect = curves([truth.astype(np.float32)], [truth]).figures()
    assert perfect["auroc"] == perfect["f1_max"] == 1.0
    assert perfect["au_pro"] == pytest.approx(1.0)
    constant = curves([np.ones((30, 30), np.float32)], [truth]).figures()
    assert constant["auroc"] == 0.5
    assert constant["au_pro"] == pytest.approx(0.15)  # the diagonal up to 0.3


def test_pixel_figures_without_a_defect_are_none():
    found = curves([np.ones((4, 4), np.float32)], [np.zeros((4, 4), bool)]).figures()
    assert found["auroc"] is None and found["au_pro"] is None and found["f1_max"] is None


def test_touching_corners_are_one_component():
    truth = np.eye(6, dtype=bool)
    found = curves([truth.astype(np.float32)], [truth])
    assert found.components == 1


def test_confusion_and_rates():
    counts = confusion(np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1, 0]))
    assert list(counts.values()) == [2, 1, 1, 3]
    found = rates(counts)
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert found["precision"] == found["recall"] == found["f1"] == 0.75
    assert found["specificity"] == pytest.approx(2 / 3) and found["false_positive_rate"] == pytest.approx(1 / 3)
    assert found["false_negative_rate"] == 0.25 and found["balanced_accuracy"] == pytest.approx((0.75 + 2 / 3) / 2)


def test_rates_without_a_denominator_are_none():
    found = rates(confusion(np.array([0, 0]), np.array([0, 0])))
    assert found["recall"] is found["precision"] is found["f1"] is found["balanced_accuracy"] is None
    assert found["specificity"] == 1.0
    assert set(rates(confusion(np.array([]), np.array([]))).values()) == {None}
    # Every defect missed is a failure, not an unknown.
    assert rates(confusion(np.array([0, 1]), np.array([0, 0])))["f1"] == 0.0


@pytest.mark.parametrize(
    "k, n, low, high", [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962)]
)
def test_wilson_against_published_values(k, n, low, high):
    assert wilson(k, n) == pytest.approx([low, high], abs=1e-4)


def test_wilson_of_nothing():
    assert wilson(0, 0) is None


def test_auroc_needs_both_classes():
    assert metrics.auroc(np.zeros(3), np.arange(3)) is None
    assert metrics.average_precision(np.ones(3), np.arange(3)) is None
    assert bootstrap_auroc(np.ones(3), np.arange(3)) is None
    assert metrics.auroc(np.array([0, 1, 0, 1]), np.array([1.0, 1.0, 0.0, 2.0])) == 0.875


def test_bootstrap_is_the_plain_bootstrap():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [12, 9])
    scores = np.round(rng.normal(labels, 1.0), 1)
    draws = np.random.default_rng(4)
    areas = []
    for _ in range(300):
        good = scores[:12][draws.integers(12, size=12)]
        bad = scores[12:][draws.integers(9, size=9)]
        areas.append(roc_auc_score(labels, np.concatenate([good, bad])))
    assert bootstrap_auroc(labels, scores, seed=4, resamples=300) == pytest.approx(np.quantile(areas, [0.025, 0.975]))


def test_bootstrap_is_seeded_and_narrows_with_more_images():
    rng = np.random.default_rng(0)

    def interval(n, seed=0):
        labels = np.repeat([0, 1], n)
        return bootstrap_auroc(labels, rng.normal(labels, 1.0), seed, 400)

    labels, scores = np.repeat([0, 1], 20), np.random.default_rng(2).normal(np.repeat([0, 1], 20), 1.0)
    assert bootstrap_auroc(labels, scores, 1) == bootstrap_auroc(labels, scores, 1)
    assert bootstrap_auroc(labels, scores, 1) != bootstrap_auroc(labels, scores, 2)
    few, many = interval(10), interval(400)
    assert many[1] - many[0] < (few[1] - few[0]) / 2
