import numpy as np
import photograph_set
import pytest
from defectflow.pretraining.annotated_photographs import read_photographs
from defectflow.pretraining.photograph_figures import box_of, calibration, deepest, question_rows, sampled, targets
from defectflow.segmentation.sam_model import NEGATIVE, POSITIVE


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    photograph_set.write_photographs(folder)
    return read_photographs(folder)


class Painter:
    """Answers with the box, or with a square about each positive click."""

    def look(self, image):
        return image.shape[:2]

    def answer(self, seen, points, labels, before, several):
        mask = np.zeros(seen, bool)
        if labels[0] == 2:
            (x, y), (right, bottom) = points.astype(int)
            mask[y:bottom, x:right] = True
        for (x, y), label in zip(points.astype(int), labels, strict=True):
            if label == POSITIVE:
                mask[max(0, y - 9) : y + 10, max(0, x - 9) : x + 10] = True
        assert several == (len(points) == 1 and before is None)
        return mask, 0.75, mask


def test_boxes_and_clicks_are_asked_of_figures_and_objects(photographs):
    rows = question_rows(Painter(), photographs[-1])
    assert {(r["target"], r["prompt"]) for r in rows} == {
        (target, prompt) for target in ("figure", "object") for prompt in ("box", "click 1", "click 2", "click 3")
    }
    of_objects = [r["iou"] for r in rows if (r["target"], r["prompt"]) == ("object", "box")]
    assert len(of_objects) == 2 and np.allclose(of_objects, np.pi / 4, atol=0.08)
    figure = [r["iou"] for r in rows if r["target"] == "figure" and r["prompt"].startswith("click")]
    assert figure[0] < figure[1]  # the second click falls on the other object
    assert calibration(rows) == [(0.75, pytest.approx(np.mean([r["iou"] for r in rows])), len(rows))]


def test_the_click_lies_deepest_inside_the_largest_error():
    true = np.zeros((40, 40), bool)
    true[10:31, 10:31] = True
    place, label = deepest(true, np.zeros_like(true))
    assert place.tolist() == [[20.5, 20.5]] and label == POSITIVE
    wrong = true.copy()
    wrong[:, 33:] = True
    place, label = deepest(true, wrong)
    assert place[0, 0] > 33 and label == NEGATIVE
    assert deepest(true, true) is None
    assert box_of(true).tolist() == [[10, 10], [31, 31]]


def test_targets_and_samples_are_the_same_each_time(photographs):
    one = photographs[0]
    assert [m.sum() for m in targets(one)["object"]] == [m.sum() for m in targets(one)["object"]]
    assert not targets(one)["figure"] and len(targets(one, objects=1)["object"]) == 1
    few = sampled(photographs, 3)
    assert [p.source for p in few] == ["people"] * 3 + ["tools"] * 3
    assert few == sampled(photographs[::-1], 3)
