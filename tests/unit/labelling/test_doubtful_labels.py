import numpy as np
import pytest
from compared_set import compared
from defectflow.labelling.doubtful_labels import WHY, doubtful_labels

FLIPPED = [3, 17, 45, 52]


def labelled(alike=False, flipped=FLIPPED):
    """Forty good photographs in a cloud, twenty bad ones away from it, and some labels the other way round."""
    rng = np.random.default_rng(0)
    away = 5 + (0.2 if alike else 2) * rng.normal(0, 1, (20, 40))
    points = np.concatenate([rng.normal(0, 1, (40, 40)), away])
    label = np.repeat([0.0, 1.0], [40, 20])
    label[flipped] = 1 - label[flipped]
    return compared(points, np.flatnonzero(label == 0)), label


@pytest.mark.parametrize("alike", [False, True])
def test_the_wrong_labels_come_first(alike):
    # Alike: bad photographs that are labelled good and look the same would vouch for each other.
    found = doubtful_labels(*labelled(alike))
    assert set(found["image_id"][: len(FLIPPED)]) == {f"p{k:03}" for k in FLIPPED}
    assert found["doubt"].is_monotonic_decreasing and (found["doubt"] > 0).all()
    for row in found.itertuples():
        assert row.why == WHY[row.label] and (row.score >= row.threshold) == (row.label == 0)
        assert row.nearest != row.image_id and int(row.nearest[1:]) < 40


def test_right_labels_are_not_listed():
    assert doubtful_labels(*labelled(flipped=[])).empty


def test_few_photographs_or_no_good_one_give_an_empty_list():
    distances, label = labelled()
    assert doubtful_labels(compared(np.zeros((4, 2))), np.array([0, 0, 1, 1.0])).empty
    assert doubtful_labels(compared(np.eye(40), []), np.ones(40)).empty
    assert len(doubtful_labels(distances, label).columns) == 7
