import numpy as np
import pytest
from defectflow.isolation.drawn_defects import KINDS, drawn


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_a_little_of_the_part_and_nothing_else(kind):
    mask = np.zeros((160, 200), bool)
    mask[20:140, 30:170] = True
    image = np.random.default_rng(0).integers(90, 130, (160, 200, 3), dtype=np.uint8)
    image[~mask] = (0, 0, 0)
    shares = []
    for seed in range(20):
        found = drawn(kind, image, mask, np.random.default_rng(seed))
        changed = (found != image).any(axis=2)
        assert found.dtype == np.uint8 and not changed[~mask].any()
        assert np.array_equal(found, drawn(kind, image, mask, np.random.default_rng(seed)))
        shares.append(changed.sum() / mask.sum())
    assert min(shares) > 0.0003 and max(shares) < 0.15 and len(set(shares)) > 10
    if kind == "missing":
        assert (found[changed].max(axis=1) < 90).mean() > 0.6, "what lies beside the part is black"


@pytest.mark.parametrize("kind", KINDS[:3])
def test_the_part_may_fill_the_picture_or_be_tiny(kind):
    image = np.random.default_rng(0).integers(90, 130, (40, 30, 3), dtype=np.uint8)
    assert (drawn(kind, image, np.ones((40, 30), bool), np.random.default_rng(1)) != image).any()
    dot = np.zeros((40, 30), bool)
    dot[39, 29] = True
    assert not (drawn(kind, image, dot, np.random.default_rng(1)) != image)[~dot].any()
