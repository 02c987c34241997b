import numpy as np
import pytest
from compared_set import compared
from defectflow.labelling.far_photographs import FEWEST, far_photographs

DIMENSIONS = 40  # of a cloud: in few of them the nearest is much nearer than the others


def cloud(rng, count):
    return rng.normal(0, 1, (count, DIMENSIONS))


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("bad", [2, 5, 10])
def test_what_lies_outside_of_a_cloud_is_far_also_where_it_is_alike(alike, bad):
    rng = np.random.default_rng(bad)
    away = 4 + (0.1 * cloud(rng, bad) if alike else 3 * cloud(rng, bad))
    found = far_photographs(compared(np.concatenate([cloud(rng, 40), away])))
    assert found.compact and found.far[40:].all() and found.far[:40].sum() <= 10
    assert (found.distance[found.far] > found.limit).all()


def test_of_many_different_views_none_is_far():
    rng = np.random.default_rng(0)
    views = 20 * cloud(rng, 10)
    found = far_photographs(compared(np.repeat(views, 4, axis=0) + 0.1 * cloud(rng, 40)))
    assert not found.compact and not found.far.any()


def test_among_many_views_one_that_stands_out_is_far():
    rng = np.random.default_rng(1)
    views = np.repeat(20 * cloud(rng, 10), 4, axis=0) + 0.1 * cloud(rng, 40)
    found = far_photographs(compared(np.concatenate([views, np.full((1, DIMENSIONS), 1000.0)])))
    assert not found.compact and found.far.nonzero()[0].tolist() == [40]


def test_with_few_photographs_none_is_far():
    rng = np.random.default_rng(2)
    points = np.concatenate([cloud(rng, FEWEST - 2), np.full((1, DIMENSIONS), 100.0)])
    assert not far_photographs(compared(points)).far.any()


def test_equal_photographs_are_not_far():
    assert not far_photographs(compared(np.zeros((20, 3)))).far.any()


def test_only_the_rows_asked_for_can_be_far():
    rng = np.random.default_rng(3)
    points = np.concatenate([cloud(rng, 30), 20 + cloud(rng, 10)])
    rows = np.arange(40) < 30
    assert not far_photographs(compared(points, np.arange(30)), rows).far[30:].any()
