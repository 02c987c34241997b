import cv2
import numpy as np
import pytest
from defectflow.metrics.metrics import confusion
from defectflow.metrics.pixel_curves import ImageOverlap, PixelCurves, mean_between
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
    assert curves(heats, truths).au_pro(limit) == pytest.approx(literal_au_pro(heats, truths, limit), abs=3e-5 / limit)


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


def test_both_au_pros_are_reported():
    heats, truths = pictures(1)
    found = curves(heats, truths)
    assert found.figures()["au_pro"] == found.au_pro(0.3) != found.au_pro(0.05) == found.figures()["au_pro_0_05"]


def test_curves_add_and_subtract():
    heats, truths = pictures(3)
    bounds = min(h.min() for h in heats), max(h.max() for h in heats)
    parts = [PixelCurves(*bounds) for _ in heats]
    for part, heat, truth in zip(parts, heats, truths, strict=True):
        part.add(heat, truth if truth.any() else None)
    whole = curves(heats, truths)
    total = sum(parts[1:], parts[0])
    assert total.figures() == whole.figures()
    without = (total - parts[2]).figures()
    expected = PixelCurves(*bounds)
    for index in (0, 1, 3, 4):
        expected.add(heats[index], truths[index] if truths[index].any() else None)
    assert without == {key: pytest.approx(value) for key, value in expected.figures().items()}


@pytest.mark.parametrize("threshold", [-1.0, 0.5, 2.0, 99.0])
def test_counts_at_a_threshold(threshold):
    heats, truths = pictures(2)
    found = curves(heats, truths)
    threshold = found.low + round((threshold - found.low) / found.step) * found.step  # the edge of a bin
    pixels, labels = np.concatenate([h.ravel() for h in heats]), np.concatenate([t.ravel() for t in truths])
    assert found.counts_at(threshold) == confusion(labels, pixels >= threshold)


def test_aupimo_equals_anomalibs():
    import torch
    from anomalib.metrics.pimo import functional

    rng = np.random.default_rng(0)
    truths = [np.zeros((400, 400), bool) for _ in range(9)]
    for truth in truths[6:]:
        row, column = rng.integers(10, 300, 2)
        truth[row : row + 14, column : column + 18] = True
    heats = [(rng.normal(0, 1, t.shape) + rng.uniform(2.5, 5) * t).astype(np.float32) for t in truths]
    theirs = functional.aupimo_scores(torch.tensor(np.stack(heats)), torch.tensor(np.stack(truths)).int())[4]
    ours = ImageOverlap(min(h.min() for h in heats), max(h.max() for h in heats))
    for heat in heats[:6]:
        ours.add_good(heat)
    scores = [ours.score(heat, truth) for heat, truth in zip(heats[6:], truths[6:], strict=True)]
    assert scores == pytest.approx(theirs[6:].tolist(), abs=0.02)  # theirs cuts the range at the nearest rate
    assert 0 < min(scores) < 0.5 < max(scores) < 1


def test_aupimo_of_known_cases():
    good = np.linspace(0, 1, 200_000).reshape(400, 500).astype(np.float32)
    truth = np.zeros(good.shape, bool)
    truth[:10, :10] = True
    overlap = ImageOverlap(0.0, 2.0)
    assert overlap.score(good, truth) is None  # no good image: no false positive rate
    overlap.add_good(good)
    assert overlap.score(np.where(truth, 2.0, good), truth) == 1.0
    assert overlap.score(np.where(truth, 0.5, good), truth) == 0.0
    half = np.where(truth, 0.5, good)
    half[:5, :10] = 2.0
    assert overlap.score(half, truth) == 0.5
    assert overlap.score(half, truth, np.arange(400)[:, None] >= np.full(500, 5)) == 0.0  # the other half alone
    assert overlap.score(half, np.zeros_like(truth)) is None
    few = ImageOverlap(0.0, 2.0)
    few.add_good(good[:100, :100])  # 10,000 pixels do not tell a rate of 1e-5
    assert few.score(half, truth) is None


def test_mean_between_interpolates_at_both_ends():
    x, y = np.array([0.0, 1.0, 3.0]), np.array([0.0, 1.0, 5.0])
    assert mean_between(x, y, 0.0, 1.0) == 0.5
    assert mean_between(x, y, 0.5, 2.0) == pytest.approx((0.75 * 0.5 + 2.0 * 1.0) / 1.5)
