import numpy as np
import pytest
from defectflow.pretraining.annotated_photographs import UNKNOWN, Photograph
from defectflow.pretraining.figure_card import figure_iou, figure_rows, means, surfaces


def photograph(labels, figure=True, source="tools"):
    image = np.zeros((*labels.shape, 3), np.uint8)
    return Photograph(f"{source}/x.png", source, "CC BY 4.0", image, labels, figure)


def test_iou_is_taken_at_the_size_of_the_photograph_where_the_label_knows():
    labels = np.zeros((40, 80), np.uint8)
    labels[:, :40] = 1
    probability = np.zeros((20, 20), np.float32)
    probability[:, :10] = 1
    assert figure_iou(probability, photograph(labels)) == 1
    probability[:, 10:15] = 1
    assert figure_iou(probability, photograph(labels)) == pytest.approx(40 / 60, abs=0.02)
    labels[:, 40:] = UNKNOWN
    assert figure_iou(probability, photograph(labels)) == 1


def test_only_usable_figures_are_asked_about():
    class Half:
        def predict(self, images):
            half = np.zeros((8, 8), np.float32)
            half[:, :4] = 1
            return [type("Figure", (), {"probability": half, "doubt": half * 0, "surface": 0.7})]

    labels = np.zeros((40, 80), np.uint8)
    empty = photograph(labels.copy())
    labels[:, :40] = 2
    rows = figure_rows(Half(), [photograph(labels), photograph(labels, False), empty, photograph(labels, True, "cat")])
    assert [row["source"] for row in rows] == ["tools", "cat"]
    assert means(rows) == {s: {"photographs": 1, "iou": 1.0, "as_surface": 1.0} for s in ("tools", "cat")}


def test_surfaces_to_measure_on_are_always_the_same():
    photos = [np.random.default_rng(k).integers(0, 256, (70, 90, 3), dtype=np.uint8) for k in range(2)]
    first, again = surfaces(photos, 3), surfaces(photos, 3)
    assert len(first) == 3 and all(np.array_equal(one, same) for one, same in zip(first, again, strict=True))
