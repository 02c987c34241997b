"""Pixel thresholds: chosen on the other folds, on maps by banks without the fold they are for."""

import numpy as np
import pandas as pd
import pytest
from defectflow.core.anomaly_maps import AnomalyMap, full_resolution, smooth_map
from defectflow.decision.chosen_threshold import calibrate
from defectflow.evaluation.pixel_metrics import pixel_figures
from defectflow.images.read_write import write_png
from defectflow.metrics.pixel_curves import PixelHistogram

SIDE = 32
FOLDS = ["0", "1", "2", "0", "1", "2"]
LABELS = [0, 0, 0, 1, 1, 1]
TRUTH = np.zeros((SIDE, SIDE), bool)
TRUTH[8:16, 8:16] = True


def a_map(seed, bad):
    values = np.random.default_rng(seed).random((SIDE // 4, SIDE // 4)).astype(np.float32)
    values[2:4, 2:4] += 2 * bad
    return AnomalyMap(values, np.array([[1.0, 0, 0], [0, 1, 0]]), (SIDE, SIDE))


@pytest.fixture(params=["marked", "unmarked", "in the part"])
def case(request, tmp_path):
    """A gathered table, maps, maps for each fold, and masks of the part."""
    write_png(tmp_path / "truth.png", TRUTH)
    marked = request.param != "unmarked"
    names = [f"i{k}" for k in range(len(FOLDS))]
    table = pd.DataFrame(
        {
            "image_id": names,
            "label": LABELS,
            "fold": FOLDS,
            "detection": "fold",
            "raw_score": 1.0,
            "width": SIDE,
            "height": SIDE,
            "mask": [str(tmp_path / "truth.png") if marked and label else "" for label in LABELS],
        }
    )
    maps = {name: a_map(k, LABELS[k]) for k, name in enumerate(names)}
    nested = {
        f"{fold}/{name}": a_map(100 + 10 * int(fold) + k, LABELS[k])
        for fold in sorted(set(FOLDS))
        for k, name in enumerate(names)
        if fold != FOLDS[k]
    }
    part = pd.DataFrame({"image_id": names, "mask": ""})
    if request.param == "in the part":
        write_png(tmp_path / "part.png", np.arange(SIDE)[None].repeat(SIDE, axis=0) < 24)
        part["mask"] = str(tmp_path / "part.png")
    return table, maps, nested, part


def cuts(table, maps, nested, part):
    return pixel_figures(table, maps, part, "f1_adaptive", {}, nested).thresholds.tolist()


def test_what_a_fold_taught_the_banks_does_not_matter_to_its_threshold(case):
    table, maps, nested, part = case
    before = cuts(table, maps, nested, part)
    # Maps of the other images by banks that hold fold 0, and all maps of fold 0 itself.
    other = {name: a_map(500 + k, LABELS[k]) for k, name in enumerate(maps)}
    others = {key: a_map(900, 1) if key.split("/")[1] in ("i0", "i3") else value for key, value in nested.items()}
    after = cuts(table, other, others, part)
    assert [after[k] for k in (0, 3)] == [before[k] for k in (0, 3)]
    assert all(after[k] != before[k] for k in (1, 2, 4, 5))
    assert all(a != b for a, b in zip(before, cuts(table, maps, {}, part), strict=True))


def test_the_threshold_is_the_best_of_those_maps(case):
    table, maps, nested, part = case
    own = {key: entry for key, entry in nested.items() if key.startswith("1/")}
    if (table["mask"] == "").all():
        peaks = np.array([smooth_map(e.grid_map, e.input_size).max() for e in own.values()])
        labels = np.array([LABELS[int(key[-1])] for key in own])
        expected = calibrate(peaks, labels, "f1_adaptive").value
    else:
        low = min(e.grid_map.min() for e in own.values())
        high = max(e.grid_map.max() for e in own.values())
        histogram, region = PixelHistogram(low, high), None
        if part["mask"][0]:
            region = np.arange(SIDE)[None].repeat(SIDE, axis=0) < 24
        for key, e in own.items():
            heat = full_resolution(e.grid_map, e.affine, e.input_size, (SIDE, SIDE))
            histogram.add(heat, TRUTH if LABELS[int(key[-1])] else None, region)
        expected = histogram.best_threshold()
    assert cuts(table, maps, nested, part)[1] == pytest.approx(expected, rel=1e-8)


def test_a_fold_without_maps_of_its_own_takes_those_of_the_run(case):
    table, maps, nested, part = case
    plain = cuts(table, maps, {}, part)
    del nested["2/i0"]
    mixed = cuts(table, maps, nested, part)
    assert mixed[2] == plain[2] and mixed[5] == plain[5] and mixed[0] != plain[0]
